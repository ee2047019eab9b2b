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

/// How many counters there are.
pub const COUNTERS: u32 = 16;
