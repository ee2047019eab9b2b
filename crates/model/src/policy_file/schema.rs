//! The format as a JSON Schema, for editors and for other programs.

use serde_json::{Map, Value, json};

use crate::{
    CalloutFlags, Errno, FieldId, FilterFlags, Layer, LayerField, ProviderContextFlags, ProviderFlags, SublayerFlags,
};

use super::operand::{Kind, Subject};

/// A JSON Schema (draft 2020-12) of the format, with the names of layers, fields and flags.
///
/// It knows the names in their own spelling; other right ones (another case of letters, the public prefix, a GUID) it
/// lets pass unchecked. It says less than [`read`](super::read): what depends on two places of a file is not in it.
pub fn json_schema() -> String {
    let mut text = format!("{:#}", schema());
    text.push('\n');
    text
}

fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "openwfp policy",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "$schema": {"type": "string"},
            "provider": {
                "description": "who owns the objects of this file",
                "oneOf": [{"$ref": "#/$defs/name"}, object(json!({"service": {"type": "string"}}), &["name"], flags::<ProviderFlags>())],
            },
            "sublayer": list_of(object(
                json!({"weight": integer("walked from the highest to the lowest", u16::MAX.into())}),
                &["name"],
                flags::<SublayerFlags>(),
            )),
            "provider_context": list_of(object(json!({"data": {"$ref": "#/$defs/data"}}), &["name"], flags::<ProviderContextFlags>())),
            "callout": list_of(callout()),
            "filter": list_of(filter()),
        },
        "$defs": definitions(),
    })
}

fn list_of(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// An object with the keys that every object may have and some of its own.
fn object(own: Value, required: &[&str], flags: Value) -> Value {
    let mut properties = Map::new();
    properties.insert("name".to_owned(), json!({"$ref": "#/$defs/name"}));
    properties.insert("description".to_owned(), json!({"type": "string"}));
    properties.insert("key".to_owned(), json!({"$ref": "#/$defs/guid"}));
    properties.insert("flags".to_owned(), one_or_many(flags));
    if let Value::Object(own) = own {
        properties.extend(own);
    }
    json!({"type": "object", "additionalProperties": false, "required": required, "properties": properties})
}

fn flags<F: bitflags::Flags<Bits = u32>>() -> Value {
    let known: Vec<&str> = F::FLAGS.iter().map(|flag| flag.name()).collect();
    names(&known)
}

/// Names of the platform: as they are, or in another right spelling.
fn names(known: &[&str]) -> Value {
    json!({"anyOf": [{"enum": known}, {"$ref": "#/$defs/other_spelling"}]})
}

fn one_or_many(item: Value) -> Value {
    json!({"oneOf": [item.clone(), {"type": "array", "items": item, "minItems": 1}]})
}

fn integer(description: &str, max: u64) -> Value {
    json!({"description": description, "oneOf": [
        {"type": "integer", "minimum": 0, "maximum": max},
        {"$ref": "#/$defs/number_text"},
    ]})
}

fn callout() -> Value {
    let own = json!({
        "layer": {"$ref": "#/$defs/layer"},
        "uses": {"description": "a built-in callout that serves it", "type": "string"},
        "host": {"description": "the executable that serves it", "type": "string", "pattern": "^/"},
        "user": {"description": "the user that the host runs as", "type": ["string", "integer"]},
        "settings": {"type": "object", "additionalProperties": {"$ref": "#/$defs/data"}},
    });
    let mut callout = object(own, &["name"], flags::<CalloutFlags>());
    callout["dependentRequired"] = json!({"user": ["host"]});
    callout["not"] = json!({"required": ["uses", "host"]});
    callout
}

fn filter() -> Value {
    let errors: Vec<&str> = Errno::names().collect();
    let weight = json!({
        "description": "absent: automatic; 0 to 15: a range, automatic inside; exact: 64 bits",
        "oneOf": [
            {"type": "integer", "minimum": 0, "maximum": 15},
            {"$ref": "#/$defs/number_text"},
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["exact"],
                "properties": {"exact": integer("the weight", u64::MAX)},
            },
        ],
    });
    let action = json!({"oneOf": [
        {"type": "string", "pattern": "^([Pp][Ee][Rr][Mm][Ii][Tt]|[Bb][Ll][Oo][Cc][Kk]|[Cc][Oo][Nn][Tt][Ii][Nn][Uu][Ee])$"},
        {
            "type": "object",
            "additionalProperties": false,
            "required": ["callout"],
            "properties": {
                "callout": {"type": "string"},
                "kind": {"enum": ["terminating", "inspection", "unknown"], "default": "unknown"},
            },
        },
    ]});
    let own = json!({
        "layer": one_or_many(json!({"$ref": "#/$defs/layer"})),
        "sublayer": {"description": "absent: the default one of the layer", "type": "string"},
        "weight": weight,
        "action": action,
        "context": {"description": "a provider context", "type": "string"},
        "errno": {
            "description": "what a refused bind or connect returns",
            "anyOf": [{"enum": errors}, {"type": "string", "pattern": "^e"}, {"type": "integer", "minimum": 1, "maximum": 133}],
        },
        "when": when(),
    });
    object(own, &["name", "layer", "action"], flags::<FilterFlags>())
}

/// The conditions: every field, with the values of its kind.
fn when() -> Value {
    let mut properties = Map::new();
    let own = FieldId::all().map(|field| (field.name(), field));
    for (name, field) in own.chain(FieldId::aliases()) {
        let mut kinds: Vec<Value> = Vec::new();
        for layer_field in Layer::all().iter().filter_map(|layer| layer.field(field)) {
            let item = test(layer_field, name);
            if !kinds.contains(&item) {
                kinds.push(item);
            }
        }
        let value = match kinds.as_slice() {
            [] => continue,
            [kind] => one_or_many(kind.clone()),
            _ => one_or_many(json!({"anyOf": kinds})),
        };
        properties.insert(name.to_owned(), value);
    }
    json!({
        "description": "what must hold: fields are AND-ed, the elements of a list are OR-ed",
        "type": "object",
        "properties": properties,
        "patternProperties": {"^([a-z{]|FWPM_|[0-9a-fA-F]{8}-)": true},
        "additionalProperties": false,
    })
}

/// A value or a test of a field.
fn test(field: &LayerField, written: &str) -> Value {
    let subject = Subject::new(*field, written);
    let flags: Vec<&str> = field.field.flags().into_iter().map(|(name, _)| name).collect();
    let bits = match flags.is_empty() {
        true => json!({"$ref": "#/$defs/bits"}),
        false => one_or_many(json!({"anyOf": [names(&flags), {"type": "integer", "minimum": 0}]})),
    };
    let value = value(&subject);
    let tests = ["all", "any", "none"].map(|name| (name.to_owned(), bits.clone()));
    let orders =
        ["min", "max", "greater", "less", "prefix", "ignore_case"].map(|name| (name.to_owned(), value.clone()));
    let mut properties: Map<String, Value> = tests.into_iter().chain(orders).collect();
    properties.insert("empty".to_owned(), json!({"const": true}));
    properties.insert("not".to_owned(), json!({"type": ["string", "integer", "object"]}));
    let table = json!({
        "type": "object",
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 2,
        "properties": properties,
    });
    match value.get("anyOf").and_then(Value::as_array) {
        Some(values) => json!({"anyOf": values.iter().chain([&table]).collect::<Vec<_>>()}),
        None => json!({"anyOf": [value, table]}),
    }
}

fn value(subject: &Subject) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/$defs/{name}")});
    match subject.kind {
        Kind::Address => reference("address"),
        Kind::Mac => reference("mac"),
        Kind::Guid => reference("guid"),
        Kind::Application => json!({"anyOf": [{"type": "string"}, reference("application")]}),
        Kind::Bytes => json!({"anyOf": [{"type": "string"}, reference("bytes")]}),
        Kind::Text | Kind::Linux => json!({"type": "string"}),
        Kind::Namespace => json!({"type": ["string", "integer"], "minimum": 1}),
        Kind::Sid => json!({"type": ["string", "integer"]}),
        Kind::User => json!({"anyOf": [{"type": ["string", "integer"]}, reference("user")]}),
        Kind::Flags => json!({"type": "integer", "minimum": 0, "maximum": subject.max()}),
        Kind::Number => {
            let mut values =
                vec![json!({"type": "integer", "minimum": 0, "maximum": subject.max()}), reference("number_text")];
            if let Some(named) = subject.named {
                values.push(names(&named.names().collect::<Vec<_>>()));
            }
            json!({"anyOf": values})
        }
    }
}

fn definitions() -> Value {
    let families = Layer::all()
        .iter()
        .map(|layer| layer.name.replacen("_V4", "", 1))
        .filter(|name| Layer::family(name).len() == 2);
    let layers: Vec<String> = Layer::all().iter().map(|layer| layer.name.to_owned()).chain(families).collect();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let one_string = |key: &str| json!({"type": "object", "additionalProperties": false, "required": [key], "properties": {key: {"type": "string"}}});
    json!({
        "name": {"type": "string", "minLength": 1},
        "guid": {
            "type": "string",
            "pattern": "^(\\{[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\\}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$",
        },
        "other_spelling": {"type": "string", "pattern": "[a-z{-]|^FWP"},
        "layer": names(&layers),
        "number_text": {"type": "string", "pattern": "^\\s*(0[xX][0-9a-fA-F]+|[0-9]+)\\s*(-\\s*(0[xX][0-9a-fA-F]+|[0-9]+)\\s*)?$"},
        "bits": one_or_many(json!({"anyOf": [{"type": "integer", "minimum": 0}, {"$ref": "#/$defs/number_text"}]})),
        "address": {"type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3}|\\s*-\\s*[0-9a-fA-F.:]+)?$"},
        "mac": {"type": "string", "pattern": "^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$"},
        "user": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false,
            "properties": {"user": {"type": ["string", "integer"]}, "group": {"type": ["string", "integer"]}},
        },
        "application": {"oneOf": [one_string("application"), one_string("text"), one_string("hex")]},
        "bytes": {"oneOf": [one_string("text"), one_string("hex")]},
        "data": {"anyOf": [
            {"type": ["string", "integer", "boolean"]},
            {"type": "array", "items": {"$ref": "#/$defs/data"}},
            {"type": "object", "additionalProperties": {"$ref": "#/$defs/data"}},
        ]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, all: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                all.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, all));
            }
            Value::Array(elements) => elements.iter().for_each(|value| references(value, all)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let schema = schema();
        let mut all = Vec::new();
        references(&schema, &mut all);
        assert!(all.len() > 100);
        for reference in all {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(schema.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn the_names_of_the_platform_are_in_it() {
        let schema = schema();
        let layers = schema["$defs"]["layer"]["anyOf"][0]["enum"].as_array().unwrap();
        for name in ["ALE_AUTH_CONNECT", "ALE_AUTH_CONNECT_V4", "INBOUND_IPPACKET_DISCARD", "RPC_UM"] {
            assert!(layers.contains(&name.into()), "{name}");
        }
        let filter = &schema["properties"]["filter"]["items"]["properties"];
        let fields = filter["when"]["properties"].as_object().unwrap();
        for layer in Layer::all() {
            assert!(layers.contains(&layer.name.into()), "{}", layer.name);
            for field in layer.fields {
                assert!(fields.contains_key(field.field.name()), "{}", field.field);
            }
        }
        assert!(fields.contains_key("ICMP_TYPE"));
        let text = schema.to_string();
        for name in ["CLEAR_ACTION_RIGHT", "IS_LOOPBACK", "ipv6-icmp", "https", "ECONNREFUSED", "USES_PROVIDER_CONTEXT"]
        {
            assert!(text.contains(name), "{name}");
        }
    }
}
