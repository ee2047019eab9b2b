//! A policy that is written as a file and read again is the same policy, in either syntax.

use std::collections::BTreeMap;

use openwfp_model::policy_file::{self, NoMachine};
use openwfp_model::{
    Action, Callout, CalloutFlags, CalloutKind, CalloutServer, Data, DataType, Errno, FieldId, FieldType, Filter,
    FilterCondition, FilterFlags, Guid, Layer, LayerField, LayerId, MatchType, Policy, Provider, ProviderContext,
    ProviderContextFlags, ProviderFlags, SecurityDescriptor, Sid, Sublayer, SublayerFlags, Value, Weight, builtin,
};
use proptest::prelude::*;
use proptest::sample::select;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[^\\p{Cc}]{1,12}".prop_filter("a name", |name| !name.trim().is_empty()),
        1 => select(vec!["UNIVERSAL", "universal", "INSPECTION", "SECURE_SOCKET_IPSEC"]).prop_map(str::to_owned),
    ]
}

fn description() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[^\\p{Cc}\n]{0,20}"]
}

fn guid() -> impl Strategy<Value = Guid> {
    (1..=u128::MAX).prop_map(Guid::from_u128)
}

fn data() -> impl Strategy<Value = Data> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Data::Boolean),
        any::<i64>().prop_map(Data::Integer),
        any::<String>().prop_map(Data::Text),
        any::<Vec<u8>>().prop_map(Data::Bytes),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Data::List);
        prop_oneof![list, table(inner).prop_map(Data::Table)]
    })
}

/// A table; the key `base64` stands for bytes in a file, and a table cannot have it.
fn table(inner: impl Strategy<Value = Data>) -> impl Strategy<Value = BTreeMap<String, Data>> {
    let key = any::<String>().prop_filter("the notation of bytes", |key| key != "base64");
    prop::collection::btree_map(key, inner, 0..4)
}

fn sid() -> impl Strategy<Value = Sid> {
    (0..1u64 << 48, prop::collection::vec(any::<u32>(), 0..5))
        .prop_map(|(authority, numbers)| Sid::new(authority, &numbers).expect("within its bounds"))
}

fn descriptor() -> impl Strategy<Value = SecurityDescriptor> {
    prop_oneof![
        prop::collection::vec(sid(), 1..4).prop_map(SecurityDescriptor::matching),
        sid().prop_map(|owner| SecurityDescriptor { owner: Some(owner), ..SecurityDescriptor::default() }),
    ]
}

/// A text as a blob or a path holds it.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{1,12}"
}

/// One value of the field's own type.
fn single(field: LayerField) -> BoxedStrategy<Value> {
    let texts = |texts: &'static [&'static str]| select(texts).prop_map(|text| Value::UnicodeString(text.to_owned()));
    match field.data_type {
        _ if field.field == FieldId::LINUX_CGROUP => texts(&["/", "/a", "/system.slice/ssh.service"]).boxed(),
        _ if field.field == FieldId::LINUX_SYSTEMD_UNIT => texts(&["a.service", "user@7.service"]).boxed(),
        _ if field.field == FieldId::LINUX_CONTAINER => texts(&["web", "c0ffee", "?"]).boxed(),
        DataType::Uint8 => any::<u8>().prop_map(Value::Uint8).boxed(),
        DataType::Uint16 => any::<u16>().prop_map(Value::Uint16).boxed(),
        DataType::Uint32 => any::<u32>().prop_map(Value::Uint32).boxed(),
        DataType::Uint64 => prop_oneof![any::<u64>(), Just(u64::MAX)].prop_map(Value::Uint64).boxed(),
        DataType::ByteArray16 => any::<[u8; 16]>().prop_map(Value::ByteArray16).boxed(),
        DataType::ByteArray6 => any::<[u8; 6]>().prop_map(Value::ByteArray6).boxed(),
        DataType::Sid => sid().prop_map(Value::Sid).boxed(),
        DataType::ByteBlob => prop_oneof![
            any::<Vec<u8>>().prop_map(Value::ByteBlob),
            text().prop_map(Value::UnicodeString),
            text().prop_map(|path| Value::Application(format!("/{path}"))),
        ]
        .boxed(),
        _ => prop_oneof![
            descriptor().prop_map(Value::SecurityDescriptor),
            any::<u32>().prop_map(Value::User),
            any::<u32>().prop_map(Value::Group),
        ]
        .boxed(),
    }
}

fn network(field: LayerField) -> BoxedStrategy<Value> {
    match field.data_type {
        DataType::Uint32 => (any::<u32>(), 0..=32u8)
            .prop_map(|(addr, prefix)| {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Value::V4AddrMask { addr: addr & mask, prefix }
            })
            .boxed(),
        _ => (any::<u128>(), 0..=128u8)
            .prop_map(|(addr, prefix)| {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Value::V6AddrMask { addr: addr & mask, prefix }
            })
            .boxed(),
    }
}

fn range(field: LayerField) -> impl Strategy<Value = Value> {
    (single(field), single(field)).prop_map(|(one, other)| {
        let swapped = match (&one, &other) {
            (Value::ByteArray16(one), Value::ByteArray16(other)) => one > other,
            _ => one.as_integer() > other.as_integer(),
        };
        if swapped { Value::range(other, one) } else { Value::range(one, other) }
    })
}

/// A condition that may stand at the layer.
fn condition(layer: &'static Layer) -> impl Strategy<Value = FilterCondition> {
    select(layer.all_fields().copied().collect::<Vec<_>>()).prop_flat_map(move |field| {
        let matches: Vec<MatchType> = MatchType::ALL.into_iter().filter(|each| each.allowed_for(&field)).collect();
        let address = field.field_type == FieldType::IpAddress;
        let value = move |match_type| match match_type {
            MatchType::Range => range(field).boxed(),
            MatchType::Prefix | MatchType::NotPrefix if address => network(field),
            MatchType::Equal if address => prop_oneof![single(field), network(field), Just(Value::Empty)].boxed(),
            MatchType::Equal => prop_oneof![6 => single(field), 1 => Just(Value::Empty)].boxed(),
            MatchType::NotEqual if address => prop_oneof![single(field), network(field)].boxed(),
            _ => single(field),
        };
        let condition = select(matches).prop_flat_map(move |match_type| {
            value(match_type).prop_map(move |value| FilterCondition::new(field.field, match_type, value))
        });
        condition.prop_filter("what the field can be compared with", move |condition| condition.check(layer).is_ok())
    })
}

/// The objects that filters of a policy can refer to.
#[derive(Clone, Debug)]
struct Objects {
    provider: Option<Provider>,
    sublayers: Vec<Sublayer>,
    contexts: Vec<ProviderContext>,
    callouts: Vec<Callout>,
    persistent: bool,
}

fn objects() -> impl Strategy<Value = Objects> {
    type Head = (String, String, Option<Guid>);
    let head = || (name(), description(), prop::option::of(guid()));
    let server = prop_oneof![
        Just(CalloutServer::Registered),
        any::<String>().prop_map(CalloutServer::BuiltIn),
        (text(), any::<Option<u32>>()).prop_map(|(path, user)| CalloutServer::Host { path: format!("/{path}"), user }),
    ];
    let layer = prop::option::of((0..99u16).prop_filter_map("a layer", LayerId::new));
    let provider = prop::option::of((head(), prop::option::of(text())));
    let sublayers = prop::collection::vec((head(), any::<u16>()), 0..3);
    let contexts = prop::collection::vec((head(), data()), 0..3);
    let callouts = prop::collection::vec((head(), layer, server, table(data()), any::<bool>()), 0..3);
    (provider, sublayers, contexts, callouts, any::<bool>()).prop_map(
        |(provider, sublayers, contexts, callouts, persistent)| {
            let provider = provider.map(|((name, description, key), service): (Head, _)| {
                let mut builder = Provider::builder(name).description(description);
                if persistent {
                    builder = builder.flags(ProviderFlags::PERSISTENT);
                }
                builder = key.into_iter().fold(builder, |builder, key| builder.key(key));
                let builder = service.into_iter().fold(builder, |builder, service| builder.service_name(service));
                builder.build().expect("a provider")
            });
            let owner = provider.as_ref().map(|provider| provider.key);
            // No two objects of a kind have the same name in a file.
            let numbered = |name: String, index: usize| if index == 0 { name } else { format!("{name} {index}") };
            let sublayers = sublayers.into_iter().enumerate().map(|(index, ((name, description, key), weight))| {
                let mut builder = Sublayer::builder(numbered(name, index)).description(description).weight(weight);
                if persistent {
                    builder = builder.flags(SublayerFlags::PERSISTENT);
                }
                builder = key.into_iter().fold(builder, |builder, key| builder.key(key));
                owner.into_iter().fold(builder, |builder, owner| builder.provider(owner)).build().expect("a sublayer")
            });
            let contexts = contexts.into_iter().enumerate().map(|(index, ((name, description, key), data))| {
                let mut builder = ProviderContext::builder(numbered(name, index), data).description(description);
                if persistent {
                    builder = builder.flags(ProviderContextFlags::PERSISTENT);
                }
                builder = key.into_iter().fold(builder, |builder, key| builder.key(key));
                owner.into_iter().fold(builder, |builder, owner| builder.provider(owner)).build().expect("a context")
            });
            let callouts =
                callouts.into_iter().enumerate().map(|(index, (head, layer, server, settings, uses_context))| {
                    let (name, description, key) = head;
                    let mut flags = CalloutFlags::empty();
                    flags.set(CalloutFlags::PERSISTENT, persistent);
                    flags.set(CalloutFlags::USES_PROVIDER_CONTEXT, uses_context);
                    let mut builder = Callout::builder(numbered(name, index)).description(description).flags(flags);
                    builder = builder.server(server).settings(settings);
                    builder = layer.into_iter().fold(builder, |builder, layer| builder.layer(layer));
                    builder = key.into_iter().fold(builder, |builder, key| builder.key(key));
                    owner
                        .into_iter()
                        .fold(builder, |builder, owner| builder.provider(owner))
                        .build()
                        .expect("a callout")
                });
            Objects {
                sublayers: sublayers.collect(),
                contexts: contexts.collect(),
                callouts: callouts.collect(),
                provider,
                persistent,
            }
        },
    )
}

fn filter(objects: Objects) -> impl Strategy<Value = Filter> {
    let weight = prop_oneof![
        Just(Weight::Automatic),
        (0..16u8).prop_map(Weight::Range),
        prop_oneof![any::<u64>(), Just(u64::MAX), 0..20u64].prop_map(Weight::Exact),
    ];
    let errno = prop::option::of(select(Errno::all().collect::<Vec<_>>()));
    let kind = select(vec![CalloutKind::Terminating, CalloutKind::Inspection, CalloutKind::Unknown]);
    let layer = (0..99u16).prop_filter_map("a layer", LayerId::new);
    let conditions = layer.prop_flat_map(|layer| {
        let most = if layer.layer().fields.is_empty() { 0 } else { 4 };
        (Just(layer), prop::collection::vec(condition_or_none(layer), 0..=most))
    });
    let choice = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let head = (name(), description(), prop::option::weighted(0.3, guid()));
    let rest = (weight, errno, kind, (any::<[bool; 3]>(), prop::bool::weighted(0.1)));
    (head, conditions, choice, rest).prop_map(move |((name, description, key), (layer, conditions), choice, rest)| {
        let (sublayer, action, context) = choice;
        let (weight, errno, kind, ([clear, permit, indexed], disabled)) = rest;
        let mut sublayers = vec![layer.layer().default_sublayer];
        if !objects.persistent {
            sublayers.push(builtin::sublayers()[3].key);
        }
        sublayers.extend(objects.sublayers.iter().map(|sublayer| sublayer.key));
        let mut actions = vec![Action::Permit, Action::Block, Action::Continue];
        let callouts = objects.callouts.iter().filter(|callout| callout.layer.is_none_or(|only| only == layer));
        actions.extend(callouts.map(|callout| Action::Callout { callout: callout.key, kind }));
        actions.push(Action::Callout { callout: builtin::callouts()[7].key, kind });
        let mut contexts = vec![None, Some(builtin::provider_contexts()[0].key)];
        contexts.extend(objects.contexts.iter().map(|context| Some(context.key)));
        let action = *action.get(&actions);
        let mut flags = FilterFlags::empty();
        flags.set(FilterFlags::CLEAR_ACTION_RIGHT, clear);
        flags.set(FilterFlags::INDEXED, indexed);
        flags.set(FilterFlags::PERSISTENT, objects.persistent);
        let may_block = matches!(action, Action::Callout { kind, .. } if kind != CalloutKind::Inspection);
        flags.set(FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED, permit && may_block);
        let conditions = together(conditions.into_iter().flatten().collect());
        let mut builder = Filter::builder(name, layer).description(description).conditions(conditions);
        builder = builder.sublayer(*sublayer.get(&sublayers)).weight(weight).action(action).flags(flags);
        builder = if disabled { builder.disabled() } else { builder };
        builder = key.into_iter().fold(builder, |builder, key| builder.key(key));
        builder = errno.into_iter().fold(builder, |builder, errno| builder.errno(errno));
        builder = context.get(&contexts).iter().fold(builder, |builder, context| builder.provider_context(*context));
        let owner = objects.provider.as_ref().map(|provider| provider.key);
        owner.into_iter().fold(builder, |builder, owner| builder.provider(owner)).build().expect("a filter")
    })
}

fn condition_or_none(layer: LayerId) -> BoxedStrategy<Option<FilterCondition>> {
    match layer.layer().fields.is_empty() {
        true => Just(None).boxed(),
        false => condition(layer.layer()).prop_map(Some).boxed(),
    }
}

/// In a file the conditions on one field stand together.
fn together(conditions: Vec<FilterCondition>) -> Vec<FilterCondition> {
    let mut fields: Vec<FieldId> = Vec::new();
    for condition in &conditions {
        if !fields.contains(&condition.field) {
            fields.push(condition.field);
        }
    }
    let of_field = |field| conditions.iter().filter(move |condition| condition.field == field).cloned();
    fields.into_iter().flat_map(of_field).collect()
}

fn policy() -> impl Strategy<Value = Policy> {
    let with_filters = objects().prop_flat_map(|objects| {
        let filters = prop::collection::vec(filter(objects.clone()), 0..6);
        (Just(objects), filters)
    });
    with_filters.prop_filter_map("objects that fit together", |(objects, filters)| {
        let mut builder = Policy::builder();
        builder = objects.provider.into_iter().fold(builder, |builder, provider| builder.provider(provider));
        builder = objects.sublayers.into_iter().fold(builder, |builder, sublayer| builder.sublayer(sublayer));
        builder = objects.contexts.into_iter().fold(builder, |builder, context| builder.provider_context(context));
        builder = objects.callouts.into_iter().fold(builder, |builder, callout| builder.callout(callout));
        filters.into_iter().fold(builder, |builder, filter| builder.filter(filter)).build().ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_toml(policy in policy()) {
        let text = policy_file::write_toml(&policy);
        match policy_file::read("test", &text, &NoMachine) {
            Ok(read) => prop_assert_eq!(read.policy, policy, "{}", text),
            Err(wrong) => prop_assert!(false, "{}\n{}", wrong, text),
        }
    }

    #[test]
    fn as_json(policy in policy()) {
        let text = policy_file::write_json(&policy);
        match policy_file::read("test", &text, &NoMachine) {
            Ok(read) => prop_assert_eq!(read.policy, policy, "{}", text),
            Err(wrong) => prop_assert!(false, "{}\n{}", wrong, text),
        }
    }
}

#[test]
fn every_test_of_every_field_is_written_and_read() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = 0;
    for layer in Layer::all().iter().filter(|layer| !layer.fields.is_empty()) {
        for _ in 0..200 {
            let condition = condition(layer).new_tree(&mut runner).expect("a condition").current();
            let filter =
                Filter::builder("x", layer.id).condition(condition).action(Action::Block).build().expect("a filter");
            let policy = Policy::builder().filter(filter).build().expect("a policy");
            let text = policy_file::write_toml(&policy);
            let read = policy_file::read("test", &text, &NoMachine).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"));
            assert_eq!(read.policy, policy, "{text}");
            seen += 1;
        }
    }
    assert!(seen > 10_000);
}

#[test]
fn a_written_policy_reads_well() {
    let filter = Filter::builder("no plain HTTP", LayerId::ALE_AUTH_CONNECT_V4)
        .description("says \"no\"")
        .when(FieldId::IP_PROTOCOL, MatchType::Equal, Value::Uint8(6))
        .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(80))
        .when(FieldId::IP_REMOTE_PORT, MatchType::Range, Value::range(Value::Uint16(8000), Value::Uint16(8099)))
        .when(FieldId::IP_REMOTE_ADDRESS, MatchType::NotEqual, Value::V4AddrMask { addr: 0x7f00_0001, prefix: 8 })
        .when(FieldId::FLAGS, MatchType::FlagsAnySet, Value::Uint32(1))
        .when(FieldId::IP_LOCAL_ADDRESS_TYPE, MatchType::Equal, Value::Uint8(1))
        .weight(Weight::Exact(1 << 63))
        .action(Action::Block)
        .build()
        .unwrap();
    let policy = Policy::builder().filter(filter).build().unwrap();
    let toml = r#"[[filter]]
name = "no plain HTTP"
description = "says \"no\""
layer = "ALE_AUTH_CONNECT_V4"
weight = { exact = "0x8000000000000000" }
action = "block"
[filter.when]
IP_PROTOCOL = "tcp"
IP_REMOTE_PORT = [80, "8000-8099"]
IP_REMOTE_ADDRESS = { not = "127.0.0.0/8" }
FLAGS = { any = ["IS_LOOPBACK"] }
IP_LOCAL_ADDRESS_TYPE = "UNICAST"
"#;
    assert_eq!(policy_file::write_toml(&policy), toml);
    let json = r#"{
  "filter": [
    {
      "name": "no plain HTTP",
      "description": "says \"no\"",
      "layer": "ALE_AUTH_CONNECT_V4",
      "weight": {
        "exact": 9223372036854775808
      },
      "action": "block",
      "when": {
        "IP_PROTOCOL": "tcp",
        "IP_REMOTE_PORT": [
          80,
          "8000-8099"
        ],
        "IP_REMOTE_ADDRESS": {
          "not": "127.0.0.0/8"
        },
        "FLAGS": {
          "any": [
            "IS_LOOPBACK"
          ]
        },
        "IP_LOCAL_ADDRESS_TYPE": "UNICAST"
      }
    }
  ]
}
"#;
    assert_eq!(policy_file::write_json(&policy), json);
}

#[test]
fn a_name_that_would_lead_elsewhere_is_written_as_a_guid() {
    let built_in = builtin::find_sublayer("INSPECTION").unwrap().key;
    let own = Sublayer::builder("inspection").weight(7).build().unwrap();
    let shadow = Sublayer::builder("INSPECTION").weight(8).build().unwrap();
    let filter = |name: &str, sublayer| {
        Filter::builder(name, LayerId::STREAM_V4).sublayer(sublayer).action(Action::Block).build().unwrap()
    };
    let only_own = Policy::builder().sublayer(own.clone()).filter(filter("a", own.key)).filter(filter("b", built_in));
    let shadowed =
        Policy::builder().sublayer(shadow.clone()).filter(filter("a", shadow.key)).filter(filter("b", built_in));
    for (policy, names) in [
        (only_own, ["sublayer = \"inspection\"".to_owned(), "sublayer = \"INSPECTION\"".to_owned()]),
        (shadowed, ["sublayer = \"INSPECTION\"".to_owned(), format!("sublayer = \"{built_in}\"")]),
    ] {
        let policy = policy.build().unwrap();
        let text = policy_file::write_toml(&policy);
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
        assert_eq!(policy_file::read("test", &text, &NoMachine).unwrap().policy, policy, "{text}");
    }
}

#[test]
fn keys_that_are_made_are_not_written() {
    let text = "provider = \"acme\"\n\n[[sublayer]]\nname = \"s\"\nweight = 1\n".to_owned()
        + &"\n[[filter]]\nname = \"x\"\nlayer = \"STREAM_V4\"\nsublayer = \"s\"\naction = \"block\"\n".repeat(3);
    let policy = policy_file::read("test", &text, &NoMachine).unwrap().policy;
    assert_eq!(policy_file::write_toml(&policy), text);
}
