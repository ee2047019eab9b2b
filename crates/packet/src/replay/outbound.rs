//! Packets that leave.

use openwfp_model::ConditionFlags;

use super::pass::{Attachment, Pass};
use super::values::Stage;
use super::{Classifier, Outcome};
use crate::flow::{Direction, Slot, TcpChange};
use crate::packet::{Packet, Transport};

impl<C: Classifier> Pass<'_, C> {
    /// Takes a packet from the local machine to the wire.
    pub(super) fn outbound(&mut self, packet: &Packet<'_>) -> Outcome {
        self.direction = Direction::Outbound;
        self.flow = None;
        self.replay.incoming.see(packet, self.direction, self.loopback);
        let outcome = match (packet.fragment, packet.transport) {
            (_, Err(error)) => {
                self.ask(Stage::OutboundIpPacket, ConditionFlags::empty()).map(|()| Outcome::Malformed(error))
            }
            (_, Ok(Transport::LaterFragment)) => Ok(self.later_fragment(packet)),
            (None, Ok(transport)) => self.send(packet, packet.protocol, &transport),
            (Some(_), Ok(_)) => self.first_fragment(packet),
        };
        outcome.unwrap_or_else(|stopped| stopped)
    }

    /// The first fragment stands for the datagram, which the platform classified before it was cut.
    fn first_fragment(&mut self, packet: &Packet<'_>) -> Result<Outcome, Outcome> {
        let read = Transport::read_fragmentable(packet.header_version, packet.protocol, packet.payload);
        let (protocol, transport) = read.map_err(Outcome::Malformed)?;
        let outcome = self.send(packet, protocol, &transport).unwrap_or_else(|stopped| stopped);
        self.replay.sent.remember(packet, outcome, self.replay.now);
        Ok(outcome)
    }

    fn later_fragment(&mut self, packet: &Packet<'_>) -> Outcome {
        self.replay.sent.outcome(packet, self.replay.now).unwrap_or(Outcome::StrayFragment)
    }

    fn send(&mut self, packet: &Packet<'_>, protocol: u8, transport: &Transport) -> Result<Outcome, Outcome> {
        self.replay.incoming.see_transport(protocol, transport, self.direction);
        let (slot, change) = match self.attach(packet, protocol, transport) {
            Attachment::Flow(slot) => {
                if let Some(refused) = self.refused(slot) {
                    return Err(refused);
                }
                (Some(slot), self.follow(slot, transport))
            }
            Attachment::Opens { flow, replaces } => {
                let slot = self.authorize(flow, replaces)?;
                (Some(slot), self.follow(slot, transport))
            }
            Attachment::None => {
                self.relate(packet);
                (None, TcpChange::None)
            }
        };
        if let (Some(slot), TcpChange::Established) = (slot, change) {
            self.establish(slot)?;
        }
        let sent = self.leave();
        self.end_if_open(slot, change);
        sent.map(|()| Outcome::Permitted)
    }

    fn leave(&mut self) -> Result<(), Outcome> {
        self.ask(Stage::OutboundTransport, ConditionFlags::empty())?;
        self.ask(Stage::OutboundIpPacket, ConditionFlags::empty())
    }

    fn end_if_open(&mut self, slot: Option<Slot>, change: TcpChange) {
        if let Some(slot) = slot {
            self.end(slot, change);
        }
    }
}
