//! The smallest change that turns an answer, against a search of every value.

#[path = "common/random.rs"]
#[allow(dead_code)]
mod random;
// what random policies say of registered callouts is not needed
#[path = "common/oracle.rs"]
#[allow(dead_code)]
mod oracle;

use openwfp_engine::{Action, Change, CompiledPolicy, Event, EventValue, Verdict, compile_objects};
use openwfp_model::{
    Action as Does, FieldId, Filter, FilterCondition, FilterFlags, Guid, LayerId, MatchType, Value, Weight,
};

const LAYER: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const PORT: FieldId = FieldId::IP_REMOTE_PORT;

/// Compiles filters given by name, weight, action and ports; each pair of ports is a range.
/// Name, weight, action, and ranges of ports.
type Row<'a> = (&'a str, u64, Does, &'a [(u16, u16)]);

fn policy(filters: &[Row<'_>]) -> CompiledPolicy {
    let filters = (1..).zip(filters).map(|(id, (name, weight, action, ports))| {
        let range = |&(low, high): &(u16, u16)| {
            let range = Value::range(Value::Uint16(low), Value::Uint16(high));
            FilterCondition::new(PORT, MatchType::Range, range)
        };
        let builder = Filter::builder(*name, LAYER).key(Guid::from_u128(id as u128)).action(*action);
        (id, builder.weight(Weight::Exact(*weight)).conditions(ports.iter().map(range)).build().unwrap())
    });
    compile_objects(1, &[], filters.collect(), &[]).unwrap()
}

fn change(policy: &CompiledPolicy, port: u16) -> Option<Change> {
    policy.explain(&Event::new(LAYER).with(PORT, Value::Uint16(port))).change
}

fn port(change: &Option<Change>) -> (u16, bool) {
    match change.as_ref().map(|change| (&change.fields[..], change.any_other)) {
        Some(([(PORT, Some(Value::Uint16(port)))], any_other)) => (*port, any_other),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_alternative_of_a_filter_is_tried() {
    let filters: [Row<'_>; 3] = [
        ("no http", 10, Does::Block, &[(80, 80)]),
        ("web", 5, Does::Permit, &[(80, 80), (443, 443)]),
        ("nothing else", 1, Does::Block, &[]),
    ];
    let found = change(&policy(&filters), 22);
    assert_eq!(port(&found), (443, false));
    assert_eq!(found.unwrap().verdict.filter, 2);
}

#[test]
fn a_value_beyond_all_edges_is_tried() {
    let filters: [Row<'_>; 2] = [("low", 10, Does::Block, &[(1, 1024)]), ("lower", 5, Does::Block, &[(0, 1025)])];
    // port 1025 leaves the filter that decides, and is blocked by the other
    assert_eq!(port(&change(&policy(&filters), 80)), (1026, false));
    assert_eq!(port(&change(&policy(&filters[..1]), 80)), (0, true));
    assert_eq!(port(&change(&policy(&filters[1..]), 80)), (1026, true));
}

#[test]
fn filters_that_block_each_for_its_own_reason_are_left_one_after_the_other() {
    let equal = |field, value| FilterCondition::new(field, MatchType::Equal, value);
    let block = |id: u64, conditions: Vec<FilterCondition>| {
        let builder = Filter::builder(format!("filter {id}"), LAYER).key(Guid::from_u128(id.into()));
        (id, builder.action(Does::Block).conditions(conditions).build().unwrap())
    };
    let filters = vec![
        block(1, vec![equal(PORT, Value::Uint16(80))]),
        block(2, vec![equal(FieldId::IP_PROTOCOL, Value::Uint8(6))]),
        block(3, vec![FilterCondition::new(FieldId::FLAGS, MatchType::FlagsAllSet, Value::Uint32(1))]),
    ];
    let policy = compile_objects(1, &[], filters, &[]).unwrap();
    let event = Event::new(LAYER)
        .with(PORT, Value::Uint16(80))
        .with(FieldId::IP_PROTOCOL, Value::Uint8(6))
        .with(FieldId::FLAGS, Value::Uint32(1));
    let mut change = policy.explain(&event).change.unwrap();
    change.fields.sort_by_key(|(field, _)| *field != PORT);
    let fields: Vec<FieldId> = change.fields.iter().map(|(field, _)| *field).collect();
    assert_eq!((fields.len(), fields[0], change.verdict.action), (3, PORT, Action::Permit), "{change:?}");
}

#[test]
fn what_nothing_turns_has_no_change() {
    assert_eq!(change(&policy(&[("all", 1, Does::Block, &[])]), 80), None);
    assert_eq!(change(&policy(&[("all", 1, Does::Permit, &[(0, 65535)])]), 80), None);
}

/// Small spaces: what conditions name lies well within what is searched.
fn space(field: FieldId) -> Vec<Value> {
    match field {
        FieldId::IP_PROTOCOL => (0..=13).chain([255]).map(Value::Uint8).collect(),
        FieldId::FLAGS => (0..16).chain([u32::MAX]).map(Value::Uint32).collect(),
        _ => (0..=13).chain([65535]).map(Value::Uint16).collect(),
    }
}

const FIELDS: [FieldId; 3] = [FieldId::IP_PROTOCOL, PORT, FieldId::FLAGS];

fn condition(random: &mut random::Random) -> FilterCondition {
    let field = random.pick(&FIELDS);
    let number = |number: usize| match field {
        FieldId::IP_PROTOCOL => Value::Uint8(number as u8),
        FieldId::FLAGS => Value::Uint32(number as u32),
        _ => Value::Uint16(number as u16),
    };
    if field == FieldId::FLAGS {
        let flags = [MatchType::FlagsAllSet, MatchType::FlagsAnySet, MatchType::FlagsNoneSet];
        return FilterCondition::new(field, random.pick(&flags), number(1 + random.below(7)));
    }
    let (low, wide) = (random.below(10), random.below(4));
    match random.pick(&[MatchType::Equal, MatchType::NotEqual, MatchType::Range, MatchType::Less, MatchType::Greater]) {
        MatchType::Range => {
            FilterCondition::new(field, MatchType::Range, Value::range(number(low), number((low + wide).min(11))))
        }
        other => FilterCondition::new(field, other, number(low)),
    }
}

fn permits(verdict: &Verdict) -> bool {
    verdict.action == Action::Permit
}

#[test]
fn a_change_is_told_where_one_field_can_turn_the_answer_and_what_is_told_turns_it() {
    let mut random = random::Random::new(21);
    let (mut one, mut more, mut none, mut any_other) = (0, 0, 0, 0);
    for _ in 0..1500 {
        let count = 1 + random.below(6) as u64;
        let filters: Vec<(u64, Filter)> = (1..=count)
            .filter_map(|id| {
                let conditions: Vec<FilterCondition> = (0..random.below(4)).map(|_| condition(&mut random)).collect();
                let builder = Filter::builder(format!("filter {id}"), LAYER).key(Guid::from_u128(id as u128));
                let builder = builder.weight(Weight::Exact(random.next())).conditions(conditions);
                let flags = random.pick(&[FilterFlags::empty(), FilterFlags::CLEAR_ACTION_RIGHT]);
                let action = random.pick(&[Does::Permit, Does::Block, Does::Continue]);
                Some((id, builder.action(action).flags(flags).build().ok()?))
            })
            .collect();
        let policy = compile_objects(1, &[], filters, &[]).unwrap();
        let mut explainer = policy.explainer();
        for _ in 0..10 {
            let mut event = Event::new(LAYER);
            for field in FIELDS {
                if random.chance(90) {
                    event = event.with(field, random.pick(&space(field)));
                }
            }
            let explanation = explainer.explain(&event);
            let now = permits(&explanation.verdict);
            let turns =
                |field, value: &Value| permits(&policy.classify(&event.clone().with(field, value.clone()))) != now;
            let can = FIELDS.iter().any(|&field| space(field).iter().any(|value| turns(field, value)));
            let Some(change) = explanation.change else {
                assert!(!can, "one field can turn it, and none is told: {event:?}");
                none += 1;
                continue;
            };
            assert_eq!(change.fields.len() == 1, can, "{event:?}: {change:?}");
            let mut changed = event.clone();
            for (field, value) in &change.fields {
                let value = EventValue::Known(value.clone().expect("no condition asks for no value"));
                assert_ne!(changed.values.insert(*field, value.clone()), Some(value), "{change:?}");
            }
            let then = policy.classify(&changed);
            assert!(permits(&then) != now && then == change.verdict, "{event:?}: {change:?}");
            if let [(FieldId::FLAGS, Some(Value::Uint32(flags)))] = change.fields[..]
                && let Some(EventValue::Known(Value::Uint32(here))) = event.values.get(&FieldId::FLAGS)
            {
                let changed = (flags ^ here).count_ones();
                let fewer =
                    |value: &Value| matches!(value, Value::Uint32(flags) if (flags ^ here).count_ones() < changed);
                let turned = space(FieldId::FLAGS).iter().any(|value| fewer(value) && turns(FieldId::FLAGS, value));
                assert!(!turned, "fewer flags turn it: {event:?}: {change:?}");
            }
            (one, more) = (one + usize::from(can), more + usize::from(!can));
            if change.any_other {
                any_other += 1;
                let field = change.fields[0].0;
                let decider = explanation.verdict.filter;
                for value in space(field) {
                    let then = explainer.explain(&event.clone().with(field, value.clone()));
                    let mut filters = then.sublayers.iter().flat_map(|sublayer| &sublayer.filters);
                    let stays = filters.any(|filter| filter.id == decider && filter.matched);
                    assert!(stays || permits(&then.verdict) != now, "{event:?}: {change:?}, {value:?}");
                }
            }
        }
    }
    assert!(one > 1000 && more > 100 && none > 1000 && any_other > 300, "{one} {more} {none} {any_other}");
}
