//! Hears that this node's datacenter has lapsed and is given up, so that the node comes back.
//!
//! A node hears it with its datacenter's part, like everything else. Then it stays until all nodes
//! of the datacenter that are there act by that part too: the agreement of the datacenter would lose
//! its majority, and the others could hear it there no more. A node that comes too late, or cannot
//! reach the agreement of its datacenter for another reason, asks that of the deployment. For the
//! same reason it stays while the deployment's agreement has no majority without the datacenter:
//! where there are two datacenters, the other one must have taken its vote away first.
//!
//! Whoever has heard it with the part knows also which node has the newest end of each shard: the
//! head of its chain. Only that one may execute again what was never sent, since an older end would
//! make what the newer one holds look as if the key had been written since.
//!
//! Limits: nobody waits longer than `STAY_LIMIT` for the others.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use antecede_control::StoreError;
use antecede_model::{clock::Steady, configuration::Datacenter, ids::ShardId};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{agreement::Agreement, manage::facts_of};
use crate::aside::{Lapse, numbers_after};
use crate::clock;
use crate::node::Node;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two looks: longer than an attempt to ask the deployment takes.
const LOOK_GAP_MAX: Duration = Duration::from_secs(8);
/// A node without a lease for so long asks the deployment whether its datacenter has lapsed.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a node that has heard it stays for the others of its datacenter.
const STAY_LIMIT: Duration = Duration::from_secs(30);

/// Tells the node when its datacenter has lapsed and is given up; then, or if that never happens,
/// it waits until its task is ended.
pub(super) async fn hear(node: &Arc<Node>, agreement: &Agreement) -> Infallible {
    let mut unserved = Since::default();
    loop {
        if let Some(lapse) = heard_with_part(node) {
            warn!(node = %node.id, next = ?lapse.next, "this datacenter has lapsed: it comes back by itself, under another number");
            stay(node, agreement, true).await;
            node.control.say_lapsed(lapse);
            return std::future::pending().await;
        }
        let has_lease = node.has_lease(clock::steady());
        if SILENCE <= unserved.look(!has_lease, clock::steady())
            && let Some(lapse) = heard_from_deployment(node, agreement).await
        {
            warn!(node = %node.id, next = ?lapse.next, "this datacenter has lapsed, the deployment says: this node comes back under another number");
            stay(node, agreement, false).await;
            node.control.say_lapsed(lapse);
            return std::future::pending().await;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Since when something is so.
#[derive(Debug, Default)]
struct Since {
    first: Option<Steady>,
    last: Steady,
}

impl Since {
    /// For how long it has been so; nothing if it is not so now, or nobody looked for long: a process
    /// that was stopped has not seen how it was meanwhile.
    fn look(&mut self, is_so: bool, now: Steady) -> Duration {
        let is_gap = LOOK_GAP_MAX < now.0.saturating_sub(self.last.0);
        let first = self.first.filter(|_| !is_gap).unwrap_or(now);
        (self.first, self.last) = (is_so.then_some(first), now);
        self.first.map_or(Duration::ZERO, |first| now.0.saturating_sub(first.0))
    }
}

/// What the datacenter's part says.
fn heard_with_part(node: &Node) -> Option<Lapse> {
    let configuration = node.configuration();
    let part = configuration.datacenter(node.id.datacenter)?;
    let members = part.membership.as_ref()?;
    let next = numbers_after(members, node.id.datacenter);
    (!next.is_empty()).then(|| Lapse { next, newest: newest_at(node, part) })
}

/// Shards whose newest end a node has: those that it is the head of.
fn newest_at(node: &Node, part: &Datacenter) -> Vec<ShardId> {
    let chains = (0..).map(ShardId).zip(&part.chains);
    let own = chains.filter(|(_, chain)| chain.serving.first() == Some(&node.id));
    own.map(|(shard, _)| shard).collect()
}

async fn heard_from_deployment(node: &Node, agreement: &Agreement) -> Option<Lapse> {
    let deployment = agreement.deployment.as_ref()?;
    match deployment.read().await {
        Ok(members) => {
            let next = numbers_after(&members?, node.id.datacenter);
            (!next.is_empty()).then(|| Lapse { next, newest: Vec::new() })
        }
        Err(why) => {
            debug!(node = %node.id, %why, "the deployment cannot be asked whether this datacenter has lapsed");
            None
        }
    }
}

/// Waits until the deployment can decide without this datacenter and, if it was heard with the
/// datacenter's part, all of its nodes that are there have heard it; or it makes no sense.
async fn stay(node: &Arc<Node>, agreement: &Agreement, with_part: bool) {
    let since = clock::steady();
    let (mut silent, mut is_needed) = (Since::default(), false);
    while clock::steady().0.saturating_sub(since.0) < STAY_LIMIT {
        if let Some(deployment) = &agreement.deployment {
            is_needed = deployment.needs(node.id.datacenter).await.unwrap_or(is_needed);
        }
        let have_heard = if with_part { have_all_heard(node, agreement).await } else { Ok(true) };
        match have_heard {
            Ok(true) if !is_needed => return,
            Ok(_) => drop(silent.look(false, clock::steady())),
            // Most of the others have heard it and gone.
            Err(_) if SILENCE <= silent.look(true, clock::steady()) => return,
            Err(_) => {}
        }
        sleep(LOOK_EVERY).await;
    }
    warn!(node = %node.id, is_needed, "not all nodes of this datacenter have heard that it has lapsed, and ask the deployment; or that one cannot decide without them");
}

async fn have_all_heard(node: &Node, agreement: &Agreement) -> Result<bool, StoreError> {
    let Some(part) = agreement.read_part(node).await? else { return Ok(false) };
    let facts = facts_of(&part, &agreement.store.beats().await?);
    Ok(part.present().all(|node| facts.adopted.contains(&node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_looked_at_for_long_counts_from_the_next_look_on() {
        let mut since = Since::default();
        let mut look = |is_so, seconds| since.look(is_so, Steady(Duration::from_secs(seconds)));
        assert_eq!(look(true, 100), Duration::ZERO);
        assert_eq!(look(true, 102), Duration::from_secs(2));
        assert_eq!(look(false, 103), Duration::ZERO);
        assert_eq!(look(true, 104), Duration::ZERO);
        assert_eq!(look(true, 200), Duration::ZERO, "it was stopped");
        assert_eq!(look(true, 203), SILENCE);
    }
}
