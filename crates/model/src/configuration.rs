//! Says which datacenters, nodes and chains there are: a value with an epoch.
//!
//! The first one is made from the settings of a deployment; those that follow it are decided by a
//! manager and agreed on. Everything that acts on it names the epoch.
//!
//! Invariant: every datacenter has one chain for each shard, of distinct nodes of its own; shard
//! numbers and their slots are the same everywhere, chains are not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    codec::{DecodeError, Reader, Writer},
    ids::{Boot, DatacenterId, DeploymentId, Epoch, Lineage, NodeId, ShardId},
    key::ShardCount,
    membership::{Member, Membership, Standing},
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

    /// Whether nobody serves it, and nobody is known to hold what it held: all that did have lost
    /// their folders.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.serving.is_empty() && self.waiting_as(Waiting::LastServing).next().is_none()
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

/// The format in which this build writes a part; it is raised when a field is changed, and not when
/// one is added.
const FORMAT: u8 = 1;

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
    /// Those of them whose disks have no room for new writes.
    pub short: BTreeSet<NodeId>,
    /// Those of them that others of them cannot reach, though they live.
    pub apart: BTreeSet<NodeId>,
    /// The runs of nodes that the rights of this epoch belong to, where they are known.
    pub boots: BTreeMap<NodeId, Boot>,
    /// How many replicas a chain shall have, where there are nodes for them.
    pub replicas: u16,
    /// Those nodes that shall hold nothing: others take their replicas.
    pub drained: BTreeSet<NodeId>,
    /// Serving replicas that others have taken the place of: they step aside, then leave. With the
    /// epoch since which they do.
    pub retiring: BTreeMap<ShardId, (NodeId, Epoch)>,
    /// The chain of each shard, by shard number.
    pub chains: Vec<Chain>,
    /// The datacenters that its nodes act by; none until the deployment has agreed on them.
    pub membership: Option<Arc<Membership>>,
}

impl Datacenter {
    /// A datacenter in its first epoch, of whose nodes nothing is known. Its longest chain is as
    /// long as all shall be.
    #[must_use]
    pub fn of(name: String, nodes: Vec<NodeId>, chains: Vec<Chain>) -> Self {
        let longest = chains.iter().map(|chain| chain.members().count()).max();
        Self {
            name,
            epoch: Epoch(1),
            nodes,
            absent: BTreeSet::new(),
            short: BTreeSet::new(),
            apart: BTreeSet::new(),
            boots: BTreeMap::new(),
            replicas: u16::try_from(longest.unwrap_or_default()).unwrap_or(u16::MAX),
            drained: BTreeSet::new(),
            retiring: BTreeMap::new(),
            chains,
            membership: None,
        }
    }

    /// Writes the part, so that earlier and later builds can read it: fields are only ever added,
    /// at the end of their list, and one that an earlier build lacked has a value for that.
    pub fn write(&self, to: &mut Writer<'_>) {
        to.u8(FORMAT);
        to.fields(|to| self.write_fields(to));
    }

    fn write_fields(&self, to: &mut Writer<'_>) {
        to.bytes(self.name.as_bytes());
        to.number(self.epoch.0);
        write_nodes(self.nodes.iter(), to);
        write_nodes(self.absent.iter(), to);
        write_nodes(self.short.iter(), to);
        write_nodes(self.apart.iter(), to);
        to.length(self.boots.len());
        for (node, boot) in &self.boots {
            to.node(*node);
            to.number(boot.0);
        }
        to.number(u64::from(self.replicas));
        write_nodes(self.drained.iter(), to);
        to.length(self.retiring.len());
        for (shard, (node, since)) in &self.retiring {
            to.shard(*shard);
            to.node(*node);
            to.number(since.0);
        }
        to.length(self.chains.len());
        for chain in &self.chains {
            to.fields(|to| write_chain(chain, to));
        }
        to.option(self.membership.as_deref(), |to, membership| membership.write(to));
    }

    /// Reads a part.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none, or of a format that this build does not read.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            FORMAT => from.fields(Self::read_fields),
            found => Err(DecodeError::UnknownTag { what: "format of a configuration", found }),
        }
    }

    fn read_fields(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = from.bytes()?;
        Ok(Self {
            name: String::from_utf8_lossy(name).into_owned(),
            epoch: Epoch(from.number()?),
            nodes: from.list("nodes", Reader::node)?,
            absent: from.list("absent nodes", Reader::node)?.into_iter().collect(),
            short: from.list("nodes that are short of disk", Reader::node)?.into_iter().collect(),
            apart: from.list("nodes that are cut off", Reader::node)?.into_iter().collect(),
            boots: from
                .list("runs of nodes", |from| Ok((from.node()?, Boot(from.number()?))))?
                .into_iter()
                .collect(),
            replicas: u16::try_from(from.number()?).unwrap_or(u16::MAX),
            drained: from.list("nodes to hold nothing", Reader::node)?.into_iter().collect(),
            retiring: from.list("replicas to leave", read_retiring)?.into_iter().collect(),
            chains: from.list("chains", |from| from.fields(read_chain))?,
            membership: from.option(Membership::read)?.map(Arc::new),
        })
    }

    /// Whether a node shall leave its chains to others, though it lives: it is short of disk, or
    /// others cannot reach it.
    #[must_use]
    pub fn yields(&self, node: NodeId) -> bool {
        self.short.contains(&node) || self.apart.contains(&node)
    }

    /// The replica of a chain that others have taken the place of.
    #[must_use]
    pub fn retires(&self, shard: ShardId) -> Option<NodeId> {
        self.retiring.get(&shard).map(|(node, _)| *node)
    }

    /// Whether a replica of a chain steps aside: it answers nobody, so that the others may go on
    /// without it. It does while its node yields, or it is to leave this chain, and one that serves
    /// beside it stays.
    #[must_use]
    pub fn is_aside(&self, node: NodeId, shard: ShardId) -> bool {
        let Some(chain) = self.chains.get(usize::from(shard.0)) else { return false };
        let leaves = |node: NodeId| self.yields(node) || self.retires(shard) == Some(node);
        leaves(node) && chain.serving.iter().any(|other| !leaves(*other))
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
    /// Which datacenters there are, and what each may do.
    pub membership: Arc<Membership>,
    /// How many shards the key space has.
    pub shard_count: ShardCount,
    /// The parts of those that are present; one that nothing was heard of yet has no chains.
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
        let (mut datacenters, mut members) = (BTreeMap::new(), BTreeMap::new());
        for (id, name, node_count) in &layout.datacenters {
            let nodes: Vec<NodeId> =
                (1..=*node_count).map(|number| NodeId { datacenter: *id, number }).collect();
            let chains = layout
                .shard_count
                .shards()
                .map(|shard| place(shard, &nodes, usize::from(layout.chain_length)))
                .collect();
            let addresses = nodes.iter().map(|node| (*node, String::new())).collect();
            members.insert(*id, Member::open(name.clone(), addresses));
            let part = Datacenter::of(name.clone(), nodes, chains);
            datacenters.insert(*id, Datacenter { replicas: layout.chain_length, ..part });
        }
        Self {
            deployment: layout.deployment,
            membership: Arc::new(Membership::first(members)),
            shard_count: layout.shard_count,
            datacenters,
        }
    }

    /// The first configuration of datacenters whose managers decide who serves: every chain waits
    /// for its replicas, none of which has anything yet that another one lacks.
    #[must_use]
    pub fn managed(layout: &Layout) -> Self {
        let mut first = Self::of(layout);
        for chain in first.datacenters.values_mut().flat_map(|there| &mut there.chains) {
            let waiting = chain.serving.drain(..).map(|node| (node, Waiting::LastServing));
            chain.waiting = waiting.collect();
        }
        first
    }

    /// Takes over which datacenters there are, if that is newer; tells whether it was. Of one that
    /// is new nothing is known but its nodes; one that is lost or gone has no part any more, but
    /// where it is the node's own.
    pub fn adopt_membership(
        &mut self,
        newer: &Arc<Membership>,
        here: Option<DatacenterId>,
    ) -> bool {
        if newer.epoch <= self.membership.epoch {
            return false;
        }
        let present: BTreeSet<DatacenterId> = newer.present().collect();
        self.datacenters.retain(|id, _| present.contains(id) || Some(*id) == here);
        for id in present {
            let member = &newer.members[&id];
            self.datacenters.entry(id).or_insert_with(|| Datacenter {
                epoch: Epoch(0),
                ..Datacenter::of(
                    member.name.clone(),
                    member.nodes.keys().copied().collect(),
                    Vec::new(),
                )
            });
        }
        self.membership = Arc::clone(newer);
        true
    }

    /// Begins each chain of a datacenter that is being added with one replica, which is to copy from
    /// another datacenter; the others copy from that one. Nodes begin with about equally many.
    pub fn begin_with_one_replica(&mut self, here: DatacenterId) {
        let Some(there) = self.datacenters.get_mut(&here) else { return };
        for (shard, chain) in there.chains.iter_mut().enumerate() {
            let members: Vec<NodeId> = chain.members().collect();
            let first = members.get(shard % members.len().max(1)).copied();
            let waits = |node: NodeId| {
                let why = if Some(node) == first { Waiting::LastServing } else { Waiting::Offline };
                (node, why)
            };
            chain.serving.clear();
            chain.waiting = members.into_iter().map(waits).collect();
        }
    }

    /// Takes over one datacenter's part if it is newer and fits; tells whether it did.
    ///
    /// It fits when it has a chain for each shard, of distinct nodes of its own, and a name that is
    /// known: what comes from another node is looked at before it is believed.
    pub fn adopt(&mut self, id: DatacenterId, part: &Datacenter) -> bool {
        let is_whole = part.chains.len() == usize::from(self.shard_count.count());
        let nodes: BTreeSet<NodeId> = part.nodes.iter().copied().collect();
        let are_own = nodes.iter().all(|node| node.datacenter == id);
        let are_chains = part.chains.iter().all(|chain| {
            let members: Vec<NodeId> = chain.members().collect();
            let distinct: BTreeSet<&NodeId> = members.iter().collect();
            distinct.len() == members.len() && members.iter().all(|node| nodes.contains(node))
        });
        let is_known = self.datacenters.get(&id).is_some_and(|there| there.epoch < part.epoch);
        let fits = is_whole && are_own && are_chains && is_known && nodes.len() == part.nodes.len();
        if fits {
            self.datacenters.insert(id, part.clone());
        }
        fits
    }

    /// One datacenter's part, if it is a member.
    #[must_use]
    pub fn datacenter(&self, id: DatacenterId) -> Option<&Datacenter> {
        self.datacenters.get(&id)
    }

    /// The replicas of a shard that serve in a datacenter, head first; empty if it is no member.
    #[must_use]
    #[inline]
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
    #[inline]
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

    /// The datacenters whose writes may still be on their way: those that are present, and one
    /// that is lost, of which others may have more.
    pub fn origins(&self) -> impl Iterator<Item = DatacenterId> {
        self.membership.members.keys().copied()
    }

    /// Whether a datacenter belongs to the deployment, and is not lost.
    #[must_use]
    pub fn is_present(&self, id: DatacenterId) -> bool {
        self.membership.standing(id).is_some_and(|standing| standing != Standing::Lost)
    }

    /// Whether a datacenter serves reads, and has begun to for good.
    #[must_use]
    pub fn is_open(&self, id: DatacenterId) -> bool {
        matches!(self.membership.standing(id), Some(Standing::Open | Standing::Leaving))
    }

    /// The datacenter that one copies from whose turn it is to.
    #[must_use]
    pub fn donor_of(&self, id: DatacenterId) -> Option<DatacenterId> {
        match self.membership.standing(id)? {
            Standing::Copying { from } => Some(from),
            Standing::Joining { .. } | Standing::Open | Standing::Leaving | Standing::Lost => None,
        }
    }

    /// The other datacenters that are present; none for one that is not itself.
    pub fn peers(&self, here: DatacenterId) -> impl Iterator<Item = DatacenterId> {
        let is_present = self.is_present(here);
        self.datacenters.keys().copied().filter(move |id| is_present && *id != here)
    }

    /// The shards that a node holds a replica of, whether or not it serves.
    pub fn shards_of(&self, node: NodeId) -> impl Iterator<Item = ShardId> {
        let is_member = move |chain: &Chain| chain.members().any(|member| member == node);
        self.shard_count
            .shards()
            .filter(move |shard| self.chain_of(node.datacenter, *shard).is_some_and(is_member))
    }
}

fn write_nodes<'a>(nodes: impl ExactSizeIterator<Item = &'a NodeId>, to: &mut Writer<'_>) {
    to.length(nodes.len());
    for node in nodes {
        to.node(*node);
    }
}

fn read_retiring(from: &mut Reader<'_>) -> Result<(ShardId, (NodeId, Epoch)), DecodeError> {
    Ok((from.shard()?, (from.node()?, Epoch(from.number()?))))
}

fn write_chain(chain: &Chain, to: &mut Writer<'_>) {
    to.number(chain.epoch.0);
    write_nodes(chain.serving.iter(), to);
    to.length(chain.waiting.len());
    for (node, why) in &chain.waiting {
        to.node(*node);
        to.u8(match why {
            Waiting::Syncing => 0,
            Waiting::LastServing => 1,
            Waiting::Offline => 2,
        });
    }
}

fn read_chain(from: &mut Reader<'_>) -> Result<Chain, DecodeError> {
    Ok(Chain {
        epoch: Epoch(from.number()?),
        serving: from.list("serving nodes", Reader::node)?,
        waiting: from.list("waiting nodes", read_waiting)?.into_iter().collect(),
    })
}

fn read_waiting(from: &mut Reader<'_>) -> Result<(NodeId, Waiting), DecodeError> {
    let node = from.node()?;
    let why = match from.u8()? {
        0 => Waiting::Syncing,
        1 => Waiting::LastServing,
        2 => Waiting::Offline,
        found => return Err(DecodeError::UnknownTag { what: "reason to wait", found }),
    };
    Ok((node, why))
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
    fn a_part_is_read_as_it_was_written() {
        let here = DatacenterId(2);
        let mut first = three_of_three();
        let part = first.datacenters.get_mut(&here).unwrap();
        let node = part.nodes[1];
        part.epoch = Epoch(7);
        part.absent.insert(node);
        part.short.insert(part.nodes[2]);
        part.apart.insert(part.nodes[1]);
        part.boots.insert(node, Boot(3));
        part.drained.insert(part.nodes[0]);
        part.retiring.insert(ShardId(7), (part.nodes[2], Epoch(6)));
        part.chains[5].serving.retain(|member| *member != node);
        part.chains[5].waiting.insert(node, Waiting::Syncing);
        let mut bytes = Vec::new();
        part.write(&mut Writer::new(&mut bytes));
        let mut reader = Reader::new(&bytes);
        let read = Datacenter::read(&mut reader).unwrap();
        reader.finish().unwrap();
        assert_eq!(read, *part);
        for end in 0..bytes.len() {
            assert!(Datacenter::read(&mut Reader::new(&bytes[..end])).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn what_a_later_build_adds_is_skipped_and_the_format_keeps_its_bytes() {
        let node = |number| NodeId { datacenter: DatacenterId(1), number };
        let chain = Chain::of(vec![node(1)]);
        let mut part = Datacenter::of("a".to_owned(), vec![node(1), node(2)], vec![chain]);
        part.boots.insert(node(2), Boot(3));
        part.chains[0].waiting.insert(node(2), Waiting::Syncing);
        let mut bytes = Vec::new();
        part.write(&mut Writer::new(&mut bytes));
        let before = b"\x01a\x01\x02\x01\x00\x01\x00\x02\x00\x01\x00\x00\x00\x00\x01\x02\x00\x01\x00\x03\x01\x00\x00\x01";
        let chain = b"\x0c\x01\x01\x01\x00\x01\x00\x01\x02\x00\x01\x00\x00";
        let golden = [&b"\x01\x27"[..], before, chain, b"\x00"].concat();
        assert_eq!(bytes, golden);
        let longer = [b"\x0d", &chain[1..], b"\x63"].concat();
        let later = [&b"\x01\x2a"[..], before, &longer, b"\x00\x63\x63"].concat();
        let mut reader = Reader::new(&later);
        assert_eq!(Datacenter::read(&mut reader), Ok(part));
        reader.finish().unwrap();
        let unknown = DecodeError::UnknownTag { what: "format of a configuration", found: 9 };
        bytes[0] = 9;
        assert_eq!(Datacenter::read(&mut Reader::new(&bytes)), Err(unknown));
    }

    #[test]
    fn a_replica_steps_aside_while_another_one_has_room() {
        let mut part = three_of_three().datacenters[&DatacenterId(1)].clone();
        let (shard, chain) = (ShardId(0), part.chains[0].clone());
        let [first, second, third] = [chain.serving[0], chain.serving[1], chain.serving[2]];
        assert!(!part.is_aside(first, shard));
        part.short = [first, second].into();
        assert!(part.is_aside(first, shard) && part.is_aside(second, shard));
        assert!(!part.is_aside(third, shard));
        part.short.insert(third);
        assert!(!part.is_aside(first, shard), "nobody could go on");
        part.short = [first].into();
        part.apart = [second].into();
        assert!(part.is_aside(first, shard) && part.is_aside(second, shard));
        assert!(!part.is_aside(third, shard));
        part.retiring.insert(shard, (third, Epoch(1)));
        assert!(!part.is_aside(first, shard) && !part.is_aside(third, shard), "nobody stays");
        part.apart.clear();
        assert!(part.is_aside(first, shard) && part.is_aside(third, shard));
        assert!(!part.is_aside(second, shard) && !part.is_aside(third, ShardId(1)));
    }

    #[test]
    fn a_part_that_does_not_fit_is_not_adopted() {
        let here = DatacenterId(2);
        let newer = || {
            let mut part = three_of_three().datacenters[&here].clone();
            part.epoch = Epoch(2);
            part
        };
        assert!(three_of_three().adopt(here, &newer()));
        assert!(!three_of_three().adopt(DatacenterId(9), &newer()), "nobody knows it");
        assert!(!three_of_three().adopt(DatacenterId(1), &newer()), "nodes of another one");
        let mut older = newer();
        older.epoch = Epoch(1);
        assert!(!three_of_three().adopt(here, &older));
        let mut short = newer();
        short.chains.pop();
        assert!(!three_of_three().adopt(here, &short));
        let mut double = newer();
        let first = double.chains[0].serving[0];
        double.chains[0].waiting.insert(first, Waiting::Offline);
        assert!(!three_of_three().adopt(here, &double));
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
