//! The control group (cgroup v2) whose processes the programs see.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Number of the cgroup namespace that every machine starts with (`PROC_CGROUP_INIT_INO`).
const INITIAL_NAMESPACE: u64 = 0xefff_fffb;

/// Why a control group cannot be used.
#[derive(Debug, Error)]
pub enum GroupError {
    /// No cgroup v2 hierarchy is mounted.
    #[error("no cgroup v2 hierarchy is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NoHierarchy,
    /// The folder is in no cgroup v2 hierarchy.
    #[error("{path} is not a folder of the cgroup v2 hierarchy at {hierarchy}")]
    NotAGroup {
        /// The folder.
        path: String,
        /// Where the hierarchy is mounted.
        hierarchy: String,
    },
    /// Only a part of the hierarchy can be seen, so that a group's depth is not known.
    #[error("the cgroup hierarchy is seen from inside a cgroup namespace; run outside of the container")]
    Namespace,
    /// The system refused.
    #[error("cannot use {path}: {source}")]
    System {
        /// The file or folder.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Where cgroup v2 is mounted, from `/proc/self/mountinfo`.
pub fn hierarchy() -> Result<PathBuf, GroupError> {
    let mounts =
        crate::mounts::read().map_err(|source| GroupError::System { path: "/proc/self/mountinfo".into(), source })?;
    let mount = mounts.into_iter().find(|mount| mount.kind == "cgroup2" && mount.root == Path::new("/"));
    mount.map(|mount| mount.point).ok_or(GroupError::NoHierarchy)
}

/// Whether a group of this name stands anywhere in the hierarchy. What cannot be looked into may hold it.
pub fn stands(name: &OsStr) -> Result<bool, GroupError> {
    let mut folders = vec![hierarchy()?];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // removed meanwhile
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return Ok(true),
        };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name() == name {
                return Ok(true);
            }
            folders.push(entry.path());
        }
    }
    Ok(false)
}

/// The hierarchy, to look up which path the group with an id has.
#[derive(Debug)]
pub(crate) struct Paths {
    hierarchy: PathBuf,
    folder: File,
}

impl Paths {
    pub(crate) fn open() -> Option<Self> {
        let hierarchy = hierarchy().ok()?;
        let folder = File::open(&hierarchy).ok()?;
        Some(Self { hierarchy, folder })
    }

    /// The path of the group with this id from the root of the hierarchy; `None` when it is gone.
    pub(crate) fn of(&self, id: u64) -> Option<String> {
        /// `struct file_handle` of a kernfs node (`FILEID_KERNFS`).
        #[repr(C)]
        struct Handle {
            bytes: u32,
            kind: i32,
            id: u64,
        }
        let mut handle = Handle { bytes: 8, kind: 0xfe, id };
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: a handle of our own, whose length it says; the descriptor is open.
        let opened = unsafe { libc::open_by_handle_at(self.folder.as_raw_fd(), (&raw mut handle).cast(), flags) };
        if opened < 0 {
            return None;
        }
        // SAFETY: it was just opened, and belongs to nobody else.
        let opened = unsafe { OwnedFd::from_raw_fd(opened) };
        let place = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok()?;
        let below = place.strip_prefix(&self.hierarchy).ok()?.to_str()?;
        // what is gone is shown with this ending, which a name may have too: looking tells
        let is_there = fs::metadata(&place).is_ok_and(|metadata| metadata.ino() == id);
        is_there.then(|| format!("/{below}"))
    }
}

/// A control group, as the programs recognise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its folder.
    pub path: PathBuf,
    /// Its id: the folder's inode number.
    pub id: u64,
    /// Its depth below the root of the hierarchy, which has depth 0.
    pub level: u32,
}

impl Group {
    /// A group by its folder, which must exist.
    pub fn open(path: &Path) -> Result<Self, GroupError> {
        let system = |path: &Path| {
            let path = path.display().to_string();
            move |source| GroupError::System { path, source }
        };
        let namespace = Path::new("/proc/self/ns/cgroup");
        if fs::metadata(namespace).map_err(system(namespace))?.ino() != INITIAL_NAMESPACE {
            return Err(GroupError::Namespace);
        }
        let hierarchy = hierarchy()?;
        let path = path.canonicalize().map_err(system(path))?;
        let Ok(below) = path.strip_prefix(&hierarchy) else {
            return Err(GroupError::NotAGroup {
                path: path.display().to_string(),
                hierarchy: hierarchy.display().to_string(),
            });
        };
        let level = below.components().count() as u32;
        let id = fs::metadata(&path).map_err(system(&path))?.ino();
        Ok(Self { path, id, level })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_a_path_by_its_id() {
        let (Ok(hierarchy), Some(paths)) = (hierarchy(), Paths::open()) else {
            return crate::skips::skipped("no cgroup v2 hierarchy");
        };
        let name = format!("openwfp-test-path-{}", std::process::id());
        let (above, below) = (hierarchy.join(&name), hierarchy.join(&name).join("below"));
        if let Err(error) = fs::create_dir_all(&below) {
            return crate::skips::skipped(error);
        }
        let id = fs::metadata(&below).unwrap().ino();
        let found = paths.of(id);
        fs::remove_dir(below).unwrap();
        let gone = paths.of(id);
        fs::remove_dir(above).unwrap();
        assert_eq!(found, Some(format!("/{name}/below")));
        assert_eq!(gone, None);
        assert_eq!(paths.of(fs::metadata(hierarchy).unwrap().ino()), Some("/".into()));
    }

    #[test]
    fn a_group_is_found_wherever_it_stands() {
        let Ok(hierarchy) = hierarchy() else { return crate::skips::skipped("no cgroup v2 hierarchy") };
        let name = format!("openwfp-test-stands-{}", std::process::id());
        let (above, below) = (hierarchy.join(&name), hierarchy.join(&name).join("below").join(format!("{name}-inner")));
        let inner = below.file_name().unwrap();
        assert!(!stands(inner).unwrap());
        if let Err(error) = fs::create_dir_all(&below) {
            return crate::skips::skipped(error);
        }
        let found = stands(inner);
        for folder in [&*below, below.parent().unwrap(), &*above] {
            fs::remove_dir(folder).unwrap();
        }
        assert!(found.unwrap());
        assert!(!stands(inner).unwrap());
    }
}
