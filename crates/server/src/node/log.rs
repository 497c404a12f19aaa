//! The node's log as its machines and its threads see it.
//!
//! Machines append through `Appender`; whoever ends a batch flushes. A list remembers which
//! shards appended something that is not persisted (or not synced) yet, so that they can be told.
//! A ceiling of the node's hybrid clock is written ahead of it, so that a restarted node starts
//! above every timestamp that it gave or told before: at any append the ceiling lies at least
//! `CEILING_MARGIN` and the drift bound above the wall clock.
//!
//! Ensures: a shard that was noted is told as soon as its records are persisted, and once more
//! when they are synced.
//! Limits: bytes that wait are bounded by `PENDING_BYTES_MAX`; writes of clients are refused
//! long before, so that only a broken peer could fill it, and then the process ends.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use antecede_model::{
    clock::{Now, Timestamp},
    ids::{LogIndex, ShardId},
};
use antecede_protocol::{
    geo::kept::Behind,
    machine::{Persisted, Room, Storage},
    record::Record,
};
use antecede_storage::{Positions, RealDisk, SharedLog};
use parking_lot::Mutex;

use super::Node;
use super::free::FreeSpace;

/// Bytes that may wait to be written; past it the process ends.
pub(crate) const PENDING_BYTES_MAX: usize = 1 << 30;
/// Bytes that may wait before connections pause.
pub(crate) const PENDING_BYTES_SLOW: u64 = 32 << 20;
/// Bytes that may wait before writes of clients are refused.
const PENDING_BYTES_REFUSED: u64 = 256 << 20;
const _: () = assert!(PENDING_BYTES_SLOW < PENDING_BYTES_REFUSED);
const _: () = assert!(PENDING_BYTES_REFUSED < PENDING_BYTES_MAX as u64);
/// How far ahead of the clock a ceiling must lie at least.
const CEILING_MARGIN: Duration = Duration::from_secs(1);
/// How far ahead of that it is written, so that this is seldom needed.
const CEILING_STEP: Duration = Duration::from_secs(2);
/// How old the oldest write may be that is not synced, before writers are slowed down.
pub(crate) const SYNC_LAG_MAX: Duration = Duration::from_secs(2);

thread_local! {
    /// Whether this thread is inside of an inline flush.
    static FLUSHES: Cell<bool> = const { Cell::new(false) };
}

/// The node's log.
pub(crate) struct NodeLog {
    shared: SharedLog<RealDisk>,
    is_in_memory: bool,
    max_clock_drift: Duration,
    /// Bytes of the records that were there at the start.
    recovered_bytes: u64,
    ceiling: AtomicU64,
    /// Copies of the log's positions that only grow.
    persisted_to: AtomicU64,
    synced_to: AtomicU64,
    appended_bytes: AtomicU64,
    written_bytes: AtomicU64,
    /// Places in the log with the bytes that were appended up to there.
    marks: Mutex<VecDeque<(u64, u64)>>,
    is_disk_full: AtomicBool,
    /// What is left on the disk.
    pub(crate) free: FreeSpace,
    touched: Mutex<Touched>,
}

/// Shards that wait to be told.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Until something is persisted.
    pub(crate) unpersisted: Vec<ShardId>,
    /// Until it is synced too.
    pub(crate) unsynced: Vec<ShardId>,
    /// How far the log was synced when `unsynced` was last taken.
    synced_to: u64,
}

impl fmt::Debug for NodeLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeLog").field("persisted", &self.persisted()).finish_non_exhaustive()
    }
}

impl NodeLog {
    pub(crate) fn new(
        shared: SharedLog<RealDisk>,
        is_in_memory: bool,
        max_clock_drift: Duration,
        (ceiling, recovered_bytes): (Timestamp, u64),
        free: FreeSpace,
    ) -> Self {
        let positions = shared.positions();
        let log = Self {
            shared,
            is_in_memory,
            max_clock_drift,
            recovered_bytes,
            ceiling: AtomicU64::new(ceiling.0),
            persisted_to: AtomicU64::new(0),
            synced_to: AtomicU64::new(0),
            appended_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            marks: Mutex::default(),
            is_disk_full: AtomicBool::new(false),
            free,
            touched: Mutex::default(),
        };
        log.learn(positions);
        log
    }

    /// Takes over positions; tells whether one has grown.
    pub(crate) fn learn(&self, positions: Positions) -> bool {
        let persisted_to = positions.persisted_to(self.shared.fsync()).get();
        let synced_to = positions.synced_to.get();
        let before = (
            self.persisted_to.fetch_max(persisted_to, Ordering::SeqCst),
            self.synced_to.fetch_max(synced_to, Ordering::SeqCst),
        );
        let written_to = positions.written_to.get();
        let mut marks = self.marks.lock();
        while let Some((_, bytes)) = marks.pop_front_if(|(index, _)| *index <= written_to) {
            self.written_bytes.fetch_max(bytes, Ordering::Relaxed);
        }
        before.0 < persisted_to || before.1 < synced_to
    }

    /// How far the log has come.
    #[inline]
    pub(crate) fn persisted(&self) -> Persisted {
        if self.is_in_memory {
            let to = LogIndex(self.persisted_to.load(Ordering::Acquire));
            return Persisted { to, synced_to: to };
        }
        // In this order, so that what is synced is never ahead.
        let synced_to = LogIndex(self.synced_to.load(Ordering::SeqCst));
        let to = LogIndex(self.persisted_to.load(Ordering::SeqCst));
        Persisted { to, synced_to }
    }

    /// Notes that a shard has appended something that is not persisted yet.
    pub(crate) fn touch(&self, shard: ShardId) {
        self.touched.lock().unpersisted.push(shard);
    }

    /// Notes that a shard waits for a sync.
    pub(crate) fn touch_unsynced(&self, shard: ShardId) {
        self.touched.lock().unsynced.push(shard);
    }

    /// Takes the shards that wait for the log to be persisted, and those that wait for a sync if
    /// there has been one.
    pub(crate) fn take_touched(&self) -> Touched {
        let mut touched = self.touched.lock();
        let unpersisted = std::mem::take(&mut touched.unpersisted);
        let synced_to = self.synced_to.load(Ordering::SeqCst);
        if touched.synced_to == synced_to {
            return Touched { unpersisted, ..Touched::default() };
        }
        touched.synced_to = synced_to;
        let unsynced = std::mem::take(&mut touched.unsynced);
        Touched { unpersisted, unsynced, synced_to }
    }

    /// Writes, and syncs if that is the setting. False: another thread is at it and will see to
    /// what this one has appended, or the log has failed, which the callback tells.
    pub(crate) fn flush_inline(&self) -> bool {
        self.mark();
        FLUSHES.set(true);
        let flushed = self.shared.flush_inline();
        FLUSHES.set(false);
        match flushed {
            Ok(Some(positions)) => {
                self.learn(positions);
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Whether this thread flushes right now, so that it will look at the positions itself.
    pub(crate) fn is_flushing_here() -> bool {
        FLUSHES.get()
    }

    /// Lets the log's thread do it.
    pub(crate) fn request_flush(&self) {
        self.mark();
        self.shared.request_flush();
    }

    fn mark(&self) {
        if !self.is_in_memory {
            let bytes = self.appended_bytes.load(Ordering::Relaxed);
            let index = self.shared.positions().appended_to.get();
            let mut marks = self.marks.lock();
            if marks.back().is_none_or(|(_, last)| *last < bytes) {
                marks.push_back((index, bytes));
            }
        }
    }

    /// Bytes of records that were appended since the node started, and those that it found.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.recovered_bytes + self.appended_bytes.load(Ordering::Relaxed)
    }

    /// Writes the ceiling once more, so that what lies before may be cut; its place.
    pub(crate) fn repeat_ceiling(&self) -> antecede_storage::LogIndex {
        let ceiling = Timestamp(self.ceiling.load(Ordering::Relaxed));
        let place = self.append(&mut |to| Record::write_ceiling(to, ceiling));
        antecede_storage::LogIndex::new(place.0)
    }

    /// Removes segments of the log whose records are all up to a place; false if that failed,
    /// which the callback tells.
    pub(crate) fn cut_to(&self, index: antecede_storage::LogIndex) -> bool {
        self.shared.cut_to(index).is_ok()
    }

    /// Writes and syncs everything, whatever the setting; waits for the disk.
    pub(crate) fn sync(&self) {
        if let Ok(positions) = self.shared.sync() {
            self.learn(positions);
        }
    }

    /// Writes and syncs everything, and tells whether all up to a place is synced now: a full disk
    /// may have left some of it behind.
    pub(crate) fn sync_to(&self, to: antecede_storage::LogIndex) -> bool {
        self.sync();
        to <= self.positions().synced_to
    }

    /// The log's positions, for people.
    pub(crate) fn positions(&self) -> Positions {
        if self.is_in_memory {
            let to = antecede_storage::LogIndex::new(self.persisted_to.load(Ordering::Acquire));
            return Positions { appended_to: to, written_to: to, synced_to: to };
        }
        self.shared.positions()
    }

    /// Whether records are kept nowhere.
    pub(crate) const fn is_in_memory(&self) -> bool {
        self.is_in_memory
    }

    /// How long the oldest write has waited for a sync.
    pub(crate) fn sync_lag(&self, now: Now) -> Duration {
        self.shared.sync_lag(now.steady.0)
    }

    pub(crate) fn set_disk_full(&self, is_full: bool) {
        self.is_disk_full.store(is_full, Ordering::Relaxed);
    }

    pub(crate) fn is_disk_full(&self) -> bool {
        self.is_disk_full.load(Ordering::Relaxed)
    }

    /// Whether the disk has no room for new writes.
    pub(crate) fn is_short(&self) -> bool {
        self.is_disk_full() || self.free.is_low()
    }

    /// Bytes that were appended and are not written yet, about.
    pub(crate) fn pending_bytes(&self) -> u64 {
        let written = self.written_bytes.load(Ordering::Relaxed);
        self.appended_bytes.load(Ordering::Relaxed).saturating_sub(written)
    }

    /// Whether a timestamp may be told: it lies below the persisted ceiling.
    pub(crate) fn covers(&self, hlc: Timestamp) -> bool {
        self.is_in_memory || hlc.0 <= self.ceiling.load(Ordering::Relaxed)
    }

    /// Writes a larger ceiling if the old one is near; tells its place if it did.
    pub(crate) fn raise_ceiling(&self, now: Now, told: Timestamp) -> Option<LogIndex> {
        if self.is_in_memory {
            return None;
        }
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let ahead = millis(self.max_clock_drift.saturating_add(CEILING_MARGIN));
        let least = Timestamp::from_millis(now.wall.millis().saturating_add(ahead));
        let found = self.ceiling.load(Ordering::Relaxed);
        if least.0 <= found && told.0 <= found {
            return None;
        }
        let next = Timestamp::from_millis(least.max(told).millis() + millis(CEILING_STEP));
        self.ceiling
            .compare_exchange(found, next.0, Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| self.append(&mut |to| Record::write_ceiling(to, next)))
    }

    /// Appends a record; its place.
    ///
    /// # Panics
    /// When [`PENDING_BYTES_MAX`] bytes wait to be written: nothing that was agreed with the chain
    /// may be left out, so the process ends and comes back through recovery.
    fn append(&self, write: &mut dyn FnMut(&mut Vec<u8>)) -> LogIndex {
        if self.is_in_memory {
            // Kept nowhere: a record is its place.
            return LogIndex(self.persisted_to.fetch_add(1, Ordering::AcqRel) + 1);
        }
        let mut bytes = 0;
        let appended = self.shared.append_with(|to| {
            let before = to.len();
            write(to);
            bytes = to.len() - before;
        });
        let index = match appended {
            Ok(index) => index.get(),
            Err(error) => panic!("a record that the chain relies on does not fit: {error}"),
        };
        self.appended_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        LogIndex(index)
    }
}

/// The log in the hands of one replica's machine, for one input.
pub(crate) struct Appender<'a> {
    pub(crate) log: &'a NodeLog,
    pub(crate) node: &'a Node,
    pub(crate) now: Now,
}

impl Storage for Appender<'_> {
    fn append(&mut self, write: &mut dyn FnMut(&mut Vec<u8>)) -> LogIndex {
        // What is told before the next append is checked when it is sent.
        self.log.raise_ceiling(self.now, Timestamp::ZERO);
        self.log.append(write)
    }

    fn reached(&self) -> Persisted {
        self.log.persisted()
    }

    fn room(&self) -> Room {
        if self.log.is_disk_full() || PENDING_BYTES_REFUSED < self.log.pending_bytes() {
            Room::None
        } else if self.log.free.is_low() {
            Room::Low
        } else {
            Room::Ample
        }
    }

    fn has_memory(&self) -> bool {
        self.node.has_memory()
    }

    fn held_up_by(&self) -> Option<Behind> {
        self.node.outbox.held_up_by()
    }
}
