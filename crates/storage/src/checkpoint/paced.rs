//! Gives the engine its file on a `Disk`, and writes it at a measured pace.
//!
//! A checkpoint shares its disk with the log, and a sync of the log may have to wait for whatever
//! the system holds of other files. So each `Pace::step_bytes` that are written here are synced at
//! once, and no more are written in a second than the setting allows. Only writes are slowed down,
//! on the thread that writes the checkpoint; reads never wait here. When somebody waits for the
//! batch, it is written as fast as the disk takes it, with fewer syncs.
//!
//! The engine stops for good after the first error of its file. What that error was is kept here,
//! because it decides between a full disk, which heals, and a failed one.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;

use crate::clock::Clock;
use crate::disk::Disk;

/// Steps that are synced at once when there is no time to lose.
const HURRIED_STEPS: u64 = 8;

/// How fast a checkpoint is written.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Bytes that are written before they are synced.
    pub step_bytes: u64,
    /// Bytes that are written in a second at most; `None`: as fast as the disk.
    pub bytes_per_second: Option<u64>,
    /// Tells the time for the rate.
    pub clock: Arc<dyn Clock>,
}

/// What the engine's file has met, for as long as one opening of it lasts.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    first: Mutex<Option<Arc<io::Error>>>,
    /// Whether writes keep to the pace: those of a batch do, those of opening and closing do not.
    pub(crate) is_paced: AtomicBool,
    /// Whether a batch is waited for, and no time may be lost.
    pub(crate) is_hurried: AtomicBool,
}

impl Faults {
    /// The first error, if there was one.
    pub(crate) fn first(&self) -> Option<Arc<io::Error>> {
        self.first.lock().clone()
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let told = io::Error::new(error.kind(), error.to_string());
            self.first.lock().get_or_insert_with(|| Arc::new(error));
            told
        })
    }
}

/// The engine's file.
pub(crate) struct PacedFile<D: Disk> {
    disk: Arc<D>,
    file: D::File,
    faults: Arc<Faults>,
    pace: Pace,
    written: Mutex<Written>,
    /// Nobody signals it: waiting on it is how a thread here lets time pass.
    time: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    /// Bytes since the last sync.
    unsynced_bytes: u64,
    /// When the next step may be written.
    next_at: Duration,
}

impl<D: Disk> fmt::Debug for PacedFile<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacedFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<D: Disk> PacedFile<D> {
    pub(crate) fn new(disk: Arc<D>, file: D::File, faults: Arc<Faults>, pace: Pace) -> Self {
        let (written, time) = (Mutex::default(), Condvar::new());
        Self { disk, file, faults, pace, written, time }
    }

    fn keep_pace(&self, bytes: usize) -> io::Result<()> {
        if !self.faults.is_paced.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut written = self.written.lock();
        written.unsynced_bytes += u64::try_from(bytes).expect("a size fits u64");
        let is_hurried = self.faults.is_hurried.load(Ordering::Relaxed);
        let steps = if is_hurried { HURRIED_STEPS } else { 1 };
        if written.unsynced_bytes < self.pace.step_bytes.saturating_mul(steps) {
            return Ok(());
        }
        let step = std::mem::take(&mut written.unsynced_bytes);
        self.disk.sync(&self.file)?;
        let Some(rate) = self.pace.bytes_per_second.filter(|_| !is_hurried) else {
            return Ok(());
        };
        let cost = Duration::from_micros(step.saturating_mul(1_000_000) / rate.max(1));
        written.next_at = written.next_at.max(self.pace.clock.now()) + cost;
        while let Some(wait) = written.next_at.checked_sub(self.pace.clock.now())
            && !wait.is_zero()
        {
            self.time.wait_for(&mut written, wait);
        }
        Ok(())
    }
}

impl<D: Disk> StorageBackend for PacedFile<D> {
    fn len(&self) -> io::Result<u64> {
        self.faults.note(self.disk.size(&self.file))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let read = self.faults.note(self.disk.read_at(&self.file, offset, out))?;
        if read < out.len() {
            return self.faults.note(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Space is taken when it is written to: the engine doubles its file, mostly for later.
        self.faults.note(self.disk.truncate(&self.file, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.note(self.disk.sync(&self.file))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.note(self.disk.write_at(&self.file, offset, data))?;
        self.faults.note(self.keep_pace(data.len()))
    }
}
