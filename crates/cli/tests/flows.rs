//! Flows in the events of `wfp run`: of each, that it was established and that it has ended, once.

#[macro_use]
mod common;

use common::{
    Folder, lines,
    live::{run, status, text},
};
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Answers whatever comes.
fn servers() -> (u16, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ports = (listener.local_addr().unwrap().port(), datagrams.local_addr().unwrap().port());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok(1..) = stream.read(&mut buffer) {
                    let _ = stream.write_all(b"hello");
                }
            });
        }
    });
    thread::spawn(move || {
        while let Ok((_, from)) = datagrams.recv_from(&mut [0; 64]) {
            let _ = datagrams.send_to(b"hello", from);
        }
    });
    ports
}

/// Of each flow that was established: why it has ended.
fn ends(events: &[Json]) -> BTreeMap<u64, Vec<String>> {
    let mut flows = BTreeMap::new();
    for event in events {
        let flow = event["flow"].as_u64();
        match event["kind"].as_str() {
            Some("flow-established") => {
                let before = flows.insert(flow.unwrap(), vec![]);
                assert!(before.is_none(), "established twice: {event}");
            }
            Some("flow-deleted") => {
                let causes = flows.get_mut(&flow.unwrap()).unwrap_or_else(|| panic!("never established: {event}"));
                causes.push(event["reason"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    flows
}

#[test]
fn each_flow_ends_once_however_it_ends() {
    needs!("python3");
    let folder = Folder::new("flow-ends");
    let (tcp, udp) = servers();
    // closed; reset; closed with a datagram on its way; killed with both kinds open
    let script = format!(
        "import os,signal,socket,struct
def tcp():
 s=socket.create_connection(('127.0.0.1',{tcp})); s.sendall(b'x'); s.recv(9); return s
def udp():
 s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.sendto(b'x',('127.0.0.1',{udp})); s.recv(9); return s
tcp().close()
s=tcp(); s.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0)); s.close()
s=udp(); s.sendto(b'x',('127.0.0.1',{udp})); s.close()
child=os.fork()
if child==0:
 kept=[tcp(),udp()]
 os.kill(os.getpid(),signal.SIGKILL)
os.waitpid(child,0)
import time; time.sleep(0.5)"
    );
    let log = folder.path("events.jsonl");
    let output = run(&["--events", &log, "--", "python3", "-c", &script]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    let events = lines(&fs::read_to_string(&log).unwrap());
    let ends = ends(&events);
    assert_eq!(ends.len(), 5, "{ends:?}");
    assert!(ends.values().all(|causes| *causes == ["closed"]), "{ends:?}");
}

#[test]
fn flows_that_a_new_policy_refuses_end_and_their_sockets_are_told() {
    needs!("python3");
    let folder = Folder::new("flow-refused");
    let (tcp, udp) = servers();
    let script = format!(
        "import socket,sys,time
a=socket.create_connection(('127.0.0.1',{tcp}))
b=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); b.connect(('127.0.0.1',{udp})); b.settimeout(1)
told=set()
print('begun',flush=True)
for n in range(200):
 for s in (a,b):
  try: s.send(b'x'); s.recv(9)
  except TimeoutError: pass
  except OSError as error: told.add((s is a,error.errno))
 if len({{first for first,_ in told}})==2: break
 time.sleep(0.02)
print(sorted(told),flush=True)"
    );
    let block = |port| {
        format!(
            "[[filter]]\nname = \"not {port}\"\nlayer = \"ALE_AUTH_CONNECT_V4\"\naction = \"block\"\n\
             when = {{ IP_REMOTE_PORT = {port} }}\n"
        )
    };
    let policy = folder.file("policy.toml", &block(9));
    let log = folder.path("events.jsonl");
    let mut child = Command::new(env!("CARGO_BIN_EXE_wfp"))
        .args(["run", "--policy", &policy, "--events", &log, "--", "python3", "-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut begun = [0; 6];
    output.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"begun\n");
    thread::sleep(Duration::from_millis(200));
    folder.file("policy.toml", &format!("{}{}", block(tcp), block(udp)));
    let hangup = Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    let mut told = String::new();
    output.read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // ECONNABORTED of the connection, EPERM of the datagrams
    assert_eq!(told.trim(), "[(False, 1), (True, 103)]");

    let events = lines(&fs::read_to_string(&log).unwrap());
    let ends = ends(&events);
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert!(ends.values().all(|causes| *causes == ["refused"]), "{ends:?}");
    // each was asked twice: when it began, and when the policy had changed
    for flow in ends.keys() {
        let asked: Vec<&Json> = events
            .iter()
            .filter(|event| event["kind"] == "classify" && event["flow"] == *flow)
            .filter(|event| event["layer"] == "ALE_AUTH_CONNECT_V4")
            .collect();
        let outcomes: Vec<(&str, u64)> = asked
            .iter()
            .map(|event| {
                let reason = event["values"]["REAUTHORIZE_REASON"].as_u64().unwrap_or(0);
                (event["action"].as_str().unwrap(), reason)
            })
            .collect();
        assert_eq!(outcomes, [("permit", 0), ("block", 1)], "{asked:?}");
    }
}
