//! What objects of every kind have in common: a key, a name, a description, and the errors about them.

use std::fmt;

use crate::{FwpError, Guid};

/// What is wrong with an object, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// There is no name.
    #[error("the {0} has no name: give it one, for people")]
    NoName(ObjectKind),
    /// A name or a description holds characters that cannot be printed.
    #[error("the {part} of the {kind} holds a character that cannot be printed ({character:?}): leave it out")]
    Unprintable {
        /// The kind of the object.
        kind: ObjectKind,
        /// `name` or `description`.
        part: &'static str,
        /// The first such character.
        character: char,
    },
    /// The key is all zeros, which names no object.
    #[error("the key of the {0} is all zeros, which names no object: leave the key out to have one made from the name")]
    ZeroKey(ObjectKind),
    /// The key is one of the platform's own.
    #[error("{key} is the key of the built-in {kind} {name}: choose another")]
    BuiltInKey {
        /// The kind of the object.
        kind: ObjectKind,
        /// The key.
        key: Guid,
        /// The name of the built-in object.
        name: &'static str,
    },
    /// The flags have bits that mean nothing.
    #[error("the flags of the {kind} have unknown bits ({bits:#x}): clear them")]
    UnknownFlags {
        /// The kind of the object.
        kind: ObjectKind,
        /// The bits.
        bits: u32,
    },
    /// A flag is given that only the platform sets.
    #[error("the flag {flag} of the {kind} is set by the platform alone: leave it out")]
    FlagNotSettable {
        /// The kind of the object.
        kind: ObjectKind,
        /// The flag.
        flag: &'static str,
    },
    /// The executable of a callout has no absolute path.
    #[error("the host `{0}` of the callout is no absolute path: begin it with `/`")]
    RelativeHost(String),
}

impl ObjectError {
    /// The public error for it.
    pub fn fwp_error(&self) -> Option<FwpError> {
        match self {
            ObjectError::NoName(_) => Some(FwpError::NullDisplayName),
            ObjectError::Unprintable { .. } => Some(FwpError::InvalidParameter),
            ObjectError::ZeroKey(_) => Some(FwpError::InvalidParameter),
            ObjectError::BuiltInKey { .. } => Some(FwpError::AlreadyExists),
            ObjectError::UnknownFlags { .. } | ObjectError::FlagNotSettable { .. } => Some(FwpError::InvalidFlags),
            ObjectError::RelativeHost(_) => None,
        }
    }
}

/// The kinds of objects that can be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A provider.
    Provider,
    /// A provider context.
    ProviderContext,
    /// A sublayer.
    Sublayer,
    /// A callout.
    Callout,
    /// A filter.
    Filter,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ObjectKind::Provider => "provider",
            ObjectKind::ProviderContext => "provider context",
            ObjectKind::Sublayer => "sublayer",
            ObjectKind::Callout => "callout",
            ObjectKind::Filter => "filter",
        })
    }
}

impl ObjectKind {
    /// Refuses a name or description that the platform refuses.
    pub(crate) fn check_text(self, name: &str, description: &str) -> Result<(), ObjectError> {
        if name.trim().is_empty() {
            return Err(ObjectError::NoName(self));
        }
        let unprintable = |part, character| ObjectError::Unprintable { kind: self, part, character };
        if let Some(character) = name.chars().find(|c| c.is_control()) {
            return Err(unprintable("name", character));
        }
        match description.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
            Some(character) => Err(unprintable("description", character)),
            None => Ok(()),
        }
    }

    /// The key of an object: the one given, else one made from the provider and the name.
    pub(crate) fn key(self, given: Option<Guid>, provider: Option<Guid>, name: &str) -> Result<Guid, ObjectError> {
        match given {
            Some(Guid::ZERO) => Err(ObjectError::ZeroKey(self)),
            Some(key) => Ok(key),
            None => Ok(Guid::named(&format!("{self} of {}", provider.unwrap_or(Guid::ZERO)), name)),
        }
    }

    /// Refuses bits that mean nothing.
    pub(crate) fn check_flags<F: bitflags::Flags<Bits = u32>>(self, flags: F) -> Result<(), ObjectError> {
        match flags.bits() & !F::all().bits() {
            0 => Ok(()),
            bits => Err(ObjectError::UnknownFlags { kind: self, bits }),
        }
    }
}
