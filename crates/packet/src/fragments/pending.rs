//! A bounded map whose entries wait for something, each until its time is over.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;

use siphasher::sip::SipHasher13;

use super::DatagramKey;
use crate::time::Timestamp;

/// The order of deadlines; the second number tells apart what has the same.
type Place = (Timestamp, u64);

pub(super) struct Pending<T> {
    /// The bound makes chosen keys harmless, so the hash needs no seed.
    entries: HashMap<DatagramKey, (Place, T), BuildHasherDefault<SipHasher13>>,
    order: BTreeMap<Place, DatagramKey>,
    inserted: u64,
}

impl<T> Pending<T> {
    pub(super) fn new() -> Self {
        Self { entries: HashMap::default(), order: BTreeMap::new(), inserted: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get_mut(&mut self, key: &DatagramKey) -> Option<&mut T> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Adds an entry, in place of one with the same key.
    pub(super) fn insert(&mut self, key: DatagramKey, deadline: Timestamp, value: T) {
        self.remove(&key);
        self.inserted += 1;
        let place = (deadline, self.inserted);
        self.order.insert(place, key);
        self.entries.insert(key, (place, value));
    }

    pub(super) fn remove(&mut self, key: &DatagramKey) -> Option<T> {
        let (place, value) = self.entries.remove(key)?;
        self.order.remove(&place);
        Some(value)
    }

    /// Takes the entry that was to wait least, if it was to wait no longer than `until`.
    pub(super) fn take_oldest(&mut self, until: Option<Timestamp>) -> Option<T> {
        let (&(deadline, _), &key) = self.order.first_key_value()?;
        if until.is_some_and(|until| deadline > until) {
            return None;
        }
        self.remove(&key)
    }
}
