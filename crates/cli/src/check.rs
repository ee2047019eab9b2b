//! `wfp check`: what is wrong with policies, and what is probably not meant.

use crate::{
    args::CheckArgs,
    findings::{self, LayerNote, Note},
    output::{self, Globals},
    policies::{self, Reported},
};
use anyhow::{Result, anyhow};
use openwfp_callout::{Registry, policy::load as callouts};
use openwfp_engine::{CompiledPolicy, compile};
use openwfp_model::{CalloutServer, Guid, Layer, Policy, policy_file::Severity};
use serde_json::{Value as Json, json};
use std::{io::Write, path::Path};

/// Runs the command.
pub(crate) fn check(args: &CheckArgs, globals: Globals) -> Result<()> {
    let mut found: Vec<(&Path, Policy)> = vec![];
    let mut report = Report { globals, errors: 0, warnings: 0 };
    output::write_out(|out| {
        for path in &args.policies {
            let read = policies::read(path);
            let path = policies::shown(path);
            match read {
                Ok(Ok(read)) => {
                    report.diagnostics(out, &read.warnings)?;
                    found.push((path, read.policy));
                }
                Ok(Err(mistakes)) => report.diagnostics(out, &mistakes)?,
                Err(error) => report.error(out, path, &error)?,
            }
        }
        for (path, policy) in &found {
            let errors = callouts(&Registry::new(), &[policy]).err().unwrap_or_default();
            errors.into_iter().try_for_each(|error| report.error(out, path, &error.into()))?;
        }
        // what is wrong may hide what is odd: the policies are looked at together only when each can be read
        if report.errors == 0 {
            let policies: Vec<&Policy> = found.iter().map(|(_, policy)| policy).collect();
            match compile(&policies) {
                Ok(compiled) => {
                    let files: Vec<(&Path, usize)> =
                        found.iter().map(|(path, policy)| (*path, policy.filters.len())).collect();
                    let callouts = policies.iter().flat_map(|policy| &policy.callouts);
                    let hosted: Vec<Guid> = callouts
                        .filter(|callout| callout.server != CalloutServer::Registered)
                        .map(|callout| callout.key)
                        .collect();
                    report.notes(out, &findings::notes(&compiled, &files, &hosted))?;
                    report.layers(out, &findings::layers_not_live(&compiled, &files))?;
                    report.summary(out, &compiled, &policies)?;
                }
                Err(error) => {
                    let path = if found.len() == 1 { found[0].0 } else { Path::new("the policies together") };
                    report.error(out, path, &error.into())?;
                }
            }
        }
        if report.errors > 0 { Err(anyhow!(Reported)) } else { Ok(()) }
    })
}

/// Where findings go, and how many there were.
struct Report {
    globals: Globals,
    errors: usize,
    warnings: usize,
}

impl Report {
    /// What the reader of policy files has found. Errors go to standard error.
    fn diagnostics(&mut self, out: &mut dyn Write, found: &openwfp_model::policy_file::Diagnostics) -> Result<()> {
        let errors = found.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        self.errors += errors;
        self.warnings += found.len() - errors;
        if found.is_empty() || errors == 0 && self.globals.quiet {
            return Ok(());
        }
        if self.globals.json {
            for line in found.to_json().lines() {
                writeln!(out, "{line}")?;
            }
        } else if errors > 0 {
            output::complain(format_args!("{}\n", found.render(self.globals.paint_error().0)));
        } else {
            writeln!(out, "{}\n", found.render(self.globals.paint().0))?;
        }
        Ok(())
    }

    fn error(&mut self, out: &mut dyn Write, path: &Path, error: &anyhow::Error) -> Result<()> {
        self.errors += 1;
        if self.globals.json {
            let line = json!({"severity": "error", "message": output::told(error), "file": path.display().to_string()});
            writeln!(out, "{line}")?;
        } else {
            output::complain(format_args!("{} {}\n", self.globals.paint_error().red("error:"), output::told(error)));
        }
        Ok(())
    }

    fn notes(&mut self, out: &mut dyn Write, notes: &[Note]) -> Result<()> {
        self.warnings += notes.len();
        if self.globals.quiet {
            return Ok(());
        }
        if self.globals.json {
            return notes.iter().try_for_each(|note| Ok(writeln!(out, "{}", note_json(note))?));
        }
        let paint = self.globals.paint();
        for together in findings::by_family(notes) {
            let note = together.first;
            writeln!(out, "{} \"{}\" at {} {}", paint.yellow("warning:"), note.filter, together.layers, note.text)?;
            writeln!(out, "  {} {}", paint.dim("-->"), note.file.display())?;
        }
        Ok(())
    }

    /// The layers that `wfp run` does not meet. That is no warning: a policy may be for captures.
    fn layers(&self, out: &mut dyn Write, notes: &[LayerNote]) -> Result<()> {
        if self.globals.quiet {
            return Ok(());
        }
        if self.globals.json {
            return notes.iter().try_for_each(|note| Ok(writeln!(out, "{}", layer_json(note))?));
        }
        let paint = self.globals.paint();
        for (index, note) in notes.iter().enumerate() {
            let same = |other: &LayerNote| {
                (findings::family(other.layer), &other.file) == (findings::family(note.layer), &note.file)
            };
            // of both halves of a family the family is told
            if notes[..index].iter().any(same) {
                continue;
            }
            let both = notes[index + 1..].iter().any(same);
            let name = if both { findings::family(note.layer) } else { note.layer.name() };
            writeln!(out, "{} {name} {}", paint.bold("note:"), note.text())?;
            writeln!(out, "  {} {}", paint.dim("-->"), note.file.display())?;
        }
        Ok(())
    }

    fn summary(&self, out: &mut dyn Write, compiled: &CompiledPolicy, policies: &[&Policy]) -> Result<()> {
        if self.globals.json || self.globals.quiet {
            return Ok(());
        }
        let disabled = compiled.filters().iter().filter(|filter| filter.is_disabled()).count();
        let filters = compiled.filters().len() - disabled;
        let left_out = if disabled == 0 { String::new() } else { format!(", {disabled} disabled") };
        let sublayers: usize = policies.iter().map(|policy| policy.sublayers.len()).sum();
        let layers = Layer::all().iter().filter(|layer| !compiled.layer_of(layer.id).places.is_empty()).count();
        let own =
            if sublayers == 0 { String::new() } else { format!(", {} of its own", counted(sublayers, "sublayer")) };
        writeln!(
            out,
            "{}: {} at {}{left_out}{own}; {}",
            self.globals.paint().green("valid"),
            counted(filters, "filter"),
            counted(layers, "layer"),
            counted(self.warnings, "warning"),
        )?;
        Ok(())
    }
}

fn counted(number: usize, what: &str) -> String {
    match number {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn layer_json(note: &LayerNote) -> Json {
    json!({
        "severity": "note",
        "kind": "layer-not-live",
        "file": note.file.display().to_string(),
        "filter": note.first,
        "layer": note.layer.name(),
        "met": note.met,
        "filters": note.filters,
        "message": format!("{} {}", note.layer, note.text()),
    })
}

fn note_json(note: &Note) -> Json {
    json!({
        "severity": "warning",
        "kind": note.kind,
        "file": note.file.display().to_string(),
        "filter": note.filter,
        "layer": note.layer.name(),
        "message": format!("\"{}\" at {} {}", note.filter, note.layer, note.text),
    })
}
