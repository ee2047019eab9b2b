//! The reader of captures: never a panic, never more than the file holds, and one error at most.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/capture.rs"]
mod body;
#[path = "../bodies/replay.rs"]
mod replay;

fuzz_target!(|bytes: &[u8]| body::check(bytes));
