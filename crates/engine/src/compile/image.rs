//! The policy image as a whole: versioned, with a checksum, and as bytes.

use crate::{
    Image,
    cell::{Cell, FIRST_FREE, MAX_CELLS, VERSION, kind},
};
use std::{vec, vec::Vec};

/// Why bytes are no policy image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The length is no multiple of a cell's, too small, or not what the header says.
    #[error("a policy image of {found} bytes, where its header says {expected}")]
    Length {
        /// The length in bytes.
        found: usize,
        /// The length that the header gives, or the least there is.
        expected: usize,
    },
    /// The first cell is no header.
    #[error("these bytes are no policy image")]
    NoHeader,
    /// The image is of another version.
    #[error("the policy image is of version {found}; this program reads version {VERSION}: compile the policy anew")]
    Version {
        /// The image's version.
        found: u32,
    },
    /// The checksum is wrong.
    #[error("the policy image is damaged: its checksum is {found:08x}, its header says {expected:08x}")]
    Checksum {
        /// The checksum of the bytes.
        found: u32,
        /// The one in the header.
        expected: u32,
    },
}

/// The cells of an image.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PolicyImage {
    cells: Vec<Cell>,
}

impl PolicyImage {
    /// Puts the header before finished cells.
    pub(super) fn seal(mut cells: Vec<Cell>, generation: u32) -> Self {
        let count = cells.len() as u32;
        cells[0] = Cell::header(generation, count, 0);
        cells[0].c = checksum(&cells);
        Self { cells }
    }

    /// The cells.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The generation that the image was compiled as.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.cells.first().map_or(0, |header| header.a)
    }

    /// The bytes, little endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = self.cells.iter().flat_map(|cell| [cell.w, cell.a, cell.b, cell.c]);
        words.flat_map(u32::to_le_bytes).collect()
    }

    /// Reads bytes back. Anything but a whole, undamaged image of this version is refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ImageError> {
        let least = FIRST_FREE as usize * 16;
        if bytes.len() < least || !bytes.len().is_multiple_of(16) {
            return Err(ImageError::Length {
                found: bytes.len(),
                expected: least.max(bytes.len().next_multiple_of(16)),
            });
        }
        let mut words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let mut cells = Vec::with_capacity(bytes.len() / 16);
        while let (Some(w), Some(a), Some(b), Some(c)) = (words.next(), words.next(), words.next(), words.next()) {
            cells.push(Cell::new(w, a, b, c));
        }
        let header = cells[0];
        if header.kind() != kind::HEADER {
            return Err(ImageError::NoHeader);
        }
        if header.w >> 4 != VERSION {
            return Err(ImageError::Version { found: header.w >> 4 });
        }
        if header.b as usize != cells.len() || header.b > MAX_CELLS {
            return Err(ImageError::Length { found: bytes.len(), expected: header.b as usize * 16 });
        }
        let found = checksum(&cells);
        if found != header.c {
            return Err(ImageError::Checksum { found, expected: header.c });
        }
        Ok(Self { cells })
    }
}

impl Image for PolicyImage {
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<&Cell> {
        self.cells.get(index as usize)
    }
}

/// The checksum over all cells, with the header's own place for it taken as 0.
fn checksum(cells: &[Cell]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = vec![];
    for (index, cell) in cells.iter().enumerate() {
        let last = if index == 0 { 0 } else { cell.c };
        bytes.clear();
        for word in [cell.w, cell.a, cell.b, last] {
            bytes.extend(word.to_le_bytes());
        }
        hasher.update(&bytes);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> PolicyImage {
        PolicyImage::seal(vec![Cell::new(kind::NOTHING, 0, 0, 0); FIRST_FREE as usize + 2], 7)
    }

    #[test]
    fn bytes_read_back_as_the_same_image() {
        let image = small();
        assert_eq!(PolicyImage::from_bytes(&image.to_bytes()), Ok(image.clone()));
        assert_eq!(image.generation(), 7);
    }

    #[test]
    fn a_single_flipped_bit_anywhere_is_refused() {
        let bytes = small().to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(PolicyImage::from_bytes(&damaged).is_err(), "bit {bit}");
        }
        assert!(PolicyImage::from_bytes(&bytes[..bytes.len() - 16]).is_err());
        assert!(PolicyImage::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }
}
