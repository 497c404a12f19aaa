//! Decides when a message arrives, whether it arrives at all, and how often.
//!
//! Each ordered pair of nodes is a stream. What the protocol sends again by itself may be lost,
//! repeated or overtaken one by one; requests and replies of sessions travel as on one connection:
//! in order and once, or the connection breaks, what was under way is lost, and both ends are told.
//!
//! Ensures: nothing passes a cut; what is under way when a cut begins may still arrive.

use std::collections::BTreeSet;

use antecede_model::ids::{DatacenterId, NodeId};

use crate::{
    chance::Chance,
    moment::{MICRO, Moment, SECOND},
    plan::{Shape, Weather},
};

/// How much later a message comes that was overtaken or repeated, at most.
const LATER_MAX: u64 = 3 * SECOND;

/// How a message must be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A request or a reply of a session: in order and once, or not at all.
    Connected,
    /// Anything else: the protocol sends it again.
    Resent,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives(Moment),
    /// It arrives twice.
    Twice(Moment, Moment),
    /// It does not arrive.
    Lost,
}

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// When the last message that keeps its order arrives.
    last: Moment,
    /// Counts the connections; messages of an earlier one do not arrive.
    connection: u32,
    /// Nanoseconds on top.
    extra: u64,
    /// How many faults cut it.
    cuts: u32,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    nodes: u16,
    count: usize,
    links: Vec<Link>,
    weather: Weather,
    chance: Chance,
    is_calm: bool,
    /// Links over which a connection has broken since the world asked last.
    broken: BTreeSet<(NodeId, NodeId)>,
}

impl Network {
    /// Links between all nodes of a shape.
    #[must_use]
    pub fn new(shape: Shape, weather: Weather, chance: Chance) -> Self {
        let count = usize::from(shape.numbers()) * usize::from(shape.nodes);
        let links = vec![Link::default(); count * count];
        let broken = BTreeSet::new();
        Self { nodes: shape.nodes, count, links, weather, chance, is_calm: false, broken }
    }

    fn index(&self, node: NodeId) -> usize {
        usize::from(node.datacenter.0 - 1) * usize::from(self.nodes) + usize::from(node.number - 1)
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        let place = self.index(from) * self.count + self.index(to);
        &mut self.links[place]
    }

    /// Which connection a message that leaves now travels on.
    #[must_use]
    pub fn connection(&self, from: NodeId, to: NodeId) -> u32 {
        self.links[self.index(from) * self.count + self.index(to)].connection
    }

    /// Whether a direction is cut.
    #[must_use]
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        0 < self.links[self.index(from) * self.count + self.index(to)].cuts
    }

    /// Decides what becomes of a message that leaves now.
    pub fn send(&mut self, now: Moment, from: NodeId, to: NodeId, class: Class) -> Fate {
        if self.is_cut(from, to) {
            return self.lose(from, to, class);
        }
        let is_resent = class == Class::Resent && !self.is_calm;
        if is_resent && self.chance.per_mille(self.weather.lost_per_mille) {
            return Fate::Lost;
        }
        let at = now.after(self.delay(from, to));
        if is_resent && self.chance.per_mille(self.weather.overtaken_per_mille) {
            let later = (self.delay(from, to) * self.chance.between(1, 20)).min(LATER_MAX);
            return Fate::Arrives(at.after(later));
        }
        let link = self.link(from, to);
        let at = at.max(Moment(link.last.0 + 1));
        link.last = at;
        if is_resent && self.chance.per_mille(self.weather.repeated_per_mille) {
            let later = (self.delay(from, to) * self.chance.between(1, 50)).min(LATER_MAX);
            return Fate::Twice(at, at.after(later));
        }
        Fate::Arrives(at)
    }

    fn lose(&mut self, from: NodeId, to: NodeId, class: Class) -> Fate {
        match class {
            Class::Connected => {
                self.broken.insert((from, to));
                self.broken.insert((to, from));
            }
            Class::Resent => {}
        }
        Fate::Lost
    }

    fn delay(&mut self, from: NodeId, to: NodeId) -> u64 {
        if from == to {
            return MICRO;
        }
        let base = if from.datacenter == to.datacenter {
            self.weather.local_delay
        } else {
            let place = |id: DatacenterId| usize::from(id.0 - 1);
            self.weather.wide_delays[place(from.datacenter)][place(to.datacenter)]
        };
        let jitter = self.chance.below(base / 4 + 1);
        let late = if !self.is_calm && self.chance.per_mille(self.weather.late_per_mille) {
            base * self.chance.between(2, 20)
        } else {
            0
        };
        base + jitter + late + self.link(from, to).extra
    }

    /// Cuts one direction, or mends one cut of it.
    pub fn cut(&mut self, from: NodeId, to: NodeId, is_cut: bool) {
        let link = self.link(from, to);
        link.cuts = if is_cut { link.cuts + 1 } else { link.cuts - 1 };
    }

    /// Makes one direction slower, or takes that back.
    pub fn slow(&mut self, from: NodeId, to: NodeId, extra: u64, is_slow: bool) {
        let link = self.link(from, to);
        link.extra = if is_slow { link.extra + extra } else { link.extra - extra };
    }

    /// Breaks the connections between two nodes: what is under way does not arrive.
    pub fn reset(&mut self, from: NodeId, to: NodeId) {
        for (from, to) in [(from, to), (to, from)] {
            let link = self.link(from, to);
            link.connection += 1;
            link.last = Moment::default();
            self.broken.insert((from, to));
        }
    }

    /// Loses what is under way to a node that has ended.
    pub fn refuse(&mut self, from: NodeId, to: NodeId) {
        let link = self.link(from, to);
        link.connection += 1;
        link.last = Moment::default();
    }

    /// Ends all cuts, slowness and losses.
    pub fn calm(&mut self) {
        for link in &mut self.links {
            link.cuts = 0;
            link.extra = 0;
        }
        self.is_calm = true;
    }

    /// The ends of connections that have broken since this was asked last: (who is told, of whom).
    pub fn take_broken(&mut self) -> BTreeSet<(NodeId, NodeId)> {
        if self.broken.is_empty() {
            return BTreeSet::new();
        }
        std::mem::take(&mut self.broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{moment::MILLI, plan::Plan};

    const A1: NodeId = NodeId { datacenter: DatacenterId(1), number: 1 };
    const B1: NodeId = NodeId { datacenter: DatacenterId(2), number: 1 };

    fn network(change: impl FnOnce(&mut Weather)) -> Network {
        let mut plan = Plan::of(5);
        plan.weather.lost_per_mille = 0;
        plan.weather.repeated_per_mille = 0;
        plan.weather.overtaken_per_mille = 0;
        change(&mut plan.weather);
        Network::new(plan.shape, plan.weather, Chance::new(5, 0))
    }

    fn arrivals(network: &mut Network, class: Class) -> Vec<Fate> {
        (0..500).map(|turn| network.send(Moment(turn * MICRO), A1, B1, class)).collect()
    }

    #[test]
    fn connected_messages_keep_their_order_in_any_weather() {
        let mut network = network(|weather| {
            weather.late_per_mille = 200;
            weather.lost_per_mille = 200;
            weather.overtaken_per_mille = 200;
            weather.repeated_per_mille = 200;
        });
        let mut last = Moment::default();
        for fate in arrivals(&mut network, Class::Connected) {
            let Fate::Arrives(at) = fate else { panic!("{fate:?}") };
            assert!(last < at);
            last = at;
        }
    }

    #[test]
    fn resent_messages_are_lost_repeated_and_overtaken() {
        let mut network = network(|weather| {
            weather.lost_per_mille = 100;
            weather.overtaken_per_mille = 100;
            weather.repeated_per_mille = 100;
        });
        let fates = arrivals(&mut network, Class::Resent);
        assert!(fates.contains(&Fate::Lost));
        assert!(fates.iter().any(|fate| matches!(fate, Fate::Twice(..))));
        let at: Vec<Moment> = fates
            .iter()
            .filter_map(|fate| if let Fate::Arrives(at) = fate { Some(*at) } else { None })
            .collect();
        assert!(!at.is_sorted());
    }

    #[test]
    fn nothing_passes_a_cut_and_both_ends_of_a_connection_are_told() {
        let mut network = network(|_| ());
        network.cut(A1, B1, true);
        assert_eq!(network.send(Moment(0), A1, B1, Class::Resent), Fate::Lost);
        assert!(network.take_broken().is_empty());
        assert_eq!(network.send(Moment(0), A1, B1, Class::Connected), Fate::Lost);
        assert_eq!(network.take_broken(), BTreeSet::from([(A1, B1), (B1, A1)]));
        assert!(matches!(network.send(Moment(0), B1, A1, Class::Resent), Fate::Arrives(_)));
        network.cut(A1, B1, false);
        assert!(matches!(network.send(Moment(0), A1, B1, Class::Connected), Fate::Arrives(_)));
    }

    #[test]
    fn slow_links_add_to_the_delay() {
        let mut network = network(|weather| weather.late_per_mille = 0);
        network.slow(A1, B1, 3000 * MILLI, true);
        let Fate::Arrives(at) = network.send(Moment(0), A1, B1, Class::Resent) else { panic!() };
        assert!(Moment(3000 * MILLI) < at);
    }
}
