//! The life of a flow: established once, deleted once, with the cause (MS docs: ALE Stateful Filtering; ALE Multicast/Broadcast
//! Traffic). Time is that of the capture.

mod common;

use std::collections::BTreeMap;

use common::build::{ACK, BOTH, FIN_ACK, RST, SYN, SYN_ACK, Version, ipv4, tcp, udp};
use common::{Owned, Replayed, assert_lines, infer, local, packets, replay, replay_with};
use openwfp_packet::flow::FlowSettings;
use openwfp_packet::replay::ReplaySettings;

const LOCAL: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// A packet and when it comes, in seconds.
type Timed = (u64, Vec<u8>);

fn at(packets: &[Timed]) -> Vec<Owned> {
    packets.iter().map(|(seconds, data)| Owned::ip(*seconds, data.clone())).collect()
}

/// What is told of flows, each with the number of the packet; 0 at the end of the capture.
fn told(replayed: &Replayed) -> Vec<String> {
    let mut told = Vec::new();
    for line in &replayed.lines {
        let (number, met) = line.split_once(' ').unwrap();
        told.extend(met.split(", ").filter(|part| part.starts_with("flow-")).map(|part| format!("{number} {part}")));
    }
    told.extend(replayed.end.iter().map(|part| format!("end {part}")));
    told
}

#[test]
fn an_idle_udp_flow_is_deleted_after_sixty_seconds_and_asked_about_anew() {
    for version in BOTH {
        let datagram = || version.packet(1, 9, 17, &udp(40000, 4000, b"x"));
        let replayed =
            replay(&at(&[(0, datagram()), (59, datagram()), (118, datagram()), (178, datagram())]), local(&LOCAL), &[]);
        assert_lines(
            &told(&replayed),
            "1 flow-established #1
             4 flow-deleted (idle) #1
             4 flow-established #2
             end flow-deleted (end-of-capture) #2",
        );
        assert_eq!(replayed.lines[3].matches("ALE_AUTH_CONNECT").count(), 1);
        assert_eq!(replayed.summary.flows, 2);
    }
}

#[test]
fn an_idle_echo_is_deleted_after_sixty_seconds() {
    for version in BOTH {
        let replayed = replay(
            &at(&[(0, version.echo(1, 9, false)), (1, version.echo(9, 1, true)), (61, version.echo(1, 9, false))]),
            local(&LOCAL),
            &[],
        );
        assert_lines(
            &told(&replayed),
            "1 flow-established #1
             3 flow-deleted (idle) #1
             3 flow-established #2
             end flow-deleted (end-of-capture) #2",
        );
    }
}

#[test]
fn a_flow_to_a_group_lives_four_seconds() {
    let to_group = || {
        let mut packet = ipv4(1, 9, 17, &udp(40000, 5353, b"x"));
        packet[16..20].copy_from_slice(&[224, 0, 0, 251]);
        packet
    };
    let other = ipv4(1, 9, 17, &udp(40000, 4000, b"x"));
    let replayed = replay(&at(&[(0, to_group()), (3, to_group()), (6, other.clone()), (7, other)]), local(&LOCAL), &[]);
    assert_lines(
        &told(&replayed),
        "1 flow-established #1
         3 flow-established #2
         4 flow-deleted (idle) #1
         end flow-deleted (end-of-capture) #2",
    );
}

/// A connection from the local host: its handshake.
fn handshake(port: u16) -> Vec<Timed> {
    vec![
        (0, ipv4(1, 9, 6, &tcp(port, 80, SYN, 100))),
        (0, ipv4(9, 1, 6, &tcp(80, port, SYN_ACK, 500))),
        (0, ipv4(1, 9, 6, &tcp(port, 80, ACK, 101))),
    ]
}

#[test]
fn a_connection_is_deleted_when_it_is_closed_reset_or_replaced_and_not_for_being_idle() {
    let close = [
        (1, ipv4(1, 9, 6, &tcp(40000, 80, FIN_ACK, 101))),
        (1, ipv4(9, 1, 6, &tcp(80, 40000, FIN_ACK, 501))),
        (1, ipv4(1, 9, 6, &tcp(40000, 80, ACK, 102))),
        // Late segments belong to it still, and delete nothing again.
        (2, ipv4(9, 1, 6, &tcp(80, 40000, ACK, 502))),
        (2, ipv4(9, 1, 6, &tcp(80, 40000, RST, 502))),
        (300, ipv4(1, 9, 17, &udp(1, 2, b""))),
    ];
    let reset = [(1, ipv4(9, 1, 6, &tcp(80, 40000, RST, 501))), (2, ipv4(9, 1, 6, &tcp(80, 40000, RST, 501)))];
    let replaced = [(1, ipv4(1, 9, 6, &tcp(40000, 80, SYN, 9000)))];
    let idle = [(1_000_000, ipv4(1, 9, 6, &tcp(40000, 80, ACK, 101)))];
    let cases: [(&[Timed], &str); 4] = [
        (
            &close,
            "2 flow-established #1\n6 flow-deleted (closed) #1\n9 flow-established #2\nend flow-deleted (end-of-capture) #2",
        ),
        (&reset, "2 flow-established #1\n4 flow-deleted (reset) #1"),
        (&replaced, "2 flow-established #1\n4 flow-deleted (replaced) #1"),
        (&idle, "2 flow-established #1\nend flow-deleted (end-of-capture) #1"),
    ];
    for (rest, expected) in cases {
        let packets = [handshake(40000), rest.to_vec()].concat();
        let replayed = replay(&at(&packets), local(&LOCAL), &[]);
        assert_lines(&told(&replayed), expected);
        let closures = replayed.lines.iter().filter(|line| line.contains("ALE_ENDPOINT_CLOSURE #1")).count();
        assert_eq!(closures, usize::from(!expected.contains("end-of-capture) #1")), "{expected}");
    }
}

#[test]
fn an_opening_that_nobody_answers_is_given_up() {
    let packets = [(0, ipv4(1, 9, 6, &tcp(40000, 80, SYN, 100))), (240, ipv4(1, 9, 17, &udp(1, 2, b"")))];
    let replayed = replay(&at(&packets), local(&LOCAL), &[]);
    assert!(replayed.lines[1].starts_with("2 ALE_ENDPOINT_CLOSURE #1, ALE_AUTH_CONNECT #2"), "{}", replayed.lines[1]);
    assert_lines(&told(&replayed), "2 flow-established #2\nend flow-deleted (end-of-capture) #2");
}

#[test]
fn when_the_table_is_full_what_can_best_be_missed_goes_and_is_asked_about_again() {
    let datagram = |port| (0, ipv4(1, 9, 17, &udp(40000, port, b"x")));
    let settings =
        ReplaySettings { flows: FlowSettings { capacity: 2, ..FlowSettings::default() }, ..ReplaySettings::default() };
    let packets = at(&[datagram(1), datagram(2), datagram(3), datagram(1)]);
    let replayed = replay_with(&packets, local(&LOCAL), &[], settings);
    assert_lines(
        &told(&replayed),
        "1 flow-established #1
         2 flow-established #2
         3 flow-deleted (evicted) #1
         3 flow-established #3
         4 flow-deleted (evicted) #2
         4 flow-established #4
         end flow-deleted (end-of-capture) #3
         end flow-deleted (end-of-capture) #4",
    );
    assert_eq!((replayed.summary.flows, replayed.summary.flows_evicted), (4, 2));
}

#[test]
fn packets_of_an_authorized_flow_do_not_meet_the_authorizing_layers_again() {
    for name in ["http.pcap", "dns.pcapng", "ping.pcap", "fragments.pcap", "loopback.pcap", "two-interfaces.pcapng"] {
        let replayed = replay(&packets(name), infer(name), &[]);
        let mut asked: BTreeMap<String, usize> = BTreeMap::new();
        for part in replayed.lines.iter().flat_map(|line| line.split(", ")) {
            if let Some(at) = part.find("ALE_AUTH").or(part.find("ALE_FLOW_ESTABLISHED")) {
                *asked.entry(part[at..].to_owned()).or_default() += 1;
            }
        }
        assert!(asked.values().all(|&times| times == 1), "{name} {asked:?}");
        let flows = replayed.summary.flows as usize;
        let told = told(&replayed);
        assert_eq!(told.iter().filter(|line| line.contains("flow-established")).count(), flows, "{name}");
        assert_eq!(told.iter().filter(|line| line.contains("flow-deleted")).count(), flows, "{name}");
    }
}

#[test]
fn the_same_capture_gives_the_same_replay() {
    let mut packets = packets("two-interfaces.pcapng");
    packets.extend(common::packets("loopback.pcap"));
    let settings =
        |seed| ReplaySettings { flows: FlowSettings { capacity: 3, seed: [seed, 1] }, ..ReplaySettings::default() };
    let lines = |seed| {
        let replayed = replay_with(&packets, infer("two-interfaces.pcapng"), &[], settings(seed));
        [replayed.lines, replayed.end].concat()
    };
    assert_eq!(lines(1), lines(1));
    assert_eq!(lines(1), lines(2), "the seed of the table changes nothing that is seen");
}

#[test]
fn time_that_runs_backwards_stands_still() {
    let datagram = || Version::V4.packet(1, 9, 17, &udp(40000, 4000, b"x"));
    let replayed = replay(&at(&[(100, datagram()), (0, datagram()), (130, datagram())]), local(&LOCAL), &[]);
    assert_lines(&told(&replayed), "1 flow-established #1\nend flow-deleted (end-of-capture) #1");
}
