//! Lines of JSON with events: what they are, and those that are passed over.

use anyhow::{Result, anyhow};
use openwfp_engine::Event;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value as Json};
use std::{collections::BTreeMap, fmt};

/// What a line is.
#[derive(Debug)]
pub(crate) enum Line {
    /// An event that can be classified.
    Event(Event, Unknowns),
    /// Another line of a log.
    PassedOver(Other),
}

/// What it means that a value of an event is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknowns {
    /// It may be known later, where its layer says so.
    AsTheLayerSays,
    /// It was not known where it had to be: what would wait for it is blocked as unreadable.
    Unreadable,
}

/// A line of a log that is no event of the layers that are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Other {
    /// An event of another layer.
    Layer,
    /// A line of another kind, by its name.
    Kind(&'static str),
}

/// The kind of the lines that are explained.
const CLASSIFY: &str = "classify";
/// The kinds of the other lines of logs. (The classification at ALE_FLOW_ESTABLISHED stands before its flow's line.)
const OTHERS: [&str; 8] = ["callout", "closed", "dns", "flow-deleted", "flow-established", "lost", "policy", "summary"];

impl Other {
    /// The kind of a line, where it is not that of events.
    pub fn of_kind(kind: &str) -> Result<Option<Self>> {
        match OTHERS.into_iter().find(|other| *other == kind) {
            _ if kind == CLASSIFY => Ok(None),
            Some(other) => Ok(Some(Self::Kind(other))),
            None => Err(anyhow!("there is no kind `{kind}` of lines; an event has the kind `{CLASSIFY}`, or none")),
        }
    }
}

/// How many lines were explained, and how many of what were not.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    events: u64,
    others: BTreeMap<Other, u64>,
}

impl Counts {
    /// Counts an event.
    pub fn event(&mut self) {
        self.events += 1;
    }

    /// Counts a line that is passed over.
    pub fn passed_over(&mut self, other: Other) {
        *self.others.entry(other).or_default() += 1;
    }

    /// What a person should know; nothing where every line was an event.
    pub fn told(&self) -> Option<String> {
        let lines: u64 = self.others.values().sum();
        let of_what = |(other, count): (&Other, &u64)| match other {
            Other::Layer => format!("{count} of other layers"),
            Other::Kind(kind) => format!("{count} {kind}"),
        };
        let others: Vec<String> = self.others.iter().map(of_what).collect();
        (lines > 0).then(|| {
            let (events, lines) = (counted(self.events, "event"), counted(lines, "line"));
            format!("{events} classified; {lines} passed over: {}", others.join(", "))
        })
    }
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Reads an object in which no key stands twice, at any depth: of two values JSON would keep one without a word.
///
/// # Errors
/// What is wrong, and in which column (in bytes from 1).
pub(crate) fn object(line: &str) -> Result<Map<String, Json>> {
    match serde_json::from_str(line.trim_end()) {
        Ok(Unique(Json::Object(object))) => Ok(object),
        Ok(_) => Err(anyhow!("this is no JSON object")),
        Err(error) => {
            // the number of the line is that in the file
            let text = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            let what = text.strip_suffix(&place).unwrap_or(&text);
            let said = if error.is_data() { what.to_owned() } else { format!("this is no JSON object: {what}") };
            Err(anyhow!("{said} (column {})", error.column()))
        }
    }
}

/// A value in which no key stands twice.
struct Unique(Json);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Parts).map(Self)
    }
}

struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut all = vec![];
        while let Some(Unique(value)) = from.next_element()? {
            all.push(value);
        }
        Ok(Json::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` stands twice in one object")));
            }
            let Unique(value) = from.next_value()?;
            object.insert(key, value);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_named_at_any_depth() {
        let error = |text| object(text).unwrap_err().to_string();
        assert_eq!(error(r#"{"a":1,"a":2}"#), "the key `a` stands twice in one object (column 10)");
        assert_eq!(error(r#"{"b":[{"a":1,"c":{},"a":2}]}"#), "the key `a` stands twice in one object (column 23)");
        // an escaped letter is that letter
        assert!(error(r#"{"a":1,"\u0061":2}"#).starts_with("the key `a` stands twice"));
        assert_eq!(error("{\"a\":"), "this is no JSON object: EOF while parsing a value (column 5)");
        assert_eq!(error("[]"), "this is no JSON object");
        let text = r#"{"a":[null,true,-1,1,1.5,"x"],"b":{"a":{}}}"#;
        assert_eq!(Json::Object(object(text).unwrap()), serde_json::from_str::<Json>(text).unwrap());
    }
}
