//! One callout and its host: started, asked, given up, and started again.

use super::{
    Said,
    process::{Process, Program},
};
use anyhow::Result;
use openwfp_callout::{
    Filter, Report,
    host::control::{FromHost, ToHost, Wanted},
};
use openwfp_channel::{Action, Answer, AnswerFlags, MOST_PENDED, Received, Request};
use openwfp_kernel::divert::{Asked, Diverted, Pended};
use openwfp_model::{CalloutKind, Data, Guid};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// A host gets so long to begin.
pub(super) const BEGINS: Duration = Duration::from_secs(5);
/// A host whose heart has not beaten for so long, or that has not answered a question, hangs.
const HANGS: Duration = Duration::from_secs(2);
/// No pended packet waits longer, whatever its callout says.
const LONGEST_PEND: Duration = Duration::from_secs(60);
/// The packets that a callout has pended have no more bytes together.
const PENDED_BYTES: usize = 16 << 20;
/// The first time that is waited before a host is started again, and the longest: each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// After so long without failing, waiting begins anew.
const GOOD: Duration = Duration::from_secs(60);
/// So much waits to be said to a host, before it is told of no more flows that end.
const MOST_SAID: usize = 4096;
/// So many reports of a host are taken in a second; the others are lost.
const MOST_REPORTS: u32 = 10_000;
/// A longer report is lost, in bytes of JSON.
const LONGEST_REPORT: usize = 16 << 10;
/// So many packets of the control socket are taken at once.
const MOST_HEARD: usize = 256;

/// A packet that waits for its answer, or to be asked about.
struct Waiting {
    packet: Pended,
    since: Instant,
}

/// A packet, the answer about it, and the packet that goes on in its place.
pub(super) type Answered = (Pended, Answer, Option<Vec<u8>>);

/// A callout of a policy.
pub(super) struct Host {
    pub key: Guid,
    pub name: String,
    wanted: Wanted,
    program: Program,
    /// The filters that name it.
    pub filters: BTreeMap<u64, Filter>,
    running: Option<Running>,
    /// When it is started again.
    again: Instant,
    wait: Duration,
    /// Packets that were waiting when the host was given up.
    pub given_up: VecDeque<Pended>,
}

struct Running {
    process: Process,
    started: Instant,
    ready: bool,
    /// What the heartbeat was, and since when.
    beat: (u64, Instant),
    /// Questions that were asked, by number.
    asked: BTreeMap<u64, Waiting>,
    /// Questions that are pended, by number. Without a packet: what became of it is decided, the answer still to come does not count.
    pended: BTreeMap<u64, Option<Waiting>>,
    pended_bytes: usize,
    /// Packets for which there was no room.
    backlog: VecDeque<Waiting>,
    /// What is to be said and found no room.
    to_say: VecDeque<Vec<u8>>,
    /// How many reports were taken, since when, and how many were lost.
    reports: (u32, Instant),
    reports_lost: u64,
}

/// Takes what is to be told; false: there is no room.
pub(super) type Say<'a> = dyn FnMut(Said) -> bool + 'a;

/// What is made of a packet for a host.
pub(super) type Encode<'a> = dyn FnMut(&Diverted<'_>, &Asked, u64) -> Request + 'a;

impl Host {
    pub fn new(wanted: Wanted, program: Program, filters: BTreeMap<u64, Filter>) -> Self {
        let (key, name) = (wanted.key, wanted.name.clone());
        let (again, wait) = (Instant::now(), FIRST_WAIT);
        Self { key, name, wanted, program, filters, running: None, again, wait, given_up: VecDeque::new() }
    }

    /// Starts it.
    pub fn start(&mut self, now: Instant) -> Result<()> {
        let process = Process::start(&self.program)?;
        let mut to_say: VecDeque<Vec<u8>> = [ToHost::Callout(self.wanted.clone()).encode()].into();
        to_say.extend(self.filters.values().map(|filter| ToHost::Filter(filter.clone()).encode()));
        to_say.push_back(ToHost::Start.encode());
        let beat = (process.channel.beat(), now);
        self.running = Some(Running {
            process,
            started: now,
            ready: false,
            beat,
            asked: BTreeMap::new(),
            pended: BTreeMap::new(),
            pended_bytes: 0,
            backlog: VecDeque::new(),
            to_say,
            reports: (0, now),
            reports_lost: 0,
        });
        Ok(())
    }

    /// Whether it answers.
    pub fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.ready)
    }

    /// Whether packets wait because there was no room to ask about them.
    pub fn is_full(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.backlog.is_empty())
    }

    pub fn channel(&self) -> Option<&openwfp_channel::Wfp> {
        self.running.as_ref().map(|running| &running.process.channel)
    }

    /// Asks about a packet, as soon as there is room.
    pub fn ask(&mut self, packet: Pended, now: Instant) {
        match &mut self.running {
            Some(running) if running.ready => running.backlog.push_back(Waiting { packet, since: now }),
            _ => self.given_up.push_back(packet),
        }
    }

    /// Says something, now or as soon as there is room.
    pub fn say(&mut self, said: &ToHost) {
        // what a host that does not listen is not told of flows, it finds out when nothing is shown of them any more
        let room = |running: &Running| running.to_say.len() < MOST_SAID || !matches!(said, ToHost::FlowEnded(_));
        if let Some(running) = self.running.as_mut().filter(|running| room(running)) {
            running.to_say.push_back(said.encode());
        }
    }

    /// Asks about the packets that wait for room, and wakes the host if it sleeps.
    pub fn pump(&mut self, number: &mut u64, encode: &mut Encode<'_>) -> Result<(), String> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let requests = &mut running.process.channel.requests;
        let mut wrote = false;
        while let Some(waiting) = running.backlog.front() {
            if requests.room().map_err(garbage)? == 0 {
                break;
            }
            *number += 1;
            let packet = waiting.packet.packet();
            let bytes = packet.bytes();
            let header = encode(&packet, &waiting.packet.asked, *number).encode(bytes.len());
            let longest = requests.longest();
            if header.len() + bytes.len() > longest || !requests.push(&[&header, bytes]).map_err(garbage)? {
                drop(packet);
                // it cannot be shown: as if nobody was there
                self.given_up.extend(running.backlog.pop_front().map(|waiting| waiting.packet));
                continue;
            }
            drop(packet);
            wrote = true;
            if let Some(waiting) = running.backlog.pop_front() {
                running.asked.insert(*number, waiting);
            }
        }
        if wrote && running.process.channel.requests.reader_sleeps() {
            running.process.channel.bell.ring().map_err(garbage)?;
        }
        Ok(())
    }

    /// The next answer, with the packet that it is about and the one that goes on in its place.
    pub fn answer(&mut self, message: &mut Vec<u8>) -> Result<Option<Answered>, String> {
        let Some(running) = &mut self.running else { return Ok(None) };
        while running.process.channel.answers.pop(message).map_err(garbage)? {
            let (answer, packet) = Answer::decode(message).map_err(garbage)?;
            let asked = running.asked.remove(&answer.number);
            let waiting = match asked {
                Some(waiting) if answer.action == Action::Later => {
                    let inspects = self.filters.get(&waiting.packet.asked.filter).is_none_or(is_inspection);
                    match running.pend(waiting, answer, inspects)? {
                        Some(decided) => return Ok(Some(decided)),
                        None => continue,
                    }
                }
                Some(waiting) => waiting,
                None => match running.pended.remove(&answer.number) {
                    Some(Some(waiting)) if answer.action != Action::Later => {
                        running.pended_bytes -= waiting.bytes();
                        waiting
                    }
                    // too late
                    Some(None) if answer.action != Action::Later => continue,
                    _ => return Err("it answers what it was not asked".to_owned()),
                },
            };
            return Ok(Some((waiting.packet, answer, packet.map(<[u8]>::to_vec))));
        }
        Ok(None)
    }

    /// The next packet that has been pended for too long.
    pub fn expired(&mut self, now: Instant) -> Option<Answered> {
        let running = self.running.as_mut()?;
        // they were asked about in the order of their numbers
        let (number, oldest) = running.pended.iter_mut().find(|(_, waiting)| waiting.is_some())?;
        let waiting = oldest.take_if(|waiting| now.saturating_duration_since(waiting.since) > LONGEST_PEND)?;
        running.pended_bytes -= waiting.bytes();
        Some((waiting.packet, closed(*number), None))
    }

    /// Looks after it: what it says, whether it lives, whether it is to be started again. An error: it is to be given up.
    pub fn look(&mut self, now: Instant, said: &mut Say<'_>) -> Result<(), String> {
        let (key, name) = (self.key, self.name.clone());
        let Some(running) = &mut self.running else {
            if now >= self.again {
                return self.start(now).map_err(|error| format!("{error:#}"));
            }
            return Ok(());
        };
        let control = &running.process.channel.control;
        while let Some(packet) = running.to_say.front() {
            if !control.send(packet).map_err(|error| format!("it cannot be told: {error}"))? {
                break;
            }
            running.to_say.pop_front();
        }
        // not all that there are: it may send without end
        for _ in 0..MOST_HEARD {
            let received = running.process.channel.control.receive().map_err(garbage)?;
            let length = if let Received::Packet(packet) = &received { packet.len() } else { 0 };
            match received {
                Received::Packet(packet) => match FromHost::decode(&packet).map_err(garbage)? {
                    FromHost::Ready if !running.ready => {
                        (running.ready, running.beat.1) = (true, now);
                        let process = Data::Integer(i64::from(running.process.id()));
                        let entries = [("host", Data::Text("ready".to_owned())), ("pid", process)];
                        said(Said::report(key, name.clone(), None, Report::entries(entries)));
                    }
                    FromHost::Refused(why) => return Err(format!("it refuses: {why}")),
                    FromHost::Failed => return Err("it has panicked".to_owned()),
                    FromHost::FilterRefused(id, why) => {
                        said(Said::Notice(format!(
                            "callout {name}: the filter with the id {id} is refused, so it counts as unregistered there: {why}"
                        )));
                    }
                    FromHost::Report(flow, _, report) => {
                        if now.saturating_duration_since(running.reports.1) > Duration::from_secs(1) {
                            running.reports = (0, now);
                        }
                        running.reports.0 += 1;
                        let taken = running.reports.0 <= MOST_REPORTS
                            && length <= LONGEST_REPORT
                            && said(Said::report(key, name.clone(), flow, report));
                        running.reports_lost += u64::from(!taken);
                    }
                    _ => return Err("it says what makes no sense".to_owned()),
                },
                Received::Nothing => break,
                Received::Closed => {
                    // it may be about to end
                    let ended = running.process.ended();
                    return Err(ended.unwrap_or_else(|| "it has closed its channel".to_owned()));
                }
            }
        }
        if let Some(why) = running.process.ended() {
            return Err(why);
        }
        let beat = running.process.channel.beat();
        if beat != running.beat.0 {
            running.beat = (beat, now);
        }
        if !running.ready {
            let late = now.saturating_duration_since(running.started) > BEGINS;
            return if late { Err("it does not begin".to_owned()) } else { Ok(()) };
        }
        let oldest = running.asked.first_key_value().map(|(_, waiting)| waiting.since);
        let oldest = oldest.or(running.backlog.front().map(|waiting| waiting.since));
        if oldest.is_some_and(|since| now.saturating_duration_since(since) > HANGS) {
            return Err("it does not answer".to_owned());
        }
        if now.saturating_duration_since(running.beat.1) > HANGS {
            return Err("it hangs".to_owned());
        }
        Ok(())
    }

    /// Gives the host up, and says so: it counts as unregistered until another one is there.
    pub fn give_up(&mut self, why: &str, now: Instant, said: &mut Say<'_>) {
        if let Some(running) = self.running.take() {
            if now.saturating_duration_since(running.started) > GOOD {
                self.wait = FIRST_WAIT;
            }
            let pended = running.pended.into_values().flatten();
            let waiting = pended.chain(running.asked.into_values()).chain(running.backlog);
            self.given_up.extend(waiting.map(|waiting| waiting.packet));
            if running.reports_lost > 0 {
                let lost = running.reports_lost;
                said(Said::Notice(format!(
                    "callout {}: {lost} reports of its host were too many, and are lost",
                    self.name
                )));
            }
        }
        self.again = now + self.wait;
        let (name, wait) = (&self.name, self.wait.as_secs_f64());
        said(Said::Notice(format!(
            "callout {name}: its host is given up: {why}; it counts as unregistered, and is started again in {wait} s"
        )));
        let entries = [("host", Data::Text("given up".to_owned())), ("why", Data::Text(why.to_owned()))];
        said(Said::report(self.key, name.clone(), None, Report::entries(entries)));
        self.wait = LONGEST_WAIT.min(self.wait * 2);
    }
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.packet.packet().bytes().len()
    }
}

impl Running {
    /// Keeps a packet until it is answered about; one that cannot be kept is decided at once.
    fn pend(&mut self, waiting: Waiting, answer: Answer, inspects: bool) -> Result<Option<Answered>, String> {
        if self.pended.len() >= MOST_PENDED {
            return Err("it pends more than it may".to_owned());
        }
        let bytes = waiting.bytes();
        let decided = if inspects {
            // who only looks on holds nothing up
            Some(Answer { action: Action::Continue, ..answer })
        } else if self.pended_bytes + bytes > PENDED_BYTES {
            Some(closed(answer.number))
        } else {
            None
        };
        if let Some(answer) = decided {
            self.pended.insert(answer.number, None);
            return Ok(Some((waiting.packet, answer, None)));
        }
        self.pended_bytes += bytes;
        self.pended.insert(answer.number, Some(waiting));
        Ok(None)
    }
}

/// What is said in the place of a callout that does not answer.
fn closed(number: u64) -> Answer {
    Answer { number, action: Action::Block, flags: AnswerFlags(AnswerFlags::CLEAR_RIGHT) }
}

fn is_inspection(filter: &Filter) -> bool {
    filter.kind == CalloutKind::Inspection
}

fn garbage(error: impl std::fmt::Display) -> String {
    format!("what it writes makes no sense: {error}")
}
