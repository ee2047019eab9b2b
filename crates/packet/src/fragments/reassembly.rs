//! Datagrams that arrive in pieces.

use super::DatagramKey;
use super::pending::Pending;
use crate::packet::Packet;
use crate::time::Timestamp;

/// How much waits for its missing pieces at most. What is beyond goes, the longest waiting first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblySettings {
    /// Datagrams.
    pub datagrams: usize,
    /// Bytes of all of them together.
    pub bytes: usize,
}

impl Default for ReassemblySettings {
    /// 1,024 datagrams and 4 MiB, which is what Linux allows each network namespace.
    fn default() -> Self {
        Self { datagrams: 1024, bytes: 4 << 20 }
    }
}

/// What became of fragmented datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounts {
    /// Datagrams of which every piece came.
    pub reassembled: u64,
    /// Datagrams given up because pieces did not come in time, or had no room.
    pub incomplete: u64,
    /// Datagrams given up because their pieces contradicted one another (RFC 5722: overlapping fragments).
    pub contradictory: u64,
    /// Datagrams that still wait for pieces.
    pub waiting: u64,
}

impl FragmentCounts {
    /// The sum of two.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            reassembled: self.reassembled + other.reassembled,
            incomplete: self.incomplete + other.incomplete,
            contradictory: self.contradictory + other.contradictory,
            waiting: self.waiting + other.waiting,
        }
    }
}

/// A datagram that was put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// What the payload begins with; in IPv6 possibly an extension header.
    pub protocol: u8,
    /// The payload, up to the first byte that the capture did not store.
    pub payload: Vec<u8>,
    /// How long the payload was on the wire, in bytes.
    pub payload_length: usize,
}

/// What the arrival of a fragment came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Pieces are missing.
    Waiting,
    /// The datagram is whole.
    Complete(Datagram),
    /// The piece contradicts another; the datagram is given up.
    Contradiction,
}

/// Puts arriving fragments together.
pub struct Reassembly {
    partial: Pending<Partial>,
    settings: ReassemblySettings,
    bytes: usize,
    counts: FragmentCounts,
}

/// A datagram of which pieces are missing.
#[derive(Default)]
struct Partial {
    /// The pieces in order: where each begins and ends. They do not overlap.
    pieces: Vec<(u32, u32)>,
    received: u32,
    /// The end of the last piece, when it has come.
    total: Option<u32>,
    protocol: u8,
    payload: Vec<u8>,
    /// The first byte that the capture did not store.
    cut: Option<u32>,
}

struct Contradiction;

impl Reassembly {
    /// Nothing has arrived yet.
    #[must_use]
    pub fn new(settings: ReassemblySettings) -> Self {
        Self { partial: Pending::new(), settings, bytes: 0, counts: FragmentCounts::default() }
    }

    /// What became of the datagrams so far.
    #[must_use]
    pub fn counts(&self) -> FragmentCounts {
        FragmentCounts { waiting: self.partial.len() as u64, ..self.counts }
    }

    /// Takes in a fragment that [`crate::wire::Fragment::check`] has let pass. A packet that is none waits for ever, so callers do
    /// not hand it in.
    pub fn arrive(&mut self, packet: &Packet<'_>, now: Timestamp) -> Arrival {
        let Some((key, fragment)) = DatagramKey::of(packet).zip(packet.fragment) else {
            return Arrival::Waiting;
        };
        if self.partial.get_mut(&key).is_none() {
            self.partial.insert(key, key.deadline(now), Partial::default());
        }
        let Some(partial) = self.partial.get_mut(&key) else { return Arrival::Waiting };
        let before = partial.bytes();
        let outcome = partial.add(u32::from(fragment.at), fragment.more, packet);
        self.bytes = self.bytes + partial.bytes() - before;
        match outcome {
            Ok(false) => {
                self.make_room();
                Arrival::Waiting
            }
            Ok(true) => match self.give_up(&key) {
                Some(partial) => {
                    self.counts.reassembled += 1;
                    Arrival::Complete(partial.into_datagram())
                }
                None => Arrival::Waiting,
            },
            Err(Contradiction) => {
                self.give_up(&key);
                self.counts.contradictory += 1;
                Arrival::Contradiction
            }
        }
    }

    /// Gives up datagrams whose pieces did not come in time.
    #[inline]
    pub fn expire(&mut self, now: Timestamp) {
        if self.partial.len() > 0 {
            while let Some(partial) = self.partial.take_oldest(Some(now)) {
                self.count_incomplete(&partial);
            }
        }
    }

    fn make_room(&mut self) {
        while self.partial.len() > self.settings.datagrams.max(1) || self.bytes > self.settings.bytes {
            match self.partial.take_oldest(None) {
                Some(partial) => self.count_incomplete(&partial),
                None => return,
            }
        }
    }

    fn count_incomplete(&mut self, partial: &Partial) {
        self.bytes -= partial.bytes();
        self.counts.incomplete += 1;
    }

    fn give_up(&mut self, key: &DatagramKey) -> Option<Partial> {
        let partial = self.partial.remove(key)?;
        self.bytes -= partial.bytes();
        Some(partial)
    }
}

impl Partial {
    /// The memory that the datagram takes.
    fn bytes(&self) -> usize {
        self.payload.len() + self.pieces.len() * size_of::<(u32, u32)>()
    }

    /// Adds a piece; whether the datagram is whole now.
    fn add(&mut self, at: u32, more: bool, packet: &Packet<'_>) -> Result<bool, Contradiction> {
        let end = at + u32::try_from(packet.payload_length).map_err(|_| Contradiction)?;
        self.note_total(end, more)?;
        if at == 0 {
            self.protocol = packet.protocol;
        }
        if self.note_piece(at, end)? {
            self.copy(at, end, packet.payload);
        }
        Ok(self.total == Some(self.received))
    }

    fn note_total(&mut self, end: u32, more: bool) -> Result<(), Contradiction> {
        let furthest = self.pieces.last().map_or(0, |&(_, end)| end);
        match self.total {
            Some(total) if end > total || (!more && end != total) => Err(Contradiction),
            None if !more && furthest > end => Err(Contradiction),
            None if !more => {
                self.total = Some(end);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Notes where a piece lies; whether it is a new one. The same piece twice is no contradiction.
    fn note_piece(&mut self, at: u32, end: u32) -> Result<bool, Contradiction> {
        if at == end {
            return Ok(false);
        }
        let place = self.pieces.partition_point(|&(begin, _)| begin < at);
        if self.pieces.get(place) == Some(&(at, end)) {
            return Ok(false);
        }
        let overlaps_next = self.pieces.get(place).is_some_and(|&(begin, _)| begin < end);
        let overlaps_last = place > 0 && self.pieces[place - 1].1 > at;
        if overlaps_next || overlaps_last {
            return Err(Contradiction);
        }
        self.pieces.insert(place, (at, end));
        self.received += end - at;
        Ok(true)
    }

    fn copy(&mut self, at: u32, end: u32, captured: &[u8]) {
        let begin = at as usize;
        let stop = begin + captured.len();
        if self.payload.len() < stop {
            self.payload.resize(stop, 0);
        }
        self.payload[begin..stop].copy_from_slice(captured);
        let stored = at.saturating_add(u32::try_from(captured.len()).unwrap_or(u32::MAX));
        if stored < end {
            self.cut = Some(self.cut.map_or(stored, |cut| cut.min(stored)));
        }
    }

    fn into_datagram(self) -> Datagram {
        let mut payload = self.payload;
        if let Some(cut) = self.cut {
            payload.truncate(cut as usize);
        }
        Datagram { protocol: self.protocol, payload, payload_length: self.received as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkInfo;
    use crate::packet::Transport;
    use crate::wire::Fragment;
    use openwfp_model::IpVersion;

    fn fragment(identification: u32, at: u16, more: bool, payload: &[u8]) -> Packet<'_> {
        Packet {
            header_version: IpVersion::V4,
            source: "192.0.2.1".parse().unwrap(),
            destination: "192.0.2.2".parse().unwrap(),
            protocol: 17,
            fragment: Some(Fragment { identification, at, more }),
            transport: Ok(Transport::LaterFragment),
            payload,
            payload_length: payload.len(),
            link: LinkInfo::default(),
            bytes: &[],
            begins_at: 0,
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanoseconds(seconds * 1_000_000_000)
    }

    fn complete(payload: &[u8]) -> Arrival {
        Arrival::Complete(Datagram { protocol: 17, payload: payload.to_vec(), payload_length: payload.len() })
    }

    const A: [u8; 8] = [b'a'; 8];
    const B: [u8; 8] = [b'b'; 8];

    #[test]
    fn pieces_make_a_datagram_in_any_order_and_repeated() {
        let pieces = [fragment(1, 0, true, &A), fragment(1, 8, true, &B), fragment(1, 16, false, b"cc")];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut reassembly = Reassembly::new(ReassemblySettings::default());
            for piece in [order[0], order[1], order[0], order[1]] {
                assert_eq!(reassembly.arrive(&pieces[piece], at(0)), Arrival::Waiting);
            }
            assert_eq!(reassembly.arrive(&pieces[order[2]], at(0)), complete(b"aaaaaaaabbbbbbbbcc"), "{order:?}");
            assert_eq!((reassembly.counts().waiting, reassembly.bytes), (0, 0));
        }
    }

    #[test]
    fn datagrams_do_not_mix() {
        let mut reassembly = Reassembly::new(ReassemblySettings::default());
        assert_eq!(reassembly.arrive(&fragment(1, 0, true, &A), at(0)), Arrival::Waiting);
        assert_eq!(reassembly.arrive(&fragment(2, 8, false, &B), at(0)), Arrival::Waiting);
        assert_eq!(reassembly.counts().waiting, 2);
        let other = Packet { protocol: 6, ..fragment(1, 8, false, &B) };
        assert_eq!(reassembly.arrive(&other, at(0)), Arrival::Waiting);
        assert_eq!(reassembly.arrive(&fragment(1, 8, false, &B), at(0)), complete(b"aaaaaaaabbbbbbbb"));
    }

    #[test]
    fn pieces_that_contradict_one_another_end_the_datagram() {
        let cases = [
            (fragment(1, 0, true, b"aaaaaaaaaaaaaaaa"), fragment(1, 8, true, &B), "overlap"),
            (fragment(1, 8, true, &A), fragment(1, 0, true, b"bbbbbbbbbbbbbbbb"), "overlap from before"),
            (fragment(1, 0, true, b"aaaaaaaaaaaaaaaa"), fragment(1, 0, true, &B), "another length"),
            (fragment(1, 8, false, &A), fragment(1, 8, false, b"bb"), "two ends"),
            (fragment(1, 16, true, &A), fragment(1, 8, false, b"b"), "an end before the end"),
            (fragment(1, 8, false, &A), fragment(1, 16, true, &B), "beyond the end"),
        ];
        for (first, second, what) in cases {
            let mut reassembly = Reassembly::new(ReassemblySettings::default());
            assert_eq!(reassembly.arrive(&first, at(0)), Arrival::Waiting, "{what}");
            assert_eq!(reassembly.arrive(&second, at(0)), Arrival::Contradiction, "{what}");
            assert_eq!((reassembly.counts().waiting, reassembly.bytes), (0, 0), "{what}");
            assert_eq!(reassembly.counts().contradictory, 1, "{what}");
        }
    }

    #[test]
    fn pieces_are_waited_for_thirty_seconds_in_ipv4_and_sixty_in_ipv6() {
        let mut reassembly = Reassembly::new(ReassemblySettings::default());
        reassembly.arrive(&fragment(1, 0, true, &A), at(0));
        let v6 = Packet {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
            ..fragment(1, 0, true, &A)
        };
        reassembly.arrive(&v6, at(0));
        for (seconds, waiting) in [(29, 2), (30, 1), (59, 1), (60, 0)] {
            reassembly.expire(at(seconds));
            assert_eq!(reassembly.counts().waiting, waiting, "after {seconds} s");
        }
        assert_eq!((reassembly.counts().incomplete, reassembly.bytes), (2, 0));
    }

    #[test]
    fn memory_is_bounded_by_datagrams_and_by_bytes() {
        let mut reassembly = Reassembly::new(ReassemblySettings { datagrams: 8, bytes: 1 << 20 });
        for identification in 0..100 {
            reassembly.arrive(&fragment(identification, 0, true, &A), at(0));
        }
        assert_eq!((reassembly.counts().waiting, reassembly.counts().incomplete), (8, 92));

        let mut reassembly = Reassembly::new(ReassemblySettings { datagrams: 1000, bytes: 200_000 });
        for identification in 0..100 {
            reassembly.arrive(&fragment(identification, 64_000, true, &A), at(0));
        }
        assert!(reassembly.bytes <= 200_000);
        assert_eq!(reassembly.counts().waiting, 3);
    }

    #[test]
    fn what_the_capture_cut_ends_the_payload_but_not_the_datagram() {
        let mut reassembly = Reassembly::new(ReassemblySettings::default());
        let cut = Packet { payload_length: 16, ..fragment(1, 0, true, b"aaaa") };
        reassembly.arrive(&cut, at(0));
        let outcome = reassembly.arrive(&fragment(1, 16, false, &B), at(0));
        assert_eq!(
            outcome,
            Arrival::Complete(Datagram { protocol: 17, payload: b"aaaa".to_vec(), payload_length: 24 })
        );
    }
}
