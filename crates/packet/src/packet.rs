//! A captured frame as far as classification needs it: addresses, protocol, ports, and what the link told.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use openwfp_model::IpVersion;

use crate::link::{LinkFrame, LinkInfo, LinkType, Network};
use crate::wire::{
    EtherType, Fragment, Icmpv4Packet, Icmpv6Packet, Ipv4Packet, Ipv6Chain, Ipv6Packet, PortsHeader, TcpFlags,
    TcpSegment, UdpDatagram, WireError, protocol,
};

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// An IP packet.
    Ip(Packet<'a>),
    /// A packet of another protocol, such as ARP.
    Other(EtherType),
    /// A frame of a link type that is not supported.
    UnsupportedLinkType,
}

/// An IP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The version of the header. [`Packet::version`] is the one as which the packet is classified.
    pub header_version: IpVersion,
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The protocol of the payload: the last of the chain of headers as far as it could be followed. In a fragment it is
    /// what the datagram begins with.
    pub protocol: u8,
    /// The place in a datagram, when the packet is a fragment of one.
    pub fragment: Option<Fragment>,
    /// The beginning of the payload, or why it could not be read: IP itself is in order then.
    pub transport: Result<Transport, WireError>,
    /// What follows the IP headers, as far as it was captured.
    pub payload: &'a [u8],
    /// How long that was on the wire, in bytes.
    pub payload_length: usize,
    /// What stood before the packet.
    pub link: LinkInfo,
}

/// The beginning of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(TcpHeader),
    /// UDP, UDP-Lite, SCTP or DCCP.
    Ports {
        /// The sender's port.
        source: u16,
        /// The receiver's port.
        destination: u16,
    },
    /// ICMP, or ICMPv6.
    Icmp(IcmpHeader),
    /// A protocol that has neither ports nor types, or whose headers are not looked at.
    Other,
    /// The packet is a fragment that does not begin the datagram.
    LaterFragment,
}

/// What flows and streams need of a TCP segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpHeader {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// The control bits.
    pub flags: TcpFlags,
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgment number, which counts where [`TcpFlags::ACK`] is set.
    pub acknowledgment: u32,
    /// The length of the header with its options, in bytes.
    pub header_length: u8,
}

/// What flows need of an ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpHeader {
    /// The type.
    pub message_type: u8,
    /// The code.
    pub code: u8,
    /// The identifier of an echo or its reply.
    pub identifier: Option<u16>,
    /// Whether the message reports an error about another packet.
    pub is_error: bool,
}

impl<'a> Packet<'a> {
    /// Reads a frame.
    ///
    /// An IPv6 packet both of whose addresses are IPv4-mapped is IPv4 traffic and shows IPv4 addresses.
    ///
    /// # Errors
    /// What is wrong before the end of the IP header, with the offset in the frame. What is wrong after it stands in
    /// [`Packet::transport`], because such a packet still passes the first layer.
    #[inline]
    pub fn parse(link_type: LinkType, bytes: &'a [u8]) -> Result<Frame<'a>, WireError> {
        let Some(frame) = LinkFrame::parse(link_type, bytes) else {
            return Ok(Frame::UnsupportedLinkType);
        };
        let frame = frame?;
        let packet = match frame.network {
            Network::Ipv4 => Self::ipv4(&frame),
            Network::Ipv6 => Self::ipv6(&frame),
            Network::Other(ether_type) => return Ok(Frame::Other(ether_type)),
        };
        packet.map(Frame::Ip).map_err(|error| error.within(frame.offset))
    }

    fn ipv4(frame: &LinkFrame<'a>) -> Result<Self, WireError> {
        let ip = Ipv4Packet::new_checked(frame.payload)?;
        let mut packet = Packet {
            header_version: IpVersion::V4,
            source: ip.source().into(),
            destination: ip.destination().into(),
            protocol: ip.protocol(),
            fragment: ip.fragment(),
            transport: Ok(Transport::Other),
            payload: ip.payload(),
            payload_length: ip.payload_length(),
            link: frame.info,
        };
        packet.read_transport(frame.offset + ip.header_length());
        Ok(packet)
    }

    fn ipv6(frame: &LinkFrame<'a>) -> Result<Self, WireError> {
        let ip = Ipv6Packet::new_checked(frame.payload)?;
        let (source, destination) = unmapped(ip.source(), ip.destination());
        let mut packet = Packet {
            header_version: IpVersion::V6,
            source,
            destination,
            protocol: ip.next_header(),
            fragment: None,
            transport: Ok(Transport::Other),
            payload: ip.payload(),
            payload_length: ip.payload_length(),
            link: frame.info,
        };
        let base = frame.offset + Ipv6Packet::HEADER_LENGTH;
        match ip.chain() {
            Ok(chain) => {
                packet.protocol = chain.protocol();
                packet.fragment = chain.fragment();
                packet.payload = chain.payload();
                packet.payload_length -= chain.length().min(packet.payload_length);
                packet.read_transport(base + chain.length());
            }
            Err(error) => packet.transport = Err(error.within(base)),
        }
        Ok(packet)
    }

    /// Reads the beginning of the payload, which stands at `base` in the frame.
    fn read_transport(&mut self, base: usize) {
        let version = self.header_version;
        let read = match self.fragment {
            None => Transport::read(version, self.protocol, self.payload),
            Some(fragment) => fragment.check(self.payload_length).and_then(|()| match fragment.at {
                0 => Transport::read_fragmentable(version, self.protocol, self.payload).map(|(_, transport)| transport),
                _ => Ok(Transport::LaterFragment),
            }),
        };
        self.transport = read.map_err(|error| error.within(base));
    }

    /// The version of IP as which the packet is classified.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> IpVersion {
        match self.source {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        }
    }

    /// For an ICMP error: the flow of the packet that it is about, as its sender wrote it.
    #[must_use]
    pub fn original(&self) -> Option<Original> {
        let original = match self.protocol {
            protocol::ICMP => Icmpv4Packet::new_checked(self.payload).ok()?.original_packet()?,
            protocol::ICMPV6 => Icmpv6Packet::new_checked(self.payload).ok()?.original_packet()?,
            _ => return None,
        };
        Original::read(original)
    }
}

/// IPv4-mapped addresses are IPv4 traffic, but only where both ends can be written as such.
fn unmapped(source: Ipv6Addr, destination: Ipv6Addr) -> (IpAddr, IpAddr) {
    match (source.to_ipv4_mapped(), destination.to_ipv4_mapped()) {
        (Some(source), Some(destination)) => (source.into(), destination.into()),
        _ => (source.into(), destination.into()),
    }
}

impl Transport {
    /// Reads the beginning of a payload.
    ///
    /// # Errors
    /// What is wrong with the header, with the offset in `payload`.
    #[inline]
    pub fn read(version: IpVersion, protocol: u8, payload: &[u8]) -> Result<Self, WireError> {
        Ok(match (protocol, version) {
            (protocol::TCP, _) => {
                let segment = TcpSegment::new_checked(payload)?;
                Self::Tcp(TcpHeader {
                    source: segment.source_port(),
                    destination: segment.destination_port(),
                    flags: segment.flags(),
                    sequence: segment.sequence(),
                    acknowledgment: segment.acknowledgment(),
                    // Four bits of words of four bytes.
                    header_length: segment.header_length() as u8,
                })
            }
            (protocol::UDP, _) => {
                let datagram = UdpDatagram::new_checked(payload)?;
                Self::Ports { source: datagram.source_port(), destination: datagram.destination_port() }
            }
            (protocol::UDP_LITE | protocol::SCTP | protocol::DCCP, _) => {
                let ports = PortsHeader::new_checked(payload)?;
                Self::Ports { source: ports.source_port(), destination: ports.destination_port() }
            }
            (protocol::ICMP, IpVersion::V4) => {
                let message = Icmpv4Packet::new_checked(payload)?;
                Self::Icmp(IcmpHeader {
                    message_type: message.message_type(),
                    code: message.code(),
                    identifier: message.identifier(),
                    is_error: message.is_error(),
                })
            }
            (protocol::ICMPV6, IpVersion::V6) => {
                let message = Icmpv6Packet::new_checked(payload)?;
                Self::Icmp(IcmpHeader {
                    message_type: message.message_type(),
                    code: message.code(),
                    identifier: message.identifier(),
                    is_error: message.is_error(),
                })
            }
            _ => Self::Other,
        })
    }

    /// Reads the beginning of what was fragmented: in IPv6 extension headers can stand before the protocol.
    /// Returns the protocol as well.
    ///
    /// # Errors
    /// What is wrong with the headers, with the offset in `payload`.
    pub fn read_fragmentable(version: IpVersion, protocol: u8, payload: &[u8]) -> Result<(u8, Self), WireError> {
        if version == IpVersion::V4 {
            return Ok((protocol, Self::read(version, protocol, payload)?));
        }
        let chain = Ipv6Chain::walk(protocol, payload)?;
        if chain.fragment().is_some() {
            return Err(WireError::new(0, crate::wire::Malformation::NestedFragment));
        }
        let transport = Self::read(version, chain.protocol(), chain.payload());
        Ok((chain.protocol(), transport.map_err(|error| error.within(chain.length()))?))
    }
}

/// What an ICMP error quotes of the packet that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// Who sent that packet.
    pub source: IpAddr,
    /// Who should have received it.
    pub destination: IpAddr,
    /// Its protocol.
    pub protocol: u8,
    /// Its ports, or its ICMP type with the identifier.
    pub transport: OriginalTransport,
    /// Bytes 4 to 7 of its payload, zeros where they are missing: of UDP length and checksum, of TCP the sequence number.
    pub mark: [u8; 4],
}

/// What is quoted of the payload; eight bytes are all that an error must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalTransport {
    /// The ports of TCP, UDP, UDP-Lite, SCTP or DCCP.
    Ports {
        /// The sender's port.
        source: u16,
        /// The receiver's port.
        destination: u16,
    },
    /// An ICMP message.
    Icmp(IcmpHeader),
    /// Another protocol.
    Other,
}

impl Original {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (source, destination, version, protocol, payload) = match bytes.first()? >> 4 {
            4 => {
                let ip = Ipv4Packet::new_checked(bytes).ok()?;
                if ip.fragment().is_some_and(|fragment| fragment.at != 0) {
                    return None;
                }
                (ip.source().into(), ip.destination().into(), IpVersion::V4, ip.protocol(), ip.payload())
            }
            6 => {
                let ip = Ipv6Packet::new_checked(bytes).ok()?;
                let chain = ip.chain().ok()?;
                if chain.fragment().is_some_and(|fragment| fragment.at != 0) {
                    return None;
                }
                let (source, destination) = unmapped(ip.source(), ip.destination());
                (source, destination, IpVersion::V6, chain.protocol(), chain.payload())
            }
            _ => return None,
        };
        let transport = match protocol {
            protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP => {
                let ports = PortsHeader::new_checked(payload).ok()?;
                OriginalTransport::Ports { source: ports.source_port(), destination: ports.destination_port() }
            }
            _ => match Transport::read(version, protocol, payload).ok()? {
                Transport::Icmp(header) => OriginalTransport::Icmp(header),
                _ => OriginalTransport::Other,
            },
        };
        let mark = payload.get(4..8).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        Some(Self { source, destination, protocol, transport, mark })
    }
}

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
    use crate::wire::Malformation;

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 1, 0, 0, 64, protocol, 0, 0];
        packet.extend([192, 0, 2, 1, 198, 51, 100, 9]);
        packet.extend(payload);
        packet
    }

    fn ipv6(source: &str, destination: &str, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 64];
        for address in [source, destination] {
            packet.extend(address.parse::<Ipv6Addr>().unwrap().octets());
        }
        packet.extend(payload);
        packet
    }

    fn parse(bytes: &[u8]) -> Packet<'_> {
        match Packet::parse(LinkType::RAW, bytes) {
            Ok(Frame::Ip(packet)) => packet,
            other => panic!("{other:?}"),
        }
    }

    const UDP: [u8; 8] = [0x0f, 0xa0, 0x00, 0x35, 0x00, 0x08, 0x00, 0x00];
    const PORTS: Transport = Transport::Ports { source: 4000, destination: 53 };

    #[test]
    fn ports_stand_at_the_same_place_in_several_protocols() {
        for protocol in [protocol::UDP, protocol::UDP_LITE, protocol::SCTP, protocol::DCCP] {
            let bytes = ipv4(protocol, &UDP);
            let packet = parse(&bytes);
            assert_eq!((packet.protocol, packet.transport), (protocol, Ok(PORTS)));
            assert_eq!(packet.version(), IpVersion::V4);
        }
        assert_eq!(parse(&ipv4(47, &UDP)).transport, Ok(Transport::Other));
        assert_eq!(parse(&ipv4(protocol::ICMPV6, &UDP)).transport, Ok(Transport::Other), "ICMPv6 belongs to IPv6");
    }

    #[test]
    fn ipv4_mapped_addresses_are_ipv4_traffic_when_both_are() {
        let bytes = ipv6("::ffff:192.0.2.1", "::ffff:192.0.2.9", protocol::UDP, &UDP);
        let packet = parse(&bytes);
        assert_eq!((packet.version(), packet.header_version), (IpVersion::V4, IpVersion::V6));
        assert_eq!(packet.source, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(packet.destination, "192.0.2.9".parse::<IpAddr>().unwrap());
        let bytes = ipv6("::ffff:192.0.2.1", "2001:db8::9", protocol::UDP, &UDP);
        assert_eq!(parse(&bytes).version(), IpVersion::V6);
    }

    #[test]
    fn extension_headers_are_no_payload() {
        let bytes = ipv6("2001:db8::1", "2001:db8::9", 0, &[&[17, 0, 5, 2, 0, 0, 1, 0][..], &UDP].concat());
        let packet = parse(&bytes);
        assert_eq!((packet.protocol, packet.transport), (protocol::UDP, Ok(PORTS)));
        assert_eq!((packet.payload, packet.payload_length), (&UDP[..], 8));
    }

    #[test]
    fn only_the_first_fragment_shows_ports() {
        let fragment = |at: u16, more: bool| {
            let mut bytes = ipv4(protocol::UDP, &UDP);
            bytes[6..8].copy_from_slice(&((at / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
            bytes
        };
        assert_eq!(parse(&fragment(0, true)).transport, Ok(PORTS));
        assert_eq!(parse(&fragment(8, true)).transport, Ok(Transport::LaterFragment));
        let error = parse(&fragment(65528, false)).transport.unwrap_err();
        assert_eq!(error, WireError::new(20, Malformation::FragmentBeyondEnd { at: 65528, length: 8 }));
    }

    #[test]
    fn a_fragment_inside_a_datagram_is_malformed() {
        let inner = [&[17, 0, 0, 1, 0, 0, 0, 1][..], &UDP].concat();
        let read = Transport::read_fragmentable(IpVersion::V6, 44, &inner);
        assert_eq!(read.unwrap_err().malformation, Malformation::NestedFragment);
        let options = [&[17, 0, 0, 0, 0, 0, 0, 0][..], &UDP].concat();
        assert_eq!(Transport::read_fragmentable(IpVersion::V6, 60, &options), Ok((protocol::UDP, PORTS)));
    }

    #[test]
    fn offsets_of_errors_count_from_the_start_of_the_frame() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0x00, 0x00, 0x07, 0x08, 0x00]);
        frame.extend(ipv4(protocol::UDP, &UDP[..5]));
        let Ok(Frame::Ip(packet)) = Packet::parse(LinkType::ETHERNET, &frame) else { panic!("it is IP") };
        assert_eq!(packet.transport.unwrap_err().to_string(), "byte 43: the UDP header needs 8 bytes and 5 are there");
        frame[18] = 0x41;
        let error = Packet::parse(LinkType::ETHERNET, &frame).unwrap_err();
        assert_eq!(error.to_string(), "byte 18: an IPv4 header cannot have 1 words");
    }

    #[test]
    fn an_icmp_error_quotes_the_packet_that_it_is_about() {
        let quoted = ipv4(protocol::UDP, &UDP);
        let bytes = ipv4(protocol::ICMP, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat());
        let original = parse(&bytes).original().unwrap();
        assert_eq!(original.source, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(original.protocol, protocol::UDP);
        assert_eq!(original.transport, OriginalTransport::Ports { source: 4000, destination: 53 });

        let quoted = ipv6("2001:db8::1", "2001:db8::9", protocol::ICMPV6, &[128, 0, 0, 0, 0, 7, 0, 1]);
        let error = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        let bytes = ipv6("2001:db8::9", "2001:db8::1", protocol::ICMPV6, &error);
        let echo = IcmpHeader { message_type: 128, code: 0, identifier: Some(7), is_error: false };
        assert_eq!(parse(&bytes).original().unwrap().transport, OriginalTransport::Icmp(echo));
        assert_eq!(parse(&ipv4(protocol::ICMP, &[8, 0, 0, 0, 0, 7, 0, 1])).original(), None);
    }

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
