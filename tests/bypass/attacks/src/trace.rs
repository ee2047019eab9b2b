//! Making another process act: by tracing it, by writing its memory, and reading what it keeps there.
//!
//! What is put into the other process is machine code, which is written down for x86-64 alone; elsewhere these attacks
//! answer that they are not supported, unless the kernel refuses them before.

use crate::{
    Target,
    call::{Address, check},
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    ptr, thread,
    time::Duration,
};

/// The attacks of this file. The first word is the process; without one it is the parent, which runs `wfp`.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    let attack = match name {
        "trace" => trace,
        "write-memory" => write_memory,
        "read-memory" => read_memory,
        _ => return None,
    };
    Some(process(target).and_then(|process| attack(process, target)))
}

fn process(target: &Target) -> io::Result<i32> {
    match target.word(0) {
        Ok(word) => word.parse().map_err(io::Error::other),
        // SAFETY: no arguments.
        Err(_) => Ok(unsafe { libc::getppid() }),
    }
}

/// The bytes of a process, for reading and writing.
fn memory(process: i32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(format!("/proc/{process}/mem"))
}

/// A process that is traced; it goes on by itself when this one lets it go, or ends.
struct Traced {
    process: i32,
    /// The signals that it was to be told meanwhile.
    signals: Vec<i32>,
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.request(libc::PTRACE_DETACH, ptr::null_mut());
        for signal in &self.signals {
            // SAFETY: numbers.
            unsafe { libc::kill(self.process, *signal) };
        }
    }
}

impl Traced {
    fn seize(process: i32) -> io::Result<Self> {
        let none = ptr::null_mut::<u8>();
        // SAFETY: no memory is handed over.
        check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, process, none, none) })?;
        let mut traced = Self { process, signals: Vec::new() };
        traced.request(libc::PTRACE_INTERRUPT, ptr::null_mut())?;
        traced.wait(true)?;
        Ok(traced)
    }

    fn request(&self, request: libc::c_uint, data: *mut u8) -> io::Result<()> {
        // SAFETY: `data` is null, or what the request takes.
        check(unsafe { libc::ptrace(request, self.process, ptr::null_mut::<u8>(), data) }).map(drop)
    }

    /// Until it stops because it was interrupted, or else at a trap.
    fn wait(&mut self, interrupted: bool) -> io::Result<()> {
        loop {
            let mut status = 0;
            // SAFETY: one number.
            check(unsafe { libc::waitpid(self.process, &raw mut status, libc::__WALL) })?;
            if !libc::WIFSTOPPED(status) {
                return Err(io::Error::other("it has ended"));
            }
            let (signal, by_event) = (libc::WSTOPSIG(status), status >> 16 != 0);
            match by_event {
                true if interrupted => return Ok(()),
                false if !interrupted && signal == libc::SIGTRAP => return Ok(()),
                false => self.signals.push(signal),
                true => {}
            }
            self.request(libc::PTRACE_CONT, ptr::null_mut())?;
        }
    }
}

/// Has a process make a socket, outside, and send with it; then it goes on as if nothing had been.
#[cfg(target_arch = "x86_64")]
fn trace(process: i32, target: &Target) -> io::Result<()> {
    const SYSCALL_AND_TRAP: [u8; 3] = [0x0f, 0x05, 0xcc];
    let mut traced = Traced::seize(process)?;
    // SAFETY: zeros are registers.
    let mut before: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    traced.request(libc::PTRACE_GETREGS, (&raw mut before).cast())?;
    let memory = memory(process)?;
    let mut code = SYSCALL_AND_TRAP;
    memory.read_exact_at(&mut code, before.rip)?;
    memory.write_all_at(&SYSCALL_AND_TRAP, before.rip)?;
    // far below of what the stack holds
    let (token, address) = (target.token(), Address::from(target.peer).0);
    let place = (before.rsp - 2048) & !15;
    memory.write_all_at(&token, place)?;
    memory.write_all_at(&address, place + 256)?;
    let mut call = |number: libc::c_long, arguments: [u64; 6]| {
        let mut registers = before;
        // no call that was interrupted is to be begun again
        registers.orig_rax = u64::MAX;
        registers.rax = number as u64;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
        traced.request(libc::PTRACE_SETREGS, (&raw mut registers).cast())?;
        traced.request(libc::PTRACE_CONT, ptr::null_mut())?;
        traced.wait(false)?;
        traced.request(libc::PTRACE_GETREGS, (&raw mut registers).cast())?;
        match registers.rax as i64 {
            error @ -4095..=-1 => Err(io::Error::from_raw_os_error(-error as i32)),
            result => Ok(result as u64),
        }
    };
    let result =
        call(libc::SYS_socket, [target.family() as u64, libc::SOCK_DGRAM as u64, 0, 0, 0, 0]).and_then(|socket| {
            let sent =
                call(libc::SYS_sendto, [socket, place, token.len() as u64, 0, place + 256, address.len() as u64]);
            call(libc::SYS_close, [socket, 0, 0, 0, 0, 0]).and(sent)
        });
    memory.write_all_at(&code, before.rip)?;
    traced.request(libc::PTRACE_SETREGS, (&raw mut before).cast())?;
    result.map(drop)
}

#[cfg(not(target_arch = "x86_64"))]
fn trace(process: i32, _: &Target) -> io::Result<()> {
    let _traced = Traced::seize(process)?;
    Err(io::ErrorKind::Unsupported.into())
}

/// Overwrites what a process that waits in a call does next: it sends, and ends.
fn write_memory(process: i32, target: &Target) -> io::Result<()> {
    let memory = memory(process)?;
    // what it waits in: number, arguments, stack, place of the code
    let place = || {
        let call = fs::read_to_string(format!("/proc/{process}/syscall")).ok()?;
        u64::from_str_radix(call.trim().rsplit(' ').next()?.strip_prefix("0x")?, 16).ok()
    };
    let mut places = (0..100).filter_map(|_| {
        thread::sleep(Duration::from_millis(5));
        place()
    });
    let place = places.next().ok_or(io::ErrorKind::WouldBlock)?;
    memory.write_all_at(&code(target)?, place)?;
    // it wakes by itself
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Machine code that makes a socket, sends the token and ends its process; the token and the address stand behind it.
#[cfg(target_arch = "x86_64")]
fn code(target: &Target) -> io::Result<Vec<u8>> {
    const LENGTH: usize = 68;
    let (token, address) = (target.token(), Address::from(target.peer).0);
    let number = |number: libc::c_long| (number as u32).to_le_bytes();
    // from behind an instruction that ends here
    let to = |place: usize, end: usize| ((place - end) as u32).to_le_bytes();
    let mut code = Vec::new();
    code.extend([0xb8].into_iter().chain(number(libc::SYS_socket))); // mov eax, socket
    code.extend([0xbf].into_iter().chain((target.family() as u32).to_le_bytes())); // mov edi, family
    code.extend([0xbe].into_iter().chain((libc::SOCK_DGRAM as u32).to_le_bytes())); // mov esi, kind
    code.extend([0x31, 0xd2, 0x0f, 0x05, 0x89, 0xc7]); // xor edx, edx; syscall; mov edi, eax
    code.extend([0x48, 0x8d, 0x35].into_iter().chain(to(LENGTH, 28))); // lea rsi, token
    code.extend([0xba].into_iter().chain((token.len() as u32).to_le_bytes())); // mov edx, its length
    code.extend([0x45, 0x31, 0xd2]); // xor r10d, r10d
    code.extend([0x4c, 0x8d, 0x05].into_iter().chain(to(LENGTH + token.len(), 43))); // lea r8, address
    code.extend([0x41, 0xb9].into_iter().chain((address.len() as u32).to_le_bytes())); // mov r9d, its length
    code.extend([0xb8].into_iter().chain(number(libc::SYS_sendto))); // mov eax, sendto
    code.extend([0x0f, 0x05, 0x31, 0xff]); // syscall; xor edi, edi
    code.extend([0xb8].into_iter().chain(number(libc::SYS_exit_group))); // mov eax, exit_group
    code.extend([0x0f, 0x05, 0xcc]); // syscall; int3
    code.resize(LENGTH, 0xcc);
    Ok([code, token, address].concat())
}

#[cfg(not(target_arch = "x86_64"))]
fn code(_: &Target) -> io::Result<Vec<u8>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What `read_memory` says before what it has read.
pub const READ: &[u8] = b"read there: ";

/// Reads the memory of a process, and tells the peer at the port that is permitted.
fn read_memory(process: i32, target: &Target) -> io::Result<()> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"));
    let first = maps.as_ref().ok().and_then(|maps| u64::from_str_radix(maps.split('-').next()?, 16).ok());
    // where it is not known, the kernel says whether it would be permitted
    let place = first.unwrap_or(0x1000);
    let mut bytes = [0u8; 4];
    let own = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let other = libc::iovec { iov_base: place as *mut _, iov_len: bytes.len() };
    // SAFETY: our own memory of this length.
    check(unsafe { libc::process_vm_readv(process, &raw const own, 1, &raw const other, 1, 0) } as i64)?;
    let message = [READ, &bytes].concat();
    crate::call::Socket::datagram(target.peer)?.send_to(&message, 0, target.open())
}
