//! A line on the terminal that says how far something is.

use crate::output::Globals;
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// A line on the terminal for captures that take longer than a second.
pub(crate) struct Progress {
    size: u64,
    shown: bool,
    wanted: bool,
    started: Instant,
    next: Instant,
}

impl Progress {
    pub fn new(size: u64, globals: Globals) -> Self {
        let started = Instant::now();
        let wanted = !globals.quiet && io::stderr().is_terminal() && !io::stdout().is_terminal() | !globals.json;
        Self { size: size.max(1), shown: false, wanted, started, next: started + Duration::from_secs(1) }
    }

    #[inline]
    /// So many bytes were read.
    pub fn at(&mut self, bytes: u64) {
        // the clock is looked at once for each 64 KiB or so
        if self.wanted && bytes & 0xffff < 128 && Instant::now() >= self.next {
            let part = (bytes.min(self.size) * 100 / self.size) as usize;
            let seconds = self.started.elapsed().as_secs();
            let bar = "#".repeat(part * 40 / 100);
            let _ = write!(io::stderr(), "\r[{bar:40}] {part:3}% {seconds}s");
            self.next += Duration::from_millis(200);
            self.shown = true;
        }
    }

    /// Takes the line away.
    pub fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r{:60}\r", "");
        }
    }
}
