//! What the tests of the commands share.

#![allow(dead_code, reason = "each test file uses what it needs")]

#[macro_use]
pub mod live;

use serde_json::Value as Json;
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// The root of the tree.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs `wfp`.
pub fn wfp(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wfp")).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

/// Runs `wfp` with something on its standard input.
pub fn wfp_reading(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wfp"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // wfp may stop reading at an error
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The standard output of a command that succeeds.
#[track_caller]
pub fn succeeds(arguments: &[&str]) -> String {
    let output = wfp(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// JSON Lines.
#[track_caller]
pub fn lines(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A folder of one test, which is taken away at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wfp-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file; its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Lets every user write into it, whoever the command runs as.
    pub fn open_to_all(&self) {
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o777)).unwrap();
    }

    /// The path of a file that may not exist yet.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Two sublayers: what one permits softly, the one below blocks.
pub const POLICY: &str = r#"
provider = "acme"

[[sublayer]]
name   = "acme.web"
weight = 0x4000

[[filter]]
name   = "the network may be used"
layer  = "ALE_AUTH_CONNECT"
action = "permit"
when   = { IP_PROTOCOL = ["tcp", "udp"] }

[[filter]]
name     = "no plain HTTP"
layer    = "ALE_AUTH_CONNECT"
sublayer = "acme.web"
weight   = 7
action   = "block"
[filter.when]
IP_PROTOCOL       = "tcp"
IP_REMOTE_PORT    = [80, "8000-8099"]
IP_REMOTE_ADDRESS = { not = "127.0.0.0/8" }

[[filter]]
name     = "no telnet for root"
layer    = "ALE_AUTH_CONNECT"
sublayer = "acme.web"
weight   = 3
action   = "block"
when     = { IP_REMOTE_PORT = 23, ALE_USER_ID = "root" }
"#;
