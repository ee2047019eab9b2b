//! What must hold in every replay, whatever the packets are.

use std::collections::HashMap;

use openwfp_engine::{EMPTY, Schema, WORDS};
use openwfp_packet::capture::Record;
use openwfp_packet::flow::{FlowChange, FlowEvent, FlowId, FlowSettings};
use openwfp_packet::fragments::ReassemblySettings;
use openwfp_packet::local::LocalSide;
use openwfp_packet::replay::{Classifier, Decision, Outcome, REPLAY_LAYERS, Replay, ReplaySettings, Step};
use openwfp_packet::stream::StreamSettings;
use openwfp_packet::unheard::Unheard;

/// So many bytes wait in streams at most.
const STREAMS: StreamSettings = StreamSettings { bytes: 1 << 12, all_bytes: 1 << 13 };

/// A replay that looks over its own shoulder. Tables are small, so that few packets fill them.
pub struct Audit {
    replay: Replay,
    auditor: Auditor,
}

impl Audit {
    /// A replay in which a step is blocked when its number is a multiple of `blocks`; 0: none is.
    pub fn new(local: LocalSide, blocks: u64) -> Self {
        let flows = FlowSettings { capacity: 8, ..FlowSettings::default() };
        let reassembly = ReassemblySettings { datagrams: 4, bytes: 1 << 16 };
        let settings =
            ReplaySettings { flows, reassembly, streams: STREAMS, group_forwarded_fragments: blocks % 2 == 1 };
        let auditor = Auditor { blocks, ..Auditor::default() };
        Self { replay: Replay::new(local, settings), auditor }
    }

    /// The same replay, which knows what nobody will listen to.
    pub fn expecting(mut self, unheard: Unheard) -> Self {
        self.replay = self.replay.expecting(unheard);
        self.auditor.expects = true;
        self
    }

    /// Replays a packet.
    pub fn packet(&mut self, record: &Record<'_>) {
        self.auditor.begin(record);
        let outcome = self.replay.packet(record, &mut self.auditor);
        self.auditor.end(&outcome);
    }

    /// Ends the replay and checks its account.
    pub fn finish(&mut self) {
        self.auditor.blocked = false;
        self.replay.finish(&mut self.auditor);
        let summary = self.replay.summary();
        let parts = [
            summary.permitted,
            summary.blocked,
            summary.stray_fragments,
            summary.malformed,
            summary.elsewhere,
            summary.not_ip,
            summary.unsupported,
        ];
        assert_eq!(summary.packets, parts.iter().sum::<u64>(), "{summary:?}");
        assert_eq!(summary.classifications, self.auditor.steps);
        assert!(summary.flow_blocked <= summary.blocked);
        assert!(self.auditor.established.values().all(|&established| established == 0), "every flow is deleted");
        let met = self.replay.layers().map(|(_, count)| count.permitted + count.blocked).sum::<u64>();
        assert_eq!(met, summary.classifications, "all layers are asked at");
        assert!(summary.streams.most_waiting <= STREAMS.all_bytes as u64, "{:?}", summary.streams);
    }
}

#[derive(Default)]
struct Auditor {
    blocks: u64,
    steps: u64,
    frame: u64,
    blocked: bool,
    told_blocked: bool,
    /// Whether it is known what nobody listens to.
    expects: bool,
    /// The layer that blocked last.
    blocking: &'static str,
    /// Established and not deleted: 1; deleted: 0.
    established: HashMap<FlowId, u8>,
}

impl Auditor {
    fn begin(&mut self, record: &Record<'_>) {
        (self.frame, self.blocked, self.told_blocked) = (record.frame, false, false);
    }

    fn end(&self, outcome: &Outcome) {
        match outcome {
            // A later fragment shares what became of the first one.
            Outcome::Blocked { .. } | Outcome::FlowBlocked => {}
            _ => assert!(!self.blocked && !self.told_blocked, "{outcome:?} after a block"),
        }
    }
}

impl Classifier for Auditor {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        let name = step.layer.name();
        // A connection that a packet ends is over, even when the packet is stopped below.
        let of_packet = !name.contains("CLOSURE");
        assert!(!of_packet || !self.blocked && !self.told_blocked, "a blocked packet goes on to {name}");
        assert_eq!(step.packet, self.frame);
        assert!(REPLAY_LAYERS.contains(&step.layer));
        let fields = Schema::of(step.layer).fields();
        for word in 0..WORDS {
            let of_field = fields.iter().any(|field| (field.first..field.first + field.count).contains(&word));
            assert!(of_field || step.values.get(word) == EMPTY, "{} has no word {word}", step.layer);
        }
        let sees_data = name.starts_with("STREAM_V") || name.starts_with("DATAGRAM_DATA");
        assert!(sees_data || step.data.is_empty(), "{name} sees no data");
        self.steps += 1;
        let block = self.blocks != 0 && self.steps.is_multiple_of(self.blocks);
        // Data that were received before do not stop the packet at hand.
        self.blocked |= block && of_packet && !name.starts_with("STREAM_V");
        self.blocking = if block { name } else { "" };
        if block { Decision::Block } else { Decision::Permit }
    }

    fn discarded(&mut self, step: &Step<'_>) -> Decision {
        let (version, discard) = step.layer.name().rsplit_once('_').unwrap();
        let unheard =
            self.expects && ["INBOUND_IPPACKET", "INBOUND_TRANSPORT"].iter().any(|name| version.starts_with(name));
        assert!(discard == "DISCARD" && (self.blocking == version || unheard), "only what was blocked is discarded");
        self.steps += 1;
        if self.steps.is_multiple_of(2) { Decision::Block } else { Decision::Permit }
    }

    fn flow_blocked(&mut self, step: &Step<'_>) {
        assert!(step.flow.is_some() || step.layer.name().ends_with("DISCARD"));
        self.told_blocked = true;
    }

    fn flow_changed(&mut self, event: &FlowEvent) {
        let before = match event.change {
            FlowChange::Established => self.established.insert(event.flow, 1),
            FlowChange::Deleted(_) => self.established.insert(event.flow, 0),
        };
        let expected = match event.change {
            FlowChange::Established => None,
            FlowChange::Deleted(_) => Some(1),
        };
        assert_eq!(before, expected, "{event:?}");
    }
}
