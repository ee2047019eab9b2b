//! Checked views over the bytes of packets, one protocol a file.
//!
//! A view is made with `new_checked`, which looks at every length that the accessors rely on; after that nothing can go
//! wrong, and nothing is copied or allocated. What is wrong is said as a [`WireError`]: the [`Malformation`] and the
//! byte at which it stands. A payload may be shorter than its header says, because captures cut packets: headers must
//! be whole, and payloads end where the bytes end.
//!
//! Numbers are returned in host order. Checksums are not verified: captures on a sending host hold packets whose
//! checksums the network card was still to fill in.

mod arp;
mod error;
mod ethernet;
mod fragment;
mod icmpv4;
mod icmpv6;
mod ipv4;
mod ipv6;
mod loopback;
mod ports;
mod sll;
mod sll2;
mod tcp;
mod udp;
mod vlan;

pub use arp::ArpPacket;
pub use error::{Header, Malformation, WireError};
pub use ethernet::{EtherType, EthernetFrame, MacAddress};
pub use fragment::Fragment;
pub use icmpv4::{Icmpv4Packet, icmpv4_type};
pub use icmpv6::{Icmpv6Packet, icmpv6_type};
pub use ipv4::{Ipv4Option, Ipv4Options, Ipv4Packet};
pub use ipv6::{Ipv6Chain, Ipv6Packet, MAX_EXTENSION_HEADERS};
pub use loopback::{ByteOrder, LoopbackFrame};
pub use ports::PortsHeader;
pub use sll::{SllPacket, SllPacketType};
pub use sll2::Sll2Packet;
pub use tcp::{TcpFlags, TcpSegment};
pub use udp::UdpDatagram;
pub use vlan::{MAX_VLAN_TAGS, VlanTag, VlanTags};

/// Numbers of the protocols that this crate looks into (IANA: protocol numbers).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}
