//! Writes taken records into segments, and syncs them.
//!
//! A segment is prepared under a temporary name (space reserved, header written, synced) before
//! it is needed; rolling over is then a rename. What a sync must cover is collected here: sealed
//! segments, the current one, and the folder. A sync may run while others write: it is begun and
//! finished under the owner's lock and run outside of it.
//!
//! Ensures: `synced_to` advances only over records whose bytes, whose segment's header and whose
//! segment's name were synced.
//! Assumes: syncs do not overlap (the owner ensures it).
//!
//! A full disk leaves the rest of a batch here, to be written by a later call; any other failure
//! is final.

use std::io;
use std::sync::Arc;

use crate::disk::{self, Disk};
use crate::error::{DiskFull, LogError};
use crate::frame::{self, HEADER_BYTES, Identity, Mark, SegmentHeader};
use crate::position::LogIndex;

pub(crate) const MARK_NAME: &str = "mark";
const MARK_NAME_NEW: &str = "mark.tmp";
pub(crate) const SEGMENT_SUFFIX: &str = ".log";
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The least bytes of a segment.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 2 * HEADER_BYTES;

/// Bytes of zeros that are written at once.
const ZEROS_BYTES: usize = 1024 * 1024;

/// What part of a segment may be left when the next one is prepared by whoever writes.
const LATE_PART: u64 = 16;

/// The name of the segment that begins with record `first`.
pub(crate) fn segment_name(first: LogIndex) -> String {
    format!("{:020}{SEGMENT_SUFFIX}", first.get())
}

/// What a writer begins with.
#[derive(Debug)]
pub(crate) struct WriterStart {
    pub(crate) identity: Identity,
    pub(crate) boot: u64,
    pub(crate) salt: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) zero_ahead: bool,
    /// First records of the segments that are there.
    pub(crate) firsts: Vec<LogIndex>,
    /// The first record that the log still has.
    pub(crate) log_start: LogIndex,
    /// Everything up to here is in the log and on disk.
    pub(crate) synced_to: LogIndex,
}

/// The side of the log that does input and output.
#[derive(Debug)]
pub(crate) struct Writer<D: Disk> {
    disk: Arc<D>,
    start: WriterStart,
    /// Taken records; those before `batch_at` are written.
    batch: Vec<u8>,
    batch_at: usize,
    current: Segment<D>,
    spare: Option<Segment<D>>,
    spare_count: u64,
    /// Sealed segments that were written to since the last sync began.
    sealed: Vec<Arc<D::File>>,
    /// Whether a segment got its name since the last sync began.
    folder_changed: bool,
    written_to: LogIndex,
    synced_to: LogIndex,
    disk_full: Option<DiskFull>,
    failed: Option<LogError>,
}

/// A file for records.
#[derive(Debug)]
pub(crate) struct Segment<D: Disk> {
    file: Arc<D::File>,
    name: String,
    seed: u32,
    size: u64,
    /// Where the next record goes.
    at: u64,
    /// Whether it was written to since the last sync began.
    changed: bool,
}

/// How to prepare a segment.
#[derive(Clone, Debug)]
pub(crate) struct SparePlan {
    name: String,
    header: SegmentHeader,
    size: u64,
    /// Whether to write zeros into it, see [`crate::Options::zero_ahead`].
    zero: bool,
}

/// Why a segment could not be prepared.
#[derive(Debug)]
pub(crate) enum SpareError {
    /// There is no room; it may be tried again.
    Full(DiskFull),
    /// Something else, which is final.
    Failed(LogError),
}

/// A sync that was begun: what it covers, and up to where.
#[derive(Debug)]
pub(crate) struct SyncJob<D: Disk> {
    files: Vec<Arc<D::File>>,
    name: String,
    folder: bool,
    to: LogIndex,
}

impl<D: Disk> SyncJob<D> {
    /// Waits for the disk.
    pub(crate) fn run(&self, disk: &D) -> Result<(), LogError> {
        let failed = |name: &str, source| sync_error(disk, name, source);
        for file in &self.files {
            disk.sync(file).map_err(|source| failed(&self.name, source))?;
        }
        if self.folder {
            disk.sync_dir().map_err(|source| failed("", source))?;
        }
        Ok(())
    }
}

fn sync_error<D: Disk>(disk: &D, name: &str, source: io::Error) -> LogError {
    LogError::Sync { path: disk.path(name), source: Arc::new(source) }
}

fn write_error<D: Disk>(disk: &D, name: &str, source: io::Error) -> LogError {
    LogError::Write { path: disk.path(name), source: Arc::new(source) }
}

/// Reserves space for a segment under a temporary name, and makes it and its header durable.
pub(crate) fn prepare_spare<D: Disk>(disk: &D, plan: &SparePlan) -> Result<Segment<D>, SpareError> {
    let attempt = || -> io::Result<D::File> {
        let file = disk.create(&plan.name)?;
        disk.preallocate(&file, plan.size)?;
        if plan.zero {
            write_zeros(disk, &file, plan.size)?;
        }
        disk.write_at(&file, 0, &plan.header.encode())?;
        disk.sync(&file)?;
        Ok(file)
    };
    match attempt() {
        Ok(file) => Ok(Segment {
            file: Arc::new(file),
            name: plan.name.clone(),
            seed: plan.header.seed(),
            size: plan.size,
            at: HEADER_BYTES,
            changed: false,
        }),
        Err(error) if disk::is_full(&error) => {
            // Part of the space may be reserved. If this fails too, start-up removes the file.
            drop(disk.remove(&plan.name));
            let full = DiskFull { needed: plan.size, path: disk.path(&plan.name) };
            Err(SpareError::Full(full))
        }
        Err(error) => Err(SpareError::Failed(write_error(disk, &plan.name, error))),
    }
}

/// Writes zeros in small steps, each synced, so that others' syncs do not wait for long.
fn write_zeros<D: Disk>(disk: &D, file: &D::File, size: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut at = 0;
    while at < size {
        let bytes = usize::try_from(size - at).map_or(ZEROS_BYTES, |left| left.min(ZEROS_BYTES));
        disk.write_at(file, at, &zeros[..bytes])?;
        disk.sync(file)?;
        at += u64::try_from(bytes).expect("a size fits u64");
    }
    Ok(())
}

impl<D: Disk> Writer<D> {
    /// Begins a new segment for this run; it is durable when this returns.
    pub(crate) fn begin(disk: Arc<D>, start: WriterStart) -> Result<Self, SpareError> {
        let mut size = start.segment_bytes;
        let mut current = loop {
            let header = header(&start, start.synced_to);
            let plan = SparePlan { name: spare_name(0), header, size, zero: start.zero_ahead };
            match prepare_spare(&*disk, &plan) {
                // A nearly full disk must not keep a node from starting and serving reads.
                Err(SpareError::Full(_)) if SEGMENT_BYTES_MIN < size => {
                    size = (size / 2).max(SEGMENT_BYTES_MIN);
                }
                Err(error) => return Err(error),
                Ok(segment) => break segment,
            }
        };
        let first = start.synced_to.next();
        let failed = |name: &str, error| SpareError::Failed(write_error(&*disk, name, error));
        let name = segment_name(first);
        disk.rename(&current.name, &name).map_err(|error| failed(&name, error))?;
        disk.sync_dir().map_err(|error| failed("", error))?;
        current.name = name;
        let mut writer = Self {
            disk,
            written_to: start.synced_to,
            synced_to: start.synced_to,
            start,
            batch: Vec::new(),
            batch_at: 0,
            current,
            spare: None,
            spare_count: 0,
            sealed: Vec::new(),
            folder_changed: false,
            disk_full: None,
            failed: None,
        };
        writer.add_first(first);
        Ok(writer)
    }

    fn add_first(&mut self, first: LogIndex) {
        // A run that wrote nothing leaves an empty segment, which the next one replaces.
        if self.start.firsts.last() != Some(&first) {
            self.start.firsts.push(first);
        }
    }

    pub(crate) const fn boot(&self) -> u64 {
        self.start.boot
    }

    pub(crate) const fn written_to(&self) -> LogIndex {
        self.written_to
    }

    pub(crate) const fn synced_to(&self) -> LogIndex {
        self.synced_to
    }

    pub(crate) const fn disk_full(&self) -> Option<&DiskFull> {
        self.disk_full.as_ref()
    }

    /// Fails for ever once anything has failed.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// The place for taken records, if everything taken before is written.
    pub(crate) fn empty_batch(&mut self) -> Option<&mut Vec<u8>> {
        self.batch.is_empty().then_some(&mut self.batch)
    }

    /// Bytes that were taken and are not written.
    pub(crate) const fn unwritten_bytes(&self) -> usize {
        self.batch.len() - self.batch_at
    }

    /// Hands the batch to the operating system, or as much of it as the disk has room for.
    pub(crate) fn write_batch(&mut self) -> Result<(), LogError> {
        self.check()?;
        while self.batch_at < self.batch.len() {
            let records = &mut self.batch[self.batch_at..];
            let room = self.current.size - self.current.at;
            let sealed = frame::seal(records, self.current.seed, self.synced_to, room);
            if let Some(last) = sealed.last {
                let records = &self.batch[self.batch_at..self.batch_at + sealed.bytes];
                let written = self.disk.write_at(&self.current.file, self.current.at, records);
                if let Err(error) = written {
                    return self.on_write_error(sealed.bytes, error);
                }
                self.current.changed = true;
                self.current.at += u64::try_from(sealed.bytes).expect("a size fits u64");
                self.batch_at += sealed.bytes;
                self.written_to = last;
            }
            if let Some(bytes) = sealed.next_bytes
                && !self.roll_over(u64::try_from(bytes).expect("a size fits u64"))?
            {
                return Ok(());
            }
        }
        self.batch.clear();
        self.batch_at = 0;
        if self.spare.is_some() || !self.needs_spare() {
            self.disk_full = None;
        }
        Ok(())
    }

    fn on_write_error(&mut self, bytes: usize, error: io::Error) -> Result<(), LogError> {
        if disk::is_full(&error) {
            let needed = u64::try_from(bytes).expect("a size fits u64");
            let path = self.disk.path(&self.current.name);
            self.disk_full = Some(DiskFull { needed, path });
            return Ok(());
        }
        Err(self.fail(write_error(&*self.disk, &self.current.name, error)))
    }

    fn fail(&mut self, error: LogError) -> LogError {
        self.failed = Some(error.clone());
        error
    }

    /// Goes on in a new segment that has room for `bytes`; `false` if the disk is full.
    fn roll_over(&mut self, bytes: u64) -> Result<bool, LogError> {
        let size = self.start.segment_bytes.max(HEADER_BYTES + bytes);
        if let Some(spare) = self.spare.take_if(|spare| spare.size < size) {
            // Made for a usual record, and this one is larger.
            drop(self.disk.remove(&spare.name));
        }
        if self.spare.is_none() {
            self.prepare_quickly(size)?;
        }
        let Some(mut spare) = self.spare.take() else {
            return Ok(false);
        };
        let first = self.written_to.next();
        let name = segment_name(first);
        if let Err(error) = self.disk.rename(&spare.name, &name) {
            let path = self.disk.path(&name);
            self.spare = Some(spare);
            if disk::is_full(&error) {
                self.disk_full = Some(DiskFull { needed: HEADER_BYTES, path });
                return Ok(false);
            }
            return Err(self.fail(write_error(&*self.disk, &name, error)));
        }
        spare.name = name;
        self.folder_changed = true;
        self.add_first(first);
        let sealed = std::mem::replace(&mut self.current, spare);
        if sealed.changed {
            self.sealed.push(sealed.file);
        }
        Ok(true)
    }

    /// Whether the next segment should be prepared now, so that a full disk is seen early.
    pub(crate) const fn needs_spare(&self) -> bool {
        self.spare.is_none() && (self.current.size + HEADER_BYTES) / 2 < self.current.at
    }

    /// Prepares the next segment here and now where the thread that does it ahead has not come to it
    /// and this one is all but full: what is appended behind the last record that has a place is not
    /// refused any more, it waits until there is room.
    pub(crate) fn prepare_late_spare(&mut self) -> Result<(), LogError> {
        let is_late = self.current.size - self.current.size / LATE_PART < self.current.at;
        if is_late && self.spare.is_none() && self.disk_full.is_none() {
            self.prepare_quickly(self.start.segment_bytes)?;
        }
        Ok(())
    }

    /// Prepares the next segment without writing zeros, since somebody waits for it.
    fn prepare_quickly(&mut self, size: u64) -> Result<(), LogError> {
        let plan = SparePlan { zero: false, ..self.spare_plan(size) };
        let prepared = prepare_spare(&*self.disk, &plan);
        self.install_spare(prepared)
    }

    /// How to prepare the next segment.
    pub(crate) fn next_spare_plan(&mut self) -> SparePlan {
        self.spare_plan(self.start.segment_bytes)
    }

    fn spare_plan(&mut self, size: u64) -> SparePlan {
        self.spare_count += 1;
        let header = header(&self.start, self.synced_to);
        let (name, zero) = (spare_name(self.spare_count), self.start.zero_ahead);
        SparePlan { name, header, size, zero }
    }

    /// Takes a segment that was prepared, or learns why it could not be.
    pub(crate) fn install_spare(
        &mut self,
        prepared: Result<Segment<D>, SpareError>,
    ) -> Result<(), LogError> {
        match prepared {
            Ok(segment) if self.spare.is_some() => {
                drop(self.disk.remove(&segment.name)); // Another thread was faster.
            }
            Ok(segment) => {
                self.spare = Some(segment);
                if self.batch.is_empty() {
                    self.disk_full = None;
                }
            }
            Err(SpareError::Full(_)) if self.spare.is_some() => {} // The other one got the room.
            Err(SpareError::Full(full)) => self.disk_full = Some(full),
            Err(SpareError::Failed(error)) => return Err(self.fail(error)),
        }
        Ok(())
    }

    /// Prepares the next segment here and now, if it is due.
    pub(crate) fn prepare_spare_if_due(&mut self) -> Result<(), LogError> {
        self.check()?;
        if self.needs_spare() {
            let plan = self.next_spare_plan();
            let prepared = prepare_spare(&*self.disk, &plan);
            self.install_spare(prepared)?;
        }
        Ok(())
    }

    /// Begins a sync of everything written; `None` if it is synced already.
    pub(crate) fn begin_sync(&mut self) -> Result<Option<SyncJob<D>>, LogError> {
        self.check()?;
        if self.synced_to == self.written_to {
            return Ok(None);
        }
        let mut files = std::mem::take(&mut self.sealed);
        if std::mem::take(&mut self.current.changed) {
            files.push(Arc::clone(&self.current.file));
        }
        Ok(Some(SyncJob {
            files,
            name: self.current.name.clone(),
            folder: std::mem::take(&mut self.folder_changed),
            to: self.written_to,
        }))
    }

    /// Learns how a sync went. One that failed is final: see [`LogError`].
    pub(crate) fn finish_sync(
        &mut self,
        job: &SyncJob<D>,
        result: Result<(), LogError>,
    ) -> Result<(), LogError> {
        if let Err(error) = result {
            return Err(self.fail(error));
        }
        assert!(self.synced_to <= job.to, "syncs do not overlap");
        self.synced_to = job.to;
        Ok(())
    }

    /// Writes down that everything is synced, so that damage to any record is noticed later;
    /// `false` if the disk has no room for it.
    pub(crate) fn write_mark(&self) -> Result<bool, LogError> {
        self.check()?;
        write_mark(&*self.disk, &self.mark(self.start.log_start))
    }

    const fn mark(&self, start: LogIndex) -> Mark {
        Mark { identity: self.start.identity, start, synced_to: self.synced_to }
    }

    /// Begins to remove whole segments of records up to and including `index`; `None` if no
    /// segment ends there. Cuts and marks do not overlap: the owner ensures it.
    pub(crate) fn begin_cut(&self, index: LogIndex) -> Result<Option<CutJob>, LogError> {
        self.check()?;
        let index = index.min(self.synced_to);
        // A segment ends before the next one's first record; the current one stays.
        let ended = |pair: &&[LogIndex]| pair[1] <= index.next();
        let count = self.start.firsts.windows(2).take_while(ended).count();
        let Some(first) = self.start.firsts.get(count).copied().filter(|_| 0 < count) else {
            return Ok(None);
        };
        let removed = self.start.firsts.iter().take(count).copied().collect();
        Ok(Some(CutJob { mark: self.mark(first), removed }))
    }

    /// Learns how a cut went; `false` says that the disk had no room to write it down.
    pub(crate) fn finish_cut(
        &mut self,
        job: &CutJob,
        result: Result<bool, LogError>,
    ) -> Result<(), LogError> {
        if result.map_err(|error| self.fail(error))? {
            self.start.log_start = job.mark.start;
            self.start.firsts.drain(..job.removed.len());
        }
        Ok(())
    }
}

/// A cut that was begun: what is written down first, and which segments go away then.
#[derive(Debug)]
pub(crate) struct CutJob {
    mark: Mark,
    removed: Vec<LogIndex>,
}

impl CutJob {
    /// Waits for the disk; `false` if it has no room to write the cut down: nothing is removed.
    pub(crate) fn run<D: Disk>(&self, disk: &D) -> Result<bool, LogError> {
        if !write_mark(disk, &self.mark)? {
            return Ok(false);
        }
        for removed in &self.removed {
            let name = segment_name(*removed);
            disk.remove(&name).map_err(|error| write_error(disk, &name, error))?;
        }
        Ok(true)
    }
}

fn write_mark<D: Disk>(disk: &D, mark: &Mark) -> Result<bool, LogError> {
    let attempt = || -> io::Result<()> {
        let file = disk.create(MARK_NAME_NEW)?;
        disk.write_at(&file, 0, &mark.encode())?;
        disk.sync(&file)?;
        disk.rename(MARK_NAME_NEW, MARK_NAME)?;
        disk.sync_dir()
    };
    match attempt() {
        Ok(()) => Ok(true),
        Err(error) if disk::is_full(&error) => Ok(false),
        Err(error) => Err(write_error(disk, MARK_NAME, error)),
    }
}

fn spare_name(count: u64) -> String {
    format!("spare-{count}{TEMPORARY_SUFFIX}")
}

const fn header(start: &WriterStart, synced_to: LogIndex) -> SegmentHeader {
    SegmentHeader { identity: start.identity, boot: start.boot, salt: start.salt, synced_to }
}
