//! "UDP Packet Flows" of the public documentation, step by step, for IPv4 and IPv6, at the client and at the server: what
//! holds for UDP holds for every protocol but TCP.

mod common;

use common::build::{BOTH, Version, ipv4, udp};
use common::{Owned, assert_lines, assert_steps, infer, local, packets, replay};
use openwfp_model::LayerId;

/// The local host of every table, which ends in 1; the remote one ends in 9.
const LOCAL: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

const FIRST_SENT: &str =
    "ALE_AUTH_CONNECT, ALE_FLOW_ESTABLISHED, flow-established, DATAGRAM_DATA, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET";
const FIRST_RECEIVED: &str =
    "INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT, ALE_FLOW_ESTABLISHED, flow-established, DATAGRAM_DATA";
const SENT: &str = "DATAGRAM_DATA, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET";
const RECEIVED: &str = "INBOUND_IPPACKET, INBOUND_TRANSPORT, DATAGRAM_DATA";

fn datagram(version: Version, from: u8, to: u8, ports: [u16; 2]) -> Vec<u8> {
    version.packet(from, to, 17, &udp(ports[0], ports[1], b"data"))
}

#[test]
fn connection_establishment_at_the_client_and_at_the_server() {
    for version in BOTH {
        assert_steps(
            &LOCAL,
            &[
                ("sendto; data; UDP message", datagram(version, 1, 9, [40000, 53]), FIRST_SENT),
                ("its answer", datagram(version, 9, 1, [53, 40000]), RECEIVED),
                ("data again", datagram(version, 1, 9, [40000, 53]), SENT),
            ],
        );
        assert_steps(
            &LOCAL,
            &[
                ("UDP message; data", datagram(version, 9, 1, [40000, 53]), FIRST_RECEIVED),
                ("its answer", datagram(version, 1, 9, [53, 40000]), SENT),
                ("data again", datagram(version, 9, 1, [40000, 53]), RECEIVED),
            ],
        );
    }
}

#[test]
fn message_received_with_no_one_listening_on_the_port() {
    for version in BOTH {
        let message = datagram(version, 9, 1, [40000, 81]);
        let error = version.port_unreachable(1, 9, &message);
        assert_steps(
            &LOCAL,
            &[
                ("IP datagram", message.clone(), "INBOUND_IPPACKET, INBOUND_IPPACKET_DISCARD, Unheard"),
                ("ICMP Dest Unreachable", error.clone(), "OUTBOUND_ICMP_ERROR, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET"),
                (
                    "IP datagram, when somebody listens",
                    version.packet(9, 1, 17, &udp(40000, 81, b"and more")),
                    FIRST_RECEIVED,
                ),
            ],
        );
        // "Block this packet at IPPACKET discard to cause the stack not to send the corresponding event."
        let discards = [LayerId::INBOUND_IPPACKET_V4_DISCARD, LayerId::INBOUND_IPPACKET_V6_DISCARD];
        let packets = [message, error].map(|packet| Owned::ip(0, packet));
        let replayed = replay(&packets, local(&LOCAL), &discards);
        assert_lines(
            &replayed.lines,
            "1 INBOUND_IPPACKET, INBOUND_IPPACKET_DISCARD blocked, Unheard
             2 flow-blocked by INBOUND_IPPACKET_DISCARD",
        );
        assert_eq!((replayed.summary.unheard, replayed.summary.permitted, replayed.summary.blocked), (1, 1, 1));
    }
}

#[test]
fn an_icmp_error_at_the_client() {
    for version in BOTH {
        let message = datagram(version, 1, 9, [40000, 81]);
        assert_steps(
            &LOCAL,
            &[
                ("UDP message", message.clone(), FIRST_SENT),
                (
                    "ICMP Dest Unreachable",
                    version.port_unreachable(9, 1, &message),
                    "INBOUND_IPPACKET, INBOUND_TRANSPORT, INBOUND_ICMP_ERROR",
                ),
            ],
        );
    }
}

#[test]
fn icmp_echo_in_both_directions() {
    for version in BOTH {
        assert_steps(
            &LOCAL,
            &[
                ("echo request", version.echo(1, 9, false), FIRST_SENT),
                ("echo reply", version.echo(9, 1, true), RECEIVED),
                ("echo request again", version.echo(1, 9, false), SENT),
            ],
        );
        assert_steps(
            &LOCAL,
            &[
                ("echo request", version.echo(9, 1, false), FIRST_RECEIVED),
                ("echo reply", version.echo(1, 9, true), SENT),
                ("echo request again", version.echo(9, 1, false), RECEIVED),
            ],
        );
        // Both sides ask, with the same identifier: each request has to be authorized.
        assert_steps(
            &LOCAL,
            &[
                ("echo request", version.echo(1, 9, false), FIRST_SENT),
                ("echo request of the other side", version.echo(9, 1, false), FIRST_RECEIVED),
                ("its reply", version.echo(1, 9, true), SENT),
                ("echo reply", version.echo(9, 1, true), RECEIVED),
            ],
        );
        // A reply whose request came before the capture.
        assert_steps(
            &LOCAL,
            &[(
                "echo reply",
                version.echo(1, 9, true),
                &FIRST_SENT.replace("ALE_AUTH_CONNECT", "ALE_AUTH_RECV_ACCEPT"),
            )],
        );
    }
}

#[test]
fn protocols_without_ports_are_treated_like_udp() {
    for version in BOTH {
        assert_steps(
            &LOCAL,
            &[
                ("GRE sent", version.packet(1, 9, 47, &[0; 4]), FIRST_SENT),
                ("GRE received", version.packet(9, 1, 47, &[0; 4]), RECEIVED),
            ],
        );
    }
}

#[test]
fn real_questions_and_answers() {
    let client = "1 ALE_AUTH_CONNECT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, DATAGRAM_DATA #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         2 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, DATAGRAM_DATA #1
         3 ALE_AUTH_CONNECT #2, ALE_FLOW_ESTABLISHED #2, flow-established #2, DATAGRAM_DATA #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2, OUTBOUND_MAC #2
         4 INBOUND_MAC #2, INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2, DATAGRAM_DATA #2";
    for name in ["dns.pcapng", "vlan.pcap"] {
        let replayed = replay(&packets(name), infer(name), &[]);
        assert_lines(&replayed.lines, client);
        assert_lines(&replayed.end, "flow-deleted (end-of-capture) #1\nflow-deleted (end-of-capture) #2");
    }
    let server = local(&["192.0.2.80", "2001:db8::80"]);
    assert_lines(
        &replay(&packets("dns.pcapng"), server, &[]).lines,
        "1 INBOUND_MAC, INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1, ALE_FLOW_ESTABLISHED #1, flow-established #1, DATAGRAM_DATA #1
         2 DATAGRAM_DATA #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         3 INBOUND_MAC, INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #2, ALE_FLOW_ESTABLISHED #2, flow-established #2, DATAGRAM_DATA #2
         4 DATAGRAM_DATA #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2, OUTBOUND_MAC #2",
    );
}

#[test]
fn real_echoes_and_the_errors_that_bear_the_flow_that_they_are_about() {
    let lines = replay(&packets("ping.pcap"), infer("ping.pcap"), &[]).lines;
    let echo = |flow: u64, frame: u64| {
        format!(
            "{frame} ALE_AUTH_CONNECT #{flow}, ALE_FLOW_ESTABLISHED #{flow}, flow-established #{flow}, DATAGRAM_DATA #{flow}, OUTBOUND_TRANSPORT #{flow}, OUTBOUND_IPPACKET #{flow}, OUTBOUND_MAC #{flow}"
        )
    };
    for (flow, frame) in [(1, 1), (2, 5), (3, 9), (4, 11)] {
        assert_eq!(lines[frame as usize - 1], echo(flow, frame));
    }
    assert_lines(
        &lines[1..4],
        "2 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, DATAGRAM_DATA #1
         3 DATAGRAM_DATA #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         4 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, DATAGRAM_DATA #1",
    );
    assert_eq!(lines[9], "10 INBOUND_MAC #3, INBOUND_IPPACKET #3, INBOUND_TRANSPORT #3, INBOUND_ICMP_ERROR #3");
    assert_eq!(lines[11], "12 INBOUND_MAC #4, INBOUND_IPPACKET #4, INBOUND_TRANSPORT #4, INBOUND_ICMP_ERROR #4");
}

#[test]
fn every_remote_endpoint_is_authorized_by_itself() {
    let to = |host, port| Owned::ip(0, ipv4(1, host, 17, &udp(40000, port, b"x")));
    let lines = replay(&[to(9, 53), to(9, 54), to(8, 53), to(9, 53)], local(&LOCAL), &[]).lines;
    let asked: Vec<_> = lines.iter().map(|line| line.contains("ALE_AUTH_CONNECT")).collect();
    assert_eq!(asked, [true, true, true, false]);
}

#[test]
fn interfaces_of_one_capture_share_its_flows() {
    let packets = packets("two-interfaces.pcapng");
    let replayed = replay(&packets, infer("two-interfaces.pcapng"), &[]);
    assert_eq!((replayed.summary.packets, replayed.summary.permitted, replayed.summary.flows), (8, 8, 4));
    assert!(replayed.lines[4].starts_with("5 ALE_AUTH_CONNECT #3, ALE_FLOW_ESTABLISHED #3"), "another port");
}
