//! Sends small datagrams as fast as it can, for benchmarks of what filtering costs per packet.
//!
//! `datagrams sink ADDRESS:PORT` holds the port until it is killed, and reads nothing: what does not fit is dropped by its
//! socket, after all filters. `datagrams send ADDRESS:PORT MILLISECONDS` sends there, 64 datagrams of 18 bytes in one call,
//! and prints how many went in a second of processor time. Over a veth pair that time includes the way up to the sink's
//! socket, as long as both are on one CPU.

use rustix::{
    net::{AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketType, sendmmsg},
    time::{ClockId, clock_gettime},
};
use std::{
    env,
    io::IoSlice,
    net::{SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["sink", address] => {
            let _socket = UdpSocket::bind(address)?;
            loop {
                thread::park();
            }
        }
        ["send", address, milliseconds] => send(address.parse()?, Duration::from_millis(milliseconds.parse()?)),
        _ => Err("usage: datagrams sink ADDRESS:PORT | send ADDRESS:PORT MILLISECONDS".into()),
    }
}

fn send(to: SocketAddrV4, how_long: Duration) -> Result<(), Box<dyn std::error::Error>> {
    const AT_ONCE: usize = 64;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    rustix::net::connect(&socket, &to)?;
    let data = [IoSlice::new(&[0u8; 18])];
    let mut ancillary: [SendAncillaryBuffer<'_, '_, '_>; AT_ONCE] =
        std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut messages: Vec<MMsgHdr<'_>> = ancillary.iter_mut().map(|none| MMsgHdr::new(&data, none)).collect();
    let (started, spent) = (Instant::now(), processor_time());
    let mut sent = 0u64;
    while started.elapsed() < how_long {
        sent += sendmmsg(&socket, &mut messages, SendFlags::empty())? as u64;
    }
    println!("{:.0}", sent as f64 / (processor_time() - spent).as_secs_f64());
    Ok(())
}

/// What this thread has used so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
