//! Events: what was decided, for those who watch.

use crate::{
    maps::{EVENTS, SEQUENCE},
    words,
    work::Work,
};
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use openwfp_abi::{
    config::DRY_RUN,
    event::{ENFORCED, EventRecord, FAIL_SOCKET, SHOWN, VALUES, kind},
};

/// What a decision is about, besides the values.
pub struct About {
    /// The layer.
    pub layer: u16,
    /// The socket's cookie.
    pub socket: u64,
    /// The flow; 0: none.
    pub flow: u64,
    /// Bits such as [`MAY_WAIT`](crate::work::MAY_WAIT).
    pub flags: u32,
}

/// Reports the classification that was just made, where the layer is recorded or somebody has to act on it.
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn report_event(work: *const Work, layer: u32, socket: u64, flow: u64, flags: u32) -> u32 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let work = unsafe { &*work };
    let mut flags = flags as u8 & FAIL_SOCKET;
    if work.is_recorded(layer as u16) {
        flags |= SHOWN;
    }
    if flags != 0 {
        write(work, kind::CLASSIFY, layer as u16, [socket, flow], flags);
    }
    1
}

/// Reports the end of a flow or of a socket.
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn report_end(work: *const Work, kind: u32, socket: u64, flow: u64) -> u32 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    write(unsafe { &*work }, kind as u8, 0, [socket, flow], SHOWN);
    1
}

#[inline(always)]
fn write(work: &Work, kind: u8, layer: u16, [socket, flow]: [u64; 2], mut flags: u8) {
    let (action, reason, filter) = work.decision();
    if work.flags & DRY_RUN == 0 {
        flags |= ENFORCED;
    }
    let Some(sequence) = SEQUENCE.get_ptr_mut(0) else { return };
    // SAFETY: a valid, aligned map value of this CPU, which is changed by atomic additions only.
    let sequence = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(sequence, 1) };
    // no room: the number is used up all the same, so that the gap shows
    let Some(mut entry) = EVENTS.reserve::<EventRecord>(0) else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is reserved memory of this size; every field is written. The helpers take no arguments.
    unsafe {
        (*record).sequence = sequence;
        (*record).time = bpf_ktime_get_ns();
        (*record).flow = flow;
        (*record).filter = filter;
        (*record).socket = socket;
        (*record).layer = layer;
        (*record).action = action;
        (*record).reason = reason;
        (*record).cpu = bpf_get_smp_processor_id() as u16;
        (*record).flags = flags;
        (*record).kind = kind;
        (*record).generation = work.generation() as u64;
        (*record).drop = work.drop;
        words::copy(&raw const work.identity, &raw mut (*record).identity);
        let mut word = 0;
        while word < VALUES {
            (&raw mut (*record).values[word]).write_volatile(work.values.get(word));
            word += 1;
        }
    }
    entry.submit(0);
}
