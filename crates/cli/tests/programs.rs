//! `wfp run` with a condition on a program and one on a port in one filter.
//!
//! Ports 80 and 8080 are those of a network namespace of the test, in which its servers run too, outside the filtered group.

#[macro_use]
mod common;

use common::{
    Folder,
    live::{blocking, events, status, text},
};
use std::{collections::BTreeSet, fs, process::Command};

const PYTHON: &str = "/usr/bin/python3";

/// Serves both versions of IP at ports 80 and 8080, and writes down at which one it accepts. It ends when it is told to, and in any case.
const SERVER: &str = "import http.server,signal,socket,sys,threading,time
class Handler(http.server.BaseHTTPRequestHandler):
 def do_GET(self):
  self.send_response(200); self.end_headers(); self.wfile.write(b'hello')
 def log_message(self,*_): pass
class Server(http.server.ThreadingHTTPServer):
 address_family=socket.AF_INET6
 def verify_request(self,*_):
  accepted.write(f'{self.server_port}\\n'); return True
signal.alarm(60)
accepted=open(sys.argv[1]+'/accepted','w',buffering=1)
for port in 80,8080:
 threading.Thread(target=Server(('::',port),Handler).serve_forever).start()
open(sys.argv[1]+'/ready','w')
";

/// Ends with the errno of the connect.
const CLIENT: &str = "import sys,urllib.error as e,urllib.request as r
try:
 sys.exit(r.urlopen(sys.argv[1],timeout=5).read()!=b'hello' and 99)
except e.URLError as error:
 sys.exit(error.reason.errno or 98)
";

/// What curl and python3 met in one run, each at both ports over both versions of IP.
struct Met {
    /// Client, port, exit status.
    statuses: BTreeSet<(String, u16, i32)>,
    /// How many connections the servers at 80 and at 8080 have accepted.
    accepted: (usize, usize),
    /// Application, port, action of every connect.
    decided: BTreeSet<(String, u64, String)>,
    /// How many connects there were.
    connects: usize,
}

/// Runs both clients under one policy that blocks connects under a condition.
#[track_caller]
fn under(name: &str, when: &str) -> Met {
    let folder = Folder::new(name);
    folder.open_to_all();
    let policy = blocking(&folder, "ALE_AUTH_CONNECT", when);
    let (server, client) = (folder.file("server.py", SERVER), folder.file("client.py", CLIENT));
    let (log, at) = (folder.path("events.jsonl"), folder.path(""));
    let clients = format!(
        "for host in 127.0.0.1 [::1]; do for port in 80 8080; do url=http://$host:$port/
        curl -g -s -o /dev/null -m 5 $url; echo curl $port $?
        {PYTHON} {client} $url; echo python3 $port $?
        done; done"
    );
    let clients = folder.file("clients.sh", &clients);
    let script = format!(
        "ip link set lo up; {PYTHON} {server} {at} & trap \"kill $!\" EXIT
        for i in $(seq 200); do [ -e {at}/ready ] && break; sleep 0.05; done
        {} run -p {policy} --events {log} -- sh {clients}",
        env!("CARGO_BIN_EXE_wfp")
    );
    let output = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    let said: Vec<Vec<&str>> = said.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(said.len(), 8, "{}", text(&output));
    let number = |text: &str| text.parse::<u16>().unwrap();
    let statuses = said.iter().map(|line| (line[0].to_owned(), number(line[1]), number(line[2]).into())).collect();
    let accepted = fs::read_to_string(folder.path("accepted")).unwrap();
    let accepted = |port: &str| accepted.lines().filter(|line| *line == port).count();
    let events = events(&log, "ALE_AUTH_CONNECT_V");
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let decided = events.iter().map(|event| {
        let (values, action) = (&event["values"], word(&event["action"]));
        assert_eq!(event["filter"]["name"] == "no", action == "block", "{event}");
        (word(&values["ALE_APP_ID"]), values["IP_REMOTE_PORT"].as_u64().unwrap(), action)
    });
    Met { statuses, accepted: (accepted("80"), accepted("8080")), decided: decided.collect(), connects: events.len() }
}

/// curl: couldn't connect.
const COULD_NOT: i32 = 7;
const EPERM: i32 = 1;

#[track_caller]
fn met(met: &Met, statuses: [(&str, u16, i32); 4], accepted: (usize, usize)) {
    // over both versions of IP alike: a second status of one client at one port would be a fifth member
    assert_eq!(met.statuses, statuses.map(|(client, port, status)| (client.to_owned(), port, status)).into());
    assert_eq!(met.accepted, accepted);
    assert_eq!(met.connects, 8);
    let application = |client: &str| common::live::program(if client == "curl" { client } else { PYTHON });
    let decided = statuses.map(|(client, port, status)| {
        let action = if status == 0 { "permit" } else { "block" };
        (application(client), port.into(), action.to_owned())
    });
    assert_eq!(met.decided, decided.into());
}

#[test]
fn a_policy_on_a_port_is_for_every_program() {
    needs!("curl", "/usr/bin/python3", "ip", "unshare");
    let statuses = [("curl", 80, COULD_NOT), ("curl", 8080, 0), ("python3", 80, EPERM), ("python3", 8080, 0)];
    met(&under("port", "IP_REMOTE_PORT = 80"), statuses, (0, 4));
}

#[test]
fn the_same_policy_for_one_program_alone() {
    needs!("curl", "/usr/bin/python3", "ip", "unshare");
    // a symbolic link in most systems: the application is the file behind it
    let when = format!("IP_REMOTE_PORT = 80, ALE_APP_ID = \"{PYTHON}\"");
    let statuses = [("curl", 80, 0), ("curl", 8080, 0), ("python3", 80, EPERM), ("python3", 8080, 0)];
    met(&under("port-and-program", &when), statuses, (2, 4));
}
