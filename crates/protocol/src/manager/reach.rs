//! Picks the nodes that yield where some that live cannot reach each other.
//!
//! Each node tells whom it has not reached for long. Two of which one tells so of the other are
//! severed. As long as there are severed nodes, the one yields that is severed from most; of equals
//! the one whose disk has no room, since it yields anyway, then the one that yields already, so that
//! nothing changes to and fro, then the one with the largest number. Whoever is left reaches all
//! others that are left.
//!
//! While somebody is not known to live or to be gone, nobody who yields returns: he may be the one who
//! does not reach him.
//!
//! Ensures: the same facts give the same answer; somebody who lives never yields.
//! Limits: whole nodes yield, also in chains in which those two are no neighbours; a chain whose
//! serving replicas all yield stays as it is.

use std::collections::BTreeSet;

use antecede_model::{configuration::Datacenter, ids::NodeId};

use super::{Facts, Life};

/// The nodes that yield because others cannot reach them, where those in `short` have no room.
pub(super) fn who_yields(
    datacenter: &Datacenter,
    short: &BTreeSet<NodeId>,
    facts: &Facts,
) -> BTreeSet<NodeId> {
    let lives = |node: &NodeId| match facts.life(*node) {
        Life::Alive(_) => !datacenter.absent.contains(node) && !facts.leaving.contains_key(node),
        Life::Unknown | Life::Expired => false,
    };
    let mut severed: BTreeSet<(NodeId, NodeId)> = BTreeSet::new();
    for (from, to) in &facts.unreached {
        if from != to && lives(from) && lives(to) {
            severed.insert((*from.min(to), *from.max(to)));
        }
    }
    // Who is not known to live cannot tell yet that all is well.
    let all_known = datacenter.nodes.iter().all(|node| facts.life(*node) != Life::Unknown);
    let known = |node: &&NodeId| facts.life(**node) != Life::Expired;
    let kept = datacenter.apart.iter().filter(known).filter(|_| !all_known);
    let mut yielding: BTreeSet<NodeId> = kept.copied().collect();
    severed.retain(|(one, other)| !yielding.contains(one) && !yielding.contains(other));
    while let Some(node) = most_severed(&severed, short, &datacenter.apart) {
        severed.retain(|(one, other)| *one != node && *other != node);
        yielding.insert(node);
    }
    yielding
}

/// The node that is severed from most, if any is from one.
fn most_severed(
    severed: &BTreeSet<(NodeId, NodeId)>,
    short: &BTreeSet<NodeId>,
    already: &BTreeSet<NodeId>,
) -> Option<NodeId> {
    let count = |node: &NodeId| severed.iter().filter(|(a, b)| a == node || b == node).count();
    let nodes = severed.iter().flat_map(|(one, other)| [*one, *other]);
    nodes.max_by_key(|node| (count(node), short.contains(node), already.contains(node), *node))
}
