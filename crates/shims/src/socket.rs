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

/// What the hooks of bind see is the kernel's own `struct sock`, though its type does not say so: members that their
/// context does not show are read from there.
pub mod bound {
    use super::at;
    use aya_ebpf::{bindings::bpf_sock, helpers::generated::bpf_probe_read_kernel};

    #[inline(always)]
    fn read<T: Copy + Default>(socket: *mut bpf_sock, offset: usize) -> Option<T> {
        let mut value = T::default();
        // SAFETY: the helper writes as many bytes as `T` has, zeros when it cannot read.
        let result = unsafe {
            let member = socket.cast::<u8>().add(offset);
            bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, member.cast())
        };
        if result == 0 { Some(value) } else { None }
    }

    /// The interface that the socket is bound to; 0: none.
    #[inline(always)]
    pub fn device(socket: *mut bpf_sock) -> u32 {
        read(socket, at::SOCK_BOUND_DEVICE()).unwrap_or(0)
    }

    /// Whether an IPv6 socket serves IPv6 alone. A socket of which it cannot be said serves both.
    #[inline(always)]
    pub fn is_v6_only(socket: *mut bpf_sock) -> bool {
        let place = at::SOCK_IPV6ONLY_PLACE() as usize;
        read::<u8>(socket, place / 8).is_some_and(|byte| byte >> (place % 8) & 1 != 0)
    }
}
