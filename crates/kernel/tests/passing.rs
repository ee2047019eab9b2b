//! What each layer sees of traffic that is translated, tunnelled, or passes several devices of a network namespace: on its way
//! before or behind the translation, the packet outside or the one inside, and at which device. Needs root, BPF and Linux 6.6.

mod support;

use openwfp_kernel::events::{Event, EventKind};
use openwfp_model::{FieldId, LayerId};
use std::{
    net::{SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::Duration,
};
use support::{
    live::Live,
    net::{self, alone, index},
    router::{self, LONG, Router, at_devices, bound, number},
};

/// The devices of this namespace that take part.
const DEVICES: [&str; 3] = ["r0", "r1", "above"];

/// What was met since the last time: device, layer, and for packets where from and where to. Of IPv4 alone.
fn met(live: &mut Live) -> Vec<String> {
    thread::sleep(Duration::from_millis(100));
    live.drain();
    let events: Vec<Event> = live.events.drain(..).filter(|event| event.kind == EventKind::Classify).collect();
    events.iter().filter_map(line).collect()
}

fn line(event: &Event) -> Option<String> {
    let frame = [LayerId::INBOUND_MAC_FRAME_ETHERNET, LayerId::OUTBOUND_MAC_FRAME_ETHERNET].contains(&event.layer);
    let name = event.layer.name();
    let forward = name.starts_with("IPFORWARD");
    let family = if frame { name } else { name.strip_suffix("_V4")? };
    if frame && number(event, FieldId::ETHER_TYPE) != Some(0x0800) {
        return None;
    }
    let field = if forward { FieldId::DESTINATION_INTERFACE_INDEX } else { FieldId::INTERFACE_INDEX };
    let number = number(event, field).unwrap();
    let device = DEVICES.iter().find(|device| exists(device) && u64::from(index(device)) == number)?;
    let address = |field| router::address(event, field).unwrap();
    let ends = match (frame, forward, name.starts_with("OUTBOUND")) {
        (true, ..) => return Some(format!("{device} {family}")),
        (_, true, _) => [FieldId::IP_SOURCE_ADDRESS, FieldId::IP_DESTINATION_ADDRESS],
        (_, _, true) => [FieldId::IP_LOCAL_ADDRESS, FieldId::IP_REMOTE_ADDRESS],
        (_, _, false) => [FieldId::IP_REMOTE_ADDRESS, FieldId::IP_LOCAL_ADDRESS],
    };
    let [from, to] = ends.map(address);
    Some(format!("{device} {family} {from} > {to}"))
}

fn exists(device: &str) -> bool {
    let name = std::ffi::CString::new(device).unwrap();
    // SAFETY: a text that ends with a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// `nft` with a script, in this thread's namespace; false, with the reason printed, where it cannot be done.
fn nft(script: &str) -> bool {
    match Command::new("nft").arg(script).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            support::skips::skipped(format_args!("nft: {}", String::from_utf8_lossy(&output.stderr)));
            false
        }
        Err(error) => {
            support::skips::skipped(format_args!("nft: {error}"));
            false
        }
    }
}

/// What a packet meets that comes in at a device and is for this machine, as far as is known there.
fn comes_in(device: &str, way: &str) -> Vec<String> {
    let mut met = arrives(device, way);
    met.push(format!("{device} INBOUND_TRANSPORT {way}"));
    met
}

/// What one meets that comes in and will be forwarded.
fn arrives(device: &str, way: &str) -> Vec<String> {
    vec![format!("{device} INBOUND_MAC_FRAME_ETHERNET"), format!("{device} INBOUND_IPPACKET {way}")]
}

/// What one meets that this machine sends.
fn leaves(device: &str, way: &str) -> Vec<String> {
    vec![
        format!("{device} OUTBOUND_TRANSPORT {way}"),
        format!("{device} OUTBOUND_IPPACKET {way}"),
        format!("{device} OUTBOUND_MAC_FRAME_ETHERNET"),
    ]
}

/// What one meets that is forwarded.
fn goes_on(device: &str, way: &str) -> Vec<String> {
    vec![format!("{device} IPFORWARD {way}"), format!("{device} OUTBOUND_MAC_FRAME_ETHERNET")]
}

/// One that is forwarded, but leaves in this machine's name.
fn goes_on_as_ours(device: &str, way: &str) -> Vec<String> {
    [vec![format!("{device} IPFORWARD {way}")], leaves(device, way)].concat()
}

/// At a device whose frames are not of Ethernet.
fn without_frames(mut met: Vec<String>) -> Vec<String> {
    met.retain(|line| !line.contains("MAC_FRAME"));
    met
}

/// A datagram from one socket to another or where it is known by another address; the address it comes from, and what was met.
fn passes(
    live: &mut Live,
    from: &UdpSocket,
    to: &UdpSocket,
    known_as: Option<SocketAddr>,
) -> (SocketAddr, Vec<String>) {
    met(live);
    from.send_to(b"hello", known_as.unwrap_or_else(|| to.local_addr().unwrap())).unwrap();
    to.set_read_timeout(Some(LONG)).unwrap();
    let (_, seen) = to.recv_from(&mut [0; 64]).expect("it arrives");
    (seen, met(live))
}

fn socket(address: &str) -> UdpSocket {
    bound(format!("{address}:4711").parse().unwrap())
}

/// A socket of another machine.
fn theirs(space: &net::Space, address: &'static str) -> UdpSocket {
    space.run(move || socket(address))
}

#[test]
fn masquerading() {
    alone(|| {
        let router = Router::make();
        if !nft("table ip nat { chain post { type nat hook postrouting priority 100; oifname r1 masquerade; }; }") {
            return;
        }
        let Some(mut live) = at_devices(vec![], false) else { return };
        let (client, server) = (theirs(&router.client, "10.9.1.2"), theirs(&router.server, "10.9.2.2"));
        let (seen, met) = passes(&mut live, &client, &server, None);
        assert_eq!(seen.ip().to_string(), "10.9.2.1", "it is translated");
        // behind the translation of the source
        let out = goes_on_as_ours("r1", "10.9.2.1 > 10.9.2.2");
        assert_eq!(met, [arrives("r0", "10.9.1.2 > 10.9.2.2"), out].concat());
        let (_, met) = passes(&mut live, &server, &client, Some(seen));
        // the answer: before it is translated back, and behind that
        assert_eq!(met, [comes_in("r1", "10.9.2.2 > 10.9.2.1"), goes_on("r0", "10.9.2.2 > 10.9.1.2")].concat());
    });
}

#[test]
fn translated_destinations() {
    alone(|| {
        let router = Router::make();
        let rule = "ip daddr 10.9.1.1 dnat to 10.9.2.2";
        if !nft(&format!("table ip nat {{ chain pre {{ type nat hook prerouting priority -100; {rule}; }}; }}")) {
            return;
        }
        let Some(mut live) = at_devices(vec![], false) else { return };
        let (client, server) = (theirs(&router.client, "10.9.1.2"), theirs(&router.server, "10.9.2.2"));
        let known_as = "10.9.1.1:4711".parse().unwrap();
        let (seen, met) = passes(&mut live, &client, &server, Some(known_as));
        assert_eq!(seen.ip().to_string(), "10.9.1.2");
        assert_eq!(met, [comes_in("r0", "10.9.1.2 > 10.9.1.1"), goes_on("r1", "10.9.1.2 > 10.9.2.2")].concat());
        let (seen, met) = passes(&mut live, &server, &client, None);
        assert_eq!(seen, known_as, "it is translated back");
        let out = goes_on_as_ours("r0", "10.9.1.1 > 10.9.1.2");
        assert_eq!(met, [arrives("r1", "10.9.2.2 > 10.9.1.2"), out].concat());
    });
}

/// A tunnel between the machine (10.9.7.1, by `above`) and the client (10.9.7.2), between their addresses of net 1.
fn tunnel(router: &Router, kind: &str, more: &str) -> bool {
    let ends = |own: u8, peer: u8| format!("type {kind} local 10.9.1.{own} remote 10.9.1.{peer} {more}");
    if !net::can_make(&format!("link add name probe {}", ends(1, 2).trim_end())) {
        support::skips::kernel_lacks(format_args!("devices of type {kind}"));
        return false;
    }
    // nothing but what the test sends
    net::set("ipv6/conf/default/disable_ipv6", "1");
    router.client.run(|| net::set("ipv6/conf/default/disable_ipv6", "1"));
    let commands = |device: &str, own: u8, peer: u8| {
        let mut commands = vec![
            format!("link add {device} {}", ends(own, peer).trim_end()),
            format!("link set {device} up"),
            format!("addr add 10.9.7.{own}/24 dev {device}"),
        ];
        if kind == "vxlan" {
            commands[0] = format!("link add {device} address 02:00:00:00:07:0{own} {}", ends(own, peer));
            commands
                .push(format!("neigh replace 10.9.7.{peer} lladdr 02:00:00:00:07:0{peer} dev {device} nud permanent"));
        }
        commands
    };
    commands("above", 1, 2).iter().for_each(|command| net::ip(command));
    commands("theirs", 2, 1).into_iter().for_each(|command| router.client.ip(command));
    true
}

#[test]
fn tunnels() {
    for (kind, more, ethernet) in [("vxlan", "id 7 dstport 4789", true), ("ipip", "", false), ("gre", "", false)] {
        alone(move || {
            let router = Router::make();
            if !tunnel(&router, kind, more) {
                return;
            }
            let above = |met: Vec<String>| if ethernet { met } else { without_frames(met) };
            let Some(mut live) = at_devices(vec![], false) else { return };
            let (own, client) = (socket("10.9.7.1"), theirs(&router.client, "10.9.7.2"));
            let (inside, outside) = ("10.9.7.1 > 10.9.7.2", "10.9.1.1 > 10.9.1.2");
            let (_, met) = passes(&mut live, &own, &client, None);
            assert_eq!(met, [above(leaves("above", inside)), leaves("r0", outside)].concat(), "{kind}");
            let (inside, outside) = ("10.9.7.2 > 10.9.7.1", "10.9.1.2 > 10.9.1.1");
            let (_, met) = passes(&mut live, &client, &own, None);
            assert_eq!(met, [comes_in("r0", outside), above(comes_in("above", inside))].concat(), "{kind}");
            // forwarded into the tunnel, and out of it
            let server = theirs(&router.server, "10.9.2.2");
            router.server.ip("route add 10.9.7.0/24 via 10.9.2.1");
            router.client.ip("route replace 10.9.2.0/24 via 10.9.7.1");
            let inside = "10.9.2.2 > 10.9.7.2";
            let (_, met) = passes(&mut live, &server, &client, None);
            let tunnelled = [above(goes_on("above", inside)), leaves("r0", "10.9.1.1 > 10.9.1.2")].concat();
            assert_eq!(met, [arrives("r1", inside), tunnelled].concat(), "{kind}");
            let inside = "10.9.7.2 > 10.9.2.2";
            let (_, met) = passes(&mut live, &client, &server, None);
            let out_of_it = [above(arrives("above", inside)), goes_on("r1", inside)].concat();
            assert_eq!(met, [comes_in("r0", outside), out_of_it].concat(), "{kind}");
        });
    }
}

#[test]
fn bridges() {
    alone(|| {
        let router = Router::make();
        if !net::can_make("link add name probe type bridge") {
            return support::skips::kernel_lacks("bridges");
        }
        net::set("ipv6/conf/default/disable_ipv6", "1");
        // a bridge joins a group of its own, and would say so in the midst of this
        net::set("ipv4/igmp_link_local_mcast_reports", "0");
        for command in [
            "addr flush dev r0",
            "addr flush dev r1",
            "link add above address 02:00:00:00:09:01 type bridge",
            "link set r0 master above",
            "link set r1 master above",
            "link set above up",
            "addr add 10.9.9.1/24 dev above",
            "neigh replace 10.9.9.2 lladdr 02:00:00:00:01:02 dev above nud permanent",
        ] {
            net::ip(command);
        }
        for (space, device, own, [other, station]) in [
            (&router.client, "c0", "10.9.9.2", ["10.9.9.3", "02:00:00:00:02:02"]),
            (&router.server, "s0", "10.9.9.3", ["10.9.9.2", "02:00:00:00:01:02"]),
        ] {
            space.ip(format!("addr add {own}/24 dev {device}"));
            space.ip(format!("neigh replace {other} lladdr {station} dev {device} nud permanent"));
            space.ip(format!("neigh replace 10.9.9.1 lladdr 02:00:00:00:09:01 dev {device} nud permanent"));
        }
        let Some(mut live) = at_devices(vec![], false) else { return };
        let (client, server) = (theirs(&router.client, "10.9.9.2"), theirs(&router.server, "10.9.9.3"));
        let own = socket("10.9.9.1");
        // whom a frame is for is found out behind the port: there it may be this machine
        let way = "10.9.9.2 > 10.9.9.3";
        assert_eq!(passes(&mut live, &client, &server, None).1, [comes_in("r0", way), goes_on("r1", way)].concat());
        let way = "10.9.9.3 > 10.9.9.2";
        assert_eq!(passes(&mut live, &server, &client, None).1, [comes_in("r1", way), goes_on("r0", way)].concat());
        let way = "10.9.9.1 > 10.9.9.2";
        assert_eq!(passes(&mut live, &own, &client, None).1, [leaves("above", way), leaves("r0", way)].concat());
        let way = "10.9.9.2 > 10.9.9.1";
        assert_eq!(passes(&mut live, &client, &own, None).1, [comes_in("r0", way), comes_in("above", way)].concat());
    });
}

/// Devices that share another's: its frames with a tag, or under a MAC address of their own.
#[test]
fn devices_above_others() {
    for (kind, more, address) in [("vlan", "id 5", "02:00:00:00:01:01"), ("macvlan", "", "02:00:00:00:09:01")] {
        alone(move || {
            let router = Router::make();
            let make = format!("type {kind} {more}");
            if !net::can_make(&format!("link add name probe link r0 {}", make.trim_end())) {
                return support::skips::kernel_lacks(format_args!("devices of type {kind}"));
            }
            net::set("ipv6/conf/default/disable_ipv6", "1");
            net::ip(&format!("link add name above link r0 address {address} {}", make.trim_end()));
            net::ip("link set above up");
            net::ip("addr add 10.9.9.1/24 dev above");
            net::ip("neigh replace 10.9.9.2 lladdr 02:00:00:00:01:02 dev above nud permanent");
            let device = if kind == "vlan" { "theirs" } else { "c0" };
            if kind == "vlan" {
                router.client.ip(format!("link add name theirs link c0 {make}"));
                router.client.ip("link set theirs up");
            }
            router.client.ip(format!("addr add 10.9.9.2/24 dev {device}"));
            router.client.ip(format!("neigh replace 10.9.9.1 lladdr {address} dev {device} nud permanent"));
            let Some(mut live) = at_devices(vec![], false) else { return };
            let (own, client) = (socket("10.9.9.1"), theirs(&router.client, "10.9.9.2"));
            let way = "10.9.9.1 > 10.9.9.2";
            let met = passes(&mut live, &own, &client, None).1;
            assert_eq!(met, [leaves("above", way), leaves("r0", way)].concat(), "{kind}");
            let way = "10.9.9.2 > 10.9.9.1";
            let met = passes(&mut live, &client, &own, None).1;
            assert_eq!(met, [comes_in("r0", way), comes_in("above", way)].concat(), "{kind}");
        });
    }
}
