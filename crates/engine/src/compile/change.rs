//! The smallest change to an event that turns the answer, and events that meet a filter.

use super::{
    CompiledPolicy, Event, FieldWords, Schema,
    event::is_unknown,
    question::{QuestionedField, QuestionedFilter},
    rule::Alternative,
    users,
};
use crate::{Action, EMPTY, Test, Values, Verdict};
use openwfp_model::{DataType, FieldId, LayerId, Value};
use std::{vec, vec::Vec};

/// A change to an event, and what it would lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The fields to change, with their new values; `None`: empty.
    pub fields: Vec<(FieldId, Option<Value>)>,
    /// The outcome then.
    pub verdict: Verdict,
}

/// More filters than this are not tried for the smallest change.
const TRIED: usize = 4096;

impl CompiledPolicy {
    /// Looks for the smallest change to an event that turns permit into block or block into permit.
    ///
    /// Every candidate is classified by the whole policy, so what is found is true; a change of more fields than one
    /// filter tests is not looked for.
    pub(super) fn smallest_change(
        &self,
        filters: &[QuestionedFilter<'_>],
        event: &Event,
        values: &Values,
        verdict: &Verdict,
    ) -> Option<Change> {
        let mut best: Option<Change> = None;
        for filter in filters.iter().take(TRIED) {
            // another port says more to a person than another protocol
            let mut fields: Vec<&QuestionedField> = filter.fields.iter().collect();
            fields.sort_by_key(|field| field.field == FieldId::IP_PROTOCOL);
            let failing: Vec<&QuestionedField> =
                fields.iter().copied().filter(|field| !field.question.holds(values)).collect();
            let attempts: Vec<(Values, Vec<FieldId>)> = if failing.is_empty() {
                let leave = |field: &&QuestionedField| {
                    let changed = self.leave(event.layer, field, values)?;
                    Some((changed, vec![field.field]))
                };
                fields.iter().filter_map(leave).collect()
            } else if best.as_ref().is_none_or(|best| failing.len() < best.fields.len()) {
                self.enter(event.layer, &failing, values).into_iter().collect()
            } else {
                continue;
            };
            for (changed, fields) in attempts {
                let then = self.classify_values(event.layer, &changed);
                // what waits for a value is a block that may yet be lifted: neither an answer to turn to, nor a permit
                let passes = |verdict: &Verdict| verdict.action == Action::Permit;
                let turned = passes(&then) != passes(verdict) && then.action != Action::Late;
                if turned && best.as_ref().is_none_or(|best| fields.len() < best.fields.len()) {
                    let value = |&field: &FieldId| (field, self.value(event.layer, field, &changed));
                    best = Some(Change { fields: fields.iter().map(value).collect(), verdict: then });
                }
            }
            if best.as_ref().is_some_and(|best| best.fields.len() == 1) {
                break;
            }
        }
        best
    }

    /// Values for which the failing fields of a filter hold.
    fn enter(&self, layer: LayerId, failing: &[&QuestionedField], values: &Values) -> Option<(Values, Vec<FieldId>)> {
        let mut changed = values.clone();
        for QuestionedField { field, group, .. } in failing {
            let words = Schema::of(layer).field(*field)?;
            if is_unknown(values, words) {
                return None;
            }
            meet(group.first()?, &mut changed);
            fill(&mut changed, words, group.first()?);
            if !in_domain(layer, *field, &self.value(layer, *field, &changed)?, words, &changed) {
                return None;
            }
        }
        Some((changed, failing.iter().map(|field| field.field).collect()))
    }

    /// Values for which one field of a filter no longer holds.
    fn leave(&self, layer: LayerId, left: &QuestionedField, values: &Values) -> Option<Values> {
        let field = left.field;
        let words = Schema::of(layer).field(field)?;
        for test in left.group.iter().flatten() {
            let word = test.word as usize;
            let now = values.get(word);
            if now >= EMPTY {
                continue;
            }
            let tries = match test.test {
                Test::Range(low, high) => [low.checked_sub(1), high.checked_add(1)],
                Test::Mask(mask, expected) => [Some(now as u32 & !mask | !expected & mask), None],
                Test::Any(mask) => [Some(now as u32 & !mask), None],
                _ => [None, None],
            };
            for value in tries.into_iter().flatten() {
                let mut changed = values.clone();
                changed.set(word, value);
                let Some(typed) = self.value(layer, field, &changed) else { continue };
                if in_domain(layer, field, &typed, words, &changed) && !left.question.holds(&changed) {
                    return Some(changed);
                }
            }
        }
        None
    }
}

/// Changes words as little as possible so that an alternative holds.
fn meet(alternative: &Alternative, values: &mut Values) {
    for test in alternative {
        let word = test.word as usize;
        let now = values.get(word).min(u32::MAX as u64) as u32;
        let known = values.get(word) < EMPTY;
        match test.test {
            Test::Range(low, high) => values.set(word, if known { now.clamp(low, high) } else { low }),
            Test::Mask(mask, expected) => values.set(word, if known { now & !mask | expected } else { expected }),
            Test::Any(mask) => values.set(word, if known { now } else { 0 } | 1 << mask.trailing_zeros()),
            Test::Empty => values.set_empty(word),
            Test::Unknown | Test::Always => {}
        }
    }
}

/// The words of a number that an alternative leaves open become 0 where there was nothing.
fn fill(values: &mut Values, field: FieldWords, alternative: &Alternative) {
    if alternative.iter().any(|test| test.test == Test::Empty) {
        return;
    }
    for word in field.first..field.first + field.count {
        if values.get(word) >= EMPTY {
            values.set(word, 0);
        }
    }
}

/// Whether a number fits the field's type, so that the change can happen at all.
fn in_domain(layer: LayerId, field: FieldId, value: &Value, words: FieldWords, values: &Values) -> bool {
    let limit = match layer.layer().field(field).map(|field| field.data_type) {
        Some(DataType::Uint8) => u8::MAX as u64,
        Some(DataType::Uint16) => u16::MAX as u64,
        _ => u32::MAX as u64,
    };
    let fits = words.count > 1 || values.get(words.first) <= limit;
    fits && !matches!(value, Value::Group(_)) && users::is_plain(value)
}

impl CompiledPolicy {
    /// Values that meet a filter's conditions, for making up events; `None` where none can be found.
    #[must_use]
    pub fn example(&self, filter: u64) -> Option<Values> {
        let filter = self.filter(filter)?;
        let mut values = Values::new();
        for (field, group) in self.field_groups(filter) {
            let alternative = group.first()?;
            meet(alternative, &mut values);
            fill(&mut values, Schema::of(filter.filter.layer).field(field)?, alternative);
        }
        Some(values)
    }
}
