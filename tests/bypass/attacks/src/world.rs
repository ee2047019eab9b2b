//! Network namespaces for one thread, and what arrives there.

use crate::call::{Socket, check};
use std::io;

/// Gives the calling thread, and the threads and processes that it starts from now on, a network of their own.
pub fn own_network() -> io::Result<()> {
    // SAFETY: a number.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// The kernel's number of the calling thread, by which `ip` finds its network.
pub fn thread_id() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

/// Copies of all frames that arrive in a network, whoever they are for.
#[derive(Debug)]
pub struct Wire(Socket);

impl Wire {
    /// In the network of the calling thread.
    pub fn tap() -> io::Result<Self> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let socket = Socket::new(libc::AF_PACKET, libc::SOCK_RAW, all.into())?;
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)?;
        // what leaves is not shown
        socket.set(libc::SOL_PACKET, 23, 1)?;
        Ok(Self(socket))
    }

    /// What has arrived since it was asked last, from the Ethernet header on.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.0.receive().ok()).collect()
    }
}
