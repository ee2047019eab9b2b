//! Descriptors that the command inherits.

use std::fmt;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::io::{FdFlags, fcntl_getfd};

use crate::mounts::is_hidden_type;
use crate::sys;

/// A descriptor that the command gets although something can be done with it that no filter sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InheritedDescriptor {
    /// Its number.
    pub number: RawFd,
    /// What it is.
    pub kind: DescriptorKind,
}

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptorKind {
    /// A socket: it obeys the filters of the control group that it was made in.
    Socket,
    /// A folder: from it all file systems outside can be reached, those that are hidden too.
    Folder,
    /// A file of a cgroup or BPF file system.
    HiddenFile,
    /// A BPF map, program or link.
    Bpf,
    /// An io_uring.
    IoUring,
    /// A process (pidfd).
    Process,
    /// A namespace.
    Namespace,
    /// A TUN or TAP device.
    Tunnel,
}

impl fmt::Display for InheritedDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let concern = match self.kind {
            DescriptorKind::Socket => "a socket that was made outside: the policy does not see it",
            DescriptorKind::Folder => "a folder: from it the hidden file systems can be reached",
            DescriptorKind::HiddenFile => "a file of a cgroup or BPF file system",
            DescriptorKind::Bpf => "a BPF map, program or link: it may undo the policy",
            DescriptorKind::IoUring => "an io_uring that was made outside: the policy does not see its sockets",
            DescriptorKind::Process => "a process outside, to which signals can be sent",
            DescriptorKind::Namespace => "a namespace outside",
            DescriptorKind::Tunnel => "a TUN or TAP device: the policy does not see its packets",
        };
        write!(f, "descriptor {} is {concern}", self.number)
    }
}

/// Why a descriptor cannot be handed to the command.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// Not open, or opened by this process for itself.
    #[error(
        "descriptor {0} was not handed over when this program was started: redirect it there (`{0}<FILE`), or do not keep it"
    )]
    NotInherited(RawFd),
    /// A standard descriptor from which the command could undo its isolation.
    #[error("{0}, and stands for the standard input or output: redirect it elsewhere")]
    LeadsOut(InheritedDescriptor),
}

/// Looks at the standard descriptors and those to keep, and returns the ones that the user should know about. A standard
/// descriptor that leads out is an error: nobody asks for that on purpose. One that is kept was asked for.
pub(crate) fn examine(keep: &[RawFd]) -> Result<Vec<InheritedDescriptor>, DescriptorError> {
    let mut found = Vec::new();
    for number in 0..=2 {
        let Some(descriptor) = sys::descriptor(number).and_then(|descriptor| look(descriptor)) else { continue };
        if matches!(descriptor.kind, DescriptorKind::Folder | DescriptorKind::HiddenFile) {
            return Err(DescriptorError::LeadsOut(descriptor));
        }
        found.push(descriptor);
    }
    for &number in keep.iter().filter(|number| !(0..=2).contains(*number)) {
        let descriptor = sys::descriptor(number).ok_or(DescriptorError::NotInherited(number))?;
        // Whatever this program opens for itself is closed at exec; a number that is kept must not mean one of those.
        if fcntl_getfd(descriptor).is_ok_and(|flags| flags.contains(FdFlags::CLOEXEC)) {
            return Err(DescriptorError::NotInherited(number));
        }
        found.extend(look(descriptor));
    }
    Ok(found)
}

fn look(descriptor: BorrowedFd<'_>) -> Option<InheritedDescriptor> {
    let number = descriptor.as_raw_fd();
    // An anonymous inode has no type of its own; its name tells what it is.
    let name = std::fs::read_link(format!("/proc/self/fd/{number}")).ok();
    let name = name.as_deref().and_then(|name| name.to_str()).unwrap_or_default();
    let kind = FileType::from_raw_mode(fstat(descriptor).ok()?.st_mode);
    let hidden = fstatfs(descriptor).is_ok_and(|system| is_hidden_type(system.f_type as u64));
    let kind = match (kind, name) {
        (FileType::Socket, _) => DescriptorKind::Socket,
        (FileType::Directory, _) => DescriptorKind::Folder,
        _ if hidden => DescriptorKind::HiddenFile,
        (_, "anon_inode:[io_uring]") => DescriptorKind::IoUring,
        (_, "anon_inode:[pidfd]") => DescriptorKind::Process,
        (_, name) if name.starts_with("pidfd:") => DescriptorKind::Process,
        (_, name) if name.starts_with("anon_inode:bpf") => DescriptorKind::Bpf,
        (FileType::CharacterDevice, name) if name == "/dev/net/tun" || name.starts_with("/dev/tap") => {
            DescriptorKind::Tunnel
        }
        (_, name) if is_namespace(name) => DescriptorKind::Namespace,
        _ => return None,
    };
    Some(InheritedDescriptor { number, kind })
}

/// `net:[4026531840]`
fn is_namespace(name: &str) -> bool {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    name.split_once(":[").is_some_and(|(kind, _)| kinds.contains(&kind))
}

/// The ranges of numbers that exec shall close: all but 0, 1, 2 and those to keep.
pub(crate) fn ranges_to_close(keep: &[RawFd]) -> Vec<(u32, u32)> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|&number| u32::try_from(number).ok()).filter(|&n| n > 2).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut ranges = Vec::new();
    let mut first = 3;
    for number in keep {
        if first < number {
            ranges.push((first, number - 1));
        }
        first = number + 1;
    }
    ranges.push((first, u32::MAX));
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::fcntl_setfd;
    use std::fs::File;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::path::Path;

    fn kind(descriptor: &impl AsFd) -> Option<DescriptorKind> {
        look(descriptor.as_fd()).map(|descriptor| descriptor.kind)
    }

    #[test]
    fn what_a_descriptor_is_is_told() {
        assert_eq!(kind(&UdpSocket::bind("127.0.0.1:0").unwrap()), Some(DescriptorKind::Socket));
        assert_eq!(kind(&File::open("/").unwrap()), Some(DescriptorKind::Folder));
        assert_eq!(kind(&File::open("/proc/self/ns/net").unwrap()), Some(DescriptorKind::Namespace));
        assert_eq!(kind(&File::open("/proc/self/status").unwrap()), None);
        assert_eq!(kind(&File::open("/dev/null").unwrap()), None);
        let this = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
        assert_eq!(kind(&this.unwrap()), Some(DescriptorKind::Process));
        for procs in ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"] {
            if Path::new(procs).exists() {
                assert_eq!(kind(&File::open(procs).unwrap()), Some(DescriptorKind::HiddenFile));
            }
        }
    }

    #[test]
    fn only_inherited_descriptors_can_be_kept() {
        let file = File::open("/dev/null").unwrap();
        let number = file.as_raw_fd();
        let error = examine(&[number]).unwrap_err();
        assert!(matches!(error, DescriptorError::NotInherited(n) if n == number));
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        assert!(examine(&[number]).is_ok());
        for number in [-1, 1_000_000] {
            assert!(matches!(examine(&[number]), Err(DescriptorError::NotInherited(_))));
        }
    }

    #[test]
    fn everything_else_is_closed() {
        assert_eq!(ranges_to_close(&[]), [(3, u32::MAX)]);
        assert_eq!(ranges_to_close(&[5, 3, 5, 1]), [(4, 4), (6, u32::MAX)]);
        assert_eq!(ranges_to_close(&[7, 8]), [(3, 6), (9, u32::MAX)]);
    }
}
