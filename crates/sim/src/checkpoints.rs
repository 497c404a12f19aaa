//! Takes checkpoints of nodes while they work, and cuts their logs.
//!
//! A node collects a few steps of some replicas, waits until its log is synced as far as they
//! contain it, writes them as one batch, and cuts its log where nobody needs it any more when the
//! batch is durable. Steps, batches and segments are small, so that nodes crash in between.
//!
//! Ensures: what a node recovers from a checkpoint and the rest of its log is what the whole log
//! says.
//! Limits: which records were cut off is remembered, so that the whole log can be judged.

use antecede_model::ids::{LogIndex, ShardId};
use antecede_protocol::{
    chain::Shard,
    checkpointed::{CheckpointMeta, StepLimits, ValueLostError},
    mutation::Mutation,
};
use antecede_storage::checkpoint::{CheckpointBatch, CheckpointStore};

use crate::{
    check::Failure,
    moment::MILLI,
    node::Node,
    world::{Happening, Place, World},
};

/// Little, so that a checkpoint of few keys has several steps.
const LIMITS: StepLimits = StepLimits { looks: 4, bytes: 150 };
/// Steps in one batch, at most.
const STEPS_MAX: u64 = 12;

/// A batch on its way to the disk.
#[derive(Debug)]
pub struct Batch {
    /// What is written.
    changes: CheckpointBatch,
    /// How far the log must be synced first.
    log_to: LogIndex,
    /// Whether it is being written.
    is_begun: bool,
}

impl Node {
    /// Collects what the replicas have to write, from one of them on.
    ///
    /// # Errors
    /// What is missing.
    fn collect(&mut self, first: usize, steps: u64) -> Result<Option<Batch>, String> {
        let mut changes = CheckpointBatch::new();
        let (mut place, mut left) = (first, self.shards.len());
        for _ in 0..steps {
            let shard = ShardId(u16::try_from(place).expect("few shards"));
            let step = self.shards[place].as_mut().and_then(|it| it.take_checkpoint(LIMITS));
            let is_last = step.as_ref().is_none_or(|step| step.is_last);
            if let Some(mut step) = step {
                let stored = |hash: u64| {
                    let found = self.checkpoints.get(shard, &hash.to_be_bytes());
                    Ok::<_, ValueLostError>(found.expect("simulated disks do not fail here"))
                };
                step.complete(stored).map_err(|error| error.to_string())?;
                if step.is_reset {
                    changes.reset(shard);
                }
                for (hash, records) in step.changes {
                    let key = hash.to_be_bytes().to_vec();
                    match records {
                        Some(records) => changes.put(shard, key, records),
                        None => changes.remove(shard, key),
                    }
                }
                if let Some(meta) = step.meta {
                    let mut bytes = Vec::new();
                    meta.write(&mut bytes);
                    changes.set_meta(shard, bytes);
                }
            }
            if is_last {
                left -= 1;
                place = (place + 1) % self.shards.len();
            }
            if left == 0 {
                break;
            }
        }
        let log_to = LogIndex(self.log.appended_to());
        Ok((!changes.is_empty()).then_some(Batch { changes, log_to, is_begun: false }))
    }

    /// Cuts the log where no replica needs it.
    fn cut_log(&mut self) {
        let needed = self.shards.iter().flatten().filter_map(Shard::needs_log_from).min();
        let end = self.log.appended_to();
        self.log.cut_to(needed.map_or(end, |from| from.0 - 1));
    }

    /// Gives a replica what its checkpoint says.
    ///
    /// # Errors
    /// What is wrong with the checkpoint.
    pub(crate) fn load(&self, shard: ShardId, replica: &mut Shard) -> Result<bool, String> {
        let Some(meta) = self.checkpoints.meta(shard).map_err(|error| error.to_string())? else {
            return Ok(false);
        };
        let meta = CheckpointMeta::read(&meta).map_err(|error| error.to_string())?;
        replica.recover_checkpoint(meta);
        let mut damage = None;
        let takes_all = !self.forgets();
        let scanned = self.checkpoints.scan(shard, None, &mut |hash, records| {
            let hash = hash.try_into().map_or(0, u64::from_be_bytes);
            if let Err(error) = replica.recover_records(hash, records, takes_all || hash & 2 == 0) {
                damage = Some(error.to_string());
            }
            std::ops::ControlFlow::Continue(())
        });
        scanned.map_err(|error| error.to_string())?;
        damage.map_or(Ok(true), Err)
    }
}

impl World {
    /// Lets a node go on with its checkpoints; the first time it only begins to.
    pub(crate) fn checkpoint_later(&mut self, number: usize) {
        let every = self.plan.shape.checkpoint_every;
        if 0 < every {
            let at = self.now.after(self.checkpoint_chance.spread(every) + 1_000);
            self.queue.add(at, Happening::Checkpoint(self.present(number)));
        }
    }

    /// A node goes on with its checkpoint, or begins one.
    pub(crate) fn checkpoint(&mut self, place: Place) {
        if !self.is_present(place) {
            return;
        }
        self.go_on_with_checkpoint(place.node);
        self.checkpoint_later(place.node);
    }

    fn go_on_with_checkpoint(&mut self, number: usize) {
        let mutations = self.plan.mutations;
        let node = &mut self.nodes[number];
        let Some(batch) = &mut node.batch else {
            let first = self.checkpoint_chance.below(node.shards.len() as u64);
            let first = usize::try_from(first).expect("few shards");
            let steps = self.checkpoint_chance.between(1, STEPS_MAX);
            match node.collect(first, steps) {
                Ok(batch) => node.batch = batch,
                Err(what) => {
                    let what = format!("{} cannot take a checkpoint: {what}", node.id);
                    self.fail(Failure::new("durable", what));
                }
            }
            return;
        };
        if !batch.is_begun {
            let is_synced = batch.log_to <= node.log.persisted().synced_to;
            if is_synced || mutations.has(Mutation::CheckpointAheadOfLog) {
                batch.is_begun = true;
                node.checkpoints.begin(batch.changes.clone());
                if mutations.has(Mutation::CutLogBeforeCheckpoint) {
                    node.shards.iter_mut().flatten().for_each(Shard::checkpoint_is_durable);
                    node.cut_log();
                }
            }
            return;
        }
        node.batch = None;
        if let Err(error) = node.checkpoints.finish() {
            let what = format!("{} cannot write its checkpoint: {error}", node.id);
            return self.fail(Failure::new("durable", what));
        }
        node.shards.iter_mut().flatten().for_each(Shard::checkpoint_is_durable);
        node.cut_log();
        self.tally.checkpoints += 1;
        let line = format_args!("{} has a checkpoint", self.nodes[number].id);
        self.trace.line(self.now, line);
    }

    /// Compares what a node has recovered with what its whole log says.
    pub(crate) fn compare_recovered(&mut self, number: usize, whole: &[Option<Shard>]) {
        if let Some(what) = self.difference(number, whole) {
            self.fail(Failure::new("durable", what));
        }
    }

    fn difference(&self, number: usize, whole: &[Option<Shard>]) -> Option<String> {
        let node = &self.nodes[number];
        self.keys.all().find_map(|(_, key)| {
            let place = usize::from(key.shard.0);
            let found = node.shards.get(place)?.as_ref()?;
            let wanted = whole.get(place)?.as_ref()?;
            let found = node.newest(key.shard, found, &key.name);
            let wanted = node.newest(key.shard, wanted, &key.name);
            let (id, name) = (node.id, &key.name);
            let what = || format!("{id} has {found:?} for {name}, its whole log says {wanted:?}");
            (found != wanted).then(what)
        })
    }
}

/// Often, so that a run has many.
pub const EVERY: [u64; 4] = [10 * MILLI, 40 * MILLI, 150 * MILLI, 600 * MILLI];
