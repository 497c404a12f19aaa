//! Keeps one append-only log per node on disk, and gives it back after any crash.
//!
//! The protocol encodes records; this crate numbers them, checksums them, writes them into
//! preallocated segments, syncs many of them at once, and at start-up streams back exactly the
//! records that were written, in order. Records are opaque bytes here.
//! `Log` is the whole of it for one thread (the simulator runs it on a `SimulatedDisk`);
//! `SharedLog` is a thin shell around the same parts for a server with many threads.
//!
//! Ensures: a record that was reported synced is in the log after every crash, unchanged.
//! Ensures: what recovery yields is a prefix of what was appended; nothing that an earlier
//! recovery cut off ever comes back.
//! Ensures: damage before a known sync is refused, never cut off silently.
//!
//! Beside the log, `checkpoint` keeps each shard's records as of some position, so that what is
//! older can be cut off the log.

/// Numbers of records, and how far each step has come.
mod position;
pub use position::{LogIndex, Positions};

/// The bytes of segments and records.
mod frame;
pub use frame::{FORMAT, HEADER_BYTES, Identity, RECORD_HEADER_BYTES};

/// What can go wrong, and what to do about it.
mod error;
pub use error::{AppendError, DiskFull, LogError, OpenError};

/// What the log needs of a file system; a real one and a simulated one.
pub mod disk;
pub use disk::{Disk, RealDisk, SimulatedDisk};

/// Records that are appended and not yet written.
mod tail;
pub use tail::Tail;

/// Segments, writing and syncing.
mod writer;

/// What is read back at start-up, and what is cut or refused.
mod recovery;
pub use recovery::RecoveryReport;

/// The log for one thread.
mod log;
pub use log::{Log, Options, look};

/// What lets the log be cut: each shard's records, in an embedded engine.
pub mod checkpoint;

/// Asks the machine for the time.
mod clock;
pub use clock::{Clock, MachineClock};

/// The log for many threads.
mod shared;
pub use shared::{Fsync, Notice, SharedLog, SharedOptions};
