//! Flows: authorized once, authorized again when the policy or the interfaces have changed, ended once. Needs root and BPF.

mod support;

use openwfp_engine::words;
use openwfp_kernel::{
    events::{EndOfFlow, Event},
    flows::FlowLimits,
    options::Options,
};
use openwfp_model::{Action, FieldId, Filter, LayerId, MatchType, Value};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::Command,
    sync::mpsc::{Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};
use support::{
    actor,
    live::{Live, filter, free_port, local, remote_port},
    obedient::Obedient,
    odd, wait_until,
};

#[test]
fn actor() {
    actor::act();
}

const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const ACCEPT: LayerId = LayerId::ALE_AUTH_RECV_ACCEPT_V4;
const ESTABLISHED: LayerId = LayerId::ALE_FLOW_ESTABLISHED_V4;
const RECORDED: [LayerId; 3] = [CONNECT, ACCEPT, ESTABLISHED];

// FWP_CONDITION_FLAG_IS_REAUTHORIZE and FWP_CONDITION_REAUTHORIZE_REASON_*
const IS_REAUTHORIZE: u64 = 4;
const POLICY_CHANGE: u64 = 1;
const NEW_ARRIVAL_INTERFACE: u64 = 2;
const NEW_NEXTHOP_INTERFACE: u64 = 4;

/// Which way the packet goes that comes after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    In,
}
use Way::{In, Out};

/// One flow between an actor and this process.
struct Talk {
    live: Live,
    actor: Obedient,
    /// What this process does.
    peer: Peer,
    flow: u64,
    /// The layer that has authorized the flow.
    layer: LayerId,
    /// Of this process.
    port: u16,
}

enum Peer {
    Stream(TcpStream),
    Datagrams(UdpSocket, SocketAddr),
}

/// Who speaks first, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TcpClient,
    TcpServer,
    UdpClient,
    UdpServer,
}

const KINDS: [Kind; 4] = [Kind::TcpClient, Kind::TcpServer, Kind::UdpClient, Kind::UdpServer];

impl Talk {
    fn begin(kind: Kind, options: Options) -> Option<Self> {
        let live = Live::with(vec![], Options { recorded: RECORDED.to_vec(), replaceable: true, ..options })?;
        let actor = Obedient::start(&live);
        Some(Self::of(live, actor, kind))
    }

    fn of(mut live: Live, mut actor: Obedient, kind: Kind) -> Self {
        let second = Some(Duration::from_secs(1));
        let (peer, port) = match kind {
            Kind::TcpClient => {
                let server = TcpListener::bind(local(0)).unwrap();
                let address = server.local_addr().unwrap();
                assert_eq!(actor.tell(&mut live, &format!("tcp-waiting {address}")), "ok");
                (Peer::Stream(server.accept().unwrap().0), address.port())
            }
            Kind::TcpServer => {
                let address = local(free_port());
                assert_eq!(actor.tell(&mut live, &format!("listen {address}")), "ok");
                let stream = TcpStream::connect(address).unwrap();
                assert_eq!(actor.tell(&mut live, "accept"), "ok");
                let port = stream.local_addr().unwrap().port();
                (Peer::Stream(stream), port)
            }
            Kind::UdpClient => {
                let server = UdpSocket::bind(local(0)).unwrap();
                let address = server.local_addr().unwrap();
                server.set_read_timeout(second).unwrap();
                assert_eq!(actor.tell(&mut live, &format!("send {address}")), "ok");
                let (_, from) = server.recv_from(&mut [0; 64]).unwrap();
                (Peer::Datagrams(server, from), address.port())
            }
            Kind::UdpServer => {
                let address = local(free_port());
                assert_eq!(actor.tell(&mut live, &format!("udp-at {address}")), "ok");
                let client = UdpSocket::bind(local(0)).unwrap();
                client.set_read_timeout(second).unwrap();
                client.send_to(b"hello", address).unwrap();
                assert_eq!(actor.tell(&mut live, "receive"), "ok");
                let port = client.local_addr().unwrap().port();
                (Peer::Datagrams(client, address), port)
            }
        };
        if let Peer::Stream(stream) = &peer {
            stream.set_read_timeout(second).unwrap();
        }
        let layer = match kind {
            Kind::TcpClient | Kind::UdpClient => CONNECT,
            Kind::TcpServer | Kind::UdpServer => ACCEPT,
        };
        let first = live.classified();
        let layers: Vec<LayerId> = first.iter().map(|event| event.layer).collect();
        assert_eq!(layers, [layer, ESTABLISHED], "{kind:?}");
        let flow = first[1].flow;
        Self { live, actor, peer, flow, layer, port }
    }

    /// Five bytes out of the actor's socket; what its call says, and whether they have come.
    fn outward(&mut self) -> (String, bool) {
        let action = match self.peer {
            Peer::Stream(_) => "say".into(),
            Peer::Datagrams(..) => format!("send {}", local(self.port)),
        };
        let said = self.actor.tell(&mut self.live, &action);
        let come = match &mut self.peer {
            Peer::Stream(stream) => stream.read_exact(&mut [0; 5]),
            Peer::Datagrams(socket, _) => socket.recv(&mut [0; 64]).map(drop),
        };
        self.live.drain();
        (said, come.is_ok())
    }

    /// Five bytes to the actor's socket; what it hears.
    fn inward(&mut self) -> String {
        match &mut self.peer {
            Peer::Stream(stream) => stream.write_all(b"hello").unwrap(),
            Peer::Datagrams(socket, to) => drop(socket.send_to(b"hello", *to).unwrap()),
        }
        let action = if matches!(self.peer, Peer::Stream(_)) { "hear" } else { "receive" };
        self.actor.tell(&mut self.live, action)
    }

    fn passes(&mut self, way: Way) {
        match way {
            Out => assert_eq!(self.outward(), ("ok".into(), true)),
            In => assert_eq!(self.inward(), "ok"),
        }
    }

    /// Replaces the policy by one with these filters.
    fn replace(&mut self, filters: Vec<Filter>) {
        self.live.replace(filters, &RECORDED);
    }

    /// A filter at the flow's layer that says something about its other end.
    fn about(&self, action: Action) -> Filter {
        remote_port(self.layer, action, self.port)
    }

    /// The one classification since the last: a reauthorization of the flow.
    #[track_caller]
    fn asked_again(&mut self) -> Event {
        let events = self.live.classified();
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.layer, event.flow), (self.layer, self.flow));
        assert_eq!(event.values.get(words::FLAGS) & IS_REAUTHORIZE, IS_REAUTHORIZE);
        event.clone()
    }

    #[track_caller]
    fn asked_for(&mut self, reason: u64) -> Event {
        let event = self.asked_again();
        assert_eq!(event.values.get(words::REAUTHORIZE_REASON), reason);
        event
    }

    #[track_caller]
    fn not_asked(&mut self) {
        let events = self.live.classified();
        assert!(events.is_empty(), "{events:?}");
    }

    /// The flow has ended, once and for this reason.
    #[track_caller]
    fn has_ended(&mut self, cause: EndOfFlow) {
        let live = &mut self.live;
        assert!(
            wait_until(|| {
                live.drain();
                !live.ended().is_empty()
            }),
            "no end"
        );
        // and no second time
        thread::sleep(Duration::from_millis(300));
        live.drain();
        assert_eq!(live.ended(), [(self.flow, cause)]);
    }
}

#[test]
fn the_packets_of_an_authorized_flow_are_not_asked() {
    for kind in KINDS {
        let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
        for way in [Out, In, Out, In] {
            talk.passes(way);
        }
        talk.not_asked();
    }
}

#[test]
fn a_change_of_policy_asks_the_next_packet_and_no_other() {
    for kind in KINDS {
        let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
        for (number, way) in [Out, In].into_iter().enumerate() {
            talk.replace(vec![remote_port(talk.layer, Action::Block, 9 + number as u16), talk.about(Action::Permit)]);
            talk.not_asked();
            talk.passes(way);
            let event = talk.asked_for(POLICY_CHANGE);
            assert!(!event.blocked, "{kind:?} {way:?}");
            assert_eq!(event.generation, number as u64 + 2);
            let arrives = event.values.get(words::ARRIVAL_INTERFACE_INDEX) == 1;
            assert_eq!(arrives, way == In, "an interface of arrival has only what arrives");
            for way in [Out, In, Out, In] {
                talk.passes(way);
            }
            talk.not_asked();
        }
        assert!(talk.live.ended().is_empty());
    }
}

#[test]
fn a_flow_that_is_no_longer_permitted_ends_both_ways_and_its_socket_is_told() {
    for kind in KINDS {
        for way in [Out, In] {
            println!("{kind:?} {way:?}");
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            talk.replace(vec![talk.about(Action::Block)]);
            let stream = matches!(talk.peer, Peer::Stream(_));
            match (way, stream) {
                (Out, true) => assert!(!talk.outward().1),
                (Out, false) => assert_eq!(talk.outward(), ("EPERM".into(), false)),
                (In, true) => assert_eq!(talk.inward(), "ECONNABORTED", "the waiting read is told"),
                (In, false) => assert_eq!(talk.inward(), "timeout"),
            }
            assert!(talk.asked_for(POLICY_CHANGE).blocked);
            // the other way
            match stream {
                true => {
                    if way == Out {
                        assert_eq!(talk.actor.tell(&mut talk.live, "hear"), "ECONNABORTED");
                    }
                    assert_eq!(talk.actor.tell(&mut talk.live, "say"), "EPIPE");
                    let Peer::Stream(stream) = &mut talk.peer else { unreachable!() };
                    // nothing; or what the kernel says of a connection that is gone
                    let error = stream.read(&mut [0; 5]).unwrap_err();
                    assert!([ErrorKind::WouldBlock, ErrorKind::ConnectionReset].contains(&error.kind()), "{error}");
                }
                false => {
                    assert_eq!(talk.outward(), ("EPERM".into(), false));
                    assert_eq!(talk.inward(), "timeout");
                }
            }
            talk.not_asked();
            talk.has_ended(EndOfFlow::Refused);
        }
    }
}

#[test]
fn it_is_the_same_flow_where_a_policy_looks_at_its_local_side() {
    for kind in KINDS {
        for way in [Out, In] {
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            let elsewhere =
                |field, value| filter(talk.layer, Action::Block).when(field, MatchType::Equal, value).build().unwrap();
            let address = elsewhere(FieldId::IP_LOCAL_ADDRESS, Value::Uint32(0x0a00_0001));
            let interface = elsewhere(FieldId::INTERFACE_INDEX, Value::Uint32(4321));
            for filters in [vec![address.clone()], vec![address, interface.clone()], vec![interface]] {
                talk.replace(filters);
                talk.passes(way);
                talk.asked_for(POLICY_CHANGE);
                talk.passes(Out);
                talk.passes(In);
                talk.not_asked();
            }
        }
    }
}

#[test]
fn a_refused_flow_of_datagrams_may_begin_anew_under_a_later_policy() {
    for kind in [Kind::UdpClient, Kind::UdpServer] {
        let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
        talk.replace(vec![talk.about(Action::Block)]);
        assert_eq!(talk.inward(), "timeout");
        talk.asked_again();
        talk.replace(vec![]);
        talk.passes(Out);
        let events = talk.live.classified();
        assert_eq!(events.iter().map(|event| event.layer).collect::<Vec<_>>(), [CONNECT, ESTABLISHED]);
        assert_ne!(events[1].flow, talk.flow, "another flow");
        assert_eq!(talk.live.ended(), [(talk.flow, EndOfFlow::Refused)]);
    }
}

#[test]
fn echo_requests_are_a_flow() {
    let options = Options { recorded: RECORDED.to_vec(), replaceable: true, ..Options::default() };
    let Some(mut live) = Live::with(vec![], options) else { return };
    let mut actor = Obedient::start(&live);
    for action in ["own-network", "ping-hold", "ping-again", "ping-again"] {
        assert_eq!(actor.tell(&mut live, action), "ok");
    }
    let first = live.classified();
    assert_eq!(first.iter().map(|event| event.layer).collect::<Vec<_>>(), [CONNECT, ESTABLISHED]);
    let kind = |kind, action| {
        // ICMP_TYPE
        filter(CONNECT, action).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(kind)).build().unwrap()
    };
    live.replace(vec![kind(13, Action::Block)], &RECORDED);
    assert_eq!(actor.tell(&mut live, "ping-again"), "ok");
    assert_eq!(actor.tell(&mut live, "ping-again"), "ok");
    let again = live.classified();
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!((again[0].layer, again[0].flow), (CONNECT, first[1].flow));
    assert_eq!(again[0].values.get(words::REAUTHORIZE_REASON), POLICY_CHANGE);
    live.replace(vec![kind(8, Action::Block)], &RECORDED);
    assert_eq!(actor.tell(&mut live, "ping-again"), "EPERM");
    assert_eq!(live.ended(), [(first[1].flow, EndOfFlow::Refused)]);
}

#[test]
fn the_owner_of_the_socket_is_judged() {
    let this = std::env::current_exe().unwrap().canonicalize().unwrap();
    let application = |path: &str| (FieldId::ALE_APP_ID, Value::Application(path.into()));
    // (condition, whether it holds for the actor)
    let table = [
        (application(this.to_str().unwrap()), true),
        (application("/bin/cat"), false),
        ((FieldId::ALE_USER_ID, Value::User(0)), true),
        ((FieldId::ALE_USER_ID, Value::User(4321)), false),
    ];
    for kind in KINDS {
        // a packet that arrives is nobody's call
        for ((field, value), holds) in table.clone() {
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            let block = filter(talk.layer, Action::Block).when(field, MatchType::Equal, value).build().unwrap();
            talk.replace(vec![block]);
            let heard = talk.inward();
            let event = talk.asked_for(POLICY_CHANGE);
            assert_eq!((event.blocked, heard == "ok"), (holds, !holds), "{kind:?} {field:?}");
            assert_eq!(*event.program, *this.to_str().unwrap());
        }
    }
}

#[test]
fn flows_of_layers_whose_filters_are_the_same_are_not_asked() {
    for kind in KINDS {
        let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
        let other = if talk.layer == CONNECT { ACCEPT } else { CONNECT };
        let elsewhere = filter(LayerId::ALE_RESOURCE_ASSIGNMENT_V4, Action::Permit).build().unwrap();
        let unlike = remote_port(other, Action::Block, 9);
        let v6 = remote_port(LayerId::ALE_AUTH_CONNECT_V6, Action::Block, 9);
        let own = remote_port(talk.layer, Action::Block, 9);
        for filters in [vec![], vec![elsewhere.clone()], vec![unlike.clone(), v6], vec![unlike]] {
            talk.replace(filters);
            talk.passes(Out);
            talk.passes(In);
            talk.not_asked();
        }
        talk.replace(vec![own.clone()]);
        talk.passes(Out);
        talk.asked_for(POLICY_CHANGE);
        talk.replace(vec![elsewhere, own]);
        talk.passes(Out);
        talk.not_asked();
    }
}

/// Runs a test in a network namespace of its own.
fn in_own_network(test: impl FnOnce() + Send + 'static) {
    let missing = openwfp_kernel::features::missing();
    if let Some(reason) = missing.first() {
        eprintln!("skipped: {reason}");
        return;
    }
    let thread = thread::spawn(|| {
        actor::own_network().unwrap();
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn interfaces_and_addresses_that_come_and_go_ask_every_flow() {
    in_own_network(|| {
        for kind in KINDS {
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            talk.live.enforcement.refresh_interfaces().unwrap();
            talk.passes(Out);
            talk.not_asked();
            // (what happens, the packet that comes then, why it is asked)
            let table = [
                ("address add 127.9.9.9/32 dev lo", Out, NEW_NEXTHOP_INTERFACE),
                ("address del 127.9.9.9/32 dev lo", In, NEW_ARRIVAL_INTERFACE),
                ("link add other type veth peer name another", In, NEW_ARRIVAL_INTERFACE),
                ("link del other", Out, NEW_NEXTHOP_INTERFACE),
            ];
            for (change, way, reason) in table {
                thread::sleep(Duration::from_millis(100));
                ip(change);
                talk.live.enforcement.refresh_interfaces().unwrap();
                talk.passes(way);
                assert!(!talk.asked_for(reason).blocked);
                talk.passes(Out);
                talk.passes(In);
                talk.not_asked();
            }
            // both at once; and a later policy does not ask for the interfaces again
            ip("address add 127.9.9.9/32 dev lo");
            talk.live.enforcement.refresh_interfaces().unwrap();
            talk.replace(vec![remote_port(talk.layer, Action::Block, 9)]);
            talk.passes(Out);
            talk.asked_for(POLICY_CHANGE | NEW_NEXTHOP_INTERFACE);
            talk.replace(vec![]);
            talk.passes(Out);
            talk.asked_for(POLICY_CHANGE);
            ip("address del 127.9.9.9/32 dev lo");
        }
    });
}

/// A peer in a network namespace of its own, to which two ways lead: 10.9.1.0/24 and 10.9.2.0/24. It connects to where it is
/// told.
fn peer_with_two_ways() -> (String, Sender<SocketAddr>, JoinHandle<TcpStream>) {
    let loosely = |name: &str| std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "0").unwrap();
    let (tell, told) = channel();
    let (go, going) = channel::<SocketAddr>();
    let peer = thread::spawn(move || {
        actor::own_network().unwrap();
        ["all", "default"].into_iter().for_each(loosely);
        tell.send(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
        TcpStream::connect(going.recv().unwrap()).unwrap()
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
    (there, go, peer)
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
            let (there, go, peer) = peer_with_two_ways();
            let links = openwfp_kernel::links::links().unwrap();
            let second = links.into_iter().find(|link| link.name == "here2").unwrap().index;
            let interface = Value::Uint32(if blocked { second } else { 4321 });
            let field = FieldId::ARRIVAL_INTERFACE_INDEX;
            let block = filter(ACCEPT, Action::Block).when(field, MatchType::Equal, interface).build().unwrap();
            let options = Options { recorded: RECORDED.to_vec(), ..Options::default() };
            let Some(mut live) = Live::with(vec![block], options) else { return };
            let mut actor = Obedient::start(&live);
            let address = SocketAddr::from(([10, 9, 1, 1], 7000));
            assert_eq!(actor.tell(&mut live, &format!("listen {address}")), "ok");
            go.send(address).unwrap();
            assert_eq!(actor.tell(&mut live, "accept"), "ok");
            let stream = peer.join().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            let first = live.classified();
            let flow = first[1].flow;
            let mut talk = Talk { live, actor, peer: Peer::Stream(stream), flow, layer: ACCEPT, port: 0 };
            for way in [In, Out, In] {
                talk.passes(way);
            }
            talk.not_asked();
            ip_there(&there, "route add 10.9.1.1/32 via 10.9.2.1 dev there2");
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
fn a_dry_run_asks_once_and_lets_the_flow_go_on() {
    for kind in KINDS {
        let Some(mut talk) = Talk::begin(kind, Options { dry_run: true, ..Options::default() }) else { return };
        talk.replace(vec![talk.about(Action::Block)]);
        talk.passes(Out);
        assert!(talk.asked_again().blocked);
        talk.passes(In);
        talk.passes(Out);
        talk.not_asked();
        assert!(talk.live.ended().is_empty());
    }
}

#[test]
fn a_flow_ends_once_whoever_ends_it() {
    for kind in KINDS {
        for end in ["close", "kill", "peer", "reset"] {
            println!("{kind:?} {end}");
            let stream = matches!(kind, Kind::TcpClient | Kind::TcpServer);
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
fn a_flow_of_datagrams_that_is_idle_has_ended() {
    for kind in [Kind::UdpClient, Kind::UdpServer] {
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

#[test]
fn a_full_table_gives_flows_up_and_each_ends_once() {
    const FLOWS: u16 = 600;
    let flows = FlowLimits { idle: Duration::from_secs(12), entries: 128 };
    let options = Options { recorded: RECORDED.to_vec(), flows, ..Options::default() };
    let Some(mut live) = Live::with(vec![], options) else { return };
    let mut actor = Obedient::start(&live);
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
