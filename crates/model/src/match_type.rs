//! How a condition compares.

use std::fmt;

use crate::{DataType, FieldType, LayerField};

/// How the value of a field is compared with the value of a condition (`FWP_MATCH_TYPE`), with its public number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum MatchType {
    /// Equal; with a network: the address lies in it; with a security descriptor: it grants the right to match.
    Equal = 0,
    /// The value of the field is greater.
    Greater = 1,
    /// The value of the field is less.
    Less = 2,
    /// The value of the field is greater or equal.
    GreaterOrEqual = 3,
    /// The value of the field is less or equal.
    LessOrEqual = 4,
    /// Within a range, ends included.
    Range = 5,
    /// All of the bits are set.
    FlagsAllSet = 6,
    /// At least one of the bits is set.
    FlagsAnySet = 7,
    /// None of the bits is set.
    FlagsNoneSet = 8,
    /// Equal, where letters of either case are equal.
    EqualCaseInsensitive = 9,
    /// The opposite of EQUAL, for a field that has a value.
    NotEqual = 10,
    /// On text: the value of the field **ends** with that of the condition. The platform's name misleads, as its own
    /// documentation says. Ours: on an address, it lies in the network; on a control group, it is the group or below it.
    Prefix = 11,
    /// The opposite of PREFIX, for a field that has a value.
    NotPrefix = 12,
}

impl MatchType {
    /// Every match type, by number.
    pub const ALL: [MatchType; 13] = [
        MatchType::Equal,
        MatchType::Greater,
        MatchType::Less,
        MatchType::GreaterOrEqual,
        MatchType::LessOrEqual,
        MatchType::Range,
        MatchType::FlagsAllSet,
        MatchType::FlagsAnySet,
        MatchType::FlagsNoneSet,
        MatchType::EqualCaseInsensitive,
        MatchType::NotEqual,
        MatchType::Prefix,
        MatchType::NotPrefix,
    ];

    /// The public name, such as `FWP_MATCH_EQUAL`.
    pub const fn name(self) -> &'static str {
        match self {
            MatchType::Equal => "FWP_MATCH_EQUAL",
            MatchType::Greater => "FWP_MATCH_GREATER",
            MatchType::Less => "FWP_MATCH_LESS",
            MatchType::GreaterOrEqual => "FWP_MATCH_GREATER_OR_EQUAL",
            MatchType::LessOrEqual => "FWP_MATCH_LESS_OR_EQUAL",
            MatchType::Range => "FWP_MATCH_RANGE",
            MatchType::FlagsAllSet => "FWP_MATCH_FLAGS_ALL_SET",
            MatchType::FlagsAnySet => "FWP_MATCH_FLAGS_ANY_SET",
            MatchType::FlagsNoneSet => "FWP_MATCH_FLAGS_NONE_SET",
            MatchType::EqualCaseInsensitive => "FWP_MATCH_EQUAL_CASE_INSENSITIVE",
            MatchType::NotEqual => "FWP_MATCH_NOT_EQUAL",
            MatchType::Prefix => "FWP_MATCH_PREFIX",
            MatchType::NotPrefix => "FWP_MATCH_NOT_PREFIX",
        }
    }

    /// Whether conditions on the field may compare in this way (whether the value fits too is for
    /// [`FilterCondition::check`](crate::FilterCondition::check)).
    ///
    /// Source: MS docs, `FWP_MATCH_TYPE`. Where ours differs: NOT_EQUAL is allowed on every type, as real machines use it
    /// on SIDs; blobs are not sorted, since what they stand for here has no order; case is also ignored in blobs
    /// that hold text, since no layer has a field of the text type; PREFIX is also allowed on addresses. Fields of
    /// [`extension`](crate::extension) have their own rules.
    pub fn allowed_for(self, field: &LayerField) -> bool {
        if let Some(allowed) = crate::extension::allows(field.field, self) {
            return allowed;
        }
        let integer = field.data_type.integer_bits().is_some();
        let text = matches!(field.data_type, DataType::ByteBlob | DataType::UnicodeString);
        match self {
            MatchType::Equal | MatchType::NotEqual => true,
            MatchType::Greater
            | MatchType::Less
            | MatchType::GreaterOrEqual
            | MatchType::LessOrEqual
            | MatchType::Range => integer || field.data_type == DataType::ByteArray16,
            MatchType::FlagsAllSet | MatchType::FlagsAnySet | MatchType::FlagsNoneSet => integer,
            MatchType::EqualCaseInsensitive => text,
            MatchType::Prefix | MatchType::NotPrefix => text || field.field_type == FieldType::IpAddress,
        }
    }
}

impl fmt::Display for MatchType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{address, flags, raw};
    use crate::{FieldId, MatchType::*};

    /// MS docs: FWP_MATCH_TYPE, with our differences.
    #[test]
    fn which_fields_allow_which_match_types() {
        let order = [Greater, Less, GreaterOrEqual, LessOrEqual, Range];
        let bits = [FlagsAllSet, FlagsAnySet, FlagsNoneSet];
        let network = [Prefix, NotPrefix];
        let text = [EqualCaseInsensitive, Prefix, NotPrefix];
        let cases: [(LayerField, &[&[MatchType]]); 9] = [
            (raw(FieldId::IP_PROTOCOL, DataType::Uint8), &[&order, &bits]),
            (raw(FieldId::IP_REMOTE_PORT, DataType::Uint16), &[&order, &bits]),
            (raw(FieldId::IP_LOCAL_INTERFACE, DataType::Uint64), &[&order, &bits]),
            (flags(FieldId::FLAGS, DataType::Uint32), &[&order, &bits]),
            (address(FieldId::IP_REMOTE_ADDRESS, DataType::Uint32), &[&order, &bits, &network]),
            (address(FieldId::IP_REMOTE_ADDRESS, DataType::ByteArray16), &[&order, &network]),
            (raw(FieldId::MAC_LOCAL_ADDRESS, DataType::ByteArray6), &[]),
            (raw(FieldId::ALE_APP_ID, DataType::ByteBlob), &[&text]),
            (raw(FieldId::ALE_USER_ID, DataType::TokenAccessInformation), &[]),
        ];
        for (field, expected) in cases {
            for match_type in MatchType::ALL {
                let allowed =
                    matches!(match_type, Equal | NotEqual) || expected.iter().any(|group| group.contains(&match_type));
                assert_eq!(match_type.allowed_for(&field), allowed, "{match_type} on {field:?}");
            }
        }
    }
}
