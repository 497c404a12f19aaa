//! A log that was set back to an older one, as from a backup: others have more of what was written
//! here than it has.

use super::*;
use crate::message::Received;

/// What was told of writes that began in a datacenter: up to where they were here, as another one
/// knows, and up to where they are.
fn told_of(deployment: &Deployment, of: u16) -> Option<(Timestamp, Timestamp)> {
    deployment.events.iter().find_map(|event| {
        let Event::Older { origin, had_to, here_to, .. } = event else { return None };
        (*origin == dc(of)).then_some((*had_to, *here_to))
    })
}

/// The same of those that began in the first datacenter.
fn told(deployment: &Deployment) -> Option<(Timestamp, Timestamp)> {
    told_of(deployment, 1)
}

/// Puts an earlier disk in the place of a node's.
fn set_back(deployment: &mut Deployment, node: NodeId, records: Vec<Vec<u8>>) {
    let disk = &mut deployment.nodes.get_mut(&node).unwrap().disk;
    (disk.persisted, disk.records) = (records.len(), records);
}

#[test]
fn a_log_that_lacks_what_others_have_of_it_is_told_from_one_that_does_not() {
    let mut deployment = Deployment::of(2, 1, 1);
    let first = deployment.put(1, "k", "first").wrote.unwrap().stamp;
    deployment.pass(1_000);
    let node = deployment.replica(1, "k", 0);
    let backup = deployment.nodes[&node].disk.records.clone();
    let second = deployment.put(1, "k", "second").wrote.unwrap().stamp;
    deployment.pass(1_000);
    deployment.crash(node);
    deployment.start(node);
    deployment.pass(1_000);
    assert_eq!(told(&deployment), None, "its own log has all");
    deployment.crash(node);
    set_back(&mut deployment, node, backup);
    // Also when it goes on before it hears of it.
    deployment.cut_off(1, 2);
    deployment.start(node);
    deployment.put(1, "k", "third");
    deployment.pass(1_000);
    assert_eq!(told(&deployment), None);
    deployment.cut.clear();
    deployment.pass(1_000);
    assert_eq!(told(&deployment), Some((second, first)));
}

#[test]
fn a_replica_without_which_its_chain_goes_on_is_not_taken_for_one_with_an_older_log() {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.put(1, "k", "first");
    deployment.pass(1_000);
    let (here, there) = (deployment.replica(1, "k", 0), deployment.replica(2, "k", 0));
    deployment.crash(here);
    deployment.start(here);
    let shard = deployment.shard_of("k");
    let replica = &deployment.nodes[&here].shards[&shard];
    let later = replica.hlc.last().next();
    let report = Received {
        membership: replica.configuration.membership.epoch,
        lineage: replica.configuration.lineage(dc(1), shard),
        received_to: later,
        applied_to: later,
        above: Vec::new(),
        credit: 1,
    };
    let report = replica.message(Body::Received(report));
    deployment.lease_until = Lease::Until(Steady::default());
    deployment.deliver(there, here, deployment.nodes[&there].boot, &report);
    assert_eq!(told(&deployment), None, "it has no lease");
    deployment.lease_until = Lease::Unbounded;
    deployment.deliver(there, here, deployment.nodes[&there].boot, &report);
    assert!(told(&deployment).is_some());
}

/// The first datacenter runs on a backup that lacks a write of the second, which has been told so
/// many milliseconds before that it is there.
fn set_back_behind_others(millis: u64) -> (Deployment, Timestamp) {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.put(2, "k", "first");
    deployment.pass(1_000);
    let (here, there) = (deployment.replica(1, "k", 0), deployment.replica(2, "k", 0));
    let backup = deployment.nodes[&here].disk.records.clone();
    let second = deployment.put(2, "k", "second").wrote.unwrap().stamp;
    deployment.pass(millis);
    assert_eq!(deployment.get(1, "k"), value("second"));
    deployment.crash(here);
    set_back(&mut deployment, here, backup);
    deployment.start(here);
    let shard = deployment.shard_of("k");
    deployment.tell(there, shard, Input::Restarted(here));
    (deployment, second)
}

#[test]
fn a_log_that_lacks_what_another_datacenter_has_let_go_of_is_told() {
    let (mut deployment, second) = set_back_behind_others(5_000);
    deployment.pass(1_000);
    let (had_to, here_to) = told_of(&deployment, 2).expect("the sender knows what it let go of");
    assert!(here_to < second && second <= had_to);
}

#[test]
fn what_another_datacenter_keeps_is_taken_again_and_nothing_is_told() {
    let (mut deployment, _) = set_back_behind_others(100);
    deployment.pass(1_000);
    assert_eq!(told_of(&deployment, 2), None);
    assert_eq!(deployment.get(1, "k"), value("second"));
}

#[test]
fn without_a_lease_a_replica_does_not_take_its_log_for_an_older_one() {
    let (mut deployment, _) = set_back_behind_others(5_000);
    deployment.lease_until = Lease::Until(Steady::default());
    deployment.pass(1_000);
    assert_eq!(told_of(&deployment, 2), None, "its chain may have gone on without it");
    deployment.lease_until = Lease::Unbounded;
    deployment.pass(1_000);
    assert!(told_of(&deployment, 2).is_some());
}
