//! `wfp check`: what is wrong with policies, and what is probably not meant.

use crate::{
    args::CheckArgs,
    output::{self, Globals},
    policies::{self, Reported},
};
use anyhow::{Result, anyhow};
use openwfp_engine::{CompiledPolicy, Finding, compile};
use openwfp_model::{Action, FieldId, LayerId, Policy, Value};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// Runs the command.
pub(crate) fn check(args: &CheckArgs, globals: Globals) -> Result<()> {
    let mut found: Vec<Policy> = vec![];
    let mut wrong = false;
    output::write_out(|out| {
        for path in &args.policies {
            let report = match policies::read(path)? {
                Ok(read) => {
                    found.push(read.policy);
                    read.warnings
                }
                Err(report) => {
                    wrong = true;
                    report
                }
            };
            match (report.is_empty(), globals.json) {
                (true, _) => {}
                (false, true) => writeln!(out, "{}", report.to_json())?,
                (false, false) => eprintln!("{}\n", report.render(globals.paint_error().0)),
            }
        }
        if wrong {
            return Err(anyhow!(Reported));
        }
        let policies: Vec<&Policy> = found.iter().collect();
        let compiled = compile(&policies)?;
        let notes = notes(&compiled);
        for (filter, kind, text) in &notes {
            if globals.json {
                let name = compiled.filter(*filter).map(|filter| filter.filter.name.as_str());
                let layer = compiled.filter(*filter).map(|filter| filter.filter.layer.name());
                let line = json!({"severity": "warning", "kind": kind, "filter": name, "layer": layer, "message": text});
                writeln!(out, "{line}")?;
            } else {
                writeln!(out, "{} {text}", globals.paint().yellow("warning:"))?;
            }
        }
        if !globals.json && !globals.quiet {
            let filters = compiled.filters().len();
            let sublayers: usize = found.iter().map(|policy| policy.sublayers.len()).sum();
            let layers: Vec<&str> = openwfp_model::Layer::all()
                .iter()
                .filter(|layer| !compiled.layer_of(layer.id).places.is_empty())
                .map(|layer| layer.name)
                .collect();
            writeln!(
                out,
                "{}: {filters} filters in {} layers, {sublayers} sublayers of their own, {} warnings",
                globals.paint().green("valid"),
                layers.len(),
                notes.len()
            )?;
        }
        Ok(())
    })
}

type Note = (u64, &'static str, String);

fn notes(policy: &CompiledPolicy) -> Vec<Note> {
    let mut notes: Vec<Note> = policy.findings().iter().map(|finding| of_finding(policy, finding)).collect();
    for filter in policy.filters() {
        let (id, definition) = (filter.id, &filter.filter);
        let place = format!("\"{}\" at {}", definition.name, definition.layer);
        if let Action::Callout { .. } = definition.action {
            let text = format!("{place} names a callout that is not registered: it blocks, permits or is passed over accordingly");
            notes.push((id, "callout-unregistered", text));
        }
        if definition.errno.is_some() && !returns_errno(definition.layer) {
            notes.push((id, "errno", format!("{place} has an errno, but no call returns it there")));
        }
        for condition in &definition.conditions {
            if let (FieldId::ALE_APP_ID, Value::Application(path)) = (condition.field, &condition.value)
                && let Some(who) = writable(Path::new(path))
            {
                notes.push((id, "application-writable", format!("{place}: {who} may change {path}, and so what the filter is about")));
            }
        }
    }
    notes
}

fn of_finding(policy: &CompiledPolicy, finding: &Finding) -> Note {
    let place = |id: &u64| {
        let filter = policy.filter(*id);
        filter.map_or_else(String::new, |filter| format!("\"{}\" at {}", filter.filter.name, filter.filter.layer))
    };
    match finding {
        Finding::NeverMatches { filter } => {
            (*filter, "never-matches", format!("{} can never decide: no value meets its conditions", place(filter)))
        }
        Finding::Shadowed { filter, by } => {
            let text = format!("{} can never decide: {} answers first for all of it", place(filter), place(by));
            (*filter, "shadowed", text)
        }
        Finding::Late { filter, fields } => {
            let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
            let text = format!(
                "{} tests {}, which is not known at connect unless the socket is bound: it is decided when the first packet leaves",
                place(filter),
                names.join(", ")
            );
            (*filter, "late", text)
        }
        Finding::NotEqualOred { filter, field } => {
            let text = format!(
                "{} has several \"not\" conditions on {field}: conditions on one field are OR-ed, so nearly everything meets one",
                place(filter)
            );
            (*filter, "not-equal-ored", text)
        }
        Finding::Disabled { filter } => (*filter, "disabled", format!("{} is disabled", place(filter))),
    }
}

fn returns_errno(layer: LayerId) -> bool {
    matches!(
        layer,
        LayerId::ALE_RESOURCE_ASSIGNMENT_V4
            | LayerId::ALE_RESOURCE_ASSIGNMENT_V6
            | LayerId::ALE_AUTH_CONNECT_V4
            | LayerId::ALE_AUTH_CONNECT_V6
    )
}

/// Who besides root may write a program's file, or its folder and so replace it.
fn writable(path: &Path) -> Option<String> {
    [Some(path), path.parent()].into_iter().flatten().find_map(|path| {
        let data = fs::metadata(path).ok()?;
        let mode = data.permissions().mode();
        // in a folder with the sticky bit others cannot replace the file
        let sticky = data.is_dir() && mode & 0o1000 != 0;
        match () {
            () if data.uid() != 0 && mode & 0o200 != 0 => Some(format!("user {}", data.uid())),
            () if mode & 0o002 != 0 && !sticky => Some("everyone".to_owned()),
            () if mode & 0o020 != 0 && data.gid() != 0 && !sticky => Some(format!("group {}", data.gid())),
            () => None,
        }
    })
}
