//! Makes ticks for idle shards, and collects what nobody can miss any more.
//!
//! A tick is an entry of the log like any other: the head promises to give no stamp up to it any
//! more, and the promise is persisted by the chain before it leaves (PITFALLS A2). Ticks are made
//! only while something is not stable, and seldom while no other datacenter is near to them.
//!
//! A tombstone is collected at *second stability*: when it has become stable, the local HLC is
//! noted; when the stable cut of every origin has passed that, no concurrent operation can still
//! be on its way (PITFALLS A1). A replica that is behind the others has such operations still before
//! it: it collects only once it has applied everything up to then itself.

use std::{collections::VecDeque, time::Duration};

use antecede_model::{clock::Timestamp, cut::Cut, ids::DatacenterId};

use super::cuts::CUTS_EVERY;
use crate::{
    chain::{Line, Shard},
    entry::Body as EntryBody,
    machine::{Here, Outputs, Room, Storage},
    mutation::Mutation,
};

/// Stable cuts that are remembered until second stability; older ones stand for newer ones.
const NOTED_MAX: usize = 64;
/// Tombstones that are collected in one step.
const COLLECT_MAX: usize = 256;

/// Promises that a shard keeps before it asks for newer ones, so that it can let go of them.
const PROMISES_MAX: u64 = 64;

/// How often promises are made that no other datacenter is near to: it is cut off, or catches up, and
/// more of them would only be more to make up for.
const UNFOLLOWED_EVERY: Duration = Duration::from_secs(2);
/// How far others may be behind until they count as not near. Where nodes sync once a second a promise
/// is synced at either end, and told with the next cuts: that takes longer than
/// [`UNFOLLOWED_EVERY`], and they would never be near again.
const UNFOLLOWED_AFTER: Duration = Duration::from_secs(5);
const _: () = assert!(2 * UNFOLLOWED_EVERY.as_millis() < UNFOLLOWED_AFTER.as_millis());

/// The milliseconds of a time that is later by a span.
fn later(time: Timestamp, span: Duration) -> u64 {
    time.millis().saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// Stable cuts with the logical time at which each was known.
#[derive(Debug, Default)]
pub struct Collection {
    noted: VecDeque<(Timestamp, Cut)>,
    /// What has reached second stability.
    ready: Cut,
    /// The logical time at which that was noted as stable.
    ready_at: Timestamp,
    /// Up to where everything shall become stable only so that less is kept.
    rid_to: Option<Timestamp>,
}

impl Shard {
    /// Promises that no stamp up to now is given any more, while someone needs to know.
    pub(crate) fn tick_when_wanted(
        &mut self,
        here: &Here,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let own = self.here_datacenter();
        // One that is gone from the deployment is told of nothing any more.
        let is_needed = self.configuration.is_present(own) && self.lets_reads_overtake();
        let is_needless = self.is_alone() && !is_needed;
        let newest = self.lines.get(&own).map(|line| line.received.watermark());
        let newest = newest.unwrap_or_default();
        let is_enough = self.cuts.ticks_to <= newest;
        if is_needless || is_enough || storage.room() == Room::None {
            return;
        }
        let is_followed = newest.millis() < later(self.cuts.followed_to, UNFOLLOWED_AFTER);
        let every = if is_followed { CUTS_EVERY / 2 } else { UNFOLLOWED_EVERY };
        let is_recent = here.now.wall.millis() < later(newest, every);
        if is_recent {
            return;
        }
        let stamp = self.hlc.next_above(here.now.wall, Timestamp::ZERO);
        self.append_own(here, stamp, (EntryBody::Tick, None), storage, out);
        self.send_entries(here, out);
    }

    /// Up to when promises are wanted for this shard: for its newest write if something is not
    /// stable, and for second stability.
    pub(crate) fn ticks_wanted_to(&self) -> Timestamp {
        let newest = |(origin, line): (&DatacenterId, &Line)| {
            let is_unstable = !self.cuts.stable.covers(*origin, line.newest_write);
            is_unstable.then_some(line.newest_write)
        };
        let unstable = self.lines.iter().filter_map(newest).max();
        let noted = self.wanted_note().filter(|_| 0 < self.keys.tombstone_count());
        let rid_to = self.collection.rid_to;
        unstable.max(noted).max(rid_to).max(self.unknown_to_be_applied()).unwrap_or_default()
    }

    /// When it was noted that every write is stable, tombstones too: the second time, since other
    /// replicas of the chain may have noted it a little later. Later notes are of promises only, and
    /// would lead to promises for as long as there are tombstones.
    fn wanted_note(&self) -> Option<Timestamp> {
        let covers_all = |cut: &Cut| {
            self.lines.iter().all(|(origin, line)| cut.covers(*origin, line.newest_write))
        };
        let noted = &self.collection.noted;
        let first = noted.partition_point(|(_, cut)| !covers_all(cut));
        noted.get(first + 1).or_else(|| noted.back()).map(|(at, _)| *at)
    }

    /// Where nothing but promises is kept, nobody waits for newer ones, and nothing of it would ever
    /// be let go of: once that is much, or writes are refused for it, newer ones are asked for.
    /// Asked for once: each of them is kept as well, for as long as a datacenter is away.
    pub(crate) fn get_rid_of_promises(&mut self, storage: &dyn Storage) {
        let passed = self.cuts.stable.oldest(self.configuration.origins()).unwrap_or_default();
        let asked = self.collection.rid_to.filter(|to| passed < *to);
        let is_stable = |(origin, line): (&DatacenterId, &Line)| {
            self.cuts.stable.covers(*origin, line.newest_write)
        };
        let count = self.window.needed().0;
        let is_much = PROMISES_MAX < count || 0 < count && storage.held_up_by().is_some();
        let is_new = || is_much && self.lines.iter().all(is_stable);
        self.collection.rid_to = asked.or_else(|| is_new().then(|| self.hlc.last()));
    }

    /// What was written last, if it is above what the datacenter is known to have applied, and
    /// sessions ask for that even where no other datacenter does: a read that was overtaken by one
    /// behind it must not show what became visible only in between.
    fn unknown_to_be_applied(&self) -> Option<Timestamp> {
        let own = self.here_datacenter();
        let newest = self.lines.get(&own).map(|line| line.newest_write);
        let newest = newest.filter(|_| self.is_alone() && self.lets_reads_overtake());
        newest.filter(|newest| !self.cuts.applied.covers(own, *newest))
    }

    /// Whether a read may be answered later than what is handed over behind it: by another replica,
    /// or because its value is on disk only.
    fn lets_reads_overtake(&self) -> bool {
        let chain = self.configuration.chain(self.here_datacenter(), self.shard);
        1 < chain.len() || self.options.away_bytes_min.is_some()
    }

    fn is_alone(&self) -> bool {
        self.configuration.peers(self.here_datacenter()).next().is_none()
    }

    /// Collects tombstones that are second-stable.
    pub(crate) fn collect_when_stable(&mut self) {
        if self.keys.tombstone_count() == 0 {
            self.collection.noted.clear();
            return;
        }
        let noted = &mut self.collection.noted;
        let is_news = noted.back().is_none_or(|(_, cut)| *cut != self.cuts.stable);
        if is_news && noted.len() < NOTED_MAX {
            noted.push_back((self.cuts.hlc.max(self.hlc.last()), self.cuts.stable.clone()));
        }
        let origins = self.configuration.origins();
        let passed = self.cuts.stable.oldest(origins).unwrap_or_default();
        while self.collection.noted.front().is_some_and(|(at, _)| *at <= passed) {
            if let Some((at, cut)) = self.collection.noted.pop_front() {
                (self.collection.ready_at, self.collection.ready) = (at, cut);
            }
        }
        if self.options.mutations.has(Mutation::CollectAtFirstStability) {
            self.collection.ready = self.cuts.stable.clone();
        }
        if !self.has_applied_to(self.collection.ready_at) {
            return;
        }
        let ready = &self.collection.ready;
        self.keys.collect(|version| ready.covers(version.origin, version.timestamp), COLLECT_MAX);
    }
    /// Whether every operation up to a logical time is committed here. One of a datacenter that is
    /// alone need not be: what comes later has a larger version. Of one that is gone nothing comes
    /// any more, but this replica may have to commit what the tail has already.
    fn has_applied_to(&self, at: Timestamp) -> bool {
        let is_applied = |origin: DatacenterId| {
            let watermark = self.lines.get(&origin).map(|line| line.applied.watermark());
            self.cuts.stable.at(origin) == Timestamp::MAX
                || watermark.is_some_and(|watermark| at <= watermark)
        };
        let gone = self.configuration.membership.gone.keys();
        let mut gone = gone.filter_map(|origin| self.lines.get(origin));
        gone.all(|line| line.applied == line.received)
            && self.configuration.origins().all(is_applied)
    }
}
