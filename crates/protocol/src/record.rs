//! Holds what a node's log holds: entries of its shards, copies of others', ceilings of its clock.
//!
//! Assumes: the storage keeps records whole and in order (its checksums see to that).
#![deny(clippy::indexing_slicing)]

use antecede_model::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
    ids::{Position, ShardId},
};

use crate::{
    copied::{Part, Start},
    entry::Entry,
};

/// One record of a node's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry of a shard's log.
    Entry {
        /// The shard.
        shard: ShardId,
        /// What was known to be committed in the shard when this was written.
        committed_to: Position,
        /// The entry.
        entry: Entry,
    },
    /// Entries of a shard behind a position are taken back: they were never committed.
    CutBack {
        /// The shard.
        shard: ShardId,
        /// The last position that stays.
        to: Position,
    },
    /// All that is known of a shard is forgotten: what it holds from here on is copied.
    Begun {
        /// The shard.
        shard: ShardId,
        /// Where the copy begins.
        start: Start,
    },
    /// An entry right before the first one of a shard that is held.
    History {
        /// The shard.
        shard: ShardId,
        /// The entry.
        entry: Entry,
    },
    /// Keys of a shard as they are after all entries before this record.
    Part {
        /// The shard.
        shard: ShardId,
        /// The keys.
        part: Part,
    },
    /// Entries of a shard up to a position were let go of: they are committed, on the disk of every
    /// replica, and no other datacenter needs them.
    Trimmed {
        /// The shard.
        shard: ShardId,
        /// The last position that nobody needs.
        to: Position,
    },
    /// The node gives no timestamp above this one before it has written a larger ceiling.
    Ceiling(Timestamp),
}

/// Bytes of entries that a shard lets go of before its log says so: so many may be kept in vain
/// after a restart.
pub const TRIMMED_BYTES_MIN: usize = 16 << 10;

impl Record {
    /// Writes an entry's record.
    pub fn write_entry(to: &mut Vec<u8>, shard: ShardId, committed_to: Position, entry: &Entry) {
        let mut writer = Writer::new(to);
        writer.u8(0);
        writer.shard(shard);
        writer.number(committed_to.0);
        entry.write(&mut writer);
    }

    /// Writes that entries are taken back.
    pub fn write_cut_back(to: &mut Vec<u8>, shard: ShardId, end: Position) {
        let mut writer = Writer::new(to);
        writer.u8(2);
        writer.shard(shard);
        writer.number(end.0);
    }

    /// Writes that entries were let go of.
    pub fn write_trimmed(to: &mut Vec<u8>, shard: ShardId, end: Position) {
        let mut writer = Writer::new(to);
        writer.u8(6);
        writer.shard(shard);
        writer.number(end.0);
    }

    /// Writes that a copy begins.
    pub fn write_begun(to: &mut Vec<u8>, shard: ShardId, start: &Start) {
        let mut writer = Writer::new(to);
        writer.u8(3);
        writer.shard(shard);
        start.write(&mut writer);
    }

    /// Writes an entry from before the first one that is held.
    pub fn write_history(to: &mut Vec<u8>, shard: ShardId, entry: &Entry) {
        let mut writer = Writer::new(to);
        writer.u8(4);
        writer.shard(shard);
        entry.write(&mut writer);
    }

    /// Writes keys that were copied.
    pub fn write_part(to: &mut Vec<u8>, shard: ShardId, part: &Part) {
        let mut writer = Writer::new(to);
        writer.u8(5);
        writer.shard(shard);
        part.write(&mut writer);
    }

    /// The shard that the record is about; none if it is about the node.
    #[must_use]
    pub const fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Entry { shard, .. }
            | Self::CutBack { shard, .. }
            | Self::Begun { shard, .. }
            | Self::History { shard, .. }
            | Self::Part { shard, .. }
            | Self::Trimmed { shard, .. } => Some(*shard),
            Self::Ceiling(_) => None,
        }
    }

    /// Writes a ceiling's record.
    pub fn write_ceiling(to: &mut Vec<u8>, ceiling: Timestamp) {
        let mut writer = Writer::new(to);
        writer.u8(1);
        writer.timestamp(ceiling);
    }

    /// The shard that an encoded record is about; none if it is about the node.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes do not begin as a record does.
    pub fn shard_of(bytes: &[u8]) -> Result<Option<ShardId>, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            1 => Ok(None),
            0 | 2..=6 => Ok(Some(reader.shard()?)),
            found => Err(DecodeError::UnknownTag { what: "log record", found }),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let record = match reader.u8()? {
            0 => Self::Entry {
                shard: reader.shard()?,
                committed_to: Position(reader.number()?),
                entry: Entry::read(&mut reader)?,
            },
            1 => Self::Ceiling(reader.timestamp()?),
            2 => Self::CutBack { shard: reader.shard()?, to: Position(reader.number()?) },
            3 => Self::Begun { shard: reader.shard()?, start: Start::read(&mut reader)? },
            4 => Self::History { shard: reader.shard()?, entry: Entry::read(&mut reader)? },
            5 => Self::Part { shard: reader.shard()?, part: Part::read(&mut reader)? },
            6 => Self::Trimmed { shard: reader.shard()?, to: Position(reader.number()?) },
            found => return Err(DecodeError::UnknownTag { what: "log record", found }),
        };
        reader.finish()?;
        Ok(record)
    }
}
