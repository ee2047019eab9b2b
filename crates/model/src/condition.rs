//! Conditions: what must hold for a filter to match.

use std::fmt;

use crate::names::excerpt;
use crate::{DataType, FieldId, FieldType, FwpError, IpVersion, Layer, LayerField, MatchType, Value, extension};

/// One test of one field (`FWPM_FILTER_CONDITION0`).
///
/// Conditions of a filter on one field are OR-ed, fields are AND-ed; a filter without conditions matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilterCondition {
    /// What is tested.
    pub field: FieldId,
    /// How it is compared.
    pub match_type: MatchType,
    /// What it is compared with.
    pub value: Value,
}

impl FilterCondition {
    /// A condition; whether it makes sense is for [`check`](FilterCondition::check), which filters ask.
    pub fn new(field: FieldId, match_type: MatchType, value: Value) -> FilterCondition {
        FilterCondition { field, match_type, value }
    }

    /// The condition that the field equals the value.
    pub fn equal(field: FieldId, value: Value) -> FilterCondition {
        FilterCondition::new(field, MatchType::Equal, value)
    }

    /// Whether the condition may stand at the layer.
    ///
    /// In general the value has the type of the field. Source of that rule and its exceptions: MS docs, `FWP_MATCH_TYPE`;
    /// ours are applications, users and groups, text for blobs, and the empty value, which EQUAL may ask for on any field.
    pub fn check(&self, layer: &'static Layer) -> Result<(), ConditionError> {
        let field = layer.field(self.field).ok_or(ConditionError::NoSuchField { field: self.field, layer })?;
        if self.value == Value::Empty {
            return match self.match_type {
                MatchType::Equal => Ok(()),
                match_type => Err(ConditionError::EmptyNotEqual { field: self.field, match_type }),
            };
        }
        if !self.match_type.allowed_for(field) {
            let match_type = self.match_type;
            return Err(ConditionError::MatchType { field: *field, match_type });
        }
        self.check_value(layer, field)?;
        self.check_operand(field)
    }

    /// Whether the value is of a type that the field can be compared with, and whole in itself.
    fn check_value(&self, layer: &'static Layer, field: &LayerField) -> Result<(), ConditionError> {
        let invalid_text = |text: &str| ConditionError::Text { field: self.field, text: excerpt(text) };
        match &self.value {
            Value::Range(low, high) => {
                if low.data_type() != field.data_type || high.data_type() != field.data_type {
                    return Err(wrong_type(layer, field, if low.data_type() == field.data_type { high } else { low }));
                }
                if is_reversed(low, high) {
                    return Err(ConditionError::ReversedRange {
                        field: self.field,
                        low: low.display(field).to_string(),
                        high: high.display(field).to_string(),
                    });
                }
            }
            value if !fits(value, field) => return Err(wrong_type(layer, field, value)),
            Value::V4AddrMask { prefix, .. } if *prefix > 32 => {
                return Err(ConditionError::Prefix { field: self.field, prefix: *prefix, longest: 32 });
            }
            Value::V6AddrMask { prefix, .. } if *prefix > 128 => {
                return Err(ConditionError::Prefix { field: self.field, prefix: *prefix, longest: 128 });
            }
            Value::Application(path) if !path.starts_with('/') => {
                return Err(ConditionError::RelativePath { field: self.field, path: excerpt(path) });
            }
            Value::UnicodeString(text) if self.field.is_extension() => {
                if let Err(problem) = extension::check(self.field, text) {
                    return Err(ConditionError::Extension { field: self.field, text: excerpt(text), problem });
                }
            }
            Value::Uint32(0) if self.field == FieldId::LINUX_NETWORK_NAMESPACE => {
                let problem = "no namespace has this number";
                return Err(ConditionError::Extension { field: self.field, text: "0".to_owned(), problem });
            }
            Value::Application(text) | Value::UnicodeString(text) if text.is_empty() || text.contains('\0') => {
                return Err(invalid_text(text));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the match type can use a value of this form.
    fn check_operand(&self, field: &LayerField) -> Result<(), ConditionError> {
        let network = matches!(self.value, Value::V4AddrMask { .. } | Value::V6AddrMask { .. });
        let range = matches!(self.value, Value::Range(..));
        let fits = match self.match_type {
            MatchType::Equal | MatchType::NotEqual => !range,
            MatchType::Range => range,
            MatchType::Prefix | MatchType::NotPrefix if field.field_type == FieldType::IpAddress => network,
            _ => !range && !network,
        };
        match fits {
            true => Ok(()),
            false => Err(ConditionError::Operand {
                field: self.field,
                match_type: self.match_type,
                value: self.value.data_type(),
            }),
        }
    }
}

/// Whether values of that form can be compared with the field, leaving ranges aside.
fn fits(value: &Value, field: &LayerField) -> bool {
    let address = field.field_type == FieldType::IpAddress;
    let token = matches!(field.data_type, DataType::TokenInformation | DataType::TokenAccessInformation);
    match value {
        Value::V4AddrMask { .. } => address && field.data_type == DataType::Uint32,
        Value::V6AddrMask { .. } => address && field.data_type == DataType::ByteArray16,
        Value::SecurityDescriptor(_) => token,
        Value::User(_) => holds_user(field.field) && (token || field.data_type == DataType::Sid),
        Value::Group(_) => holds_user(field.field) && token,
        Value::Application(_) => holds_application(field.field),
        Value::UnicodeString(_) => {
            matches!(field.data_type, DataType::ByteBlob | DataType::UnicodeString)
        }
        value => value.data_type() == field.data_type,
    }
}

fn holds_application(field: FieldId) -> bool {
    matches!(field, FieldId::ALE_APP_ID | FieldId::ALE_ORIGINAL_APP_ID)
}

fn holds_user(field: FieldId) -> bool {
    matches!(
        field,
        FieldId::ALE_USER_ID | FieldId::ALE_REMOTE_USER_ID | FieldId::REMOTE_USER_TOKEN | FieldId::CLIENT_TOKEN
    )
}

/// Ends of other types than the field's are compared nowhere, so their order does not matter.
fn is_reversed(low: &Value, high: &Value) -> bool {
    match (low, high) {
        (Value::ByteArray16(low), Value::ByteArray16(high)) => low > high,
        _ => low.as_integer() > high.as_integer(),
    }
}

fn wrong_type(layer: &'static Layer, field: &LayerField, value: &Value) -> ConditionError {
    let version = match (field.field_type, value) {
        (FieldType::IpAddress, Value::V4AddrMask { .. } | Value::Uint32(_)) => Some(IpVersion::V4),
        (FieldType::IpAddress, Value::V6AddrMask { .. } | Value::ByteArray16(_)) => Some(IpVersion::V6),
        _ => None,
    };
    match version {
        Some(version) => ConditionError::IpVersion { field: field.field, version, layer },
        None => ConditionError::Type { field: *field, value: value.data_type() },
    }
}

/// What is wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// The layer does not have the field.
    #[error("{} has no field {field}{}", .layer.name, instead(*.field, .layer))]
    NoSuchField {
        /// The field.
        field: FieldId,
        /// The layer.
        layer: &'static Layer,
    },
    /// The field cannot be compared in that way.
    #[error("{} holds {}, which {match_type} does not compare: use {}", .field.field, .field.data_type, allowed(.field))]
    MatchType {
        /// The field.
        field: LayerField,
        /// The match type.
        match_type: MatchType,
    },
    /// The value cannot be compared with the field.
    #[error("{} takes {}, not {value}", .field.field, accepted(.field))]
    Type {
        /// The field.
        field: LayerField,
        /// The type of the value.
        value: DataType,
    },
    /// The address is of the other version of IP.
    #[error("{} never sees IP{} addresses: move the condition on {field} to the layer for them", .layer.name, version_name(*.version))]
    IpVersion {
        /// The field.
        field: FieldId,
        /// The version of the address.
        version: IpVersion,
        /// The layer.
        layer: &'static Layer,
    },
    /// The match type cannot use a value of that form.
    #[error("{match_type} on {field} cannot use {value}: {}", operand_advice(*.match_type, *.value))]
    Operand {
        /// The field.
        field: FieldId,
        /// The match type.
        match_type: MatchType,
        /// The type of the value.
        value: DataType,
    },
    /// Only EQUAL can ask for the empty value.
    #[error("{match_type} on {field} cannot use the empty value: only FWP_MATCH_EQUAL can")]
    EmptyNotEqual {
        /// The field.
        field: FieldId,
        /// The match type.
        match_type: MatchType,
    },
    /// The range begins after its end.
    #[error("the range {low}-{high} on {field} begins after its end: swap the ends")]
    ReversedRange {
        /// The field.
        field: FieldId,
        /// The first end.
        low: String,
        /// The second end.
        high: String,
    },
    /// The prefix of the network is too long.
    #[error("the prefix of {prefix} bits on {field} is longer than an address: use 0 to {longest}")]
    Prefix {
        /// The field.
        field: FieldId,
        /// Its length.
        prefix: u8,
        /// The greatest length.
        longest: u8,
    },
    /// The path of an application is not absolute.
    #[error("the application `{path}` on {field} is no absolute path: begin it with `/`")]
    RelativePath {
        /// The field.
        field: FieldId,
        /// The beginning of the path, escaped.
        path: String,
    },
    /// The field is one of ours, and cannot have that value.
    #[error("{field} cannot be `{text}` ({problem})")]
    Extension {
        /// The field.
        field: FieldId,
        /// The beginning of the value, escaped.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The text is empty or holds a zero.
    #[error("the text `{text}` on {field} is empty or holds a zero byte, which no such value does")]
    Text {
        /// The field.
        field: FieldId,
        /// The beginning of the text, escaped.
        text: String,
    },
}

impl ConditionError {
    /// The public error for it.
    pub fn fwp_error(&self) -> Option<FwpError> {
        Some(match self {
            ConditionError::NoSuchField { .. } => FwpError::ConditionNotFound,
            ConditionError::MatchType { .. }
            | ConditionError::Operand { .. }
            | ConditionError::EmptyNotEqual { .. } => FwpError::MatchTypeMismatch,
            ConditionError::Type { .. } | ConditionError::IpVersion { .. } => FwpError::TypeMismatch,
            ConditionError::ReversedRange { .. } => FwpError::InvalidRange,
            ConditionError::Prefix { .. } => FwpError::InvalidNetMask,
            ConditionError::RelativePath { .. } | ConditionError::Text { .. } | ConditionError::Extension { .. } => {
                FwpError::InvalidParameter
            }
        })
    }
}

/// What to use instead of a field that a layer lacks: layers name the ends of a packet in three ways.
fn instead(field: FieldId, layer: &Layer) -> String {
    const ENDS: [[FieldId; 3]; 4] = [
        [FieldId::IP_LOCAL_ADDRESS, FieldId::IP_SOURCE_ADDRESS, FieldId::IP_DESTINATION_ADDRESS],
        [FieldId::IP_REMOTE_ADDRESS, FieldId::IP_SOURCE_ADDRESS, FieldId::IP_DESTINATION_ADDRESS],
        [FieldId::IP_LOCAL_PORT, FieldId::IP_SOURCE_PORT, FieldId::IP_DESTINATION_PORT],
        [FieldId::IP_REMOTE_PORT, FieldId::IP_SOURCE_PORT, FieldId::IP_DESTINATION_PORT],
    ];
    let has = |field: &FieldId| layer.field(*field).is_some();
    let ends = ENDS.iter().filter(|ends| ends.contains(&field)).flatten();
    let mut names: Vec<&str> = ends.filter(|end| has(end)).map(|end| end.name()).collect();
    names.dedup();
    match (names.is_empty(), layer.nearest_field(field.name())) {
        (false, _) => format!(": it has {}", names.join(" and ")),
        (true, Some(nearest)) => format!(": the nearest is {nearest}"),
        (true, None) => String::new(),
    }
}

fn allowed(field: &LayerField) -> String {
    let names = MatchType::ALL.iter().filter(|match_type| match_type.allowed_for(field));
    names.map(|match_type| match_type.name()).collect::<Vec<_>>().join(", ")
}

fn accepted(field: &LayerField) -> String {
    let mut types = match field.data_type {
        DataType::TokenInformation | DataType::TokenAccessInformation => {
            vec![DataType::SecurityDescriptor.name()]
        }
        DataType::ByteBlob => vec![DataType::ByteBlob.name(), "text"],
        other => vec![other.name()],
    };
    match (field.field_type, field.data_type) {
        (FieldType::IpAddress, DataType::Uint32) => types.push(DataType::V4AddrMask.name()),
        (FieldType::IpAddress, DataType::ByteArray16) => types.push(DataType::V6AddrMask.name()),
        _ => {}
    }
    if MatchType::Range.allowed_for(field) {
        types.push("a range of it");
    }
    if holds_application(field.field) {
        types.push("an application");
    }
    if holds_user(field.field) {
        types.push("a user");
    }
    types.join(", ")
}

fn operand_advice(match_type: MatchType, value: DataType) -> &'static str {
    match (match_type, value) {
        (MatchType::Range, _) => "give a range",
        (_, DataType::Range) => "ranges are for FWP_MATCH_RANGE",
        (MatchType::Prefix | MatchType::NotPrefix, _) => "give a network",
        _ => "give a single value",
    }
}

fn version_name(version: IpVersion) -> impl fmt::Display {
    match version {
        IpVersion::V4 => "v4",
        IpVersion::V6 => "v6",
    }
}
