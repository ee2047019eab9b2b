//! io_uring: refused, and filtered where it is allowed (`--io-uring`).

use crate::harness::{BOTH, NOBODY, ONE_PORT, ONE_PORT_LATE, PEER, PEER_V6, World};

const ATTACKS: &[&str] = &[
    "ring-connect",
    "ring-connect-asynchronously",
    "ring-connect-polled",
    "ring-send-to",
    "ring-send-to-asynchronously",
    "ring-send-to-polled",
    "ring-socket",
];

#[test]
fn there_are_no_rings() {
    let Some(world) = World::new("no-rings") else { return };
    let attacks = [ATTACKS, &["ring-packet-socket"]].concat();
    for (attack, result) in world.defeats_as(PEER, &attacks, &[NOBODY, &[]], &[ONE_PORT]) {
        assert_eq!(result, "ENOSYS", "{attack}");
    }
}

#[test]
fn what_rings_do_is_filtered() {
    let Some(world) = World::new("rings") else { return };
    let application = format!(
        "[[filter]]\nname = \"not this program\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\n\
         when = {{ ALE_APP_ID = \"{}\" }}\n",
        world.attacker().display()
    );
    let options = [NOBODY, &["--io-uring"]].concat();
    // another user has no right to packet sockets
    let attacks = [ATTACKS, &["ring-packet-socket"]].concat();
    world.defeats(PEER, &attacks, &options, &[ONE_PORT, ONE_PORT_LATE, &application]);
    world.defeats(PEER_V6, ATTACKS, &options, BOTH);
}

#[test]
fn sockets_that_rings_make_with_capabilities_are_documented() {
    let Some(world) = World::new("ring-family") else { return };
    let options = &["--user", "65534:65534", "--io-uring", "--keep-cap", "net_raw"];
    let command = |attacks: &[String]| world.command(Some((options, ONE_PORT)), attacks);
    world.not_prevented(&["ring-packet-socket"], command, "`--io-uring` together with `--keep-cap net_raw`");
}
