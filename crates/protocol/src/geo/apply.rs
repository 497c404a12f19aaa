//! Lets a remote entry into the local chain once everything that it depends on is applied.
//!
//! It keeps its stamp, version and place in its origin's line; it gets a place in the local log
//! and a visible-at that is larger than that of everything it depends on: those answers came with
//! their HLC, which was merged.
//!
//! Assumes: all dependencies are applied here, or stand before it in this log (`inbox` saw to it).

use antecede_model::dependency::Dependency;

use crate::{
    chain::Shard,
    entry::Entry,
    machine::{Here, Outputs, Storage},
};

impl Shard {
    pub(crate) fn enter_chain(
        &mut self,
        here: &Here,
        entry: Entry,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        // A loop, not a recursion: what waited in this shard enters right behind it.
        let mut entering = vec![entry];
        while let Some(mut entry) = entering.pop() {
            let line = self.lines.entry(entry.origin).or_default();
            if line.received.contains(entry.stamp) {
                continue;
            }
            entry.visible_at = self.hlc.next_above(here.now.wall, entry.stamp);
            let dependency =
                Dependency { origin: entry.origin, shard: self.shard, stamp: entry.stamp };
            self.append_at_head(here, entry, storage, out);
            self.release_behind(here, dependency, &mut entering, out);
        }
    }
}
