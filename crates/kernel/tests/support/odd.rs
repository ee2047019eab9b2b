//! What an actor can do only by plain system calls: sockets in states that the standard library does not offer.

use super::actor::check;
use std::{
    cell::RefCell,
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::Duration,
};

pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: numbers; the descriptor is new.
    unsafe {
        let socket = libc::socket(family, kind, protocol);
        check(socket)?;
        Ok(OwnedFd::from_raw_fd(socket))
    }
}

fn family(address: SocketAddr) -> i32 {
    if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
}

/// An address as the kernel takes it.
pub fn raw(address: SocketAddr) -> (libc::sockaddr_storage, u32) {
    // SAFETY: zeros are an address; both kinds fit into the storage.
    unsafe {
        let mut storage: libc::sockaddr_storage = mem::zeroed();
        match address {
            SocketAddr::V4(address) => {
                let place = (&raw mut storage).cast::<libc::sockaddr_in>();
                (*place).sin_family = libc::AF_INET as u16;
                (*place).sin_port = address.port().to_be();
                (*place).sin_addr.s_addr = u32::from(*address.ip()).to_be();
                (storage, size_of::<libc::sockaddr_in>() as u32)
            }
            SocketAddr::V6(address) => {
                let place = (&raw mut storage).cast::<libc::sockaddr_in6>();
                (*place).sin6_family = libc::AF_INET6 as u16;
                (*place).sin6_port = address.port().to_be();
                (*place).sin6_addr.s6_addr = address.ip().octets();
                (storage, size_of::<libc::sockaddr_in6>() as u32)
            }
        }
    }
}

pub fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (storage, length) = raw(address);
    // SAFETY: an address of this length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const storage).cast(), length) })
}

pub fn connect(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (storage, length) = raw(address);
    // SAFETY: an address of this length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const storage).cast(), length) })
}

fn set(socket: &OwnedFd, level: i32, option: i32) -> io::Result<()> {
    let on = 1i32;
    // SAFETY: an option of this length.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), 4) })
}

/// Lets a socket speak through one device alone.
pub fn bind_to_device(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let length = name.len() as libc::socklen_t;
    // SAFETY: so many bytes of a name that is borrowed.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_ptr().cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many machines an IPv6 datagram may pass.
pub fn set_hops(socket: &UdpSocket, hops: i32) -> io::Result<()> {
    let (level, option) = (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS);
    // SAFETY: an option of this length.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const hops).cast(), 4) })
}

/// Leaves as little room for what comes as a socket can have.
pub fn narrow(socket: &UdpSocket) -> io::Result<()> {
    set(&socket.try_clone()?.into(), libc::SOL_SOCKET, libc::SO_RCVBUF)
}

/// Connects; the family is that of the address to bind to, if there is one.
pub fn connect_from(kind: i32, protocol: i32, from: Option<SocketAddr>, to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(family(from.unwrap_or(to)), kind, protocol)?;
    if let Some(from) = from {
        bind(&socket, from)?;
    }
    connect(&socket, to)?;
    Ok(socket)
}

/// Sends a message with one piece of control data, to where it is told or where the socket is connected to.
fn send<T>(socket: i32, to: Option<SocketAddr>, level: i32, kind: i32, data: T) -> io::Result<()> {
    // SAFETY: the message points to memory of this function; the control data fits.
    unsafe {
        let mut control = [0u64; 16];
        let mut bytes = *b"hello";
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = mem::zeroed();
        let mut address = to.map(raw);
        if let Some((storage, length)) = &mut address {
            message.msg_name = (&raw mut *storage).cast();
            message.msg_namelen = *length;
        }
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<T>() as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
        check(libc::sendmsg(socket, &raw const message, 0) as i32)
    }
}

/// A message without an endpoint, but with control data.
pub fn send_with_control(connected: &UdpSocket) -> io::Result<()> {
    send(connected.as_raw_fd(), None, libc::IPPROTO_IP, libc::IP_TOS, 16i32)
}

/// From a socket that is bound to another address, a message that comes with its source.
pub fn send_from(source: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let IpAddr::V6(address) = source.ip() else { panic!("IPv6") };
    let socket = socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)?;
    // an address that nobody has
    set(&socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND)?;
    bind(&socket, "[fd00::7]:0".parse().unwrap())?;
    // SAFETY: zeros are an information.
    let mut information: libc::in6_pktinfo = unsafe { mem::zeroed() };
    information.ipi6_addr.s6_addr = address.octets();
    send(socket.as_raw_fd(), Some(to), libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, information)
}

/// Listens without having bound, and connects to itself.
pub fn listens_unbound(v6: bool) -> io::Result<TcpStream> {
    let listener = socket(if v6 { libc::AF_INET6 } else { libc::AF_INET }, libc::SOCK_STREAM, 0)?;
    // SAFETY: numbers.
    check(unsafe { libc::listen(listener.as_raw_fd(), 1) })?;
    let port = std::net::TcpListener::from(listener.try_clone()?).local_addr()?.port();
    let to: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    TcpStream::connect_timeout(&SocketAddr::new(to, port), Duration::from_secs(2))
}

/// Listens while there is memory for options of sockets, and accepts when there is none.
pub fn accepts_without_memory() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let to = listener.local_addr()?;
    let _first = TcpStream::connect(to)?;
    listener.accept()?;
    std::fs::write("/proc/sys/net/core/optmem_max", "1")?;
    let _second = TcpStream::connect(to)?;
    std::thread::sleep(Duration::from_millis(300));
    listener.set_nonblocking(true)?;
    match listener.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
        result => result.map(drop),
    }
}

fn send_packet(socket: &OwnedFd, packet: &[u8]) -> io::Result<()> {
    let (to, length) = raw(SocketAddr::from(([127, 0, 0, 1], 0)));
    // SAFETY: our own memory.
    let sent = unsafe {
        let to = (&raw const to).cast();
        libc::sendto(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to, length)
    };
    check(sent as i32)
}

thread_local! {
    static RAW: RefCell<Option<OwnedFd>> = const { RefCell::new(None) };
}

/// All from one raw socket.
fn with_raw(protocol: i32, action: impl FnOnce(&OwnedFd) -> io::Result<()>) -> io::Result<()> {
    RAW.with_borrow_mut(|held| {
        if held.is_none() {
            *held = Some(socket(libc::AF_INET, libc::SOCK_RAW, protocol)?);
        }
        action(held.as_ref().unwrap())
    })
}

/// Sends an ICMP message of this type to 127.0.0.1.
pub fn icmp(kind: u8) -> io::Result<()> {
    let sum = !(u16::from(kind) << 8 | 1);
    let [high, low] = sum.to_be_bytes();
    with_raw(libc::IPPROTO_ICMP, |socket| send_packet(socket, &[kind, 0, high, low, 0, 1, 0, 0]))
}

/// Sends an ICMPv6 message of this type to ::1; the kernel adds the checksum.
pub fn icmp6(kind: u8) -> io::Result<()> {
    let socket = socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)?;
    connect(&socket, SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)))?;
    let message = [kind, 0, 0, 0, 0, 1, 0, 0];
    // SAFETY: memory of this length.
    check(unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) } as i32)
}

/// Sends a UDP packet, or a later fragment of one, to 127.0.0.1, with an IP header that this process wrote.
pub fn by_hand(port: u16, fragment: bool) -> io::Result<()> {
    let mut packet = [0u8; 36];
    packet[0] = 0x45;
    packet[3] = 36;
    packet[5] = 1;
    // eight bytes further on, and more to come
    packet[6..8].copy_from_slice(if fragment { &[0x20, 1] } else { &[0, 0] });
    packet[8] = 64;
    packet[9] = libc::IPPROTO_UDP as u8;
    packet[12..16].copy_from_slice(&[127, 0, 0, 1]);
    packet[16..20].copy_from_slice(&[127, 0, 0, 1]);
    packet[20..22].copy_from_slice(&4000u16.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[25] = 16;
    with_raw(libc::IPPROTO_RAW, |socket| send_packet(socket, &packet))
}

/// Whether a raw socket gets the packets of a connection that is attempted.
pub fn hears_tcp() -> io::Result<()> {
    with_raw(libc::IPPROTO_TCP, |socket| {
        drop(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 9))));
        let mut bytes = [0u8; 64];
        // SAFETY: our own memory.
        let got = unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
        if got < 0 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    })
}

/// The protocol of ICMP, and the type of an echo request.
const fn icmp_of(v6: bool) -> (i32, u8) {
    if v6 { (libc::IPPROTO_ICMPV6, 128) } else { (libc::IPPROTO_ICMP, 8) }
}

/// A ping socket of the version of an address.
pub fn ping_socket(to: SocketAddr) -> io::Result<OwnedFd> {
    socket(family(to), libc::SOCK_DGRAM, icmp_of(to.is_ipv6()).0)
}

/// Sends an echo request from a ping socket.
pub fn request_echo(socket: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    // the kernel fills in sum and identifier
    let message = [icmp_of(to.is_ipv6()).1, 0, 0, 0, 0, 0, 0, 1];
    let (place, length) = raw(to);
    // SAFETY: a buffer and an address of these lengths.
    check(unsafe {
        let place = (&raw const place).cast();
        libc::sendto(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0, place, length) as i32
    })
}

/// Sends an echo request from a new ping socket and receives the reply.
pub fn echo(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = ping_socket(to)?;
    request_echo(&socket, to)?;
    hears(&socket)?;
    Ok(socket)
}

/// A raw socket that hears echo requests, and nothing else of ICMP, at an address.
pub fn hears_requests(at: SocketAddr) -> io::Result<OwnedFd> {
    const SOL_RAW: i32 = 255;
    const ICMP_FILTER: i32 = 1;
    const ICMP6_FILTER: i32 = 1;
    let (protocol, request) = icmp_of(at.is_ipv6());
    let socket = socket(family(at), libc::SOCK_RAW, protocol)?;
    // a bit for each type that is not let through
    let mut others = [u32::MAX; 8];
    others[usize::from(request) / 32] &= !(1 << (request % 32));
    let (level, option, length) = match at.is_ipv6() {
        true => (libc::IPPROTO_ICMPV6, ICMP6_FILTER, 32),
        false => (SOL_RAW, ICMP_FILTER, 4),
    };
    // SAFETY: an option of at most this length.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, others.as_ptr().cast(), length) })?;
    bind(&socket, SocketAddr::new(at.ip(), 0))?;
    Ok(socket)
}

/// Receives something within a second.
pub fn hears(socket: &OwnedFd) -> io::Result<()> {
    let mut ready = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut buffer = [0u8; 256];
    // SAFETY: one structure and one buffer of our own.
    unsafe {
        match libc::poll(&raw mut ready, 1, 1000) {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => check(libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) as i32),
        }
    }
}

/// Sends TCP packets that ask a port for a connection, from an address that is nobody's: nobody answers the answer. One from each
/// port of a range.
pub fn half_open(from: Ipv4Addr, ports: std::ops::Range<u16>, to: SocketAddrV4) -> io::Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    let (place, length) = raw(to.into());
    for port in ports {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
        packet.extend(from.octets().into_iter().chain(to.ip().octets()));
        let mut segment = [&port.to_be_bytes()[..], &to.port().to_be_bytes()].concat();
        // sequence and acknowledgement, five words, SYN, window, checksum, no urgent data
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        let pseudo = [&packet[12..20], &[0, 6, 0, 20], &segment].concat();
        let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        packet.extend(segment);
        // SAFETY: a buffer and an address of these lengths; the kernel fills in the sum of the header.
        check(unsafe {
            let place = (&raw const place).cast();
            libc::sendto(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, place, length) as i32
        })?;
    }
    Ok(())
}

/// Ends a connection by a reset.
pub fn resets(stream: &TcpStream) -> io::Result<()> {
    let unspecified = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    // SAFETY: an address of this length; connecting to none aborts the connection.
    check(unsafe { libc::connect(stream.as_raw_fd(), &raw const unspecified, size_of::<libc::sockaddr>() as u32) })
}

/// The next `close()` of a connection resets it.
pub fn lingers_not(socket: &impl AsRawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let (option, length) = ((&raw const linger).cast(), size_of::<libc::linger>() as u32);
    // SAFETY: the option is a structure of this length.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, option, length) })
}

/// Data that nobody has acknowledged for so many milliseconds end a connection.
pub fn gives_up_after(socket: &impl AsRawFd, milliseconds: u32) -> io::Result<()> {
    let option = (&raw const milliseconds).cast();
    // SAFETY: the option is one number of this length.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, option, 4) })
}

/// The state of a connection, as the kernel numbers them.
pub fn tcp_state(stream: &TcpStream) -> io::Result<u8> {
    let mut state = 0u8;
    let mut length = 1;
    // SAFETY: one byte of our own, the first of the structure.
    check(unsafe {
        let (state, length) = ((&raw mut state).cast(), &raw mut length);
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, state, length)
    })?;
    Ok(state)
}

fn mark(socket: &impl AsRawFd, mark: u32) -> io::Result<()> {
    // SAFETY: the option is one number of this length.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, (&raw const mark).cast(), 4) })
}

/// Sends a datagram with a mark.
pub fn send_marked(to: SocketAddr, number: u32) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    mark(&socket, number)?;
    socket.send_to(b"hello", to).map(drop)
}

/// Sends a frame on a device, with a mark.
pub fn send_frame(device: u32, frame: &[u8], number: u32) -> io::Result<()> {
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    mark(&socket, number)?;
    // SAFETY: zeros are an address, which has this length.
    unsafe {
        let mut to: libc::sockaddr_ll = mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = device.cast_signed();
        let length = size_of::<libc::sockaddr_ll>() as u32;
        let sent =
            libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length);
        check(sent as i32)
    }
}
