//! The engine against the naive matcher, over random policies and events.

#[path = "common/oracle.rs"]
mod oracle;
#[path = "common/random.rs"]
mod random;

use openwfp_engine::{
    Action, Arbitration, CalloutAnswer, Callouts, Cell, CompileError, CompiledPolicy, EventValue, MAX_STEPS, Silent,
    Verdict, classify_with, compile_objects,
};
use openwfp_model::{Guid, MatchType, Value};
use std::collections::BTreeSet;

/// The registered callouts of a random policy, as the engine asks for them: by number.
struct Answers<'a>(&'a [(Guid, CalloutAnswer)]);

impl Callouts for Answers<'_> {
    fn classify(&mut self, filter: &Cell, _: &Arbitration) -> CalloutAnswer {
        self.0[filter.callout() as usize].1
    }
}

/// What a verdict has in common with an outcome of the oracle.
fn outcome(verdict: &Verdict) -> oracle::Outcome {
    oracle::Outcome {
        action: match verdict.action {
            Action::Permit => "permit",
            Action::Block => "block",
            Action::Late => "late",
        },
        soft: verdict.soft,
        filter: verdict.filter,
        reason: verdict.reason.name(),
    }
}

/// `None` for a policy with more prefixes and descriptors on one field than an image can tell apart.
fn compile(policy: &random::RandomPolicy) -> Option<CompiledPolicy> {
    let registered: Vec<Guid> = policy.registered.keys().copied().collect();
    match compile_objects(1, &policy.sublayers, policy.filters.clone(), &registered) {
        Err(CompileError::TooManyComparisons { .. }) => None,
        compiled => Some(compiled.expect("random policies are small")),
    }
}

/// What a run met, so that a test that passes for want of cases shows.
#[derive(Default, Debug)]
struct Met {
    events: usize,
    by_filter: usize,
    hard_permits: usize,
    soft_blocks: usize,
    reasons: BTreeSet<&'static str>,
    match_types: BTreeSet<MatchType>,
    late: usize,
    unknown: usize,
    empty: usize,
}

fn run(seed: u64, policies: usize, events: usize, most_filters: usize) -> Met {
    let mut met = Met::default();
    let mut random = random::Random::new(seed);
    for number in 0..policies {
        let mut policy = random::policy(&mut random, most_filters);
        if most_filters > 100 {
            // hundreds of callouts that let their sublayer go on would break the bound on the steps
            policy.registered.clear();
        }
        let Some(compiled) = compile(&policy) else { continue };
        let answers: Vec<(Guid, CalloutAnswer)> = policy.registered.iter().map(|(k, v)| (*k, *v)).collect();
        let sublayers = oracle::sublayers(&policy.sublayers);
        met.match_types.extend(policy.filters.iter().flat_map(|(_, f)| &f.conditions).map(|c| c.match_type));
        let worst = compiled.layer_of(policy.layer).worst_steps;
        for _ in 0..events {
            let event = random::event(&mut random, policy.layer);
            let values = compiled.values(&event);
            let cells = compiled.image().cells();
            let verdict =
                classify_with(cells, policy.layer.get(), &values, MAX_STEPS, &mut Answers(&answers), &mut Silent);
            let expected = oracle::classify(&sublayers, &policy.filters, &policy.registered, &event);
            assert_eq!(outcome(&verdict), expected, "seed {seed}, policy {number}: {event:?}\n{:#?}", policy.filters);
            assert!(verdict.steps <= worst, "{} steps where at most {worst} were promised", verdict.steps);
            met.events += 1;
            met.by_filter += (verdict.filter != 0) as usize;
            met.late += (verdict.action == Action::Late) as usize;
            met.hard_permits += (verdict.action == Action::Permit && !verdict.soft) as usize;
            met.soft_blocks += (verdict.action == Action::Block && verdict.soft) as usize;
            met.reasons.insert(verdict.reason.name());
            met.unknown += event.values.values().any(|value| *value == EventValue::Unknown) as usize;
            met.empty +=
                policy.filters.iter().any(|(_, f)| f.conditions.iter().any(|c| c.value == Value::Empty)) as usize;
        }
    }
    met
}

fn cases() -> usize {
    std::env::var("OPENWFP_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_000_000)
}

#[test]
fn a_million_random_events_are_decided_as_the_oracle_does() {
    let met = run(1, cases() / 200, 200, 24);
    println!("{met:?}");
    assert!(met.by_filter * 100 >= met.events * 30, "only {} of {} by a filter", met.by_filter, met.events);
    assert!(met.hard_permits > 100 && met.soft_blocks > 100 && met.late > 100, "{met:?}");
    assert!(met.unknown > 100 && met.empty > 100, "{met:?}");
    for reason in ["", "veto", "unreadable", "callout-unregistered"] {
        assert!(met.reasons.contains(reason), "{reason:?} was never met");
    }
    for match_type in MatchType::ALL {
        assert!(met.match_types.contains(&match_type), "{match_type:?} was never met");
    }
}

#[test]
fn large_policies_are_decided_as_the_oracle_does() {
    let met = run(2, 60, 100, 600);
    assert!(met.events >= 2000, "{met:?}");
    run(3, 8, 50, 3000);
}

#[test]
fn every_value_of_a_small_space_is_decided_as_the_oracle_does() {
    use openwfp_engine::Event;
    use openwfp_model::{Action, FieldId, Filter, FilterCondition, LayerId, Weight};
    const LAYER: LayerId = LayerId::OUTBOUND_TRANSPORT_V4;
    let fields = [FieldId::IP_LOCAL_PORT, FieldId::IP_REMOTE_PORT];
    let mut random = random::Random::new(4);
    for _ in 0..40 {
        let filters: Vec<(u64, Filter)> = (1..=80)
            .map(|id| {
                let condition = |field| {
                    let low = random.below(24) as u16;
                    let high = low + random.below(4) as u16;
                    let range = Value::range(Value::Uint16(low), Value::Uint16(high));
                    FilterCondition::new(field, MatchType::Range, range)
                };
                let conditions: Vec<FilterCondition> = fields.into_iter().map(condition).collect();
                let action = random.pick(&[Action::Permit, Action::Block]);
                let builder = Filter::builder(format!("filter {id}"), LAYER).key(Guid::from_u128(id as u128));
                let builder = builder.weight(Weight::Exact(random.next())).action(action).conditions(conditions);
                (id, builder.build().expect("a valid filter"))
            })
            .collect();
        let compiled = compile_objects(1, &[], filters.clone(), &[]).expect("a small policy");
        let sublayers = oracle::sublayers(&[]);
        for local in 0..30 {
            for remote in 0..30 {
                let event =
                    Event::new(LAYER).with(fields[0], Value::Uint16(local)).with(fields[1], Value::Uint16(remote));
                let expected = oracle::classify(&sublayers, &filters, &Default::default(), &event);
                assert_eq!(outcome(&compiled.classify(&event)), expected, "{event:?}");
            }
        }
    }
}
