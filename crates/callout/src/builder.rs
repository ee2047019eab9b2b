//! Packets from scratch.

use std::net::{IpAddr, SocketAddr};

use openwfp_packet::wire::{TcpFlags, protocol};

use crate::{MendError, checksum::mend};

/// Builds an IP packet; lengths and checksums are filled in.
///
/// ```
/// use openwfp_callout::PacketBuilder;
///
/// let packet = PacketBuilder::between("192.0.2.1:4000".parse()?, "192.0.2.80:53".parse()?).udp(b"question")?;
/// assert_eq!(packet.len(), 20 + 8 + 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct PacketBuilder {
    source: SocketAddr,
    destination: SocketAddr,
    ttl: u8,
    traffic_class: u8,
    identification: u16,
}

/// Why a packet cannot be built.
pub type BuildError = MendError;

impl PacketBuilder {
    /// A packet from one endpoint to another. Of ICMP and other protocols without ports those do not count. Both addresses have to be of
    /// one version.
    pub const fn between(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { source, destination, ttl: 64, traffic_class: 0, identification: 0 }
    }

    /// The time to live, or hop limit; 64 without.
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The type of service, or traffic class; 0 without.
    pub const fn traffic_class(mut self, class: u8) -> Self {
        self.traffic_class = class;
        self
    }

    /// The identification of IPv4; 0 without.
    pub const fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// A UDP datagram.
    ///
    /// # Errors
    /// Where it would be too long, or the addresses are of two versions.
    pub fn udp(self, payload: &[u8]) -> Result<Vec<u8>, BuildError> {
        let mut datagram = self.ports();
        // A checksum that is not zero asks for one.
        datagram.extend_from_slice(&[0, 0, 0xff, 0xff]);
        datagram.extend_from_slice(payload);
        self.protocol(protocol::UDP, &datagram)
    }

    /// A TCP segment without options.
    ///
    /// # Errors
    /// Where it would be too long, or the addresses are of two versions.
    pub fn tcp(
        self,
        flags: TcpFlags,
        sequence: u32,
        acknowledgment: u32,
        window: u16,
        payload: &[u8],
    ) -> Result<Vec<u8>, BuildError> {
        let mut segment = self.ports();
        segment.extend_from_slice(&sequence.to_be_bytes());
        segment.extend_from_slice(&acknowledgment.to_be_bytes());
        segment.extend_from_slice(&[5 << 4, flags.bits()]);
        segment.extend_from_slice(&window.to_be_bytes());
        segment.extend_from_slice(&[0; 4]);
        segment.extend_from_slice(payload);
        self.protocol(protocol::TCP, &segment)
    }

    /// An ICMP message, or one of ICMPv6: type, code, the four bytes after the checksum, and the rest.
    ///
    /// # Errors
    /// Where it would be too long, or the addresses are of two versions.
    pub fn icmp(self, message_type: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Result<Vec<u8>, BuildError> {
        let mut message = vec![message_type, code, 0, 0];
        message.extend_from_slice(&rest);
        message.extend_from_slice(payload);
        self.protocol(if self.source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 }, &message)
    }

    /// A packet of any protocol, whose header begins the payload. Checksums of TCP, UDP and ICMP are filled in.
    ///
    /// # Errors
    /// Where it would be too long, its header is cut, or the addresses are of two versions.
    pub fn protocol(self, protocol: u8, payload: &[u8]) -> Result<Vec<u8>, BuildError> {
        let mut packet = Vec::with_capacity(40 + payload.len());
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet.extend_from_slice(&[0x45, self.traffic_class, 0, 0]);
                packet.extend_from_slice(&self.identification.to_be_bytes());
                packet.extend_from_slice(&[0, 0, self.ttl, protocol, 0, 0]);
                packet.extend_from_slice(&source.octets());
                packet.extend_from_slice(&destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let first = 6 << 28 | u32::from(self.traffic_class) << 20;
                packet.extend_from_slice(&first.to_be_bytes());
                packet.extend_from_slice(&[0, 0, protocol, self.ttl]);
                packet.extend_from_slice(&source.octets());
                packet.extend_from_slice(&destination.octets());
            }
            _ => return Err(MendError::Network),
        }
        packet.extend_from_slice(payload);
        mend(false, &mut packet)?;
        Ok(packet)
    }

    fn ports(&self) -> Vec<u8> {
        let mut header = self.source.port().to_be_bytes().to_vec();
        header.extend_from_slice(&self.destination.port().to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openwfp_packet::packet::{Frame, Packet, Transport};

    fn read(packet: &[u8]) -> Packet<'_> {
        let Ok(Frame::Ip(packet)) = Packet::parse(openwfp_packet::link::LinkType::RAW, packet) else {
            panic!("no packet: {packet:?}")
        };
        packet
    }

    #[test]
    fn what_is_built_reads_as_what_was_meant() {
        for (source, destination) in [("192.0.2.1:4000", "192.0.2.80:53"), ("[2001:db8::1]:4000", "[2001:db8::80]:53")]
        {
            let (source, destination): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            let builder = PacketBuilder::between(source, destination).ttl(7).traffic_class(8).identification(9);
            let udp = builder.udp(b"abc").unwrap();
            let packet = read(&udp);
            assert_eq!((packet.source, packet.destination, packet.protocol), (source.ip(), destination.ip(), 17));
            assert_eq!(packet.transport, Ok(Transport::Ports { source: 4000, destination: 53 }));
            assert_eq!(&packet.payload[8..], b"abc");
            let tcp = builder.tcp(TcpFlags::SYN, 7, 0, 1000, b"").unwrap();
            let Ok(Transport::Tcp(header)) = read(&tcp).transport else { panic!("no segment") };
            assert_eq!((header.sequence, header.flags, header.header_length), (7, TcpFlags::SYN, 20));
            let echo = if source.is_ipv4() { 8 } else { 128 };
            let icmp = builder.icmp(echo, 0, [0, 1, 0, 2], b"ping").unwrap();
            let Ok(Transport::Icmp(message)) = read(&icmp).transport else { panic!("no message") };
            assert_eq!((message.message_type, message.identifier), (echo, Some(1)));
        }
    }

    #[test]
    fn what_cannot_be_is_not_built() {
        let (v4, v6) = ("192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
        assert_eq!(PacketBuilder::between(v4, v6).udp(b""), Err(MendError::Network));
        assert_eq!(PacketBuilder::between(v4, v4).udp(&[0; 65508]), Err(MendError::TooLong));
        assert!(PacketBuilder::between(v4, v4).udp(&[0; 65507]).is_ok());
        assert_eq!(PacketBuilder::between(v4, v4).protocol(6, &[0; 10]), Err(MendError::Transport));
    }
}
