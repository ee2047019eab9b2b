//! The forest builder: from rules to decision trees.
//!
//! At each node it looks at every word, finds up to three thresholds that divide the rules best (least sum of the
//! squares of the children's sizes) and takes the word that gains most. Rules that span the node on that word are
//! copied into its children or, in a large node, moved to the next tree. So a few trees result, each of them sharp.

use super::rule::{Hull, Region, Rules};
use crate::{EMPTY, WORDS, cell::MAX_TREES};
use std::{boxed::Box, vec, vec::Vec};

/// A decision tree; the rules of a leaf are in rank order.
pub(crate) enum Tree {
    Leaf(Vec<u32>),
    Node {
        word: usize,
        /// The first value of each child but the first, ascending.
        thresholds: Vec<u64>,
        children: Vec<Tree>,
    },
}

/// A leaf of at most this many rules is not divided.
const LEAF: usize = 4;
/// A node looks at about this many rules to choose its thresholds.
const SAMPLE: usize = 512;
/// The most trees; the last one takes everything that is left.
const TREES: usize = 6;
/// Rules are moved to the next tree only from nodes that hold at least this part of the tree's rules.
const SPILL_PART: usize = 32;
/// A division must shrink the expected search to this part at least.
const GAIN: f64 = 0.97;
/// No tree is deeper.
const DEPTH: usize = 40;

/// Builds the trees for all rules.
pub(crate) fn build(rules: &Rules) -> Vec<Tree> {
    let words = rules.divisible_words();
    let mut left: Vec<u32> = (0..rules.len() as u32).collect();
    left.sort_by_key(|&rule| rules.rank(rule));
    let mut trees = vec![];
    while !left.is_empty() {
        let last = trees.len() + 1 >= TREES.min(MAX_TREES as usize);
        let mut builder = Builder::new(rules, &words, left.len(), !last);
        let tree = builder.node(left.clone(), &mut Region::whole(), 0);
        let moved = builder.moved;
        let before = left.len();
        left.retain(|&rule| moved[rule as usize]);
        if left.len() == before {
            // nothing found a place here: divide all of it without moving anything
            let mut builder = Builder::new(rules, &words, left.len(), false);
            trees.push(builder.node(left, &mut Region::whole(), 0));
            break;
        }
        trees.push(without(tree, &moved));
    }
    trees
}

/// The tree without the rules that were moved after they had been put into some leaves.
fn without(tree: Tree, moved: &[bool]) -> Tree {
    match tree {
        Tree::Leaf(rules) => Tree::Leaf(rules.into_iter().filter(|&rule| !moved[rule as usize]).collect()),
        Tree::Node { word, thresholds, children } => {
            Tree::Node { word, thresholds, children: children.into_iter().map(|child| without(child, moved)).collect() }
        }
    }
}

/// How the best thresholds of one word would divide a node.
struct Division {
    thresholds: Vec<u64>,
    /// Rules that fall into each child and do not span the node.
    narrow: Vec<f64>,
    /// Rules that span the node.
    wide: f64,
}

struct Builder<'a> {
    rules: &'a Rules,
    words: &'a [usize],
    total: usize,
    may_move: bool,
    moved: Vec<bool>,
    hull: Hull,
    lows: Box<[Vec<u64>; WORDS]>,
    highs: Box<[Vec<u64>; WORDS]>,
}

impl<'a> Builder<'a> {
    fn new(rules: &'a Rules, words: &'a [usize], total: usize, may_move: bool) -> Self {
        Self {
            rules,
            words,
            total,
            may_move,
            moved: vec![false; rules.len()],
            hull: Hull::new(),
            lows: Box::new([const { Vec::new() }; WORDS]),
            highs: Box::new([const { Vec::new() }; WORDS]),
        }
    }

    fn node(&mut self, mut ids: Vec<u32>, region: &mut Region, depth: usize) -> Tree {
        if ids.len() <= LEAF || depth >= DEPTH {
            return Tree::Leaf(ids);
        }
        let Some((gain, word, division, moves)) = self.best_division(&ids, region) else {
            return Tree::Leaf(ids);
        };
        if gain > GAIN.ln() {
            if self.may_move && ids.len() > 4 * LEAF {
                ids.iter().for_each(|&rule| self.moved[rule as usize] = true);
                ids.clear();
            }
            return Tree::Leaf(ids);
        }
        if moves {
            ids.retain(|&rule| {
                self.rules.hull(rule, region, &mut self.hull);
                let narrow = self.hull.extents().any(|extent| extent.0 == word && narrows(extent, region));
                self.moved[rule as usize] |= !narrow;
                narrow
            });
        }
        let (low, high) = (region.low[word], region.high[word]);
        let mut children = vec![];
        let mut first = low;
        for end in division.thresholds.iter().copied().chain([high + 1]) {
            (region.low[word], region.high[word]) = (first, end - 1);
            let inside = ids
                .iter()
                .copied()
                .filter(|&rule| !self.moved[rule as usize] && self.rules.meets(rule, region))
                .collect();
            children.push(self.node(inside, region, depth + 1));
            first = end;
        }
        (region.low[word], region.high[word]) = (low, high);
        Tree::Node { word, thresholds: division.thresholds, children }
    }

    /// The word whose division gains most: the gain (a negative logarithm is good), the word, and whether the rules
    /// that span the node should move to the next tree.
    fn best_division(&mut self, ids: &[u32], region: &Region) -> Option<(f64, usize, Division, bool)> {
        let seen = self.collect_extents(ids, region);
        let count = ids.len() as f64;
        let may_move = self.may_move && ids.len() * SPILL_PART >= self.total && ids.len() > 8 * LEAF;
        let mut best: Option<(f64, usize, Division, bool)> = None;
        for &word in self.words {
            let scale = count / seen as f64;
            let lows = &mut self.lows[word];
            let highs = &mut self.highs[word];
            let Some(division) = divide(lows, highs, (region.low[word], region.high[word]), seen, scale) else {
                continue;
            };
            let fan_out = (division.narrow.len() as f64).ln().clamp(0.7, 1.4).sqrt();
            // a search that costs `cost` instead of `count`, in levels of a tree with this fan-out
            let levels = |cost: f64| (cost / count).ln() / fan_out;
            let copied = division.narrow.iter().map(|n| (n + division.wide).powi(2)).sum::<f64>() / count;
            let mut score = levels(copied);
            let mut moves = false;
            if may_move && division.wide > 0.0 && division.wide < 0.75 * count {
                let split = division.narrow.iter().map(|n| n * n).sum::<f64>() / count + division.wide;
                if levels(split) < score {
                    (score, moves) = (levels(split), true);
                }
            }
            if best.as_ref().is_none_or(|best| score < best.0) {
                best = Some((score, word, division, moves));
            }
        }
        best
    }

    /// Fills `lows` and `highs` with the extents of a sample of the rules; says how large the sample is.
    fn collect_extents(&mut self, ids: &[u32], region: &Region) -> usize {
        for &word in self.words {
            self.lows[word].clear();
            self.highs[word].clear();
        }
        let stride = (ids.len() / SAMPLE).max(1);
        let mut seen = 0;
        for &rule in ids.iter().step_by(stride) {
            seen += 1;
            self.rules.hull(rule, region, &mut self.hull);
            for extent in self.hull.extents().filter(|&extent| narrows(extent, region)) {
                self.lows[extent.0].push(extent.1);
                self.highs[extent.0].push(extent.2);
            }
        }
        seen
    }
}

/// Whether an extent is less than the whole region on its word.
fn narrows((word, low, high): (usize, u64, u64), region: &Region) -> bool {
    low > region.low[word] || high < region.high[word]
}

/// A place where a node can be cut: rules that begin before it, and rules that end before it.
#[derive(Clone, Copy)]
struct Cut {
    at: u64,
    begun: usize,
    ended: usize,
}

/// The best division of one word's extents into at most four children.
fn divide(lows: &mut [u64], highs: &mut [u64], (low, high): (u64, u64), seen: usize, scale: f64) -> Option<Division> {
    lows.sort_unstable();
    highs.sort_unstable();
    let cuts = cuts(lows, highs, low, high);
    let all = lows.len();
    let middle = best_cut(&cuts, 0, all, None)?;
    let (left, right) = (&cuts[..middle], &cuts[middle + 1..]);
    let mut chosen = vec![];
    chosen.extend(best_cut(left, 0, cuts[middle].begun, Some(0.9)));
    chosen.push(middle);
    chosen.extend(best_cut(right, cuts[middle].ended, all, Some(0.9)).map(|cut| middle + 1 + cut));
    let mut narrow = vec![];
    let mut ended = 0;
    for &cut in &chosen {
        narrow.push((cuts[cut].begun - ended) as f64 * scale);
        ended = cuts[cut].ended;
    }
    narrow.push((all - ended) as f64 * scale);
    Some(Division {
        thresholds: chosen.iter().map(|&cut| cuts[cut].at).collect(),
        narrow,
        wide: (seen - all) as f64 * scale,
    })
}

/// All places worth a cut: where an extent begins, and just after one ends. A cut separates at most [`EMPTY`] from the
/// known values, since a cell's thresholds have 32 bits.
fn cuts(lows: &[u64], highs: &[u64], low: u64, high: u64) -> Vec<Cut> {
    let mut places: Vec<u64> = lows.iter().copied().chain(highs.iter().map(|last| last + 1)).collect();
    places.sort_unstable();
    places.dedup();
    let (mut begun, mut ended) = (0, 0);
    let mut cuts = Vec::with_capacity(places.len());
    for at in places {
        while begun < lows.len() && lows[begun] < at {
            begun += 1;
        }
        while ended < highs.len() && highs[ended] < at {
            ended += 1;
        }
        if at > low && at <= high && at <= EMPTY {
            cuts.push(Cut { at, begun, ended });
        }
    }
    cuts
}

/// The cut with the least sum of squares of what lies on its two sides, where `ended` rules have ended before the part
/// begins and `begun` have begun before it ends. With a limit, only one that gains enough.
fn best_cut(cuts: &[Cut], ended: usize, begun: usize, limit: Option<f64>) -> Option<usize> {
    let cost = |cut: &Cut| {
        let left = cut.begun.saturating_sub(ended) as f64;
        let right = begun.saturating_sub(cut.ended) as f64;
        left * left + right * right
    };
    let (best, least) = cuts.iter().map(cost).enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let whole = begun.saturating_sub(ended) as f64;
    limit.is_none_or(|limit| least <= limit * whole * whole).then_some(best)
}
