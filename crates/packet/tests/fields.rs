//! The fields that a replay says it fills in are those that are seen filled in, over all captures of the tree and some packets that none
//! of them holds.

mod common;

use std::collections::BTreeSet;

use common::build::{ACK, BOTH, RST, SYN, Version, ethernet, ipv4, tcp, tcp_data, udp};
use common::{Owned, capture_path, infer, local, packets};
use openwfp_engine::{EMPTY, Schema};
use openwfp_model::{FieldId, Layer, LayerId};
use openwfp_packet::capture::CaptureReader;
use openwfp_packet::link::LinkDirection;
use openwfp_packet::local::LocalSide;
use openwfp_packet::replay::{Decision, REPLAY_LAYERS, Replay, ReplaySettings, Step, fills};

type Seen = BTreeSet<(&'static str, &'static str)>;

fn note(seen: &mut Seen, step: &Step<'_>) {
    for words in Schema::of(step.layer).fields() {
        if (words.first..words.first + words.count).all(|word| step.values.get(word) < EMPTY) {
            seen.insert((step.layer.name(), words.field.name()));
        }
    }
}

/// Replays a capture as its packets say, permitting everything or blocking at one stage of layers.
fn replay_file(name: &str, local: LocalSide, block: &str, seen: &mut Seen) {
    let mut reader = CaptureReader::new(std::fs::File::open(capture_path(name)).unwrap()).unwrap();
    let mut replay = Replay::new(local, ReplaySettings::default());
    while let Some(Ok(record)) = reader.next_record() {
        replay.packet(&record, &mut |step: &Step<'_>| {
            note(seen, step);
            if step.layer.name().starts_with(block) { Decision::Block } else { Decision::Permit }
        });
    }
}

/// Forwarded packets, and errors that are sent, with a direction and an interface that the capture notes.
fn replay_made(seen: &mut Seen, block: &str) {
    let mut made = Vec::new();
    for version in BOTH {
        let ether_type = if version == Version::V4 { 0x0800 } else { 0x86dd };
        for packet in [
            version.packet(7, 9, 17, &udp(1, 2, b"x")),
            version.port_unreachable(1, 9, &version.packet(9, 1, 17, &udp(1, 2, b"x"))),
            version.echo(9, 1, false),
            version.packet(9, 1, 6, &tcp(1, 2, SYN, 0)),
            version.packet(9, 1, 6, &tcp_data(3, 4, ACK, [1, 1], b"x")),
            version.packet(9, 1, 6, &tcp(3, 4, RST, 2)),
        ] {
            made.push(Owned::ip(0, packet.clone()));
            made.push(Owned::frame(ethernet(9, 1, ether_type, &packet)));
        }
    }
    made.push(Owned::ip(0, ipv4(1, 2, 17, &udp(1, 2, b"x"))));
    for direction in [None, Some(LinkDirection::Incoming), Some(LinkDirection::Outgoing)] {
        let mut replay = Replay::new(local(&["192.0.2.1", "2001:db8::1"]), ReplaySettings::default());
        for (packet, frame) in made.iter().zip(1..) {
            let mut record = packet.record(frame);
            (record.direction, record.interface) = (direction, Some(3));
            replay.packet(&record, &mut |step: &Step<'_>| {
                note(seen, step);
                if step.layer.name().starts_with(block) { Decision::Block } else { Decision::Permit }
            });
        }
    }
}

const BLOCKS: [&str; 12] = [
    "nothing",
    "INBOUND_IPPACKET",
    "OUTBOUND_IPPACKET",
    "IPFORWARD",
    "INBOUND_TRANSPORT",
    "OUTBOUND_TRANSPORT",
    "ALE_AUTH",
    "ALE_FLOW_ESTABLISHED",
    "DATAGRAM_DATA",
    "STREAM_V",
    "INBOUND_ICMP",
    "OUTBOUND_ICMP",
];

#[test]
fn what_is_filled_in_is_what_is_said_to_be() {
    let mut seen = Seen::new();
    for block in BLOCKS {
        for name in [
            "http.pcap",
            "sll2.pcap",
            "sll.pcap",
            "loopback.pcap",
            "refused.pcap",
            "dns.pcapng",
            "two-interfaces.pcapng",
            "vlan.pcap",
            "ping.pcap",
            "fragments.pcap",
        ] {
            assert!(!packets(name).is_empty());
            replay_file(name, infer(name), block, &mut seen);
            replay_file(name, local(&["192.0.2.80", "2001:db8::80"]), block, &mut seen);
            replay_file(name, local(&["203.0.113.1"]), block, &mut seen);
        }
        replay_made(&mut seen, block);
    }
    for &(layer, field) in &seen {
        let layer = Layer::find(layer).unwrap().id;
        assert!(fills(layer, FieldId::find(field).unwrap()), "{layer} {field} is filled in, and nobody says so");
    }
    // No capture of the tree has a cooked header with an interface on a machine of version 6 that is asked at every layer: what a field
    // of the interface shows is the same at all of them.
    let of_interface = |field: FieldId| ["INTERFACE", "TUNNEL"].iter().any(|part| field.name().contains(part));
    for layer in REPLAY_LAYERS {
        for field in layer.layer().fields {
            let said = fills(layer, field.field) && !of_interface(field.field);
            assert!(
                !said || seen.contains(&(layer.name(), field.field.name())),
                "{layer} {} is never seen",
                field.field
            );
        }
    }
    let met: BTreeSet<_> = seen.iter().map(|(layer, _)| *layer).collect();
    let all: BTreeSet<_> = REPLAY_LAYERS.iter().map(|layer| layer.name()).collect();
    assert_eq!(met, all, "every layer is met");
    assert!(seen.contains(&("IPFORWARD_V4", "SOURCE_INTERFACE_INDEX")));
    assert!(seen.contains(&("IPFORWARD_V4", "DESTINATION_INTERFACE_INDEX")));
    assert!(seen.contains(&("ALE_AUTH_RECV_ACCEPT_V4", "IP_ARRIVAL_INTERFACE")));
    assert!(!fills(LayerId::ALE_AUTH_CONNECT_V4, FieldId::ALE_APP_ID), "a capture knows no processes");
}
