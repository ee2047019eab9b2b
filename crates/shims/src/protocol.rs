//! Numbers of protocols and kinds of sockets.

/// `IPPROTO_ICMP`.
pub const ICMP: u8 = 1;
/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;
/// `IPPROTO_DCCP`.
pub const DCCP: u8 = 33;
/// `IPPROTO_ICMPV6`.
pub const ICMPV6: u8 = 58;
/// `IPPROTO_SCTP`.
pub const SCTP: u8 = 132;
/// `IPPROTO_UDPLITE`.
pub const UDPLITE: u8 = 136;

/// `IPPROTO_TCP`, as wide as a socket's protocol, which can be more than a packet's.
pub const SOCKET_TCP: u32 = TCP as u32;
/// `IPPROTO_UDP`, likewise.
pub const SOCKET_UDP: u32 = UDP as u32;
/// `SOCK_RAW`.
pub const SOCK_RAW: u32 = 3;
