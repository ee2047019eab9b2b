//! Datagrams to be measured by.
//!
//! `load window GROUP SPACE ADDRESS MILLISECONDS WINDOW BYTES`: sends WINDOW datagrams, takes them all, and again; prints how many a
//! second, and what processor time it took. `load ping GROUP SPACE ADDRESS MILLISECONDS`: one datagram at a time; prints the median
//! and the 99th percentile of the time that one takes there, in microseconds.
//!
//! The receiver is made in the network namespace SPACE (a path; `-`: that of the caller), and not in the control group; the sender in
//! the group GROUP (a path; `-`: none).

use std::{
    fs::{self, File},
    io,
    mem::zeroed,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
    time::{Duration, Instant},
};

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn processor() -> f64 {
    // SAFETY: zeros are a valid structure, which is our own.
    let used = unsafe {
        let mut used: libc::rusage = zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut used);
        used
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(used.ru_utime) + seconds(used.ru_stime)
}

/// Messages of one size, sent and received many at once.
struct Messages {
    messages: Vec<libc::mmsghdr>,
    _vectors: Vec<libc::iovec>,
    _memory: Vec<u8>,
}

impl Messages {
    fn new(count: usize, bytes: usize) -> Self {
        let mut memory = vec![0u8; count * bytes];
        let mut vectors: Vec<libc::iovec> = memory
            .chunks_mut(bytes)
            .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: bytes })
            .collect();
        let messages = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: zeros are an empty message.
                let mut message: libc::mmsghdr = unsafe { zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self { messages, _vectors: vectors, _memory: memory }
    }

    fn send(&mut self, socket: RawFd) -> usize {
        // SAFETY: as many messages as are told, with memory that lives.
        let sent = unsafe { libc::sendmmsg(socket, self.messages.as_mut_ptr(), self.messages.len() as u32, 0) };
        usize::try_from(sent).unwrap_or(0)
    }

    fn receive(&mut self, socket: RawFd, most: usize) -> usize {
        let flags = libc::MSG_WAITFORONE;
        let most = most.min(self.messages.len()) as u32;
        // SAFETY: as above.
        let got = unsafe { libc::recvmmsg(socket, self.messages.as_mut_ptr(), most, flags, std::ptr::null_mut()) };
        usize::try_from(got).unwrap_or(0)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, what, group, space, address, milliseconds, rest @ ..] = &words[..] else {
        return Err("load window|ping GROUP SPACE ADDRESS MILLISECONDS …".into());
    };
    let address: SocketAddr = address.parse()?;
    let own = File::open("/proc/self/ns/net")?;
    if space != "-" {
        // SAFETY: a descriptor of a namespace.
        check(unsafe { libc::setns(File::open(space)?.as_raw_fd(), libc::CLONE_NEWNET) })?;
    }
    let receiver = UdpSocket::bind(address)?;
    receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
    // SAFETY: as above; the option is one number of this length.
    unsafe {
        check(libc::setns(own.as_raw_fd(), libc::CLONE_NEWNET))?;
        let room = 32 << 20;
        check(libc::setsockopt(
            receiver.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const room).cast(),
            4,
        ))?;
    }
    if group != "-" {
        fs::write(format!("{group}/cgroup.procs"), "0")?;
    }
    let sender = UdpSocket::bind(if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
    sender.connect(address)?;
    let end = Instant::now() + Duration::from_millis(milliseconds.parse()?);
    let before = processor();
    if what == "ping" {
        let (mut times, mut memory, mut lost) = (vec![], [0; 64], 0);
        while Instant::now() < end && lost < 10 {
            let started = Instant::now();
            sender.send(&memory)?;
            match receiver.recv(&mut memory) {
                Ok(_) => times.push(started.elapsed().as_nanos() as f64 / 1000.0),
                Err(_) => lost += 1,
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
        println!("median {:.1} p99 {:.1} lost {lost}", at(0.5), at(0.99));
        return Ok(());
    }
    let [window, bytes] = rest else { return Err("load window … WINDOW BYTES".into()) };
    let (window, bytes): (usize, usize) = (window.parse()?, bytes.parse()?);
    let (mut out, mut back) = (Messages::new(window, bytes), Messages::new(window, bytes));
    let (mut all, mut lost, started) = (0usize, 0usize, Instant::now());
    while Instant::now() < end && lost < 5000 {
        let sent = out.send(sender.as_raw_fd());
        let mut got = 0;
        while got < sent {
            match back.receive(receiver.as_raw_fd(), sent - got) {
                0 => break,
                more => got += more,
            }
        }
        all += got;
        lost += sent - got;
    }
    let (used, took) = (processor() - before, started.elapsed().as_secs_f64());
    println!("packets {all} rate {:.0} processor {used:.6} lost {lost}", all as f64 / took);
    Ok(())
}
