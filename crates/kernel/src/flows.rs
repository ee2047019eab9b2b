//! The flows of datagrams, as the programs keep them: which have ended, and why.
//!
//! The programs remember a flow until it was idle for too long or has to make room; nobody tells when that happens. So the
//! table is looked through from time to time, and compared with the flows that are known to have been established. (The
//! ends of connections are told by the programs themselves.)

use crate::{events::EndOfFlow, load::LoadError, records::Record};
use aya::maps::{HashMap, Map, MapData, MapError};
use openwfp_abi::flow::{FLOWS_ENTRIES, Flow, FlowKey, IDLE_NANOSECONDS};
use std::{
    collections::HashMap as StdHashMap,
    time::{Duration, Instant},
};

/// How often the table is looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// So many flows are known at most; more have been forgotten by the programs too.
const MOST_KNOWN: usize = 2 * FLOWS_ENTRIES as usize;

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
}

impl FlowTable {
    pub(crate) fn new(map: Map) -> Result<Self, LoadError> {
        let failed = |source: MapError| LoadError::Map { name: "FLOWS", source: Box::new(source) };
        Ok(Self { map: map.try_into().map_err(failed)?, known: StdHashMap::new(), swept: Instant::now() })
    }

    /// A flow was established at this time (nanoseconds of the monotonic clock).
    pub(crate) fn established(&mut self, flow: u64, socket: u64, time: u64) {
        if self.known.len() < MOST_KNOWN {
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
        if self.known.is_empty() || self.swept.elapsed() < SWEEP {
            return vec![];
        }
        self.swept = Instant::now();
        let mut there = StdHashMap::new();
        let mut idle = vec![];
        for entry in self.map.iter() {
            // an entry that goes away meanwhile ends the walk or is passed over: it is found the next time
            let Ok((key, Record(flow))) = entry else { continue };
            there.insert(flow.id, flow.used);
            if is_idle(flow.used, now) {
                idle.push(key);
            }
        }
        let mut ended = vec![];
        self.known.retain(|&flow, known| {
            let used = there.get(&flow).copied();
            known.used = used.unwrap_or(known.used).max(known.used);
            if is_idle(known.used, now) {
                ended.push((flow, EndOfFlow::Idle));
            } else if used.is_none() {
                ended.push((flow, EndOfFlow::Evicted));
            } else {
                return true;
            }
            false
        });
        for key in idle {
            // one that is used again meanwhile is a new flow at its next packet
            let _ = self.map.remove(&key);
        }
        ended.sort_unstable_by_key(|(flow, _)| *flow);
        ended
    }
}

fn is_idle(used: u64, now: u64) -> bool {
    now.saturating_sub(used) > IDLE_NANOSECONDS
}
