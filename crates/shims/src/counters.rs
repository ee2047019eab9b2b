//! What went wrong, counted for the loader to report.

use aya_ebpf::{macros::map, maps::Array};
use core::intrinsics::{AtomicOrdering, atomic_xadd};

/// Indexed by the numbers of [`openwfp_abi::counters`].
#[map]
static COUNTERS: Array<u64> = Array::with_max_entries(openwfp_abi::counters::COUNTERS, 0);

/// Adds one.
#[inline(always)]
pub fn count(counter: u32) {
    if let Some(place) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: a valid, aligned map value, which every program changes by atomic additions only.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(place, 1) };
    }
}
