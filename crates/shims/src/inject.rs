//! Packets that user space sends back: from our own device to where they go on, once, and nobody else's.

use crate::{
    counters::count,
    divert::{DIVERT, INBOUND, TOKENS, meet},
    header::read,
    kept::{Kept, is_stream},
    layers::{OUTBOUND, OUTBOUND_ICMP_ERROR, OUTBOUND_IPPACKET, OUTBOUND_TRANSPORT},
    offsets as at,
    packet_values::write_packet,
    packets::data_layer,
    refuse::is_dry_run,
    report::About,
    work::{self, CLOSED, OLD_FLOW, Outcome, Work, config},
};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{
        bpf_get_socket_cookie, bpf_redirect, bpf_redirect_neigh, bpf_skb_load_bytes, bpf_skb_vlan_push,
    },
    macros::classifier,
    programs::TcContext,
};
use core::{
    intrinsics::{AtomicOrdering, atomic_xchg},
    mem::MaybeUninit,
};
use openwfp_abi::{
    config::AT_DEVICES,
    counters::{DIVERT_FORGED, INJECTED},
    divert::{ADDRESSED, FRAME, TOKENS as TOKENS_COUNT, Token, stage},
};
use openwfp_engine::words;

/// `TC_ACT_UNSPEC`, `TC_ACT_SHOT`.
const NEXT: i32 = -1;
const DROP: i32 = 2;
const LOOPBACK: u32 = 1;
const BPF_F_INGRESS: u64 = 1;

/// The token of a packet that user space has injected.
#[inline(always)]
pub fn token(number: u32) -> Option<*mut Token> {
    if number == 0 { None } else { TOKENS.get_ptr_mut((number - 1) & (TOKENS_COUNT - 1)) }
}

/// A flag of [`honour`]: at a device, also what goes on there.
pub const AT_DEVICE: u32 = 1 << 16;
/// A flag of [`honour`]: it is only looked at.
pub const LOOK: u32 = 1 << 17;

/// Whether a packet is one that user space has injected, and goes on here: the number of its token, once. 0: it is not.
///
/// # Safety
/// `packet` is the context of a program.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn honour(packet: *mut __sk_buff, offset: u32, flags: u32) -> u32 {
    // SAFETY: the context is valid; the verifier checks the members.
    let (number, interface, protocol) = unsafe { ((*packet).tc_index, (*packet).ifindex, (*packet).protocol) };
    let Some(token) = token(number) else { return 0 };
    // SAFETY: a valid map value, which user space writes before the token itself.
    unsafe {
        let at_device = (*token).stage >= stage::DEVICE_IN_FRAME;
        if (*token).interface != interface
            || (*token).flags as u32 & INBOUND != flags & INBOUND
            || at_device && flags & AT_DEVICE == 0
            || (*token).sign != sign(packet, offset, protocol)
        {
            return 0;
        }
        let place = &raw mut (*token).under_way;
        if flags & LOOK != 0 {
            return if place.read_volatile() == 1 { number } else { 0 };
        }
        if atomic_xchg::<u32, { AtomicOrdering::SeqCst }>(place, 0) == 1 { number } else { 0 }
    }
}

/// The bytes of a packet that tell it.
#[inline(always)]
unsafe fn sign(packet: *mut __sk_buff, offset: u32, protocol: u32) -> u64 {
    let mut value = 0u64;
    let at = offset + Token::sign(u16::from_be(protocol as u16));
    // SAFETY: the helper writes eight bytes, or fails.
    let result = unsafe { bpf_skb_load_bytes(packet.cast(), at, (&raw mut value).cast(), 8) };
    if result == 0 { value } else { 0 }
}

const FRAME_HEADER: u32 = 14;

/// Packets that leave our own device, by which user space injects: from there to where they go on.
#[classifier]
pub fn divert_inject(context: TcContext) -> i32 {
    let packet = context.skb.skb;
    // SAFETY: the context is valid; the verifier checks the members.
    unsafe {
        let (mark, protocol) = ((*packet).mark, (*packet).protocol);
        // nobody else can send from our socket
        let ours = DIVERT.get(0).is_some_and(|divert| {
            let injector = (&raw const divert.injector).read_volatile();
            injector != 0 && injector == bpf_get_socket_cookie(packet.cast())
        });
        let Some(token) = TOKENS.get_ptr_mut(mark & (TOKENS_COUNT - 1)) else { return DROP };
        let flags = (*token).flags;
        let interface = (*token).interface;
        if !ours
            || mark == 0
            || (*token).sign != sign(packet, FRAME_HEADER, protocol)
            || (&raw const (*token).token).read_volatile() != mark
            || atomic_xchg::<u32, { AtomicOrdering::SeqCst }>(&raw mut (*token).token, 0) != mark
        {
            count(DIVERT_FORGED);
            return DROP;
        }
        (&raw mut (*token).under_way).write_volatile(1);
        (*packet).mark = (*token).mark;
        (*packet).priority = (*token).priority;
        (*packet).tc_index = (mark & (TOKENS_COUNT - 1)) + 1;
        let tag = (*token).vlan_protocol;
        if tag != 0 && bpf_skb_vlan_push(packet, tag.to_be(), (*token).vlan) != 0 {
            return DROP;
        }
        count(INJECTED);
        if interface == LOOPBACK {
            // so that a route hangs on it: without, 127/8 is refused where it comes in
            return bpf_redirect_neigh(LOOPBACK, core::ptr::null_mut(), 0, 0) as i32;
        }
        if flags as u32 & INBOUND != 0 {
            return bpf_redirect(interface, BPF_F_INGRESS) as i32;
        }
        if flags & (FRAME | ADDRESSED) != 0 {
            return bpf_redirect(interface, 0) as i32;
        }
        bpf_redirect_neigh(interface, core::ptr::null_mut(), 0, 0) as i32
    }
}

/// Takes out what was diverted at a socket and leaves, and lets what comes back go on from there.
#[classifier]
pub fn divert_out(context: TcContext) -> i32 {
    let packet = context.skb.skb;
    // SAFETY: the context is valid; the verifier checks the members. The helper takes numbers.
    unsafe {
        if (*packet).mark == at::DIVERT_MARK() {
            // no device, no error: TCX_DROP would tell TCP that the network is congested
            return bpf_redirect(0, 0) as i32;
        }
        if (*packet).tc_index == 0 || config().is_none_or(|config| config.flags & AT_DEVICES != 0) {
            return NEXT;
        }
        let number = honour(packet, FRAME_HEADER, 0);
        if number == 0 {
            return NEXT;
        }
        (*packet).tc_index = 0;
        let Some(work) = work::begin() else { return if is_dry_run() { NEXT } else { DROP } };
        let outcome = goes_on(packet, work, number);
        let outcome = Outcome::of_number(outcome);
        match work.give_back(outcome) {
            Outcome::Absorbed => bpf_redirect(0, 0) as i32,
            Outcome::Blocked(_) if !is_dry_run() => DROP,
            _ => NEXT,
        }
    }
}

/// A packet that was diverted where it left and was looped back before its device: those to groups and to everybody are.
#[classifier]
pub fn divert_in(context: TcContext) -> i32 {
    // SAFETY: the context is valid; the verifier checks the member. The helper takes numbers.
    unsafe { if (*context.skb.skb).mark == at::DIVERT_MARK() { bpf_redirect(0, 0) as i32 } else { NEXT } }
}

/// The layers of a socket's packet from the one on at which its token says that it goes on. Verified once.
///
/// # Safety
/// `packet` is the context of a program; `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn goes_on(packet: *mut __sk_buff, work: *mut Work, number: u32) -> u32 {
    let Some(token) = token(number) else { return CLOSED.number() };
    if work.is_null() {
        return CLOSED.number();
    }
    // SAFETY: the caller's; a valid map value.
    let (work, from, flow, socket) = unsafe { (&mut *work, (*token).stage, (*token).flow, (*token).socket) };
    if from >= stage::OUT_DONE {
        return Outcome::Permitted.number();
    }
    let mut memory = MaybeUninit::uninit();
    let Some(header) = read(packet, &mut memory) else { return CLOSED.number() };
    // SAFETY: the context is valid; memory that is claimed; a valid map value.
    unsafe {
        work.injector = (*token).injector as u64;
        work.identify(&raw const (*token).identity);
        let kept = Kept::with_flags((*token).compartment, (*token).kept);
        write_packet(work, header, &kept, (*packet).ifindex, 0);
        work.values.set(words::DIRECTION, OUTBOUND);
        let data = data_layer(header, is_stream(header, &kept), OUTBOUND_ICMP_ERROR);
        for (place, layers) in [(stage::OUT_DATA, data), (1, OUTBOUND_TRANSPORT), (2, OUTBOUND_IPPACKET)] {
            if place < from {
                continue;
            }
            let layer = layers.of(header.source.is_v6());
            let about = About { layer, socket, flow, flags: OLD_FLOW };
            let outcome = meet(packet, work, &about, place, FRAME, true);
            if outcome != Outcome::Permitted {
                return outcome.number();
            }
        }
    }
    Outcome::Permitted.number()
}
