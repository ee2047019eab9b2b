//! System calls as they are, without the C library's opinion of them.
#![allow(unsafe_code)]

use std::ffi::c_long;
use std::fmt;
use std::io::Write as _;

use rustix::io::Errno;

/// What a call returned.
pub struct Answer(Result<i64, Errno>);

impl Answer {
    fn from_c(value: c_long) -> Self {
        if value == -1 { Self(Err(last_errno())) } else { Self(Ok(value)) }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            Ok(value) => return write!(f, "{value}"),
            Err(Errno::PERM) => "EPERM",
            Err(Errno::ACCESS) => "EACCES",
            Err(Errno::NOSYS) => "ENOSYS",
            Err(Errno::INVAL) => "EINVAL",
            Err(Errno::FAULT) => "EFAULT",
            Err(Errno::AFNOSUPPORT) => "EAFNOSUPPORT",
            Err(Errno::PROTONOSUPPORT) => "EPROTONOSUPPORT",
            Err(Errno::BADF) => "EBADF",
            Err(Errno::IO) => "EIO",
            Err(other) => return write!(f, "{other:?}"),
        };
        f.write_str(name)
    }
}

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

fn argument(numbers: &[i64], index: usize) -> i64 {
    numbers.get(index).copied().unwrap_or(0)
}

/// A call by its number, with up to six numbers. A new process made by it ends at once.
pub fn syscall(numbers: &[i64]) -> Answer {
    let [number, a, b, c, d, e, f] = std::array::from_fn(|index| argument(numbers, index));
    let parent = std::process::id();
    // SAFETY: the tests pass numbers and null pointers, which the kernel checks.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if std::process::id() != parent {
        std::process::exit(0);
    }
    Answer::from_c(value)
}

/// A call as a 32-bit program makes it: another table of numbers, the same process.
#[cfg(target_arch = "x86_64")]
pub fn int80(numbers: &[i64]) -> Answer {
    let mut value = argument(numbers, 0);
    let [b, c, d] = [1, 2, 3].map(|index| argument(numbers, index));
    // SAFETY: the tests pass numbers and null pointers, which the kernel checks. It changes eax and, on some kernels, r8 to r11;
    // rbx belongs to LLVM, so it is exchanged around the call.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {b}",
            "int 0x80",
            "xchg rbx, {b}",
            b = inout(reg) b => _,
            inout("rax") value,
            in("rcx") c,
            in("rdx") d,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    // The answer is 32 bits wide; the last 4,095 numbers are errors.
    match value as i32 {
        errno @ -4095..=-1 => Answer(Err(Errno::from_raw_os_error(-errno))),
        value => Answer(Ok(value.into())),
    }
}

/// There is no such way in on this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub fn int80(_: &[i64]) -> Answer {
    Answer(Err(Errno::NOSYS))
}

/// Prints each signal that comes as a number on a line of its own, with the value that was queued with it, until SIGTERM, which
/// is printed too.
pub fn signals() -> Result<(), Box<dyn std::error::Error>> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigfillset fills the whole set in.
    let set = unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    };
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the set is filled in, and what the call fills in stands in zeros.
        let (signal, info) = unsafe { (libc::sigwaitinfo(&raw const set, info.as_mut_ptr()), info.assume_init()) };
        match info.si_code {
            // SAFETY: with this code the sender has given a value.
            libc::SI_QUEUE => writeln!(out, "{signal} {}", unsafe { info.si_value() }.sival_ptr as usize)?,
            _ => writeln!(out, "{signal}")?,
        }
        if signal == libc::SIGTERM {
            return Ok(());
        }
    }
}

/// Puts text into the input of the terminal on standard input, as if it had been typed.
pub fn type_into_terminal(text: &str) -> Answer {
    let mut answer = Answer(Ok(0));
    for byte in text.as_bytes() {
        // SAFETY: the kernel reads one byte.
        answer = Answer::from_c(unsafe { libc::ioctl(0, libc::TIOCSTI, byte) }.into());
    }
    answer
}

/// A copy of a descriptor of another process.
pub fn steal(pid: i64, descriptor: i64) -> Answer {
    // SAFETY: both calls take numbers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if pidfd == -1 {
        return Answer::from_c(pidfd);
    }
    // SAFETY: as above.
    Answer::from_c(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, descriptor, 0) })
}
