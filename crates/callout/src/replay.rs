//! Callouts in replay: the same callouts, asked about captures, deterministically.
//!
//! [`ReplayCallouts`] stands between a [`Replay`](openwfp_packet::replay::Replay) and a [`Registry`]: it turns the questions of the one
//! into classifications of the other, holds streams until callouts have decided, and hands in what they inject. Time is that of
//! the capture. An operation that is pended is waited for: no packet of the capture comes before its answer.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use openwfp_engine::{Action, CompiledPolicy, Reason, Values, Verdict, words};
use openwfp_model::{ConditionFlags, IpVersion, LayerId};
use openwfp_packet::flow::{Direction, FlowChange, FlowEvent, FlowId};
use openwfp_packet::link::LinkType;
use openwfp_packet::packet::{Frame, Packet};
use openwfp_packet::replay::{Classifier, Decision, Injected, Step};
use openwfp_packet::time::Timestamp;
use openwfp_packet::wire::{TcpFlags, protocol};

use crate::dispatch::{is_discard, sees_frames};
use crate::{
    FlowHandle, FragmentData, Injection, InjectionHistory, InjectionPoint, LayerData, LayerEvent, LayerOutcome,
    Metadata, PacketData, Registry, StreamAction, StreamData, StreamFlags,
};

/// So many bytes wait for callouts in all streams together.
const ALL_STREAM_BYTES: usize = 64 << 20;

/// What a question of a replay comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// For the replay.
    pub decision: Decision,
    /// What the engine said; at STREAM about the last portion that was decided.
    pub verdict: Verdict,
}

/// Is told of the data that go on in a stream: of the flow, the direction, and the bytes.
pub type Delivered = Box<dyn FnMut(FlowHandle, Direction, &[u8])>;

/// The callouts of a replay.
pub struct ReplayCallouts {
    registry: Registry,
    halves: HashMap<(FlowHandle, Direction), Half>,
    ids: HashMap<FlowHandle, FlowId>,
    /// Packets that take the place of others, and whose they are.
    queue: VecDeque<(Injected, InjectionHistory)>,
    aborted: VecDeque<FlowId>,
    /// The mark and history of the injected packet on its way.
    current: (u64, InjectionHistory),
    marks: u64,
    held: usize,
    /// The filter that blocked last, for the discard layer that is asked next.
    blocked_by: u64,
    delivered: Option<Delivered>,
}

/// One direction of a connection.
struct Half {
    layer: LayerId,
    values: Values,
    /// The sequence number of the first byte.
    base: u32,
    /// The place after the last byte that came.
    end: u64,
    /// What is undecided; it ends at `end`.
    held: Vec<u8>,
    /// Callouts want at least so many.
    needs: usize,
    deferred: bool,
    missed: u64,
    /// How many bytes may wait for the callout that they wait for.
    limit: usize,
}

impl ReplayCallouts {
    /// The callouts of a registry.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            halves: HashMap::new(),
            ids: HashMap::new(),
            queue: VecDeque::new(),
            aborted: VecDeque::new(),
            current: (0, InjectionHistory::EMPTY),
            marks: 0,
            held: 0,
            blocked_by: 0,
            delivered: None,
        }
    }

    /// The same, telling of the data that go on in streams.
    #[must_use]
    pub fn on_delivered(mut self, delivered: Delivered) -> Self {
        self.delivered = Some(delivered);
        self
    }

    /// The registry.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Answers a question of a replay: [`Classifier::classify`] and [`Classifier::discarded`].
    pub fn decide(&mut self, policy: &CompiledPolicy, step: &Step<'_>) -> Decided {
        self.begin(step);
        if is_stream(step.layer) {
            return self.stream_data(policy, step);
        }
        let discard = is_discard(step.layer);
        let data = packet_data(step);
        let mut metadata = metadata(step, &data);
        metadata.discarded_by = Some(self.blocked_by).filter(|_| discard);
        let history = self.history_of(step.shown.mark);
        let mut event = LayerEvent::new(step.layer, step.values, &metadata, data);
        event.history = &history;
        let outcome = self.registry.classify(policy, &event);
        let decision = self.decision(&outcome, step);
        if decision != Decision::Permit {
            self.blocked_by = outcome.verdict.filter;
        }
        Decided { decision, verdict: outcome.verdict }
    }

    fn begin(&mut self, step: &Step<'_>) {
        self.registry.set_now(step.time);
        if let Some(flow) = step.flow {
            let handle = FlowHandle::new(flow.get());
            if self.ids.insert(handle, flow).is_none() {
                self.registry.flow_began(handle);
            }
        }
    }

    fn history_of(&self, mark: Option<u64>) -> InjectionHistory {
        match mark {
            Some(mark) if mark == self.current.0 => self.current.1.clone(),
            _ => InjectionHistory::EMPTY,
        }
    }

    fn decision(&mut self, outcome: &LayerOutcome, step: &Step<'_>) -> Decision {
        if let Some((bytes, history)) = &outcome.packet {
            let shown = &step.shown;
            let (link_type, bytes) = match sees_frames(step.layer) {
                true => (LinkType::ETHERNET, bytes.clone()),
                false => (shown.link_type, [shown.link_header, bytes].concat()),
            };
            self.marks += 1;
            let injected = Injected {
                layer: step.layer,
                direction: step.direction,
                link_type,
                bytes,
                interface: shown.interface,
                loopback: shown.loopback,
                reassembled: shown.reassembled,
                mark: self.marks,
            };
            self.queue.push_back((injected, history.clone()));
        }
        match outcome.verdict.action {
            Action::Permit => Decision::Permit,
            _ if outcome.absorbed => Decision::Absorb,
            _ => Decision::Block,
        }
    }

    fn stream_data(&mut self, policy: &CompiledPolicy, step: &Step<'_>) -> Decided {
        let permitted = Decided { decision: Decision::Permit, verdict: permit() };
        let (Some(flow), Some((from, to))) = (step.flow, step.range) else { return permitted };
        let flow = FlowHandle::new(flow.get());
        let half = self.halves.entry((flow, step.direction)).or_insert_with(|| Half {
            layer: step.layer,
            values: step.values.clone(),
            base: from,
            end: 0,
            held: Vec::new(),
            needs: 0,
            deferred: false,
            missed: 0,
            limit: 0,
        });
        half.values = step.values.clone();
        let next = half.base.wrapping_add(half.end as u32);
        let covered = u64::from(to.wrapping_sub(from));
        // What the capture has missed before these data, and within them.
        half.missed += u64::from(from.wrapping_sub(next)) + covered.saturating_sub(step.data.len() as u64);
        half.end += u64::from(to.wrapping_sub(next));
        half.held.extend_from_slice(step.data);
        self.held += step.data.len();
        let mut flags = StreamFlags::of(step.direction);
        if step.shown.tcp.is_some_and(|header| header.flags.contains(TcpFlags::URG)) {
            flags |= StreamFlags::expedited(step.direction);
        }
        let (waits, has_room) = (half.deferred || half.held.len() < half.needs, half.held.len() <= half.limit);
        if waits {
            return if has_room && self.held <= ALL_STREAM_BYTES { permitted } else { self.too_long() };
        }
        self.portions(policy, flow, step.direction, flags, step.time, step.packet)
    }

    /// Answers [`Classifier::stream_ended`]: what is undecided is shown once more, as the last.
    pub fn stream_ended(&mut self, policy: &CompiledPolicy, step: &Step<'_>) -> Decided {
        self.begin(step);
        let permitted = Decided { decision: Decision::Permit, verdict: permit() };
        let Some(flow) = step.flow.map(|flow| FlowHandle::new(flow.get())) else { return permitted };
        let Some(half) = self.halves.get_mut(&(flow, step.direction)) else { return permitted };
        (half.deferred, half.needs) = (false, 0);
        let flags = StreamFlags::of(step.direction) | StreamFlags::disconnect(step.direction);
        self.portions(policy, flow, step.direction, flags, step.time, step.packet)
    }

    /// More waits than may: the connection ends.
    fn too_long(&mut self) -> Decided {
        self.registry.inner.lock().counts.streams_too_long += 1;
        Decided { decision: Decision::Drop, verdict: Verdict::closed(Reason::Bound) }
    }

    /// Has the undecided data of one direction classified, portion by portion.
    fn portions(
        &mut self,
        policy: &CompiledPolicy,
        flow: FlowHandle,
        direction: Direction,
        flags: StreamFlags,
        time: Timestamp,
        frame: u64,
    ) -> Decided {
        let mut decided = Decided { decision: Decision::Permit, verdict: permit() };
        let key = (flow, direction);
        loop {
            let Some(half) = self.halves.get_mut(&key) else { return decided };
            let held = core::mem::take(&mut half.held);
            let (missed, offset) = (half.missed, half.end - held.len() as u64);
            let data = StreamData { bytes: &held, offset, direction, flags, missed };
            let outcome =
                self.portion(policy, key, LayerData::Stream(data), &InjectionHistory::EMPTY, time, Some(frame));
            decided.verdict = outcome.verdict;
            let length = held.len();
            let more = match outcome.stream {
                StreamAction::NeedMoreData(more) => more,
                StreamAction::Defer => 0,
                StreamAction::DropConnection => {
                    self.held -= length;
                    return Decided { decision: Decision::Drop, verdict: outcome.verdict };
                }
                StreamAction::None | StreamAction::AllowConnection => {
                    let taken = if outcome.enforced == 0 { length } else { outcome.enforced.min(length) };
                    let portion = self.settle(policy, key, &held[..taken], &outcome, time, frame);
                    decided.decision = worse(decided.decision, portion);
                    self.held -= taken;
                    let Some(half) = self.halves.get_mut(&key) else { return decided };
                    (half.held, half.missed, half.needs) = (held[taken..].to_vec(), 0, 0);
                    if half.held.is_empty() || decided.decision == Decision::Drop {
                        return decided;
                    }
                    continue;
                }
            };
            if let Some(half) = self.halves.get_mut(&key) {
                (half.deferred, half.needs) = (outcome.stream == StreamAction::Defer, length.saturating_add(more));
                (half.held, half.limit) = (held, outcome.stream_limit);
            }
            return if length <= outcome.stream_limit && self.held <= ALL_STREAM_BYTES {
                decided
            } else {
                self.too_long()
            };
        }
    }

    /// What becomes of a portion that is decided.
    fn settle(
        &mut self,
        policy: &CompiledPolicy,
        key: (FlowHandle, Direction),
        bytes: &[u8],
        outcome: &LayerOutcome,
        time: Timestamp,
        frame: u64,
    ) -> Decision {
        if let Some((data, history)) = &outcome.replacement {
            self.inject_data(policy, key, data, history, time, Some(frame));
            return Decision::Permit;
        }
        match outcome.verdict.action {
            Action::Permit => {
                self.deliver(key, bytes);
                Decision::Permit
            }
            _ if outcome.absorbed => Decision::Absorb,
            _ => Decision::Block,
        }
    }

    fn deliver(&mut self, key: (FlowHandle, Direction), bytes: &[u8]) {
        if let Some(delivered) = &mut self.delivered
            && !bytes.is_empty()
        {
            delivered(key.0, key.1, bytes);
        }
    }

    fn portion(
        &self,
        policy: &CompiledPolicy,
        key: (FlowHandle, Direction),
        data: LayerData<'_>,
        history: &InjectionHistory,
        time: Timestamp,
        frame: Option<u64>,
    ) -> LayerOutcome {
        let half = self.halves.get(&key);
        let values = half.map_or_else(Values::new, |half| half.values.clone());
        let layer = half.map_or(LayerId::STREAM_V4, |half| half.layer);
        let metadata = Metadata { flow: Some(key.0), direction: Some(key.1), time, frame, ..Metadata::default() };
        let mut event = LayerEvent::new(layer, &values, &metadata, data);
        event.history = history;
        self.registry.classify(policy, &event)
    }

    /// Has injected data classified by every filter, and lets them go on where they are permitted. Nothing more can be asked for or put
    /// off: it is all there is.
    fn inject_data(
        &mut self,
        policy: &CompiledPolicy,
        key: (FlowHandle, Direction),
        data: &[u8],
        history: &InjectionHistory,
        time: Timestamp,
        frame: Option<u64>,
    ) {
        let mut next = Some((data.to_vec(), history.clone()));
        while let Some((bytes, history)) = next.take() {
            let offset = self.halves.get(&key).map_or(0, |half| half.end - half.held.len() as u64);
            let flags = StreamFlags::of(key.1);
            let shown = StreamData { bytes: &bytes, offset, direction: key.1, flags, missed: 0 };
            let outcome = self.portion(policy, key, LayerData::Stream(shown), &history, time, frame);
            match (outcome.stream, outcome.replacement, outcome.verdict.action) {
                (StreamAction::DropConnection, _, _) => self.abort(key.0),
                (StreamAction::NeedMoreData(_) | StreamAction::Defer, _, _) => {}
                (_, Some(again), _) => next = Some(again),
                (_, None, Action::Permit) => self.deliver(key, &bytes),
                (_, None, _) => {}
            }
        }
    }

    fn abort(&mut self, flow: FlowHandle) {
        self.aborted.extend(self.ids.get(&flow).copied());
    }

    /// The next packet for the replay: [`Classifier::next_injected`].
    pub fn next_injected(&mut self, policy: &CompiledPolicy) -> Option<Injected> {
        loop {
            if let Some((injected, history)) = self.queue.pop_front() {
                self.current = (injected.mark, history);
                return Some(injected);
            }
            let now = self.registry.inner.lock().now;
            for (flow, direction) in self.registry.take_continued() {
                if let Some(half) = self.halves.get_mut(&(flow, direction))
                    && core::mem::take(&mut half.deferred)
                {
                    half.needs = 0;
                    let flags = StreamFlags::of(direction);
                    if self.portions(policy, flow, direction, flags, now, 0).decision == Decision::Drop {
                        self.abort(flow);
                    }
                }
            }
            let Injection { point, data, interface, history } = self.registry.next_injection()?;
            if let InjectionPoint::Stream { flow, direction } = point {
                self.inject_data(policy, (flow, direction), &data, &history, now, None);
                continue;
            }
            let Some((layer, direction, loopback)) = entry(point, &data) else { continue };
            let frame = sees_frames(layer);
            self.marks += 1;
            let injected = Injected {
                layer,
                direction,
                link_type: if frame { LinkType::ETHERNET } else { LinkType::RAW },
                bytes: data,
                interface,
                loopback,
                reassembled: false,
                mark: self.marks,
            };
            self.queue.push_back((injected, history));
        }
    }

    /// The next flow that a callout wants ended: [`Classifier::next_aborted`].
    pub fn next_aborted(&mut self) -> Option<FlowId> {
        for flow in self.registry.take_aborted() {
            self.abort(flow);
        }
        self.aborted.pop_front()
    }

    /// Takes note of [`Classifier::flow_changed`].
    pub fn flow_changed(&mut self, event: &FlowEvent) {
        if let FlowChange::Deleted(_) = event.change {
            self.registry.set_now(event.time);
            self.flow_gone(event.flow);
        }
    }

    /// Takes note of [`Classifier::flow_gone`].
    pub fn flow_gone(&mut self, flow: FlowId) {
        let handle = FlowHandle::new(flow.get());
        if self.ids.remove(&handle).is_none() {
            return;
        }
        for direction in [Direction::Outbound, Direction::Inbound] {
            if let Some(half) = self.halves.remove(&(handle, direction)) {
                self.held -= half.held.len();
            }
        }
        self.registry.flow_ended(handle);
    }

    /// The capture is over: flows that nobody will hear of any more end.
    pub fn finish(&mut self) {
        self.halves.clear();
        self.ids.clear();
        self.held = 0;
        self.registry.all_flows_ended();
    }
}

/// A classifier for a replay: a policy with its callouts.
pub struct CalloutClassifier<'p> {
    policy: &'p CompiledPolicy,
    callouts: ReplayCallouts,
    passed: Option<Passed>,
}

/// Is told of packets that passed every layer on their way.
pub type Passed = Box<dyn FnMut(LinkType, &[u8], Direction)>;

impl<'p> CalloutClassifier<'p> {
    /// A policy with its callouts.
    #[must_use]
    pub const fn new(policy: &'p CompiledPolicy, callouts: ReplayCallouts) -> Self {
        Self { policy, callouts, passed: None }
    }

    /// The same, telling of packets that passed every layer on their way.
    #[must_use]
    pub fn on_passed(mut self, passed: Passed) -> Self {
        self.passed = Some(passed);
        self
    }

    /// The callouts.
    pub fn callouts(&mut self) -> &mut ReplayCallouts {
        &mut self.callouts
    }
}

impl Classifier for CalloutClassifier<'_> {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        self.callouts.decide(self.policy, step).decision
    }

    fn flow_changed(&mut self, event: &FlowEvent) {
        self.callouts.flow_changed(event);
    }

    fn flow_gone(&mut self, flow: FlowId) {
        self.callouts.flow_gone(flow);
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    fn stream_ended(&mut self, step: &Step<'_>) -> Decision {
        self.callouts.stream_ended(self.policy, step).decision
    }

    fn next_injected(&mut self) -> Option<Injected> {
        self.callouts.next_injected(self.policy)
    }

    fn next_aborted(&mut self) -> Option<FlowId> {
        self.callouts.next_aborted()
    }

    fn passed(&mut self, link_type: LinkType, bytes: &[u8], direction: Direction) {
        if let Some(passed) = &mut self.passed {
            passed(link_type, bytes, direction);
        }
    }
}

const fn permit() -> Verdict {
    Verdict { action: Action::Permit, soft: true, ..Verdict::closed(Reason::None) }
}

fn worse(a: Decision, b: Decision) -> Decision {
    let rank = |decision: Decision| match decision {
        Decision::Permit => 0,
        Decision::Absorb => 1,
        Decision::Block => 2,
        Decision::Drop => 3,
    };
    if rank(b) > rank(a) { b } else { a }
}

fn is_stream(layer: LayerId) -> bool {
    matches!(layer, LayerId::STREAM_V4 | LayerId::STREAM_V6)
}

/// Layers about flows rather than about a packet show none.
fn packet_data<'a>(step: &Step<'a>) -> LayerData<'a> {
    let about_flows = [
        LayerId::ALE_FLOW_ESTABLISHED_V4,
        LayerId::ALE_FLOW_ESTABLISHED_V6,
        LayerId::ALE_ENDPOINT_CLOSURE_V4,
        LayerId::ALE_ENDPOINT_CLOSURE_V6,
    ];
    let shown = &step.shown;
    if shown.bytes.is_empty() || about_flows.contains(&step.layer) {
        return LayerData::None;
    }
    LayerData::Packet(PacketData::new(shown.bytes, shown.transport, shown.payload))
}

fn metadata<'a>(step: &Step<'a>, data: &LayerData<'_>) -> Metadata<'a> {
    let size = |bytes: usize| u16::try_from(bytes).ok();
    let mut metadata = Metadata {
        flow: step.flow.map(|flow| FlowHandle::new(flow.get())),
        direction: Some(step.direction),
        time: step.time,
        frame: Some(step.packet),
        ..Metadata::default()
    };
    let flags = u32::try_from(step.values.get(words::FLAGS)).unwrap_or(0);
    metadata.ale_classify_required =
        ConditionFlags::from_bits_retain(flags).contains(ConditionFlags::REQUIRES_ALE_CLASSIFY);
    let interface = u32::try_from(step.values.get(words::INTERFACE_INDEX)).ok();
    match step.direction {
        Direction::Inbound => metadata.source_interface = interface,
        Direction::Outbound => metadata.destination_interface = interface,
    }
    let LayerData::Packet(packet) = data else { return metadata };
    if sees_frames(step.layer) {
        metadata.mac_header_size = size(packet.transport);
        return metadata;
    }
    metadata.ip_header_size = size(packet.transport);
    metadata.transport_header_size = size(packet.payload - packet.transport).filter(|&size| size > 0);
    if step.shown.link_type == LinkType::ETHERNET {
        metadata.mac_header_size = size(step.shown.link_header.len());
    }
    let bytes = packet.bytes;
    metadata.ttl = match bytes.first().map(|first| first >> 4) {
        Some(4) => bytes.get(8).copied(),
        _ => bytes.get(7).copied(),
    };
    if let Ok(Frame::Ip(parsed)) = Packet::parse(LinkType::RAW, bytes) {
        metadata.fragment = parsed.fragment.map(|fragment| FragmentData {
            identification: fragment.identification,
            offset: fragment.at,
            more: fragment.more,
        });
        let transport = packet.transport();
        if matches!(parsed.protocol, protocol::ICMP | protocol::ICMPV6) && transport.len() >= 8 {
            let is_echo =
                matches!((parsed.protocol, transport[0]), (protocol::ICMP, 0 | 8) | (protocol::ICMPV6, 128 | 129));
            let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
            metadata.icmp_echo = is_echo.then(|| (word(4), word(6)));
        }
    }
    metadata
}

/// The layer and direction where something begins its way, and whether it comes back by itself.
fn entry(point: InjectionPoint, bytes: &[u8]) -> Option<(LayerId, Direction, bool)> {
    match point {
        InjectionPoint::MacSend => {
            return Some((LayerId::OUTBOUND_MAC_FRAME_ETHERNET, Direction::Outbound, false));
        }
        InjectionPoint::MacReceive => {
            return Some((LayerId::INBOUND_MAC_FRAME_ETHERNET, Direction::Inbound, false));
        }
        _ => {}
    }
    let Ok(Frame::Ip(packet)) = Packet::parse(LinkType::RAW, bytes) else { return None };
    let of = |v4: LayerId, v6: LayerId| if packet.version() == IpVersion::V4 { v4 } else { v6 };
    let loopback = match packet.destination {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback(),
    };
    Some(match point {
        InjectionPoint::TransportSend if packet.protocol == protocol::TCP => {
            let layer = of(LayerId::OUTBOUND_TRANSPORT_V4, LayerId::OUTBOUND_TRANSPORT_V6);
            (layer, Direction::Outbound, loopback)
        }
        InjectionPoint::TransportSend => {
            let is_error = packet.transport.is_ok_and(
                |transport| matches!(transport, openwfp_packet::packet::Transport::Icmp(message) if message.is_error),
            );
            let layer = match is_error {
                true => of(LayerId::OUTBOUND_ICMP_ERROR_V4, LayerId::OUTBOUND_ICMP_ERROR_V6),
                false => of(LayerId::DATAGRAM_DATA_V4, LayerId::DATAGRAM_DATA_V6),
            };
            (layer, Direction::Outbound, loopback)
        }
        InjectionPoint::TransportReceive => {
            (of(LayerId::INBOUND_TRANSPORT_V4, LayerId::INBOUND_TRANSPORT_V6), Direction::Inbound, false)
        }
        InjectionPoint::NetworkSend => {
            (of(LayerId::OUTBOUND_IPPACKET_V4, LayerId::OUTBOUND_IPPACKET_V6), Direction::Outbound, loopback)
        }
        InjectionPoint::NetworkReceive => {
            (of(LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_IPPACKET_V6), Direction::Inbound, false)
        }
        InjectionPoint::Forward => (of(LayerId::IPFORWARD_V4, LayerId::IPFORWARD_V6), Direction::Outbound, false),
        InjectionPoint::MacSend | InjectionPoint::MacReceive | InjectionPoint::Stream { .. } => return None,
    })
}
