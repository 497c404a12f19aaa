//! Replicas of one shard in one datacenter: order, commit, reads, restarts.

use std::{sync::Arc, time::Duration};

use antecede_model::{
    clock::Timestamp,
    configuration::Configuration,
    cut::Cut,
    ids::{Boot, DatacenterId, NodeId, Position, ShardId},
};

use crate::{
    entry::Entry,
    machine::{Here, Outputs, Persisted, Storage},
    message::{LocalRequest, ShardMessage},
    mutation::Mutations,
};

/// What a replica is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// A message from another node, already decoded and checked.
    Message {
        /// The sender.
        from: NodeId,
        /// Its run.
        boot: Boot,
        /// What it says.
        message: ShardMessage,
    },
    /// A request of a session on this node.
    Request(LocalRequest<'a>),
    /// The node's log has come this far.
    Persisted(Persisted),
    /// The cuts have moved, or the time for ticks has come.
    Cuts(&'a Cuts),
    /// A new configuration (a scripted one, until there is a manager).
    Configuration(Arc<Configuration>),
    /// The time that the replica asked to be woken at has come.
    Wake,
}

/// The cuts as a node knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Applied in every datacenter.
    pub stable: Cut,
    /// Applied in this datacenter.
    pub applied: Cut,
    /// Whether ticks are wanted.
    pub wants_ticks: bool,
    /// At least every logical time that the tails had when they reported what went into `stable`.
    pub hlc: Timestamp,
}

/// Limits and settings of a replica.
#[derive(Clone, Copy, Debug)]
pub struct ShardOptions {
    /// How far a peer's clock may be ahead.
    pub max_clock_drift: Duration,
    /// The deployment's secret for the order of scans.
    pub hash_secret: u64,
    /// A deliberate bug, for the simulator's tests only.
    pub mutations: Mutations,
}

/// What the keeper of cuts needs from a tail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Per origin, how far its line is applied and persisted here.
    pub applied: Vec<(DatacenterId, Timestamp)>,
    /// Whether it holds something that is not stable yet, or waits for ticks.
    pub wants_ticks: bool,
    /// The tail's logical time.
    pub hlc: Timestamp,
}

/// One replica of one shard.
#[derive(Debug)]
pub struct Shard {
    shard: ShardId,
    configuration: Arc<Configuration>,
    options: ShardOptions,
}

impl Shard {
    /// A replica with an empty log. Feed it the log with [`Shard::recover`], then
    /// [`Shard::start`] it.
    #[must_use]
    pub fn new(shard: ShardId, configuration: Arc<Configuration>, options: ShardOptions) -> Self {
        Self { shard, configuration, options }
    }

    /// Takes an entry back from the node's log; in the order of the log.
    pub fn recover(&mut self, committed_to: Position, entry: Entry) {
        drop((committed_to, entry));
    }

    /// Begins after recovery: settles with its neighbours.
    pub fn start(&mut self, here: &Here, out: &mut Outputs) {
        drop((here.node, &self.configuration, out.wake));
    }

    /// Handles one input.
    pub fn handle(
        &mut self,
        here: &Here,
        input: Input<'_>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        drop((here.node, input, storage.room(), out.wake, self.shard, self.options.hash_secret));
    }

    /// What the keeper of cuts needs; `None` unless this replica is the tail.
    #[must_use]
    pub fn watermarks(&self) -> Option<Watermarks> {
        None
    }
}
