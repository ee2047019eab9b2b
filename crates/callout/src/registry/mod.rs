//! The registry: callouts that run in this process, their filters, and what they have under way.

mod state;
mod told;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use openwfp_model::{Guid, LayerId};
use openwfp_packet::flow::Direction;
use openwfp_packet::time::Timestamp;

pub(crate) use state::{Deferred, Entry, Inner, Waiting, guarded};
use state::{Pended, State};
pub use told::{AddFilterError, CalloutReport, Counts, RegisterError, UnregisterError};

use crate::services::CalloutServices;
use crate::{Answer, Callout, Filter, FlowHandle, Injection, Notification, Platform, Refused, Registration};

/// Registered callouts. Clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
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
        Self::made(longest_wait, None)
    }

    /// The registry of a host: what is injected beside an answer is refused, since nobody carries it out, and
    /// [`ask_filter`](Self::ask_filter) waits for no pended operation. `answered` is called, by any thread, when there is something for
    /// [`next_answer`](Self::next_answer). No callout may pend more than `most_pended`.
    #[must_use]
    pub fn for_host(most_pended: usize, answered: impl Fn() + Send + Sync + 'static) -> Self {
        Self::made(Duration::MAX, Some(Deferred { most_pended, answered: Box::new(answered) }))
    }

    fn made(longest_wait: Duration, deferred: Option<Deferred>) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { inner: Arc::new(Inner { state, changed, longest_wait, deferred }) }
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
            let number = state.last_number + 1;
            if state.callouts.iter().any(|entry| entry.is(key)) {
                return Err(RegisterError::Exists(key));
            }
            let services = CalloutServices { inner: Arc::downgrade(&self.inner), callout: number };
            let (registration, platform) = (Arc::new(registration), Platform::new(Arc::new(services)));
            let entry = Entry { number, registration, callout: callout.clone(), platform, failed: false };
            state.callouts.push(entry.clone());
            state.last_number = number;
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
        state.callouts.retain(|other| other.number != entry.number);
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

    /// Takes the next answer to an operation that was pended, where nobody waits for it. One that was let go of, or has taken longer than
    /// its registration says, is blocked.
    #[must_use]
    pub fn next_answer(&self) -> Option<(u64, Answer)> {
        let mut state = self.inner.lock();
        let operation = state.answered.pop_front()?;
        Some((operation, state.take_answer(operation)))
    }

    /// Gives up operations that have been pended for too long; they are answered then.
    pub fn expire_pended(&self, now: Instant) {
        let mut state = self.inner.lock();
        let State { pended, answered, .. } = &mut *state;
        let late = |pended: &Pended| pended.answer.is_none() && pended.until.is_some_and(|until| now > until);
        for (operation, pended) in pended.iter_mut().filter(|(_, pended)| late(pended)) {
            pended.answer = Some(None);
            answered.push_back(*operation);
        }
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
