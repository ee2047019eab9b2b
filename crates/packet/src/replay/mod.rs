//! Replaying a capture: which layers each packet meets, in which order, and with which incoming values.
//!
//! [`Replay`] takes the packets of a capture one by one and asks a [`Classifier`] at every layer that the platform would
//! have classified them at. The order is that of the documentation (MS docs: TCP Packet Flows, UDP Packet Flows, Packet
//! Inspection Points):
//!
//! | packet | layers |
//! | --- | --- |
//! | SYN sent | ALE_AUTH_CONNECT, *below* |
//! | its answer received | *above*, STREAM_PACKET, ALE_FLOW_ESTABLISHED |
//! | SYN received | *above*, ALE_AUTH_RECV_ACCEPT, STREAM_PACKET |
//! | acknowledgment of our answer received | *above*, STREAM_PACKET, ALE_FLOW_ESTABLISHED |
//! | TCP data sent | STREAM, *below* |
//! | TCP data received | *above*, STREAM_PACKET, STREAM |
//! | SYN received that nobody listens for | INBOUND_MAC_FRAME_ETHERNET, INBOUND_IPPACKET, INBOUND_TRANSPORT_DISCARD |
//! | datagram received that nobody listens for | INBOUND_MAC_FRAME_ETHERNET, INBOUND_IPPACKET, INBOUND_IPPACKET_DISCARD |
//! | other TCP sent, received | *below*; *above*, STREAM_PACKET |
//! | first of another flow sent | ALE_AUTH_CONNECT, ALE_FLOW_ESTABLISHED, DATAGRAM_DATA, *below* |
//! | first of another flow received | *above*, ALE_AUTH_RECV_ACCEPT, ALE_FLOW_ESTABLISHED, DATAGRAM_DATA |
//! | any other sent, received | DATAGRAM_DATA, *below*; *above*, DATAGRAM_DATA |
//! | ICMP error sent, received | OUTBOUND_ICMP_ERROR, *below*; *above*, INBOUND_ICMP_ERROR |
//! | forwarded, arriving | INBOUND_MAC_FRAME_ETHERNET, INBOUND_IPPACKET, IPFORWARD |
//! | forwarded, leaving | IPFORWARD, OUTBOUND_MAC_FRAME_ETHERNET |
//! | last of a TCP connection | as above, then ALE_ENDPOINT_CLOSURE |
//!
//! *below* is STREAM_PACKET (TCP alone), OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET, OUTBOUND_MAC_FRAME_ETHERNET; *above* is
//! INBOUND_MAC_FRAME_ETHERNET, INBOUND_IPPACKET, INBOUND_TRANSPORT. The frame's layers are met in captures of Ethernet alone, and
//! by frames that hold no IP too. The public texts do not say where STREAM_PACKET stands among the others: it is next to
//! the endpoint here, on the packet's side of what the connection does with it.
//!
//! - A packet over loopback is sent first and received then, and has no frames.
//! - A connection that was open before the capture began is authorized at its first packet that shows it, at the layer
//!   that would have authorized it when it was opened. Who opened it is told by an answer to a SYN, else by which of the ports
//!   alone is a system port, else by the direction of that packet.
//! - ICMP errors belong to no flow: no ALE layer sees them. They bear the flow of the packet that they are about.
//! - Each arriving fragment is seen at INBOUND_IPPACKET with `IS_FRAGMENT`; when the datagram is whole it is seen there once
//!   more, with `IS_REASSEMBLED`, and then at the layers above, with the same flag. The platform indicates each fragment
//!   once more without any flag, which is left out here: such an indication tells nothing new. Leaving fragments are seen as
//!   the datagram that they were cut from (MS docs: WFP Layer Requirements and Restrictions), and each as a frame.
//! - Forwarded fragments are seen at IPFORWARD one by one, and, where [`ReplaySettings::group_forwarded_fragments`] says so, once
//!   more together, with `IS_FRAGMENT_GROUP`.
//! - STREAM sees each byte once and in order ([`crate::stream`]). Data that it blocks are taken out of the stream; a
//!   segment that repeats them is blocked like them.
//! - What a layer blocks is not seen by later layers, but by the layer's discard layer, where it has one, whose decision changes
//!   nothing. What belongs to a refused flow is classified no further than the platform would have seen it, which for
//!   the most part is not at all: packets of a connection that was refused never existed, whatever the capture holds.
//!   [`Classifier::flow_blocked`] is told of them.
//! - ALE_ENDPOINT_CLOSURE comes with the end of a TCP connection that was authorized: its close, reset or replacement by a new one, or
//!   the opening that nobody answered. When sockets of other protocols are closed no packet shows, nor when any socket
//!   is bound or told to listen.
//! - That nobody listens is shown by the answer alone, which comes later: [`Replay::expecting`] takes what was found in the capture
//!   before. Without it, such packets are taken for those that somebody could accept. What is blocked at the discard layer is not
//!   answered (MS docs: Preventing Port Scanning).
//!
//! No clock is read: the time of a packet is the one that the capture gives, and it never runs backwards.

mod classifier;
mod data;
mod facts;
mod frames;
mod inbound;
mod injected;
mod outbound;
mod pass;
mod shown;
mod stage;
mod summary;
mod values;

use openwfp_model::{ConditionFlags, LayerId};

pub use classifier::{Classifier, Decision, Injected, Shown, Step};
pub use facts::fills;
pub use stage::{LayerSet, REPLAY_LAYERS};
pub use summary::{LayerCount, Outcome, Summary};

use crate::capture::Record;
use crate::flow::{DeleteReason, Direction, FlowId, FlowSettings, FlowTable, Lifetime, Slot};
use crate::fragments::{Reassembly, ReassemblySettings, SentDatagrams};
use crate::local::{LocalSide, Side};
use crate::packet::{Frame, Packet};
use crate::stream::StreamSettings;
use crate::time::Timestamp;
use crate::unheard::Unheard;
use frames::Stations;
use pass::{NO_FLAGS, Pass};
use stage::Stage;
use summary::LayerCounts;
use values::IncomingValues;

/// The bounds of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplaySettings {
    /// Flows.
    pub flows: FlowSettings,
    /// Datagrams in pieces.
    pub reassembly: ReassemblySettings,
    /// Data of TCP connections that wait for what is missing before them.
    pub streams: StreamSettings,
    /// Whether the forwarding layer holds fragments until their datagram is whole, and then sees them once more as a group. Off by
    /// default, as on the platform.
    pub group_forwarded_fragments: bool,
}

/// A replay.
pub struct Replay {
    local: LocalSide,
    settings: ReplaySettings,
    flows: FlowTable,
    reassembly: Reassembly,
    /// Forwarded fragments that wait for their group.
    groups: Reassembly,
    sent: SentDatagrams<Outcome>,
    stations: Stations,
    incoming: IncomingValues,
    /// What nobody listens to.
    unheard: Unheard,
    /// Of that, what must not be answered.
    silenced: Unheard,
    /// Data of a stream that came in several segments.
    joined: Vec<u8>,
    now: Timestamp,
    summary: Summary,
    counts: LayerCounts,
    /// The classifier has ended the flow of the packet at hand.
    drops: bool,
}

/// The bytes of a question.
#[derive(Clone, Copy, Default)]
struct Bytes<'a> {
    data: &'a [u8],
    range: Option<(u32, u32)>,
    shown: Shown<'a>,
}

/// What a step says beside its layer and values.
#[derive(Clone, Copy)]
struct Moment {
    flow: Option<FlowId>,
    packet: u64,
    time: Timestamp,
    direction: Direction,
}

impl Replay {
    /// A replay that has seen nothing yet.
    #[must_use]
    pub fn new(local: LocalSide, settings: ReplaySettings) -> Self {
        Self {
            local,
            settings,
            flows: FlowTable::new(settings.flows),
            reassembly: Reassembly::new(settings.reassembly),
            groups: Reassembly::new(settings.reassembly),
            sent: SentDatagrams::default(),
            stations: Stations::default(),
            incoming: IncomingValues::new(),
            unheard: Unheard::new(),
            silenced: Unheard::new(),
            joined: Vec::new(),
            now: Timestamp::default(),
            summary: Summary::default(),
            counts: LayerCounts::new(),
            drops: false,
        }
    }

    /// The same replay, which knows what nobody will listen to.
    #[must_use]
    pub fn expecting(self, unheard: Unheard) -> Self {
        Self { unheard, ..self }
    }

    /// Which side is local.
    #[must_use]
    pub const fn local(&self) -> &LocalSide {
        &self.local
    }

    /// Takes the next packet through its layers.
    pub fn packet<C: Classifier>(&mut self, record: &Record<'_>, classifier: &mut C) -> Outcome {
        self.now = self.now.max(record.time);
        while let Some(slot) = self.flows.expired(self.now) {
            let moment = Moment { flow: None, packet: record.frame, time: self.now, direction: Direction::Outbound };
            self.conclude(classifier, classifier.layers(), slot, DeleteReason::Idle, &moment);
        }
        self.reassembly.expire(self.now);
        self.groups.expire(self.now);
        let outcome = match Packet::parse(record.link_type, record.data) {
            Ok(Frame::Ip(packet)) => self.ip_packet(record, &packet, classifier),
            Ok(Frame::Other(ether_type)) => self.frame_alone(record, Outcome::NotIp(ether_type), classifier),
            Ok(Frame::UnsupportedLinkType) => Outcome::UnsupportedLinkType(record.link_type),
            Err(error) => self.frame_alone(record, Outcome::Malformed(error), classifier),
        };
        self.summary.count(&outcome);
        self.attend(record, classifier);
        outcome
    }

    fn ip_packet<C: Classifier>(&mut self, record: &Record<'_>, packet: &Packet<'_>, classifier: &mut C) -> Outcome {
        let side = self.local.side(packet, record.direction);
        match side {
            Side::Outbound => self.stations.learn(record, Direction::Outbound),
            Side::Inbound => self.stations.learn(record, Direction::Inbound),
            Side::Loopback | Side::Elsewhere => {}
        }
        // A user who says what is local says too that other packets pass through.
        let forwards = matches!(self.local, LocalSide::Given(_));
        let mut pass = Pass::new(self, classifier, record, Some(packet));
        let outcome = match side {
            Side::Outbound => pass.outbound(packet),
            Side::Inbound => pass.inbound(packet),
            Side::Loopback => {
                pass.loopback = true;
                match pass.outbound(packet) {
                    Outcome::Permitted => pass.inbound(packet),
                    stopped => stopped,
                }
            }
            Side::Elsewhere if forwards => pass.forward(packet),
            Side::Elsewhere => Outcome::Elsewhere,
        };
        pass.tell_passed(&outcome);
        outcome
    }

    fn frame_alone<C: Classifier>(&mut self, record: &Record<'_>, outcome: Outcome, classifier: &mut C) -> Outcome {
        Pass::new(self, classifier, record, None).frame_alone(outcome)
    }

    /// Ends the replay with the capture: every flow that still stands is told of as deleted, in the order of opening. Sockets are not
    /// closed by that.
    pub fn finish<C: Classifier>(&mut self, classifier: &mut C) {
        for slot in self.flows.established() {
            let now = self.now;
            self.flows.delete(slot, DeleteReason::EndOfCapture, now, &mut |event| classifier.flow_changed(&event));
        }
        self.flows.take_gone().for_each(|flow| classifier.flow_gone(flow));
    }

    /// Asks about the values at hand; what is blocked is shown to the discard layer.
    #[allow(clippy::too_many_arguments, reason = "a question has that many parts")]
    #[inline]
    fn ask<C: Classifier>(
        &mut self,
        classifier: &mut C,
        layers: LayerSet,
        stage: Stage,
        flags: ConditionFlags,
        moment: &Moment,
        shown: Direction,
        bytes: Bytes<'_>,
    ) -> Result<(), Outcome> {
        let version = self.incoming.version();
        let layer = stage.layer(version);
        self.summary.classifications += 1;
        let values = self.incoming.at(stage, false, flags, shown);
        match classifier.classify(&moment.step(layer, values, bytes)) {
            Decision::Permit => {
                self.counts.permit(layer);
                return Ok(());
            }
            Decision::Absorb => {
                self.counts.absorb(layer);
                return Err(Outcome::Absorbed { layer });
            }
            Decision::Block => self.counts.block(layer),
            Decision::Drop => {
                self.counts.block(layer);
                self.drops = true;
            }
        }
        if let Some(discard) = stage.discard(version) {
            let asked = layers.contains(discard).then(|| {
                let values = self.incoming.at(stage, true, flags, shown);
                classifier.discarded(&moment.step(discard, values, bytes))
            });
            self.count_discarded(discard, asked);
        }
        Err(Outcome::Blocked { layer })
    }

    fn count_discarded(&mut self, discard: LayerId, asked: Option<Decision>) -> Decision {
        self.summary.classifications += u64::from(asked.is_some());
        let decision = asked.unwrap_or(Decision::Permit);
        match decision {
            Decision::Permit => self.counts.permit(discard),
            Decision::Block | Decision::Absorb | Decision::Drop => self.counts.block(discard),
        }
        decision
    }

    /// Tells of a packet that a layer has decided about before.
    fn tell_blocked<C: Classifier>(&mut self, classifier: &mut C, stage: Stage, moment: &Moment, opened: Direction) {
        let version = self.incoming.version();
        // No flow: what was silenced at a discard layer.
        let silenced = stage.discard(version).filter(|_| moment.flow.is_none());
        let layer = silenced.unwrap_or(stage.layer(version));
        let shown = if matches!(stage, Stage::FlowEstablished | Stage::Stream) { opened } else { moment.direction };
        let values = self.incoming.at(stage, silenced.is_some(), NO_FLAGS, shown);
        classifier.flow_blocked(&moment.step(layer, values, Bytes::default()));
    }

    /// Ends a flow. Where a connection ends with it, ALE_ENDPOINT_CLOSURE comes first. Changes the values at hand.
    fn conclude<C: Classifier>(
        &mut self,
        classifier: &mut C,
        layers: LayerSet,
        slot: Slot,
        reason: DeleteReason,
        moment: &Moment,
    ) {
        let flow = self.flows.flow(slot);
        if flow.tcp().is_some() && flow.refusal().is_none() && flow.lifetime() != Lifetime::Ended {
            let (tuple, loopback, opened) = (flow.tuple(), flow.is_loopback(), flow.opened());
            let moment = Moment { flow: Some(flow.id()), direction: opened, ..*moment };
            self.incoming.facts.see_flow(&tuple, loopback);
            let layer = Stage::EndpointClosure.layer(self.incoming.version());
            if layers.contains(layer) {
                // A closure cannot be refused.
                let _ =
                    self.ask(classifier, layers, Stage::EndpointClosure, NO_FLAGS, &moment, opened, Bytes::default());
            } else {
                self.counts.permit(layer);
            }
        }
        let now = self.now;
        let mut tell = |event| classifier.flow_changed(&event);
        match reason {
            DeleteReason::Closed | DeleteReason::Reset => self.flows.end(slot, reason, now, &mut tell),
            _ => self.flows.delete(slot, reason, now, &mut tell),
        }
    }

    /// What the replay came to so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            flows: self.flows.opened(),
            flows_evicted: self.flows.evicted(),
            fragments: self.reassembly.counts().plus(self.groups.counts()),
            streams: self.flows.streams(),
            ..self.summary
        }
    }

    /// The layers that were met, asked or not, and how often, in the order of their numbers.
    pub fn layers(&self) -> impl Iterator<Item = (LayerId, LayerCount)> {
        self.counts.met()
    }
}

impl Moment {
    #[inline]
    fn step<'a>(&self, layer: LayerId, values: &'a openwfp_engine::Values, bytes: Bytes<'a>) -> Step<'a> {
        let Self { flow, packet, time, direction } = *self;
        let Bytes { data, range, shown } = bytes;
        Step { layer, values, data, flow, packet, time, direction, range, shown }
    }
}
