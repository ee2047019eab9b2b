//! `wfp callouts`: the built-in callouts and their settings.

use crate::output::{self, Globals};
use anyhow::Result;
use openwfp_callout::builtin::{self, BuiltIn, Setting};
use serde_json::{Value as Json, json};
use std::io::Write;

/// Runs the command.
pub(crate) fn callouts(globals: Globals) -> Result<()> {
    output::write_out(|out| builtin::all().iter().try_for_each(|callout| write(out, callout, globals)))
}

fn write(out: &mut dyn Write, callout: &BuiltIn, globals: Globals) -> Result<()> {
    if globals.json {
        return Ok(writeln!(out, "{}", in_json(callout))?);
    }
    let paint = globals.paint();
    writeln!(out, "{}\n    {}\n    layers: {}", paint.bold(callout.name), callout.about, callout.layers.join(", "))?;
    for Setting { name, kind, default, about } in callout.settings {
        let default = default.map_or_else(|| "has to be given".to_owned(), |default| format!("default: {default}"));
        writeln!(out, "    {name}: {about}\n        {}", paint.dim(format_args!("{kind}; {default}")))?;
    }
    Ok(())
}

fn in_json(callout: &BuiltIn) -> Json {
    let settings: Vec<Json> = callout
        .settings
        .iter()
        .map(|Setting { name, kind, default, about }| json!({"name": name, "kind": kind, "default": default, "about": about}))
        .collect();
    json!({"name": callout.name, "about": callout.about, "layers": callout.layers, "settings": settings})
}
