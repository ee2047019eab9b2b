//! Callouts in replay: the same callouts, asked about captures, deterministically.
//!
//! [`ReplayCallouts`] stands between a [`Replay`](openwfp_packet::replay::Replay) and a [`Registry`]: it turns the questions of the one
//! into classifications of the other, holds streams until callouts have decided, and hands in what they inject. Time is that of
//! the capture. An operation that is pended is waited for: no packet of the capture comes before its answer.

mod classifier;
mod shown;
mod streams;

use std::collections::{HashMap, VecDeque};

use openwfp_engine::{Action, CompiledPolicy, Verdict};
use openwfp_model::LayerId;
use openwfp_packet::flow::{Direction, FlowChange, FlowEvent, FlowId};
use openwfp_packet::link::LinkType;
use openwfp_packet::replay::{Decision, Injected, Step};

pub use classifier::{CalloutClassifier, Passed};

use crate::dispatch::{is_discard, sees_frames};
use crate::{FlowHandle, Injection, InjectionHistory, InjectionPoint, LayerEvent, LayerOutcome, Registry, StreamFlags};
use shown::{entry, metadata, packet_data};
use streams::Half;

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

    /// Answers a question of a replay: `Classifier::classify` and `Classifier::discarded`.
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

    fn abort(&mut self, flow: FlowHandle) {
        self.aborted.extend(self.ids.get(&flow).copied());
    }

    /// The next packet for the replay: `Classifier::next_injected`.
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

    /// The next flow that a callout wants ended: `Classifier::next_aborted`.
    pub fn next_aborted(&mut self) -> Option<FlowId> {
        for flow in self.registry.take_aborted() {
            self.abort(flow);
        }
        self.aborted.pop_front()
    }

    /// Takes note of `Classifier::flow_changed`.
    pub fn flow_changed(&mut self, event: &FlowEvent) {
        if let FlowChange::Deleted(_) = event.change {
            self.registry.set_now(event.time);
            self.flow_gone(event.flow);
        }
    }

    /// Takes note of `Classifier::flow_gone`.
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

fn is_stream(layer: LayerId) -> bool {
    matches!(layer, LayerId::STREAM_V4 | LayerId::STREAM_V6)
}
