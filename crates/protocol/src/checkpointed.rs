//! Holds what a checkpoint says of a shard, so that the node's log can be cut.
//!
//! A checkpoint has a *base*, a position of the shard's log: what the log before it has come to
//! apart from the keys. The keys stand beside it, each with the state that it had when its range of
//! hashes was last written; the *floors* say for each range at which position that was. It is never
//! before the base. So entries behind the base are replayed, and each concerns a key whose floor is
//! before it, and is applied, or one that contains it already.
//!
//! Ensures: what a floor says was committed.
#![deny(clippy::indexing_slicing)]

use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    ids::{LogIndex, Position, ShardId},
};

use crate::{copied::Start, state};

/// What [`CheckpointStep`] may cost at most, about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Keys that are looked at.
    pub looks: usize,
    /// Bytes of records that are copied.
    pub bytes: usize,
}

impl Default for StepLimits {
    /// Less than a millisecond, unless a single value is large.
    fn default() -> Self {
        Self { looks: 8192, bytes: 256 * 1024 }
    }
}

/// Up to where the log is contained in the keys, by ranges of hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// The first hash of each range and its position, in order; before the first one nothing is
    /// contained.
    ranges: Vec<(u64, Position)>,
}

impl Floors {
    /// Whether nothing is contained anywhere.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The last position that keys of a hash contain.
    #[must_use]
    pub fn of(&self, hash: u64) -> Position {
        let behind = self.ranges.partition_point(|(from, _)| *from <= hash);
        let range = behind.checked_sub(1).and_then(|at| self.ranges.get(at));
        range.map_or(Position(0), |(_, position)| *position)
    }

    /// The largest position that some range contains.
    #[must_use]
    pub fn highest(&self) -> Position {
        self.ranges.iter().map(|(_, position)| *position).max().unwrap_or_default()
    }

    /// Says that the keys from a hash on, and before `next`, contain the log up to a position.
    pub fn raise(&mut self, from: u64, next: Option<u64>, to: Position) {
        let behind = next.map(|next| (next, self.of(next)));
        self.ranges.retain(|(hash, _)| *hash < from || next.is_some_and(|next| next < *hash));
        self.ranges.push((from, to));
        self.ranges.extend(behind);
        self.ranges.sort_unstable_by_key(|(hash, _)| *hash);
        self.ranges.dedup_by_key(|(_, position)| *position);
    }

    fn write(&self, to: &mut Writer<'_>) {
        to.length(self.ranges.len());
        for (from, position) in &self.ranges {
            to.fixed64(*from);
            to.number(position.0);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let ranges = from.list("floors", |from| Ok((from.fixed64()?, Position(from.number()?))))?;
        let is_ordered = ranges.is_sorted_by(|(left, _), (right, _)| left < right);
        if !is_ordered {
            return Err(DecodeError::UnknownTag { what: "order of floors", found: 0 });
        }
        Ok(Self { ranges })
    }
}

/// What a checkpoint says of a shard, apart from its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointMeta {
    /// The base.
    pub start: Start,
    /// Entries up to the base are of use to others only behind this position.
    pub window_from: Position,
    /// The last record of the shard in the node's log when the base was noted: records up to here
    /// say nothing that is not in it, but for entries behind the base.
    pub log_to: LogIndex,
    /// What the keys contain.
    pub floors: Floors,
}

/// The format of the bytes.
const FORMAT: u8 = 1;

impl CheckpointMeta {
    /// Writes it.
    pub fn write(&self, to: &mut Vec<u8>) {
        let mut to = Writer::new(to);
        to.u8(FORMAT);
        self.start.write(&mut to);
        to.number(self.window_from.0);
        to.number(self.log_to.0);
        self.floors.write(&mut to);
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(bytes);
        let found = from.u8()?;
        if found != FORMAT {
            return Err(DecodeError::UnknownTag { what: "format of a checkpoint", found });
        }
        let meta = Self {
            start: Start::read(&mut from)?,
            window_from: Position(from.number()?),
            log_to: LogIndex(from.number()?),
            floors: Floors::read(&mut from)?,
        };
        from.finish()?;
        Ok(meta)
    }
}

/// What has changed since it was told last: hashes in order, each with what [`read_records`] reads,
/// or nothing if no key of that hash is left.
pub type Changes = Vec<(u64, Option<Vec<u8>>)>;

/// A part of a checkpoint: what has changed in some keys of a shard. Parts are written in order;
/// those of one batch become durable together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStep {
    /// Whether everything that was written of the shard before is void.
    pub is_reset: bool,
    /// Keys that have changed.
    pub changes: Changes,
    /// What the checkpoint says from now on; none while a first one is not complete.
    pub meta: Option<CheckpointMeta>,
    /// Whether the checkpoint is complete with it.
    pub is_last: bool,
}

/// A value of a record that has changed otherwise is not in the checkpoint where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the checkpoint lacks a value that is on disk only, of a key with the hash {hash:016x}; stop \
     this node, empty its folder, and let it copy everything from its chains"
)]
pub struct ValueLostError {
    /// The hash of the key.
    pub hash: u64,
}

impl CheckpointStep {
    /// Puts the values that are on disk only into records of which something else has changed:
    /// `stored` tells what the checkpoint has of a hash. Call it before the step is written.
    ///
    /// # Errors
    /// What `stored` says, or [`ValueLostError`] when that is not what it should be.
    pub fn complete<E: From<ValueLostError>>(
        &mut self,
        mut stored: impl FnMut(u64) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<(), E> {
        for (hash, records) in &mut self.changes {
            let Some(bytes) = records.as_deref().filter(|bytes| has_away(bytes)) else { continue };
            let found = stored(*hash)?.unwrap_or_default();
            *records = completed(bytes, &found).ok_or(ValueLostError { hash: *hash })?;
        }
        Ok(())
    }
}

/// The records in bytes that were written by [`write_records`].
fn written_records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut from = Reader::new(bytes);
    std::iter::from_fn(move || from.bytes().ok())
}

fn has_away(bytes: &[u8]) -> bool {
    written_records(bytes).any(state::is_away)
}

/// The same records, with values where they are away; `None` if one is not there.
fn completed(bytes: &[u8], found: &[u8]) -> Option<Option<Vec<u8>>> {
    let found = read_records(found).ok()?;
    let mut whole = Vec::new();
    for record in written_records(bytes) {
        if state::is_away(record) {
            let value = |found: &&[u8]| state::with_value_of(record, found);
            whole.push(found.iter().find_map(value)?);
        } else {
            whole.push(record.into());
        }
    }
    Some(write_records(whole.iter().map(|record| &**record)))
}

/// Writes the records of the keys of one hash.
#[must_use]
pub fn write_records<'a>(records: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for record in records {
        bytes.reserve_exact(record.len() + 4);
        Writer::new(&mut bytes).bytes(record);
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// Reads and checks the records of the keys of one hash.
///
/// # Errors
/// [`DecodeError`] when the bytes are none.
pub fn read_records(bytes: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    let mut from = Reader::new(bytes);
    let mut records = Vec::new();
    while !from.rest().is_empty() {
        let record = from.bytes()?;
        state::check_record(record)?;
        records.push(record);
    }
    Ok(records)
}

/// A log and a checkpoint that do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Entries are missing in the log.
    #[error(
        "the log of shard {shard} goes on at position {found} where {wanted} was expected; was the \
         checkpoint removed, or the log put back from a backup without it?"
    )]
    Gap {
        /// The shard.
        shard: ShardId,
        /// The position that should come.
        wanted: Position,
        /// The one that came.
        found: Position,
    },
    /// The log ends before what the checkpoint contains.
    #[error(
        "the log of shard {shard} ends at position {end}, but the checkpoint holds what came up to \
         {contained}; was the log removed, or put back from an older backup?"
    )]
    Short {
        /// The shard.
        shard: ShardId,
        /// The end of the log.
        end: Position,
        /// What the checkpoint contains.
        contained: Position,
    },
    /// The log ends before what the checkpoint was noted behind.
    #[error(
        "the log ends at record {end}, but the checkpoint of shard {shard} says what there was up to \
         record {noted}; was the end of the log damaged, or the log put back from an older backup?"
    )]
    Behind {
        /// The shard.
        shard: ShardId,
        /// The last record of the log.
        end: LogIndex,
        /// The last record that the checkpoint knows of.
        noted: LogIndex,
    },
    /// The log and the checkpoint are of different pasts.
    #[error(
        "the log of shard {shard} and its checkpoint differ at position {position}; was one of \
         them put back from a backup?"
    )]
    Differs {
        /// The shard.
        shard: ShardId,
        /// Where.
        position: Position,
    },
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_floor_is_what_was_said_last_of_its_range(
            raises in vec((0_u64..20, 0_u64..21, 1_u64..9), 0..12),
        ) {
            let mut floors = Floors::default();
            let mut model = [Position(0); 20];
            for (from, next, to) in raises {
                let next = (from < next && next < 20).then_some(next);
                floors.raise(from, next, Position(to));
                let end = next.unwrap_or(20);
                for place in from..end {
                    model[usize::try_from(place).unwrap()] = Position(to);
                }
                for (hash, expected) in (0_u64..).zip(model) {
                    prop_assert_eq!(floors.of(hash), expected, "hash {}", hash);
                }
                prop_assert_eq!(floors.highest(), model.into_iter().max().unwrap());
            }
            let meta = CheckpointMeta { floors, ..CheckpointMeta::default() };
            let mut bytes = Vec::new();
            meta.write(&mut bytes);
            prop_assert_eq!(CheckpointMeta::read(&bytes), Ok(meta));
        }
    }

    #[test]
    fn bytes_that_are_no_checkpoint_are_refused() {
        let mut bytes = Vec::new();
        CheckpointMeta::default().write(&mut bytes);
        for end in 0..bytes.len() {
            assert!(CheckpointMeta::read(&bytes[..end]).is_err(), "cut at {end}");
        }
        bytes[0] = 9;
        let unknown = DecodeError::UnknownTag { what: "format of a checkpoint", found: 9 };
        assert_eq!(CheckpointMeta::read(&bytes), Err(unknown));
        assert!(read_records(&[5, 1]).is_err());
    }
}
