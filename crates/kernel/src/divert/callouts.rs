//! Who is asked about a packet, and what he may say.

use super::{Asked, Diverted, Pended};
use openwfp_engine::{CalloutAnswer, Verdict};
use std::os::fd::BorrowedFd;

/// What a callout says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Permit, block, or let the next filter say. A packet that was changed goes on changed.
    Say(CalloutAnswer),
    /// The packet is the callout's from here on. Whatever it does with it, it does by injecting.
    Absorb,
    /// The answer comes later; [`Callouts::pended`] is given the packet.
    Pend,
    /// The callout cannot be asked: as if it was not registered.
    Unavailable,
}

/// How a diverted packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    SentOn,
    /// It was blocked.
    Blocked,
    /// It was permitted, but cannot be sent on: it does not fit its device, or its checksum cannot be made right.
    Lost,
    /// A callout has absorbed it.
    Absorbed,
}

/// Who is asked.
pub trait Callouts {
    /// A packet meets a filter that names a callout.
    fn classify(&mut self, packet: &mut Diverted<'_>, asked: &Asked) -> Answer;

    /// A packet whose answer comes later; see [`Divert::complete`](super::Divert::complete). Dropped, it is gone.
    fn pended(&mut self, packet: Pended) {
        drop(packet);
    }

    /// What became of a packet, and by which decision, where there is one.
    fn decided(&mut self, packet: &Diverted<'_>, verdict: Option<&Verdict>, fate: Fate) {
        let _ = (packet, verdict, fate);
    }

    /// Whether another packet can be taken. As long as not, packets wait in the ring buffer, and what finds no room there is
    /// decided as if the callout was not registered.
    fn is_ready(&self) -> bool {
        true
    }

    /// The next packet that was pended and is answered now. Asked again and again, until there is none.
    fn answered(&mut self) -> Option<(Pended, Answer)> {
        None
    }

    /// What becomes readable when answers come, after [`sleeps`](Self::sleeps).
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![]
    }

    /// The thread is about to sleep. False: there is something to do.
    fn sleeps(&mut self) -> bool {
        true
    }

    /// The thread is awake again.
    fn wakes(&mut self) {}
}
