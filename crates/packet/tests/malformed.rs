//! Packets that lie: cut headers, lengths that do not fit, extension headers without end, fragments that never end or overlap.
//! Each is counted and classified at the layers whose headers are in order, and nothing grows without bound.

mod common;

use common::build::{ACK, BOTH, SYN, Version, ethernet, ipv4, ipv4_fragment, ipv6, tcp, udp};
use common::{Owned, Replayed, assert_lines, local, replay, replay_with};
use openwfp_model::LayerId;
use openwfp_packet::fragments::ReassemblySettings;
use openwfp_packet::replay::ReplaySettings;

const LOCAL: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn run(packets: Vec<Vec<u8>>) -> Replayed {
    let packets: Vec<_> = packets.into_iter().map(|data| Owned::ip(0, data)).collect();
    replay(&packets, local(&LOCAL), &[])
}

/// What a frame meets, without flows and errors.
fn met(frame: Vec<u8>) -> String {
    let line = replay(&[Owned::frame(frame)], local(&LOCAL), &[]).lines.remove(0);
    let parts = line.split_once(' ').unwrap().1.split(", ");
    let layers = parts.map(|part| part.split(" #").next().unwrap().split(" (").next().unwrap());
    layers.filter(|layer| !layer.starts_with("flow-")).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_packet_that_is_cut_meets_the_layers_of_the_headers_that_are_whole() {
    // Ethernet, IP, TCP with the local host as the receiver, and as the sender. A station is known by its IP packets alone, so a frame
    // that is cut before the addresses of IP goes nowhere.
    let inbound = |version: Version| {
        let ether_type = if version == Version::V4 { 0x0800 } else { 0x86dd };
        (ether_type, version.packet(9, 1, 6, &tcp(40000, 80, SYN, 0)), version.packet(1, 9, 6, &tcp(40000, 80, SYN, 0)))
    };
    for version in BOTH {
        let (ether_type, arriving, leaving) = inbound(version);
        let network = 14 + arriving.len() - 20;
        let (arriving, leaving) = (ethernet(9, 1, ether_type, &arriving), ethernet(1, 9, ether_type, &leaving));
        for length in 0..=arriving.len() {
            let (expected_in, expected_out) = match length {
                _ if length < network => ("malformed", "malformed"),
                _ if length < arriving.len() => {
                    ("INBOUND_MAC, INBOUND_IPPACKET, malformed", "OUTBOUND_IPPACKET, OUTBOUND_MAC, malformed")
                }
                _ => (
                    "INBOUND_MAC, INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT, STREAM_PACKET",
                    "ALE_AUTH_CONNECT, STREAM_PACKET, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET, OUTBOUND_MAC",
                ),
            };
            assert_eq!(met(arriving[..length].to_vec()), expected_in, "{version:?} {length}");
            assert_eq!(met(leaving[..length].to_vec()), expected_out, "{version:?} {length}");
        }
    }
}

#[test]
fn lengths_that_lie_are_named_or_followed_as_far_as_there_are_bytes() {
    let good = ipv4(9, 1, 17, &udp(40000, 53, b"data"));
    let changed = |at: usize, bytes: &[u8]| {
        let mut packet = good.clone();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    let whole = "INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, DATAGRAM_DATA #1";
    let cases = [
        (changed(0, &[0x42]), "malformed (byte 0: an IPv4 header cannot have 2 words)"),
        (changed(0, &[0x4f]), "malformed (byte 2: the IPv4 total length 32 is less than the header's 60)"),
        (changed(2, &[0, 19]), "malformed (byte 2: the IPv4 total length 19 is less than the header's 20)"),
        (changed(2, &[0xff, 0xff]), whole),
        (changed(2, &[0, 24]), "INBOUND_IPPACKET, malformed (byte 24: the UDP header needs 8 bytes and 4 are there)"),
        (changed(24, &[0, 7]), "INBOUND_IPPACKET, malformed (byte 24: the UDP length 7 is less than the header's 8)"),
        (changed(24, &[0xff, 0xff]), whole),
    ];
    for (packet, expected) in cases {
        let line = run(vec![packet]).lines.remove(0);
        assert_eq!(line.split_once(' ').unwrap().1, expected);
    }
    let mut options = tcp(40000, 80, ACK, 0);
    options[12] = 0xf0;
    let line = run(vec![ipv4(9, 1, 6, &options)]).lines.remove(0);
    assert_eq!(line, "1 INBOUND_IPPACKET, malformed (byte 40: the TCP header needs 60 bytes and 20 are there)");
}

#[test]
fn extension_headers_without_end_do_not_get_past_the_network_layer() {
    let endless = ipv6(9, 1, 60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(100));
    let too_long = ipv6(9, 1, 0, &[17, 255, 1, 4, 0, 0, 0, 0]);
    let nested = {
        // A datagram in two fragments whose content is a fragment again.
        let inner = [&[17, 0, 0, 1, 0, 0, 0, 1][..], &udp(1, 2, b"")].concat();
        let piece = |at: u16, more: u16, data: &[u8]| {
            let word = (at | more).to_be_bytes();
            ipv6(9, 1, 44, &[&[44, 0, word[0], word[1], 0, 0, 0, 9][..], data].concat())
        };
        [piece(0, 1, &inner[..8]), piece(8, 0, &inner[8..])]
    };
    let [first, second] = nested;
    let lines = run(vec![endless, too_long, first, second]).lines;
    assert!(lines[0].starts_with("1 INBOUND_IPPACKET, malformed (byte "), "{}", lines[0]);
    assert!(lines[0].contains("IPv6 extension headers)"), "{}", lines[0]);
    assert!(lines[1].starts_with("2 INBOUND_IPPACKET, malformed (byte "), "{}", lines[1]);
    assert_eq!(lines[2], "3 INBOUND_IPPACKET, waiting");
    assert_eq!(
        lines[3],
        "4 INBOUND_IPPACKET, INBOUND_IPPACKET, malformed (byte 0: a fragment inside a fragmented datagram)"
    );
}

#[test]
fn overlapping_fragments_end_their_datagram() {
    let packets = vec![
        ipv4_fragment(9, 1, 5, 0, true, &[0; 16]),
        ipv4_fragment(9, 1, 5, 8, false, &[0xff; 16]),
        // What comes then begins a datagram of its own, which never becomes whole.
        ipv4_fragment(9, 1, 5, 16, false, &[0; 8]),
    ];
    let replayed = run(packets);
    assert_lines(
        &replayed.lines,
        "1 INBOUND_IPPACKET, waiting
         2 INBOUND_IPPACKET, StrayFragment
         3 INBOUND_IPPACKET, waiting",
    );
    let fragments = replayed.summary.fragments;
    assert_eq!((fragments.contradictory, fragments.waiting, fragments.reassembled), (1, 1, 0));
}

#[test]
fn fragments_that_never_end_are_given_up_by_age_number_and_size() {
    let reassembly = ReassemblySettings { datagrams: 10, bytes: 10_000 };
    let settings = ReplaySettings { reassembly, ..ReplaySettings::default() };
    let many: Vec<_> = (0..1000).map(|number| Owned::ip(0, ipv4_fragment(9, 1, number, 0, true, &[0; 64]))).collect();
    let counts = replay_with(&many, local(&LOCAL), &[], settings).summary.fragments;
    assert_eq!((counts.waiting, counts.incomplete), (10, 990));
    let large: Vec<_> =
        (0..45).map(|piece| Owned::ip(0, ipv4_fragment(9, 1, 1, piece * 1400, true, &[0; 1400]))).collect();
    let counts = replay_with(&large, local(&LOCAL), &[], settings).summary.fragments;
    assert!(counts.incomplete > 0 && counts.reassembled == 0, "{counts:?}");
    let old = [Owned::ip(0, ipv4_fragment(9, 1, 1, 0, true, &[0; 8])), Owned::ip(31, ipv4(9, 1, 17, &udp(1, 2, b"")))];
    let counts = replay_with(&old, local(&LOCAL), &[], settings).summary.fragments;
    assert_eq!((counts.waiting, counts.incomplete), (0, 1));
}

#[test]
fn impossible_control_bits_open_at_most_what_they_would_open_alone() {
    for flags in 0..=0x3fu8 {
        let packets = [(9, 1), (1, 9)].map(|(from, to)| Owned::ip(0, ipv4(from, to, 6, &tcp(40000, 80, flags, 7))));
        for order in [[0, 1], [1, 0]] {
            let replayed = replay(&order.map(|number: usize| packets[number].clone()), local(&LOCAL), &[]);
            let established = replayed.lines.iter().filter(|line| line.contains("flow-established")).count();
            let deleted = replayed.lines.iter().chain(&replayed.end).filter(|line| line.contains("flow-deleted"));
            assert_eq!(deleted.count(), established, "{flags:#x}");
            assert_eq!(replayed.summary.permitted, 2);
        }
    }
}

#[test]
fn a_malformed_packet_can_be_blocked_where_it_is_met() {
    let mut bad_offset = tcp(40000, 80, SYN, 0);
    bad_offset[12] = 0x10;
    let frames =
        [ethernet(9, 1, 0x0800, &ipv4(9, 1, 6, &bad_offset)), ethernet(1, 9, 0x0800, &ipv4(1, 9, 6, &bad_offset))];
    let packets = frames.map(Owned::frame);
    let blocks = [LayerId::INBOUND_MAC_FRAME_ETHERNET, LayerId::OUTBOUND_IPPACKET_V4];
    assert_lines(
        &replay(&packets, local(&LOCAL), &blocks).lines,
        "1 INBOUND_MAC blocked
         2 OUTBOUND_IPPACKET blocked, OUTBOUND_IPPACKET_DISCARD",
    );
}

#[test]
fn an_error_that_quotes_nonsense_is_an_error_all_the_same() {
    let quotes: [&[u8]; 4] = [b"", &[0x45], &[0xff; 40], &ipv4(1, 9, 6, &[0; 3])];
    for version in BOTH {
        for quote in quotes {
            let line = run(vec![version.port_unreachable(9, 1, quote)]).lines.remove(0);
            assert_eq!(line, "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, INBOUND_ICMP_ERROR");
        }
    }
    // An error of IPv6 that quotes IPv4, which has no address of this layer.
    let quote = ipv4(1, 9, 17, &udp(1, 2, b""));
    let line = run(vec![Version::V6.port_unreachable(9, 1, &quote)]).lines.remove(0);
    assert_eq!(line, "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, INBOUND_ICMP_ERROR");
}
