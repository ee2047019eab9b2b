//! How a command is started, signalled, waited for, and what stays of it.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{Place, eventually, place};
use openwfp_sandbox::{Groups, Isolation, Outcome, Sandbox};

const OFF: &[&str] = &["--no-isolation"];

fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn signal(pid: u32, signal: &str) {
    let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A run that stands ready or is under way, and what it reported: the folder of its group and the command's process id.
struct Run {
    runner: Child,
    group: String,
    pid: String,
}

impl Drop for Run {
    /// A test that fails leaves no runner waiting.
    fn drop(&mut self) {
        let _ = self.runner.kill();
        let _ = self.runner.wait();
    }
}

fn start(place: &Place, options: &[&str], command: &[&str]) -> Run {
    let report = place.folder.join("report");
    let _ = fs::remove_file(&report);
    let report = report.to_str().unwrap();
    let words = [&["run", "--report", report], options, &["--"], command].concat();
    let runner = place.probe(words).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = Vec::new();
    eventually("the process stands ready", || {
        lines = fs::read_to_string(report).unwrap_or_default().lines().map(str::to_owned).collect();
        lines.len() == 2
    });
    let pid = lines.pop().unwrap();
    Run { runner, group: lines.pop().unwrap(), pid }
}

// ---- exit statuses ----

#[test]
fn the_exit_status_is_the_command_s() {
    let Some(place) = place() else { return };
    for (script, status) in [("true", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
    {
        for options in [OFF, &[]] {
            assert_eq!(place.run(options, &["sh", "-c", script]).status, status, "{script}");
        }
    }
}

#[test]
fn what_is_not_found_is_127_and_what_cannot_be_executed_is_126() {
    let Some(place) = place() else { return };
    let (plain, lost) = (place.script("x", "plain"), place.script("#!/no/such/interpreter\n", "lost"));
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let cases = [
        ("no-such-program", 127, "no-such-program: not found"),
        ("/no/such/program", 127, "/no/such/program: not found"),
        ("", 127, ": not found"),
        (&lost, 127, "interpreter"),
        (&plain, 126, "cannot be executed: Permission denied"),
        ("/etc", 126, "/etc: cannot be executed"),
    ];
    for (program, status, words) in cases {
        let ran = place.run(&[], &[program]);
        assert_eq!(ran.status, status, "{ran:?}");
        assert!(ran.err.contains(words), "{ran:?}");
        assert!(place.groups().is_empty(), "nothing is left of a run that did not come about");
    }
}

#[test]
fn the_run_s_user_must_be_able_to_execute_it() {
    let Some(place) = place() else { return };
    let hidden = place.folder.join("hidden");
    fs::create_dir(&hidden).unwrap();
    let program = place.copy("/bin/true", "hidden/program");
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(place.run(&[], &[&program]).status, 0);
    assert_eq!(place.run(&["--user", "nobody"], &[&program]).status, 126);
}

#[test]
fn a_script_without_a_first_line_belongs_to_the_shell() {
    let Some(place) = place() else { return };
    let script = place.script("echo $0 $1 $2\n", "script");
    assert_eq!(place.run(&[], &[&script, "a b", "c"]).out, format!("{script} a b c\n"));
}

#[test]
fn our_own_errors_are_125() {
    let Some(place) = place() else { return };
    let ran = place.run(&["--user", "no-such-user"], &["true"]);
    assert_eq!(ran.status, 125);
    assert!(ran.err.contains("no-such-user"), "{ran:?}");
    let mut command = place.probe(["run", "--", "true"]);
    command.env(openwfp_sandbox::PARENT_VARIABLE, "/etc");
    let ran = common::Ran::of(command);
    assert_eq!(ran.status, 125);
    assert!(ran.err.contains("not in a cgroup v2 file system"), "{ran:?}");
}

#[test]
fn missing_rights_are_named() {
    let Some(place) = place() else { return };
    // setpriv gives up the right, and everything else stays.
    let cases = [("-sys_admin", "CAP_SYS_ADMIN"), ("-setuid", "CAP_SETUID"), ("-setgid", "CAP_SETGID")];
    for (drop, name) in cases {
        let drops = [format!("--bounding-set={drop}")];
        let words = drops.iter().map(String::as_str).chain([&*place.probe, "run", "--user", "nobody", "--", "true"]);
        let ran = common::Ran::of(place.command("setpriv", words));
        assert_eq!(ran.status, 125, "{ran:?}");
        assert!(ran.err.contains(name) && ran.err.contains("run as root"), "{ran:?}");
    }
    let words = ["--bounding-set=-net_raw", &*place.probe, "run", "--keep-cap", "net_raw", "--", "true"];
    let ran = common::Ran::of(place.command("setpriv", words));
    assert!(ran.err.contains("CAP_NET_RAW cannot be kept"), "{ran:?}");
}

// ---- what the command inherits ----

#[test]
fn signals_and_their_mask_are_as_they_were() {
    let Some(place) = place() else { return };
    let outside = common::Ran::of(place.command("cat", ["/proc/self/status"]));
    for options in [OFF, &[]] {
        let status = place.run(options, &["cat", "/proc/self/status"]);
        for set in ["SigBlk", "SigCgt", "SigIgn"] {
            assert_eq!(status.bits(set), outside.bits(set), "{set}");
        }
    }
    // What was ignored on purpose stays so.
    let script = format!("trap '' HUP; exec {} run -- cat /proc/self/status", place.probe);
    let status = common::Ran::of(place.command("sh", ["-c", &script]));
    assert_eq!(status.bits("SigIgn"), outside.bits("SigIgn") | 1 << (libc::SIGHUP - 1));
}

#[test]
fn where_dead_children_are_ignored_the_status_is_still_known() {
    let Some(place) = place() else { return };
    let words = ["--ignore-signal=CHLD", &*place.probe, "run", "--", "sh", "-c", "exit 7"];
    let ran = common::Ran::of(place.command("env", words));
    assert_eq!(ran.status, 7, "{ran:?}");
}

#[test]
fn arguments_and_environment_come_over_as_they_are() {
    let Some(place) = place() else { return };
    let mut command = place.probe(["run", "--", "sh", "-c", "printf '%s|' \"$@\" \"$ODD\"", "sh", "a b", "", "ü\n"]);
    command.env("ODD", "x=y z");
    assert_eq!(common::Ran::of(command).out, "a b||ü\n|x=y z|");
}

// ---- signals ----

#[test]
fn each_signal_to_the_runner_reaches_the_command_once() {
    let Some(place) = place() else { return };
    for options in [OFF, &["--user", "nobody"]] {
        let mut run = start(&place, options, &[&place.probe, "signals"]);
        let mut lines = BufReader::new(run.runner.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        let numbers = openwfp_sandbox::handed_on();
        for real_time in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            assert!(numbers.contains(&real_time), "{real_time}");
        }
        for &number in numbers.iter().filter(|&&number| number != libc::SIGTERM) {
            signal(run.runner.id(), &format!("-{number}"));
            assert_eq!(lines.next(), Some(number.to_string()));
        }
        // Real-time signals queue up, each with its value; kill(1) of util-linux and of procps can send one.
        let number = libc::SIGRTMIN() + 1;
        for value in [1, 4711] {
            let words = ["-q", &value.to_string(), "-s", &number.to_string(), &run.runner.id().to_string()];
            assert!(std::process::Command::new("kill").args(words).status().unwrap().success());
        }
        assert_eq!([lines.next(), lines.next()], [Some(format!("{number} 1")), Some(format!("{number} 4711"))]);
        signal(run.runner.id(), "-TERM");
        // Nothing came twice.
        assert_eq!(lines.collect::<Vec<_>>(), [libc::SIGTERM.to_string()]);
        assert_eq!(run.runner.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_signal_that_ends_the_command_is_told_by_the_exit_status() {
    let Some(place) = place() else { return };
    let mut run = start(&place, &[], &["sleep", "60"]);
    signal(run.runner.id(), "-INT");
    assert_eq!(run.runner.wait().unwrap().code(), Some(130));
}

// ---- the group, and what stays ----

#[test]
fn everything_stays_in_the_group() {
    let Some(place) = place() else { return };
    // A daemon: forked twice, in a session of its own.
    let script = "setsid sh -c 'sh -c \"exec sleep 60\" & exit' > /dev/null 2>&1 & wait; exec cat /proc/self/cgroup";
    let ran = place.run(&["--user", "nobody"], &["sh", "-c", script]);
    let [group] = &place.groups()[..] else { panic!("the group stays while the daemon runs: {ran:?}") };
    assert!(ran.out.contains(group.file_name().unwrap().to_str().unwrap()), "{ran:?}");
    let daemon = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    let daemon = daemon.trim();
    assert!(fs::read_to_string(format!("/proc/{daemon}/status")).unwrap().contains("NoNewPrivs:\t1"));

    // The next run leaves it alone, and takes the group away once the daemon has ended.
    assert_eq!(place.run(&[], &["true"]).status, 0);
    assert_eq!(place.groups(), std::slice::from_ref(group));
    signal(daemon.parse().unwrap(), "-KILL");
    eventually("the daemon has ended", || !alive(daemon));
    assert_eq!(place.run(&[], &["true"]).status, 0);
    assert!(place.groups().is_empty());
}

#[test]
fn when_the_runner_is_killed_the_command_goes_on_as_before() {
    let Some(place) = place() else { return };
    let mut run = start(&place, &["--user", "nobody"], &["sh", "-c", "echo up; exec sleep 60"]);
    let mut lines = BufReader::new(run.runner.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    run.runner.kill().unwrap();
    run.runner.wait().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(alive(&run.pid));
    let status = fs::read_to_string(format!("/proc/{}/status", run.pid)).unwrap();
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    assert_eq!(fs::read_to_string(format!("{}/cgroup.procs", run.group)).unwrap().trim(), run.pid);
}

#[test]
fn when_the_runner_is_killed_before_the_word_to_go_nothing_is_executed() {
    let Some(place) = place() else { return };
    let trace = place.folder.join("trace");
    let never = place.folder.join("never").display().to_string();
    let mut run = start(&place, &["--wait-for", &never], &["touch", trace.to_str().unwrap()]);
    assert!(alive(&run.pid));
    assert_eq!(fs::read_to_string(format!("{}/cgroup.procs", run.group)).unwrap().trim(), run.pid);
    run.runner.kill().unwrap();
    run.runner.wait().unwrap();
    eventually("the process ends by itself", || !alive(&run.pid));
    assert!(!trace.exists());
}

#[test]
fn the_process_waits_for_the_word_to_go() {
    let Some(place) = place() else { return };
    let (trace, go) = (place.folder.join("trace"), place.folder.join("go"));
    let mut run = start(&place, &["--wait-for", go.to_str().unwrap()], &["touch", trace.to_str().unwrap()]);
    std::thread::sleep(Duration::from_millis(100));
    assert!(alive(&run.pid) && !trace.exists());
    fs::write(&go, "").unwrap();
    assert_eq!(run.runner.wait().unwrap().code(), Some(0));
    assert!(trace.exists());
}

#[test]
fn a_living_run_s_group_is_not_taken_away() {
    let Some(place) = place() else { return };
    let groups = Groups::at(&place.parent).unwrap();
    let group = groups.create().unwrap();
    assert!(!group.is_populated().unwrap());
    assert!(groups.ended().unwrap().is_empty(), "this process holds it");
    assert_eq!(place.run(&[], &["true"]).status, 0);
    assert!(group.path().exists());
    let name = group.name().to_owned();
    drop(group);
    let ended = groups.ended().unwrap();
    assert_eq!(ended.iter().map(|group| group.name()).collect::<Vec<_>>(), [name]);
    for group in ended {
        assert!(group.remove().unwrap());
    }
    assert!(place.groups().is_empty());
}

#[test]
fn folders_that_are_no_runs_are_left_alone() {
    let Some(place) = place() else { return };
    let other = place.parent.join("run-of-the-mill");
    fs::create_dir(&other).unwrap();
    assert_eq!(place.run(&[], &["true"]).status, 0);
    assert_eq!(place.groups(), [other]);
}

#[test]
fn a_group_is_told_filled_killed_and_emptied() {
    let Some(place) = place() else { return };
    let groups = Groups::at(&place.parent).unwrap();
    let group = groups.create().unwrap();
    assert_eq!(group.level(), 2);
    let metadata = fs::metadata(group.path()).unwrap();
    assert_eq!(group.id(), std::os::unix::fs::MetadataExt::ino(&metadata));

    let sandbox = Sandbox::new(&Isolation { enabled: false, ..Isolation::default() }).unwrap();
    let held = sandbox.spawn(&group, "sleep".as_ref(), &["60".into()], std::env::vars_os()).unwrap();
    assert_eq!(group.processes().unwrap(), [held.id()]);
    let mut child = held.release().unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    assert!(group.is_populated().unwrap());
    assert!(!group.wait_until_empty(Duration::from_millis(20)).unwrap());
    group.kill_all().unwrap();
    assert_eq!(child.wait().unwrap(), Outcome::Signaled(9));
    assert!(group.wait_until_empty(Duration::from_secs(10)).unwrap());
    assert!(group.remove().unwrap());
}

#[test]
fn a_group_that_somebody_removed_is_told() {
    let Some(place) = place() else { return };
    let groups = Groups::at(&place.parent).unwrap();
    let group = groups.create().unwrap();
    assert!(!group.is_gone());
    fs::remove_dir(group.path()).unwrap();
    assert!(group.is_gone());
    let sandbox = Sandbox::new(&Isolation { enabled: false, ..Isolation::default() }).unwrap();
    let error = sandbox.spawn(&group, "true".as_ref(), &[], std::env::vars_os()).map(drop).unwrap_err();
    assert!(error.to_string().contains("which has been removed"), "{error}");
    assert_eq!(error.exit_status(), 125);
    // another one at the same place is not it
    fs::create_dir(group.path()).unwrap();
    assert!(group.is_gone());
    assert!(group.remove().unwrap());
}

#[test]
fn the_command_can_be_ended() {
    let Some(place) = place() else { return };
    let group = Groups::at(&place.parent).unwrap().create().unwrap();
    let sandbox = Sandbox::new(&Isolation { enabled: false, ..Isolation::default() }).unwrap();
    let held = sandbox.spawn(&group, "sleep".as_ref(), &["60".into()], std::env::vars_os()).unwrap();
    let mut child = held.release().unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap(), Outcome::Signaled(9));
    child.kill().unwrap();
    assert!(group.remove().unwrap());
}

#[test]
fn a_held_process_that_is_given_up_ends() {
    let Some(place) = place() else { return };
    let groups = Groups::at(&place.parent).unwrap();
    let group = groups.create().unwrap();
    let sandbox = Sandbox::new(&Isolation::default()).unwrap();
    let trace = place.folder.join("trace");
    let held = sandbox.spawn(&group, "touch".as_ref(), &[trace.clone().into()], std::env::vars_os()).unwrap();
    drop(held);
    assert!(!group.is_populated().unwrap());
    assert!(!trace.exists());
    assert!(group.remove().unwrap());
}

#[test]
fn groups_below_a_run_s_are_removed_with_it() {
    let Some(place) = place() else { return };
    let script = "d=$(sed -n s,^0::,,p /proc/self/cgroup); mkdir -p $M$d/a/b && echo $M$d/a/b";
    let mut command = place.probe(["run", "--no-isolation", "--", "sh", "-c", script]);
    command.env("M", place.mount());
    let ran = common::Ran::of(command);
    assert!(ran.status == 0 && ran.out.ends_with("/a/b\n"), "{ran:?}");
    assert!(place.groups().is_empty());
}
