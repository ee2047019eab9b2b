//! The flows that a host knows. `wfp` shows their packets; of those that are shown no more, the oldest end here.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::FlowHandle;

/// So many flows are known at once.
const MOST: usize = 1 << 16;
/// A flow of which nothing was shown for so long has ended.
const IDLE: Duration = Duration::from_secs(600);

/// Flows, by when something was shown of them.
#[derive(Default)]
pub(super) struct Flows {
    places: HashMap<FlowHandle, (u64, Instant)>,
    order: BTreeMap<u64, FlowHandle>,
    next: u64,
}

impl Flows {
    /// A packet of a flow is shown. Whether the flow is new, and which one ends for want of room.
    pub fn shown(&mut self, flow: FlowHandle, now: Instant) -> (bool, Option<FlowHandle>) {
        let place = self.next;
        self.next += 1;
        let before = self.places.insert(flow, (place, now));
        if let Some((before, _)) = before {
            self.order.remove(&before);
        }
        self.order.insert(place, flow);
        let ended = if self.places.len() > MOST { self.oldest() } else { None };
        (before.is_none(), ended)
    }

    fn oldest(&mut self) -> Option<FlowHandle> {
        let (_, flow) = self.order.pop_first()?;
        self.places.remove(&flow);
        Some(flow)
    }

    /// The next one of which nothing was shown for long.
    pub fn idle(&mut self, now: Instant) -> Option<FlowHandle> {
        let (_, flow) = self.order.first_key_value()?;
        let (_, at) = self.places.get(flow)?;
        if now.saturating_duration_since(*at) < IDLE { None } else { self.oldest() }
    }

    /// A flow has ended.
    pub fn ended(&mut self, flow: FlowHandle) {
        if let Some((place, _)) = self.places.remove(&flow) {
            self.order.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flow_that_was_shown_longest_ago_ends_first() {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let flow = |number: usize| FlowHandle::new(number as u64);
        for number in 0..MOST {
            assert_eq!(flows.shown(flow(number), now), (true, None));
        }
        assert_eq!(flows.shown(flow(0), now), (false, None));
        assert_eq!(flows.shown(flow(MOST), now), (true, Some(flow(1))));
        flows.ended(flow(2));
        assert_eq!(flows.idle(now), None);
        assert_eq!(flows.idle(now + IDLE), Some(flow(3)));
    }
}
