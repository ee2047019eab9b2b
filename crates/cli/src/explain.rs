//! `wfp explain`: one event, or many, classified, and why.

use crate::{
    args::ExplainArgs,
    event_text, explain_text, json,
    output::{self, Globals},
    policies,
};
use anyhow::{Context, Result};
use openwfp_engine::{
    Action, CompiledPolicy, Effect, Event, EventValue, Explanation, FilterExplanation, SublayerExplanation, Verdict,
    filter_action,
};
use serde_json::{Value as Json, json};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

/// Runs the command.
pub(crate) fn explain(args: &ExplainArgs, globals: Globals) -> Result<()> {
    let layers = event_text::layers(&args.layer)?;
    let groups = args.group.as_deref().map(event_text::groups).transpose()?;
    let policy = policies::compiled(&args.policy, globals)?;
    let mut reader = event_text::EventReader::new(layers, groups);
    output::write_out(|out| match &args.from {
        None => answer(out, &policy, &reader.words(&args.event)?, args.brief, globals),
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
                answer(out, &policy, &event, args.brief, Globals { json: true, ..globals })?;
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

fn answer(out: &mut dyn Write, policy: &CompiledPolicy, event: &Event, brief: bool, globals: Globals) -> Result<()> {
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
    let explanation = policy.explain(event);
    if globals.json {
        writeln!(out, "{}", explanation_json(policy, &explanation))?;
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
fn reason(verdict: &Verdict) -> &'static str {
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
fn waits_for(explanation: &Explanation) -> Vec<&'static str> {
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

/// An explanation as JSON.
fn explanation_json(policy: &CompiledPolicy, explanation: &Explanation) -> Json {
    let verdict = &explanation.verdict;
    let sublayers: Vec<Json> =
        explanation.sublayers.iter().map(|sublayer| sublayer_json(policy, explanation, sublayer)).collect();
    let mut object = json!({
        "layer": explanation.layer.name(),
        "action": action(verdict),
        "filter": json::filter(policy, verdict.filter),
        "right": if verdict.soft { "soft" } else { "hard" },
        "sublayers": sublayers,
        "steps": verdict.steps,
    });
    add_reason(&mut object, verdict);
    if verdict.action == Action::Late {
        object["waits_for"] = json!(waits_for(explanation));
    }
    if let Some(change) = &explanation.change {
        let fields: serde_json::Map<String, Json> = change
            .fields
            .iter()
            .map(|(field, value)| {
                let value = value.as_ref().map_or(Json::Null, |value| json::value(explanation.layer, *field, value));
                (field.name().to_owned(), value)
            })
            .collect();
        object["change"] = json!({"fields": fields, "action": action(&change.verdict)});
    }
    object
}

fn sublayer_json(policy: &CompiledPolicy, explanation: &Explanation, sublayer: &SublayerExplanation) -> Json {
    let filters: Vec<Json> = sublayer.filters.iter().map(|filter| filter_json(policy, explanation, filter)).collect();
    json!({
        "sublayer": sublayer.name,
        "weight": sublayer.weight,
        "answer": sublayer.answer.map(|answer| cell_action(answer.action)),
        "effect": sublayer.answer.map(|answer| match answer.effect {
            Effect::Decided => "decided",
            Effect::Overridden => "overridden",
            Effect::Withdrawn => "withdrawn",
        }),
        "filters": filters,
    })
}

fn filter_json(policy: &CompiledPolicy, explanation: &Explanation, filter: &FilterExplanation) -> Json {
    let layer = explanation.layer;
    let conditions: Vec<Json> = filter
        .conditions
        .iter()
        .map(|condition| {
            let field = layer.layer().field(condition.condition.field);
            let expected = field.map(|field| condition.condition.value.display(field).to_string());
            let actual = match &condition.actual {
                Some(EventValue::Known(value)) => field.map(|field| value.display(field).to_string()),
                Some(EventValue::Unknown) => Some("?".to_owned()),
                None => None,
            };
            json!({
                "field": condition.condition.field.name(),
                "match": match_name(condition.condition.match_type),
                "expected": expected,
                "actual": actual,
                "matched": condition.matched,
            })
        })
        .collect();
    let action = policy.filter(filter.id).map(|found| action_name(&found.filter.action));
    json!({
        "filter": json::filter(policy, filter.id),
        "reached": filter.reached,
        "matched": filter.matched,
        "decided": filter.decided,
        "action": action,
        "conditions": conditions,
    })
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
pub(crate) fn match_name(match_type: openwfp_model::MatchType) -> String {
    match_type.name().trim_start_matches("FWP_MATCH_").to_lowercase().replace('_', "-")
}
