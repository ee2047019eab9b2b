//! Fault injection: whatever an image says, the walk ends, and ends closed.

#[path = "common/oracle.rs"]
#[allow(dead_code)]
mod oracle;
#[path = "common/random.rs"]
#[allow(dead_code)]
mod random;

use openwfp_engine::{
    Action, Cell, Image, MAX_STEPS, MAX_SUBLAYERS, RANK_SUBLAYER_SHIFT, Reason, Silent, Values, classify,
    classify_with, compile_objects, kind,
};
use openwfp_model::LayerId;
use std::cell::Cell as Counter;

const LAYER: LayerId = LayerId::ALE_AUTH_CONNECT_V4;

/// An image of nothing but `cells` for one layer, whose only root is the first of them.
fn image(cells: &[Cell]) -> Vec<Cell> {
    let mut image = vec![Cell::new(kind::NOTHING, 0, 0, 0); 128];
    image[1 + LAYER.get() as usize] = Cell::layer(1, 1, 128, 128 + cells.len() as u32 - 1, 0);
    image.extend_from_slice(cells);
    image.push(Cell::filter(0, 0, 0, 1, 0));
    image
}

fn reason(cells: &[Cell]) -> (Action, Reason) {
    let verdict = classify(&image(cells)[..], LAYER.get(), &Values::new(), &mut Silent);
    (verdict.action, verdict.reason)
}

#[test]
fn a_bad_cell_blocks_with_its_reason() {
    let always = |rank| Cell::test(0, openwfp_engine::Test::Always, rank, 0, 0);
    assert_eq!(reason(&[always(1)]), (Action::Permit, Reason::None), "the image is good otherwise");
    for bad in [kind::FILTER, kind::LAYER, kind::HEADER, 12, 15] {
        assert_eq!(reason(&[Cell::new(bad, 0, 0, 0)]), (Action::Block, Reason::BadCell), "kind {bad}");
    }
    // a filter of a sublayer in which the layer has none, and more sublayers than there can be
    assert_eq!(reason(&[always(1 | 1 << RANK_SUBLAYER_SHIFT)]), (Action::Block, Reason::BadCell));
    for (sublayers, expected) in [(MAX_SUBLAYERS as u32, Reason::None), (MAX_SUBLAYERS as u32 + 1, Reason::BadCell)] {
        let mut many = image(&[always(1)]);
        many[1 + LAYER.get() as usize] = Cell::layer(1, sublayers, 128, 128, 0);
        assert_eq!(classify(&many[..], LAYER.get(), &Values::new(), &mut Silent).reason, expected);
    }
    // a rank where there is a cell of another kind than a filter: the image's places are counted from `filters`
    let mut other = image(&[always(1)]);
    *other.last_mut().unwrap() = Cell::new(kind::NOTHING, 0, 0, 0);
    let verdict = classify(&other[..], LAYER.get(), &Values::new(), &mut Silent);
    assert_eq!((verdict.action, verdict.reason), (Action::Block, Reason::BadCell));
}

#[test]
fn a_cell_that_cannot_be_had_blocks_with_its_reason() {
    let always = |rank| Cell::test(0, openwfp_engine::Test::Always, rank, 0, 0);
    // a node and a jump that lead out of the image, a rank without a filter
    assert_eq!(reason(&[Cell::node(0, 4000, [0; 3])]), (Action::Block, Reason::LookupFailed));
    assert_eq!(reason(&[Cell::jump_always(4000, 1)]), (Action::Block, Reason::LookupFailed));
    assert_eq!(reason(&[always(77)]), (Action::Block, Reason::LookupFailed));
}

#[test]
fn a_walk_that_does_not_end_blocks_at_the_bound() {
    assert_eq!(reason(&[Cell::jump_always(128, 1)]), (Action::Block, Reason::Bound));
    let looping = image(&[Cell::jump_always(128, 1)]);
    let verdict = classify_with(&looping[..], LAYER.get(), &Values::new(), 10, &mut (), &mut Silent);
    assert_eq!((verdict.reason, verdict.steps), (Reason::Bound, 10));
}

#[test]
fn a_layer_without_entry_blocks() {
    let empty: [Cell; 0] = [];
    assert_eq!(classify(&empty[..], 48, &Values::new(), &mut Silent).reason, Reason::LookupFailed);
    assert_eq!(classify(&image(&[])[..], 126, &Values::new(), &mut Silent).reason, Reason::BadCell);
}

/// An image whose look-up fails at the n-th cell.
struct Failing<'a> {
    cells: &'a [Cell],
    left: Counter<u32>,
}

impl Image for Failing<'_> {
    fn cell(&self, index: u32) -> Option<&Cell> {
        let left = self.left.get();
        self.left.set(left.wrapping_sub(1));
        if left == 0 { None } else { self.cells.get(index as usize) }
    }
}

#[test]
fn a_look_up_that_fails_anywhere_in_the_walk_blocks() {
    let mut failed = 0;
    let mut random = random::Random::new(5);
    for _ in 0..300 {
        let policy = random::policy(&mut random, 40);
        let compiled = compile_objects(1, &policy.sublayers, policy.filters.clone(), &[]).unwrap();
        let values = compiled.values(&random::event(&mut random, policy.layer));
        let whole = classify(compiled.image(), policy.layer.get(), &values, &mut Silent);
        for left in 0..whole.steps.min(60) {
            let image = Failing { cells: compiled.image().cells(), left: Counter::new(left) };
            let verdict = classify(&image, policy.layer.get(), &values, &mut Silent);
            // the last steps may need no cell any more
            let same = image.left.get() != u32::MAX && (verdict.action, verdict.filter) == (whole.action, whole.filter);
            assert!(same || (verdict.action, verdict.reason) == (Action::Block, Reason::LookupFailed), "{verdict:?}");
            failed += usize::from(!same);
        }
    }
    assert!(failed > 300, "a look-up failed {failed} times");
}

#[test]
fn flipped_bits_never_panic_and_never_run_on() {
    let mut random = random::Random::new(9);
    let mut closed = 0;
    for _ in 0..100 {
        let policy = random::policy(&mut random, 60);
        let compiled = compile_objects(1, &policy.sublayers, policy.filters.clone(), &[]).unwrap();
        let cells = compiled.image().cells();
        for _ in 0..100 {
            let mut damaged = cells.to_vec();
            for _ in 0..1 + random.below(8) {
                let cell = &mut damaged[random.below(cells.len())];
                let word = [&mut cell.w, &mut cell.a, &mut cell.b, &mut cell.c].into_iter().nth(random.below(4));
                *word.unwrap() ^= 1 << random.below(32);
            }
            let values = compiled.values(&random::event(&mut random, policy.layer));
            let verdict = classify(&damaged[..], policy.layer.get(), &values, &mut Silent);
            assert!(verdict.steps <= MAX_STEPS);
            closed += matches!(verdict.reason, Reason::BadCell | Reason::LookupFailed) as usize;
        }
    }
    assert!(closed > 50, "damage was met {closed} times");
}
