//! A classifier that changes packets into anything, takes them away and ends flows: nothing panics, accounts are right.

use std::collections::{BTreeSet, VecDeque};

use openwfp_packet::capture::CaptureReader;
use openwfp_packet::flow::{FlowChange, FlowEvent, FlowId};
use openwfp_packet::link::LinkType;
use openwfp_packet::local::LocalSide;
use openwfp_packet::replay::{Classifier, Decision, Injected, LayerSet, Replay, ReplaySettings, Step};

/// Decides by chance; a chance is a seed and how often it was asked.
struct Whim {
    state: u64,
    queue: VecDeque<Injected>,
    marks: u64,
    injected: u64,
    /// Flows that were established and not deleted.
    established: BTreeSet<FlowId>,
    aborts: Vec<FlowId>,
    asked: u64,
}

impl Whim {
    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }

    /// Brings the packet at hand in once more, with a few bytes changed, cut or added.
    fn bring_in(&mut self, step: &Step<'_>) {
        let frame = step.layer.name().contains("MAC_FRAME");
        let mut bytes = match frame {
            true => step.shown.bytes.to_vec(),
            false => [step.shown.link_header, step.shown.bytes].concat(),
        };
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len().max(1) as u64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = self.state as u8;
            }
        }
        match self.below(8) {
            0 => bytes.truncate(self.below(bytes.len().max(1) as u64) as usize),
            1 => bytes.extend([7; 50]),
            _ => {}
        }
        self.marks += 1;
        self.injected += 1;
        self.queue.push_back(Injected {
            layer: step.layer,
            direction: step.direction,
            link_type: if frame { LinkType::ETHERNET } else { step.shown.link_type },
            bytes,
            interface: None,
            loopback: step.shown.loopback,
            reassembled: step.shown.reassembled,
            mark: self.marks,
        });
    }
}

impl Classifier for Whim {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        self.asked += 1;
        let shown = &step.shown;
        assert!(shown.transport <= shown.payload && shown.payload <= shown.bytes.len(), "{shown:?}");
        assert!(shown.mark.is_none_or(|mark| mark <= self.marks));
        if let (Some((from, to)), data) = (step.range, step.data) {
            assert!(data.len() as u32 <= to.wrapping_sub(from), "no more data than there are numbers for");
        }
        match self.below(30) {
            0 => Decision::Block,
            1 => Decision::Drop,
            2..6 if !shown.bytes.is_empty() && self.injected < 100_000 => {
                self.bring_in(step);
                Decision::Absorb
            }
            6 => {
                self.aborts.extend(step.flow);
                Decision::Permit
            }
            _ => Decision::Permit,
        }
    }

    fn layers(&self) -> LayerSet {
        LayerSet::ALL
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    fn stream_ended(&mut self, _: &Step<'_>) -> Decision {
        if self.below(5) == 0 { Decision::Drop } else { Decision::Permit }
    }

    fn next_injected(&mut self) -> Option<Injected> {
        self.queue.pop_front()
    }

    fn next_aborted(&mut self) -> Option<FlowId> {
        self.aborts.pop()
    }

    fn flow_changed(&mut self, event: &FlowEvent) {
        match event.change {
            FlowChange::Established => assert!(self.established.insert(event.flow), "{event:?}"),
            FlowChange::Deleted(_) => assert!(self.established.remove(&event.flow), "{event:?}"),
        }
    }
}

#[test]
fn whatever_a_classifier_brings_in_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../captures");
    let mut asked = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng") {
            continue;
        }
        let file = std::fs::read(&path).unwrap();
        for seed in 1..400u64 {
            let local = ["192.0.2.1/32", "2001:db8::1/128"].map(|prefix| prefix.parse().unwrap());
            let mut replay = Replay::new(LocalSide::Given(local.to_vec()), ReplaySettings::default());
            let mut whim = Whim {
                state: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed),
                queue: VecDeque::new(),
                marks: 0,
                injected: 0,
                established: BTreeSet::new(),
                aborts: vec![],
                asked: 0,
            };
            let mut reader = CaptureReader::new(file.as_slice()).unwrap();
            while let Some(Ok(record)) = reader.next_record() {
                replay.packet(&record, &mut whim);
            }
            replay.finish(&mut whim);
            let summary = replay.summary();
            assert!(whim.queue.is_empty(), "each injected packet has its turn");
            assert_eq!(summary.injected, whim.injected);
            assert!(summary.injected_permitted <= summary.injected);
            assert!(whim.established.is_empty(), "{path:?} {seed}: {:?}", whim.established);
            asked += whim.asked;
        }
    }
    assert!(asked > 80_000, "{asked}");
}
