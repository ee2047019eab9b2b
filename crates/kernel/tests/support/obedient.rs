//! An actor in a group that is told each action when its time has come, and a policy that changes between them.

use super::{actor, live::Live};
use openwfp_engine::compile_after;
use openwfp_kernel::events::{EndOfFlow, Event, EventKind};
use openwfp_model::{Filter, LayerId, Policy};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// The actor; killed when dropped.
pub struct Obedient {
    child: Child,
    answers: Receiver<String>,
}

impl Obedient {
    pub fn start(live: &Live) -> Self {
        let mut command = actor::command(actor::OBEY);
        live.group.enter(&mut command, "");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(answer) = line.strip_prefix("actor ") {
                    let _ = sender.send(answer.to_owned());
                }
            }
        });
        Self { child, answers }
    }

    /// Acts, while events are read; the result.
    pub fn tell(&mut self, live: &mut Live, action: &str) -> String {
        self.begin(action);
        self.answer(live)
    }

    /// Begins to act.
    pub fn begin(&mut self, action: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{action}").unwrap();
    }

    /// The result of what was begun.
    pub fn answer(&mut self, live: &mut Live) -> String {
        loop {
            live.drain();
            match self.answers.recv_timeout(Duration::from_millis(2)) {
                Ok(answer) => {
                    live.drain();
                    return answer;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the actor has ended"),
            }
        }
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Live {
    /// Another policy of these filters in the place of the one that holds. What was on its way has arrived by then.
    pub fn replace(&mut self, filters: Vec<Filter>, recorded: &[LayerId]) {
        thread::sleep(Duration::from_millis(100));
        let policy = filters.into_iter().fold(Policy::builder(), |policy, filter| policy.filter(filter));
        let policy = compile_after(&self.policy, &[&policy.build().unwrap()]).unwrap();
        self.enforcement.replace(&policy, recorded).unwrap_or_else(|error| panic!("{error}"));
        self.policy = policy;
        self.drain();
    }

    /// The classifications so far, which are forgotten.
    pub fn classified(&mut self) -> Vec<Event> {
        self.drain();
        self.events.extract_if(.., |event| event.kind == EventKind::Classify).collect()
    }

    /// The flows that have ended so far, and why.
    pub fn ended(&self) -> Vec<(u64, EndOfFlow)> {
        let ends = self.events.iter().filter_map(|event| match &event.kind {
            EventKind::FlowsDeleted { flows, cause } => Some(flows.iter().map(|flow| (*flow, *cause))),
            EventKind::Classify => None,
        });
        ends.flatten().collect()
    }
}
