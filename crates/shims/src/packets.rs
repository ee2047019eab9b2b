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
    header::{AtHand, Header, at_hand, read_into},
    kept::{Kept, NOTHING, RECALLED, is_stream},
    layers::{
        DATAGRAM_DATA, INBOUND_ICMP_ERROR, INBOUND_IPPACKET, INBOUND_TRANSPORT, Layers, OUTBOUND_ICMP_ERROR,
        OUTBOUND_IPPACKET, OUTBOUND_TRANSPORT, STREAM_PACKET, authorization,
    },
    maps::{ENDPOINTS, SHARED},
    packet_values::{way, write_packet},
    passage::{Need, Passage, Verdict, pass_in, pass_out},
    protocol, socket, words as record_words,
    work::{self, Outcome, Work, config, next_flow},
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
        BY_INTERFACE, BY_LOCAL, CHANGED, Config, DRY_RUN, FORGETS, FORGOTTEN, INBOUND_ASKED, LATE, LISTEN_FILTERS,
        PACKET_LAYERS, REFUSED_FLOWS, TCP_ARRIVES, TCP_LEAVES, UDP_ARRIVES, UDP_LEAVES,
    },
    counters::UNREADABLE_PACKETS,
    flow::{
        CONNECT_LATE, Endpoint, FLOW_REFUSED, FlowKey, INBOUND_ALONE, LISTEN_DECIDED, LISTEN_REFUSED,
        PACKET_AUTHORIZED, RAW,
    },
};

/// The state of a socket that waits for connections.
const LISTEN: u32 = 10;

#[cgroup_skb(egress)]
pub fn egress(context: SkBuffContext) -> i32 {
    let packet = Packet { context: context.skb.skb, inbound: false };
    let Some(config) = config() else { return 0 };
    let asked = match at_hand(packet.context) {
        AtHand::Tcp | AtHand::TcpOpens => {
            config.flags & (LATE | REFUSED_FLOWS | CHANGED | BY_INTERFACE | TCP_LEAVES) != 0
        }
        AtHand::Udp => config.flags & (LATE | REFUSED_FLOWS | CHANGED | INBOUND_ASKED | UDP_LEAVES) != 0,
        AtHand::Other => true,
    };
    let other = || others() || config.flags & FORGETS != 0 && packet.full_socket().is_none_or(is_other);
    if asked || other() { packet.passes() } else { 1 }
}

#[cgroup_skb(ingress)]
pub fn ingress(context: SkBuffContext) -> i32 {
    let packet = Packet { context: context.skb.skb, inbound: true };
    let Some(config) = config() else { return 0 };
    let asked = match at_hand(packet.context) {
        AtHand::Tcp => config.flags & (REFUSED_FLOWS | CHANGED | BY_INTERFACE | TCP_ARRIVES) != 0,
        AtHand::Udp => config.flags & (INBOUND_ASKED | CHANGED | UDP_ARRIVES) != 0,
        AtHand::TcpOpens | AtHand::Other => true,
    };
    if asked || others() { packet.passes() } else { 1 }
}

/// What becomes of a packet whose headers cannot be read.
#[inline(always)]
fn unreadable(settings: u64) -> Verdict {
    count(UNREADABLE_PACKETS);
    if settings & DRY_RUN != 0 { Verdict::PASS } else { Verdict::DROP }
}

/// Whether there were sockets whose packets meet the layers whatever the policy asks for.
#[inline(always)]
fn others() -> bool {
    // SAFETY: a valid map value; volatile, because other programs change it.
    SHARED.get_ptr(1).is_none_or(|made| unsafe { made.read_volatile() } != 0)
}

/// Whether a socket is one whose packets are asked because its calls are not: neither of TCP nor of UDP, or raw.
#[inline(always)]
fn is_other(socket: *mut bpf_sock) -> bool {
    // SAFETY: a full socket; the verifier checks the members.
    let (protocol, kind) = unsafe { ((*socket).protocol, (*socket).type_) };
    kind == protocol::SOCK_RAW || protocol != protocol::SOCKET_TCP && protocol != protocol::SOCKET_UDP
}

/// A packet of a socket.
pub struct Packet {
    pub context: *mut __sk_buff,
    pub inbound: bool,
}

impl Packet {
    #[inline(always)]
    pub fn socket(&self) -> Option<*mut bpf_sock> {
        // SAFETY: the context is valid; the verifier checks the member.
        let socket = unsafe { (*self.context).__bindgen_anon_2.sk };
        if socket.is_null() { None } else { Some(socket) }
    }

    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    /// What is kept with its socket. Of one that is no endpoint of calls, and was made while nobody kept that, what it would be.
    #[inline(always)]
    fn kept(&self, settings: u64) -> Kept {
        let mut kept = Kept::of_socket(self.socket(), self.inbound);
        if settings & (FORGETS | FORGOTTEN) != 0
            && kept.flags & NOTHING != 0
            && let Some(socket) = self.full_socket()
            && is_other(socket)
        {
            // SAFETY: a full socket; the verifier checks the member.
            let raw = if unsafe { (*socket).type_ } == protocol::SOCK_RAW { RAW } else { 0 };
            kept.flags |= PACKET_AUTHORIZED | raw;
            // SAFETY: the context is valid.
            kept.compartment = unsafe { socket::packet_namespace(self.context) };
        }
        kept
    }

    /// What the hook returns.
    #[inline(always)]
    fn passes(&self) -> i32 {
        let (mut header, mut passage) = (MaybeUninit::<Header>::uninit(), MaybeUninit::<Passage>::uninit());
        // SAFETY: zeros are both; the context is valid.
        let (header, passage, verdict) = unsafe {
            record_words::zero(header.as_mut_ptr());
            record_words::zero(passage.as_mut_ptr());
            let (header, passage) = (header.assume_init_mut(), passage.assume_init_mut());
            let verdict = if self.inbound {
                judge_in(self.context, header, passage)
            } else {
                judge_out(self.context, header, passage)
            };
            (header, passage, Verdict(verdict))
        };
        if verdict != Verdict::GO_ON {
            return (verdict == Verdict::PASS) as i32;
        }
        let outcome = work::with(|work| {
            if passage.need != Need::NOTHING || !self.inbound && header.routed {
                work.ask_everything();
            }
            self.write(work, header, &passage.kept);
            // SAFETY: the context is valid; memory that is claimed, and our own.
            Outcome::of_number(unsafe {
                if self.inbound {
                    pass_in(self.context, work, header, passage)
                } else {
                    pass_out(self.context, work, header, passage)
                }
            })
        });
        divert::answer(self.context, outcome, self.inbound)
    }

    #[inline(always)]
    fn leaves(&self, header: &mut Header, passage: &mut Passage) -> Verdict {
        let Some(config) = config() else { return Verdict::DROP };
        let settings = config.flags;
        passage.kept = self.kept(settings);
        let kept = &mut passage.kept;
        if kept.flags & FLOW_REFUSED != 0 {
            return Verdict::DROP;
        }
        let asked = kept.flags & (CONNECT_LATE | PACKET_AUTHORIZED) != 0;
        if !read_into(self.context, header) {
            // what cannot be read is let through only where nothing is left to be decided
            let decided = !asked && settings & (PACKET_LAYERS | CHANGED) == 0;
            return if decided { Verdict::PASS } else { unreadable(settings) };
        }
        let stream = is_stream(header, kept);
        if stream && settings & REFUSED_FLOWS != 0 && header.opens_connection() && header.data {
            // Fast Open: no data before the flow is established. The kernel sends the SYN again without.
            return Verdict::DROP;
        }
        if stream {
            self.recall(settings, header, kept);
        }
        self.set_key(header, settings, &mut passage.key);
        let mut need = Need::NOTHING;
        let mut flow = kept.flow;
        if stream {
            if kept.flags & CONNECT_LATE != 0 {
                need = Need::AUTHORIZE;
            } else if self.is_old(settings, kept) || self.goes_elsewhere(settings, kept) {
                need = Need::REAUTHORIZE;
            }
        } else if asked || settings & (CHANGED | INBOUND_ASKED) != 0 {
            (need, flow) = self.standing(header, &passage.key, settings);
        }
        let data = data_layer(header, stream, OUTBOUND_ICMP_ERROR);
        let meets = self.meets_any(config, header, [data, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET]);
        passage.goes_on(flow, need, meets, stream, header.routed)
    }

    #[inline(always)]
    fn arrives(&self, header: &mut Header, passage: &mut Passage) -> Verdict {
        let Some(config) = config() else { return Verdict::DROP };
        let settings = config.flags;
        if !read_into(self.context, header) {
            return unreadable(settings);
        }
        let opens = header.opens_connection();
        passage.kept = self.kept(settings);
        let kept = &mut passage.kept;
        let stream = is_stream(header, kept);
        if stream {
            self.recall(settings, header, kept);
        }
        self.set_key(header, settings, &mut passage.key);
        let mut need = Need::NOTHING;
        let mut flow = kept.flow;
        if stream {
            if kept.flags & FLOW_REFUSED != 0 {
                return Verdict::DROP;
            }
            if self.is_listening() {
                flow = 0;
                let undecided = kept.flags & LISTEN_DECIDED == 0;
                if header.data && settings & (REFUSED_FLOWS | DRY_RUN) == REFUSED_FLOWS {
                    // no data before the flow is established: the other side sends it again
                    return Verdict::DROP;
                }
                if opens {
                    if kept.flags & LISTEN_REFUSED != 0
                        || undecided && settings & (LISTEN_FILTERS | DRY_RUN) == LISTEN_FILTERS
                    {
                        return Verdict::DROP;
                    }
                    need = Need::AUTHORIZE;
                }
            } else if self.is_old(settings, kept) || self.goes_elsewhere(settings, kept) {
                need = Need::REAUTHORIZE;
            }
        } else if settings & (INBOUND_ASKED | CHANGED | PACKET_LAYERS) != 0 {
            (need, flow) = self.standing(header, &passage.key, settings);
        }
        let data = data_layer(header, stream, INBOUND_ICMP_ERROR);
        let meets = self.meets_any(config, header, [INBOUND_IPPACKET, INBOUND_TRANSPORT, data]);
        passage.goes_on(flow, need, meets, stream, false)
    }

    /// How the flow of datagrams stands to which a packet belongs, and its id.
    #[inline(always)]
    pub fn standing(&self, header: &Header, key: &FlowKey, settings: u64) -> (Need, u64) {
        if !header.first {
            // without ports it cannot be told which flow it belongs to
            return (Need::AUTHORIZE, 0);
        }
        let mut flow = 0;
        let mut standing = flows::standing(key, &mut flow);
        if standing == Standing::UNKNOWN && settings & CHANGED != 0 {
            let local = if self.inbound { &header.destination } else { &header.source };
            let interface = self.interface() as u64;
            // SAFETY: our own memory.
            if unsafe { flows::adopt_flow(key, local, interface << 32 | header.local_port(self.inbound) as u64) } != 0 {
                standing = flows::standing(key, &mut flow);
            }
        }
        let need = match standing {
            Standing::CURRENT => Need::NOTHING,
            Standing::OLD => Need::REAUTHORIZE,
            Standing::REFUSED => Need::DROP,
            _ => Need::AUTHORIZE,
        };
        (need, flow)
    }

    /// What there would be to know of a connection of which nothing was kept when it was made.
    #[inline(always)]
    fn recall(&self, settings: u64, header: &Header, kept: &mut Kept) {
        const MAY_BE: u64 = CHANGED | FORGOTTEN;
        if settings & MAY_BE == MAY_BE && kept.flow == 0 && kept.flags & CONNECT_LATE == 0 {
            // SAFETY: the context is valid, and our own memory.
            unsafe { recall(self.context, header.source.is_v6() as u32, kept) };
        }
    }

    /// Whether the connection was authorized before a change.
    #[inline(always)]
    fn is_old(&self, settings: u64, kept: &Kept) -> bool {
        settings & CHANGED != 0 && kept.flow != 0 && self.changes(kept) != 0
    }

    /// Whether a packet of a connection goes by another interface than those before that went the same way. The first takes the
    /// place of what a SYN came by, and of what the answer to it left by, of which nothing is kept.
    #[inline(always)]
    fn goes_elsewhere(&self, settings: u64, kept: &Kept) -> bool {
        if settings & BY_INTERFACE == 0 || kept.flow == 0 || kept.interface == self.interface() {
            return false;
        }
        if kept.interface == 0
            && let Some(endpoint) = self.socket().and_then(|socket| ENDPOINTS.get(socket))
        {
            // SAFETY: a valid map value.
            unsafe { self.keep_interface(endpoint) };
        }
        kept.interface != 0
    }

    /// Keeps the interface by which the connection's packets go this way.
    ///
    /// # Safety
    /// `endpoint` is a valid map value.
    #[inline(always)]
    pub unsafe fn keep_interface(&self, endpoint: *mut Endpoint) {
        // SAFETY: the caller's.
        unsafe {
            if self.inbound {
                (*endpoint).arrival = self.interface();
            } else {
                (*endpoint).departure = self.interface();
            }
        }
    }

    /// The interface by which the packet goes.
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is valid; the verifier checks the member.
        unsafe { (*self.context).ifindex }
    }

    /// What has changed since the connection was authorized; its interfaces aside.
    #[inline(always)]
    fn changes(&self, kept: &Kept) -> u32 {
        flows::changes(kept.generation, kept.network, kept.authorization)
    }

    /// Whether somebody would look at the packet at one of these layers.
    #[inline(always)]
    fn meets_any(&self, config: &Config, header: &Header, layers: [Layers; 3]) -> bool {
        let v6 = header.source.is_v6();
        config.flags & PACKET_LAYERS != 0 && work::is_any_active(config, &layers.map(|layers| layers.of(v6)))
    }

    /// Whether the packet's socket waits for connections.
    #[inline(always)]
    fn is_listening(&self) -> bool {
        self.state() == LISTEN
    }

    /// The packet's socket; none where it stands for a connection that is asked for, or is over.
    #[inline(always)]
    fn full_socket(&self) -> Option<*mut bpf_sock> {
        // SAFETY: the verifier checks that it is a socket; null when it is not a full one.
        let full = unsafe { bpf_sk_fullsock(self.socket()?) };
        if full.is_null() { None } else { Some(full) }
    }

    /// The state of the packet's socket; 0: it has none that is full.
    #[inline(always)]
    fn state(&self) -> u32 {
        // SAFETY: a full socket; the verifier checks the member.
        self.full_socket().map_or(0, |socket| unsafe { (*socket).state })
    }

    /// Whether the packet's socket is one of UDP that is connected: what it is told is about one remote endpoint.
    #[inline(always)]
    pub fn is_connected(&self) -> bool {
        const ESTABLISHED: u32 = 1;
        // SAFETY: a full socket; the verifier checks the members.
        let of = |socket: *mut bpf_sock| unsafe { ((*socket).protocol, (*socket).state) };
        self.full_socket().map(of) == Some((protocol::SOCKET_UDP, ESTABLISHED))
    }

    /// Makes a key the one of the flow that the packet belongs to.
    #[inline(always)]
    fn set_key(&self, header: &Header, settings: u64, key: &mut FlowKey) {
        *key = flow_key(self.cookie(), header, self.inbound, self.interface(), settings);
    }

    /// The incoming values of a packet, at every layer that it meets.
    #[inline(always)]
    fn write(&self, work: &mut Work, header: &Header, kept: &Kept) {
        work.identify_sender(self.socket());
        // SAFETY: the context is valid; the verifier checks the members. Memory that is claimed, and our own.
        unsafe {
            let way = way(self.inbound, (*self.context).pkt_type);
            write_packet(work, header, kept, self.interface(), way)
        };
    }
}

/// A connection of which nothing was kept when it was made, and which was authorized before a change, as it would be known
/// otherwise. Who made it is not known any more. Verified once.
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
    let Some(socket) = packet.socket() else { return 0 };
    // what was bound is an endpoint that others connect to, or connects itself
    // SAFETY: a valid map value.
    let bound = ENDPOINTS.get(socket).map_or(0, |endpoint| unsafe { (*endpoint).bound });
    let accepted = bound != 0 && bound != packet.cookie();
    let authorization = authorization(accepted, v6 != 0);
    // a request has no memory either, and belongs to what listens
    if matches!(packet.state(), 0 | LISTEN) || flows::changes(0, 0, authorization) == 0 {
        return 0;
    }
    kept.authorization = authorization;
    kept.flow = next_flow();
    kept.flags |= RECALLED;
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

/// The layer of what the packet carries.
#[inline(always)]
pub fn data_layer(header: &Header, stream: bool, errors: Layers) -> Layers {
    if stream {
        STREAM_PACKET
    } else if header.is_icmp_error() {
        errors
    } else {
        DATAGRAM_DATA
    }
}

/// What a packet belongs to, and whether more is to be asked about it: a [`Verdict`]. Verified once.
///
/// # Safety
/// `context` is that of a program of packets; the others are valid.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn judge_out(context: *mut __sk_buff, header: *mut Header, passage: *mut Passage) -> u32 {
    if header.is_null() || passage.is_null() {
        return Verdict::DROP.0;
    }
    // SAFETY: the caller's.
    unsafe { Packet { context, inbound: false }.leaves(&mut *header, &mut *passage).0 }
}

/// The same for a packet that arrives.
///
/// # Safety
/// As [`judge_out`].
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn judge_in(context: *mut __sk_buff, header: *mut Header, passage: *mut Passage) -> u32 {
    if header.is_null() || passage.is_null() {
        return Verdict::DROP.0;
    }
    // SAFETY: the caller's.
    unsafe { Packet { context, inbound: true }.arrives(&mut *header, &mut *passage).0 }
}
