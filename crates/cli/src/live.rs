//! The layers that are met live.

use openwfp_kernel::hooks::Hook;
use openwfp_model::{Layer, LayerId};

/// Whether `wfp run` classifies at a layer.
pub(crate) fn is_live(layer: LayerId) -> bool {
    !Hook::of_layer(layer).is_empty()
}

/// The layers at which `wfp run` classifies.
pub(crate) fn layers() -> impl Iterator<Item = LayerId> {
    Layer::all().iter().map(|layer| layer.id).filter(|layer| is_live(*layer))
}
