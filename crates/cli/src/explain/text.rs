//! Explanations for people.

use super::words::{action, action_name, cell_action, headline};
use crate::{
    filled,
    output::{Globals, Paint},
    readable,
};
use anyhow::Result;
use openwfp_engine::{
    Action, Change, CompiledPolicy, ConditionExplanation, Effect, Event, Explanation, FilterExplanation, Reason,
    SublayerExplanation,
};
use openwfp_model::{FieldId, FieldType, LayerId, MatchType, Value};
use std::{collections::HashSet, io::Write};

/// More filters of a sublayer are left out unless more is asked for.
const SHOWN: usize = 8;

/// Of more values of one field than this, only the first are written out.
const VALUES: usize = 4;

/// Writes the explanation of what became of an event.
pub(crate) fn write(
    out: &mut dyn Write,
    policy: &CompiledPolicy,
    event: &Event,
    explanation: &Explanation,
    globals: Globals,
) -> Result<()> {
    let paint = globals.paint();
    let verdict = &explanation.verdict;
    let by = match policy.filter(verdict.filter) {
        Some(filter) => {
            let sublayer = policy.sublayer(filter.filter.sublayer).map_or("", |sublayer| sublayer.name.as_str());
            format!("by \"{}\" in sublayer {sublayer}", filter.filter.name)
        }
        None => "because no filter matched".to_owned(),
    };
    writeln!(out, "{} at {} {by}", headline(verdict, globals), paint.bold(explanation.layer.name()))?;
    writeln!(out, "  {}", why(explanation))?;
    for sublayer in &explanation.sublayers {
        writeln!(out)?;
        write_sublayer(out, policy, explanation.layer, sublayer, globals)?;
    }
    if explanation.sublayers.is_empty() {
        writeln!(out, "\nthe policy has no filter at this layer")?;
    }
    if let Some(change) = &explanation.change {
        let by = policy.filter(change.verdict.filter).map(|filter| format!(" by \"{}\"", filter.filter.name));
        let then = match action(&change.verdict) {
            "permit" => paint.green("permitted"),
            _ => paint.red("blocked"),
        };
        let condition = change_text(policy, event, change);
        writeln!(out, "\nit would be {then}{} if {condition}", by.unwrap_or_default())?;
    }
    let missing = missing(explanation);
    if !missing.is_empty() && !globals.quiet {
        let text = format!("note: empty here, although real traffic always has a value: {}", missing.join(", "));
        writeln!(out, "\n{}", paint.dim(text))?;
    }
    Ok(())
}

/// The fields whose being empty has kept filters from matching, and which are never empty in reality.
fn missing(explanation: &Explanation) -> Vec<&'static str> {
    let mut missing: Vec<&'static str> = vec![];
    let filters = explanation.sublayers.iter().flat_map(|sublayer| &sublayer.filters);
    for condition in filters.filter(|filter| filter.reached && !filter.matched).flat_map(|filter| &filter.conditions) {
        let field = condition.condition.field;
        let name = field.name();
        let empty = condition.actual.is_none() && !condition.matched;
        if empty && filled::always(explanation.layer, field) && !missing.contains(&name) {
            missing.push(name);
        }
    }
    missing
}

/// The change to an event that turns the answer, in words.
fn change_text(policy: &CompiledPolicy, event: &Event, change: &Change) -> String {
    // "another program" says more than the name of one
    if let [(field @ (FieldId::ALE_APP_ID | FieldId::ALE_ORIGINAL_APP_ID), _)] = change.fields[..]
        && event.values.contains_key(&field)
    {
        let other = event.clone().with(field, Value::Application("/named by no filter".to_owned()));
        if policy.classify(&other).action == change.verdict.action {
            return format!("{field} were a program that no filter names");
        }
    }
    // one value that the filter which decided does not match stands for all, where any would do
    if let [(field, Some(value))] = &change.fields[..]
        && let Some(found) = event.layer.layer().field(*field)
        && found.field_type != FieldType::Flags
        && change.any_other
    {
        return format!("{field} were another, such as {}", readable::value(found, value));
    }
    let fields = change.fields.iter().map(|(field, value)| match (value, event.layer.layer().field(*field)) {
        (Some(value), Some(found)) => format!("{field} were {}", readable::value(found, value)),
        _ => format!("{field} were empty"),
    });
    fields.collect::<Vec<_>>().join(" and ")
}

/// Why the answer is what it is, in a sentence.
fn why(explanation: &Explanation) -> &'static str {
    let verdict = &explanation.verdict;
    match (verdict.reason, verdict.action, verdict.soft) {
        (Reason::Veto, ..) => "a callout blocked what a higher sublayer had permitted for good: a veto",
        (Reason::Unreadable, ..) => "the filter tests a value that could not be read: that is a block",
        (Reason::CalloutUnregistered, Action::Block, _) => {
            "the filter names a callout that nobody has registered: that is a block"
        }
        (Reason::CalloutUnregistered, ..) => {
            "the filter names a callout that nobody has registered, and asks to be permitted then"
        }
        (
            Reason::BadCell | Reason::Bound | Reason::UnknownGeneration | Reason::LookupFailed | Reason::FlowBlocked,
            ..,
        ) => "the engine could not decide: that is a block",
        (Reason::None, Action::Late, _) => {
            "a filter tests a value that is not known yet: the first packet decides, and is blocked if the value is not known then"
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
        None => "has no answer".to_owned(),
        Some(answer) => {
            let word = match cell_action(answer.action) {
                "late" => "waits for the first packet",
                "unreadable" => "blocks, as a value could not be read",
                "permit" => "permits",
                "block" => "blocks",
                _ => "asks a callout",
            };
            match answer.effect {
                Effect::Decided => format!("{word}: this is the outcome"),
                Effect::Overridden => format!("{word}, but a lower sublayer said otherwise"),
                Effect::Withdrawn => format!("{word}, but a higher sublayer had settled it"),
            }
        }
    };
    let weight = paint.dim(format!("(weight {})", sublayer.weight));
    writeln!(out, "sublayer {} {weight} {said}", paint.bold(&sublayer.name))?;
    let answered = sublayer.answer.map(|answer| (answer.filter, cell_action(answer.action)));
    let told = told(&sublayer.filters, globals.verbose);
    for filter in sublayer.filters.iter().filter(|filter| told.contains(&filter.id)) {
        let answer = answered.filter(|(id, _)| *id == filter.id).map(|(_, word)| word);
        write_filter(out, policy, layer, filter, answer, globals)?;
    }
    let left_out = sublayer.filters.len() - told.len();
    if left_out > 0 {
        let text = format!("{left_out} more filters are further from matching, or were not reached (-v shows them)");
        writeln!(out, "    {}", paint.dim(text))?;
    }
    Ok(())
}

/// The filters that are told of: those that matched, and of the others those that were nearest to it.
fn told(filters: &[FilterExplanation], all: bool) -> HashSet<u64> {
    let mut others: Vec<&FilterExplanation> =
        filters.iter().filter(|filter| !(filter.reached && filter.matched)).collect();
    // a stable sort: of those that are equally near, the first
    others.sort_by_key(|filter| (!filter.reached && !filter.matched, failing(&filter.conditions)));
    let far = others.iter().skip(if all { others.len() } else { SHOWN });
    let far: HashSet<u64> = far.filter(|filter| !filter.decided).map(|filter| filter.id).collect();
    filters.iter().map(|filter| filter.id).filter(|id| !far.contains(id)).collect()
}

/// How many fields keep a filter from matching; of conditions on one field one that holds is enough.
fn failing(conditions: &[ConditionExplanation]) -> usize {
    let mut fields: Vec<(FieldId, bool)> = vec![];
    for condition in conditions {
        match fields.iter_mut().find(|(field, _)| *field == condition.condition.field) {
            Some((_, holds)) => *holds |= condition.matched,
            None => fields.push((condition.condition.field, condition.matched)),
        }
    }
    fields.iter().filter(|(_, holds)| !holds).count()
}

fn write_filter(
    out: &mut dyn Write,
    policy: &CompiledPolicy,
    layer: LayerId,
    filter: &FilterExplanation,
    answer: Option<&'static str>,
    globals: Globals,
) -> Result<()> {
    let paint = globals.paint();
    let is_answer = answer.is_some();
    let found = policy.filter(filter.id);
    let name = found.map_or("", |found| found.filter.name.as_str());
    let does = found.map_or("", |found| action_name(&found.filter.action));
    let (mark, note) = match (is_answer, filter.reached, filter.matched) {
        (true, ..) if answer == Some("late") => (paint.bold("=>"), " waits for a value"),
        (true, ..) if answer == Some("unreadable") => (paint.bold("=>"), " blocks, as a value could not be read"),
        (true, ..) if filter.decided => (paint.bold("=>"), " decided"),
        (true, ..) => ("->".to_owned(), " answered for the sublayer"),
        (false, true, true) => (" +".to_owned(), " matched, and let the sublayer go on"),
        (false, false, true) => (" -".to_owned(), " would match, but the sublayer had answered"),
        (false, false, false) => (" -".to_owned(), " not reached: the sublayer had answered"),
        (false, true, false) => (paint.dim(" x"), " did not match"),
    };
    writeln!(out, " {mark} {does:8} \"{name}\"{}", paint.dim(note))?;
    let explained = is_answer || filter.reached || globals.verbose;
    if explained {
        let all = is_answer || filter.matched || globals.verbose;
        write_conditions(out, layer, &filter.conditions, all, paint)?;
    }
    Ok(())
}

/// Writes the conditions, those on one field together: one that holds is enough for the field.
fn write_conditions(
    out: &mut dyn Write,
    layer: LayerId,
    conditions: &[ConditionExplanation],
    all: bool,
    paint: Paint,
) -> Result<()> {
    let mut seen: Vec<FieldId> = vec![];
    for condition in conditions {
        let id = condition.condition.field;
        let Some(field) = layer.layer().field(id) else { continue };
        if seen.contains(&id) {
            continue;
        }
        seen.push(id);
        let of_field: Vec<_> = conditions.iter().filter(|other| other.condition.field == id).collect();
        let actual = readable::actual(field, condition.actual.as_ref());
        if let Some(holds) = of_field.iter().find(|condition| condition.matched) {
            if all {
                let expected = readable::value(field, &holds.condition.value);
                let here = if expected == actual { String::new() } else { format!(": here it is {actual}") };
                let verb = verb(holds.condition.match_type);
                writeln!(out, "      {} {id} {verb} {expected}{here}", paint.green("holds"))?;
            }
            continue;
        }
        let tests: Vec<String> = of_field
            .iter()
            .take(VALUES)
            .map(|condition| {
                let expected = readable::value(field, &condition.condition.value);
                format!("{} {expected}", verb(condition.condition.match_type))
            })
            .collect();
        let more = match of_field.len().saturating_sub(VALUES) {
            0 => String::new(),
            more => format!(" or {more} more"),
        };
        writeln!(out, "      {} {id} {}{more}: here it is {actual}", paint.red("fails"), tests.join(" or "))?;
    }
    if conditions.is_empty() && all {
        writeln!(out, "      {}", paint.dim("it has no conditions, so it matches everything"))?;
    }
    Ok(())
}

/// A match type in words.
fn verb(match_type: MatchType) -> &'static str {
    match match_type {
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
    }
}
