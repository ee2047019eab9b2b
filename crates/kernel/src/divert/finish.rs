//! A classification that the programs have suspended, taken to its end.

use super::policies::Policy;
use openwfp_abi::divert::{DivertRecord, STATE_WORDS, VALUES};
use openwfp_engine::{
    Arbitration, CalloutAction, CalloutAnswer, Cell, MAX_STEPS, Reason, Silent, State, Step, Values, Verdict, step,
};

/// Which callout is asked, by which filter.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The callout's number: its place among those that are registered.
    pub callout: u32,
    /// The filter's id.
    pub filter: u64,
    /// The filter's flags and kind of callout are in its cell.
    pub cell: Cell,
    /// The action so far, and whether it may still be written.
    pub so_far: Arbitration,
}

/// A walk over an image that waits for a callout, or has ended.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub generation: u32,
    pub values: Values,
    layer: u16,
    state: State,
    steps: u32,
    next: Step,
}

impl Walk {
    /// The walk of a record, from where it stopped.
    pub fn of_record(record: &DivertRecord) -> Self {
        const { assert!(size_of::<State>() == STATE_WORDS * 8) };
        // SAFETY: the words of a `State`, which consists of integers alone; any values of them are walked within the image.
        let state = unsafe { (&raw const record.state).cast::<State>().read() };
        const { assert!(size_of::<Values>() == VALUES * 8) };
        // SAFETY: the words of `Values`, as the programs had them; any integers are.
        let values = unsafe { (&raw const record.values).cast::<Values>().read() };
        Self { generation: record.generation, values, layer: record.layer, state, steps: 0, next: Step::Callout }
    }

    /// The same classification afresh, on another policy.
    pub fn afresh(&mut self, policy: &Policy, record: &DivertRecord) {
        policy.translate(record, &mut self.values);
        self.generation = policy.generation;
        self.steps = 0;
        self.next = self.state.begin(&policy.cells[..], self.layer);
    }

    /// Walks until a callout has to be asked, or to the end.
    pub fn walk(&mut self, policy: &Policy) -> Result<Asked, Verdict> {
        let image = &policy.cells[..];
        loop {
            match self.next {
                Step::Done => return Err(self.state.arbitration.verdict(self.steps)),
                _ if self.steps == MAX_STEPS => self.next = self.state.close(Reason::Bound),
                Step::Again => {
                    self.steps += 1;
                    self.next = step(image, &self.values, &mut self.state, &mut Silent);
                }
                Step::Callout => match self.state.callout(image) {
                    Some(cell) => {
                        let so_far = self.state.arbitration;
                        return Ok(Asked { callout: cell.callout(), filter: cell.filter_id(), cell: *cell, so_far });
                    }
                    None => self.next = self.state.close(Reason::LookupFailed),
                },
            }
        }
    }

    /// Takes the answer of the callout that was asked.
    pub fn answer(&mut self, asked: &Asked, answer: CalloutAnswer) {
        self.steps += 1;
        self.next = self.state.resume(&asked.cell, answer, &mut Silent);
    }

    /// The callout that was asked cannot be: as if it was not registered.
    pub fn pass_over(&mut self, policy: &Policy) {
        self.steps += 1;
        self.next = self.state.pass_over(&policy.cells[..], &mut Silent);
    }
}

/// A soft permit, block or continue.
#[must_use]
pub const fn soft(action: CalloutAction) -> CalloutAnswer {
    CalloutAnswer { action, clear_action_right: false }
}
