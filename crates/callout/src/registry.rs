//! The registry: callouts that run in this process, their filters, and what they have under way.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openwfp_model::{Data, Guid, LayerId};
use openwfp_packet::flow::Direction;
use openwfp_packet::time::Timestamp;

use crate::context::{ContextKey, Contexts, Removed};
use crate::services::CalloutServices;
use crate::{Answer, Callout, Filter, FlowContext, FlowHandle, Injection, Limits, Notification, Platform, Refused};
use crate::{Registration, Report};

/// Registered callouts. Clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    state: Mutex<State>,
    /// A context came back, or an operation was answered.
    pub(crate) changed: Condvar,
    /// No operation is waited for longer, whatever its callout says.
    pub(crate) longest_wait: Duration,
}

#[derive(Default)]
pub(crate) struct State {
    callouts: Vec<Entry>,
    filters: BTreeMap<u64, (Guid, Arc<Filter>)>,
    pub(crate) contexts: Contexts,
    /// Flows that exist.
    pub(crate) flows: HashSet<FlowHandle>,
    /// Connections of which a callout wants to see nothing more.
    pub(crate) allowed: HashSet<(FlowHandle, u32)>,
    pub(crate) injections: VecDeque<Waiting>,
    /// What each callout has in `injections`.
    pub(crate) waiting: HashMap<u32, WaitingCount>,
    pub(crate) pended: HashMap<u64, Pended>,
    last_operation: u64,
    pub(crate) reauthorize: Vec<LayerId>,
    pub(crate) continued: Vec<(FlowHandle, Direction)>,
    pub(crate) aborted: Vec<FlowHandle>,
    reports: VecDeque<CalloutReport>,
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
    failed: bool,
}

/// A report, and who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CalloutReport {
    /// The key of the callout.
    pub callout: Guid,
    /// Its name.
    pub name: String,
    /// The flow that it was asked about when it reported.
    pub flow: Option<FlowHandle>,
    /// The frame of a capture.
    pub frame: Option<u64>,
    /// When.
    pub time: Timestamp,
    /// What it said.
    pub report: Report,
}

/// What went wrong, or was refused, since the registry was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Classifications by callouts.
    pub classified: u64,
    /// Panics.
    pub panics: u64,
    /// Answers with something wrong in them.
    pub nonsense: u64,
    /// Injections that were refused.
    pub injections_refused: u64,
    /// Packets that were given up because callouts went on changing them.
    pub injected_too_often: u64,
    /// Pended operations that nobody answered in time, or that were let go of.
    pub unanswered: u64,
    /// Answers to operations that did not wait for any.
    pub late_answers: u64,
    /// Reports that had no room.
    pub reports_lost: u64,
    /// Connections that were ended because a callout wanted more data than may wait.
    pub streams_too_long: u64,
}

/// Why a callout is not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// A callout with that key is registered (`FWP_E_ALREADY_EXISTS`).
    #[error("a callout with the key {0} is registered already")]
    Exists(Guid),
    /// It refuses a filter that names it.
    #[error("it refuses the filter `{filter}`: {why}")]
    Refused {
        /// The name of the filter.
        filter: String,
        /// What it said.
        why: Refused,
    },
    /// It panicked while it was being registered.
    #[error("it panicked: {0}")]
    Panicked(String),
}

/// Why a callout is not unregistered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnregisterError {
    /// No callout with that key is registered.
    #[error("no such callout is registered")]
    NotRegistered,
    /// It has contexts at flows, or pended operations (`STATUS_DEVICE_BUSY`). They have to go first.
    #[error("the callout is busy: it has {contexts} flow contexts and {pended} pended operations")]
    Busy {
        /// Contexts.
        contexts: usize,
        /// Pended operations.
        pended: usize,
    },
}

/// Why a filter is not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddFilterError {
    /// There is one with this id.
    #[error("there is a filter with the id {0}")]
    Exists(u64),
    /// The callout cannot be asked at the layer of the filter (`FWP_E_INCOMPATIBLE_LAYER`).
    #[error("the callout `{callout}` cannot be asked at {layer}")]
    Layer {
        /// The name of the callout.
        callout: String,
        /// The layer.
        layer: LayerId,
    },
    /// The callout refuses it.
    #[error("the callout `{callout}` refuses it: {why}")]
    Refused {
        /// The name of the callout.
        callout: String,
        /// What it said.
        why: Refused,
    },
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry without callouts.
    #[must_use]
    pub fn new() -> Self {
        Self::waiting_at_most(Duration::MAX)
    }

    /// The same, which waits for pended operations no longer than that, whatever their callouts say.
    #[must_use]
    pub fn waiting_at_most(longest_wait: Duration) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { inner: Arc::new(Inner { state, changed, longest_wait }) }
    }

    /// Registers a callout under its own key (`FwpsCalloutRegister`). It learns the filters that name it. Returns its number, which no
    /// other callout of the registry ever has.
    ///
    /// # Errors
    /// Why it is not registered.
    pub fn register(&self, callout: Arc<dyn Callout>) -> Result<u32, RegisterError> {
        self.register_as(None, callout)
    }

    /// Registers a callout under another key than its own: the one of the policy's callout that uses it.
    ///
    /// # Errors
    /// Why it is not registered.
    pub fn register_as(&self, key: Option<(Guid, &str)>, callout: Arc<dyn Callout>) -> Result<u32, RegisterError> {
        let registration = guarded(|| callout.registration()).map_err(RegisterError::Panicked)?;
        let registration = match key {
            Some((key, name)) => Registration { key, name: name.to_owned(), ..registration },
            None => registration,
        };
        let key = registration.key;
        let (entry, filters) = {
            let mut state = self.inner.lock();
            // A number is never used twice, so that histories stay true.
            let number = state.callouts.last().map_or(1, |last| last.number + 1);
            if state.callouts.iter().any(|entry| entry.is(key)) {
                return Err(RegisterError::Exists(key));
            }
            let services = CalloutServices { inner: Arc::downgrade(&self.inner), callout: number };
            let (registration, platform) = (Arc::new(registration), Platform::new(Arc::new(services)));
            let entry = Entry { number, registration, callout: callout.clone(), platform, failed: false };
            state.callouts.push(entry.clone());
            (entry, state.filters_of(key))
        };
        let told = guarded(|| {
            callout.registered(&entry.platform);
            filters.iter().try_for_each(|filter| {
                let refused = |why| RegisterError::Refused { filter: filter.name.clone(), why };
                let layers = &entry.registration.layers;
                if !layers.is_empty() && !layers.contains(&filter.layer) {
                    return Err(refused(Refused(format!("it cannot be asked at {}", filter.layer))));
                }
                callout.notify(Notification::FilterAdded(filter)).map_err(refused)
            })
        });
        let told = told.map_err(RegisterError::Panicked).and_then(|told| told);
        if let Err(error) = told {
            self.inner.fail(entry.number);
            return Err(error);
        }
        Ok(entry.number)
    }

    /// Unregisters a callout (`FwpsCalloutUnregisterByKey`): its terminating filters block from then on.
    ///
    /// # Errors
    /// Where it is busy; it stays registered then. [`remove_contexts`](Self::remove_contexts) takes its contexts away.
    pub fn unregister(&self, key: Guid) -> Result<(), UnregisterError> {
        let mut state = self.inner.lock();
        let entry = state.entry(key).cloned().ok_or(UnregisterError::NotRegistered)?;
        let contexts = state.contexts.count(entry.number);
        let pended = state.pended.values().filter(|pended| pended.callout == entry.number).count();
        if contexts + pended > 0 {
            return Err(UnregisterError::Busy { contexts, pended });
        }
        state.set_failed(entry.number);
        Ok(())
    }

    /// Takes away every context of a callout, each through its `flow_delete`.
    pub fn remove_contexts(&self, key: Guid) {
        let number = self.inner.lock().entry(key).map(|entry| entry.number);
        if let Some(number) = number {
            self.inner.remove_contexts(|context| context.2 == number);
        }
    }

    /// Adds a filter that names a callout, which need not be registered.
    ///
    /// # Errors
    /// Why it is not added: the callout may refuse it.
    pub fn add_filter(&self, callout: Guid, filter: Filter) -> Result<(), AddFilterError> {
        let filter = Arc::new(filter);
        let entry = {
            let state = self.inner.lock();
            if state.filters.contains_key(&filter.id) {
                return Err(AddFilterError::Exists(filter.id));
            }
            state.entry(callout).cloned()
        };
        if let Some(entry) = entry {
            let name = || entry.registration.name.clone();
            if !entry.registration.layers.is_empty() && !entry.registration.layers.contains(&filter.layer) {
                return Err(AddFilterError::Layer { callout: name(), layer: filter.layer });
            }
            match guarded(|| entry.callout.notify(Notification::FilterAdded(&filter))) {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return Err(AddFilterError::Refused { callout: name(), why }),
                Err(panic) => {
                    self.inner.panicked(entry.number, &panic);
                    let why = Refused(format!("it panicked: {panic}"));
                    return Err(AddFilterError::Refused { callout: name(), why });
                }
            }
        }
        self.inner.lock().filters.insert(filter.id, (callout, filter));
        Ok(())
    }

    /// Deletes a filter; its callout is told. Whether there was one.
    pub fn delete_filter(&self, id: u64) -> bool {
        let (deleted, entry) = {
            let mut state = self.inner.lock();
            let Some((callout, filter)) = state.filters.remove(&id) else { return false };
            (filter, state.entry(callout).cloned())
        };
        if let Some(entry) = entry
            && let Err(panic) = guarded(|| entry.callout.notify(Notification::FilterDeleted(&deleted)))
        {
            self.inner.panicked(entry.number, &panic);
        }
        true
    }

    /// The keys of the callouts that answer, in the order of registration.
    #[must_use]
    pub fn keys(&self) -> Vec<Guid> {
        let state = self.inner.lock();
        state.callouts.iter().filter(|entry| !entry.failed).map(|entry| entry.registration.key).collect()
    }

    /// Tells that a flow exists. Contexts can be associated with it from then on.
    pub fn flow_began(&self, flow: FlowHandle) {
        self.inner.lock().flows.insert(flow);
    }

    /// Tells that a flow is gone: its contexts go back to their callouts.
    pub fn flow_ended(&self, flow: FlowHandle) {
        {
            let mut state = self.inner.lock();
            if !state.flows.remove(&flow) {
                return;
            }
            state.allowed.retain(|(allowed, _)| *allowed != flow);
        }
        self.inner.remove_contexts(|context| context.0 == flow);
    }

    /// Tells that every flow is gone.
    pub fn all_flows_ended(&self) {
        let mut flows: Vec<FlowHandle> = self.inner.lock().flows.iter().copied().collect();
        flows.sort_unstable();
        flows.into_iter().for_each(|flow| self.flow_ended(flow));
    }

    /// Sets the time that callouts are told.
    pub fn set_now(&self, now: Timestamp) {
        self.inner.lock().now = now;
    }

    /// Takes the next thing that a callout has injected.
    #[must_use]
    pub fn next_injection(&self) -> Option<Injection> {
        let mut state = self.inner.lock();
        let Waiting { callout, injection } = state.injections.pop_front()?;
        if let Some(waiting) = state.waiting.get_mut(&callout) {
            waiting.injections -= 1;
            waiting.bytes -= injection.data.len();
        }
        Some(injection)
    }

    /// Takes the next report.
    #[must_use]
    pub fn next_report(&self) -> Option<CalloutReport> {
        self.inner.lock().reports.pop_front()
    }

    /// Takes the layers whose flows are to be authorized again.
    #[must_use]
    pub fn take_reauthorize(&self) -> Vec<LayerId> {
        core::mem::take(&mut self.inner.lock().reauthorize)
    }

    /// Takes the flows that are to be ended.
    #[must_use]
    pub fn take_aborted(&self) -> Vec<FlowHandle> {
        core::mem::take(&mut self.inner.lock().aborted)
    }

    /// Takes the streams that go on after they were deferred.
    #[must_use]
    pub fn take_continued(&self) -> Vec<(FlowHandle, Direction)> {
        core::mem::take(&mut self.inner.lock().continued)
    }

    /// How many contexts a callout has.
    #[must_use]
    pub fn context_count(&self, key: Guid) -> usize {
        let state = self.inner.lock();
        state.entry(key).map_or(0, |entry| state.contexts.count(entry.number))
    }

    /// What went wrong so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.lock().counts
    }
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

    fn remove_contexts(&self, wanted: impl Fn(&ContextKey) -> bool) {
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
    fn fail(&self, number: u32) {
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

    fn set_failed(&mut self, number: u32) {
        for entry in self.callouts.iter_mut().filter(|entry| entry.number == number) {
            entry.failed = true;
        }
        for pended in self.pended.values_mut().filter(|pended| pended.callout == number) {
            pended.answer.get_or_insert(None);
        }
        self.injections.retain(|waiting| waiting.callout != number);
        self.waiting.remove(&number);
    }

    fn filters_of(&self, callout: Guid) -> Vec<Arc<Filter>> {
        self.filters.values().filter(|(key, _)| *key == callout).map(|(_, filter)| filter.clone()).collect()
    }

    pub(crate) fn filter(&self, id: u64) -> Option<&(Guid, Arc<Filter>)> {
        self.filters.get(&id)
    }

    pub(crate) fn pend(&mut self, callout: u32) -> u64 {
        self.last_operation += 1;
        self.pended.insert(self.last_operation, Pended { callout, answer: None });
        self.last_operation
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
    fn is(&self, key: Guid) -> bool {
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
