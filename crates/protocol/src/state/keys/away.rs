//! Takes values out of memory that are on disk, too, and puts them back when they are needed.
//!
//! What decides (key, version, times, deadlines) stays; only the bytes of a value go, and leave
//! their length. A value may go when a checkpoint that is durable has it: its record has not changed
//! since it was told, and what it was told with is on disk. Which of them go is decided by a sweep
//! over the keys that spares what was looked at since it came by last.
//!
//! A record whose deadline changes while its value is away counts as changed, and is told without
//! its value; who writes it takes the value from what is on disk (`checkpointed`).
//!
//! Assumes: what is told is written in order, and `saved` comes when all of it is durable.
//! Ensures: a value is put back only into the record that it was taken from: of the same version.

use antecede_model::codec::DecodeError;

use super::{Keys, Standing};
use crate::{
    checkpointed::{StepLimits, read_records},
    state::{
        index::{Sweep, Swept},
        look::Stored,
        record,
    },
};

/// Which values are on disk only.
#[derive(Debug, Default)]
pub(super) struct Away {
    /// The shortest value that may go; none where all stay.
    bytes_min: Option<usize>,
    /// Hashes whose records were told of, and may not be durable yet: from the first on, and before
    /// the second.
    unsaved: Option<(u64, Option<u64>)>,
    /// Where the sweep goes on.
    hand: u64,
    count: usize,
    bytes: usize,
}

impl Away {
    /// Records in a range of hashes were told of.
    pub(super) fn told(&mut self, from: u64, next: Option<u64>) {
        let (first, end) = self.unsaved.unwrap_or((from, next));
        let end = end.zip(next).map(|(left, right)| left.max(right));
        self.unsaved = Some((first.min(from), end));
    }

    /// Keeps the sums in step with one record.
    pub(super) fn count(&mut self, before: Option<Stored<'_>>, after: Option<Stored<'_>>) {
        if let Some(Stored::Away { length }) = before {
            self.count -= 1;
            self.bytes -= length;
        }
        if let Some(Stored::Away { length }) = after {
            self.count += 1;
            self.bytes += length;
        }
    }

    /// A record without its value, if that may go.
    fn without_value(&self, record: &[u8]) -> Option<Box<[u8]>> {
        self.bytes_min.and_then(|bytes_min| record::without_value(record, bytes_min))
    }

    fn is_saved(&self, hash: u64) -> bool {
        self.unsaved.is_none_or(|(from, next)| hash < from || next.is_some_and(|next| next <= hash))
    }
}

/// A value that should be on disk is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotThere;

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Values that are on disk only now.
    pub count: usize,
    /// Bytes of memory that were freed, about.
    pub bytes: usize,
    /// Bytes of records that it came by and that can go only once the next checkpoint has them,
    /// about.
    pub unsaved_bytes: usize,
    /// Whether it has come to the last key; the next one begins at the first.
    pub is_round: bool,
}

impl Keys {
    /// Lets values of at least so many bytes be on disk only.
    pub fn allow_away(&mut self, bytes_min: usize) {
        self.away.bytes_min = Some(bytes_min);
        self.index.remember_touched();
    }

    /// Takes the records of one hash from a checkpoint; they do not count as changed. Values may be
    /// left there.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none, or of another hash.
    pub fn load(&mut self, hash: u64, bytes: &[u8], takes_values: bool) -> Result<(), DecodeError> {
        for record in read_records(bytes)? {
            let found = self.hash(record::key(record));
            if found != hash {
                let what = "a hash in a checkpoint";
                return Err(DecodeError::OverLimit { what, found, limit: hash });
            }
            if let Err(at) = self.index.find(hash, record::key(record)) {
                let without = if takes_values { None } else { self.away.without_value(record) };
                let record = without.unwrap_or_else(|| record.into());
                self.count_new(hash, &record);
                self.index.insert_unchanged(at, hash, record);
            }
        }
        Ok(())
    }

    /// How many values are on disk only.
    #[must_use]
    pub const fn away_count(&self) -> usize {
        self.away.count
    }

    /// How many bytes of values are on disk only.
    #[must_use]
    pub const fn away_bytes(&self) -> usize {
        self.away.bytes
    }

    /// All that [`Keys::take_changes`] has told is durable.
    pub const fn saved(&mut self) {
        self.away.unsaved = None;
    }

    /// Takes values that are durable elsewhere out of memory, but for those of which `must_keep`
    /// holds, and goes on from where it has stopped before. With `is_unchecked`, a bug, it does not
    /// ask whether they are durable.
    pub fn evict(
        &mut self,
        limits: StepLimits,
        must_keep: impl Fn(u64) -> bool,
        is_unchecked: bool,
    ) -> Evicted {
        let Some(value_bytes_min) = self.away.bytes_min else {
            return Evicted { is_round: true, ..Evicted::default() };
        };
        let away = &self.away;
        let sweep = Sweep {
            from: away.hand,
            looks: limits.looks,
            bytes: limits.bytes,
            value_bytes_min,
            takes_changed: is_unchecked,
        };
        let must_keep = |hash| must_keep(hash) || !is_unchecked && !away.is_saved(hash);
        let Swept { next, count, freed, value_bytes, changed } =
            self.index.sweep(&sweep, must_keep);
        self.away.hand = next.unwrap_or(0);
        self.away.count += count;
        self.away.bytes += value_bytes;
        self.record_bytes -= freed;
        Evicted { count, bytes: freed, unsaved_bytes: changed, is_round: next.is_none() }
    }

    /// Puts the values of one hash back that are on disk only; what has a newer one keeps it. With
    /// `is_unchecked`, a bug, that one is overwritten.
    ///
    /// # Errors
    /// [`NotThere`] when one is not among these records.
    pub fn put_back(
        &mut self,
        hash: u64,
        stored: Option<&[u8]>,
        is_unchecked: bool,
    ) -> Result<(), NotThere> {
        let found = stored.map(read_records).transpose().map_err(|_| NotThere)?;
        let found = found.unwrap_or_default();
        if is_unchecked {
            self.overwrite(hash, &found);
        }
        let is_away = |record: &&[u8]| record::is_away(record);
        let lacking: Vec<Box<[u8]>> =
            self.index.with_hash(hash).filter(is_away).map(Box::from).collect();
        let mut is_complete = true;
        for away in lacking {
            let whole = found.iter().find_map(|found| record::with_value_of(&away, found));
            let Ok(at) = self.index.find(hash, record::key(&away)) else { continue };
            let Some(whole) = whole else {
                is_complete = false;
                continue;
            };
            self.record_bytes = self.record_bytes + whole.len() - away.len();
            self.away.count(record::read(&away).held, None);
            self.index.put_back(at, whole);
            self.index.touch(hash);
        }
        if is_complete { Ok(()) } else { Err(NotThere) }
    }

    /// The bug: what was on disk takes the place of what is in memory.
    fn overwrite(&mut self, hash: u64, found: &[&[u8]]) {
        for record in found {
            let Ok(at) = self.index.find(hash, record::key(record)) else { continue };
            let old = self.index.record(at);
            let (before, after) = (record::read(old), record::read(record));
            let standings = (Standing::of(&before), Standing::of(&after));
            self.away.count(before.held, after.held);
            self.record_bytes = self.record_bytes + record.len() - old.len();
            self.index.put_back(at, (*record).into());
            self.count(hash, Some(standings.0), Some(standings.1));
        }
    }
}
