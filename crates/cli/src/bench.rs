//! `wfp bench`: what a policy costs.

use crate::{
    args::BenchArgs,
    event_line::{Counts, Line},
    event_text,
    output::{self, Globals},
    policies,
};
use anyhow::{Context, Result, bail};
use openwfp_engine::{CompiledPolicy, Silent, Values, classify, compile};
use openwfp_kernel::{
    features,
    measure::{Classified, KernelClassifier},
};
use openwfp_model::{Layer, LayerId, Policy};
use serde_json::{Value as Json, json};
use std::{collections::HashMap, fs, hint::black_box, io::Write, path::Path, time::Instant};

/// Classifications are timed in groups of this many: one alone is shorter than a look at the clock.
const GROUP: usize = 16;
/// Groups for each layer.
const GROUPS: usize = 20_000;
/// Classifications in the kernel for each layer, each of them timed.
const IN_KERNEL: usize = 100_000;

/// Runs the command.
pub(crate) fn bench(args: &BenchArgs, globals: Globals) -> Result<()> {
    let named = output::words(args.layer.as_deref().map(event_text::layers).transpose())?;
    let policies = policies::load(&args.policy, globals)?;
    let policies: Vec<&Policy> = policies.iter().collect();
    let started = Instant::now();
    let compiled = compile(&policies)?;
    let build = started.elapsed().as_secs_f64() * 1e3;
    let filtered = |id: &LayerId| !compiled.layer_of(*id).places.is_empty();
    let layers = named.unwrap_or_else(|| Layer::all().iter().map(|layer| layer.id).filter(filtered).collect());
    if layers.is_empty() {
        bail!("the policy has no filters");
    }
    if args.from.is_none() {
        globals.notice("the events are made from the filters themselves; --from takes real ones");
    }
    let mut given = match &args.from {
        Some(path) => Some(read(path, &layers, &compiled, globals)?),
        None => None,
    };
    let mut kernel = kernel(&compiled, globals);
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
            let user = in_user_space(&compiled, layer, &events);
            let kernel = kernel.as_mut().map(|kernel| in_kernel(kernel, layer, &events)).transpose()?;
            write(out, &costs(&compiled, layer, build * part, user, kernel), globals)?;
        }
        Ok(())
    })
}

/// The events of a file, by layer.
fn read(
    path: &Path,
    layers: &[LayerId],
    compiled: &CompiledPolicy,
    globals: Globals,
) -> Result<HashMap<LayerId, Vec<Values>>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = event_text::EventReader::new(layers.to_vec(), None);
    let mut events: HashMap<LayerId, Vec<Values>> = HashMap::new();
    let mut counts = Counts::default();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        match reader.line(line).with_context(|| format!("{}, line {number}", path.display()))? {
            Line::Event(event, _) => {
                counts.event();
                events.entry(event.layer).or_default().push(compiled.values(&event));
            }
            Line::PassedOver(other) => counts.passed_over(other),
        }
    }
    if let Some(told) = counts.told() {
        globals.notice(&told);
    }
    if events.is_empty() {
        let layers: Vec<&str> = layers.iter().map(|layer| layer.name()).collect();
        bail!("{} holds no events of {}", path.display(), layers.join(" or "));
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

/// The classifier in the kernel with this policy. `None`, and why on standard error, where BPF may not be loaded.
fn kernel(compiled: &CompiledPolicy, globals: Globals) -> Option<KernelClassifier> {
    let why = match features::missing().first() {
        Some(missing) => missing.to_string(),
        None => {
            let loaded = KernelClassifier::load(compiled.image().cells().len())
                .and_then(|mut kernel| kernel.set_policy(compiled).map(|()| kernel));
            match loaded {
                Ok(kernel) => return Some(kernel),
                Err(error) => error.to_string(),
            }
        }
    };
    globals.notice(&format!("not measured in the kernel: {why}"));
    None
}

/// Nanoseconds of a classification in user space: means of groups.
fn in_user_space(compiled: &CompiledPolicy, layer: LayerId, events: &[Values]) -> Json {
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
    spread(times, 0.0)
}

/// Nanoseconds of a classification in the kernel: each by itself, as the hooks make them, less one reading of the clock.
fn in_kernel(kernel: &mut KernelClassifier, layer: LayerId, events: &[Values]) -> Result<Json> {
    let mut classify = |count: usize| -> Result<Vec<Classified>> {
        let mut all = Vec::with_capacity(count);
        // there are events, else there would be nothing to measure
        for batch in events.chunks(count).cycle() {
            if all.len() >= count {
                break;
            }
            all.extend(kernel.classify(layer, batch)?);
        }
        Ok(all)
    };
    // the first tenth warms up
    classify(IN_KERNEL / 10)?;
    let all = classify(IN_KERNEL)?;
    let mut clock: Vec<u64> = all.iter().map(|classified| classified.clock).collect();
    let middle = clock.len() / 2;
    let (_, &mut reading, _) = clock.select_nth_unstable(middle);
    Ok(spread(all.iter().map(|classified| classified.nanoseconds as f64).collect(), reading as f64))
}

/// Mean and percentiles of times of which a part is none of theirs.
fn spread(mut times: Vec<f64>, less: f64) -> Json {
    times.sort_by(f64::total_cmp);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let own = |time: f64| rounded((time - less).max(0.0));
    let at = |part: usize| own(times[(times.len() - 1) * part / 100]);
    json!({"mean": own(mean), "p50": at(50), "p99": at(99)})
}

fn costs(compiled: &CompiledPolicy, layer: LayerId, build_ms: f64, user_ns: Json, kernel_ns: Option<Json>) -> Json {
    let found = compiled.layer_of(layer);
    let filters = found.places.iter().filter(|place| place.marker.is_none()).count();
    json!({
        "layer": layer.name(),
        "filters": filters,
        "build_ms": rounded(build_ms),
        "bytes_per_filter": found.cells * 16 / filters.max(1),
        "worst_steps": found.worst_steps,
        "user_ns": user_ns,
        "kernel_ns": kernel_ns,
    })
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn write(out: &mut dyn Write, line: &Json, globals: Globals) -> Result<()> {
    if globals.json {
        return Ok(writeln!(out, "{line}")?);
    }
    let times = |place: &str, ns: &Json| {
        let part = |key: &str| ns[key].to_string();
        format!("; {place}: mean {} ns, p50 {} ns, p99 {} ns", part("mean"), part("p50"), part("p99"))
    };
    let kernel = if line["kernel_ns"].is_null() { String::new() } else { times("kernel", &line["kernel_ns"]) };
    writeln!(
        out,
        "{}: {} filters, built in {} ms, {} bytes a filter, at most {} steps{}{kernel}",
        line["layer"].as_str().unwrap_or_default(),
        line["filters"],
        line["build_ms"],
        line["bytes_per_filter"],
        line["worst_steps"],
        times("user space", &line["user_ns"]),
    )?;
    Ok(())
}
