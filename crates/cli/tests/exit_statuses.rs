//! Exit statuses, command by command: 2 for words that are wrong, 1 for what cannot be done, and those of `wfp run`.

mod common;

use common::{
    Folder, POLICY,
    live::{self, without_rights},
    root, stderr, stdout, wfp,
};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

/// What the words of the table stand for: `POLICY` a policy, `BROKEN` one with a mistake, `EVENTS` events, `CAPTURE` a capture,
/// `FOLDER` no file, `MISSING` nothing.
struct Files(Folder);

impl Files {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        folder.open_to_all();
        let policy = folder.file("POLICY", POLICY);
        folder.file("BROKEN", "[[filter]]\nname = \"x\"\nlayer = \"NO_SUCH\"\naction = \"block\"\n");
        folder.file("EVENTS", "{\"IP_REMOTE_PORT\":80,\"IP_PROTOCOL\":6}\n");
        folder.file("NONSENSE", "nonsense, and enough of it to be the beginning of a capture\n");
        fs::copy(root().join("captures/http.pcap"), folder.path("CAPTURE")).unwrap();
        fs::create_dir(folder.path("FOLDER")).unwrap();
        symlink(folder.path("LOOP"), folder.path("LOOP")).unwrap();
        let shut = folder.path("SHUT");
        fs::copy(policy, &shut).unwrap();
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
        Self(folder)
    }

    /// The words of a line, with paths for what is written in capitals and is one of the files.
    fn words(&self, line: &str) -> Vec<String> {
        let names = ["POLICY", "BROKEN", "EVENTS", "NONSENSE", "CAPTURE", "FOLDER", "LOOP", "SHUT", "MISSING"];
        let word = |word: &str| if names.contains(&word) { self.0.path(word) } else { word.to_owned() };
        line.split(' ').filter(|word| !word.is_empty()).map(word).collect()
    }
}

const OK: &str = "
    --help
    --version
    run --help
    explain --help
    check POLICY
    check POLICY POLICY
    explain -p POLICY ALE_AUTH_CONNECT_V4
    explain -p POLICY ale_auth_connect_v4 IP_REMOTE_PORT=80 ALE_APP_ID=?
    explain -p POLICY ALE_AUTH_CONNECT_V4 --group 4242
    explain -p POLICY ALE_AUTH_CONNECT_V4 --from EVENTS
    bench -p POLICY --layer ALE_AUTH_CONNECT_V4 --from EVENTS
    replay CAPTURE
    replay -p POLICY --local 192.0.2.1/32 CAPTURE
    show layers
    show layers ALE_AUTH_CONNECT
    callouts
    export -p POLICY --format json
    export --format schema
    completions bash
    man
    man run";

/// An unknown command, option, layer, field or callout; a value that an option or a field does not take; what is left out, or does not
/// go together. The files that are named do not matter.
const WRONG_USAGE: &str = "

    no-such-command
    --no-such-option
    --color purple check POLICY
    check
    check --no-such-option POLICY
    check --json=yes POLICY
    explain
    explain ALE_AUTH_CONNECT_V4
    explain -p POLICY
    explain -p POLICY ALE_AUTH_CONECT_V4
    explain -p MISSING ALE_AUTH_CONECT_V4
    explain -p POLICY ALE_AUTH_CONNECT IP_REMOTE_PORT=80
    explain -p POLICY ALE_AUTH_CONNECT_V4 IP_REMOTE_PORT
    explain -p POLICY ALE_AUTH_CONNECT_V4 IP_REMOTE_PORTS=80
    explain -p POLICY ALE_AUTH_CONNECT_V4 ICMP_TYPE_OF=8
    explain -p POLICY ALE_AUTH_CONNECT_V4 IP_REMOTE_PORT=65536
    explain -p POLICY ALE_AUTH_CONNECT_V4 IP_REMOTE_PORT=80-90
    explain -p POLICY ALE_AUTH_CONNECT_V4 IP_REMOTE_ADDRESS=2001:db8::1
    explain -p POLICY ALE_AUTH_CONNECT_V4 IP_REMOTE_PORT=80 IP_REMOTE_PORT=81
    explain -p POLICY ALE_AUTH_CONNECT_V4 ALE_USER_ID=no-such-user
    explain -p POLICY ALE_AUTH_CONNECT_V4 --group no-such-group
    explain -p POLICY ALE_AUTH_CONNECT_V4 IP_REMOTE_PORT=80 --from EVENTS
    explain -p - ALE_AUTH_CONNECT_V4 --from -
    bench
    bench -p POLICY --layer ALE_AUTH_CONECT_V4
    bench -p MISSING --layer ALE_AUTH_CONECT_V4
    bench -p POLICY --from EVENTS
    replay
    replay --local 192.0.2.300 CAPTURE
    replay --local 192.0.2.1/33 CAPTURE
    replay CAPTURE CAPTURE
    replay -
    show
    show filters
    show layers ALE_AUTH_CONECT_V4
    show layers ALE_AUTH_CONNECT_V4 ALE_AUTH_CONNECT_V6
    callouts openwfp.dns-monitor
    export
    export -p POLICY
    export --format json
    export -p POLICY --format netsh
    export -p POLICY -p POLICY --format json
    demo now
    completions
    completions cmd
    man no-such-command
    run
    run true
    run -p POLICY
    run --no-such-option -- true
    run --watch -- true
    run --watch -p - -- true
    run --keep-fd one -- true
    run --keep-cap CAP_NET_ADMN -- true
    run --family PACKETS -- true
    run --layers ALE_AUTH_CONECT -- true
    run --layers RPC_UM -- true
    run -p MISSING --layers ALE_AUTH_CONECT -- true
    run --unix all /run/x.sock -- true
    run --no-isolation --user root -- true";

/// Files that are not there, cannot be read, or hold something else.
const CANNOT_BE_DONE: &str = "
    check BROKEN
    check POLICY MISSING
    check FOLDER
    check LOOP
    explain -p BROKEN ALE_AUTH_CONNECT_V4
    explain -p MISSING ALE_AUTH_CONNECT_V4
    explain -p FOLDER ALE_AUTH_CONNECT_V4
    explain -p POLICY ALE_AUTH_CONNECT_V4 --from MISSING
    explain -p POLICY ALE_AUTH_CONNECT_V4 --from FOLDER
    explain -p POLICY ALE_AUTH_CONNECT_V4 --from NONSENSE
    bench -p BROKEN
    bench -p MISSING
    bench -p POLICY --layer ALE_AUTH_CONNECT_V4 --from MISSING
    bench -p POLICY --layer ALE_AUTH_CONNECT_V4 --from FOLDER
    bench -p POLICY --layer ALE_AUTH_CONNECT_V4 --from NONSENSE
    replay -p BROKEN CAPTURE
    replay -p MISSING CAPTURE
    replay MISSING
    replay FOLDER
    replay NONSENSE
    replay --write CAPTURE CAPTURE
    replay --write FOLDER CAPTURE
    export -p BROKEN --format json
    export -p MISSING --format toml
    export -p FOLDER --format toml";

fn rows(table: &str) -> impl Iterator<Item = &str> {
    table.lines().skip(1).map(str::trim)
}

#[test]
fn what_each_command_says_by_its_exit_status() {
    let files = Files::new("statuses");
    let capture = fs::read(files.0.path("CAPTURE")).unwrap();
    for (table, status) in [(OK, 0), (WRONG_USAGE, 2), (CANNOT_BE_DONE, 1)] {
        for line in rows(table) {
            let words = files.words(line);
            let output = wfp(&words.iter().map(String::as_str).collect::<Vec<_>>());
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(status), "wfp {line}: {said}");
            assert!(status == 0 || !said.trim().is_empty(), "wfp {line} says nothing");
            assert!(!said.contains("panicked"), "wfp {line}: {said}");
            assert!(status != 2 || stdout(&output).is_empty(), "wfp {line} has begun: {}", stdout(&output));
        }
    }
    assert_eq!(fs::read(files.0.path("CAPTURE")).unwrap(), capture, "nothing was changed");
}

/// What root may read is shut to others.
#[test]
fn files_that_may_not_be_read() {
    let files = Files::new("shut");
    for line in [
        "check SHUT",
        "explain -p SHUT ALE_AUTH_CONNECT_V4",
        "explain -p POLICY ALE_AUTH_CONNECT_V4 --from SHUT",
        "bench -p SHUT",
        "replay SHUT",
        "replay --write SHUT CAPTURE",
        "export -p SHUT --format json",
    ] {
        let output = without_rights(&files.0).args(files.words(line)).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "wfp {line}: {}", stderr(&output));
        assert!(stderr(&output).contains("Permission denied"), "wfp {line}: {}", stderr(&output));
    }
    let output = without_rights(&files.0).args(files.words("run -p SHUT -- true")).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
}

/// An answer that could not be written is none.
#[test]
fn a_full_disk() {
    let files = Files::new("full");
    let wfp = env!("CARGO_BIN_EXE_wfp");
    for line in [
        "check POLICY",
        "explain -p POLICY ALE_AUTH_CONNECT_V4",
        "replay --json -q CAPTURE",
        "show layers",
        "callouts",
        "export -p POLICY --format json",
        "completions bash",
        "man",
        "replay --write /dev/full CAPTURE",
    ] {
        let script = format!("{wfp} {} >/dev/full", files.words(line).join(" "));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "wfp {line}: {}", stderr(&output));
        assert!(stderr(&output).contains("No space left"), "wfp {line}: {}", stderr(&output));
    }
}

/// `wfp run` has done nothing where it ends with 125, 126 or 127.
#[test]
fn what_a_run_says_by_its_exit_status() {
    if let Some(obstacle) = live::obstacle(&["sh", "true"]) {
        return live::may_skip(&obstacle);
    }
    let files = Files::new("run-statuses");
    for (line, status) in [
        ("run -- true", 0),
        ("run -p POLICY --layers all -- true", 0),
        ("run -- false", 1),
        ("run -p MISSING -- true", 125),
        ("run -p BROKEN -- true", 125),
        ("run -p FOLDER -- true", 125),
        ("run --user no-such-user -- true", 125),
        ("run --user 4242 -- true", 125),
        ("run --keep-fd 999 -- true", 125),
        ("run --events FOLDER -- true", 125),
        ("run --events MISSING/x -- true", 125),
        ("run --unix MISSING -- true", 125),
        ("run -- EVENTS", 126),
        ("run -- FOLDER", 126),
        ("run -- MISSING", 127),
        ("run -- no-such-program", 127),
    ] {
        let words = files.words(line);
        let output = wfp(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(status), "wfp {line}: {}", stderr(&output));
        assert!(status < 2 || !stderr(&output).trim().is_empty(), "wfp {line} says nothing");
    }
    for (script, status) in [("exit 2", 2), ("exit 125", 125), ("exit 255", 255), ("kill -9 $$", 128 + 9)] {
        assert_eq!(wfp(&["run", "--", "sh", "-c", script]).status.code(), Some(status), "{script}");
    }
}
