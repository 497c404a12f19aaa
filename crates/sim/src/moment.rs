//! Virtual time, and what the clocks of a node make of it.
//!
//! A moment counts nanoseconds from the beginning of the run. Each node has a wall clock that is
//! off by an offset and runs at a rate of its own, and a steady clock that begins with its process.

use std::{fmt, time::Duration};

use antecede_model::clock::{Now, Steady, Wall};

/// Microseconds since 1970 at which every run begins.
pub const BEGINNING_MICROS: u64 = 1_700_000_000_000_000;

/// Nanoseconds since the beginning of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// Nanoseconds in a microsecond.
pub const MICRO: u64 = 1_000;
/// Nanoseconds in a millisecond.
pub const MILLI: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

impl Moment {
    /// So many nanoseconds later.
    #[must_use]
    pub const fn after(self, nanos: u64) -> Self {
        Self(self.0 + nanos)
    }

    /// Nanoseconds since an earlier moment; zero if it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}.{:06}", self.0 / SECOND, self.0 % SECOND / MICRO)
    }
}

/// The clocks of one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeClock {
    /// How far the wall clock is ahead, in microseconds.
    pub offset_micros: i64,
    /// How much faster it runs, in parts per million.
    pub rate_ppm: i64,
    /// When the process began.
    pub born: Moment,
}

impl NodeClock {
    /// What both clocks say at a moment.
    #[must_use]
    pub fn at(&self, moment: Moment) -> Now {
        let micros = moment.0 / MICRO;
        let drift = i64::try_from(micros / 1_000).unwrap_or(i64::MAX) * self.rate_ppm / 1_000;
        let wall = (BEGINNING_MICROS + micros).saturating_add_signed(self.offset_micros + drift);
        Now { steady: Steady(Duration::from_nanos(moment.since(self.born))), wall: Wall(wall) }
    }

    /// The moment at which the steady clock says this.
    #[must_use]
    pub fn moment_of(&self, steady: Steady) -> Moment {
        let nanos = u64::try_from(steady.0.as_nanos()).unwrap_or(u64::MAX);
        Moment(self.born.0.saturating_add(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_run_at_their_own_rate() {
        let clock = NodeClock { offset_micros: -50, rate_ppm: 200, born: Moment(3 * SECOND) };
        let now = clock.at(Moment(10 * SECOND));
        assert_eq!(now.wall.0, BEGINNING_MICROS + 10_000_000 - 50 + 2_000);
        assert_eq!(now.steady.0, Duration::from_secs(7));
        assert_eq!(clock.moment_of(now.steady), Moment(10 * SECOND));
    }
}
