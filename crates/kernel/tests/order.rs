//! The order of layers, as "TCP Packet Flows" and "UDP Packet Flows" of the platform's documentation have it, on real sockets.
//! Needs root and BPF.
//!
//! STREAM_PACKET is not in those lists; here it stands between a TCP packet's transport layer and the stream.

mod support;

use openwfp_kernel::hooks::Hook;
use openwfp_model::{Action, Layer, LayerId};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::Stdio,
    thread,
    time::Duration,
};
use support::{
    actor,
    live::{Live, filter, free_port, local},
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

/// All layers that are met, but those that only follow a block.
fn all_layers() -> Vec<LayerId> {
    let met = |layer: &&Layer| !Hook::of_layer(layer.id).is_empty() && !layer.name.ends_with("_DISCARD");
    Layer::all().iter().filter(met).map(|layer| layer.id).collect()
}

/// The families that were met, in order.
fn sequence(live: &Live) -> Vec<&'static str> {
    let classified = live.events.iter().filter(|event| event.kind == openwfp_kernel::events::EventKind::Classify);
    classified.map(|event| event.layer.name().trim_end_matches("_V4")).collect()
}

/// The first steps are exactly these.
fn assert_begins(live: &Live, steps: &[&[&str]]) {
    let expected: Vec<&str> = steps.concat();
    let actual = sequence(live);
    assert_eq!(actual.get(..expected.len()).unwrap_or(&actual), expected);
}

#[test]
fn a_tcp_client() {
    let server = TcpListener::bind(local(0)).unwrap();
    let address = server.local_addr().unwrap();
    let answers = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"hello").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the client closes first");
    });
    let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
    assert_eq!(live.act(&format!("tcp-waiting {address}\ntalk\nclose")), ["ok"; 3]);
    answers.join().unwrap();
    let connect = [&BIND[..], &CONNECT, &TCP_OUT, &TCP_IN, &ESTABLISHED, &TCP_OUT];
    assert_begins(&live, &connect);
    // data out, its acknowledgement in, the answer in
    let data = [&TCP_OUT[..], &TCP_IN, &TCP_IN].concat();
    let begun = connect.concat().len();
    assert_eq!(sequence(&live)[begun..begun + data.len()], data);
    let rest = sequence(&live)[begun + data.len()..].to_vec();
    let count = |family: &str| rest.iter().filter(|name| **name == family).count();
    assert_eq!(count("ALE_RESOURCE_RELEASE"), 1, "{rest:?}");
    assert_eq!(count("ALE_AUTH_CONNECT"), 0, "the packets of an authorized flow are not authorized again");
    assert_eq!(count("ALE_FLOW_ESTABLISHED"), 0);
}

#[test]
fn a_tcp_server() {
    let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
    let address = local(free_port());
    let mut command = actor::command(&format!("listen {address}\nanswer\nclose\nclose"));
    live.group.enter(&mut command, "");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stream = (0..200)
        .find_map(|_| {
            thread::sleep(Duration::from_millis(10));
            live.drain();
            // not before it listens: a refused SYN has no socket to be met at
            let listens = live.events.iter().any(|event| event.layer == LayerId::ALE_AUTH_LISTEN_V4);
            listens.then(|| TcpStream::connect(address).unwrap())
        })
        .unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    drop(stream);
    assert_eq!(actor::results(&child.wait_with_output().unwrap().stdout), ["ok"; 4]);
    live.drain();
    let steps =
        [&BIND[..], &["ALE_AUTH_LISTEN"], &UDP_IN, &ACCEPT, &["STREAM_PACKET"], &TCP_OUT, &TCP_IN, &ESTABLISHED];
    assert_begins(&live, &steps);
    let count = |family: &str| sequence(&live).iter().filter(|name| **name == family).count();
    assert_eq!(count("ALE_AUTH_RECV_ACCEPT"), 1);
    assert_eq!(count("ALE_FLOW_ESTABLISHED"), 1);
    assert_eq!(count("ALE_RESOURCE_RELEASE"), 1, "the connection has no endpoint of its own");
}

#[test]
fn a_udp_client_and_its_answer() {
    let server = UdpSocket::bind(local(0)).unwrap();
    let address = server.local_addr().unwrap();
    let answers = thread::spawn(move || {
        let (_, peer) = server.recv_from(&mut [0; 64]).unwrap();
        server.send_to(b"hello", peer).unwrap();
    });
    let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
    assert_eq!(live.act(&format!("send {address}\nreceive\nclose")), ["ok"; 3]);
    answers.join().unwrap();
    let steps = [&BIND[..], &CONNECT, &ESTABLISHED, &UDP_OUT, &UDP_IN, &["DATAGRAM_DATA"]];
    let end = ["ALE_RESOURCE_RELEASE", "ALE_ENDPOINT_CLOSURE"];
    assert_eq!(sequence(&live), [&steps.concat()[..], &end].concat());
    let flows: Vec<u64> = live.at(LayerId::DATAGRAM_DATA_V4).map(|event| event.flow).collect();
    let flow = live.at(LayerId::ALE_FLOW_ESTABLISHED_V4).next().unwrap().flow;
    assert_eq!(flows, [flow, flow], "both ways are one flow");
}

#[test]
fn a_udp_server() {
    let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
    let address = local(free_port());
    let mut command = actor::command(&format!("bind {address}\nanswer-datagram\nclose"));
    live.group.enter(&mut command, "");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let client = UdpSocket::bind(local(0)).unwrap();
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
    let steps = [&BIND[..], &UDP_IN, &ACCEPT, &ESTABLISHED, &["DATAGRAM_DATA"], &UDP_OUT];
    let end = ["ALE_RESOURCE_RELEASE", "ALE_ENDPOINT_CLOSURE"];
    assert_eq!(sequence(&live), [&steps.concat()[..], &end].concat());
}

#[test]
fn an_echo_request_and_its_reply() {
    let Some(mut live) = Live::new(vec![], &all_layers()) else { return };
    assert_eq!(live.act("own-network\nping\nclose"), ["ok"; 3]);
    let expected =
        [&["ALE_AUTH_CONNECT"][..], &ESTABLISHED, &UDP_OUT, &UDP_IN, &["DATAGRAM_DATA", "ALE_ENDPOINT_CLOSURE"]];
    assert_eq!(sequence(&live), expected.concat());
}

#[test]
fn what_is_blocked_meets_the_discard_layer_and_nothing_else() {
    let server = UdpSocket::bind(local(0)).unwrap();
    let address = server.local_addr().unwrap();
    // (layer that blocks, what is met from there on)
    let table: [(LayerId, &[&str]); 4] = [
        (LayerId::ALE_AUTH_CONNECT_V4, &["ALE_AUTH_CONNECT", "ALE_AUTH_CONNECT_V4_DISCARD"]),
        (LayerId::DATAGRAM_DATA_V4, &["DATAGRAM_DATA", "DATAGRAM_DATA_V4_DISCARD"]),
        (LayerId::OUTBOUND_TRANSPORT_V4, &["OUTBOUND_TRANSPORT", "OUTBOUND_TRANSPORT_V4_DISCARD"]),
        (LayerId::OUTBOUND_IPPACKET_V4, &["OUTBOUND_IPPACKET", "OUTBOUND_IPPACKET_V4_DISCARD"]),
    ];
    for (layer, expected) in table {
        let recorded: Vec<LayerId> =
            Layer::all().iter().map(|layer| layer.id).filter(|layer| !Hook::of_layer(*layer).is_empty()).collect();
        let block = filter(layer, Action::Block).build().unwrap();
        let Some(mut live) = Live::new(vec![block], &recorded) else { return };
        assert_eq!(live.act(&format!("send {address}\nclose")), ["EPERM", "ok"], "{layer}");
        let all = sequence(&live);
        let from = all.iter().position(|name| *name == expected[0]).unwrap();
        let end = ["ALE_RESOURCE_RELEASE", "ALE_ENDPOINT_CLOSURE"];
        assert_eq!(all[from..], [expected, &end].concat(), "{layer}");
    }
    server.set_nonblocking(true).unwrap();
    assert!(server.recv(&mut [0; 64]).is_err(), "nothing has come");
}
