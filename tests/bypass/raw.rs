//! Packets by hand, for which a command needs `--keep-cap net_raw`.

use crate::harness::{BOTH, NOBODY, ONE_ADDRESS, ONE_PORT, PEER, PEER_V6, World};

/// Another user who may open raw sockets.
const RAW: &[&str] = &["--user", "65534:65534", "--keep-cap", "net_raw"];

const V4: &[&str] = &[
    "raw-udp",
    "raw-udp-connected",
    "raw-tcp-syn",
    "raw-icmp",
    "raw-unknown-protocol",
    "raw-tunnel",
    "raw-by-hand",
    "raw-spoofed",
    "raw-source-route",
    "raw-marked",
    "raw-fragments",
    "raw-fragments-backwards",
    "raw-fragments-overlapping",
    "raw-fragments-tiny",
];

const V6: &[&str] = &[
    "raw-udp",
    "raw-tcp-syn",
    "raw-by-hand",
    "raw-extension-headers",
    "raw-many-extension-headers",
    "raw-atomic-fragment",
    "raw-fragments",
    "raw-fragments-overlapping",
];

#[test]
fn packets_of_raw_sockets_are_filtered() {
    let Some(world) = World::new("raw") else { return };
    world.defeats(PEER, V4, RAW, BOTH);
    world.defeats(PEER_V6, V6, RAW, BOTH);
}

#[test]
fn without_the_capability_there_are_no_raw_sockets() {
    let Some(world) = World::new("no-raw") else { return };
    for (attack, result) in world.defeats_as(PEER, V4, &[NOBODY, &[]], &[ONE_PORT]) {
        assert_eq!(result, "EPERM", "{attack}");
    }
}

#[test]
fn the_next_hop_of_packets_by_hand_and_of_source_routes_is_documented() {
    let Some(world) = World::new("hop") else { return };
    let command = |attacks: &[String]| world.command(Some((RAW, ONE_ADDRESS)), attacks);
    world.not_prevented(
        &["raw-other-hop", "udp-source-route", "tcp-source-route"],
        command,
        "choose the next hop of a packet",
    );
}
