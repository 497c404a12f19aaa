//! Holds all keys of one shard at one replica: what is committed, and dirty states above it.
//!
//! Committed entries are merged into packed records; an entry that is not committed yet leaves, for
//! each key that it concerns, the state that the key will have, in a list above the record. Cutting
//! dirty entries off is therefore forgetting, not undoing. Values of dirty states are not copied:
//! they are places in the entry's body, or stay in the record.
//!
//! Assumes: entries are added and committed in the order of positions, each once. After a restart
//! they are committed again, from the first or from a checkpoint on: what had been collected may be
//! there again.
//! Ensures: the newest state of a key is what its record will hold when all entries that were added
//! are committed. Conflicts are told once, when the entry is committed.
//! Invariant: a key with dirty states keeps its record's value until they are committed or cut;
//! that value may be on disk only, as with any key (`away`).

/// Values that are on disk only.
mod away;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    ops::Range,
    sync::Arc,
};

use antecede_model::{
    clock::Timestamp, ids::Position, key::hash_of, operation::Deadline, sighting::Sighting,
    version::Version,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use self::away::Away;
pub use self::away::{Evicted, NotThere};
use super::{
    execute::Lacking,
    glob,
    index::{Index, SLOT_BYTES},
    look::{Look, Stored},
    merge::{Applying, KeyState, Merged},
    record,
};
use crate::{
    checkpointed::{Changes, Floors, StepLimits, write_records},
    copied::{Part, Start},
    entry::{Body, Change, Effect, Entry},
};

/// What a record takes beyond key and value, its place in the index included, about.
const KEY_OVERHEAD_BYTES: usize = 12 + SLOT_BYTES * 10 / 7;
/// Steps that the pattern of one scan may take; then the scan ends early.
const PATTERN_STEPS_MAX: u64 = 4_000_000;
/// Records that are remembered, by hash and time, after they were collected. When more are
/// collected between a `WATCH` of an absent key and its `EXEC`, the `EXEC` may abort needlessly.
const COLLECTED_MAX: usize = 256;

/// A value that was dropped although the write that won, or lost, had not seen the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key.
    pub key: Box<[u8]>,
    /// The value that was dropped.
    pub loser: Version,
    /// The value or tombstone that is there.
    pub winner: Version,
}

/// The keys of one shard at one replica.
#[derive(Debug)]
pub struct Keys {
    secret: u64,
    committed: Position,
    /// While the keys are copied: the first hash of those that are not there yet.
    frontier: Option<u64>,
    /// After a restart: what keys contain of the entries that are committed again.
    floors: Floors,
    /// Hashes of records that were collected since they were looked at for a checkpoint; none
    /// where nobody looks.
    removed: Option<BTreeSet<u64>>,
    index: Index,
    /// Values that are on disk only.
    away: Away,
    /// By the hash of the key. The order of the map is never observed.
    dirty: FxHashMap<u64, SmallVec<[DirtyState; 1]>>,
    dirty_count: usize,
    /// Of visible keys that expire: deadline and hash.
    deadlines: BTreeSet<(Deadline, u64)>,
    /// Tombstones and hidden values, in the order in which they were committed.
    gone: VecDeque<Gone>,
    /// The visible-at of the newest entry that was committed.
    shown_to: Timestamp,
    /// What was collected lately, the latest at the back.
    collected: VecDeque<Collected>,
    /// The largest visible-at of all that was collected and is not in the list any more.
    collected_to: Timestamp,
    live_count: usize,
    gone_count: usize,
    ttl_count: usize,
    record_bytes: usize,
}

/// The state that a key has once an entry is committed.
#[derive(Debug)]
struct DirtyState {
    position: Position,
    body: Arc<[u8]>,
    key: Range<usize>,
    state: KeyState<Held>,
}

/// Where the value of a dirty state is.
#[derive(Clone, Debug)]
enum Held {
    /// In the record.
    Record,
    /// In an entry's body.
    Body(Arc<[u8]>, Range<usize>),
}

/// Where the value of a state that is being committed is.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// In the record that was there.
    Record,
    /// In the effect.
    Effect(&'a [u8]),
}

/// A key that may be forgotten one day.
#[derive(Clone, Copy, Debug)]
struct Gone {
    hash: u64,
    /// The largest version of all that made it up then.
    version: Version,
}

/// A record that was collected.
#[derive(Clone, Copy, Debug)]
struct Collected {
    hash: u64,
    visible_at: Timestamp,
}

/// What a record counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    is_visible: bool,
    deadline: Option<Deadline>,
}

impl Standing {
    fn of(look: &Look<'_>) -> Self {
        let is_visible = look.is_visible();
        Self { is_visible, deadline: look.deadline().filter(|_| is_visible) }
    }
}

impl DirtyState {
    fn is_of(&self, key: &[u8]) -> bool {
        &self.body[self.key.clone()] == key
    }

    fn look<'a>(&'a self, record: Option<&'a [u8]>) -> Look<'a> {
        let held = match &self.state.value {
            None => None,
            Some(Held::Body(body, place)) => Some(Stored::Here(&body[place.clone()])),
            Some(Held::Record) => {
                let found = record.map(record::read).unwrap_or_default();
                debug_assert_eq!(found.version, self.state.version, "records keep their values");
                found.held
            }
        };
        self.state.look(held)
    }
}

impl Keys {
    /// No keys. The secret is the same at all replicas of all datacenters.
    #[must_use]
    pub fn new(secret: u64) -> Self {
        Self {
            secret,
            committed: Position::default(),
            frontier: None,
            floors: Floors::default(),
            removed: None,
            index: Index::default(),
            away: Away::default(),
            dirty: FxHashMap::default(),
            dirty_count: 0,
            deadlines: BTreeSet::new(),
            gone: VecDeque::new(),
            shown_to: Timestamp::ZERO,
            collected: VecDeque::new(),
            collected_to: Timestamp::ZERO,
            live_count: 0,
            gone_count: 0,
            ttl_count: 0,
            record_bytes: 0,
        }
    }

    /// Begins, empty, to be copied: none of the keys are here yet, they follow in parts.
    pub fn copy_from(&mut self, start: &Start) {
        self.committed = start.position();
        self.frontier = Some(0);
        self.shown_to = start.shown_to;
        self.collected_to = start.collected_to;
    }

    /// Begins, empty, from a checkpoint that has all keys, see [`Keys::load`].
    pub fn begin_loading(&mut self, start: &Start, floors: Floors) {
        self.committed = start.position();
        self.floors = floors;
        self.shown_to = start.shown_to;
        self.collected_to = start.collected_to.max(start.shown_to);
    }

    /// The first hash of the keys that are still to be copied; none when all are here.
    #[must_use]
    pub const fn frontier(&self) -> Option<u64> {
        self.frontier
    }

    /// The visible-at of the newest entry that was committed, and the largest of all that was
    /// collected.
    #[must_use]
    pub fn shown_and_collected_to(&self) -> (Timestamp, Timestamp) {
        let lately = self.collected.iter().map(|gone| gone.visible_at);
        (self.shown_to, lately.max().unwrap_or_default().max(self.collected_to))
    }

    /// Remembers from now on what was collected, for [`Keys::take_changes`].
    pub fn remember_removed(&mut self) {
        self.removed.get_or_insert_default();
    }

    /// All keys were loaded.
    pub fn end_loading(&mut self) {
        self.gone.make_contiguous().sort_by_key(|gone| gone.version);
    }

    /// The hash to go on with (`None` at the end), and what has changed in keys from a hash on.
    ///
    /// What is told is the committed state: [`Keys::committed_to`] is the floor of these hashes. A
    /// record that has changed but for its value, which is on disk only, is told without it.
    pub fn take_changes(&mut self, from: u64, limits: StepLimits) -> (Option<u64>, Changes) {
        let changed = self.index.take_changed(from, limits.looks, limits.bytes);
        self.away.told(from, changed.next);
        let mut hashes = changed.hashes;
        if let Some(removed) = self.removed.as_mut().filter(|removed| !removed.is_empty()) {
            let mut here = removed.split_off(&from);
            let mut behind = changed.next.map(|next| here.split_off(&next)).unwrap_or_default();
            removed.append(&mut behind);
            hashes.extend(here);
            hashes.sort_unstable();
            hashes.dedup();
        }
        let one = |hash| (hash, write_records(self.index.with_hash(hash)));
        (changed.next, hashes.into_iter().map(one).collect())
    }

    /// The committed keys from a hash on, about so many bytes of them.
    ///
    /// # Errors
    /// [`Lacking`] when values are on disk only.
    pub fn part(&self, from: u64, bytes_max: usize) -> Result<Part, Lacking> {
        let mut part = Part { from, next: None, records: Vec::new() };
        let mut lacking = Lacking::default();
        let mut bytes = 0;
        let mut last = from;
        for (hash, record) in self.index.starting_at(from) {
            if bytes_max <= bytes && last < hash {
                part.next = Some(hash);
                break;
            }
            last = hash;
            if record::is_away(record) {
                bytes += record::value_length(record);
                lacking.hashes.push(hash);
            } else {
                bytes += record.len();
                part.records.push(record.into());
            }
        }
        if lacking.hashes.is_empty() { Ok(part) } else { Err(lacking) }
    }

    /// Takes a part of what is copied; false if it is not the next one.
    pub fn install(&mut self, part: &Part) -> bool {
        if self.frontier != Some(part.from) {
            return false;
        }
        for record in &part.records {
            let hash = self.hash(record::key(record));
            let is_of_part = part.from <= hash && part.next.is_none_or(|next| hash < next);
            let Err(at) = self.index.find(hash, record::key(record)) else { continue };
            if !is_of_part {
                continue;
            }
            self.index.insert(at, hash, record.clone());
            self.count_new(hash, record);
        }
        self.frontier = part.next;
        if self.frontier.is_none() {
            self.collected_to = self.collected_to.max(self.shown_to);
            self.gone.make_contiguous().sort_by_key(|gone| gone.version);
        }
        true
    }

    /// Counts a record that has just been put into the index.
    fn count_new(&mut self, hash: u64, record: &[u8]) {
        let look = record::read(record);
        let standing = Standing::of(&look);
        let gone = if standing.is_visible { None } else { look.largest_version() };
        self.record_bytes += record.len();
        self.away.count(None, look.held);
        self.count(hash, None, Some(standing));
        self.gone.extend(gone.map(|version| Gone { hash, version }));
    }

    /// Whether a key of this hash has no use for an entry: it contains the entry already, or will
    /// be copied with it.
    fn contains(&self, hash: u64, position: Position) -> bool {
        self.frontier.is_some_and(|frontier| frontier <= hash)
            || !self.floors.is_empty() && position <= self.floors.of(hash)
    }

    /// The hash that orders keys here.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        hash_of(key, self.secret)
    }

    /// Tells the processor that a key of this hash will be looked for.
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Tells the processor that the record of a key of this hash will be read. Call it for a whole
    /// batch after [`Keys::prefetch`] was called for the whole batch.
    pub fn prefetch_record(&self, hash: u64) {
        self.index.prefetch_record(hash);
    }

    /// The position of the last entry that was committed.
    #[must_use]
    pub const fn committed_to(&self) -> Position {
        self.committed
    }

    /// The newest state of a key, also if it is dirty.
    #[must_use]
    pub fn newest(&self, key: &[u8]) -> Look<'_> {
        let hash = self.hash(key);
        let newest = self.dirty_states(hash, key).next_back();
        self.look(hash, key, newest)
    }

    /// The committed state of a key.
    #[must_use]
    pub fn committed(&self, key: &[u8]) -> Look<'_> {
        self.look(self.hash(key), key, None)
    }

    /// The state of a key when everything up to `to` is committed: the newest state at a position
    /// up to `to`, or the committed one if that is newer.
    #[must_use]
    pub fn at(&self, key: &[u8], to: Position) -> Look<'_> {
        let hash = self.hash(key);
        let dirty = self.dirty_states(hash, key).rfind(|dirty| dirty.position <= to);
        self.look(hash, key, dirty)
    }

    /// The position of the newest dirty state of a key; `None` if it is clean.
    #[must_use]
    pub fn newest_dirty(&self, key: &[u8]) -> Option<Position> {
        if self.dirty.is_empty() {
            return None;
        }
        Some(self.dirty_states(self.hash(key), key).next_back()?.position)
    }

    /// How many dirty states there are, over all keys.
    #[must_use]
    pub const fn dirty_count(&self) -> usize {
        self.dirty_count
    }

    /// What `WATCH` remembers of a key that looks like this.
    ///
    /// Of a key whose time is over it is right only once the hiding is committed: that is later
    /// than what is committed here.
    #[must_use]
    pub fn sighting(&self, look: &Look<'_>, wall_millis: u64) -> Sighting {
        look.presence(wall_millis).map_or_else(
            // The look may be of a state above the committed ones.
            || Sighting::Absent { at: self.shown_to.max(look.visible_at()) },
            Sighting::Present,
        )
    }

    /// Whether a key that looks like this now has changed since it was sighted, however often: it
    /// may have come and gone.
    ///
    /// A key that was absent has not changed if nothing of it became visible since: no value, no
    /// tombstone, no hiding, and no record that was collected.
    #[must_use]
    pub fn has_changed(
        &self,
        key: &[u8],
        look: &Look<'_>,
        sighting: Sighting,
        wall_millis: u64,
    ) -> bool {
        let presence = look.presence(wall_millis);
        match sighting {
            Sighting::Present(version) => presence != Some(version),
            Sighting::Absent { at } => {
                presence.is_some()
                    || at < look.visible_at()
                    || look.version().is_none() && self.was_collected_after(at, key)
            }
        }
    }

    /// Whether a record of the key that became visible after `at` may have been collected.
    fn was_collected_after(&self, at: Timestamp, key: &[u8]) -> bool {
        let hash = self.hash(key);
        let is_it = |gone: &Collected| gone.hash == hash && at < gone.visible_at;
        at < self.collected_to || self.collected.iter().any(is_it)
    }

    fn look<'a>(&'a self, hash: u64, key: &[u8], dirty: Option<&'a DirtyState>) -> Look<'a> {
        let needs_record =
            dirty.is_none_or(|dirty| matches!(dirty.state.value, Some(Held::Record)));
        let record = if needs_record { self.index.find(hash, key).ok() } else { None };
        if record.is_some() {
            self.index.touch(hash);
        }
        let record = record.map(|at| self.index.record(at));
        dirty.map_or_else(
            || record.map(record::read).unwrap_or_default(),
            |dirty| dirty.look(record),
        )
    }

    fn dirty_states(&self, hash: u64, key: &[u8]) -> impl DoubleEndedIterator<Item = &DirtyState> {
        let states = if self.dirty.is_empty() { None } else { self.dirty.get(&hash) };
        states.into_iter().flatten().filter(move |dirty| dirty.is_of(key))
    }

    /// Puts the states that an entry leaves above the committed ones.
    ///
    /// # Panics
    /// If the entry's position is not above all that were committed.
    pub fn add_dirty(&mut self, entry: &Entry) {
        assert!(self.committed < entry.identity.position, "a committed entry is not dirty");
        let Body::Write(body) = &entry.body else { return };
        entry.for_each_effect(|effect| self.add_dirty_effect(entry, body, &effect));
    }

    fn add_dirty_effect(&mut self, entry: &Entry, body: &Arc<[u8]>, effect: &Effect<'_>) {
        let hash = self.hash(effect.key);
        if self.contains(hash, entry.identity.position) {
            return;
        }
        let newest = self.dirty_states(hash, effect.key).next_back();
        let mut state = newest.map_or_else(
            || KeyState::of(&self.committed(effect.key), Held::Record),
            |dirty| dirty.state.clone(),
        );
        state.merge(&applying(entry, effect), || {
            let Change::Set { value, .. } = effect.change else {
                unreachable!("only a new value needs a place")
            };
            Held::Body(Arc::clone(body), place_in(body, value))
        });
        let position = entry.identity.position;
        let key = place_in(body, effect.key);
        let dirty = DirtyState { position, body: Arc::clone(body), key, state };
        self.dirty.entry(hash).or_default().push(dirty);
        self.dirty_count += 1;
    }

    /// Forgets the dirty states at `from` and above: their entries were cut off.
    pub fn cut_dirty(&mut self, from: Position) {
        let mut dirty_count = 0;
        self.dirty.retain(|_, states| {
            states.retain(|dirty| dirty.position < from);
            dirty_count += states.len();
            !states.is_empty()
        });
        self.dirty_count = dirty_count;
    }

    /// Merges an entry into the committed states, whether or not it was added as dirty before.
    ///
    /// # Panics
    /// If the entry's position is not above all that were committed.
    pub fn commit(&mut self, entry: &Entry, conflicts: &mut Vec<Conflict>) {
        let position = entry.identity.position;
        assert!(self.committed < position, "entries are committed once, and in order");
        self.committed = position;
        self.shown_to = self.shown_to.max(entry.visible_at);
        entry.for_each_effect(|effect| {
            let hash = self.hash(effect.key);
            if self.contains(hash, position) {
                return;
            }
            if let Some((loser, winner)) = self.commit_effect(hash, entry, &effect).dropped {
                conflicts.push(Conflict { key: effect.key.into(), loser, winner });
            }
            if !self.dirty.is_empty() {
                self.drop_dirty_to(position, hash);
            }
        });
        if !self.floors.is_empty() && self.floors.highest() <= position {
            self.floors = Floors::default();
        }
    }

    fn commit_effect(&mut self, hash: u64, entry: &Entry, effect: &Effect<'_>) -> Merged {
        let key = effect.key;
        let found = self.index.find(hash, key);
        let look = found.map(|at| record::read(self.index.record(at))).unwrap_or_default();
        let mut state = KeyState::of(&look, Source::Record);
        let merged = state.merge(&applying(entry, effect), || match effect.change {
            Change::Set { value, .. } => Source::Effect(value),
            Change::Delete | Change::Ttl { .. } | Change::Hide => Source::Record,
        });
        if !merged.is_changed {
            return merged;
        }
        let before = Standing::of(&look);
        let value = state.value.and_then(|source| match source {
            Source::Record => look.held,
            Source::Effect(value) => Some(Stored::Here(value)),
        });
        self.away.count(look.held, value);
        let now = state.look(value);
        let after = Standing::of(&now);
        let gone = if after.is_visible { None } else { now.largest_version() };
        let length = record::length(key, &state, value);
        self.record_bytes += length;
        if let Ok(at) = found {
            let old_length = self.index.record(at).len();
            self.record_bytes -= old_length;
            if let Some(Source::Effect(value)) = state.value
                && old_length == length
            {
                let mut reused = mem::take(self.index.record_mut(at)).into_vec();
                reused.clear();
                let value = Some(Stored::Here(value));
                *self.index.record_mut(at) = record::write(reused, key, &state, value);
            } else {
                let record = record::write(Vec::with_capacity(length), key, &state, value);
                *self.index.record_mut(at) = record;
            }
        } else if let Err(at) = found {
            let record = record::write(Vec::with_capacity(length), key, &state, value);
            self.index.insert(at, hash, record);
        }
        self.index.touch(hash);
        self.count(hash, found.is_ok().then_some(before), Some(after));
        self.gone.extend(gone.map(|version| Gone { hash, version }));
        merged
    }

    /// Keeps counters and deadlines in step with one record; `None` where there is none.
    fn count(&mut self, hash: u64, before: Option<Standing>, after: Option<Standing>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            if before.is_visible {
                self.live_count -= 1;
            } else {
                self.gone_count -= 1;
            }
        }
        if let Some(after) = after {
            if after.is_visible {
                self.live_count += 1;
            } else {
                self.gone_count += 1;
            }
        }
        let old_deadline = before.and_then(|standing| standing.deadline);
        let new_deadline = after.and_then(|standing| standing.deadline);
        if let Some(deadline) = old_deadline {
            self.ttl_count -= 1;
            // Another key may have the same hash and deadline.
            let is_needed = self
                .index
                .with_hash(hash)
                .any(|record| Standing::of(&record::read(record)).deadline == Some(deadline));
            if !is_needed {
                self.deadlines.remove(&(deadline, hash));
            }
        }
        if let Some(deadline) = new_deadline {
            self.ttl_count += 1;
            self.deadlines.insert((deadline, hash));
        }
    }

    fn drop_dirty_to(&mut self, to: Position, hash: u64) {
        let Some(states) = self.dirty.get_mut(&hash) else { return };
        let before = states.len();
        states.retain(|dirty| to < dirty.position);
        self.dirty_count -= before - states.len();
        if states.is_empty() {
            self.dirty.remove(&hash);
        }
    }

    /// Forgets tombstones and hidden values for which `is_collectable` holds, in the order in
    /// which they were committed, up to the first for which it does not; looks at `limit` of them
    /// at most. The version is the largest of all that make up what is forgotten; it may be
    /// collected when no effect that has not seen it can arrive any more. Tells how many went.
    pub fn collect(&mut self, is_collectable: impl Fn(Version) -> bool, limit: usize) -> usize {
        let mut collected = 0;
        for _ in 0..limit.min(self.gone.len()) {
            let Some(gone) = self.gone.pop_front_if(|gone| is_collectable(gone.version)) else {
                break;
            };
            if self.dirty.contains_key(&gone.hash) {
                self.gone.push_back(gone);
            } else if self.forget(gone) {
                collected += 1;
            }
        }
        collected
    }

    fn forget(&mut self, gone: Gone) -> bool {
        let is_it = |record: &&[u8]| {
            let look = record::read(record);
            !look.is_visible() && look.largest_version() == Some(gone.version)
        };
        let Some(record) = self.index.with_hash(gone.hash).find(is_it) else { return false };
        let length = record.len();
        let Look { visible_at, held, .. } = record::read(record);
        self.away.count(held, None);
        let Ok(at) = self.index.find(gone.hash, record::key(record)) else { return false };
        self.index.remove(at);
        if let Some(removed) = &mut self.removed {
            removed.insert(gone.hash);
        }
        if self.collected.len() == COLLECTED_MAX
            && let Some(oldest) = self.collected.pop_front()
        {
            self.collected_to = self.collected_to.max(oldest.visible_at);
        }
        self.collected.push_back(Collected { hash: gone.hash, visible_at });
        self.record_bytes -= length;
        self.count(gone.hash, Some(Standing::default()), None);
        true
    }

    /// How many keys have a visible value, expired ones included until they are hidden; `DBSIZE`
    /// leaves those out.
    #[must_use]
    pub const fn live_count(&self) -> usize {
        self.live_count
    }

    /// How many keys are kept without a visible value: tombstones and hidden values.
    #[must_use]
    pub const fn tombstone_count(&self) -> usize {
        self.gone_count
    }

    /// How many visible keys expire one day.
    #[must_use]
    pub const fn ttl_count(&self) -> usize {
        self.ttl_count
    }

    /// Bytes that the committed keys take, about: records, index, deadlines.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.record_bytes
            + self.index.table_bytes()
            + self.deadlines.len() * 2 * size_of::<(Deadline, u64)>()
            + self.gone.capacity() * size_of::<Gone>()
            + self.collected.capacity() * size_of::<Collected>()
    }

    /// Keys whose committed value is visible although its deadline has passed, the earliest
    /// first, without those that a dirty entry has already changed in that respect.
    #[must_use]
    pub fn expired(&self, wall_millis: u64, limit: usize) -> Vec<Box<[u8]>> {
        self.deadlines
            .range(..(wall_millis, 0))
            .flat_map(|(deadline, hash)| {
                self.index.with_hash(*hash).filter(|record| {
                    record::read(record).deadline() == Some(*deadline)
                        && self.newest(record::key(record)).is_expired(wall_millis)
                })
            })
            .map(|record| record::key(record).into())
            .take(limit)
            .collect()
    }

    /// Looks at about `count` committed keys in the order of hashes, from a hash on, and tells
    /// those that are there and match the pattern, and the hash to go on with (`None` at the end).
    /// Keys with one hash are told in one step. A pattern that takes very long ends a step early;
    /// one that takes too long for a single key does not match it.
    #[must_use]
    pub fn scan(
        &self,
        from: u64,
        count: u64,
        pattern: Option<&[u8]>,
        wall_millis: u64,
    ) -> (Option<u64>, Vec<&[u8]>) {
        let mut keys = Vec::new();
        let mut last = None;
        let mut steps = PATTERN_STEPS_MAX;
        for (looked_at, (hash, record)) in (0..).zip(self.index.starting_at(from)) {
            let is_new_hash = last.is_some_and(|last| last < hash);
            if is_new_hash && (count <= looked_at || steps == 0) {
                return (Some(hash), keys);
            }
            last = Some(hash);
            let look = record::read(record);
            if !look.is_visible() || look.is_expired(wall_millis) {
                continue;
            }
            let key = record::key(record);
            let is_match = pattern.is_none_or(|pattern| {
                glob::matches(pattern, key, &mut steps).unwrap_or_else(|| {
                    steps = 0;
                    false
                })
            });
            if is_match {
                keys.push(key);
            }
        }
        (None, keys)
    }

    /// Some committed key that is there, chosen by a drawn number; `None` if there is none.
    #[must_use]
    pub fn random(&self, draw: u64, wall_millis: u64) -> Option<&[u8]> {
        self.index
            .starting_at(draw)
            .chain(self.index.starting_at(0))
            .map(|(_, record)| record)
            .find(|record| {
                let look = record::read(record);
                look.is_visible() && !look.is_expired(wall_millis)
            })
            .map(record::key)
    }
}

/// What `MEMORY USAGE` tells of a key.
pub(super) const fn memory_of(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + KEY_OVERHEAD_BYTES
}

fn applying<'a>(entry: &Entry, effect: &'a Effect<'a>) -> Applying<'a> {
    Applying {
        version: entry.version(),
        visible_at: entry.visible_at,
        seen: effect.seen.as_slice(),
        change: effect.change,
    }
}

/// Where a part of a body lies in it.
fn place_in(body: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().wrapping_sub(body.as_ptr().addr());
    let place = start..start.wrapping_add(part.len());
    debug_assert_eq!(body.get(place.clone()), Some(part), "effects lie in their entry's body");
    place
}
