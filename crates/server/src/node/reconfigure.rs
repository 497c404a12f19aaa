//! Exchanges the configuration of a node that runs, and measures facts under the one that holds.
//!
//! Ensures: all replicas and the keeper of cuts have been told of a configuration before a lease is
//! granted for it; facts are measured under one epoch.

use std::sync::Arc;

use antecede_model::{
    configuration::{Configuration, Datacenter},
    ids::{DatacenterId, NodeId, ShardId},
};
use antecede_protocol::{
    chain::{Input, Shard},
    manager::UNREACHED_AFTER,
};
use tracing::info;

use super::{Node, Work};
use crate::clock;
use crate::control::facts::NodeFacts;

impl Node {
    /// Takes over a datacenter's part if it is newer and fits; tells whether it did.
    pub(crate) fn adopt(&self, of: DatacenterId, part: &Datacenter, work: &mut Work) -> bool {
        let exchanging = self.reconfiguring.lock();
        let mut next = Configuration::clone(&self.configuration());
        let before = next.datacenter(of).cloned();
        if !next.adopt(of, part) {
            return false;
        }
        self.expect_anew(before.as_ref(), part);
        let next = Arc::new(next);
        self.current.exchange(Arc::clone(&next));
        self.keeper.lock().configure(Arc::clone(&next), self.id.datacenter);
        for shard in self.shards() {
            let Some(replica) = self.replica(shard) else { continue };
            let mut replica = replica.lock();
            replica.serves = next.chain(self.id.datacenter, shard).contains(&self.id);
            let input = Input::Configuration(Arc::clone(&next));
            self.handle(shard, &mut replica, input, work);
            self.follow_log(shard, &mut replica, work);
        }
        drop(exchanging);
        self.sessions.poke();
        info!(node = %self.id, datacenter = %of, epoch = %part.epoch, "a configuration is taken over");
        true
    }

    /// Nodes that are back get their time to be connected again.
    fn expect_anew(&self, before: Option<&Datacenter>, part: &Datacenter) {
        let known = |of: &Datacenter, node: NodeId| {
            (of.boots.get(&node).copied(), of.absent.contains(&node))
        };
        for link in self.links.iter().filter(|link| part.nodes.contains(&link.node())) {
            let node = link.node();
            if before.is_none_or(|before| known(before, node) != known(part, node)) {
                link.expect_anew();
            }
        }
    }

    /// What a manager wants to know of this node's replicas.
    pub(crate) fn facts(&self) -> NodeFacts {
        let _exchanging = self.reconfiguring.lock();
        let configuration = self.configuration();
        let mut facts =
            NodeFacts::of(configuration.epoch(self.id.datacenter), self.has_begun_empty);
        facts.is_leaving = self.control.is_leaving();
        facts.is_short = self.log.is_short();
        let now = clock::steady();
        for link in self.links.iter() {
            let is_near = link.node().datacenter == self.id.datacenter;
            if is_near && link.is_unreached(now, UNREACHED_AFTER) {
                facts.add_unreached(link.node());
            }
        }
        for shard in self.shards() {
            let told = |of: fn(&Shard) -> Option<NodeId>| self.look(shard, of).flatten();
            let named = |node: NodeId| -> (ShardId, NodeId) { (shard, node) };
            facts.add_caught_up(told(Shard::caught_up).map(named));
            facts.add_misfit(told(Shard::misfit).map(named));
        }
        facts
    }
}
