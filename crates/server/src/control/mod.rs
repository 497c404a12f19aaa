//! Keeps a node's right to serve, and decides for its datacenter while it leads.
//!
//! Every node says several times a second that it lives, tells what a manager wants to know of its
//! replicas, and reads what holds in its datacenter. That is its lease: it may answer for a while
//! from the moment before it spoke. On the node whose member of the agreement leads, a manager looks
//! at what was heard and decides (`antecede_protocol::manager`) what holds next.
//!
//! A node that is asked to stop gives up its right first and says that it leaves (`leave`), so that
//! others take over without waiting for its silence.
//!
//! While the agreement cannot be reached a node goes on until its lease ends, and refuses then.
//!
//! Assumes: the agreement keeps what `antecede_control::store` promises.
//! Ensures: a lease is counted from before the beat that it rests on, and granted only after all
//! replicas have taken the configuration that it belongs to.
//! Limits: a node reads its datacenter's whole part with each beat, some 20 bytes a shard.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use antecede_model::{
    clock::Steady,
    codec::{Reader, Writer},
    configuration::Datacenter,
    ids::NodeId,
    membership::Membership,
};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use tracing::{error, info, warn};

use self::agreement::Agreement;
pub(crate) use self::leave::leave;
use crate::aside::Lapse;
use crate::clock;
use crate::fatal::{self, Fatal};
use crate::node::Node;

/// Whether this node may take part.
mod admission;
/// The member and the way to the agreement.
pub(crate) mod agreement;
/// Which datacenters there are.
pub(crate) mod deployment;
/// The way to an agreement that etcd keeps.
#[cfg(feature = "etcd")]
mod etcd;
/// What nodes tell of their replicas.
pub(crate) mod facts;
/// How this node hears that its datacenter has lapsed.
mod lapse;
/// The lease of this node.
mod lease;
/// How this node goes out of its chains before it stops.
mod leave;
/// Decisions, while this node's member leads.
mod manage;
/// How members are opened.
pub(crate) mod member;
/// What a change of the datacenters waits for.
pub(crate) mod waiting;
/// Who only votes.
pub(crate) mod witness;

/// What this node knows of the agreement, for people.
#[derive(Debug, Default)]
pub(crate) struct Control {
    known: Mutex<Known>,
    /// Since when this node says that it is about to stop.
    leaves_since: OnceLock<Steady>,
    /// Asks for a beat at once.
    hurry: Notify,
    /// The deployment's agreement, as this node's manager knows it.
    deployment: Mutex<KnownDeployment>,
    /// What this node's member of the datacenter's agreement waits for before it begins.
    founding: Mutex<Option<String>>,
    /// The same for the deployment's.
    deployment_founding: Mutex<Option<String>>,
    /// How this node comes back, once its datacenter has lapsed and is given up.
    lapse: watch::Sender<Option<Lapse>>,
}

/// The deployment's agreement as a manager has last seen it.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownDeployment {
    /// The members; `None` while this node does not look, or none were read.
    pub(crate) members: Option<Arc<Membership>>,
    /// Why it cannot be reached; `None` while it can, or this node does not look.
    pub(crate) outage: Option<String>,
    /// Nodes of this datacenter that do not act by these members yet.
    pub(crate) laggards: Vec<NodeId>,
    /// What this datacenter waits for before it begins.
    pub(crate) waits: Option<String>,
}

/// The agreement as it was last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The member that leads.
    pub(crate) leader: Option<NodeId>,
    /// When the beat was sent that was last heard.
    pub(crate) heard_at: Option<Steady>,
    /// Why it cannot be reached; `None` while it can.
    pub(crate) outage: Option<String>,
    /// Whether the end of the lease was told since it cannot be reached.
    has_told_end: bool,
}

impl Control {
    /// What is known.
    pub(crate) fn known(&self) -> Known {
        self.known.lock().clone()
    }

    /// For how long this node has said that it is about to stop.
    pub(crate) fn leaves_for(&self) -> Option<Duration> {
        self.leaves_since.get().map(|since| clock::steady().0.saturating_sub(since.0))
    }

    /// What this node's member of the agreement waits for before it begins.
    pub(crate) fn founding(&self) -> Option<String> {
        self.founding.lock().clone()
    }

    /// The deployment's agreement, as this node's manager knows it.
    pub(crate) fn deployment(&self) -> KnownDeployment {
        self.deployment.lock().clone()
    }

    /// How this node comes back; waits until its datacenter has lapsed and is given up.
    pub(crate) async fn lapsed(&self) -> Lapse {
        let mut told = self.lapse.subscribe();
        let lapse = told.wait_for(Option::is_some).await.ok().and_then(|lapse| lapse.clone());
        match lapse {
            Some(lapse) => lapse,
            None => std::future::pending().await,
        }
    }

    fn say_lapsed(&self, lapse: Lapse) {
        self.lapse.send_replace(Some(lapse));
    }

    fn on_members(&self, node: &Node, members: &Arc<Membership>) {
        let mut known = self.deployment.lock();
        if known.outage.take().is_some() {
            info!(node = %node.id, "the deployment's agreement answers again");
        }
        if known.members.as_ref().is_none_or(|known| known.epoch != members.epoch) {
            known.laggards.clear();
        }
        if known.members.is_none() {
            known.waits = None; // What else there is to wait for is found now.
        }
        known.members = Some(Arc::clone(members));
    }

    fn on_no_members(&self) {
        self.deployment.lock().outage = None;
    }

    fn on_laggards(&self, laggards: Vec<NodeId>) {
        self.deployment.lock().laggards = laggards;
    }

    /// Takes note of what its datacenter waits for before it begins, and says it if that is news.
    fn on_waiting(&self, node: &Node, why: Option<String>) {
        let mut known = self.deployment.lock();
        if known.waits != why {
            if let Some(why) = &why {
                warn!(node = %node.id, "this datacenter does not begin yet: {why}");
            }
            known.waits = why;
        }
    }

    /// Its datacenter does not begin before it has heard from others; at the first start of
    /// all that lasts for a moment only, so it is not told.
    fn on_unheard(&self, why: String) {
        self.deployment.lock().waits = Some(why);
    }

    /// What this node's member waits for before it begins; `None` once it has.
    fn on_founding(&self, waits: Option<String>) {
        *self.founding.lock() = waits;
    }

    /// The same for its member of the deployment's agreement.
    fn on_deployment_founding(&self, waits: Option<String>) {
        *self.deployment_founding.lock() = waits;
    }

    fn on_deployment_silence(&self, node: &Node, why: &dyn std::fmt::Display) {
        let why = self.deployment_founding.lock().clone().unwrap_or_else(|| why.to_string());
        let mut known = self.deployment.lock();
        if known.outage.is_none() {
            warn!(node = %node.id, %why, "the deployment's agreement cannot be reached: everything goes on, only no datacenter can be added or removed");
        }
        known.outage = Some(why);
    }

    /// Another node looks.
    fn forget_deployment(&self) {
        *self.deployment.lock() = KnownDeployment::default();
    }

    /// Says from now on that this node is about to stop; after it has given up its lease.
    fn say_leaving(&self) {
        self.leaves_since.get_or_init(clock::steady);
        self.hurry.notify_one();
    }

    fn on_heard(&self, node: &Node, leader: NodeId, sent: Steady) {
        let mut known = self.known.lock();
        if known.leader != Some(leader) {
            info!(node = %node.id, %leader, "the agreement has a leader");
        }
        if known.outage.is_some() {
            info!(node = %node.id, "the agreement answers again");
        }
        *known = Known { leader: Some(leader), heard_at: Some(sent), ..Known::default() };
    }

    fn on_silence(&self, node: &Node, why: &dyn std::fmt::Display) {
        let why = self.founding.lock().clone().unwrap_or_else(|| why.to_string());
        let mut known = self.known.lock();
        if known.outage.is_none() {
            warn!(node = %node.id, %why, "the agreement cannot be reached: this node goes on until its lease ends");
        }
        known.outage = Some(why);
        if !node.has_lease(clock::steady()) && !known.has_told_end {
            known.has_told_end = true;
            warn!(node = %node.id, "this node has no lease: requests are refused until the agreement answers");
        }
    }
}

/// Takes part in the agreement until the task is ended; what has to do with replicas is done by
/// `workers`.
pub(crate) async fn live(node: Arc<Node>, agreement: Arc<Agreement>, workers: Handle) {
    tokio::select! {
        () = lease::keep(&node, &agreement, &workers) => {}
        () = manage::manage(&node, &agreement) => {}
        never = agreement.be_member(&node) => match never {},
        never = agreement.live_in_deployment(&node) => match never {},
        never = lapse::hear(&node, &agreement) => match never {},
        why = agreement.failed() => {
            error!(node = %node.id, why, "the agreement has failed on this node: this process ends; see to the disk, then start the node again");
            // What was on its way to its disk is in doubt; the others go on without it.
            fatal::end(Fatal::Disk);
        }
    }
}

/// A datacenter's part as the agreement keeps it.
fn encoded(part: &Datacenter) -> Arc<[u8]> {
    let mut bytes = Vec::new();
    part.write(&mut Writer::new(&mut bytes));
    bytes.into()
}

/// The part that the agreement keeps; `None` if this build cannot read it.
fn decoded(node: &Node, bytes: &[u8]) -> Option<Datacenter> {
    let mut reader = Reader::new(bytes);
    let part = Datacenter::read(&mut reader).and_then(|part| reader.finish().map(|()| part));
    part.inspect_err(|error| {
        error!(node = %node.id, %error, "the agreement holds a configuration that this build cannot read");
    })
    .ok()
}
