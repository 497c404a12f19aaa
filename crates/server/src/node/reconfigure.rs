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

use super::{Node, Work, members, met};
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
        if of == self.id.datacenter && part.boots.get(&self.id) == Some(&self.boot) {
            // A manager knows this run: what a later one finds in the folder is what is left of it.
            self.beginning.end(met::Whole::Again);
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
        self.current.act_on(next);
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
    pub(super) fn why_not_member(&self, configuration: &Configuration) -> Option<&'static str> {
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
    pub(crate) const fn has_begun_empty(&self) -> bool {
        self.has_begun_empty
    }

    /// What a manager wants to know of this node's replicas.
    pub(crate) fn facts(&self) -> NodeFacts {
        let _exchanging = self.reconfiguring.lock();
        let configuration = self.configuration();
        let epoch = configuration.epoch(self.id.datacenter);
        let mut facts = NodeFacts::of(epoch, self.has_begun_empty());
        facts.has_new_folder = self.has_begun_empty && self.beginning.was_new();
        facts.leaves_for = self.control.leaves_for();
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Config, Layers, tests::TWO};
    use crate::node::open::{Parts, open};
    use crate::peer::LinkShaper;

    /// A node in memory that waits for a datacenter that nobody reaches.
    fn node() -> Arc<Node> {
        let file = Some(("antecede.toml".into(), TWO.to_owned()));
        let config = Config::load(&Layers { file, ..Layers::default() }).unwrap();
        let config = Arc::new(config);
        open(Parts { config, memory_figure: None, shaper: LinkShaper::new() }).unwrap()
    }

    /// The next part of this node's datacenter, with another standing.
    fn with_standing(node: &Node, standing: Standing) -> Datacenter {
        let configuration = node.configuration();
        let here = node.id.datacenter;
        let mut members = Membership::clone(&configuration.membership);
        members.epoch.0 += 1;
        members.members.get_mut(&here).unwrap().standing = standing;
        let mut part = configuration.datacenter(here).unwrap().clone();
        part.epoch.0 += 1;
        part.membership = Some(Arc::new(members));
        part
    }

    #[test]
    fn a_node_is_ready_only_when_all_its_replicas_have_heard_that_they_may_serve() {
        let node = node();
        let here = node.id.datacenter;
        let joining = with_standing(&node, Standing::Joining { from: None });
        assert!(node.adopt(here, &joining, &mut Work::begin()));
        assert_eq!(node.why_not_ready().as_deref(), Some("its datacenter is being added"));
        let open = with_standing(&node, Standing::Open);
        let last = node.shards().last().unwrap();
        std::thread::scope(|scope| {
            let busy = node.replica(last).unwrap().lock();
            let adopted = scope.spawn(|| node.adopt(here, &open, &mut Work::begin()));
            let since = clock::steady();
            while node.configuration().epoch(here) != open.epoch {
                let waited = clock::steady().0 - since.0;
                assert!(waited < Duration::from_secs(30), "it takes the part over");
                std::thread::yield_now();
            }
            assert_eq!(node.why_not_ready().as_deref(), Some("its datacenter is being added"));
            drop(busy);
            assert!(adopted.join().unwrap());
        });
        assert_ne!(node.why_not_ready().as_deref(), Some("its datacenter is being added"));
    }
}
