//! Moves bytes over TCP in turns, for benchmarks of what filtering costs per packet.
//!
//! `bulk serve ADDRESS:PORT` serves until it is killed. `bulk turns ADDRESS:PORT out|in BYTES` connects there for each line
//! that it reads, sends so many bytes (or receives them) in pieces of 64 KiB, until the other side has said that all have come, and
//! prints the nanoseconds that it took, connecting aside. So several of them can take turns, and none lives on the window that one
//! connection happened to find.

use std::{
    env,
    io::{Read, Write, stdin},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PIECE: usize = 64 * 1024;
/// The other side of a transfer has all of it.
const DONE: [u8; 1] = [1];
/// In the head of a transfer: the server sends.
const FROM_SERVER: u64 = 1 << 63;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", address] => {
            for stream in TcpListener::bind(address)?.incoming() {
                let stream = stream?;
                thread::spawn(move || serve(stream));
            }
            Ok(())
        }
        ["turns", address, way @ ("out" | "in"), bytes] => turns(address, way == "in", bytes.parse()?),
        _ => Err("usage: bulk serve ADDRESS:PORT | bulk turns ADDRESS:PORT out|in BYTES".into()),
    }
}

/// Until the other side closes.
fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head).ok()?;
        let head = u64::from_le_bytes(head);
        if head & FROM_SERVER == 0 {
            receive(&mut stream, head).ok()?;
            stream.write_all(&DONE).ok()?;
        } else {
            send(&mut stream, head & !FROM_SERVER).ok()?;
        }
    }
}

fn turns(address: &str, from_server: bool, bytes: u64) -> Result<()> {
    for line in stdin().lines() {
        line?;
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let started = Instant::now();
        if from_server {
            stream.write_all(&(bytes | FROM_SERVER).to_le_bytes())?;
            receive(&mut stream, bytes)?;
        } else {
            stream.write_all(&bytes.to_le_bytes())?;
            send(&mut stream, bytes)?;
            stream.read_exact(&mut [0; 1])?;
        }
        println!("{}", started.elapsed().as_nanos());
    }
    Ok(())
}

fn send(stream: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    let data = vec![0u8; PIECE];
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(PIECE as u64);
        stream.write_all(&data[..piece as usize])?;
        left -= piece;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    let mut data = vec![0u8; PIECE];
    let mut left = bytes;
    while left > 0 {
        let most = left.min(PIECE as u64) as usize;
        match stream.read(&mut data[..most])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => left -= read as u64,
        }
    }
    Ok(())
}
