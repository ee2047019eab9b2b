//! The events of a run, for people on standard error and for programs in a file.

use super::{Ended, file::EventFile};
use crate::{
    json,
    output::{Globals, Paint, complain},
    readable::printable,
    replay_callouts,
    run::session::Watcher,
};
use anyhow::Result;
use openwfp_callout::CalloutReport;
use openwfp_engine::{CompiledPolicy, words};
use openwfp_kernel::events::{EndOfFlow, Event, EventKind};
use openwfp_model::{FieldId, LayerId};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Where events go.
pub(super) struct Recorder {
    /// The policy that holds, and before it the last ones, whose events may still come.
    policies: Vec<Arc<CompiledPolicy>>,
    trace: Option<Trace>,
    file: Option<EventFile>,
    /// The flows that are established.
    flows: HashSet<u64>,
    /// How many there have been; `None` where the layer that tells of them is not recorded.
    flows_made: Option<u64>,
    sequences: BTreeMap<u16, Sequence>,
    lost: u64,
}

/// How events go to standard error.
#[derive(Clone, Copy)]
enum Trace {
    /// For people.
    Text(Paint),
    /// As in the file.
    Json,
}

/// The event numbers of one CPU.
#[derive(Default)]
struct Sequence {
    /// The number after the highest that was seen.
    next: u64,
    /// Ranges of numbers below it that were not seen, and since when they have been waited for: a program that
    /// is interrupted by another hands its event over after it.
    gaps: Vec<(u64, u64, Instant)>,
}

/// A number that does not come within this time is lost.
const PATIENCE: Duration = Duration::from_secs(1);

impl Sequence {
    fn see(&mut self, number: u64) {
        if number >= self.next {
            self.expect(number);
            self.next = number + 1;
        } else if let Some(place) = self.gaps.iter().position(|&(first, last, _)| first <= number && number <= last) {
            let (first, last, since) = self.gaps.remove(place);
            if first < number {
                self.gaps.push((first, number - 1, since));
            }
            if number < last {
                self.gaps.push((number + 1, last, since));
            }
        }
    }

    /// All numbers below this one have been given out.
    fn expect(&mut self, number: u64) {
        if number > self.next {
            self.gaps.push((self.next, number - 1, Instant::now()));
            self.next = number;
        }
    }

    /// The ranges that have been waited for so long.
    fn given_up(&mut self, patience: Duration) -> Vec<(u64, u64)> {
        let lost = self.gaps.extract_if(.., |gap| gap.2.elapsed() >= patience);
        lost.map(|(first, last, _)| (first, last)).collect()
    }
}

impl Recorder {
    /// For a run that begins with this policy. The file is not looked at before [`Watcher::begin`] is called.
    pub fn new(
        policy: Arc<CompiledPolicy>,
        recorded: &[LayerId],
        trace: bool,
        path: Option<&Path>,
        globals: Globals,
    ) -> Self {
        let trace = trace.then(|| if globals.json { Trace::Json } else { Trace::Text(globals.paint_error()) });
        Self {
            policies: vec![policy],
            trace,
            file: path.map(EventFile::new),
            flows: HashSet::new(),
            flows_made: recorded.iter().any(|&layer| tells_of_flows(layer)).then_some(0),
            sequences: BTreeMap::new(),
            lost: 0,
        }
    }

    /// Whether anybody takes lines of JSON.
    fn takes_lines(&self) -> bool {
        self.file.is_some() || matches!(self.trace, Some(Trace::Json))
    }

    /// A disk that is full does not stop the command; the run says so at its end.
    fn write(&mut self, line: &Json) {
        if let Some(Trace::Json) = self.trace {
            complain(format_args!("{line}"));
        }
        if let Some(file) = &mut self.file {
            file.line(line);
        }
    }

    fn report_lost(&mut self, patience: Duration) {
        let mut lost = vec![];
        for (&cpu, sequence) in &mut self.sequences {
            lost.extend(sequence.given_up(patience).into_iter().map(|range| (cpu, range)));
        }
        for (cpu, (first, last)) in lost {
            let count = last - first + 1;
            self.lost += count;
            let line = json!({"time": now(), "kind": "lost", "count": count, "cpu": cpu, "seq": [first, last]});
            self.write(&line);
        }
    }

    /// Writes the end; whether everything could be written.
    pub fn finish(mut self, ended: &Ended) -> Result<()> {
        for (cpu, &made) in (0u16..).zip(&ended.sequences) {
            self.sequences.entry(cpu).or_default().expect(made);
        }
        self.report_lost(Duration::ZERO);
        let summary = json!({
            "time": now(), "kind": "summary", "packets": ended.packets, "flows": self.flows_made,
            "permitted": ended.permitted, "blocked": ended.blocked, "lost": self.lost,
        });
        self.write(&summary);
        if let Some(Trace::Text(paint)) = self.trace {
            let lost = if self.lost > 0 { format!(", {} events lost", self.lost) } else { String::new() };
            let (permitted, blocked) = (ended.permitted, ended.blocked);
            complain(format_args!("{} {permitted} permitted, {blocked} blocked{lost}", paint.dim("wfp:")));
        }
        self.file.map_or(Ok(()), EventFile::end)
    }

    /// The policy that has decided an event. (One of a generation that nobody knows was closed, and names no filter.)
    fn policy_of(&self, event: &Event) -> Option<&CompiledPolicy> {
        let of_event = |policy: &&Arc<CompiledPolicy>| u64::from(policy.generation()) == event.generation;
        self.policies.iter().find(of_event).or(self.policies.last()).map(|policy| &**policy)
    }

    /// What holds now.
    fn write_policy(&mut self, error: Option<&str>) {
        let Some(policy) = self.policies.last() else { return };
        let (generation, filters) = (policy.generation(), policy.filters().len());
        let mut line = json!({"time": now(), "kind": "policy", "generation": generation, "filters": filters});
        if let Some(error) = error {
            line["error"] = json!(error);
        }
        self.write(&line);
    }

    fn json(&self, event: &Event) -> Json {
        let policy = self.policy_of(event);
        let identity = &event.identity;
        let known = identity.process.started != 0;
        let application = (known && identity.label.state.is_known()).then_some(&*event.program);
        let told = json::Told { application, cgroup: event.cgroup.as_deref().filter(|_| known) };
        let mut line = json!({
            "time": time(event),
            "kind": "classify",
            "layer": event.layer.name(),
            "action": action(event),
            "filter": policy.and_then(|policy| json::filter(policy, event.filter)),
            "sublayer": policy.and_then(|policy| json::sublayer_name(policy, event.filter)),
            "generation": event.generation,
            "cpu": event.cpu,
            "seq": event.sequence,
            "flow": if event.flow == 0 { Json::Null } else { json!(event.flow) },
            "values": policy.map(|policy| json::values(policy, event.layer, &event.values, told)),
            "process": Json::Null,
        });
        if known {
            line["process"] = json!({
                "pid": identity.process.tgid,
                "path": &*event.program,
                "uid": identity.user,
                "comm": comm(event),
            });
        }
        let unknown = json::unknown(event.layer, &event.values);
        if !unknown.is_empty() {
            line["unknown"] = json!(unknown);
        }
        if !event.reason.name().is_empty() {
            line["reason"] = json!(event.reason.name());
        }
        if let Some(reason) = &event.dropped {
            line["drop_reason"] = json!(&**reason);
        }
        if event.blocked && !event.enforced {
            line["dry_run"] = json!(true);
        }
        line
    }

    /// The ends of flows that were told to be established: of each, once. Where there is none, that something has ended: its
    /// number would be missed.
    fn flows_deleted(&mut self, event: &Event, flows: &[u64], cause: EndOfFlow) {
        let mut lines = vec![];
        for flow in flows {
            if self.flows.remove(flow) {
                lines.push(json!({"time": time(event), "kind": "flow-deleted", "flow": flow, "reason": cause.name()}));
            }
        }
        if lines.is_empty() && event.sequence.is_some() {
            lines.push(json!({"time": time(event), "kind": "closed"}));
        }
        for mut line in lines {
            if let Some(sequence) = event.sequence {
                line["cpu"] = json!(event.cpu);
                line["seq"] = json!(sequence);
            }
            self.write(&line);
        }
    }

    /// One line for people: what, who, where, by which filter.
    fn text(&self, event: &Event, paint: Paint) -> String {
        let policy = self.policy_of(event);
        let value = |field| {
            let words = policy?.value(event.layer, field, &event.values)?;
            Some(words.display(event.layer.layer().field(field)?).to_string())
        };
        let endpoint = |address, port| match (value(address), value(port)) {
            (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
            (Some(address), None) => address,
            _ => String::new(),
        };
        let remote = endpoint(FieldId::IP_REMOTE_ADDRESS, FieldId::IP_REMOTE_PORT);
        let local = endpoint(FieldId::IP_LOCAL_ADDRESS, FieldId::IP_LOCAL_PORT);
        let protocol = value(FieldId::IP_PROTOCOL).unwrap_or_default();
        let inbound = event.values.get(words::DIRECTION) == 1
            || [LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6].contains(&event.layer);
        let ends = match (remote.is_empty(), inbound) {
            (true, _) => local,
            (false, true) => format!("{local} <- {remote}"),
            (false, false) => format!("-> {remote}"),
        };
        let who = if event.identity.process.started == 0 {
            "unknown process".to_owned()
        } else {
            format!("{} [{}]", event.program, event.identity.process.tgid)
        };
        let why = match (policy.and_then(|policy| policy.filter(event.filter)), event.reason.name()) {
            (Some(filter), "") => format!("\"{}\"", filter.filter.name),
            (Some(filter), reason) => format!("\"{}\" ({reason})", filter.filter.name),
            (None, "") => "no filter matched".to_owned(),
            (None, reason) => reason.to_owned(),
        };
        let why = match &event.dropped {
            Some(reason) => format!("{why}; the kernel had dropped it: {reason}"),
            None => why,
        };
        let layer = event.layer.name();
        let action = paint.action(action(event));
        format!("{action:6} {layer:24} {protocol:4} {ends:28} {who}  {}", paint.dim(why))
    }
}

impl Watcher for Recorder {
    fn begin(&mut self) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), EventFile::open)
    }

    fn ready(&mut self) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), EventFile::make)
    }

    fn started(&mut self) {
        if let Some(file) = &mut self.file {
            file.empty();
        }
    }

    fn event(&mut self, event: &Event) {
        if let Some(sequence) = event.sequence {
            self.sequences.entry(event.cpu).or_default().see(sequence);
        }
        if let EventKind::FlowsDeleted { flows, cause } = &event.kind {
            return self.flows_deleted(event, flows, *cause);
        }
        if self.takes_lines() {
            let line = self.json(event);
            self.write(&line);
        }
        if let Some(Trace::Text(paint)) = self.trace {
            complain(format_args!("{}", self.text(event, paint)));
        }
        if tells_of_flows(event.layer) && !event.blocked && self.flows.insert(event.flow) {
            *self.flows_made.get_or_insert_default() += 1;
            if !self.takes_lines() {
                return;
            }
            let mut line = self.json(event);
            line["kind"] = json!("flow-established");
            self.write(&line);
        }
    }

    fn replaced(&mut self, policy: &Arc<CompiledPolicy>) {
        // all events of earlier ones were read before the last switch, and told a look later
        self.policies.drain(..self.policies.len().saturating_sub(2));
        self.policies.push(policy.clone());
        self.write_policy(None);
    }

    fn not_replaced(&mut self, error: &str) {
        self.write_policy(Some(error));
    }

    fn reported(&mut self, report: &CalloutReport) {
        if self.takes_lines() {
            self.write(&replay_callouts::event(report));
        }
        if let Some(Trace::Text(paint)) = self.trace {
            let text = printable(&replay_callouts::text(report));
            complain(format_args!("{} {text}", paint.dim("callout")));
        }
    }

    /// What has come so far can be read by others now.
    fn looked(&mut self) {
        self.report_lost(PATIENCE);
        if let Some(file) = &mut self.file {
            file.flush();
        }
    }
}

/// Whether a layer is met when a flow is established.
fn tells_of_flows(layer: LayerId) -> bool {
    [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6].contains(&layer)
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json::time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn action(event: &Event) -> &'static str {
    if event.blocked { "block" } else { "permit" }
}

fn comm(event: &Event) -> String {
    let bytes = &event.identity.comm;
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn time(event: &Event) -> String {
    let since = event.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    json::time(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Sequence;
    use std::time::Duration;

    #[test]
    fn numbers_that_come_late_are_not_lost() {
        let mut sequence = Sequence::default();
        for number in [0, 2, 5, 1] {
            sequence.see(number);
        }
        assert!(sequence.given_up(Duration::from_secs(60)).is_empty(), "there is patience yet");
        sequence.see(3);
        assert_eq!(sequence.given_up(Duration::ZERO), [(4, 4)]);
        assert!(sequence.given_up(Duration::ZERO).is_empty(), "each is told once");
        sequence.expect(6);
        assert!(sequence.given_up(Duration::ZERO).is_empty(), "all were seen");
        sequence.expect(9);
        assert_eq!(sequence.given_up(Duration::ZERO), [(6, 8)], "the last ones too");
    }
}
