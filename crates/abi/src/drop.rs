//! What the programs are told of the kernel's reasons to drop a packet (`enum skb_drop_reason`), whose numbers differ from
//! kernel to kernel: the `DROPS` map has a number of [`class`] for each.

/// How many reasons the map has room for. Those beyond, which parts of the kernel have for themselves, are [`class::BY_PLACE`].
pub const REASONS: u32 = 256;

/// What a reason says of the layer at which the packet was dropped.
pub mod class {
    /// Nothing: how far the packet has come says it.
    pub const BY_PLACE: u32 = 0;
    /// It is not met: a program has dropped it, ours among them, or it is a copy, or no drop.
    pub const NOT_MET: u32 = 1;
    /// Nobody listens.
    pub const NOBODY: u32 = 2;
    /// The socket has no room.
    pub const NO_ROOM: u32 = 3;
    /// It was dropped as a packet of IP, though its header was passed.
    pub const IP: u32 = 4;
}
