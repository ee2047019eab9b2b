//! Policy images in the `CELLS` map.

use crate::load::{LEAST_CELLS, LoadError};
use openwfp_engine::Cell;
use std::{
    io,
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    sync::atomic::{Ordering, fence},
};

/// How many cells the map has for an image of this many: so many that a later one, which may be twice as large, fits
/// beside it. The map cannot grow.
pub fn room(cells: usize) -> u32 {
    let cells = u32::try_from(cells).unwrap_or(u32::MAX);
    cells.saturating_mul(3).saturating_add(LEAST_CELLS)
}

/// Where an image of `cells` stands in a map of `room` beside another: before it, else at the map's end, so that the next one
/// has the room before it in one piece. Lines of four cells stay whole.
pub(crate) fn beside(other: &Range<u32>, cells: usize, room: u32) -> Option<u32> {
    let cells = u32::try_from(cells).ok()?;
    if cells <= other.start {
        return Some(0);
    }
    let base = room.checked_sub(cells)? & !3;
    (base >= other.end).then_some(base)
}

/// The map's memory, seen by this process and the programs at once.
pub(crate) struct Cells {
    memory: *mut Cell,
    count: usize,
}

// SAFETY: the memory is shared with the kernel anyway; this value is its only writer.
unsafe impl Send for Cells {}

impl Cells {
    /// Maps the memory of the map, which has this many cells.
    pub(crate) fn map(map: BorrowedFd<'_>, count: u32) -> io::Result<Self> {
        let count = count as usize;
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                count * size_of::<Cell>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { memory: memory.cast(), count })
    }

    /// How many cells there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.count).unwrap_or(u32::MAX)
    }

    /// Writes an image at `base`: the header last, so that no program takes half of it for the whole.
    pub(crate) fn write(&mut self, base: u32, cells: &[Cell]) -> Result<(), LoadError> {
        let base = base as usize;
        if base.checked_add(cells.len()).is_none_or(|end| end > self.count) {
            let source = io::Error::from(io::ErrorKind::StorageFull);
            return Err(LoadError::System { what: "the policy image does not fit into its map", source });
        }
        for (index, cell) in cells.iter().enumerate().rev() {
            if index == 0 {
                fence(Ordering::Release);
            }
            // SAFETY: within the mapping, as was just checked; a cell has no invalid bytes.
            unsafe { self.memory.add(base + index).write_volatile(*cell) };
        }
        fence(Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has a reference into it.
        unsafe { libc::munmap(self.memory.cast(), self.count * size_of::<Cell>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_two_images() {
        assert_eq!(room(0), LEAST_CELLS);
        assert_eq!(room(3000), 9000 + LEAST_CELLS);
        assert_eq!(room(usize::MAX), u32::MAX);
    }

    #[test]
    fn images_stand_at_either_end() {
        assert_eq!(beside(&(0..100), 50, 201), Some(148), "a multiple of four");
        assert_eq!(beside(&(148..198), 148, 201), Some(0));
        assert_eq!(beside(&(148..198), 149, 201), None);
        assert_eq!(beside(&(0..100), 101, 201), Some(100));
        assert_eq!(beside(&(0..100), 102, 201), None);
        assert_eq!(beside(&(0..100), 202, 201), None);
        assert_eq!(beside(&(0..100), usize::MAX, 201), None);
    }
}
