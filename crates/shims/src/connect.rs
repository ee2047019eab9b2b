//! ALE_AUTH_CONNECT in the calling task: `connect()`, and datagrams to an endpoint that is named with them.
//!
//! Source address and interface are not chosen yet unless the socket was bound. Where they could change the outcome the
//! call goes on, and the first packet is asked ([`crate::packets`]).

use crate::{
    address::{Address, unknown_local},
    endpoint::keep,
    flows::{self, Standing},
    layers::{AUTH_CONNECT, CONNECT_REDIRECT, IS_LOOPBACK, IS_RAW_ENDPOINT, authorization},
    maps::{ENDPOINTS, FLOWS},
    protocol,
    refuse::refused,
    report::About,
    resource::{Local, asks_implicit, assigned},
    storage::bits,
    work::{
        self, MAY_WAIT, NAMESPACE, OF_INTERFACES, Outcome, PROVISIONAL, WHO, Work, address, bit, next_flow,
        watch_packets,
    },
};
use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use openwfp_abi::{
    config::{BY_INTERFACE, BY_LOCAL, FORGETS},
    flow::{ASSIGNED, CONNECT_LATE, ENDED, FLOW_REFUSED, FlowKey},
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

/// A call as it is decided about, in the memory of its classification: the stack is short.
#[repr(C)]
pub struct Called {
    /// The socket's cookie; 0: it was not asked for.
    socket: u64,
    namespace: u64,
    /// Where it truly goes.
    remote: Address,
    /// What the socket is bound to, or the message comes from.
    local: Address,
    remote_port: u32,
    /// 0: not chosen yet.
    local_port: u32,
    /// The interface that it goes by; 0: not chosen yet.
    device: u32,
    flags: u32,
    /// Whether `remote` is certain, as 0 or 1.
    certain: u32,
    /// Whether the call leaves nothing with its socket, as 0 or 1.
    forgets: u32,
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
        // SAFETY: the context is valid; the verifier checks the member.
        let protocol = unsafe { (*self.context).protocol };
        let forgets = self.forgets(protocol);
        // by which what is kept is found, or told
        // SAFETY: the context is valid.
        let cookie = if forgets { 0 } else { unsafe { bpf_get_socket_cookie(self.context.cast()) } };
        let (remote, certain) = self.effective(named, protocol);
        let mut port = self.port();
        if self.message && port == 0 {
            // SAFETY: the socket of a call is a full socket; the verifier checks the member.
            port = u16::from_be(unsafe { (*self.socket()).dst_port });
        }
        // which local side a datagram has, its packet says
        let certain = certain && (protocol == protocol::SOCKET_TCP || !by_local_side());
        // one that was authorized before a change, or refused, is looked at when its packet leaves
        if self.message
            && certain
            && flows::standing(&key(cookie, &remote, port, protocol), &mut 0) != Standing::UNKNOWN
        {
            return 1;
        }
        let Some(work) = work::begin() else { return refused(work::CLOSED) };
        let called = &mut work.call;
        (called.socket, called.remote, called.remote_port) = (cookie, remote, port as u32);
        (called.certain, called.forgets) = (certain as u32, forgets as u32);
        if self.message {
            called.local = self.source;
        }
        let outcome = self.decide(work);
        refused(work.give_back(outcome))
    }

    /// ALE_RESOURCE_ASSIGNMENT, ALE_CONNECT_REDIRECT and ALE_AUTH_CONNECT.
    #[inline(always)]
    fn decide(&self, work: &mut Work) -> Outcome {
        let called = &raw const work.call;
        // SAFETY: memory that is claimed; the context is valid, and the verifier checks its member.
        // Volatile: of what is read from there the verifier knows nothing, so that all ways to come here are one for it.
        let (cookie, certain, forgets, v6, protocol) = unsafe {
            (
                (&raw const (*called).socket).read_volatile(),
                (&raw const (*called).certain).read_volatile() != 0,
                (&raw const (*called).forgets).read_volatile() != 0,
                Address::is_v6_at(&raw const (*called).remote),
                (&raw const (*self.context).protocol).read_volatile(),
            )
        };
        work.ask_of_call();
        if work.asks(!WRITTEN) || asks_implicit(work, v6) {
            work.clear();
        }
        if forgets {
            work.identify_nobody();
        } else {
            work.identify_caller(self.socket());
        }
        let assigned = self.assign(work, v6, protocol, cookie);
        if assigned != Outcome::Permitted {
            return assigned;
        }
        if protocol != protocol::SOCKET_TCP && protocol != protocol::SOCKET_UDP {
            // what an ICMP message is, its packet says
            return self.wait(work, v6, protocol, true);
        }
        self.write(work, v6, protocol);
        let about = About { layer: CONNECT_REDIRECT.of(v6), socket: cookie, flow: 0, flags: 0 };
        let redirected = work.decide(&about);
        if redirected != Outcome::Permitted {
            return redirected;
        }
        let flow = if certain && !forgets { next_flow() } else { 0 };
        let flags = if certain { MAY_WAIT } else { MAY_WAIT | PROVISIONAL };
        let about = About { layer: AUTH_CONNECT.of(v6), socket: cookie, flow, flags };
        match work.decide(&about) {
            Outcome::Permitted if certain && forgets => Outcome::Permitted,
            Outcome::Permitted if certain => self.permitted(work, flow, v6, protocol),
            Outcome::Permitted | Outcome::Late => {
                if forgets {
                    work.identify_caller(self.socket());
                }
                self.wait(work, v6, protocol, !certain)
            }
            blocked => blocked,
        }
    }

    /// ALE_RESOURCE_ASSIGNMENT of a socket that was not bound: it gets an address and a port by calling.
    #[inline(always)]
    fn assign(&self, work: &mut Work, v6: bool, protocol: u32, cookie: u64) -> Outcome {
        if !asks_implicit(work, v6) {
            return Outcome::Permitted;
        }
        let Some(endpoint) = ENDPOINTS.get_or_insert(self.socket()) else { return work::CLOSED };
        // SAFETY: a valid map value.
        if unsafe { (*endpoint).flags } & ASSIGNED != 0 {
            return Outcome::Permitted;
        }
        // SAFETY: the context is valid; the socket of a call is a full socket; the verifier checks the members.
        let (namespace, port, device, raw) = unsafe {
            let socket = self.socket();
            (
                bpf_get_netns_cookie(self.context.cast()),
                (*socket).src_port,
                (*socket).bound_dev_if,
                (*socket).type_ == protocol::SOCK_RAW,
            )
        };
        keep(work, endpoint, 0, namespace, 0);
        // bound without a port (IP_BIND_ADDRESS_NO_PORT), or to nothing
        let bound = if v6 { self.bound_v6() } else { self.bound_v4() };
        let address = if bound.is_v6() == v6 { bound } else { Address::unspecified(v6) };
        let mut local = Local::implicit(address, port, protocol, device);
        if raw {
            local.flags |= IS_RAW_ENDPOINT;
        }
        let outcome = assigned(work, endpoint, &local, cookie);
        work.clear();
        outcome
    }

    /// Leaves the call to its packets; refuses it where that cannot be kept with the socket. `always`: whatever the policy
    /// says, because what the call is about is not known yet.
    #[inline(always)]
    fn wait(&self, work: &mut Work, v6: bool, protocol: u32, always: bool) -> Outcome {
        if !self.keep(work, 0, CONNECT_LATE, v6) {
            return work::CLOSED;
        }
        if always {
            watch_packets();
        } else if protocol != protocol::SOCKET_TCP {
            // what was known of the flow before no longer holds
            let _ = FLOWS.remove(&work.call.key(protocol));
        }
        Outcome::Permitted
    }

    /// Whether the call leaves nothing with its socket if it is permitted. One that has memory already keeps what it calls.
    #[inline(always)]
    fn forgets(&self, protocol: u32) -> bool {
        protocol == protocol::SOCKET_TCP
            && work::config().is_some_and(|config| config.flags & FORGETS != 0)
            && ENDPOINTS.get(self.socket()).is_none()
    }

    #[inline(always)]
    fn permitted(&self, work: &mut Work, flow: u64, v6: bool, protocol: u32) -> Outcome {
        // kept before anything is let through: the flow is judged by it later
        if !self.keep(work, flow, 0, v6) {
            return work::CLOSED;
        }
        if protocol == protocol::SOCKET_TCP {
            return Outcome::Permitted;
        }
        // datagrams have no handshake: the flow is established with its authorization
        let key = work.call.key(protocol);
        flows::establish(work, &key, flow, authorization(false, v6), true)
    }

    /// The incoming values of a connect.
    #[inline(always)]
    fn write(&self, work: &mut Work, v6: bool, protocol: u32) {
        let socket = self.socket();
        // SAFETY: the socket of a call is a full socket; the verifier checks the members. The context is valid.
        let (local_port, device, kind, namespace) = unsafe {
            let asked = work.asks(NAMESPACE | OF_INTERFACES | bit(words::FLAGS));
            let namespace = if asked { bpf_get_netns_cookie(self.context.cast()) } else { 0 };
            ((*socket).src_port, (*socket).bound_dev_if, (*socket).type_, namespace)
        };
        let called = &mut work.call;
        if !self.message {
            called.local = if v6 { self.bound_v6() } else { self.bound_v4() };
        }
        (called.namespace, called.local_port) = (namespace, local_port);
        // a message may name another interface than its socket is bound to (IP_PKTINFO)
        called.device = if self.message { 0 } else { device };
        called.flags = if kind == protocol::SOCK_RAW { IS_RAW_ENDPOINT } else { 0 };
        // SAFETY: memory that is claimed.
        unsafe { write_call(work, protocol) };
    }

    /// Keeps the caller's identity with the socket, and the flow that it carries. `false`: there is no memory for it.
    #[inline(always)]
    fn keep(&self, work: &Work, flow: u64, flags: u64, v6: bool) -> bool {
        let Some(endpoint) = ENDPOINTS.get_or_insert(self.socket()) else { return false };
        // SAFETY: the context is valid, and so is the map value.
        let compartment = unsafe {
            if (*self.context).protocol == protocol::SOCKET_TCP {
                // a connection of its own; the call holds the socket's lock
                bits::clear(&raw mut (*endpoint).flags, CONNECT_LATE | FLOW_REFUSED | ENDED);
            }
            bpf_get_netns_cookie(self.context.cast())
        };
        keep(work, endpoint, flow, compartment, flags);
        // SAFETY: a valid map value.
        unsafe {
            (*endpoint).generation = work.generation();
            (*endpoint).network = work.network();
            ((*endpoint).arrival, (*endpoint).departure) = (0, 0);
            (*endpoint).authorization = authorization(false, v6);
        }
        true
    }
}

impl Called {
    /// The key of the flow that the call makes.
    #[inline(always)]
    fn key(&self, protocol: u32) -> FlowKey {
        key(self.socket, &self.remote, self.remote_port as u16, protocol)
    }
}

#[inline(always)]
fn key(socket: u64, remote: &Address, port: u16, protocol: u32) -> FlowKey {
    let version = if remote.is_v6() { 6 } else { 4 };
    FlowKey { port, ..flows::key(socket, remote, protocol as u8, version) }
}

/// The words that [`write_call`] writes where they are looked at. All others are empty.
const WRITTEN: u64 = WHO
    | NAMESPACE
    | OF_INTERFACES
    | address(words::IP_LOCAL_ADDRESS)
    | address(words::IP_REMOTE_ADDRESS)
    | bit(words::IP_PROTOCOL)
    | bit(words::IP_LOCAL_PORT)
    | bit(words::IP_REMOTE_PORT)
    | bit(words::IP_LOCAL_ADDRESS_TYPE)
    | bit(words::IP_DESTINATION_ADDRESS_TYPE)
    | bit(words::FLAGS)
    | bit(words::REAUTHORIZE_REASON);

/// The incoming values of a call that is in `work`, with its caller's identity. Verified once.
///
/// # Safety
/// `work` is claimed memory.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn write_call(work: *mut Work, protocol: u32) -> u32 {
    if work.is_null() {
        return 0;
    }
    // SAFETY: the caller's.
    let work = unsafe { &mut *work };
    let Called { namespace, remote, local, remote_port, local_port, device, flags, .. } = work.call;
    let v6 = remote.is_v6();
    if work.asks(WHO) {
        work.write_identity();
    }
    work.values.set(words::IP_PROTOCOL, protocol);
    remote.write(work, words::IP_REMOTE_ADDRESS);
    work.values.set(words::IP_DESTINATION_ADDRESS_TYPE, remote.kind());
    work.values.set(words::IP_LOCAL_ADDRESS_TYPE, 1);
    work.values.set(words::IP_REMOTE_PORT, remote_port);
    if local_port != 0 {
        work.values.set(words::IP_LOCAL_PORT, local_port);
    } else {
        work.values.set_unknown(words::IP_LOCAL_PORT);
    }
    if work.asks(address(words::IP_LOCAL_ADDRESS)) {
        // what is bound to a multicast address receives from there, and sends from elsewhere
        if local.is_unspecified() || local.is_v6() != v6 || !local.is_unicast() {
            unknown_local(work, v6);
        } else {
            local.write(work, words::IP_LOCAL_ADDRESS);
        }
    }
    let loopback = work.asks(bit(words::FLAGS)) && remote.is_local(work, namespace);
    work.values.set(words::FLAGS, flags | if loopback { IS_LOOPBACK } else { 0 });
    if work.asks(NAMESPACE) {
        work.write_compartment(namespace);
    }
    work.values.set(words::REAUTHORIZE_REASON, 0);
    if !work.asks(OF_INTERFACES) {
        return 1;
    }
    if device != 0 {
        work.write_interface(words::INTERFACE_INDEX, device, namespace);
    } else {
        work.unknown_interface(words::INTERFACE_INDEX);
    }
    work.copy_interface(words::INTERFACE_INDEX, words::NEXTHOP_INTERFACE_INDEX);
    work.values.copy(words::INTERFACE_INDEX, words::SUB_INTERFACE_INDEX);
    work.values.copy(words::INTERFACE_INDEX, words::NEXTHOP_SUB_INTERFACE_INDEX);
    1
}

/// Whether datagrams to one remote endpoint are different flows by their local sides.
#[inline(always)]
fn by_local_side() -> bool {
    work::config().is_none_or(|config| config.flags & (BY_LOCAL | BY_INTERFACE) != 0)
}
