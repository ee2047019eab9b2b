//! The channel between `wfp` and a host of callouts: how packets go to it, and answers come back.
//!
//! - [`layout`]: what stands where in the memory that both sides share;
//! - [`Producer`] and [`Consumer`]: the two ends of a ring of fixed slots; [`Bell`]: wakes the other side, if it sleeps;
//! - [`Request`], [`Answer`]: what goes through the rings;
//! - [`Wfp`] and [`Host`]: the ends of a channel, made of [`Parts`], which a host finds by [`VARIABLE`] in its environment.
//!
//! `docs/callout-protocol.md` describes the same for other languages. Neither side trusts the other: whatever came through shared
//! memory is copied, and then looked at. All of this crate's unsafe code is in `memory.rs`.

mod bell;
mod channel;
mod control;
pub mod layout;
mod memory;
mod message;
mod ring;

pub use bell::{Bell, Ear, make as bell};
pub use channel::{AdoptError, Host, OpenError, Parts, VARIABLE, Wfp};
pub use control::{Control, LONGEST_CONTROL, Received, wait};
pub use memory::close_others_at_exec;
pub use message::{
    Action, Answer, AnswerFlags, MOST_INJECTORS, MOST_PENDED, MessageError, Request, RequestFlags, VALUES,
};
pub use ring::{Consumer, Producer, RingError};
