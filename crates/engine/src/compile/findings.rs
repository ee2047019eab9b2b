//! What a person should know about a policy before it is used: filters that can never decide, and filters that decide
//! otherwise than one would think.

use super::{
    CompiledPolicy, Unknown,
    rule::{Alternative, Group},
    unknown,
};
use crate::Test;
use openwfp_model::{Action, FieldId, Guid, LayerId};
use std::{collections::HashMap, vec, vec::Vec};

/// The filters of a sublayer that may shadow later ones, with their conditions.
type Earlier = Vec<(u64, Vec<(FieldId, Group)>)>;

/// An earlier filter is looked for among this many, so that very large policies take linear time.
const LOOKED_BACK: usize = 4096;

/// Something that a person should know about a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The filter's conditions can never hold together.
    NeverMatches {
        /// The filter.
        filter: u64,
    },
    /// An earlier filter of the same sublayer answers whenever this one would.
    Shadowed {
        /// The filter.
        filter: u64,
        /// The one that answers.
        by: u64,
    },
    /// The filter tests a value that is known only when the first packet leaves, so that it cannot refuse a connect at
    /// once.
    Late {
        /// The filter.
        filter: u64,
        /// The fields.
        fields: Vec<FieldId>,
    },
    /// The filter is disabled.
    Disabled {
        /// The filter.
        filter: u64,
    },
}

impl CompiledPolicy {
    /// What a person should know about these filters, in the order of the filters.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = vec![];
        let mut earlier: HashMap<(LayerId, Guid), Earlier> = HashMap::new();
        for filter in self.filters.iter().filter(|filter| filter.is_disabled()) {
            findings.push(Finding::Disabled { filter: filter.id });
        }
        let places = self.layers.iter().flat_map(|layer| &layer.places).filter(|place| place.marker.is_none());
        for filter in places.filter_map(|place| self.filter(place.filter)) {
            let groups = self.field_groups(filter);
            let late: Vec<FieldId> = groups
                .iter()
                .map(|(field, _)| *field)
                .filter(|&field| unknown(filter.filter.layer, field) == Some(Unknown::Late))
                .collect();
            if !late.is_empty() {
                findings.push(Finding::Late { filter: filter.id, fields: late });
            }
            if groups.iter().any(|(_, group)| group.is_empty()) {
                findings.push(Finding::NeverMatches { filter: filter.id });
                continue;
            }
            let before = earlier.entry((filter.filter.layer, filter.filter.sublayer)).or_default();
            if let Some((by, _)) = before.iter().rev().take(LOOKED_BACK).find(|(_, other)| covers(other, &groups)) {
                findings.push(Finding::Shadowed { filter: filter.id, by: *by });
            }
            let terminates = matches!(filter.filter.action, Action::Permit | Action::Block);
            if terminates {
                before.push((filter.id, groups));
            }
        }
        findings
    }
}

/// Whether everything that meets `inner` meets `outer`. May miss cases, never claims one wrongly.
fn covers(outer: &[(FieldId, Group)], inner: &[(FieldId, Group)]) -> bool {
    outer.iter().all(|(field, group)| {
        inner
            .iter()
            .find(|(other, _)| other == field)
            .is_some_and(|(_, narrow)| narrow.iter().all(|narrow| group.iter().any(|wide| implies(narrow, wide))))
    })
}

fn implies(narrow: &Alternative, wide: &Alternative) -> bool {
    wide.iter().all(|wide| {
        narrow.iter().any(|narrow| {
            narrow.word == wide.word
                && match (narrow.test, wide.test) {
                    (Test::Range(low, high), Test::Range(first, last)) => first <= low && high <= last,
                    (Test::Range(low, high), Test::Mask(mask, expected)) => low == high && low & mask == expected,
                    (Test::Range(low, high), Test::Any(mask)) => low == high && low & mask != 0,
                    (Test::Mask(inner, set), Test::Mask(mask, expected)) => {
                        mask & !inner == 0 && set & mask == expected
                    }
                    (Test::Mask(inner, set), Test::Any(mask)) => set & inner & mask != 0,
                    (Test::Any(inner), Test::Any(mask)) => inner & !mask == 0,
                    (a, b) => a == b,
                }
        })
    })
}
