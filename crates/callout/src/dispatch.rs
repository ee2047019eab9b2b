//! Classification with callouts: the engine's walk, and the calls in it.

use std::sync::Arc;
use std::time::Instant;

use openwfp_engine::{Cell, CompiledPolicy, MAX_STEPS, Reason, Silent, State, Step, Values, Verdict, step};
use openwfp_model::{Action, ConditionFlags, FieldId, Guid, LayerId, Value};

use crate::context::Lent;
use crate::registry::{Entry, guarded};
use crate::services::EventPender;
use crate::{
    ActionSoFar, Answer, Classification, ClassifyOut, Filter, FlowContext, IncomingValues, InjectionHistory, LayerData,
    Metadata, Pender, Question, RedirectRecord, RedirectRequest, Registry, Report, StreamAction,
};

/// An event to be classified with callouts. For hosts.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LayerEvent<'a> {
    /// The layer.
    pub layer: LayerId,
    /// The values, in the numbers of the policy.
    pub values: &'a Values,
    /// Those that are no numbers.
    pub named: &'a [(FieldId, Value)],
    /// What is known beside that.
    pub metadata: &'a Metadata<'a>,
    /// The bytes.
    pub data: LayerData<'a>,
    /// Who injected it so far.
    pub history: &'a InjectionHistory,
    /// Who redirected it so far.
    pub redirected: &'a RedirectRecord,
    /// The bind or connect that can be rewritten.
    pub redirect: Option<&'a RedirectRequest>,
    /// Whether there is something that can wait.
    pub pendable: bool,
}

impl<'a> LayerEvent<'a> {
    /// An event that was never injected or redirected, can be pended where [`can_pend`] says so, and has no redirection.
    #[must_use]
    pub fn new(layer: LayerId, values: &'a Values, metadata: &'a Metadata<'a>, data: LayerData<'a>) -> Self {
        const NEVER: &InjectionHistory = &InjectionHistory::EMPTY;
        const NOBODY: &RedirectRecord = &RedirectRecord::NONE;
        let pendable = can_pend(layer);
        let (history, redirected) = (NEVER, NOBODY);
        Self { layer, values, named: &[], metadata, data, history, redirected, redirect: None, pendable }
    }
}

/// Whether a layer's events can be pended at all. Not at FLOW_ESTABLISHED, closures, releases and STREAM (which defers), and not what
/// was discarded.
#[must_use]
pub fn can_pend(layer: LayerId) -> bool {
    let name = layer.name();
    let family = name.trim_end_matches("_V4").trim_end_matches("_V6");
    matches!(
        family,
        "ALE_RESOURCE_ASSIGNMENT"
            | "ALE_AUTH_LISTEN"
            | "ALE_AUTH_CONNECT"
            | "ALE_AUTH_RECV_ACCEPT"
            | "ALE_BIND_REDIRECT"
            | "ALE_CONNECT_REDIRECT"
            | "INBOUND_TRANSPORT"
            | "OUTBOUND_TRANSPORT"
            | "INBOUND_IPPACKET"
            | "OUTBOUND_IPPACKET"
            | "IPFORWARD"
            | "DATAGRAM_DATA"
            | "INBOUND_ICMP_ERROR"
            | "OUTBOUND_ICMP_ERROR"
            | "STREAM_PACKET"
            | "INBOUND_MAC_FRAME_ETHERNET"
            | "OUTBOUND_MAC_FRAME_ETHERNET"
    )
}

/// Whether a layer sees frames rather than IP packets.
pub(crate) fn sees_frames(layer: LayerId) -> bool {
    matches!(layer, LayerId::INBOUND_MAC_FRAME_ETHERNET | LayerId::OUTBOUND_MAC_FRAME_ETHERNET)
}

pub(crate) fn is_discard(layer: LayerId) -> bool {
    layer.name().ends_with("_DISCARD")
}

/// What a classification with callouts comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerOutcome {
    /// What the engine says.
    pub verdict: Verdict,
    /// It was absorbed: a block that nobody hears of.
    pub absorbed: bool,
    /// What goes on in the place of a packet that was absorbed, from the same layer on, and its history.
    pub packet: Option<(Vec<u8>, InjectionHistory)>,
    /// What becomes of a stream. With [`StreamAction::NeedMoreData`] and [`StreamAction::Defer`] the verdict does not count: nothing is
    /// decided yet.
    pub stream: StreamAction,
    /// How many bytes may wait, where more data are needed or deferred: the limit of the callout that says so.
    pub stream_limit: usize,
    /// To how many bytes of a stream it applies; 0: to all.
    pub enforced: usize,
    /// What takes their place, and its history.
    pub replacement: Option<(Vec<u8>, InjectionHistory)>,
    /// How the bind or connect is to be carried out, where it was rewritten and permitted, and who did so.
    pub redirect: Option<(RedirectRequest, u32)>,
}

enum Asked {
    Answer(Answer, u32),
    /// The number of the operation.
    Pended(u64),
    Nobody,
}

/// What a callout says when it is asked for one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// An answer.
    Now(Answer),
    /// The operation of this number is pended: [`Registry::next_answer`] will have its answer.
    Later(u64),
}

impl Registry {
    /// Classifies an event at its layer by a policy, asking callouts where its filters name them.
    ///
    /// Filters whose callouts are not registered here do what the platform says for such, however the policy was compiled;
    /// but what was compiled without a callout does not ask it.
    #[must_use]
    pub fn classify(&self, policy: &CompiledPolicy, event: &LayerEvent<'_>) -> LayerOutcome {
        let image = policy.image();
        let mut state = State::default();
        let mut outcome = LayerOutcome {
            verdict: Verdict::closed(Reason::None),
            absorbed: false,
            packet: None,
            stream: StreamAction::None,
            stream_limit: 0,
            enforced: 0,
            replacement: None,
            redirect: None,
        };
        let mut request = event.redirect.cloned();
        let mut steps = 0;
        let mut next = state.begin(image, event.layer.get());
        loop {
            next = match next {
                Step::Done => break,
                _ if steps == MAX_STEPS => state.close(Reason::Bound),
                Step::Again => {
                    steps += 1;
                    step(image, event.values, &mut state, &mut Silent)
                }
                Step::Callout => {
                    let Some(cell) = state.callout(image).copied() else {
                        next = state.close(Reason::LookupFailed);
                        continue;
                    };
                    let so_far = (ActionSoFar::from(&state.arbitration), !state.arbitration.is_hard());
                    match self.ask(policy, &cell, event, so_far, request.as_ref()) {
                        // for nobody who waits is it said to be pended
                        Asked::Nobody | Asked::Pended(_) => state.resume_unregistered(&cell, &mut Silent),
                        Asked::Answer(answer, by) => {
                            if matches!(answer.stream, StreamAction::NeedMoreData(_) | StreamAction::Defer) {
                                outcome.stream = answer.stream;
                                outcome.stream_limit =
                                    self.inner.lock().limits(by).map_or(0, |limits| limits.stream_bytes);
                                break;
                            }
                            let arbitrated = answer.arbitrated();
                            self.take(&mut outcome, &mut request, answer, by, event);
                            state.resume(&cell, arbitrated, &mut Silent)
                        }
                    }
                }
            }
        }
        outcome.verdict = state.arbitration.verdict(steps);
        if outcome.verdict.action != openwfp_engine::Action::Permit {
            outcome.redirect = None;
        }
        outcome
    }

    /// Notes what an answer says beside the action.
    fn take(
        &self,
        outcome: &mut LayerOutcome,
        request: &mut Option<RedirectRequest>,
        answer: Answer,
        by: u32,
        event: &LayerEvent<'_>,
    ) {
        outcome.absorbed |= answer.absorb;
        if let Some(packet) = answer.packet {
            outcome.packet = self.injected_again(event.history, by).map(|history| (packet, history));
        }
        if let Some(data) = answer.replacement {
            outcome.replacement = self.injected_again(event.history, by).map(|history| (data, history));
        }
        if answer.stream == StreamAction::DropConnection {
            outcome.stream = StreamAction::DropConnection;
        }
        if answer.enforced > 0 && (outcome.enforced == 0 || answer.enforced < outcome.enforced) {
            outcome.enforced = answer.enforced;
        }
        if let Some(redirect) = answer.redirect {
            *request = Some(redirect.clone());
            outcome.redirect = Some((redirect, by));
        }
    }

    /// The history of what takes the place of something; none where that has been done too often.
    fn injected_again(&self, history: &InjectionHistory, by: u32) -> Option<InjectionHistory> {
        let mut state = self.inner.lock();
        let most = state.limits(by).map_or(0, |limits| limits.generations);
        if history.generations() >= most {
            state.counts.injected_too_often += 1;
            return None;
        }
        Some(history.clone().injected_by(by))
    }

    fn ask(
        &self,
        policy: &CompiledPolicy,
        cell: &Cell,
        event: &LayerEvent<'_>,
        so_far: (ActionSoFar, bool),
        request: Option<&RedirectRequest>,
    ) -> Asked {
        let Some(key) = callout_of(policy, cell.filter_id()) else { return Asked::Nobody };
        self.ask_callout(key, cell.filter_id(), event, so_far, request, true)
    }

    /// Asks the callout that a filter names about an event, and nobody else: where the policy is walked elsewhere, and this is what
    /// stands so far, with or without the right to write the action. None: nobody answers for the callout. What is pended is waited
    /// for, but in a [registry for a host](Self::for_host).
    #[must_use]
    pub fn ask_filter(&self, filter: u64, event: &LayerEvent<'_>, so_far: ActionSoFar, right: bool) -> Option<Said> {
        let key = self.inner.lock().filter(filter).map(|(key, _)| *key)?;
        let waits = self.inner.deferred.is_none();
        match self.ask_callout(key, filter, event, (so_far, right), event.redirect, waits) {
            Asked::Answer(answer, _) => Some(Said::Now(answer)),
            Asked::Pended(operation) => Some(Said::Later(operation)),
            Asked::Nobody => None,
        }
    }

    fn ask_callout(
        &self,
        key: Guid,
        id: u64,
        event: &LayerEvent<'_>,
        so_far: (ActionSoFar, bool),
        request: Option<&RedirectRequest>,
        waits: bool,
    ) -> Asked {
        let flow = event.metadata.flow;
        let (entry, filter, context) = {
            let mut state = self.inner.lock();
            loop {
                let Some(entry) = state.entry(key).cloned() else { return Asked::Nobody };
                let Some((_, filter)) = state.filter(id).cloned() else { return Asked::Nobody };
                if matches!(event.data, LayerData::Stream(_))
                    && flow.is_some_and(|flow| state.allowed.contains(&(flow, entry.number)))
                {
                    return Asked::Answer(allowed(&filter), entry.number);
                }
                let lent = flow.map_or(Lent::None, |flow| state.contexts.lend(&(flow, event.layer, entry.number)));
                match lent {
                    Lent::Busy => state = self.inner.wait(state),
                    Lent::None if entry.registration.conditional_on_flow => {
                        return Asked::Answer(Answer::continue_(), entry.number);
                    }
                    Lent::None => break (entry, filter, None),
                    Lent::Context(context) => break (entry, filter, Some(context)),
                }
            }
        };
        self.call(event, so_far, request, (&entry, &filter), context, waits)
    }

    fn call(
        &self,
        event: &LayerEvent<'_>,
        (so_far, right): (ActionSoFar, bool),
        request: Option<&RedirectRequest>,
        (entry, filter): (&Entry, &Arc<Filter>),
        mut context: Option<FlowContext>,
        waits: bool,
    ) -> Asked {
        {
            let mut state = self.inner.lock();
            state.counts.classified += 1;
            state.at = Some((event.metadata.flow, event.metadata.frame));
        }
        let values = IncomingValues::new(event.layer, event.values, event.named);
        let pendable = event.pendable
            && !values.flags().contains(ConditionFlags::IS_REAUTHORIZE)
            && !event.metadata.ale_classify_required;
        let pender = EventPender { inner: self.inner.clone(), callout: entry.number };
        let pender: Option<Arc<dyn Pender>> = if pendable { Some(Arc::new(pender)) } else { None };
        let mut out =
            ClassifyOut::new(filter, so_far, right, &event.data).with_pender(pender).with_redirect(request.cloned());
        let called = guarded(|| {
            let mut classification =
                Classification::new(values, event.metadata, event.data, filter, entry.number, &entry.platform)
                    .with_context(context.as_mut());
            (classification.history, classification.redirected) = (event.history, event.redirected);
            entry.callout.classify(&mut classification, &mut out);
        });
        if let (Some(context), Some(flow)) = (context, event.metadata.flow) {
            let key = (flow, event.layer, entry.number);
            let back = self.inner.lock().contexts.give_back(&key, context);
            self.inner.changed.notify_all();
            if let Some(context) = back {
                self.inner.flow_delete(key, context);
            }
        }
        let (answer, pended) = out.into_answer();
        if let Err(panic) = called {
            if let Some(operation) = pended {
                self.inner.lock().pended.remove(&operation);
            }
            self.inner.panicked(entry.number, &panic);
            return Asked::Nobody;
        }
        let answer = match pended {
            None => answer,
            Some(operation) if !waits => return Asked::Pended(operation),
            Some(operation) => self.await_answer(entry, operation),
        };
        let question = Question {
            kind: filter.kind,
            right,
            data: event.data,
            frame: sees_frames(event.layer),
            discard: is_discard(event.layer),
            redirect: request,
        };
        let (answer, nonsense) = answer.settle(&question);
        let mut state = self.inner.lock();
        if let Some(nonsense) = nonsense {
            state.counts.nonsense += 1;
            let text = openwfp_model::Data::Text(format!("{nonsense:?}"));
            state.report(entry.number, Report::entries([("nonsense", text)]));
        }
        if let (StreamAction::AllowConnection, Some(flow)) = (answer.stream, event.metadata.flow) {
            state.allowed.insert((flow, entry.number));
        }
        Asked::Answer(answer, entry.number)
    }

    /// Waits for the answer to an operation. This process holds nothing else up: whoever classifies waits.
    fn await_answer(&self, entry: &Entry, operation: u64) -> Answer {
        let time = entry.registration.pend_timeout.min(self.inner.longest_wait);
        let begun = Instant::now();
        let mut state = self.inner.lock();
        loop {
            let answered = state.pended.get(&operation).is_none_or(|pended| pended.answer.is_some());
            let left = time.saturating_sub(begun.elapsed());
            if answered || left.is_zero() {
                break;
            }
            state = self.inner.wait_for(state, left);
        }
        state.take_answer(operation)
    }
}

/// What a callout says to data of a connection of which it wants to see nothing more.
fn allowed(filter: &Filter) -> Answer {
    match filter.kind {
        openwfp_model::CalloutKind::Inspection => Answer::continue_(),
        _ => Answer::permit(),
    }
}

fn callout_of(policy: &CompiledPolicy, filter: u64) -> Option<Guid> {
    match policy.filter(filter)?.filter.action {
        Action::Callout { callout, .. } => Some(callout),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openwfp_model::Layer;

    #[test]
    fn layers_that_can_pend_have_something_to_hold() {
        let pending: Vec<&str> =
            Layer::all().iter().filter(|layer| can_pend(layer.id)).map(|layer| layer.id.name()).collect();
        assert_eq!(pending.len(), 15 * 2 + 2, "{pending:?}");
        assert!(!pending.iter().any(|name| name.ends_with("_DISCARD")));
        for never in ["STREAM_V4", "ALE_FLOW_ESTABLISHED_V6", "ALE_ENDPOINT_CLOSURE_V4", "ALE_RESOURCE_RELEASE_V4"] {
            assert!(!pending.contains(&never), "{never}");
        }
    }
}
