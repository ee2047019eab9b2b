//! Working memory that does not fit on the stack.
//!
//! Programs are preempted by one another on the same CPU, so memory of a CPU is nobody's until it
//! is claimed. A discarded ring buffer record is no way out: its space is not reused until user
//! space has read that far.

use crate::counters::count;
use aya_ebpf::{macros::map, maps::PerCpuArray};
use core::intrinsics::{AtomicOrdering, atomic_xchg};
use openwfp_abi::{
    counters::NO_SCRATCH,
    file::{NAME_BYTES, PATH_BYTES, PATH_SHOWN, PathRecord},
};

/// How many programs may work at once on one CPU.
const SLOTS: u32 = 4;

/// Room for one path, written from its end towards its beginning, so that a path's last
/// [`PATH_SHOWN`] bytes and what follows them are a [`PathRecord`] without another copy.
#[repr(C)]
pub struct Scratch {
    taken: u64,
    /// All but the last bytes of the path.
    head: [u8; PATH_BYTES - PATH_SHOWN],
    /// The last bytes of the path, and its length.
    pub record: PathRecord,
    /// Never written: the verifier bounds a write of a name by its first byte and its longest
    /// length alone, and does not know that both together stay within the path.
    spare: [u8; NAME_BYTES + 1],
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(SLOTS, 0);

impl Scratch {
    /// The path's buffer of [`PATH_BYTES`].
    #[inline(always)]
    pub fn path(this: *mut Self) -> *mut u8 {
        // SAFETY: `this` is a whole map value; only an address is computed.
        unsafe { (&raw mut (*this).head).cast() }
    }
}

/// Claims a slot by its first word: whoever changes the 0 to a 1 owns it until a 0 is written back.
/// A slot is of one CPU, where programs nest or take turns.
#[inline(always)]
pub fn claimed(taken: *mut u64) -> bool {
    // SAFETY: the caller gives a valid, aligned map value.
    unsafe { atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(taken, 1) == 0 }
}

/// Runs `work` with memory that is nobody else's meanwhile; `None` (and counted) when none is free.
#[inline(always)]
pub fn with<R>(work: impl FnOnce(*mut Scratch) -> R) -> Option<R> {
    for slot in 0..SLOTS {
        let scratch = SCRATCH.get_ptr_mut(slot)?;
        // SAFETY: a valid map value; only an address is computed.
        if claimed(unsafe { &raw mut (*scratch).taken }) {
            let result = work(scratch);
            // SAFETY: as above; the slot is ours.
            unsafe { (&raw mut (*scratch).taken).write_volatile(0) };
            return Some(result);
        }
    }
    count(NO_SCRATCH);
    None
}
