//! The callouts of a replay: loaded from policies, and what they report.

use crate::{
    json,
    output::{self, Globals},
    policies,
};
use anyhow::{Result, anyhow};
use openwfp_callout::{
    CalloutReport, Counts, DnsReport, Registry, Report,
    policy::{self, Absent},
    replay::ReplayCallouts,
};
use openwfp_engine::CompiledPolicy;
use openwfp_model::{Action, Data, Policy};
use serde_json::{Value as Json, json};
use std::{path::PathBuf, time::Duration};

/// No operation is waited for longer, whatever its callout says.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Reads and compiles policies for a replay, with the callouts that they use; none where they use none.
pub(crate) fn load(paths: &[PathBuf], globals: Globals) -> Result<(CompiledPolicy, Option<ReplayCallouts>)> {
    let policies = policies::load(paths, globals)?;
    let policies: Vec<&Policy> = policies.iter().collect();
    let registry = Registry::waiting_at_most(LONGEST_WAIT);
    let absent = policy::load(&registry, &policies).map_err(|errors| {
        for error in &errors {
            output::complain(format_args!("{} {error}", globals.paint_error().red("error:")));
        }
        anyhow!(policies::Reported)
    })?;
    for Absent { callout, host } in absent {
        let why = host.map_or_else(|| "nobody answers for it".to_owned(), |host| format!("{host} is not started"));
        globals.notice(&format!("callout {callout}: {why} in a replay, so it counts as unregistered"));
    }
    let compiled = policy::compile(&registry, &policies)?;
    let uses = !registry.keys().is_empty();
    Ok((compiled, uses.then(|| ReplayCallouts::new(registry))))
}

/// A report as an event.
pub(crate) fn event(reported: &CalloutReport) -> Json {
    let mut event = json!({
        "time": json::time(reported.time.nanoseconds()),
        "kind": match reported.report {
            Report::Dns(_) => "dns",
            _ => "callout",
        },
        "callout": reported.name,
        "flow": reported.flow.map(|flow| flow.get()),
        "packet": reported.frame,
    });
    match &reported.report {
        Report::Dns(report) => dns(&mut event, report),
        Report::Callout(entries) => {
            event["report"] = entries.iter().map(|(name, data)| (name.clone(), Json::from(data))).collect();
        }
        _ => {}
    }
    event
}

fn dns(event: &mut Json, report: &DnsReport) {
    event["name"] = json!(report.name);
    event["type"] = json!(report.record_type);
    event["answers"] = json!(report.answers);
    event["code"] = json!(report.code);
    event["latency_us"] = json!(report.latency_us);
    event["server"] = json!(report.server);
    event["action"] = json!(if report.action == Action::Block { "block" } else { "permit" });
    event["process"] = json!(report.process.as_ref().map(|(pid, path)| json!({"pid": pid, "path": path})));
}

/// A report in a line for people.
pub(crate) fn text(reported: &CalloutReport) -> String {
    let said = match &reported.report {
        Report::Dns(report) => {
            let answers = match (&report.code, report.answers.as_slice()) {
                (None, _) => "no answer".to_owned(),
                (Some(code), []) => code.clone(),
                (Some(_), answers) => answers.join(", "),
            };
            format!("{} {} from {}: {answers}", report.name, report.record_type, report.server)
        }
        Report::Callout(entries) => {
            let entry = |(name, data): (&String, &Data)| match data {
                Data::Text(text) => format!("{name}={text}"),
                other => format!("{name}={}", Json::from(other)),
            };
            entries.iter().map(entry).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    };
    format!("{}: {said}", reported.name)
}

/// What went wrong with callouts, as the summary has it.
pub(crate) fn counts(counts: &Counts) -> Json {
    json!({
        "classified": counts.classified, "panics": counts.panics, "nonsense": counts.nonsense,
        "injections_refused": counts.injections_refused, "injected_too_often": counts.injected_too_often,
        "unanswered": counts.unanswered, "late_answers": counts.late_answers, "reports_lost": counts.reports_lost,
        "streams_too_long": counts.streams_too_long,
    })
}
