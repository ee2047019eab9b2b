//! Sockets that come from elsewhere, and helpers outside that act for a command.

use crate::{
    Target,
    call::{Socket, check},
};
use std::{
    io::{self, Read, Write},
    mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// The attacks of this file. The first word is where the helper listens: a path, or `@` and an abstract name.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    let result = match name {
        "inherited" => inherited(3, target),
        "inherited-input" => inherited(0, target),
        // the helper sends one of its own sockets
        "socket-from-outside" => ask(target, "socket").and_then(|helper| {
            let socket = Socket(receive(&helper)?);
            socket.send_to(&target.token(), 0, target.peer)
        }),
        // the helper has one that was made in another network
        "socket-of-another-network" => ask(target, "peer-socket").and_then(|helper| {
            let socket = Socket(receive(&helper)?);
            socket.send_to(&target.token(), 0, target.peer)
        }),
        // the helper sends with one of this process's
        "socket-to-outside" => ask(target, "send").and_then(|mut helper| {
            let socket = Socket::datagram(target.peer)?;
            hand_over(&helper, &socket.0)?;
            finished(&mut helper)
        }),
        "socket-to-outside-stream" => ask(target, "connect").and_then(|mut helper| {
            let socket = Socket::stream(target.peer)?;
            hand_over(&helper, &socket.0)?;
            finished(&mut helper)
        }),
        // the same by loopback, as ssh to this machine
        "helper-by-loopback" => by_loopback(target),
        // the same, by ways to the socket that look like others
        "helper-by-link" => another_way(target, |place, own| {
            let link = own.join("link");
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(place, &link).map(|()| link)
        }),
        "helper-by-parent" => {
            another_way(target, |place, own| Ok(own.join("../..").join(place.strip_prefix("/").unwrap_or(place))))
        }
        "helper-by-slashes" => another_way(target, |place, _| Ok(Path::new("/").join(format!("/{}", place.display())))),
        "helper-from-its-folder" => another_way(target, |place, _| {
            std::env::set_current_dir(place.parent().unwrap_or(place))?;
            Ok(place.file_name().unwrap_or_default().into())
        }),
        // sockets of this process alone
        "own-sockets" => own_sockets(),
        // the helper, which may, takes this process out of its group
        "helper-moves" => ask(target, &format!("move:{}", std::process::id())).and_then(|mut helper| {
            finished(&mut helper)?;
            Socket::datagram(target.peer)?.send_to(&target.token(), 0, target.peer)
        }),
        // a service that D-Bus starts
        "activate" => activate(target),
        // a file that somebody executes later
        "leave-behind" => leave_behind(target),
        // the helper does it all
        "helper" => ask(target, "act").and_then(|mut helper| finished(&mut helper)),
        _ => return None,
    };
    Some(result)
}

fn inherited(number: RawFd, target: &Target) -> io::Result<()> {
    // SAFETY: whether it is open, the kernel checks.
    let copy = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 10) })?;
    // SAFETY: the descriptor is new.
    let socket = Socket(unsafe { OwnedFd::from_raw_fd(copy as RawFd) });
    socket.send_to(&target.token(), 0, target.peer)
}

/// Asks the helper for something.
fn ask(target: &Target, what: &str) -> io::Result<UnixStream> {
    let place = target.word(0)?;
    let mut helper = match place.strip_prefix('@') {
        Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => UnixStream::connect(place)?,
    };
    writeln!(helper, "{what} {}", target.peer)?;
    Ok(helper)
}

/// Asks the helper through another path to its socket, which is made from the path and a folder of this process.
fn another_way(target: &Target, way: impl Fn(&Path, &Path) -> io::Result<PathBuf>) -> io::Result<()> {
    let path = way(Path::new(target.word(0)?), &std::env::temp_dir())?;
    let words = vec![path.to_str().ok_or(io::ErrorKind::InvalidInput)?.to_owned()];
    ask(&Target { words, ..target.clone() }, "act").and_then(|mut helper| finished(&mut helper))
}

fn own_sockets() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("own-{}", std::process::id()));
    for address in [SocketAddr::from_pathname(&path)?, SocketAddr::from_abstract_name("wfp-own")?] {
        let _listener = UnixListener::bind_addr(&address)?;
        UnixStream::connect_addr(&address)?;
    }
    std::fs::remove_file(&path)?;
    for address in [SocketAddr::from_pathname(&path)?, SocketAddr::from_abstract_name("wfp-own-d")?] {
        let _receiver = UnixDatagram::bind_addr(&address)?;
        UnixDatagram::unbound()?.send_to_addr(b".", &address)?;
    }
    std::fs::remove_file(&path)
}

fn by_loopback(target: &Target) -> io::Result<()> {
    let address = target.word(0)?.parse::<std::net::SocketAddr>().map_err(io::Error::other)?;
    let mut helper = std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(1500))?;
    writeln!(helper, "act {}", target.peer)?;
    helper.read_exact(&mut [0])
}

/// The name of a service that sends, which [`act`]'s `activate` asks for.
pub const SERVICE: &str = "org.openwfp.Attack";

/// Sends a message to a service that nobody has started, over the bus whose socket is the first word.
fn activate(target: &Target) -> io::Result<()> {
    let mut send = std::process::Command::new("dbus-send");
    send.arg(format!("--bus=unix:path={}", target.word(0)?)).arg(format!("--dest={SERVICE}"));
    let output = send.args(["--print-reply", "--reply-timeout=1500", "/", "org.openwfp.Attack.Act"]).output()?;
    match String::from_utf8_lossy(&output.stderr) {
        // the service sends, and is no service
        text if text.contains("Spawn.ChildExited") => Ok(()),
        text => Err(io::Error::other(text.trim().to_owned())),
    }
}

/// Writes a script that sends, to the path that is the first word.
fn leave_behind(target: &Target) -> io::Result<()> {
    let program = std::env::current_exe()?;
    std::fs::write(target.word(0)?, script(&program, &format!("udp {}", target.peer)))
}

/// A script of the shell that makes an attack.
pub fn script(program: &Path, attack: &str) -> String {
    let (arguments, (variable, value)) = crate::script(&[attack.to_owned()]);
    format!("{variable}='{value}' exec '{}' {}\n", program.display(), arguments.join(" "))
}

/// Waits until the helper says what came of it.
fn finished(helper: &mut UnixStream) -> io::Result<()> {
    helper.set_read_timeout(Some(std::time::Duration::from_secs(3)))?;
    let mut answer = String::new();
    helper.read_to_string(&mut answer)?;
    match answer.trim().parse() {
        Ok(0) => Ok(()),
        Ok(code) => Err(io::Error::from_raw_os_error(code)),
        Err(_) => Err(io::Error::other(format!("the helper says {answer:?}"))),
    }
}

#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    descriptor: RawFd,
    padding: u32,
}

/// A message of one byte, with room for one descriptor.
fn with_message<T>(rights: &mut Rights, call: impl FnOnce(*mut libc::msghdr) -> T) -> T {
    let mut byte = [b'.'];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: zeros are an empty header.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut *rights).cast();
    message.msg_controllen = size_of::<Rights>();
    call(&raw mut message)
}

/// Sends a descriptor over a Unix socket.
pub fn hand_over(to: &UnixStream, descriptor: &OwnedFd) -> io::Result<()> {
    let header = libc::cmsghdr { cmsg_len: 20, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    let mut rights = Rights { header, descriptor: descriptor.as_raw_fd(), padding: 0 };
    with_message(&mut rights, |message| {
        // SAFETY: the message points to memory that lives until the call returns.
        check(unsafe { libc::sendmsg(to.as_raw_fd(), message, libc::MSG_NOSIGNAL) } as i64).map(drop)
    })
}

/// Receives a descriptor over a Unix socket.
pub fn receive(from: &UnixStream) -> io::Result<OwnedFd> {
    let header = libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 };
    let mut rights = Rights { header, descriptor: -1, padding: 0 };
    with_message(&mut rights, |message| {
        // SAFETY: as above.
        check(unsafe { libc::recvmsg(from.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC) } as i64)
    })?;
    if rights.header.cmsg_type != libc::SCM_RIGHTS || rights.descriptor < 0 {
        return Err(io::Error::other("no descriptor came"));
    }
    // SAFETY: the descriptor is new.
    Ok(unsafe { OwnedFd::from_raw_fd(rights.descriptor) })
}
