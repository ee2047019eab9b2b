//! What is not tested here is said, and is a failure where everything has to be tested.
//!
//! A line goes past the test runner, which keeps what passing tests print.

// Each file of tests is a crate of its own and uses a part.
#![allow(dead_code)]

use std::{env, fmt::Display, fs, io, io::Write};

/// A test, or a part of one, cannot run here. With WFP_TEST_EVERYTHING set it has to, and this fails.
#[track_caller]
pub fn skipped(reason: impl Display) {
    assert!(env::var_os("WFP_TEST_EVERYTHING").is_none(), "cannot run here: {reason}");
    say(format_args!("skipped: {reason}"));
}

/// Whether the running kernel is older than the version with which something came; if so, that what needs it is skipped is said.
/// No machine with this kernel can run it: that is no failure.
pub fn kernel_is_before(major: u32, minor: u32, what: impl Display) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let before = (numbers.next(), numbers.next()) < (Some(major), Some(minor));
    if before {
        say(format_args!("skipped: before Linux {major}.{minor}: {what}"));
    }
    before
}

/// A part of a test that the running kernel was built without (a type of devices, a protocol) is skipped: no failure either.
pub fn kernel_lacks(what: impl Display) {
    say(format_args!("skipped: this kernel is built without {what}"));
}

/// Writes a line past the test runner.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
