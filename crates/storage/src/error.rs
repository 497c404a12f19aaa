//! Says what can go wrong with the log, with both sides of what did not fit and what to do.
//!
//! A full disk is a state that heals (`DiskFull`); a failed write or sync ends the process
//! (`LogError`); what is found at start-up is refused or repaired (`OpenError`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::position::LogIndex;

/// Why a record was not appended. Nothing has changed; the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too much waits to be written: the disk is full, or slower than the writers.
    #[error("the log holds {held} bytes that are not written yet, the limit is {limit}")]
    Full {
        /// Bytes that wait.
        held: usize,
        /// `pending_bytes_max`.
        limit: usize,
    },
    /// The record alone is larger than a record may be.
    #[error("a record of {bytes} bytes does not fit into the log, the limit is {limit}")]
    TooLarge {
        /// Payload bytes of the record.
        bytes: usize,
        /// `record_bytes_max`.
        limit: usize,
    },
}

/// The disk has no room for what must be written. Nothing is lost: what was promised is on disk,
/// the rest waits in memory, and the log goes on by itself once there is room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for {needed} bytes at {}; free space there, the log then goes on by itself", path.display())]
pub struct DiskFull {
    /// Bytes that could not be had.
    pub needed: u64,
    /// The file that could not grow.
    pub path: PathBuf,
}

/// The log cannot go on: the process must end, and come back through recovery.
///
/// A sync that failed is never tried again: after a failed write-back the kernel marks the pages
/// clean, so that a second sync succeeds although the data never reached the disk. Only what
/// recovery finds on disk can be believed then.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// A write to a segment failed for another reason than a full disk.
    #[error("cannot write the log at {}; this node must stop and recover from its disk", path.display())]
    Write {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A sync failed: what was written since the last one may be gone.
    #[error("cannot sync the log at {}; this node must stop and recover from its disk", path.display())]
    Sync {
        /// The segment or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

/// Why a log could not be opened. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the folder.
    #[error("cannot lock {}: another process uses this data folder; stop it first", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The folder belongs to another node or deployment.
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
        /// Node that opens the log.
        node: u32,
        /// Deployment that opens the log.
        deployment: u128,
    },
    /// A file was written by another version of this program.
    #[error("{} is format {found}, this build reads format {readable}; use the build that wrote it", path.display())]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format this build reads.
        readable: u32,
    },
    /// The first bytes of a file are damaged.
    #[error(
        "the header of {} is damaged (not a log segment, or bits have changed); restore this file, \
         or empty the folder and repair this node from its chain",
        path.display()
    )]
    CorruptHeader {
        /// The file.
        path: PathBuf,
    },
    /// A record that had reached the disk is damaged.
    #[error(
        "{} is damaged at byte {offset}: record {index} cannot be read, although everything up to \
         record {synced_to} was on disk (byte {evidence_offset} of {} says so); this is no torn end; restore \
         this file, or empty the folder and repair this node from its chain",
        path.display(), evidence_path.display()
    )]
    CorruptMiddle {
        /// The segment with the damage.
        path: PathBuf,
        /// Where in it the damaged record begins.
        offset: u64,
        /// The damaged record.
        index: LogIndex,
        /// Everything up to here had been synced.
        synced_to: LogIndex,
        /// The file that proves it.
        evidence_path: PathBuf,
        /// Where in that file.
        evidence_offset: u64,
    },
    /// Segments are missing at the beginning of the log.
    #[error(
        "the log in {} begins at record {found}, it should begin at record {expected}; restore the \
         missing segments, or empty the folder and repair this node from its chain",
        path.display()
    )]
    MissingStart {
        /// The folder.
        path: PathBuf,
        /// The first record there is.
        found: LogIndex,
        /// The first record there should be.
        expected: LogIndex,
    },
    /// Segments of an earlier run follow segments of a later one.
    #[error(
        "{} was written by run {found} of this node, the segment before it by run {previous}; files \
         of a copy or a backup are mixed in; remove them, or empty the folder and repair this node \
         from its chain",
        path.display()
    )]
    MixedRuns {
        /// The later segment.
        path: PathBuf,
        /// Its run.
        found: u64,
        /// The run of the segment before.
        previous: u64,
    },
    /// The settings do not fit together.
    #[error("a log segment of {found} bytes is too small, the least is {least}; set it larger")]
    SegmentTooSmall {
        /// The setting.
        found: u64,
        /// The least that works.
        least: u64,
    },
    /// The file system refused something.
    #[error("cannot open the log at {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A node as people know it: its datacenter and its number there.
pub(crate) fn name_of(bits: u32) -> String {
    antecede_model::ids::NodeId::from_bits(bits).to_string()
}
