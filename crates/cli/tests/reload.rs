//! `wfp run` takes its policies anew: on SIGHUP, and with `--watch` when a file changes.

mod common;

use common::Folder;
use serde_json::Value as Json;
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Whether the tests can run here; with WFP_TEST_EVERYTHING set, they must.
fn can_run() -> bool {
    let missing = openwfp_kernel::features::missing();
    let python = Command::new("python3").arg("--version").output().is_ok();
    let obstacle = missing.first().map(ToString::to_string).or((!python).then(|| "python3 is not installed".into()));
    if let Some(obstacle) = &obstacle {
        assert!(std::env::var_os("WFP_TEST_EVERYTHING").is_none(), "cannot run here: {obstacle}");
        let _ = writeln!(std::io::stderr(), "skipped: {obstacle}");
    }
    obstacle.is_none()
}

/// Connects to two ports in turn until it is ended.
const CLIENT: &str = "import socket,sys,time
while True:
 for port in sys.argv[1:]:
  s=socket.socket()
  try: s.connect(('127.0.0.1',int(port)))
  except OSError: pass
  s.close()
 time.sleep(0.01)";

/// A policy that blocks connects to a port.
fn block(port: u16) -> String {
    block_at("ALE_AUTH_CONNECT_V4", "IP_REMOTE_PORT", port)
}

fn block_at(layer: &str, field: &str, port: u16) -> String {
    format!(
        "[[filter]]\nname = \"not {port}\"\nlayer = \"{layer}\"\naction = \"block\"\nwhen = {{ {field} = {port} }}\n"
    )
}

/// A run that is ended with the test.
struct Run {
    child: Child,
    log: String,
}

impl Run {
    fn start(folder: &Folder, options: &[&str], command: &[&str]) -> Self {
        let log = folder.file("events.jsonl", "");
        let child = Command::new(env!("CARGO_BIN_EXE_wfp"))
            .args(["run", "--events", &log])
            .args(options)
            .arg("--")
            .args(command)
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn hang_up(&self) {
        let status = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    fn events(&self) -> Vec<Json> {
        let text = fs::read_to_string(&self.log).unwrap();
        // the last line may be half written
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for an event; what came until then.
    #[track_caller]
    fn wait_for(&mut self, what: impl Fn(&Json) -> bool) -> Json {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if let Some(found) = self.events().into_iter().find(&what) {
                return found;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "wfp has ended: {}", self.stderr());
            thread::sleep(Duration::from_millis(20));
        }
        panic!("it did not come: {:?}", self.events().last());
    }

    /// Waits until both ports were met under a generation.
    #[track_caller]
    fn met(&mut self, generation: u64, ports: [u16; 2]) {
        for port in ports {
            self.wait_for(|event| {
                event["kind"] == "classify"
                    && event["layer"] == "ALE_AUTH_CONNECT_V4"
                    && event["generation"] == generation
                    && event["values"]["IP_REMOTE_PORT"] == port
            });
        }
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        let _ = self.child.stderr.take().unwrap().read_to_string(&mut text);
        text
    }

    /// Ends the command; what wfp said, and all events.
    fn end(mut self) -> (String, Vec<Json>) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let text = self.stderr();
        assert_eq!(self.child.wait().unwrap().code(), Some(128 + 15), "{text}");
        (text, self.events())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = Command::new("kill").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
    }
}

/// The contract of the events: each connect was decided as the policy of its generation says, by a filter of it.
#[track_caller]
fn agree(events: &[Json], blocked: &[(u64, u16)]) {
    let connects = events.iter().filter(|event| event["kind"] == "classify" && event["layer"] == "ALE_AUTH_CONNECT_V4");
    for event in connects {
        let generation = event["generation"].as_u64().unwrap();
        let port = event["values"]["IP_REMOTE_PORT"].as_u64().unwrap();
        let expected = blocked.iter().any(|&(of, refused)| of == generation && u64::from(refused) == port);
        assert_eq!(event["action"], if expected { "block" } else { "permit" }, "{event}");
        let filter = if expected { Json::from(format!("not {port}")) } else { Json::Null };
        assert_eq!(event["filter"]["name"], filter, "{event}");
    }
}

fn of_kind<'a>(events: &'a [Json], kind: &str) -> Vec<&'a Json> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

/// Two servers, and the arguments of a client of both.
fn servers() -> ([TcpListener; 2], [u16; 2], Vec<String>) {
    let servers = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = [0, 1].map(|index: usize| servers[index].local_addr().unwrap().port());
    let mut command: Vec<String> = ["python3", "-c", CLIENT].map(String::from).into();
    command.extend(ports.map(|port| port.to_string()));
    for server in &servers {
        let server = server.try_clone().unwrap();
        thread::spawn(move || server.incoming().for_each(drop));
    }
    (servers, ports, command)
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

#[test]
fn sighup_takes_the_policy_anew_and_a_broken_one_changes_nothing() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("sighup");
    let (_servers, [a, b], command) = servers();
    let policy = folder.file("policy.toml", &block(a));
    let mut run = Run::start(&folder, &["-p", &policy], &words(&command));
    run.met(1, [a, b]);
    folder.file("policy.toml", &block(b));
    run.hang_up();
    run.met(2, [a, b]);
    folder.file("policy.toml", &block(a).replace("ALE_AUTH_CONNECT_V4", "ALE_AUTH_CONECT"));
    run.hang_up();
    let refused = run.wait_for(|event| event["kind"] == "policy" && event["error"].is_string());
    assert_eq!((&refused["generation"], &refused["filters"]), (&2.into(), &1.into()), "what holds still");
    folder.file("policy.toml", "# nothing is filtered\n");
    run.hang_up();
    run.met(3, [a, b]);
    let (said, events) = run.end();
    agree(&events, &[(1, a), (2, b)]);
    let policies = of_kind(&events, "policy");
    let generations: Vec<(u64, u64)> = policies
        .iter()
        .filter(|event| event["error"].is_null())
        .map(|event| (event["generation"].as_u64().unwrap(), event["filters"].as_u64().unwrap()))
        .collect();
    assert_eq!(generations, [(2, 1), (3, 0)]);
    assert!(said.contains("policy reloaded: generation 2, 1 filter\n"), "{said}");
    assert!(said.contains("policy reloaded: generation 3, 0 filters\n"), "{said}");
    // the mistake is drawn as `wfp check` draws it
    assert!(said.contains("ALE_AUTH_CONECT") && said.contains("^^^") && said.contains("policy.toml:3"), "{said}");
    assert!(said.contains("the policy was not reloaded; generation 2 holds"), "{said}");
    let mut ids: Vec<u64> =
        of_kind(&events, "classify").iter().filter_map(|event| event["filter"]["id"].as_u64()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, [1, 2], "an id names one filter");
}

#[test]
fn a_watched_policy_is_taken_anew_when_its_file_changes() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("watch");
    let (_servers, [a, b], command) = servers();
    let policy = folder.file("policy.toml", &block(a));
    let mut run = Run::start(&folder, &["--watch", "-p", &policy], &words(&command));
    run.met(1, [a, b]);
    // as editors do it
    let new = folder.file("policy.toml.new", &block(b));
    fs::rename(&new, &policy).unwrap();
    run.met(2, [a, b]);
    // in place, slowly: nothing is taken before the file is closed
    let mut file = fs::File::create(&policy).unwrap();
    thread::sleep(Duration::from_millis(400));
    file.write_all(block(a).as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(400));
    drop(file);
    run.met(3, [a, b]);
    // the same once more, another file, and an empty one are no policy to take
    folder.file("policy.toml", &block(a));
    folder.file("notes.txt", "hello");
    thread::sleep(Duration::from_millis(400));
    folder.file("policy.toml", "\n");
    run.wait_for(|event| event["kind"] == "policy" && event["error"].is_string());
    // a link that leads elsewhere now
    folder.file("other.toml", &block(b));
    symlink("other.toml", &new).unwrap();
    fs::rename(&new, &policy).unwrap();
    run.met(4, [a, b]);
    folder.file("other.toml", &block(a));
    run.met(5, [a, b]);
    let (said, events) = run.end();
    agree(&events, &[(1, a), (2, b), (3, a), (4, b), (5, a)]);
    assert_eq!(said.matches("policy reloaded").count(), 4, "{said}");
    assert_eq!(said.matches("policy.toml is empty").count(), 1, "{said}");
}

#[test]
fn sockets_of_before_meet_the_new_layers_of_a_watched_policy() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("layers");
    fs::set_permissions(folder.file("go", "").trim_end_matches("go"), fs::Permissions::from_mode(0o777)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    // listens under the first policy; the second asks who listens there when somebody connects
    let script = format!(
        "import socket,time,threading
a=socket.socket();a.setsockopt(1,2,1);a.bind(('127.0.0.1',{port}));a.listen()
while True:
 c=socket.socket();c.settimeout(0.2)
 try: c.connect(('127.0.0.1',{port}))
 except OSError: pass
 c.close();time.sleep(0.02)"
    );
    let policy = folder.file("policy.toml", &block(9));
    let mut run = Run::start(&folder, &["--watch", "-p", &policy], &["python3", "-c", &script]);
    let accepts = |generation: u64| {
        move |event: &Json| event["layer"] == "ALE_AUTH_RECV_ACCEPT_V4" && event["generation"] == generation
    };
    let python = run.wait_for(accepts(1))["values"]["ALE_APP_ID"].as_str().unwrap().to_owned();
    let accept = |path: &str| {
        format!(
            "[[filter]]\nname = \"not it\"\nlayer = \"ALE_AUTH_RECV_ACCEPT\"\naction = \"block\"\nwhen = {{ ALE_APP_ID = \"{path}\" }}\n"
        )
    };
    folder.file("policy.toml", &accept("/bin/sh"));
    assert_eq!(run.wait_for(accepts(2))["action"], "permit");
    folder.file("policy.toml", &accept(&python));
    assert_eq!(run.wait_for(accepts(3))["action"], "block");
    let (said, _) = run.end();
    assert!(!said.contains("made before"), "everything was attached from the start: {said}");
}

#[test]
fn a_connection_that_is_no_longer_permitted_is_ended() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("connection");
    let (_servers, [a, b], _) = servers();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let keeper = thread::spawn(move || server.accept().unwrap());
    let policy = folder.file("policy.toml", &block(a));
    let script = format!(
        "import socket,sys,time
s=socket.socket();s.connect(('127.0.0.1',{port}))
for i in range(200):
 try: s.send(b'x')
 except OSError: sys.exit(9)
 time.sleep(0.05)"
    );
    let mut run = Run::start(&folder, &["-p", &policy], &["python3", "-c", &script]);
    run.wait_for(|event| event["values"]["IP_REMOTE_PORT"] == port);
    folder.file("policy.toml", &block(b));
    run.hang_up();
    run.wait_for(|event| event["kind"] == "policy" && event["generation"] == 2);
    thread::sleep(Duration::from_millis(500));
    assert!(run.child.try_wait().unwrap().is_none(), "it is permitted still");
    folder.file("policy.toml", &block(port));
    run.hang_up();
    assert_eq!(run.child.wait().unwrap().code(), Some(9));
    drop(keeper.join().unwrap());
}

#[test]
fn a_run_that_is_not_watched_can_take_new_layers_too() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("unwatched");
    let policy = folder.file("policy.toml", &block(9));
    let script = "import socket,time
while True:
 s=socket.socket()
 try: s.bind(('127.0.0.1',0)); print('bound',flush=True)
 except OSError: print('refused',flush=True)
 time.sleep(0.05)";
    let mut child = Command::new(env!("CARGO_BIN_EXE_wfp"))
        .args(["run", "-p", &policy, "--", "python3", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(out.next().unwrap().unwrap(), "bound");
    folder.file("policy.toml", &block_at("ALE_RESOURCE_ASSIGNMENT_V4", "IP_PROTOCOL", 6));
    let signal = |number: &str| Command::new("kill").args([number, &child.id().to_string()]).status().unwrap();
    signal("-HUP");
    assert!(out.by_ref().take(100).any(|line| line.unwrap() == "refused"));
    signal("-TERM");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(said.contains("sockets that were made before"), "{said}");
    assert!(said.contains("generation 2, 1 filter"), "{said}");
}

#[test]
fn groups_that_were_not_named_at_the_start_are_refused_unless_it_is_watched() {
    if !can_run() {
        return;
    }
    let permit = "[[filter]]\nname = \"root's\"\nlayer = \"ALE_AUTH_CONNECT_V4\"\naction = \"permit\"
when = { ALE_USER_ID = { group = \"root\" } }\n";
    for watched in [false, true] {
        let folder = Folder::new(&format!("groups-{watched}"));
        let policy = folder.file("policy.toml", &block(9));
        let client = ["python3", "-c", CLIENT, "9"];
        let options = ["-p", &policy, "--watch"];
        let mut run = Run::start(&folder, &options[..if watched { 3 } else { 2 }], &client);
        run.wait_for(|event| event["generation"] == 1 && event["values"]["IP_REMOTE_PORT"] == 9);
        folder.file("policy.toml", permit);
        run.hang_up();
        let event = run.wait_for(|event| event["kind"] == "policy");
        let (said, _) = run.end();
        if watched {
            assert_eq!(event["generation"], 2, "{said}");
        } else {
            assert!(said.contains("names the group 0") && said.contains("--watch"), "{said}");
            assert!(said.contains("generation 1 holds"), "{said}");
        }
    }
}

#[test]
fn a_hang_up_is_the_command_s_without_policy_files_and_from_a_terminal() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("terminal");
    // the tests may run under nohup, which has hang-ups ignored
    let command = "import signal,socket,time
signal.signal(signal.SIGHUP,signal.SIG_DFL)
socket.socket().bind(('127.0.0.1',0))
time.sleep(60)";
    let mut run = Run::start(&folder, &[], &["python3", "-c", command]);
    run.wait_for(|event| event["kind"] == "classify");
    run.hang_up();
    assert_eq!(run.child.wait().unwrap().code(), Some(128 + 1));
    // a session of its own on a terminal that goes away
    let policy = folder.file("policy.toml", &block(9));
    let log = folder.file("events.jsonl", "");
    let script = "import os,pty,sys,time
pid,terminal=pty.fork()
if pid==0: os.execv(sys.argv[1],sys.argv[1:])
while 'classify' not in open(sys.argv[4]).read(): time.sleep(0.02)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid,0)[1]))";
    let output = Command::new("python3")
        .args(["-c", script, env!("CARGO_BIN_EXE_wfp"), "run", "--events", &log, "-p", &policy])
        .args(["--", "python3", "-c", command])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(128 + 1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!fs::read_to_string(&log).unwrap().contains("\"kind\":\"policy\""));
}

#[test]
fn a_policy_that_cannot_be_read_again_or_that_the_command_can_change() {
    if !can_run() {
        return;
    }
    let folder = Folder::new("again");
    let policy = folder.file("policy.toml", &block(9));
    // a pipe is empty the second time
    let script = format!(
        "{} run -p <(cat {policy}) -- bash -c 'kill -HUP $PPID; sleep 0.5; kill -HUP $PPID; sleep 0.5'",
        env!("CARGO_BIN_EXE_wfp")
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    if said.contains("not permitted") {
        return; // it may not even ask
    }
    assert_eq!(said.matches("is not a file that can be read again").count(), 2, "{said}");
    assert!(said.contains("generation 1 holds"), "{said}");
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o666)).unwrap();
    let output = common::wfp(&["run", "--user", "65534", "--watch", "-p", &policy, "--", "true"]);
    let said = common::stderr(&output);
    assert!(said.contains("the command can change its own policy"), "{said}");
}
