//! Streams in a replay: data that wait until callouts have decided about them.

use openwfp_engine::{Action, CompiledPolicy, Reason, Values, Verdict};
use openwfp_model::LayerId;
use openwfp_packet::flow::Direction;
use openwfp_packet::replay::{Decision, Step};
use openwfp_packet::time::Timestamp;
use openwfp_packet::wire::TcpFlags;

use super::{Decided, ReplayCallouts};
use crate::{
    FlowHandle, InjectionHistory, LayerData, LayerEvent, LayerOutcome, Metadata, StreamAction, StreamData, StreamFlags,
};

/// So many bytes wait for callouts in all streams together.
const ALL_STREAM_BYTES: usize = 64 << 20;

/// One direction of a connection.
pub(super) struct Half {
    layer: LayerId,
    values: Values,
    /// The sequence number of the first byte.
    base: u32,
    /// The place after the last byte that came.
    end: u64,
    /// What is undecided; it ends at `end`.
    pub(super) held: Vec<u8>,
    /// Callouts want at least so many.
    pub(super) needs: usize,
    pub(super) deferred: bool,
    missed: u64,
    /// How many bytes may wait for the callout that they wait for.
    limit: usize,
}

impl ReplayCallouts {
    pub(super) fn stream_data(&mut self, policy: &CompiledPolicy, step: &Step<'_>) -> Decided {
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

    /// Answers `Classifier::stream_ended`: what is undecided is shown once more, as the last.
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
    pub(super) fn portions(
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
    pub(super) fn inject_data(
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
