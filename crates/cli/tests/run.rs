//! `wfp run` with real programs on real sockets.
//!
//! Servers live in this process, outside the filtered group; clients are curl, python3, bash, and what they start. Where
//! the machine or the user cannot load BPF programs, or a program is missing, a test says so and is skipped.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Why the tests of this file cannot run here.
fn obstacle(programs: &[&str]) -> Option<String> {
    let missing = openwfp_kernel::features::missing();
    if let Some(first) = missing.first() {
        return Some(first.to_string());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &&&str| std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    programs.iter().find(|program| !found(program)).map(|program| format!("{program} is not installed"))
}

/// With WFP_TEST_EVERYTHING set, what would be skipped fails: for machines that are known to be able to run it all.
fn may_skip(obstacle: &str) {
    assert!(std::env::var_os("WFP_TEST_EVERYTHING").is_none(), "cannot run here: {obstacle}");
    // past the test runner, which keeps what passing tests print
    let _ = writeln!(std::io::stderr(), "skipped: {obstacle}");
}

macro_rules! needs {
    ($($program:literal),*) => {
        if let Some(obstacle) = obstacle(&[$($program),*]) {
            may_skip(&obstacle);
            return;
        }
    };
}

/// A folder of this test alone, which is taken away at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wfp-test-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An HTTP server that counts the connections that reach it.
struct Server {
    address: SocketAddr,
    reached: Arc<AtomicUsize>,
}

impl Server {
    fn at(address: impl Into<SocketAddr>) -> Self {
        let listener = TcpListener::bind(address.into()).unwrap();
        let address = listener.local_addr().unwrap();
        let reached = Arc::new(AtomicUsize::new(0));
        let count = reached.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(500)));
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
            }
        });
        Self { address, reached }
    }

    fn local() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0))
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }
}

fn wfp(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wfp")).arg("run").args(arguments).output().unwrap()
}

#[track_caller]
fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The classify events of a layer (its name begins so).
fn events(path: &str, layer: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line));
    all.filter(|event| {
        event["kind"] == "classify" && event["layer"].as_str().is_some_and(|name| name.starts_with(layer))
    })
    .collect()
}

#[test]
fn curl_is_refused_at_one_port_and_served_at_another() {
    needs!("curl");
    let folder = Folder::new("ports");
    let (refused, served) = (Server::local(), Server::local());
    let policy = folder.file(
        "policy.toml",
        &format!(
            "[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\nwhen = {{ IP_REMOTE_PORT = {} }}\n",
            refused.port()
        ),
    );
    let get = |port: u16| wfp(&["-p", &policy, "--", "curl", "-sS", "-m", "5", &format!("http://127.0.0.1:{port}/")]);
    let output = get(served.port());
    assert_eq!((status(&output), output.stdout.as_slice()), (0, &b"hello"[..]), "{}", text(&output));
    let output = get(refused.port());
    // curl: couldn't connect
    assert_eq!(status(&output), 7, "{}", text(&output));
    assert_eq!((served.reached(), refused.reached()), (1, 0));
}

#[test]
fn the_errno_of_a_filter_is_what_connect_returns() {
    needs!("python3");
    let folder = Folder::new("errno");
    let server = Server::local();
    let policy = |errno: &str| {
        let text = "[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\n";
        folder.file("policy.toml", &format!("{text}{errno}"))
    };
    let script = format!(
        "import socket,sys\ns=socket.socket()\ntry:\n s.connect(('127.0.0.1',{}))\nexcept OSError as e:\n sys.exit(e.errno)",
        server.port()
    );
    let run = |policy: &str| status(&wfp(&["-p", policy, "--", "python3", "-c", &script]));
    assert_eq!(run(&policy("")), 1, "EPERM");
    assert_eq!(run(&policy("errno = \"ECONNREFUSED\"\n")), 111);
    assert_eq!(server.reached(), 0);
}

#[test]
fn a_policy_for_one_program_does_not_touch_another() {
    needs!("curl", "python3");
    let folder = Folder::new("application");
    let server = Server::local();
    let python = String::from_utf8(
        Command::new("python3")
            .args(["-c", "import sys,os;print(os.path.realpath(sys.executable))"])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    let policy = folder.file(
        "policy.toml",
        &format!(
            "[[filter]]\nname = \"python\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\nwhen = {{ ALE_APP_ID = \"{}\" }}\n",
            python.trim()
        ),
    );
    let url = format!("http://127.0.0.1:{}/", server.port());
    let script = format!("import urllib.request as u;u.urlopen('{url}')");
    assert_eq!(status(&wfp(&["-p", &policy, "--", "curl", "-s", "-m", "5", &url])), 0);
    let output = wfp(&["-p", &policy, "--", "python3", "-c", &script]);
    assert_eq!(status(&output), 1, "{}", text(&output));
    assert_eq!(server.reached(), 1, "curl alone");
}

#[test]
fn two_hundred_short_lived_processes_are_all_named() {
    needs!("bash", "curl");
    let folder = Folder::new("processes");
    let server = Server::local();
    let log = folder.path("events.jsonl");
    let curl =
        String::from_utf8(Command::new("sh").args(["-c", "readlink -f $(command -v curl)"]).output().unwrap().stdout);
    let script = format!(
        "for i in $(seq 200); do curl -s -o /dev/null -m 5 http://127.0.0.1:{}/ & [ $((i % 10)) = 0 ] && wait; done; wait",
        server.port()
    );
    let output = wfp(&["--events", &log, "--user", "65534", "--", "bash", "-c", &script]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    let events = events(&log, "ALE_AUTH_CONNECT_V4");
    assert_eq!(events.len(), 200);
    for event in &events {
        assert_eq!(event["values"]["ALE_APP_ID"], curl.as_ref().unwrap().trim(), "{event}");
        assert_eq!(event["values"]["IP_REMOTE_ADDRESS"], "127.0.0.1", "{event}");
        assert_eq!(event["values"]["IP_REMOTE_PORT"], server.port(), "{event}");
        assert_eq!(event["values"]["ALE_USER_ID"], 65534, "{event}");
        assert_eq!(event["process"]["comm"], "curl", "{event}");
        assert_eq!(event["action"], "permit", "{event}");
    }
    assert_eq!(server.reached(), 200);
    // each CPU counts without gaps
    let mut last = std::collections::HashMap::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let (Some(cpu), Some(seq)) = (event["cpu"].as_u64(), event["seq"].as_u64()) else { continue };
        let seen: &mut Vec<u64> = last.entry(cpu).or_default();
        seen.push(seq);
    }
    for (cpu, mut seen) in last {
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.last().unwrap() - seen[0] + 1, seen.len() as u64, "CPU {cpu}");
    }
}

#[test]
fn two_hundred_processes_that_send_one_datagram_and_exit_are_all_named() {
    needs!("bash");
    let folder = Folder::new("datagrams");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let log = folder.path("events.jsonl");
    // bash opens /dev/udp itself: each of the 200 is a shell of its own that exits at once
    let script = format!("for i in $(seq 200); do bash -c 'echo x > /dev/udp/127.0.0.1/{port}' & done; wait");
    let output = wfp(&["--events", &log, "--", "bash", "-c", &script]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    let events = events(&log, "ALE_AUTH_CONNECT_V4");
    assert_eq!(events.len(), 200);
    for event in &events {
        assert!(event["values"]["ALE_APP_ID"].as_str().unwrap().ends_with("/bash"), "{event}");
        assert_eq!(event["values"]["IP_REMOTE_PORT"], port, "{event}");
        assert_eq!(event["values"]["IP_PROTOCOL"], 17, "{event}");
    }
}

#[test]
fn one_unconnected_socket_is_permitted_to_one_peer_and_refused_to_another() {
    needs!("python3");
    let folder = Folder::new("peers");
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (good, bad) = (bind(), bind());
    let (good_port, bad_port) = (good.local_addr().unwrap().port(), bad.local_addr().unwrap().port());
    let policy = folder.file(
        "policy.toml",
        &format!("[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\nwhen = {{ IP_REMOTE_PORT = {bad_port} }}\n"),
    );
    let script = format!(
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nr=[]\nfor p in ({good_port},{bad_port},{good_port}):\n try:\n  s.sendto(b'x',('127.0.0.1',p)); r.append('sent')\n except PermissionError: r.append('refused')\nprint(r)"
    );
    let output = wfp(&["-p", &policy, "--", "python3", "-c", &script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "['sent', 'refused', 'sent']", "{}", text(&output));
    bad.set_nonblocking(true).unwrap();
    assert!(bad.recv(&mut [0; 8]).is_err(), "nothing has arrived");
}

#[test]
fn ipv6_and_mapped_addresses() {
    needs!("python3");
    let folder = Folder::new("v6");
    let (v4, v6) = (Server::local(), Server::at((Ipv6Addr::LOCALHOST, 0)));
    let run = |layer: &str, target: &str, port: u16| {
        let policy = folder.file(
            "policy.toml",
            &format!("[[filter]]\nname = \"no\"\nlayer = \"{layer}\"\naction = \"block\"\nwhen = {{ IP_REMOTE_PORT = {port} }}\n"),
        );
        let script = format!(
            "import socket,sys\ns=socket.socket(socket.AF_INET6)\ntry:\n s.connect(('{target}',{port}))\nexcept PermissionError:\n sys.exit(9)"
        );
        status(&wfp(&["-p", &policy, "--", "python3", "-c", &script]))
    };
    assert_eq!(run("ALE_AUTH_CONNECT_V6", "::1", v6.port()), 9);
    assert_eq!(run("ALE_AUTH_CONNECT_V4", "::1", v6.port()), 0);
    // an IPv4-mapped address is IPv4 traffic
    assert_eq!(run("ALE_AUTH_CONNECT_V4", "::ffff:127.0.0.1", v4.port()), 9);
    assert_eq!(run("ALE_AUTH_CONNECT_V6", "::ffff:127.0.0.1", v4.port()), 0);
}

#[test]
fn bind_and_listen_and_accept() {
    needs!("python3", "bash");
    let folder = Folder::new("listen");
    let policy = |layer: &str, port: u16| {
        folder.file(
            "policy.toml",
            &format!("[[filter]]\nname = \"no\"\nlayer = \"{layer}\"\naction = \"block\"\nwhen = {{ IP_LOCAL_PORT = {port} }}\n"),
        )
    };
    // dual-stack: an endpoint on :: that serves IPv4 too is bound at V4 as well
    let bind = "import socket,sys\ns=socket.socket(socket.AF_INET6)\ns.setsockopt(41,26,int(sys.argv[1]))\ntry:\n s.bind(('::',23456))\nexcept PermissionError:\n sys.exit(9)";
    for (layer, only, expected) in [
        ("ALE_RESOURCE_ASSIGNMENT_V6", "1", 9),
        ("ALE_RESOURCE_ASSIGNMENT_V4", "0", 9),
        ("ALE_RESOURCE_ASSIGNMENT_V4", "1", 0),
    ] {
        let output = wfp(&["-p", &policy(layer, 23456), "--", "python3", "-c", bind, only]);
        assert_eq!(status(&output), expected, "{layer} {only}: {}", text(&output));
    }
    // a listener in the group, a client in the group: the connection is made, or its SYN is dropped
    let pair = "import socket,sys\na=socket.socket();a.bind(('127.0.0.1',23457));a.listen()\nc=socket.socket();c.settimeout(0.5)\ntry:\n c.connect(('127.0.0.1',23457))\nexcept TimeoutError:\n sys.exit(9)";
    for (layer, expected) in [("ALE_AUTH_LISTEN", 9), ("ALE_AUTH_RECV_ACCEPT", 9), ("ALE_AUTH_CONNECT", 0)] {
        let output = wfp(&["-p", &policy(layer, 23457), "--", "python3", "-c", pair]);
        assert_eq!(status(&output), expected, "{layer}: {}", text(&output));
    }
}

#[test]
fn a_late_refusal_ends_the_connect() {
    needs!("python3");
    let folder = Folder::new("late");
    let server = Server::local();
    let policy = folder.file(
        "policy.toml",
        "[[filter]]\nname = \"not from here\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\nwhen = { IP_LOCAL_ADDRESS = \"127.0.0.1\" }\n",
    );
    let script = format!(
        "import socket,sys,time\ns=socket.socket()\ns.settimeout(20)\nt=time.time()\ntry:\n s.connect(('127.0.0.1',{}))\nexcept TimeoutError:\n sys.exit(8)\nexcept OSError:\n sys.exit(9 if time.time()-t<3 else 7)",
        server.port()
    );
    let output = wfp(&["-p", &policy, "--", "python3", "-c", &script]);
    assert_eq!(status(&output), 9, "{}", text(&output));
    assert_eq!(server.reached(), 0);
}

#[test]
fn exit_statuses_and_dry_run() {
    needs!("sh", "curl");
    let folder = Folder::new("status");
    assert_eq!(status(&wfp(&["--", "sh", "-c", "exit 42"])), 42);
    assert_eq!(status(&wfp(&["--", "sh", "-c", "kill -TERM $$"])), 128 + 15);
    assert_eq!(status(&wfp(&["--", "/nowhere/at-all"])), 127);
    assert_eq!(status(&wfp(&["--", "/etc/passwd"])), 126);
    let broken = folder.file("broken.toml", "[[filter]]\nname = \"x\"\nlayer = \"NO_SUCH\"\naction = \"block\"\n");
    assert_eq!(status(&wfp(&["-p", &broken, "--", "true"])), 125);
    let server = Server::local();
    let policy =
        folder.file("policy.toml", "[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\n");
    let url = format!("http://127.0.0.1:{}/", server.port());
    let log = folder.path("events.jsonl");
    let output = wfp(&["-p", &policy, "--dry-run", "--events", &log, "--", "curl", "-s", "-m", "5", &url]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    assert_eq!(events(&log, "ALE_AUTH_CONNECT")[0]["action"], "block", "it says what it would have done");
}

#[test]
fn when_wfp_is_killed_everything_stays_filtered() {
    needs!("bash", "curl");
    let folder = Folder::new("killed");
    let (refused, served) = (Server::local(), Server::local());
    let policy = folder.file(
        "policy.toml",
        &format!("[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\nwhen = {{ IP_REMOTE_PORT = {} }}\n", refused.port()),
    );
    let (go, answer) = (folder.path("go"), folder.path("answer"));
    // world-writable, whoever the command runs as
    let script = format!(
        "touch {answer}.ready; while [ ! -e {go} ]; do sleep 0.05; done; for p in {} {}; do curl -s -o /dev/null -m 5 http://127.0.0.1:$p/; echo $? >> {answer}; done; touch {answer}.done",
        refused.port(),
        served.port()
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_wfp"))
        .args(["run", "-p", &policy, "--", "bash", "-c", &script])
        .spawn()
        .unwrap();
    let wait_for = |path: String| {
        for _ in 0..200 {
            if fs::metadata(&path).is_ok() {
                return true;
            }
            thread::sleep(std::time::Duration::from_millis(50));
        }
        false
    };
    assert!(wait_for(format!("{answer}.ready")));
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(&go, "").unwrap();
    // curl is executed only now, after wfp is gone
    assert!(wait_for(format!("{answer}.done")));
    assert_eq!(fs::read_to_string(&answer).unwrap(), "7\n0\n");
    assert_eq!((refused.reached(), served.reached()), (0, 1));
    // the next run clears up: the group of the killed one and what was pinned for it are gone
    let name = format!("run-{}-", child.id());
    let left = || {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let points = mounts.lines().filter(|line| line.contains(" cgroup2 ") || line.contains(" bpf "));
        let points: Vec<&str> = points.filter_map(|line| line.split(' ').nth(1)).collect();
        let find = Command::new("find").args(points).args(["-maxdepth", "3", "-name", &format!("{name}*")]).output();
        String::from_utf8(find.unwrap().stdout).unwrap()
    };
    assert!(left().lines().count() >= 2, "a group and pins: {:?}", left());
    thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(status(&wfp(&["--", "true"])), 0);
    assert_eq!(left(), "");
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
        thread::sleep(std::time::Duration::from_millis(25));
        seen = fs::read_to_string(&log).is_ok_and(|text| text.contains("ALE_AUTH_CONNECT_V4"));
        if seen {
            break;
        }
    }
    assert!(seen && child.try_wait().unwrap().is_none(), "the event came while the command ran");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let last = fs::read_to_string(&log).unwrap();
    let last: serde_json::Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
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
    assert_eq!(status(&wfp(&["--events", &log, "--", "curl", "-s", "-o", "/dev/null", &url])), 0);
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
fn a_full_disk_and_a_reader_that_has_gone_change_nothing_for_the_command() {
    needs!("sh");
    // every write fails: the command's own status stands, and without one the run says that it failed
    assert_eq!(status(&wfp(&["--events", "/dev/full", "--", "sh", "-c", "exit 3"])), 3);
    let output = wfp(&["--events", "/dev/full", "--", "sh", "-c", "exit 0"]);
    assert_eq!(status(&output), 125, "{}", text(&output));
    assert!(text(&output).contains("/dev/full"), "{}", text(&output));
    // standard error is full, or closed
    for redirection in ["2>/dev/full", "2>&-"] {
        let wfp = env!("CARGO_BIN_EXE_wfp");
        let script = format!("{wfp} run --trace -- sh -c 'exit 4' {redirection}");
        let status = Command::new("sh").args(["-c", &script]).status().unwrap();
        assert_eq!(status.code(), Some(4), "{redirection}");
    }
}

#[test]
fn an_address_that_is_added_while_the_command_runs_is_local() {
    needs!("unshare", "ip", "python3");
    let folder = Folder::new("added");
    let log = folder.path("events.jsonl");
    let (ready, go) = (folder.path("ready"), folder.path("go"));
    // in a network namespace of its own: the address belongs to nobody else
    let command = format!(
        "touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done; python3 -c 'import socket; \
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.connect((\"203.0.113.7\",9))'"
    );
    fs::set_permissions(&folder.0, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let wfp = env!("CARGO_BIN_EXE_wfp");
    let script = format!(
        "ip link set lo up; {wfp} run --events {log} -- sh -c '{}' & while [ ! -e {ready} ]; do sleep 0.05; done; \
         ip address add 203.0.113.7/32 dev lo; sleep 0.5; touch {go}; wait $!",
        command.replace('\'', "'\\''")
    );
    let output = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output));
    let found = events(&log, "ALE_AUTH_CONNECT_V4");
    assert_eq!(found[0]["values"]["FLAGS"], 1, "IS_LOOPBACK: {}", found[0]);
}
