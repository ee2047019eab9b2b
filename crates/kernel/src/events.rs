//! Events: what the programs decided, from the ring buffer to typed records.

use crate::{
    drops::Reasons,
    group::Paths,
    labels::Labels,
    load::LoadError,
    merge::{Merge, Positions},
    mounts,
};
use aya::maps::{Map, MapData, MapError, PerCpuArray, RingBuf};
use openwfp_abi::{
    event::{ENFORCED, EventRecord, FAIL_SOCKET, SHOWN, kind},
    file::FileKey,
    identity::Identity,
    label::{Label, LabelState},
};
use openwfp_engine::{EMPTY, Reason, UNKNOWN, Values, words};
use openwfp_model::LayerId;
use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A classification.
    Classify,
    /// Flows have ended.
    FlowsDeleted {
        /// Their ids.
        flows: Vec<u64>,
        /// Why.
        cause: EndOfFlow,
    },
}

/// Why a flow has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfFlow {
    /// Its connection or its socket is closed.
    Closed,
    /// It was not used for too long.
    Idle,
    /// It was authorized again, since the policy or the interfaces have changed, and refused; or refused when it was
    /// established.
    Refused,
    /// It was forgotten to make room for others.
    Evicted,
}

impl EndOfFlow {
    /// The word for it in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Refused => "refused",
            Self::Evicted => "evicted",
        }
    }
}

/// One classification, or the end of flows.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it is about. The end of a flow has no layer, outcome or filter that would mean anything.
    pub kind: EventKind,
    /// When it was made.
    pub time: SystemTime,
    /// The CPU.
    pub cpu: u16,
    /// The event's number among those of that CPU; `None` for what was not told by the programs.
    pub sequence: Option<u64>,
    /// The layer.
    pub layer: LayerId,
    /// Whether it was blocked, or would have been.
    pub blocked: bool,
    /// Whether a block was carried out; false in a dry run.
    pub enforced: bool,
    /// Why, where the filter's action does not say it.
    pub reason: Reason,
    /// Why the kernel had dropped the packet by itself before it was asked about: the name of its `enum skb_drop_reason` without the
    /// beginning that all have in common, as its tracepoint `skb:kfree_skb` shows it. `None`: it had not.
    pub dropped: Option<Arc<str>>,
    /// The filter that decided; 0: none.
    pub filter: u64,
    /// The flow; 0: none.
    pub flow: u64,
    /// The socket's cookie.
    pub socket: u64,
    /// The generation of the image that decided.
    pub generation: u64,
    /// Who acts, or owns the endpoint. All zero when that is not known.
    pub identity: Identity,
    /// The program that it runs, as a path that this process sees, or a word about why there is none.
    pub program: Arc<str>,
    /// The path of its control group from the root of the hierarchy; `None` when that is not known, or gone by now.
    pub cgroup: Option<Arc<str>>,
    /// The incoming values.
    pub values: Values,
    /// Whether the layer is recorded. Other events come only because somebody has to act on them.
    pub shown: bool,
    /// A socket that waits for what has been refused, and has to be told.
    pub fail_socket: bool,
}

/// How many paths are remembered.
const PATHS_KEPT: usize = 4096;

/// The ring buffer and what is needed to read it.
pub(crate) struct Events {
    ring: RingBuf<MapData>,
    sequence: PerCpuArray<MapData, u64>,
    reasons: Reasons,
    programs: HashMap<(FileKey, LabelState), Arc<str>>,
    /// Paths of control groups by id. Ids are not given out again.
    cgroups: HashMap<u64, Option<Arc<str>>>,
    paths: Option<Paths>,
    /// How many events were read.
    read: u64,
    /// What stood in the sequence map at the beginning.
    before: u64,
    /// Records that are no events of this version.
    unreadable: u64,
    positions: Positions,
    merge: Merge<Event>,
    /// What has to be added to the monotonic clock for the time since 1970.
    boot: Duration,
}

impl Events {
    pub(crate) fn new(ring: Map, sequence: Map, reasons: Reasons) -> Result<Self, LoadError> {
        let failed = |name| move |source: MapError| LoadError::Map { name, source: Box::new(source) };
        let ring = ring.try_into().map_err(failed("EVENTS"))?;
        let positions = Positions::of(&ring)
            .map_err(|source| LoadError::System { what: "cannot map the positions of the events", source })?;
        let mut events = Self {
            ring,
            positions,
            merge: Merge::default(),
            boot: clock_difference(),
            sequence: sequence.try_into().map_err(failed("SEQUENCE"))?,
            reasons,
            programs: HashMap::new(),
            cgroups: HashMap::new(),
            paths: Paths::open(),
            read: 0,
            before: 0,
            unreadable: 0,
        };
        events.before = events.made();
        Ok(events)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring buffer's and lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// How many events each CPU has made.
    pub(crate) fn made_by_cpu(&self) -> Vec<u64> {
        self.sequence.get(&0, 0).map_or_else(|_| Vec::new(), |of_cpus| of_cpus.iter().copied().collect())
    }

    /// How many events the programs have made.
    fn made(&self) -> u64 {
        self.sequence.get(&0, 0).map_or(0, |of_cpus| of_cpus.iter().sum())
    }

    /// How many events found no room in the ring buffer. Exact when no event is under way.
    pub(crate) fn lost(&self) -> u64 {
        self.made().saturating_sub(self.before + self.read + self.unreadable)
    }

    /// Reads what there is; `fresh` is shown each event at once. They are [`told`](Self::told) in the order of time.
    pub(crate) fn read(&mut self, labels: &Labels, mut fresh: impl FnMut(&mut Event)) {
        self.boot = kept_unless_set(self.boot, clock_difference());
        self.merge.look(monotonic(), self.positions.written());
        let mut records = vec![];
        while let Some(item) = self.ring.next() {
            match record(&item) {
                Some(record) => records.push(record),
                None => self.unreadable += 1,
            }
            // more is read the next time: the memory that this takes has a bound
            if records.len() == 1 << 16 {
                break;
            }
        }
        self.merge.look(monotonic(), self.positions.written());
        for record in records {
            let Some(mut event) = self.event(&record, labels) else {
                self.unreadable += 1;
                continue;
            };
            self.read += 1;
            fresh(&mut event);
            self.merge.add((Duration::from_nanos(record.time), record.cpu, record.sequence), event);
        }
    }

    /// What was read, and nothing can come any more that was made before.
    pub(crate) fn told(&mut self) -> Vec<Event> {
        self.merge.told(self.positions.read())
    }

    /// What was read and is not told yet, whatever may come.
    pub(crate) fn rest(&mut self) -> Vec<Event> {
        self.merge.rest()
    }

    /// Everything until this time has been told, and nothing later.
    pub(crate) fn complete(&self) -> SystemTime {
        UNIX_EPOCH + self.boot + self.merge.complete()
    }

    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn event(&mut self, record: &EventRecord, labels: &Labels) -> Option<Event> {
        let mut values = Values::new();
        for (word, &value) in record.values.iter().enumerate() {
            match value {
                EMPTY => values.set_empty(word),
                UNKNOWN => values.set_unknown(word),
                value => values.set(word, u32::try_from(value).ok()?),
            }
        }
        let kind = match record.kind {
            kind::CLASSIFY => EventKind::Classify,
            kind::FLOW_DELETED => EventKind::FlowsDeleted { flows: vec![record.flow], cause: EndOfFlow::Closed },
            kind::REFUSED_FLOW_DELETED => {
                EventKind::FlowsDeleted { flows: vec![record.flow], cause: EndOfFlow::Refused }
            }
            // which flows it had is known to the table of flows
            kind::SOCKET_CLOSED => EventKind::FlowsDeleted { flows: vec![], cause: EndOfFlow::Closed },
            _ => return None,
        };
        Some(Event {
            kind,
            time: UNIX_EPOCH + self.boot + Duration::from_nanos(record.time),
            cpu: record.cpu,
            sequence: Some(record.sequence),
            layer: LayerId::new(record.layer)?,
            blocked: record.action != 0,
            enforced: record.flags & ENFORCED != 0,
            reason: Reason::from_number(record.reason)?,
            dropped: self.reasons.name(record.drop),
            filter: record.filter,
            flow: record.flow,
            socket: record.socket,
            generation: record.generation,
            identity: record.identity,
            program: self.program(&record.identity.label, labels),
            cgroup: self.cgroup(record.identity.cgroup),
            values,
            shown: record.flags & SHOWN != 0,
            fail_socket: record.flags & FAIL_SOCKET != 0,
        })
    }

    fn cgroup(&mut self, id: u64) -> Option<Arc<str>> {
        if let Some(found) = self.cgroups.get(&id) {
            return found.clone();
        }
        let found: Option<Arc<str>> = self.paths.as_ref()?.of(id).map(Arc::from);
        if self.cgroups.len() >= PATHS_KEPT {
            self.cgroups.clear();
        }
        self.cgroups.insert(id, found.clone());
        found
    }

    fn program(&mut self, label: &Label, labels: &Labels) -> Arc<str> {
        let key = (label.file(), label.state);
        if let Some(program) = self.programs.get(&key) {
            return program.clone();
        }
        let mounts = mounts::read().unwrap_or_default();
        let program: Arc<str> = labels.describe(label, &mounts).into();
        if self.programs.len() >= PATHS_KEPT {
            self.programs.clear();
        }
        if !label.state.is_known() || labels.inner_path(&label.file()).is_some() {
            self.programs.insert(key, program.clone());
        }
        program
    }
}

/// The bytes of the ring buffer as a record.
fn record(bytes: &[u8]) -> Option<EventRecord> {
    if bytes.len() < size_of::<EventRecord>() {
        return None;
    }
    // SAFETY: as many bytes as the record has, which is made of integers alone; they need not be aligned.
    Some(unsafe { bytes.as_ptr().cast::<EventRecord>().read_unaligned() })
}

/// What has to be added to the monotonic clock for the time since 1970, as nearly as a few looks at both say.
fn clock_difference() -> Duration {
    let look = || {
        let before = monotonic();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let took = monotonic().saturating_sub(before);
        (took, since.saturating_sub(before + took / 2))
    };
    (0..4).map(|_| look()).min().unwrap_or_default().1
}

/// Looks differ by what comes between them, which would set events of one look before those of the look before. The difference
/// itself changes when somebody sets the clock.
fn kept_unless_set(before: Duration, now: Duration) -> Duration {
    if before.abs_diff(now) < Duration::from_millis(1) { before } else { now }
}

/// The monotonic clock.
pub(crate) fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the function writes to our own structure.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

impl Event {
    /// That flows have ended which nobody told about, at this time, in the place of an event that was told or by themselves.
    pub(crate) fn flows_deleted(flows: Vec<u64>, cause: EndOfFlow, time: SystemTime, like: Option<&Self>) -> Self {
        Self {
            kind: EventKind::FlowsDeleted { flows, cause },
            time,
            cpu: like.map_or(0, |event| event.cpu),
            sequence: None,
            layer: LayerId::ALE_FLOW_ESTABLISHED_V4,
            blocked: false,
            enforced: true,
            reason: Reason::None,
            dropped: None,
            filter: 0,
            flow: 0,
            socket: like.map_or(0, |event| event.socket),
            generation: like.map_or(0, |event| event.generation),
            identity: like.map_or_else(Identity::default, |event| event.identity),
            program: like.map_or_else(|| Arc::from(""), |event| event.program.clone()),
            cgroup: like.and_then(|event| event.cgroup.clone()),
            values: Values::new(),
            shown: true,
            fail_socket: false,
        }
    }

    /// Whether this is the outcome of a reauthorization.
    pub(crate) fn reauthorizes(&self) -> bool {
        // FWP_CONDITION_FLAG_IS_REAUTHORIZE
        let flags = self.values.get(words::FLAGS);
        self.kind == EventKind::Classify && flags <= u64::from(u32::MAX) && flags & 4 != 0
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_the_clocks_holds_until_one_is_set() {
        let (hour, tick) = (Duration::from_secs(3600), Duration::from_nanos(40));
        assert_eq!(kept_unless_set(hour, hour + tick), hour);
        assert_eq!(kept_unless_set(hour, hour - tick), hour);
        assert_eq!(kept_unless_set(hour, Duration::ZERO), Duration::ZERO);
        assert!(clock_difference().abs_diff(clock_difference()) < Duration::from_millis(100));
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        assert!(record(&[0; 8]).is_none());
        assert!(record(&vec![0; size_of::<EventRecord>()]).is_some());
    }
}
