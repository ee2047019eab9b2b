//! Connects and closes in a loop, for benchmarks of what filtering costs.
//!
//! `connect_loop serve PORT` accepts connections on 127.0.0.1 until it is killed; `connect_loop connect PORT COUNT` connects
//! to it and closes, and prints the nanoseconds that both calls take together; `connect_loop turns PORT COUNT` does the same
//! once for each line that it reads, so that several of them can take turns; `connect_loop refused PORT COUNT` makes calls
//! that a filter refuses, on one socket, and prints the nanoseconds of one.

use std::{
    env,
    io::{ErrorKind, Read, stdin},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", port] => serve(port.parse()?),
        ["connect", port, count] => connect(port.parse()?, count.parse()?),
        ["turns", port, count] => {
            for line in stdin().lines() {
                line?;
                connect(port.parse()?, count.parse()?)?;
            }
            Ok(())
        }
        ["refused", port, count] => refused(port.parse()?, count.parse()?),
        _ => Err("usage: connect_loop serve PORT | connect PORT COUNT | turns PORT COUNT | refused PORT COUNT".into()),
    }
}

fn serve(port: u16) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        drop(listener.accept()?);
    }
}

/// The system call alone, on one socket, which a refused call leaves as it was.
fn refused(port: u16, count: u32) -> Result<(), Box<dyn std::error::Error>> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    let address = std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let started = Instant::now();
    for _ in 0..count {
        if rustix::net::connect(&socket, &address) != Err(rustix::io::Errno::PERM) {
            return Err("a connect was not refused".into());
        }
    }
    println!("{} ns refused {count}", started.elapsed().as_nanos() / u128::from(count.max(1)));
    Ok(())
}

fn connect(port: u16, count: u32) -> Result<(), Box<dyn std::error::Error>> {
    let mut refused = 0u32;
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        let started = Instant::now();
        let result = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        spent += started.elapsed();
        match result {
            Ok(mut stream) => {
                // until the server has closed, so that its queue of connections stays short; not counted
                let _ = stream.read(&mut [0])?;
                let started = Instant::now();
                drop(stream);
                spent += started.elapsed();
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    println!("{} ns refused {refused}", spent.as_nanos() / u128::from(count.max(1)));
    Ok(())
}
