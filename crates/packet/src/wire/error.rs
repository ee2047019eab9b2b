//! What can be wrong with the bytes of a packet.

use thiserror::Error;

/// What is wrong with a packet, and at which byte of it.
///
/// A view counts the offset from its own first byte; [`crate::packet::Packet::parse`] counts it from the first byte of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("byte {offset}: {malformation}")]
pub struct WireError {
    /// The byte at which the offending field, or the missing part, begins.
    pub offset: usize,
    /// What is wrong there.
    pub malformation: Malformation,
}

impl WireError {
    pub(crate) const fn new(offset: usize, malformation: Malformation) -> Self {
        Self { offset, malformation }
    }

    /// The same error, seen from a buffer in which the view begins at `base`.
    #[must_use]
    pub const fn within(self, base: usize) -> Self {
        Self { offset: self.offset.saturating_add(base), malformation: self.malformation }
    }
}

/// A header that a view reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Header {
    /// Ethernet II or IEEE 802.3.
    #[error("Ethernet")]
    Ethernet,
    /// An IEEE 802.1Q or 802.1ad tag.
    #[error("VLAN")]
    Vlan,
    /// Linux cooked capture, version 1.
    #[error("Linux cooked (SLL)")]
    Sll,
    /// Linux cooked capture, version 2.
    #[error("Linux cooked (SLL2)")]
    Sll2,
    /// The address family before packets of a BSD loopback device.
    #[error("BSD loopback")]
    Loopback,
    /// ARP.
    #[error("ARP")]
    Arp,
    /// IPv4.
    #[error("IPv4")]
    Ipv4,
    /// IPv6.
    #[error("IPv6")]
    Ipv6,
    /// An IPv6 extension header.
    #[error("IPv6 extension")]
    Ipv6Extension,
    /// TCP.
    #[error("TCP")]
    Tcp,
    /// UDP.
    #[error("UDP")]
    Udp,
    /// ICMP for IPv4.
    #[error("ICMP")]
    Icmpv4,
    /// ICMP for IPv6.
    #[error("ICMPv6")]
    Icmpv6,
    /// The two ports that SCTP, DCCP and UDP-Lite begin with.
    #[error("port")]
    Ports,
}

/// The ways in which bytes can fail to be what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformation {
    /// The bytes end inside a header.
    #[error("the {header} header needs {needed} bytes and {available} are there")]
    Truncated {
        /// The header that is cut.
        header: Header,
        /// How many bytes the header has, as far as that is known.
        needed: usize,
        /// How many of them there are.
        available: usize,
    },
    /// A packet that should be IP begins with another version number.
    #[error("{0} is no version of IP")]
    IpVersion(u8),
    /// An IPv4 header says that it has fewer than five 32-bit words.
    #[error("an IPv4 header cannot have {0} words")]
    Ipv4HeaderLength(u8),
    /// The total length of an IPv4 packet is less than that of its header.
    #[error("the IPv4 total length {total} is less than the header's {header}")]
    Ipv4TotalLength {
        /// The total length that the packet states.
        total: u16,
        /// The length of its header, in bytes.
        header: u16,
    },
    /// An IPv4 option is shorter than its own two bytes or longer than the room for options.
    #[error("an IPv4 option cannot have {length} bytes where {room} are left")]
    Ipv4OptionLength {
        /// The length that the option states.
        length: u8,
        /// The bytes from the option's first to the end of the options.
        room: u8,
    },
    /// A fragment lies wholly or partly beyond the longest datagram there can be.
    #[error("a fragment of {length} bytes at {at} ends beyond 65535")]
    FragmentBeyondEnd {
        /// Where the fragment begins in the datagram, in bytes.
        at: u32,
        /// How long it is.
        length: u32,
    },
    /// A fragment that is not the last does not end at a multiple of eight bytes.
    #[error("a fragment of {0} bytes is not the last and no multiple of eight")]
    FragmentLength(u32),
    /// A datagram that was put together from IPv6 fragments is itself a fragment.
    #[error("a fragment inside a fragmented datagram")]
    NestedFragment,
    /// More IPv6 extension headers than any sender has a reason for.
    #[error("more than {0} IPv6 extension headers")]
    Ipv6ExtensionCount(usize),
    /// A TCP header says that it has fewer than five 32-bit words.
    #[error("a TCP header cannot have {0} words")]
    TcpDataOffset(u8),
    /// The length in a UDP header is less than that header.
    #[error("the UDP length {0} is less than the header's 8")]
    UdpLength(u16),
    /// More VLAN tags than any network has a reason for.
    #[error("more than {0} VLAN tags")]
    VlanDepth(usize),
    /// The address family before a packet of a BSD loopback device is none that is known.
    #[error("address family {0} is neither IPv4 nor IPv6")]
    LoopbackFamily(u32),
}

/// The first `N` bytes, or the error that says how many are missing.
#[inline]
pub(crate) fn header<const N: usize>(bytes: &[u8], header: Header) -> Result<&[u8; N], WireError> {
    bytes
        .first_chunk::<N>()
        .ok_or(WireError::new(bytes.len(), Malformation::Truncated { header, needed: N, available: bytes.len() }))
}
