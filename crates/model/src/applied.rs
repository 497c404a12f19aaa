//! Keeps which stamps of one origin are applied to one shard: a watermark and the ones above it.
//!
//! Entries of an origin and shard form a line: each names the stamp before it. The watermark
//! follows that line; an entry that was applied ahead of a blocked one waits above it.
//!
//! Assumes: `previous` links are those that the origin gave (one line per lineage).
//! Ensures: `contains` is true exactly for stamps that were recorded or lie at or below the
//! watermark; recording is idempotent.

use std::collections::BTreeMap;

use crate::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
};

/// The stamps of one origin that are applied to one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedSet {
    /// Everything of this origin up to here is applied.
    watermark: Timestamp,
    /// Applied above the watermark, each with the stamp before it.
    above: BTreeMap<Timestamp, Timestamp>,
}

impl AppliedSet {
    /// The stamp up to which nothing is missing.
    #[must_use]
    pub const fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The stamps applied above the watermark, smallest first.
    pub fn above(&self) -> impl ExactSizeIterator<Item = Timestamp> {
        self.above.keys().copied()
    }

    /// Whether the entry with this stamp is applied.
    #[must_use]
    pub fn contains(&self, stamp: Timestamp) -> bool {
        stamp <= self.watermark || self.above.contains_key(&stamp)
    }

    /// Counts everything up to a stamp as applied, whatever is known to be missing below.
    pub fn raise(&mut self, to: Timestamp) {
        self.watermark = self.watermark.max(to);
        self.above = self.above.split_off(&self.watermark.next());
        self.follow();
    }

    /// Takes note that the entry `stamp`, whose predecessor in the line is `previous`, is applied.
    ///
    /// Returns whether that was new.
    pub fn record(&mut self, previous: Timestamp, stamp: Timestamp) -> bool {
        if self.watermark < previous {
            return self.above.insert(stamp, previous).is_none();
        }
        if self.contains(stamp) {
            return false;
        }
        self.watermark = stamp;
        self.follow();
        true
    }

    /// Lets the watermark follow the line.
    fn follow(&mut self) {
        while let Some(first) = self.above.first_entry()
            && *first.get() <= self.watermark
        {
            self.watermark = first.remove_entry().0;
        }
    }
}

impl AppliedSet {
    /// Writes the set.
    pub fn write(&self, to: &mut Writer<'_>) {
        to.timestamp(self.watermark);
        to.length(self.above.len());
        for (stamp, previous) in &self.above {
            to.timestamp(*previous);
            to.timestamp(*stamp);
        }
    }

    /// Reads a set.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut set = Self { watermark: from.timestamp()?, ..Self::default() };
        let links = from
            .list("stamps above a watermark", |from| Ok((from.timestamp()?, from.timestamp()?)))?;
        let mut last = set.watermark;
        for (previous, stamp) in links {
            // The first link is not one of the watermark itself: that would have moved.
            let is_behind = last < previous || last == previous && last != set.watermark;
            if !is_behind || stamp <= previous {
                let (found, limit) = (previous.0, last.0);
                return Err(DecodeError::OverLimit { what: "links of a line", found, limit });
            }
            set.above.insert(stamp, previous);
            last = stamp;
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(stamp: u64) -> Timestamp {
        Timestamp(stamp)
    }

    #[test]
    fn the_watermark_waits_for_a_gap_and_then_jumps_over_what_waited() {
        let mut set = AppliedSet::default();
        assert!(set.record(at(0), at(10)));
        assert!(set.record(at(20), at(30)));
        assert!(set.record(at(30), at(40)));
        assert_eq!(set.watermark(), at(10));
        assert!(set.contains(at(30)) && !set.contains(at(20)) && !set.contains(at(35)));
        assert!(set.record(at(10), at(20)));
        assert_eq!(set.watermark(), at(40));
        assert_eq!(set.above().len(), 0);
    }

    #[test]
    fn a_raised_watermark_forgets_what_was_missing_below() {
        let mut set = AppliedSet::default();
        set.record(at(20), at(30));
        set.record(at(30), at(40));
        set.record(at(50), at(60));
        set.raise(at(30));
        assert_eq!(set.watermark(), at(40));
        assert!(set.contains(at(25)) && !set.contains(at(50)) && set.contains(at(60)));
        assert!(set.record(at(40), at(50)));
        assert_eq!(set.watermark(), at(60));
    }

    #[test]
    fn a_set_is_read_as_it_was_written() {
        let mut set = AppliedSet::default();
        for (previous, stamp) in [(0, 10), (20, 30), (30, 40), (70, 90)] {
            set.record(at(previous), at(stamp));
        }
        let mut bytes = Vec::new();
        set.write(&mut Writer::new(&mut bytes));
        let mut reader = Reader::new(&bytes);
        assert_eq!(AppliedSet::read(&mut reader).unwrap(), set);
        reader.finish().unwrap();
        bytes.pop();
        assert!(AppliedSet::read(&mut Reader::new(&bytes)).is_err());
    }

    #[test]
    fn links_that_are_no_line_are_refused() {
        let read = |watermark: u64, links: &[(u64, u64)]| {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes);
            writer.timestamp(at(watermark));
            writer.length(links.len());
            for (previous, stamp) in links {
                writer.timestamp(at(*previous));
                writer.timestamp(at(*stamp));
            }
            AppliedSet::read(&mut Reader::new(&bytes))
        };
        assert!(read(10, &[(20, 30), (30, 40)]).is_ok());
        for links in [&[(10, 20)][..], &[(5, 20)], &[(20, 20)], &[(20, 30), (29, 40)]] {
            assert!(read(10, links).is_err(), "{links:?}");
        }
        assert!(read(u64::MAX, &[]).is_ok());
        assert!(read(u64::MAX, &[(u64::MAX, u64::MAX)]).is_err());
    }

    #[test]
    fn a_repeat_changes_nothing() {
        let mut set = AppliedSet::default();
        assert!(set.record(at(0), at(10)));
        assert!(!set.record(at(0), at(10)));
        assert!(set.record(at(20), at(30)));
        let before = set.clone();
        assert!(!set.record(at(20), at(30)));
        assert_eq!(set, before);
    }

    proptest::proptest! {
        #[test]
        fn every_order_of_recording_ends_the_same(order in proptest::sample::subsequence((0..12_u64).collect::<Vec<_>>(), 12), shuffle in proptest::collection::vec(0..12_usize, 12)) {
            let mut order = order;
            for (left, right) in shuffle.into_iter().enumerate() {
                order.swap(left, right);
            }
            let mut set = AppliedSet::default();
            for index in order {
                set.record(at(index * 10), at(index * 10 + 10));
            }
            proptest::prop_assert_eq!(set.watermark(), at(120));
            proptest::prop_assert_eq!(set.above().len(), 0);
        }
    }
}
