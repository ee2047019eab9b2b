//! The tables of "Filter Arbitration" (MS docs), row by row, and the rules that decide where the text is silent.

use openwfp_engine::{
    Action, Arbitration, CalloutAction, CalloutAnswer, Callouts, Cell, CompiledPolicy, Event, MAX_STEPS, Reason,
    Silent, Verdict, classify_with, compile_objects,
};
use openwfp_model::{
    Action as FilterAction, CalloutKind, FieldId, Filter, FilterFlags, Guid, LayerId, Sublayer, Value, Weight,
};

const LAYER: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

/// What stands in one sublayer.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// A filter that permits.
    Permit,
    /// A filter that permits and clears the action right.
    HardPermit,
    /// A filter that blocks.
    Block,
    /// A filter that continues.
    Continue,
    /// A registered terminating callout.
    Callout(CalloutAction, bool),
    /// A registered inspection callout, whatever it says.
    Inspection(CalloutAction),
    /// A callout that nobody has registered.
    Unregistered(CalloutKind),
    /// The same, with PERMIT_IF_CALLOUT_UNREGISTERED.
    UnregisteredPermit(CalloutKind),
}

use CalloutAction as Said;
use Says::{Block, Callout, Continue, HardPermit, Inspection, Permit, Unregistered, UnregisteredPermit};

struct Answers(Vec<CalloutAnswer>);

impl Callouts for Answers {
    fn classify(&mut self, filter: &Cell, _: &Arbitration) -> CalloutAnswer {
        self.0[filter.callout() as usize]
    }
}

/// One sublayer for each list, from the highest weight to the lowest; in each, filters from the highest weight to the
/// lowest. Filter ids count from 1 in this order.
fn decide(sublayers: &[&[Says]]) -> Verdict {
    let (mut objects, mut filters, mut keys, mut answers) = (vec![], vec![], vec![], vec![]);
    for (number, says) in sublayers.iter().enumerate() {
        let weight = 0xf000 - number as u16;
        let sublayer = Sublayer::builder(format!("sublayer {number}")).weight(weight).build().unwrap();
        for (place, says) in says.iter().enumerate() {
            let id = filters.len() as u64 + 1;
            let key = Guid::from_u128(id as u128);
            let mut callout = |action, clear_action_right, kind| {
                keys.push(key);
                answers.push(CalloutAnswer { action, clear_action_right });
                FilterAction::Callout { callout: key, kind }
            };
            let action = match *says {
                Permit | HardPermit => FilterAction::Permit,
                Block => FilterAction::Block,
                Continue => FilterAction::Continue,
                Callout(action, clears) => callout(action, clears, CalloutKind::Terminating),
                Inspection(action) => callout(action, true, CalloutKind::Inspection),
                Unregistered(kind) | UnregisteredPermit(kind) => FilterAction::Callout { callout: key, kind },
            };
            let flags = match says {
                HardPermit => FilterFlags::CLEAR_ACTION_RIGHT,
                UnregisteredPermit(_) => FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED,
                _ => FilterFlags::empty(),
            };
            let filter = Filter::builder(format!("filter {id}"), LAYER)
                .sublayer(sublayer.key)
                .weight(Weight::Exact(1000 - place as u64))
                .flags(flags)
                .action(action)
                .build()
                .unwrap();
            filters.push((id, filter));
        }
        objects.push(sublayer);
    }
    let compiled = compile_objects(1, &objects, filters, &keys).unwrap();
    let values = compiled.values(&Event::new(LAYER));
    classify_with(compiled.image(), LAYER.get(), &values, MAX_STEPS, &mut Answers(answers), &mut Silent)
}

/// (the sublayers, action, soft, deciding filter, reason)
type Row<'a> = (&'a [&'a [Says]], Action, bool, u64, Reason);

#[track_caller]
fn check(rows: &[Row<'_>]) {
    for (sublayers, action, soft, filter, reason) in rows {
        let verdict = decide(sublayers);
        let found = (verdict.action, verdict.soft, verdict.filter, verdict.reason);
        assert_eq!(found, (*action, *soft, *filter, *reason), "{sublayers:?}");
    }
}

#[test]
fn the_default_behaviour_of_actions() {
    check(&[
        // "Filter permit: soft permit. Callout permit: soft permit. Filter block: hard block. Callout block: soft block."
        (&[&[Permit]], Action::Permit, true, 1, Reason::None),
        (&[&[Callout(Said::Permit, false)]], Action::Permit, true, 1, Reason::None),
        (&[&[Block]], Action::Block, false, 1, Reason::None),
        (&[&[Callout(Said::Block, false)]], Action::Block, true, 1, Reason::None),
        // with the right cleared
        (&[&[HardPermit]], Action::Permit, false, 1, Reason::None),
        (&[&[Callout(Said::Permit, true)]], Action::Permit, false, 1, Reason::None),
        (&[&[Callout(Said::Block, true)]], Action::Block, false, 1, Reason::None),
    ]);
}

#[test]
fn which_actions_override_which() {
    check(&[
        // soft permit: "the traffic can be blocked at another sublayer"
        (&[&[Permit], &[Block]], Action::Block, false, 2, Reason::None),
        (&[&[Permit], &[Callout(Said::Block, false)]], Action::Block, true, 2, Reason::None),
        (&[&[Permit], &[Permit]], Action::Permit, true, 2, Reason::None),
        (&[&[Permit], &[HardPermit], &[Block]], Action::Permit, false, 2, Reason::None),
        // hard permit: "the traffic can be blocked at another sublayer only by a callout veto"
        (&[&[HardPermit], &[Block]], Action::Permit, false, 1, Reason::None),
        (&[&[HardPermit], &[Callout(Said::Block, false)]], Action::Block, false, 2, Reason::Veto),
        (&[&[Callout(Said::Permit, true)], &[Block]], Action::Permit, false, 1, Reason::None),
        // soft block: "the traffic can be permitted at another sublayer"
        (&[&[Callout(Said::Block, false)], &[Permit]], Action::Permit, true, 2, Reason::None),
        (&[&[Callout(Said::Block, false)], &[Block]], Action::Block, false, 2, Reason::None),
        // hard block: "the traffic cannot be permitted at another sublayer"
        (&[&[Block], &[Permit]], Action::Block, false, 1, Reason::None),
        (&[&[Block], &[HardPermit]], Action::Block, false, 1, Reason::None),
        (&[&[Block], &[Callout(Said::Permit, true)]], Action::Block, false, 1, Reason::None),
        (&[&[Block], &[Callout(Said::Block, true)]], Action::Block, false, 1, Reason::None),
        (&[&[Callout(Said::Block, true)], &[Permit]], Action::Block, false, 1, Reason::None),
    ]);
}

#[test]
fn within_a_sublayer_the_first_permit_or_block_ends_it() {
    check(&[
        (&[&[Permit, Block]], Action::Permit, true, 1, Reason::None),
        (&[&[Block, Permit]], Action::Block, false, 1, Reason::None),
        (&[&[Continue, Block]], Action::Block, false, 2, Reason::None),
        (&[&[Continue, Continue, Permit, Block]], Action::Permit, true, 3, Reason::None),
        (
            &[&[Callout(Said::Continue, true), Callout(Said::Continue, false), Block]],
            Action::Block,
            false,
            3,
            Reason::None,
        ),
        (&[&[Inspection(Said::Block), Permit]], Action::Permit, true, 2, Reason::None),
        (&[&[Continue], &[Continue]], Action::Permit, true, 0, Reason::None),
        (&[], Action::Permit, true, 0, Reason::None),
    ]);
}

#[test]
fn every_sublayer_is_asked_even_after_a_hard_block() {
    // the callout of the lowest sublayer still sees the traffic
    struct Counts(usize);
    impl Callouts for Counts {
        fn classify(&mut self, _: &Cell, so_far: &Arbitration) -> CalloutAnswer {
            assert!(so_far.is_hard(), "it is told that the right is gone");
            self.0 += 1;
            CalloutAnswer { action: Said::Permit, clear_action_right: true }
        }
    }
    let top = Sublayer::builder("top").weight(2).build().unwrap();
    let low = Sublayer::builder("low").weight(1).build().unwrap();
    let callout = Guid::from_u128(7);
    let block = Filter::builder("block", LAYER).sublayer(top.key).action(FilterAction::Block).build().unwrap();
    let look = FilterAction::Callout { callout, kind: CalloutKind::Unknown };
    let look = Filter::builder("look", LAYER).sublayer(low.key).action(look).build().unwrap();
    let compiled = compile_objects(1, &[top, low], vec![(1, block), (2, look)], &[callout]).unwrap();
    let mut counts = Counts(0);
    let values = compiled.values(&Event::new(LAYER));
    let verdict = classify_with(compiled.image(), LAYER.get(), &values, MAX_STEPS, &mut counts, &mut Silent);
    assert_eq!((counts.0, verdict.action, verdict.filter), (1, Action::Block, 1));
}

#[test]
fn callouts_that_nobody_has_registered() {
    use CalloutKind::{Inspection, Terminating, Unknown};
    check(&[
        (&[&[Unregistered(Terminating), Permit]], Action::Block, false, 1, Reason::CalloutUnregistered),
        (&[&[Unregistered(Unknown), Permit]], Action::Block, false, 1, Reason::CalloutUnregistered),
        (&[&[Unregistered(Inspection), Permit]], Action::Permit, true, 2, Reason::None),
        (&[&[UnregisteredPermit(Terminating), Block]], Action::Permit, true, 1, Reason::CalloutUnregistered),
        (&[&[UnregisteredPermit(Unknown), Block]], Action::Permit, true, 1, Reason::CalloutUnregistered),
        // the block is that of a filter: it does not veto
        (&[&[HardPermit], &[Unregistered(Terminating)]], Action::Permit, false, 1, Reason::None),
    ]);
}

fn compiled(sublayers: &[Sublayer], filters: Vec<Filter>) -> CompiledPolicy {
    compile_objects(1, sublayers, (1..).zip(filters).collect(), &[]).unwrap()
}

#[test]
fn sublayers_of_equal_weight_go_in_the_order_in_which_they_were_added() {
    let first = Sublayer::builder("first").weight(100).build().unwrap();
    let second = Sublayer::builder("second").weight(100).build().unwrap();
    let filter = |sublayer: &Sublayer, action| {
        let name = format!("in {}", sublayer.name);
        Filter::builder(name, LAYER).sublayer(sublayer.key).action(action).build().unwrap()
    };
    let hard = Filter::builder("hard", LAYER)
        .sublayer(first.key)
        .action(FilterAction::Permit)
        .flags(FilterFlags::CLEAR_ACTION_RIGHT)
        .build()
        .unwrap();
    let policy = compiled(&[first.clone(), second.clone()], vec![filter(&second, FilterAction::Block), hard.clone()]);
    assert_eq!(policy.classify(&Event::new(LAYER)).filter, 2, "the first sublayer's hard permit stands");
    let policy = compiled(&[second.clone(), first], vec![filter(&second, FilterAction::Block), hard]);
    assert_eq!(policy.classify(&Event::new(LAYER)).filter, 1, "now the other sublayer comes first");
}

#[test]
fn filters_of_equal_weight_go_by_their_id() {
    let filter =
        |name: &str, action| Filter::builder(name, LAYER).weight(Weight::Exact(5)).action(action).build().unwrap();
    let filters = vec![filter("a", FilterAction::Permit), filter("b", FilterAction::Block)];
    assert_eq!(compiled(&[], filters).classify(&Event::new(LAYER)).filter, 1);
}

#[test]
fn of_automatic_weights_the_more_specific_filter_goes_first() {
    let everything = Filter::builder("everything", LAYER).action(FilterAction::Block).build().unwrap();
    let port = Filter::builder("port 80", LAYER)
        .when(FieldId::IP_REMOTE_PORT, openwfp_model::MatchType::Equal, Value::Uint16(80))
        .action(FilterAction::Permit)
        .build()
        .unwrap();
    let policy = compiled(&[], vec![everything, port]);
    let event = Event::new(LAYER).with(FieldId::IP_REMOTE_PORT, Value::Uint16(80));
    assert_eq!(policy.classify(&event).filter, 2);
    assert_eq!(policy.classify(&Event::new(LAYER)).filter, 1);
}
