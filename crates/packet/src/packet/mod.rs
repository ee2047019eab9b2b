//! A captured frame as far as classification needs it: addresses, protocol, ports, and what the link told.

mod address;
mod original;
mod transport;

pub use address::AddressType;
pub use original::{Original, OriginalTransport};
pub use transport::{IcmpHeader, TcpHeader, Transport};

use core::net::{IpAddr, Ipv6Addr};

use openwfp_model::IpVersion;

use crate::link::{LinkFrame, LinkInfo, LinkType, Network};
use crate::wire::{EtherType, Fragment, Icmpv4Packet, Icmpv6Packet, Ipv4Packet, Ipv6Packet, WireError, protocol};

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
    /// The packet from its IP header on, without what fills the frame up behind it, as far as it was captured.
    pub bytes: &'a [u8],
    /// Where `bytes` begin in the frame.
    pub begins_at: usize,
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
            bytes: prefix(frame.payload, ip.header_length() + ip.payload_length()),
            begins_at: frame.offset,
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
            bytes: prefix(frame.payload, Ipv6Packet::HEADER_LENGTH + ip.payload_length()),
            begins_at: frame.offset,
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

/// At most so many of the bytes.
#[inline]
fn prefix(bytes: &[u8], length: usize) -> &[u8] {
    &bytes[..bytes.len().min(length)]
}

/// IPv4-mapped addresses are IPv4 traffic, but only where both ends can be written as such.
fn unmapped(source: Ipv6Addr, destination: Ipv6Addr) -> (IpAddr, IpAddr) {
    match (source.to_ipv4_mapped(), destination.to_ipv4_mapped()) {
        (Some(source), Some(destination)) => (source.into(), destination.into()),
        _ => (source.into(), destination.into()),
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
}
