//! Numbers that files may call by a name.

use crate::{FieldId, NamedValue, names};

use super::protocols::PROTOCOLS;
use super::services::SERVICES;

/// Names for the values of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedNumbers {
    field: FieldId,
    /// What one of the values is called in messages.
    pub what: &'static str,
    names: &'static [NamedValue],
    /// Whether values are written by name.
    written: bool,
}

impl NamedNumbers {
    /// The names for values of the field.
    pub fn of(field: FieldId) -> Option<NamedNumbers> {
        let (what, names, written) = match field {
            FieldId::IP_PROTOCOL | FieldId::EMBEDDED_PROTOCOL => ("protocol", PROTOCOLS, true),
            FieldId::IP_LOCAL_PORT
            | FieldId::IP_REMOTE_PORT
            | FieldId::IP_SOURCE_PORT
            | FieldId::IP_DESTINATION_PORT
            | FieldId::EMBEDDED_LOCAL_PORT
            | FieldId::EMBEDDED_REMOTE_PORT => ("service", SERVICES, false),
            _ => ("value", field.named_values(), true),
        };
        (!names.is_empty()).then_some(NamedNumbers { field, what, names, written })
    }

    /// The number of a name, in any case of letters.
    pub fn number(&self, name: &str) -> Option<u64> {
        let listed = self.names.iter().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        listed.map(|(_, number)| *number).or_else(|| self.field.find_value(name)).map(u64::from)
    }

    /// The name by which a number is written, if it is.
    pub fn name(&self, number: u64) -> Option<&'static str> {
        let mut names = self.names.iter().filter(|_| self.written);
        names.find(|(_, candidate)| u64::from(*candidate) == number).map(|(name, _)| *name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().map(|(name, _)| *name)
    }

    /// The name that is nearest to a wrong one.
    pub fn nearest(&self, name: &str) -> Option<&'static str> {
        names::nearest(name, self.names()).or_else(|| self.field.nearest_value(name))
    }
}
