//! Links between nodes: one connection from every node to every other, for what it has to say.
//!
//! A node sends on the connections that it dialled (`link`) and receives on those that others
//! dialled (`inbound`). Messages are put into a link's buffer as machines tell them, and leave in
//! one frame at the end of the batch. What cannot be sent is dropped: everything between machines
//! is asked for or sent again, and sessions are told that a link was lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use antecede_model::{
    clock::Timestamp,
    ids::{Boot, DeploymentId, MembershipEpoch, NodeId},
};
use antecede_protocol::{
    message::Message,
    wire::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, hello::Hello},
};

use self::link::Link;
use crate::clock;
use crate::config::Config;
use crate::telemetry::Telemetry;

/// How bytes of other nodes are read.
mod arriving;
/// What others say to this node.
pub(crate) mod inbound;
/// What this node says to another.
pub(crate) mod link;
/// Delays and cuts, for demonstrations and tests.
mod shaper;
pub use arriving::{read_hello, take_messages};
pub use link::LinkError;
pub use shaper::{LinkShape, LinkShaper};

/// All links of a node.
#[derive(Debug)]
pub(crate) struct Links {
    by_node: BTreeMap<NodeId, Arc<Link>>,
    hello: Hello,
}

impl Links {
    pub(crate) fn new(
        config: &Config,
        deployment: DeploymentId,
        boot: Boot,
        telemetry: &Telemetry,
        shaper: &LinkShaper,
    ) -> Self {
        let own = config.datacenter_name(config.node.datacenter);
        let by_node = config
            .peers()
            .map(|(node, addresses)| {
                let peer = config.datacenter_name(node.datacenter);
                let link = Link::new(link::LinkOptions {
                    to: node,
                    address: addresses.peer.clone(),
                    queued_bytes_max: config.peer_queue_bytes_max,
                    path: shaper.path(own, peer),
                    courier: shaper.courier(),
                    seed: u64::from(config.node.to_bits()) << 32 | u64::from(node.to_bits()),
                    counters: telemetry.link(node),
                });
                (node, Arc::new(link))
            })
            .collect();
        let hello = Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            deployment,
            node: config.node,
            boot,
            membership: MembershipEpoch(1),
            hlc: Timestamp::ZERO,
        };
        Self { by_node, hello }
    }

    /// What this node says on a new connection, with its clock.
    pub(crate) fn hello(&self) -> Hello {
        Hello { hlc: Timestamp::from_millis(clock::wall().millis()), ..self.hello }
    }

    /// The link to a node.
    pub(crate) fn to(&self, node: NodeId) -> Option<&Arc<Link>> {
        self.by_node.get(&node)
    }

    /// All links in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.by_node.values()
    }

    /// Puts a message into the buffer of a link; whether it can leave.
    pub(crate) fn push(&self, to: NodeId, message: &Message) -> bool {
        self.to(to).is_some_and(|link| link.push(message))
    }

    /// Sends what the buffers hold.
    pub(crate) fn flush(&self) {
        for link in self.iter() {
            if link.has_pending() {
                link.flush();
            }
        }
    }
}
