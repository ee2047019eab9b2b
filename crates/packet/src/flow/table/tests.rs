//! The table against the documented times, its bound, and what must be let go of.

use super::super::Selector;
use super::*;
use crate::packet::TcpHeader;
use crate::stream::Segment;
use crate::wire::TcpFlags;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanoseconds(seconds * SECOND)
}

fn key(port: u16) -> FlowKey {
    FlowKey::from(&FlowTuple {
        local: "192.0.2.1".parse().unwrap(),
        remote: "198.51.100.1".parse().unwrap(),
        protocol: 17,
        selector: Selector::Ports { local: port, remote: 53 },
    })
}

fn table(capacity: u32) -> FlowTable {
    FlowTable::new(FlowSettings { capacity, ..FlowSettings::default() })
}

fn new(port: u16, lifetime: Lifetime) -> NewFlow {
    NewFlow { key: key(port), opened: Direction::Outbound, tcp: None, lifetime, loopback: false }
}

fn open(table: &mut FlowTable, port: u16, lifetime: Lifetime, seconds: u64) -> Slot {
    let slot = table.open(new(port, lifetime), at(seconds), &mut |_| ());
    table.establish(slot, at(seconds), &mut |_| ());
    slot
}

fn deleted(table: &mut FlowTable, seconds: u64) -> Vec<(u64, DeleteReason)> {
    let mut events = Vec::new();
    while let Some(slot) = table.expired(at(seconds)) {
        table.delete(slot, DeleteReason::Idle, at(seconds), &mut |event| match event.change {
            FlowChange::Deleted(reason) => events.push((event.flow.get(), reason)),
            FlowChange::Established => panic!("nothing is established by the passing of time"),
        });
    }
    events
}

#[test]
fn ids_run_from_one() {
    let mut table = table(10);
    let first = open(&mut table, 1, Lifetime::Idle, 0);
    let second = open(&mut table, 2, Lifetime::Idle, 0);
    assert_eq!((table.flow(first).id().get(), table.flow(second).id().get()), (1, 2));
    assert_eq!(table.find(&key(2)), Some(second));
    assert_eq!(table.find(&key(3)), None);
    assert_eq!((table.len(), table.opened()), (2, 2));
}

#[test]
fn idle_flows_are_deleted_after_the_documented_times() {
    let mut table = table(10);
    let idle = open(&mut table, 1, Lifetime::Idle, 0);
    open(&mut table, 2, Lifetime::Group, 0);
    open(&mut table, 3, Lifetime::Connection, 0);
    assert_eq!(deleted(&mut table, 3), []);
    assert_eq!(deleted(&mut table, 4), [(2, DeleteReason::Idle)]);
    table.touch(idle, at(30));
    assert_eq!(deleted(&mut table, 89), []);
    assert_eq!(deleted(&mut table, 90), [(1, DeleteReason::Idle)]);
    assert_eq!(deleted(&mut table, 1_000_000), [], "a connection lives as long as its socket");
    assert_eq!(table.len(), 1);
}

#[test]
fn a_full_table_gives_up_what_can_best_be_missed() {
    let mut table = table(4);
    let ended = open(&mut table, 1, Lifetime::Connection, 5);
    open(&mut table, 2, Lifetime::Opening, 3);
    open(&mut table, 3, Lifetime::Connection, 1);
    open(&mut table, 4, Lifetime::Idle, 2);
    table.end(ended, DeleteReason::Closed, at(6), &mut |_| ());
    for (port, given_up) in [(5, 1), (6, 2), (7, 3), (8, 4), (9, 5)] {
        open(&mut table, port, Lifetime::Idle, 7);
        assert_eq!(table.find(&key(given_up)), None, "flow {given_up} goes when flow {port} comes");
        assert_eq!(table.len(), 4);
    }
    assert_eq!(table.evicted(), 5);
}

#[test]
fn a_flood_of_syns_takes_nothing_from_connections_that_stand() {
    let mut table = table(100);
    open(&mut table, 1, Lifetime::Connection, 0);
    for port in 2..=10_000 {
        let syn = TcpHeader { source: port, destination: 80, flags: TcpFlags::SYN, ..TcpHeader::default() };
        let tcp = Some(TcpState::opened_by(&syn));
        let flow = NewFlow { opened: Direction::Inbound, tcp, ..new(port, Lifetime::Opening) };
        table.open(flow, at(1), &mut |_| ());
    }
    assert!(table.find(&key(1)).is_some());
    assert_eq!(table.len(), 100);
}

#[test]
fn what_was_never_established_is_not_told_of_as_deleted() {
    let mut table = table(10);
    table.open(new(1, Lifetime::Idle), at(0), &mut |_| ());
    let blocked = open(&mut table, 2, Lifetime::Idle, 0);
    table.refuse(blocked, Refusal::Establishment);
    assert_eq!(deleted(&mut table, 60), []);
    assert!(table.is_empty());
}

#[test]
fn slots_are_used_again() {
    let mut table = table(10);
    for round in 0..1000 {
        let slot = open(&mut table, round, Lifetime::Idle, 0);
        table.delete(slot, DeleteReason::Replaced, at(0), &mut |_| ());
    }
    assert_eq!(table.flows.len(), 1);
    assert!(table.is_empty());
}

#[test]
fn data_that_wait_are_let_go_with_their_flow() {
    let mut table = table(10);
    let mut joined = Vec::new();
    let slots = [1, 2].map(|port| open(&mut table, port, Lifetime::Connection, 0));
    for slot in slots {
        table.with_streams(slot, |streams, counts, others| {
            for sequence in [1, 11] {
                let segment = Segment { sequence, data: b"abcd", length: 4 };
                streams.halves[0].reassembler.arrive(segment, 1000 - others, counts, &mut joined);
            }
        });
    }
    let most = table.streams().most_waiting;
    assert_eq!(table.waiting as u64, most);
    table.end(slots[0], DeleteReason::Reset, at(1), &mut |_| ());
    table.delete(slots[1], DeleteReason::Replaced, at(1), &mut |_| ());
    assert_eq!(table.waiting, 0);
    assert_eq!((table.streams().undelivered, table.streams().most_waiting), (8, most));
}
