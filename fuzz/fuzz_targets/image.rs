//! The image reader and the classifier: never a panic, never past the bound, and what is read back is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/image.rs"]
mod body;

fuzz_target!(|bytes: &[u8]| body::check(bytes));
