//! Decides which replicas serve: facts in, the next configuration and its reasons out.
//!
//! `next_configuration` looks at each chain of one datacenter by itself. Per replica:
//!
//! | it is | its node has expired | its node lives | its node runs anew | nothing is known |
//! |---|---|---|---|---|
//! | serving, another serving one has not expired | offline | stays | stays, in a new epoch | stays |
//! | serving, all serving ones have expired | last-serving | - | - | - |
//! | last-serving, all of those are known | offline once another serves | serving | serving | the chain waits |
//! | syncing | offline | serving once it has caught up | offline, to copy anew | stays |
//! | offline | stays | syncing, if the chain serves and nobody else syncs | as left | stays |
//!
//! A node that shall hold nothing does not begin to copy while another one may.
//!
//! A node that leaves has said that it is about to stop, and that it answers nobody any more. A
//! serving or syncing replica of it goes offline as if it had expired, but one stays where no other
//! serving one was heard since, has settled and goes on; it begins nothing.
//!
//! A node that is short of disk is marked so. Its replicas then step aside where another one that
//! serves does not yield (`Datacenter::is_aside`): they still count in commits, but answer nobody. Once
//! the node has said that it has taken that over, nobody can be shown old state by it any more,
//! and once another one has said so too, which is there then, its replicas go offline as if it had
//! expired; they come back when it has room.
//!
//! Two nodes may live and not reach each other (`reach`): a chain in which they are neighbours
//! commits nothing. One of the two is marked as apart, and yields in the same way as one that is
//! short of disk; it comes back when it is reached again.
//!
//! A serving replica whose log its neighbour cannot mend, or whose node came back with an empty log,
//! goes offline, to copy anew; where nobody else who has all serves, the chain goes dark and waits. A chain takes a new epoch when those that serve, or their runs, change; what
//! changes in one chain does not disturb the others.
//!
//! So failure shortens a chain at once, and a chain grows by one replica at a time, at its tail. The
//! last replicas that served are remembered: a chain never begins again from stale data (DESIGN
//! section 3, after the chain states of 3FS). Each replica of a chain that went dark has all that
//! was committed, since a commit needs all of them; which of them has the longest log they settle
//! among themselves (`chain::settle`).
//!
//! Assumes: a node counts as expired only after its right to serve has run out, and by a manager
//! that has listened for a full dead-time (PITFALLS B6): until then nothing is known of it.
//! Ensures: the same configuration and facts give the same decision; the epoch grows by one with
//! each; nobody serves who may lack what was committed; nothing stays as it is once all nodes live
//! and have caught up, until all replicas serve.
//! What nothing of that concerns may be moved, a step at a time (`moves`): replicas away from nodes
//! that shall hold nothing and to nodes that hold little, heads and tails to where there are few.

/// When a node that is asked to stop may do so.
pub mod leaving;
/// Which datacenters belong to the deployment.
pub mod membership;
/// What is moved while nothing is wrong.
pub mod moves;
/// Who yields where nodes that live cannot reach each other.
mod reach;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use antecede_model::{
    configuration::{Chain, Configuration, Datacenter, Waiting},
    ids::{Boot, DatacenterId, Epoch, NodeId, ShardId},
};

/// How often a node says that it lives.
pub const BEAT_EVERY: Duration = Duration::from_millis(100);
/// For how long a node may answer after it sent a beat that was answered: half the time after which
/// it is given up, so that clocks may run apart by much and it still stops first.
pub const LEASE: Duration = Duration::from_millis(500);
/// After how long a silence a manager gives a node up; counted from the last beat that it heard, and
/// not before it has listened for so long itself (PITFALLS B6).
pub const DEAD_AFTER: Duration = Duration::from_secs(1);

/// For how long a node must fail to reach another one of its datacenter before it says so: longer
/// than it takes to be connected again after either has restarted.
pub const UNREACHED_AFTER: Duration = Duration::from_secs(2);

/// Shards that one node copies at the same time: a node that comes back must not take all of the
/// others' attention at once.
pub const COPIES_AT_ONCE: usize = 32;

/// What a manager knows of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// Nothing, or not for long enough: neither alive nor dead.
    #[default]
    Unknown,
    /// It beats, in this run.
    Alive(Boot),
    /// It has been silent for the whole dead-time, and its rights have run out.
    Expired,
}

/// What a manager knows of its datacenter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The epoch in which all of it was measured; for any other it counts nothing (PITFALLS A5).
    pub epoch: Epoch,
    /// What is known of nodes; of those that are not named, nothing.
    pub nodes: BTreeMap<NodeId, Life>,
    /// Syncing replicas that hold all that their chain's tail holds, and get what comes.
    pub caught_up: BTreeSet<(ShardId, NodeId)>,
    /// Nodes whose disks have no room for new writes, in whatever epoch they said so.
    pub short: BTreeSet<NodeId>,
    /// Nodes that act by this epoch: what they measured was measured in it.
    pub adopted: BTreeSet<NodeId>,
    /// Nodes whose present run began with an empty log: what an earlier one held is gone.
    pub emptied: BTreeSet<NodeId>,
    /// Nodes with a folder with which no run was known before the present one. One that keeps nothing
    /// on a disk is none of them: that it begins with an empty log is what was asked for.
    pub without_folder: BTreeSet<NodeId>,
    /// Serving replicas whose log their neighbour cannot mend: it lacks more than the neighbour
    /// still has. They have not answered anybody in this epoch.
    pub misfits: BTreeSet<(ShardId, NodeId)>,
    /// Nodes that are about to stop, and for how long they have said so: they have given up their
    /// right to serve for the rest of their run before. What they have stays in their chains until
    /// others go on without.
    pub leaving: BTreeMap<NodeId, Duration>,
    /// How long ago each node was heard last.
    pub heard: BTreeMap<NodeId, Duration>,
    /// Who has not reached whom for long, in whatever epoch they said so; of nodes that live. One
    /// way that is cut is enough, since neither hears an answer then.
    pub unreached: BTreeSet<(NodeId, NodeId)>,
    /// Nodes with a replica that serves and has not settled yet, or that is to leave and has not
    /// answered all that it took before.
    pub settling: BTreeSet<NodeId>,
    /// The epochs that nodes acted by when they were heard last, newer than this one never.
    pub acts_by: BTreeMap<NodeId, Epoch>,
}

impl Facts {
    /// What is known of a node.
    #[must_use]
    pub fn life(&self, node: NodeId) -> Life {
        self.nodes.get(&node).copied().unwrap_or_default()
    }

    fn has_expired(&self, node: NodeId) -> bool {
        self.life(node) == Life::Expired
    }

    /// Whether a node lives and is to stay.
    fn is_alive(&self, node: NodeId) -> bool {
        matches!(self.life(node), Life::Alive(_)) && !self.leaving.contains_key(&node)
    }

    /// Whether a node has said something since another one said that it leaves. One that has not may
    /// have lost its disk before.
    fn is_heard_since(&self, node: NodeId, leaver: NodeId) -> bool {
        let times = self.heard.get(&node).zip(self.leaving.get(&leaver));
        times.is_some_and(|(heard, leaving)| heard < leaving)
    }
}

/// One thing that a decision changes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A node was silent for too long.
    Expired {
        /// The node.
        node: NodeId,
    },
    /// A node runs that was gone, or in a run that no right belongs to yet.
    Started {
        /// The node.
        node: NodeId,
        /// Its run.
        boot: Boot,
    },
    /// A replica leaves its chain, because its node has expired.
    Shortened {
        /// The chain.
        shard: ShardId,
        /// Who leaves.
        node: NodeId,
    },
    /// A replica leaves its chain, because its node is about to stop.
    Left {
        /// The chain.
        shard: ShardId,
        /// Who leaves.
        node: NodeId,
    },
    /// A replica leaves its chain to copy anew: its log lacks more than its neighbour can give it.
    Misfit {
        /// The chain.
        shard: ShardId,
        /// Who leaves.
        node: NodeId,
    },
    /// A replica leaves its chain to copy anew: its node came back with an empty log.
    Emptied {
        /// The chain.
        shard: ShardId,
        /// Who leaves.
        node: NodeId,
    },
    /// A node's disk has no room for new writes.
    Short {
        /// The node.
        node: NodeId,
    },
    /// A node's disk has room again.
    HasRoom {
        /// The node.
        node: NodeId,
    },
    /// A replica that has stepped aside leaves its chain: its node is short of disk.
    SteppedAside {
        /// The chain.
        shard: ShardId,
        /// Who leaves.
        node: NodeId,
    },
    /// A node lives, but others that live cannot reach it.
    Apart {
        /// The node.
        node: NodeId,
    },
    /// A node that was apart is reached again.
    Reached {
        /// The node.
        node: NodeId,
    },
    /// A replica that has stepped aside leaves its chain: others cannot reach its node.
    CutOff {
        /// The chain.
        shard: ShardId,
        /// Who leaves.
        node: NodeId,
    },
    /// All replicas of a chain that could have its data keep it in memory only, and came back with
    /// an empty log: it goes on with what is there.
    LostAll {
        /// The chain.
        shard: ShardId,
        /// One of them.
        node: NodeId,
    },
    /// The same, but they had it on disks: the chain is dark, and nothing but a person's word lets it
    /// begin again, since whoever reads would be told that there is nothing.
    LostFolder {
        /// The chain.
        shard: ShardId,
        /// One of them.
        node: NodeId,
    },
    /// The last replicas of a chain have expired: it waits for one of them.
    Dark {
        /// The chain.
        shard: ShardId,
        /// One of those that served last.
        node: NodeId,
    },
    /// A chain that was dark begins again with a replica that served last.
    Relit {
        /// The chain.
        shard: ShardId,
        /// Who serves again.
        node: NodeId,
    },
    /// A replica begins to copy what it lacks.
    Returned {
        /// The chain.
        shard: ShardId,
        /// Who copies.
        node: NodeId,
    },
    /// A replica has what it lacked, and serves as the tail.
    CaughtUp {
        /// The chain.
        shard: ShardId,
        /// The new tail.
        node: NodeId,
    },
    /// A replica does not copy any more: its node has expired, is about to stop, runs anew, has no
    /// room, or is apart.
    GaveUp {
        /// The chain.
        shard: ShardId,
        /// Who copied.
        node: NodeId,
    },
    /// A node shall hold nothing: others are to take its replicas.
    Drained {
        /// The node.
        node: NodeId,
    },
    /// A node that held nothing may hold replicas again.
    Undrained {
        /// The node.
        node: NodeId,
    },
    /// A node begins to copy a shard that it does not hold.
    Moving {
        /// The chain.
        shard: ShardId,
        /// Who copies.
        node: NodeId,
    },
    /// A chain has more replicas than it needs: one steps aside.
    Retiring {
        /// The chain.
        shard: ShardId,
        /// Who steps aside.
        node: NodeId,
    },
    /// A replica that has stepped aside, or was away, leaves its chain for good: others are enough.
    Moved {
        /// The chain.
        shard: ShardId,
        /// Who leaves.
        node: NodeId,
    },
    /// A replica that was to leave stays: the others are not enough any more.
    Kept {
        /// The chain.
        shard: ShardId,
        /// Who stays.
        node: NodeId,
    },
    /// A chain has another head, so that nodes have about equally many.
    NewHead {
        /// The chain.
        shard: ShardId,
        /// The head.
        node: NodeId,
    },
    /// A chain has another tail, so that nodes have about equally many.
    NewTail {
        /// The chain.
        shard: ShardId,
        /// The tail.
        node: NodeId,
    },
}

impl fmt::Display for Change {
    #[expect(clippy::too_many_lines, reason = "a sentence for each change")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { node } => write!(f, "node {node} was silent for too long"),
            Self::Started { node, boot } => write!(f, "node {node} runs, as run {boot}"),
            Self::Shortened { shard, node } => {
                write!(f, "shard {shard} goes on without {node}, which was silent for too long")
            }
            Self::Left { shard, node } => {
                write!(f, "shard {shard} goes on without {node}, which is about to stop")
            }
            Self::Misfit { shard, node } => write!(
                f,
                "shard {shard} goes on without {node}, whose log lacks more than its neighbour has"
            ),
            Self::Emptied { shard, node } => {
                write!(f, "{node} came back with an empty log and copies shard {shard} anew")
            }
            Self::Short { node } => {
                write!(f, "the disk of node {node} has no room for new writes; free space there")
            }
            Self::HasRoom { node } => write!(f, "the disk of node {node} has room again"),
            Self::SteppedAside { shard, node } => {
                write!(f, "shard {shard} goes on without {node}, whose disk has no room")
            }
            Self::Apart { node } => write!(
                f,
                "node {node} lives, but others that live cannot reach it; see to the network between \
                 them"
            ),
            Self::Reached { node } => write!(f, "node {node} is reached by all others again"),
            Self::CutOff { shard, node } => {
                write!(f, "shard {shard} goes on without {node}, which others cannot reach")
            }
            Self::LostAll { shard, node } => write!(
                f,
                "shard {shard} has lost what its replicas held: {node}, too, came back with an \
                 empty log"
            ),
            Self::LostFolder { shard, node } => write!(
                f,
                "shard {shard} is not served: {node}, the last that had its data, came back with an \
                 empty folder"
            ),
            Self::Dark { shard, node } => write!(
                f,
                "shard {shard} is not served: {node}, one of its last replicas, was silent for too \
                 long; start that node again"
            ),
            Self::Relit { shard, node } => {
                write!(f, "shard {shard} is served again by {node}, which served it last")
            }
            Self::Returned { shard, node } => {
                write!(f, "{node} is back and copies shard {shard}")
            }
            Self::CaughtUp { shard, node } => {
                write!(f, "{node} holds all of shard {shard} and is its tail")
            }
            Self::GaveUp { shard, node } => {
                write!(
                    f,
                    "{node} copies shard {shard} no more: it was silent, stops, has restarted, has no \
                     room, or cannot be reached"
                )
            }
            Self::Drained { node } => {
                write!(f, "node {node} shall hold nothing: others take its replicas")
            }
            Self::Undrained { node } => write!(f, "node {node} may hold replicas again"),
            Self::Moving { shard, node } => write!(f, "{node} copies shard {shard}, to hold it"),
            Self::Retiring { shard, node } => {
                write!(f, "{node} steps aside in shard {shard}, which others hold by now")
            }
            Self::Moved { shard, node } => {
                write!(f, "{node} holds shard {shard} no more: others do")
            }
            Self::Kept { shard, node } => {
                write!(f, "{node} keeps shard {shard}: the others are not enough any more")
            }
            Self::NewHead { shard, node } => {
                write!(f, "{node} is the head of shard {shard}, as it had fewer than others")
            }
            Self::NewTail { shard, node } => {
                write!(f, "{node} is the tail of shard {shard}, as it had fewer than others")
            }
        }
    }
}

/// A configuration that shall follow another, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What shall hold.
    pub configuration: Configuration,
    /// What changes; never empty.
    pub changes: Vec<Change>,
}

/// What shall follow a configuration in one datacenter; `None` while all is as it should be, or
/// nothing can be done.
#[must_use]
pub fn next_configuration(
    old: &Configuration,
    here: DatacenterId,
    facts: &Facts,
) -> Option<Decision> {
    let datacenter = old.datacenter(here)?;
    if facts.epoch != datacenter.epoch {
        return None;
    }
    let mut changes = Vec::new();
    let mut next = datacenter.clone();
    let (mut restarted, mut emptied) = (BTreeSet::new(), BTreeSet::new());
    for node in datacenter.nodes.iter().copied() {
        let known = datacenter.boots.get(&node).copied();
        match facts.life(node) {
            Life::Unknown => {}
            Life::Expired => {
                if next.absent.insert(node) {
                    changes.push(Change::Expired { node });
                }
            }
            Life::Alive(boot) => {
                let is_new = known.is_none_or(|known| known < boot);
                if is_new {
                    next.boots.insert(node, boot);
                    restarted.insert(node);
                }
                if is_new && known.is_some() && facts.emptied.contains(&node) {
                    emptied.insert(node);
                }
                if next.absent.remove(&node) || is_new {
                    changes.push(Change::Started { node, boot });
                }
                if !facts.short.contains(&node) {
                    changes.extend(next.short.remove(&node).then_some(Change::HasRoom { node }));
                } else if next.short.insert(node) {
                    changes.push(Change::Short { node });
                }
            }
        }
    }
    next.apart = reach::who_yields(datacenter, &next.short, facts);
    changes.extend(changes_apart(datacenter, &next.apart, facts));
    let yielding: BTreeSet<NodeId> = next.short.union(&next.apart).copied().collect();
    let mut copies = copies_of(&next.chains);
    let shards = old.shard_count.shards();
    for (shard, chain) in shards.zip(&mut next.chains) {
        let (restarted, emptied, yielding) = (&restarted, &emptied, &yielding);
        let (before, copies) = (datacenter, &mut copies);
        let mut step = Step { shard, before, facts, restarted, emptied, yielding, copies };
        let decided = step.next_chain(chain, &mut changes);
        let is_disturbed = decided.serving != chain.serving
            || decided.serving.iter().any(|node| restarted.contains(node));
        *chain = decided;
        if is_disturbed {
            chain.epoch = datacenter.epoch.next();
        }
    }
    changes.extend(moves::end_retirements(&mut next, facts));
    if changes.is_empty() {
        changes = moves::next_moves(&mut next, facts);
    }
    if changes.is_empty() {
        return None;
    }
    next.epoch = datacenter.epoch.next();
    let mut configuration = old.clone();
    configuration.datacenters.insert(here, next);
    Some(Decision { configuration, changes })
}

/// Who yields from now on because others cannot reach it, and who does not any more.
fn changes_apart(before: &Datacenter, apart: &BTreeSet<NodeId>, facts: &Facts) -> Vec<Change> {
    let new = apart.difference(&before.apart).map(|node| Change::Apart { node: *node });
    let back = before.apart.difference(apart).filter(|node| facts.is_alive(**node));
    new.chain(back.map(|node| Change::Reached { node: *node })).collect()
}

/// How many shards each node copies.
fn copies_of(chains: &[Chain]) -> BTreeMap<NodeId, usize> {
    let mut copies = BTreeMap::new();
    for node in chains.iter().flat_map(|chain| chain.waiting_as(Waiting::Syncing)) {
        *copies.entry(node).or_default() += 1;
    }
    copies
}

/// One chain's part of a decision.
struct Step<'a> {
    shard: ShardId,
    /// What holds.
    before: &'a Datacenter,
    facts: &'a Facts,
    /// Nodes that yield from now on.
    yielding: &'a BTreeSet<NodeId>,
    /// Nodes whose run is new in this decision.
    restarted: &'a BTreeSet<NodeId>,
    /// Those of them that have lost what their earlier run held.
    emptied: &'a BTreeSet<NodeId>,
    /// How many shards each node copies; those that end with this decision count still.
    copies: &'a mut BTreeMap<NodeId, usize>,
}

impl Step<'_> {
    fn next_chain(&mut self, chain: &Chain, changes: &mut Vec<Change>) -> Chain {
        let before = changes.len();
        let mut next = chain.clone();
        if chain.serving.is_empty() {
            self.take_out_emptied(&mut next, changes);
            self.relight(&mut next, changes);
        } else {
            self.shorten(&mut next, changes);
        }
        self.give_up(&mut next, changes);
        // One safe step at a time: who is to grow a chain is measured against the chain as it is.
        if before == changes.len() && !next.serving.is_empty() {
            self.grow(&mut next, changes);
        }
        next
    }

    /// Takes out of a chain who has expired, leaves, has lost its log, or cannot agree with the
    /// others.
    ///
    /// As long as somebody is left who has all, that is all there is to it. Else the chain waits for
    /// those that had all when they were heard last; and where there is nobody like that, those that
    /// are there go on with what they have: nobody has more.
    fn shorten(&self, next: &mut Chain, changes: &mut Vec<Change>) {
        let shard = self.shard;
        let is_misfit = |node: &NodeId| self.facts.misfits.contains(&(shard, *node));
        let is_wanting = |node: &NodeId| is_misfit(node) || self.emptied.contains(node);
        let leaves = |node: &NodeId| self.facts.leaving.contains_key(node);
        let has_all = |node: &NodeId| !self.facts.has_expired(*node) && !is_wanting(node);
        // One that has everything stays in the chain to the end, unless another one has been heard
        // since and has settled: what is not known of may come back with an empty log, and one that
        // has not agreed with its neighbours yet may lack its end. Where all leave, the one that was
        // heard last is the other one.
        let remains = |node: &NodeId| has_all(node) && self.facts.is_alive(*node);
        let age = |node: &NodeId| self.facts.heard.get(node).copied().unwrap_or(Duration::MAX);
        let all_leave = !next.serving.iter().any(remains);
        let leavers = next.serving.iter().rev().filter(|node| has_all(node) && leaves(node));
        let stays = leavers.filter(|_| all_leave).min_by_key(|node| age(node)).copied();
        let others: Vec<NodeId> = next
            .serving
            .iter()
            .copied()
            .filter(|node| remains(node) || stays == Some(*node))
            .collect();
        // One that leaves is not among those that act.
        let yields = |node: &NodeId| self.yielding.contains(node);
        let retires = |node: &NodeId| self.before.retires(shard) == Some(*node);
        let goes_on_with = |node: &&NodeId| {
            !yields(node) && !retires(node) && !is_wanting(node) && self.acts(**node)
        };
        let goes_on = next.serving.iter().any(|node| goes_on_with(&node));
        let is_aside: BTreeSet<NodeId> = next
            .serving
            .iter()
            .filter(|node| goes_on && yields(node) && self.has_stepped_aside(**node))
            .copied()
            .collect();
        let is_leaving = |node: &NodeId| {
            // Nor does the one take over that goes in the same step.
            let takes_over = |other: &NodeId| {
                let is_there = self.facts.is_heard_since(*other, *node) && self.has_settled(*other);
                is_there && !is_aside.contains(other)
            };
            leaves(node) && stays != Some(*node) && others.iter().any(takes_over)
        };
        let is_gone = |node: &NodeId| self.facts.has_expired(*node) || is_leaving(node);
        let is_left = |node: &NodeId| !is_gone(node) && !is_wanting(node);
        let is_dark = !next.serving.iter().any(is_left);
        if is_dark && next.serving.iter().all(is_wanting) {
            if !self.lose_all(next, changes) {
                let lost = next.serving.iter().filter(|node| self.emptied.contains(node));
                changes.extend(lost.map(|node| Change::LostAll { shard, node: *node }));
            }
            return;
        }
        for node in std::mem::take(&mut next.serving) {
            let (why, change) = if self.emptied.contains(&node) {
                (Waiting::Offline, Change::Emptied { shard, node })
            } else if is_misfit(&node) {
                (Waiting::Offline, Change::Misfit { shard, node })
            } else if is_aside.contains(&node) {
                (Waiting::Offline, self.stepped_aside(node))
            } else if !is_gone(&node) {
                next.serving.push(node);
                continue;
            } else if is_leaving(&node) && !self.facts.has_expired(node) {
                (Waiting::Offline, Change::Left { shard, node })
            } else if is_dark {
                (Waiting::LastServing, Change::Dark { shard, node })
            } else {
                (Waiting::Offline, Change::Shortened { shard, node })
            };
            next.waiting.insert(node, why);
            changes.push(change);
        }
    }

    /// Leaves a chain without anybody who may serve, if all that had its data have lost the folders
    /// that held it; tells whether it is so.
    fn lose_all(&self, next: &mut Chain, changes: &mut Vec<Change>) -> bool {
        let last = next.waiting_as(Waiting::LastServing);
        let had_all: Vec<NodeId> = next.serving.iter().copied().chain(last).collect();
        let is_lost = had_all.iter().all(|node| self.emptied.contains(node))
            && had_all.iter().any(|node| self.facts.without_folder.contains(node));
        if is_lost {
            next.serving.clear();
            for node in had_all {
                next.waiting.insert(node, Waiting::Offline);
                changes.push(Change::LostFolder { shard: self.shard, node });
            }
        }
        is_lost
    }

    /// Why a replica that has stepped aside leaves.
    fn stepped_aside(&self, node: NodeId) -> Change {
        let shard = self.shard;
        if self.before.short.contains(&node) {
            Change::SteppedAside { shard, node }
        } else {
            Change::CutOff { shard, node }
        }
    }

    /// Whether a replica has said that it answers nobody any more, in the run that it could answer in.
    fn has_stepped_aside(&self, node: NodeId) -> bool {
        self.before.is_aside(node, self.shard) && self.acts(node)
    }

    /// Whether a node has said something since the configuration holds that is there, in the run that
    /// it names.
    fn has_adopted(&self, node: NodeId) -> bool {
        self.facts.adopted.contains(&node) && !self.restarted.contains(&node)
    }

    /// Whether a node that is to stay has adopted what holds.
    fn acts(&self, node: NodeId) -> bool {
        self.facts.is_alive(node) && self.has_adopted(node)
    }

    /// Whether a node has adopted what holds, and its replicas have agreed with their neighbours on
    /// what they hold: what its run before had lost of its log's end, it has again.
    fn has_settled(&self, node: NodeId) -> bool {
        self.has_adopted(node) && !self.facts.settling.contains(&node)
    }

    /// A chain that is dark does not begin again with a replica that has lost its log, unless nobody
    /// else was there when it went dark, and all keep their data in memory only.
    fn take_out_emptied(&self, next: &mut Chain, changes: &mut Vec<Change>) {
        let shard = self.shard;
        let last: Vec<NodeId> = next.waiting_as(Waiting::LastServing).collect();
        if last.is_empty() || self.lose_all(next, changes) {
            return;
        }
        let are_all = last.iter().all(|node| self.emptied.contains(node));
        for node in last.into_iter().filter(|node| self.emptied.contains(node)) {
            if are_all {
                changes.push(Change::LostAll { shard, node });
            } else {
                next.waiting.insert(node, Waiting::Offline);
                changes.push(Change::Emptied { shard, node });
            }
        }
    }

    /// Begins a dark chain again, once it is known of all that served last whether they are there.
    fn relight(&self, next: &mut Chain, changes: &mut Vec<Change>) {
        let shard = self.shard;
        let last: Vec<NodeId> = next.waiting_as(Waiting::LastServing).collect();
        let is_known = last.iter().all(|node| self.facts.life(*node) != Life::Unknown);
        if !is_known || !last.iter().any(|node| self.facts.is_alive(*node)) {
            return;
        }
        let mut last = last;
        let turn = usize::from(shard.0) % last.len().max(1);
        last.rotate_left(turn); // Heads spread over the nodes.
        for node in last {
            if self.facts.is_alive(node) {
                next.waiting.remove(&node);
                next.serving.push(node);
                changes.push(Change::Relit { shard, node });
            } else {
                next.waiting.insert(node, Waiting::Offline);
            }
        }
    }

    /// Ends the copying of nodes that are gone or leave, or that have lost what they held in memory.
    fn give_up(&self, next: &mut Chain, changes: &mut Vec<Change>) {
        let shard = self.shard;
        let syncing: Vec<NodeId> = next.waiting_as(Waiting::Syncing).collect();
        for node in syncing {
            let is_gone = self.facts.has_expired(node) || self.facts.leaving.contains_key(&node);
            let is_over = self.restarted.contains(&node) || self.yielding.contains(&node);
            if is_gone || is_over {
                next.waiting.insert(node, Waiting::Offline);
                changes.push(Change::GaveUp { shard, node });
            }
        }
    }

    /// Lets a replica that has caught up serve, or one that is back begin to copy.
    fn grow(&mut self, next: &mut Chain, changes: &mut Vec<Change>) {
        let shard = self.shard;
        let copies = next.waiting_as(Waiting::Syncing).next();
        if let Some(node) = copies {
            if self.facts.caught_up.contains(&(shard, node)) {
                next.waiting.remove(&node);
                next.serving.push(node);
                changes.push(Change::CaughtUp { shard, node });
            }
            return;
        }
        let others_may = self.before.nodes.iter().any(|node| {
            let is_free = !next.serving.contains(node) && !self.before.drained.contains(node);
            is_free && self.facts.is_alive(*node) && !self.yielding.contains(node)
        });
        let may_copy = |node: &NodeId| {
            let copies = self.copies.get(node).copied().unwrap_or_default();
            let yields = self.yielding.contains(node);
            let is_wished = !self.before.drained.contains(node) || !others_may;
            self.facts.is_alive(*node) && is_wished && !yields && copies < COPIES_AT_ONCE
        };
        let back = next.waiting_as(Waiting::Offline).find(may_copy);
        if let Some(node) = back {
            *self.copies.entry(node).or_default() += 1;
            next.waiting.insert(node, Waiting::Syncing);
            changes.push(Change::Returned { shard, node });
        }
    }
}
