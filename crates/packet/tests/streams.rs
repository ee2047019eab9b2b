//! What STREAM and DATAGRAM_DATA are shown of data: each byte once, in the order in which it was sent, whatever the segments do.

mod common;

use common::build::{ACK, SYN, SYN_ACK, ipv4, tcp, tcp_data, udp};
use common::{Owned, Replayed, local, replay, replay_with};
use openwfp_model::LayerId;
use openwfp_packet::replay::ReplaySettings;
use openwfp_packet::stream::StreamSettings;
use proptest::prelude::*;

const STREAM: LayerId = LayerId::STREAM_V4;

/// The sequence numbers of the first bytes.
const CLIENT: u32 = u32::MAX - 10;
const SERVER: u32 = 5000;

fn handshake() -> Vec<Owned> {
    let packets = [
        ipv4(1, 9, 6, &tcp(40000, 80, SYN, CLIENT.wrapping_sub(1))),
        ipv4(9, 1, 6, &tcp(80, 40000, SYN_ACK, SERVER - 1)),
        ipv4(1, 9, 6, &tcp(40000, 80, ACK, CLIENT)),
    ];
    packets.map(|packet| Owned::ip(0, packet)).into()
}

/// Data that the local host sends; it has received so many bytes.
fn sent(place: u32, received: u32, data: &str) -> Owned {
    let numbers = [CLIENT.wrapping_add(place), SERVER + received];
    Owned::ip(1, ipv4(1, 9, 6, &tcp_data(40000, 80, ACK, numbers, data.as_bytes())))
}

/// Data that it receives.
fn received(place: u32, acknowledged: u32, data: &str) -> Owned {
    let numbers = [SERVER + place, CLIENT.wrapping_add(acknowledged)];
    Owned::ip(1, ipv4(9, 1, 6, &tcp_data(80, 40000, ACK, numbers, data.as_bytes())))
}

fn run(data: Vec<Owned>, blocks: &[LayerId]) -> Replayed {
    replay(&[handshake(), data].concat(), local(&["192.0.2.1"]), blocks)
}

#[test]
fn both_directions_are_seen_in_order_over_the_wrap_of_sequence_numbers() {
    let data = vec![
        sent(0, 0, "GET / "),
        sent(6, 0, "HTTP/1.1\r\n\r\n"),
        received(0, 18, "HTTP/1.1 "),
        received(9, 18, "200 OK\r\n"),
    ];
    assert_eq!(run(data, &[]).stream(), ["GET / ", "HTTP/1.1\r\n\r\n", "HTTP/1.1 ", "200 OK\r\n"]);
}

#[test]
fn a_connection_from_before_the_capture_begins_where_its_receiver_is() {
    let picked_up =
        vec![sent(0, 10, "request"), received(13, 7, "second"), received(10, 7, "1st"), received(19, 7, "third")];
    let replayed = replay(&picked_up, local(&["192.0.2.1"]), &[]);
    assert_eq!(replayed.stream(), ["request", "1stsecond", "third"]);
    // Nothing was acknowledged yet: the first segment says where the stream begins.
    let mut first = received(13, 0, "second");
    first.data[33] = 0;
    let replayed = replay(&[first, received(10, 0, "1st"), received(19, 0, "third")], local(&["192.0.2.1"]), &[]);
    assert_eq!(replayed.stream(), ["second", "third"]);
}

#[test]
fn data_may_come_with_the_syn() {
    let syn = Owned::ip(0, ipv4(9, 1, 6, &tcp_data(40000, 80, SYN, [99, 0], b"early")));
    let rest = Owned::ip(0, ipv4(9, 1, 6, &tcp_data(40000, 80, ACK, [105, 1], b" data")));
    let replayed = replay(&[syn, rest], local(&["192.0.2.1"]), &[]);
    assert_eq!(replayed.stream(), ["early", " data"]);
    assert!(
        replayed.lines[0].ends_with("ALE_AUTH_RECV_ACCEPT #1, STREAM_PACKET #1, STREAM #1"),
        "{}",
        replayed.lines[0]
    );
}

#[test]
fn late_repeated_and_overlapping_segments_are_put_right() {
    let data = vec![received(3, 0, "def"), received(0, 0, "abc"), received(2, 0, "XYZ"), received(4, 0, "EFgh")];
    let replayed = run(data, &[]);
    assert_eq!(replayed.stream(), ["abcdef", "gh"]);
    assert_eq!((replayed.summary.streams.holes, replayed.summary.permitted), (0, 7));
}

#[test]
fn a_segment_that_the_capture_missed_is_passed_over_when_it_was_acknowledged() {
    let data = vec![received(0, 0, "abc"), received(6, 0, "ghi"), sent(0, 9, "")];
    let replayed = run(data, &[]);
    assert_eq!(replayed.stream(), ["abc", "ghi"]);
    assert!(replayed.lines[5].starts_with("6 STREAM #1, STREAM_PACKET #1"), "with the acknowledgment that we send");
    assert_eq!(replayed.summary.streams.holes, 1);
}

#[test]
fn what_is_blocked_is_taken_out_of_the_stream_and_cannot_be_repeated() {
    let data = vec![sent(0, 0, "secret"), sent(0, 0, "secret"), sent(3, 0, "ret"), sent(3, 0, "ret and more")];
    let replayed = run(data, &[STREAM]);
    assert_eq!(
        replayed.lines[3..],
        [
            "4 STREAM #1 blocked, STREAM_DISCARD #1",
            "5 flow-blocked by STREAM #1",
            "6 flow-blocked by STREAM #1",
            "7 flow-blocked by STREAM #1",
        ]
    );
    assert_eq!(replayed.stream(), ["secret"]);
    let inbound = run(vec![received(0, 0, "secret"), received(0, 0, "secret")], &[STREAM]);
    assert!(inbound.lines[3].ends_with("STREAM_PACKET #1, STREAM #1 blocked, STREAM_DISCARD #1"));
    assert!(inbound.lines[4].ends_with("STREAM_PACKET #1, flow-blocked by STREAM #1"));
}

#[test]
fn a_packet_that_is_dropped_below_brings_no_data() {
    let transport = LayerId::INBOUND_TRANSPORT_V4;
    let replayed = replay(&[received(0, 0, "abc")], local(&["192.0.2.1"]), &[transport]);
    assert!(replayed.stream().is_empty());
}

#[test]
fn data_of_a_cut_capture_are_shown_as_far_as_they_were_stored() {
    let mut cut = received(0, 0, "abcdefghi");
    cut.data.truncate(40 + 4);
    assert_eq!(run(vec![cut, received(9, 0, "jk")], &[]).stream(), ["abcd", "jk"]);
}

#[test]
fn padding_behind_the_packet_is_no_data() {
    let mut padded = received(0, 0, "ab");
    padded.data.extend([0; 20]);
    let mut empty = received(2, 0, "");
    empty.data.extend([0; 6]);
    assert_eq!(run(vec![padded, empty, received(2, 0, "cd")], &[]).stream(), ["ab", "cd"]);
}

#[test]
fn what_waits_is_bounded_and_nothing_of_it_is_lost() {
    let streams = StreamSettings { bytes: 4000, all_bytes: 6000 };
    let settings = ReplaySettings { streams, ..ReplaySettings::default() };
    let text = "x".repeat(1000);
    let mut packets = handshake();
    // A hole that is never filled, and data beyond it without end.
    packets.extend((0..100).map(|number| received(1 + 1000 * number, 0, &text)));
    let replayed = replay_with(&packets, local(&["192.0.2.1"]), &[], settings);
    assert_eq!(replayed.stream().concat().len(), 100_000);
    assert!(replayed.summary.streams.most_waiting <= 4000);
    assert_eq!(replayed.summary.streams.holes, 1, "after the hole was given up the stream goes on");

    // Many connections, each with a hole.
    let mut packets = Vec::new();
    for port in 1..=50 {
        for (place, data) in [(0, "a"), (100, text.as_str())] {
            let segment = tcp_data(port, 2000, ACK, [SERVER + place, 0], data.as_bytes());
            packets.push(Owned::ip(1, ipv4(9, 1, 6, &segment)));
        }
    }
    let replayed = replay_with(&packets, local(&["192.0.2.1"]), &[], settings);
    let waited = 50 * 1001 - replayed.stream().concat().len();
    assert!(waited > 4000 && waited <= 6000, "{waited}");
    assert!(replayed.summary.streams.most_waiting <= 6000);
}

#[test]
fn datagrams_show_what_follows_the_header() {
    let mut padded = ipv4(1, 9, 17, &udp(40000, 53, b"question"));
    padded.extend([0; 4]);
    let replayed = replay(&[Owned::ip(0, padded)], local(&["192.0.2.1"]), &[]);
    let shown: Vec<_> = replayed.data.iter().filter(|(layer, _)| *layer == LayerId::DATAGRAM_DATA_V4).collect();
    assert_eq!(shown, [&(LayerId::DATAGRAM_DATA_V4, b"question".to_vec())]);
    assert!(replayed.data.iter().all(|(layer, data)| data.is_empty() || *layer == LayerId::DATAGRAM_DATA_V4));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// A receiver without bounds: an array of bytes, of which the first that comes counts.
    #[test]
    fn segments_in_any_order_give_what_a_naive_receiver_has(
        pieces in prop::collection::vec((0u32..200, 0usize..40, any::<u8>()), 1..60),
    ) {
        let mut bytes: Vec<Option<u8>> = vec![None; 300];
        let mut packets = handshake();
        let mut taken = 0;
        let mut expected = Vec::new();
        for &(place, length, letter) in &pieces {
            let text = char::from(b'a' + letter % 26).to_string().repeat(length);
            packets.push(received(place, 0, &text));
            for offset in 0..length {
                bytes[place as usize + offset].get_or_insert(text.as_bytes()[offset]);
            }
            while let Some(byte) = bytes[taken] {
                expected.push(byte);
                taken += 1;
            }
        }
        let seen = replay(&packets, local(&["192.0.2.1"]), &[]).stream().concat();
        prop_assert_eq!(seen.as_bytes(), &expected[..]);
    }
}
