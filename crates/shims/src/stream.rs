//! ALE_AUTH_LISTEN, and ALE_FLOW_ESTABLISHED and ALE_ENDPOINT_CLOSURE of TCP: the socket operations hook.
//!
//! Its answer is ignored by the kernel. A refused listen is marked on the socket, and its SYNs are dropped; a refused
//! flow is marked too, its packets are dropped both ways, and the loader is told to end the socket.

use crate::{
    address::Address,
    endpoint::keep,
    flows,
    layers::{AUTH_LISTEN, ENDPOINT_CLOSURE, FLOW_ESTABLISHED, INBOUND, IS_LOOPBACK, OUTBOUND, authorization},
    maps::ENDPOINTS,
    protocol,
    refuse::is_dry_run,
    report::{About, report_end},
    resource::{Local, asks_implicit, assigned, write_endpoint},
    socket,
    storage::bits,
    work::{self, FAIL_SOCKET, OLD_FLOW, Outcome, Work, next_flow},
};
use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock, bpf_sock_ops,
    },
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sock_ops_cb_flags_set},
    macros::sock_ops,
    programs::SockOpsContext,
};
use openwfp_abi::{
    config::FLOWS_RECORDED,
    event::kind,
    flow::{
        ASSIGNED, CONNECT_LATE, DUAL, ENDED, ESTABLISHED, Endpoint, FLOW_REFUSED, LISTEN_DECIDED, LISTEN_REFUSED, OWNED,
    },
};
use openwfp_engine::words;

const AF_INET6: u32 = 10;
/// The state of a socket that is closed.
const CLOSE: u32 = 7;

#[sock_ops]
pub fn stream(context: SockOpsContext) -> u32 {
    let operation = Operation { context: context.ops };
    // SAFETY: the context is valid; the verifier checks the member.
    match unsafe { (*context.ops).op } {
        BPF_SOCK_OPS_TCP_LISTEN_CB => operation.listen(),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => operation.established(OUTBOUND),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => operation.established(INBOUND),
        BPF_SOCK_OPS_STATE_CB => operation.state(),
        _ => {}
    }
    1
}

struct Operation {
    context: *mut bpf_sock_ops,
}

impl Operation {
    #[inline(always)]
    fn local(&self) -> Address {
        // SAFETY: the context is valid; the verifier checks the members. Volatile: each word is read by itself.
        unsafe {
            if (*self.context).family == AF_INET6 {
                let word = |n: usize| (&raw const (*self.context).local_ip6[n]).read_volatile();
                Address::of_socket([word(0), word(1), word(2), word(3)])
            } else {
                Address::v4(u32::from_be((*self.context).local_ip4))
            }
        }
    }

    #[inline(always)]
    fn remote(&self) -> Address {
        // SAFETY: as above.
        unsafe {
            if (*self.context).family == AF_INET6 {
                let word = |n: usize| (&raw const (*self.context).remote_ip6[n]).read_volatile();
                Address::of_socket([word(0), word(1), word(2), word(3)])
            } else {
                Address::v4(u32::from_be((*self.context).remote_ip4))
            }
        }
    }

    #[inline(always)]
    fn socket(&self) -> Option<*mut bpf_sock> {
        // SAFETY: as above.
        let socket = unsafe { (*self.context).__bindgen_anon_2.sk };
        if socket.is_null() { None } else { Some(socket) }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_socket_cookie(self.context.cast()) }
    }

    #[inline(always)]
    fn local_port(&self) -> u32 {
        // SAFETY: as above; the member is in host order.
        unsafe { (*self.context).local_port }
    }

    /// Called in the task that calls `listen()`.
    #[inline(always)]
    fn listen(&self) {
        let Some(socket) = self.socket() else { return };
        // without memory the socket stays undecided, and its SYNs are dropped (LISTEN_FILTERS)
        let Some(endpoint) = ENDPOINTS.get_or_insert(socket) else { return };
        // SAFETY: a valid map value.
        unsafe {
            let before = LISTEN_REFUSED | LISTEN_DECIDED | CONNECT_LATE | FLOW_REFUSED | ENDED;
            bits::clear(&raw mut (*endpoint).flags, before);
        }
        let local = self.local();
        let outcome = work::with(|work| {
            self.take_owner(work, endpoint);
            let both = local.is_v6() && local.is_unspecified() && !socket::is_v6_only(socket);
            let outcome = self.assign(work, endpoint, local, both);
            if outcome != Outcome::Permitted {
                return outcome;
            }
            let outcome = self.may_listen(work, local);
            if both && outcome == Outcome::Permitted { self.may_listen(work, Address::v4(0)) } else { outcome }
        });
        let refused = matches!(outcome, Outcome::Blocked(_)) && !is_dry_run();
        // SAFETY: a valid map value.
        unsafe { bits::set(&raw mut (*endpoint).flags, if refused { LISTEN_REFUSED } else { LISTEN_DECIDED }) };
    }

    /// The owner of the endpoint: who bound it, else who calls now.
    #[inline(always)]
    fn take_owner(&self, work: &mut Work, endpoint: *mut Endpoint) {
        // SAFETY: a valid map value.
        if unsafe { (*endpoint).flags } & OWNED != 0 {
            // SAFETY: as above.
            work.identify(unsafe { &raw const (*endpoint).owner });
        } else {
            // without a look at his group, for which Linux 6.1 has no helper here; no kernel thread listens for others
            work.identify_task();
            // SAFETY: the context is valid.
            let compartment = unsafe { bpf_get_netns_cookie(self.context.cast()) };
            keep(work, endpoint, 0, compartment, 0);
        }
    }

    /// ALE_BIND_REDIRECT and ALE_RESOURCE_ASSIGNMENT of a socket that listens without having been bound; of one of `both` versions at
    /// the layers of both.
    #[inline(always)]
    fn assign(&self, work: &mut Work, endpoint: *mut Endpoint, local: Address, both: bool) -> Outcome {
        // SAFETY: a valid map value.
        let done = unsafe { (*endpoint).flags } & ASSIGNED != 0;
        if done || !(asks_implicit(work, local.is_v6()) || both && asks_implicit(work, false)) {
            return Outcome::Permitted;
        }
        work.clear();
        let mut local = Local::implicit(local, self.local_port(), protocol::SOCKET_TCP, 0);
        let outcome = assigned(work, endpoint, &local, self.cookie());
        if !both || outcome != Outcome::Permitted {
            return outcome;
        }
        // SAFETY: a valid map value.
        unsafe { bits::set(&raw mut (*endpoint).flags, DUAL) };
        work.clear();
        local.address = Address::v4(0);
        assigned(work, endpoint, &local, self.cookie())
    }

    #[inline(always)]
    fn may_listen(&self, work: &mut Work, local: Address) -> Outcome {
        work.clear();
        work.write_identity();
        // SAFETY: the context is valid.
        let namespace = unsafe { bpf_get_netns_cookie(self.context.cast()) };
        write_endpoint(work, local, self.local_port(), 0, namespace);
        let layer = AUTH_LISTEN.of(local.is_v6());
        work.decide(&About { layer, socket: self.cookie(), flow: 0, flags: 0 })
    }

    /// The handshake is complete. Whoever runs now is not to be believed: the identity is the endpoint's.
    ///
    /// The socket has its memory by now, so that a refusal can be kept: under policies that have filters here, a connect
    /// without it fails, a SYN to a listening socket without it is dropped, and the kernel makes no accepted socket
    /// whose copy of it fails.
    #[inline(always)]
    fn established(&self, direction: u32) {
        let Some(socket) = self.socket() else { return };
        let Some(endpoint) = ENDPOINTS.get_or_insert(socket) else { return };
        let outcome = match work::begin() {
            Some(work) => {
                let outcome = self.establish(work, endpoint, direction);
                work.give_back(outcome)
            }
            None => work::CLOSED,
        };
        if self.watches_end() {
            // SAFETY: the context is valid.
            unsafe { bpf_sock_ops_cb_flags_set(self.context, BPF_SOCK_OPS_STATE_CB_FLAG as i32) };
        }
        if matches!(outcome, Outcome::Blocked(_)) && !is_dry_run() {
            // SAFETY: a valid map value.
            unsafe { bits::set(&raw mut (*endpoint).flags, FLOW_REFUSED) };
        }
    }

    #[inline(always)]
    fn establish(&self, work: &mut Work, endpoint: *mut Endpoint, direction: u32) -> Outcome {
        let v6 = self.remote().is_v6();
        // SAFETY: a valid map value.
        unsafe {
            work.identify(&raw const (*endpoint).owner);
            if direction == INBOUND {
                // what the listening socket has is not this one's
                bits::clear(&raw mut (*endpoint).flags, ASSIGNED | DUAL);
            }
            // a connect that was not asked about had no flow
            if direction == INBOUND || (*endpoint).flow == 0 {
                let authorized = authorization(direction == INBOUND, v6);
                (*endpoint).flow = next_flow();
                (*endpoint).authorization = authorized;
                // its SYN may have been permitted by filters, or by way of an interface, that have changed since
                (*endpoint).generation = if flows::changed_lately(authorized) { 0 } else { work.generation() };
                ((*endpoint).arrival, (*endpoint).departure) = (0, 0);
                (*endpoint).network = work.network().wrapping_sub(flows::network_changed_lately() as u32);
            }
            bits::set(&raw mut (*endpoint).flags, ESTABLISHED);
        }
        self.may_be_established(work, endpoint, direction)
    }

    #[inline(always)]
    fn may_be_established(&self, work: &mut Work, endpoint: *mut Endpoint, direction: u32) -> Outcome {
        let v6 = self.remote().is_v6();
        // SAFETY: a valid map value.
        let (flow, namespace) = unsafe { ((*endpoint).flow, (*endpoint).compartment) };
        self.write(work, namespace);
        work.values.set(words::DIRECTION, direction);
        let layer = FLOW_ESTABLISHED.of(v6);
        work.decide(&About { layer, socket: self.cookie(), flow, flags: FAIL_SOCKET | OLD_FLOW })
    }

    /// Whether the end of a connection is of interest.
    #[inline(always)]
    fn watches_end(&self) -> bool {
        work::config().is_some_and(|config| {
            config.flags & FLOWS_RECORDED != 0 || config.active[1] & 3 << (ENDPOINT_CLOSURE.of(false) - 64) != 0
        })
    }

    /// The connection has another state: when it is closed, its flow has ended.
    #[inline(always)]
    fn state(&self) {
        // SAFETY: the context is valid; the verifier checks the member.
        if unsafe { (*self.context).__bindgen_anon_1.args[1] } != CLOSE {
            return;
        }
        let Some(endpoint) = self.socket().and_then(|socket| ENDPOINTS.get(socket)) else { return };
        // SAFETY: a valid map value.
        let (flags, flow, namespace) = unsafe { ((*endpoint).flags, (*endpoint).flow, (*endpoint).compartment) };
        if flags & ESTABLISHED == 0 {
            return;
        }
        // SAFETY: a valid map value.
        unsafe {
            bits::clear(&raw mut (*endpoint).flags, ESTABLISHED);
            bits::set(&raw mut (*endpoint).flags, ENDED);
        }
        let ended = if flags & FLOW_REFUSED != 0 { kind::REFUSED_FLOW_DELETED } else { kind::FLOW_DELETED };
        work::with(|work| {
            // SAFETY: a valid map value.
            work.identify(unsafe { &raw const (*endpoint).owner });
            self.write(work, namespace);
            let layer = ENDPOINT_CLOSURE.of(self.remote().is_v6());
            work.decide(&About { layer, socket: self.cookie(), flow, flags: OLD_FLOW });
            if work.flags & FLOWS_RECORDED != 0 {
                // SAFETY: memory that is claimed.
                unsafe { report_end(work, ended as u32, self.cookie(), flow) };
            }
            Outcome::Permitted
        });
    }

    /// The values of a connection, with the identity in `work`.
    #[inline(always)]
    fn write(&self, work: &mut Work, namespace: u64) {
        let (local, remote) = (self.local(), self.remote());
        work.clear();
        work.write_identity();
        work.values.set(words::IP_PROTOCOL, protocol::SOCKET_TCP);
        local.write(work, words::IP_LOCAL_ADDRESS);
        work.values.set(words::IP_LOCAL_ADDRESS_TYPE, local.kind());
        work.values.set(words::IP_LOCAL_PORT, self.local_port());
        remote.write(work, words::IP_REMOTE_ADDRESS);
        // SAFETY: the context is valid; the member is in network order, in the upper half of a word on some kernels'
        // contexts and the lower on others: its bytes are those of a port before two zeros.
        let port = unsafe { u32::from_be((*self.context).remote_port) };
        work.values.set(words::IP_REMOTE_PORT, if port > 0xffff { port >> 16 } else { port });
        work.values.set(words::IP_DESTINATION_ADDRESS_TYPE, remote.kind());
        let flags = if remote.is_local(work, namespace) { IS_LOOPBACK } else { 0 };
        work.values.set(words::FLAGS, flags);
        work.write_compartment(namespace);
        match self.socket().and_then(socket::route_device) {
            Some(device) => work.write_interface(words::INTERFACE_INDEX, device, namespace),
            None => work.unknown_interface(words::INTERFACE_INDEX),
        }
        work.values.copy(words::INTERFACE_INDEX, words::SUB_INTERFACE_INDEX);
    }
}
