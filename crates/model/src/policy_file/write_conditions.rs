//! Conditions as files have them.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value as Json, json};

use crate::{FieldId, FilterCondition, Layer, LayerField, MatchType, Value};

use super::addresses;
use super::named_numbers::NamedNumbers;
use super::operand::{Kind, Subject};

/// The table `when`: the fields in the order in which they first appear.
pub(super) fn when(layer: &Layer, conditions: &[FilterCondition]) -> Map<String, Json> {
    let mut fields: Vec<FieldId> = Vec::new();
    for condition in conditions {
        if !fields.contains(&condition.field) {
            fields.push(condition.field);
        }
    }
    let mut table = Map::new();
    for field in fields {
        let of_field = conditions.iter().filter(|condition| condition.field == field);
        let items: Vec<Json> = match layer.field(field) {
            Some(layer_field) => of_field.map(|condition| item(layer_field, condition)).collect(),
            None => Vec::new(),
        };
        let value = match <[Json; 1]>::try_from(items) {
            Ok([item]) => item,
            Err(items) => items.into(),
        };
        table.insert(field.name().to_owned(), value);
    }
    table
}

/// One condition.
fn item(field: &LayerField, condition: &FilterCondition) -> Json {
    let subject = Subject::new(*field, field.field.name());
    let value = &condition.value;
    if *value == Value::Empty {
        return json!({"empty": true});
    }
    let plain = || operand(&subject, value);
    match condition.match_type {
        MatchType::Equal => plain(),
        MatchType::NotEqual => json!({"not": plain()}),
        MatchType::Greater => json!({"greater": plain()}),
        MatchType::Less => json!({"less": plain()}),
        MatchType::GreaterOrEqual => json!({"min": plain()}),
        MatchType::LessOrEqual => json!({"max": plain()}),
        MatchType::Range => range(&subject, value),
        MatchType::FlagsAllSet => json!({"all": bits(&subject, value)}),
        MatchType::FlagsAnySet => json!({"any": bits(&subject, value)}),
        MatchType::FlagsNoneSet => json!({"none": bits(&subject, value)}),
        MatchType::EqualCaseInsensitive => json!({"ignore_case": text_operand(&subject, value)}),
        MatchType::Prefix => json!({"prefix": text_operand(&subject, value)}),
        MatchType::NotPrefix => json!({"not": {"prefix": text_operand(&subject, value)}}),
    }
}

fn range(subject: &Subject, value: &Value) -> Json {
    let Value::Range(low, high) = value else { return Json::Null };
    let numbers = (low.as_integer(), high.as_integer());
    match (subject.kind, numbers, addresses::text(low), addresses::text(high)) {
        (Kind::Address, _, Some(low), Some(high)) => format!("{low}-{high}").into(),
        (Kind::Number, (Some(low), Some(high)), ..) => format!("{low}-{high}").into(),
        _ => json!({"min": operand(subject, low), "max": operand(subject, high)}),
    }
}

/// The names of bits, or their number where one has no name.
fn bits(subject: &Subject, value: &Value) -> Json {
    let mask = value.as_integer().unwrap_or(0);
    let mut names = Vec::new();
    let mut rest = mask;
    for (name, bit) in subject.field.field.flags() {
        if mask & u64::from(bit) != 0 {
            names.push(name);
            rest &= !u64::from(bit);
        }
    }
    match rest {
        0 if !names.is_empty() => names.into(),
        _ => mask.into(),
    }
}

/// A text in a place where the text of a field of applications is not taken for a path.
fn text_operand(subject: &Subject, value: &Value) -> Json {
    match (subject.kind, value) {
        (Kind::Application, Value::UnicodeString(text)) => text.as_str().into(),
        (Kind::Application, Value::Application(path)) => json!({"application": path}),
        _ => operand(subject, value),
    }
}

fn operand(subject: &Subject, value: &Value) -> Json {
    if subject.kind == Kind::Address
        && let Some(text) = addresses::text(value)
    {
        return text.into();
    }
    match value {
        Value::Uint8(_) | Value::Uint16(_) | Value::Uint32(_) | Value::Uint64(_) => {
            let number = value.as_integer().unwrap_or(0);
            match NamedNumbers::of(subject.field.field).and_then(|named| named.name(number)) {
                Some(name) => name.into(),
                None => number.into(),
            }
        }
        Value::ByteArray16(bytes) => crate::Guid::from_u128(u128::from_be_bytes(*bytes)).to_string().into(),
        Value::ByteBlob(bytes) => json!({"hex": HEXLOWER.encode(bytes)}),
        Value::UnicodeString(text) if subject.kind == Kind::Application => json!({"text": text}),
        Value::User(uid) => (*uid).into(),
        Value::Group(gid) => json!({"group": gid}),
        Value::ByteArray6(_)
        | Value::Sid(_)
        | Value::SecurityDescriptor(_)
        | Value::UnicodeString(_)
        | Value::Application(_) => value.to_string().into(),
        Value::Empty | Value::V4AddrMask { .. } | Value::V6AddrMask { .. } | Value::Range(..) => Json::Null,
    }
}
