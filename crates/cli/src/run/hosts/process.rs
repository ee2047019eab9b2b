//! The process of a host.

use anyhow::{Context, Result};
use openwfp_channel::{Wfp, layout::Sizes};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// The user and group of a host whose policy names none: those that the kernel shows for what has no number (`nobody`).
pub(super) const NOBODY: u32 = 65534;

/// What is started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// The host; none: this program, for a built-in callout.
    pub path: Option<PathBuf>,
    pub uid: u32,
    pub gid: u32,
}

/// A process that runs, and the channel to it. It ends when this is dropped, or when the thread that has started it ends.
pub(super) struct Process {
    pub channel: Wfp,
    child: Child,
}

impl Process {
    /// Starts it: this program once more, which gives up its rights and becomes the host.
    pub fn start(program: &Program) -> Result<Self> {
        let (channel, parts) = Wfp::make(Sizes::USUAL).context("cannot make shared memory")?;
        let control = parts.into_control(&channel).context("cannot hand over shared memory")?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["callout-host", "--uid", &program.uid.to_string(), "--gid", &program.gid.to_string()]);
        if let Some(path) = &program.path {
            command.arg("--").arg(path);
        }
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
        command.stdin(Stdio::from(control)).stdout(Stdio::null());
        let child = command.spawn().context("cannot start a process")?;
        Ok(Self { channel, child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn process(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// How it has ended, if it has. It is not waited for before this is dropped, so that its number stays its own.
    pub fn ended(&self) -> Option<String> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = match waitid(WaitId::Pid(self.process()?), options) {
            Ok(ended) => ended?,
            Err(errno) => return Some(format!("it is lost: {errno}")),
        };
        let signal = ended.terminating_signal().map(|signal| format!("it has ended (signal: {signal})"));
        let status = ended.exit_status().map(|status| format!("it has ended (exit status: {status})"));
        Some(signal.or(status).unwrap_or_else(|| "it has ended".to_owned()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // it leads a group, with whatever it has started
        if let Some(process) = self.process() {
            let _ = kill_process_group(process, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
