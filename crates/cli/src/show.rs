//! `wfp show`: what the platform has.

use crate::{
    args::{ShowArgs, Shown},
    event_text,
    explain::words::match_name,
    filled,
    output::{self, Globals},
};
use anyhow::Result;
use openwfp_model::{Layer, LayerField, LayerId, MatchType};
use serde_json::{Value as Json, json};
use std::io::Write;

/// Runs the command.
pub(crate) fn show(args: &ShowArgs, globals: Globals) -> Result<()> {
    let Shown::Layers { layer } = &args.what;
    output::write_out(|out| match layer {
        None => Layer::all().iter().try_for_each(|layer| write_layer(out, layer, globals)),
        Some(name) => output::words(event_text::layers(name))?
            .into_iter()
            .map(LayerId::layer)
            .try_for_each(|layer| write_fields(out, layer, globals)),
    })
}

fn layer_json(layer: &Layer) -> Json {
    json!({
        "id": layer.id.get(),
        "layer": layer.name,
        "key": layer.key.to_string(),
        "name": layer.display_name,
        "fields": layer.fields.len(),
        "met": filled::layer(layer),
    })
}

fn write_layer(out: &mut dyn Write, layer: &Layer, globals: Globals) -> Result<()> {
    if globals.json {
        writeln!(out, "{}", layer_json(layer))?;
        return Ok(());
    }
    let paint = globals.paint();
    let met = filled::layer(layer).join(", ");
    let (id, name, fields) = (layer.id.get(), layer.name, layer.fields.len());
    writeln!(out, "{id:3}  {name:44} {fields:2} fields  {met:13} {}", paint.dim(layer.display_name))?;
    Ok(())
}

fn match_types(field: &LayerField) -> impl Iterator<Item = MatchType> {
    MatchType::ALL.into_iter().filter(|match_type| match_type.allowed_for(field))
}

/// A match type as a policy file says it.
fn word(match_type: MatchType) -> &'static str {
    match match_type {
        MatchType::Equal => "=",
        MatchType::NotEqual => "not",
        MatchType::Greater => "greater",
        MatchType::Less => "less",
        MatchType::GreaterOrEqual => "min",
        MatchType::LessOrEqual => "max",
        MatchType::Range => "a-b",
        MatchType::FlagsAllSet => "all",
        MatchType::FlagsAnySet => "any",
        MatchType::FlagsNoneSet => "none",
        MatchType::EqualCaseInsensitive => "ignore_case",
        MatchType::Prefix => "prefix",
        MatchType::NotPrefix => "not prefix",
    }
}

fn write_fields(out: &mut dyn Write, layer: &Layer, globals: Globals) -> Result<()> {
    if globals.json {
        let mut object = layer_json(layer);
        let described = |fields: &'static [LayerField]| -> Vec<Json> {
            let one = |field: &LayerField| {
                json!({
                    "field": field.field.name(),
                    "key": field.field.key().to_string(),
                    "type": field.data_type.name(),
                    "kind": field.field_type.name(),
                    "match": match_types(field).map(match_name).collect::<Vec<_>>(),
                    "filled": filled::field(layer.id, field.field),
                })
            };
            fields.iter().map(one).collect()
        };
        object["fields"] = json!(described(layer.fields));
        object["extension_fields"] = json!(described(layer.extension_fields()));
        writeln!(out, "{object}")?;
        return Ok(());
    }
    let paint = globals.paint();
    let met = filled::layer(layer);
    let met = if met.is_empty() { "explain only".to_owned() } else { met.join(", ") };
    writeln!(out, "{} {} ({met})", paint.bold(layer.name), paint.dim(layer.key))?;
    writeln!(out, "  {}", paint.dim(format_args!("{:35} {:25} {:13} tests", "field", "type", "filled in")))?;
    for field in layer.all_fields() {
        if Some(field) == layer.extension_fields().first() {
            writeln!(out, "  {}", paint.dim("fields of ours, which the platform has not"))?;
        }
        let kind = field.data_type.name().trim_start_matches("FWP_").trim_end_matches("_TYPE").to_lowercase();
        let filled = filled::field(layer.id, field.field).join(", ");
        let tests: Vec<&str> = match_types(field).map(word).collect();
        writeln!(out, "  {:35} {kind:25} {filled:13} {}", field.field.name(), paint.dim(tests.join(", ")))?;
    }
    Ok(())
}
