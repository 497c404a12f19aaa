//! Gathers what is applied: by the node's tails, by the datacenter, by all datacenters.
//!
//! One keeper per node. Every [`CUTS_EVERY`] the shell gives it the watermarks of the tails on its
//! node; it tells the other nodes of its datacenter, and the nodes of other datacenters what its
//! datacenter as a whole has applied. All of it is volatile.

use std::{sync::Arc, time::Duration};

use antecede_model::{
    configuration::Configuration,
    ids::{NodeId, ShardId},
};

use crate::{
    chain::{Cuts, Watermarks},
    machine::{Here, Outputs},
    message::CutReport,
};

/// How often the shell gives the keeper the watermarks of the node's tails.
pub const CUTS_EVERY: Duration = Duration::from_millis(250);

/// What a keeper of cuts is told.
#[derive(Debug)]
pub enum CutInput<'a> {
    /// Another node's report.
    Report {
        /// The sender.
        from: NodeId,
        /// What it says.
        report: CutReport,
    },
    /// The watermarks of all tails on this node, sorted by shard.
    Watermarks(&'a [(ShardId, Watermarks)]),
}

/// Keeps the cuts of one node.
#[derive(Debug)]
pub struct CutKeeper {
    configuration: Arc<Configuration>,
    cuts: Arc<Cuts>,
}

impl CutKeeper {
    /// A keeper that knows nothing yet.
    #[must_use]
    pub fn new(configuration: Arc<Configuration>) -> Self {
        Self { configuration, cuts: Arc::default() }
    }

    /// Handles one input.
    pub fn handle(&mut self, here: &Here, input: CutInput<'_>, out: &mut Outputs) {
        drop((here.node, &self.configuration, out.wake));
        drop(input);
    }

    /// What is known; after watermarks the shell tells every shard of the node.
    #[must_use]
    pub const fn cuts(&self) -> &Arc<Cuts> {
        &self.cuts
    }
}
