//! ALE_AUTH_CONNECT in the calling task: `connect()`, and datagrams to an endpoint that is named with them.
//!
//! Source address and interface are not chosen yet unless the socket was bound. Where they could change the outcome the
//! call goes on, and the first packet is asked ([`crate::packets`]).

use crate::{
    address::{Address, unknown_local},
    layers::{AUTH_CONNECT, FLOW_ESTABLISHED, IS_LOOPBACK, IS_RAW_ENDPOINT, OUTBOUND},
    maps::{ENDPOINTS, FLOWS},
    protocol,
    refuse::refused,
    report::{About, report},
    storage::bits,
    work::{self, Outcome, Work, next_flow, watch_packets},
};
use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use openwfp_abi::{
    config::KEEP_IDENTITY,
    flow::{CONNECT_LATE, Endpoint, FLOW_REFUSED, Flow, FlowKey, OWNED, PERMITTED},
};
use openwfp_engine::words;

#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    let call = Call { context: context.sock_addr, source: Address::v4(0), message: false };
    call.authorize(Address::v4(call.v4()))
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    let call = Call { context: context.sock_addr, source: Address::v4(0), message: false };
    call.authorize(Address::of_socket(call.named_v6()))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    // SAFETY: the context is valid; the verifier checks the member.
    let source = Address::v4(u32::from_be(unsafe { (*context.sock_addr).msg_src_ip4 }));
    let call = Call { context: context.sock_addr, source, message: true };
    call.authorize(if call.port() == 0 { call.peer_v4() } else { Address::v4(call.v4()) })
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    // a message to a mapped address comes to the hook above
    // SAFETY: as above; volatile, because the verifier wants each word read by itself.
    let word = |n: usize| unsafe { (&raw const (*context.sock_addr).msg_src_ip6[n]).read_volatile() };
    let source = Address::v6([word(0), word(1), word(2), word(3)]);
    let call = Call { context: context.sock_addr, source, message: true };
    let named = if call.port() == 0 { call.peer_v6() } else { call.named_v6() };
    call.authorize(Address::v6(named))
}

/// A call that names a remote endpoint.
struct Call {
    context: *mut bpf_sock_addr,
    /// The source of a message, which its socket has or which comes with itself; unspecified: none.
    source: Address,
    /// Whether it is a message. One with control data may be without an endpoint, if its socket is connected; then
    /// the context shows port 0, which no message can be sent to.
    message: bool,
}

impl Call {
    #[inline(always)]
    fn v4(&self) -> u32 {
        // SAFETY: the context is valid; the verifier checks the member.
        u32::from_be(unsafe { (*self.context).user_ip4 })
    }

    #[inline(always)]
    fn named_v6(&self) -> [u32; 4] {
        // SAFETY: as above; volatile, because the verifier wants each word read by itself.
        let word = |n: usize| unsafe { (&raw const (*self.context).user_ip6[n]).read_volatile() };
        [word(0), word(1), word(2), word(3)]
    }

    /// The port that is named.
    #[inline(always)]
    fn port(&self) -> u16 {
        // SAFETY: as above.
        u16::from_be(unsafe { (*self.context).user_port } as u16)
    }

    /// The IPv4 address that the socket is connected to.
    #[inline(always)]
    fn peer_v4(&self) -> Address {
        // SAFETY: the socket of a call is a full socket; the verifier checks the member. Behind a box as below.
        Address::v4(core::hint::black_box(u32::from_be(unsafe { (*self.socket()).dst_ip4 })))
    }

    /// The IPv6 address that the socket is connected to.
    #[inline(always)]
    fn peer_v6(&self) -> [u32; 4] {
        let socket = self.socket();
        // SAFETY: as above.
        // In a box that LLVM does not look into: it would make one load of this and of the address that is named, from
        // either of two places, which the verifier refuses.
        let word = |n: usize| core::hint::black_box(unsafe { (&raw const (*socket).dst_ip6[n]).read_volatile() });
        [word(0), word(1), word(2), word(3)]
    }

    #[inline(always)]
    fn socket(&self) -> *mut bpf_sock {
        // SAFETY: as above.
        unsafe { (*self.context).__bindgen_anon_1.sk }
    }

    /// Where the call truly goes: after this hook the kernel puts an address of this machine in the place of none.
    /// `false`: which one depends on more than can be seen here; the packet has to be asked.
    #[inline(always)]
    fn effective(&self, named: Address, protocol: u32) -> (Address, bool) {
        if !named.is_unspecified() {
            return (named, true);
        }
        let socket = self.socket();
        if named.is_v6() {
            // a socket that is bound to a mapped address has no way to ::1
            return (Address::loopback(self.message || self.bound_v6().is_v6()), true);
        }
        if self.message {
            // the source; without one, that of an interface which may come with the message (IP_PKTINFO)
            return if self.source.is_unspecified() { (Address::loopback(false), false) } else { (self.source, true) };
        }
        let bound = self.bound_v4();
        if !bound.is_unspecified() {
            // one may be bound to a broadcast or multicast address too, which is no source
            return (bound, bound.is_own());
        }
        // SAFETY: as above. Datagrams may also go by an interface that is set as an option (IP_UNICAST_IF).
        let device = unsafe { (*socket).bound_dev_if };
        (Address::loopback(false), protocol == protocol::SOCKET_TCP && device == 0)
    }

    /// The IPv4 address that the socket is bound to.
    #[inline(always)]
    fn bound_v4(&self) -> Address {
        // SAFETY: the socket of a call is a full socket; the verifier checks the member.
        Address::v4(u32::from_be(unsafe { (*self.socket()).src_ip4 }))
    }

    /// The IPv6 address that the socket is bound to.
    #[inline(always)]
    fn bound_v6(&self) -> Address {
        let socket = self.socket();
        // SAFETY: as above.
        let word = |n: usize| unsafe { (&raw const (*socket).src_ip6[n]).read_volatile() };
        Address::of_socket([word(0), word(1), word(2), word(3)])
    }

    /// Authorizes the call; what the hook returns.
    #[inline(always)]
    fn authorize(&self, named: Address) -> i32 {
        // SAFETY: the context is valid; the verifier checks the members.
        let (protocol, cookie) = unsafe { ((*self.context).protocol, bpf_get_socket_cookie(self.context.cast())) };
        let (remote, certain) = self.effective(named, protocol);
        let mut port = self.port();
        if self.message && port == 0 {
            // SAFETY: the socket of a call is a full socket; the verifier checks the member.
            port = u16::from_be(unsafe { (*self.socket()).dst_port });
        }
        let key = FlowKey {
            socket: cookie,
            address: remote.key(),
            port,
            protocol: protocol as u8,
            version: if remote.is_v6() { 6 } else { 4 },
            inbound: 0,
        };
        refused(work::with(|work| {
            if self.message && certain && is_authorized(&key, work.generation()) {
                return Outcome::Permitted;
            }
            work.clear();
            work.identify_caller(self.socket());
            if protocol != protocol::SOCKET_TCP && protocol != protocol::SOCKET_UDP {
                // what an ICMP message is, its packet says
                return self.wait(work, &key, true);
            }
            self.write(work, remote, port, protocol);
            let v6 = remote.is_v6();
            let outcome = work.classify(AUTH_CONNECT.of(v6));
            match outcome {
                Outcome::Permitted if certain => self.permitted(work, &key, v6),
                Outcome::Permitted | Outcome::Late => self.wait(work, &key, !certain),
                Outcome::Blocked(_) => {
                    let about = About { layer: AUTH_CONNECT.of(v6), socket: cookie, flow: 0, flags: 0 };
                    report(work, &about);
                    outcome
                }
            }
        }))
    }

    /// Leaves the call to its packets; refuses it where that cannot be kept with the socket. `always`: whatever the policy
    /// says, because what the call is about is not known yet.
    #[inline(always)]
    fn wait(&self, work: &mut Work, key: &FlowKey, always: bool) -> Outcome {
        if !self.keep(work, 0, CONNECT_LATE) {
            return work::CLOSED;
        }
        if always {
            watch_packets();
        }
        if !always && key.protocol as u32 != protocol::SOCKET_TCP {
            // what was known of the flow before no longer holds
            let _ = FLOWS.remove(key);
        }
        Outcome::Permitted
    }

    #[inline(always)]
    fn permitted(&self, work: &mut Work, key: &FlowKey, v6: bool) -> Outcome {
        let flow = next_flow();
        // kept before anything is let through: the flow of a stream is judged by it later
        if work.flags & KEEP_IDENTITY != 0 && !self.keep(work, flow, 0) {
            return work::CLOSED;
        }
        let about = About { layer: AUTH_CONNECT.of(v6), socket: key.socket, flow, flags: 0 };
        report(work, &about);
        if key.protocol as u32 == protocol::SOCKET_TCP {
            return Outcome::Permitted;
        }
        // datagrams have no handshake: the flow is established with its authorization
        work.values.set(words::DIRECTION, OUTBOUND);
        let outcome = established(work, v6, key.socket, flow);
        if outcome == Outcome::Permitted {
            remember(key, flow, work.generation());
        }
        outcome
    }

    /// The incoming values of a connect.
    #[inline(always)]
    fn write(&self, work: &mut Work, remote: Address, port: u16, protocol: u32) {
        let v6 = remote.is_v6();
        let socket = self.socket();
        // SAFETY: the socket of a call is a full socket; the verifier checks the members.
        let (local_port, device, kind) = unsafe { ((*socket).src_port, (*socket).bound_dev_if, (*socket).type_) };
        work.write_identity();
        work.values.set(words::IP_PROTOCOL, protocol);
        remote.write(work, words::IP_REMOTE_ADDRESS);
        work.values.set(words::IP_DESTINATION_ADDRESS_TYPE, remote.kind());
        work.values.set(words::IP_LOCAL_ADDRESS_TYPE, 1);
        work.values.set(words::IP_REMOTE_PORT, port as u32);
        if local_port != 0 {
            work.values.set(words::IP_LOCAL_PORT, local_port);
        } else {
            work.values.set_unknown(words::IP_LOCAL_PORT);
        }
        let local = match (self.message, v6) {
            (true, _) => self.source,
            (false, true) => self.bound_v6(),
            (false, false) => self.bound_v4(),
        };
        // what is bound to a multicast address receives from there, and sends from elsewhere
        if local.is_unspecified() || local.is_v6() != v6 || !local.is_unicast() {
            unknown_local(work, v6);
        } else {
            local.write(work, words::IP_LOCAL_ADDRESS);
        }
        // a message may name another interface than its socket is bound to (IP_PKTINFO)
        if device != 0 && !self.message {
            work.write_interface(device);
        } else {
            work.values.set_unknown(words::INTERFACE_INDEX);
            work.unknown_interface();
        }
        let mut flags = 0;
        if remote.is_local() {
            flags |= IS_LOOPBACK;
        }
        if kind == protocol::SOCK_RAW {
            flags |= IS_RAW_ENDPOINT;
        }
        work.values.set(words::FLAGS, flags);
        // SAFETY: the context is valid.
        let compartment = unsafe { bpf_get_netns_cookie(self.context.cast()) };
        work.values.set(words::COMPARTMENT_ID, compartment as u32);
    }

    /// Keeps the caller's identity with the socket, and the flow that it carries. `false`: there is no memory for it.
    #[inline(always)]
    fn keep(&self, work: &Work, flow: u64, flags: u64) -> bool {
        let Some(endpoint) = ENDPOINTS.get_or_insert(self.socket()) else { return false };
        // SAFETY: the context is valid, and so is the map value.
        let compartment = unsafe {
            if (*self.context).protocol == protocol::SOCKET_TCP {
                // a connection of its own; the call holds the socket's lock
                bits::clear(&raw mut (*endpoint).flags, CONNECT_LATE | FLOW_REFUSED);
            }
            bpf_get_netns_cookie(self.context.cast())
        };
        keep(work, endpoint, flow, compartment as u32 as u64, flags);
        true
    }
}

/// Keeps the identity in `work` with an endpoint, unless its owner is known already or this one is nobody's. Sets flags.
#[inline(always)]
pub fn keep(work: &Work, endpoint: *mut Endpoint, flow: u64, compartment: u64, flags: u64) {
    let mut flags = flags;
    // SAFETY: a valid map value. Programs of one socket may race here; the last one stands, and all of them are callers
    // of the same socket. No flag is lost.
    unsafe {
        if (*endpoint).flags & OWNED == 0 && work.identity.process.started != 0 {
            crate::words::copy(&raw const work.identity, &raw mut (*endpoint).owner);
            flags |= OWNED;
        }
        (*endpoint).flow = flow;
        (*endpoint).compartment = compartment;
        bits::set(&raw mut (*endpoint).flags, flags);
    }
}

/// Whether the flow was authorized by the policy that holds now.
#[inline(always)]
pub fn is_authorized(key: &FlowKey, generation: u32) -> bool {
    match FLOWS.get_ptr(key) {
        // SAFETY: a valid map value.
        Some(flow) => unsafe { (*flow).generation == generation && (*flow).state == PERMITTED },
        None => false,
    }
}

/// Remembers a flow that was authorized. A table that cannot take it, or that gives its place to another, only means that
/// the flow is asked for again.
#[inline(always)]
pub fn remember(key: &FlowKey, id: u64, generation: u32) {
    let _ = FLOWS.insert(key, &Flow { id, generation, state: PERMITTED }, 0);
}

/// Classifies a flow that was just authorized at ALE_FLOW_ESTABLISHED.
#[inline(always)]
pub fn established(work: &mut Work, v6: bool, socket: u64, flow: u64) -> Outcome {
    let layer = FLOW_ESTABLISHED.of(v6);
    let outcome = match work.classify(layer) {
        Outcome::Late => work.close_late(layer),
        outcome => outcome,
    };
    report(work, &About { layer, socket, flow, flags: 0 });
    outcome
}
