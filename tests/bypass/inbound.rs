//! What comes in: connections that are not accepted, datagrams that are not heard.

use crate::harness::{NOBODY, PEER, PEER_V6, World, line, skipped};
use openwfp_attacks::{
    call::{Socket, family},
    serve::GROUP_V6,
    token,
};
use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    thread,
    time::Duration,
};

const STREAMS: &[&str] = &["tcp", "tcp-both", "tcp-fastopen", "tcp-reuseport", "tcp-defer", "mptcp", "ring-accept"];
const DATAGRAMS: &[&str] =
    &["udp", "udp-anywhere", "udp-both", "udp-reuseport", "udp-multicast", "udplite", "raw", "raw-icmp"];

const NO_ACCEPT: &str = "[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_RECV_ACCEPT\"\naction = \"block\"\n";
const NO_LISTEN: &str = "[[filter]]\nname = \"no\"\nlayer = \"ALE_AUTH_LISTEN\"\naction = \"block\"\n";
/// Decided by what is known of the packet alone.
const NOT_FROM_PEER: &str = r#"
[[filter]]
name   = "not from the peer"
layer  = "ALE_AUTH_RECV_ACCEPT"
action = "block"
when   = { IP_REMOTE_ADDRESS = ["10.77.0.2", "fd77::2"] }
"#;

const FIRST: u16 = 21_000;

/// Sends the token to each server. From the peer's network.
fn knock(v4: bool, kinds: &[(&'static str, u16)]) {
    let knocks = kinds.iter().copied().map(|(kind, port)| {
        thread::spawn(move || {
            let own: SocketAddr =
                if v4 { ([10, 77, 0, 1], port).into() } else { ([0xfd77, 0, 0, 0, 0, 0, 0, 1], port).into() };
            let token = token(port);
            let datagram = |protocol| Socket::new(family(own), DATAGRAM, protocol).unwrap();
            // who refuses says so by errors and silence
            let _ = match kind {
                "udp-multicast" if v4 => datagram(0).send_to(&token, 0, SocketAddr::from(([239, 7, 7, 7], port))),
                "udp-multicast" => datagram(0).send_to(&token, 0, SocketAddr::from((GROUP_V6, port))),
                "udplite" => datagram(UDPLITE).send_to(&token, 0, own),
                "raw-icmp" => {
                    let (protocol, request) = if v4 { (ICMP, 8) } else { (ICMPV6, 128) };
                    let message = [&[request, 0, 0, 0, 0, 0, 0, 1][..], &token].concat();
                    let socket = Socket::new(family(own), RAW, protocol).unwrap();
                    socket.send_to(&message, 0, SocketAddr::new(own.ip(), 0))
                }
                kind if kind.starts_with("udp") || kind == "raw" => datagram(0).send_to(&token, 0, own),
                "tcp-fastopen" => Socket::stream(own).unwrap().send_to(&token, FASTOPEN, own),
                _ => {
                    let stream = TcpStream::connect_timeout(&own, Duration::from_millis(400));
                    stream.and_then(|mut stream| stream.write_all(&token))
                }
            };
        })
    });
    knocks.collect::<Vec<_>>().into_iter().for_each(|knock| knock.join().unwrap());
}

// numbers of the kernel's
const DATAGRAM: i32 = 2;
const RAW: i32 = 3;
const ICMP: i32 = 1;
const ICMPV6: i32 = 58;
const UDPLITE: i32 = 136;
const FASTOPEN: i32 = 0x2000_0000;

/// What the servers have heard, and how often the peer was answered.
fn heard(world: &World, v4: bool, under: Option<(&[&str], &str)>, kinds: &[&'static str]) -> (Vec<String>, usize) {
    let knocks: Vec<(&'static str, u16)> = kinds.iter().copied().zip(FIRST..).collect();
    heard_when(world, v4, under, kinds, move || knock(v4, &knocks))
}

/// What the servers have heard when the peer does something, and how often it was answered.
pub fn heard_when(
    world: &World,
    v4: bool,
    under: Option<(&[&str], &str)>,
    kinds: &[&'static str],
    knock: impl FnOnce() + Send + 'static,
) -> (Vec<String>, usize) {
    let kinds: Vec<(&'static str, u16)> = kinds.iter().copied().zip(FIRST..).collect();
    let words: Vec<String> = kinds.iter().map(|(kind, port)| format!("{kind}:{port}")).collect();
    let peer = if v4 { PEER } else { PEER_V6 };
    let script = [line(&format!("serve {}", words.join(" ")), peer, 1)];
    let mut command = world.command(under, &script);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line == "ready"), "the servers are ready");
    world.frames();
    world.outside(knock);
    thread::sleep(Duration::from_millis(100));
    // packets that take up a connection
    let takes_up = |frame: &&Vec<u8>| {
        let (kind, protocol, flags) = if v4 { ([8, 0], 23, 47) } else { ([0x86, 0xdd], 20, 67) };
        let is_tcp = frame.get(12..14) == Some(&kind) && frame.get(protocol) == Some(&6);
        is_tcp && frame.get(flags).is_some_and(|flags| flags & 0x12 == 0x12)
    };
    let answers = world.frames().iter().filter(takes_up).count();
    drop(child.stdin.take());
    let results = lines.filter_map(|line| line.strip_prefix("attack ").map(str::to_owned)).collect();
    child.wait().unwrap();
    (results, answers)
}

/// Of each kind the same, and that the script itself went well.
pub fn each(kinds: &[&'static str], what: &str) -> Vec<String> {
    let mut all: Vec<String> = kinds.iter().map(|kind| format!("{kind} {what}")).collect();
    all.push("ok".to_owned());
    all
}

/// Whether IPv4 is spoken, else IPv6.
const VERSIONS: [bool; 2] = [true, false];

#[test]
fn nothing_is_accepted_and_nothing_is_heard() {
    let Some(world) = World::new("inbound") else { return };
    let kinds = [STREAMS, DATAGRAMS].concat();
    let options = [NOBODY, &["--io-uring", "--keep-cap", "net_raw"]].concat();
    for v4 in VERSIONS {
        assert_eq!(heard(&world, v4, None, &kinds), (each(&kinds, "heard"), STREAMS.len()), "v4: {v4}");
        for policy in [NO_ACCEPT, NOT_FROM_PEER] {
            let found = heard(&world, v4, Some((&options, policy)), &kinds);
            assert_eq!(found, (each(&kinds, "nothing"), 0), "v4: {v4}, {policy}");
        }
    }
}

#[test]
fn nobody_listens() {
    let Some(world) = World::new("listen") else { return };
    let options = [NOBODY, &["--io-uring"]].concat();
    for v4 in VERSIONS {
        assert_eq!(heard(&world, v4, None, STREAMS), (each(STREAMS, "heard"), STREAMS.len()), "v4: {v4}");
        let found = heard(&world, v4, Some((&options, NO_LISTEN)), STREAMS);
        assert_eq!(found, (each(STREAMS, "nothing"), 0), "v4: {v4}");
    }
}

const NO_BIND: &str = "[[filter]]\nname = \"no\"\nlayer = \"ALE_RESOURCE_ASSIGNMENT\"\naction = \"block\"\n";

#[test]
fn nobody_binds_and_no_datagram_is_sent_without() {
    let Some(world) = World::new("bind") else { return };
    // raw sockets have no port
    let kinds = [STREAMS, &DATAGRAMS[..6]].concat();
    let options = [NOBODY, &["--io-uring"]].concat();
    for v4 in VERSIONS {
        let found = heard(&world, v4, Some((&options, NO_BIND)), &kinds);
        assert_eq!(found, (each(&kinds, "EPERM"), 0), "v4: {v4}");
    }
    // a port that the kernel chooses, out of the one that the socket names
    let unbound = &["udp-unbound"];
    if heard(&world, true, None, unbound).0 != each(unbound, "heard") {
        skipped("a range of one local port: the kernel has no such option");
        return;
    }
    assert_eq!(heard(&world, true, Some((NOBODY, NO_BIND)), unbound).0, each(unbound, "EPERM"));
}

/// Connections are accepted, and refused once they are established.
const NOT_ESTABLISHED: &str = "[[filter]]\nname = \"no\"\nlayer = \"ALE_FLOW_ESTABLISHED\"\naction = \"block\"\nwhen = { IP_PROTOCOL = \"tcp\" }\n";

#[test]
fn nothing_is_heard_before_a_flow_is_established() {
    let Some(world) = World::new("inbound-established") else { return };
    let options = [NOBODY, &["--io-uring"]].concat();
    for v4 in VERSIONS {
        let (results, _) = heard(&world, v4, Some((&options, NOT_ESTABLISHED)), STREAMS);
        assert_eq!(results, each(STREAMS, "nothing"), "v4: {v4}");
    }
}

/// Nothing may be heard at one of this machine's addresses.
const NOT_AT_ONE: &str = r#"
[[filter]]
name   = "not here"
layer  = "ALE_AUTH_RECV_ACCEPT_V4"
action = "block"
when   = { IP_LOCAL_ADDRESS = "10.77.0.1" }
"#;

#[test]
fn a_socket_that_may_hear_at_one_address_may_not_at_another() {
    let Some(world) = World::new("heard-at") else { return };
    let at_both = || {
        let socket = std::net::UdpSocket::bind("10.77.0.2:0").unwrap();
        socket.send_to(b"permitted", ("198.51.100.9", FIRST)).unwrap();
        socket.send_to(&token(FIRST), ("10.77.0.1", FIRST)).unwrap();
    };
    let kinds = &["udp-anywhere"];
    assert_eq!(heard_when(&world, true, None, kinds, at_both).0, each(kinds, "heard"));
    assert_eq!(heard_when(&world, true, Some((NOBODY, NOT_AT_ONE)), kinds, at_both).0, each(kinds, "nothing"));
}

#[test]
fn nobody_listens_at_a_port_that_was_not_bound() {
    let Some(world) = World::new("unbound") else { return };
    let unbound = &["tcp-unbound"];
    if heard(&world, true, None, unbound).0 != each(unbound, "heard") {
        skipped("a range of one local port: the kernel has no such option");
        return;
    }
    let found = heard(&world, true, Some((NOBODY, NO_BIND)), unbound);
    assert_eq!(found, (each(unbound, "nothing"), 0));
}
