//! The packets of the group's sockets: the layers of packets, both ways, and the authorizations that packets bring about:
//! ALE_AUTH_RECV_ACCEPT on the way in; on the way out the connects that had to wait for their first packet, and the
//! sockets that have no hook at connect; and both when the policy has changed.
//!
//! On the way in, the packet meets INBOUND_IPPACKET and INBOUND_TRANSPORT, then is authorized, then meets the layer of its
//! data. On the way out it is authorized, then meets the layer of its data, OUTBOUND_TRANSPORT and OUTBOUND_IPPACKET.

use crate::{
    counters::count,
    divert,
    flows::{self, Standing},
    header::{Header, may_be_routed, read},
    icmp::write_embedded,
    inject,
    kept::{Kept, NOTHING, is_stream},
    layers::{
        AUTH_CONNECT, AUTH_RECV_ACCEPT, DATAGRAM_DATA, INBOUND, INBOUND_ICMP_ERROR, INBOUND_IPPACKET,
        INBOUND_TRANSPORT, IS_REAUTHORIZE, Layers, OUTBOUND, OUTBOUND_ICMP_ERROR, OUTBOUND_IPPACKET,
        OUTBOUND_TRANSPORT, REQUIRES_ALE_CLASSIFY, STREAM_PACKET, authorization, authorizes,
    },
    maps::{ENDPOINTS, FLOWS, SHARED},
    packet_values::{way, write_packet},
    protocol,
    report::About,
    socket,
    storage::bits,
    work::{self, FAIL_SOCKET, OLD_FLOW, Outcome, Work, config, next_flow},
};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use core::mem::MaybeUninit;
use openwfp_abi::{
    config::{
        AT_DEVICES, BY_INTERFACE, BY_LOCAL, CHANGED, Config, DIVERTS, DRY_RUN, FORGOTTEN, INBOUND_ASKED, LATE,
        LISTEN_FILTERS, PACKET_LAYERS, REFUSED_FLOWS,
    },
    counters::UNREADABLE_PACKETS,
    divert::stage,
    flow::{
        BY_WAY, CONNECT_LATE, FLOW_REFUSED, FlowKey, INBOUND_ALONE, LISTEN_DECIDED, LISTEN_REFUSED, PACKET_AUTHORIZED,
    },
};
use openwfp_engine::words;

/// The state of a socket that waits for connections.
const LISTEN: u32 = 10;

#[cgroup_skb(egress)]
pub fn egress(context: SkBuffContext) -> i32 {
    let packet = Packet { context: context.skb.skb, inbound: false };
    let Some(config) = config() else { return 0 };
    let watched = config.flags & (LATE | REFUSED_FLOWS | CHANGED | PACKET_LAYERS | INBOUND_ASKED) != 0 || others();
    if !watched && !may_be_routed(packet.context) {
        return 1;
    }
    packet.leaves(config)
}

#[cgroup_skb(ingress)]
pub fn ingress(context: SkBuffContext) -> i32 {
    let Some(config) = config() else { return 0 };
    Packet { context: context.skb.skb, inbound: true }.arrives(config)
}

/// What becomes of a packet whose headers cannot be read.
#[inline(always)]
fn unreadable(settings: u64) -> i32 {
    count(UNREADABLE_PACKETS);
    (settings & DRY_RUN != 0) as i32
}

/// Whether there were sockets whose packets meet the layers whatever the policy asks for.
#[inline(always)]
fn others() -> bool {
    // SAFETY: a valid map value; volatile, because other programs change it.
    SHARED.get_ptr(1).is_none_or(|made| unsafe { made.read_volatile() } != 0)
}

/// What becomes of a packet before it meets layers of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It belongs to something that is authorized, or needs no authorization.
    Nothing,
    /// It opens something.
    Authorize,
    /// What it belongs to was authorized before a change.
    Reauthorize,
    /// What it belongs to was refused.
    Drop,
}

struct Packet {
    context: *mut __sk_buff,
    inbound: bool,
}

impl Packet {
    #[inline(always)]
    fn socket(&self) -> Option<*mut bpf_sock> {
        // SAFETY: the context is valid; the verifier checks the member.
        let socket = unsafe { (*self.context).__bindgen_anon_2.sk };
        if socket.is_null() { None } else { Some(socket) }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    #[inline(always)]
    fn kept(&self) -> Kept {
        Kept::of_socket(self.socket())
    }

    #[inline(always)]
    fn leaves(&self, config: &Config) -> i32 {
        let settings = config.flags;
        let mut kept = self.kept();
        if kept.flags & FLOW_REFUSED != 0 {
            return 0;
        }
        let asked = kept.flags & (CONNECT_LATE | PACKET_AUTHORIZED) != 0;
        let mut memory = MaybeUninit::uninit();
        let Some(header) = read(self.context, &mut memory) else {
            // what cannot be read is let through only where nothing is left to be decided
            return if asked || settings & (PACKET_LAYERS | CHANGED) != 0 { unreadable(settings) } else { 1 };
        };
        let stream = is_stream(header, &kept);
        if stream && settings & REFUSED_FLOWS != 0 && header.opens_connection() && header.data {
            // Fast Open: no data before the flow is established. The kernel sends the SYN again without.
            return 0;
        }
        if stream {
            self.recall(settings, header, &mut kept);
        }
        let mut need = Need::Nothing;
        let mut flow = kept.flow;
        let mut key = self.key(header, settings);
        if stream {
            if kept.flags & CONNECT_LATE != 0 {
                need = Need::Authorize;
            } else if self.is_old(settings, &kept) {
                need = Need::Reauthorize;
            }
        } else if asked || settings & (CHANGED | INBOUND_ASKED) != 0 {
            (need, flow) = self.standing(header, &key, settings);
        }
        if need == Need::Drop {
            return 0;
        }
        let data = self.data_layer(header, stream, OUTBOUND_ICMP_ERROR);
        let meets = settings & PACKET_LAYERS != 0
            && self.meets_any(config, header, [data, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET]);
        if need == Need::Nothing && !meets && !header.routed {
            return 1;
        }
        let outcome = work::with(|work| {
            if need != Need::Nothing || header.routed {
                work.ask_everything();
            }
            self.write(work, header, &kept);
            if header.routed {
                // SAFETY: memory that is claimed, and our own.
                let outcome = Outcome::of_number(unsafe { goes_by_way(work, &mut key) });
                if outcome != Outcome::Permitted {
                    return outcome;
                }
            }
            match need {
                Need::Nothing | Need::Drop => {}
                Need::Authorize => {
                    let (outcome, made) = self.connects(work, header, &key, stream);
                    if outcome != Outcome::Permitted {
                        return outcome;
                    }
                    flow = made;
                }
                Need::Reauthorize => {
                    let outcome = self.reauthorize(work, &key, stream, &kept, flow);
                    if outcome != Outcome::Permitted {
                        return outcome;
                    }
                }
            }
            if !meets {
                return Outcome::Permitted;
            }
            if flow == 0 && !stream && settings & (CHANGED | LATE) == 0 && !asked {
                // it was authorized by its call
                flow = self.standing(header, &key, settings).1;
            }
            let outcome = self.meets(work, header, &[data], flow, stage::OUT_DATA, 0);
            if outcome != Outcome::Permitted || settings & AT_DEVICES != 0 {
                return outcome;
            }
            self.meets(work, header, &[OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET], flow, stage::OUT_TRANSPORT, 0)
        });
        divert::answer(self.context, outcome, false)
    }

    #[inline(always)]
    fn arrives(&self, config: &Config) -> i32 {
        let settings = config.flags;
        let mut memory = MaybeUninit::uninit();
        let Some(header) = read(self.context, &mut memory) else { return unreadable(settings) };
        let opens = header.opens_connection();
        let tcp = header.protocol == protocol::TCP;
        if tcp && !opens && settings & (REFUSED_FLOWS | CHANGED | PACKET_LAYERS | BY_INTERFACE) == 0 && !others() {
            return 1;
        }
        let mut kept = self.kept();
        let stream = tcp && is_stream(header, &kept);
        if stream {
            self.recall(settings, header, &mut kept);
        }
        let mut need = Need::Nothing;
        let mut flow = kept.flow;
        let key = self.key(header, settings);
        if stream {
            if kept.flags & FLOW_REFUSED != 0 {
                return 0;
            }
            if self.is_listening() {
                flow = 0;
                let undecided = kept.flags & LISTEN_DECIDED == 0;
                if header.data && settings & (REFUSED_FLOWS | DRY_RUN) == REFUSED_FLOWS {
                    // no data before the flow is established: the other side sends it again
                    return 0;
                }
                if opens {
                    if kept.flags & LISTEN_REFUSED != 0
                        || undecided && settings & (LISTEN_FILTERS | DRY_RUN) == LISTEN_FILTERS
                    {
                        return 0;
                    }
                    need = Need::Authorize;
                }
            } else if self.is_old(settings, &kept) || self.arrives_elsewhere(settings, &kept) {
                need = Need::Reauthorize;
            }
        } else {
            (need, flow) = self.standing(header, &key, settings);
        }
        if need == Need::Drop {
            return 0;
        }
        let data = self.data_layer(header, stream, INBOUND_ICMP_ERROR);
        let meets = settings & PACKET_LAYERS != 0
            && self.meets_any(config, header, [INBOUND_IPPACKET, INBOUND_TRANSPORT, data]);
        if need == Need::Nothing && !meets {
            return 1;
        }
        let outcome = work::with(|work| {
            if need != Need::Nothing {
                work.ask_everything();
            }
            self.write(work, header, &kept);
            let passed = if settings & DIVERTS != 0 { self.passed(work) } else { 0 };
            if meets && settings & AT_DEVICES == 0 {
                let outcome = self.enters(work, header, need == Need::Authorize, flow, passed);
                if outcome != Outcome::Permitted {
                    return outcome;
                }
            }
            match need {
                Need::Nothing | Need::Drop => {}
                Need::Authorize => {
                    let (outcome, made) = self.accepts(work, header, &key, stream);
                    if outcome != Outcome::Permitted {
                        return outcome;
                    }
                    flow = made;
                }
                Need::Reauthorize => {
                    let outcome = self.reauthorize(work, &key, stream, &kept, flow);
                    if outcome != Outcome::Permitted {
                        return outcome;
                    }
                }
            }
            if !meets {
                return Outcome::Permitted;
            }
            if header.is_icmp_error() {
                // SAFETY: the context is valid; memory that is claimed.
                unsafe { write_embedded(self.context, work, header.transport as u32, header.source.is_v6() as u32) };
            }
            self.meets(work, header, &[data], flow, stage::IN_DATA, passed)
        });
        divert::answer(self.context, outcome, true)
    }

    /// At which of its layers a packet goes on that was injected.
    #[inline(always)]
    fn passed(&self, work: &mut Work) -> u16 {
        // SAFETY: the context is valid.
        let number = unsafe { inject::honour(self.context, 0, divert::INBOUND) };
        let Some(token) = inject::token(number) else { return 0 };
        // SAFETY: a valid map value.
        unsafe {
            work.injector = (*token).injector as u64;
            (*token).stage
        }
    }

    /// How the flow of datagrams stands to which a packet belongs, and its id.
    #[inline(always)]
    fn standing(&self, header: &Header, key: &FlowKey, settings: u64) -> (Need, u64) {
        if !header.first {
            // without ports it cannot be told which flow it belongs to
            return (Need::Authorize, 0);
        }
        let mut flow = 0;
        let mut standing = flows::standing(key, &mut flow);
        if standing == Standing::UNKNOWN && settings & CHANGED != 0 {
            let local = if self.inbound { &header.destination } else { &header.source };
            // SAFETY: the context is valid; the verifier checks the member.
            let interface = unsafe { (*self.context).ifindex } as u64;
            // SAFETY: our own memory.
            if unsafe { flows::adopt_flow(key, local, interface << 32 | header.local_port(self.inbound) as u64) } != 0 {
                standing = flows::standing(key, &mut flow);
            }
        }
        let need = match standing {
            Standing::CURRENT => Need::Nothing,
            Standing::OLD => Need::Reauthorize,
            Standing::REFUSED => Need::Drop,
            _ => Need::Authorize,
        };
        (need, flow)
    }

    /// What there would be to know of a connection whose connect left nothing.
    #[inline(always)]
    fn recall(&self, settings: u64, header: &Header, kept: &mut Kept) {
        const MAY_BE: u64 = CHANGED | FORGOTTEN;
        if settings & MAY_BE == MAY_BE && kept.flags & NOTHING != 0 {
            // SAFETY: the context is valid, and our own memory.
            unsafe { recall(self.context, header.source.is_v6() as u32, kept) };
        }
    }

    /// Whether the connection was authorized before a change.
    #[inline(always)]
    fn is_old(&self, settings: u64, kept: &Kept) -> bool {
        settings & CHANGED != 0 && kept.flow != 0 && self.changes(kept) != 0
    }

    /// Whether a packet of a connection arrives by another interface than those before. The first takes the place of what the
    /// SYN came by, of which nothing is kept.
    #[inline(always)]
    fn arrives_elsewhere(&self, settings: u64, kept: &Kept) -> bool {
        // SAFETY: the context is valid; the verifier checks the member.
        let interface = unsafe { (*self.context).ifindex };
        if settings & BY_INTERFACE == 0 || kept.flow == 0 || kept.arrival == interface {
            return false;
        }
        if kept.arrival == 0 {
            self.arrived();
        }
        kept.arrival != 0
    }

    /// Keeps the interface by which the connection's packets arrive.
    #[inline(always)]
    fn arrived(&self) {
        if let Some(endpoint) = self.socket().and_then(|socket| ENDPOINTS.get(socket)) {
            // SAFETY: a valid map value; the context is valid, and the verifier checks its member.
            unsafe { (*endpoint).arrival = (*self.context).ifindex };
        }
    }

    /// What has changed since the connection was authorized; the interface of arrival aside.
    #[inline(always)]
    fn changes(&self, kept: &Kept) -> u32 {
        flows::changes(kept.generation, kept.network, kept.authorization)
    }

    /// The layer of what the packet carries.
    #[inline(always)]
    fn data_layer(&self, header: &Header, stream: bool, errors: Layers) -> Layers {
        if stream {
            STREAM_PACKET
        } else if header.is_icmp_error() {
            errors
        } else {
            DATAGRAM_DATA
        }
    }

    /// INBOUND_IPPACKET and INBOUND_TRANSPORT, which is told when ALE_AUTH_RECV_ACCEPT comes next.
    #[inline(always)]
    fn enters(&self, work: &mut Work, header: &Header, authorized: bool, flow: u64, passed: u16) -> Outcome {
        let outcome = self.meets(work, header, &[INBOUND_IPPACKET], flow, stage::IN_IPPACKET, passed);
        if outcome != Outcome::Permitted {
            return outcome;
        }
        let flags = work.values.get(words::FLAGS) as u32;
        work.values.set(words::FLAGS, if authorized { flags | REQUIRES_ALE_CLASSIFY } else { flags });
        let outcome = self.meets(work, header, &[INBOUND_TRANSPORT], flow, stage::IN_TRANSPORT, passed);
        work.values.set(words::FLAGS, flags);
        outcome
    }

    /// Whether somebody would look at the packet at one of these layers.
    #[inline(always)]
    fn meets_any(&self, config: &Config, header: &Header, layers: [Layers; 3]) -> bool {
        let v6 = header.source.is_v6();
        work::is_any_active(config, &layers.map(|layers| layers.of(v6)))
    }

    /// The packet meets layers, one after the other, until one blocks it; `first` is the stage of the first, and those before
    /// the stage `from` are behind it.
    #[inline(always)]
    fn meets(&self, work: &mut Work, header: &Header, layers: &[Layers], flow: u64, first: u16, from: u16) -> Outcome {
        let v6 = header.source.is_v6();
        let direction = if self.inbound { INBOUND } else { OUTBOUND };
        work.values.set(words::DIRECTION, direction);
        let socket = self.cookie();
        // what goes to many is looped back, and cannot be sent again to all of them
        let (may, way) = match self.inbound {
            true => (true, divert::INBOUND),
            false => (header.destination.is_unicast(), 0),
        };
        for (stage, layer) in (first..).zip(layers) {
            if stage < from {
                continue;
            }
            let about = About { layer: layer.of(v6), socket, flow, flags: OLD_FLOW };
            let outcome = divert::meet(self.context, work, &about, stage, way as u16, may);
            if outcome != Outcome::Permitted {
                return outcome;
            }
        }
        Outcome::Permitted
    }

    /// ALE_AUTH_CONNECT, with everything known: the outcome, and the flow.
    #[inline(always)]
    fn connects(&self, work: &mut Work, header: &Header, key: &FlowKey, stream: bool) -> (Outcome, u64) {
        let v6 = header.destination.is_v6();
        let flow = next_flow();
        let flags = if stream { FAIL_SOCKET } else { 0 };
        let outcome = work.decide(&About { layer: AUTH_CONNECT.of(v6), socket: key.socket, flow, flags });
        if outcome != Outcome::Permitted {
            return (outcome, 0);
        }
        if !stream {
            return (flows::establish(work, key, flow, authorization(false, v6), header.first), flow);
        }
        if let Some(endpoint) = self.socket().and_then(|socket| ENDPOINTS.get(socket)) {
            // SAFETY: a valid map value; packets of a connecting socket leave one at a time.
            unsafe {
                (*endpoint).flow = flow;
                (*endpoint).generation = work.generation();
                (*endpoint).network = work.network();
                (*endpoint).authorization = authorization(false, v6);
                bits::clear(&raw mut (*endpoint).flags, CONNECT_LATE);
            }
        }
        (outcome, flow)
    }

    /// ALE_AUTH_RECV_ACCEPT: the outcome, and the flow.
    #[inline(always)]
    fn accepts(&self, work: &mut Work, header: &Header, key: &FlowKey, stream: bool) -> (Outcome, u64) {
        let v6 = header.source.is_v6();
        let flow = if stream { 0 } else { next_flow() };
        let outcome = work.decide(&About { layer: AUTH_RECV_ACCEPT.of(v6), socket: key.socket, flow, flags: 0 });
        if stream || outcome != Outcome::Permitted {
            return (outcome, 0);
        }
        (flows::establish(work, key, flow, authorization(true, v6), header.first), flow)
    }

    /// Asks again, at the layer that authorized the flow, whichever way the packet goes.
    #[inline(always)]
    fn reauthorize(&self, work: &mut Work, key: &FlowKey, stream: bool, kept: &Kept, flow: u64) -> Outcome {
        let (authorization, changes) = match FLOWS.get_ptr(key) {
            _ if stream => match self.changes(kept) {
                0 => (kept.authorization, flows::NETWORK),
                changes => (kept.authorization, changes),
            },
            // SAFETY: a valid map value.
            Some(flow) => unsafe {
                let changes = flows::changes((*flow).generation, (*flow).network, (*flow).authorization);
                ((*flow).authorization, changes)
            },
            // it had to make room a moment ago: the next packet opens it
            None => return work::CLOSED,
        };
        let before = work.values.get(words::FLAGS) as u32;
        work.values.set(words::FLAGS, before | IS_REAUTHORIZE);
        work.values.set(words::REAUTHORIZE_REASON, flows::reasons(changes, self.inbound));
        let flags = OLD_FLOW | if stream { FAIL_SOCKET } else { 0 };
        let about = About { layer: authorizes(authorization), socket: key.socket, flow, flags };
        let outcome = work.decide(&about);
        work.values.set(words::FLAGS, before);
        work.values.set(words::REAUTHORIZE_REASON, 0);
        // a dry run tells once what it would have refused
        let goes_on = outcome == Outcome::Permitted || work.flags & DRY_RUN != 0;
        if !stream {
            if goes_on {
                flows::remember(work, key, flow, authorization);
            } else {
                flows::remember_refused(work, key, flow, authorization);
            }
            return outcome;
        }
        let socket = self.socket();
        let endpoint = match kept.flags & NOTHING {
            0 => socket.and_then(|socket| ENDPOINTS.get(socket)),
            _ => socket.and_then(|socket| ENDPOINTS.get_or_insert(socket)),
        };
        if let Some(endpoint) = endpoint {
            // SAFETY: a valid map value.
            unsafe {
                if kept.flags & NOTHING != 0 {
                    (*endpoint).flow = flow;
                    (*endpoint).compartment = kept.compartment;
                    (*endpoint).authorization = authorization;
                }
                if goes_on {
                    (*endpoint).generation = work.generation();
                    (*endpoint).network = work.network();
                    if self.inbound {
                        (*endpoint).arrival = (*self.context).ifindex;
                    }
                } else {
                    bits::set(&raw mut (*endpoint).flags, FLOW_REFUSED);
                }
            }
        }
        outcome
    }

    /// Whether the packet's socket waits for connections.
    #[inline(always)]
    fn is_listening(&self) -> bool {
        self.state() == LISTEN
    }

    /// The state of the packet's socket; 0: it has none, or stands for a connection that is asked for, or is over.
    #[inline(always)]
    fn state(&self) -> u32 {
        let Some(socket) = self.socket() else { return 0 };
        // SAFETY: the verifier checks that it is a socket; null when it is not a full one.
        let full = unsafe { bpf_sk_fullsock(socket) };
        // SAFETY: not null, so a full socket.
        if full.is_null() { 0 } else { unsafe { (*full).state } }
    }

    #[inline(always)]
    fn key(&self, header: &Header, settings: u64) -> FlowKey {
        // SAFETY: the context is valid; the verifier checks the member.
        let interface = unsafe { (*self.context).ifindex };
        flow_key(self.cookie(), header, self.inbound, interface, settings)
    }

    /// The incoming values of a packet, at every layer that it meets.
    #[inline(always)]
    fn write(&self, work: &mut Work, header: &Header, kept: &Kept) {
        work.identify_sender(self.socket());
        // SAFETY: the context is valid; the verifier checks the members. Memory that is claimed, and our own.
        unsafe {
            let way = way(self.inbound, (*self.context).pkt_type);
            write_packet(work, header, kept, (*self.context).ifindex, way)
        };
    }
}

/// A connection whose connect left nothing, and was authorized before a change, as it would be known if it had not. Who made it
/// is not known any more. Verified once.
///
/// # Safety
/// `packet` is the context of a program of packets; `kept` is valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn recall(packet: *mut __sk_buff, v6: u32, kept: *mut Kept) -> u32 {
    if kept.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let kept = unsafe { &mut *kept };
    let packet = Packet { context: packet, inbound: false };
    let authorization = authorization(false, v6 != 0);
    // a request has no memory either, and belongs to what listens
    if matches!(packet.state(), 0 | LISTEN) || flows::changes(0, 0, authorization) == 0 {
        return 0;
    }
    let Some(socket) = packet.socket() else { return 0 };
    kept.authorization = authorization;
    kept.flow = next_flow();
    kept.compartment = socket::namespace(socket);
    1
}

/// The key of the flow that a packet of a socket belongs to.
#[inline(always)]
pub fn flow_key(socket: u64, header: &Header, inbound: bool, interface: u32, settings: u64) -> FlowKey {
    let (local, remote) = match inbound {
        true => (header.destination, header.source),
        false => (header.source, header.destination),
    };
    let version = if remote.is_v6() { 6 } else { 4 };
    let mut key = FlowKey { kind: 0, ..flows::key(socket, &remote, header.protocol, version) };
    key.port = header.remote_port(inbound);
    if inbound && header.is_unasked() {
        key.kind = INBOUND_ALONE;
    }
    if settings & BY_LOCAL != 0 {
        key.local = local.key();
        key.local_port = header.local_port(inbound);
    }
    if settings & BY_INTERFACE != 0 {
        key.interface = interface;
    }
    key
}

/// ALE_AUTH_CONNECT of a hop by way of which a packet goes somewhere else. That was, or will be, asked for by itself.
///
/// # Safety
/// `work` is claimed memory, with the values of the packet; `key` is valid, and as before when this returns.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn goes_by_way(work: *mut Work, key: *mut FlowKey) -> u32 {
    if work.is_null() || key.is_null() {
        return work::CLOSED.number();
    }
    // SAFETY: the caller's.
    let (work, hop) = unsafe { (&mut *work, &mut *key) };
    let kind = hop.kind;
    hop.kind = BY_WAY;
    let mut outcome = Outcome::Permitted;
    if flows::standing(hop, &mut 0) != Standing::CURRENT {
        let v6 = hop.version == 6;
        outcome = work.decide(&About { layer: AUTH_CONNECT.of(v6), socket: hop.socket, flow: 0, flags: 0 });
        if outcome == Outcome::Permitted {
            flows::remember(work, hop, 0, authorization(false, v6));
        }
    }
    hop.kind = kind;
    outcome.number()
}
