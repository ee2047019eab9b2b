//! What the two versions of IP say about a fragment.

use super::error::{Malformation, WireError};

/// The place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// What the fragments of one datagram have in common: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
    /// Where the fragment begins in the datagram's payload, in bytes: a multiple of eight.
    pub at: u16,
    /// Whether the datagram goes on after it.
    pub more: bool,
}

impl Fragment {
    /// Whether a fragment of `length` bytes fits into a datagram at its place.
    ///
    /// # Errors
    /// [`Malformation::FragmentLength`] when another must follow and the length is no multiple of eight,
    /// [`Malformation::FragmentBeyondEnd`] when it ends beyond the longest datagram.
    pub fn check(self, length: usize) -> Result<(), WireError> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if self.more && (length % 8 != 0 || length == 0) {
            return Err(WireError::new(0, Malformation::FragmentLength(length)));
        }
        let at = u32::from(self.at);
        if at.saturating_add(length) > u32::from(u16::MAX) {
            return Err(WireError::new(0, Malformation::FragmentBeyondEnd { at, length }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_ends_inside_the_datagram_and_at_a_multiple_of_eight() {
        let cases = [
            (0, true, 1480, Ok(())),
            (1480, false, 13, Ok(())),
            (1480, false, 0, Ok(())),
            (0, true, 1481, Err(Malformation::FragmentLength(1481))),
            (0, true, 0, Err(Malformation::FragmentLength(0))),
            (65528, false, 7, Ok(())),
            (65528, false, 8, Err(Malformation::FragmentBeyondEnd { at: 65528, length: 8 })),
        ];
        for (at, more, length, expected) in cases {
            let fragment = Fragment { identification: 1, at, more };
            assert_eq!(fragment.check(length).map_err(|error| error.malformation), expected, "{at} {more} {length}");
        }
    }
}
