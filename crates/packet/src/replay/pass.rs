//! One packet on its way in one direction: asking at layers, and finding, opening and following its flow.

use openwfp_model::ConditionFlags;

use super::facts::Sight;
use super::shown::{Context, show};
use super::stage::Stage;
use super::{Bytes, Classifier, Decision, LayerSet, Moment, Outcome, Replay, Shown};
use crate::capture::Record;
use crate::flow::{
    DeleteReason, Direction, FlowId, FlowKey, FlowTuple, Lifetime, NewFlow, Refusal, Selector, Sender, Slot, TcpChange,
    TcpState, is_syn, is_syn_ack, request_of,
};
use crate::packet::{AddressType, Original, OriginalTransport, Packet, TcpHeader, Transport};
use crate::wire::TcpFlags;

/// The first port that no service has by right (RFC 6335: system ports end before it).
const FIRST_USER_PORT: u16 = 1024;

pub(super) const NO_FLAGS: ConditionFlags = ConditionFlags::empty();

pub(super) struct Pass<'r, 'p, C> {
    pub(super) replay: &'r mut Replay,
    pub(super) classifier: &'r mut C,
    pub(super) record: &'p Record<'p>,
    /// The packet as it was captured; none in frames that hold no IP packet.
    pub(super) packet: Option<&'p Packet<'p>>,
    /// Protocol and transport header, as soon as they are known.
    pub(super) transport: Option<(u8, Transport)>,
    pub(super) direction: Direction,
    pub(super) loopback: bool,
    pub(super) reassembled: bool,
    pub(super) flow: Option<FlowId>,
    /// Where that stands in the table.
    slot: Option<Slot>,
    /// Who opened the flow.
    pub(super) opened: Direction,
    /// Which layers the classifier wants to be asked at.
    layers: LayerSet,
    /// Whether the values show this packet. They are filled in when the first layer asks for them.
    pub(super) seen: bool,
    /// Whether the classifier wants to see bytes.
    pub(super) shows: bool,
    /// A datagram that was put together, as one packet, for a classifier that wants to see it.
    pub(super) whole: Vec<u8>,
    /// Where an injected packet begins its way, as long as it has not come there.
    pub(super) entry: Option<Stage>,
    /// The mark of an injected packet.
    pub(super) mark: Option<u64>,
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

impl<'r, 'p, C: Classifier> Pass<'r, 'p, C> {
    pub(super) fn new(
        replay: &'r mut Replay,
        classifier: &'r mut C,
        record: &'p Record<'p>,
        packet: Option<&'p Packet<'p>>,
    ) -> Self {
        let (layers, shows) = (classifier.layers(), classifier.wants_bytes());
        Self {
            replay,
            classifier,
            record,
            packet,
            transport: None,
            direction: Direction::Outbound,
            loopback: false,
            reassembled: false,
            flow: None,
            slot: None,
            opened: Direction::Outbound,
            layers,
            seen: false,
            shows,
            whole: Vec::new(),
            entry: None,
            mark: None,
        }
    }

    /// Begins the way in a direction.
    pub(super) fn begin(&mut self, direction: Direction) {
        self.direction = direction;
        (self.flow, self.slot) = (None, None);
        self.transport = None;
        self.seen = false;
    }

    /// Asks at a layer.
    #[inline]
    pub(super) fn ask(&mut self, stage: Stage, flags: ConditionFlags) -> Result<(), Outcome> {
        self.ask_with(stage, flags, self.direction, &[])
    }

    /// Asks at a layer that sees data. `direction` is that of the data.
    #[inline]
    pub(super) fn ask_with(
        &mut self,
        stage: Stage,
        flags: ConditionFlags,
        direction: Direction,
        data: &[u8],
    ) -> Result<(), Outcome> {
        self.ask_range(stage, flags, direction, data, None)
    }

    /// Asks about data that have a place in a stream.
    #[inline]
    pub(super) fn ask_range(
        &mut self,
        stage: Stage,
        flags: ConditionFlags,
        direction: Direction,
        data: &[u8],
        range: Option<(u32, u32)>,
    ) -> Result<(), Outcome> {
        let Some(packet) = self.packet else { return Ok(()) };
        if self.comes_before_entry(stage) {
            return Ok(());
        }
        let layer = stage.layer(packet.version());
        if !self.layers.contains(layer) {
            self.replay.counts.permit(layer);
            return Ok(());
        }
        self.see();
        // Streams and flows have the direction of their connection, packets their own.
        let shown = match stage {
            Stage::FlowEstablished | Stage::Stream => self.opened,
            _ => direction,
        };
        let moment = Moment { direction, ..self.moment() };
        let shows = if self.shows && direction == self.direction {
            show(self.record, packet, &self.whole, self.transport, &Context::of(self))
        } else {
            Shown { mark: self.mark, ..Shown::default() }
        };
        let bytes = Bytes { data, range, shown: shows };
        let asked = self.replay.ask(self.classifier, self.layers, stage, flags, &moment, shown, bytes);
        self.drop_flow();
        asked
    }

    /// Whether a layer comes before the place where an injected packet begins its way.
    #[inline]
    pub(super) fn comes_before_entry(&mut self, stage: Stage) -> bool {
        match self.entry {
            Some(entry) if entry != stage => true,
            _ => {
                self.entry = None;
                false
            }
        }
    }

    /// Whether the flow of an injected packet is not authorized by it, because it begins its way after that.
    pub(super) fn enters_after_authorization(&self) -> bool {
        self.entry.is_some_and(|entry| match self.direction {
            Direction::Outbound => !matches!(entry, Stage::Connect | Stage::OutboundIcmpError),
            Direction::Inbound => {
                matches!(entry, Stage::FlowEstablished | Stage::DatagramData | Stage::StreamPacket | Stage::Stream)
            }
        })
    }

    /// Ends the flow of the packet at hand, where the classifier has said so.
    pub(super) fn drop_flow(&mut self) {
        if core::mem::take(&mut self.replay.drops)
            && let Some(slot) = self.slot
        {
            let (now, classifier) = (self.replay.now, &mut *self.classifier);
            self.replay.flows.drop_flow(slot, now, &mut |event| classifier.flow_changed(&event));
        }
    }

    /// Tells of a packet that passed every layer on its way.
    pub(super) fn tell_passed(&mut self, outcome: &Outcome) {
        if self.shows && *outcome == Outcome::Permitted {
            self.classifier.passed(self.record.link_type, self.record.data, self.direction);
        }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { flow: self.flow, packet: self.record.frame, time: self.record.time, direction: self.direction }
    }

    /// Fills in the values, unless that was done.
    pub(super) fn see(&mut self) {
        if let (false, Some(packet)) = (self.seen, self.packet) {
            self.replay.incoming.facts.see(&Sight {
                packet,
                transport: self.transport,
                direction: self.direction,
                loopback: self.loopback,
                reassembled: self.reassembled,
                interface: self.record.interface,
            });
            self.seen = true;
        }
    }

    /// Shows to the discard layer of a stage what was discarded without a block.
    pub(super) fn discard(&mut self, stage: Stage) -> Decision {
        let discard = self.packet.and_then(|packet| stage.discard(packet.version()));
        let Some(discard) = discard else { return Decision::Permit };
        let asked = self.layers.contains(discard).then(|| {
            self.see();
            let moment = self.moment();
            let values = self.replay.incoming.at(stage, true, NO_FLAGS, self.direction);
            self.classifier.discarded(&moment.step(discard, values, Bytes::default()))
        });
        self.replay.count_discarded(discard, asked)
    }

    /// Whether the classifier wants to be asked at a stage.
    pub(super) fn wants(&self, stage: Stage) -> bool {
        self.packet.is_none_or(|packet| self.layers.contains(stage.layer(packet.version())))
    }

    pub(super) const fn layers(&self) -> LayerSet {
        self.layers
    }

    /// The key of the flow that a packet with such a header belongs to.
    #[inline]
    fn key(&self, packet: &Packet<'_>, protocol: u8, transport: &Transport) -> FlowKey {
        let ports = |source, destination| match self.direction {
            Direction::Outbound => Selector::Ports { local: source, remote: destination },
            Direction::Inbound => Selector::Ports { local: destination, remote: source },
        };
        let selector = match *transport {
            Transport::Tcp(segment) => ports(segment.source, segment.destination),
            Transport::Ports { source, destination } => ports(source, destination),
            Transport::Icmp(message) => {
                Selector::icmp(protocol, message.message_type, message.code, message.identifier, self.direction)
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
        if is_icmp_error(transport) {
            return Attachment::None;
        }
        let key = self.key(packet, protocol, transport);
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
                (self.direction, Some(TcpState::opened_by(&segment)), Lifetime::Opening)
            }
            Transport::Tcp(segment) if is_syn_ack(segment.flags) => {
                (self.direction.opposite(), Some(TcpState::answered_by(&segment)), Lifetime::Opening)
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
        let loopback = self.loopback;
        Attachment::Opens { flow: NewFlow { key, opened, tcp, lifetime, loopback }, replaces }
    }

    /// Who probably opened a connection of whose opening nothing was seen.
    fn likely_opened(&self, segment: &TcpHeader) -> Direction {
        let sent_by_service = segment.source < FIRST_USER_PORT && segment.destination >= FIRST_USER_PORT;
        if sent_by_service { self.direction.opposite() } else { self.direction }
    }

    /// Opens a flow and has it authorized.
    pub(super) fn authorize(&mut self, flow: NewFlow, replaces: Option<Slot>) -> Result<Slot, Outcome> {
        let now = self.replay.now;
        if let Some(replaced) = replaces {
            // An endpoint that opens a connection anew has closed the old one.
            let moment = self.moment();
            self.replay.conclude(self.classifier, self.layers, replaced, DeleteReason::Replaced, &moment);
            self.seen = false;
        }
        let classifier = &mut *self.classifier;
        let slot = self.replay.flows.open(flow, now, &mut |event| classifier.flow_changed(&event));
        self.enter(slot);
        let asked = self.ask(authorizing(flow.opened), NO_FLAGS);
        match &asked {
            Ok(()) => {}
            // Nothing is decided: whatever comes next of it is asked about again.
            Err(Outcome::Absorbed { .. }) => {
                self.replay.flows.delete(slot, DeleteReason::Replaced, now, &mut |_| {});
                (self.flow, self.slot) = (None, None);
            }
            Err(_) => self.replay.flows.refuse(slot, Refusal::Authorization),
        }
        asked.map(|()| slot)
    }

    /// Notes the flow that the packet belongs to.
    pub(super) fn enter(&mut self, slot: Slot) {
        let flow = self.replay.flows.flow(slot);
        (self.flow, self.opened, self.slot) = (Some(flow.id()), flow.opened(), Some(slot));
    }

    /// Asks at ALE_FLOW_ESTABLISHED, when this packet establishes the flow: a TCP connection by its handshake, any other by its
    /// authorization.
    #[inline]
    pub(super) fn establish(&mut self, slot: Slot, change: TcpChange) -> Result<(), Outcome> {
        let flow = self.replay.flows.flow(slot);
        let is_due = match flow.lifetime() {
            Lifetime::Opening => change == TcpChange::Established,
            Lifetime::Group | Lifetime::Idle | Lifetime::Connection => true,
            Lifetime::Ended => false,
        };
        if flow.is_established() || !is_due {
            return Ok(());
        }
        if let Err(blocked) = self.ask(Stage::FlowEstablished, NO_FLAGS) {
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
        let moment = self.moment();
        self.replay.conclude(self.classifier, self.layers, slot, reason, &moment);
        self.seen = false;
    }

    /// Tells of a packet whose flow was refused, if it was.
    #[inline]
    pub(super) fn refused(&mut self, slot: Slot) -> Option<Outcome> {
        self.enter(slot);
        let flow = self.replay.flows.flow(slot);
        let stage = match flow.refusal()? {
            Refusal::Authorization => authorizing(flow.opened()),
            Refusal::Establishment => Stage::FlowEstablished,
            Refusal::Dropped if flow.tcp().is_some() => Stage::Stream,
            Refusal::Dropped => Stage::DatagramData,
        };
        self.replay.flows.touch(slot, self.replay.now);
        self.tell_blocked(stage);
        Some(Outcome::FlowBlocked)
    }

    /// Tells that the packet is blocked by what a layer has decided before.
    pub(super) fn tell_blocked(&mut self, stage: Stage) {
        self.see();
        let moment = self.moment();
        self.replay.tell_blocked(self.classifier, stage, &moment, self.opened);
    }

    /// Finds the flow that an ICMP error is about, and notes what the error quotes.
    pub(super) fn relate(&mut self, packet: &Packet<'_>) {
        let original = packet.original();
        // An error that we receive is about what we sent, one that we send is about what we received.
        let we_sent = self.direction == Direction::Inbound;
        self.flow = original.as_ref().and_then(|original| self.quoted_flow(original, we_sent));
        let stage = if we_sent { Stage::InboundIcmpError } else { Stage::OutboundIcmpError };
        if self.wants(stage) {
            self.see();
            self.replay.incoming.facts.see_embedded(original.as_ref(), we_sent);
        }
    }

    fn quoted_flow(&self, original: &Original, we_sent: bool) -> Option<FlowId> {
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
                let direction = if we_sent { Direction::Outbound } else { Direction::Inbound };
                Selector::icmp(original.protocol, message.message_type, message.code, message.identifier, direction)
            }
            OriginalTransport::Other => Selector::None,
        };
        let key = FlowKey::from(&FlowTuple { local, remote, protocol: original.protocol, selector });
        self.replay.flows.find(&key).map(|slot| self.replay.flows.flow(slot).id())
    }
}

/// The layer that authorizes a flow.
const fn authorizing(opened: Direction) -> Stage {
    match opened {
        Direction::Outbound => Stage::Connect,
        Direction::Inbound => Stage::RecvAccept,
    }
}

/// Whether a payload is an ICMP error, which belongs to no flow.
pub(super) const fn is_icmp_error(transport: &Transport) -> bool {
    matches!(transport, Transport::Icmp(message) if message.is_error)
}
