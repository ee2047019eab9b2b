//! What the kernel drops by itself, with its reason: the packets of the group's sockets, and those of a network namespace whose
//! devices are watched. They meet the _DISCARD layer of where they were dropped; they stay dropped whatever is said there.
//!
//! How far a packet had come is read from the packet. On its way in: below its transport header, INBOUND_TRANSPORT, or
//! INBOUND_ICMP_ERROR; a datagram for which its socket had no room, DATAGRAM_DATA; else INBOUND_IPPACKET. With a route to another
//! device: IPFORWARD. On its way out: OUTBOUND_IPPACKET.
//!
//! The tracepoint fires for the whole machine, and in the middle of whatever drops the packet; what is nobody's here leaves at the
//! first tests. What programs of packets drop, ours among them, has a reason of its own and is not met: ours were classified
//! where they happened.

use crate::{
    device::write_forward,
    header::{Header, read_linear},
    icmp::write_embedded_linear,
    kept::{Kept, is_stream},
    layers::{
        DATAGRAM_DATA, INBOUND, INBOUND_ICMP_ERROR, INBOUND_IPPACKET, INBOUND_TRANSPORT, IPFORWARD, Layers, OUTBOUND,
        OUTBOUND_IPPACKET, discard,
    },
    maps::{DROPS, FLOWS},
    memory::{self, Structure},
    offsets::{self as at, Pointer, load, pointer},
    packet_values::{way, write_packet},
    packets::flow_key,
    protocol,
    unix::{DEPTH, is_of_group},
    words as record_words,
    work::{self, OLD_FLOW, config, is_any_active},
};
use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use core::{mem::MaybeUninit, ptr::null};
use openwfp_abi::{
    config::AT_DEVICES,
    drop::class::{IP, NO_ROOM, NOBODY, NOT_MET},
};
use openwfp_engine::words;

/// The layers at which something can be met here: the _DISCARD layers.
const MET: [u16; 12] = [1, 3, 5, 7, 9, 11, 13, 15, 25, 27, 29, 31];

/// States of sockets that are none: a connection that has ended, one that is asked for.
const TIME_WAIT: u8 = 6;
const NEW_REQUEST: u8 = 12;
/// The index of the loopback interface: the routes of what stays here lead there.
const LOOPBACK: u32 = 1;

/// A packet is dropped: `(struct sk_buff *, void *where, enum skb_drop_reason)`, and from Linux 6.11 on the socket that it
/// was for.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kernel_drop(context: BtfTracePointContext) -> i32 {
    let receiver: Pointer = if at::DROP_RECEIVER() != 0 { context.arg(3) } else { null() };
    let _ = dropped(context.arg(0), context.arg::<u64>(2) as u32, receiver);
    0
}

/// Whose a packet is, and where.
#[derive(Clone, Copy)]
struct Drop {
    packet: Pointer,
    class: u32,
    /// Its socket; null: none of the group's.
    socket: Pointer,
    inbound: bool,
    /// The cookie of the network namespace.
    namespace: u64,
}

#[inline(always)]
fn dropped(packet: Pointer, reason: u32, receiver: Pointer) -> Option<()> {
    let config = config()?;
    // SAFETY: a valid map value; volatile, because the loader changes it while programs run.
    let settings = unsafe { (&raw const config.flags).read_volatile() };
    let holder: Pointer = load(packet, at::PACKET_SOCK());
    if !is_any_active(config, &MET) {
        return None;
    }
    if receiver.is_null() && holder.is_null() && settings & AT_DEVICES == 0 {
        return None;
    }
    // SAFETY: a valid map value.
    let class = DROPS.get_ptr(reason).map_or(0, |class| unsafe { *class });
    if class == NOT_MET {
        return None;
    }
    let inbound = load::<u32>(packet, at::PACKET_ARRIVAL()) != 0;
    let candidate = if receiver.is_null() { holder } else { receiver };
    let ours = !candidate.is_null()
        && is_ours(candidate, packet)
        // what comes in over a pair of devices may still have its sender's
        && (!inbound || !receiver.is_null() || is_for(candidate, packet));
    let socket = if ours { candidate } else { null() };
    let namespace = if !receiver.is_null() {
        namespace_of(receiver)
    } else {
        let of_device = device_namespace(packet);
        if of_device == 0 && !holder.is_null() { namespace_of(holder) } else { of_device }
    };
    if socket.is_null() && (settings & AT_DEVICES == 0 || !is_watched(config, namespace)) {
        return None;
    }
    Drop { packet, class, socket, inbound, namespace }.is_met(reason, settings)
}

impl Drop {
    #[inline(always)]
    fn is_met(&self, reason: u32, settings: u64) -> Option<()> {
        let packet = self.packet;
        let head = address(packet, at::PACKET_HEAD());
        let network: u16 = load(packet, at::PACKET_NETWORK());
        let tail: u32 = load(packet, at::PACKET_TAIL());
        let protocol: u16 = load(packet, at::PACKET_PROTOCOL());
        let (start, length) = (head + network as u64, tail.wrapping_sub(network as u32));
        if tail < network as u32 {
            return None;
        }
        let mut header = MaybeUninit::<Header>::uninit();
        // SAFETY: zeros are a header; our own memory.
        let header = unsafe {
            record_words::zero(header.as_mut_ptr());
            if read_linear(start, length, protocol as u32, header.as_mut_ptr()) == 0 {
                return None;
            }
            header.assume_init_ref()
        };
        let v6 = header.source.is_v6();
        let data = address(packet, at::PACKET_DATA());
        // a fragment is dropped before it is put together with others
        let at_transport = !header.fragment && data >= start + header.transport as u64;
        let leaves_by = if self.inbound { route_device(packet) } else { 0 };
        let forwarded = self.inbound
            && self.socket.is_null()
            && !at_transport
            && leaves_by > LOOPBACK
            && header.destination.is_unicast();
        // a number that older verifiers do not know: else each would be followed by itself
        let layer = core::hint::black_box(discard(self.layer(header, at_transport, forwarded).of(v6))?);
        let work = work::begin()?;
        if work.is_active(layer) {
            work.drop = reason as u64;
            let (interface, direction) = match (self.inbound, forwarded) {
                (_, true) => (leaves_by, OUTBOUND),
                (true, _) => (load(packet, at::PACKET_ARRIVAL()), INBOUND),
                (false, _) => (device(packet), OUTBOUND),
            };
            let socket = if self.socket.is_null() { None } else { Some(self.socket.cast_mut().cast()) };
            let mut kept = Kept::of_socket(socket, false);
            kept.compartment = self.namespace;
            work.identify_sender(socket);
            let kind = load::<u8>(packet, at::PACKET_TYPE()) & 7;
            // SAFETY: memory that is claimed, and our own.
            unsafe { write_packet(work, header, &kept, interface, way(direction == INBOUND, kind as u32)) };
            work.values.set(words::DIRECTION, direction);
            if forwarded {
                write_forward(work, header, load(packet, at::PACKET_ARRIVAL()));
            }
            if layer == INBOUND_ICMP_ERROR.of(v6) + 1 {
                // SAFETY: memory that is claimed.
                unsafe { write_embedded_linear(start, length, work, header.transport as u32, v6 as u32) };
            }
            // 0 as long as nobody has asked for it, as the hooks do
            let cookie = if self.socket.is_null() { 0 } else { load(self.socket, at::SOCK_COOKIE()) };
            let mut flow = kept.flow;
            if cookie != 0 && header.first && !is_stream(header, &kept) {
                let key = flow_key(cookie, header, self.inbound, interface, settings);
                // SAFETY: a valid map value.
                flow = FLOWS.get_ptr(&key).map_or(0, |flow| unsafe { (*flow).id });
            }
            // SAFETY: memory that is claimed. The layer is one with filters, as was seen above.
            unsafe { work::decide(work, layer as u32, cookie, flow, OLD_FLOW) };
        }
        work.give_back(work::CLOSED);
        Some(())
    }

    /// The layer that the packet has not passed.
    #[inline(always)]
    fn layer(&self, header: &Header, at_transport: bool, forwarded: bool) -> Layers {
        let tcp = header.protocol == protocol::TCP;
        if !self.inbound {
            OUTBOUND_IPPACKET
        } else if forwarded {
            IPFORWARD
        } else if !at_transport || self.class == IP || self.class == NOBODY && !tcp {
            // a datagram that nobody wants is dropped there on the platform
            INBOUND_IPPACKET
        } else if header.is_icmp_error() {
            INBOUND_ICMP_ERROR
        } else if self.class == NO_ROOM && !tcp && !self.socket.is_null() {
            DATAGRAM_DATA
        } else {
            INBOUND_TRANSPORT
        }
    }
}

/// Whether a socket was made in the command's group.
#[inline(always)]
fn is_ours(socket: Pointer, packet: Pointer) -> bool {
    match load::<u8>(socket, at::SOCK_STATE()) {
        TIME_WAIT => false,
        // SAFETY: a number. Only what goes out has one.
        NEW_REQUEST => unsafe { listener_is_ours(address(packet, at::PACKET_SOCK())) != 0 },
        _ => is_of_group(socket).unwrap_or(false),
    }
}

/// [`is_listener_ours`], verified once.
///
/// # Safety
/// None: what cannot be read is nobody's.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn listener_is_ours(request: u64) -> u32 {
    is_listener_ours(request).unwrap_or(false) as u32
}

/// Whether the socket that a connection was asked of was made in the command's group. Read without types: the member that points to
/// it has others in its place.
#[inline(always)]
fn is_listener_ours(request: u64) -> Option<bool> {
    let mut group = Structure(request).follow(at::SOCK_LISTENER())?.follow(at::SOCK_GROUP())?;
    for _ in 0..DEPTH {
        if group.follow(at::GROUP_NODE())?.read::<u64>(at::NODE_ID())? == at::GROUP_ID() {
            return Some(true);
        }
        group = group.follow(at::GROUP_PARENT())?.follow(at::STATE_GROUP())?;
    }
    Some(false)
}

/// Whether a packet that comes in goes to a socket's port, where the socket is.
#[inline(always)]
fn is_for(socket: Pointer, packet: Pointer) -> bool {
    if namespace_of(socket) != device_namespace(packet) {
        return false;
    }
    let head = address(packet, at::PACKET_HEAD());
    let transport: u16 = load(packet, at::PACKET_TRANSPORT());
    let Some([_, destination]) = memory::read::<[u16; 2]>(head + transport as u64) else { return false };
    u16::from_be(destination) == load::<u16>(socket, at::SOCK_LOCAL_PORT())
}

/// Whether a namespace is the one whose devices are watched.
#[inline(always)]
fn is_watched(config: &openwfp_abi::config::Config, namespace: u64) -> bool {
    // SAFETY: a valid map value; volatile, because the loader changes it while programs run.
    namespace != 0 && unsafe { (&raw const config.namespace).read_volatile() } == namespace
}

/// The cookie of a socket's network namespace; 0: unknown.
#[inline(always)]
fn namespace_of(socket: Pointer) -> u64 {
    if at::SOCK_NAMESPACE() == 0 {
        return 0;
    }
    match pointer(socket, at::SOCK_NAMESPACE()) {
        Some(namespace) => load(namespace, at::NAMESPACE_COOKIE()),
        None => 0,
    }
}

/// The cookie of the network namespace of the packet's device; 0: it has none.
#[inline(always)]
fn device_namespace(packet: Pointer) -> u64 {
    if at::DEVICE_NAMESPACE() == 0 {
        return 0;
    }
    let Some(device) = pointer(packet, at::PACKET_DEVICE()) else { return 0 };
    match pointer(device, at::DEVICE_NAMESPACE()) {
        Some(namespace) => load(namespace, at::NAMESPACE_COOKIE()),
        None => 0,
    }
}

/// The index of the packet's device, or of the one that its route leads to; 0: it has neither.
#[inline(always)]
fn device(packet: Pointer) -> u32 {
    match pointer(packet, at::PACKET_DEVICE()) {
        Some(device) => load(device, at::DEVICE_INDEX()),
        None => route_device(packet),
    }
}

/// The index of the device that the packet's route leads to; 0: it has none.
#[inline(always)]
fn route_device(packet: Pointer) -> u32 {
    /// The lowest bit says who counts the route's users.
    const FLAGS: u64 = 3;
    let route = load::<u64>(packet, at::PACKET_ROUTE()) & !FLAGS;
    if route == 0 {
        return 0;
    }
    let Some(device) = memory::read::<u64>(route + at::ROUTE_DEVICE() as u64) else { return 0 };
    memory::read(device + at::DEVICE_INDEX() as u64).unwrap_or(0)
}

/// A member that is an address of bytes, as a number: loaded it would be a pointer, with which the verifier lets nobody reckon.
#[inline(always)]
fn address(packet: Pointer, offset: usize) -> u64 {
    memory::read(packet as u64 + offset as u64).unwrap_or(0)
}
