//! What the kernel drops by itself is met at the _DISCARD layers, each packet once, with the kernel's reason; what the programs drop
//! is met once too, without. Needs root and BPF; at devices Linux 6.6.

mod support;

use openwfp_engine::words;
use openwfp_kernel::{events::Event, hooks::Hook, options::Options};
use openwfp_model::{Action, FieldId, Filter, Layer, LayerId};
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};
use support::{
    actor,
    live::{Live, filter},
    net::{self, alone, at, index, station},
    obedient::Obedient,
    odd,
    router::{CLOSED, LONG, PORT, Router, SHORT, address, bound, layer, number, wait_for},
};

#[test]
fn actor() {
    actor::act();
}

fn discard_layers() -> Vec<LayerId> {
    Layer::all().iter().map(|layer| layer.id).filter(|layer| Hook::is_of_kernel_drops(*layer)).collect()
}

fn of_group(filters: Vec<Filter>) -> Option<Live> {
    Live::new(filters, &discard_layers())
}

fn at_devices(filters: Vec<Filter>) -> Option<Live> {
    Live::with(filters, Options { recorded: discard_layers(), devices: true, ..Options::default() })
}

/// Whether this kernel says for which socket a packet was that it drops.
fn tells_receivers() -> bool {
    !support::skips::kernel_is_before(6, 11, "for which socket a packet was that the kernel drops")
}

/// What the kernel has dropped: layer, reason, local and remote end, once there are as many and nothing more comes.
fn dropped(live: &mut Live, count: usize) -> Vec<(LayerId, String, SocketAddr, SocketAddr)> {
    let started = std::time::Instant::now();
    loop {
        live.drain();
        let found = live.events.iter().filter(|event| is_dropped(event)).count();
        if found >= count || started.elapsed() > LONG {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    thread::sleep(SHORT);
    live.drain();
    live.events.iter().filter(|event| is_dropped(event)).map(shown).collect()
}

/// Whether an event is about a packet to or from the ports of the tests: the kernel's own talk with neighbours and groups is left
/// out.
fn is_of_test(event: &Event) -> bool {
    let port = |word| [PORT, CLOSED].map(u64::from).contains(&event.values.get(word));
    port(words::IP_LOCAL_PORT) || port(words::IP_REMOTE_PORT)
}

fn is_dropped(event: &Event) -> bool {
    event.dropped.is_some() && is_of_test(event)
}

fn shown(event: &Event) -> (LayerId, String, SocketAddr, SocketAddr) {
    let forwarded = event.layer.name().starts_with("IPFORWARD");
    let end = |address_field, port: usize| {
        let address = address(event, address_field).unwrap();
        SocketAddr::new(address, if forwarded { 0 } else { u16::try_from(event.values.get(port)).unwrap() })
    };
    let (local, remote) = if forwarded {
        (FieldId::IP_SOURCE_ADDRESS, FieldId::IP_DESTINATION_ADDRESS)
    } else {
        (FieldId::IP_LOCAL_ADDRESS, FieldId::IP_REMOTE_ADDRESS)
    };
    let reason = event.dropped.as_deref().unwrap().to_owned();
    (event.layer, reason, end(local, words::IP_LOCAL_PORT), end(remote, words::IP_REMOTE_PORT))
}

fn discard(family: &str, v6: bool) -> LayerId {
    Layer::find(&format!("{}_DISCARD", layer(family, v6))).unwrap().id
}

fn loopback(v6: bool) -> IpAddr {
    if v6 { "::1".parse().unwrap() } else { "127.0.0.1".parse().unwrap() }
}

fn both_versions(test: impl Fn(bool) + Send + 'static) {
    alone(move || {
        test(false);
        test(true);
    });
}

#[test]
fn a_datagram_for_which_its_socket_has_no_room() {
    if !tells_receivers() {
        return;
    }
    both_versions(|v6| {
        let Some(mut live) = of_group(vec![]) else { return };
        let to = SocketAddr::new(loopback(v6), PORT);
        let mut actor = Obedient::start(&live);
        assert_eq!(actor.tell(&mut live, &format!("udp-at-narrow {to}")), "ok");
        let sender = bound(SocketAddr::new(loopback(v6), 0));
        const SENT: usize = 16;
        for _ in 0..SENT {
            sender.send_to(&[7; 1000], to).unwrap();
        }
        let mut received = 0;
        while actor.tell(&mut live, "receive") == "ok" {
            received += 1;
        }
        assert!(received < SENT);
        let expected = (discard("DATAGRAM_DATA", v6), "SOCKET_RCVBUFF".to_owned(), to, sender.local_addr().unwrap());
        assert_eq!(dropped(&mut live, SENT - received), vec![expected; SENT - received]);
        for event in live.events.iter().filter(|event| is_dropped(event)) {
            assert_eq!(number(event, FieldId::DIRECTION), Some(1));
            assert_ne!(event.identity.process.started, 0, "the socket's owner");
            assert_ne!(event.socket, 0);
            assert_ne!(event.flow, 0);
            assert!(!event.blocked);
        }
    });
}

#[test]
fn a_filter_at_a_discard_layer_is_asked_and_changes_nothing() {
    if !tells_receivers() {
        return;
    }
    alone(|| {
        let block = filter(LayerId::DATAGRAM_DATA_V4_DISCARD, Action::Block).build().unwrap();
        let Some(mut live) = of_group(vec![block]) else { return };
        let to = SocketAddr::new(loopback(false), PORT);
        let mut actor = Obedient::start(&live);
        assert_eq!(actor.tell(&mut live, &format!("udp-at-narrow {to}")), "ok");
        let sender = bound(SocketAddr::new(loopback(false), 0));
        for _ in 0..16 {
            sender.send_to(&[7; 1000], to).unwrap();
        }
        let event = wait_for(&mut live, |event| event.dropped.is_some());
        assert!(event.blocked && event.filter != 0);
        assert_eq!(actor.tell(&mut live, "receive"), "ok", "what had room is there");
    });
}

/// A TCP segment over IPv4, the kernel adds the checksum of the IP header; `spoil` makes the segment's own wrong.
fn segment(from: SocketAddr, to: SocketAddr, sequence: u32, spoil: bool) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { unreachable!() };
    let mut tcp = vec![];
    tcp.extend(from.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(1u32.to_be_bytes());
    // header of five words, ACK
    tcp.extend([0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    tcp.extend(b"data");
    let mut pseudo = [&source.octets()[..], &destination.octets(), &[0, 6, 0, tcp.len() as u8]].concat();
    pseudo.extend(&tcp);
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    tcp[16..18].copy_from_slice(&(if spoil { sum ^ 1 } else { sum }).to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 20 + tcp.len() as u8, 0, 1, 0, 0, 64, 6, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(tcp);
    packet
}

fn send_raw(packet: &[u8], to: SocketAddr) {
    let socket = odd::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW).unwrap();
    let (storage, length) = odd::raw(SocketAddr::new(to.ip(), 0));
    // SAFETY: our own memory of these lengths.
    let sent = unsafe {
        let storage = (&raw const storage).cast();
        libc::sendto(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, storage, length)
    };
    assert_eq!(sent, packet.len() as isize, "{}", io::Error::last_os_error());
}

#[test]
fn segments_that_a_connection_does_not_take() {
    if !tells_receivers() {
        return;
    }
    alone(|| {
        let router = Router::make();
        let Some(mut live) = of_group(vec![]) else { return };
        let to = SocketAddr::new(at(1, 1, false), PORT);
        let mut actor = Obedient::start(&live);
        assert_eq!(actor.tell(&mut live, &format!("listen {to}")), "ok");
        let client = router.client.run(move || TcpStream::connect(to).unwrap());
        let from = client.local_addr().unwrap();
        assert_eq!(actor.tell(&mut live, "accept"), "ok");
        for (spoil, reasons) in [
            (true, &["TCP_CSUM"][..]),
            (false, &["TCP_INVALID_SEQUENCE", "TCP_INVALID_END_SEQUENCE", "TCP_OLD_SEQUENCE"]),
        ] {
            live.events.clear();
            // wherever the connection stands, one of the two lies outside of its window
            for sequence in [0, 1 << 31] {
                router.client.run(move || send_raw(&segment(from, to, sequence, spoil), to));
            }
            let met = dropped(&mut live, 1);
            assert!((1..=2).contains(&met.len()), "{met:?}");
            for (layer, reason, local, remote) in met {
                assert_eq!((layer, local, remote), (LayerId::INBOUND_TRANSPORT_V4_DISCARD, to, from));
                assert!(reasons.contains(&&*reason), "{reason}");
            }
        }
    });
}

/// The devices give up asking for a neighbour soon.
fn impatient(v6: bool) {
    let family = if v6 { "ipv6" } else { "ipv4" };
    for (name, value) in [("mcast_solicit", "1"), ("retrans_time_ms", "20")] {
        net::set(&format!("{family}/neigh/r0/{name}"), value);
    }
}

#[test]
fn a_datagram_to_a_neighbour_that_is_not_there() {
    both_versions(|v6| {
        let _router = Router::make();
        impatient(v6);
        let Some(mut live) = of_group(vec![]) else { return };
        let to = SocketAddr::new(at(1, 77, v6), PORT);
        let mut actor = Obedient::start(&live);
        assert_eq!(actor.tell(&mut live, &format!("udp-at {}", SocketAddr::new(at(1, 1, v6), CLOSED))), "ok");
        assert_eq!(actor.tell(&mut live, &format!("send {to}")), "ok");
        // of somebody else
        bound(SocketAddr::new(at(1, 1, v6), 0)).send_to(b"other", to).unwrap();
        let from = SocketAddr::new(at(1, 1, v6), CLOSED);
        // Linux gives no reason for IPv6
        let reason = if v6 { "NOT_SPECIFIED" } else { "NEIGH_FAILED" };
        let expected = (discard("OUTBOUND_IPPACKET", v6), reason.to_owned(), from, to);
        assert_eq!(dropped(&mut live, 1), [expected]);
        let event = live.events.iter().find(|event| is_dropped(event)).unwrap();
        assert_ne!(event.identity.process.started, 0, "the socket's owner");
        net::ip("link del r0");
        net::ip("link del r1");
    });
}

#[test]
fn what_the_programs_of_a_group_drop_is_met_once() {
    alone(|| {
        for family in ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "DATAGRAM_DATA", "OUTBOUND_IPPACKET"] {
            let block = filter(layer(family, false), Action::Block).build().unwrap();
            let Some(mut live) = of_group(vec![block]) else { return };
            let ours = SocketAddr::new(loopback(false), PORT);
            let mut actor = Obedient::start(&live);
            assert_eq!(actor.tell(&mut live, &format!("udp-at {ours}")), "ok");
            let other = bound(SocketAddr::new(loopback(false), 0));
            if family.starts_with("OUTBOUND") {
                let to = other.local_addr().unwrap();
                assert_eq!(actor.tell(&mut live, &format!("send {to}")), "EPERM");
            } else {
                other.send_to(b"in", ours).unwrap();
                assert_eq!(actor.tell(&mut live, "receive"), "timeout");
            }
            assert_eq!(dropped(&mut live, 0), [], "{family}");
            let events = live.events.iter().filter(|event| is_of_test(event));
            let met: Vec<LayerId> = events.map(|event| event.layer).collect();
            assert_eq!(met, [discard(family, false)]);
        }
    });
}

#[test]
fn what_nobody_listens_for_in_a_namespace() {
    both_versions(|v6| {
        let router = Router::make();
        let Some(mut live) = at_devices(vec![]) else { return };
        let to = SocketAddr::new(at(1, 1, v6), CLOSED);
        router.client_sends(to, "nobody");
        let [(met, reason, local, remote)] = &dropped(&mut live, 1)[..] else { panic!() };
        assert_eq!((*met, &**reason, *local), (discard("INBOUND_IPPACKET", v6), "NO_SOCKET", to));
        assert_eq!(remote.ip(), at(1, 2, v6));
        live.events.clear();
        let _ = router.client_connects(CLOSED, v6, LONG);
        let [(met, reason, local, remote)] = &dropped(&mut live, 1)[..] else { panic!() };
        assert_eq!((*met, &**reason, *local), (discard("INBOUND_TRANSPORT", v6), "NO_SOCKET", to));
        assert_eq!(remote.ip(), at(1, 2, v6));
        let event = live.events.iter().find(|event| is_dropped(event)).unwrap();
        assert_eq!(number(event, FieldId::INTERFACE_INDEX), Some(index("r0").into()));
        // what is dropped in another namespace is none of ours
        live.events.clear();
        bound(SocketAddr::new(at(1, 1, v6), 0)).send_to(b"there", SocketAddr::new(at(1, 2, v6), CLOSED)).unwrap();
        assert_eq!(dropped(&mut live, 0), []);
        net::ip("link del r0");
        net::ip("link del r1");
    });
}

#[test]
fn a_packet_that_has_come_too_far_is_not_forwarded() {
    both_versions(|v6| {
        let router = Router::make();
        let Some(mut live) = at_devices(vec![]) else { return };
        let to = at(2, 2, v6);
        router.client.run(move || {
            let socket = bound(SocketAddr::new(at(1, 2, v6), 0));
            let hops = 1i32;
            let (level, option) =
                if v6 { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
            // SAFETY: an option of this length.
            let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const hops).cast(), 4) };
            assert_eq!(set, 0);
            socket.send_to(b"far", SocketAddr::new(to, PORT)).unwrap();
        });
        let [(met, reason, source, destination)] = &dropped(&mut live, 1)[..] else { panic!() };
        assert_eq!((*met, &**reason), (discard("IPFORWARD", v6), "IP_INHDR"));
        assert_eq!((source.ip(), destination.ip()), (at(1, 2, v6), to));
        let event = live.events.iter().find(|event| is_dropped(event)).unwrap();
        assert_eq!(number(event, FieldId::SOURCE_INTERFACE_INDEX), Some(index("r0").into()));
        assert_eq!(number(event, FieldId::DESTINATION_INTERFACE_INDEX), Some(index("r1").into()));
        net::ip("link del r0");
        net::ip("link del r1");
    });
}

#[test]
fn an_icmp_error_that_is_spoiled() {
    alone(|| {
        let router = Router::make();
        let Some(mut live) = at_devices(vec![]) else { return };
        let (ours, theirs) = (at(1, 1, false), at(1, 2, false));
        router.client.run(move || {
            // nobody listens, to a segment that this machine is said to have sent; the checksum is none
            let mut error = vec![3, 3, 0x12, 0x34, 0, 0, 0, 0];
            error.extend(segment(SocketAddr::new(ours, PORT), SocketAddr::new(theirs, CLOSED), 0, false));
            let (IpAddr::V4(source), IpAddr::V4(destination)) = (theirs, ours) else { unreachable!() };
            let mut packet = vec![0x45, 0, 0, 20 + error.len() as u8, 0, 1, 0, 0, 64, 1, 0, 0];
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(error);
            send_raw(&packet, SocketAddr::new(ours, 0));
        });
        let event = wait_for(&mut live, |event| event.layer == LayerId::INBOUND_ICMP_ERROR_V4_DISCARD);
        assert_eq!(event.dropped.as_deref(), Some("ICMP_CSUM"));
        assert_eq!(address(&event, FieldId::IP_REMOTE_ADDRESS), Some(theirs));
        assert_eq!(address(&event, FieldId::EMBEDDED_REMOTE_ADDRESS), Some(theirs));
        for (field, expected) in [
            (FieldId::IP_LOCAL_PORT, 3),
            (FieldId::EMBEDDED_PROTOCOL, 6),
            (FieldId::EMBEDDED_LOCAL_PORT, PORT.into()),
            (FieldId::EMBEDDED_REMOTE_PORT, CLOSED.into()),
        ] {
            assert_eq!(number(&event, field), Some(expected), "{field}");
        }
        thread::sleep(SHORT);
        live.drain();
        assert_eq!(live.at(LayerId::INBOUND_ICMP_ERROR_V4_DISCARD).count(), 1);
    });
}

#[test]
fn a_packet_by_the_wrong_way() {
    alone(|| {
        let router = Router::make();
        net::set("ipv4/conf/r0/rp_filter", "1");
        let Some(mut live) = at_devices(vec![]) else { return };
        let (source, destination) = (at(2, 77, false), at(1, 1, false));
        let mut frame = station(1, 1).to_be_bytes()[2..].to_vec();
        frame.extend(&station(1, 2).to_be_bytes()[2..]);
        frame.extend([0x08, 0x00]);
        let mut packet = segment(SocketAddr::new(source, 1000), SocketAddr::new(destination, PORT), 0, false);
        let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        frame.extend(packet);
        router.client_tap.send(&frame);
        let expected = (
            LayerId::INBOUND_IPPACKET_V4_DISCARD,
            "IP_RPFILTER".to_owned(),
            SocketAddr::new(destination, PORT),
            SocketAddr::new(source, 1000),
        );
        assert_eq!(dropped(&mut live, 1), [expected]);
    });
}

#[test]
fn what_the_programs_of_devices_drop_is_met_once() {
    both_versions(|v6| {
        let router = Router::make();
        for family in ["INBOUND_IPPACKET", "OUTBOUND_IPPACKET", "IPFORWARD"] {
            let block = filter(layer(family, v6), Action::Block).build().unwrap();
            let Some(mut live) = at_devices(vec![block]) else { return };
            let socket: UdpSocket = router.socket(PORT, v6);
            match family {
                "INBOUND_IPPACKET" => router.client_sends(socket.local_addr().unwrap(), "in"),
                "IPFORWARD" => router.client_sends(SocketAddr::new(at(2, 2, v6), PORT), "through"),
                _ => {
                    let _ = socket.send_to(b"out", SocketAddr::new(at(1, 2, v6), PORT));
                }
            }
            assert_eq!(dropped(&mut live, 0), [], "{family}");
            let events = live.events.iter().filter(|event| is_of_test(event));
            let met: Vec<LayerId> = events.map(|event| event.layer).collect();
            assert_eq!(met, [discard(family, v6)]);
        }
        net::ip("link del r0");
        net::ip("link del r1");
    });
}
