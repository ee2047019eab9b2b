//! Packets of every kind in which everything is wrong that can be, at the sockets of a group and at the devices of a network
//! namespace: what the kernel would pass passes, what it would drop is dropped, everything that was seen is counted, and nothing
//! grows. Needs root, BPF and Linux 6.6.

mod support;

use openwfp_kernel::{hooks::Hook, options::Options, totals::LayerTotals};
use openwfp_model::{Action, FieldId, Filter, Layer, LayerId, MatchType, Value};
use std::{fs, process::Command, sync::mpsc::channel, time::Duration};
use support::{
    actor,
    frames::{Frames, PORTS},
    live::{Live, address, filter, remote_port},
    maps,
    net::{self, Space, Tap, alone, at, station},
    obedient::Obedient,
    router::{LONG, SHORT, comes, device_layers},
    storm::{self, Heard},
    wire::{PORT, datagram, hides_a_packet, is_ip, seen_as},
};

#[test]
fn actor() {
    actor::act();
}

const SEED: u64 = 0x5eed_5707_2026_1128;
/// So many frames in which anything may be wrong, and so many that are cut at each of their lengths.
const FRAMES: usize = 100_000;
const CUT: usize = 120;
/// What has come is read after so many frames.
const ROUND: usize = 400;

/// A machine, whose namespace is the caller's: `r0` leads to a peer that says nothing but what it is told to.
struct Target {
    _peer: Space,
    tap: Tap,
}

impl Target {
    fn make() -> Self {
        let peer = Space::make();
        peer.run(|| net::set("ipv6/conf/default/disable_ipv6", "1"));
        net::ip("link add r0 address 02:00:00:00:01:01 type veth peer name c0 address 02:00:00:00:01:02");
        net::ip(&format!("link set c0 netns {}", peer.id));
        peer.ip("link set c0 up");
        net::ip("link set r0 up");
        net::ip("addr add 10.9.1.1/24 dev r0");
        net::ip("addr add fd09::1:1/112 dev r0 nodad");
        // what is answered to nobody would come back as an error, from this machine to itself
        net::ip("link set lo down");
        net::ip("neigh replace 10.9.1.2 lladdr 02:00:00:00:01:02 dev r0 nud permanent");
        net::ip("neigh replace fd09::1:2 lladdr 02:00:00:00:01:02 dev r0 nud permanent");
        let tap = peer.tap("c0");
        Self { _peer: peer, tap }
    }

    /// The whole storm, from the peer; `each` is shown every frame, `pause` is called after each round.
    fn shoot(&self, mut each: impl FnMut(&[u8]), mut pause: impl FnMut()) {
        let dropped = dropped_before_devices();
        let mut sent = 0;
        storm_of(|frame| {
            each(frame);
            self.tap.send(frame);
            sent += 1;
            if sent % ROUND == 0 {
                pause();
            }
        });
        pause();
        assert!(sent > FRAMES);
        let lost = dropped_before_devices() - dropped;
        if lost > 0 {
            // of this storm, or of somebody else's
            support::skips::say(format_args!(
                "{lost} packets had no room in front of the devices: this machine is too slow for the storm"
            ));
        }
    }
}

/// The storm: the same each time.
fn storm_of(mut each: impl FnMut(&[u8])) {
    let mut frames = Frames::new(SEED);
    for _ in 0..CUT {
        frames.cuts().iter().for_each(|frame| each(frame));
    }
    for _ in 0..FRAMES {
        each(&frames.any());
    }
}

/// What the queues in front of the devices had no room for (of the whole machine).
fn dropped_before_devices() -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let of_cpu = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
    text.lines().map(of_cpu).sum()
}

/// What the kernel has said that it does not say unless something is broken.
fn alarms() -> Vec<String> {
    let output = Command::new("dmesg").output().unwrap();
    assert!(output.status.success(), "the kernel's messages cannot be read");
    let words = ["WARNING:", "BUG:", "Oops", "Call Trace", "general protection", "soft lockup", "rcu_sched"];
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| words.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
}

/// Does something in a network namespace of its own.
fn apart<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let (answer, answered) = channel();
    alone(move || answer.send(act()).unwrap());
    answered.recv().unwrap()
}

fn total(all: &[LayerTotals], layer: LayerId) -> (u64, u64) {
    let found = all.iter().find(|totals| totals.layer == layer);
    found.map_or((0, 0), |totals| (totals.permitted, totals.blocked))
}

/// Permitted and blocked at a family, for IPv4 and IPv6 together.
fn family(all: &[LayerTotals], name: &str) -> (u64, u64) {
    of_both(all, name, "")
}

/// How much of what a family has blocked has met the layers for that.
fn discarded(all: &[LayerTotals], name: &str) -> u64 {
    seen(of_both(all, name, "_DISCARD"))
}

fn of_both(all: &[LayerTotals], name: &str, end: &str) -> (u64, u64) {
    let of = |version: &str| total(all, Layer::find(&format!("{name}_{version}{end}")).unwrap().id);
    let ((a, b), (c, d)) = (of("V4"), of("V6"));
    (a + c, b + d)
}

fn seen((permitted, blocked): (u64, u64)) -> u64 {
    permitted + blocked
}

fn permits(layers: &[LayerId]) -> Vec<Filter> {
    layers.iter().map(|layer| filter(*layer, Action::Permit).build().unwrap()).collect()
}

/// Filters at every layer that a packet of IP meets, each of which blocks something, and at the layers of what was dropped.
fn blocks(layers: &[LayerId]) -> Vec<Filter> {
    let mut filters = permits(layers);
    let from = |v6: bool, side: u8| address(at(1, side, v6));
    for v6 in [false, true] {
        let layer = |family: &str| Layer::find(&format!("{family}_V{}", if v6 { 6 } else { 4 })).unwrap().id;
        for (family, side) in [("INBOUND_IPPACKET", 0x15), ("ALE_AUTH_RECV_ACCEPT", 0x16)] {
            let block = filter(layer(family), Action::Block);
            let sender = from(v6, side);
            filters.push(block.when(FieldId::IP_REMOTE_ADDRESS, MatchType::Equal, sender).build().unwrap());
        }
        filters.push(remote_port(layer("INBOUND_TRANSPORT"), Action::Block, PORTS[0]));
        filters.push(remote_port(layer("DATAGRAM_DATA"), Action::Block, PORTS[1]));
        // of that layer the local port is the type: destination unreachable
        let error = Value::Uint16(if v6 { 1 } else { 3 });
        let block = filter(layer("INBOUND_ICMP_ERROR"), Action::Block);
        filters.push(block.when(FieldId::IP_LOCAL_PORT, MatchType::Equal, error).build().unwrap());
    }
    let mac = Value::ByteArray6(station(1, 0x14).to_be_bytes()[2..].try_into().unwrap());
    let block = filter(LayerId::INBOUND_MAC_FRAME_ETHERNET, Action::Block);
    filters.push(block.when(FieldId::MAC_REMOTE_ADDRESS, MatchType::Equal, mac).build().unwrap());
    filters.retain(|filter| layers.contains(&filter.layer));
    filters
}

/// Whether as much was received, and the same of what no kernel writes times into (an option of IPv4); of the raw socket for UDP
/// nothing is said.
fn all_the_same(one: &[Heard], other: &[Heard]) -> bool {
    let (icmp, other_icmp) = (one[1], other[1]);
    one[0] == other[0] && icmp.count == other_icmp.count && one[2] == other[2]
}

/// What the sockets of a process of the group have received of the storm, and the policy under which it was.
fn at_the_sockets(filters: Vec<Filter>, then: impl FnOnce(&Target, &mut Live, &mut Obedient)) -> Option<Vec<Heard>> {
    let target = Target::make();
    let mut live = Live::with(filters, Options::default())?;
    let mut actor = Obedient::start(&live);
    assert_eq!(actor.tell(&mut live, &format!("storm-open {PORT}")), "ok");
    let (before, mut heard) = (maps::memory(&mut live), vec![]);
    target.shoot(
        |_| {},
        || {
            heard = storm::heard(&actor.tell(&mut live, "storm-tell"));
            assert_eq!(actor.answer(&mut live), "ok");
        },
    );
    assert_eq!(maps::memory(&mut live), before);
    then(&target, &mut live, &mut actor);
    Some(heard)
}

fn group_layers() -> Vec<LayerId> {
    let of_group = |layer: &LayerId| !Hook::of_layer(*layer).is_empty() && !layer.name().contains("REDIRECT");
    Layer::all().iter().map(|layer| layer.id).filter(of_group).collect()
}

#[test]
fn a_storm_at_the_sockets_of_a_group() {
    let before = alarms();
    let no_packet_is_seen = |_: &Target, live: &mut Live, _: &mut Obedient| {
        let hooks = live.enforcement.hooks();
        assert!(!hooks.contains(&Hook::Ingress) && !hooks.contains(&Hook::Egress), "without a policy: {hooks:?}");
    };
    let Some(free) = apart(move || at_the_sockets(vec![], no_packet_is_seen)) else { return };
    support::skips::say(format_args!("without a policy {free:?}"));
    assert!(free.iter().all(|heard| heard.count > 500), "{free:?}");

    let (permitted, unreadable, packets) = apart(|| {
        let (mut unreadable, mut packets) = (0, 0);
        let heard = at_the_sockets(permits(&group_layers()), |_, live, _| {
            let failures = live.enforcement.failures();
            assert_eq!(failures.decisions_without_memory, 0);
            assert_eq!(failures.sockets_without_memory, 0);
            unreadable = failures.packets_unreadable;
            let totals = live.enforcement.totals().unwrap();
            let blocked = totals.iter().map(|layer| layer.blocked).sum::<u64>();
            assert_eq!(blocked, 0, "{totals:?}");
            packets = seen(family(&totals, "INBOUND_IPPACKET"));
            assert_eq!(packets, seen(family(&totals, "INBOUND_TRANSPORT")));
            // the senders are many more than there is room for
            let flows = live.enforcement.flows_remembered();
            assert!((8_000..=16_384).contains(&flows), "{flows}");
        });
        (heard.unwrap(), unreadable, packets)
    });
    support::skips::say(format_args!(
        "under permits {permitted:?}, {unreadable} unreadable, {packets} at INBOUND_IPPACKET"
    ));
    // all that reaches whole headers of UDP and ICMP does, and of what a raw socket is shown all but what could not be read
    assert!(all_the_same(&permitted, &free), "{permitted:?} {free:?}");
    assert!(unreadable > 0);
    assert_eq!(free[3].count - permitted[3].count, unreadable);

    apart(move || {
        let heard = at_the_sockets(blocks(&group_layers()), |target, live, actor| {
            assert_eq!(live.enforcement.failures().packets_unreadable, unreadable);
            let totals = live.enforcement.totals().unwrap();
            for name in ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "DATAGRAM_DATA", "ALE_AUTH_RECV_ACCEPT"] {
                let (_, blocked) = family(&totals, name);
                assert!(blocked > 10, "{name} {blocked}");
                // and what the kernel drops by itself
                assert!(discarded(&totals, name) >= blocked, "{name}");
            }
            assert_eq!(seen(family(&totals, "INBOUND_IPPACKET")), packets);
            assert_eq!(seen(family(&totals, "INBOUND_TRANSPORT")), family(&totals, "INBOUND_IPPACKET").0);
            // what is good goes on, and what is blocked stays blocked
            let mut after = |from: [u8; 4], port| {
                let first = storm::heard(&actor.tell(live, "storm-tell"))[0].count;
                assert_eq!(actor.answer(live), "ok");
                target.tap.send(&datagram(from, port));
                std::thread::sleep(SHORT);
                let now = storm::heard(&actor.tell(live, "storm-tell"))[0].count;
                assert_eq!(actor.answer(live), "ok");
                now - first
            };
            assert_eq!(after([10, 9, 1, 0x20], 4000), 1);
            assert_eq!(after([10, 9, 1, 0x15], 4000), 0, "INBOUND_IPPACKET");
            assert_eq!(after([10, 9, 1, 0x16], 4001), 0, "ALE_AUTH_RECV_ACCEPT");
            assert_eq!(after([10, 9, 1, 0x20], PORTS[0]), 0, "INBOUND_TRANSPORT");
            assert_eq!(after([10, 9, 1, 0x20], PORTS[1]), 0, "DATAGRAM_DATA");
        });
        let heard = heard.unwrap();
        support::skips::say(format_args!("under blocks {heard:?}"));
        for (now, then) in heard.iter().zip(&permitted) {
            assert!(now.count < then.count, "{heard:?}");
        }
    });
    assert_eq!(alarms(), before);
}

/// What a process of the group sends by hand arrives at the peer, whatever is wrong with it, unless it cannot be read.
#[test]
fn a_storm_from_the_sockets_of_a_group() {
    const COUNT: usize = 30_000;
    fn sends(filters: Vec<Filter>) -> Option<(u64, u64, Heard, u64, Vec<LayerTotals>)> {
        let target = Target::make();
        let mut live = Live::with(filters, Options::default())?;
        let mut actor = Obedient::start(&live);
        storm::with_room(&target.tap).unwrap();
        let _ = target.tap.frames();
        let mut arrived = Heard::default();
        let (mut sent, mut refused) = (0, 0);
        for round in 0..30u64 {
            let answer = actor.tell(&mut live, &format!("storm-send {} {}", SEED ^ round << 8, COUNT / 30));
            assert_eq!(actor.answer(&mut live), "ok");
            let numbers: Vec<u64> = answer.split(' ').skip(1).map(|number| number.parse().unwrap()).collect();
            (sent, refused) = (sent + numbers[0], refused + numbers[1]);
            // what is behind the headers of IP is as it was sent; others talk of neighbours and groups
            let by_hand = |frame: &&Vec<u8>| frame[..6] == station(1, 2).to_be_bytes()[2..];
            target.tap.frames().iter().filter(by_hand).for_each(|frame| arrived.hear(&frame[14..]));
        }
        let unreadable = live.enforcement.failures().packets_unreadable;
        let totals = live.enforcement.totals().unwrap();
        Some((sent, refused, arrived, unreadable, totals))
    }
    let before = alarms();
    let Some((all, none, free, ..)) = apart(|| sends(vec![])) else { return };
    assert_eq!(none, 0);
    assert!(free.count > 10_000, "{free:?}");
    let (sent, refused, arrived, unreadable, totals) = apart(|| sends(permits(&group_layers())).unwrap());
    support::skips::say(format_args!(
        "{all} sent, {} arrived; under permits {sent} and {}, {refused} refused, {unreadable} unreadable",
        free.count, arrived.count
    ));
    assert_eq!(refused, unreadable);
    assert_eq!(sent + refused, all);
    assert_eq!(arrived.count + refused, free.count);
    assert_eq!(seen(family(&totals, "OUTBOUND_IPPACKET")), arrived.count);
    assert_eq!(alarms(), before);
}

/// What the sockets of the namespace have received of the storm, and what the programs at its devices have counted.
fn at_the_devices(filters: Option<Vec<Filter>>, then: impl FnOnce(&Target, &mut Live)) -> Option<(Vec<Heard>, Shot)> {
    let target = Target::make();
    let live = filters.map(|filters| Live::with(filters, Options { devices: true, ..Options::default() }));
    let mut live = match live {
        None => None,
        Some(live) => Some(live?),
    };
    storm::open(PORT).unwrap();
    let mut heard = vec![];
    let mut shot = Shot::default();
    let before = live.as_mut().map(maps::memory);
    target.shoot(|frame| shot.add(frame), || heard = storm::hear());
    if let Some(live) = &mut live {
        assert_eq!(Some(maps::memory(live)), before);
        then(&target, live);
    }
    Some((heard, shot))
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Shot {
    /// The frames that come to the programs.
    frames: u64,
    /// Those of IP among them.
    packets: u64,
    /// Those in which a packet of IP hides.
    hidden: u64,
}

impl Shot {
    fn add(&mut self, frame: &[u8]) {
        self.frames += u64::from(seen_as(frame).is_some());
        self.packets += u64::from(is_ip(frame));
        self.hidden += u64::from(hides_a_packet(frame));
    }
}

#[test]
fn a_storm_at_the_devices_of_a_namespace() {
    let before = alarms();
    let (free, shot) = apart(|| at_the_devices(None, |_, _| {})).unwrap();
    support::skips::say(format_args!("without a policy {free:?}, {shot:?}"));
    assert!(free.iter().all(|heard| heard.count > 500), "{free:?}");
    assert!(shot.hidden > 100, "{shot:?}");

    // frames and packets alone: what is no frame of IP meets no layer of packets, what is one meets it or cannot be read
    let mut layers = vec![LayerId::INBOUND_MAC_FRAME_ETHERNET];
    layers.extend([LayerId::INBOUND_IPPACKET_V4, LayerId::INBOUND_IPPACKET_V6]);
    let Some((heard, _)) = apart(move || {
        at_the_devices(Some(permits(&layers)), move |_, live| {
            let totals = live.enforcement.totals().unwrap();
            let unreadable = live.enforcement.failures().packets_unreadable;
            assert_eq!(total(&totals, LayerId::INBOUND_MAC_FRAME_ETHERNET), (shot.frames, 0));
            let packets = seen(family(&totals, "INBOUND_IPPACKET"));
            support::skips::say(format_args!("{packets} at INBOUND_IPPACKET, {unreadable} unreadable"));
            assert_eq!(packets + unreadable, shot.packets + shot.hidden);
        })
    }) else {
        return;
    };
    // what hides is not let through; nothing else that a socket would get is held back
    let hidden: Vec<u64> = free.iter().zip(&heard).map(|(free, heard)| free.count - heard.count).collect();
    support::skips::say(format_args!("{heard:?}, hidden {hidden:?}"));
    assert!(hidden.iter().sum::<u64>() <= shot.hidden, "{hidden:?}");

    let all = device_layers();
    let (permitted, _) = apart(move || {
        at_the_devices(Some(permits(&all)), |_, live| {
            let totals = live.enforcement.totals().unwrap();
            assert_eq!(totals.iter().map(|layer| layer.blocked).sum::<u64>(), 0, "{totals:?}");
            assert_eq!(live.enforcement.failures().decisions_without_memory, 0);
        })
    })
    .unwrap();
    // a raw socket would be shown datagrams without whole ports too
    // (and a first fragment that is cut, and dropped, spoils no datagram that it overlaps)
    assert_eq!((permitted[0], permitted[2]), (heard[0], heard[2]));
    assert!(permitted[1].count.abs_diff(heard[1].count) < 8, "{permitted:?} {heard:?}");
    assert!(permitted[3].count < heard[3].count);

    let all = device_layers();
    let (blocked, _) = apart(move || {
        at_the_devices(Some(blocks(&all)), move |target, live| {
            let totals = live.enforcement.totals().unwrap();
            let (frames, lost) = total(&totals, LayerId::INBOUND_MAC_FRAME_ETHERNET);
            assert_eq!(frames + lost, shot.frames);
            assert!(lost > 100, "{lost}");
            for name in ["INBOUND_IPPACKET", "INBOUND_TRANSPORT", "INBOUND_ICMP_ERROR"] {
                let (_, blocked) = family(&totals, name);
                assert!(blocked > 10, "{name} {blocked}");
                // and what the kernel drops by itself
                assert!(discarded(&totals, name) >= blocked, "{name}");
            }
            let after = |from: [u8; 4], port, wait: Duration| {
                let socket = std::net::UdpSocket::bind(("10.9.1.1", 4712)).unwrap();
                let mut frame = datagram(from, port);
                frame[36..38].copy_from_slice(&4712u16.to_be_bytes());
                target.tap.send(&frame);
                comes(&socket, wait)
            };
            assert!(after([10, 9, 1, 0x20], 4000, LONG));
            assert!(!after([10, 9, 1, 0x14], 4000, SHORT), "INBOUND_MAC_FRAME_ETHERNET");
            assert!(!after([10, 9, 1, 0x15], 4000, SHORT), "INBOUND_IPPACKET");
            assert!(!after([10, 9, 1, 0x20], PORTS[0], SHORT), "INBOUND_TRANSPORT");
        })
    })
    .unwrap();
    assert!(blocked.iter().zip(&permitted).all(|(now, then)| now.count < then.count), "{blocked:?}");
    assert_eq!(alarms(), before);
}

/// Frames that this machine sends by hand, whatever is wrong with them.
#[test]
fn a_storm_from_the_devices_of_a_namespace() {
    fn sends(filters: Option<Vec<Filter>>) -> Option<(u64, u64, u64, (u64, u64))> {
        let target = Target::make();
        // nothing but the storm: no talk of neighbours and groups
        net::set("ipv6/conf/r0/disable_ipv6", "1");
        let own = Tap::new("r0");
        std::thread::sleep(SHORT);
        let live = filters.map(|filters| Live::with(filters, Options { devices: true, ..Options::default() }));
        let live = match live {
            None => None,
            Some(live) => Some(live?),
        };
        storm::with_room(&target.tap).unwrap();
        let _ = target.tap.frames();
        let (mut sent, mut vanished, mut arrived) = (0, 0, 0);
        storm_of(|frame| {
            if own.sends(frame) {
                sent += 1;
                vanished += u64::from(seen_as(frame).is_none());
            }
            if sent % ROUND as u64 == 0 {
                arrived += target.tap.frames().len() as u64;
            }
        });
        arrived += target.tap.frames().len() as u64;
        let (mut unreadable, mut frames) = (0, (0, 0));
        if let Some(live) = &live {
            unreadable = live.enforcement.failures().packets_unreadable;
            let totals = live.enforcement.totals().unwrap();
            frames = total(&totals, LayerId::OUTBOUND_MAC_FRAME_ETHERNET);
        }
        assert_eq!(arrived + vanished, sent, "the peer's kernel drops frames whose tags are cut");
        Some((sent, arrived, unreadable, frames))
    }
    let before = alarms();
    let (all, free, ..) = apart(|| sends(None)).unwrap();
    let layers = device_layers();
    let Some((sent, arrived, unreadable, frames)) = apart(move || sends(Some(permits(&layers)))) else { return };
    support::skips::say(format_args!(
        "{all} sent, {free} arrive; under permits {sent} and {arrived}; {unreadable} unreadable, {frames:?}"
    ));
    assert!(unreadable > 1000, "{unreadable}");
    assert_eq!(frames, (sent, 0));
    assert_eq!(sent + unreadable, all);
    assert_eq!(alarms(), before);
}
