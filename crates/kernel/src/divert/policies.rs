//! The policies by which diverted packets are decided: the same images that the programs walk.

use openwfp_abi::{divert::DivertRecord, file::FileKey};
use openwfp_engine::{Cell, UNKNOWN, Values, words};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// An image, and what its numbers mean.
pub(crate) struct Policy {
    pub generation: u32,
    pub cells: Vec<Cell>,
    pub applications: HashMap<FileKey, u32>,
}

impl Policy {
    /// Values that were written for another image, for this one: its numbers of applications are others.
    pub fn translate(&self, record: &DivertRecord, values: &mut Values) {
        let label = record.identity.label;
        let class = match label.application() {
            _ if record.identity.process.started == 0 || !label.state.is_known() => None,
            Some(file) => Some(self.applications.get(&file).copied().unwrap_or(0)),
            None => Some(0),
        };
        // these are not known here by name: whatever tests them blocks
        for word in
            [words::LINUX_CGROUP, words::LINUX_SYSTEMD_UNIT, words::LINUX_CONTAINER, words::LINUX_NETWORK_NAMESPACE]
        {
            values.set_unknown(word);
        }
        for word in [words::ALE_APP_ID, words::ALE_ORIGINAL_APP_ID] {
            match class {
                // a layer without this field has it empty, whatever the image
                _ if values.get(word) == openwfp_engine::EMPTY => {}
                Some(class) => values.set(word, class),
                None if values.get(word) <= UNKNOWN => values.set_unknown(word),
                None => {}
            }
        }
    }
}

/// The policy that holds, and while another takes its place that one too.
#[derive(Default)]
struct Both {
    current: Option<Arc<Policy>>,
    next: Option<Arc<Policy>>,
}

/// What is shared between who enforces and who diverts.
#[derive(Clone, Default)]
pub(crate) struct Policies(Arc<Mutex<Both>>);

impl Policies {
    fn lock(&self) -> MutexGuard<'_, Both> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A policy is about to take the place of the one that holds: packets may meet it from here on.
    pub fn prepare(&self, next: Policy) {
        self.lock().next = Some(Arc::new(next));
    }

    /// The one that was prepared holds, or does not come after all.
    pub fn switched(&self, done: bool) {
        let mut both = self.lock();
        let next = both.next.take();
        if done && next.is_some() {
            both.current = next;
        }
    }

    /// The policy of a generation, as long as it is current.
    pub fn of(&self, generation: u32) -> Option<Arc<Policy>> {
        let both = self.lock();
        [&both.next, &both.current].into_iter().flatten().find(|policy| policy.generation == generation).cloned()
    }

    /// The policy that holds.
    pub fn current(&self) -> Option<Arc<Policy>> {
        self.lock().current.clone()
    }
}
