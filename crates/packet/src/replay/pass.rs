//! One packet on its way in one direction: asking at layers, and finding, opening and following its flow.

use openwfp_model::ConditionFlags;

use super::values::Stage;
use super::{Classifier, Decision, Outcome, Replay, Step};
use crate::capture::Record;
use crate::flow::{
    DeleteReason, Direction, FlowId, FlowKey, FlowTuple, Lifetime, Refusal, Selector, Sender, Slot, TcpChange,
    TcpState, is_syn, is_syn_ack, request_of,
};
use crate::packet::{AddressType, OriginalTransport, Packet, TcpHeader, Transport};
use crate::time::Timestamp;
use crate::wire::TcpFlags;

/// The first port that no service has by right (RFC 6335: system ports end before it).
const FIRST_USER_PORT: u16 = 1024;

pub(super) struct Pass<'r, C> {
    pub(super) replay: &'r mut Replay,
    pub(super) classifier: &'r mut C,
    pub(super) loopback: bool,
    pub(super) direction: Direction,
    pub(super) flow: Option<FlowId>,
    frame: u64,
    time: Timestamp,
}

/// How a packet stands to the flows.
pub(super) enum Attachment {
    /// It belongs to a flow.
    Flow(Slot),
    /// It opens one, perhaps in the place of another.
    Opens { flow: NewFlow, replaces: Option<Slot> },
    /// It belongs to none.
    None,
}

/// A flow that is about to be opened.
pub(super) struct NewFlow {
    key: FlowKey,
    pub(super) opened: Direction,
    tcp: Option<TcpState>,
    lifetime: Lifetime,
}

impl<'r, C: Classifier> Pass<'r, C> {
    pub(super) fn new(replay: &'r mut Replay, classifier: &'r mut C, record: &Record<'_>, loopback: bool) -> Self {
        let (direction, frame, time) = (Direction::Outbound, record.frame, record.time);
        Self { replay, classifier, loopback, direction, flow: None, frame, time }
    }

    /// Asks at a layer.
    #[inline]
    pub(super) fn ask(&mut self, stage: Stage, flags: ConditionFlags) -> Result<(), Outcome> {
        let (flow, packet, time, direction) = (self.flow, self.frame, self.time, self.direction);
        let (layer, values) = self.replay.incoming.at(stage, flags);
        self.replay.summary.classifications += 1;
        match self.classifier.classify(&Step { layer, values, flow, packet, time, direction }) {
            Decision::Permit => Ok(()),
            Decision::Block => Err(Outcome::Blocked { layer }),
        }
    }

    /// The key of the flow that a packet with such a header belongs to.
    #[inline]
    pub(super) fn key(&self, packet: &Packet<'_>, protocol: u8, transport: &Transport) -> FlowKey {
        let ports = |source, destination| match self.direction {
            Direction::Outbound => Selector::Ports { local: source, remote: destination },
            Direction::Inbound => Selector::Ports { local: destination, remote: source },
        };
        let selector = match *transport {
            Transport::Tcp(segment) => ports(segment.source, segment.destination),
            Transport::Ports { source, destination } => ports(source, destination),
            Transport::Icmp(message) => {
                Selector::icmp(protocol, message.message_type, message.code, message.identifier)
            }
            Transport::Other | Transport::LaterFragment => Selector::None,
        };
        let (local, remote) = match self.direction {
            Direction::Outbound => (packet.source, packet.destination),
            Direction::Inbound => (packet.destination, packet.source),
        };
        FlowKey::from(&FlowTuple { local, remote, protocol, selector })
    }

    /// Which side of a flow sent the packet at hand.
    fn sender(&self, opened: Direction) -> Sender {
        if opened == self.direction { Sender::Opener } else { Sender::Acceptor }
    }

    /// How a packet stands to the flows. Nothing is changed yet.
    #[inline]
    pub(super) fn attach(&self, packet: &Packet<'_>, protocol: u8, transport: &Transport) -> Attachment {
        let key = self.key(packet, protocol, transport);
        if matches!(*transport, Transport::Icmp(message) if message.is_error) {
            return Attachment::None;
        }
        let known = self.replay.flows.find(&key);
        let Some(slot) = known else {
            return self.opens(key, None, packet, protocol, transport);
        };
        let flow = self.replay.flows.flow(slot);
        match (flow.tcp(), transport) {
            (Some(state), Transport::Tcp(segment)) if state.is_replaced_by(self.sender(flow.opened()), segment) => {
                self.opens(key, known, packet, protocol, transport)
            }
            _ => Attachment::Flow(slot),
        }
    }

    fn opens(
        &self,
        key: FlowKey,
        replaces: Option<Slot>,
        packet: &Packet<'_>,
        protocol: u8,
        transport: &Transport,
    ) -> Attachment {
        let (opened, tcp, lifetime) = match *transport {
            Transport::Tcp(segment) if is_syn(segment.flags) => {
                (self.direction, Some(TcpState::opening(&segment)), Lifetime::Opening)
            }
            Transport::Tcp(segment) if is_syn_ack(segment.flags) => {
                (self.direction.opposite(), Some(TcpState::answered()), Lifetime::Opening)
            }
            Transport::Tcp(segment) if segment.flags.contains(TcpFlags::RST) => return Attachment::None,
            Transport::Tcp(segment) => {
                (self.likely_opened(&segment), Some(TcpState::picked_up()), Lifetime::Connection)
            }
            Transport::Icmp(message) if request_of(protocol, message.message_type).is_some() => {
                (self.direction.opposite(), None, Lifetime::Idle)
            }
            _ => {
                let to_group = AddressType::of(packet.destination, packet.link.broadcast).is_group();
                let leaves = self.direction == Direction::Outbound;
                (self.direction, None, if to_group && leaves { Lifetime::Group } else { Lifetime::Idle })
            }
        };
        Attachment::Opens { flow: NewFlow { key, opened, tcp, lifetime }, replaces }
    }

    /// Who probably opened a connection of whose opening nothing was seen.
    fn likely_opened(&self, segment: &TcpHeader) -> Direction {
        let sent_by_service = segment.source < FIRST_USER_PORT && segment.destination >= FIRST_USER_PORT;
        if sent_by_service { self.direction.opposite() } else { self.direction }
    }

    /// Opens a flow and has it authorized. Everything but a TCP connection in its handshake is established with that.
    pub(super) fn authorize(&mut self, flow: NewFlow, replaces: Option<Slot>) -> Result<Slot, Outcome> {
        let NewFlow { key, opened, tcp, lifetime } = flow;
        let now = self.replay.now;
        let classifier = &mut *self.classifier;
        let mut tell = |event| classifier.flow_changed(&event);
        let flows = &mut self.replay.flows;
        if let Some(replaced) = replaces {
            flows.delete(replaced, DeleteReason::Replaced, now, &mut tell);
        }
        let slot = flows.open(key, opened, tcp, lifetime, now, &mut tell);
        self.flow = Some(flows.flow(slot).id());
        let asked = self.ask(authorizing(opened), ConditionFlags::empty());
        if let Err(blocked) = asked {
            self.replay.flows.refuse(slot, Refusal::Authorization);
            return Err(blocked);
        }
        if lifetime != Lifetime::Opening {
            self.establish(slot)?;
        }
        Ok(slot)
    }

    /// Asks at ALE_FLOW_ESTABLISHED.
    pub(super) fn establish(&mut self, slot: Slot) -> Result<(), Outcome> {
        self.replay.incoming.see_opened(self.replay.flows.flow(slot).opened());
        if let Err(blocked) = self.ask(Stage::FlowEstablished, ConditionFlags::empty()) {
            self.replay.flows.refuse(slot, Refusal::Establishment);
            return Err(blocked);
        }
        let (now, classifier) = (self.replay.now, &mut *self.classifier);
        let flows = &mut self.replay.flows;
        if flows.flow(slot).tcp().is_some() {
            flows.set_lifetime(slot, Lifetime::Connection);
        }
        flows.establish(slot, now, &mut |event| classifier.flow_changed(&event));
        Ok(())
    }

    /// Notes a packet of a flow, and what it changes in a connection.
    #[inline]
    pub(super) fn follow(&mut self, slot: Slot, transport: &Transport) -> TcpChange {
        let flows = &mut self.replay.flows;
        flows.touch(slot, self.replay.now);
        let opened = flows.flow(slot).opened();
        let sender = if opened == self.direction { Sender::Opener } else { Sender::Acceptor };
        let local = if opened == Direction::Outbound { Sender::Opener } else { Sender::Acceptor };
        match (flows.tcp_mut(slot), transport) {
            (Some(state), Transport::Tcp(segment)) => state.follow(local, sender, segment),
            _ => TcpChange::None,
        }
    }

    /// Ends a connection when a segment did so.
    #[inline]
    pub(super) fn end(&mut self, slot: Slot, change: TcpChange) {
        let reason = match change {
            TcpChange::Closed => DeleteReason::Closed,
            TcpChange::Reset => DeleteReason::Reset,
            TcpChange::None | TcpChange::Established => return,
        };
        let classifier = &mut *self.classifier;
        self.replay.flows.end(slot, reason, self.replay.now, &mut |event| classifier.flow_changed(&event));
    }

    /// Tells of a packet whose flow was refused, if it was.
    #[inline]
    pub(super) fn refused(&mut self, slot: Slot) -> Option<Outcome> {
        let flow = self.replay.flows.flow(slot);
        self.flow = Some(flow.id());
        let stage = match flow.refusal()? {
            Refusal::Authorization => authorizing(flow.opened()),
            Refusal::Establishment => Stage::FlowEstablished,
        };
        self.replay.incoming.see_opened(flow.opened());
        self.replay.flows.touch(slot, self.replay.now);
        let (flow, packet, time, direction) = (self.flow, self.frame, self.time, self.direction);
        let (layer, values) = self.replay.incoming.at(stage, ConditionFlags::empty());
        self.classifier.flow_blocked(&Step { layer, values, flow, packet, time, direction });
        Some(Outcome::FlowBlocked)
    }

    /// Finds the flow that an ICMP error is about.
    pub(super) fn relate(&mut self, packet: &Packet<'_>) {
        let Some(original) = packet.original() else { return };
        // An error that we receive is about what we sent, one that we send is about what we received.
        let we_sent = self.direction == Direction::Inbound;
        let (local, remote) = match we_sent {
            true => (original.source, original.destination),
            false => (original.destination, original.source),
        };
        let selector = match original.transport {
            OriginalTransport::Ports { source, destination } if we_sent => {
                Selector::Ports { local: source, remote: destination }
            }
            OriginalTransport::Ports { source, destination } => Selector::Ports { local: destination, remote: source },
            OriginalTransport::Icmp(message) => {
                Selector::icmp(original.protocol, message.message_type, message.code, message.identifier)
            }
            OriginalTransport::Other => Selector::None,
        };
        let key = FlowKey::from(&FlowTuple { local, remote, protocol: original.protocol, selector });
        self.flow = self.replay.flows.find(&key).map(|slot| self.replay.flows.flow(slot).id());
    }
}

/// The layer that authorizes a flow.
const fn authorizing(opened: Direction) -> Stage {
    match opened {
        Direction::Outbound => Stage::Connect,
        Direction::Inbound => Stage::RecvAccept,
    }
}
