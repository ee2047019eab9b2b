//! `wfp run` when something goes wrong: exit statuses, a killed `wfp`, full disks, control groups that vanish.

#[macro_use]
mod common;

use common::{
    Folder, lines,
    live::{Groups, Server, blocking, events, left_of, run, status, text},
};
use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

#[test]
fn when_wfp_is_killed_everything_stays_filtered() {
    needs!("bash", "curl");
    let folder = Folder::new("killed");
    let (refused, served) = (Server::local(), Server::local());
    let policy = blocking(&folder, "ALE_AUTH_CONNECT", &format!("IP_REMOTE_PORT = {}", refused.port()));
    let (go, answer, end) = (folder.path("go"), folder.path("answer"), folder.path("end"));
    // world-writable, whoever the command runs as
    let script = format!(
        "touch {answer}.ready; while [ ! -e {go} ]; do sleep 0.05; done; for p in {} {}; do curl -s -o /dev/null -m 5 http://127.0.0.1:$p/; echo $? >> {answer}; done; touch {answer}.done; while [ ! -e {end} ]; do sleep 0.05; done",
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
            thread::sleep(Duration::from_millis(50));
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
    let left = || left_of(&name);
    // while the command goes on: afterwards any run clears up, one of another test too
    assert!(left().lines().count() >= 2, "a group and pins: {:?}", left());
    fs::write(&end, "").unwrap();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(status(&run(&["--", "true"])), 0);
    assert_eq!(left(), "");
}

#[test]
fn a_full_disk_and_a_reader_that_has_gone_change_nothing_for_the_command() {
    needs!("sh");
    // every write fails: the command's own status stands, and without one the run says that it failed
    assert_eq!(status(&run(&["--events", "/dev/full", "--", "sh", "-c", "exit 3"])), 3);
    let output = run(&["--events", "/dev/full", "--", "sh", "-c", "exit 0"]);
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
fn exit_statuses_and_dry_run() {
    needs!("sh", "curl");
    let folder = Folder::new("status");
    assert_eq!(status(&run(&["--", "sh", "-c", "exit 42"])), 42);
    assert_eq!(status(&run(&["--", "sh", "-c", "kill -TERM $$"])), 128 + 15);
    assert_eq!(status(&run(&["--", "/nowhere/at-all"])), 127);
    assert_eq!(status(&run(&["--", "/etc/passwd"])), 126);
    let broken = folder.file("broken.toml", "[[filter]]\nname = \"x\"\nlayer = \"NO_SUCH\"\naction = \"block\"\n");
    assert_eq!(status(&run(&["-p", &broken, "--", "true"])), 125);
    let log = folder.file("events.jsonl", "of before");
    for arguments in [&["--layers", "ALE_AUTH_CONECT"][..], &["--layers", "ALE_AUTH_CONECT", "--events", &log]] {
        let output = run(&[arguments, &["--", "true"]].concat());
        assert_eq!(status(&output), 2);
        assert!(text(&output).contains("did you mean ALE_AUTH_CONNECT?"), "{}", text(&output));
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "of before", "nothing half done");
    let server = Server::local();
    let policy = blocking(&folder, "ALE_AUTH_CONNECT", "");
    let url = format!("http://127.0.0.1:{}/", server.port());
    let output = run(&["-p", &policy, "--dry-run", "--events", &log, "--", "curl", "-s", "-m", "5", &url]);
    assert_eq!(status(&output), 0, "{}", text(&output));
    assert_eq!(events(&log, "ALE_AUTH_CONNECT")[0]["action"], "block", "it says what it would have done");
}

#[test]
fn the_events_of_the_last_run_stand_until_the_next_one_runs() {
    needs!("touch");
    let folder = Folder::new("before");
    folder.open_to_all();
    let (log, ran) = (folder.file("events.jsonl", "of before"), folder.path("ran"));
    let nowhere = Groups::new("nowhere");
    let with = |arguments: &[&str]| {
        let mut wfp = Command::new(env!("CARGO_BIN_EXE_wfp"));
        wfp.args(["run", "--events", &log]).args(arguments);
        wfp
    };
    let mut without_group = with(&["--", "touch", &ran]);
    without_group.env("OPENWFP_CGROUP_PARENT", nowhere.path().join("gone/below"));
    for (mut command, expected) in [
        // the control group, the user, the descriptors, the command
        (without_group, 125),
        (with(&["--user", "no-such-user", "--", "touch", &ran]), 125),
        (with(&["--keep-fd", "999", "--", "touch", &ran]), 125),
        (with(&["--", "/nowhere/at-all"]), 127),
        (with(&["--", "/etc/passwd"]), 126),
    ] {
        let output = command.output().unwrap();
        assert_eq!(status(&output), expected, "{command:?}: {}", text(&output));
        assert_eq!(fs::read_to_string(&log).unwrap(), "of before", "{command:?}");
    }
    assert!(fs::metadata(&ran).is_err(), "nothing was executed");
    assert_eq!(status(&with(&["--", "touch", &ran]).output().unwrap()), 0);
    let told = lines(&fs::read_to_string(&log).unwrap());
    assert_eq!(told.last().unwrap()["kind"], "summary", "nothing is left of what stood there");
}

/// What cannot be written to at all is told before the command runs.
#[test]
fn a_file_of_events_that_cannot_be_had() {
    needs!("unshare", "mount", "touch");
    let folder = Folder::new("no-file");
    folder.open_to_all();
    let (disk, ran, above) = (folder.path("disk"), folder.path("ran"), folder.path("."));
    let (on_disk, below) = (folder.path("disk/events.jsonl"), folder.path("nowhere/events.jsonl"));
    fs::create_dir(&disk).unwrap();
    let wfp = env!("CARGO_BIN_EXE_wfp");
    let full = "-o nr_inodes=1";
    for (mount, log, cause) in [
        ("", &above, "Is a directory"),
        ("", &below, "No such file"),
        ("-o ro", &on_disk, "Read-only file system"),
        (full, &on_disk, "No space left"),
    ] {
        let mount = if mount.is_empty() { String::new() } else { format!("mount -t tmpfs {mount} disk {disk} && ") };
        let script = format!("{mount}exec {wfp} run --events {log} -- touch {ran}");
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        assert_eq!(status(&output), 125, "{log}: {}", text(&output));
        for expected in [&format!("cannot write events to {log}"), cause] {
            assert!(text(&output).contains(expected), "{expected} is missing in {}", text(&output));
        }
        assert!(fs::metadata(&ran).is_err(), "{log}: nothing was executed");
    }
}

/// A full disk: the events that found room stand, whole; the run says that not all did; and the policy is enforced all along.
#[test]
fn a_disk_that_fills_up_under_the_events() {
    needs!("bash", "unshare", "mount");
    let folder = Folder::new("disk");
    let policy = blocking(&folder, "ALE_AUTH_CONNECT", "IP_REMOTE_PORT = 9");
    let (disk, log, saved) = (folder.path("disk"), folder.path("disk/events.jsonl"), folder.path("saved.jsonl"));
    let send = "for i in $(seq 100); do (echo x > /dev/udp/127.0.0.1/9) 2>/dev/null && exit 4; done; exit 0";
    let wfp = env!("CARGO_BIN_EXE_wfp");
    let script = format!(
        "mkdir {disk} && mount -t tmpfs -o size=16k disk {disk} && \
         {wfp} run -p {policy} --events {log} -- bash -c '{send}'; status=$?; cp {log} {saved}; exit $status"
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    assert_eq!(status(&output), 125, "{}", text(&output));
    for expected in ["not all events could be written", "events.jsonl", "No space left"] {
        assert!(text(&output).contains(expected), "{expected} is missing in {}", text(&output));
    }
    assert!(!text(&output).contains("panicked"), "{}", text(&output));
    let saved = fs::read_to_string(&saved).unwrap();
    // the line at which the disk was full may have been cut
    let (whole, _cut) = saved.rsplit_once('\n').unwrap();
    let events = lines(whole);
    assert!((10..400).contains(&events.len()), "{} events found room", events.len());
    let mut asked = events.iter().filter(|event| event["layer"] == "ALE_AUTH_CONNECT_V4").peekable();
    assert!(asked.peek().is_some() && asked.all(|event| event["action"] == "block"));
}

#[test]
fn a_folder_for_groups_that_is_not_there() {
    needs!("touch");
    let folder = Folder::new("no-groups");
    folder.open_to_all();
    let groups = Groups::new("gone");
    let ran = folder.path("ran");
    let below = groups.path().join("gone/below");
    let output = groups.wfp(&["--", "touch", &ran]).env("OPENWFP_CGROUP_PARENT", &below).output().unwrap();
    assert_eq!(status(&output), 125, "{}", text(&output));
    assert!(text(&output).contains(below.to_str().unwrap()), "{}", text(&output));
    assert!(text(&output).contains("the folder that shall hold it does not exist"), "{}", text(&output));
    assert_eq!(text(&output).matches("No such file").count(), 1, "the cause is said once: {}", text(&output));
    assert!(fs::metadata(&ran).is_err(), "nothing was executed");
}

#[test]
fn a_group_that_is_removed_while_the_programs_are_loaded() {
    needs!("touch");
    let folder = Folder::new("removed");
    folder.open_to_all();
    let groups = Groups::new("removed");
    groups.make();
    let ran = folder.path("ran");
    let child = groups.wfp(&["--", "touch", &ran]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let removed = (0..200_000).any(|_| groups.runs().iter().any(|run| fs::remove_dir(run).is_ok()));
    let output = child.wait_with_output().unwrap();
    assert!(removed, "the group was there, and empty: {}", text(&output));
    assert_eq!(status(&output), 125, "{}", text(&output));
    // it may be gone before it was used at all
    let told = ["control group, which has been removed", "/run-"].iter().any(|part| text(&output).contains(part));
    assert!(told, "{}", text(&output));
    assert!(!text(&output).contains("panicked"), "{}", text(&output));
    assert!(fs::metadata(&ran).is_err(), "nothing was executed outside of a group");
    assert!(groups.runs().is_empty());
}

/// Root can move the command out of its group, and remove that: then nothing filters the command any more, nor what it has
/// started, also where that has left it.
#[test]
fn a_group_that_is_removed_under_the_command() {
    needs!("sh", "sleep", "setsid");
    let folder = Folder::new("under");
    folder.open_to_all();
    let groups = Groups::new("under");
    groups.make();
    let (ready, after) = (folder.path("ready"), ["command", "child", "daemon"].map(|name| folder.path(name)));
    let [command, child, daemon] = &after;
    let script = format!(
        "(setsid sh -c 'sleep 2; touch {daemon}' &); (sleep 2; touch {child}) & sleep 0.2; touch {ready}; sleep 2; touch {command}"
    );
    let mut wfp =
        groups.wfp(&["--", "sh", "-c", &script]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while fs::metadata(&ready).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    let run = groups.runs().pop().unwrap();
    let outside = groups.path().join("cgroup.procs");
    let removed = (0..100).any(|_| {
        let processes = fs::read_to_string(run.join("cgroup.procs")).unwrap();
        processes.lines().for_each(|process| drop(fs::write(&outside, process)));
        thread::sleep(Duration::from_millis(5));
        fs::remove_dir(&run).is_ok()
    });
    assert!(removed);
    let started = std::time::Instant::now();
    // to its end: nobody is left who keeps it open
    let said = std::io::read_to_string(wfp.stderr.take().unwrap()).unwrap();
    assert_eq!(wfp.wait().unwrap().code(), Some(125));
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    thread::sleep(Duration::from_millis(2500));
    for path in &after {
        assert!(fs::metadata(path).is_err(), "{path}: nothing goes on unfiltered");
    }
    assert!(said.contains("and all that it has started ("), "{said}");
    assert!(said.contains("has been removed under the command") && said.contains(run.to_str().unwrap()), "{said}");
}

#[test]
fn a_run_whose_groups_stand_elsewhere_leaves_other_runs_filtered() {
    needs!("bash", "true");
    let folder = Folder::new("elsewhere");
    folder.open_to_all();
    let policy = blocking(&folder, "ALE_AUTH_CONNECT", "");
    let (ready, go) = (folder.path("ready"), folder.path("go"));
    let send = "(echo x > /dev/udp/127.0.0.1/9) 2>/dev/null && exit 9";
    let script = format!("{send}; touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done; {send}; exit 0");
    let mut first = Command::new(env!("CARGO_BIN_EXE_wfp"));
    let mut first = first.args(["run", "-p", &policy, "--", "bash", "-c", &script]).spawn().unwrap();
    while fs::metadata(&ready).is_err() && first.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(10));
    }
    let groups = Groups::new("elsewhere");
    groups.make();
    let output = groups.wfp(&["--", "true"]).output().unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output));
    fs::write(&go, "").unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0), "refused before and after");
}
