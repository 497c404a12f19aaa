//! Puts tail, writer and recovery together for one thread.
//!
//! Nothing happens by itself: `append` keeps a record in memory, `write` hands everything pending
//! to the operating system, `sync` makes it durable. The simulator runs this on a simulated disk.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, SimulatedDisk};
use crate::error::{AppendError, DiskFull, LogError, OpenError};
use crate::frame::Identity;
use crate::position::{LogIndex, Positions};
use crate::recovery::{self, RecoveryReport};
use crate::shared::Fsync;
use crate::tail::Tail;
use crate::writer::{SEGMENT_BYTES_MIN, SpareError, Writer, WriterStart};

/// The settings of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment; a record that is larger gets a segment of its own size.
    pub segment_bytes: u64,
    /// Bytes that may wait to be written; past it appending is refused.
    pub pending_bytes_max: usize,
    /// Payload bytes of a record; a larger one is refused.
    pub record_bytes_max: usize,
    /// A number that clients cannot guess: without it they could put bytes into a value that look
    /// like a record of the log.
    pub salt: u64,
    /// Whether zeros are written into a segment before it is used. A sync then has no map of the
    /// file to change, which makes it up to twice as fast; but each byte is written twice, so it
    /// is for [`Fsync::Always`] only.
    pub zero_ahead: bool,
}

impl Options {
    /// The usual settings for `fsync`, with this `salt`.
    #[must_use]
    pub const fn usual(fsync: Fsync, salt: u64) -> Self {
        Self {
            segment_bytes: 64 << 20,
            pending_bytes_max: 64 << 20,
            record_bytes_max: 640 << 20,
            salt,
            zero_ahead: matches!(fsync, Fsync::Always),
        }
    }
}

/// The log of one node.
#[derive(Debug)]
pub struct Log<D: Disk = SimulatedDisk> {
    tail: Tail,
    /// `None`: the memory variant.
    writer: Option<Writer<D>>,
    lock: Option<D::Lock>,
    disk: Option<Arc<D>>,
}

/// Gives each record of the log on `disk` to `visit`, in order, and changes nothing there; whose log it
/// is. A torn end is passed over, as it would be cut off; damage before it is refused.
///
/// # Errors
/// When another process uses the folder, there is no log in it, or it is damaged.
pub fn look<D: Disk>(
    disk: &D,
    mut visit: impl FnMut(LogIndex, &[u8]),
) -> Result<(Identity, RecoveryReport), OpenError> {
    let _lock = disk.lock().map_err(|source| lock_error(disk, source))?;
    recovery::look(disk, &mut visit)
}

fn lock_error<D: Disk>(disk: &D, source: io::Error) -> OpenError {
    let path = disk.path("");
    if source.kind() == io::ErrorKind::WouldBlock {
        return OpenError::Locked { path };
    }
    OpenError::Io { path, source }
}

/// The parts of a log, for [`crate::SharedLog`].
#[derive(Debug)]
pub(crate) struct LogParts<D: Disk> {
    pub(crate) tail: Tail,
    pub(crate) writer: Option<Writer<D>>,
    pub(crate) lock: Option<D::Lock>,
    pub(crate) disk: Option<Arc<D>>,
}

impl<D: Disk> Log<D> {
    /// Opens the log on `disk`, or makes one if there is none, after giving each of its records to
    /// `visit` in order. What was visited is durable when this returns.
    ///
    /// When opening fails, records may have been visited, and the disk is as it was.
    pub fn open(
        disk: D,
        options: Options,
        identity: Identity,
        mut visit: impl FnMut(LogIndex, &[u8]),
    ) -> Result<(Self, RecoveryReport), OpenError> {
        if options.segment_bytes < SEGMENT_BYTES_MIN {
            let (found, least) = (options.segment_bytes, SEGMENT_BYTES_MIN);
            return Err(OpenError::SegmentTooSmall { found, least });
        }
        let lock = disk.lock().map_err(|source| lock_error(&disk, source))?;
        let recovered = recovery::recover(&disk, identity, &mut visit)?;
        let report = recovered.report;
        let disk = Arc::new(disk);
        let start = WriterStart {
            identity,
            boot: report.boot,
            salt: options.salt,
            segment_bytes: options.segment_bytes,
            zero_ahead: options.zero_ahead,
            firsts: recovered.firsts,
            log_start: recovered.log_start,
            synced_to: report.recovered_to,
        };
        let writer = Writer::begin(Arc::clone(&disk), start).map_err(open_error)?;
        let Options { pending_bytes_max, record_bytes_max, .. } = options;
        let tail = Tail::new(report.recovered_to, pending_bytes_max, record_bytes_max, true);
        let log = Self { tail, writer: Some(writer), lock: Some(lock), disk: Some(disk) };
        Ok((log, report))
    }

    /// A log without a disk: numbers records, counts each as synced at once, and keeps nothing.
    #[must_use]
    pub const fn memory(options: Options) -> Self {
        let Options { pending_bytes_max, record_bytes_max, .. } = options;
        let tail = Tail::new(LogIndex::START, pending_bytes_max, record_bytes_max, false);
        Self { tail, writer: None, lock: None, disk: None }
    }

    /// Appends the record that `encode` writes at the end of the buffer that it is given.
    pub fn append_with(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<LogIndex, AppendError> {
        self.tail.append_with(encode)
    }

    /// Appends the record that consists of `parts`, one after the other.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<LogIndex, AppendError> {
        self.tail.append(parts)
    }

    /// Hands everything pending to the operating system, and prepares the next segment when this
    /// one is half full. On a full disk it returns with [`Log::disk_full`] set, and a later call
    /// goes on.
    pub fn write(&mut self) -> Result<Positions, LogError> {
        if let Some(writer) = &mut self.writer {
            write_pending(writer, |batch| self.tail.take(batch))?;
            self.tail.set_taken_bytes(writer.unwritten_bytes());
            writer.prepare_spare_if_due()?;
        }
        Ok(self.positions())
    }

    /// Makes everything written durable. Does nothing when it is already.
    pub fn sync(&mut self) -> Result<Positions, LogError> {
        if let (Some(writer), Some(disk)) = (&mut self.writer, &self.disk)
            && let Some(job) = writer.begin_sync()?
        {
            let result = job.run(disk);
            writer.finish_sync(&job, result)?;
        }
        Ok(self.positions())
    }

    /// Writes and syncs.
    pub fn flush(&mut self) -> Result<Positions, LogError> {
        self.write()?;
        self.sync()
    }

    /// How far the log has come.
    #[must_use]
    pub fn positions(&self) -> Positions {
        let appended_to = self.tail.appended_to();
        match &self.writer {
            Some(writer) => Positions {
                appended_to,
                written_to: writer.written_to(),
                synced_to: writer.synced_to(),
            },
            None => Positions { appended_to, written_to: appended_to, synced_to: appended_to },
        }
    }

    /// Set while the disk has no room: refuse new writes. Goes away by itself in a later `write`.
    #[must_use]
    pub fn disk_full(&self) -> Option<&DiskFull> {
        self.writer.as_ref().and_then(Writer::disk_full)
    }

    /// Whether the next record will be refused.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.tail.is_full()
    }

    /// Number of this run of the node, larger than that of every run before; zero in memory.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.writer.as_ref().map_or(0, Writer::boot)
    }

    /// Removes whole segments of synced records up to and including `index`; none if the disk has
    /// no room to write that down, then a later call does.
    ///
    /// Assumes: what those records said can be had from a durable checkpoint.
    pub fn cut_to(&mut self, index: LogIndex) -> Result<(), LogError> {
        if let (Some(writer), Some(disk)) = (&mut self.writer, &self.disk)
            && let Some(job) = writer.begin_cut(index)?
        {
            let result = job.run(&**disk);
            writer.finish_cut(&job, result)?;
        }
        Ok(())
    }

    /// Writes and syncs everything and notes that the end was clean, so that the next start can
    /// tell any later damage from a torn end.
    pub fn close(mut self) -> Result<Positions, LogError> {
        let positions = self.flush()?;
        if let Some(writer) = &self.writer {
            writer.write_mark()?;
        }
        Ok(positions)
    }

    pub(crate) fn into_parts(self) -> LogParts<D> {
        LogParts { tail: self.tail, writer: self.writer, lock: self.lock, disk: self.disk }
    }
}

/// Lets `take` fill the writer's batch and writes it; first what a full disk had left of an older
/// one. It takes at most once, so that it ends while others append.
pub(crate) fn write_pending<D: Disk>(
    writer: &mut Writer<D>,
    take: impl FnOnce(&mut Vec<u8>),
) -> Result<(), LogError> {
    writer.write_batch()?;
    if let Some(batch) = writer.empty_batch() {
        take(batch);
        writer.write_batch()?;
    }
    Ok(())
}

fn open_error(error: SpareError) -> OpenError {
    let (path, source) = match error {
        SpareError::Full(full) => (full.path, io::ErrorKind::StorageFull.into()),
        SpareError::Failed(LogError::Write { path, source } | LogError::Sync { path, source }) => {
            (path, io::Error::new(source.kind(), source))
        }
    };
    OpenError::Io { path, source }
}
