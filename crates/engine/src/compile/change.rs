//! The smallest change to an event that turns the answer, and events that meet a filter.

use super::{
    CompiledPolicy, Event, FieldWords, Schema,
    candidates::{Candidates, greatest},
    event::is_unknown,
    question::{QuestionedField, QuestionedFilter},
    rule::Alternative,
    users,
};
use crate::{Action, EMPTY, Test, Values, Verdict};
use openwfp_model::{FieldId, Value};
use std::{vec, vec::Vec};

/// A change to an event, and what it would lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The fields to change, with their new values; `None`: empty.
    pub fields: Vec<(FieldId, Option<Value>)>,
    /// The outcome then.
    pub verdict: Verdict,
    /// The one field is tested by the filter that decided, and every other value that this filter does not match would
    /// turn the answer too.
    pub any_other: bool,
}

/// More filters than this are not tried for a change of several fields.
const TRIED: usize = 4096;

/// So many filters that decide one after the other are left.
const DECIDERS: usize = 8;

/// The most combinations of alternatives that are tried for one filter.
const COMBINATIONS: usize = 64;

impl CompiledPolicy {
    /// Looks for the smallest change to an event that turns permit into block or block into permit.
    ///
    /// A change of one field is looked for first, by values from either side of every edge that a condition at the layer
    /// draws: at most about a thousand of each field, which costs as many classifications. Then each filter's
    /// failing conditions are made to hold together. At last those filters that decide are left one after the other, which may not
    /// find the fewest fields. A value that is not known is not changed. What is found was classified by the whole policy, so it is true.
    pub(super) fn smallest_change(
        &self,
        filters: &[QuestionedFilter<'_>],
        candidates: &[Candidates],
        event: &Event,
        values: &Values,
        verdict: &Verdict,
    ) -> Option<Change> {
        let search = Search { policy: self, event, values, verdict };
        let one = || search.one_field(filters, candidates);
        one().or_else(|| search.several_fields(filters)).or_else(|| search.one_after_the_other(filters, candidates))
    }
}

/// A search for the change of one event.
struct Search<'a> {
    policy: &'a CompiledPolicy,
    event: &'a Event,
    values: &'a Values,
    verdict: &'a Verdict,
}

impl Search<'_> {
    /// Whether another outcome is the opposite one.
    ///
    /// What waits for a value is a block that may yet be lifted: neither an answer to turn to, nor a permit.
    fn is_turned(&self, then: &Verdict) -> bool {
        let passes = |verdict: &Verdict| verdict.action == Action::Permit;
        passes(then) != passes(self.verdict) && then.action != Action::Late
    }

    fn turns(&self, values: &Values) -> bool {
        self.is_turned(&self.policy.classify_values(self.event.layer, values))
    }

    /// The change to these values, if it can be said as values of the event and turns the answer then.
    fn change(&self, fields: &[FieldId], changed: &Values) -> Option<Change> {
        let mut event = self.event.clone();
        let mut told = vec![];
        for &field in fields {
            let value = self.value(field, changed)?;
            match value.clone() {
                Some(value) => event = event.with(field, value),
                None => drop(event.values.remove(&field)),
            }
            told.push((field, value));
        }
        let then = self.policy.classify(&event);
        self.is_turned(&then).then_some(Change { fields: told, verdict: then, any_other: false })
    }

    /// The value that a field's words stand for. Outer `None`: no value has them; inner: there is none.
    fn value(&self, field: FieldId, values: &Values) -> Option<Option<Value>> {
        let layer = self.event.layer;
        let words = Schema::of(layer).field(field)?;
        let first = values.get(words.first);
        if first == EMPTY {
            return Some(None);
        }
        if words.count == 1 && first as u128 > greatest(layer, words) {
            return None;
        }
        let application = [FieldId::ALE_APP_ID, FieldId::ALE_ORIGINAL_APP_ID].contains(&field);
        let stranger = || (application && first == 0).then(|| Value::Application("/named by no filter".into()));
        let value = self.policy.value(layer, field, values).or_else(stranger)?;
        (!matches!(value, Value::Group(_)) && users::is_plain(&value)).then_some(Some(value))
    }

    /// Changes one field. The fields of the filter that decided come first.
    fn one_field(&self, filters: &[QuestionedFilter<'_>], candidates: &[Candidates]) -> Option<Change> {
        let decider = filters.iter().find(|filter| filter.filter.id == self.verdict.filter);
        let own = |field: FieldId| decider.and_then(|filter| filter.fields.iter().find(|own| own.field == field));
        let known = candidates.iter().filter(|candidates| !is_unknown(self.values, candidates.words));
        let mut order: Vec<&Candidates> = known.collect();
        order.sort_by_key(|candidates| (own(candidates.field).is_none(), candidates.turn));
        for candidates in order {
            let (tries, whole) = candidates.tries(self.values);
            let with = |candidate| {
                let mut changed = self.values.clone();
                candidates.put(candidate, &mut changed);
                changed
            };
            let turning = |&candidate: &_| {
                let changed = with(candidate);
                self.turns(&changed).then(|| self.change(&[candidates.field], &changed)).flatten()
            };
            let Some(found) = tries.iter().find_map(turning) else { continue };
            let any_other = whole
                && own(candidates.field).is_some_and(|own| {
                    let leaves = |changed: &Values| !own.question.holds(changed);
                    own.question.holds(self.values)
                        && tries.iter().filter(|candidate| candidate.is_some()).all(|&candidate| {
                            let changed = with(candidate);
                            !leaves(&changed) || self.turns(&changed)
                        })
                        && found.fields.iter().all(|(_, value)| value.is_some())
                });
            return Some(Change { any_other, ..found });
        }
        None
    }

    /// Makes a filter match that several fields keep from it.
    fn several_fields(&self, filters: &[QuestionedFilter<'_>]) -> Option<Change> {
        let mut best: Option<Change> = None;
        for filter in filters.iter().take(TRIED) {
            let failing: Vec<&QuestionedField> =
                filter.fields.iter().filter(|field| !field.question.holds(self.values)).collect();
            if failing.len() < 2 || best.as_ref().is_some_and(|best| best.fields.len() <= failing.len()) {
                continue;
            }
            let fields: Vec<FieldId> = failing.iter().map(|field| field.field).collect();
            let combinations = failing.iter().fold(1usize, |all, field| all.saturating_mul(field.group.len()));
            let attempts = (0..combinations.min(COMBINATIONS)).filter_map(|number| self.enter(&failing, number));
            let turning = |changed: Values| self.turns(&changed).then(|| self.change(&fields, &changed)).flatten();
            best = attempts.filter_map(turning).next().or(best);
        }
        best
    }

    /// Changes a field that the filter that decides tests, so that it decides no longer, then one of the next filter that decides, and
    /// so on: where several block, each for its own reason.
    fn one_after_the_other(&self, filters: &[QuestionedFilter<'_>], candidates: &[Candidates]) -> Option<Change> {
        let mut values = self.values.clone();
        let mut verdict = *self.verdict;
        let mut fields: Vec<FieldId> = vec![];
        while fields.len() < DECIDERS {
            let decider = filters.iter().find(|filter| filter.filter.id == verdict.filter)?;
            let own = |field: FieldId| decider.fields.iter().any(|own| own.field == field);
            let known = candidates.iter().filter(|candidates| !is_unknown(&values, candidates.words));
            let mut open: Vec<&Candidates> =
                known.filter(|candidates| own(candidates.field) && !fields.contains(&candidates.field)).collect();
            open.sort_by_key(|candidates| candidates.turn);
            let left = open.into_iter().find_map(|candidates| {
                candidates.tries(&values).0.into_iter().find_map(|candidate| {
                    let mut changed = values.clone();
                    candidates.put(candidate, &mut changed);
                    let then = self.policy.classify_values(self.event.layer, &changed);
                    let goes_on = then.filter != verdict.filter && then.action != Action::Late;
                    goes_on.then_some((candidates.field, changed, then))
                })
            });
            let (field, changed, then) = left?;
            fields.push(field);
            (values, verdict) = (changed, then);
            if self.is_turned(&verdict) {
                return self.change(&fields, &values);
            }
        }
        None
    }

    /// Values for which the failing fields of a filter hold, by the combination of alternatives with this number.
    fn enter(&self, failing: &[&QuestionedField], mut number: usize) -> Option<Values> {
        let mut changed = self.values.clone();
        for QuestionedField { field, group, .. } in failing {
            let words = Schema::of(self.event.layer).field(*field)?;
            if is_unknown(self.values, words) || group.is_empty() {
                return None;
            }
            let alternative = &group[number % group.len()];
            number /= group.len();
            meet(alternative, &mut changed);
            fill(&mut changed, words, alternative);
        }
        Some(changed)
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
