//! Packets that arrive.

use openwfp_model::ConditionFlags;

use super::pass::{Attachment, Pass};
use super::values::Stage;
use super::{Classifier, Outcome};
use crate::flow::{Direction, TcpChange, is_syn};
use crate::fragments::{Arrival, Datagram};
use crate::packet::{Packet, Transport};

impl<C: Classifier> Pass<'_, C> {
    /// Takes a packet from the wire to the local machine.
    pub(super) fn inbound(&mut self, packet: &Packet<'_>) -> Outcome {
        self.direction = Direction::Inbound;
        self.flow = None;
        self.replay.incoming.see(packet, self.direction, self.loopback);
        let outcome = match (packet.fragment, packet.transport) {
            (None, Ok(transport)) => self.receive(packet, packet.protocol, &transport),
            (None, Err(error)) => {
                self.ask(Stage::InboundIpPacket, ConditionFlags::empty()).map(|()| Outcome::Malformed(error))
            }
            (Some(fragment), _) => {
                // A first fragment may be too short for the header; only its place must be in order.
                let fits = fragment.check(packet.payload_length);
                self.ask(Stage::InboundIpPacket, ConditionFlags::IS_FRAGMENT).and_then(|()| match fits {
                    Ok(()) => self.fragment(packet),
                    Err(_) => Err(packet.transport.map_or_else(Outcome::Malformed, |_| Outcome::StrayFragment)),
                })
            }
        };
        outcome.unwrap_or_else(|stopped| stopped)
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
        self.replay.incoming.see_reassembled();
        let whole = Packet {
            protocol: datagram.protocol,
            fragment: None,
            payload: &datagram.payload,
            payload_length: datagram.payload_length,
            ..*packet
        };
        match Transport::read_fragmentable(whole.header_version, whole.protocol, whole.payload) {
            Ok((protocol, transport)) => self.receive(&whole, protocol, &transport),
            Err(error) => self.ask(Stage::InboundIpPacket, ConditionFlags::empty()).map(|()| Outcome::Malformed(error)),
        }
    }

    fn receive(&mut self, packet: &Packet<'_>, protocol: u8, transport: &Transport) -> Result<Outcome, Outcome> {
        self.replay.incoming.see_transport(protocol, transport, self.direction);
        let attachment = self.attach(packet, protocol, transport);
        match &attachment {
            Attachment::Flow(slot) => {
                let flow = self.replay.flows.flow(*slot);
                self.flow = Some(flow.id());
                let answers = flow.opened() == Direction::Outbound;
                let asks_again = !matches!(transport, Transport::Tcp(segment) if !is_syn(segment.flags));
                // What answers a packet that was never sent, or continues what was never accepted, never was.
                if (answers || !asks_again)
                    && let Some(refused) = self.refused(*slot)
                {
                    return Err(refused);
                }
            }
            Attachment::None => self.relate(packet),
            Attachment::Opens { .. } => {}
        }
        self.ask(Stage::InboundIpPacket, ConditionFlags::empty())?;
        self.ask(Stage::InboundTransport, requires_ale(&attachment))?;
        let slot = match attachment {
            Attachment::Flow(slot) => match self.refused(slot) {
                Some(refused) => return Err(refused),
                None => slot,
            },
            Attachment::Opens { flow, replaces } => self.authorize(flow, replaces)?,
            Attachment::None => return Ok(Outcome::Permitted),
        };
        let change = self.follow(slot, transport);
        if change == TcpChange::Established {
            self.establish(slot)?;
        }
        self.end(slot, change);
        Ok(Outcome::Permitted)
    }
}

/// `REQUIRES_ALE_CLASSIFY` says that ALE_AUTH_RECV_ACCEPT comes next.
fn requires_ale(attachment: &Attachment) -> ConditionFlags {
    match attachment {
        Attachment::Opens { flow, .. } if flow.opened == Direction::Inbound => ConditionFlags::REQUIRES_ALE_CLASSIFY,
        _ => ConditionFlags::empty(),
    }
}
