//! Reads the running kernel's type information (BTF): where the members of its structures are.
//!
//! BTF is a header, a row of types and a section of strings. A type has twelve bytes (name, kind
//! and count, size or referenced type) and an extra part whose size its kind tells; types are
//! numbered from 1 in their order, 0 is `void`. Source: the kernel's `Documentation/bpf/btf.rst`.
//!
//! Nothing in a blob is trusted: whatever is out of place is an error.

mod aliases;
mod bytes;
mod enumeration;
mod error;
mod format;
#[cfg(test)]
mod tests;

pub use error::BtfError;

use bytes::Bytes;
use format::{HEADER_BYTES, MAGIC, MEMBER_BYTES, TYPE_BYTES, Type, extra_bytes, kind, part, word};
use std::path::Path;

/// Where a kernel publishes its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// How deep unnamed structures nest, and how long a chain of type aliases is, at most. The kernel's
/// own are far below; a blob with a cycle ends here.
const DEPTH: u32 = 32;

/// A place in a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bits from the start of the structure.
    pub bits: u32,
    /// Width of a bit field in bits; 0 for a member of whole bytes.
    pub width: u32,
}

/// A parsed blob of BTF.
pub struct Btf {
    data: Bytes,
    /// Where the strings begin and end.
    strings: (usize, usize),
    /// By number, less one.
    types: Vec<Type>,
}

impl Btf {
    /// Reads the running kernel's BTF.
    pub fn of_kernel() -> Result<Self, BtfError> {
        Self::read(Path::new(VMLINUX))
    }

    /// Reads BTF from a file.
    pub fn read(path: &Path) -> Result<Self, BtfError> {
        let data = Bytes::read(path).map_err(|source| BtfError::Read { path: path.display().to_string(), source })?;
        Self::of(data)
    }

    /// Parses a blob.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        Self::of(data.into())
    }

    fn of(data: Bytes) -> Result<Self, BtfError> {
        if data.get(..2) != Some(&MAGIC.to_ne_bytes()) {
            return Err(BtfError::Magic);
        }
        let header = word(&data, 4)? as usize;
        if header < HEADER_BYTES {
            return Err(BtfError::Damaged { at: 4 });
        }
        let (mut at, end) = part(&data, header, 8)?;
        let strings = part(&data, header, 16)?;
        let mut types = Vec::with_capacity((end - at) / 24);
        while at < end {
            let ty = Type::read(&data, at)?;
            at = ty.extra + extra_bytes(ty)?;
            if at > end {
                return Err(BtfError::Damaged { at: ty.extra });
            }
            types.push(ty);
        }
        Ok(Self { data, strings, types })
    }

    /// The byte offset of a member, by a path such as `file.f_path.dentry`: a structure, then
    /// members, of which all but the last are structures themselves. Unnamed ones are looked through.
    pub fn offset(&self, path: &str) -> Result<u32, BtfError> {
        let place = self.place(path)?;
        if place.width == 0 && place.bits.is_multiple_of(8) { Ok(place.bits / 8) } else { Err(form(path)) }
    }

    /// The offset in bits of a member of less than a byte, which lies in one byte, by a path as for [`Btf::offset`]. It counts
    /// from the lowest bit of each byte, as bit fields lie on little-endian machines.
    pub fn bit(&self, path: &str) -> Result<u32, BtfError> {
        let place = self.place(path)?;
        if (1..8).contains(&place.width) && place.bits % 8 + place.width <= 8 {
            Ok(place.bits)
        } else {
            Err(form(path))
        }
    }

    /// Where a member is, by a path as for [`Btf::offset`].
    pub fn place(&self, path: &str) -> Result<Place, BtfError> {
        let (structure, members) = split(path);
        let mut ty = self.structure(structure)?;
        let mut bits = 0u32;
        let mut width = 0;
        for (index, name) in members.split('.').enumerate() {
            if name.is_empty() || (index > 0 && ty.is_none()) {
                return Err(no_member(path));
            }
            let found = match ty {
                Some(ty) => self.member(ty, name, 0)?,
                None => None,
            };
            let Some((place, target)) = found else {
                return Err(no_member(path));
            };
            bits = bits.checked_add(place.bits).ok_or_else(|| form(path))?;
            width = place.width;
            ty = self.aggregate(target);
        }
        Ok(Place { bits, width })
    }

    /// The number of the type of a function; `None` when the kernel has no such function, or tells nothing of it.
    pub fn function(&self, name: &str) -> Option<u32> {
        let found = self.types.iter().position(|ty| ty.kind() == kind::FUNCTION && self.is_named(ty.name, name));
        found.and_then(|index| u32::try_from(index + 1).ok())
    }

    /// The structure of this name that has members (a forward declaration has none).
    fn structure(&self, name: &str) -> Result<Option<Type>, BtfError> {
        let found =
            self.types.iter().find(|ty| ty.kind() == kind::STRUCT && ty.count() > 0 && self.is_named(ty.name, name));
        match found {
            Some(ty) => Ok(Some(*ty)),
            None => Err(BtfError::NoStructure { structure: name.into() }),
        }
    }

    /// The place and the type of a member, also of unnamed structures and unions inside.
    fn member(&self, ty: Type, name: &str, depth: u32) -> Result<Option<(Place, u32)>, BtfError> {
        if depth == DEPTH {
            return Err(BtfError::Damaged { at: ty.extra });
        }
        for index in 0..ty.count() {
            let at = ty.extra + index * MEMBER_BYTES;
            let own_name = word(&self.data, at)?;
            let target = word(&self.data, at + 4)?;
            let offset = word(&self.data, at + 8)?;
            let place = if ty.has_bit_fields() {
                Place { bits: offset & 0xff_ffff, width: offset >> 24 }
            } else {
                Place { bits: offset, width: 0 }
            };
            if self.is_named(own_name, name) {
                return Ok(Some((place, target)));
            }
            if !self.is_named(own_name, "") {
                continue;
            }
            let Some(inner) = self.aggregate(target) else {
                continue; // an unnamed bit field: padding
            };
            if let Some((found, target)) = self.member(inner, name, depth + 1)? {
                let bits = place.bits.checked_add(found.bits);
                let bits = bits.ok_or(BtfError::Damaged { at })?;
                return Ok(Some((Place { bits, ..found }, target)));
            }
        }
        Ok(None)
    }

    /// The structure or union behind aliases.
    fn aggregate(&self, mut number: u32) -> Option<Type> {
        for _ in 0..DEPTH {
            let ty = *self.types.get((number as usize).checked_sub(1)?)?;
            match ty.kind() {
                kind::STRUCT | kind::UNION => return Some(ty),
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    number = ty.target;
                }
                _ => return None,
            }
        }
        None
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        let strings = self.data.get(self.strings.0..self.strings.1).unwrap_or_default();
        let string = strings.get(at as usize..).unwrap_or_default();
        let rest = string.strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn split(path: &str) -> (&str, &str) {
    path.split_once('.').unwrap_or((path, ""))
}

fn no_member(path: &str) -> BtfError {
    let (structure, member) = split(path);
    BtfError::NoMember { structure: structure.into(), member: member.into() }
}

fn form(path: &str) -> BtfError {
    let (structure, member) = split(path);
    BtfError::Form { structure: structure.into(), member: member.into() }
}
