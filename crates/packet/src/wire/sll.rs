//! Linux cooked captures, version 1: what `tcpdump -i any` wrote before libpcap 1.10.

use super::error::{Header, WireError, header};
use super::ethernet::EtherType;

/// Which way a packet of a cooked capture went, as the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SllPacketType {
    /// Sent to us.
    Host,
    /// Sent to everybody on the link.
    Broadcast,
    /// Sent to a group on the link.
    Multicast,
    /// Sent to somebody else, and seen because the device listens to everything.
    OtherHost,
    /// Sent by us.
    Outgoing,
    /// A number that Linux has not given a meaning that packets on a wire can have.
    Unknown(u16),
}

impl SllPacketType {
    pub(crate) const fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Host,
            1 => Self::Broadcast,
            2 => Self::Multicast,
            3 => Self::OtherHost,
            4 => Self::Outgoing,
            other => Self::Unknown(other),
        }
    }
}

/// A packet with the cooked header of version 1.
#[derive(Clone, Copy, Debug)]
pub struct SllPacket<'a> {
    header: &'a [u8; 16],
    payload: &'a [u8],
}

impl<'a> SllPacket<'a> {
    /// The length of the header, in bytes.
    pub const HEADER_LENGTH: usize = 16;

    /// A view over a packet.
    ///
    /// # Errors
    /// [`super::Malformation::Truncated`] when the header is not whole.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header(bytes, Header::Sll)?;
        Ok(Self { header, payload: &bytes[Self::HEADER_LENGTH..] })
    }

    /// Which way the packet went.
    #[inline]
    #[must_use]
    pub const fn packet_type(&self) -> SllPacketType {
        SllPacketType::from_number(u16::from_be_bytes([self.header[0], self.header[1]]))
    }

    /// The kind of the device: a number of Linux' `ARPHRD_*`.
    #[inline]
    #[must_use]
    pub const fn device_type(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// What the payload is, where the device type gives the number the meaning of an EtherType.
    #[inline]
    #[must_use]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(u16::from_be_bytes([self.header[14], self.header[15]]))
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
        let bytes = [0x00, 0x04, 0x03, 0x04, 0x00, 0x06, 0, 0, 0, 0, 0, 0, 0x00, 0x00, 0x86, 0xdd, 0x60];
        let packet = SllPacket::new_checked(&bytes).unwrap();
        assert_eq!(packet.packet_type(), SllPacketType::Outgoing);
        assert_eq!(packet.device_type(), 772);
        assert_eq!(packet.ether_type(), EtherType::IPV6);
        assert_eq!(packet.payload(), [0x60]);
    }

    #[test]
    fn a_cut_header_is_named() {
        for length in 0..16 {
            let error = SllPacket::new_checked(&[0; 16][..length]).unwrap_err();
            let needed = Malformation::Truncated { header: Header::Sll, needed: 16, available: length };
            assert_eq!(error.malformation, needed);
        }
    }
}
