//! The time of a packet.

use core::time::Duration;

/// A point in time, in nanoseconds since 1970-01-01T00:00:00Z; it ends in the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time so many nanoseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The nanoseconds after the last whole second.
    #[must_use]
    pub const fn subsecond_nanoseconds(self) -> u32 {
        (self.0 % 1_000_000_000) as u32
    }

    /// The time that has passed since `earlier`; none when that is later.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_seconds_and_nanoseconds() {
        let time = Timestamp::from_nanoseconds(1_767_323_045_678_901_234);
        assert_eq!((time.seconds(), time.subsecond_nanoseconds()), (1_767_323_045, 678_901_234));
    }

    #[test]
    fn time_that_runs_backwards_does_not_pass() {
        let (early, late) = (Timestamp::from_nanoseconds(5), Timestamp::from_nanoseconds(7));
        assert_eq!(late.since(early), Duration::from_nanos(2));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
