//! Bounds what a node keeps for datacenters that are behind.
//!
//! An entry stays in the windows of its chain until it is stable, so that any datacenter can hand on
//! what it has of another. Those that began here may never be let go of before (PITFALLS A14): once
//! all that a node keeps has reached the limit, its heads refuse writes of clients. Remote entries,
//! ticks and reads go on, since they bring the others, and this one, to where less is kept.
//!
//! Assumes: it is told the sum over the node's replicas four times a second or so.
//! Ensures: writes are taken again by themselves, below nine tenths of the limit.
//! Limits: each node goes by its own sum. The replicas of a chain keep the same entries, so nodes
//! that hold as many shards come to the limit together; with unequal settings a replica further down
//! the chain may be beyond its own. What comes in within one round, remote entries and ticks go
//! beyond the limit. Who is named as furthest behind is told by cuts: where a limit is reached within
//! a second, that may be another one until the next ticks.

use std::{collections::VecDeque, time::Duration};

use antecede_model::{
    clock::{Now, Steady, Timestamp},
    ids::DatacenterId,
    refusal::Refusal,
};

/// For how long back the growth is measured.
const MEASURED: Duration = Duration::from_secs(10);
/// Growth that is less than this in `MEASURED` is none.
const GROWTH_BYTES_MIN: u64 = 64 * 1024;

/// What is kept for other datacenters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Bytes, about.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// When the oldest of them became readable here.
    pub oldest: Option<Timestamp>,
}

impl Kept {
    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let oldest = match (self.oldest, other.oldest) {
            (Some(one), Some(another)) => Some(one.min(another)),
            (one, another) => one.or(another),
        };
        Self { bytes: self.bytes + other.bytes, entries: self.entries + other.entries, oldest }
    }
}

/// Who is so far behind that writes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The datacenter that has applied least.
    pub datacenter: DatacenterId,
    /// How long the oldest entry is kept, in seconds.
    pub since_seconds: u32,
    /// How much is kept.
    pub bytes: u64,
}

impl Behind {
    /// What clients are told.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        Refusal::OutboxFull {
            behind: self.datacenter,
            since_seconds: self.since_seconds,
            kept_mib: u32::try_from(self.bytes >> 20).unwrap_or(u32::MAX),
        }
    }
}

/// The bound of one node.
#[derive(Debug)]
pub struct Bound {
    /// Bytes; zero for none.
    bytes_max: u64,
    kept: Kept,
    /// What was kept at some moments of the last `MEASURED`.
    past: VecDeque<(Steady, u64)>,
    held_up_by: Option<Behind>,
}

impl Bound {
    /// A bound of so many bytes; zero for none.
    #[must_use]
    pub const fn new(bytes_max: u64) -> Self {
        let kept = Kept { bytes: 0, entries: 0, oldest: None };
        Self { bytes_max, kept, past: VecDeque::new(), held_up_by: None }
    }

    /// Takes note of what is kept now, and of who is furthest behind.
    pub fn update(&mut self, now: Now, kept: Kept, behind: Option<DatacenterId>) {
        self.kept = kept;
        let is_over = |(at, _): &(Steady, u64)| *at < Steady(now.steady.0.saturating_sub(MEASURED));
        while 1 < self.past.len() && self.past.front().is_some_and(is_over) {
            self.past.pop_front();
        }
        self.past.push_back((now.steady, kept.bytes));
        let limit = if self.held_up_by.is_some() {
            self.bytes_max - self.bytes_max / 10
        } else {
            self.bytes_max
        };
        let is_full = 0 < self.bytes_max && limit <= kept.bytes;
        self.held_up_by = behind.filter(|_| is_full).map(|datacenter| Behind {
            datacenter,
            since_seconds: u32::try_from(self.kept_for(now).as_secs()).unwrap_or(u32::MAX),
            bytes: kept.bytes,
        });
    }

    /// Who holds writes up, if any datacenter does.
    #[must_use]
    pub const fn held_up_by(&self) -> Option<Behind> {
        self.held_up_by
    }

    /// What was kept at the last update.
    #[must_use]
    pub const fn kept(&self) -> Kept {
        self.kept
    }

    /// The limit in bytes; zero for none.
    #[must_use]
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// For how long the oldest entry is kept.
    #[must_use]
    pub fn kept_for(&self, now: Now) -> Duration {
        let oldest = self.kept.oldest.map_or(u64::MAX, Timestamp::millis);
        Duration::from_millis(now.wall.millis().saturating_sub(oldest))
    }

    /// By how many bytes a second it grows; zero where it does not.
    #[must_use]
    pub fn growth(&self) -> u64 {
        let (Some((since, before)), Some((now, bytes))) = (self.past.front(), self.past.back())
        else {
            return 0;
        };
        let grown = bytes.saturating_sub(*before);
        let millis = now.0.saturating_sub(since.0).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        if grown < GROWTH_BYTES_MIN || millis == 0 {
            0
        } else {
            grown.saturating_mul(1_000) / millis
        }
    }

    /// How long until the limit is reached, if what is kept goes on growing as it does.
    #[must_use]
    pub fn full_in(&self) -> Option<Duration> {
        if self.bytes_max == 0 {
            return None;
        }
        let left = self.bytes_max.saturating_sub(self.kept.bytes);
        let growth = self.growth();
        match left.checked_div(growth) {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => (left == 0).then_some(Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use antecede_model::clock::Wall;

    use super::*;

    fn at(second: u64) -> Now {
        let steady = Steady(Duration::from_secs(second));
        Now { steady, wall: Wall(second * 1_000_000) }
    }

    fn kept(bytes: u64, since: u64) -> Kept {
        Kept { bytes, entries: bytes / 100, oldest: Some(Timestamp::from_millis(since * 1_000)) }
    }

    #[test]
    fn writes_are_refused_at_the_limit_and_taken_again_below_nine_tenths_of_it() {
        let mut bound = Bound::new(10 << 20);
        let lagging = Some(DatacenterId(3));
        bound.update(at(100), kept((10 << 20) - 1, 40), lagging);
        assert_eq!(bound.held_up_by(), None);
        bound.update(at(101), kept(10 << 20, 40), lagging);
        let behind = bound.held_up_by().expect("the limit is reached");
        let (datacenter, since_seconds, kept_mib) = (DatacenterId(3), 61, 10);
        assert_eq!(
            behind.refusal(),
            Refusal::OutboxFull { behind: datacenter, since_seconds, kept_mib }
        );
        bound.update(at(102), kept(9 << 20, 41), lagging);
        assert!(bound.held_up_by().is_some(), "it is not below nine tenths");
        bound.update(at(103), kept((9 << 20) - 1, 41), lagging);
        assert_eq!(bound.held_up_by(), None);
        bound.update(at(104), kept((10 << 20) - 1, 41), lagging);
        assert_eq!(bound.held_up_by(), None, "below the limit again");
    }

    #[test]
    fn without_a_limit_or_another_datacenter_nothing_is_refused() {
        let mut without = Bound::new(0);
        without.update(at(1), kept(u64::MAX, 0), Some(DatacenterId(2)));
        assert_eq!((without.held_up_by(), without.full_in()), (None, None));
        let mut alone = Bound::new(1);
        alone.update(at(1), kept(5, 0), None);
        assert_eq!(alone.held_up_by(), None);
    }

    #[test]
    fn growth_is_measured_over_the_last_seconds() {
        let mut bound = Bound::new(100 << 20);
        for second in 0..60 {
            let bytes = if second < 40 { second << 20 } else { 40 << 20 };
            bound.update(at(second), kept(bytes, 0), Some(DatacenterId(2)));
            if second == 30 {
                assert_eq!(bound.growth(), 1 << 20);
                assert_eq!(bound.full_in(), Some(Duration::from_secs(70)));
            }
        }
        assert_eq!((bound.growth(), bound.full_in()), (0, None), "it has stopped growing");
    }

    #[test]
    fn what_several_replicas_keep_is_as_old_as_the_oldest() {
        let sum = Kept::default().with(kept(100, 9)).with(kept(300, 7)).with(Kept::default());
        assert_eq!((sum.bytes, sum.entries), (400, 4));
        assert_eq!(sum.oldest, Some(Timestamp::from_millis(7_000)));
    }
}
