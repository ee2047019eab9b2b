//! A control group of the test's own, with the programs loaded for it.

// Each file of tests is a crate of its own and uses a part.
#![allow(dead_code)]

pub mod actor;
pub mod bulk;
pub mod diverting;
pub mod frames;
pub mod live;
pub mod maps;
pub mod nesting;
pub mod net;
pub mod obedient;
pub mod odd;
pub mod pins;
pub mod router;
pub mod serving;
pub mod skips;
pub mod storm;
pub mod talk;
pub mod unix;
pub mod wire;

use openwfp_abi::label::Label;
use openwfp_kernel::{
    features,
    group::{self, Group},
    labels::Labels,
    load::{Settings, Shims},
};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A control group that is emptied and removed when it goes out of scope, however the test ends.
pub struct OwnGroup(pub Group);

impl OwnGroup {
    pub fn make() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("openwfp-test-{}-{number}", std::process::id());
        let path = group::hierarchy().unwrap().join(name);
        fs::create_dir(&path).unwrap();
        Self(Group::open(&path).unwrap())
    }

    /// Puts the command into a group: this one, or one below it.
    pub fn enter(&self, command: &mut Command, below: &str) {
        let folder = self.0.path.join(below);
        fs::create_dir_all(&folder).unwrap();
        let procs = File::options().write(true).open(folder.join("cgroup.procs")).unwrap();
        // SAFETY: a single write to a descriptor that is open, between fork and exec.
        unsafe { command.pre_exec(move || (&procs).write_all(b"0")) };
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.path.join("cgroup.kill"), "1");
        let mut folders: Vec<PathBuf> = vec![self.0.path.clone()];
        let mut looked_at = 0;
        while let Some(folder) = folders.get(looked_at) {
            let below = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
            let below: Vec<PathBuf> = below.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
            folders.extend(below);
            looked_at += 1;
        }
        for folder in folders.into_iter().rev() {
            let gone = wait_until(|| fs::remove_dir(&folder).is_ok());
            if !gone {
                skips::say(format_args!("{} could not be removed", folder.display()));
            }
        }
    }
}

/// A folder that is removed when it goes out of scope.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn make() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("openwfp-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Copies a program into the folder.
    pub fn copy_of(&self, program: &str, name: &str) -> PathBuf {
        let copy = self.0.join(name);
        // by another process: a child of this one that has not executed anything yet would have a file that is being
        // written here open too, and nobody can execute such a file
        assert!(Command::new("cp").arg(program).arg(&copy).status().unwrap().success());
        copy
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            skips::say(format_args!("{} could not be removed: {error}", self.0.display()));
        }
    }
}

/// The programs, labelling the processes of a group of their own.
pub struct Bench {
    pub labels: Labels,
    pub shims: Shims,
    pub group: OwnGroup,
}

impl Bench {
    /// `None`, with the reason printed, where the programs cannot be loaded.
    pub fn new() -> Option<Self> {
        let missing = features::missing();
        if !missing.is_empty() {
            skips::skipped(missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
            return None;
        }
        let group = OwnGroup::make();
        let settings = Settings::labels(&group.0);
        let mut shims = Shims::load(&settings).unwrap_or_else(|error| panic!("{error}"));
        let attached = shims.attach_labels(None);
        attached.unwrap_or_else(|error| panic!("{error}"));
        let labels = Labels::take(&mut shims).unwrap();
        Some(Self { labels, shims, group })
    }

    /// A command that runs in the group.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        self.group.enter(&mut command, "");
        command
    }

    /// The label of a process that has just been started. (`spawn` returns a little earlier.)
    pub fn label_of(&self, pid: u32) -> Label {
        assert!(wait_until(|| self.labels.of(pid).is_some()), "no label");
        self.labels.of(pid).unwrap()
    }

    /// A label in words.
    pub fn describe(&self, pid: u32) -> String {
        let mounts = openwfp_kernel::mounts::read().unwrap();
        match self.labels.of(pid) {
            Some(label) => self.labels.describe(&label, &mounts),
            None => "no label".into(),
        }
    }
}

/// Waits at most ten seconds.
pub fn wait_until(mut done: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        if done() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}
