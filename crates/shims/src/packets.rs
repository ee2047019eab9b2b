//! The packets of the group's sockets: ALE_AUTH_RECV_ACCEPT on the way in; on the way out the connects that had to wait for
//! their first packet, and the sockets that have no hook at connect.

use crate::{
    address::Address,
    connect::{established, is_authorized, remember},
    header::{Header, read},
    layers::{AUTH_CONNECT, AUTH_RECV_ACCEPT, INBOUND, IS_LOOPBACK, IS_RAW_ENDPOINT, OUTBOUND},
    maps::{ENDPOINTS, FLOWS, SHARED},
    refuse::dropped,
    report::{About, report},
    work::{self, Outcome, Work, config, next_flow},
};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use openwfp_abi::{
    config::{LATE, REFUSED_FLOWS},
    event::FAIL_SOCKET,
    flow::{self, CONNECT_LATE, FLOW_REFUSED, FlowKey, LISTEN_REFUSED, OWNED, PACKET_AUTHORIZED, RAW},
};
use openwfp_engine::words;

const IPPROTO_TCP: u8 = 6;
/// The state of a socket that waits for connections.
const LISTEN: u32 = 10;
const LOOPBACK_INTERFACE: u32 = 1;

#[cgroup_skb(egress)]
pub fn egress(context: SkBuffContext) -> i32 {
    let packet = Packet { context: context.skb.skb };
    let Some(config) = config() else { return 0 };
    let others = match SHARED.get(1) {
        Some(made) => *made != 0,
        None => return 0,
    };
    if config.flags & (LATE | REFUSED_FLOWS) == 0 && !others {
        return 1;
    }
    packet.leaves()
}

#[cgroup_skb(ingress)]
pub fn ingress(context: SkBuffContext) -> i32 {
    Packet { context: context.skb.skb }.arrives()
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

    /// The owner of the socket, where it is known.
    #[inline(always)]
    fn identify(&self, work: &mut Work) {
        if let Some(endpoint) = self.socket().and_then(|socket| ENDPOINTS.get(socket)) {
            // SAFETY: a valid map value.
            if unsafe { (*endpoint).flags } & OWNED != 0 {
                // SAFETY: as above.
                work.identify(unsafe { &raw const (*endpoint).owner });
                return;
            }
        }
        // SAFETY: zeros are an identity: that of nobody.
        unsafe { crate::words::zero(&raw mut work.identity) };
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
        let key = self.key(&header, header.destination, header.remote_port(false));
        let authorized_here = kept.flags & PACKET_AUTHORIZED != 0;
        let asked = if authorized_here {
            true
        } else if header.protocol == IPPROTO_TCP {
            kept.flags & CONNECT_LATE != 0
        } else {
            // SAFETY: a valid map value.
            FLOWS.get_ptr(&key).is_some_and(|flow| unsafe { (*flow).state == flow::LATE })
        };
        if !asked {
            return 1;
        }
        dropped(work::with(|work| {
            if authorized_here && is_authorized(&key, work.generation()) {
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
        let tcp = header.protocol == IPPROTO_TCP;
        let waits = tcp && kept.flags & CONNECT_LATE != 0;
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
                    (*endpoint).flags &= !CONNECT_LATE;
                    (*endpoint).flow = flow;
                }
            }
            return outcome;
        }
        work.values.set(words::DIRECTION, OUTBOUND);
        let outcome = established(work, v6, key.socket, flow);
        if outcome == Outcome::Permitted {
            remember(key, flow, work.generation(), flow::PERMITTED);
        }
        outcome
    }

    #[inline(always)]
    fn arrives(&self) -> i32 {
        let Some(header) = read(self.context) else { return 0 };
        let tcp = header.protocol == IPPROTO_TCP;
        let mut kept = Kept { flags: 0, compartment: 0 };
        if tcp {
            let opens = header.opens_connection();
            let Some(config) = config() else { return 0 };
            if !opens && config.flags & REFUSED_FLOWS == 0 {
                return 1;
            }
            kept = self.kept();
            if kept.flags & FLOW_REFUSED != 0 {
                return 0;
            }
            if !opens || !self.is_listening() {
                return 1;
            }
            if kept.flags & LISTEN_REFUSED != 0 {
                return 0;
            }
        }
        let key = self.key(&header, header.source, header.remote_port(true));
        dropped(work::with(|work| {
            if !tcp {
                if is_authorized(&key, work.generation()) {
                    return Outcome::Permitted;
                }
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
        let layer = AUTH_RECV_ACCEPT.of(v6);
        let outcome = match work.classify(layer) {
            Outcome::Late => work.close_late(layer),
            outcome => outcome,
        };
        let tcp = header.protocol == IPPROTO_TCP;
        let flow = if tcp || outcome != Outcome::Permitted { 0 } else { next_flow() };
        report(work, &About { layer, socket: key.socket, flow, flags: 0 });
        if tcp || outcome != Outcome::Permitted {
            return outcome;
        }
        work.values.set(words::DIRECTION, INBOUND);
        let outcome = established(work, v6, key.socket, flow);
        if outcome == Outcome::Permitted {
            remember(key, flow, work.generation(), flow::PERMITTED);
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
    fn key(&self, header: &Header, remote: Address, port: u16) -> FlowKey {
        FlowKey {
            socket: self.cookie(),
            address: remote.key(),
            port,
            protocol: header.protocol,
            version: if remote.is_v6() { 6 } else { 4 },
            zero: 0,
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
        self.identify(work);
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
