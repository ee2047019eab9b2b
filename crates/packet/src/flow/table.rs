//! The table of flows: bounded, ordered by use, and safe against chosen keys.
//!
//! Flows stand in one array; a hash table of 32-bit numbers finds them, and a list for each [`Lifetime`] orders them by
//! their last packet, so that looking for what is idle looks at nothing else. Keys come from captures, whose authors may
//! have chosen them to collide: they are hashed with SipHash-1-3 under a seed that the caller hands in. (Over a key of
//! five words it costs some ten nanoseconds; faster hashes give way to chosen keys.)

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use core::hash::Hasher;
use core::num::NonZeroU64;

use super::{DeleteReason, Direction, FlowChange, FlowEvent, FlowId, FlowKey, FlowTuple, Lifetime, Refusal, TcpState};
use crate::time::Timestamp;

const NONE: u32 = u32::MAX;

/// What a table of flows is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSettings {
    /// How many flows it holds at most; at least 1 and at most 2^31.
    pub capacity: u32,
    /// What keys are hashed with. Whoever replays captures of strangers takes random numbers.
    pub seed: [u64; 2],
}

impl Default for FlowSettings {
    /// 1,048,576 flows, and a seed of zeros.
    fn default() -> Self {
        Self { capacity: 1 << 20, seed: [0; 2] }
    }
}

/// A flow.
#[derive(Clone, Debug)]
pub struct Flow {
    id: FlowId,
    key: FlowKey,
    opened: Direction,
    /// Whether the flow was established: [`FlowChange::Deleted`] is told of such flows alone.
    established: bool,
    /// Where it was refused.
    refusal: Option<Refusal>,
    /// The state of the connection; none for other protocols than TCP.
    tcp: Option<TcpState>,
    lifetime: Lifetime,
    last_packet: Timestamp,
    newer: u32,
    older: u32,
}

impl Flow {
    /// The number of the flow.
    #[must_use]
    pub const fn id(&self) -> FlowId {
        self.id
    }

    /// Who opened it: [`Direction::Outbound`] when the local side did.
    #[must_use]
    pub const fn opened(&self) -> Direction {
        self.opened
    }

    /// Whether it was established.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        self.established
    }

    /// Where it was refused, if it was.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The state of a TCP connection.
    #[must_use]
    pub const fn tcp(&self) -> Option<&TcpState> {
        self.tcp.as_ref()
    }

    /// Its endpoints.
    #[must_use]
    pub fn tuple(&self) -> FlowTuple {
        FlowTuple::from(&self.key)
    }

    fn event(&self, change: FlowChange, time: Timestamp) -> FlowEvent {
        FlowEvent { flow: self.id, tuple: self.tuple(), opened: self.opened, change, time }
    }
}

/// Where a flow stands in the table; good until the table changes otherwise than through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

#[derive(Clone, Copy)]
struct List {
    newest: u32,
    oldest: u32,
}

/// A bounded table of flows.
pub struct FlowTable {
    flows: Vec<Flow>,
    free: Vec<u32>,
    index: HashTable<u32>,
    lists: [List; Lifetime::COUNT],
    settings: FlowSettings,
    hasher: SipHasher13,
    opened: u64,
    evicted: u64,
}

impl FlowTable {
    /// An empty table.
    #[must_use]
    pub fn new(settings: FlowSettings) -> Self {
        let settings = FlowSettings { capacity: settings.capacity.clamp(1, 1 << 31), ..settings };
        Self {
            flows: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            lists: [List { newest: NONE, oldest: NONE }; Lifetime::COUNT],
            settings,
            hasher: SipHasher13::new_with_keys(settings.seed[0], settings.seed[1]),
            opened: 0,
            evicted: 0,
        }
    }

    /// How many flows the table holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many flows were ever opened.
    #[must_use]
    pub const fn opened(&self) -> u64 {
        self.opened
    }

    /// How many flows were deleted because the table was full.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The flow of a key.
    #[inline]
    #[must_use]
    pub fn find(&self, key: &FlowKey) -> Option<Slot> {
        let hash = hash(&self.hasher, key);
        self.index.find(hash, |&slot| self.flows[slot as usize].key == *key).copied().map(Slot)
    }

    /// The flow in a slot.
    #[inline]
    #[must_use]
    pub fn flow(&self, slot: Slot) -> &Flow {
        &self.flows[slot.0 as usize]
    }

    /// The state of the TCP connection in a slot, to be followed.
    #[inline]
    pub fn tcp_mut(&mut self, slot: Slot) -> Option<&mut TcpState> {
        self.flows[slot.0 as usize].tcp.as_mut()
    }

    /// Opens a flow; the caller has looked its key up and not found it. When the table is full, the flow that can best be
    /// missed goes.
    pub fn open(
        &mut self,
        key: FlowKey,
        opened: Direction,
        tcp: Option<TcpState>,
        lifetime: Lifetime,
        now: Timestamp,
        tell: &mut dyn FnMut(FlowEvent),
    ) -> Slot {
        if self.index.len() >= self.settings.capacity as usize {
            self.evict(now, tell);
        }
        self.opened += 1;
        let flow = Flow {
            id: FlowId(NonZeroU64::MIN.saturating_add(self.opened - 1)),
            key,
            opened,
            established: false,
            refusal: None,
            tcp,
            lifetime,
            last_packet: now,
            newer: NONE,
            older: NONE,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.flows[slot as usize] = flow;
                slot
            }
            None => {
                self.flows.push(flow);
                (self.flows.len() - 1) as u32
            }
        };
        let (flows, hasher) = (&self.flows, &self.hasher);
        self.index.insert_unique(hash(hasher, &key), slot, |&other| hash(hasher, &flows[other as usize].key));
        self.link(slot);
        Slot(slot)
    }

    /// Notes that a packet of the flow came.
    #[inline]
    pub fn touch(&mut self, slot: Slot, now: Timestamp) {
        let flow = &mut self.flows[slot.0 as usize];
        flow.last_packet = now;
        let newest = self.lists[flow.lifetime as usize].newest;
        if newest != slot.0 {
            self.unlink(slot.0);
            self.link(slot.0);
        }
    }

    /// Gives a flow another lifetime.
    pub fn set_lifetime(&mut self, slot: Slot, lifetime: Lifetime) {
        if self.flows[slot.0 as usize].lifetime != lifetime {
            self.unlink(slot.0);
            self.flows[slot.0 as usize].lifetime = lifetime;
            self.link(slot.0);
        }
    }

    /// Marks a flow as established and tells of it.
    pub fn establish(&mut self, slot: Slot, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) {
        let flow = &mut self.flows[slot.0 as usize];
        flow.established = true;
        tell(flow.event(FlowChange::Established, now));
    }

    /// Marks a flow as refused.
    pub fn refuse(&mut self, slot: Slot, refusal: Refusal) {
        self.flows[slot.0 as usize].refusal = Some(refusal);
    }

    /// Ends a connection: it is told of as deleted, and stays for late segments.
    pub fn end(&mut self, slot: Slot, reason: DeleteReason, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) {
        self.tell_deleted(slot.0, reason, now, tell);
        self.set_lifetime(slot, Lifetime::Ended);
    }

    /// Deletes a flow.
    pub fn delete(&mut self, slot: Slot, reason: DeleteReason, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) {
        self.tell_deleted(slot.0, reason, now, tell);
        self.remove(slot.0);
    }

    /// Deletes every flow whose time has passed.
    #[inline]
    pub fn expire(&mut self, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) {
        for lifetime in Lifetime::ALL {
            let Some(limit) = lifetime.idle_time() else { continue };
            while let Some(flow) = self.flows.get(self.lists[lifetime as usize].oldest as usize) {
                if now.since(flow.last_packet) < limit {
                    break;
                }
                self.delete(Slot(self.lists[lifetime as usize].oldest), DeleteReason::Idle, now, tell);
            }
        }
    }

    /// Lifetimes are in the order in which their flows can be missed; flows that the platform keeps are equals.
    fn evict(&mut self, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) {
        let oldest = |lifetime: Lifetime| Some(self.lists[lifetime as usize].oldest).filter(|&slot| slot != NONE);
        let least = oldest(Lifetime::Ended).or_else(|| oldest(Lifetime::Opening)).or_else(|| {
            let kept = [Lifetime::Group, Lifetime::Idle, Lifetime::Connection];
            kept.into_iter().filter_map(oldest).min_by_key(|&slot| self.flows[slot as usize].last_packet)
        });
        if let Some(slot) = least {
            self.evicted += 1;
            self.delete(Slot(slot), DeleteReason::Evicted, now, tell);
        }
    }

    fn tell_deleted(&mut self, slot: u32, reason: DeleteReason, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) {
        let flow = &mut self.flows[slot as usize];
        if core::mem::take(&mut flow.established) && flow.refusal.is_none() {
            tell(flow.event(FlowChange::Deleted(reason), now));
        }
    }

    fn remove(&mut self, slot: u32) {
        self.unlink(slot);
        let key = self.flows[slot as usize].key;
        if let Ok(entry) = self.index.find_entry(hash(&self.hasher, &key), |&other| other == slot) {
            entry.remove();
        }
        self.free.push(slot);
    }

    fn link(&mut self, slot: u32) {
        let list = &mut self.lists[self.flows[slot as usize].lifetime as usize];
        let older = core::mem::replace(&mut list.newest, slot);
        if older == NONE {
            list.oldest = slot;
        } else {
            self.flows[older as usize].newer = slot;
        }
        self.flows[slot as usize].older = older;
        self.flows[slot as usize].newer = NONE;
    }

    fn unlink(&mut self, slot: u32) {
        let Flow { newer, older, lifetime, .. } = self.flows[slot as usize];
        let list = &mut self.lists[lifetime as usize];
        if newer == NONE {
            list.newest = older;
        } else {
            self.flows[newer as usize].older = older;
        }
        if older == NONE {
            list.oldest = newer;
        } else {
            self.flows[older as usize].newer = newer;
        }
    }
}

#[inline]
fn hash(hasher: &SipHasher13, key: &FlowKey) -> u64 {
    let mut hasher = *hasher;
    for &word in key.words() {
        hasher.write_u64(word);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::Selector;
    use super::*;
    use crate::packet::TcpHeader;
    use crate::wire::TcpFlags;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanoseconds(seconds * SECOND)
    }

    fn key(port: u16) -> FlowKey {
        FlowKey::from(&FlowTuple {
            local: "192.0.2.1".parse().unwrap(),
            remote: "198.51.100.1".parse().unwrap(),
            protocol: 17,
            selector: Selector::Ports { local: port, remote: 53 },
        })
    }

    fn table(capacity: u32) -> FlowTable {
        FlowTable::new(FlowSettings { capacity, ..FlowSettings::default() })
    }

    fn open(table: &mut FlowTable, port: u16, lifetime: Lifetime, seconds: u64) -> Slot {
        let slot = table.open(key(port), Direction::Outbound, None, lifetime, at(seconds), &mut |_| ());
        table.establish(slot, at(seconds), &mut |_| ());
        slot
    }

    fn deleted(table: &mut FlowTable, seconds: u64) -> Vec<(u64, DeleteReason)> {
        let mut events = Vec::new();
        table.expire(at(seconds), &mut |event| match event.change {
            FlowChange::Deleted(reason) => events.push((event.flow.get(), reason)),
            FlowChange::Established => panic!("nothing is established by the passing of time"),
        });
        events
    }

    #[test]
    fn ids_run_from_one() {
        let mut table = table(10);
        let first = open(&mut table, 1, Lifetime::Idle, 0);
        let second = open(&mut table, 2, Lifetime::Idle, 0);
        assert_eq!((table.flow(first).id().get(), table.flow(second).id().get()), (1, 2));
        assert_eq!(table.find(&key(2)), Some(second));
        assert_eq!(table.find(&key(3)), None);
        assert_eq!((table.len(), table.opened()), (2, 2));
    }

    #[test]
    fn idle_flows_are_deleted_after_the_documented_times() {
        let mut table = table(10);
        let idle = open(&mut table, 1, Lifetime::Idle, 0);
        open(&mut table, 2, Lifetime::Group, 0);
        open(&mut table, 3, Lifetime::Connection, 0);
        assert_eq!(deleted(&mut table, 3), []);
        assert_eq!(deleted(&mut table, 4), [(2, DeleteReason::Idle)]);
        table.touch(idle, at(30));
        assert_eq!(deleted(&mut table, 89), []);
        assert_eq!(deleted(&mut table, 90), [(1, DeleteReason::Idle)]);
        assert_eq!(deleted(&mut table, 1_000_000), [], "a connection lives as long as its socket");
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_full_table_gives_up_what_can_best_be_missed() {
        let mut table = table(4);
        let ended = open(&mut table, 1, Lifetime::Connection, 5);
        open(&mut table, 2, Lifetime::Opening, 3);
        open(&mut table, 3, Lifetime::Connection, 1);
        open(&mut table, 4, Lifetime::Idle, 2);
        table.end(ended, DeleteReason::Closed, at(6), &mut |_| ());
        for (port, given_up) in [(5, 1), (6, 2), (7, 3), (8, 4), (9, 5)] {
            open(&mut table, port, Lifetime::Idle, 7);
            assert_eq!(table.find(&key(given_up)), None, "flow {given_up} goes when flow {port} comes");
            assert_eq!(table.len(), 4);
        }
        assert_eq!(table.evicted(), 5);
    }

    #[test]
    fn a_flood_of_syns_takes_nothing_from_connections_that_stand() {
        let mut table = table(100);
        open(&mut table, 1, Lifetime::Connection, 0);
        for port in 2..=10_000 {
            let syn = TcpHeader { source: port, destination: 80, flags: TcpFlags::SYN, sequence: 0 };
            let state = Some(TcpState::opening(&syn));
            table.open(key(port), Direction::Inbound, state, Lifetime::Opening, at(1), &mut |_| ());
        }
        assert!(table.find(&key(1)).is_some());
        assert_eq!(table.len(), 100);
    }

    #[test]
    fn what_was_never_established_is_not_told_of_as_deleted() {
        let mut table = table(10);
        table.open(key(1), Direction::Outbound, None, Lifetime::Idle, at(0), &mut |_| ());
        let blocked = open(&mut table, 2, Lifetime::Idle, 0);
        table.refuse(blocked, Refusal::Establishment);
        assert_eq!(deleted(&mut table, 60), []);
        assert!(table.is_empty());
    }

    #[test]
    fn slots_are_used_again() {
        let mut table = table(10);
        for round in 0..1000 {
            let slot = open(&mut table, round, Lifetime::Idle, 0);
            table.delete(slot, DeleteReason::Replaced, at(0), &mut |_| ());
        }
        assert_eq!(table.flows.len(), 1);
        assert!(table.is_empty());
    }
}
