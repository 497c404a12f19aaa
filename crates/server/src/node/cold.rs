//! Keeps the memory of a node within its limit: takes values out that are on disk, too, and reads
//! them back when replicas want them.
//!
//! Above three quarters of the limit a thread of its own asks each replica in turn to give values
//! up, in steps that hold its mutex for less than a millisecond, until memory is down again. Only
//! what a checkpoint has can go, so a checkpoint begins earlier when memory is short
//! (`wants_room`), and who writes is slowed down meanwhile. If nothing is left that could go, writes
//! that may grow the data are refused at the limit, as without a disk.
//!
//! A few threads read values back; they touch a replica only to bring it what they have read.
//!
//! Ensures: every load is answered, also one that fails.
//! Limits: a replica that copies a shard holds all values of it until the copy is whole, since it
//! has no checkpoint before.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use antecede_model::{clock::Steady, ids::LogIndex};
use antecede_protocol::{
    chain::{Input, Loaded},
    checkpointed::StepLimits,
    machine::Load,
};
use antecede_storage::checkpoint::CheckpointStore;
use parking_lot::{Condvar, Mutex};
use tracing::{error, info, warn};

use super::{Node, Work};
use crate::clock;

/// Values shorter than this stay in memory: without them a record would hardly be smaller.
pub(crate) const AWAY_BYTES_MIN: usize = 64;
/// Threads that read values.
const LOADERS: usize = 2;
/// Loads that a thread takes at a time: their replies leave together.
const LOADS_AT_ONCE: usize = 16;
/// How often memory is looked at while there is a limit.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long nothing is tried when too little could go, unless a checkpoint has come further.
const REST: Duration = Duration::from_millis(200);
/// What one step may cost: about half a millisecond.
const STEP: StepLimits = StepLimits { looks: 4096, bytes: 128 << 10 };
/// Loads of a thread between two looks at the memory in use.
const LOADS_PER_LOOK: usize = 64;
/// Bytes that a thread reads between two looks at the memory in use.
const BYTES_PER_LOOK: usize = 256 << 10;
/// How long a thread that reads values waits for room at most: who reads waits for it.
const ROOM_PATIENCE: Duration = Duration::from_millis(250);
/// Steps between two looks at the memory in use.
const STEPS_PER_LOOK: usize = 32;

/// Values that are on disk only: what is to be read, and what was done.
#[derive(Debug, Default)]
pub(crate) struct ColdValues {
    /// Whether there is a disk where values could be.
    is_possible: bool,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Held while the thread that frees memory waits.
    resting: Mutex<bool>,
    end_rest: Condvar,
    /// Told whenever values have gone, with `resting`.
    has_gone: Condvar,
    /// Whether nothing is left that could go.
    is_stuck: AtomicBool,
    /// Bytes that could go once the next checkpoint has them, as of the last sweep over all keys.
    unsaved_bytes: AtomicU64,
    /// What is told of them.
    pub(crate) tally: Tally,
}

#[derive(Debug, Default)]
struct Queue {
    /// What is to be read, and since when.
    loads: VecDeque<(Load, Steady)>,
    is_stopping: bool,
}

/// What was done so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Values that were taken out of memory.
    pub(crate) evicted: AtomicU64,
    /// Values that were read back.
    pub(crate) loads: AtomicU64,
    /// Those among them that could not be read.
    pub(crate) failed_loads: AtomicU64,
}

impl ColdValues {
    pub(crate) fn new(is_possible: bool) -> Self {
        Self { is_possible, ..Self::default() }
    }

    /// Gives the threads something to read.
    pub(crate) fn ask(&self, loads: impl Iterator<Item = Load>) {
        let now = clock::steady();
        let mut queue = self.queue.lock();
        queue.loads.extend(loads.map(|load| (load, now)));
        drop(queue);
        self.wake.notify_one();
    }

    /// A checkpoint is whole: what it has can go, and the next sweep tells what is left.
    pub(crate) fn forget_unsaved(&self) {
        self.unsaved_bytes.store(0, Ordering::Relaxed);
    }

    /// A checkpoint has come further: more can go.
    pub(crate) fn nudge(&self) {
        self.end_rest.notify_all();
    }

    /// Ends the waits of all threads.
    pub(crate) fn stop(&self) {
        self.queue.lock().is_stopping = true;
        self.wake.notify_all();
        *self.resting.lock() = true;
        self.end_rest.notify_all();
        self.has_gone.notify_all();
    }

    /// Waits for something to read; false when it is time to stop.
    fn take(&self, into: &mut Vec<(Load, Steady)>) -> bool {
        let mut queue = self.queue.lock();
        while queue.loads.is_empty() && !queue.is_stopping {
            self.wake.wait(&mut queue);
        }
        let count = queue.loads.len().min(LOADS_AT_ONCE);
        into.extend(queue.loads.drain(..count));
        if !queue.loads.is_empty() {
            self.wake.notify_one();
        }
        !queue.is_stopping
    }

    /// Waits, until a nudge at most; true when it is time to stop.
    fn rest(&self, time: Duration) -> bool {
        self.wait_for(&self.end_rest, time)
    }

    /// Waits until values have gone, or for so long; true when it is time to stop.
    fn wait_until_gone(&self, time: Duration) -> bool {
        self.wait_for(&self.has_gone, time)
    }

    fn wait_for(&self, told: &Condvar, time: Duration) -> bool {
        let mut is_stopping = self.resting.lock();
        if !*is_stopping {
            told.wait_for(&mut is_stopping, time);
        }
        *is_stopping
    }
}

/// Starts the threads of a node that has a disk.
///
/// # Errors
/// When the system gives no thread.
pub(crate) fn start(node: &Arc<Node>) -> io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    if !node.cold.is_possible {
        return Ok(threads);
    }
    let builder = |name: &str| std::thread::Builder::new().name(name.to_owned());
    for _ in 0..LOADERS {
        let node = Arc::clone(node);
        threads.push(builder("load").spawn(move || node.load_values())?);
    }
    let node = Arc::clone(node);
    threads.push(builder("memory").spawn(move || node.free_memory())?);
    Ok(threads)
}

impl Node {
    /// Reads values until the node stops.
    fn load_values(&self) {
        let mut work = Work::begin();
        let mut loads = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        while self.cold.take(&mut loads) {
            work.restart();
            for (load, since) in loads.drain(..) {
                if LOADS_PER_LOOK <= count || BYTES_PER_LOOK <= bytes {
                    (count, bytes) = (0, 0);
                    self.answer(&mut work);
                    self.wait_for_room();
                    work.restart();
                }
                let records = self.read_stored(load);
                count += 1;
                bytes += records.as_ref().map_or(0, Vec::len);
                let waited = clock::steady().0.saturating_sub(since.0);
                self.telemetry.load_seconds.record(waited.as_secs_f64());
                let Load { shard, hash, number } = load;
                let loaded = Loaded { hash, number, records: records.as_deref() };
                self.input(shard, Input::Loaded(loaded), &mut work);
            }
            self.answer(&mut work);
        }
    }

    /// Sends what the loads have brought about.
    fn answer(&self, work: &mut Work) {
        self.send_off(work);
        if work.has_appended() {
            // Loads must not wait for the disk of the log.
            work.appended_to = LogIndex::default();
            self.log.request_flush();
        }
    }

    /// What is loaded must not outrun what goes: at the limit it waits for the thread that frees
    /// memory, which may get no processor for long, as long as that can free any.
    fn wait_for_room(&self) {
        let began = clock::steady();
        loop {
            self.memory.sample();
            if self.memory.is_short() {
                self.cold.nudge();
            }
            let is_late = || ROOM_PATIENCE <= clock::steady().0.saturating_sub(began.0);
            if self.memory.has_room() || !self.can_free() || is_late() {
                return;
            }
            if self.cold.wait_until_gone(LOOK_EVERY) {
                return;
            }
        }
    }

    /// What the checkpoint has; nothing if it cannot be read.
    fn read_stored(&self, load: Load) -> Option<Vec<u8>> {
        let tally = &self.cold.tally;
        tally.loads.fetch_add(1, Ordering::Relaxed);
        let store = self.checkpoints.store()?;
        match store.get(load.shard, &load.hash.to_be_bytes()) {
            Ok(records) => records,
            Err(failure) => {
                let cause = std::error::Error::source(&failure).map(ToString::to_string);
                error!(node = %self.id, shard = %load.shard, error = %failure, cause, "a value cannot be read from the checkpoint");
                None
            }
        }
    }

    /// Takes values out of memory whenever it is short, until the node stops.
    fn free_memory(&self) {
        let mut pause = LOOK_EVERY;
        let mut was_stuck = false;
        while !self.cold.rest(pause) {
            pause = LOOK_EVERY;
            if self.memory.limit() == 0 {
                self.cold.is_stuck.store(false, Ordering::Relaxed);
                pause = REST;
                continue;
            }
            self.memory.sample();
            if !self.memory.is_short() {
                self.cold.is_stuck.store(false, Ordering::Relaxed);
                continue;
            }
            let evicted = self.evict();
            self.cold.has_gone.notify_all();
            if !self.memory.is_short() {
                continue;
            }
            pause = REST;
            if 0 < evicted {
                self.cold.is_stuck.store(false, Ordering::Relaxed);
                continue;
            }
            // What was written since the last checkpoint can go once the next one has it.
            let is_wanted = self.wants_room();
            if is_wanted {
                self.checkpoints.nudge();
            }
            let is_stuck = !self.checkpoints.is_under_way() && !is_wanted;
            self.cold.is_stuck.store(is_stuck, Ordering::Relaxed);
            if is_stuck != was_stuck {
                was_stuck = is_stuck;
                let (used, limit) = (self.memory.used(), self.memory.limit());
                if is_stuck {
                    warn!(node = %self.id, used, limit, "memory is short, and no value is left that could be on disk only");
                } else {
                    info!(node = %self.id, used, limit, "values wait for a checkpoint to be on disk only");
                }
            }
        }
    }

    /// Takes values out of memory until it is down, or nothing more goes; tells how many went.
    fn evict(&self) -> u64 {
        let mut evicted = 0;
        let mut steps = 0;
        // What was used since the last time goes at the second round.
        for _ in 0..2 {
            let mut unsaved_bytes = 0;
            for shard in self.shards() {
                let Some(replica) = self.replica(shard) else { continue };
                loop {
                    let step = replica.lock().shard.evict(STEP);
                    evicted += step.count as u64;
                    unsaved_bytes += step.unsaved_bytes as u64;
                    self.cold.tally.evicted.fetch_add(step.count as u64, Ordering::Relaxed);
                    steps += 1;
                    if steps % STEPS_PER_LOOK == 0 {
                        self.memory.sample();
                        self.cold.has_gone.notify_all();
                        if self.memory.is_down() || self.is_stopping() {
                            return evicted;
                        }
                    }
                    if step.is_round {
                        break;
                    }
                }
            }
            self.cold.unsaved_bytes.store(unsaved_bytes, Ordering::Relaxed);
        }
        self.memory.sample();
        evicted
    }

    /// Whether values can still go to the disk.
    fn can_free(&self) -> bool {
        let is_stuck = || self.cold.is_stuck.load(Ordering::Relaxed);
        self.cold.is_possible && (!is_stuck() || self.wants_room())
    }

    /// Whether writes that may grow the data are taken: also beyond the limit for a while, if
    /// values can still go to the disk.
    pub(super) fn has_memory(&self) -> bool {
        self.memory.has_room() || self.can_free() && !self.memory.is_exhausted()
    }

    /// For how long a client that has just written should wait, so that values can go to the disk
    /// as fast as new ones come.
    pub(crate) fn pause_for_memory(&self) -> Option<Duration> {
        self.memory.pause().filter(|_| self.can_free())
    }

    /// Whether the next checkpoint would free enough memory: as much was written since the last one
    /// began, or is in memory of keys that have changed since, such as values that were read back
    /// after their time to live had changed.
    pub(crate) fn wants_room(&self) -> bool {
        let least = self.memory.limit() / 16;
        let unsaved_bytes = self.cold.unsaved_bytes.load(Ordering::Relaxed);
        self.cold.is_possible
            && self.memory.is_short()
            && least <= unsaved_bytes.max(self.checkpoints.grown(self))
    }
}
