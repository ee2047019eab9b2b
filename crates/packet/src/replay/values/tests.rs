//! Which fields of which layer a packet fills.

use openwfp_model::FieldId as F;

use super::super::facts::Sight;
use super::*;
use crate::flow::{FlowTuple, Selector};
use crate::link::LinkInfo;
use crate::packet::{IcmpHeader, Original, OriginalTransport, Packet, TcpHeader, Transport};
use crate::wire::{EtherType, EthernetFrame, TcpFlags, VlanTags};

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
        bytes: &[],
        begins_at: 0,
    }
}

fn sight<'p>(packet: &'p Packet<'p>, direction: Direction, transport: Option<(u8, Transport)>) -> Sight<'p> {
    Sight { packet, transport, direction, loopback: false, reassembled: false, interface: None }
}

/// The known fields of a layer, each with its number.
fn known(layer: LayerId, values: &Values) -> Vec<(F, u128)> {
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

fn assert_known(incoming: &mut IncomingValues, stage: Stage, flags: ConditionFlags, expected: &[(F, u128)]) {
    assert_known_going(incoming, stage, flags, Direction::Outbound, expected);
}

fn assert_known_going(
    incoming: &mut IncomingValues,
    stage: Stage,
    flags: ConditionFlags,
    direction: Direction,
    expected: &[(F, u128)],
) {
    let layer = stage.layer(incoming.version());
    let values = incoming.at(stage, false, flags, direction);
    let mut expected = expected.to_vec();
    expected.sort_by_key(|(field, _)| field.get());
    assert_eq!(known(layer, values), expected, "{layer}");
    if let Some(discard) = stage.discard(incoming.version()) {
        assert_eq!(known(discard, incoming.at(stage, true, flags, direction)), expected, "{discard}");
    }
}

const NONE: ConditionFlags = ConditionFlags::empty();
const LUID: u128 = 6 << 48 | 3 << 24;

#[test]
fn a_tcp_packet_fills_the_fields_of_each_layer() {
    let mut incoming = IncomingValues::new();
    let link =
        LinkInfo { interface_index: Some(3), interface_type: Some(6), tunnel_type: Some(0), ..LinkInfo::default() };
    let packet = packet("192.0.2.1", "198.51.100.9", link);
    let header = TcpHeader { source: 40072, destination: 80, flags: TcpFlags::SYN, ..TcpHeader::default() };
    incoming.facts.see(&sight(&packet, Direction::Outbound, Some((6, Transport::Tcp(header)))));

    let addresses = [(F::IP_LOCAL_ADDRESS, 0xc000_0201), (F::IP_REMOTE_ADDRESS, 0xc633_6409)];
    let ports = [(F::IP_LOCAL_PORT, 40072), (F::IP_REMOTE_PORT, 80)];
    let protocol = [(F::IP_PROTOCOL, 6)];
    let local_type = [(F::IP_LOCAL_ADDRESS_TYPE, 1)];
    let interface = [(F::INTERFACE_TYPE, 6), (F::TUNNEL_TYPE, 0), (F::IP_LOCAL_INTERFACE, LUID)];
    let index = [(F::INTERFACE_INDEX, 3), (F::SUB_INTERFACE_INDEX, 3)];
    let flags = [(F::FLAGS, 0)];
    let destination = [(F::IP_DESTINATION_ADDRESS_TYPE, 1)];
    let direction = [(F::DIRECTION, 0)];
    let next_hop = [
        (F::NEXTHOP_INTERFACE_INDEX, 3),
        (F::NEXTHOP_SUB_INTERFACE_INDEX, 3),
        (F::NEXTHOP_INTERFACE_TYPE, 6),
        (F::NEXTHOP_TUNNEL_TYPE, 0),
        (F::IP_NEXTHOP_INTERFACE, LUID),
    ];

    let network = [&addresses[..], &local_type, &interface, &index, &flags].concat();
    assert_known(&mut incoming, Stage::OutboundIpPacket, NONE, &network);
    let transport = [&network[..], &protocol, &ports, &destination].concat();
    assert_known(&mut incoming, Stage::OutboundTransport, NONE, &transport);
    let reason = [(F::REAUTHORIZE_REASON, 0)];
    assert_known(&mut incoming, Stage::Connect, NONE, &[&transport[..], &next_hop, &reason].concat());
    let established =
        [&addresses[..], &local_type, &interface, &flags, &protocol, &ports, &destination, &direction].concat();
    assert_known(&mut incoming, Stage::FlowEstablished, NONE, &established);
    let packet = [&addresses[..], &interface, &index, &flags, &ports, &direction].concat();
    assert_known(&mut incoming, Stage::StreamPacket, NONE, &packet);
    let stream = [&addresses[..], &local_type, &flags, &ports].concat();
    assert_known(&mut incoming, Stage::Stream, NONE, &[&stream[..], &direction].concat());
    let inbound = [(F::DIRECTION, 1)];
    assert_known_going(&mut incoming, Stage::Stream, NONE, Direction::Inbound, &[&stream[..], &inbound].concat());
}

#[test]
fn an_inbound_icmpv6_message_has_type_and_code_where_others_have_ports() {
    let mut incoming = IncomingValues::new();
    let packet = packet("2001:db8::9", "2001:db8::1", LinkInfo::default());
    let message = IcmpHeader { message_type: 128, code: 0, identifier: Some(7), is_error: false };
    let seen = Sight { loopback: true, ..sight(&packet, Direction::Inbound, Some((58, Transport::Icmp(message)))) };
    incoming.facts.see(&seen);

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
    let transport = [&network[..], &message].concat();
    assert_known(&mut incoming, Stage::InboundTransport, NONE, &transport);
    let inbound = [&transport[..], &[(F::DIRECTION, 1)]].concat();
    assert_known_going(&mut incoming, Stage::DatagramData, NONE, Direction::Inbound, &inbound);
    let original = [(F::ORIGINAL_ICMP_TYPE, 128), (F::REAUTHORIZE_REASON, 0)];
    assert_known(&mut incoming, Stage::RecvAccept, NONE, &[&transport[..], &original].concat());
}

#[test]
fn an_echo_reply_shows_the_type_of_the_request_that_began_its_flow() {
    let mut incoming = IncomingValues::new();
    let packet = packet("192.0.2.9", "192.0.2.1", LinkInfo::default());
    let message = IcmpHeader { message_type: 0, code: 0, identifier: Some(7), is_error: false };
    incoming.facts.see(&sight(&packet, Direction::Inbound, Some((1, Transport::Icmp(message)))));
    let values = incoming.at(Stage::Connect, false, NONE, Direction::Inbound);
    let known = known(LayerId::ALE_AUTH_CONNECT_V4, values);
    assert!(known.contains(&(F::ORIGINAL_ICMP_TYPE, 8)) && known.contains(&(F::IP_LOCAL_PORT, 0)), "{known:?}");
}

#[test]
fn an_icmp_error_shows_what_it_quotes_from_the_local_side() {
    let original = Original {
        source: "192.0.2.1".parse().unwrap(),
        destination: "198.51.100.9".parse().unwrap(),
        protocol: 17,
        transport: OriginalTransport::Ports { source: 4000, destination: 53 },
        mark: [0; 4],
    };
    let packet = packet("203.0.113.5", "192.0.2.1", LinkInfo { interface_index: Some(3), ..LinkInfo::default() });
    let message = IcmpHeader { message_type: 3, code: 3, identifier: None, is_error: true };
    let mut incoming = IncomingValues::new();
    incoming.facts.see(&sight(&packet, Direction::Inbound, Some((1, Transport::Icmp(message)))));
    let error = [
        (F::IP_LOCAL_ADDRESS, 0xc000_0201),
        (F::IP_REMOTE_ADDRESS, 0xcb00_7105),
        (F::IP_LOCAL_PORT, 3),
        (F::IP_REMOTE_PORT, 3),
        (F::FLAGS, 0),
        (F::INTERFACE_INDEX, 3),
        (F::SUB_INTERFACE_INDEX, 3),
        (F::ARRIVAL_INTERFACE_INDEX, 3),
    ];
    let quoted = [
        (F::EMBEDDED_PROTOCOL, 17),
        (F::EMBEDDED_REMOTE_ADDRESS, 0xc633_6409),
        (F::EMBEDDED_LOCAL_ADDRESS_TYPE, 1),
        (F::EMBEDDED_LOCAL_PORT, 4000),
        (F::EMBEDDED_REMOTE_PORT, 53),
    ];
    incoming.facts.see_embedded(Some(&original), true);
    assert_known(&mut incoming, Stage::InboundIcmpError, NONE, &[&error[..], &quoted].concat());
    incoming.facts.see_embedded(None, true);
    assert_known(&mut incoming, Stage::InboundIcmpError, NONE, &error);
}

#[test]
fn a_forwarded_packet_has_source_and_destination() {
    let mut incoming = IncomingValues::new();
    let link = LinkInfo { interface_index: Some(3), interface_type: Some(6), ..LinkInfo::default() };
    let packet = packet("192.0.2.1", "224.0.0.251", link);
    let addresses = [(F::IP_SOURCE_ADDRESS, 0xc000_0201), (F::IP_DESTINATION_ADDRESS, 0xe000_00fb), (F::FLAGS, 0)];
    let common = [&addresses[..], &[(F::IP_DESTINATION_ADDRESS_TYPE, 3)]].concat();
    incoming.facts.see_forwarded(&packet, None, Direction::Inbound);
    let arriving = [
        (F::SOURCE_INTERFACE_INDEX, 3),
        (F::SOURCE_SUB_INTERFACE_INDEX, 3),
        (F::IP_PHYSICAL_ARRIVAL_INTERFACE, LUID),
        (F::IP_LOCAL_INTERFACE, LUID),
    ];
    assert_known(&mut incoming, Stage::Forward, NONE, &[&common[..], &arriving].concat());
    incoming.facts.see_forwarded(&packet, None, Direction::Outbound);
    let leaving = [
        (F::DESTINATION_INTERFACE_INDEX, 3),
        (F::DESTINATION_SUB_INTERFACE_INDEX, 3),
        (F::IP_FORWARD_INTERFACE, LUID),
        (F::IP_PHYSICAL_NEXTHOP_INTERFACE, LUID),
    ];
    assert_known(&mut incoming, Stage::Forward, NONE, &[&common[..], &leaving].concat());
}

#[test]
fn a_frame_shows_hardware_addresses_and_the_whole_tag() {
    let mut bytes = vec![0xff; 6];
    bytes.extend([2, 0, 0, 0, 0, 1, 0x81, 0x00, 0xa0, 0x07, 0x08, 0x06]);
    let frame = EthernetFrame::new_checked(&bytes).unwrap();
    let tags = VlanTags::new_checked(EtherType::VLAN, frame.payload()).unwrap();
    let mut incoming = IncomingValues::new();
    incoming.facts.see_frame(&frame, Some(&tags), false, Some(1), Direction::Outbound);
    let (station, everyone) = (0x0200_0000_0001, 0xffff_ffff_ffff);
    let common = [(F::ETHER_TYPE, 0x0806), (F::VLAN_ID, 0xa007), (F::INTERFACE_INDEX, 1), (F::NDIS_PORT, 0)];
    let outbound = [
        (F::INTERFACE_MAC_ADDRESS, station),
        (F::MAC_LOCAL_ADDRESS, station),
        (F::MAC_REMOTE_ADDRESS, everyone),
        (F::MAC_LOCAL_ADDRESS_TYPE, 0),
        (F::MAC_REMOTE_ADDRESS_TYPE, 2),
        (F::L2_FLAGS, 1),
    ];
    assert_known(&mut incoming, Stage::OutboundFrame, NONE, &[&common[..], &outbound].concat());
    incoming.facts.see_frame(&frame, Some(&tags), true, Some(1), Direction::Inbound);
    let inbound = [
        (F::MAC_LOCAL_ADDRESS, everyone),
        (F::MAC_REMOTE_ADDRESS, station),
        (F::MAC_LOCAL_ADDRESS_TYPE, 2),
        (F::MAC_REMOTE_ADDRESS_TYPE, 0),
        (F::L2_FLAGS, 0x21),
    ];
    assert_known(&mut incoming, Stage::InboundFrame, NONE, &[&common[..], &inbound].concat());
}

#[test]
fn the_next_packet_leaves_nothing_of_the_last() {
    let mut incoming = IncomingValues::new();
    let first = packet("192.0.2.1", "192.0.2.9", LinkInfo::default());
    let ports = Transport::Ports { source: 5, destination: 6 };
    let seen = sight(&first, Direction::Inbound, Some((17, ports)));
    incoming.facts.see(&Sight { loopback: true, reassembled: true, ..seen });
    incoming.at(Stage::InboundTransport, false, ConditionFlags::REQUIRES_ALE_CLASSIFY, Direction::Inbound);

    let link = LinkInfo { broadcast: true, ..LinkInfo::default() };
    let second = packet("192.0.2.1", "192.0.2.255", link);
    incoming.facts.see(&sight(&second, Direction::Inbound, Some((47, Transport::Other))));
    let expected = [
        (F::IP_LOCAL_ADDRESS, 0xc000_02ff),
        (F::IP_REMOTE_ADDRESS, 0xc000_0201),
        (F::IP_LOCAL_ADDRESS_TYPE, 4),
        (F::IP_PROTOCOL, 47),
        (F::FLAGS, 0),
    ];
    assert_known(&mut incoming, Stage::InboundTransport, NONE, &expected);

    let selector = Selector::Ports { local: 40072, remote: 80 };
    let tuple = FlowTuple { local: first.source, remote: first.destination, protocol: 6, selector };
    incoming.facts.see_flow(&tuple, true);
    let expected = [
        (F::IP_LOCAL_ADDRESS, 0xc000_0201),
        (F::IP_REMOTE_ADDRESS, 0xc000_0209),
        (F::IP_LOCAL_ADDRESS_TYPE, 1),
        (F::IP_PROTOCOL, 6),
        (F::IP_LOCAL_PORT, 40072),
        (F::IP_REMOTE_PORT, 80),
        (F::FLAGS, 1),
    ];
    assert_known(&mut incoming, Stage::EndpointClosure, NONE, &expected);
}

#[test]
fn every_layer_can_show_something() {
    for (versions, discards) in LAYERS.into_iter().zip(DISCARDS) {
        for layer in versions.into_iter().chain(discards.into_iter().flatten()) {
            assert!(LayerValues::new(layer).filled.len() > 4, "{layer}");
        }
    }
}
