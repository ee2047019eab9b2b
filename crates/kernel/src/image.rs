//! Policy images in the `CELLS` map.

use crate::load::{LEAST_CELLS, LoadError};
use openwfp_engine::Cell;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    sync::atomic::{Ordering, fence},
};

/// How many cells the map has for an image of this many: twice as many, so that a later one fits beside it.
pub fn room(cells: usize) -> u32 {
    u32::try_from(cells.saturating_mul(2)).unwrap_or(u32::MAX).max(LEAST_CELLS)
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
        assert_eq!(room(3000), 6000);
        assert_eq!(room(usize::MAX), u32::MAX);
    }
}
