//! A place for a test: a folder and a group for its runs, both gone when the test ends, however it ends.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use openwfp_sandbox::{Groups, PARENT_VARIABLE};

/// A test, or a part of one, cannot run here: said past the test runner, which keeps what passing tests print. With
/// WFP_TEST_EVERYTHING set it has to run, and this fails.
#[track_caller]
pub fn skipped(reason: impl std::fmt::Display) {
    assert!(std::env::var_os("WFP_TEST_EVERYTHING").is_none(), "cannot run here: {reason}");
    kernel_lacks(reason);
}

/// The same where the kernel is built or set up without what a test keeps commands from: there is nothing to keep them from, and
/// that is no failure.
pub fn kernel_lacks(reason: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

pub struct Place {
    /// Everyone may enter it: the run's user must reach the probe.
    pub folder: PathBuf,
    /// The parent of the groups of this test's runs.
    pub parent: PathBuf,
    /// The probe, copied to where everyone may execute it.
    pub probe: String,
}

/// A place, or a line that says why there is none.
pub fn place() -> Option<Place> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        skipped(format_args!("only root can isolate a command"));
        return None;
    }
    let groups = match Groups::find() {
        Ok(groups) => groups,
        Err(error) => {
            skipped(format_args!("{error}"));
            return None;
        }
    };
    let name = format!("openwfp-sandbox-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let parent = groups.parent().with_file_name(&name);
    if let Err(error) = fs::create_dir(&parent) {
        skipped(format_args!("cannot make {}: {error}", parent.display()));
        return None;
    }
    let folder = std::env::temp_dir().join(&name);
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let mut place = Place { folder, parent, probe: String::new() };
    place.probe = place.copy(env!("CARGO_BIN_EXE_openwfp-sandbox-probe"), "probe");
    Some(place)
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only what this test made: groups below its own parent.
        let _ = fs::write(self.parent.join("cgroup.kill"), "1");
        // It may take a moment until they are dead; and a runner that is still alive may remove its group at the same time.
        let end = Instant::now() + Duration::from_secs(10);
        let mut gone = remove_groups(&self.parent);
        while gone.is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            gone = remove_groups(&self.parent);
        }
        let _ = fs::remove_dir_all(&self.folder);
        if let (Err(error), false) = (gone, std::thread::panicking()) {
            panic!("{} is left behind: {error}", self.parent.display());
        }
    }
}

/// Removes a group and those below it, the deepest first.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove_groups(&entry.path())?;
    }
    fs::remove_dir(group)
}

impl Place {
    /// A program of this place's own. Another process makes it: a file that this one has open for writing, or a process that it
    /// just started for another test, cannot be executed.
    pub fn copy(&self, program: &str, name: &str) -> String {
        self.shell("cp \"$0\" \"$1\"; chmod 755 \"$1\"", program, name)
    }

    /// A script of this place's own.
    pub fn script(&self, text: &str, name: &str) -> String {
        self.shell("printf %s \"$0\" > \"$1\"; chmod 755 \"$1\"", text, name)
    }

    fn shell(&self, script: &str, from: &str, name: &str) -> String {
        let path = self.folder.join(name).to_str().unwrap().to_owned();
        assert!(Command::new("sh").args(["-ec", script, from, &path]).status().unwrap().success());
        path
    }

    /// The probe, with the groups of its runs in this place.
    pub fn probe<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        self.command(&self.probe, arguments)
    }

    /// Any program that starts the probe in the end.
    pub fn command<A: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env(PARENT_VARIABLE, &self.parent).current_dir("/").stdin(Stdio::null());
        for variable in ["SUDO_UID", "SUDO_GID"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a command with these options and returns what came of it.
    pub fn run(&self, options: &[&str], command: &[&str]) -> Ran {
        Ran::of(self.probe(["run"].iter().chain(options).chain(&["--"]).chain(command)))
    }

    /// What a system call of the probe returns when it is run with these options.
    pub fn call(&self, options: &[&str], call: &[&str]) -> String {
        let ran = self.run(options, &[&[self.probe.as_str()], call].concat());
        assert_eq!(ran.status, 0, "{call:?}: {}", ran.err);
        ran.out.trim_end().to_owned()
    }

    /// The folders of the groups of this place.
    pub fn groups(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.parent).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    /// Where the group file system is mounted.
    pub fn mount(&self) -> &Path {
        self.parent.parent().unwrap()
    }
}

/// What came of a command.
#[derive(Debug)]
pub struct Ran {
    /// The exit status; -1 if a signal ended it.
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(mut command: Command) -> Self {
        Self::from(command.output().unwrap())
    }

    /// The value of a line `NAME: value` of `/proc/PID/status`.
    pub fn field(&self, name: &str) -> &str {
        let line = self.out.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {self:?}")).trim()
    }

    /// The same, as a hexadecimal set of bits.
    pub fn bits(&self, name: &str) -> u64 {
        u64::from_str_radix(self.field(name), 16).unwrap()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Waits until something holds, and fails with the words when it does not for ten seconds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
