//! Policies that take the place of one another while processes connect. Needs root and BPF.

mod support;

use openwfp_engine::{CompiledPolicy, Reason, compile_after, compile_objects};
use openwfp_kernel::{
    enforcement::{EnforceError, Failures, Warning},
    hooks::Hook,
    options::Options,
};
use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Policy, Value, Weight};
use std::{
    net::{TcpListener, UdpSocket},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};
use support::{
    Folder, actor,
    live::{Live, address, filter, free_port, local, remote_port},
    pins::Pins,
    wait_until,
};

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

#[test]
fn actor() {
    actor::act();
}

fn objects(filters: &[Filter]) -> Policy {
    filters.iter().cloned().fold(Policy::builder(), |policy, filter| policy.filter(filter)).build().unwrap()
}

fn next(before: &CompiledPolicy, filters: &[Filter]) -> CompiledPolicy {
    compile_after(before, &[&objects(filters)]).unwrap()
}

/// Processes that act until they are told to end.
struct Storm(Vec<Child>);

impl Storm {
    fn start(live: &Live, scripts: &[String]) -> Self {
        let start = |script: &String| {
            let mut command = actor::command(script);
            live.group.enter(&mut command, "");
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        };
        Self(scripts.iter().map(start).collect())
    }

    /// What they wrote.
    fn end(mut self, live: &mut Live) -> Vec<String> {
        self.0.iter_mut().for_each(|child| drop(child.stdin.take()));
        self.0
            .into_iter()
            .map(|child| {
                let thread = thread::spawn(move || child.wait_with_output().unwrap());
                while !thread.is_finished() {
                    live.drain();
                    thread::sleep(Duration::from_millis(1));
                }
                String::from_utf8(thread.join().unwrap().stdout).unwrap()
            })
            .collect()
    }
}

const PORTS: u16 = 32;
const SWAPS: u32 = 200;

/// Blocks the ports of one parity for this program and names others besides, in an order that changes.
fn contrary(first: u16, generation: u32) -> Vec<Filter> {
    let this = std::env::current_exe().unwrap().canonicalize().unwrap();
    let application = |path: &str| Value::Application(path.into());
    let blocked = (0..PORTS).filter(|port| u32::from(*port) % 2 == generation % 2);
    let mut block = filter(CONNECT, Action::Block);
    for port in blocked {
        block = block.when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(first + port));
    }
    let block = block.when(FieldId::ALE_APP_ID, MatchType::Equal, application(this.to_str().unwrap())).build().unwrap();
    let other = |path| {
        filter(CONNECT, Action::Block).when(FieldId::ALE_APP_ID, MatchType::Equal, application(path)).build().unwrap()
    };
    match generation % 4 {
        0 => vec![block, other("/bin/cat")],
        1 => vec![other("/bin/cat"), block],
        2 => vec![other("/bin/ls"), other("/bin/cat"), block],
        _ => vec![block],
    }
}

/// Swaps policies under connects of four processes on two processors; each verdict is that of the event's generation.
fn swapped_under_connects(compile: impl Fn(&CompiledPolicy, Vec<Filter>) -> CompiledPolicy) {
    let first = free_port().min(60_000);
    let Some(mut live) = Live::new(contrary(first, 1), &[CONNECT]) else { return };
    let script = |cpu: usize| format!("on-cpu {cpu}\nudp-storm {} {PORTS}", local(first));
    let cpus = thread::available_parallelism().unwrap().get().min(2);
    let storm = Storm::start(&live, &(0..4).map(|number| script(number % cpus)).collect::<Vec<_>>());
    let mut longest = Duration::ZERO;
    for _ in 0..SWAPS {
        let policy = compile(&live.policy, contrary(first, live.policy.generation() + 1));
        let started = Instant::now();
        live.enforcement.replace(&policy, &[CONNECT]).unwrap_or_else(|error| panic!("{error}"));
        longest = longest.max(started.elapsed());
        live.policy = policy;
        live.drain();
    }
    let (mut permitted, mut refused) = (0, 0);
    for text in storm.end(&mut live) {
        let line = text.lines().find_map(|line| line.strip_prefix("storm ")).unwrap_or_else(|| panic!("{text}"));
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        permitted += numbers[0];
        refused += numbers[1];
    }
    let mut generations = vec![];
    let mut counts = [0u64; 2];
    let mut cpus = vec![];
    for event in live.at(CONNECT) {
        let port = event.values.get(openwfp_engine::words::IP_REMOTE_PORT) as u16 - first;
        let expected = u64::from(port) % 2 == event.generation % 2;
        assert_eq!(event.blocked, expected, "port {port}, {event:?}");
        assert_eq!(event.reason, Reason::None, "{event:?}");
        assert_eq!(event.filter != 0, event.blocked);
        counts[usize::from(event.blocked)] += 1;
        generations.push(event.generation);
        cpus.push(event.cpu);
    }
    generations.sort_unstable();
    generations.dedup();
    cpus.sort_unstable();
    cpus.dedup();
    println!(
        "{} swaps, the longest {longest:?}; {counts:?} events in {} generations on CPUs {cpus:?}",
        SWAPS,
        generations.len()
    );
    // at full speed some events find no room; the totals count all
    let failures = live.enforcement.failures();
    let lost = failures.events_lost;
    assert_eq!(failures, Failures { events_lost: lost, ..Failures::default() });
    assert_eq!(counts[0] + counts[1] + lost, permitted + refused, "each connect was decided");
    let totals = live.enforcement.totals().unwrap();
    assert_eq!((totals[0].permitted, totals[0].blocked), (permitted, refused), "as the process was told");
    assert!(generations.len() as u32 > SWAPS / 2, "connects met {} generations", generations.len());
    assert_eq!(live.enforcement.generation(), SWAPS + 1);
}

#[test]
fn each_connect_is_decided_by_one_generation() {
    swapped_under_connects(|before, filters| next(before, &filters));
}

#[test]
fn so_it_is_when_class_numbers_change_their_meaning() {
    swapped_under_connects(|before, filters| {
        let first = before.filters().iter().map(|filter| filter.id).max().unwrap() + 1;
        compile_objects(before.generation() + 1, &[], (first..).zip(filters).collect(), &[]).unwrap()
    });
}

#[test]
fn what_both_policies_refuse_is_never_let_through() {
    let peer = UdpSocket::bind(local(0)).unwrap();
    peer.set_nonblocking(true).unwrap();
    let to = peer.local_addr().unwrap();
    // one refuses in the call, the other when the packet leaves
    let early = [remote_port(CONNECT, Action::Block, to.port())];
    let late = [filter(CONNECT, Action::Block)
        .when(FieldId::IP_LOCAL_ADDRESS, MatchType::Equal, address("127.0.0.1".parse().unwrap()))
        .build()
        .unwrap()];
    let Some(mut live) = Live::new(early.to_vec(), &[]) else { return };
    let storm = Storm::start(&live, &[0, 1, 0, 1].map(|cpu| format!("on-cpu {cpu}\nsend-storm {to}")));
    for swap in 0..SWAPS {
        live.policy = next(&live.policy, if swap % 2 == 0 { &late } else { &early });
        live.enforcement.replace(&live.policy, &[]).unwrap_or_else(|error| panic!("{error}"));
        live.drain();
    }
    storm.end(&mut live);
    assert!(peer.recv(&mut [0; 64]).is_err(), "a datagram came through");
    let totals = live.enforcement.totals().unwrap();
    println!("{totals:?}");
    assert!(totals[0].blocked > 1000);
}

/// A policy that takes long to walk: thousands of filters on flags that no event has, then ports of one parity.
fn long(first: u16, generation: u32) -> Vec<Filter> {
    let never = (0..20_000 + generation % 3 * 1_000).map(|number| {
        let flags = Value::Uint32(0x8000_0000 | number);
        filter(CONNECT, Action::Permit)
            .weight(Weight::Range(9))
            .when(FieldId::FLAGS, MatchType::FlagsAllSet, flags)
            .build()
            .unwrap()
    });
    let mut block = filter(CONNECT, Action::Block).weight(Weight::Range(1));
    for port in (0..PORTS).filter(|port| u32::from(*port) % 2 == generation % 2) {
        block = block.when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(first + port));
    }
    never.chain([block.build().unwrap()]).collect()
}

#[test]
fn an_image_is_not_written_over_while_somebody_walks_it() {
    let first = free_port().min(60_000);
    let Some(mut live) = Live::new(long(first, 1), &[CONNECT]) else { return };
    println!("{} steps", live.policy.layer_of(CONNECT).worst_steps);
    assert!(live.policy.layer_of(CONNECT).worst_steps > 20_000);
    let mut policies = vec![live.policy.clone()];
    for generation in 2..=16 {
        policies.push(next(&policies[generation - 2], &long(first, generation as u32)));
    }
    let storm =
        Storm::start(&live, &[0, 1, 0, 1].map(|cpu| format!("on-cpu {cpu}\nudp-storm {} {PORTS}", local(first))));
    assert!(wait_until(|| {
        live.drain();
        live.events.len() > 100
    }));
    // one straight after the other: each third image stands where the first stood
    for policy in &policies[1..] {
        live.enforcement.replace(policy, &[CONNECT]).unwrap_or_else(|error| panic!("{error}"));
    }
    live.drain();
    storm.end(&mut live);
    for event in live.at(CONNECT) {
        let port = event.values.get(openwfp_engine::words::IP_REMOTE_PORT) as u16 - first;
        assert_eq!(event.blocked, u64::from(port) % 2 == event.generation % 2, "port {port}, {event:?}");
        let policy = &policies[event.generation as usize - 1];
        assert_eq!(policy.filter(event.filter).is_some(), event.blocked, "port {port}, {event:?}");
    }
}

#[test]
fn layers_of_the_new_policy_are_met_and_their_hooks_outlive_the_loader() {
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let (bound, heard) = (free_port(), free_port());
    let pins = Pins::new("replace").unwrap();
    let options = Options { pins: Some(pins.0.clone()), ..Options::default() };
    let Some(mut live) = Live::with(vec![remote_port(CONNECT, Action::Block, open.port())], options) else { return };
    let script = format!("tcp {open}\nbind {}\nlisten {}\ntcp {}", local(bound), local(heard), local(heard));
    assert_eq!(live.act(&script), ["EPERM", "ok", "ok", "ok"]);
    let port = |layer, port| {
        filter(layer, Action::Block)
            .when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(port))
            .build()
            .unwrap()
    };
    let filters = [port(LayerId::ALE_RESOURCE_ASSIGNMENT_V4, bound), port(LayerId::ALE_AUTH_RECV_ACCEPT_V4, heard)];
    let policy = next(&live.policy, &filters);
    let replaced = live.enforcement.replace(&policy, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(replaced.generation, 2);
    assert_eq!(replaced.hooks, [Hook::Bind4, Hook::Bind6, Hook::Create, Hook::Stream, Hook::Ingress]);
    assert!(matches!(&replaced.warnings[..], [Warning::LaterHooks(_)]));
    assert!(pins.0.join("link_bind4").exists());
    assert_eq!(live.act(&script), ["ok", "EPERM", "ok", "timeout"]);
    // back again: nothing is attached twice
    let policy = next(&policy, &[remote_port(CONNECT, Action::Block, open.port())]);
    let replaced = live.enforcement.replace(&policy, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert!(replaced.hooks.is_empty() && replaced.warnings.is_empty());
    assert_eq!(live.act(&script), ["EPERM", "ok", "ok", "ok"]);
    let Live { enforcement, .. } = live;
    enforcement.detach().unwrap();
    assert!(!pins.0.exists());
}

#[test]
fn a_policy_that_cannot_be_taken_over_changes_nothing() {
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let block = [remote_port(CONNECT, Action::Block, open.port())];
    let Some(mut live) = Live::new(block.to_vec(), &[]) else { return };
    let hooks = live.enforcement.hooks().to_vec();
    let user =
        |value| filter(CONNECT, Action::Block).when(FieldId::ALE_USER_ID, MatchType::Equal, value).build().unwrap();
    let large: Vec<Filter> = (0..40_000u32)
        .map(|number| {
            filter(CONNECT, Action::Block)
                .when(FieldId::IP_REMOTE_ADDRESS, MatchType::Equal, Value::Uint32(0x0a00_0000 + number * 7))
                .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(number as u16))
                .build()
                .unwrap()
        })
        .collect();
    let wide = filter(CONNECT, Action::Block)
        .when(FieldId::ALE_APP_ID, MatchType::Prefix, Value::Application("curl".into()))
        .build();
    let mut refused = vec![
        (next(&live.policy, &large), "there is room for"),
        (next(&live.policy, &[user(Value::Group(4321))]), "the group 4321"),
        (compile_objects(1, &[], vec![], &[]).unwrap(), "of generation 1"),
        (compile_objects(3, &[], vec![], &[]).unwrap(), "of generation 3"),
    ];
    refused.extend(wide.map(|wide| (next(&live.policy, &[wide]), "by prefix")));
    for (policy, expected) in refused {
        let error: EnforceError = live.enforcement.replace(&policy, &[]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(live.enforcement.generation(), 1);
        assert_eq!(live.enforcement.hooks(), hooks);
        assert_eq!(live.act(&format!("tcp {open}\nudp {}", local(9))), ["EPERM", "ok"]);
    }
    // and the next that can be is
    let policy = next(&live.policy, &[]);
    live.enforcement.replace(&policy, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(live.act(&format!("tcp {open}")), ["ok"]);
}

#[test]
fn applications_of_a_policy_that_failed_take_no_room() {
    let folder = Folder::make();
    let program = |number: usize| {
        let path = folder.0.join(number.to_string());
        std::fs::write(&path, "").unwrap();
        filter(CONNECT, Action::Block)
            .when(FieldId::ALE_APP_ID, MatchType::Equal, Value::Application(path.to_str().unwrap().into()))
            .build()
            .unwrap()
    };
    let programs: Vec<Filter> = (0..6000).map(program).collect();
    let Some(mut live) = Live::new(programs[..10].to_vec(), &[]) else { return };
    let policy = next(&live.policy, &programs[..5000]);
    let error = live.enforcement.replace(&policy, &[]).unwrap_err();
    assert!(error.to_string().contains("APPLICATIONS"), "{error}");
    // others, as many as there is room for beside the first ten
    let policy = next(&live.policy, &programs[2000..6000]);
    live.enforcement.replace(&policy, &[]).unwrap_or_else(|error| panic!("{error}"));
    let policy = next(&policy, &programs[..2000]);
    let error = live.enforcement.replace(&policy, &[]).unwrap_err();
    assert!(error.to_string().contains("APPLICATIONS"), "both at once have no room: {error}");
}

#[test]
fn groups_that_were_known_from_the_start_can_be_named_later() {
    use std::os::unix::process::CommandExt;
    use support::{OwnGroup, live::policy};
    let missing = openwfp_kernel::features::missing();
    if let Some(reason) = missing.first() {
        support::skips::skipped(reason);
        return;
    }
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let group = OwnGroup::make();
    let mut policy = policy(vec![]);
    policy.know_groups([10, 4321]);
    let options = Options { replaceable: true, ..Options::default() };
    let mut enforcement = openwfp_kernel::enforcement::Enforcement::prepare(&policy, &group.0, options).unwrap();
    enforcement.attach().unwrap();
    let mut live = Live { enforcement, policy, events: vec![], group };
    let act = |live: &mut Live| {
        let mut command = actor::command(&format!("tcp {open}"));
        actor::results(&live.run(command.gid(4321)))
    };
    assert_eq!(act(&mut live), ["ok"]);
    let block = filter(CONNECT, Action::Block).when(FieldId::ALE_USER_ID, MatchType::Equal, Value::Group(4321));
    let policy = next(&live.policy, &[block.build().unwrap()]);
    let replaced = live.enforcement.replace(&policy, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert!(replaced.hooks.is_empty(), "all were attached from the start");
    assert_eq!(act(&mut live), ["EPERM"]);
}
