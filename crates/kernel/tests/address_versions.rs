//! Calls by IPv4, IPv6, mapped IPv4 addresses (`::ffff:127.0.0.1`) and sockets of both versions: which layers they meet, which
//! address their events show, and that each of these layers can refuse them. Needs root and BPF.
//!
//! All cases of a test stand in one policy, each at ports of its own: one that is refused, by address and port, at the layer that the
//! call has to meet (a socket of both versions has two such ports, one for each layer), and one that is blocked only at the layer
//! of the other version, so that the call is permitted.

mod support;

use openwfp_kernel::events::Event;
use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Value};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use support::{
    actor,
    live::{Live, address, filter},
    serving::{Server, connects},
    talk::in_own_network,
    wait_until,
};

#[test]
fn actor() {
    actor::act();
}

/// The layers of one kind: that of IPv4 and that of IPv6.
type Pair = [LayerId; 2];

const ASSIGNMENT: Pair = [LayerId::ALE_RESOURCE_ASSIGNMENT_V4, LayerId::ALE_RESOURCE_ASSIGNMENT_V6];
const LISTEN: Pair = [LayerId::ALE_AUTH_LISTEN_V4, LayerId::ALE_AUTH_LISTEN_V6];
const CONNECT: Pair = [LayerId::ALE_AUTH_CONNECT_V4, LayerId::ALE_AUTH_CONNECT_V6];
const ACCEPT: Pair = [LayerId::ALE_AUTH_RECV_ACCEPT_V4, LayerId::ALE_AUTH_RECV_ACCEPT_V6];

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const MAPPED: &str = "[::ffff:127.0.0.1]";

/// The layer of this address's version.
fn of(layers: Pair, address: IpAddr) -> LayerId {
    layers[usize::from(address.is_ipv6())]
}

fn of_the_other(layers: Pair, address: IpAddr) -> LayerId {
    layers[usize::from(address.is_ipv4())]
}

/// Ports, each given once; in a network of their own all are free.
type Ports = std::ops::RangeFrom<u16>;

const PORTS: Ports = 20_000..;

/// What is blocked at a layer: a port, and an address where one is given.
fn block(layer: LayerId, port: (FieldId, u16), of: Option<(FieldId, IpAddr)>) -> Filter {
    let filter = filter(layer, Action::Block).when(port.0, MatchType::Equal, Value::Uint16(port.1));
    match of {
        Some((field, of)) => filter.when(field, MatchType::Equal, address(of)),
        None => filter,
    }
    .build()
    .unwrap()
}

/// The layer, the address in a field, and whether it was blocked: of each event about a port.
fn told(live: &Live, layers: Pair, port: (FieldId, u16), field: FieldId) -> Vec<(LayerId, Value, bool)> {
    let value = |event: &Event, field| live.policy.value(event.layer, field, &event.values);
    let about = |event: &&Event| layers.contains(&event.layer) && value(event, port.0) == Some(Value::Uint16(port.1));
    let events = live.events.iter().filter(about);
    events.map(|event| (event.layer, value(event, field).unwrap(), event.blocked)).collect()
}

/// One case, at one port.
struct Attempt {
    call: String,
    port: u16,
    refused: bool,
    /// The layer and address of each event, in order.
    events: Vec<(LayerId, IpAddr)>,
}

/// The attempts of one case, and the filters by which they end as they do. `met`: the addresses that are classified, in order;
/// `ports`: the fields of the port and the address.
fn attempts(
    layers: Pair,
    met: &[IpAddr],
    (port_field, address_field): (FieldId, FieldId),
    ports: &mut Ports,
    call: impl Fn(u16) -> String,
) -> (Vec<Attempt>, Vec<Filter>) {
    let (mut attempts, mut filters) = (vec![], vec![]);
    for (index, address) in met.iter().enumerate() {
        let port = ports.next().unwrap();
        filters.push(block(of(layers, *address), (port_field, port), Some((address_field, *address))));
        // what is refused is not asked at the next layer
        let events = met[..=index].iter().map(|address| (of(layers, *address), *address)).collect();
        attempts.push(Attempt { call: call(port), port, refused: true, events });
    }
    let port = ports.next().unwrap();
    if let [only] = met {
        filters.push(block(of_the_other(layers, *only), (port_field, port), None));
    }
    let events = met.iter().map(|address| (of(layers, *address), *address)).collect();
    attempts.push(Attempt { call: call(port), port, refused: false, events });
    (attempts, filters)
}

fn check_events(live: &Live, layers: Pair, (port, of): (FieldId, FieldId), attempts: &[Attempt]) {
    for Attempt { call, port: number, refused, events } in attempts {
        let last = events.len() - 1;
        let expected: Vec<_> = events
            .iter()
            .enumerate()
            .map(|(index, (layer, seen))| (*layer, address(*seen), *refused && index == last))
            .collect();
        assert_eq!(told(live, layers, (port, *number), of), expected, "{call}");
    }
}

#[test]
fn binds_meet_the_layer_of_the_address_that_is_bound() {
    in_own_network(|| {
        let fields = (FieldId::IP_LOCAL_PORT, FieldId::IP_LOCAL_ADDRESS);
        let mut ports = PORTS;
        let (mut all, mut filters) = (vec![], vec![]);
        for (at, met) in [
            ("127.0.0.1", &[V4][..]),
            ("[::1]", &[V6]),
            (MAPPED, &[V4]),
            ("[::ffff:0.0.0.0]", &[ANY_V4]),
            ("0.0.0.0", &[ANY_V4]),
            // serves both versions
            ("[::]", &[ANY_V6, ANY_V4]),
        ] {
            for how in ["bind", "listen"] {
                let (cases, blocks) =
                    attempts(ASSIGNMENT, met, fields, &mut ports, |port| format!("{how} {at}:{port}"));
                all.extend(cases);
                filters.extend(blocks);
            }
        }
        let Some(mut live) = Live::new(filters, &ASSIGNMENT) else { return };
        let script: Vec<&str> = all.iter().map(|attempt| &*attempt.call).collect();
        let results = live.act(&script.join("\n"));
        for (attempt, result) in all.iter().zip(&results) {
            assert_eq!(result, if attempt.refused { "EPERM" } else { "ok" }, "{}", attempt.call);
        }
        check_events(&live, ASSIGNMENT, fields, &all);
    });
}

#[test]
fn connects_and_messages_meet_the_layer_of_the_address_that_is_called() {
    in_own_network(|| {
        let fields = (FieldId::IP_REMOTE_PORT, FieldId::IP_REMOTE_ADDRESS);
        let mut ports = PORTS;
        let (mut all, mut filters) = (vec![], vec![]);
        for (to, met) in [("127.0.0.1", V4), ("[::1]", V6), (MAPPED, V4)] {
            // by a socket that is not bound, by one of both versions, by one of the other end's own kind
            let bound = if met == V6 || to == MAPPED { "[::]:0" } else { "0.0.0.0:0" };
            for how in [
                "tcp ".into(),
                "udp ".into(),
                format!("tcp-from {bound} "),
                format!("udp-from {bound} "),
                format!("tcp-from {to}:0 "),
                format!("udp-from {to}:0 "),
                // a message without a connection
                "close\nsend ".into(),
                format!("udp-at {bound}\nsend "),
                format!("udp-at {to}:0\nsend "),
            ] {
                let (cases, blocks) = attempts(CONNECT, &[met], fields, &mut ports, |port| format!("{how}{to}:{port}"));
                all.extend(cases);
                filters.extend(blocks);
            }
        }
        // what is called, by both versions
        let _servers: Vec<(TcpListener, UdpSocket)> = all
            .iter()
            .map(|attempt| (ANY_V6, attempt.port))
            .map(|at| (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap()))
            .collect();
        let Some(mut live) = Live::new(filters, &CONNECT) else { return };
        for attempt in &all {
            let results = live.act(&attempt.call);
            let expected = if attempt.refused { "EPERM" } else { "ok" };
            assert_eq!(results.last().unwrap(), expected, "{}", attempt.call);
            assert!(results.iter().rev().skip(1).all(|result| result == "ok"), "{}: {results:?}", attempt.call);
        }
        check_events(&live, CONNECT, fields, &all);
    });
}

#[test]
fn listening_meets_the_layers_of_the_versions_that_are_served() {
    in_own_network(|| {
        let fields = (FieldId::IP_LOCAL_PORT, FieldId::IP_LOCAL_ADDRESS);
        let mut ports = PORTS;
        let (mut all, mut filters) = (vec![], vec![]);
        for (at, met, clients) in [
            ("127.0.0.1", &[V4][..], &[V4][..]),
            ("[::1]", &[V6], &[V6]),
            (MAPPED, &[V4], &[V4]),
            ("[::ffff:0.0.0.0]", &[ANY_V4], &[V4]),
            ("[::]", &[ANY_V6, ANY_V4], &[V4, V6]),
        ] {
            let (cases, blocks) = attempts(LISTEN, met, fields, &mut ports, |port| format!("listen {at}:{port}"));
            all.extend(cases.into_iter().map(|case| (case, clients)));
            filters.extend(blocks);
        }
        let Some(mut live) = Live::new(filters, &LISTEN) else { return };
        let script: Vec<&str> = all.iter().map(|(attempt, _)| &*attempt.call).collect();
        let _server = Server::start(&live, &script.join("\n"));
        let (attempts, clients): (Vec<Attempt>, Vec<&[IpAddr]>) = all.into_iter().unzip();
        let expected: usize = attempts.iter().map(|attempt| attempt.events.len()).sum();
        assert!(wait_until(|| {
            live.drain();
            live.events.len() >= expected
        }));
        for (attempt, clients) in attempts.iter().zip(clients) {
            for client in clients {
                assert_eq!(
                    connects(SocketAddr::new(*client, attempt.port)),
                    !attempt.refused,
                    "{} by {client}",
                    attempt.call
                );
            }
        }
        live.drain();
        check_events(&live, LISTEN, fields, &attempts);
    });
}

/// Whether a datagram waits to be read at a port, as the kernel lists its sockets.
fn has_received(port: u16) -> bool {
    let lists = ["udp", "udp6"]
        .map(|list| std::fs::read_to_string(format!("/proc/thread-self/net/{list}")).unwrap_or_default());
    lists.iter().flat_map(|list| list.lines().skip(1)).any(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_there = words[1].ends_with(&format!(":{port:04X}"));
        // bytes to be sent and to be read
        is_there && !words[4].ends_with(":00000000")
    })
}

#[test]
fn what_comes_meets_the_layer_of_the_packet() {
    in_own_network(|| {
        // ports are those of servers, addresses those of clients
        let fields = (FieldId::IP_LOCAL_PORT, FieldId::IP_REMOTE_ADDRESS);
        let mut ports = PORTS;
        let (mut all, mut filters) = (vec![], vec![]);
        for (at, from) in
            [("127.0.0.1", V4), ("[::1]", V6), (MAPPED, V4), ("[::ffff:0.0.0.0]", V4), ("[::]", V4), ("[::]", V6)]
        {
            for how in ["listen", "bind"] {
                let (cases, blocks) =
                    attempts(ACCEPT, &[from], fields, &mut ports, |port| format!("{how} {at}:{port}"));
                all.extend(cases.into_iter().map(|case| (case, how, from)));
                filters.extend(blocks);
            }
        }
        let mut recorded = ACCEPT.to_vec();
        recorded.extend(ASSIGNMENT);
        let Some(mut live) = Live::new(filters, &recorded) else { return };
        let script: Vec<&str> = all.iter().map(|(attempt, ..)| &*attempt.call).collect();
        let _server = Server::start(&live, &script.join("\n"));
        // all of them are bound; what is bound last listens a moment later
        assert!(wait_until(|| {
            live.drain();
            let port = FieldId::IP_LOCAL_PORT;
            all.iter().all(|(attempt, ..)| !told(&live, ASSIGNMENT, (port, attempt.port), fields.0).is_empty())
        }));
        for (attempt, how, from) in &all {
            let call = format!("{} by {from}", attempt.call);
            if *how == "listen" {
                assert_eq!(connects(SocketAddr::new(*from, attempt.port)), !attempt.refused, "{call}");
            } else {
                UdpSocket::bind((*from, 0)).unwrap().send_to(b"hello", (*from, attempt.port)).unwrap();
                assert_eq!(has_received(attempt.port), !attempt.refused, "{call}");
            }
        }
        let own = std::env::current_exe().unwrap().canonicalize().unwrap();
        live.drain();
        for (attempt, how, from) in &all {
            let mut events = told(&live, ACCEPT, (fields.0, attempt.port), fields.1);
            // a SYN that is dropped comes again
            if attempt.refused && *how == "listen" {
                events.dedup();
            }
            let expected = [(of(ACCEPT, *from), address(*from), attempt.refused)];
            assert_eq!(events, expected, "{} by {from}", attempt.call);
        }
        assert!(ACCEPT.iter().all(|layer| live.at(*layer).all(|event| *event.program == *own.to_str().unwrap())));
    });
}
