//! Conditions on users: uids, groups and security descriptors as tests on words.
//!
//! A security descriptor admits a user as an access check does: the first entry that names the user decides, and who is
//! named by none is refused. Rights other than the one to match a filter play no part.

use super::rule::{Alternative, Group, WordTest};
use crate::{Test, values::words};
use openwfp_model::{
    SecurityDescriptor, Sid, Value,
    security::{AceKind, Subject},
};
use std::{collections::BTreeMap, vec, vec::Vec};

/// The groups that a policy names, each with its bit in the two words of groups.
///
/// The kernel keeps the bits of an endpoint's owner with the socket, for longer than a policy holds. So a bit that was
/// given to a group is never given to another in the policies that follow.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    bits: BTreeMap<u32, u32>,
    /// Also those that this policy does not name.
    given: BTreeMap<u32, u32>,
}

impl Groups {
    /// The most groups that a policy can name.
    pub const LIMIT: usize = 64;

    /// The bits of a policy that follows another.
    pub(super) fn after(previous: &Self) -> Self {
        Self { bits: BTreeMap::new(), given: previous.given.clone() }
    }

    /// Takes note of a group; `false` when there are too many.
    #[must_use]
    pub(super) fn note(&mut self, gid: u32) -> bool {
        let Some(bit) = self.give(gid) else { return false };
        self.bits.insert(gid, bit);
        true
    }

    /// The bit of a group; a new one where it has none, if there is one left.
    pub(super) fn give(&mut self, gid: u32) -> Option<u32> {
        let next = self.given.len() as u32;
        match self.given.get(&gid) {
            Some(&bit) => Some(bit),
            None if (next as usize) < Self::LIMIT => {
                self.given.insert(gid, next);
                Some(next)
            }
            None => None,
        }
    }

    /// The groups that have bits, whether this policy names them or not.
    pub fn given(&self) -> impl Iterator<Item = (u32, u32)> {
        self.given.iter().map(|(&gid, &bit)| (gid, bit))
    }

    /// The groups that the policy names, and their bits.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.bits.iter().map(|(&gid, &bit)| (gid, bit))
    }

    /// The two words of a user who is in these groups.
    #[must_use]
    pub fn words(&self, gids: &[u32]) -> [u32; 2] {
        let mut found = [0; 2];
        for bit in gids.iter().filter_map(|gid| self.bits.get(gid)) {
            found[(bit / 32) as usize % 2] |= 1 << (bit % 32);
        }
        found
    }

    fn test(&self, gid: u32, member: bool) -> Option<WordTest> {
        let bit = *self.bits.get(&gid)?;
        let mask = 1 << (bit % 32);
        Some(WordTest {
            word: (words::GROUPS + (bit / 32) as usize) as u8,
            test: Test::Mask(mask, if member { mask } else { 0 }),
        })
    }
}

/// The groups that a condition value names.
pub(super) fn groups_of(value: &Value) -> Vec<u32> {
    match value {
        Value::Group(gid) => vec![*gid],
        Value::SecurityDescriptor(descriptor) => entries(descriptor)
            .into_iter()
            .filter_map(|(_, subject)| match subject {
                Subject::Gid(gid) => Some(gid),
                _ => None,
            })
            .collect(),
        _ => vec![],
    }
}

/// The entries of a descriptor that speak of the right to match a filter: whether they allow it, and whom.
fn entries(descriptor: &SecurityDescriptor) -> Vec<(bool, Subject)> {
    descriptor
        .match_entries()
        .filter(|entry| entry.grants_match)
        .map(|entry| (entry.kind == AceKind::Allow, entry.subject))
        .collect()
}

/// The tests for "the user is (or is not) the value".
pub(super) fn group(value: &Value, wanted: bool, groups: &Groups) -> Group {
    let list = match value {
        Value::User(uid) => vec![(true, Subject::Uid(*uid))],
        Value::Group(gid) => vec![(true, Subject::Gid(*gid))],
        Value::SecurityDescriptor(descriptor) => entries(descriptor),
        Value::Empty if wanted => {
            return vec![vec![WordTest { word: words::ALE_USER_ID as u8, test: Test::Empty }]];
        }
        Value::Empty => vec![],
        _ => return vec![],
    };
    let mut found = vec![];
    let mut rest = vec![UserSet::everyone()];
    for (allow, subject) in list {
        if allow == wanted {
            found.extend(rest.iter().filter_map(|set| set.and(&subject, true, groups)).flatten());
        }
        rest = rest.iter().filter_map(|set| set.and(&subject, false, groups)).flatten().collect();
    }
    if !wanted {
        found.extend(rest);
    }
    found.iter().map(UserSet::alternative).collect()
}

/// Users with a uid in a range who are in some groups and not in others.
#[derive(Clone, Debug)]
struct UserSet {
    low: u32,
    high: u32,
    groups: Vec<WordTest>,
}

impl UserSet {
    fn everyone() -> Self {
        Self { low: 0, high: u32::MAX, groups: vec![] }
    }

    /// Those of the set who are (or are not) the subject; `None` when nobody is left.
    fn and(&self, subject: &Subject, is: bool, groups: &Groups) -> Option<Vec<Self>> {
        match (subject, is) {
            (Subject::Everyone, true) | (Subject::Unmappable(_), false) => Some(vec![self.clone()]),
            (Subject::Everyone, false) | (Subject::Unmappable(_), true) => None,
            (Subject::Uid(uid), true) => (self.low..=self.high)
                .contains(uid)
                .then(|| vec![Self { low: *uid, high: *uid, groups: self.groups.clone() }]),
            (Subject::Uid(uid), false) => {
                if !(self.low..=self.high).contains(uid) {
                    return Some(vec![self.clone()]);
                }
                let below = uid.checked_sub(1).filter(|high| *high >= self.low).map(|high| (self.low, high));
                let above = uid.checked_add(1).filter(|low| *low <= self.high).map(|low| (low, self.high));
                let parts: Vec<Self> = [below, above]
                    .into_iter()
                    .flatten()
                    .map(|(low, high)| Self { low, high, groups: self.groups.clone() })
                    .collect();
                Some(parts)
            }
            (Subject::Gid(gid), member) => {
                let test = groups.test(*gid, member)?;
                let mut set = self.clone();
                set.groups.push(test);
                set.merged().map(|set| vec![set])
            }
        }
    }

    /// The same with one test for each word of groups; `None` when two tests contradict one another.
    fn merged(mut self) -> Option<Self> {
        let mut merged: Vec<WordTest> = vec![];
        for test in self.groups {
            let Test::Mask(mask, expected) = test.test else { continue };
            match merged.iter_mut().find(|other| other.word == test.word) {
                Some(WordTest { test: Test::Mask(other_mask, other_expected), .. }) => {
                    if mask & *other_mask & (expected ^ *other_expected) != 0 {
                        return None;
                    }
                    *other_mask |= mask;
                    *other_expected |= expected;
                }
                _ => merged.push(test),
            }
        }
        self.groups = merged;
        Some(self)
    }

    fn alternative(&self) -> Alternative {
        let mut tests = self.groups.clone();
        if tests.is_empty() || self.low > 0 || self.high < u32::MAX {
            tests.push(WordTest { word: words::ALE_USER_ID as u8, test: Test::Range(self.low, self.high) });
        }
        tests
    }
}

/// Whether a descriptor admits a single subject, for fields whose values are SIDs.
pub(super) fn descriptor_admits(descriptor: &SecurityDescriptor, value: &Value) -> bool {
    let is = |subject: &Subject| match (subject, value) {
        (Subject::Everyone, _) => true,
        (Subject::Uid(uid), Value::User(user)) => uid == user,
        (Subject::Gid(gid), Value::Group(group)) => gid == group,
        (subject, Value::Sid(sid)) => is_sid(subject, sid),
        _ => false,
    };
    entries(descriptor).iter().find(|(_, subject)| is(subject)).is_some_and(|(allow, _)| *allow)
}

/// Whether a value says what an event can hold: a uid or anything that is no condition on users.
pub(super) fn is_plain(value: &Value) -> bool {
    !matches!(value, Value::SecurityDescriptor(_) | Value::Range(..))
}

fn is_sid(subject: &Subject, sid: &Sid) -> bool {
    match subject {
        Subject::Everyone => true,
        Subject::Uid(uid) => sid.uid() == Some(*uid),
        Subject::Gid(gid) => sid.gid() == Some(*gid),
        Subject::Unmappable(other) => other == sid,
    }
}
