//! Writes checkpoints in the background, and cuts the log behind them.
//!
//! A thread of its own waits until the log has grown by `storage.checkpoint` since the last time.
//! Then it asks each replica for what has changed, in steps that hold its mutex for less than a
//! millisecond, gathers a batch, syncs the log, writes the batch, and goes on; at the end it cuts
//! the log where no replica needs it any more. It runs at a lower priority than what serves.
//!
//! Ensures: the log is synced as far as a batch contains it before the batch is written, and cut
//! only behind what is durable elsewhere. A ceiling of the clock is always in what is left of it.
//! Limits: memory of one batch; while the disk is full the log is not cut, and the batch is tried
//! again until there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use antecede_model::ids::ShardId;
use antecede_protocol::checkpointed::{CheckpointStep, StepLimits, ValueLostError};
use antecede_storage::{
    LogIndex, RealDisk,
    checkpoint::{CheckpointBatch, CheckpointError, CheckpointStore, RealCheckpoints},
};
use parking_lot::{Condvar, Mutex};
use tracing::{error, info, warn};

use super::Node;
use crate::clock;

/// How often the thread looks whether the log has grown enough.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long it waits before it tries a full disk again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Bytes of a batch, about: many keys, since a batch costs at least a page for each.
const BATCH_BYTES: usize = 64 << 20;
/// Bytes of a batch where memory is short.
const BATCH_BYTES_MIN: usize = 1 << 20;
/// The log may grow by this part of the data before the next checkpoint, if that is more than the
/// setting: what is written again should be in proportion to what is there.
const PART_OF_DATA: u64 = 4;
/// How much less often than others the thread gets a processor.
const NICENESS: i32 = 10;

/// The checkpoints of a node.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// None where nothing is kept.
    store: Option<RealCheckpoints<RealDisk>>,
    /// Bytes of the log that were appended when the last one began.
    began_at: AtomicU64,
    is_under_way: AtomicBool,
    /// Whether the last batch found no room.
    is_disk_full: AtomicBool,
    /// What is told of them.
    pub(crate) tally: Tally,
    /// Held while the thread waits.
    waiting: Mutex<bool>,
    wake: Condvar,
}

/// What was done so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Checkpoints that were completed.
    pub(crate) completed: AtomicU64,
    /// Keys that were written.
    pub(crate) keys: AtomicU64,
    /// Milliseconds that the last one took.
    pub(crate) last_millis: AtomicU64,
    /// Records of the log before this one were cut off.
    pub(crate) cut_to: AtomicU64,
}

impl Checkpoints {
    /// Checkpoints in a store, of a log that holds so many bytes since the last one.
    pub(crate) fn new(store: Option<RealCheckpoints<RealDisk>>) -> Self {
        Self { store, ..Self::default() }
    }

    /// Where values are read from.
    pub(crate) const fn store(&self) -> Option<&RealCheckpoints<RealDisk>> {
        self.store.as_ref()
    }

    /// Bytes by which the log has grown since the last one began.
    pub(crate) fn grown(&self, node: &Node) -> u64 {
        let began_at = self.began_at.load(Ordering::Relaxed);
        node.log.total_bytes().saturating_sub(began_at)
    }

    /// Whether one is being taken.
    pub(crate) fn is_under_way(&self) -> bool {
        self.is_under_way.load(Ordering::Relaxed)
    }

    /// Whether the disk has no room for the batch that is to be written.
    pub(crate) fn is_disk_full(&self) -> bool {
        self.is_disk_full.load(Ordering::Relaxed)
    }

    /// Ends the thread's wait.
    pub(crate) fn stop(&self) {
        *self.waiting.lock() = true;
        self.wake.notify_all();
    }

    /// Lets the thread look at once whether a checkpoint is wanted.
    pub(crate) fn nudge(&self) {
        self.wake.notify_all();
    }

    /// Waits; true when it is time to stop.
    fn pause(&self, time: Duration) -> bool {
        let mut is_stopping = self.waiting.lock();
        if !*is_stopping {
            self.wake.wait_for(&mut is_stopping, time);
        }
        *is_stopping
    }
}

/// Takes checkpoints until the node stops.
pub(crate) fn run(node: &Arc<Node>) {
    let Some(store) = &node.checkpoints.store else { return };
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        warn!(node = %node.id, %error, "checkpoints are taken at the usual priority");
    }
    while !node.checkpoints.pause(LOOK_EVERY) {
        if !node.wants_checkpoint() {
            continue;
        }
        node.checkpoints.is_under_way.store(true, Ordering::Relaxed);
        let taken = node.take_checkpoint(store);
        node.checkpoints.is_under_way.store(false, Ordering::Relaxed);
        if taken.is_err() {
            return; // It is time to stop.
        }
    }
}

/// The node stops.
struct Stopping;

impl Node {
    /// Whether the log has grown enough.
    fn wants_checkpoint(&self) -> bool {
        if self.wants_room() {
            return true;
        }
        let grown = self.checkpoints.grown(self);
        let setting = self.config.storage.checkpoint_bytes;
        if grown < setting {
            return false;
        }
        let used = |shard| self.look(shard, |replica| replica.keys().used_bytes());
        let data: usize = self.shards().filter_map(used).sum();
        data as u64 / PART_OF_DATA <= grown
    }

    /// Takes one checkpoint of all replicas.
    fn take_checkpoint(&self, store: &RealCheckpoints<RealDisk>) -> Result<(), Stopping> {
        let began = clock::steady();
        self.checkpoints.began_at.store(self.log.total_bytes(), Ordering::Relaxed);
        let mut batch = CheckpointBatch::new();
        let batch_bytes = self.batch_bytes();
        let mut keys = 0;
        for shard in self.shards() {
            while let Some(mut step) = self.step(shard) {
                complete(store, shard, &mut step);
                let is_last = step.is_last;
                keys += step.changes.len() as u64;
                add(&mut batch, shard, step);
                if batch_bytes <= batch.bytes() {
                    self.write(store, &mut batch)?;
                }
                if is_last {
                    break;
                }
            }
        }
        self.write(store, &mut batch)?;
        self.cold.forget_unsaved();
        self.cut_log();
        let took = clock::steady().0.saturating_sub(began.0);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let tally = &self.checkpoints.tally;
        tally.completed.fetch_add(1, Ordering::Relaxed);
        tally.keys.fetch_add(keys, Ordering::Relaxed);
        tally.last_millis.store(millis, Ordering::Relaxed);
        info!(node = %self.id, keys, millis, "checkpoint written");
        Ok(())
    }

    /// Bytes of a batch, about: less where there is a memory limit.
    fn batch_bytes(&self) -> usize {
        let limit = usize::try_from(self.memory.limit()).unwrap_or(usize::MAX);
        if limit == 0 { BATCH_BYTES } else { (limit / 8).clamp(BATCH_BYTES_MIN, BATCH_BYTES) }
    }

    fn step(&self, shard: ShardId) -> Option<CheckpointStep> {
        self.replica(shard)?.lock().shard.take_checkpoint(StepLimits::default())
    }

    /// Makes a batch durable, and empties it.
    fn write(
        &self,
        store: &RealCheckpoints<RealDisk>,
        batch: &mut CheckpointBatch,
    ) -> Result<(), Stopping> {
        if batch.is_empty() {
            return Ok(());
        }
        // What the batch contains was appended by now.
        let log_to = self.log.positions().appended_to;
        while !self.log.sync_to(log_to) {
            if self.checkpoints.pause(RETRY_AFTER) {
                return Err(Stopping);
            }
        }
        loop {
            store.hurry(self.memory.is_short());
            match store.write(batch) {
                Ok(()) => break,
                Err(error @ CheckpointError::DiskFull { .. }) => {
                    if !self.checkpoints.is_disk_full.swap(true, Ordering::Relaxed) {
                        warn!(node = %self.id, %error, "the log is not cut meanwhile");
                    }
                    if self.checkpoints.pause(RETRY_AFTER) {
                        return Err(Stopping);
                    }
                }
                Err(failure) => {
                    let cause = std::error::Error::source(&failure).map(ToString::to_string);
                    error!(node = %self.id, error = %failure, cause, "the checkpoint has failed: this process ends");
                    // What is on disk is not known any more; the next start looks.
                    std::process::abort();
                }
            }
        }
        if self.checkpoints.is_disk_full.swap(false, Ordering::Relaxed) {
            info!(node = %self.id, "there is room for the checkpoint again");
        }
        let written = std::mem::take(batch);
        for (shard, _) in written.shards() {
            if let Some(replica) = self.replica(shard) {
                replica.lock().shard.checkpoint_is_durable();
            }
        }
        self.cold.nudge();
        Ok(())
    }

    /// Cuts the log where no replica needs it.
    fn cut_log(&self) {
        // What is appended from here on lies behind it.
        let end = self.log.positions().appended_to.get();
        let needs = |shard| self.look(shard, antecede_protocol::chain::Shard::needs_log_from)?;
        let needed = self.shards().filter_map(needs).map(|index| index.0).min();
        let to = needed.map_or(end, |from| from.saturating_sub(1).min(end));
        if to <= self.checkpoints.tally.cut_to.load(Ordering::Relaxed) {
            return;
        }
        let ceiling = self.log.repeat_ceiling();
        if self.log.sync_to(ceiling) && self.log.cut_to(LogIndex::new(to)) {
            self.checkpoints.tally.cut_to.store(to, Ordering::Relaxed);
        }
    }
}

/// Puts values into what is written that are on disk only; without them the process ends.
fn complete(store: &RealCheckpoints<RealDisk>, shard: ShardId, step: &mut CheckpointStep) {
    let stored = |hash: u64| Ok::<_, LostError>(store.get(shard, &hash.to_be_bytes())?);
    if let Err(failure) = step.complete(stored) {
        let cause = std::error::Error::source(&failure).map(ToString::to_string);
        error!(%shard, error = %failure, cause, "the checkpoint has failed: this process ends");
        // What would be written is not what was acknowledged.
        std::process::abort();
    }
}

/// A value that is to be written again cannot be read.
#[derive(Debug, thiserror::Error)]
enum LostError {
    /// It is not there.
    #[error(transparent)]
    Lost(#[from] ValueLostError),
    /// What is there is damaged, or the disk fails.
    #[error(transparent)]
    Store(#[from] CheckpointError),
}

/// Adds a step of a shard to a batch.
fn add(batch: &mut CheckpointBatch, shard: ShardId, step: CheckpointStep) {
    if step.is_reset {
        batch.reset(shard);
    }
    for (hash, records) in step.changes {
        let key = hash.to_be_bytes().to_vec();
        match records {
            Some(records) => batch.put(shard, key, records),
            None => batch.remove(shard, key),
        }
    }
    if let Some(meta) = step.meta {
        let mut bytes = Vec::new();
        meta.write(&mut bytes);
        batch.set_meta(shard, bytes);
    }
}
