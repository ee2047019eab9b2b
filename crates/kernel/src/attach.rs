//! Programs at places that aya does not know: before a function of the kernel, whose result they may give
//! (`BPF_MODIFY_RETURN`; the kernel allows it for the functions that ask the security modules, whether any module is enabled or
//! not), and at the calls of Unix sockets.
//!
//! aya parses and relocates such a program, but cannot load it; so the system calls are made here, with its instructions and the
//! maps of the object that it has loaded.

use crate::{
    btf::Btf,
    load::{LoadError, OBJECT, Shims},
};
use aya::maps::Map;
use aya_obj::{Object, generated::bpf_insn};
use std::{
    collections::HashSet,
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

// Numbers of `enum bpf_cmd`, `bpf_prog_type` and `bpf_attach_type`.
const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const PROG_QUERY: libc::c_long = 16;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const LINK_CREATE: libc::c_long = 28;
const CGROUP_INET_EGRESS: u32 = 1;
const CGROUP_SOCK_ADDR: u32 = 18;
const TRACING: u32 = 26;
const MODIFY_RETURN: u32 = 26;
const CGROUP_UNIX_CONNECT: u32 = 49;
const CGROUP_UNIX_SENDMSG: u32 = 50;

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before a function of the kernel, for every process of the machine.
    Before(&'static str),
    /// `connect()` of Unix sockets of the group.
    Connect,
    /// Datagrams of Unix sockets of the group that go to an address.
    Send,
}

impl Place {
    fn attach_type(self) -> u32 {
        match self {
            Self::Before(_) => MODIFY_RETURN,
            Self::Connect => CGROUP_UNIX_CONNECT,
            Self::Send => CGROUP_UNIX_SENDMSG,
        }
    }
}

/// Room for what the kernel says of a program that it refuses.
const LOG_BYTES: usize = 1 << 18;

/// `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    types: u32,
    function_size: u32,
    functions: u64,
    function_count: u32,
    line_size: u32,
    lines: u64,
    line_count: u32,
    /// The number of the function's type.
    attach_to: u32,
    attach_object: u32,
    zero: u32,
}

/// `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjPin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_RAW_TRACEPOINT_OPEN`; a program of this kind has its place already, and no name is given.
#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    program: u32,
    zero: u32,
}

/// `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    group: u32,
    attach_type: u32,
    flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`. Kernels write into it, the newer ones up to its end, whatever length they are told.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    zero: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// Calls `bpf()`.
///
/// # Safety
/// What the attributes point to is valid until the call returns.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads as many bytes as it is told; the rest is the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Asks which programs see the packets that leave a group; an error where that cannot be asked.
pub(crate) fn query(group: &File) -> io::Result<()> {
    let mut attributes =
        ProgQuery { target: group.as_raw_fd().unsigned_abs(), attach_type: CGROUP_INET_EGRESS, ..ProgQuery::default() };
    // SAFETY: the kernel reads and writes the structure, which points nowhere and is as long as the longest that it knows.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut attributes, size_of::<ProgQuery>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Program {
    descriptor: OwnedFd,
    place: Place,
}

/// An attached program; dropping it detaches, unless it is pinned.
#[derive(Debug)]
pub(crate) struct Attached(OwnedFd);

/// Whether this machine lets programs stand before a function.
pub(crate) fn stand_before(types: &Btf, function: &'static str) -> bool {
    // r0 = 0; exit
    let [mov, exit] = [0xb7u64, 0x95];
    let instructions = [mov, exit];
    let Some(attach_to) = types.function(function) else { return false };
    let attributes = ProgLoad {
        kind: TRACING,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        attach_type: MODIFY_RETURN,
        attach_to,
        ..ProgLoad::default()
    };
    // SAFETY: instructions and license live until the call returns.
    unsafe { bpf(PROG_LOAD, &attributes) }.and_then(descriptor).is_ok()
}

impl Program {
    /// Loads a program of the object. Its maps must still be those of `shims`.
    pub(crate) fn load(shims: &mut Shims, name: &'static str, types: &Btf, place: Place) -> Result<Self, LoadError> {
        let (kind, attach_to) = match place {
            Place::Before(function) => (TRACING, types.function(function).ok_or(LoadError::NoFunction { function })?),
            Place::Connect | Place::Send => (CGROUP_SOCK_ADDR, 0),
        };
        let instructions = instructions(shims, name)?;
        let mut attributes = ProgLoad {
            kind,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            attach_type: place.attach_type(),
            attach_to,
            ..ProgLoad::default()
        };
        attributes.name.iter_mut().take(15).zip(name.bytes()).for_each(|(to, from)| *to = from);
        // SAFETY: instructions and license live until the call returns.
        if let Ok(descriptor) = unsafe { bpf(PROG_LOAD, &attributes) }.and_then(descriptor) {
            return Ok(Self { descriptor, place });
        }
        // once more, to hear why
        let mut log = vec![0u8; LOG_BYTES];
        attributes.log_level = 1;
        attributes.log_size = LOG_BYTES as u32;
        attributes.log = log.as_mut_ptr() as u64;
        // SAFETY: as before; the log has as many bytes as it says.
        let loaded = unsafe { bpf(PROG_LOAD, &attributes) }.and_then(descriptor);
        loaded.map(|descriptor| Self { descriptor, place }).map_err(|source| {
            let text = String::from_utf8_lossy(&log);
            let said = text.trim_end_matches('\0').lines().rev().find(|line| !line.starts_with("processed"));
            LoadError::UnixSockets { said: said.unwrap_or_default().into(), source }
        })
    }

    /// Attaches it: for this group, where its place is one of groups.
    pub(crate) fn attach(&self, group: &File) -> io::Result<Attached> {
        let program = self.descriptor.as_raw_fd().unsigned_abs();
        let made = match self.place {
            Place::Before(_) => {
                let attributes = RawTracepointOpen { name: 0, program, zero: 0 };
                // SAFETY: the attributes point nowhere.
                unsafe { bpf(RAW_TRACEPOINT_OPEN, &attributes) }
            }
            Place::Connect | Place::Send => {
                let group = group.as_raw_fd().unsigned_abs();
                let attributes = LinkCreate { program, group, attach_type: self.place.attach_type(), flags: 0 };
                // SAFETY: as above.
                unsafe { bpf(LINK_CREATE, &attributes) }
            }
        };
        made.and_then(descriptor).map(Attached)
    }
}

impl Attached {
    /// Pins it: it stays attached when this process is gone.
    pub(crate) fn pin(&self, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let attributes = ObjPin { path: path.as_ptr() as u64, descriptor: self.0.as_raw_fd().unsigned_abs(), flags: 0 };
        // SAFETY: the path lives until the call returns.
        unsafe { bpf(OBJ_PIN, &attributes) }.map(drop)
    }
}

/// The instructions of a program, in which the maps are those that are loaded.
fn instructions(shims: &mut Shims, name: &'static str) -> Result<Vec<bpf_insn>, LoadError> {
    let lacks = |_| LoadError::ObjectLacks { name };
    let mut object = Object::parse(OBJECT).map_err(|_| LoadError::ObjectLacks { name })?;
    let key = object.programs.get(name).ok_or(LoadError::ObjectLacks { name })?.function_key();
    let maps = object.maps.clone();
    // the program uses none of the others, whose number makes the kernel refuse it if it did
    let mut number = |name: &str| shims_map(shims, name).unwrap_or(-1);
    let maps: Vec<_> = maps.iter().map(|(name, map)| (name.as_str(), number(name), map)).collect();
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(maps.into_iter(), &sections).map_err(|_| lacks(()))?;
    object.relocate_calls(&sections).map_err(|_| lacks(()))?;
    Ok(object.functions.remove(&key).ok_or_else(|| lacks(()))?.instructions)
}

fn shims_map(shims: &mut Shims, name: &str) -> Option<RawFd> {
    let data = match shims.ebpf().map(name)? {
        Map::Array(data) | Map::HashMap(data) => data,
        _ => return None,
    };
    Some(data.fd().as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_laid_out_as_the_kernel_has_them() {
        assert_eq!(std::mem::offset_of!(ProgLoad, name), 48);
        assert_eq!(std::mem::offset_of!(ProgLoad, attach_type), 68);
        assert_eq!(std::mem::offset_of!(ProgLoad, attach_to), 108);
        assert_eq!(std::mem::offset_of!(RawTracepointOpen, program), 8);
        assert_eq!(std::mem::offset_of!(ObjPin, descriptor), 8);
        assert_eq!(std::mem::offset_of!(ProgQuery, count), 24);
        assert_eq!(std::mem::offset_of!(ProgQuery, revision), 56);
    }
}
