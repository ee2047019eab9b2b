//! Connections: every way to make one.

use crate::harness::{BOTH, FIRST, NOBODY, PEER, PEER_V6, World, line};

#[test]
fn connections_are_refused_however_they_are_made() {
    let Some(world) = World::new("streams") else { return };
    let attacks = [
        "tcp",
        "tcp-mapped",
        "tcp-fastopen-sendto",
        "tcp-fastopen-connect",
        "tcp-twice",
        "tcp-again",
        "tcp-reuseport",
        "tcp-addrform",
        "tcp-device",
        "tcp-zero-source",
    ];
    world.defeats(PEER, &attacks, NOBODY, BOTH);
    let attacks = ["tcp", "tcp-fastopen-sendto", "tcp-fastopen-connect", "tcp-twice", "tcp-again", "tcp-reuseport"];
    world.defeats(PEER_V6, &attacks, NOBODY, BOTH);
}

#[test]
fn connections_of_many_paths_are_refused() {
    let Some(world) = World::new("mptcp") else { return };
    let attacks = ["mptcp", "mptcp-fastopen", "mptcp-fastopen-connect"];
    world.defeats(PEER, &attacks, NOBODY, BOTH);
    world.defeats(PEER_V6, &attacks, NOBODY, BOTH);
}

#[test]
fn other_protocols_of_connections_are_refused() {
    let Some(world) = World::new("sctp") else { return };
    world.defeats(PEER, &["sctp", "dccp", "smc", "smc-protocol"], NOBODY, BOTH);
}

#[test]
fn a_connection_without_a_handshake_is_refused() {
    let Some(world) = World::new("repair") else { return };
    world.defeats(PEER, &["tcp-repair"], &["--keep-cap", "net_admin"], BOTH);
}

/// Connections are permitted, and refused once they are established.
const NOT_ESTABLISHED: &str = "[[filter]]\nname = \"no\"\nlayer = \"ALE_FLOW_ESTABLISHED\"\naction = \"block\"\nwhen = { IP_PROTOCOL = \"tcp\" }\n";

#[test]
fn nothing_is_said_before_a_flow_is_established() {
    let Some(world) = World::new("established") else { return };
    let attacks = ["tcp", "tcp-fastopen-sendto", "tcp-fastopen-connect", "tcp-twice", "mptcp", "mptcp-fastopen"];
    let lines: Vec<String> = attacks.iter().zip(FIRST..).map(|(attack, port)| line(attack, PEER, port)).collect();
    let ports: Vec<u16> = (FIRST..).take(attacks.len()).collect();
    world.receive(ports.iter().copied());
    let without = world.look_for(world.command(None, &lines), &ports);
    assert!(ports.iter().all(|port| without.reached(*port)), "{without:?}");
    let seen = world.look_for_long(world.command(Some((NOBODY, NOT_ESTABLISHED)), &lines));
    let through: Vec<_> = attacks.iter().zip(ports).filter(|(_, port)| seen.reached(*port)).collect();
    assert!(through.is_empty(), "{through:?} {seen:?}");
}
