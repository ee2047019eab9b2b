//! Data that policies hand to callouts without looking into them.

use data_encoding::BASE64;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A piece of data of a provider context or of a callout's settings.
///
/// There are no fractions: whoever needs one hands over text, or an integer of a smaller unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Yes or no.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Data>),
    /// Data by name.
    Table(BTreeMap<String, Data>),
}

/// As a policy file has it: bytes are `{"base64": "…"}`.
impl From<&Data> for Value {
    fn from(data: &Data) -> Self {
        match data {
            Data::Boolean(boolean) => (*boolean).into(),
            Data::Integer(number) => (*number).into(),
            Data::Text(text) => text.as_str().into(),
            Data::Bytes(bytes) => json!({"base64": BASE64.encode(bytes)}),
            Data::List(list) => list.iter().map(Value::from).collect(),
            Data::Table(table) => table.iter().map(|(name, data)| (name.clone(), Value::from(data))).collect(),
        }
    }
}

impl Default for Data {
    fn default() -> Data {
        Data::Table(BTreeMap::new())
    }
}
