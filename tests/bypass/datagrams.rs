//! Datagrams: every way to send one without a raw socket.

use crate::harness::{BOTH, FIRST, NOBODY, ONE_ADDRESS, ONE_PORT, PEER, PEER_V6, World, documented, line};

#[test]
fn datagrams_are_refused_however_they_are_sent() {
    let Some(world) = World::new("datagrams") else { return };
    let attacks = [
        "udp",
        "udp-connected",
        "udp-mapped",
        "udp-other-version",
        "udp-other-version-connected",
        "udp-no-family",
        "udp-elsewhere",
        "udp-again",
        "udp-twice",
        "udp-sendmmsg",
        "udp-segments",
        "udp-corked",
        "udp-source",
        "udp-unicast-interface",
        "udp-addrform",
        "udp-options",
        "udp-freebind",
    ];
    world.defeats(PEER, &attacks, NOBODY, BOTH);
    let attacks = ["udp", "udp-connected", "udp-elsewhere", "udp-again", "udp-twice", "udp-sendmmsg", "udp-corked"];
    world.defeats(PEER_V6, &attacks, NOBODY, BOTH);
}

#[test]
fn datagrams_to_many_are_refused() {
    let Some(world) = World::new("multicast") else { return };
    world.defeats(PEER, &["udp-broadcast", "udp-limited-broadcast", "udp-multicast"], NOBODY, BOTH);
    world.defeats(PEER_V6, &["udp-multicast"], NOBODY, BOTH);
}

#[test]
fn datagrams_of_other_protocols_are_refused() {
    let Some(world) = World::new("udplite") else { return };
    let attacks = ["udplite", "udplite-connected", "ping", "ping-connected"];
    world.defeats(PEER, &attacks, NOBODY, BOTH);
    world.defeats(PEER_V6, &attacks, NOBODY, BOTH);
}

#[test]
fn no_mark_and_no_source_opens_anything() {
    let Some(world) = World::new("marks") else { return };
    let options = &["--keep-cap", "net_raw,net_admin"];
    world.defeats(PEER, &["udp-marked", "udp-transparent", "udp-freebind"], options, BOTH);
    world.defeats(PEER_V6, &["udp-marked", "udp-extension-headers"], options, BOTH);
}

#[test]
fn a_route_to_a_permitted_address_does_not_lead_by_a_refused_one() {
    let Some(world) = World::new("routes") else { return };
    let attacks = ["udp-source-route", "udp-source-route-connected", "udp-source-route-in-control", "tcp-source-route"];
    world.defeats(PEER, &attacks, NOBODY, &[ONE_ADDRESS]);
}

#[test]
fn what_the_kernel_itself_tells_the_neighbours_is_documented() {
    let Some(world) = World::new("groups") else { return };
    let attack = [line("udp-multicast-joined", PEER, FIRST)];
    let [high, low] = FIRST.to_be_bytes();
    let seen = world.look(world.command(Some((NOBODY, ONE_PORT)), &attack));
    assert!(seen.frames_with(&[239, 7, high, low]), "{seen:?}");
    documented("the kernel tells the neighbours of multicast groups that are joined");
}
