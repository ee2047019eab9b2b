//! `wfp replay`: a capture, classified at every layer that its packets pass.

use crate::{
    args::ReplayArgs,
    json,
    output::{self, Globals},
    progress::Progress,
    replay_callouts,
    replay_summary::{
        SHOWN_FLOWS, SHOWN_REPORTS, write_counts, write_flows, write_reports, write_summary, write_summary_json,
    },
    written::CaptureWriter,
};
use anyhow::{Context, Result, anyhow, bail};
use openwfp_callout::{CalloutReport, replay::ReplayCallouts};
use openwfp_engine::{CompiledPolicy, Verdict};
use openwfp_model::LayerId;
use openwfp_packet::{
    capture::{CaptureError, CaptureReader, Record},
    flow::{Direction, FlowChange, FlowEvent, FlowId, Selector},
    link::LinkType,
    local::{Inference, LocalSide},
    packet::{Frame, Packet},
    replay::{Classifier, Decision, Injected, LayerSet, REPLAY_LAYERS, Replay, ReplaySettings, Step},
    time::Timestamp,
    unheard::Unheard,
};
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Runs the command.
pub(crate) fn replay(args: &ReplayArgs, globals: Globals) -> Result<()> {
    let (policy, callouts) = replay_callouts::load(&args.policy, globals)?;
    let capture = if args.capture == Path::new("-") { PathBuf::from("/dev/stdin") } else { args.capture.clone() };
    let (file, size) = open(&capture)?;
    if let Some(path) = &args.write
        && is_same(&file, path)
    {
        bail!("--write: {} is the capture itself", path.display());
    }
    // one that can be read only once is not looked at before
    let mut progress = Progress::new(if size.is_some() { 2 } else { 1 }, globals);
    let before = match size {
        Some(_) => {
            progress.pass(size);
            look_before(&file, args.local.is_empty(), &mut progress)?
        }
        None if args.local.is_empty() => {
            let once = anyhow!("{} can be read only once: say with --local which side is local", capture.display());
            output::words(Err(once))?
        }
        None => Before::default(),
    };
    let local = match args.local.is_empty() {
        true => LocalSide::Inferred(before.inference.conclude()),
        false => LocalSide::Given(args.local.clone()),
    };
    let statement = match &local {
        LocalSide::Inferred(inferred) => inferred.to_string(),
        LocalSide::Given(_) => "local: as given with --local".to_owned(),
    };
    let mut broken = None;
    output::write_out(|out| {
        if globals.json {
            globals.notice(&statement);
        }
        let group_forwarded_fragments = args.group_forwarded_fragments;
        let settings = ReplaySettings { group_forwarded_fragments, ..ReplaySettings::default() };
        let mut replay = Replay::new(local, settings).expecting(before.unheard);
        let writer = args.write.as_deref().map(|path| {
            let file = File::create(path).and_then(|file| CaptureWriter::new(BufWriter::new(file)));
            file.with_context(|| format!("cannot write {}", path.display()))
        });
        let mut judge = Judge {
            policy: &policy,
            callouts,
            reports: vec![],
            more_reports: 0,
            writer: writer.transpose()?,
            packet_time: Timestamp::default(),
            out,
            globals,
            failed: None,
            line: vec![],
            packet: 0,
            layers: asked(&policy, globals),
            by: BTreeMap::new(),
            flows: vec![],
            sequence: 0,
            time: 0,
        };
        progress.pass(size);
        match reader(&file) {
            Ok(mut reader) => {
                while let Some(record) = next(&mut reader, &mut progress) {
                    match record {
                        Ok(record) => {
                            (judge.packet, judge.packet_time) = (record.frame, record.time);
                            replay.packet(&record, &mut judge);
                        }
                        Err(error) => {
                            broken = Some(error);
                            break;
                        }
                    }
                    if judge.failed.is_some() {
                        break;
                    }
                }
            }
            Err(error) => broken = Some(error),
        }
        progress.end();
        replay.finish(&mut judge);
        judge.finish_callouts();
        let Judge { failed, by, flows, out, time, callouts, reports, more_reports, writer, .. } = judge;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if let Some(writer) = writer {
            writer.end()?;
        }
        let summary = replay.summary();
        if globals.json {
            return write_summary_json(out, &summary, time, callouts.as_ref());
        }
        if summary.packets == 0 {
            return Ok(writeln!(out, "no packets")?);
        }
        writeln!(out, "{statement}\n")?;
        write_counts(out, &policy, &replay, &by, globals)?;
        write_reports(out, &reports, more_reports, globals)?;
        write_flows(out, &flows, &summary, globals)?;
        write_summary(out, &summary)
    })?;
    match broken {
        // the error names its cause itself
        Some(error) => bail!("{} is broken: {error}", args.capture.display()),
        None => Ok(()),
    }
}

/// What is found out about a capture before it is replayed.
#[derive(Default)]
struct Before {
    inference: Inference,
    unheard: Unheard,
}

/// Opens a capture. Its size, unless it can be read only once, as what comes through a pipe.
fn open(path: &Path) -> Result<(File, Option<u64>)> {
    let cannot_read = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(cannot_read)?;
    let found = file.metadata().with_context(cannot_read)?;
    if found.is_dir() {
        bail!("{} is a folder, not a capture", path.display());
    }
    let size = found.is_file().then_some(found.len());
    Ok((file, size))
}

/// Whether a file goes by this name too. To write there would empty it.
fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(file), Ok(there)) = (file.metadata(), path.metadata()) else { return false };
    file.is_file() && (file.dev(), file.ino()) == (there.dev(), there.ino())
}

fn reader(file: &File) -> Result<CaptureReader<BufReader<&File>>, CaptureError> {
    CaptureReader::new(BufReader::with_capacity(1 << 20, file))
}

fn next<'a>(
    reader: &'a mut CaptureReader<BufReader<&File>>,
    progress: &mut Progress,
) -> Option<Result<Record<'a>, CaptureError>> {
    progress.at(reader.position());
    reader.next_record()
}

/// Reads a file once to see which side is local, and what nobody listened to. A broken one is read as far as it goes.
fn look_before(mut file: &File, infer: bool, progress: &mut Progress) -> Result<Before> {
    let mut before = Before::default();
    if let Ok(mut reader) = reader(file) {
        while let Some(Ok(record)) = next(&mut reader, progress) {
            if let Ok(Frame::Ip(packet)) = Packet::parse(record.link_type, record.data) {
                if infer {
                    before.inference.observe(&packet, record.direction);
                }
                before.unheard.observe(&packet);
            }
        }
    }
    file.rewind().context("cannot read the capture again")?;
    Ok(before)
}

/// Blocked, by filter and layer.
pub(crate) type ByFilter = BTreeMap<(u64, LayerId), u64>;

/// The layers that have filters; every one when each classification is to be written.
fn asked(policy: &CompiledPolicy, globals: Globals) -> LayerSet {
    if globals.json {
        return LayerSet::ALL;
    }
    REPLAY_LAYERS.into_iter().filter(|&layer| !policy.layer_of(layer).places.is_empty()).collect()
}

/// Decides by the policy, counts, and writes events.
struct Judge<'a, 'w> {
    policy: &'a CompiledPolicy,
    callouts: Option<ReplayCallouts>,
    /// The first reports of callouts, or all of them.
    reports: Vec<CalloutReport>,
    more_reports: u64,
    /// Where packets that pass are written.
    writer: Option<CaptureWriter<BufWriter<File>>>,
    /// When the frame at hand was captured.
    packet_time: Timestamp,
    out: &'w mut dyn Write,
    globals: Globals,
    failed: Option<io::Error>,
    /// The line at hand.
    line: Vec<u8>,
    /// The frame at hand.
    packet: u64,
    /// How many classifications have been written.
    sequence: u64,
    /// When the last of them was.
    time: u64,
    /// The layers that are asked at.
    layers: LayerSet,
    by: ByFilter,
    /// The first established flows, or all of them.
    flows: Vec<FlowEvent>,
}

/// A classification, as its line has it.
#[derive(Serialize)]
struct Classified<'a> {
    time: String,
    kind: &'static str,
    layer: &'static str,
    action: &'a str,
    filter: Option<json::FilterName<'a>>,
    sublayer: Option<&'a str>,
    /// A replay has no CPUs: all events are counted as one's.
    cpu: u16,
    seq: u64,
    flow: Option<u64>,
    packet: u64,
    values: json::EventValues<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<&'static str>,
    /// How many bytes of data the layer was shown; at layers that see data.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    /// A capture knows no processes.
    process: Option<()>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

impl Judge<'_, '_> {
    fn write(&mut self, line: &impl Serialize) {
        if self.failed.is_some() {
            return;
        }
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, line).map_err(io::Error::from);
        self.line.push(b'\n');
        if let Err(error) = written.and_then(|()| self.out.write_all(&self.line)) {
            self.failed = Some(error);
        }
    }

    fn classified(&mut self, step: &Step<'_>, action: &str, filter: u64, reason: &str) {
        let policy = self.policy;
        let seq = self.sequence;
        self.sequence += 1;
        self.time = step.time.nanoseconds();
        self.write(&Classified {
            time: json::time(step.time.nanoseconds()),
            kind: "classify",
            layer: step.layer.name(),
            action,
            filter: json::filter(policy, filter),
            sublayer: json::sublayer_name(policy, filter),
            cpu: 0,
            seq,
            flow: step.flow.map(|flow| flow.get()),
            packet: step.packet,
            values: json::values(policy, step.layer, step.values, json::Told::default()),
            unknown: json::unknown(step.layer, step.values),
            bytes: sees_data(step.layer).then_some(step.data.len()),
            process: None,
            reason,
        });
    }
}

impl Judge<'_, '_> {
    fn decide(&mut self, step: &Step<'_>) -> (Decision, u64) {
        let (decision, verdict): (Decision, Verdict) = match &mut self.callouts {
            Some(callouts) => {
                let decided = callouts.decide(self.policy, step);
                (decided.decision, decided.verdict)
            }
            None => {
                let verdict = self.policy.classify_values(step.layer, step.values);
                (Decision::from(verdict.action), verdict)
            }
        };
        self.told(step, decision, &verdict);
        (decision, verdict.filter)
    }

    /// Writes what was decided, and what callouts reported meanwhile.
    fn told(&mut self, step: &Step<'_>, decision: Decision, verdict: &Verdict) {
        if self.globals.json {
            let (action, reason) = match decision {
                Decision::Permit => ("permit", verdict.reason.name()),
                Decision::Absorb => ("block", "absorbed"),
                Decision::Block | Decision::Drop => ("block", verdict.reason.name()),
            };
            self.classified(step, action, verdict.filter, reason);
        }
        self.take_reports();
    }

    fn take_reports(&mut self) {
        while let Some(report) = self.callouts.as_ref().and_then(|callouts| callouts.registry().next_report()) {
            if self.globals.json {
                self.write(&replay_callouts::event(&report));
            } else if self.globals.verbose || self.reports.len() < SHOWN_REPORTS {
                self.reports.push(report);
            } else {
                self.more_reports += 1;
            }
        }
    }

    fn finish_callouts(&mut self) {
        if let Some(callouts) = &mut self.callouts {
            callouts.finish();
        }
        self.take_reports();
    }
}

impl Classifier for Judge<'_, '_> {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        let (decision, filter) = self.decide(step);
        if matches!(decision, Decision::Block | Decision::Drop) {
            *self.by.entry((filter, step.layer)).or_default() += 1;
        }
        decision
    }

    fn layers(&self) -> LayerSet {
        self.layers
    }

    /// What is blocked is blocked already, so no filter is counted.
    fn discarded(&mut self, step: &Step<'_>) -> Decision {
        self.decide(step).0
    }

    fn flow_blocked(&mut self, step: &Step<'_>) {
        if self.globals.json {
            self.classified(step, "block", 0, "flow-blocked");
        }
    }

    fn flow_changed(&mut self, event: &FlowEvent) {
        if let Some(callouts) = &mut self.callouts {
            callouts.flow_changed(event);
            self.take_reports();
        }
        if !self.globals.json {
            let established = event.change == FlowChange::Established;
            if established && (self.globals.verbose || self.flows.len() < SHOWN_FLOWS) {
                self.flows.push(*event);
            }
            return;
        }
        let mut line = json!({
            "time": json::time(event.time.nanoseconds()),
            "kind": match event.change {
                FlowChange::Established => "flow-established",
                FlowChange::Deleted(_) => "flow-deleted",
            },
            "flow": event.flow.get(),
            "packet": self.packet,
            "values": flow_values(event),
        });
        if let FlowChange::Deleted(reason) = event.change {
            line["reason"] = json!(reason.name());
        }
        self.write(&line);
    }

    fn flow_gone(&mut self, flow: FlowId) {
        if let Some(callouts) = &mut self.callouts {
            callouts.flow_gone(flow);
            self.take_reports();
        }
    }

    fn wants_bytes(&self) -> bool {
        self.callouts.is_some() || self.writer.is_some()
    }

    fn stream_ended(&mut self, step: &Step<'_>) -> Decision {
        let Some(callouts) = &mut self.callouts else { return Decision::Permit };
        let decided = callouts.stream_ended(self.policy, step);
        if decided.decision != Decision::Permit {
            self.told(step, decided.decision, &decided.verdict);
            *self.by.entry((decided.verdict.filter, step.layer)).or_default() += 1;
        }
        self.take_reports();
        decided.decision
    }

    fn next_injected(&mut self) -> Option<Injected> {
        self.callouts.as_mut()?.next_injected(self.policy)
    }

    fn next_aborted(&mut self) -> Option<FlowId> {
        self.callouts.as_mut()?.next_aborted()
    }

    fn passed(&mut self, link_type: LinkType, bytes: &[u8], _: Direction) {
        let time = self.packet_time;
        if let Some(Err(error)) = self.writer.as_mut().map(|writer| writer.packet(link_type, time, bytes)) {
            self.failed.get_or_insert(error);
        }
    }
}

/// Whether a layer is shown data.
fn sees_data(layer: LayerId) -> bool {
    let layers = [LayerId::STREAM_V4, LayerId::STREAM_V6, LayerId::DATAGRAM_DATA_V4, LayerId::DATAGRAM_DATA_V6];
    layers.contains(&layer)
}

/// What tells a flow from others, as fields. An ICMP message has its type and code where others have ports.
fn flow_values(event: &FlowEvent) -> Json {
    let tuple = &event.tuple;
    let mut values = json!({
        "IP_PROTOCOL": tuple.protocol,
        "IP_LOCAL_ADDRESS": tuple.local.to_string(),
        "IP_REMOTE_ADDRESS": tuple.remote.to_string(),
        "DIRECTION": event.opened as u8,
    });
    let ports = match tuple.selector {
        Selector::Ports { local, remote } => Some((local, remote)),
        Selector::Icmp { message_type, code, .. } => Some((message_type.into(), code.into())),
        Selector::None => None,
    };
    if let Some((local, remote)) = ports {
        values["IP_LOCAL_PORT"] = json!(local);
        values["IP_REMOTE_PORT"] = json!(remote);
    }
    values
}
