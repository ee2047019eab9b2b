//! Who decides: what a replay asks, and is answered.

use openwfp_engine::{Action, Values};
use openwfp_model::LayerId;

use super::stage::LayerSet;
use crate::flow::{Direction, FlowEvent, FlowId};
use crate::link::LinkType;
use crate::packet::TcpHeader;
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
    /// At STREAM: the sequence numbers of the data, from the first up to but not including the last. More than `data` holds where the
    /// capture has missed or not stored some.
    pub range: Option<(u32, u32)>,
    /// The packet itself, for a classifier that wants to see it.
    pub shown: Shown<'a>,
}

/// The bytes of a packet, as a layer shows them. Empty for a classifier that [does not want them](Classifier::wants_bytes), and where an
/// event has no packet of its own.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The packet from its IP header on; at the layers of frames, the frame.
    pub bytes: &'a [u8],
    /// Where the transport header begins; at the layers of frames, where the header of the frame ends.
    pub transport: usize,
    /// Where the payload of the transport header begins.
    pub payload: usize,
    /// What stood before the IP header in the frame.
    pub link_header: &'a [u8],
    /// What that is.
    pub link_type: LinkType,
    /// The TCP header, where the packet that goes the way of the event has one.
    pub tcp: Option<TcpHeader>,
    /// The interface of the capture.
    pub interface: Option<u32>,
    /// Whether both ends are the local machine's.
    pub loopback: bool,
    /// Whether it was put together from fragments.
    pub reassembled: bool,
    /// The mark under which the classifier [handed it in](Injected); none for what was captured.
    pub mark: Option<u64>,
}

impl Default for Shown<'_> {
    /// Nothing.
    fn default() -> Self {
        Self {
            bytes: &[],
            transport: 0,
            payload: 0,
            link_header: &[],
            link_type: LinkType::RAW,
            tcp: None,
            interface: None,
            loopback: false,
            reassembled: false,
            mark: None,
        }
    }
}

/// A packet that a classifier brings in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// The layer at which it begins its way: layers before it are not asked. ALE layers before it neither: it opens no flow then.
    pub layer: LayerId,
    /// Which way it goes.
    pub direction: Direction,
    /// What the bytes begin with: [`LinkType::RAW`] for an IP packet without a frame.
    pub link_type: LinkType,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The interface of the capture.
    pub interface: Option<u32>,
    /// Whether both ends are the local machine's: it arrives when it has left.
    pub loopback: bool,
    /// Whether it was put together from fragments.
    pub reassembled: bool,
    /// Shown with every question about it.
    pub mark: u64,
}

/// What a classifier decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The packet goes on.
    Permit,
    /// It does not.
    Block,
    /// It does not, and nobody hears of it: it is not discarded, and its flow is not refused by that.
    Absorb,
    /// It does not, and nothing more of its flow does, in either direction.
    Drop,
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

    /// Is told that a flow is forgotten, established or not: no later packet belongs to it.
    fn flow_gone(&mut self, _flow: FlowId) {}

    /// Whether it wants to see the bytes of packets, and to be told of the ends of streams.
    #[inline]
    fn wants_bytes(&self) -> bool {
        false
    }

    /// Is asked, where it wants bytes, when one direction of a stream has come to its end in order, at STREAM.
    fn stream_ended(&mut self, _step: &Step<'_>) -> Decision {
        Decision::Permit
    }

    /// The next packet that it brings in; asked for after each packet until there is none.
    #[inline]
    fn next_injected(&mut self) -> Option<Injected> {
        None
    }

    /// The next flow that is to be ended; asked for after each packet until there is none.
    #[inline]
    fn next_aborted(&mut self) -> Option<FlowId> {
        None
    }

    /// Is told, where it wants bytes, of a packet that passed every layer on its way: `link_type` says what the bytes begin with.
    fn passed(&mut self, _link_type: LinkType, _bytes: &[u8], _direction: Direction) {}
}

impl<F: FnMut(&Step<'_>) -> Decision> Classifier for F {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        self(step)
    }
}
