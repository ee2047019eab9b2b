//! Capabilities (capabilities(7)): their names, and which of them undo filtering.

use std::fmt;
use std::str::FromStr;

use rustix::thread::CapabilitySet;

/// One capability, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

/// The names without `CAP_`, in the order of the numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities that a command does not get, each with what it would be used for.
///
/// What is left lets a root command do the work of root: install packages (`CHOWN`, `DAC_OVERRIDE`, `FOWNER`, `FSETID`,
/// `SETFCAP`), step down to another user as apt and most daemons do (`SETUID`, `SETGID`, `SETPCAP`, `KILL`, `SYS_CHROOT`), serve
/// on low ports (`NET_BIND_SERVICE`). None of those leads out: the bounding set and "no new privileges" hold for every user
/// that the command turns into, and the filters follow the control group, not the user. `SETUID` lets it pass for another user
/// in filters that ask for the user; `SYS_RESOURCE` could give a process another executable file (`PR_SET_MM_EXE_FILE`), which
/// the system call filter refuses.
pub const UNDO_FILTERING: [(Capability, &str); 12] = [
    (Capability::DAC_READ_SEARCH, "opens files of a hidden file system by handle"),
    (Capability::NET_ADMIN, "changes routes, addresses and packet filters, makes tunnels, sets marks"),
    (Capability::NET_RAW, "opens packet and raw sockets, sets the mark of packets"),
    (Capability::SYS_MODULE, "loads code into the kernel"),
    (Capability::SYS_RAWIO, "writes kernel memory and talks to devices past the kernel"),
    (Capability::SYS_PTRACE, "makes processes outside act for the command"),
    (Capability::SYS_ADMIN, "mounts, enters the namespaces of others, attaches and detaches BPF programs"),
    (Capability::SYS_BOOT, "starts another kernel"),
    (Capability::MKNOD, "makes again the device files that are hidden"),
    (Capability::PERFMON, "reads kernel memory through BPF and perf events"),
    (Capability::BPF, "opens the maps and programs that filter, by their ids"),
    (Capability::CHECKPOINT_RESTORE, "gives a process another executable file or a chosen process id"),
];

impl Capability {
    /// `CAP_DAC_READ_SEARCH`
    pub const DAC_READ_SEARCH: Self = Self(2);
    /// `CAP_SETGID`
    pub const SETGID: Self = Self(6);
    /// `CAP_SETUID`
    pub const SETUID: Self = Self(7);
    /// `CAP_SYS_CHROOT`
    pub const SYS_CHROOT: Self = Self(18);
    /// `CAP_SETPCAP`
    pub const SETPCAP: Self = Self(8);
    /// `CAP_NET_ADMIN`
    pub const NET_ADMIN: Self = Self(12);
    /// `CAP_NET_RAW`
    pub const NET_RAW: Self = Self(13);
    /// `CAP_SYS_MODULE`
    pub const SYS_MODULE: Self = Self(16);
    /// `CAP_SYS_RAWIO`
    pub const SYS_RAWIO: Self = Self(17);
    /// `CAP_SYS_PTRACE`
    pub const SYS_PTRACE: Self = Self(19);
    /// `CAP_SYS_ADMIN`
    pub const SYS_ADMIN: Self = Self(21);
    /// `CAP_SYS_BOOT`
    pub const SYS_BOOT: Self = Self(22);
    /// `CAP_MKNOD`
    pub const MKNOD: Self = Self(27);
    /// `CAP_PERFMON`
    pub const PERFMON: Self = Self(38);
    /// `CAP_BPF`
    pub const BPF: Self = Self(39);
    /// `CAP_CHECKPOINT_RESTORE`
    pub const CHECKPOINT_RESTORE: Self = Self(40);

    /// Every capability that has a name here, in the order of the numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0_u8..).take(NAMES.len()).map(Self)
    }

    /// The kernel's number.
    pub fn number(self) -> u8 {
        self.0
    }

    pub(crate) fn as_set(self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(1 << self.0)
    }
}

impl fmt::Display for Capability {
    /// `CAP_NET_ADMIN`; a number for one that is newer than this crate.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => write!(f, "CAP_{name}"),
            None => write!(f, "capability {}", self.0),
        }
    }
}

/// A word that names no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a capability: names are those of capabilities(7), such as CAP_NET_RAW or net_raw")]
pub struct UnknownCapability(String);

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// `CAP_NET_RAW`, `NET_RAW`, in any case of letters.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let found = Self::all().find(|capability| NAMES[usize::from(capability.0)] == name);
        found.ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

/// What a command loses: the capabilities that undo filtering, and those that are newer than this crate (so not judged),
/// but for those that the user keeps. `last` is the highest number that the kernel knows.
pub(crate) fn refused(keep: &[Capability], last: u8) -> Vec<Capability> {
    let newer = (NAMES.len() as u8..=last.min(63)).map(Capability);
    let known = UNDO_FILTERING.iter().map(|(capability, _)| *capability).filter(|capability| capability.0 <= last);
    known.chain(newer).filter(|capability| !keep.contains(capability)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_people_write_them() {
        for text in ["CAP_NET_RAW", "cap_net_raw", "NET_RAW", "net_raw", "Net_Raw"] {
            assert_eq!(text.parse(), Ok(Capability::NET_RAW), "{text}");
        }
        for text in ["", "CAP_", "raw", "CAP_CAP_NET_RAW", "13"] {
            assert_eq!(text.parse::<Capability>(), Err(UnknownCapability(text.to_owned())));
        }
    }

    #[test]
    fn numbers_are_the_kernel_s() {
        let kernel = [
            (Capability::DAC_READ_SEARCH, CapabilitySet::DAC_READ_SEARCH),
            (Capability::SETGID, CapabilitySet::SETGID),
            (Capability::SETUID, CapabilitySet::SETUID),
            (Capability::SETPCAP, CapabilitySet::SETPCAP),
            (Capability::NET_ADMIN, CapabilitySet::NET_ADMIN),
            (Capability::NET_RAW, CapabilitySet::NET_RAW),
            (Capability::SYS_MODULE, CapabilitySet::SYS_MODULE),
            (Capability::SYS_RAWIO, CapabilitySet::SYS_RAWIO),
            (Capability::SYS_PTRACE, CapabilitySet::SYS_PTRACE),
            (Capability::SYS_ADMIN, CapabilitySet::SYS_ADMIN),
            (Capability::SYS_BOOT, CapabilitySet::SYS_BOOT),
            (Capability::MKNOD, CapabilitySet::MKNOD),
            (Capability::PERFMON, CapabilitySet::PERFMON),
            (Capability::BPF, CapabilitySet::BPF),
            (Capability::CHECKPOINT_RESTORE, CapabilitySet::CHECKPOINT_RESTORE),
        ];
        for (ours, theirs) in kernel {
            assert_eq!(ours.as_set(), theirs, "{ours}");
        }
    }

    #[test]
    fn what_is_kept_is_not_refused() {
        let refused = refused(&[Capability::NET_RAW], 40);
        assert!(!refused.contains(&Capability::NET_RAW));
        assert_eq!(refused.len(), UNDO_FILTERING.len() - 1);
    }

    #[test]
    fn what_the_kernel_lacks_or_has_anew_is_accounted_for() {
        assert!(!refused(&[], 37).contains(&Capability::BPF));
        assert!(refused(&[], 42).contains(&Capability(41)));
        assert!(refused(&[], 42).contains(&Capability(42)));
        assert_eq!(Capability(42).to_string(), "capability 42");
    }

    #[test]
    fn a_root_command_can_still_install_packages() {
        for name in ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETFCAP", "SYS_CHROOT"] {
            assert!(!refused(&[], 40).contains(&name.parse().unwrap()), "{name}");
        }
    }
}
