//! Tells the head of replicas behind it that are short of disk, so that it refuses writes at once.
//!
//! A commit needs every replica, so a write that the head takes while another one cannot store it
//! would wait for nothing. A replica that is low still takes what is under way, and says up the
//! chain that no more should come: with each batch of entries, and every time the cuts are told.
//! The head believes it for `SHORTAGE_HELD`, so that it is over by itself once nobody says so.
//!
//! Limits: what the head has let in before it knew waits, if a replica is not low but full.

use std::time::Duration;

use antecede_model::{clock::Steady, ids::NodeId};

use super::{Shard, after};
use crate::{
    geo::cuts::CUTS_EVERY,
    machine::{Here, Outputs, Room, Storage},
    message::Body,
};

/// For how long one word of a shortage counts. A quiet node says it every fourth time only.
const SHORTAGE_HELD: Duration = Duration::from_millis(2_500);
const _: () = assert!(8 * CUTS_EVERY.as_millis() < SHORTAGE_HELD.as_millis());

/// A replica that has said that it is short of disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shortage {
    node: NodeId,
    until: Steady,
}

impl Shard {
    /// The replica of this chain whose disk takes no new writes, if there is one.
    pub(crate) fn short_of_room(&self, here: &Here, storage: &dyn Storage) -> Option<NodeId> {
        if storage.room() != Room::Ample {
            return Some(self.node);
        }
        let shortage = self.shortage.filter(|shortage| here.now.steady < shortage.until)?;
        let chain = self.configuration.chain(self.here_datacenter(), self.shard);
        chain.contains(&shortage.node).then_some(shortage.node)
    }

    /// Tells the predecessor if this node is short of disk.
    pub(super) fn tell_shortage(&self, storage: &dyn Storage, out: &mut Outputs) {
        if let Some(previous) = self.neighbours.previous
            && storage.room() != Room::Ample
        {
            out.early(previous, self.message(Body::NoRoom { node: self.node }));
        }
    }

    /// A replica further down is short of disk.
    pub(super) fn on_no_room(
        &mut self,
        here: &Here,
        from: NodeId,
        node: NodeId,
        out: &mut Outputs,
    ) {
        if !self.is_from(self.neighbours.next, from, out) {
            return;
        }
        self.shortage = Some(Shortage { node, until: after(here.now.steady, SHORTAGE_HELD) });
        if let Some(previous) = self.neighbours.previous {
            out.early(previous, self.message(Body::NoRoom { node }));
        }
    }
}
