//! Flows: what was authorized, until when, and by which policy.
//!
//! A flow of datagrams is kept under its socket and remote endpoint; that of a TCP connection with its socket. Either
//! belongs to the generation of the policy that authorized it. When the filters of that layer have changed since, its
//! next packet is authorized again, whichever way it goes.

use crate::{
    address::Address,
    layers::{FLOW_ESTABLISHED, INBOUND, OUTBOUND},
    maps::FLOWS,
    report::About,
    words as record_words,
    work::{self, OLD_FLOW, Outcome, Work, config},
};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use core::mem::MaybeUninit;
use openwfp_abi::{
    config::AUTHORIZATIONS,
    flow::{Flow, FlowKey, IDLE_NANOSECONDS},
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
    /// It was authorized by filters that have changed since.
    pub const OLD: Self = Self(2);
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
        if now.wrapping_sub((*flow).used) > IDLE_NANOSECONDS && now > (*flow).used {
            return Standing::UNKNOWN.0;
        }
        (*flow).used = now;
        *id = (*flow).id;
        if is_old((*flow).generation, (*flow).authorization) { Standing::OLD.0 } else { Standing::CURRENT.0 }
    }
}

/// Whether the filters of a layer have changed since a generation.
#[inline(always)]
pub fn is_old(generation: u32, authorization: u32) -> bool {
    let Some(config) = config() else { return true };
    // SAFETY: a valid map value; volatile, because the loader changes it while programs run.
    let changed = unsafe { (&raw const config.changed[authorization as usize % AUTHORIZATIONS]).read_volatile() };
    generation < changed
}

/// Whether the policy has changed since the oldest handshake that may be under way was begun.
#[inline(always)]
pub fn changed_lately() -> bool {
    /// A SYN-ACK is sent again for at most so long.
    const HANDSHAKE_NANOSECONDS: u64 = 130_000_000_000;
    let Some(config) = config() else { return true };
    // SAFETY: a valid map value; volatile, because the loader changes it. The helper takes no arguments.
    let (changed, now) = unsafe { ((&raw const config.changed_at).read_volatile(), bpf_ktime_get_coarse_ns()) };
    changed != 0 && now.wrapping_sub(changed) < HANDSHAKE_NANOSECONDS
}

/// Remembers a flow that was authorized. A table that cannot take it, or that gives its place to another, only means that
/// the flow is asked for again.
#[inline(always)]
pub fn remember(work: &Work, key: &FlowKey, id: u64, authorization: u32) {
    // SAFETY: the helper takes no arguments.
    let used = unsafe { bpf_ktime_get_coarse_ns() };
    let _ = FLOWS.insert(key, &Flow { id, generation: work.generation(), authorization, used }, 0);
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
    let mut copy = MaybeUninit::uninit();
    // SAFETY: the caller's.
    let (work, key) = unsafe { (&mut *work, &*copy_key(key, &mut copy)) };
    let direction = if authorization & 2 != 0 { INBOUND } else { OUTBOUND };
    work.values.set(words::DIRECTION, direction);
    let layer = FLOW_ESTABLISHED.of(key.version == 6);
    let outcome = work.decide(&About { layer, socket: key.socket, flow: id, flags: OLD_FLOW });
    if outcome == Outcome::Permitted && kept != 0 {
        remember(work, key, id, authorization);
    }
    outcome.number()
}
