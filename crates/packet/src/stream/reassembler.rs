//! One direction of a TCP connection, put in order.

use super::StreamCounts;

/// How far a sequence number can be off and still be about the same stream (RFC 7323: no window is larger).
const WINDOW: u32 = 1 << 30;

/// So many pieces wait at most in one direction, however short they are.
const MAX_PIECES: usize = 256;

/// The data of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The sequence number of the first byte.
    pub sequence: u32,
    /// The bytes, as far as they were captured.
    pub data: &'a [u8],
    /// How many there were on the wire; not less than the length of `data`.
    pub length: u32,
}

/// What the arrival of a segment came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// The stream goes on with these bytes.
    Data {
        /// The bytes, in order. Those that the capture did not store, and those that it missed, are left out.
        data: &'a [u8],
        /// The sequence number of the first byte.
        from: u32,
        /// The sequence number after the last byte.
        to: u32,
    },
    /// There is a hole before the data; they wait.
    Waiting,
    /// All of it has been seen before, or there is none.
    Nothing,
}

/// Puts the segments of one direction in order.
#[derive(Clone, Debug, Default)]
pub struct Reassembler {
    /// The next byte of the stream; none before the first segment.
    next: Option<u32>,
    /// What waits beyond a hole: in order, without overlaps, none of it at `next`.
    pieces: Vec<Piece>,
    waiting: usize,
}

#[derive(Clone, Debug)]
struct Piece {
    sequence: u32,
    data: Vec<u8>,
    length: u32,
}

impl Piece {
    fn memory(&self) -> usize {
        self.data.len() + size_of::<Self>()
    }

    fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.length)
    }
}

impl Reassembler {
    /// Begins the stream: `sequence` is that of its first byte, the one after the SYN.
    pub fn begin(&mut self, sequence: u32) {
        self.next.get_or_insert(sequence);
    }

    /// The memory that waiting data take, in bytes.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many bytes of data wait, as they were on the wire.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.length)).sum()
    }

    /// Takes in a segment. At most `room` bytes may wait here; `joined` is working memory for data that come from several segments.
    pub fn arrive<'a>(
        &mut self,
        segment: Segment<'a>,
        room: usize,
        counts: &mut StreamCounts,
        joined: &'a mut Vec<u8>,
    ) -> Arrival<'a> {
        if segment.length == 0 {
            return Arrival::Nothing;
        }
        let from = self.plausible_next(segment.sequence, counts);
        let ahead = segment.sequence.wrapping_sub(from);
        let segment = match (ahead as i32) < 0 {
            false => segment,
            true => match segment.after(ahead.wrapping_neg()) {
                Some(rest) => rest,
                None => return Arrival::Nothing,
            },
        };
        if self.pieces.is_empty() && segment.sequence == from {
            let to = from.wrapping_add(segment.length);
            self.next = Some(to);
            return Arrival::Data { data: segment.data, from, to };
        }
        self.insert(from, &segment);
        joined.clear();
        let mut next = self.take_ready(from, joined);
        while self.waiting > room || self.pieces.len() > MAX_PIECES {
            next = self.pass_hole(next, counts, joined);
        }
        self.next = Some(next);
        if next == from { Arrival::Waiting } else { Arrival::Data { data: joined, from, to: next } }
    }

    /// Notes that the receiver has everything before `number`: holes before it are the capture's.
    pub fn acknowledge<'a>(&mut self, number: u32, counts: &mut StreamCounts, joined: &'a mut Vec<u8>) -> Arrival<'a> {
        let (Some(from), false) = (self.next, self.pieces.is_empty()) else { return Arrival::Nothing };
        joined.clear();
        let mut next = from;
        while let Some(first) = self.pieces.first()
            && (number.wrapping_sub(first.sequence) as i32) > 0
        {
            next = self.pass_hole(next, counts, joined);
        }
        self.next = Some(next);
        if next == from { Arrival::Nothing } else { Arrival::Data { data: joined, from, to: next } }
    }

    /// The next byte, where a segment at `sequence` can belong to the stream; else the stream begins anew with it.
    fn plausible_next(&mut self, sequence: u32, counts: &mut StreamCounts) -> u32 {
        match self.next {
            Some(next) if (sequence.wrapping_sub(next) as i32).unsigned_abs() <= WINDOW => next,
            before => {
                if before.is_some() {
                    counts.holes += 1;
                    counts.undelivered += self.undelivered();
                    self.pieces.clear();
                    self.waiting = 0;
                }
                self.next = Some(sequence);
                sequence
            }
        }
    }

    /// Puts what is new of a segment between the pieces. Places are counted from `base`, the next byte.
    fn insert(&mut self, base: u32, segment: &Segment<'_>) {
        let begin_of = |piece: &Piece| piece.sequence.wrapping_sub(base);
        let end_of = |piece: &Piece| piece.end().wrapping_sub(base);
        let mut begin = segment.sequence.wrapping_sub(base);
        let end = begin.saturating_add(segment.length);
        let mut place = self.pieces.partition_point(|piece| end_of(piece) <= begin);
        while begin < end {
            let (until, after) = match self.pieces.get(place) {
                Some(piece) if begin_of(piece) < end => (begin_of(piece).max(begin), end_of(piece)),
                _ => (end, end),
            };
            if until > begin {
                let skipped = base.wrapping_add(begin).wrapping_sub(segment.sequence);
                let stored = segment.data.get(skipped as usize..).unwrap_or_default();
                let data = stored[..stored.len().min((until - begin) as usize)].to_vec();
                let piece = Piece { sequence: base.wrapping_add(begin), data, length: until - begin };
                self.waiting += piece.memory();
                self.pieces.insert(place, piece);
                place += 1;
            }
            begin = after;
            place += 1;
        }
    }

    /// Takes the pieces that go on where the stream is; returns where it is then.
    fn take_ready(&mut self, mut next: u32, joined: &mut Vec<u8>) -> u32 {
        let ready = self.pieces.iter().take_while(|piece| {
            let goes_on = piece.sequence == next;
            if goes_on {
                next = piece.end();
            }
            goes_on
        });
        let ready = ready.count();
        for piece in self.pieces.drain(..ready) {
            self.waiting -= piece.memory();
            joined.extend_from_slice(&piece.data);
        }
        next
    }

    /// Goes on after the first hole.
    fn pass_hole(&mut self, next: u32, counts: &mut StreamCounts, joined: &mut Vec<u8>) -> u32 {
        match self.pieces.first().map(|piece| piece.sequence) {
            Some(after) => {
                counts.holes += 1;
                self.take_ready(after, joined)
            }
            None => next,
        }
    }
}

impl<'a> Segment<'a> {
    /// What is left after so many bytes; `None` when that is nothing.
    fn after(self, bytes: u32) -> Option<Self> {
        let length = self.length.checked_sub(bytes).filter(|&left| left > 0)?;
        let data = self.data.get(bytes as usize..).unwrap_or_default();
        Some(Self { sequence: self.sequence.wrapping_add(bytes), data, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reassembler with the places of a stream instead of sequence numbers.
    struct Bench {
        reassembler: Reassembler,
        counts: StreamCounts,
        base: u32,
        room: usize,
        /// The data that were seen, each with the place where they begin.
        seen: Vec<(u32, String)>,
    }

    impl Bench {
        fn new(base: u32) -> Self {
            let mut reassembler = Reassembler::default();
            reassembler.begin(base);
            Self { reassembler, counts: StreamCounts::default(), base, room: 1 << 20, seen: Vec::new() }
        }

        fn note(seen: &mut Vec<(u32, String)>, base: u32, arrival: Arrival<'_>) -> &'static str {
            match arrival {
                Arrival::Data { data, from, .. } => {
                    seen.push((from.wrapping_sub(base), String::from_utf8(data.to_vec()).unwrap()));
                    "data"
                }
                Arrival::Waiting => "waiting",
                Arrival::Nothing => "nothing",
            }
        }

        fn send(&mut self, place: u32, data: &str) -> &'static str {
            let segment =
                Segment { sequence: self.base.wrapping_add(place), data: data.as_bytes(), length: data.len() as u32 };
            let mut joined = Vec::new();
            let arrival = self.reassembler.arrive(segment, self.room, &mut self.counts, &mut joined);
            Self::note(&mut self.seen, self.base, arrival)
        }

        fn acknowledge(&mut self, place: u32) -> &'static str {
            let mut joined = Vec::new();
            let number = self.base.wrapping_add(place);
            let arrival = self.reassembler.acknowledge(number, &mut self.counts, &mut joined);
            Self::note(&mut self.seen, self.base, arrival)
        }

        fn text(&self) -> String {
            self.seen.iter().map(|(_, data)| data.as_str()).collect()
        }
    }

    /// Everything is tried at the beginning of the sequence space, at its wrap, and at the turn of the sign.
    const BASES: [u32; 4] = [0, 1000, u32::MAX - 3, i32::MAX as u32 - 2];

    #[test]
    fn segments_in_order_are_seen_one_by_one() {
        for base in BASES {
            let mut bench = Bench::new(base);
            for (place, data) in [(0, "abc"), (3, "de"), (5, ""), (5, "f")] {
                bench.send(place, data);
            }
            assert_eq!(bench.seen, [(0, "abc".into()), (3, "de".into()), (5, "f".into())]);
        }
    }

    #[test]
    fn what_is_early_waits_and_is_seen_with_what_fills_the_hole() {
        for base in BASES {
            let mut bench = Bench::new(base);
            assert_eq!(bench.send(3, "de"), "waiting");
            assert_eq!(bench.send(7, "hi"), "waiting");
            assert_eq!(bench.send(0, "abc"), "data");
            assert_eq!(bench.seen, [(0, "abcde".into())]);
            assert_eq!(bench.send(5, "fg"), "data");
            assert_eq!(bench.text(), "abcdefghi");
            assert_eq!((bench.reassembler.waiting(), bench.counts.holes), (0, 0));
        }
    }

    #[test]
    fn what_is_repeated_is_seen_once() {
        for base in BASES {
            let mut bench = Bench::new(base);
            bench.send(0, "abcd");
            assert_eq!(bench.send(0, "abcd"), "nothing");
            assert_eq!(bench.send(1, "bc"), "nothing");
            assert_eq!(bench.send(2, "cdef"), "data");
            assert_eq!(bench.text(), "abcdef");
        }
    }

    #[test]
    fn of_a_byte_that_comes_twice_the_first_counts() {
        let cases: [(&[(u32, &str)], &str); 6] = [
            (&[(2, "CD"), (0, "abcdef")], "abCDef"),
            (&[(1, "BC"), (4, "EF"), (0, "abcdefg")], "aBCdEFg"),
            (&[(2, "CD"), (1, "bcde"), (0, "a")], "abCDe"),
            (&[(2, "CDE"), (3, "xxF"), (0, "ab")], "abCDEF"),
            (&[(3, "D"), (1, "B"), (1, "bcdef"), (0, "a")], "aBcDef"),
            (&[(0, "ab"), (0, "xxc")], "abc"),
        ];
        for (segments, expected) in cases {
            for base in BASES {
                let mut bench = Bench::new(base);
                for &(place, data) in segments {
                    bench.send(place, data);
                }
                assert_eq!(bench.text(), expected, "{segments:?}");
                assert_eq!(bench.reassembler.waiting(), 0);
            }
        }
    }

    #[test]
    fn what_the_receiver_has_acknowledged_beyond_a_hole_the_capture_has_missed() {
        for base in BASES {
            let mut bench = Bench::new(base);
            bench.send(0, "ab");
            bench.send(4, "ef");
            bench.send(8, "ij");
            assert_eq!(bench.acknowledge(2), "nothing");
            assert_eq!(bench.acknowledge(4), "nothing", "the hole alone may have been repeated");
            assert_eq!(bench.acknowledge(6), "data");
            assert_eq!(bench.acknowledge(10), "data");
            assert_eq!(bench.text(), "abefij");
            assert_eq!(bench.counts.holes, 2);
            assert_eq!(bench.send(2, "cd"), "nothing", "late is late");
            assert_eq!(bench.send(10, "k"), "data");
        }
    }

    #[test]
    fn an_acknowledgment_of_what_was_never_seen_changes_nothing() {
        let mut bench = Bench::new(7);
        bench.send(0, "ab");
        assert_eq!(bench.acknowledge(1000), "nothing");
        assert_eq!(bench.send(2, "cd"), "data");
        assert_eq!(bench.text(), "abcd");
    }

    #[test]
    fn without_room_the_hole_is_given_up_and_nothing_is_lost() {
        let mut bench = Bench::new(0);
        bench.room = 2 * (1 + size_of::<Piece>());
        bench.send(0, "a");
        assert_eq!(bench.send(2, "c"), "waiting");
        assert_eq!(bench.send(4, "e"), "waiting");
        assert_eq!(bench.send(6, "g"), "data");
        assert_eq!(bench.seen, [(0, "a".into()), (1, "c".into())]);
        assert_eq!(bench.send(3, "d"), "data");
        assert_eq!(bench.text(), "acde");
        bench.room = 0;
        assert_eq!(bench.send(8, "i"), "data");
        assert_eq!(bench.text(), "acdegi");
    }

    #[test]
    fn many_short_pieces_do_not_wait_for_ever() {
        let mut bench = Bench::new(0);
        for number in 0..10_000 {
            bench.send(2 + 2 * number, "x");
            assert!(bench.reassembler.pieces.len() <= MAX_PIECES);
            assert!(bench.reassembler.waiting() <= MAX_PIECES * (1 + size_of::<Piece>()));
        }
        assert_eq!(bench.text().len(), 10_000 - MAX_PIECES);
    }

    #[test]
    fn what_was_not_stored_is_left_out_and_counted_on() {
        let mut reassembler = Reassembler::default();
        let (mut counts, mut joined) = (StreamCounts::default(), Vec::new());
        let mut send = |sequence, data, length| {
            let segment = Segment { sequence, data, length };
            match reassembler.arrive(segment, 1000, &mut counts, &mut joined) {
                Arrival::Data { data, from, to } => Some((data.to_vec(), from, to)),
                _ => None,
            }
        };
        assert_eq!(send(10, b"abc", 8), Some((b"abc".to_vec(), 10, 18)));
        assert_eq!(send(20, b"kl", 5), None);
        assert_eq!(send(12, b"c", 8), Some((b"kl".to_vec(), 18, 25)));
    }

    #[test]
    fn a_number_far_beyond_any_window_begins_the_stream_anew() {
        let mut bench = Bench::new(0);
        bench.send(0, "ab");
        bench.send(4, "ef");
        assert_eq!(bench.send(WINDOW + 3, "x"), "data");
        assert_eq!(bench.send(WINDOW + 4, "y"), "data");
        assert_eq!(bench.text(), "abxy");
        assert_eq!((bench.counts.holes, bench.counts.undelivered, bench.reassembler.waiting()), (1, 2, 0));
    }
}
