//! What a replay meets of traffic over loopback, step by step, on both sides, for IPv4 and IPv6: each packet leaves and then arrives.
//! The client's flow is #1, the server's #2.
//!
//! `crates/kernel/tests/loopback.rs` has the same tables of live traffic, with the calls that no packet shows.

mod common;

use common::build::{ACK, BOTH, FIN_ACK, RST_ACK, SYN, SYN_ACK, Version, tcp_data, udp};
use common::{Owned, Replayed, local, replay};

/// Both ends.
const LOCAL: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const HERE: u8 = 1;

const CLIENT: u16 = 40000;
const SERVER: u16 = 80;

/// What is between the endpoints.
const SENT: &str = "OUTBOUND_TRANSPORT, OUTBOUND_IPPACKET";
const RECEIVED: &str = "INBOUND_IPPACKET, INBOUND_TRANSPORT";

/// Layers with the flow that they are told.
fn of(flow: u8, layers: &str) -> String {
    layers.split(", ").map(|layer| format!("{layer} #{flow}")).collect::<Vec<_>>().join(", ")
}

/// Replays the steps and compares what each packet meets.
#[track_caller]
fn assert_steps(version: Version, steps: &[(&str, Vec<u8>, String)]) -> Replayed {
    let packets: Vec<Owned> = steps.iter().map(|(_, packet, _)| Owned::ip(0, packet.clone())).collect();
    let replayed = replay(&packets, local(&LOCAL), &[]);
    for (line, (step, _, expected)) in replayed.lines.iter().zip(steps) {
        let (_, met) = line.split_once(' ').unwrap();
        assert_eq!(met, *expected, "{version:?} {step}");
    }
    replayed
}

#[test]
fn a_tcp_connection() {
    for version in BOTH {
        let segment = |ports: [u16; 2], flags, numbers, data: &[u8]| {
            version.packet(HERE, HERE, 6, &tcp_data(ports[0], ports[1], flags, numbers, data))
        };
        let request = |flags, numbers, data: &[u8]| segment([CLIENT, SERVER], flags, numbers, data);
        let answer = |flags, numbers, data: &[u8]| segment([SERVER, CLIENT], flags, numbers, data);
        let passes = |from, to| {
            let (sent, received) = (of(from, &format!("STREAM_PACKET, {SENT}")), of(to, RECEIVED));
            format!("{sent}, {received}, STREAM_PACKET #{to}")
        };
        let with_data = |from, to| format!("STREAM #{from}, {}, STREAM #{to}", passes(from, to));
        let (forth, back) = (passes(1, 2), passes(2, 1));
        let established = |flow| format!("ALE_FLOW_ESTABLISHED #{flow}, flow-established #{flow}");
        let closed = |flow| format!("ALE_ENDPOINT_CLOSURE #{flow}, flow-deleted (closed) #{flow}");
        let first = of(1, &format!("ALE_AUTH_CONNECT, STREAM_PACKET, {SENT}"));
        let accepted = of(2, "ALE_AUTH_RECV_ACCEPT, STREAM_PACKET");
        let replayed = assert_steps(
            version,
            &[
                ("connect; SYN", request(SYN, [100, 0], b""), format!("{first}, {RECEIVED}, {accepted}")),
                ("SYN-ACK", answer(SYN_ACK, [500, 101], b""), format!("{back}, {}", established(1))),
                ("ACK", request(ACK, [101, 501], b""), format!("{forth}, {}", established(2))),
                ("data", request(ACK, [101, 501], b"request"), with_data(1, 2)),
                ("its acknowledgment", answer(ACK, [501, 108], b""), back.clone()),
                ("data of the answer", answer(ACK, [501, 108], b"answer"), with_data(2, 1)),
                ("its acknowledgment", request(ACK, [108, 507], b""), forth.clone()),
                ("FIN", request(FIN_ACK, [108, 507], b""), forth.clone()),
                ("its acknowledgment", answer(ACK, [507, 109], b""), back.clone()),
                ("FIN", answer(FIN_ACK, [507, 109], b""), back),
                // the client has closed before it arrives
                (
                    "its acknowledgment",
                    request(ACK, [109, 508], b""),
                    format!("{forth}, {}", closed(2)).replace("IPPACKET #1", &format!("IPPACKET #1, {}", closed(1))),
                ),
            ],
        );
        assert_eq!((replayed.summary.flows, replayed.summary.permitted), (2, 11));
        assert_eq!(replayed.stream(), ["request", "request", "answer", "answer"]);
    }
}

#[test]
fn a_connection_that_nobody_listens_for() {
    for version in BOTH {
        let segment = |ports: [u16; 2], flags, numbers| {
            version.packet(HERE, HERE, 6, &tcp_data(ports[0], ports[1], flags, numbers, b""))
        };
        let first = of(1, &format!("ALE_AUTH_CONNECT, STREAM_PACKET, {SENT}"));
        let last = of(1, &format!("{RECEIVED}, STREAM_PACKET, ALE_ENDPOINT_CLOSURE"));
        assert_steps(
            version,
            &[
                (
                    "connect; SYN",
                    segment([CLIENT, SERVER], SYN, [100, 0]),
                    format!("{first}, INBOUND_IPPACKET, INBOUND_TRANSPORT_DISCARD, Unheard"),
                ),
                ("RST", segment([SERVER, CLIENT], RST_ACK, [0, 101]), format!("{SENT}, {last}")),
            ],
        );
    }
}

/// What datagrams and messages of one kind meet.
fn without_connection(version: Version, request: &[u8], reply: &[u8], protocol: u8) {
    let established = "ALE_FLOW_ESTABLISHED, flow-established";
    let sent = format!("DATAGRAM_DATA, {SENT}");
    let received = format!("{RECEIVED}, DATAGRAM_DATA");
    let first = of(1, &format!("ALE_AUTH_CONNECT, {established}, {sent}"));
    let accepted = of(2, &format!("ALE_AUTH_RECV_ACCEPT, {established}, DATAGRAM_DATA"));
    let packet = |payload: &[u8]| version.packet(HERE, HERE, protocol, payload);
    assert_steps(
        version,
        &[
            ("request", packet(request), format!("{first}, {RECEIVED}, {accepted}")),
            ("reply", packet(reply), format!("{}, {}", of(2, &sent), of(1, &received))),
            ("request again", packet(request), format!("{}, {}", of(1, &sent), of(2, &received))),
        ],
    );
}

#[test]
fn a_udp_request_and_its_reply() {
    for version in BOTH {
        without_connection(version, &udp(CLIENT, SERVER, b"request"), &udp(SERVER, CLIENT, b"reply"), 17);
    }
}

#[test]
fn an_echo_request_and_its_reply() {
    for version in BOTH {
        let (protocol, [request, reply]) = if version == Version::V4 { (1, [8, 0]) } else { (58, [128, 129]) };
        let message = |kind| [kind, 0, 0, 0, 0, 7, 0, 1];
        without_connection(version, &message(request), &message(reply), protocol);
    }
}

#[test]
fn a_datagram_that_nobody_listens_for() {
    for version in BOTH {
        let message = version.packet(HERE, HERE, 17, &udp(CLIENT, SERVER, b"request"));
        let error = version.port_unreachable(HERE, HERE, &message);
        let first = of(1, &format!("ALE_AUTH_CONNECT, ALE_FLOW_ESTABLISHED, flow-established, DATAGRAM_DATA, {SENT}"));
        assert_steps(
            version,
            &[
                ("UDP message", message, format!("{first}, INBOUND_IPPACKET, INBOUND_IPPACKET_DISCARD, Unheard")),
                (
                    "ICMP Dest Unreachable",
                    error,
                    format!("OUTBOUND_ICMP_ERROR, {SENT}, {}", of(1, &format!("{RECEIVED}, INBOUND_ICMP_ERROR"))),
                ),
            ],
        );
    }
}
