//! Connections: every way to make one.

use crate::harness::{BOTH, NOBODY, PEER, PEER_V6, World};

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
