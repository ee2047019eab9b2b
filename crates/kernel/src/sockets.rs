//! Ends TCP sockets whose connection was refused after the call that asked for it had begun to wait.
//!
//! The socket's own error queue cannot be reached from outside; `SOCK_DESTROY` of the socket monitoring interface
//! (sock_diag(7)) ends it, and the waiting call returns `ECONNABORTED`.

use crate::events::Event;
use openwfp_engine::{EMPTY, Values, words};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    thread,
};

const SOCK_DESTROY: u16 = 21;

/// `struct inet_diag_sockid`; ports and addresses in network order.
#[repr(C)]
#[derive(Default)]
struct SocketId {
    ports: [u16; 2],
    source: [u32; 4],
    destination: [u32; 4],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Default)]
struct Request {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SocketId,
}

/// The four words of an address in network order, and whether it is IPv6.
fn address(values: &Values, word: usize) -> Option<([u32; 4], bool)> {
    let known = |n: usize| u32::try_from(values.get(word + n)).ok();
    let first = known(0)?;
    if values.get(word + 1) == EMPTY {
        return Some(([first.to_be(), 0, 0, 0], false));
    }
    Some(([first.to_be(), known(1)?.to_be(), known(2)?.to_be(), known(3)?.to_be()], true))
}

fn request(event: &Event) -> Option<Request> {
    let values = &event.values;
    let port = |word| u16::try_from(values.get(word)).ok().map(u16::to_be);
    let (source, v6) = address(values, words::IP_LOCAL_ADDRESS)?;
    let (destination, _) = address(values, words::IP_REMOTE_ADDRESS)?;
    Some(Request {
        length: size_of::<Request>() as u32,
        kind: SOCK_DESTROY,
        flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16,
        family: if v6 { libc::AF_INET6 } else { libc::AF_INET } as u8,
        protocol: libc::IPPROTO_TCP as u8,
        states: u32::MAX,
        id: SocketId {
            ports: [port(words::IP_LOCAL_PORT)?, port(words::IP_REMOTE_PORT)?],
            source,
            destination,
            interface: u32::try_from(values.get(words::INTERFACE_INDEX)).unwrap_or(0),
            cookie: [event.socket as u32, (event.socket >> 32) as u32],
        },
        ..Request::default()
    })
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

fn send(request: &Request) -> io::Result<()> {
    // SAFETY: a new descriptor, which is owned from here on.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(socket)
    };
    // SAFETY: the kernel reads as many bytes as it is told from our own structure.
    let sent = unsafe { libc::send(socket.as_raw_fd(), std::ptr::from_ref(request).cast(), size_of::<Request>(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = [0u8; 256];
    // SAFETY: the kernel writes at most as many bytes as it is told into our own memory.
    let got = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    // struct nlmsgerr behind the header: a negative errno, or 0
    let code = answer.get(16..20).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_the_size_that_the_kernel_expects() {
        assert_eq!(size_of::<SocketId>(), 48);
        assert_eq!(size_of::<Request>(), 16 + 56);
    }
}
