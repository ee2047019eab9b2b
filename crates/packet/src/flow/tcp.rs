//! The life of a TCP connection, as far as its segments tell who opened it and whether it stands.

use crate::packet::TcpHeader;
use crate::wire::TcpFlags;

/// What a segment changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpChange {
    /// Nothing that matters here.
    None,
    /// The local side now counts the connection as established.
    Established,
    /// Both sides have ended the connection, and the last end was acknowledged.
    Closed,
    /// One side reset the connection.
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The opener's SYN was seen.
    Opening,
    /// The other side has answered it.
    Answered,
    /// The handshake is over.
    Established,
    /// Both sides have ended it, or one has reset it.
    Ended,
}

/// Which side sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The side that opened the connection.
    Opener,
    /// The side that was asked.
    Acceptor,
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpState {
    phase: Phase,
    /// The sequence number of the opener's SYN, unless the connection was picked up in the middle.
    opening: Option<u32>,
    /// The sequence number of the acceptor's SYN, if it was seen.
    answer: Option<u32>,
    /// Who has sent FIN: first the opener, then the acceptor.
    ended: [bool; 2],
    /// Who sent the second of the two FINs, which the other side has to acknowledge.
    ended_last: Sender,
}

impl TcpState {
    /// A connection whose first segment is the opener's SYN.
    #[must_use]
    pub const fn opened_by(syn: &TcpHeader) -> Self {
        Self::in_phase(Phase::Opening, Some(syn.sequence))
    }

    /// A connection whose SYN was not seen, but the answer to it.
    #[must_use]
    pub const fn answered_by(answer: &TcpHeader) -> Self {
        Self { answer: Some(answer.sequence), ..Self::in_phase(Phase::Answered, None) }
    }

    /// A connection of whose handshake nothing was seen.
    #[must_use]
    pub const fn picked_up() -> Self {
        Self::in_phase(Phase::Established, None)
    }

    const fn in_phase(phase: Phase, opening: Option<u32>) -> Self {
        Self { phase, opening, answer: None, ended: [false; 2], ended_last: Sender::Opener }
    }

    /// The sequence number of a side's SYN; `None` when it was not seen.
    #[must_use]
    pub const fn syn_of(&self, side: Sender) -> Option<u32> {
        match side {
            Sender::Opener => self.opening,
            Sender::Acceptor => self.answer,
        }
    }

    /// Whether the handshake is over and the end has not come.
    #[must_use]
    pub const fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    /// Whether the end has come.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether a segment begins another connection between the same endpoints, rather than repeating a SYN of this one.
    #[must_use]
    pub fn is_replaced_by(&self, sender: Sender, segment: &TcpHeader) -> bool {
        if !is_syn(segment.flags) {
            return false;
        }
        match (self.phase, sender) {
            (Phase::Ended, _) => true,
            // A SYN from the other side while ours is under way opens the same connection from both sides.
            (Phase::Opening | Phase::Answered, Sender::Acceptor) => false,
            (Phase::Established, Sender::Acceptor) => true,
            (_, Sender::Opener) => self.opening != Some(segment.sequence),
        }
    }

    /// Follows a segment. `local` says which side the local machine is.
    ///
    /// The two sides take the connection for established at different segments: the opener at the answer to its SYN, the
    /// acceptor at the acknowledgment of that answer (MS docs: TCP Packet Flows).
    pub fn follow(&mut self, local: Sender, sender: Sender, segment: &TcpHeader) -> TcpChange {
        if self.phase == Phase::Ended {
            return TcpChange::None;
        }
        if segment.flags.contains(TcpFlags::RST) {
            self.phase = Phase::Ended;
            return TcpChange::Reset;
        }
        let was_established = self.phase == Phase::Established;
        self.follow_handshake(local, sender, segment);
        let closed = self.follow_end(sender, segment.flags);
        match (was_established, self.phase) {
            (false, Phase::Established) => TcpChange::Established,
            _ if closed => TcpChange::Closed,
            _ => TcpChange::None,
        }
    }

    fn follow_handshake(&mut self, local: Sender, sender: Sender, segment: &TcpHeader) {
        let flags = segment.flags;
        if sender == Sender::Acceptor && flags.contains(TcpFlags::SYN) {
            self.answer.get_or_insert(segment.sequence);
        }
        let (syn, ack) = (flags.contains(TcpFlags::SYN), flags.contains(TcpFlags::ACK));
        self.phase = match (self.phase, sender) {
            (Phase::Opening | Phase::Answered, Sender::Acceptor) if syn && ack && local == Sender::Opener => {
                Phase::Established
            }
            (Phase::Opening, Sender::Acceptor) if syn => Phase::Answered,
            (Phase::Answered, Sender::Acceptor) if ack && local == Sender::Opener => Phase::Established,
            // The answer may have taken another way past the capture.
            (Phase::Opening | Phase::Answered, Sender::Opener) if ack && !syn => Phase::Established,
            (phase, _) => phase,
        };
    }

    /// Follows FINs; whether the connection is closed with this segment.
    fn follow_end(&mut self, sender: Sender, flags: TcpFlags) -> bool {
        if flags.contains(TcpFlags::FIN) {
            let mine = match sender {
                Sender::Opener => 0,
                Sender::Acceptor => 1,
            };
            if !self.ended[mine] {
                self.ended[mine] = true;
                self.ended_last = sender;
            }
            return false;
        }
        let closed = self.ended == [true; 2] && sender != self.ended_last && flags.contains(TcpFlags::ACK);
        if closed {
            self.phase = Phase::Ended;
        }
        closed
    }
}

/// Whether a segment asks for a connection.
#[inline]
#[must_use]
pub(crate) const fn is_syn(flags: TcpFlags) -> bool {
    flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK) && !flags.contains(TcpFlags::RST)
}

/// Whether a segment answers one that asked for a connection.
#[inline]
#[must_use]
pub(crate) const fn is_syn_ack(flags: TcpFlags) -> bool {
    flags.contains(TcpFlags::SYN.union(TcpFlags::ACK)) && !flags.contains(TcpFlags::RST)
}

#[cfg(test)]
mod tests {
    use super::Sender::{Acceptor, Opener};
    use super::*;

    const SYN: u8 = 0x02;
    const SYN_ACK: u8 = 0x12;
    const ACK: u8 = 0x10;
    const FIN_ACK: u8 = 0x11;
    const RST: u8 = 0x04;

    fn segment(flags: u8, sequence: u32) -> TcpHeader {
        TcpHeader {
            source: 40072,
            destination: 80,
            flags: TcpFlags::from_bits(flags),
            sequence,
            ..TcpHeader::default()
        }
    }

    fn changes(local: Sender, mut state: TcpState, segments: &[(Sender, u8)]) -> Vec<TcpChange> {
        segments.iter().map(|&(sender, flags)| state.follow(local, sender, &segment(flags, 1))).collect()
    }

    #[test]
    fn each_side_counts_the_connection_as_established_at_its_own_segment() {
        use TcpChange::{Established, None};
        let rest = [(Acceptor, SYN_ACK), (Opener, ACK), (Opener, ACK), (Acceptor, ACK)];
        let opening = TcpState::opened_by(&segment(SYN, 1));
        assert_eq!(changes(Opener, opening, &rest), [Established, None, None, None]);
        assert_eq!(changes(Acceptor, opening, &rest), [None, Established, None, None]);
    }

    #[test]
    fn a_capture_may_lack_the_answer() {
        let opening = TcpState::opened_by(&segment(SYN, 1));
        for local in [Opener, Acceptor] {
            assert_eq!(changes(local, opening, &[(Opener, ACK)]), [TcpChange::Established]);
        }
    }

    #[test]
    fn both_sides_may_open_at_once() {
        use TcpChange::{Established, None};
        let opening = TcpState::opened_by(&segment(SYN, 1));
        let both = [(Acceptor, SYN), (Opener, SYN_ACK), (Acceptor, SYN_ACK), (Opener, ACK)];
        assert_eq!(changes(Opener, opening, &both), [None, None, Established, None]);
    }

    #[test]
    fn the_end_comes_with_the_acknowledgment_of_the_second_fin() {
        use TcpChange::{Closed, None};
        let end = [(Opener, FIN_ACK), (Acceptor, ACK), (Acceptor, FIN_ACK), (Opener, ACK), (Opener, ACK)];
        assert_eq!(changes(Opener, TcpState::picked_up(), &end), [None, None, None, Closed, None]);
        let crossing = [(Opener, FIN_ACK), (Acceptor, FIN_ACK), (Acceptor, ACK), (Opener, ACK)];
        assert_eq!(changes(Opener, TcpState::picked_up(), &crossing), [None, None, None, Closed]);
    }

    #[test]
    fn a_reset_ends_it_at_once() {
        for sender in [Opener, Acceptor] {
            let mut state = TcpState::opened_by(&segment(SYN, 1));
            assert_eq!(state.follow(Opener, sender, &segment(RST, 2)), TcpChange::Reset);
            assert!(state.is_ended());
            assert_eq!(state.follow(Opener, sender, &segment(ACK, 2)), TcpChange::None);
        }
    }

    #[test]
    fn a_syn_repeats_or_replaces() {
        let opening = TcpState::opened_by(&segment(SYN, 7));
        let established = TcpState { phase: Phase::Established, ..opening };
        let ended = TcpState { phase: Phase::Ended, ..opening };
        let cases = [
            (opening, Opener, SYN, 7, false),
            (opening, Opener, SYN, 8, true),
            (opening, Acceptor, SYN, 9, false),
            (established, Opener, SYN, 7, false),
            (established, Opener, SYN, 8, true),
            (established, Acceptor, SYN, 9, true),
            (established, Opener, ACK, 8, false),
            (ended, Opener, SYN, 7, true),
            (ended, Opener, SYN_ACK, 7, false),
            (TcpState::picked_up(), Opener, SYN, 7, true),
        ];
        for (state, sender, flags, sequence, expected) in cases {
            assert_eq!(
                state.is_replaced_by(sender, &segment(flags, sequence)),
                expected,
                "{state:?} {sender:?} {flags:#x}"
            );
        }
    }
}
