//! The frames and packets of a network namespace, at its devices: the MAC layers, IP packets and forwarded packets, and the
//! transport layers of what is this machine's own.
//!
//! A frame that comes in meets INBOUND_MAC_FRAME_ETHERNET and INBOUND_IPPACKET; if it is for this machine, INBOUND_TRANSPORT
//! and for an error INBOUND_ICMP_ERROR too. What is sent by this machine meets OUTBOUND_ICMP_ERROR or OUTBOUND_TRANSPORT, then
//! OUTBOUND_IPPACKET; what is forwarded meets IPFORWARD; both then OUTBOUND_MAC_FRAME_ETHERNET. What came in and leaves in this
//! machine's name (translated, in a tunnel, or by a sender who lies) meets IPFORWARD, and what this machine sends meets then.
//! Fragments are met as they are, one by one: those without a transport header do not meet transport layers, for which the
//! first one stands. What passes several devices (VLANs, bridges, tunnels) meets the layers at each.

use crate::{
    bytes::Bytes,
    counters::count,
    divert,
    header::{Header, read_network},
    icmp::write_embedded,
    inject,
    kept::Kept,
    layers::{
        INBOUND_ICMP_ERROR, INBOUND_IPPACKET, INBOUND_MAC_FRAME_ETHERNET, INBOUND_TRANSPORT, IPFORWARD, IS_FRAGMENT,
        IS_NATIVE_ETHERNET, Layers, OUTBOUND_ICMP_ERROR, OUTBOUND_IPPACKET, OUTBOUND_MAC_FRAME_ETHERNET,
        OUTBOUND_TRANSPORT, forward, mac,
    },
    maps::INTERFACES,
    packet_values::{way, write_packet},
    refuse::is_dry_run,
    report::About,
    route::stays_here,
    work::{self, Outcome, Work},
};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_redirect, bpf_skb_load_bytes_relative},
    macros::classifier,
    programs::TcContext,
};
use core::mem::MaybeUninit;
use openwfp_abi::{
    config::DIVERTS,
    counters::UNREADABLE_PACKETS,
    divert::{FRAME, stage},
};
use openwfp_engine::words;

/// `TC_ACT_UNSPEC`: whoever else watches the device is asked next.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const DROP: i32 = 2;
/// `PACKET_HOST`: the frame was sent to this device alone.
const TO_THIS_HOST: u32 = 0;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
/// The tags of IEEE 802.1Q and 802.1ad.
const VLAN: u32 = 0x8100;
const PROVIDER_VLAN: u32 = 0x88a8;
/// IANA ifType `ethernetCsmacd`.
const ETHERNET: u32 = 6;
/// IANA ifType `softwareLoopback`, whose frames have the same header.
const SOFTWARE_LOOPBACK: u32 = 24;

#[classifier]
pub fn device_in(context: TcContext) -> i32 {
    Frame { context: context.skb.skb, inbound: true, token: 0, from: 0 }.passes()
}

#[classifier]
pub fn device_out(context: TcContext) -> i32 {
    Frame { context: context.skb.skb, inbound: false, token: 0, from: 0 }.passes()
}

/// How many bytes the header of a frame has.
const FRAME_HEADER: u32 = 14;

struct Frame {
    context: *mut __sk_buff,
    inbound: bool,
    /// The number of the token by which it was injected; 0: it was not.
    token: u32,
    /// The stage at which it goes on.
    from: u16,
}

impl Frame {
    #[inline(always)]
    fn passes(&mut self) -> i32 {
        if work::config().is_some_and(|config| config.flags & DIVERTS != 0) && self.was_here() {
            return NEXT;
        }
        let Some(work) = work::begin() else { return if is_dry_run() { NEXT } else { DROP } };
        let outcome = self.decide(work);
        match work.give_back(outcome) {
            // SAFETY: numbers. No device, no error.
            Outcome::Absorbed => unsafe { bpf_redirect(0, 0) as i32 },
            Outcome::Blocked(_) if !is_dry_run() => DROP,
            _ => NEXT,
        }
    }

    /// Finds out whether the frame was injected, and where it goes on. Whether that is behind the layers of this device: what
    /// a socket of the machine is to get has met them.
    #[inline(always)]
    fn was_here(&mut self) -> bool {
        let inbound = if self.inbound { divert::INBOUND } else { 0 };
        // SAFETY: the context is valid; the verifier checks its member. A valid map value.
        unsafe {
            if (*self.context).tc_index == 0 {
                return false;
            }
            // what comes in again over lo goes out there first
            let look = divert::INBOUND | inject::LOOK | if self.inbound { 0 } else { inject::AT_DEVICE };
            if inject::honour(self.context, FRAME_HEADER, look) != 0 {
                return true;
            }
            self.token = inject::honour(self.context, FRAME_HEADER, inbound | inject::AT_DEVICE);
            let Some(token) = inject::token(self.token) else { return false };
            (*self.context).tc_index = 0;
            self.from = (*token).stage;
        }
        false
    }

    /// Whether a layer is behind the frame already.
    #[inline(always)]
    fn is_behind(&self, stage: u16) -> bool {
        stage < self.from
    }

    #[inline(always)]
    fn decide(&self, work: &mut Work) -> Outcome {
        if let Some(token) = inject::token(self.token) {
            // SAFETY: a valid map value.
            work.injector = unsafe { (*token).injector } as u64;
        }
        if self.inbound {
            let outcome = self.frame(work, INBOUND_MAC_FRAME_ETHERNET, stage::DEVICE_IN_FRAME);
            if outcome != Outcome::Permitted {
                return outcome;
            }
            return self.packet(work);
        }
        let outcome = self.packet(work);
        if outcome != Outcome::Permitted {
            return outcome;
        }
        self.frame(work, OUTBOUND_MAC_FRAME_ETHERNET, stage::DEVICE_OUT_FRAME)
    }

    /// The packet in the frame, if it is one of IP.
    #[inline(always)]
    fn packet(&self, work: &mut Work) -> Outcome {
        // SAFETY: the context is valid; the verifier checks the members.
        let (protocol, interface, from, kind) = unsafe {
            let context = self.context;
            // in this order: one load must not stand for both
            let mut from = core::hint::black_box((*context).ingress_ifindex);
            if let Some(token) = inject::token(self.token) {
                from = (&raw const (*token).arrival).read_volatile();
            }
            ((*context).protocol, (*context).ifindex, from, (*context).pkt_type)
        };
        let protocol = u16::from_be(protocol as u16) as u32;
        if protocol != IPV4 && protocol != IPV6 {
            if !self.hides_a_packet(protocol) {
                return Outcome::Permitted;
            }
            let outcome = self.unreadable(work, false);
            return if outcome == Outcome::Permitted { self.unreadable(work, true) } else { outcome };
        }
        let mut memory = MaybeUninit::uninit();
        let Some(header) = read_network(self.context, &mut memory) else {
            return self.unreadable(work, protocol == IPV6);
        };
        self.identify(work);
        let kept = Kept::of_namespace(work.namespace());
        // SAFETY: memory that is claimed, and our own.
        unsafe { write_packet(work, header, &kept, interface, way(self.inbound, kind)) };
        let v6 = header.source.is_v6();
        if self.inbound {
            let outcome = self.meets(work, INBOUND_IPPACKET, v6, stage::DEVICE_IN_IPPACKET);
            // what comes in by broadcast or multicast is not forwarded by the kernel
            let own = kind != TO_THIS_HOST
                || header.destination.is_local(work, work.namespace())
                // SAFETY: the context is valid; a header of our own.
                || unsafe { stays_here(self.context, header, interface) } != 0;
            if outcome != Outcome::Permitted || !own || !header.first {
                return outcome;
            }
            if header.cut {
                return self.cut(work, INBOUND_TRANSPORT, INBOUND_ICMP_ERROR, v6);
            }
            // the first fragment stands for its datagram
            work.values.set(words::FLAGS, work.values.get(words::FLAGS) as u32 & !IS_FRAGMENT);
            let outcome = self.meets(work, INBOUND_TRANSPORT, v6, stage::DEVICE_IN_TRANSPORT);
            if outcome != Outcome::Permitted || !header.is_icmp_error() {
                return outcome;
            }
            // SAFETY: the context is valid; memory that is claimed.
            unsafe { write_embedded(self.context, work, header.transport as u32, v6 as u32) };
            return self.meets(work, INBOUND_ICMP_ERROR, v6, stage::DEVICE_IN_ERROR);
        }
        if from != 0 {
            let outcome = self.forwarded(work, header, from, v6);
            if outcome != Outcome::Permitted || !header.source.is_local(work, work.namespace()) {
                return outcome;
            }
            // SAFETY: as above.
            unsafe { write_packet(work, header, &kept, interface, 0) };
        }
        if header.cut {
            let outcome = self.cut(work, OUTBOUND_TRANSPORT, OUTBOUND_ICMP_ERROR, v6);
            if outcome != Outcome::Permitted {
                return outcome;
            }
        } else if header.first {
            let outcome = match header.is_icmp_error() {
                true => self.meets(work, OUTBOUND_ICMP_ERROR, v6, stage::DEVICE_OUT_ERROR),
                false => Outcome::Permitted,
            };
            if outcome != Outcome::Permitted {
                return outcome;
            }
            let outcome = self.meets(work, OUTBOUND_TRANSPORT, v6, stage::DEVICE_OUT_TRANSPORT);
            if outcome != Outcome::Permitted {
                return outcome;
            }
        }
        self.meets(work, OUTBOUND_IPPACKET, v6, stage::DEVICE_OUT_IPPACKET)
    }

    /// IPFORWARD.
    #[inline(always)]
    fn forwarded(&self, work: &mut Work, header: &Header, from: u32, v6: bool) -> Outcome {
        write_forward(work, header, from);
        self.meets(work, IPFORWARD, v6, stage::DEVICE_OUT_FORWARD)
    }

    /// A packet whose headers of IP are cut, or nest too deep: dropped where a layer would have had to look at it.
    #[inline(always)]
    fn unreadable(&self, work: &Work, v6: bool) -> Outcome {
        let layers = if self.inbound {
            [INBOUND_IPPACKET, INBOUND_TRANSPORT, INBOUND_ICMP_ERROR]
        } else {
            [OUTBOUND_IPPACKET, OUTBOUND_TRANSPORT, IPFORWARD]
        };
        if layers.iter().any(|layers| work.is_active(layers.of(v6))) { self.closed() } else { Outcome::Permitted }
    }

    /// A packet whose transport header is cut: dropped where one of its layers would have had to look at it.
    #[inline(always)]
    fn cut(&self, work: &Work, transport: Layers, errors: Layers, v6: bool) -> Outcome {
        let looks = work.is_active(transport.of(v6)) || work.is_active(errors.of(v6));
        if looks { self.closed() } else { Outcome::Permitted }
    }

    /// Dropped, and counted: what it says cannot be read.
    #[inline(always)]
    fn closed(&self) -> Outcome {
        count(UNREADABLE_PACKETS);
        work::CLOSED
    }

    /// Whether a frame that comes in holds a packet that the kernel finds behind these programs, and no program would meet: where
    /// two tags stand one behind the other that name no VLAN (but a priority alone), it takes out the second one too.
    #[inline(always)]
    fn hides_a_packet(&self, protocol: u32) -> bool {
        const NAMES: u32 = 0xfff;
        // SAFETY: the context is valid; the verifier checks the members.
        let (tag, tagged) = unsafe { ((*self.context).vlan_tci, (*self.context).vlan_present) };
        if !self.inbound || !is_tag(protocol) || tagged != 0 && tag & NAMES != 0 {
            return false;
        }
        // cut: the kernel drops it
        let Some([tag, inner]) = self.context.load::<[u16; 2]>(0) else { return false };
        let inner = u16::from_be(inner) as u32;
        u16::from_be(tag) as u32 & NAMES == 0 && (inner == IPV4 || inner == IPV6 || is_tag(inner))
    }

    #[inline(always)]
    fn meets(&self, work: &mut Work, layers: Layers, v6: bool, stage: u16) -> Outcome {
        if self.is_behind(stage) {
            return Outcome::Permitted;
        }
        let about = About { layer: layers.of(v6), socket: 0, flow: 0, flags: 0 };
        divert::meet(self.context, work, &about, stage, self.way(work), true)
    }

    /// Which way the frame goes, and whether it begins with the header of a frame.
    #[inline(always)]
    fn way(&self, work: &Work) -> u16 {
        let mut way = if self.inbound { divert::INBOUND as u16 } else { 0 };
        if work.flags & DIVERTS != 0 {
            // SAFETY: the context is valid; a valid map value.
            let interface = unsafe { (*self.context).ifindex };
            let kind = INTERFACES.get_ptr(&interface).map_or(0, |known| unsafe { (*known).kind });
            if kind == ETHERNET || kind == SOFTWARE_LOOPBACK {
                way |= FRAME;
            }
        }
        way
    }

    /// The layer of the frame, of Ethernet alone.
    #[inline(always)]
    fn frame(&self, work: &mut Work, layer: u16, stage: u16) -> Outcome {
        if !work.is_active(layer) || self.is_behind(stage) {
            return Outcome::Permitted;
        }
        // SAFETY: the context is valid; the verifier checks the members.
        let (interface, protocol, tag, tagged) = unsafe {
            let context = self.context;
            ((*context).ifindex, (*context).protocol, (*context).vlan_tci, (*context).vlan_present)
        };
        // SAFETY: a valid map value.
        let known = INTERFACES.get_ptr(&interface).map(|known| unsafe { ((*known).kind, (*known).address) });
        if known.is_some_and(|(kind, _)| kind != ETHERNET) {
            return Outcome::Permitted;
        }
        let Some(addresses) = self.addresses() else { return self.closed() };
        work.clear();
        self.identify(work);
        work.write_interface(words::INTERFACE_INDEX, interface, work.namespace());
        work.write_compartment(work.namespace());
        let [destination, source] = addresses;
        let (local, remote) = if self.inbound { (destination, source) } else { (source, destination) };
        if let Some((_, address)) = known {
            work.values.set_u64(mac::INTERFACE_MAC_ADDRESS, address);
        }
        work.values.set_u64(mac::MAC_LOCAL_ADDRESS, local);
        work.values.set_u64(mac::MAC_REMOTE_ADDRESS, remote);
        work.values.set(mac::MAC_LOCAL_ADDRESS_TYPE, address_type(local));
        work.values.set(mac::MAC_REMOTE_ADDRESS_TYPE, address_type(remote));
        let mut kind = u16::from_be(protocol as u16) as u32;
        // with its priority, as the field has it
        if tagged != 0 {
            work.values.set(mac::VLAN_ID, tag & 0xffff);
        } else if is_tag(kind) {
            // the kernel takes it out of what comes in, and puts it into what goes out only behind these programs: whoever
            // sends frames by himself has put it there
            let Some([tag, inner]) = self.load::<[u16; 2]>(14) else { return self.closed() };
            work.values.set(mac::VLAN_ID, u16::from_be(tag) as u32);
            kind = u16::from_be(inner) as u32;
        }
        work.values.set(mac::ETHER_TYPE, kind);
        work.values.set(mac::NDIS_PORT, 0);
        work.values.set(mac::L2_FLAGS, IS_NATIVE_ETHERNET);
        work.kept = 0;
        work.compartment = work.namespace();
        let about = About { layer, socket: 0, flow: 0, flags: 0 };
        divert::meet(self.context, work, &about, stage, self.way(work), true)
    }

    /// Destination and source of the frame, each as a number of 48 bits.
    #[inline(always)]
    fn addresses(&self) -> Option<[u64; 2]> {
        let [a, b, c] = self.load::<[u32; 3]>(0)?.map(u32::from_be);
        let destination = (a as u64) << 16 | (b >> 16) as u64;
        let source = ((b & 0xffff) as u64) << 32 | c as u64;
        Some([destination, source])
    }

    /// A value of integers at an offset of the frame.
    #[inline(always)]
    fn load<T: Copy>(&self, offset: u32) -> Option<T> {
        const FROM_MAC_HEADER: u32 = 0;
        let mut value = MaybeUninit::<T>::uninit();
        let (place, size) = (value.as_mut_ptr().cast(), size_of::<T>() as u32);
        // SAFETY: the helper writes exactly the size of `T`, or fails.
        let result = unsafe { bpf_skb_load_bytes_relative(self.context.cast(), offset, place, size, FROM_MAC_HEADER) };
        // SAFETY: the helper has written it.
        if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }

    /// Who owns the socket that the frame comes from, where the programs have kept that.
    #[inline(always)]
    fn identify(&self, work: &mut Work) {
        if let Some(token) = inject::token(self.token) {
            // SAFETY: a valid map value.
            work.identify(unsafe { &raw const (*token).identity });
            return;
        }
        // SAFETY: the context is valid; the verifier checks the member.
        let socket: *mut bpf_sock = unsafe { (*self.context).__bindgen_anon_2.sk };
        work.identify_sender(if socket.is_null() { None } else { Some(socket) });
    }
}

/// Whether it is the type of a frame with a tag.
#[inline(always)]
fn is_tag(kind: u32) -> bool {
    kind == VLAN || kind == PROVIDER_VLAN
}

/// The values of a forwarded packet, whose values as one that leaves stand there already; the interface that it came by. Source
/// and destination stand where other layers have the local and the remote side.
#[inline(always)]
pub fn write_forward(work: &mut Work, header: &Header, from: u32) {
    header.source.write(work, words::IP_LOCAL_ADDRESS);
    header.destination.write(work, words::IP_REMOTE_ADDRESS);
    work.write_interface(words::ARRIVAL_INTERFACE_INDEX, from, work.namespace());
    for word in 0..2 {
        work.values.copy(words::IP_NEXTHOP_INTERFACE + word, forward::IP_FORWARD_INTERFACE + word);
    }
    // the interface that forwards is the one it came by
    work.values.copy(words::IP_ARRIVAL_INTERFACE, words::IP_LOCAL_INTERFACE);
    work.values.copy(words::IP_ARRIVAL_INTERFACE + 1, words::IP_LOCAL_INTERFACE + 1);
    work.values.copy(words::ARRIVAL_INTERFACE_INDEX, words::SUB_INTERFACE_INDEX);
}

/// The type of a MAC address: `DlUnicast`, `DlMulticast` or `DlBroadcast`.
#[inline(always)]
fn address_type(address: u64) -> u32 {
    match address {
        0xffff_ffff_ffff => 2,
        _ if address >> 40 & 1 != 0 => 1,
        _ => 0,
    }
}
