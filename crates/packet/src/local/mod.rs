//! Which side of a capture is the local machine.
//!
//! Layers speak of local and remote; a capture speaks of sources and destinations. Who replays one either says which
//! addresses are local, or lets [`Inference`] read the capture once before.

mod infer;
mod prefix;

use core::fmt;
use core::net::IpAddr;

pub use infer::{Inference, Inferred, LocalAddress, Reason};
pub use prefix::{Prefix, PrefixError};

use crate::link::LinkDirection;
use crate::packet::{AddressType, Packet};

/// Where a packet stands to the local machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The local machine sent it.
    Outbound,
    /// The local machine received it.
    Inbound,
    /// The local machine sent it to itself.
    Loopback,
    /// The local machine had no part in it.
    Elsewhere,
}

/// Which side is local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalSide {
    /// The addresses under these prefixes are local, whatever the capture says.
    Given(Vec<Prefix>),
    /// What the capture showed.
    Inferred(Inferred),
}

impl LocalSide {
    /// Where a packet stands. `noted` is the direction that the capture notes beside the packet, if any.
    ///
    /// What was given decides by addresses alone. Otherwise a capture that says outright which way a packet went is
    /// believed, and addresses decide where it does not.
    #[inline]
    #[must_use]
    pub fn side(&self, packet: &Packet<'_>, noted: Option<LinkDirection>) -> Side {
        if packet.source.is_loopback() && packet.destination.is_loopback() {
            return Side::Loopback;
        }
        let stated = match self {
            Self::Given(_) => None,
            Self::Inferred(_) => packet.link.direction.or(noted),
        };
        match stated {
            Some(LinkDirection::Loopback) => Side::Loopback,
            Some(LinkDirection::Elsewhere) => Side::Elsewhere,
            Some(LinkDirection::Outgoing) => Side::Outbound,
            Some(LinkDirection::Incoming) => Side::Inbound,
            None => self.side_by_addresses(packet),
        }
    }

    fn side_by_addresses(&self, packet: &Packet<'_>) -> Side {
        match (self.is_local(packet.source), self.is_local(packet.destination)) {
            (true, true) => Side::Loopback,
            (true, false) => Side::Outbound,
            (false, true) => Side::Inbound,
            (false, false) if AddressType::of(packet.destination, packet.link.broadcast).is_group() => Side::Inbound,
            (false, false) => Side::Elsewhere,
        }
    }

    /// Whether an address is the local machine's.
    #[inline]
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        let known = match self {
            Self::Given(prefixes) => prefixes.iter().any(|prefix| prefix.contains(address)),
            Self::Inferred(inferred) => inferred.contains(address),
        };
        known || address.is_loopback()
    }
}

impl fmt::Display for LocalSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(prefixes) => {
                f.write_str("local: ")?;
                for (number, prefix) in prefixes.iter().enumerate() {
                    write!(f, "{}{prefix}", if number == 0 { "" } else { ", " })?;
                }
                f.write_str(" (as given)")
            }
            Self::Inferred(inferred) => inferred.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkInfo;
    use crate::packet::Transport;
    use openwfp_model::IpVersion;

    fn packet(source: &str, destination: &str) -> Packet<'static> {
        Packet {
            header_version: IpVersion::V4,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 17,
            fragment: None,
            transport: Ok(Transport::Ports { source: 1, destination: 2 }),
            payload: &[],
            payload_length: 0,
            link: LinkInfo::default(),
            bytes: &[],
            begins_at: 0,
        }
    }

    #[test]
    fn given_prefixes_decide_alone() {
        let local = LocalSide::Given(vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::1".parse().unwrap()]);
        let cases = [
            ("192.0.2.1", "203.0.113.1", Side::Outbound),
            ("203.0.113.1", "192.0.2.1", Side::Inbound),
            ("192.0.2.1", "192.0.2.2", Side::Loopback),
            ("203.0.113.1", "203.0.113.2", Side::Elsewhere),
            ("127.0.0.1", "127.0.0.53", Side::Loopback),
            ("::1", "::1", Side::Loopback),
            ("203.0.113.1", "224.0.0.251", Side::Inbound),
            ("192.0.2.1", "255.255.255.255", Side::Outbound),
            ("2001:db8::1", "ff02::fb", Side::Outbound),
            ("2001:db8::2", "ff02::fb", Side::Inbound),
        ];
        for (source, destination, expected) in cases {
            assert_eq!(local.side(&packet(source, destination), None), expected, "{source} to {destination}");
            let stated = Some(LinkDirection::Elsewhere);
            assert_eq!(local.side(&packet(source, destination), stated), expected, "{source} to {destination}");
        }
        assert_eq!(local.to_string(), "local: 192.0.2.0/24, 2001:db8::1/128 (as given)");
    }

    #[test]
    fn what_a_capture_says_outright_is_believed_when_nothing_was_given() {
        let local = LocalSide::Inferred(Inference::new().conclude());
        for (stated, expected) in [
            (LinkDirection::Outgoing, Side::Outbound),
            (LinkDirection::Incoming, Side::Inbound),
            (LinkDirection::Elsewhere, Side::Elsewhere),
            (LinkDirection::Loopback, Side::Loopback),
        ] {
            let by_link = Packet {
                link: LinkInfo { direction: Some(stated), ..LinkInfo::default() },
                ..packet("203.0.113.1", "203.0.113.2")
            };
            assert_eq!(local.side(&by_link, None), expected);
            assert_eq!(local.side(&packet("203.0.113.1", "203.0.113.2"), Some(stated)), expected);
        }
    }
}
