//! Names what the log needs of a file system, so that a simulated disk can stand in for a real one.
//!
//! A disk is one folder of files. Methods take `&self`, because a sync runs while others write.
//!
//! Assumes: a sync makes everything written to that file before it durable; a rename is atomic,
//! but durable only after `Disk::sync_dir`; without a sync any sector may be lost, in any order.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The operating system's files.
mod real;
pub use real::RealDisk;

/// Files in memory, with faults from a seed.
mod simulated;
pub use simulated::{SECTOR_BYTES, SimulatedDisk, SimulatedFile, SimulatedLock};

/// One folder of files.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// An open file.
    type File: fmt::Debug + Send + Sync;
    /// Keeps others out of the folder for as long as it lives.
    type Lock: fmt::Debug + Send + Sync;

    /// Where a file of this name is, for messages.
    fn path(&self, name: &str) -> PathBuf;

    /// Takes the folder for this process; `WouldBlock` if another one has it.
    fn lock(&self) -> io::Result<Self::Lock>;

    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file for reading and writing; an old one of this name is emptied.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Bytes of the file.
    fn size(&self, file: &Self::File) -> io::Result<u64>;

    /// Makes sure that the file has `size` bytes with space behind them; new ones read as zeros.
    fn preallocate(&self, file: &Self::File, size: u64) -> io::Result<()>;

    /// Gives the file `size` bytes: what is behind them goes away and its space is given back; new
    /// bytes read as zeros, and may get their space only when they are written.
    fn truncate(&self, file: &Self::File, size: u64) -> io::Result<()>;

    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written to the file durable.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Gives a file another name, replacing a file that has it.
    fn rename(&self, source: &str, target: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// Whether an error says that there is no room, which may pass.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
