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
    // a routing header of IPv6 needs no capability
    let attacks = ["udp-source-route", "udp-source-route-connected", "tcp-source-route"];
    world.defeats(PEER_V6, &attacks, NOBODY, &[ONE_ADDRESS]);
}

/// One of this machine's addresses may not be spoken from.
const NOT_FROM_ONE: &str = r#"
[[filter]]
name   = "not from here"
layer  = "ALE_AUTH_CONNECT"
action = "block"
when   = { IP_LOCAL_ADDRESS = ["10.77.0.1", "fd77::1"] }
"#;

#[test]
fn a_socket_that_may_speak_from_one_address_may_not_from_another() {
    let Some(world) = World::new("sources") else { return };
    world.receive([FIRST]);
    for peer in [PEER, PEER_V6] {
        let attack = [line("udp-other-source", peer, FIRST)];
        assert!(world.look_for(world.command(None, &attack), &[FIRST]).reached(FIRST));
        let seen = world.look(world.command(Some((NOBODY, NOT_FROM_ONE)), &attack));
        assert!(!seen.reached(FIRST), "{peer}: {seen:?}");
    }
}

#[test]
fn a_socket_that_may_speak_through_one_interface_may_not_through_another() {
    let Some(world) = World::new("interfaces") else { return };
    let policy = format!(
        "[[filter]]\nname = \"not there\"\nlayer = \"ALE_AUTH_CONNECT_V4\"\naction = \"block\"\n\
         when = {{ INTERFACE_INDEX = {} }}\n",
        openwfp_attacks::device_index().unwrap()
    );
    let attack = [line("udp-other-interface", PEER, FIRST)];
    assert!(world.look_for(world.command(None, &attack), &[FIRST]).reached(FIRST));
    // alone it is refused
    world.defeats(PEER, &["udp-multicast"], NOBODY, &[&policy]);
    let seen = world.look(world.command(Some((NOBODY, &policy)), &attack));
    assert!(!seen.reached(FIRST), "{seen:?}");
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
