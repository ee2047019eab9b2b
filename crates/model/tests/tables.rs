//! The public tables: layers, fields and built-in objects, looked up as people look them up.

use openwfp_model::{DataType, FieldId, FieldType, Guid, IpVersion, Layer, LayerFlags, LayerId, builtin};

/// MS docs: Management filtering layer identifiers; runtime ids as a real machine shows them.
#[test]
fn some_layers_of_the_documentation() {
    for (layer, id, name, key) in [
        (LayerId::INBOUND_IPPACKET_V4, 0, "INBOUND_IPPACKET_V4", "{c86fd1bf-21cd-497e-a0bb-17425c885c58}"),
        (LayerId::IPFORWARD_V6, 10, "IPFORWARD_V6", "{7b964818-19c7-493a-b71f-832c3684d28c}"),
        (LayerId::OUTBOUND_TRANSPORT_V4, 16, "OUTBOUND_TRANSPORT_V4", "{09e61aea-d214-46e2-9b21-b26b0b2f28c8}"),
        (LayerId::STREAM_V6, 22, "STREAM_V6", "{47c9137a-7ec4-46b3-b6e4-48e926b1eda4}"),
        (LayerId::ALE_AUTH_CONNECT_V4, 48, "ALE_AUTH_CONNECT_V4", "{c38d57d1-05a7-4c33-904f-7fbceee60e82}"),
        (LayerId::ALE_AUTH_RECV_ACCEPT_V6, 46, "ALE_AUTH_RECV_ACCEPT_V6", "{a3b42c97-9f04-4672-b87e-cee9c483257f}"),
        (LayerId::RPC_UM, 93, "RPC_UM", "{75a89dda-95e4-40f3-adc7-7688a9c847e1}"),
        (LayerId::KM_AUTHORIZATION, 98, "KM_AUTHORIZATION", "{4aa226e9-9020-45fb-956a-c0249d841195}"),
    ] {
        let found = layer.layer();
        assert_eq!((found.id.get(), found.name, found.key.to_string().as_str()), (id, name, key));
    }
}

#[test]
fn every_layer_is_found_by_id_name_and_key() {
    assert_eq!(Layer::all().len(), 99);
    for (index, layer) in Layer::all().iter().enumerate() {
        let found = |name: &str| Layer::find(name).map(|found| found.id);
        assert_eq!(usize::from(layer.id.get()), index);
        assert_eq!(LayerId::new(index as u16), Some(layer.id));
        assert_eq!(found(layer.name), Some(layer.id));
        assert_eq!(found(&layer.name.to_lowercase()), Some(layer.id));
        assert_eq!(found(&format!("FWPM_LAYER_{}", layer.name)), Some(layer.id));
        assert_eq!(found(&format!("fwpm_layer_{}", layer.name.to_lowercase())), Some(layer.id));
        assert_eq!(found(&layer.key.to_string()), Some(layer.id));
        assert_eq!(Layer::family(layer.name), [layer.id]);
        assert!(layer.flags.contains(LayerFlags::BUILTIN));
        assert!(builtin::sublayer(layer.default_sublayer).is_some(), "{}: its default sublayer exists", layer.name);
    }
    assert_eq!(LayerId::new(99), None);
    assert!(Layer::find("ALE_AUTH_CONNECT").is_none(), "a family is not a layer");
    assert!(Layer::find("").is_none());
}

#[test]
fn families_stand_for_both_versions() {
    for (name, layers) in [
        ("ALE_AUTH_CONNECT", vec![LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6]),
        ("fwpm_layer_ale_auth_connect", vec![LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6]),
        ("ALE_AUTH_CONNECT_V6", vec![LayerId::ALE_AUTH_CONNECT_V6]),
        ("ALE_AUTH_CONNECT_DISCARD", vec![LayerId::ALE_AUTH_CONNECT_V4_DISCARD, LayerId::ALE_AUTH_CONNECT_V6_DISCARD]),
        ("STREAM", vec![LayerId::STREAM_V4, LayerId::STREAM_V6]),
        ("RPC_UM", vec![LayerId::RPC_UM]),
        ("{c38d57d1-05a7-4c33-904f-7fbceee60e82}", vec![LayerId::ALE_AUTH_CONNECT_V4]),
        ("ALE_AUTH", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(Layer::family(name), layers, "{name}");
    }
    let alone = ["ALE_AUTH_CONNECT_V4", "ALE_AUTH_CONNECT_V6_DISCARD", "RPC_UM"];
    let versions = alone.map(|name| Layer::find(name).and_then(Layer::ip_version));
    assert_eq!(versions, [Some(IpVersion::V4), Some(IpVersion::V6), None]);
}

/// MS docs: Filtering condition identifiers.
#[test]
fn some_fields_of_the_documentation() {
    for (field, name, key) in [
        (FieldId::IP_LOCAL_ADDRESS, "IP_LOCAL_ADDRESS", "{d9ee00de-c1ef-4617-bfe3-ffd8f5a08957}"),
        (FieldId::IP_REMOTE_PORT, "IP_REMOTE_PORT", "{c35a604d-d22b-4e1a-91b4-68f674ee674b}"),
        (FieldId::IP_SOURCE_ADDRESS, "IP_SOURCE_ADDRESS", "{ae96897e-2e94-4bc9-b313-b27ee80e574d}"),
        (FieldId::ALE_APP_ID, "ALE_APP_ID", "{d78e1e87-8644-4ea5-9437-d809ecefc971}"),
        (FieldId::ALE_USER_ID, "ALE_USER_ID", "{af043a0a-b34d-4f86-979c-c90371af6e66}"),
        (FieldId::FLAGS, "FLAGS", "{632ce23b-5167-435c-86d7-e903684aa80c}"),
        (FieldId::RPC_OPNUM, "RPC_OPNUM", "{d58efb76-aab7-4148-a87e-9581134129b9}"),
    ] {
        assert_eq!((field.name(), field.key().to_string().as_str()), (name, key));
    }
}

#[test]
fn every_field_of_every_layer_is_found_by_name_and_key_in_any_case() {
    for layer in Layer::all() {
        for here in layer.fields {
            let field = here.field;
            let name = field.name();
            for text in [
                name.to_owned(),
                name.to_lowercase(),
                format!("FWPM_CONDITION_{name}"),
                format!("fwpm_condition_{}", name.to_lowercase()),
                field.key().to_string(),
                field.key().to_string().to_uppercase(),
            ] {
                assert_eq!(FieldId::find(&text), Some(field), "{text}");
            }
            assert_eq!(layer.field(field), Some(here), "{name} stands once at {}", layer.name);
        }
    }
    assert_eq!(Layer::all().iter().map(|layer| layer.fields.len()).sum::<usize>(), 1490);
}

/// The public header and the documentation give some fields a second name.
#[test]
fn every_alias_names_its_field() {
    for (alias, field) in [
        ("ICMP_TYPE", FieldId::IP_LOCAL_PORT),
        ("ICMP_CODE", FieldId::IP_REMOTE_PORT),
        ("VSWITCH_ICMP_TYPE", FieldId::IP_SOURCE_PORT),
        ("VSWITCH_ICMP_CODE", FieldId::IP_DESTINATION_PORT),
        ("VSWITCH_L2_FLAGS", FieldId::L2_FLAGS),
        ("ARRIVAL_SUB_INTERFACE_INDEX", FieldId::SUB_INTERFACE_INDEX),
        ("INTERFACE", FieldId::IP_LOCAL_INTERFACE),
        ("LOCAL_INTERFACE_INDEX", FieldId::INTERFACE_INDEX),
        ("LOCAL_INTERFACE_TYPE", FieldId::INTERFACE_TYPE),
        ("LOCAL_TUNNEL_TYPE", FieldId::TUNNEL_TYPE),
        ("ALE_SIO_FIREWALL_SOCKET_PROPERTY", FieldId::ALE_SIO_FIREWALL_SYSTEM_PORT),
    ] {
        assert_eq!(FieldId::find(alias), Some(field));
        assert_eq!(FieldId::find(&format!("fwpm_condition_{}", alias.to_lowercase())), Some(field));
        assert!(FieldId::aliases().any(|known| known == (alias, field)));
    }
    assert_eq!(FieldId::aliases().count(), 11);
}

#[test]
fn no_two_objects_share_a_name_or_a_key() {
    fn distinct<T: Ord + std::fmt::Debug>(what: &str, items: impl Iterator<Item = T>) {
        let mut items: Vec<T> = items.collect();
        items.sort();
        let twice = items.windows(2).find(|pair| pair[0] == pair[1]);
        assert!(twice.is_none(), "{what}: {twice:?}");
    }
    distinct("layer names", Layer::all().iter().map(|layer| layer.name));
    distinct("layer keys", Layer::all().iter().map(|layer| layer.key));
    distinct("field keys", FieldId::all().map(FieldId::key));
    distinct("field names", FieldId::all().map(FieldId::name).chain(FieldId::aliases().map(|(alias, _)| alias)));
    distinct("sublayer keys", builtin::sublayers().iter().map(|sublayer| sublayer.key));
    distinct("sublayer weights", builtin::sublayers().iter().map(|sublayer| sublayer.weight));
    distinct("callout keys", builtin::callouts().iter().map(|callout| callout.key));
    assert!(Layer::all().iter().all(|layer| layer.key != Guid::ZERO));
}

/// MS docs: Filtering conditions available at each filtering layer.
#[test]
fn types_of_fields_at_layers() {
    for (layer, field, field_type, data_type) in [
        ("ALE_AUTH_CONNECT_V4", "IP_REMOTE_ADDRESS", FieldType::IpAddress, DataType::Uint32),
        ("ALE_AUTH_CONNECT_V6", "IP_REMOTE_ADDRESS", FieldType::IpAddress, DataType::ByteArray16),
        ("ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT", FieldType::RawData, DataType::Uint16),
        ("ALE_AUTH_CONNECT_V4", "IP_PROTOCOL", FieldType::RawData, DataType::Uint8),
        ("ALE_AUTH_CONNECT_V4", "FLAGS", FieldType::Flags, DataType::Uint32),
        ("ALE_AUTH_CONNECT_V4", "ALE_APP_ID", FieldType::RawData, DataType::ByteBlob),
        ("ALE_AUTH_CONNECT_V4", "ALE_USER_ID", FieldType::RawData, DataType::TokenAccessInformation),
        ("INBOUND_ICMP_ERROR_V4", "EMBEDDED_REMOTE_ADDRESS", FieldType::IpAddress, DataType::Uint32),
        ("IPFORWARD_V6", "IP_SOURCE_ADDRESS", FieldType::IpAddress, DataType::ByteArray16),
        ("INBOUND_MAC_FRAME_ETHERNET", "MAC_REMOTE_ADDRESS", FieldType::RawData, DataType::ByteArray6),
    ] {
        let layer = Layer::find(layer).unwrap();
        let field = layer.field(FieldId::find(field).unwrap()).unwrap();
        assert_eq!((field.field_type, field.data_type), (field_type, data_type), "{field:?} at {}", layer.name);
    }
    assert!(LayerId::IPFORWARD_V4.layer().field(FieldId::IP_LOCAL_ADDRESS).is_none());
    assert!(LayerId::INBOUND_TRANSPORT_FAST.layer().fields.is_empty());
}

#[test]
fn the_nearest_right_name() {
    assert_eq!(Layer::nearest("ALE_AUTH_CONECT").as_deref(), Some("ALE_AUTH_CONNECT"));
    assert_eq!(Layer::nearest("fwpm_layer_ale_auth_connect_v5").as_deref(), Some("ALE_AUTH_CONNECT_V4"));
    assert_eq!(Layer::nearest("colours and shapes"), None);
    assert_eq!(FieldId::nearest("IP_REMOTE_PROT"), Some("IP_REMOTE_PORT"));
    assert_eq!(FieldId::nearest("ICMP_TIPE"), Some("ICMP_TYPE"));
    let transport = LayerId::OUTBOUND_TRANSPORT_V4.layer();
    assert_eq!(transport.nearest_field("FWPM_CONDITION_IP_REMOTE_PROT"), Some("IP_REMOTE_PORT"));
    assert_eq!(transport.nearest_field("ALE_APP_ID"), None, "the nearest name at another layer is of no use");
}
