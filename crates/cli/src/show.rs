//! `wfp show`: what the platform has.

use crate::{
    args::{ShowArgs, Shown},
    live::LIVE_LAYERS,
    output::{self, Globals},
};
use anyhow::{Result, bail};
use openwfp_model::{Layer, LayerField, MatchType};
use openwfp_packet::replay::REPLAY_LAYERS;
use serde_json::{Value as Json, json};
use std::io::Write;

/// Runs the command.
pub(crate) fn show(args: &ShowArgs, globals: Globals) -> Result<()> {
    let Shown::Layers { layer } = &args.what;
    output::write_out(|out| match layer {
        None => Layer::all().iter().try_for_each(|layer| write_layer(out, layer, globals)),
        Some(name) => {
            let found = Layer::family(name);
            if found.is_empty() {
                let nearest = Layer::nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                bail!("there is no layer {name}{nearest}");
            }
            found.iter().try_for_each(|layer| write_fields(out, layer.layer(), globals))
        }
    })
}

/// Where a layer is met.
fn met(layer: &Layer) -> Vec<&'static str> {
    let live = LIVE_LAYERS.contains(&layer.id).then_some("live");
    let replay = REPLAY_LAYERS.contains(&layer.id).then_some("replay");
    live.into_iter().chain(replay).collect()
}

fn layer_json(layer: &Layer) -> Json {
    json!({
        "id": layer.id.get(),
        "layer": layer.name,
        "key": layer.key.to_string(),
        "name": layer.display_name,
        "fields": layer.fields.len(),
        "met": met(layer),
    })
}

fn write_layer(out: &mut dyn Write, layer: &Layer, globals: Globals) -> Result<()> {
    if globals.json {
        writeln!(out, "{}", layer_json(layer))?;
        return Ok(());
    }
    let paint = globals.paint();
    let met = met(layer).join(", ");
    writeln!(out, "{:3}  {:44} {:2} fields  {:13} {}", layer.id.get(), layer.name, layer.fields.len(), met, paint.dim(layer.display_name))?;
    Ok(())
}

fn match_types(field: &LayerField) -> Vec<String> {
    let allowed = MatchType::ALL.iter().filter(|match_type| match_type.allowed_for(field));
    allowed.map(|match_type| crate::explain::match_name(*match_type)).collect()
}

fn write_fields(out: &mut dyn Write, layer: &Layer, globals: Globals) -> Result<()> {
    if globals.json {
        let mut object = layer_json(layer);
        let fields: Vec<Json> = layer
            .fields
            .iter()
            .map(|field| {
                json!({
                    "field": field.field.name(),
                    "key": field.field.key().to_string(),
                    "type": field.data_type.name(),
                    "kind": field.field_type.name(),
                    "match": match_types(field),
                })
            })
            .collect();
        object["fields"] = json!(fields);
        writeln!(out, "{object}")?;
        return Ok(());
    }
    let paint = globals.paint();
    let met = met(layer);
    let met = if met.is_empty() { "explain only".to_owned() } else { met.join(", ") };
    writeln!(out, "{} {} ({met})", paint.bold(layer.name), paint.dim(layer.key))?;
    for field in layer.fields {
        let kind = field.data_type.name().trim_start_matches("FWP_").trim_end_matches("_TYPE").to_lowercase();
        let matches = if globals.verbose { match_types(field).join(" ") } else { String::new() };
        writeln!(out, "  {:38} {kind:26} {}", field.field.name(), paint.dim(matches))?;
    }
    if !globals.verbose {
        writeln!(out, "{}", paint.dim("  (-v shows how each can be compared)"))?;
    }
    Ok(())
}
