//! A compiled policy, enforced for the processes of a control group.

use crate::{
    applications::{Application, ApplicationError},
    bpffs,
    events::{self, EndOfFlow, Event, EventKind, Events},
    flows::FlowTable,
    group::Group,
    hooks::{self, Hook},
    image::{self, Cells},
    interfaces,
    labels::Labels,
    load::{LoadError, Settings, Shims, Times},
    records::Record,
    sockets,
    totals::{LayerTotals, TotalsMap},
};
use aya::maps::{Array, HashMap, Map, MapError};
use openwfp_abi::{
    config::{Config, DRY_RUN, FLOWS_RECORDED, LATE, LISTEN_FILTERS, PACKET_LAYERS, REFUSED_FLOWS},
    counters::{NO_STORAGE, NO_WORK},
};
use openwfp_engine::{CompiledPolicy, Unknown, words};
use openwfp_model::{FieldId, Layer, LayerId, Value};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use thiserror::Error;

/// Why a policy cannot be enforced.
#[derive(Debug, Error)]
pub enum EnforceError {
    /// Loading or attaching failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The policy compares paths of applications for more than equality.
    #[error(
        "the policy compares ALE_APP_ID by prefix or without regard to case; the kernel knows a program as one file: \
         name each program by its path"
    )]
    WideApplications,
    /// The control group cannot be opened.
    #[error("cannot open the control group {path}: {source}")]
    Group {
        /// Its folder.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

/// Something that was left undone, and does no harm.
#[derive(Debug, Error)]
pub enum Warning {
    /// The program of a condition does not exist now: the condition matches nothing.
    #[error("no program matches a condition on ALE_APP_ID: {0}")]
    Application(#[from] ApplicationError),
    /// Not all network interfaces and addresses found room: those left out are unreadable, or not known as local.
    #[error("{0} network interfaces or addresses were left out")]
    Interfaces(usize),
}

/// How a policy is enforced.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The layers at which classifications are reported as events.
    pub recorded: Vec<LayerId>,
    /// Decide and report, but block nothing.
    pub dry_run: bool,
    /// Where everything is pinned, so that it outlives this process.
    pub pins: Option<PathBuf>,
}

/// What could not be done after the policy was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Events that found no room in the ring buffer.
    pub events_lost: u64,
    /// Records that were no events.
    pub events_unreadable: u64,
    /// Sockets that wait for a refused connection and could not be told; they time out.
    pub sockets_not_ended: u64,
    /// Decisions for which the programs had no working memory. Each was closed: the call refused, the packet dropped,
    /// without an event and in no total.
    pub decisions_without_memory: u64,
    /// Sockets that had no room for what has to be kept with them. What needed it was refused or dropped.
    pub sockets_without_memory: u64,
}

/// How long the parts of a start took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Types of the kernel, maps, labels.
    pub load: Times,
    /// Image, applications, interfaces.
    pub policy: Duration,
    /// Verifying and translating the filtering programs.
    pub programs: Duration,
    /// Attaching.
    pub attach: Duration,
}

/// A policy in the kernel.
pub struct Enforcement {
    shims: Shims,
    hooks: Vec<Hook>,
    group: File,
    labels: Labels,
    totals: TotalsMap,
    layers: Vec<LayerId>,
    events: Events,
    flows: FlowTable,
    pins: Option<PathBuf>,
    warnings: Vec<Warning>,
    sockets_not_ended: u64,
    phases: Phases,
    // held so that their file systems stay mounted: device numbers are given out again
    _applications: Vec<Application>,
    _cells: Cells,
}

impl Enforcement {
    /// Loads everything; nothing is attached yet.
    pub fn prepare(policy: &CompiledPolicy, group: &Group, options: Options) -> Result<Self, EnforceError> {
        if policy.classes().has_wide(FieldId::ALE_APP_ID) {
            return Err(EnforceError::WideApplications);
        }
        let folder = File::open(&group.path)
            .map_err(|source| EnforceError::Group { path: group.path.display().to_string(), source })?;
        let cells = policy.image().cells();
        let room = image::room(cells.len());
        let mut groups: Vec<(u32, u32)> = policy.groups().iter().map(|(gid, bit)| (bit, gid)).collect();
        groups.sort_unstable();
        let groups: Vec<u32> = groups.into_iter().map(|(_, gid)| gid).collect();
        let mut shims = Shims::load(&Settings { group, groups_named: &groups, cells: room })?;

        let started = Instant::now();
        let mut warnings = vec![];
        let memory = write_image(&mut shims, room, policy)?;
        let applications = write_applications(&mut shims, policy, &mut warnings)?;
        let refused = interfaces::write(shims.ebpf())?;
        if refused > 0 {
            warnings.push(Warning::Interfaces(refused));
        }
        let config = config(policy, &options, interfaces::namespace()?);
        write_config(&mut shims, config)?;
        let mut phases = Phases { policy: started.elapsed(), ..Phases::default() };

        let started = Instant::now();
        let layers: Vec<LayerId> = used_layers(policy).chain(options.recorded.iter().copied()).collect();
        let mut hooks = Hook::of_layers(layers.iter().copied());
        if config.flags & FLOWS_RECORDED != 0 {
            hooks.push(Hook::Release);
            hooks.sort_unstable();
            hooks.dedup();
        }
        hooks::load(shims.ebpf(), &hooks)?;
        phases.programs = started.elapsed();
        if let Some(pins) = &options.pins {
            shims.pin_maps(pins)?;
        }
        let labels = Labels::take(&mut shims)?;
        let totals = TotalsMap::new(take(&mut shims, "TOTALS")?)?;
        let flows = FlowTable::new(take(&mut shims, "FLOWS")?)?;
        let events = Events::new(take(&mut shims, "EVENTS")?, take(&mut shims, "SEQUENCE")?)?;
        Ok(Self {
            shims,
            hooks,
            group: folder,
            labels,
            totals,
            layers,
            events,
            flows,
            pins: options.pins,
            warnings,
            sockets_not_ended: 0,
            phases,
            _applications: applications,
            _cells: memory,
        })
    }

    /// Attaches the programs: first those that label processes, then the filtering ones. Processes that were in the
    /// group before have no label until they execute a program.
    pub fn attach(&mut self) -> Result<(), EnforceError> {
        let started = Instant::now();
        self.shims.attach_labels(self.pins.as_deref())?;
        self.phases.load = self.shims.times();
        hooks::attach(&mut self.shims, &self.hooks, &self.group, self.pins.as_deref())?;
        self.phases.attach = started.elapsed().saturating_sub(self.phases.load.programs);
        Ok(())
    }

    /// What was left undone when the policy was loaded.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The programs that were loaded.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// How long the start took.
    pub fn phases(&self) -> Phases {
        self.phases
    }

    /// Becomes readable when there are events.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Reads the events that there are, in the order of time, and ends the sockets that wait for what was refused.
    /// Call it whenever [`Self::poll_fd`] is readable, also when nothing is recorded.
    pub fn events(&mut self, mut each: impl FnMut(Event)) {
        let events = self.events.drain(&self.labels);
        for event in events.iter().filter(|event| event.fail_socket && event.enforced) {
            match sockets::end(event) {
                Ok(()) => {}
                // it is gone already
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(_) => self.sockets_not_ended += 1,
            }
        }
        for mut event in events {
            let ended = self.follow_flow(&mut event);
            if event.shown {
                each(event);
            }
            ended.into_iter().for_each(&mut each);
        }
        let now = u64::try_from(events::monotonic().as_nanos()).unwrap_or(u64::MAX);
        for (flow, cause) in self.flows.sweep(now) {
            each(Event::flows_deleted(vec![flow], cause, None));
        }
    }

    /// Keeps account of the flows of datagrams; what follows from the event.
    fn follow_flow(&mut self, event: &mut Event) -> Option<Event> {
        let connection = event.values.get(words::IP_PROTOCOL) == u64::from(libc::IPPROTO_TCP.unsigned_abs());
        match &mut event.kind {
            EventKind::FlowsDeleted { flows, .. } => {
                if flows.is_empty() {
                    flows.extend(self.flows.closed(event.socket));
                }
                None
            }
            EventKind::Classify if connection || event.flow == 0 => None,
            EventKind::Classify if event.blocked => {
                let ended = event.enforced && event.reauthorizes() && self.flows.ended(event.flow);
                ended.then(|| Event::flows_deleted(vec![event.flow], EndOfFlow::Refused, Some(event)))
            }
            EventKind::Classify => {
                let established = [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6];
                if established.contains(&event.layer) {
                    let now = u64::try_from(events::monotonic().as_nanos()).unwrap_or(u64::MAX);
                    self.flows.established(event.flow, event.socket, now);
                }
                None
            }
        }
    }

    /// How many events each CPU has made: what was not read of them is lost, once no event is under way.
    pub fn sequences(&self) -> Vec<u64> {
        self.events.made_by_cpu()
    }

    /// What was permitted and blocked at the layers that have filters or are recorded. (Hooks that are there for one layer
    /// serve others too, where everything is permitted.)
    pub fn totals(&self) -> Result<Vec<LayerTotals>, EnforceError> {
        let mut all = self.totals.read()?;
        all.retain(|totals| self.layers.contains(&totals.layer));
        Ok(all)
    }

    /// What could not be done so far.
    pub fn failures(&self) -> Failures {
        Failures {
            events_lost: self.events.lost(),
            events_unreadable: self.events.unreadable(),
            sockets_not_ended: self.sockets_not_ended,
            decisions_without_memory: self.labels.counter(NO_WORK),
            sockets_without_memory: self.labels.counter(NO_STORAGE),
        }
    }

    /// Which program each process runs.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Forgets the authorizations of datagrams, as the programs do when they need room: each flow is asked for again.
    pub fn forget_flows(&mut self) {
        self.flows.forget();
    }

    /// Network interfaces or addresses have changed: tells the programs.
    pub fn refresh_interfaces(&mut self) -> Result<(), EnforceError> {
        interfaces::write(self.shims.ebpf())?;
        Ok(())
    }

    /// The loaded object, for those who look at its programs.
    pub fn shims(&mut self) -> &mut Shims {
        &mut self.shims
    }

    /// Takes the policy away, also what was pinned. (Dropping leaves what is pinned.)
    pub fn detach(self) -> io::Result<()> {
        let pins = self.pins.clone();
        drop(self);
        pins.as_deref().map_or(Ok(()), bpffs::unpin)
    }

    /// Where everything is pinned.
    pub fn pins(&self) -> Option<&Path> {
        self.pins.as_deref()
    }
}

/// The layers at which the policy has filters.
fn used_layers(policy: &CompiledPolicy) -> impl Iterator<Item = LayerId> {
    Layer::all().iter().map(|layer| layer.id).filter(|layer| !policy.layer_of(*layer).places.is_empty())
}

fn config(policy: &CompiledPolicy, options: &Options, namespace: u64) -> Config {
    let generation = policy.image().generation();
    let mut config = Config { image: Config::image_word(0, generation), namespace, ..Config::default() };
    options.recorded.iter().for_each(|layer| config.record(layer.get()));
    used_layers(policy).for_each(|layer| config.activate(layer.get()));
    let layers: Vec<LayerId> = used_layers(policy).chain(options.recorded.iter().copied()).collect();
    let any = |wanted: &[LayerId]| layers.iter().any(|layer| wanted.contains(layer));
    if options.dry_run {
        config.flags |= DRY_RUN;
    }
    let established = [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6];
    if any(&established) {
        config.flags |= REFUSED_FLOWS;
    }
    if options.recorded.iter().any(|layer| established.contains(layer)) {
        config.flags |= FLOWS_RECORDED;
    }
    let auth_listen = [LayerId::ALE_AUTH_LISTEN_V4, LayerId::ALE_AUTH_LISTEN_V6];
    if used_layers(policy).any(|layer| auth_listen.contains(&layer) || established.contains(&layer)) {
        config.flags |= LISTEN_FILTERS;
    }
    let late = [LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6]
        .into_iter()
        .any(|layer| policy.layer_of(layer).places.iter().any(|place| place.marker == Some(Unknown::Late)));
    if late {
        config.flags |= LATE;
    }
    if layers.iter().any(|layer| Hook::is_packet_layer(*layer)) {
        config.flags |= PACKET_LAYERS;
    }
    config
}

fn failed(name: &'static str) -> impl Fn(MapError) -> LoadError {
    move |source| LoadError::Map { name, source: Box::new(source) }
}

fn take(shims: &mut Shims, name: &'static str) -> Result<Map, LoadError> {
    shims.ebpf().take_map(name).ok_or(LoadError::ObjectLacks { name })
}

fn write_image(shims: &mut Shims, room: u32, policy: &CompiledPolicy) -> Result<Cells, LoadError> {
    let name = "CELLS";
    let map = shims.ebpf().map(name).ok_or(LoadError::ObjectLacks { name })?;
    let Map::Array(data) = map else { return Err(LoadError::ObjectLacks { name }) };
    let mut memory = Cells::map(data.fd().as_fd(), room)
        .map_err(|source| LoadError::System { what: "cannot map the memory of the policy image", source })?;
    memory.write(0, policy.image().cells())?;
    Ok(memory)
}

fn write_applications(
    shims: &mut Shims,
    policy: &CompiledPolicy,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Application>, LoadError> {
    let key = shims.hash_key();
    let name = "APPLICATIONS";
    let map = shims.ebpf().map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
    let mut map = HashMap::<_, Record<_>, [u32; 2]>::try_from(map).map_err(failed(name))?;
    let mut found = vec![];
    for (class, value) in policy.classes().named(FieldId::ALE_APP_ID) {
        let Value::Application(path) = value else { continue };
        match Application::find(Path::new(path)) {
            Ok(application) => {
                map.insert(Record(application.key(key)), [class, class], 0).map_err(failed(name))?;
                found.push(application);
            }
            Err(error) => warnings.push(error.into()),
        }
    }
    Ok(found)
}

fn write_config(shims: &mut Shims, config: Config) -> Result<(), LoadError> {
    let name = "CONFIG";
    let map = shims.ebpf().map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
    let mut map = Array::<_, Record<Config>>::try_from(map).map_err(failed(name))?;
    map.set(0, Record(config), 0).map_err(failed(name))
}
