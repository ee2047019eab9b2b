//! Replaying a capture: which layers each packet meets, in which order, and with which incoming values.
//!
//! [`Replay`] takes the packets of a capture one by one and asks a [`Classifier`] at every layer that the platform would
//! have classified them at. The order is that of the documentation (MS docs: TCP Packet Flows, UDP Packet Flows):
//!
//! | packet | layers |
//! | --- | --- |
//! | SYN sent | ALE_AUTH_CONNECT, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET |
//! | its answer received | INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_FLOW_ESTABLISHED |
//! | SYN received | INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT |
//! | acknowledgment of our answer received | INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_FLOW_ESTABLISHED |
//! | first of another flow sent | ALE_AUTH_CONNECT, ALE_FLOW_ESTABLISHED, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET |
//! | first of another flow received | INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT, ALE_FLOW_ESTABLISHED |
//! | any other sent | OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET |
//! | any other received | INBOUND_IPPACKET, INBOUND_TRANSPORT |
//!
//! - A packet over loopback is sent first and received then.
//! - A connection that was open before the capture began is authorized at its first packet that shows it, at the layer
//!   that would have authorized it when it was opened. Who opened it is told by an answer to a SYN, else by which of the ports
//!   alone is a system port, else by the direction of that packet.
//! - ICMP errors belong to no flow: no ALE layer sees them. They bear the flow of the packet that they are about.
//! - Each arriving fragment is seen at INBOUND_IPPACKET with `IS_FRAGMENT`; when the datagram is whole it is seen there once
//!   more, with `IS_REASSEMBLED`, and then at the layers above, with the same flag. The platform indicates each fragment
//!   once more without any flag, which is left out here: such an indication tells nothing new. Leaving fragments are seen as
//!   the datagram that they were cut from (MS docs: WFP Layer Requirements and Restrictions).
//! - What a layer blocks is not seen by later layers. What belongs to a refused flow is classified no further than the
//!   platform would have seen it, which for the most part is not at all: packets of a connection that was refused never
//!   existed, whatever the capture holds. [`Classifier::flow_blocked`] is told of them.
//!
//! No clock is read: the time of a packet is the one that the capture gives, and it never runs backwards.

mod inbound;
mod outbound;
mod pass;
mod summary;
mod values;

use openwfp_engine::{Action, Values};
use openwfp_model::LayerId;

pub use summary::{Outcome, Summary};
pub use values::REPLAY_LAYERS;

use crate::capture::Record;
use crate::flow::{Direction, FlowEvent, FlowId, FlowSettings, FlowTable};
use crate::fragments::{Reassembly, ReassemblySettings, SentDatagrams};
use crate::local::{LocalSide, Side};
use crate::packet::{Frame, Packet};
use crate::time::Timestamp;
use pass::Pass;
use values::IncomingValues;

/// One classification that a packet asks for.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The layer.
    pub layer: LayerId,
    /// What is known; fields that a packet cannot show are empty.
    pub values: &'a Values,
    /// The flow that the packet belongs to, as soon as there is one.
    pub flow: Option<FlowId>,
    /// The number of the frame, from 1.
    pub packet: u64,
    /// When the packet was captured.
    pub time: Timestamp,
    /// Which way the packet goes.
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

    /// Is told that a packet is blocked because its flow was refused before. The layer of the step is the one that refused
    /// the flow; it is not asked again.
    fn flow_blocked(&mut self, _step: &Step<'_>) {}

    /// Is told that a flow was established or deleted.
    fn flow_changed(&mut self, _event: &FlowEvent) {}
}

impl<F: FnMut(&Step<'_>) -> Decision> Classifier for F {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        self(step)
    }
}

/// The bounds of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplaySettings {
    /// Flows.
    pub flows: FlowSettings,
    /// Datagrams in pieces.
    pub reassembly: ReassemblySettings,
}

/// A replay.
pub struct Replay {
    local: LocalSide,
    flows: FlowTable,
    reassembly: Reassembly,
    sent: SentDatagrams<Outcome>,
    incoming: IncomingValues,
    now: Timestamp,
    summary: Summary,
}

impl Replay {
    /// A replay that has seen nothing yet.
    #[must_use]
    pub fn new(local: LocalSide, settings: ReplaySettings) -> Self {
        Self {
            local,
            flows: FlowTable::new(settings.flows),
            reassembly: Reassembly::new(settings.reassembly),
            sent: SentDatagrams::default(),
            incoming: IncomingValues::new(),
            now: Timestamp::default(),
            summary: Summary::default(),
        }
    }

    /// Which side is local.
    #[must_use]
    pub const fn local(&self) -> &LocalSide {
        &self.local
    }

    /// Takes the next packet through its layers.
    pub fn packet<C: Classifier>(&mut self, record: &Record<'_>, classifier: &mut C) -> Outcome {
        self.now = self.now.max(record.time);
        self.flows.expire(self.now, &mut |event| classifier.flow_changed(&event));
        self.reassembly.expire(self.now);
        let outcome = match Packet::parse(record.link_type, record.data) {
            Ok(Frame::Ip(packet)) => self.ip_packet(record, &packet, classifier),
            Ok(Frame::Other(ether_type)) => Outcome::NotIp(ether_type),
            Ok(Frame::UnsupportedLinkType) => Outcome::UnsupportedLinkType(record.link_type),
            Err(error) => Outcome::Malformed(error),
        };
        self.summary.count(&outcome);
        outcome
    }

    fn ip_packet<C: Classifier>(&mut self, record: &Record<'_>, packet: &Packet<'_>, classifier: &mut C) -> Outcome {
        let side = self.local.side(packet, record.direction);
        let mut pass = Pass::new(self, classifier, record, side == Side::Loopback);
        match side {
            Side::Outbound => pass.outbound(packet),
            Side::Inbound => pass.inbound(packet),
            Side::Loopback => match pass.outbound(packet) {
                Outcome::Permitted => pass.inbound(packet),
                stopped => stopped,
            },
            Side::Elsewhere => Outcome::Elsewhere,
        }
    }

    /// What the replay came to so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            flows: self.flows.opened(),
            flows_evicted: self.flows.evicted(),
            fragments: self.reassembly.counts(),
            ..self.summary
        }
    }
}
