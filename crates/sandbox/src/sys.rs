//! The system calls that need `unsafe`: all of this crate's unsafe code is here.
//!
//! rustix has a safe function for most calls; what it lacks, or cannot make safe, is wrapped here so that nothing outside
//! can misuse it.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_long};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::child;
use crate::plan::Plan;

fn check(result: c_long) -> Result<c_long, Errno> {
    if result == -1 { Err(last_errno()) } else { Ok(result) }
}

fn last_errno() -> Errno {
    // SAFETY: the C library's pointer to this thread's errno is valid for as long as the thread runs.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

// ---- processes ----

/// Starts a process in the group and returns its id and pidfd. The new process does what [`child::run`] says and never
/// returns.
///
/// clone3 puts it into the group at birth, so that it is never anywhere else, and without the lock on all process groups of
/// the machine that a move through `cgroup.procs` takes. It must not be the C library's fork: its handlers could wait
/// for locks; and nothing in the new process may call the C library for more than a system call.
pub(crate) fn start(
    group: BorrowedFd<'_>,
    plan: &Plan<'_>,
    (go, go_write): (&OwnedFd, &OwnedFd),
    report: &OwnedFd,
) -> Result<(Pid, OwnedFd), Errno> {
    // libc's constant is too narrow.
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let mut pidfd: RawFd = -1;
    // SAFETY: the structure is plain numbers; zero is "not used" for each.
    let mut arguments: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    arguments.flags = libc::CLONE_PIDFD as u64 | CLONE_INTO_CGROUP;
    arguments.pidfd = &raw mut pidfd as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = group.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM the new process has a copy of all memory and goes on here on a copy of this stack. It goes
    // straight into a function that makes system calls only and ends in exec or exit, so locks that other threads of this
    // process held at this moment are never asked for.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of_val(&arguments)) })?;
    let Some(pid) = Pid::from_raw(pid as i32) else {
        let _ends = ExitInsteadOfUnwinding;
        // SAFETY: the owner of this descriptor is the parent; here nothing uses it or closes it again. With it open the process
        // would hold the pipe of its own parent, and never learn of its end.
        unsafe { libc::close(go_write.as_raw_fd()) };
        child::run(plan, go.as_fd(), report.as_fd())
    };
    // SAFETY: the kernel has stored a new descriptor that nobody else owns.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// The new process must never go on with the code of its parent.
struct ExitInsteadOfUnwinding;

impl Drop for ExitInsteadOfUnwinding {
    fn drop(&mut self) {
        exit(125);
    }
}

/// Ends the process at once, without the handlers of the C library.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(status) }
}

/// The process group of a process, if there is such a process; 0 for a group outside this process's PID namespace.
pub(crate) fn process_group(process: Pid) -> Option<i32> {
    // SAFETY: it takes and returns a number.
    let group = unsafe { libc::getpgid(process.as_raw_nonzero().get()) };
    (group != -1).then_some(group)
}

/// A list of strings as execve(2) takes it.
pub(crate) struct Vector<'a> {
    /// Ends with a null pointer.
    pointers: Vec<*const c_char>,
    strings: PhantomData<&'a CStr>,
}

impl<'a> Vector<'a> {
    pub(crate) fn new(strings: impl IntoIterator<Item = &'a CStr>) -> Self {
        let mut pointers: Vec<_> = strings.into_iter().map(CStr::as_ptr).collect();
        pointers.push(std::ptr::null());
        Self { pointers, strings: PhantomData }
    }
}

/// Becomes another program; returns only if that fails.
pub(crate) fn exec(path: &CStr, arguments: &Vector<'_>, environment: &Vector<'_>) -> Errno {
    // SAFETY: the path and all strings of both lists end with NUL and are borrowed; the lists end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    last_errno()
}

// ---- descriptors ----

/// A descriptor of this process by its number, if it is open.
pub(crate) fn descriptor(number: RawFd) -> Option<BorrowedFd<'static>> {
    if number < 0 {
        return None;
    }
    // SAFETY: it asks about a number and does nothing to what it stands for.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: it is open. It is one of the standard descriptors or was handed over by whoever started this process, so nothing
    // here owns and closes it; the caller looks at it and lets go.
    Some(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Lets exec close all descriptors from the first to the last number.
pub(crate) fn close_at_exec(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: it sets a flag that exec looks at; no descriptor is closed now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

// ---- mounts ----

/// Gives this process a copy of all mounts of its own.
pub(crate) fn own_mounts() -> Result<(), Errno> {
    // SAFETY: it changes how paths are resolved; descriptors and memory are shared with nobody by this call.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
}

/// Makes a mount read-only (Linux 5.12), not those below it.
pub(crate) fn make_mount_read_only(mount_point: &CStr) -> Result<(), Errno> {
    /// `struct mount_attr`
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const READ_ONLY: u64 = 1;
    let attributes = Attributes { set: READ_ONLY, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: the path ends with NUL, and the structure has the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            mount_point.as_ptr(),
            0,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    check(result).map(drop)
}

// ---- filters of system calls and of access ----

/// Binds a filter to this thread and all that it starts (seccomp(2)).
pub(crate) fn set_system_call_filter(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let Ok(len) = u16::try_from(filter.len()) else { return Err(Errno::INVAL) };
    // The kernel copies the program and does not write it.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program has the length that is given.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) }).map(drop)
}

/// `struct landlock_ruleset_attr`, as far as it is used here.
#[repr(C)]
pub(crate) struct LandlockRuleset {
    pub(crate) handled_access_fs: u64,
    pub(crate) handled_access_net: u64,
    pub(crate) scoped: u64,
}

/// The version of Landlock's interface that the kernel has, from 1.
pub(crate) fn landlock_version() -> Result<c_long, Errno> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag there is no structure.
    check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) })
}

/// A new set of rules. Old kernels take only the fields that they know: `length` in bytes.
pub(crate) fn landlock_create(ruleset: &LandlockRuleset, length: usize) -> Result<OwnedFd, Errno> {
    let length = length.min(size_of::<LandlockRuleset>());
    // SAFETY: the structure is at least as long as is said.
    let descriptor =
        check(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const *ruleset, length, 0) })?;
    // SAFETY: the kernel has made a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

/// Allows what the ruleset handles below a folder.
pub(crate) fn landlock_allow(ruleset: &OwnedFd, access: u64, folder: BorrowedFd<'_>) -> Result<(), Errno> {
    /// `struct landlock_path_beneath_attr`
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent: i32,
    }
    const PATH_BENEATH: c_int = 1;
    let rule = PathBeneath { allowed_access: access, parent: folder.as_raw_fd() };
    // SAFETY: the structure is the one that goes with this kind of rule.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, &raw const rule, 0) };
    check(result).map(drop)
}

/// Binds a ruleset to this thread and all that it starts.
pub(crate) fn landlock_restrict(ruleset: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: it takes a descriptor and flags.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) }).map(drop)
}

// ---- signals ----

/// A set of signals.
#[derive(Clone, Copy)]
pub(crate) struct SignalSet(libc::sigset_t);

impl SignalSet {
    pub(crate) fn new(signals: &[c_int]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset fills the whole set in.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for &signal in signals {
            // SAFETY: the set is filled in; numbers that are no signals are refused.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        Self(set)
    }

    /// Blocks these signals for this thread, besides those that it blocks already; returns what it blocked before.
    pub(crate) fn block(&self) -> Self {
        self.apply(libc::SIG_BLOCK)
    }

    /// Stops blocking these signals; returns what the thread blocked before.
    pub(crate) fn unblock(&self) -> Self {
        self.apply(libc::SIG_UNBLOCK)
    }

    /// Blocks these and no others.
    pub(crate) fn restore(&self) {
        self.apply(libc::SIG_SETMASK);
    }

    fn apply(&self, how: c_int) -> Self {
        let mut before = Self::new(&[]);
        // SAFETY: both sets are filled in. It can fail only for an unknown `how`.
        unsafe { libc::pthread_sigmask(how, &raw const self.0, &raw mut before.0) };
        before
    }

    /// A descriptor that reads these signals while they are blocked (signalfd(2)): closed at exec, never waiting.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, Errno> {
        // SAFETY: the set is filled in; -1 asks for a new descriptor.
        let descriptor = unsafe { libc::signalfd(-1, &raw const self.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        check(descriptor.into())?;
        // SAFETY: the kernel has made a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

/// What comes with a signal that was queued (sigqueue(3)): who sent it, and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) sender: i32,
    pub(crate) user: u32,
    pub(crate) value: u64,
}

/// Sends a process a signal by its number, which may be a real-time one: `kill` or, with what comes with it, `sigqueue`.
pub(crate) fn send_signal(process: BorrowedFd<'_>, signal: c_int, queued: Option<Queued>) -> Result<(), Errno> {
    /// `siginfo_t`: what follows the first three numbers is aligned as a pointer is.
    #[repr(C)]
    struct Info {
        signal: c_int,
        errno: c_int,
        code: c_int,
        sent: Sent,
        rest: [u64; 12],
    }
    #[repr(C)]
    struct Sent {
        sender: i32,
        user: u32,
        value: usize,
    }
    const { assert!(size_of::<Info>() >= size_of::<libc::siginfo_t>()) };
    let info = queued.map(|Queued { sender, user, value }| Info {
        signal,
        errno: 0,
        code: libc::SI_QUEUE,
        sent: Sent { sender, user, value: value as usize },
        rest: [0; 12],
    });
    let pointer = info.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: there is no structure, or one that is at least as long as the kernel reads and lives until the call is over.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, pointer, 0) };
    check(result).map(drop)
}

/// Gives a signal its ordinary effect again. Programs in Rust start with SIGPIPE ignored, which exec would hand on; and where
/// SIGCHLD is ignored, as some programs leave it to those that they start, nobody learns how a process ended.
pub(crate) fn reset_signal(signal: c_int) {
    // SAFETY: the default action runs no code of this process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
