//! What a node tells of its datacenter's chains and of the agreement: who serves, who waits and why,
//! and how many nodes can be lost.

use antecede_model::{
    configuration::{Chain, Configuration, Datacenter, Waiting},
    ids::{NodeId, ShardId},
};
use antecede_protocol::{
    chain::Shard,
    manager::moves::{held_by, why_stuck},
};
use serde::Serialize;

use crate::clock;
use crate::node::Node;

/// One shard's replicas in this datacenter.
#[derive(Clone, Debug, Serialize)]
pub struct ChainStatus {
    /// The shard.
    pub shard: u16,
    /// The epoch in which those that serve changed last.
    pub epoch: u64,
    /// Those that serve, head first.
    pub serving: Vec<String>,
    /// Those that copy what they lack.
    pub syncing: Vec<String>,
    /// Those that served last, while nobody does: one of them has to come back.
    pub last_serving: Vec<String>,
    /// Those that are gone, or wait for their turn to copy.
    pub offline: Vec<String>,
}

/// What a node holds of a shard that has lost its data.
#[derive(Clone, Debug, Serialize)]
pub struct RemainsStatus {
    /// The shard.
    pub shard: u16,
    /// The epoch of the last entry of its log, 0 where there is none.
    pub epoch: u64,
    /// Its position, 0 where there is none.
    pub position: u64,
    /// Whether all keys are there up to that entry; not where a copy was under way.
    pub is_whole: bool,
}

/// The agreement as this node sees it.
#[derive(Clone, Debug, Serialize)]
pub struct ControlStatus {
    /// Which store it is.
    pub store: &'static str,
    /// The node whose member leads, as of the last answer.
    pub leader: Option<String>,
    /// Whether this node decides.
    pub decides: bool,
    /// Whether it answers.
    pub reachable: bool,
    /// Why not.
    pub outage: Option<String>,
    /// What its member waits for before it begins; absent once it has, or where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// For how long this node may still answer, in milliseconds; 0: it may not.
    pub lease_ms: u64,
    /// How long ago it asked for that, in milliseconds.
    pub lease_age_ms: Option<u64>,
}

/// How many replicas of the datacenter are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) serving: u64,
    pub(super) syncing: u64,
    pub(super) last_serving: u64,
    pub(super) offline: u64,
    /// Shards that nobody serves.
    pub(super) dark: u64,
    /// Those of them that nobody can serve any more.
    pub(super) lost: u64,
}

impl Counts {
    pub(super) fn of(part: &Datacenter) -> Self {
        let mut counts = Self::default();
        for chain in &part.chains {
            counts.serving += chain.serving.len() as u64;
            counts.syncing += chain.waiting_as(Waiting::Syncing).count() as u64;
            counts.last_serving += chain.waiting_as(Waiting::LastServing).count() as u64;
            counts.offline += chain.waiting_as(Waiting::Offline).count() as u64;
            counts.dark += u64::from(chain.serving.is_empty());
            counts.lost += u64::from(chain.is_lost());
        }
        counts
    }
}

/// All chains of this node's datacenter.
pub(super) fn chains_of(node: &Node, configuration: &Configuration) -> Vec<ChainStatus> {
    let part = configuration.datacenter(node.id.datacenter);
    let chains = part.into_iter().flat_map(|part| &part.chains);
    (0..).map(ShardId).zip(chains).map(|(shard, chain)| chain_of(shard, chain)).collect()
}

/// What a node holds of the shards that nobody serves or can serve by itself.
pub(super) fn remains_of(node: &Node, configuration: &Configuration) -> Vec<RemainsStatus> {
    let part = configuration.datacenter(node.id.datacenter);
    let chains = part.into_iter().flat_map(|part| &part.chains);
    let lost = (0..).map(ShardId).zip(chains).filter(|(_, chain)| chain.is_lost());
    let told = lost.filter_map(|(shard, _)| {
        let (last, is_whole) = node.look(shard, Shard::remains)?;
        let (epoch, position) = last.map_or((0, 0), |last| (last.epoch.0, last.position.0));
        Some(RemainsStatus { shard: shard.0, epoch, position, is_whole })
    });
    told.collect()
}

fn chain_of(shard: ShardId, chain: &Chain) -> ChainStatus {
    let waiting = |why| chain.waiting_as(why).map(|node| node.to_string()).collect();
    ChainStatus {
        shard: shard.0,
        epoch: chain.epoch.0,
        serving: chain.serving.iter().map(ToString::to_string).collect(),
        syncing: waiting(Waiting::Syncing),
        last_serving: waiting(Waiting::LastServing),
        offline: waiting(Waiting::Offline),
    }
}

/// The agreement; `None` where nobody decides.
pub(super) fn control_of(node: &Node) -> Option<ControlStatus> {
    if !node.config.is_managed() {
        return None;
    }
    let known = node.control.known();
    let now = clock::steady();
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Some(ControlStatus {
        store: node.config.control.store.name(),
        decides: known.leader == Some(node.id),
        leader: known.leader.map(|leader| leader.to_string()),
        reachable: known.heard_at.is_some() && known.outage.is_none(),
        outage: known.outage,
        waits: node.control.founding(),
        lease_ms: millis(node.lease_left(now)),
        lease_age_ms: known.heard_at.map(|heard| millis(now.0.saturating_sub(heard.0))),
    })
}

/// What is wrong in the datacenter as a whole, worst first.
pub(super) fn trouble_of(part: &Datacenter) -> Vec<String> {
    let mut trouble = Vec::new();
    let all = part.chains.len();
    let counts = Counts::of(part);
    if 0 < counts.lost {
        trouble.push(format!(
            "{} of {all} shards are served by no node: all that had their data came back with empty \
             folders",
            counts.lost
        ));
    }
    if counts.lost < counts.dark {
        let dark = part.chains.iter().filter(|chain| chain.serving.is_empty());
        let mut last: Vec<NodeId> =
            dark.flat_map(|chain| chain.waiting_as(Waiting::LastServing)).collect();
        last.sort_unstable();
        last.dedup();
        trouble.push(format!(
            "{} of {all} shards are served by no node: start {}",
            counts.dark - counts.lost,
            names(last.iter())
        ));
    }
    // Who shall hold nothing, and does, may be switched off.
    let is_missed = |node: &&NodeId| !part.drained.contains(node) || 0 < held_by(part, **node);
    let absent: Vec<NodeId> = part.absent.iter().filter(is_missed).copied().collect();
    if !absent.is_empty() {
        let verb = if absent.len() == 1 { "is" } else { "are" };
        trouble.push(format!("{} {verb} gone", names(absent.iter())));
    }
    for node in &part.drained {
        if let Some(why) = why_stuck(part, *node) {
            let held = held_by(part, *node);
            trouble.push(format!("node {node} shall hold nothing and keeps {held} shards: {why}"));
        }
    }
    if !part.short.is_empty() {
        let verb = if part.short.len() == 1 { "has" } else { "have" };
        trouble.push(format!("{} {verb} no room on the disk", names(part.short.iter())));
    }
    if !part.apart.is_empty() {
        let verb = if part.apart.len() == 1 { "is" } else { "are" };
        trouble.push(format!(
            "{} {verb} cut off from other nodes: see to the network between them",
            names(part.apart.iter())
        ));
    }
    let length = usize::from(part.replicas).min(part.nodes.len());
    let short = |chain: &&Chain| !chain.serving.is_empty() && chain.serving.len() < length;
    let short_count = part.chains.iter().filter(short).count();
    if 0 < short_count {
        let copies = match counts.syncing {
            0 => String::new(),
            syncing => format!(", {syncing} are copied now"),
        };
        trouble.push(format!("{short_count} of {all} shards lack a replica{copies}"));
    }
    trouble
}

fn names<'a>(nodes: impl Iterator<Item = &'a NodeId>) -> String {
    let names: Vec<String> = nodes.map(|node| format!("node {node}")).collect();
    names.join(", ")
}

/// How many more nodes the datacenter can lose, of whichever it has, and still serve everything;
/// `None` where nobody decides: chains stop with any of their nodes.
pub(super) fn can_lose(node: &Node, part: &Datacenter) -> Option<u64> {
    if !node.config.is_managed() {
        return None;
    }
    let members = node.config.control_members();
    let there = members.keys().filter(|member| !part.absent.contains(member)).count();
    Some(spare(part, node.config.control_needed(), there))
}

/// The same, where so many nodes that take part in the agreement are needed, and there.
fn spare(part: &Datacenter, needed: usize, there: usize) -> u64 {
    let replicas = part.chains.iter().map(|chain| chain.serving.len()).min().unwrap_or(0);
    replicas.saturating_sub(1).min(there.saturating_sub(needed)) as u64
}

#[cfg(test)]
mod tests {
    use antecede_model::ids::DatacenterId;

    use super::*;

    fn node(number: u16) -> NodeId {
        NodeId { datacenter: DatacenterId(1), number }
    }

    fn part(chains: Vec<Chain>) -> Datacenter {
        Datacenter::of("here".to_owned(), vec![node(1), node(2), node(3)], chains)
    }

    fn full() -> Chain {
        Chain::of(vec![node(1), node(2), node(3)])
    }

    fn waiting(serving: &[u16], others: &[(u16, Waiting)]) -> Chain {
        let mut chain = Chain::of(serving.iter().map(|number| node(*number)).collect());
        chain.waiting = others.iter().map(|(number, why)| (node(*number), *why)).collect();
        chain
    }

    #[test]
    fn nothing_is_wrong_while_all_replicas_serve() {
        assert!(trouble_of(&part(vec![full(), full()])).is_empty());
        assert_eq!(spare(&part(vec![full()]), 2, 3), 1, "the agreement needs two of three");
        assert_eq!(spare(&part(vec![full()]), 3, 5), 2);
        assert_eq!(spare(&part(vec![full()]), 1, 1), 0);
    }

    #[test]
    fn what_is_wrong_is_told_worst_first() {
        let short = waiting(&[1, 3], &[(2, Waiting::Syncing)]);
        let dark = waiting(&[], &[(2, Waiting::LastServing), (3, Waiting::Offline)]);
        let mut there = part(vec![full(), short, dark]);
        there.absent.insert(node(2));
        there.short.insert(node(3));
        there.apart.insert(node(1));
        let told = trouble_of(&there);
        assert_eq!(
            told,
            [
                "1 of 3 shards are served by no node: start node 1.2",
                "node 1.2 is gone",
                "node 1.3 has no room on the disk",
                "node 1.1 is cut off from other nodes: see to the network between them",
                "1 of 3 shards lack a replica, 1 are copied now",
            ]
        );
        assert_eq!(spare(&there, 2, 2), 0);
        there.drained.insert(node(2));
        let stuck = "node 1.2 shall hold nothing and keeps 3 shards: only 2 nodes may hold \
                     something, and each shard shall have 3 replicas";
        assert!(trouble_of(&there).contains(&stuck.to_owned()), "{:?}", trouble_of(&there));
        there.replicas = 2;
        there.chains = vec![Chain::of(vec![node(1), node(3)])];
        assert!(!trouble_of(&there).iter().any(|line| line.contains("1.2")), "it may be off");
        there.chains = vec![waiting(&[1, 3], &[(2, Waiting::Syncing)])];
        let lacking = trouble_of(&there);
        assert!(!lacking.iter().any(|line| line.contains("lack")), "it moves: {lacking:?}");
        there.chains = vec![waiting(&[1], &[(2, Waiting::Syncing)])];
        assert!(trouble_of(&there).iter().any(|line| line.contains("lack")));
        there.chains = vec![
            full(),
            waiting(&[1, 3], &[(2, Waiting::Syncing)]),
            waiting(&[], &[(2, Waiting::LastServing), (3, Waiting::Offline)]),
        ];
        let counts = Counts::of(&there);
        assert_eq!((counts.serving, counts.syncing, counts.dark), (5, 1, 1));
    }
}
