//! Frames and packets of a network namespace that go to callouts in user space and come back. Needs root, BPF and Linux 6.6.

mod support;

use openwfp_engine::CalloutAction;
use openwfp_kernel::{
    divert::{Answer, Asked, Diverted},
    options::Options,
};
use openwfp_model::LayerId;
use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};
use support::{
    bulk,
    diverting::{Diverting, asks, say},
    net::{self, alone, at},
    router::{CLOSED, LONG, PORT, Router, SHORT, bound, comes, is_refused, layer, pings},
};

/// The families of layers that are met at devices.
const FAMILIES: [&str; 9] = [
    "INBOUND_MAC_FRAME_ETHERNET",
    "OUTBOUND_MAC_FRAME_ETHERNET",
    "INBOUND_IPPACKET",
    "OUTBOUND_IPPACKET",
    "INBOUND_TRANSPORT",
    "OUTBOUND_TRANSPORT",
    "INBOUND_ICMP_ERROR",
    "OUTBOUND_ICMP_ERROR",
    "IPFORWARD",
];

fn permit(_: &mut Diverted<'_>, _: &Asked) -> Answer {
    say(CalloutAction::Permit)
}

fn block(_: &mut Diverted<'_>, _: &Asked) -> Answer {
    say(CalloutAction::Block)
}

fn at_devices(
    layers: &[LayerId],
    act: impl FnMut(&mut Diverted<'_>, &Asked) -> Answer + Send + 'static,
) -> Option<Diverting> {
    let filters = layers.iter().map(|layer| asks(*layer, 3).build().unwrap()).collect();
    Diverting::with(filters, Options { devices: true, ..Options::default() }, act)
}

fn both_versions(test: impl Fn(&Router, bool) + Send + 'static) {
    alone(move || {
        let router = Router::make();
        test(&router, false);
        test(&router, true);
    });
}

/// Whether what meets a layer passes: each is tried the way that this layer sees.
fn passes(router: &Router, family: &str, v6: bool, wait: Duration) -> bool {
    let (ours, theirs) = (at(1, 1, v6), at(1, 2, v6));
    match family {
        "IPFORWARD" => {
            router.client_sends(SocketAddr::new(at(2, 2, v6), PORT), "forwarded");
            router.server_tap.sees(b"forwarded", wait)
        }
        "INBOUND_ICMP_ERROR" => is_refused(ours, SocketAddr::new(theirs, CLOSED), wait),
        "OUTBOUND_ICMP_ERROR" => router.client.run(move || is_refused(theirs, SocketAddr::new(ours, CLOSED), wait)),
        _ if family.starts_with("INBOUND") => {
            let socket = router.socket(PORT, v6);
            router.client_sends(SocketAddr::new(ours, PORT), "inbound");
            comes(&socket, wait)
        }
        _ => {
            let _ = router.socket(PORT, v6).send_to(b"outbound", SocketAddr::new(theirs, PORT));
            router.client_tap.sees(b"outbound", wait)
        }
    }
}

#[test]
fn each_layer_permits_and_blocks_by_a_callout() {
    both_versions(|router, v6| {
        for family in FAMILIES {
            let asks = layer(family, v6);
            {
                let Some(diverting) = at_devices(&[asks], permit) else { return };
                assert!(passes(router, family, v6, LONG), "{asks}, permitted");
                let seen = diverting.all();
                assert!(!seen.is_empty(), "{asks}");
                assert!(seen.iter().all(|seen| seen.layer == asks && seen.frame && seen.callout == 3));
            }
            let Some(_diverting) = at_devices(&[asks], block) else { return };
            assert!(!passes(router, family, v6, SHORT), "{asks}, blocked");
        }
    });
}

#[test]
fn a_frame_meets_each_layer_once() {
    both_versions(|router, v6| {
        let layers: Vec<LayerId> = FAMILIES.iter().map(|family| layer(family, v6)).collect();
        let Some(diverting) = at_devices(&layers, permit) else { return };
        let socket = router.socket(PORT, v6);
        router.client_sends(SocketAddr::new(at(1, 1, v6), PORT), "in");
        assert!(comes(&socket, LONG));
        let _peer = router.client.run(move || bound(SocketAddr::new(at(1, 2, v6), PORT)));
        socket.send_to(b"out", SocketAddr::new(at(1, 2, v6), PORT)).unwrap();
        assert!(router.client_tap.sees(b"out", LONG));
        let _receiver = router.server.run(move || bound(SocketAddr::new(at(2, 2, v6), PORT)));
        router.client_sends(SocketAddr::new(at(2, 2, v6), PORT), "through");
        assert!(router.server_tap.sees(b"through", LONG));
        let seen = diverting.all();
        let met = |text: &str| {
            let of = seen.iter().filter(|seen| seen.bytes.ends_with(text.as_bytes()));
            of.map(|seen| seen.layer.name().trim_end_matches("_V4").trim_end_matches("_V6")).collect::<Vec<_>>()
        };
        assert_eq!(met("in"), ["INBOUND_MAC_FRAME_ETHERNET", "INBOUND_IPPACKET", "INBOUND_TRANSPORT"]);
        assert_eq!(met("out"), ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET", "OUTBOUND_MAC_FRAME_ETHERNET"]);
        assert_eq!(
            met("through"),
            ["INBOUND_MAC_FRAME_ETHERNET", "INBOUND_IPPACKET", "IPFORWARD", "OUTBOUND_MAC_FRAME_ETHERNET"]
        );
    });
}

#[test]
fn streams_pass_all_layers() {
    both_versions(|router, v6| {
        let layers: Vec<LayerId> = FAMILIES.iter().map(|family| layer(family, v6)).collect();
        let Some(mut diverting) = at_devices(&layers, permit) else { return };
        // from the machine to the client, from the client through the machine to the server, and to itself
        let listen = move || TcpListener::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
        let client = router.client.run(listen);
        let server = router.server.run(listen);
        let own = listen();
        let loopback: IpAddr = if v6 { "::1".parse().unwrap() } else { "127.0.0.1".parse().unwrap() };
        for (name, listener, host, from_client) in [
            ("out", client, at(1, 2, v6), false),
            ("through", server, at(2, 2, v6), true),
            ("lo", own, loopback, false),
        ] {
            let to = SocketAddr::new(host, listener.local_addr().unwrap().port());
            let thread = thread::spawn(move || bulk::pour_back(listener.accept().unwrap().0));
            let pour = move || bulk::pour(to, 5_000_000);
            let poured = if from_client { router.client.run(pour) } else { pour() };
            poured.unwrap_or_else(|error| panic!("{name}, IPv6: {v6}: {error}"));
            thread.join().unwrap().unwrap();
        }
        assert!(diverting.all().iter().any(|seen| seen.segments));
        let figures = diverting.end();
        assert_eq!((figures.refused, figures.unreadable), (0, 0));
    });
}

#[test]
fn a_forwarded_datagram_is_changed() {
    both_versions(|router, v6| {
        let act = |packet: &mut Diverted<'_>, _: &Asked| {
            let at = packet.headers().and_then(|headers| headers.payload(packet.bytes())).expect("a datagram");
            let bytes = packet.bytes_mut();
            bytes.truncate(at);
            bytes.extend(b"something else, which is longer");
            say(CalloutAction::Permit)
        };
        let Some(_diverting) = at_devices(&[layer("IPFORWARD", v6)], act) else { return };
        let receiver = router.server.run(move || bound(SocketAddr::new(at(2, 2, v6), PORT)));
        router.client_sends(SocketAddr::new(at(2, 2, v6), PORT), "text");
        receiver.set_read_timeout(Some(LONG)).unwrap();
        let mut memory = [0; 64];
        let length = receiver.recv(&mut memory).unwrap();
        assert_eq!(&memory[..length], b"something else, which is longer");
    });
}

#[test]
fn what_the_kernel_says_by_itself_passes() {
    both_versions(|router, v6| {
        let layers: Vec<LayerId> = FAMILIES.iter().map(|family| layer(family, v6)).collect();
        let Some(mut diverting) = at_devices(&layers, permit) else { return };
        let answers = [router.client_pings(v6, LONG), pings(at(1, 2, v6), LONG), pings(at(1, 1, v6), LONG)];
        let failures = diverting.live.enforcement.failures();
        let error = router.client_connects(CLOSED, v6, LONG);
        let figures = diverting.end();
        assert_eq!(answers, [true; 3], "in, out, over lo; IPv6: {v6}; {failures:?}, {figures:?}");
        assert_eq!(error, Some(std::io::ErrorKind::ConnectionRefused));
    });
}

#[test]
fn a_tag_comes_back_with_its_frame() {
    alone(|| {
        let router = Router::make();
        if !net::can_make("link add name v type vlan id 5 link r0") {
            support::skips::kernel_lacks("VLAN devices");
            return;
        }
        net::ip("link add link r0 name r0.5 type vlan id 5");
        net::ip("link set r0.5 up");
        net::ip("addr add 10.9.5.1/24 dev r0.5");
        router.client.ip("link add link c0 name c0.5 type vlan id 5");
        router.client.ip("link set c0.5 up");
        router.client.ip("addr add 10.9.5.2/24 dev c0.5");
        let layers = [LayerId::INBOUND_MAC_FRAME_ETHERNET, LayerId::OUTBOUND_MAC_FRAME_ETHERNET];
        let Some(_diverting) = at_devices(&layers, permit) else { return };
        assert!(pings(IpAddr::from([10, 9, 5, 2]), LONG));
    });
}

#[test]
fn many_connections_at_once() {
    both_versions(|router, v6| {
        let layers = [layer("INBOUND_TRANSPORT", v6), layer("OUTBOUND_TRANSPORT", v6)];
        let Some(_diverting) = at_devices(&layers, permit) else { return };
        let listener = router.client.run(move || TcpListener::bind(SocketAddr::new(at(1, 2, v6), 0)).unwrap());
        let to = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            for _ in 0..200 {
                let (mut stream, _) = listener.accept().unwrap();
                thread::spawn(move || bulk::pour_back(stream.try_clone().unwrap()).and_then(|()| stream.flush()));
            }
        });
        let connections: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(to).unwrap()).collect();
        for (number, mut stream) in connections.iter().enumerate() {
            stream.write_all(&[number as u8; 100]).unwrap();
        }
        for (number, mut stream) in connections.iter().enumerate() {
            let mut memory = [0; 100];
            stream.set_read_timeout(Some(LONG)).unwrap();
            stream.read_exact(&mut memory).unwrap();
            assert_eq!(memory, [number as u8; 100]);
        }
        drop(connections);
        server.join().unwrap();
    });
}
