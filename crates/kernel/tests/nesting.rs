//! Programs that interrupt one another on one processor, and how many may: each has working memory of its own, and one that finds
//! none decides closed and is counted, in whatever order they come. Needs root and BPF.
//!
//! A kernel that is built or started without preemption of tasks runs a program at a call to its end, but for interrupts: the packets
//! that come by one meet the programs of their socket at once. So there two programs nest; with `preempt=full` those of
//! further tasks do too. (`kernel_oracle.rs` compares the decisions of programs that nest with the naive matcher.)

mod support;

use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Value};
use std::{
    io::ErrorKind,
    net::UdpSocket,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use support::{
    actor,
    live::{Live, filter, local, remote_port},
    nesting::{Interruptions, SLOTS, has_two_cpus, occupy, packets_interrupt, preemption, written},
    net,
};

#[test]
fn actor() {
    actor::act();
}

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const TRANSPORT: LayerId = LayerId::INBOUND_TRANSPORT_V4;

/// So many ports are called, from the first on; the odd ones are refused.
const CALLED: u16 = 9200;
const PORTS: u16 = 16;
/// Datagrams that come from there are dropped, those from the next port are not.
const DROPPED: u16 = 9300;
/// Where they go to.
const HEARER: u16 = 9310;

fn filters() -> Vec<Filter> {
    let odd = (CALLED..CALLED + PORTS).filter(|port| port % 2 == 1);
    let mut filters: Vec<Filter> = odd.map(|port| remote_port(CONNECT, Action::Block, port)).collect();
    filters.push(remote_port(TRANSPORT, Action::Block, DROPPED));
    // one that is looked at and says nothing new
    let passed = filter(TRANSPORT, Action::Permit);
    let port = Value::Uint16(DROPPED + 1);
    filters.push(passed.when(FieldId::IP_REMOTE_PORT, MatchType::Equal, port).build().unwrap());
    filters
}

#[test]
fn decisions_are_the_same_in_every_slot_and_closed_when_there_is_none() {
    net::alone(|| {
        let Some(mut live) = Live::new(filters(), &[CONNECT]) else { return };
        let (free, refused) = (local(CALLED), local(CALLED + 1));
        let script = format!("udp {free}\nudp {refused}\nsend {free}\nsend {refused}");
        let good = ["ok", "EPERM", "ok", "EPERM"];
        let cpus = aya::util::nr_cpus().unwrap();
        for slot in 0..SLOTS {
            // those below are in use, as if so many programs had been interrupted
            let used = |live: &mut Live| (0..cpus).any(|cpu| written(live, slot, cpu).is_some());
            assert!(!used(&mut live), "slot {slot}");
            live.events.clear();
            assert_eq!(live.act(&script), good, "slot {slot}");
            assert!(used(&mut live), "slot {slot}");
            let decided: Vec<bool> = live.events.iter().map(|event| event.blocked).collect();
            assert_eq!(decided, [false, true, false, true], "slot {slot}");
            assert_eq!(live.enforcement.failures(), Default::default());
            occupy(&mut live, slot);
        }
        live.events.clear();
        assert_eq!(live.act(&script), ["EPERM"; 4]);
        assert_eq!(live.events.len(), 0);
        assert_eq!(live.enforcement.failures().decisions_without_memory, 4);
    });
}

/// Calls every port again and again on one processor, for a while; says what became of that.
#[test]
fn caller() {
    if std::env::var_os("OPENWFP_CALLER").is_none() {
        return;
    }
    actor::on_cpu(0).unwrap();
    let started = Instant::now();
    // by port: permitted, refused
    let mut tally = [[0u64; 2]; PORTS as usize];
    while started.elapsed() < LONG {
        for (port, tally) in (CALLED..).zip(&mut tally) {
            // bound by its connect
            let socket = UdpSocket::bind(local(0)).unwrap();
            match socket.connect(local(port)) {
                Ok(()) => tally[0] += 1,
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => tally[1] += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    for (port, [permitted, refused]) in (CALLED..).zip(tally) {
        println!("\ncalled {port} {permitted} {refused}");
    }
    std::process::exit(0);
}

const LONG: Duration = Duration::from_secs(4);

/// Reads what comes to a port, and says from which ports it came.
#[test]
fn hearer() {
    if std::env::var_os("OPENWFP_HEARER").is_none() {
        return;
    }
    let socket = UdpSocket::bind(local(HEARER)).unwrap();
    println!("\nhears");
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let (started, mut heard) = (Instant::now(), [0u64; 2]);
    while started.elapsed() < LONG + Duration::from_secs(2) {
        match socket.recv_from(&mut [0; 16]) {
            Ok((_, from)) => heard[usize::from(from.port() - DROPPED)] += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
    println!("\nheard {} {}", heard[0], heard[1]);
    std::process::exit(0);
}

/// One of the two tests above, in the group.
fn start(live: &Live, test: &str, variable: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(variable, "1").stdout(Stdio::piped());
    live.group.enter(&mut command, "");
    command.spawn().unwrap()
}

fn numbers(output: &[u8], word: &str) -> Vec<Vec<u64>> {
    let text = String::from_utf8_lossy(output);
    let lines = text.lines().filter_map(|line| line.strip_prefix(word));
    lines.map(|line| line.split_ascii_whitespace().map(|number| number.parse().unwrap()).collect()).collect()
}

/// What came of a flood of datagrams on the processor on which others connect.
#[derive(Debug)]
struct Flooded {
    /// Calls to ports that are refused, and to others: let through, refused.
    closed_ports: [u64; 2],
    free_ports: [u64; 2],
    /// Datagrams heard: from the port that is blocked, and from the other.
    heard: [u64; 2],
    /// From both.
    sent: u64,
    without_memory: u64,
    interruptions: usize,
}

/// `slots`: how many of them there are.
fn flood(slots: u32) -> Option<Flooded> {
    packets_interrupt(0);
    let mut live = Live::new(filters(), &[])?;
    (slots..SLOTS).for_each(|slot| occupy(&mut live, slot));
    let hearer = start(&live, "hearer", "OPENWFP_HEARER");
    let is_bound =
        || std::fs::read_to_string("/proc/thread-self/net/udp").unwrap().contains(&format!(":{HEARER:04X} "));
    assert!(support::wait_until(is_bound));
    let callers = [(); 2].map(|()| start(&live, "caller", "OPENWFP_CALLER"));
    // from outside the group, by the other processor
    let sender = thread::spawn(|| {
        actor::on_cpu(1).unwrap();
        let sockets = [DROPPED, DROPPED + 1].map(|port| UdpSocket::bind(local(port)).unwrap());
        let (started, mut sent) = (Instant::now(), 0);
        while started.elapsed() < LONG {
            for socket in &sockets {
                sent += u64::from(socket.send_to(b"flood", local(HEARER)).is_ok());
            }
        }
        sent
    });
    let mut interruptions = Interruptions::default();
    let processes = callers.into_iter().chain([hearer]);
    let waiting = processes.map(|child| thread::spawn(move || child.wait_with_output().unwrap())).collect::<Vec<_>>();
    while waiting.iter().any(|process| !process.is_finished()) {
        interruptions.look(&mut live, 0);
        live.drain();
        live.events.clear();
        thread::sleep(Duration::from_millis(1));
    }
    let outputs: Vec<_> = waiting.into_iter().map(|process| process.join().unwrap()).collect();
    let mut flooded = Flooded {
        closed_ports: [0; 2],
        free_ports: [0; 2],
        heard: [0; 2],
        sent: sender.join().unwrap(),
        without_memory: live.enforcement.failures().decisions_without_memory,
        interruptions: interruptions.seen,
    };
    for output in outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        for line in numbers(&output.stdout, "called ") {
            let tally = if line[0] % 2 == 1 { &mut flooded.closed_ports } else { &mut flooded.free_ports };
            tally[0] += line[1];
            tally[1] += line[2];
        }
        for line in numbers(&output.stdout, "heard ") {
            flooded.heard = [line[0], line[1]];
        }
    }
    println!("{slots} slots, {}: {flooded:?}", preemption());
    Some(flooded)
}

#[test]
fn programs_of_packets_interrupt_those_of_calls_and_both_decide_as_alone() {
    net::alone(|| {
        if !has_two_cpus() {
            return;
        }
        let Some(flooded) = flood(SLOTS) else { return };
        assert_eq!((flooded.closed_ports[0], flooded.free_ports[1], flooded.heard[0]), (0, 0, 0));
        assert_eq!(flooded.without_memory, 0);
        assert!(flooded.closed_ports[1] > 100 && flooded.free_ports[0] > 100 && flooded.heard[1] > 100);
        assert!(flooded.heard[1] <= flooded.sent / 2 && flooded.interruptions >= 5);
    });
}

/// The same with one slot: what interrupts finds no memory.
#[test]
fn what_interrupts_and_finds_no_memory_is_closed_and_counted() {
    net::alone(|| {
        if !has_two_cpus() {
            return;
        }
        let Some(flooded) = flood(1) else { return };
        // nothing that is refused gets through
        assert_eq!((flooded.closed_ports[0], flooded.heard[0]), (0, 0));
        // what is refused though it is permitted was counted, each time
        assert!(flooded.without_memory >= 20);
        assert!(flooded.free_ports[1] <= flooded.without_memory);
        assert!(flooded.closed_ports[1] > 100 && flooded.free_ports[0] > 100 && flooded.heard[1] > 100);
        assert!(flooded.heard[1] <= flooded.sent / 2);
        // nobody has worked in the slots that were taken away
        assert_eq!(flooded.interruptions, 0);
    });
}
