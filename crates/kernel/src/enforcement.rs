//! A compiled policy, enforced for the processes of a control group.

use crate::{
    applications::ApplicationError,
    attach,
    authorizing::AuthorizingFilters,
    bpffs, config,
    divert::{Device, Policies},
    events::Events,
    flows::FlowTable,
    grace::Grace,
    group::Group,
    hooks::{self, Hook},
    image::{self, Cells},
    interfaces,
    known::{Known, Named},
    labels::Labels,
    links::Link,
    load::{LoadError, Settings, Shims, Times},
    namespaces::{Asked, Namespaces},
    network::News,
    options::Options,
    replace,
    totals::{self, LayerTotals, TotalsMap},
    unix::{self, UnixSockets},
};
use aya::maps::Map;
use openwfp_abi::{
    cgroup::GroupKey,
    config::{Config, FLOWS_RECORDED, FORGETS},
    counters::{DIVERT_ABSENT, DIVERT_FORGED, DIVERT_FULL, NO_STORAGE, NO_WORK, UNREADABLE_PACKETS},
    file::FileKey,
};
use openwfp_engine::CompiledPolicy;
use openwfp_model::{FieldId, LayerId};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
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
    /// A policy that is to take the place of another was not compiled as the generation after it.
    #[error("the policy is of generation {found}, and the one that holds is of generation {current}")]
    Generation {
        /// Its generation.
        found: u32,
        /// The generation that holds.
        current: u32,
    },
    /// A policy that is to take the place of another is too large to stand beside it.
    #[error(
        "the policy needs {cells} cells of 16 bytes, and beside the one that holds there is room for {room}: end the run \
         and start it with this policy"
    )]
    NoRoom {
        /// How many cells it needs.
        cells: usize,
        /// How many are free.
        room: u32,
    },
    /// A policy that is to take the place of another names a group that was not known from the start.
    #[error(
        "the policy names the group {gid}, and the run was not started to tell who is in it: groups are looked up when a \
         socket is made; end the run and start it with this policy"
    )]
    UnknownGroup {
        /// The group.
        gid: u32,
    },
    /// A policy that is to take the place of another asks for what the programs were not loaded to find out.
    #[error(
        "the policy tests {field}, and the run was not started to find that out: it is looked up when a socket is made; end the \
         run and start it with this policy"
    )]
    NotAsked {
        /// The field.
        field: FieldId,
    },
}

/// Something that was left undone, and does no harm.
#[derive(Debug, Error)]
pub enum Warning {
    /// The program of a condition does not exist now: the condition matches nothing.
    #[error("no program matches a condition on ALE_APP_ID: {0}")]
    Application(#[from] ApplicationError),
    /// There is no network namespace of a number now: the condition matches nothing.
    #[error("no network namespace matches a condition on LINUX_NETWORK_NAMESPACE: there is none with the number {0}")]
    NetworkNamespace(u32),
    /// Not all network interfaces and addresses found room: those left out are unreadable, or not known as local.
    #[error("{0} network interfaces or addresses were left out")]
    Interfaces(usize),
    /// A policy that took the place of another needs programs that were not attached before.
    #[error(
        "layers are filtered that were not looked at before ({}): of sockets that were made before their owner is not \
         known, which blocks where it is tested", names(.0)
    )]
    LaterHooks(Vec<Hook>),
}

fn names(hooks: &[Hook]) -> String {
    hooks.iter().map(|hook| hook.name()).collect::<Vec<_>>().join(", ")
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
    /// Packets that a callout was to be asked about, and that found no room in the ring buffer or were too long. They were
    /// blocked, or permitted where their filter says so.
    pub diverts_without_room: u64,
    /// Packets that a callout was to be asked about, where nobody was there to answer or where there is no way back for them.
    /// Likewise.
    pub diverts_without_host: u64,
    /// Packets that came to the device of ours by which packets are injected, and were not ours.
    pub injections_forged: u64,
    /// How often interfaces or addresses had changed and that could not be followed at once: meanwhile they were unreadable to the
    /// programs, or not known as local, and new devices without programs.
    pub changes_not_followed: u64,
    /// Packets whose headers could not be read, where a layer would have had to look at them. Each was dropped (in a dry run:
    /// would have been), without an event and in no total.
    pub packets_unreadable: u64,
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
    pub(crate) shims: Shims,
    /// The programs that are attached, or will be.
    pub(crate) hooks: Vec<Hook>,
    pub(crate) attached: bool,
    pub(crate) group: File,
    /// What limits Unix sockets; nothing when all are permitted.
    unix: Vec<(&'static str, attach::Program)>,
    pub(crate) labels: Labels,
    totals: TotalsMap,
    /// The layers that have, or have had, filters or were recorded.
    pub(crate) layers: Vec<LayerId>,
    pub(crate) events: Events,
    pub(crate) news: News,
    pub(crate) flows: FlowTable,
    /// The devices to which programs are attached, by index.
    pub(crate) devices: BTreeSet<u32>,
    pub(crate) options: Options,
    warnings: Vec<Warning>,
    pub(crate) sockets_not_ended: u64,
    pub(crate) changes_not_followed: u64,
    /// When interfaces are to be looked at again although nothing was heard.
    pub(crate) follow_again: Option<Instant>,
    phases: Phases,
    pub(crate) applications: Known<FileKey>,
    pub(crate) named_groups: Known<GroupKey>,
    pub(crate) namespaces: Namespaces,
    /// What of Linux's own the programs find out.
    pub(crate) asked: Asked,
    /// The bits of groups that the programs know.
    pub(crate) groups: BTreeMap<u32, u32>,
    pub(crate) cells: Cells,
    /// Where the image stands that holds.
    pub(crate) place: Range<u32>,
    /// What was written for it.
    pub(crate) config: Config,
    /// The settings that the policy asks for, where a program may still work for the one before.
    pub(crate) unsettled: Option<Config>,
    /// Made when it is first needed.
    pub(crate) grace: Option<Grace>,
    /// The filters of the policy that holds which authorize flows.
    pub(crate) filters: AuthorizingFilters,
    pub(crate) policies: Policies,
    /// By which diverted packets come back; none where nothing is diverted.
    pub(crate) device: Option<Device>,
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
        let mut groups: Vec<(u32, u32)> = policy.groups().given().map(|(gid, bit)| (bit, gid)).collect();
        groups.sort_unstable();
        let groups: Vec<u32> = groups.into_iter().map(|(_, gid)| gid).collect();
        let asked = if options.replaceable { Asked::ALL } else { Asked::by(policy) };
        let mut shims = Shims::load(&Settings {
            group,
            groups_named: &groups,
            cells: room,
            flows: options.flows,
            asked,
            diverted: options.diverted,
        })?;

        // before interfaces are listed
        let device = (options.diverted > 0).then(Device::make).transpose();
        let device =
            device.map_err(|source| LoadError::System { what: "cannot make a device to inject packets by", source })?;

        let started = Instant::now();
        let mut warnings = vec![];
        let system = |source| LoadError::System { what: "cannot listen for changes of network interfaces", source };
        let news = News::listen().map_err(system)?;
        let mut memory = map_cells(&mut shims, room)?;
        memory.write(0, cells)?;
        let mut applications = Known::default();
        let (named, missing) = Named::find(policy, shims.hash_key());
        warnings.extend(missing.into_iter().map(Warning::from));
        applications.write(&mut shims, &named, policy.generation(), None)?;
        let policies = Policies::default();
        policies.prepare(replace::diverting(policy, &named));
        policies.switched(true);
        applications.switched(named);
        let mut named_groups = Known::default();
        let named = Named::groups(policy, shims.hash_key());
        named_groups.write(&mut shims, &named, policy.generation(), None)?;
        named_groups.switched(named);
        let mut namespaces = Namespaces::default();
        let missing = namespaces.write(&mut shims, policy)?;
        warnings.extend(missing.into_iter().map(Warning::NetworkNamespace));
        let written = interfaces::write(shims.ebpf(), &interfaces::of_namespace()?)?;
        if written.refused > 0 {
            warnings.push(Warning::Interfaces(written.refused));
        }
        let config = config::of_policy(policy, 0, &options, &options.recorded, interfaces::namespace()?);
        config::write(&mut shims, config)?;
        let mut phases = Phases { policy: started.elapsed(), ..Phases::default() };

        let started = Instant::now();
        let layers: Vec<LayerId> = config::used_layers(policy).chain(options.recorded.iter().copied()).collect();
        let mut hooks = Hook::wanted(layers.iter().copied(), options.devices);
        if options.replaceable {
            hooks.extend(Hook::all(options.devices));
        }
        if config.flags & FLOWS_RECORDED != 0 {
            hooks.push(Hook::Release);
        }
        if config.flags & FORGETS != 0 {
            // nobody asks who made a socket, and its packets say what kind it is of
            hooks.retain(|hook| *hook != Hook::Create);
        }
        if device.is_some() {
            hooks.extend(Hook::OF_DIVERTING);
        }
        if !hooks.contains(&Hook::Bind4) {
            hooks.extend([Hook::Bound4, Hook::Bound6]);
        }
        hooks.sort_unstable();
        hooks.dedup();
        hooks::load(&mut shims, &hooks)?;
        let unix = match &options.unix {
            UnixSockets::All => vec![],
            UnixSockets::Run(named) => unix::load(&mut shims, named, false)?,
            UnixSockets::Paths(named) => unix::load(&mut shims, named, true)?,
        };
        phases.programs = started.elapsed();
        if let Some(pins) = &options.pins {
            shims.pin_maps(pins)?;
        }
        let labels = Labels::take(&mut shims)?;
        let totals = TotalsMap::new(take(&mut shims, "TOTALS")?)?;
        let flows = FlowTable::new(take(&mut shims, "FLOWS")?, options.flows)?;
        let events = Events::new(take(&mut shims, "EVENTS")?, take(&mut shims, "SEQUENCE")?, shims.reasons().clone())?;
        news.wake_for(events.as_fd()).map_err(system)?;
        Ok(Self {
            shims,
            hooks,
            attached: false,
            group: folder,
            unix,
            labels,
            totals,
            layers,
            events,
            news,
            flows,
            devices: BTreeSet::new(),
            options,
            warnings,
            sockets_not_ended: 0,
            changes_not_followed: 0,
            follow_again: None,
            phases,
            applications,
            named_groups,
            namespaces,
            asked,
            groups: policy.groups().given().collect(),
            cells: memory,
            place: 0..cells.len() as u32,
            config,
            unsettled: None,
            grace: None,
            filters: AuthorizingFilters::of(policy),
            policies,
            device,
        })
    }

    /// Attaches the programs: first those that label processes, then the filtering ones. Processes that were in the
    /// group before have no label until they execute a program.
    pub fn attach(&mut self) -> Result<(), EnforceError> {
        let started = Instant::now();
        self.shims.attach_labels(self.options.pins.as_deref())?;
        self.phases.load = self.shims.times();
        for (name, program) in &self.unix {
            let attached = program.attach(&self.group);
            let attached = attached
                .map_err(|source| LoadError::System { what: "cannot attach what limits Unix sockets", source })?;
            self.shims.keep_attached(name, attached, self.options.pins.as_deref())?;
        }
        if let Some(device) = &self.device {
            let link = Link { index: device.index, name: device.name.clone(), ..Link::default() };
            hooks::attach_to_device(&mut self.shims, &self.hooks, &link, true, self.options.pins.as_deref())?;
        }
        self.attach_to_devices(&interfaces::of_namespace()?)?;
        hooks::attach(&mut self.shims, &self.hooks, &self.group, self.options.pins.as_deref())?;
        self.attached = true;
        self.phases.attach = started.elapsed().saturating_sub(self.phases.load.programs);
        Ok(())
    }

    /// What was left undone when the policy was loaded.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The programs that are attached, or will be.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// How long the start took.
    pub fn phases(&self) -> Phases {
        self.phases
    }

    /// Becomes readable when there are events, or interfaces or addresses have changed.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
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

    /// How many packets were looked at, each once: at the IP packet layers, or of a direction and version of IP where those have
    /// no filters and are not recorded, at the transport layers. `None` where that holds of these too: nobody counts packets then.
    pub fn packets(&self) -> Result<Option<u64>, EnforceError> {
        let totals = self.totals.read()?;
        let counted =
            totals::PACKETS.into_iter().filter_map(|layers| layers.into_iter().find(|at| self.layers.contains(at)));
        let of_layer = |layer: LayerId| -> u64 {
            let found = totals.iter().filter(|totals| totals.layer == layer);
            found.map(|totals| totals.permitted + totals.blocked).sum()
        };
        Ok(counted.map(of_layer).reduce(|all, more| all + more))
    }

    /// What could not be done so far.
    pub fn failures(&self) -> Failures {
        Failures {
            events_lost: self.events.lost(),
            events_unreadable: self.events.unreadable(),
            sockets_not_ended: self.sockets_not_ended,
            decisions_without_memory: self.labels.counter(NO_WORK),
            sockets_without_memory: self.labels.counter(NO_STORAGE),
            diverts_without_room: self.labels.counter(DIVERT_FULL),
            diverts_without_host: self.labels.counter(DIVERT_ABSENT),
            injections_forged: self.labels.counter(DIVERT_FORGED),
            changes_not_followed: self.changes_not_followed,
            packets_unreadable: self.labels.counter(UNREADABLE_PACKETS),
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

    /// How many flows of datagrams are remembered, and hops by way of which packets go elsewhere.
    pub fn flows_remembered(&self) -> usize {
        self.flows.count()
    }

    /// The loaded object, for those who look at its programs.
    pub fn shims(&mut self) -> &mut Shims {
        &mut self.shims
    }

    /// Takes the policy away, also what was pinned. (Dropping leaves what is pinned.)
    pub fn detach(self) -> io::Result<()> {
        let pins = self.options.pins.clone();
        drop(self);
        pins.as_deref().map_or(Ok(()), bpffs::unpin)
    }

    /// Where everything is pinned.
    pub fn pins(&self) -> Option<&Path> {
        self.options.pins.as_deref()
    }
}

fn take(shims: &mut Shims, name: &'static str) -> Result<Map, LoadError> {
    shims.ebpf().take_map(name).ok_or(LoadError::ObjectLacks { name })
}

/// Maps the memory of the policy image, which has this many cells.
pub(crate) fn map_cells(shims: &mut Shims, room: u32) -> Result<Cells, LoadError> {
    let name = "CELLS";
    let map = shims.ebpf().map(name).ok_or(LoadError::ObjectLacks { name })?;
    let Map::Array(data) = map else { return Err(LoadError::ObjectLacks { name }) };
    Cells::map(data.fd().as_fd(), room)
        .map_err(|source| LoadError::System { what: "cannot map the memory of the policy image", source })
}
