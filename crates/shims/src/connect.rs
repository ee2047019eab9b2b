//! ALE_AUTH_CONNECT in the calling task: `connect()`, and datagrams to an endpoint that is named with them.
//!
//! Source address and interface are not chosen yet unless the socket was bound. Where they could change the outcome the
//! call goes on, and the first packet is asked ([`crate::packets`]).

use crate::{
    address::{Address, unknown_local},
    layers::{AUTH_CONNECT, FLOW_ESTABLISHED, IS_LOOPBACK, IS_RAW_ENDPOINT, OUTBOUND},
    maps::{ENDPOINTS, FLOWS},
    refuse::refused,
    report::{About, report},
    work::{self, Outcome, Work, next_flow},
};
use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use openwfp_abi::{
    config::KEEP_IDENTITY,
    flow::{CONNECT_LATE, Endpoint, FLOW_REFUSED, Flow, FlowKey, LATE, OWNED, PERMITTED},
};
use openwfp_engine::words;

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const SOCK_RAW: u32 = 3;

#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    let call = Call { context: context.sock_addr, source: 0 };
    call.authorize(Address::v4(call.v4()), false)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    let call = Call { context: context.sock_addr, source: 0 };
    call.authorize(call.v6(), false)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    // SAFETY: the context is valid; the verifier checks the member.
    let source = u32::from_be(unsafe { (*context.sock_addr).msg_src_ip4 });
    let call = Call { context: context.sock_addr, source };
    call.authorize(Address::v4(call.v4()), true)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    let call = Call { context: context.sock_addr, source: 0 };
    call.authorize(call.v6(), true)
}

/// A call that names a remote endpoint.
struct Call {
    context: *mut bpf_sock_addr,
    /// The IPv4 source address that comes with a message; 0: none does.
    source: u32,
}

impl Call {
    #[inline(always)]
    fn v4(&self) -> u32 {
        // SAFETY: the context is valid; the verifier checks the member.
        u32::from_be(unsafe { (*self.context).user_ip4 })
    }

    #[inline(always)]
    fn v6(&self) -> Address {
        // SAFETY: as above; volatile, because the verifier wants each word read by itself.
        let word = |n: usize| unsafe { (&raw const (*self.context).user_ip6[n]).read_volatile() };
        Address::of_socket([word(0), word(1), word(2), word(3)])
    }

    #[inline(always)]
    fn socket(&self) -> *mut bpf_sock {
        // SAFETY: as above.
        unsafe { (*self.context).__bindgen_anon_1.sk }
    }

    /// Authorizes the call; what the hook returns.
    #[inline(always)]
    fn authorize(&self, remote: Address, datagram: bool) -> i32 {
        // SAFETY: the context is valid; the verifier checks the members.
        let (port, protocol, cookie) = unsafe {
            let port = u16::from_be((*self.context).user_port as u16);
            ((port), (*self.context).protocol, bpf_get_socket_cookie(self.context.cast()))
        };
        let key = FlowKey {
            socket: cookie,
            address: remote.key(),
            port,
            protocol: protocol as u8,
            version: if remote.is_v6() { 6 } else { 4 },
            zero: 0,
        };
        refused(work::with(|work| {
            if datagram && is_authorized(&key, work.generation()) {
                return Outcome::Permitted;
            }
            work.clear();
            work.identify_caller();
            self.write(work, remote, port, protocol);
            let v6 = remote.is_v6();
            let outcome = work.classify(AUTH_CONNECT.of(v6));
            match outcome {
                Outcome::Permitted => self.permitted(work, &key, v6),
                Outcome::Late => {
                    self.keep(work, 0, CONNECT_LATE);
                    if protocol != IPPROTO_TCP {
                        remember(&key, 0, work.generation(), LATE);
                    }
                    Outcome::Permitted
                }
                Outcome::Blocked(_) => {
                    let about = About { layer: AUTH_CONNECT.of(v6), socket: cookie, flow: 0, flags: 0 };
                    report(work, &about);
                    outcome
                }
            }
        }))
    }

    #[inline(always)]
    fn permitted(&self, work: &mut Work, key: &FlowKey, v6: bool) -> Outcome {
        let flow = next_flow();
        let about = About { layer: AUTH_CONNECT.of(v6), socket: key.socket, flow, flags: 0 };
        report(work, &about);
        if key.protocol as u32 == IPPROTO_TCP {
            if work.flags & KEEP_IDENTITY != 0 {
                self.keep(work, flow, 0);
            }
            return Outcome::Permitted;
        }
        // datagrams have no handshake: the flow is established with its authorization
        work.values.set(words::DIRECTION, OUTBOUND);
        let outcome = established(work, v6, key.socket, flow);
        if outcome == Outcome::Permitted {
            if work.flags & KEEP_IDENTITY != 0 {
                self.keep(work, flow, 0);
            }
            remember(key, flow, work.generation(), PERMITTED);
        }
        outcome
    }

    /// The incoming values of a connect.
    #[inline(always)]
    fn write(&self, work: &mut Work, remote: Address, port: u16, protocol: u32) {
        let v6 = remote.is_v6();
        let socket = self.socket();
        // SAFETY: the socket of a call is a full socket; the verifier checks the members.
        let (local_port, bound_v4, bound_v6, device, kind) = unsafe {
            let word = |n: usize| (&raw const (*socket).src_ip6[n]).read_volatile();
            (
                (*socket).src_port,
                (*socket).src_ip4,
                [word(0), word(1), word(2), word(3)],
                (*socket).bound_dev_if,
                (*socket).type_,
            )
        };
        work.write_identity();
        work.values.set(words::IP_PROTOCOL, protocol);
        remote.write(work, words::IP_REMOTE_ADDRESS);
        work.values.set(words::IP_DESTINATION_ADDRESS_TYPE, remote.kind());
        work.values.set(words::IP_LOCAL_ADDRESS_TYPE, 1);
        if protocol == IPPROTO_TCP || protocol == IPPROTO_UDP {
            work.values.set(words::IP_REMOTE_PORT, port as u32);
            if local_port != 0 {
                work.values.set(words::IP_LOCAL_PORT, local_port);
            } else {
                work.values.set_unknown(words::IP_LOCAL_PORT);
            }
        }
        let bound = if v6 { Address::of_socket(bound_v6) } else { Address::v4(u32::from_be(bound_v4)) };
        let local = if self.source == 0 { bound } else { Address::v4(self.source) };
        if local.is_unspecified() || local.is_v6() != v6 {
            unknown_local(work, v6);
        } else {
            local.write(work, words::IP_LOCAL_ADDRESS);
        }
        if device != 0 {
            work.write_interface(device);
        } else {
            work.values.set_unknown(words::INTERFACE_INDEX);
            work.unknown_interface();
        }
        let mut flags = 0;
        if remote.is_local() {
            flags |= IS_LOOPBACK;
        }
        if kind == SOCK_RAW {
            flags |= IS_RAW_ENDPOINT;
        }
        work.values.set(words::FLAGS, flags);
        // SAFETY: the context is valid.
        let compartment = unsafe { bpf_get_netns_cookie(self.context.cast()) };
        work.values.set(words::COMPARTMENT_ID, compartment as u32);
    }

    /// Keeps the caller's identity with the socket, and the flow that it carries.
    #[inline(always)]
    fn keep(&self, work: &Work, flow: u64, flag: u64) {
        let Some(endpoint) = ENDPOINTS.get_or_insert(self.socket()) else { return };
        let compartment = work.values.get(words::COMPARTMENT_ID);
        keep(work, endpoint, flow, compartment, flag);
    }
}

/// Keeps the identity in `work` with an endpoint, unless its owner is known already.
#[inline(always)]
pub fn keep(work: &Work, endpoint: *mut Endpoint, flow: u64, compartment: u64, flag: u64) {
    // SAFETY: a valid map value. Programs of one socket may race here; the last one stands, and all of them are callers
    // of the same socket.
    unsafe {
        let flags = (*endpoint).flags;
        if flags & OWNED == 0 {
            crate::words::copy(&raw const work.identity, &raw mut (*endpoint).owner);
        }
        (*endpoint).flow = flow;
        (*endpoint).compartment = compartment;
        (*endpoint).flags = flags & !(CONNECT_LATE | FLOW_REFUSED) | OWNED | flag;
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

/// Remembers what was decided for a flow. A table that cannot take it only means that the next packet asks again.
#[inline(always)]
pub fn remember(key: &FlowKey, id: u64, generation: u32, state: u32) {
    let _ = FLOWS.insert(key, &Flow { id, generation, state }, 0);
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
