//! Packets to callouts in user space, and back into the stack.
//!
//! The programs take a packet out where a walk over the policy meets a callout that is registered (`crates/shims/src/divert.rs`),
//! and write it into a ring buffer with the suspended walk. Here the callout is asked, the walk is taken to its end by the same
//! engine over the same image, and what is permitted is injected: on an `ifb` device of our own, with a token that says where it
//! goes on. Layers that it has met are not met again; those that follow are, by the programs.
//!
//! - [`Divert`]: reads, asks, injects; to be served by one thread;
//! - [`Diverted`], [`Pended`], [`Injection`]: packets;
//! - [`Headers`]: where the headers of one stand.
//!
//! As long as nobody serves, or has not for a second, the callouts count as not registered: their filters block, or permit where
//! they say so. So it is when this process was killed.

mod callouts;
mod device;
mod enforce;
mod finish;
mod inject;
mod memory;
mod mend;
mod packet;
mod policies;

use crate::{
    events, interfaces,
    links::{self, Link},
};
pub use callouts::{Answer, Callouts, Fate};
pub(crate) use device::Device;
use finish::Walk;
pub use finish::{Asked, soft};
use inject::{BATCH, Injector, Outgoing, Payload};
pub(crate) use memory::{Entries, Ring};
use mend::Fitted;
pub use mend::Headers;
use openwfp_abi::divert::{ADDRESSED, DRY_RUN, Divert as Control, DivertRecord, FRAME, INBOUND, TOKENS, Token};
use openwfp_engine::{Action, CalloutAnswer};
use packet::{Bytes, FRAME_HEADER};
pub use packet::{Diverted, Injection, MOST_INJECTIONS, Offload, Pended, Place, Segments};
pub(crate) use policies::{Policies, Policy};
use std::{
    borrow::Cow,
    io, mem,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Packets that were read.
    pub read: u64,
    /// Records that were none.
    pub unreadable: u64,
    /// Packets that were sent on, or injected.
    pub sent: u64,
    /// Packets that the system did not take.
    pub refused: u64,
    /// Packets that were classified afresh, because another policy had come.
    pub afresh: u64,
    /// How often the serving thread went to sleep.
    pub sleeps: u64,
}

/// The way of packets to callouts and back. Made by [`Enforcement::divert`](crate::enforcement::Enforcement::divert).
pub struct Divert {
    ring: Ring,
    ring_descriptor: OwnedFd,
    control: Entries<Control>,
    injector: Injector,
    policies: Policies,
    links: Vec<Link>,
    links_at: Option<Instant>,
    /// When the batch was begun.
    now: Instant,
    namespace: u64,
    figures: Figures,
    /// How long is looked for packets before the thread sleeps.
    patience: Duration,
    active_at: Instant,
    beats_at: Instant,
    outgoing: Vec<Outgoing<'static>>,
    /// One reference more than packets wait.
    pended: Arc<()>,
}

/// Without packets for so long, the thread sleeps; unless told otherwise.
const PATIENCE: Duration = Duration::from_micros(50);
/// The thread says that it lives at least so often.
const BEAT: Duration = Duration::from_millis(200);
/// So many packets may wait for answers that come later. For more, callouts count as not registered.
pub const MOST_PENDED: usize = 16384;
/// Interfaces are looked at again after so long.
const LINKS: Duration = Duration::from_secs(1);

/// The maps, and what belongs to them.
pub(crate) struct Parts {
    pub ring: Ring,
    pub ring_descriptor: OwnedFd,
    pub room: u32,
    pub control: Entries<Control>,
    pub tokens: Entries<Token>,
    pub policies: Policies,
}

impl Divert {
    pub(crate) fn new(device: &Device, parts: Parts) -> io::Result<Self> {
        let (socket, cookie) = device.socket()?;
        let injector = Injector::new(device, socket, parts.tokens)?;
        let divert = Self {
            ring: parts.ring,
            ring_descriptor: parts.ring_descriptor,
            control: parts.control,
            injector,
            policies: parts.policies,
            links: vec![],
            links_at: None,
            now: Instant::now(),
            namespace: interfaces::namespace().map_err(io::Error::other)?,
            figures: Figures::default(),
            patience: PATIENCE,
            active_at: Instant::now(),
            beats_at: Instant::now(),
            outgoing: vec![],
            pended: Arc::new(()),
        };
        let control = divert.control.at(0);
        // SAFETY: within the mapping; the programs read single words.
        unsafe {
            (&raw mut (*control).injector).write_volatile(cookie);
            (&raw mut (*control).room).write_volatile(u64::from(parts.room));
        }
        divert.beat();
        Ok(divert)
    }

    /// How long packets are looked for before the thread sleeps: the longer, the sooner they are answered, and the more
    /// processor time is taken while there are none.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// What has happened so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// Says that this thread lives. [`serve`](Self::serve) does; whoever does not call it for a second has to.
    pub fn beat(&self) {
        let now = u64::try_from(events::monotonic().as_nanos()).unwrap_or(u64::MAX);
        self.say(|control| &raw mut control.beat, now);
    }

    fn say(&self, word: impl FnOnce(&mut Control) -> *mut u64, value: u64) {
        // SAFETY: within the mapping, aligned; the reference is used for the address alone.
        unsafe { AtomicU64::from_ptr(word(&mut *self.control.at(0))) }.store(value, Ordering::SeqCst);
    }

    /// Serves packets for so long. How many there were.
    pub fn serve(&mut self, callouts: &mut impl Callouts, time: Duration) -> io::Result<u64> {
        let before = self.figures.read;
        let end = Instant::now() + time;
        self.say(|control| &raw mut control.awake, 1);
        loop {
            let mut served = if callouts.is_ready() { self.batch(callouts)? } else { 0 };
            served += self.answers(callouts)?;
            let now = Instant::now();
            self.now = now;
            if now >= self.beats_at {
                self.beats_at = now + BEAT / 4;
                self.beat();
            }
            if served > 0 {
                self.active_at = now;
            }
            if now >= end {
                self.say(|control| &raw mut control.awake, 0);
                return Ok(self.figures.read - before);
            }
            if served > 0 || now < self.active_at + self.patience {
                std::hint::spin_loop();
                continue;
            }
            self.sleep(BEAT.min(end - now), callouts)?;
        }
    }

    /// Waits until a record comes. Whoever writes one from here on wakes.
    fn sleep(&mut self, longest: Duration, callouts: &mut impl Callouts) -> io::Result<()> {
        self.say(|control| &raw mut control.awake, 0);
        fence(Ordering::SeqCst);
        let ready = callouts.is_ready();
        if (!ready || self.ring.is_empty()) && callouts.sleeps() {
            self.figures.sleeps += 1;
            let waits = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let ring = ready.then_some(self.ring_descriptor.as_raw_fd());
            let others = callouts.descriptors();
            let mut all: Vec<libc::pollfd> =
                ring.into_iter().chain(others.iter().map(AsRawFd::as_raw_fd)).map(waits).collect();
            let milliseconds = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX).max(1);
            // SAFETY: as many structures of our own as are told.
            let waited = unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, milliseconds) };
            let error = io::Error::last_os_error();
            callouts.wakes();
            if waited < 0 && error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        self.say(|control| &raw mut control.awake, 1);
        Ok(())
    }

    /// Takes answers that came later, as many as one call sends.
    fn answers(&mut self, callouts: &mut impl Callouts) -> io::Result<usize> {
        let mut count = 0;
        while count < BATCH {
            let Some((packet, answer)) = callouts.answered() else { break };
            count += 1;
            let (mut packet, asked) = packet.attach();
            self.decide(&mut packet, callouts, Some((asked, answer)));
        }
        if count > 0 {
            self.flush()?;
        }
        Ok(count)
    }

    /// Reads records, as many as one call sends.
    fn batch(&mut self, callouts: &mut impl Callouts) -> io::Result<usize> {
        let mut count = 0;
        while count < BATCH {
            let Some(record) = self.ring.next() else { break };
            count += 1;
            // SAFETY: the ring is released below, when everything that refers to it was sent.
            let bytes: &'static [u8] = unsafe { record.bytes() };
            let Some((record, bytes)) = parse(bytes) else {
                self.figures.unreadable += 1;
                continue;
            };
            self.figures.read += 1;
            let walk = Walk::of_record(record);
            let (record, bytes) = (Cow::Borrowed(record), Bytes::Ring(bytes));
            self.decide(&mut Diverted { record, bytes, walk, changed: false, injections: vec![] }, callouts, None);
        }
        self.flush()?;
        if count > 0 {
            self.ring.release();
        }
        Ok(count)
    }

    /// Answers for a packet that was pended, and sends on what may go.
    pub fn complete(&mut self, packet: Pended, answer: CalloutAnswer, callouts: &mut impl Callouts) -> io::Result<()> {
        let (mut packet, asked) = packet.attach();
        self.decide(&mut packet, callouts, Some((asked, Answer::Say(answer))));
        self.flush()
    }

    /// Injects a packet from outside a classification.
    pub fn inject(&mut self, injection: Injection) -> io::Result<()> {
        self.queue_injection(injection);
        self.flush()
    }

    /// Takes the packet's classification to its end.
    fn decide(
        &mut self,
        packet: &mut Diverted<'static>,
        callouts: &mut impl Callouts,
        mut given: Option<(Asked, Answer)>,
    ) {
        let generation = packet.walk.generation;
        let verdict = loop {
            let Some(policy) = self.policy(packet) else { return };
            // an answer to another policy's question is none
            if policy.generation != generation && given.take().is_some() {
                packet.injections.clear();
            }
            let (asked, answer) = match given.take() {
                Some(given) => given,
                None => match packet.walk.walk(&policy) {
                    Ok(asked) => (asked, callouts.classify(packet, &asked)),
                    Err(verdict) => break verdict,
                },
            };
            match answer {
                // whether the policy still holds is looked at when the answer is there
                Answer::Say(_) | Answer::Unavailable if self.policies.of(packet.walk.generation).is_none() => {}
                Answer::Say(answer) => packet.walk.answer(&asked, answer),
                Answer::Unavailable => packet.walk.pass_over(&policy),
                Answer::Pend if Arc::strong_count(&self.pended) > MOST_PENDED => packet.walk.pass_over(&policy),
                Answer::Absorb => {
                    callouts.decided(packet, None, Fate::Absorbed);
                    mem::take(&mut packet.injections).into_iter().for_each(|one| self.queue_injection(one));
                    return;
                }
                Answer::Pend => {
                    mem::take(&mut packet.injections).into_iter().for_each(|one| self.queue_injection(one));
                    callouts.pended(packet.detach(asked, self.pended.clone()));
                    return;
                }
            }
        };
        let injections = mem::take(&mut packet.injections);
        let permitted = verdict.action == Action::Permit || packet.record.flags & DRY_RUN != 0;
        let fate = if permitted { self.queue(packet) } else { Fate::Blocked };
        callouts.decided(packet, Some(&verdict), fate);
        injections.into_iter().for_each(|one| self.queue_injection(one));
    }

    /// The policy by which a packet is decided: that of its walk, else the one that holds, afresh. `None`: there is none.
    fn policy(&mut self, packet: &mut Diverted<'_>) -> Option<Arc<Policy>> {
        if let Some(policy) = self.policies.of(packet.walk.generation) {
            return Some(policy);
        }
        let policy = self.policies.current()?;
        self.figures.afresh += 1;
        packet.walk.afresh(&policy, &packet.record);
        Some(policy)
    }

    /// Sends a packet on, behind the layer at which it was.
    fn queue(&mut self, packet: &mut Diverted<'static>) -> Fate {
        let record = packet.record.clone();
        let record = &*record;
        let Some(mut offload) = packet.offload() else { return Fate::Lost };
        let ip = packet.ip_offset();
        let bytes = match mem::replace(&mut packet.bytes, Bytes::Ring(&[])) {
            Bytes::Ring(bytes) => {
                // where fragments may have to be made of it, it is not sent as it stands
                let fits = bytes.len() <= self.longest(record) || offload.segments.is_some();
                packet.bytes = Bytes::Ring(bytes);
                if fits { Payload::Ring(bytes) } else { Payload::Own(bytes.to_vec()) }
            }
            Bytes::Own(mut bytes) => {
                if packet.changed
                    && let Some(ip) = ip
                    && mend::mend(&mut bytes, ip, &mut offload).is_none()
                {
                    return Fate::Lost;
                }
                Payload::Own(bytes)
            }
        };
        if self.put(record, bytes, offload, record.stage + 1, record.injector) { Fate::SentOn } else { Fate::Lost }
    }

    fn queue_injection(&mut self, injection: Injection) {
        let (mut record, mut bytes, stage, injector) = injection.parts();
        if record.compartment == 0 {
            record.compartment = self.namespace;
        }
        let mut offload = Offload::default();
        let ip = if record.flags & FRAME != 0 { FRAME_HEADER } else { 0 };
        let is_ip = record.protocol == 0x0800 || record.protocol == 0x86dd;
        if is_ip && mend::mend(&mut bytes, ip, &mut offload).is_none()
            || !self.put(&record, Payload::Own(bytes), offload, stage, injector)
        {
            self.figures.refused += 1;
        }
    }

    /// Queues a packet that goes on at a stage; whether it can.
    fn put(
        &mut self,
        record: &DivertRecord,
        payload: Payload<'static>,
        mut offload: Offload,
        stage: u16,
        injector: u32,
    ) -> bool {
        let mut token = Token {
            interface: record.interface,
            stage,
            flags: record.flags & (INBOUND | FRAME),
            mark: record.mark,
            priority: record.priority,
            injector,
            arrival: record.arrival,
            vlan: record.vlan,
            vlan_protocol: record.vlan_protocol,
            flow: record.flow,
            socket: record.socket,
            compartment: record.compartment,
            kept: record.kept,
            identity: record.identity,
            ..Token::default()
        };
        if record.flags & FRAME != 0 {
            let out = Outgoing { token, protocol: record.protocol, addresses: None, payload, offload };
            self.outgoing.push(out);
            return true;
        }
        let (own, hardware) = self.link(record.interface).map_or((0, 0), |link| (link.address, link.hardware));
        let longest = self.longest(record);
        if own == 0 && hardware != libc::ARPHRD_LOOPBACK {
            // no frames there: the kernel takes off what stands for their header
            token.flags |= ADDRESSED;
        }
        let inbound = record.flags & INBOUND != 0;
        let pieces = match payload {
            Payload::Ring(bytes) => return self.put_whole(record, token, own, Payload::Ring(bytes), offload),
            Payload::Own(mut bytes) => match mend::fit(&mut bytes, longest, &mut offload, inbound) {
                None => return false,
                Some(Fitted::Whole) => return self.put_whole(record, token, own, Payload::Own(bytes), offload),
                Some(Fitted::Pieces(pieces)) => pieces,
            },
        };
        pieces.into_iter().all(|piece| self.put_whole(record, token, own, Payload::Own(piece), Offload::default()))
    }

    fn put_whole(
        &mut self,
        record: &DivertRecord,
        token: Token,
        own: u64,
        payload: Payload<'static>,
        offload: Offload,
    ) -> bool {
        let destination = match &payload {
            Payload::Ring(bytes) => *bytes,
            Payload::Own(bytes) => bytes,
        };
        let destination = if record.protocol == 0x86dd { destination.get(24..40) } else { destination.get(16..20) };
        let Some(destination) = destination else { return false };
        let addresses = Some(inject::addresses(&token, record.kind, own, destination));
        self.outgoing.push(Outgoing { token, protocol: record.protocol, addresses, payload, offload });
        true
    }

    /// The longest packet that a device takes.
    fn longest(&mut self, record: &DivertRecord) -> usize {
        if record.flags & FRAME != 0 {
            return usize::MAX;
        }
        self.link(record.interface).map_or(0, |link| link.mtu) as usize
    }

    fn link(&mut self, index: u32) -> Option<&Link> {
        let old = self.links_at.is_none_or(|at| self.now.saturating_duration_since(at) > LINKS);
        if old || !self.links.iter().any(|link| link.index == index) {
            self.links_at = Some(self.now);
            if let Ok(links) = links::links() {
                self.links = links;
            }
        }
        // the one that is asked for is asked for again
        let at = self.links.iter().position(|link| link.index == index)?;
        self.links.swap(0, at);
        self.links.first()
    }

    /// Sends what was queued.
    fn flush(&mut self) -> io::Result<()> {
        let outgoing = mem::take(&mut self.outgoing);
        for batch in outgoing.chunks(BATCH) {
            let sent = self.injector.send(batch)?;
            self.figures.sent += sent.sent;
            self.figures.refused += sent.refused;
        }
        let mut empty = outgoing;
        empty.clear();
        self.outgoing = empty;
        Ok(())
    }
}

impl Drop for Divert {
    fn drop(&mut self) {
        // nobody is there from here on
        self.say(|control| &raw mut control.beat, 0);
        self.say(|control| &raw mut control.injector, 0);
    }
}

/// The record's header and the packet's bytes; `None`: the bytes are too few.
fn parse(bytes: &'static [u8]) -> Option<(&'static DivertRecord, &'static [u8])> {
    let (header, rest) = bytes.split_at_checked(size_of::<DivertRecord>())?;
    let place = header.as_ptr().cast::<DivertRecord>();
    if !place.is_aligned() {
        return None;
    }
    // SAFETY: as many bytes as the record has, which consists of integers alone, aligned.
    let record = unsafe { &*place };
    Some((record, rest.get(..record.length as usize)?))
}

const _: () = assert!(TOKENS.is_power_of_two());
