//! Lets people ask that a node shall hold nothing, and that it may again, and looks whether managers
//! have moved what they should.
//!
//! At rest a node that shall hold nothing holds nothing, where enough others may hold something; and
//! where no node is gone for ever, replicas, heads and tails are spread: no two nodes differ by more
//! than one in replicas, nor two of one chain in heads, nor two that are not its head in tails.

use std::collections::BTreeMap;

use antecede_model::{
    configuration::Datacenter,
    ids::{DatacenterId, NodeId},
};
use antecede_protocol::manager::moves::{held_by, is_stuck, with_drained};

use crate::{
    chance::Chance,
    moment::{MILLI, Moment, SECOND},
    plan::Shape,
    world::{Happening, World},
};

/// How often people ask again.
const ASK_EVERY: u64 = 500 * MILLI;

/// What people ask for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When.
    pub at: Moment,
    /// Which node.
    pub node: NodeId,
    /// Whether it shall hold nothing, or may hold replicas again.
    pub is_drained: bool,
}

/// Some wishes, at most so many; most nodes that shall hold nothing may again some time later.
pub fn draw(chance: &mut Chance, shape: Shape, most: u64) -> Vec<Drain> {
    let mut drains = Vec::new();
    let narrow = |number: u64| u16::try_from(number).expect("few nodes");
    for _ in 0..chance.between(most / 3, most) {
        let datacenter = DatacenterId(narrow(chance.between(1, u64::from(shape.datacenters))));
        let node = NodeId { datacenter, number: narrow(chance.between(1, u64::from(shape.nodes))) };
        let at = Moment(chance.between(SECOND, 18 * SECOND));
        drains.push(Drain { at, node, is_drained: true });
        if chance.per_mille(600) {
            let at = at.after(chance.between(SECOND / 2, 12 * SECOND));
            drains.push(Drain { at, node, is_drained: false });
        }
    }
    drains.sort_by_key(|drain| drain.at);
    drains
}

impl World {
    /// Lets people ask for what the plan has.
    pub(crate) fn begin_drains(&mut self) {
        for (number, drain) in self.plan.drains.iter().enumerate() {
            self.queue.add(drain.at, Happening::Drain(number));
        }
    }

    /// People ask for something, and again until it is written down.
    pub(crate) fn drain(&mut self, number: usize) {
        let Drain { node, is_drained, .. } = self.plan.drains[number];
        let Some(control) = self.control.get(&node.datacenter) else { return };
        if !control.is_up {
            self.queue.add(self.now.after(ASK_EVERY), Happening::Drain(number));
            return;
        }
        if let Some(next) = with_drained(control.part(), node, is_drained) {
            let line = format_args!("ASKED {node} shall hold nothing: {is_drained}");
            self.trace.line(self.now, line);
            self.set_part(node.datacenter, &next);
        }
    }

    /// What is not where it should be.
    pub(crate) fn misplaced(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (id, control) in &self.control {
            if !self.configuration.is_present(*id) {
                continue;
            }
            let part = control.part();
            let is_gone = |node: NodeId| self.nodes[self.place_of(node)].is_removed;
            let mut tell = |what: String| found.push(format!("datacenter {id}: {what}"));
            for (shard, (node, _)) in &part.retiring {
                tell(format!("{node} leaves shard {shard}"));
            }
            let has_room = part.nodes.iter().filter(|node| !is_gone(**node)).count();
            let may_hold = has_room.saturating_sub(part.drained.len());
            let is_possible = !is_stuck(part) && usize::from(part.replicas) <= may_hold;
            for node in part.drained.iter().filter(|_| is_possible) {
                if 0 < held_by(part, *node) {
                    tell(format!("{node} shall hold nothing and holds {}", held_by(part, *node)));
                }
            }
            if part.nodes.iter().all(|node| !is_gone(*node)) {
                uneven(part).into_iter().for_each(&mut tell);
            }
        }
        found
    }
}

/// What is not spread.
fn uneven(part: &Datacenter) -> Vec<String> {
    let mut found = Vec::new();
    let (mut heads, mut tails) = (BTreeMap::new(), BTreeMap::new());
    for chain in &part.chains {
        if let Some(node) = chain.serving.first() {
            *heads.entry(*node).or_insert(0_usize) += 1;
        }
        if let Some(node) = chain.serving.last() {
            *tails.entry(*node).or_insert(0_usize) += 1;
        }
    }
    let of = |ends: &BTreeMap<NodeId, usize>, node| ends.get(&node).copied().unwrap_or(0);
    for chain in &part.chains {
        let [head, rest @ ..] = chain.serving.as_slice() else { continue };
        for other in rest {
            if of(&heads, *other) + 1 < of(&heads, *head) {
                found.push(format!("{head} is the head of many, {other} of few: {heads:?}"));
            }
        }
        let [others @ .., tail] = rest else { continue };
        for other in others {
            if of(&tails, *other) + 1 < of(&tails, *tail) {
                found.push(format!("{tail} is the tail of many, {other} of few: {tails:?}"));
            }
        }
    }
    let may_hold = part.nodes.iter().filter(|node| !part.drained.contains(node));
    let held: Vec<usize> = may_hold.map(|node| held_by(part, *node)).collect();
    if let (Some(most), Some(least)) = (held.iter().max(), held.iter().min())
        && least + 1 < *most
    {
        found.push(format!("replicas are not spread: {held:?}"));
    }
    found
}
