//! ALE_RESOURCE_RELEASE and ALE_ENDPOINT_CLOSURE: a socket is closed, in the task that closes it last.
//!
//! The connection of a TCP socket ends later, or has ended before ([`crate::stream`]); everything else ends here.

use crate::{
    address::Address,
    bind::compartment,
    layers::{ENDPOINT_CLOSURE, RESOURCE_RELEASE},
    maps::ENDPOINTS,
    protocol,
    report::{About, report_end},
    resource::write_endpoint,
    socket,
    work::{self, Outcome, Work},
};
use aya_ebpf::{
    bindings::bpf_sock, helpers::generated::bpf_get_socket_cookie, macros::cgroup_sock, programs::SockContext,
};
use openwfp_abi::{
    config::FLOWS_RECORDED,
    event::kind,
    flow::{ASSIGNED, DUAL, ENDED, ESTABLISHED},
    identity::Identity,
};
use openwfp_engine::words;

#[cgroup_sock(sock_release)]
pub fn release(context: SockContext) -> i32 {
    let socket = context.sock;
    // nobody is asked whether a socket may be closed
    if let Some(endpoint) = ENDPOINTS.get(socket) {
        // SAFETY: a valid map value.
        let flags = unsafe { (*endpoint).flags };
        // SAFETY: as above.
        released(socket, flags, unsafe { &raw const (*endpoint).owner });
    }
    1
}

#[inline(always)]
fn released(socket: *mut bpf_sock, flags: u64, owner: *const Identity) {
    // SAFETY: the context is valid; the verifier checks the members.
    let (family, protocol) = unsafe { ((*socket).family, (*socket).protocol) };
    let local = socket::bound::local(socket, family);
    // SAFETY: as above.
    let cookie = unsafe { bpf_get_socket_cookie(socket.cast()) };
    work::with(|work| {
        work.identify(owner);
        write(work, socket, local, protocol);
        let both = flags & DUAL != 0;
        let v6 = local.is_v6();
        if flags & ASSIGNED != 0 {
            let about = |v6| About { layer: RESOURCE_RELEASE.of(v6), socket: cookie, flow: 0, flags: 0 };
            work.decide(&about(v6));
            if both {
                Address::v4(0).write(work, words::IP_LOCAL_ADDRESS);
                work.decide(&about(false));
                local.write(work, words::IP_LOCAL_ADDRESS);
            }
        }
        let connection = protocol == protocol::SOCKET_TCP && flags & (ESTABLISHED | ENDED) != 0;
        if !connection {
            let about = |v6| About { layer: ENDPOINT_CLOSURE.of(v6), socket: cookie, flow: 0, flags: 0 };
            work.decide(&about(v6));
            // one that was connected has a local address, and a remote one of its version alone
            if both && v6 && local.is_unspecified() {
                Address::v4(0).write(work, words::IP_LOCAL_ADDRESS);
                work.decide(&about(false));
                local.write(work, words::IP_LOCAL_ADDRESS);
            }
        }
        if work.flags & FLOWS_RECORDED != 0 && protocol != protocol::SOCKET_TCP {
            // SAFETY: memory that is claimed.
            unsafe { report_end(work, kind::SOCKET_CLOSED as u32, cookie, 0) };
        }
        Outcome::Permitted
    });
}

/// The values of a socket that is closed, with its owner's identity in `work`.
#[inline(always)]
fn write(work: &mut Work, socket: *mut bpf_sock, local: Address, protocol: u32) {
    let namespace = compartment(socket);
    work.clear();
    work.write_identity();
    let (port, remote_port) = socket::bound::ports(socket);
    write_endpoint(work, local, port, 0, namespace);
    work.values.set(words::IP_PROTOCOL, protocol);
    if remote_port != 0 {
        // SAFETY: the context is valid; the verifier checks the member.
        let remote = socket::bound::remote(socket, unsafe { (*socket).family });
        remote.write(work, words::IP_REMOTE_ADDRESS);
        work.values.set(words::IP_REMOTE_PORT, remote_port);
    }
}
