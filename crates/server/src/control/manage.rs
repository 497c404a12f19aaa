//! Decides what holds next in the datacenter, while this node's member of the agreement leads.
//!
//! A look: what holds, then what was heard of the nodes, then the protocol's own function, and its
//! decision swapped for what was read. Two managers at a time do no harm: one swap fails.
//!
//! Invariant: what holds is read before the beats are, and a decision replaces only that state
//! (`lease` rests on it).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use antecede_control::{Beats, StoreError};
use antecede_model::{
    configuration::{Configuration, Datacenter},
    ids::{Epoch, NodeId},
};
use antecede_protocol::manager::{Change, DEAD_AFTER, Decision, Facts, Life, next_configuration};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::{
    agreement::Agreement,
    decoded,
    deployment::{First, first_part, has_begun, why_lost},
    encoded,
    facts::NodeFacts,
};
use crate::node::{Node, met::Unbegun};

/// How often a manager looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Decides while this node's member leads, until the node stops.
pub(super) async fn manage(node: &Arc<Node>, agreement: &Agreement) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_led = false;
    while !node.is_stopping() {
        looks.tick().await;
        let leads = agreement.leads();
        if leads != has_led {
            has_led = leads;
            let what = if leads { "this node decides" } else { "this node decides no more" };
            info!(node = %node.id, "{what} who serves in its datacenter");
        }
        if leads && let Err(why) = Box::pin(look(node, agreement)).await {
            debug!(node = %node.id, %why, "no decision could be made");
        }
    }
}

/// Looks once, and decides if there is something to decide.
pub(super) async fn look(node: &Arc<Node>, agreement: &Agreement) -> Result<(), StoreError> {
    let Agreement { store, key, .. } = agreement;
    let here = node.id.datacenter;
    let mut known = Configuration::clone(&node.configuration());
    let Some(stored) = store.read(key).await? else {
        return begin(node, agreement, &known).await;
    };
    let Some(part) = decoded(node, &stored.value) else { return Ok(()) };
    // Nobody serves before the deployment knows that this datacenter has begun: it is the only one
    // that can tell when everything here is lost.
    let members = || node.control.deployment().members;
    let is_told = || members().is_some_and(|members| has_begun(&members, here));
    if agreement.deployment.is_some() && part.epoch == Epoch(1) && !is_told() {
        return Ok(());
    }
    let beats = store.beats().await?;
    let facts = facts_of(&part, &beats);
    known.datacenters.insert(here, part);
    let Some(decision) = next_configuration(&known, here, &facts) else { return Ok(()) };
    let Some(next) = decision.configuration.datacenter(here) else { return Ok(()) };
    store.compare_and_swap(key, Some(stored.revision), encoded(next)).await?;
    tell(node, next.epoch, &decision);
    Ok(())
}

/// Writes the datacenter's first part, if it may begin.
async fn begin(
    node: &Node,
    agreement: &Agreement,
    known: &Configuration,
) -> Result<(), StoreError> {
    let here = node.id.datacenter;
    let members = node.control.deployment().members;
    let is_added = agreement.deployment.is_some() && node.config.is_added();
    if agreement.deployment.is_some() && members.is_none() {
        // Only others know whether it has begun before, and lost its folders.
        let name = node.name_of(here);
        node.control.on_unheard(format!(
            "datacenter {name} has no configuration, and has not heard from the deployment whether \
             it has ever had one: start the other datacenters"
        ));
        return Ok(());
    }
    // Where nobody decided before, only the nodes of the others know it.
    let doubt = node.doubt();
    if let Some(waits @ Unbegun::Waits(_)) = &doubt {
        node.control.on_unheard(waits.to_string());
        return Ok(());
    }
    let is_lost =
        doubt.is_some() || members.as_ref().is_some_and(|members| has_begun(members, here));
    if is_lost && !holds_data(node, &agreement.store.beats().await?) {
        node.control.on_waiting(node, Some(why_lost(&node.name_of(here), here)));
        return Ok(());
    }
    let is_member = members.as_ref().is_some_and(|members| members.standing(here).is_some());
    match first_part(known, here, is_added, members.as_ref()) {
        Some(First::Part(first)) => {
            agreement.store.compare_and_swap(&agreement.key, None, encoded(&first)).await?;
            node.control.on_waiting(node, None);
            info!(node = %node.id, "the datacenter's first configuration is written");
        }
        // One that comes back asks for it by itself, and says why it waits.
        Some(First::Waits(_)) if node.config.comes_back() && !is_member => {}
        Some(First::Waits(why)) => node.control.on_waiting(node, Some(why)),
        None => {}
    }
    Ok(())
}

/// Whether a node of the datacenter has what an earlier run of it held: then only the agreement is
/// new, such as one in another store.
fn holds_data(node: &Node, beats: &Beats) -> bool {
    let of_beat = |facts: &[u8]| NodeFacts::decoded(facts).is_ok_and(|it| !it.has_begun_empty);
    !node.has_begun_empty() || beats.nodes.values().any(|seen| of_beat(&seen.facts))
}

/// What the beats say of the nodes of a datacenter.
pub(super) fn facts_of(part: &Datacenter, beats: &Beats) -> Facts {
    let mut facts = Facts { epoch: part.epoch, ..Facts::default() };
    let is_old_hand = DEAD_AFTER <= beats.since_leader;
    let life = |node: &NodeId| match beats.nodes.get(node) {
        Some(seen) if seen.ago < DEAD_AFTER => Life::Alive(seen.boot),
        Some(_) | None if is_old_hand => Life::Expired,
        Some(_) | None => Life::Unknown,
    };
    facts.nodes = part.nodes.iter().map(|node| (*node, life(node))).collect();
    let (mut caught_up, mut misfits) = (BTreeSet::new(), BTreeSet::new());
    for (node, seen) in &beats.nodes {
        // What cannot be read was told by another build; it counts for nothing.
        let Ok(told) = NodeFacts::decoded(&seen.facts) else { continue };
        if told.has_begun_empty {
            facts.emptied.insert(*node); // It is so for the whole run, whatever the epoch.
        }
        if told.has_new_folder {
            facts.without_folder.insert(*node);
        }
        if let Some(leaves_for) = told.leaves_for {
            facts.leaving.insert(*node, leaves_for + seen.ago); // And this to its end.
        }
        facts.heard.insert(*node, seen.ago);
        if told.is_short {
            facts.short.insert(*node);
        }
        if told.is_settling {
            facts.settling.insert(*node);
        }
        facts.unreached.extend(told.unreached.iter().map(|other| (*node, *other)));
        facts.acts_by.insert(*node, told.epoch);
        if told.epoch == part.epoch {
            facts.adopted.insert(*node);
            caught_up.extend(told.caught_up);
            misfits.extend(told.misfits);
        }
    }
    (facts.caught_up, facts.misfits) = (caught_up, misfits);
    facts
}

/// Tells what was decided: of nodes and dark shards one by one, of other shards how many.
fn tell(node: &Node, epoch: Epoch, decision: &Decision) {
    let mut shards = 0;
    for change in &decision.changes {
        match change {
            Change::Expired { .. }
            | Change::Dark { .. }
            | Change::LostAll { .. }
            | Change::LostFolder { .. } => {
                warn!(node = %node.id, %epoch, "decided: {change}");
            }
            Change::Short { .. } | Change::Apart { .. } => {
                warn!(node = %node.id, %epoch, "decided: {change}");
            }
            Change::Started { .. }
            | Change::HasRoom { .. }
            | Change::Reached { .. }
            | Change::Drained { .. }
            | Change::Undrained { .. } => {
                info!(node = %node.id, %epoch, "decided: {change}");
            }
            Change::Shortened { .. }
            | Change::Left { .. }
            | Change::Misfit { .. }
            | Change::Emptied { .. }
            | Change::Relit { .. }
            | Change::Returned { .. }
            | Change::CaughtUp { .. }
            | Change::SteppedAside { .. }
            | Change::CutOff { .. }
            | Change::Moving { .. }
            | Change::Retiring { .. }
            | Change::Moved { .. }
            | Change::Kept { .. }
            | Change::NewHead { .. }
            | Change::NewTail { .. }
            | Change::GaveUp { .. } => {
                shards += 1;
                debug!(node = %node.id, %epoch, "decided: {change}");
                if shards == 1 {
                    info!(node = %node.id, %epoch, "decided, for one of several: {change}");
                }
            }
        }
    }
    info!(node = %node.id, %epoch, shards, "a new configuration holds");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use antecede_control::Seen;
    use antecede_model::ids::{Boot, DatacenterId, ShardId};

    use super::*;

    fn node(number: u16) -> NodeId {
        NodeId { datacenter: DatacenterId(1), number }
    }

    fn part() -> Datacenter {
        Datacenter::of("here".to_owned(), vec![node(1), node(2), node(3)], Vec::new())
    }

    fn seen(ago_millis: u64, facts: &NodeFacts) -> Seen {
        Seen { boot: Boot(5), ago: Duration::from_millis(ago_millis), facts: facts.encoded() }
    }

    fn beats(since_millis: u64, nodes: Vec<(u16, Seen)>) -> Beats {
        Beats {
            since_leader: Duration::from_millis(since_millis),
            nodes: nodes.into_iter().map(|(number, seen)| (node(number), seen)).collect(),
        }
    }

    #[test]
    fn nobody_is_given_up_before_the_leader_has_listened_for_the_whole_time() {
        let none = NodeFacts::default();
        let heard = || vec![(1, seen(10, &none)), (2, seen(1_000, &none))];
        let lives = |since| facts_of(&part(), &beats(since, heard())).nodes;
        let alive = Life::Alive(Boot(5));
        let young = [(node(1), alive), (node(2), Life::Unknown), (node(3), Life::Unknown)];
        assert_eq!(lives(999), BTreeMap::from(young));
        let old = [(node(1), alive), (node(2), Life::Expired), (node(3), Life::Expired)];
        assert_eq!(lives(1_000), BTreeMap::from(old));
    }

    #[test]
    fn facts_count_only_for_the_epoch_in_which_they_were_measured() {
        let mut told = NodeFacts::of(Epoch(1), false);
        told.add_caught_up(Some((ShardId(4), node(2))));
        told.add_misfit(Some((ShardId(5), node(3))));
        let heard = |facts: &NodeFacts| beats(5_000, vec![(1, seen(10, facts))]);
        let facts = facts_of(&part(), &heard(&told));
        assert_eq!(facts.caught_up, BTreeSet::from([(ShardId(4), node(2))]));
        assert_eq!(facts.misfits, BTreeSet::from([(ShardId(5), node(3))]));
        told.epoch = Epoch(2);
        let facts = facts_of(&part(), &heard(&told));
        assert!(facts.caught_up.is_empty() && facts.misfits.is_empty(), "{facts:?}");
        assert!(facts.emptied.is_empty(), "{facts:?}");
        told.has_begun_empty = true;
        let facts = facts_of(&part(), &heard(&told));
        assert_eq!(facts.emptied, BTreeSet::from([node(1)]), "in whatever epoch");
        assert!(facts.leaving.is_empty() && facts.unreached.is_empty(), "{facts:?}");
        told.add_unreached(node(2));
        let facts = facts_of(&part(), &heard(&told));
        assert_eq!(facts.unreached, BTreeSet::from([(node(1), node(2))]), "in whatever epoch");
        assert!(facts.settling.is_empty(), "{facts:?}");
        told.is_settling = true;
        let facts = facts_of(&part(), &heard(&told));
        assert_eq!(facts.settling, BTreeSet::from([node(1)]), "in whatever epoch");
        told.leaves_for = Some(Duration::from_millis(30));
        let facts = facts_of(&part(), &heard(&told));
        let leaving = BTreeMap::from([(node(1), Duration::from_millis(40))]);
        assert_eq!(facts.leaving, leaving, "in whatever epoch");
        assert_eq!(facts.heard, BTreeMap::from([(node(1), Duration::from_millis(10))]));
    }
}
