//! The filtering engine of openwfp.
//!
//! It matches and arbitrates. It knows no packets, no sockets, no files and no clock, and it decides the same thing
//! wherever it runs: in the kernel (compiled to eBPF), in a service, or offline over a capture.
//!
//! In the order in which one meets them:
//!
//! 1. [`Values`]: what is known about one event at one layer, as a vector of words.
//! 2. [`Cell`]: sixteen bytes of a policy image. All that a policy says is an array of them.
//! 3. [`step`]: the classifier. It looks at one cell; [`classify()`] calls it in a loop, and so does the kernel.
//! 4. [`Arbitration`]: which sublayer's answer stands.
//! 5. [`Verdict`]: what it came to, and why.
//!
//! This much needs neither allocation nor the standard library, and no `unsafe`. With the feature `std` come the
//! compiler from policies to images and the explanation of a verdict.

#![no_std]

#[cfg(feature = "std")]
extern crate std;

mod arbitrate;
mod cell;
mod classify;
#[cfg(feature = "std")]
mod compile;
mod values;
mod verdict;

pub use arbitrate::{Answer, Arbitration, CalloutAction, CalloutAnswer};
pub use cell::*;
pub use classify::{Callouts, Image, MAX_STEPS, Observer, Silent, State, Step, classify, classify_with, step};
#[cfg(feature = "std")]
pub use compile::{
    Change, Classes, CompileError, CompiledFilter, CompiledLayer, CompiledPolicy, ConditionExplanation, Effect,
    Encoding, Event, EventValue, Explainer, Explanation, FieldWords, FilterExplanation, Finding, Groups, ImageError,
    OrderedSublayer, Place, PolicyImage, Schema, SublayerAnswer, SublayerExplanation, Unknown, compile, compile_after,
    compile_after_with, compile_objects, compile_objects_after, compile_with, decode, group_above, unknown,
};
pub use values::{EMPTY, UNKNOWN, Values, WORDS, words};
pub use verdict::{Action, Reason, Verdict};
