//! What is more than there is room for: nothing grows, and what gives way is what `docs/kernel.md` says. Needs root, BPF and Linux 6.6.

mod support;

use openwfp_kernel::{events::EndOfFlow, options::Options};
use openwfp_model::{Action, LayerId};
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Instant,
};
use support::{
    actor,
    live::{Live, filter, remote_port},
    maps,
    net::{Space, alone, connect},
    obedient::Obedient,
    router::{LONG, comes, device_layers},
    wire::{DESTINATION, PORT, datagram, datagram_v6, repair_checksum},
};

#[test]
fn actor() {
    actor::act();
}

/// The table of flows, and the flows whose ends are known in user space.
const FLOWS: usize = 16_384;
const KNOWN: usize = 49_152;

/// How much a layer has permitted.
fn permitted(live: &Live, layer: LayerId) -> u64 {
    let totals = live.enforcement.totals().unwrap();
    totals.iter().find(|totals| totals.layer == layer).map_or(0, |totals| totals.permitted)
}

/// The endpoint that `send-to-many` sends to at a place.
fn endpoint(place: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(actor::MANY + place), 9)
}

#[test]
fn a_hundred_thousand_flows_take_the_memory_that_was_there() {
    const COUNT: u32 = 100_000;
    const CONNECT: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
    alone(|| {
        let established = LayerId::ALE_FLOW_ESTABLISHED_V4;
        let Some(mut live) = Live::new(vec![remote_port(CONNECT, Action::Block, 7)], &[established]) else { return };
        let mut actor = Obedient::start(&live);
        let before = maps::memory(&mut live);
        let started = Instant::now();
        assert_eq!(actor.tell(&mut live, &format!("send-to-many {COUNT}")), "ok");
        assert_eq!(permitted(&live, CONNECT), u64::from(COUNT));
        assert_eq!(maps::memory(&mut live), before);
        let remembered = live.enforcement.flows_remembered();
        assert!((FLOWS / 2..=FLOWS).contains(&remembered), "{remembered}");
        // the newest is known, and the oldest has made room: it is asked for again
        assert_eq!(actor.tell(&mut live, &format!("send {}", endpoint(COUNT - 1))), "ok");
        assert_eq!(permitted(&live, CONNECT), u64::from(COUNT));
        assert_eq!(actor.tell(&mut live, &format!("send {}", endpoint(0))), "ok");
        assert_eq!(permitted(&live, CONNECT), u64::from(COUNT) + 1);
        assert_eq!(actor.tell(&mut live, "close"), "ok");
        live.drain();
        // what is known of them in user space is looked through every five seconds
        let looks = 1 + started.elapsed().as_secs() as usize / 5;
        let mut ends: BTreeMap<u64, Vec<EndOfFlow>> = BTreeMap::new();
        live.ended().into_iter().for_each(|(flow, cause)| ends.entry(flow).or_default().push(cause));
        assert!(ends.values().all(|causes| causes.len() == 1), "each ends once");
        assert!((remembered..=KNOWN * looks + 1).contains(&ends.len()), "{} after {looks}", ends.len());
        support::skips::say(format_args!(
            "{} bytes of maps; {remembered} flows remembered, {} ends told, {:?}",
            before.values().sum::<u64>(),
            ends.len(),
            started.elapsed()
        ));
    });
}

/// A datagram's first part, after which nothing comes.
fn begun(number: u32) -> Vec<u8> {
    let mut frame = datagram([10, 9, 1, 2], 4000);
    let [_, _, high, low] = number.to_be_bytes();
    // identification; more fragments
    (frame[18], frame[19], frame[20]) = (high, low, 0x20);
    // of eight bytes behind the header of UDP
    frame.truncate(14 + 20 + 8);
    frame.extend(*b"eight...");
    (frame[16], frame[17]) = (0, 36);
    repair_checksum(&mut frame);
    frame
}

/// Headers of which each says that another follows, up to the end of the packet.
fn without_end(headers: usize) -> Vec<u8> {
    let mut frame = datagram_v6(headers, 4000);
    let last = 14 + 40 + 8 * (headers - 1);
    frame[last] = DESTINATION;
    frame.truncate(last + 8);
    let length = (8 * headers as u16).to_be_bytes();
    (frame[18], frame[19]) = (length[0], length[1]);
    frame
}

#[test]
fn what_never_ends_takes_the_memory_that_was_there() {
    const FRAGMENTS: u32 = 50_000;
    const CHAINS: usize = 10_000;
    alone(|| {
        let peer = Space::make();
        connect("r0", "c0", &peer, 1);
        let tap = peer.tap("c0");
        let socket = UdpSocket::bind(("10.9.1.1", PORT)).unwrap();
        let filters = device_layers().into_iter().map(|layer| filter(layer, Action::Permit).build().unwrap());
        let options = Options { devices: true, ..Options::default() };
        let Some(mut live) = Live::with(filters.collect(), options) else { return };
        let before = maps::memory(&mut live);
        for number in 0..FRAGMENTS {
            tap.send(&begun(number));
        }
        assert_eq!(live.enforcement.failures().packets_unreadable, 0);
        // each is asked about as it comes, and kept by the kernel alone, which has its own limit
        let asked = permitted(&live, LayerId::INBOUND_IPPACKET_V4);
        assert!((u64::from(FRAGMENTS) * 9 / 10..=FRAGMENTS.into()).contains(&asked), "{asked}");
        let limit: u64 = fs::read_to_string("/proc/sys/net/ipv4/ipfrag_high_thresh").unwrap().trim().parse().unwrap();
        let kept = fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
        let kept = kept.lines().find_map(|line| line.strip_prefix("FRAG: ")).unwrap();
        let kept: u64 = kept.split(' ').next_back().unwrap().parse().unwrap();
        assert!(kept > 0 && kept <= limit + (64 << 10), "{kept} of {limit}");
        // more than sixteen headers, and any number without an end: dropped, and counted
        for number in 0..CHAINS {
            tap.send(&datagram_v6(17 + number % 100, 4000));
            tap.send(&without_end(1 + number % 150));
        }
        let unreadable = live.enforcement.failures().packets_unreadable;
        assert!((CHAINS as u64 * 18 / 10..=CHAINS as u64 * 2).contains(&unreadable), "{unreadable}");
        assert_eq!(live.enforcement.failures().decisions_without_memory, 0);
        assert_eq!(maps::memory(&mut live), before);
        // what is in order passes as before
        tap.send(&datagram([10, 9, 1, 2], 4000));
        assert!(comes(&socket, LONG));
        support::skips::say(format_args!(
            "{asked} fragments asked about, {kept} bytes of them kept by the kernel, {unreadable} chains unreadable, {} bytes of maps",
            before.values().sum::<u64>()
        ));
    });
}
