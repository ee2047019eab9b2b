//! The memory that both sides share, and descriptors that were inherited: all of this crate's unsafe code is here.
//!
//! Nobody outside sees anything of the memory but atomic words, so that what the other process does to it meanwhile can give any
//! number, and nothing worse. It is sealed against shrinking before it is mapped: an access never meets a page that is not there.
#![allow(unsafe_code)]

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The seals that the memory has.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Mapped memory, as words.
pub(crate) struct Memory {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: all that can be had of it are atomic words; the mapping belongs to this value, whichever thread has it.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Makes memory of so many bytes, all zero, and seals it.
    pub fn make(bytes: usize) -> io::Result<(OwnedFd, Self)> {
        let memory = memfd_create("openwfp callout host", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, bytes as u64)?;
        fcntl_add_seals(&memory, SEALS)?;
        let mapped = Self::map(&memory)?;
        Ok((memory, mapped))
    }

    /// Maps memory that somebody else has made; refused where it could shrink.
    pub fn map(memory: impl AsFd) -> io::Result<Self> {
        if !fcntl_get_seals(&memory)?.contains(SEALS) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the shared memory is not sealed"));
        }
        let bytes = usize::try_from(fstat(&memory)?.st_size).unwrap_or(0);
        let count = bytes / size_of::<AtomicU64>();
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the shared memory is empty"));
        }
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let place =
            unsafe { mmap(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, memory, 0) }?;
        let words = NonNull::new(place.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { words, count })
    }
}

impl Deref for Memory {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins at a page, has so many words, lives as long as this value, and cannot shrink. Any bits are
        // a number, and the other process writes them as the kernel and other threads would: at any time, which atomics allow.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody can have a reference into it any more.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), self.count * size_of::<AtomicU64>()) };
    }
}

/// Takes over a descriptor that this process was started with; none where there is no such descriptor, or it is one of the
/// standard ones. To be called once for each number.
pub(crate) fn adopt(number: RawFd) -> Option<OwnedFd> {
    if number <= 2 {
        return None;
    }
    // SAFETY: it was handed over for this purpose by whoever started the process, so nothing else here owns it. Where the number
    // stands for nothing, that shows in the next line, and nothing is closed.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match fcntl_getfd(&descriptor) {
        Ok(_) => Some(descriptor),
        Err(_) => {
            std::mem::forget(descriptor);
            None
        }
    }
}

/// Has exec close every descriptor but the standard ones. Whether there was one that it would not have closed.
///
/// # Errors
/// They cannot be listed.
pub fn close_others_at_exec() -> io::Result<bool> {
    let mut found = false;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        let Some(number) = number.filter(|number| *number > 2) else { continue };
        // SAFETY: the number was listed just now. Whatever it stands for is asked for its flag and gets one; nothing is closed.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = fcntl_getfd(descriptor)?;
        if !flags.contains(FdFlags::CLOEXEC) {
            fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC)?;
            found = true;
        }
    }
    Ok(found)
}
