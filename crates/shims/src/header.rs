//! The headers of a packet, as far as authorization needs them.

use crate::{
    address::Address,
    protocol::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE},
    work::Work,
};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use core::mem::MaybeUninit;
use openwfp_engine::words;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// No packet has more extension headers than this; one that claims to is not read.
const EXTENSIONS: usize = 8;

/// What the headers say.
pub struct Header {
    /// The source address.
    pub source: Address,
    /// The destination address.
    pub destination: Address,
    /// The transport protocol, behind all extension headers.
    pub protocol: u8,
    /// The first four bytes of the transport header: two ports, or ICMP type and code.
    ports: [u16; 2],
    tcp_flags: u8,
    /// Whether this is the first (or only) fragment: the others have no transport header.
    pub first: bool,
}

/// `count` bytes at `offset`, which both are known numbers to the verifier or bounded.
#[inline(always)]
fn load<T: Copy>(packet: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly the size of `T`, which is made of integers, or fails.
    let result = unsafe { bpf_skb_load_bytes(packet.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32) };
    // SAFETY: the helper has written it.
    if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
}

/// Reads the headers. `None`: they are cut, or nest too deep.
#[inline(always)]
pub fn read(packet: *mut __sk_buff) -> Option<Header> {
    let version = load::<u8>(packet, 0)? >> 4;
    let (source, destination, protocol, transport, first) = match version {
        4 => {
            let fixed: [u32; 5] = load(packet, 0)?;
            let length = (u32::from_be(fixed[0]) >> 24 & 15) * 4;
            let fragment = u32::from_be(fixed[1]) & 0x1fff;
            let protocol = (u32::from_be(fixed[2]) >> 16) as u8;
            (Address::v4(u32::from_be(fixed[3])), Address::v4(u32::from_be(fixed[4])), protocol, length, fragment == 0)
        }
        6 => {
            let fixed: [u32; 10] = load(packet, 0)?;
            let (protocol, transport, first) = extensions(packet, (u32::from_be(fixed[1]) >> 8) as u8)?;
            (
                Address::v6([fixed[2], fixed[3], fixed[4], fixed[5]]),
                Address::v6([fixed[6], fixed[7], fixed[8], fixed[9]]),
                protocol,
                transport,
                first,
            )
        }
        _ => return None,
    };
    let mut header = Header { source, destination, protocol, ports: [0; 2], tcp_flags: 0, first };
    if !first {
        return Some(header);
    }
    match protocol {
        TCP | UDP | UDPLITE | SCTP | DCCP => {
            let [a, b]: [u16; 2] = load(packet, transport)?;
            header.ports = [u16::from_be(a), u16::from_be(b)];
            if protocol == TCP {
                header.tcp_flags = load(packet, transport + 13)?;
            }
        }
        ICMP | ICMPV6 => {
            let [kind, code]: [u8; 2] = load(packet, transport)?;
            header.ports = [kind as u16, code as u16];
        }
        _ => {}
    }
    Some(header)
}

/// Follows the extension headers: the transport protocol, where its header begins, and whether this is the first (or
/// only) fragment.
#[inline(always)]
fn extensions(packet: *mut __sk_buff, mut next: u8) -> Option<(u8, u32, bool)> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    let mut offset = 40;
    for _ in 0..EXTENSIONS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT => load::<[u8; 4]>(packet, offset)?,
            _ => return Some((next, offset, true)),
        };
        let bytes = match next {
            AUTHENTICATION => (length[1] as u32 + 2) * 4,
            FRAGMENT => {
                if u16::from_be_bytes([length[2], length[3]]) & 0xfff8 != 0 {
                    return Some((length[0], offset + 8, false));
                }
                8
            }
            _ => (length[1] as u32 + 1) * 8,
        };
        next = length[0];
        offset += bytes;
    }
    None
}

impl Header {
    /// The remote port, as flows are named: for ICMP type and code of the request, 0 for protocols without either.
    #[inline(always)]
    pub fn remote_port(&self, inbound: bool) -> u16 {
        let [first, second] = self.ports;
        match (self.protocol, inbound) {
            (ICMP | ICMPV6, _) => {
                let kind = if inbound { self.request().unwrap_or(first) } else { first };
                kind << 8 | second & 0xff
            }
            (_, true) => first,
            (_, false) => second,
        }
    }

    /// The ICMP type of what this message answers; `None`: it is no echo reply.
    #[inline(always)]
    fn request(&self) -> Option<u16> {
        match (self.protocol, self.ports[0]) {
            (ICMP, 0) => Some(8),
            (ICMPV6, 129) => Some(128),
            _ => None,
        }
    }

    /// Whether it is an ICMP message that belongs to no exchange which this side began.
    #[inline(always)]
    pub fn is_unasked(&self) -> bool {
        (self.protocol == ICMP || self.protocol == ICMPV6) && self.request().is_none()
    }

    /// Whether a TCP packet asks for a connection.
    #[inline(always)]
    pub fn opens_connection(&self) -> bool {
        self.tcp_flags & (SYN | ACK) == SYN
    }

    /// Writes the ports, or ICMP type and code, into the values.
    #[inline(always)]
    pub fn write_ports(&self, work: &mut Work, inbound: bool) {
        let [source, destination] = self.ports;
        let (local, remote) = match (self.protocol, inbound) {
            (ICMP | ICMPV6, _) | (_, false) => (source, destination),
            (_, true) => (destination, source),
        };
        match self.protocol {
            TCP | UDP | UDPLITE | SCTP | DCCP | ICMP | ICMPV6 if !self.first => {
                work.values.set_unknown(words::IP_LOCAL_PORT);
                work.values.set_unknown(words::IP_REMOTE_PORT);
            }
            TCP | UDP | UDPLITE | SCTP | DCCP | ICMP | ICMPV6 => {
                work.values.set(words::IP_LOCAL_PORT, local as u32);
                work.values.set(words::IP_REMOTE_PORT, remote as u32);
            }
            _ => {}
        }
    }
}
