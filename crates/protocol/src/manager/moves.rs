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
//! Assumes: it is asked only while nothing else is to be decided.
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
/// those that shall hold nothing keep theirs then.
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

/// Changes a datacenter's part by the next moves; tells which.
pub(super) fn next_moves(next: &mut Datacenter, facts: &Facts) -> Vec<Change> {
    let mut moves = Moves { next, facts, changes: Vec::new() };
    moves.end_retirements();
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
        for (shard, node) in self.next.retiring.clone() {
            let Some(chain) = self.next.chains.get(place(shard)) else { continue };
            let others = chain.serving.iter().filter(|other| **other != node);
            let enough = self.wished() <= others.filter(|other| self.is_sound(**other)).count();
            if !enough {
                self.next.retiring.remove(&shard);
                self.changes.push(Change::Kept { shard, node });
            } else if self.facts.adopted.contains(&node) {
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
                self.next.retiring.insert(shard, node);
                self.changes.push(Change::Retiring { shard, node });
            }
        }
    }

    /// Forgets replicas that are away where enough others serve that are to stay.
    fn forget(&mut self) {
        for shard in self.shards() {
            let chain = &self.next.chains[place(shard)];
            let stays = |node: &&NodeId| {
                self.may_hold(**node) && self.next.retiring.get(&shard) != Some(*node)
            };
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
        if is_stuck(self.next) {
            return;
        }
        let mut loads = self.loads();
        for shard in self.shards() {
            let chain = &self.next.chains[place(shard)];
            let is_held = chain.members().any(|node| self.next.drained.contains(&node));
            let stays = chain.members().filter(|node| !self.next.drained.contains(node));
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
            let retires = self.next.retiring.get(&shard);
            for node in chain.members().filter(|node| Some(node) != retires) {
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
            let step = |from: &NodeId, to: &NodeId| {
                self.shards().find(|shard| {
                    let chain = &self.next.chains[place(*shard)];
                    let has_room = chain.waiting.is_empty() && !chain.serving.contains(to);
                    has_room && chain.serving.contains(from)
                })
            };
            let pairs = loads.iter().flat_map(|from| loads.iter().map(move |to| (from, to)));
            let mut pairs: Vec<((&NodeId, &usize), (&NodeId, &usize))> =
                pairs.filter(|(from, to)| *to.1 + DIFFERENCE_MIN <= *from.1).collect();
            pairs.sort_by_key(|(from, to)| to.1.abs_diff(*from.1));
            let found = pairs
                .iter()
                .rev()
                .find_map(|(from, to)| step(from.0, to.0).map(|shard| (shard, *from.0, *to.0)));
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
