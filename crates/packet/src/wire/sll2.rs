//! Linux cooked captures, version 2: what `tcpdump -i any` writes since libpcap 1.10. They name the interface.

use super::error::{Header, WireError, header};
use super::ethernet::EtherType;
use super::sll::SllPacketType;

/// A packet with the cooked header of version 2.
#[derive(Clone, Copy, Debug)]
pub struct Sll2Packet<'a> {
    header: &'a [u8; 20],
    payload: &'a [u8],
}

impl<'a> Sll2Packet<'a> {
    /// The length of the header, in bytes.
    pub const HEADER_LENGTH: usize = 20;

    /// A view over a packet.
    ///
    /// # Errors
    /// [`super::Malformation::Truncated`] when the header is not whole.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header(bytes, Header::Sll2)?;
        Ok(Self { header, payload: &bytes[Self::HEADER_LENGTH..] })
    }

    /// What the payload is, where the device type gives the number the meaning of an EtherType.
    #[inline]
    #[must_use]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(u16::from_be_bytes([self.header[0], self.header[1]]))
    }

    /// The index of the interface on the capturing machine, from 1.
    #[inline]
    #[must_use]
    pub const fn interface_index(&self) -> u32 {
        u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]])
    }

    /// The kind of the device: a number of Linux' `ARPHRD_*`.
    #[inline]
    #[must_use]
    pub const fn device_type(&self) -> u16 {
        u16::from_be_bytes([self.header[8], self.header[9]])
    }

    /// Which way the packet went.
    #[inline]
    #[must_use]
    pub const fn packet_type(&self) -> SllPacketType {
        SllPacketType::from_number(self.header[10] as u16)
    }

    /// What follows the header: VLAN tags, or the packet.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::super::Malformation;
    use super::*;

    #[test]
    fn fields_stand_where_libpcap_puts_them() {
        let bytes = [
            0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x06, 0x7e, 0x1a, 0x0c, 0x51, 0x5f, 0x83,
            0x00, 0x00, 0x45,
        ];
        let packet = Sll2Packet::new_checked(&bytes).unwrap();
        assert_eq!(packet.ether_type(), EtherType::IPV4);
        assert_eq!(packet.interface_index(), 3);
        assert_eq!(packet.device_type(), 1);
        assert_eq!(packet.packet_type(), SllPacketType::Host);
        assert_eq!(packet.payload(), [0x45]);
    }

    #[test]
    fn a_cut_header_is_named() {
        for length in 0..20 {
            let error = Sll2Packet::new_checked(&[0; 20][..length]).unwrap_err();
            let needed = Malformation::Truncated { header: Header::Sll2, needed: 20, available: length };
            assert_eq!(error.malformation, needed);
        }
    }
}
