//! What the registry tells: reports, counts, and why something is refused.

use openwfp_model::{Guid, LayerId};
use openwfp_packet::time::Timestamp;

use crate::{FlowHandle, Refused, Report};

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

impl CalloutReport {
    /// A report of that callout, about a flow or none. For hosts.
    #[must_use]
    pub const fn new(callout: Guid, name: String, flow: Option<FlowHandle>, time: Timestamp, report: Report) -> Self {
        Self { callout, name, flow, frame: None, time, report }
    }
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
