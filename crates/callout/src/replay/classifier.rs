//! A classifier for replays, ready made.

use openwfp_engine::CompiledPolicy;
use openwfp_packet::flow::{Direction, FlowEvent, FlowId};
use openwfp_packet::link::LinkType;
use openwfp_packet::replay::{Classifier, Decision, Injected, Step};

use super::ReplayCallouts;

/// A classifier for a replay: a policy with its callouts.
pub struct CalloutClassifier<'p> {
    policy: &'p CompiledPolicy,
    callouts: ReplayCallouts,
    passed: Option<Passed>,
}

/// Is told of packets that passed every layer on their way.
pub type Passed = Box<dyn FnMut(LinkType, &[u8], Direction)>;

impl<'p> CalloutClassifier<'p> {
    /// A policy with its callouts.
    #[must_use]
    pub const fn new(policy: &'p CompiledPolicy, callouts: ReplayCallouts) -> Self {
        Self { policy, callouts, passed: None }
    }

    /// The same, telling of packets that passed every layer on their way.
    #[must_use]
    pub fn on_passed(mut self, passed: Passed) -> Self {
        self.passed = Some(passed);
        self
    }

    /// The callouts.
    pub fn callouts(&mut self) -> &mut ReplayCallouts {
        &mut self.callouts
    }
}

impl Classifier for CalloutClassifier<'_> {
    fn classify(&mut self, step: &Step<'_>) -> Decision {
        self.callouts.decide(self.policy, step).decision
    }

    fn flow_changed(&mut self, event: &FlowEvent) {
        self.callouts.flow_changed(event);
    }

    fn flow_gone(&mut self, flow: FlowId) {
        self.callouts.flow_gone(flow);
    }

    fn wants_bytes(&self) -> bool {
        true
    }

    fn stream_ended(&mut self, step: &Step<'_>) -> Decision {
        self.callouts.stream_ended(self.policy, step).decision
    }

    fn next_injected(&mut self) -> Option<Injected> {
        self.callouts.next_injected(self.policy)
    }

    fn next_aborted(&mut self) -> Option<FlowId> {
        self.callouts.next_aborted()
    }

    fn passed(&mut self, link_type: LinkType, bytes: &[u8], direction: Direction) {
        if let Some(passed) = &mut self.passed {
            passed(link_type, bytes, direction);
        }
    }
}
