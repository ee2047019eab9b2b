//! The naive matcher: the rules of the platform, read off the documentation one by one, with no cleverness at all.
//!
//! It works on typed objects and knows nothing of words, cells, trees or class numbers.

use openwfp_engine::{CalloutAction, CalloutAnswer, Event, EventValue, Unknown, unknown};
use openwfp_model::{
    Action, CalloutKind, FieldId, Filter, FilterCondition, FilterFlags, Guid, MatchType, Sublayer, Value,
    security::{AceKind, Subject},
};
use std::collections::BTreeMap;

/// What a condition comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Holds,
    Fails,
    Unknown,
}

/// The outcome, as far as the engine has to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `permit`, `block`, `late`.
    pub action: &'static str,
    /// A lower sublayer could still have written it.
    pub soft: bool,
    /// The deciding filter; 0: none.
    pub filter: u64,
    /// `veto` and so on.
    pub reason: &'static str,
}

/// What the registered callouts of a test say.
pub type Registered = BTreeMap<Guid, CalloutAnswer>;

/// Classifies an event the slow way.
pub fn classify(
    sublayers: &[(Guid, u16)],
    filters: &[(u64, Filter)],
    registered: &Registered,
    event: &Event,
) -> Outcome {
    let mut order: Vec<(Guid, u16)> = sublayers.to_vec();
    order.sort_by_key(|&(_, weight)| std::cmp::Reverse(weight));
    let mut so_far = Outcome { action: "permit", soft: true, filter: 0, reason: "" };
    for (key, _) in order {
        let mut here: Vec<&(u64, Filter)> = filters
            .iter()
            .filter(|(_, filter)| filter.sublayer == key && filter.layer == event.layer)
            .filter(|(_, filter)| !filter.flags.contains(FilterFlags::DISABLED))
            .collect();
        here.sort_by_key(|(id, filter)| (std::cmp::Reverse(filter.effective_weight()), *id));
        for (id, filter) in here {
            if passed_over(filter, registered) {
                continue;
            }
            match matches(filter, event) {
                (Truth::Fails, _) => continue,
                (Truth::Unknown, Some(Unknown::Late)) => {
                    if so_far.soft {
                        return Outcome { action: "late", soft: false, filter: *id, reason: "" };
                    }
                    break;
                }
                (Truth::Unknown, _) => {
                    if so_far.soft {
                        so_far = Outcome { action: "block", soft: false, filter: *id, reason: "unreadable" };
                    }
                    break;
                }
                (Truth::Holds, _) => {}
            }
            if answer(&mut so_far, *id, filter, registered) {
                break;
            }
        }
    }
    so_far
}

fn passed_over(filter: &Filter, registered: &Registered) -> bool {
    match &filter.action {
        Action::Continue => true,
        Action::Callout { callout, kind: CalloutKind::Inspection } => !registered.contains_key(callout),
        _ => false,
    }
}

/// Takes a matching filter's answer; whether the sublayer ends with it.
fn answer(so_far: &mut Outcome, id: u64, filter: &Filter, registered: &Registered) -> bool {
    let clears = filter.flags.contains(FilterFlags::CLEAR_ACTION_RIGHT);
    let new = |action, soft, reason| Outcome { action, soft, filter: id, reason };
    let written = match &filter.action {
        Action::Permit => new("permit", !clears, ""),
        Action::Block => new("block", false, ""),
        Action::Continue => return false,
        Action::Callout { callout, kind } => match registered.get(callout) {
            None if filter.flags.contains(FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED) => {
                new("permit", true, "callout-unregistered")
            }
            None => new("block", false, "callout-unregistered"),
            Some(_) if *kind == CalloutKind::Inspection => return false,
            Some(said) => match said.action {
                CalloutAction::Continue => return false,
                CalloutAction::Permit => new("permit", !said.clear_action_right, ""),
                CalloutAction::Block if !so_far.soft && so_far.action == "permit" => {
                    *so_far = new("block", false, "veto");
                    return true;
                }
                CalloutAction::Block => new("block", !said.clear_action_right, ""),
            },
        },
    };
    if so_far.soft {
        *so_far = written;
    }
    true
}

/// Fields are AND-ed, the conditions on one field OR-ed. An unknown field makes the filter's answer unknown when nothing
/// else refutes it; late counts before unreadable.
fn matches(filter: &Filter, event: &Event) -> (Truth, Option<Unknown>) {
    let mut fields: BTreeMap<_, Vec<&FilterCondition>> = BTreeMap::new();
    for condition in &filter.conditions {
        fields.entry(condition.field).or_default().push(condition);
    }
    let mut kinds = vec![];
    for (field, conditions) in fields {
        let truths: Vec<Truth> = conditions.iter().map(|condition| holds(condition, event)).collect();
        if truths.contains(&Truth::Holds) {
            continue;
        }
        if truths.contains(&Truth::Unknown) {
            kinds.push(unknown(event.layer, field).expect("only fields that can be unknown are"));
            continue;
        }
        return (Truth::Fails, None);
    }
    if kinds.contains(&Unknown::Late) {
        (Truth::Unknown, Some(Unknown::Late))
    } else if kinds.contains(&Unknown::Unreadable) {
        (Truth::Unknown, Some(Unknown::Unreadable))
    } else {
        (Truth::Holds, None)
    }
}

/// Whether a condition holds for certain, for tests that count what they met.
#[allow(dead_code)]
pub fn condition_holds(condition: &FilterCondition, event: &Event) -> bool {
    holds(condition, event) == Truth::Holds
}

fn holds(condition: &FilterCondition, event: &Event) -> Truth {
    let truth = |holds| if holds { Truth::Holds } else { Truth::Fails };
    let negative = matches!(condition.match_type, MatchType::NotEqual | MatchType::NotPrefix);
    match event.values.get(&condition.field) {
        None | Some(EventValue::Known(Value::Empty)) => truth(condition.value == Value::Empty && !negative),
        // no value at all would do: then it does not matter that it is unknown
        Some(EventValue::Unknown) if !could_hold(condition) => Truth::Fails,
        Some(EventValue::Unknown) => Truth::Unknown,
        Some(EventValue::Known(_)) if condition.value == Value::Empty => truth(negative),
        Some(EventValue::Known(value)) => {
            let positive = compare(condition, value, &event.groups);
            truth(positive != negative)
        }
    }
}

/// Whether some value would meet the condition; tries the ends of what the condition names, and their neighbours.
fn could_hold(condition: &FilterCondition) -> bool {
    let negative = matches!(condition.match_type, MatchType::NotEqual | MatchType::NotPrefix);
    if condition.value == Value::Empty {
        return true;
    }
    // (NOT_PREFIX of the root is never met, which the engine does not know: then an unknown path blocks, where it need not)
    if matches!(condition.value, Value::UnicodeString(_)) && condition.field.is_extension() {
        return true;
    }
    let users = [0, 1000, 1001, 65534, 4242].map(Value::User);
    let applications = ["/elsewhere", "/usr/bin/curl", "/usr/bin/CURL", "/usr/bin/dig", "/bin/sh"];
    let mut values: Vec<Value> = match &condition.value {
        Value::User(_) | Value::Group(_) | Value::SecurityDescriptor(_) => users.to_vec(),
        // a part of a path
        Value::UnicodeString(end) if condition.field == FieldId::ALE_APP_ID => {
            let some = [applications[0].to_owned(), format!("/elsewhere{end}")];
            some.map(Value::Application).to_vec()
        }
        Value::Application(_) => applications.map(|path| Value::Application(path.into())).to_vec(),
        Value::ByteBlob(bytes) => vec![Value::ByteBlob(bytes.clone()), Value::ByteBlob(vec![0xee])],
        _ => vec![],
    };
    if let Some((low, high)) = extent(&condition.value) {
        let width = match &condition.value {
            Value::ByteArray16(_) | Value::V6AddrMask { .. } => u128::MAX,
            Value::Uint64(_) | Value::ByteArray6(_) => u64::MAX as u128,
            Value::Range(low, _) if matches!(**low, Value::ByteArray16(_)) => u128::MAX,
            Value::Range(low, _) if matches!(**low, Value::Uint64(_)) => u64::MAX as u128,
            _ => u32::MAX as u128,
        };
        let ends = [Some(0), low.checked_sub(1), Some(low), Some(high), high.checked_add(1), Some(width)];
        let numbers = ends.into_iter().flatten().filter(|n| *n <= width);
        values.extend(numbers.map(|number| Value::ByteArray16(number.to_be_bytes())));
    }
    let groups: [&[u32]; 4] = [&[], &[27], &[100], &[27, 100]];
    values.iter().any(|value| groups.iter().any(|gids| compare(condition, value, gids) != negative))
}

/// Whether the condition holds, leaving out a "not".
fn compare(condition: &FilterCondition, value: &Value, gids: &[u32]) -> bool {
    if let Value::User(uid) = value {
        return is_user(&condition.value, *uid, gids);
    }
    if let (Value::SecurityDescriptor(_), Value::Sid(_)) = (&condition.value, value) {
        return false;
    }
    match condition.match_type {
        MatchType::Prefix | MatchType::NotPrefix if condition.field == FieldId::LINUX_CGROUP => {
            let (Value::UnicodeString(group), Value::UnicodeString(path)) = (&condition.value, value) else {
                return false;
            };
            // component by component
            path_components(path).starts_with(&path_components(group))
        }
        MatchType::EqualCaseInsensitive => match (&condition.value, value) {
            (Value::UnicodeString(a) | Value::Application(a), Value::UnicodeString(b) | Value::Application(b)) => {
                a.to_lowercase() == b.to_lowercase()
            }
            _ => false,
        },
        MatchType::Prefix | MatchType::NotPrefix if number(value).is_none() => match (&condition.value, value) {
            (Value::UnicodeString(a) | Value::Application(a), Value::UnicodeString(b) | Value::Application(b)) => {
                b.ends_with(a.as_str())
            }
            (Value::ByteBlob(a), Value::ByteBlob(b)) => b.ends_with(a),
            _ => false,
        },
        _ => match number(value) {
            Some(number) => compare_number(condition, number),
            None => condition.value == *value,
        },
    }
}

fn path_components(path: &str) -> Vec<&str> {
    path.split('/').filter(|name| !name.is_empty()).collect()
}

fn compare_number(condition: &FilterCondition, value: u128) -> bool {
    let Some((low, high)) = extent(&condition.value) else { return false };
    match condition.match_type {
        MatchType::Greater => value > high,
        MatchType::GreaterOrEqual => value >= low,
        MatchType::Less => value < low,
        MatchType::LessOrEqual => value <= high,
        MatchType::FlagsAllSet => value & low == low,
        MatchType::FlagsAnySet => value & low != 0,
        MatchType::FlagsNoneSet => value & low == 0,
        _ => low <= value && value <= high,
    }
}

fn number(value: &Value) -> Option<u128> {
    match value {
        Value::Uint8(n) => Some(*n as u128),
        Value::Uint16(n) => Some(*n as u128),
        Value::Uint32(n) => Some(*n as u128),
        Value::Uint64(n) => Some(*n as u128),
        Value::ByteArray16(bytes) => Some(u128::from_be_bytes(*bytes)),
        Value::ByteArray6([a, b, c, d, e, f]) => Some(u64::from_be_bytes([0, 0, *a, *b, *c, *d, *e, *f]) as u128),
        _ => None,
    }
}

fn extent(value: &Value) -> Option<(u128, u128)> {
    match value {
        Value::V4AddrMask { addr, prefix } => {
            let size = 1u64 << (32 - prefix);
            let first = *addr as u64 / size * size;
            Some((first as u128, (first + size - 1) as u128))
        }
        Value::V6AddrMask { addr, prefix: 0 } => Some((0, *addr | u128::MAX)),
        Value::V6AddrMask { addr, prefix } => {
            let size = 1u128 << (128 - prefix);
            let first = addr / size * size;
            Some((first, first + (size - 1)))
        }
        Value::Range(low, high) => Some((number(low)?, number(high)?)),
        other => number(other).map(|n| (n, n)),
    }
}

fn is_user(condition: &Value, uid: u32, gids: &[u32]) -> bool {
    match condition {
        Value::User(other) => *other == uid,
        Value::Group(gid) => gids.contains(gid),
        Value::SecurityDescriptor(descriptor) => descriptor
            .match_entries()
            .filter(|entry| entry.grants_match)
            .find(|entry| match &entry.subject {
                Subject::Everyone => true,
                Subject::Uid(other) => *other == uid,
                Subject::Gid(gid) => gids.contains(gid),
                Subject::Unmappable(_) => false,
            })
            .is_some_and(|entry| entry.kind == AceKind::Allow),
        _ => false,
    }
}

/// The sublayers that a test has: the built-in ones and its own, in the order in which they were added.
pub fn sublayers(own: &[Sublayer]) -> Vec<(Guid, u16)> {
    let builtin = openwfp_model::builtin::sublayers().iter().map(|sublayer| (sublayer.key, sublayer.weight));
    builtin.chain(own.iter().map(|sublayer| (sublayer.key, sublayer.weight))).collect()
}
