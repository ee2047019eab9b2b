//! What the command does not see of the file systems, and what it cannot write.
//!
//! The command gets a copy of all mounts, which later changes outside do not reach. In it:
//! - every cgroup and BPF file system is covered by an empty folder. Whoever has uid 0 could otherwise leave the control group by
//!   writing `cgroup.procs`, with no capability at all, or open the pinned maps and programs;
//! - so is the lock under which runs start and end;
//! - the folders of device files that speak to the network without sockets (`/dev/net`, `/dev/infiniband`) are covered too: a
//!   TUN device that is not bound to an owner opens for everyone;
//! - for uid 0, which needs no capability to write them, the kernel's own settings are read-only: `/proc/sys` (as
//!   `core_pattern`, a program that the kernel starts outside every group), `/proc/sysrq-trigger`, `/sys` and its kin.
//!
//! Without `CAP_SYS_ADMIN` nothing of that can be taken off again. A namespace with mounts of its own could only be had through a
//! user namespace; there covers are locked (mount_namespaces(7)), and a cgroup file system cannot be mounted anew without a cgroup
//! namespace, which the system call filter refuses.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};

use crate::mountinfo::{Mount, Reached};
use crate::sys;

const HIDDEN: [&str; 3] = ["cgroup", "cgroup2", "bpf"];
const READ_ONLY: [&str; 6] = ["sysfs", "debugfs", "tracefs", "securityfs", "configfs", "efivarfs"];
/// Under which runs start and end. Who holds it stops every other run, and uid 0 may open it.
pub const LOCK: &str = "/run/wfp/runs.lock";
const NETWORK_DEVICES: [&str; 2] = ["/dev/net", "/dev/infiniband"];
/// Below each mount of procfs.
const SETTINGS: [&str; 2] = ["sys", "sysrq-trigger"];

/// The changes to the mounts of the command, in the order in which they are made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MountPlan {
    changes: Vec<(Change, CString)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// An empty, read-only folder over a folder.
    CoverFolder,
    /// `/dev/null` over a file.
    CoverFile,
    /// A mount becomes read-only.
    MakeReadOnly,
    /// A folder or file within a mount becomes a read-only mount.
    MakePartReadOnly,
    /// An empty folder for everybody, in which no links are followed.
    OwnFolder,
}

impl MountPlan {
    /// Looks at what is mounted. `settings` makes the kernel's settings read-only, `devices` leaves the network devices.
    pub(crate) fn new(mounts: &[Mount], settings: bool, devices: bool) -> io::Result<Self> {
        let mut plan = Self::default();
        let mut hidden = hidden_mounts(mounts)?;
        if !devices {
            let folders = NETWORK_DEVICES.iter().map(PathBuf::from).filter(|folder| folder.is_dir());
            hidden.extend(folders.map(|folder| (folder, Reached::Folder)));
        }
        // Settings first: when a folder above is covered, what lies below cannot be reached any more.
        if settings {
            plan.protect_settings(mounts)?;
        }
        hidden.sort();
        let mut covered: Option<PathBuf> = None;
        for (path, kind) in hidden {
            if covered.as_ref().is_some_and(|covered| path.starts_with(covered)) {
                continue;
            }
            plan.push(if kind == Reached::Folder { Change::CoverFolder } else { Change::CoverFile }, &path)?;
            covered = Some(path);
        }
        Ok(plan)
    }

    fn protect_settings(&mut self, mounts: &[Mount]) -> io::Result<()> {
        for mount in mounts {
            let settings = READ_ONLY.contains(&mount.file_system.as_str());
            if settings && mount.reached_as()?.is_some() {
                self.push(Change::MakeReadOnly, &mount.mount_point)?;
            }
        }
        for mount in mounts.iter().filter(|mount| mount.file_system == "proc") {
            if mount.reached_as()?.is_some() {
                for part in SETTINGS.map(|part| mount.mount_point.join(part)).iter().filter(|part| part.exists()) {
                    self.push(Change::MakePartReadOnly, part)?;
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, change: Change, path: &Path) -> io::Result<()> {
        self.changes.push((change, CString::new(path.as_os_str().as_bytes())?));
        Ok(())
    }

    /// Keeps a file from the command.
    pub(crate) fn hide(&mut self, file: &Path) -> io::Result<()> {
        self.push(Change::CoverFile, file)
    }

    /// Gives the command a folder of its own, whatever is there outside.
    pub(crate) fn own(&mut self, folder: &Path) -> io::Result<()> {
        self.push(Change::OwnFolder, folder)
    }

    /// Where the changes are made, in order, to speak about them.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.changes.iter().map(|(_, target)| target.to_string_lossy().into_owned()).collect()
    }

    /// Changes the mounts of this process, which must have its own already. On error, the number of the change too.
    pub(crate) fn apply(&self) -> Result<(), (usize, Errno)> {
        for (index, (change, target)) in self.changes.iter().enumerate() {
            change.make(target).map_err(|errno| (index, errno))?;
        }
        Ok(())
    }
}

impl Change {
    fn make(self, target: &CStr) -> Result<(), Errno> {
        match self {
            Self::CoverFolder => {
                let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                mount(c"none", target, c"tmpfs", flags, c"size=4k,nr_inodes=1,mode=555")
            }
            Self::CoverFile => {
                mount_bind(c"/dev/null", target)?;
                sys::make_mount_read_only(target)
            }
            Self::OwnFolder => {
                let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOSYMFOLLOW;
                mount(c"wfp", target, c"tmpfs", flags, c"mode=1777")
            }
            Self::MakeReadOnly => sys::make_mount_read_only(target),
            Self::MakePartReadOnly => {
                mount_bind(target, target)?;
                sys::make_mount_read_only(target)
            }
        }
    }
}

/// Gives this process mounts of its own, which changes outside do not reach, nor the other way round.
pub(crate) fn detach() -> Result<(), Errno> {
    sys::own_mounts()?;
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// Whether the folder lies below a mount that will be covered, so that its `..` would lead behind the cover.
pub(crate) fn is_hidden(mounts: &[Mount], folder: &Path) -> io::Result<bool> {
    Ok(hidden_mounts(mounts)?.iter().any(|(hidden, _)| folder.starts_with(hidden)))
}

/// Whether a file system of this type is one that the command shall not see (statfs(2)).
pub(crate) fn is_hidden_type(magic: u64) -> bool {
    const CGROUP: u64 = 0x0027_e0eb;
    const CGROUP2: u64 = 0x6367_7270;
    const BPF: u64 = 0xcafe_4a11;
    [CGROUP, CGROUP2, BPF].contains(&magic)
}

fn hidden_mounts(mounts: &[Mount]) -> io::Result<Vec<(PathBuf, Reached)>> {
    let mut hidden = Vec::new();
    for mount in mounts.iter().filter(|mount| HIDDEN.contains(&mount.file_system.as_str())) {
        if let Some(kind) = mount.reached_as()? {
            hidden.push((mount.mount_point.clone(), kind));
        }
    }
    Ok(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn mount(file_system: &str, mount_point: &str) -> Mount {
        let device = std::fs::metadata(mount_point).map_or(0, |metadata| metadata.dev());
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        Mount { device, root: "/".into(), mount_point: mount_point.into(), file_system: file_system.into() }
    }

    fn changes(plan: &MountPlan) -> Vec<(Change, &str)> {
        plan.changes.iter().map(|(change, target)| (*change, target.to_str().unwrap())).collect()
    }

    #[test]
    fn cgroup_and_bpf_file_systems_are_covered_and_others_not() {
        let mounts =
            [mount("cgroup2", "/usr"), mount("ext4", "/"), mount("bpf", "/etc"), mount("cgroup", "/etc/passwd")];
        let plan = MountPlan::new(&mounts, false, true).unwrap();
        assert_eq!(changes(&plan), [(Change::CoverFolder, "/etc"), (Change::CoverFolder, "/usr")]);
        assert!(is_hidden(&mounts, Path::new("/etc/apt")).unwrap());
        assert!(!is_hidden(&mounts, Path::new("/etcetera")).unwrap());
    }

    #[test]
    fn a_single_file_of_them_is_covered_by_a_file() {
        let plan = MountPlan::new(&[mount("cgroup2", "/etc/passwd")], false, true).unwrap();
        assert_eq!(changes(&plan), [(Change::CoverFile, "/etc/passwd")]);
    }

    #[test]
    fn mounts_under_other_mounts_are_left_alone() {
        let elsewhere = Mount { device: (999, 999), ..mount("cgroup2", "/usr") };
        let gone = mount("bpf", "/no/such/folder");
        assert_eq!(MountPlan::new(&[elsewhere, gone], true, true).unwrap(), MountPlan::default());
    }

    #[test]
    fn settings_are_protected_when_asked_for() {
        let mounts = [mount("proc", "/proc"), mount("sysfs", "/usr")];
        assert_eq!(MountPlan::new(&mounts, false, true).unwrap(), MountPlan::default());
        let plan = MountPlan::new(&mounts, true, true).unwrap();
        assert_eq!(changes(&plan)[..2], [(Change::MakeReadOnly, "/usr"), (Change::MakePartReadOnly, "/proc/sys")]);
    }

    #[test]
    fn network_devices_are_covered_where_there_are_any() {
        let plan = MountPlan::new(&[], false, false).unwrap();
        let there = NETWORK_DEVICES.iter().filter(|folder| Path::new(folder).is_dir()).count();
        assert_eq!(changes(&plan).len(), there);
    }
}
