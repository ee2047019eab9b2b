//! Filters: conditions, and what happens when they hold.

use std::fmt;

use crate::{Errno, FilterBuilder, FilterCondition, Guid, LayerId, weight};

/// How a filter is ordered within its sublayer, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Weight {
    /// Computed from the conditions: the more specific filter is heavier (`FWP_EMPTY`).
    #[default]
    Automatic,
    /// One of 16 ranges, 0 to 15; inside it computed from the conditions (`FWP_UINT8`).
    Range(u8),
    /// The 64 bits as they are (`FWP_UINT64`).
    Exact(u64),
}

/// What a callout may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CalloutKind {
    /// Always permit or block.
    Terminating,
    /// Never permit or block.
    Inspection,
    /// Either.
    Unknown,
}

/// What happens when a filter matches (`FWPM_ACTION0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The traffic may pass.
    Permit,
    /// The traffic may not pass.
    Block,
    /// The next filter is asked.
    Continue,
    /// A callout is asked.
    Callout {
        /// The key of the callout.
        callout: Guid,
        /// What it may answer.
        kind: CalloutKind,
    },
}

impl Action {
    /// The public number (`FWP_ACTION_TYPE`).
    pub const fn number(self) -> u32 {
        match self {
            Action::Block => 0x1001,
            Action::Permit => 0x1002,
            Action::Continue => 0x2006,
            Action::Callout { kind: CalloutKind::Terminating, .. } => 0x5003,
            Action::Callout { kind: CalloutKind::Inspection, .. } => 0x6004,
            Action::Callout { kind: CalloutKind::Unknown, .. } => 0x4005,
        }
    }

    /// The public name.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Block => "FWP_ACTION_BLOCK",
            Action::Permit => "FWP_ACTION_PERMIT",
            Action::Continue => "FWP_ACTION_CONTINUE",
            Action::Callout { kind: CalloutKind::Terminating, .. } => "FWP_ACTION_CALLOUT_TERMINATING",
            Action::Callout { kind: CalloutKind::Inspection, .. } => "FWP_ACTION_CALLOUT_INSPECTION",
            Action::Callout { kind: CalloutKind::Unknown, .. } => "FWP_ACTION_CALLOUT_UNKNOWN",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

bitflags::bitflags! {
    /// Properties of a filter (`FWPM_FILTER_FLAG_*`), the documented ones. The header has a few more, for parts of Windows
    /// that have no counterpart here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct FilterFlags: u32 {
        /// Kept until deleted.
        const PERSISTENT = 1;
        /// Enforced from early boot until the service has loaded the persistent filters.
        const BOOTTIME = 2;
        /// The filter has a provider context. Follows from the context.
        const HAS_PROVIDER_CONTEXT = 4;
        /// A permit becomes hard: no filter of a lower sublayer can override it. Callouts are told to do the same.
        const CLEAR_ACTION_RIGHT = 8;
        /// Permit while the callout is not registered, instead of blocking.
        const PERMIT_IF_CALLOUT_UNREGISTERED = 16;
        /// Not enforced. The platform sets it where the service of a provider does not start by itself, and takes it from
        /// nobody; a policy file may hold it.
        const DISABLED = 32;
        /// Indexed, to be found faster. No effect here: all filters are.
        const INDEXED = 64;
    }
}

/// A filter (`FWPM_FILTER0`).
///
/// Made by [`Filter::builder`], which checks it; change one by building another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// The key.
    pub key: Guid,
    /// The name, for people.
    pub name: String,
    /// A description, for people.
    pub description: String,
    /// Properties.
    pub flags: FilterFlags,
    /// The provider that the filter belongs to.
    pub provider: Option<Guid>,
    /// The layer at which it filters.
    pub layer: LayerId,
    /// The sublayer in which it is asked.
    pub sublayer: Guid,
    /// Its order within the sublayer.
    pub weight: Weight,
    /// What must hold: conditions on one field are OR-ed, fields are AND-ed.
    pub conditions: Vec<FilterCondition>,
    /// What then happens.
    pub action: Action,
    /// Data for its callout.
    pub provider_context: Option<Guid>,
    /// Ours: the error that a refused bind or connect returns; `EPERM` where it is absent.
    pub errno: Option<Errno>,
}

impl Filter {
    /// Begins a filter of that name at that layer.
    pub fn builder(name: impl Into<String>, layer: LayerId) -> FilterBuilder {
        FilterBuilder::new(name.into(), layer)
    }

    /// The 64 bits by which the filters of a sublayer are ordered, highest first.
    pub fn effective_weight(&self) -> u64 {
        weight::effective(self.weight, self.layer, &self.conditions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::numbers::NUMBERS;

    #[test]
    fn actions_have_the_public_names_and_numbers() {
        let callout = |kind| Action::Callout { callout: Guid::ZERO, kind };
        let actions = [
            Action::Permit,
            Action::Block,
            Action::Continue,
            callout(CalloutKind::Terminating),
            callout(CalloutKind::Inspection),
            callout(CalloutKind::Unknown),
        ];
        for action in actions {
            assert!(NUMBERS.contains(&(action.name(), action.number())), "{action}");
        }
        // NONE and NONE_NO_MATCH are answers of a classification, not actions of a filter; the rest are bits.
        let public = NUMBERS.iter().filter(|(name, _)| name.starts_with("FWP_ACTION_"));
        let others = public.filter(|(name, _)| !name.contains("_NONE") && !name.contains("_FLAG_"));
        assert_eq!(others.count(), actions.len());
    }
}
