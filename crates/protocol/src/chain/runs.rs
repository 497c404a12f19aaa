//! Knows the newest run of each replica of the datacenter, and counts only what that run has said.
//!
//! A run that has ended may have lost what it promised to hold: with weaker fsync all that was not
//! synced. So every promise down the chain names the runs that it rests on (`Promise`). Whoever
//! learns of a newer run of a replica before it takes that replica's word back, for itself and for
//! those further down; it counts again as the new run gives it, which it does once it has agreed on
//! its log with its successor. In the same way an acknowledgement of a successor's earlier run that
//! was not passed on yet is forgotten.
//!
//! Where a manager decides who serves, it also says in which run: a message of any other is refused,
//! and a new run is heard from in the epoch that gives it its place.
//!
//! Assumes: a restarted process has a larger boot.
//! Ensures: from the moment at which a replica learns of a new run, directly or by a promise, it
//! commits nothing on the word of an earlier run. In between it cannot know.

use antecede_model::ids::{Boot, NodeId};

use super::Shard;
use crate::{
    event::Event,
    machine::{Here, Outputs},
    message::{Boots, Progress, Promise},
    mutation::Mutation,
};

impl Shard {
    /// The newest run of a node of this datacenter that is known here; for checks.
    #[must_use]
    pub fn known_boot(&self, node: NodeId) -> Option<Boot> {
        self.boots.get(&node).copied()
    }

    /// The replicas before this one, from the head on.
    fn members_before(&self) -> impl Iterator<Item = NodeId> {
        let chain = self.configuration.chain(self.node.datacenter, self.shard);
        let is_member = self.neighbours.is_member;
        chain.iter().copied().take_while(move |member| is_member && *member != self.node)
    }

    /// The runs of the replicas before this one, as far as they are known.
    pub(super) fn boots_before(&self) -> Boots {
        self.members_before()
            .map(|member| self.boots.get(&member).copied().unwrap_or_default())
            .collect()
    }

    /// Whether a run is the newest of its node that is known; learns of a newer one.
    pub(super) fn is_current_boot(
        &mut self,
        here: &Here,
        (of, boot): (NodeId, Boot),
        out: &mut Outputs,
    ) -> bool {
        let known = self.boots.get(&of).copied();
        if known == Some(boot) {
            return true;
        }
        let decided = self.configuration.datacenter(of.datacenter);
        if decided.is_some_and(|decided| decided.boots.contains_key(&of)) {
            return false; // A run gets its rights by a new epoch, and by nothing else.
        }
        if known.is_some_and(|known| boot < known) {
            return false;
        }
        self.boots.insert(of, boot);
        self.before.boots = self.boots_before();
        if known.is_some() {
            self.on_new_boot(of);
            self.advance(here, out);
        }
        true
    }

    /// A replica has restarted: what it was told or has promised counts no more.
    fn on_new_boot(&mut self, of: NodeId) {
        if self.neighbours.next == Some(of) {
            self.after = Progress::default();
            self.disagree();
        }
        let is_before = self.members_before().any(|member| member == of);
        if is_before && !self.options.mutations.has(Mutation::CountEarlierRuns) {
            self.before = self.before_at_start();
        }
    }

    /// Whether a promise of the predecessor rests on the newest runs that are known; learns of
    /// newer ones.
    pub(super) fn is_of_current_boots(
        &mut self,
        here: &Here,
        promise: &Promise,
        out: &mut Outputs,
    ) -> bool {
        // The sender's own run was looked at when its message came in.
        let Some((_, earlier)) = self.before.boots.split_last() else { return false };
        if earlier == promise.boots.as_slice() {
            return true;
        }
        if earlier.len() != promise.boots.len() {
            return false;
        }
        let named: Vec<(NodeId, Boot)> =
            self.members_before().zip(promise.boots.iter().copied()).collect();
        let is_known = |(_, boot): &(NodeId, Boot)| *boot != Boot(0);
        named.into_iter().filter(is_known).all(|run| self.is_current_boot(here, run, out))
    }

    /// Whether a message comes from the neighbour that may say such a thing.
    pub(super) fn is_from(
        &self,
        neighbour: Option<NodeId>,
        from: NodeId,
        out: &mut Outputs,
    ) -> bool {
        let is_right = neighbour == Some(from);
        if !is_right {
            out.event(Event::StaleMessage { from });
        }
        is_right
    }
}
