//! What the context of a hook does not say of its socket.

use crate::offsets as at;
use aya_ebpf::{
    bindings::bpf_sock,
    helpers::generated::{bpf_skc_to_tcp6_sock, bpf_skc_to_udp6_sock},
};

/// Whether an IPv6 socket serves IPv6 alone (`IPV6_V6ONLY`). A socket of which it cannot be said serves both: that is
/// asked for more often, never less.
#[inline(always)]
pub fn is_v6_only(socket: *mut bpf_sock) -> bool {
    // SAFETY: the verifier checks that `socket` is a socket; the helpers give null for sockets of other kinds.
    let tcp = unsafe { bpf_skc_to_tcp6_sock(socket.cast()) };
    if !tcp.is_null() {
        return at::SOCK_IPV6ONLY(tcp.cast());
    }
    // SAFETY: as above.
    let udp = unsafe { bpf_skc_to_udp6_sock(socket.cast()) };
    !udp.is_null() && at::SOCK_IPV6ONLY(udp.cast())
}
