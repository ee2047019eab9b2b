//! Explanations: what decided, what lost to it, and what would have turned the answer.
//!
//! The decision is told by an observer of the very walk that made it. Whether a single condition holds is asked of the
//! same classifier with an image that holds this condition alone ([`Question`]). There is no second matcher.

use super::{
    CompiledFilter, CompiledPolicy, Event, EventValue, Schema,
    candidates::Candidates,
    change::Change,
    lower,
    question::{Question, QuestionedFilter},
    rule::Group,
};
use crate::{Answer, Arbitration, Cell, Observer, RANK_SUBLAYER_SHIFT, Silent, Values, Verdict, classify};
use openwfp_model::{FieldId, FilterCondition, Guid, LayerId};
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
    /// What it answered, as one of [`filter_action`](crate::filter_action).
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

/// Explains events. What does not depend on the event is worked out once for each layer, so that many events are
/// explained faster than one by one.
pub struct Explainer<'p> {
    policy: &'p CompiledPolicy,
    layers: HashMap<LayerId, (Vec<QuestionedFilter<'p>>, Vec<Candidates>)>,
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
        self.explainer().explain(event)
    }

    /// Explains many events.
    #[must_use]
    pub fn explainer(&self) -> Explainer<'_> {
        Explainer { policy: self, layers: HashMap::new() }
    }

    /// What can be asked about the filters of a layer, in the order in which the walk meets them.
    fn questioned(&self, layer: LayerId) -> Vec<QuestionedFilter<'_>> {
        let filters = (1..).zip(&self.layer_of(layer).places).filter(|(_, entry)| entry.marker.is_none());
        filters
            .filter_map(|(place, entry)| {
                let filter = self.filter(entry.filter)?;
                let question = |condition| Question::new(&self.condition_group(layer, condition));
                Some(QuestionedFilter {
                    place,
                    filter,
                    conditions: filter.filter.conditions.iter().map(question).collect(),
                    fields: self.field_groups(filter).into_iter().map(Into::into).collect(),
                })
            })
            .collect()
    }

    fn condition_group(&self, layer: LayerId, condition: &FilterCondition) -> Group {
        Schema::of(layer)
            .field(condition.field)
            .map_or_else(Vec::new, |field| lower::field_group(field, &[condition], &self.classes, &self.groups))
    }

    /// The filter's conditions, a group for each field.
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
}

impl Explainer<'_> {
    /// Classifies an event and says why.
    pub fn explain(&mut self, event: &Event) -> Explanation {
        let policy = self.policy;
        let (filters, candidates) = self.layers.entry(event.layer).or_insert_with(|| {
            let filters = policy.questioned(event.layer);
            let candidates = Candidates::of(event.layer, &filters, &policy.classes);
            (filters, candidates)
        });
        let values = policy.values(event);
        let mut answers = Answers::default();
        let verdict = classify(policy.image.cells(), event.layer.get(), &values, &mut answers);
        let layer = policy.layer_of(event.layer);
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
            let sublayer = policy.sublayer(key);
            sublayers.push(SublayerExplanation {
                key,
                name: sublayer.map_or_else(String::new, |sublayer| sublayer.name.clone()),
                weight: sublayer.map_or(0, |sublayer| sublayer.weight),
                answer,
                filters: explain_filters(filters, event, &values, key, last, &verdict),
            });
        }
        Explanation {
            layer: event.layer,
            verdict,
            sublayers,
            change: policy.smallest_change(filters, candidates, event, &values, &verdict),
        }
    }
}

fn explain_filters(
    filters: &[QuestionedFilter<'_>],
    event: &Event,
    values: &Values,
    sublayer: Guid,
    last: Option<u32>,
    verdict: &Verdict,
) -> Vec<FilterExplanation> {
    let here = filters.iter().filter(|questioned| questioned.filter.filter.sublayer == sublayer);
    here.map(|questioned| FilterExplanation {
        id: questioned.filter.id,
        // a marker stands just before its filter
        reached: last.is_none_or(|last| questioned.place <= last || verdict.filter == questioned.filter.id),
        matched: questioned.fields.iter().all(|field| field.question.holds(values)),
        decided: verdict.filter == questioned.filter.id,
        conditions: questioned
            .filter
            .filter
            .conditions
            .iter()
            .zip(&questioned.conditions)
            .map(|(condition, question)| ConditionExplanation {
                actual: event.values.get(&condition.field).cloned(),
                matched: question.holds(values),
                condition: condition.clone(),
            })
            .collect(),
    })
    .collect()
}
