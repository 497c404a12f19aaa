//! Checks that a cut covers only what is applied: once a datacenter says that it has applied all of
//! an origin up to a stamp, nothing of that origin up to there is committed in it for the first
//! time.
//!
//! It is this promise that lets dependencies be dropped and tombstones be collected.

use std::collections::BTreeMap;

use antecede_model::{
    clock::Timestamp,
    cut::Cut,
    ids::{DatacenterId, ShardId},
};

use super::Failure;
use crate::ledger::Stored;

/// What was promised so far.
#[derive(Debug, Default)]
pub struct Promises {
    /// By datacenter and origin.
    applied: BTreeMap<(DatacenterId, DatacenterId), Timestamp>,
    /// By origin, for every datacenter.
    stable: BTreeMap<DatacenterId, Timestamp>,
}

impl Promises {
    /// Takes note of the cuts that a node of a datacenter tells.
    pub fn note(&mut self, datacenter: DatacenterId, applied: &Cut, stable: &Cut) {
        for (origin, to) in applied.iter() {
            let known = self.applied.entry((datacenter, origin)).or_default();
            *known = to.max(*known);
        }
        for (origin, to) in stable.iter() {
            let known = self.stable.entry(origin).or_default();
            *known = to.max(*known);
        }
    }

    /// Judges an entry that is committed for the first time in a datacenter.
    ///
    /// # Errors
    /// When a cut had covered it before.
    pub fn at_commit(
        &self,
        datacenter: DatacenterId,
        shard: ShardId,
        stored: &Stored,
    ) -> Result<(), Failure> {
        let key = (datacenter, stored.origin);
        let applied = self.applied.get(&key).copied().unwrap_or_default();
        let stable = self.stable.get(&stored.origin).copied().unwrap_or_default();
        let promised = applied.max(stable);
        if promised < stored.stamp {
            return Ok(());
        }
        let (stamp, origin) = (stored.stamp, stored.origin);
        let what = format!(
            "{stamp} of origin {origin} is committed in shard {shard} of datacenter {datacenter}, \
             where cuts had said that all up to {promised} was applied"
        );
        Err(Failure::new("cuts", what))
    }
}

#[cfg(test)]
mod tests {
    use antecede_protocol::entry::Identity;

    use super::*;

    #[test]
    fn what_a_cut_covered_may_not_come_later() {
        let (here, origin) = (DatacenterId(1), DatacenterId(2));
        let stored = |stamp| Stored {
            identity: Identity::default(),
            origin,
            stamp: Timestamp(stamp),
            visible_at: Timestamp(stamp),
            index: 1,
            is_tick: false,
        };
        let mut promises = Promises::default();
        promises.note(here, &Cut::of([(origin, Timestamp(100))]), &Cut::default());
        assert!(promises.at_commit(here, ShardId(0), &stored(101)).is_ok());
        assert!(promises.at_commit(here, ShardId(0), &stored(100)).is_err());
        assert!(promises.at_commit(DatacenterId(3), ShardId(0), &stored(100)).is_ok());
        promises.note(here, &Cut::default(), &Cut::of([(origin, Timestamp(100))]));
        assert!(promises.at_commit(DatacenterId(3), ShardId(0), &stored(100)).is_err());
    }
}
