//! Packets that leave.

use super::pass::{Attachment, NO_FLAGS, Pass, is_icmp_error};
use super::stage::Stage;
use super::{Classifier, Outcome};
use crate::flow::{Direction, Lifetime, Slot};
use crate::packet::{Packet, Transport};
use crate::unheard::Question;
use crate::wire::TcpFlags;

impl<C: Classifier> Pass<'_, '_, C> {
    /// Takes a packet from the local machine to the wire.
    pub(super) fn outbound(&mut self, packet: &Packet<'_>) -> Outcome {
        self.begin(Direction::Outbound);
        let outcome = match (packet.fragment, packet.transport) {
            (_, Err(error)) => self.leave_below_transport().map(|()| Outcome::Malformed(error)),
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
        // Each fragment has a frame of its own, with a decision of its own.
        let of_datagram = match outcome {
            Outcome::Blocked { layer } if layer == Stage::OutboundFrame.layer(packet.version()) => Outcome::Permitted,
            other => other,
        };
        self.replay.sent.remember(packet, of_datagram, self.replay.now);
        Ok(outcome)
    }

    fn later_fragment(&mut self, packet: &Packet<'_>) -> Outcome {
        match self.replay.sent.outcome(packet, self.replay.now) {
            Some(stopped) if !stopped.is_permitted() => stopped,
            known => match self.ask_frame(Stage::OutboundFrame) {
                Ok(()) => known.unwrap_or(Outcome::StrayFragment),
                Err(blocked) => blocked,
            },
        }
    }

    fn send(&mut self, packet: &Packet<'_>, protocol: u8, transport: &Transport) -> Result<Outcome, Outcome> {
        self.transport = Some((protocol, *transport));
        let slot = match self.attach(packet, protocol, transport) {
            Attachment::Flow(slot) => match self.refused(slot) {
                Some(refused) => return Err(refused),
                None => slot,
            },
            Attachment::Opens { .. } if self.enters_after_authorization() => {
                match transport {
                    Transport::Tcp(_) => self.ask(Stage::StreamPacket, NO_FLAGS)?,
                    _ => self.ask_datagram(packet, protocol)?,
                }
                return self.leave().map(|()| Outcome::Permitted);
            }
            Attachment::Opens { flow, replaces } => self.authorize(flow, replaces)?,
            Attachment::None => {
                self.answers_nothing_silenced(packet, transport)?;
                if is_icmp_error(transport) {
                    self.relate(packet);
                    self.ask(Stage::OutboundIcmpError, NO_FLAGS)?;
                }
                return self.leave().map(|()| Outcome::Permitted);
            }
        };
        let change = self.follow(slot, transport);
        self.establish(slot, change)?;
        let sent = self.hand_down(slot, packet, protocol, transport).and_then(|()| self.leave());
        self.end(slot, change);
        sent.map(|()| Outcome::Permitted)
    }

    /// What was discarded in silence has no answer, whatever the capture holds.
    fn answers_nothing_silenced(&mut self, packet: &Packet<'_>, transport: &Transport) -> Result<(), Outcome> {
        if self.replay.silenced.is_empty() || !self.replay.silenced.contains(Question::answered_by(packet)) {
            return Ok(());
        }
        self.tell_blocked(match transport {
            Transport::Tcp(_) => Stage::InboundTransport,
            _ => Stage::InboundIpPacket,
        });
        Err(Outcome::FlowBlocked)
    }

    /// Takes data from an endpoint.
    fn hand_down(
        &mut self,
        slot: Slot,
        packet: &Packet<'_>,
        protocol: u8,
        transport: &Transport,
    ) -> Result<(), Outcome> {
        let Transport::Tcp(segment) = transport else { return self.ask_datagram(packet, protocol) };
        self.stream(slot, packet, segment)?;
        let flow = self.replay.flows.flow(slot);
        // The reset that answers a SYN comes from no endpoint: nobody listened.
        let from_nobody = segment.flags.contains(TcpFlags::RST)
            && flow.opened() == Direction::Inbound
            && flow.lifetime() == Lifetime::Opening;
        if from_nobody { Ok(()) } else { self.ask(Stage::StreamPacket, NO_FLAGS) }
    }

    fn leave(&mut self) -> Result<(), Outcome> {
        self.ask(Stage::OutboundTransport, NO_FLAGS)?;
        self.leave_below_transport()
    }

    fn leave_below_transport(&mut self) -> Result<(), Outcome> {
        self.ask(Stage::OutboundIpPacket, NO_FLAGS)?;
        self.ask_frame(Stage::OutboundFrame)
    }
}
