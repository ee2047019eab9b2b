//! The control group of a run: made, found again, emptied, removed.
//!
//! Every run has a group of its own, `<mount>/openwfp/run-<pid>-<random>`. Whoever runs it holds a lock (flock(2)) on the
//! group's folder; the kernel lets go of it when that process ends in whatever way. So a folder without a lock is one whose
//! run has ended, and [`Groups::ended`] finds those. A group that still holds processes is never removed: daemons that a
//! command left behind stay in it, under its filters.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, openat};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::mountinfo::{self, MOUNTINFO, Reached};

/// Names another folder than `<mount>/openwfp` for the groups of runs, such as one that systemd has delegated
/// (`Delegate=yes`). It must lie in a cgroup v2 file system; it is made when only its last part is missing.
pub const PARENT_VARIABLE: &str = "OPENWFP_CGROUP_PARENT";

/// The folder for the groups of runs, directly below the mount point.
const DEFAULT_PARENT: &str = "openwfp";
const PREFIX: &str = "run-";

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The list of mounts cannot be read.
    #[error("cannot read {MOUNTINFO}: {0}; is /proc mounted?")]
    Mounts(#[source] io::Error),
    /// There is no cgroup v2 file system.
    #[error(
        "no cgroup v2 file system is mounted: mount one (`mkdir /sys/fs/cgroup/unified; mount -t cgroup2 none \
         /sys/fs/cgroup/unified`), or start the system with systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted,
    /// The named parent lies elsewhere.
    #[error("{PARENT_VARIABLE} is {parent}, which is not in a cgroup v2 file system: name a folder below {mount}")]
    ParentElsewhere {
        /// What the variable says.
        parent: PathBuf,
        /// Where a cgroup v2 file system is mounted.
        mount: PathBuf,
    },
    /// No folder can be made.
    #[error("cannot make the control group {path}: {source}; {hint}")]
    Create {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// A file of a group cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Access {
        /// Read, write, open, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn access(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_path_buf();
    move |source| CgroupError::Access { action, path, source }
}

/// The folder that holds the groups of all runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    parent: PathBuf,
    level: u32,
    /// The default folder is ours to remove; one that the user named is not.
    ours: bool,
}

impl Groups {
    /// `<mount>/openwfp` of the first cgroup v2 file system, or what [`PARENT_VARIABLE`] names.
    pub fn find() -> Result<Self, CgroupError> {
        match std::env::var_os(PARENT_VARIABLE) {
            Some(parent) if !parent.is_empty() => Self::at(Path::new(&parent)),
            _ => {
                let (mount, level) = mounts()?.swap_remove(0);
                Ok(Self { parent: mount.join(DEFAULT_PARENT), level: level + 1, ours: true })
            }
        }
    }

    /// The groups below a folder of one's own choice.
    pub fn at(parent: &Path) -> Result<Self, CgroupError> {
        let mounts = mounts()?;
        let plain = parent.is_absolute() && !parent.components().any(|part| part == std::path::Component::ParentDir);
        // The longest mount point that leads there is the one that the path goes through.
        let inside = mounts.iter().filter(|(mount, _)| plain && parent.starts_with(mount));
        match inside.max_by_key(|(mount, _)| mount.as_os_str().len()) {
            Some((mount, level)) => {
                let below = parent.strip_prefix(mount).unwrap_or(parent);
                Ok(Self { parent: parent.to_path_buf(), level: level + mountinfo::depth(below), ours: false })
            }
            None => Err(CgroupError::ParentElsewhere { parent: parent.to_path_buf(), mount: mounts[0].0.clone() }),
        }
    }

    /// The folder.
    pub fn parent(&self) -> &Path {
        &self.parent
    }

    /// Makes the group of a run and locks it.
    pub fn create(&self) -> Result<RunGroup, CgroupError> {
        loop {
            make_folder(&self.parent)?;
            let mut random = [0_u8; 8];
            let name = match getrandom(&mut random, GetRandomFlags::empty()) {
                Ok(_) => random.iter().fold(format!("{PREFIX}{}-", std::process::id()), |mut name, byte| {
                    // Writing to a String cannot fail.
                    let _ = write!(name, "{byte:02x}");
                    name
                }),
                Err(errno) => return Err(access("read", Path::new("/dev/urandom"))(errno.into())),
            };
            let path = self.parent.join(&name);
            match fs::create_dir(&path) {
                Ok(()) => {}
                // The parent went with the last run that another process removed just now, or the name is taken.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
                    continue;
                }
                Err(source) => return Err(create_error(path, source)),
            }
            // Between making and locking it another process may take the folder for one whose run has ended: try again.
            if let Some(group) = self.lock(name)? {
                return Ok(group);
            }
        }
    }

    /// The groups whose runs have ended, each locked while it is held here. Those that hold no process
    /// ([`RunGroup::is_populated`]) can be removed; take away what else belongs to the run (its pinned programs) by its name.
    pub fn ended(&self) -> Result<Vec<RunGroup>, CgroupError> {
        let entries = match fs::read_dir(&self.parent) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(access("list", &self.parent)(error)),
        };
        let mut ended = Vec::new();
        for entry in entries {
            let name = entry.map_err(access("list", &self.parent))?.file_name();
            let Some(name) = name.to_str().filter(|name| is_run(name)) else { continue };
            if let Some(group) = self.lock(name.to_owned())? {
                ended.push(group);
            }
        }
        Ok(ended)
    }

    /// Opens and locks a group; `None` if another process holds it, or if it is gone.
    fn lock(&self, name: String) -> Result<Option<RunGroup>, CgroupError> {
        let path = self.parent.join(&name);
        let folder = match open(&path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(access("open", &path)(errno.into())),
        };
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(access("lock", &path)(errno.into())),
        }
        // Removed between the two calls by the process that held the lock?
        if !path.exists() {
            return Ok(None);
        }
        let id = fstat(&folder).map_err(|errno| access("read", &path)(errno.into()))?.st_ino;
        let groups = self.clone();
        Ok(Some(RunGroup { groups, name, path, folder, id }))
    }
}

/// `run-<pid>-<16 hexadecimal digits>`: nothing else in the folder is ours.
fn is_run(name: &str) -> bool {
    let Some((pid, random)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else { return false };
    let digits = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    digits && random.len() == 16 && random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The cgroup v2 mounts with the level of their top, never empty.
fn mounts() -> Result<Vec<(PathBuf, u32)>, CgroupError> {
    let mut found = Vec::new();
    for mount in mountinfo::read().map_err(CgroupError::Mounts)? {
        if mount.file_system == "cgroup2" && matches!(mount.reached_as(), Ok(Some(Reached::Folder))) {
            let level = mountinfo::depth(&mount.root);
            found.push((mount.mount_point, level));
        }
    }
    if found.is_empty() { Err(CgroupError::NotMounted) } else { Ok(found) }
}

fn make_folder(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(create_error(path.to_path_buf(), error)),
        _ => Ok(()),
    }
}

fn create_error(path: PathBuf, source: io::Error) -> CgroupError {
    let hint = match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS | Errno::PERM) => {
            "run as root, or set OPENWFP_CGROUP_PARENT to a folder that is delegated to you (systemd: Delegate=yes)"
        }
        Some(Errno::ROFS) => {
            "the cgroup file system is read-only here, as in a container: run outside it, or mount it writable"
        }
        Some(Errno::AGAIN) => "the limit in cgroup.max.depth or cgroup.max.descendants of a group above is reached",
        Some(Errno::NOENT) => "the folder that shall hold it does not exist: make it",
        _ => "see whether the folder that shall hold it can be written",
    };
    CgroupError::Create { path, source, hint }
}

/// The control group of one run, locked by this process for as long as the value lives.
#[derive(Debug)]
pub struct RunGroup {
    groups: Groups,
    name: String,
    path: PathBuf,
    folder: OwnedFd,
    id: u64,
}

impl RunGroup {
    /// `run-<pid>-<random>`: names the run wherever else something of it is kept, such as its pinned programs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The group's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's id of the group, as `bpf_get_current_cgroup_id` returns it: the folder's inode number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many groups lie above it in the hierarchy that this process sees: the level for
    /// `bpf_get_current_ancestor_cgroup_id`. Within a cgroup namespace the kernel's level is greater by the level of the
    /// namespace's root, which user space cannot learn.
    pub fn level(&self) -> u32 {
        self.groups.level + 1
    }

    /// Whether a process is in the group, or in one below it.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        let events = self.path.join("cgroup.events");
        populated(&fs::read_to_string(&events).map_err(access("read", &events))?, &events)
    }

    /// Whether somebody has removed the group: then nothing that ran in it is filtered any more.
    pub fn is_gone(&self) -> bool {
        fs::metadata(&self.path).map_or(true, |now| now.ino() != self.id)
    }

    /// The processes directly in the group; those of groups below it are not listed.
    pub fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let procs = self.path.join("cgroup.procs");
        let text = fs::read_to_string(&procs).map_err(access("read", &procs))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Sends SIGKILL to every process in the group and below it (Linux 5.14), also where its path leads elsewhere by now. A group
    /// that has been removed is an error.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let kill = openat(&self.folder, "cgroup.kill", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let written = kill.and_then(|kill| rustix::io::write(&kill, b"1"));
        written.map(drop).map_err(|errno| access("write", &self.path.join("cgroup.kill"))(errno.into()))
    }

    /// Waits until no process is left; false when the time is up first.
    pub fn wait_until_empty(&self, limit: Duration) -> Result<bool, CgroupError> {
        let path = self.path.join("cgroup.events");
        let end = Instant::now() + limit;
        let file = File::open(&path).map_err(access("open", &path))?;
        loop {
            let text = io::read_to_string(&mut &file).map_err(access("read", &path))?;
            if !populated(&text, &path)? {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // The kernel marks the file after each change; the mark goes when the file is read again.
            let wait = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(access("watch", &path)(errno.into())),
            }
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))
                .map_err(|errno| access("read", &path)(errno.into()))?;
        }
    }

    /// Removes the group, those below it, and the folder of all runs when this was the last one. A group that still holds
    /// processes stays (false), and is found again by [`Groups::ended`] once this value is gone.
    pub fn remove(self) -> Result<bool, CgroupError> {
        if !remove_tree(&self.path)? {
            return Ok(false);
        }
        if self.groups.ours {
            // Other runs may be in it: then the kernel refuses.
            let _ = fs::remove_dir(&self.groups.parent);
        }
        Ok(true)
    }

    /// The folder as a descriptor, to start a process in the group.
    pub fn as_folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

fn populated(events: &str, path: &Path) -> Result<bool, CgroupError> {
    match events.lines().find_map(|line| line.strip_prefix("populated ")) {
        Some("0") => Ok(false),
        Some("1") => Ok(true),
        _ => {
            let source = io::Error::new(io::ErrorKind::InvalidData, "it has no line `populated 0` or `populated 1`");
            Err(access("read", path)(source))
        }
    }
}

/// Removes the folder and those in it, the deepest first; false when one still holds a process.
fn remove_tree(path: &Path) -> Result<bool, CgroupError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(access("list", path)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(access("list", path))?;
        if entry.file_type().map_err(access("read", path))?.is_dir() && !remove_tree(&entry.path())? {
            return Ok(false);
        }
    }
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT) => Ok(true),
            Some(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
            _ => Err(access("remove", path)(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_runs_are_runs() {
        assert!(is_run("run-4711-0123456789abcdef"));
        for other in ["run-", "run-4711", "run-4711-0123", "run-x-0123456789abcdef", "other", "run--0123456789abcdef"] {
            assert!(!is_run(other), "{other}");
        }
    }

    #[test]
    fn events_say_whether_a_group_is_populated() {
        let path = Path::new("cgroup.events");
        assert!(populated("populated 1\nfrozen 0\n", path).unwrap());
        assert!(!populated("frozen 0\npopulated 0\n", path).unwrap());
        assert!(populated("frozen 0\n", path).unwrap_err().to_string().contains("cgroup.events"));
    }

    #[test]
    fn a_parent_outside_is_refused_with_the_place_to_name_instead() {
        let Ok(mounts) = mounts() else {
            use std::io::Write;
            let everything = std::env::var_os("WFP_TEST_EVERYTHING").is_some();
            assert!(!everything, "cannot run here: no cgroup v2 file system is mounted");
            let _ = writeln!(std::io::stderr(), "skipped: no cgroup v2 file system is mounted");
            return;
        };
        let below = mounts[0].0.join("a/../../../etc");
        for parent in [Path::new("/etc"), Path::new("relative"), &below] {
            let error = Groups::at(parent).unwrap_err();
            assert!(matches!(error, CgroupError::ParentElsewhere { .. }), "{error}");
            assert!(error.to_string().contains(&*mounts[0].0.to_string_lossy()), "{error}");
        }
        let groups = Groups::at(&mounts[0].0.join("a/b")).unwrap();
        assert_eq!(groups.level, mounts[0].1 + 2);
    }

    #[test]
    fn errors_say_what_to_do() {
        let text = |errno: Errno| create_error("/x/openwfp".into(), errno.into()).to_string();
        assert!(text(Errno::ACCESS).contains("run as root"));
        assert!(text(Errno::ROFS).contains("read-only"));
        assert!(text(Errno::AGAIN).contains("cgroup.max"));
        assert!(CgroupError::NotMounted.to_string().contains("mount -t cgroup2"));
    }
}
