//! Which fields are filled in, and where: what the eBPF programs and the replay of captures know today.

use crate::live::LIVE_LAYERS;
use openwfp_engine::Unknown;
use openwfp_model::{FieldId, Layer, LayerId};
use openwfp_packet::replay::{self, REPLAY_LAYERS};

/// Filled in live wherever a layer has them.
const LIVE: [FieldId; 12] = [
    FieldId::ALE_APP_ID,
    FieldId::ALE_USER_ID,
    FieldId::IP_PROTOCOL,
    FieldId::IP_LOCAL_ADDRESS,
    FieldId::IP_LOCAL_ADDRESS_TYPE,
    FieldId::IP_LOCAL_PORT,
    FieldId::IP_REMOTE_ADDRESS,
    FieldId::IP_REMOTE_PORT,
    FieldId::IP_DESTINATION_ADDRESS_TYPE,
    FieldId::FLAGS,
    FieldId::COMPARTMENT_ID,
    FieldId::DIRECTION,
];

/// Filled in live where a call or a packet has an interface.
const LIVE_INTERFACE: [FieldId; 4] =
    [FieldId::INTERFACE_INDEX, FieldId::INTERFACE_TYPE, FieldId::TUNNEL_TYPE, FieldId::IP_LOCAL_INTERFACE];

/// The layers where a call or a packet has an interface.
const WITH_INTERFACE: [LayerId; 6] = [
    LayerId::ALE_RESOURCE_ASSIGNMENT_V4,
    LayerId::ALE_RESOURCE_ASSIGNMENT_V6,
    LayerId::ALE_AUTH_CONNECT_V4,
    LayerId::ALE_AUTH_CONNECT_V6,
    LayerId::ALE_AUTH_RECV_ACCEPT_V4,
    LayerId::ALE_AUTH_RECV_ACCEPT_V6,
];

/// Filled in live where a packet is received for the first time.
const LIVE_ARRIVAL: [FieldId; 4] = [
    FieldId::ARRIVAL_INTERFACE_INDEX,
    FieldId::ARRIVAL_INTERFACE_TYPE,
    FieldId::ARRIVAL_TUNNEL_TYPE,
    FieldId::IP_ARRIVAL_INTERFACE,
];

/// Where a layer is met: `live`, `replay`.
pub(crate) fn layer(layer: &Layer) -> Vec<&'static str> {
    let live = LIVE_LAYERS.contains(&layer.id).then_some("live");
    let replay = REPLAY_LAYERS.contains(&layer.id).then_some("replay");
    live.into_iter().chain(replay).collect()
}

/// Where a field of a layer is filled in: `live` (`late` where that may be at the first packet alone), `replay`.
pub(crate) fn field(layer: LayerId, field: FieldId) -> Vec<&'static str> {
    let interface = LIVE_INTERFACE.contains(&field) && WITH_INTERFACE.contains(&layer);
    let accepts = [LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6].contains(&layer);
    let arrival = accepts && LIVE_ARRIVAL.contains(&field);
    let live = LIVE_LAYERS.contains(&layer) && (LIVE.contains(&field) || interface || arrival);
    let late = openwfp_engine::unknown(layer, field) == Some(Unknown::Late);
    let live = live.then_some(if late { "late" } else { "live" });
    live.into_iter().chain(replay::fills(layer, field).then_some("replay")).collect()
}

/// Whether everything that is met live at a layer has a value of this field.
pub(crate) fn always(layer: LayerId, field: FieldId) -> bool {
    let always = [
        FieldId::ALE_APP_ID,
        FieldId::ALE_USER_ID,
        FieldId::IP_PROTOCOL,
        FieldId::IP_REMOTE_ADDRESS,
        FieldId::FLAGS,
        FieldId::COMPARTMENT_ID,
    ];
    always.contains(&field) && LIVE_LAYERS.contains(&layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_source_address_is_known() {
        let at = |layer| field(layer, FieldId::IP_LOCAL_ADDRESS);
        assert_eq!(at(LayerId::ALE_AUTH_CONNECT_V4), ["late", "replay"]);
        assert_eq!(at(LayerId::ALE_AUTH_RECV_ACCEPT_V6), ["live", "replay"]);
        assert_eq!(at(LayerId::ALE_AUTH_LISTEN_V4), ["live"]);
        assert_eq!(at(LayerId::INBOUND_TRANSPORT_V4), ["replay"]);
        assert_eq!(at(LayerId::STREAM_V4), ["replay"]);
        assert_eq!(at(LayerId::ALE_RESOURCE_RELEASE_V4), [""; 0]);
    }
}
