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
    event::{ENFORCED, EventRecord, FAIL_SOCKET, SHOWN, VALUES},
};

/// What an event says besides the values and the decision.
pub struct About {
    /// The layer.
    pub layer: u16,
    /// The socket's cookie.
    pub socket: u64,
    /// The flow; 0: none.
    pub flow: u64,
    /// [`FAIL_SOCKET`] or 0.
    pub flags: u8,
}

/// Reports the classification that `work` has just made, where the layer is recorded or somebody has to act on it.
#[inline(always)]
pub fn report(work: &Work, about: &About) {
    let (action, reason, filter) = work.decision();
    let mut flags = about.flags;
    if work.is_recorded(about.layer) {
        flags |= SHOWN;
    }
    if work.flags & DRY_RUN == 0 {
        flags |= ENFORCED;
    }
    if flags & (SHOWN | FAIL_SOCKET) == 0 {
        return;
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
        (*record).flow = about.flow;
        (*record).filter = filter;
        (*record).socket = about.socket;
        (*record).layer = about.layer;
        (*record).action = action;
        (*record).reason = reason;
        (*record).cpu = bpf_get_smp_processor_id() as u16;
        (*record).flags = flags;
        (*record).zero = 0;
        (*record).generation = work.generation() as u64;
        words::copy(&raw const work.identity, &raw mut (*record).identity);
        let mut word = 0;
        while word < VALUES {
            (&raw mut (*record).values[word]).write_volatile(work.values.get(word));
            word += 1;
        }
    }
    entry.submit(0);
}
