//! Events of several CPUs in the order of time, although they are read bit by bit.
//!
//! A program takes its place in the ring buffer before it looks at the clock. So a record's time is later than that of every
//! look at the ring that did not find its place taken, and earlier only than what stands behind it may be: two programs on two
//! CPUs can look at the clock in the other order than they took their places. What has been read is told up to the last time
//! before which nothing can come any more; the rest waits for the next look.

use aya::maps::{MapData, RingBuf};
use std::{
    collections::VecDeque,
    io,
    os::fd::AsRawFd,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// How far the programs have written into a ring buffer, and how far it has been read, in bytes since it was made.
pub(crate) struct Positions {
    /// Two pages of the kernel's, to be read alone: each begins with one of the numbers.
    pages: NonNull<libc::c_void>,
    page: usize,
}

// SAFETY: the pages are only read, by atomic loads.
unsafe impl Send for Positions {}

impl Positions {
    pub(crate) fn of(ring: &RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the function takes a number and has no effect.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let pages = unsafe {
            libc::mmap(std::ptr::null_mut(), 2 * page, libc::PROT_READ, libc::MAP_SHARED, ring.as_raw_fd(), 0)
        };
        match NonNull::new(pages) {
            Some(pages) if pages.as_ptr() != libc::MAP_FAILED => Ok(Self { pages, page }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn number(&self, offset: usize) -> usize {
        // SAFETY: within the mapping, aligned as a page is; the kernel changes it by whole words.
        unsafe { self.pages.byte_add(offset).cast::<AtomicUsize>().as_ref() }.load(Ordering::SeqCst)
    }

    /// How far it has been read.
    pub(crate) fn read(&self) -> usize {
        self.number(0)
    }

    /// How far places are taken.
    pub(crate) fn written(&self) -> usize {
        self.number(self.page)
    }
}

impl Drop for Positions {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has a reference into it.
        unsafe { libc::munmap(self.pages.as_ptr(), 2 * self.page) };
    }
}

/// What has been read and not told.
pub(crate) struct Merge<T> {
    /// By time, CPU and number.
    held: Vec<((Duration, u16, u64), T)>,
    /// Times of the monotonic clock, and how far places were taken a little later.
    looks: VecDeque<(Duration, usize)>,
    /// What is to be read yet was made later.
    complete: Duration,
}

impl<T> Default for Merge<T> {
    fn default() -> Self {
        Self { held: vec![], looks: VecDeque::new(), complete: Duration::ZERO }
    }
}

impl<T> Merge<T> {
    /// At a time, or later, places were taken as far as this: those behind are of later records.
    pub(crate) fn look(&mut self, time: Duration, written: usize) {
        // nothing has come since: the later time holds too
        self.looks.pop_back_if(|look| look.1 == written);
        self.looks.push_back((time, written));
    }

    /// Takes what was read: when it was made, its CPU and its number there.
    pub(crate) fn add(&mut self, when: (Duration, u16, u64), what: T) {
        self.held.push((when, what));
    }

    /// Everything was read as far as this: what can be told, in order.
    pub(crate) fn told(&mut self, read: usize) -> Vec<T> {
        while let Some((time, _)) = self.looks.pop_front_if(|look| look.1 <= read) {
            self.complete = self.complete.max(time);
        }
        self.until(self.complete)
    }

    /// All that is left, whatever may come.
    pub(crate) fn rest(&mut self) -> Vec<T> {
        self.until(Duration::MAX)
    }

    fn until(&mut self, time: Duration) -> Vec<T> {
        self.held.sort_by_key(|(when, _)| *when);
        let told = self.held.partition_point(|(when, _)| when.0 <= time);
        self.held.drain(..told).map(|(_, what)| what).collect()
    }

    /// Everything that was made until this time has been told, and nothing later.
    pub(crate) fn complete(&self) -> Duration {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(time: u64) -> Duration {
        Duration::from_nanos(time)
    }

    #[test]
    fn what_stands_behind_and_was_made_before_is_told_before() {
        let mut merge = Merge::default();
        merge.look(at(10), 0);
        merge.add((at(30), 0, 0), "late to look at the clock");
        // the place behind it was taken at once, and is not read yet
        merge.look(at(31), 200);
        assert!(merge.told(100).is_empty());
        merge.add((at(20), 1, 0), "behind it");
        merge.add((at(40), 1, 1), "later");
        assert_eq!(merge.told(200), ["behind it", "late to look at the clock"]);
        assert_eq!(merge.complete(), at(31));
        merge.look(at(50), 300);
        assert_eq!(merge.told(300), ["later"]);
    }

    #[test]
    fn while_nothing_comes_one_look_is_remembered() {
        let mut merge = Merge::<()>::default();
        (1..9).for_each(|time| merge.look(at(time), 100));
        assert_eq!(merge.looks, [(at(8), 100)]);
        merge.told(100);
        assert_eq!(merge.complete(), at(8));
    }

    #[test]
    fn of_one_time_the_lower_number_comes_first_and_the_rest_is_told_at_the_end() {
        let mut merge = Merge::default();
        for (cpu, number) in [(1, 0), (0, 5), (0, 4)] {
            merge.add((at(7), cpu, number), (cpu, number));
        }
        assert!(merge.told(1000).is_empty(), "nobody has looked at the ring");
        assert_eq!(merge.rest(), [(0, 4), (0, 5), (1, 0)]);
        assert!(merge.rest().is_empty());
    }
}
