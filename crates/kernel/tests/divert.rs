//! Packets of a group that go to callouts in user space and come back. Needs root, BPF and Linux 6.6.

mod support;

use openwfp_abi::divert::stage;
use openwfp_engine::{CalloutAction, compile_objects, compile_objects_after};
use openwfp_kernel::{
    bpffs,
    divert::{Answer, Asked, Callouts, Diverted, Fate, Injection, Place},
    enforcement::Enforcement,
    features,
    group::Group,
    options::Options,
};
use openwfp_model::{Action, FieldId, FilterFlags, LayerId, MatchType, Value};
use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use support::{
    OwnGroup, actor, bulk,
    diverting::{Diverting, Order, RING, asks, key, say},
    live::filter,
    net::{alone, at, index},
    odd,
    router::{LONG, PORT, Router, SHORT, bound, comes, layer},
};

#[test]
fn actor() {
    actor::act();
}

fn permit(_: &mut Diverted<'_>, _: &Asked) -> Answer {
    say(CalloutAction::Permit)
}

const PACKET_LAYERS: [&str; 6] = [
    "INBOUND_IPPACKET",
    "INBOUND_TRANSPORT",
    "DATAGRAM_DATA",
    "STREAM_PACKET",
    "OUTBOUND_TRANSPORT",
    "OUTBOUND_IPPACKET",
];

fn both_versions(test: impl Fn(&Router, bool) + Send + 'static) {
    alone(move || {
        let router = Router::make();
        test(&router, false);
        test(&router, true);
    });
}

/// A callout at these layers.
fn at_layers(
    layers: &[&str],
    v6: bool,
    act: impl FnMut(&mut Diverted<'_>, &Asked) -> Answer + Send + 'static,
) -> Option<Diverting> {
    let filters = layers.iter().map(|name| asks(layer(name, v6), 2).build().unwrap()).collect();
    Diverting::with(filters, Options::default(), act)
}

/// The texts of datagrams that come until none does for a while.
fn texts(socket: &UdpSocket) -> Vec<String> {
    let mut all = vec![];
    let mut memory = [0; 2048];
    socket.set_read_timeout(Some(if all.is_empty() { LONG } else { SHORT })).unwrap();
    while let Ok(length) = socket.recv(&mut memory) {
        all.push(String::from_utf8_lossy(&memory[..length]).into_owned());
        socket.set_read_timeout(Some(SHORT)).unwrap();
    }
    all
}

/// The payload of a datagram.
fn payload(packet: &Diverted<'_>) -> usize {
    packet.headers().and_then(|headers| headers.payload(packet.bytes())).expect("a datagram")
}

#[test]
fn a_datagram_goes_out_by_way_of_a_callout() {
    both_versions(|router, v6| {
        let Some(mut diverting) = at_layers(&["OUTBOUND_TRANSPORT"], v6, permit) else { return };
        let to = SocketAddr::new(at(1, 2, v6), PORT);
        let receiver = router.client.run(move || bound(to));
        assert_eq!(diverting.live.act(&format!("send {to}\nsend {to}")), ["ok", "ok"]);
        assert_eq!(texts(&receiver), ["hello", "hello"], "each comes once");
        let seen = diverting.all();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|seen| seen.callout == 2 && seen.socket != 0 && seen.user == Some(0)));
        assert!(seen.iter().all(|seen| seen.bytes.ends_with(b"hello") && !seen.frame && !seen.inbound));
        assert!(seen.iter().all(|seen| seen.layer == layer("OUTBOUND_TRANSPORT", v6) && seen.generation == 1));
    });
}

#[test]
fn a_datagram_comes_in_by_way_of_a_callout() {
    both_versions(|router, v6| {
        let Some(mut diverting) = at_layers(&["INBOUND_TRANSPORT"], v6, permit) else { return };
        let to = SocketAddr::new(at(1, 1, v6), PORT);
        let script = format!("udp-at {to}\nreceive\nreceive\nreceive");
        let sender = router.client.run(move || bound(SocketAddr::new(at(1, 2, v6), 0)));
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            sender.send_to(b"one", to).unwrap();
            sender.send_to(b"two", to).unwrap();
        });
        assert_eq!(diverting.live.act(&script), ["ok", "ok", "ok", "timeout"]);
        thread.join().unwrap();
        let seen = diverting.all();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().all(|seen| seen.inbound && seen.user == Some(0) && seen.socket != 0));
    });
}

#[test]
fn every_layer_of_packets_diverts_each_packet_once() {
    both_versions(|router, v6| {
        let Some(mut diverting) = at_layers(&PACKET_LAYERS, v6, permit) else { return };
        let to = SocketAddr::new(at(1, 2, v6), PORT);
        let server = router.client.run(move || UdpSocket::bind(to).unwrap());
        let echo = thread::spawn(move || {
            let (_, peer) = server.recv_from(&mut [0; 64]).unwrap();
            server.send_to(b"back", peer).unwrap();
        });
        let own = SocketAddr::new(at(1, 1, v6), 0);
        assert_eq!(diverting.live.act(&format!("udp-at {own}\nsend {to}\nreceive")), ["ok", "ok", "ok"]);
        echo.join().unwrap();
        let met: Vec<LayerId> = diverting.all().iter().map(|seen| seen.layer).collect();
        let expected = [
            "DATAGRAM_DATA",
            "OUTBOUND_TRANSPORT",
            "OUTBOUND_IPPACKET",
            "INBOUND_IPPACKET",
            "INBOUND_TRANSPORT",
            "DATAGRAM_DATA",
        ];
        assert_eq!(met, expected.map(|name| layer(name, v6)));
    });
}

/// As many bytes as take many segments, both ways.
const STREAM: usize = 20_000_000;

fn a_stream_passes(router: &Router, v6: bool, local: bool, layers: &[&str]) {
    let Some(mut diverting) = at_layers(layers, v6, permit) else { return };
    let listen = move || {
        let any: SocketAddr = if v6 { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
        TcpListener::bind(any).unwrap()
    };
    let listener = if local { listen() } else { router.client.run(listen) };
    let host = match (local, v6) {
        (true, false) => "127.0.0.1".parse().unwrap(),
        (true, true) => "::1".parse().unwrap(),
        _ => at(1, 2, v6),
    };
    let to = SocketAddr::new(host, listener.local_addr().unwrap().port());
    let server = thread::spawn(move || bulk::pour_back(listener.accept().unwrap().0));
    let started = Instant::now();
    assert_eq!(diverting.live.act(&format!("pour {to} {STREAM}")), ["ok"], "{layers:?} IPv6: {v6}, lo: {local}");
    let took = started.elapsed();
    server.join().unwrap().unwrap();
    let seen = diverting.all();
    assert!(seen.iter().any(|seen| seen.segments), "large segments are diverted as one");
    let figures = diverting.end();
    println!("{layers:?} IPv6: {v6}, lo: {local}: {took:?}, {figures:?}");
    assert_eq!(figures.refused, 0);
    assert_eq!(figures.unreadable, 0);
}

#[test]
fn a_stream_passes_both_ways_by_way_of_a_callout() {
    both_versions(|router, v6| {
        for local in [false, true] {
            a_stream_passes(router, v6, local, &["OUTBOUND_TRANSPORT", "INBOUND_TRANSPORT"]);
        }
        a_stream_passes(router, v6, false, &PACKET_LAYERS);
    });
}

#[test]
fn long_datagrams_are_cut_and_put_together() {
    both_versions(|router, v6| {
        let Some(mut diverting) = at_layers(&["OUTBOUND_TRANSPORT", "INBOUND_TRANSPORT"], v6, permit) else { return };
        let (ours, theirs) = (SocketAddr::new(at(1, 1, v6), PORT), SocketAddr::new(at(1, 2, v6), PORT));
        for bytes in [1472, 6000, 60_000] {
            let receiver = router.client.run(move || bound(theirs));
            assert_eq!(diverting.live.act(&format!("send-long {theirs} {bytes}")), ["ok"]);
            bulk::receive(&receiver, bytes).unwrap_or_else(|error| panic!("{bytes} bytes out, IPv6: {v6}: {error}"));
            drop(receiver);
            let sender = router.client.run(move || bound(SocketAddr::new(at(1, 2, v6), 0)));
            let thread = thread::spawn(move || {
                thread::sleep(Duration::from_millis(500));
                sender.send_to(&(0..bytes).map(|at| (at % 251) as u8).collect::<Vec<u8>>(), ours).unwrap();
            });
            let script = format!("udp-at {ours}\nreceive-long {bytes}");
            assert_eq!(diverting.live.act(&script), ["ok", "ok"], "{bytes} bytes in, IPv6: {v6}");
            thread.join().unwrap();
        }
        assert_eq!(diverting.all().len(), 6, "each is diverted in one piece");
    });
}

#[test]
fn what_is_blocked_does_not_go_on() {
    both_versions(|router, v6| {
        let act = |_: &mut Diverted<'_>, _: &Asked| say(CalloutAction::Block);
        let Some(mut diverting) = at_layers(&["OUTBOUND_TRANSPORT"], v6, act) else { return };
        let to = SocketAddr::new(at(1, 2, v6), PORT);
        let receiver = router.client.run(move || bound(to));
        assert_eq!(diverting.live.act(&format!("send {to}")), ["ok"], "the sender is not told");
        assert!(!comes(&receiver, SHORT));
        assert_eq!(diverting.fates.recv_timeout(LONG), Ok(Fate::Blocked));
    });
}

#[test]
fn the_walk_goes_on_after_the_callout() {
    both_versions(|router, v6| {
        // the callout lets the next filter say; that one blocks one of two ports
        let of_port = |port: u16| {
            filter(layer("OUTBOUND_TRANSPORT", v6), Action::Block)
                .when(FieldId::IP_REMOTE_PORT, MatchType::Equal, Value::Uint16(port))
                .weight(openwfp_model::Weight::Range(1))
                .build()
                .unwrap()
        };
        let asks = asks(layer("OUTBOUND_TRANSPORT", v6), 1).weight(openwfp_model::Weight::Range(5)).build().unwrap();
        let act = |_: &mut Diverted<'_>, _: &Asked| say(CalloutAction::Continue);
        let Some(mut diverting) = Diverting::with(vec![asks, of_port(PORT)], Options::default(), act) else { return };
        for (port, passes) in [(PORT, false), (PORT + 1, true)] {
            let to = SocketAddr::new(at(1, 2, v6), port);
            let receiver = router.client.run(move || bound(to));
            assert_eq!(diverting.live.act(&format!("send {to}")), ["ok"]);
            assert_eq!(comes(&receiver, if passes { LONG } else { SHORT }), passes);
        }
    });
}

#[test]
fn a_datagram_is_changed_longer_and_shorter() {
    both_versions(|router, v6| {
        for text in ["HELLO", "hello, and much more than was said", "h", ""] {
            let act = move |packet: &mut Diverted<'_>, _: &Asked| {
                let at = payload(packet);
                let bytes = packet.bytes_mut();
                bytes.truncate(at);
                bytes.extend(text.as_bytes());
                say(CalloutAction::Permit)
            };
            let Some(mut diverting) = at_layers(&["OUTBOUND_TRANSPORT", "INBOUND_TRANSPORT"], v6, act) else { return };
            let to = SocketAddr::new(at(1, 2, v6), PORT);
            let receiver = router.client.run(move || bound(to));
            assert_eq!(diverting.live.act(&format!("send {to}")), ["ok"]);
            assert_eq!(texts(&receiver), [text], "out, IPv6: {v6}");
            // on the way in, where the checksum is looked at: lo computes none, so this one has to be right
            let own = SocketAddr::new(at(1, 1, v6), PORT);
            let sender = router.client.run(move || bound(SocketAddr::new(at(1, 2, v6), 0)));
            let thread = thread::spawn(move || {
                thread::sleep(Duration::from_millis(500));
                sender.send_to(b"in", own).unwrap();
            });
            assert_eq!(diverting.live.act(&format!("udp-at {own}\nreceive")), ["ok", "ok"], "in, IPv6: {v6}");
            thread.join().unwrap();
        }
    });
}

#[test]
fn what_is_absorbed_is_gone_and_may_be_injected_many_times() {
    both_versions(|router, v6| {
        let act = |packet: &mut Diverted<'_>, _: &Asked| {
            if packet.injector() != 0 {
                // our own, which meets the filter again
                return say(CalloutAction::Permit);
            }
            for number in [b'1', b'2', b'3'] {
                let mut copy = packet.again(77);
                copy.bytes.push(number);
                packet.inject(copy);
            }
            Answer::Absorb
        };
        let Some(mut diverting) = at_layers(&["OUTBOUND_TRANSPORT"], v6, act) else { return };
        let to = SocketAddr::new(at(1, 2, v6), PORT);
        let receiver = router.client.run(move || bound(to));
        assert_eq!(diverting.live.act(&format!("send {to}")), ["ok"]);
        assert_eq!(texts(&receiver), ["hello1", "hello2", "hello3"]);
        let injectors: Vec<u32> = diverting.all().iter().map(|seen| seen.injector).collect();
        assert_eq!(injectors, [0, 77, 77, 77]);
    });
}

/// A datagram from the IP header on, without checksums.
fn datagram(from: SocketAddr, to: SocketAddr, text: &[u8]) -> Vec<u8> {
    let mut packet = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            let fixed = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
            [fixed, from.ip().octets().to_vec(), to.ip().octets().to_vec()].concat()
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            [vec![0x60, 0, 0, 0, 0, 0, 17, 64], from.ip().octets().to_vec(), to.ip().octets().to_vec()].concat()
        }
        _ => unreachable!(),
    };
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(text);
    packet
}

#[test]
fn packets_that_are_made_from_nothing_meet_every_filter() {
    both_versions(|router, v6| {
        let Some(mut diverting) = at_layers(&["OUTBOUND_IPPACKET", "INBOUND_TRANSPORT"], v6, permit) else { return };
        let (ours, theirs) = (SocketAddr::new(at(1, 1, v6), PORT), SocketAddr::new(at(1, 2, v6), PORT));
        let receiver = router.client.run(move || bound(theirs));
        let interface = index("r0");
        let place = Place { interface, inbound: false, stage: stage::OUT_TRANSPORT };
        let out = Injection::new(datagram(ours, theirs, b"from nothing"), place, 5);
        diverting.orders.send(Order::Inject(out)).unwrap();
        assert_eq!(texts(&receiver), ["from nothing"]);
        let seen = diverting.all();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].injector, seen[0].user, seen[0].socket), (5, None, 0));

        let orders = diverting.orders.clone();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            let place = Place { interface, inbound: true, stage: stage::IN_IPPACKET };
            orders.send(Order::Inject(Injection::new(datagram(theirs, ours, b"in"), place, 6))).unwrap();
        });
        assert_eq!(diverting.live.act(&format!("udp-at {ours}\nreceive")), ["ok", "ok"]);
        thread.join().unwrap();
        let seen = diverting.all();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].injector, seen[0].layer), (6, layer("INBOUND_TRANSPORT", v6)));
    });
}

#[test]
fn without_a_host_the_filter_blocks_or_permits_as_it_says() {
    both_versions(|router, v6| {
        for (flags, passes) in [(FilterFlags::empty(), false), (FilterFlags::PERMIT_IF_CALLOUT_UNREGISTERED, true)] {
            let asks = asks(layer("OUTBOUND_TRANSPORT", v6), 2).flags(flags).build().unwrap();
            let Some(mut diverting) = Diverting::with(vec![asks], Options::default(), permit) else { return };
            let to = SocketAddr::new(at(1, 2, v6), PORT);
            let receiver = router.client.run(move || bound(to));
            assert_eq!(diverting.live.act(&format!("send {to}")), ["ok"]);
            assert!(comes(&receiver, LONG), "with a host");
            diverting.end();
            let told = if passes { "ok" } else { "EPERM" };
            assert_eq!(diverting.live.act(&format!("send {to}")), [told]);
            assert_eq!(comes(&receiver, if passes { LONG } else { SHORT }), passes, "{flags:?}");
            assert_eq!(diverting.live.enforcement.failures().diverts_without_host, 1);
        }
    });
}

#[test]
fn a_host_that_hangs_is_taken_for_none() {
    both_versions(|router, v6| {
        let Some(mut diverting) = at_layers(&["OUTBOUND_TRANSPORT"], v6, permit) else { return };
        let to = SocketAddr::new(at(1, 2, v6), PORT);
        let receiver = router.client.run(move || bound(to));
        diverting.orders.send(Order::Hang(Duration::from_secs(4))).unwrap();
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(diverting.live.act(&format!("send {to}")), ["EPERM"]);
        assert!(!comes(&receiver, SHORT));
        assert_eq!(diverting.live.enforcement.failures().diverts_without_host, 1);
        thread::sleep(Duration::from_millis(3000));
        // it is back
        assert_eq!(diverting.live.act(&format!("send {to}")), ["ok"]);
        assert!(comes(&receiver, LONG));
    });
}

/// Enforces a pinned policy and answers until it is killed; `OPENWFP_HOST` says for which group, and where it is pinned.
#[test]
fn host() {
    let Ok(told) = std::env::var("OPENWFP_HOST") else { return };
    let (group, pins) = told.split_once(' ').unwrap();
    let registered: Vec<_> = (0..4).map(key).collect();
    let asks = asks(LayerId::OUTBOUND_TRANSPORT_V4, 2).build().unwrap();
    let policy = compile_objects(1, &[], vec![(1, asks)], &registered).unwrap();
    let options = Options { pins: Some(pins.into()), diverted: RING, ..Options::default() };
    let mut enforcement = Enforcement::prepare(&policy, &Group::open(Path::new(group)).unwrap(), options).unwrap();
    enforcement.attach().unwrap();
    let mut divert = enforcement.divert().unwrap();
    println!("\nloaded");
    divert.serve(&mut Permits, Duration::from_secs(600)).unwrap();
}

struct Permits;

impl Callouts for Permits {
    fn classify(&mut self, _: &mut Diverted<'_>, _: &Asked) -> Answer {
        say(CalloutAction::Permit)
    }
}

/// Takes the pins away however the test ends.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = bpffs::unpin(&self.0);
        let _ = bpffs::release();
    }
}

#[test]
fn when_the_host_is_killed_its_filters_stay_and_are_closed() {
    if let Some(reason) = features::missing().first() {
        support::skips::skipped(reason);
        return;
    }
    alone(|| {
        let router = Router::make();
        let group = OwnGroup::make();
        let pins = Pins(bpffs::folder().unwrap().join(format!("test-divert-{}", std::process::id())));
        let mut host = Command::new(std::env::current_exe().unwrap());
        host.args(["host", "--exact", "--nocapture"]);
        host.env("OPENWFP_HOST", format!("{} {}", group.0.path.display(), pins.0.display()));
        let mut host = host.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(host.stdout.take().unwrap());
        assert!(output.lines().any(|line| line.is_ok_and(|line| line == "loaded")));
        let to = SocketAddr::new(at(1, 2, false), PORT);
        let receiver = router.client.run(move || bound(to));
        let sends = || {
            let mut command = actor::command(&format!("send {to}"));
            group.enter(&mut command, "");
            actor::results(&command.output().unwrap().stdout)
        };
        assert_eq!(sends(), ["ok"]);
        assert!(comes(&receiver, LONG));
        host.kill().unwrap();
        host.wait().unwrap();
        // taken out, and never sent on
        sends();
        thread::sleep(Duration::from_millis(1500));
        assert_eq!(sends(), ["EPERM"], "nobody is there");
        assert!(!comes(&receiver, SHORT));
        drop(pins);
        assert_eq!(sends(), ["ok"], "without the policy");
        assert!(comes(&receiver, LONG));
    });
}

#[test]
fn a_full_ring_closes() {
    both_versions(|router, v6| {
        let filters = vec![asks(layer("OUTBOUND_TRANSPORT", v6), 2).build().unwrap()];
        let options = Options { diverted: 1 << 14, ..Options::default() };
        let act = |_: &mut Diverted<'_>, _: &Asked| {
            thread::sleep(Duration::from_millis(300));
            say(CalloutAction::Permit)
        };
        let Some(mut diverting) = Diverting::with(filters, options, act) else { return };
        let to = SocketAddr::new(at(1, 2, v6), PORT);
        let _receiver = router.client.run(move || bound(to));
        let script = vec![format!("send {to}"); 40].join("\n");
        let results = diverting.live.act(&script);
        let refused = results.iter().filter(|result| *result == "EPERM").count() as u64;
        assert!(refused > 10 && refused < 40, "{refused}");
        assert_eq!(diverting.live.enforcement.failures().diverts_without_room, refused);
    });
}

#[test]
fn a_packet_that_is_out_when_the_policy_changes_is_decided_by_the_new_one() {
    both_versions(|router, v6| {
        for (action, passes) in [(Action::Block, false), (Action::Permit, true)] {
            let act = |_: &mut Diverted<'_>, _: &Asked| Answer::Pend;
            let Some(mut diverting) = at_layers(&["OUTBOUND_TRANSPORT"], v6, act) else { return };
            let to = SocketAddr::new(at(1, 2, v6), PORT);
            let receiver = router.client.run(move || bound(to));
            assert_eq!(diverting.live.act(&format!("send {to}")), ["ok"]);
            assert!(!comes(&receiver, SHORT), "it waits");
            let next = filter(layer("OUTBOUND_TRANSPORT", v6), action).build().unwrap();
            let registered: Vec<_> = (0..4).map(key).collect();
            let next = compile_objects_after(&diverting.live.policy, &[], vec![(9, next)], &registered).unwrap();
            diverting.live.enforcement.replace(&next, &[]).unwrap();
            // the callout's answer was to another question
            let answer = if passes { CalloutAction::Block } else { CalloutAction::Permit };
            diverting.orders.send(Order::Complete(answer)).unwrap();
            assert_eq!(comes(&receiver, if passes { LONG } else { SHORT }), passes);
            assert_eq!(diverting.end().afresh, 1);
        }
    });
}

#[test]
fn a_packet_that_waited_goes_on_when_it_is_answered() {
    both_versions(|router, v6| {
        let act = |_: &mut Diverted<'_>, _: &Asked| Answer::Pend;
        let Some(mut diverting) = at_layers(&["OUTBOUND_TRANSPORT"], v6, act) else { return };
        let to = SocketAddr::new(at(1, 2, v6), PORT);
        let receiver = router.client.run(move || bound(to));
        assert_eq!(diverting.live.act(&format!("send {to}")), ["ok"]);
        assert!(!comes(&receiver, SHORT), "it waits");
        diverting.orders.send(Order::Complete(CalloutAction::Permit)).unwrap();
        assert_eq!(texts(&receiver), ["hello"]);
    });
}

#[test]
fn what_others_send_on_our_device_goes_nowhere() {
    alone(|| {
        let router = Router::make();
        let Some(diverting) = at_layers(&["OUTBOUND_TRANSPORT"], false, permit) else { return };
        let (ours, theirs) = (SocketAddr::new(at(1, 1, false), PORT), SocketAddr::new(at(1, 2, false), PORT));
        let receiver = router.client.run(move || bound(theirs));
        let device = std::fs::read_dir("/proc/sys/net/ipv4/conf").unwrap().filter_map(Result::ok);
        let names: Vec<String> = device.map(|entry| entry.file_name().into_string().unwrap()).collect();
        let name = names.iter().find(|name| name.starts_with("wfp")).expect("there is a device of ours");
        let mut frame = vec![0; 12];
        frame.extend([8, 0]);
        frame.extend(datagram(ours, theirs, b"forged"));
        let before = diverting.live.enforcement.failures().injections_forged;
        for mark in [0, 1, 0x4001, u32::MAX] {
            // it is told that the frame was dropped
            assert!(odd::send_frame(index(name), &frame, mark).is_err());
        }
        assert!(!comes(&receiver, SHORT));
        assert_eq!(diverting.live.enforcement.failures().injections_forged - before, 4);
    });
}

#[test]
fn a_mark_of_somebody_else_lets_nothing_pass() {
    alone(|| {
        let router = Router::make();
        let act = |_: &mut Diverted<'_>, _: &Asked| say(CalloutAction::Block);
        let Some(mut diverting) = at_layers(&["OUTBOUND_TRANSPORT"], false, act) else { return };
        let to = SocketAddr::new(at(1, 2, false), PORT);
        let receiver = router.client.run(move || bound(to));
        for mark in [1, 0x4001, u32::MAX] {
            assert_eq!(diverting.live.act(&format!("send-marked {to} {mark}")), ["ok"]);
        }
        assert!(!comes(&receiver, SHORT));
        let marks: Vec<u32> = diverting.all().iter().map(|seen| seen.mark).collect();
        assert_eq!(marks, [1, 0x4001, u32::MAX], "it is told with the packet");
    });
}
