//! Connects and closes in a loop, for benchmarks of what filtering costs.
//!
//! `connect_loop serve PORT` accepts connections on 127.0.0.1 until it is killed; `connect_loop connect PORT COUNT` connects
//! to it and closes, and prints nanoseconds per connection; refused connections count too (`refused` in the output).

use std::{
    env,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Instant,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", port] => serve(port.parse()?),
        ["connect", port, count] => connect(port.parse()?, count.parse()?),
        _ => Err("usage: connect_loop serve PORT | connect PORT COUNT".into()),
    }
}

fn serve(port: u16) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    loop {
        drop(listener.accept()?);
    }
}

fn connect(port: u16, count: u32) -> Result<(), Box<dyn std::error::Error>> {
    let mut refused = 0u32;
    let started = Instant::now();
    for _ in 0..count {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => {
                // reset instead of waiting: no port stays behind in TIME_WAIT
                socket_linger(&stream)?;
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    let each = started.elapsed().as_nanos() / u128::from(count.max(1));
    println!("{each} ns refused {refused}");
    Ok(())
}

/// Closing sends a reset.
fn socket_linger(stream: &TcpStream) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO))?;
    Ok(())
}
