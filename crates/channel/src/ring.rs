//! Rings of fixed slots, each with one writer and one reader in different processes.
//!
//! Each side keeps its own count to itself and believes nothing that stands in the memory but the count of the other, which can be
//! wrong in one way only: further from its own than there are slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::layout::{LINE, Sizes};
use crate::memory::Memory;

const WORD: usize = size_of::<u64>();

/// What the other side wrote makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Its count is further away than there are slots.
    #[error("its count of messages cannot be true")]
    Count,
    /// The length of a message is more than a slot holds.
    #[error("a message is longer than a slot")]
    Length,
}

/// Where a ring stands in the memory.
#[derive(Clone)]
struct Place {
    memory: Arc<Memory>,
    /// Where the three words begin.
    words: usize,
    slots: usize,
    sizes: Sizes,
}

impl Place {
    fn word(&self, line: usize) -> &AtomicU64 {
        &self.memory[(self.words + line * LINE) / WORD]
    }

    fn written(&self) -> &AtomicU64 {
        self.word(0)
    }

    fn read(&self) -> &AtomicU64 {
        self.word(1)
    }

    fn sleeps(&self) -> &AtomicU64 {
        self.word(2)
    }

    fn slot(&self, count: u64) -> &[AtomicU64] {
        let index = (count & (self.sizes.count as u64 - 1)) as usize;
        let first = (self.slots + index * self.sizes.slot) / WORD;
        &self.memory[first..first + self.sizes.slot / WORD]
    }
}

fn load(word: &AtomicU64, order: Ordering) -> u64 {
    u64::from_le(word.load(order))
}

fn store(word: &AtomicU64, value: u64, order: Ordering) {
    word.store(value.to_le(), order);
}

/// The end of a ring that writes.
pub struct Producer {
    place: Place,
    written: u64,
}

/// The end of a ring that reads.
pub struct Consumer {
    place: Place,
    read: u64,
}

pub(crate) fn ends(memory: &Arc<Memory>, words: usize, slots: usize, sizes: Sizes) -> (Producer, Consumer) {
    let place = Place { memory: memory.clone(), words, slots, sizes };
    (Producer { place: place.clone(), written: 0 }, Consumer { place, read: 0 })
}

impl Producer {
    /// How many messages there is room for.
    ///
    /// # Errors
    /// The reader's count makes no sense.
    pub fn room(&self) -> Result<usize, RingError> {
        let waiting = self.written.wrapping_sub(load(self.place.read(), Ordering::SeqCst));
        let waiting = usize::try_from(waiting).ok().filter(|waiting| *waiting <= self.place.sizes.count);
        waiting.map(|waiting| self.place.sizes.count - waiting).ok_or(RingError::Count)
    }

    /// The longest message.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.place.sizes.slot - WORD
    }

    /// Writes a message of these parts, one after the other; false where there is no room. The reader is not woken: see
    /// [`reader_sleeps`](Self::reader_sleeps).
    ///
    /// # Errors
    /// The reader's count makes no sense, or the message is longer than a slot.
    pub fn push(&mut self, parts: &[&[u8]]) -> Result<bool, RingError> {
        if self.room()? == 0 {
            return Ok(false);
        }
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length > self.longest() {
            return Err(RingError::Length);
        }
        let (first, rest) = self.place.slot(self.written).split_at(1);
        store(&first[0], length as u64, Ordering::Relaxed);
        write(rest, parts);
        self.written = self.written.wrapping_add(1);
        store(self.place.written(), self.written, Ordering::SeqCst);
        Ok(true)
    }

    /// Whether the reader sleeps and has to be woken. It is asked after messages were written; who asks has to wake.
    #[must_use]
    pub fn reader_sleeps(&self) -> bool {
        // mostly it does not, and then its line is not written
        load(self.place.sleeps(), Ordering::SeqCst) != 0 && self.place.sleeps().swap(0, Ordering::SeqCst) != 0
    }
}

/// Bytes in the order of memory, whatever that of numbers is.
fn write(words: &[AtomicU64], parts: &[&[u8]]) {
    let (mut word, mut filled, mut at) = ([0; WORD], 0, 0);
    for part in parts {
        let mut part = *part;
        while !part.is_empty() {
            if filled == 0 && part.len() >= WORD {
                let (chunks, rest) = part.as_chunks::<WORD>();
                for (chunk, place) in chunks.iter().zip(&words[at..]) {
                    place.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
                }
                at += chunks.len();
                part = rest;
                continue;
            }
            let taken = part.len().min(WORD - filled);
            word[filled..filled + taken].copy_from_slice(&part[..taken]);
            (filled, part) = (filled + taken, &part[taken..]);
            if filled == WORD {
                words[at].store(u64::from_ne_bytes(word), Ordering::Relaxed);
                (filled, at) = (0, at + 1);
            }
        }
    }
    if filled > 0 {
        word[filled..].fill(0);
        words[at].store(u64::from_ne_bytes(word), Ordering::Relaxed);
    }
}

impl Consumer {
    /// Whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        load(self.place.written(), Ordering::SeqCst) == self.read
    }

    /// Copies the next message into memory of one's own, in the place of what was there; false where there is none.
    ///
    /// # Errors
    /// The writer's count, or the length, makes no sense.
    pub fn pop(&mut self, message: &mut Vec<u8>) -> Result<bool, RingError> {
        let waiting = load(self.place.written(), Ordering::SeqCst).wrapping_sub(self.read);
        if waiting == 0 {
            return Ok(false);
        }
        if waiting > self.place.sizes.count as u64 {
            return Err(RingError::Count);
        }
        let (first, rest) = self.place.slot(self.read).split_at(1);
        let length = usize::try_from(load(&first[0], Ordering::Relaxed)).unwrap_or(usize::MAX);
        if length > rest.len() * WORD {
            return Err(RingError::Length);
        }
        message.clear();
        message
            .extend(rest[..length.div_ceil(WORD)].iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()));
        message.truncate(length);
        self.read = self.read.wrapping_add(1);
        store(self.place.read(), self.read, Ordering::SeqCst);
        Ok(true)
    }

    /// Says that this side sleeps from here on. False where there is a message: then it does not.
    pub fn begin_sleep(&self) -> bool {
        store(self.place.sleeps(), 1, Ordering::SeqCst);
        let empty = self.is_empty();
        if !empty {
            self.end_sleep();
        }
        empty
    }

    /// Says that this side is awake.
    pub fn end_sleep(&self) {
        store(self.place.sleeps(), 0, Ordering::SeqCst);
    }
}
