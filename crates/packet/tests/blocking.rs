//! What a block at a layer keeps from later layers, and what becomes of the packets of refused flows, which a capture holds
//! although the platform would never have sent or received them.

mod common;

use common::build::{ACK, SYN, SYN_ACK, Version, ipv4, ipv4_fragment, tcp, udp};
use common::{Owned, assert_lines, infer, local, packets, replay};
use openwfp_model::LayerId;

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const ACCEPT: LayerId = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
const ESTABLISHED: LayerId = LayerId::ALE_FLOW_ESTABLISHED_V4;

fn sequence(packets: &[Vec<u8>], blocks: &[LayerId]) -> Vec<String> {
    let packets: Vec<_> = packets.iter().map(|data| Owned::ip(0, data.clone())).collect();
    replay(&packets, local(&["192.0.2.1"]), blocks).lines
}

#[test]
fn after_a_refused_connect_no_packet_exists() {
    let packets = packets("http.pcap");
    let replayed = replay(&packets, infer("http.pcap"), &[CONNECT]);
    assert_lines(
        &replayed.lines[..3],
        "1 ALE_AUTH_CONNECT #1 blocked, ALE_AUTH_CONNECT_DISCARD #1
         2 flow-blocked by ALE_AUTH_CONNECT #1
         3 flow-blocked by ALE_AUTH_CONNECT #1",
    );
    assert!(replayed.lines[3..].iter().all(|line| line.ends_with("flow-blocked by ALE_AUTH_CONNECT #1")));
    assert_eq!((replayed.summary.blocked, replayed.summary.flow_blocked), (12, 11));
    assert_eq!(replayed.summary.classifications, 2);
}

#[test]
fn after_a_refused_accept_only_further_syns_arrive() {
    let segment = |flags, sequence| ipv4(9, 1, 6, &tcp(40000, 80, flags, sequence));
    let answer = ipv4(1, 9, 6, &tcp(80, 40000, SYN_ACK, 0));
    assert_lines(
        &sequence(&[segment(SYN, 7), segment(SYN, 7), answer, segment(ACK, 8), segment(SYN, 9)], &[ACCEPT]),
        "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1 blocked, ALE_AUTH_RECV_ACCEPT_DISCARD #1
         2 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, flow-blocked by ALE_AUTH_RECV_ACCEPT #1
         3 flow-blocked by ALE_AUTH_RECV_ACCEPT #1
         4 flow-blocked by ALE_AUTH_RECV_ACCEPT #1
         5 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #2 blocked, ALE_AUTH_RECV_ACCEPT_DISCARD #2",
    );
}

#[test]
fn refused_datagrams_still_arrive_but_never_leave() {
    let query = ipv4(1, 9, 17, &udp(40000, 53, b"q"));
    let answer = ipv4(9, 1, 17, &udp(53, 40000, b"a"));
    assert_lines(
        &sequence(&[query.clone(), answer.clone(), query], &[CONNECT]),
        "1 ALE_AUTH_CONNECT #1 blocked, ALE_AUTH_CONNECT_DISCARD #1
         2 flow-blocked by ALE_AUTH_CONNECT #1
         3 flow-blocked by ALE_AUTH_CONNECT #1",
    );
    assert_lines(
        &sequence(&[answer.clone(), answer], &[ACCEPT]),
        "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1 blocked, ALE_AUTH_RECV_ACCEPT_DISCARD #1
         2 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, flow-blocked by ALE_AUTH_RECV_ACCEPT #1",
    );
}

#[test]
fn a_flow_can_be_discarded_when_it_is_established() {
    let packets = packets("http.pcap");
    let replayed = replay(&packets, infer("http.pcap"), &[ESTABLISHED]);
    assert_lines(
        &replayed.lines[..4],
        "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         2 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1, ALE_FLOW_ESTABLISHED #1 blocked, ALE_FLOW_ESTABLISHED_DISCARD #1
         3 flow-blocked by ALE_FLOW_ESTABLISHED #1
         4 flow-blocked by ALE_FLOW_ESTABLISHED #1",
    );
}

#[test]
fn what_a_packet_layer_blocks_ends_the_packet_and_not_the_flow() {
    let packets = packets("http.pcap");
    let cases = [
        (LayerId::STREAM_PACKET_V4, "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1 blocked"),
        (
            LayerId::OUTBOUND_TRANSPORT_V4,
            "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1 blocked, OUTBOUND_TRANSPORT_DISCARD #1",
        ),
        (
            LayerId::OUTBOUND_IPPACKET_V4,
            "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1 blocked, OUTBOUND_IPPACKET_DISCARD #1",
        ),
        (
            LayerId::OUTBOUND_MAC_FRAME_ETHERNET,
            "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1 blocked",
        ),
    ];
    for (layer, expected) in cases {
        let replayed = replay(&packets, infer("http.pcap"), &[layer]);
        assert_lines(&replayed.lines[..1], expected);
        let both_ways = layer == LayerId::STREAM_PACKET_V4;
        let (blocked, permitted) = if both_ways { (12, 0) } else { (6, 6) };
        assert_eq!(
            (replayed.summary.blocked, replayed.summary.flow_blocked, replayed.summary.permitted),
            (blocked, 0, permitted)
        );
    }
    let server = local(&["192.0.2.80"]);
    let cases = [
        (LayerId::INBOUND_MAC_FRAME_ETHERNET, "1 INBOUND_MAC blocked"),
        (LayerId::INBOUND_IPPACKET_V4, "1 INBOUND_MAC, INBOUND_IPPACKET blocked, INBOUND_IPPACKET_DISCARD"),
        (
            LayerId::INBOUND_TRANSPORT_V4,
            "1 INBOUND_MAC, INBOUND_IPPACKET, INBOUND_TRANSPORT blocked, INBOUND_TRANSPORT_DISCARD",
        ),
        (
            LayerId::STREAM_PACKET_V4,
            "1 INBOUND_MAC, INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1, STREAM_PACKET #1 blocked",
        ),
    ];
    for (layer, expected) in cases {
        let replayed = replay(&packets, server.clone(), &[layer]);
        assert_lines(&replayed.lines[..1], expected);
    }
}

#[test]
fn blocked_datagrams_forwarded_packets_and_errors_have_discard_layers() {
    let message = ipv4(1, 9, 17, &udp(40000, 53, b"q"));
    let error = |from, to| Version::V4.port_unreachable(from, to, &message);
    let to_forward = ipv4(7, 9, 17, &udp(40000, 53, b"q"));
    let cases = [
        (
            message.clone(),
            LayerId::DATAGRAM_DATA_V4,
            "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, DATAGRAM_DATA #1 blocked, DATAGRAM_DATA_DISCARD #1",
        ),
        (to_forward, LayerId::IPFORWARD_V4, "1 INBOUND_IPPACKET, IPFORWARD blocked, IPFORWARD_DISCARD"),
        (
            error(9, 1),
            LayerId::INBOUND_ICMP_ERROR_V4,
            "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, INBOUND_ICMP_ERROR blocked, INBOUND_ICMP_ERROR_DISCARD",
        ),
        (error(1, 9), LayerId::OUTBOUND_ICMP_ERROR_V4, "1 OUTBOUND_ICMP_ERROR blocked, OUTBOUND_ICMP_ERROR_DISCARD"),
    ];
    for (packet, layer, expected) in cases {
        assert_lines(&sequence(&[packet], &[layer]), expected);
    }
}

#[test]
fn what_a_discard_layer_decides_changes_nothing() {
    let packets = packets("http.pcap");
    let discard = LayerId::ALE_AUTH_CONNECT_V4_DISCARD;
    let alone = replay(&packets, infer("http.pcap"), &[discard]);
    assert_eq!(alone.summary.permitted, 12, "it is not met where nothing is discarded");
    let both = replay(&packets, infer("http.pcap"), &[CONNECT, discard]);
    assert_eq!(both.lines[0], "1 ALE_AUTH_CONNECT #1 blocked, ALE_AUTH_CONNECT_DISCARD #1 blocked");
    assert_eq!((both.summary.blocked, both.summary.flow_blocked), (12, 11));
}

#[test]
fn a_closure_cannot_be_refused() {
    let packets = packets("http.pcap");
    let replayed = replay(&packets, infer("http.pcap"), &[LayerId::ALE_ENDPOINT_CLOSURE_V4]);
    assert!(replayed.lines[11].ends_with("ALE_ENDPOINT_CLOSURE #1 blocked, flow-deleted (closed) #1"));
    assert_eq!(replayed.summary.permitted, 12);
}

#[test]
fn a_syn_that_never_arrives_leaves_the_connection_that_it_would_replace() {
    let segment = |flags, sequence| ipv4(9, 1, 6, &tcp(40000, 80, flags, sequence));
    let packets: Vec<_> = [segment(ACK, 1), segment(SYN, 7), segment(ACK, 2)].map(|data| Owned::ip(0, data)).into();
    let mut blocked_once = false;
    let mut replay = openwfp_packet::replay::Replay::new(local(&["192.0.2.1"]), Default::default());
    let mut flows = Vec::new();
    for (packet, frame) in packets.iter().zip(1..) {
        replay.packet(&packet.record(frame), &mut |step: &openwfp_packet::replay::Step<'_>| {
            flows.push((frame, step.layer, step.flow.map(openwfp_packet::flow::FlowId::get)));
            let block = frame == 2 && step.layer == LayerId::INBOUND_TRANSPORT_V4;
            blocked_once |= block;
            if block { openwfp_packet::replay::Decision::Block } else { openwfp_packet::replay::Decision::Permit }
        });
    }
    assert!(blocked_once);
    assert_eq!(flows.last(), Some(&(3, LayerId::STREAM_PACKET_V4, Some(1))));
}

#[test]
fn over_loopback_what_does_not_leave_does_not_arrive() {
    let packets = packets("loopback.pcap");
    let replayed = replay(&packets, infer("loopback.pcap"), &[LayerId::OUTBOUND_IPPACKET_V4]);
    assert_lines(
        &replayed.lines[..1],
        "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1 blocked, OUTBOUND_IPPACKET_DISCARD #1",
    );
    let replayed = replay(&packets, infer("loopback.pcap"), &[ACCEPT]);
    assert_lines(
        &replayed.lines[..2],
        "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #2 blocked, ALE_AUTH_RECV_ACCEPT_DISCARD #2
         2 flow-blocked by ALE_AUTH_RECV_ACCEPT #2",
    );
}

#[test]
fn fragments_share_the_fate_of_their_datagram() {
    let datagram = udp(40000, 4000, &[7; 1000]);
    let pieces = |from, to| {
        vec![
            ipv4_fragment(from, to, 5, 0, true, &datagram[..504]),
            ipv4_fragment(from, to, 5, 504, false, &datagram[504..]),
        ]
    };
    assert_lines(
        &sequence(&pieces(1, 9), &[CONNECT]),
        "1 ALE_AUTH_CONNECT #1 blocked, ALE_AUTH_CONNECT_DISCARD #1
         2 no layer",
    );
    let packets: Vec<_> = pieces(1, 9).into_iter().map(|data| Owned::ip(0, data)).collect();
    assert_eq!(replay(&packets, local(&["192.0.2.1"]), &[CONNECT]).summary.blocked, 2);
    assert_lines(
        &sequence(&pieces(9, 1), &[ACCEPT]),
        "1 INBOUND_IPPACKET, waiting
         2 INBOUND_IPPACKET, INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1 blocked, ALE_AUTH_RECV_ACCEPT_DISCARD #1",
    );
    assert_lines(
        &sequence(&pieces(9, 1), &[LayerId::INBOUND_IPPACKET_V4]),
        "1 INBOUND_IPPACKET blocked, INBOUND_IPPACKET_DISCARD
         2 INBOUND_IPPACKET blocked, INBOUND_IPPACKET_DISCARD",
    );
    assert_lines(&sequence(&pieces(1, 9)[1..], &[]), "1 StrayFragment");
}

#[test]
fn malformed_packets_meet_the_network_layer_alone() {
    let mut bad_offset = tcp(40000, 80, SYN, 0);
    bad_offset[12] = 0x10;
    assert_lines(
        &sequence(&[ipv4(9, 1, 6, &bad_offset), ipv4(1, 9, 6, &bad_offset)], &[]),
        "1 INBOUND_IPPACKET, malformed (byte 32: a TCP header cannot have 1 words)
         2 OUTBOUND_IPPACKET, malformed (byte 32: a TCP header cannot have 1 words)",
    );
    let mut bad_header = ipv4(9, 1, 6, &tcp(40000, 80, SYN, 0));
    bad_header[0] = 0x42;
    assert_lines(&sequence(&[bad_header], &[]), "1 malformed (byte 0: an IPv4 header cannot have 2 words)");
    let overlong = ipv4_fragment(9, 1, 5, 65528, false, &[0; 100]);
    assert_lines(
        &sequence(&[overlong], &[]),
        "1 INBOUND_IPPACKET, malformed (byte 20: a fragment of 100 bytes at 65528 ends beyond 65535)",
    );
}
