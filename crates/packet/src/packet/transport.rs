//! The beginning of what an IP packet carries.

use openwfp_model::IpVersion;

use crate::wire::{
    Icmpv4Packet, Icmpv6Packet, Ipv6Chain, Malformation, PortsHeader, TcpFlags, TcpSegment, UdpDatagram, WireError,
    protocol,
};

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
            return Err(WireError::new(0, Malformation::NestedFragment));
        }
        let transport = Self::read(version, chain.protocol(), chain.payload());
        Ok((chain.protocol(), transport.map_err(|error| error.within(chain.length()))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: [u8; 8] = [0x0f, 0xa0, 0x00, 0x35, 0x00, 0x08, 0x00, 0x00];
    const PORTS: Transport = Transport::Ports { source: 4000, destination: 53 };

    #[test]
    fn a_fragment_inside_a_datagram_is_malformed() {
        let inner = [&[17, 0, 0, 1, 0, 0, 0, 1][..], &UDP].concat();
        let read = Transport::read_fragmentable(IpVersion::V6, 44, &inner);
        assert_eq!(read.unwrap_err().malformation, Malformation::NestedFragment);
        let options = [&[17, 0, 0, 0, 0, 0, 0, 0][..], &UDP].concat();
        assert_eq!(Transport::read_fragmentable(IpVersion::V6, 60, &options), Ok((protocol::UDP, PORTS)));
    }
}
