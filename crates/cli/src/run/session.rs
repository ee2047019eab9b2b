//! One run: the group, the programs, the command, from the first to the last.

use super::hosts::{Named, ROOM, Said, Served, Serving};
use crate::{output::told, readable::printable};
use anyhow::{Context, Result, anyhow, bail};
use openwfp_callout::CalloutReport;
use openwfp_engine::CompiledPolicy;
use openwfp_kernel::{
    bpffs,
    enforcement::{EnforceError, Enforcement},
    events::{Event, EventKind},
    features,
    group::{self, Group},
    options::Options,
    replace::Replaced,
    unix::UnixSockets,
};
use openwfp_model::LayerId;
use openwfp_sandbox::{Groups, Isolation, Outcome, RunGroup, RunUser, Sandbox, end_with_descendants};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FlockOperation, flock},
    io::{Errno, retry_on_intr},
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{fd::BorrowedFd, unix::fs::OpenOptionsExt},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// What is to be run, and how.
pub(crate) struct Plan<'a> {
    pub policy: &'a CompiledPolicy,
    pub isolation: &'a Isolation,
    /// The layers whose classifications are reported.
    pub recorded: Vec<LayerId>,
    pub dry_run: bool,
    /// The Unix sockets that the command may speak to.
    pub unix: UnixSockets,
    /// Whether to prepare for policies that will take the place of this one.
    pub replaceable: bool,
    /// The callouts that hosts answer for, and the filters that name them.
    pub hosts: Option<(&'a Served, Vec<Named>)>,
    pub command: &'a [OsString],
    /// Says what a person should know; for standard error.
    pub notice: &'a dyn Fn(&str),
}

/// Is told what happens.
pub(crate) trait Watcher {
    /// As far as can be told, nothing is missing; and nothing has been done yet.
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// The programs are attached, and the command comes next: the last moment at which it can be left undone.
    fn ready(&mut self) -> Result<()> {
        Ok(())
    }

    /// The command runs.
    fn started(&mut self) {}

    /// An event.
    fn event(&mut self, event: &Event);

    /// Events have been looked for, and what can be told by now has been.
    fn looked(&mut self) {}

    /// Another policy holds. Events of the one before may still come, until [`Self::looked`] has been called twice.
    fn replaced(&mut self, _policy: &Arc<CompiledPolicy>) {}

    /// A policy was to be taken and could not; the one before holds.
    fn not_replaced(&mut self, _error: &str) {}

    /// A callout has reported something, or something has become of its host.
    fn reported(&mut self, _report: &CalloutReport) {}
}

/// Where policies come from that take the place of the first one.
pub(crate) trait Source {
    /// Readable when [`Self::look`] should be called, which may be called at any time.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// As whom the command runs: what he can write, he can change.
    fn runs_as(&mut self, user: Option<&RunUser>);

    /// The next policy, or why there is none (what was wrong has been said). `asked`: somebody wants one now.
    fn look(&mut self, asked: bool) -> Option<Result<Next>>;

    /// What came of the policy that was handed out last.
    fn answer(&mut self, next: &Next, result: Result<&Replaced, &EnforceError>);
}

/// A policy, and the layers to record under it.
pub(crate) struct Next {
    pub policy: Arc<CompiledPolicy>,
    pub recorded: Vec<LayerId>,
    /// The filters that name callouts which hosts answer for.
    pub named: Vec<Named>,
}

/// What a run came to.
pub(crate) struct Ended {
    pub outcome: Outcome,
    /// Packets that were looked at; `None` where no layer saw them.
    pub packets: Option<u64>,
    pub permitted: u64,
    pub blocked: u64,
    /// Packets whose headers could not be read, where a layer would have had to look at them. They are in no other number.
    pub unreadable: u64,
    /// Whether what was to be blocked was let through all the same.
    pub dry_run: bool,
    /// How many events each CPU has made.
    pub sequences: Vec<u64>,
}

/// Events are looked for this often although the kernel has not called: it does not for each one.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Nanoseconds of a clock tick, in which user space is told when processes have started (`USER_HZ` is 100 everywhere).
const TICK: u64 = 10_000_000;

/// Runs the command; the watcher is told what happens meanwhile.
pub(crate) fn run(plan: &Plan<'_>, watcher: &mut dyn Watcher, mut source: Option<&mut dyn Source>) -> Result<Ended> {
    let missing = features::missing();
    if !missing.is_empty() {
        let lines: Vec<String> = missing.iter().map(|missing| format!("  {missing}")).collect();
        bail!("this machine or this user cannot load the filtering programs:\n{}", lines.join("\n"));
    }
    watcher.begin()?;
    let groups = Groups::find()?;
    // two runs do not make and take away the same folders at once
    let starting = with_right(lock(plan.notice))?;
    let pins = bpffs::folder().context("cannot make a folder in a BPF file system for what outlives this process");
    let pins = with_right(pins)?;
    remove_ended(&groups, &pins, plan.notice);
    let sandbox = Sandbox::new(plan.isolation)?;
    for shortfall in sandbox.shortfalls() {
        (plan.notice)(&format!("{shortfall}"));
    }
    for descriptor in sandbox.descriptors() {
        (plan.notice)(&format!("{descriptor}"));
    }
    if let Some(source) = &mut source {
        source.runs_as(plan.isolation.enabled.then(|| sandbox.user()));
    }
    let group = with_right(groups.create())?;
    let folder = pins.join(group.name());
    let started = start(plan, &group, &sandbox, &folder, watcher);
    let (mut enforcement, mut child, mut hosts) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = bpffs::unpin(&folder);
            let _ = group.remove();
            let _ = bpffs::release();
            return Err(error);
        }
    };
    drop(starting);
    let watched = watch(&group, &mut enforcement, &mut child, &mut hosts, plan.notice, watcher, source);
    drop(hosts);
    let totals = enforcement.totals().unwrap_or_default();
    let packets = enforcement.packets().ok().flatten();
    let failures = enforcement.failures();
    if failures.sockets_not_ended > 0 {
        (plan.notice)(&format!("{} refused connections could not be ended and time out", failures.sockets_not_ended));
    }
    if failures.events_unreadable > 0 {
        (plan.notice)(&format!("{} events could not be read", failures.events_unreadable));
    }
    let without = failures.decisions_without_memory + failures.sockets_without_memory;
    if without > 0 {
        (plan.notice)(&format!("{without} calls or packets were blocked for want of memory to decide them"));
    }
    if failures.changes_not_followed > 0 {
        (plan.notice)("a change of network interfaces or addresses could not be followed at once");
    }
    if failures.packets_unreadable > 0 {
        let count = failures.packets_unreadable;
        let what = if plan.dry_run { "would have been dropped" } else { "were dropped" };
        (plan.notice)(&format!("{count} packets {what} because their headers cannot be read"));
    }
    if let Err(error) = leave(enforcement, group, plan.notice) {
        (plan.notice)(&format!("the command has ended, but not all could be cleared up: {}", told(&error)));
    }
    let (outcome, sequences) = watched?;
    Ok(Ended {
        outcome,
        packets,
        permitted: totals.iter().map(|layer| layer.permitted).sum(),
        blocked: totals.iter().map(|layer| layer.blocked).sum(),
        unreadable: failures.packets_unreadable,
        dry_run: plan.dry_run,
        sequences,
    })
}

/// Hands on events and signals until the command has ended.
fn watch(
    group: &RunGroup,
    enforcement: &mut Enforcement,
    child: &mut openwfp_sandbox::Child,
    hosts: &mut Option<Hosts>,
    notice: &dyn Fn(&str),
    watcher: &mut dyn Watcher,
    mut source: Option<&mut dyn Source>,
) -> Result<(Outcome, Vec<u64>)> {
    if source.is_some() {
        child.keep_hangups();
    }
    let outcome = loop {
        let mut ready = vec![
            PollFd::from_borrowed_fd(child.pidfd(), PollFlags::IN),
            PollFd::from_borrowed_fd(child.signals(), PollFlags::IN),
            PollFd::from_borrowed_fd(enforcement.poll_fd(), PollFlags::IN),
        ];
        let watched = source.as_ref().and_then(|source| source.descriptor());
        ready.extend(watched.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN)));
        let limit = rustix::event::Timespec::try_from(LOOK_AGAIN).ok();
        match poll(&mut ready, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(anyhow!("cannot wait for the command: {errno}")),
        }
        let asked = child.hand_on_signals()?;
        enforcement.events(|event| {
            if let (Some(hosts), EventKind::FlowsDeleted { flows, .. }) = (&*hosts, &event.kind) {
                hosts.serving.ended(flows.clone());
            }
            watcher.event(&event);
        });
        hear(hosts, notice, watcher);
        watcher.looked();
        if let Some(source) = &mut source
            && let Some(next) = source.look(asked)
        {
            replace(enforcement, hosts, watcher, *source, next);
        }
        if group.is_gone() {
            return Err(end_all(group, enforcement, child));
        }
        if let Some(outcome) = child.try_wait()? {
            break outcome;
        }
    };
    // counted before the last look: what comes later is nobody's loss
    let sequences = enforcement.sequences();
    enforcement.last_events(|event| watcher.event(&event));
    hear(hosts, notice, watcher);
    watcher.looked();
    Ok((outcome, sequences))
}

/// The hosts of a run, and the filters by which they are asked.
struct Hosts {
    serving: Serving,
    named: Vec<u64>,
}

/// Tells what hosts have said.
fn hear(hosts: &mut Option<Hosts>, notice: &dyn Fn(&str), watcher: &mut dyn Watcher) {
    let Some(Hosts { serving, .. }) = hosts else { return };
    for said in serving.said.try_iter() {
        match said {
            // a host has had its say in it
            Said::Notice(text) => notice(&printable(&text)),
            Said::Report(report) => watcher.reported(&report),
        }
    }
    if let Some(error) = serving.failed() {
        notice(&format!("callouts count as unregistered from here on: {}", told(&error)));
    }
}

/// Ends the command and what it has started, when its group is gone. Only an empty group can be removed: whoever did that has moved
/// them out of it, and nothing filters them any more.
fn end_all(group: &RunGroup, enforcement: &Enforcement, child: &openwfp_sandbox::Child) -> anyhow::Error {
    // the group may stand where its path does not lead any more
    let _ = group.kill_all();
    let executed = enforcement.labels().iter().map(|(process, _)| (process.tgid, Some(process.started / TICK)));
    let roots: Vec<(u32, Option<u64>)> = executed.chain([(child.id(), None)]).collect();
    let ended = end_with_descendants(&roots);
    // it is one of them, unless it could not be found
    let _ = child.kill();
    let what = match ended {
        0 | 1 => "the command is ended".to_owned(),
        _ => format!("the command and all that it has started ({ended} processes) are ended"),
    };
    anyhow!(
        "the control group {} has been removed under the command, so that nothing filters it any more: {what}",
        group.path().display()
    )
}

/// Takes a policy over, if it is one and can be.
fn replace(
    enforcement: &mut Enforcement,
    hosts: &mut Option<Hosts>,
    watcher: &mut dyn Watcher,
    source: &mut dyn Source,
    next: Result<Next>,
) {
    let mut next = match next {
        Ok(next) => next,
        Err(error) => return watcher.not_replaced(&format!("{error:#}")),
    };
    let named: Vec<u64> = next.named.iter().map(|(_, filter)| filter.id).collect();
    if let Some(hosts) = hosts {
        // hosts know them before the first packet meets them
        hosts.serving.add(std::mem::take(&mut next.named));
    }
    let result = enforcement.replace(&next.policy, &next.recorded);
    if let Some(hosts) = hosts {
        let gone = if result.is_ok() { std::mem::replace(&mut hosts.named, named) } else { named };
        hosts.serving.remove(gone);
    }
    source.answer(&next, result.as_ref());
    match result {
        Ok(_) => watcher.replaced(&next.policy),
        Err(error) => watcher.not_replaced(&error.to_string()),
    }
}

fn start(
    plan: &Plan<'_>,
    group: &RunGroup,
    sandbox: &Sandbox,
    folder: &Path,
    watcher: &mut dyn Watcher,
) -> Result<(Enforcement, openwfp_sandbox::Child, Option<Hosts>)> {
    let place = Group::open(group.path())?;
    let options = Options {
        recorded: plan.recorded.clone(),
        dry_run: plan.dry_run,
        pins: Some(folder.to_path_buf()),
        devices: false,
        replaceable: plan.replaceable,
        unix: plan.unix.clone(),
        diverted: if plan.hosts.is_some() { ROOM } else { 0 },
        ..Options::default()
    };
    let mut enforcement = Enforcement::prepare(plan.policy, &place, options)?;
    for warning in enforcement.warnings() {
        (plan.notice)(&warning.to_string());
    }
    let (program, arguments) = plan.command.split_first().context("no command was given")?;
    let held = sandbox.spawn(group, program, arguments, environment(plan.isolation))?;
    enforcement.attach()?;
    let hosts = match &plan.hosts {
        None => None,
        Some((served, named)) => {
            let ids = named.iter().map(|(_, filter)| filter.id).collect();
            let serving = Serving::start(served, named.clone(), enforcement.divert()?)?;
            Some(Hosts { serving, named: ids })
        }
    };
    watcher.ready()?;
    let child = held.release()?;
    watcher.started();
    Ok((enforcement, child, hosts))
}

/// The environment of the command. Where it has a folder of its own for sockets, programs are told to make them there.
fn environment(isolation: &Isolation) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    if let Some(folder) = &isolation.private_sockets {
        variables.retain(|(name, _)| name != "TMPDIR" && name != "XDG_RUNTIME_DIR");
        let folder = OsString::from(folder.as_os_str().to_string_lossy().trim_end_matches('/'));
        variables.extend(["TMPDIR", "XDG_RUNTIME_DIR"].map(|name| (name.into(), folder.clone())));
    }
    variables
}

/// Takes everything away when nobody is left in the group; else leaves it enforced.
fn leave(enforcement: Enforcement, group: RunGroup, notice: &dyn Fn(&str)) -> Result<()> {
    if group.is_populated().unwrap_or(false) {
        let who = match group.processes().map_or(0, |processes| processes.len()) {
            1 => "a process that the command has started goes".to_owned(),
            count => format!("{count} processes that the command has started go"),
        };
        notice(&format!(
            "{who} on, filtered, in {}; a later `wfp run` clears up when that has ended",
            group.path().display()
        ));
        return Ok(());
    }
    let _ending = lock(notice)?;
    enforcement.detach().context("cannot take away what was pinned")?;
    group.remove()?;
    bpffs::release().context("cannot release the BPF file system")?;
    Ok(())
}

/// Names the capability, where a folder is closed to the caller for want of one.
fn with_right<T, E: Into<anyhow::Error>>(result: Result<T, E>) -> Result<T> {
    result.map_err(|error| {
        let error = error.into();
        let closed = error.chain().any(|cause| {
            let errno = cause.downcast_ref().and_then(io::Error::raw_os_error);
            errno == Some(Errno::ACCESS.raw_os_error())
        });
        match closed && features::obeys_modes() {
            true => error.context("missing CAP_DAC_OVERRIDE, or a folder that is the caller's own"),
            false => error,
        }
    })
}

/// Holds the lock under which runs start and end, until it is dropped. Nobody else may open its file, not even to read, since a lock
/// needs no more than that; from the command it is [hidden](openwfp_sandbox::LOCK).
fn lock(notice: &dyn Fn(&str)) -> Result<File> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let path = Path::new(openwfp_sandbox::LOCK);
    fs::create_dir_all("/run/wfp").context("cannot make /run/wfp")?;
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let end = Instant::now() + PATIENCE;
    let mut locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    while locked == Err(Errno::WOULDBLOCK) && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
        locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    }
    if locked == Err(Errno::WOULDBLOCK) {
        notice(&format!("waiting for another run that starts or ends: it holds {}", path.display()));
        locked = retry_on_intr(|| flock(&file, FlockOperation::LockExclusive));
    }
    locked.with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Clears up after runs that have ended without doing so.
fn remove_ended(groups: &Groups, pins: &Path, notice: &dyn Fn(&str)) {
    let ended = match groups.ended() {
        Ok(ended) => ended,
        Err(error) => return notice(&format!("what ended runs have left was not looked for: {error}")),
    };
    for group in ended {
        let folder = pins.join(group.name());
        let name = group.name().to_owned();
        match group.remove() {
            Ok(true) => {
                if let Err(error) = bpffs::unpin(&folder) {
                    notice(&format!("cannot take away {}: {error}", folder.display()));
                }
            }
            Ok(false) => {}
            Err(error) => notice(&format!("cannot remove {name}, which an ended run has left: {error}")),
        }
    }
    // pins whose group is gone already filter nothing
    let pinned = fs::read_dir(pins).into_iter().flatten().flatten();
    for entry in pinned {
        let name = entry.file_name();
        let of_a_run = name.to_str().is_some_and(|name| name.starts_with("run-"));
        // other runs may have their groups elsewhere, and what is pinned is all that filters them
        if of_a_run && matches!(group::stands(&name), Ok(false)) {
            let _ = bpffs::unpin(&entry.path());
        }
    }
}
