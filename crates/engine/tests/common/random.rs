//! Random policies and events, from small pools of values so that filters and events meet often.

use openwfp_engine::{CalloutAction, CalloutAnswer, Event, EventValue, unknown};
use openwfp_model::{
    Action, CalloutKind, DataType, FieldId, Filter, FilterCondition, FilterFlags, Guid, Layer, LayerField, LayerId,
    MatchType, Sublayer, Value, Weight,
};

/// A small generator of random numbers (xorshift64*), so that a seed gives the same policies everywhere.
pub struct Random(u64);

impl Random {
    /// A generator that starts with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }
}

/// The layers that random policies are about.
pub const LAYERS: [LayerId; 8] = [
    LayerId::ALE_AUTH_CONNECT_V4,
    LayerId::ALE_AUTH_CONNECT_V6,
    LayerId::ALE_AUTH_RECV_ACCEPT_V4,
    LayerId::ALE_FLOW_ESTABLISHED_V6,
    LayerId::OUTBOUND_TRANSPORT_V4,
    LayerId::INBOUND_IPPACKET_V6,
    LayerId::INBOUND_MAC_FRAME_ETHERNET,
    LayerId::NAME_RESOLUTION_CACHE_V4,
];

/// A random policy: sublayers of our own, filters with ids, and what the registered callouts say.
pub struct RandomPolicy {
    /// The layer of all filters.
    pub layer: LayerId,
    /// Sublayers beside the built-in ones.
    pub sublayers: Vec<Sublayer>,
    /// Filters.
    pub filters: Vec<(u64, Filter)>,
    /// Registered callouts.
    pub registered: super::oracle::Registered,
}

/// A random policy of at most `most` filters at one of [`LAYERS`].
pub fn policy(random: &mut Random, most: usize) -> RandomPolicy {
    let layer = random.pick(&LAYERS);
    policy_at(random, layer, most)
}

/// A random policy of at most `most` filters at a layer.
pub fn policy_at(random: &mut Random, layer: LayerId, most: usize) -> RandomPolicy {
    let sublayers: Vec<Sublayer> = (0..random.below(4))
        .map(|n| {
            let weight = random.pick(&[0u16, 1, 0x4000, 0x8000, 0x8000, 0xffff]);
            Sublayer::builder(format!("sublayer {n}")).weight(weight).build().expect("a valid sublayer")
        })
        .collect();
    let mut keys = vec![layer.layer().default_sublayer];
    keys.extend(sublayers.iter().map(|sublayer| sublayer.key));
    let callouts: Vec<Guid> = (1..=5).map(|n| Guid::from_u128(0xca11_0000 + n)).collect();
    let mut registered = super::oracle::Registered::new();
    for key in &callouts {
        if random.chance(70) {
            let action = random.pick(&[CalloutAction::Permit, CalloutAction::Block, CalloutAction::Continue]);
            registered.insert(*key, CalloutAnswer { action, clear_action_right: random.chance(40) });
        }
    }
    let count = 1 + random.below(most);
    let filters = (1..=count as u64).filter_map(|id| Some((id, filter(random, layer, &keys, &callouts, id)?)));
    RandomPolicy { layer, sublayers, filters: filters.collect(), registered }
}

fn filter(random: &mut Random, layer: LayerId, keys: &[Guid], callouts: &[Guid], id: u64) -> Option<Filter> {
    let kind = random.pick(&[CalloutKind::Terminating, CalloutKind::Inspection, CalloutKind::Unknown]);
    let action = match random.below(10) {
        0..4 => Action::Permit,
        4..7 => Action::Block,
        7 => Action::Continue,
        _ => Action::Callout { callout: random.pick(callouts), kind },
    };
    let weight = match random.below(4) {
        0 | 1 => Weight::Automatic,
        2 => Weight::Range(random.below(16) as u8),
        _ => Weight::Exact(random.next() >> random.below(64)),
    };
    let mut flags = FilterFlags::empty();
    if random.chance(25) {
        flags |= FilterFlags::CLEAR_ACTION_RIGHT;
    }
    if random.chance(20) {
        flags |= FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED;
    }
    let mut builder = Filter::builder(format!("filter {id}"), layer)
        .key(Guid::from_u128(id as u128 + 1))
        .sublayer(random.pick(keys))
        .action(action)
        .weight(weight)
        .flags(flags);
    if random.chance(3) {
        builder = builder.disabled();
    }
    let fields = fields(layer);
    let tested = random.pick(&[0, 1, 1, 2, 2, 3]);
    // a few layers have no fields
    for _ in 0..if fields.is_empty() { 0 } else { tested } {
        let field = random.pick(&fields);
        for _ in 0..random.pick(&[1, 1, 1, 2, 3]) {
            builder = builder.conditions(condition(random, layer, &field));
        }
    }
    // some combinations are no valid filters; they are left out
    builder.build().ok()
}

/// The fields that conditions of random filters test.
fn fields(layer: LayerId) -> Vec<LayerField> {
    let all = layer.layer();
    let tested = |field: &&LayerField| {
        let name = field.field.name();
        !name.starts_with("RESERVED") && !name.contains("PROFILE")
    };
    all.fields.iter().filter(tested).take(14).chain(all.extension_fields()).copied().collect()
}

fn condition(random: &mut Random, layer: LayerId, field: &LayerField) -> Option<FilterCondition> {
    let match_type = random.pick(&MatchType::ALL);
    let value = match random.below(20) {
        0 => Value::Empty,
        1..6 => {
            let (a, b) = (value(random, field), value(random, field));
            match (&a, &b) {
                _ if match_type != MatchType::Range => a,
                (Value::Uint8(x), Value::Uint8(y)) => Value::range(Value::Uint8(*x.min(y)), Value::Uint8(*x.max(y))),
                (Value::Uint16(x), Value::Uint16(y)) => {
                    Value::range(Value::Uint16(*x.min(y)), Value::Uint16(*x.max(y)))
                }
                (Value::Uint32(x), Value::Uint32(y)) => {
                    Value::range(Value::Uint32(*x.min(y)), Value::Uint32(*x.max(y)))
                }
                (Value::Uint64(x), Value::Uint64(y)) => {
                    Value::range(Value::Uint64(*x.min(y)), Value::Uint64(*x.max(y)))
                }
                (Value::ByteArray16(x), Value::ByteArray16(y)) => {
                    Value::range(Value::ByteArray16(*x.min(y)), Value::ByteArray16(*x.max(y)))
                }
                _ => a,
            }
        }
        6..10 => network(random, field).unwrap_or_else(|| value(random, field)),
        // a part of a path is a text
        _ if field.field == FieldId::ALE_APP_ID && matches!(match_type, MatchType::Prefix | MatchType::NotPrefix) => {
            Value::UnicodeString(random.pick(&["curl", "/CURL", "/bin/sh", "h", "/usr"]).into())
        }
        _ => condition_value(random, field),
    };
    let condition = FilterCondition::new(field.field, match_type, value);
    let fits = Filter::builder("try", layer).action(Action::Block).condition(condition.clone()).build().is_ok();
    fits.then_some(condition)
}

fn network(random: &mut Random, field: &LayerField) -> Option<Value> {
    match value(random, field) {
        Value::Uint32(addr) if field.field_type == openwfp_model::FieldType::IpAddress => {
            let prefix = random.pick(&[0u8, 1, 8, 16, 24, 31, 32]);
            Some(Value::V4AddrMask { addr: addr & mask32(prefix), prefix })
        }
        Value::ByteArray16(bytes) => {
            let prefix = random.pick(&[0u8, 1, 16, 32, 48, 64, 65, 127, 128]);
            let mask = u128::MAX.checked_shl(128 - prefix as u32).unwrap_or(0);
            Some(Value::V6AddrMask { addr: u128::from_be_bytes(bytes) & mask, prefix })
        }
        _ => None,
    }
}

fn mask32(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - prefix as u32).unwrap_or(0)
}

fn condition_value(random: &mut Random, field: &LayerField) -> Value {
    if field.field == FieldId::ALE_USER_ID {
        let descriptors = [
            "D:(A;;CC;;;WD)",
            "D:(D;;CC;;;S-1-22-1-1001)(A;;CC;;;WD)",
            "D:(D;;CC;;;S-1-22-2-27)(A;;CC;;;S-1-22-1-1000)(A;;CC;;;S-1-22-2-100)",
            "D:(A;;CC;;;S-1-22-2-27)(D;;CC;;;S-1-22-2-100)(A;;CC;;;WD)",
            "D:",
        ];
        return match random.below(3) {
            0 => Value::User(random.pick(&[0, 1000, 1001])),
            1 => Value::Group(random.pick(&[27, 100])),
            _ => Value::SecurityDescriptor(random.pick(&descriptors).parse().expect("valid SDDL")),
        };
    }
    value(random, field)
}

/// A value that an event can have for a field.
pub fn value(random: &mut Random, field: &LayerField) -> Value {
    match field.data_type {
        DataType::Uint8 => Value::Uint8(random.pick(&[0, 1, 3, 6, 17, 58, 255])),
        DataType::Uint16 => Value::Uint16(random.pick(&[0, 1, 53, 79, 80, 81, 443, 8080, 65534, 65535])),
        DataType::Uint32 => {
            let numbers = [0, 1, 2, 5, 7, 0x0a00_0001, 0x0a00_0002, 0x7f00_0001, 0xc000_0201, u32::MAX - 1, u32::MAX];
            Value::Uint32(random.pick(&numbers))
        }
        DataType::Uint64 => Value::Uint64(random.pick(&[0, 1, u32::MAX as u64, 1 << 32, 6 << 48 | 2 << 24, u64::MAX])),
        DataType::ByteArray16 => {
            let numbers = [
                0u128,
                1,
                0x2001_0db8 << 96,
                0x2001_0db8 << 96 | 1,
                0x2001_0db8_0001 << 80 | 0xffff_ffff,
                0x2001_0db8_0001 << 80 | 0x1_0000_0000,
                0xfe80 << 112 | 1,
                u128::MAX,
            ];
            Value::ByteArray16(random.pick(&numbers).to_be_bytes())
        }
        DataType::ByteArray6 => {
            Value::ByteArray6(random.pick(&[[0; 6], [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 1, 0], [255; 6]]))
        }
        DataType::ByteBlob if field.field == FieldId::ALE_APP_ID => {
            Value::Application(random.pick(&["/usr/bin/curl", "/usr/bin/CURL", "/usr/bin/dig", "/bin/sh"]).into())
        }
        DataType::ByteBlob => Value::ByteBlob(random.pick(&[vec![], vec![1], vec![1, 2], vec![1, 2, 3], vec![9]])),
        DataType::UnicodeString if field.field.is_extension() => {
            let texts: &[&str] = match field.field {
                FieldId::LINUX_CGROUP => &["/", "/a", "/a/b", "/a/b/c", "/a/bc", "/b"],
                FieldId::LINUX_SYSTEMD_UNIT => &["a.service", "b.scope", "user@1.service"],
                _ => &["a", "b", "abc"],
            };
            Value::UnicodeString(random.pick(texts).into())
        }
        DataType::UnicodeString => {
            Value::UnicodeString(random.pick(&["", "a", "ab", "AB", "abc", "example.org"]).into())
        }
        _ if field.field == FieldId::ALE_USER_ID => Value::User(random.pick(&[0, 1000, 1001, 65534])),
        _ => Value::Sid(random.pick(&["S-1-5-18", "S-1-1-0", "S-1-22-1-1000"]).parse().expect("a valid SID")),
    }
}

/// A random event at a layer; all three states of values occur.
pub fn event(random: &mut Random, layer: LayerId) -> Event {
    let mut event = Event::new(layer);
    let layer_fields = &Layer::all()[layer.get() as usize];
    for field in layer_fields.fields.iter().take(16).chain(layer_fields.extension_fields()) {
        let value = match random.below(100) {
            0..12 => continue,
            12..16 if unknown(layer, field.field).is_some() => EventValue::Unknown,
            _ => EventValue::Known(value(random, field)),
        };
        event.values.insert(field.field, value);
    }
    event.groups = [27, 100, 5].into_iter().filter(|_| random.chance(50)).collect();
    event
}
