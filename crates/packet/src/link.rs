//! Link types: what stands before the IP packet in a captured frame, and what it tells about the packet.

use core::fmt;

use crate::wire::{
    ByteOrder, EtherType, EthernetFrame, LoopbackFrame, Sll2Packet, SllPacket, SllPacketType, VlanTags, WireError,
};

/// The link type of a capture (`LINKTYPE_*` of tcpdump.org).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback, address family in the order of the capturing machine.
    pub const NULL: Self = Self(0);
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// IP without anything before it, as `DLT_RAW` is numbered on most systems.
    pub const DLT_RAW: Self = Self(12);
    /// IP without anything before it, as `DLT_RAW` is numbered on OpenBSD.
    pub const DLT_RAW_OPENBSD: Self = Self(14);
    /// IP without anything before it.
    pub const RAW: Self = Self(101);
    /// BSD loopback, address family in network order.
    pub const LOOP: Self = Self(108);
    /// Linux cooked, version 1.
    pub const LINUX_SLL: Self = Self(113);
    /// IPv4 without anything before it.
    pub const IPV4: Self = Self(228);
    /// IPv6 without anything before it.
    pub const IPV6: Self = Self(229);
    /// Linux cooked, version 2.
    pub const LINUX_SLL2: Self = Self(276);

    /// Whether [`LinkFrame::parse`] can read frames of this type.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        self.name().is_some()
    }

    /// The name without `LINKTYPE_`, for the types that are supported.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::NULL => "NULL",
            Self::ETHERNET => "ETHERNET",
            Self::DLT_RAW | Self::DLT_RAW_OPENBSD | Self::RAW => "RAW",
            Self::LOOP => "LOOP",
            Self::LINUX_SLL => "LINUX_SLL",
            Self::IPV4 => "IPV4",
            Self::IPV6 => "IPV6",
            Self::LINUX_SLL2 => "LINUX_SLL2",
            _ => return None,
        })
    }
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Which way a frame went, where the capture says so outright.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkDirection {
    /// It arrived at the capturing machine.
    Incoming,
    /// The capturing machine sent it.
    Outgoing,
    /// It was between two other machines.
    Elsewhere,
    /// It went over the capturing machine's loopback device: sent and received at once.
    Loopback,
}

/// What the bytes before the packet tell about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// Which way the frame went.
    pub direction: Option<LinkDirection>,
    /// Whether it was addressed to every station on the link.
    pub broadcast: bool,
    /// The index of the interface on the capturing machine.
    pub interface_index: Option<u32>,
    /// The kind of the interface, as IANA numbers `ifType`: 6 Ethernet, 24 loopback, 131 tunnel …
    pub interface_type: Option<u32>,
    /// The kind of the tunnel, as IANA numbers `tunnelType`; 0 where the interface is known to be none.
    pub tunnel_type: Option<u32>,
}

/// The network protocol of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Something else, such as ARP.
    Other(EtherType),
}

/// A frame taken apart as far as its packet.
#[derive(Clone, Copy, Debug)]
pub struct LinkFrame<'a> {
    /// What the packet is.
    pub network: Network,
    /// The packet.
    pub payload: &'a [u8],
    /// Where the packet begins in the frame, in bytes.
    pub offset: usize,
    /// What the frame tells about it.
    pub info: LinkInfo,
}

impl<'a> LinkFrame<'a> {
    /// Takes a frame apart; `None` for a link type that is not supported.
    ///
    /// # Errors
    /// Whatever is wrong before the packet, with the offset in the frame.
    #[inline]
    pub fn parse(link_type: LinkType, bytes: &'a [u8]) -> Option<Result<Self, WireError>> {
        Some(match link_type {
            LinkType::ETHERNET => Self::ethernet(bytes),
            LinkType::LINUX_SLL => Self::sll(bytes),
            LinkType::LINUX_SLL2 => Self::sll2(bytes),
            LinkType::NULL => Self::loopback(ByteOrder::Capturing, bytes),
            LinkType::LOOP => Self::loopback(ByteOrder::Network, bytes),
            LinkType::DLT_RAW | LinkType::DLT_RAW_OPENBSD | LinkType::RAW => Ok(Self::raw(bytes)),
            LinkType::IPV4 => Ok(Self::plain(Network::Ipv4, bytes)),
            LinkType::IPV6 => Ok(Self::plain(Network::Ipv6, bytes)),
            _ => return None,
        })
    }

    fn plain(network: Network, payload: &'a [u8]) -> Self {
        Self { network, payload, offset: 0, info: LinkInfo::default() }
    }

    fn raw(bytes: &'a [u8]) -> Self {
        // Without any byte, the view of IPv4 says what is missing.
        let network = match bytes.first() {
            Some(first) if first >> 4 == 6 => Network::Ipv6,
            _ => Network::Ipv4,
        };
        Self::plain(network, bytes)
    }

    fn ethernet(bytes: &'a [u8]) -> Result<Self, WireError> {
        let frame = EthernetFrame::new_checked(bytes)?;
        let info = LinkInfo { broadcast: frame.is_broadcast(), ..LinkInfo::default() };
        Self::tagged(frame.ether_type(), frame.payload(), EthernetFrame::HEADER_LENGTH, info)
    }

    fn sll(bytes: &'a [u8]) -> Result<Self, WireError> {
        let packet = SllPacket::new_checked(bytes)?;
        let info = cooked(packet.packet_type(), packet.device_type(), None);
        let ether_type = cooked_ether_type(packet.device_type(), packet.ether_type());
        Self::tagged(ether_type, packet.payload(), SllPacket::HEADER_LENGTH, info)
    }

    fn sll2(bytes: &'a [u8]) -> Result<Self, WireError> {
        let packet = Sll2Packet::new_checked(bytes)?;
        let info = cooked(packet.packet_type(), packet.device_type(), Some(packet.interface_index()));
        let ether_type = cooked_ether_type(packet.device_type(), packet.ether_type());
        Self::tagged(ether_type, packet.payload(), Sll2Packet::HEADER_LENGTH, info)
    }

    fn loopback(order: ByteOrder, bytes: &'a [u8]) -> Result<Self, WireError> {
        let frame = LoopbackFrame::new_checked(order, bytes)?;
        Ok(Self {
            network: network(frame.ether_type()),
            payload: frame.payload(),
            offset: LoopbackFrame::HEADER_LENGTH,
            info: LinkInfo::default(),
        })
    }

    fn tagged(first: EtherType, bytes: &'a [u8], offset: usize, info: LinkInfo) -> Result<Self, WireError> {
        let tags = VlanTags::new_checked(first, bytes).map_err(|error| error.within(offset))?;
        Ok(Self { network: network(tags.ether_type()), payload: tags.payload(), offset: offset + tags.length(), info })
    }
}

fn network(ether_type: EtherType) -> Network {
    match ether_type {
        EtherType::IPV4 => Network::Ipv4,
        EtherType::IPV6 => Network::Ipv6,
        other => Network::Other(other),
    }
}

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_PPP: u16 = 512;
const ARPHRD_TUNNEL: u16 = 768;
const ARPHRD_TUNNEL6: u16 = 769;
const ARPHRD_FRAD: u16 = 770;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_SIT: u16 = 776;
const ARPHRD_IPGRE: u16 = 778;
const ARPHRD_IEEE80211: u16 = 801;
const ARPHRD_IEEE80211_RADIOTAP: u16 = 803;
const ARPHRD_IP6GRE: u16 = 823;
const ARPHRD_NONE: u16 = 65534;
const ARPHRD_NETLINK: u16 = 824;

fn cooked(packet_type: SllPacketType, device_type: u16, interface_index: Option<u32>) -> LinkInfo {
    let direction = match packet_type {
        _ if device_type == ARPHRD_LOOPBACK => Some(LinkDirection::Loopback),
        SllPacketType::Host | SllPacketType::Broadcast | SllPacketType::Multicast => Some(LinkDirection::Incoming),
        SllPacketType::Outgoing => Some(LinkDirection::Outgoing),
        SllPacketType::OtherHost => Some(LinkDirection::Elsewhere),
        SllPacketType::Unknown(_) => None,
    };
    let (interface_type, tunnel_type) = interface_kind(device_type);
    LinkInfo {
        direction,
        broadcast: packet_type == SllPacketType::Broadcast,
        interface_index,
        interface_type: Some(interface_type),
        tunnel_type: Some(tunnel_type),
    }
}

/// The IANA ifType and tunnelType for a hardware type of Linux, numbered as live traffic shows them: a capture does not tell
/// wireless devices from wired ones.
const fn interface_kind(device_type: u16) -> (u32, u32) {
    const DIRECT: u32 = 2;
    const GRE: u32 = 3;
    match device_type {
        ARPHRD_ETHER => (6, 0),
        ARPHRD_PPP => (23, 0),
        ARPHRD_LOOPBACK => (24, 0),
        ARPHRD_TUNNEL | ARPHRD_TUNNEL6 | ARPHRD_SIT | ARPHRD_NONE => (131, DIRECT),
        ARPHRD_IPGRE | ARPHRD_IP6GRE => (131, GRE),
        ARPHRD_IEEE80211..=ARPHRD_IEEE80211_RADIOTAP => (71, 0),
        _ => (1, 0),
    }
}

/// On some devices the field that elsewhere holds an EtherType holds another protocol's number.
fn cooked_ether_type(device_type: u16, ether_type: EtherType) -> EtherType {
    match device_type {
        ARPHRD_FRAD | ARPHRD_IEEE80211_RADIOTAP | ARPHRD_NETLINK => EtherType(0),
        _ => ether_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(link_type: LinkType, bytes: &[u8]) -> LinkFrame<'_> {
        LinkFrame::parse(link_type, bytes).unwrap().unwrap()
    }

    #[test]
    fn each_link_type_leads_to_the_packet() {
        let mut ethernet = [0; 15];
        ethernet[12..].copy_from_slice(&[0x08, 0x00, 0x45]);
        let mut tagged = [0; 19];
        tagged[12..].copy_from_slice(&[0x81, 0x00, 0x00, 0x05, 0x86, 0xdd, 0x60]);
        let mut sll = [0; 17];
        sll[14..].copy_from_slice(&[0x86, 0xdd, 0x60]);
        let mut sll2 = [0; 21];
        sll2[..2].copy_from_slice(&[0x08, 0x00]);
        let cases: [(LinkType, &[u8], Network, usize); 10] = [
            (LinkType::ETHERNET, &ethernet, Network::Ipv4, 14),
            (LinkType::ETHERNET, &tagged, Network::Ipv6, 18),
            (LinkType::LINUX_SLL, &sll, Network::Ipv6, 16),
            (LinkType::LINUX_SLL2, &sll2, Network::Ipv4, 20),
            (LinkType::NULL, &[2, 0, 0, 0, 0x45], Network::Ipv4, 4),
            (LinkType::LOOP, &[0, 0, 0, 30, 0x60], Network::Ipv6, 4),
            (LinkType::RAW, &[0x60], Network::Ipv6, 0),
            (LinkType::DLT_RAW, &[0x45], Network::Ipv4, 0),
            (LinkType::IPV4, &[0x45], Network::Ipv4, 0),
            (LinkType::IPV6, &[0x60], Network::Ipv6, 0),
        ];
        for (link_type, bytes, network, offset) in cases {
            let frame = parse(link_type, bytes);
            assert_eq!((frame.network, frame.offset), (network, offset), "{link_type}");
            assert_eq!(frame.payload, &bytes[offset..], "{link_type}");
        }
        assert!(LinkFrame::parse(LinkType(105), &[]).is_none(), "IEEE 802.11 is not supported");
    }

    #[test]
    fn cooked_headers_say_which_way_the_packet_went() {
        let cases: [(u16, u16, Option<LinkDirection>); 6] = [
            (0, 1, Some(LinkDirection::Incoming)),
            (1, 1, Some(LinkDirection::Incoming)),
            (3, 1, Some(LinkDirection::Elsewhere)),
            (4, 1, Some(LinkDirection::Outgoing)),
            (0, 772, Some(LinkDirection::Loopback)),
            (7, 1, None),
        ];
        for (packet_type, device_type, expected) in cases {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&packet_type.to_be_bytes());
            bytes[2..4].copy_from_slice(&device_type.to_be_bytes());
            assert_eq!(parse(LinkType::LINUX_SLL, &bytes).info.direction, expected);
        }
    }

    #[test]
    fn an_802_3_length_is_no_ip() {
        let mut bytes = [0; 14];
        bytes[12..].copy_from_slice(&[0x00, 0x26]);
        assert_eq!(parse(LinkType::ETHERNET, &bytes).network, Network::Other(EtherType(0x26)));
    }
}
