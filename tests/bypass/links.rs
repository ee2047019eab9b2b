//! Below IP: sockets and devices that no program of a control group sees.

use crate::harness::{FIRST, NOBODY, ONE_PORT, PEER, World, line, skipped};
use openwfp_attacks::{call::Socket, link::vsock_server, token};

const ATTACKS: &[&str] = &["packet-raw", "packet-datagram", "packet-old", "xdp", "tun", "tun-own-device-file", "vxlan"];

#[test]
fn nothing_below_ip_can_be_had() {
    let Some(world) = World::new("links") else { return };
    let raw: &[&str] = &["--keep-cap", "net_raw"];
    let with_devices: &[&str] = &["--network-devices"];
    // as root, as another user, with a capability that opens packet sockets, with the devices to be seen
    let nobody_with_devices = [NOBODY, with_devices].concat();
    let options = [&[], NOBODY, raw, with_devices, &nobody_with_devices];
    world.defeats_as(PEER, ATTACKS, &options, &[ONE_PORT]);
}

#[test]
fn the_sockets_of_virtual_machines_are_refused() {
    let Some(world) = World::new("vsock") else { return };
    let attack = [line("vsock", PEER, FIRST)];
    let arrived =
        |server: &Socket| server.accept().and_then(|stream| stream.receive()).is_ok_and(|it| it == token(FIRST));
    let server = vsock_server(FIRST);
    match &server {
        Ok(server) => {
            world.look(world.command(None, &attack));
            assert!(arrived(server));
        }
        Err(error) => skipped(&format!("vsock: connections within one machine: {error}; that there are none is tried")),
    }
    for options in [&[], NOBODY] {
        let seen = world.look(world.command(Some((options, ONE_PORT)), &attack));
        assert_eq!(seen.results, ["EAFNOSUPPORT"]);
        assert!(!server.as_ref().is_ok_and(arrived));
    }
}

#[test]
fn what_is_below_ip_and_asked_for_is_documented() {
    let Some(world) = World::new("links-kept") else { return };
    for (attack, options) in [
        ("packet-raw", &["--keep-cap", "net_raw", "--family", "packet"][..]),
        ("tun", &["--keep-cap", "net_admin", "--network-devices"]),
        ("vxlan", &["--keep-cap", "net_admin"]),
    ] {
        let command = |attacks: &[String]| world.command(Some((options, ONE_PORT)), attacks);
        world.not_prevented(&[attack], command, "packet sockets, TUN devices and tunnels");
    }
}
