//! Whatever the bytes are, nothing panics and no promise is broken: the seeds of the fuzzer, every cut of good packets,
//! good packets and captures with bytes changed, and bytes by chance.

mod common;

use std::path::PathBuf;

use common::packets;
use openwfp_packet::link::LinkType;
use proptest::collection::vec;
use proptest::prelude::*;

#[path = "../../../fuzz/bodies/capture.rs"]
mod capture;
#[path = "../../../fuzz/bodies/packet.rs"]
mod packet;
#[path = "../../../fuzz/bodies/replay.rs"]
mod replay;

const CAPTURES: [&str; 10] = [
    "http.pcap",
    "sll.pcap",
    "sll2.pcap",
    "loopback.pcap",
    "refused.pcap",
    "dns.pcapng",
    "two-interfaces.pcapng",
    "vlan.pcap",
    "ping.pcap",
    "fragments.pcap",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| std::fs::read(file).unwrap()).collect()
}

/// The input of the packet target for frames of a link type.
fn input(link_type: LinkType, settings: u8, frames: &[&[u8]]) -> Vec<u8> {
    let choice = match link_type {
        LinkType::ETHERNET => 0,
        LinkType::LINUX_SLL => 2,
        LinkType::LINUX_SLL2 => 3,
        other => panic!("no capture here has {other}"),
    };
    let mut input = vec![choice, settings];
    for frame in frames {
        input.extend((frame.len() as u16).to_be_bytes());
        input.extend(*frame);
    }
    input
}

#[test]
fn the_seeds_keep_every_promise() {
    let (packets, captures) = (seeds("packet"), seeds("capture"));
    assert!(packets.len() > 10 && captures.len() > 5);
    packets.iter().for_each(|seed| packet::check(seed));
    captures.iter().for_each(|seed| capture::check(seed));
}

#[test]
fn every_cut_of_every_good_packet_is_handled() {
    for name in CAPTURES {
        for packet in packets(name) {
            // Beyond the headers a cut is like any other.
            for length in 0..=packet.data.len().min(200) {
                packet::check(&input(packet.link_type, 0, &[&packet.data[..length]]));
            }
        }
    }
}

#[test]
fn every_cut_of_every_seed_capture_is_handled() {
    for seed in seeds("capture") {
        (0..seed.len()).for_each(|length| capture::check(&seed[..length]));
    }
}

/// Changes bytes of a file: where, and to what.
fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (place, byte) in changes {
        if !bytes.is_empty() {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_by_chance_are_handled(bytes in vec(any::<u8>(), 0..300)) {
        packet::check(&bytes);
        capture::check(&bytes);
    }

    #[test]
    fn changed_packets_are_handled(seed in any::<prop::sample::Index>(), changes in changes()) {
        let seeds = seeds("packet");
        packet::check(&changed(seeds[seed.index(seeds.len())].clone(), &changes));
    }

    #[test]
    fn changed_captures_are_handled(seed in any::<prop::sample::Index>(), changes in changes()) {
        let seeds = seeds("capture");
        capture::check(&changed(seeds[seed.index(seeds.len())].clone(), &changes));
    }

    #[test]
    fn packets_in_any_order_are_handled(order in vec(any::<prop::sample::Index>(), 0..40), settings in any::<u8>()) {
        let all: Vec<_> = ["http.pcap", "refused.pcap", "ping.pcap", "fragments.pcap", "vlan.pcap", "loopback.pcap"]
            .into_iter()
            .flat_map(packets)
            .collect();
        let frames: Vec<_> = order.iter().map(|index| all[index.index(all.len())].data.as_slice()).collect();
        packet::check(&input(LinkType::ETHERNET, settings, &frames));
    }
}
