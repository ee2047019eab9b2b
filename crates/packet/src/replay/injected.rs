//! What a classifier brings in, and what it wants ended.

use super::pass::Pass;
use super::stage::Stage;
use super::{Bytes, Classifier, Decision, Injected, Outcome, Replay, Shown};
use crate::capture::Record;
use crate::flow::Direction;
use crate::link::LinkType;
use crate::packet::{Frame, Packet};
use crate::wire::EthernetFrame;

/// So many packets are taken from a classifier after one packet of the capture, so that none goes on for ever.
const MOST_INJECTED: usize = 1 << 16;

impl Replay {
    /// Takes what the classifier brings in after a packet, and tells it what is gone.
    pub(super) fn attend<C: Classifier>(&mut self, record: &Record<'_>, classifier: &mut C) {
        for _ in 0..MOST_INJECTED {
            let Some(injected) = classifier.next_injected() else { break };
            self.summary.injected += 1;
            let outcome = self.inject(record, &injected, classifier);
            self.summary.injected_permitted += u64::from(outcome.is_permitted());
        }
        while let Some(flow) = classifier.next_aborted() {
            if let Some(slot) = self.flows.find_id(flow) {
                let now = self.now;
                self.flows.drop_flow(slot, now, &mut |event| classifier.flow_changed(&event));
            }
        }
        self.flows.take_gone().for_each(|flow| classifier.flow_gone(flow));
    }

    /// Takes an injected packet from its layer on to the end of its way.
    fn inject<C: Classifier>(&mut self, record: &Record<'_>, injected: &Injected, classifier: &mut C) -> Outcome {
        let Some(entry) = Stage::of(injected.layer) else { return Outcome::Blocked { layer: injected.layer } };
        let record = Record {
            link_type: injected.link_type,
            interface: injected.interface.or(record.interface),
            direction: None,
            data: &injected.bytes,
            original_length: injected.bytes.len().try_into().unwrap_or(u32::MAX),
            ..*record
        };
        let parsed = Packet::parse(record.link_type, record.data);
        let packet = match &parsed {
            Ok(Frame::Ip(packet)) => packet,
            Ok(Frame::Other(_) | Frame::UnsupportedLinkType) | Err(_) => {
                let mut pass = Pass::new(self, classifier, &record, None);
                pass.mark = Some(injected.mark);
                return pass.inject_frame(entry, injected);
            }
        };
        let mut pass = Pass::new(self, classifier, &record, Some(packet));
        (pass.entry, pass.mark) = (Some(entry), Some(injected.mark));
        (pass.loopback, pass.reassembled) = (injected.loopback, injected.reassembled);
        let outcome = match (entry, injected.direction) {
            (Stage::Forward, _) => pass.forward(packet),
            (_, Direction::Inbound) => pass.inbound(packet),
            (_, Direction::Outbound) => match pass.outbound(packet) {
                Outcome::Permitted if injected.loopback && pass.entry.is_none() => pass.inbound(packet),
                ended => ended,
            },
        };
        // What never came to the layer where it was to begin was asked about by nobody.
        let outcome = match outcome {
            passed if passed.is_permitted() && pass.entry.is_some() => Outcome::Blocked { layer: injected.layer },
            outcome => outcome,
        };
        pass.tell_passed(&outcome);
        outcome
    }
}

impl<C: Classifier> Pass<'_, '_, C> {
    /// Takes an injected frame that holds no IP packet through the layer of frames; there is no other for it.
    fn inject_frame(&mut self, entry: Stage, injected: &Injected) -> Outcome {
        let blocked = Outcome::Blocked { layer: injected.layer };
        if !matches!(entry, Stage::InboundFrame | Stage::OutboundFrame) || injected.link_type != LinkType::ETHERNET {
            return blocked;
        }
        let Ok(frame) = EthernetFrame::new_checked(&injected.bytes) else { return blocked };
        self.begin(injected.direction);
        let outcome = self.classify_frame(&frame, false).map_or_else(|blocked| blocked, |()| Outcome::Permitted);
        self.tell_passed(&outcome);
        outcome
    }

    /// Asks about the end of one direction of a stream.
    pub(super) fn ask_end(&mut self) -> Result<(), Outcome> {
        let Some(packet) = self.packet else { return Ok(()) };
        self.see();
        let version = packet.version();
        let layer = Stage::Stream.layer(version);
        let values = self.replay.incoming.at(Stage::Stream, false, super::pass::NO_FLAGS, self.opened);
        let moment = super::Moment {
            flow: self.flow,
            packet: self.record.frame,
            time: self.record.time,
            direction: self.direction,
        };
        let bytes = Bytes { shown: Shown { mark: self.mark, ..Shown::default() }, ..Bytes::default() };
        let decision = self.classifier.stream_ended(&moment.step(layer, values, bytes));
        self.replay.drops |= decision == Decision::Drop;
        self.drop_flow();
        match decision {
            Decision::Permit => Ok(()),
            Decision::Absorb => Err(Outcome::Absorbed { layer }),
            Decision::Block | Decision::Drop => {
                self.replay.counts.block(layer);
                Err(Outcome::Blocked { layer })
            }
        }
    }
}
