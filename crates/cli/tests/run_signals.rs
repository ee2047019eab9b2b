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

/// Runs a script of a shell and, once it says so, sends signals to `wfp` alone; the status of `wfp`.
#[track_caller]
fn signalled(shell: &str, signals: &[&str], script: &str) -> Option<i32> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let folder = Folder::new(&format!("signals-{}", RUNS.fetch_add(1, Ordering::SeqCst)));
    folder.open_to_all();
    let (ready, log) = (folder.path("ready"), folder.path("events.jsonl"));
    // the shell itself makes the file: another process might outlive it by a moment, and the run would leave that filtered
    let script = script.replace("READY", &format!(": >{ready}"));
    // whoever started the tests may have had it ignored
    let mut command = Command::new("env");
    command.args(["--default-signal", env!("CARGO_BIN_EXE_wfp"), "run", "--events", &log]);
    let mut run = Run(command.args(["--", shell, "-c", &script]).spawn().unwrap());
    let process = run.0.id();
    let end = Instant::now() + Duration::from_secs(20);
    while fs::metadata(&ready).is_err() {
        assert!(Instant::now() < end && run.0.try_wait().unwrap().is_none(), "the command has not begun");
        thread::sleep(Duration::from_millis(5));
    }
    let sent = Instant::now();
    for signal in signals {
        // that of bash knows the names of all
        let words = ["-c", "kill -$0 $1", signal, &process.to_string()];
        assert!(Command::new("bash").args(words).status().unwrap().success());
    }
    let status = run.0.wait().unwrap();
    assert!(sent.elapsed() < Duration::from_secs(10), "{signals:?}: the command went on");
    // a run like any other: its events are whole, and nothing is left of it
    let told = lines(&fs::read_to_string(&log).unwrap());
    assert_eq!(told.last().unwrap()["kind"], "summary");
    assert_eq!(left_of(&format!("run-{process}-")), "");
    status.code()
}

#[test]
fn a_command_that_a_signal_ends() {
    needs!("env", "sh", "bash", "sleep");
    for (signal, status) in [
        ("TERM", 128 + 15),
        ("INT", 128 + 2),
        ("HUP", 128 + 1),
        ("QUIT", 128 + 3),
        ("ABRT", 128 + 6),
        ("XCPU", 128 + 24),
        ("RTMIN", 128 + 34),
        ("RTMAX", 128 + 64),
    ] {
        assert_eq!(signalled("sh", &[signal], "READY; exec sleep 60"), Some(status), "{signal}");
    }
}

#[test]
fn a_command_that_catches_a_signal_has_a_status_of_its_own() {
    needs!("env", "sh", "bash", "sleep");
    for signal in ["TERM", "INT"] {
        let script = format!("trap 'exit 7' {signal}; READY; while :; do sleep 0.02; done");
        assert_eq!(signalled("sh", &[signal], &script), Some(7), "{signal}");
        let ignores = format!("trap '' {signal}; READY; sleep 0.3; exit 5");
        assert_eq!(signalled("sh", &[signal], &ignores), Some(5), "{signal}");
    }
}

#[test]
fn a_command_gets_every_signal_that_it_can_catch() {
    needs!("env", "bash", "sleep");
    // as programs use them: gunicorn TTIN and TTOU, watchdogs ABRT, service managers real-time ones
    let signals = [
        "HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "PIPE", "ALRM", "STKFLT", "CONT", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "RTMIN", "RTMIN+1", "RTMIN+15", "RTMAX-14", "RTMAX",
    ];
    let traps = signals.map(|signal| format!("trap 'got[${{#got[@]}}]={signal}' {signal}\n")).concat();
    // all have come, and each of them
    let script = format!(
        "{traps}\nREADY\nwhile [ ${{#got[@]}} -lt {all} ]; do sleep 0.02; done\n\
         printf '%s\\n' \"${{got[@]}}\" | sort -u | wc -l | grep -qx {all} && exit 7",
        all = signals.len()
    );
    assert_eq!(signalled("bash", &signals, &script), Some(7));
}

#[test]
fn the_alarm_of_whoever_became_wfp_is_the_command_s() {
    needs!("python3", "sh", "sleep");
    // a timer outlives exec, but not fork
    let becomes =
        "import os, signal, sys; signal.setitimer(signal.ITIMER_REAL, 3); os.execv(sys.argv[1], sys.argv[1:])";
    let script = "trap 'exit 9' ALRM; while :; do sleep 0.02; done";
    let words = ["-c", becomes, env!("CARGO_BIN_EXE_wfp"), "run", "--", "sh", "-c", script];
    assert_eq!(Command::new("python3").args(words).status().unwrap().code(), Some(9));
}
