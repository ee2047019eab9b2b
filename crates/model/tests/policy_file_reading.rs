//! Policy files that are right, and the objects that they hold.

use openwfp_model::policy_file::{self, NoMachine, Read, Resolver};
use openwfp_model::{
    Action, CalloutKind, CalloutServer, Data, Errno, FieldId, Filter, FilterCondition, FilterFlags, Guid, LayerId,
    MatchType, Policy, Value, Weight, builtin,
};

/// A machine with a user, a group and a symbolic link.
struct Machine;

impl Resolver for Machine {
    fn user(&self, name: &str) -> Option<u32> {
        (name == "alice").then_some(1000)
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "adm").then_some(4)
    }

    fn canonicalize(&self, path: &str) -> Result<String, String> {
        match path {
            "/usr/bin/python3" => Ok("/usr/bin/python3.13".to_owned()),
            _ => Ok(path.to_owned()),
        }
    }

    fn container(&self, text: &str) -> Result<String, String> {
        Ok(if text == "c0ffee" { "c0ffee00".to_owned() } else { text.to_owned() })
    }

    fn network_namespace(&self, text: &str) -> Result<u32, String> {
        if text == "blue-1" { Ok(4026532001) } else { Err(format!("unknown network namespace `{text}`")) }
    }
}

fn read(text: &str) -> Read {
    policy_file::read("test", text, &Machine).unwrap_or_else(|wrong| panic!("{wrong}"))
}

fn policy(text: &str) -> Policy {
    let read = read(text);
    assert!(read.warnings.is_empty(), "{}", read.warnings);
    read.policy
}

/// The conditions of a filter at a layer with that table of conditions.
fn conditions(layer: &str, when: &str) -> Vec<FilterCondition> {
    let text = format!("[[filter]]\nname = \"x\"\nlayer = \"{layer}\"\naction = \"block\"\n[filter.when]\n{when}\n");
    let mut filters = policy(&text).filters;
    assert_eq!(filters.len(), 1, "{text}");
    filters.remove(0).conditions
}

/// The conditions on one field at ALE_AUTH_CONNECT_V4, as pairs.
fn tests(field: &str, value: &str) -> Vec<(MatchType, Value)> {
    let conditions = conditions("ALE_AUTH_CONNECT_V4", &format!("{field} = {value}"));
    conditions.into_iter().map(|condition| (condition.match_type, condition.value)).collect()
}

const EXAMPLE: &str = r#"
provider = "acme"

[[sublayer]]
name   = "acme.web"
weight = 0x8000

[[filter]]
name     = "curl may not speak plain HTTP"
layer    = "ALE_AUTH_CONNECT"
sublayer = "acme.web"
weight   = 7
action   = "block"
flags    = ["CLEAR_ACTION_RIGHT"]
context  = "acme limits"
errno    = "EACCES"
[filter.when]
ALE_APP_ID        = "/usr/bin/curl"
IP_PROTOCOL       = "tcp"
IP_REMOTE_PORT    = [80, "8000-8099"]
IP_REMOTE_ADDRESS = { not = "127.0.0.0/8" }
FLAGS             = { any = ["IS_LOOPBACK"] }

[[provider_context]]
name = "acme limits"
data = { bytes = 1000000 }

[[callout]]
name = "dns-log"
uses = "openwfp.dns-monitor"
[callout.settings]
names = ["example.com"]
"#;

#[test]
fn the_example_of_the_documentation() {
    let policy = policy(EXAMPLE);
    let provider = policy.provider.as_ref().unwrap();
    assert_eq!(provider.name, "acme");
    assert_eq!((policy.sublayers[0].name.as_str(), policy.sublayers[0].weight), ("acme.web", 0x8000));
    let [v4, v6] = policy.filters.as_slice() else { panic!("{:#?}", policy.filters) };
    assert_eq!((v4.layer, v6.layer), (LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6));
    for filter in [v4, v6] {
        assert_eq!(filter.name, "curl may not speak plain HTTP");
        assert_eq!(filter.provider, Some(provider.key));
        assert_eq!(filter.sublayer, policy.sublayers[0].key);
        assert_eq!(filter.weight, Weight::Range(7));
        assert_eq!(filter.action, Action::Block);
        assert_eq!(filter.flags, FilterFlags::CLEAR_ACTION_RIGHT | FilterFlags::HAS_PROVIDER_CONTEXT);
        assert_eq!(filter.provider_context, Some(policy.provider_contexts[0].key));
        assert_eq!(filter.errno, Some(Errno::EACCES));
    }
    let expected = [
        FilterCondition::equal(FieldId::ALE_APP_ID, Value::Application("/usr/bin/curl".into())),
        FilterCondition::equal(FieldId::IP_PROTOCOL, Value::Uint8(6)),
        FilterCondition::equal(FieldId::IP_REMOTE_PORT, Value::Uint16(80)),
        FilterCondition::new(
            FieldId::IP_REMOTE_PORT,
            MatchType::Range,
            Value::range(Value::Uint16(8000), Value::Uint16(8099)),
        ),
        FilterCondition::new(
            FieldId::IP_REMOTE_ADDRESS,
            MatchType::NotEqual,
            Value::V4AddrMask { addr: 0x7f00_0000, prefix: 8 },
        ),
        FilterCondition::new(FieldId::FLAGS, MatchType::FlagsAnySet, Value::Uint32(1)),
    ];
    assert_eq!(v4.conditions, expected);
    // No IPv6 address lies in 127.0.0.0/8.
    let everything = Value::V6AddrMask { addr: 0, prefix: 0 };
    assert_eq!(v6.conditions[4], FilterCondition::equal(FieldId::IP_REMOTE_ADDRESS, everything));
    assert_eq!(v6.conditions[..4], expected[..4]);
    assert_eq!(policy.provider_contexts[0].data, Data::Table([("bytes".into(), Data::Integer(1_000_000))].into()));
    assert_eq!(policy.callouts[0].server, CalloutServer::BuiltIn("openwfp.dns-monitor".into()));
    assert_eq!(policy.callouts[0].settings["names"], Data::List(vec![Data::Text("example.com".into())]));
}

#[test]
fn json_says_the_same_as_toml() {
    let json = r#"{
        "provider": "acme",
        "sublayer": [{"name": "acme.web", "weight": 32768}],
        "filter": [{
            "name": "curl may not speak plain HTTP", "layer": "ALE_AUTH_CONNECT", "sublayer": "acme.web", "weight": 7,
            "action": "block", "flags": ["CLEAR_ACTION_RIGHT"], "context": "acme limits", "errno": "EACCES",
            "when": {
                "ALE_APP_ID": "/usr/bin/curl", "IP_PROTOCOL": "tcp", "IP_REMOTE_PORT": [80, "8000-8099"],
                "IP_REMOTE_ADDRESS": {"not": "127.0.0.0/8"}, "FLAGS": {"any": ["IS_LOOPBACK"]}
            }
        }],
        "provider_context": [{"name": "acme limits", "data": {"bytes": 1000000}}],
        "callout": [{"name": "dns-log", "uses": "openwfp.dns-monitor", "settings": {"names": ["example.com"]}}]
    }"#;
    assert_eq!(policy(json), policy(EXAMPLE));
}

#[test]
fn an_empty_file_is_an_empty_policy() {
    for text in ["", "# nothing\n", "{}", "\u{feff}", "\u{feff}{}", "filter = []"] {
        assert_eq!(policy(text), Policy::default(), "{text:?}");
    }
}

#[test]
fn utf16_is_read_like_utf8() {
    let mut bytes = vec![0xff, 0xfe];
    bytes.extend(EXAMPLE.encode_utf16().flat_map(u16::to_le_bytes));
    assert_eq!(policy_file::read_bytes("test", &bytes, &Machine), Ok(read(EXAMPLE)));
}

#[test]
fn numbers_and_their_names() {
    use MatchType::*;
    let port = Value::Uint16;
    let range = |low, high| Value::range(port(low), port(high));
    for (value, expected) in [
        ("80", vec![(Equal, port(80))]),
        ("0x50", vec![(Equal, port(80))]),
        ("\"80\"", vec![(Equal, port(80))]),
        ("\"0x50\"", vec![(Equal, port(80))]),
        ("\"http\"", vec![(Equal, port(80))]),
        ("\"HTTP-Alt\"", vec![(Equal, port(8080))]),
        ("\"80-90\"", vec![(Range, range(80, 90))]),
        ("\"80 - 90\"", vec![(Range, range(80, 90))]),
        ("\"80-80\"", vec![(Range, range(80, 80))]),
        ("\"http-https\"", vec![(Range, range(80, 443))]),
        ("\"ftp-data-http-alt\"", vec![(Range, range(20, 8080))]),
        ("{ min = 1024 }", vec![(GreaterOrEqual, port(1024))]),
        ("{ max = 1023 }", vec![(LessOrEqual, port(1023))]),
        ("{ min = 1, max = \"https\" }", vec![(Range, range(1, 443))]),
        ("{ greater = 1023 }", vec![(Greater, port(1023))]),
        ("{ less = 1024 }", vec![(Less, port(1024))]),
        ("{ not = 80 }", vec![(NotEqual, port(80))]),
        ("{ not = \"80-90\" }", vec![(Less, port(80)), (Greater, port(90))]),
        ("{ not = \"0-90\" }", vec![(Greater, port(90))]),
        ("{ not = { min = 80, max = 65535 } }", vec![(Less, port(80))]),
        ("{ not = { min = 80 } }", vec![(Less, port(80))]),
        ("{ not = { max = 80 } }", vec![(Greater, port(80))]),
        ("{ not = { greater = 80 } }", vec![(LessOrEqual, port(80))]),
        ("{ empty = true }", vec![(Equal, Value::Empty)]),
        ("{ all = 3 }", vec![(FlagsAllSet, port(3))]),
        ("[80, { not = 443 }, \"1-2\"]", vec![(Equal, port(80)), (NotEqual, port(443)), (Range, range(1, 2))]),
    ] {
        assert_eq!(tests("IP_REMOTE_PORT", value), expected, "{value}");
    }
    let large = [(Equal, Value::Uint64(u64::MAX))];
    assert_eq!(tests("IP_LOCAL_INTERFACE", "\"0xffffffffffffffff\""), large);
    assert_eq!(tests("IP_LOCAL_INTERFACE", "\"18446744073709551615\""), large);
}

#[test]
fn protocols_and_enumerations() {
    for (field, value, expected) in [
        ("IP_PROTOCOL", "\"tcp\"", Value::Uint8(6)),
        ("IP_PROTOCOL", "\"UDP\"", Value::Uint8(17)),
        ("IP_PROTOCOL", "\"icmpv6\"", Value::Uint8(58)),
        ("IP_PROTOCOL", "\"ipv6-icmp\"", Value::Uint8(58)),
        ("IP_PROTOCOL", "132", Value::Uint8(132)),
        ("IP_LOCAL_ADDRESS_TYPE", "\"multicast\"", Value::Uint8(3)),
        ("IP_LOCAL_ADDRESS_TYPE", "\"NlatUnicast\"", Value::Uint8(1)),
        ("IP_LOCAL_ADDRESS_TYPE", "2", Value::Uint8(2)),
    ] {
        assert_eq!(tests(field, value), [(MatchType::Equal, expected)], "{field} = {value}");
    }
    let direction = conditions("ALE_FLOW_ESTABLISHED_V4", "DIRECTION = \"inbound\"");
    assert_eq!(direction, [FilterCondition::equal(FieldId::DIRECTION, Value::Uint32(1))]);
}

#[test]
fn flags() {
    use MatchType::*;
    for (value, match_type, mask) in [
        ("{ all = [\"IS_LOOPBACK\", \"FWP_CONDITION_FLAG_IS_REAUTHORIZE\"] }", FlagsAllSet, 5),
        ("{ any = \"is_loopback\" }", FlagsAnySet, 1),
        ("{ none = [\"IS_LOOPBACK\", 0x80000000] }", FlagsNoneSet, 0x8000_0001),
        ("{ not = { any = [\"IS_LOOPBACK\"] } }", FlagsNoneSet, 1),
        ("{ not = { none = [\"IS_LOOPBACK\"] } }", FlagsAnySet, 1),
        ("{ not = { all = [\"IS_LOOPBACK\"] } }", FlagsNoneSet, 1),
        ("5", Equal, 5),
        ("{ not = 5 }", NotEqual, 5),
    ] {
        assert_eq!(tests("FLAGS", value), [(match_type, Value::Uint32(mask))], "{value}");
    }
}

#[test]
fn a_file_may_hold_a_disabled_filter() {
    let text = "[[filter]]\nname = \"later\"\nlayer = \"ALE_AUTH_CONNECT_V4\"\naction = \"permit\"\n\
                flags = [\"FWPM_FILTER_FLAG_DISABLED\", \"clear_action_right\"]\n";
    let policy = policy(text);
    assert_eq!(policy.filters[0].flags, FilterFlags::DISABLED | FilterFlags::CLEAR_ACTION_RIGHT);
    let written = policy_file::write_toml(&policy);
    assert!(written.contains("\"DISABLED\""), "{written}");
    assert_eq!(self::policy(&written), policy);
}

#[test]
fn identities() {
    use MatchType::*;
    let application = |path: &str| Value::Application(path.to_owned());
    for (field, value, match_type, expected) in [
        ("ALE_APP_ID", "\"/usr/bin/curl\"", Equal, application("/usr/bin/curl")),
        ("ALE_APP_ID", "\"/usr/bin/python3\"", Equal, application("/usr/bin/python3.13")),
        ("ALE_APP_ID", "{ application = \"/usr/bin/python3\" }", Equal, application("/usr/bin/python3.13")),
        ("ALE_APP_ID", "{ not = \"/usr/bin/curl\" }", NotEqual, application("/usr/bin/curl")),
        ("ALE_APP_ID", "{ text = \"curl\" }", Equal, Value::UnicodeString("curl".into())),
        ("ALE_APP_ID", "{ prefix = \"/curl\" }", Prefix, Value::UnicodeString("/curl".into())),
        ("ALE_APP_ID", "{ not = { prefix = \"/curl\" } }", NotPrefix, Value::UnicodeString("/curl".into())),
        ("ALE_APP_ID", "{ ignore_case = \"/CURL\" }", EqualCaseInsensitive, Value::UnicodeString("/CURL".into())),
        ("ALE_APP_ID", "{ hex = \"00fF\" }", Equal, Value::ByteBlob(vec![0, 0xff])),
        ("ALE_USER_ID", "\"alice\"", Equal, Value::User(1000)),
        ("ALE_USER_ID", "1000", Equal, Value::User(1000)),
        ("ALE_USER_ID", "\"1000\"", Equal, Value::User(1000)),
        ("ALE_USER_ID", "{ user = \"alice\" }", Equal, Value::User(1000)),
        ("ALE_USER_ID", "\"group:adm\"", Equal, Value::Group(4)),
        ("ALE_USER_ID", "\"group:4\"", Equal, Value::Group(4)),
        ("ALE_USER_ID", "{ group = \"adm\" }", Equal, Value::Group(4)),
        ("ALE_USER_ID", "{ not = { group = 4 } }", NotEqual, Value::Group(4)),
        ("ALE_USER_ID", "\"D:(A;;CC;;;WD)\"", Equal, Value::SecurityDescriptor("D:(A;;CC;;;WD)".parse().unwrap())),
        ("ALE_PACKAGE_ID", "\"S-1-15-2-1\"", Equal, Value::Sid("S-1-15-2-1".parse().unwrap())),
    ] {
        assert_eq!(tests(field, value), [(match_type, expected)], "{field} = {value}");
    }
}

#[test]
fn hardware_addresses_guids_and_icmp() {
    let mac =
        conditions("INBOUND_MAC_FRAME_ETHERNET", "MAC_REMOTE_ADDRESS = [\"00:00:5e:00:53:0a\", \"00-00-5E-00-53-0A\"]");
    let expected = FilterCondition::equal(FieldId::MAC_REMOTE_ADDRESS, Value::ByteArray6([0, 0, 0x5e, 0, 0x53, 0x0a]));
    assert_eq!(mac, [expected.clone(), expected]);

    let interface = conditions("RPC_UM", "RPC_IF_UUID = \"{00112233-4455-6677-8899-aabbccddeeff}\"");
    let bytes = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();
    assert_eq!(interface, [FilterCondition::equal(FieldId::RPC_IF_UUID, Value::ByteArray16(bytes))]);

    let icmp = conditions("OUTBOUND_ICMP_ERROR_V4", "ICMP_TYPE = 3\nFWPM_CONDITION_ICMP_CODE = \"0-4\"");
    assert_eq!(icmp[0], FilterCondition::equal(FieldId::IP_LOCAL_PORT, Value::Uint16(3)));
    assert_eq!(icmp[1].value, Value::range(Value::Uint16(0), Value::Uint16(4)));
}

#[test]
fn names_of_the_platform_in_any_spelling() {
    let layer = LayerId::ALE_AUTH_CONNECT_V4.layer();
    let field = FieldId::IP_REMOTE_PORT;
    let sublayer = builtin::find_sublayer("INSPECTION").unwrap();
    let text = |layer: &str, field: &str, sublayer: &str| {
        format!(
            "[[filter]]\nname = \"x\"\nlayer = \"{layer}\"\nsublayer = \"{sublayer}\"\naction = \"Block\"\n\
             flags = \"fwpm_filter_flag_indexed\"\nwhen = {{ \"{field}\" = 1 }}\n"
        )
    };
    let expected = policy(&text("ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT", "INSPECTION"));
    for (layer, field, sublayer) in [
        ("ale_auth_connect_v4", "ip_remote_port", "inspection"),
        ("FWPM_LAYER_ALE_AUTH_CONNECT_V4", "FWPM_CONDITION_IP_REMOTE_PORT", "FWPM_SUBLAYER_INSPECTION"),
        ("fwpm_layer_ale_auth_connect_v4", "icmp_code", "fwpm_sublayer_inspection"),
        (&layer.key.to_string(), &field.key().to_string(), &sublayer.key.to_string()),
    ] {
        assert_eq!(policy(&text(layer, field, sublayer)), expected, "{layer} {field} {sublayer}");
    }
}

/// Where a filter ends up, and with how many conditions, by the addresses that it names.
#[test]
fn addresses_go_to_the_layers_of_their_version() {
    const V4: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
    const V6: LayerId = LayerId::ALE_AUTH_CONNECT_V6;
    let at = |when: &str| -> Vec<(LayerId, usize)> {
        let text = format!(
            "[[filter]]\nname = \"x\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\n[filter.when]\n{when}"
        );
        policy(&text).filters.iter().map(|filter| (filter.layer, filter.conditions.len())).collect()
    };
    for (when, expected) in [
        ("IP_REMOTE_PORT = 80", vec![(V4, 1), (V6, 1)]),
        ("IP_REMOTE_ADDRESS = \"10.0.0.0/8\"", vec![(V4, 1)]),
        ("IP_REMOTE_ADDRESS = [\"fd00::/8\", \"::1\"]", vec![(V6, 2)]),
        ("IP_REMOTE_ADDRESS = [\"10.0.0.0/8\", \"fd00::/8\", \"::1\"]", vec![(V4, 1), (V6, 2)]),
        ("IP_REMOTE_ADDRESS = { not = \"10.0.0.0/8\" }", vec![(V4, 1), (V6, 1)]),
        ("IP_REMOTE_ADDRESS = [\"fd00::/8\", { not = \"10.0.0.0/8\" }]", vec![(V4, 1), (V6, 1)]),
        ("IP_REMOTE_ADDRESS = { empty = true }", vec![(V4, 1), (V6, 1)]),
        ("IP_REMOTE_ADDRESS = [\"10.0.0.1\", { empty = true }]", vec![(V4, 2), (V6, 1)]),
        ("IP_REMOTE_ADDRESS = \"10.0.0.1\"\nIP_LOCAL_ADDRESS = [\"10.0.0.2\", \"::1\"]", vec![(V4, 2)]),
    ] {
        assert_eq!(at(when), expected, "{when}");
    }
}

#[test]
fn layers_alone_in_lists_and_as_families() {
    let layers = |layer: &str| -> Vec<LayerId> {
        let text = format!("[[filter]]\nname = \"x\"\nlayer = {layer}\naction = \"permit\"");
        policy(&text).filters.iter().map(|filter| filter.layer).collect()
    };
    assert_eq!(layers("\"STREAM_V6\""), [LayerId::STREAM_V6]);
    assert_eq!(layers("\"STREAM\""), [LayerId::STREAM_V4, LayerId::STREAM_V6]);
    assert_eq!(
        layers("[\"ALE_AUTH_LISTEN_V6\", \"ALE_AUTH_CONNECT\"]"),
        [LayerId::ALE_AUTH_LISTEN_V6, LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6]
    );
}

#[test]
fn weights() {
    let weight = |weight: &str| {
        policy(&format!("[[filter]]\nname = \"x\"\nlayer = \"STREAM_V4\"\naction = \"permit\"\n{weight}")).filters[0]
            .weight
    };
    assert_eq!(weight(""), Weight::Automatic);
    assert_eq!(weight("weight = 0"), Weight::Range(0));
    assert_eq!(weight("weight = 0xf"), Weight::Range(15));
    assert_eq!(weight("weight = \"0xf\""), Weight::Range(15));
    assert_eq!(weight("weight = { exact = 16 }"), Weight::Exact(16));
    assert_eq!(weight("weight = { exact = \"0xffffffffffffffff\" }"), Weight::Exact(u64::MAX));
    let json =
        r#"{"filter":[{"name":"x","layer":"STREAM_V4","action":"permit","weight":{"exact":18446744073709551615}}]}"#;
    assert_eq!(policy(json).filters[0].weight, Weight::Exact(u64::MAX));
}

#[test]
fn actions_and_their_callouts() {
    let action = |action: &str| -> Action {
        let text = format!(
            "[[callout]]\nname = \"log\"\nkey = \"11111111-2222-3333-4444-555555555555\"\n\
             [[filter]]\nname = \"x\"\nlayer = \"STREAM_V4\"\naction = {action}"
        );
        policy(&text).filters[0].action
    };
    let log = Guid::from_u128(0x11111111_2222_3333_4444_555555555555);
    let other = Guid::from_u128(0x99999999_2222_3333_4444_555555555555);
    let built_in = builtin::find_callout("WFP_TRANSPORT_LAYER_V4_SILENT_DROP").unwrap().key;
    use CalloutKind::*;
    for (text, callout, kind) in [
        ("{ callout = \"log\" }", log, Unknown),
        ("{ callout = \"log\", kind = \"terminating\" }", log, Terminating),
        ("{ callout = \"log\", kind = \"Inspection\" }", log, Inspection),
        ("{ callout = \"{99999999-2222-3333-4444-555555555555}\" }", other, Unknown),
        ("{ callout = \"FWPM_CALLOUT_WFP_TRANSPORT_LAYER_V4_SILENT_DROP\" }", built_in, Unknown),
    ] {
        assert_eq!(action(text), Action::Callout { callout, kind }, "{text}");
    }
    assert_eq!(action("\"permit\""), Action::Permit);
    assert_eq!(action("\"block\""), Action::Block);
    assert_eq!(action("\"continue\""), Action::Continue);
}

#[test]
fn callouts() {
    let text = r#"
        [[callout]]
        name = "scan"
        description = "scans"
        host = "/usr/libexec/acme-callouts"
        user = "alice"
        layer = "STREAM_V4"
        flags = ["USES_PROVIDER_CONTEXT"]
        settings = { deep = [true, { n = -1 }], key = { base64 = "AP8=" } }
        [[callout]]
        name = "registered"
    "#;
    let policy = policy(text);
    let [scan, registered] = policy.callouts.as_slice() else { panic!("{:#?}", policy.callouts) };
    assert_eq!(scan.server, CalloutServer::Host { path: "/usr/libexec/acme-callouts".into(), user: Some(1000) });
    assert_eq!(scan.layer, Some(LayerId::STREAM_V4));
    assert_eq!(scan.settings["key"], Data::Bytes(vec![0, 0xff]));
    let n = Data::Table([("n".to_owned(), Data::Integer(-1))].into());
    assert_eq!(scan.settings["deep"], Data::List(vec![Data::Boolean(true), n]));
    assert_eq!((&registered.server, registered.layer), (&CalloutServer::Registered, None));
}

#[test]
fn keys_are_the_same_whenever_and_told_apart_by_count() {
    let text = "provider = \"acme\"\n".to_owned()
        + &"[[filter]]\nname = \"x\"\nlayer = \"STREAM\"\naction = \"block\"\n".repeat(3);
    let keys = |text: &str| -> Vec<Guid> { policy(text).filters.iter().map(|filter| filter.key).collect() };
    let first = keys(&text);
    assert_eq!(first, keys(&text));
    let mut distinct = first.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 6);
    let provider = policy(&text).provider.unwrap().key;
    let builder = Filter::builder("x", LayerId::STREAM_V4).action(Action::Block);
    assert_eq!(first[0], builder.provider(provider).build().unwrap().key, "the first is the one of the builder");
    // A filter of another name in between changes nothing, and neither does the provider's description.
    let more =
        text.replacen("[[filter]]", "[[filter]]\nname = \"y\"\nlayer = \"STREAM\"\naction = \"block\"\n[[filter]]", 1);
    assert_eq!(first, keys(&more)[2..]);
    assert_eq!(first, keys(&text.replace("\"acme\"", "{ name = \"acme\", description = \"…\" }")));
    assert_ne!(first, keys(&text.replace("\"acme\"", "\"other\"")));
}

#[test]
fn objects_of_this_file_go_before_those_of_the_platform() {
    let text = "[[sublayer]]\nname = \"UNIVERSAL\"\nweight = 1\n\
                [[filter]]\nname = \"x\"\nlayer = \"STREAM_V4\"\nsublayer = \"UNIVERSAL\"\naction = \"block\"\n";
    let policy = policy(text);
    assert_eq!(policy.filters[0].sublayer, policy.sublayers[0].key);
}

#[test]
fn a_machine_without_names_takes_numbers() {
    let text =
        "[[filter]]\nname = \"x\"\nlayer = \"ALE_AUTH_CONNECT_V4\"\naction = \"block\"\nwhen = { ALE_USER_ID = \"7\" }";
    let read = policy_file::read("test", text, &NoMachine).unwrap();
    assert_eq!(read.policy.filters[0].conditions[0].value, Value::User(7));
}

#[test]
fn warnings_come_with_the_policy() {
    let text = "[[filter]]\nname = \"x\"\nlayer = \"ALE_AUTH_CONNECT_V4\"\naction = \"block\"\n\
                when = { IP_REMOTE_PORT = [{ not = 1 }, { not = 2 }] }";
    let read = read(text);
    assert_eq!((read.policy.filters.len(), read.warnings.len()), (1, 1));
}

#[test]
fn fields_of_linux() {
    let text = |text: &str| Value::UnicodeString(text.to_owned());
    for (field, value, match_type, read) in [
        ("LINUX_CGROUP", "\"/system.slice/ssh.service\"", MatchType::Equal, text("/system.slice/ssh.service")),
        ("LINUX_CGROUP", "{ prefix = \"/system.slice\" }", MatchType::Prefix, text("/system.slice")),
        ("LINUX_CGROUP", "{ not = { prefix = \"/\" } }", MatchType::NotPrefix, text("/")),
        ("linux_systemd_unit", "{ not = \"ssh.service\" }", MatchType::NotEqual, text("ssh.service")),
        ("LINUX_CONTAINER", "\"c0ffee\"", MatchType::Equal, text("c0ffee00")),
        ("LINUX_CONTAINER", "{ empty = true }", MatchType::Equal, Value::Empty),
        ("LINUX_NETWORK_NAMESPACE", "\"blue-1\"", MatchType::Equal, Value::Uint32(4026532001)),
        ("LINUX_NETWORK_NAMESPACE", "{ not = 4026531840 }", MatchType::NotEqual, Value::Uint32(4026531840)),
        ("LINUX_NETWORK_NAMESPACE", "\"4026531840\"", MatchType::Equal, Value::Uint32(4026531840)),
    ] {
        assert_eq!(tests(field, value), [(match_type, read)], "{field} = {value}");
    }
    // the owner of packets is not known everywhere
    assert_eq!(conditions("OUTBOUND_TRANSPORT_V4", "LINUX_NETWORK_NAMESPACE = 4026531840").len(), 1);
    for (layer, when) in [
        ("OUTBOUND_TRANSPORT_V4", "LINUX_CGROUP = \"/a\""),
        ("ALE_AUTH_CONNECT_V4", "LINUX_CGROUP = \"a\""),
        ("ALE_AUTH_CONNECT_V4", "LINUX_CGROUP = \"/a/\""),
        ("ALE_AUTH_CONNECT_V4", "LINUX_CGROUP = { ignore_case = \"/a\" }"),
        ("ALE_AUTH_CONNECT_V4", "LINUX_SYSTEMD_UNIT = { prefix = \"a.service\" }"),
        ("ALE_AUTH_CONNECT_V4", "LINUX_SYSTEMD_UNIT = \"system.slice\""),
        ("ALE_AUTH_CONNECT_V4", "LINUX_NETWORK_NAMESPACE = \"red\""),
        ("ALE_AUTH_CONNECT_V4", "LINUX_NETWORK_NAMESPACE = 0"),
        ("ALE_AUTH_CONNECT_V4", "LINUX_NETWORK_NAMESPACE = { min = 1 }"),
    ] {
        let text =
            format!("[[filter]]\nname = \"x\"\nlayer = \"{layer}\"\naction = \"block\"\n[filter.when]\n{when}\n");
        assert!(policy_file::read("test", &text, &Machine).is_err(), "{when}");
    }
}
