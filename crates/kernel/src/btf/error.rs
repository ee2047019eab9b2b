//! What can be wrong with BTF, or missing in it.

use std::io;
use thiserror::Error;

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
