//! Ethernet frames.

use super::error::{Header, WireError, header};

/// A hardware address.
pub type MacAddress = [u8; 6];

/// The type of what a frame carries (IANA: EtherTypes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// IPv6.
    pub const IPV6: Self = Self(0x86dd);
    /// A customer's tag, IEEE 802.1Q.
    pub const VLAN: Self = Self(0x8100);
    /// A provider's tag, IEEE 802.1ad.
    pub const PROVIDER_VLAN: Self = Self(0x88a8);
    /// A provider's tag, as it was written before IEEE 802.1ad.
    pub const OLD_PROVIDER_VLAN: Self = Self(0x9100);

    /// Whether a VLAN tag follows.
    #[inline]
    #[must_use]
    pub const fn is_vlan(self) -> bool {
        matches!(self, Self::VLAN | Self::PROVIDER_VLAN | Self::OLD_PROVIDER_VLAN)
    }

    /// Whether it is the length of an IEEE 802.3 frame instead, whose payload begins with LLC.
    #[inline]
    #[must_use]
    pub const fn is_length(self) -> bool {
        self.0 <= 1500
    }
}

/// An Ethernet frame, without preamble; the frame check sequence, where captured, stays at the end of the payload.
#[derive(Clone, Copy, Debug)]
pub struct EthernetFrame<'a> {
    header: &'a [u8; 14],
    payload: &'a [u8],
}

impl<'a> EthernetFrame<'a> {
    /// The length of the header, in bytes.
    pub const HEADER_LENGTH: usize = 14;
    /// The address of every station.
    pub const BROADCAST: MacAddress = [0xff; 6];

    /// A view over a frame.
    ///
    /// # Errors
    /// [`super::Malformation::Truncated`] when the header is not whole.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let header = header(bytes, Header::Ethernet)?;
        Ok(Self { header, payload: &bytes[Self::HEADER_LENGTH..] })
    }

    /// The receiver's hardware address.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> MacAddress {
        let [a, b, c, d, e, f, ..] = *self.header;
        [a, b, c, d, e, f]
    }

    /// The sender's hardware address.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> MacAddress {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.header;
        [a, b, c, d, e, f]
    }

    /// What the payload is; with VLAN tags, what the first tag is.
    #[inline]
    #[must_use]
    pub const fn ether_type(&self) -> EtherType {
        EtherType(u16::from_be_bytes([self.header[12], self.header[13]]))
    }

    /// Whether an address stands for several stations, or for all of them.
    #[inline]
    #[must_use]
    pub const fn is_group(address: MacAddress) -> bool {
        address[0] & 1 != 0
    }

    /// Whether the frame is addressed to every station.
    #[inline]
    #[must_use]
    pub fn is_broadcast(&self) -> bool {
        self.destination() == Self::BROADCAST
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

    /// An ARP request, as sent by `arping` on a veth device.
    const ARP: [u8; 28] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7e, 0x1a, 0x0c, 0x51, 0x5f, 0x83, 0x08, 0x06, 0x00, 0x01, 0x08, 0x00,
        0x06, 0x04, 0x00, 0x01, 0x7e, 0x1a, 0x0c, 0x51, 0x5f, 0x83,
    ];

    #[test]
    fn fields_stand_where_ieee_802_3_puts_them() {
        let frame = EthernetFrame::new_checked(&ARP).unwrap();
        assert_eq!(frame.destination(), [0xff; 6]);
        assert!(frame.is_broadcast());
        assert_eq!(frame.source(), [0x7e, 0x1a, 0x0c, 0x51, 0x5f, 0x83]);
        assert_eq!(frame.ether_type(), EtherType::ARP);
        assert_eq!(frame.payload(), &ARP[14..]);
    }

    #[test]
    fn a_cut_header_is_named() {
        for length in 0..14 {
            let error = EthernetFrame::new_checked(&ARP[..length]).unwrap_err();
            assert_eq!(error.offset, length);
            assert_eq!(
                error.malformation,
                Malformation::Truncated { header: Header::Ethernet, needed: 14, available: length }
            );
        }
        assert!(EthernetFrame::new_checked(&ARP[..14]).unwrap().payload().is_empty());
    }

    #[test]
    fn lengths_of_802_3_frames_are_told_from_types() {
        assert!(EtherType(1500).is_length());
        assert!(!EtherType::IPV4.is_length());
        assert!(EtherType::PROVIDER_VLAN.is_vlan());
    }
}
