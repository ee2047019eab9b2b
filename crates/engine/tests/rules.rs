//! What random policies seldom hold: very wide and very many filters, unused rights, errors of refused calls.

use openwfp_engine::{Action, CompiledPolicy, Event, EventValue, compile_objects};
use openwfp_model::{
    Action as FilterAction, Errno, FieldId, Filter, FilterCondition, LayerId, MatchType, SecurityDescriptor, Value,
    Weight,
};

const V4: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const V6: LayerId = LayerId::ALE_AUTH_CONNECT_V6;

/// The filters have ids from 1.
fn compiled(filters: Vec<Filter>) -> CompiledPolicy {
    compile_objects(1, &[], (1..).zip(filters).collect(), &[]).unwrap()
}

#[test]
fn a_filter_of_more_addresses_than_a_run_of_cells_can_hold() {
    // four tests each: they share no word with their neighbours
    let address = |n: u128| Value::ByteArray16((n << 96 | n << 64 | n << 32 | n).to_be_bytes());
    let conditions = (1..=1000).map(|n| FilterCondition::equal(FieldId::IP_REMOTE_ADDRESS, address(2 * n)));
    let filter = Filter::builder("many", V6).conditions(conditions).action(FilterAction::Block).build().unwrap();
    let policy = compiled(vec![filter]);
    for n in 1..=2001 {
        let event = Event::new(V6).with(FieldId::IP_REMOTE_ADDRESS, address(n));
        let expected = if n % 2 == 0 { Action::Block } else { Action::Permit };
        assert_eq!(policy.classify(&event).action, expected, "{n}");
    }
}

#[test]
fn where_very_many_filters_test_a_late_value_it_still_moves_the_decision() {
    let filter = |port: u16| {
        Filter::builder(format!("from {port}"), V4)
            .when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(port))
            .action(FilterAction::Block)
            .build()
            .unwrap()
    };
    for count in [1, 64, 65, 200] {
        let policy = compiled((1..=count).map(filter).collect());
        let mut event = Event::new(V4);
        assert_eq!(policy.classify(&event).action, Action::Permit, "{count} filters, an empty value");
        event.values.insert(FieldId::IP_LOCAL_PORT, EventValue::Unknown);
        assert_eq!(policy.classify(&event).action, Action::Late, "{count} filters");
        let known = Event::new(V4).with(FieldId::IP_LOCAL_PORT, Value::Uint16(count));
        assert_eq!(policy.classify(&known).filter, u64::from(count));
    }
}

#[test]
fn a_descriptor_s_entries_for_other_rights_do_not_count() {
    // 1000 is denied the right to write alone, 1001 the right to match (CC)
    let descriptor: SecurityDescriptor =
        "D:(D;;GW;;;S-1-22-1-1000)(D;;CC;;;S-1-22-1-1001)(A;;CC;;;WD)".parse().unwrap();
    let filter = Filter::builder("users", V4)
        .when(FieldId::ALE_USER_ID, MatchType::Equal, Value::SecurityDescriptor(descriptor))
        .action(FilterAction::Block)
        .build()
        .unwrap();
    let policy = compiled(vec![filter]);
    for (uid, expected) in [(1000, Action::Block), (1001, Action::Permit), (1002, Action::Block)] {
        let event = Event::new(V4).with(FieldId::ALE_USER_ID, Value::User(uid));
        assert_eq!(policy.classify(&event).action, expected, "{uid}");
    }
}

#[test]
fn the_errno_is_that_of_the_filter_that_decided() {
    let filter = |name: &str, weight: u64, port: u16, errno: Option<&str>| {
        let builder = Filter::builder(name, V4).weight(Weight::Exact(weight)).action(FilterAction::Block);
        let builder = builder.when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(port));
        let errno = errno.and_then(Errno::find);
        errno.into_iter().fold(builder, |builder, errno| builder.errno(errno)).build().unwrap()
    };
    let policy = compiled(vec![
        filter("first", 9, 80, Some("EHWPOISON")),
        filter("second", 8, 80, Some("EACCES")),
        filter("without", 8, 81, None),
    ]);
    for (port, expected) in [(80, 133), (81, 0), (82, 0)] {
        let event = Event::new(V4).with(FieldId::IP_REMOTE_PORT, Value::Uint16(port));
        assert_eq!(policy.classify(&event).errno, expected, "{port}");
    }
}
