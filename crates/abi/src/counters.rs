//! What went wrong in the kernel, counted. Index into the `COUNTERS` map.

/// A process could not be labelled because no scratch buffer was free.
pub const NO_SCRATCH: u32 = 0;
/// A process could not be labelled because `LABELS` was full.
pub const LABELS_FULL: u32 = 1;
/// A path could not be kept for showing.
pub const PATHS_REFUSED: u32 = 2;
/// A kernel structure could not be followed from an executed file to the root of its file system.
pub const WALK_FAILED: u32 = 3;
/// A decision could not be made because no working memory was free: closed.
pub const NO_WORK: u32 = 4;
/// A socket could not be given memory: what needed it is closed.
pub const NO_STORAGE: u32 = 5;
/// The headers of a packet could not be read where somebody would have looked at it: closed.
pub const UNREADABLE_PACKETS: u32 = 6;
/// A packet was to be diverted and the ring buffer was full, or the packet too long.
pub const DIVERT_FULL: u32 = 7;
/// A packet was to be diverted where nobody was there to take it, or from where it could not come back.
pub const DIVERT_ABSENT: u32 = 8;
/// A packet was diverted.
pub const DIVERTED: u32 = 9;
/// A packet came to our device that we did not send, or that had no token which holds.
pub const DIVERT_FORGED: u32 = 10;
/// A packet that was injected was sent on from our device.
pub const INJECTED: u32 = 11;

/// How many counters there are.
pub const COUNTERS: u32 = 16;
