//! Packets that arrive.

use openwfp_model::{ConditionFlags, IpVersion};

use super::pass::{Attachment, NO_FLAGS, Pass, is_icmp_error};
use super::stage::Stage;
use super::{Classifier, Decision, Outcome};
use crate::flow::{Direction, Slot, TcpChange, is_syn};
use crate::fragments::{Arrival, Datagram};
use crate::packet::{Packet, Transport};
use crate::unheard::Question;
use crate::wire::Ipv6Packet;

impl<C: Classifier> Pass<'_, '_, C> {
    /// Takes a packet from the wire to the local machine.
    pub(super) fn inbound(&mut self, packet: &Packet<'_>) -> Outcome {
        self.begin(Direction::Inbound);
        let outcome = match (packet.fragment, packet.transport) {
            (None, Ok(transport)) => self.receive(packet, packet.protocol, &transport),
            (None, Err(error)) => self.enter_network(NO_FLAGS).map(|()| Outcome::Malformed(error)),
            (Some(fragment), _) => {
                // A first fragment may be too short for the header; only its place must be in order.
                let fits = fragment.check(packet.payload_length);
                self.enter_network(ConditionFlags::IS_FRAGMENT).and_then(|()| match fits {
                    Ok(()) => self.fragment(packet),
                    Err(_) => Err(packet.transport.map_or_else(Outcome::Malformed, |_| Outcome::StrayFragment)),
                })
            }
        };
        outcome.unwrap_or_else(|stopped| stopped)
    }

    /// Asks about the frame, which a datagram that was put together does not have, and about the packet.
    fn enter_network(&mut self, flags: ConditionFlags) -> Result<(), Outcome> {
        if !self.reassembled {
            self.ask_frame(Stage::InboundFrame)?;
        }
        self.ask(Stage::InboundIpPacket, flags)
    }

    fn fragment(&mut self, packet: &Packet<'_>) -> Result<Outcome, Outcome> {
        match self.replay.reassembly.arrive(packet, self.replay.now) {
            Arrival::Waiting => Ok(Outcome::Waiting),
            Arrival::Contradiction => Ok(Outcome::StrayFragment),
            Arrival::Complete(datagram) => self.reassembled(packet, &datagram),
        }
    }

    /// Goes on with a datagram whose last missing piece `packet` was.
    fn reassembled(&mut self, packet: &Packet<'_>, datagram: &Datagram) -> Result<Outcome, Outcome> {
        (self.reassembled, self.seen) = (true, false);
        if self.shows {
            self.whole = one_packet(packet, datagram);
        }
        let whole = Packet {
            protocol: datagram.protocol,
            fragment: None,
            payload: &datagram.payload,
            payload_length: datagram.payload_length,
            ..*packet
        };
        match Transport::read_fragmentable(whole.header_version, whole.protocol, whole.payload) {
            Ok((protocol, transport)) => self.receive(&whole, protocol, &transport),
            Err(error) => self.enter_network(NO_FLAGS).map(|()| Outcome::Malformed(error)),
        }
    }

    fn receive(&mut self, packet: &Packet<'_>, protocol: u8, transport: &Transport) -> Result<Outcome, Outcome> {
        // Of fragments less was seen.
        (self.transport, self.seen) = (Some((protocol, *transport)), false);
        let attachment = self.attach(packet, protocol, transport);
        match &attachment {
            Attachment::Flow(slot) => {
                self.enter(*slot);
                let answers = self.opened == Direction::Outbound;
                let asks_again = !matches!(transport, Transport::Tcp(segment) if !is_syn(segment.flags));
                // What answers a packet that was never sent, or continues what was never accepted, never was.
                if (answers || !asks_again)
                    && let Some(refused) = self.refused(*slot)
                {
                    return Err(refused);
                }
            }
            Attachment::None => {
                if is_icmp_error(transport) {
                    self.relate(packet);
                }
            }
            Attachment::Opens { .. } => {}
        }
        self.enter_network(NO_FLAGS)?;
        if let Some(unheard) = self.unheard(&attachment, packet, protocol, transport) {
            return Ok(unheard);
        }
        self.ask(Stage::InboundTransport, requires_ale(&attachment))?;
        let slot = match attachment {
            Attachment::Flow(slot) => match self.refused(slot) {
                Some(refused) => return Err(refused),
                None => slot,
            },
            Attachment::Opens { .. } if self.enters_after_authorization() => {
                match transport {
                    Transport::Tcp(_) => self.ask(Stage::StreamPacket, NO_FLAGS)?,
                    _ => self.ask_datagram(packet, protocol)?,
                }
                return Ok(Outcome::Permitted);
            }
            Attachment::Opens { flow, replaces } => self.authorize(flow, replaces)?,
            Attachment::None if is_icmp_error(transport) => {
                self.ask(Stage::InboundIcmpError, NO_FLAGS)?;
                return Ok(Outcome::Permitted);
            }
            Attachment::None => return Ok(Outcome::Permitted),
        };
        self.deliver(slot, packet, protocol, transport)
    }

    /// Discards what nobody listens to: a SYN at the transport layer, a datagram at the network layer.
    fn unheard(
        &mut self,
        attachment: &Attachment,
        packet: &Packet<'_>,
        protocol: u8,
        transport: &Transport,
    ) -> Option<Outcome> {
        let asks = matches!(attachment, Attachment::Opens { flow, .. } if flow.opened == Direction::Inbound);
        if self.replay.unheard.is_empty() || !asks {
            return None;
        }
        let question =
            Question::of(packet, protocol, transport).filter(|&question| self.replay.unheard.contains(question))?;
        let stage = match transport {
            Transport::Tcp(_) => Stage::InboundTransport,
            _ => Stage::InboundIpPacket,
        };
        if self.discard(stage) == Decision::Block {
            self.replay.silenced.insert(question);
        }
        Some(Outcome::Unheard)
    }

    /// Hands a packet to its endpoint.
    fn deliver(
        &mut self,
        slot: Slot,
        packet: &Packet<'_>,
        protocol: u8,
        transport: &Transport,
    ) -> Result<Outcome, Outcome> {
        let Transport::Tcp(segment) = transport else {
            self.follow(slot, transport);
            self.establish(slot, TcpChange::None)?;
            self.ask_datagram(packet, protocol)?;
            return Ok(Outcome::Permitted);
        };
        self.ask(Stage::StreamPacket, NO_FLAGS)?;
        let change = self.follow(slot, transport);
        let received = self.establish(slot, change).and_then(|()| self.stream(slot, packet, segment));
        self.end(slot, change);
        received.map(|()| Outcome::Permitted)
    }
}

/// A datagram that was put together, as the packet that it was before it was cut.
fn one_packet(last: &Packet<'_>, datagram: &Datagram) -> Vec<u8> {
    let v4 = last.header_version == IpVersion::V4;
    let header =
        if v4 { usize::from(last.bytes.first().map_or(5, |first| first & 15)) * 4 } else { Ipv6Packet::HEADER_LENGTH };
    let Some(header) = last.bytes.get(..header).filter(|header| header.len() >= 20) else { return Vec::new() };
    let mut whole = [header, &datagram.payload].concat();
    let counted = if v4 { whole.len() } else { datagram.payload.len() };
    let length = u16::try_from(counted).unwrap_or(u16::MAX).to_be_bytes();
    if v4 {
        whole[2..4].copy_from_slice(&length);
        // Neither flags nor a place; and no checksum, which nobody looks at here.
        whole[6..8].fill(0);
        whole[10..12].fill(0);
    } else {
        whole[4..6].copy_from_slice(&length);
        whole[6] = datagram.protocol;
    }
    whole
}

/// `REQUIRES_ALE_CLASSIFY` says that ALE_AUTH_RECV_ACCEPT comes next.
fn requires_ale(attachment: &Attachment) -> ConditionFlags {
    match attachment {
        Attachment::Opens { flow, .. } if flow.opened == Direction::Inbound => ConditionFlags::REQUIRES_ALE_CLASSIFY,
        _ => ConditionFlags::empty(),
    }
}
