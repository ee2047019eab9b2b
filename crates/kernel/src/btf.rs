//! Reads the running kernel's type information (BTF): where the members of its structures are.
//!
//! BTF is a header, a row of types and a section of strings. A type has twelve bytes (name, kind
//! and count, size or referenced type) and an extra part whose size its kind tells; types are
//! numbered from 1 in their order, 0 is `void`. Source: the kernel's `Documentation/bpf/btf.rst`.
//!
//! Nothing in a blob is trusted: whatever is out of place is an error.

use std::{fs, io, path::Path};
use thiserror::Error;

/// Where a kernel publishes its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER_BYTES: usize = 24;
const TYPE_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;

/// How deep unnamed structures nest, and how long a chain of type aliases is, at most. The kernel's
/// own are far below; a blob with a cycle ends here.
const DEPTH: u32 = 32;

/// Why BTF could not be read, or does not hold what was asked for.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The blob does not begin as BTF of this machine's byte order does.
    #[error("not BTF of this machine's byte order")]
    Magic,
    /// A part of the blob reaches beyond its end.
    #[error("BTF is cut off or damaged near byte {at}")]
    Damaged {
        /// Where, in bytes from the beginning.
        at: usize,
    },
    /// A kind of type that this reader does not know, and whose size it therefore cannot know.
    #[error("BTF holds a kind of type ({kind}) that this program does not know: the kernel is newer than it")]
    Kind {
        /// The kind's number.
        kind: u32,
    },
    /// The kernel has no such structure.
    #[error("this kernel is not supported: it has no `struct {structure}`")]
    NoStructure {
        /// Its name.
        structure: String,
    },
    /// The structure has no such member.
    #[error("this kernel is not supported: its `struct {structure}` has no member `{member}`")]
    NoMember {
        /// The structure's name.
        structure: String,
        /// The member, with those that lead to it.
        member: String,
    },
    /// The member is a bit field where bytes were expected, or the other way round.
    #[error("this kernel is not supported: `{member}` of its `struct {structure}` is stored in another form")]
    Form {
        /// The structure's name.
        structure: String,
        /// The member, with those that lead to it.
        member: String,
    },
}

mod kind {
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

/// A place in a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bits from the start of the structure.
    pub bits: u32,
    /// Width of a bit field in bits; 0 for a member of whole bytes.
    pub width: u32,
}

/// One type: its head and where its extra part is.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    info: u32,
    /// The referenced type, for aliases.
    target: u32,
    extra: usize,
}

impl Type {
    fn kind(self) -> u32 {
        self.info >> 24 & 31
    }
    fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }
    /// Whether members keep the width of bit fields in the upper byte of their offset.
    fn has_bit_fields(self) -> bool {
        self.info >> 31 == 1
    }
}

/// A parsed blob of BTF.
pub struct Btf {
    data: Vec<u8>,
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
        let data = fs::read(path).map_err(|source| BtfError::Read { path: path.display().to_string(), source })?;
        Self::parse(data)
    }

    /// Parses a blob.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
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
            let ty = Type {
                name: word(&data, at)?,
                info: word(&data, at + 4)?,
                target: word(&data, at + 8)?,
                extra: at + TYPE_BYTES,
            };
            let extra = extra_bytes(ty)?;
            at = ty.extra + extra;
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

    /// A blob with the type aliases of these names under the numbers that they have here, and nothing else of meaning.
    ///
    /// A reader that knows the kernel's hundred thousand types takes its time; this one has hardly anything to read.
    pub fn typedefs_alone(&self, names: &[String]) -> Result<Vec<u8>, BtfError> {
        let mut strings = vec![0u8];
        let mut named = Vec::with_capacity(names.len());
        for name in names {
            let found = self.types.iter().position(|ty| ty.kind() == kind::TYPEDEF && self.is_named(ty.name, name));
            let index = found.ok_or_else(|| BtfError::NoStructure { structure: name.clone() })?;
            named.push((index, strings.len() as u32));
            strings.extend(name.bytes().chain([0]));
        }
        let count = named.iter().map(|(index, _)| index + 1).max().unwrap_or(0);
        let length = (count * TYPE_BYTES) as u32;
        let mut blob = Vec::with_capacity(HEADER_BYTES + length as usize + strings.len());
        blob.extend(MAGIC.to_ne_bytes());
        blob.extend([1, 0]); // version, flags
        for word in [HEADER_BYTES as u32, 0, length, length, strings.len() as u32] {
            blob.extend(word.to_ne_bytes());
        }
        let pointer_to_nothing = [0, kind::POINTER << 24, 0].map(u32::to_ne_bytes).concat();
        blob.extend(pointer_to_nothing.repeat(count));
        for (index, name) in named {
            let at = HEADER_BYTES + index * TYPE_BYTES;
            let alias = [name, kind::TYPEDEF << 24, 0].map(u32::to_ne_bytes).concat();
            if let Some(place) = blob.get_mut(at..at + TYPE_BYTES) {
                place.copy_from_slice(&alias);
            }
        }
        blob.extend(strings);
        Ok(blob)
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

/// How many bytes follow the twelve that every type has.
fn extra_bytes(ty: Type) -> Result<usize, BtfError> {
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

fn word(data: &[u8], at: usize) -> Result<u32, BtfError> {
    let bytes = data.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().map(u32::from_ne_bytes).ok_or(BtfError::Damaged { at })
}

/// Beginning and end of a part, whose offset behind the header and length are at `field`.
fn part(data: &[u8], header: usize, field: usize) -> Result<(usize, usize), BtfError> {
    let damaged = BtfError::Damaged { at: field };
    let start = header.checked_add(word(data, field)? as usize);
    let length = word(data, field + 4)? as usize;
    let Some((start, end)) = start.and_then(|start| Some((start, start.checked_add(length)?))) else {
        return Err(damaged);
    };
    if end > data.len() { Err(damaged) } else { Ok((start, end)) }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a blob as a compiler does.
    #[derive(Default)]
    struct Writer {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Writer {
        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32 + 1;
            self.strings.extend(name.bytes().chain([0]));
            at
        }
        fn words(&mut self, words: &[u32]) {
            words.iter().for_each(|word| self.types.extend(word.to_ne_bytes()));
        }
        /// Members are (name, type, bit offset, width of a bit field).
        fn aggregate(&mut self, kind: u32, name: &str, members: &[(&str, u32, u32, u32)]) {
            let bit_fields = members.iter().any(|member| member.3 > 0) as u32;
            let name = self.name(name);
            self.words(&[name, bit_fields << 31 | kind << 24 | members.len() as u32, 64]);
            for &(name, ty, bits, width) in members {
                let name = self.name(name);
                self.words(&[name, ty, width << 24 | bits]);
            }
        }
        fn alias(&mut self, kind: u32, name: &str, target: u32) {
            let name = self.name(name);
            self.words(&[name, kind << 24, target]);
        }
        fn blob(&self) -> Vec<u8> {
            let mut blob = MAGIC.to_ne_bytes().to_vec();
            blob.extend([1, 0]); // version, flags
            let types = self.types.len() as u32;
            for word in [24, 0, types, types, self.strings.len() as u32 + 1] {
                blob.extend(u32::to_ne_bytes(word));
            }
            blob.extend(&self.types);
            blob.push(0);
            blob.extend(&self.strings);
            blob
        }
    }

    /// ```c
    /// struct path { void *mnt, *dentry; };                       // 2
    /// struct file { int mode; union { path_t f_path; long raw; }; unsigned a:1, b:1, wide:3; };  // 5
    /// ```
    fn example() -> Writer {
        let mut w = Writer::default();
        w.alias(kind::POINTER, "", 0); // 1
        w.aggregate(kind::STRUCT, "path", &[("mnt", 1, 0, 0), ("dentry", 1, 64, 0)]); // 2
        w.alias(kind::CONST, "", 2); // 3
        w.alias(kind::TYPEDEF, "path_t", 3); // 4
        w.aggregate(kind::UNION, "", &[("f_path", 4, 0, 0), ("raw", 1, 0, 0)]); // 5
        w.aggregate(
            kind::STRUCT,
            "file",
            &[
                ("mode", 1, 0, 0),
                ("", 5, 64, 0),
                ("a", 1, 192, 1),
                ("b", 1, 193, 1),
                ("wide", 1, 194, 3),
                ("across", 1, 197, 4),
            ],
        );
        w.aggregate(kind::STRUCT, "empty", &[]);
        w
    }

    #[test]
    fn members_are_found_through_aliases_and_unnamed_unions() {
        let btf = Btf::parse(example().blob()).unwrap();
        assert_eq!(btf.offset("path.dentry").unwrap(), 8);
        assert_eq!(btf.offset("file.mode").unwrap(), 0);
        assert_eq!(btf.offset("file.f_path").unwrap(), 8);
        assert_eq!(btf.offset("file.f_path.dentry").unwrap(), 16);
        assert_eq!(btf.bit("file.b").unwrap(), 193);
        assert_eq!(btf.bit("file.wide").unwrap(), 194);
        assert_eq!(btf.place("file.wide").unwrap(), Place { bits: 194, width: 3 });
    }

    #[test]
    fn what_is_missing_is_named() {
        let btf = Btf::parse(example().blob()).unwrap();
        let table = [
            ("socket.type", "this kernel is not supported: it has no `struct socket`"),
            ("empty.x", "this kernel is not supported: it has no `struct empty`"),
            ("file.f_inode", "this kernel is not supported: its `struct file` has no member `f_inode`"),
            ("file.f_path.x", "this kernel is not supported: its `struct file` has no member `f_path.x`"),
            ("file.mode.x", "this kernel is not supported: its `struct file` has no member `mode.x`"),
            ("file", "this kernel is not supported: its `struct file` has no member ``"),
            ("file.a", "this kernel is not supported: `a` of its `struct file` is stored in another form"),
        ];
        for (path, message) in table {
            assert_eq!(btf.offset(path).unwrap_err().to_string(), message);
        }
        assert!(matches!(btf.bit("file.across"), Err(BtfError::Form { .. })));
        assert!(matches!(btf.bit("file.mode"), Err(BtfError::Form { .. })));
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        let mut w = example();
        w.alias(31, "later", 0);
        assert!(matches!(Btf::parse(w.blob()), Err(BtfError::Kind { kind: 31 })));
    }

    #[test]
    fn a_cycle_ends() {
        let mut w = Writer::default();
        w.alias(kind::TYPEDEF, "a", 2);
        w.alias(kind::TYPEDEF, "b", 1);
        w.aggregate(kind::STRUCT, "s", &[("x", 1, 0, 0), ("", 3, 0, 0)]);
        let btf = Btf::parse(w.blob()).unwrap();
        assert!(matches!(btf.offset("s.x.y"), Err(BtfError::NoMember { .. })));
        assert!(matches!(btf.offset("s.z"), Err(BtfError::Damaged { .. })));
    }

    /// Every cut, and every byte set to each of a few values: an answer or an error, never a panic.
    #[test]
    fn a_damaged_blob_is_survived() {
        let ask = |blob: &[u8]| {
            if let Ok(btf) = Btf::parse(blob.to_vec()) {
                for path in ["file.f_path.dentry", "file.b", "path.x", "empty.x"] {
                    let _ = (btf.offset(path), btf.bit(path));
                }
            }
        };
        let blob = example().blob();
        for length in 0..blob.len() {
            ask(&blob[..length]);
        }
        for at in 0..blob.len() {
            for value in [0, 1, 4, 5, 0x7f, 0x80, 0xff] {
                let mut changed = blob.clone();
                changed[at] = value;
                ask(&changed);
            }
        }
    }
}
