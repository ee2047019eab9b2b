//! Explanations for people.

use crate::{
    explain::{action, action_name, cell_action},
    output::{Globals, Paint},
};
use anyhow::Result;
use openwfp_engine::{
    Action, CompiledPolicy, ConditionExplanation, Effect, EventValue, Explanation, FilterExplanation, Reason,
    SublayerExplanation,
};
use openwfp_model::{LayerId, MatchType};
use std::io::Write;

/// More filters of a sublayer are left out unless more is asked for.
const SHOWN: usize = 8;

/// Writes an explanation.
pub(crate) fn write(out: &mut dyn Write, policy: &CompiledPolicy, explanation: &Explanation, globals: Globals) -> Result<()> {
    let paint = globals.paint();
    let verdict = &explanation.verdict;
    let word = action(verdict);
    let decided = policy.filter(verdict.filter);
    let by = match decided {
        Some(filter) => format!("by \"{}\"", filter.filter.name),
        None => "because no filter matched".to_owned(),
    };
    writeln!(out, "{} at {} {by}", paint.action(word), paint.bold(explanation.layer.name()))?;
    writeln!(out, "  {}", why(explanation))?;
    for sublayer in &explanation.sublayers {
        writeln!(out)?;
        write_sublayer(out, policy, explanation.layer, sublayer, globals)?;
    }
    if explanation.sublayers.is_empty() {
        writeln!(out, "\nno policy has a filter at this layer")?;
    }
    if let Some(change) = &explanation.change {
        let fields: Vec<String> = change
            .fields
            .iter()
            .map(|(field, value)| match (value, explanation.layer.layer().field(*field)) {
                (Some(value), Some(found)) => format!("{field} were {}", value.display(found)),
                _ => format!("{field} were not given"),
            })
            .collect();
        let by = policy.filter(change.verdict.filter).map(|filter| format!(" (by \"{}\")", filter.filter.name));
        let then = match action(&change.verdict) {
            "permit" => paint.green("permitted"),
            _ => paint.red("blocked"),
        };
        writeln!(out, "\nit would be {then}{} if {}", by.unwrap_or_default(), fields.join(" and "))?;
    }
    Ok(())
}

/// Why the answer is what it is, in a sentence.
fn why(explanation: &Explanation) -> &'static str {
    let verdict = &explanation.verdict;
    match (verdict.reason, verdict.action, verdict.soft) {
        (Reason::Veto, ..) => "a callout blocked what a higher sublayer had permitted for good: a veto",
        (Reason::Unreadable, ..) => "the filter tests a value that could not be read: that is a block",
        (Reason::CalloutUnregistered, Action::Block, _) => "the filter names a callout that nobody has registered: that is a block",
        (Reason::CalloutUnregistered, ..) => "the filter names a callout that nobody has registered, and asks to be permitted then",
        (Reason::BadCell | Reason::Bound | Reason::UnknownGeneration | Reason::LookupFailed | Reason::FlowBlocked, ..) => {
            "the engine could not decide: that is a block"
        }
        (Reason::None, Action::Late, _) => {
            "a filter tests a value that is not known yet: it is decided when the first packet leaves"
        }
        (Reason::None, _, _) if verdict.filter == 0 => "what no filter matches is permitted",
        (Reason::None, Action::Block, false) => "a filter's block is hard: no lower sublayer could have permitted it",
        (Reason::None, Action::Block, true) => "a soft block, and no lower sublayer permitted it",
        (Reason::None, Action::Permit, false) => "a hard permit: only a callout's veto could have blocked it",
        (Reason::None, Action::Permit, true) => "a soft permit, and no lower sublayer blocked it",
    }
}

fn write_sublayer(
    out: &mut dyn Write,
    policy: &CompiledPolicy,
    layer: LayerId,
    sublayer: &SublayerExplanation,
    globals: Globals,
) -> Result<()> {
    let paint = globals.paint();
    let said = match sublayer.answer {
        None => "no answer".to_owned(),
        Some(answer) => {
            let word = cell_action(answer.action);
            match answer.effect {
                Effect::Decided => format!("{word}: this is the outcome"),
                Effect::Overridden => format!("{word}, but a lower sublayer said otherwise"),
                Effect::Withdrawn => format!("{word}, but a higher sublayer had settled it"),
            }
        }
    };
    let weight = paint.dim(format!("(weight {})", sublayer.weight));
    writeln!(out, "{} {} {weight}: {said}", paint.bold("sublayer"), sublayer.name)?;
    let answered = sublayer.answer.map(|answer| answer.filter);
    let mut left_out = 0;
    for (place, filter) in sublayer.filters.iter().enumerate() {
        let is_answer = answered == Some(filter.id);
        if !globals.verbose && place >= SHOWN && !is_answer && !(filter.reached && filter.matched) {
            left_out += 1;
            continue;
        }
        write_filter(out, policy, layer, filter, is_answer, paint)?;
    }
    if left_out > 0 {
        writeln!(out, "    {}", paint.dim(format!("{left_out} more filters did not match or were not reached (-v shows them)")))?;
    }
    Ok(())
}

fn write_filter(
    out: &mut dyn Write,
    policy: &CompiledPolicy,
    layer: LayerId,
    filter: &FilterExplanation,
    is_answer: bool,
    paint: Paint,
) -> Result<()> {
    let found = policy.filter(filter.id);
    let name = found.map_or("", |found| found.filter.name.as_str());
    let does = found.map_or("", |found| action_name(&found.filter.action));
    let (mark, note) = match (is_answer, filter.reached, filter.matched) {
        (true, ..) if filter.decided => (paint.bold(">"), String::new()),
        (true, ..) => (">".to_owned(), String::new()),
        (false, true, true) => ("+".to_owned(), paint.dim(" matched, and let the sublayer go on")),
        (false, false, true) => ("-".to_owned(), paint.dim(" would match, but was not reached")),
        (false, false, false) => ("-".to_owned(), paint.dim(" not reached")),
        (false, true, false) => (paint.dim("x"), String::new()),
    };
    writeln!(out, "  {mark} {does:8} \"{name}\"{note}")?;
    if !filter.reached && !is_answer {
        return Ok(());
    }
    // of conditions on one field one is enough, so failures are told only for fields that fail
    for condition in &filter.conditions {
        let same_field = |other: &&ConditionExplanation| other.condition.field == condition.condition.field;
        let holds = filter.conditions.iter().filter(same_field).any(|other| other.matched);
        if holds && !condition.matched {
            continue;
        }
        let sign = if condition.matched { paint.green("holds") } else { paint.red("fails") };
        writeln!(out, "      {sign} {}", condition_text(layer, condition))?;
    }
    Ok(())
}

/// A condition in words, with what the event has.
fn condition_text(layer: LayerId, condition: &ConditionExplanation) -> String {
    let field = layer.layer().field(condition.condition.field);
    let Some(field) = field else { return condition.condition.field.to_string() };
    let expected = condition.condition.value.display(field);
    let verb = match condition.condition.match_type {
        MatchType::Equal => "is",
        MatchType::NotEqual => "is not",
        MatchType::Greater => "is greater than",
        MatchType::Less => "is less than",
        MatchType::GreaterOrEqual => "is at least",
        MatchType::LessOrEqual => "is at most",
        MatchType::Range => "is in",
        MatchType::FlagsAllSet => "has all of",
        MatchType::FlagsAnySet => "has any of",
        MatchType::FlagsNoneSet => "has none of",
        MatchType::EqualCaseInsensitive => "is, in any case,",
        MatchType::Prefix => "is in, or ends with,",
        MatchType::NotPrefix => "is not in, and does not end with,",
    };
    let actual = match &condition.actual {
        Some(EventValue::Known(value)) => format!("it is {}", value.display(field)),
        Some(EventValue::Unknown) => "it is not known".to_owned(),
        None => "it is empty".to_owned(),
    };
    format!("{} {verb} {expected}; {actual}", condition.condition.field)
}
