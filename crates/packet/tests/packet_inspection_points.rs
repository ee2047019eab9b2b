//! Packets that pass by other ways than one endpoint's (MS docs: Packet Inspection Points, WFP Layer Requirements and Restrictions):
//! over loopback, through the machine, in fragments, and frames that hold no IP.

mod common;

use common::build::{BOTH, SYN, ethernet, ipv4, ipv4_fragment, tcp, udp};
use common::{Owned, assert_lines, assert_steps, infer, local, packets, replay, replay_with};
use openwfp_packet::link::LinkDirection;
use openwfp_packet::local::{Inference, LocalSide};
use openwfp_packet::replay::{Decision, Replay, ReplaySettings, Step};

const LOCAL: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

#[test]
fn a_packet_over_loopback_leaves_and_then_arrives() {
    let replayed = replay(&packets("loopback.pcap"), infer("loopback.pcap"), &[]);
    assert_lines(
        &replayed.lines[..4],
        "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #2, STREAM_PACKET #2
         2 STREAM_PACKET #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1, ALE_FLOW_ESTABLISHED #1, flow-established #1
         3 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2, STREAM_PACKET #2, ALE_FLOW_ESTABLISHED #2, flow-established #2
         4 STREAM #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2, STREAM_PACKET #2, STREAM #2",
    );
    let all = replayed.lines.join("\n");
    assert!(!all.contains("_MAC"), "loopback has no frames, although Linux shows Ethernet there");
    for flow in ["#1", "#2"] {
        assert_eq!(all.matches(&format!("ALE_ENDPOINT_CLOSURE {flow}, flow-deleted (closed) {flow}")).count(), 1);
    }
    let stream = replayed.stream();
    assert_eq!(stream.len() % 2, 0);
    assert!(stream.chunks(2).all(|pair| pair[0] == pair[1]), "what is sent is what is received: {stream:?}");
}

#[test]
fn between_two_local_addresses_is_loopback_too() {
    for version in BOTH {
        assert_steps(
            &["192.0.2.0/28", "2001:db8::/124"],
            &[(
                "UDP message",
                version.packet(1, 2, 17, &udp(40000, 53, b"x")),
                "ALE_AUTH_CONNECT, ALE_FLOW_ESTABLISHED, flow-established, DATAGRAM_DATA, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET, \
                 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT, ALE_FLOW_ESTABLISHED, flow-established, DATAGRAM_DATA",
            )],
        );
    }
}

#[test]
fn what_is_between_others_is_forwarded_when_the_local_side_was_given() {
    for version in BOTH {
        assert_steps(
            &LOCAL,
            &[
                ("SYN", version.packet(7, 9, 6, &tcp(40000, 80, SYN, 0)), "INBOUND_IPPACKET, IPFORWARD"),
                ("UDP message", version.packet(7, 9, 17, &udp(40000, 53, b"x")), "INBOUND_IPPACKET, IPFORWARD"),
                ("ICMP error", version.port_unreachable(7, 9, &[]), "INBOUND_IPPACKET, IPFORWARD"),
            ],
        );
    }
    let fragments = [
        Owned::ip(0, ipv4_fragment(7, 9, 5, 0, true, &[0; 8])),
        Owned::ip(0, ipv4_fragment(7, 9, 5, 8, false, &[0; 8])),
    ];
    assert_lines(
        &replay(&fragments, local(&LOCAL), &[]).lines,
        "1 INBOUND_IPPACKET, IPFORWARD\n2 INBOUND_IPPACKET, IPFORWARD",
    );
    let inferred = LocalSide::Inferred(Inference::new().conclude());
    assert_lines(&replay(&fragments, inferred, &[]).lines, "1 Elsewhere\n2 Elsewhere");
}

#[test]
fn forwarded_fragments_can_be_grouped() {
    let settings = ReplaySettings { group_forwarded_fragments: true, ..ReplaySettings::default() };
    let fragments = [
        Owned::ip(0, ipv4_fragment(7, 9, 5, 0, true, &[0; 8])),
        Owned::ip(0, ipv4_fragment(7, 9, 5, 8, true, &[0; 8])),
        Owned::ip(0, ipv4_fragment(7, 9, 5, 16, false, &[0; 8])),
        Owned::ip(0, ipv4_fragment(7, 9, 6, 0, true, &[0; 16])),
        Owned::ip(0, ipv4_fragment(7, 9, 6, 8, true, &[0; 16])),
    ];
    let replayed = replay_with(&fragments, local(&LOCAL), &[], settings);
    assert_lines(
        &replayed.lines,
        "1 INBOUND_IPPACKET, IPFORWARD, waiting
         2 INBOUND_IPPACKET, IPFORWARD, waiting
         3 INBOUND_IPPACKET, IPFORWARD, IPFORWARD
         4 INBOUND_IPPACKET, IPFORWARD, waiting
         5 INBOUND_IPPACKET, IPFORWARD, StrayFragment",
    );
    assert_eq!((replayed.summary.fragments.reassembled, replayed.summary.fragments.contradictory), (1, 1));
    let mut flags = Vec::new();
    let mut replay = Replay::new(local(&LOCAL), settings);
    for (packet, frame) in fragments[..3].iter().zip(1..) {
        replay.packet(&packet.record(frame), &mut |step: &Step<'_>| {
            flags.push(step.values.get(openwfp_engine::words::FLAGS));
            Decision::Permit
        });
    }
    let fragment = u64::from(openwfp_model::ConditionFlags::IS_FRAGMENT.bits());
    let group = u64::from(openwfp_model::ConditionFlags::IS_FRAGMENT_GROUP.bits());
    assert_eq!(flags, [fragment, 0, fragment, 0, fragment, 0, group]);
}

/// Replays frames with the direction that the capture notes.
fn forwarded(noted: Option<LinkDirection>) -> Vec<String> {
    let frame = Owned::frame(ethernet(7, 1, 0x0800, &ipv4(7, 9, 17, &udp(40000, 53, b"x"))));
    let mut replay = Replay::new(local(&LOCAL), ReplaySettings::default());
    let mut met = Vec::new();
    let mut record = frame.record(1);
    record.direction = noted;
    replay.packet(&record, &mut |step: &Step<'_>| {
        met.push(step.layer.name().replace("_MAC_FRAME_ETHERNET", "_MAC"));
        Decision::Permit
    });
    met
}

#[test]
fn a_forwarded_frame_arrives_or_leaves() {
    assert_eq!(forwarded(None), ["INBOUND_MAC", "INBOUND_IPPACKET_V4", "IPFORWARD_V4"]);
    assert_eq!(forwarded(Some(LinkDirection::Incoming)), ["INBOUND_MAC", "INBOUND_IPPACKET_V4", "IPFORWARD_V4"]);
    assert_eq!(forwarded(Some(LinkDirection::Outgoing)), ["IPFORWARD_V4", "OUTBOUND_MAC"]);
}

#[test]
fn fragments_are_seen_one_by_one_arriving_and_as_one_datagram_leaving() {
    let packets = packets("fragments.pcap");
    let replayed = replay(&packets, infer("fragments.pcap"), &[]);
    assert_lines(
        &replayed.lines,
        "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, DATAGRAM_DATA #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         2 OUTBOUND_MAC
         3 OUTBOUND_MAC
         4 INBOUND_MAC, INBOUND_IPPACKET, waiting
         5 INBOUND_MAC, INBOUND_IPPACKET, waiting
         6 INBOUND_MAC, INBOUND_IPPACKET, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, DATAGRAM_DATA #1
         7 ALE_AUTH_CONNECT #2, ALE_FLOW_ESTABLISHED #2, flow-established #2, DATAGRAM_DATA #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2, OUTBOUND_MAC #2
         8 OUTBOUND_MAC
         9 OUTBOUND_MAC
         10 INBOUND_MAC, INBOUND_IPPACKET, waiting
         11 INBOUND_MAC, INBOUND_IPPACKET, waiting
         12 INBOUND_MAC, INBOUND_IPPACKET, INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2, DATAGRAM_DATA #2",
    );
    assert_eq!((replayed.summary.permitted, replayed.summary.fragments.reassembled), (12, 2));
}

/// An ARP request or answer, by the ends of the two IPv4 addresses.
fn arp(sender: u8, target: u8) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, sender, 192, 0, 2, sender, 0, 0, 0, 0, 0, 0];
    packet.extend([192, 0, 2, target]);
    packet
}

const ARP: u16 = 0x0806;
const LLDP: u16 = 0x88cc;

#[test]
fn frames_without_ip_meet_the_layer_of_their_direction() {
    let ip = |from, to| Owned::frame(ethernet(from, to, 0x0800, &ipv4(from, to, 17, &udp(40000, 53, b"x"))));
    let other = |from, to, ether_type, payload: &[u8]| Owned::frame(ethernet(from, to, ether_type, payload));
    let mut to_everyone = ethernet(9, 0, LLDP, b"hello");
    to_everyone[..6].fill(0xff);
    let frames = [
        other(1, 9, ARP, &arp(1, 9)),
        other(9, 1, ARP, &arp(9, 1)),
        other(8, 9, ARP, &arp(8, 9)),
        // Nothing says yet whose the stations are; then an IP packet does.
        other(1, 9, LLDP, b"hello"),
        ip(1, 9),
        other(1, 9, LLDP, b"hello"),
        other(9, 1, LLDP, b"hello"),
        other(8, 9, LLDP, b"hello"),
        Owned::frame(to_everyone),
        // A frame whose packet is cut has a header of its own that is in order.
        other(1, 9, 0x0800, &[0x45, 0]),
        Owned::frame(vec![2, 0, 0]),
    ];
    let replayed = replay(&frames, local(&LOCAL), &[]);
    let lines: Vec<_> = replayed.lines.iter().map(|line| line.replace("NotIp(EtherType(2054))", "ARP")).collect();
    assert_lines(
        &lines.iter().map(|line| line.replace("NotIp(EtherType(35020))", "LLDP")).collect::<Vec<_>>(),
        "1 OUTBOUND_MAC, ARP
         2 INBOUND_MAC, ARP
         3 ARP
         4 LLDP
         5 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, DATAGRAM_DATA #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         6 OUTBOUND_MAC, LLDP
         7 INBOUND_MAC, LLDP
         8 LLDP
         9 INBOUND_MAC, LLDP
         10 OUTBOUND_MAC, malformed (byte 16: the IPv4 header needs 20 bytes and 2 are there)
         11 malformed (byte 3: the Ethernet header needs 14 bytes and 3 are there)",
    );
    assert_eq!((replayed.summary.not_ip, replayed.summary.malformed, replayed.summary.permitted), (8, 2, 1));
}
