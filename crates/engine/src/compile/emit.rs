//! Writes trees down as cells.

use super::{
    CompileError,
    forest::Tree,
    rule::{Group, Hull, Region, Rules, WordTest},
};
use crate::{
    EMPTY,
    cell::{Cell, MAX_CELLS, Test, kind},
};
use std::{collections::HashMap, vec, vec::Vec};

const NOTHING: Cell = Cell::new(kind::NOTHING, 0, 0, 0);

/// Writes the trees behind `cells`; the first root and the most steps that a walk through all of them can take.
pub(crate) fn emit(cells: &mut Vec<Cell>, rules: &Rules, trees: &[Tree]) -> Result<(u32, u32), CompileError> {
    align(cells);
    let roots = cells.len();
    cells.resize(roots + trees.len(), NOTHING);
    let mut emitter = Emitter { cells, rules, runs: HashMap::new(), hull: Hull::new() };
    let mut worst = 0;
    for (number, tree) in trees.iter().enumerate() {
        worst += emitter.tree(tree, roots + number, &mut Region::whole());
    }
    if cells.len() > MAX_CELLS as usize {
        return Err(CompileError::ImageTooLarge { cells: cells.len() });
    }
    Ok((roots as u32, worst))
}

/// The four children of a node share one cache line.
fn align(cells: &mut Vec<Cell>) {
    cells.resize(cells.len().next_multiple_of(4), NOTHING);
}

struct Emitter<'a> {
    cells: &'a mut Vec<Cell>,
    rules: &'a Rules,
    /// Runs that stand already, by their cells.
    runs: HashMap<Vec<Cell>, u32>,
    hull: Hull,
}

impl Emitter<'_> {
    /// Writes a tree whose first cell stands at `at`; the most steps from there to the end of a run.
    fn tree(&mut self, tree: &Tree, at: usize, region: &mut Region) -> u32 {
        match tree {
            Tree::Leaf(ids) => self.leaf(ids, at, region),
            Tree::Node { word, thresholds, children } => self.node(*word, thresholds, children, at, region),
        }
    }

    fn node(&mut self, word: usize, thresholds: &[u64], children: &[Tree], at: usize, region: &mut Region) -> u32 {
        align(self.cells);
        let first = self.cells.len();
        self.cells.resize(first + 4, NOTHING);
        // a cell compares with "greater than"; a missing threshold repeats the last one, so that the last child is
        // always number 3, also for values beyond every threshold
        let mut limits = [0; 3];
        for (place, limit) in limits.iter_mut().enumerate() {
            *limit = (thresholds[place.min(thresholds.len() - 1)] - 1) as u32;
        }
        self.cells[at] = Cell::node(word, first as u32, limits);
        let (low, high) = (region.low[word], region.high[word]);
        let mut worst = 0;
        for (number, child) in children.iter().enumerate() {
            region.low[word] = if number == 0 { low } else { thresholds[number - 1] };
            region.high[word] = thresholds.get(number).map_or(high, |next| next - 1);
            let place = if number + 1 == children.len() { 3 } else { number };
            worst = worst.max(self.tree(child, first + place, region));
        }
        (region.low[word], region.high[word]) = (low, high);
        1 + worst
    }

    fn leaf(&mut self, ids: &[u32], at: usize, region: &Region) -> u32 {
        let run = self.run(ids, region);
        if run.len() <= 1 {
            self.cells[at] = run.first().copied().unwrap_or(NOTHING);
            return 1;
        }
        let hull = self.common_hull(ids, region);
        let length = run.len() as u32;
        let lowest_rank = run[0].c;
        let next = self.cells.len() as u32;
        let target = *self.runs.entry(run).or_insert_with_key(|run| {
            self.cells.extend_from_slice(run);
            next
        });
        self.cells[at] = match hull {
            Some((word, low, high)) => Cell::jump(word, target, lowest_rank, (low, high)),
            None => Cell::jump_always(target, lowest_rank),
        };
        1 + length
    }

    /// The word on which all these rules together cover the least part of the region.
    fn common_hull(&mut self, ids: &[u32], region: &Region) -> Option<(usize, u32, u32)> {
        let mut common: Vec<(usize, usize, u64, u64)> = vec![];
        for &rule in ids {
            self.rules.hull(rule, region, &mut self.hull);
            for (word, low, high) in self.hull.extents() {
                match common.iter_mut().find(|entry| entry.0 == word) {
                    Some(entry) => {
                        entry.1 += 1;
                        entry.2 = entry.2.min(low);
                        entry.3 = entry.3.max(high);
                    }
                    None => common.push((word, 1, low, high)),
                }
            }
        }
        common
            .into_iter()
            .filter(|&(word, count, low, high)| {
                count == ids.len() && high < EMPTY && region.fraction(word, low, high) < 1.0
            })
            .min_by(|a, b| region.fraction(a.0, a.2, a.3).total_cmp(&region.fraction(b.0, b.2, b.3)))
            .map(|(word, _, low, high)| (word, low as u32, high as u32))
    }

    /// The cells of a run.
    fn run(&self, ids: &[u32], region: &Region) -> Vec<Cell> {
        let mut run = vec![];
        for (number, &rule) in ids.iter().enumerate() {
            let last = number + 1 == ids.len();
            rule_cells(&self.rules.open_groups(rule, region), self.rules.rank(rule), last, &mut run);
        }
        run
    }
}

/// Writes one rule of a run: its groups one after another, in each the alternatives one after another.
fn rule_cells(groups: &[Group], rank: u32, last_rule: bool, run: &mut Vec<Cell>) {
    let total: usize = groups.iter().flatten().map(Vec::len).sum();
    if total == 0 {
        run.push(Cell::test(0, Test::Always, rank, 0, !last_rule as u32));
        return;
    }
    let mut at = 0;
    let mut group_start = 0;
    for (group_number, group) in groups.iter().enumerate() {
        group_start += group.iter().map(Vec::len).sum::<usize>();
        let last_group = group_number + 1 == groups.len();
        for (number, alternative) in group.iter().enumerate() {
            let end = at + alternative.len();
            for &WordTest { word, test } in alternative {
                let on_match = match (at + 1 == end, last_group) {
                    (false, _) => 1,
                    (true, false) => group_start - at,
                    (true, true) => 0,
                };
                let on_failure = match (number + 1 == group.len(), last_rule) {
                    (false, _) => end - at,
                    (true, false) => total - at,
                    (true, true) => 0,
                };
                run.push(Cell::test(word as usize, test, rank, on_match as u32, on_failure as u32));
                at += 1;
            }
        }
    }
}
