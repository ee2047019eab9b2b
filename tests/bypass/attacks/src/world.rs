//! Network namespaces for one thread, and what arrives there.

use crate::call::{Address, Socket, check};
use std::{ffi::CString, io};

/// Gives the calling thread, and the threads and processes that it starts from now on, a network of their own.
pub fn own_network() -> io::Result<()> {
    // SAFETY: a number.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// The kernel's number of the calling thread, by which `ip` finds its network.
pub fn thread_id() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

/// Copies of all frames that arrive in a network, whoever they are for.
#[derive(Debug)]
pub struct Wire(Socket);

impl Wire {
    /// In the network of the calling thread.
    pub fn tap() -> io::Result<Self> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let socket = Socket::new(libc::AF_PACKET, libc::SOCK_RAW, all.into())?;
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)?;
        // what leaves is not shown
        socket.set(libc::SOL_PACKET, 23, 1)?;
        Ok(Self(socket))
    }

    /// What has arrived since it was asked last, from the Ethernet header on.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.0.receive().ok()).collect()
    }
}

/// Sends a frame by a device of the calling thread's network.
pub fn send_frame(device: &str, frame: &[u8]) -> io::Result<()> {
    let name = CString::new(device)?;
    // SAFETY: a string that ends.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    let socket = Socket::new(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let mut address = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
    address.extend([0, 0]);
    address.extend(index.to_ne_bytes());
    address.extend([0; 12]);
    socket.send_to(frame, 0, Address(address))
}

/// A capture of what passes the devices of a network, both ways.
#[derive(Debug)]
pub struct Recorder {
    socket: Socket,
    cooked: bool,
}

impl Recorder {
    /// In the network of the calling thread: of frames from the Ethernet header on, or "cooked": with the number and kind of
    /// the interface in its place (LINKTYPE_LINUX_SLL2).
    pub fn new(cooked: bool) -> io::Result<Self> {
        let kind = if cooked { libc::SOCK_DGRAM } else { libc::SOCK_RAW };
        let socket = Socket::new(libc::AF_PACKET, kind, i32::from((libc::ETH_P_ALL as u16).to_be()))?;
        socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)?;
        // the tag of a VLAN stands beside its frame
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        Ok(Self { socket, cooked })
    }

    /// The number of the link type in a capture file.
    pub const fn link_type(&self) -> u32 {
        const EN10MB: u32 = 1;
        const LINUX_SLL2: u32 = 276;
        if self.cooked { LINUX_SLL2 } else { EN10MB }
    }

    /// What has passed since it was asked last, as a capture has it.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        self.passed().into_iter().map(|(packet, _)| packet).collect()
    }

    /// The same, and whether each was sent from there.
    pub fn passed(&self) -> Vec<(Vec<u8>, bool)> {
        std::iter::from_fn(|| self.socket.receive_message().ok())
            .map(|(packet, from, beside)| {
                let outgoing = from.0.get(10) == Some(&libc::PACKET_OUTGOING);
                (if self.cooked { [cooked(&from.0), packet].concat() } else { with_tag(packet, &beside) }, outgoing)
            })
            .collect()
    }
}

/// A frame with its tag in its place, from a `tpacket_auxdata`.
fn with_tag(mut frame: Vec<u8>, beside: &[u8]) -> Vec<u8> {
    const VLAN_VALID: u8 = 1 << 4;
    let &[status, _, _, _, .., tag_low, tag_high, kind_low, kind_high] = beside else { return frame };
    if status & VLAN_VALID != 0 && frame.len() > 12 {
        let [tag, kind] =
            [[tag_low, tag_high], [kind_low, kind_high]].map(|pair| u16::from_ne_bytes(pair).to_be_bytes());
        frame.splice(12..12, [kind, tag].concat());
    }
    frame
}

/// The header of LINKTYPE_LINUX_SLL2 from a `sockaddr_ll`.
fn cooked(from: &[u8]) -> Vec<u8> {
    let mut from = from.to_vec();
    from.resize(20, 0);
    let index = i32::from_ne_bytes([from[4], from[5], from[6], from[7]]).to_be_bytes();
    let kind = u16::from_ne_bytes([from[8], from[9]]).to_be_bytes();
    [&from[2..4], &[0; 2], &index[..], &kind, &from[10..12], &from[12..20]].concat()
}
