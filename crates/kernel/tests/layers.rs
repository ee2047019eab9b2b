//! The programs name layers by numbers of their own, since they know no model: the numbers are the public ones.

use openwfp_model::{FieldId, LayerId};

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
        (layers::IPFORWARD, LayerId::IPFORWARD_V4, LayerId::IPFORWARD_V6),
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
    assert_eq!(layers::INBOUND_MAC_FRAME_ETHERNET, LayerId::INBOUND_MAC_FRAME_ETHERNET.get());
    assert_eq!(layers::OUTBOUND_MAC_FRAME_ETHERNET, LayerId::OUTBOUND_MAC_FRAME_ETHERNET.get());
}

#[test]
fn every_discard_layer_follows_its_own() {
    for layer in openwfp_model::Layer::all() {
        let name = format!("{}_DISCARD", layer.name);
        let expected = openwfp_model::Layer::find(&name).map(|discard| discard.id.get());
        assert_eq!(layers::discard(layer.id.get()), expected, "{}", layer.name);
    }
}

#[test]
fn the_words_of_mac_layers_are_those_of_the_schema() {
    use layers::mac::*;
    for layer in [LayerId::INBOUND_MAC_FRAME_ETHERNET, LayerId::OUTBOUND_MAC_FRAME_ETHERNET] {
        for (field, word) in [
            (FieldId::INTERFACE_MAC_ADDRESS, INTERFACE_MAC_ADDRESS),
            (FieldId::MAC_LOCAL_ADDRESS, MAC_LOCAL_ADDRESS),
            (FieldId::MAC_REMOTE_ADDRESS, MAC_REMOTE_ADDRESS),
            (FieldId::MAC_LOCAL_ADDRESS_TYPE, MAC_LOCAL_ADDRESS_TYPE),
            (FieldId::MAC_REMOTE_ADDRESS_TYPE, MAC_REMOTE_ADDRESS_TYPE),
            (FieldId::ETHER_TYPE, ETHER_TYPE),
            (FieldId::VLAN_ID, VLAN_ID),
            (FieldId::NDIS_PORT, NDIS_PORT),
            (FieldId::L2_FLAGS, L2_FLAGS),
        ] {
            assert_eq!(openwfp_engine::Schema::of(layer).field(field).unwrap().first, word, "{field}");
        }
    }
}

#[test]
fn the_words_of_quoted_and_forwarded_packets_are_those_of_the_schema() {
    use layers::{embedded::*, forward::IP_FORWARD_INTERFACE};
    let word = |layer, field| openwfp_engine::Schema::of(layer).field(field).unwrap().first;
    for layer in [LayerId::IPFORWARD_V4, LayerId::IPFORWARD_V6] {
        assert_eq!(word(layer, FieldId::IP_FORWARD_INTERFACE), IP_FORWARD_INTERFACE);
    }
    for (layer, v6) in [(LayerId::INBOUND_ICMP_ERROR_V4, false), (LayerId::INBOUND_ICMP_ERROR_V6, true)] {
        assert_eq!(word(layer, FieldId::EMBEDDED_PROTOCOL), EMBEDDED_PROTOCOL);
        assert_eq!(word(layer, FieldId::EMBEDDED_REMOTE_ADDRESS), EMBEDDED_REMOTE_ADDRESS);
        assert_eq!(word(layer, FieldId::EMBEDDED_LOCAL_ADDRESS_TYPE), behind_address(v6));
        assert_eq!(word(layer, FieldId::EMBEDDED_LOCAL_PORT), behind_address(v6) + 1);
        assert_eq!(word(layer, FieldId::EMBEDDED_REMOTE_PORT), behind_address(v6) + 2);
    }
}
