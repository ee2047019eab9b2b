//! Flows: authorized once, ended once. Needs root and BPF.

mod support;

use openwfp_engine::words;
use openwfp_kernel::{events::EndOfFlow, flows::FlowLimits, options::Options};
use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Value};
use std::{
    collections::BTreeMap,
    io::Read,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::{Duration, Instant},
};
use support::{
    actor,
    live::{Live, filter, local, remote_port},
    maps,
    net::ip,
    obedient::Obedient,
    odd,
    talk::{
        KINDS, POLICY_CHANGE, Peer, RECORDED, Talk,
        Way::{In, Out},
        both_versions, in_own_network,
    },
    wait_until,
};

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const ACCEPT: LayerId = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
const ESTABLISHED: LayerId = LayerId::ALE_FLOW_ESTABLISHED_V4;

/// One more echo request of a socket that is held.
const AGAIN: &str = "ping-again 127.0.0.1:0";

#[test]
fn actor() {
    actor::act();
}

#[test]
fn the_packets_of_an_authorized_flow_are_not_asked() {
    for kind in both_versions() {
        let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
        for way in [Out, In, Out, In] {
            talk.passes(way);
        }
        talk.not_asked();
    }
}

/// The layers of a version that authorize what goes out and what comes in, and that of established flows.
fn layers(v6: bool) -> [LayerId; 3] {
    match v6 {
        false => [CONNECT, ACCEPT, ESTABLISHED],
        true => [LayerId::ALE_AUTH_CONNECT_V6, LayerId::ALE_AUTH_RECV_ACCEPT_V6, LayerId::ALE_FLOW_ESTABLISHED_V6],
    }
}

/// What an echo request of a version goes to, and its type.
fn echo(v6: bool) -> (SocketAddr, u16) {
    if v6 { ((Ipv6Addr::LOCALHOST, 0).into(), 128) } else { ((Ipv4Addr::LOCALHOST, 0).into(), 8) }
}

/// Blocks messages of ICMP of a type.
fn no_icmp(layer: LayerId, kind: u16) -> Filter {
    filter(layer, Action::Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(kind)).build().unwrap()
}

/// Requests are a flow that `layer` authorizes, asked about again when filters there have changed, and ended when it is refused.
/// `request` makes one and says what is heard of it.
fn are_a_flow(live: &mut Live, v6: bool, layer: LayerId, refused: &str, mut request: impl FnMut(&mut Live) -> String) {
    assert_eq!([request(live), request(live)], ["ok", "ok"]);
    let first = live.classified();
    assert_eq!(first.iter().map(|event| event.layer).collect::<Vec<_>>(), [layer, layers(v6)[2]]);
    live.replace(vec![no_icmp(layer, 13)], &RECORDED);
    assert_eq!([request(live), request(live)], ["ok", "ok"]);
    let again = live.classified();
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!((again[0].layer, again[0].flow), (layer, first[1].flow));
    assert_eq!(again[0].values.get(words::REAUTHORIZE_REASON), POLICY_CHANGE);
    live.replace(vec![no_icmp(layer, echo(v6).1)], &RECORDED);
    assert_eq!([request(live), request(live)], [refused, refused]);
    let again = live.classified();
    assert!(again.len() == 1 && again[0].blocked, "{again:?}");
    assert_eq!(live.ended(), [(first[1].flow, EndOfFlow::Refused)]);
}

/// No filter, but what belongs to flows is told; and somebody who acts.
fn begin(options: Options) -> Option<(Live, Obedient)> {
    let live = Live::with(vec![], Options { recorded: RECORDED.to_vec(), ..options })?;
    let actor = Obedient::start(&live);
    Some((live, actor))
}

#[test]
fn echo_requests_that_leave_are_a_flow() {
    in_own_network(|| {
        for v6 in [false, true] {
            let Some((mut live, mut actor)) = begin(Options { replaceable: true, ..Options::default() }) else {
                return;
            };
            let to = echo(v6).0;
            assert_eq!(actor.tell(&mut live, &format!("ping-hold {to}")), "ok");
            let request = |live: &mut Live| actor.tell(live, &format!("ping-again {to}"));
            // the kernel's code of ICMPv6 does not ask whether the packet has left
            let refused = if v6 { "timeout" } else { "EPERM" };
            are_a_flow(&mut live, v6, layers(v6)[0], refused, request);
        }
    });
}

#[test]
fn echo_requests_that_come_in_are_a_flow() {
    in_own_network(|| {
        for v6 in [false, true] {
            let Some((mut live, mut actor)) = begin(Options { replaceable: true, ..Options::default() }) else {
                return;
            };
            let to = echo(v6).0;
            assert_eq!(actor.tell(&mut live, &format!("requests-at {to}")), "ok");
            let socket = odd::ping_socket(to).unwrap();
            let request = |live: &mut Live| {
                odd::request_echo(&socket, to).unwrap();
                actor.tell(live, "hear-request")
            };
            are_a_flow(&mut live, v6, layers(v6)[1], "timeout", request);
        }
    });
}

#[test]
fn a_flow_ends_once_whoever_ends_it() {
    for kind in both_versions() {
        for end in ["close", "kill", "peer", "reset"] {
            println!("{kind:?} {end}");
            let stream = kind.stream;
            if !stream && ["peer", "reset"].contains(&end) {
                continue;
            }
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            talk.passes(Out);
            talk.passes(In);
            match end {
                "close" => {
                    assert_eq!(talk.actor.tell(&mut talk.live, "close"), "ok");
                    if let Peer::Stream(stream) = &mut talk.peer {
                        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                    }
                }
                "kill" => {
                    talk.actor.kill();
                    if let Peer::Stream(stream) = &mut talk.peer {
                        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                    }
                }
                "peer" => {
                    let Peer::Stream(stream) = &talk.peer else { unreachable!() };
                    stream.shutdown(std::net::Shutdown::Both).unwrap();
                    assert_eq!(talk.actor.tell(&mut talk.live, "close"), "ok");
                }
                _ => {
                    let Peer::Stream(stream) = &talk.peer else { unreachable!() };
                    odd::resets(stream).unwrap();
                    let closed = UdpSocket::bind(local(0)).unwrap();
                    let to = closed.local_addr().unwrap();
                    talk.peer = Peer::Datagrams(closed, to);
                }
            }
            talk.has_ended(EndOfFlow::Closed);
        }
    }
}

#[test]
fn a_connection_whose_peer_has_vanished_ends_once() {
    for kind in both_versions().filter(|kind| kind.stream) {
        in_own_network(move || {
            println!("{kind:?}");
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            talk.passes(Out);
            talk.passes(In);
            assert_eq!(talk.actor.tell(&mut talk.live, "give-up-after 500"), "ok");
            ip("link set lo down");
            assert_eq!(talk.actor.tell(&mut talk.live, "say"), "ok", "nobody acknowledges it");
            talk.has_ended(EndOfFlow::Closed);
        });
    }
}

#[test]
fn a_flow_of_datagrams_that_is_idle_has_ended() {
    for kind in KINDS.into_iter().filter(|kind| !kind.stream) {
        let flows = FlowLimits { idle: Duration::from_secs(1), ..FlowLimits::default() };
        let Some(mut talk) = Talk::begin(kind, Options { flows, ..Options::default() }) else { return };
        // as long as it is used it goes on
        for way in [Out, In, Out, In] {
            thread::sleep(Duration::from_millis(500));
            talk.passes(way);
        }
        talk.not_asked();
        assert!(talk.live.ended().is_empty());
        talk.has_ended(EndOfFlow::Idle);
        // what comes then is another flow, and only that one ends with the socket
        talk.passes(Out);
        let next = talk.live.classified().last().unwrap().flow;
        assert_ne!(next, talk.flow);
        assert_eq!(talk.actor.tell(&mut talk.live, "close"), "ok");
        assert_eq!(talk.live.ended(), [(talk.flow, EndOfFlow::Idle), (next, EndOfFlow::Closed)]);
    }
}

/// The public idle time, of datagrams and of ICMP: what nobody has set otherwise.
const IDLE: Duration = Duration::from_secs(60);

/// Flows are made older than this machine is.
fn is_up_for_long_enough() {
    let up = || std::fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse::<u64>().unwrap();
    while up() < 70 {
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_flow_of_datagrams_that_was_not_used_for_a_minute_has_ended_unless_something_else_is_asked_for() {
    assert_eq!(FlowLimits::default().idle, IDLE);
    is_up_for_long_enough();
    for kind in KINDS.into_iter().filter(|kind| !kind.stream) {
        let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
        for way in [Out, In] {
            maps::age_flows(&mut talk.live, IDLE - Duration::from_secs(5));
            talk.passes(way);
        }
        talk.not_asked();
        assert!(talk.live.ended().is_empty());
        maps::age_flows(&mut talk.live, IDLE + Duration::from_secs(1));
        talk.passes(Out);
        let next: Vec<_> = talk.live.classified();
        assert_eq!(next.last().unwrap().layer, kind.establishes(), "{next:?}");
        assert_ne!(next.last().unwrap().flow, talk.flow);
    }
}

#[test]
fn an_echo_that_was_not_repeated_for_a_minute_has_ended_unless_something_else_is_asked_for() {
    is_up_for_long_enough();
    let Some((mut live, mut actor)) = begin(Options::default()) else { return };
    for action in ["own-network", "ping-hold 127.0.0.1:0", AGAIN] {
        assert_eq!(actor.tell(&mut live, action), "ok");
    }
    let first = live.classified();
    assert_eq!(first.iter().map(|event| event.layer).collect::<Vec<_>>(), [CONNECT, ESTABLISHED]);
    maps::age_flows(&mut live, IDLE - Duration::from_secs(5));
    assert_eq!(actor.tell(&mut live, AGAIN), "ok");
    assert_eq!(live.classified().len(), 0);
    maps::age_flows(&mut live, IDLE + Duration::from_secs(1));
    assert_eq!(actor.tell(&mut live, AGAIN), "ok");
    let next = live.classified();
    assert_eq!(next.iter().map(|event| event.layer).collect::<Vec<_>>(), [CONNECT, ESTABLISHED]);
    assert_ne!(next[1].flow, first[1].flow);
}

#[test]
fn the_end_of_a_flow_is_told_a_minute_after_its_last_packet_unless_something_else_is_asked_for() {
    let mut flows: Vec<(Live, Obedient, u64, Instant)> = vec![];
    for kind in KINDS.into_iter().filter(|kind| !kind.stream) {
        let before = Instant::now();
        let Some(talk) = Talk::begin(kind, Options::default()) else { return };
        flows.push((talk.live, talk.actor, talk.flow, before));
    }
    let before = Instant::now();
    let (mut live, mut actor) = begin(Options::default()).unwrap();
    for action in ["own-network", "ping-hold 127.0.0.1:0", AGAIN] {
        assert_eq!(actor.tell(&mut live, action), "ok");
    }
    let echo = live.classified()[1].flow;
    flows.push((live, actor, echo, before));
    while !flows.is_empty() {
        thread::sleep(Duration::from_millis(500));
        flows.retain_mut(|(live, _, flow, before)| {
            live.drain();
            let (ended, since) = (live.ended(), before.elapsed());
            if ended.is_empty() {
                assert!(since < IDLE + Duration::from_secs(30), "it has not ended");
                return true;
            }
            assert_eq!(ended, [(*flow, EndOfFlow::Idle)]);
            assert!(since >= IDLE, "{since:?}");
            false
        });
    }
}

#[test]
fn a_full_table_gives_flows_up_and_each_ends_once() {
    const FLOWS: u16 = 600;
    let flows = FlowLimits { idle: Duration::from_secs(12), entries: 128 };
    let Some((mut live, mut actor)) = begin(Options { flows, ..Options::default() }) else { return };
    for port in 0..FLOWS {
        assert_eq!(actor.tell(&mut live, &format!("send {}", local(20_000 + port))), "ok");
    }
    assert!(live.enforcement.flows_remembered() <= 128);
    assert!(wait_until(|| {
        live.drain();
        live.ended().len() >= usize::from(FLOWS) - 128
    }));
    assert_eq!(actor.tell(&mut live, "close"), "ok");
    let mut ends: BTreeMap<u64, Vec<EndOfFlow>> = BTreeMap::new();
    live.ended().into_iter().for_each(|(flow, cause)| ends.entry(flow).or_default().push(cause));
    assert!(ends.values().all(|causes| causes.len() == 1), "{ends:?}");
    let mut established: Vec<u64> =
        live.at(ESTABLISHED).filter(|event| event.flow != 0).map(|event| event.flow).collect();
    established.sort_unstable();
    assert_eq!(ends.keys().copied().collect::<Vec<_>>(), established);
    assert!(established.len() >= usize::from(FLOWS), "a flow that was given up is asked for again");
    let evicted = ends.values().filter(|causes| causes[0] == EndOfFlow::Evicted).count();
    assert!(evicted >= usize::from(FLOWS) - 128, "{evicted}");
}

#[test]
fn half_open_connections_hold_no_state() {
    in_own_network(|| {
        ip("link add outside type veth peer name inside");
        ip("address add 10.9.9.1/24 dev outside");
        ip("link set outside up");
        ip("link set inside up");
        ip("neighbour add 10.9.9.2 lladdr 02:00:00:00:00:01 dev outside");
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "0").unwrap();
        let options = Options { recorded: RECORDED.to_vec(), ..Options::default() };
        let Some(mut live) = Live::with(vec![remote_port(ACCEPT, Action::Block, 9)], options) else { return };
        let mut actor = Obedient::start(&live);
        let server = SocketAddrV4::new(Ipv4Addr::new(10, 9, 9, 1), 7000);
        assert_eq!(actor.tell(&mut live, &format!("listen {server}")), "ok");
        let before = live.enforcement.flows_remembered();
        // nobody answers there
        odd::half_open(Ipv4Addr::new(10, 9, 9, 2), 10_000..10_100, server).unwrap();
        assert!(wait_until(|| {
            live.drain();
            live.at(ACCEPT).count() >= 100
        }));
        let waiting = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        let half_open = waiting.lines().filter(|line| line.split_whitespace().nth(3) == Some("03")).count();
        assert!(half_open >= 50, "{half_open} are half open");
        assert_eq!(live.enforcement.flows_remembered(), before);
        assert_eq!(live.at(ESTABLISHED).count(), 0);
        assert!(live.at(ACCEPT).all(|event| event.flow == 0), "a flow begins when its handshake is complete");
        assert_eq!(live.enforcement.failures().sockets_without_memory, 0);
    });
}
