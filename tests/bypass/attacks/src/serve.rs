//! Servers: what comes in without having been asked for.

use crate::{
    Target,
    call::{Socket, any, family},
    ring::Ring,
};
use std::{
    io::{self, Read},
    net::{Ipv6Addr, SocketAddr},
};

const TCP_FASTOPEN: i32 = 23;
const IP_LOCAL_PORT_RANGE: i32 = 51;

/// The group of IPv6 that servers join.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 7, 7);

/// How something arrives: a name, and the socket that waits for it.
enum Waiting {
    Stream(Socket),
    Ring(Socket),
    Datagram(Socket),
}

/// The attacks of this file: `serve PEER KIND:PORT…`. It says `ready`, waits until its standard input is closed, and
/// then says for each kind what was heard.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    (name == "serve").then(|| serve(target))
}

fn serve(target: &Target) -> io::Result<()> {
    let mut servers = Vec::new();
    for word in &target.words {
        let (kind, port) = word.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let port: u16 = port.parse().map_err(io::Error::other)?;
        servers.push((kind, port, waiting(kind, port, target)));
    }
    println!("\nready");
    io::stdin().read_to_end(&mut Vec::new())?;
    for (kind, port, waiting) in servers {
        let heard = match waiting {
            Ok(waiting) => heard(&waiting, port).to_owned(),
            Err(error) => crate::errno(&error),
        };
        println!("\nattack {kind} {heard}");
    }
    Ok(())
}

fn waiting(kind: &str, port: u16, target: &Target) -> io::Result<Waiting> {
    let own = target.own(port);
    let all: SocketAddr = ([0u16; 8], port).into();
    let stream = |socket: Socket, address: SocketAddr| {
        socket.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        socket.bind(address)?;
        socket.listen()?;
        socket.unblock()?;
        Ok::<_, io::Error>(socket)
    };
    let datagram = |socket: Socket, address: SocketAddr| {
        socket.bind(address)?;
        Ok::<_, io::Error>(Waiting::Datagram(socket))
    };
    let anywhere = SocketAddr::new(any(own).ip(), port);
    match kind {
        "tcp" => stream(Socket::stream(own)?, own).map(Waiting::Stream),
        "tcp-both" => stream(Socket::stream(all)?, all).map(Waiting::Stream),
        "tcp-fastopen" => {
            let socket = Socket::stream(own)?;
            socket.set(libc::IPPROTO_TCP, TCP_FASTOPEN, 8)?;
            stream(socket, own).map(Waiting::Stream)
        }
        "tcp-reuseport" => {
            let socket = Socket::stream(own)?;
            socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
            stream(socket, own).map(Waiting::Stream)
        }
        "tcp-defer" => {
            let socket = Socket::stream(own)?;
            socket.set(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 1)?;
            stream(socket, own).map(Waiting::Stream)
        }
        "mptcp" | "mptcp-anywhere" => {
            let socket = Socket::new(family(own), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)?;
            stream(socket, if kind == "mptcp" { own } else { anywhere }).map(Waiting::Stream)
        }
        // a port that the kernel chooses, out of one
        "tcp-unbound" => {
            let socket = Socket::stream(own)?;
            socket.set(libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, i32::from(port) << 16 | i32::from(port))?;
            socket.listen()?;
            socket.unblock()?;
            Ok(Waiting::Stream(socket))
        }
        "udp-unbound" => {
            let socket = Socket::datagram(own)?;
            socket.set(libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, i32::from(port) << 16 | i32::from(port))?;
            socket.send_to(b"nobody", 0, SocketAddr::from(([127, 0, 0, 1], 9)))?;
            Ok(Waiting::Datagram(socket))
        }
        "ring-accept" => stream(Socket::stream(own)?, own).map(Waiting::Ring),
        "udp" => datagram(Socket::datagram(own)?, own),
        "udp-anywhere" => datagram(Socket::datagram(own)?, anywhere),
        "udp-both" => datagram(Socket::datagram(all)?, all),
        "udp-reuseport" => {
            let socket = Socket::datagram(own)?;
            socket.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
            datagram(socket, own)
        }
        "udp-multicast" => {
            let socket = Socket::datagram(own)?;
            let device = target.device_index()?.to_ne_bytes();
            match own.is_ipv4() {
                true => {
                    let group = [&[239, 7, 7, 7][..], &[0; 4], &device].concat();
                    socket.set_bytes(libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &group)?;
                }
                false => {
                    let group = [&GROUP_V6.octets()[..], &device].concat();
                    socket.set_bytes(libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &group)?;
                }
            }
            datagram(socket, anywhere)
        }
        "udplite" => datagram(Socket::new(family(own), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)?, own),
        "raw" => Ok(Waiting::Datagram(Socket::new(family(own), libc::SOCK_RAW, libc::IPPROTO_UDP)?)),
        "raw-icmp" => {
            let icmp = if own.is_ipv4() { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
            Ok(Waiting::Datagram(Socket::new(family(own), libc::SOCK_RAW, icmp)?))
        }
        _ => Err(io::Error::other(format!("no server {kind}"))),
    }
}

/// Whether the token has come.
fn heard(waiting: &Waiting, port: u16) -> &'static str {
    let token = crate::token(port);
    let holds = |bytes: Vec<u8>| bytes.windows(token.len()).any(|part| part == token);
    let from_stream = |stream: Socket| stream.receive().is_ok_and(holds);
    let found = match waiting {
        Waiting::Stream(socket) => std::iter::from_fn(|| socket.accept().ok()).any(from_stream),
        // a ring would wait for ever
        Waiting::Ring(socket) => {
            socket.is_ready() && Ring::new(0).and_then(|ring| ring.accept(socket)).is_ok_and(from_stream)
        }
        Waiting::Datagram(socket) => std::iter::from_fn(|| socket.receive().ok()).any(holds),
    };
    if found { "heard" } else { "nothing" }
}
