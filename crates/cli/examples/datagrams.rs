//! Sends small datagrams as fast as it can, for benchmarks of what filtering costs per packet.
//!
//! `datagrams sink ADDRESS:PORT` holds the port until it is killed, and reads nothing: what does not fit is dropped by its
//! socket, after all filters. `datagrams send ADDRESS:PORT MILLISECONDS` sends there, 64 datagrams of 18 bytes in one call,
//! and prints how many went in a second of processor time. Over a veth pair that time includes the way up to the sink's
//! socket, as long as both are on one CPU. `datagrams turns ADDRESS:PORT COUNT` sends so many for each line that it reads, and prints
//! the nanoseconds of processor time that they took, so that several of them can take turns.

use rustix::{
    net::{AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketType, sendmmsg},
    time::{ClockId, clock_gettime},
};
use std::{
    env,
    io::{IoSlice, stdin},
    net::{SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["sink", address] => {
            let _socket = UdpSocket::bind(address)?;
            loop {
                thread::park();
            }
        }
        ["send", address, milliseconds] => {
            let how_long = Duration::from_millis(milliseconds.parse()?);
            send(address.parse()?, |batch| {
                let (started, spent) = (Instant::now(), processor_time());
                let mut sent = 0;
                while started.elapsed() < how_long {
                    sent += batch()?;
                }
                println!("{:.0}", sent as f64 / (processor_time() - spent).as_secs_f64());
                Ok(())
            })
        }
        ["turns", address, count] => {
            let count: u64 = count.parse()?;
            send(address.parse()?, |batch| {
                for line in stdin().lines() {
                    line?;
                    let spent = processor_time();
                    let mut sent = 0;
                    while sent < count {
                        sent += batch()?;
                    }
                    println!("{}", (processor_time() - spent).as_nanos());
                }
                Ok(())
            })
        }
        _ => {
            Err("usage: datagrams sink ADDRESS:PORT | send ADDRESS:PORT MILLISECONDS | turns ADDRESS:PORT COUNT".into())
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Hands over what sends a batch of datagrams and says how many went.
fn send(to: SocketAddrV4, act: impl FnOnce(&mut dyn FnMut() -> Result<u64>) -> Result<()>) -> Result<()> {
    const AT_ONCE: usize = 64;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    rustix::net::connect(&socket, &to)?;
    let data = [IoSlice::new(&[0u8; 18])];
    let mut ancillary: [SendAncillaryBuffer<'_, '_, '_>; AT_ONCE] =
        std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut messages: Vec<MMsgHdr<'_>> = ancillary.iter_mut().map(|none| MMsgHdr::new(&data, none)).collect();
    act(&mut || Ok(sendmmsg(&socket, &mut messages, SendFlags::empty())? as u64))
}

/// What this thread has used so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}
