//! `wfp replay`: a capture, classified at every layer that its packets pass.

use crate::{
    args::ReplayArgs,
    json,
    output::{self, Globals},
    policies,
};
use anyhow::{Context, Result};
use openwfp_engine::{CompiledPolicy, Verdict};
use openwfp_model::{Layer, LayerId};
use openwfp_packet::{
    capture::CaptureReader,
    flow::{FlowChange, FlowEvent},
    local::{Inference, LocalSide},
    packet::{Frame, Packet},
    replay::{Classifier, Decision, Replay, ReplaySettings, Step, Summary},
};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, IsTerminal, Write},
    path::Path,
    time::{Duration, Instant},
};

/// Runs the command.
pub(crate) fn replay(args: &ReplayArgs, globals: Globals) -> Result<()> {
    let policy = policies::compiled(&args.policy, globals)?;
    let local = match args.local.is_empty() {
        true => infer(&args.capture)?,
        false => LocalSide::Given(args.local.clone()),
    };
    let statement = match &local {
        LocalSide::Inferred(inferred) => format!("local side: {inferred}"),
        LocalSide::Given(_) => "local side: as given with --local".to_owned(),
    };
    let mut broken = None;
    output::write_out(|out| {
        if globals.json {
            globals_statement(globals, &statement);
        } else {
            writeln!(out, "{statement}\n")?;
        }
        let mut replay = Replay::new(local, ReplaySettings::default());
        let mut judge = Judge { policy: &policy, out, json: globals.json, failed: None, counts: BTreeMap::new(), by: BTreeMap::new() };
        let file = File::open(&args.capture).with_context(|| format!("cannot read {}", args.capture.display()))?;
        let size = file.metadata().map_or(0, |data| data.len());
        let mut progress = Progress::new(size, globals);
        match CaptureReader::new(BufReader::with_capacity(1 << 20, file)) {
            Ok(mut reader) => {
                let mut bytes = 0u64;
                while let Some(record) = reader.next_record() {
                    match record {
                        Ok(record) => {
                            bytes += record.data.len() as u64 + 16;
                            replay.packet(&record, &mut judge);
                        }
                        Err(error) => {
                            broken = Some(error);
                            break;
                        }
                    }
                    progress.at(bytes);
                    if judge.failed.is_some() {
                        break;
                    }
                }
            }
            Err(error) => broken = Some(error),
        }
        progress.end();
        let Judge { failed, counts, by, out, .. } = judge;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let summary = replay.summary();
        if globals.json { write_summary_json(out, &summary) } else { write_summary(out, &policy, &summary, &counts, &by, globals) }
    })?;
    match broken {
        Some(error) => Err(anyhow::Error::new(error).context(format!("{} is broken", args.capture.display()))),
        None => Ok(()),
    }
}

fn globals_statement(globals: Globals, statement: &str) {
    globals.notice(statement);
}

/// Reads the capture once to see which side is local. A broken one is read as far as it goes.
fn infer(path: &Path) -> Result<LocalSide> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut inference = Inference::new();
    if let Ok(mut reader) = CaptureReader::new(BufReader::with_capacity(1 << 20, file)) {
        while let Some(Ok(record)) = reader.next_record() {
            if let Ok(Frame::Ip(packet)) = Packet::parse(record.link_type, record.data) {
                inference.observe(&packet, record.direction);
            }
        }
    }
    Ok(LocalSide::Inferred(inference.conclude()))
}

/// Permitted and blocked.
type Counts = BTreeMap<LayerId, (u64, u64)>;
/// Blocked, by filter and layer.
type ByFilter = BTreeMap<(u64, LayerId), u64>;

/// Decides by the policy, counts, and writes events.
struct Judge<'a, 'w> {
    policy: &'a CompiledPolicy,
    out: &'w mut dyn Write,
    json: bool,
    failed: Option<io::Error>,
    counts: Counts,
    by: ByFilter,
}

impl Judge<'_, '_> {
    fn write(&mut self, line: &Json) {
        if self.failed.is_none()
            && let Err(error) = writeln!(self.out, "{line}")
        {
            self.failed = Some(error);
        }
    }

    fn event(&self, step: &Step<'_>, action: &str, filter: u64, reason: &str) -> Json {
        let mut line = json!({
            "time": json::time(step.time.nanoseconds()),
            "kind": "classify",
            "layer": step.layer.name(),
            "action": action,
            "filter": json::filter(self.policy, filter),
            "sublayer": json::sublayer_name(self.policy, filter),
            "flow": step.flow.map(|flow| flow.get()),
            "packet": step.packet,
            "values": json::values(self.policy, step.layer, step.values, None),
        });
        if !reason.is_empty() {
            line["reason"] = json!(reason);
        }
        line
    }
}

impl Classifier for Judge<'_, '_> {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        let verdict: Verdict = self.policy.classify_values(step.layer, step.values);
        let decision = Decision::from(verdict.action);
        let blocked = decision == Decision::Block;
        let counts = self.counts.entry(step.layer).or_default();
        *if blocked { &mut counts.1 } else { &mut counts.0 } += 1;
        if blocked {
            *self.by.entry((verdict.filter, step.layer)).or_default() += 1;
        }
        if self.json {
            let line = self.event(step, if blocked { "block" } else { "permit" }, verdict.filter, verdict.reason.name());
            self.write(&line);
        }
        decision
    }

    fn flow_blocked(&mut self, step: &Step<'_>) {
        if self.json {
            let line = self.event(step, "block", 0, "flow-blocked");
            self.write(&line);
        }
    }

    fn flow_changed(&mut self, event: &FlowEvent) {
        if !self.json {
            return;
        }
        let mut line = json!({
            "time": json::time(event.time.nanoseconds()),
            "kind": match event.change { FlowChange::Established => "flow-established", FlowChange::Deleted(_) => "flow-deleted" },
            "flow": event.flow.get(),
        });
        if let FlowChange::Deleted(reason) = event.change {
            line["reason"] = json!(reason.name());
        }
        self.write(&line);
    }
}

fn write_summary_json(out: &mut dyn Write, summary: &Summary) -> Result<()> {
    let line = json!({
        "kind": "summary", "packets": summary.packets, "flows": summary.flows, "permitted": summary.permitted,
        "blocked": summary.blocked, "lost": 0, "malformed": summary.malformed, "elsewhere": summary.elsewhere,
        "not_ip": summary.not_ip, "unsupported": summary.unsupported,
    });
    Ok(writeln!(out, "{line}")?)
}

fn write_summary(
    out: &mut dyn Write,
    policy: &CompiledPolicy,
    summary: &Summary,
    counts: &Counts,
    by: &ByFilter,
    globals: Globals,
) -> Result<()> {
    let paint = globals.paint();
    writeln!(out, "{:28} {:>10} {:>10}", "layer", "permitted", "blocked")?;
    for layer in Layer::all() {
        if let Some((permitted, blocked)) = counts.get(&layer.id) {
            let blocked = format!("{blocked:>10}");
            let blocked = if blocked.trim() == "0" { blocked } else { paint.red(blocked) };
            writeln!(out, "{:28} {permitted:>10} {blocked}", layer.name)?;
        }
    }
    if !by.is_empty() {
        writeln!(out, "\nblocked by")?;
        let mut by: Vec<_> = by.iter().collect();
        by.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((filter, layer), count) in by {
            let name = policy.filter(*filter).map_or("no filter", |filter| filter.filter.name.as_str());
            writeln!(out, "{count:>10}  \"{name}\" at {layer}")?;
        }
    }
    let rest = [
        (summary.malformed, "malformed"),
        (summary.elsewhere, "between other machines"),
        (summary.not_ip, "not IP"),
        (summary.unsupported, "of a link type that cannot be read"),
        (summary.stray_fragments, "stray fragments"),
    ];
    let rest: Vec<String> = rest.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}")).collect();
    writeln!(
        out,
        "\n{} packets in {} flows: {} permitted, {} blocked ({} of them in flows that were refused){}",
        summary.packets,
        summary.flows,
        summary.permitted,
        summary.blocked,
        summary.flow_blocked,
        rest.concat()
    )?;
    Ok(())
}

/// A line on the terminal for captures that take longer than a second.
struct Progress {
    size: u64,
    shown: bool,
    wanted: bool,
    started: Instant,
    next: Instant,
}

impl Progress {
    fn new(size: u64, globals: Globals) -> Self {
        let started = Instant::now();
        let wanted = !globals.quiet && io::stderr().is_terminal() && !io::stdout().is_terminal() | !globals.json;
        Self { size: size.max(1), shown: false, wanted, started, next: started + Duration::from_secs(1) }
    }

    #[inline]
    fn at(&mut self, bytes: u64) {
        // the clock is looked at once for each 64 KiB or so
        if self.wanted && bytes & 0xffff < 128 && Instant::now() >= self.next {
            let part = (bytes.min(self.size) * 100 / self.size) as usize;
            let seconds = self.started.elapsed().as_secs();
            eprint!("\r[{:40}] {part:3}% {seconds}s", "#".repeat(part * 40 / 100));
            self.next += Duration::from_millis(200);
            self.shown = true;
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r{:60}\r", "");
        }
    }
}
