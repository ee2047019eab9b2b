//! How a control group (cgroup v2) is known: by the names on its path, hashed.
//!
//! Names of groups never change while a group lives, and its id is never given out again, so the programs read the names of a
//! group once and keep what they come to under its id. A group that is made later, or made again under the same name, is
//! known as soon as somebody in it is asked about.

use crate::hash::SipHash;

/// How many groups a path has at most, the root included. What is deeper is unreadable.
pub const LEVELS: usize = 16;

/// How many groups are remembered. The one that was asked about longest ago makes room: its sockets' owners are unreadable until
/// somebody in it is asked about again.
pub const NAMES_ENTRIES: u32 = 4096;

/// How many paths, units and containers policies may name, each path counting twice.
pub const CLASSES_ENTRIES: u32 = 8192;

/// How many network namespaces policies may name.
pub const NAMESPACES_ENTRIES: u32 = 1024;

/// What the names of a group come to, in the `GROUP_NAMES` map under its id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupNames {
    /// The group's id once more. It is written first, so that a reader can tell when another group has been given the memory.
    pub id: u64,
    /// How deep the group stands below the root, which has 0.
    pub depth: u64,
    /// The hash of the unit's name; 0: it is in none.
    pub unit: u64,
    /// The hash of the name of the outermost group that is a container's; 0: it is in none.
    pub container: u64,
    /// The hashes of the paths from the root to the group itself.
    pub paths: [u64; LEVELS],
}

/// What a policy names, in the `GROUP_CLASSES` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupKey {
    /// A number of [`kind`].
    pub kind: u64,
    /// The hash of a path or name.
    pub hash: u64,
}

/// What a [`GroupKey`] is about.
pub mod kind {
    /// The group of this path.
    pub const PATH: u64 = 1;
    /// The groups below this path.
    pub const BELOW: u64 = 2;
    /// The unit whose group has this name.
    pub const UNIT: u64 = 3;
    /// The container whose group has this name.
    pub const CONTAINER: u64 = 4;
}

/// The path of the root.
pub const ROOT: u64 = 0;

/// The path of a group by that of the group above and the hash of its own name.
#[inline(always)]
pub fn step(key: [u64; 2], above: u64, name: u64) -> u64 {
    let mut hash = SipHash::new(key);
    hash.word(above);
    hash.word(name);
    hash.finish(0, 16)[0]
}

/// The hash of a name: of its bytes from the first to the last.
#[must_use]
pub fn name(key: [u64; 2], name: &[u8]) -> u64 {
    let mut hash = SipHash::new(key);
    let mut words = name.chunks_exact(8);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte));
    for word in words.by_ref() {
        hash.word(number(word));
    }
    hash.finish(number(words.remainder()), name.len() as u64)[0]
}

/// The hash of a path: `/`, and names behind it.
#[must_use]
pub fn path(key: [u64; 2], path: &str) -> u64 {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.fold(ROOT, |above, part| step(key, above, name(key, part.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_of_names() {
        let key = [1, 2];
        assert_eq!(path(key, "/"), ROOT);
        let system = step(key, ROOT, name(key, b"system.slice"));
        assert_eq!(path(key, "/system.slice"), system);
        assert_eq!(path(key, "/system.slice/ssh.service"), step(key, system, name(key, b"ssh.service")));
        assert_ne!(path(key, "/a/b"), path(key, "/b/a"));
        assert_ne!(path(key, "/a/b"), path(key, "/ab"));
        assert_ne!(path(key, "/a"), path([1, 3], "/a"));
    }
}
