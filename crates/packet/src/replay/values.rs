//! From what a packet shows to the incoming values of a layer.
//!
//! What a packet cannot show (the application, the user, mostly the interface) stays empty, so that filters that test it do not
//! match. Where each field stands among the words is the engine's [`Schema`]; this file knows but what the fields mean.

use core::net::IpAddr;

use openwfp_engine::{EMPTY, Schema, Values};
use openwfp_model::{ConditionFlags, FieldId, IpVersion, LayerId};

use crate::flow::Direction;
use crate::packet::{AddressType, Packet, Transport};

/// The layers that a packet can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    InboundIpPacket,
    InboundTransport,
    RecvAccept,
    Connect,
    FlowEstablished,
    OutboundTransport,
    OutboundIpPacket,
}

const LAYERS: [[LayerId; 2]; 7] = [
    [LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_IPPACKET_V6],
    [LayerId::INBOUND_TRANSPORT_V4, LayerId::INBOUND_TRANSPORT_V6],
    [LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6],
    [LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6],
    [LayerId::ALE_FLOW_ESTABLISHED_V4, LayerId::ALE_FLOW_ESTABLISHED_V6],
    [LayerId::OUTBOUND_TRANSPORT_V4, LayerId::OUTBOUND_TRANSPORT_V6],
    [LayerId::OUTBOUND_IPPACKET_V4, LayerId::OUTBOUND_IPPACKET_V6],
];

/// Every layer at which a replay classifies.
pub const REPLAY_LAYERS: [LayerId; 14] = {
    let mut all = [LayerId::INBOUND_IPPACKET_V4; 14];
    let mut number = 0;
    while number < 14 {
        all[number] = LAYERS[number / 2][number % 2];
        number += 1;
    }
    all
};

/// Where each fact stands in [`Facts`].
mod fact {
    pub const PROTOCOL: usize = 0;
    pub const LOCAL_PORT: usize = 1;
    pub const REMOTE_PORT: usize = 2;
    pub const FLAGS: usize = 3;
    pub const LOCAL_ADDRESS: usize = 4;
    pub const REMOTE_ADDRESS: usize = 8;
    pub const LOCAL_ADDRESS_TYPE: usize = 12;
    pub const REMOTE_ADDRESS_TYPE: usize = 13;
    pub const INTERFACE_INDEX: usize = 14;
    pub const INTERFACE_TYPE: usize = 15;
    pub const ARRIVAL_INTERFACE_INDEX: usize = 16;
    pub const ARRIVAL_INTERFACE_TYPE: usize = 17;
    pub const NEXTHOP_INTERFACE_INDEX: usize = 18;
    pub const NEXTHOP_INTERFACE_TYPE: usize = 19;
    pub const DIRECTION: usize = 20;
    pub const ICMP_TYPE: usize = 21;
    pub const COUNT: usize = 22;
}

/// The facts that the fields of a layer are filled from.
const FIELDS: [(FieldId, usize); 16] = [
    (FieldId::IP_PROTOCOL, fact::PROTOCOL),
    (FieldId::IP_LOCAL_PORT, fact::LOCAL_PORT),
    (FieldId::IP_REMOTE_PORT, fact::REMOTE_PORT),
    (FieldId::FLAGS, fact::FLAGS),
    (FieldId::IP_LOCAL_ADDRESS, fact::LOCAL_ADDRESS),
    (FieldId::IP_REMOTE_ADDRESS, fact::REMOTE_ADDRESS),
    (FieldId::IP_LOCAL_ADDRESS_TYPE, fact::LOCAL_ADDRESS_TYPE),
    (FieldId::IP_DESTINATION_ADDRESS_TYPE, fact::REMOTE_ADDRESS_TYPE),
    (FieldId::INTERFACE_INDEX, fact::INTERFACE_INDEX),
    (FieldId::INTERFACE_TYPE, fact::INTERFACE_TYPE),
    (FieldId::ARRIVAL_INTERFACE_INDEX, fact::ARRIVAL_INTERFACE_INDEX),
    (FieldId::ARRIVAL_INTERFACE_TYPE, fact::ARRIVAL_INTERFACE_TYPE),
    (FieldId::NEXTHOP_INTERFACE_INDEX, fact::NEXTHOP_INTERFACE_INDEX),
    (FieldId::NEXTHOP_INTERFACE_TYPE, fact::NEXTHOP_INTERFACE_TYPE),
    (FieldId::DIRECTION, fact::DIRECTION),
    (FieldId::ORIGINAL_ICMP_TYPE, fact::ICMP_TYPE),
];

/// What is known of the packet at hand, a word each; [`EMPTY`] where it has no such thing.
struct Facts {
    words: [u64; fact::COUNT],
    flags: ConditionFlags,
    version: IpVersion,
}

/// The values of one layer. Words that no fact fills are never written and stay empty.
struct LayerValues {
    layer: LayerId,
    /// Pairs of a fact and the word that it fills.
    filled: Vec<(u8, u8)>,
    values: Values,
}

/// Fills in the values of every layer.
pub(super) struct IncomingValues {
    layers: [[LayerValues; 2]; 7],
    facts: Facts,
}

impl IncomingValues {
    pub(super) fn new() -> Self {
        let facts = Facts { words: [EMPTY; fact::COUNT], flags: ConditionFlags::empty(), version: IpVersion::V4 };
        Self { layers: LAYERS.map(|versions| versions.map(LayerValues::new)), facts }
    }

    /// Notes what a packet shows to the local machine.
    #[inline]
    pub(super) fn see(&mut self, packet: &Packet<'_>, direction: Direction, loopback: bool) {
        let facts = &mut self.facts;
        let (local, remote) = match direction {
            Direction::Outbound => (packet.source, packet.destination),
            Direction::Inbound => (packet.destination, packet.source),
        };
        facts.set_address(fact::LOCAL_ADDRESS, local);
        facts.set_address(fact::REMOTE_ADDRESS, remote);
        // The link's broadcast tells about the address that a packet is sent to, not about its sender.
        let (to_local, to_remote) = match direction {
            Direction::Outbound => (false, packet.link.broadcast),
            Direction::Inbound => (packet.link.broadcast, false),
        };
        facts.words[fact::LOCAL_ADDRESS_TYPE] = AddressType::of(local, to_local) as u64;
        facts.words[fact::REMOTE_ADDRESS_TYPE] = AddressType::of(remote, to_remote) as u64;

        let index = packet.link.interface_index.map_or(EMPTY, u64::from);
        let kind = packet.link.interface_type.map_or(EMPTY, u64::from);
        let (arrival, next_hop) = match direction {
            Direction::Outbound => ((EMPTY, EMPTY), (index, kind)),
            Direction::Inbound => ((index, kind), (EMPTY, EMPTY)),
        };
        (facts.words[fact::INTERFACE_INDEX], facts.words[fact::INTERFACE_TYPE]) = (index, kind);
        (facts.words[fact::ARRIVAL_INTERFACE_INDEX], facts.words[fact::ARRIVAL_INTERFACE_TYPE]) = arrival;
        (facts.words[fact::NEXTHOP_INTERFACE_INDEX], facts.words[fact::NEXTHOP_INTERFACE_TYPE]) = next_hop;

        facts.flags = if loopback { ConditionFlags::IS_LOOPBACK } else { ConditionFlags::empty() };
        facts.version = packet.version();
    }

    /// Notes what the transport header of the packet shows.
    #[inline]
    pub(super) fn see_transport(&mut self, protocol: u8, transport: &Transport, direction: Direction) {
        let words = &mut self.facts.words;
        let (source, destination) = match *transport {
            Transport::Tcp(segment) => (segment.source.into(), segment.destination.into()),
            Transport::Ports { source, destination } => (source.into(), destination.into()),
            Transport::Icmp(_) | Transport::Other | Transport::LaterFragment => (EMPTY, EMPTY),
        };
        (words[fact::LOCAL_PORT], words[fact::REMOTE_PORT]) = match direction {
            Direction::Outbound => (source, destination),
            Direction::Inbound => (destination, source),
        };
        words[fact::ICMP_TYPE] = EMPTY;
        if let Transport::Icmp(message) = *transport {
            words[fact::LOCAL_PORT] = message.message_type.into();
            words[fact::REMOTE_PORT] = message.code.into();
            words[fact::ICMP_TYPE] = message.message_type.into();
        }
        words[fact::PROTOCOL] = protocol.into();
    }

    /// Notes that the packet was put together from fragments.
    pub(super) fn see_reassembled(&mut self) {
        self.facts.flags |= ConditionFlags::IS_REASSEMBLED;
    }

    /// Notes who opened the flow that is being established.
    pub(super) fn see_opened(&mut self, opened: Direction) {
        self.facts.words[fact::DIRECTION] = opened as u64;
    }

    /// The values at a layer, with flags that are set there alone.
    #[inline]
    pub(super) fn at(&mut self, stage: Stage, flags: ConditionFlags) -> (LayerId, &Values) {
        self.facts.words[fact::FLAGS] = (self.facts.flags | flags).bits().into();
        let version = match self.facts.version {
            IpVersion::V4 => 0,
            IpVersion::V6 => 1,
        };
        let layer = &mut self.layers[stage as usize][version];
        for &(fact, word) in &layer.filled {
            match u32::try_from(self.facts.words[usize::from(fact)]) {
                Ok(known) => layer.values.set(usize::from(word), known),
                Err(_) => layer.values.set_empty(usize::from(word)),
            }
        }
        (layer.layer, &layer.values)
    }
}

impl Facts {
    #[inline]
    fn set_address(&mut self, first: usize, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                self.words[first] = u32::from(address).into();
                self.words[first + 1..first + 4].fill(EMPTY);
            }
            IpAddr::V6(address) => {
                let number = u128::from(address);
                for word in 0..4 {
                    self.words[first + word] = u64::from((number >> (96 - 32 * word)) as u32);
                }
            }
        }
    }
}

impl LayerValues {
    fn new(layer: LayerId) -> Self {
        let schema = Schema::of(layer);
        let mut filled = Vec::new();
        for (field, fact) in FIELDS {
            let Some(words) = schema.field(field) else { continue };
            // Words and facts are numbered by far less than a byte holds.
            filled.extend((0..words.count).map(|number| ((fact + number) as u8, (words.first + number) as u8)));
        }
        Self { layer, filled, values: Values::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkInfo;
    use crate::packet::{IcmpHeader, TcpHeader};
    use crate::wire::TcpFlags;

    fn packet(source: &str, destination: &str, link: LinkInfo) -> Packet<'static> {
        Packet {
            header_version: IpVersion::V4,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 6,
            fragment: None,
            transport: Ok(Transport::Other),
            payload: &[],
            payload_length: 0,
            link,
        }
    }

    /// The known fields of a layer, each with its number.
    fn known(layer: LayerId, values: &Values) -> Vec<(FieldId, u128)> {
        let mut known = Vec::new();
        for field in Schema::of(layer).fields() {
            let words: Vec<_> = (0..field.count).map(|number| values.get(field.first + number)).collect();
            if words.iter().all(|&word| word < EMPTY) {
                known.push((field.field, words.iter().fold(0, |number, &word| number << 32 | u128::from(word))));
            }
        }
        known.sort_by_key(|(field, _)| field.get());
        known
    }

    fn assert_known(incoming: &mut IncomingValues, stage: Stage, flags: ConditionFlags, expected: &[(FieldId, u128)]) {
        let (layer, values) = incoming.at(stage, flags);
        let mut expected = expected.to_vec();
        expected.sort_by_key(|(field, _)| field.get());
        assert_eq!(known(layer, values), expected, "{layer}");
    }

    const NONE: ConditionFlags = ConditionFlags::empty();

    #[test]
    fn a_tcp_packet_fills_the_fields_of_each_layer() {
        use FieldId as F;
        let mut incoming = IncomingValues::new();
        let link = LinkInfo { interface_index: Some(3), interface_type: Some(6), ..LinkInfo::default() };
        incoming.see(&packet("192.0.2.1", "198.51.100.9", link), Direction::Outbound, false);
        let header = TcpHeader { source: 40072, destination: 80, flags: TcpFlags::SYN, sequence: 0 };
        incoming.see_transport(6, &Transport::Tcp(header), Direction::Outbound);
        incoming.see_opened(Direction::Outbound);

        let addresses = [(F::IP_LOCAL_ADDRESS, 0xc000_0201), (F::IP_REMOTE_ADDRESS, 0xc633_6409)];
        let ports = [(F::IP_PROTOCOL, 6), (F::IP_LOCAL_PORT, 40072), (F::IP_REMOTE_PORT, 80)];
        let common = [(F::IP_LOCAL_ADDRESS_TYPE, 1), (F::FLAGS, 0), (F::INTERFACE_TYPE, 6)];
        let interface = [(F::INTERFACE_INDEX, 3)];
        let destination = [(F::IP_DESTINATION_ADDRESS_TYPE, 1)];
        let next_hop = [(F::NEXTHOP_INTERFACE_INDEX, 3), (F::NEXTHOP_INTERFACE_TYPE, 6)];

        let network = [&addresses[..], &common, &interface].concat();
        assert_known(&mut incoming, Stage::OutboundIpPacket, NONE, &network);
        let transport = [&network[..], &ports, &destination].concat();
        assert_known(&mut incoming, Stage::OutboundTransport, NONE, &transport);
        assert_known(&mut incoming, Stage::Connect, NONE, &[&transport[..], &next_hop].concat());
        let established = [&addresses[..], &common, &ports, &destination, &[(F::DIRECTION, 0)]].concat();
        assert_known(&mut incoming, Stage::FlowEstablished, NONE, &established);
    }

    #[test]
    fn an_inbound_icmpv6_message_has_type_and_code_where_others_have_ports() {
        use FieldId as F;
        let mut incoming = IncomingValues::new();
        incoming.see(&packet("2001:db8::9", "2001:db8::1", LinkInfo::default()), Direction::Inbound, true);
        let message = IcmpHeader { message_type: 128, code: 0, identifier: Some(7), is_error: false };
        incoming.see_transport(58, &Transport::Icmp(message), Direction::Inbound);

        let prefix = 0x2001_0db8_u128 << 96;
        let network =
            [(F::IP_LOCAL_ADDRESS, prefix | 1), (F::IP_REMOTE_ADDRESS, prefix | 9), (F::IP_LOCAL_ADDRESS_TYPE, 1)];
        assert_known(
            &mut incoming,
            Stage::InboundIpPacket,
            ConditionFlags::IS_FRAGMENT,
            &[&network[..], &[(F::FLAGS, 0x21)]].concat(),
        );
        let message = [(F::FLAGS, 1), (F::IP_PROTOCOL, 58), (F::IP_LOCAL_PORT, 128), (F::IP_REMOTE_PORT, 0)];
        assert_known(&mut incoming, Stage::InboundTransport, NONE, &[&network[..], &message].concat());
        let original = [(F::ORIGINAL_ICMP_TYPE, 128)];
        assert_known(&mut incoming, Stage::RecvAccept, NONE, &[&network[..], &message, &original].concat());
    }

    #[test]
    fn the_next_packet_leaves_nothing_of_the_last() {
        use FieldId as F;
        let mut incoming = IncomingValues::new();
        incoming.see(&packet("192.0.2.1", "192.0.2.9", LinkInfo::default()), Direction::Inbound, true);
        incoming.see_transport(17, &Transport::Ports { source: 5, destination: 6 }, Direction::Inbound);
        incoming.see_reassembled();
        incoming.at(Stage::InboundTransport, ConditionFlags::REQUIRES_ALE_CLASSIFY);

        let link = LinkInfo { broadcast: true, ..LinkInfo::default() };
        incoming.see(&packet("192.0.2.1", "192.0.2.255", link), Direction::Inbound, false);
        incoming.see_transport(47, &Transport::Other, Direction::Inbound);
        let expected = [
            (F::IP_LOCAL_ADDRESS, 0xc000_02ff),
            (F::IP_REMOTE_ADDRESS, 0xc000_0201),
            (F::IP_LOCAL_ADDRESS_TYPE, 4),
            (F::IP_PROTOCOL, 47),
            (F::FLAGS, 0),
        ];
        assert_known(&mut incoming, Stage::InboundTransport, NONE, &expected);
    }

    #[test]
    fn every_layer_has_the_fields_that_the_facts_are_for() {
        for [v4, v6] in LAYERS {
            for (layer, version) in [(v4, IpVersion::V4), (v6, IpVersion::V6)] {
                assert_eq!(layer.layer().ip_version(), Some(version));
                for field in [FieldId::IP_LOCAL_ADDRESS, FieldId::IP_REMOTE_ADDRESS, FieldId::FLAGS] {
                    assert!(Schema::of(layer).field(field).is_some(), "{layer} {field}");
                }
            }
        }
    }
}
