//! What the measuring program is given, and what it gives back, in the `MEASUREMENTS` map.

/// How many classifications one run of the program makes: few, because the kernel does nothing else meanwhile.
pub const BATCH: u32 = 64;

/// How many words incoming values have.
pub const WORDS: usize = 64;

/// The event may go on.
pub const PERMIT: u8 = 0;
/// It may not.
pub const BLOCK: u8 = 1;
/// It depends on a value that is not known yet.
pub const LATE: u8 = 2;

/// One classification: the values before it, the rest after it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// The incoming values, as the engine has them.
    pub values: [u64; WORDS],
    /// The number of the run that made this classification: what another run left is no answer.
    pub run: u64,
    /// The filter that decided; 0: none.
    pub filter: u64,
    /// [`PERMIT`], [`BLOCK`] or [`LATE`].
    pub action: u8,
    /// The number of the engine's reason.
    pub reason: u8,
    /// The errno that a refused call would return; 0: the default.
    pub errno: u16,
    /// Always zero.
    pub zero: u32,
    /// Nanoseconds from just before the classification to just after it, with one reading of the clock in them.
    pub nanoseconds: u64,
    /// Nanoseconds from one reading of the clock to the next, just before.
    pub clock: u64,
}
