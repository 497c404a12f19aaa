//! Exchanges the configuration of a node that runs, and measures facts under the one that holds.
//!
//! Ensures: all replicas and the keeper of cuts have been told of a configuration before a lease is
//! granted for it; facts are measured under one epoch; a node that was let in has a link.

use std::sync::Arc;

use antecede_model::{
    configuration::{Configuration, Datacenter},
    cut::Cut,
    ids::{DatacenterId, MembershipEpoch, NodeId, ShardId},
    membership::{Membership, Standing},
};
use antecede_protocol::{
    chain::{Input, Shard},
    manager::UNREACHED_AFTER,
};
use tracing::{info, warn};

use super::{
    Node, Work, members,
    open::{Past, is_known_now},
};
use crate::clock;
use crate::control::facts::NodeFacts;
use crate::peer::name_of;

impl Node {
    /// Takes over a datacenter's part if it is newer and fits; tells whether it did.
    ///
    /// With its own datacenter's part come the datacenters that this one acts by from then on.
    pub(crate) fn adopt(&self, of: DatacenterId, part: &Datacenter, work: &mut Work) -> bool {
        let exchanging = self.reconfiguring.lock();
        let newer = part.membership.as_ref().filter(|_| of == self.id.datacenter);
        let mut next = Configuration::clone(&self.configuration());
        let before = next.datacenter(of).cloned();
        if !next.adopt(of, part) {
            return false;
        }
        self.expect_anew(before.as_ref(), part);
        if of == self.id.datacenter
            && part.boots.get(&self.id) == Some(&self.boot)
            && self.past == Past::NewFolder
            && let Some(folder) = &self.config.storage.folder
        {
            is_known_now(folder);
        }
        let newer = newer.filter(|newer| next.adopt_membership(newer, Some(of)));
        if let Some(newer) = newer {
            self.write_members(newer);
            // Whoever is let in has a link by then.
            self.links.extend(&next, &self.config, &self.telemetry);
        }
        let next = Arc::new(next);
        self.current.exchange(Arc::clone(&next));
        if let Some(newer) = newer {
            self.links.retire(&next);
            info!(node = %self.id, epoch = %newer.epoch, "the datacenters of the deployment have changed");
            if newer.is_gone(of) && !newer.is_lapsed(of) {
                let name = self.name_of(of);
                warn!(node = %self.id, "datacenter {name} is of this deployment no more: this node refuses everything; stop it, and keep its folder until nobody can ask for its data");
            }
        }
        self.keeper.lock().configure(Arc::clone(&next), self.id.datacenter);
        for shard in self.shards() {
            let Some(replica) = self.replica(shard) else { continue };
            let mut replica = replica.lock();
            replica.serves = next.chain(self.id.datacenter, shard).contains(&self.id);
            let input = Input::Configuration(Arc::clone(&next));
            self.handle(shard, &mut replica, input, work);
            self.follow_log(shard, &mut replica, work);
        }
        drop(exchanging);
        self.sessions.poke();
        info!(node = %self.id, datacenter = %of, epoch = %part.epoch, "a configuration is taken over");
        true
    }

    /// Nodes that are back get their time to be connected again.
    fn expect_anew(&self, before: Option<&Datacenter>, part: &Datacenter) {
        let known = |of: &Datacenter, node: NodeId| {
            (of.boots.get(&node).copied(), of.absent.contains(&node))
        };
        for link in self.links.all().values().filter(|link| part.nodes.contains(&link.node())) {
            let node = link.node();
            if before.is_none_or(|before| known(before, node) != known(part, node)) {
                link.expect_anew();
            }
        }
    }

    /// Why clients are not served as members of this deployment serve them; `None` if they are.
    pub(crate) fn why_not_member(&self) -> Option<&'static str> {
        let configuration = self.configuration();
        let here = self.id.datacenter;
        match configuration.membership.standing(here) {
            Some(Standing::Open) => None,
            Some(Standing::Joining { .. } | Standing::Copying { .. }) => {
                Some("its datacenter is being added")
            }
            Some(Standing::Leaving) => Some("its datacenter is being removed"),
            Some(Standing::Lost) | None if configuration.membership.is_lapsed(here) => {
                Some("its datacenter has lapsed, and comes back by itself")
            }
            Some(Standing::Lost) => Some("its datacenter is being given up"),
            None if configuration.membership.is_gone(here) => {
                Some("its datacenter is of this deployment no more")
            }
            None => Some("its datacenter is not of this deployment yet"),
        }
    }

    fn write_members(&self, newer: &Membership) {
        let Some(folder) = &self.config.storage.folder else { return };
        if let Err(why) = members::write(folder, newer) {
            let cause = std::error::Error::source(&why).map(ToString::to_string);
            warn!(node = %self.id, %why, cause, "the next run learns the members from the agreement alone");
        }
    }

    /// What people call a datacenter.
    pub(crate) fn name_of(&self, id: DatacenterId) -> String {
        name_of(&self.configuration(), &self.config, id)
    }

    /// Whether this datacenter has done what these members ask of it, as far as this node knows.
    pub(crate) fn has_done(&self, of: MembershipEpoch) -> bool {
        self.configuration().membership.epoch == of
            && self.keeper.lock().has_done(self.id.datacenter)
    }

    /// What a datacenter has applied, as far as this node knows.
    pub(crate) fn applied_at(&self, id: DatacenterId) -> Option<Cut> {
        self.keeper.lock().applied_at(id).cloned()
    }

    /// Whether this run began with nothing of any shard.
    pub(crate) fn has_begun_empty(&self) -> bool {
        self.past != Past::Data
    }

    /// What a manager wants to know of this node's replicas.
    pub(crate) fn facts(&self) -> NodeFacts {
        let _exchanging = self.reconfiguring.lock();
        let configuration = self.configuration();
        let epoch = configuration.epoch(self.id.datacenter);
        let mut facts = NodeFacts::of(epoch, self.has_begun_empty());
        facts.has_new_folder = self.past == Past::NewFolder;
        facts.is_leaving = self.control.is_leaving();
        facts.is_short = self.log.is_short();
        // A replica that is to leave lets its last writes be committed and answered first.
        let part = configuration.datacenter(self.id.datacenter);
        let mut retiring = part.into_iter().flat_map(|part| &part.retiring);
        let is_open = |shard: ShardId| self.look(shard, Shard::has_open_replies) == Some(true);
        facts.is_settling = 0 < self.unsettled()
            || retiring.any(|(shard, (node, _))| *node == self.id && is_open(*shard));
        let now = clock::steady();
        for link in self.links.all().values() {
            let is_near = link.node().datacenter == self.id.datacenter;
            if is_near && link.is_unreached(now, UNREACHED_AFTER) {
                facts.add_unreached(link.node());
            }
        }
        for shard in self.shards() {
            let told = |of: fn(&Shard) -> Option<NodeId>| self.look(shard, of).flatten();
            let named = |node: NodeId| -> (ShardId, NodeId) { (shard, node) };
            facts.add_caught_up(told(Shard::caught_up).map(named));
            facts.add_misfit(told(Shard::misfit).map(named));
        }
        facts
    }
}
