//! The layers that are met live.

use openwfp_model::LayerId;

/// Layers at which `wfp run` classifies.
pub(crate) const LIVE_LAYERS: [LayerId; 10] = [
    LayerId::ALE_RESOURCE_ASSIGNMENT_V4,
    LayerId::ALE_RESOURCE_ASSIGNMENT_V6,
    LayerId::ALE_AUTH_LISTEN_V4,
    LayerId::ALE_AUTH_LISTEN_V6,
    LayerId::ALE_AUTH_CONNECT_V4,
    LayerId::ALE_AUTH_CONNECT_V6,
    LayerId::ALE_AUTH_RECV_ACCEPT_V4,
    LayerId::ALE_AUTH_RECV_ACCEPT_V6,
    LayerId::ALE_FLOW_ESTABLISHED_V4,
    LayerId::ALE_FLOW_ESTABLISHED_V6,
];
