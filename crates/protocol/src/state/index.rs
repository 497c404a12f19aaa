//! Holds the records of a shard in the order of their keys' hashes.
//!
//! An open addressing table: a hash points proportionally into the table, and from there on slots
//! are filled without gaps and kept in the order of hashes. A scan is therefore a walk, and its
//! cursor a hash that stays true however the table grows. There is no wrap-around: behind the last
//! bucket there is room to overflow into. A deletion shifts its followers back.
//!
//! Each slot remembers whether its record was changed since it was last looked at by
//! `take_changed`, in the bit that hashes leave free.
//!
//! Where values may be put on disk only, the table also remembers, by bucket, which records were
//! looked at since the last sweep (a clock: Corbato, *A Paging Experiment with the Multics System*,
//! 1969). A mark may stand for a neighbour's record, and is forgotten when the table grows: it only
//! decides what goes first.
//!
//! Assumes: hashes are even.
//! Invariant: slots are ordered by hash; between the bucket of a hash and its slot none is vacant.
//! Limits: growth copies the whole table at once, about 1 ms for 100,000 keys.

use std::cell::Cell;

use super::record;

/// The part of the buckets that may be filled, in eighths.
const FILL_EIGHTHS: usize = 7;
/// Bytes of the smallest table.
const TABLE_BYTES_MIN: usize = 384;
/// Slots that are added when the room behind the last bucket is used up.
const OVERFLOW_SLOTS: usize = 16;
/// What the processor fetches at once.
const LINE_BYTES: usize = 64;

/// In a slot, beside the hash: the record has changed.
const CHANGED: u64 = 1;

/// One key, or nothing if the record is empty.
#[derive(Debug, Default)]
struct Slot {
    /// The hash, and `CHANGED`.
    hash_and_mark: u64,
    record: Box<[u8]>,
}

/// Bytes of a slot.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

impl Slot {
    const fn is_vacant(&self) -> bool {
        self.record.is_empty()
    }

    const fn hash(&self) -> u64 {
        self.hash_and_mark & !CHANGED
    }

    const fn is_changed(&self) -> bool {
        self.hash_and_mark & CHANGED != 0
    }
}

/// What a look for changes came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// The hashes of records that have changed, in order; those of one hash are one.
    pub(super) hashes: Vec<u64>,
    /// The first hash that was not looked at; none when all were.
    pub(super) next: Option<u64>,
}

/// What a sweep may cost, and of which records it may take the value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    /// Where it begins.
    pub(super) from: u64,
    /// Slots that are looked at, about.
    pub(super) looks: usize,
    /// Bytes that are freed, about.
    pub(super) bytes: usize,
    /// The shortest value that is taken.
    pub(super) value_bytes_min: usize,
    /// Whether records that have changed are taken, too: a bug.
    pub(super) takes_changed: bool,
}

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Where to go on; none at the end of the table.
    pub(super) next: Option<u64>,
    /// Records whose value was taken.
    pub(super) count: usize,
    /// Bytes of records that were freed.
    pub(super) freed: usize,
    /// Bytes of their values.
    pub(super) value_bytes: usize,
    /// Bytes of records that keep their value because they have changed.
    pub(super) changed: usize,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<Slot>,
    /// One bit for each bucket: whether its records were looked at. None where nobody wants to know.
    touched: Option<Vec<Cell<u64>>>,
    /// How many slots hashes point to; the rest is room to overflow into.
    buckets: usize,
    /// How many slots are not vacant.
    len: usize,
}

impl Index {
    /// Bytes of the table, without the records.
    pub(super) fn table_bytes(&self) -> usize {
        let touched = self.touched.as_ref().map_or(0, |touched| touched.capacity() * 8);
        self.slots.capacity() * SLOT_BYTES + touched
    }

    fn bucket(&self, hash: u64) -> usize {
        bucket(hash, self.buckets)
    }

    /// The slot of a key, or the one where it has to go.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Result<usize, usize> {
        let first = self.bucket(hash);
        for (slot, at) in self.slots[first..].iter().zip(first..) {
            if slot.is_vacant() || hash < slot.hash() {
                return Err(at);
            }
            if slot.hash() == hash && record::key(&slot.record) == key {
                return Ok(at);
            }
        }
        Err(self.slots.len())
    }

    /// The record in a slot that [`Index::find`] found.
    pub(super) fn record(&self, at: usize) -> &[u8] {
        &self.slots[at].record
    }

    /// The record in a slot that [`Index::find`] found, to be replaced by one of the same key; it
    /// counts as changed.
    pub(super) fn record_mut(&mut self, at: usize) -> &mut Box<[u8]> {
        let slot = &mut self.slots[at];
        slot.hash_and_mark |= CHANGED;
        &mut slot.record
    }

    /// Puts a new key, which counts as changed, where [`Index::find`] told.
    pub(super) fn insert(&mut self, at: usize, hash: u64, record: Box<[u8]>) {
        self.put(at, hash, record, CHANGED);
    }

    /// Puts a key that has not changed where [`Index::find`] told.
    pub(super) fn insert_unchanged(&mut self, at: usize, hash: u64, record: Box<[u8]>) {
        self.put(at, hash, record, 0);
    }

    fn put(&mut self, at: usize, hash: u64, record: Box<[u8]>, mark: u64) {
        let mut at = at;
        if filled_max(self.buckets) <= self.len {
            self.rebuild(slot_count_for(self.len + 1));
            at = self.place_of(hash);
        }
        let followers = &self.slots[at..];
        let vacant = followers.iter().position(Slot::is_vacant).map_or_else(
            || {
                let end = self.slots.len();
                self.add_overflow();
                end
            },
            |distance| at + distance,
        );
        self.slots[at..=vacant].rotate_right(1);
        self.slots[at] = Slot { hash_and_mark: hash | mark, record };
        self.len += 1;
    }

    /// Removes a key from its slot.
    pub(super) fn remove(&mut self, at: usize) {
        let after = at + 1;
        let shifted = self.slots[after..]
            .iter()
            .zip(after..)
            .take_while(|(slot, place)| !slot.is_vacant() && self.bucket(slot.hash()) < *place)
            .count();
        self.slots[at] = Slot::default();
        self.slots[at..=at + shifted].rotate_left(1);
        self.len -= 1;
        if self.len * 4 < filled_max(self.buckets) {
            let slot_count = slot_count_for(self.len + self.len / 4);
            if bucket_count(slot_count) < self.buckets {
                self.rebuild(slot_count);
            }
        }
    }

    /// Replaces a record by one of the same key; whether it counts as changed stays as it is.
    pub(super) fn put_back(&mut self, at: usize, record: Box<[u8]>) {
        self.slots[at].record = record;
    }

    /// Remembers from now on which records are looked at.
    pub(super) fn remember_touched(&mut self) {
        self.touched = Some(Vec::new());
        self.forget_touched();
    }

    /// After a change of size all count as looked at.
    fn forget_touched(&mut self) {
        let words = self.buckets.div_ceil(64);
        if let Some(touched) = &mut self.touched {
            touched.clear();
            touched.resize(words, Cell::new(u64::MAX));
        }
    }

    /// A record of this hash was looked at.
    pub(super) fn touch(&self, hash: u64) {
        let Some(touched) = &self.touched else { return };
        let bucket = self.bucket(hash);
        let mask = 1 << (bucket % 64);
        if let Some(word) = touched.get(bucket / 64)
            && word.get() & mask == 0
        {
            word.set(word.get() | mask);
        }
    }

    /// Whether records of a bucket were looked at since this was asked last.
    fn take_touched(&self, bucket: usize) -> bool {
        let word = self.touched.as_ref().and_then(|touched| touched.get(bucket / 64));
        let Some(word) = word else { return false };
        let mask = 1 << (bucket % 64);
        word.replace(word.get() & !mask) & mask != 0
    }

    /// Takes the values of records that have not changed and were not looked at since the sweep
    /// came by the last time, but for those of hashes that must keep theirs.
    pub(super) fn sweep(&mut self, sweep: &Sweep, must_keep: impl Fn(u64) -> bool) -> Swept {
        let mut swept = Swept::default();
        let (mut last, mut last_hash) = (None, None);
        let mut was_touched = false;
        for (looked_at, at) in (self.bucket(sweep.from)..self.slots.len()).enumerate() {
            let slot = &self.slots[at];
            let hash = slot.hash();
            if slot.is_vacant() || hash < sweep.from {
                continue;
            }
            let is_enough = sweep.looks <= looked_at || sweep.bytes <= swept.freed;
            if is_enough && last_hash.is_some_and(|last| last != hash) {
                swept.next = Some(hash);
                break;
            }
            last_hash = Some(hash);
            let bucket = self.bucket(hash);
            if last != Some(bucket) {
                (last, was_touched) = (Some(bucket), self.take_touched(bucket));
            }
            if slot.record.len() <= sweep.value_bytes_min {
                continue;
            }
            if slot.is_changed() && !sweep.takes_changed {
                swept.changed += slot.record.len();
                continue;
            }
            if was_touched || must_keep(hash) {
                continue;
            }
            if let Some(record) = record::without_value(&slot.record, sweep.value_bytes_min)
                && record.len() < slot.record.len()
            {
                swept.count += 1;
                swept.freed += slot.record.len() - record.len();
                swept.value_bytes += record::value_length(&record);
                self.slots[at].record = record;
            }
        }
        swept
    }

    /// Hashes and records in order, from a hash on.
    pub(super) fn starting_at(&self, hash: u64) -> impl Iterator<Item = (u64, &[u8])> {
        self.slots[self.bucket(hash)..]
            .iter()
            .filter(move |slot| !slot.is_vacant() && hash <= slot.hash())
            .map(|slot| (slot.hash(), &*slot.record))
    }

    /// The records of all keys with this very hash.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = &[u8]> {
        self.slots[self.bucket(hash)..]
            .iter()
            .take_while(move |slot| !slot.is_vacant() && slot.hash() <= hash)
            .filter(move |slot| slot.hash() == hash)
            .map(|slot| &*slot.record)
    }

    /// Tells which records have changed, from a hash on, and forgets that they have. Looks at
    /// about so many slots and finds about so many bytes of records; those of one hash at once.
    pub(super) fn take_changed(&mut self, from: u64, looks: usize, bytes_max: usize) -> Changed {
        let mut changed = Changed::default();
        let mut bytes = 0;
        let first = self.bucket(from);
        let mut last = None;
        for (looked_at, slot) in self.slots[first..].iter_mut().enumerate() {
            let hash = slot.hash();
            if slot.is_vacant() || hash < from {
                continue;
            }
            let is_enough = looks <= looked_at || bytes_max <= bytes;
            if is_enough && last.is_some_and(|last| last != hash) {
                changed.next = Some(hash);
                break;
            }
            last = Some(hash);
            if slot.is_changed() {
                slot.hash_and_mark &= !CHANGED;
                bytes += slot.record.len();
                if changed.hashes.last() != Some(&hash) {
                    changed.hashes.push(hash);
                }
            }
        }
        changed
    }

    /// Tells the processor that a key of this hash will be looked for.
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.slots.get(self.bucket(hash)) {
            prefetch_lines(slot);
        }
    }

    /// Tells the processor that the record of a key of this hash will be read; looks into the
    /// table, so [`Index::prefetch`] should have been called some time before.
    pub(super) fn prefetch_record(&self, hash: u64) {
        let followers = &self.slots[self.bucket(hash)..];
        let first = followers.iter().find(|slot| slot.is_vacant() || hash <= slot.hash());
        if let Some(slot) = first.filter(|slot| slot.hash() == hash && !slot.is_vacant()) {
            prefetch_lines(&slot.record[0]);
            if let Some(third) = slot.record.get(2 * LINE_BYTES) {
                prefetch_lines(third);
            }
        }
    }

    /// Where a hash that is not in the table has to go, behind its equals.
    fn place_of(&self, hash: u64) -> usize {
        let first = self.bucket(hash);
        let place =
            self.slots[first..].iter().position(|slot| slot.is_vacant() || hash < slot.hash());
        place.map_or(self.slots.len(), |distance| first + distance)
    }

    fn rebuild(&mut self, slot_count: usize) {
        let old = std::mem::replace(&mut self.slots, Vec::with_capacity(slot_count));
        self.buckets = bucket_count(slot_count);
        for slot in old.into_iter().filter(|slot| !slot.is_vacant()) {
            let bucket = self.bucket(slot.hash());
            while self.slots.len() < bucket {
                self.slots.push(Slot::default());
            }
            if self.slots.len() == self.slots.capacity() {
                self.slots.reserve_exact(OVERFLOW_SLOTS);
            }
            self.slots.push(slot);
        }
        let missing = self.slots.len()..slot_count;
        self.slots.extend(missing.map(|_| Slot::default()));
        self.forget_touched();
    }

    fn add_overflow(&mut self) {
        self.slots.reserve_exact(OVERFLOW_SLOTS);
        self.slots.extend((0..OVERFLOW_SLOTS).map(|_| Slot::default()));
    }
}

/// The bucket of a hash: as far into the buckets as the hash is into all hashes.
fn bucket(hash: u64, buckets: usize) -> usize {
    let product = u128::from(hash) * (buckets as u128);
    usize::try_from(product >> u64::BITS).expect("it is below the number of buckets")
}

/// How many of so many slots hashes point to.
fn bucket_count(slot_count: usize) -> usize {
    slot_count - (slot_count / 16).clamp(4, 64)
}

/// How many keys so many buckets may hold.
const fn filled_max(buckets: usize) -> usize {
    buckets * FILL_EIGHTHS / 8
}

/// The smallest table that so many keys fit. Tables have 2^n or 1.5 * 2^n bytes, which are the
/// allocator's sizes, so that nothing is lost to rounding.
fn slot_count_for(len: usize) -> usize {
    let mut bytes = TABLE_BYTES_MIN;
    loop {
        let slot_count = bytes / SLOT_BYTES;
        if len <= filled_max(bucket_count(slot_count)) {
            return slot_count;
        }
        bytes = if bytes.is_power_of_two() { bytes + bytes / 2 } else { bytes + bytes / 3 };
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a prefetch reads nothing, so any address will do")]
fn prefetch_lines<T>(place: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    let address = std::ptr::from_ref(place).cast::<i8>();
    // SAFETY: a prefetch has no effect that a program can see, at whatever address.
    unsafe {
        _mm_prefetch(address, _MM_HINT_T0);
        _mm_prefetch(address.wrapping_add(LINE_BYTES), _MM_HINT_T0);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch_lines<T>(_place: &T) {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{look::Stored, merge::KeyState, testing::version},
        *,
    };

    fn record_of(key: &[u8], value: &[u8]) -> Box<[u8]> {
        let state = KeyState { version: Some(version(1, 1)), ..KeyState::<()>::default() };
        record::write(Vec::new(), key, &state, Some(Stored::Here(value)))
    }

    impl Index {
        fn check(&self) {
            let mut last = 0;
            let mut is_run = false;
            for (at, slot) in self.slots.iter().enumerate() {
                if slot.is_vacant() {
                    is_run = false;
                    continue;
                }
                let bucket = self.bucket(slot.hash());
                assert!(last <= slot.hash(), "slots are ordered by hash");
                assert!(bucket == at || bucket < at && is_run, "no vacant slot in between");
                last = slot.hash();
                is_run = true;
            }
            assert_eq!(self.slots.iter().filter(|slot| !slot.is_vacant()).count(), self.len);
        }
    }

    /// Hashes that collide, that crowd at the end, that are spread.
    fn any_hash() -> impl Strategy<Value = u64> {
        prop_oneof![
            (0_u64..40).prop_map(|near| u64::MAX - near),
            0_u64..8,
            (0_u64..300).prop_map(|spread| spread * 0x00c3_5f2b_97a1_0d4d),
        ]
        .prop_map(|hash| hash & !1)
    }

    proptest! {
        #[test]
        fn a_table_holds_what_an_ordered_map_holds(
            steps in vec((any_hash(), 0_u8..3, any::<bool>()), 0..600),
        ) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for (hash, key, is_removal) in steps {
                let key = [key];
                match (index.find(hash, &key), is_removal) {
                    (Ok(at), true) => {
                        index.remove(at);
                        prop_assert!(model.remove(&(hash, key)).is_some());
                    }
                    (Ok(at), false) => {
                        prop_assert_eq!(record::key(index.record(at)), key);
                    }
                    (Err(_), true) => prop_assert!(!model.contains_key(&(hash, key))),
                    (Err(at), false) => {
                        index.insert(at, hash, record_of(&key, b"value"));
                        model.insert((hash, key), ());
                    }
                }
                index.check();
                index.prefetch(hash);
                index.prefetch_record(hash);
            }
            for from in [0, 3, u64::MAX / 2, u64::MAX - 20, u64::MAX] {
                let found: Vec<_> =
                    index.starting_at(from).map(|(hash, _)| hash).collect();
                let expected: Vec<_> =
                    model.keys().map(|(hash, _)| *hash).filter(|hash| from <= *hash).collect();
                prop_assert_eq!(found, expected);
                let with_hash = index.with_hash(from).count();
                prop_assert_eq!(with_hash, model.keys().filter(|(hash, _)| *hash == from).count());
            }
        }
    }

    proptest! {
        #[test]
        fn every_change_is_told_once(
            steps in vec((any_hash(), 0_u8..3, 0_u8..5), 0..400),
            looks in 1_usize..20,
            bytes_max in 1_usize..100,
        ) {
            let mut index = Index::default();
            let mut changed = BTreeSet::new();
            let mut cursor = Some(0);
            for (hash, key, step) in steps {
                let name = [key];
                match (index.find(hash, &name), step) {
                    (Ok(at), 0) => {
                        index.remove(at);
                        changed.remove(&(hash, key));
                    }
                    (Ok(at), _) => {
                        *index.record_mut(at) = record_of(&name, b"other");
                        changed.insert((hash, key));
                    }
                    (Err(at), 1) => index.insert_unchanged(at, hash, record_of(&name, b"value")),
                    (Err(at), _) => {
                        index.insert(at, hash, record_of(&name, b"value"));
                        changed.insert((hash, key));
                    }
                }
                if step == 4 {
                    let from = cursor.unwrap_or(0);
                    let found = index.take_changed(from, looks, bytes_max);
                    let next = found.next;
                    prop_assert!(next.is_none_or(|next| from < next));
                    let is_in = |hash: u64| from <= hash && next.is_none_or(|next| hash < next);
                    let expected: BTreeSet<u64> =
                        changed.iter().map(|(hash, _)| *hash).filter(|hash| is_in(*hash)).collect();
                    prop_assert_eq!(found.hashes, Vec::from_iter(expected));
                    changed.retain(|(hash, _)| !is_in(*hash));
                    cursor = next;
                }
            }
        }
    }

    #[test]
    fn a_table_grows_by_half_and_shrinks_again() {
        let mut index = Index::default();
        let mut sizes = vec![];
        let hash_of = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !1;
        for number in 0..20_000_u64 {
            let key = number.to_le_bytes();
            let place = index.find(hash_of(number), &key).unwrap_err();
            index.insert(place, hash_of(number), record_of(&key, b""));
            if sizes.last() != Some(&index.table_bytes()) {
                sizes.push(index.table_bytes());
            }
        }
        index.check();
        let large: Vec<_> = sizes.iter().filter(|bytes| 10_000 < **bytes).collect();
        for pair in large.windows(2) {
            let percent = pair[1] * 100 / pair[0];
            assert!((100..=151).contains(&percent), "{} to {} bytes", pair[0], pair[1]);
        }
        assert!(index.table_bytes() <= 20_000 * 42, "{} bytes", index.table_bytes());
        for number in 0..20_000_u64 {
            let at = index.find(hash_of(number), &number.to_le_bytes()).unwrap();
            index.remove(at);
        }
        assert!(index.table_bytes() <= 1024, "{} bytes for no key", index.table_bytes());
    }
}
