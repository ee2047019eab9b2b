//! Events as users give them: `FIELD=VALUE` words, and lines of JSON.

use crate::{
    event_line::{self, Line, Other, Unknowns},
    machine::{Machine, groups_of},
};
use anyhow::{Context, Result, anyhow, bail};
use openwfp_engine::{Event, EventValue, Reason};
use openwfp_model::{
    DataType, FieldId, FieldType, IpVersion, Layer, LayerField, LayerId, MatchType, Value,
    policy_file::{self, Resolver},
};
use serde_json::{Map, Value as Json, json};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

/// The layers that a name stands for: one, or those of a family.
pub(crate) fn layers(name: &str) -> Result<Vec<LayerId>> {
    let found = Layer::family(name);
    if found.is_empty() {
        let nearest = Layer::nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        bail!("there is no layer {name}{nearest} (`wfp show layers` lists them)");
    }
    Ok(found)
}

/// The group ids of these names and numbers.
pub(crate) fn groups(names: &[String]) -> Result<Vec<u32>> {
    let group = |name: &String| match name.parse() {
        Ok(gid) => Ok(gid),
        Err(_) => Machine.group(name).with_context(|| format!("--group: there is no group {name}")),
    };
    names.iter().map(group).collect()
}

/// Reads events of one layer, or of the layers of a family, where each event says by its addresses which one it means.
pub(crate) struct EventReader {
    layers: Vec<LayerId>,
    /// Groups that were given instead of those that the machine knows.
    groups: Option<Vec<u32>>,
    /// Texts that were read before: most events repeat a few.
    known: HashMap<(LayerId, FieldId), HashMap<String, Value>>,
    known_groups: HashMap<u32, Vec<u32>>,
}

/// How many texts of a field are remembered.
const REMEMBERED: usize = 1 << 16;

impl EventReader {
    pub fn new(layers: Vec<LayerId>, groups: Option<Vec<u32>>) -> Self {
        Self { layers, groups, known: HashMap::new(), known_groups: HashMap::new() }
    }

    /// An event from `FIELD=VALUE` words. Nothing behind the sign means empty, `?` unknown.
    pub fn words(&mut self, words: &[String]) -> Result<Event> {
        let mut pairs = Vec::with_capacity(words.len());
        for word in words {
            pairs.push(word.split_once('=').with_context(|| format!("`{word}` is no FIELD=VALUE"))?);
        }
        let layer = self.layer_of(pairs.iter().map(|(_, text)| *text))?;
        let mut event = Event::new(layer);
        let mut given = HashSet::new();
        for (name, text) in pairs {
            let field = field_of(layer, name)?;
            if !given.insert(field.field) {
                bail!("{name} is given twice; an event has one value of each field");
            }
            if !text.is_empty() {
                let value = self.text(layer, &field, text)?;
                event.values.insert(field.field, value);
            }
        }
        self.add_groups(&mut event);
        Ok(event)
    }

    /// What a line of JSON is: an object of fields, or a line of a log, whose events have them under `values`.
    pub fn line(&mut self, line: &str) -> Result<Line> {
        let object = event_line::object(line)?;
        if let Some(kind) = object.get("kind") {
            let kind = kind.as_str().context("`kind` is no text")?;
            if let Some(other) = Other::of_kind(kind)? {
                return Ok(Line::PassedOver(other));
            }
        }
        let (layer, fields) = match object.get("values") {
            Some(values) => {
                let fields = values.as_object().context("`values` is no object")?;
                match self.named_layer(object.get("layer"), fields)? {
                    Some(layer) => (layer, fields),
                    None => return Ok(Line::PassedOver(Other::Layer)),
                }
            }
            None if object.contains_key("kind") => bail!("this event has no `values`"),
            None => (self.layer_of(texts(&object))?, &object),
        };
        let mut event = Event::new(layer);
        for (name, value) in fields {
            let field = field_of(layer, name)?;
            if !value.is_null() {
                let value = self.json(layer, &field, value)?;
                // a field under two names
                if event.values.insert(field.field, value).is_some() {
                    bail!("{name} is given twice; an event has one value of each field");
                }
            }
        }
        // of a log: what was not known is no value, so it stands apart
        if let Some(names) = object.get("values").and(object.get("unknown")) {
            for name in names.as_array().context("`unknown` is no list of fields")? {
                let name = name.as_str().context("`unknown` is no list of fields")?;
                let field = field_of(layer, name)?;
                if event.values.insert(field.field, EventValue::Unknown).is_some() {
                    bail!("{name} is unknown and has a value, or is unknown twice");
                }
            }
        }
        self.add_groups(&mut event);
        // no filter of its own is named where waiting came to its end
        let ended = object.get("reason").and_then(Json::as_str) == Some(Reason::Unreadable.name())
            && object.get("filter").is_some_and(Json::is_null);
        Ok(Line::Event(event, if ended { Unknowns::Unreadable } else { Unknowns::AsTheLayerSays }))
    }

    /// The layer of an event that may name it; `None` where it is none of those that were asked about.
    fn named_layer(&self, name: Option<&Json>, fields: &Map<String, Json>) -> Result<Option<LayerId>> {
        let Some(name) = name.and_then(Json::as_str) else { return self.layer_of(texts(fields)).map(Some) };
        let named = layers(name)?;
        Ok(self.layers.iter().find(|layer| named[..] == [**layer]).copied())
    }

    /// Of a family, the layer for the version of the addresses among these texts.
    fn layer_of<'t>(&self, mut texts: impl Iterator<Item = &'t str>) -> Result<LayerId> {
        if let [layer] = self.layers[..] {
            return Ok(layer);
        }
        let names: Vec<&str> = self.layers.iter().map(|layer| layer.name()).collect();
        let names = names.join(" or ");
        let address = texts.find_map(|text| text.parse::<IpAddr>().ok());
        let version = match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(_)) => IpVersion::V4,
            Some(IpAddr::V6(_)) => IpVersion::V6,
            None => bail!("no address says which layer is meant: give one, or name {names}"),
        };
        let is_it = |layer: &&LayerId| layer.layer().ip_version() == Some(version);
        self.layers.iter().find(is_it).copied().with_context(|| format!("name {names}"))
    }

    /// A value of JSON. Numbers of number fields take a short way.
    fn json(&mut self, layer: LayerId, field: &LayerField, value: &Json) -> Result<EventValue> {
        let number = match value {
            Json::String(text) => return self.text(layer, field, text),
            Json::Number(number) => number,
            _ => bail!("{} takes a number or text, and this is {value}", field.field),
        };
        if field.field == FieldId::ALE_USER_ID {
            let uid = number.as_u64().and_then(|uid| u32::try_from(uid).ok());
            return Ok(EventValue::Known(Value::User(uid.with_context(|| format!("{number} is no uid"))?)));
        }
        let Some(bits) = field.data_type.integer_bits() else {
            return self.text(layer, field, &number.to_string());
        };
        let number = number.as_u64().with_context(|| format!("{} is no whole number: {number}", field.field))?;
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

    fn text(&mut self, layer: LayerId, field: &LayerField, text: &str) -> Result<EventValue> {
        if text == "?" {
            if openwfp_engine::unknown(layer, field.field).is_none() {
                bail!("{} is never unknown at {layer}: leave it out for empty", field.field);
            }
            return Ok(EventValue::Unknown);
        }
        if let Some(address) = address(field, text) {
            return Ok(EventValue::Known(address));
        }
        let known = self.known.entry((layer, field.field)).or_default();
        if let Some(value) = known.get(text) {
            return Ok(EventValue::Known(value.clone()));
        }
        let value = parse(layer, field, text)?;
        if known.len() < REMEMBERED {
            known.insert(text.to_owned(), value.clone());
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

/// The texts among the values of an object.
fn texts(fields: &Map<String, Json>) -> impl Iterator<Item = &str> {
    fields.values().filter_map(Json::as_str)
}

fn field_of(layer: LayerId, name: &str) -> Result<LayerField> {
    let layer = layer.layer();
    let Some(field) = FieldId::find(name) else {
        let nearest = layer.nearest_field(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        bail!("there is no field {name}{nearest}");
    };
    let Some(found) = layer.field(field) else {
        bail!("{} does not have the field {name} (`wfp show layers {0}` lists those that it has)", layer.name);
    };
    Ok(*found)
}

/// An address, where the field holds one of this version. An IPv4-mapped IPv6 address is IPv4 at an IPv4 layer.
fn address(field: &LayerField, text: &str) -> Option<Value> {
    if field.field_type != FieldType::IpAddress {
        return None;
    }
    match (text.parse::<IpAddr>().ok()?, field.data_type) {
        (IpAddr::V6(address), DataType::ByteArray16) => Some(Value::v6_address(address)),
        (address, DataType::Uint32) => match address.to_canonical() {
            IpAddr::V4(address) => Some(Value::v4_address(address)),
            IpAddr::V6(_) => None,
        },
        _ => None,
    }
}

/// One value, as a policy file would have it: read by the reader of policy files, so that both take the same words.
fn parse(layer: LayerId, field: &LayerField, text: &str) -> Result<Value> {
    let is_number = field.data_type.integer_bits().is_some();
    let number = text.parse::<u64>().ok().filter(|_| is_number).map(|number| json!(number));
    let value = number.unwrap_or_else(|| match field.field_type {
        // several flags are written A|B, and an event has exactly these
        FieldType::Flags => json!({"all": text.split(['|', ',']).map(str::trim).collect::<Vec<_>>()}),
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
            (
                MatchType::Equal | MatchType::FlagsAllSet,
                value @ (Value::Uint8(_)
                | Value::Uint16(_)
                | Value::Uint32(_)
                | Value::Uint64(_)
                | Value::ByteArray16(_)
                | Value::ByteArray6(_)
                | Value::ByteBlob(_)
                | Value::Sid(_)
                | Value::UnicodeString(_)
                | Value::Application(_)
                | Value::User(_)),
            ) => Ok(value.clone()),
            _ => bail!("`{text}` stands for more than one value of {}; an event has one", field.field),
        },
        _ => bail!("`{text}` is no single value for {}", field.field),
    }
}
