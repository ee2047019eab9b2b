//! Data that policies hand to callouts without looking into them.

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

impl Default for Data {
    fn default() -> Data {
        Data::Table(BTreeMap::new())
    }
}
