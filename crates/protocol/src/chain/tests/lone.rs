//! A datacenter that is the only one knows what it has applied all the same: sessions ask for it.

use super::*;

/// What the nodes of the datacenter know to be applied in it.
fn applied(deployment: &Deployment) -> Timestamp {
    let cuts = deployment.nodes.values().map(|node| node.keeper.cuts().applied.at(dc(1)));
    cuts.min().unwrap()
}

fn records(deployment: &Deployment) -> usize {
    deployment.nodes.values().map(|node| node.disk.records.len()).sum()
}

#[test]
fn what_was_just_written_is_not_known_to_be_applied_before_every_tail_has_said_so() {
    let mut deployment = Deployment::of(1, 2, 4);
    let wrote = deployment.put(1, "key", "value").wrote.expect("it is a write");
    assert!(applied(&deployment) < wrote.stamp, "no cut is ahead of what the tails have told");
    deployment.pass(2_000);
    assert!(wrote.stamp <= applied(&deployment), "quiet shards promise for it");
    let before = records(&deployment);
    deployment.pass(10_000);
    assert_eq!(records(&deployment), before, "an idle datacenter writes nothing");
}

#[test]
fn one_replica_for_all_needs_no_promises() {
    let mut deployment = Deployment::of(1, 1, 4);
    deployment.put(1, "key", "value");
    let before = records(&deployment);
    deployment.pass(10_000);
    assert_eq!(records(&deployment), before);
}
