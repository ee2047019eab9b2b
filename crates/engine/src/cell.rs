//! The cells of a policy image.
//!
//! An image is an array of 16-byte cells: the same bytes in a BPF map, in memory and in a file (little endian). The low
//! four bits of the first word say what a cell is:
//!
//! | kind | first word, from bit 4 | `a` | `b` | `c` |
//! | --- | --- | --- | --- | --- |
//! | header | version | generation | cells in the image | checksum |
//! | layer | trees (8), sublayers (8) | first root | first filter cell | worst steps |
//! | node | word (6), first child (22) | threshold | threshold | threshold |
//! | jump | word (6), target (22) | lowest rank in the run | low end of the hull | its span |
//! | jump always | –, target (22) | lowest rank in the run | | |
//! | test | word (6), on match (11), on failure (11) | see [`Test`] | see [`Test`] | rank |
//! | filter | action (4), flags (8), errno (16) | filter id, low | filter id, high | callout number |
//! | nothing | | | | |
//!
//! A *node* has four children that lie side by side on one cache line: the next cell is
//! `first child + (v > a) + (v > b) + (v > c)`, so that one cell read is two binary decisions. A leaf is a *run* of
//! tests in rank order; *on match* and *on failure* are distances to the next cell, where 0 means that the filter
//! matches, or that the run ends. A *jump* leads to a run, past a look at the hull of all filters in it.
//!
//! A *rank* orders the filters of a layer: the number of the sublayer in the top five bits, the filter's place in the
//! layer's list of filter cells (from 1) below. Lower is earlier.

/// One cell.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    /// What the cell is, and its small fields.
    pub w: u32,
    /// First operand.
    pub a: u32,
    /// Second operand.
    pub b: u32,
    /// Third operand.
    pub c: u32,
}

/// What a cell is.
pub mod kind {
    /// An inner node of a tree.
    pub const NODE: u32 = 0;
    /// The way to a run, past its hull.
    pub const JUMP: u32 = 1;
    /// The way to a run.
    pub const JUMP_ALWAYS: u32 = 2;
    /// A test: the word lies in `a..=a+b`.
    pub const RANGE: u32 = 3;
    /// A test: the word's bits under mask `a` are `b`.
    pub const MASK: u32 = 4;
    /// A test: at least one bit of mask `a` is set in the word.
    pub const ANY: u32 = 5;
    /// A test: the word is [`EMPTY`](crate::EMPTY) (`a` = 0) or [`UNKNOWN`](crate::UNKNOWN) (`a` = 1).
    pub const STATE: u32 = 6;
    /// A test that always matches.
    pub const ALWAYS: u32 = 7;
    /// An empty leaf.
    pub const NOTHING: u32 = 8;
    /// What a filter does.
    pub const FILTER: u32 = 9;
    /// The entry of a layer.
    pub const LAYER: u32 = 10;
    /// The first cell of an image.
    pub const HEADER: u32 = 11;
}

/// A test of one word, as a value; [`Cell::test`] writes it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// The word lies between the two, both included.
    Range(u32, u32),
    /// The bits under the mask equal the second value.
    Mask(u32, u32),
    /// At least one of the bits is set.
    Any(u32),
    /// The value is explicitly empty.
    Empty,
    /// The value is late or could not be read.
    Unknown,
    /// True.
    Always,
}

/// The version of the image format.
pub const VERSION: u32 = 1;
/// Layers that an image has room for; entry cells stand at `1..=LAYERS`.
pub const LAYERS: u32 = 127;
/// The first cell after the header and the layer entries.
pub const FIRST_FREE: u32 = 128;
/// The most cells that an image can have: what a node or a jump can reach.
pub const MAX_CELLS: u32 = 1 << 22;
/// The longest distance that a test can go.
pub const MAX_DISTANCE: u32 = (1 << 11) - 1;
/// The most trees that a layer can have.
pub const MAX_TREES: u32 = 255;
/// The most sublayers in which one layer can have filters.
pub const MAX_SUBLAYERS: usize = 32;
/// The most filters and markers that one layer can have.
pub const MAX_FILTERS: u32 = (1 << RANK_SUBLAYER_SHIFT) - 2;
/// Where the sublayer's number stands in a rank.
pub const RANK_SUBLAYER_SHIFT: u32 = 27;
/// A rank that no filter has. Its bytes differ, so that filling memory with it does not become a call to `memset`.
pub const NO_RANK: u32 = u32::MAX - 1;

/// Flags of a filter cell.
pub mod filter_flags {
    /// `FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT`.
    pub const CLEAR_ACTION_RIGHT: u32 = 1;
    /// `FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED`.
    pub const PERMIT_IF_CALLOUT_UNREGISTERED: u32 = 2;
    /// The callout that the filter names is registered: it is asked.
    pub const CALLOUT_REGISTERED: u32 = 4;
}

/// What a filter cell answers.
pub mod filter_action {
    /// `FWP_ACTION_PERMIT`.
    pub const PERMIT: u32 = 0;
    /// `FWP_ACTION_BLOCK`.
    pub const BLOCK: u32 = 1;
    /// `FWP_ACTION_CONTINUE`.
    pub const CONTINUE: u32 = 2;
    /// `FWP_ACTION_CALLOUT_TERMINATING`.
    pub const CALLOUT_TERMINATING: u32 = 3;
    /// `FWP_ACTION_CALLOUT_INSPECTION`.
    pub const CALLOUT_INSPECTION: u32 = 4;
    /// `FWP_ACTION_CALLOUT_UNKNOWN`.
    pub const CALLOUT_UNKNOWN: u32 = 5;
    /// A marker: a filter here tests a value that is not known yet.
    pub const LATE: u32 = 6;
    /// A marker: a filter here tests a value that could not be read.
    pub const UNREADABLE: u32 = 7;
}

impl Cell {
    /// A cell from its four words.
    #[must_use]
    pub const fn new(w: u32, a: u32, b: u32, c: u32) -> Self {
        Self { w, a, b, c }
    }

    /// What the cell is: one of [`kind`].
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> u32 {
        self.w & 15
    }

    /// The word that a node, a jump or a test looks at.
    #[inline(always)]
    #[must_use]
    pub const fn word(&self) -> usize {
        (self.w >> 4 & 63) as usize
    }

    /// A node's first child, or a jump's target.
    #[inline(always)]
    #[must_use]
    pub const fn target(&self) -> u32 {
        self.w >> 10
    }

    /// A test's distance to the next cell when it matches; 0: the filter matches.
    #[inline(always)]
    #[must_use]
    pub const fn on_match(&self) -> u32 {
        self.w >> 10 & MAX_DISTANCE
    }

    /// A test's distance to the next cell when it fails; 0: the run ends.
    #[inline(always)]
    #[must_use]
    pub const fn on_failure(&self) -> u32 {
        self.w >> 21
    }

    /// A node on `word` whose children stand from `first_child` on.
    #[must_use]
    pub const fn node(word: usize, first_child: u32, thresholds: [u32; 3]) -> Self {
        Self::new(kind::NODE | (word as u32 & 63) << 4 | first_child << 10, thresholds[0], thresholds[1], thresholds[2])
    }

    /// A jump to a run, taken when `word` lies in the hull.
    #[must_use]
    pub const fn jump(word: usize, target: u32, lowest_rank: u32, hull: (u32, u32)) -> Self {
        Self::new(kind::JUMP | (word as u32 & 63) << 4 | target << 10, lowest_rank, hull.0, hull.1 - hull.0)
    }

    /// A jump to a run, always taken.
    #[must_use]
    pub const fn jump_always(target: u32, lowest_rank: u32) -> Self {
        Self::new(kind::JUMP_ALWAYS | target << 10, lowest_rank, 0, 0)
    }

    /// A test of `word` for the filter of this rank.
    #[must_use]
    pub const fn test(word: usize, test: Test, rank: u32, on_match: u32, on_failure: u32) -> Self {
        let (kind, a, b) = match test {
            Test::Range(low, high) => (kind::RANGE, low, high - low),
            Test::Mask(mask, expected) => (kind::MASK, mask, expected),
            Test::Any(mask) => (kind::ANY, mask, 0),
            Test::Empty => (kind::STATE, 0, 0),
            Test::Unknown => (kind::STATE, 1, 0),
            Test::Always => (kind::ALWAYS, 0, 0),
        };
        let w = kind | (word as u32 & 63) << 4 | (on_match & MAX_DISTANCE) << 10 | on_failure << 21;
        Self::new(w, a, b, rank)
    }

    /// The same test with other distances.
    #[must_use]
    pub const fn with_distances(self, on_match: u32, on_failure: u32) -> Self {
        Self::new(self.w & 0x3ff | (on_match & MAX_DISTANCE) << 10 | on_failure << 21, self.a, self.b, self.c)
    }

    /// What a filter does: its action, flags, errno, id and callout.
    #[must_use]
    pub const fn filter(action: u32, flags: u32, errno: u16, id: u64, callout: u32) -> Self {
        Self::new(
            kind::FILTER | (action & 15) << 4 | (flags & 255) << 8 | (errno as u32) << 16,
            id as u32,
            (id >> 32) as u32,
            callout,
        )
    }

    /// A filter cell's action: one of [`filter_action`].
    #[inline(always)]
    #[must_use]
    pub const fn filter_action(&self) -> u32 {
        self.w >> 4 & 15
    }

    /// A filter cell's flags: bits of [`filter_flags`].
    #[inline(always)]
    #[must_use]
    pub const fn filter_flags(&self) -> u32 {
        self.w >> 8 & 255
    }

    /// The errno that a refusal by this filter gives; 0: the default.
    #[inline(always)]
    #[must_use]
    pub const fn filter_errno(&self) -> u16 {
        (self.w >> 16) as u16
    }

    /// The number of the callout that a filter names.
    #[inline(always)]
    #[must_use]
    pub const fn callout(&self) -> u32 {
        self.c
    }

    /// A filter cell's id.
    #[inline(always)]
    #[must_use]
    pub const fn filter_id(&self) -> u64 {
        self.a as u64 | (self.b as u64) << 32
    }

    /// A layer's entry.
    #[must_use]
    pub const fn layer(trees: u32, sublayers: u32, roots: u32, filters: u32, worst: u32) -> Self {
        Self::new(kind::LAYER | (trees & 255) << 4 | (sublayers & 255) << 12, roots, filters, worst)
    }

    /// How many trees a layer has.
    #[inline(always)]
    #[must_use]
    pub const fn trees(&self) -> u32 {
        self.w >> 4 & 255
    }

    /// In how many sublayers a layer has filters.
    #[inline(always)]
    #[must_use]
    pub const fn sublayers(&self) -> u32 {
        self.w >> 12 & 255
    }

    /// The first cell of an image.
    #[must_use]
    pub const fn header(generation: u32, cells: u32, checksum: u32) -> Self {
        Self::new(kind::HEADER | VERSION << 4, generation, cells, checksum)
    }
}
