//! `wfp` for users who may not load programs: what is missing is named, and what takes no rights works.

#[macro_use]
mod common;

use common::{
    Folder, POLICY, lines,
    live::{self, Groups, NOBODY, as_nobody, run, status, text, without_rights},
    root, stderr, stdout, succeeds,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
};

const ALL: &str = "missing CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF: run as root";

/// Root that has given up capabilities, and what `wfp run` says then; nothing: the command runs.
#[test]
fn each_capability_that_is_missing_is_named() {
    needs!("setpriv", "true");
    if !rustix::process::geteuid().is_root() {
        return live::may_skip("only root can give up capabilities one by one, and become another user");
    }
    // a folder of another user's, so that root obeys its mode
    let groups = Groups::new("rights");
    groups.make();
    chown(groups.path(), Some(NOBODY), None).unwrap();
    for (kept, options, said) in [
        ("-net_admin", &[][..], "missing CAP_NET_ADMIN: run as root"),
        ("-sys_admin", &[], "missing CAP_SYS_ADMIN: run as root"),
        ("-sys_admin,-perfmon", &[], "missing CAP_SYS_ADMIN, CAP_PERFMON: run as root"),
        ("-sys_admin,-bpf", &[], "missing CAP_SYS_ADMIN, CAP_BPF: run as root"),
        ("-dac_override", &[], "missing CAP_DAC_OVERRIDE"),
        ("-all", &[], ALL),
        ("-all", &["--dry-run"], ALL),
        ("-all", &["--no-isolation"], ALL),
        ("-setuid", &["--user", "nobody"], "CAP_SETUID (to become the user that runs it)"),
        ("-setgid", &["--user", "nobody"], "CAP_SETGID (to set the groups of the user that runs it)"),
        ("-all,+net_admin,+sys_admin,+dac_override", &[], ""),
        ("-all,+net_admin,+sys_admin,+dac_override,+setuid,+setgid", &["--user", "nobody"], ""),
        ("-setuid,-setgid,-perfmon,-bpf", &[], ""),
    ] {
        let wfp = groups.wfp(&[options, &["--", "true"]].concat());
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set={kept}")).arg(wfp.get_program()).args(wfp.get_args());
        let output = command.env("OPENWFP_CGROUP_PARENT", groups.path()).output().unwrap();
        let expected = if said.is_empty() { 0 } else { 125 };
        assert_eq!(status(&output), expected, "{kept} {options:?}: {}", text(&output));
        assert!(text(&output).contains(said), "{kept} {options:?}: {}", text(&output));
        let named = |text: &str| text.matches("CAP_").count();
        assert_eq!(named(&text(&output)), named(said), "no other is named: {}", text(&output));
    }
}

/// Who is not root and has the capabilities, as of the file or of a service, runs commands as root does.
#[test]
fn capabilities_are_enough() {
    needs!("setpriv", "sh", "grep", "id", "true");
    if !rustix::process::geteuid().is_root() {
        return live::may_skip("only root can become another user");
    }
    let folder = Folder::new("capabilities");
    folder.open_to_all();
    let log = folder.path("events.jsonl");
    // what stays of a first run on a machine, /run/wfp, is root's
    assert_eq!(status(&run(&["--", "true"])), 0);
    let mut command = as_nobody(&folder, "+net_admin,+sys_admin,+dac_override");
    command.args(["run", "--events", &log, "--", "sh", "-c", "id -u; grep CapEff: /proc/self/status"]);
    let output = command.output().unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output));
    assert_eq!(stdout(&output), "65534\nCapEff:\t0000000000000000\n", "the command has none of them");
    assert_eq!(lines(&fs::read_to_string(&log).unwrap()).last().unwrap()["kind"], "summary");
}

/// What asks no kernel says the same to everyone.
#[test]
fn what_takes_no_rights() {
    let folder = Folder::new("no-rights-needed");
    folder.open_to_all();
    let policy = folder.file("policy.toml", POLICY);
    let events = folder.file("events.jsonl", "{\"IP_REMOTE_PORT\":80,\"IP_PROTOCOL\":6}\n");
    let capture = folder.path("http.pcap");
    fs::copy(root().join("captures/http.pcap"), &capture).unwrap();
    for path in [&policy, &events, &capture] {
        open_to_all(path);
    }
    let layer = "ALE_AUTH_CONNECT_V4";
    for arguments in [
        &["check", &policy][..],
        &["explain", "-p", &policy, layer, "IP_REMOTE_PORT=80", "IP_PROTOCOL=tcp"],
        &["explain", "-p", &policy, layer, "--from", &events, "--brief"],
        &["replay", "-p", &policy, &capture],
        &["replay", "-p", &policy, &capture, "--json"],
        &["show", "layers"],
        &["show", "layers", layer, "--json"],
        &["export", "-p", &policy, "--format", "json"],
        &["export", "--format", "schema"],
        &["callouts"],
        &["completions", "bash"],
        &["man", "run"],
    ] {
        let output = without_rights(&folder).args(arguments).output().unwrap();
        assert_eq!(status(&output), 0, "{arguments:?}: {}", text(&output));
        assert!(
            !output.stdout.is_empty() && stdout(&output) == succeeds(arguments),
            "{arguments:?}: {}",
            text(&output)
        );
    }
    let bench = ["bench", "-p", &policy, "--layer", layer, "--from", &events, "--json"];
    let output = without_rights(&folder).args(bench).output().unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output));
    let layer = &lines(&stdout(&output))[0];
    assert!(layer["kernel_ns"].is_null() && layer["user_ns"]["mean"].is_number(), "{layer}");
    // what does take rights says so, and what it said before is no answer
    let output = without_rights(&folder).arg("demo").output().unwrap();
    assert_eq!(status(&output), 1, "{}", text(&output));
    assert!(stderr(&output).contains(ALL), "{}", text(&output));
}

#[test]
fn who_may_not_run_anything_loses_no_events() {
    let folder = Folder::new("no-rights");
    folder.open_to_all();
    let (log, ran) = (folder.file("events.jsonl", "of before"), folder.path("ran"));
    open_to_all(&log);
    let arguments = ["run", "--events", &log, "--", "touch", &ran];
    let output = without_rights(&folder).args(arguments).output().unwrap();
    assert_eq!(status(&output), 125, "{}", text(&output));
    assert!(text(&output).contains("missing CAP_NET_ADMIN, "), "{}", text(&output));
    assert_eq!(fs::read_to_string(&log).unwrap(), "of before");
    assert!(fs::metadata(&ran).is_err(), "nothing was executed");
    // nor is one made
    let new = folder.path("new.jsonl");
    assert_eq!(status(&without_rights(&folder).args(["run", "--events", &new, "--", "true"]).output().unwrap()), 125);
    assert!(fs::metadata(&new).is_err());
}

/// Lets every user write to a file.
fn open_to_all(path: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

/// Whoever holds the lock under which runs start and end stops all others.
#[test]
fn neither_another_user_nor_the_command_can_hold_the_lock_of_runs() {
    needs!("setpriv", "sh", "test", "cat");
    if !rustix::process::geteuid().is_root() {
        return live::may_skip("only root can become another user");
    }
    // it is `/dev/null` there, for uid 0 too
    assert_eq!(status(&run(&["--user", "0:0", "--", "test", "-c", "/run/wfp/runs.lock"])), 0);
    assert_eq!(status(&run(&["--user", "65534:65534", "--", "test", "-c", "/run/wfp/runs.lock"])), 0);
    let mut other = Command::new("setpriv");
    let other = other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat", "/run/wfp/runs.lock"]).output();
    assert!(text(&other.unwrap()).contains("Permission denied"));
}
