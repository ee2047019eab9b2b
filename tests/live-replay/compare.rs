//! One classification, live or replayed, and what is not compared.

use openwfp_engine::{Action, EMPTY, Reason, Schema, UNKNOWN, Values, Verdict};
use openwfp_kernel::events::Event;
use openwfp_model::{FieldId, LayerId};
use std::fmt;

/// One classification.
#[derive(Clone)]
pub struct Step {
    pub layer: LayerId,
    pub blocked: bool,
    pub filter: u64,
    pub reason: Reason,
    pub flow: Option<u64>,
    /// Whether the kernel has dropped the packet by itself, since nobody listened: live.
    pub unheard: bool,
    /// The number of the packet in the capture; nothing live.
    pub packet: Option<u64>,
    pub values: Values,
}

impl Step {
    pub fn of_event(event: &Event) -> Self {
        let flow = Some(event.flow).filter(|flow| *flow != 0);
        let Event { layer, blocked, filter, reason, .. } = *event;
        let unheard = event.dropped.is_some();
        Self { layer, blocked, filter, reason, flow, unheard, packet: None, values: event.values.clone() }
    }

    pub fn of_replay(step: &openwfp_packet::replay::Step<'_>, verdict: &Verdict) -> Self {
        let blocked = verdict.action != Action::Permit;
        let flow = step.flow.map(|flow| flow.get());
        Self {
            layer: step.layer,
            blocked,
            filter: verdict.filter,
            reason: verdict.reason,
            flow,
            unheard: false,
            packet: Some(step.packet),
            values: step.values.clone(),
        }
    }

    pub fn family(&self) -> String {
        self.layer.name().replace("_V4", "").replace("_V6", "")
    }

    /// One field: its words.
    pub fn field(&self, field: FieldId) -> Option<Vec<u64>> {
        let words = Schema::of(self.layer).field(field)?;
        Some((0..words.count).map(|number| self.values.get(words.first + number)).collect())
    }

    pub fn is(&self, field: FieldId, value: u64) -> bool {
        self.field(field).is_some_and(|words| words == [value])
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.layer.name(), if self.blocked { "block" } else { "permit" })
    }
}

pub fn text(words: &[u64]) -> String {
    let word = |word: &u64| match *word {
        EMPTY => "empty".to_owned(),
        UNKNOWN => "unknown".to_owned(),
        known => format!("{known:#x}"),
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}
