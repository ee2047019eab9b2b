//! ALE_BIND_REDIRECT and ALE_RESOURCE_ASSIGNMENT: `bind()`, before and after the port is chosen. The owner of an endpoint
//! is taken here, for whoever connects to it later.

use crate::{
    address::Address,
    endpoint::keep,
    layers::{BIND_REDIRECT, IS_RAW_ENDPOINT},
    maps::ENDPOINTS,
    protocol,
    refuse::refused,
    report::About,
    resource::{Local, assigned, write_endpoint},
    socket,
    storage::bits,
    work::{self, Outcome, Work, watch_packets},
};
use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use openwfp_abi::flow::{DUAL, PACKET_AUTHORIZED, RAW};
use openwfp_engine::words;

#[cgroup_sock_addr(bind4)]
pub fn redirect4(context: SockAddrContext) -> i32 {
    let context = context.sock_addr;
    // SAFETY: the context is valid; the verifier checks the member.
    let address = Address::v4(u32::from_be(unsafe { (*context).user_ip4 }));
    refused(work::with(|work| redirect(work, context, address)))
}

#[cgroup_sock_addr(bind6)]
pub fn redirect6(context: SockAddrContext) -> i32 {
    let context = context.sock_addr;
    // SAFETY: as above; volatile, because the verifier wants each word read by itself.
    let word = |n: usize| unsafe { (&raw const (*context).user_ip6[n]).read_volatile() };
    let address = Address::of_socket([word(0), word(1), word(2), word(3)]);
    refused(work::with(|work| {
        let outcome = redirect(work, context, address);
        if outcome != Outcome::Permitted || !address.is_v6() || !address.is_unspecified() {
            return outcome;
        }
        // SAFETY: as above.
        let socket = unsafe { (*context).__bindgen_anon_1.sk };
        // an endpoint on :: that serves IPv4 too is asked for as 0.0.0.0 as well
        if !socket.is_null() && socket::is_v6_only(socket) { outcome } else { redirect(work, context, Address::v4(0)) }
    }))
}

/// ALE_BIND_REDIRECT: what is asked for, before anything is chosen.
#[inline(always)]
fn redirect(work: &mut Work, context: *mut bpf_sock_addr, address: Address) -> Outcome {
    work.clear();
    // SAFETY: the context is valid; the verifier checks the members.
    let (socket, protocol, port, cookie, namespace) = unsafe {
        (
            (*context).__bindgen_anon_1.sk,
            (*context).protocol,
            u16::from_be((*context).user_port as u16),
            bpf_get_socket_cookie(context.cast()),
            bpf_get_netns_cookie(context.cast()),
        )
    };
    work.identify_caller(socket);
    work.write_identity();
    write_endpoint(work, address, port as u32, 0, namespace);
    work.values.set(words::IP_PROTOCOL, protocol);
    work.decide(&About { layer: BIND_REDIRECT.of(address.is_v6()), socket: cookie, flow: 0, flags: 0 })
}

#[cgroup_sock(post_bind4)]
pub fn bind4(context: SockContext) -> i32 {
    let socket = context.sock;
    // SAFETY: the context is valid; the verifier checks the member.
    let address = Address::v4(u32::from_be(unsafe { (*socket).src_ip4 }));
    refused(work::with(|work| assign(work, socket, address)))
}

#[cgroup_sock(post_bind6)]
pub fn bind6(context: SockContext) -> i32 {
    let socket = context.sock;
    // SAFETY: as above; volatile, because the verifier wants each word read by itself.
    let word = |n: usize| unsafe { (&raw const (*socket).src_ip6[n]).read_volatile() };
    let address = Address::of_socket([word(0), word(1), word(2), word(3)]);
    refused(work::with(|work| {
        let outcome = assign(work, socket, address);
        // an endpoint on :: that serves IPv4 too is asked for as 0.0.0.0 as well
        let both = address.is_v6() && address.is_unspecified() && !socket::bound::is_v6_only(socket);
        if !both || outcome != Outcome::Permitted {
            return outcome;
        }
        if let Some(endpoint) = ENDPOINTS.get(socket) {
            // SAFETY: a valid map value.
            unsafe { bits::set(&raw mut (*endpoint).flags, DUAL) };
        }
        assign(work, socket, Address::v4(0))
    }))
}

/// Gives a socket that is bound its memory, which the connections inherit that it accepts: what has none then is a connect of which
/// nothing was kept ([`FORGOTTEN`](openwfp_abi::config::FORGOTTEN)).
#[cgroup_sock(post_bind4)]
pub fn bound4(context: SockContext) -> i32 {
    bound(context.sock)
}

/// As [`bound4`].
#[cgroup_sock(post_bind6)]
pub fn bound6(context: SockContext) -> i32 {
    bound(context.sock)
}

#[inline(always)]
fn bound(socket: *mut bpf_sock) -> i32 {
    let Some(endpoint) = ENDPOINTS.get_or_insert(socket) else { return 0 };
    // SAFETY: a valid map value; the socket is the context.
    unsafe { (*endpoint).bound = bpf_get_socket_cookie(socket.cast()) };
    1
}

/// Sockets that are neither TCP nor UDP have no hook at bind or connect: their owner is taken when they are made.
#[cgroup_sock(sock_create)]
pub fn create(context: SockContext) -> i32 {
    let socket = context.sock;
    // SAFETY: as above.
    let (protocol, kind) = unsafe { ((*socket).protocol, (*socket).type_) };
    if kind != protocol::SOCK_RAW && (protocol == protocol::SOCKET_TCP || protocol == protocol::SOCKET_UDP) {
        return 1;
    }
    refused(work::with(|work| {
        work.clear();
        work.identify_caller(socket);
        let Some(endpoint) = ENDPOINTS.get_or_insert(socket) else { return work::CLOSED };
        let raw = if kind == protocol::SOCK_RAW { RAW } else { 0 };
        keep(work, endpoint, 0, compartment(socket), PACKET_AUTHORIZED | raw);
        watch_packets();
        Outcome::Permitted
    }))
}

#[inline(always)]
pub fn compartment(socket: *mut bpf_sock) -> u64 {
    // SAFETY: the socket is the context.
    unsafe { bpf_get_netns_cookie(socket.cast()) }
}

/// ALE_RESOURCE_ASSIGNMENT of an explicit bind.
#[inline(always)]
fn assign(work: &mut Work, socket: *mut bpf_sock, address: Address) -> Outcome {
    work.clear();
    work.identify_caller(socket);
    // SAFETY: the context is valid; the verifier checks the members.
    let (port, protocol, kind, device, cookie) = unsafe {
        (
            (*socket).src_port,
            (*socket).protocol,
            (*socket).type_,
            socket::bound::device(socket),
            bpf_get_socket_cookie(socket.cast()),
        )
    };
    let namespace = compartment(socket);
    let Some(endpoint) = ENDPOINTS.get_or_insert(socket) else { return work::CLOSED };
    keep(work, endpoint, 0, namespace, 0);
    // SAFETY: a valid map value.
    unsafe { (*endpoint).bound = cookie };
    let flags = if kind == protocol::SOCK_RAW { IS_RAW_ENDPOINT } else { 0 };
    let local = Local { address, port, protocol, device, flags, spare: 0 };
    assigned(work, endpoint, &local, cookie)
}
