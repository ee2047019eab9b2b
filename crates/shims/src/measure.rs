//! Classifications that are made to be measured, of values that the loader gives.
//!
//! The program is attached to nothing: the loader runs it (`BPF_PROG_TEST_RUN`). It decides by the same
//! [`work::classify`] as the hooks, so that what it takes and what it answers is what a hook would take and answer.

use crate::{
    words,
    work::{self, Outcome, Work},
};
use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_loop},
    macros::{map, raw_tracepoint},
    maps::Array,
    programs::RawTracePointContext,
};
use core::ffi::c_void;
use openwfp_abi::measure::{BATCH, BLOCK, LATE, Measurement, PERMIT, WORDS};
use openwfp_engine::Values;

#[map]
static MEASUREMENTS: Array<Measurement> = Array::with_max_entries(BATCH, 0);

/// Where a run is.
struct Batch {
    work: *mut Work,
    run: u64,
    layer: u64,
}

/// Classifies the first of the values in the map: `(layer, count, run)`.
#[raw_tracepoint]
pub fn measure(context: RawTracePointContext) -> u32 {
    let (layer, count, run): (u64, u64, u64) = (context.arg(0), context.arg(1), context.arg(2));
    work::with(|work| {
        let mut batch = Batch { work, run, layer };
        // SAFETY: the callback gets a pointer to `batch`, which lives until the call returns.
        unsafe { bpf_loop(count as u32, one as *mut c_void, (&raw mut batch).cast(), 0) };
        Outcome::Permitted
    });
    0
}

/// One classification; 1 ends the run.
extern "C" fn one(number: u32, batch: *mut c_void) -> i64 {
    let Some(record) = MEASUREMENTS.get_ptr_mut(number) else { return 1 };
    // SAFETY: `measure` hands over a valid batch, with memory that it has claimed.
    let (batch, work) = unsafe {
        let batch = &*batch.cast::<Batch>();
        (batch, &mut *batch.work)
    };
    const { assert!(size_of::<Values>() == size_of::<[u64; WORDS]>()) };
    // SAFETY: a valid map value, which nobody changes during a run; values are words and nothing else.
    unsafe { words::copy(&raw const (*record).values, (&raw mut work.values).cast::<[u64; WORDS]>()) };
    // SAFETY: the helper takes nothing.
    let (before, start) = unsafe { (bpf_ktime_get_ns(), bpf_ktime_get_ns()) };
    // SAFETY: memory that is claimed; the helper takes nothing.
    let (outcome, end) = unsafe { (work::classify(work, batch.layer as u32), bpf_ktime_get_ns()) };
    let (_, reason, filter) = work.decision();
    let (action, errno) = match Outcome::of_number(outcome) {
        Outcome::Permitted => (PERMIT, 0),
        Outcome::Blocked(errno) => (BLOCK, errno),
        // nothing is diverted here
        Outcome::Late | Outcome::Diverted | Outcome::Absorbed => (LATE, 0),
    };
    // SAFETY: a valid map value.
    unsafe {
        (*record).filter = filter;
        (*record).action = action;
        (*record).reason = reason;
        (*record).errno = errno;
        (*record).nanoseconds = end.wrapping_sub(start);
        (*record).clock = start.wrapping_sub(before);
        (*record).run = batch.run;
    }
    0
}
