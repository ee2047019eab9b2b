//! Arbitration with callouts against the naive matcher, over random policies: every callout answers as it will, some panic.

#[path = "../../engine/tests/common/oracle.rs"]
mod oracle;
#[path = "../../engine/tests/common/random.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod random;

use std::collections::BTreeSet;
use std::sync::Arc;

use openwfp_callout::{
    Callout, Classification, ClassifyOut, Filter, LayerData, LayerEvent, Metadata, Registration, Registry,
};
use openwfp_engine::{Action, CalloutAction, CalloutAnswer, CompileError, EventValue, Verdict, compile_objects};
use openwfp_model::{Action as FilterAction, FilterFlags, Guid};

/// Answers as it was told, or panics.
struct Fixed(Guid, Option<CalloutAnswer>);

impl Callout for Fixed {
    fn registration(&self) -> Registration {
        Registration::new(self.0, "fixed")
    }

    fn classify(&self, _: &mut Classification<'_>, out: &mut ClassifyOut) {
        let answer = self.1.expect("it was told to panic");
        match answer.action {
            CalloutAction::Permit => out.permit(),
            CalloutAction::Block => out.block(),
            CalloutAction::Continue => out.continue_(),
        }
        if answer.clear_action_right {
            out.clear_action_right();
        }
    }
}

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

#[test]
fn random_callouts_are_arbitrated_as_the_oracle_does() {
    // Panics of callouts are expected here by the hundred; nobody needs to read them.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.to_string().contains("it was told to panic") {
            usual(panic);
        }
    }));
    let mut random = random::Random::new(7);
    let (mut asked, mut reasons, mut panicked) = (0u64, BTreeSet::new(), 0u64);
    for number in 0..1500 {
        let mut policy = random::policy(&mut random, 24);
        // The crate's helpers follow the filter's flag, which the oracle leaves to the callout.
        policy.filters.retain(|(_, filter)| {
            let is_callout = matches!(filter.action, FilterAction::Callout { .. });
            !(is_callout && filter.flags.contains(FilterFlags::CLEAR_ACTION_RIGHT))
        });
        let registry = Registry::new();
        let broken = policy.registered.keys().next().copied().filter(|_| random.chance(30));
        for (key, answer) in &policy.registered {
            let answer = Some(*answer).filter(|_| Some(*key) != broken);
            registry.register(Arc::new(Fixed(*key, answer))).unwrap();
        }
        let registered: Vec<Guid> = policy.registered.keys().copied().collect();
        let compiled = match compile_objects(1, &policy.sublayers, policy.filters.clone(), &registered) {
            Err(CompileError::TooManyComparisons { .. }) => continue,
            compiled => compiled.expect("random policies are small"),
        };
        for (id, filter) in &policy.filters {
            if let FilterAction::Callout { callout, kind } = filter.action {
                let made = Filter::new(*id, filter.key, &filter.name, filter.layer, kind).with_flags(filter.flags);
                registry.add_filter(callout, made).unwrap();
            }
        }
        let mut expected_registered = policy.registered.clone();
        if let Some(broken) = broken {
            expected_registered.remove(&broken);
        }
        let sublayers = oracle::sublayers(&policy.sublayers);
        let metadata = Metadata::default();
        for _ in 0..40 {
            let event = random::event(&mut random, policy.layer);
            // What a filter of an inspection callout could not read blocks until the policy is compiled without the callout; the
            // oracle knows it only as one that was never there.
            if broken.is_some() && event.values.values().any(|value| *value == EventValue::Unknown) {
                continue;
            }
            let values = compiled.values(&event);
            let layer_event = LayerEvent::new(policy.layer, &values, &metadata, LayerData::None);
            let verdict = registry.classify(&compiled, &layer_event).verdict;
            let expected = oracle::classify(&sublayers, &policy.filters, &expected_registered, &event);
            assert_eq!(outcome(&verdict), expected, "policy {number}: {event:?}\n{:#?}", policy.filters);
            reasons.insert(verdict.reason.name());
        }
        asked += registry.counts().classified;
        panicked += registry.counts().panics;
    }
    let _ = std::panic::take_hook();
    assert!(asked > 5000 && panicked > 50, "{asked} asked, {panicked} panicked");
    for reason in ["", "veto", "callout-unregistered"] {
        assert!(reasons.contains(reason), "{reason:?} was never met");
    }
}
