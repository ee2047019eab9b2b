//! What the programs are to do, in the one entry of the `CONFIG` map.

/// Block nothing; decide and report as if.
pub const DRY_RUN: u64 = 1;
/// Keep the identity of an endpoint's owner with its socket, for decisions that are made when packets come.
pub const KEEP_IDENTITY: u64 = 1 << 1;
/// Connects may have been left to their first packet.
pub const LATE: u64 = 1 << 2;
/// Established flows may have been refused: look at every packet's socket.
pub const REFUSED_FLOWS: u64 = 1 << 3;
/// A socket must not accept before its listen was permitted: the policy has filters at AUTH_LISTEN, or needs memory with
/// each accepted socket, which comes from the listening one.
pub const LISTEN_FILTERS: u64 = 1 << 4;

/// How many layers can be switched on and off for recording.
pub const LAYERS: usize = 128;

/// The settings that can change while the programs are attached.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where the image begins in the `CELLS` map (low 32 bits), and its generation (high 32 bits): one word, so that a
    /// program reads both at once.
    pub image: u64,
    /// Bits such as [`DRY_RUN`].
    pub flags: u64,
    /// A bit for each layer, by its runtime id: classifications there are reported as events.
    pub recorded: [u64; LAYERS / 64],
}

impl Config {
    /// The word for an image at `base`.
    #[must_use]
    pub const fn image_word(base: u32, generation: u32) -> u64 {
        base as u64 | (generation as u64) << 32
    }

    /// Switches recording of a layer on.
    pub const fn record(&mut self, layer: u16) {
        self.recorded[layer as usize / 64 % (LAYERS / 64)] |= 1 << (layer % 64);
    }
}

/// What happened at a layer so far, in the `TOTALS` map, for each CPU and layer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events that were permitted.
    pub permitted: u64,
    /// Events that were blocked.
    pub blocked: u64,
}
