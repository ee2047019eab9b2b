//! Rules: what the forest builder sees of a filter.
//!
//! A rule is a conjunction of groups (one for each field that the filter tests), a group a disjunction of alternatives
//! (the field's conditions, which are OR-ed), an alternative a conjunction of tests on words (an IPv6 prefix can take
//! several).

use crate::{
    EMPTY, UNKNOWN, WORDS,
    cell::{MAX_DISTANCE, Test},
};
use std::{vec, vec::Vec};

/// A test and the word that it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WordTest {
    pub word: u8,
    pub test: Test,
}

/// A conjunction of tests, at most one for each word.
pub(crate) type Alternative = Vec<WordTest>;
/// A disjunction of alternatives.
pub(crate) type Group = Vec<Alternative>;

/// Whether a test is decided within a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Always,
    Never,
    Open,
}

/// A box in the space of values: for each word the lowest and the highest value, [`UNKNOWN`] being the highest there is.
pub(crate) struct Region {
    pub low: [u64; WORDS],
    pub high: [u64; WORDS],
}

impl Region {
    pub fn whole() -> Self {
        Self { low: [0; WORDS], high: [UNKNOWN; WORDS] }
    }

    /// The part of the whole that the region is on this word, from nearly 0 to 1.
    pub fn fraction(&self, word: usize, low: u64, high: u64) -> f64 {
        (high - low + 1) as f64 / (self.high[word] - self.low[word] + 1) as f64
    }
}

impl WordTest {
    /// The values that match, where they are one interval.
    pub fn interval(&self) -> Option<(u64, u64)> {
        match self.test {
            Test::Range(low, high) => Some((low as u64, high as u64)),
            Test::Empty => Some((EMPTY, EMPTY)),
            Test::Unknown => Some((UNKNOWN, UNKNOWN)),
            Test::Mask(..) | Test::Any(_) | Test::Always => None,
        }
    }

    pub fn relation(&self, region: &Region) -> Relation {
        let word = self.word as usize;
        let (low, high) = (region.low[word], region.high[word]);
        if let Some((first, last)) = self.interval() {
            return if last < low || first > high {
                Relation::Never
            } else if first <= low && last >= high {
                Relation::Always
            } else {
                Relation::Open
            };
        }
        match self.test {
            Test::Always => Relation::Always,
            _ if low >= EMPTY => Relation::Never,
            _ if low != high => Relation::Open,
            Test::Mask(mask, expected) if low as u32 & mask == expected => Relation::Always,
            Test::Any(mask) if low as u32 & mask != 0 => Relation::Always,
            _ => Relation::Never,
        }
    }
}

/// The relation of a conjunction: open when no test is refuted and some are undecided.
fn alternative_relation(tests: &[WordTest], region: &Region) -> Relation {
    let mut all = Relation::Always;
    for test in tests {
        match test.relation(region) {
            Relation::Never => return Relation::Never,
            Relation::Open => all = Relation::Open,
            Relation::Always => {}
        }
    }
    all
}

#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of<T>(self, items: &[T]) -> &[T] {
        &items[self.start as usize..self.end as usize]
    }
}

/// All rules of a layer, flattened.
#[derive(Default)]
pub(crate) struct Rules {
    ranks: Vec<u32>,
    groups_of: Vec<Span>,
    groups: Vec<Span>,
    alternatives: Vec<Span>,
    tests: Vec<WordTest>,
}

/// The most cells that the tests of one rule may take in a run, so that every distance fits.
const MAX_RULE_CELLS: usize = MAX_DISTANCE as usize - 64;

impl Rules {
    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    pub fn rank(&self, rule: u32) -> u32 {
        self.ranks[rule as usize]
    }

    /// Adds a rule. One with very many alternatives becomes several of the same rank.
    pub fn push(&mut self, rank: u32, mut groups: Vec<Group>) {
        let cells = |group: &Group| group.iter().map(Vec::len).sum::<usize>();
        if groups.iter().map(cells).sum::<usize>() > MAX_RULE_CELLS {
            let widest = (0..groups.len()).max_by_key(|&g| groups[g].len()).filter(|&g| groups[g].len() > 1);
            if let Some(widest) = widest {
                let middle = groups[widest].len() / 2;
                let rest = groups[widest].split_off(middle);
                let mut second = groups.clone();
                second[widest] = rest;
                self.push(rank, groups);
                self.push(rank, second);
                return;
            }
        }
        let first_group = self.groups.len() as u32;
        for group in groups {
            let first_alternative = self.alternatives.len() as u32;
            for alternative in group {
                let start = self.tests.len() as u32;
                self.tests.extend(alternative);
                self.alternatives.push(Span { start, end: self.tests.len() as u32 });
            }
            self.groups.push(Span { start: first_alternative, end: self.alternatives.len() as u32 });
        }
        self.ranks.push(rank);
        self.groups_of.push(Span { start: first_group, end: self.groups.len() as u32 });
    }

    fn groups(&self, rule: u32) -> &[Span] {
        self.groups_of[rule as usize].of(&self.groups)
    }

    fn alternatives(&self, group: Span) -> impl Iterator<Item = &[WordTest]> {
        group.of(&self.alternatives).iter().map(|span| span.of(&self.tests))
    }

    /// The words on which a tree can divide these rules.
    pub fn divisible_words(&self) -> Vec<usize> {
        let mut seen = [false; WORDS];
        for test in self.tests.iter().filter(|test| test.interval().is_some()) {
            seen[test.word as usize] = true;
        }
        (0..WORDS).filter(|&word| seen[word]).collect()
    }

    /// Whether some value in the region can match the rule.
    pub fn meets(&self, rule: u32, region: &Region) -> bool {
        self.groups(rule)
            .iter()
            .all(|&group| self.alternatives(group).any(|tests| alternative_relation(tests, region) != Relation::Never))
    }

    /// The rule's extent on each word that it restricts within the region: `(word, low, high)`.
    pub fn hull(&self, rule: u32, region: &Region, hull: &mut Hull) {
        hull.clear();
        for &group in self.groups(rule) {
            hull.begin_group();
            let mut decided = false;
            for tests in self.alternatives(group) {
                match alternative_relation(tests, region) {
                    Relation::Never => continue,
                    Relation::Always => decided = true,
                    Relation::Open => {}
                }
                hull.add_alternative(tests, region);
            }
            hull.end_group(decided);
        }
    }

    /// The groups that the region leaves open, each with its open alternatives and their open tests, the most
    /// selective group first.
    pub fn open_groups(&self, rule: u32, region: &Region) -> Vec<Group> {
        let mut open: Vec<(f64, Group)> = vec![];
        for &group in self.groups(rule) {
            let mut left: Group = vec![];
            let mut share = 0.0;
            let mut decided = false;
            for tests in self.alternatives(group) {
                match alternative_relation(tests, region) {
                    Relation::Never => continue,
                    Relation::Always => {
                        decided = true;
                        break;
                    }
                    Relation::Open => {}
                }
                let mut tests: Vec<(f64, WordTest)> = tests
                    .iter()
                    .filter(|test| test.relation(region) == Relation::Open)
                    .map(|test| (selectivity(test, region), *test))
                    .collect();
                tests.sort_by(|a, b| a.0.total_cmp(&b.0));
                share += tests.iter().map(|test| test.0).product::<f64>();
                left.push(tests.into_iter().map(|test| test.1).collect());
            }
            if !decided {
                open.push((share, left));
            }
        }
        open.sort_by(|a, b| a.0.total_cmp(&b.0));
        open.into_iter().map(|(_, group)| group).collect()
    }
}

/// The share of the region that a test lets through, roughly.
fn selectivity(test: &WordTest, region: &Region) -> f64 {
    let word = test.word as usize;
    match test.interval() {
        Some((first, last)) => region.fraction(word, first.max(region.low[word]), last.min(region.high[word])),
        None => 0.5,
    }
}

/// A rule's extent, word by word; reused from rule to rule.
pub(crate) struct Hull {
    low: [u64; WORDS],
    high: [u64; WORDS],
    words: Vec<usize>,
    group: Vec<(usize, u32, u64, u64)>,
    alternatives: u32,
}

impl Hull {
    pub fn new() -> Self {
        Self { low: [0; WORDS], high: [0; WORDS], words: vec![], group: vec![], alternatives: 0 }
    }

    fn clear(&mut self) {
        self.words.clear();
    }

    fn begin_group(&mut self) {
        self.group.clear();
        self.alternatives = 0;
    }

    fn add_alternative(&mut self, tests: &[WordTest], region: &Region) {
        self.alternatives += 1;
        for test in tests {
            let Some((first, last)) = test.interval() else { continue };
            let word = test.word as usize;
            let (low, high) = (first.max(region.low[word]), last.min(region.high[word]));
            match self.group.iter_mut().find(|entry| entry.0 == word) {
                Some(entry) => {
                    entry.1 += 1;
                    entry.2 = entry.2.min(low);
                    entry.3 = entry.3.max(high);
                }
                None => self.group.push((word, 1, low, high)),
            }
        }
    }

    /// A word restricts the group only where every alternative restricts it.
    fn end_group(&mut self, decided: bool) {
        if decided {
            return;
        }
        for &(word, count, low, high) in &self.group {
            if count != self.alternatives {
                continue;
            }
            if self.words.contains(&word) {
                self.low[word] = self.low[word].max(low);
                self.high[word] = self.high[word].min(high);
            } else {
                self.words.push(word);
                (self.low[word], self.high[word]) = (low, high);
            }
        }
    }

    /// The restricted words with their extents.
    pub fn extents(&self) -> impl Iterator<Item = (usize, u64, u64)> {
        self.words.iter().map(|&word| (word, self.low[word], self.high[word]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(word: u8, low: u32, high: u32) -> WordTest {
        WordTest { word, test: Test::Range(low, high) }
    }

    #[test]
    fn a_region_decides_tests() {
        let mut region = Region::whole();
        (region.low[2], region.high[2]) = (80, 90);
        assert_eq!(range(2, 0, 100).relation(&region), Relation::Always);
        assert_eq!(range(2, 0, 79).relation(&region), Relation::Never);
        assert_eq!(range(2, 85, 100).relation(&region), Relation::Open);
        let any = WordTest { word: 2, test: Test::Any(1) };
        assert_eq!(any.relation(&region), Relation::Open);
        (region.low[2], region.high[2]) = (EMPTY, UNKNOWN);
        assert_eq!(any.relation(&region), Relation::Never, "flags are never matched by an empty value");
    }

    #[test]
    fn a_rule_of_thousands_of_alternatives_becomes_several_of_one_rank() {
        let mut rules = Rules::default();
        rules.push(7, vec![(0..5000).map(|port| vec![range(2, port * 2, port * 2)]).collect()]);
        assert!(rules.len() >= 3);
        assert!((0..rules.len() as u32).all(|rule| rules.rank(rule) == 7));
        let alternatives: usize =
            (0..rules.len() as u32).map(|rule| rules.open_groups(rule, &Region::whole())[0].len()).sum();
        assert_eq!(alternatives, 5000);
    }
}
