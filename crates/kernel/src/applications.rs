//! An application that a policy names, as the programs see it: device of the file system and path
//! inside that file system.

use crate::mounts::{self, Mount};
use openwfp_abi::{
    file::{FileKey, PATH_BYTES},
    hash::path_hash,
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Why an application cannot be recognised.
#[derive(Debug, Error)]
pub enum ApplicationError {
    /// The file could not be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// The path.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The path is not a file.
    #[error("{path} is not a file")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// The file is in no mount that this process can see.
    #[error("{path} is in no mount of this process's namespace")]
    NoMount {
        /// The path.
        path: String,
    },
    /// The file was moved while it was looked at, or has been deleted.
    #[error("{path} has been moved or deleted meanwhile")]
    Moved {
        /// The path.
        path: String,
    },
    /// The path inside its file system is longer than the programs can follow.
    #[error("{path} is longer than {PATH_BYTES} bytes")]
    TooLong {
        /// The path.
        path: String,
    },
}

/// A file that can be executed, found by its path.
#[derive(Debug)]
pub struct Application {
    /// The kernel's device number of its file system, `major << 20 | minor`.
    pub device: u32,
    /// Its path inside the file system, from the file system's root.
    pub inner: PathBuf,
    /// Keeps the file system alive: numbers of file systems without a device are given out again
    /// as soon as they are unmounted.
    pub file: File,
}

impl Application {
    /// The file at this absolute path, symbolic links resolved.
    ///
    /// Device and root come from the mount of the *opened* file: `stat` gives other device numbers
    /// than the kernel's own on overlayfs and btrfs.
    pub fn find(path: &Path) -> Result<Self, ApplicationError> {
        let shown = || path.display().to_string();
        let open = |source| ApplicationError::Open { path: shown(), source };
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path).map_err(open)?;
        let metadata = file.metadata().map_err(open)?;
        if !metadata.is_file() {
            return Err(ApplicationError::NotAFile { path: shown() });
        }
        let mount = mount_of(&file).map_err(open)?;
        let mount = mount.ok_or_else(|| ApplicationError::NoMount { path: shown() })?;
        let place = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(open)?;
        // The link says " (deleted)" of a deleted file; looking again tells whether it is still there.
        let again = fs::symlink_metadata(&place);
        let same = |other: fs::Metadata| (other.dev(), other.ino()) == (metadata.dev(), metadata.ino());
        if !again.is_ok_and(same) {
            return Err(ApplicationError::Moved { path: shown() });
        }
        let below = place.strip_prefix(&mount.point);
        let below = below.map_err(|_| ApplicationError::NoMount { path: shown() })?;
        let inner = mount.root.join(below);
        if inner.as_os_str().len() > PATH_BYTES {
            return Err(ApplicationError::TooLong { path: shown() });
        }
        Ok(Self { device: mount.device, inner, file })
    }

    /// The key that the programs give to processes which run this file, under the load's hash key.
    pub fn key(&self, hash_key: [u64; 2]) -> FileKey {
        FileKey::new(self.device, path_hash(hash_key, self.inner.as_os_str().as_bytes()))
    }
}

/// The mount through which a file was opened.
pub(crate) fn mount_of(file: &File) -> io::Result<Option<Mount>> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let id: Option<u64> = id.and_then(|id| id.trim().parse().ok());
    let mounts = mounts::read()?;
    Ok(mounts.into_iter().find(|mount| Some(mount.id) == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_inside_its_file_system() {
        let found = Application::find(Path::new("/bin/sh")).unwrap();
        assert!(found.inner.is_absolute());
        assert!(found.device != 0);
        assert_eq!(found.key([1, 2]), found.key([1, 2]));
        assert_ne!(found.key([1, 2]), found.key([1, 3]));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert!(matches!(Application::find(Path::new("/bin")), Err(ApplicationError::NotAFile { .. })));
        assert!(matches!(Application::find(Path::new("/bin/no such program")), Err(ApplicationError::Open { .. })));
    }
}
