//! Packets that are made by hand: raw sockets, fragments, headers that lie.

use crate::{OPEN, Target, call::Socket};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

const UDP: u8 = libc::IPPROTO_UDP as u8;
const TCP: u8 = libc::IPPROTO_TCP as u8;
const IPV6_HDRINCL: i32 = 36;
const MORE: u16 = 0x2000;

/// The attacks of this file.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    if !name.starts_with("raw") {
        return None;
    }
    Some(match target.peer {
        SocketAddr::V4(peer) => v4(name, target, *peer.ip(), peer.port())?,
        SocketAddr::V6(peer) => v6(name, target, *peer.ip(), peer.port())?,
    })
}

fn v4(name: &str, target: &Target, peer: Ipv4Addr, port: u16) -> Option<io::Result<()>> {
    let datagram = udp(port, &target.token());
    // where this is cut after sixteen bytes, the token is whole
    let long = udp(port, &[b"filling ", &target.token()[..]].concat());
    let packet = |fragment, protocol, payload: &[u8]| ipv4(peer, fragment, protocol, payload);
    let whole = packet(0, UDP, &datagram);
    let by_hand = |all: &[Vec<u8>]| packets(target, all);
    Some(match name {
        "raw-udp" => raw(target, UDP).and_then(|socket| send(&socket, target, &datagram)),
        "raw-udp-connected" => raw(target, UDP).and_then(|socket| {
            socket.connect(target.peer)?;
            socket.send(&datagram)
        }),
        "raw-tcp-syn" => raw(target, TCP).and_then(|socket| send(&socket, target, &syn(port, &target.token()))),
        "raw-icmp" => {
            let message = [&[8, 0, 0, 0, 0, 0, 0, 1][..], &target.token()].concat();
            raw(target, libc::IPPROTO_ICMP as u8).and_then(|socket| send(&socket, target, &message))
        }
        "raw-unknown-protocol" => raw(target, 253).and_then(|socket| send(&socket, target, &target.token())),
        // IP in IP
        "raw-tunnel" => raw(target, 4).and_then(|socket| send(&socket, target, &whole)),
        "raw-by-hand" => by_hand(&[whole]),
        "raw-spoofed" => by_hand(&[with_source(whole, [198, 51, 100, 9])]),
        "raw-source-route" => {
            // no operation, loose source route by a hop that has been passed
            let options = [1, 131, 7, 8, 203, 0, 113, 5];
            by_hand(&[with_options(&whole, &options)])
        }
        "raw-fragments" => {
            // a whole UDP header, and more to come
            by_hand(&[packet(MORE, UDP, &long[..16]), packet(2, UDP, &long[16..])])
        }
        "raw-fragments-backwards" => by_hand(&[packet(2, UDP, &long[16..]), packet(MORE, UDP, &long[..16])]),
        "raw-fragments-overlapping" => {
            // first one that may go, then another first one over it, then one that begins in the middle of that
            let permitted = udp(OPEN, b"permitted-permitted");
            by_hand(&[
                packet(MORE, UDP, &permitted[..16]),
                packet(MORE, UDP, &long[..16]),
                packet(MORE | 1, UDP, &long[8..24]),
                packet(1, UDP, &long[8..]),
            ])
        }
        "raw-fragments-tiny" => {
            // the flags of TCP come with the second
            let segment = syn(port, &target.token());
            by_hand(&[packet(MORE, TCP, &segment[..8]), packet(1, TCP, &segment[8..])])
        }
        "raw-marked" => raw(target, UDP).and_then(|socket| {
            for mark in [1, 0x0077_6670, -1] {
                socket.set(libc::SOL_SOCKET, libc::SO_MARK, mark)?;
                send(&socket, target, &datagram)?;
            }
            Ok(())
        }),
        // an IPv6 header would say that it goes to where it may; the kernel sends it to the peer
        "raw-version" => {
            let mut packet = ipv4(peer, 0, UDP, &[]);
            packet[0] = 0x65;
            let SocketAddr::V6(permitted) = Target::decoy_for(false, port) else { return None };
            packet.resize(24, 0);
            packet[6] = UDP;
            packet.extend(permitted.ip().octets());
            packet.extend(udp(OPEN, &target.token()));
            by_hand(&[packet])
        }
        // to the same place from two ports
        "raw-other-port" => {
            let mut before = udp(port, b"permitted");
            before[..2].copy_from_slice(&24_001u16.to_be_bytes());
            by_hand(&[packet(0, UDP, &before), whole])
        }
        // to the peer by the call, to where it may by the header
        "raw-other-hop" => {
            let SocketAddr::V4(decoy) = target.decoy() else { return None };
            by_hand(&[ipv4(*decoy.ip(), 0, UDP, &datagram)])
        }
        _ => return None,
    })
}

fn v6(name: &str, target: &Target, peer: Ipv6Addr, port: u16) -> Option<io::Result<()>> {
    let datagram = udp6(peer, port, &target.token());
    let long = udp6(peer, port, &[b"filling ", &target.token()[..]].concat());
    // padding, six bytes
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let by_hand = |next: u8, payload: &[&[u8]]| packets(target, &[ipv6(peer, next, &payload.concat())]);
    const HOP_BY_HOP: u8 = 0;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    Some(match name {
        "raw-udp" => raw(target, UDP).and_then(|socket| send(&socket, target, &datagram)),
        "raw-tcp-syn" => raw(target, TCP).and_then(|socket| send(&socket, target, &syn(port, &target.token()))),
        "raw-by-hand" => by_hand(UDP, &[&datagram]),
        "raw-extension-headers" => {
            by_hand(HOP_BY_HOP, &[&options(DESTINATION), &options(DESTINATION), &options(UDP), &datagram])
        }
        "raw-many-extension-headers" => {
            let mut headers = [options(DESTINATION); 12];
            headers[11] = options(UDP);
            by_hand(DESTINATION, &[headers.as_flattened(), &datagram])
        }
        // a fragment that is whole
        "raw-atomic-fragment" => by_hand(FRAGMENT, &[&[UDP, 0, 0, 0, 0, 0, 0, 7], &datagram]),
        "raw-fragments" => {
            let first = [UDP, 0, 0, 1, 0, 0, 0, 8];
            let second = [UDP, 0, 0, 16, 0, 0, 0, 8];
            by_hand(FRAGMENT, &[&first, &long[..16]]).and_then(|()| by_hand(FRAGMENT, &[&second, &long[16..]]))
        }
        "raw-fragments-overlapping" => {
            let permitted = udp6(peer, OPEN, b"permitted-permitted");
            let first = [UDP, 0, 0, 1, 0, 0, 0, 9];
            let over = [UDP, 0, 0, 9, 0, 0, 0, 9];
            let last = [UDP, 0, 0, 8, 0, 0, 0, 9];
            let results = [
                by_hand(FRAGMENT, &[&first, &permitted[..16]]),
                by_hand(FRAGMENT, &[&first, &long[..16]]),
                by_hand(FRAGMENT, &[&over, &long[8..24]]),
                by_hand(FRAGMENT, &[&last, &long[8..]]),
            ];
            results.into_iter().fold(Ok(()), Result::and)
        }
        _ => return None,
    })
}

fn raw(target: &Target, protocol: u8) -> io::Result<Socket> {
    Socket::new(target.family(), libc::SOCK_RAW, protocol.into())
}

/// To the peer; a raw socket takes no port.
fn send(socket: &Socket, target: &Target, bytes: &[u8]) -> io::Result<()> {
    socket.send_to(bytes, 0, SocketAddr::new(target.peer.ip(), 0))
}

/// Packets from the IP header on. All are sent, whatever becomes of the others.
fn packets(target: &Target, packets: &[Vec<u8>]) -> io::Result<()> {
    let socket = raw(target, libc::IPPROTO_RAW as u8)?;
    match target.peer.ip() {
        IpAddr::V4(_) => socket.set(libc::IPPROTO_IP, libc::IP_HDRINCL, 1)?,
        IpAddr::V6(_) => socket.set(libc::IPPROTO_IPV6, IPV6_HDRINCL, 1)?,
    }
    packets.iter().map(|packet| send(&socket, target, packet)).fold(Ok(()), Result::and)
}

/// A UDP header without a checksum, and what follows it.
fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let words = [24_000, port, length, 0];
    let mut datagram: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    datagram.extend(payload);
    datagram
}

/// The same with a checksum, which IPv6 wants.
fn udp6(peer: Ipv6Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = udp(port, payload);
    let own = Ipv6Addr::from([0xfd77, 0, 0, 0, 0, 0, 0, 1]);
    let mut all = [&own.octets()[..], &peer.octets()].concat();
    all.extend((datagram.len() as u32).to_be_bytes());
    all.extend([0, 0, 0, UDP]);
    all.extend(&datagram);
    all.resize(all.len().next_multiple_of(2), 0);
    let mut sum: u32 = all.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    datagram[6..8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    datagram
}

/// A TCP packet that asks for a connection, with bytes behind it and no checksum.
fn syn(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&24_001u16.to_be_bytes());
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    segment[12] = 0x50;
    segment[13] = 2;
    segment.extend(payload);
    segment
}

/// An IPv4 packet; `fragment` is the word of flags and offset. The kernel fills length, source and checksum in.
fn ipv4(to: Ipv4Addr, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0x77, 0x66];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 0, 0, 0, 0]);
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

fn with_source(mut packet: Vec<u8>, source: [u8; 4]) -> Vec<u8> {
    packet[12..16].copy_from_slice(&source);
    packet
}

fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut longer = [&packet[..20], options, &packet[20..]].concat();
    longer[0] = 0x45 + (options.len() / 4) as u8;
    longer
}

/// An IPv6 packet.
fn ipv6(to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(Ipv6Addr::from([0xfd77, 0, 0, 0, 0, 0, 0, 1]).octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}
