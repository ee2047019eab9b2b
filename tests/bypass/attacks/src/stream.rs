//! Connections.

use crate::{
    Target,
    call::{Address, Socket, mapped},
};
use std::io;

const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_WINDOW: i32 = 29;
const TCP_FASTOPEN_CONNECT: i32 = 30;
const IPV6_ADDRFORM: i32 = 1;
const IPPROTO_SMC: i32 = 256;

/// The attacks of this file.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    let result = match name {
        "tcp" => Socket::stream(target.peer).and_then(|socket| write(&socket, target)),
        "tcp-mapped" => through_mapped(target),
        "tcp-fastopen-sendto" => Socket::stream(target.peer)
            .and_then(|socket| socket.send_to(&target.token(), libc::MSG_FASTOPEN, target.peer)),
        "tcp-fastopen-connect" => fastopen_connect(target, 0),
        "mptcp" => Socket::new(target.family(), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
            .and_then(|socket| write(&socket, target)),
        "mptcp-fastopen" => Socket::new(target.family(), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
            .and_then(|socket| socket.send_to(&target.token(), libc::MSG_FASTOPEN, target.peer)),
        "mptcp-fastopen-connect" => fastopen_connect(target, libc::IPPROTO_MPTCP),
        "tcp-twice" => twice(target),
        "tcp-again" => again(target),
        "tcp-reuseport" => reuse_port(target),
        "tcp-addrform" => address_form(target),
        "tcp-repair" => repair(target),
        "tcp-device" => device(target),
        "tcp-zero-source" => from_source(target),
        "sctp" => Socket::new(target.family(), libc::SOCK_STREAM, libc::IPPROTO_SCTP)
            .and_then(|socket| write(&socket, target)),
        "dccp" => {
            Socket::new(target.family(), libc::SOCK_DCCP, libc::IPPROTO_DCCP).and_then(|socket| write(&socket, target))
        }
        "smc" => Socket::new(43, libc::SOCK_STREAM, 0).and_then(|socket| write(&socket, target)),
        "smc-protocol" => {
            Socket::new(target.family(), libc::SOCK_STREAM, IPPROTO_SMC).and_then(|socket| write(&socket, target))
        }
        _ => return None,
    };
    Some(result)
}

/// Connects, and writes the token.
fn write(socket: &Socket, target: &Target) -> io::Result<()> {
    socket.connect(target.peer)?;
    socket.send(&target.token())
}

fn through_mapped(target: &Target) -> io::Result<()> {
    let socket = Socket::new(libc::AF_INET6, libc::SOCK_STREAM, 0)?;
    socket.connect(mapped(target.peer))?;
    socket.send(&target.token())
}

/// The call that connects sends nothing; the first write does.
fn fastopen_connect(target: &Target, protocol: i32) -> io::Result<()> {
    let socket = Socket::new(target.family(), libc::SOCK_STREAM, protocol)?;
    socket.set(libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)?;
    write(&socket, target)
}

/// Asks once more after the first answer, whatever that was.
fn twice(target: &Target) -> io::Result<()> {
    let socket = Socket::stream(target.peer)?;
    socket.unblock()?;
    let _ = socket.connect(target.peer);
    let _ = socket.connect(target.peer);
    socket.wait_to_write()?;
    socket.send(&target.token())
}

/// Connects to where it may, takes that back, and connects elsewhere.
fn again(target: &Target) -> io::Result<()> {
    let socket = Socket::stream(target.peer)?;
    socket.connect(target.open())?;
    socket.connect(Address::none())?;
    write(&socket, target)
}

/// Two connections from one local port, of which the first is permitted.
fn reuse_port(target: &Target) -> io::Result<()> {
    let pair = [Socket::stream(target.peer)?, Socket::stream(target.peer)?];
    for socket in &pair {
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        socket.bind(target.own(23_999))?;
    }
    pair[0].connect(target.open())?;
    write(&pair[1], target)
}

/// A permitted connection of an IPv6 socket to a mapped address, which then becomes an IPv4 socket.
fn address_form(target: &Target) -> io::Result<()> {
    let socket = Socket::new(libc::AF_INET6, libc::SOCK_STREAM, 0)?;
    socket.connect(mapped(target.open()))?;
    socket.set(libc::IPPROTO_IPV6, IPV6_ADDRFORM, libc::AF_INET)?;
    socket.connect(Address::none())?;
    write(&socket, target)
}

/// A connection that is declared to exist, without a handshake.
fn repair(target: &Target) -> io::Result<()> {
    let socket = Socket::stream(target.peer)?;
    socket.set(libc::IPPROTO_TCP, TCP_REPAIR, 1)?;
    socket.bind(target.own(23_998))?;
    socket.connect(target.peer)?;
    // sequence numbers begin at 0; what the other side can take, and what this one can
    let window: Vec<u8> = [0u32, 4096, 4096, 4096, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    socket.set_bytes(libc::IPPROTO_TCP, TCP_REPAIR_WINDOW, &window)?;
    // done, without asking the other side whether it is there
    socket.set(libc::IPPROTO_TCP, TCP_REPAIR, -1)?;
    socket.send(&target.token())
}

fn device(target: &Target) -> io::Result<()> {
    let socket = Socket::stream(target.peer)?;
    socket.set_bytes(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, target.device().as_bytes())?;
    write(&socket, target)
}

/// From a port and address that were chosen before.
fn from_source(target: &Target) -> io::Result<()> {
    let socket = Socket::stream(target.peer)?;
    socket.bind(target.own(0))?;
    write(&socket, target)
}
