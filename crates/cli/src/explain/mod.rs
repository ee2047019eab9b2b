//! `wfp explain`: one event, or many, classified, and why.

pub(crate) mod text;
pub(crate) mod words;

pub(crate) mod json;

use crate::{
    args::ExplainArgs,
    event_line::{Counts, Line, Unknowns},
    event_text,
    output::{self, Globals},
    policies,
};
use anyhow::{Context, Result};
use openwfp_engine::{Action, CompiledPolicy, Event, Explainer, Reason, Verdict};
use serde_json::{Value as Json, json};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::Path,
};
use words::{action, headline, reason};

/// Runs the command.
pub(crate) fn explain(args: &ExplainArgs, globals: Globals) -> Result<()> {
    let layers = output::words(event_text::layers(&args.layer))?;
    let groups = output::words(args.group.as_deref().map(event_text::groups).transpose())?;
    let policy = policies::compiled(&args.policy, globals)?;
    let mut reader = event_text::EventReader::new(layers, groups);
    let mut explainer = policy.explainer();
    output::write_out(|out| match &args.from {
        None => {
            let event = output::words(reader.words(&args.event))?;
            answer(out, &policy, &mut explainer, (&event, Unknowns::AsTheLayerSays), args.brief, globals)
        }
        Some(path) => many(out, path, &mut reader, globals, |out, event| {
            answer(out, &policy, &mut explainer, event, args.brief, Globals { json: true, ..globals })
        }),
    })
}

/// Answers each event of a file, and says what else there was.
fn many(
    out: &mut dyn Write,
    path: &Path,
    reader: &mut event_text::EventReader,
    globals: Globals,
    mut answer: impl FnMut(&mut dyn Write, (&Event, Unknowns)) -> Result<()>,
) -> Result<()> {
    let mut input = open(path)?;
    let mut counts = Counts::default();
    let mut line = String::new();
    for number in 1u64.. {
        line.clear();
        let read = input.read_line(&mut line);
        if read.with_context(|| format!("cannot read line {number} of {}", name_of(path)))? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        match reader.line(&line) {
            Ok(Line::Event(event, unknowns)) => {
                counts.event();
                answer(out, (&event, unknowns))?;
            }
            Ok(Line::PassedOver(other)) => counts.passed_over(other),
            Err(error) => {
                // what was right before stands
                out.flush()?;
                return Err(error.context(format!("{}, line {number}", name_of(path))));
            }
        }
    }
    if let Some(told) = counts.told() {
        out.flush()?;
        globals.notice(&told);
    }
    Ok(())
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
    (event, unknowns): (&Event, Unknowns),
    brief: bool,
    globals: Globals,
) -> Result<()> {
    if brief {
        let verdict = ended(policy.classify(event), unknowns);
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
    let mut explanation = explainer.explain(event);
    explanation.verdict = ended(explanation.verdict, unknowns);
    if globals.json {
        serde_json::to_writer(&mut *out, &json::Line::new(policy, &explanation))?;
        writeln!(out)?;
    } else {
        text::write(out, policy, event, &explanation, globals)?;
    }
    Ok(())
}

/// The verdict, as the kernel gives it where a value is still not known at the first packet.
fn ended(verdict: Verdict, unknowns: Unknowns) -> Verdict {
    match (verdict.action, unknowns) {
        (Action::Late, Unknowns::Unreadable) => Verdict { steps: verdict.steps, ..Verdict::closed(Reason::Unreadable) },
        _ => verdict,
    }
}

fn add_reason(object: &mut Json, verdict: &Verdict) {
    if !reason(verdict).is_empty() {
        object["reason"] = json!(reason(verdict));
    }
}
