//! Gives timestamps near wall time that never go back and never fall behind what was seen.
//!
//! A hybrid logical clock (Kulkarni et al. 2014) in one u64: 48 bits of Unix milliseconds and 16
//! of counter, which carries into the milliseconds when it is full.
//!
//! Ensures: every timestamp that a clock gives is larger than all that it gave or merged before.
//! Limits: a remote timestamp further ahead of the wall clock than the drift bound is not merged.

use std::{fmt, time::Duration};

/// A hybrid logical timestamp: milliseconds since 1970 in the upper 48 bits, a counter below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// After everything; stands for "all of it" in cuts.
    pub const MAX: Self = Self(u64::MAX);

    /// The first timestamp of a millisecond since 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis << 16)
    }

    /// The milliseconds since 1970, without the counter.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> 16
    }

    /// The timestamp right after this one; a full counter carries into the milliseconds.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The timestamp right before this one; zero has none and stays.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.0 & 0xffff)
    }
}

/// What the wall clock says, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub u64);

impl Wall {
    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 / 1000
    }
}

/// Time since some moment of this process; never goes back, means nothing on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steady(pub Duration);

/// The two clocks of a node, read once for each batch of inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For waiting; never goes back.
    pub steady: Steady,
    /// Feeds the hybrid clock and decides nothing by itself.
    pub wall: Wall,
}

/// A remote timestamp was further ahead of the wall clock than the bound allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "timestamp {remote} is {ahead_millis} ms ahead of this node's wall clock, the limit is \
     {limit_millis} ms; compare the clocks of both nodes"
)]
pub struct DriftError {
    /// What was offered.
    pub remote: Timestamp,
    /// How far it lies ahead, in milliseconds.
    pub ahead_millis: u64,
    /// The bound, in milliseconds.
    pub limit_millis: u64,
}

/// A hybrid logical clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hlc {
    last: Timestamp,
}

impl Hlc {
    /// A clock that starts above `floor`, for example the persisted ceiling of an earlier boot.
    #[must_use]
    pub const fn starting_above(floor: Timestamp) -> Self {
        Self { last: floor }
    }

    /// The largest timestamp given or merged.
    #[must_use]
    pub const fn last(&self) -> Timestamp {
        self.last
    }

    /// Gives a timestamp above everything given and merged, and above `floor`.
    pub fn next_above(&mut self, wall: Wall, floor: Timestamp) -> Timestamp {
        let physical = Timestamp::from_millis(wall.millis());
        self.last = physical.max(self.last.next()).max(floor.next());
        self.last
    }

    /// Takes note of a timestamp that is known to be sound, such as one of the own log.
    pub fn witness(&mut self, seen: Timestamp) {
        self.last = self.last.max(seen);
    }

    /// Merges a timestamp from outside, or refuses it for lying too far ahead.
    ///
    /// # Errors
    /// [`DriftError`] when `remote` is more than `max_drift` ahead of `wall`; nothing is merged.
    pub fn merge(
        &mut self,
        wall: Wall,
        remote: Timestamp,
        max_drift: Duration,
    ) -> Result<(), DriftError> {
        check_drift(wall, remote, max_drift)?;
        self.witness(remote);
        Ok(())
    }
}

/// Tells whether a timestamp from outside lies within the drift bound.
///
/// # Errors
/// [`DriftError`] when `remote` is more than `max_drift` ahead of `wall`.
pub fn check_drift(wall: Wall, remote: Timestamp, max_drift: Duration) -> Result<(), DriftError> {
    let ahead_millis = remote.millis().saturating_sub(wall.millis());
    let limit_millis = u64::try_from(max_drift.as_millis()).unwrap_or(u64::MAX);
    if limit_millis < ahead_millis {
        return Err(DriftError { remote, ahead_millis, limit_millis });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_grow_while_the_wall_clock_stands_or_goes_back() {
        let mut hlc = Hlc::default();
        let first = hlc.next_above(Wall(5_000_000), Timestamp::ZERO);
        let second = hlc.next_above(Wall(5_000_000), Timestamp::ZERO);
        let third = hlc.next_above(Wall(1_000_000), Timestamp::ZERO);
        assert!(first < second && second < third);
        assert_eq!(first.millis(), 5_000);
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let mut hlc = Hlc::starting_above(Timestamp((7 << 16) | 0xffff));
        assert_eq!(hlc.next_above(Wall(0), Timestamp::ZERO), Timestamp::from_millis(8));
    }

    #[test]
    fn a_timestamp_beyond_the_drift_bound_is_refused_and_not_merged() {
        let mut hlc = Hlc::default();
        let far = Timestamp::from_millis(1_501);
        let error = hlc.merge(Wall(1_000_000), far, Duration::from_millis(500)).unwrap_err();
        assert_eq!(error.ahead_millis, 501);
        assert_eq!(hlc.last(), Timestamp::ZERO);
        hlc.merge(Wall(1_001_000), far, Duration::from_millis(500)).unwrap();
        assert_eq!(hlc.last(), far);
    }
}
