//! Memory that is shared with the programs: the ring buffer of diverted packets, and the maps that user space writes.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
    ptr, slice,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

/// A mapping of a map's memory.
struct Mapping {
    memory: *mut u8,
    length: usize,
}

// SAFETY: the memory is shared with the kernel anyway, and reached through its one owner.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(map: BorrowedFd<'_>, length: usize, offset: usize, writable: bool) -> io::Result<Self> {
        let length = length.next_multiple_of(page());
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let memory = unsafe {
            let offset = offset as libc::off_t;
            libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, map.as_raw_fd(), offset)
        };
        if memory == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { memory: memory.cast(), length })
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has a reference into it.
        unsafe { libc::munmap(self.memory.cast(), self.length) };
    }
}

fn page() -> usize {
    // SAFETY: a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The entries of an array map.
pub(crate) struct Entries<T> {
    mapping: Mapping,
    entries: PhantomData<T>,
}

impl<T: Copy> Entries<T> {
    /// Maps an array map of so many entries, whose size is a multiple of eight.
    pub fn map(map: BorrowedFd<'_>, count: u32) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let mapping = Mapping::new(map, count as usize * size_of::<T>(), 0, true)?;
        Ok(Self { mapping, entries: PhantomData })
    }

    /// The place of an entry; to be read and written by volatile or atomic accesses, since programs do so at the same time.
    pub fn at(&self, index: usize) -> *mut T {
        debug_assert!((index + 1) * size_of::<T>() <= self.mapping.length);
        self.mapping.memory.cast::<T>().wrapping_add(index)
    }
}

/// Records of the kernel's ring buffer (the kernel's Documentation/bpf/ringbuf.rst), read in batches.
pub(crate) struct Ring {
    consumer: Mapping,
    producer: Mapping,
    mask: u64,
    /// Up to where records were handed out.
    read: u64,
}

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: u64 = 8;

impl Ring {
    /// Maps a ring buffer of so many bytes, a power of two.
    pub fn map(map: BorrowedFd<'_>, bytes: u32) -> io::Result<Self> {
        let bytes = bytes as usize;
        let consumer = Mapping::new(map, page(), 0, true)?;
        let producer = Mapping::new(map, page() + 2 * bytes, page(), false)?;
        let mut ring = Self { consumer, producer, mask: bytes as u64 - 1, read: 0 };
        ring.read = ring.consumed().load(Ordering::Acquire);
        Ok(ring)
    }

    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the first word of the first page, which lives as long as the mapping.
        unsafe { AtomicU64::from_ptr(self.consumer.memory.cast()) }
    }

    fn produced(&self) -> u64 {
        // SAFETY: the first word of the second page; it is only loaded from.
        unsafe { AtomicU64::from_ptr(self.producer.memory.cast()) }.load(Ordering::SeqCst)
    }

    /// Whether there is nothing to come soon: no record, not even one that is being written.
    pub fn is_empty(&self) -> bool {
        self.read == self.produced()
    }

    /// The next record. It stays as it is until [`release`](Self::release).
    pub fn next(&mut self) -> Option<Record> {
        while self.read < self.produced() {
            let at = (self.read & self.mask) as usize;
            let place = self.producer.memory.wrapping_add(page() + at);
            // SAFETY: within the mapping; records begin at multiples of eight.
            let header = unsafe { AtomicU32::from_ptr(place.cast()) }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let length = (header & !(BUSY | DISCARDED)) as usize;
            self.read += (HEADER + length as u64).next_multiple_of(HEADER);
            if header & DISCARDED == 0 {
                return Some(Record { bytes: place.wrapping_add(HEADER as usize), length });
            }
        }
        None
    }

    /// All records that were handed out are done with.
    pub fn release(&mut self) {
        self.consumed().store(self.read, Ordering::Release);
    }
}

/// A record in the ring buffer.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    bytes: *const u8,
    length: usize,
}

impl Record {
    /// Its bytes.
    ///
    /// # Safety
    /// [`Ring::release`] is not called, and the ring not dropped, as long as they are used.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: the kernel has written so many bytes, and changes them no more before they are released; the data is mapped
        // twice in a row, so that a record never wraps.
        unsafe { slice::from_raw_parts(self.bytes, self.length) }
    }
}
