//! Says which datacenters, nodes and chains there are: a value with an epoch.
//!
//! The first one is made from the settings of a deployment; those that follow it are decided by a
//! manager and agreed on. Everything that acts on it names the epoch.
//!
//! Invariant: every datacenter has one chain for each shard, of distinct nodes of its own; shard
//! numbers and their slots are the same everywhere, chains are not.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ids::{Boot, DatacenterId, DeploymentId, Epoch, Lineage, MembershipEpoch, NodeId, ShardId},
    key::ShardCount,
};

/// The replicas of a shard in one datacenter.
///
/// Invariant: no node stands in it twice; while nobody serves, somebody was the last to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The datacenter's epoch in which those that serve, or their runs, changed last. It is what
    /// the replicas tell each other: a change of one chain does not disturb the others.
    pub epoch: Epoch,
    /// Those that take writes, commit and answer, head first.
    pub serving: Vec<NodeId>,
    /// Those that do not count, and why.
    pub waiting: BTreeMap<NodeId, Waiting>,
}

/// Why a replica does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// It copies what it lacks, behind the tail.
    Syncing,
    /// It served when the chain went dark: what it holds is not older than what was shown, so that
    /// the chain may begin again from it.
    LastServing,
    /// It is gone; what it holds may be old.
    Offline,
}

impl Chain {
    /// A chain of which every replica serves, head first.
    #[must_use]
    pub const fn of(serving: Vec<NodeId>) -> Self {
        Self { epoch: Epoch(1), serving, waiting: BTreeMap::new() }
    }

    /// All replicas, also those that do not count.
    pub fn members(&self) -> impl Iterator<Item = NodeId> {
        self.serving.iter().chain(self.waiting.keys()).copied()
    }

    /// The replicas that wait for one reason, in the order of nodes.
    pub fn waiting_as(&self, why: Waiting) -> impl Iterator<Item = NodeId> {
        let is_it = move |(_, waiting): &(&NodeId, &Waiting)| **waiting == why;
        self.waiting.iter().filter(is_it).map(|(node, _)| *node)
    }
}

impl FromIterator<NodeId> for Chain {
    fn from_iter<T: IntoIterator<Item = NodeId>>(serving: T) -> Self {
        Self::of(serving.into_iter().collect())
    }
}

/// One datacenter's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datacenter {
    /// What people call it.
    pub name: String,
    /// Numbers the states of this part; grows by one with each.
    pub epoch: Epoch,
    /// Its nodes, sorted.
    pub nodes: Vec<NodeId>,
    /// Those of them that are known to be gone, for as long as they are.
    pub absent: BTreeSet<NodeId>,
    /// The runs of nodes that the rights of this epoch belong to, where they are known.
    pub boots: BTreeMap<NodeId, Boot>,
    /// The chain of each shard, by shard number.
    pub chains: Vec<Chain>,
}

impl Datacenter {
    /// A datacenter in its first epoch, of whose nodes nothing is known.
    #[must_use]
    pub const fn of(name: String, nodes: Vec<NodeId>, chains: Vec<Chain>) -> Self {
        let absent = BTreeSet::new();
        let boots = BTreeMap::new();
        Self { name, epoch: Epoch(1), nodes, absent, boots, chains }
    }

    /// Its nodes without those that are known to be gone, sorted.
    pub fn present(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied().filter(|node| !self.absent.contains(node))
    }
}

/// All datacenters, nodes and chains of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Which deployment.
    pub deployment: DeploymentId,
    /// Numbers the set of datacenters.
    pub membership: MembershipEpoch,
    /// How many shards the key space has.
    pub shard_count: ShardCount,
    /// The datacenters.
    pub datacenters: BTreeMap<DatacenterId, Datacenter>,
}

/// What a static configuration is made of.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Which deployment.
    pub deployment: DeploymentId,
    /// How many shards.
    pub shard_count: ShardCount,
    /// How many replicas a chain has; fewer where a datacenter has fewer nodes.
    pub chain_length: u16,
    /// The datacenters with their names and numbers of nodes.
    pub datacenters: Vec<(DatacenterId, String, u16)>,
}

impl Configuration {
    /// The first configuration of a deployment: shards are spread over the nodes of each
    /// datacenter by rendezvous hashing, so that nodes hold about equally many, also as heads.
    #[must_use]
    pub fn of(layout: &Layout) -> Self {
        let mut datacenters = BTreeMap::new();
        for (id, name, node_count) in &layout.datacenters {
            let nodes: Vec<NodeId> =
                (1..=*node_count).map(|number| NodeId { datacenter: *id, number }).collect();
            let chains = layout
                .shard_count
                .shards()
                .map(|shard| place(shard, &nodes, usize::from(layout.chain_length)))
                .collect();
            datacenters.insert(*id, Datacenter::of(name.clone(), nodes, chains));
        }
        Self {
            deployment: layout.deployment,
            membership: MembershipEpoch(1),
            shard_count: layout.shard_count,
            datacenters,
        }
    }

    /// One datacenter's part, if it is a member.
    #[must_use]
    pub fn datacenter(&self, id: DatacenterId) -> Option<&Datacenter> {
        self.datacenters.get(&id)
    }

    /// The replicas of a shard that serve in a datacenter, head first; empty if it is no member.
    #[must_use]
    pub fn chain(&self, datacenter: DatacenterId, shard: ShardId) -> &[NodeId] {
        self.chain_of(datacenter, shard).map_or(&[], |chain| chain.serving.as_slice())
    }

    /// The replica of a shard that takes writes in a datacenter.
    #[must_use]
    pub fn head(&self, datacenter: DatacenterId, shard: ShardId) -> Option<NodeId> {
        self.chain(datacenter, shard).first().copied()
    }

    /// The replica of a shard that commits in a datacenter.
    #[must_use]
    pub fn tail(&self, datacenter: DatacenterId, shard: ShardId) -> Option<NodeId> {
        self.chain(datacenter, shard).last().copied()
    }

    /// One datacenter's chain of a shard.
    #[must_use]
    pub fn chain_of(&self, datacenter: DatacenterId, shard: ShardId) -> Option<&Chain> {
        self.datacenters.get(&datacenter)?.chains.get(usize::from(shard.0))
    }

    /// The epoch that messages about a shard carry in a datacenter.
    #[must_use]
    pub fn chain_epoch(&self, datacenter: DatacenterId, shard: ShardId) -> Epoch {
        self.chain_of(datacenter, shard).map_or(Epoch(0), |chain| chain.epoch)
    }

    /// The epoch of a datacenter's part.
    #[must_use]
    pub fn epoch(&self, datacenter: DatacenterId) -> Epoch {
        self.datacenters.get(&datacenter).map_or(Epoch(0), |found| found.epoch)
    }

    /// The lineage of an origin's line of stamps in a shard: 1 until one is lost.
    #[must_use]
    pub const fn lineage(&self, _origin: DatacenterId, _shard: ShardId) -> Lineage {
        Lineage(1)
    }

    /// The other datacenters.
    pub fn peers(&self, here: DatacenterId) -> impl Iterator<Item = DatacenterId> {
        self.datacenters.keys().copied().filter(move |id| *id != here)
    }

    /// The shards that a node holds a replica of, whether or not it serves.
    pub fn shards_of(&self, node: NodeId) -> impl Iterator<Item = ShardId> {
        let is_member =
            move |chain: &Chain| chain.members().any(|member| member == node);
        self.shard_count
            .shards()
            .filter(move |shard| self.chain_of(node.datacenter, *shard).is_some_and(is_member))
    }
}

/// The nodes with the largest hashes for a shard, the largest first.
fn place(shard: ShardId, nodes: &[NodeId], chain_length: usize) -> Chain {
    let mut ranked: Vec<(u64, NodeId)> = nodes
        .iter()
        .map(|node| {
            let mut bytes = [0_u8; 6];
            bytes[..2].copy_from_slice(&shard.0.to_be_bytes());
            bytes[2..].copy_from_slice(&node.to_bits().to_be_bytes());
            (xxhash_rust::xxh3::xxh3_64(&bytes), *node)
        })
        .collect();
    ranked.sort_unstable_by(|left, right| right.cmp(left));
    ranked.truncate(chain_length.max(1));
    ranked.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_of_three() -> Configuration {
        Configuration::of(&Layout {
            deployment: DeploymentId::default(),
            shard_count: ShardCount::new(256).unwrap(),
            chain_length: 3,
            datacenters: (1..=3).map(|id| (DatacenterId(id), format!("dc{id}"), 3)).collect(),
        })
    }

    #[test]
    fn every_chain_has_distinct_nodes_of_its_own_datacenter() {
        let configuration = three_of_three();
        for id in configuration.datacenters.keys() {
            for shard in configuration.shard_count.shards() {
                let chain = configuration.chain(*id, shard);
                let distinct: BTreeSet<_> = chain.iter().collect();
                assert_eq!((chain.len(), distinct.len()), (3, 3));
                assert!(chain.iter().all(|node| node.datacenter == *id));
            }
        }
    }

    #[test]
    fn heads_are_spread_over_all_nodes() {
        let configuration = three_of_three();
        for number in 1..=3 {
            let node = NodeId { datacenter: DatacenterId(1), number };
            let heads = configuration
                .shard_count
                .shards()
                .filter(|shard| configuration.head(DatacenterId(1), *shard) == Some(node))
                .count();
            assert!((60..=110).contains(&heads), "node {node} is the head of {heads} of 256");
        }
    }
}
