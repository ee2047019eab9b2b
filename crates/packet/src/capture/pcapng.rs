//! pcapng files: sections of blocks, with the interfaces that a section describes.

use std::io::Read;

use pcap_parser::{Block, EnhancedPacketBlock, InterfaceDescriptionBlock, parse_block_be, parse_block_le};

use super::error::{CaptureError, CaptureProblem, Part};
use super::input::Input;
use super::{Found, MAX_PACKET_LENGTH};
use crate::link::{LinkDirection, LinkType};
use crate::time::Timestamp;

pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// The packet block that the format had before it was published.
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Type and length before the content.
const HEAD: usize = 8;
/// Type, length and byte order, as far as a section header must be seen before its length can be read.
const SECTION_HEAD: usize = 12;
const SHORTEST_BLOCK: u32 = 12;
/// Blocks that are looked into are no longer than this: the longest packet, and room for options.
const LONGEST_BLOCK: u32 = 4 * MAX_PACKET_LENGTH;
const MAX_INTERFACES: usize = 65_536;

/// The options of an interface (`if_tsresol`, `if_tsoffset`) and of a packet (`epb_flags`).
const TIMESTAMP_RESOLUTION: u16 = 9;
const TIMESTAMP_OFFSET: u16 = 14;
const PACKET_FLAGS: u16 = 2;

pub(super) struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy)]
struct Interface {
    link_type: LinkType,
    /// The longest packet that is stored; 0: any.
    snap_length: u32,
    clock: Clock,
}

struct Head {
    block: u32,
    length: u32,
}

impl Section {
    /// Reads the section header with which a file begins.
    pub(super) fn begin<R: Read>(input: &mut Input<R>) -> Result<Self, CaptureError> {
        let mut section = Self { big_endian: false, interfaces: Vec::new() };
        let head = section.head(input)?;
        section.restart(input, &head)?;
        Ok(section)
    }

    /// Brings the block of the next packet into the window.
    pub(super) fn find<R: Read>(&mut self, input: &mut Input<R>) -> Result<Option<Found>, CaptureError> {
        loop {
            if input.fill(HEAD)? == 0 {
                return Ok(None);
            }
            let head = self.head(input)?;
            match head.block {
                SECTION_HEADER => self.restart(input, &head)?,
                INTERFACE_DESCRIPTION => self.describe(input, &head)?,
                ENHANCED_PACKET | SIMPLE_PACKET | OBSOLETE_PACKET => {
                    self.bring_in(input, &head)?;
                    let found = self.packet(input.window(), &head);
                    return found.map(Some).map_err(|problem| input.error(problem));
                }
                _ => input.skip(Part::Block, u64::from(head.length))?,
            }
        }
    }

    /// Type and length of the block at the start of the window.
    fn head<R: Read>(&mut self, input: &mut Input<R>) -> Result<Head, CaptureError> {
        input.require(Part::BlockHeader, HEAD)?;
        let block = self.number(input.window(), 0);
        if block == SECTION_HEADER {
            input.require(Part::BlockHeader, SECTION_HEAD)?;
            self.big_endian = match self.number_in(false, input.window(), 8) {
                BYTE_ORDER_MAGIC => false,
                other if other == BYTE_ORDER_MAGIC.swap_bytes() => true,
                _ => return Err(input.error(CaptureProblem::BlockContent { block })),
            };
        }
        let length = self.number(input.window(), 4);
        if length < SHORTEST_BLOCK || !length.is_multiple_of(4) {
            return Err(input.error(CaptureProblem::BlockLength { block, length }));
        }
        Ok(Head { block, length })
    }

    /// Brings a whole block into the window.
    fn bring_in<R: Read>(&self, input: &mut Input<R>, head: &Head) -> Result<(), CaptureError> {
        let &Head { block, length } = head;
        if length > LONGEST_BLOCK {
            return Err(input.error(CaptureProblem::BlockLength { block, length }));
        }
        input.require(Part::Block, length as usize)?;
        let after = self.number(input.window(), length as usize - 4);
        if after != length {
            return Err(input.error(CaptureProblem::BlockLengthsDiffer { block, before: length, after }));
        }
        Ok(())
    }

    /// A new section: nothing of the one before counts any more.
    fn restart<R: Read>(&mut self, input: &mut Input<R>, head: &Head) -> Result<(), CaptureError> {
        self.bring_in(input, head)?;
        let version = match self.parse(input.window(), head) {
            Ok(Block::SectionHeader(section)) => Ok((section.major_version, section.minor_version)),
            Ok(_) => Err(CaptureProblem::BlockContent { block: head.block }),
            Err(problem) => Err(problem),
        };
        match version {
            Ok((1, _)) => {}
            Ok((major, minor)) => {
                return Err(input.error(CaptureProblem::Version { format: "pcapng", major, minor }));
            }
            Err(problem) => return Err(input.error(problem)),
        }
        self.interfaces.clear();
        input.consume(head.length as usize);
        Ok(())
    }

    fn describe<R: Read>(&mut self, input: &mut Input<R>, head: &Head) -> Result<(), CaptureError> {
        self.bring_in(input, head)?;
        let interface = match self.parse(input.window(), head) {
            _ if self.interfaces.len() >= MAX_INTERFACES => Err(CaptureProblem::InterfaceCount(MAX_INTERFACES)),
            Ok(Block::InterfaceDescription(description)) => self.interface(&description),
            Ok(_) => Err(CaptureProblem::BlockContent { block: head.block }),
            Err(problem) => Err(problem),
        };
        self.interfaces.push(interface.map_err(|problem| input.error(problem))?);
        input.consume(head.length as usize);
        Ok(())
    }

    fn interface(&self, description: &InterfaceDescriptionBlock<'_>) -> Result<Interface, CaptureProblem> {
        let mut clock = Clock::default();
        for option in &description.options {
            let value = option.value();
            match option.code.0 {
                TIMESTAMP_RESOLUTION => {
                    let resolution = value.first().copied().unwrap_or(6);
                    clock.units = Clock::units(resolution).ok_or(CaptureProblem::TimestampResolution(resolution))?;
                }
                // pcap-parser reads it in little-endian order whatever the section's is.
                TIMESTAMP_OFFSET => {
                    if let Some(&bytes) = value.first_chunk::<8>() {
                        clock.offset =
                            if self.big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                    }
                }
                _ => {}
            }
        }
        let link_type = LinkType(description.linktype.0 as u16);
        Ok(Interface { link_type, snap_length: description.snaplen, clock })
    }

    fn packet(&self, window: &[u8], head: &Head) -> Result<Found, CaptureProblem> {
        match self.parse(window, head)? {
            Block::EnhancedPacket(packet) => self.enhanced(&packet, head),
            Block::SimplePacket(packet) => self.simple(packet.origlen, head),
            Block::Unknown(_) if head.block == OBSOLETE_PACKET => self.obsolete(window, head),
            _ => Err(CaptureProblem::BlockContent { block: head.block }),
        }
    }

    fn enhanced(&self, packet: &EnhancedPacketBlock<'_>, head: &Head) -> Result<Found, CaptureProblem> {
        const DATA: usize = 28;
        let interface = self.described(packet.if_id)?;
        let flags = packet.options.iter().find(|option| option.code.0 == PACKET_FLAGS);
        let direction = flags.and_then(|option| match self.number(option.value(), 0) & 3 {
            1 => Some(LinkDirection::Incoming),
            2 => Some(LinkDirection::Outgoing),
            _ => None,
        });
        Ok(Found {
            length: head.length as usize,
            data: data_range(DATA, packet.caplen, head)?,
            time: interface.clock.time(packet.ts_high, packet.ts_low),
            link_type: interface.link_type,
            interface: Some(packet.if_id),
            direction,
            original_length: packet.origlen,
        })
    }

    fn simple(&self, original_length: u32, head: &Head) -> Result<Found, CaptureProblem> {
        const DATA: usize = 12;
        let interface = self.described(0)?;
        let room = head.length.saturating_sub(16);
        let snap_length = if interface.snap_length == 0 { u32::MAX } else { interface.snap_length };
        Ok(Found {
            length: head.length as usize,
            data: data_range(DATA, original_length.min(snap_length).min(room), head)?,
            time: None,
            link_type: interface.link_type,
            interface: Some(0),
            direction: None,
            original_length,
        })
    }

    fn obsolete(&self, window: &[u8], head: &Head) -> Result<Found, CaptureProblem> {
        const DATA: usize = 28;
        if head.length < 32 {
            return Err(CaptureProblem::BlockContent { block: head.block });
        }
        let number = self.number(window, 8);
        let number = if self.big_endian { number >> 16 } else { number & 0xffff };
        let interface = self.described(number)?;
        Ok(Found {
            length: head.length as usize,
            data: data_range(DATA, self.number(window, 20), head)?,
            time: interface.clock.time(self.number(window, 12), self.number(window, 16)),
            link_type: interface.link_type,
            interface: Some(number),
            direction: None,
            original_length: self.number(window, 24),
        })
    }

    fn described(&self, interface: u32) -> Result<Interface, CaptureProblem> {
        let described = self.interfaces.len();
        let unknown = CaptureProblem::UnknownInterface { interface, described };
        self.interfaces.get(interface as usize).copied().ok_or(unknown)
    }

    /// Lets the parser crate take a block apart, which stands whole at the start of the window.
    fn parse<'w>(&self, window: &'w [u8], head: &Head) -> Result<Block<'w>, CaptureProblem> {
        let bytes = &window[..window.len().min(head.length as usize)];
        let parsed = if self.big_endian { parse_block_be(bytes) } else { parse_block_le(bytes) };
        match parsed {
            Ok((_, block)) => Ok(block),
            Err(_) => Err(CaptureProblem::BlockContent { block: head.block }),
        }
    }

    fn number(&self, bytes: &[u8], at: usize) -> u32 {
        self.number_in(self.big_endian, bytes, at)
    }

    /// The number at a place, 0 where the bytes end before it.
    fn number_in(&self, big_endian: bool, bytes: &[u8], at: usize) -> u32 {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        if big_endian { u32::from_be_bytes(field) } else { u32::from_le_bytes(field) }
    }
}

/// Where the bytes of a packet are in its block.
fn data_range(begin: usize, captured: u32, head: &Head) -> Result<core::ops::Range<usize>, CaptureProblem> {
    if captured > MAX_PACKET_LENGTH {
        return Err(CaptureProblem::PacketTooLong { length: captured, limit: MAX_PACKET_LENGTH });
    }
    let end = begin + captured as usize;
    if end + 4 > head.length as usize {
        return Err(CaptureProblem::BlockContent { block: head.block });
    }
    Ok(begin..end)
}

/// How an interface counts time.
#[derive(Clone, Copy)]
struct Clock {
    /// Units in a second.
    units: u64,
    /// Seconds to be added.
    offset: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { units: 1_000_000, offset: 0 }
    }
}

impl Clock {
    /// Units in a second for an `if_tsresol`: a power of ten, or of two with the highest bit set.
    fn units(resolution: u8) -> Option<u64> {
        let exponent = u32::from(resolution & 0x7f);
        if resolution & 0x80 == 0 { 10u64.checked_pow(exponent) } else { 1u64.checked_shl(exponent) }
    }

    /// The time of a packet; none where it lies before 1970 or after 2554.
    fn time(&self, high: u32, low: u32) -> Option<Timestamp> {
        let count = u64::from(high) << 32 | u64::from(low);
        let nanoseconds = match self.units {
            1_000_000_000 => Some(count),
            1_000_000 => count.checked_mul(1000),
            units => u64::try_from(u128::from(count) * 1_000_000_000 / u128::from(units)).ok(),
        };
        let offset = self.offset.checked_mul(1_000_000_000)?;
        nanoseconds?.checked_add_signed(offset).map(Timestamp::from_nanoseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_in_powers_of_ten_and_of_two() {
        let cases: [(u8, i64, u64, Option<u64>); 7] = [
            (6, 0, 1_767_323_045_678_901, Some(1_767_323_045_678_901_000)),
            (9, 0, 1_767_323_045_678_901_234, Some(1_767_323_045_678_901_234)),
            (3, 0, 1_767_323_045_678, Some(1_767_323_045_678_000_000)),
            (0x8a, 0, 1024 + 512, Some(1_500_000_000)),
            (6, 10, 1, Some(10_000_001_000)),
            (6, -10, 1, None),
            (0, 0, u64::MAX, None),
        ];
        for (resolution, offset, count, expected) in cases {
            let clock = Clock { units: Clock::units(resolution).unwrap(), offset };
            let time = clock.time((count >> 32) as u32, count as u32);
            assert_eq!(time.map(Timestamp::nanoseconds), expected, "{resolution:#x} {offset} {count}");
        }
        assert_eq!(Clock::units(20), None);
        assert_eq!(Clock::units(0xc0), None);
    }
}
