//! Which programs a policy needs: each hook costs loading time, and something for every event that it sees.

use crate::{
    drops::TRACEPOINT,
    links::Link,
    load::{LABEL_PROGRAMS, LoadError, Shims},
};
use aya::{
    Btf,
    programs::{
        CgroupAttachMode, Program, ProgramError,
        cgroup_skb::CgroupSkbAttachType,
        links::{FdLink, LinkError, LinkOrder},
        tc::{TcAttachOptions, TcAttachType},
    },
};
use openwfp_model::{Layer, LayerId};
use std::{collections::BTreeSet, fs::File, path::Path, sync::Mutex, thread};

/// Programs of the object file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// `connect()` to an IPv4 endpoint.
    Connect4,
    /// `connect()` of an IPv6 socket, also to a mapped IPv4 endpoint.
    Connect6,
    /// A datagram to an IPv4 endpoint that is named with it.
    Sendmsg4,
    /// The same for IPv6 sockets.
    Sendmsg6,
    /// `bind()` of an IPv4 socket.
    Bind4,
    /// `bind()` of an IPv6 socket.
    Bind6,
    /// The memory of an IPv4 socket that is bound.
    Bound4,
    /// The same for IPv6 sockets.
    Bound6,
    /// `bind()` of an IPv4 socket, before anything is chosen.
    Redirect4,
    /// The same for IPv6 sockets.
    Redirect6,
    /// `socket()`.
    Create,
    /// The last `close()` of a socket.
    Release,
    /// `listen()`, and TCP connections that are established.
    Stream,
    /// Packets that arrive.
    Ingress,
    /// Packets that leave.
    Egress,
    /// Frames that come in at a device.
    DeviceIn,
    /// Frames that go out at a device.
    DeviceOut,
    /// Packets that were diverted and come in again at a device.
    DivertIn,
    /// Packets that were diverted, or come back, and go out at a device.
    DivertOut,
    /// Packets that are injected.
    DivertInject,
    /// Packets that the kernel drops by itself, of the whole machine.
    KernelDrop,
}

use Hook::{
    Bind4, Bind6, Bound4, Bound6, Connect4, Connect6, Create, DeviceIn, DeviceOut, DivertIn, DivertInject, DivertOut,
    Egress, Ingress, KernelDrop, Redirect4, Redirect6, Release, Sendmsg4, Sendmsg6, Stream,
};

/// The programs that see connects. Both versions of IP, because an IPv6 socket can connect to a mapped IPv4 endpoint.
const CALLS: [Hook; 4] = [Connect4, Connect6, Sendmsg4, Sendmsg6];

/// The programs that see every socket that comes to be used: what they keep with it, its packets and its end are judged by.
const SOCKETS: [Hook; 8] = [Connect4, Connect6, Sendmsg4, Sendmsg6, Create, Bind4, Bind6, Stream];

impl Hook {
    /// The program's name in the object file.
    pub const fn name(self) -> &'static str {
        match self {
            Connect4 => "connect4",
            Connect6 => "connect6",
            Sendmsg4 => "sendmsg4",
            Sendmsg6 => "sendmsg6",
            Bind4 => "bind4",
            Bind6 => "bind6",
            Bound4 => "bound4",
            Bound6 => "bound6",
            Redirect4 => "redirect4",
            Redirect6 => "redirect6",
            Create => "create",
            Release => "release",
            Stream => "stream",
            Ingress => "ingress",
            Egress => "egress",
            DeviceIn => "device_in",
            DeviceOut => "device_out",
            DivertIn => "divert_in",
            DivertOut => "divert_out",
            DivertInject => "divert_inject",
            KernelDrop => "kernel_drop",
        }
    }

    /// The hooks that a layer needs; none for a layer that is not enforced in the kernel. A _DISCARD layer needs those of
    /// the layer whose events it gets.
    pub fn of_layer(layer: LayerId) -> Vec<Self> {
        let name = layer.name();
        let name = name.strip_suffix("_DISCARD").unwrap_or(name);
        let Some(family) = name.strip_suffix("_V4").or_else(|| name.strip_suffix("_V6")) else { return vec![] };
        let more: &[Self] = match family {
            // a refused listen of a socket without a bind is carried out on its SYNs
            "ALE_BIND_REDIRECT" => {
                return [&CALLS[..], &[Redirect4, Redirect6, Bind4, Bind6, Stream, Ingress]].concat();
            }
            "ALE_CONNECT_REDIRECT" => return CALLS.to_vec(),
            "ALE_AUTH_LISTEN" => return vec![Stream, Ingress, Bind4, Bind6],
            "ALE_AUTH_CONNECT" => return [&CALLS[..], &[Create, Egress]].concat(),
            "ALE_RESOURCE_ASSIGNMENT" => return [&CALLS[..], &[Bind4, Bind6, Stream, Ingress]].concat(),
            "ALE_RESOURCE_RELEASE" | "ALE_ENDPOINT_CLOSURE" => &[Release],
            // without the calls, a reply to a datagram of our own would look like somebody's call
            "ALE_AUTH_RECV_ACCEPT"
            | "ALE_FLOW_ESTABLISHED"
            | "INBOUND_IPPACKET"
            | "INBOUND_TRANSPORT"
            | "INBOUND_ICMP_ERROR"
            | "OUTBOUND_IPPACKET"
            | "OUTBOUND_TRANSPORT"
            | "OUTBOUND_ICMP_ERROR"
            | "DATAGRAM_DATA"
            | "STREAM_PACKET" => &[Ingress, Egress],
            _ => return vec![],
        };
        [&SOCKETS[..], more].concat()
    }

    /// Of the hooks that a layer needs, those at which it is classified; the others keep what these have to know. (What was authorized before
    /// a change is asked about again by `ingress` and `egress`, whichever layer authorized it.)
    pub fn classifying(layer: LayerId) -> Vec<Self> {
        let name = layer.name();
        let name = name.strip_suffix("_DISCARD").unwrap_or(name);
        let v6 = name.ends_with("_V6");
        // sockets of IPv6 speak IPv4 too, the others IPv4 alone
        let calls: &[Self] = if v6 { &[Connect6, Sendmsg6] } else { &CALLS };
        let more: &[Self] = match name.trim_end_matches("_V4").trim_end_matches("_V6") {
            "ALE_CONNECT_REDIRECT" => &[],
            "ALE_BIND_REDIRECT" if v6 => &[Redirect6, Stream],
            "ALE_BIND_REDIRECT" => &[Redirect4, Redirect6, Stream],
            "ALE_RESOURCE_ASSIGNMENT" if v6 => &[Bind6, Stream],
            "ALE_RESOURCE_ASSIGNMENT" => &[Bind4, Bind6, Stream],
            "ALE_AUTH_CONNECT" => &[Egress],
            "ALE_FLOW_ESTABLISHED" => &[Stream, Ingress, Egress],
            "ALE_AUTH_LISTEN" => return vec![Stream],
            "ALE_RESOURCE_RELEASE" => return vec![Release],
            "ALE_ENDPOINT_CLOSURE" => return vec![Stream, Release],
            "ALE_AUTH_RECV_ACCEPT" | "INBOUND_IPPACKET" | "INBOUND_TRANSPORT" | "INBOUND_ICMP_ERROR" => {
                return vec![Ingress];
            }
            "OUTBOUND_IPPACKET" | "OUTBOUND_TRANSPORT" | "OUTBOUND_ICMP_ERROR" => return vec![Egress],
            "DATAGRAM_DATA" | "STREAM_PACKET" => return vec![Ingress, Egress],
            _ => return vec![],
        };
        [calls, more].concat()
    }

    /// The hook of a layer that is met at the devices of a network namespace.
    pub fn of_device_layer(layer: LayerId) -> Option<Self> {
        let name = layer.name();
        let name = name.strip_suffix("_DISCARD").unwrap_or(name);
        match name.strip_suffix("_V4").or_else(|| name.strip_suffix("_V6")).unwrap_or(name) {
            "INBOUND_MAC_FRAME_ETHERNET" | "INBOUND_IPPACKET" | "INBOUND_TRANSPORT" | "INBOUND_ICMP_ERROR" => {
                Some(DeviceIn)
            }
            "OUTBOUND_MAC_FRAME_ETHERNET"
            | "OUTBOUND_IPPACKET"
            | "OUTBOUND_TRANSPORT"
            | "OUTBOUND_ICMP_ERROR"
            | "IPFORWARD" => Some(DeviceOut),
            _ => None,
        }
    }

    /// Whether these keep something with each connection that is made or accepted.
    pub(crate) fn see_all_connections(hooks: &[Self]) -> bool {
        [Connect4, Connect6, Stream, Ingress].iter().all(|hook| hooks.contains(hook))
    }

    /// Whether it is attached to devices, not to a group.
    pub const fn is_of_devices(self) -> bool {
        matches!(self, DeviceIn | DeviceOut | DivertIn | DivertOut | DivertInject)
    }

    /// The hooks by which packets go to callouts and come back.
    pub(crate) const OF_DIVERTING: [Self; 3] = [DivertIn, DivertOut, DivertInject];

    /// Whether what the kernel drops by itself is met at a layer; at that of forwarded packets where devices are watched.
    pub fn is_of_kernel_drops(layer: LayerId) -> bool {
        const FAMILIES: [&str; 6] = [
            "INBOUND_IPPACKET",
            "OUTBOUND_IPPACKET",
            "IPFORWARD",
            "INBOUND_TRANSPORT",
            "DATAGRAM_DATA",
            "INBOUND_ICMP_ERROR",
        ];
        let name = layer.name().strip_suffix("_DISCARD").unwrap_or_default();
        let family = name.strip_suffix("_V4").or_else(|| name.strip_suffix("_V6"));
        family.is_some_and(|family| FAMILIES.contains(&family))
    }

    /// Whether a layer is one that each packet meets.
    pub fn is_packet_layer(layer: LayerId) -> bool {
        !layer.name().starts_with("ALE_") && !Self::of_layer(layer).is_empty()
    }

    /// Every hook of a group, and with `devices` every one of devices too; not the one that the whole machine has to pass.
    pub(crate) fn all(devices: bool) -> Vec<Self> {
        let mut hooks = Self::wanted(Layer::all().iter().map(|layer| layer.id), devices);
        hooks.retain(|hook| *hook != KernelDrop);
        hooks
    }

    /// The hooks that these layers need, each once; with `devices`, the layers that devices can serve are served there.
    pub(crate) fn wanted(layers: impl IntoIterator<Item = LayerId>, devices: bool) -> Vec<Self> {
        let of_layer = |layer: LayerId| {
            let mut hooks = match Self::of_device_layer(layer).filter(|_| devices) {
                Some(hook) => vec![hook],
                None => Self::of_layer(layer),
            };
            if Self::is_of_kernel_drops(layer) && !hooks.is_empty() {
                hooks.push(KernelDrop);
            }
            hooks
        };
        let mut hooks: Vec<Self> = layers.into_iter().flat_map(of_layer).collect();
        hooks.sort_unstable();
        hooks.dedup();
        hooks
    }

    /// The hooks that these layers need in a group, each once.
    pub fn of_layers(layers: impl IntoIterator<Item = LayerId>) -> Vec<Self> {
        Self::wanted(layers, false)
    }
}

/// Loads programs and those that label processes, on as many threads as there are processors: the kernel verifies each by itself.
pub(crate) fn load(shims: &mut Shims, hooks: &[Hook]) -> Result<(), LoadError> {
    let (ebpf, types) = shims.ebpf_and_types();
    let names: Vec<&'static str> =
        hooks.iter().map(|hook| hook.name()).chain(LABEL_PROGRAMS.iter().map(|(name, _)| *name)).collect();
    let mut programs: Vec<(&'static str, &mut Program)> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| Some((*names.iter().find(|wanted| **wanted == name)?, program)))
        .collect();
    if let Some(missing) = names.iter().find(|wanted| !programs.iter().any(|(name, _)| name == *wanted)) {
        return Err(LoadError::ObjectLacks { name: missing });
    }
    // the dear ones first, so that no thread is left with one at the end
    programs.sort_by_key(|(name, _)| cost(name));
    let threads = thread::available_parallelism().map_or(1, usize::from).min(programs.len().max(1));
    let waiting = Mutex::new(programs);
    thread::scope(|scope| {
        let load_all = || {
            loop {
                let next = waiting.lock().ok().and_then(|mut waiting| waiting.pop());
                let Some((name, program)) = next else { return Ok(()) };
                load_one(name, program, types)
                    .map_err(|source| LoadError::Program { name, source: Box::new(source) })?;
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(load_all)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => Err(LoadError::ObjectLacks { name: "program that can be loaded" }),
        })
    })
}

/// How long the kernel takes to verify a program, roughly, compared with others.
fn cost(name: &str) -> u32 {
    match name {
        "kernel_drop" | "stream" => 6,
        "ingress" => 5,
        "device_in" | "connect6" | "egress" => 4,
        "connect4" | "sendmsg4" | "sendmsg6" | "device_out" => 3,
        "release" | "divert_out" | "process_exec" => 2,
        _ => 1,
    }
}

fn load_one(name: &str, program: &mut Program, types: &Btf) -> Result<(), ProgramError> {
    let loaded = match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::BtfTracePoint(program) => {
            let of_labels = LABEL_PROGRAMS.iter().find(|(label, _)| *label == name);
            program.load(of_labels.map_or(TRACEPOINT, |(_, tracepoint)| tracepoint), types)
        }
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    match loaded {
        // for a policy that could not be enforced after all
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        result => result,
    }
}

/// Attaches loaded programs to a group, and what tells of drops to the machine: all of them, or none. Links stack, in spite of the mode's name.
pub(crate) fn attach(shims: &mut Shims, hooks: &[Hook], group: &File, folder: Option<&Path>) -> Result<(), LoadError> {
    let hooks: Vec<Hook> = hooks.iter().copied().filter(|hook| !hook.is_of_devices()).collect();
    for (done, &hook) in hooks.iter().enumerate() {
        let name = hook.name();
        let refused = |source| LoadError::Program { name, source: Box::new(source) };
        let program = shims.ebpf().program_mut(name).ok_or(LoadError::ObjectLacks { name });
        let link = program.and_then(|program| attach_one(program, hook, group).map_err(refused));
        if let Err(error) = link.and_then(|link| shims.keep(name, link, folder)) {
            detach(shims, &hooks[..done], &BTreeSet::new(), folder);
            return Err(error);
        }
    }
    Ok(())
}

/// Attaches the loaded programs of devices to one, after what is attached there already; but those of diverting before it.
/// To the device by which packets are injected (`injecting`) goes the one that is for it, to others all others.
pub(crate) fn attach_to_device(
    shims: &mut Shims,
    hooks: &[Hook],
    device: &Link,
    injecting: bool,
    folder: Option<&Path>,
) -> Result<(), LoadError> {
    let injects = |hook: &&Hook| (**hook == DivertInject) == injecting;
    for hook in hooks.iter().filter(|hook| hook.is_of_devices()).filter(injects) {
        let name = hook.name();
        let refused = |source| LoadError::Program { name, source: Box::new(source) };
        let program = shims.ebpf().program_mut(name).ok_or(LoadError::ObjectLacks { name })?;
        let Program::SchedClassifier(program) = program else { return Err(LoadError::ObjectLacks { name }) };
        let way = if matches!(hook, DeviceIn | DivertIn) { TcAttachType::Ingress } else { TcAttachType::Egress };
        let first = Hook::OF_DIVERTING.contains(hook);
        let order = TcAttachOptions::TcxOrder(if first { LinkOrder::first() } else { LinkOrder::default() });
        let link = program
            .attach_with_options(&device.name, way, order)
            .and_then(|id| program.take_link(id))
            .map_err(refused)?
            .try_into()
            .map_err(|_| refused(ProgramError::UnexpectedProgramType))?;
        shims.keep(&on_device(*hook, device.index), link, folder)?;
    }
    Ok(())
}

/// The name of a link of a program of devices.
fn on_device(hook: Hook, index: u32) -> String {
    format!("{}_{index}", hook.name())
}

/// Detaches programs that were attached, those of devices from these.
pub(crate) fn detach(shims: &mut Shims, hooks: &[Hook], devices: &BTreeSet<u32>, folder: Option<&Path>) {
    for hook in hooks {
        if hook.is_of_devices() {
            devices.iter().for_each(|index| shims.let_go(&on_device(*hook, *index), folder));
        } else {
            shims.let_go(hook.name(), folder);
        }
    }
}

fn attach_one(program: &mut Program, hook: Hook, group: &File) -> Result<FdLink, ProgramError> {
    let mode = CgroupAttachMode::Single;
    let link: Result<FdLink, LinkError> = match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(group, mode)?;
            program.take_link(id)?.try_into()
        }
        Program::CgroupSock(program) => {
            let id = program.attach(group, mode)?;
            program.take_link(id)?.try_into()
        }
        Program::CgroupSkb(program) => {
            let direction =
                if hook == Hook::Ingress { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
            let id = program.attach(group, direction, mode)?;
            program.take_link(id)?.try_into()
        }
        Program::SockOps(program) => {
            let id = program.attach(group, mode)?;
            program.take_link(id)?.try_into()
        }
        Program::BtfTracePoint(program) => {
            let id = program.attach()?;
            Ok(program.take_link(id)?.into())
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    link.map_err(|_| ProgramError::UnexpectedProgramType)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_needs_the_hooks_of_both_versions() {
        let hooks = Hook::of_layers([LayerId::ALE_AUTH_CONNECT_V4]);
        assert_eq!(hooks, Hook::of_layers([LayerId::ALE_AUTH_CONNECT_V6, LayerId::ALE_AUTH_CONNECT_V4]));
        assert!(hooks.contains(&Hook::Connect6) && !hooks.contains(&Hook::Stream));
        assert!(Hook::of_layers([LayerId::RPC_UM, LayerId::STREAM_V4]).is_empty());
        assert!(Hook::of_layer(LayerId::OUTBOUND_TRANSPORT_V6_DISCARD).contains(&Hook::Egress));
    }

    #[test]
    fn what_classifies_is_needed() {
        for layer in Layer::all() {
            let (needed, classifying) = (Hook::of_layer(layer.id), Hook::classifying(layer.id));
            assert!(classifying.iter().all(|hook| needed.contains(hook)), "{}: {classifying:?}", layer.name);
            assert_eq!(classifying.is_empty(), needed.is_empty(), "{}", layer.name);
        }
    }

    #[test]
    fn drops_of_the_kernel_are_looked_at_for_a_discard_layer_alone() {
        let looks = |layer, devices| Hook::wanted([layer], devices).contains(&Hook::KernelDrop);
        assert!(looks(LayerId::INBOUND_TRANSPORT_V4_DISCARD, false) && looks(LayerId::DATAGRAM_DATA_V6_DISCARD, true));
        assert!(!looks(LayerId::INBOUND_TRANSPORT_V4, false) && !looks(LayerId::ALE_AUTH_CONNECT_V4_DISCARD, false));
        assert!(!looks(LayerId::IPFORWARD_V4_DISCARD, false) && looks(LayerId::IPFORWARD_V4_DISCARD, true));
        assert!(!Hook::all(true).contains(&Hook::KernelDrop), "the whole machine would pass it");
    }
}
