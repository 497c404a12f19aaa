//! Holds what a node's log holds: entries of its shards, and ceilings of its clock.
//!
//! Assumes: the storage keeps records whole and in order (its checksums see to that).
#![deny(clippy::indexing_slicing)]

use antecede_model::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
    ids::{Position, ShardId},
};

use crate::entry::Entry;

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
    /// The node gives no timestamp above this one before it has written a larger ceiling.
    Ceiling(Timestamp),
}

impl Record {
    /// Writes an entry's record.
    pub fn write_entry(to: &mut Vec<u8>, shard: ShardId, committed_to: Position, entry: &Entry) {
        let mut writer = Writer::new(to);
        writer.u8(0);
        writer.shard(shard);
        writer.number(committed_to.0);
        entry.write(&mut writer);
    }

    /// Writes a ceiling's record.
    pub fn write_ceiling(to: &mut Vec<u8>, ceiling: Timestamp) {
        let mut writer = Writer::new(to);
        writer.u8(1);
        writer.timestamp(ceiling);
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
            found => return Err(DecodeError::UnknownTag { what: "log record", found }),
        };
        reader.finish()?;
        Ok(record)
    }
}
