//! A datacenter that is being added is filled from another one, and goes on by itself.

use antecede_model::{configuration::Waiting, ids::MembershipEpoch, membership::Standing};

use super::*;

/// The second datacenter is being added and copies from the first; of its chain so many serve.
fn while_copying(deployment: &Deployment, serving: usize) -> Arc<Configuration> {
    let mut next = Configuration::clone(&deployment.configuration);
    let mut members = next.membership.as_ref().clone();
    members.members.get_mut(&dc(2)).unwrap().standing = Standing::Copying { from: dc(1) };
    members.epoch = MembershipEpoch(members.epoch.0 + 1);
    next.adopt_membership(&Arc::new(members), Some(dc(2)));
    let part = next.datacenters.get_mut(&dc(2)).unwrap();
    part.epoch = Epoch(part.epoch.0 + 1);
    for chain in &mut part.chains {
        chain.epoch = part.epoch;
        let rest = chain.serving.split_off(serving);
        chain.waiting = rest.into_iter().map(|node| (node, Waiting::Offline)).collect();
    }
    Arc::new(next)
}

/// Whom the head of the second datacenter copies from, and whether it is the head of its chain.
fn head_of_the_second(serving: usize) -> (Option<NodeId>, bool) {
    let mut deployment = Deployment::of(2, 2, 1);
    deployment.put(1, "k", "v");
    let (head, shard) = (deployment.replica(2, "k", 0), deployment.shard_of("k"));
    let next = while_copying(&deployment, serving);
    deployment.tell(head, shard, Input::Configuration(next));
    let replica = &deployment.nodes[&head].shards[&shard];
    assert_eq!(replica.lines.get(&dc(2)).map_or(Timestamp::ZERO, |line| line.newest_write).0, 0);
    (replica.donor, replica.neighbours.is_head())
}

#[test]
fn only_a_chain_of_one_replica_is_filled_from_another_datacenter() {
    let deployment = Deployment::of(2, 2, 1);
    let donor = deployment.replica(1, "k", 1);
    assert_eq!(head_of_the_second(1), (Some(donor), false));
    // Two serve: what the first has lost of its log is at the second, and nowhere else.
    assert_eq!(head_of_the_second(2), (None, true));
}
