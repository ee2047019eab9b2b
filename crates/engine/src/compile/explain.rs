//! Explanations: what decided, what lost to it, and what would have turned the answer.
//!
//! The decision is told by an observer of the very walk that made it. Whether a single condition holds is asked of the
//! same classifier with an image that holds this condition alone. There is no second matcher.

use super::{
    CompiledFilter, CompiledPolicy, Event, EventValue, FieldWords, Schema, emit,
    event::is_unknown,
    forest, lower,
    rule::{Alternative, Group, Rules},
    users,
};
use crate::{
    Action, Answer, Arbitration, Cell, EMPTY, FIRST_FREE, Observer, RANK_SUBLAYER_SHIFT, Silent, Test, Values, Verdict,
    cell::{filter_action, kind},
    classify,
};
use openwfp_model::{DataType, FieldId, FilterCondition, Guid, LayerId, Value};
use std::{collections::HashMap, string::String, vec, vec::Vec};

/// Why a layer answered an event as it did.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The layer.
    pub layer: LayerId,
    /// The outcome.
    pub verdict: Verdict,
    /// The sublayers in the order in which they were walked.
    pub sublayers: Vec<SublayerExplanation>,
    /// The smallest change to the event that was found to turn the answer.
    pub change: Option<Change>,
}

/// What one sublayer said.
#[derive(Clone, Debug)]
pub struct SublayerExplanation {
    /// The sublayer's key.
    pub key: Guid,
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: u16,
    /// The filter that answered for it, and whether the answer is the outcome.
    pub answer: Option<SublayerAnswer>,
    /// Its filters in the order in which the walk meets them.
    pub filters: Vec<FilterExplanation>,
}

/// A sublayer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SublayerAnswer {
    /// The filter.
    pub filter: u64,
    /// What it answered, as one of [`filter_action`].
    pub action: u32,
    /// What became of the answer.
    pub effect: Effect,
}

/// What became of a sublayer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is the outcome.
    Decided,
    /// A lower sublayer wrote another action over it.
    Overridden,
    /// A higher sublayer had withdrawn the right to write the action.
    Withdrawn,
}

/// What one filter had to do with it.
#[derive(Clone, Debug)]
pub struct FilterExplanation {
    /// The filter's id.
    pub id: u64,
    /// Whether the walk got as far as this filter, or an earlier one of its sublayer had answered.
    pub reached: bool,
    /// Whether all its conditions hold.
    pub matched: bool,
    /// Whether it decided the outcome.
    pub decided: bool,
    /// Its conditions.
    pub conditions: Vec<ConditionExplanation>,
}

/// Whether one condition holds.
#[derive(Clone, Debug)]
pub struct ConditionExplanation {
    /// The condition.
    pub condition: FilterCondition,
    /// The event's value; `None`: empty.
    pub actual: Option<EventValue>,
    /// Whether it holds.
    pub matched: bool,
}

/// A change to an event, and what it would lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The fields to change, with their new values; `None`: empty.
    pub fields: Vec<(FieldId, Option<Value>)>,
    /// The outcome then.
    pub verdict: Verdict,
}

/// Remembers who answered.
#[derive(Default)]
struct Answers {
    given: Vec<(u32, Cell, bool)>,
    reached: HashMap<u32, u32>,
}

impl Observer for Answers {
    fn answer(&mut self, rank: u32, filter: &Cell, before: &Arbitration, answer: Answer) {
        if answer != Answer::Continue {
            self.given.push((rank, *filter, before.is_hard()));
            self.reached.insert(rank >> RANK_SUBLAYER_SHIFT, rank);
        }
    }
}

/// More filters than this are not tried for the smallest change.
const TRIED: usize = 4096;

impl CompiledPolicy {
    /// Classifies an event.
    #[must_use]
    pub fn classify(&self, event: &Event) -> Verdict {
        self.classify_values(event.layer, &self.values(event))
    }

    /// Classifies values that have their words already.
    #[must_use]
    pub fn classify_values(&self, layer: LayerId, values: &Values) -> Verdict {
        classify(self.image.cells(), layer.get(), values, &mut Silent)
    }

    /// Classifies an event and says why.
    #[must_use]
    pub fn explain(&self, event: &Event) -> Explanation {
        let values = self.values(event);
        let mut answers = Answers::default();
        let verdict = classify(self.image.cells(), event.layer.get(), &values, &mut answers);
        let layer = self.layer_of(event.layer);
        let mut sublayers = vec![];
        for (number, &key) in (0..).zip(&layer.sublayers) {
            let answer = answers.given.iter().find(|(rank, ..)| rank >> RANK_SUBLAYER_SHIFT == number);
            let answer = answer.map(|&(_, filter, was_hard)| SublayerAnswer {
                filter: filter.filter_id(),
                action: filter.filter_action(),
                effect: match (was_hard, verdict.filter == filter.filter_id()) {
                    (_, true) => Effect::Decided,
                    (true, _) => Effect::Withdrawn,
                    (false, _) => Effect::Overridden,
                },
            });
            let last = answers.reached.get(&number).map(|rank| rank & ((1 << RANK_SUBLAYER_SHIFT) - 1));
            let sublayer = self.sublayer(key);
            sublayers.push(SublayerExplanation {
                key,
                name: sublayer.map_or_else(String::new, |sublayer| sublayer.name.clone()),
                weight: sublayer.map_or(0, |sublayer| sublayer.weight),
                answer,
                filters: self.explain_filters(event, &values, key, last, &verdict),
            });
        }
        Explanation { layer: event.layer, verdict, sublayers, change: self.smallest_change(event, &values, &verdict) }
    }

    fn explain_filters(
        &self,
        event: &Event,
        values: &Values,
        sublayer: Guid,
        last: Option<u32>,
        verdict: &Verdict,
    ) -> Vec<FilterExplanation> {
        let mut explained = vec![];
        for (place, entry) in (1..).zip(&self.layer_of(event.layer).places) {
            let Some(filter) = self.filter(entry.filter).filter(|filter| filter.filter.sublayer == sublayer) else {
                continue;
            };
            if entry.marker.is_some() {
                continue;
            }
            let conditions: Vec<ConditionExplanation> = filter
                .filter
                .conditions
                .iter()
                .map(|condition| ConditionExplanation {
                    actual: event.values.get(&condition.field).cloned(),
                    matched: self.holds(event.layer, values, vec![self.condition_group(event.layer, condition)]),
                    condition: condition.clone(),
                })
                .collect();
            explained.push(FilterExplanation {
                id: filter.id,
                // a marker stands just before its filter
                reached: last.is_none_or(|last| place <= last || verdict.filter == filter.id),
                matched: self.holds(event.layer, values, self.filter_groups(filter)),
                decided: verdict.filter == filter.id,
                conditions,
            });
        }
        explained
    }

    fn condition_group(&self, layer: LayerId, condition: &FilterCondition) -> Group {
        Schema::of(layer)
            .field(condition.field)
            .map_or_else(Vec::new, |field| lower::field_group(field, &[condition], &self.classes, &self.groups))
    }

    /// The filter's conditions, a group for each field.
    pub(super) fn filter_groups(&self, filter: &CompiledFilter) -> Vec<Group> {
        self.field_groups(filter).into_iter().map(|(_, group)| group).collect()
    }

    pub(super) fn field_groups(&self, filter: &CompiledFilter) -> Vec<(FieldId, Group)> {
        let mut fields: Vec<(FieldId, Group)> = vec![];
        for condition in &filter.filter.conditions {
            let group = self.condition_group(filter.filter.layer, condition);
            match fields.iter_mut().find(|(field, _)| *field == condition.field) {
                Some((_, all)) => all.extend(group),
                None => fields.push((condition.field, group)),
            }
        }
        fields
    }

    /// Asks the classifier whether these conditions, alone, hold for the values.
    fn holds(&self, layer: LayerId, values: &Values, groups: Vec<Group>) -> bool {
        if groups.iter().any(Vec::is_empty) {
            return false;
        }
        let mut rules = Rules::default();
        rules.push(1, groups);
        let mut cells = vec![Cell::new(kind::NOTHING, 0, 0, 0); FIRST_FREE as usize];
        let filters = cells.len() as u32 - 1;
        cells.push(Cell::filter(filter_action::PERMIT, 0, 0, 1, 0));
        let trees = forest::build(&rules);
        let Ok((roots, worst)) = emit::emit(&mut cells, &rules, &trees) else {
            return false;
        };
        cells[1 + layer.get() as usize] = Cell::layer(trees.len() as u32, 1, roots, filters, worst);
        classify(&cells[..], layer.get(), values, &mut Silent).filter == 1
    }

    /// Looks for the smallest change to an event that turns permit into block or block into permit.
    ///
    /// Every candidate is classified by the whole policy, so what is found is true; a change of more fields than one
    /// filter tests is not looked for.
    fn smallest_change(&self, event: &Event, values: &Values, verdict: &Verdict) -> Option<Change> {
        let mut best: Option<Change> = None;
        let places = self.layer_of(event.layer).places.iter().filter(|place| place.marker.is_none()).take(TRIED);
        for filter in places.filter_map(|place| self.filter(place.filter)) {
            let mut groups = self.field_groups(filter);
            // another port says more to a person than another protocol
            groups.sort_by_key(|(field, _)| *field == FieldId::IP_PROTOCOL);
            let failing: Vec<&(FieldId, Group)> =
                groups.iter().filter(|(_, group)| !self.holds(event.layer, values, vec![group.clone()])).collect();
            let attempts: Vec<(Values, Vec<FieldId>)> = if failing.is_empty() {
                let leave = |(field, group): &(FieldId, Group)| {
                    let changed = self.leave(event.layer, *field, group, values)?;
                    Some((changed, vec![*field]))
                };
                groups.iter().filter_map(leave).collect()
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
    fn enter(&self, layer: LayerId, failing: &[&(FieldId, Group)], values: &Values) -> Option<(Values, Vec<FieldId>)> {
        let mut changed = values.clone();
        for (field, group) in failing {
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
        Some((changed, failing.iter().map(|(field, _)| *field).collect()))
    }

    /// Values for which one field of a filter no longer holds.
    fn leave(&self, layer: LayerId, field: FieldId, group: &Group, values: &Values) -> Option<Values> {
        let words = Schema::of(layer).field(field)?;
        for test in group.iter().flatten() {
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
                if in_domain(layer, field, &typed, words, &changed) && !self.holds(layer, &changed, vec![group.clone()])
                {
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
