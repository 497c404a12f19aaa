//! Takes this node out of its chains before it stops, so that nobody has to find it silent.
//!
//! The node serves on while it is the only one that serves some shard and another node may still
//! take over, and until its chains have settled: a neighbour that has just restarted may lack what
//! only this node has. Then it gives up its right to serve, lets the writes that its heads have taken
//! be committed and answered, and only then says that it leaves. So its roles have ended before
//! anybody can be given them, and whoever decides need not wait for a lease to run out.
//!
//! Meanwhile its replicas take part in commits, and its clients are served by other nodes. It has
//! left when the configuration that it knows gives it nothing to serve.
//!
//! Limits: nobody waits longer than `control.leave_timeout`, or for an agreement that is silent.

use std::sync::Arc;
use std::time::Duration;

use antecede_model::clock::Steady;
use antecede_protocol::{
    chain::Shard,
    manager::{BEAT_EVERY, leaving},
};
use tracing::{info, warn};

use crate::clock;
use crate::node::Node;

/// How often a node that leaves looks how far it has come.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long replies of its heads may wait for their commits: longer only while a chain stands still.
const COMMIT_LIMIT: Duration = Duration::from_millis(500);

/// How long a node that has left stays for the others to learn of it.
const LINGER: Duration = BEAT_EVERY.saturating_mul(3);
/// After how long a silence of the agreement a node does not wait for its decisions: it has no lease
/// then, and a change of its leader would be over.
const CUT_OFF_AFTER: Duration = Duration::from_secs(2);

/// Leaves all chains; returns when that is done, has become pointless, or takes too long.
pub(crate) async fn leave(node: &Arc<Node>) {
    let since = clock::steady();
    let until = Steady(since.0 + node.config.control.leave_timeout);
    info!(node = %node.id, "this node leaves its chains");
    let may_go = || !is_needed(node) && node.unsettled() == 0;
    if !wait(until, || may_go() || is_cut_off(node)).await {
        let what = if is_needed(node) {
            "this node stops although some shards are served by no other one"
        } else {
            "this node stops although some of its chains have not settled since another node restarted"
        };
        warn!(node = %node.id, unsettled = node.unsettled(), "{what}");
        return;
    }
    node.current.give_up_lease();
    let answered = Steady(until.0.min(clock::steady().0 + COMMIT_LIMIT));
    wait(answered, || !has_open_replies(node)).await;
    node.control.say_leaving();
    if wait(until, || has_left(node) || is_cut_off(node)).await && has_left(node) {
        let took = clock::steady().0.saturating_sub(since.0);
        info!(node = %node.id, ?took, "this node has left its chains");
        // The others hear of it with their next beats, perhaps from the member beside this node.
        tokio::time::sleep(LINGER).await;
    } else {
        warn!(node = %node.id, "this node stops although it has not left its chains");
    }
}

/// Looks until it is so; whether it was in time.
async fn wait(until: Steady, mut is_so: impl FnMut() -> bool) -> bool {
    loop {
        if is_so() {
            return true;
        }
        if until <= clock::steady() {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_needed(node: &Node) -> bool {
    let configuration = node.configuration();
    configuration
        .datacenter(node.id.datacenter)
        .is_some_and(|part| leaving::is_needed(part, node.id))
}

/// Whether the agreement has been silent for so long that nothing will be decided: this node serves
/// nobody then, and nobody can take over.
fn is_cut_off(node: &Node) -> bool {
    let heard_at = node.control.known().heard_at.unwrap_or(node.started.steady);
    CUT_OFF_AFTER <= clock::steady().0.saturating_sub(heard_at.0)
}

fn has_left(node: &Node) -> bool {
    let configuration = node.configuration();
    configuration.datacenter(node.id.datacenter).is_none_or(|part| leaving::is_out(part, node.id))
}

/// Whether a head of this node has taken a write that is not answered yet. No other comes: each
/// replica is asked after the lease was given up.
fn has_open_replies(node: &Node) -> bool {
    node.shards().any(|shard| node.look(shard, Shard::has_open_replies).unwrap_or_default())
}
