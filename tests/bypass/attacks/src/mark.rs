//! Marks that somebody gives his packets, so that they pass for those that are taken out for a callout, or come back from one.

use crate::{Target, call::Socket, device_index_of, link};
use std::io::{self, BufRead};

/// The attacks of this file: `marked PEER`. It says `ready`, and takes from its standard input lines `MARK DEVICE KIND`. Each is a
/// token with that mark by that device: of a datagram socket (`udp`) to the peer's port, of a raw socket (`raw`) to the one
/// after it, of a packet socket (`packet`) to the next. The kind `permitted` is a datagram to the open port that bears no token.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    (name == "marked").then(|| marked(target))
}

fn marked(target: &Target) -> io::Result<()> {
    println!("\nready");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or(io::ErrorKind::InvalidInput);
        let (mark, device, kind) = (word()?.parse::<u32>().map_err(io::Error::other)?, word()?, word()?);
        let result = send(target, mark, device, kind);
        println!("\nsent {line} {}", result.err().map_or("ok".to_owned(), |error| crate::errno(&error)));
    }
    Ok(())
}

fn send(target: &Target, mark: u32, device: &str, kind: &str) -> io::Result<()> {
    let mut target = target.clone();
    let with_mark = |socket: Socket| {
        socket.set(libc::SOL_SOCKET, libc::SO_MARK, mark as i32)?;
        Ok::<_, io::Error>(socket)
    };
    let by_device = |socket: Socket| {
        socket.set_bytes(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device.as_bytes())?;
        with_mark(socket)
    };
    match kind {
        "raw" => {
            target.peer.set_port(target.peer.port() + 1);
            let socket = by_device(Socket::new(target.family(), libc::SOCK_RAW, libc::IPPROTO_RAW)?)?;
            let anywhere = std::net::SocketAddr::new(target.peer.ip(), 0);
            socket.send_to(&link::to_peer(&target)?, 0, anywhere)
        }
        "packet" => {
            target.peer.set_port(target.peer.port() + 2);
            let ip = (libc::ETH_P_IP as u16).to_be().into();
            let socket = with_mark(Socket::new(libc::AF_PACKET, libc::SOCK_DGRAM, ip)?)?;
            socket.send_to(&link::to_peer(&target)?, 0, link::everybody(device_index_of(device)?))
        }
        "permitted" => Socket::datagram(target.peer)?.send_to(b"permitted", 0, target.open()),
        _ => by_device(Socket::datagram(target.peer)?)?.send_to(&target.token(), 0, target.peer),
    }
}
