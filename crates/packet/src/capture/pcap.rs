//! pcap files: one header, then records.

use std::io::Read;

use pcap_parser::nom;
use pcap_parser::pcap::{
    LegacyPcapBlock, PcapHeader, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header,
};

use super::error::{CaptureError, CaptureProblem, Part};
use super::input::Input;
use super::{Found, MAX_PACKET_LENGTH};
use crate::link::LinkType;
use crate::time::Timestamp;

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
/// Records of a Linux patch of the nineties, which some tools still write, name the interface as well.
const MODIFIED_RECORD_HEADER: usize = 24;

type Parse = fn(&[u8]) -> nom::IResult<&[u8], LegacyPcapBlock<'_>, pcap_parser::PcapError<&[u8]>>;

pub(super) struct Pcap {
    link_type: LinkType,
    /// Nanoseconds in the unit in which records count the part of a second.
    unit: u64,
    big_endian: bool,
    record_header: usize,
    parse: Parse,
}

impl Pcap {
    pub(super) fn begin<R: Read>(input: &mut Input<R>) -> Result<Self, CaptureError> {
        input.require(Part::FileHeader, FILE_HEADER)?;
        // The magic number was recognised and the bytes are there, so nothing else can be wrong with the header.
        let Ok((_, header)) = parse_pcap_header(input.window()) else {
            let first = input.window().first_chunk().copied().unwrap_or_default();
            return Err(input.error(CaptureProblem::NotACapture(first)));
        };
        if header.version_major != 2 {
            let (major, minor) = (header.version_major, header.version_minor);
            return Err(input.error(CaptureProblem::Version { format: "pcap", major, minor }));
        }
        let pcap = Self::from_header(&header);
        input.consume(FILE_HEADER);
        Ok(pcap)
    }

    fn from_header(header: &PcapHeader) -> Self {
        let (parse, record_header): (Parse, usize) = if header.is_modified_format() {
            (parse_pcap_frame_modified, MODIFIED_RECORD_HEADER)
        } else if header.is_bigendian() {
            (parse_pcap_frame_be, RECORD_HEADER)
        } else {
            (parse_pcap_frame, RECORD_HEADER)
        };
        Self {
            // The upper half says whether frames end with a check sequence, which no packet's length counts.
            link_type: LinkType(header.network.0 as u16),
            unit: if header.is_nanosecond_precision() { 1 } else { 1000 },
            big_endian: header.is_bigendian(),
            record_header,
            parse,
        }
    }

    pub(super) const fn link_type(&self) -> LinkType {
        self.link_type
    }

    /// Brings the next record into the window.
    pub(super) fn find<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Found>, CaptureError> {
        if input.fill(self.record_header)? == 0 {
            return Ok(None);
        }
        input.require(Part::RecordHeader, self.record_header)?;
        let captured = self.captured_length(input.window());
        if captured > MAX_PACKET_LENGTH {
            return Err(input.error(CaptureProblem::PacketTooLong { length: captured, limit: MAX_PACKET_LENGTH }));
        }
        let length = self.record_header + captured as usize;
        let available = input.fill(length)?;
        let Ok((_, record)) = (self.parse)(input.window()) else {
            let available = (available - self.record_header) as u64;
            let needed = u64::from(captured);
            return Err(input.error(CaptureProblem::Truncated { part: Part::Packet, needed, available }));
        };
        let nanoseconds = u64::from(record.ts_sec) * 1_000_000_000 + u64::from(record.ts_usec) * self.unit;
        Ok(Some(Found {
            length,
            data: self.record_header..length,
            time: Some(Timestamp::from_nanoseconds(nanoseconds)),
            link_type: self.link_type,
            interface: None,
            direction: None,
            original_length: record.origlen,
        }))
    }

    fn captured_length(&self, record: &[u8]) -> u32 {
        let field = record.get(8..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(field) } else { u32::from_le_bytes(field) }
    }
}
