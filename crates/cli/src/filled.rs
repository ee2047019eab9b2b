//! Which fields are filled in, and where: what the eBPF programs and the replay of captures know today.

use crate::live::is_live;
use openwfp_engine::Unknown;
use openwfp_model::{FieldId, Layer, LayerId};
use openwfp_packet::replay::{self, REPLAY_LAYERS};

/// Filled in live wherever a layer has them.
const LIVE: [FieldId; 24] = [
    FieldId::ALE_APP_ID,
    FieldId::ALE_ORIGINAL_APP_ID,
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
    FieldId::REAUTHORIZE_REASON,
    FieldId::INTERFACE_INDEX,
    FieldId::INTERFACE_TYPE,
    FieldId::TUNNEL_TYPE,
    FieldId::IP_LOCAL_INTERFACE,
    FieldId::SUB_INTERFACE_INDEX,
    FieldId::ORIGINAL_ICMP_TYPE,
    FieldId::LINUX_CGROUP,
    FieldId::LINUX_SYSTEMD_UNIT,
    FieldId::LINUX_CONTAINER,
    FieldId::LINUX_NETWORK_NAMESPACE,
];

/// Filled in live where a packet comes in.
const LIVE_ARRIVAL: [FieldId; 4] = [
    FieldId::ARRIVAL_INTERFACE_INDEX,
    FieldId::ARRIVAL_INTERFACE_TYPE,
    FieldId::ARRIVAL_TUNNEL_TYPE,
    FieldId::IP_ARRIVAL_INTERFACE,
];

/// The layers where a packet comes in that is told by its interface.
const WITH_ARRIVAL: [LayerId; 4] = [
    LayerId::ALE_AUTH_RECV_ACCEPT_V4,
    LayerId::ALE_AUTH_RECV_ACCEPT_V6,
    LayerId::INBOUND_ICMP_ERROR_V4,
    LayerId::INBOUND_ICMP_ERROR_V6,
];

/// Filled in live at INBOUND_ICMP_ERROR.
const LIVE_EMBEDDED: [FieldId; 5] = [
    FieldId::EMBEDDED_PROTOCOL,
    FieldId::EMBEDDED_REMOTE_ADDRESS,
    FieldId::EMBEDDED_LOCAL_ADDRESS_TYPE,
    FieldId::EMBEDDED_LOCAL_PORT,
    FieldId::EMBEDDED_REMOTE_PORT,
];

/// Filled in live where something goes out.
const LIVE_NEXTHOP: [FieldId; 5] = [
    FieldId::NEXTHOP_INTERFACE_INDEX,
    FieldId::NEXTHOP_INTERFACE_TYPE,
    FieldId::NEXTHOP_TUNNEL_TYPE,
    FieldId::IP_NEXTHOP_INTERFACE,
    FieldId::NEXTHOP_SUB_INTERFACE_INDEX,
];

/// Where a layer is met: `live`, `replay`.
pub(crate) fn layer(layer: &Layer) -> Vec<&'static str> {
    let live = is_live(layer.id).then_some("live");
    let replay = REPLAY_LAYERS.contains(&layer.id).then_some("replay");
    live.into_iter().chain(replay).collect()
}

/// Where a field of a layer is filled in: `live` (`late` where that may be at the first packet alone), `replay`.
pub(crate) fn field(layer: LayerId, field: FieldId) -> Vec<&'static str> {
    let arrival = WITH_ARRIVAL.contains(&without_discard(layer)) && LIVE_ARRIVAL.contains(&field);
    let connects = [LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6].contains(&without_discard(layer));
    let nexthop = connects && LIVE_NEXTHOP.contains(&field);
    let quoted = LIVE_EMBEDDED.contains(&field);
    let live = is_live(layer) && (LIVE.contains(&field) || arrival || nexthop || quoted);
    let late = openwfp_engine::unknown(layer, field) == Some(Unknown::Late);
    let live = live.then_some(if late { "late" } else { "live" });
    live.into_iter().chain(replay::fills(layer, field).then_some("replay")).collect()
}

/// The layer whose blocked events a _DISCARD layer gets; any other layer itself.
fn without_discard(layer: LayerId) -> LayerId {
    let base = layer.name().strip_suffix("_DISCARD").and_then(Layer::find);
    base.map_or(layer, |base| base.id)
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
    always.contains(&field) && is_live(layer)
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
        assert_eq!(at(LayerId::INBOUND_TRANSPORT_V4), ["live", "replay"]);
        assert_eq!(at(LayerId::STREAM_V4), ["replay"]);
        assert_eq!(at(LayerId::ALE_RESOURCE_RELEASE_V4), ["live"]);
    }
}
