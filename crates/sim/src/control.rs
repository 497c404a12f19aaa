//! Simulates the control plane of each datacenter: a register that holds its part of the
//! configuration, changes only by compare-and-swap, is slow, and cannot always be reached.
//!
//! Nodes say that they live and are told the newest state of the register; that is their lease. A
//! manager looks at what it has heard and decides by the protocol's own function. Its decision
//! reaches the register later: if that has changed in between, the decision comes to nothing. A
//! manager that takes over has heard of nobody. A node that renews its lease after the last one has
//! ended may have been given up already, by a decision that is on its way: it first writes what it
//! was told back, unchanged, which makes that decision come to nothing.
//!
//! A node tells whom it has not reached for long. Here that is who is cut off from it one way or the
//! other: a connection needs both, so neither end keeps it.
//!
//! Assumes: the agreement below is right; it has tests of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use antecede_model::{
    clock::Steady,
    configuration::{Configuration, Datacenter, Waiting},
    ids::{Boot, DatacenterId, Epoch, NodeId, ShardId},
};
use antecede_protocol::{
    machine::Lease,
    manager::{BEAT_EVERY, DEAD_AFTER, Facts, LEASE, Life, UNREACHED_AFTER, next_configuration},
    mutation::{Mutation, Mutations},
};

use crate::{
    check::Failure,
    moment::{MILLI, Moment, SECOND},
    world::{Happening, Place, World},
};

/// How long chains may take to go on without a node that another one does not reach, once it says so.
const LINE_WITHIN: u64 = 3 * SECOND;
/// How often a manager looks at what it has heard.
const LOOK_EVERY: u64 = 50 * MILLI;
/// How long a write takes to the register at most: mostly, and sometimes.
const WRITE_DELAYS_MAX: [u64; 4] = [10 * MILLI, 60 * MILLI, 60 * MILLI, 600 * MILLI];
/// Of a thousand beats and answers, how many are lost.
const LOST_PER_MILLE: u64 = 10;

/// One datacenter's register, and what its manager has heard.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    /// What the register holds.
    part: Arc<Datacenter>,
    /// How often it was written.
    revision: u64,
    /// Whether it can be reached by anybody.
    pub(crate) is_up: bool,
    /// Since when the manager listens.
    listens_since: Moment,
    heard: BTreeMap<NodeId, Heard>,
    /// Since when every node's disk has had room, by what the register holds.
    room_since: Moment,
    /// Since when nodes do not reach others, each by its own look.
    unreached_since: BTreeMap<(NodeId, NodeId), Moment>,
    /// What was decided, and when it reaches the register.
    under_way: Vec<(Moment, Datacenter)>,
}

#[derive(Debug)]
struct Heard {
    at: Moment,
    beat: Beat,
}

/// What a node is told when it was heard.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// When it spoke, by its clock.
    sent: Steady,
    part: Arc<Datacenter>,
    revision: u64,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    node: NodeId,
    boot: Boot,
    /// By the node's clock.
    sent: Steady,
    /// What it measured the facts in.
    epoch: Epoch,
    caught_up: Vec<(ShardId, NodeId)>,
    misfits: Vec<(ShardId, NodeId)>,
    /// Whether its run began with an empty log.
    is_emptied: bool,
    /// Whether that run has another folder than the one before.
    has_new_folder: bool,
    /// For how long it has said that it is about to stop, and answers nobody any more.
    leaves_for: Option<u64>,
    /// Whether its disk has no room.
    is_short: bool,
    /// Whether its datacenter has done what the members ask of it.
    has_done: bool,
    /// Whom it has not reached for long.
    unreached: Vec<NodeId>,
    /// Whether a replica serves here that has not settled.
    is_settling: bool,
}

impl ControlPlane {
    pub(crate) fn new(part: &Datacenter) -> Self {
        Self {
            part: Arc::new(part.clone()),
            revision: 1,
            is_up: true,
            listens_since: Moment::default(),
            heard: BTreeMap::new(),
            room_since: Moment::default(),
            unreached_since: BTreeMap::new(),
            under_way: Vec::new(),
        }
    }

    /// What the register holds.
    pub(crate) fn part(&self) -> &Datacenter {
        &self.part
    }

    /// Whether the node that decides has said in this epoch that its datacenter has done what the
    /// members ask of it: the last one, which is not the one that other datacenters hear from, unless
    /// there is but one.
    pub(crate) fn has_done(&self, epoch: Epoch) -> bool {
        let mut latest = self.heard.values().rev().map(|heard| &heard.beat);
        latest.find(|beat| beat.epoch == epoch).is_some_and(|beat| beat.has_done)
    }

    /// What the register holds, and what it may hold soon.
    pub(crate) fn parts(&self, now: Moment) -> impl Iterator<Item = &Datacenter> {
        let under_way = self.under_way.iter().filter(move |(at, _)| now <= *at);
        std::iter::once(&*self.part).chain(under_way.map(|(_, part)| part))
    }

    /// Whether a node was heard a moment ago.
    pub(crate) fn hears(&self, node: NodeId, now: Moment) -> bool {
        let heard = self.heard.get(&node);
        heard.is_some_and(|heard| now.since(heard.at) < 3 * nanos(BEAT_EVERY))
    }

    /// Another manager takes over.
    pub(crate) fn take_over(&mut self, now: Moment) {
        self.listens_since = now;
        self.heard.clear();
    }

    /// What the manager may take for true.
    pub(crate) fn facts(&self, now: Moment, mutations: Mutations) -> Facts {
        let is_hasty = mutations.has(Mutation::ExpireBeforeLease);
        let forgets_listening = mutations.has(Mutation::UnknownIsExpired);
        let dead_after = nanos(if is_hasty { LEASE / 4 } else { DEAD_AFTER });
        let mut facts = Facts { epoch: self.part.epoch, ..Facts::default() };
        for node in &self.part.nodes {
            let heard = self.heard.get(node);
            let since = heard.map_or(self.listens_since, |heard| heard.at);
            let life = match heard {
                _ if dead_after <= now.since(since) => Life::Expired,
                None if forgets_listening => Life::Expired,
                None => Life::Unknown,
                Some(heard) => Life::Alive(heard.beat.boot),
            };
            facts.nodes.insert(*node, life);
        }
        let acts_by = self.heard.iter().map(|(node, heard)| (*node, heard.beat.epoch));
        facts.acts_by = acts_by.collect();
        let fresh = self.heard.values().filter(|heard| heard.beat.epoch == self.part.epoch);
        let emptied = self.heard.iter().filter(|(_, heard)| heard.beat.is_emptied);
        facts.emptied = emptied.map(|(node, _)| *node).collect();
        let new = self.heard.iter().filter(|(_, heard)| heard.beat.has_new_folder);
        facts.without_folder = new.map(|(node, _)| *node).collect();
        let ago = |heard: &Heard| now.since(heard.at);
        let ages = self.heard.iter().map(|(node, heard)| (*node, Duration::from_nanos(ago(heard))));
        facts.heard = ages.collect();
        let leaving = self.heard.iter().filter_map(|(node, heard)| {
            let leaves_for = heard.beat.leaves_for?;
            Some((*node, Duration::from_nanos(leaves_for + ago(heard))))
        });
        facts.leaving = leaving.collect();
        let short = self.heard.iter().filter(|(_, heard)| heard.beat.is_short);
        facts.short = short.map(|(node, _)| *node).collect();
        let settling = self.heard.iter().filter(|(_, heard)| heard.beat.is_settling);
        facts.settling = settling.map(|(node, _)| *node).collect();
        if !mutations.has(Mutation::KeepUnreached) {
            for heard in self.heard.values() {
                let others = heard.beat.unreached.iter();
                facts.unreached.extend(others.map(|other| (heard.beat.node, *other)));
            }
        }
        let (mut caught_up, mut misfits) = (BTreeSet::new(), BTreeSet::new());
        for heard in fresh {
            facts.adopted.insert(heard.beat.node);
            caught_up.extend(heard.beat.caught_up.iter().copied());
            misfits.extend(heard.beat.misfits.iter().copied());
        }
        if mutations.has(Mutation::RetireAtOnce) {
            let all = self.part.nodes.iter().map(|node| (*node, self.part.epoch));
            facts.acts_by = all.collect();
        }
        if mutations.has(Mutation::TakeHalfForWhole) {
            let chains = (0..).map(ShardId).zip(&self.part.chains);
            caught_up.extend(chains.flat_map(|(shard, chain)| {
                chain.waiting_as(Waiting::Syncing).map(move |node| (shard, node))
            }));
        }
        (facts.caught_up, facts.misfits) = (caught_up, misfits);
        facts
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a short time")
}

impl World {
    /// Begins the control planes, where there are any.
    pub(crate) fn begin_control(&mut self) {
        if !self.plan.shape.is_managed {
            return;
        }
        for (id, part) in &self.configuration.datacenters {
            self.control.insert(*id, ControlPlane::new(part));
            let at = self.now.after(self.chance.below(LOOK_EVERY));
            self.queue.add(at, Happening::Manage(*id));
        }
    }

    /// A node says that it lives.
    pub(crate) fn beat(&mut self, place: Place) {
        if !self.is_present(place) {
            return;
        }
        self.queue.add(self.now.after(nanos(BEAT_EVERY)), Happening::Beat(place));
        let unreached = self.unreached(place.node);
        let node = &self.nodes[place.node];
        let shards = || (0..).map(ShardId).zip(&node.shards);
        let facts = |of: fn(&antecede_protocol::chain::Shard) -> Option<NodeId>| {
            shards().filter_map(|(shard, replica)| Some((shard, of(replica.as_ref()?)?))).collect()
        };
        let beat = Beat {
            node: node.id,
            boot: node.boot,
            sent: node.clock.at(self.now).steady,
            epoch: node.epoch(),
            caught_up: facts(antecede_protocol::chain::Shard::caught_up),
            misfits: facts(antecede_protocol::chain::Shard::misfit),
            is_emptied: node.began_empty,
            has_new_folder: node.may_lack_in == Some(node.boot),
            leaves_for: node.leave.and_then(|leave| leave.said_at()).map(|at| self.now.since(at)),
            is_short: node.is_short(),
            has_done: node.keeper.has_done(node.id.datacenter),
            unreached,
            is_settling: node.is_settling() || node.has_open_retirement(),
        };
        if let Some(at) = self.crosses_to_control(place.node) {
            self.queue.add(at, Happening::Hear(place, Box::new(beat)));
        }
    }

    /// The nodes of its datacenter that a node has not reached for long.
    fn unreached(&mut self, number: usize) -> Vec<NodeId> {
        let from = self.nodes[number].id;
        let Some(control) = self.control.get_mut(&from.datacenter) else { return Vec::new() };
        let mut found = Vec::new();
        for to in control.part.nodes.iter().filter(|to| **to != from) {
            let is_cut = self.network.is_cut(from, *to) || self.network.is_cut(*to, from);
            if !is_cut {
                control.unreached_since.remove(&(from, *to));
                continue;
            }
            let since = control.unreached_since.entry((from, *to)).or_insert(self.now);
            if nanos(UNREACHED_AFTER) <= self.now.since(*since) {
                found.push(*to);
            }
        }
        found
    }

    /// A line between two nodes was cut for a while and is mended now: if nothing else was wrong,
    /// the chains of their datacenter must have gone on without one of them.
    pub(crate) fn check_line(&mut self, one: NodeId, other: NodeId, lasted: u64) {
        if lasted < nanos(UNREACHED_AFTER) + LINE_WITHIN || one.datacenter != other.datacenter {
            return;
        }
        if !self.configuration.is_present(one.datacenter) {
            return; // Nobody decides any more for one that is gone.
        }
        let Some(control) = self.control.get(&one.datacenter) else { return };
        let part = &control.part;
        let is_old = |moment: Moment| LINE_WITHIN <= self.now.since(moment);
        let is_well = |node: &NodeId| {
            let state = &self.nodes[self.place_of(*node)];
            let heard = control.heard.get(node);
            let is_heard =
                heard.is_some_and(|heard| self.now.since(heard.at) < 5 * nanos(BEAT_EVERY));
            let is_told = self.hears_since(*node).is_none_or(is_old);
            let is_itself =
                is_told && state.leave.is_none() && state.cost == 0 && state.disk_factor == 1;
            is_heard && is_itself && is_old(state.paused_until) && is_old(state.well_since)
        };
        let cut = control.unreached_since.keys().filter(|(from, to)| from < to).count();
        let is_quiet = control.is_up
            && is_old(control.listens_since)
            && part.nodes.iter().all(is_well)
            && part.short.is_empty()
            && is_old(control.room_since)
            && cut == 1;
        let is_pair = |pair: &[NodeId]| pair.contains(&one) && pair.contains(&other);
        let stuck = part.chains.iter().position(|chain| chain.serving.windows(2).any(is_pair));
        if is_quiet && let Some(shard) = stuck {
            let seconds = Duration::from_nanos(lasted).as_secs_f64();
            let what = format!(
                "{one} and {other} did not reach each other for {seconds} s, and are still \
                 neighbours in shard {shard}: {:?}",
                part.chains[shard]
            );
            self.fail(Failure::new("no_stuck", what));
        }
    }

    /// When something said now arrives, if it does.
    fn crosses_to_control(&mut self, node: usize) -> Option<Moment> {
        let is_lost = self.chance.per_mille(LOST_PER_MILLE) || self.nodes[node].is_cut_from_control;
        let delay = self.chance.spread(self.plan.weather.local_delay * 2) + 1_000;
        (!is_lost).then(|| self.now.after(delay))
    }

    /// A control plane hears that a node lives, and tells it what holds.
    pub(crate) fn hear(&mut self, place: Place, beat: Beat) {
        if self.is_mute(beat.node) {
            return;
        }
        let is_deaf = self.is_deaf(beat.node);
        let Some(control) = self.control.get_mut(&beat.node.datacenter) else { return };
        if !control.is_up || self.nodes[place.node].is_cut_from_control {
            return;
        }
        let sent = beat.sent;
        let known = control.heard.get(&beat.node);
        if known.is_some_and(|known| beat.boot < known.beat.boot) {
            return;
        }
        control.heard.insert(beat.node, Heard { at: self.now, beat });
        if is_deaf {
            return;
        }
        let told = Told { sent, part: Arc::clone(&control.part), revision: control.revision };
        if let Some(at) = self.crosses_to_control(place.node) {
            self.queue.add(at, Happening::Renew(place, told));
        }
    }

    /// A node is told what holds; it may answer for a while from when it asked.
    pub(crate) fn renew(&mut self, place: Place, told: Told) {
        if !self.is_present(place) {
            return;
        }
        let part = &told.part;
        let node = &mut self.nodes[place.node];
        let datacenter = node.id.datacenter;
        if node.epoch() < part.epoch {
            let mut next = Configuration::clone(&node.configuration);
            next.datacenters.insert(datacenter, Datacenter::clone(part));
            if let Some(members) = &part.membership {
                next.adopt_membership(members, Some(datacenter));
            }
            self.trace.line(self.now, format_args!("{} learns of epoch {}", node.id, part.epoch));
            node.reconfigure(self.now, &Arc::new(next));
        }
        let node = &self.nodes[place.node];
        let has_place = part.boots.get(&node.id) == Some(&node.boot) && !node.is_silent();
        if node.epoch() == part.epoch && has_place {
            let is_late = !node.here(self.now).may_serve();
            if is_late && !self.plan.mutations.has(Mutation::RenewLate) {
                let delay = self.write_delay();
                if let Some(at) = self.crosses_to_control(place.node) {
                    self.queue.add(at.after(delay), Happening::WriteBack(place, told));
                }
            } else {
                self.extend_lease(place.node, told.sent);
            }
        }
        self.notice_lapse(place);
        self.absorb(place.node);
    }

    fn extend_lease(&mut self, number: usize, sent: Steady) {
        let until = Steady(sent.0 + LEASE);
        let node = &mut self.nodes[number];
        node.lease_until = match node.lease_until {
            Lease::Until(known) => Lease::Until(known.max(until)),
            Lease::Unbounded => Lease::Unbounded,
        };
    }

    /// A node writes back what it was told.
    pub(crate) fn write_back(&mut self, place: Place, told: &Told) {
        let datacenter = self.nodes[place.node].id.datacenter;
        let Some(control) = self.control.get_mut(&datacenter) else { return };
        if !control.is_up || control.revision != told.revision {
            return; // It hears of it with the next beat.
        }
        control.revision += 1;
        if let Some(at) = self.crosses_to_control(place.node) {
            self.queue.add(at, Happening::WrittenBack(place, told.sent));
        }
    }

    /// A node is told that what it wrote back holds.
    pub(crate) fn written_back(&mut self, place: Place, sent: Steady) {
        if self.is_present(place) {
            self.extend_lease(place.node, sent);
            self.absorb(place.node);
        }
    }

    fn write_delay(&mut self) -> u64 {
        let most = self.chance.pick(&WRITE_DELAYS_MAX);
        self.chance.below(most)
    }

    /// A manager looks at what it has heard.
    pub(crate) fn manage(&mut self, datacenter: DatacenterId) {
        self.queue.add(self.now.after(LOOK_EVERY), Happening::Manage(datacenter));
        let mutations = self.plan.mutations;
        let Some(control) = self.control.get(&datacenter) else { return };
        if !control.is_up {
            return;
        }
        let facts = control.facts(self.now, mutations);
        let revision = control.revision;
        let members = self.manage_members(datacenter);
        let decision =
            members.or_else(|| next_configuration(&self.configuration, datacenter, &facts));
        let Some(decision) = decision else { return };
        let at = self.now.after(self.write_delay());
        if let Some(control) = self.control.get_mut(&datacenter) {
            control.under_way.retain(|(at, _)| self.now <= *at);
            control.under_way.extend(
                decision.configuration.datacenter(datacenter).map(|part| (at, part.clone())),
            );
        }
        self.queue.add(at, Happening::Decide(datacenter, revision, Box::new(decision)));
    }

    /// A decision reaches the register.
    pub(crate) fn decide(
        &mut self,
        datacenter: DatacenterId,
        revision: u64,
        decision: &antecede_protocol::manager::Decision,
    ) {
        let Some(control) = self.control.get_mut(&datacenter) else { return };
        if control.revision != revision || !control.is_up {
            return; // Somebody else was there before, or it is lost.
        }
        let Some(part) = decision.configuration.datacenter(datacenter) else { return };
        for change in &decision.changes {
            self.trace.line(self.now, format_args!("DECIDED epoch {}: {change}", part.epoch));
        }
        self.set_part(datacenter, part);
    }

    /// Something is written to the register.
    pub(crate) fn set_part(&mut self, datacenter: DatacenterId, part: &Datacenter) {
        let Some(control) = self.control.get_mut(&datacenter) else { return };
        let has_members = part.membership != control.part.membership;
        if !control.part.short.is_empty() {
            control.room_since = self.now;
        }
        control.part = Arc::new(part.clone());
        control.revision += 1;
        if has_members {
            self.let_some_hear_late(part);
        }
        let mut known = Configuration::clone(&self.configuration);
        if known.is_present(datacenter) {
            known.datacenters.insert(datacenter, part.clone());
        }
        self.configuration = Arc::new(known);
        self.tally.epochs += 1;
    }

    /// Starts nodes that were gone for ever and without which a chain stays dark: somebody has to.
    pub(crate) fn bring_back(&mut self) {
        let chains = self.control.values().flat_map(|control| &control.part.chains);
        let needed: BTreeSet<NodeId> =
            chains.flat_map(|chain| chain.waiting_as(Waiting::LastServing)).collect();
        for node in needed {
            let place = self.place_of(node);
            if self.nodes[place].is_removed && !self.is_put_aside(node) {
                self.nodes[place].is_removed = false;
                self.trace.line(self.now, format_args!("{node} is brought back"));
                self.queue.add(self.now.after(MILLI), Happening::Start(place));
            }
        }
    }

    /// Chains that lack a replica whose node is not gone for ever, or of which a node does not know
    /// the newest state.
    pub(crate) fn short_chains(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (id, control) in &self.control {
            let chains = control.part.chains.iter().filter(|_| self.configuration.is_present(*id));
            for (shard, chain) in (0_u16..).zip(chains) {
                let is_gone = |node: &NodeId| self.nodes[self.place_of(*node)].is_removed;
                if chain.waiting.keys().any(|node| !is_gone(node)) {
                    found.push(format!("datacenter {id} shard {shard}: {chain:?}"));
                }
            }
            for node in self.nodes.iter().filter(|node| node.id.datacenter == *id && node.is_up) {
                if node.epoch() != control.part.epoch {
                    found.push(format!("{} is in epoch {}", node.id, node.epoch()));
                }
            }
        }
        found
    }
}
