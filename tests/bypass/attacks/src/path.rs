//! MPTCP: connections for which the kernel takes further ways by itself.

use crate::{
    Target,
    call::{Socket, family},
};
use std::{io, net::SocketAddr, thread, time::Duration};

/// The attacks of this file.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    (name == "mptcp-paths").then(|| connect(target.peer, &target.token()))
}

/// Connects, says something, and stays for so long that the kernel takes further ways and speaks through them.
pub fn connect(peer: SocketAddr, words: &[u8]) -> io::Result<()> {
    let socket = Socket::new(family(peer), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)?;
    socket.connect(peer)?;
    socket.send(words)?;
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(50));
        socket.send(b"more")?;
    }
    Ok(())
}

/// Waits for connections, at every address.
pub fn server(anywhere: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(family(anywhere), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)?;
    socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    socket.bind(anywhere)?;
    socket.listen()?;
    socket.unblock()?;
    Ok(socket)
}
