//! Lets a datacenter lapse: the others let go of it while it lives, and it comes back under another
//! number.
//!
//! For a while before and after that is decided it may be cut off from everybody, so that it
//! acknowledges writes that nobody receives. Its nodes serve until they hear; some time later each
//! stops for good, and one of the successor's number begins in its place with an empty disk. What it
//! leaves behind is what it put aside. Clients follow once all of its nodes have stopped.
//!
//! The nodes of the successor are there from the beginning and do not run.

use std::collections::BTreeSet;

use antecede_check::Outcome;
use antecede_model::{
    dependency::Dependency,
    ids::{DatacenterId, NodeId},
    membership::Standing,
    response::Response,
};
use antecede_protocol::{manager::membership::Wish, record::Record};

use crate::{
    check::{Failure, lapsed},
    client::{Asked, keys_of, outcome_of},
    faults::FaultKind,
    members::ChangeKind,
    moment::{MILLI, Moment},
    plan::ACTIVE,
    world::{Happening, Place, World},
};

/// How long it takes at most until what has stopped begins under its new number.
const BEGINS_WITHIN: u64 = 500 * MILLI;

/// How far a lapse has come.
#[derive(Clone, Debug)]
pub(crate) struct Lapsing {
    /// Under which number it comes back.
    successor: DatacenterId,
    /// Whether it is cut off from everybody.
    is_cut_off: bool,
    /// Runs of nodes that have heard, by place and life.
    heard: BTreeSet<(usize, u32)>,
    /// When the last of its nodes that run had heard.
    all_heard_at: Option<Moment>,
    /// Nodes that have stopped for good.
    put_aside: BTreeSet<NodeId>,
    /// Whether all have.
    has_ended: bool,
}

impl World {
    /// Prepares for what the plan has.
    pub(crate) fn begin_lapses(&mut self) {
        for (id, successor) in self.plan.lapses().collect::<Vec<_>>() {
            let lapsing = Lapsing {
                successor,
                is_cut_off: false,
                heard: BTreeSet::new(),
                all_heard_at: None,
                put_aside: BTreeSet::new(),
                has_ended: false,
            };
            self.lapses.insert(id, lapsing);
            for node in self.nodes.iter_mut().filter(|node| node.id.datacenter == successor) {
                node.is_removed = true;
            }
        }
        for change in self.plan.members.clone() {
            if let ChangeKind::Lapse { cut_off_before, cut_off_after, .. } = change.kind
                && 0 < cut_off_before
            {
                let from = Moment(change.at.0.saturating_sub(cut_off_before));
                let to = change.at.after(cut_off_after).min(ACTIVE);
                self.queue.add(from, Happening::CutOff(change.datacenter, true));
                self.queue.add(to, Happening::CutOff(change.datacenter, false));
            }
        }
    }

    /// Nothing passes between a datacenter and any other, nor the register of the members; or it
    /// does again.
    pub(crate) fn cut_off(&mut self, from: DatacenterId, is_on: bool) {
        let Some(lapsing) = self.lapses.get_mut(&from) else { return };
        if lapsing.is_cut_off == is_on {
            return;
        }
        lapsing.is_cut_off = is_on;
        self.trace.line(self.now, format_args!("CUT OFF datacenter {from}: {is_on}"));
        let others = (1..=self.plan.shape.numbers()).map(DatacenterId).filter(|to| *to != from);
        for to in others {
            self.switch(FaultKind::CutDatacenters { from, to, is_one_way: false }, is_on);
        }
        self.forget_missing_links();
    }

    /// Whether a datacenter cannot reach the register of the members.
    pub(crate) fn is_cut_off(&self, datacenter: DatacenterId) -> bool {
        self.lapses.get(&datacenter).is_some_and(|lapsing| lapsing.is_cut_off)
    }

    /// What people ask for now, of a datacenter that shall lapse and come back.
    pub(crate) fn wish_of_lapse(&mut self, id: DatacenterId) -> Option<Wish> {
        let members = &self.members.members;
        let successor = self.lapses.get(&id)?.successor;
        if members.standing(id) == Some(Standing::Open) {
            let mut changes = self.plan.members.iter();
            let is_taken_on = members.unused() == Some(successor)
                && changes.all(|change| {
                    change.kind != ChangeKind::Add
                        || members.members.contains_key(&change.datacenter)
                        || members.is_gone(change.datacenter)
                });
            return is_taken_on.then_some(Wish::Lapse(id));
        }
        let gone = members.gone.get(&id)?;
        if gone.successor != Some(successor) {
            let what = format!("{id} comes back as {:?}, not {successor}", gone.successor);
            self.fail(Failure::new("lapsed", what));
            return None;
        }
        let name = gone.name.clone();
        let nodes = || self.nodes.iter().filter(|node| node.id.datacenter == successor);
        let asks = nodes().any(|node| node.is_up);
        let nodes = nodes().map(|node| (node.id, String::new())).collect();
        asks.then_some(Wish::Add { id: successor, name, nodes, from: None })
    }

    /// A node may have heard that its datacenter has lapsed.
    pub(crate) fn notice_lapse(&mut self, place: Place) {
        let id = self.nodes[place.node].id.datacenter;
        let has_heard = |node: &crate::node::Node| node.configuration.membership.is_lapsed(id);
        if !self.is_present(place) || !has_heard(&self.nodes[place.node]) {
            return;
        }
        let mut running = self.nodes.iter().filter(|node| node.id.datacenter == id && node.is_up);
        let have_all_heard = running.all(has_heard);
        let Some(lapsing) = self.lapses.get_mut(&id) else { return };
        if have_all_heard {
            lapsing.all_heard_at.get_or_insert(self.now);
        }
        if lapsing.heard.insert((place.node, place.life)) {
            let within = self.plan.members.iter().find_map(|change| match change.kind {
                ChangeKind::Lapse { stops_within, .. } if change.datacenter == id => {
                    Some(stops_within)
                }
                ChangeKind::Lapse { .. }
                | ChangeKind::Add
                | ChangeKind::Remove
                | ChangeKind::Lose { .. } => None,
            });
            let at = self.now.after(self.members_chance.below(within.unwrap_or(MILLI) + 1));
            self.queue.add(at, Happening::PutAside(place));
        }
    }

    /// A node of a datacenter that has lapsed stops for good, and begins under its new number.
    pub(crate) fn put_aside(&mut self, place: Place) {
        if !self.is_present(place) {
            return; // It hears again.
        }
        let node = self.nodes[place.node].id;
        self.trace.line(self.now, format_args!("{node} puts its data aside"));
        self.crash(place.node, false, 0);
        self.nodes[place.node].is_removed = true;
        let of = |other: &&crate::node::Node| other.id.datacenter == node.datacenter;
        let has_ended = self.nodes.iter().filter(of).all(|other| other.is_removed);
        let Some(lapsing) = self.lapses.get_mut(&node.datacenter) else { return };
        lapsing.put_aside.insert(node);
        lapsing.has_ended = has_ended;
        let successor = lapsing.successor;
        if has_ended {
            self.control.remove(&node.datacenter);
        }
        for number in 0..self.nodes.len() {
            let other = &mut self.nodes[number];
            let begins = has_ended || other.id.number == node.number;
            if other.id.datacenter == successor && begins && other.is_removed {
                other.is_removed = false;
                let at = self.now.after(self.members_chance.below(BEGINS_WITHIN));
                self.queue.add(at, Happening::Start(number));
            }
        }
    }

    /// Whether a node has stopped for good because its datacenter has lapsed.
    pub(crate) fn is_put_aside(&self, node: NodeId) -> bool {
        let lapsing = self.lapses.get(&node.datacenter);
        lapsing.is_some_and(|lapsing| lapsing.put_aside.contains(&node))
    }

    /// Where clients of a datacenter find it.
    pub(crate) fn comes_back_as(&self, datacenter: DatacenterId) -> DatacenterId {
        let lapsing = self.lapses.get(&datacenter).filter(|lapsing| lapsing.has_ended);
        lapsing.map_or(datacenter, |lapsing| lapsing.successor)
    }

    /// Lapses whose nodes have not all put their data aside.
    pub(crate) fn open_lapses(&self) -> usize {
        self.lapses.values().filter(|lapsing| !lapsing.has_ended).count()
    }

    /// Holds that a node takes nothing late of a datacenter that was let go of.
    pub(crate) fn check_taken(&mut self, number: usize, record: &Record) {
        let Record::Entry { shard, entry, .. } = record else { return };
        let node = &self.nodes[number];
        let (id, members) = (node.id, &node.configuration.membership);
        if entry.origin == id.datacenter || !lapsed::is_let_go_of(members, entry.origin) {
            return;
        }
        let write = Dependency { origin: entry.origin, shard: *shard, stamp: entry.stamp };
        let others = self.nodes.iter().map(|other| other.id);
        let others = others.filter(|other| *other != id && other.datacenter != write.origin);
        let result = lapsed::at_append(&self.ledger, others, id, write);
        self.hold(result);
    }

    /// Holds that nobody is served by a datacenter all of whose nodes have heard that it has lapsed.
    pub(crate) fn check_refuses(&mut self, number: usize, asked: &Asked, response: &Response) {
        let node = self.nodes[number].id;
        let heard = self.lapses.get(&node.datacenter).and_then(|lapsing| lapsing.all_heard_at);
        let is_served = outcome_of(response) == Outcome::Ok && !keys_of(&asked.ask).is_empty();
        if let Some(heard) = heard
            && heard < asked.call
            && is_served
        {
            let what = format!(
                "{node} answered {response:?} to {}, asked at {}, when all of its datacenter had \
                 heard at {heard} that it had lapsed",
                asked.ask.tell(&self.keys),
                asked.call
            );
            self.fail(Failure::new("lapsed", what));
        }
    }

    /// Judges what was put aside, and counts what was given up.
    pub(crate) fn judge_lapses(&mut self) -> Result<(), Failure> {
        let acknowledged = self.ledger.acknowledged().iter().map(|it| it.write);
        let given_up: Vec<Dependency> =
            acknowledged.filter(|write| self.is_given_up(*write)).collect();
        self.tally.given_up = given_up.len() as u64;
        for (id, lapsing) in &self.lapses {
            self.tally.returned += u64::from(self.configuration.is_open(lapsing.successor));
            let mut held = BTreeSet::new();
            for node in self.nodes.iter().filter(|node| node.id.datacenter == *id) {
                let writes = node.own_writes();
                let writes = writes.map_err(|why| {
                    Failure::new("lapsed", format!("what {} put aside: {why}", node.id))
                })?;
                held.extend(writes.writes().map(|(shard, entry, _)| (shard, entry.stamp)));
            }
            let only = given_up.iter().filter(|write| write.origin == *id);
            lapsed::at_rest(only.copied(), &held)?;
        }
        Ok(())
    }
}
