//! What traffic over loopback meets, step by step, on both sides: the client and the server are processes of one group. Needs root
//! and BPF.
//!
//! A packet leaves and then arrives. It meets the same in the same order whether the layers of packets are met at the sockets or
//! at the devices; there, what the kernel says by itself is met too. Loopback has no frames.

mod support;

use openwfp_engine::Schema;
use openwfp_kernel::{
    events::{Event, EventKind},
    hooks::Hook,
    options::Options,
};
use openwfp_model::{FieldId, Layer, LayerId};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};
use support::{
    actor,
    live::Live,
    net::{self, alone},
    obedient::Obedient,
    router::{CLOSED, PORT},
    skips::kernel_is_before,
};

#[test]
fn actor() {
    actor::act();
}

/// What an endpoint meets when it gets its address.
const BIND: [&str; 2] = ["ALE_BIND_REDIRECT", "ALE_RESOURCE_ASSIGNMENT"];
const LISTEN: [&str; 1] = ["ALE_AUTH_LISTEN"];
const CONNECT: [&str; 2] = ["ALE_CONNECT_REDIRECT", "ALE_AUTH_CONNECT"];
const ACCEPT: [&str; 1] = ["ALE_AUTH_RECV_ACCEPT"];
const ESTABLISHED: [&str; 1] = ["ALE_FLOW_ESTABLISHED"];
const RELEASE: [&str; 1] = ["ALE_RESOURCE_RELEASE"];
const CLOSURE: [&str; 1] = ["ALE_ENDPOINT_CLOSURE"];
const OUT: [&str; 2] = ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"];
const IN: [&str; 2] = ["INBOUND_IPPACKET", "INBOUND_TRANSPORT"];
const STREAM: [&str; 1] = ["STREAM_PACKET"];
const DATAGRAM: [&str; 1] = ["DATAGRAM_DATA"];
const TCP_OUT: [&str; 3] = ["STREAM_PACKET", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"];
const TCP_IN: [&str; 3] = ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "STREAM_PACKET"];
const UDP_OUT: [&str; 3] = ["DATAGRAM_DATA", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"];
const UDP_IN: [&str; 3] = ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "DATAGRAM_DATA"];

/// Where the layers of packets are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    AtSockets,
    AtDevices,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

use Side::{Client, Server};

/// One layer, as one side meets it.
#[derive(PartialEq, Eq)]
struct Sight(Side, &'static str);

impl fmt::Debug for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.0, self.1)
    }
}

/// What a side does, its words in the documentation, and what both sides meet then.
struct Step<'a> {
    called: &'static str,
    who: Side,
    action: &'a str,
    result: &'static str,
    meets: Vec<(Side, &'static [&'static str])>,
}

fn step<'a>(called: &'static str, who: Side, action: &'a str, meets: &[(Side, &'static [&'static str])]) -> Step<'a> {
    Step { called, who, action, result: "ok", meets: meets.to_vec() }
}

/// Whose side a classification is: the server's port tells it, and of ICMP that the client asks and is answered. `None`: the layers of
/// IP packets know no ports.
fn side(event: &Event) -> Option<Side> {
    let value = |field| Schema::of(event.layer).field(field).map(|words| event.values.get(words.first));
    let name = event.layer.name();
    let local = value(FieldId::IP_LOCAL_PORT)?;
    let is_server = match value(FieldId::IP_PROTOCOL) {
        _ if name.contains("ICMP_ERROR") => name.starts_with("OUTBOUND"),
        // of an echo request, which comes in at the server, or something else, which goes out there
        Some(1 | 58) if [8, 128].contains(&local) => name.starts_with("INBOUND"),
        Some(1 | 58) => name.starts_with("OUTBOUND"),
        _ => [PORT, CLOSED].map(u64::from).contains(&local),
    };
    Some(if is_server { Server } else { Client })
}

/// Plays the steps between two processes of a group, in a network of their own, and compares what is met at each.
fn play(met: Met, v6: bool, steps: &[Step<'_>]) {
    let devices = met == Met::AtDevices;
    if devices && kernel_is_before(6, 6, "loopback at devices") {
        return;
    }
    net::set("ipv4/ping_group_range", "0 2147483647");
    let is_met =
        |layer: &LayerId| !Hook::of_layer(*layer).is_empty() || devices && Hook::of_device_layer(*layer).is_some();
    // what the kernel drops by itself is in other tables
    let all = Layer::all().iter().filter(|layer| !layer.name.ends_with("_DISCARD")).map(|layer| layer.id);
    let options = Options { recorded: all.filter(is_met).collect(), devices, ..Options::default() };
    let Some(mut live) = Live::with(vec![], options) else { return };
    let (mut client, mut server) = (Obedient::start(&live), Obedient::start(&live));
    for Step { called, who, action, result, meets } in steps {
        let actor = if *who == Client { &mut client } else { &mut server };
        let what = format!("{called}, {met:?}, IPv6: {v6}");
        assert_eq!(actor.tell(&mut live, action), *result, "{what}");
        let expected: Vec<Sight> =
            meets.iter().flat_map(|(side, layers)| layers.iter().map(|layer| Sight(*side, layer))).collect();
        // an acknowledgment may take its time
        let actual = sights(&mut live, v6, expected.len());
        assert_eq!(actual, expected, "{what}");
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(sights(&mut live, v6, 0), [], "after the last step, {met:?}, IPv6: {v6}");
}

/// What was met since the last time, once there is as much.
fn sights(live: &mut Live, v6: bool, count: usize) -> Vec<Sight> {
    let begun = Instant::now();
    loop {
        live.drain();
        if live.events.len() >= count || begun.elapsed() > Duration::from_secs(2) {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    let met: Vec<Event> = live.events.extract_if(.., |event| event.kind == EventKind::Classify).collect();
    let version = if v6 { "_V6" } else { "_V4" };
    let family = |event: &Event| event.layer.name().strip_suffix(version).unwrap_or_else(|| panic!("{}", event.layer));
    let sight = |(number, event)| {
        // an IP packet is of the side of the transport layer that is met before it on its way out, and after it on its way in
        let neighbour = if family(event) == "OUTBOUND_IPPACKET" { number - 1 } else { number + 1 };
        Sight(side(event).or_else(|| side(met.get(neighbour)?)).expect("whose it is"), family(event))
    };
    met.iter().enumerate().map(sight).collect()
}

/// A table for both versions of IP, at sockets and at devices.
fn everywhere(steps: impl Fn(Met, IpAddr) + Send + Sync + Copy + 'static) {
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        for met in [Met::AtSockets, Met::AtDevices] {
            alone(move || steps(met, address));
        }
    }
}

/// What a packet of TCP meets that goes to the server, and one that comes back.
const FORTH: Meets = [(Client, &TCP_OUT), (Server, &TCP_IN)];
const BACK: Meets = [(Server, &TCP_OUT), (Client, &TCP_IN)];
type Meets = [(Side, &'static [&'static str]); 2];

/// A connection of TCP begins, and then there are these steps.
fn play_tcp(met: Met, address: IpAddr, then: impl IntoIterator<Item = Step<'static>>) {
    let to = SocketAddr::new(address, PORT);
    let (listen, connect) = (format!("listen {to}"), format!("tcp-waiting {to}"));
    let begins = [
        &[(Client, &BIND[..]), (Client, &CONNECT)][..],
        &[(Client, &TCP_OUT[..]), (Server, &IN), (Server, &ACCEPT), (Server, &STREAM)],
        &BACK,
        &[(Client, &ESTABLISHED[..])],
        &FORTH,
        &[(Server, &ESTABLISHED[..])],
    ];
    let mut steps = vec![
        step("bind, listen", Server, &listen, &[(Server, &BIND), (Server, &LISTEN)]),
        step("connect; SYN, SYN-ACK, ACK", Client, &connect, &begins.concat()),
        step("accept", Server, "accept", &[]),
    ];
    for step in then {
        steps.push(step);
    }
    play(met, address.is_ipv6(), &steps);
}

#[test]
fn a_tcp_connection() {
    everywhere(|met, address| {
        let steps = [
            step("send; data, its acknowledgment", Client, "say", &[FORTH, BACK].concat()),
            step("receive", Server, "hear", &[]),
            step("answer; data, its acknowledgment", Server, "say", &[BACK, FORTH].concat()),
            step("receive", Client, "hear", &[]),
            step("shutdown; FIN, its acknowledgment", Client, "shut", &[FORTH, BACK].concat()),
            // each side's connection ends with the last packet that it has to do with
            step(
                "shutdown; FIN, its acknowledgment",
                Server,
                "shut",
                &[&BACK[..], &[FORTH[0], (Client, &CLOSURE), FORTH[1], (Server, &CLOSURE)]].concat(),
            ),
            step("close", Client, "close", &[(Client, &RELEASE)]),
            step("close", Server, "close", &[]),
            step("close of the listener", Server, "close", &[(Server, &RELEASE), (Server, &CLOSURE)]),
        ];
        play_tcp(met, address, steps);
    });
}

/// The side that resets is at its end before the reset leaves: the kernel sends that for a connection that is closed.
#[test]
fn a_tcp_connection_that_its_client_resets() {
    everywhere(|met, address| {
        let steps = [
            step(
                "close without lingering; RST",
                Client,
                "reset",
                &[&[(Client, &RELEASE[..]), (Client, &CLOSURE)][..], &FORTH, &[(Server, &CLOSURE[..])]].concat(),
            ),
            step("close", Server, "close", &[]),
            step("close of the listener", Server, "close", &[(Server, &RELEASE), (Server, &CLOSURE)]),
        ];
        play_tcp(met, address, steps);
    });
}

#[test]
fn a_udp_request_and_its_reply() {
    everywhere(|met, address| {
        let to = SocketAddr::new(address, PORT);
        let (bind, bind_client) = (format!("bind {to}"), format!("udp-at {}", SocketAddr::new(address, 0)));
        let send = format!("send {to}");
        let first = [[(Client, &UDP_OUT[..]), (Server, &IN)], [(Server, &ACCEPT), (Server, &ESTABLISHED)]].concat();
        let steps = [
            step("bind", Server, &bind, &[(Server, &BIND)]),
            step("bind", Client, &bind_client, &[(Client, &BIND)]),
            step(
                "sendto; data",
                Client,
                &send,
                &[&[(Client, &CONNECT[..]), (Client, &ESTABLISHED)], &first[..], &[(Server, &DATAGRAM[..])]].concat(),
            ),
            step("its answer", Server, "answer-datagram", &[(Server, &UDP_OUT), (Client, &UDP_IN)]),
            step("receive", Client, "receive", &[]),
            step("data again", Client, &send, &[(Client, &UDP_OUT), (Server, &UDP_IN)]),
            step("close", Client, "close", &[(Client, &RELEASE), (Client, &CLOSURE)]),
            step("close", Server, "close", &[(Server, &RELEASE), (Server, &CLOSURE)]),
        ];
        play(met, address.is_ipv6(), &steps);
    });
}

#[test]
fn an_echo_request_and_its_reply() {
    everywhere(|met, address| {
        let echo = format!("echo {}", SocketAddr::new(address, 0));
        // the kernel is the server, which devices alone see
        let server: &[(Side, &[&str])] = match met {
            Met::AtSockets => &[],
            Met::AtDevices => &[(Server, &IN), (Server, &OUT)],
        };
        let steps = [
            step(
                "request, reply",
                Client,
                &echo,
                &[
                    &[(Client, &CONNECT[1..]), (Client, &ESTABLISHED), (Client, &UDP_OUT)],
                    server,
                    &[(Client, &UDP_IN[..])],
                ]
                .concat(),
            ),
            step("close", Client, "close", &[(Client, &CLOSURE)]),
        ];
        play(met, address.is_ipv6(), &steps);
    });
}

#[test]
fn where_nobody_listens() {
    everywhere(|met, address| {
        let to = SocketAddr::new(address, CLOSED);
        let (connect, send) = (format!("tcp-waiting {to}"), format!("send {to}"));
        let bind = format!("udp-at {}", SocketAddr::new(address, 0));
        let answer: &[(Side, &[&str])] = match met {
            Met::AtSockets => &[],
            Met::AtDevices => &[(Server, &IN), (Server, &OUT)],
        };
        let mut refused = step(
            "connect; SYN, RST",
            Client,
            &connect,
            &[
                &[(Client, &BIND[..]), (Client, &CONNECT), (Client, &TCP_OUT)][..],
                answer,
                &[(Client, &TCP_IN[..]), (Client, &RELEASE), (Client, &CLOSURE)],
            ]
            .concat(),
        );
        refused.result = "ECONNREFUSED";
        // the error has no socket: devices alone see it
        let error: &[(Side, &[&str])] = match met {
            Met::AtSockets => &[],
            Met::AtDevices => &[
                (Server, &IN),
                (Server, &["OUTBOUND_ICMP_ERROR"]),
                (Server, &OUT),
                (Client, &IN),
                (Client, &["INBOUND_ICMP_ERROR"]),
            ],
        };
        let steps = [
            refused,
            step("bind", Client, &bind, &[(Client, &BIND)]),
            step(
                "sendto; UDP message, ICMP Dest Unreachable",
                Client,
                &send,
                &[&[(Client, &CONNECT[..]), (Client, &ESTABLISHED), (Client, &UDP_OUT)], error].concat(),
            ),
            step("close", Client, "close", &[(Client, &RELEASE), (Client, &CLOSURE)]),
        ];
        play(met, address.is_ipv6(), &steps);
    });
}
