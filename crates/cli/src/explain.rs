//! `wfp explain`: one event, or many, classified, and why.

use crate::{
    args::ExplainArgs,
    event_text, explain_json, explain_text,
    output::{self, Globals},
    policies,
};
use anyhow::{Context, Result};
use openwfp_engine::{Action, CompiledPolicy, Event, EventValue, Explainer, Explanation, Verdict, filter_action};
use openwfp_model::MatchType;
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    sync::LazyLock,
};

/// Runs the command.
pub(crate) fn explain(args: &ExplainArgs, globals: Globals) -> Result<()> {
    let layers = event_text::layers(&args.layer)?;
    let groups = args.group.as_deref().map(event_text::groups).transpose()?;
    let policy = policies::compiled(&args.policy, globals)?;
    let mut reader = event_text::EventReader::new(layers, groups);
    let mut explainer = policy.explainer();
    output::write_out(|out| match &args.from {
        None => answer(out, &policy, &mut explainer, &reader.words(&args.event)?, args.brief, globals),
        Some(path) => {
            let mut input = open(path)?;
            let mut line = String::new();
            let mut number = 0u64;
            loop {
                line.clear();
                number += 1;
                let read = input.read_line(&mut line);
                if read.with_context(|| format!("cannot read line {number} of {}", name_of(path)))? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    continue;
                }
                let event = match reader.line(&line) {
                    Ok(event) => event,
                    Err(error) => {
                        // what was right before stands
                        out.flush()?;
                        return Err(error.context(format!("{}, line {number}", name_of(path))));
                    }
                };
                answer(out, &policy, &mut explainer, &event, args.brief, Globals { json: true, ..globals })?;
            }
        }
    })
}

fn name_of(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}

fn answer(
    out: &mut dyn Write,
    policy: &CompiledPolicy,
    explainer: &mut Explainer<'_>,
    event: &Event,
    brief: bool,
    globals: Globals,
) -> Result<()> {
    if brief {
        let verdict = policy.classify(event);
        let name = policy.filter(verdict.filter).map(|filter| filter.filter.name.as_str());
        if globals.json {
            let filter = name.map_or(Json::Null, |name| json!({"id": verdict.filter, "name": name}));
            let mut object = json!({"action": action(&verdict), "filter": filter});
            add_reason(&mut object, &verdict);
            writeln!(out, "{object}")?;
        } else {
            let by = name.map_or_else(|| "no filter matched".to_owned(), |name| format!("by \"{name}\""));
            writeln!(out, "{} {by}", headline(&verdict, globals))?;
        }
        return Ok(());
    }
    let explanation = explainer.explain(event);
    if globals.json {
        serde_json::to_writer(&mut *out, &explain_json::Line::new(policy, &explanation))?;
        writeln!(out)?;
    } else {
        explain_text::write(out, policy, event, &explanation, globals)?;
    }
    Ok(())
}

/// The word for a verdict's action. What waits for a value is blocked unless the value becomes known, and permits it.
pub(crate) fn action(verdict: &Verdict) -> &'static str {
    match verdict.action {
        Action::Permit => "permit",
        Action::Block | Action::Late => "block",
    }
}

/// The word for a verdict's reason, where the action alone does not say it; else empty.
pub(crate) fn reason(verdict: &Verdict) -> &'static str {
    match verdict.action {
        Action::Late => "late",
        _ => verdict.reason.name(),
    }
}

fn add_reason(object: &mut Json, verdict: &Verdict) {
    if !reason(verdict).is_empty() {
        object["reason"] = json!(reason(verdict));
    }
}

/// The action for people, and whether it is not the last word.
pub(crate) fn headline(verdict: &Verdict, globals: Globals) -> String {
    let word = globals.paint().action(action(verdict));
    if verdict.action == Action::Late { format!("{word} (late)") } else { word }
}

/// The fields whose values the outcome waits for.
pub(crate) fn waits_for(explanation: &Explanation) -> Vec<&'static str> {
    let filters = explanation.sublayers.iter().flat_map(|sublayer| &sublayer.filters);
    let conditions = filters.filter(|filter| filter.decided).flat_map(|filter| &filter.conditions);
    let unknown = conditions.filter(|condition| condition.actual == Some(EventValue::Unknown));
    let mut names: Vec<&str> = unknown.map(|condition| condition.condition.field.name()).collect();
    names.dedup();
    names
}

/// The word for a filter cell's action.
pub(crate) fn cell_action(action: u32) -> &'static str {
    match action {
        filter_action::PERMIT => "permit",
        filter_action::BLOCK => "block",
        filter_action::CONTINUE => "continue",
        filter_action::LATE => "late",
        filter_action::UNREADABLE => "unreadable",
        _ => "callout",
    }
}

/// The word for a filter's action.
pub(crate) fn action_name(action: &openwfp_model::Action) -> &'static str {
    match action {
        openwfp_model::Action::Permit => "permit",
        openwfp_model::Action::Block => "block",
        openwfp_model::Action::Continue => "continue",
        openwfp_model::Action::Callout { .. } => "callout",
    }
}

/// A match type as explanations write it: `FWP_MATCH_NOT_EQUAL` is `not-equal`.
pub(crate) fn match_name(match_type: MatchType) -> &'static str {
    static NAMES: LazyLock<BTreeMap<MatchType, String>> = LazyLock::new(|| {
        let name = |of: MatchType| of.name().trim_start_matches("FWP_MATCH_").to_lowercase().replace('_', "-");
        MatchType::ALL.into_iter().map(|of| (of, name(of))).collect()
    });
    NAMES.get(&match_type).map_or("", String::as_str)
}
