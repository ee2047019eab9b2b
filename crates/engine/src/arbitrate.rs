//! Arbitration between sublayers: which of their answers stands.
//!
//! Source: MS docs, "Filter Arbitration". The sublayers answer from the highest weight to the lowest, and every one is
//! asked. The action so far goes down with the right to write it:
//!
//! | so far | permit below | block by a filter below |
//! | --- | --- | --- |
//! | nothing | permit | block, hard |
//! | soft permit | permit | block, hard |
//! | soft block | permit | block, hard |
//! | hard permit | stays | stays |
//! | hard block | stays | stays |
//!
//! A permit is soft unless its filter clears the action right; a filter's block is always hard. A callout that blocks
//! without the right turns a hard permit into a block, a *veto*: the one change that may be written without the right.

use crate::{
    cell::{Cell, filter_action, filter_flags},
    verdict::{Action, Reason, Verdict},
};

/// The action so far, and whether it may still be written.
///
/// Plain words, because it lives in BPF map memory; few of them, and not all zero at the start of a walk in one row,
/// because LLVM makes a call to `memset` of that, which BPF lacks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arbitration {
    /// Bits 0 and 1: 0 nothing yet, 1 permit, 2 block, 3 late; bit 2: the right to write the action is gone; bits 8 to
    /// 15: the reason; bits 16 to 31: the errno.
    status: u32,
    sublayer: u32,
    filter: u64,
}

const PERMIT: u32 = 1;
const BLOCK: u32 = 2;
const LATE: u32 = 3;
const ACTION: u32 = 3;
const HARD: u32 = 4;

/// What a registered callout says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalloutAction {
    /// Let it go on.
    Permit,
    /// Do not.
    Block,
    /// Let the sublayer's next matching filter say.
    Continue,
}

/// A registered callout's answer (`FWPS_CLASSIFY_OUT0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalloutAnswer {
    /// What it says.
    pub action: CalloutAction,
    /// Whether it withdraws the right to write the action from those below.
    pub clear_action_right: bool,
}

/// What a sublayer's candidate means for the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The sublayer has answered; go to the next one.
    Terminating,
    /// The candidate lets the sublayer go on to its next matching filter.
    Continue,
    /// The outcome depends on a value that is not known yet; stop.
    Late,
    /// The cell is no filter.
    Bad,
}

impl Arbitration {
    /// Nothing said yet.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.status = 0;
        self.filter = 0;
    }

    /// Whether the right to write the action is gone.
    #[inline(always)]
    #[must_use]
    pub fn is_hard(&self) -> bool {
        self.status & HARD != 0
    }

    #[inline(always)]
    fn write(&mut self, action: u32, hard: bool, reason: Reason, filter: &Cell, sublayer: u32) {
        if !self.is_hard() {
            let hard = if hard { HARD } else { 0 };
            self.status = action | hard | (reason as u32) << 8 | (filter.filter_errno() as u32) << 16;
            self.filter = filter.filter_id();
            self.sublayer = sublayer;
        }
    }

    /// Takes the answer of the filter (or marker) that is next in its sublayer.
    #[inline(always)]
    pub fn answer(&mut self, filter: &Cell, sublayer: u32) -> Answer {
        let clears = filter.filter_flags() & filter_flags::CLEAR_ACTION_RIGHT != 0;
        match filter.filter_action() {
            filter_action::PERMIT => self.write(PERMIT, clears, Reason::None, filter, sublayer),
            filter_action::BLOCK => self.write(BLOCK, true, Reason::None, filter, sublayer),
            filter_action::CONTINUE | filter_action::CALLOUT_INSPECTION => return Answer::Continue,
            filter_action::CALLOUT_TERMINATING | filter_action::CALLOUT_UNKNOWN => {
                let permits = filter.filter_flags() & filter_flags::PERMIT_IF_CALLOUT_UNREGISTERED != 0;
                let action = if permits { PERMIT } else { BLOCK };
                self.write(action, !permits, Reason::CalloutUnregistered, filter, sublayer);
            }
            filter_action::LATE => {
                if !self.is_hard() {
                    self.write(LATE, true, Reason::None, filter, sublayer);
                    return Answer::Late;
                }
            }
            filter_action::UNREADABLE => self.write(BLOCK, true, Reason::Unreadable, filter, sublayer),
            _ => return Answer::Bad,
        }
        Answer::Terminating
    }

    /// Takes the answer of the registered callout that a filter names.
    ///
    /// An inspection callout's answer does not count. A block without the right is a veto.
    pub fn callout(&mut self, filter: &Cell, sublayer: u32, answer: CalloutAnswer) -> Answer {
        let inspects = filter.filter_action() == filter_action::CALLOUT_INSPECTION;
        let clears = answer.clear_action_right;
        match answer.action {
            _ if inspects => return Answer::Continue,
            CalloutAction::Continue => return Answer::Continue,
            CalloutAction::Permit => self.write(PERMIT, clears, Reason::None, filter, sublayer),
            CalloutAction::Block if self.is_hard() && self.status & ACTION == PERMIT => {
                self.status = 0;
                self.write(BLOCK, true, Reason::Veto, filter, sublayer);
            }
            CalloutAction::Block => self.write(BLOCK, clears, Reason::None, filter, sublayer),
        }
        Answer::Terminating
    }

    /// Blocks for a reason of the engine's own, whatever was said so far.
    #[inline(always)]
    pub fn close(&mut self, reason: Reason) {
        self.status = BLOCK | HARD | (reason as u32) << 8;
        self.filter = 0;
    }

    /// Whether the outcome is a block.
    #[inline(always)]
    #[must_use]
    pub fn is_block(&self) -> bool {
        self.status & ACTION == BLOCK
    }

    /// Whether the outcome depends on a value that is not known yet.
    #[inline(always)]
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.status & ACTION == LATE
    }

    /// The number of the [`Reason`].
    #[inline(always)]
    #[must_use]
    pub fn reason_number(&self) -> u8 {
        (self.status >> 8) as u8
    }

    /// The deciding filter's id; 0: none.
    #[inline(always)]
    #[must_use]
    pub fn filter(&self) -> u64 {
        self.filter
    }

    /// The errno of the deciding filter; 0: the default.
    #[inline(always)]
    #[must_use]
    pub fn errno(&self) -> u16 {
        (self.status >> 16) as u16
    }

    /// The outcome. Where no sublayer has answered, it is a soft permit.
    #[must_use]
    pub fn verdict(&self, steps: u32) -> Verdict {
        Verdict {
            action: match self.status & ACTION {
                BLOCK => Action::Block,
                LATE => Action::Late,
                _ => Action::Permit,
            },
            soft: !self.is_hard(),
            reason: Reason::from_number(self.reason_number()).unwrap_or(Reason::BadCell),
            errno: self.errno(),
            filter: self.filter(),
            sublayer: self.sublayer,
            steps,
        }
    }
}
