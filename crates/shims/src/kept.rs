//! What packets are told of their socket: what is kept with it.

use crate::{header::Header, maps::ENDPOINTS, protocol};
use aya_ebpf::bindings::bpf_sock;
use openwfp_abi::flow::PACKET_AUTHORIZED;

/// A flag of [`Kept`]: there is nothing.
pub const NOTHING: u64 = 1 << 63;
/// A flag of [`Kept`]: what there is now was found out afterwards, and is to be kept.
pub const RECALLED: u64 = 1 << 62;

/// What is kept with the packet's socket, as far as packets need it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Kept {
    pub(crate) flags: u64,
    /// The flow that a stream socket carries.
    pub flow: u64,
    pub(crate) generation: u32,
    pub(crate) authorization: u32,
    pub(crate) network: u32,
    /// The interface by which its packets went before that go the same way; 0: none has, or nobody asks.
    pub(crate) interface: u32,
    /// The cookie of the network namespace.
    pub compartment: u64,
}

impl Kept {
    /// For a packet whose socket is not at hand.
    #[inline(always)]
    pub fn with_flags(compartment: u64, flags: u64) -> Self {
        Self { flags, ..Self::of_namespace(compartment) }
    }

    /// For what has no socket, but is known to be in this network namespace.
    #[inline(always)]
    pub fn of_namespace(compartment: u64) -> Self {
        // LLVM would make a call to `memset` of zeros that it knows
        let zero = core::hint::black_box(0u64);
        Self {
            flags: zero,
            flow: zero,
            generation: zero as u32,
            authorization: zero as u32,
            network: zero as u32,
            interface: zero as u32,
            compartment,
        }
    }

    /// What is kept with a socket, for a packet that goes this way; [`NOTHING`] where nothing is.
    #[inline(always)]
    pub fn of_socket(socket: Option<*mut bpf_sock>, inbound: bool) -> Self {
        let mut kept = Self::of_namespace(core::hint::black_box(0));
        if let Some(endpoint) = socket.and_then(|socket| ENDPOINTS.get(socket)) {
            // SAFETY: a valid map value.
            unsafe {
                kept.flags = (*endpoint).flags;
                kept.flow = (*endpoint).flow;
                kept.generation = (*endpoint).generation;
                kept.authorization = (*endpoint).authorization;
                kept.network = (*endpoint).network;
                kept.interface = if inbound { (*endpoint).arrival } else { (*endpoint).departure };
                kept.compartment = (*endpoint).compartment;
            }
        } else {
            kept.flags = NOTHING;
        }
        kept
    }
}

/// Whether a packet is one of a TCP connection, not of a raw socket that merely carries TCP.
#[inline(always)]
pub fn is_stream(header: &Header, kept: &Kept) -> bool {
    header.protocol == protocol::TCP && kept.flags & PACKET_AUTHORIZED == 0
}
