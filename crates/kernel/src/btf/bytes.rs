//! The bytes of a blob: read, or where the kernel's own lie.

use std::{
    fs::{self, File},
    io,
    ops::Deref,
    os::fd::AsRawFd,
    path::Path,
    ptr::NonNull,
};

/// Bytes that nobody changes.
pub(super) enum Bytes {
    Read(Vec<u8>),
    Mapped(Mapping),
}

impl Bytes {
    /// Those of a file. The kernel's own types are looked at where they lie, where it allows that (from 6.16 on): reading them takes
    /// a call for each page.
    pub fn read(path: &Path) -> io::Result<Self> {
        if path.starts_with("/sys")
            && let Some(mapping) = Mapping::of(&File::open(path)?)?
        {
            return Ok(Self::Mapped(mapping));
        }
        fs::read(path).map(Self::Read)
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Read(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(mapping) => mapping,
        }
    }
}

/// A file of the kernel's, mapped.
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    /// `None` where the file cannot be mapped.
    fn of(file: &File) -> io::Result<Option<Self>> {
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        let (rights, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        // SAFETY: a new mapping, anywhere; of a length of zero there is none.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Ok(None);
        }
        Ok(NonNull::new(start.cast()).map(|start| Self { start, length }))
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped as long as this value lives, and files of sysfs are written by the kernel alone, this one never.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: what was mapped, and nobody borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
