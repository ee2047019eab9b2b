//! Flows: which packets belong together, and who opened what they belong to.
//!
//! A flow is what the platform authorizes once: the traffic between one local endpoint and one remote endpoint (MS docs:
//! ALE Stateful Filtering). It has the direction of its first packet. No clock is read here: the time of each packet
//! comes in as an argument.
//!
//! Two texts of the platform are followed in their stricter form, because no packet shows the socket that it belongs to:
//! - Sending to a group opens a flow to that group alone. It does not, as on Windows for four seconds, admit answers
//!   from any address without asking: each answering endpoint is authorized by itself.
//! - What arrives for a group is not one flow for the whole machine: each sender is authorized by itself.

mod table;
mod tcp;

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::num::NonZeroU64;
use core::time::Duration;

pub use table::{Flow, FlowSettings, FlowTable, NewFlow, Slot};
pub use tcp::{Sender, TcpChange, TcpState};
pub(crate) use tcp::{is_syn, is_syn_ack};

use crate::time::Timestamp;
use crate::wire::{icmpv4_type, icmpv6_type, protocol};

/// The number of a flow, from 1, in the order of opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(NonZeroU64);

impl FlowId {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A direction as seen from the local machine, numbered as in the field `DIRECTION` (`FWP_DIRECTION_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the local machine.
    Outbound = 0,
    /// To the local machine.
    Inbound = 1,
}

impl Direction {
    /// The other direction.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Outbound => Self::Inbound,
            Self::Inbound => Self::Outbound,
        }
    }
}

/// What tells one flow from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowTuple {
    /// The local address.
    pub local: IpAddr,
    /// The remote address.
    pub remote: IpAddr,
    /// The protocol.
    pub protocol: u8,
    /// What the protocol tells its flows apart by.
    pub selector: Selector,
}

/// What a protocol tells its flows apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Ports.
    Ports {
        /// The local port.
        local: u16,
        /// The remote port.
        remote: u16,
    },
    /// An ICMP message: type and code, and the identifier of echoes. A reply has the type of its request here.
    Icmp {
        /// The type.
        message_type: u8,
        /// The code.
        code: u8,
        /// The identifier of an echo.
        identifier: Option<u16>,
        /// Which way the request goes, of requests and replies: each side numbers its own, and asks for itself.
        request: Option<Direction>,
    },
    /// Nothing: all traffic of the protocol between the two addresses is one flow.
    None,
}

impl Selector {
    /// The selector of an ICMP message that goes in a direction, the same for a request and its reply.
    #[must_use]
    pub const fn icmp(protocol: u8, message_type: u8, code: u8, identifier: Option<u16>, direction: Direction) -> Self {
        let (message_type, request) = match request_of(protocol, message_type) {
            Some(request) => (request, Some(direction.opposite())),
            None if is_request(protocol, message_type) => (message_type, Some(direction)),
            None => (message_type, None),
        };
        Self::Icmp { message_type, code, identifier, request }
    }
}

/// The type of the ICMP message that a message answers; `None` when it is no answer.
#[must_use]
pub(crate) const fn request_of(protocol: u8, message_type: u8) -> Option<u8> {
    Some(match (protocol, message_type) {
        (protocol::ICMP, icmpv4_type::ECHO_REPLY) => icmpv4_type::ECHO,
        (protocol::ICMP, icmpv4_type::TIMESTAMP_REPLY) => icmpv4_type::TIMESTAMP,
        (protocol::ICMP, icmpv4_type::INFORMATION_REPLY) => icmpv4_type::INFORMATION_REQUEST,
        (protocol::ICMP, icmpv4_type::ADDRESS_MASK_REPLY) => icmpv4_type::ADDRESS_MASK_REQUEST,
        (protocol::ICMPV6, icmpv6_type::ECHO_REPLY) => icmpv6_type::ECHO_REQUEST,
        _ => return None,
    })
}

/// Whether an ICMP message is one that another answers.
const fn is_request(protocol: u8, message_type: u8) -> bool {
    match protocol {
        protocol::ICMP => matches!(
            message_type,
            icmpv4_type::ECHO
                | icmpv4_type::TIMESTAMP
                | icmpv4_type::INFORMATION_REQUEST
                | icmpv4_type::ADDRESS_MASK_REQUEST
        ),
        protocol::ICMPV6 => message_type == icmpv6_type::ECHO_REQUEST,
        _ => false,
    }
}

/// A [`FlowTuple`] in five words, which is what the table stores and hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey([u64; 5]);

const KIND_PORTS: u64 = 1;
const KIND_ICMP: u64 = 2;
const KIND_ECHO: u64 = 3;
const REQUEST_GOES: u64 = 1 << 4;
const REQUEST_COMES: u64 = 1 << 5;
const IS_V4: u64 = 1 << 7;

impl FlowKey {
    fn words(&self) -> &[u64; 5] {
        &self.0
    }
}

impl From<&FlowTuple> for FlowKey {
    #[inline]
    fn from(tuple: &FlowTuple) -> Self {
        let (local, v4) = number(tuple.local);
        let (remote, _) = number(tuple.remote);
        let (kind, first, second) = match tuple.selector {
            Selector::Ports { local, remote } => (KIND_PORTS, local, remote),
            Selector::Icmp { message_type, code, identifier, request } => {
                let kind = if identifier.is_some() { KIND_ECHO } else { KIND_ICMP };
                let request = match request {
                    Some(Direction::Outbound) => REQUEST_GOES,
                    Some(Direction::Inbound) => REQUEST_COMES,
                    None => 0,
                };
                (kind | request, u16::from_be_bytes([message_type, code]), identifier.unwrap_or(0))
            }
            Selector::None => (0, 0, 0),
        };
        let version = if v4 { IS_V4 } else { 0 };
        let rest = kind | version | u64::from(tuple.protocol) << 8 | u64::from(first) << 16 | u64::from(second) << 32;
        Self([(local >> 64) as u64, local as u64, (remote >> 64) as u64, remote as u64, rest])
    }
}

impl From<&FlowKey> for FlowTuple {
    fn from(key: &FlowKey) -> Self {
        let [local_high, local_low, remote_high, remote_low, rest] = key.0;
        let address = |high: u64, low: u64| match rest & IS_V4 {
            0 => IpAddr::V6(Ipv6Addr::from(u128::from(high) << 64 | u128::from(low))),
            _ => IpAddr::V4((low as u32).into()),
        };
        let (first, second) = ((rest >> 16) as u16, (rest >> 32) as u16);
        let [message_type, code] = first.to_be_bytes();
        let request = match rest & (REQUEST_GOES | REQUEST_COMES) {
            REQUEST_GOES => Some(Direction::Outbound),
            REQUEST_COMES => Some(Direction::Inbound),
            _ => None,
        };
        let selector = match rest & 3 {
            KIND_PORTS => Selector::Ports { local: first, remote: second },
            KIND_ICMP => Selector::Icmp { message_type, code, identifier: None, request },
            KIND_ECHO => Selector::Icmp { message_type, code, identifier: Some(second), request },
            _ => Selector::None,
        };
        Self {
            local: address(local_high, local_low),
            remote: address(remote_high, remote_low),
            protocol: (rest >> 8) as u8,
            selector,
        }
    }
}

#[inline]
fn number(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), true),
        IpAddr::V6(address) => (u128::from(address), false),
    }
}

/// How long a flow lives without packets. Each kind has its place in the order of eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Lifetime {
    /// A TCP connection that has ended. Late segments still belong to it.
    Ended,
    /// A TCP connection that is being opened. It is given up before any other flow, so a flood of SYNs takes nothing from
    /// connections that stand.
    Opening,
    /// Traffic to a group: four seconds (MS docs: ALE Multicast/Broadcast Traffic).
    Group,
    /// Everything but TCP: sixty seconds (MS docs: ALE Stateful Filtering).
    Idle,
    /// A TCP connection that stands: as long as its socket, which no packet shows.
    Connection,
}

impl Lifetime {
    const COUNT: usize = 5;
    const ALL: [Self; Self::COUNT] = [Self::Ended, Self::Opening, Self::Group, Self::Idle, Self::Connection];

    /// After how much time without packets the flow is deleted.
    #[must_use]
    pub const fn idle_time(self) -> Option<Duration> {
        match self {
            Self::Ended | Self::Idle => Some(Duration::from_secs(60)),
            // Twice what a stack goes on sending SYNs for.
            Self::Opening => Some(Duration::from_secs(240)),
            Self::Group => Some(Duration::from_secs(4)),
            Self::Connection => None,
        }
    }
}

/// Why a flow was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeleteReason {
    /// Both sides had ended the connection.
    Closed,
    /// One side reset the connection.
    Reset,
    /// No packet came for the time that the platform waits.
    Idle,
    /// A new connection between the same endpoints took its place.
    Replaced,
    /// The classifier has ended it.
    Dropped,
    /// The table was full. A further packet of the flow is classified again.
    Evicted,
    /// The capture ended before the flow did.
    EndOfCapture,
}

impl DeleteReason {
    /// The name that events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Idle => "idle",
            Self::Replaced => "replaced",
            Self::Dropped => "dropped",
            Self::Evicted => "evicted",
            Self::EndOfCapture => "end-of-capture",
        }
    }
}

/// Where a flow was refused. What follows of it is not classified again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// At ALE_AUTH_CONNECT or ALE_AUTH_RECV_ACCEPT.
    Authorization,
    /// At ALE_FLOW_ESTABLISHED.
    Establishment,
    /// Later, by the classifier: at STREAM or DATAGRAM_DATA for the most part.
    Dropped,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowChange {
    /// It was established.
    Established,
    /// It was deleted, after it had been established.
    Deleted(DeleteReason),
}

/// An event in the life of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// The flow.
    pub flow: FlowId,
    /// Its endpoints.
    pub tuple: FlowTuple,
    /// Who opened it: [`Direction::Outbound`] when the local side did.
    pub opened: Direction,
    /// What became of it.
    pub change: FlowChange,
    /// When.
    pub time: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_all_that_a_tuple_says() {
        let selectors = [
            Selector::Ports { local: 40072, remote: 80 },
            Selector::icmp(protocol::ICMP, 8, 0, Some(1234), Direction::Outbound),
            Selector::icmp(protocol::ICMP, 8, 0, Some(1234), Direction::Inbound),
            Selector::icmp(protocol::ICMP, 13, 0, None, Direction::Outbound),
            Selector::icmp(protocol::ICMP, 9, 0, None, Direction::Inbound),
            Selector::icmp(protocol::ICMPV6, 128, 0, Some(0), Direction::Inbound),
            Selector::None,
        ];
        let addresses = [("192.0.2.7", "198.51.100.1"), ("2001:db8::7", "fe80::1"), ("::1", "::1")];
        let mut keys = Vec::new();
        for selector in selectors {
            for (local, remote) in addresses {
                let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
                let tuple = FlowTuple { local, remote, protocol: 6, selector };
                let key = FlowKey::from(&tuple);
                assert_eq!(FlowTuple::from(&key), tuple);
                assert!(!keys.contains(&key));
                keys.push(key);
            }
        }
    }

    #[test]
    fn a_reply_belongs_to_the_flow_of_its_request() {
        let cases =
            [(protocol::ICMP, 8, 0), (protocol::ICMP, 13, 14), (protocol::ICMP, 17, 18), (protocol::ICMPV6, 128, 129)];
        for (protocol, request, reply) in cases {
            for direction in [Direction::Outbound, Direction::Inbound] {
                let of = |message_type, direction| Selector::icmp(protocol, message_type, 0, Some(7), direction);
                let asked = of(request, direction);
                assert_eq!(asked, of(reply, direction.opposite()), "{protocol} {request} {reply}");
                assert_ne!(asked, of(request, direction.opposite()), "the other side asks for itself");
            }
        }
        let of = |message_type, direction| Selector::icmp(protocol::ICMPV6, message_type, 0, None, direction);
        assert_ne!(of(0, Direction::Outbound), of(8, Direction::Outbound));
        // what nobody answers
        assert_eq!(of(134, Direction::Outbound), of(134, Direction::Inbound));
    }
}
