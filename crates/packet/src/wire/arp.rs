//! ARP packets for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use super::error::{Header, WireError, header};

/// An ARP packet.
#[derive(Clone, Copy, Debug)]
pub struct ArpPacket<'a> {
    bytes: &'a [u8; 28],
}

impl<'a> ArpPacket<'a> {
    /// A view over an ARP packet; `None` when it is about other addresses than Ethernet's and IPv4's.
    ///
    /// # Errors
    /// [`super::Malformation::Truncated`] when it is not whole.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Option<Self>, WireError> {
        let bytes = header::<28>(bytes, Header::Arp)?;
        let [0, 1, 0x08, 0x00, 6, 4, ..] = bytes else { return Ok(None) };
        Ok(Some(Self { bytes }))
    }

    /// The IPv4 address of the sender.
    #[must_use]
    pub const fn sender(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.bytes[14], self.bytes[15], self.bytes[16], self.bytes[17])
    }

    /// The IPv4 address that is asked for, or answered.
    #[must_use]
    pub const fn target(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.bytes[24], self.bytes[25], self.bytes[26], self.bytes[27])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [u8; 28] = [
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, 0x02, 0, 0, 0, 0, 0x01, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0,
        2, 80,
    ];

    #[test]
    fn fields_stand_where_rfc_826_puts_them() {
        let packet = ArpPacket::new_checked(&REQUEST).unwrap().unwrap();
        assert_eq!(packet.sender(), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(packet.target(), Ipv4Addr::new(192, 0, 2, 80));
    }

    #[test]
    fn other_addresses_are_none_and_a_cut_packet_is_an_error() {
        let mut token_ring = REQUEST;
        token_ring[1] = 6;
        assert!(ArpPacket::new_checked(&token_ring).unwrap().is_none());
        for length in 0..28 {
            assert_eq!(ArpPacket::new_checked(&REQUEST[..length]).unwrap_err().offset, length);
        }
    }
}
