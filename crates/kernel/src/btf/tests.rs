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
/// struct file { int mode; union { path_t f_path; long raw; }; unsigned a:1, b:1, wide:3, across:4; };  // 5
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
