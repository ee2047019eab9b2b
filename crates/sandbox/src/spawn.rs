//! Starting the command, and what can be done with it while it runs.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::capability::Capability;
use crate::cgroup::RunGroup;
use crate::error::{Error, Failure, Step, system};
use crate::plan::{Command, Plan};
use crate::sandbox::Sandbox;
use crate::signals::Signals;
use crate::sys;

impl Sandbox {
    /// Starts the process for the command in the group, fully isolated but not executing anything yet.
    ///
    /// Its environment is the given one, with HOME, SHELL, USER and LOGNAME of the run's user if that is another than the caller.
    /// From here on this process takes the signals that it hands on. Call it before other threads are started, or block
    /// [`crate::handed_on`] in them: a signal goes to any thread that does not block it. And release one command before
    /// starting the next: each process that stands ready holds the pipe on which the others report.
    pub fn spawn(
        &self,
        group: &RunGroup,
        program: &OsStr,
        arguments: &[OsString],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Held, Error> {
        let identity = self.user.environment();
        let mut environment: Vec<_> =
            environment.into_iter().filter(|(name, _)| !identity.iter().any(|(own, _)| own == name)).collect();
        environment.extend(identity);
        let command = Command::new(program, arguments, &environment)?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| system("make a pipe")(errno.into()));
        let (go_read, go) = pipe()?;
        let (report, report_write) = pipe()?;
        let signals = Signals::take().map_err(|errno| system("take over the signals")(errno.into()))?;
        let plan = Plan { signals: signals.before(), isolation: self.isolation.as_ref(), program: command.program() };
        let (pid, pidfd) = sys::start(group.as_folder(), &plan, (&go_read, &go), &report_write)
            .map_err(|errno| system(start_hint(errno))(errno.into()))?;
        drop(plan);
        let child = Child { pid, pidfd, signals, outcome: None };
        let targets = self.isolation.as_ref().map(|plan| plan.mounts.targets()).unwrap_or_default();
        Ok(Held { child: Some(child), go, report, command, targets })
    }
}

fn start_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSYS | Errno::TOOBIG | Errno::INVAL => "start a process in a control group (Linux 5.7 is needed)",
        Errno::ACCESS | Errno::PERM => {
            "start a process in the control group (the right to write cgroup.procs there and in the group above both is needed)"
        }
        Errno::OPNOTSUPP | Errno::BUSY => {
            "start a process in the control group (a group above it hands out controllers, or is threaded: choose another \
             OPENWFP_CGROUP_PARENT)"
        }
        Errno::NOENT | Errno::NODEV => "start a process in the control group, which has been removed since it was made",
        _ => "start a process in the control group",
    }
}

/// A process that stands ready in its group and waits for the word to execute the command. Dropped without it, the process
/// ends.
pub struct Held {
    child: Option<Child>,
    go: OwnedFd,
    report: OwnedFd,
    command: Command,
    targets: Vec<String>,
}

impl Held {
    /// The process id, which stays the command's.
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Lets the command be executed, and returns once it is. An error if it cannot be, or if a step before that failed.
    pub fn release(mut self) -> Result<Child, Error> {
        // It fails when the process has ended already; what it reported says why.
        let _ = retry_on_intr(|| write(&self.go, &[1]));
        let mut bytes = [0; Failure::BYTES];
        let length = retry_on_intr(|| read(&self.report, &mut bytes))
            .map_err(|errno| system("read what the process for the command reports")(errno.into()))?;
        let failure = (length == Failure::BYTES).then(|| Failure::from_bytes(bytes)).flatten();
        match (failure, self.child.take()) {
            // Exec closed the pipe; or a signal ended the process first, which waiting for it will tell.
            (None, Some(child)) => Ok(child),
            (Some(failure), child) => {
                if let Some(mut child) = child {
                    // The process ends right after its report.
                    let _ = child.wait();
                }
                Err(self.error(failure))
            }
            (None, None) => Err(system("start the command")(Errno::SRCH.into())),
        }
    }

    fn error(&self, failure: Failure) -> Error {
        let number = failure.number();
        let index = number as usize;
        let subject = match failure.step() {
            Step::Exec if failure.errno() == Errno::NOENT => {
                let interpreter = self.command.candidates().any(Path::exists);
                return Error::NotFound { program: self.command.name(), interpreter };
            }
            Step::Exec => {
                let path = self.command.candidates().nth(index).map(Path::to_path_buf).unwrap_or_default();
                return Error::NotExecutable { program: path.display().to_string(), source: failure.errno().into() };
            }
            Step::Mount => self.targets.get(index).cloned().unwrap_or_default(),
            Step::BoundingSet => {
                let capability = Capability::all().find(|capability| u32::from(capability.number()) == number);
                capability.map_or(format!("capability {number}"), |capability| capability.to_string())
            }
            Step::Group => format!("{number}"),
            Step::User => format!("user {number}"),
            Step::Groups => "the user".to_owned(),
            _ => String::new(),
        };
        Error::Step { failure, subject }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this status.
    Exited(u8),
    /// This signal ended it.
    Signaled(u8),
}

impl Outcome {
    /// The exit status that says the same: 128+n after signal n.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Signaled(signal) => 128_u8.saturating_add(signal),
        }
    }
}

/// The running command. Nothing happens to it when this value is dropped, or when this process ends. Keep it until all is
/// cleaned up: after it, signals do to this process again what they did before.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    signals: Signals,
    outcome: Option<Outcome>,
}

impl Child {
    /// The process id of the command.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Readable when the command has ended: then [`Self::try_wait`] returns how.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable when signals have come for this process: then call [`Self::hand_on_signals`].
    pub fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// From now on a SIGHUP that a process sends to this one is not handed on: [`Self::hand_on_signals`] says that it came. The
    /// hang-up of a terminal, which the kernel sends, stays the command's.
    pub fn keep_hangups(&mut self) {
        self.signals.keep_hangups();
    }

    /// Hands on to the command the signals that have come, and stops this process while the terminal has the command stopped.
    /// Whether there was a SIGHUP that is kept (see [`Self::keep_hangups`]).
    pub fn hand_on_signals(&self) -> Result<bool, Error> {
        self.signals.hand_on(self.pid, self.pidfd()).map_err(|errno| system("hand on a signal")(errno.into()))
    }

    /// Ends the command at once (SIGKILL), not what it has started.
    pub fn kill(&self) -> Result<(), Error> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(system("end the command")(errno.into())),
        }
    }

    /// How the command ended, if it has.
    pub fn try_wait(&mut self) -> Result<Option<Outcome>, Error> {
        self.reap(WaitIdOptions::NOHANG)?;
        Ok(self.outcome)
    }

    /// Waits for the end of the command, handing on signals meanwhile.
    pub fn wait(&mut self) -> Result<Outcome, Error> {
        loop {
            if let Some(outcome) = self.try_wait()? {
                return Ok(outcome);
            }
            let mut ready = [PollFd::new(&self.pidfd, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(system("wait for the command")(errno.into())),
            }
            self.hand_on_signals()?;
        }
    }

    fn reap(&mut self, options: WaitIdOptions) -> Result<(), Error> {
        if self.outcome.is_some() {
            return Ok(());
        }
        let status = retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | options))
            .map_err(|errno| system("wait for the command")(errno.into()))?;
        // The kernel's status and signal numbers fit in eight bits.
        let small = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
        self.outcome = status.and_then(|status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Outcome::Exited(small(code))),
            (None, Some(signal)) => Some(Outcome::Signaled(small(signal))),
            (None, None) => None,
        });
        Ok(())
    }
}
