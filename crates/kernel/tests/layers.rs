//! The programs name layers by numbers of their own, since they know no model: the numbers are the public ones.

use openwfp_model::LayerId;

#[allow(dead_code)]
#[path = "../../shims/src/layers.rs"]
mod layers;

#[test]
fn the_programs_number_layers_as_the_platform_does() {
    let table = [
        (layers::INBOUND_IPPACKET, LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_IPPACKET_V6),
        (layers::OUTBOUND_IPPACKET, LayerId::OUTBOUND_IPPACKET_V4, LayerId::OUTBOUND_IPPACKET_V6),
        (layers::INBOUND_TRANSPORT, LayerId::INBOUND_TRANSPORT_V4, LayerId::INBOUND_TRANSPORT_V6),
        (layers::OUTBOUND_TRANSPORT, LayerId::OUTBOUND_TRANSPORT_V4, LayerId::OUTBOUND_TRANSPORT_V6),
        (layers::DATAGRAM_DATA, LayerId::DATAGRAM_DATA_V4, LayerId::DATAGRAM_DATA_V6),
        (layers::INBOUND_ICMP_ERROR, LayerId::INBOUND_ICMP_ERROR_V4, LayerId::INBOUND_ICMP_ERROR_V6),
        (layers::OUTBOUND_ICMP_ERROR, LayerId::OUTBOUND_ICMP_ERROR_V4, LayerId::OUTBOUND_ICMP_ERROR_V6),
        (layers::RESOURCE_ASSIGNMENT, LayerId::ALE_RESOURCE_ASSIGNMENT_V4, LayerId::ALE_RESOURCE_ASSIGNMENT_V6),
        (layers::AUTH_LISTEN, LayerId::ALE_AUTH_LISTEN_V4, LayerId::ALE_AUTH_LISTEN_V6),
        (layers::AUTH_RECV_ACCEPT, LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6),
        (layers::AUTH_CONNECT, LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6),
        (layers::FLOW_ESTABLISHED, LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6),
        (layers::RESOURCE_RELEASE, LayerId::ALE_RESOURCE_RELEASE_V4, LayerId::ALE_RESOURCE_RELEASE_V6),
        (layers::ENDPOINT_CLOSURE, LayerId::ALE_ENDPOINT_CLOSURE_V4, LayerId::ALE_ENDPOINT_CLOSURE_V6),
        (layers::CONNECT_REDIRECT, LayerId::ALE_CONNECT_REDIRECT_V4, LayerId::ALE_CONNECT_REDIRECT_V6),
        (layers::BIND_REDIRECT, LayerId::ALE_BIND_REDIRECT_V4, LayerId::ALE_BIND_REDIRECT_V6),
        (layers::STREAM_PACKET, LayerId::STREAM_PACKET_V4, LayerId::STREAM_PACKET_V6),
    ];
    for (layer, v4, v6) in table {
        assert_eq!((layer.of(false), layer.of(true)), (v4.get(), v6.get()), "{v4}");
    }
}

#[test]
fn every_discard_layer_follows_its_own() {
    for layer in openwfp_model::Layer::all() {
        let name = format!("{}_DISCARD", layer.name);
        let expected = openwfp_model::Layer::find(&name).map(|discard| discard.id.get());
        assert_eq!(layers::discard(layer.id.get()), expected, "{}", layer.name);
    }
}
