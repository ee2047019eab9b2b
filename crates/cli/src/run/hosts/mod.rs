//! The hosts of a run: who answers for the callouts of its policies.
//!
//! One thread reads the packets that the programs divert, asks hosts about them, and sends on what is permitted. It has
//! started the hosts, and they end with it. While nobody answers for a callout, it counts as not registered.

mod asked;
mod host;
mod process;

use anyhow::{Context, Result, anyhow};
use asked::{Histories, own_compartment, places, request};
use host::{Answered, BEGINS, Host};
use openwfp_abi::divert::DRY_RUN;
use openwfp_callout::{
    self as callout, CalloutAction, CalloutReport, Filter, FlowHandle, LayerData, PacketData, Question, Report,
    Timestamp,
    host::control::{ToHost, Wanted},
};
use openwfp_channel::{Action, Answer, AnswerFlags};
use openwfp_engine::CompiledPolicy;
use openwfp_kernel::divert::{self, Asked, Callouts, Divert, Diverted, Pended, soft};
use openwfp_model::{Action as PolicyAction, CalloutServer, Filter as PolicyFilter, Guid, LayerId, Policy};
use process::{NOBODY, Program};
use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Hosts are looked after this often.
const LOOK: Duration = Duration::from_millis(10);
/// So much waits to be told; what is more is lost.
const MOST_SAID: usize = 1024;
/// How many bytes wait for callouts in the kernel.
pub(crate) const ROOM: u32 = 1 << 24;

/// What hosts, and those who look after them, have to say.
pub(crate) enum Said {
    /// For people.
    Notice(String),
    /// For those who read the events.
    Report(Box<CalloutReport>),
}

impl Said {
    fn report(key: Guid, name: String, flow: Option<FlowHandle>, report: Report) -> Self {
        let time = Timestamp::from_nanoseconds(asked::now());
        Self::Report(Box::new(CalloutReport::new(key, name, flow, time, report)))
    }
}

/// The callouts of policies that hosts answer for: of each, what is wanted and what is started. Their order is that of their numbers
/// in the image.
#[derive(Clone, Default)]
pub(crate) struct Served(Vec<(Wanted, Program)>);

impl Served {
    /// Those of these policies that filters name at layers where hosts are asked.
    pub fn of(policies: &[Policy]) -> Self {
        let named = |key: Guid| {
            let mut filters = policies.iter().flat_map(|policy| &policy.filters);
            let names = |filter: &PolicyFilter| matches!(filter.action, PolicyAction::Callout { callout, .. } if callout == key);
            filters.any(|filter| names(filter) && is_asked_at(filter.layer))
        };
        let all = policies.iter().flat_map(|policy| &policy.callouts).filter_map(|callout| {
            if !named(callout.key) {
                return None;
            }
            let (uses, program) = match &callout.server {
                CalloutServer::Registered => return None,
                CalloutServer::BuiltIn(uses) => (Some(uses.clone()), Program { path: None, uid: NOBODY, gid: NOBODY }),
                CalloutServer::Host { path, user } => {
                    let uid = user.unwrap_or(NOBODY);
                    (None, Program { path: Some(path.into()), uid, gid: uid })
                }
            };
            let wanted = Wanted::new(callout.key, callout.name.clone(), uses, callout.settings.clone());
            Some((wanted, program))
        });
        Self(all.collect())
    }

    /// The keys, in the order of their numbers.
    pub fn keys(&self) -> Vec<Guid> {
        self.0.iter().map(|(wanted, _)| wanted.key).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A filter, and the number of the callout that it names.
pub(crate) type Named = (usize, Filter);

/// The filters of a compiled policy that name callouts which hosts answer for, with the policies that it was made of.
pub(crate) fn filters(served: &[Guid], compiled: &CompiledPolicy, policies: &[Policy]) -> Vec<Named> {
    let all = policies.iter().flat_map(|policy| policy.filters.iter().map(move |filter| (policy, filter)));
    // ids go up in the order in which filters stand
    let named = compiled.filters().iter().zip(all).filter_map(|(compiled, (policy, filter))| {
        let (key, filter) = callout::policy::filter_of(compiled.id, policy, filter)?;
        Some((served.iter().position(|served| *served == key)?, filter))
    });
    named.collect()
}

/// What the thread is told.
enum Order {
    Add(Vec<Named>),
    Remove(Vec<u64>),
    /// Flows have ended.
    Ended(Vec<u64>),
}

/// The thread that serves.
pub(crate) struct Serving {
    orders: Sender<Order>,
    pub said: Receiver<Said>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Serving {
    /// Starts the hosts and serves; returns when all of them are ready, or the first one is known not to be.
    pub fn start(served: &Served, filters: Vec<Named>, divert: Divert) -> Result<Self> {
        let (orders, ordered) = mpsc::channel();
        let (say, said) = mpsc::sync_channel(MOST_SAID);
        let (ready, is_ready) = mpsc::channel();
        let ends = Arc::new(AtomicBool::new(false));
        let ending = ends.clone();
        let served = served.clone();
        let thread = thread::Builder::new().name("callouts".to_owned()).spawn(move || {
            let mut hosts = Hosts::new(served, filters, ordered, say);
            let begun = hosts.begin();
            let goes = begun.is_ok();
            let _ = ready.send(begun);
            if goes { hosts.serve(divert, &ending) } else { Ok(()) }
        });
        let thread = thread.context("cannot start a thread for callouts")?;
        let serving = Self { orders, said, ends, thread: Some(thread) };
        is_ready.recv().unwrap_or_else(|_| Err(anyhow!("the thread for callouts has ended")))?;
        Ok(serving)
    }

    /// Filters that come with another policy; to be told before that holds.
    pub fn add(&self, filters: Vec<Named>) {
        let _ = self.orders.send(Order::Add(filters));
    }

    /// Filters that are gone; to be told after another policy holds.
    pub fn remove(&self, filters: Vec<u64>) {
        let _ = self.orders.send(Order::Remove(filters));
    }

    /// Flows that have ended.
    pub fn ended(&self, flows: Vec<u64>) {
        let _ = self.orders.send(Order::Ended(flows));
    }

    /// Why the thread has ended by itself, if it has.
    pub fn failed(&mut self) -> Option<anyhow::Error> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        match thread.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(anyhow!("the thread for callouts has panicked")),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The hosts, as the divert path asks them.
struct Hosts {
    hosts: Vec<Host>,
    orders: Receiver<Order>,
    say: SyncSender<Said>,
    histories: Histories,
    /// Packets that are answered.
    answered: VecDeque<(Pended, divert::Answer)>,
    number: u64,
    looked: Instant,
    message: Vec<u8>,
    compartment: u64,
}

impl Hosts {
    fn new(served: Served, filters: Vec<Named>, orders: Receiver<Order>, say: SyncSender<Said>) -> Self {
        let hosts = served.0.into_iter().enumerate().map(|(number, (wanted, program))| {
            let own = filters.iter().filter(|(of, _)| *of == number);
            let own: BTreeMap<u64, Filter> = own.map(|(_, filter)| (filter.id, filter.clone())).collect();
            Host::new(wanted, program, own)
        });
        Self {
            hosts: hosts.collect(),
            orders,
            say,
            histories: Histories::default(),
            answered: VecDeque::new(),
            number: 0,
            looked: Instant::now(),
            message: vec![],
            compartment: own_compartment(),
        }
    }

    /// Starts all hosts and waits until they are ready.
    fn begin(&mut self) -> Result<()> {
        let begun = Instant::now();
        let of = |host: &Host| format!("callout {}", host.name);
        for host in &mut self.hosts {
            host.start(begun).with_context(|| of(host))?;
        }
        let say = &self.say;
        loop {
            for host in &mut self.hosts {
                let looked = host.look(Instant::now(), &mut |said| say.try_send(said).is_ok());
                looked.map_err(|why| anyhow!("{}: its host cannot be had: {why}", of(host)))?;
            }
            if self.hosts.iter().all(Host::is_ready) {
                return Ok(());
            }
            if begun.elapsed() > 2 * BEGINS {
                return Err(anyhow!("the hosts of callouts do not begin"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn serve(mut self, mut divert: Divert, ends: &AtomicBool) -> Result<()> {
        while !ends.load(Ordering::Relaxed) {
            divert.serve(&mut self, Duration::from_millis(50)).context("packets for callouts cannot be served")?;
        }
        Ok(())
    }

    fn obey(&mut self) {
        for order in self.orders.try_iter() {
            match order {
                Order::Add(filters) => {
                    for (number, filter) in filters {
                        let Some(host) = self.hosts.get_mut(number) else { continue };
                        host.say(&ToHost::Filter(filter.clone()));
                        host.filters.insert(filter.id, filter);
                    }
                }
                Order::Ended(flows) => {
                    for host in &mut self.hosts {
                        flows.iter().for_each(|flow| host.say(&ToHost::FlowEnded(FlowHandle::new(*flow))));
                    }
                }
                Order::Remove(ids) => {
                    for host in &mut self.hosts {
                        for id in &ids {
                            if host.filters.remove(id).is_some() {
                                host.say(&ToHost::FilterDeleted(*id));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Does what there is to do with one host.
    fn attend(&mut self, at: usize, now: Instant, look: bool) {
        let Self { hosts, histories, number, message, compartment, answered, say, .. } = self;
        let host = &mut hosts[at];
        let mut say = |said| say.try_send(said).is_ok();
        let callout = at as u32 + 1;
        let mut attended = || -> Result<(), String> {
            while let Some(said) = host.answer(message)? {
                answered.push_back(decided(host, said, callout, histories));
            }
            // after what was answered: this process may have been stopped meanwhile
            if look {
                host.look(now, &mut say)?;
                while let Some(said) = host.expired(now) {
                    answered.push_back(decided(host, said, callout, histories));
                }
            }
            let mut encode = |packet: &Diverted<'_>, asked: &Asked, number| {
                let injectors = histories.for_host(packet.injector(), callout);
                request(packet, asked, number, injectors, *compartment)
            };
            host.pump(number, &mut encode)
        };
        if let Err(why) = attended() {
            host.give_up(&why, now, &mut say);
        }
        let given_up = mem::take(&mut host.given_up);
        answered.extend(given_up.into_iter().map(|packet| (packet, divert::Answer::Unavailable)));
    }
}

/// What becomes of a packet by what its host has said.
fn decided(
    host: &Host,
    (packet, answer, bytes): Answered,
    callout: u32,
    histories: &mut Histories,
) -> (Pended, divert::Answer) {
    let told = settled(host, &packet, answer, bytes);
    taken(packet, told, callout, histories)
}

/// What counts of an answer, whatever the host wrote; none: nobody answers for the callout.
fn settled(host: &Host, packet: &Pended, answer: Answer, bytes: Option<Vec<u8>>) -> Option<callout::Answer> {
    let filter = host.filters.get(&packet.asked.filter)?;
    let mut said = match answer.action {
        Action::Unavailable | Action::Later => return None,
        Action::Permit => callout::Answer::permit(),
        Action::Block => callout::Answer::block(),
        Action::Continue => callout::Answer::continue_(),
    };
    said.clear_action_right = answer.flags.has(AnswerFlags::CLEAR_RIGHT);
    said.absorb = answer.flags.has(AnswerFlags::ABSORB);
    said.packet = bytes;
    let shown = packet.packet();
    let (transport, payload) = places(&shown);
    let question = Question {
        kind: filter.kind,
        right: !packet.asked.so_far.is_hard(),
        data: LayerData::Packet(PacketData::new(shown.bytes(), transport, payload)),
        frame: shown.has_frame(),
        discard: false,
        redirect: None,
    };
    Some(said.settle(&question).0)
}

/// What becomes of a packet by an answer that counts.
fn taken(
    mut packet: Pended,
    answer: Option<callout::Answer>,
    callout: u32,
    histories: &mut Histories,
) -> (Pended, divert::Answer) {
    let Some(answer) = answer else { return (packet, divert::Answer::Unavailable) };
    let dry = packet.record().flags & DRY_RUN != 0;
    if !answer.absorb {
        return (packet, divert::Answer::Say(answer.arbitrated()));
    }
    if dry {
        // what would have been absorbed goes on
        return (packet, divert::Answer::Say(soft(CalloutAction::Block)));
    }
    if let Some(bytes) = answer.packet
        && let Some(injector) = histories.with(packet.record().injector, callout)
    {
        let injection = packet.replaced(bytes, injector);
        packet.inject(injection);
    }
    (packet, divert::Answer::Absorb)
}

impl Callouts for Hosts {
    fn classify(&mut self, _: &mut Diverted<'_>, asked: &Asked) -> divert::Answer {
        let known = |hosts: &[Host]| {
            let host = hosts.get(asked.callout as usize)?;
            host.filters.contains_key(&asked.filter).then(|| host.is_ready())
        };
        let mut ready = known(&self.hosts);
        if ready.is_none() {
            // it came with a policy that holds since a moment
            self.obey();
            ready = known(&self.hosts);
        }
        if ready == Some(true) { divert::Answer::Pend } else { divert::Answer::Unavailable }
    }

    fn pended(&mut self, packet: Pended) {
        if let Some(host) = self.hosts.get_mut(packet.asked.callout as usize) {
            host.ask(packet, Instant::now());
        }
    }

    fn is_ready(&self) -> bool {
        !self.hosts.iter().any(Host::is_full)
    }

    fn answered(&mut self) -> Option<(Pended, divert::Answer)> {
        if let Some(answered) = self.answered.pop_front() {
            return Some(answered);
        }
        let now = Instant::now();
        let look = now.saturating_duration_since(self.looked) > LOOK;
        if look {
            self.looked = now;
            self.obey();
        }
        for at in 0..self.hosts.len() {
            self.attend(at, now, look);
        }
        self.answered.pop_front()
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let channels = self.hosts.iter().filter_map(Host::channel);
        channels.flat_map(|channel| [channel.ear.as_fd(), channel.control.as_fd()]).collect()
    }

    fn sleeps(&mut self) -> bool {
        let asleep = self.hosts.iter().filter_map(Host::channel).all(|channel| channel.answers.begin_sleep());
        if !asleep {
            self.wakes();
        }
        asleep && self.answered.is_empty()
    }

    fn wakes(&mut self) {
        for channel in self.hosts.iter().filter_map(Host::channel) {
            channel.answers.end_sleep();
            let _ = channel.ear.silence();
        }
        // what has become readable may be more than answers
        self.looked -= LOOK;
    }
}

/// The layers of packets at which hosts are asked in a run.
pub(crate) fn is_asked_at(layer: LayerId) -> bool {
    const FAMILIES: [&str; 7] = [
        "INBOUND_IPPACKET",
        "OUTBOUND_IPPACKET",
        "INBOUND_TRANSPORT",
        "OUTBOUND_TRANSPORT",
        "INBOUND_ICMP_ERROR",
        "DATAGRAM_DATA",
        "STREAM_PACKET",
    ];
    FAMILIES.contains(&crate::findings::family(layer))
}
