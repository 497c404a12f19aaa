//! Simulates the agreement of a deployment on its datacenters: one register for all, which changes
//! only by compare-and-swap, is slow, and loses what is said to it.
//!
//! The manager of each datacenter looks at it now and then: it takes newer members over into its own
//! part, says what its nodes have done, and carries out what follows, all by the protocol's own
//! functions. People ask for datacenters that are added, removed or given up, and ask again while
//! another change is under way.
//!
//! A datacenter that is added runs from the beginning, with settings that name it as a member; the
//! others do not know it.

use std::{collections::BTreeMap, sync::Arc};

use antecede_check::{History, Kind, Outcome, Record};
use antecede_model::{
    configuration::{Configuration, Datacenter},
    dependency::Dependency,
    ids::{DatacenterId, MembershipEpoch, NodeId},
    membership::{Membership, Standing},
};
use antecede_protocol::manager::{
    Decision,
    membership::{Said, Wish, acknowledged, next_membership, wished, with_members, with_word_of},
};

use crate::{
    chance::Chance,
    check::durable,
    control::ControlPlane,
    moment::{MILLI, Moment, SECOND},
    plan::{ACTIVE, Plan},
    world::{Happening, World},
};

/// How often people ask again.
const ASK_EVERY: u64 = 500 * MILLI;
/// How long a write takes to the register at most: mostly, and sometimes.
const DELAYS_MAX: [u64; 3] = [100 * MILLI, 200 * MILLI, 2 * SECOND];

/// Of a thousand times that a datacenter takes newer members over, how often one of its nodes hears
/// late of them.
const DEAF_PER_MILLE: u64 = 600;
/// How late it hears of them at most, while things go wrong.
const DEAF_MAX: u64 = 20 * SECOND;

/// What becomes of one datacenter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// When people ask for it.
    pub at: Moment,
    /// Which.
    pub datacenter: DatacenterId,
    /// What.
    pub kind: ChangeKind,
}

/// How the members change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is no member at first, and is added.
    Add,
    /// It is removed, and hands out what it has.
    Remove,
    /// All of its nodes are lost for ever, and some time later it is given up.
    Lose {
        /// How much later, in nanoseconds.
        given_up_after: u64,
    },
    /// The others let go of it while it lives; later it comes back under another number.
    Lapse {
        /// For how long before that it is cut off from everybody, in nanoseconds; zero if it is
        /// not.
        cut_off_before: u64,
        /// For how long it is cut off after that.
        cut_off_after: u64,
        /// Within which time each of its nodes stops after it has heard.
        stops_within: u64,
    },
}

impl ChangeKind {
    /// Whether it is a lapse.
    #[must_use]
    pub const fn is_lapse(self) -> bool {
        matches!(self, Self::Lapse { .. })
    }
}

/// One or two changes; of different datacenters, so that two are left that were there all the time
/// where there are four, and one where there are fewer.
pub fn draw(chance: &mut Chance, datacenters: u16) -> Vec<MemberChange> {
    let mut ids: Vec<u16> = (1..=datacenters).collect();
    let mut changes = Vec::new();
    let count = if 2 < datacenters { chance.between(1, 2) } else { 1 };
    for _ in 0..count {
        let place = usize::try_from(chance.below(ids.len() as u64)).expect("few datacenters");
        let datacenter = DatacenterId(ids.remove(place));
        let has_added = changes.iter().any(|change: &MemberChange| change.kind == ChangeKind::Add);
        let kind = match chance.below(if has_added || datacenters < 3 { 2 } else { 4 }) {
            0 => ChangeKind::Remove,
            1 => ChangeKind::Lose { given_up_after: chance.between(SECOND / 2, 4 * SECOND) },
            _ => ChangeKind::Add,
        };
        let at = Moment(chance.between(2 * SECOND, 20 * SECOND));
        changes.push(MemberChange { at, datacenter, kind });
    }
    changes.sort_by_key(|change| change.at);
    changes
}

/// Lets one of those that would be removed or lost lapse instead, or one more.
pub fn draw_lapse(chance: &mut Chance, changes: &mut Vec<MemberChange>, datacenters: u16) {
    let is_cut_off = chance.per_mille(750);
    let kind = ChangeKind::Lapse {
        cut_off_before: if is_cut_off { chance.between(SECOND / 10, 6 * SECOND) } else { 0 },
        cut_off_after: if is_cut_off { chance.below(8 * SECOND) } else { 0 },
        stops_within: chance.pick(&[100 * MILLI, 2 * SECOND, 6 * SECOND]),
    };
    let goes = |change: &&mut MemberChange| change.kind != ChangeKind::Add;
    if let Some(change) = changes.iter_mut().find(goes) {
        change.kind = kind;
        return;
    }
    let last = changes.iter().map(|change| change.at).max().unwrap_or_default();
    let are_all = changes.len() + 1 == usize::from(datacenters);
    let added = |id: &u16| changes.iter().any(|change| change.datacenter.0 == *id);
    let ids: Vec<u16> = (1..=datacenters).filter(|id| are_all || !added(id)).collect();
    let at = last.after(chance.between(SECOND, 5 * SECOND));
    changes.push(MemberChange { at, datacenter: DatacenterId(chance.pick(&ids)), kind });
}

/// All but the first are added, one after the other.
pub fn draw_growth(chance: &mut Chance, datacenters: u16) -> Vec<MemberChange> {
    let mut at = Moment::default();
    let added = (2..=datacenters).map(DatacenterId).map(|datacenter| {
        at = at.after(chance.between(SECOND, 6 * SECOND));
        MemberChange { at, datacenter, kind: ChangeKind::Add }
    });
    added.collect()
}

/// The register.
#[derive(Debug, Default)]
pub(crate) struct MembersPlane {
    pub(crate) members: Arc<Membership>,
    revision: u64,
    /// Changes that people have not got yet.
    pub(crate) open_wishes: usize,
    /// Nodes that hear nothing until then, and whether they are heard.
    deaf: BTreeMap<NodeId, (Moment, bool)>,
}

/// What is written to the register.
#[derive(Clone, Debug)]
pub(crate) enum MembersWrite {
    /// A datacenter says what it has done.
    Said(DatacenterId, Said),
    /// What follows, if nobody was there before.
    Next(u64, Box<Membership>),
}

/// The first members, without those that are added later.
pub(crate) fn first(by_settings: &Configuration, plan: &Plan) -> Configuration {
    let mut configuration = by_settings.clone();
    let mut members = Membership::clone(&configuration.membership);
    let added = plan.members.iter().filter(|change| change.kind == ChangeKind::Add);
    let later = added.map(|change| change.datacenter).chain(plan.lapses().map(|(_, id)| id));
    for id in later {
        members.members.remove(&id);
        configuration.datacenters.remove(&id);
    }
    configuration.membership = Arc::new(members);
    configuration
}

impl World {
    /// Lets people ask for what the plan has.
    pub(crate) fn begin_members(&mut self) {
        self.members.members = Arc::clone(&self.configuration.membership);
        if self.control.is_empty() {
            return;
        }
        self.members.open_wishes = self.plan.members.len();
        for (number, change) in self.plan.members.iter().enumerate() {
            self.queue.add(change.at, Happening::Wish(number));
        }
    }

    /// People ask for a change, and again until it is taken on.
    pub(crate) fn wish(&mut self, number: usize) {
        let change = self.plan.members[number];
        let id = change.datacenter;
        let wish = match change.kind {
            ChangeKind::Add => {
                let nodes = self.nodes.iter().filter(|node| node.id.datacenter == id);
                let nodes = nodes.map(|node| (node.id, String::new())).collect();
                Wish::Add { id, name: format!("dc{id}"), nodes, from: None }
            }
            ChangeKind::Remove => Wish::Remove(id),
            ChangeKind::Lose { given_up_after } => {
                if self.lose(id) {
                    self.queue.add(self.now.after(given_up_after), Happening::Wish(number));
                    return;
                }
                Wish::RemoveLost(id)
            }
            ChangeKind::Lapse { .. } => {
                let Some(wish) = self.wish_of_lapse(id) else {
                    self.queue.add(self.now.after(ASK_EVERY), Happening::Wish(number));
                    return;
                };
                wish
            }
        };
        match wished(&self.members.members, &wish) {
            Ok(next) => {
                self.set_members(next, &format!("{wish:?}"));
                if matches!(wish, Wish::Lapse(_)) {
                    self.lost.insert(id);
                    self.queue.add(self.now.after(ASK_EVERY), Happening::Wish(number)); // To come back.
                } else {
                    self.members.open_wishes -= 1;
                }
            }
            Err(why) => {
                self.trace.line(self.now, format_args!("NOT YET: {why}"));
                self.queue.add(self.now.after(ASK_EVERY), Happening::Wish(number));
            }
        }
    }

    /// All nodes of a datacenter are gone for ever; false if they are already. What it had not sent
    /// is lost with them, and whoever was connected there begins anew elsewhere.
    fn lose(&mut self, id: DatacenterId) -> bool {
        if !self.control.contains_key(&id) {
            return false;
        }
        self.trace.line(self.now, format_args!("LOST datacenter {id}"));
        self.control.remove(&id);
        for place in 0..self.nodes.len() {
            if self.nodes[place].id.datacenter == id {
                self.crash(place, true, 0);
                self.nodes[place].is_removed = true;
            }
        }
        self.lost.insert(id);
        true
    }

    fn set_members(&mut self, next: Membership, why: &str) {
        self.trace.line(self.now, format_args!("MEMBERS {}: {why}", next.epoch));
        let next = Arc::new(next);
        self.members.revision += 1;
        let mut known = Configuration::clone(&self.configuration);
        known.adopt_membership(&next, None);
        for (id, member) in &next.members {
            if matches!(member.standing, Standing::Joining { .. }) && !self.control.contains_key(id)
            {
                let part = self.first_part(*id, &next);
                self.ledger.add_datacenter(*id);
                known.datacenters.insert(*id, part.clone());
                self.control.insert(*id, ControlPlane::new(&part));
                self.queue.add(self.now.after(MILLI), Happening::Manage(*id));
            }
        }
        self.configuration = Arc::new(known);
        self.members.members = next;
    }

    /// What the manager of a new datacenter begins with.
    fn first_part(&self, id: DatacenterId, members: &Arc<Membership>) -> Datacenter {
        let mut configuration = self.plan.configuration();
        configuration.begin_with_one_replica(id);
        let mut part = configuration.datacenters.remove(&id).expect("the plan has all datacenters");
        part.membership = Some(Arc::clone(members));
        part.epoch = part.epoch.next();
        part
    }

    /// A manager looks at the members; true if it has something to decide in its datacenter.
    pub(crate) fn manage_members(&mut self, datacenter: DatacenterId) -> Option<Decision> {
        if self.is_cut_off(datacenter) {
            return None; // It cannot reach the register.
        }
        let members = Arc::clone(&self.members.members);
        let mutations = self.plan.mutations;
        let control = self.control.get(&datacenter)?;
        let part = control.part();
        let is_alone = members.epoch == MembershipEpoch(1);
        if !is_alone && let Some(next) = with_members(part, &members) {
            let mut configuration = Configuration::clone(&self.configuration);
            configuration.datacenters.insert(datacenter, next);
            return Some(Decision { configuration, changes: Vec::new() });
        }
        let facts = control.facts(self.now, mutations);
        let is_done = control.has_done(part.epoch);
        let acts_by = acknowledged(part, &facts);
        let done = if is_done { acts_by } else { MembershipEpoch::default() };
        let said = Said { acknowledged: acts_by, done };
        if with_word_of(&members, datacenter, said).is_some() {
            self.write_members(MembersWrite::Said(datacenter, said));
        }
        let next = next_membership(&members).map(|(next, _)| next);
        if let Some(next) = next {
            self.write_members(MembersWrite::Next(self.members.revision, Box::new(next)));
        }
        None
    }

    /// A datacenter acts by newer members: some of its nodes hear late of it.
    pub(crate) fn let_some_hear_late(&mut self, part: &Datacenter) {
        if !self.plan.hears_late {
            return;
        }
        if part.membership.as_ref().is_none_or(|members| members.changing().is_none()) {
            return;
        }
        // One that lacks something without knowing it meets its neighbours before the next trouble.
        if part.nodes.iter().any(|node| !self.is_whole(*node)) {
            return;
        }
        if self.growth_chance.per_mille(DEAF_PER_MILLE) {
            let has_place =
                |node: &&NodeId| part.chains.iter().any(|chain| chain.serving.contains(*node));
            let idle: Vec<NodeId> =
                part.nodes.iter().filter(|node| !has_place(node)).copied().collect();
            let node = self.growth_chance.pick(if idle.is_empty() { &part.nodes } else { &idle });
            let until = self.now.after(self.growth_chance.between(SECOND, DEAF_MAX)).min(ACTIVE);
            self.trace.line(self.now, format_args!("{node} hears nothing until {until:?}"));
            let is_heard = self.growth_chance.per_mille(500);
            self.members.deaf.insert(node, (until, is_heard));
        }
    }

    /// Whether a node is not told of anything now.
    pub(crate) fn is_deaf(&self, node: NodeId) -> bool {
        self.members.deaf.get(&node).is_some_and(|(until, _)| self.now < *until)
    }

    /// Since when a node is told of what holds again, or will be; `None` if it always was.
    pub(crate) fn hears_since(&self, node: NodeId) -> Option<Moment> {
        self.members.deaf.get(&node).map(|(until, _)| *until)
    }

    /// Whether a node is not told of anything now, and not heard either.
    pub(crate) fn is_mute(&self, node: NodeId) -> bool {
        self.is_deaf(node) && self.members.deaf.get(&node).is_some_and(|(_, is_heard)| !is_heard)
    }

    fn write_members(&mut self, write: MembersWrite) {
        if self.members_chance.per_mille(100) {
            return; // It looks again.
        }
        let most = self.members_chance.pick(&DELAYS_MAX);
        let at = self.now.after(self.members_chance.below(most));
        self.queue.add(at, Happening::Members(write));
    }

    /// Something reaches the register.
    pub(crate) fn on_members(&mut self, write: MembersWrite) {
        match write {
            MembersWrite::Said(id, said) => {
                if let Some(next) = with_word_of(&self.members.members, id, said) {
                    self.set_members(next, &format!("{id} says {said:?}"));
                }
            }
            MembersWrite::Next(revision, next) => {
                if revision == self.members.revision {
                    self.set_members(*next, "follows by itself");
                }
            }
        }
    }

    /// Whether a node belongs to a datacenter that is a member, and not lost.
    pub(crate) fn is_judged(&self, node: NodeId) -> bool {
        self.configuration.is_present(node.datacenter)
    }

    /// What is not done yet of what people asked for.
    pub(crate) fn changing_members(&self) -> Option<String> {
        if 0 < self.members.open_wishes {
            return Some(format!("{} changes of the members", self.members.open_wishes));
        }
        if 0 < self.open_lapses() {
            return Some("nodes that have not put their data aside".to_owned());
        }
        self.members.members.changing().map(|changing| format!("{changing:?} of the members"))
    }

    /// The history in which writes that only a datacenter had that is lost are such of which nobody
    /// knows what became of them.
    pub(crate) fn history_without_lost(&self) -> History {
        let mut records = self.records.clone();
        for acknowledged in self.ledger.acknowledged() {
            let write = acknowledged.write;
            if self.is_given_up(write) {
                doubt(&mut records[..acknowledged.record]);
            }
        }
        crate::client::history_of(&records)
    }
}

impl World {
    /// Whether a write is gone with its datacenter: nobody else has it.
    pub(crate) fn is_given_up(&self, write: Dependency) -> bool {
        self.lost.contains(&write.origin)
            && !durable::is_held(&self.ledger, &self.configuration, write)
    }
}

/// Makes the last answered write one of which nobody knows what became of it.
fn doubt(records: &mut [Record]) {
    let Some(last) = records.last().cloned() else { return };
    let is_same = |record: &&mut Record| record.session == last.session && record.txn == last.txn;
    let several = if last.txn.is_some() { records.len() } else { 1 };
    for record in records.iter_mut().rev().take(several).take_while(is_same) {
        if record.op != Kind::Read {
            record.outcome = Outcome::Unknown;
            record.ret_ns = None;
        }
    }
}
