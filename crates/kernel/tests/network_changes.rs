//! Flows that are authorized again because interfaces or addresses have changed, or their packets come by another interface.
//! Needs root and BPF.

mod support;

use openwfp_engine::words;
use openwfp_kernel::{events::EndOfFlow, options::Options};
use openwfp_model::{Action, FieldId, LayerId, MatchType, Value};
use std::{
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::Command,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};
use support::{
    actor,
    live::{Live, filter, remote_port},
    net::ip,
    obedient::Obedient,
    talk::{
        KINDS, Kind, NEW_ARRIVAL_INTERFACE, NEW_NEXTHOP_INTERFACE, POLICY_CHANGE, Peer, RECORDED, Talk,
        Way::{In, Out},
        both_versions, in_own_network,
    },
};

const ACCEPT: LayerId = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

#[test]
fn actor() {
    actor::act();
}

#[test]
fn interfaces_and_addresses_that_come_and_go_ask_every_flow() {
    in_own_network(|| {
        for kind in both_versions() {
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            talk.live.enforcement.refresh_interfaces().unwrap();
            talk.passes(Out);
            talk.not_asked();
            let address = if kind.v6 { "fd09::9:9/128" } else { "127.9.9.9/32" };
            let [add, del] = ["add", "del"].map(|what| format!("address {what} {address} dev lo"));
            // (what happens, the packet that comes then, why it is asked)
            let table = [
                (&*add, Out, NEW_NEXTHOP_INTERFACE),
                (&*del, In, NEW_ARRIVAL_INTERFACE),
                ("link add other type veth peer name another", In, NEW_ARRIVAL_INTERFACE),
                ("link del other", Out, NEW_NEXTHOP_INTERFACE),
            ];
            for (change, way, reason) in table {
                thread::sleep(Duration::from_millis(100));
                ip(change);
                // that is enough to see it
                talk.live.drain();
                talk.passes(way);
                assert!(!talk.asked_for(reason).blocked);
                talk.passes(Out);
                talk.passes(In);
                talk.not_asked();
            }
            // what changes how packets go, but no link and no address
            ip("link add other type veth peer name another");
            talk.live.enforcement.refresh_interfaces().unwrap();
            talk.passes(Out);
            talk.asked_for(NEW_NEXTHOP_INTERFACE);
            let route = if kind.v6 { "fd09:9::/64" } else { "10.99.0.0/24" };
            let [add_route, del_route] = ["add", "del"].map(|what| format!("route {what} {route} dev lo"));
            // without addresses of its own, which would be changes too
            std::fs::write("/proc/sys/net/ipv6/conf/other/disable_ipv6", "1").unwrap();
            for change in
                ["link set other up", "link set other down", "link set other name renamed", &add_route, &del_route]
            {
                thread::sleep(Duration::from_millis(100));
                ip(change);
                talk.live.drain();
                for way in [Out, In] {
                    talk.passes(way);
                }
                let asked = talk.live.classified();
                assert!(asked.is_empty(), "{change}: {asked:?}");
            }
            ip("link del renamed");
            talk.live.drain();
            talk.passes(In);
            talk.asked_for(NEW_ARRIVAL_INTERFACE);
            // both at once; and a later policy does not ask for the interfaces again
            ip(&add);
            talk.live.enforcement.refresh_interfaces().unwrap();
            talk.replace(vec![remote_port(talk.layer, Action::Block, 9)]);
            talk.passes(Out);
            talk.asked_for(POLICY_CHANGE | NEW_NEXTHOP_INTERFACE);
            talk.replace(vec![]);
            talk.passes(Out);
            talk.asked_for(POLICY_CHANGE);
            ip(&del);
        }
    });
}

/// A peer in a network namespace of its own, to which two ways lead: 10.9.1.0/24 and 10.9.2.0/24. It makes a connection once it is
/// told an address, and may say that something is ready.
struct PeerWithTwoWays {
    namespace: String,
    go: Sender<SocketAddr>,
    ready: Receiver<()>,
    connection: JoinHandle<TcpStream>,
}

fn peer_with_two_ways(connection: fn(SocketAddr, Sender<()>) -> TcpStream) -> PeerWithTwoWays {
    let loosely = |name: &str| std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "0").unwrap();
    let (tell, told) = channel();
    let (go, going) = channel();
    let (is_ready, ready) = channel();
    let connection = thread::spawn(move || {
        actor::own_network().unwrap();
        ["all", "default"].into_iter().for_each(loosely);
        tell.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
        connection(going.recv().unwrap(), is_ready)
    });
    ["all", "default"].into_iter().for_each(loosely);
    let namespace = told.recv().unwrap();
    let there = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    for way in ["1", "2"] {
        ip(&format!("link add here{way} type veth peer name there{way} netns {there}"));
        ip(&format!("address add 10.9.{way}.1/24 dev here{way}"));
        ip(&format!("link set here{way} up"));
        ip_there(&there, &format!("address add 10.9.{way}.2/24 dev there{way}"));
        ip_there(&there, &format!("link set there{way} up"));
    }
    // open as long as the test runs
    std::mem::forget(namespace);
    PeerWithTwoWays { namespace: there, go, ready, connection }
}

/// The index of the second way on this side.
fn second_way() -> u32 {
    let links = openwfp_kernel::links::links().unwrap();
    links.into_iter().find(|link| link.name == "here2").unwrap().index
}

/// A group whose flows may not go by an interface, as a layer's field has it, and an actor in it.
fn without(layer: LayerId, field: FieldId, interface: u32) -> Option<(Live, Obedient)> {
    let interface = Value::Uint32(interface);
    let block = filter(layer, Action::Block).when(field, MatchType::Equal, interface).build().unwrap();
    let live = Live::with(vec![block], Options { recorded: RECORDED.to_vec(), ..Options::default() })?;
    let actor = Obedient::start(&live);
    Some((live, actor))
}

/// The connection that the actor and the peer have made.
fn talk(mut live: Live, actor: Obedient, peer: JoinHandle<TcpStream>, kind: Kind) -> Talk {
    let stream = peer.join().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let flow = live.classified()[1].flow;
    Talk { live, actor, peer: Peer::Stream(stream), flow, layer: kind.authorizes(), port: 0, kind }
}

/// Runs `ip` in another network namespace, by the file that stands for it.
fn ip_there(namespace: &str, arguments: &str) {
    let mut command = Command::new("nsenter");
    let status = command.arg(format!("--net={namespace}")).arg("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

#[test]
fn a_connection_that_arrives_by_another_interface_is_asked_again() {
    for blocked in [false, true] {
        in_own_network(move || {
            let peer = peer_with_two_ways(|address, _| TcpStream::connect(address).unwrap());
            let second = second_way();
            let field = FieldId::ARRIVAL_INTERFACE_INDEX;
            let Some((mut live, mut actor)) = without(ACCEPT, field, if blocked { second } else { 4321 }) else {
                return;
            };
            let address = SocketAddr::from(([10, 9, 1, 1], 7000));
            assert_eq!(actor.tell(&mut live, &format!("listen {address}")), "ok");
            peer.go.send(address).unwrap();
            assert_eq!(actor.tell(&mut live, "accept"), "ok");
            let mut talk = talk(live, actor, peer.connection, KINDS[1]);
            for way in [In, Out, In] {
                talk.passes(way);
            }
            talk.not_asked();
            ip_there(&peer.namespace, "route add 10.9.1.1/32 via 10.9.2.1 dev there2");
            let heard = talk.inward();
            let event = talk.asked_for(NEW_ARRIVAL_INTERFACE);
            assert_eq!(event.values.get(words::ARRIVAL_INTERFACE_INDEX), u64::from(second));
            assert_eq!((event.blocked, heard.as_str()), (blocked, if blocked { "ECONNABORTED" } else { "ok" }));
            if blocked {
                return talk.has_ended(EndOfFlow::Refused);
            }
            for way in [In, Out, In] {
                talk.passes(way);
            }
            talk.not_asked();
        });
    }
}

#[test]
fn a_connection_that_leaves_by_another_interface_is_asked_again() {
    fn accept(address: SocketAddr, ready: Sender<()>) -> TcpStream {
        let server = TcpListener::bind(address).unwrap();
        ready.send(()).unwrap();
        server.accept().unwrap().0
    }
    // by what the process does to its socket, and by what happens to the routes
    for (by_itself, blocked) in [(true, true), (true, false), (false, true), (false, false)] {
        in_own_network(move || {
            let peer = peer_with_two_ways(accept);
            let second = second_way();
            let field = FieldId::INTERFACE_INDEX;
            let Some((mut live, mut actor)) = without(CONNECT, field, if blocked { second } else { 4321 }) else {
                return;
            };
            let address = SocketAddr::from(([10, 9, 1, 2], 7000));
            peer.go.send(address).unwrap();
            peer.ready.recv().unwrap();
            assert_eq!(actor.tell(&mut live, &format!("tcp-waiting {address}")), "ok");
            let mut talk = talk(live, actor, peer.connection, KINDS[0]);
            for way in [Out, In, Out] {
                talk.passes(way);
            }
            // what was sent last is acknowledged by the first way
            thread::sleep(Duration::from_millis(300));
            talk.not_asked();
            if by_itself {
                // the answers have to come that way then
                ip_there(&peer.namespace, "route add 10.9.1.1/32 via 10.9.2.1 dev there2");
                assert_eq!(talk.actor.tell(&mut talk.live, "bind-to-device here2"), "ok");
            } else {
                ip("route add 10.9.1.2/32 via 10.9.2.2 dev here2");
            }
            let (_, come) = talk.outward();
            let asked = talk.live.classified();
            let event = &asked[0];
            assert_eq!((event.layer, event.values.get(words::REAUTHORIZE_REASON)), (CONNECT, NEW_NEXTHOP_INTERFACE));
            assert_eq!(event.values.get(words::INTERFACE_INDEX), u64::from(second));
            assert_eq!((event.blocked, come), (blocked, !blocked));
            if blocked {
                return talk.has_ended(EndOfFlow::Refused);
            }
            let reasons = asked[1..].iter().map(|event| event.values.get(words::REAUTHORIZE_REASON));
            assert!(reasons.eq(by_itself.then_some(NEW_ARRIVAL_INTERFACE)), "{asked:?}");
            for way in [Out, In, Out] {
                talk.passes(way);
            }
            talk.not_asked();
        });
    }
}
