//! Holds all keys of one shard at one replica: what is committed, and dirty states above it.
//!
//! Committed entries are merged into packed records; an entry that is not committed yet leaves, for
//! each key that it concerns, the state that the key will have, in a list above the record. Cutting
//! dirty entries off is therefore forgetting, not undoing. Values of dirty states are not copied:
//! they are places in the entry's body, or stay in the record.
//!
//! Assumes: entries are added and committed in the order of positions, each once. After a restart
//! all of them are committed again from the first on: what had been collected is there again.
//! Ensures: the newest state of a key is what its record will hold when all entries that were added
//! are committed. Conflicts are told once, when the entry is committed.
//! Invariant: a key with dirty states keeps its record's value until they are committed or cut.

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

use super::{
    glob,
    index::{Index, SLOT_BYTES},
    look::Look,
    merge::{Applying, KeyState, Merged},
    record,
};
use crate::entry::{Body, Change, Effect, Entry};

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
    index: Index,
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
            Some(Held::Body(body, place)) => Some(&body[place.clone()]),
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
            index: Index::default(),
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
            if let Some((loser, winner)) = self.commit_effect(hash, entry, &effect).dropped {
                conflicts.push(Conflict { key: effect.key.into(), loser, winner });
            }
            if !self.dirty.is_empty() {
                self.drop_dirty_to(position, hash);
            }
        });
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
            Source::Effect(value) => Some(value),
        });
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
                *self.index.record_mut(at) = record::write(reused, key, &state, Some(value));
            } else {
                let record = record::write(Vec::with_capacity(length), key, &state, value);
                *self.index.record_mut(at) = record;
            }
        } else if let Err(at) = found {
            let record = record::write(Vec::with_capacity(length), key, &state, value);
            self.index.insert(at, hash, record);
        }
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
        let visible_at = record::read(record).visible_at;
        let Ok(at) = self.index.find(gone.hash, record::key(record)) else { return false };
        self.index.remove(at);
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

    /// How many keys have a visible value, expired ones included until they are hidden: `DBSIZE`.
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

#[cfg(test)]
mod tests {
    use antecede_model::{
        clock::Timestamp,
        operation::{Action, Condition, ExpireCondition, Operation, SetReply, Ttl},
    };
    use proptest::{collection::vec, option, prelude::*};

    use super::{
        super::{
            execute,
            testing::{Replica, entry, set, version},
        },
        *,
    };
    use crate::entry::Seen;

    impl Keys {
        /// The packed record of a key.
        pub(in super::super) fn record_of(&self, key: &[u8]) -> Option<&[u8]> {
            self.index.find(self.hash(key), key).ok().map(|at| self.index.record(at))
        }

        fn commit_all(&mut self, entries: &[Entry]) -> Vec<Conflict> {
            let mut conflicts = vec![];
            for entry in entries {
                self.commit(entry, &mut conflicts);
            }
            conflicts
        }

        /// Counts again what the counters say.
        fn check_counters(&self) {
            let records: Vec<_> = self.index.starting_at(0).map(|(_, record)| record).collect();
            let standings = records.iter().map(|record| Standing::of(&record::read(record)));
            let visible = standings.clone().filter(|standing| standing.is_visible).count();
            assert_eq!(self.live_count, visible);
            assert_eq!(self.gone_count, records.len() - visible);
            let bytes: usize = records.iter().map(|record| record.len()).sum();
            assert_eq!(self.record_bytes, bytes);
            let deadlines: Vec<_> = standings.filter_map(|standing| standing.deadline).collect();
            assert_eq!(self.ttl_count, deadlines.len());
            assert_eq!(self.deadlines.len(), deadlines.len());
            let dirty: usize = self.dirty.values().map(SmallVec::len).sum();
            assert_eq!(self.dirty_count, dirty);
        }
    }

    /// All that a look shows.
    type Facts = (Option<Vec<u8>>, Option<Version>, Option<Deadline>, Seen, Timestamp);

    fn facts(look: &Look<'_>) -> Facts {
        let value = look.value().map(<[u8]>::to_vec);
        (value, look.version(), look.deadline(), look.seen(), look.visible_at())
    }

    fn key_of(number: u8) -> [u8; 3] {
        [b'k', b'-', number]
    }

    fn action_of(kind: u8, value: &[u8], deadline: u64) -> Action<'_> {
        let plain =
            |ttl| Action::Set { value, condition: Condition::Always, ttl, reply: SetReply::Status };
        match kind {
            0 | 1 => plain(Ttl::Clear),
            2 => plain(Ttl::Until(deadline)),
            3 => plain(Ttl::Keep),
            4 => Action::Delete,
            5 => Action::Persist,
            6 => Action::Append { value },
            7 => Action::Get,
            _ => Action::Expire { deadline, condition: ExpireCondition::Always },
        }
    }

    /// One step: which key, which action, a deadline, whether it is made elsewhere, how many
    /// entries are committed behind it, how many are cut.
    type Step = (u8, u8, u64, bool, usize, Option<u64>);

    fn any_step() -> impl Strategy<Value = Step> {
        (
            0_u8..4,
            0_u8..10,
            1000_u64..1060,
            any::<bool>(),
            0_usize..3,
            option::weighted(0.1, 0_u64..3),
        )
    }

    /// A replica whose entries wait a while before they are committed, beside all entries.
    struct Lagging {
        keys: Keys,
        entries: Vec<Entry>,
    }

    impl Lagging {
        fn committed_count(&self) -> usize {
            usize::try_from(self.keys.committed.0).unwrap()
        }

        fn check(&self) {
            let mut straight = Keys::new(1);
            for count in 0..=self.entries.len() {
                if let Some(last) = count.checked_sub(1) {
                    straight.commit(&self.entries[last], &mut vec![]);
                }
                let to = Position(u64::try_from(count).unwrap());
                for key in (0..4).map(key_of) {
                    let expected = facts(&straight.committed(&key));
                    if self.keys.committed <= to {
                        assert_eq!(facts(&self.keys.at(&key, to)), expected, "at {to}");
                    }
                    if to == self.keys.committed {
                        assert_eq!(facts(&self.keys.committed(&key)), expected);
                        assert_eq!(self.keys.record_of(&key), straight.record_of(&key));
                    }
                    if count == self.entries.len() {
                        assert_eq!(facts(&self.keys.newest(&key)), expected);
                    }
                }
            }
            self.keys.check_counters();
        }
    }

    proptest! {
        #[test]
        fn every_state_is_that_of_the_entries_up_to_its_position(
            steps in vec(any_step(), 1..40),
        ) {
            let mut here = Lagging { keys: Keys::new(1), entries: vec![] };
            let mut elsewhere = Replica::new();
            for (number, step) in (1_u64..).zip(steps) {
                let (key, kind, deadline, is_elsewhere, commit_count, cut) = step;
                let (key, wall) = (key_of(key), 1000 + number);
                let value = [b'v'].repeat(usize::try_from(number).unwrap());
                let operation = Operation { key: &key, action: action_of(kind, &value, deadline) };
                let keys = if is_elsewhere { &elsewhere.keys } else { &here.keys };
                let executed = execute(keys, &operation, wall);
                let effects: Vec<_> =
                    executed.effects.iter().map(|effect| effect.as_effect()).collect();
                if !effects.is_empty() {
                    let position = u64::try_from(here.entries.len()).unwrap() + 1;
                    let origin = if is_elsewhere { 2 } else { 1 };
                    let new = entry(position, version(wall, origin), &effects);
                    here.keys.add_dirty(&new);
                    here.entries.push(new);
                    elsewhere.position += 1;
                    let there = entry(elsewhere.position, version(wall, origin), &effects);
                    if is_elsewhere {
                        elsewhere.commit(Some(&there));
                    }
                }
                for _ in 0..commit_count {
                    if let Some(next) = here.entries.get(here.committed_count()) {
                        here.keys.commit(next, &mut vec![]);
                    }
                }
                // Entries from elsewhere come again after a cut, which this test leaves out.
                if let Some(kept) = cut.filter(|_| !is_elsewhere) {
                    let from = here.keys.committed.0 + 1 + kept;
                    let is_local = |entry: &Entry| entry.origin.0 == 1;
                    let first = usize::try_from(from - 1).unwrap();
                    if here.entries.iter().skip(first).all(is_local) {
                        here.keys.cut_dirty(Position(from));
                        here.entries.truncate(first);
                    }
                }
                here.check();
            }
        }
    }

    fn set_of(position: u64, key: &[u8], value: &[u8], deadline: Option<u64>) -> Entry {
        let effect = Effect { key, seen: Seen::new(), change: set(value, deadline) };
        entry(position, version(position, 1), &[effect])
    }

    #[test]
    fn a_dirty_time_to_live_copies_no_value() {
        let mut keys = Keys::new(1);
        keys.commit(&set_of(1, b"k", &[5; 1000], None), &mut vec![]);
        let ttl = Effect {
            key: b"k",
            seen: keys.newest(b"k").seen(),
            change: Change::Ttl { deadline: Some(9) },
        };
        keys.add_dirty(&entry(2, version(2, 1), &[ttl]));
        assert_eq!(keys.newest_dirty(b"k"), Some(Position(2)));
        assert_eq!(keys.newest(b"k").deadline(), Some(9));
        assert_eq!(keys.committed(b"k").deadline(), None);
        let (newest, committed) = (keys.newest(b"k"), keys.committed(b"k"));
        assert!(std::ptr::eq(newest.value().unwrap(), committed.value().unwrap()));
        let over = set_of(3, b"k", b"new", None);
        keys.add_dirty(&over);
        let Body::Write(body) = &over.body else { panic!("a write") };
        assert!(body.as_ptr_range().contains(&keys.newest(b"k").value().unwrap().as_ptr()));
    }

    #[test]
    fn a_value_of_the_same_size_takes_the_place_of_the_old_one() {
        let mut keys = Keys::new(1);
        keys.commit(&set_of(1, b"k", b"abc", None), &mut vec![]);
        let place = keys.record_of(b"k").unwrap().as_ptr();
        keys.commit(&set_of(2, b"k", b"xyz", None), &mut vec![]);
        assert_eq!(keys.record_of(b"k").unwrap().as_ptr(), place);
        assert_eq!(keys.committed(b"k").value(), Some(&b"xyz"[..]));
    }

    #[test]
    fn a_conflict_is_told_once_and_when_it_is_committed() {
        let mut keys = Keys::new(1);
        let entries = [
            set_of(1, b"k", b"mine", None),
            entry(
                2,
                version(9, 2),
                &[Effect { key: b"k", seen: Seen::new(), change: set(b"theirs", None) }],
            ),
        ];
        for entry in &entries {
            keys.add_dirty(entry);
        }
        let conflicts = keys.commit_all(&entries);
        let expected =
            Conflict { key: b"k"[..].into(), loser: version(1, 1), winner: version(9, 2) };
        assert_eq!(conflicts, [expected]);
        assert_eq!(keys.dirty_count(), 0);
    }

    #[test]
    fn tombstones_go_when_they_may_and_only_as_they_were() {
        let mut replica = Replica::new();
        for key in [b"a", b"b", b"c"] {
            replica.run(key, action_of(0, b"v", 0));
            replica.run(key, Action::Delete);
        }
        replica.run(b"b", action_of(0, b"again", 0));
        assert_eq!((replica.keys.live_count(), replica.keys.tombstone_count()), (1, 2));
        let tombstone_of_a = replica.keys.committed(b"a").version().unwrap();
        assert_eq!(replica.keys.collect(|version| version <= tombstone_of_a, 10), 1);
        assert_eq!(replica.keys.committed(b"a").version(), None);
        assert!(replica.keys.committed(b"c").version().is_some());
        assert_eq!(replica.keys.collect(|_| true, 1), 0, "the tombstone of b was written over");
        assert_eq!(replica.keys.collect(|_| true, 1), 1);
        assert_eq!((replica.keys.live_count(), replica.keys.tombstone_count()), (1, 0));
        assert_eq!(replica.keys.committed(b"b").value(), Some(&b"again"[..]));
        replica.keys.check_counters();
    }

    #[test]
    fn a_hidden_value_is_collected_and_a_dirty_one_is_not() {
        let mut replica = Replica::new();
        replica.run(b"k", action_of(2, b"v", 1001));
        replica.wall_millis = 2000;
        assert_eq!(replica.run(b"k", Action::Get), antecede_model::response::Response::Nil);
        assert_eq!((replica.keys.live_count(), replica.keys.tombstone_count()), (0, 1));
        let next = set_of(replica.position + 1, b"k", b"new", None);
        replica.keys.add_dirty(&next);
        assert_eq!(replica.keys.collect(|_| true, 10), 0);
        replica.keys.cut_dirty(next.identity.position);
        assert_eq!(replica.keys.collect(|_| true, 10), 1);
        assert_eq!(replica.keys.record_of(b"k"), None);
        replica.keys.check_counters();
    }

    #[test]
    fn expired_keys_are_told_earliest_first_until_a_hiding_is_under_way() {
        let mut keys = Keys::new(1);
        for (position, (key, deadline)) in
            (1..).zip([(b"late", 30), (b"soon", 10), (b"then", 20), (b"last", 99)])
        {
            keys.commit(&set_of(position, key, b"v", Some(deadline)), &mut vec![]);
        }
        assert_eq!(keys.ttl_count(), 4);
        assert_eq!(keys.expired(10, 9), Vec::<Box<[u8]>>::new(), "a deadline is the last moment");
        assert_eq!(keys.expired(31, 2), [Box::from(&b"soon"[..]), Box::from(&b"then"[..])]);
        let hide = execute::hide_effect(b"soon", &keys.newest(b"soon"), 31).unwrap();
        let hide = entry(5, version(5, 1), &[hide.as_effect()]);
        keys.add_dirty(&hide);
        assert_eq!(keys.expired(31, 1), [Box::from(&b"then"[..])]);
        keys.commit(&hide, &mut vec![]);
        assert_eq!((keys.ttl_count(), keys.live_count(), keys.tombstone_count()), (3, 3, 1));
        keys.check_counters();
    }

    #[test]
    fn keys_with_one_hash_are_apart_and_told_in_one_step() {
        let mut keys = Keys::new(1);
        for (position, key) in (1..).zip([b"a", b"b", b"c"]) {
            let entry = set_of(position, key, b"v", Some(10));
            let hash = if key == b"c" { 9 } else { 5 };
            entry.for_each_effect(|effect| {
                keys.commit_effect(hash, &entry, &effect);
            });
        }
        assert_eq!(keys.deadlines.len(), 2);
        let (next, first) = keys.scan(0, 1, None, 0);
        assert_eq!((next, first), (Some(9), vec![&b"a"[..], b"b"]));
        assert_eq!(keys.scan(9, 1, None, 0), (None, vec![&b"c"[..]]));
        let effect = Effect { key: b"a", seen: Seen::new(), change: Change::Delete };
        let delete = entry(4, version(4, 1), &[effect]);
        delete.for_each_effect(|effect| {
            keys.commit_effect(5, &delete, &effect);
        });
        assert_eq!(keys.deadlines.len(), 2, "b still expires at the same time");
        assert_eq!(keys.collect(|_| true, 1), 1);
        assert_eq!(keys.scan(0, 9, None, 0), (None, vec![&b"b"[..], b"c"]));
    }

    #[test]
    fn a_scan_in_steps_tells_every_key_that_is_there_once() {
        let mut replica = Replica::new();
        for number in 0..100_u8 {
            replica.run(&key_of(number), action_of(if number < 90 { 0 } else { 2 }, b"v", 1001));
        }
        for number in 0..10 {
            replica.run(&key_of(number), Action::Delete);
        }
        for count in [0, 1, 7, 1000] {
            let mut found = BTreeSet::new();
            let mut from = Some(0);
            while let Some(hash) = from {
                let (next, keys) = replica.keys.scan(hash, count, Some(b"k-*"), 5000);
                assert!(next.is_none_or(|next| hash < next));
                for key in keys {
                    assert!(found.insert(key.to_vec()), "{key:?} was told twice");
                }
                from = next;
            }
            let expected = (10..90).map(|number| key_of(number).to_vec());
            assert_eq!(found, expected.collect());
        }
        assert_eq!(replica.keys.scan(0, 1000, Some(b"k-[!A]"), 5000).1.len(), 2);
    }

    #[test]
    fn a_pattern_that_takes_too_long_ends_the_step_and_does_not_match() {
        let mut keys = Keys::new(1);
        let long = vec![b'a'; 20_000];
        keys.commit(&set_of(1, &long, b"v", None), &mut vec![]);
        keys.commit(&set_of(2, b"b", b"v", None), &mut vec![]);
        let pattern = [&b"*"[..], &vec![b'a'; 5000], b"b"].concat();
        let first = keys.hash(&long).min(keys.hash(b"b"));
        let last = keys.hash(&long).max(keys.hash(b"b"));
        let (next, found) = keys.scan(0, 10, Some(&pattern), 0);
        let expected = if first == keys.hash(&long) { Some(last) } else { None };
        assert_eq!((next, found), (expected, vec![]));
    }

    #[test]
    fn a_random_key_is_one_that_is_there() {
        let mut replica = Replica::new();
        assert_eq!(replica.keys.random(u64::MAX, 0), None);
        for number in 0..4 {
            replica.run(&key_of(number), action_of(if number == 3 { 2 } else { 0 }, b"v", 1001));
        }
        replica.run(&key_of(0), Action::Delete);
        let draws = (0..64).map(|draw| draw << 58 | 7);
        let drawn: BTreeSet<_> = draws.filter_map(|draw| replica.keys.random(draw, 5000)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [key_of(1), key_of(2)]);
    }

    #[test]
    fn entries_without_effects_are_counted() {
        let mut keys = Keys::new(1);
        let tick = Entry { body: Body::Tick, ..set_of(1, b"k", b"v", None) };
        keys.add_dirty(&tick);
        keys.commit(&tick, &mut vec![]);
        assert_eq!((keys.committed_to(), keys.live_count()), (Position(1), 0));
    }

    #[test]
    #[should_panic(expected = "entries are committed once, and in order")]
    fn an_entry_is_not_committed_twice() {
        let mut keys = Keys::new(1);
        let once = set_of(1, b"k", b"v", None);
        keys.commit_all(&[once.clone(), once]);
    }

    #[test]
    fn memory_for_a_key_stays_within_bounds() {
        let mut keys = Keys::new(1);
        for position in 1..=50_000_u64 {
            let key = [position.to_be_bytes(), [0; 8]].concat();
            keys.commit(&set_of(position, &key, &[7; 128], None), &mut vec![]);
            let bytes = keys.used_bytes() / usize::try_from(position).unwrap();
            assert!(position < 1000 || bytes <= 156 + 44, "{bytes} bytes for each of {position}");
        }
    }
}
