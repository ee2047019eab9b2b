//! Which layers packets meet, in which order (MS docs: TCP Packet Flows, UDP Packet Flows, Packet Inspection Points, WFP Layer
//! Requirements and Restrictions). A `#1` is the number of the flow.

mod common;

use common::build::{ACK, RST, SYN, SYN_ACK, ipv4, tcp, udp};
use common::{Owned, assert_lines, infer, local, packets, replay};

#[test]
fn a_tcp_client_meets_connect_then_established_at_the_answer() {
    let packets = packets("http.pcap");
    let replayed = replay(&packets, infer("http.pcap"), &[]);
    assert_lines(
        &replayed.lines,
        "1 ALE_AUTH_CONNECT #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         2 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1
         3 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         4 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         5 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         6 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         7 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         8 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         9 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         10 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         11 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         12 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, flow-deleted (closed) #1",
    );
    assert_eq!((replayed.summary.flows, replayed.summary.permitted, replayed.summary.classifications), (1, 12, 26));
}

#[test]
fn a_tcp_server_meets_accept_then_established_at_the_acknowledgment() {
    let expected = "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1
         2 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         3 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1
         4 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         5 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         6 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         7 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         8 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         9 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         10 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         11 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         12 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, flow-deleted (closed) #1";
    // Cooked captures say themselves that they were taken at the server; of the third the user says so.
    for name in ["sll.pcap", "sll2.pcap"] {
        let packets = packets(name);
        assert_lines(&replay(&packets, infer(name), &[]).lines, expected);
    }
    assert_lines(&replay(&packets("http.pcap"), local(&["192.0.2.80"]), &[]).lines, expected);
}

#[test]
fn udp_is_established_with_its_authorization() {
    let client = "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         2 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         3 ALE_AUTH_CONNECT #2, ALE_FLOW_ESTABLISHED #2, flow-established #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2
         4 INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2";
    for name in ["dns.pcapng", "vlan.pcap"] {
        let packets = packets(name);
        assert_lines(&replay(&packets, infer(name), &[]).lines, client);
    }
    let server = local(&["192.0.2.80", "2001:db8::80"]);
    assert_lines(
        &replay(&packets("dns.pcapng"), server, &[]).lines,
        "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1
         2 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         3 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #2, ALE_FLOW_ESTABLISHED #2, flow-established #2
         4 OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2",
    );
}

#[test]
fn interfaces_of_one_capture_share_its_flows() {
    let packets = packets("two-interfaces.pcapng");
    let replayed = replay(&packets, infer("two-interfaces.pcapng"), &[]);
    assert_eq!((replayed.summary.packets, replayed.summary.permitted, replayed.summary.flows), (8, 8, 4));
    assert!(replayed.lines[4].starts_with("5 ALE_AUTH_CONNECT #3, ALE_FLOW_ESTABLISHED #3"), "another port");
}

#[test]
fn echoes_are_flows_and_errors_bear_the_flow_that_they_are_about() {
    let packets = packets("ping.pcap");
    assert_lines(
        &replay(&packets, infer("ping.pcap"), &[]).lines,
        "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         2 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         3 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         4 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         5 ALE_AUTH_CONNECT #2, ALE_FLOW_ESTABLISHED #2, flow-established #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2
         6 INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2
         7 OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2
         8 INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2
         9 ALE_AUTH_CONNECT #3, ALE_FLOW_ESTABLISHED #3, flow-established #3, OUTBOUND_TRANSPORT #3, OUTBOUND_IPPACKET #3
         10 INBOUND_IPPACKET #3, INBOUND_TRANSPORT #3
         11 ALE_AUTH_CONNECT #4, ALE_FLOW_ESTABLISHED #4, flow-established #4, OUTBOUND_TRANSPORT #4, OUTBOUND_IPPACKET #4
         12 INBOUND_IPPACKET #4, INBOUND_TRANSPORT #4",
    );
}

#[test]
fn fragments_are_seen_one_by_one_arriving_and_as_one_datagram_leaving() {
    let packets = packets("fragments.pcap");
    let replayed = replay(&packets, infer("fragments.pcap"), &[]);
    assert_lines(
        &replayed.lines,
        "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         2 no layer
         3 no layer
         4 INBOUND_IPPACKET, waiting
         5 INBOUND_IPPACKET, waiting
         6 INBOUND_IPPACKET, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         7 ALE_AUTH_CONNECT #2, ALE_FLOW_ESTABLISHED #2, flow-established #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2
         8 no layer
         9 no layer
         10 INBOUND_IPPACKET, waiting
         11 INBOUND_IPPACKET, waiting
         12 INBOUND_IPPACKET, INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2",
    );
    assert_eq!((replayed.summary.permitted, replayed.summary.fragments.reassembled), (12, 2));
}

#[test]
fn a_packet_over_loopback_leaves_and_then_arrives() {
    let packets = packets("loopback.pcap");
    let replayed = replay(&packets, infer("loopback.pcap"), &[]);
    assert_lines(
        &replayed.lines[..4],
        "1 ALE_AUTH_CONNECT #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #2
         2 OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1
         3 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2, ALE_FLOW_ESTABLISHED #2, flow-established #2
         4 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2",
    );
    assert!(replayed.lines[11].ends_with("flow-deleted (closed) #1"), "{}", replayed.lines[11]);
}

#[test]
fn a_connection_that_nobody_accepts_is_never_established() {
    let packets = packets("refused.pcap");
    assert_lines(
        &replay(&packets, infer("refused.pcap"), &[]).lines,
        "1 ALE_AUTH_CONNECT #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         2 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1
         3 ALE_AUTH_CONNECT #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2
         4 INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2",
    );
}

fn sequence(packets: &[(u64, Vec<u8>)]) -> Vec<String> {
    let packets: Vec<_> = packets.iter().map(|(seconds, data)| Owned::ip(*seconds, data.clone())).collect();
    replay(&packets, local(&["192.0.2.1"]), &[]).lines
}

#[test]
fn a_connection_from_before_the_capture_is_picked_up_at_the_layer_that_once_authorized_it() {
    // Who opened it: told by the answer to a SYN, by the one system port, or by the first packet.
    let cases = [
        (
            ipv4(9, 1, 6, &tcp(80, 40000, SYN_ACK, 0)),
            "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1",
        ),
        (
            ipv4(1, 9, 6, &tcp(80, 40000, SYN_ACK, 0)),
            "1 ALE_AUTH_RECV_ACCEPT #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1",
        ),
        (
            ipv4(9, 1, 6, &tcp(80, 40000, ACK, 0)),
            "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1",
        ),
        (
            ipv4(9, 1, 6, &tcp(40000, 80, ACK, 0)),
            "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1",
        ),
        (
            ipv4(1, 9, 6, &tcp(40000, 80, ACK, 0)),
            "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1",
        ),
        (
            ipv4(1, 9, 6, &tcp(80, 40000, ACK, 0)),
            "1 ALE_AUTH_RECV_ACCEPT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1",
        ),
        (
            ipv4(1, 9, 6, &tcp(40000, 40001, ACK, 0)),
            "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1",
        ),
        (ipv4(9, 1, 6, &tcp(40000, 80, RST, 0)), "1 INBOUND_IPPACKET, INBOUND_TRANSPORT"),
        (
            ipv4(1, 9, 1, &[0, 0, 0, 0, 0, 7, 0, 1]),
            "1 ALE_AUTH_RECV_ACCEPT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1",
        ),
    ];
    for (packet, expected) in cases {
        assert_lines(&sequence(&[(0, packet)]), expected);
    }
}

#[test]
fn a_repeated_syn_asks_once_and_a_new_one_again() {
    let syn = |sequence| ipv4(1, 9, 6, &tcp(40000, 80, SYN, sequence));
    assert_lines(
        &sequence(&[(0, syn(1)), (1, syn(1)), (3, syn(2))]),
        "1 ALE_AUTH_CONNECT #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         2 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         3 ALE_AUTH_CONNECT #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2",
    );
}

#[test]
fn an_idle_udp_flow_is_asked_about_anew() {
    let datagram = || ipv4(1, 9, 17, &udp(40000, 4000, b"x"));
    assert_lines(
        &sequence(&[(0, datagram()), (59, datagram()), (118, datagram()), (178, datagram())]),
        "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         2 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         3 OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         4 flow-deleted (idle) #1, ALE_AUTH_CONNECT #2, ALE_FLOW_ESTABLISHED #2, flow-established #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2",
    );
}

#[test]
fn every_remote_endpoint_is_authorized_by_itself() {
    let to = |host, port| ipv4(1, host, 17, &udp(40000, port, b"x"));
    let lines = sequence(&[(0, to(9, 53)), (0, to(9, 54)), (0, to(8, 53)), (0, to(9, 53))]);
    let asked: Vec<_> = lines.iter().map(|line| line.contains("ALE_AUTH_CONNECT")).collect();
    assert_eq!(asked, [true, true, true, false]);
}

#[test]
fn protocols_without_ports_are_treated_like_udp() {
    assert_lines(
        &sequence(&[(0, ipv4(1, 9, 47, &[0; 4])), (1, ipv4(9, 1, 47, &[0; 4]))]),
        "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         2 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1",
    );
}

#[test]
fn packets_between_others_meet_no_layer() {
    assert_lines(&sequence(&[(0, ipv4(7, 9, 6, &tcp(40000, 80, SYN, 0)))]), "1 Elsewhere");
}
