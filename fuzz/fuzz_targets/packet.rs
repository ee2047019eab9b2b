//! Packet parsers, flows and replay: never a panic, and the account of a replay is right.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/packet.rs"]
mod body;
#[path = "../bodies/replay.rs"]
mod replay;

fuzz_target!(|bytes: &[u8]| body::check(bytes));
