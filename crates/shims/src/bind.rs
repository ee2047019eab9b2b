//! ALE_RESOURCE_ASSIGNMENT: `bind()`, when the port is chosen and before the call returns. The owner of an endpoint is
//! taken here, for whoever connects to it later.

use crate::{
    address::Address,
    connect::keep,
    layers::{IS_LOOPBACK, IS_RAW_ENDPOINT, IS_WILDCARD_BIND, RESOURCE_ASSIGNMENT},
    maps::ENDPOINTS,
    protocol,
    refuse::refused,
    report::{About, report},
    socket,
    work::{self, Outcome, Work, watch_packets},
};
use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_sock,
    programs::SockContext,
};
use openwfp_abi::{
    config::KEEP_IDENTITY,
    flow::{PACKET_AUTHORIZED, RAW},
};
use openwfp_engine::words;

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
        if both && outcome == Outcome::Permitted { assign(work, socket, Address::v4(0)) } else { outcome }
    }))
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
fn compartment(socket: *mut bpf_sock) -> u64 {
    // SAFETY: the socket is the context.
    unsafe { bpf_get_netns_cookie(socket.cast()) }
}

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
    if work.flags & KEEP_IDENTITY != 0 {
        let Some(endpoint) = ENDPOINTS.get_or_insert(socket) else { return work::CLOSED };
        keep(work, endpoint, 0, namespace, 0);
    }
    work.write_identity();
    write_endpoint(work, address, port, device);
    work.values.set(words::IP_PROTOCOL, protocol);
    work.values.set(words::COMPARTMENT_ID, namespace as u32);
    if kind == protocol::SOCK_RAW {
        let flags = work.values.get(words::FLAGS) as u32;
        work.values.set(words::FLAGS, flags | IS_RAW_ENDPOINT);
    }
    let layer = RESOURCE_ASSIGNMENT.of(address.is_v6());
    let outcome = match work.classify(layer) {
        Outcome::Late => work.close_late(layer),
        outcome => outcome,
    };
    report(work, &About { layer, socket: cookie, flow: 0, flags: 0 });
    outcome
}

/// The values of a local endpoint.
#[inline(always)]
pub fn write_endpoint(work: &mut Work, address: Address, port: u32, device: u32) {
    address.write(work, words::IP_LOCAL_ADDRESS);
    work.values.set(words::IP_LOCAL_PORT, port);
    let mut flags = 0;
    if address.is_unspecified() {
        flags |= IS_WILDCARD_BIND;
    } else {
        work.values.set(words::IP_LOCAL_ADDRESS_TYPE, address.kind());
        if address.is_loopback() {
            flags |= IS_LOOPBACK;
        }
    }
    work.values.set(words::FLAGS, flags);
    if device != 0 {
        work.write_interface(device);
    }
}
