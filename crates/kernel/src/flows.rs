//! The flows of datagrams, as the programs keep them: which have ended, and why.
//!
//! The programs remember a flow until it was idle for too long or has to make room; nobody tells when that happens. So the
//! table is looked through from time to time, and compared with the flows that are known to have been established. (The
//! ends of connections are told by the programs themselves.)

use crate::{events::EndOfFlow, load::LoadError, records::Record};
use aya::maps::{HashMap, Map, MapData, MapError};
use openwfp_abi::flow::{FLOWS_ENTRIES, Flow, FlowKey, IDLE_NANOSECONDS};
use std::{
    collections::{HashMap as StdHashMap, HashSet},
    time::{Duration, Instant},
};

/// How flows of datagrams are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// One that was not used for so long has ended: 60 seconds.
    pub idle: Duration,
    /// At most so many are remembered (16,384); the one that was used longest ago makes room, approximately: the table is one of
    /// the kernel's, which gives each CPU some places at a time.
    pub entries: u32,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self { idle: Duration::from_nanos(IDLE_NANOSECONDS), entries: FLOWS_ENTRIES }
    }
}

impl FlowLimits {
    /// The time in nanoseconds.
    pub(crate) fn idle_nanoseconds(&self) -> u64 {
        u64::try_from(self.idle.as_nanos()).unwrap_or(u64::MAX)
    }

    /// How often the table is looked through.
    fn sweep(&self) -> Duration {
        (self.idle / 12).min(Duration::from_secs(5))
    }

    /// So many flows are known at most; more have been forgotten by the programs too.
    fn most_known(&self) -> usize {
        self.entries as usize + 2 * FLOWS_ENTRIES as usize
    }
}

/// A flow that was established and has not ended.
#[derive(Clone, Copy, Debug)]
struct Known {
    socket: u64,
    /// When it was last known to be used, in nanoseconds of the monotonic clock.
    used: u64,
}

/// The table of flows.
pub(crate) struct FlowTable {
    map: HashMap<MapData, Record<FlowKey>, Record<Flow>>,
    known: StdHashMap<u64, Known>,
    swept: Instant,
    limits: FlowLimits,
}

impl FlowTable {
    pub(crate) fn new(map: Map, limits: FlowLimits) -> Result<Self, LoadError> {
        let failed = |source: MapError| LoadError::Map { name: "FLOWS", source: Box::new(source) };
        Ok(Self { map: map.try_into().map_err(failed)?, known: StdHashMap::new(), swept: Instant::now(), limits })
    }

    /// How many are remembered.
    pub(crate) fn count(&self) -> usize {
        self.map.keys().filter_map(Result::ok).count()
    }

    /// A flow was established at this time (nanoseconds of the monotonic clock).
    pub(crate) fn established(&mut self, flow: u64, socket: u64, time: u64) {
        if self.known.len() < self.limits.most_known() {
            self.known.insert(flow, Known { socket, used: time });
        }
    }

    /// A flow has ended; whether it was known.
    pub(crate) fn ended(&mut self, flow: u64) -> bool {
        self.known.remove(&flow).is_some()
    }

    /// A socket is closed: the flows that it had.
    pub(crate) fn closed(&mut self, socket: u64) -> Vec<u64> {
        let mut flows: Vec<u64> =
            self.known.iter().filter(|(_, known)| known.socket == socket).map(|(flow, _)| *flow).collect();
        flows.sort_unstable();
        self.known.retain(|_, known| known.socket != socket);
        flows
    }

    /// Forgets every authorization.
    pub(crate) fn forget(&mut self) {
        let keys: Vec<_> = self.map.keys().filter_map(Result::ok).collect();
        for key in keys {
            // one that is gone meanwhile is forgotten too
            let _ = self.map.remove(&key);
        }
    }

    /// Looks the table through, when it is time: the flows that have ended.
    pub(crate) fn sweep(&mut self, now: u64) -> Vec<(u64, EndOfFlow)> {
        if self.known.is_empty() || self.swept.elapsed() < self.limits.sweep() {
            return vec![];
        }
        self.swept = Instant::now();
        let mut there = StdHashMap::new();
        let mut refused = HashSet::new();
        let mut idle = vec![];
        for entry in self.map.iter() {
            // an entry that goes away meanwhile ends the walk or is passed over: it is found the next time
            let Ok((key, Record(flow))) = entry else { continue };
            if flow.refused == 0 {
                there.insert(flow.id, flow.used);
            } else {
                refused.insert(flow.id);
            }
            if self.is_idle(flow.used, now) {
                idle.push(key);
            }
        }
        let mut ended = vec![];
        let mut known = std::mem::take(&mut self.known);
        known.retain(|&flow, known| {
            let used = there.get(&flow).copied();
            known.used = used.unwrap_or(known.used).max(known.used);
            if refused.contains(&flow) {
                // its event was lost, or is not recorded
                ended.push((flow, EndOfFlow::Refused));
            } else if self.is_idle(known.used, now) {
                ended.push((flow, EndOfFlow::Idle));
            } else if used.is_none() {
                ended.push((flow, EndOfFlow::Evicted));
            } else {
                return true;
            }
            false
        });
        self.known = known;
        for key in idle {
            // one that is used again meanwhile is a new flow at its next packet
            let _ = self.map.remove(&key);
        }
        ended.sort_unstable_by_key(|(flow, _)| *flow);
        ended
    }

    fn is_idle(&self, used: u64, now: u64) -> bool {
        now.saturating_sub(used) > self.limits.idle_nanoseconds()
    }
}
