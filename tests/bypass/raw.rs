//! Packets by hand, for which a command needs `--keep-cap net_raw`.

use crate::harness::{BOTH, FIRST, NOBODY, ONE_ADDRESS, ONE_PORT, PEER, PEER_V6, World, line};

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
fn a_header_that_lies_about_its_version_names_no_address() {
    let Some(world) = World::new("version") else { return };
    world.defeats(PEER, &["raw-version"], RAW, &[ONE_ADDRESS]);
}

#[test]
fn the_first_hop_of_a_source_route_is_asked_for() {
    let Some(world) = World::new("source-route") else { return };
    world.defeats(PEER, &["udp-source-route", "tcp-source-route"], RAW, &[ONE_ADDRESS]);
}

#[test]
fn the_next_hop_of_packets_by_hand_is_documented() {
    let Some(world) = World::new("hop") else { return };
    let command = |attacks: &[String]| world.command(Some((RAW, ONE_ADDRESS)), attacks);
    world.not_prevented(&["raw-other-hop"], command, "choose the next hop of a packet");
}

/// One port may not be spoken from.
const NOT_FROM_ONE: &str = r#"
[[filter]]
name   = "not from here"
layer  = "ALE_AUTH_CONNECT_V4"
action = "block"
when   = { IP_LOCAL_PORT = 24000 }
"#;

#[test]
fn a_raw_socket_that_may_speak_from_one_port_may_not_from_another() {
    let Some(world) = World::new("ports") else { return };
    world.receive([FIRST]);
    let attack = [line("raw-other-port", PEER, FIRST)];
    assert!(world.look_for(world.command(None, &attack), &[FIRST]).reached(FIRST));
    let seen = world.look(world.command(Some((RAW, NOT_FROM_ONE)), &attack));
    assert!(!seen.reached(FIRST), "{seen:?}");
}
