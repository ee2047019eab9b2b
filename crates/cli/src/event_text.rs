//! Events as users give them: `FIELD=VALUE` words, and lines of JSON.

use crate::{
    json::is_number,
    machine::{Machine, groups_of},
};
use anyhow::{Context, Result, anyhow, bail};
use openwfp_engine::{Event, EventValue};
use openwfp_model::{FieldId, FieldType, IpVersion, Layer, LayerField, LayerId, MatchType, Value, policy_file};
use serde_json::{Value as Json, json};
use std::{collections::HashMap, net::IpAddr};

/// The layer that a name stands for. A family's version is taken from the addresses among the words.
pub(crate) fn layer(name: &str, words: &[String]) -> Result<LayerId> {
    let found = Layer::family(name);
    match found[..] {
        [layer] => Ok(layer),
        [] => {
            let nearest = Layer::nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            bail!("there is no layer {name}{nearest} (`wfp show layers` lists them)")
        }
        _ => {
            let address = words.iter().filter_map(|word| word.split_once('=')?.1.parse::<IpAddr>().ok()).next();
            let version = match address {
                Some(IpAddr::V4(_)) => IpVersion::V4,
                Some(IpAddr::V6(_)) => IpVersion::V6,
                None => bail!("{name} stands for an IPv4 and an IPv6 layer: give an address, or name {name}_V4 or {name}_V6"),
            };
            let wanted = |layer: &&LayerId| layer.layer().ip_version() == Some(version);
            found.iter().find(wanted).copied().with_context(|| format!("{name} has no layer for this address"))
        }
    }
}

/// Reads events of one layer.
pub(crate) struct EventReader {
    layer: LayerId,
    /// Groups that were given instead of those that the machine knows.
    groups: Option<Vec<u32>>,
    /// Texts that were read before: most events repeat a few.
    known: HashMap<(FieldId, String), Value>,
    known_groups: HashMap<u32, Vec<u32>>,
}

/// How many texts are remembered.
const REMEMBERED: usize = 1 << 16;

impl EventReader {
    pub fn new(layer: LayerId, groups: Option<Vec<u32>>) -> Self {
        Self { layer, groups, known: HashMap::new(), known_groups: HashMap::new() }
    }

    /// An event from `FIELD=VALUE` words. Nothing behind the sign means empty, `?` unknown.
    pub fn words(&mut self, words: &[String]) -> Result<Event> {
        let mut event = Event::new(self.layer);
        for word in words {
            let (name, text) = word.split_once('=').with_context(|| format!("`{word}` is no FIELD=VALUE"))?;
            let field = self.field(name)?;
            if text.is_empty() {
                continue;
            }
            let value = self.text(&field, text)?;
            if event.values.insert(field.field, value).is_some() {
                bail!("{name} is given twice");
            }
        }
        self.add_groups(&mut event);
        Ok(event)
    }

    /// An event from a line of JSON: an object of fields, or an event that has them under `values`.
    pub fn line(&mut self, line: &str) -> Result<Event> {
        let json: Json = serde_json::from_str(line).context("this is no JSON object")?;
        let object = json.as_object().context("this is no JSON object")?;
        let fields = match object.get("values") {
            Some(values) => values.as_object().context("`values` is no object")?,
            None => object,
        };
        let mut event = Event::new(self.layer);
        for (name, value) in fields {
            let field = self.field(name)?;
            if value.is_null() {
                continue;
            }
            let value = self.json(&field, value)?;
            event.values.insert(field.field, value);
        }
        self.add_groups(&mut event);
        Ok(event)
    }

    fn field(&self, name: &str) -> Result<LayerField> {
        let layer = self.layer.layer();
        let Some(field) = FieldId::find(name) else {
            let nearest = layer.nearest_field(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            bail!("there is no field {name}{nearest}");
        };
        let Some(found) = layer.field(field) else {
            bail!("{} does not have the field {name} (`wfp show layers {0}` lists those that it has)", layer.name);
        };
        Ok(*found)
    }

    /// A value of JSON. Numbers of number fields and addresses take a short way.
    fn json(&mut self, field: &LayerField, value: &Json) -> Result<EventValue> {
        match value {
            Json::Number(number) if is_number(field.data_type) && field.field_type != FieldType::IpAddress => {
                let number = number.as_u64().with_context(|| format!("{} is no whole number: {number}", field.field))?;
                let bits = field.data_type.integer_bits().unwrap_or(64);
                if bits < 64 && number >> bits != 0 {
                    bail!("{number} does not fit into {}, which has {bits} bits", field.field);
                }
                Ok(EventValue::Known(match bits {
                    8 => Value::Uint8(number as u8),
                    16 => Value::Uint16(number as u16),
                    32 => Value::Uint32(number as u32),
                    _ => Value::Uint64(number),
                }))
            }
            Json::Number(number) if field.field == FieldId::ALE_USER_ID => {
                let uid = number.as_u64().and_then(|uid| u32::try_from(uid).ok());
                Ok(EventValue::Known(Value::User(uid.with_context(|| format!("{number} is no uid"))?)))
            }
            Json::String(text) => self.text(field, text),
            other => self.text(field, &other.to_string()),
        }
    }

    fn text(&mut self, field: &LayerField, text: &str) -> Result<EventValue> {
        if text == "?" {
            if openwfp_engine::unknown(self.layer, field.field).is_none() {
                bail!("{} is never unknown at {}: leave it out for empty", field.field, self.layer);
            }
            return Ok(EventValue::Unknown);
        }
        if let Some(address) = address(field, text) {
            return Ok(EventValue::Known(address));
        }
        let key = (field.field, text.to_owned());
        if let Some(value) = self.known.get(&key) {
            return Ok(EventValue::Known(value.clone()));
        }
        let value = parse(self.layer, field, text)?;
        if self.known.len() < REMEMBERED {
            self.known.insert(key, value.clone());
        }
        Ok(EventValue::Known(value))
    }

    fn add_groups(&mut self, event: &mut Event) {
        let Some(EventValue::Known(Value::User(uid))) = event.values.get(&FieldId::ALE_USER_ID) else { return };
        event.groups = match &self.groups {
            Some(groups) => groups.clone(),
            None => self.known_groups.entry(*uid).or_insert_with(|| groups_of(*uid)).clone(),
        };
    }
}

/// An address, where the field holds one of this version.
fn address(field: &LayerField, text: &str) -> Option<Value> {
    if field.field_type != FieldType::IpAddress {
        return None;
    }
    match (text.parse::<IpAddr>().ok()?, field.data_type) {
        (IpAddr::V4(address), openwfp_model::DataType::Uint32) => Some(Value::v4_address(address)),
        (IpAddr::V6(address), openwfp_model::DataType::ByteArray16) => Some(Value::v6_address(address)),
        _ => None,
    }
}

/// One value, as a policy file would have it: read by the reader of policy files, so that both take the same words.
fn parse(layer: LayerId, field: &LayerField, text: &str) -> Result<Value> {
    let number = text.parse::<u64>().ok().filter(|_| is_number(field.data_type)).map(|number| json!(number));
    let value = number.unwrap_or_else(|| match field.field_type {
        // several flags are written A|B, and an event has exactly these
        FieldType::Flags => json!({"all": text.split(['|', ',']).collect::<Vec<_>>()}),
        _ => json!(text),
    });
    let policy = json!({"filter": [{
        "name": "event", "layer": layer.name(), "action": "block", "when": {field.field.name(): value}
    }]});
    let read = policy_file::read("event", &policy.to_string(), &Machine).map_err(|report| {
        let said: Vec<String> = report.iter().map(|mistake| mistake.title.clone()).collect();
        anyhow!("`{text}` is no value for {}: {}", field.field, said.join("; "))
    })?;
    let conditions: Vec<_> = read.policy.filters.iter().flat_map(|filter| &filter.conditions).collect();
    match conditions[..] {
        [condition] => match (condition.match_type, &condition.value) {
            (MatchType::Equal | MatchType::FlagsAllSet, value @ (Value::Uint8(_) | Value::Uint16(_) | Value::Uint32(_)
                | Value::Uint64(_) | Value::ByteArray16(_) | Value::ByteArray6(_) | Value::ByteBlob(_) | Value::Sid(_)
                | Value::UnicodeString(_) | Value::Application(_) | Value::User(_))) => Ok(value.clone()),
            _ => bail!("`{text}` stands for more than one value of {}; an event has one", field.field),
        },
        _ => bail!("`{text}` is no single value for {}", field.field),
    }
}
