//! Carries messages between nodes in no time, in order, along links that can be cut or held.
//!
//! A message is taken from the queue in the order in which it was sent. A cut link loses it; a held
//! link keeps it until it is released, let through, dropped or repeated.
//!
//! Ensures: nothing overtakes on a link unless the script says so.

use std::collections::{BTreeSet, VecDeque};

use antecede_model::ids::{Boot, NodeId, ShardId};
use antecede_protocol::message::Message;

use super::telling;

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    /// The run of the sender.
    pub(super) boot: Boot,
    pub(super) message: Message,
}

/// A set of messages: those between certain nodes, perhaps only of one shard or kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// Pairs of sender and receiver.
    pub(super) links: BTreeSet<(NodeId, NodeId)>,
    pub(super) shard: Option<ShardId>,
    /// As [`telling::kind`] names it.
    pub(super) kind: Option<String>,
}

impl Selection {
    fn has(&self, packet: &Packet) -> bool {
        self.links.contains(&(packet.from, packet.to))
            && self.shard.is_none_or(|shard| telling::shard_of(&packet.message) == Some(shard))
            && self.kind.as_deref().is_none_or(|kind| telling::kind(&packet.message) == kind)
    }
}

/// What became of the next message.
#[derive(Debug)]
pub(super) enum Fate {
    /// It arrives.
    Arrives(Packet),
    /// It is lost on a cut link.
    Lost(Packet),
    /// It waits on a held link.
    Held(Packet),
}

/// All links.
#[derive(Debug, Default)]
pub(super) struct Network {
    queue: VecDeque<Packet>,
    cut: BTreeSet<(NodeId, NodeId)>,
    holds: Vec<Selection>,
    held: Vec<Packet>,
    /// What arrived, for repeats.
    arrived: Vec<Packet>,
}

impl Network {
    pub(super) fn send(&mut self, packet: Packet) {
        self.queue.push_back(packet);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes the next message from the queue.
    pub(super) fn next(&mut self) -> Option<Fate> {
        let packet = self.queue.pop_front()?;
        Some(if self.is_cut(packet.from, packet.to) {
            Fate::Lost(packet)
        } else if self.holds.iter().any(|hold| hold.has(&packet)) {
            self.held.push(packet.clone());
            Fate::Held(packet)
        } else {
            self.arrived.push(packet.clone());
            Fate::Arrives(packet)
        })
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(super) fn cut(&mut self, links: &BTreeSet<(NodeId, NodeId)>) {
        self.cut.extend(links);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn hold(&mut self, selection: Selection) {
        self.holds.push(selection);
    }

    /// Lets everything go that was held by this selection.
    pub(super) fn release(&mut self, selection: &Selection) {
        let count = self.holds.len();
        self.holds.retain(|hold| hold != selection);
        assert!(self.holds.len() < count, "nothing is held by that selection");
        let held = self.take_held(selection, usize::MAX);
        for packet in held.into_iter().rev() {
            self.queue.push_front(packet);
        }
    }

    /// Takes the first messages that are held, to be handed over while the link stays held.
    pub(super) fn take_held(&mut self, selection: &Selection, count: usize) -> Vec<Packet> {
        let mut taken = Vec::new();
        let mut kept = Vec::new();
        for packet in std::mem::take(&mut self.held) {
            if selection.has(&packet) && taken.len() < count {
                taken.push(packet);
            } else {
                kept.push(packet);
            }
        }
        self.held = kept;
        taken
    }

    /// The last message of a selection that arrived.
    pub(super) fn last_arrived(&self, selection: &Selection) -> Packet {
        let found = self.arrived.iter().rev().find(|packet| selection.has(packet));
        found.expect("such a message has arrived before").clone()
    }
}
