//! The packets of the group's sockets: ALE_AUTH_RECV_ACCEPT on the way in; on the way out the connects that had to wait for
//! their first packet, and the sockets that have no hook at connect.

use crate::{
    connect::{established, is_authorized, remember},
    header::{Header, read},
    layers::{AUTH_CONNECT, AUTH_RECV_ACCEPT, INBOUND, IS_LOOPBACK, IS_RAW_ENDPOINT, OUTBOUND, recv_accept},
    maps::{ENDPOINTS, SHARED},
    protocol,
    refuse::dropped,
    report::{About, report},
    storage::bits,
    work::{self, Outcome, Work, config, next_flow},
};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use openwfp_abi::{
    config::{DRY_RUN, LATE, LISTEN_FILTERS, REFUSED_FLOWS},
    event::FAIL_SOCKET,
    flow::{CONNECT_LATE, FLOW_REFUSED, FlowKey, LISTEN_DECIDED, LISTEN_REFUSED, PACKET_AUTHORIZED, RAW},
};
use openwfp_engine::words;

/// The state of a socket that waits for connections.
const LISTEN: u32 = 10;
const LOOPBACK_INTERFACE: u32 = 1;

#[cgroup_skb(egress)]
pub fn egress(context: SkBuffContext) -> i32 {
    let packet = Packet { context: context.skb.skb };
    let Some(config) = config() else { return 0 };
    if config.flags & (LATE | REFUSED_FLOWS) == 0 && !others() {
        return 1;
    }
    packet.leaves()
}

#[cgroup_skb(ingress)]
pub fn ingress(context: SkBuffContext) -> i32 {
    Packet { context: context.skb.skb }.arrives()
}

/// Whether there were sockets whose packets meet the layers whatever the policy asks for.
#[inline(always)]
fn others() -> bool {
    // SAFETY: a valid map value; volatile, because other programs change it.
    SHARED.get_ptr(1).is_none_or(|made| unsafe { made.read_volatile() } != 0)
}

/// Whether a packet is one of a TCP connection, not of a raw socket that merely carries TCP.
#[inline(always)]
fn is_stream(header: &Header, kept: Kept) -> bool {
    header.protocol == protocol::TCP && kept.flags & PACKET_AUTHORIZED == 0
}

/// The interface by which a packet came, at AUTH_RECV_ACCEPT: the one that is in the values as that of the local side.
#[inline(always)]
fn write_arrival(work: &mut Work) {
    let known = work.values.get(words::INTERFACE_TYPE) <= u32::MAX as u64;
    for (from, to) in [
        (words::INTERFACE_INDEX, recv_accept::ARRIVAL_INTERFACE_INDEX),
        (words::INTERFACE_TYPE, recv_accept::ARRIVAL_INTERFACE_TYPE),
        (words::TUNNEL_TYPE, recv_accept::ARRIVAL_TUNNEL_TYPE),
        (words::IP_LOCAL_INTERFACE, recv_accept::IP_ARRIVAL_INTERFACE),
        (words::IP_LOCAL_INTERFACE + 1, recv_accept::IP_ARRIVAL_INTERFACE + 1),
    ] {
        if known || from == words::INTERFACE_INDEX {
            work.values.set(to, work.values.get(from) as u32);
        } else {
            work.values.set_unknown(to);
        }
    }
}

/// These words mean something else at the next layer.
#[inline(always)]
fn clear_arrival(work: &mut Work) {
    for word in recv_accept::IP_ARRIVAL_INTERFACE..=recv_accept::ARRIVAL_INTERFACE_INDEX {
        work.values.set_empty(word);
    }
}

struct Packet {
    context: *mut __sk_buff,
}

/// What is kept with the packet's socket, as far as packets need it.
#[derive(Clone, Copy)]
struct Kept {
    flags: u64,
    compartment: u64,
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
        match self.socket().and_then(|socket| ENDPOINTS.get(socket)) {
            // SAFETY: a valid map value.
            Some(endpoint) => unsafe { Kept { flags: (*endpoint).flags, compartment: (*endpoint).compartment } },
            None => Kept { flags: 0, compartment: 0 },
        }
    }

    #[inline(always)]
    fn leaves(&self) -> i32 {
        let kept = self.kept();
        if kept.flags & FLOW_REFUSED != 0 {
            return 0;
        }
        let Some(header) = read(self.context) else {
            // what cannot be read is let through only where nothing is left to be decided
            return if kept.flags & (CONNECT_LATE | PACKET_AUTHORIZED) == 0 { 1 } else { 0 };
        };
        if kept.flags & (CONNECT_LATE | PACKET_AUTHORIZED) == 0 {
            return 1;
        }
        let key = self.key(&header, false);
        let stream = is_stream(&header, kept);
        dropped(work::with(|work| {
            if !stream && header.first && is_authorized(&key, work.generation()) {
                return Outcome::Permitted;
            }
            self.connects(work, &header, &key, kept)
        }))
    }

    /// ALE_AUTH_CONNECT, with everything known.
    #[inline(always)]
    fn connects(&self, work: &mut Work, header: &Header, key: &FlowKey, kept: Kept) -> Outcome {
        let v6 = header.destination.is_v6();
        self.write(work, header, kept, false);
        work.values.set(words::IP_DESTINATION_ADDRESS_TYPE, header.destination.kind());
        let layer = AUTH_CONNECT.of(v6);
        let outcome = match work.classify(layer) {
            Outcome::Late => work.close_late(layer),
            outcome => outcome,
        };
        let waits = is_stream(header, kept);
        let blocked = matches!(outcome, Outcome::Blocked(_));
        let flow = if blocked { 0 } else { next_flow() };
        let flags = if blocked && waits { FAIL_SOCKET } else { 0 };
        report(work, &About { layer, socket: key.socket, flow, flags });
        if blocked {
            return outcome;
        }
        if waits {
            if let Some(endpoint) = self.socket().and_then(|socket| ENDPOINTS.get(socket)) {
                // SAFETY: a valid map value; packets of a connecting socket leave one at a time.
                unsafe {
                    (*endpoint).flow = flow;
                    bits::clear(&raw mut (*endpoint).flags, CONNECT_LATE);
                }
            }
            return outcome;
        }
        work.values.set(words::DIRECTION, OUTBOUND);
        let outcome = established(work, v6, key.socket, flow);
        if outcome == Outcome::Permitted && header.first {
            remember(key, flow, work.generation());
        }
        outcome
    }

    #[inline(always)]
    fn arrives(&self) -> i32 {
        let Some(header) = read(self.context) else { return 0 };
        let Some(config) = config() else { return 0 };
        let opens = header.opens_connection();
        let tcp = header.protocol == protocol::TCP;
        let mut kept = Kept { flags: 0, compartment: 0 };
        if tcp {
            if !opens && config.flags & REFUSED_FLOWS == 0 && !others() {
                return 1;
            }
            kept = self.kept();
        }
        let stream = tcp && is_stream(&header, kept);
        if stream {
            if kept.flags & FLOW_REFUSED != 0 {
                return 0;
            }
            if !opens || !self.is_listening() {
                return 1;
            }
            let undecided = kept.flags & LISTEN_DECIDED == 0;
            if kept.flags & LISTEN_REFUSED != 0
                || undecided && config.flags & (LISTEN_FILTERS | DRY_RUN) == LISTEN_FILTERS
            {
                return 0;
            }
        }
        let key = self.key(&header, true);
        dropped(work::with(|work| {
            if !stream && header.first && is_authorized(&key, work.generation()) {
                return Outcome::Permitted;
            }
            if !tcp {
                kept = self.kept();
            }
            self.accepts(work, &header, &key, kept)
        }))
    }

    /// ALE_AUTH_RECV_ACCEPT.
    #[inline(always)]
    fn accepts(&self, work: &mut Work, header: &Header, key: &FlowKey, kept: Kept) -> Outcome {
        let v6 = header.source.is_v6();
        self.write(work, header, kept, true);
        write_arrival(work);
        let layer = AUTH_RECV_ACCEPT.of(v6);
        let outcome = match work.classify(layer) {
            Outcome::Late => work.close_late(layer),
            outcome => outcome,
        };
        let stream = is_stream(header, kept);
        let flow = if stream || outcome != Outcome::Permitted { 0 } else { next_flow() };
        report(work, &About { layer, socket: key.socket, flow, flags: 0 });
        if stream || outcome != Outcome::Permitted {
            return outcome;
        }
        clear_arrival(work);
        work.values.set(words::DIRECTION, INBOUND);
        let outcome = established(work, v6, key.socket, flow);
        if outcome == Outcome::Permitted && header.first {
            remember(key, flow, work.generation());
        }
        outcome
    }

    /// Whether the packet's socket waits for connections.
    #[inline(always)]
    fn is_listening(&self) -> bool {
        let Some(socket) = self.socket() else { return false };
        // SAFETY: the verifier checks that it is a socket; null when it is not a full one.
        let full = unsafe { bpf_sk_fullsock(socket) };
        // SAFETY: not null, so a full socket.
        !full.is_null() && unsafe { (*full).state } == LISTEN
    }

    #[inline(always)]
    fn key(&self, header: &Header, inbound: bool) -> FlowKey {
        let remote = if inbound { header.source } else { header.destination };
        FlowKey {
            socket: self.cookie(),
            address: remote.key(),
            port: header.remote_port(inbound),
            protocol: header.protocol,
            version: if remote.is_v6() { 6 } else { 4 },
            inbound: (inbound && header.is_unasked()) as u32,
        }
    }

    /// The incoming values of a packet at an authorization layer.
    #[inline(always)]
    fn write(&self, work: &mut Work, header: &Header, kept: Kept, inbound: bool) {
        let (local, remote) = match inbound {
            true => (header.destination, header.source),
            false => (header.source, header.destination),
        };
        work.clear();
        work.identify_owner(self.socket());
        work.write_identity();
        work.values.set(words::IP_PROTOCOL, header.protocol as u32);
        local.write(work, words::IP_LOCAL_ADDRESS);
        remote.write(work, words::IP_REMOTE_ADDRESS);
        work.values.set(words::IP_LOCAL_ADDRESS_TYPE, local.kind());
        header.write_ports(work, inbound);
        // SAFETY: the context is valid; the verifier checks the member.
        let interface = unsafe { (*self.context).ifindex };
        work.write_interface(interface);
        let mut flags = 0;
        if interface == LOOPBACK_INTERFACE || remote.is_local() {
            flags |= IS_LOOPBACK;
        }
        if kept.flags & RAW != 0 {
            flags |= IS_RAW_ENDPOINT;
        }
        work.values.set(words::FLAGS, flags);
        work.values.set(words::COMPARTMENT_ID, kept.compartment as u32);
    }
}
