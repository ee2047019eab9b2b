//! Fault injection into the loaded program: whatever the cells in the map say, the kernel answers as the engine in user space does
//! over the same cells, and a fault is a block with its reason. Needs root and BPF.

#[path = "../../engine/tests/common/oracle.rs"]
#[allow(dead_code)]
mod oracle;
#[path = "../../engine/tests/common/random.rs"]
#[allow(dead_code)]
mod random;
mod support;

use aya::maps::Array;
use openwfp_engine::{
    Action, Cell, CompiledPolicy, FIRST_FREE, Image, MAX_CELLS, MAX_STEPS, RANK_SUBLAYER_SHIFT, Reason, Silent, State,
    Step, Test, Values, compile_objects, filter_action, filter_flags, kind, step, words,
};
use openwfp_kernel::{features, measure::KernelClassifier};
use openwfp_model::{Action::Block, FieldId, LayerId, MatchType, Value};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
};
use support::{
    actor,
    live::{Live, filter, free_port, local, remote_port},
    skips,
};

#[test]
fn actor() {
    actor::act();
}

const LAYER: LayerId = LayerId::ALE_AUTH_CONNECT_V4;
const FAULTS: [Reason; 4] = [Reason::BadCell, Reason::Bound, Reason::UnknownGeneration, Reason::LookupFailed];

/// What was decided: action, reason, filter, errno.
type Decided = (Action, Reason, u64, u16);

/// The loaded program, and the same cells in memory.
struct Both {
    kernel: KernelClassifier,
    cells: Vec<Cell>,
    generation: u32,
}

impl Both {
    /// `None`, with the reason printed, where the program cannot be loaded.
    fn load() -> Option<Self> {
        if let Some(reason) = features::missing().first() {
            skips::skipped(reason);
            return None;
        }
        let kernel = KernelClassifier::load(0).unwrap_or_else(|error| panic!("{error}"));
        let cells = vec![Cell::default(); kernel.room() as usize];
        Some(Self { kernel, cells, generation: 0 })
    }

    fn set(&mut self, image: &[Cell], generation: u32) {
        self.kernel.set_image(image, generation).unwrap();
        self.cells[..image.len()].copy_from_slice(image);
        self.generation = generation;
    }

    /// Writes a cell; what stood there.
    fn damage(&mut self, index: u32, cell: Cell) -> Cell {
        self.kernel.damage(index, cell).unwrap();
        std::mem::replace(&mut self.cells[index as usize], cell)
    }

    /// What the kernel decides, which is what the engine does.
    #[track_caller]
    fn decide(&mut self, layer: LayerId, events: &[Values]) -> Vec<Decided> {
        let kernel = self.kernel.classify(layer, events).unwrap();
        let all: Vec<Decided> = kernel.iter().map(|got| (got.action, got.reason, got.filter, got.errno)).collect();
        for (values, decided) in events.iter().zip(&all) {
            assert_eq!(*decided, by_engine(&self.cells[..], self.generation, layer, values), "kernel, engine");
            if FAULTS.contains(&decided.1) {
                assert_eq!((decided.0, decided.2, decided.3), (Action::Block, 0, 0), "a fault is a block of nobody");
            }
        }
        all
    }
}

/// The walk of the programs over cells in memory: no callout can be asked.
fn by_engine<I: Image + ?Sized>(image: &I, generation: u32, layer: LayerId, values: &Values) -> Decided {
    let mut state = State::default();
    let current = image.cell(0).is_some_and(|header| header.kind() == kind::HEADER && header.a == generation);
    let mut next = if current { state.begin(image, layer.get()) } else { state.close(Reason::UnknownGeneration) };
    let mut steps = 0;
    while next != Step::Done {
        if steps == MAX_STEPS {
            state.close(Reason::Bound);
            break;
        }
        steps += 1;
        next = match step(image, values, &mut state, &mut Silent) {
            Step::Callout => state.pass_over(image, &mut Silent),
            next => next,
        };
    }
    let verdict = state.arbitration.verdict(steps);
    let errno = if verdict.action == Action::Block { verdict.errno } else { 0 };
    (verdict.action, verdict.reason, verdict.filter, errno)
}

/// An image for one layer that permits everything, hard: one root, which leads to the only filter. The filter below it, in
/// another sublayer, is met by the value 9 of the protocol alone, and says nothing against it.
fn small() -> Vec<Cell> {
    let mut image = vec![Cell::new(kind::NOTHING, 0, 0, 0); FIRST_FREE as usize];
    image[1 + LAYER.get() as usize] = Cell::layer(1, 2, ROOT, FILTERS, 0);
    image.extend([
        Cell::test(0, Test::Always, 1, 0, 1),
        Cell::test(words::IP_PROTOCOL, Test::Range(9, 9), 1 << RANK_SUBLAYER_SHIFT | 2, 0, 0),
        Cell::new(kind::NOTHING, 0, 0, 0),
        Cell::filter(filter_action::PERMIT, filter_flags::CLEAR_ACTION_RIGHT, 0, 1, 0),
        Cell::filter(filter_action::PERMIT, 0, 0, 2, 0),
    ]);
    image[0] = Cell::header(GENERATION, image.len() as u32, 0);
    image
}

const GENERATION: u32 = 7;
const ROOT: u32 = FIRST_FREE;
/// The place before the first filter's: ranks count from 1.
const FILTERS: u32 = ROOT + 2;
/// Far beyond the map, and within what a cell can name.
const BEYOND: u32 = MAX_CELLS - 8;

fn protocol(number: u32) -> Values {
    let mut values = Values::new();
    values.set(words::IP_PROTOCOL, number);
    values
}

const PERMITTED: Decided = (Action::Permit, Reason::None, 1, 0);

const fn closed(reason: Reason) -> Decided {
    (Action::Block, reason, 0, 0)
}

#[test]
fn each_fault_of_an_image_is_a_block_with_its_own_reason() {
    let Some(mut both) = Both::load() else { return };
    both.set(&small(), GENERATION);
    let entry = 1 + u32::from(LAYER.get());
    let good = both.cells[entry as usize];
    let mut damages: Vec<(u32, Cell, Reason)> = vec![
        // a header of another generation, and what is none
        (0, Cell::header(GENERATION + 1, 133, 0), Reason::UnknownGeneration),
        (0, Cell::new(kind::NOTHING, GENERATION, 133, 0), Reason::UnknownGeneration),
        (0, Cell::default(), Reason::UnknownGeneration),
        // no entry of the layer; no filter where one must be; a filter that does what there is not
        (entry, Cell::new(kind::NOTHING, 0, 0, 0), Reason::BadCell),
        (FILTERS + 1, Cell::new(kind::NOTHING, 0, 0, 0), Reason::BadCell),
        (FILTERS + 1, Cell::filter(8, 0, 0, 1, 0), Reason::BadCell),
        (FILTERS + 1, Cell::filter(15, 0, 0, 1, 0), Reason::BadCell),
        // a filter of a sublayer that the layer has not, and more sublayers than there can be
        (ROOT, Cell::test(0, Test::Always, 2 << RANK_SUBLAYER_SHIFT | 1, 0, 0), Reason::BadCell),
        (entry, Cell { w: good.w | 32 << 12, ..good }, Reason::BadCell),
        // roots, filters, a child, a run and a rank beyond the map
        (entry, Cell { a: BEYOND, ..good }, Reason::LookupFailed),
        (entry, Cell { a: u32::MAX, ..good }, Reason::LookupFailed),
        (entry, Cell { b: 1 << 30, ..good }, Reason::LookupFailed),
        (ROOT, Cell::node(0, BEYOND, [0; 3]), Reason::LookupFailed),
        (ROOT, Cell::jump_always(BEYOND, 1), Reason::LookupFailed),
        (ROOT, Cell::test(0, Test::Always, (1 << 27) - 2, 0, 0), Reason::LookupFailed),
        // a cell that leads to itself: the protocol is above the three thresholds, and below
        (ROOT, Cell::jump_always(ROOT, 1), Reason::Bound),
        (ROOT, Cell::node(words::IP_PROTOCOL, ROOT - 3, [0; 3]), Reason::Bound),
        (ROOT, Cell::node(words::IP_PROTOCOL, ROOT, [99; 3]), Reason::Bound),
    ];
    let bad = [kind::FILTER, kind::LAYER, kind::HEADER, 12, 13, 14, 15];
    damages.extend(bad.map(|kind| (ROOT, Cell::new(kind, 0, 0, 0), Reason::BadCell)));
    let not_entries = (0..16).filter(|&kind| kind != kind::LAYER);
    damages.extend(not_entries.map(|kind| (entry, Cell { w: good.w & !15 | kind, ..good }, Reason::BadCell)));
    for (index, cell, reason) in damages {
        let before = both.damage(index, cell);
        assert_eq!(both.decide(LAYER, &[protocol(6)]), [closed(reason)], "{cell:?} at {index}");
        // mended, it is the image of before
        both.damage(index, before);
        assert_eq!(both.decide(LAYER, &[protocol(6)]), [PERMITTED], "{cell:?} at {index}");
    }
    // the programs were told of another generation than the image is of
    both.set(&small(), GENERATION + 1);
    assert_eq!(both.decide(LAYER, &[protocol(6)]), [closed(Reason::UnknownGeneration)]);
    // the image is good, but has no such layer
    both.set(&small(), GENERATION);
    assert_eq!(both.decide(LayerId::ALE_AUTH_CONNECT_V6, &[protocol(6)]), [closed(Reason::BadCell)]);
}

#[test]
fn a_fault_below_a_hard_permit_blocks_those_that_meet_it() {
    let Some(mut both) = Both::load() else { return };
    both.set(&small(), GENERATION);
    let events: Vec<Values> = (0..20).map(protocol).collect();
    assert!(both.decide(LAYER, &events).iter().all(|decided| *decided == PERMITTED));
    both.damage(FILTERS + 2, Cell::new(kind::HEADER, 0, 0, 0));
    for (number, decided) in (0..).zip(both.decide(LAYER, &events)) {
        assert_eq!(decided, if number == 9 { closed(Reason::BadCell) } else { PERMITTED }, "protocol {number}");
    }
}

/// Cells that remember which of them were looked at.
struct Watched<'a> {
    cells: &'a [Cell],
    met: RefCell<BTreeSet<u32>>,
}

impl Image for Watched<'_> {
    fn cell(&self, index: u32) -> Option<&Cell> {
        self.met.borrow_mut().insert(index);
        self.cells.get(index as usize)
    }
}

/// The cells that an event meets.
fn path(cells: &[Cell], layer: LayerId, values: &Values) -> BTreeSet<u32> {
    let image = Watched { cells, met: RefCell::default() };
    by_engine(&image, GENERATION, layer, values);
    image.met.into_inner()
}

/// A policy, its layer, and the values of events there.
fn random_policy(random: &mut random::Random, filters: usize) -> (CompiledPolicy, LayerId, Vec<Values>) {
    // not one whose filters are all switched off
    let policy = std::iter::repeat_with(|| random::policy(random, filters)).find(|policy| policy.filters.len() > 2);
    let policy = policy.unwrap();
    // no callout is registered in the kernel
    let compiled = compile_objects(GENERATION, &policy.sublayers, policy.filters.clone(), &[]).unwrap();
    let events = (0..24).map(|_| compiled.values(&random::event(random, policy.layer))).collect();
    (compiled, policy.layer, events)
}

#[test]
fn a_bad_cell_touches_the_events_that_meet_it_and_no_others() {
    let Some(mut both) = Both::load() else { return };
    let mut random = random::Random::new(21);
    let (mut met, mut not_met) = (0, 0);
    for _ in 0..12 {
        let (policy, layer, events) = random_policy(&mut random, 40);
        let cells = policy.image().cells();
        both.set(cells, GENERATION);
        let before = both.decide(layer, &events);
        let paths: Vec<BTreeSet<u32>> = events.iter().map(|values| path(cells, layer, values)).collect();
        // one cell after the other, the header apart: without it there is no image
        for index in 1..cells.len() as u32 {
            if !paths.iter().any(|path| path.contains(&index)) {
                continue;
            }
            let good = both.damage(index, Cell::new(12, 1, 2, 3));
            for ((decided, before), path) in both.decide(layer, &events).into_iter().zip(&before).zip(&paths) {
                let meets = path.contains(&index);
                assert_eq!(decided, if meets { closed(Reason::BadCell) } else { *before }, "cell {index}");
                (met, not_met) = (met + usize::from(meets), not_met + usize::from(!meets));
            }
            both.damage(index, good);
        }
        assert_eq!(both.decide(layer, &events), before);
    }
    println!("{met} events met a bad cell, {not_met} did not");
    assert!(met > 1000 && not_met > 1000, "{met} {not_met}");
}

/// A cell with a fault: bits flipped, a word that is anything, or a way to another of these places.
fn damaged(random: &mut random::Random, mut cell: Cell, places: &[u32]) -> Cell {
    let word = random.below(4);
    let field = match word {
        0 => &mut cell.w,
        1 => &mut cell.a,
        2 => &mut cell.b,
        _ => &mut cell.c,
    };
    match random.below(8) {
        0..4 => *field ^= 1 << random.below(32),
        4 => (0..2 + random.below(6)).for_each(|_| *field ^= 1 << random.below(32)),
        5 => *field = random.next() as u32,
        6 => cell.w = cell.w & 0x3ff | random.pick(places) << 10,
        _ => cell = Cell::jump_always(random.pick(places), cell.a),
    }
    cell
}

#[test]
fn the_kernel_decides_by_damaged_cells_as_the_engine_does() {
    let Some(mut both) = Both::load() else { return };
    let mut random = random::Random::new(22);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut damages, mut changed) = (0, 0);
    let many: usize = std::env::var("OPENWFP_DAMAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    while damages < many {
        let (policy, layer, events) = random_policy(&mut random, 60);
        let cells = policy.image().cells();
        both.set(cells, GENERATION);
        let before = both.decide(layer, &events);
        // mostly those that some event meets
        let met: BTreeSet<u32> = events.iter().flat_map(|values| path(cells, layer, values)).collect();
        let met: Vec<u32> = met.into_iter().collect();
        for _ in 0..20 {
            let any = random.below(cells.len()) as u32;
            let index = if random.chance(90) { random.pick(&met) } else { any };
            let cell = damaged(&mut random, both.cells[index as usize], &met);
            let good = both.damage(index, cell);
            let decided = both.decide(layer, &events);
            for (_, reason, ..) in &decided {
                *reasons.entry(reason.name()).or_default() += 1;
            }
            damages += 1;
            changed += usize::from(decided != before);
            both.damage(index, good);
        }
    }
    println!("{damages} damages, {changed} of which changed an answer: {reasons:?}");
    assert!(changed * 4 > damages);
    for reason in FAULTS {
        assert!(reasons.get(reason.name()).is_some_and(|&times| times > 10), "{} was not met", reason.name());
    }
}

/// Writes a cell of a live policy over what stands in the map.
fn damage(live: &mut Live, index: u32, cell: Cell) {
    let map = live.enforcement.shims().ebpf().map_mut("CELLS").unwrap();
    let mut cells: Array<_, [u32; 4]> = map.try_into().unwrap();
    cells.set(index, [cell.w, cell.a, cell.b, cell.c], 0).unwrap();
}

#[test]
fn a_connect_under_a_damaged_image_is_refused_and_its_event_says_why() {
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let refused = free_port();
    let Some(mut live) = Live::new(vec![remote_port(LAYER, Block, refused)], &[LAYER]) else { return };
    let script = format!("tcp {open}\ntcp {}\nsend {open}", local(refused));
    let good = ["ok", "EPERM", "ok"];
    assert_eq!(live.act(&script), good);
    let image = live.policy.image().cells().to_vec();
    let place = 1 + u32::from(LAYER.get());
    let (header, entry) = (image[0], image[place as usize]);
    let table = [
        (0, Cell { a: header.a + 1, ..header }, Reason::UnknownGeneration),
        (place, Cell { w: 0, ..entry }, Reason::BadCell),
        (place, Cell { a: u32::MAX, ..entry }, Reason::LookupFailed),
        (entry.a, Cell::jump_always(entry.a, 1), Reason::Bound),
    ];
    for (index, cell, reason) in table {
        damage(&mut live, index, cell);
        live.events.clear();
        assert_eq!(live.act(&script), ["EPERM"; 3], "{reason:?}");
        assert_eq!(live.events.len(), 3);
        for event in &live.events {
            assert_eq!((event.layer, event.reason, event.blocked, event.filter), (LAYER, reason, true, 0));
        }
        damage(&mut live, index, image[index as usize]);
        live.events.clear();
        assert_eq!(live.act(&script), good, "mended after {reason:?}");
        assert!(live.events.iter().all(|event| event.reason == Reason::None));
    }
    let totals = live.enforcement.totals().unwrap();
    assert_eq!((totals[0].permitted, totals[0].blocked), (5 * 2, 5 + 4 * 3));
}

#[test]
fn a_damaged_layer_leaves_the_others_as_they_are() {
    let server = TcpListener::bind(local(0)).unwrap();
    let open = server.local_addr().unwrap();
    let bind = LayerId::ALE_RESOURCE_ASSIGNMENT_V4;
    let no_bind = filter(bind, Block).when(FieldId::IP_LOCAL_PORT, MatchType::Equal, Value::Uint16(4711));
    let filters = vec![remote_port(LAYER, Block, free_port()), no_bind.build().unwrap()];
    let Some(mut live) = Live::new(filters, &[LAYER, bind]) else { return };
    let script = format!("tcp {open}\nbind {}\nbind {}", local(free_port()), local(4711));
    assert_eq!(live.act(&script), ["ok", "ok", "EPERM"]);
    let place = 1 + u32::from(LAYER.get());
    damage(&mut live, place, Cell::default());
    live.events.clear();
    assert_eq!(live.act(&script), ["EPERM", "ok", "EPERM"]);
    let told = |layer| live.at(layer).map(|event| (event.blocked, event.reason, event.filter)).collect::<Vec<_>>();
    assert_eq!(told(LAYER), [(true, Reason::BadCell, 0)]);
    // the connection's own port, and two that were asked for
    assert_eq!(told(bind), [(false, Reason::None, 0), (false, Reason::None, 0), (true, Reason::None, 2)]);
}
