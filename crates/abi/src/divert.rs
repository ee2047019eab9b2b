//! Packets on their way to a callout in user space and back: the records of the `DIVERTED` ring buffer, and what user space
//! says in the maps `DIVERT` and `TOKENS`.

use crate::identity::Identity;

/// How many words the engine's suspended state takes.
pub const STATE_WORDS: usize = 23;
/// How many words incoming values have.
pub const VALUES: usize = 64;

/// The pieces in which a packet is copied into its record: small ones for packets up to [`SMALL_PACKET`] bytes, large ones for
/// those that are longer. A record's length is rounded up to whole pieces.
pub const SMALL_PIECE: u32 = 256;
/// See [`SMALL_PIECE`].
pub const LARGE_PIECE: u32 = 4096;
/// See [`SMALL_PIECE`].
pub const SMALL_PACKET: u32 = 2048;
/// The longest packet that is diverted, in bytes with its frame's header: two more than the longest that Linux builds without
/// being asked for more (`gso_max_size`) on both versions of IP.
pub const LONGEST_PACKET: u32 = 1 << 18;

/// A host that has not said so for longer than this is gone, or hangs: its callouts count as not registered.
pub const BEAT_NANOSECONDS: u64 = 1_000_000_000;

/// The packet comes in.
pub const INBOUND: u16 = 1;
/// It begins with the header of its frame; without, with that of IP.
pub const FRAME: u16 = 1 << 1;
/// Nothing is to be blocked.
pub const DRY_RUN: u16 = 1 << 2;
/// Of a token: the frame's header says where it goes, nobody is asked for the next hop.
pub const ADDRESSED: u16 = 1 << 3;

/// The layers that packets meet, in the order in which they do: a token says at which of them its packet goes on.
pub mod stage {
    /// The layer of what a packet of a socket carries, on its way out.
    pub const OUT_DATA: u16 = 0;
    /// OUTBOUND_TRANSPORT at a socket.
    pub const OUT_TRANSPORT: u16 = 1;
    /// OUTBOUND_IPPACKET at a socket.
    pub const OUT_IPPACKET: u16 = 2;
    /// Behind them.
    pub const OUT_DONE: u16 = 3;

    /// INBOUND_IPPACKET at a socket.
    pub const IN_IPPACKET: u16 = 0;
    /// INBOUND_TRANSPORT at a socket.
    pub const IN_TRANSPORT: u16 = 1;
    /// The layer of what the packet carries, on its way in.
    pub const IN_DATA: u16 = 2;

    /// INBOUND_MAC_FRAME_ETHERNET at a device.
    pub const DEVICE_IN_FRAME: u16 = 16;
    /// INBOUND_IPPACKET at a device.
    pub const DEVICE_IN_IPPACKET: u16 = 17;
    /// INBOUND_TRANSPORT at a device.
    pub const DEVICE_IN_TRANSPORT: u16 = 18;
    /// INBOUND_ICMP_ERROR at a device.
    pub const DEVICE_IN_ERROR: u16 = 19;

    /// IPFORWARD.
    pub const DEVICE_OUT_FORWARD: u16 = 16;
    /// OUTBOUND_ICMP_ERROR at a device.
    pub const DEVICE_OUT_ERROR: u16 = 17;
    /// OUTBOUND_TRANSPORT at a device.
    pub const DEVICE_OUT_TRANSPORT: u16 = 18;
    /// OUTBOUND_IPPACKET at a device.
    pub const DEVICE_OUT_IPPACKET: u16 = 19;
    /// OUTBOUND_MAC_FRAME_ETHERNET at a device.
    pub const DEVICE_OUT_FRAME: u16 = 20;
}

/// A packet that waits for a callout. Its bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DivertRecord {
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// The flow; 0: none.
    pub flow: u64,
    /// The socket's cookie; 0: none.
    pub socket: u64,
    /// The cookie of the socket's network namespace.
    pub compartment: u64,
    /// What is kept with the socket: the flags of an [`Endpoint`](crate::flow::Endpoint).
    pub kept: u64,
    /// The generation of the image that was walked.
    pub generation: u32,
    /// How many bytes the packet has.
    pub length: u32,
    /// The index of the device.
    pub interface: u32,
    /// The index of the device by which a forwarded packet came; 0: none.
    pub arrival: u32,
    /// The packet's mark and priority (socket(7)).
    pub mark: u32,
    /// See [`mark`](Self::mark).
    pub priority: u32,
    /// The layer's runtime id.
    pub layer: u16,
    /// A number of [`stage`].
    pub stage: u16,
    /// Bits such as [`INBOUND`].
    pub flags: u16,
    /// The type of the Ethernet frame, in host order.
    pub protocol: u16,
    /// Who injected the packet; 0: nobody, it is the machine's.
    pub injector: u32,
    /// The tag of IEEE 802.1Q that the device keeps beside the frame.
    pub vlan: u16,
    /// The tag's type in host order; 0: there is no tag.
    pub vlan_protocol: u16,
    /// The kernel's `skb_shared_info.gso_type`.
    pub gso_type: u32,
    /// How many bytes each of the packets carries that this one stands for; 0: it stands for itself.
    pub gso_size: u16,
    /// The kernel's `sk_buff.ip_summed`.
    pub summed: u8,
    /// The kernel's `sk_buff.pkt_type`.
    pub kind: u8,
    /// Where the checksum begins that is still to be computed, from the packet's first byte on.
    pub sum_start: u16,
    /// Where it goes, from there on.
    pub sum_offset: u16,
    /// Always 0.
    pub zero: u32,
    /// Who owns the socket.
    pub identity: Identity,
    /// The engine's suspended state.
    pub state: [u64; STATE_WORDS],
    /// The incoming values.
    pub values: [u64; VALUES],
}

/// What user space says about itself, in the one entry of the `DIVERT` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Divert {
    /// When it last said that it lives, in nanoseconds of the monotonic clock; 0: nobody is there.
    pub beat: u64,
    /// Not 0: it looks for records by itself, or is being woken. Whoever finds 0 writes 1 and wakes it.
    pub awake: u64,
    /// The cookie of the socket by which it injects; 0: none.
    pub injector: u64,
    /// How many bytes of the ring buffer may be used.
    pub room: u64,
}

/// How many injected packets can be under way. A power of two: the low bits of a token are its place.
pub const TOKENS: u32 = 1 << 14;

/// What is true of a packet that user space injects, in the `TOKENS` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Token {
    /// The mark that the packet must have on our device; 0: it was used.
    pub token: u32,
    /// 1: it has left our device, and has not come to the place where it goes on.
    pub under_way: u32,
    /// Eight bytes that tell the packet, in memory order: see [`Token::sign`]. 0 where it is too short for them.
    pub sign: u64,
    /// The device to which it goes.
    pub interface: u32,
    /// Where it goes on: a number of [`stage`].
    pub stage: u16,
    /// Bits such as [`INBOUND`].
    pub flags: u16,
    /// The mark and priority that it has from here on.
    pub mark: u32,
    /// See [`mark`](Self::mark).
    pub priority: u32,
    /// Who injects it; 0: nobody, it is the machine's.
    pub injector: u32,
    /// The index of the device by which a forwarded packet came; 0: none.
    pub arrival: u32,
    /// The tag of IEEE 802.1Q that it gets, and the tag's type in host order; 0: it gets none.
    pub vlan: u16,
    /// See [`vlan`](Self::vlan).
    pub vlan_protocol: u16,
    /// Always 0.
    pub zero: u32,
    /// The flow; 0: none.
    pub flow: u64,
    /// The socket's cookie; 0: none.
    pub socket: u64,
    /// The cookie of the socket's network namespace.
    pub compartment: u64,
    /// What is kept with the socket.
    pub kept: u64,
    /// Who owns the socket.
    pub identity: Identity,
}

impl Token {
    /// Where the eight bytes stand that tell a packet, from its IP header on: source and destination of IPv4, the low halves of
    /// the destination of IPv6. For frames of other protocols, from behind the frame's header on.
    #[must_use]
    pub const fn sign(protocol: u16) -> u32 {
        if protocol == 0x86dd { 32 } else { 12 }
    }
}
