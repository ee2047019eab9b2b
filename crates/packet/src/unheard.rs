//! What nobody listened to: SYNs and datagrams that their receiver answered by saying that it has no endpoint for them.
//!
//! The platform treats such packets otherwise than those that somebody could accept (MS docs: TCP Packet Flows, UDP Packet Flows), and
//! knows at once. A capture shows it by a later packet alone. So who replays one reads it once before, as for
//! [`crate::local::Inference`], and hands to the replay what was found.

use core::hash::BuildHasherDefault;
use core::net::IpAddr;
use std::collections::HashSet;

use siphasher::sip::SipHasher13;

use crate::packet::{OriginalTransport, Packet, Transport};
use crate::wire::{TcpFlags, icmpv4_type, icmpv6_type, protocol};

/// How many packets are remembered. Those beyond are taken for packets that somebody could accept.
const LIMIT: usize = 65_536;

/// The code of a destination unreachable: the port is.
const PORT_V4: u8 = 3;
const PORT_V6: u8 = 4;

/// Packets that found no endpoint.
#[derive(Clone, Debug, Default)]
pub struct Unheard {
    /// The bound makes chosen keys harmless, so the hash needs no seed.
    packets: HashSet<Question, BuildHasherDefault<SipHasher13>>,
}

/// A packet that asks for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    mark: Mark,
}

/// What tells a packet from others between the same endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    /// The sequence number of a SYN.
    Syn(u32),
    /// Length and checksum of a UDP datagram.
    Datagram([u8; 4]),
}

impl Unheard {
    /// Nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at a packet of the capture.
    pub fn observe(&mut self, packet: &Packet<'_>) {
        if let Some(question) = Question::answered_by(packet) {
            self.insert(question);
        }
    }

    pub(crate) fn insert(&mut self, question: Question) {
        if self.packets.len() < LIMIT {
            self.packets.insert(question);
        }
    }

    pub(crate) fn contains(&self, question: impl Into<Option<Question>>) -> bool {
        question.into().is_some_and(|question| self.packets.contains(&question))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

impl Question {
    /// The question that a packet is, if it is one.
    pub(crate) fn of(packet: &Packet<'_>, protocol: u8, transport: &Transport) -> Option<Self> {
        let (source, destination, mark) = match *transport {
            Transport::Tcp(segment) => (segment.source, segment.destination, Mark::Syn(segment.sequence)),
            Transport::Ports { source, destination } if protocol == protocol::UDP => {
                (source, destination, Mark::Datagram(*packet.payload.get(4..8)?.first_chunk()?))
            }
            _ => return None,
        };
        Some(Self { from: (packet.source, source), to: (packet.destination, destination), mark })
    }

    /// The question to which a packet answers that there is no endpoint: a reset that says nothing of its own (RFC 9293, 3.10.7.1), or an
    /// ICMP error.
    pub(crate) fn answered_by(packet: &Packet<'_>) -> Option<Self> {
        match packet.transport.ok()? {
            Transport::Tcp(answer) => {
                let says_nothing = answer.flags.contains(TcpFlags::RST.union(TcpFlags::ACK)) && answer.sequence == 0;
                says_nothing.then(|| Self {
                    from: (packet.destination, answer.destination),
                    to: (packet.source, answer.source),
                    mark: Mark::Syn(answer.acknowledgment.wrapping_sub(1)),
                })
            }
            Transport::Icmp(message) => {
                let says_port = match packet.protocol {
                    protocol::ICMP => (icmpv4_type::DESTINATION_UNREACHABLE, PORT_V4),
                    _ => (icmpv6_type::DESTINATION_UNREACHABLE, PORT_V6),
                };
                let original = packet.original().filter(|_| (message.message_type, message.code) == says_port)?;
                match original.transport {
                    OriginalTransport::Ports { source, destination } if original.protocol == protocol::UDP => {
                        Some(Self {
                            from: (original.source, source),
                            to: (original.destination, destination),
                            mark: Mark::Datagram(original.mark),
                        })
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}
