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

use super::{
    DeleteReason, Direction, FlowChange, FlowEvent, FlowId, FlowKey, FlowTuple, Lifetime, Refusal, Sender, TcpState,
};
use crate::stream::{StreamCounts, Streams};
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

/// A flow that is about to be opened.
#[derive(Clone, Copy, Debug)]
pub struct NewFlow {
    /// What tells it from others.
    pub key: FlowKey,
    /// Who opens it.
    pub opened: Direction,
    /// The state of the connection; none for other protocols than TCP.
    pub tcp: Option<TcpState>,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// Whether both ends are the local machine's.
    pub loopback: bool,
}

/// A flow.
#[derive(Clone, Debug)]
pub struct Flow {
    id: FlowId,
    key: FlowKey,
    opened: Direction,
    loopback: bool,
    /// Whether the flow was established: [`FlowChange::Deleted`] is told of such flows alone.
    established: bool,
    /// Where it was refused.
    refusal: Option<Refusal>,
    /// The state of the connection; none for other protocols than TCP.
    tcp: Option<TcpState>,
    /// The data of a TCP connection, as soon as there are any.
    streams: Option<Box<Streams>>,
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

    /// Whether both ends are the local machine's.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// How long it lives without packets.
    #[must_use]
    pub const fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Whether it was established, and was not told of as deleted since.
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
    /// What the waiting data of all connections take, in bytes.
    waiting: usize,
    streams: StreamCounts,
    /// Flows that were removed, until somebody takes note.
    gone: Vec<FlowId>,
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
            waiting: 0,
            streams: StreamCounts::default(),
            gone: Vec::new(),
        }
    }

    /// The flows that were removed since this was asked last.
    pub(crate) fn take_gone(&mut self) -> impl Iterator<Item = FlowId> + use<> {
        core::mem::take(&mut self.gone).into_iter()
    }

    /// The slot of a flow, by its number.
    pub(crate) fn find_id(&self, id: FlowId) -> Option<Slot> {
        self.index.iter().copied().find(|&slot| self.flows[slot as usize].id == id).map(Slot)
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

    /// What became of the data of connections.
    #[must_use]
    pub const fn streams(&self) -> StreamCounts {
        self.streams
    }

    /// Hands out the data of the TCP connection in a slot, with the counts and the memory that the data of all other connections take.
    #[inline]
    pub(crate) fn with_streams<R>(
        &mut self,
        slot: Slot,
        follow: impl FnOnce(&mut Streams, &mut StreamCounts, usize) -> R,
    ) -> R {
        let Flow { streams, tcp, opened, .. } = &mut self.flows[slot.0 as usize];
        let streams = streams.get_or_insert_with(|| {
            let mut streams = Box::<Streams>::default();
            for (side, direction) in [(Sender::Opener, *opened), (Sender::Acceptor, opened.opposite())] {
                if let Some(syn) = tcp.as_ref().and_then(|state| state.syn_of(side)) {
                    streams.halves[direction as usize].reassembler.begin(syn.wrapping_add(1));
                }
            }
            streams
        });
        let others = self.waiting - streams.waiting();
        let result = follow(streams, &mut self.streams, others);
        self.waiting = others + streams.waiting();
        self.streams.most_waiting = self.streams.most_waiting.max(self.waiting as u64);
        result
    }

    /// Opens a flow; the caller has looked its key up and not found it. When the table is full, the flow that can best be
    /// missed goes.
    pub fn open(&mut self, flow: NewFlow, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) -> Slot {
        if self.index.len() >= self.settings.capacity as usize {
            self.evict(now, tell);
        }
        self.opened += 1;
        let NewFlow { key, opened, tcp, lifetime, loopback } = flow;
        let flow = Flow {
            id: FlowId(NonZeroU64::MIN.saturating_add(self.opened - 1)),
            key,
            opened,
            loopback,
            established: false,
            refusal: None,
            tcp,
            streams: None,
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

    /// Refuses whatever comes of a flow from now on. It is told of as deleted.
    pub fn drop_flow(&mut self, slot: Slot, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) {
        self.tell_deleted(slot.0, DeleteReason::Dropped, now, tell);
        self.release(slot.0);
        self.flows[slot.0 as usize].refusal = Some(Refusal::Dropped);
    }

    /// Ends a connection: it is told of as deleted, and stays for late segments.
    pub fn end(&mut self, slot: Slot, reason: DeleteReason, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) {
        self.tell_deleted(slot.0, reason, now, tell);
        self.release(slot.0);
        self.set_lifetime(slot, Lifetime::Ended);
    }

    /// Deletes a flow.
    pub fn delete(&mut self, slot: Slot, reason: DeleteReason, now: Timestamp, tell: &mut dyn FnMut(FlowEvent)) {
        self.tell_deleted(slot.0, reason, now, tell);
        self.remove(slot.0);
    }

    /// A flow whose time has passed. The caller deletes it and asks again.
    #[inline]
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> Option<Slot> {
        Lifetime::ALL.into_iter().find_map(|lifetime| {
            let limit = lifetime.idle_time()?;
            let oldest = self.lists[lifetime as usize].oldest;
            let flow = self.flows.get(oldest as usize)?;
            (now.since(flow.last_packet) >= limit).then_some(Slot(oldest))
        })
    }

    /// The flows that were established and not deleted yet, in the order of opening.
    #[must_use]
    pub fn established(&self) -> Vec<Slot> {
        let mut slots: Vec<Slot> = self.index.iter().map(|&slot| Slot(slot)).collect();
        slots.retain(|&slot| self.flow(slot).is_established() && self.flow(slot).refusal().is_none());
        slots.sort_unstable_by_key(|&slot| self.flow(slot).id());
        slots
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

    /// Lets go of data that no receiver will get any more.
    fn release(&mut self, slot: u32) {
        if let Some(streams) = self.flows[slot as usize].streams.take() {
            self.waiting -= streams.waiting();
            self.streams.undelivered += streams.undelivered();
        }
    }

    fn remove(&mut self, slot: u32) {
        self.release(slot);
        self.unlink(slot);
        self.gone.push(self.flows[slot as usize].id);
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
        let &Flow { newer, older, lifetime, .. } = &self.flows[slot as usize];
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
mod tests;
