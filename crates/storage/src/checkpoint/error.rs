//! Says what can go wrong with checkpoints, with what to do.
//!
//! A full disk is a state that heals; a failed write or sync ends the process, as with the log;
//! damage is told and never served.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use antecede_model::ids::ShardId;

use crate::error::name_of;

/// Why a checkpoint could not be written or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk has no room. Nothing is lost, and the log goes on growing where it can: write the
    /// batch again later.
    #[error("no room for a checkpoint at {}; free space there, it is then written by itself", path.display())]
    DiskFull {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// A write or a sync failed for another reason than a full disk. What is believed to be on
    /// disk may not be there; only what is found after a new start can be believed.
    #[error("cannot read or write the checkpoint at {}; this node must stop and recover from its disk", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A record is not what was written.
    #[error(
        "the record of key {} in shard {shard} of the checkpoint at {} is damaged; move the data folder of this node away and start it again: it copies everything from its chains",
        key.escape_ascii(), path.display()
    )]
    CorruptRecord {
        /// The shard.
        shard: ShardId,
        /// The key as it is found on disk.
        key: Vec<u8>,
        /// The file.
        path: PathBuf,
    },
    /// The row that describes a shard is not what was written.
    #[error(
        "the meta record of shard {shard} of the checkpoint at {} is damaged; move the data folder of this node away and start it again: it copies everything from its chains",
        path.display()
    )]
    CorruptMeta {
        /// The shard.
        shard: ShardId,
        /// The file.
        path: PathBuf,
    },
    /// Records of a shard are missing, or others are there than were written.
    #[error(
        "shard {shard} of the checkpoint at {} has {found} records where {expected} were written, or \
         others than were written; move the data folder of this node away and start it again: it copies everything from its chains",
        path.display()
    )]
    CorruptShard {
        /// The shard.
        shard: ShardId,
        /// Records found.
        found: u64,
        /// Records that should be there.
        expected: u64,
        /// The file.
        path: PathBuf,
    },
    /// The engine cannot make sense of its own file.
    #[error(
        "the checkpoint at {} is damaged ({what}); move the data folder of this node away and start it again: it copies everything from its chains",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        what: String,
    },
}

/// Why checkpoints could not be opened. Nothing that was there is changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenCheckpointsError {
    /// Another process uses the folder.
    #[error("cannot lock {}: another process uses this data folder; stop it first", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The checkpoint belongs to another node or deployment.
    #[error(
        "{} belongs to node {} of deployment {found_deployment:032x}, this is node {} of deployment \
         {deployment:032x}; use this node's own folder or an empty one",
        path.display(), name_of(*found_node), name_of(*node)
    )]
    WrongIdentity {
        /// The file that says so.
        path: PathBuf,
        /// Node found in the file.
        found_node: u32,
        /// Deployment found in the file.
        found_deployment: u128,
        /// Node that opens it.
        node: u32,
        /// Deployment that opens it.
        deployment: u128,
    },
    /// The checkpoint was written by another version of this program.
    #[error("{} is format {found}, this build reads format {readable}; use the build that wrote it", path.display())]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format this build reads.
        readable: u32,
    },
    /// The file is none of a checkpoint, or damaged.
    #[error(
        "the checkpoint at {} is damaged ({what}); move the data folder of this node away and start it again: it copies everything from its chains",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file system refused something.
    #[error("cannot open the checkpoint at {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}
