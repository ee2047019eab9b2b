//! MPTCP: a connection that may be, and the further ways that the kernel would take for it by itself.

use crate::{
    harness::{NOBODY, PEER, PEER_V6, Seen, World, line, skipped},
    inbound::{each, heard_when},
};
use openwfp_attacks::{DEVICE, call::Socket, path, token};
use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

/// The peer's second addresses, and the second ones here, which the kernel does not take by itself.
const THERE: [&str; 2] = ["10.77.0.3", "fd77::3"];
const HERE: [&str; 2] = ["10.77.0.9", "fd77::1"];

const PORT: u16 = 22_000;

/// Connections to the peer's first address are permitted; decided in the call, and by the first packet.
const FIRST_ADDRESS: [&str; 2] = [
    r#"
[[filter]]
name   = "the first address"
layer  = "ALE_AUTH_CONNECT"
action = "permit"
when   = { IP_REMOTE_ADDRESS = ["10.77.0.2", "fd77::2"] }

[[filter]]
name   = "no other"
layer  = "ALE_AUTH_CONNECT"
action = "block"
"#,
    r#"
[[filter]]
name   = "the first address"
layer  = "ALE_AUTH_CONNECT_V4"
action = "permit"
when   = { IP_REMOTE_ADDRESS = "10.77.0.2", IP_LOCAL_ADDRESS = { not = "203.0.113.99" } }

[[filter]]
name   = "no other"
layer  = "ALE_AUTH_CONNECT_V4"
action = "block"
when   = { IP_LOCAL_ADDRESS = { not = "203.0.113.99" } }

[[filter]]
name   = "the first address"
layer  = "ALE_AUTH_CONNECT_V6"
action = "permit"
when   = { IP_REMOTE_ADDRESS = "fd77::2", IP_LOCAL_ADDRESS = { not = "fd99::99" } }

[[filter]]
name   = "no other"
layer  = "ALE_AUTH_CONNECT_V6"
action = "block"
when   = { IP_LOCAL_ADDRESS = { not = "fd99::99" } }
"#,
];

/// Nothing may leave from the second address here.
const NOT_FROM_SECOND: &str = r#"
[[filter]]
name   = "not from there"
layer  = "ALE_AUTH_CONNECT"
action = "block"
when   = { IP_LOCAL_ADDRESS = ["10.77.0.9", "fd77::1"] }
"#;

/// Runs `ip mptcp` in the network of the calling thread.
fn ways(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.arg("mptcp").args(arguments.split(' ')).output().is_ok_and(|output| output.status.success())
}

/// Both networks may take further ways, and have two addresses. `None`, with a line: not here.
fn world(name: &str) -> Option<World> {
    let world = World::new(name)?;
    let enabled = std::fs::read_to_string("/proc/sys/net/mptcp/enabled");
    let many = || ways("limits set subflows 4 add_addr_accepted 4");
    if !enabled.is_ok_and(|enabled| enabled.trim() == "1") || !many() || !world.outside(many) {
        skipped(&format!("{name}: the kernel, or `ip`, has no MPTCP"));
        return None;
    }
    let address = |address: &str, device: &str| {
        let mut ip = Command::new("ip");
        let length = if address.contains(':') { 64 } else { 24 };
        ip.args(["address", "add", &format!("{address}/{length}"), "dev", device]);
        if length == 64 {
            ip.arg("nodad");
        }
        assert!(ip.status().unwrap().success());
    };
    address(HERE[0], DEVICE);
    world.outside(move || THERE.iter().for_each(|there| address(there, "wfp-in")));
    Some(world)
}

fn server(world: &World) -> Socket {
    world.outside(|| path::server(SocketAddr::from(([0u16; 8], PORT))).unwrap())
}

/// Whether a server has been told the token.
fn served(server: &Socket) -> bool {
    let streams = std::iter::from_fn(|| server.accept().ok());
    streams.filter_map(|stream| stream.receive().ok()).any(|heard| heard.starts_with(&token(PORT)))
}

/// How many packets that ask for a connection have arrived from an address, or to one.
fn asked(seen: &Seen, from_or_to: &str) -> usize {
    let address: IpAddr = from_or_to.parse().unwrap();
    let asks = |frame: &&Vec<u8>| {
        let (kind, protocol, flags, places, length) = match address {
            IpAddr::V4(_) => ([8, 0], 23, 47, [26, 30], 4),
            IpAddr::V6(_) => ([0x86, 0xdd], 20, 67, [22, 38], 16),
        };
        let bytes = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        frame.get(12..14) == Some(&kind)
            && frame.get(protocol) == Some(&6)
            && frame.get(flags).is_some_and(|flags| flags & 0x12 == 2)
            && places.iter().any(|place| frame.get(*place..place + length) == Some(&bytes))
    };
    seen.frames().iter().filter(asks).count()
}

/// Connects to the peer's first address: the kernel also asks by another one when nobody minds, and does not under any of
/// the policies, whereas the first is served as before.
#[track_caller]
fn defeats(world: &World, peer: &str, other: &str, policies: &[&str]) {
    let server = server(world);
    let attack = [line("mptcp-paths", peer, PORT)];
    let without = world.look(world.command(None, &attack));
    assert!(served(&server) && asked(&without, other) > 0, "{peer} and {other}: {without:?}");
    for policy in policies {
        let seen = world.look_for_long(world.command(Some((NOBODY, policy)), &attack));
        assert_eq!(seen.results, ["ok"], "{peer} and {other}, {policy}: {seen:?}");
        assert!(served(&server), "{peer} and {other}, {policy}: {seen:?}");
        assert_eq!(asked(&seen, other), 0, "{peer} and {other}, {policy}: {seen:?}");
    }
}

#[test]
fn a_way_to_another_address_of_the_peer_is_refused() {
    let Some(world) = world("paths") else { return };
    for (peer, there) in [PEER, PEER_V6].into_iter().zip(THERE) {
        // the peer tells of it
        assert!(
            world.outside(move || ways("endpoint flush") && ways(&format!("endpoint add {there} dev wfp-in signal")))
        );
        defeats(&world, peer, there, &FIRST_ADDRESS);
    }
}

#[test]
fn a_way_from_another_address_of_this_machine_is_refused() {
    let Some(world) = world("paths-from") else { return };
    for (peer, here) in [PEER, PEER_V6].into_iter().zip(HERE) {
        assert!(ways("endpoint flush") && ways(&format!("endpoint add {here} dev {DEVICE} subflow")));
        defeats(&world, peer, here, &[NOT_FROM_SECOND]);
    }
}

/// The peer's second address, and the second one here, may not be spoken with.
const NOT_WITH_SECOND: [&str; 2] = [
    "[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_RECV_ACCEPT\"\naction = \"block\"\nwhen = { IP_REMOTE_ADDRESS = \"10.77.0.3\" }\n",
    "[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_RECV_ACCEPT\"\naction = \"block\"\nwhen = { IP_LOCAL_ADDRESS = \"10.77.0.9\" }\n",
];

#[test]
fn no_further_way_into_a_server_is_accepted() {
    let Some(world) = world("paths-in") else { return };
    let kinds = &["mptcp-anywhere"];
    let connect = || {
        let words = token(21_000);
        path::connect(SocketAddr::from(([10, 77, 0, 1], 21_000)), &words).unwrap();
    };
    // from another address of the peer, and to another one here, of which this side tells
    let from = || ways(&format!("endpoint add {} dev wfp-in subflow", THERE[0]));
    let to = || ways(&format!("endpoint add {} dev {DEVICE} signal", HERE[0]));
    assert!(world.outside(from));
    for (number, policy) in NOT_WITH_SECOND.into_iter().enumerate() {
        if number == 1 {
            assert!(world.outside(|| ways("endpoint flush")) && to());
        }
        // each way is answered
        assert_eq!(heard_when(&world, true, None, kinds, connect), (each(kinds, "heard"), 2), "{number}");
        let found = heard_when(&world, true, Some((NOBODY, policy)), kinds, connect);
        assert_eq!(found, (each(kinds, "heard"), 1), "{policy}");
    }
}

#[test]
fn a_way_of_the_kernel_s_is_of_no_application() {
    let Some(world) = world("paths-of") else { return };
    let application = format!(
        "[[filter]]\nname = \"this program\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"permit\"\nwhen = {{ ALE_APP_ID = \"{}\" }}\n\n\
         [[filter]]\nname = \"nobody else\"\nlayer = \"ALE_AUTH_CONNECT\"\naction = \"block\"\n",
        world.attacker().display()
    );
    assert!(world.outside(|| ways(&format!("endpoint add {} dev wfp-in signal", THERE[0]))));
    defeats(&world, PEER, THERE[0], &[&application]);
}
