//! `wfp run` whose command ends and leaves a daemon behind, which goes on under the policy without `wfp`.

#[macro_use]
mod common;

use common::{
    Folder,
    live::{Groups, Server, events, left_of, status, text},
};
use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

const PYTHON: &str = "/usr/bin/python3";

/// Ends with the errno of the connect.
const CLIENT: &str = "import socket,sys
try:
 socket.create_connection(('127.0.0.1',int(sys.argv[1])),5)
except OSError as error:
 sys.exit(error.errno or 98)
";

/// Peers enough for more events than there is room for, when nobody reads them.
const MANY: &str = "import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
for peer in range(40000): s.sendto(b'x',(f'127.9.{peer>>8}.{peer&255}',9))
";

/// Waits until a file is there, or the folder of the test is not any more.
const WAIT: &str = "wait_for() { while [ -d \"${1%/*}\" ] && [ ! -e \"$1\" ]; do sleep 0.05; done; }";

#[track_caller]
fn comes(path: &str) {
    let started = Instant::now();
    while fs::metadata(path).is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "{path}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_daemon_and_what_it_executes_later_stay_filtered() {
    needs!("sh", "setsid", "curl", "/usr/bin/python3");
    let folder = Folder::new("daemon");
    folder.open_to_all();
    let [to_nobody, not_to_python, to_python] = [(); 3].map(|()| Server::local());
    let ports = [&to_nobody, &not_to_python, &to_python].map(Server::port);
    let policy = format!(
        "[[filter]]\nname = 'to nobody'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\nwhen = {{ IP_REMOTE_PORT = {} }}\n\
         [[filter]]\nname = 'not to python'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\nwhen = {{ ALE_APP_ID = '{PYTHON}', IP_REMOTE_PORT = {} }}\n\
         [[filter]]\nname = 'to python'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'permit'\nweight = 2\nwhen = {{ ALE_APP_ID = '{PYTHON}', IP_REMOTE_PORT = {} }}\n\
         [[filter]]\nname = 'to nobody else'\nlayer = 'ALE_AUTH_CONNECT'\naction = 'block'\nweight = 1\nwhen = {{ IP_REMOTE_PORT = {} }}\n",
        ports[0], ports[1], ports[2], ports[2]
    );
    let policy = folder.file("policy.toml", &policy);
    let (client, many) = (folder.file("client.py", CLIENT), folder.file("many.py", MANY));
    let [go, end, ready, answers, log] =
        ["go", "end", "ready", "answers", "events.jsonl"].map(|name| folder.path(name));
    let connects = folder.file(
        "connects.sh",
        &format!(
            "for port in {} {} {}; do
            curl -s -o /dev/null -m 5 http://127.0.0.1:$port/; echo curl $? >> $1
            {PYTHON} {client} $port; echo python3 $? >> $1
            done; touch $1.done",
            ports[0], ports[1], ports[2]
        ),
    );
    // what it executes itself; and what another daemon does that it starts, when the events of the run find no room any more
    let daemon = folder.file(
        "daemon.sh",
        &format!(
            "{WAIT}; touch {ready}; wait_for {go}; sh {connects} {answers}
            setsid sh -c '({PYTHON} {many} && exec sh {connects} {answers}.later) &' &
            wait_for {end}"
        ),
    );
    let groups = Groups::new("daemon");
    groups.make();
    // the daemon holds neither the output nor the input of wfp
    let script = format!("setsid sh {daemon} < /dev/null > /dev/null 2>&1 & exit 0");
    let mut wfp = groups.wfp(&["-p", &policy, "--events", &log, "--", "sh", "-c", &script]);
    let wfp = wfp.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let name = format!("run-{}-", wfp.id());
    let output = wfp.wait_with_output().unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output));
    let [group] = &groups.runs()[..] else { panic!("{:?}", groups.runs()) };
    assert!(text(&output).contains(&format!("filtered, in {}", group.display())), "{}", text(&output));
    comes(&ready);
    assert!(events(&log, "ALE_AUTH_CONNECT").is_empty(), "all that follows is without wfp");
    fs::write(&go, "").unwrap();
    for (turn, answers) in [(1, answers.clone()), (2, format!("{answers}.later"))] {
        comes(&format!("{answers}.done"));
        // curl: couldn't connect; python3: EPERM
        let expected = "curl 7\npython3 1\n\
                        curl 0\npython3 1\n\
                        curl 7\npython3 0\n";
        assert_eq!(fs::read_to_string(&answers).unwrap(), expected, "{answers}");
        let reached = [&to_nobody, &not_to_python, &to_python].map(Server::reached);
        assert_eq!(reached, [0, turn, turn]);
    }
    // other runs leave the group and what is pinned alone until the daemon has ended
    assert_eq!(status(&groups.wfp(&["--", "true"]).output().unwrap()), 0);
    assert!(left_of(&name).lines().count() >= 2, "a group and pins: {:?}", left_of(&name));
    fs::write(&end, "").unwrap();
    let populated = || fs::read_to_string(group.join("cgroup.events")).unwrap().contains("populated 1");
    let started = Instant::now();
    while populated() && started.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status(&groups.wfp(&["--", "true"]).output().unwrap()), 0);
    assert_eq!((left_of(&name), groups.runs()), (String::new(), vec![]));
}
