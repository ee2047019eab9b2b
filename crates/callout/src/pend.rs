//! Operations that are pended: the answer comes later, from any thread.

use std::fmt;
use std::sync::Arc;

use crate::Answer;

/// Takes the answers of pended operations; the host of the callouts is one.
pub trait Completer: Send + Sync {
    /// Takes the answer to an operation. `None` where the callout let go of it without one. An answer to an operation that is not
    /// pended (any more) changes nothing.
    fn complete(&self, operation: u64, answer: Option<Answer>);
}

/// An operation, or a packet, that waits for its answer (`FwpsPendOperation`, `FwpsPendClassify`, and a packet that is held to
/// be injected later).
///
/// Whoever holds it answers with [`complete`](Self::complete), once, from any thread. Then the walk goes on where it stood, by the
/// same policy; if that is no longer in force, the event is classified afresh, and the callout asked again. An operation that is let
/// go of without an answer, or not answered in the time of its
/// [`Registration`](crate::Registration), is blocked.
pub struct PendedOperation {
    operation: u64,
    completer: Option<Arc<dyn Completer>>,
}

impl PendedOperation {
    /// A pended operation of that number. For hosts.
    #[must_use]
    pub fn new(operation: u64, completer: Arc<dyn Completer>) -> Self {
        Self { operation, completer: Some(completer) }
    }

    /// The number by which its host knows it.
    #[must_use]
    pub const fn operation(&self) -> u64 {
        self.operation
    }

    /// Answers (`FwpsCompleteOperation`, `FwpsCompleteClassify`).
    pub fn complete(mut self, answer: Answer) {
        if let Some(completer) = self.completer.take() {
            completer.complete(self.operation, Some(answer));
        }
    }
}

impl Drop for PendedOperation {
    fn drop(&mut self) {
        if let Some(completer) = self.completer.take() {
            completer.complete(self.operation, None);
        }
    }
}

impl fmt::Debug for PendedOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendedOperation").field("operation", &self.operation).finish_non_exhaustive()
    }
}

/// Why an event cannot be pended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PendError {
    /// Nothing can wait here (`FWP_E_CANNOT_PEND`): the layer has nothing to hold, or the flow is authorized again.
    #[error("an event of this kind cannot be pended")]
    CannotPend,
    /// The right to write the action is gone, so the answer would not count.
    #[error("the right to write the action is gone")]
    NoRight,
    /// The filter names the callout for inspection alone.
    #[error("an inspection callout cannot pend")]
    Inspection,
    /// It was pended already.
    #[error("the event is pended already")]
    Pended,
    /// The callout has as many as its limit allows.
    #[error("the callout has pended as many operations as it may")]
    TooMany,
}
