//! What is kept for a datacenter that is behind: counted, bounded, and let go of.

use antecede_model::{ids::MembershipEpoch, membership::Gone, refusal::Refusal};

use super::*;

/// What the nodes of a datacenter keep for others.
fn kept(deployment: &Deployment, datacenter: u16) -> Vec<Kept> {
    let nodes = deployment.nodes.iter().filter(|(id, _)| id.datacenter == dc(datacenter));
    let sum = |node: &Node| node.shards.values().map(Shard::kept).fold(Kept::default(), Kept::with);
    nodes.map(|(_, node)| sum(node)).collect()
}

fn bound_all(deployment: &mut Deployment, bytes: u64) {
    for node in deployment.nodes.values_mut() {
        node.bound = Bound::new(bytes);
    }
}

fn is_refused_for(response: &Response, datacenter: u16) -> bool {
    matches!(
        response,
        Response::Refused(Refusal::OutboxFull { behind, .. }) if *behind == dc(datacenter)
    )
}

#[test]
fn writes_are_refused_at_the_limit_until_the_datacenter_that_is_behind_has_caught_up() {
    let mut deployment = Deployment::of(3, 2, 2);
    deployment.put(1, "k", "before");
    deployment.pass(3000);
    bound_all(&mut deployment, 100_000);
    deployment.cut_off(1, 3);
    deployment.cut_off(2, 3);
    let mut taken = 0;
    let refused = loop {
        let response = deployment.put(1, "k", &"v".repeat(1_000)).response;
        if response != Response::Ok {
            break response;
        }
        taken += 1;
        assert!(taken < 200, "there is a limit");
        deployment.pass(250);
    };
    assert!(is_refused_for(&refused, 3), "{refused:?}");
    assert!((60..=100).contains(&taken), "{taken} writes of a kilobyte reach the limit");
    assert_eq!(deployment.get(1, "k"), value(&"v".repeat(1_000)), "reads go on");
    let at_2 = deployment.put(2, "other", "v").response;
    assert!(is_refused_for(&at_2, 3), "the second keeps as much for the third: {at_2:?}");
    deployment.cut.clear();
    deployment.pass(3000);
    assert_eq!(deployment.put(1, "k", "after").response, Response::Ok);
    deployment.pass(3000);
    for datacenter in 1..=3 {
        assert_eq!(deployment.get(datacenter, "k"), value("after"));
        let of_ticks = |kept: &Kept| kept.entries <= 4 && kept.bytes < 1_000;
        assert!(kept(&deployment, datacenter).iter().all(of_ticks), "the last ticks stay");
    }
}

#[test]
fn what_others_write_is_taken_also_beyond_the_limit() {
    let mut deployment = Deployment::of(3, 2, 2);
    deployment.put(1, "k", "before");
    deployment.pass(3000);
    deployment.cut_off(1, 3);
    deployment.cut_off(2, 3);
    deployment.put(1, "k", "mine");
    deployment.pass(3000); // So that the second has applied what the third has not.
    for node in deployment.nodes.values_mut().take(2) {
        node.bound = Bound::new(1); // The nodes of the first datacenter.
    }
    deployment.pass(1000);
    let refused = deployment.put(1, "k", "refused").response;
    assert!(is_refused_for(&refused, 3), "{refused:?}");
    assert_eq!(deployment.put(2, "k", "from two").response, Response::Ok);
    deployment.pass(1000);
    assert_eq!(deployment.get(1, "k"), value("from two"));
}

#[test]
fn replicas_of_a_chain_keep_the_same_for_others() {
    let mut deployment = Deployment::of(2, 3, 4);
    deployment.cut_off(1, 2);
    let first = deployment.put(1, "k", "v").wrote.map(|dependency| dependency.stamp);
    for number in 0..50 {
        deployment.put(1, &format!("k{number}"), "v");
    }
    deployment.pass(1000);
    let all = kept(&deployment, 1);
    assert!(50 <= all[0].entries && all.iter().all(|one| *one == all[0]), "{all:?}");
    assert_eq!(all[0].oldest, first);
}

#[test]
fn promises_of_quiet_shards_do_not_fill_what_is_kept_for_one_that_is_away() {
    let mut deployment = Deployment::of(2, 1, 2);
    deployment.put(1, "k", "before");
    deployment.pass(3000);
    deployment.cut_off(1, 2);
    deployment.put(1, "k", "mine");
    deployment.pass(10_000);
    let soon = kept(&deployment, 1)[0].entries;
    deployment.pass(600_000);
    let later = kept(&deployment, 1)[0].entries;
    assert_eq!(later, soon, "what is promised once is enough for what was written");
    deployment.put(1, "k", "more");
    deployment.pass(10_000);
    let more = kept(&deployment, 1)[0].entries;
    assert!((later + 2..=later + 4).contains(&more), "{more} entries after {later}");
}

#[test]
fn promises_are_few_while_nobody_follows() {
    let mut deployment = Deployment::of(2, 1, 2);
    deployment.put(1, "k", "before");
    deployment.pass(5_000);
    deployment.cut_off(1, 2);
    let before = kept(&deployment, 1)[0].entries;
    let writes = 40;
    for _ in 0..writes {
        deployment.put(1, "k", "mine");
        deployment.pass(500);
    }
    let promises = kept(&deployment, 1)[0].entries - before - writes;
    // In 20 s, of the other shard: one every 2 s, and some before it is known that nobody follows.
    assert!((8..=16).contains(&promises), "{promises} promises");
}

/// How many promises a head makes in four seconds while promises are wanted and the nearest other
/// datacenter has applied what was promised so many milliseconds ago.
fn promises_while_behind(millis: u64) -> usize {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.put(1, "k", "v");
    let head = deployment.replica(1, "k", 0);
    let id = deployment.shard_of("k");
    let mut promised = BTreeSet::new();
    for _ in 0..16 {
        deployment.millis += 250;
        let shard = &deployment.nodes[&head].shards[&id];
        let mut cuts = Cuts::clone(&shard.cuts);
        let newest = shard.lines[&dc(1)].received.watermark();
        promised.insert(newest);
        cuts.ticks_to = Timestamp::from_millis(deployment.millis + 10_000);
        cuts.followed_to = Timestamp::from_millis(newest.millis() - millis);
        deployment.tell(head, id, Input::Cuts(&Arc::new(cuts)));
        deployment.persist(head);
    }
    promised.len() - 1
}

#[test]
fn others_are_near_that_are_behind_because_nodes_sync_once_a_second() {
    assert_eq!(promises_while_behind(60_000), 1, "one every two seconds");
    // A second at either end, and what cuts take.
    assert_eq!(promises_while_behind(3_000), 15);
}

/// The deployment as the first datacenter knows it that was lost and has heard so.
fn without_the_first(deployment: &Deployment) -> Configuration {
    let mut next = Configuration::clone(&deployment.configuration);
    let mut members = next.membership.as_ref().clone();
    members.members.remove(&dc(1));
    members.epoch = MembershipEpoch(members.epoch.0 + 1);
    let gone =
        Gone { name: "dc1".to_owned(), was_lost: true, since: members.epoch, successor: None };
    members.gone.insert(dc(1), gone);
    next.adopt_membership(&Arc::new(members), Some(dc(1)));
    next
}

#[test]
fn one_that_was_let_go_of_counts_nothing_as_stable_that_others_may_lack() {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.cut_off(1, 2);
    let wrote = deployment.put(1, "k", "of one only").wrote.expect("it is a write");
    let node = deployment.replica(1, "k", 0);
    let next = Arc::new(without_the_first(&deployment));
    deployment.configuration = Arc::clone(&next);
    deployment.nodes.get_mut(&node).unwrap().keeper.configure(next, dc(1));
    deployment.pass(3000);
    let stable = deployment.nodes[&node].keeper.cuts().stable.at(dc(1));
    assert!(stable < wrote.stamp, "a token of it must name that write: {stable}");
}

#[test]
fn a_datacenter_that_is_gone_lets_go_of_nothing_that_others_may_lack() {
    let mut deployment = Deployment::of(2, 1, 1);
    deployment.cut_off(1, 2);
    deployment.put(1, "k", "of one only");
    let node = deployment.replica(1, "k", 0);
    let before = kept(&deployment, 1)[0];
    deployment.configuration = Arc::new(without_the_first(&deployment));
    deployment.crash(node);
    let next = Arc::clone(&deployment.configuration);
    deployment.nodes.get_mut(&node).unwrap().keeper = CutKeeper::new(next, dc(1));
    deployment.start(node); // It has heard of it, and takes it from its folder.
    assert!(matches!(deployment.get(1, "k"), Response::Refused(Refusal::Gone)));
    deployment.pass(3000);
    let after = kept(&deployment, 1)[0];
    assert!(before.entries <= after.entries, "{after:?} of {before:?}");
}

#[test]
fn what_is_kept_for_replicas_that_are_away_is_not_kept_for_other_datacenters() {
    let mut deployment = Deployment::of(1, 2, 1);
    for number in 0..50 {
        deployment.put(1, &format!("k{number}"), "v");
    }
    deployment.pass(1000);
    assert_eq!(kept(&deployment, 1), [Kept::default(); 2]);
}

#[test]
fn what_was_let_go_of_is_not_kept_again_after_a_restart() {
    let mut deployment = Deployment::of(2, 2, 1);
    for number in 0..50 {
        deployment.put(1, &format!("k{number}"), "v");
    }
    deployment.pass(3000);
    deployment.cut_off(1, 2);
    deployment.put(1, "k", "of one only");
    let before = kept(&deployment, 1);
    let nodes: Vec<NodeId> = deployment.nodes.keys().copied().collect();
    nodes.iter().for_each(|node| deployment.crash(*node));
    nodes.iter().for_each(|node| deployment.start(*node));
    let read_back = kept(&deployment, 1);
    for (read_back, before) in read_back.iter().zip(&before) {
        assert!(before.entries <= read_back.entries, "{read_back:?} of {before:?}");
        assert!(read_back.entries <= before.entries + 4, "{read_back:?} of {before:?}");
    }
    deployment.cut.clear();
    deployment.pass(3000);
    for datacenter in 1..=2 {
        assert_eq!(deployment.get(datacenter, "k"), value("of one only"));
        assert_eq!(deployment.get(datacenter, "k7"), value("v"));
    }
}

/// Lets one shard promise as if somebody waited, while the others have no reason to.
fn promise_alone(deployment: &mut Deployment, count: u64) {
    let head = deployment.replica(1, "k", 0);
    for _ in 0..count {
        deployment.millis += 250;
        let known = deployment.nodes[&head].keeper.cuts();
        let cuts = Cuts { ticks_to: Timestamp::MAX, ..Cuts::clone(known) };
        deployment.tell(head, deployment.shard_of("k"), Input::Cuts(&cuts));
        deployment.settle();
    }
}

#[test]
fn promises_that_nobody_waits_for_are_let_go_of_once_they_are_many() {
    let mut deployment = Deployment::of(2, 1, 2);
    deployment.put(1, "k", "before");
    deployment.pass(3000);
    promise_alone(&mut deployment, 900);
    let many = kept(&deployment, 1)[0];
    assert!(100 < many.entries, "{many:?}");
    deployment.pass(3000);
    let few = kept(&deployment, 1)[0];
    assert!(few.entries <= 64, "{few:?}");
}

#[test]
fn writes_are_not_refused_for_ever_because_of_promises() {
    let mut deployment = Deployment::of(2, 1, 2);
    deployment.put(1, "k", "before");
    deployment.pass(3000);
    bound_all(&mut deployment, 4_000);
    promise_alone(&mut deployment, 400);
    let many = kept(&deployment, 1)[0];
    assert!(4_000 < many.bytes, "{many:?}");
    deployment.pass(250);
    let refused = deployment.put(1, "k", "refused").response;
    assert!(is_refused_for(&refused, 2), "{refused:?}");
    deployment.pass(3000);
    assert_eq!(deployment.put(1, "k", "taken").response, Response::Ok);
}

#[test]
fn promises_that_cannot_be_let_go_of_are_not_made_more() {
    let mut deployment = Deployment::of(2, 1, 2);
    deployment.put(1, "k", "before");
    deployment.pass(3000);
    deployment.cut_off(1, 2);
    promise_alone(&mut deployment, 900);
    deployment.pass(10_000);
    let soon = kept(&deployment, 1)[0].entries;
    assert!(100 < soon, "{soon}");
    deployment.pass(60_000);
    assert_eq!(kept(&deployment, 1)[0].entries, soon);
}
