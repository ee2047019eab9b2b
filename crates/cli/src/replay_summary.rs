//! What a replay came to, for people and for programs.

use crate::{json, output::Globals, readable, replay::ByFilter, replay_callouts};
use anyhow::Result;
use openwfp_callout::{CalloutReport, replay::ReplayCallouts};
use openwfp_engine::CompiledPolicy;
use openwfp_packet::{
    flow::{Direction, FlowEvent, FlowTuple, Selector},
    replay::{Replay, Summary},
};
use serde_json::json;
use std::{io::Write, net::SocketAddr};

/// So many flows are listed unless more is asked for.
pub(crate) const SHOWN_FLOWS: usize = 10;
/// So many reports of callouts, as well.
pub(crate) const SHOWN_REPORTS: usize = 20;

pub(crate) fn write_summary_json(
    out: &mut dyn Write,
    summary: &Summary,
    time: u64,
    callouts: Option<&ReplayCallouts>,
) -> Result<()> {
    let mut line = json!({
        "time": json::time(time), "kind": "summary", "packets": summary.packets, "flows": summary.flows, "permitted": summary.permitted,
        "blocked": summary.blocked, "lost": 0, "malformed": summary.malformed, "elsewhere": summary.elsewhere,
        "not_ip": summary.not_ip, "unsupported": summary.unsupported, "stray_fragments": summary.stray_fragments,
        "unheard": summary.unheard, "flows_evicted": summary.flows_evicted, "stream_holes": summary.streams.holes,
        "absorbed": summary.absorbed, "injected": summary.injected, "injected_permitted": summary.injected_permitted,
    });
    if let Some(callouts) = callouts {
        line["callouts"] = replay_callouts::counts(&callouts.registry().counts());
    }
    Ok(writeln!(out, "{line}")?)
}

pub(crate) fn write_counts(
    out: &mut dyn Write,
    policy: &CompiledPolicy,
    replay: &Replay,
    by: &ByFilter,
    globals: Globals,
) -> Result<()> {
    let paint = globals.paint();
    writeln!(out, "{:28} {:>10} {:>10}", "layer", "permitted", "blocked")?;
    for (layer, count) in replay.layers() {
        let blocked = format!("{:>10}", count.blocked);
        let blocked = if count.blocked == 0 { blocked } else { paint.red(blocked) };
        writeln!(out, "{:28} {:>10} {blocked}", layer.name(), count.permitted)?;
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
    Ok(())
}

pub(crate) fn write_reports(out: &mut dyn Write, reports: &[CalloutReport], more: u64, globals: Globals) -> Result<()> {
    if reports.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nreported by callouts")?;
    for report in reports {
        let packet = report.frame.map_or_else(String::new, |frame| frame.to_string());
        writeln!(out, "{packet:>10}  {}", replay_callouts::text(report))?;
    }
    if more > 0 {
        writeln!(out, "{}", globals.paint().dim(format_args!("{:12}and {more} more (-v shows them)", "")))?;
    }
    Ok(())
}

pub(crate) fn write_flows(out: &mut dyn Write, flows: &[FlowEvent], summary: &Summary, globals: Globals) -> Result<()> {
    if flows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nestablished flows")?;
    for event in flows {
        writeln!(out, "{:>10}  {}", event.flow.get(), flow_text(&event.tuple, event.opened))?;
    }
    let more = summary.flows.saturating_sub(flows.len() as u64);
    if more > 0 && !globals.verbose && flows.len() == SHOWN_FLOWS {
        writeln!(out, "{}", globals.paint().dim(format_args!("{:12}and up to {more} more (-v shows them)", "")))?;
    }
    Ok(())
}

fn flow_text(tuple: &FlowTuple, opened: Direction) -> String {
    let protocol = readable::protocol(tuple.protocol.into()).map_or_else(|| tuple.protocol.to_string(), str::to_owned);
    let (local, remote) = match tuple.selector {
        Selector::Ports { local, remote } => {
            (SocketAddr::new(tuple.local, local).to_string(), SocketAddr::new(tuple.remote, remote).to_string())
        }
        _ => (tuple.local.to_string(), tuple.remote.to_string()),
    };
    let arrow = if opened == Direction::Outbound { "->" } else { "<-" };
    format!("{protocol} {local} {arrow} {remote}")
}

pub(crate) fn write_summary(out: &mut dyn Write, summary: &Summary) -> Result<()> {
    let rest = [
        (summary.malformed, "malformed"),
        (summary.elsewhere, "between other machines"),
        (summary.not_ip, "not IP"),
        (summary.unsupported, "of a link type that cannot be read"),
        (summary.unheard, "that nobody listened to"),
        (summary.stray_fragments, "stray fragments"),
        (summary.streams.holes, "holes in streams"),
        (summary.flows_evicted, "flows given up for want of room"),
        (summary.absorbed, "absorbed"),
        (summary.injected, "injected"),
    ];
    let rest: Vec<String> = rest.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}")).collect();
    let refused = match summary.flow_blocked {
        0 => String::new(),
        packets => format!(" ({packets} of them in flows that had been refused)"),
    };
    writeln!(
        out,
        "\n{} packets in {} flow{}: {} permitted, {} blocked{refused}{}",
        summary.packets,
        summary.flows,
        if summary.flows == 1 { "" } else { "s" },
        summary.permitted,
        summary.blocked,
        rest.concat()
    )?;
    Ok(())
}
