//! The events of a run, for people on standard error and for programs in a file.

use super::Ended;
use crate::{
    json,
    output::{Globals, Paint},
};
use anyhow::{Context, Result};
use openwfp_engine::{CompiledPolicy, words};
use openwfp_kernel::events::Event;
use openwfp_model::{FieldId, LayerId};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// Where events go.
pub(super) struct Recorder<'a> {
    policy: &'a CompiledPolicy,
    trace: Option<Paint>,
    file: Option<(PathBuf, BufWriter<File>)>,
    failed: Option<std::io::Error>,
    flows: HashSet<u64>,
    sequence: BTreeMap<u16, Sequence>,
}

/// The event numbers of one CPU that were seen.
#[derive(Default)]
struct Sequence {
    next: u64,
}

impl<'a> Recorder<'a> {
    pub fn new(policy: &'a CompiledPolicy, trace: bool, path: Option<&Path>, globals: Globals) -> Result<Self> {
        let file = match path {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot write events to {}", path.display()))?;
                Some((path.to_path_buf(), BufWriter::new(file)))
            }
            None => None,
        };
        let trace = trace.then(|| globals.paint_error());
        Ok(Self { policy, trace, file, failed: None, flows: HashSet::new(), sequence: BTreeMap::new() })
    }

    pub fn event(&mut self, event: &Event) {
        let sequence = self.sequence.entry(event.cpu).or_default();
        let missing = event.sequence.saturating_sub(sequence.next);
        let first = sequence.next;
        sequence.next = sequence.next.max(event.sequence + 1);
        if missing > 0 {
            let range = [first, event.sequence - 1];
            self.write(&json!({"time": time(event), "kind": "lost", "count": missing, "cpu": event.cpu, "seq": range}));
        }
        if self.file.is_some() {
            let line = self.json(event);
            self.write(&line);
        }
        if let Some(paint) = self.trace {
            eprintln!("{}", self.text(event, paint));
        }
        let established = [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6].contains(&event.layer);
        if established && !event.blocked && self.flows.insert(event.flow) {
            let line = json!({"time": time(event), "kind": "flow-established", "flow": event.flow});
            self.write(&line);
        }
    }

    /// A disk that is full does not stop the command; the run says so at its end, and fails if the command has not.
    fn write(&mut self, line: &Json) {
        if let (Some((_, file)), None) = (&mut self.file, &self.failed)
            && let Err(error) = writeln!(file, "{line}")
        {
            self.failed = Some(error);
        }
    }

    pub fn finish(mut self, ended: &Ended) -> Result<()> {
        let seen: u64 = self.sequence.values().map(|sequence| sequence.next).sum();
        if ended.lost > 0 {
            self.write(&json!({"kind": "lost", "count": ended.lost, "after": seen}));
        }
        let flows = self.flows.len();
        let summary = json!({
            "kind": "summary", "flows": flows, "permitted": ended.permitted, "blocked": ended.blocked, "lost": ended.lost
        });
        self.write(&summary);
        if let Some(paint) = self.trace {
            let lost = if ended.lost > 0 { format!(", {} events lost", ended.lost) } else { String::new() };
            eprintln!("{} {} permitted, {} blocked{lost}", paint.dim("wfp:"), ended.permitted, ended.blocked);
        }
        let Some((path, mut file)) = self.file else { return Ok(()) };
        let result = self.failed.map_or_else(|| file.flush(), Err);
        result.with_context(|| {
            format!("the command has run, but its events could not all be written to {}", path.display())
        })
    }

    fn json(&self, event: &Event) -> Json {
        let identity = &event.identity;
        let known = identity.process.started != 0;
        let application = (known && identity.label.state.is_known()).then_some(&*event.program);
        let mut line = json!({
            "time": time(event),
            "kind": "classify",
            "layer": event.layer.name(),
            "action": action(event),
            "filter": json::filter(self.policy, event.filter),
            "sublayer": json::sublayer_name(self.policy, event.filter),
            "cpu": event.cpu,
            "seq": event.sequence,
            "flow": if event.flow == 0 { Json::Null } else { json!(event.flow) },
            "values": json::values(self.policy, event.layer, &event.values, application),
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
        if !event.reason.name().is_empty() {
            line["reason"] = json!(event.reason.name());
        }
        if event.blocked && !event.enforced {
            line["dry_run"] = json!(true);
        }
        line
    }

    /// One line for people: what, who, where, by which filter.
    fn text(&self, event: &Event, paint: Paint) -> String {
        let value = |field| {
            let words = self.policy.value(event.layer, field, &event.values)?;
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
        let why = match (self.policy.filter(event.filter), event.reason.name()) {
            (Some(filter), "") => format!("\"{}\"", filter.filter.name),
            (Some(filter), reason) => format!("\"{}\" ({reason})", filter.filter.name),
            (None, "") => "no filter matched".to_owned(),
            (None, reason) => reason.to_owned(),
        };
        let layer = event.layer.name();
        let action = paint.action(action(event));
        format!("{action:6} {layer:24} {protocol:4} {ends:28} {who}  {}", paint.dim(why))
    }
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
