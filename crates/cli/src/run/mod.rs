//! `wfp run`: a command under policies.

mod events;
mod file;
mod files;
mod hosts;
mod reload;
mod session;

use crate::live;
use crate::{
    args::RunArgs,
    findings, machine,
    output::{self, Globals, WrongUsage, complain, told},
    policies::{self, Reported},
};
use anyhow::{Context, Result, anyhow, bail};
use events::Recorder;
use hosts::Served;
use openwfp_engine::CompiledPolicy;
use openwfp_kernel::features;
use openwfp_kernel::unix::{NamedSocket, PRIVATE_FOLDER, UnixSockets, peers_are_seen};
use openwfp_model::{Layer, LayerId};
use openwfp_sandbox::Isolation;
use reload::Reload;
use rustix::stdio::dup2_stdin;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

pub(crate) use hosts::is_asked_at;
pub(crate) use session::{Ended, Plan, Watcher, run as run_session};

/// What `wfp run` exits with when it could not do its part.
const FAILED: u8 = 125;

/// Runs the command; the status to exit with.
pub(crate) fn run(args: &RunArgs, globals: Globals) -> ExitCode {
    match try_run(args, globals) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            if !error.is::<Reported>() {
                complain(format_args!("{} {}", globals.paint_error().red("wfp run:"), told(&error)));
            }
            let usage = error.is::<WrongUsage>().then_some(WrongUsage::STATUS);
            let status = error.downcast_ref::<openwfp_sandbox::Error>().map(openwfp_sandbox::Error::exit_status);
            ExitCode::from(usage.or(status).unwrap_or(FAILED))
        }
    }
}

fn try_run(args: &RunArgs, globals: Globals) -> Result<u8> {
    let mut isolation = output::words(isolation(args))?;
    output::words(named(&args.layers))?;
    output::words(alone(&args.unix))?;
    let sources: Vec<policies::Source> =
        args.policy.iter().map(|path| policies::Source::read(path)).collect::<Result<_>>()?;
    let served = Served::of(&policies::parse(&sources, Globals { quiet: true, ..globals })?);
    let served = match served.is_empty() || features::diverts() {
        true => served,
        false => {
            let (major, minor) = features::OLDEST_DIVERTING;
            globals.notice(&format!("callouts count as unregistered: Linux {major}.{minor} is needed to ask them"));
            Served::default()
        }
    };
    let (mut policy, parsed) = policies::compiled_from(&sources, None, &served.keys(), globals)?;
    let named = hosts::filters(&served.keys(), &policy, &parsed);
    if args.policy.iter().any(|path| policies::is_standard_input(path)) {
        // a terminal would still give something
        let nothing = File::open("/dev/null").context("cannot open /dev/null")?;
        dup2_stdin(&nothing).context("cannot close standard input")?;
        globals.notice("the policy came from standard input, so the command's is empty");
    }
    if args.watch {
        policy.know_groups(machine::groups());
    }
    let policy = Arc::new(policy);
    warn_of_layers(&policy, globals);
    let unix = unix(&args.unix)?;
    if matches!(unix, UnixSockets::Paths(_)) {
        isolation.private_sockets = Some(PRIVATE_FOLDER.into());
    }
    let recorded = recorded(args, &policy)?;
    let mut recorder = Recorder::new(policy.clone(), &recorded, args.trace, args.events.as_deref(), globals);
    let notice = |text: &str| globals.notice(text);
    let plan = Plan {
        policy: &policy,
        isolation: &isolation,
        recorded,
        dry_run: args.dry_run,
        unix,
        replaceable: args.watch,
        hosts: (!served.is_empty()).then_some((&served, named)),
        command: &args.command,
        notice: &notice,
    };
    // without files there is nothing that could be taken anew
    let mut reload = match sources.is_empty() {
        true => None,
        false => Some(Reload::new(args, globals, policy.clone(), sources, served.keys())?),
    };
    let source = reload.as_mut().map(|reload| reload as &mut dyn session::Source);
    let ended = session::run(&plan, &mut recorder, source)?;
    let status = ended.outcome.exit_status();
    match recorder.finish(&ended) {
        // what the command says of itself comes first
        Err(error) if status != 0 => globals.notice(&told(&error)),
        Err(error) => return Err(error),
        Ok(()) => {}
    }
    Ok(status)
}

fn isolation(args: &RunArgs) -> Result<Isolation> {
    let capabilities = args.keep_cap.iter().map(|name| name.parse().map_err(|error| anyhow!("--keep-cap: {error}")));
    let families = args.family.iter().map(|name| name.parse().map_err(|error| anyhow!("--family: {error}")));
    Ok(Isolation {
        enabled: !args.no_isolation,
        user: args.user.clone(),
        keep_capabilities: capabilities.collect::<Result<_>>()?,
        families: families.collect::<Result<_>>()?,
        io_uring: args.io_uring,
        user_namespaces: args.user_namespaces,
        keep_descriptors: args.keep_fd.clone(),
        network_devices: args.network_devices,
        private_sockets: None,
    })
}

/// `all` and `run` are words of `--unix`; what else there is are places.
fn is(place: &Path, word: &str) -> bool {
    place.as_os_str() == word
}

/// Whether `all` stands alone, if it does.
fn alone(places: &[PathBuf]) -> Result<()> {
    if places.len() > 1 && places.iter().any(|place| is(place, "all")) {
        bail!("--unix: all leaves nothing to name besides");
    }
    Ok(())
}

/// What `--unix` asks for, in the way that this machine knows.
fn unix(places: &[PathBuf]) -> Result<UnixSockets> {
    if places.iter().any(|place| is(place, "all")) {
        return Ok(UnixSockets::All);
    }
    let named = places.iter().filter(|place| !is(place, "run")).map(|place| NamedSocket::find(place));
    let named: Vec<NamedSocket> = named.collect::<Result<_, _>>().context("--unix")?;
    if peers_are_seen()? {
        return Ok(UnixSockets::Run(named));
    }
    if let Some(socket) = named.iter().find(|socket| !socket.is_fixed()) {
        bail!(
            "--unix: this machine lets no program look at the socket that a process speaks to, so a socket can be named only by \
             a path that nobody but root can change, and {} is none",
            socket.place().display()
        );
    }
    Ok(UnixSockets::Paths(named))
}

/// The layers to record: those that were named; else the ALE layers (without _DISCARD, which tell nothing new), and those that
/// the policy filters.
fn recorded(args: &RunArgs, policy: &CompiledPolicy) -> Result<Vec<LayerId>> {
    let mut layers = named(&args.layers)?;
    if !args.trace && args.events.is_none() {
        return Ok(vec![]);
    }
    if args.layers.is_empty() {
        let ale = |layer: &LayerId| layer.name().starts_with("ALE_") && !layer.name().ends_with("_DISCARD");
        layers.extend(live::layers().filter(ale));
        layers.extend(filtered(policy).filter(|layer| live::is_live(*layer)));
    }
    Ok(layers)
}

/// The layers that `--layers` names, whether anything is recorded or not: a wrong name is always said.
fn named(names: &[String]) -> Result<Vec<LayerId>> {
    let mut layers = vec![];
    for name in names {
        if name.eq_ignore_ascii_case("all") {
            layers.extend(live::layers());
            continue;
        }
        let found = Layer::family(name);
        if found.is_empty() {
            let nearest = Layer::nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            bail!("--layers: there is no layer {name}{nearest}");
        }
        for layer in found {
            if !live::is_live(layer) {
                return Err(anyhow!("{layer} is not met live")).context("--layers");
            }
            layers.push(layer);
        }
    }
    Ok(layers)
}

fn filtered(policy: &CompiledPolicy) -> impl Iterator<Item = LayerId> {
    Layer::all().iter().map(|layer| layer.id).filter(|&layer| !policy.layer_of(layer).places.is_empty())
}

/// Filters at layers that no hook serves have no effect: that must not go unsaid.
fn warn_of_layers(policy: &CompiledPolicy, globals: Globals) {
    let names: Vec<&str> = filtered(policy).filter(|layer| !live::is_live(*layer)).map(LayerId::name).collect();
    for filter in policy.filters().iter().filter(|filter| !filter.is_disabled()) {
        let (filter, layer) = (&filter.filter, filter.filter.layer);
        let of_errors = findings::of_errors(layer).map(str::to_owned);
        for text in findings::not_live(filter).into_iter().chain(of_errors) {
            globals.notice(&format!("\"{}\" at {layer} {text}", filter.name));
        }
    }
    if !names.is_empty() {
        globals.notice(&format!(
            "filters at these layers have no effect here, which are not met live yet: {}",
            names.join(", ")
        ));
    }
}
