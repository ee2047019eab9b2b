//! What stands where in the shared memory. Places and sizes are in bytes; every number is little-endian.
//!
//! Words that change have a line of 64 bytes of their own, with one writer each:
//!
//! | from | bytes | what | who writes |
//! | --- | --- | --- | --- |
//! | 0 | 8 | [`MAGIC`] | wfp, once |
//! | 8 | 4 | [`VERSION`] | wfp, once |
//! | 12 | 4 | bytes of a slot | wfp, once |
//! | 16 | 4 | slots of a ring, a power of two | wfp, once |
//! | 64 | 8 | heartbeat: another number at least every 200 ms | host |
//! | 128 | 8 | requests: how many were written so far | wfp |
//! | 192 | 8 | requests: how many were read so far | host |
//! | 256 | 8 | requests: 1 while the reader sleeps | host; wfp, to 0 |
//! | 320 | 8 | answers: how many were written so far | host |
//! | 384 | 8 | answers: how many were read so far | wfp |
//! | 448 | 8 | answers: 1 while the reader sleeps | wfp; host, to 0 |
//! | 4096 | slots × bytes | slots of requests | wfp |
//! | behind | slots × bytes | slots of answers | host |
//!
//! A slot begins with the length of its message (8 bytes), which follows.

/// The first eight bytes.
pub const MAGIC: [u8; 8] = *b"OPENWFP\0";
/// The version of this layout, of the messages, and of what is said on the control socket.
pub const VERSION: u32 = 1;

/// Where the heartbeat stands.
pub const BEAT: usize = 64;
/// Where the words of the ring of requests stand: written, read, sleeps; each in a line of its own.
pub const REQUESTS: usize = 128;
/// Where those of the ring of answers stand.
pub const ANSWERS: usize = 320;
/// How far those words are apart.
pub const LINE: usize = 64;
/// Where the slots of requests begin.
pub const SLOTS: usize = 4096;

/// The longest packet that is sent to a host, or taken from one.
pub const LONGEST_PACKET: usize = 1 << 18;
/// How many bytes a slot has as `wfp` makes it.
pub const SLOT_BYTES: usize = LONGEST_PACKET + 4096;
/// How many slots a ring has as `wfp` makes it. Pages that were never written take no memory.
pub const SLOT_COUNT: usize = 128;

/// The sizes of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a slot, its length included: a multiple of 64.
    pub slot: usize,
    /// Slots of each ring: a power of two.
    pub count: usize,
}

impl Sizes {
    /// Those that `wfp` uses.
    pub const USUAL: Self = Self { slot: SLOT_BYTES, count: SLOT_COUNT };

    /// Whether a channel can have them.
    #[must_use]
    pub const fn are_valid(self) -> bool {
        self.slot >= 64
            && self.slot.is_multiple_of(64)
            && self.slot <= 1 << 24
            && self.count.is_power_of_two()
            && self.count <= 1 << 16
    }

    /// Where the slots of answers begin.
    #[must_use]
    pub const fn answers(self) -> usize {
        SLOTS + self.slot * self.count
    }

    /// How many bytes the memory has.
    #[must_use]
    pub const fn total(self) -> usize {
        SLOTS + 2 * self.slot * self.count
    }
}
