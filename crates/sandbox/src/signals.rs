//! Signals on their way to the command.
//!
//! The command stays in the process group of this process, as with env(1) or nice(1): so it is in the foreground of the terminal
//! when this process is, pipelines and the shell's job control work as if this process were not there, and what the
//! terminal sends (`^C`, `^\`, `^Z`, a new size, the hang-up) reaches the command by itself. What others send to this process is
//! handed on. A signal that a shell sends to the whole group (`kill %1`) cannot be told from one to this process alone; the
//! command gets it twice, which is better than not at all.
//!
//! Whoever runs a command may keep the hang-ups that processes send, as daemons do that read their settings anew at a
//! SIGHUP. The terminal's own still goes to the command: the kernel sends it, which tells the two apart.
//!
//! When the command is stopped by the terminal, this process stops too, so that the shell sees it and takes the terminal back;
//! when the shell continues it, the command goes on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, read, retry_on_intr};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, getsid, kill_process, pidfd_send_signal, waitid};

use crate::sys::{self, SignalSet, process_group};

/// The numbers of the signals that are handed on to the command.
pub const HANDED_ON: [i32; 14] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGTSTP,
    libc::SIGCONT,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
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
        let set = SignalSet::new(&[&HANDED_ON[..], &[libc::SIGCHLD]].concat());
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
                    Signal::CHILD => stop_with(pidfd)?,
                    Signal::HUP if self.keeps_hangups && !record.by_kernel => kept = true,
                    _ if record.has_reached(command) => {}
                    signal => match pidfd_send_signal(pidfd, signal) {
                        // It has ended, or has become another user that this process may not signal.
                        Ok(()) | Err(Errno::SRCH | Errno::PERM) => {}
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
    signal: Signal,
    by_kernel: bool,
    sender: i32,
}

impl Received {
    /// `struct signalfd_siginfo` begins with signal, errno, code, sender.
    fn from_record(record: &[u8]) -> Option<Self> {
        let word = |index: usize| {
            let bytes = record.get(4 * index..4 * index + 4)?;
            bytes.try_into().ok().map(i32::from_ne_bytes)
        };
        let signal = Signal::from_named_raw(word(0)?)?;
        Some(Self { signal, by_kernel: word(2)? == SI_KERNEL, sender: word(3)? })
    }

    /// Whether the command has it already: the terminal sent it to the group of both, or the command sent it itself.
    ///
    /// A terminal that goes away tells the leader of its session alone; the group hears of it when that one exits.
    fn has_reached(&self, command: Pid) -> bool {
        if self.by_kernel {
            if self.signal == Signal::HUP && getsid(None).is_ok_and(|session| session == getpid()) {
                return false;
            }
            return process_group(command).is_some_and(|group| Some(group) == process_group(getpid()));
        }
        self.sender == command.as_raw_nonzero().get()
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

    fn record(signal: i32, code: i32, sender: i32) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        for (index, word) in [(0, signal), (2, code), (3, sender)] {
            record[4 * index..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        record
    }

    #[test]
    fn a_record_tells_signal_and_sender() {
        let received = Received::from_record(&record(libc::SIGTERM, libc::SI_USER, 4711)).unwrap();
        assert_eq!(received, Received { signal: Signal::TERM, by_kernel: false, sender: 4711 });
        assert!(Received::from_record(&record(libc::SIGINT, libc::SI_KERNEL, 0)).unwrap().by_kernel);
        assert_eq!(Received::from_record(&[0; RECORD]), None);
        assert_eq!(Received::from_record(&[]), None);
    }

    #[test]
    fn what_the_command_has_already_is_not_sent_again() {
        // This process is in its own group; process 1 is not.
        let (this, init) = (getpid(), Pid::INIT);
        let terminal = Received { signal: Signal::INT, by_kernel: true, sender: 0 };
        assert!(terminal.has_reached(this));
        assert!(!terminal.has_reached(init));
        let own = Received { signal: Signal::TERM, by_kernel: false, sender: 1 };
        assert!(own.has_reached(init));
        assert!(!own.has_reached(this));
    }
}
