//! The object file into the kernel, its programs to their places, all of it pinned.
//!
//! What is pinned stays when the process that made it is killed: links keep their programs
//! attached, programs keep their maps. [`bpffs::unpin`](crate::bpffs::unpin) takes it away again.

use crate::{
    attach,
    btf::{Btf, BtfError},
    drops::{self, Reasons},
    flows::FlowLimits,
    group::Group,
    namespaces::Asked,
    offsets::Offsets,
};
use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    pin::PinError,
    programs::{
        BtfTracePoint, ProgramError,
        links::{FdLink, PinnedLink},
    },
};
use openwfp_abi::{divert::TOKENS, identity::GROUPS_NAMED, unix::UNIX_ENTRIES};
use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};
use thiserror::Error;

/// The compiled programs. `crates/shims/build.sh` makes the file and the manifest beside it.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!("../shims/openwfp.bpf.o");

/// (program, tracepoint). The exit of a process is seen before its start can be: nothing leaks.
pub(crate) const LABEL_PROGRAMS: [(&str, &str); 3] = [
    ("process_exit", "sched_process_exit"),
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
];

/// Why the programs could not be loaded or attached.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel's type information does not hold what the programs need.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The kernel refused the object: a map, or the type information.
    #[error("the kernel refused the programs: {}", chain(.0))]
    Object(#[source] Box<EbpfError>),
    /// The kernel refused a program.
    #[error("the kernel refused the program {name}: {}", chain(.source))]
    Program {
        /// Its name in the object file.
        name: &'static str,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// The object file lacks something that this version needs.
    #[error("the object file has no {name}: it does not belong to this version")]
    ObjectLacks {
        /// A program or a map.
        name: &'static str,
    },
    /// A link or a map could not be pinned.
    #[error("cannot pin {name}: {}", chain(.source))]
    Pin {
        /// Its name in the object file.
        name: String,
        /// What the system says.
        source: Box<PinError>,
    },
    /// The policy names more groups than the programs can tell apart.
    #[error("the policy names {count} groups; at most {GROUPS_NAMED} can be told apart")]
    TooManyGroups {
        /// How many it names.
        count: usize,
    },
    /// More sockets are named than the programs can tell apart.
    #[error("{count} Unix sockets are named; at most {UNIX_ENTRIES} can be told apart")]
    TooManySockets {
        /// How many are named.
        count: usize,
    },
    /// The kernel has no such function to stand before.
    #[error(
        "this kernel cannot limit Unix sockets: it has no {function} that programs can stand before (it wants \
         CONFIG_SECURITY_NETWORK)"
    )]
    NoFunction {
        /// Its name.
        function: &'static str,
    },
    /// No program can limit Unix sockets here.
    #[error(
        "this kernel cannot limit Unix sockets (that needs Linux 6.7, or CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS): {source}{}{said}",
        if said.is_empty() { "" } else { ": " }
    )]
    UnixSockets {
        /// What the kernel says of the program.
        said: String,
        /// What the system says.
        source: io::Error,
    },
    /// A map could not be written.
    #[error("cannot write the map {name}: {}", chain(.source))]
    Map {
        /// Its name.
        name: &'static str,
        /// What the system says.
        source: Box<aya::maps::MapError>,
    },
    /// The system gave no random numbers, or no folder for pins.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// An error and its causes in one line, without repeating what the outer one says already.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text
}

/// What one load is for.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The group whose processes are labelled.
    pub group: &'a Group,
    /// The groups (gid) that the policy names; their index is their bit.
    pub groups_named: &'a [u32],
    /// How many cells of a policy image there must be room for.
    pub cells: u32,
    /// How flows are remembered.
    pub flows: FlowLimits,
    /// How many bytes the ring buffer of diverted packets has; 0: none is diverted.
    pub diverted: u32,
    /// What of Linux's own is asked for.
    pub asked: Asked,
}

impl<'a> Settings<'a> {
    /// For labels alone: no policy.
    pub fn labels(group: &'a Group) -> Self {
        Self {
            group,
            groups_named: &[],
            cells: LEAST_CELLS,
            flows: FlowLimits::default(),
            diverted: 0,
            asked: Asked::default(),
        }
    }
}

/// Room for this many cells is always made, a mebibyte: for a policy of thousands of filters to come.
pub const LEAST_CELLS: u32 = 65536;

/// How long the parts took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Finding the kernel's members.
    pub offsets: Duration,
    /// Making the maps.
    pub object: Duration,
    /// Verifying, translating and attaching programs.
    pub programs: Duration,
}

/// The loaded object.
pub struct Shims {
    ebpf: Ebpf,
    types: aya::Btf,
    reasons: Reasons,
    hash_key: [u64; 2],
    links: Vec<(String, FdLink)>,
    /// What is pinned is held too: others can take pins away, with their mount even unawares.
    pinned: Vec<(String, PinnedLink)>,
    attached: Vec<attach::Attached>,
    times: Times,
}

impl Shims {
    /// Makes the maps, with the constants set. No program is loaded yet.
    pub fn load(settings: &Settings<'_>) -> Result<Self, LoadError> {
        let count = settings.groups_named.len();
        if count > GROUPS_NAMED as usize {
            return Err(LoadError::TooManyGroups { count });
        }
        let started = Instant::now();
        let loader = thread::spawn(loader);
        let btf = Btf::of_kernel()?;
        let tracepoints = LABEL_PROGRAMS.iter().map(|(_, tracepoint)| *tracepoint).chain([drops::TRACEPOINT]);
        let tracepoints: Vec<String> = tracepoints.map(|name| format!("btf_trace_{name}")).collect();
        let (offsets, reasons) = (Offsets::find(&btf)?, Reasons::of(&btf)?);
        let typedefs = btf.typedefs_alone(&tracepoints)?;
        let mut loader = loader.join().unwrap_or_else(|_| EbpfLoader::new());
        let offsets_time = started.elapsed();

        let started = Instant::now();
        let types = thread::spawn(move || aya::Btf::parse(&typedefs, aya::Endianness::default()));
        let hash_key = [random()?, random()?];
        let groups_asked = u32::from(count > 0);
        let (cgroups_asked, namespaces_asked) =
            (u32::from(settings.asked.groups), u32::from(settings.asked.namespaces));
        let idle = settings.flows.idle_nanoseconds();
        let diverts_asked = u32::from(settings.diverted > 0);
        // any but the mark that packets have by themselves
        let divert_mark = random()? as u32 | 1;
        let receiver = u32::from(reasons.tell_receiver());
        // not all need be there: a constant that no program reads is left out of the object
        offsets.iter().for_each(|(name, value)| {
            loader.override_global(name, value, false);
        });
        loader
            .override_global("GROUP_ID", &settings.group.id, true)
            .override_global("GROUP_LEVEL", &settings.group.level, true)
            .override_global("HASH_KEY_LOW", &hash_key[0], true)
            .override_global("HASH_KEY_HIGH", &hash_key[1], true)
            .override_global("GROUPS_ASKED", &groups_asked, false)
            .override_global("CGROUPS_ASKED", &cgroups_asked, false)
            .override_global("NAMESPACES_ASKED", &namespaces_asked, false)
            .override_global("FLOW_IDLE", &idle, true)
            .override_global("DIVERTS_ASKED", &diverts_asked, true)
            .override_global("DIVERT_MARK", &divert_mark, true)
            .override_global("DROP_RECEIVER", &receiver, true)
            // on failure the log is asked for anyway
            .verifier_log_level(VerifierLogLevel::STATS)
            .map_max_entries("CELLS", settings.cells.max(LEAST_CELLS))
            .map_max_entries("FLOWS", settings.flows.entries.max(1))
            .map_max_entries("DIVERTED", settings.diverted.max(4096))
            .map_max_entries("TOKENS", if settings.diverted == 0 { 1 } else { TOKENS })
            .allow_unsupported_maps();
        if !settings.asked.groups {
            loader.map_max_entries("GROUP_NAMES", 1).map_max_entries("GROUP_CLASSES", 1);
        }
        let refused = |error| LoadError::Object(Box::new(error));
        let ebpf = loader.load(OBJECT).map_err(refused)?;
        let types = types.join().map_err(|_| LoadError::ObjectLacks { name: "kernel's tracepoints" })?;
        let types = types.map_err(|error| refused(error.into()))?;
        let (links, pinned, attached) = (Vec::new(), Vec::new(), Vec::new());
        let mut shims = Self { ebpf, types, reasons, hash_key, links, pinned, attached, times: Times::default() };
        shims.name_groups(settings.groups_named)?;
        shims.reasons.write(&mut shims.ebpf)?;
        shims.times.offsets = offsets_time;
        shims.times.object = started.elapsed();
        Ok(shims)
    }

    fn name_groups(&mut self, groups: &[u32]) -> Result<(), LoadError> {
        if groups.is_empty() {
            return Ok(());
        }
        let name = "GROUPS";
        let map = self.ebpf.map_mut(name).ok_or(LoadError::ObjectLacks { name })?;
        let failed = |source| LoadError::Map { name, source: Box::new(source) };
        let mut map = aya::maps::HashMap::<_, u32, u32>::try_from(map).map_err(failed)?;
        for (bit, group) in (0u32..).zip(groups) {
            map.insert(group, bit, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// Pins every map under its name in `folder`, which is made.
    pub fn pin_maps(&self, folder: &Path) -> Result<(), LoadError> {
        fs::create_dir_all(folder)
            .map_err(|source| LoadError::System { what: "cannot make a folder for pins", source })?;
        for (name, map) in self.ebpf.maps() {
            if name.starts_with('.') {
                continue; // constants
            }
            map.pin(folder.join(name))
                .map_err(|source| LoadError::Pin { name: name.into(), source: Box::new(source) })?;
        }
        Ok(())
    }

    /// Attaches the programs that label processes, which are loaded if they were not yet. From here on each program that is
    /// executed in the group is labelled; with a folder also after this process is gone.
    pub fn attach_labels(&mut self, folder: Option<&Path>) -> Result<(), LoadError> {
        let started = Instant::now();
        for (name, tracepoint) in LABEL_PROGRAMS {
            let refused = |source| LoadError::Program { name, source: Box::new(source) };
            let program = self.ebpf.program_mut(name).ok_or(LoadError::ObjectLacks { name })?;
            let program: &mut BtfTracePoint = program.try_into().map_err(refused)?;
            match program.load(tracepoint, &self.types) {
                Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
                Err(source) => return Err(refused(source)),
            }
            let link = program.attach().and_then(|id| program.take_link(id)).map_err(refused)?;
            self.keep(name, link.into(), folder)?;
        }
        self.times.programs += started.elapsed();
        Ok(())
    }

    /// Holds a link as long as this value lives, and pins it under its program's name so that it stays afterwards.
    pub fn keep(&mut self, name: &str, link: FdLink, folder: Option<&Path>) -> Result<(), LoadError> {
        let Some(folder) = folder else {
            self.links.push((name.into(), link));
            return Ok(());
        };
        let pinned = link.pin(folder.join(format!("link_{name}")));
        let pinned = pinned.map_err(|source| LoadError::Pin { name: name.into(), source: Box::new(source) })?;
        self.pinned.push((name.into(), pinned));
        Ok(())
    }

    /// The same for a program that stands before a function.
    pub(crate) fn keep_attached(
        &mut self,
        name: &str,
        attached: attach::Attached,
        folder: Option<&Path>,
    ) -> Result<(), LoadError> {
        if let Some(folder) = folder {
            attached
                .pin(&folder.join(format!("link_{name}")))
                .map_err(|source| LoadError::System { what: "cannot pin what limits Unix sockets", source })?;
        }
        self.attached.push(attached);
        Ok(())
    }

    /// Detaches a program that was kept under its name.
    pub(crate) fn let_go(&mut self, name: &str, folder: Option<&Path>) {
        self.links.retain(|(kept, _)| kept != name);
        self.pinned.retain(|(kept, _)| kept != name);
        if let Some(folder) = folder {
            // what is not pinned is held by nobody
            let _ = fs::remove_file(folder.join(format!("link_{name}")));
        }
    }

    /// A map of the loaded object.
    pub(crate) fn map(&self, name: &str) -> Option<&aya::maps::Map> {
        self.ebpf.map(name)
    }

    /// The loaded object, for further programs and maps.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The same, with the kernel's types that programs of tracepoints are loaded with.
    pub fn ebpf_and_types(&mut self) -> (&mut Ebpf, &aya::Btf) {
        (&mut self.ebpf, &self.types)
    }

    /// The kernel's reasons to drop a packet.
    pub(crate) fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    /// The key of the path hash in this load; see [`Application::key`](crate::applications::Application::key).
    pub fn hash_key(&self) -> [u64; 2] {
        self.hash_key
    }

    /// How long loading took.
    pub fn times(&self) -> Times {
        self.times
    }
}

/// aya's loader, in a thread of its own. When it is made it reads all types of the kernel, which nothing here needs, for longer
/// than anything else in a start takes; so the thread sees the files of no system. It also finds what the kernel can, which is
/// asked for once.
fn loader() -> EbpfLoader<'static> {
    // SAFETY: both concern this thread alone. Where they fail, the types are read in vain.
    unsafe {
        if libc::unshare(libc::CLONE_FS) == 0 {
            libc::chroot(c"/proc/self/fdinfo".as_ptr());
        }
    }
    aya::features();
    EbpfLoader::new()
}

/// A random number from the system.
fn random() -> Result<u64, LoadError> {
    let mut number = 0u64;
    // SAFETY: eight bytes of our own.
    let got = unsafe { libc::getrandom((&raw mut number).cast(), size_of::<u64>(), 0) };
    if usize::try_from(got) == Ok(size_of::<u64>()) {
        Ok(number)
    } else {
        Err(LoadError::System { what: "no random numbers", source: io::Error::last_os_error() })
    }
}
