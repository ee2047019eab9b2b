//! A policy that is enforced for a control group of the test's own.

use super::{OwnGroup, actor, skips};
use openwfp_engine::{CompiledPolicy, compile};
use openwfp_kernel::{enforcement::Enforcement, events::Event, features, options::Options};
use openwfp_model::{Action, FieldId, Filter, FilterBuilder, LayerId, MatchType, Policy, Value};
use std::{
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// The policy and the group; dropped in this order.
pub struct Live {
    pub enforcement: Enforcement,
    pub policy: CompiledPolicy,
    pub events: Vec<Event>,
    pub group: OwnGroup,
}

/// A filter that blocks, or permits where `action` says so, with conditions still to come.
pub fn filter(layer: LayerId, action: Action) -> FilterBuilder {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Filter::builder(format!("filter {number}"), layer).action(action)
}

/// A filter on the remote port.
pub fn remote_port(layer: LayerId, action: Action, port: u16) -> Filter {
    filter(layer, action).when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(port)).build().unwrap()
}

/// An address as a value.
pub fn address(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::Uint32(address.into()),
        IpAddr::V6(address) => Value::ByteArray16(address.octets()),
    }
}

pub fn policy(filters: Vec<Filter>) -> CompiledPolicy {
    let policy = filters.into_iter().fold(Policy::builder(), |policy, filter| policy.filter(filter)).build().unwrap();
    compile(&[&policy]).unwrap()
}

impl Live {
    /// `None`, with the reason printed, where the programs cannot be loaded.
    pub fn new(filters: Vec<Filter>, recorded: &[LayerId]) -> Option<Self> {
        Self::with(filters, Options { recorded: recorded.to_vec(), ..Options::default() })
    }

    pub fn with(filters: Vec<Filter>, options: Options) -> Option<Self> {
        Self::of_policy(policy(filters), options)
    }

    /// A policy that was compiled.
    pub fn of_policy(policy: CompiledPolicy, options: Options) -> Option<Self> {
        let missing = features::missing();
        if !missing.is_empty() {
            skips::skipped(missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
            return None;
        }
        let group = OwnGroup::make();
        let prepared = Enforcement::prepare(&policy, &group.0, options);
        let mut enforcement = prepared.unwrap_or_else(|error| panic!("{error}"));
        enforcement.attach().unwrap_or_else(|error| panic!("{error}"));
        Some(Self { enforcement, policy, events: vec![], group })
    }

    /// Reads events.
    pub fn drain(&mut self) {
        let events = &mut self.events;
        self.enforcement.events(|event| events.push(event));
    }

    /// Runs a command in the group to its end, reading events meanwhile; what it wrote.
    pub fn run(&mut self, command: &mut Command) -> Vec<u8> {
        self.group.enter(command, "");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let thread = thread::spawn(move || child.wait_with_output().unwrap());
        while !thread.is_finished() {
            self.drain();
            thread::sleep(Duration::from_millis(1));
        }
        self.drain();
        thread.join().unwrap().stdout
    }

    /// Acts out a script in the group; a result for each line.
    pub fn act(&mut self, script: &str) -> Vec<String> {
        let output = self.run(&mut actor::command(script));
        let results = actor::results(&output);
        assert_eq!(results.len(), script.lines().count(), "{}", String::from_utf8_lossy(&output));
        results
    }

    /// The events of a layer.
    pub fn at(&self, layer: LayerId) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.layer == layer)
    }
}

/// A free port of TCP and UDP, on all addresses.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("[::]:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
