//! The engine against the naive matcher, over random policies and events.

#[path = "common/oracle.rs"]
mod oracle;
#[path = "common/random.rs"]
mod random;

use openwfp_engine::{
    Action, Arbitration, CalloutAnswer, Callouts, Cell, CompileError, CompiledPolicy, Event, EventValue, MAX_STEPS,
    Reason, Silent, Unknown, Verdict, classify_with, compile_objects, unknown,
};
use openwfp_model::{Filter, Guid, MatchType, Value};
use std::collections::{BTreeMap, BTreeSet};

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

/// Where more filters than this test a field, one marker stands for all of them when its value is not known.
const FINE: usize = 64;

/// Whether one marker for very many filters may answer before a filter for which the unknown value would matter.
fn coarse(filters: &[(u64, Filter)], event: &Event) -> bool {
    let unknown = event.values.iter().filter(|(_, value)| **value == EventValue::Unknown);
    unknown.map(|(field, _)| field).any(|field| {
        let tests = |filter: &Filter| filter.conditions.iter().any(|condition| condition.field == *field);
        filters.iter().filter(|(_, filter)| tests(filter)).count() > FINE
    })
}

/// Such a marker never opens anything.
fn closes(verdict: &Verdict) -> bool {
    verdict.action == Action::Late || verdict.reason == Reason::Unreadable
}

/// What a run met, so that a test that passes for want of cases shows.
#[derive(Default, Debug)]
struct Met {
    events: usize,
    by_filter: usize,
    hard_permits: usize,
    soft_blocks: usize,
    reasons: BTreeSet<&'static str>,
    policies: usize,
    soft_permits: usize,
    hard_blocks: usize,
    vetoes: usize,
    late: usize,
    /// Events that one marker for very many filters closed.
    coarse: usize,
    /// Conditions that were tested, by the state of the event's value.
    states: BTreeMap<&'static str, usize>,
    /// Match types of conditions that were tested on known values and held, and that failed.
    held: BTreeMap<MatchType, usize>,
    failed: BTreeMap<MatchType, usize>,
}

impl Met {
    fn add(&mut self, verdict: &Verdict, filters: &[(u64, Filter)], event: &Event) {
        self.events += 1;
        self.by_filter += usize::from(verdict.filter != 0);
        self.reasons.insert(verdict.reason.name());
        match (verdict.action, verdict.soft) {
            (Action::Late, _) => self.late += 1,
            // what no filter matched is no filter's permit
            (Action::Permit, true) => self.soft_permits += usize::from(verdict.filter != 0),
            (Action::Permit, false) => self.hard_permits += 1,
            (Action::Block, true) => self.soft_blocks += 1,
            (Action::Block, false) => self.hard_blocks += 1,
        }
        self.vetoes += usize::from(verdict.reason == Reason::Veto);
        for condition in filters.iter().flat_map(|(_, filter)| &filter.conditions) {
            let state = match event.values.get(&condition.field) {
                None => "empty",
                Some(EventValue::Unknown) if unknown(event.layer, condition.field) == Some(Unknown::Late) => "late",
                Some(EventValue::Unknown) => "unknown",
                Some(EventValue::Known(_)) => {
                    let met = if oracle::condition_holds(condition, event) { &mut self.held } else { &mut self.failed };
                    *met.entry(condition.match_type).or_default() += 1;
                    "known"
                }
            };
            *self.states.entry(state).or_default() += 1;
        }
    }
}

/// Compares until so many events were compared; policies that cannot be compiled do not count.
fn run(seed: u64, least: usize, events: usize, most_filters: usize) -> Met {
    let mut met = Met::default();
    let mut random = random::Random::new(seed);
    while met.events < least {
        let number = met.policies;
        met.policies += 1;
        let mut policy = random::policy(&mut random, most_filters);
        if most_filters > 100 {
            // hundreds of callouts that let their sublayer go on would break the bound on the steps
            policy.registered.clear();
        }
        let Some(compiled) = compile(&policy) else { continue };
        let answers: Vec<(Guid, CalloutAnswer)> = policy.registered.iter().map(|(k, v)| (*k, *v)).collect();
        let sublayers = oracle::sublayers(&policy.sublayers);
        let worst = compiled.layer_of(policy.layer).worst_steps;
        for _ in 0..events {
            let event = random::event(&mut random, policy.layer);
            let values = compiled.values(&event);
            let cells = compiled.image().cells();
            let verdict =
                classify_with(cells, policy.layer.get(), &values, MAX_STEPS, &mut Answers(&answers), &mut Silent);
            let expected = oracle::classify(&sublayers, &policy.filters, &policy.registered, &event);
            let is_coarse = coarse(&policy.filters, &event) && closes(&verdict);
            met.coarse += usize::from(is_coarse && outcome(&verdict) != expected);
            assert!(
                outcome(&verdict) == expected || is_coarse,
                "seed {seed}, policy {number}: {event:?}\n{verdict:?} instead of {expected:?}\n{:#?}",
                policy.filters
            );
            assert!(verdict.steps <= worst, "{} steps where at most {worst} were promised", verdict.steps);
            met.add(&verdict, &policy.filters, &event);
        }
    }
    met
}

fn cases() -> usize {
    std::env::var("OPENWFP_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_000_000)
}

#[test]
fn a_million_random_events_are_decided_as_the_oracle_does() {
    let met = run(1, cases(), 200, 24);
    println!("{met:?}");
    // of a million; of fewer, as many fewer
    let least = (met.events / 10_000).clamp(1, 100);
    assert!(met.events >= cases() && met.coarse == 0, "{} events, {} by coarse markers", met.events, met.coarse);
    assert!(met.by_filter * 100 >= met.events * 30, "only {} of {} by a filter", met.by_filter, met.events);
    for (what, times) in [
        ("soft permit", met.soft_permits),
        ("hard permit", met.hard_permits),
        ("soft block", met.soft_blocks),
        ("hard block", met.hard_blocks),
        ("veto", met.vetoes),
        ("late", met.late),
    ] {
        assert!(times >= least, "{what} was met {times} times");
    }
    for state in ["known", "empty", "unknown", "late"] {
        assert!(met.states.get(state).is_some_and(|times| *times >= least), "no tested value was {state}");
    }
    for reason in ["", "veto", "unreadable", "callout-unregistered"] {
        assert!(met.reasons.contains(reason), "{reason:?} was never met");
    }
    for match_type in MatchType::ALL {
        assert!(met.held.contains_key(&match_type), "{match_type:?} never held");
        assert!(met.failed.contains_key(&match_type), "{match_type:?} never failed");
    }
}

#[test]
fn large_policies_are_decided_as_the_oracle_does() {
    let met = run(2, 2000, 100, 600);
    assert!(met.events >= 2000, "{met:?}");
    assert!(run(3, 400, 50, 3000).events >= 400);
}

#[test]
fn every_value_of_a_small_space_is_decided_as_the_oracle_does() {
    use openwfp_model::{Action, FieldId, FilterCondition, LayerId, Weight};
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
