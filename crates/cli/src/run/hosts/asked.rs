//! Packets as hosts are asked about them.

use openwfp_callout::ActionSoFar;
use openwfp_channel::{MOST_INJECTORS, Request, RequestFlags, VALUES};
use openwfp_kernel::divert::{Asked, Diverted};
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    time::{SystemTime, UNIX_EPOCH},
};

/// How many bytes the header of a frame has.
const FRAME_HEADER: usize = 14;

/// Where the headers of a packet end: where that of transport begins, and what it carries. Of a frame, where its own ends.
pub(super) fn places(packet: &Diverted<'_>) -> (usize, usize) {
    let length = packet.bytes().len();
    let headers = packet.headers();
    let payload = headers.and_then(|headers| headers.payload(packet.bytes()));
    let transport = match headers {
        _ if packet.has_frame() => FRAME_HEADER,
        Some(headers) => headers.transport,
        None => length,
    };
    let transport = transport.min(length);
    (transport, payload.unwrap_or(transport).clamp(transport, length))
}

/// The question about a packet; the packet itself follows it.
pub(super) fn request(
    packet: &Diverted<'_>,
    asked: &Asked,
    number: u64,
    injectors: Vec<u32>,
    compartment: u64,
) -> Request {
    let (record, identity) = (packet.record(), packet.identity());
    let so_far = ActionSoFar::from(&asked.so_far);
    let known = identity.process.started != 0;
    let bits = [
        (packet.is_inbound(), RequestFlags::INBOUND),
        (packet.has_frame(), RequestFlags::FRAME),
        (known, RequestFlags::PROCESS),
        (!asked.so_far.is_hard(), RequestFlags::RIGHT),
        (so_far == ActionSoFar::Permit, RequestFlags::PERMITTED),
        (so_far == ActionSoFar::Block, RequestFlags::BLOCKED),
    ];
    let flags = bits.into_iter().filter(|(is, _)| *is).fold(0, |all, (_, bit)| all | bit);
    let (source_interface, destination_interface) =
        if packet.is_inbound() { (record.interface, 0) } else { (record.arrival, record.interface) };
    let (transport, payload) = places(packet);
    let mut values = [0; VALUES];
    for (word, value) in values.iter_mut().enumerate() {
        *value = packet.values().get(word);
    }
    Request {
        number,
        filter: asked.filter,
        time: now(),
        flow: record.flow,
        endpoint: record.socket,
        compartment,
        flags: RequestFlags(flags),
        layer: u32::from(record.layer),
        source_interface,
        destination_interface,
        transport: transport as u32,
        payload: payload as u32,
        process: if known { identity.process.tgid } else { 0 },
        user: if known { identity.user } else { 0 },
        group: if known { identity.group } else { 0 },
        age: if known { since_boot().saturating_sub(identity.process.started) } else { 0 },
        name: if known { identity.comm } else { [0; 16] },
        injectors,
        values,
    }
}

/// Nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn since_boot() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The inode number of this process's network namespace; 0 where it cannot be read.
pub(super) fn own_compartment() -> u64 {
    fs::metadata("/proc/self/ns/net").map_or(0, |found| found.ino())
}

/// Who has injected packets on their way. The programs carry one number with a packet: that of its history here.
#[derive(Default)]
pub(super) struct Histories {
    all: Vec<Vec<u32>>,
    numbers: HashMap<Vec<u32>, u32>,
}

/// So many histories are told apart.
const MOST_HISTORIES: usize = 4096;

impl Histories {
    /// The callouts, from the first to the last.
    pub fn of(&self, number: u32) -> &[u32] {
        let at = (number as usize).checked_sub(1);
        at.and_then(|at| self.all.get(at)).map_or(&[], Vec::as_slice)
    }

    /// The history with one more injection; none where it was injected too often, or there are too many histories.
    pub fn with(&mut self, number: u32, callout: u32) -> Option<u32> {
        let mut history = self.of(number).to_vec();
        if history.len() >= MOST_INJECTORS {
            return None;
        }
        history.push(callout);
        if let Some(number) = self.numbers.get(&history) {
            return Some(*number);
        }
        if self.all.len() >= MOST_HISTORIES {
            return None;
        }
        self.all.push(history.clone());
        let number = self.all.len() as u32;
        self.numbers.insert(history, number);
        Some(number)
    }

    /// The same for a host of one callout: that is 1, and others have other numbers.
    pub fn for_host(&self, number: u32, callout: u32) -> Vec<u32> {
        self.of(number).iter().map(|injector| if *injector == callout { 1 } else { injector + 1 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_history_has_one_number_and_they_end() {
        let mut histories = Histories::default();
        let first = histories.with(0, 1).unwrap();
        let second = histories.with(first, 2).unwrap();
        assert_eq!(histories.with(0, 1), Some(first));
        assert_eq!(histories.of(second), [1, 2]);
        assert!(histories.of(0).is_empty() && histories.of(99).is_empty());
        assert_eq!(histories.for_host(second, 1), [1, 3]);
        assert_eq!(histories.for_host(second, 2), [2, 1]);
        let mut last = 0;
        for _ in 0..MOST_INJECTORS {
            last = histories.with(last, 1).unwrap();
        }
        assert_eq!(histories.with(last, 1), None, "it goes round in circles");
    }
}
