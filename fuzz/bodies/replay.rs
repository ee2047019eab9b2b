//! What must hold in every replay, whatever the packets are.

use std::collections::HashMap;

use openwfp_engine::{EMPTY, Schema, WORDS};
use openwfp_packet::capture::Record;
use openwfp_packet::flow::{FlowChange, FlowEvent, FlowId, FlowSettings};
use openwfp_packet::fragments::ReassemblySettings;
use openwfp_packet::local::LocalSide;
use openwfp_packet::replay::{Classifier, Decision, Outcome, REPLAY_LAYERS, Replay, ReplaySettings, Step};

/// A replay that looks over its own shoulder. Tables are small, so that few packets fill them.
pub struct Audit {
    replay: Replay,
    auditor: Auditor,
}

impl Audit {
    /// A replay in which a step is blocked when its number is a multiple of `blocks`; 0: none is.
    pub fn new(local: LocalSide, blocks: u64) -> Self {
        let flows = FlowSettings { capacity: 8, ..FlowSettings::default() };
        let settings = ReplaySettings { flows, reassembly: ReassemblySettings { datagrams: 4, bytes: 1 << 16 } };
        let auditor = Auditor { blocks, ..Auditor::default() };
        Self { replay: Replay::new(local, settings), auditor }
    }

    /// Replays a packet.
    pub fn packet(&mut self, record: &Record<'_>) {
        self.auditor.begin(record);
        let outcome = self.replay.packet(record, &mut self.auditor);
        self.auditor.end(&outcome);
    }

    /// Checks the account at the end.
    pub fn finish(&self) {
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
        assert!(self.auditor.established.values().all(|&established| established <= 1));
    }
}

#[derive(Default)]
struct Auditor {
    blocks: u64,
    steps: u64,
    frame: u64,
    blocked: bool,
    told_blocked: bool,
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
        assert!(!self.blocked && !self.told_blocked, "a blocked packet goes on to {}", step.layer);
        assert_eq!(step.packet, self.frame);
        assert!(REPLAY_LAYERS.contains(&step.layer));
        let fields = Schema::of(step.layer).fields();
        for word in 0..WORDS {
            let of_field = fields.iter().any(|field| (field.first..field.first + field.count).contains(&word));
            assert!(of_field || step.values.get(word) == EMPTY, "{} has no word {word}", step.layer);
        }
        self.steps += 1;
        self.blocked = self.blocks != 0 && self.steps.is_multiple_of(self.blocks);
        if self.blocked { Decision::Block } else { Decision::Permit }
    }

    fn flow_blocked(&mut self, step: &Step<'_>) {
        assert!(step.flow.is_some());
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
