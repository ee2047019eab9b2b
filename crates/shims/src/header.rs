//! The headers of a packet, as far as authorization needs them.

use crate::{
    address::Address,
    bytes::{Bytes, Linear},
    protocol::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE},
    words,
    work::Work,
};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_loop};
use core::{ffi::c_void, mem::MaybeUninit};
use openwfp_engine::words as word;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// A packet with more extension headers than 16 is not read (in replay neither); one turn more finds their end.
const EXTENSIONS: u32 = 16 + 1;

/// `ETH_P_IP`, `ETH_P_IPV6`.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// What the headers say.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header {
    /// The source address.
    pub source: Address,
    /// The destination address.
    pub destination: Address,
    /// The first four bytes of the transport header: two ports, or ICMP type and code.
    ports: [u16; 2],
    /// The transport protocol, behind all extension headers.
    pub protocol: u8,
    tcp_flags: u8,
    /// Whether this is the first (or only) fragment: the others have no transport header.
    pub first: bool,
    /// Whether it is a fragment.
    pub fragment: bool,
    /// Whether the destination is a hop on the way to another, which the packet names too (a routing header, a source route).
    pub routed: bool,
    /// Whether it is a TCP packet with data.
    pub data: bool,
    /// Where the transport header begins, from the network header on.
    pub transport: u16,
    /// Whether it ends before the transport header does: of that nothing is known.
    pub cut: bool,
    spare: [u8; 3],
}

/// Reads the headers into zeros. `false`: they are cut, or nest too deep.
#[inline(always)]
pub fn read_into(packet: *mut __sk_buff, to: &mut Header) -> bool {
    // SAFETY: the context is valid.
    unsafe { read_headers(packet, to) == WHOLE }
}

/// As [`read_into`], into memory that holds nothing yet.
#[inline(always)]
pub fn read(packet: *mut __sk_buff, to: &mut MaybeUninit<Header>) -> Option<&Header> {
    // SAFETY: zeros are a header.
    let header = unsafe {
        words::zero(to.as_mut_ptr());
        to.assume_init_mut()
    };
    if read_into(packet, header) { Some(header) } else { None }
}

/// As [`read`], but the transport header may be [cut](Header::cut).
#[inline(always)]
pub fn read_network(packet: *mut __sk_buff, to: &mut MaybeUninit<Header>) -> Option<&Header> {
    // SAFETY: zeros are a header; the context is valid.
    unsafe {
        words::zero(to.as_mut_ptr());
        if read_headers(packet, to.as_mut_ptr()) == UNREADABLE { None } else { Some(to.assume_init_ref()) }
    }
}

/// What [`read_headers`] answers: nothing could be read; the headers of IP alone; all of them.
const UNREADABLE: u32 = 0;
const NETWORK_ALONE: u32 = 1;
const WHOLE: u32 = 2;

/// What a packet is, as far as that lies at hand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AtHand {
    /// One of TCP.
    Tcp,
    /// One of TCP that asks for a connection.
    TcpOpens,
    /// One of UDP.
    Udp,
    /// Anything else; or it may be a fragment, or go by way of somebody else than its destination: it has options, or extension
    /// headers.
    Other,
}

/// What a packet of a socket is. Read without a helper, since every packet is asked for this.
#[inline(always)]
pub fn at_hand(packet: *mut __sk_buff) -> AtHand {
    // SAFETY: the context is valid; the verifier checks the members, and that what is read lies before the end.
    unsafe {
        let (start, end) = ((*packet).data as usize as *const u8, (*packet).data_end as usize as *const u8);
        // the flags of TCP are its fourteenth byte
        if start.add(20 + 14) > end {
            return AtHand::Other;
        }
        let (protocol, flags) = match start.read() {
            0x45 => {
                let fragment = (start.add(6).read() & 0x3f) | start.add(7).read();
                (if fragment == 0 { start.add(9).read() } else { FRAGMENT }, start.add(20 + 13).read())
            }
            first if first >> 4 == 6 && start.add(40 + 14) <= end => (start.add(6).read(), start.add(40 + 13).read()),
            _ => return AtHand::Other,
        };
        match protocol {
            TCP if opens_connection(flags) => AtHand::TcpOpens,
            TCP => AtHand::Tcp,
            UDP => AtHand::Udp,
            _ => AtHand::Other,
        }
    }
}

/// [`read_into`], verified once and not at each call.
///
/// # Safety
/// `packet` is the context of a program, `to` is valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn read_headers(packet: *mut __sk_buff, to: *mut Header) -> u32 {
    if to.is_null() {
        return UNREADABLE;
    }
    // what the kernel takes it for, which the first byte of a packet from a raw socket need not say
    // SAFETY: the context is valid; the verifier checks the members.
    let (kind, length) = unsafe { ((*packet).protocol, (*packet).len) };
    // SAFETY: the caller's.
    parse(packet, kind as u16, length, unsafe { &mut *to })
}

/// [`read_headers`] from what lies in one piece, of a packet of this kind and length; not 0: all of them could be read.
///
/// # Safety
/// `to` is valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn read_linear(start: u64, length: u32, kind: u32, to: *mut Header) -> u32 {
    if to.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    (parse(Linear { start, length }, kind as u16, length, unsafe { &mut *to }) == WHOLE) as u32
}

/// Reads the headers of a packet of this kind (`skb->protocol`) and length into memory of the caller's.
///
/// Writes each part where it belongs: a header of this function's own would take too much of the stack.
#[inline(always)]
fn parse(packet: impl Bytes, kind: u16, length: u32, header: &mut Header) -> u32 {
    if parse_network(packet, kind, header).is_none() {
        return UNREADABLE;
    }
    if header.first && parse_transport(packet, length, header).is_none() {
        header.cut = true;
        return NETWORK_ALONE;
    }
    WHOLE
}

/// The headers of IP.
#[inline(always)]
fn parse_network(packet: impl Bytes, kind: u16, header: &mut Header) -> Option<()> {
    let transport = match u16::from_be(kind) {
        IPV4 => {
            let transport = v4(packet, 0, header)?;
            if transport > 20 {
                // the options are there to their end
                packet.load::<u8>(transport - 1)?;
                header.routed = has_source_route(packet, transport);
            }
            transport
        }
        IPV6 => v6(packet, 0, header)?,
        _ => return None,
    };
    header.transport = transport as u16;
    Some(())
}

/// What is read of the transport header.
#[inline(always)]
fn parse_transport(packet: impl Bytes, length: u32, header: &mut Header) -> Option<()> {
    let transport = header.transport as u32;
    match header.protocol {
        TCP | UDP | UDPLITE | SCTP | DCCP => {
            let [a, b]: [u16; 2] = packet.load(transport)?;
            header.ports = [u16::from_be(a), u16::from_be(b)];
            if header.protocol == TCP {
                let [offset, flags]: [u8; 2] = packet.load(transport + 12)?;
                header.tcp_flags = flags;
                // at the devices the length counts the frame's header too, but there nobody asks
                header.data = length > transport + (offset >> 4) as u32 * 4;
            }
        }
        ICMP | ICMPV6 => {
            let [kind, code]: [u8; 2] = packet.load(transport)?;
            header.ports = [kind as u16, code as u16];
        }
        _ => {}
    }
    Some(())
}

/// The fixed header of IPv4 at `at`; where the transport header begins.
#[inline(always)]
pub fn v4(packet: impl Bytes, at: u32, header: &mut Header) -> Option<u32> {
    let fixed: [u32; 5] = packet.load(at)?;
    let words = u32::from_be(fixed[0]) >> 24 & 15;
    if u32::from_be(fixed[0]) >> 28 != 4 || words < 5 {
        return None;
    }
    let transport = at + words * 4;
    header.source = Address::v4(u32::from_be(fixed[3]));
    header.destination = Address::v4(u32::from_be(fixed[4]));
    header.protocol = (u32::from_be(fixed[2]) >> 16) as u8;
    header.first = u32::from_be(fixed[1]) & 0x1fff == 0;
    header.fragment = u32::from_be(fixed[1]) & 0x3fff != 0;
    Some(transport)
}

/// The fixed header of IPv6 at `at` and its extensions; where the transport header begins.
#[inline(always)]
pub fn v6<B: Bytes>(packet: B, at: u32, header: &mut Header) -> Option<u32> {
    const SOURCE: u32 = 8;
    const DESTINATION: u32 = 24;
    if packet.load::<u8>(at)? >> 4 != 6 {
        return None;
    }
    header.source = Address::v6(packet.load(at + SOURCE)?);
    header.destination = Address::v6(packet.load(at + DESTINATION)?);
    let mut walk = Extensions {
        packet,
        offset: at + 40,
        next: packet.load(at + 6)?,
        first: true,
        fragment: false,
        routed: false,
        ended: false,
    };
    // SAFETY: the callback gets a pointer to `walk`, which lives until the call returns.
    unsafe { bpf_loop(EXTENSIONS, one_extension::<B> as *mut c_void, (&raw mut walk).cast(), 0) };
    header.protocol = walk.next;
    header.first = walk.first;
    header.fragment = walk.fragment;
    header.routed = walk.routed;
    if walk.ended { Some(walk.offset) } else { None }
}

/// A walk along the options of IPv4.
struct Options<B> {
    packet: B,
    /// Where the next option begins, and where they end.
    offset: u32,
    end: u32,
    routed: bool,
}

/// Whether the options hold a source route. Options that cannot be read may hold one.
#[inline(always)]
fn has_source_route<B: Bytes>(packet: B, end: u32) -> bool {
    let mut walk = Options { packet, offset: 20, end, routed: false };
    // SAFETY: the callback gets a pointer to `walk`, which lives until the call returns. An option has a byte at least.
    unsafe { bpf_loop(40, one_option::<B> as *mut c_void, (&raw mut walk).cast(), 0) };
    walk.routed
}

/// One option: 1 ends the walk.
extern "C" fn one_option<B: Bytes>(_: u32, walk: *mut c_void) -> i64 {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    // SAFETY: `has_source_route` hands over a valid walk.
    let walk = unsafe { &mut *walk.cast::<Options<B>>() };
    if walk.offset >= walk.end {
        return 1;
    }
    let Some(kind) = walk.packet.load::<u8>(walk.offset) else { return 1 };
    match kind {
        END => return 1,
        NOTHING => {
            walk.offset += 1;
            return 0;
        }
        LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => {
            walk.routed = true;
            return 1;
        }
        _ => {}
    }
    match walk.packet.load::<u8>(walk.offset + 1) {
        Some(length @ 2..) => {
            walk.offset += length as u32;
            0
        }
        _ => {
            walk.routed = true;
            1
        }
    }
}

/// A walk along the extension headers of IPv6.
struct Extensions<B> {
    packet: B,
    /// Where the next header begins.
    offset: u32,
    /// Which it is.
    next: u8,
    /// Whether this is the first (or only) fragment.
    first: bool,
    /// Whether it is a fragment.
    fragment: bool,
    /// Whether there is a routing header with segments that are left.
    routed: bool,
    /// Whether the transport header was reached.
    ended: bool,
}

/// One extension header: 1 ends the walk. In a loop of its own kind, because the verifier follows it once, where it would
/// follow each turn of an ordinary loop for each way to get there.
extern "C" fn one_extension<B: Bytes>(_: u32, walk: *mut c_void) -> i64 {
    // SAFETY: `v6` hands over a valid walk.
    let walk = unsafe { &mut *walk.cast::<Extensions<B>>() };
    let length = match walk.next {
        HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT => walk.packet.load::<[u8; 4]>(walk.offset),
        _ => {
            walk.ended = true;
            return 1;
        }
    };
    let Some([next, length, high, low]) = length else { return 1 };
    let mut answer = 0;
    // the fourth byte of a routing header: how many segments are left
    if walk.next == ROUTING && low != 0 {
        walk.routed = true;
    }
    let bytes = match walk.next {
        AUTHENTICATION => (length as u32 + 2) * 4,
        FRAGMENT => {
            walk.fragment = true;
            if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                walk.first = false;
                walk.ended = true;
                answer = 1;
            }
            8
        }
        _ => (length as u32 + 1) * 8,
    };
    walk.next = next;
    walk.offset += bytes;
    answer
}

/// Whether these are the flags of a TCP packet that asks for a connection.
#[inline(always)]
fn opens_connection(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
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

    /// The local port; 0 for protocols without ports.
    #[inline(always)]
    pub fn local_port(&self, inbound: bool) -> u16 {
        match (self.protocol, inbound) {
            (ICMP | ICMPV6, _) => 0,
            (_, true) => self.ports[1],
            (_, false) => self.ports[0],
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

    /// Whether it is an ICMP message about a packet that could not be delivered.
    #[inline(always)]
    pub fn is_icmp_error(&self) -> bool {
        let kind = self.ports[0];
        // destination unreachable, source quench, redirect, time exceeded, parameter problem; all types of ICMPv6 below 128
        match self.protocol {
            ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12),
            ICMPV6 => kind < 128,
            _ => false,
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
        opens_connection(self.tcp_flags)
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
            TCP | UDP | UDPLITE | SCTP | DCCP | ICMP | ICMPV6 if !self.first || self.cut => {
                work.values.set_unknown(word::IP_LOCAL_PORT);
                work.values.set_unknown(word::IP_REMOTE_PORT);
            }
            TCP | UDP | UDPLITE | SCTP | DCCP | ICMP | ICMPV6 => {
                work.values.set(word::IP_LOCAL_PORT, local as u32);
                work.values.set(word::IP_REMOTE_PORT, remote as u32);
            }
            _ => {}
        }
        if matches!(self.protocol, ICMP | ICMPV6) {
            // an answer belongs to the flow that its request has begun
            match self.first && !self.cut {
                true => work.values.set(word::ORIGINAL_ICMP_TYPE, self.request().unwrap_or(source) as u32),
                false => work.values.set_unknown(word::ORIGINAL_ICMP_TYPE),
            }
        }
    }
}
