//! Unix sockets made outside that the group may speak to all the same.

/// How many files, and how many names, can be let through.
pub const UNIX_ENTRIES: u32 = 256;

/// The longest abstract name, in bytes without the leading zero (`sun_path` less one).
pub const NAME_BYTES: usize = 107;

/// The file at which a socket was bound: its file system and its number there. A file that is renamed stays the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketFile {
    /// The inode's number.
    pub inode: u64,
    /// The kernel's own device number, `major << 20 | minor`: the one in `/proc/self/mountinfo`.
    pub device: u32,
    /// Always zero: keys are compared byte by byte.
    pub zero: u32,
}

/// Where the run has a file system of its own, in which no link is followed and nobody else makes sockets, with its `/`; on
/// kernels where the peer's socket cannot be looked at.
pub const PRIVATE_FOLDER: &str = "/run/wfp/";

/// A path, as it is given to `connect()`; a key of the same form as an abstract name.
pub type SocketPath = AbstractName;

/// An abstract name. Names belong to a network namespace, in which whoever comes first has them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AbstractName {
    /// How many bytes the name has, with the zero before it.
    pub length: u64,
    /// The zero, the name, and zeros up to the end; in memory order.
    pub bytes: [u64; 16],
}

impl AbstractName {
    /// The key of a name, which is given without the zero before it; `None` when it is too long.
    pub fn new(name: &[u8]) -> Option<Self> {
        Self::at(name, 1)
    }

    /// The key of a path; `None` when it is too long.
    pub fn path(path: &[u8]) -> Option<Self> {
        Self::at(path, 0)
    }

    fn at(name: &[u8], zeros: usize) -> Option<Self> {
        let mut bytes = [0; 128];
        if name.len() > NAME_BYTES {
            return None;
        }
        bytes.get_mut(zeros..zeros + name.len())?.copy_from_slice(name);
        let (words, _) = bytes.as_chunks::<8>();
        let mut key = Self { length: (name.len() + zeros) as u64, bytes: [0; 16] };
        key.bytes.iter_mut().zip(words).for_each(|(word, bytes)| *word = u64::from_ne_bytes(*bytes));
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_kernel_has_with_its_zero() {
        let key = AbstractName::new(b"ab").unwrap();
        assert_eq!((key.length, key.bytes[0].to_ne_bytes()), (3, *b"\0ab\0\0\0\0\0"));
        assert_eq!(AbstractName::new(&[b'x'; NAME_BYTES]).unwrap().length, 108);
        assert_eq!(AbstractName::new(&[b'x'; NAME_BYTES + 1]), None);
    }
}
