//! Many frames, and what becomes of them.

use super::{
    actor::{check, hold},
    frames::Frames,
    odd,
};
use std::{
    cell::RefCell,
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};

/// What was received: how much, and a sum that tells different contents apart, in whatever order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub count: u64,
    pub sum: u64,
}

impl Heard {
    pub fn hear(&mut self, bytes: &[u8]) {
        // FNV-1a
        let hash = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash);
    }
}

/// Room for what comes between two times that it is read.
pub fn with_room(socket: &impl AsRawFd) -> io::Result<()> {
    let bytes = 1i32 << 28;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE);
    // SAFETY: an option of this length.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const bytes).cast(), 4) })
}

thread_local! {
    static RECEIVERS: RefCell<Vec<(OwnedFd, Heard)>> = const { RefCell::new(vec![]) };
}

/// The sockets of a process that is shot at: datagrams (IPv4 and IPv6), ICMP, ICMPv6, and UDP as raw packets.
pub const RECEIVERS_ARE: [&str; 4] = ["udp", "icmp", "icmp6", "raw udp"];

/// Opens them, and a socket that listens.
pub fn open(port: u16) -> io::Result<()> {
    let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
    hold(std::net::TcpListener::bind(any)?);
    let sockets = [
        UdpSocket::bind(any)?.into(),
        odd::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)?,
        odd::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)?,
        odd::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP)?,
    ];
    for socket in sockets {
        with_room(&socket)?;
        RECEIVERS.with_borrow_mut(|all| all.push((socket, Heard::default())));
    }
    Ok(())
}

/// Reads what has come; what that is in all, for each socket.
pub fn hear() -> Vec<Heard> {
    let mut buffer = [0u8; 4096];
    RECEIVERS.with_borrow_mut(|all| {
        for (socket, heard) in all.iter_mut() {
            loop {
                let (place, length) = (buffer.as_mut_ptr().cast(), buffer.len());
                // SAFETY: our own memory.
                let got = unsafe { libc::recv(socket.as_raw_fd(), place, length, libc::MSG_DONTWAIT) };
                match usize::try_from(got) {
                    Ok(got) => heard.hear(&buffer[..got]),
                    // an error that was reported to the socket
                    Err(_) if io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN) => {}
                    Err(_) => break,
                }
            }
        }
        all.iter().map(|(_, heard)| *heard).collect()
    })
}

/// [`hear`], told as an answer of its own.
pub fn tell() {
    let text: String = hear().iter().map(|heard| format!(" {} {}", heard.count, heard.sum)).collect();
    println!("\nactor heard{text}");
}

/// What [`tell`] has said.
pub fn heard(answer: &str) -> Vec<Heard> {
    let numbers: Vec<u64> = answer.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
    numbers.chunks(2).map(|pair| Heard { count: pair[0], sum: pair[1] }).collect()
}

/// Sends packets by hand: whatever the kernel takes. Says how many it has taken, and how many a filter has refused.
pub fn send(seed: u64, count: usize) -> io::Result<()> {
    let raw = |family| {
        // for its `send_to` alone
        odd::socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW).map(UdpSocket::from)
    };
    let (v4, v6) = (raw(libc::AF_INET)?, raw(libc::AF_INET6)?);
    let to_v4: SocketAddr = "10.9.1.2:0".parse().unwrap();
    let to_v6: SocketAddr = "[fd09::1:2]:0".parse().unwrap();
    let mut frames = Frames::new(seed);
    let (mut sent, mut refused, mut other) = (0u64, 0u64, 0u64);
    for _ in 0..count {
        let frame = frames.any();
        let result = match frame.get(12..14) {
            Some([0x08, 0x00]) => v4.send_to(&frame[14..], to_v4),
            Some([0x86, 0xdd]) => v6.send_to(&frame[14..], to_v6),
            _ => continue,
        };
        match result {
            Ok(_) => sent += 1,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => refused += 1,
            Err(_) => other += 1,
        }
    }
    println!("\nactor sent {sent} {refused} {other}");
    Ok(())
}
