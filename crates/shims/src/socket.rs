//! What the context of a hook does not say of its socket.

use crate::{memory, offsets as at};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_tcp_sock, bpf_skc_to_tcp6_sock, bpf_skc_to_udp6_sock},
};
use core::mem::MaybeUninit;

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

/// The interface by which the packets of a TCP connection leave, as its route says; `None`: it has none now.
#[inline(always)]
pub fn route_device(socket: *mut bpf_sock) -> Option<u32> {
    // SAFETY: as above.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
    if tcp.is_null() {
        return None;
    }
    let route = at::pointer(tcp.cast(), at::SOCK_ROUTE())?;
    let device = at::pointer(route, at::ROUTE_DEVICE())?;
    let index: u32 = at::load(device, at::DEVICE_INDEX());
    if index == 0 { None } else { Some(index) }
}

/// The cookie of a TCP socket's network namespace, for hooks in which no helper tells it; 0: it is not known.
#[inline(always)]
pub fn namespace(socket: *mut bpf_sock) -> u64 {
    // SAFETY: as above.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket.cast()) };
    if tcp.is_null() {
        return 0;
    }
    match at::pointer(tcp.cast(), at::SOCK_NAMESPACE()) {
        Some(namespace) => at::load(namespace, at::NAMESPACE_COOKIE()),
        None => 0,
    }
}

/// The cookie of the network namespace of a packet's socket; 0: it is not known. The verifier lets nobody reckon with the address of
/// such a socket, but read from there. Verified once.
///
/// # Safety
/// `packet` is the context of a program of packets.
#[unsafe(no_mangle)]
#[inline(never)]
pub unsafe extern "C" fn packet_namespace(packet: *mut __sk_buff) -> u64 {
    const WORDS: usize = 8;
    let place = at::SOCK_NAMESPACE() / 8;
    // SAFETY: the context is valid; the verifier checks the member.
    let socket = unsafe { (*packet).__bindgen_anon_2.sk };
    if socket.is_null() || place == 0 || place >= WORDS {
        return 0;
    }
    let mut words = MaybeUninit::<[u64; WORDS]>::uninit();
    // SAFETY: the helper writes as many bytes as it is told, and the verifier checks where the word is read.
    let namespace = unsafe {
        if bpf_probe_read_kernel(words.as_mut_ptr().cast(), size_of::<[u64; WORDS]>() as u32, socket.cast()) != 0 {
            return 0;
        }
        words.as_ptr().cast::<u64>().add(place).read_volatile()
    };
    memory::Structure(namespace).read(at::NAMESPACE_COOKIE()).unwrap_or(0)
}

/// What the hooks of bind and release see is the kernel's own `struct sock`, though its type does not say so: members that
/// their context does not show are read from there.
pub mod bound {
    use super::at;
    use crate::address::Address;
    use crate::memory;
    use aya_ebpf::bindings::bpf_sock;

    const AF_INET6: u32 = 10;

    #[inline(always)]
    fn read<T: Copy>(socket: *mut bpf_sock, offset: usize) -> Option<T> {
        memory::read(socket as u64 + offset as u64)
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

    /// An IPv6 address. Word by word, else LLVM would make a call to `memset` of the zeros.
    #[inline(always)]
    fn words(socket: *mut bpf_sock, offset: usize) -> [u32; 4] {
        let word = |n: usize| read(socket, offset + n * 4).unwrap_or(0);
        [word(0), word(1), word(2), word(3)]
    }

    /// The local address.
    #[inline(always)]
    pub fn local(socket: *mut bpf_sock, family: u32) -> Address {
        if family == AF_INET6 {
            Address::of_socket(words(socket, at::SOCK_LOCAL_V6()))
        } else {
            Address::v4(u32::from_be(read(socket, at::SOCK_LOCAL_V4()).unwrap_or(0)))
        }
    }

    /// The address that it is connected to.
    #[inline(always)]
    pub fn remote(socket: *mut bpf_sock, family: u32) -> Address {
        if family == AF_INET6 {
            Address::of_socket(words(socket, at::SOCK_REMOTE_V6()))
        } else {
            Address::v4(u32::from_be(read(socket, at::SOCK_REMOTE_V4()).unwrap_or(0)))
        }
    }

    /// The local port, and that which it is connected to; 0: none.
    #[inline(always)]
    pub fn ports(socket: *mut bpf_sock) -> (u32, u32) {
        let local: u16 = read(socket, at::SOCK_LOCAL_PORT()).unwrap_or(0);
        let remote: u16 = read(socket, at::SOCK_REMOTE_PORT()).unwrap_or(0);
        (local as u32, u16::from_be(remote) as u32)
    }
}
