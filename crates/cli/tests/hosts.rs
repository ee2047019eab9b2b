//! Callouts in processes of their own, asked about live traffic: `wfp run` in a network namespace of the test's own, with an echo
//! server outside of the filtered group and a client in it.

#[macro_use]
mod common;

use common::{Folder, lines, live::status, live::text};
use openwfp_callout::{Answer, Callout, Classification, ClassifyOut, PendedOperation, Platform, Registration, Report};
use openwfp_model::{Data, Guid};
use serde_json::{Value as Json, json};
use std::{
    fs,
    mem::forget,
    os::unix::fs::PermissionsExt,
    process::{Command, ExitCode, Output, exit},
    sync::Arc,
    thread,
    time::Duration,
};

/// Pends, and has another thread do something with the operation, after the packet after it is answered.
fn answer_later(out: &mut ClassifyOut, with: impl FnOnce(PendedOperation) + Send + 'static) {
    let operation = out.pend().unwrap();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        with(operation);
    });
}

/// Does what the payload of a datagram says.
struct ByPayload;

impl Callout for ByPayload {
    fn registration(&self) -> Registration {
        Registration::new(Guid::named("test", "by payload"), "by-payload").pend_timeout(Duration::from_secs(1))
    }

    /// Tells what process it is in.
    fn registered(&self, platform: &Platform) {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().replace('\t', " ");
        let names = ["Uid:", "Gid:", "Groups:", "CapEff:", "CapBnd:", "NoNewPrivs:"];
        let entries = names.map(|name| (name, Data::Text(line(name)))).into_iter();
        let group = fs::read_to_string("/proc/self/cgroup").unwrap();
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let open =
            open.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|number| number > 2));
        // the one by which the folder is read
        let count = i64::try_from(open.count() - 1).unwrap();
        let variables = std::env::vars().map(|(name, _)| Data::Text(name)).collect();
        platform.report(Report::entries(entries.chain([
            ("group", Data::Text(group)),
            ("descriptors", Data::Integer(count)),
            ("variables", Data::List(variables)),
        ])));
    }

    fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
        let packet = event.packet().unwrap();
        match packet.payload() {
            b"change" if event.injection_state().is_own() => out.permit(),
            b"change" => {
                out.replace_payload(&packet, b"changed, and longer than it was");
            }
            b"absorb" => {
                out.absorb();
            }
            b"later" => answer_later(out, |operation| operation.complete(Answer::permit())),
            b"later-no" => answer_later(out, |operation| operation.complete(Answer::block())),
            b"dropped" => answer_later(out, drop),
            b"never" => answer_later(out, forget),
            b"later-exit" => answer_later(out, |_| exit(3)),
            b"panic" => panic!("as it was told to"),
            b"exit" => exit(3),
            b"hang" => thread::sleep(Duration::from_secs(1000)),
            payload if payload.starts_with(b"drop") => out.block(),
            _ => out.permit(),
        }
    }
}

/// Not a test by itself: what the host does that the tests start.
#[test]
fn acts_as_host() {
    if std::env::var_os(openwfp_channel::VARIABLE).is_some() {
        let served = openwfp_callout::serve([Arc::new(ByPayload) as Arc<dyn Callout>]);
        exit(i32::from(served != ExitCode::SUCCESS));
    }
}

const PORT: u16 = 4711;

/// A folder with everything that a run needs.
struct Place {
    folder: Folder,
    log: String,
}

impl Place {
    fn new(name: &str) -> Self {
        let folder = Folder::new(&format!("hosts-{name}"));
        folder.open_to_all();
        for (name, text) in [
            ("client.py", include_str!("hosts/client.py")),
            ("echo.py", include_str!("hosts/echo.py")),
            ("host.py", include_str!("hosts/host.py")),
        ] {
            folder.file(name, text);
        }
        let log = folder.path("events.jsonl");
        Self { folder, log }
    }

    /// A host of the library: this program, which nobody else could read where it stands.
    fn host(&self) -> String {
        let program = self.folder.path("host");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        self.script("serve", &format!("exec {program} --exact acts_as_host"))
    }

    fn script(&self, name: &str, text: &str) -> String {
        let path = self.folder.file(name, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A policy in which a host is asked about what leaves for the echo server.
    fn policy(&self, host: &str, more: &str) -> String {
        let text = format!(
            "[[callout]]\nname = \"asked\"\nhost = \"{host}\"\n\n[[filter]]\nname = \"what leaves\"\nlayer = \"OUTBOUND_TRANSPORT_V4\"\n\
             action = {{ callout = \"asked\", kind = \"terminating\" }}\nwhen = {{ IP_REMOTE_PORT = {PORT} }}\n{more}\n"
        );
        self.folder.file("policy.toml", &text)
    }

    /// Runs a script with `$run` (wfp), `$say` (the client) and `$pid` (the process of the host) in a network namespace in which the
    /// echo server is.
    fn run(&self, script: &str) -> Output {
        let (folder, log) = (self.folder.path(""), &self.log);
        let policy = self.folder.path("policy.toml");
        let wfp = env!("CARGO_BIN_EXE_wfp");
        let script = format!(
            "ip link set lo up; cd {folder}; wait_for() {{ for i in $(seq 1000); do eval \"$1\" && return; sleep 0.01; done; echo \
             \"never: $1\"; exit 77; }}\n\
             python3 echo.py 127.0.0.1 {PORT} heard & echo=$!; trap 'kill $echo' EXIT; wait_for '[ -e heard.ready ]'\n\
             run='{wfp} run -p {policy} --events {log}'; say='python3 client.py {PORT} {folder}'\n\
             host() {{ sed -n 's/.*\"host\":\"ready\",\"pid\":\\([0-9]*\\).*/\\1/p' {log} | tail -1; }}\n{script}"
        );
        Command::new("unshare").args(["--net", "bash", "-c", &script]).output().unwrap()
    }

    fn events(&self) -> Vec<Json> {
        lines(&fs::read_to_string(&self.log).unwrap())
    }

    /// What was reported of hosts, and by callouts.
    fn reports(&self) -> Vec<Json> {
        let of_callouts = |event: &Json| event["kind"] == "callout" && event["callout"] == "asked";
        self.events().into_iter().filter(of_callouts).map(|event| event["report"].clone()).collect()
    }

    fn heard(&self) -> Vec<String> {
        let heard = fs::read_to_string(self.folder.path("heard")).unwrap_or_default();
        heard.lines().map(str::to_owned).collect()
    }
}

#[track_caller]
fn says(output: &Output, expected: &[&str]) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!((said.lines().collect::<Vec<_>>(), status(output)), (expected.to_vec(), 0), "{}", text(output));
}

#[test]
fn a_host_permits_blocks_changes_and_absorbs() {
    needs!("unshare", "ip", "python3", "bash");
    let place = Place::new("answers");
    place.policy(&place.host(), "");
    let output = place.run("exec 7</dev/null; $run -- $say say:hello say:drop say:change say:absorb say:again");
    let expected =
        ["hello b'hello'", "drop None", "change b'changed, and longer than it was'", "absorb None", "again b'again'"];
    says(&output, &expected);
    assert_eq!(place.heard(), ["hello", "changed, and longer than it was", "again"]);
    // it is nobody, has no rights, is in no group of the run, and has its channel alone
    let reports = place.reports();
    let own = reports.iter().find(|report| report["Uid:"].is_string()).unwrap_or_else(|| panic!("{reports:?}"));
    assert_eq!(own["Uid:"], "Uid: 65534 65534 65534 65534");
    assert_eq!(own["Gid:"], "Gid: 65534 65534 65534 65534");
    assert_eq!(own["Groups:"].as_str().unwrap().trim(), "Groups:");
    assert_eq!(own["CapEff:"], "CapEff: 0000000000000000");
    assert_eq!(own["CapBnd:"], "CapBnd: 0000000000000000");
    assert_eq!(own["NoNewPrivs:"], "NoNewPrivs: 1");
    assert!(!own["group"].as_str().unwrap().contains("openwfp"), "{own}");
    // the memory is mapped, and needs none any more; the other two are a pipe by which its threads wake each other
    assert_eq!(own["descriptors"], 5, "{own}");
    let variables = own["variables"].as_array().unwrap();
    assert!(variables.iter().all(|name| ["PATH", "PWD", "OPENWFP_HOST"].contains(&name.as_str().unwrap())), "{own}");
}

#[test]
fn what_is_pended_waits_for_its_answer_and_nothing_else_does() {
    needs!("unshare", "ip", "python3", "bash");
    let place = Place::new("pend");
    place.policy(&place.host(), "");
    // the second goes past the first; a late answer is heard while another question is waited for
    let output = place.run("$run -- $say send:later say:hello hear:later send:later-no say:hello hear:none");
    says(&output, &["hello b'hello'", "later b'later'", "hello b'hello'", "none None"]);
    assert_eq!(place.heard(), ["hello", "later", "hello"]);
    let place = Place::new("pend-closed");
    place.policy(&place.host(), "flags = [\"PERMIT_IF_CALLOUT_UNREGISTERED\"]");
    // let go of, or too late: blocked; with a host that is gone: as unregistered
    let output = place.run("$run -- $say say:dropped send:never say:hello pause:1.5 say:hello say:later-exit");
    says(&output, &["dropped None", "hello b'hello'", "hello b'hello'", "later-exit b'later-exit'"]);
    assert_eq!(place.heard(), ["hello", "hello", "later-exit"]);
}

#[test]
fn a_host_that_panics_ends_hangs_or_is_killed_blocks_until_another_is_there() {
    needs!("unshare", "ip", "python3", "bash");
    let place = Place::new("chaos");
    place.policy(&place.host(), "");
    let output = place.run(
        "$run -- $say fail:panic until:one fail:exit until:two say:hang until:three mark:kill until:four say:drop & command=$!\n\
         wait_for '[ -e kill ]'; kill -9 $(host); rm kill; wait $command",
    );
    let expected =
        ["panic None", "again True", "exit None", "again True", "hang None", "again True", "again True", "drop None"];
    says(&output, &expected);
    let reports = place.reports();
    let gone: Vec<&str> = reports.iter().filter_map(|report| report["why"].as_str()).collect();
    assert_eq!(gone.len(), 4, "{reports:?}");
    assert!(gone[0].contains("panicked"), "{gone:?}");
    assert!(gone[1].contains("exit status: 3"), "{gone:?}");
    assert!(gone[2].contains("does not answer") || gone[2].contains("hangs"), "{gone:?}");
    assert!(gone[3].contains("signal: 9"), "{gone:?}");
    let ready = reports.iter().filter(|report| report["host"] == "ready").count();
    assert_eq!(ready, 5, "{reports:?}");
    assert!(text(&output).contains("counts as unregistered"), "{}", text(&output));
}

#[test]
fn what_permits_without_a_callout_permits_while_its_host_is_gone() {
    needs!("unshare", "ip", "python3", "bash");
    let place = Place::new("open");
    place.policy(&place.host(), "flags = [\"PERMIT_IF_CALLOUT_UNREGISTERED\"]");
    // the one that it dies of goes on, and so do those that come while nobody is there
    let output = place.run("$run -- $say say:drop say:exit say:drop");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said[..2], ["drop None", "exit b'exit'"], "{}", text(&output));
}

#[test]
fn a_host_ends_with_wfp_and_its_packets_are_blocked_then() {
    needs!("unshare", "ip", "python3", "bash");
    let place = Place::new("orphan");
    place.policy(&place.host(), "");
    let output = place.run(
        "$run -- $say say:hello mark:kill say:none & command=$!\nwait_for '[ -e kill ]'; host=$(host); kill -9 $command\n\
         wait_for '! readlink /proc/$host/exe >&2'; sleep 1.2; rm kill; sleep 1.5\n\
         # what a killed wfp has left, the next one clears up\n${run%% *} run -- true",
    );
    // what the command says comes through the same pipe, though wfp is gone
    let said = text(&output);
    assert!(said.contains("hello b'hello'") && said.contains("none None"), "{said}");
    assert_eq!(place.heard(), ["hello"], "{said}");
}

#[test]
fn a_host_learns_the_filters_of_a_policy_that_is_taken_anew() {
    needs!("unshare", "ip", "python3", "bash");
    let place = Place::new("anew");
    place.policy(&place.host(), "");
    let output = place.run(
        "$run -- $say say:hello mark:anew say:again say:drop & command=$!\nwait_for '[ -e anew ]'\n\
         sed -i 's/what leaves/another/' policy.toml; kill -HUP $command\n\
         wait_for 'grep -q generation.:2,.filters events.jsonl'; rm anew; wait $command",
    );
    says(&output, &["hello b'hello'", "again b'again'", "drop None"]);
    let gone = place.reports().iter().filter(|report| report["why"].is_string()).count();
    assert_eq!(gone, 0, "the host stays");
}

#[test]
fn a_host_in_another_language_serves_by_the_documented_protocol() {
    needs!("unshare", "ip", "bash");
    if fs::metadata("/usr/bin/python3").is_err() {
        return common::live::may_skip("there is no /usr/bin/python3");
    }
    let place = Place::new("python");
    let path = place.folder.path("host.py");
    place.policy(&place.script("serve", &format!("exec /usr/bin/python3 {path}")), "");
    let output = place.run(
        "$run -- $say say:hello say:drop send:later say:past hear:later fail:garbage until:hello say:twice until:hello say:more",
    );
    let expected = [
        "hello b'hello'",
        "drop None",
        "past b'past'",
        "later b'later'",
        "garbage None",
        "again True",
        "twice b'twice'",
        "again True",
        "more b'more'",
    ];
    says(&output, &expected);
    let reports = place.reports();
    let gone: Vec<&str> = reports.iter().filter_map(|report| report["why"].as_str()).collect();
    assert_eq!(
        gone,
        ["what it writes makes no sense: a message is longer than a slot", "it answers what it was not asked"]
    );
}

#[test]
fn a_host_that_cannot_be_had_stops_the_run() {
    needs!("unshare", "ip", "python3", "bash");
    let place = Place::new("none");
    place.policy("/nonexistent/host", "");
    let output = place.run("$run -- touch ran");
    assert_eq!(status(&output), 125, "{}", text(&output));
    assert!(text(&output).contains("callout asked: its host cannot be had"), "{}", text(&output));
    place.policy(&place.script("silent", "sleep 60"), "");
    let output = place.run("$run -- touch ran");
    assert_eq!(status(&output), 125, "{}", text(&output));
    assert!(text(&output).contains("it does not begin"), "{}", text(&output));
    assert!(fs::metadata(place.folder.path("ran")).is_err());
}

#[test]
fn a_built_in_callout_reports_what_it_sees() {
    needs!("unshare", "ip", "python3", "bash");
    let place = Place::new("dns");
    let text = format!(
        "[[callout]]\nname = \"dns-log\"\nuses = \"openwfp.dns-monitor\"\n\n[[filter]]\nname = \"DNS\"\nlayer = \"DATAGRAM_DATA\"\n\
         action = {{ callout = \"dns-log\", kind = \"inspection\" }}\nwhen = {{ IP_REMOTE_PORT = {PORT} }}\n"
    );
    place.folder.file("policy.toml", &text);
    let ask = format!(
        "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(5); s.connect((\"127.0.0.1\",{PORT}))\n\
         s.send(bytes.fromhex(\"123481800001000000000000\")+b\"\\x07example\\x03com\\0\\0\\x01\\0\\x01\"); s.recv(99)\n\
         s.send(bytes.fromhex(\"123401000001000000000000\")+b\"\\x07example\\x03net\\0\\0\\x1c\\0\\x01\"); s.recv(99)\n\
         s.send(bytes.fromhex(\"123481830001000000000000\")+b\"\\x07example\\x03net\\0\\0\\x1c\\0\\x01\"); s.recv(99)\n"
    );
    place.folder.file("ask.py", &ask);
    let output = place.run("$run -- python3 ask.py");
    says(&output, &[]);
    let events = place.events();
    let dns = events.iter().find(|event| event["kind"] == "dns").unwrap_or_else(|| panic!("{events:?}"));
    assert_eq!(
        (&dns["name"], &dns["type"], &dns["callout"]),
        (&json!("example.net"), &json!("AAAA"), &json!("dns-log"))
    );
    assert_eq!((&dns["code"], &dns["server"]), (&json!("NXDOMAIN"), &json!(format!("127.0.0.1:{PORT}"))));
    assert!(dns["process"]["pid"].as_u64().is_some_and(|pid| pid > 1), "{dns}");
}

/// Two ends, each with the policy; between them nobody reads what is said.
#[test]
fn a_built_in_callout_encrypts_between_two_machines() {
    needs!("unshare", "ip", "python3", "bash");
    let place = Place::new("cipher");
    let text = "[[callout]]\nname = \"cipher\"\nuses = \"openwfp.datagram-cipher\"\n[callout.settings]\nkey = { base64 = \
         \"ZXhhbXBsZSBrZXksIG5vdCBmb3IgcmVhbCB1c2UuLi4=\" }\n\n[[filter]]\nname = \"datagrams\"\nlayer = \"DATAGRAM_DATA\"\n\
         action = { callout = \"cipher\", kind = \"terminating\" }\nwhen = { IP_PROTOCOL = \"udp\", IP_REMOTE_ADDRESS = \"10.9.9.0/24\" }\n";
    place.folder.file("policy.toml", text);
    // the other end echoes what it gets: sealed, and for the first to open again
    let output = place.run(
        "unshare --net sleep 60 & other=$!; wait_for '[ $(readlink /proc/$other/ns/net) != $(readlink /proc/self/ns/net) ]'\n\
         ip link add w0 type veth peer name w1 netns $other; ip address add 10.9.9.1/24 dev w0; ip link set w0 up\n\
         nsenter --net=/proc/$other/ns/net sh -c \"ip address add 10.9.9.2/24 dev w1; ip link set w1 up; exec python3 echo.py 10.9.9.2 4711 sealed\" & far=$!\n\
         trap 'kill $echo $far $other' EXIT; wait_for '[ -e sealed.ready ]'\n\
         PEER=10.9.9.2 $run -- $say say:secret say:another-secret",
    );
    says(&output, &["secret b'secret'", "another-secret b'another-secret'"]);
    let sealed = fs::read(place.folder.path("sealed")).unwrap();
    assert!(sealed.len() > 2 * 46, "{sealed:?}");
    assert!(!sealed.windows(6).any(|window| window == b"secret"));
}
