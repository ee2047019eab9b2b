//! Below IP, where the programs of a control group see nothing: the isolation has to keep a command from there.

use crate::{
    Target,
    call::{Address, Socket, check},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::fd::AsRawFd,
    process::Command,
    ptr,
};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TUN: i16 = 1;
const IFF_NO_PI: i16 = 0x1000;

/// The attacks of this file.
pub fn act(name: &str, target: &Target) -> Option<io::Result<()>> {
    let ip = (libc::ETH_P_IP as u16).to_be().into();
    let result = match name {
        "packet-raw" => Socket::new(libc::AF_PACKET, libc::SOCK_RAW, ip).and_then(|socket| {
            let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 0], &to_peer(target)?].concat();
            socket.send_to(&frame, 0, everybody(target.device_index()?))
        }),
        "packet-datagram" => {
            Socket::new(libc::AF_PACKET, libc::SOCK_DGRAM, ip).and_then(|socket| to_everybody(&socket, target))
        }
        // the family of long ago
        "packet-old" => Socket::new(libc::AF_INET, 10, ip).and_then(|socket| {
            let mut device = [&1u16.to_ne_bytes()[..], target.device().as_bytes()].concat();
            device.resize(18, 0);
            device[16..].copy_from_slice(&(libc::ETH_P_IP as u16).to_be_bytes());
            let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 0], &to_peer(target)?].concat();
            socket.send_to(&frame, 0, Address(device))
        }),
        "xdp" => xdp(target),
        "vsock" => vsock(target),
        "tun" => OpenOptions::new().read(true).write(true).open("/dev/net/tun").and_then(|file| tun(file, target)),
        "tun-own-device-file" => own_device_file(target),
        "vxlan" => vxlan(target),
        _ => return None,
    };
    Some(result)
}

/// Sends a packet to all neighbours.
pub fn to_everybody(socket: &Socket, target: &Target) -> io::Result<()> {
    socket.send_to(&to_peer(target)?, 0, everybody(target.device_index()?))
}

/// The link-layer address of all, by a device with this number.
pub fn everybody(device: u32) -> Address {
    let mut address = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
    address.extend((libc::ETH_P_IP as u16).to_be_bytes());
    address.extend(device.to_ne_bytes());
    address.extend([0, 0, 0, 6]);
    address.extend([0xff; 6]);
    address.extend([0, 0]);
    Address(address)
}

/// A UDP packet from the IP header on.
pub fn to_peer(target: &Target) -> io::Result<Vec<u8>> {
    packet([10, 77, 0, 1], target)
}

fn packet(source: [u8; 4], target: &Target) -> io::Result<Vec<u8>> {
    let SocketAddr::V4(peer) = target.peer else { return Err(io::ErrorKind::Unsupported.into()) };
    let token = target.token();
    let length = 28 + token.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, libc::IPPROTO_UDP as u8, 0, 0]);
    packet.extend(source);
    packet.extend(peer.ip().octets());
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    for word in [24_002, peer.port(), length - 20, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend(token);
    Ok(packet)
}

/// A device whose other end is this process: what it writes is forwarded as if it had come from a network.
fn tun(mut file: File, target: &Target) -> io::Result<()> {
    let mut request = [0u8; 40];
    request[..8].copy_from_slice(b"wfp-tun\0");
    request[16..18].copy_from_slice(&(IFF_TUN | IFF_NO_PI).to_ne_bytes());
    // SAFETY: the structure is 40 bytes long.
    check(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) })?;
    ip("link set wfp-tun up")?;
    ip("route add 10.78.0.0/24 dev wfp-tun")?;
    file.write_all(&packet([10, 78, 0, 2], target)?)
}

/// The file that is hidden, made again elsewhere.
fn own_device_file(target: &Target) -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("wfp-tun-{}", std::process::id()));
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: a string that ends, and numbers.
    check(unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(10, 200)) })?;
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let _ = std::fs::remove_file(&path);
    tun(file?, target)
}

/// Packets in packets, which the kernel sends itself.
fn vxlan(target: &Target) -> io::Result<()> {
    let device = target.device();
    ip(&format!("link add wfp-vxlan type vxlan id 7 remote {} dstport 4789 dev {device}", target.peer.ip()))?;
    ip("address add 10.79.0.1/24 dev wfp-vxlan")?;
    ip("link set wfp-vxlan up")?;
    ip("neighbour add 10.79.0.2 lladdr 02:00:00:00:00:02 dev wfp-vxlan")?;
    // to where the policy permits it
    let inner = SocketAddr::from(([10, 79, 0, 2], crate::OPEN));
    let result = Socket::datagram(inner)?.send_to(&target.token(), 0, inner);
    ip("link delete wfp-vxlan")?;
    result
}

/// `ip(8)`, in the network of the calling thread.
pub fn ip(arguments: &str) -> io::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output()?;
    if output.status.success() {
        return Ok(());
    }
    match String::from_utf8_lossy(&output.stderr) {
        text if text.contains("Operation not permitted") => Err(io::Error::from_raw_os_error(libc::EPERM)),
        text => Err(io::Error::other(text.trim().replace('\n', " "))),
    }
}

/// To this machine, by the sockets of virtual ones.
fn vsock(target: &Target) -> io::Result<()> {
    let socket = Socket::new(libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
    socket.connect(vsock_address(target.peer.port()))?;
    socket.send(&target.token())
}

/// What listens there; an error where the kernel has no such connections within one machine.
pub fn vsock_server(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
    socket.bind(vsock_address(port))?;
    socket.listen()?;
    socket.unblock()?;
    Ok(socket)
}

fn vsock_address(port: u16) -> Address {
    const LOCAL: u32 = 1;
    let mut address = (libc::AF_VSOCK as u16).to_ne_bytes().to_vec();
    address.extend([0, 0]);
    address.extend(u32::from(port).to_ne_bytes());
    address.extend(LOCAL.to_ne_bytes());
    address.extend([0; 4]);
    Address(address)
}

/// A packet by way of memory that is shared with the driver.
fn xdp(target: &Target) -> io::Result<()> {
    const SOL_XDP: i32 = 283;
    const TX_RING: i32 = 3;
    const UMEM_REG: i32 = 4;
    const UMEM_FILL_RING: i32 = 5;
    const UMEM_COMPLETION_RING: i32 = 6;
    const MMAP_OFFSETS: i32 = 1;
    const COPY: u16 = 2;
    const PAGE: usize = 4096;
    let socket = Socket::new(libc::AF_XDP, libc::SOCK_RAW, 0)?;
    let map = |length, descriptor, offset, flags| {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory.
        let memory = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, descriptor, offset) };
        if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(memory.cast::<u8>()) }
    };
    let frames = map(4 * PAGE, -1, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)?;
    // address, length, size of a frame, headroom, flags, metadata
    let memory = [frames as u64, 4 * PAGE as u64, PAGE as u64, 0];
    let memory: Vec<u8> = memory.iter().flat_map(|word| word.to_ne_bytes()).collect();
    socket.set_bytes(SOL_XDP, UMEM_REG, &memory)?;
    for ring in [UMEM_FILL_RING, UMEM_COMPLETION_RING, TX_RING] {
        socket.set(SOL_XDP, ring, 4)?;
    }
    // for each ring: producer, consumer, descriptors, flags
    let (mut offsets, mut length) = ([0u64; 16], 128u32);
    // SAFETY: our own memory of this length.
    check(unsafe {
        let place = offsets.as_mut_ptr().cast();
        libc::getsockopt(socket.number(), SOL_XDP, MMAP_OFFSETS, place, &raw mut length)
    })?;
    let ring = map(PAGE, socket.number(), 0x8000_0000, libc::MAP_SHARED)?;
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 0], &to_peer(target)?].concat();
    // family, flags, interface, queue, a shared socket
    let mut address = (libc::AF_XDP as u16).to_ne_bytes().to_vec();
    address.extend(COPY.to_ne_bytes());
    address.extend(target.device_index()?.to_ne_bytes());
    address.extend([0; 8]);
    socket.bind(Address(address))?;
    // SAFETY: the frame fits into the first page; the kernel gave the offsets of the second ring, which has four entries.
    unsafe {
        ptr::copy_nonoverlapping(frame.as_ptr(), frames, frame.len());
        let [producer, _, descriptors, _] = [offsets[4], offsets[5], offsets[6], offsets[7]];
        let descriptor = ring.add(descriptors as usize).cast::<[u32; 4]>();
        descriptor.write_volatile([0, 0, frame.len() as u32, 0]);
        ring.add(producer as usize).cast::<u32>().write_volatile(1);
        let sent = libc::sendto(socket.number(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0);
        check(sent as i64).map(drop)
    }
}
