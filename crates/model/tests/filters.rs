//! What makes a filter, and what is refused with which public error.

use openwfp_model::{
    Action, CalloutKind, ConditionError, Errno, FieldId, Filter, FilterBuilder, FilterCondition, FilterError,
    FilterFlags, FwpError, Guid, LayerId, MatchType, SecurityDescriptor, Sid, Value, Weight, builtin,
};

const V4: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const V6: LayerId = LayerId::ALE_AUTH_CONNECT_V6;

fn block(layer: LayerId) -> FilterBuilder {
    Filter::builder("test", layer).action(Action::Block)
}

fn v4_network(addr: u32, prefix: u8) -> Value {
    Value::V4AddrMask { addr, prefix }
}

fn v6_network(addr: u128, prefix: u8) -> Value {
    Value::V6AddrMask { addr, prefix }
}

fn everyone() -> Value {
    Value::SecurityDescriptor(SecurityDescriptor::matching([Sid::everyone()]))
}

fn text(text: &str) -> Value {
    Value::UnicodeString(text.to_owned())
}

fn app(path: &str) -> Value {
    Value::Application(path.to_owned())
}

#[test]
fn what_a_filter_has_unless_told_otherwise() {
    let filter = block(V4).build().unwrap();
    assert_eq!(filter.sublayer, builtin::sublayer_keys::UNIVERSAL);
    assert_eq!(filter.weight, Weight::Automatic);
    assert_eq!(filter.flags, FilterFlags::empty());
    assert_eq!((filter.provider, filter.provider_context, filter.errno), (None, None, None));
    assert!(filter.conditions.is_empty());
}

#[test]
fn a_key_comes_from_provider_layer_and_name() {
    let key = |builder: FilterBuilder| builder.build().unwrap().key;
    let acme = Guid::named("test", "acme");
    assert_eq!(key(block(V4)), key(block(V4)));
    assert_ne!(key(block(V4)), key(block(V6)));
    assert_ne!(key(block(V4)), key(block(V4).provider(acme)));
    assert_ne!(key(block(V4)), key(Filter::builder("other", V4).action(Action::Block)));
    assert_eq!(key(block(V4).key(acme)), acme);
}

#[test]
fn what_a_filter_is_told() {
    let context = Guid::named("test", "context");
    let callout = Guid::named("test", "callout");
    let filter = Filter::builder("ask", V4)
        .description("two\nlines")
        .flags(FilterFlags::PERSISTENT | FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED)
        .sublayer(builtin::sublayer_keys::INSPECTION)
        .weight(Weight::Exact(7))
        .action(Action::Callout { callout, kind: CalloutKind::Unknown })
        .provider_context(context)
        .errno(Errno::EACCES)
        .build()
        .unwrap();
    assert!(filter.flags.contains(FilterFlags::HAS_PROVIDER_CONTEXT), "follows from the context");
    assert_eq!(filter.provider_context, Some(context));
    assert_eq!(filter.effective_weight(), 7);
    assert_eq!(filter.errno, Some(Errno::EACCES));
}

/// MS docs: FWPM_FILTER0; FWP_E_* of WFP error codes.
#[test]
fn filters_that_are_refused() {
    let flags = |flags| block(V4).flags(flags);
    let callout = |kind| Action::Callout { callout: Guid::named("test", "callout"), kind };
    let unregistered = FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED;
    let cases: [(&str, FilterBuilder, FwpError); 15] = [
        ("no name", Filter::builder("", V4).action(Action::Block), FwpError::NullDisplayName),
        ("a blank name", Filter::builder(" ", V4).action(Action::Block), FwpError::NullDisplayName),
        ("an unprintable name", Filter::builder("a\u{7}", V4).action(Action::Block), FwpError::InvalidParameter),
        ("an unprintable description", block(V4).description("\u{1b}[2J"), FwpError::InvalidParameter),
        ("the key of nothing", block(V4).key(Guid::ZERO), FwpError::InvalidParameter),
        ("no action", Filter::builder("test", V4), FwpError::InvalidActionType),
        ("a weight range above 15", block(V4).weight(Weight::Range(16)), FwpError::InvalidWeight),
        ("unknown flags", flags(FilterFlags::from_bits_retain(1 << 20)), FwpError::InvalidFlags),
        ("a flag of the platform's", flags(FilterFlags::DISABLED), FwpError::InvalidFlags),
        ("persistent and boot-time", flags(FilterFlags::PERSISTENT | FilterFlags::BOOTTIME), FwpError::InvalidFlags),
        ("boot-time in user mode", block(LayerId::RPC_UM).flags(FilterFlags::BOOTTIME), FwpError::IncompatibleLayer),
        ("a context that is not there", flags(FilterFlags::HAS_PROVIDER_CONTEXT), FwpError::InvalidFlags),
        ("unregistered without callout", flags(unregistered), FwpError::InvalidFlags),
        (
            "unregistered with inspection",
            flags(unregistered).action(callout(CalloutKind::Inspection)),
            FwpError::InvalidFlags,
        ),
        (
            "a wrong condition",
            block(V4).when(FieldId::MAC_LOCAL_ADDRESS, MatchType::Equal, Value::Empty),
            FwpError::ConditionNotFound,
        ),
    ];
    assert_eq!(block(V4).disabled().build().unwrap().flags, FilterFlags::DISABLED, "the platform itself sets it");
    for (what, builder, expected) in cases {
        let error = builder.build().expect_err(what);
        assert_eq!(error.fwp_error(), Some(expected), "{what}: {error}");
        assert!(!error.to_string().is_empty());
    }
    for kind in [CalloutKind::Terminating, CalloutKind::Unknown] {
        assert!(flags(unregistered).action(callout(kind)).build().is_ok());
    }
    for range in 0..=15 {
        assert!(block(V4).weight(Weight::Range(range)).build().is_ok());
    }
}

#[test]
fn all_problems_at_once() {
    let builder = Filter::builder("", V4)
        .weight(Weight::Range(99))
        .when(FieldId::IP_PROTOCOL, MatchType::Equal, Value::Uint8(6))
        .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint8(6))
        .when(FieldId::IP_REMOTE_PORT, MatchType::Prefix, Value::Uint16(6));
    let problems = builder.problems();
    let indexes: Vec<_> = problems.iter().map(FilterError::condition_index).collect();
    assert_eq!(indexes, [None, None, None, Some(1), Some(2)]);
    assert_eq!(builder.build().unwrap_err(), problems[0]);
}

/// MS docs: FWP_MATCH_TYPE; Filtering condition identifiers. Ours: applications, users, groups, text in blobs, empty.
#[test]
fn conditions_that_are_allowed() {
    use FieldId as F;
    use MatchType as M;
    let ports = Value::range(Value::Uint16(1024), Value::Uint16(65535));
    let one_port = Value::range(Value::Uint16(80), Value::Uint16(80));
    let v4_range = Value::range(Value::Uint32(0x0a00_0001), Value::Uint32(0x0a00_00ff));
    let v6_range = Value::range(Value::ByteArray16([0; 16]), Value::ByteArray16([0xff; 16]));
    let cases = [
        (V4, F::IP_PROTOCOL, M::Equal, Value::Uint8(6)),
        (V4, F::IP_REMOTE_PORT, M::NotEqual, Value::Uint16(80)),
        (V4, F::IP_REMOTE_PORT, M::GreaterOrEqual, Value::Uint16(80)),
        (V4, F::IP_REMOTE_PORT, M::Range, ports),
        (V4, F::IP_REMOTE_PORT, M::Range, one_port),
        (V4, F::IP_REMOTE_ADDRESS, M::Equal, Value::Uint32(0x7f00_0001)),
        (V4, F::IP_REMOTE_ADDRESS, M::Equal, v4_network(0x7f00_0000, 8)),
        (V4, F::IP_REMOTE_ADDRESS, M::NotEqual, v4_network(0x7f00_0000, 8)),
        (V4, F::IP_REMOTE_ADDRESS, M::Prefix, v4_network(0, 0)),
        (V4, F::IP_REMOTE_ADDRESS, M::NotPrefix, v4_network(0, 32)),
        (V4, F::IP_REMOTE_ADDRESS, M::Range, v4_range),
        (V6, F::IP_REMOTE_ADDRESS, M::Equal, Value::ByteArray16([0; 16])),
        (V6, F::IP_REMOTE_ADDRESS, M::Equal, v6_network(0xfe80 << 112, 10)),
        (V6, F::IP_REMOTE_ADDRESS, M::Equal, v6_network(0, 128)),
        (V6, F::IP_REMOTE_ADDRESS, M::Range, v6_range),
        (V4, F::FLAGS, M::FlagsAllSet, Value::Uint32(1)),
        (V4, F::FLAGS, M::FlagsAnySet, Value::Uint32(5)),
        (V4, F::FLAGS, M::FlagsNoneSet, Value::Uint32(1)),
        (V4, F::IP_LOCAL_INTERFACE, M::Equal, Value::Uint64(1)),
        (V4, F::ALE_APP_ID, M::Equal, app("/usr/bin/curl")),
        (V4, F::ALE_APP_ID, M::NotEqual, app("/usr/bin/curl")),
        (V4, F::ALE_APP_ID, M::Equal, Value::ByteBlob(vec![1, 2])),
        (V4, F::ALE_APP_ID, M::Prefix, text("/curl")),
        (V4, F::ALE_APP_ID, M::EqualCaseInsensitive, text("/usr/bin/curl")),
        (V4, F::ALE_USER_ID, M::Equal, everyone()),
        (V4, F::ALE_USER_ID, M::NotEqual, everyone()),
        (V4, F::ALE_USER_ID, M::Equal, Value::User(1000)),
        (V4, F::ALE_USER_ID, M::NotEqual, Value::Group(100)),
        (V4, F::ALE_PACKAGE_ID, M::NotEqual, Value::Sid(Sid::everyone())),
        (LayerId::INBOUND_MAC_FRAME_ETHERNET, F::MAC_REMOTE_ADDRESS, M::Equal, Value::ByteArray6([0; 6])),
        (LayerId::IPFORWARD_V4, F::IP_SOURCE_ADDRESS, M::Equal, v4_network(0, 0)),
        (LayerId::NAME_RESOLUTION_CACHE_V4, F::PEER_NAME, M::EqualCaseInsensitive, text("example.org")),
        (LayerId::RPC_UM, F::RPC_IF_UUID, M::Equal, Value::ByteArray16([7; 16])),
    ];
    for (layer, field, match_type, value) in cases {
        let condition = FilterCondition::new(field, match_type, value);
        assert_eq!(condition.check(layer.layer()), Ok(()), "{condition:?}");
    }
}

#[test]
fn conditions_that_are_refused() {
    use FieldId as F;
    use FwpError as E;
    use MatchType as M;
    let mac = LayerId::INBOUND_MAC_FRAME_ETHERNET;
    let mac_range = Value::range(Value::ByteArray6([0; 6]), Value::ByteArray6([1; 6]));
    let reversed = Value::range(Value::Uint16(90), Value::Uint16(80));
    let mixed = Value::range(Value::Uint16(80), Value::Uint32(90));
    let nested = Value::range(Value::Uint16(80), Value::range(Value::Uint16(80), Value::Uint16(90)));
    let v6_reversed = Value::range(Value::ByteArray16([1; 16]), Value::ByteArray16([0; 16]));
    let cases = [
        (LayerId::IPFORWARD_V4, F::IP_LOCAL_ADDRESS, M::Equal, Value::Uint32(0), E::ConditionNotFound),
        (V4, F::VLAN_ID, M::Equal, Value::Uint16(0), E::ConditionNotFound),
        (V4, F::VLAN_ID, M::Equal, Value::Empty, E::ConditionNotFound),
        (V4, F::IP_REMOTE_PORT, M::Prefix, Value::Uint16(80), E::MatchTypeMismatch),
        (V4, F::IP_REMOTE_PORT, M::EqualCaseInsensitive, Value::Uint16(80), E::MatchTypeMismatch),
        (V4, F::ALE_USER_ID, M::Greater, everyone(), E::MatchTypeMismatch),
        (V4, F::ALE_APP_ID, M::Range, Value::range(app("/a"), app("/b")), E::MatchTypeMismatch),
        (V6, F::IP_REMOTE_ADDRESS, M::FlagsAllSet, Value::ByteArray16([0; 16]), E::MatchTypeMismatch),
        (mac, F::MAC_REMOTE_ADDRESS, M::Range, mac_range, E::MatchTypeMismatch),
        (V4, F::IP_PROTOCOL, M::NotEqual, Value::Empty, E::MatchTypeMismatch),
        (V4, F::IP_REMOTE_PORT, M::Range, Value::Uint16(80), E::MatchTypeMismatch),
        (V4, F::IP_REMOTE_PORT, M::Equal, Value::range(Value::Uint16(1), Value::Uint16(2)), E::MatchTypeMismatch),
        (V4, F::IP_REMOTE_ADDRESS, M::Greater, v4_network(0, 8), E::MatchTypeMismatch),
        (V4, F::IP_REMOTE_ADDRESS, M::Prefix, Value::Uint32(0), E::MatchTypeMismatch),
        (V4, F::IP_REMOTE_PORT, M::Equal, Value::Uint32(80), E::TypeMismatch),
        (V4, F::IP_PROTOCOL, M::Equal, Value::Uint16(6), E::TypeMismatch),
        (V4, F::IP_REMOTE_ADDRESS, M::Equal, Value::ByteArray16([0; 16]), E::TypeMismatch),
        (V6, F::IP_REMOTE_ADDRESS, M::Equal, v4_network(0, 0), E::TypeMismatch),
        (V4, F::IP_REMOTE_PORT, M::Equal, v4_network(0, 0), E::TypeMismatch),
        (V4, F::IP_REMOTE_PORT, M::Range, mixed, E::TypeMismatch),
        (V4, F::IP_REMOTE_PORT, M::Range, nested, E::TypeMismatch),
        (V4, F::ALE_USER_ID, M::Equal, Value::Sid(Sid::everyone()), E::TypeMismatch),
        (V4, F::ALE_PACKAGE_ID, M::Equal, everyone(), E::TypeMismatch),
        (V4, F::ALE_PACKAGE_FAMILY_NAME, M::Equal, Value::User(0), E::TypeMismatch),
        (V4, F::IP_PROTOCOL, M::Equal, Value::User(0), E::TypeMismatch),
        (V4, F::IP_PROTOCOL, M::Equal, app("/usr/bin/curl"), E::TypeMismatch),
        (LayerId::NAME_RESOLUTION_CACHE_V4, F::PEER_NAME, M::Equal, app("/usr/bin/curl"), E::TypeMismatch),
        (V4, F::IP_REMOTE_PORT, M::Range, reversed, E::InvalidRange),
        (V6, F::IP_REMOTE_ADDRESS, M::Range, v6_reversed, E::InvalidRange),
        (V4, F::IP_REMOTE_ADDRESS, M::Equal, v4_network(0, 33), E::InvalidNetMask),
        (V6, F::IP_REMOTE_ADDRESS, M::Equal, v6_network(0, 129), E::InvalidNetMask),
        (V4, F::ALE_APP_ID, M::Equal, app("curl"), E::InvalidParameter),
        (V4, F::ALE_APP_ID, M::Equal, app("/usr\0"), E::InvalidParameter),
        (V4, F::ALE_APP_ID, M::Equal, text(""), E::InvalidParameter),
    ];
    for (layer, field, match_type, value, expected) in cases {
        let condition = FilterCondition::new(field, match_type, value);
        let error = condition.check(layer.layer()).expect_err(&format!("{condition:?}"));
        assert_eq!(error.fwp_error(), Some(expected), "{condition:?}: {error}");
    }
}

#[test]
fn empty_may_be_asked_for_on_every_field_with_equal_alone() {
    for layer in openwfp_model::Layer::all() {
        for field in layer.fields {
            for match_type in MatchType::ALL {
                let allowed = FilterCondition::new(field.field, match_type, Value::Empty).check(layer).is_ok();
                assert_eq!(allowed, match_type == MatchType::Equal, "{match_type} on {field:?}");
            }
        }
    }
}

/// Errors say what is wrong and what to do.
#[test]
fn messages() {
    let message = |layer: LayerId, field, match_type, value| {
        let error = FilterCondition::new(field, match_type, value).check(layer.layer()).unwrap_err();
        error.to_string()
    };
    use FieldId as F;
    use MatchType as M;
    for (actual, expected) in [
        (
            message(LayerId::IPFORWARD_V4, F::IP_LOCAL_ADDRESS, M::Equal, Value::Uint32(0)),
            "IPFORWARD_V4 has no field IP_LOCAL_ADDRESS: it has IP_SOURCE_ADDRESS and IP_DESTINATION_ADDRESS",
        ),
        (
            message(V4, F::IP_REMOTE_PORT, M::Equal, Value::Uint32(80)),
            "IP_REMOTE_PORT takes FWP_UINT16, a range of it, not FWP_UINT32",
        ),
        (
            message(V4, F::ALE_USER_ID, M::Equal, Value::Sid(Sid::everyone())),
            "ALE_USER_ID takes FWP_SECURITY_DESCRIPTOR_TYPE, a user, not FWP_SID",
        ),
        (
            message(V6, F::IP_REMOTE_ADDRESS, M::Equal, v4_network(0, 8)),
            "ALE_AUTH_CONNECT_V6 never sees IPv4 addresses: move the condition on IP_REMOTE_ADDRESS to the layer for them",
        ),
        (
            message(V4, F::ALE_USER_ID, M::Less, everyone()),
            "ALE_USER_ID holds FWP_TOKEN_ACCESS_INFORMATION_TYPE, which FWP_MATCH_LESS does not compare: \
             use FWP_MATCH_EQUAL, FWP_MATCH_NOT_EQUAL",
        ),
        (
            message(V4, F::IP_REMOTE_ADDRESS, M::Range, Value::range(Value::Uint32(2), Value::Uint32(1))),
            "the range 0.0.0.2-0.0.0.1 on IP_REMOTE_ADDRESS begins after its end: swap the ends",
        ),
    ] {
        assert_eq!(actual, expected);
    }
    let error = ConditionError::RelativePath { field: F::ALE_APP_ID, path: "curl".into() };
    assert_eq!(error.to_string(), "the application `curl` on ALE_APP_ID is no absolute path: begin it with `/`");
}
