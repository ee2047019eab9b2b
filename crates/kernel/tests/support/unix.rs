//! What a script does with Unix sockets.

use super::actor::hold;
use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
};

/// A path, or `@` and an abstract name.
pub fn address(place: &str) -> io::Result<SocketAddr> {
    match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(place),
    }
}

pub fn act(what: &str, place: &str) -> io::Result<()> {
    let place = address(place)?;
    match what {
        "listen" => UnixListener::bind_addr(&place).map(hold),
        "receive" => UnixDatagram::bind_addr(&place).map(hold),
        "connect" => UnixStream::connect_addr(&place).map(hold),
        "connect-datagram" => UnixDatagram::unbound()?.connect_addr(&place),
        "send" => UnixDatagram::unbound()?.send_to_addr(b"hello", &place).map(drop),
        _ => Err(io::Error::other(format!("no action {what}"))),
    }
}
