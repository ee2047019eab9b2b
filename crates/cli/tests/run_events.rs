//! The events of `wfp run`: every process is named, however short it lives, and the file can be read meanwhile.

#[macro_use]
mod common;

use common::{
    Folder, lines,
    live::{NOBODY, Server, events, program, run, status, text},
};
use serde_json::Value as Json;
use std::{
    collections::{HashMap, HashSet},
    fs,
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};

/// 200 permitted connections or datagrams to a port of this machine, by 200 processes of `nobody` that run `program`.
#[track_caller]
fn are_all_named(events: &[Json], name: &str, protocol: u8, port: u16) {
    let program = program(name);
    assert_eq!(events.len(), 200);
    for event in events {
        let values = &event["values"];
        assert_eq!(values["ALE_APP_ID"], program, "{event}");
        assert_eq!(values["ALE_USER_ID"], NOBODY, "{event}");
        assert_eq!(values["IP_PROTOCOL"], protocol, "{event}");
        assert_eq!(values["IP_REMOTE_ADDRESS"], "127.0.0.1", "{event}");
        assert_eq!(values["IP_REMOTE_PORT"], port, "{event}");
        let process = &event["process"];
        assert_eq!(process["path"], program, "{event}");
        assert_eq!(process["uid"], NOBODY, "{event}");
        assert_eq!(process["comm"], name, "{event}");
        assert_eq!(event["action"], "permit", "{event}");
    }
    let processes: HashSet<_> = events.iter().map(|event| event["process"]["pid"].as_u64()).collect();
    assert_eq!(processes.len(), 200, "each was a process of its own");
}

/// Runs a script as nobody; the path of the events.
#[track_caller]
fn record(folder: &Folder, script: &str) -> String {
    let log = folder.path("events.jsonl");
    let output = run(&["--events", &log, "--user", &NOBODY.to_string(), "--", "bash", "-c", script]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    log
}

#[test]
fn two_hundred_short_lived_processes_are_all_named() {
    needs!("bash", "curl");
    let folder = Folder::new("processes");
    let server = Server::local();
    let script = format!(
        "for i in $(seq 200); do curl -s -o /dev/null -m 5 http://127.0.0.1:{}/ & [ $((i % 10)) = 0 ] && wait; done; wait",
        server.port()
    );
    let log = record(&folder, &script);
    are_all_named(&events(&log, "ALE_AUTH_CONNECT_V4"), "curl", 6, server.port());
    assert_eq!(server.reached(), 200);
    // each CPU counts without gaps
    let mut numbers: HashMap<u64, Vec<u64>> = HashMap::new();
    for event in lines(&fs::read_to_string(&log).unwrap()) {
        let (Some(cpu), Some(seq)) = (event["cpu"].as_u64(), event["seq"].as_u64()) else { continue };
        numbers.entry(cpu).or_default().push(seq);
    }
    for (cpu, mut seen) in numbers {
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.last().unwrap() - seen[0] + 1, seen.len() as u64, "CPU {cpu}");
    }
}

#[test]
fn two_hundred_shells_that_connect_once_are_all_named() {
    needs!("bash");
    let folder = Folder::new("connections");
    let server = Server::local();
    // bash opens /dev/tcp itself: each of the 200 is a shell of its own that exits at once
    let one = format!("bash -c 'echo x > /dev/tcp/127.0.0.1/{}' & [ $((i % 10)) = 0 ] && wait", server.port());
    let log = record(&folder, &format!("for i in $(seq 200); do {one}; done; wait"));
    are_all_named(&events(&log, "ALE_AUTH_CONNECT_V4"), "bash", 6, server.port());
}

#[test]
fn two_hundred_processes_that_send_one_datagram_and_exit_are_all_named() {
    needs!("bash");
    let folder = Folder::new("datagrams");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let log =
        record(&folder, &format!("for i in $(seq 200); do bash -c 'echo x > /dev/udp/127.0.0.1/{port}' & done; wait"));
    are_all_named(&events(&log, "ALE_AUTH_CONNECT_V4"), "bash", 17, port);
}

#[test]
fn events_can_be_read_while_the_command_runs() {
    needs!("bash", "curl");
    let folder = Folder::new("stream");
    let server = Server::local();
    let log = folder.path("events.jsonl");
    let script = format!("curl -s -o /dev/null http://127.0.0.1:{}/; sleep 2", server.port());
    let mut child = Command::new(env!("CARGO_BIN_EXE_wfp"))
        .args(["run", "--events", &log, "--", "bash", "-c", &script])
        .spawn()
        .unwrap();
    let mut seen = false;
    for _ in 0..60 {
        thread::sleep(Duration::from_millis(25));
        seen = fs::read_to_string(&log).is_ok_and(|text| text.contains("ALE_AUTH_CONNECT_V4"));
        if seen {
            break;
        }
    }
    assert!(seen && child.try_wait().unwrap().is_none(), "the event came while the command ran");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let last = fs::read_to_string(&log).unwrap();
    let last = lines(&last).pop().unwrap();
    assert_eq!((&last["kind"], &last["lost"]), (&"summary".into(), &0.into()));
    for key in ["time", "packets", "flows", "permitted", "blocked"] {
        assert!(last.get(key).is_some(), "{key}");
    }
}

#[test]
fn the_keys_of_an_event_are_those_of_the_contract() {
    needs!("curl");
    let folder = Folder::new("keys");
    let server = Server::local();
    let log = folder.path("events.jsonl");
    let url = format!("http://127.0.0.1:{}/", server.port());
    assert_eq!(status(&run(&["--events", &log, "--", "curl", "-s", "-o", "/dev/null", &url])), 0);
    let event = &events(&log, "ALE_AUTH_CONNECT_V4")[0];
    let keys = ["time", "kind", "layer", "action", "filter", "sublayer", "cpu", "seq", "flow", "values", "process"];
    for key in keys {
        assert!(event.get(key).is_some(), "{key}: {event}");
    }
    for key in ["pid", "path", "uid", "comm"] {
        assert!(event["process"].get(key).is_some(), "{key}: {event}");
    }
    assert!(fs::read_to_string(&log).unwrap().contains("\"kind\":\"flow-established\""));
}

#[test]
fn what_the_kernel_drops_has_its_reason() {
    needs!("bash", "ip", "unshare");
    let folder = Folder::new("drops");
    let log = folder.path("events.jsonl");
    // a network of its own, where nobody answers
    let script = format!(
        "set -e
        ip link add near0 type veth peer name far0
        ip link set near0 up
        ip link set far0 up
        ip addr add 10.9.1.1/24 dev near0
        echo 1 > /proc/sys/net/ipv4/neigh/near0/mcast_solicit
        echo 20 > /proc/sys/net/ipv4/neigh/near0/retrans_time_ms
        exec {} run --layers OUTBOUND_IPPACKET_DISCARD --events {log} -- \
            bash -c 'echo x > /dev/udp/10.9.1.77/4711; sleep 1'",
        env!("CARGO_BIN_EXE_wfp")
    );
    let output = Command::new("unshare").args(["-n", "bash", "-c", &script]).output().unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output));
    let events = events(&log, "OUTBOUND_IPPACKET_V4_DISCARD");
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event["drop_reason"], "NEIGH_FAILED");
    assert_eq!(event["values"]["IP_REMOTE_ADDRESS"], "10.9.1.77");
    assert_eq!(event["process"]["comm"], "bash");
}

#[test]
fn a_trace_for_programs_has_the_lines_of_the_file() {
    needs!("curl");
    let folder = Folder::new("trace");
    let server = Server::local();
    let log = folder.path("events.jsonl");
    let url = format!("http://127.0.0.1:{}/", server.port());
    let output = run(&["--json", "--trace", "--events", &log, "--", "curl", "-s", "-o", "/dev/null", &url]);
    assert_eq!(status(&output), 0);
    assert_eq!(String::from_utf8_lossy(&output.stderr), fs::read_to_string(&log).unwrap());
}

/// Datagrams over loopback: each leaves, and none arrives in the group, since nobody in it listens.
#[test]
fn the_packets_of_the_summary_are_counted_where_a_layer_sees_them() {
    needs!("python3");
    let folder = Folder::new("packets");
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = receiver.local_addr().unwrap().port();
    let script = format!(
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor _ in range(7): s.sendto(b'x',('127.0.0.1',{port}))"
    );
    let log = folder.path("events.jsonl");
    let packets = |layers: &[&str]| {
        let words = [layers, &["--events", &log, "--", "python3", "-c", &script]].concat();
        assert_eq!(status(&run(&words)), 0);
        lines(&fs::read_to_string(&log).unwrap()).pop().unwrap()["packets"].clone()
    };
    assert_eq!(packets(&["--layers", "OUTBOUND_IPPACKET"]), 7);
    assert_eq!(packets(&["--layers", "OUTBOUND_TRANSPORT_V4"]), 7);
    assert_eq!(packets(&["--layers", "OUTBOUND_TRANSPORT,OUTBOUND_IPPACKET"]), 7, "each once");
    assert_eq!(packets(&["--layers", "INBOUND_IPPACKET_V6"]), 0);
    assert_eq!(packets(&["--layers", "ALE_AUTH_CONNECT"]), serde_json::Value::Null, "nobody looks at packets");
}

/// The same socket and datagrams make one flow, if anybody looks.
#[test]
fn the_flows_of_the_summary_are_counted_where_their_layer_is_recorded() {
    needs!("python3");
    let folder = Folder::new("flows-of-summary");
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = receiver.local_addr().unwrap().port();
    let script = format!(
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor _ in range(7): s.sendto(b'x',('127.0.0.1',{port}))"
    );
    let log = folder.path("events.jsonl");
    let flows = |layers: &[&str]| {
        let words = [layers, &["--events", &log, "--", "python3", "-c", &script]].concat();
        assert_eq!(status(&run(&words)), 0);
        lines(&fs::read_to_string(&log).unwrap()).pop().unwrap()["flows"].clone()
    };
    assert_eq!(flows(&[]), 1);
    assert_eq!(flows(&["--layers", "ALE_FLOW_ESTABLISHED_V4"]), 1);
    assert_eq!(flows(&["--layers", "ALE_FLOW_ESTABLISHED_V6"]), 0);
    assert_eq!(flows(&["--layers", "ALE_AUTH_CONNECT"]), Json::Null, "nobody is told of flows");
}

/// Those of `--layers` take the place of what would be recorded without it, the layers that the policy filters among it.
#[test]
fn layers_that_are_named_are_recorded_and_no_others() {
    needs!("python3");
    let folder = Folder::new("named-layers");
    let policy = folder.path("policy.toml");
    fs::write(
        &policy,
        "[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\nwhen = { IP_REMOTE_PORT = 9 }\n",
    )
    .unwrap();
    let script = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('127.0.0.1',0))\n\
                  try: s.connect(('127.0.0.1',9))\nexcept PermissionError: pass";
    let log = folder.path("events.jsonl");
    let recorded = |layers: &[&str]| {
        let words = [&["-p", &*policy][..], layers, &["--events", &log, "--", "python3", "-c", script]].concat();
        assert_eq!(status(&run(&words)), 0);
        let all = lines(&fs::read_to_string(&log).unwrap());
        let layer = |line: &serde_json::Value| line["layer"].as_str().map(str::to_owned);
        all.iter().filter_map(layer).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(recorded(&["--layers", "ALE_RESOURCE_ASSIGNMENT"]), ["ALE_RESOURCE_ASSIGNMENT_V4".into()].into());
    let both = recorded(&[]);
    assert!(both.contains("ALE_AUTH_CONNECT_V4") && both.contains("ALE_RESOURCE_ASSIGNMENT_V4"), "{both:?}");
}

/// Which lines have a number of their own, which share one, and which have none: as docs/scripting.md says.
#[test]
fn which_lines_have_numbers() {
    needs!("python3");
    let folder = Folder::new("numbers");
    folder.open_to_all();
    let log = folder.path("events.jsonl");
    // two flows of one socket, which ends both; a socket that nothing comes of
    let script = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  for port in 9, 10: s.sendto(b'x', ('127.0.0.1', port))\n\
                  s.close()\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 0))\ns.close()";
    let output = run(&["--events", &log, "--", "python3", "-c", script]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    let told = lines(&fs::read_to_string(&log).unwrap());
    let number = |line: &Json| Some((line["cpu"].as_u64()?, line["seq"].as_u64()?));
    let kind = |line: &Json| line["kind"].as_str().unwrap().to_owned();
    let mut kinds: HashMap<String, usize> = HashMap::new();
    let mut numbers: HashMap<u64, HashSet<u64>> = HashMap::new();
    let mut ends: HashMap<(u64, u64), usize> = HashMap::new();
    let mut before: Option<&Json> = None;
    for line in &told {
        *kinds.entry(kind(line)).or_default() += 1;
        match (&*kind(line), number(line)) {
            ("classify" | "closed", Some((cpu, seq))) => {
                assert!(numbers.entry(cpu).or_default().insert(seq), "its own: {line}");
            }
            ("flow-established", Some(found)) => {
                let before = before.unwrap();
                assert_eq!(number(before), Some(found), "that of the line before: {line}");
                assert_eq!((&*kind(before), &before["layer"]), ("classify", &line["layer"]));
            }
            ("flow-deleted", Some(found)) => *ends.entry(found).or_default() += 1,
            ("summary", None) => {}
            other => panic!("{other:?}: {line}"),
        }
        before = Some(line);
    }
    assert_eq!((kinds["flow-established"], kinds["flow-deleted"]), (2, 2), "{kinds:?}");
    assert!(kinds["closed"] > 0 && kinds["summary"] == 1, "{kinds:?}");
    assert_eq!(ends.values().copied().collect::<Vec<_>>(), [2], "one close ended both");
    for (cpu, seq) in ends.into_keys() {
        assert!(numbers.entry(cpu).or_default().insert(seq), "nothing else has the number of an end");
    }
    for (cpu, numbers) in numbers {
        assert_eq!(numbers.iter().max().map(|most| most + 1), Some(numbers.len() as u64), "no gaps on CPU {cpu}");
    }
}
