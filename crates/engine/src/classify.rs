//! Classification: one [`step`] function over one cell, called in a loop.
//!
//! The same source runs in the kernel, where `bpf_loop` calls it, and in user space, where [`classify`] does. A walk has
//! two phases. First every tree of the layer's forest is descended to a leaf and its run of tests is searched, which
//! leaves in `best` the first matching filter of each sublayer. Then the sublayers answer in order
//! ([`Arbitration`]); a filter that lets its sublayer go on makes the trees be walked once more with a floor under
//! the ranks that count.

use crate::{
    EMPTY, Values,
    arbitrate::{Answer, Arbitration, CalloutAction, CalloutAnswer},
    cell::{Cell, MAX_SUBLAYERS, NO_RANK, RANK_SUBLAYER_SHIFT, filter_action, filter_flags, kind},
    verdict::{Reason, Verdict},
};

/// The most steps that a classification may take. A policy that could need more is refused when it is compiled.
pub const MAX_STEPS: u32 = 1 << 16;

/// Where the cells come from.
pub trait Image {
    /// The cell at `index`, counted from the image's first.
    fn cell(&self, index: u32) -> Option<&Cell>;
}

impl Image for [Cell] {
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<&Cell> {
        self.get(index as usize)
    }
}

/// Is told what the walk does. The empty methods of [`Silent`] cost nothing.
pub trait Observer {
    /// A node sent the walk to its child number `child`.
    #[inline(always)]
    fn node(&mut self, _node: &Cell, _value: u64, _child: u32) {}
    /// A test of a filter was made.
    #[inline(always)]
    fn test(&mut self, _test: &Cell, _value: u64, _matched: bool) {}
    /// All tests of the filter of this rank matched, and it is the first of its sublayer so far.
    #[inline(always)]
    fn candidate(&mut self, _rank: u32) {}
    /// A sublayer's candidate gave its answer.
    #[inline(always)]
    fn answer(&mut self, _rank: u32, _filter: &Cell, _before: &Arbitration, _answer: Answer) {}
}

/// The observer that looks away.
pub struct Silent;
impl Observer for Silent {}

/// Whether the walk goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call [`step`] again.
    Again,
    /// The outcome stands in the state's arbitration.
    Done,
    /// A registered callout has to be asked; [`State::callout`] says by which filter, [`State::resume`] takes the answer.
    Callout,
}

/// Where a walk is. Plain words, because it lives in BPF map memory.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct State {
    /// The next cell.
    at: u32,
    /// 1: the sublayers answer.
    arbitrating: u32,
    /// The next tree, counted from the layer's first.
    tree: u32,
    trees: u32,
    roots: u32,
    filters: u32,
    sublayer: u32,
    sublayers: u32,
    /// Only ranks above this one count.
    floor: u32,
    /// The action so far.
    pub arbitration: Arbitration,
    best: [u32; MAX_SUBLAYERS],
}

impl Default for State {
    fn default() -> Self {
        Self {
            at: 0,
            arbitrating: 0,
            tree: 0,
            trees: 0,
            roots: 0,
            filters: 0,
            sublayer: 0,
            sublayers: 0,
            floor: 0,
            arbitration: Arbitration::default(),
            best: [NO_RANK; MAX_SUBLAYERS],
        }
    }
}

impl State {
    /// Begins the walk of a layer. Says [`Step::Done`] when there is nothing to walk.
    #[inline(always)]
    pub fn begin<I: Image + ?Sized>(&mut self, image: &I, layer: u16) -> Step {
        self.arbitration.reset();
        let Some(entry) = image.cell(1 + layer as u32) else {
            return self.close(Reason::LookupFailed);
        };
        if entry.kind() != kind::LAYER || entry.sublayers() as usize > MAX_SUBLAYERS {
            return self.close(Reason::BadCell);
        }
        self.at = entry.a;
        self.arbitrating = 0;
        self.tree = 1;
        self.trees = entry.trees();
        self.roots = entry.a;
        self.filters = entry.b;
        self.sublayer = 0;
        self.sublayers = entry.sublayers();
        self.floor = 0;
        if self.trees == 0 {
            return Step::Done;
        }
        let mut sublayer = 0;
        // the others are not looked at
        while sublayer < MAX_SUBLAYERS && sublayer < self.sublayers as usize {
            self.best[sublayer] = NO_RANK;
            sublayer += 1;
        }
        Step::Again
    }

    /// Ends the walk with a block for a reason of the engine's own.
    #[inline(always)]
    pub fn close(&mut self, reason: Reason) -> Step {
        self.arbitration.close(reason);
        Step::Done
    }

    /// The run is over: on to the next tree, or to the answers.
    #[inline(always)]
    fn next_tree(&mut self) {
        if self.tree < self.trees {
            self.at = self.roots.wrapping_add(self.tree);
            self.tree += 1;
        } else {
            self.arbitrating = 1;
        }
    }

    /// Walks the trees again for the filters after `rank`.
    ///
    /// The candidates of lower sublayers are kept: whatever matches there has their rank or a later one.
    #[inline(always)]
    fn walk_again_after(&mut self, rank: u32) {
        self.floor = rank;
        self.best[self.sublayer as usize % MAX_SUBLAYERS] = NO_RANK;
        self.at = self.roots;
        self.tree = 1;
        self.arbitrating = 0;
    }

    /// The rank of the filter that answers next.
    #[inline(always)]
    fn candidate(&self) -> u32 {
        self.best[self.sublayer as usize % MAX_SUBLAYERS]
    }

    /// The filter that answers next. After [`Step::Callout`] it names the callout to ask.
    #[inline(always)]
    pub fn callout<'a, I: Image + ?Sized>(&self, image: &'a I) -> Option<&'a Cell> {
        self.answering(image).filter(|cell| cell.kind() == kind::FILTER)
    }

    /// The cell where the filter that answers next must stand.
    #[inline(always)]
    fn answering<'a, I: Image + ?Sized>(&self, image: &'a I) -> Option<&'a Cell> {
        let place = self.candidate() & ((1 << RANK_SUBLAYER_SHIFT) - 1);
        image.cell(self.filters.wrapping_add(place))
    }

    /// Goes on after [`Step::Callout`] with what the callout said.
    pub fn resume<O: Observer>(&mut self, filter: &Cell, answer: CalloutAnswer, observer: &mut O) -> Step {
        let before = self.arbitration;
        let answer = self.arbitration.callout(filter, self.sublayer, answer);
        observer.answer(self.candidate(), filter, &before, answer);
        self.follow(answer)
    }

    /// Goes on after [`Step::Callout`] as if the callout was not registered: it cannot be asked.
    #[inline(always)]
    pub fn pass_over<I: Image + ?Sized, O: Observer>(&mut self, image: &I, observer: &mut O) -> Step {
        match self.answering(image) {
            Some(filter) if filter.kind() == kind::FILTER => self.resume_unregistered(filter, observer),
            Some(_) => self.close(Reason::BadCell),
            None => self.close(Reason::LookupFailed),
        }
    }

    /// The same with the filter at hand.
    #[inline(always)]
    pub fn resume_unregistered<O: Observer>(&mut self, filter: &Cell, observer: &mut O) -> Step {
        let before = self.arbitration;
        let answer = self.arbitration.answer(filter, self.sublayer);
        observer.answer(self.candidate(), filter, &before, answer);
        self.follow(answer)
    }

    /// On to the next sublayer, or to the next filter of this one.
    #[inline(always)]
    fn follow(&mut self, answer: Answer) -> Step {
        match answer {
            Answer::Terminating => self.sublayer += 1,
            Answer::Continue => self.walk_again_after(self.candidate()),
            Answer::Late => return Step::Done,
            Answer::Bad => return self.close(Reason::BadCell),
        }
        Step::Again
    }

    /// Whether no filter from this rank on can matter in the run.
    #[inline(always)]
    fn ends_run(&self, rank: u32) -> bool {
        let sublayer = rank >> RANK_SUBLAYER_SHIFT;
        sublayer + 1 == self.sublayers && rank >= self.best[sublayer as usize % MAX_SUBLAYERS]
    }
}

/// Whether a test cell matches a value.
#[inline(always)]
fn matches(test: &Cell, value: u64) -> bool {
    let known = value < EMPTY;
    match test.kind() {
        kind::RANGE => value.wrapping_sub(test.a as u64) <= test.b as u64,
        kind::MASK => known && value as u32 & test.a == test.b,
        kind::ANY => known && value as u32 & test.a != 0,
        kind::STATE => value == EMPTY + test.a as u64,
        _ => true,
    }
}

/// Makes one step of the walk: looks at one cell.
#[inline(always)]
pub fn step<I, O>(image: &I, values: &Values, state: &mut State, observer: &mut O) -> Step
where
    I: Image + ?Sized,
    O: Observer,
{
    if state.arbitrating != 0 {
        return arbitrate(image, state, observer);
    }
    let Some(cell) = image.cell(state.at) else {
        return state.close(Reason::LookupFailed);
    };
    let value = values.get(cell.word());
    match cell.kind() {
        kind::NODE => {
            let child =
                (value > cell.a as u64) as u32 + (value > cell.b as u64) as u32 + (value > cell.c as u64) as u32;
            observer.node(cell, value, child);
            state.at = cell.target() + child;
        }
        kind::JUMP | kind::JUMP_ALWAYS => {
            let outside = cell.kind() == kind::JUMP && value.wrapping_sub(cell.b as u64) > cell.c as u64;
            if outside || state.ends_run(cell.a) {
                state.next_tree();
            } else {
                state.at = cell.target();
            }
        }
        kind::NOTHING => state.next_tree(),
        kind::RANGE | kind::MASK | kind::ANY | kind::STATE | kind::ALWAYS => {
            let rank = cell.c;
            let sublayer = rank >> RANK_SUBLAYER_SHIFT;
            // what stands in `best` of no sublayer of the layer is left from another walk
            if sublayer >= state.sublayers {
                return state.close(Reason::BadCell);
            }
            let sublayer = sublayer as usize % MAX_SUBLAYERS;
            let mut distance = cell.on_failure();
            if rank > state.floor && rank < state.best[sublayer] {
                let matched = matches(cell, value);
                observer.test(cell, value, matched);
                if matched {
                    if cell.on_match() == 0 {
                        state.best[sublayer] = rank;
                        observer.candidate(rank);
                    } else {
                        distance = cell.on_match();
                    }
                }
            }
            if distance == 0 || state.ends_run(rank) {
                state.next_tree();
            } else {
                state.at = state.at.wrapping_add(distance);
            }
        }
        _ => return state.close(Reason::BadCell),
    }
    Step::Again
}

/// Takes the answer of the next sublayer.
#[inline(always)]
fn arbitrate<I, O>(image: &I, state: &mut State, observer: &mut O) -> Step
where
    I: Image + ?Sized,
    O: Observer,
{
    if state.sublayer >= state.sublayers {
        return Step::Done;
    }
    let rank = state.candidate();
    if rank == NO_RANK {
        state.sublayer += 1;
        return if state.sublayer < state.sublayers { Step::Again } else { Step::Done };
    }
    let Some(filter) = state.answering(image) else {
        return state.close(Reason::LookupFailed);
    };
    if filter.kind() != kind::FILTER {
        return state.close(Reason::BadCell);
    }
    if is_registered_callout(filter) {
        return Step::Callout;
    }
    state.pass_over(image, observer)
}

#[inline(always)]
fn is_registered_callout(filter: &Cell) -> bool {
    filter.filter_flags() & filter_flags::CALLOUT_REGISTERED != 0
        && matches!(
            filter.filter_action(),
            filter_action::CALLOUT_TERMINATING | filter_action::CALLOUT_INSPECTION | filter_action::CALLOUT_UNKNOWN
        )
}

/// Is asked for registered callouts.
pub trait Callouts {
    /// What the callout that this filter names says, knowing the action so far.
    fn classify(&mut self, filter: &Cell, so_far: &Arbitration) -> CalloutAnswer;
}

/// Callouts where there are none: a filter that claims otherwise blocks.
impl Callouts for () {
    fn classify(&mut self, _: &Cell, _: &Arbitration) -> CalloutAnswer {
        CalloutAnswer { action: CalloutAction::Block, clear_action_right: true }
    }
}

/// Classifies values at a layer: the loop around [`step`], for user space.
pub fn classify<I, O>(image: &I, layer: u16, values: &Values, observer: &mut O) -> Verdict
where
    I: Image + ?Sized,
    O: Observer,
{
    classify_with(image, layer, values, MAX_STEPS, &mut (), observer)
}

/// The same with another bound on the steps, and with callouts.
pub fn classify_with<I, C, O>(
    image: &I,
    layer: u16,
    values: &Values,
    bound: u32,
    callouts: &mut C,
    observer: &mut O,
) -> Verdict
where
    I: Image + ?Sized,
    C: Callouts,
    O: Observer,
{
    let mut state = State::default();
    let mut steps = 0;
    let mut next = state.begin(image, layer);
    loop {
        next = match next {
            Step::Done => break,
            _ if steps == bound => state.close(Reason::Bound),
            Step::Again => {
                steps += 1;
                step(image, values, &mut state, observer)
            }
            Step::Callout => match state.callout(image) {
                Some(filter) => {
                    let answer = callouts.classify(filter, &state.arbitration);
                    state.resume(filter, answer, observer)
                }
                // it was there when it was found to name a callout
                None => state.close(Reason::LookupFailed),
            },
        }
    }
    state.arbitration.verdict(steps)
}
