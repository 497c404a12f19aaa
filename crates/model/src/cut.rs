//! Holds one timestamp per origin, up to which everything of that origin is applied.
//!
//! The applied cut of a datacenter is the minimum over all its shards; the stable cut is the
//! minimum over all datacenters. Neither gates visibility: they let dependencies be dropped,
//! tokens be checked in one comparison, and tell replication lag (DESIGN section 5).
//!
//! Invariant: an origin that a cut does not name stands at zero.

use std::collections::BTreeMap;

use crate::{clock::Timestamp, ids::DatacenterId};

/// One timestamp per origin: all of that origin up to here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    origins: BTreeMap<DatacenterId, Timestamp>,
}

impl Cut {
    /// A cut that covers nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { origins: BTreeMap::new() }
    }

    /// A cut that covers the same timestamp of each origin.
    #[must_use]
    pub fn of(origins: impl IntoIterator<Item = (DatacenterId, Timestamp)>) -> Self {
        Self { origins: origins.into_iter().collect() }
    }

    /// Up to where an origin is covered.
    #[must_use]
    #[inline]
    pub fn at(&self, origin: DatacenterId) -> Timestamp {
        self.origins.get(&origin).copied().unwrap_or_default()
    }

    /// Whether a stamp of an origin is covered.
    #[must_use]
    #[inline]
    pub fn covers(&self, origin: DatacenterId, stamp: Timestamp) -> bool {
        stamp <= self.at(origin)
    }

    /// Moves an origin's entry forward; it never goes back.
    pub fn advance(&mut self, origin: DatacenterId, to: Timestamp) {
        let entry = self.origins.entry(origin).or_default();
        *entry = (*entry).max(to);
    }

    /// The smaller of both for every origin that either names.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let origins = self.origins.keys().chain(other.origins.keys()).copied();
        Self::of(origins.map(|origin| (origin, self.at(origin).min(other.at(origin)))))
    }

    /// The entries in order of origin.
    pub fn iter(&self) -> impl Iterator<Item = (DatacenterId, Timestamp)> {
        self.origins.iter().map(|(origin, at)| (*origin, *at))
    }

    /// The smallest entry among the given origins.
    pub fn oldest(&self, origins: impl IntoIterator<Item = DatacenterId>) -> Option<Timestamp> {
        origins.into_iter().map(|origin| self.at(origin)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meet_covers_only_what_both_cover() {
        let a = DatacenterId(1);
        let b = DatacenterId(2);
        let left = Cut::of([(a, Timestamp(10)), (b, Timestamp(5))]);
        let right = Cut::of([(a, Timestamp(7))]);
        let met = left.meet(&right);
        assert_eq!((met.at(a), met.at(b)), (Timestamp(7), Timestamp::ZERO));
        assert!(met.covers(a, Timestamp(7)) && !met.covers(a, Timestamp(8)));
    }

    #[test]
    fn an_entry_never_goes_back() {
        let mut cut = Cut::default();
        cut.advance(DatacenterId(1), Timestamp(9));
        cut.advance(DatacenterId(1), Timestamp(3));
        assert_eq!(cut.at(DatacenterId(1)), Timestamp(9));
    }
}
