//! Why a policy cannot be compiled.

use super::Groups;
use crate::{
    cell::{MAX_FILTERS, MAX_SUBLAYERS},
    classify::MAX_STEPS,
};
use openwfp_model::{FieldId, Guid, LayerId};
use std::string::String;

/// Why a policy cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A filter names a sublayer that does not exist.
    #[error("filter \"{filter}\" names the sublayer {sublayer}, which does not exist (FWP_E_SUBLAYER_NOT_FOUND)")]
    SublayerNotFound {
        /// The filter's name.
        filter: String,
        /// The key that it names.
        sublayer: Guid,
    },
    /// A layer has filters in more sublayers than an image can hold.
    #[error(
        "{layer} has filters in {found} sublayers; at most {MAX_SUBLAYERS} are possible: put some filters into a common sublayer"
    )]
    TooManySublayers {
        /// The layer.
        layer: LayerId,
        /// How many sublayers have filters there.
        found: usize,
    },
    /// A layer has more filters than an image can hold.
    #[error("{layer} has {found} filters; at most {MAX_FILTERS} are possible")]
    TooManyFilters {
        /// The layer.
        layer: LayerId,
        /// How many filters it has.
        found: usize,
    },
    /// Conditions name more groups than an image can hold.
    #[error(
        "the conditions on users, with those of the policies before, name more than {} groups: the group {gid} is one \
         too many",
        Groups::LIMIT
    )]
    TooManyGroups {
        /// The first group that found no place.
        gid: u32,
    },
    /// A field has more prefixes, case-insensitive texts and security descriptors than class numbers can tell apart.
    #[error(
        "the conditions on {field} use more than {limit} different prefixes, case-insensitive texts or security descriptors"
    )]
    TooManyComparisons {
        /// The field.
        field: FieldId,
        /// How many are possible.
        limit: usize,
    },
    /// The image would have more cells than its cells can address.
    #[error("the policy needs {cells} cells of 16 bytes; an image can have {}", crate::MAX_CELLS)]
    ImageTooLarge {
        /// How many it needs.
        cells: usize,
    },
    /// Classifying at a layer could take more steps than the bound.
    #[error(
        "an event at {layer} could take {steps} steps to classify, and {MAX_STEPS} are allowed: the filters there \
         overlap too much; use fewer filters that continue, or conditions that tell filters apart by address, port, \
         application or user"
    )]
    TooManySteps {
        /// The layer.
        layer: LayerId,
        /// The most steps that an event could take.
        steps: u64,
    },
}
