//! Flows: their handles, and what callouts associate with them.

use std::any::Any;
use std::fmt;

/// A flow, by the handle under which events know it (`FLOW_HANDLE`). Not used again while anybody may hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowHandle(u64);

impl FlowHandle {
    /// The flow of that number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FlowHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a callout associates with a flow, at one layer. It belongs to the callout: nobody else looks into it.
pub type FlowContext = Box<dyn Any + Send>;

/// Why a context cannot be associated or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FlowContextError {
    /// The flow does not exist, or not any more.
    #[error("there is no such flow")]
    NoSuchFlow,
    /// The callout has a context at this flow and layer already (`STATUS_OBJECT_NAME_EXISTS`): remove it first.
    #[error("the flow has a context of this callout at this layer")]
    Exists,
    /// There is none to remove (`STATUS_UNSUCCESSFUL`).
    #[error("the flow has no context of this callout at this layer")]
    NotFound,
    /// The callout has as many as its limit allows.
    #[error("the callout has as many flow contexts as it may have")]
    TooMany,
    /// The callout is not registered, or not any more.
    #[error("the callout is not registered")]
    NotRegistered,
}
