//! Much at once, with every byte looked at.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// The byte that belongs at a place; a prime, so that no shift by a power of two looks the same.
fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(byte).collect()
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

/// Sends a datagram.
pub fn send(to: SocketAddr, bytes: usize) -> io::Result<()> {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    UdpSocket::bind(any)?.send_to(&pattern(bytes), to).map(drop)
}

/// A datagram of so many bytes comes.
pub fn receive(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut memory = vec![0; 1 << 16];
    let got = socket.recv(&mut memory)?;
    if memory[..got] == pattern(bytes) { Ok(()) } else { Err(wrong("another datagram")) }
}

/// Sends a stream there, and takes it back.
pub fn pour(to: SocketAddr, bytes: usize) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let mut writing = stream.try_clone()?;
    let writer = thread::spawn(move || {
        let pattern = pattern(251 * 1024);
        let mut left = bytes;
        while left > 0 {
            let size = left.min(pattern.len());
            writing.write_all(&pattern[..size])?;
            left -= size;
        }
        writing.shutdown(Shutdown::Write)
    });
    let mut got = 0;
    let mut memory = vec![0; 1 << 17];
    loop {
        let count = (&stream).read(&mut memory)?;
        if count == 0 {
            break;
        }
        if memory[..count].iter().enumerate().any(|(at, found)| *found != byte(got + at)) {
            return Err(wrong("another stream"));
        }
        got += count;
    }
    writer.join().unwrap()?;
    if got == bytes { Ok(()) } else { Err(wrong("it was cut")) }
}

/// Sends back what comes.
pub fn pour_back(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut back = stream.try_clone()?;
    io::copy(&mut stream, &mut back)?;
    back.shutdown(Shutdown::Write)
}
