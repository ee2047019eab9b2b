//! Kinds of addresses.

use core::net::{IpAddr, Ipv4Addr};

/// The kind of an address, as `NL_ADDRESS_TYPE` numbers it in the fields `IP_LOCAL_ADDRESS_TYPE` and
/// `IP_DESTINATION_ADDRESS_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AddressType {
    /// No address: `0.0.0.0` or `::`.
    Unspecified = 0,
    /// One interface.
    Unicast = 1,
    /// The nearest of several. No packet shows that an address is one.
    Anycast = 2,
    /// A group.
    Multicast = 3,
    /// Every station of a link.
    Broadcast = 4,
}

impl AddressType {
    /// The kind of `address`; `link_broadcast` says that the frame was addressed to every station, which makes an
    /// IPv4 address that it was sent to the broadcast address of its network.
    #[inline]
    #[must_use]
    pub fn of(address: IpAddr, link_broadcast: bool) -> Self {
        match address {
            IpAddr::V4(address) if address.is_multicast() => Self::Multicast,
            IpAddr::V4(Ipv4Addr::BROADCAST) => Self::Broadcast,
            IpAddr::V6(address) if address.is_multicast() => Self::Multicast,
            address if address.is_unspecified() => Self::Unspecified,
            IpAddr::V4(_) if link_broadcast => Self::Broadcast,
            _ => Self::Unicast,
        }
    }

    /// Whether a packet to such an address is for more than one receiver.
    #[must_use]
    pub const fn is_group(self) -> bool {
        matches!(self, Self::Multicast | Self::Broadcast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_types() {
        let cases = [
            ("192.0.2.1", false, AddressType::Unicast),
            ("192.0.2.255", true, AddressType::Broadcast),
            ("255.255.255.255", false, AddressType::Broadcast),
            ("224.0.0.251", true, AddressType::Multicast),
            ("0.0.0.0", false, AddressType::Unspecified),
            ("2001:db8::1", false, AddressType::Unicast),
            ("ff02::fb", false, AddressType::Multicast),
            ("::", false, AddressType::Unspecified),
        ];
        for (address, link_broadcast, expected) in cases {
            assert_eq!(AddressType::of(address.parse().unwrap(), link_broadcast), expected, "{address}");
        }
    }
}
