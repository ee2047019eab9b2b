//! Captures: pcap and pcapng files, read as a stream.
//!
//! ```
//! use openwfp_packet::capture::CaptureReader;
//!
//! # fn count(file: &[u8]) -> Result<u64, openwfp_packet::capture::CaptureError> {
//! let mut capture = CaptureReader::new(file)?;
//! while let Some(record) = capture.next_record() {
//!     let record = record?;
//!     println!("frame {} has {} bytes", record.frame, record.data.len());
//! }
//! # Ok(capture.frames())
//! # }
//! ```
//!
//! Memory does not grow with the file, and a packet is handed out without being copied. A broken capture is read as far
//! as it goes; then comes one [`CaptureError`] with the frame, the byte and what is wrong there.

mod error;
mod input;
mod pcap;
mod pcapng;

use std::io::Read;

pub use error::{CaptureError, CaptureProblem, Part};

use crate::link::{LinkDirection, LinkType};
use crate::time::Timestamp;
use input::Input;

/// The longest packet that is accepted, in bytes: what capture libraries store at most.
pub const MAX_PACKET_LENGTH: u32 = 262_144;

/// One packet of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The number of the frame in the whole file, from 1, as Wireshark counts.
    pub frame: u64,
    /// When it was captured. Simple packets of pcapng have no time, and others can have an impossible one: they show that of
    /// the packet before.
    pub time: Timestamp,
    /// What the bytes begin with.
    pub link_type: LinkType,
    /// The number of the interface in its section of a pcapng file, from 0; none in pcap.
    pub interface: Option<u32>,
    /// Which way the packet went, where the capture says so beside the packet (pcapng `epb_flags`).
    pub direction: Option<LinkDirection>,
    /// The bytes that were captured.
    pub data: &'a [u8],
    /// How many bytes the packet had on the wire.
    pub original_length: u32,
}

/// Reads a capture from anything that can be read.
pub struct CaptureReader<R> {
    input: Input<R>,
    format: Format,
    /// How many bytes of the window the record takes that was handed out last.
    taken: usize,
    time: Timestamp,
    ended: bool,
}

enum Format {
    Pcap(pcap::Pcap),
    Pcapng(pcapng::Section),
}

impl<R: Read> CaptureReader<R> {
    /// Reads the beginning of a capture, which tells its format.
    ///
    /// # Errors
    /// When it is not the beginning of a capture, or cannot be read.
    pub fn new(reader: R) -> Result<Self, CaptureError> {
        let mut input = Input::new(reader);
        let format = match magic(&mut input)? {
            pcapng::SECTION_HEADER => Format::Pcapng(pcapng::Section::begin(&mut input)?),
            _ => Format::Pcap(pcap::Pcap::begin(&mut input)?),
        };
        Ok(Self { input, format, taken: 0, time: Timestamp::default(), ended: false })
    }

    /// The next packet; `None` after the last one, and after an error.
    pub fn next_record(&mut self) -> Option<Result<Record<'_>, CaptureError>> {
        if self.ended {
            return None;
        }
        self.input.consume(core::mem::take(&mut self.taken));
        let found = match &mut self.format {
            Format::Pcap(pcap) => pcap.find(&mut self.input),
            Format::Pcapng(section) => section.find(&mut self.input),
        };
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.ended = true;
                return None;
            }
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        };
        self.taken = found.length;
        self.time = found.time.unwrap_or(self.time);
        let frame = self.input.count_frame();
        Some(Ok(Record {
            frame,
            time: self.time,
            link_type: found.link_type,
            interface: found.interface,
            direction: found.direction,
            data: &self.input.window()[found.data],
            original_length: found.original_length,
        }))
    }

    /// How many packets were handed out so far.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.input.frames()
    }

    /// How many bytes of the file were passed so far, for a progress bar.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.input.offset()
    }

    /// The link type of a pcap file; pcapng has one for each interface.
    #[must_use]
    pub const fn link_type(&self) -> Option<LinkType> {
        match &self.format {
            Format::Pcap(pcap) => Some(pcap.link_type()),
            Format::Pcapng(_) => None,
        }
    }
}

/// A packet in the window.
struct Found {
    /// How many bytes of the window its record takes.
    length: usize,
    /// Where in the window its own bytes are.
    data: core::ops::Range<usize>,
    time: Option<Timestamp>,
    link_type: LinkType,
    interface: Option<u32>,
    direction: Option<LinkDirection>,
    original_length: u32,
}

/// The first four bytes of a file that may be a capture.
fn magic<R: Read>(input: &mut Input<R>) -> Result<u32, CaptureError> {
    let available = input.fill(4)?;
    let Some(&first) = input.window().first_chunk::<4>() else {
        let (needed, available) = (4, available as u64);
        return Err(input.error(match available {
            0 => CaptureProblem::Empty,
            _ => CaptureProblem::Truncated { part: Part::FileHeader, needed, available },
        }));
    };
    let problem = match first {
        [0x0a, 0x0d, 0x0d, 0x0a] => return Ok(pcapng::SECTION_HEADER),
        [0xd4, 0xc3, 0xb2, 0xa1] | [0xa1, 0xb2, 0xc3, 0xd4] => return Ok(u32::from_le_bytes(first)),
        [0x4d, 0x3c, 0xb2, 0xa1] | [0xa1, 0xb2, 0x3c, 0x4d] => return Ok(u32::from_le_bytes(first)),
        [0x34, 0xcd, 0xb2, 0xa1] => return Ok(u32::from_le_bytes(first)),
        [0x1f, 0x8b, ..] => CaptureProblem::Compressed("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd] => CaptureProblem::Compressed("zstd"),
        [0xfd, b'7', b'z', b'X'] => CaptureProblem::Compressed("xz"),
        [0x04, 0x22, 0x4d, 0x18] => CaptureProblem::Compressed("lz4"),
        [b'B', b'Z', b'h', _] => CaptureProblem::Compressed("bzip2"),
        other => CaptureProblem::NotACapture(other),
    };
    Err(input.error(problem))
}
