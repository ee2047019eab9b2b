//! The contexts that callouts have associated with flows.

use std::collections::HashMap;

use openwfp_model::LayerId;

use crate::{FlowContext, FlowContextError, FlowHandle};

/// What a context is found by: flow, layer, number of the callout.
pub(crate) type ContextKey = (FlowHandle, LayerId, u32);

/// The contexts of all callouts.
#[derive(Default)]
pub(crate) struct Contexts {
    slots: HashMap<ContextKey, Slot>,
    /// How many each callout has.
    counts: HashMap<u32, usize>,
}

struct Slot {
    /// None while it is lent to a classification.
    context: Option<FlowContext>,
    /// Whether it is to go as soon as it comes back.
    doomed: bool,
}

/// What became of a context that should go.
pub(crate) enum Removed {
    /// It is handed over.
    Now(FlowContext),
    /// It is lent, and goes when it comes back.
    Later,
}

/// What asking for a context comes to.
pub(crate) enum Lent {
    /// There is none.
    None,
    /// It is lent; it has to be given back.
    Context(FlowContext),
    /// Another classification has it.
    Busy,
}

impl Contexts {
    /// How many a callout has.
    pub fn count(&self, callout: u32) -> usize {
        self.counts.get(&callout).copied().unwrap_or(0)
    }

    pub fn insert(
        &mut self,
        key: ContextKey,
        context: FlowContext,
        limit: usize,
    ) -> Result<(), (FlowContextError, FlowContext)> {
        if self.slots.contains_key(&key) {
            return Err((FlowContextError::Exists, context));
        }
        let count = self.counts.entry(key.2).or_default();
        if *count >= limit {
            return Err((FlowContextError::TooMany, context));
        }
        *count += 1;
        self.slots.insert(key, Slot { context: Some(context), doomed: false });
        Ok(())
    }

    pub fn remove(&mut self, key: &ContextKey) -> Result<Removed, FlowContextError> {
        let slot = self.slots.get_mut(key).filter(|slot| !slot.doomed).ok_or(FlowContextError::NotFound)?;
        match slot.context.take() {
            Some(context) => {
                self.forget(key);
                Ok(Removed::Now(context))
            }
            None => {
                slot.doomed = true;
                Ok(Removed::Later)
            }
        }
    }

    pub fn lend(&mut self, key: &ContextKey) -> Lent {
        match self.slots.get_mut(key) {
            None => Lent::None,
            Some(slot) if slot.doomed => Lent::Busy,
            Some(slot) => slot.context.take().map_or(Lent::Busy, Lent::Context),
        }
    }

    /// Takes back what was lent. Comes back to the caller when it is to go.
    pub fn give_back(&mut self, key: &ContextKey, context: FlowContext) -> Option<FlowContext> {
        match self.slots.get_mut(key) {
            Some(slot) if !slot.doomed => {
                slot.context = Some(context);
                None
            }
            _ => {
                self.forget(key);
                Some(context)
            }
        }
    }

    fn forget(&mut self, key: &ContextKey) {
        if self.slots.remove(key).is_some()
            && let Some(count) = self.counts.get_mut(&key.2)
        {
            *count -= 1;
        }
    }

    /// The keys of a flow, or of a callout, in the order of layers and callouts.
    pub fn keys(&self, wanted: impl Fn(&ContextKey) -> bool) -> Vec<ContextKey> {
        let mut keys: Vec<ContextKey> = self.slots.keys().copied().filter(wanted).collect();
        keys.sort_unstable_by_key(|(flow, layer, callout)| (*flow, layer.get(), *callout));
        keys
    }
}
