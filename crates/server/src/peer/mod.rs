//! Links between nodes: one connection from every node to every other, for what it has to say.
//!
//! A node sends on the connections that it dialled (`link`) and receives on those that others
//! dialled (`inbound`); where the way to a node of another datacenter is broken, one of a third
//! passes on what they say (`relay`). Messages are put into a link's buffer as machines tell them, and leave in
//! one frame at the end of the batch. What cannot be sent is dropped: everything between machines
//! is asked for or sent again, and sessions are told that a link was lost.
//!
//! Which links there are follows the configuration: those to the nodes of a datacenter that is added
//! are made while this node runs, those to one that is gone end. A datacenter that is no member yet,
//! or no more, speaks with nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use antecede_model::{
    clock::Timestamp,
    configuration::Configuration,
    ids::{Boot, DatacenterId, DeploymentId, MembershipEpoch, NodeId},
};
use antecede_protocol::{
    message::Message,
    wire::{
        PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN,
        hello::{Hello, Keeps},
    },
};
use parking_lot::RwLock;
use tokio::{sync::Notify, task::JoinSet};

use self::link::Link;
use self::relay::Relays;
use crate::clock;
use crate::config::Config;
use crate::node::Node;
use crate::telemetry::Telemetry;

/// How bytes of other nodes are read.
mod arriving;
/// What others say to this node.
pub(crate) mod inbound;
/// What this node says to another.
pub(crate) mod link;
/// Ways around a bad link.
mod relay;
/// Delays and cuts, for demonstrations and tests.
mod shaper;
pub use arriving::{read_opening, take_messages};
pub use link::LinkError;
pub use shaper::{LinkShape, LinkShaper};

/// All links of a node.
#[derive(Debug)]
pub(crate) struct Links {
    by_node: RwLock<Arc<BTreeMap<NodeId, Arc<Link>>>>,
    hello: Hello,
    shaper: LinkShaper,
    /// What this node passes on for others.
    pub(crate) relays: Relays,
    /// Tells that there are new ones.
    changed: Notify,
}

impl Links {
    /// No links yet.
    pub(crate) fn new(
        config: &Config,
        deployment: DeploymentId,
        boot: Boot,
        shaper: &LinkShaper,
    ) -> Self {
        let hello = Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            deployment,
            node: config.node,
            boot,
            membership: MembershipEpoch(1),
            hlc: Timestamp::ZERO,
            keeps: Keeps::Nothing,
            continues: Boot::default(),
            known: Boot::default(),
        };
        let (by_node, shaper, changed) = (RwLock::default(), shaper.clone(), Notify::new());
        Self { by_node, hello, shaper, relays: Relays::new(), changed }
    }

    /// Makes links to the nodes that a configuration names and that have none yet: where the
    /// settings say that they are, or else the members of the deployment.
    pub(crate) fn extend(
        &self,
        configuration: &Configuration,
        config: &Config,
        telemetry: &Telemetry,
    ) {
        let own = name_of(configuration, config, config.node.datacenter);
        let mut all = BTreeMap::clone(&self.all());
        for node in spoken_with(configuration, config.node.datacenter) {
            if node == config.node {
                continue;
            }
            if all.contains_key(&node) {
                continue;
            }
            let Some(address) = address_of(configuration, config, node) else { continue };
            let peer = name_of(configuration, config, node.datacenter);
            let link = Link::new(link::LinkOptions {
                to: node,
                address,
                queued_bytes_max: config.peer_queue_bytes_max,
                path: self.shaper.path(&own, &peer),
                courier: self.shaper.courier(),
                seed: u64::from(config.node.to_bits()) << 32 | u64::from(node.to_bits()),
                counters: telemetry.link(node),
            });
            all.insert(node, Arc::new(link));
        }
        *self.by_node.write() = Arc::new(all);
        self.changed.notify_one();
    }

    /// Ends the links to nodes that a configuration names no more.
    pub(crate) fn retire(&self, configuration: &Configuration) {
        let here = self.hello.node.datacenter;
        let known: BTreeSet<NodeId> = spoken_with(configuration, here).collect();
        let mut all = BTreeMap::clone(&self.all());
        all.retain(|node, link| {
            let stays = known.contains(node);
            if !stays {
                link.retire();
            }
            stays
        });
        *self.by_node.write() = Arc::new(all);
    }

    /// What this node says on a new connection, with its clock.
    pub(crate) fn hello(&self, node: &Node) -> Hello {
        let hlc = Timestamp::from_millis(clock::wall().millis());
        let membership = node.configuration().membership.epoch;
        let (keeps, continues) = (node.keeps(), node.beginning.continues());
        Hello { hlc, membership, keeps, continues, ..self.hello }
    }

    /// The link to a node.
    pub(crate) fn to(&self, node: NodeId) -> Option<Arc<Link>> {
        self.by_node.read().get(&node).cloned()
    }

    /// All links as they are now.
    pub(crate) fn all(&self) -> Arc<BTreeMap<NodeId, Arc<Link>>> {
        Arc::clone(&self.by_node.read())
    }

    /// Puts a message into the buffer of a link; whether it can leave.
    pub(crate) fn push(&self, to: NodeId, message: &Message) -> bool {
        self.by_node.read().get(&to).is_some_and(|link| link.push(message))
    }

    /// Sends what the buffers hold.
    pub(crate) fn flush(&self) {
        for link in self.all().values() {
            if link.has_pending() {
                link.flush();
            }
        }
    }
}

/// Keeps the connections of all links, also of those that are made later, until its task is ended.
pub(crate) async fn keep_all(node: Arc<Node>) {
    let mut kept = BTreeSet::new();
    let mut tasks = JoinSet::new();
    loop {
        for (to, link) in node.links.all().iter() {
            // The number of a node that is gone is never given again.
            if kept.insert(*to) {
                tasks.spawn(link::keep(Arc::clone(&node), Arc::clone(link)));
            }
        }
        tokio::select! {
            () = node.links.changed.notified() => {}
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// The nodes of a datacenter, and those of the others while it is a member as they are.
fn spoken_with(configuration: &Configuration, here: DatacenterId) -> impl Iterator<Item = NodeId> {
    let datacenters = configuration.peers(here).chain([here]);
    let nodes = datacenters.filter_map(|id| configuration.datacenter(id));
    nodes.flat_map(|there| &there.nodes).copied()
}

/// Where a node is reached; `None` if nothing says so.
fn address_of(configuration: &Configuration, config: &Config, node: NodeId) -> Option<String> {
    let set = config.nodes().find(|(id, _)| *id == node);
    let agreed = || configuration.membership.members.get(&node.datacenter)?.nodes.get(&node);
    let address = set.map(|(_, addresses)| &addresses.peer).or_else(agreed)?;
    (!address.is_empty()).then(|| address.clone())
}

/// What people call a datacenter: as the settings say, or else as the members do.
pub(crate) fn name_of(configuration: &Configuration, config: &Config, id: DatacenterId) -> String {
    let set = config.datacenters.iter().find(|there| there.id == id);
    let membership = &configuration.membership;
    let agreed = || membership.members.get(&id).map(|member| &member.name);
    let gone = || membership.gone.get(&id).map(|gone| &gone.name);
    let name = set.map(|there| &there.name).or_else(agreed).or_else(gone);
    name.map_or_else(|| format!("datacenter {id}"), Clone::clone)
}
