//! What forwarded traffic meets at the devices of a machine between two others, step by step. Needs root, BPF and Linux 6.6.

mod support;

use openwfp_engine::Schema;
use openwfp_kernel::events::{Event, EventKind};
use openwfp_model::FieldId;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};
use support::{
    live::Live,
    net::{alone, at, index},
    router::{LONG, PORT, Router, at_devices, bound, comes, pings},
    skips::kernel_is_before,
};

/// What a packet meets on its way through: it arrives at one device and leaves by the other.
const FORTH: [&str; 4] =
    ["r0 INBOUND_MAC_FRAME_ETHERNET", "r0 INBOUND_IPPACKET", "r1 IPFORWARD", "r1 OUTBOUND_MAC_FRAME_ETHERNET"];
const BACK: [&str; 4] =
    ["r1 INBOUND_MAC_FRAME_ETHERNET", "r1 INBOUND_IPPACKET", "r0 IPFORWARD", "r0 OUTBOUND_MAC_FRAME_ETHERNET"];
/// What arrives and goes no further, and what this machine says about it.
const ARRIVES: [&str; 2] = ["r0 INBOUND_MAC_FRAME_ETHERNET", "r0 INBOUND_IPPACKET"];
const ERROR: [&str; 4] =
    ["r0 OUTBOUND_ICMP_ERROR", "r0 OUTBOUND_TRANSPORT", "r0 OUTBOUND_IPPACKET", "r0 OUTBOUND_MAC_FRAME_ETHERNET"];

/// Device and layer; `None`: what the networks say about themselves and their neighbours.
fn line(event: &Event, v6: bool) -> Option<String> {
    let value = |field| Schema::of(event.layer).field(field).map(|words| event.values.get(words.first));
    let name = event.layer.name();
    let is_group = |field| match value(field) {
        Some(first) if v6 => first >> 24 == 0xff,
        Some(first) => first >> 28 == 0xe,
        None => false,
    };
    if name.ends_with(if v6 { "_V4" } else { "_V6" }) {
        return None;
    }
    let kind = if v6 { 0x86dd } else { 0x0800 };
    // the groups of stations have the lowest bit of the first byte
    let to_group = value(FieldId::MAC_REMOTE_ADDRESS).is_some_and(|high| high >> 8 & 1 == 1);
    let to_group = to_group || value(FieldId::MAC_LOCAL_ADDRESS).is_some_and(|high| high >> 8 & 1 == 1);
    let other = value(FieldId::ETHER_TYPE).is_some_and(|found| found != kind);
    if to_group || other || is_group(FieldId::IP_LOCAL_ADDRESS) || is_group(FieldId::IP_REMOTE_ADDRESS) {
        return None;
    }
    let interface = value(FieldId::DESTINATION_INTERFACE_INDEX).or_else(|| value(FieldId::INTERFACE_INDEX));
    let device = ["r0", "r1"].into_iter().find(|device| Some(u64::from(index(device))) == interface)?;
    let family = name.strip_suffix(if v6 { "_V6" } else { "_V4" });
    Some(format!("{device} {}", family.unwrap_or(name)))
}

/// What was met since the last time is exactly this.
#[track_caller]
fn meets(live: &mut Live, v6: bool, step: &str, expected: &[&[&str]]) {
    let (expected, begun) = (expected.concat(), Instant::now());
    let met = loop {
        live.drain();
        let packets = live.events.iter().filter(|event| event.kind == EventKind::Classify && event.dropped.is_none());
        let met: Vec<String> = packets.filter_map(|event| line(event, v6)).collect();
        if met.len() >= expected.len() || begun.elapsed() > LONG {
            break met;
        }
        thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(met, expected, "{step}, IPv6: {v6}");
    live.events.clear();
}

/// For both versions, under a policy that permits everything.
fn both_versions(steps: impl Fn(&Router, &mut Live, bool) + Send + Sync + Copy + 'static) {
    if kernel_is_before(6, 6, "forwarded traffic at devices") {
        return;
    }
    for v6 in [false, true] {
        alone(move || {
            let router = Router::make();
            let Some(mut live) = at_devices(vec![], false) else { return };
            steps(&router, &mut live, v6);
            thread::sleep(Duration::from_millis(50));
            meets(&mut live, v6, "after the last step", &[]);
        });
    }
}

#[test]
fn a_tcp_connection() {
    both_versions(|router, live, v6| {
        let to = SocketAddr::new(at(2, 2, v6), PORT);
        let listener = router.server.run(move || TcpListener::bind(to).unwrap());
        let mut client = router.client.run(move || TcpStream::connect(to).unwrap());
        meets(live, v6, "SYN, SYN-ACK, ACK", &[&FORTH, &BACK, &FORTH]);
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        meets(live, v6, "data, its acknowledgment", &[&FORTH, &BACK]);
        server.read_exact(&mut [0; 5]).unwrap();
        server.write_all(b"hello").unwrap();
        meets(live, v6, "data of the answer, its acknowledgment", &[&BACK, &FORTH]);
        client.read_exact(&mut [0; 5]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        meets(live, v6, "FIN, its acknowledgment", &[&FORTH, &BACK]);
        server.shutdown(Shutdown::Write).unwrap();
        meets(live, v6, "FIN, its acknowledgment", &[&BACK, &FORTH]);
    });
}

#[test]
fn a_datagram_its_answer_and_what_is_in_fragments() {
    both_versions(|router, live, v6| {
        let to = SocketAddr::new(at(2, 2, v6), PORT);
        let server = router.server.run(move || bound(to));
        let client = router.client.run(move || bound(SocketAddr::new(at(1, 2, v6), 0)));
        let passes = |from: &UdpSocket, to: &UdpSocket, length| {
            from.send_to(&vec![7; length], to.local_addr().unwrap()).unwrap();
            assert!(comes(to, LONG));
        };
        passes(&client, &server, 5);
        meets(live, v6, "datagram", &[&FORTH]);
        passes(&server, &client, 5);
        meets(live, v6, "its answer", &[&BACK]);
        // three of each, which nobody puts together here
        passes(&client, &server, 4000);
        let by_device = |live: &mut Live, step, [arrives, leaves]: [[&'static str; 2]; 2]| {
            let begun = Instant::now();
            let of_device = |live: &Live, name: &str| -> Vec<String> {
                let lines = live.events.iter().filter(|event| event.dropped.is_none());
                lines.filter_map(|event| line(event, v6)).filter(|line| line.starts_with(name)).collect()
            };
            // which of them arrives or leaves first is not said
            let [near, far] = [arrives[0], leaves[0]].map(|line| &line[..2]);
            while of_device(live, far).len() < 6 && begun.elapsed() < LONG {
                live.drain();
                thread::sleep(Duration::from_millis(2));
            }
            assert_eq!(of_device(live, near), [arrives; 3].concat(), "{step}, IPv6: {v6}");
            assert_eq!(of_device(live, far), [leaves; 3].concat(), "{step}, IPv6: {v6}");
            live.events.clear();
        };
        by_device(live, "fragments", [[FORTH[0], FORTH[1]], [FORTH[2], FORTH[3]]]);
        passes(&server, &client, 4000);
        by_device(live, "fragments of the answer", [[BACK[0], BACK[1]], [BACK[2], BACK[3]]]);
    });
}

#[test]
fn an_echo_request_and_its_reply() {
    both_versions(|router, live, v6| {
        assert!(router.client.run(move || pings(at(2, 2, v6), LONG)));
        meets(live, v6, "request, reply", &[&FORTH, &BACK]);
    });
}

#[test]
fn a_packet_whose_hops_are_used_up() {
    both_versions(|router, live, v6| {
        router.client.run(move || {
            let socket = bound(SocketAddr::new(at(1, 2, v6), 0));
            if v6 {
                support::odd::set_hops(&socket, 1).unwrap();
            } else {
                socket.set_ttl(1).unwrap();
            }
            socket.send_to(b"far", SocketAddr::new(at(2, 2, v6), PORT)).unwrap();
        });
        meets(live, v6, "packet, ICMP Time Exceeded", &[&ARRIVES, &ERROR]);
    });
}
