//! Gathers what is applied: by the node's tails, by the datacenter, by all datacenters.
//!
//! One keeper per node. Every `CUTS_EVERY` the shell gives it the watermarks of the tails on its
//! node. It tells the other nodes of its datacenter the smallest over those shards, with their
//! names; the datacenter's cut advances only when the reports cover every shard (PITFALLS A13).
//! That cut goes to the nodes of other datacenters; the smallest of all is the stable cut. All of
//! it is volatile, and nothing is sent for long when nothing changes.
//!
//! Ensures: a cut covers nothing that a shard has not applied and persisted; cuts never go back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use antecede_model::{
    clock::{Timestamp, check_drift},
    configuration::Configuration,
    cut::Cut,
    ids::{DatacenterId, NodeId, ShardId},
    membership::Standing,
};

use crate::{
    chain::{Cuts, Watermarks},
    event::Event,
    machine::{Here, Outputs},
    message::{CutReport, CutScope, Message},
    mutation::{Mutation, Mutations},
};

/// How often the shell gives the keeper the watermarks of the node's tails.
pub const CUTS_EVERY: Duration = Duration::from_millis(250);
/// Rounds for which an unchanged report is still sent, against loss.
const REPEAT_ROUNDS: u32 = 20;
/// Rounds after which an unchanged report is sent all the same, for nodes that restarted.
const HEARTBEAT_ROUNDS: u32 = 40;
/// How far ahead a peer's clock may be, as for every message.
const MAX_CLOCK_DRIFT: Duration = Duration::from_millis(500);
/// After how many milliseconds a deliberate bug waits no longer for a datacenter.
const LAPSE_AFTER: u64 = 2_000;

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
    /// The watermarks of all settled tails on this node, sorted by shard.
    Watermarks(&'a [(ShardId, Watermarks)]),
}

/// What a node said of its tails.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NodePart {
    shards: Vec<(ShardId, ShardId)>,
    applied: Cut,
    ticks_to: Timestamp,
    is_handed_out: bool,
    hlc: Timestamp,
}

/// Keeps the cuts of one node.
#[derive(Debug)]
pub struct CutKeeper {
    configuration: Arc<Configuration>,
    mutations: Mutations,
    /// What the nodes of this datacenter said last, this one too.
    nodes: BTreeMap<NodeId, NodePart>,
    /// What datacenters have applied, and up to when they want ticks; this one too.
    datacenters: BTreeMap<DatacenterId, (Cut, Timestamp)>,
    cuts: Arc<Cuts>,
    /// In a datacenter that is being added: what it must have applied of every other one before it
    /// may answer anybody; known once all of its shards have copied.
    opens_at: Option<Timestamp>,
    last_sent: Option<(NodePart, Cut, Timestamp)>,
    quiet_rounds: u32,
}

impl CutKeeper {
    /// A keeper that knows nothing yet.
    #[must_use]
    pub fn new(configuration: Arc<Configuration>, here: DatacenterId) -> Self {
        let cuts = Arc::new(initial_cuts(&configuration, here));
        Self {
            configuration,
            mutations: Mutations::NONE,
            nodes: BTreeMap::new(),
            datacenters: BTreeMap::new(),
            cuts,
            opens_at: None,
            last_sent: None,
            quiet_rounds: 0,
        }
    }

    /// The same with a deliberate bug, for the simulator's tests.
    #[must_use]
    pub fn with_mutations(mut self, mutations: Mutations) -> Self {
        self.mutations = mutations;
        self
    }

    /// Takes a newer configuration; what was reported under the older one counts no more.
    pub fn configure(&mut self, configuration: Arc<Configuration>, here: DatacenterId) {
        let was_alone = self.configuration.peers(here).next().is_none();
        let has_members = self.configuration.membership.epoch < configuration.membership.epoch;
        self.configuration = configuration;
        self.nodes.clear();
        self.last_sent = None;
        if has_members {
            self.adopt_members(here, was_alone);
        }
    }

    /// Goes on with other datacenters. What was stable among fewer stays so: whoever is new copies
    /// it. Only one that was alone knows nothing of what comes.
    fn adopt_members(&mut self, here: DatacenterId, was_alone: bool) {
        self.opens_at = None;
        let members = Arc::clone(&self.configuration);
        self.datacenters.retain(|id, _| members.datacenters.contains_key(id));
        let mut first = initial_cuts(&self.configuration, here);
        if self.mutations.has(Mutation::SettleLapsed) && !self.configuration.is_present(here) {
            first.stable.advance(here, Timestamp::MAX);
        }
        let cuts = Arc::make_mut(&mut self.cuts);
        if was_alone {
            *cuts = Cuts { hlc: cuts.hlc, ..first };
            return;
        }
        for (origin, to) in first.stable.iter() {
            cuts.stable.advance(origin, to);
        }
        for (origin, to) in first.applied.iter() {
            cuts.applied.advance(origin, to);
        }
    }

    /// Whether this datacenter has done what the membership asks of it, by what its nodes have said
    /// since they act by it: it has copied all, has handed out its own writes, or what it has of one
    /// that is lost.
    #[must_use]
    pub fn has_done(&self, here: DatacenterId) -> bool {
        let Some((changing, standing)) = self.configuration.membership.changing() else {
            return false;
        };
        if !self.covers_every_shard() {
            return false;
        }
        match standing {
            Standing::Copying { .. } => changing == here && self.has_opened(here),
            Standing::Leaving => changing == here && self.is_handed_out(),
            Standing::Lost => self.configuration.is_present(here) && self.is_handed_out(),
            Standing::Joining { .. } | Standing::Open => false,
        }
    }

    fn is_handed_out(&self) -> bool {
        self.nodes.values().all(|part| part.is_handed_out)
    }

    /// Whether everything is here that anything copied may rest on: what its donor had applied and
    /// other shards had not copied by then.
    fn has_opened(&self, here: DatacenterId) -> bool {
        if self.mutations.has(Mutation::OpenWithTornPast) {
            return true;
        }
        let Some(opens_at) = self.opens_at else { return false };
        let mut others = self.configuration.origins().filter(|origin| *origin != here);
        others.all(|origin| self.cuts.applied.covers(origin, opens_at))
    }

    /// Handles one input.
    pub fn handle(&mut self, here: &Here, input: CutInput<'_>, out: &mut Outputs) {
        match input {
            CutInput::Report { from, report } => self.on_report(here, from, report, out),
            CutInput::Watermarks(watermarks) => self.on_watermarks(here, watermarks, out),
        }
    }

    /// What is known; after watermarks the shell tells every shard of the node.
    #[must_use]
    pub const fn cuts(&self) -> &Arc<Cuts> {
        &self.cuts
    }

    /// What a datacenter has told of itself, for people.
    #[must_use]
    pub fn applied_at(&self, datacenter: DatacenterId) -> Option<&Cut> {
        self.datacenters.get(&datacenter).map(|(cut, _)| cut)
    }

    /// The other datacenter that has applied least of what began here, and up to where it has;
    /// `None` for one that has not been heard of.
    #[must_use]
    pub fn furthest_behind(&self, here: DatacenterId) -> Option<(DatacenterId, Option<Timestamp>)> {
        let applied = |peer| self.applied_at(peer).map(|cut| cut.at(here));
        self.configuration.peers(here).map(|peer| (peer, applied(peer))).min_by_key(|(_, to)| *to)
    }

    fn on_report(&mut self, here: &Here, from: NodeId, report: CutReport, out: &mut Outputs) {
        let is_known = self.configuration.datacenter(from.datacenter).is_some();
        if report.membership != self.configuration.membership.epoch || !is_known {
            out.event(Event::StaleMessage { from });
            return;
        }
        if let Err(drift) = check_drift(here.now.wall, report.hlc, MAX_CLOCK_DRIFT) {
            out.event(Event::Drift {
                from,
                ahead_millis: drift.ahead_millis,
                limit_millis: drift.limit_millis,
            });
            return;
        }
        let own = here.node.datacenter;
        if self.configuration.epoch(from.datacenter) < report.epoch && from.datacenter != own {
            out.early(from, Message::AskConfiguration(from.datacenter));
        }
        match report.scope {
            CutScope::Node { shards, applied, ticks_to, is_handed_out } => {
                let is_current = report.epoch == self.configuration.epoch(own);
                if from.datacenter != own || !is_current {
                    out.event(Event::StaleMessage { from });
                    return;
                }
                let hlc = report.hlc;
                let part = NodePart { shards, applied, ticks_to, is_handed_out, hlc };
                self.nodes.insert(from, part);
            }
            CutScope::Datacenter { applied, ticks_to } => {
                if from.datacenter == own {
                    return;
                }
                let known = self.datacenters.entry(from.datacenter).or_default();
                for (origin, to) in applied.iter() {
                    known.0.advance(origin, to);
                }
                known.1 = ticks_to;
                self.note_hlc(report.hlc);
            }
        }
        self.combine(own);
    }

    fn on_watermarks(
        &mut self,
        here: &Here,
        watermarks: &[(ShardId, Watermarks)],
        out: &mut Outputs,
    ) {
        let own = here.node.datacenter;
        let hlc = watermarks.iter().map(|(_, part)| part.hlc).max().unwrap_or_default();
        let part = NodePart {
            shards: runs(watermarks.iter().map(|(shard, _)| *shard)),
            applied: smallest(watermarks.iter().map(|(_, part)| part)),
            // Others hear from one node of this datacenter what it waits for, and each node waits for
            // what it has seen itself before it says that all is there.
            ticks_to: watermarks
                .iter()
                .map(|(_, part)| part.ticks_to)
                .chain(self.opens_at)
                .max()
                .unwrap_or_default(),
            is_handed_out: watermarks.iter().all(|(_, part)| part.is_handed_out),
            hlc,
        };
        self.nodes.insert(here.node, part.clone());
        self.combine(own);
        let (applied, ticks_to) = self.datacenters.get(&own).cloned().unwrap_or_default();
        let is_same = self.last_sent.as_ref().is_some_and(|(sent, cut, wants)| {
            sent.shards == part.shards
                && sent.applied == part.applied
                && sent.ticks_to == part.ticks_to
                && sent.is_handed_out == part.is_handed_out
                && *cut == applied
                && *wants == ticks_to
        });
        self.quiet_rounds = if is_same { self.quiet_rounds.saturating_add(1) } else { 0 };
        let is_heartbeat = self.quiet_rounds.is_multiple_of(HEARTBEAT_ROUNDS);
        if REPEAT_ROUNDS < self.quiet_rounds && !is_heartbeat {
            return;
        }
        self.last_sent = Some((part.clone(), applied.clone(), ticks_to));
        self.send(here, part, &applied, ticks_to, out);
    }

    fn send(
        &self,
        here: &Here,
        part: NodePart,
        applied: &Cut,
        ticks_to: Timestamp,
        out: &mut Outputs,
    ) {
        let own = here.node.datacenter;
        let Some(datacenter) = self.configuration.datacenter(own) else { return };
        let report = |hlc: Timestamp, scope: CutScope| {
            Message::Cut(CutReport {
                epoch: datacenter.epoch,
                membership: self.configuration.membership.epoch,
                hlc,
                scope,
            })
        };
        let scope = CutScope::Node {
            shards: part.shards,
            applied: part.applied,
            ticks_to: part.ticks_to,
            is_handed_out: part.is_handed_out,
        };
        for node in datacenter.present().filter(|node| *node != here.node) {
            out.early(node, report(part.hlc, scope.clone()));
        }
        // Each node of another datacenter hears from one node of this one.
        let node_count = datacenter.present().count();
        let place = datacenter.present().position(|node| node == here.node);
        for peer in self.configuration.peers(own) {
            let Some(other) = self.configuration.datacenter(peer) else { continue };
            // Also one that is said to be gone: it may be back, and this is how it hears of that.
            for (index, node) in other.nodes.iter().copied().enumerate() {
                if Some(index % node_count.max(1)) == place {
                    let scope = CutScope::Datacenter { applied: applied.clone(), ticks_to };
                    out.early(node, report(self.cuts.hlc.max(part.hlc), scope));
                }
            }
        }
    }

    /// Makes the datacenter's cut of its nodes' parts, and the stable cut of all datacenters'.
    fn combine(&mut self, own: DatacenterId) {
        let is_copying = self.configuration.donor_of(own).is_some();
        let ticks_to = self.nodes.values().map(|part| part.ticks_to).max().unwrap_or_default();
        let is_whole =
            self.covers_every_shard() || self.mutations.has(Mutation::MinimaWithoutShards);
        let known = self.datacenters.entry(own).or_default();
        known.1 = ticks_to;
        if is_whole {
            for origin in self.configuration.origins() {
                let parts = self.nodes.values().filter(|part| !part.shards.is_empty());
                if let Some(to) = parts.map(|part| part.applied.at(origin)).min() {
                    known.0.advance(origin, to);
                }
            }
            let hlc = self.nodes.values().map(|part| part.hlc).max().unwrap_or_default();
            if is_copying {
                // Above every stamp that was copied: what all others promise for.
                known.1 = known.1.max(*self.opens_at.get_or_insert(hlc));
            }
            self.note_hlc(hlc);
        }
        let mut cuts = (*self.cuts).clone();
        cuts.applied = self.datacenters.get(&own).map(|(cut, _)| cut.clone()).unwrap_or_default();
        self.configuration.membership.gone.keys().for_each(|gone| {
            cuts.applied.advance(*gone, Timestamp::MAX);
        });
        cuts.ticks_to = self.datacenters.values().map(|(_, to)| *to).max().unwrap_or_default();
        let peers = self.configuration.peers(own);
        let followed_to =
            peers.map(|peer| self.applied_at(peer).map_or(Timestamp::ZERO, |cut| cut.at(own)));
        cuts.followed_to = followed_to.max().unwrap_or(Timestamp::MAX);
        let all = self.configuration.datacenters.keys();
        let told: Option<Vec<&Cut>> =
            all.map(|id| self.datacenters.get(id).map(|(cut, _)| cut)).collect();
        let told = told.map(|told| self.without_those_behind(told));
        if let Some(mut told) = told
            && let Some(first) = told.pop()
        {
            let stable = told.into_iter().fold(first.clone(), |met, cut| met.meet(cut));
            for (origin, to) in stable.iter() {
                cuts.stable.advance(origin, to);
            }
        }
        if cuts != *self.cuts {
            self.cuts = Arc::new(cuts);
        }
    }

    /// A deliberate bug: nobody but this node decides to wait no longer for one that is far behind.
    fn without_those_behind<'a>(&self, told: Vec<&'a Cut>) -> Vec<&'a Cut> {
        if !self.mutations.has(Mutation::LapseByOneself) {
            return told;
        }
        let now = self.cuts.hlc.millis();
        let is_near = |cut: &&Cut| {
            now < cut.iter().map(|(_, to)| to.millis()).max().unwrap_or(now) + LAPSE_AFTER
        };
        told.into_iter().filter(is_near).collect()
    }

    fn note_hlc(&mut self, hlc: Timestamp) {
        if self.cuts.hlc < hlc {
            Arc::make_mut(&mut self.cuts).hlc = hlc;
        }
    }

    fn covers_every_shard(&self) -> bool {
        let mut covered = BTreeSet::new();
        for part in self.nodes.values() {
            for (first, last) in &part.shards {
                covered.extend(first.0..=last.0);
            }
        }
        covered.len() == usize::from(self.configuration.shard_count.count())
    }
}

/// The smallest watermark per origin.
fn smallest<'a>(parts: impl Iterator<Item = &'a Watermarks>) -> Cut {
    let mut lowest: BTreeMap<DatacenterId, Timestamp> = BTreeMap::new();
    for part in parts {
        for (origin, to) in &part.applied {
            let entry = lowest.entry(*origin).or_insert(*to);
            *entry = (*entry).min(*to);
        }
    }
    Cut::of(lowest)
}

/// Sorted shard numbers as runs.
fn runs(shards: impl Iterator<Item = ShardId>) -> Vec<(ShardId, ShardId)> {
    let mut runs: Vec<(ShardId, ShardId)> = Vec::new();
    for shard in shards {
        match runs.last_mut() {
            Some((_, last)) if last.0 + 1 == shard.0 => *last = shard,
            Some(_) | None => runs.push((shard, shard)),
        }
    }
    runs
}

/// The cuts before anything was exchanged: a datacenter alone in its deployment is everywhere, and
/// nothing of one that is gone can be missing any more among those that are there. One that is gone
/// itself waits for nobody; if it was lost and lives, nobody knows whether what it has is
/// anywhere else.
/// What is applied is not told so: its own writes become visible one by one there, too.
pub(crate) fn initial_cuts(configuration: &Configuration, here: DatacenterId) -> Cuts {
    let mut cuts = Cuts::default();
    let is_present = configuration.is_present(here);
    if configuration.peers(here).next().is_none() {
        cuts.followed_to = Timestamp::MAX;
        if is_present {
            cuts.stable.advance(here, Timestamp::MAX);
        }
    }
    for (id, gone) in &configuration.membership.gone {
        cuts.applied.advance(*id, Timestamp::MAX);
        if is_present || *id == here && !gone.was_lost {
            cuts.stable.advance(*id, Timestamp::MAX);
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use antecede_model::{
        clock::{Now, Steady, Wall},
        configuration::Layout,
        ids::{Boot, DeploymentId},
        key::ShardCount,
        membership::Gone,
    };

    use super::*;
    use crate::machine::Lease;

    const NEW: DatacenterId = DatacenterId(2);
    const SECONDS: u64 = 1_700_000_000;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis((SECONDS + second) * 1_000)
    }

    fn node(number: u16) -> NodeId {
        NodeId { datacenter: NEW, number }
    }

    /// One node with a shard each in the first datacenter, and two in one that copies from it.
    fn copying() -> Arc<Configuration> {
        let mut configuration = Configuration::of(&Layout {
            deployment: DeploymentId::default(),
            shard_count: ShardCount::new(2).unwrap(),
            chain_length: 1,
            datacenters: vec![(DatacenterId(1), "old".into(), 1), (NEW, "new".into(), 2)],
        });
        let members = Arc::make_mut(&mut configuration.membership);
        let from = DatacenterId(1);
        members.members.get_mut(&NEW).unwrap().standing = Standing::Copying { from };
        Arc::new(configuration)
    }

    /// What the keeper of a node tells others when its tails stand so; what goes to the other node of
    /// its datacenter is handed to that, unless it is lost.
    fn round(
        keepers: &mut [CutKeeper; 2],
        (place, is_lost): (usize, bool),
        (hlc, applied_to): (Timestamp, Timestamp),
    ) -> Vec<(NodeId, CutReport)> {
        let here = |node: NodeId| Here {
            node,
            boot: Boot(1),
            now: Now { steady: Steady::default(), wall: Wall((SECONDS + 100) * 1_000_000) },
            hlc_floor: Timestamp::ZERO,
            lease_until: Lease::Unbounded,
        };
        let [own, other] = if place == 0 { [1, 2] } else { [2, 1] }.map(node);
        let applied = vec![(DatacenterId(1), applied_to)];
        let marks = Watermarks { applied, ticks_to: Timestamp::ZERO, is_handed_out: false, hlc };
        let shards = keepers[place].configuration.shard_count.shards();
        let is_own = |shard: &ShardId| {
            keepers[place].configuration.datacenter(NEW).unwrap().chains[usize::from(shard.0)]
                .serving
                .contains(&own)
        };
        let marks: Vec<_> = shards.filter(is_own).map(|shard| (shard, marks.clone())).collect();
        let mut out = Outputs::default();
        keepers[place].handle(&here(own), CutInput::Watermarks(&marks), &mut out);
        let mut sent = Vec::new();
        for (to, message) in out.early {
            let Message::Cut(report) = message else { continue };
            if to == other && is_lost {
                continue;
            } else if to == other {
                let report = CutInput::Report { from: own, report };
                keepers[1 - place].handle(&here(other), report, &mut Outputs::default());
            } else {
                sent.push((to, report));
            }
        }
        sent
    }

    #[test]
    fn others_hear_what_every_node_waits_for_before_its_datacenter_opens() {
        let configuration = copying();
        let mut keepers = [(); 2].map(|()| CutKeeper::new(Arc::clone(&configuration), NEW));
        // The first knows of all shards at 2 s, the second at 4 s: each waits for what it saw then.
        round(&mut keepers, (1, false), (at(1), at(0)));
        round(&mut keepers, (0, true), (at(2), at(0)));
        round(&mut keepers, (1, true), (at(3), at(0)));
        round(&mut keepers, (0, false), (at(4), at(0)));
        assert!(keepers[0].opens_at < keepers[1].opens_at, "{keepers:?}");
        let mut wanted = Timestamp::ZERO;
        for _ in 0..3 {
            for place in [0, 1] {
                for (_, report) in round(&mut keepers, (place, false), (at(4), wanted)) {
                    let CutScope::Datacenter { ticks_to, .. } = report.scope else { continue };
                    wanted = wanted.max(ticks_to); // The old one makes the ticks, nothing else.
                }
            }
        }
        for keeper in &keepers {
            assert!(keeper.has_done(NEW), "it waits beyond {wanted:?}: {keeper:?}");
        }
    }

    #[test]
    fn who_is_let_go_of_holds_nothing_for_stable_that_it_did_not_before() {
        let (old, third) = (DatacenterId(1), DatacenterId(3));
        let mut configuration = copying();
        let mut keepers = [(); 2].map(|()| CutKeeper::new(Arc::clone(&configuration), NEW));
        let members = Arc::make_mut(&mut Arc::make_mut(&mut configuration).membership);
        members.epoch.0 += 1;
        let gone = |name: &str| Gone {
            name: name.to_owned(),
            was_lost: true,
            since: members.epoch,
            successor: None,
        };
        let gone = [(NEW, gone("new")), (third, gone("third"))];
        members.gone.extend(gone);
        members.members.remove(&NEW);
        for keeper in &mut keepers {
            keeper.configure(Arc::clone(&configuration), NEW);
        }
        for place in [0, 1, 0] {
            round(&mut keepers, (place, false), (at(9), at(8)));
        }
        let stable = keepers.each_ref().map(|keeper| keeper.cuts().stable.clone());
        for origin in [old, NEW, third] {
            let to = stable.each_ref().map(|cut| cut.at(origin));
            assert_eq!(to, [Timestamp::ZERO; 2], "{origin} may be missing elsewhere");
        }
        // Those that are there have all that any of them has of the one that is gone.
        assert_eq!(initial_cuts(&configuration, old).stable.at(third), Timestamp::MAX);
    }
}
