//! Signals to `wfp run`: the command gets them, and its end is the end of the run.

#[macro_use]
mod common;

use common::{Folder, lines, live::left_of};
use std::{
    fs,
    process::{Child, Command},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A run that is ended when a test fails.
struct Run(Child);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a script of the shell and, once it says so, sends a signal to `wfp` alone; the status of `wfp`.
#[track_caller]
fn signalled(signal: &str, script: &str) -> Option<i32> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let folder = Folder::new(&format!("signals-{}", RUNS.fetch_add(1, Ordering::SeqCst)));
    folder.open_to_all();
    let (ready, log) = (folder.path("ready"), folder.path("events.jsonl"));
    // the shell itself makes the file: another process might outlive it by a moment, and the run would leave that filtered
    let script = script.replace("READY", &format!(": >{ready}"));
    // whoever started the tests may have had it ignored
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM,HUP,QUIT", env!("CARGO_BIN_EXE_wfp"), "run", "--events", &log]);
    let mut run = Run(command.args(["--", "sh", "-c", &script]).spawn().unwrap());
    let process = run.0.id();
    let end = Instant::now() + Duration::from_secs(20);
    while fs::metadata(&ready).is_err() {
        assert!(Instant::now() < end && run.0.try_wait().unwrap().is_none(), "the command has not begun");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status().unwrap().success());
    let sent = Instant::now();
    let status = run.0.wait().unwrap();
    assert!(sent.elapsed() < Duration::from_secs(10), "{signal}: the command went on");
    // a run like any other: its events are whole, and nothing is left of it
    let told = lines(&fs::read_to_string(&log).unwrap());
    assert_eq!(told.last().unwrap()["kind"], "summary");
    assert_eq!(left_of(&format!("run-{process}-")), "");
    status.code()
}

#[test]
fn a_command_that_a_signal_ends() {
    needs!("env", "sh", "kill", "sleep");
    for (signal, status) in [("TERM", 128 + 15), ("INT", 128 + 2), ("HUP", 128 + 1), ("QUIT", 128 + 3)] {
        assert_eq!(signalled(signal, "READY; exec sleep 60"), Some(status), "{signal}");
    }
}

#[test]
fn a_command_that_catches_a_signal_has_a_status_of_its_own() {
    needs!("env", "sh", "kill", "sleep");
    for signal in ["TERM", "INT"] {
        let script = format!("trap 'exit 7' {signal}; READY; while :; do sleep 0.02; done");
        assert_eq!(signalled(signal, &script), Some(7), "{signal}");
        let ignores = format!("trap '' {signal}; READY; sleep 0.3; exit 5");
        assert_eq!(signalled(signal, &ignores), Some(5), "{signal}");
    }
}
