//! What a callout answers.

use std::sync::Arc;

use openwfp_engine::{Action, Arbitration, CalloutAction, CalloutAnswer};
use openwfp_model::{CalloutKind, FilterFlags};

use crate::{Filter, LayerData, PendError, PendedOperation, RedirectRequest};

/// What becomes of a portion of a stream beside the action (`FWPS_STREAM_ACTION_TYPE`). Where it is not `None`, the action does not
/// count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StreamAction {
    /// Nothing special: the action counts.
    #[default]
    None,
    /// The callout wants to see nothing more of this connection, in neither direction; it permits all of it.
    AllowConnection,
    /// The callout needs so many bytes more before it can say anything; they are at least 1. Nothing of the portion goes on.
    NeedMoreData(usize),
    /// The connection is ended both ways.
    DropConnection,
    /// The callout will say so when it goes on ([`Platform::continue_stream`](crate::Platform::continue_stream)); for received data
    /// alone. The sender is slowed down by that.
    Defer,
}

/// An answer (`FWPS_CLASSIFY_OUT`). Authors make it with [`ClassifyOut`]; to complete what was pended, with [`Answer::permit`] and the like.
///
/// Its fields are as the callout wrote them. Hosts take them through [`Answer::settle`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// Permit, block, or neither.
    pub action: CalloutAction,
    /// Whether the right to write the action is withdrawn from those below.
    pub clear_action_right: bool,
    /// A block that nobody hears of (`FWPS_CLASSIFY_OUT_FLAG_ABSORB`).
    pub absorb: bool,
    /// The packet as it shall go on: it is injected where it was taken, in the place of the one at hand.
    pub packet: Option<Vec<u8>>,
    /// What becomes of the stream.
    pub stream: StreamAction,
    /// To how many of the bytes the answer applies (`countBytesEnforced`); 0: to all. The rest is shown again.
    pub enforced: usize,
    /// What takes the place of those bytes.
    pub replacement: Option<Vec<u8>>,
    /// The bind or connect as it shall be carried out.
    pub redirect: Option<RedirectRequest>,
}

impl Answer {
    const fn of(action: CalloutAction) -> Self {
        Self {
            action,
            clear_action_right: false,
            absorb: false,
            packet: None,
            stream: StreamAction::None,
            enforced: 0,
            replacement: None,
            redirect: None,
        }
    }

    /// A permit, soft.
    #[must_use]
    pub const fn permit() -> Self {
        Self::of(CalloutAction::Permit)
    }

    /// A block, soft.
    #[must_use]
    pub const fn block() -> Self {
        Self::of(CalloutAction::Block)
    }

    /// Neither (`FWP_ACTION_CONTINUE`, `FWP_ACTION_NONE`): the sublayer's next matching filter says.
    #[must_use]
    pub const fn continue_() -> Self {
        Self::of(CalloutAction::Continue)
    }

    /// A block that cannot be overridden, for what went wrong.
    #[must_use]
    pub fn closed() -> Self {
        Self { clear_action_right: true, ..Self::of(CalloutAction::Block) }
    }

    /// The packet goes on changed.
    #[must_use]
    pub fn modified(packet: Vec<u8>) -> Self {
        Self { absorb: true, packet: Some(packet), ..Self::closed() }
    }

    /// The same, and nobody below can change it.
    #[must_use]
    pub fn hard(mut self) -> Self {
        self.clear_action_right = true;
        self
    }

    /// What the engine arbitrates.
    #[must_use]
    pub const fn arbitrated(&self) -> CalloutAnswer {
        CalloutAnswer { action: self.action, clear_action_right: self.clear_action_right }
    }
}

/// What stands so far, as a callout is told (`actionType` on entry).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ActionSoFar {
    /// Nobody has said anything.
    #[default]
    None,
    /// Permit.
    Permit,
    /// Block.
    Block,
}

impl From<&Arbitration> for ActionSoFar {
    fn from(arbitration: &Arbitration) -> Self {
        match (arbitration.is_block(), arbitration.verdict(0)) {
            (true, _) => Self::Block,
            (false, verdict) if verdict.action == Action::Permit && verdict.filter != 0 => Self::Permit,
            _ => Self::None,
        }
    }
}

/// Hands out pended operations. For hosts.
pub trait Pender: Send + Sync {
    /// Pends the event at hand.
    ///
    /// # Errors
    /// Why it cannot be pended.
    fn pend(&self) -> Result<PendedOperation, PendError>;
}

/// Where a callout writes its answer (`FWPS_CLASSIFY_OUT`).
///
/// A callout that writes nothing lets the sublayer go on. Permit and block clear the right to write the action where
/// the filter has `CLEAR_ACTION_RIGHT`; see `docs/callouts.md` for who overrides whom.
pub struct ClassifyOut {
    so_far: ActionSoFar,
    right: bool,
    clears: bool,
    inspects: bool,
    shown: usize,
    redirect: Option<RedirectRequest>,
    pender: Option<Arc<dyn Pender>>,
    pended: Option<u64>,
    answer: Answer,
}

impl ClassifyOut {
    /// Where the answer to this filter is written, knowing what stands so far. For hosts.
    #[must_use]
    pub fn new(filter: &Filter, so_far: ActionSoFar, right: bool, data: &LayerData<'_>) -> Self {
        let shown = match data {
            LayerData::None => 0,
            LayerData::Packet(packet) => packet.bytes.len(),
            LayerData::Stream(stream) => stream.bytes.len(),
        };
        Self {
            so_far,
            right,
            clears: filter.flags.contains(FilterFlags::CLEAR_ACTION_RIGHT),
            inspects: filter.kind == CalloutKind::Inspection,
            shown,
            redirect: None,
            pender: None,
            pended: None,
            answer: Answer::continue_(),
        }
    }

    /// The same where the event can be pended. For hosts.
    #[must_use]
    pub fn with_pender(mut self, pender: Option<Arc<dyn Pender>>) -> Self {
        self.pender = pender;
        self
    }

    /// The same with a bind or connect that can be rewritten. For hosts.
    #[must_use]
    pub fn with_redirect(mut self, request: Option<RedirectRequest>) -> Self {
        self.redirect = request;
        self
    }

    /// What was written, and the number of the operation that was pended in its place. For hosts.
    #[must_use]
    pub fn into_answer(self) -> (Answer, Option<u64>) {
        (self.answer, self.pended)
    }

    /// What stands so far.
    #[must_use]
    pub const fn so_far(&self) -> ActionSoFar {
        self.so_far
    }

    /// Whether the action may be written (`FWPS_RIGHT_ACTION_WRITE`). Without the right all that counts is a block of what was
    /// permitted: a veto.
    #[must_use]
    pub const fn has_right(&self) -> bool {
        self.right
    }

    /// Permits. Without the right it does not count.
    pub fn permit(&mut self) {
        self.write(CalloutAction::Permit);
    }

    /// Blocks. Without the right it is a veto, which counts against a permit.
    pub fn block(&mut self) {
        self.write(CalloutAction::Block);
    }

    /// Lets the sublayer's next matching filter say (`FWP_ACTION_CONTINUE`).
    pub fn continue_(&mut self) {
        self.write(CalloutAction::Continue);
    }

    fn write(&mut self, action: CalloutAction) {
        self.answer = Answer { redirect: self.answer.redirect.take(), ..Answer::of(action) };
        self.answer.clear_action_right = self.clears && action != CalloutAction::Continue;
    }

    /// Withdraws the right to write the action from those below.
    pub fn clear_action_right(&mut self) {
        self.answer.clear_action_right = true;
    }

    /// Blocks so that nobody hears of it: no discard layer, no event of a block. False, and a veto, without the right.
    pub fn absorb(&mut self) -> bool {
        self.write(CalloutAction::Block);
        if self.right {
            (self.answer.absorb, self.answer.clear_action_right) = (true, true);
        }
        self.right
    }

    /// Has another packet go on in the place of this one, longer or shorter: the one at hand is absorbed, the other
    /// injected where this one stood, and classified there by every filter; this callout recognises it by its injection state. Lengths and checksums
    /// are mended. False, and a veto, without the right: an unchanged packet must not pass then.
    pub fn replace_packet(&mut self, packet: Vec<u8>) -> bool {
        if self.absorb() {
            self.answer.packet = Some(packet);
        }
        self.right
    }

    /// Has the packet go on with another payload behind its transport header; see [`replace_packet`](Self::replace_packet).
    pub fn replace_payload(&mut self, packet: &crate::PacketData<'_>, payload: &[u8]) -> bool {
        let mut changed = Vec::with_capacity(packet.payload + payload.len());
        changed.extend_from_slice(&packet.bytes[..packet.payload]);
        changed.extend_from_slice(payload);
        self.replace_packet(changed)
    }

    /// Sets what becomes of the stream beside the action.
    pub fn stream(&mut self, action: StreamAction) {
        self.answer.stream = action;
    }

    /// Has the answer apply to the first `bytes` of the data alone; the rest is shown again (`countBytesEnforced`).
    pub fn enforce(&mut self, bytes: usize) {
        self.answer.enforced = bytes.min(self.shown);
    }

    /// Has other data go on in the place of those to which the answer applies: those are taken out, and the others injected there and
    /// classified by every filter. False, and a veto, without the right.
    pub fn replace_data(&mut self, data: Vec<u8>) -> bool {
        let enforced = self.answer.enforced;
        self.write(CalloutAction::Block);
        self.answer.enforced = enforced;
        if self.right {
            (self.answer.replacement, self.answer.clear_action_right) = (Some(data), true);
        }
        self.right
    }

    /// The bind or connect at hand, to be rewritten (`FwpsAcquireWritableLayerDataPointer`). None where there is none, or the right is gone.
    /// What is written counts with a permit; [`redirect`](Self::redirect) applies it.
    #[must_use]
    pub fn redirect_request(&self) -> Option<RedirectRequest> {
        self.redirect.clone().filter(|_| self.right)
    }

    /// Has the bind or connect carried out like this (`FwpsApplyModifiedLayerData`), and permits it.
    pub fn redirect(&mut self, request: RedirectRequest) -> bool {
        self.write(CalloutAction::Permit);
        if self.right {
            self.answer.redirect = Some(request);
        }
        self.right
    }

    /// Pends the event: the answer comes with [`PendedOperation::complete`], and what else is written here does not count
    /// (`FwpsPendOperation`, `FwpsPendClassify`).
    ///
    /// # Errors
    /// Why it cannot be pended.
    pub fn pend(&mut self) -> Result<PendedOperation, PendError> {
        if self.inspects {
            return Err(PendError::Inspection);
        }
        if !self.right {
            return Err(PendError::NoRight);
        }
        if self.pended.is_some() {
            return Err(PendError::Pended);
        }
        let operation = self.pender.as_ref().ok_or(PendError::CannotPend)?.pend()?;
        self.pended = Some(operation.operation());
        Ok(operation)
    }
}
