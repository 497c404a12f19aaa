//! Lets nodes leave their chains before they stop, as a server does that is asked to.
//!
//! A node serves on while it is needed and until its chains have settled, then gives up its lease,
//! lets what its heads have taken be committed, says that it leaves, and ends once it is out of all
//! chains, or after `LEAVE_LIMIT`.

use antecede_model::ids::NodeId;
use antecede_protocol::{chain::Shard, manager::leaving};

use crate::{
    moment::{MILLI, Moment, SECOND},
    world::{Happening, Place, World},
};

/// How long it may take.
const LEAVE_LIMIT: u64 = 10 * SECOND;
/// How long replies may wait for their commits.
const COMMIT_LIMIT: u64 = 500 * MILLI;
/// How often a node looks how far it has come.
const LOOK_EVERY: u64 = 10 * MILLI;

/// How far a node has come with leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave {
    step: Step,
    /// When it stops anyway.
    until: Moment,
    /// How long it is down then, in nanoseconds.
    down_for: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It serves as before.
    Asked,
    /// It answers nobody any more; until then it waits for commits.
    Silent(Moment),
    /// It says so, since then.
    Said(Moment),
}

impl Leave {
    /// Whether the node has given up its right to serve.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        matches!(self.step, Step::Silent(_) | Step::Said(_))
    }

    /// Since when the node says that it leaves.
    #[must_use]
    pub const fn said_at(&self) -> Option<Moment> {
        match self.step {
            Step::Asked | Step::Silent(_) => None,
            Step::Said(at) => Some(at),
        }
    }
}

impl World {
    /// A node is asked to stop.
    pub(crate) fn ask_to_leave(&mut self, node: NodeId, down_for: u64) {
        let number = self.place_of(node);
        if !self.nodes[number].is_up || self.nodes[number].leave.is_some() {
            return;
        }
        let until = self.now.after(LEAVE_LIMIT);
        self.nodes[number].leave = Some(Leave { step: Step::Asked, until, down_for });
        self.queue.add(self.now, Happening::Leave(self.present(number)));
    }

    /// A node that was asked to stop looks how far it has come.
    pub(crate) fn go_on_leaving(&mut self, place: Place) {
        if !self.is_present(place) {
            return;
        }
        let node = &self.nodes[place.node];
        let Some(leave) = node.leave else { return };
        let Some(part) = node.configuration.datacenter(node.id.datacenter) else { return };
        let id = node.id;
        let may_end = match leave.step {
            Step::Asked | Step::Silent(_) => false,
            Step::Said(_) => leaving::is_out(part, id),
        };
        let step = match leave.step {
            Step::Asked if !leaving::is_needed(part, id) && !node.is_settling() => {
                Step::Silent(self.now.after(COMMIT_LIMIT))
            }
            Step::Silent(until) if until <= self.now || !has_open_replies(&node.shards) => {
                Step::Said(self.now)
            }
            known @ (Step::Asked | Step::Silent(_) | Step::Said(_)) => known,
        };
        if may_end || leave.until <= self.now {
            self.trace.line(self.now, format_args!("{id} ends (out of its chains: {may_end})"));
            self.crash(place.node, false, leave.down_for);
            return;
        }
        if step != leave.step {
            self.trace.line(self.now, format_args!("{id} leaves: {step:?}"));
            self.nodes[place.node].leave = Some(Leave { step, ..leave });
        }
        self.queue.add(self.now.after(LOOK_EVERY), Happening::Leave(place));
    }
}

fn has_open_replies(shards: &[Option<Shard>]) -> bool {
    shards.iter().flatten().any(Shard::has_open_replies)
}
