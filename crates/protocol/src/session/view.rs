//! Shows a session what it may look at while it handles an input.
//!
//! Assumes: the shell takes all of it at one moment, and the clocks after the input was read.

use antecede_model::{
    clock::{Now, Timestamp},
    configuration::Configuration,
    cut::Cut,
};

use crate::machine::Lease;

/// What a session may look at while it handles an input.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The clocks.
    pub now: Now,
    /// Which nodes hold which shards.
    pub configuration: &'a Configuration,
    /// What is applied in every datacenter, as far as this node has heard.
    pub stable: &'a Cut,
    /// Until when the node may answer. Behind that the deployment may have got a new datacenter
    /// without waiting for this node, and what it holds for stable is not applied everywhere.
    pub lease_until: Lease,
    /// What is applied in this datacenter.
    pub applied: &'a Cut,
    /// At least the logical time at which everything that `applied` covers became visible.
    pub applied_at: Timestamp,
}

impl<'a> View<'a> {
    /// Whether the lease of the node lasts.
    pub(super) fn has_lease(&self) -> bool {
        match self.lease_until {
            Lease::Unbounded => true,
            Lease::Until(end) => self.now.steady < end,
        }
    }

    /// The view in which nothing is stable, for when the node's lease has ended: a write of which a
    /// session forgets now that it depends on it may be missing in a datacenter that is new. What was
    /// forgotten before was committed before that one could begin to copy.
    pub(super) const fn without_knowledge(self) -> Self {
        static NOTHING: Cut = Cut::nothing();
        Self { stable: &NOTHING, ..self }
    }
}
