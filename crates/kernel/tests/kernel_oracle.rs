//! The kernel decides as the engine does in user space: random policies, the values that events report. Needs root and BPF.

#[path = "../../engine/tests/common/oracle.rs"]
mod oracle;
mod support;
// the part that makes up events is not needed: the kernel makes them
#[path = "../../engine/tests/common/random.rs"]
#[allow(dead_code)]
mod random;

use openwfp_engine::{Action, CompiledPolicy, Event as TypedEvent, EventValue, Values, compile_objects};
use openwfp_kernel::{enforcement::Enforcement, events::Event, features, options::Options};
use openwfp_model::{FieldId, Filter, LayerId, Sublayer, Value};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use support::{OwnGroup, nesting};

const PORTS: [u16; 9] = [1, 53, 79, 80, 81, 443, 8080, 65534, 65535];

/// The endpoints that the random filters are about.
fn endpoints(v6: bool) -> Vec<SocketAddr> {
    let v4 = [0x0a00_0001u32, 0x0a00_0002, 0x7f00_0001, 0xc000_0201, 5];
    let long = [1u128, 0x2001_0db8 << 96, 0x2001_0db8 << 96 | 1, 0x2001_0db8_0001 << 80 | 0xffff_ffff];
    let addresses: Vec<std::net::IpAddr> = if v6 {
        long.iter().map(|&address| Ipv6Addr::from(address).into()).collect()
    } else {
        v4.iter().map(|&address| Ipv4Addr::from(address).into()).collect()
    };
    addresses.iter().flat_map(|&address| PORTS.map(|port| SocketAddr::new(address, port))).collect()
}

/// Connects as it is told: a call on a UDP socket asks the layer, and sends nothing.
#[test]
fn caller() {
    let Ok(told) = std::env::var("OPENWFP_CALLER") else { return };
    let (v6, rounds) = told.split_once(' ').unwrap();
    let (v6, rounds): (bool, usize) = (v6.parse().unwrap(), rounds.parse().unwrap());
    let any: SocketAddr = if v6 { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
    for _ in 0..rounds {
        for to in endpoints(v6) {
            let socket = UdpSocket::bind(any).unwrap();
            // no route is no matter: the layer was asked before
            let refused = socket.connect(to).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
            println!("\ncalled {to} {refused}");
        }
    }
}

fn group_calls(group: &OwnGroup, v6: bool, rounds: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["caller", "--exact", "--nocapture"]).env("OPENWFP_CALLER", format!("{v6} {rounds}"));
    command.stdout(Stdio::piped());
    group.enter(&mut command, "");
    command
}

/// Only what a late value does not decide is comparable one to one: the kernel asks again later.
fn outcome(policy: &CompiledPolicy, layer: LayerId, values: &Values) -> (Action, u64, u8) {
    let verdict = policy.classify_values(layer, values);
    (verdict.action, verdict.filter, verdict.reason as u8)
}

fn known_event(policy: &CompiledPolicy, event: &Event) -> TypedEvent {
    let mut typed = TypedEvent::new(event.layer);
    for field in event.layer.layer().fields {
        let word = openwfp_engine::Schema::of(event.layer).field(field.field).map(|words| words.first);
        let value = match word.map(|word| event.values.get(word)) {
            Some(openwfp_engine::UNKNOWN) => EventValue::Unknown,
            _ if field.field == FieldId::ALE_APP_ID => continue,
            _ => match policy.value(event.layer, field.field, &event.values) {
                Some(value) => EventValue::Known(value),
                None => continue,
            },
        };
        typed.values.insert(field.field, value);
    }
    typed
}

fn random_policy(random: &mut random::Random, layer: LayerId) -> (Vec<Sublayer>, Vec<(u64, Filter)>) {
    loop {
        let mut policy = random::policy(random, 24);
        if policy.layer != layer {
            continue;
        }
        // what the kernel does not have: registered callouts, and programs compared by prefix; nor what events tell by another way than words
        let told = |field: FieldId| field == FieldId::ALE_APP_ID || field.is_extension();
        policy.filters.retain(|(_, filter)| filter.conditions.iter().all(|condition| !told(condition.field)));
        return (policy.sublayers, policy.filters);
    }
}

/// Each policy is asked about every endpoint, twice; `OPENWFP_POLICIES` says how many there are.
#[test]
fn random_policies_are_decided_as_in_user_space() {
    if let Some(reason) = features::missing().first() {
        support::skips::skipped(reason);
        return;
    }
    let policies: usize = std::env::var("OPENWFP_POLICIES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut random = random::Random::new(7);
    let (mut compared, mut blocked, mut late, mut with_oracle) = (0, 0, 0, 0);
    for number in 0..policies {
        let v6 = number % 2 == 1;
        let layer = if v6 { LayerId::ALE_AUTH_CONNECT_V6 } else { LayerId::ALE_AUTH_CONNECT_V4 };
        let (sublayers, filters) = random_policy(&mut random, layer);
        let policy = compile_objects(number as u32 + 1, &sublayers, filters.clone(), &[]).unwrap();
        let group = OwnGroup::make();
        let options = Options { recorded: vec![layer], ..Options::default() };
        let mut enforcement =
            Enforcement::prepare(&policy, &group.0, options).unwrap_or_else(|error| panic!("{error}"));
        enforcement.attach().unwrap();
        let output = group_calls(&group, v6, 2).output().unwrap();
        let calls: Vec<(SocketAddr, bool)> = BufReader::new(&output.stdout[..])
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| {
                let (to, refused) = line.strip_prefix("called ")?.split_once(' ')?;
                Some((to.parse().ok()?, refused.parse().ok()?))
            })
            .collect();
        assert_eq!(calls.len(), endpoints(v6).len() * 2);
        let mut events = vec![];
        enforcement.events(|event| events.push(event));
        let ordered = oracle::sublayers(&sublayers);
        let mut reported = events.iter();
        for (to, refused) in calls {
            // a call that was left to its first packet reports nothing, and sends none
            let next = reported.clone().next().filter(|event| {
                let port = policy.value(layer, FieldId::IP_REMOTE_PORT, &event.values);
                let address = policy.value(layer, FieldId::IP_REMOTE_ADDRESS, &event.values);
                port == Some(Value::Uint16(to.port())) && address == Some(support::live::address(to.ip()))
            });
            let Some(event) = next else {
                assert!(!refused, "{to}: refused without an event");
                late += 1;
                continue;
            };
            reported.next();
            assert_eq!(refused, event.blocked, "{to}: {event:?}");
            let (action, filter, reason) = outcome(&policy, layer, &event.values);
            assert_eq!(event.blocked, action == Action::Block, "policy {number}, {to}: {event:?}");
            assert_eq!((event.filter, event.reason as u8), (filter, reason), "policy {number}, {to}");
            let typed = known_event(&policy, event);
            let expected = oracle::classify(&ordered, &filters, &Default::default(), &typed);
            assert_eq!(
                (expected.action, expected.filter),
                (if event.blocked { "block" } else { "permit" }, event.filter)
            );
            with_oracle += 1;
            compared += 1;
            blocked += usize::from(event.blocked);
        }
        assert!(reported.next().is_none());
        assert_eq!(enforcement.failures(), Default::default());
    }
    println!(
        "{compared} decisions compared ({with_oracle} with the oracle), {blocked} blocked, {late} left to the first packet"
    );
    assert!(compared > policies * 30 && blocked > policies && late > 0);
}

/// The ports from which datagrams come; the last one is never refused.
const SENDERS: std::ops::Range<u16> = 9104..9114;
/// The ports that are called, at two addresses.
const CALLED: std::ops::Range<u16> = 9000..9016;
const CALLED_AT: [Ipv4Addr; 2] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)];

/// A port at which each process gets datagrams from outside that are blocked, each by a classification of its own.
const FLOODED: u16 = 9120;
/// Where they come from.
const FLOOD: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9121);

/// How often a process was refused, and how often not, by layer and the other end.
type Tally = BTreeMap<(LayerId, SocketAddr), [usize; 2]>;

/// Sends datagrams to sockets that nobody has sent to before, so that each is classified; they come from an address of the
/// process's own.
fn datagrams(own: Ipv4Addr, done: &AtomicBool) -> Tally {
    let senders: Vec<UdpSocket> = SENDERS.map(|port| UdpSocket::bind((own, port)).unwrap()).collect();
    let mut tally = Tally::new();
    while !done.load(Ordering::Relaxed) {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = receiver.local_addr().unwrap();
        senders.iter().for_each(|sender| assert_eq!(sender.send_to(&[0; 100], to).unwrap(), 100));
        // they come in the order in which they were sent, by way of one CPU
        let mut arrived = vec![];
        while arrived.last() != Some(&(SENDERS.end - 1)) {
            arrived.push(receiver.recv_from(&mut [0; 200]).unwrap().1.port());
        }
        for port in SENDERS {
            let refused = !arrived.contains(&port);
            tally.entry((ACCEPT, (own, port).into())).or_default()[usize::from(refused)] += 1;
        }
    }
    tally
}

fn calls(servers: &[SocketAddr]) -> Tally {
    let (started, mut tally) = (Instant::now(), Tally::new());
    let mut count = |to: SocketAddr, result: std::io::Result<()>| {
        let refused = result.is_err_and(|error| {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{to}: {error}");
            true
        });
        tally.entry((CONNECT, to)).or_default()[usize::from(refused)] += 1;
    };
    while started.elapsed() < Duration::from_secs(4) {
        for to in CALLED_AT.into_iter().flat_map(|address| CALLED.map(move |port| SocketAddr::from((address, port)))) {
            count(to, UdpSocket::bind("127.0.0.1:0").unwrap().connect(to));
        }
        servers.iter().for_each(|to| count(*to, TcpStream::connect(to).map(drop)));
    }
    tally
}

/// Connects by two threads of one CPU, while packets flow through the same CPU, which come by interrupts: they are sent by the
/// other one. The variable holds this process's own address and those of servers.
#[test]
fn busy() {
    let Ok(told) = std::env::var("OPENWFP_BUSY") else { return };
    let (own, servers) = told.split_once(' ').unwrap();
    let own: Ipv4Addr = own.parse().unwrap();
    let servers: Vec<SocketAddr> = servers.split(' ').map(|server| server.parse().unwrap()).collect();
    support::actor::on_cpu(0).unwrap();
    let flooded = UdpSocket::bind((own, FLOODED)).unwrap();
    flooded.set_nonblocking(true).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let datagrams = scope.spawn(|| {
            support::actor::on_cpu(1).unwrap();
            datagrams(own, &done)
        });
        let callers = [(); 2].map(|()| scope.spawn(|| calls(&servers)));
        let mut tallies = callers.map(|caller| caller.join().unwrap()).to_vec();
        done.store(true, Ordering::Relaxed);
        tallies.push(datagrams.join().unwrap());
        assert!(flooded.recv(&mut [0; 9]).is_err(), "one has come through");
        for ((layer, to), [free, refused]) in tallies.into_iter().flatten() {
            println!("\nbusy {} {to} {free} {refused}", layer.get());
        }
    });
    std::process::exit(0);
}

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const ACCEPT: LayerId = LayerId::ALE_AUTH_RECV_ACCEPT_V4;

/// Filters on ports, addresses, protocols, users and programs, some of them against one another.
fn crossing_filters(closed: &[u16; 2], program: &str) -> Vec<(u64, Filter)> {
    use openwfp_model::{Action, FilterBuilder, MatchType, Weight};
    let when = |filter: FilterBuilder, field, value| filter.when(field, MatchType::Equal, value);
    let to =
        |layer, action, port| when(support::live::filter(layer, action), FieldId::IP_REMOTE_PORT, Value::Uint16(port));
    let from = |filter, address: Ipv4Addr| when(filter, FieldId::IP_REMOTE_ADDRESS, Value::Uint32(address.into()));
    let by = |filter, user| when(filter, FieldId::ALE_USER_ID, Value::User(user));
    let mut filters = vec![];
    for port in CALLED {
        match port % 5 {
            0 => filters.push(from(to(CONNECT, Action::Block, port), CALLED_AT[usize::from(port % 2)])),
            1 => filters.push(by(to(CONNECT, Action::Block, port), 1000 + u32::from(port % 3))),
            2 => {
                let program = Value::Application(program.into());
                filters.push(when(to(CONNECT, Action::Block, port), FieldId::ALE_APP_ID, program));
            }
            3 => {
                filters.push(to(CONNECT, Action::Block, port).weight(Weight::Range(1)));
                filters.push(by(to(CONNECT, Action::Permit, port), 1001).weight(Weight::Range(2)));
            }
            _ => {}
        }
    }
    for (port, user) in closed.iter().zip([1000, 1002]) {
        filters.push(when(by(to(CONNECT, Action::Block, *port), user), FieldId::IP_PROTOCOL, Value::Uint8(6)));
    }
    for port in SENDERS.start..SENDERS.end - 1 {
        match port % 3 {
            0 => filters.push(by(to(ACCEPT, Action::Block, port), 1000 + u32::from(port % 2))),
            1 => filters.push(from(to(ACCEPT, Action::Block, port), Ipv4Addr::new(127, 0, 1, (port % 4) as u8))),
            _ => {}
        }
    }
    filters.push(from(to(LayerId::INBOUND_TRANSPORT_V4, Action::Block, FLOOD.1), FLOOD.0));
    (1..).zip(filters.into_iter().map(|filter| filter.build().unwrap())).collect()
}

/// What was kept and compared of the events of one kind of question.
type Answers = BTreeMap<(u32, LayerId, SocketAddr), (bool, usize)>;

#[test]
fn programs_that_interrupt_one_another_do_not_mix_their_values() {
    if let Some(reason) = features::missing().first() {
        support::skips::skipped(reason);
    } else if nesting::has_two_cpus() {
        support::net::alone(calls_and_packets_of_one_cpu);
    }
}

/// In a network namespace of its own.
fn calls_and_packets_of_one_cpu() {
    nesting::packets_interrupt(0);
    let servers = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = servers.each_ref().map(|server| server.local_addr().unwrap());
    for server in servers {
        thread::spawn(move || server.incoming().for_each(drop));
    }
    let folder = support::Folder::make();
    let own = std::env::current_exe().unwrap();
    let programs = ["one", "another"].map(|name| folder.copy_of(own.to_str().unwrap(), name));
    let filters = crossing_filters(&addresses.map(|address| address.port()), programs[1].to_str().unwrap());
    let policy = compile_objects(1, &[], filters.clone(), &[]).unwrap();
    let options = Options { recorded: vec![CONNECT, ACCEPT], ..Options::default() };
    let mut live = support::live::Live::of_policy(policy, options).expect("nothing is missing");
    let mut answers = Answers::new();
    let ordered = oracle::sublayers(&[]);
    let processes: Vec<_> = (0..3u8)
        .map(|number| {
            let mut command = Command::new(&programs[usize::from(number == 1)]);
            command.args(["busy", "--exact", "--nocapture"]).stdout(Stdio::piped()).uid(1000 + u32::from(number));
            let servers = addresses.map(|address| address.to_string()).join(" ");
            command.env("OPENWFP_BUSY", format!("127.0.1.{number} {servers}"));
            live.group.enter(&mut command, "");
            let child = command.spawn().unwrap();
            thread::spawn(move || child.wait_with_output().unwrap())
        })
        .collect();
    // each event's own values, through the naive matcher: by turns, for it is slow
    let (mut seen, mut compared, mut interruptions) = (0, 0, nesting::Interruptions::default());
    let mut look = |live: &mut support::live::Live| {
        live.drain();
        for event in std::mem::take(&mut live.events) {
            if event.layer == LayerId::INBOUND_TRANSPORT_V4 {
                assert!(event.blocked, "{event:?}");
                continue;
            }
            let user = event.identity.user;
            let value = |field| live.policy.value(event.layer, field, &event.values);
            let (Some(Value::Uint32(address)), Some(Value::Uint16(port))) =
                (value(FieldId::IP_REMOTE_ADDRESS), value(FieldId::IP_REMOTE_PORT))
            else {
                panic!("{event:?}")
            };
            let other_end = SocketAddr::from((Ipv4Addr::from(address), port));
            let program = &programs[usize::from(user == 1001)];
            assert_eq!(*event.program, *program.to_str().unwrap(), "{event:?}");
            let answer = answers.entry((user, event.layer, other_end)).or_insert((event.blocked, 0));
            assert_eq!(answer.0, event.blocked, "not as before: {event:?}");
            answer.1 += 1;
            seen += 1;
            if seen % 8 == 0 {
                interruptions.look(live, 0);
            }
            if answer.1 <= 20 || seen % 16 == 0 {
                let mut typed = known_event(&live.policy, &event);
                typed
                    .values
                    .insert(FieldId::ALE_APP_ID, EventValue::Known(Value::Application((*event.program).into())));
                let expected = oracle::classify(&ordered, &filters, &Default::default(), &typed);
                let action = if event.blocked { "block" } else { "permit" };
                assert_eq!((action, event.filter), (expected.action, expected.filter), "{event:?}");
                compared += 1;
            }
        }
    };
    // what interrupts the callers most
    let (over, flood) = (Arc::new(AtomicBool::new(false)), UdpSocket::bind(FLOOD).unwrap());
    let flooding = {
        let over = over.clone();
        thread::spawn(move || {
            support::actor::on_cpu(1).unwrap();
            while !over.load(Ordering::Relaxed) {
                for number in 0..3u8 {
                    // nobody is there yet, or no more
                    let _ = flood.send_to(b"flood", (Ipv4Addr::new(127, 0, 1, number), FLOODED));
                }
                thread::sleep(Duration::from_micros(20));
            }
        })
    };
    while processes.iter().any(|process| !process.is_finished()) {
        look(&mut live);
        thread::sleep(Duration::from_millis(1));
    }
    over.store(true, Ordering::Relaxed);
    flooding.join().unwrap();
    look(&mut live);
    let (mut met, mut refusals) = (0, 0);
    for (user, process) in (1000..).zip(processes) {
        let output = process.join().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        for line in text.lines().filter_map(|line| line.strip_prefix("busy ")) {
            let words: Vec<&str> = line.split(' ').collect();
            let layer = if words[0] == CONNECT.get().to_string() { CONNECT } else { ACCEPT };
            let (free, refused): (usize, usize) = (words[2].parse().unwrap(), words[3].parse().unwrap());
            // what a process met is what the events of the same question say, each time
            let key = (user, layer, words[1].parse().unwrap());
            let (blocked, _) = answers.get(&key).unwrap_or_else(|| panic!("no event of {key:?}"));
            assert_eq!((free == 0, refused == 0), (*blocked, !*blocked), "{key:?}: {line}");
            met += free + refused;
            refusals += refused;
        }
    }
    let interrupted = interruptions.seen;
    println!("{met} questions met, {refusals} refused; {seen} events, {compared} compared with the naive matcher");
    println!("{interrupted} interruptions seen, {}", nesting::preemption());
    assert!(met > 3000 && refusals > met / 20 && seen > 1000 && compared > 1000, "{met} {refusals} {seen} {compared}");
    assert!(interrupted >= 10, "{interrupted}");
    assert_eq!(live.enforcement.failures().decisions_without_memory, 0);
    assert!(live.enforcement.labels().failures().is_empty());
}
