//! Settings of callouts, read.

use std::collections::BTreeMap;

use openwfp_model::{Data, names};

use super::Setting;

/// The settings of a callout, as a policy gives them.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a>(&'a BTreeMap<String, Data>);

/// What is wrong with settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// There is no such setting.
    #[error("there is no setting `{name}`{}", .nearest.map_or_else(String::new, |near| format!(": did you mean `{near}`?")))]
    Unknown {
        /// Its name.
        name: String,
        /// The nearest name.
        nearest: Option<&'static str>,
    },
    /// A setting is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A setting cannot be that.
    #[error("`{name}` has to be {expected}")]
    Wrong {
        /// Its name.
        name: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
}

impl<'a> Settings<'a> {
    /// The settings of that table.
    #[must_use]
    pub const fn new(settings: &'a BTreeMap<String, Data>) -> Self {
        Self(settings)
    }

    /// Refuses names that are not among these.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_names(&self, known: &'static [Setting]) -> Result<(), SettingsError> {
        match self.0.keys().find(|name| known.iter().all(|setting| setting.name != *name)) {
            None => Ok(()),
            Some(name) => Err(SettingsError::Unknown {
                name: name.clone(),
                nearest: names::nearest(name, known.iter().map(|setting| setting.name)),
            }),
        }
    }

    /// A list of texts; a single one stands for a list of it.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn texts(&self, name: &'static str) -> Result<Option<Vec<&'a str>>, SettingsError> {
        let wrong = SettingsError::Wrong { name, expected: "text, or a list of texts" };
        let text = |data: &'a Data| match data {
            Data::Text(text) => Ok(text.as_str()),
            _ => Err(wrong.clone()),
        };
        match self.0.get(name) {
            None => Ok(None),
            Some(Data::List(list)) => list.iter().map(text).collect::<Result<_, _>>().map(Some),
            Some(single) => text(single).map(|text| Some(vec![text])),
        }
    }

    /// A list of byte strings: text, or `{ base64 = "…" }`; a single one stands for a list of it.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn byte_strings(&self, name: &'static str) -> Result<Option<Vec<&'a [u8]>>, SettingsError> {
        let wrong = SettingsError::Wrong { name, expected: "text or bytes, or a list of them" };
        let bytes = |data: &'a Data| match data {
            Data::Text(text) => Ok(text.as_bytes()),
            Data::Bytes(bytes) => Ok(bytes.as_slice()),
            _ => Err(wrong.clone()),
        };
        match self.0.get(name) {
            None => Ok(None),
            Some(Data::List(list)) => list.iter().map(bytes).collect::<Result<_, _>>().map(Some),
            Some(single) => bytes(single).map(|bytes| Some(vec![bytes])),
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn boolean(&self, name: &'static str) -> Result<Option<bool>, SettingsError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Data::Boolean(boolean)) => Ok(Some(*boolean)),
            Some(_) => Err(SettingsError::Wrong { name, expected: "true or false" }),
        }
    }

    /// A whole number between these.
    ///
    /// # Errors
    /// Where it is something else, or out of range.
    pub fn number(
        &self,
        name: &'static str,
        range: std::ops::RangeInclusive<i64>,
        expected: &'static str,
    ) -> Result<Option<i64>, SettingsError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Data::Integer(number)) if range.contains(number) => Ok(Some(*number)),
            Some(_) => Err(SettingsError::Wrong { name, expected }),
        }
    }
}
