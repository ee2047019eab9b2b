//! Explanations for programs. They are written as they are found: there may be very many of them.

use super::words::{action, action_name, cell_action, match_name, reason, waits_for};
use crate::json::{self, FieldValue, FilterName};
use openwfp_engine::{
    Action, Change, CompiledPolicy, ConditionExplanation, Effect, EventValue, Explanation, FilterExplanation,
    SublayerExplanation,
};
use openwfp_model::{FieldId, LayerId, Value};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// An explanation as one object.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    layer: &'static str,
    action: &'static str,
    filter: Option<FilterName<'a>>,
    right: &'static str,
    sublayers: Vec<Sublayer<'a>>,
    steps: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    /// The fields whose values a late answer waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waits_for: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<Changed<'a>>,
}

#[derive(Serialize)]
struct Sublayer<'a> {
    sublayer: &'a str,
    weight: u16,
    answer: Option<&'static str>,
    effect: Option<&'static str>,
    filters: Vec<Filter<'a>>,
}

#[derive(Serialize)]
struct Filter<'a> {
    filter: Option<FilterName<'a>>,
    reached: bool,
    matched: bool,
    decided: bool,
    action: Option<&'static str>,
    conditions: Vec<Condition<'a>>,
}

#[derive(Serialize)]
struct Condition<'a> {
    field: &'static str,
    #[serde(rename = "match")]
    match_type: &'static str,
    expected: Option<Shown<'a>>,
    actual: Option<Shown<'a>>,
    matched: bool,
}

#[derive(Serialize)]
struct Changed<'a> {
    fields: Fields<'a>,
    action: &'static str,
}

impl<'a> Line<'a> {
    /// The object for an explanation.
    pub(crate) fn new(policy: &'a CompiledPolicy, explanation: &'a Explanation) -> Self {
        let verdict = &explanation.verdict;
        let layer = explanation.layer;
        Self {
            layer: layer.name(),
            action: action(verdict),
            filter: json::filter(policy, verdict.filter),
            right: if verdict.soft { "soft" } else { "hard" },
            sublayers: explanation.sublayers.iter().map(|found| sublayer(policy, layer, found)).collect(),
            steps: verdict.steps,
            reason: reason(verdict),
            waits_for: if verdict.action == Action::Late { waits_for(explanation) } else { vec![] },
            change: explanation
                .change
                .as_ref()
                .map(|change| Changed { fields: Fields { layer, change }, action: action(&change.verdict) }),
        }
    }
}

fn sublayer<'a>(policy: &'a CompiledPolicy, layer: LayerId, found: &'a SublayerExplanation) -> Sublayer<'a> {
    Sublayer {
        sublayer: &found.name,
        weight: found.weight,
        answer: found.answer.map(|answer| cell_action(answer.action)),
        effect: found.answer.map(|answer| match answer.effect {
            Effect::Decided => "decided",
            Effect::Overridden => "overridden",
            Effect::Withdrawn => "withdrawn",
        }),
        filters: found.filters.iter().map(|found| filter(policy, layer, found)).collect(),
    }
}

fn filter<'a>(policy: &'a CompiledPolicy, layer: LayerId, found: &'a FilterExplanation) -> Filter<'a> {
    Filter {
        filter: json::filter(policy, found.id),
        reached: found.reached,
        matched: found.matched,
        decided: found.decided,
        action: policy.filter(found.id).map(|found| action_name(&found.filter.action)),
        conditions: found.conditions.iter().map(|found| condition(layer, found)).collect(),
    }
}

fn condition(layer: LayerId, found: &ConditionExplanation) -> Condition<'_> {
    let shown = |value| Some(Shown { layer, field: found.condition.field, value });
    Condition {
        field: found.condition.field.name(),
        match_type: match_name(found.condition.match_type),
        expected: shown(Some(&found.condition.value)),
        actual: match &found.actual {
            Some(EventValue::Known(value)) => shown(Some(value)),
            Some(EventValue::Unknown) => shown(None),
            None => None,
        },
        matched: found.matched,
    }
}

/// A value as people write it, `?` where it is unknown; null where the layer does not have the field.
struct Shown<'a> {
    layer: LayerId,
    field: FieldId,
    value: Option<&'a Value>,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.layer.layer().field(self.field)) {
            (Some(value), Some(field)) => to.collect_str(&value.display(field)),
            (Some(_), None) => to.serialize_none(),
            (None, _) => to.serialize_str("?"),
        }
    }
}

/// The fields of a change with their new values, null for empty.
struct Fields<'a> {
    layer: LayerId,
    change: &'a Change,
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_map(Some(self.change.fields.len()))?;
        for (field, value) in &self.change.fields {
            let value: Option<FieldValue<'_>> = value.as_ref().map(|value| json::value(self.layer, *field, value));
            object.serialize_entry(field.name(), &value)?;
        }
        object.end()
    }
}
