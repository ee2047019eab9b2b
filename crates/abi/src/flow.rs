//! Flows and endpoints, as far as the programs keep them.

use crate::identity::Identity;

/// How many authorizations of datagram flows are remembered. The one that was used longest ago makes room; its next
/// packet is classified again.
pub const FLOWS_ENTRIES: u32 = 16384;

/// A flow of datagrams that was not used for so long has ended, unless the loader says otherwise: 60 seconds.
pub const IDLE_NANOSECONDS: u64 = 60_000_000_000;

/// Names an authorization: a socket and the remote endpoint; and the local one, where filters look at it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The socket's cookie.
    pub socket: u64,
    /// The remote address, as the words of incoming values; IPv4 in the first, the others 0.
    pub address: [u32; 4],
    /// The local address, likewise; all 0 where no filter looks at it ([`BY_LOCAL`](crate::config::BY_LOCAL)).
    pub local: [u32; 4],
    /// The interface; 0 where no filter looks at it ([`BY_INTERFACE`](crate::config::BY_INTERFACE)).
    pub interface: u32,
    /// The remote port; type (high byte) and code of an ICMP message, of the request where it is an echo reply from
    /// outside; 0 for other protocols.
    pub port: u16,
    /// The local port; 0 as the local address.
    pub local_port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// 4 or 6.
    pub version: u8,
    /// Bits such as [`INBOUND_ALONE`].
    pub kind: u16,
    /// Always 0.
    pub zero: u32,
}

/// An ICMP message from outside that answers none of the socket's own: it opens no way out.
pub const INBOUND_ALONE: u16 = 1;
/// The next hop of packets that are sent to somewhere else by way of it.
pub const BY_WAY: u16 = 2;

/// An authorization.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The flow's id.
    pub id: u64,
    /// The generation of the image that authorized it.
    pub generation: u32,
    /// Which layer authorized it: its place among [`AUTHORIZATIONS`](crate::config::AUTHORIZATIONS).
    pub authorization: u32,
    /// When it was used last, in nanoseconds of the monotonic clock. What is dropped of a refused flow is no use.
    pub used: u64,
    /// Under which [`Config::network`](crate::config::Config::network) it was authorized.
    pub network: u32,
    /// 1: it was asked again and refused, and has ended. Until it was idle, or may be asked again, its packets are dropped
    /// both ways.
    pub refused: u32,
}

/// The socket's owner is known.
pub const OWNED: u64 = 1;
/// Its listen was refused: every SYN is dropped.
pub const LISTEN_REFUSED: u64 = 1 << 1;
/// Its flow was refused when it was established: every packet is dropped.
pub const FLOW_REFUSED: u64 = 1 << 2;
/// A connect was left to the first packet. For datagrams this stays: each packet of the socket that belongs to no
/// authorized flow is asked.
pub const CONNECT_LATE: u64 = 1 << 3;
/// It is neither TCP nor UDP: its first packets meet the authorization layers.
pub const PACKET_AUTHORIZED: u64 = 1 << 4;
/// It is a raw socket.
pub const RAW: u64 = 1 << 5;
/// Its listen was permitted. Without it a listening socket may have been given no memory to be refused in.
pub const LISTEN_DECIDED: u64 = 1 << 6;

/// Its local endpoint was assigned: ALE_RESOURCE_ASSIGNMENT has permitted it.
pub const ASSIGNED: u64 = 1 << 7;
/// A local endpoint of a kind that has no `bind()`, or one of IPv6 too: what is released is of both versions.
pub const DUAL: u64 = 1 << 8;
/// It is TCP, and its flow was established: the end is reported.
pub const ESTABLISHED: u64 = 1 << 9;
/// It is TCP, and its connection has ended: the endpoint's closure was told then, and is not told again when the socket is closed.
pub const ENDED: u64 = 1 << 10;

/// What is kept with a socket. An accepted socket inherits it from the listening one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Bits such as [`OWNED`].
    pub flags: u64,
    /// The flow that a stream socket carries.
    pub flow: u64,
    /// The generation of the image that authorized it; 0: it has to be authorized again.
    pub generation: u32,
    /// Which layer authorized it, as in [`Flow`].
    pub authorization: u32,
    /// Under which [`Config::network`](crate::config::Config::network) it was authorized.
    pub network: u32,
    /// The interface by which the packets of a connection arrive that was authorized; 0: none has arrived yet, or no filter
    /// looks at it ([`BY_INTERFACE`](crate::config::BY_INTERFACE)).
    pub arrival: u32,
    /// The interface by which they leave, likewise.
    pub departure: u32,
    /// Always 0.
    pub zero: u32,
    /// The network namespace's cookie.
    pub compartment: u64,
    /// The cookie of the socket that was bound. A connection that a listening socket accepts inherits all of this, and has another
    /// cookie. 0: what this is about was never bound.
    pub bound: u64,
    /// Who owns the endpoint: taken when it was bound, connected or told to listen.
    pub owner: Identity,
}

/// A network interface, in the `INTERFACES` map under its index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The IANA ifType.
    pub kind: u32,
    /// The IANA tunnel type; 0: no tunnel.
    pub tunnel: u32,
    /// The LUID that stands for it: the type in the top 16 bits, the index in the next 24.
    pub luid: u64,
    /// The MAC address, as a number of 48 bits; 0: it has none.
    pub address: u64,
}

impl Interface {
    /// An interface of this type and index.
    #[must_use]
    pub const fn new(index: u32, kind: u32, tunnel: u32, address: u64) -> Self {
        Self { address, kind, tunnel, luid: (kind as u64) << 48 | (index as u64 & 0xff_ffff) << 24 }
    }
}
