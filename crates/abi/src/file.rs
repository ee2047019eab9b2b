//! How a program's file is named, and the path to show for it.

/// The longest path that the programs take in, in bytes with its leading `/`. A longer one is
/// [`LabelState::TOO_LONG`](crate::label::LabelState::TOO_LONG) and equal to no policy's application.
pub const PATH_BYTES: usize = 4096;

/// The longest name of one component, in bytes (`NAME_MAX`).
pub const NAME_BYTES: usize = 255;

/// How many bytes of a path [`PathRecord`] keeps: its last ones, because they say most.
pub const PATH_SHOWN: usize = 1024;

/// How many paths the `PATHS` map keeps. The one that was executed longest ago makes room.
pub const PATHS_ENTRIES: u32 = 4096;

/// Names a file: the device of its file system and the path *inside* that file system.
///
/// The path runs from the root of the file system, not of a mount namespace: a bind mount, a
/// `chroot` or an overlay cannot make another file appear under the same key, and a package
/// upgrade that renames a new file over the old one keeps it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// [`path_hash`](crate::hash::path_hash) of the path inside the file system.
    pub path: [u64; 2],
    /// The kernel's own device number, `major << 20 | minor`: the one in `/proc/self/mountinfo`,
    /// which on overlayfs and btrfs differs from that of `stat`.
    pub device: u32,
    /// Always zero: keys are compared byte by byte.
    pub zero: u32,
}

impl FileKey {
    /// The key of a file.
    #[inline(always)]
    pub const fn new(device: u32, path: [u64; 2]) -> Self {
        Self { path, device, zero: 0 }
    }
}

/// A path to show, in the `PATHS` map under its [`FileKey`].
///
/// The path stands at the *end* of `bytes`, because the kernel's walk finds its last component
/// first. What stands before it is left over from other paths and means nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PathRecord {
    /// The path, ending with the last byte.
    pub bytes: [u8; PATH_SHOWN],
    /// Length of the whole path in bytes; more than [`PATH_SHOWN`] when its beginning was cut.
    pub length: u32,
    /// Always zero.
    pub zero: u32,
}

impl PathRecord {
    /// The path's bytes as far as they were kept.
    pub fn shown(&self) -> &[u8] {
        let kept = (self.length as usize).min(PATH_SHOWN);
        self.bytes.get(PATH_SHOWN - kept..).unwrap_or_default()
    }

    /// Whether the beginning of the path is missing.
    pub const fn is_cut(&self) -> bool {
        self.length as usize > PATH_SHOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stands_at_the_end_of_its_record() {
        let mut record = PathRecord { bytes: [b'?'; PATH_SHOWN], length: 9, zero: 0 };
        record.bytes[PATH_SHOWN - 9..].copy_from_slice(b"/bin/true");
        assert_eq!(record.shown(), b"/bin/true");
        assert!(!record.is_cut());

        record.length = 5000;
        assert_eq!(record.shown().len(), PATH_SHOWN);
        assert!(record.is_cut());
    }
}
