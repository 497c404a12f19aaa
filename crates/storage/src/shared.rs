//! Shares one log between many threads: appenders never wait for a write or a sync.
//!
//! Appending takes a short lock and copies. Whoever wants records persisted either writes inline
//! (`SharedLog::flush_inline`) or wakes the log's own thread (`SharedLog::request_flush`);
//! both take everything pending of all callers, write it at once and, under `Fsync::Always`,
//! sync it once. While one flush runs others do not wait: they are told that somebody is at it,
//! and what they have appended goes with the next flush, which that one starts.
//!
//! Everybody learns of progress through one callback. It may be called from several threads, so
//! take the larger position; a caller of `flush_inline` must hold no lock that the callback takes,
//! and the callback must not call `sync` or `close`, nor drop the log.
//!
//! Ensures: a record that was appended before `flush_inline` or `request_flush` is persisted
//! without another call, and the callback told, unless the disk is full (then as soon as there is
//! room) or has failed.
//! Invariant: locks are taken in the order cut, flush, sync, writer, and one of the others last.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::error::{AppendError, DiskFull, LogError};
use crate::log::{Log, LogParts, write_pending};
use crate::position::{LogIndex, Positions};
use crate::tail::Tail;
use crate::writer::{Writer, prepare_spare};

/// When written records are synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before they count as persisted.
    Always,
    /// In the background, this often.
    Interval(Duration),
    /// When the operating system likes.
    Never,
}

/// The settings of a shared log.
#[derive(Clone, Debug)]
pub struct SharedOptions {
    /// When written records are synced.
    pub fsync: Fsync,
    /// How long to wait before a full disk is tried again.
    pub retry_interval: Duration,
    /// Tells the time for intervals and lag.
    pub clock: Arc<dyn Clock>,
}

/// What the callback is told.
#[derive(Clone, Debug)]
pub enum Notice {
    /// More is written or synced.
    Advanced(Positions),
    /// The disk has no room: refuse new writes.
    DiskFull(DiskFull),
    /// There is room again.
    Healed,
    /// The log has failed for ever: the process must end.
    Failed(LogError),
}

/// The log of one node, for many threads. Dropping it ends its thread without flushing; see
/// [`SharedLog::close`].
pub struct SharedLog<D: Disk> {
    core: Arc<Core<D>>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Disk> fmt::Debug for SharedLog<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLog").field("positions", &self.positions()).finish_non_exhaustive()
    }
}

struct Core<D: Disk> {
    tail: Mutex<Tail>,
    /// `None`: the memory variant.
    files: Option<Files<D>>,
    options: SharedOptions,
    boot: u64,
    /// Somebody appended while a flush was running, and relies on another one.
    again: AtomicBool,
    written_to: AtomicU64,
    synced_to: AtomicU64,
    state: Mutex<State>,
    wishes: Mutex<Wishes>,
    wake: Condvar,
    notify: Box<dyn Fn(Notice) + Send + Sync>,
}

struct Files<D: Disk> {
    disk: Arc<D>,
    /// Held while the log is cut or marked.
    cut: Mutex<()>,
    /// Held by whoever flushes.
    flush: Mutex<()>,
    /// Held from the beginning to the end of a sync, so that syncs do not overlap.
    sync: Mutex<()>,
    writer: Mutex<Writer<D>>,
    _lock: Option<D::Lock>,
}

/// What others may ask at any time.
#[derive(Debug, Default)]
struct State {
    disk_full: Option<DiskFull>,
    failed: Option<LogError>,
    /// When the oldest write was made that no sync has begun to cover.
    oldest_unsynced: Option<Duration>,
    /// The same for the sync that is running.
    oldest_syncing: Option<Duration>,
}

/// What the log's thread is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    flush: bool,
    stop: bool,
}

impl<D: Disk> SharedLog<D> {
    /// Shares `log`; `notify` is called from any thread that makes progress. Fails if the log's
    /// thread cannot be started.
    pub fn start(
        log: Log<D>,
        options: SharedOptions,
        notify: impl Fn(Notice) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let boot = log.boot();
        let positions = log.positions();
        let LogParts { tail, writer, lock, disk } = log.into_parts();
        let files = writer.zip(disk).map(|(writer, disk)| Files {
            disk,
            cut: Mutex::new(()),
            flush: Mutex::new(()),
            sync: Mutex::new(()),
            writer: Mutex::new(writer),
            _lock: lock,
        });
        let core = Arc::new(Core {
            tail: Mutex::new(tail),
            files,
            options,
            boot,
            again: AtomicBool::new(false),
            written_to: AtomicU64::new(positions.written_to.get()),
            synced_to: AtomicU64::new(positions.synced_to.get()),
            state: Mutex::default(),
            wishes: Mutex::default(),
            wake: Condvar::new(),
            notify: Box::new(notify),
        });
        let thread = if core.files.is_some() {
            let core = Arc::clone(&core);
            let thread = std::thread::Builder::new().name("log".to_owned());
            Some(thread.spawn(move || core.run())?)
        } else {
            None
        };
        Ok(Self { core, thread })
    }

    /// Appends the record that `encode` writes at the end of the buffer that it is given. It runs
    /// under the appenders' lock: encode, and nothing else.
    pub fn append_with(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<LogIndex, AppendError> {
        self.core.tail.lock().append_with(encode)
    }

    /// Appends the record that consists of `parts`, one after the other.
    pub fn append(&self, parts: &[&[u8]]) -> Result<LogIndex, AppendError> {
        self.core.tail.lock().append(parts)
    }

    /// Appends several records under one lock.
    pub fn append_many<T>(&self, append: impl FnOnce(&mut Tail) -> T) -> T {
        append(&mut self.core.tail.lock())
    }

    /// Persists everything pending here and now: one write and, under [`Fsync::Always`], one sync.
    ///
    /// `None`: another thread is at it, and will see to what the caller has appended; the callback
    /// tells when. After `Some`, a full disk may have kept part of it back: see the positions.
    pub fn flush_inline(&self) -> Result<Option<Positions>, LogError> {
        let Some(files) = &self.core.files else {
            return Ok(Some(self.positions()));
        };
        self.core.again.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let Some(flushing) = files.flush.try_lock() else {
            return Ok(None);
        };
        self.core.flush(files, flushing).map(Some)
    }

    /// Lets the log's thread persist everything pending; returns at once.
    pub fn request_flush(&self) {
        if self.core.files.is_some() {
            self.core.wish_flush();
        }
    }

    /// Persists everything pending and syncs it whatever the setting; waits for the disk.
    pub fn sync(&self) -> Result<Positions, LogError> {
        if let Some(files) = &self.core.files {
            let flushing = files.flush.lock();
            self.core.flush(files, flushing)?;
            self.core.sync(files)?;
        }
        Ok(self.positions())
    }

    /// Persists and syncs everything, notes that the end was clean, and ends the thread.
    pub fn close(mut self) -> Result<Positions, LogError> {
        self.end_thread();
        let positions = self.sync()?;
        if let Some(files) = &self.core.files {
            let _cutting = files.cut.lock();
            files.writer.lock().write_mark()?;
        }
        Ok(positions)
    }

    /// How far the log has come.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.core.positions()
    }

    /// Set while the disk has no room: refuse new writes; reads go on.
    #[must_use]
    pub fn disk_full(&self) -> Option<DiskFull> {
        self.core.state.lock().disk_full.clone()
    }

    /// Set once the log has failed: the process must end.
    #[must_use]
    pub fn failed(&self) -> Option<LogError> {
        self.core.state.lock().failed.clone()
    }

    /// Whether the next record will be refused.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.core.tail.lock().is_full()
    }

    /// How long the oldest write that is not synced has waited at `now`, by the same clock as in
    /// the options; zero if everything is synced, and under other settings than [`Fsync::Interval`].
    /// Slow writers down when this grows.
    #[must_use]
    pub fn sync_lag(&self, now: Duration) -> Duration {
        let state = self.core.state.lock();
        let oldest = state.oldest_syncing.or(state.oldest_unsynced);
        oldest.map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest))
    }

    /// When written records are synced.
    #[must_use]
    pub fn fsync(&self) -> Fsync {
        self.core.options.fsync
    }

    /// Number of this run of the node, larger than that of every run before; zero in memory.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.core.boot
    }

    /// Removes whole segments of synced records up to and including `index`; none if the disk has
    /// no room to write that down, then a later call does. Waits for the disk, and holds nobody up
    /// who appends, writes or syncs.
    ///
    /// Assumes: what those records said can be had from a durable checkpoint.
    pub fn cut_to(&self, index: LogIndex) -> Result<(), LogError> {
        let Some(files) = &self.core.files else {
            return Ok(());
        };
        let _cutting = files.cut.lock();
        let begun = files.writer.lock().begin_cut(index);
        let Some(job) = begun.map_err(|error| self.core.fail(error))? else {
            return Ok(());
        };
        let result = job.run(&*files.disk);
        let finished = files.writer.lock().finish_cut(&job, result);
        finished.map_err(|error| self.core.fail(error))
    }

    fn end_thread(&mut self) {
        self.core.wishes.lock().stop = true;
        self.core.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there is a bug that was reported when it happened.
            drop(thread.join());
        }
    }
}

impl<D: Disk> Drop for SharedLog<D> {
    fn drop(&mut self) {
        self.end_thread();
    }
}

impl<D: Disk> Core<D> {
    fn positions(&self) -> Positions {
        // In this order a position that is read later is never behind one read before.
        let synced_to = LogIndex::new(self.synced_to.load(Ordering::Acquire));
        let written_to = LogIndex::new(self.written_to.load(Ordering::Acquire));
        let appended_to = self.tail.lock().appended_to();
        match self.files {
            Some(_) => Positions { appended_to, written_to, synced_to },
            None => Positions { appended_to, written_to: appended_to, synced_to: appended_to },
        }
    }

    fn wish_flush(&self) {
        let mut wishes = self.wishes.lock();
        if !wishes.flush {
            wishes.flush = true;
            self.wake.notify_one();
        }
    }

    /// Flushes once, lets go of the flush, and sees to it that those who found it taken get theirs.
    fn flush(&self, files: &Files<D>, flushing: MutexGuard<'_, ()>) -> Result<Positions, LogError> {
        self.again.store(false, Ordering::SeqCst);
        let mut result = self.write(files);
        if result.is_ok() && self.options.fsync == Fsync::Always {
            result = self.sync(files);
        }
        drop(flushing);
        result?;
        fence(Ordering::SeqCst); // Either the other one finds the flush free, or we find its mark.
        if self.again.load(Ordering::SeqCst) {
            self.wish_flush();
        }
        let positions = self.positions();
        (self.notify)(Notice::Advanced(positions));
        Ok(positions)
    }

    fn write(&self, files: &Files<D>) -> Result<(), LogError> {
        let mut writer = files.writer.lock();
        let before = writer.written_to();
        let result = write_pending(&mut writer, |batch| self.tail.lock().take(batch))
            .and_then(|()| writer.prepare_late_spare());
        self.tail.lock().set_taken_bytes(writer.unwritten_bytes());
        result.map_err(|error| self.fail(error))?;
        let written_to = writer.written_to();
        if before < written_to && matches!(self.options.fsync, Fsync::Interval(_)) {
            // Before the position is told: a sync that covers this write must find its time.
            let mut state = self.state.lock();
            if state.oldest_unsynced.is_none() {
                state.oldest_unsynced = Some(self.options.clock.now());
            }
        }
        self.written_to.store(written_to.get(), Ordering::Release);
        let due = writer.needs_spare() && writer.disk_full().is_none();
        self.learn_disk_full(writer);
        if due {
            self.wish_flush();
        }
        Ok(())
    }

    /// Makes the state what the writer says, and tells the callback if it has changed.
    fn learn_disk_full(&self, writer: MutexGuard<'_, Writer<D>>) {
        let mut state = self.state.lock();
        if state.disk_full.as_ref() == writer.disk_full() {
            return;
        }
        let was_full = state.disk_full.is_some();
        state.disk_full = writer.disk_full().cloned();
        let notice = state.disk_full.clone().map_or(Notice::Healed, Notice::DiskFull);
        drop(writer);
        drop(state);
        match notice {
            // The file or the size is another one, the state is the same.
            Notice::DiskFull(_) if was_full => {}
            Notice::DiskFull(_) => {
                drop(self.wishes.lock()); // The thread has either seen the state or is asleep.
                self.wake.notify_one();
                (self.notify)(notice);
            }
            Notice::Healed | Notice::Advanced(_) | Notice::Failed(_) => (self.notify)(notice),
        }
    }

    fn sync(&self, files: &Files<D>) -> Result<(), LogError> {
        let syncing = files.sync.lock();
        let mut writer = files.writer.lock();
        let job = writer.begin_sync().map_err(|error| self.fail(error))?;
        let Some(job) = job else {
            return Ok(());
        };
        {
            let mut state = self.state.lock();
            state.oldest_syncing = state.oldest_unsynced.take();
        }
        drop(writer);
        let result = job.run(&files.disk);
        let mut writer = files.writer.lock();
        writer.finish_sync(&job, result).map_err(|error| self.fail(error))?;
        self.state.lock().oldest_syncing = None;
        self.synced_to.store(writer.synced_to().get(), Ordering::Release);
        drop(writer);
        drop(syncing);
        Ok(())
    }

    fn fail(&self, error: LogError) -> LogError {
        let first = {
            let mut state = self.state.lock();
            let first = state.failed.is_none();
            state.failed.get_or_insert_with(|| error.clone());
            first
        };
        if first {
            (self.notify)(Notice::Failed(error.clone()));
        }
        error
    }

    /// The log's own thread.
    fn run(&self) {
        let Some(files) = &self.files else {
            return;
        };
        let mut sync_at = self.options.clock.now();
        loop {
            let wishes = self.wait(sync_at);
            if wishes.stop || self.state.lock().failed.is_some() {
                return;
            }
            // Errors are told through the callback, and end this thread the next time round.
            drop(self.work(files, wishes, &mut sync_at));
        }
    }

    /// Waits until something is wished for or due.
    fn wait(&self, sync_at: Duration) -> Wishes {
        let mut timeout = match self.options.fsync {
            Fsync::Interval(_) => Some(sync_at.saturating_sub(self.options.clock.now())),
            Fsync::Always | Fsync::Never => None,
        };
        let mut wishes = self.wishes.lock();
        if self.state.lock().disk_full.is_some() {
            let retry = self.options.retry_interval;
            timeout = Some(timeout.map_or(retry, |timeout| timeout.min(retry)));
        }
        if !wishes.flush && !wishes.stop {
            match timeout {
                Some(timeout) => drop(self.wake.wait_for(&mut wishes, timeout)),
                None => self.wake.wait(&mut wishes),
            }
        }
        let taken = *wishes;
        wishes.flush = false;
        taken
    }

    fn work(
        &self,
        files: &Files<D>,
        wishes: Wishes,
        sync_at: &mut Duration,
    ) -> Result<(), LogError> {
        let is_full = self.state.lock().disk_full.is_some();
        if wishes.flush || is_full {
            let flushing = files.flush.lock();
            self.flush(files, flushing)?;
        }
        self.prepare_spare(files)?;
        if let Fsync::Interval(interval) = self.options.fsync
            && *sync_at <= self.options.clock.now()
        {
            let before = self.synced_to.load(Ordering::Acquire);
            self.sync(files)?;
            *sync_at = self.options.clock.now() + interval;
            if before < self.synced_to.load(Ordering::Acquire) {
                (self.notify)(Notice::Advanced(self.positions()));
            }
        }
        Ok(())
    }

    /// Prepares the next segment, while others go on writing into this one.
    fn prepare_spare(&self, files: &Files<D>) -> Result<(), LogError> {
        let mut writer = files.writer.lock();
        if !writer.needs_spare() {
            return Ok(());
        }
        let plan = writer.next_spare_plan();
        drop(writer);
        let prepared = prepare_spare(&*files.disk, &plan);
        let mut writer = files.writer.lock();
        writer.install_spare(prepared).map_err(|error| self.fail(error))?;
        self.learn_disk_full(writer);
        Ok(())
    }
}
