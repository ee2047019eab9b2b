//! Ends TCP sockets whose connection was refused after the call that asked for it had begun to wait, and sockets of TCP and UDP whose
//! connection is permitted no longer.
//!
//! The socket's own error queue cannot be reached from outside; `SOCK_DESTROY` of the socket monitoring interface
//! (sock_diag(7)) ends it, and the waiting call returns `ECONNABORTED`. A socket of UDP is found there
//! only if it is connected to the remote endpoint that the event names; it can be connected anew.

use crate::{events::Event, netlink::Socket};
use openwfp_engine::{EMPTY, Values, words};
use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    thread,
};

const SOCK_DESTROY: u16 = 21;

/// The four words of an address, and whether it is IPv6.
fn address(values: &Values, word: usize) -> Option<([u32; 4], bool)> {
    let known = |n: usize| u32::try_from(values.get(word + n)).ok();
    let first = known(0)?;
    if values.get(word + 1) == EMPTY {
        return Some(([first, 0, 0, 0], false));
    }
    Some(([first, known(1)?, known(2)?, known(3)?], true))
}

/// `struct inet_diag_req_v2`, which names the socket.
fn request(event: &Event) -> Option<Vec<u8>> {
    let values = &event.values;
    let port = |word| u16::try_from(values.get(word)).ok().map(u16::to_be_bytes);
    let (source, v6) = address(values, words::IP_LOCAL_ADDRESS)?;
    let (destination, _) = address(values, words::IP_REMOTE_ADDRESS)?;
    let interface = u32::try_from(values.get(words::INTERFACE_INDEX)).unwrap_or(0);
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let protocol = u8::try_from(values.get(words::IP_PROTOCOL)).ok()?;
    // family, protocol, extensions, padding, and sockets of every state
    let mut body = vec![family as u8, protocol, 0, 0];
    body.extend_from_slice(&u32::MAX.to_ne_bytes());
    // `struct inet_diag_sockid`: ports and addresses in network order, the interface, the low and high half of the cookie
    body.extend([port(words::IP_LOCAL_PORT)?, port(words::IP_REMOTE_PORT)?].concat());
    body.extend(source.into_iter().chain(destination).flat_map(u32::to_be_bytes));
    body.extend_from_slice(&interface.to_ne_bytes());
    body.extend([event.socket as u32, (event.socket >> 32) as u32].into_iter().flat_map(u32::to_ne_bytes));
    Some(body)
}

/// Ends the event's socket, in the network namespace of the process that owns it.
pub(crate) fn end(event: &Event) -> io::Result<()> {
    let request = request(event).ok_or(io::ErrorKind::InvalidInput)?;
    let own = fs::metadata("/proc/self/ns/net")?.ino();
    let place = format!("/proc/{}/ns/net", event.identity.process.tgid);
    match File::open(place) {
        Ok(other) if other.metadata()?.ino() != own => thread::scope(|scope| {
            // a thread of its own, which ends there
            let thread = scope.spawn(|| {
                // SAFETY: a descriptor of a namespace; only this thread moves.
                if unsafe { libc::setns(other.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error());
                }
                send(&request)
            });
            thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        }),
        _ => send(&request),
    }
}

fn send(request: &[u8]) -> io::Result<()> {
    Socket::open(libc::NETLINK_SOCK_DIAG)?.request(SOCK_DESTROY, request)
}
