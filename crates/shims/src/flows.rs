//! Flows: what was authorized, until when, and by which policy.
//!
//! A flow of datagrams is kept under its socket and remote endpoint; that of a TCP connection with its socket. Either
//! belongs to the generation of the policy that authorized it. When the filters of that layer have changed since, its
//! next packet is authorized again, whichever way it goes. So it is when interfaces or addresses have come or gone.
//!
//! A flow that is refused then has ended. One of datagrams is remembered as refused for as long as it would be remembered
//! otherwise: the other side's next datagram does not begin a flow of its own.

use crate::{
    address::Address,
    layers::{FLOW_ESTABLISHED, INBOUND, NEW_ARRIVAL_INTERFACE, NEW_NEXTHOP_INTERFACE, OUTBOUND, POLICY_CHANGE},
    maps::FLOWS,
    offsets as at,
    report::About,
    words as record_words,
    work::{self, OLD_FLOW, Outcome, Work, config},
};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use core::mem::MaybeUninit;
use openwfp_abi::{
    config::AUTHORIZATIONS,
    flow::{Flow, FlowKey},
};
use openwfp_engine::words;

/// The key of flows of a socket to an address: any port, whatever the local side.
#[inline(always)]
pub fn key(socket: u64, remote: &Address, protocol: u8, version: u8) -> FlowKey {
    // LLVM would make a call to `memset` of zeros that it knows
    let zero = core::hint::black_box(0u32);
    FlowKey {
        socket,
        address: remote.key(),
        local: [zero, zero, zero, zero],
        interface: zero,
        port: zero as u16,
        local_port: zero as u16,
        protocol,
        version,
        kind: zero as u16,
        zero,
    }
}

/// What is known of a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Standing(u32);

impl Standing {
    /// It is not known, or was idle for too long.
    pub const UNKNOWN: Self = Self(0);
    /// It is authorized.
    pub const CURRENT: Self = Self(1);
    /// It was authorized before a change.
    pub const OLD: Self = Self(2);
    /// It was refused after a change.
    pub const REFUSED: Self = Self(3);
}

/// How a flow stands, which counts as used now; and its id.
#[inline(always)]
pub fn standing(key: &FlowKey, id: &mut u64) -> Standing {
    // SAFETY: our own memory.
    Standing(unsafe { flow_standing(key, id) })
}

/// Copies a key into the caller's own memory: Linux 6.1 takes no key of a map from another's.
///
/// # Safety
/// `key` is valid.
#[inline(always)]
pub unsafe fn copy_key(key: *const FlowKey, to: &mut MaybeUninit<FlowKey>) -> &mut FlowKey {
    // SAFETY: the caller's; all of it is written.
    unsafe {
        record_words::copy(key, to.as_mut_ptr());
        to.assume_init_mut()
    }
}

/// [`standing`], verified once.
///
/// # Safety
/// Both pointers are valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn flow_standing(key: *const FlowKey, id: *mut u64) -> u32 {
    if key.is_null() || id.is_null() {
        return Standing::UNKNOWN.0;
    }
    let mut copy = MaybeUninit::uninit();
    // SAFETY: the caller's.
    let key = unsafe { copy_key(key, &mut copy) };
    let Some(flow) = FLOWS.get_ptr_mut(&*key) else { return Standing::UNKNOWN.0 };
    // SAFETY: the helper takes no arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: a valid map value; one of several times that are written at once is as good as another.
    unsafe {
        if now.wrapping_sub((*flow).used) > at::FLOW_IDLE() && now > (*flow).used {
            return Standing::UNKNOWN.0;
        }
        let old = changes((*flow).generation, (*flow).network, (*flow).authorization) != 0;
        if (*flow).refused != 0 {
            // what may be permitted again is another flow
            return if old { Standing::UNKNOWN.0 } else { Standing::REFUSED.0 };
        }
        (*flow).used = now;
        *id = (*flow).id;
        if old { Standing::OLD.0 } else { Standing::CURRENT.0 }
    }
}

/// Brings a flow that is not known under its key there from the key that it had under another policy, which looked at its
/// local side or interface where this one does not, or did not where this one does. Whether there was one. Verified once.
///
/// That of several local sides which comes first takes the flow over; the others are asked for as flows of their own.
///
/// # Safety
/// Both pointers are valid. `place` holds the local port in its low 16 bits and the interface in its high 32.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn adopt_flow(key: *const FlowKey, local: *const Address, place: u64) -> u32 {
    if key.is_null() || local.is_null() {
        return 0;
    }
    // one after the other in the same memory: the stack is short
    let mut copy = MaybeUninit::uninit();
    // SAFETY: the caller's.
    let old = unsafe { copy_key(key, &mut copy) };
    // LLVM would make a call to `memset` of zeros that it knows
    let zero = core::hint::black_box(0u32);
    for sides in 0..4 {
        if sides & 1 != 0 {
            // SAFETY: the caller's.
            old.local = unsafe { (*local).key() };
            old.local_port = place as u16;
        } else {
            old.local = [zero, zero, zero, zero];
            old.local_port = zero as u16;
        }
        old.interface = if sides & 2 != 0 { (place >> 32) as u32 } else { zero };
        let Some(flow) = FLOWS.get_ptr(&*old) else { continue };
        // SAFETY: a valid map value; as good as it was at some time.
        let flow = unsafe { *flow };
        let _ = FLOWS.remove(&*old);
        // SAFETY: the caller's.
        let new = unsafe { copy_key(key, &mut copy) };
        // one that finds no room is asked for again
        return FLOWS.insert(&*new, &flow, 0).is_ok() as u32;
    }
    0
}

/// The filters of the layer have changed.
const FILTERS: u32 = 1;
/// Interfaces or addresses have come or gone, or another interface is used.
pub const NETWORK: u32 = 2;

/// What has changed since a flow was authorized; 0: nothing that it was authorized by.
#[inline(always)]
pub fn changes(generation: u32, network: u32, authorization: u32) -> u32 {
    let Some(config) = config() else { return FILTERS };
    // SAFETY: a valid map value; volatile, because the loader changes it while programs run.
    let (changed, now) = unsafe {
        let changed = &raw const config.changed[authorization as usize % AUTHORIZATIONS];
        (changed.read_volatile(), (&raw const config.network).read_volatile())
    };
    let filters = if generation < changed { FILTERS } else { 0 };
    filters | if network != now { NETWORK } else { 0 }
}

/// The reasons for which a packet has its flow authorized again, as the platform numbers them. Of interfaces it knows those
/// by which packets arrive and those by which they leave; which one it is, the packet says.
#[inline(always)]
pub fn reasons(changes: u32, inbound: bool) -> u32 {
    let policy = if changes & FILTERS != 0 { POLICY_CHANGE } else { 0 };
    let interface = if inbound { NEW_ARRIVAL_INTERFACE } else { NEW_NEXTHOP_INTERFACE };
    policy | if changes & NETWORK != 0 { interface } else { 0 }
}

/// Whether the filters of a layer have changed since the oldest handshake that may be under way was begun.
#[inline(always)]
pub fn changed_lately(authorization: u32) -> bool {
    let Some(config) = config() else { return true };
    is_lately(&raw const config.changed_at[authorization as usize % AUTHORIZATIONS])
}

/// Whether interfaces or addresses have changed since then.
#[inline(always)]
pub fn network_changed_lately() -> bool {
    let Some(config) = config() else { return true };
    is_lately(&raw const config.network_at)
}

#[inline(always)]
fn is_lately(time: *const u64) -> bool {
    /// A SYN-ACK is sent again for at most so long.
    const HANDSHAKE_NANOSECONDS: u64 = 130_000_000_000;
    // SAFETY: a member of a valid map value; volatile, because the loader changes it. The helper takes no arguments.
    let (changed, now) = unsafe { (time.read_volatile(), bpf_ktime_get_coarse_ns()) };
    changed != 0 && now.wrapping_sub(changed) < HANDSHAKE_NANOSECONDS
}

/// Remembers a flow that was authorized. A table that cannot take it, or that gives its place to another, only means that
/// the flow is asked for again.
#[inline(always)]
pub fn remember(work: &Work, key: &FlowKey, id: u64, authorization: u32) {
    insert(work, key, id, authorization, 0);
}

/// Remembers a flow that was refused.
#[inline(always)]
pub fn remember_refused(work: &Work, key: &FlowKey, id: u64, authorization: u32) {
    insert(work, key, id, authorization, 1);
}

#[inline(always)]
fn insert(work: &Work, key: &FlowKey, id: u64, authorization: u32, refused: u32) {
    // SAFETY: memory that is claimed, and our own.
    unsafe { insert_flow(work, key, id, authorization, refused) };
}

/// [`insert`], verified once, with a copy of the key on a stack of its own.
///
/// # Safety
/// `work` is claimed memory; `key` is valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn insert_flow(
    work: *const Work,
    key: *const FlowKey,
    id: u64,
    authorization: u32,
    refused: u32,
) -> u32 {
    if work.is_null() || key.is_null() {
        return 0;
    }
    let mut copy = MaybeUninit::uninit();
    // SAFETY: the caller's; the helper takes no arguments.
    let (work, key, used) = unsafe { (&*work, copy_key(key, &mut copy), bpf_ktime_get_coarse_ns()) };
    let (generation, network) = (work.generation(), work.network());
    FLOWS.insert(&*key, &Flow { id, generation, authorization, used, network, refused }, 0).is_ok() as u32
}

/// ALE_FLOW_ESTABLISHED of a flow that was just authorized, with the values of the authorization; then it is remembered.
#[inline(always)]
pub fn establish(work: &mut Work, key: &FlowKey, id: u64, authorization: u32, kept: bool) -> Outcome {
    // SAFETY: memory that is claimed, and our own.
    Outcome::of_number(unsafe { establish_flow(work, key, id, authorization, kept as u32) })
}

/// [`establish`], verified once.
///
/// # Safety
/// `work` is claimed memory; `key` is valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn establish_flow(
    work: *mut Work,
    key: *const FlowKey,
    id: u64,
    authorization: u32,
    kept: u32,
) -> u32 {
    if work.is_null() || key.is_null() {
        return work::CLOSED.number();
    }
    // SAFETY: the caller's.
    let (work, key) = unsafe { (&mut *work, &*key) };
    let direction = if authorization & 2 != 0 { INBOUND } else { OUTBOUND };
    work.values.set(words::DIRECTION, direction);
    let layer = FLOW_ESTABLISHED.of(key.version == 6);
    let outcome = work.decide(&About { layer, socket: key.socket, flow: id, flags: OLD_FLOW });
    if outcome == Outcome::Permitted && kept != 0 {
        remember(work, key, id, authorization);
    }
    outcome.number()
}
