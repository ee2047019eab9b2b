//! Values of a field that are worth trying: between two of them no condition of the layer tells values apart.

use super::{
    Classes, Encoding, FieldWords, Schema,
    question::{QuestionedField, QuestionedFilter},
    rule::Alternative,
};
use crate::{EMPTY, Test, Values};
use openwfp_model::{DataType, FieldId, FieldType, LayerId};
use std::{vec, vec::Vec};

/// The most numbers of one field that are tried for one event, the nearest ones first.
const TRIED: usize = 1024;

/// Of this many bits that conditions ask for, every combination is tried; of more, only some.
const COMBINED: u32 = 8;

/// What may be tried for one field, worked out once for all events of a layer.
pub(super) struct Candidates {
    pub(super) field: FieldId,
    pub(super) words: FieldWords,
    /// Which fields are changed before others: ports and addresses say more to a person, the protocol the least.
    pub(super) turn: u32,
    /// The edges of all ranges and their neighbours, ascending, and the ends of the domain.
    numbers: Vec<u128>,
    /// The masks of conditions on bits.
    masks: Vec<u128>,
    /// Whether a condition asks for no value.
    empty: bool,
}

/// One value to try; `None`: empty.
pub(super) type Candidate = Option<u128>;

impl Candidates {
    /// Of every field that one of these filters tests.
    pub(super) fn of(layer: LayerId, filters: &[QuestionedFilter<'_>], classes: &Classes) -> Vec<Self> {
        let mut all: Vec<Self> = vec![];
        for questioned in filters.iter().flat_map(|filter| &filter.fields) {
            let known = all.iter().position(|other| other.field == questioned.field);
            let place = match (known, Self::none(layer, questioned.field, classes)) {
                (Some(place), _) => place,
                (None, Some(new)) => {
                    all.push(new);
                    all.len() - 1
                }
                (None, None) => continue,
            };
            all[place].add(layer, questioned);
        }
        for candidates in &mut all {
            candidates.numbers.sort_unstable();
            candidates.numbers.dedup();
            candidates.masks.sort_unstable();
            candidates.masks.dedup();
        }
        all
    }

    fn none(layer: LayerId, field: FieldId, classes: &Classes) -> Option<Self> {
        let words = Schema::of(layer).field(field)?;
        let numbers = match words.encoding {
            // a class that no condition names has no number of its own: 0
            Encoding::Class => classes.named(field).map(|(class, _)| class as u128).chain([0]).collect(),
            _ => vec![0, greatest(layer, words)],
        };
        let port = matches!(field, FieldId::IP_LOCAL_PORT | FieldId::IP_REMOTE_PORT);
        let address = layer.layer().field(field).is_some_and(|field| field.field_type == FieldType::IpAddress);
        let turn = if port || address { 0 } else { 1 + u32::from(field == FieldId::IP_PROTOCOL) };
        Some(Self { field, words, turn, numbers, masks: vec![], empty: false })
    }

    fn add(&mut self, layer: LayerId, questioned: &QuestionedField) {
        let greatest = greatest(layer, self.words);
        for alternative in &questioned.group {
            self.empty |= alternative.iter().any(|test| test.test == Test::Empty);
            self.masks.extend(self.mask(alternative));
            if let Some((low, high)) = self.extent(alternative) {
                let edges = [low.checked_sub(1), Some(low), Some(high), high.checked_add(1)];
                self.numbers.extend(edges.into_iter().flatten().filter(|&number| number <= greatest));
            }
        }
    }

    /// The numbers for which a conjunction of ranges holds. What conditions become are intervals.
    fn extent(&self, alternative: &Alternative) -> Option<(u128, u128)> {
        let (mut low, mut high) = (0, 0);
        for word in self.words.first..self.words.first + self.words.count {
            let of_word = alternative.iter().find(|test| test.word as usize == word).map(|test| test.test);
            let (first, last) = match of_word {
                None | Some(Test::Always) => (0, u32::MAX),
                Some(Test::Range(first, last)) => (first, last),
                Some(_) => return None,
            };
            (low, high) = (low << 32 | first as u128, high << 32 | last as u128);
        }
        Some((low, high))
    }

    /// The bits for which an alternative asks.
    fn mask(&self, alternative: &Alternative) -> Option<u128> {
        let mut mask = 0;
        for word in self.words.first..self.words.first + self.words.count {
            let of_word = alternative.iter().find(|test| test.word as usize == word).map(|test| test.test);
            mask = mask << 32
                | match of_word {
                    Some(Test::Mask(bits, _) | Test::Any(bits)) => bits as u128,
                    _ => 0,
                };
        }
        (mask != 0).then_some(mask)
    }

    /// What to try instead of an event's value, the nearest first, and whether this is all that there is to try.
    pub(super) fn tries(&self, values: &Values) -> (Vec<Candidate>, bool) {
        let now = self.number(values);
        let mut tries: Vec<Candidate> = vec![];
        let here = now.unwrap_or(0);
        // outwards from the value, on both sides
        let middle = self.numbers.partition_point(|&number| number < here);
        let (below, above) = self.numbers.split_at(middle);
        let (mut below, mut above) = (below.iter().rev().peekable(), above.iter().peekable());
        while tries.len() < TRIED {
            let next = match (below.peek(), above.peek()) {
                (None, None) => break,
                (Some(&&low), Some(&&high)) if here - low < high - here => below.next(),
                (Some(_), None) => below.next(),
                _ => above.next(),
            };
            tries.extend(next.map(|&number| Some(number)));
        }
        let mut whole = tries.len() == self.numbers.len();
        let bits = self.masks.iter().fold(0, |bits, mask| bits | mask);
        let mut of_bits: Vec<u128> = vec![];
        if bits.count_ones() <= COMBINED {
            // all parts of the bits, from none to all
            let mut part = 0u128;
            loop {
                of_bits.push(here & !bits | part);
                part = part.wrapping_sub(bits) & bits;
                if part == 0 {
                    break;
                }
            }
        } else {
            of_bits.extend((0..128).map(|bit| 1u128 << bit).filter(|bit| bits & bit != 0).map(|bit| here ^ bit));
            of_bits.extend(self.masks.iter().take(TRIED).flat_map(|mask| [here | mask, here & !mask]));
            whole = false;
        }
        if !self.masks.is_empty() {
            // of flags the nearest is what differs by the fewest of them, not the next number
            of_bits.sort_by_key(|number| (number ^ here).count_ones());
            tries.splice(..0, of_bits.into_iter().map(Some));
        }
        tries.extend(self.empty.then_some(None));
        tries.retain(|number| *number != now);
        (tries, whole)
    }

    /// The field's words as one number; `None`: there is none.
    fn number(&self, values: &Values) -> Candidate {
        let mut words = (self.words.first..self.words.first + self.words.count).map(|word| values.get(word));
        words.try_fold(0, |number: u128, word| (word < EMPTY).then_some(number << 32 | word as u128))
    }

    /// Puts a candidate in the place of the field's value.
    pub(super) fn put(&self, candidate: Candidate, values: &mut Values) {
        for word in 0..self.words.count {
            let place = self.words.first + word;
            match candidate {
                Some(number) => values.set(place, (number >> (32 * (self.words.count - 1 - word))) as u32),
                None => values.set_empty(place),
            }
        }
    }
}

/// The greatest number that a value of the field can be.
pub(super) fn greatest(layer: LayerId, words: FieldWords) -> u128 {
    match layer.layer().field(words.field).map(|field| field.data_type) {
        Some(DataType::Uint8) => u8::MAX as u128,
        Some(DataType::Uint16) => u16::MAX as u128,
        Some(DataType::ByteArray6) => (1 << 48) - 1,
        _ => u128::MAX >> (128 - 32 * words.count),
    }
}
