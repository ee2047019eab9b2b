//! Who decides: what a replay asks, and is answered.

use openwfp_engine::{Action, Values};
use openwfp_model::LayerId;

use super::stage::LayerSet;
use crate::flow::{Direction, FlowEvent, FlowId};
use crate::time::Timestamp;

/// One classification that a packet asks for.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The layer.
    pub layer: LayerId,
    /// What is known; fields that a packet cannot show are empty.
    pub values: &'a Values,
    /// The data, at STREAM and DATAGRAM_DATA, as far as they were captured; empty elsewhere.
    pub data: &'a [u8],
    /// The flow that the packet belongs to, as soon as there is one.
    pub flow: Option<FlowId>,
    /// The number of the frame, from 1.
    pub packet: u64,
    /// When the packet was captured.
    pub time: Timestamp,
    /// Which way the packet, or the data, goes. When a connection is closed: who had opened it.
    pub direction: Direction,
}

/// What a classifier decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The packet goes on.
    Permit,
    /// It does not.
    Block,
}

impl From<Action> for Decision {
    /// A replay knows late values already, so a verdict that waits for one fails closed.
    fn from(action: Action) -> Self {
        match action {
            Action::Permit => Self::Permit,
            Action::Block | Action::Late => Self::Block,
        }
    }
}

/// Decides at the layers. A closure over a [`Step`] is one.
pub trait Classifier {
    /// Decides at one layer.
    fn classify(&mut self, step: &Step<'_>) -> Decision;

    /// The layers at which it wants to be asked. At all others everything is permitted, which costs next to nothing: no values are
    /// filled in. Asked once a packet.
    #[inline]
    fn layers(&self) -> LayerSet {
        LayerSet::ALL
    }

    /// Is asked at the discard layer of a layer that has blocked, where the decision changes nothing; or of one that has discarded what
    /// nobody listened to: blocked there, it is not answered.
    fn discarded(&mut self, step: &Step<'_>) -> Decision {
        self.classify(step)
    }

    /// Is told that a packet is blocked because its flow was refused before, because it repeats data that STREAM has blocked, or because
    /// it answers what a discard layer has silenced. The layer of the step is the one that decided then; it is not asked again.
    fn flow_blocked(&mut self, _step: &Step<'_>) {}

    /// Is told that a flow was established or deleted.
    fn flow_changed(&mut self, _event: &FlowEvent) {}
}

impl<F: FnMut(&Step<'_>) -> Decision> Classifier for F {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        self(step)
    }
}
