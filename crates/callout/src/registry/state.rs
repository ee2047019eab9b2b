//! What the registry holds, and how callouts are called and given up.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use openwfp_model::{Data, Guid, LayerId};
use openwfp_packet::flow::Direction;
use openwfp_packet::time::Timestamp;

use super::told::{CalloutReport, Counts};
use crate::context::{ContextKey, Contexts, Removed};
use crate::{Answer, Callout, Filter, FlowContext, FlowHandle, Injection, Limits, Platform, Registration, Report};

pub(crate) struct Inner {
    pub(super) state: Mutex<State>,
    /// A context came back, or an operation was answered.
    pub(crate) changed: Condvar,
    /// No operation is waited for longer, whatever its callout says.
    pub(crate) longest_wait: Duration,
    /// In a host: nobody waits for operations, nor carries injections out.
    pub(crate) deferred: Option<Deferred>,
}

/// What becomes of operations in a host.
pub(crate) struct Deferred {
    /// How many a callout may pend.
    pub(crate) most_pended: usize,
    /// Told when one is answered.
    pub(crate) answered: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(super) callouts: Vec<Entry>,
    /// The number of the callout that was registered last.
    pub(super) last_number: u32,
    pub(super) filters: BTreeMap<u64, (Guid, Arc<Filter>)>,
    pub(crate) contexts: Contexts,
    /// Flows that exist.
    pub(crate) flows: HashSet<FlowHandle>,
    /// Connections of which a callout wants to see nothing more.
    pub(crate) allowed: HashSet<(FlowHandle, u32)>,
    pub(crate) injections: VecDeque<Waiting>,
    /// What each callout has in `injections`.
    pub(crate) waiting: HashMap<u32, WaitingCount>,
    pub(crate) pended: BTreeMap<u64, Pended>,
    /// Those that are answered, where nobody waits for them.
    pub(crate) answered: VecDeque<u64>,
    last_operation: u64,
    pub(crate) reauthorize: Vec<LayerId>,
    pub(crate) continued: Vec<(FlowHandle, Direction)>,
    pub(crate) aborted: Vec<FlowHandle>,
    pub(super) reports: VecDeque<CalloutReport>,
    pub(crate) counts: Counts,
    pub(crate) now: Timestamp,
    /// The flow and the filter of the classification at hand, for reports.
    pub(crate) at: Option<(Option<FlowHandle>, Option<u64>)>,
}

pub(crate) struct Waiting {
    pub(crate) callout: u32,
    pub(crate) injection: Injection,
}

#[derive(Default)]
pub(crate) struct WaitingCount {
    pub(crate) injections: usize,
    pub(crate) bytes: usize,
}

pub(crate) struct Pended {
    pub(crate) callout: u32,
    /// How long it is waited for.
    pub(super) until: Option<Instant>,
    /// The answer, as soon as it is there: none where the callout let go of the operation.
    pub(crate) answer: Option<Option<Answer>>,
}

/// A registered callout.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) number: u32,
    pub(crate) registration: Arc<Registration>,
    pub(crate) callout: Arc<dyn Callout>,
    pub(crate) platform: Platform,
    /// It has panicked: nobody answers for it any more.
    pub(super) failed: bool,
}

impl Inner {
    /// A panic of a callout happens outside the lock, so what it holds is in order.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_for<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Hands a context back to its callout.
    pub(crate) fn flow_delete(&self, key: ContextKey, context: FlowContext) {
        let entry = {
            let mut state = self.lock();
            state.at = Some((Some(key.0), None));
            state.by_number(key.2).cloned()
        };
        let result = match entry {
            Some(entry) => guarded(|| entry.callout.flow_delete(key.1, key.0, context)),
            // It dies with its host.
            None => guarded(|| drop(context)),
        };
        if let Err(panic) = result {
            self.panicked(key.2, &panic);
        }
    }

    pub(super) fn remove_contexts(&self, wanted: impl Fn(&ContextKey) -> bool) {
        let removed: Vec<(ContextKey, FlowContext)> = {
            let mut state = self.lock();
            let keys = state.contexts.keys(wanted);
            let remove = |key: ContextKey| match state.contexts.remove(&key) {
                Ok(Removed::Now(context)) => Some((key, context)),
                Ok(Removed::Later) | Err(_) => None,
            };
            keys.into_iter().filter_map(remove).collect()
        };
        for (key, context) in removed {
            self.flow_delete(key, context);
        }
    }

    /// A callout has panicked: it counts as unregistered, and an event says so.
    pub(crate) fn panicked(&self, number: u32, message: &str) {
        let mut state = self.lock();
        state.counts.panics += 1;
        state.report(number, Report::entries([("failed", Data::Text(format!("panicked: {message}")))]));
        drop(state);
        self.fail(number);
    }

    /// Nobody answers for a callout any more; what it has dies.
    pub(super) fn fail(&self, number: u32) {
        let contexts: Vec<FlowContext> = {
            let mut state = self.lock();
            state.set_failed(number);
            let keys = state.contexts.keys(|key| key.2 == number);
            let remove = |key: ContextKey| match state.contexts.remove(&key) {
                Ok(Removed::Now(context)) => Some(context),
                Ok(Removed::Later) | Err(_) => None,
            };
            keys.into_iter().filter_map(remove).collect()
        };
        for context in contexts {
            // What a broken callout left may be broken too.
            let _ = guarded(|| drop(context));
        }
        self.changed.notify_all();
    }
}

impl State {
    pub(crate) fn entry(&self, key: Guid) -> Option<&Entry> {
        self.callouts.iter().find(|entry| entry.is(key))
    }

    fn by_number(&self, number: u32) -> Option<&Entry> {
        self.callouts.iter().find(|entry| entry.number == number && !entry.failed)
    }

    pub(crate) fn limits(&self, number: u32) -> Option<Limits> {
        self.by_number(number).map(|entry| entry.registration.limits)
    }

    pub(super) fn set_failed(&mut self, number: u32) {
        for entry in self.callouts.iter_mut().filter(|entry| entry.number == number) {
            entry.failed = true;
        }
        for pended in self.pended.values_mut().filter(|pended| pended.callout == number) {
            pended.answer.get_or_insert(None);
        }
        self.injections.retain(|waiting| waiting.callout != number);
        self.waiting.remove(&number);
    }

    pub(super) fn filters_of(&self, callout: Guid) -> Vec<Arc<Filter>> {
        self.filters.values().filter(|(key, _)| *key == callout).map(|(_, filter)| filter.clone()).collect()
    }

    pub(crate) fn filter(&self, id: u64) -> Option<&(Guid, Arc<Filter>)> {
        self.filters.get(&id)
    }

    pub(crate) fn pend(&mut self, callout: u32) -> u64 {
        let time = self.by_number(callout).map(|entry| entry.registration.pend_timeout).unwrap_or_default();
        let until = Instant::now().checked_add(time);
        self.last_operation += 1;
        self.pended.insert(self.last_operation, Pended { callout, until, answer: None });
        self.last_operation
    }

    /// What became of an operation, which is pended no longer. Without an answer it is blocked.
    pub(crate) fn take_answer(&mut self, operation: u64) -> Answer {
        let answer = self.pended.remove(&operation).and_then(|pended| pended.answer).flatten();
        self.counts.unanswered += u64::from(answer.is_none());
        answer.unwrap_or_else(Answer::closed)
    }

    pub(crate) fn report(&mut self, number: u32, report: Report) {
        let Some(entry) = self.callouts.iter().find(|entry| entry.number == number) else { return };
        if self.reports.len() >= entry.registration.limits.reports {
            self.counts.reports_lost += 1;
            return;
        }
        let (flow, frame) = self.at.unwrap_or_default();
        let (callout, name) = (entry.registration.key, entry.registration.name.clone());
        self.reports.push_back(CalloutReport { callout, name, flow, frame, time: self.now, report });
    }
}

impl Entry {
    pub(super) fn is(&self, key: Guid) -> bool {
        !self.failed && self.registration.key == key
    }
}

/// Calls into a callout. An error is what its panic said.
pub(crate) fn guarded<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "no message".to_owned(), |text| (*text).to_owned()),
    })
}
