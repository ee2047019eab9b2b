//! The order of layers, as "TCP Packet Flows" and "UDP Packet Flows" of the platform's documentation have it, on real sockets.
//! Needs root and BPF.
//!
//! STREAM_PACKET is not in those lists; here it stands between a TCP packet's transport layer and the stream.

mod support;

use openwfp_engine::words;
use openwfp_kernel::{
    events::{Event, EventKind},
    hooks::Hook,
    options::Options,
};
use openwfp_model::{Action, Layer, LayerId};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Stdio,
    thread,
    time::Duration,
};
use support::{
    actor,
    live::{Live, filter, free_port},
    talk::{
        Talk,
        Way::{self, In, Out},
        both_versions,
    },
};

#[test]
fn actor() {
    actor::act();
}

/// What an endpoint meets when it gets its address.
const BIND: [&str; 2] = ["ALE_BIND_REDIRECT", "ALE_RESOURCE_ASSIGNMENT"];
const CONNECT: [&str; 2] = ["ALE_CONNECT_REDIRECT", "ALE_AUTH_CONNECT"];
const TCP_OUT: [&str; 3] = ["STREAM_PACKET", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"];
const TCP_IN: [&str; 3] = ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "STREAM_PACKET"];
const UDP_OUT: [&str; 3] = ["DATAGRAM_DATA", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"];
const UDP_IN: [&str; 2] = ["INBOUND_IPPACKET", "INBOUND_TRANSPORT"];
const ACCEPT: [&str; 1] = ["ALE_AUTH_RECV_ACCEPT"];
const ESTABLISHED: [&str; 1] = ["ALE_FLOW_ESTABLISHED"];
/// What the last `close()` of a socket of datagrams meets.
const END: [&str; 2] = ["ALE_RESOURCE_RELEASE", "ALE_ENDPOINT_CLOSURE"];

/// All layers that are met, but those that only follow a block.
fn all_layers() -> Vec<LayerId> {
    let met = |layer: &&Layer| !Hook::of_layer(layer.id).is_empty() && !layer.name.ends_with("_DISCARD");
    Layer::all().iter().filter(met).map(|layer| layer.id).collect()
}

fn local(v6: bool, port: u16) -> SocketAddr {
    if v6 { (Ipv6Addr::LOCALHOST, port).into() } else { (Ipv4Addr::LOCALHOST, port).into() }
}

/// The families that events have met, in order; all of this version.
#[track_caller]
fn families<'a>(events: impl IntoIterator<Item = &'a Event>, v6: bool) -> Vec<&'static str> {
    let classified = events.into_iter().filter(|event| event.kind == EventKind::Classify);
    let family = |name: &'static str| {
        let (version, other) = if v6 { ("_V6", "_V4") } else { ("_V4", "_V6") };
        assert!(!name.contains(other), "{name}");
        name.trim_end_matches(version)
    };
    classified.map(|event| family(event.layer.name())).collect()
}

#[track_caller]
fn sequence(live: &Live, v6: bool) -> Vec<&'static str> {
    families(&live.events, v6)
}

/// The first steps are exactly these.
#[track_caller]
fn assert_begins(actual: &[&str], steps: &[&[&str]]) {
    let expected: Vec<&str> = steps.concat();
    assert_eq!(actual.get(..expected.len()).unwrap_or(actual), expected);
}

/// Longer than the kernel holds an acknowledgment back: so no packet bears that of another, and none crosses another.
const APART: Duration = Duration::from_millis(300);
const ENDED: &str = "failed to fill whole buffer";

#[test]
fn a_tcp_client() {
    for v6 in [false, true] {
        let server = TcpListener::bind(local(v6, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let answers = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            stream.read_exact(&mut [0; 5]).unwrap();
            stream.write_all(b"hello").unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the client closes first");
            thread::sleep(APART);
        });
        let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
        let script = format!("tcp-waiting {address}\ntalk\npause {}\nshut\nhear\nclose", APART.as_millis());
        assert_eq!(live.act(&script), ["ok", "ok", "ok", "ok", ENDED, "ok"]);
        answers.join().unwrap();
        let steps = [
            &BIND[..],
            &CONNECT,
            // SYN, SYN-ACK, ACK
            &TCP_OUT,
            &TCP_IN,
            &ESTABLISHED,
            &TCP_OUT,
            // data and their acknowledgment, both ways
            &TCP_OUT,
            &TCP_IN,
            &TCP_IN,
            &TCP_OUT,
            // FIN and its acknowledgment, both ways
            &TCP_OUT,
            &TCP_IN,
            &TCP_IN,
            &TCP_OUT,
            &["ALE_ENDPOINT_CLOSURE", "ALE_RESOURCE_RELEASE"],
        ];
        assert_eq!(sequence(&live, v6), steps.concat());
    }
}

#[test]
fn a_tcp_server() {
    for v6 in [false, true] {
        let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
        let address = local(v6, free_port());
        let pause = APART.as_millis();
        let script = format!("listen {address}\nanswer\nhear\npause {pause}\nclose\npause {pause}\nclose");
        let mut command = actor::command(&script);
        live.group.enter(&mut command, "");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stream = (0..200)
            .find_map(|_| {
                thread::sleep(Duration::from_millis(10));
                live.drain();
                // not before it listens: a refused SYN has no socket to be met at
                let listens = live.events.iter().any(|event| event.layer.name().starts_with("ALE_AUTH_LISTEN"));
                listens.then(|| TcpStream::connect(address).unwrap())
            })
            .unwrap();
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        thread::sleep(APART);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        let output = child.wait_with_output().unwrap().stdout;
        assert_eq!(actor::results(&output), ["ok", "ok", ENDED, "ok", "ok", "ok", "ok"]);
        live.drain();
        let steps = [
            &BIND[..],
            &["ALE_AUTH_LISTEN"],
            // SYN, SYN-ACK, ACK
            &UDP_IN,
            &ACCEPT,
            &["STREAM_PACKET"],
            &TCP_OUT,
            &TCP_IN,
            &ESTABLISHED,
            // data and their acknowledgment, both ways
            &TCP_IN,
            &TCP_OUT,
            &TCP_OUT,
            &TCP_IN,
            // FIN and its acknowledgment, both ways
            &TCP_IN,
            &TCP_OUT,
            &TCP_OUT,
            &TCP_IN,
            // the connection has no endpoint of its own
            &["ALE_ENDPOINT_CLOSURE"],
            // the listener
            &END,
        ];
        assert_eq!(sequence(&live, v6), steps.concat());
    }
}

#[test]
fn a_udp_client_and_its_answer() {
    for v6 in [false, true] {
        let server = UdpSocket::bind(local(v6, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let answers = thread::spawn(move || {
            let (_, peer) = server.recv_from(&mut [0; 64]).unwrap();
            server.send_to(b"hello", peer).unwrap();
        });
        let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
        let script = format!("udp-at {}\nsend {address}\nreceive\nclose", local(v6, 0));
        assert_eq!(live.act(&script), ["ok"; 4]);
        answers.join().unwrap();
        let steps = [&BIND[..], &CONNECT, &ESTABLISHED, &UDP_OUT, &UDP_IN, &["DATAGRAM_DATA"], &END];
        assert_eq!(sequence(&live, v6), steps.concat());
        let of_family = |family: &str| -> Vec<&Event> {
            live.events.iter().filter(|event| event.layer.name().starts_with(family)).collect()
        };
        let flows: Vec<u64> = of_family("DATAGRAM_DATA").iter().map(|event| event.flow).collect();
        let flow = of_family("ALE_FLOW_ESTABLISHED")[0].flow;
        assert_eq!(flows, [flow, flow], "both ways are one flow");
    }
}

/// A socket on `::` is one of both versions, as far as calls go; what it says and hears is of one.
#[test]
fn a_udp_client_of_both_versions() {
    let server = UdpSocket::bind(local(true, 0)).unwrap();
    let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
    assert_eq!(live.act(&format!("send {}\nclose", server.local_addr().unwrap())), ["ok"; 2]);
    let names: Vec<&str> = live.classified().iter().map(|event| event.layer.name()).collect();
    let expected = [
        "ALE_BIND_REDIRECT_V6",
        "ALE_BIND_REDIRECT_V4",
        "ALE_RESOURCE_ASSIGNMENT_V6",
        "ALE_RESOURCE_ASSIGNMENT_V4",
        "ALE_CONNECT_REDIRECT_V6",
        "ALE_AUTH_CONNECT_V6",
        "ALE_FLOW_ESTABLISHED_V6",
        "DATAGRAM_DATA_V6",
        "OUTBOUND_TRANSPORT_V6",
        "OUTBOUND_IPPACKET_V6",
        "ALE_RESOURCE_RELEASE_V6",
        "ALE_RESOURCE_RELEASE_V4",
        "ALE_ENDPOINT_CLOSURE_V6",
        "ALE_ENDPOINT_CLOSURE_V4",
    ];
    assert_eq!(names, expected);
}

/// One that is connected has a remote endpoint, of one version.
#[test]
fn the_closure_of_a_connected_udp_socket_is_of_one_version() {
    let server = UdpSocket::bind(local(true, 0)).unwrap();
    let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
    assert_eq!(live.act(&format!("udp-hold {}\nclose", server.local_addr().unwrap())), ["ok"; 2]);
    let names = live.classified().iter().map(|event| event.layer.name()).collect::<Vec<_>>();
    let closures: Vec<&&str> = names.iter().filter(|name| name.starts_with("ALE_ENDPOINT_CLOSURE")).collect();
    assert_eq!(closures, [&"ALE_ENDPOINT_CLOSURE_V6"]);
}

#[test]
fn a_udp_server() {
    for v6 in [false, true] {
        let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
        let address = local(v6, free_port());
        let mut command = actor::command(&format!("bind {address}\nanswer-datagram\nclose"));
        live.group.enter(&mut command, "");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let client = UdpSocket::bind(local(v6, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!((0..200).any(|_| {
            thread::sleep(Duration::from_millis(10));
            live.drain();
            live.events.len() >= 2
        }));
        client.send_to(b"hello", address).unwrap();
        client.recv(&mut [0; 64]).unwrap();
        assert_eq!(actor::results(&child.wait_with_output().unwrap().stdout), ["ok"; 3]);
        live.drain();
        let steps = [&BIND[..], &UDP_IN, &ACCEPT, &ESTABLISHED, &["DATAGRAM_DATA"], &UDP_OUT, &END];
        assert_eq!(sequence(&live, v6), steps.concat());
    }
}

#[test]
fn an_echo_request_and_its_reply() {
    for v6 in [false, true] {
        let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
        assert_eq!(live.act(&format!("own-network\necho {}\nclose", local(v6, 0))), ["ok"; 3]);
        let steps = [&["ALE_AUTH_CONNECT"][..], &ESTABLISHED, &UDP_OUT, &UDP_IN];
        let end = ["DATAGRAM_DATA", "ALE_ENDPOINT_CLOSURE"];
        assert_eq!(sequence(&live, v6), [&steps.concat()[..], &end].concat());
    }
}

#[test]
fn what_is_blocked_meets_the_discard_layer_and_nothing_else() {
    for v6 in [false, true] {
        let server = UdpSocket::bind(local(v6, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let version = if v6 { "_V6" } else { "_V4" };
        for family in ["ALE_AUTH_CONNECT", "DATAGRAM_DATA", "OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"] {
            let recorded: Vec<LayerId> =
                Layer::all().iter().map(|layer| layer.id).filter(|layer| !Hook::of_layer(*layer).is_empty()).collect();
            let layer = Layer::find(&format!("{family}{version}")).unwrap().id;
            let block = filter(layer, Action::Block).build().unwrap();
            let Some(mut live) = Live::new(vec![block], &recorded) else { return };
            let script = format!("udp-at {}\nsend {address}\nclose", local(v6, 0));
            assert_eq!(live.act(&script), ["ok", "EPERM", "ok"], "{layer}");
            let all = sequence(&live, v6);
            let from = all.iter().position(|name| *name == family).unwrap();
            // from the layer that blocks on
            let discard = format!("{layer}_DISCARD");
            assert_eq!(all[from..], [&[family, &discard][..], &END].concat(), "{layer}");
        }
        server.set_nonblocking(true).unwrap();
        assert!(server.recv(&mut [0; 64]).is_err(), "nothing has come");
    }
}

/// The next packet of a flow after a change of policy meets the layer that authorized the flow once more, at the place where that has been
/// before, whichever way it goes; those after it do not.
#[test]
fn the_first_packet_after_a_change_of_policy() {
    const IS_REAUTHORIZE: u64 = 4;
    for kind in both_versions() {
        for way in [Out, In] {
            let Some(mut talk) = Talk::begin(kind, Options::default()) else { return };
            let meets = |talk: &mut Talk, way: Way| {
                talk.passes(way);
                talk.live.classified()
            };
            talk.live.replace(vec![talk.about(Action::Permit)], &all_layers());
            let events = meets(&mut talk, way);
            let again = [if kind.server { "ALE_AUTH_RECV_ACCEPT" } else { "ALE_AUTH_CONNECT" }];
            let data = [if kind.stream { "STREAM_PACKET" } else { "DATAGRAM_DATA" }];
            let below: [&[&str]; 2] = [&["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET"], &UDP_IN];
            let steps = match way {
                Out => [&again[..], &data, below[0]],
                In => [below[1], &again, &data],
            };
            assert_begins(&families(&events, kind.v6), &steps);
            let asked: Vec<&Event> =
                events.iter().filter(|event| event.values.get(words::FLAGS) & IS_REAUTHORIZE != 0).collect();
            let [asked] = asked[..] else { panic!("{kind:?} {way:?}: {asked:?}") };
            assert_eq!((asked.layer, asked.flow), (talk.layer, talk.flow), "{kind:?} {way:?}");
            assert_eq!(families(&events, kind.v6).iter().filter(|name| name.starts_with("ALE_")).count(), 1);
            for way in [way, Out, In] {
                let events = meets(&mut talk, way);
                let families = families(&events, kind.v6);
                assert!(!families.iter().any(|name| name.starts_with("ALE_")), "{kind:?} {way:?}: {families:?}");
            }
        }
    }
}
