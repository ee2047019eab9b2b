//! `wfp run --events` under storms: what is lost is told to the last event, and what is not stands in order.

#[macro_use]
mod common;

use common::{
    Folder, lines,
    live::{Server, run, status, text},
};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

/// Waits for a word, then acts on every CPU at once, in two processes each: `times` connections to a port, connects of a socket
/// of datagrams, or such sockets that are bound and closed. Says how often each CPU has, and waits for another word.
const STORM: &str = "
import os, socket, sys
act, port, times, waits = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == 'waits'
def storm():
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number in range(times):
        if act == 'datagrams':
            held.connect(('127.0.0.1', 1 + number % 60000))
        elif act == 'bind':
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.bind(('127.0.0.1', 0))
        else:
            with socket.create_connection(('127.0.0.1', port)) as one:
                one.recv(1)
def say(text):
    print(text, flush=True)
    if waits:
        sys.stdin.readline()
say('ready')
cpus = sorted(os.sched_getaffinity(0))
children = []
for cpu in cpus * 2:
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, {cpu})
        storm()
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
say(' '.join(f'{cpu}:{2 * times}' for cpu in cpus))
";

/// What a command says, line by line.
struct Said(Child, BufReader<ChildStdout>);

impl Said {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Lets the command go on.
    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

/// The numbers of one CPU: the first and the last of each event and of each range that was lost.
type Ranges = BTreeMap<u64, Vec<(u64, u64)>>;

fn number(line: &Json, key: &str) -> u64 {
    line[key].as_u64().unwrap_or_else(|| panic!("{key}: {line}"))
}

/// The events and the lost ranges of each CPU.
fn ranges(log: &[Json]) -> (Ranges, Ranges) {
    let (mut seen, mut lost) = (Ranges::new(), Ranges::new());
    for line in log {
        if line["kind"] == "lost" {
            let seq: Vec<u64> = line["seq"].as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect();
            let [first, last] = seq[..] else { panic!("{line}") };
            assert_eq!(number(line, "count"), last - first + 1, "{line}");
            lost.entry(number(line, "cpu")).or_default().push((first, last));
        } else if line.get("seq").is_some() {
            seen.entry(number(line, "cpu")).or_default().push((number(line, "seq"), number(line, "seq")));
        }
    }
    (seen, lost)
}

/// What was seen and what was lost of a CPU is everything from 0 on, each number once; how many there are.
#[track_caller]
fn covers_all(cpu: u64, seen: &[(u64, u64)], lost: &[(u64, u64)]) -> u64 {
    let mut all = [seen, lost].concat();
    all.sort_unstable();
    let mut next = 0;
    for (first, last) in all {
        assert_eq!(first, next, "CPU {cpu}: the next number is no event and in no range that was lost, or twice");
        next = last + 1;
    }
    next
}

/// Runs a storm while `wfp` is stopped; how often each CPU has acted, and the lines that were written.
fn storm_unread(name: &str, arguments: &[&str], act: &str, port: u16, times: u32) -> (String, Vec<Json>) {
    let folder = Folder::new(name);
    let log = folder.path("events.jsonl");
    let mut child = Command::new(env!("CARGO_BIN_EXE_wfp"))
        .arg("run")
        .args(arguments)
        .args(["--events", &log, "--", "python3", "-c", STORM, act, &port.to_string(), &times.to_string(), "waits"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let wfp = Pid::from_child(&child);
    let mut said = Said(child, output);
    assert_eq!(said.line(), "ready");
    kill_process(wfp, Signal::STOP).unwrap();
    let stopped = waitpid(Some(wfp), WaitOptions::UNTRACED).unwrap().unwrap();
    assert!(stopped.1.stopped());
    said.go();
    let made = said.line();
    kill_process(wfp, Signal::CONT).unwrap();
    said.go();
    assert!(said.0.wait().unwrap().success());
    (made, lines(&fs::read_to_string(&log).unwrap()))
}

#[test]
fn what_is_lost_is_told_to_the_last_event() {
    needs!("python3");
    let (made, all) = storm_unread("lost", &["--layers", "ALE_AUTH_CONNECT_V4"], "datagrams", 0, 10_000);
    let made: BTreeMap<u64, u64> = made
        .split(' ')
        .map(|of_cpu| of_cpu.split_once(':').unwrap())
        .map(|(cpu, times)| (cpu.parse().unwrap(), times.parse().unwrap()))
        .collect();
    let (seen, lost) = ranges(&all);
    let count = |ranges: &[(u64, u64)]| ranges.iter().map(|(first, last)| last - first + 1).sum::<u64>();
    let none = vec![];
    for (cpu, times) in &made {
        let (seen, lost) = (seen.get(cpu).unwrap_or(&none), lost.get(cpu).unwrap_or(&none));
        assert_eq!(covers_all(*cpu, seen, lost), *times, "CPU {cpu}");
        assert!(count(lost) > 0, "CPU {cpu} has lost nothing");
    }
    assert!(seen.keys().chain(lost.keys()).all(|cpu| made.contains_key(cpu)), "{:?} {:?}", seen.keys(), lost.keys());
    let (seen, lost): (u64, u64) =
        (seen.values().map(|of_cpu| count(of_cpu)).sum(), lost.values().map(|of_cpu| count(of_cpu)).sum());
    let made: u64 = made.values().sum();
    println!(
        "{made} calls, {seen} events, {lost} lost in {} ranges",
        all.iter().filter(|l| l["kind"] == "lost").count()
    );
    let summary = all.last().unwrap();
    assert_eq!(
        (&summary["kind"], number(summary, "lost"), number(summary, "permitted")),
        (&"summary".into(), lost, made)
    );
    assert!(seen > 0);
    assert_eq!(made - seen, lost);
    let classified = all.iter().filter(|line| line["kind"] == "classify").count() as u64;
    assert_eq!(classified, seen, "each event is one line");
}

/// Runs a storm; the lines that were written.
fn storm(name: &str, act: &str, port: u16, times: u32) -> Vec<Json> {
    let folder = Folder::new(name);
    let log = folder.path("events.jsonl");
    let (port, times) = (port.to_string(), times.to_string());
    let output = run(&["--events", &log, "--", "python3", "-c", STORM, act, &port, &times, "goes"]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    lines(&fs::read_to_string(&log).unwrap())
}

#[test]
fn events_are_merged_by_time_and_in_order_within_a_flow() {
    needs!("python3");
    let server = Server::quick();
    let all = storm("order", "connections", server.port(), 750);
    let numbered: Vec<&Json> = all.iter().filter(|line| line.get("seq").is_some() && line["kind"] != "lost").collect();
    let mut cpus: BTreeMap<u64, usize> = BTreeMap::new();
    numbered.iter().for_each(|line| *cpus.entry(number(line, "cpu")).or_default() += 1);
    let back = numbered.windows(2).filter(|pair| pair[0]["time"].as_str() > pair[1]["time"].as_str()).count();
    println!("{} lines, of CPUs {cpus:?}; {back} go back in time; {}", all.len(), all.last().unwrap());
    assert!(numbered.len() > 3000);
    assert_eq!(back, 0);
    // what a connection meets, in order
    const STEPS: [&str; 4] = ["ALE_AUTH_CONNECT_V4", "ALE_FLOW_ESTABLISHED_V4", "flow-established", "flow-deleted"];
    let mut flows: HashMap<u64, Vec<usize>> = HashMap::new();
    for line in &all {
        let step = if line["kind"] == "classify" { &line["layer"] } else { &line["kind"] };
        let step = STEPS.iter().position(|name| step == name);
        if let (Some(flow), Some(step)) = (line["flow"].as_u64(), step) {
            flows.entry(flow).or_default().push(step);
        }
    }
    let whole = flows.values().filter(|steps| steps.len() == STEPS.len()).count();
    println!("{} flows, {whole} whole", flows.len());
    assert!(whole > 100);
    assert!(flows.values().all(|steps| steps.is_sorted_by(|a, b| a < b)));
}

/// At all ALE layers: connections, sockets of datagrams that have flows and that have none, and ends of flows whose beginnings were
/// lost.
#[test]
fn a_number_that_is_missing_is_lost_whatever_the_events_are() {
    needs!("python3");
    let server = Server::quick();
    let logs = [
        storm("connections", "connections", server.port(), 100),
        storm("datagrams", "datagrams", 0, 100),
        storm("bound", "bind", 0, 100),
        storm_unread("ends", &[], "connections", server.port(), 1500).1,
    ];
    for (number, all) in logs.iter().enumerate() {
        let (mut seen, lost) = ranges(all);
        for (cpu, of_cpu) in &mut seen {
            of_cpu.sort_unstable();
            // an event of a flow has two lines
            of_cpu.dedup();
            covers_all(*cpu, of_cpu, lost.get(cpu).map_or(&[], |lost| lost));
        }
        assert_eq!(lost.is_empty(), number != 3, "{lost:?}");
    }
    assert!(logs[2].iter().any(|line| line["kind"] == "closed"));
}
