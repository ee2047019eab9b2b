//! The reader of policy files: never a panic, and what it reads it also writes, with the same meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/policy_file.rs"]
mod body;

fuzz_target!(|bytes: &[u8]| body::check(bytes));
