//! Getting out of the group, and at the programs and maps that filter it. Each attack ends with a datagram to the peer.

use crate::{
    Target,
    call::{Socket, check},
    link,
};
use std::{
    fs,
    io::{self, Read, Write},
    mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_OBJ_GET: i32 = 7;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_MAP_GET_FD_BY_ID: i32 = 14;
const BPF_LINK_GET_FD_BY_ID: i32 = 30;
const BPF_LINK_GET_NEXT_ID: i32 = 31;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_LINK_DETACH: i32 = 34;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The attacks of this file.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    let result = match name {
        "leave" => mount("cgroup2").and_then(|mount| leave(&mount, target)),
        // as another process sees the file system
        "leave-through-another" => mount("cgroup2").and_then(|mount| {
            let below = mount.strip_prefix("/").map_err(io::Error::other)?;
            leave(&PathBuf::from(format!("/proc/{}/root", target.word(0)?)).join(below), target)
        }),
        "leave-by-birth" => leave_by_birth(target),
        "leave-by-new-mount" => new_mount().and_then(|mount| leave(&mount, target)),
        "detach-by-id" => detach_by_id().and_then(|()| send(target)),
        "detach-by-pin" => detach_by_pin().and_then(|()| send(target)),
        "write-map-by-id" => write_map_by_id().and_then(|()| send(target)),
        "write-map-by-pin" => write_map_by_pin().and_then(|()| send(target)),
        "steal" => steal(target),
        "kill" => kill(target),
        "enter-network" => enter_network(target),
        "own-user" => unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET, target),
        "own-network" => unshare(libc::CLONE_NEWNET, target),
        "own-network-joined" => joined_network(target),
        "user" => user(target),
        "sudo-packet" => set_user_id(target),
        _ => return None,
    };
    Some(result)
}

/// What every policy of these tests refuses.
fn send(target: &Target) -> io::Result<()> {
    Socket::datagram(target.peer)?.send_to(&target.token(), 0, target.peer)
}

/// Where a file system of this type is mounted, as outside the run.
pub fn mount(kind: &str) -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let point = words.next()?;
        (words.next()? == kind).then(|| PathBuf::from(point))
    });
    points.next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn leave(mount: &Path, target: &Target) -> io::Result<()> {
    fs::write(mount.join("cgroup.procs"), "0")?;
    send(target)
}

/// A child that is born in another group.
fn leave_by_birth(target: &Target) -> io::Result<()> {
    let root = fs::File::open(mount("cgroup2")?)?;
    // flags, pidfd, two places for ids, signal, stack, its size, tls, ids and their number, cgroup
    let mut arguments = [0u64; 11];
    arguments[0] = CLONE_INTO_CGROUP;
    arguments[4] = libc::SIGCHLD as u64;
    arguments[10] = root.as_raw_fd() as u64;
    // SAFETY: as fork, of a process with one thread of importance; the child only sends and ends.
    let child = check(unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), mem::size_of_val(&arguments)) })?;
    if child == 0 {
        let status = i32::from(send(target).is_err());
        // SAFETY: ends this process.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: one number.
    check(unsafe { libc::waitpid(child as i32, &raw mut status, 0) })?;
    if status == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// The file system of groups, mounted where it is not hidden: over the folder of this program, for this process alone.
fn new_mount() -> io::Result<PathBuf> {
    let folder = std::env::current_exe()?.parent().ok_or(io::ErrorKind::NotFound)?.to_owned();
    let place = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes())?;
    let (none, root, nothing) = (c"none".as_ptr(), c"/".as_ptr(), std::ptr::null());
    // SAFETY: strings that end.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(none, root, nothing, libc::MS_REC | libc::MS_PRIVATE, nothing.cast()))?;
        check(libc::mount(none, place.as_ptr(), c"cgroup2".as_ptr(), 0, nothing.cast()))?;
    }
    Ok(folder)
}

/// A call of bpf(2) whose attributes are these words.
fn bpf(command: i32, words: &mut [u64; 8]) -> io::Result<i64> {
    // SAFETY: the attributes name memory of the callers alone.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), 64) })
}

/// The group of this process: its path below the mount, and its number.
fn group() -> io::Result<(String, u64)> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    let number = fs::metadata(mount("cgroup2")?.join(&path))?.ino();
    Ok((path, number))
}

fn detach(link: &OwnedFd) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &mut [link.as_raw_fd() as u64, 0, 0, 0, 0, 0, 0, 0]).map(drop)
}

/// A descriptor of what has this id, by the command that gives it.
fn by_id(command: i32, id: u64) -> io::Result<OwnedFd> {
    let number = bpf(command, &mut [id, 0, 0, 0, 0, 0, 0, 0])?;
    // SAFETY: the descriptor is new.
    Ok(unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}

/// What the kernel tells of an object; `info` may name memory of the caller's.
fn about(object: &OwnedFd, info: &mut [u64; 16]) -> io::Result<()> {
    let length = mem::size_of_val(info) as u64;
    let mut words = [object.as_raw_fd() as u64 | length << 32, info.as_mut_ptr() as u64, 0, 0, 0, 0, 0, 0];
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut words).map(drop)
}

/// The links that attach programs to this process's own group, found by their ids, and the ids of the programs.
fn own_links() -> io::Result<Vec<(OwnedFd, u64)>> {
    let mut id = 0u64;
    let mut links = Vec::new();
    // before anything of the kernel's that is hidden
    loop {
        let mut words = [id, 0, 0, 0, 0, 0, 0, 0];
        match bpf(BPF_LINK_GET_NEXT_ID, &mut words) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            result => result?,
        };
        // the next number stands in the upper half of the first word
        id = words[0] >> 32;
        let Ok(link) = by_id(BPF_LINK_GET_FD_BY_ID, id) else { continue };
        let mut info = [0u64; 16];
        about(&link, &mut info)?;
        // type, id; program; the group: only one's own, since others are other people's
        let (kind, program, its_group) = (info[0] as u32, info[1] & 0xffff_ffff, info[2]);
        const CGROUP: u32 = 3;
        if kind == CGROUP && its_group == group()?.1 {
            links.push((link, program));
        }
    }
    if links.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(links) }
}

/// Detaches all programs of this process's own group.
fn detach_by_id() -> io::Result<()> {
    own_links()?.iter().try_for_each(|(link, _)| detach(link))
}

/// Makes a dry run of the run: in the map that tells its programs what to do, which one of them is asked for.
fn write_map_by_id() -> io::Result<()> {
    let (_, program) = own_links()?.swap_remove(0);
    let mut maps = [0u32; 64];
    let mut info = [0u64; 16];
    // nr_map_ids, behind the user who made it; and where they are to be written
    (info[6], info[7]) = ((maps.len() as u64) << 32, maps.as_mut_ptr() as u64);
    about(&by_id(BPF_PROG_GET_FD_BY_ID, program)?, &mut info)?;
    for id in &maps[..(info[6] >> 32) as usize] {
        let map = by_id(BPF_MAP_GET_FD_BY_ID, u64::from(*id))?;
        let mut info = [0u64; 16];
        about(&map, &mut info)?;
        // its name comes behind six numbers
        if info[3].to_ne_bytes() == *b"CONFIG\0\0" {
            return make_dry_run(&map);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The same by the map's pin.
fn write_map_by_pin() -> io::Result<()> {
    let pin = pins()?.join("CONFIG");
    let pin = std::ffi::CString::new(pin.as_os_str().as_encoded_bytes())?;
    let number = bpf(BPF_OBJ_GET, &mut [pin.as_ptr() as u64, 0, 0, 0, 0, 0, 0, 0])?;
    // SAFETY: the descriptor is new.
    make_dry_run(&unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}

fn make_dry_run(config: &OwnedFd) -> io::Result<()> {
    let (key, mut value) = (0u32, [0u64; 64]);
    let words = |value: *mut u64| [config.as_raw_fd() as u64, (&raw const key) as u64, value as u64, 0, 0, 0, 0, 0];
    bpf(BPF_MAP_LOOKUP_ELEM, &mut words(value.as_mut_ptr()))?;
    // the flags, of which the lowest lets everything through
    value[1] |= 1;
    bpf(BPF_MAP_UPDATE_ELEM, &mut words(value.as_mut_ptr())).map(drop)
}

/// The folder of what is pinned for this process's group.
fn pins() -> io::Result<PathBuf> {
    let (path, _) = group()?;
    let name = path.rsplit('/').next().unwrap_or_default();
    let folders =
        ["/sys/fs/bpf/wfp", "/run/wfp/bpf", "/run/wfp/bpf/wfp"].map(|folder| PathBuf::from(folder).join(name));
    folders.into_iter().find(|folder| folder.exists()).ok_or(io::ErrorKind::NotFound.into())
}

/// Detaches what is pinned for this process's group.
fn detach_by_pin() -> io::Result<()> {
    let mut detached = false;
    for pin in fs::read_dir(pins()?)? {
        let pin = std::ffi::CString::new(pin?.path().as_os_str().as_encoded_bytes())?;
        let Ok(number) = bpf(BPF_OBJ_GET, &mut [pin.as_ptr() as u64, 0, 0, 0, 0, 0, 0, 0]) else { continue };
        // SAFETY: the descriptor is new.
        let object = unsafe { OwnedFd::from_raw_fd(number as RawFd) };
        detached |= detach(&object).is_ok();
    }
    if detached { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// The process that runs `wfp`: the parent.
fn parent() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::getppid() }
}

/// Takes a socket (the second word) of a process outside (the first), and sends with it.
fn steal(target: &Target) -> io::Result<()> {
    let number = |index| target.word(index).and_then(|word| word.parse::<i32>().map_err(io::Error::other));
    let (process, descriptor) = (number(0)?, number(1)?);
    // SAFETY: numbers; the descriptors are new.
    let socket = unsafe {
        let process = check(libc::syscall(libc::SYS_pidfd_open, process, 0))?;
        let process = OwnedFd::from_raw_fd(process as RawFd);
        let socket = check(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0))?;
        Socket(OwnedFd::from_raw_fd(socket as RawFd))
    };
    socket.send_to(&target.token(), 0, target.peer)
}

/// Ends `wfp`, and sends.
fn kill(target: &Target) -> io::Result<()> {
    let parent = parent();
    let name = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap_or_default();
    // never anything else
    if name.trim() == "wfp" {
        // SAFETY: numbers.
        check(unsafe { libc::kill(parent, libc::SIGKILL) })?;
        std::thread::sleep(Duration::from_millis(200));
    }
    send(target)
}

/// Enters the network of another process, and sends from there to where that is.
fn enter_network(target: &Target) -> io::Result<()> {
    let network = fs::File::open(target.word(0)?)?;
    // SAFETY: a descriptor and a number.
    check(unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) })?;
    send(target)
}

/// Namespaces of its own, in which it may do what it likes; from there it can at most make packets for itself.
fn unshare(flags: i32, target: &Target) -> io::Result<()> {
    let before = Socket::datagram(target.peer)?;
    in_child(|| {
        // SAFETY: a number.
        check(unsafe { libc::unshare(flags) })?;
        // a socket of the former network still leads out
        before.send_to(&target.token(), 0, target.peer)
    })
}

/// A network of its own, with a cable to the former one, which forwards what is sent there.
fn joined_network(target: &Target) -> io::Result<()> {
    let (mut here, mut there) = UnixStream::pair()?;
    // each holds the other's end too, and would wait for ever for one that has failed
    for end in [&here, &there] {
        end.set_read_timeout(Some(Duration::from_secs(1)))?;
    }
    let join = |child: i32| {
        here.read_exact(&mut [0])?;
        link::ip(&format!("link add wfp-join type veth peer name wfp-own netns {child}"))?;
        link::ip("address add 10.80.0.1/24 dev wfp-join")?;
        link::ip("link set wfp-join up")?;
        here.write_all(b".")
    };
    let result = in_child_while(join, || {
        // SAFETY: a number.
        check(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        there.write_all(b".")?;
        there.read_exact(&mut [0])?;
        link::ip("address add 10.80.0.2/24 dev wfp-own")?;
        link::ip("link set wfp-own up")?;
        link::ip("route add default via 10.80.0.1")?;
        send(target)
    });
    let _ = link::ip("link delete wfp-join");
    result
}

/// Does something in a child, which has one thread alone.
fn in_child(action: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    in_child_while(|_| Ok(()), action)
}

/// The same, while this process does something that needs to know the child; the child is ended where that fails.
fn in_child_while(
    meanwhile: impl FnOnce(i32) -> io::Result<()>,
    action: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    // SAFETY: the child makes system calls and ends.
    let child = check(unsafe { libc::fork() })?;
    if child == 0 {
        let code = action().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
        // SAFETY: ends this process.
        unsafe { libc::_exit(code) };
    }
    let done = meanwhile(child as i32);
    if done.is_err() {
        // SAFETY: numbers; the child has not been waited for.
        unsafe { libc::kill(child as i32, libc::SIGKILL) };
    }
    let mut status = 0;
    // SAFETY: one number.
    check(unsafe { libc::waitpid(child as i32, &raw mut status, 0) })?;
    match libc::WEXITSTATUS(status) {
        0 => done,
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// As another user (the first word), which a policy may ask for.
fn user(target: &Target) -> io::Result<()> {
    let id = target.word(0)?.parse().map_err(io::Error::other)?;
    // SAFETY: a number.
    check(unsafe { libc::setresuid(id, id, id) })?;
    send(target)
}

/// A packet socket, for a program that is set-user-id root: it makes the right effective for all of the process.
fn set_user_id(target: &Target) -> io::Result<()> {
    let ip = (libc::ETH_P_IP as u16).to_be().into();
    let socket = Socket::new(libc::AF_PACKET, libc::SOCK_DGRAM, ip)?;
    link::to_everybody(&socket, target)
}
