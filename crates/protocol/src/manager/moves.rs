//! Moves replicas, heads and tails while nothing is wrong, one safe step at a time.
//!
//! A replica is moved in three steps. One that is new copies, behind the tail, as one that was away
//! does; it becomes the tail, and the chain has one replica more than it needs; of those the one on a
//! node that shall hold nothing, or else on the node that holds most, *retires*: it steps aside, so
//! that it counts in commits and answers nobody, and leaves once its node has said that it knows.
//! So a chain is never shorter than it was, and nobody answers by what the others go on without.
//!
//! A head or tail is moved by giving a chain another order. All of its replicas stay, and the new
//! epoch commits nothing before each of them has taken it over: until then none of them can show
//! what is too old, since nothing newer is committed (`chain::settle` makes their logs equal).
//!
//! Nodes that shall hold nothing (*drained*) come first, then replicas are spread, then heads, then
//! tails; each only while a node has at least two more than another one that could take one over.
//! Every such move makes the sum of squares of what nodes have smaller, so it ends.
//!
//! Assumes: moves begin only while nothing else is to be decided.
//! Ensures: a chain that has as many replicas as it shall have never has fewer for a move; the same
//! configuration and facts give the same moves.
//! Limits: heads are moved only between replicas of one chain, so where chains are shorter than the
//! datacenter is large, nodes that share no chain may differ by more than one.

use std::collections::{BTreeMap, BTreeSet};

use antecede_model::{
    configuration::{Chain, Datacenter, Waiting},
    ids::{NodeId, ShardId},
};

use super::{Change, Facts};

/// Replicas that are copied to new places at the same time, in a datacenter.
const COPIES_AT_ONCE: usize = 4;
/// Chains that get another order in one decision: their writes wait until all replicas know it.
const ORDERS_AT_ONCE: usize = 8;
/// By how much two nodes must differ before anything is moved between them.
const DIFFERENCE_MIN: usize = 2;

/// Whether a datacenter has too few nodes that may hold something for those to hold all replicas:
/// some that shall hold nothing keep theirs then.
#[must_use]
pub fn is_stuck(part: &Datacenter) -> bool {
    part.nodes.iter().filter(|node| !part.drained.contains(node)).count()
        < usize::from(part.replicas).min(part.nodes.len())
}

/// What a datacenter becomes when a node shall hold nothing, or may hold replicas again; `None` if it
/// is so already, or there is no such node.
#[must_use]
pub fn with_drained(part: &Datacenter, node: NodeId, is_drained: bool) -> Option<Datacenter> {
    if !part.nodes.contains(&node) || part.drained.contains(&node) == is_drained {
        return None;
    }
    let mut next = part.clone();
    if is_drained {
        next.drained.insert(node);
    } else {
        next.drained.remove(&node);
    }
    next.epoch = part.epoch.next();
    Some(next)
}

/// What a datacenter becomes when those of these chains that nobody can serve any more begin again
/// with what a node holds of them, which may be nothing; `None` if there is none, or the node has no
/// replica.
#[must_use]
pub fn relit_with(
    part: &Datacenter,
    node: NodeId,
    shards: &BTreeSet<ShardId>,
) -> Option<Datacenter> {
    let mut next = part.clone();
    let chains = (0..).map(ShardId).zip(&mut next.chains);
    let lost = chains.filter(|(shard, chain)| shards.contains(shard) && chain.is_lost());
    let relit = lost.map(|(_, chain)| chain).filter(|chain| chain.waiting.contains_key(&node));
    let count = relit.map(|chain| chain.waiting.insert(node, Waiting::LastServing)).count();
    next.epoch = part.epoch.next();
    (0 < count).then_some(next)
}

/// How many replicas a node has, also those that do not count.
#[must_use]
pub fn held_by(part: &Datacenter, node: NodeId) -> usize {
    part.chains.iter().filter(|chain| chain.members().any(|member| member == node)).count()
}

/// Why replicas do not leave a node that shall hold nothing; `None` while they do, or have.
#[must_use]
pub fn why_stuck(part: &Datacenter, node: NodeId) -> Option<String> {
    if !part.drained.contains(&node) || held_by(part, node) == 0 {
        return None;
    }
    if is_stuck(part) {
        let others = part.nodes.iter().filter(|other| !part.drained.contains(other)).count();
        return Some(format!(
            "only {others} nodes may hold something, and each shard shall have {} replicas",
            part.replicas
        ));
    }
    let holds = |chain: &&Chain| chain.members().any(|member| member == node);
    let is_last = |chain: &Chain| {
        chain.serving == [node] || chain.waiting.get(&node) == Some(&Waiting::LastServing)
    };
    if part.absent.contains(&node) && part.chains.iter().filter(holds).any(is_last) {
        return Some(format!("{node} is down, and nobody else has all of some shards"));
    }
    let may_take = |chain: &Chain| {
        part.present().any(|other| {
            let is_new = chain.members().all(|member| member != other);
            is_new && !part.drained.contains(&other) && !part.yields(other)
        })
    };
    let is_short = |chain: &&Chain| {
        let stays = chain.serving.iter().filter(|other| !part.drained.contains(other));
        let copies = chain.waiting_as(Waiting::Syncing).next().is_some();
        stays.count() < usize::from(part.replicas) && !copies && !may_take(chain)
    };
    let waits = part.chains.iter().filter(holds).filter(is_short).count();
    (0 < waits).then(|| {
        format!(
            "{waits} shards have no other node to go to; nodes that are down or yield count not"
        )
    })
}

/// Takes replicas out that have stepped aside, since others have taken their places. Clients wait for
/// that, so it is done whatever else is decided.
pub(super) fn end_retirements(next: &mut Datacenter, facts: &Facts) -> Vec<Change> {
    let chains = &next.chains;
    next.retiring.retain(|shard, (node, _)| {
        chains.get(place(*shard)).is_some_and(|chain| chain.serving.contains(node))
    });
    let mut moves = Moves { next, facts, changes: Vec::new() };
    moves.end_retirements();
    moves.changes
}

/// Changes a datacenter's part by the next moves; tells which.
pub(super) fn next_moves(next: &mut Datacenter, facts: &Facts) -> Vec<Change> {
    let mut moves = Moves { next, facts, changes: Vec::new() };
    moves.retire();
    moves.forget();
    moves.begin_wished();
    if moves.changes.is_empty() && moves.is_quiet() {
        moves.spread_replicas();
        moves.spread_ends();
    }
    moves.changes
}

/// A shard's place in a list.
fn place(shard: ShardId) -> usize {
    usize::from(shard.0)
}

struct Moves<'a> {
    next: &'a mut Datacenter,
    facts: &'a Facts,
    changes: Vec<Change>,
}

impl Moves<'_> {
    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..u16::try_from(self.next.chains.len()).unwrap_or(u16::MAX)).map(ShardId)
    }

    /// Whether a node lives, and nothing makes its replicas leave.
    fn is_sound(&self, node: NodeId) -> bool {
        self.facts.is_alive(node) && !self.next.yields(node)
    }

    /// Whether a node may be given something.
    fn may_hold(&self, node: NodeId) -> bool {
        self.is_sound(node) && !self.next.drained.contains(&node)
    }

    fn wished(&self) -> usize {
        usize::from(self.next.replicas)
    }

    /// Whether all nodes that are there act by what holds, and all chains have settled.
    fn is_quiet(&self) -> bool {
        let acts = |node: NodeId| self.facts.is_alive(node) && self.facts.adopted.contains(&node);
        self.next.present().all(acts) && self.facts.settling.is_empty()
    }

    /// Takes out who has stepped aside, and keeps who is needed again.
    fn end_retirements(&mut self) {
        for (shard, (node, since)) in self.next.retiring.clone() {
            let Some(chain) = self.next.chains.get(place(shard)) else { continue };
            let others = chain.serving.iter().filter(|other| **other != node);
            let sound: Vec<NodeId> =
                others.copied().filter(|other| self.is_sound(*other)).collect();
            // One that has not been heard since may have lost its disk before.
            let acts = |node: &NodeId| self.facts.acts_by.get(node).is_some_and(|by| since <= *by);
            let stay = sound.iter().filter(|other| acts(other)).count();
            if sound.len() < self.wished() {
                self.next.retiring.remove(&shard);
                self.changes.push(Change::Kept { shard, node });
            } else if acts(&node) && self.wished() <= stay && !self.facts.settling.contains(&node) {
                self.next.retiring.remove(&shard);
                let epoch = self.next.epoch.next();
                let chain = &mut self.next.chains[place(shard)];
                chain.serving.retain(|other| *other != node);
                chain.epoch = epoch;
                self.changes.push(Change::Moved { shard, node });
            }
        }
    }

    /// Lets one replica step aside in each chain that has more than it needs.
    fn retire(&mut self) {
        let mut loads = self.loads();
        for shard in self.shards() {
            let chain = &self.next.chains[place(shard)];
            let is_busy = self.next.retiring.contains_key(&shard)
                || chain.waiting_as(Waiting::Syncing).next().is_some();
            if is_busy || chain.serving.len() <= self.wished() {
                continue;
            }
            let load = |node: &NodeId| loads.get(node).copied().unwrap_or_default();
            let weight = |node: &NodeId| (self.next.drained.contains(node), load(node), *node);
            let Some(node) = chain.serving.iter().copied().max_by_key(weight) else { continue };
            let others = chain.serving.iter().filter(|other| **other != node);
            if self.wished() <= others.filter(|other| self.is_sound(**other)).count() {
                if let Some(load) = loads.get_mut(&node) {
                    *load -= 1; // It is of one that may hold something.
                }
                self.next.retiring.insert(shard, (node, self.next.epoch.next()));
                self.changes.push(Change::Retiring { shard, node });
            }
        }
    }

    /// Forgets replicas that are away where enough others serve that are to stay.
    fn forget(&mut self) {
        for shard in self.shards() {
            let chain = &self.next.chains[place(shard)];
            let stays =
                |node: &&NodeId| self.may_hold(**node) && self.next.retires(shard) != Some(**node);
            if chain.serving.iter().filter(stays).count() < self.wished() {
                continue;
            }
            let away: Vec<NodeId> = chain.waiting_as(Waiting::Offline).collect();
            for node in away {
                self.next.chains[place(shard)].waiting.remove(&node);
                self.changes.push(Change::Moved { shard, node });
            }
        }
    }

    /// Lets replicas be copied away from nodes that shall hold nothing.
    fn begin_wished(&mut self) {
        let mut loads = self.loads();
        for shard in self.shards() {
            let chain = &self.next.chains[place(shard)];
            let is_held = chain.members().any(|node| self.next.drained.contains(&node));
            let stays = chain.members().filter(|node| self.may_hold(*node));
            let is_busy = chain.serving.is_empty()
                || chain.waiting_as(Waiting::Syncing).next().is_some()
                || self.next.retiring.contains_key(&shard);
            if !is_held || is_busy || self.wished() <= stays.count() {
                continue;
            }
            if COPIES_AT_ONCE <= self.copies() {
                return;
            }
            let free = loads.iter().filter(|(node, _)| chain.members().all(|one| one != **node));
            let Some(node) = free.min_by_key(|(_, load)| **load).map(|(node, _)| *node) else {
                continue;
            };
            *loads.entry(node).or_default() += 1;
            self.begin(shard, node);
        }
    }

    fn begin(&mut self, shard: ShardId, node: NodeId) {
        self.next.chains[place(shard)].waiting.insert(node, Waiting::Syncing);
        self.changes.push(Change::Moving { shard, node });
    }

    /// Replicas that copy.
    fn copies(&self) -> usize {
        let chains = self.next.chains.iter();
        chains.map(|chain| chain.waiting_as(Waiting::Syncing).count()).sum()
    }

    /// How many replicas the nodes have that may hold something, without those that retire.
    fn loads(&self) -> BTreeMap<NodeId, usize> {
        let nodes = self.next.nodes.iter().copied().filter(|node| self.may_hold(*node));
        let mut loads: BTreeMap<NodeId, usize> = nodes.map(|node| (node, 0)).collect();
        for (shard, chain) in self.shards().zip(&self.next.chains) {
            let retires = self.next.retires(shard);
            for node in chain.members().filter(|node| Some(*node) != retires) {
                if let Some(load) = loads.get_mut(&node) {
                    *load += 1;
                }
            }
        }
        loads
    }

    /// Whether a chain has all replicas that it shall have and no other, none of which is to move.
    fn is_whole(&self, shard: ShardId) -> bool {
        let chain = &self.next.chains[place(shard)];
        let length = self.wished().min(self.next.nodes.len());
        chain.waiting.is_empty()
            && !self.next.retiring.contains_key(&shard)
            && chain.serving.len() == length
            && chain.serving.iter().all(|node| self.is_sound(*node))
    }

    /// Lets nodes that hold little copy from those that hold much, while all chains are whole.
    fn spread_replicas(&mut self) {
        if !self.shards().all(|shard| self.is_whole(shard)) {
            return;
        }
        let mut loads = self.loads();
        while self.copies() < COPIES_AT_ONCE {
            let between = |from: NodeId, to: NodeId| {
                self.shards().find(|shard| {
                    let chain = &self.next.chains[place(*shard)];
                    let has_room = chain.waiting.is_empty() && !chain.serving.contains(&to);
                    has_room && chain.serving.contains(&from)
                })
            };
            let pairs = loads.iter().flat_map(|from| loads.iter().map(move |to| (from, to)));
            let apart = pairs.filter(|(from, to)| *to.1 + DIFFERENCE_MIN <= *from.1);
            let mut pairs: Vec<(usize, NodeId, NodeId)> =
                apart.map(|(from, to)| (*from.1 - *to.1, *from.0, *to.0)).collect();
            pairs.sort_unstable();
            let found = pairs
                .iter()
                .rev()
                .find_map(|(_, from, to)| Some((between(*from, *to)?, *from, *to)));
            let Some((shard, from, to)) = found else { return };
            *loads.entry(from).or_default() -= 1;
            *loads.entry(to).or_default() += 1;
            self.begin(shard, to);
        }
    }

    /// Gives chains another order, so that nodes are heads and tails of about equally many.
    fn spread_ends(&mut self) {
        if !self.changes.is_empty() || !self.shards().all(|shard| self.is_whole(shard)) {
            return;
        }
        let mut ends = Ends::of(&self.next.chains);
        let mut moved = BTreeSet::new();
        while moved.len() < ORDERS_AT_ONCE {
            let chains = || self.shards().zip(&self.next.chains);
            let free = || chains().filter(|(shard, _)| !moved.contains(shard));
            let heads = free().filter_map(|(shard, chain)| Some((ends.better_head(chain)?, shard)));
            let (by_head, found) = match heads.max_by_key(|((by, _), _)| *by) {
                Some(found) => (true, found),
                None => {
                    let tails = free();
                    let tails =
                        tails.filter_map(|(shard, chain)| Some((ends.better_tail(chain)?, shard)));
                    let Some(found) = tails.max_by_key(|((by, _), _)| *by) else { return };
                    (false, found)
                }
            };
            let ((_, at), shard) = found;
            moved.insert(shard);
            let epoch = self.next.epoch.next();
            let chain = &mut self.next.chains[place(shard)];
            ends.take(chain);
            let node = chain.serving[at];
            if by_head {
                ends.order_behind(&mut chain.serving, at);
                self.changes.push(Change::NewHead { shard, node });
            } else {
                let last = chain.serving.len() - 1;
                chain.serving.swap(at, last);
                self.changes.push(Change::NewTail { shard, node });
            }
            chain.epoch = epoch;
            ends.add(chain);
        }
    }
}

/// Of how many chains nodes are heads, and tails.
#[derive(Debug, Default)]
struct Ends {
    heads: BTreeMap<NodeId, usize>,
    tails: BTreeMap<NodeId, usize>,
}

impl Ends {
    fn of(chains: &[Chain]) -> Self {
        let mut ends = Self::default();
        chains.iter().for_each(|chain| ends.add(chain));
        ends
    }

    fn add(&mut self, chain: &Chain) {
        if let (Some(head), Some(tail)) = (chain.serving.first(), chain.serving.last()) {
            *self.heads.entry(*head).or_default() += 1;
            *self.tails.entry(*tail).or_default() += 1;
        }
    }

    fn take(&mut self, chain: &Chain) {
        if let (Some(head), Some(tail)) = (chain.serving.first(), chain.serving.last()) {
            *self.heads.entry(*head).or_default() -= 1;
            *self.tails.entry(*tail).or_default() -= 1;
        }
    }

    fn heads_of(&self, node: NodeId) -> usize {
        self.heads.get(&node).copied().unwrap_or_default()
    }

    fn tails_of(&self, node: NodeId) -> usize {
        self.tails.get(&node).copied().unwrap_or_default()
    }

    /// The place of the replica that should be the head, and by how much it has fewer.
    fn better_head(&self, chain: &Chain) -> Option<(usize, usize)> {
        let has = self.heads_of(*chain.serving.first()?);
        let others = chain.serving.iter().enumerate().skip(1);
        let (at, node) = others.min_by_key(|(_, node)| self.heads_of(**node))?;
        let by = has.saturating_sub(self.heads_of(*node));
        (DIFFERENCE_MIN <= by).then_some((by, at))
    }

    /// The place of the replica that should be the tail, not the head, and by how much it has fewer.
    fn better_tail(&self, chain: &Chain) -> Option<(usize, usize)> {
        let has = self.tails_of(*chain.serving.last()?);
        let last = chain.serving.len() - 1;
        let others = chain.serving.iter().enumerate().take(last).skip(1);
        let (at, node) = others.min_by_key(|(_, node)| self.tails_of(**node))?;
        let by = has.saturating_sub(self.tails_of(*node));
        (DIFFERENCE_MIN <= by).then_some((by, at))
    }

    /// Makes the replica at a place the head, and of the others the one the tail that has fewest.
    fn order_behind(&self, serving: &mut Vec<NodeId>, at: usize) {
        let head = serving.remove(at);
        serving.sort_by_key(|node| std::cmp::Reverse(self.tails_of(*node)));
        serving.insert(0, head);
    }
}

#[cfg(test)]
mod tests {
    use antecede_model::{
        configuration::{Configuration, Layout},
        ids::{Boot, DatacenterId, DeploymentId, Epoch},
        key::ShardCount,
    };

    use super::super::{Life, next_configuration};
    use super::*;

    const HERE: DatacenterId = DatacenterId(1);

    fn node(number: u16) -> NodeId {
        NodeId { datacenter: HERE, number }
    }

    /// A datacenter of so many nodes, whose chains are these.
    fn with(nodes: u16, replicas: u16, chains: &[&[u16]]) -> Configuration {
        let mut configuration = Configuration::of(&Layout {
            deployment: DeploymentId([3; 16]),
            shard_count: ShardCount::new(u32::try_from(chains.len()).unwrap()).unwrap(),
            chain_length: replicas,
            datacenters: vec![(HERE, "here".to_owned(), nodes)],
        });
        let part = configuration.datacenters.get_mut(&HERE).unwrap();
        part.boots = part.nodes.iter().map(|node| (*node, Boot(1))).collect();
        let chain = |members: &&[u16]| Chain::of(members.iter().copied().map(node).collect());
        part.chains = chains.iter().map(chain).collect();
        configuration
    }

    fn part(of: &Configuration) -> &Datacenter {
        of.datacenter(HERE).unwrap()
    }

    fn drained(mut of: Configuration, number: u16) -> Configuration {
        let next = with_drained(part(&of), node(number), true).unwrap();
        of.datacenters.insert(HERE, next);
        of
    }

    /// All nodes live and act by what holds; whoever copies is whole.
    fn well(of: &Configuration) -> Facts {
        let part = part(of);
        let nodes = part.nodes.iter().map(|node| (*node, Life::Alive(Boot(1)))).collect();
        let adopted = part.nodes.iter().copied().collect();
        let chains = (0..).map(ShardId).zip(&part.chains);
        let caught_up = chains.flat_map(|(shard, chain)| {
            chain.waiting_as(Waiting::Syncing).map(move |node| (shard, node))
        });
        let caught_up = caught_up.collect();
        let acts_by = part.nodes.iter().map(|node| (*node, part.epoch)).collect();
        Facts { epoch: part.epoch, nodes, adopted, acts_by, caught_up, ..Facts::default() }
    }

    /// Decides until nothing changes, while all is well; no chain may get shorter than it was.
    fn settled(mut of: Configuration) -> (Configuration, Vec<Change>) {
        let mut all = Vec::new();
        for _ in 0..2_000 {
            let Some(decision) = next_configuration(&of, HERE, &well(&of)) else {
                return (of, all);
            };
            for (old, new) in part(&of).chains.iter().zip(&part(&decision.configuration).chains) {
                let least = old.serving.len().min(usize::from(part(&of).replicas));
                assert!(least <= new.serving.len(), "{old:?} became {new:?}");
            }
            (of, all) = (decision.configuration, [all, decision.changes].concat());
        }
        panic!("it never ends: {:?}", &all[all.len() - 20..]);
    }

    fn spread(of: &Configuration, count: impl Fn(&Chain, NodeId) -> bool) -> usize {
        let part = part(of);
        let may_hold = part.nodes.iter().filter(|node| !part.drained.contains(node));
        let counts = may_hold.map(|node| part.chains.iter().filter(|c| count(c, *node)).count());
        let counts: Vec<usize> = counts.collect();
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }

    #[test]
    fn heads_and_tails_are_spread_again_after_a_node_came_back_as_the_tail_of_all() {
        let chains: Vec<&[u16]> = [&[1, 2, 3][..], &[2, 1, 3]].repeat(128);
        let old = with(3, 3, &chains);
        let (next, changes) = settled(old);
        assert!(spread(&next, |chain, node| chain.serving.first() == Some(&node)) <= 1);
        assert!(spread(&next, |chain, node| chain.serving.last() == Some(&node)) <= 1);
        let orders =
            |change: &Change| matches!(change, Change::NewHead { .. } | Change::NewTail { .. });
        assert!(changes.iter().all(orders), "no replica has to be copied");
        assert!(changes.len() <= 180, "{} moves", changes.len());
    }

    #[test]
    fn difference_of_one_moves_nothing() {
        let old = with(3, 3, &[&[1, 2, 3], &[1, 3, 2]]);
        let (_, changes) = settled(old);
        assert_eq!(changes, [Change::NewHead { shard: ShardId(1), node: node(3) }]);
        let old = with(2, 2, &[&[1, 2], &[2, 1], &[1, 2], &[2, 1]]);
        assert_eq!(next_configuration(&old, HERE, &well(&old)), None);
    }

    #[test]
    fn nothing_is_moved_while_a_node_is_late_or_a_replica_settles() {
        let old = with(3, 3, &[&[1, 2, 3], &[1, 2, 3]]);
        assert!(next_configuration(&old, HERE, &well(&old)).is_some());
        let mut late = well(&old);
        late.adopted.remove(&node(2));
        assert_eq!(next_configuration(&old, HERE, &late), None);
        let mut settling = well(&old);
        settling.settling.insert(node(3));
        assert_eq!(next_configuration(&old, HERE, &settling), None);
    }

    #[test]
    fn replica_moves_by_a_copy_then_by_stepping_aside_and_leaves_last() {
        let old = drained(with(3, 2, &[&[1, 2], &[3, 2]]), 1);
        let decide = |old: &Configuration, facts: &Facts| {
            let decision = next_configuration(old, HERE, facts).expect("something moves");
            (decision.configuration, decision.changes)
        };
        let (shard, one, three) = (ShardId(0), node(1), node(3));
        let (copying, changes) = decide(&old, &well(&old));
        assert_eq!(changes, [Change::Moving { shard, node: three }]);
        assert_eq!(part(&copying).chains[0].serving, [one, node(2)]);
        let (grown, _) = decide(&copying, &well(&copying));
        assert_eq!(part(&grown).chains[0].serving, [one, node(2), three]);
        let (aside, changes) = decide(&grown, &well(&grown));
        assert_eq!(changes, [Change::Retiring { shard, node: one }]);
        assert!(part(&aside).is_aside(one, shard));
        let mut silent = well(&aside);
        silent.acts_by.insert(one, part(&grown).epoch);
        assert_eq!(next_configuration(&aside, HERE, &silent), None, "it may still answer");
        let mut silent = well(&aside);
        silent.acts_by.insert(three, part(&grown).epoch);
        assert_eq!(next_configuration(&aside, HERE, &silent), None, "3 may have lost its log");
        let (moved, changes) = decide(&aside, &well(&aside));
        assert_eq!(changes, [Change::Moved { shard, node: one }]);
        assert_eq!(part(&moved).chains[0].serving, [node(2), three]);
        assert_eq!(part(&moved).chains[0].epoch, part(&moved).epoch);
        assert_eq!(held_by(part(&moved), one), 0);
    }

    #[test]
    fn replica_that_was_to_leave_stays_when_another_one_is_lost() {
        let mut old = drained(with(3, 2, &[&[1, 2, 3], &[3, 2]]), 1);
        let there = old.datacenters.get_mut(&HERE).unwrap();
        there.retiring.insert(ShardId(0), (node(1), Epoch(2)));
        let mut lost = well(&old);
        lost.nodes.insert(node(3), Life::Expired);
        let kept = next_configuration(&old, HERE, &lost).unwrap();
        assert!(kept.changes.contains(&Change::Kept { shard: ShardId(0), node: node(1) }));
        assert!(!part(&kept.configuration).is_aside(node(1), ShardId(0)));
    }

    #[test]
    fn drained_node_ends_with_nothing_and_gets_its_share_again_later() {
        let chains: Vec<&[u16]> = [&[1, 2, 3][..], &[2, 3, 4], &[3, 4, 1], &[4, 1, 2]].repeat(4);
        let old = drained(with(4, 3, &chains), 2);
        let (empty, _) = settled(old);
        assert_eq!((held_by(part(&empty), node(2)), why_stuck(part(&empty), node(2))), (0, None));
        assert!(part(&empty).chains.iter().all(|chain| chain.serving.len() == 3));
        let mut back = empty;
        let next = with_drained(part(&back), node(2), false).unwrap();
        back.datacenters.insert(HERE, next);
        let (full, _) = settled(back);
        assert_eq!(spread(&full, |chain, node| chain.serving.contains(&node)), 0);
        assert!(spread(&full, |chain, node| chain.serving.first() == Some(&node)) <= 1);
    }

    #[test]
    fn replicas_of_a_node_that_is_gone_and_drained_are_made_elsewhere() {
        let mut old = drained(with(4, 2, &[&[1, 2], &[2, 3]]), 1);
        let there = old.datacenters.get_mut(&HERE).unwrap();
        there.absent.insert(node(1));
        there.chains[0].serving = vec![node(2)];
        there.chains[0].waiting.insert(node(1), Waiting::Offline);
        for _ in 0..6 {
            let mut facts = well(&old);
            facts.nodes.insert(node(1), Life::Expired);
            facts.adopted.remove(&node(1));
            let Some(decision) = next_configuration(&old, HERE, &facts) else { break };
            old = decision.configuration;
        }
        assert_eq!(held_by(part(&old), node(1)), 0, "{:?}", part(&old).chains);
        assert!(part(&old).chains.iter().all(|chain| chain.serving.len() == 2));
    }

    #[test]
    fn drain_that_cannot_end_says_why() {
        let old = drained(with(3, 3, &[&[1, 2, 3], &[2, 3, 1]]), 1);
        assert_eq!(next_configuration(&old, HERE, &well(&old)), None);
        let why = why_stuck(part(&old), node(1)).unwrap();
        assert!(why.starts_with("only 2 nodes may hold something"), "{why}");
        assert_eq!(why_stuck(part(&old), node(2)), None);
        let mut old = drained(with(4, 3, &[&[1, 2, 3], &[2, 3, 1]]), 1);
        assert_eq!(why_stuck(part(&old), node(1)), None, "the fourth takes them");
        old.datacenters.get_mut(&HERE).unwrap().absent.insert(node(4));
        assert!(why_stuck(part(&old), node(1)).unwrap().starts_with("2 shards have no other"));
        let alone = drained(with(2, 1, &[&[1], &[2]]), 1);
        assert!(with_drained(part(&alone), node(1), true).is_none(), "it is so already");
        assert!(with_drained(part(&alone), node(9), true).is_none(), "there is no such node");
        assert_eq!(part(&alone).epoch, Epoch(2));
    }
}
