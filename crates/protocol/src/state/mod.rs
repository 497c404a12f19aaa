//! The keys of one shard: committed state, dirty states above it, and what actions do to them.
//!
//! Read `keys` first (what a replica holds), then `look` (what can be asked of one key), `merge`
//! (how effects make up a key's state, in whatever order they come), `execute` (what a client's
//! action answers and which effect it leaves).
//!
//! Ensures: a key's state is a pure function of the set of effects that were applied to it.

/// What actions answer, and which effects they leave.
pub mod execute;
/// Patterns of keys.
pub mod glob;
/// The keys of a shard, ordered by hash.
mod index;
/// All keys of one shard at one replica.
pub mod keys;
/// One key as a reader or a writer finds it.
pub mod look;
/// How effects make up the state of a key.
mod merge;
/// How a key is packed in memory.
mod record;
/// Entries and replicas for the tests of this folder.
#[cfg(test)]
mod testing;

pub use execute::{
    Executed, Lacking, NewChange, NewEffect, Observed, Shown, execute, execute_batch, hide_effect,
    read,
};
pub use keys::{Conflict, Evicted, Keys, NotThere};
pub use look::{Look, Stored};

/// Checks bytes that another node, or the disk, gave as the record of a key.
///
/// # Errors
/// [`DecodeError`](antecede_model::codec::DecodeError) when they are none.
pub fn check_record(record: &[u8]) -> Result<(), antecede_model::codec::DecodeError> {
    record::check(record)
}

/// Whether the value of a record is on disk only.
pub(crate) fn is_away(record: &[u8]) -> bool {
    record::is_away(record)
}

/// A record whose value is on disk only, with the value that another record of its key holds;
/// `None` if that is not the same value.
pub(crate) fn with_value_of(away: &[u8], whole: &[u8]) -> Option<Box<[u8]>> {
    record::with_value_of(away, whole)
}

/// The key of a record.
#[cfg(test)]
pub(crate) fn key_of(record: &[u8]) -> &[u8] {
    record::key(record)
}
