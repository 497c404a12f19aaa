//! Keeps checkpoints in memory, with the crashes and failures that a simulator asks for.
//!
//! A batch is begun and later finished; [`CheckpointStore::write`] does both at once. Reads see
//! finished batches only. A crash finds everything that was finished, and of what was begun the
//! first few batches, each as a whole, as a seed says.
//!
//! Nothing here depends on time or on the machine: the same calls and seeds give the same contents.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::Arc;

use antecede_model::ids::ShardId;
use parking_lot::Mutex;

use super::batch::{CheckpointBatch, ShardChanges};
use super::error::CheckpointError;
use super::layout::{ShardRow, Tally, decode_record, encode_record};
use super::{CheckpointStore, Visit};

/// Checkpoints in memory. Clones are the same checkpoints.
#[derive(Clone, Debug, Default)]
pub struct SimulatedCheckpoints {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    shards: BTreeMap<ShardId, Shard>,
    /// Batches that were begun and are not finished, the oldest first.
    begun: VecDeque<CheckpointBatch>,
    /// Bytes of all records together; past it the disk is full. `None`: no limit.
    capacity: Option<usize>,
    /// Batches that can still be finished until the disk fails; `None`: it does not.
    writes_until_failure: Option<u64>,
    failed: bool,
    written_count: u64,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    /// Laid out as on a disk, so that damage shows in the same way.
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    row: Vec<u8>,
}

impl Shard {
    fn row(&self, shard: ShardId) -> Result<ShardRow, CheckpointError> {
        if self.row.is_empty() {
            return Ok(ShardRow::default());
        }
        let corrupt = || CheckpointError::CorruptMeta { shard, path: path() };
        ShardRow::decode(shard, &self.row).ok_or_else(corrupt)
    }

    fn apply(&mut self, shard: ShardId, changes: &ShardChanges) -> Result<(), CheckpointError> {
        if changes.is_reset() {
            *self = Self::default();
        }
        let mut row = self.row(shard)?;
        for (key, value) in changes.sorted() {
            let replaced = match value {
                Some(value) => {
                    let mut record = Vec::new();
                    row.tally.add(encode_record(&mut record, shard, key, value));
                    self.records.insert(key.to_vec(), record)
                }
                None => self.records.remove(key),
            };
            if let Some(replaced) = replaced {
                let record = decode_record(shard, key, &replaced);
                row.tally.subtract(record.ok_or_else(|| corrupt_record(shard, key))?.crc);
            }
        }
        if let Some(meta) = changes.meta() {
            row.meta = Some(meta.to_vec());
        }
        self.row = if row == ShardRow::default() { Vec::new() } else { row.encode(shard) };
        Ok(())
    }

    fn bytes(&self) -> usize {
        let records: usize =
            self.records.iter().map(|(key, record)| key.len() + record.len()).sum();
        records + self.row.len()
    }
}

fn path() -> PathBuf {
    PathBuf::from("/simulated/checkpoint")
}

fn corrupt_record(shard: ShardId, key: &[u8]) -> CheckpointError {
    CheckpointError::CorruptRecord { shard, key: key.to_vec(), path: path() }
}

impl State {
    fn check(&self) -> Result<(), CheckpointError> {
        if self.failed {
            let source = Arc::new(io::Error::other("the device failed"));
            return Err(CheckpointError::Failed { path: path(), source });
        }
        Ok(())
    }

    /// Applies a batch to a copy of the shards that it changes, then to all at once.
    fn apply(&mut self, batch: &CheckpointBatch) -> Result<(), CheckpointError> {
        let mut changed = BTreeMap::new();
        for (number, changes) in batch.shards() {
            let mut shard = self.shards.get(&number).cloned().unwrap_or_default();
            shard.apply(number, changes)?;
            changed.insert(number, shard);
        }
        if let Some(capacity) = self.capacity {
            let kept = self.shards.iter().filter(|(number, _)| !changed.contains_key(number));
            let before: usize = self.shards.values().map(Shard::bytes).sum();
            let after: usize =
                kept.map(|(_, shard)| shard).chain(changed.values()).map(Shard::bytes).sum();
            if before < after && capacity < after {
                return Err(CheckpointError::DiskFull { path: path() });
            }
        }
        self.shards.append(&mut changed);
        self.shards.retain(|_, shard| !shard.row.is_empty());
        self.written_count += 1;
        Ok(())
    }

    fn fault(&mut self) -> Result<(), CheckpointError> {
        match &mut self.writes_until_failure {
            Some(0) => self.failed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.check()
    }

    fn shard(&self, shard: ShardId) -> Result<Option<&Shard>, CheckpointError> {
        self.check()?;
        Ok(self.shards.get(&shard))
    }
}

/// What the simulator does to checkpoints.
impl SimulatedCheckpoints {
    /// No checkpoints at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins to write a batch behind those that were begun before.
    pub fn begin(&self, batch: CheckpointBatch) {
        self.state.lock().begun.push_back(batch);
    }

    /// Makes the oldest batch that was begun durable and visible; `false` if there is none. After
    /// an error it stays begun.
    pub fn finish(&self) -> Result<bool, CheckpointError> {
        let mut state = self.state.lock();
        state.check()?;
        let Some(batch) = state.begun.front().cloned() else {
            return Ok(false);
        };
        state.fault()?;
        state.apply(&batch)?;
        state.begun.pop_front();
        Ok(true)
    }

    /// What is found after a crash at this moment; these checkpoints are left as they are.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut after = self.state.lock().clone();
        let begun = std::mem::take(&mut after.begun);
        let choices = u64::try_from(begun.len()).expect("a length fits u64") + 1;
        let kept = usize::try_from(seed % choices).expect("less than a length");
        after.writes_until_failure = None;
        after.failed = false;
        for batch in begun.iter().take(kept) {
            // One for which there was no room is not there, nor is anything behind it.
            if after.apply(batch).is_err() {
                break;
            }
        }
        Self { state: Arc::new(Mutex::new(after)) }
    }

    /// Lets the disk fail, for ever, after so many more batches that are written.
    pub fn fail_writes_after(&self, writes: u64) {
        self.state.lock().writes_until_failure = Some(writes);
    }

    /// Limits the bytes of all records together.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state.lock().capacity = bytes;
    }

    /// Changes one bit of a record; `false` if there is no such record.
    pub fn flip_bit(&self, shard: ShardId, key: &[u8], bit: usize) -> bool {
        let mut state = self.state.lock();
        let record = state.shards.get_mut(&shard).and_then(|shard| shard.records.get_mut(key));
        let Some(record) = record else {
            return false;
        };
        let bit = bit % (record.len() * 8);
        if let Some(byte) = record.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        true
    }

    /// Changes one bit of what is said of a shard as a whole; `false` if there is no such shard.
    pub fn flip_meta_bit(&self, shard: ShardId, bit: usize) -> bool {
        let mut state = self.state.lock();
        let row = state.shards.get_mut(&shard).map(|shard| &mut shard.row);
        let Some(row) = row.filter(|row| !row.is_empty()) else {
            return false;
        };
        let bit = bit % (row.len() * 8);
        if let Some(byte) = row.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        true
    }

    /// Loses a record, as damage in a page of keys does; `false` if there is no such record.
    pub fn lose(&self, shard: ShardId, key: &[u8]) -> bool {
        let mut state = self.state.lock();
        let shard = state.shards.get_mut(&shard);
        shard.is_some_and(|shard| shard.records.remove(key).is_some())
    }

    /// Batches that were written so far.
    #[must_use]
    pub fn written_count(&self) -> u64 {
        self.state.lock().written_count
    }
}

impl CheckpointStore for SimulatedCheckpoints {
    fn write(&self, batch: &CheckpointBatch) -> Result<(), CheckpointError> {
        let mut state = self.state.lock();
        assert!(state.begun.is_empty(), "a batch that was begun is finished before the next");
        state.check()?;
        state.fault()?;
        state.apply(batch)
    }

    fn shards(&self) -> Result<Vec<ShardId>, CheckpointError> {
        let state = self.state.lock();
        state.check()?;
        Ok(state.shards.keys().copied().collect())
    }

    fn meta(&self, shard: ShardId) -> Result<Option<Vec<u8>>, CheckpointError> {
        let state = self.state.lock();
        let Some(found) = state.shard(shard)? else {
            return Ok(None);
        };
        Ok(found.row(shard)?.meta)
    }

    fn get(&self, shard: ShardId, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        let state = self.state.lock();
        let Some(record) = state.shard(shard)?.and_then(|found| found.records.get(key)) else {
            return Ok(None);
        };
        match decode_record(shard, key, record) {
            Some(record) => Ok(Some(record.value.to_vec())),
            None => Err(corrupt_record(shard, key)),
        }
    }

    fn scan(
        &self,
        shard: ShardId,
        after: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), CheckpointError> {
        // A copy: `visit` may ask for something else meanwhile.
        let Some(of_shard) = self.state.lock().shard(shard)?.cloned() else {
            return Ok(());
        };
        let expected = of_shard.row(shard)?.tally;
        let mut found = Tally::default();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, record) in of_shard.records.range::<[u8], _>((from, Bound::Unbounded)) {
            let record = decode_record(shard, key, record);
            let record = record.ok_or_else(|| corrupt_record(shard, key))?;
            found.add(record.crc);
            if let ControlFlow::Break(()) = visit(key, record.value) {
                return Ok(());
            }
        }
        if after.is_none() && found != expected {
            let (found, expected) = (found.count, expected.count);
            return Err(CheckpointError::CorruptShard { shard, found, expected, path: path() });
        }
        Ok(())
    }

    fn count(&self, shard: ShardId) -> Result<u64, CheckpointError> {
        let state = self.state.lock();
        let Some(found) = state.shard(shard)? else {
            return Ok(0);
        };
        Ok(found.row(shard)?.tally.count)
    }
}
