//! What the programs report, as records of the `EVENTS` ring buffer.

use crate::identity::Identity;

/// How many words of the incoming values an event carries: those that mean the same at every layer, and as many of the
/// layer's own as the programs fill in, of which frames have the most.
pub const VALUES: usize = 52;

/// The event is to be shown: its layer is recorded.
pub const SHOWN: u8 = 1;
/// A connect was refused by its first packet, or what is connected is permitted no longer: the socket may be waiting and has to be told.
pub const FAIL_SOCKET: u8 = 2;
/// What an event is about, besides the outcome of a classification.
pub mod kind {
    /// A classification.
    pub const CLASSIFY: u8 = 0;
    /// A flow has ended: its socket is closed.
    pub const FLOW_DELETED: u8 = 1;
    /// A socket without connections is closed: whatever flows it had have ended.
    pub const SOCKET_CLOSED: u8 = 2;
    /// A flow has ended that had been refused: its socket was ended.
    pub const REFUSED_FLOW_DELETED: u8 = 3;
}

/// The event was blocked in truth; without it, only in a dry run.
pub const ENFORCED: u8 = 4;

/// One classification, or the end of something.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EventRecord {
    /// Counts the events of one CPU without gaps, also those that found no room.
    pub sequence: u64,
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// The flow; 0: none.
    pub flow: u64,
    /// The filter that decided; 0: none.
    pub filter: u64,
    /// The socket's cookie.
    pub socket: u64,
    /// The layer's runtime id.
    pub layer: u16,
    /// 0 permit, 1 block.
    pub action: u8,
    /// The number of the engine's reason.
    pub reason: u8,
    /// The CPU.
    pub cpu: u16,
    /// Bits such as [`FAIL_SOCKET`].
    pub flags: u8,
    /// A number of [`kind`].
    pub kind: u8,
    /// The generation of the image that decided.
    pub generation: u64,
    /// Why the kernel has dropped the packet, as its `enum skb_drop_reason` has it; 0: it has not.
    pub drop: u64,
    /// Who acts, or owns the endpoint.
    pub identity: Identity,
    /// The first words of the incoming values.
    pub values: [u64; VALUES],
}
