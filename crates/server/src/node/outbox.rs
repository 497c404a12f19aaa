//! What this node keeps for other datacenters, summed up four times a second, and its bound.
//!
//! Replicas count what they keep as they go; here it is only added up. Machines ask for each write
//! whether it may be taken: that reads a flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use antecede_model::clock::{Now, Timestamp};
use antecede_model::ids::DatacenterId;
use antecede_protocol::chain::Shard;
use antecede_protocol::geo::kept::{Behind, Bound, Kept};
use parking_lot::Mutex;
use tracing::{info, warn};

use super::Node;

/// What is kept for other datacenters.
#[derive(Debug)]
pub(crate) struct Outbox {
    bound: Mutex<Bound>,
    is_full: AtomicBool,
}

impl Outbox {
    /// A bound of so many bytes; zero for none.
    pub(crate) const fn new(bytes_max: u64) -> Self {
        Self { bound: Mutex::new(Bound::new(bytes_max)), is_full: AtomicBool::new(false) }
    }

    /// Who holds writes up, if any datacenter does.
    pub(crate) fn held_up_by(&self) -> Option<Behind> {
        if self.is_full.load(Ordering::Relaxed) { self.bound.lock().held_up_by() } else { None }
    }

    /// Looks at the bound as of the last sum.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Bound) -> T) -> T {
        look(&self.bound.lock())
    }

    fn update(&self, now: Now, kept: Kept, behind: Option<DatacenterId>) -> Option<Behind> {
        let mut bound = self.bound.lock();
        bound.update(now, kept, behind);
        let held_up_by = bound.held_up_by();
        self.is_full.store(held_up_by.is_some(), Ordering::Relaxed);
        held_up_by
    }
}

impl Node {
    /// Adds up what the replicas keep, and says so when that begins or ceases to hold writes up.
    pub(super) fn count_kept(&self, now: Now) {
        let kept = self.shards().filter_map(|shard| self.look(shard, Shard::kept));
        let kept = kept.fold(Kept::default(), Kept::with);
        let behind = self.keeper.lock().furthest_behind(self.id.datacenter);
        let before = self.outbox.held_up_by();
        let after = self.outbox.update(now, kept, behind.map(|(peer, _)| peer));
        match (before, after) {
            (None, Some(behind)) => warn!(
                datacenter = self.name_of(behind.datacenter),
                kept_bytes = behind.bytes,
                seconds = behind.since_seconds,
                "writes are refused: too much is kept for a datacenter that is behind",
            ),
            (Some(_), None) => {
                info!(kept_bytes = kept.bytes, "writes are taken again: what was kept was applied");
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// How old the oldest entry is that is kept for others; nothing while all is stable but the last
    /// ticks.
    pub(crate) fn oldest_kept(&self, now: Now) -> Duration {
        let age = self.outbox.look(|bound| bound.kept().oldest.map(|_| bound.kept_for(now)));
        age.filter(|_| self.cuts().wants_ticks()).unwrap_or_default()
    }

    /// How far each other datacenter is behind this one: how old what it has not applied is of what
    /// began here; nothing while all is stable but the last ticks.
    pub(crate) fn peers_behind(&self, now: Now) -> Vec<(DatacenterId, Duration)> {
        let here = self.id.datacenter;
        let longest = self.oldest_kept(now);
        let keeper = self.keeper.lock();
        let age = |peer| {
            let applied = keeper.applied_at(peer).map(|cut| cut.at(here));
            let since = applied.filter(|to| *to != Timestamp::ZERO);
            let age = since.map_or(longest, |to| {
                Duration::from_millis(now.wall.millis().saturating_sub(to.millis()))
            });
            age.min(longest)
        };
        self.configuration().peers(here).map(|peer| (peer, age(peer))).collect()
    }
}
