//! Writes batches on a thread of its own, so that nobody who serves clients waits for them.
//!
//! A batch is handed over as a whole and numbered; handing over takes a short lock and never
//! waits. Batches are written one after the other. While the disk is full the oldest one is tried
//! again and again; any other failure ends the thread.
//!
//! Ensures: the callback learns of each number in order, once, and only after that batch and all
//! before it are durable.
//!
//! Bounded by `WriterOptions::queued_bytes_max`; beyond it a batch is given back.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::CheckpointStore;
use super::batch::CheckpointBatch;
use super::error::CheckpointError;

/// The settings of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// Bytes of batches that may wait, the one that is being written included. A single batch may
    /// be larger; then nothing else waits beside it.
    pub queued_bytes_max: usize,
    /// How long to wait before a full disk is tried again.
    pub retry_interval: Duration,
}

/// What the callback is told.
#[derive(Clone, Debug)]
pub enum CheckpointNotice {
    /// The batch of this number is durable, and so are all before it.
    Written(u64),
    /// The disk has no room; the batch is tried again until there is.
    DiskFull(CheckpointError),
    /// There is room again.
    Healed,
    /// Nothing more is written; unless only a shard is damaged, the process must end.
    Failed(CheckpointError),
}

/// Too much waits to be written. Keep the batch, and hand it over again after the next
/// [`CheckpointNotice::Written`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("checkpoints hold {held} bytes that are not written yet, the limit is {limit}")]
pub struct QueueFull {
    /// What was not taken.
    pub batch: CheckpointBatch,
    /// Bytes that wait.
    pub held: usize,
    /// `queued_bytes_max`.
    pub limit: usize,
}

/// Writes batches in the background. Dropping it ends the thread after the batch that is being
/// written; what else waits is not written.
pub struct CheckpointWriter {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for CheckpointWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointWriter").field("queue", &self.core.queue).finish_non_exhaustive()
    }
}

struct Core {
    options: WriterOptions,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Arc<CheckpointBatch>>,
    bytes: usize,
    submitted_count: u64,
    written_count: u64,
    stop: bool,
}

impl CheckpointWriter {
    /// Starts the thread; `notify` is called from it. Fails if it cannot be started.
    pub fn start(
        store: Arc<dyn CheckpointStore>,
        options: WriterOptions,
        notify: impl Fn(CheckpointNotice) + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, wake) = (Mutex::default(), Condvar::new());
        let core = Arc::new(Core { options, queue, wake });
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn({
            let core = Arc::clone(&core);
            move || core.run(&*store, &notify)
        })?;
        Ok(Self { core, thread: Some(thread) })
    }

    /// Hands a batch over, and tells its number: 1, 2, 3, ...
    pub fn submit(&self, batch: CheckpointBatch) -> Result<u64, Box<QueueFull>> {
        let mut queue = self.core.queue.lock();
        let limit = self.core.options.queued_bytes_max;
        let held = queue.bytes;
        if !queue.batches.is_empty() && limit < held + batch.bytes() {
            return Err(Box::new(QueueFull { batch, held, limit }));
        }
        queue.bytes += batch.bytes();
        queue.batches.push_back(Arc::new(batch));
        queue.submitted_count += 1;
        let number = queue.submitted_count;
        drop(queue);
        self.core.wake.notify_one();
        Ok(number)
    }

    /// Bytes of batches that wait or are being written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.core.queue.lock().bytes
    }

    fn end_thread(&mut self) {
        self.core.queue.lock().stop = true;
        self.core.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there is a bug that was reported when it happened.
            drop(thread.join());
        }
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        self.end_thread();
    }
}

impl Core {
    fn run(&self, store: &dyn CheckpointStore, notify: &dyn Fn(CheckpointNotice)) {
        let mut was_full = false;
        while let Some(batch) = self.next_batch() {
            match store.write(&batch) {
                Ok(()) => {
                    if std::mem::take(&mut was_full) {
                        notify(CheckpointNotice::Healed);
                    }
                    notify(CheckpointNotice::Written(self.finish(&batch)));
                }
                Err(error @ CheckpointError::DiskFull { .. }) => {
                    if !std::mem::replace(&mut was_full, true) {
                        notify(CheckpointNotice::DiskFull(error));
                    }
                    self.pause();
                }
                Err(error) => {
                    notify(CheckpointNotice::Failed(error));
                    return;
                }
            }
        }
    }

    /// The oldest batch, once there is one; `None` when it is time to stop.
    fn next_batch(&self) -> Option<Arc<CheckpointBatch>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stop {
                return None;
            }
            if let Some(batch) = queue.batches.front() {
                return Some(Arc::clone(batch));
            }
            self.wake.wait(&mut queue);
        }
    }

    fn finish(&self, batch: &CheckpointBatch) -> u64 {
        let mut queue = self.queue.lock();
        queue.batches.pop_front();
        queue.bytes -= batch.bytes();
        queue.written_count += 1;
        queue.written_count
    }

    /// Waits before a full disk is tried again.
    fn pause(&self) {
        let mut queue = self.queue.lock();
        if !queue.stop {
            self.wake.wait_for(&mut queue, self.options.retry_interval);
        }
    }
}
