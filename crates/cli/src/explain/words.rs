//! The words of explanations, for people and for programs.

use crate::output::Globals;
use openwfp_engine::{Action, EventValue, Explanation, Verdict, filter_action};
use openwfp_model::MatchType;
use std::{collections::BTreeMap, sync::LazyLock};

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
