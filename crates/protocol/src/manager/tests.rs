//! Every row of the table by itself, then chains that live through random failures.

use antecede_model::{configuration::Layout, ids::DeploymentId, key::ShardCount};
use proptest::prelude::*;

use super::*;

const HERE: DatacenterId = DatacenterId(1);
const SHARD: ShardId = ShardId(0);
/// Nodes of the datacenter, which are the replicas of its one chain.
const NODES: u16 = 3;

fn node(number: u16) -> NodeId {
    NodeId { datacenter: HERE, number }
}

fn alive(boot: u64) -> Life {
    Life::Alive(Boot(boot))
}

/// A deployment of one chain; all nodes are in their first run.
fn with(serving: &[u16], waiting: &[(u16, Waiting)]) -> Configuration {
    let mut configuration = Configuration::of(&Layout {
        deployment: DeploymentId([3; 16]),
        shard_count: ShardCount::new(1).unwrap(),
        chain_length: NODES,
        datacenters: vec![(HERE, "here".to_owned(), NODES)],
    });
    let datacenter = configuration.datacenters.get_mut(&HERE).unwrap();
    datacenter.boots = datacenter.nodes.iter().map(|node| (*node, Boot(1))).collect();
    datacenter.chains = vec![Chain {
        epoch: Epoch(1),
        serving: serving.iter().map(|number| node(*number)).collect(),
        waiting: waiting.iter().map(|(number, why)| (node(*number), *why)).collect(),
    }];
    configuration
}

/// The same, with nodes that are known to be gone.
fn without(absent: &[u16], serving: &[u16], waiting: &[(u16, Waiting)]) -> Configuration {
    let mut configuration = with(serving, waiting);
    let datacenter = configuration.datacenters.get_mut(&HERE).unwrap();
    datacenter.absent = absent.iter().map(|number| node(*number)).collect();
    configuration
}

/// What is known of the nodes, from the first on.
fn facts(of: &Configuration, lives: [Life; NODES as usize]) -> Facts {
    Facts { epoch: of.epoch(HERE), nodes: (1..).map(node).zip(lives).collect(), ..Facts::default() }
}

fn chain(configuration: &Configuration) -> &Chain {
    &configuration.datacenter(HERE).unwrap().chains[0]
}

/// The chain that is decided, and why.
fn decided(old: &Configuration, facts: &Facts) -> (Chain, Vec<Change>) {
    let decision = next_configuration(old, HERE, facts).expect("something changes");
    assert_eq!(decision.configuration.epoch(HERE), old.epoch(HERE).next());
    (chain(&decision.configuration).clone(), decision.changes)
}

fn is(chain: &Chain, serving: &[u16], waiting: &[(u16, Waiting)]) -> bool {
    let expected = with(serving, waiting);
    let expected = self::chain(&expected);
    chain.serving == expected.serving && chain.waiting == expected.waiting
}

const UNKNOWN: Life = Life::Unknown;
const EXPIRED: Life = Life::Expired;

#[test]
fn while_all_live_or_nothing_is_known_nothing_changes() {
    let old = with(&[1, 2, 3], &[]);
    for lives in [[alive(1); 3], [UNKNOWN; 3], [alive(1), UNKNOWN, alive(1)]] {
        assert_eq!(next_configuration(&old, HERE, &facts(&old, lives)), None);
    }
    let waiting = [(1, Waiting::Offline), (2, Waiting::LastServing), (3, Waiting::Offline)];
    let old = without(&[2], &[], &waiting);
    let without_the_last = facts(&old, [alive(1), EXPIRED, alive(1)]);
    assert_eq!(next_configuration(&old, HERE, &without_the_last), None, "only 2 may begin again");
}

#[test]
fn facts_of_another_epoch_change_nothing() {
    let old = with(&[1, 2, 3], &[]);
    let mut facts = facts(&old, [EXPIRED, alive(1), alive(1)]);
    facts.epoch = facts.epoch.next();
    assert_eq!(next_configuration(&old, HERE, &facts), None);
}

/// The same, with nodes that are short of disk and said so.
fn short_of_disk(numbers: &[u16], of: Configuration) -> (Configuration, Facts) {
    let mut of = of;
    let short: BTreeSet<NodeId> = numbers.iter().copied().map(node).collect();
    of.datacenters.get_mut(&HERE).unwrap().short = short.clone();
    let known = facts(&of, [alive(1); 3]);
    (of, Facts { short, ..known })
}

#[test]
fn replica_that_is_short_of_disk_leaves_once_it_has_said_that_it_steps_aside() {
    let old = with(&[1, 2, 3], &[]);
    let mut known = facts(&old, [alive(1); 3]);
    known.short.insert(node(2));
    known.adopted = (1..=NODES).map(node).collect();
    let decision = next_configuration(&old, HERE, &known).expect("it is marked");
    assert_eq!(decision.changes, [Change::Short { node: node(2) }]);
    let marked = decision.configuration;
    assert_eq!(chain(&marked), chain(&old), "the chain goes on undisturbed");

    let mut known = Facts { short: known.short, ..facts(&marked, [alive(1); 3]) };
    known.adopted.insert(node(1));
    assert_eq!(next_configuration(&marked, HERE, &known), None, "it may still answer");
    known.adopted = BTreeSet::from([node(2)]);
    assert_eq!(next_configuration(&marked, HERE, &known), None, "others may not be there");
    known.adopted.insert(node(3));
    let (next, changes) = decided(&marked, &known);
    assert!(is(&next, &[1, 3], &[(2, Waiting::Offline)]), "{next:?}");
    assert_eq!(next.epoch, marked.epoch(HERE).next());
    assert_eq!(changes, [Change::SteppedAside { shard: SHARD, node: node(2) }]);
}

#[test]
fn run_that_has_not_said_so_itself_is_not_taken_for_one_that_has_stepped_aside() {
    let (old, mut known) = short_of_disk(&[2], with(&[1, 2, 3], &[]));
    known.adopted.insert(node(2));
    known.nodes.insert(node(2), alive(2));
    let (next, changes) = decided(&old, &known);
    assert_eq!(next.serving, chain(&old).serving);
    assert_eq!(changes, [Change::Started { node: node(2), boot: Boot(2) }]);
}

#[test]
fn chain_keeps_its_replicas_where_nobody_has_room_who_could_go_on() {
    let (old, mut known) = short_of_disk(&[1, 2, 3], with(&[1, 2, 3], &[]));
    known.adopted = (1..=NODES).map(node).collect();
    assert_eq!(next_configuration(&old, HERE, &known), None);

    let (old, mut known) = short_of_disk(&[1, 2], with(&[1, 2, 3], &[]));
    known.adopted = (1..=NODES).map(node).collect();
    known.nodes.insert(node(3), UNKNOWN);
    assert_eq!(next_configuration(&old, HERE, &known), None, "it is not known to live");
    known.nodes.insert(node(3), EXPIRED);
    let (next, _) = decided(&old, &known);
    assert!(is(&next, &[1, 2], &[(3, Waiting::Offline)]), "{next:?}");
}

#[test]
fn replica_that_is_short_of_disk_does_not_copy_until_it_has_room() {
    let (old, mut known) = short_of_disk(&[3], with(&[1, 2], &[(3, Waiting::Syncing)]));
    known.caught_up.insert((SHARD, node(3)));
    let (next, changes) = decided(&old, &known);
    assert!(is(&next, &[1, 2], &[(3, Waiting::Offline)]), "{next:?}");
    assert_eq!(changes, [Change::GaveUp { shard: SHARD, node: node(3) }]);

    let (old, mut known) = short_of_disk(&[3], with(&[1, 2], &[(3, Waiting::Offline)]));
    assert_eq!(next_configuration(&old, HERE, &known), None);
    known.short.clear();
    let (next, changes) = decided(&old, &known);
    assert!(is(&next, &[1, 2], &[(3, Waiting::Syncing)]), "{next:?}");
    assert_eq!(changes[0], Change::HasRoom { node: node(3) });
}

/// The same, of whom some have not reached others.
fn unreached(pairs: &[(u16, u16)], of: &Configuration) -> Facts {
    let unreached = pairs.iter().map(|(from, to)| (node(*from), node(*to))).collect();
    let adopted = (1..=NODES).map(node).collect();
    Facts { unreached, adopted, ..facts(of, [alive(1); 3]) }
}

fn apart(decision: &Decision) -> Vec<NodeId> {
    decision.configuration.datacenter(HERE).unwrap().apart.iter().copied().collect()
}

#[test]
fn one_of_two_that_cannot_reach_each_other_steps_aside_then_leaves_then_comes_back() {
    let old = with(&[1, 2, 3], &[]);
    let known = unreached(&[(1, 2)], &old);
    let marked = next_configuration(&old, HERE, &known).expect("one of them is marked");
    assert_eq!(marked.changes, [Change::Apart { node: node(2) }]);
    let marked = marked.configuration;
    assert_eq!(chain(&marked), chain(&old), "it counts still");

    let mut known = unreached(&[(1, 2)], &marked);
    known.adopted.remove(&node(2));
    assert_eq!(next_configuration(&marked, HERE, &known), None, "it may still answer");
    let (next, changes) = decided(&marked, &unreached(&[(1, 2)], &marked));
    assert!(is(&next, &[1, 3], &[(2, Waiting::Offline)]), "{next:?}");
    assert_eq!(changes, [Change::CutOff { shard: SHARD, node: node(2) }]);

    let mut without = marked;
    without.datacenters.get_mut(&HERE).unwrap().chains = vec![next];
    let known = unreached(&[(2, 1)], &without);
    assert_eq!(next_configuration(&without, HERE, &known), None, "it copies nothing meanwhile");
    let (back, changes) = decided(&without, &unreached(&[], &without));
    assert!(is(&back, &[1, 3], &[(2, Waiting::Syncing)]), "{back:?}");
    assert_eq!(changes[0], Change::Reached { node: node(2) });
}

#[test]
fn who_is_severed_from_most_yields_and_of_equals_who_yields_already() {
    let old = with(&[1, 2, 3], &[]);
    let yields = |of: &Configuration, pairs: &[(u16, u16)]| {
        next_configuration(of, HERE, &unreached(pairs, of)).map(|decision| apart(&decision))
    };
    assert_eq!(yields(&old, &[(1, 2), (3, 1)]), Some(vec![node(1)]));
    assert_eq!(yields(&old, &[(2, 3)]), Some(vec![node(3)]));
    assert_eq!(yields(&old, &[(1, 2), (2, 3), (3, 1)]), Some(vec![node(2), node(3)]));
    let mut marked = with(&[2, 3], &[(1, Waiting::Offline)]);
    marked.datacenters.get_mut(&HERE).unwrap().apart.insert(node(1));
    assert_eq!(yields(&marked, &[(1, 2)]), None, "the number does not matter then");
    assert_eq!(yields(&marked, &[(1, 2), (2, 3)]), Some(vec![node(2)]));
}

#[test]
fn of_two_that_cannot_reach_each_other_the_one_without_room_yields() {
    let mut marked = with(&[1, 2], &[(3, Waiting::Offline)]);
    let here = marked.datacenters.get_mut(&HERE).unwrap();
    here.short.insert(node(1));
    here.apart.insert(node(2));
    let mut known = unreached(&[(1, 2)], &marked);
    known.short.insert(node(1));
    let next = next_configuration(&marked, HERE, &known).expect("one chain is cut in two");
    assert_eq!(apart(&next), [node(1)], "it yields anyway: the other can go on");
    known.epoch = next.configuration.epoch(HERE);
    let (chain, changes) = decided(&next.configuration, &known);
    assert!(is(&chain, &[2], &[(1, Waiting::Offline), (3, Waiting::Syncing)]), "{chain:?}");
    assert_eq!(changes, [Change::SteppedAside { shard: SHARD, node: node(1) }]);

    known.short.clear();
    let healed = next_configuration(&next.configuration, HERE, &known).expect("it has room");
    assert_eq!(apart(&healed), [node(1)], "and nothing changes to and fro");
}

#[test]
fn whom_the_dead_did_not_reach_does_not_yield_and_the_unknown_change_nothing() {
    let old = with(&[1, 2, 3], &[]);
    let mut known = unreached(&[(1, 2)], &old);
    known.nodes.insert(node(1), EXPIRED);
    let (next, _) = decided(&old, &known);
    assert!(is(&next, &[2, 3], &[(1, Waiting::Offline)]), "{next:?}");

    let mut marked = with(&[1, 3], &[(2, Waiting::Offline)]);
    marked.datacenters.get_mut(&HERE).unwrap().apart.insert(node(2));
    let mut known = unreached(&[], &marked);
    known.nodes.insert(node(1), UNKNOWN);
    assert_eq!(next_configuration(&marked, HERE, &known), None, "the first may not reach it");
}

#[test]
fn expired_replica_leaves_and_the_others_keep_their_order() {
    for (gone, left) in [(1, [3, 2]), (2, [3, 1]), (3, [2, 1])] {
        let old = with(&[3, 2, 1], &[]);
        let mut lives = [alive(1); 3];
        lives[gone - 1] = EXPIRED;
        let (next, changes) = decided(&old, &facts(&old, lives));
        let number = u16::try_from(gone).unwrap();
        assert!(is(&next, &left, &[(number, Waiting::Offline)]), "{next:?}");
        let node = node(number);
        assert_eq!(changes, [Change::Expired { node }, Change::Shortened { shard: SHARD, node }]);
    }
}

const BEFORE: Duration = Duration::from_millis(500);
const SAID: Duration = Duration::from_millis(400);
const SINCE: Duration = Duration::from_millis(100);

/// The same nodes, of which these leave, and all that live were heard since and have settled.
fn leaving(of: &Configuration, lives: [Life; NODES as usize], numbers: &[u16]) -> Facts {
    let leaving = numbers.iter().map(|number| (node(*number), SAID)).collect();
    let known = facts(of, lives);
    let live = known.nodes.iter().filter(|(_, life)| matches!(life, Life::Alive(_)));
    let adopted: BTreeSet<NodeId> = live.map(|(node, _)| *node).collect();
    let heard = adopted.iter().map(|node| (*node, SINCE)).collect();
    Facts { leaving, heard, adopted, ..known }
}

#[test]
fn replica_of_a_node_that_leaves_goes_offline_and_stays_there() {
    let old = with(&[3, 2, 1], &[]);
    let (next, changes) = decided(&old, &leaving(&old, [alive(1); 3], &[3]));
    assert!(is(&next, &[2, 1], &[(3, Waiting::Offline)]), "{next:?}");
    assert_eq!(next.epoch, old.epoch(HERE).next());
    assert_eq!(changes, [Change::Left { shard: SHARD, node: node(3) }]);
    let old = with(&[2, 1], &[(3, Waiting::Offline)]);
    let still_there = leaving(&old, [alive(1); 3], &[3]);
    assert_eq!(next_configuration(&old, HERE, &still_there), None, "it does not begin to copy");
    let (next, _) = decided(&old, &leaving(&old, [alive(1), alive(1), alive(2)], &[]));
    assert!(is(&next, &[2, 1], &[(3, Waiting::Syncing)]), "its next run does: {next:?}");
}

#[test]
fn copying_ends_on_a_node_that_leaves() {
    let old = with(&[1, 2], &[(3, Waiting::Syncing)]);
    let mut known = leaving(&old, [alive(1); 3], &[3]);
    known.caught_up = BTreeSet::from([(SHARD, node(3))]);
    let (next, changes) = decided(&old, &known);
    assert!(is(&next, &[1, 2], &[(3, Waiting::Offline)]), "{next:?}");
    assert_eq!(changes, [Change::GaveUp { shard: SHARD, node: node(3) }]);
}

#[test]
fn one_that_could_serve_stays_although_it_leaves() {
    let old = with(&[1], &[(2, Waiting::Offline), (3, Waiting::Offline)]);
    let known = leaving(&old, [alive(1), EXPIRED, EXPIRED], &[1]);
    let next = next_configuration(&old, HERE, &known).expect("two are gone").configuration;
    assert!(is(chain(&next), &[1], &[(2, Waiting::Offline), (3, Waiting::Offline)]));
    let old = with(&[1, 2, 3], &[]);
    let (next, _) = decided(&old, &leaving(&old, [alive(1); 3], &[1, 2, 3]));
    assert!(is(&next, &[3], &[(1, Waiting::Offline), (2, Waiting::Offline)]), "{next:?}");
    let (next, _) = decided(&old, &leaving(&old, [alive(1), alive(1), EXPIRED], &[1, 2]));
    assert!(is(&next, &[2], &[(1, Waiting::Offline), (3, Waiting::Offline)]), "{next:?}");
}

#[test]
fn one_that_leaves_stays_while_nothing_is_known_of_the_others() {
    let old = with(&[1, 2], &[(3, Waiting::Offline)]);
    let known = leaving(&old, [alive(1), UNKNOWN, alive(1)], &[1]);
    let (next, _) = decided(&old, &known);
    assert!(is(&next, &[1, 2], &[(3, Waiting::Syncing)]), "it may have an empty log: {next:?}");
    let known = Facts { emptied: BTreeSet::from([node(2)]), ..known };
    let back = Facts { nodes: facts(&old, [alive(1), alive(2), alive(1)]).nodes, ..known };
    let (next, _) = decided(&old, &back);
    assert!(is(&next, &[1], &[(2, Waiting::Offline), (3, Waiting::Offline)]), "{next:?}");
    let (next, _) = decided(&old, &leaving(&old, [alive(1); 3], &[1]));
    assert!(is(&next, &[2], &[(1, Waiting::Offline), (3, Waiting::Offline)]), "{next:?}");
}

#[test]
fn one_that_leaves_stays_until_another_one_was_heard_since() {
    let old = with(&[1, 2, 3], &[]);
    let mut known = leaving(&old, [alive(1); 3], &[1]);
    known.heard.extend([(node(2), BEFORE), (node(3), BEFORE)]);
    assert_eq!(next_configuration(&old, HERE, &known), None, "they may have lost their logs");
    known.heard.insert(node(3), SINCE);
    let (next, _) = decided(&old, &known);
    assert!(is(&next, &[2, 3], &[(1, Waiting::Offline)]), "{next:?}");
}

#[test]
fn one_that_leaves_stays_while_the_one_that_could_take_over_leaves_as_well() {
    let old = with(&[1, 2, 3], &[]);
    let marked = next_configuration(&old, HERE, &unreached(&[(1, 3)], &old)).unwrap().configuration;
    let mut known = leaving(&marked, [alive(1); 3], &[2]);
    known.unreached.insert((node(1), node(3)));
    known.heard.insert(node(1), BEFORE);
    let (next, changes) = decided(&marked, &known);
    assert!(is(&next, &[1, 2], &[(3, Waiting::Offline)]), "1 may have lost its log: {next:?}");
    assert_eq!(changes, [Change::CutOff { shard: SHARD, node: node(3) }]);
    known.heard.insert(node(1), SINCE);
    let (next, _) = decided(&marked, &known);
    let waiting = [(2, Waiting::Offline), (3, Waiting::Offline)];
    assert!(is(&next, &[1], &waiting), "{next:?}");
}

#[test]
fn one_that_leaves_stays_until_another_one_has_settled() {
    let old = with(&[1, 2, 3], &[]);
    let settled = leaving(&old, [alive(1); 3], &[1]);
    let settling = Facts { settling: [node(2), node(3)].into(), ..settled.clone() };
    assert_eq!(next_configuration(&old, HERE, &settling), None, "they may lack the ends of logs");
    let late = Facts { adopted: [node(1)].into(), ..settled.clone() };
    assert_eq!(next_configuration(&old, HERE, &late), None, "what they said was of another epoch");
    let one = Facts { settling: [node(2)].into(), adopted: [node(1), node(3)].into(), ..settled };
    let (next, _) = decided(&old, &one);
    assert!(is(&next, &[2, 3], &[(1, Waiting::Offline)]), "the third has all: {next:?}");

    let known = leaving(&old, [alive(1), alive(2), EXPIRED], &[1]);
    let (next, changes) = decided(&old, &known);
    assert!(is(&next, &[1, 2], &[(3, Waiting::Offline)]), "the second runs anew: {next:?}");
    assert!(changes.contains(&Change::Started { node: node(2), boot: Boot(2) }), "{changes:?}");
}

#[test]
fn of_those_that_all_leave_one_that_has_not_settled_is_left_with_nobody() {
    let old = with(&[1, 2], &[(3, Waiting::Offline)]);
    let known = leaving(&old, [alive(1), alive(1), EXPIRED], &[1, 2]);
    let settling = Facts { settling: [node(2)].into(), ..known };
    let next = next_configuration(&old, HERE, &settling).expect("one is gone").configuration;
    assert!(is(chain(&next), &[1, 2], &[(3, Waiting::Offline)]), "{:?}", chain(&next));
}

#[test]
fn of_those_that_all_leave_the_one_heard_last_stays() {
    let old = with(&[1, 2, 3], &[]);
    let mut known = leaving(&old, [alive(1); 3], &[1, 2, 3]);
    known.heard.extend([(node(1), BEFORE), (node(3), BEFORE)]);
    let (next, _) = decided(&old, &known);
    assert!(is(&next, &[2], &[(1, Waiting::Offline), (3, Waiting::Offline)]), "{next:?}");
    known.heard.insert(node(2), BEFORE);
    assert_eq!(next_configuration(&old, HERE, &known), None);
}

#[test]
fn dark_chain_does_not_begin_with_a_node_that_leaves() {
    let waiting = [(1, Waiting::LastServing), (2, Waiting::LastServing), (3, Waiting::Offline)];
    let old = without(&[3], &[], &waiting);
    let known = leaving(&old, [alive(1), alive(1), EXPIRED], &[1]);
    let (next, _) = decided(&old, &known);
    assert!(is(&next, &[2], &[(1, Waiting::Offline), (3, Waiting::Offline)]), "{next:?}");
    let known = leaving(&old, [alive(1), EXPIRED, EXPIRED], &[1]);
    let next = next_configuration(&old, HERE, &known).expect("another is gone").configuration;
    assert!(is(chain(&next), &[], &waiting), "{:?}", chain(&next));
}

#[test]
fn unknown_replica_keeps_a_chain_from_going_dark() {
    let old = with(&[1, 2], &[(3, Waiting::Offline)]);
    let (next, _) = decided(&old, &facts(&old, [EXPIRED, UNKNOWN, UNKNOWN]));
    assert!(is(&next, &[2], &[(1, Waiting::Offline), (3, Waiting::Offline)]), "{next:?}");
}

#[test]
fn chain_that_loses_all_its_replicas_remembers_those_that_served_last() {
    let old = with(&[1, 2], &[(3, Waiting::Offline)]);
    let (dark, changes) = decided(&old, &facts(&old, [EXPIRED, EXPIRED, alive(1)]));
    let last = [(1, Waiting::LastServing), (2, Waiting::LastServing), (3, Waiting::Offline)];
    assert!(is(&dark, &[], &last), "{dark:?}");
    assert_eq!(changes.len(), 4, "both expire, and their chain with each: {changes:?}");

    let old = without(&[2], &[], &last);
    let early = facts(&old, [alive(1), UNKNOWN, alive(1)]);
    assert_eq!(next_configuration(&old, HERE, &early), None, "2 may have more than 1");
    let (lit, _) = decided(&old, &facts(&old, [alive(1), EXPIRED, alive(1)]));
    assert!(is(&lit, &[1], &[(2, Waiting::Offline), (3, Waiting::Offline)]), "{lit:?}");
    let (lit, _) = decided(&old, &facts(&old, [alive(1), alive(1), UNKNOWN]));
    assert!(is(&lit, &[1, 2], &[(3, Waiting::Offline)]), "{lit:?}");
}

#[test]
fn new_run_of_a_serving_node_needs_a_new_epoch_and_keeps_its_place() {
    let old = with(&[1, 2, 3], &[]);
    let facts = facts(&old, [alive(1), alive(7), alive(1)]);
    let decision = next_configuration(&old, HERE, &facts).unwrap();
    assert_eq!(decision.changes, [Change::Started { node: node(2), boot: Boot(7) }]);
    let datacenter = decision.configuration.datacenter(HERE).unwrap();
    assert_eq!(datacenter.boots[&node(2)], Boot(7));
    assert!(is(&datacenter.chains[0], &[1, 2, 3], &[]));
    let mut again = facts;
    again.epoch = datacenter.epoch;
    assert_eq!(next_configuration(&decision.configuration, HERE, &again), None);
    again.nodes.insert(node(2), alive(6));
    assert_eq!(next_configuration(&decision.configuration, HERE, &again), None, "an older run");
}

#[test]
fn replica_that_is_back_copies_first_and_only_one_at_a_time() {
    let old = with(&[1], &[(2, Waiting::Offline), (3, Waiting::Offline)]);
    let mut known = facts(&old, [alive(1); 3]);
    known.caught_up.insert((SHARD, node(2)));
    let (next, changes) = decided(&old, &known);
    assert!(is(&next, &[1], &[(2, Waiting::Syncing), (3, Waiting::Offline)]), "{next:?}");
    assert_eq!(changes, [Change::Returned { shard: SHARD, node: node(2) }]);

    let old = with(&[1], &[(2, Waiting::Syncing), (3, Waiting::Offline)]);
    assert_eq!(next_configuration(&old, HERE, &facts(&old, [alive(1); 3])), None, "2 copies");
    let (next, changes) = decided(&old, &known);
    assert!(is(&next, &[1, 2], &[(3, Waiting::Offline)]), "{next:?}");
    assert_eq!(changes, [Change::CaughtUp { shard: SHARD, node: node(2) }]);
}

#[test]
fn copying_ends_with_its_node_or_its_run() {
    let old = with(&[1, 3], &[(2, Waiting::Syncing)]);
    for life in [EXPIRED, alive(2)] {
        let mut known = facts(&old, [alive(1), life, alive(1)]);
        known.caught_up.insert((SHARD, node(2)));
        let (next, changes) = decided(&old, &known);
        assert!(is(&next, &[1, 3], &[(2, Waiting::Offline)]), "{next:?}");
        assert!(changes.contains(&Change::GaveUp { shard: SHARD, node: node(2) }));
    }
}

#[test]
fn replica_does_not_grow_a_chain_in_the_step_that_shortens_it() {
    let old = with(&[1, 3], &[(2, Waiting::Syncing)]);
    let mut known = facts(&old, [alive(1), alive(1), EXPIRED]);
    known.caught_up.insert((SHARD, node(2)));
    let (next, _) = decided(&old, &known);
    assert!(is(&next, &[1], &[(2, Waiting::Syncing), (3, Waiting::Offline)]), "{next:?}");
}

#[test]
fn misfits_leave_to_copy_anew_as_long_as_another_one_serves() {
    let misfits = |old: &Configuration, numbers: &[u16]| {
        let mut known = facts(old, [alive(1); 3]);
        known.misfits = numbers.iter().map(|number| (SHARD, node(*number))).collect();
        known
    };
    let old = with(&[2, 1, 3], &[]);
    for (misfit, left) in [(2, [1, 3]), (1, [2, 3]), (3, [2, 1])] {
        let (next, changes) = decided(&old, &misfits(&old, &[misfit]));
        assert!(is(&next, &left, &[(misfit, Waiting::Offline)]), "{next:?}");
        assert_eq!(changes, [Change::Misfit { shard: SHARD, node: node(misfit) }]);
    }
    let (next, changes) = decided(&old, &misfits(&old, &[1, 3]));
    assert!(is(&next, &[2], &[(1, Waiting::Offline), (3, Waiting::Offline)]), "{next:?}");
    assert_eq!(changes.len(), 2);
    assert_eq!(next_configuration(&old, HERE, &misfits(&old, &[1, 2, 3])), None, "who is left?");
    let short = with(&[3], &[(1, Waiting::Offline), (2, Waiting::Syncing)]);
    assert_eq!(next_configuration(&short, HERE, &misfits(&short, &[3])), None, "it is the last");
    let of_another = with(&[1, 2], &[(3, Waiting::Syncing)]);
    assert_eq!(next_configuration(&of_another, HERE, &misfits(&of_another, &[3])), None);
}

#[test]
fn misfit_leaves_before_anybody_joins() {
    let old = with(&[1, 2], &[(3, Waiting::Syncing)]);
    let mut known = facts(&old, [alive(1); 3]);
    known.misfits.insert((SHARD, node(2)));
    known.caught_up.insert((SHARD, node(3)));
    let (next, _) = decided(&old, &known);
    assert!(is(&next, &[1], &[(2, Waiting::Offline), (3, Waiting::Syncing)]), "{next:?}");
}

/// A deployment of a chain for each list of replicas, in epochs 11, 12 and so on.
fn with_chains(chains: &[&[u16]]) -> Configuration {
    let mut configuration = with(&[1, 2, 3], &[]);
    let count = u32::try_from(chains.len()).unwrap();
    configuration.shard_count = ShardCount::new(count).unwrap();
    let datacenter = configuration.datacenters.get_mut(&HERE).unwrap();
    datacenter.epoch = Epoch(20);
    let chain = |(serving, epoch): (&&[u16], u64)| {
        let serving: Vec<NodeId> = serving.iter().map(|number| node(*number)).collect();
        let others = datacenter.nodes.iter().filter(|node| !serving.contains(node));
        let waiting = others.map(|node| (*node, Waiting::Offline)).collect();
        Chain { epoch: Epoch(epoch), serving, waiting }
    };
    datacenter.chains = chains.iter().zip(11..).map(chain).collect();
    configuration
}

/// The epochs of all chains after a decision; none if there is none.
fn chain_epochs(old: &Configuration, facts: &Facts) -> Vec<u64> {
    let Some(decision) = next_configuration(old, HERE, facts) else { return Vec::new() };
    let datacenter = decision.configuration.datacenter(HERE).unwrap();
    datacenter.chains.iter().map(|chain| chain.epoch.0).collect()
}

#[test]
fn only_chains_whose_serving_replicas_change_take_a_new_epoch() {
    let mut old = with_chains(&[&[1, 2, 3], &[2, 3], &[3], &[1, 2]]);
    let expired = facts(&old, [EXPIRED, alive(1), UNKNOWN]);
    assert_eq!(chain_epochs(&old, &expired), [21, 12, 13, 21], "who lost node 1");
    let restarted = facts(&old, [UNKNOWN, UNKNOWN, alive(2)]);
    assert_eq!(chain_epochs(&old, &restarted), [21, 21, 21, 14], "whom node 3 serves");
    let returned = facts(&old, [alive(1), UNKNOWN, UNKNOWN]);
    assert_eq!(chain_epochs(&old, &returned), [11, 12, 13, 14], "1 begins to copy two chains");

    let datacenter = old.datacenters.get_mut(&HERE).unwrap();
    datacenter.chains[1].waiting.insert(node(1), Waiting::Syncing);
    datacenter.chains[2].waiting.insert(node(1), Waiting::Syncing);
    let mut caught_up = facts(&old, [alive(1), alive(1), alive(1)]);
    caught_up.caught_up.insert((ShardId(2), node(1)));
    assert_eq!(chain_epochs(&old, &caught_up), [11, 12, 21, 14], "1 becomes a tail");
    let gone_again = facts(&old, [alive(2), UNKNOWN, UNKNOWN]);
    assert_eq!(chain_epochs(&old, &gone_again), [21, 12, 13, 21], "who copied did not serve");
    let mut misfit = facts(&old, [alive(1), UNKNOWN, alive(1)]);
    misfit.misfits.insert((ShardId(0), node(3)));
    assert_eq!(chain_epochs(&old, &misfit)[0], 21);
    assert_eq!(chain_epochs(&old, &misfit)[3], 14);
}

#[test]
fn node_copies_a_bounded_number_of_shards_and_the_next_when_one_ends() {
    let chains = vec![&[1][..]; 2 * COPIES_AT_ONCE];
    let mut old = with_chains(&chains);
    let copies = |configuration: &Configuration, number: u16| {
        let chains = &configuration.datacenter(HERE).unwrap().chains;
        let syncs = |chain: &&Chain| chain.waiting.get(&node(number)) == Some(&Waiting::Syncing);
        chains.iter().filter(syncs).count()
    };
    let mut known = facts(&old, [alive(1), alive(1), UNKNOWN]);
    old = next_configuration(&old, HERE, &known).unwrap().configuration;
    assert_eq!(copies(&old, 2), COPIES_AT_ONCE);
    known.epoch = old.epoch(HERE);
    assert_eq!(next_configuration(&old, HERE, &known), None, "it has enough to do");
    known.nodes.insert(node(3), alive(1));
    old = next_configuration(&old, HERE, &known).unwrap().configuration;
    assert_eq!((copies(&old, 2), copies(&old, 3)), (COPIES_AT_ONCE, COPIES_AT_ONCE));
    known.epoch = old.epoch(HERE);
    known.nodes.insert(node(3), UNKNOWN);
    known.caught_up.insert((SHARD, node(2)));
    old = next_configuration(&old, HERE, &known).unwrap().configuration;
    known.epoch = old.epoch(HERE);
    assert_eq!(copies(&old, 2), COPIES_AT_ONCE - 1, "one serves now");
    assert_eq!(next_configuration(&old, HERE, &known), None, "all the others are copied");
    known.nodes.insert(node(3), EXPIRED);
    old = next_configuration(&old, HERE, &known).unwrap().configuration;
    known.epoch = old.epoch(HERE);
    old = next_configuration(&old, HERE, &known).unwrap().configuration;
    assert_eq!((copies(&old, 2), copies(&old, 3)), (COPIES_AT_ONCE, 0));
}

#[test]
fn chains_that_are_lit_again_have_their_heads_on_different_nodes() {
    let mut old = with_chains(&[&[], &[], &[], &[]]);
    let datacenter = old.datacenters.get_mut(&HERE).unwrap();
    for chain in &mut datacenter.chains {
        chain.waiting.values_mut().for_each(|why| *why = Waiting::LastServing);
    }
    let serving = |lives| {
        let decision = next_configuration(&old, HERE, &facts(&old, lives)).unwrap();
        let datacenter = decision.configuration.datacenter(HERE).unwrap().clone();
        assert!(datacenter.chains.iter().all(|chain| chain.epoch == Epoch(21)));
        let numbers = |chain: &Chain| chain.serving.iter().map(|node| node.number).collect();
        datacenter.chains.iter().map(numbers).collect::<Vec<Vec<u16>>>()
    };
    assert_eq!(
        serving([alive(1); 3]),
        [vec![1, 2, 3], vec![2, 3, 1], vec![3, 1, 2], vec![1, 2, 3]]
    );
    assert_eq!(
        serving([EXPIRED, alive(1), alive(4)]),
        [vec![2, 3], vec![2, 3], vec![3, 2], vec![2, 3]]
    );
}

#[test]
fn first_configuration_waits_for_all_nodes_and_then_serves_in_order_of_turns() {
    let managed = Configuration::managed(&Layout {
        deployment: DeploymentId([3; 16]),
        shard_count: ShardCount::new(2).unwrap(),
        chain_length: NODES,
        datacenters: vec![(HERE, "here".to_owned(), NODES)],
    });
    let some = facts(&managed, [alive(1), alive(1), UNKNOWN]);
    let early = next_configuration(&managed, HERE, &some).unwrap().configuration;
    assert!(early.datacenter(HERE).unwrap().chains.iter().all(|chain| chain.serving.is_empty()));
    let mut all = facts(&early, [alive(1); 3]);
    all.epoch = early.epoch(HERE);
    let lit = next_configuration(&early, HERE, &all).unwrap().configuration;
    for shard in lit.shard_count.shards() {
        assert_eq!(lit.chain(HERE, shard).len(), usize::from(NODES));
        assert_eq!(lit.chain_epoch(HERE, shard), lit.epoch(HERE));
    }
    assert_ne!(lit.head(HERE, ShardId(0)), lit.head(HERE, ShardId(1)));
}

/// What is known when these nodes are alive, one of them in a new run with an empty log.
fn emptied(of: &Configuration, lives: [Life; NODES as usize], number: u16) -> Facts {
    Facts { emptied: BTreeSet::from([node(number)]), ..facts(of, lives) }
}

#[test]
fn node_with_an_empty_log_leaves_its_chains_at_once() {
    let old = with(&[1, 2, 3], &[]);
    let (next, changes) = decided(&old, &emptied(&old, [alive(7), alive(1), alive(1)], 1));
    assert!(is(&next, &[2, 3], &[(1, Waiting::Offline)]), "{next:?}");
    let started = Change::Started { node: node(1), boot: Boot(7) };
    assert_eq!(changes, [started, Change::Emptied { shard: SHARD, node: node(1) }]);
    // An empty log is news with the run that has it only: it copies by then.
    let again = emptied(&old, [alive(1); 3], 1);
    assert_eq!(next_configuration(&old, HERE, &again), None);
}

#[test]
fn chain_does_not_go_on_with_a_node_that_has_lost_what_another_one_had() {
    let old = with(&[1, 2], &[(3, Waiting::Offline)]);
    let (dark, _) = decided(&old, &emptied(&old, [alive(7), EXPIRED, UNKNOWN], 1));
    let waiting = [(1, Waiting::Offline), (2, Waiting::LastServing), (3, Waiting::Offline)];
    assert!(is(&dark, &[], &waiting), "{dark:?}");

    let last = [(1, Waiting::LastServing), (2, Waiting::LastServing), (3, Waiting::Offline)];
    let old = without(&[1, 2], &[], &last);
    let (dark, _) = decided(&old, &emptied(&old, [alive(7), EXPIRED, UNKNOWN], 1));
    assert!(is(&dark, &[], &waiting), "{dark:?}");
    let (lit, _) = decided(&old, &emptied(&old, [alive(7), alive(2), UNKNOWN], 1));
    assert!(is(&lit, &[2], &[(1, Waiting::Offline), (3, Waiting::Offline)]), "{lit:?}");
}

#[test]
fn misfit_is_not_left_alone_when_the_one_that_has_all_expires() {
    let old = with(&[1, 2], &[(3, Waiting::Offline)]);
    let mut known = facts(&old, [alive(1), EXPIRED, UNKNOWN]);
    known.misfits.insert((SHARD, node(1)));
    let (dark, _) = decided(&old, &known);
    let waiting = [(1, Waiting::Offline), (2, Waiting::LastServing), (3, Waiting::Offline)];
    assert!(is(&dark, &[], &waiting), "{dark:?}");
}

#[test]
fn chain_whose_replicas_have_all_lost_their_logs_says_so_and_goes_on() {
    let old = with(&[1, 2], &[(3, Waiting::Offline)]);
    let mut known = facts(&old, [alive(7), alive(8), UNKNOWN]);
    known.emptied = BTreeSet::from([node(1), node(2)]);
    let (next, changes) = decided(&old, &known);
    assert!(is(&next, &[1, 2], &[(3, Waiting::Offline)]), "{next:?}");
    assert!(changes.contains(&Change::LostAll { shard: SHARD, node: node(2) }), "{changes:?}");
}

#[test]
fn chain_whose_replicas_have_all_lost_their_folders_is_not_served_until_a_person_says_so() {
    let without_folders = |of: &Configuration| Facts {
        emptied: BTreeSet::from([node(1), node(2)]),
        without_folder: BTreeSet::from([node(2)]),
        ..facts(of, [alive(7), alive(8), alive(1)])
    };
    let last = [(1, Waiting::LastServing), (2, Waiting::LastServing), (3, Waiting::Offline)];
    for old in [with(&[1, 2], &[(3, Waiting::Offline)]), without(&[1, 2], &[], &last)] {
        let decision = next_configuration(&old, HERE, &without_folders(&old)).unwrap();
        let waiting = [1, 2, 3].map(|number| (number, Waiting::Offline));
        let lost = decision.configuration;
        assert!(is(chain(&lost), &[], &waiting), "{lost:?}");
        for number in [1, 2] {
            let change = Change::LostFolder { shard: SHARD, node: node(number) };
            assert!(decision.changes.contains(&change), "{:?}", decision.changes);
        }
        let again = next_configuration(&lost, HERE, &without_folders(&lost));
        assert_eq!(again, None, "it stays so");
        let all = BTreeSet::from([SHARD]);
        let part = lost.datacenter(HERE).unwrap();
        assert_eq!(moves::relit_with(part, node(3), &BTreeSet::new()), None, "of no shard");

        let relit = moves::relit_with(part, node(3), &all).unwrap();
        let mut begun = lost.clone();
        begun.datacenters.insert(HERE, relit);
        let lit = next_configuration(&begun, HERE, &without_folders(&begun)).unwrap().configuration;
        let waiting = [1, 2].map(|number| (number, Waiting::Offline));
        assert!(is(chain(&lit), &[3], &waiting), "{lit:?}");
        let part = lit.datacenter(HERE).unwrap();
        assert_eq!(moves::relit_with(part, node(1), &all), None, "nothing is lost any more");
    }
}

#[test]
fn chain_is_not_lost_while_one_that_had_all_may_come_back() {
    let old = with(&[1, 2], &[(3, Waiting::Offline)]);
    let mut known = emptied(&old, [alive(7), UNKNOWN, UNKNOWN], 1);
    known.without_folder = BTreeSet::from([node(1)]);
    let (next, _) = decided(&old, &known);
    assert!(is(&next, &[2], &[(1, Waiting::Offline), (3, Waiting::Offline)]), "{next:?}");
}

#[test]
fn reasons_name_the_chain_and_the_node() {
    let node = node(2);
    for (change, wanted) in [
        (Change::Misfit { shard: SHARD, node }, "shard 0 goes on without 1.2, whose log lacks"),
        (
            Change::Left { shard: SHARD, node },
            "shard 0 goes on without 1.2, which is about to stop",
        ),
        (Change::Short { node }, "the disk of node 1.2 has no room for new writes"),
        (Change::HasRoom { node }, "the disk of node 1.2 has room again"),
        (Change::SteppedAside { shard: SHARD, node }, "shard 0 goes on without 1.2, whose disk"),
        (Change::Dark { shard: SHARD, node }, "shard 0 is not served: 1.2, one of its last"),
        (Change::GaveUp { shard: SHARD, node }, "1.2 copies shard 0 no more"),
    ] {
        assert!(change.to_string().starts_with(wanted), "{change}");
    }
}

/// What happens to the nodes between two decisions.
#[derive(Clone, Debug)]
struct Moment {
    lives: [Life; NODES as usize],
    /// Whether what copies has caught up.
    has_caught_up: bool,
    /// Whose log does not fit, who has lost its log, who leaves, and who was heard before that only.
    oddities: [Option<u16>; 4],
    /// Who is short of disk.
    short: Vec<u16>,
    /// Who has not reached whom.
    unreached: Vec<(u16, u16)>,
}

fn moments() -> impl Strategy<Value = Vec<Moment>> {
    let life = prop_oneof![
        Just(Life::Unknown),
        Just(Life::Expired),
        (1_u64..5).prop_map(|boot| Life::Alive(Boot(boot))),
    ];
    let one = prop::option::weighted(0.2, 1..=NODES);
    let short = prop::collection::vec(1..=NODES, 0..3);
    let unreached = prop::collection::vec((1..=NODES, 1..=NODES), 0..3);
    let nodes = (prop::array::uniform3(life), prop::array::uniform4(one), short, unreached);
    let moment = (nodes, any::<bool>()).prop_map(|(nodes, has_caught_up)| {
        let (lives, oddities, short, unreached) = nodes;
        Moment { lives, has_caught_up, oddities, short, unreached }
    });
    prop::collection::vec(moment, 0..40)
}

/// Decides once; says what is wrong with the decision, by the states before it.
fn decide(old: &Configuration, facts: &Facts) -> Option<Configuration> {
    let decision = next_configuration(old, HERE, facts)?;
    let (before, after) = (chain(old), chain(&decision.configuration));
    assert!(!decision.changes.is_empty());
    let members: BTreeSet<NodeId> = after.members().collect();
    assert_eq!(after.members().count(), usize::from(NODES), "{after:?}");
    assert_eq!(members.len(), usize::from(NODES), "{after:?}");
    let is_lit = !after.serving.is_empty();
    let is_known = |node: &NodeId| {
        let may_have_all =
            !facts.misfits.contains(&(SHARD, *node)) && !facts.emptied.contains(node);
        may_have_all && !facts.has_expired(*node)
    };
    let went_dark = !before.serving.is_empty() && !is_lit;
    assert!(!went_dark || !before.serving.iter().any(is_known), "{before:?} is dark by choice");
    let has_last = after.waiting_as(Waiting::LastServing).next().is_some();
    assert_ne!(is_lit, has_last, "a chain serves, or waits for those that did: {after:?}");
    assert!(after.waiting_as(Waiting::Syncing).count() <= 1, "{after:?}");
    for node in after.serving.iter().filter(|node| !before.serving.contains(node)) {
        let may_serve = match before.waiting[node] {
            Waiting::LastServing => before.serving.is_empty(),
            Waiting::Syncing => facts.caught_up.contains(&(SHARD, *node)),
            Waiting::Offline => false,
        };
        assert!(may_serve, "{node} may lack what was committed: {before:?} to {after:?}");
        assert!(facts.is_alive(*node) || before.waiting[node] == Waiting::Syncing);
    }
    for node in before.serving.iter().filter(|node| !after.serving.contains(node)) {
        let has_reason = facts.has_expired(*node)
            || after.serving.iter().any(|other| facts.is_heard_since(*other, *node))
            || facts.misfits.contains(&(SHARD, *node))
            || facts.emptied.contains(node)
            || old.datacenter(HERE).unwrap().yields(*node) && facts.adopted.contains(node);
        assert!(has_reason, "{node} was taken out without a reason: {after:?}");
    }
    let kept: Vec<&NodeId> =
        before.serving.iter().filter(|node| after.serving.contains(node)).collect();
    assert_eq!(kept, after.serving.iter().take(kept.len()).collect::<Vec<_>>(), "the order");
    Some(decision.configuration)
}

proptest! {
    /// Nobody serves who may lack what was committed, whatever happens; and when everybody is back,
    /// all replicas serve after a bounded number of steps.
    #[test]
    fn chains_survive_what_happens_and_heal(moments in moments()) {
        let mut configuration = with(&[2, 1, 3], &[]);
        let mut boots = [1_u64; NODES as usize];
        for moment in moments {
            let Moment { lives, has_caught_up, oddities, short, unreached } = moment;
            let [misfit, emptied, leaves, late] = oddities;
            let mut known = facts(&configuration, lives);
            known.unreached.extend(unreached.into_iter().map(|(one, other)| (node(one), node(other))));
            known.leaving.extend(leaves.map(|number| (node(number), SAID)));
            known.heard.extend((1..=NODES).map(|number| (node(number), SINCE)));
            known.heard.extend(late.map(|number| (node(number), BEFORE)));
            known.emptied.extend(emptied.map(node));
            known.short.extend(short.into_iter().map(node));
            known.adopted.extend((1..=NODES).map(node));
            known.misfits.extend(misfit.map(|number| (SHARD, node(number))));
            for (life, boot) in lives.iter().zip(&mut boots) {
                if let Life::Alive(Boot(found)) = life {
                    *boot = (*boot).max(*found);
                }
            }
            if has_caught_up {
                known.caught_up = (1..=NODES).map(|number| (SHARD, node(number))).collect();
            }
            if let Some(next) = decide(&configuration, &known) {
                configuration = next;
            }
        }
        let mut steps = 0;
        loop {
            let mut known = facts(&configuration, boots.map(alive));
            known.caught_up = (1..=NODES).map(|number| (SHARD, node(number))).collect();
            let Some(next) = decide(&configuration, &known) else { break };
            configuration = next;
            steps += 1;
            prop_assert!(steps <= 2 * NODES + 2, "does not come to rest: {:?}", chain(&configuration));
        }
        prop_assert_eq!(chain(&configuration).serving.len(), usize::from(NODES));
    }
}
