//! How a capture can be broken.

use std::io;

use thiserror::Error;

/// Why a capture cannot be read, or not further than this.
///
/// It reads `frame 18, at byte 4711: the capture ends inside a packet: 66 bytes are needed, 12 are there`.
#[derive(Debug, Error)]
#[error("{}at byte {offset}: {problem}", frame_number(*.frame, *.offset))]
#[non_exhaustive]
pub struct CaptureError {
    /// The number of the first frame that could not be read, from 1.
    pub frame: u64,
    /// Where in the file the record or block begins that is wrong.
    pub offset: u64,
    /// What is wrong with it.
    #[source]
    pub problem: CaptureProblem,
}

/// At the head of the file there is no frame yet that could be meant.
fn frame_number(frame: u64, offset: u64) -> String {
    if offset == 0 { String::new() } else { format!("frame {frame}, ") }
}

/// What is wrong with a capture.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaptureProblem {
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// There is not a single byte.
    #[error("the capture is empty")]
    Empty,
    /// The first bytes are those of no capture format.
    #[error("neither pcap nor pcapng: it begins with {0:02x?}")]
    NotACapture([u8; 4]),
    /// The first bytes are those of a compressed file.
    #[error("compressed with {0}: decompress it first")]
    Compressed(&'static str),
    /// A version of the format that was never published.
    #[error("version {major}.{minor} of {format} is not known")]
    Version {
        /// `pcap` or `pcapng`.
        format: &'static str,
        /// The number before the point.
        major: u16,
        /// The number after the point.
        minor: u16,
    },
    /// The file ends inside a record, as captures do that were not closed.
    #[error("the capture ends inside a {part}: {needed} bytes are needed, {available} are there")]
    Truncated {
        /// What is cut.
        part: Part,
        /// The length of that part, in bytes.
        needed: u64,
        /// How many bytes there are.
        available: u64,
    },
    /// A packet is longer than any that a capture library stores.
    #[error("a packet of {length} bytes is longer than the {limit} that a capture can hold")]
    PacketTooLong {
        /// The length that the record states.
        length: u32,
        /// The longest that is accepted.
        limit: u32,
    },
    /// The length of a pcapng block is impossible.
    #[error("a block of type {block:#x} cannot have {length} bytes")]
    BlockLength {
        /// The type of the block.
        block: u32,
        /// The length that it states.
        length: u32,
    },
    /// A pcapng block states one length before its content and another after it.
    #[error("a block of type {block:#x} has {before} bytes by its head and {after} by its tail")]
    BlockLengthsDiffer {
        /// The type of the block.
        block: u32,
        /// The length before the content.
        before: u32,
        /// The length after the content.
        after: u32,
    },
    /// The content of a pcapng block does not fit together.
    #[error("the content of a block of type {block:#x} does not fit its length")]
    BlockContent {
        /// The type of the block.
        block: u32,
    },
    /// A packet names an interface that was not described before.
    #[error("interface {interface} is not described; {described} are")]
    UnknownInterface {
        /// The number that the packet names, from 0.
        interface: u32,
        /// How many interfaces the section has described so far.
        described: usize,
    },
    /// A section describes more interfaces than any machine has.
    #[error("more than {0} interfaces")]
    InterfaceCount(usize),
    /// An interface counts time in units that no 64-bit number of nanoseconds can follow.
    #[error("a time stamp resolution of {0:#04x} is not supported")]
    TimestampResolution(u8),
}

/// A part of a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Part {
    /// What a pcap file begins with.
    #[error("file header")]
    FileHeader,
    /// What stands before each packet of a pcap file.
    #[error("record header")]
    RecordHeader,
    /// A packet of a pcap file.
    #[error("packet")]
    Packet,
    /// What each block of a pcapng file begins with.
    #[error("block header")]
    BlockHeader,
    /// A block of a pcapng file.
    #[error("block")]
    Block,
}
