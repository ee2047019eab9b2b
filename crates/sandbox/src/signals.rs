//! Signals on their way to the command.
//!
//! The command stays in the process group of this process, as with env(1) or nice(1): so it is in the foreground of the terminal
//! when this process is, pipelines and the shell's job control work as if this process were not there, and what the
//! terminal sends (`^C`, `^\`, `^Z`, a new size, the hang-up) reaches the command by itself. What others send to this process is
//! handed on: every signal but [`NOT_HANDED_ON`], real-time ones one for one, with the value that came with them. A signal that
//! a shell sends to the whole group (`kill %1`) cannot be told from one to this process alone; the command gets it twice, which
//! is better than not at all.
//!
//! Whoever runs a command may keep the hang-ups that processes send, as daemons do that read their settings anew at a
//! SIGHUP. The terminal's own still goes to the command: the kernel sends it, which tells the two apart.
//!
//! When the command is stopped by the terminal, this process stops too, so that the shell sees it and takes the terminal back;
//! when the shell continues it, the command goes on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, read, retry_on_intr};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, getsid, kill_process, waitid};

use crate::sys::{self, SignalSet, process_group};

/// The signals that are not handed on: those that nobody can take (SIGKILL, SIGSTOP), what this process is told of its own
/// children, and faults, which are about what this process does.
pub const NOT_HANDED_ON: [i32; 9] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGCHLD,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
];

/// The numbers of the signals that are handed on to the command: all others that there are, SIGRTMIN to SIGRTMAX too.
/// (Those between them and 31 belong to the C library.)
pub fn handed_on() -> Vec<i32> {
    let all = (1..32).chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
    all.filter(|signal| !NOT_HANDED_ON.contains(signal)).collect()
}

/// What the kernel sends to all of a terminal's processes in the foreground or, where one of them asks for the terminal from the
/// background, to all of the asking group.
const OF_TERMINALS: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
];

/// `si_code` of signals that the kernel itself sends, as the terminal's are.
const SI_KERNEL: i32 = 0x80;
/// The size of `struct signalfd_siginfo`.
const RECORD: usize = 128;

/// Takes the signals of this process from the moment it is made; gives them back when it is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: OwnedFd,
    before: SignalSet,
    keeps_hangups: bool,
}

impl std::fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalSet")
    }
}

impl Signals {
    pub(crate) fn take() -> Result<Self, Errno> {
        sys::reset_signal(libc::SIGCHLD);
        let set = SignalSet::new(&[handed_on(), vec![libc::SIGCHLD]].concat());
        let descriptor = set.descriptor()?;
        Ok(Self { descriptor, before: set.block(), keeps_hangups: false })
    }

    /// The signals that were blocked before, as the command shall have them.
    pub(crate) fn before(&self) -> SignalSet {
        self.before
    }

    /// From now on a hang-up that a process sends is for this process.
    pub(crate) fn keep_hangups(&mut self) {
        self.keeps_hangups = true;
    }

    /// Hands on what has come since the last time. Whether a hang-up came that is kept.
    pub(crate) fn hand_on(&self, command: Pid, pidfd: BorrowedFd<'_>) -> Result<bool, Errno> {
        let mut records = [0; 16 * RECORD];
        let mut kept = false;
        loop {
            let length = match retry_on_intr(|| read(&self.descriptor, &mut records)) {
                Ok(length) => length,
                Err(Errno::AGAIN) => return Ok(kept),
                Err(errno) => return Err(errno),
            };
            for record in records[..length].chunks_exact(RECORD).filter_map(Received::from_record) {
                match record.signal {
                    libc::SIGCHLD => stop_with(pidfd)?,
                    libc::SIGHUP if self.keeps_hangups && !record.by_kernel() => kept = true,
                    _ if record.is_not_for(command) => {}
                    signal => match sys::send_signal(pidfd, signal, record.queued()) {
                        // It has ended, or has become another user that this process may not signal; or it takes no more
                        // of those that queue up.
                        Ok(()) | Err(Errno::SRCH | Errno::PERM | Errno::AGAIN) => {}
                        Err(errno) => return Err(errno),
                    },
                }
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Signals {
    /// What came for a command that has ended dies with it: the `^C` that ended it would end this process now, before it has
    /// cleaned up.
    fn drop(&mut self) {
        let mut records = [0; 16 * RECORD];
        while retry_on_intr(|| read(&self.descriptor, &mut records)).is_ok_and(|length| length > 0) {}
        self.before.restore();
    }
}

/// A signal that this process got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Received {
    signal: i32,
    /// `si_code`
    code: i32,
    sender: i32,
    user: u32,
    value: u64,
}

impl Received {
    /// `struct signalfd_siginfo` begins with signal, errno, code, sender, user; the value stands at byte 48.
    fn from_record(record: &[u8]) -> Option<Self> {
        let word = |at: usize| record.get(at..at + 4)?.try_into().ok().map(i32::from_ne_bytes);
        let value = u64::from_ne_bytes(record.get(48..56)?.try_into().ok()?);
        let signal = word(0).filter(|&signal| signal > 0)?;
        Some(Self { signal, code: word(8)?, sender: word(12)?, user: word(16)?.cast_unsigned(), value })
    }

    fn by_kernel(&self) -> bool {
        self.code == SI_KERNEL
    }

    /// What came with it (sigqueue(3)).
    fn queued(&self) -> Option<sys::Queued> {
        let Self { sender, user, value, .. } = *self;
        (self.code == libc::SI_QUEUE).then_some(sys::Queued { sender, user, value })
    }

    /// Whether the command has it already, since the terminal sent it to the group of both or the command sent it itself; or whether
    /// it is about what this process does: a pipe that nobody reads, a file that is too long, its own time.
    ///
    /// A terminal that goes away tells the leader of its session alone; the group hears of it when that one exits.
    fn is_not_for(&self, command: Pid) -> bool {
        let own = getpid();
        if !self.by_kernel() {
            return [command, own].map(|process| process.as_raw_nonzero().get()).contains(&self.sender);
        }
        match self.signal {
            libc::SIGXCPU => true,
            libc::SIGHUP if getsid(None).is_ok_and(|session| session == own) => false,
            // a timer that was set before this program was executed is meant for the command as much as for this process
            signal if !OF_TERMINALS.contains(&signal) => false,
            _ => process_group(command).is_some_and(|group| Some(group) == process_group(own)),
        }
    }
}

/// Stops this process if the terminal has stopped the command.
fn stop_with(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    let status = match waitid(WaitId::PidFd(pidfd), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG) {
        Ok(status) => status,
        Err(Errno::CHILD) => None,
        Err(errno) => return Err(errno),
    };
    let stopped = status.and_then(|status| status.stopping_signal()).and_then(Signal::from_named_raw);
    // One that another program stopped (SIGSTOP) is for that program to continue; nobody would continue this process.
    let Some(signal) = stopped.filter(|signal| [Signal::TSTP, Signal::TTIN, Signal::TTOU].contains(signal)) else {
        return Ok(());
    };
    // The kernel ignores it where no shell could continue the process (an orphaned process group).
    let blocked = SignalSet::new(&[signal.as_raw()]).unblock();
    let result = kill_process(getpid(), signal);
    blocked.restore();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Received = Received { signal: libc::SIGTERM, code: libc::SI_USER, sender: 0, user: 0, value: 0 };

    fn record(signal: i32, code: i32, sender: i32) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        for (index, word) in [(0, signal), (2, code), (3, sender), (4, 7)] {
            record[4 * index..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        record[48..56].copy_from_slice(&4711u64.to_ne_bytes());
        record
    }

    #[test]
    fn a_record_tells_signal_and_sender() {
        let received = Received::from_record(&record(libc::SIGTERM, libc::SI_USER, 4711)).unwrap();
        assert_eq!(received, Received { sender: 4711, user: 7, value: 4711, ..NOBODY });
        assert_eq!(received.queued(), None);
        let queued = Received::from_record(&record(libc::SIGRTMAX(), libc::SI_QUEUE, 3)).unwrap().queued().unwrap();
        assert_eq!((queued.sender, queued.user, queued.value), (3, 7, 4711));
        assert!(Received::from_record(&record(libc::SIGINT, libc::SI_KERNEL, 0)).unwrap().by_kernel());
        assert_eq!(Received::from_record(&[0; RECORD]), None);
        assert_eq!(Received::from_record(&[]), None);
    }

    #[test]
    fn what_is_not_for_the_command_is_not_sent() {
        // This process is in its own group; process 1 is not.
        let (this, init) = (getpid(), Pid::INIT);
        let terminal = Received { signal: libc::SIGINT, code: SI_KERNEL, ..NOBODY };
        assert!(terminal.is_not_for(this));
        assert!(!terminal.is_not_for(init));
        let own = Received { sender: 1, ..NOBODY };
        assert!(own.is_not_for(init));
        assert!(!own.is_not_for(this));
        let pipe = Received { signal: libc::SIGPIPE, sender: this.as_raw_nonzero().get(), ..NOBODY };
        assert!(pipe.is_not_for(init));
        let time = Received { signal: libc::SIGXCPU, code: SI_KERNEL, ..NOBODY };
        assert!(time.is_not_for(init));
        assert!(!Received { code: libc::SI_USER, sender: 4711, ..time }.is_not_for(init));
        let alarm = Received { signal: libc::SIGALRM, code: SI_KERNEL, ..NOBODY };
        assert!(!alarm.is_not_for(this));
    }
}
