//! Keeps, for each shard, its records and a meta record outside of the log, so that the log can be
//! cut.
//!
//! A record is a key and a value, both opaque bytes; the meta record says what the records stand
//! for, and whatever else the shard needs to go on from there (`protocol::checkpointed`). A node
//! writes changes of any number of shards as one batch, which is durable as a whole or not there at
//! all: metas and records are always of one moment.
//!
//! Assumes: the log is cut only behind what durable metas need of it.
//!
//! Ensures: what a write has reported is there after every crash.
//! Ensures: a record that is not what was written is never returned: it is an error that names
//! shard and key; and a shard that has lost or gained records is noticed when it is scanned.

use std::fmt;
use std::ops::ControlFlow;

use antecede_model::ids::ShardId;

/// The changes that are written at once.
mod batch;
pub use batch::{CheckpointBatch, ShardChanges};

/// What can go wrong, and what to do about it.
mod error;
pub use error::{CheckpointError, OpenCheckpointsError};

/// The bytes of records, shard rows and the head.
mod layout;
pub use layout::CHECKPOINT_FORMAT;

/// The engine's file on a disk, written at a measured pace.
mod paced;
pub use paced::Pace;

/// Checkpoints on a disk.
mod real;
pub use real::{CheckpointOptions, RealCheckpoints};

/// Checkpoints in memory, with faults.
mod simulated;
pub use simulated::SimulatedCheckpoints;

/// What is told of each record of a scan, in the order of keys: key and value.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Where checkpoints are kept.
///
/// Reads see whole batches only, and go on while a batch is written.
pub trait CheckpointStore: fmt::Debug + Send + Sync + 'static {
    /// Writes a batch: when this returns it is durable, and the log may be cut below the positions
    /// that its metas name. After an error the batch is there as a whole or not at all, and may be
    /// written again; after [`CheckpointError::Failed`] the process must end.
    ///
    /// Takes as long as the disk does, and longer if it is throttled: call it on a thread of its
    /// own.
    fn write(&self, batch: &CheckpointBatch) -> Result<(), CheckpointError>;

    /// The shards of which there is anything, in order.
    fn shards(&self) -> Result<Vec<ShardId>, CheckpointError>;

    /// The shard's meta record. Without one there is no checkpoint of the shard, though a first
    /// one may have begun: reset it before writing.
    ///
    fn meta(&self, shard: ShardId) -> Result<Option<Vec<u8>>, CheckpointError>;

    /// The value of a key.
    ///
    /// `None` says that the checkpoint has none. To who knows from elsewhere that there is one
    /// (because it was evicted from memory), that is a damaged checkpoint.
    fn get(&self, shard: ShardId, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError>;

    /// Shows `visit` the shard's records in the order of their keys, all of one moment, behind
    /// `after` if it is given, until `visit` breaks off.
    ///
    /// A scan of everything also compares number and checksums of the records with what was
    /// written, and fails at the end if some were lost, came back, or are of another time.
    fn scan(
        &self,
        shard: ShardId,
        after: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), CheckpointError>;

    /// Number of the shard's records.
    fn count(&self, shard: ShardId) -> Result<u64, CheckpointError>;
}
