//! A line on the terminal that says how far something is.

use crate::output::Globals;
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// The line is shown for what takes longer than this,
const PATIENCE: Duration = Duration::from_secs(1);
/// and drawn anew so often.
const AGAIN: Duration = Duration::from_millis(200);
/// The clock is looked at once for so many bytes.
const LOOK: u64 = 1 << 16;

/// A line on the terminal for what reads a file longer than a second, in one pass or several.
pub(crate) struct Progress {
    wanted: bool,
    shown: bool,
    /// The pass at hand, from 1, and how many there are.
    pass: (u32, u32),
    /// Bytes of a pass; of a pipe they are not known.
    size: Option<u64>,
    started: Instant,
    /// When the line is drawn next.
    next: Instant,
    /// At which byte the clock is looked at next.
    look: u64,
}

impl Progress {
    /// For so many passes. It counts from now on.
    pub fn new(passes: u32, globals: Globals) -> Self {
        let started = Instant::now();
        let wanted = !globals.quiet && io::stderr().is_terminal() && !io::stdout().is_terminal() | !globals.json;
        Self { wanted, shown: false, pass: (0, passes), size: None, started, next: started + PATIENCE, look: 0 }
    }

    /// The next pass begins.
    pub fn pass(&mut self, size: Option<u64>) {
        self.pass.0 += 1;
        self.size = size;
        self.look = 0;
    }

    #[inline]
    /// So many bytes of this pass were read.
    pub fn at(&mut self, bytes: u64) {
        if self.wanted && bytes >= self.look {
            self.look = bytes + LOOK;
            self.look(bytes, Instant::now());
        }
    }

    fn look(&mut self, bytes: u64, now: Instant) {
        if let Some(line) = self.due(bytes, now) {
            let _ = write!(io::stderr(), "\r{line}");
        }
    }

    /// The line, when it is time to draw it.
    fn due(&mut self, bytes: u64, now: Instant) -> Option<String> {
        if now < self.next {
            return None;
        }
        self.next = now + AGAIN;
        self.shown = true;
        Some(self.line(bytes, now.saturating_duration_since(self.started)))
    }

    fn line(&self, bytes: u64, since: Duration) -> String {
        let seconds = since.as_secs();
        let pass = match self.pass {
            (_, 0 | 1) => String::new(),
            (pass, passes) => format!("{pass}/{passes} "),
        };
        match self.size {
            Some(size) => {
                let part = (u128::from(bytes.min(size)) * 100).checked_div(size.into()).unwrap_or(100) as usize;
                let bar = "#".repeat(part * 40 / 100);
                format!("{pass}[{bar:40}] {part:3}% {seconds}s")
            }
            None => format!("{pass}{} MB {seconds}s", bytes / 1_000_000),
        }
    }

    /// Takes the line away.
    pub fn end(&self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r{:60}\r", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(passes: u32) -> Progress {
        let started = Instant::now();
        Progress {
            wanted: true,
            shown: false,
            pass: (0, passes),
            size: None,
            started,
            next: started + PATIENCE,
            look: 0,
        }
    }

    #[test]
    fn the_line_waits_for_a_second_and_stays_over_all_passes() {
        let mut progress = progress(2);
        let after = |milliseconds| Duration::from_millis(milliseconds);
        let started = progress.started;
        progress.pass(Some(200));
        assert_eq!(progress.due(10, started + after(999)), None);
        let bar = |count| format!("[{:40}]", "#".repeat(count));
        assert_eq!(progress.due(100, started + after(1000)), Some(format!("1/2 {}  50% 1s", bar(20))));
        assert_eq!(progress.due(110, started + after(1199)), None);
        assert_eq!(progress.due(200, started + after(1200)), Some(format!("1/2 {} 100% 1s", bar(40))));
        progress.pass(Some(200));
        assert_eq!(progress.due(0, started + after(2400)), Some(format!("2/2 {}   0% 2s", bar(0))));
        assert!(progress.shown);
    }

    #[test]
    fn a_pipe_has_no_end_that_is_known() {
        let mut progress = progress(1);
        progress.pass(None);
        let line = progress.due(12_345_678, progress.started + Duration::from_secs(3));
        assert_eq!(line.as_deref(), Some("12 MB 3s"));
    }

    #[test]
    fn what_is_longer_than_it_was_is_whole() {
        let mut progress = progress(1);
        progress.pass(Some(0));
        assert!(progress.line(7, Duration::ZERO).contains(" 100% "));
        progress.pass(Some(5));
        assert!(progress.line(7, Duration::ZERO).contains(" 100% "));
        progress.pass(Some(u64::MAX));
        assert!(progress.line(u64::MAX / 2, Duration::ZERO).contains(" 49% "));
    }
}
