//! What counts of an answer: it is checked by one function, whoever wrote it.

use std::net::SocketAddr;

use openwfp_engine::CalloutAction;
use openwfp_model::CalloutKind;
use openwfp_packet::flow::Direction;

use crate::{Answer, LayerData, RedirectRequest, StreamAction, mend};

/// What an answer is an answer to. For hosts.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What the callout may answer.
    pub kind: CalloutKind,
    /// Whether the right to write the action was there.
    pub right: bool,
    /// The bytes that were shown.
    pub data: LayerData<'a>,
    /// Whether they are a frame rather than an IP packet.
    pub frame: bool,
    /// Whether the layer is one of discarded traffic.
    pub discard: bool,
    /// The bind or connect that could be rewritten.
    pub redirect: Option<&'a RedirectRequest>,
}

/// What is wrong with an answer. Counted by hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Nonsense {
    /// An inspection callout wanted to change something: passed over.
    Inspection,
    /// It was changed, but not decided: blocked.
    ContinuedAndChanged,
    /// Absorbed or changed where there is no packet: blocked.
    NothingToAbsorb,
    /// Absorbed or changed without the right to write the action: blocked.
    NoRight,
    /// The changed bytes are no packet: blocked.
    NotAPacket,
    /// A stream action where there is no stream: blocked.
    NoStream,
    /// It applies to more bytes than were shown: to all of them.
    BeyondTheData,
    /// Sent data were deferred: blocked.
    DeferredSend,
    /// More data were asked for at the end of the stream: blocked.
    NothingMoreToCome,
}

impl Answer {
    /// What counts of the answer, whoever wrote it: the first thing that is wrong with it is told, and what cannot be done is
    /// blocked, never passed over. Packets come out with lengths and checksums mended.
    pub fn settle(mut self, question: &Question<'_>) -> (Self, Option<Nonsense>) {
        let mut nonsense = None;
        if question.kind == CalloutKind::Inspection {
            // It may look, and say when it has seen enough.
            let allowed = matches!(self.stream, StreamAction::None | StreamAction::AllowConnection);
            let changes = self.absorb || self.packet.is_some() || self.replacement.is_some() || self.redirect.is_some();
            let kept = Self { stream: if allowed { self.stream } else { StreamAction::None }, ..Self::continue_() };
            return (kept, (!allowed || changes).then_some(Nonsense::Inspection));
        }
        if self.action == CalloutAction::Continue {
            self.clear_action_right = false;
            if self.absorb || self.packet.is_some() || self.replacement.is_some() {
                return (Self::closed(), Some(Nonsense::ContinuedAndChanged));
            }
        }
        let is_packet = matches!(question.data, LayerData::Packet(_)) && !question.discard;
        let can_absorb = is_packet || matches!(question.data, LayerData::Stream(_)) && !question.discard;
        if self.absorb && !can_absorb || self.packet.is_some() && !is_packet {
            nonsense = Some(Nonsense::NothingToAbsorb);
            (self.absorb, self.packet) = (false, None);
            (self.action, self.clear_action_right) = (CalloutAction::Block, true);
        }
        if (self.absorb || self.packet.is_some()) && !question.right {
            // All that may be written without the right is a block.
            let said = nonsense.or(Some(Nonsense::NoRight));
            return (Self::block(), said);
        }
        if let Some(packet) = &mut self.packet {
            if mend(question.frame, packet).is_err() {
                return (Self::closed(), Some(Nonsense::NotAPacket));
            }
            (self.action, self.absorb) = (CalloutAction::Block, true);
        }
        if self.absorb {
            (self.action, self.clear_action_right) = (CalloutAction::Block, true);
        }
        let (answer, of_stream) = self.settle_stream(question);
        (answer.settle_redirect(question), nonsense.or(of_stream))
    }

    fn settle_stream(mut self, question: &Question<'_>) -> (Self, Option<Nonsense>) {
        let LayerData::Stream(stream) = question.data else {
            let asked = self.stream != StreamAction::None || self.replacement.is_some();
            (self.stream, self.enforced, self.replacement) = (StreamAction::None, 0, None);
            return if asked { (Self::closed(), Some(Nonsense::NoStream)) } else { (self, None) };
        };
        let length = stream.bytes.len();
        let mut nonsense = None;
        if self.enforced > length {
            nonsense = Some(Nonsense::BeyondTheData);
            self.enforced = 0;
        }
        if self.replacement.is_some() && !question.right {
            return (Self { stream: StreamAction::None, ..Self::block() }, Some(Nonsense::NoRight));
        }
        if self.replacement.is_some() {
            // The bytes at hand are taken out, whatever was said beside that.
            (self.action, self.clear_action_right) = (CalloutAction::Block, true);
        }
        match self.stream {
            StreamAction::Defer if stream.direction == Direction::Outbound => {
                return (Self::closed(), Some(Nonsense::DeferredSend));
            }
            StreamAction::NeedMoreData(_) | StreamAction::Defer if stream.is_last() => {
                return (Self::closed(), Some(Nonsense::NothingMoreToCome));
            }
            StreamAction::NeedMoreData(more) => self.stream = StreamAction::NeedMoreData(more.max(1)),
            StreamAction::AllowConnection => {
                (self.action, self.clear_action_right) = (CalloutAction::Permit, false);
            }
            StreamAction::DropConnection => {
                (self.action, self.clear_action_right) = (CalloutAction::Block, true);
            }
            StreamAction::None | StreamAction::Defer => {}
        }
        if self.stream != StreamAction::None {
            // It is about the connection, not about these bytes.
            (self.enforced, self.replacement, self.absorb) = (0, None, false);
        }
        (self, nonsense)
    }

    fn settle_redirect(mut self, question: &Question<'_>) -> Self {
        if let (Some(redirect), Some(before)) = (&mut self.redirect, question.redirect) {
            // A connect goes out from where the socket is bound.
            if before.remote.is_some() {
                redirect.local = before.local;
            }
            redirect.context.truncate(RedirectRequest::MAX_CONTEXT);
        }
        let usable = |redirect: &RedirectRequest, before: &RedirectRequest| {
            let same_version = |a: Option<SocketAddr>, b: Option<SocketAddr>| match (a, b) {
                (Some(a), Some(b)) => a.is_ipv4() == b.is_ipv4(),
                (a, b) => a.is_some() == b.is_some(),
            };
            question.right && same_version(redirect.local, before.local) && same_version(redirect.remote, before.remote)
        };
        if let Some(redirect) = &self.redirect
            && question.redirect.is_none_or(|before| !usable(redirect, before))
        {
            return Self::closed();
        }
        self
    }
}
