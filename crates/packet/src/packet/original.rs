//! What an ICMP error quotes.

use core::net::IpAddr;

use openwfp_model::IpVersion;

use super::{IcmpHeader, Transport, unmapped};
use crate::wire::{Ipv4Packet, Ipv6Packet, PortsHeader, protocol};

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
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
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
