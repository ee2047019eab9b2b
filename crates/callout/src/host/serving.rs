//! A host at work.

use std::collections::{HashMap, HashSet};
use std::hint;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use openwfp_channel::{
    self as channel, Action, AnswerFlags, Ear, Host, LONGEST_CONTROL, MOST_PENDED, Received, Request, RequestFlags,
};
use openwfp_engine::{EMPTY, UNKNOWN, Values};
use openwfp_model::LayerId;
use openwfp_packet::flow::Direction;
use openwfp_packet::time::Timestamp;

use super::control::{FromHost, ToHost, Wanted};
use super::flows::Flows;
use crate::described::describe;
use crate::{
    ActionSoFar, Answer, Callout, CalloutAction, FlowHandle, InjectionHistory, LayerData, LayerEvent, Metadata,
    PacketData, Process, Refused, Registry, Said,
};

/// Without requests for so long, the host sleeps.
const PATIENCE: Duration = Duration::from_micros(50);
/// How often the heartbeat changes while there is nothing to do.
const BEAT: Duration = Duration::from_millis(100);
/// Who takes no answers for so long is gone.
const GONE: Duration = Duration::from_secs(10);
/// The answers that are written before `wfp` is woken.
const BATCH: usize = 64;

/// Why a host ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The channel is none.
    #[error("{0}")]
    Channel(String),
    /// The callout is not registered; `wfp` was told why.
    #[error("the callout is not registered")]
    Refused,
    /// The callout has panicked; `wfp` starts another host.
    #[error("the callout has panicked")]
    Panicked,
    /// The system refuses something.
    #[error("the callout cannot be served: {0}")]
    System(#[from] io::Error),
    /// What came over the channel makes no sense.
    #[error("what wfp says makes no sense: {0}")]
    Nonsense(String),
}

fn nonsense(error: impl ToString) -> ServeError {
    ServeError::Nonsense(error.to_string())
}

/// Serves until `wfp` is gone.
pub(super) fn run(
    channel: Host,
    make: impl FnOnce(&Wanted) -> Result<Arc<dyn Callout>, Refused>,
) -> Result<(), ServeError> {
    let (bell, completed) = channel::bell()?;
    let mut serving = Serving {
        channel,
        // where it cannot be rung any more, nobody sleeps for longer than a beat
        registry: Registry::for_host(MOST_PENDED, move || drop(bell.ring())),
        completed,
        pended: HashMap::new(),
        key: None,
        refused: HashSet::new(),
        flows: Flows::default(),
        beat: 0,
        beat_at: Instant::now(),
    };
    if !serving.start(make)? {
        return Ok(());
    }
    serving.serve()
}

struct Serving {
    channel: Host,
    registry: Registry,
    /// Rings when an operation is answered.
    completed: Ear,
    /// The requests that are pended, by operation.
    pended: HashMap<u64, u64>,
    /// That of the policy's callout.
    key: Option<openwfp_model::Guid>,
    /// Filters that the callout has refused.
    refused: HashSet<u64>,
    flows: Flows,
    beat: u64,
    beat_at: Instant,
}

/// Whether there is still somebody to serve.
type Goes = bool;

impl Serving {
    /// Hears what is wanted and registers it.
    fn start(&mut self, make: impl FnOnce(&Wanted) -> Result<Arc<dyn Callout>, Refused>) -> Result<Goes, ServeError> {
        let mut wanted = None;
        loop {
            match self.channel.control.receive()? {
                Received::Closed => return Ok(false),
                Received::Nothing => channel::wait(&[self.channel.control.as_fd()], BEAT)?,
                Received::Packet(packet) => match ToHost::decode(&packet).map_err(nonsense)? {
                    ToHost::Callout(said) => {
                        self.key = Some(said.key);
                        wanted = Some(said);
                    }
                    ToHost::Start => break,
                    // nobody is registered yet who could refuse it
                    said => drop(self.take(said)),
                },
            }
        }
        let wanted = wanted.ok_or_else(|| nonsense("no callout is wanted"))?;
        let made = make(&wanted).map_err(|Refused(why)| why);
        let registered = made.and_then(|callout| {
            let named = Some((wanted.key, wanted.name.as_str()));
            self.registry.register_as(named, callout).map_err(|error| error.to_string())
        });
        self.report();
        if let Err(why) = registered {
            self.say(&FromHost::Refused(why));
            return Err(ServeError::Refused);
        }
        self.pulse();
        self.say(&FromHost::Ready);
        Ok(true)
    }

    fn serve(&mut self) -> Result<(), ServeError> {
        let mut message = vec![];
        let mut active = Instant::now();
        loop {
            let mut served = 0;
            while served < BATCH && self.channel.requests.pop(&mut message).map_err(nonsense)? {
                served += 1;
                self.request(&message)?;
            }
            served += self.complete()?;
            self.wake()?;
            let now = Instant::now();
            if served > 0 {
                active = now;
            }
            if now.saturating_duration_since(self.beat_at) >= BEAT / 2 {
                self.tend(now);
                if !self.hear()? {
                    return Ok(());
                }
            }
            if served > 0 || now < active + PATIENCE {
                hint::spin_loop();
                continue;
            }
            if self.channel.requests.begin_sleep() {
                let rung = [self.channel.ear.as_fd(), self.channel.control.as_fd(), self.completed.as_fd()];
                channel::wait(&rung, BEAT)?;
                self.channel.requests.end_sleep();
                self.channel.ear.silence()?;
                self.completed.silence()?;
                self.tend(Instant::now());
                if !self.hear()? {
                    return Ok(());
                }
            }
        }
    }

    fn wake(&self) -> io::Result<()> {
        if self.channel.answers.reader_sleeps() { self.channel.bell.ring() } else { Ok(()) }
    }

    /// What is to be done from time to time, with requests or without.
    fn tend(&mut self, now: Instant) {
        self.pulse();
        self.registry.expire_pended(now);
        while let Some(flow) = self.flows.idle(now) {
            self.registry.flow_ended(flow);
        }
        self.report();
    }

    fn pulse(&mut self) {
        self.beat = self.beat.wrapping_add(1);
        self.beat_at = Instant::now();
        self.channel.set_beat(self.beat);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.registry.set_now(Timestamp::from_nanoseconds(now));
    }

    /// Takes what was said on the control socket.
    fn hear(&mut self) -> Result<Goes, ServeError> {
        loop {
            match self.channel.control.receive()? {
                Received::Closed => return Ok(false),
                Received::Nothing => return Ok(true),
                Received::Packet(packet) => self.take(ToHost::decode(&packet).map_err(nonsense)?)?,
            }
        }
    }

    fn take(&mut self, said: ToHost) -> Result<(), ServeError> {
        match said {
            ToHost::Filter(filter) => {
                let key = self.key.ok_or_else(|| nonsense("a filter before its callout"))?;
                let id = filter.id;
                if let Err(error) = self.registry.add_filter(key, filter) {
                    self.refused.insert(id);
                    self.say(&FromHost::FilterRefused(id, error.to_string()));
                }
            }
            ToHost::FilterDeleted(id) => {
                self.refused.remove(&id);
                self.registry.delete_filter(id);
            }
            ToHost::FlowEnded(flow) => {
                self.flows.ended(flow);
                self.registry.flow_ended(flow);
            }
            ToHost::Callout(_) | ToHost::Start => return Err(nonsense("another start")),
        }
        self.report();
        Ok(())
    }

    /// Answers a request.
    fn request(&mut self, message: &[u8]) -> Result<(), ServeError> {
        let (request, packet) = Request::decode(message).map_err(nonsense)?;
        let number = request.number;
        let flow = (request.flow != 0).then(|| FlowHandle::new(request.flow));
        if let Some(flow) = flow {
            let (new, ended) = self.flows.shown(flow, self.beat_at);
            ended.into_iter().for_each(|flow| self.registry.flow_ended(flow));
            if new {
                self.registry.flow_began(flow);
            }
        }
        self.registry.set_now(Timestamp::from_nanoseconds(request.time));
        let mut answer = self.ask(&request, packet, flow)?;
        if answer.is_none() && !self.refused.contains(&request.filter) {
            // it may have been said after the request before this one, and not been heard
            self.hear()?;
            answer = self.ask(&request, packet, flow)?;
        }
        self.report();
        match answer {
            None => self.answer(number, Action::Unavailable, 0, None)?,
            Some(Said::Now(answer)) => self.say_answer(number, &answer)?,
            Some(Said::Later(operation)) => {
                self.pended.insert(operation, number);
                self.answer(number, Action::Later, 0, None)?;
            }
        }
        if self.registry.counts().panics > 0 {
            self.report();
            self.say(&FromHost::Failed);
            self.wake()?;
            return Err(ServeError::Panicked);
        }
        Ok(())
    }

    /// Answers what was pended and is completed. How much there was.
    fn complete(&mut self) -> Result<usize, ServeError> {
        let mut count = 0;
        while let Some((operation, answer)) = self.registry.next_answer() {
            count += 1;
            if let Some(number) = self.pended.remove(&operation) {
                self.say_answer(number, &answer)?;
            }
        }
        Ok(count)
    }

    fn say_answer(&mut self, number: u64, answer: &Answer) -> Result<(), ServeError> {
        let action = match answer.action {
            CalloutAction::Permit => Action::Permit,
            CalloutAction::Block => Action::Block,
            CalloutAction::Continue => Action::Continue,
        };
        let flags = if answer.clear_action_right { AnswerFlags::CLEAR_RIGHT } else { 0 }
            | if answer.absorb { AnswerFlags::ABSORB } else { 0 };
        self.answer(number, action, flags, answer.packet.as_deref())
    }

    fn answer(&mut self, number: u64, action: Action, flags: u32, packet: Option<&[u8]>) -> Result<(), ServeError> {
        let flags = AnswerFlags(flags | if packet.is_some() { AnswerFlags::PACKET } else { 0 });
        let bytes = packet.unwrap_or_default();
        let written = channel::Answer { number, action, flags };
        self.write(&written.encode(bytes.len()), bytes)
    }

    fn ask(&self, request: &Request, packet: &[u8], flow: Option<FlowHandle>) -> Result<Option<Said>, ServeError> {
        let layer =
            u16::try_from(request.layer).ok().and_then(LayerId::new).ok_or_else(|| nonsense("no such layer"))?;
        let values = values(request);
        let data = PacketData::new(packet, request.transport as usize, request.payload as usize);
        let known = |number: u64| (number != 0).then_some(number);
        let index = |number: u32| (number != 0).then_some(number);
        let end = request.name.iter().position(|byte| *byte == 0).unwrap_or(request.name.len());
        let name = str::from_utf8(&request.name[..end]).ok();
        let process = request.flags.has(RequestFlags::PROCESS).then_some(Process {
            pid: request.process,
            path: None,
            name,
            uid: Some(request.user),
            gid: Some(request.group),
            age: Some(Duration::from_nanos(request.age)),
        });
        let inbound = request.flags.has(RequestFlags::INBOUND);
        let mut metadata = Metadata {
            flow,
            direction: Some(if inbound { Direction::Inbound } else { Direction::Outbound }),
            time: Timestamp::from_nanoseconds(request.time),
            process,
            endpoint: known(request.endpoint),
            compartment: known(request.compartment),
            source_interface: index(request.source_interface),
            destination_interface: index(request.destination_interface),
            ..Metadata::default()
        };
        describe(&mut metadata, layer, &data);
        let history = InjectionHistory::new(request.injectors.clone());
        let mut event = LayerEvent::new(layer, &values, &metadata, LayerData::Packet(data));
        event.history = &history;
        let so_far = match request.flags {
            flags if flags.has(RequestFlags::BLOCKED) => ActionSoFar::Block,
            flags if flags.has(RequestFlags::PERMITTED) => ActionSoFar::Permit,
            _ => ActionSoFar::None,
        };
        Ok(self.registry.ask_filter(request.filter, &event, so_far, request.flags.has(RequestFlags::RIGHT)))
    }

    fn report(&self) {
        while let Some(reported) = self.registry.next_report() {
            self.say(&FromHost::Report(reported.flow, reported.time, reported.report));
        }
    }

    /// Says something. Where nobody takes it, it is lost, and nothing waits.
    fn say(&self, said: &FromHost) {
        let packet = said.encode();
        if packet.len() <= LONGEST_CONTROL {
            let _ = self.channel.control.send(&packet);
        }
    }

    /// Writes a message, as soon as there is room.
    fn write(&mut self, header: &[u8], packet: &[u8]) -> Result<(), ServeError> {
        let begun = Instant::now();
        while !self.channel.answers.push(&[header, packet]).map_err(nonsense)? {
            self.wake()?;
            self.pulse();
            if begun.elapsed() > GONE {
                return Err(nonsense("it takes no answers"));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }
}

fn values(request: &Request) -> Values {
    let mut values = Values::new();
    for (word, value) in request.values.iter().enumerate() {
        match *value {
            EMPTY => values.set_empty(word),
            UNKNOWN => values.set_unknown(word),
            known => values.set(word, known as u32),
        }
    }
    values
}
