//! How BTF lies in bytes.

use super::BtfError;

pub(super) const MAGIC: u16 = 0xeb9f;
pub(super) const HEADER_BYTES: usize = 24;
pub(super) const TYPE_BYTES: usize = 12;
pub(super) const MEMBER_BYTES: usize = 12;

pub(super) mod kind {
    pub const INT: u32 = 1;
    pub const POINTER: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FORWARD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNCTION: u32 = 12;
    pub const PROTOTYPE: u32 = 13;
    pub const VARIABLE: u32 = 14;
    pub const SECTION: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECLARATION_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// One type: its head and where its extra part is.
#[derive(Clone, Copy)]
pub(super) struct Type {
    pub name: u32,
    pub info: u32,
    /// The referenced type, for aliases.
    pub target: u32,
    pub extra: usize,
}

impl Type {
    /// The type at a place of a blob.
    pub fn read(data: &[u8], at: usize) -> Result<Self, BtfError> {
        let head: Option<&[u8; TYPE_BYTES]> = data.get(at..).and_then(|rest| rest.first_chunk());
        let Some(&[a, b, c, d, e, f, g, h, i, j, k, l]) = head else { return Err(BtfError::Damaged { at }) };
        let [name, info, target] = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes);
        Ok(Self { name, info, target, extra: at + TYPE_BYTES })
    }

    pub fn kind(self) -> u32 {
        self.info >> 24 & 31
    }
    pub fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }
    /// Whether members keep the width of bit fields in the upper byte of their offset.
    pub fn has_bit_fields(self) -> bool {
        self.info >> 31 == 1
    }
}

/// How many bytes follow the twelve that every type has.
pub(super) fn extra_bytes(ty: Type) -> Result<usize, BtfError> {
    match ty.kind() {
        kind::INT | kind::VARIABLE | kind::DECLARATION_TAG => Ok(4),
        kind::ARRAY => Ok(12),
        kind::STRUCT | kind::UNION | kind::SECTION | kind::ENUM64 => Ok(12 * ty.count()),
        kind::ENUM | kind::PROTOTYPE => Ok(8 * ty.count()),
        kind::POINTER | kind::FORWARD | kind::TYPEDEF | kind::VOLATILE | kind::CONST => Ok(0),
        kind::RESTRICT | kind::FUNCTION | kind::FLOAT | kind::TYPE_TAG => Ok(0),
        kind => Err(BtfError::Kind { kind }),
    }
}

pub(super) fn word(data: &[u8], at: usize) -> Result<u32, BtfError> {
    let bytes = data.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().map(u32::from_ne_bytes).ok_or(BtfError::Damaged { at })
}

/// Beginning and end of a part, whose offset behind the header and length are at `field`.
pub(super) fn part(data: &[u8], header: usize, field: usize) -> Result<(usize, usize), BtfError> {
    let damaged = BtfError::Damaged { at: field };
    let start = header.checked_add(word(data, field)? as usize);
    let length = word(data, field + 4)? as usize;
    let Some((start, end)) = start.and_then(|start| Some((start, start.checked_add(length)?))) else {
        return Err(damaged);
    };
    if end > data.len() { Err(damaged) } else { Ok((start, end)) }
}
