//! Finding out from a capture which addresses are local.
//!
//! In the order in which it is believed:
//! 1. What the capture says outright: the packet type of cooked captures, the direction flag of pcapng. The sources of
//!    outgoing packets and the destinations of incoming ones are local.
//! 2. What goes from an address to itself is local, and so are 127.0.0.0/8 and ::1.
//! 3. The one address that takes part in every conversation, where there are several: a capture is mostly taken on one
//!    of the machines that it shows.
//! 4. Who opens connections: senders of SYNs, of UDP to well-known ports, of echo requests; in the order of how often, and
//!    never both ends of a conversation.
//! 5. Who takes part in most conversations, when nobody was seen to open any.

use core::fmt;
use core::net::IpAddr;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use crate::capture::CaptureReader;
use crate::flow::{is_syn, is_syn_ack};
use crate::link::LinkDirection;
use crate::packet::{AddressType, Frame, Packet, Transport};
use crate::wire::{icmpv4_type, icmpv6_type, protocol};

/// How many conversations are remembered. What comes after them changes nothing any more.
const MAX_CONVERSATIONS: usize = 65_536;

/// How many addresses are remembered: as many as so many conversations can have.
const MAX_ADDRESSES: usize = 2 * MAX_CONVERSATIONS;

/// The first port that no service has by right (RFC 6335: system ports end before it).
const FIRST_USER_PORT: u16 = 1024;

/// Reads a capture for what tells which side is local.
#[derive(Default)]
pub struct Inference {
    addresses: BTreeMap<IpAddr, Evidence>,
    /// Pairs of addresses, the smaller first.
    conversations: BTreeSet<(IpAddr, IpAddr)>,
    packets: u64,
    loopback: u64,
    /// Packets that could not be looked at for want of room.
    overflow: u64,
}

#[derive(Clone, Copy, Default)]
struct Evidence {
    /// Packets that the capture says this address sent as, or received as, the local machine.
    stated: u64,
    /// Packets to itself.
    own: u64,
    /// Signs of opening a connection.
    opened: u64,
    conversations: u64,
    /// The number of the packet in which the address was first seen.
    first: u64,
    /// Whether it was first seen as a source.
    sender: bool,
}

/// Why an address counts as local.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The capture says so of this many packets.
    Stated(u64),
    /// It sent this many packets to itself.
    ToItself(u64),
    /// It alone takes part in all of this many conversations.
    InEveryConversation(u64),
    /// It opened connections, by this many signs.
    Opens(u64),
    /// It takes part in the most conversations: this many of how many.
    InMostConversations(u64, u64),
}

/// An address that counts as local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// Why.
    pub reason: Reason,
}

/// What a capture showed about which side is local. Its `Display` is the statement for the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inferred {
    addresses: Vec<LocalAddress>,
    /// The same addresses, in order.
    sorted: Vec<IpAddr>,
    loopback: u64,
    overflow: u64,
}

impl Inference {
    /// Nothing has been read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a capture to its end, or as far as it goes: who replays it afterwards meets what is wrong with it there.
    pub fn of_capture<R: Read>(capture: &mut CaptureReader<R>) -> Inferred {
        let mut inference = Self::new();
        while let Some(Ok(record)) = capture.next_record() {
            if let Ok(Frame::Ip(packet)) = Packet::parse(record.link_type, record.data) {
                inference.observe(&packet, record.direction);
            }
        }
        inference.conclude()
    }

    /// Reads a packet. `noted` is the direction that the capture notes beside the packet, if any.
    pub fn observe(&mut self, packet: &Packet<'_>, noted: Option<LinkDirection>) {
        self.packets += 1;
        let (source, destination) = (packet.source, packet.destination);
        let to_one = AddressType::of(destination, packet.link.broadcast) == AddressType::Unicast;
        match packet.link.direction.or(noted) {
            Some(LinkDirection::Outgoing) => return self.state(source),
            Some(LinkDirection::Incoming) if to_one => return self.state(destination),
            Some(LinkDirection::Loopback) => {
                self.loopback += 1;
                return;
            }
            Some(_) => return,
            None => {}
        }
        if source.is_loopback() && destination.is_loopback() {
            self.loopback += 1;
        } else if source == destination {
            self.note(source, true, |evidence| evidence.own += 1);
        } else if to_one && !source.is_unspecified() && !is_neighbor_discovery(packet) {
            self.converse(packet);
        }
    }

    fn state(&mut self, address: IpAddr) {
        self.note(address, true, |evidence| evidence.stated += 1);
    }

    fn note(&mut self, address: IpAddr, sender: bool, note: impl FnOnce(&mut Evidence)) {
        let (first, room) = (self.packets, self.addresses.len() < MAX_ADDRESSES);
        match self.addresses.entry(address) {
            Entry::Occupied(entry) => note(entry.into_mut()),
            Entry::Vacant(entry) if room => note(entry.insert(Evidence { first, sender, ..Evidence::default() })),
            Entry::Vacant(_) => self.overflow += 1,
        }
    }

    fn converse(&mut self, packet: &Packet<'_>) {
        let (source, destination) = (packet.source, packet.destination);
        let pair = (source.min(destination), source.max(destination));
        if !self.conversations.contains(&pair) {
            if self.conversations.len() >= MAX_CONVERSATIONS {
                self.overflow += 1;
                return;
            }
            self.conversations.insert(pair);
            self.note(source, true, |evidence| evidence.conversations += 1);
            self.note(destination, false, |evidence| evidence.conversations += 1);
        }
        match opener(packet) {
            Some(Opener::Source) => self.note(source, true, |evidence| evidence.opened += 1),
            Some(Opener::Destination) => self.note(destination, false, |evidence| evidence.opened += 1),
            None => {}
        }
    }

    /// What was found out.
    #[must_use]
    pub fn conclude(self) -> Inferred {
        let mut addresses = Vec::new();
        for (&address, evidence) in &self.addresses {
            match *evidence {
                Evidence { stated: 1.., .. } => addresses.push((address, Reason::Stated(evidence.stated))),
                Evidence { own: 1.., .. } => addresses.push((address, Reason::ToItself(evidence.own))),
                _ => {}
            }
        }
        // The two versions of IP are asked one by one: a machine has addresses of both.
        for is_v4 in [true, false] {
            let known = addresses.iter().any(|(address, _)| address.is_ipv4() == is_v4);
            if !known {
                self.conclude_version(is_v4, &mut addresses);
            }
        }
        let addresses: Vec<_> =
            addresses.into_iter().map(|(address, reason)| LocalAddress { address, reason }).collect();
        let mut sorted: Vec<_> = addresses.iter().map(|local| local.address).collect();
        sorted.sort_unstable();
        Inferred { addresses, sorted, loopback: self.loopback, overflow: self.overflow }
    }

    fn conclude_version(&self, is_v4: bool, found: &mut Vec<(IpAddr, Reason)>) {
        let total = self.conversations.iter().filter(|(one, _)| one.is_ipv4() == is_v4).count() as u64;
        let mut candidates: Vec<_> = self.addresses.iter().filter(|(address, _)| address.is_ipv4() == is_v4).collect();
        let in_all: Vec<_> = candidates.iter().filter(|(_, evidence)| evidence.conversations == total).collect();
        if let ([(address, _)], 2..) = (in_all.as_slice(), total) {
            found.push((**address, Reason::InEveryConversation(total)));
            return;
        }
        candidates.sort_by_key(|(_, evidence)| (core::cmp::Reverse(evidence.opened), evidence.first, !evidence.sender));
        let mut openers: Vec<(IpAddr, Reason)> = Vec::new();
        for &(&address, evidence) in candidates.iter().filter(|(_, evidence)| evidence.opened > 0) {
            let pair = |other: IpAddr| (address.min(other), address.max(other));
            let faces_local = openers.iter().any(|&(other, _)| self.conversations.contains(&pair(other)));
            if !faces_local {
                openers.push((address, Reason::Opens(evidence.opened)));
            }
        }
        if openers.is_empty() {
            let most = candidates.iter().max_by_key(|(_, evidence)| {
                (evidence.conversations, core::cmp::Reverse(evidence.first), evidence.sender)
            });
            openers.extend(
                most.map(|(address, evidence)| (**address, Reason::InMostConversations(evidence.conversations, total))),
            );
        }
        found.append(&mut openers);
    }
}

enum Opener {
    Source,
    Destination,
}

/// Which end of a conversation a packet shows to have opened something.
fn opener(packet: &Packet<'_>) -> Option<Opener> {
    match packet.transport.ok()? {
        Transport::Tcp(segment) if is_syn(segment.flags) => Some(Opener::Source),
        Transport::Tcp(segment) if is_syn_ack(segment.flags) => Some(Opener::Destination),
        Transport::Ports { source, destination } => match (source < FIRST_USER_PORT, destination < FIRST_USER_PORT) {
            (false, true) => Some(Opener::Source),
            (true, false) => Some(Opener::Destination),
            _ => None,
        },
        Transport::Icmp(message) => match (packet.protocol, message.message_type) {
            (protocol::ICMP, icmpv4_type::ECHO) | (protocol::ICMPV6, icmpv6_type::ECHO_REQUEST) => Some(Opener::Source),
            (protocol::ICMP, icmpv4_type::ECHO_REPLY) | (protocol::ICMPV6, icmpv6_type::ECHO_REPLY) => {
                Some(Opener::Destination)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Neighbors ask one another for hardware addresses, whoever opens what.
fn is_neighbor_discovery(packet: &Packet<'_>) -> bool {
    matches!(packet.transport, Ok(Transport::Icmp(message))
        if packet.protocol == protocol::ICMPV6 && (133..=137).contains(&message.message_type))
}

impl Inferred {
    /// The addresses that count as local, besides 127.0.0.0/8 and ::1.
    #[must_use]
    pub fn addresses(&self) -> &[LocalAddress] {
        &self.addresses
    }

    #[inline]
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match self.sorted.as_slice() {
            [] => false,
            [only] => *only == address,
            many => many.binary_search(&address).is_ok(),
        }
    }
}

impl fmt::Display for Inferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        f.write_str("local: ")?;
        let mut parts = 0;
        let mut part = |f: &mut fmt::Formatter<'_>| {
            parts += 1;
            f.write_str(if parts == 1 { "" } else { ", " })
        };
        for local in self.addresses.iter().take(SHOWN) {
            part(f)?;
            write!(f, "{} ({})", local.address, local.reason)?;
        }
        if self.addresses.len() > SHOWN {
            part(f)?;
            write!(f, "and {} more", self.addresses.len() - SHOWN)?;
        }
        if self.loopback > 0 {
            part(f)?;
            write!(f, "both sides of {} on loopback", Count(self.loopback, "packet"))?;
        }
        if self.addresses.is_empty() && self.loopback == 0 {
            f.write_str("no address, because the capture shows no conversation")?;
        }
        if self.overflow > 0 {
            write!(
                f,
                "; {} beyond the first {MAX_CONVERSATIONS} conversations were not looked at",
                Count(self.overflow, "packet")
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Stated(packets) => write!(f, "the capture says so of {}", Count(packets, "packet")),
            Self::ToItself(packets) => write!(f, "sent {} to itself", Count(packets, "packet")),
            Self::InEveryConversation(all) => write!(f, "takes part in all {}", Count(all, "conversation")),
            Self::Opens(signs) => write!(f, "opens connections: {}", Count(signs, "sign")),
            Self::InMostConversations(most, all) => {
                write!(
                    f,
                    "takes part in {most} of {} and was seen first; nobody is seen to open one",
                    Count(all, "conversation")
                )
            }
        }
    }
}

/// A number and what it counts.
struct Count(u64, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, what) = *self;
        write!(f, "{number} {what}{}", if number == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkInfo;
    use crate::packet::TcpHeader;
    use crate::wire::TcpFlags;
    use openwfp_model::IpVersion;

    fn packet(source: &str, destination: &str, transport: Transport) -> Packet<'static> {
        Packet {
            header_version: IpVersion::V4,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 6,
            fragment: None,
            transport: Ok(transport),
            payload: &[],
            payload_length: 0,
            link: LinkInfo::default(),
            bytes: &[],
            begins_at: 0,
        }
    }

    fn tcp(flags: TcpFlags) -> Transport {
        Transport::Tcp(TcpHeader { source: 40000, destination: 80, flags, ..TcpHeader::default() })
    }

    const SYN: TcpFlags = TcpFlags::SYN;
    const SYN_ACK: TcpFlags = TcpFlags::SYN.union(TcpFlags::ACK);
    const ACK: TcpFlags = TcpFlags::ACK;

    fn statement(packets: &[(&str, &str, Transport)]) -> String {
        let mut inference = Inference::new();
        for &(source, destination, transport) in packets {
            inference.observe(&packet(source, destination, transport), None);
        }
        inference.conclude().to_string()
    }

    #[test]
    fn who_opens_connections_is_local() {
        let syn_seen = [("192.0.2.1", "192.0.2.9", tcp(SYN)), ("192.0.2.9", "192.0.2.1", tcp(SYN_ACK))];
        assert_eq!(statement(&syn_seen), "local: 192.0.2.1 (opens connections: 2 signs)");
        let only_answers = [("192.0.2.9", "192.0.2.1", tcp(SYN_ACK))];
        assert_eq!(statement(&only_answers), "local: 192.0.2.1 (opens connections: 1 sign)");
        let dns = [("192.0.2.1", "192.0.2.9", Transport::Ports { source: 40000, destination: 53 })];
        assert_eq!(statement(&dns), "local: 192.0.2.1 (opens connections: 1 sign)");
    }

    #[test]
    fn the_one_end_of_every_conversation_is_local_also_when_it_serves() {
        let clients = [
            ("192.0.2.1", "192.0.2.9", tcp(SYN)),
            ("192.0.2.2", "192.0.2.9", tcp(SYN)),
            ("192.0.2.3", "192.0.2.9", tcp(SYN)),
        ];
        assert_eq!(statement(&clients), "local: 192.0.2.9 (takes part in all 3 conversations)");
    }

    #[test]
    fn never_are_both_ends_of_a_conversation_local() {
        let both = [
            ("192.0.2.1", "192.0.2.9", tcp(SYN)),
            ("192.0.2.1", "192.0.2.9", tcp(SYN)),
            ("192.0.2.9", "192.0.2.1", tcp(SYN)),
            ("192.0.2.2", "192.0.2.8", tcp(SYN)),
        ];
        let expected = "local: 192.0.2.1 (opens connections: 2 signs), 192.0.2.2 (opens connections: 1 sign)";
        assert_eq!(statement(&both), expected);
    }

    #[test]
    fn without_openings_the_busiest_or_the_first_sender_is_local() {
        let middle = [("192.0.2.9", "192.0.2.1", tcp(ACK)), ("192.0.2.1", "192.0.2.9", tcp(ACK))];
        let expected =
            "local: 192.0.2.9 (takes part in 1 of 1 conversation and was seen first; nobody is seen to open one)";
        assert_eq!(statement(&middle), expected);
    }

    #[test]
    fn both_versions_of_ip_have_a_local_side() {
        let both = [("192.0.2.1", "192.0.2.9", tcp(SYN)), ("2001:db8::1", "2001:db8::9", tcp(SYN))];
        let expected = "local: 192.0.2.1 (opens connections: 1 sign), 2001:db8::1 (opens connections: 1 sign)";
        assert_eq!(statement(&both), expected);
    }

    #[test]
    fn groups_and_neighbors_say_nothing() {
        let mut inference = Inference::new();
        let ports = Transport::Ports { source: 5353, destination: 53 };
        inference.observe(&packet("192.0.2.7", "224.0.0.251", ports), None);
        let solicitation = crate::packet::IcmpHeader { message_type: 135, code: 0, identifier: None, is_error: false };
        let neighbor = Packet { protocol: 58, ..packet("fe80::1", "fe80::2", Transport::Icmp(solicitation)) };
        inference.observe(&neighbor, None);
        let statement = inference.conclude().to_string();
        assert_eq!(statement, "local: no address, because the capture shows no conversation");
    }

    #[test]
    fn loopback_has_both_sides() {
        let loopback = [("127.0.0.1", "127.0.0.1", tcp(SYN)), ("127.0.0.1", "127.0.0.1", tcp(SYN_ACK))];
        assert_eq!(statement(&loopback), "local: both sides of 2 packets on loopback");
        let own = [("192.0.2.1", "192.0.2.1", tcp(SYN))];
        assert_eq!(statement(&own), "local: 192.0.2.1 (sent 1 packet to itself)");
    }

    #[test]
    fn what_the_capture_says_outright_comes_first() {
        let mut inference = Inference::new();
        inference.observe(&packet("192.0.2.1", "192.0.2.9", tcp(SYN)), Some(LinkDirection::Incoming));
        inference.observe(&packet("192.0.2.9", "192.0.2.1", tcp(SYN_ACK)), Some(LinkDirection::Outgoing));
        let statement = inference.conclude().to_string();
        assert_eq!(statement, "local: 192.0.2.9 (the capture says so of 2 packets)");
    }

    #[test]
    fn memory_is_bounded() {
        let mut inference = Inference::new();
        for number in 0..70_000u32 {
            let source = IpAddr::V4((0x0a00_0000 + number).into());
            let one = Packet { source, ..packet("192.0.2.1", "192.0.2.9", tcp(SYN)) };
            inference.observe(&one, None);
        }
        assert!(inference.addresses.len() <= MAX_CONVERSATIONS + 1);
        let statement = inference.conclude().to_string();
        assert!(
            statement.ends_with("; 4464 packets beyond the first 65536 conversations were not looked at"),
            "{statement}"
        );
    }
}
