//! Fields: what a condition can test.

use std::fmt;

use crate::extension::EXTENSION_FIELDS;
use crate::generated::fields::{FIELD_ALIASES, FIELDS};
use crate::{Guid, names};

/// A field (`FWPM_CONDITION_*`). The same field may stand at many layers, and has its type from the layer.
///
/// The numbers are dense, start at 0, and hold for this build alone: they do not belong in files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub(crate) u16);

impl FieldId {
    /// Every field: those of the platform in the order of their names, then [ours](crate::extension).
    pub fn all() -> impl ExactSizeIterator<Item = FieldId> {
        (0..(FIELDS.len() + EXTENSION_FIELDS.len()) as u16).map(FieldId)
    }

    /// The number, below `FieldId::all().len()`.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The public name without `FWPM_CONDITION_`.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// The public key.
    pub fn key(self) -> Guid {
        Guid::from_u128(self.entry().1)
    }

    fn entry(self) -> (&'static str, u128) {
        let number = usize::from(self.0);
        FIELDS.get(number).copied().unwrap_or_else(|| EXTENSION_FIELDS[number - FIELDS.len()])
    }

    /// The field of that name, alias (`ICMP_TYPE`) or GUID, in any case, with or without `FWPM_CONDITION_`.
    pub fn find(name: &str) -> Option<FieldId> {
        let short = names::without_prefix(name, PREFIX);
        let by_name = || FieldId::all().find(|field| field.name().eq_ignore_ascii_case(short));
        let by_alias =
            || FieldId::aliases().find(|(alias, _)| alias.eq_ignore_ascii_case(short)).map(|(_, field)| field);
        let by_key = || name.parse().ok().and_then(|key: Guid| FieldId::all().find(|field| field.key() == key));
        by_name().or_else(by_alias).or_else(by_key)
    }

    /// The second names that the platform gives to some fields.
    pub fn aliases() -> impl Iterator<Item = (&'static str, FieldId)> {
        FIELD_ALIASES.iter().copied()
    }

    /// The name or alias of a field that is nearest to a wrong name.
    pub fn nearest(name: &str) -> Option<&'static str> {
        let all = FieldId::all().map(FieldId::name).chain(FieldId::aliases().map(|(alias, _)| alias));
        names::nearest(names::without_prefix(name, PREFIX), all)
    }
}

const PREFIX: &str = "FWPM_CONDITION_";

impl fmt::Display for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
