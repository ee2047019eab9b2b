//! `wfp bench`: what a policy costs.

use crate::{
    args::BenchArgs,
    event_text,
    output::{self, Globals},
    policies,
};
use anyhow::{Context, Result, bail};
use openwfp_engine::{CompiledPolicy, Silent, Values, classify, compile};
use openwfp_model::{Layer, LayerId, Policy};
use serde_json::{Value as Json, json};
use std::{collections::HashMap, fs, hint::black_box, io::Write, path::Path, time::Instant};

/// Classifications are timed in groups of this many: one alone is shorter than a look at the clock.
const GROUP: usize = 16;
/// Groups for each layer.
const GROUPS: usize = 20_000;

/// Runs the command.
pub(crate) fn bench(args: &BenchArgs, globals: Globals) -> Result<()> {
    let policies = policies::load(&args.policy, globals)?;
    let policies: Vec<&Policy> = policies.iter().collect();
    let started = Instant::now();
    let compiled = compile(&policies)?;
    let build = started.elapsed().as_secs_f64() * 1e3;
    let layers: Vec<LayerId> = match &args.layer {
        Some(name) => event_text::layers(name)?,
        None => {
            Layer::all().iter().map(|layer| layer.id).filter(|&id| !compiled.layer_of(id).places.is_empty()).collect()
        }
    };
    if layers.is_empty() {
        bail!("the policy has no filters");
    }
    if args.from.is_none() {
        globals.notice("the events are made from the filters themselves; --from takes real ones");
    }
    let mut given = match &args.from {
        Some(path) => Some(read(path, &layers, &compiled)?),
        None => None,
    };
    let total: usize = layers.iter().map(|&layer| compiled.layer_of(layer).cells).sum();
    output::write_out(|out| {
        for layer in layers {
            let events = match &mut given {
                Some(given) => given.remove(&layer).unwrap_or_default(),
                None => made_events(&compiled, layer),
            };
            // of a family, the layer that none of the events is of
            if events.is_empty() {
                continue;
            }
            let part = compiled.layer_of(layer).cells as f64 / total.max(1) as f64;
            write(out, &measure(&compiled, layer, &events, build * part), globals)?;
        }
        Ok(())
    })
}

/// The events of a file, by layer.
fn read(path: &Path, layers: &[LayerId], compiled: &CompiledPolicy) -> Result<HashMap<LayerId, Vec<Values>>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = event_text::EventReader::new(layers.to_vec(), None);
    let mut events: HashMap<LayerId, Vec<Values>> = HashMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let event = reader.line(line).with_context(|| format!("{}, line {number}", path.display()))?;
        events.entry(event.layer).or_default().push(compiled.values(&event));
    }
    if events.is_empty() {
        bail!("{} holds no events", path.display());
    }
    Ok(events)
}

/// For each filter, up to a few thousand, an event that meets its conditions as far as one can be made.
fn made_events(compiled: &CompiledPolicy, layer: LayerId) -> Vec<Values> {
    let places = &compiled.layer_of(layer).places;
    let stride = (places.len() / 4096).max(1);
    let of_filters = places.iter().step_by(stride).filter(|place| place.marker.is_none());
    let mut events: Vec<Values> = of_filters.filter_map(|place| compiled.example(place.filter)).collect();
    if events.is_empty() {
        events.push(Values::new());
    }
    events
}

fn measure(compiled: &CompiledPolicy, layer: LayerId, events: &[Values], build_ms: f64) -> Json {
    let cells = compiled.image().cells();
    let mut times = Vec::with_capacity(GROUPS);
    let mut next = events.iter().cycle();
    for round in 0..GROUPS + GROUPS / 10 {
        let started = Instant::now();
        for values in next.by_ref().take(GROUP) {
            black_box(classify(cells, layer.get(), black_box(values), &mut Silent));
        }
        // the first tenth warms up
        if round >= GROUPS / 10 {
            times.push(started.elapsed().as_nanos() as f64 / GROUP as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let at = |part: usize| rounded(times[(times.len() - 1) * part / 100]);
    let found = compiled.layer_of(layer);
    let filters = found.places.iter().filter(|place| place.marker.is_none()).count();
    json!({
        "layer": layer.name(),
        "filters": filters,
        "build_ms": rounded(build_ms),
        "bytes_per_filter": found.cells * 16 / filters.max(1),
        "worst_steps": found.worst_steps,
        "user_ns": {"mean": rounded(mean), "p50": at(50), "p99": at(99)},
        "kernel_ns": Json::Null,
    })
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn write(out: &mut dyn Write, line: &Json, globals: Globals) -> Result<()> {
    if globals.json {
        return Ok(writeln!(out, "{line}")?);
    }
    writeln!(
        out,
        "{}: {} filters, built in {} ms, {} bytes a filter, at most {} steps; user space: mean {} ns, p50 {} ns, p99 {} ns",
        line["layer"].as_str().unwrap_or_default(),
        line["filters"],
        line["build_ms"],
        line["bytes_per_filter"],
        line["worst_steps"],
        line["user_ns"]["mean"],
        line["user_ns"]["p50"],
        line["user_ns"]["p99"]
    )?;
    Ok(())
}
