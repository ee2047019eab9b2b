//! What can go wrong, where it did, and what to do about it.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::capability::Capability;
use crate::cgroup::CgroupError;
use crate::descriptors::DescriptorError;
use crate::plan::NulError;
use crate::user::UserError;

/// Why a command was not started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control group.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The user that shall run it.
    #[error(transparent)]
    User(#[from] UserError),
    /// The descriptors that it inherits.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// The command line.
    #[error(transparent)]
    Nul(#[from] NulError),
    /// A right that isolation needs is missing.
    #[error(
        "isolating a command takes {capability} (to {purpose}), which this process does not have: run as root, or switch \
             isolation off (--no-isolation)"
    )]
    MissingCapability {
        /// The right.
        capability: Capability,
        /// What for.
        purpose: &'static str,
    },
    /// A capability cannot be kept.
    #[error("{0} cannot be kept for the command, because this process does not have it")]
    NothingToKeep(Capability),
    /// The architecture's system calls are not known.
    #[error(
        "the system call filter does not know the numbers of this architecture ({}): switch isolation off (--no-isolation)",
        std::env::consts::ARCH
    )]
    Architecture,
    /// Unix sockets cannot be kept apart.
    #[error(
        "this machine lets no program look at the socket that a process speaks to, and without that --unix cannot be had {0}"
    )]
    PrivateSockets(String),
    /// The current folder would be reachable although hidden.
    #[error(
        "the current folder, {0}, lies in a file system that the command shall not see: change to another folder first"
    )]
    WorkingFolder(PathBuf),
    /// A file of the system cannot be read.
    #[error("cannot {action}: {source}")]
    System {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The new process failed on its way to the command.
    #[error("{}", .failure.describe(.subject))]
    Step {
        /// Where and why.
        failure: Failure,
        /// The mount, user, capability, … that the step was about.
        subject: String,
    },
    /// The program is not there.
    #[error("{program}: not found{}", hint(*.interpreter))]
    NotFound {
        /// As it was named.
        program: String,
        /// The file is there, and what it asks to be run by is not.
        interpreter: bool,
    },
    /// The program is there and cannot be executed.
    #[error("{program}: cannot be executed: {source}")]
    NotExecutable {
        /// Its path.
        program: String,
        /// Why.
        source: io::Error,
    },
}

fn hint(interpreter: bool) -> &'static str {
    if interpreter {
        ": the file is there, but not the interpreter that its first line or its ELF header names"
    } else {
        ""
    }
}

impl Error {
    /// The exit status that tells it, as with env(1), timeout(1) and others: 127 not found, 126 found and not executed, 125
    /// everything else.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { action, source }
}

/// Something that is not protected on this machine, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortfall {
    /// Processes of the same user outside can be traced, and so be made to act for the command.
    #[error("the command can trace other processes of its user and make them act for it: {0}")]
    Tracing(String),
}

/// A step of the new process, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Marking descriptors to be closed.
    Descriptors = 1,
    /// Taking mounts of its own.
    Mounts,
    /// Covering a file system, or making it read-only.
    Mount,
    /// Taking a capability out of the bounding set.
    BoundingSet,
    /// Setting the supplementary groups.
    Groups,
    /// Setting the group.
    Group,
    /// Setting the user.
    User,
    /// Giving up capabilities.
    Capabilities,
    /// Setting "no new privileges".
    NoNewPrivileges,
    /// Entering the Landlock domain.
    Tracing,
    /// Setting the system call filter.
    SystemCalls,
    /// Waiting for the word to go.
    Go,
    /// Executing the program.
    Exec,
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Descriptors,
        Self::Mounts,
        Self::Mount,
        Self::BoundingSet,
        Self::Groups,
        Self::Group,
        Self::User,
        Self::Capabilities,
        Self::NoNewPrivileges,
        Self::Tracing,
        Self::SystemCalls,
        Self::Go,
        Self::Exec,
    ];

    fn what(self) -> &'static str {
        match self {
            Self::Descriptors => "mark the descriptors to be closed",
            Self::Mounts => "take mounts of its own",
            Self::Mount => "cover, or make read-only, the file system at",
            Self::BoundingSet => "give up for good",
            Self::Groups => "set the supplementary groups of",
            Self::Group => "set the group of",
            Self::User => "become",
            Self::Capabilities => "give up capabilities",
            Self::NoNewPrivileges => "set no_new_privs",
            Self::Tracing => "enter its Landlock domain",
            Self::SystemCalls => "set the system call filter",
            Self::Go => "wait for the word to go",
            Self::Exec => "execute",
        }
    }

    fn hint(self, errno: Errno) -> &'static str {
        match (self, errno) {
            (Self::Descriptors, Errno::NOSYS) => "Linux 5.11 is needed",
            (Self::Mount, Errno::NOSYS) => "Linux 5.12 is needed",
            (Self::SystemCalls, Errno::NOSYS | Errno::INVAL) => "the kernel lacks CONFIG_SECCOMP_FILTER",
            (Self::Mounts | Self::Mount, Errno::PERM) => {
                "run with CAP_SYS_ADMIN, or without isolation (--no-isolation)"
            }
            (Self::Mounts, Errno::INVAL) => {
                "the root folder is not a mount point, as in a chroot: bind it onto itself before changing into it"
            }
            (Self::BoundingSet, Errno::PERM) => "run with CAP_SETPCAP, or without isolation (--no-isolation)",
            (Self::Groups | Self::Group, Errno::PERM) => "run with CAP_SETGID, or as yourself (--user)",
            (Self::User, Errno::PERM) => "run with CAP_SETUID, or as yourself (--user)",
            (Self::User, Errno::AGAIN) => "the user has as many processes as its limit allows",
            (Self::Tracing, Errno::TOOBIG) => "there are 16 Landlock domains around it already",
            _ => "see whether --no-isolation helps, and report it",
        }
    }
}

/// The step that failed, why, and a number for what it was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    step: Step,
    errno: Errno,
    about: u32,
}

impl Failure {
    /// Its size on the way from one process to the other.
    pub(crate) const BYTES: usize = 12;

    pub(crate) fn new(step: Step, errno: Errno) -> Self {
        Self { step, errno, about: 0 }
    }

    pub(crate) fn about(self, number: usize) -> Self {
        Self { about: u32::try_from(number).unwrap_or(u32::MAX), ..self }
    }

    /// The step that failed.
    pub fn step(&self) -> Step {
        self.step
    }

    pub(crate) fn errno(&self) -> Errno {
        self.errno
    }

    pub(crate) fn number(&self) -> u32 {
        self.about
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.step as u8;
        bytes[4..8].copy_from_slice(&self.errno.raw_os_error().to_ne_bytes());
        bytes[8..].copy_from_slice(&self.about.to_ne_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let [step, _, _, _, errno @ .., a, b, c, d] = bytes;
        let step = Step::ALL.into_iter().find(|known| *known as u8 == step)?;
        let errno: RawFd = i32::from_ne_bytes(errno);
        Some(Self { step, errno: Errno::from_raw_os_error(errno), about: u32::from_ne_bytes([a, b, c, d]) })
    }

    fn describe(&self, subject: &str) -> String {
        let space = if subject.is_empty() { "" } else { " " };
        let (what, reason, hint) = (self.step.what(), io::Error::from(self.errno), self.step.hint(self.errno));
        format!("the process for the command could not {what}{space}{subject}: {reason}; {hint}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_over_whole() {
        for step in Step::ALL {
            let failure = Failure::new(step, Errno::PERM).about(4711);
            assert_eq!(Failure::from_bytes(failure.to_bytes()), Some(failure));
        }
        assert_eq!(Failure::from_bytes([0; Failure::BYTES]), None);
        assert_eq!(Failure::from_bytes([99; Failure::BYTES]), None);
    }

    #[test]
    fn a_failure_says_what_where_and_what_to_do() {
        let failure = Failure::new(Step::Mount, Errno::PERM);
        let error = Error::Step { failure, subject: "/sys/fs/cgroup".into() };
        let text = error.to_string();
        for part in ["/sys/fs/cgroup", "not permitted", "CAP_SYS_ADMIN"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(error.exit_status(), 125);
    }
}
