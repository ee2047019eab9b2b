//! "TCP Packet Flows" of the public documentation, step by step, for IPv4 and IPv6, at the client and at the server.
//!
//! Steps without a packet (bind, listen, accept) are left out: no capture shows them. STREAM_PACKET, which the page does not
//! list, stands between the connection and its packets.

mod common;

use common::build::{ACK, BOTH, FIN_ACK, RST_ACK, SYN, SYN_ACK, Version, tcp, tcp_data};
use common::{Owned, assert_lines, assert_steps, infer, local, packets, replay};
use openwfp_model::LayerId;
use openwfp_packet::replay::{Decision, Replay, ReplaySettings, Step};

/// The local host of every table, which ends in 1; the remote one ends in 9.
const LOCAL: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

const SENT: &str = "STREAM_PACKET, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET";
const RECEIVED: &str = "INBOUND_IPPACKET, INBOUND_TRANSPORT, STREAM_PACKET";

/// A segment of a connection of the client's port 40000 to the server's port 80.
fn from_client(version: Version, [client, server]: [u8; 2], flags: u8, numbers: [u32; 2], data: &[u8]) -> Vec<u8> {
    version.packet(client, server, 6, &tcp_data(40000, 80, flags, numbers, data))
}

fn from_server(version: Version, [client, server]: [u8; 2], flags: u8, numbers: [u32; 2], data: &[u8]) -> Vec<u8> {
    version.packet(server, client, 6, &tcp_data(80, 40000, flags, numbers, data))
}

#[test]
fn connection_establishment_at_the_client() {
    for version in BOTH {
        let hosts = [1, 9];
        assert_steps(
            &LOCAL,
            &[
                (
                    "connect; SYN",
                    from_client(version, hosts, SYN, [100, 0], b""),
                    "ALE_AUTH_CONNECT, STREAM_PACKET, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET",
                ),
                (
                    "SYN-ACK",
                    from_server(version, hosts, SYN_ACK, [500, 101], b""),
                    "INBOUND_IPPACKET, INBOUND_TRANSPORT, STREAM_PACKET, ALE_FLOW_ESTABLISHED, flow-established",
                ),
                ("ACK", from_client(version, hosts, ACK, [101, 501], b""), SENT),
            ],
        );
    }
}

#[test]
fn connection_establishment_at_the_server() {
    for version in BOTH {
        let hosts = [9, 1];
        assert_steps(
            &LOCAL,
            &[
                (
                    "SYN",
                    from_client(version, hosts, SYN, [100, 0], b""),
                    "INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT, STREAM_PACKET",
                ),
                ("SYN-ACK", from_server(version, hosts, SYN_ACK, [500, 101], b""), SENT),
                (
                    "ACK",
                    from_client(version, hosts, ACK, [101, 501], b""),
                    "INBOUND_IPPACKET, INBOUND_TRANSPORT, STREAM_PACKET, ALE_FLOW_ESTABLISHED, flow-established",
                ),
            ],
        );
    }
}

#[test]
fn syn_received_with_no_one_listening_on_the_port() {
    for version in BOTH {
        let hosts = [9, 1];
        let syn = from_client(version, hosts, SYN, [100, 0], b"");
        let rst = from_server(version, hosts, RST_ACK, [0, 101], b"");
        assert_steps(
            &LOCAL,
            &[
                ("SYN", syn.clone(), "INBOUND_IPPACKET, INBOUND_TRANSPORT_DISCARD, Unheard"),
                ("RST", rst.clone(), "OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET"),
                (
                    "SYN, when somebody listens",
                    from_client(version, hosts, SYN, [200, 0], b""),
                    "INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT, STREAM_PACKET",
                ),
            ],
        );
        // "Block this packet at TRANSPORT discard to cause the stack not to send the corresponding event."
        let discards = [LayerId::INBOUND_TRANSPORT_V4_DISCARD, LayerId::INBOUND_TRANSPORT_V6_DISCARD];
        let packets = [syn, rst].map(|packet| Owned::ip(0, packet));
        assert_lines(
            &replay(&packets, local(&LOCAL), &discards).lines,
            "1 INBOUND_IPPACKET, INBOUND_TRANSPORT_DISCARD blocked, Unheard
             2 flow-blocked by INBOUND_TRANSPORT_DISCARD",
        );
    }
}

#[test]
fn without_a_look_at_the_answers_a_syn_is_taken_for_one_that_can_be_accepted() {
    let packets = [
        from_client(Version::V4, [9, 1], SYN, [100, 0], b""),
        from_server(Version::V4, [9, 1], RST_ACK, [0, 101], b""),
    ];
    let mut replay = Replay::new(local(&LOCAL), ReplaySettings::default());
    let mut met = Vec::new();
    for (packet, frame) in packets.into_iter().map(|packet| Owned::ip(0, packet)).zip(1..) {
        replay.packet(&packet.record(frame), &mut |step: &Step<'_>| {
            met.push(step.layer.name().replace("_V4", ""));
            Decision::Permit
        });
    }
    assert_eq!(
        met.join(", "),
        "INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT, STREAM_PACKET, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET, ALE_ENDPOINT_CLOSURE"
    );
}

#[test]
fn a_refused_connect_at_the_client() {
    for version in BOTH {
        let hosts = [1, 9];
        assert_steps(
            &LOCAL,
            &[
                (
                    "connect; SYN",
                    from_client(version, hosts, SYN, [100, 0], b""),
                    "ALE_AUTH_CONNECT, STREAM_PACKET, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET",
                ),
                (
                    "RST",
                    from_server(version, hosts, RST_ACK, [0, 101], b""),
                    "INBOUND_IPPACKET, INBOUND_TRANSPORT, STREAM_PACKET, ALE_ENDPOINT_CLOSURE",
                ),
            ],
        );
    }
}

/// What a connection meets after its establishment, as one side sees it.
fn after_establishment(version: Version, hosts: [u8; 2], from_here: bool) -> Vec<(&'static str, Vec<u8>, String)> {
    let sent = |data: bool| if data { "STREAM, STREAM_PACKET, OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET" } else { SENT };
    let received =
        |data: bool| if data { "INBOUND_IPPACKET, INBOUND_TRANSPORT, STREAM_PACKET, STREAM" } else { RECEIVED };
    let client = |data| if from_here { sent(data) } else { received(data) };
    let server = |data| if from_here { received(data) } else { sent(data) };
    let last = format!("{}, ALE_ENDPOINT_CLOSURE, flow-deleted (closed)", server(false));
    vec![
        ("data from the client", from_client(version, hosts, ACK, [101, 501], b"request"), client(true).to_owned()),
        ("data from the server", from_server(version, hosts, ACK, [501, 108], b"answer"), server(true).to_owned()),
        ("acknowledgment", from_client(version, hosts, ACK, [108, 507], b""), client(false).to_owned()),
        ("data sent again", from_server(version, hosts, ACK, [501, 108], b"answer"), server(false).to_owned()),
        ("keep-alive", from_client(version, hosts, ACK, [107, 507], b""), client(false).to_owned()),
        ("FIN", from_server(version, hosts, FIN_ACK, [507, 108], b""), server(false).to_owned()),
        ("FIN", from_client(version, hosts, FIN_ACK, [108, 508], b""), client(false).to_owned()),
        ("the last of the client", from_client(version, hosts, ACK, [109, 508], b""), client(false).to_owned()),
        ("the last of the server", from_server(version, hosts, ACK, [508, 109], b""), last),
        ("late", from_server(version, hosts, ACK, [508, 109], b"late"), server(false).to_owned()),
    ]
}

#[test]
fn data_transmitted_over_a_connection_and_its_termination() {
    for version in BOTH {
        for (hosts, from_here) in [([1, 9], true), ([9, 1], false)] {
            let mut steps = vec![
                ("SYN", from_client(version, hosts, SYN, [100, 0], b""), String::new()),
                ("SYN-ACK", from_server(version, hosts, SYN_ACK, [500, 101], b""), String::new()),
                ("ACK", from_client(version, hosts, ACK, [101, 501], b""), String::new()),
            ];
            steps.extend(after_establishment(version, hosts, from_here));
            let packets: Vec<_> = steps.iter().map(|(_, packet, _)| Owned::ip(0, packet.clone())).collect();
            let lines = replay(&packets, local(&LOCAL), &[]).lines;
            for (line, (step, _, expected)) in lines.iter().zip(&steps).skip(3) {
                let (_, met) = line.split_once(' ').unwrap();
                assert_eq!(met.replace(" #1", ""), *expected, "{version:?} {step}");
            }
        }
    }
}

#[test]
fn a_real_exchange_at_the_client() {
    let replayed = replay(&packets("http.pcap"), infer("http.pcap"), &[]);
    assert_lines(
        &replayed.lines,
        "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         2 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1, ALE_FLOW_ESTABLISHED #1, flow-established #1
         3 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         4 STREAM #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         5 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1
         6 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1, STREAM #1
         7 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         8 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1, STREAM #1
         9 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         10 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1
         11 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         12 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1, ALE_ENDPOINT_CLOSURE #1, flow-deleted (closed) #1",
    );
    assert_eq!((replayed.summary.flows, replayed.summary.permitted, replayed.summary.classifications), (1, 12, 54));
    let stream = replayed.stream();
    assert!(stream[0].starts_with("GET / HTTP/1.1\r\n"), "{stream:?}");
    assert!(stream[1].starts_with("HTTP/1.0 200 OK\r\n"), "{stream:?}");
    assert_eq!(stream[2], "hello from port 80\n");
}

#[test]
fn a_real_exchange_at_the_server() {
    let expected = "1 INBOUND_IPPACKET, INBOUND_TRANSPORT, ALE_AUTH_RECV_ACCEPT #1, STREAM_PACKET #1
         2 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         3 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1, ALE_FLOW_ESTABLISHED #1, flow-established #1
         4 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1, STREAM #1
         5 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         6 STREAM #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         7 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1
         8 STREAM #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         9 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1
         10 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         11 INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1
         12 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, ALE_ENDPOINT_CLOSURE #1, flow-deleted (closed) #1";
    // Cooked captures say themselves that they were taken at the server; of an Ethernet capture the user says so, and it has frames.
    for name in ["sll.pcap", "sll2.pcap"] {
        assert_lines(&replay(&packets(name), infer(name), &[]).lines, expected);
    }
    let given = replay(&packets("http.pcap"), local(&["192.0.2.80"]), &[]).lines;
    let without_frames: Vec<_> = given
        .iter()
        .map(|line| line.replace("INBOUND_MAC #1, ", "").replace("INBOUND_MAC, ", "").replace(", OUTBOUND_MAC #1", ""))
        .collect();
    assert_lines(&without_frames, expected);
}

#[test]
fn a_repeated_syn_asks_once_and_a_new_one_again() {
    let syn = |sequence| Owned::ip(0, Version::V4.packet(1, 9, 6, &tcp(40000, 80, SYN, sequence)));
    assert_lines(
        &replay(&[syn(1), syn(1), syn(2)], local(&LOCAL), &[]).lines,
        "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         2 STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1
         3 ALE_ENDPOINT_CLOSURE #1, ALE_AUTH_CONNECT #2, STREAM_PACKET #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2",
    );
}

#[test]
fn a_connection_that_nobody_accepts_is_never_established() {
    let packets = packets("refused.pcap");
    assert_lines(
        &replay(&packets, infer("refused.pcap"), &[]).lines,
        "1 ALE_AUTH_CONNECT #1, STREAM_PACKET #1, OUTBOUND_TRANSPORT #1, OUTBOUND_IPPACKET #1, OUTBOUND_MAC #1
         2 INBOUND_MAC #1, INBOUND_IPPACKET #1, INBOUND_TRANSPORT #1, STREAM_PACKET #1, ALE_ENDPOINT_CLOSURE #1
         3 ALE_AUTH_CONNECT #2, STREAM_PACKET #2, OUTBOUND_TRANSPORT #2, OUTBOUND_IPPACKET #2, OUTBOUND_MAC #2
         4 INBOUND_MAC #2, INBOUND_IPPACKET #2, INBOUND_TRANSPORT #2, STREAM_PACKET #2, ALE_ENDPOINT_CLOSURE #2",
    );
}

#[test]
fn a_connection_from_before_the_capture_is_picked_up_at_the_layer_that_once_authorized_it() {
    // Who opened it: told by the answer to a SYN, by the one system port, or by the first packet.
    let established = "ALE_FLOW_ESTABLISHED, flow-established";
    let here = |authorizing: &str| {
        format!("{RECEIVED}, {established}").replace("STREAM_PACKET", &format!("{authorizing}, STREAM_PACKET"))
    };
    let there = |authorizing: &str| format!("{authorizing}, {established}, {SENT}");
    let (connect, accept) = ("ALE_AUTH_CONNECT", "ALE_AUTH_RECV_ACCEPT");
    let cases = [
        ([9, 1], (80, 40000, SYN_ACK), here(connect)),
        ([1, 9], (80, 40000, SYN_ACK), format!("{accept}, {SENT}")),
        ([9, 1], (80, 40000, ACK), here(connect)),
        ([9, 1], (40000, 80, ACK), here(accept)),
        ([1, 9], (40000, 80, ACK), there(connect)),
        ([1, 9], (80, 40000, ACK), there(accept)),
        ([1, 9], (40000, 40001, ACK), there(connect)),
        ([9, 1], (40000, 80, RST_ACK), "INBOUND_IPPACKET, INBOUND_TRANSPORT".to_owned()),
        ([1, 9], (40000, 80, RST_ACK), "OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET".to_owned()),
    ];
    for version in BOTH {
        for ([from, to], (source, destination, flags), expected) in &cases {
            let packet = version.packet(*from, *to, 6, &tcp(*source, *destination, *flags, 0));
            assert_steps(&LOCAL, &[("the first packet", packet, expected)]);
        }
    }
}
