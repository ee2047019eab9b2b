//! BSD loopback devices: an address family, then the packet.

use super::error::{Header, Malformation, WireError, header};
use super::ethernet::EtherType;

/// How the address family is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// In the order of the machine that captured, which no field states (link type NULL).
    Capturing,
    /// Most significant byte first (link type LOOP, OpenBSD).
    Network,
}

/// A packet of a BSD loopback device.
#[derive(Clone, Copy, Debug)]
pub struct LoopbackFrame<'a> {
    ether_type: EtherType,
    payload: &'a [u8],
}

impl<'a> LoopbackFrame<'a> {
    /// The length of the header, in bytes.
    pub const HEADER_LENGTH: usize = 4;

    /// A view over a packet.
    ///
    /// # Errors
    /// [`Malformation::Truncated`] when the header is not whole, [`Malformation::LoopbackFamily`] when the family is
    /// none of the numbers that BSDs, macOS, Linux and Windows give to IPv4 and IPv6.
    #[inline]
    pub fn new_checked(order: ByteOrder, bytes: &'a [u8]) -> Result<Self, WireError> {
        let family = u32::from_be_bytes(*header::<4>(bytes, Header::Loopback)?);
        // Families are small numbers, so the order of a machine that is not told shows by itself.
        let family = if order == ByteOrder::Capturing && family > 0xffff { family.swap_bytes() } else { family };
        let ether_type = match family {
            2 => EtherType::IPV4,
            10 | 23 | 24 | 28 | 30 => EtherType::IPV6,
            other => return Err(WireError::new(0, Malformation::LoopbackFamily(other))),
        };
        Ok(Self { ether_type, payload: &bytes[Self::HEADER_LENGTH..] })
    }

    /// What the payload is.
    #[inline]
    #[must_use]
    pub const fn ether_type(&self) -> EtherType {
        self.ether_type
    }

    /// The packet.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_is_read_in_either_order() {
        let cases: [(ByteOrder, [u8; 4], EtherType); 5] = [
            (ByteOrder::Capturing, [2, 0, 0, 0], EtherType::IPV4),
            (ByteOrder::Capturing, [0, 0, 0, 2], EtherType::IPV4),
            (ByteOrder::Capturing, [30, 0, 0, 0], EtherType::IPV6),
            (ByteOrder::Network, [0, 0, 0, 24], EtherType::IPV6),
            (ByteOrder::Network, [0, 0, 0, 2], EtherType::IPV4),
        ];
        for (order, bytes, expected) in cases {
            assert_eq!(LoopbackFrame::new_checked(order, &bytes).unwrap().ether_type(), expected);
        }
    }

    #[test]
    fn other_families_and_cut_headers_are_named() {
        let error = LoopbackFrame::new_checked(ByteOrder::Network, &[2, 0, 0, 0]).unwrap_err();
        assert_eq!(error.malformation, Malformation::LoopbackFamily(0x0200_0000));
        let error = LoopbackFrame::new_checked(ByteOrder::Capturing, &[7, 0, 0, 0]).unwrap_err();
        assert_eq!(error.malformation, Malformation::LoopbackFamily(7));
        let error = LoopbackFrame::new_checked(ByteOrder::Capturing, &[2, 0, 0]).unwrap_err();
        assert_eq!(error.offset, 3);
    }
}
