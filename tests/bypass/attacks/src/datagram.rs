//! Datagrams of every kind that needs no raw socket.

use crate::{
    Target,
    call::{Address, Control, Socket, mapped},
};
use std::{io, net::SocketAddr};

const IPV6_ADDRFORM: i32 = 1;
const UDP_SEGMENT: i32 = 103;
const IP_UNICAST_IF: i32 = 50;

/// The attacks of this file.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    let token = target.token();
    let udp = || Socket::datagram(target.peer);
    let light = || Socket::new(target.family(), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE);
    let result = match name {
        "udp" => udp().and_then(|socket| socket.send_to(&token, 0, target.peer)),
        "udp-connected" => udp().and_then(|socket| connected(&socket, target)),
        "udp-mapped" => six().and_then(|socket| socket.send_to(&token, 0, mapped(target.peer))),
        // an IPv6 socket is told an IPv4 address as such
        "udp-other-version" => six().and_then(|socket| socket.send_to(&token, 0, target.peer)),
        "udp-other-version-connected" => six().and_then(|socket| connected(&socket, target)),
        "udp-no-family" => {
            let nameless = Address::from(target.peer).with_family(libc::AF_UNSPEC);
            udp().and_then(|socket| socket.send_to(&token, 0, nameless))
        }
        "udp-elsewhere" => elsewhere(target),
        "udp-again" => again(target, true),
        "udp-twice" => again(target, false),
        "udp-sendmmsg" => udp().and_then(|socket| many(&socket, target)),
        "udp-segments" => segments(target),
        "udp-corked" => corked(target),
        "udp-source" => with_source(target),
        "udp-other-source" => other_source(target),
        "udp-unicast-interface" => udp().and_then(|socket| {
            socket.set(libc::IPPROTO_IP, IP_UNICAST_IF, target.device_index()?.to_be() as i32)?;
            socket.send_to(&token, 0, target.peer)
        }),
        "udp-addrform" => address_form(target),
        "udp-broadcast" => broadcast(target, [10, 77, 0, 255]),
        "udp-limited-broadcast" => broadcast(target, [255, 255, 255, 255]),
        "udp-multicast" => multicast(target),
        "udp-other-interface" => other_interface(target),
        "udp-multicast-joined" => join(target),
        "udp-options" => udp().and_then(|socket| {
            // record route
            socket.set_bytes(libc::IPPROTO_IP, libc::IP_OPTIONS, &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
            socket.send_to(&token, 0, target.peer)
        }),
        "udp-source-route" => source_route(target, false),
        "udp-source-route-connected" => source_route(target, true),
        "udp-source-route-in-control" => source_route_in_control(target),
        "tcp-source-route" => stream_source_route(target),
        "udp-freebind" => foreign_source(target, libc::IP_FREEBIND),
        "udp-transparent" => foreign_source(target, libc::IP_TRANSPARENT),
        "udplite" => light().and_then(|socket| socket.send_to(&token, 0, target.peer)),
        "udplite-connected" => light().and_then(|socket| connected(&socket, target)),
        "ping" => ping(target, false),
        "ping-connected" => ping(target, true),
        "udp-marked" => udp().and_then(|socket| {
            for mark in [1, 0x0077_6670, -1] {
                socket.set(libc::SOL_SOCKET, libc::SO_MARK, mark)?;
                socket.send_to(&token, 0, target.peer)?;
            }
            Ok(())
        }),
        "udp-extension-headers" => extension_headers(target),
        _ => return None,
    };
    Some(result)
}

fn six() -> io::Result<Socket> {
    Socket::new(libc::AF_INET6, libc::SOCK_DGRAM, 0)
}

fn connected(socket: &Socket, target: &Target) -> io::Result<()> {
    socket.connect(target.peer)?;
    socket.send(&target.token())
}

/// Connected to where it may, it sends elsewhere.
fn elsewhere(target: &Target) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    socket.connect(target.open())?;
    socket.send(b"permitted")?;
    socket.send_to(&target.token(), 0, target.peer)
}

/// Connects to where it may, and then elsewhere.
fn again(target: &Target, undone: bool) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    socket.connect(target.open())?;
    socket.send(b"permitted")?;
    if undone {
        socket.connect(Address::none())?;
    }
    let result = socket.connect(target.peer);
    socket.send(&target.token())?;
    result
}

/// The first of three goes to where it may.
fn many(socket: &Socket, target: &Target) -> io::Result<()> {
    let (token, peer) = (target.token(), Address::from(target.peer));
    let sent = socket.send_messages(&[(b"permitted", target.open().into()), (&token, peer.clone()), (&token, peer)])?;
    if sent == 3 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// One call, many packets.
fn segments(target: &Target) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    let token = target.token();
    socket.set(libc::IPPROTO_UDP, UDP_SEGMENT, token.len() as i32)?;
    socket.send_to(&token.repeat(4), 0, target.peer)
}

/// The bytes of two calls in one packet.
fn corked(target: &Target) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    let result = socket.send_to(&target.token(), libc::MSG_MORE, target.peer);
    socket.send_to(b"more", 0, target.open())?;
    result
}

/// A source that comes with the message.
fn with_source(target: &Target) -> io::Result<()> {
    let SocketAddr::V4(own) = target.own(0) else { return Err(io::ErrorKind::Unsupported.into()) };
    Socket::datagram(target.peer)?.send_message(&target.token(), Some(target.peer.into()), &[source(own.ip().octets())])
}

fn source(address: [u8; 4]) -> Control {
    // the interface, the source, and an address that is only reported
    (libc::IPPROTO_IP, libc::IP_PKTINFO, [&[0; 4][..], &address, &[0; 4]].concat())
}

/// The same of IPv6: the address, and the interface.
fn source_v6(address: [u8; 16]) -> Control {
    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, [&address[..], &[0; 4]].concat())
}

/// From one address of this machine, and then to the same place from another.
fn other_source(target: &Target) -> io::Result<()> {
    let (permitted, refused) = match target.own(0) {
        SocketAddr::V4(own) => (source([198, 51, 100, 9]), source(own.ip().octets())),
        SocketAddr::V6(own) => {
            let other = std::net::Ipv6Addr::from([0xfd77, 0, 0, 0, 0, 0, 0, 9]);
            (source_v6(other.octets()), source_v6(own.ip().octets()))
        }
    };
    let socket = Socket::datagram(target.peer)?;
    socket.send_message(b"permitted", Some(target.peer.into()), &[permitted])?;
    socket.send_message(&target.token(), Some(target.peer.into()), &[refused])
}

/// A permitted connection of an IPv6 socket to a mapped address, which then becomes an IPv4 socket.
fn address_form(target: &Target) -> io::Result<()> {
    let socket = six()?;
    socket.connect(mapped(target.open()))?;
    socket.send(b"permitted")?;
    socket.set(libc::IPPROTO_IPV6, IPV6_ADDRFORM, libc::AF_INET)?;
    socket.send_to(&target.token(), 0, target.peer)
}

fn broadcast(target: &Target, ip: [u8; 4]) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    socket.set(libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
    socket.set_bytes(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, target.device().as_bytes())?;
    socket.send_to(&target.token(), 0, SocketAddr::from((ip, target.peer.port())))
}

fn multicast(target: &Target) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    let index = target.device_index()?;
    let to: SocketAddr = if target.peer.is_ipv4() {
        // a group and an address that are not used, and the interface
        let interface = [&[0; 8][..], &index.to_ne_bytes()].concat();
        socket.set_bytes(libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &interface)?;
        ([239, 7, 7, 7], target.peer.port()).into()
    } else {
        socket.set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index as i32)?;
        ([0xff15, 0, 0, 0, 0, 0, 0, 7], target.peer.port()).into()
    };
    socket.send_to(&target.token(), 0, to)
}

/// Through one interface, and then to the same group through another.
fn other_interface(target: &Target) -> io::Result<()> {
    const LOOPBACK: u32 = 1;
    let socket = Socket::datagram(target.peer)?;
    let group = SocketAddr::from(([239, 7, 7, 7], target.peer.port()));
    let through = |index: u32| {
        let interface = [&[0; 8][..], &index.to_ne_bytes()].concat();
        socket.set_bytes(libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &interface)
    };
    through(LOOPBACK)?;
    socket.send_to(b"permitted", 0, group)?;
    through(target.device_index()?)?;
    socket.send_to(&target.token(), 0, group)
}

/// Joins a group whose address says something: the kernel tells the neighbours.
fn join(target: &Target) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    let [high, low] = target.peer.port().to_be_bytes();
    let membership = [&[239, 7, high, low][..], &[0; 4], &target.device_index()?.to_ne_bytes()].concat();
    socket.set_bytes(libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &membership)?;
    // the report comes a little later
    std::thread::sleep(std::time::Duration::from_millis(100));
    Ok(())
}

/// Options of an IPv4 header that lead a packet first to `hop`, and then to where it is said to go.
fn loose_route(hop: SocketAddr) -> io::Result<Vec<u8>> {
    let SocketAddr::V4(hop) = hop else { return Err(io::ErrorKind::Unsupported.into()) };
    // nothing; a loose source route of one hop (and the place for the destination)
    Ok([&[1, 131, 7, 4][..], &hop.ip().octets()].concat())
}

/// An IPv6 routing header of segments (type 4) that leads first to `hop`; the kernel fills the destination in.
fn segment_route(hop: SocketAddr) -> io::Result<Vec<u8>> {
    let SocketAddr::V6(hop) = hop else { return Err(io::ErrorKind::Unsupported.into()) };
    // next header, length, type, segments left, last entry, flags, tag; the list, last segment first
    Ok([&[0, 4, 4, 1, 1, 0, 0, 0][..], &[0; 16], &hop.ip().octets()].concat())
}

/// Sets a route by way of the peer for all packets of a socket.
fn lead_by_peer(socket: &Socket, target: &Target) -> io::Result<()> {
    match target.peer {
        SocketAddr::V4(_) => socket.set_bytes(libc::IPPROTO_IP, libc::IP_OPTIONS, &loose_route(target.peer)?),
        SocketAddr::V6(_) => socket.set_bytes(libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &segment_route(target.peer)?),
    }
}

/// Says that it goes to where it may, by way of the peer.
fn source_route(target: &Target, connected: bool) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    lead_by_peer(&socket, target)?;
    if connected {
        socket.connect(target.decoy())?;
        return socket.send(&target.token());
    }
    socket.send_to(&target.token(), 0, target.decoy())
}

fn source_route_in_control(target: &Target) -> io::Result<()> {
    let control = match target.peer {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RETOPTS, loose_route(target.peer)?),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RTHDR, segment_route(target.peer)?),
    };
    Socket::datagram(target.peer)?.send_message(&target.token(), Some(target.decoy().into()), &[control])
}

/// The first packet of a connection says enough: the peer sees it.
fn stream_source_route(target: &Target) -> io::Result<()> {
    let socket = Socket::stream(target.peer)?;
    lead_by_peer(&socket, target)?;
    socket.unblock()?;
    // in the first packet, so that it shows what it carries
    match socket.send_to(&target.token(), libc::MSG_FASTOPEN, target.decoy()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        result => result?,
    }
    std::thread::sleep(std::time::Duration::from_millis(50));
    Ok(())
}

/// From an address that this machine does not have.
fn foreign_source(target: &Target, option: i32) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    socket.set(libc::IPPROTO_IP, option, 1)?;
    socket.bind(SocketAddr::from(([198, 51, 100, 9], 0)))?;
    socket.send_to(&target.token(), 0, target.peer)
}

/// An echo request that carries the token.
fn ping(target: &Target, connected: bool) -> io::Result<()> {
    let (protocol, kind) = if target.peer.is_ipv4() { (libc::IPPROTO_ICMP, 8) } else { (libc::IPPROTO_ICMPV6, 128) };
    let socket = Socket::new(target.family(), libc::SOCK_DGRAM, protocol)?;
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 1][..], &target.token()].concat();
    if connected {
        socket.connect(target.peer)?;
        return socket.send(&message);
    }
    socket.send_to(&message, 0, target.peer)
}

/// Options for each hop and for the destination, before the UDP header.
fn extension_headers(target: &Target) -> io::Result<()> {
    let socket = Socket::datagram(target.peer)?;
    // next header, length, and six bytes of padding
    let padding = [0, 0, 1, 4, 0, 0, 0, 0];
    for option in [libc::IPV6_HOPOPTS, libc::IPV6_RTHDRDSTOPTS, libc::IPV6_DSTOPTS] {
        socket.set_bytes(libc::IPPROTO_IPV6, option, &padding)?;
    }
    socket.send_to(&target.token(), 0, target.peer)
}
