//! The kernel decides as the naive matcher does: random policies at every layer, and values in every state, classified by
//! the loaded program. Needs root and BPF.

#[path = "../../engine/tests/common/oracle.rs"]
mod oracle;
// the part that picks a layer is not needed: every one has its turn
#[path = "../../engine/tests/common/random.rs"]
#[allow(dead_code)]
mod random;
#[path = "support/skips.rs"]
mod skips;

use openwfp_engine::{Action, CompileError, CompiledPolicy, Event, EventValue, Reason, Values, compile_objects};
use openwfp_kernel::{
    features,
    measure::{Classified, KernelClassifier},
};
use openwfp_model::{Errno, FieldId, Filter, Layer, LayerId, MatchType, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Room for the images of all policies here.
const CELLS: usize = 1 << 18;

fn classifier() -> Option<KernelClassifier> {
    if let Some(reason) = features::missing().first() {
        skips::skipped(reason);
        return None;
    }
    Some(KernelClassifier::load(CELLS).unwrap_or_else(|error| panic!("{error}")))
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Permit => "permit",
        Action::Block => "block",
        Action::Late => "late",
    }
}

/// What the events met, so that a test that passes for want of cases shows.
#[derive(Default, Debug)]
struct Met {
    events: usize,
    policies: usize,
    by_filter: usize,
    layers: BTreeSet<&'static str>,
    actions: BTreeMap<&'static str, usize>,
    reasons: BTreeMap<&'static str, usize>,
    match_types: BTreeSet<MatchType>,
    /// Fields that some filter of the policy tests, by the state of the event's value.
    states: BTreeMap<(FieldId, &'static str), usize>,
    /// Events of users in groups that some filter names.
    in_groups: usize,
}

impl Met {
    fn add(&mut self, filters: &[(u64, Filter)], event: &Event, got: &Classified) {
        self.events += 1;
        self.by_filter += usize::from(got.filter != 0);
        *self.actions.entry(word(got.action)).or_default() += 1;
        *self.reasons.entry(got.reason.name()).or_default() += 1;
        for condition in filters.iter().flat_map(|(_, filter)| &filter.conditions) {
            let state = match event.values.get(&condition.field) {
                None => "empty",
                Some(EventValue::Unknown) => "unknown",
                Some(EventValue::Known(_)) => "known",
            };
            *self.states.entry((condition.field, state)).or_default() += 1;
            self.in_groups += usize::from(matches!(condition.value, Value::Group(gid) if event.groups.contains(&gid)));
        }
    }
}

/// Compares the kernel with the oracle at a layer, for one random policy.
fn compare(
    kernel: &mut KernelClassifier,
    random: &mut random::Random,
    layer: LayerId,
    (filters, events): (usize, usize),
    met: &mut Met,
) {
    let policy = random::policy_at(random, layer, filters);
    // no callout is registered in the kernel
    let compiled: CompiledPolicy =
        match compile_objects(met.policies as u32 + 1, &policy.sublayers, policy.filters.clone(), &[]) {
            // more prefixes and descriptors on one field than an image can tell apart
            Err(CompileError::TooManyComparisons { .. }) => return,
            compiled => compiled.unwrap(),
        };
    kernel.set_policy(&compiled).unwrap();
    met.policies += 1;
    met.layers.insert(layer.name());
    met.match_types.extend(policy.filters.iter().flat_map(|(_, f)| &f.conditions).map(|c| c.match_type));
    let events: Vec<Event> = (0..events).map(|_| random::event(random, layer)).collect();
    let values: Vec<Values> = events.iter().map(|event| compiled.values(event)).collect();
    let classified = kernel.classify(layer, &values).unwrap();
    assert_eq!(classified.len(), events.len());
    let sublayers = oracle::sublayers(&policy.sublayers);
    for (event, got) in events.iter().zip(&classified) {
        let expected = oracle::classify(&sublayers, &policy.filters, &Default::default(), event);
        assert_eq!(
            (word(got.action), got.filter, got.reason.name()),
            (expected.action, expected.filter, expected.reason),
            "{event:?}\n{:#?}",
            policy.filters
        );
        let errno = if got.action == Action::Block { compiled.classify(event).errno } else { 0 };
        assert_eq!(got.errno, errno);
        met.add(&policy.filters, event, got);
    }
}

#[test]
fn values_in_every_state_at_every_layer_are_decided_as_the_oracle_does() {
    let Some(mut kernel) = classifier() else { return };
    let cases: usize = std::env::var("OPENWFP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(250_000);
    let mut random = random::Random::new(11);
    let mut met = Met::default();
    while met.events < cases {
        // those where values can be late have a second turn
        for layer in Layer::all().iter().map(|layer| layer.id).chain(random::LAYERS) {
            let filters = random.pick(&[3, 24]);
            compare(&mut kernel, &mut random, layer, (filters, 200), &mut met);
        }
    }
    println!("{} events, {} policies, {} layers", met.events, met.policies, met.layers.len());
    println!("{:?} {:?}, {} by a filter, {} in groups", met.actions, met.reasons, met.by_filter, met.in_groups);
    assert_eq!(met.layers.len(), Layer::all().len());
    assert!(met.by_filter * 100 >= met.events * 30);
    for action in ["permit", "block", "late"] {
        assert!(met.actions.get(action).is_some_and(|times| *times > 100), "{action} was not met");
    }
    for reason in ["", "unreadable", "callout-unregistered"] {
        assert!(met.reasons.get(reason).is_some_and(|times| *times > 100), "{reason:?} was not met");
    }
    for field in [FieldId::ALE_APP_ID, FieldId::ALE_USER_ID, FieldId::IP_REMOTE_ADDRESS, FieldId::IP_REMOTE_PORT] {
        for state in ["known", "empty"] {
            assert!(met.states.contains_key(&(field, state)), "{field} was never {state}");
        }
    }
    for field in [FieldId::ALE_APP_ID, FieldId::ALE_USER_ID, FieldId::IP_LOCAL_ADDRESS] {
        assert!(met.states.contains_key(&(field, "unknown")), "{field} was never unknown");
    }
    assert!(met.in_groups > 100, "{}", met.in_groups);
    assert_eq!(met.match_types.len(), MatchType::ALL.len(), "{:?}", met.match_types);
}

#[test]
fn large_policies_are_decided_as_the_oracle_does() {
    let Some(mut kernel) = classifier() else { return };
    let mut random = random::Random::new(12);
    let mut met = Met::default();
    for _ in 0..3 {
        for layer in random::LAYERS {
            compare(&mut kernel, &mut random, layer, (600, 100), &mut met);
        }
    }
    println!("{} events, {} policies", met.events, met.policies);
    assert!(met.events >= 500, "{met:?}");
}

#[test]
fn a_policy_takes_the_place_of_the_one_before() {
    let Some(mut kernel) = classifier() else { return };
    let layer = LayerId::OUTBOUND_TRANSPORT_V4;
    let event = Event::new(layer).with(FieldId::IP_REMOTE_PORT, Value::Uint16(80));
    let values = [Values::new()];
    // before the first one there is nothing to decide by
    let closed = kernel.classify(layer, &values).unwrap();
    assert_eq!((closed[0].action, closed[0].reason), (Action::Block, Reason::UnknownGeneration));
    let filter = |action| {
        let port = Value::Uint16(80);
        let filter = Filter::builder("port 80", layer).action(action);
        vec![(7, filter.when(FieldId::IP_REMOTE_PORT, MatchType::Equal, port).errno(Errno::EACCES).build().unwrap())]
    };
    for (generation, action, expected) in [
        (1, openwfp_model::Action::Block, (Action::Block, 13)),
        (2, openwfp_model::Action::Permit, (Action::Permit, 0)),
    ] {
        let policy = compile_objects(generation, &[], filter(action), &[]).unwrap();
        kernel.set_policy(&policy).unwrap();
        // more than one run of the program
        let classified = kernel.classify(layer, &vec![policy.values(&event); 100]).unwrap();
        assert_eq!(classified.len(), 100);
        for got in classified {
            assert_eq!((got.action, got.errno, got.filter), (expected.0, expected.1, 7));
            // how long a reading of the clock takes beside it, nobody can say of a machine that is interrupted in between
            assert!(got.nanoseconds > 0, "{got:?}");
        }
    }
}
