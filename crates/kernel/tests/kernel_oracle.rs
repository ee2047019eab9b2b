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
    io::{BufRead, BufReader},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};
use support::OwnGroup;

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

#[test]
fn random_policies_are_decided_as_in_user_space() {
    if let Some(reason) = features::missing().first() {
        eprintln!("skipped: {reason}");
        return;
    }
    let policies: usize = std::env::var("OPENWFP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
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

/// The ports from which datagrams come; every third is refused, the last is not.
const SENDERS: std::ops::Range<u16> = 9104..9114;

/// Sends datagrams to sockets that nobody has sent to before, so that each is classified: how many, and how many of them
/// arrived that must not, or did not arrive.
fn datagrams(done: &AtomicBool) -> (usize, usize) {
    let senders: Vec<UdpSocket> = SENDERS.map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap()).collect();
    let (mut sent, mut wrong) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let to = receiver.local_addr().unwrap();
        for sender in &senders {
            wrong += usize::from(sender.send_to(&[0; 100], to).is_err());
            sent += 1;
        }
        // they come in the order in which they were sent, on this one CPU
        for port in SENDERS.filter(|port| port % 3 != 0) {
            let from = receiver.recv_from(&mut [0; 200]).map(|(_, from)| from.port());
            wrong += usize::from(from.ok() != Some(port));
        }
    }
    (sent, wrong)
}

/// Connects by two threads of one CPU, while packets flow through the same CPU.
#[test]
fn busy() {
    if std::env::var_os("OPENWFP_BUSY").is_none() {
        return;
    }
    // SAFETY: a set of our own; this thread and those that it starts stay on one CPU.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(server.accept());
            }
        });
        let datagrams = scope.spawn(|| datagrams(&done));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let (started, mut calls, mut wrong) = (Instant::now(), 0usize, 0usize);
                    while started.elapsed() < Duration::from_secs(5) {
                        for port in 9000..9064u16 {
                            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                            let refused = socket.connect(("127.0.0.1", port)).is_err();
                            wrong += usize::from(refused != (port % 3 == 0));
                            calls += 1;
                        }
                        wrong += usize::from(TcpStream::connect(address).is_err());
                    }
                    (calls, wrong)
                })
            })
            .collect();
        for caller in callers {
            let (calls, wrong) = caller.join().unwrap();
            println!("\nbusy {calls} {wrong}");
        }
        done.store(true, Ordering::Relaxed);
        let (received, wrong) = datagrams.join().unwrap();
        println!("\nbusy {received} {wrong}");
        let _ = TcpStream::connect(address);
    });
    std::process::exit(0);
}

#[test]
fn programs_that_interrupt_one_another_do_not_mix_their_values() {
    let connect = LayerId::ALE_AUTH_CONNECT_V4;
    let accept = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
    let block = openwfp_model::Action::Block;
    let mut filters: Vec<Filter> = (9000..9064u16)
        .filter(|port| port % 3 == 0)
        .map(|port| support::live::remote_port(connect, block, port))
        .collect();
    filters.extend(SENDERS.filter(|port| port % 3 == 0).map(|port| support::live::remote_port(accept, block, port)));
    let Some(mut live) = support::live::Live::new(filters, &[]) else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["busy", "--exact", "--nocapture"]).env("OPENWFP_BUSY", "1");
    let output = live.run(&mut command);
    let text = String::from_utf8_lossy(&output);
    let counts: Vec<(usize, usize)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("busy ")?.split_once(' '))
        .map(|(calls, wrong)| (calls.parse().unwrap(), wrong.parse().unwrap()))
        .collect();
    println!("{counts:?} {:?} {:?}", live.enforcement.totals().unwrap(), live.enforcement.labels().failures());
    assert_eq!(counts.len(), 3, "{text}");
    assert!(counts.iter().all(|(calls, wrong)| *calls > 1000 && *wrong == 0), "{counts:?}");
    assert!(live.enforcement.labels().failures().is_empty());
}
