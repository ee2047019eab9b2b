//! Events with typed values, and the words that they become.

use super::{CompiledPolicy, Encoding, FieldWords, Schema, lower};
use crate::{EMPTY, UNKNOWN, Values, words};
use openwfp_model::{DataType, FieldId, LayerId, Value};
use std::{collections::BTreeMap, vec::Vec};

/// One value of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventValue {
    /// It is this.
    Known(Value),
    /// It exists, but is not known.
    Unknown,
}

/// What happened at a layer, with typed values. Fields that are not given are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The layer.
    pub layer: LayerId,
    /// The values.
    pub values: BTreeMap<FieldId, EventValue>,
    /// The groups that the user of `ALE_USER_ID` is in.
    pub groups: Vec<u32>,
}

impl Event {
    /// An event of which nothing is known yet.
    #[must_use]
    pub fn new(layer: LayerId) -> Self {
        Self { layer, values: BTreeMap::new(), groups: Vec::new() }
    }

    /// The same event with one more value.
    #[must_use]
    pub fn with(mut self, field: FieldId, value: Value) -> Self {
        self.values.insert(field, EventValue::Known(value));
        self
    }
}

impl CompiledPolicy {
    /// The words of an event, in the class numbers of this policy.
    #[must_use]
    pub fn values(&self, event: &Event) -> Values {
        let mut values = Values::new();
        let schema = Schema::of(event.layer);
        for (&field, value) in &event.values {
            let Some(words) = schema.field(field) else { continue };
            match value {
                EventValue::Known(value) => self.write(&mut values, words, value, &event.groups),
                EventValue::Unknown => set_unknown(&mut values, words),
            }
        }
        values
    }

    fn write(&self, values: &mut Values, field: FieldWords, value: &Value, gids: &[u32]) {
        if *value == Value::Empty {
            return;
        }
        match field.encoding {
            Encoding::Number => {
                let number = lower::number(value).unwrap_or_default();
                for word in 0..field.count {
                    values.set(field.first + word, lower::word_of(field, number, word));
                }
            }
            Encoding::Class => values.set(field.first, self.classes.class(field.field, value)),
            Encoding::User => {
                if let Value::User(uid) = value {
                    values.set(field.first, *uid);
                    let bits = self.groups.words(gids);
                    values.set(words::GROUPS, bits[0]);
                    values.set(words::GROUPS + 1, bits[1]);
                }
            }
        }
    }

    /// The typed value of a field; `None` where it is empty, unknown, or of a class that has no name.
    #[must_use]
    pub fn value(&self, layer: LayerId, field: FieldId, values: &Values) -> Option<Value> {
        let words = Schema::of(layer).field(field)?;
        match words.encoding {
            Encoding::Class => self.classes.example(field, number(values, words)? as u32),
            Encoding::Number | Encoding::User => decode(layer, field, values),
        }
    }
}

fn number(values: &Values, words: FieldWords) -> Option<u128> {
    let mut number = 0u128;
    for word in 0..words.count {
        let value = values.get(words.first + word);
        if value >= EMPTY {
            return None;
        }
        number = number << 32 | value as u128;
    }
    Some(number)
}

/// The typed value of a field whose words are a number; `None` where it is empty or unknown, or the number of a class, which
/// means something to its policy alone.
#[must_use]
pub fn decode(layer: LayerId, field: FieldId, values: &Values) -> Option<Value> {
    let words = Schema::of(layer).field(field)?;
    let number = number(values, words)?;
    match words.encoding {
        Encoding::Class => None,
        Encoding::User => Some(Value::User(number as u32)),
        Encoding::Number => Some(match layer.layer().field(field)?.data_type {
            DataType::Uint8 => Value::Uint8(number as u8),
            DataType::Uint16 => Value::Uint16(number as u16),
            DataType::Uint64 => Value::Uint64(number as u64),
            DataType::ByteArray16 => Value::ByteArray16(number.to_be_bytes()),
            DataType::ByteArray6 => {
                let [_, _, mac @ ..] = (number as u64).to_be_bytes();
                Value::ByteArray6(mac)
            }
            _ => Value::Uint32(number as u32),
        }),
    }
}

fn set_unknown(values: &mut Values, field: FieldWords) {
    for word in field.first..field.first + field.count {
        values.set_unknown(word);
    }
    if field.encoding == Encoding::User {
        values.set_unknown(words::GROUPS);
        values.set_unknown(words::GROUPS + 1);
    }
}

/// Whether a field's words say that its value is unknown.
pub(crate) fn is_unknown(values: &Values, field: FieldWords) -> bool {
    values.get(field.first) == UNKNOWN
}
