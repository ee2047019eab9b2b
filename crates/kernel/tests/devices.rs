//! The layers that are met at the devices of a network namespace: frames, IP packets, transport, ICMP errors, forwarded packets.
//! Needs root, BPF and Linux 6.6.

mod support;

use openwfp_model::{Action, FieldId, LayerId};
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use support::{
    live::filter,
    net::{self, Tap, alone, at, index, station},
    router::{
        CLOSED, LONG, PORT, Router, SHORT, address, at_devices, bound, comes, is_refused, layer, met_with, number,
        pings, wait_for,
    },
};

const INBOUND: LayerId = LayerId::INBOUND_MAC_FRAME_ETHERNET;
const OUTBOUND: LayerId = LayerId::OUTBOUND_MAC_FRAME_ETHERNET;
/// `DlUnicast`, `DlMulticast`, `DlBroadcast`.
const UNICAST: u64 = 0;
const MULTICAST: u64 = 1;
const BROADCAST: u64 = 2;
const EVERYBODY: u64 = 0xffff_ffff_ffff;

/// What a packet meets on its way in and out.
const IN: [&str; 3] = ["INBOUND_MAC_FRAME_ETHERNET", "INBOUND_IPPACKET", "INBOUND_TRANSPORT"];
const OUT: [&str; 3] = ["OUTBOUND_TRANSPORT", "OUTBOUND_IPPACKET", "OUTBOUND_MAC_FRAME_ETHERNET"];

fn both_versions(test: impl Fn(bool) + Send + 'static) {
    alone(move || {
        test(false);
        test(true);
    });
}

#[test]
fn a_frame_has_the_addresses_of_both_sides() {
    both_versions(|v6| {
        let router = Router::make();
        let Some(mut live) = at_devices(vec![], false) else { return };
        let socket = router.socket(PORT, v6);
        router.client_sends(socket.local_addr().unwrap(), "in");
        assert!(comes(&socket, LONG));
        socket.send_to(b"out", SocketAddr::new(at(1, 2, v6), PORT)).unwrap();
        assert!(router.client_tap.sees(b"out", LONG));
        let packet = wait_for(&mut live, |event| event.layer == layer("INBOUND_IPPACKET", v6));
        let compartment = number(&packet, FieldId::COMPARTMENT_ID).unwrap();
        assert!(compartment > 1, "it is not the first namespace");
        for wanted in [INBOUND, OUTBOUND] {
            let kind = if v6 { 0x86dd } else { 0x0800 };
            let event = wait_for(&mut live, |event| {
                let is_of = |field, value| number(event, field) == Some(value);
                event.layer == wanted
                    && is_of(FieldId::MAC_REMOTE_ADDRESS, station(1, 2))
                    // not what the kernel says to groups
                    && is_of(FieldId::MAC_LOCAL_ADDRESS_TYPE, UNICAST)
                    && is_of(FieldId::ETHER_TYPE, kind)
            });
            for (field, expected) in [
                (FieldId::MAC_LOCAL_ADDRESS, Some(station(1, 1))),
                (FieldId::INTERFACE_MAC_ADDRESS, Some(station(1, 1))),
                (FieldId::MAC_REMOTE_ADDRESS_TYPE, Some(UNICAST)),
                (FieldId::INTERFACE_INDEX, Some(u64::from(index("r0")))),
                (FieldId::VLAN_ID, None),
                (FieldId::NDIS_PORT, Some(0)),
                (FieldId::COMPARTMENT_ID, Some(compartment)),
                // FWP_CONDITION_L2_IS_NATIVE_ETHERNET
                (FieldId::L2_FLAGS, Some(1)),
            ] {
                assert_eq!(number(&event, field), expected, "{wanted} {field}");
            }
        }
        net::ip("link del r0");
        net::ip("link del r1");
    });
}

#[test]
fn frames_to_everybody_to_groups_and_of_other_protocols() {
    alone(|| {
        let router = Router::make();
        let Some(mut live) = at_devices(vec![], false) else { return };
        let socket = router.socket(PORT, false);
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"all", (Ipv4Addr::new(10, 9, 1, 255), PORT)).unwrap();
        net::ip("route add 224.0.0.0/4 dev r0");
        socket.send_to(b"some", (Ipv4Addr::new(239, 1, 2, 3), PORT)).unwrap();
        // IEEE 802 local experimental ethertype 1
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 1, 2, 0x88, 0xb5]);
        frame.resize(60, 7);
        router.client_tap.send(&frame);
        let group = 0x0100_5e01_0203;
        for (wanted, kind, [local, remote], [local_type, remote_type]) in [
            (OUTBOUND, 0x0800, [station(1, 1), EVERYBODY], [UNICAST, BROADCAST]),
            (OUTBOUND, 0x0800, [station(1, 1), group], [UNICAST, MULTICAST]),
            (INBOUND, 0x88b5, [EVERYBODY, station(1, 2)], [BROADCAST, UNICAST]),
        ] {
            let event = wait_for(&mut live, |event| {
                event.layer == wanted
                    && number(event, FieldId::ETHER_TYPE) == Some(kind)
                    && number(event, FieldId::MAC_REMOTE_ADDRESS) == Some(remote)
            });
            assert_eq!(number(&event, FieldId::MAC_LOCAL_ADDRESS), Some(local));
            assert_eq!(number(&event, FieldId::INTERFACE_MAC_ADDRESS), Some(station(1, 1)));
            assert_eq!(number(&event, FieldId::MAC_LOCAL_ADDRESS_TYPE), Some(local_type));
            assert_eq!(number(&event, FieldId::MAC_REMOTE_ADDRESS_TYPE), Some(remote_type));
        }
    });
}

#[test]
fn a_tagged_frame_has_its_tag_and_the_type_behind_it() {
    alone(|| {
        let router = Router::make();
        let Some(mut live) = at_devices(vec![], false) else { return };
        // priority 3, VLAN 5
        let frame = |to: u64, from: u64| {
            let mut frame = to.to_be_bytes()[2..].to_vec();
            frame.extend(&from.to_be_bytes()[2..]);
            frame.extend([0x81, 0, 0x60, 5, 0x88, 0xb5]);
            frame.resize(64, 9);
            frame
        };
        router.client_tap.send(&frame(station(1, 1), station(1, 2)));
        Tap::new("r0").send(&frame(station(1, 2), station(1, 1)));
        for wanted in [INBOUND, OUTBOUND] {
            let event = wait_for(&mut live, |event| {
                event.layer == wanted && number(event, FieldId::ETHER_TYPE) == Some(0x88b5)
            });
            assert_eq!(number(&event, FieldId::VLAN_ID), Some(0x6005), "{wanted}");
            assert_eq!(number(&event, FieldId::MAC_REMOTE_ADDRESS), Some(station(1, 2)), "{wanted}");
        }
    });
}

#[test]
fn a_frame_of_a_vlan_is_met_with_its_tag_at_the_device_below() {
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
        let Some(mut live) = at_devices(vec![], false) else { return };
        assert!(pings(IpAddr::from([10, 9, 5, 2]), LONG));
        for wanted in [INBOUND, OUTBOUND] {
            let mut at = |device, vlan| {
                let index = u64::from(index(device));
                wait_for(&mut live, |event| {
                    event.layer == wanted
                        && number(event, FieldId::ETHER_TYPE) == Some(0x0800)
                        && number(event, FieldId::INTERFACE_INDEX) == Some(index)
                        && number(event, FieldId::VLAN_ID) == vlan
                });
            };
            at("r0", Some(5));
            at("r0.5", None);
        }
    });
}

#[test]
fn packets_that_the_kernel_answers_by_itself() {
    both_versions(|v6| {
        let router = Router::make();
        let Some(mut live) = at_devices(vec![], false) else { return };
        let mut meets = |what: &str, expected: &[&[&str]]| {
            let expected = expected.concat();
            assert_eq!(met_with(&mut live, 1, v6, expected.len()), expected, "{what}, IPv6: {v6}");
            live.events.clear();
        };
        let theirs = at(1, 2, v6);
        // a connection to a closed port: the SYN and the reset
        assert_eq!(router.client_connects(CLOSED, v6, LONG), Some(ErrorKind::ConnectionRefused));
        meets("a SYN that comes in", &[&IN, &OUT]);
        let error = std::net::TcpStream::connect_timeout(&SocketAddr::new(theirs, CLOSED), LONG).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        meets("a SYN that goes out", &[&OUT, &IN]);
        assert!(router.client_pings(v6, LONG));
        meets("an echo request that comes in", &[&IN, &OUT]);
        assert!(pings(theirs, LONG));
        meets("an echo request that goes out", &[&OUT, &IN]);
        let ours = at(1, 1, v6);
        assert!(router.client.run(move || is_refused(theirs, SocketAddr::new(ours, CLOSED), LONG)));
        meets("a datagram that nobody wants here", &[&IN, &["OUTBOUND_ICMP_ERROR"], &OUT]);
        assert!(is_refused(ours, SocketAddr::new(theirs, CLOSED), LONG));
        meets("a datagram that nobody wants there", &[&OUT, &IN, &["INBOUND_ICMP_ERROR"]]);
        net::ip("link del r0");
        net::ip("link del r1");
    });
}

#[test]
fn an_icmp_error_has_type_and_code_and_what_it_quotes() {
    both_versions(|v6| {
        let router = Router::make();
        let Some(mut live) = at_devices(vec![], false) else { return };
        let (ours, theirs) = (at(1, 1, v6), at(1, 2, v6));
        // port unreachable
        let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
        assert!(is_refused(ours, SocketAddr::new(theirs, CLOSED), LONG));
        let event = wait_for(&mut live, |event| event.layer == layer("INBOUND_ICMP_ERROR", v6));
        let local_port = number(&event, FieldId::EMBEDDED_LOCAL_PORT).unwrap();
        assert!(local_port >= 1024, "{local_port}");
        assert_eq!(address(&event, FieldId::EMBEDDED_REMOTE_ADDRESS), Some(theirs));
        for (field, expected) in [
            (FieldId::IP_LOCAL_PORT, kind),
            (FieldId::IP_REMOTE_PORT, code),
            (FieldId::EMBEDDED_PROTOCOL, 17),
            (FieldId::EMBEDDED_REMOTE_PORT, CLOSED.into()),
            // NlatUnicast
            (FieldId::EMBEDDED_LOCAL_ADDRESS_TYPE, 1),
            (FieldId::ARRIVAL_INTERFACE_INDEX, index("r0").into()),
        ] {
            assert_eq!(number(&event, field), Some(expected), "{field}");
        }
        router.client_sends(SocketAddr::new(ours, CLOSED), "nobody");
        let event = wait_for(&mut live, |event| event.layer == layer("OUTBOUND_ICMP_ERROR", v6));
        assert_eq!(number(&event, FieldId::IP_LOCAL_PORT), Some(kind));
        assert_eq!(number(&event, FieldId::IP_REMOTE_PORT), Some(code));
        assert_eq!(address(&event, FieldId::IP_REMOTE_ADDRESS), Some(theirs));
        net::ip("link del r0");
        net::ip("link del r1");
    });
}

#[test]
fn a_forwarded_packet_has_both_interfaces() {
    both_versions(|v6| {
        let router = Router::make();
        let Some(mut live) = at_devices(vec![], false) else { return };
        // without a receiver there would be an answer
        let _receiver = router.server.run(move || bound(SocketAddr::new(at(2, 2, v6), PORT)));
        router.client_sends(SocketAddr::new(at(2, 2, v6), PORT), "through");
        assert!(router.server_tap.sees(b"through", LONG));
        let event = wait_for(&mut live, |event| event.layer == layer("IPFORWARD", v6));
        assert_eq!(address(&event, FieldId::IP_SOURCE_ADDRESS), Some(at(1, 2, v6)));
        assert_eq!(address(&event, FieldId::IP_DESTINATION_ADDRESS), Some(at(2, 2, v6)));
        let (from, to) = (u64::from(index("r0")), u64::from(index("r1")));
        // a LUID: the interface type above, its number in the middle
        let luid = |index: u64| 6 << 48 | index << 24;
        for (field, expected) in [
            (FieldId::IP_DESTINATION_ADDRESS_TYPE, 1),
            (FieldId::SOURCE_INTERFACE_INDEX, from),
            (FieldId::SOURCE_SUB_INTERFACE_INDEX, from),
            (FieldId::DESTINATION_INTERFACE_INDEX, to),
            (FieldId::DESTINATION_SUB_INTERFACE_INDEX, to),
            (FieldId::IP_LOCAL_INTERFACE, luid(from)),
            (FieldId::IP_PHYSICAL_ARRIVAL_INTERFACE, luid(from)),
            (FieldId::IP_FORWARD_INTERFACE, luid(to)),
            (FieldId::IP_PHYSICAL_NEXTHOP_INTERFACE, luid(to)),
            (FieldId::FLAGS, 0),
        ] {
            assert_eq!(number(&event, field), Some(expected), "{field}");
        }
        let arrival = met_with(&mut live, 1, v6, 3);
        assert_eq!(arrival, ["INBOUND_MAC_FRAME_ETHERNET", "INBOUND_IPPACKET", "IPFORWARD"]);
        assert_eq!(met_with(&mut live, 2, v6, 2), ["IPFORWARD", "OUTBOUND_MAC_FRAME_ETHERNET"]);
        net::ip("link del r0");
        net::ip("link del r1");
    });
}

/// Whether what a layer would block passes: each is tried the way that this layer sees.
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

/// The families, and whether they have a layer for what was dropped.
const FAMILIES: [(&str, bool); 9] = [
    ("INBOUND_MAC_FRAME_ETHERNET", false),
    ("OUTBOUND_MAC_FRAME_ETHERNET", false),
    ("INBOUND_IPPACKET", true),
    ("OUTBOUND_IPPACKET", true),
    ("INBOUND_TRANSPORT", true),
    ("OUTBOUND_TRANSPORT", true),
    ("INBOUND_ICMP_ERROR", true),
    ("OUTBOUND_ICMP_ERROR", true),
    ("IPFORWARD", true),
];

#[test]
fn what_is_blocked_does_not_pass_and_meets_the_discard_layer() {
    both_versions(|v6| {
        let router = Router::make();
        for (family, discarded) in FAMILIES {
            let blocks = layer(family, v6);
            assert!(passes(&router, family, v6, LONG), "{blocks}, without a policy");
            let block = || vec![filter(blocks, Action::Block).build().unwrap()];
            let Some(mut live) = at_devices(block(), false) else { return };
            assert!(!passes(&router, family, v6, SHORT), "{blocks}");
            wait_for(&mut live, |event| event.layer == blocks && event.blocked && event.enforced);
            if discarded {
                let discard = layer(&format!("{}_DISCARD", blocks.name()), v6);
                wait_for(&mut live, |event| event.layer == discard);
            }
            drop(live);
            let Some(mut live) = at_devices(block(), true) else { return };
            assert!(passes(&router, family, v6, LONG), "{blocks}, in a dry run");
            wait_for(&mut live, |event| event.layer == blocks && event.blocked && !event.enforced);
        }
        net::ip("link del r0");
        net::ip("link del r1");
    });
}

#[test]
fn blocked_transport_keeps_the_kernel_from_answering() {
    both_versions(|v6| {
        let router = Router::make();
        for family in ["INBOUND_TRANSPORT", "OUTBOUND_TRANSPORT"] {
            let block = filter(layer(family, v6), Action::Block).build().unwrap();
            let Some(_live) = at_devices(vec![block], false) else { return };
            assert_eq!(router.client_connects(CLOSED, v6, SHORT), Some(ErrorKind::TimedOut), "{family}");
            assert!(!router.client_pings(v6, SHORT), "{family}");
        }
        net::ip("link del r0");
        net::ip("link del r1");
    });
}

#[test]
fn a_device_that_appears_later_is_watched_once_its_news_are_read() {
    alone(|| {
        let layers = [LayerId::OUTBOUND_IPPACKET_V4, LayerId::INBOUND_MAC_FRAME_ETHERNET];
        let block = layers.map(|layer| filter(layer, Action::Block).build().unwrap());
        let Some(mut live) = at_devices(block.to_vec(), false) else { return };
        let router = Router::make();
        assert!(passes(&router, "OUTBOUND_IPPACKET", false, LONG));
        live.drain();
        assert!(!passes(&router, "OUTBOUND_IPPACKET", false, SHORT));
        assert!(!passes(&router, "INBOUND_MAC_FRAME_ETHERNET", false, SHORT));
        // one that takes the number of another that is gone
        let number = index("r0");
        net::ip("link del r0");
        live.drain();
        net::ip(&format!("link add name r0 index {number} type veth peer name c0 netns {}", router.client.id));
        net::ip("addr add 10.9.7.1/24 dev r0");
        net::ip("link set r0 up");
        router.client.ip("link set c0 up");
        live.drain();
        let tap = router.client.tap("c0");
        let socket = bound("10.9.7.1:0".parse().unwrap());
        socket.set_broadcast(true).unwrap();
        let _ = socket.send_to(b"again", "10.9.7.255:9");
        assert!(!tap.sees(b"again", SHORT));
    });
}

#[test]
fn what_is_for_this_machine_is_known_by_its_routes() {
    alone(|| {
        let router = Router::make();
        let block = filter(LayerId::INBOUND_TRANSPORT_V4, Action::Block).build().unwrap();
        let Some(_live) = at_devices(vec![block], false) else { return };
        // an address that nobody has told the programs of, and a network that is local as a whole
        net::ip("addr add 10.9.8.1/32 dev lo");
        net::ip("route add local 10.10.0.0/16 dev lo");
        router.client.ip("route add 10.9.8.1 via 10.9.1.1");
        router.client.ip("route add 10.10.0.0/16 via 10.9.1.1");
        // everybody and a group, in frames for this machine alone
        for address in ["10.9.1.255", "239.1.2.3"] {
            router.client.ip(format!("route add {address} via 10.9.1.1 dev c0 onlink"));
        }
        let socket = bound(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)));
        socket.join_multicast_v4(&Ipv4Addr::new(239, 1, 2, 3), &Ipv4Addr::new(10, 9, 1, 1)).unwrap();
        for address in ["10.9.8.1", "10.10.3.4", "10.9.1.1"] {
            router.client_sends(SocketAddr::new(address.parse().unwrap(), PORT), "for you");
            assert!(!comes(&socket, SHORT), "{address}");
        }
        for address in [[10, 9, 1, 255], [239, 1, 2, 3]] {
            router.client_tap.send(&datagram(station(1, 1), address, PORT));
            assert!(!comes(&socket, SHORT), "{address:?}");
        }
        drop(_live);
        for address in [[10, 9, 8, 1], [10, 10, 3, 4], [10, 9, 1, 255], [239, 1, 2, 3]] {
            router.client_tap.send(&datagram(station(1, 1), address, PORT));
            assert!(comes(&socket, LONG), "{address:?}, without a policy");
        }
    });
}

/// A frame from the client with a datagram.
fn datagram(to: u64, address: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = to.to_be_bytes()[2..].to_vec();
    frame.extend(&station(1, 2).to_be_bytes()[2..]);
    frame.extend([0x08, 0x00]);
    let mut header = vec![0x45, 0, 0, 33, 0, 1, 0, 0, 64, 17, 0, 0, 10, 9, 1, 2];
    header.extend(address);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend([0x12, 0x34]);
    frame.extend(port.to_be_bytes());
    // length, no checksum
    frame.extend([0, 13, 0, 0]);
    frame.extend(b"hello");
    frame
}

#[test]
fn a_forged_source_does_not_pass_for_what_this_machine_sends() {
    alone(|| {
        let router = Router::make();
        // the client sends in the machine's name: Linux forwards that, for IPv6 always
        let (ours, theirs) = (at(2, 1, true), at(2, 2, true));
        let IpAddr::V6(destination) = theirs else { unreachable!() };
        let IpAddr::V6(source) = ours else { unreachable!() };
        let mut frame = station(1, 1).to_be_bytes()[2..].to_vec();
        frame.extend(&station(1, 2).to_be_bytes()[2..]);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 13, 17, 64]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        // the checksum is the receiver's business
        frame.extend([0x12, 0x34, 0x12, 0x67, 0, 13, 1, 2]);
        frame.extend(b"forge");
        router.client_tap.send(&frame);
        assert!(router.server_tap.sees(b"forge", LONG), "without a policy");
        let block = filter(LayerId::IPFORWARD_V6, Action::Block).build().unwrap();
        let Some(mut live) = at_devices(vec![block], false) else { return };
        router.client_tap.send(&frame);
        assert!(!router.server_tap.sees(b"forge", SHORT));
        wait_for(&mut live, |event| event.layer == LayerId::IPFORWARD_V6_DISCARD);
    });
}
