//! Streams: the data of TCP connections in the order in which they were sent.
//!
//! A capture shows segments: early, late, twice, overlapping, or not at all. The stream layer sees data in order, each
//! byte once. [`Reassembler`] does this for one direction of one connection. It keeps to these rules:
//!
//! - The SYN says where the stream begins; where it was not seen, the first acknowledgment by the receiver, or the first segment.
//! - Of a byte that comes twice, the first counts, whatever the second says.
//! - Data beyond a hole wait until the hole is filled, or the receiver has acknowledged what lies beyond it: then the
//!   capture has missed what the receiver has got, and the stream goes on after the hole.
//! - What waits is bounded, for each direction and for all together ([`StreamSettings`]). What has no room any more does
//!   not get lost and is not passed over: the hole is given up, and the data are seen after all. So what gives way is
//!   completeness of the order, never the classification of data.
//! - Data wait, packets do not: a packet whose data wait is classified at its own layers and goes on.
//! - What still waits when the connection ends is never delivered by any receiver, and is not seen.
//! - A sequence number further off than any window reaches (2^30, RFC 7323) begins the stream anew.

mod reassembler;

pub use reassembler::{Arrival, Reassembler, Segment};

/// How much waits beyond holes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// Bytes in one direction of one connection.
    pub bytes: usize,
    /// Bytes of all connections together.
    pub all_bytes: usize,
}

impl Default for StreamSettings {
    /// 1 MiB in a direction, and 8 MiB of all together, which is what the platform accumulates of a stream (MS docs: Stream
    /// Inspection).
    fn default() -> Self {
        Self { bytes: 1 << 20, all_bytes: 8 << 20 }
    }
}

/// What became of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Holes after which a stream went on: what the capture missed, or what had no room.
    pub holes: u64,
    /// Bytes that still waited when their connection ended.
    pub undelivered: u64,
    /// The most memory that waiting data ever took, in bytes.
    pub most_waiting: u64,
}

/// Both directions of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    /// By [`crate::flow::Direction`].
    pub(crate) halves: [Half; 2],
}

/// One direction of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Half {
    pub(crate) reassembler: Reassembler,
    /// The sequence numbers of the data that were blocked last: from, and up to but not including.
    pub(crate) blocked: Option<(u32, u32)>,
}

impl Streams {
    /// The memory that waiting data take.
    pub(crate) fn waiting(&self) -> usize {
        self.halves.iter().map(|half| half.reassembler.waiting()).sum()
    }

    /// How many bytes of data wait, as they were on the wire.
    pub(crate) fn undelivered(&self) -> u64 {
        self.halves.iter().map(|half| half.reassembler.undelivered()).sum()
    }
}

impl Half {
    /// Notes that data were taken out of the stream.
    pub(crate) fn block(&mut self, from: u32, to: u32) {
        self.blocked = match self.blocked {
            Some((first, last)) if last == from => Some((first, to)),
            _ => Some((from, to)),
        };
    }

    /// Whether a segment repeats data that were taken out of the stream.
    pub(crate) fn repeats_blocked(&self, sequence: u32, length: u32) -> bool {
        self.blocked.is_some_and(|(from, to)| {
            let before_end = (to.wrapping_sub(sequence) as i32) > 0;
            let after_begin = (sequence.wrapping_add(length).wrapping_sub(from) as i32) > 0;
            length > 0 && before_end && after_begin
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_repeats_blocked_data_is_known_across_the_wrap() {
        let mut half = Half::default();
        half.block(u32::MAX - 9, u32::MAX);
        half.block(u32::MAX, 20);
        assert_eq!(half.blocked, Some((u32::MAX - 9, 20)));
        let cases = [
            (u32::MAX - 20, 10, false),
            (u32::MAX - 20, 12, true),
            (0, 1, true),
            (19, 5, true),
            (20, 5, false),
            (5, 0, false),
        ];
        for (sequence, length, expected) in cases {
            assert_eq!(half.repeats_blocked(sequence, length), expected, "{sequence} {length}");
        }
    }
}
