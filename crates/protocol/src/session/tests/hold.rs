//! What was refused before it was looked at: handed over again, and overtaken by nothing.

use super::*;

const SETTLING: Response = Response::Refused(Refusal::Settling { shard: ShardId(0) });
const UNKNOWN: Response = Response::Refused(Refusal::UnknownOutcome);

/// Another chain for shard 0, in another epoch.
fn decide(scene: &mut Scene, chain: &[u16]) {
    let here = scene.configuration.datacenters.get_mut(&HERE).unwrap();
    let epoch = here.epoch.next();
    here.epoch = epoch;
    here.chains[0] = chain.iter().map(|at| node(*at)).collect();
    here.chains[0].epoch = epoch;
}

#[test]
fn a_write_that_no_replica_has_looked_at_is_handed_over_again() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let first = scene.ask(&one(set(&key, b"v")));
    scene.reply(&first, plain(&first, SETTLING));
    assert_eq!(scene.answers(), []);
    assert_eq!(scene.out.wake, Some(Steady(Duration::from_millis(5))));
    scene.after(5);
    let second = scene.around.asked.last().unwrap().clone();
    assert_eq!((second.to, &second.operation), (first.to, &first.operation));
    assert_ne!(second.id, first.id, "a late answer to the first is none to the second");
    scene.reply(&first, wrote(&first, 8));
    assert_eq!(scene.answers(), []);
    scene.reply(&second, wrote(&second, 9));
    assert_eq!(scene.answers(), [Response::Ok]);
    assert_eq!(scene.exact(), [named(HERE, 0, 9)]);
}

#[test]
fn what_is_held_goes_to_the_new_head_as_soon_as_there_is_one() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    scene.around.unlinked.insert(node(2));
    scene.take(&one(set(&key, b"v")));
    assert!(scene.around.asked.is_empty());
    decide(&mut scene, &[3]);
    scene.after(0);
    let asked = scene.around.asked.last().unwrap().clone();
    assert_eq!(asked.to, node(3));
    scene.reply(&asked, wrote(&asked, 9));
    assert_eq!(scene.answers(), [Response::Ok]);
}

#[test]
fn what_is_held_on_this_node_is_found_again_with_its_operation() {
    let mut scene = Scene::of_three();
    let key = key(0, 0);
    scene.around.refusals = 1;
    scene.take(&one(set(&key, b"v")));
    assert_eq!(scene.answers(), []);
    scene.after(5);
    let asked = scene.around.asked.last().unwrap().clone();
    assert_eq!((asked.to, asked.carried.place), (node(1), Place::Head));
    scene.reply(&asked, wrote(&asked, 9));
    assert_eq!(scene.answers(), [Response::Ok]);
}

#[test]
fn nothing_overtakes_what_is_held() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let first = scene.ask(&one(set(&key, b"1")));
    assert!(scene.can_take(&one(set(&key, b"2"))), "writes of one shard flow");
    scene.reply(&first, plain(&first, SETTLING));
    assert!(!scene.can_take(&one(set(&key, b"2"))));
    assert!(!scene.can_take(&one(get(&key))));
    scene.take(&Command::Level(None));
    assert_eq!(scene.answers(), [], "its answer waits for its turn");
    scene.after(5);
    let second = scene.around.asked.last().unwrap().clone();
    scene.reply(&second, wrote(&second, 9));
    assert_eq!(scene.answers().len(), 2);
}

#[test]
fn a_write_with_others_behind_it_is_refused_at_once() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let first = scene.ask(&one(set(&key, b"1")));
    let second = scene.ask(&one(set(&key, b"2")));
    scene.reply(&first, plain(&first, SETTLING));
    assert_eq!(scene.answers(), [SETTLING], "the second may be in the log already");
    scene.reply(&second, wrote(&second, 9));
    assert_eq!(scene.answers(), [Response::Ok]);
}

#[test]
fn a_read_that_a_replica_may_not_answer_goes_to_the_next_one() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let first = scene.ask(&one(get(&key)));
    let refusal = Refusal::NoLease { shard: ShardId(0) };
    scene.reply(&first, plain(&first, Response::Refused(refusal)));
    let second = scene.around.asked.last().unwrap().clone();
    assert_ne!(second.to, first.to);
    scene.reply(&second, plain(&second, Response::Refused(refusal)));
    assert_eq!(scene.answers(), []);
    scene.after(5);
    let third = scene.around.asked.last().unwrap().clone();
    assert_eq!(third.to, first.to, "as if it had just been made");
    scene.reply(&third, found(&third, HERE, 7));
    assert_eq!(scene.answers(), [Response::Integer(7)]);
}

#[test]
fn what_nobody_takes_is_refused_after_half_the_time_out() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let first = scene.ask(&one(set(&key, b"v")));
    scene.reply(&first, plain(&first, SETTLING));
    let mut rounds = 0;
    while scene.answers().is_empty() {
        rounds += 1;
        assert!(scene.millis < 2_500, "it is held for too long");
        let Steady(wake) = scene.out.wake.expect("it is handed over again");
        scene.after(u64::try_from(wake.as_millis()).unwrap() - scene.millis);
        let asked = scene.around.asked.last().unwrap().clone();
        scene.reply(&asked, plain(&asked, SETTLING));
    }
    assert!(2_450 < scene.millis && 10 < rounds, "{rounds} rounds in {} ms", scene.millis);
    assert!(scene.session.is_idle());
}

#[test]
fn a_request_at_a_replica_that_has_left_its_chain_is_not_waited_for() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let write = scene.ask(&one(set(&key, b"v")));
    decide(&mut scene, &[3, 2]);
    scene.after(0);
    assert_eq!(scene.answers(), [], "it may still be answered");
    decide(&mut scene, &[3]);
    scene.after(0);
    assert_eq!(scene.answers(), [], "its answer may be on its way");
    assert_eq!(scene.out.wake, Some(Steady(Duration::from_millis(500))));
    scene.after(499);
    assert_eq!(scene.answers(), []);
    scene.after(1);
    assert_eq!(scene.answers(), [UNKNOWN]);
    assert_eq!(scene.out.overdue, []);
    scene.reply(&write, wrote(&write, 9));
    assert_eq!(scene.answers(), []);
}

#[test]
fn what_a_replica_refuses_while_it_leaves_goes_to_the_next_head() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let write = scene.ask(&one(set(&key, b"v")));
    decide(&mut scene, &[3]);
    scene.after(0);
    let refusal = Response::Refused(Refusal::NoLease { shard: ShardId(0) });
    scene.reply(&write, plain(&write, refusal));
    scene.after(5);
    let again = scene.around.asked.last().unwrap().clone();
    assert_eq!(again.to, node(3));
    scene.after(600);
    assert_eq!(scene.answers(), [], "the new head is waited for");
    scene.reply(&again, wrote(&again, 9));
    assert_eq!(scene.answers(), [Response::Ok]);
}

#[test]
fn a_read_on_this_node_that_waits_for_the_tail_is_not_lost_with_the_lease() {
    let mut scene = Scene::of_three();
    let key = key(1, 0);
    let first = scene.ask(&one(get(&key)));
    assert_eq!(first.to, node(1));
    let refusal = Response::Refused(Refusal::NoLease { shard: ShardId(1) });
    scene.reply(&first, plain(&first, refusal));
    let second = scene.around.asked.last().unwrap().clone();
    assert_eq!((second.to, &second.operation), (node(3), &first.operation));
    scene.reply(&second, found(&second, HERE, 7));
    assert_eq!(scene.answers(), [Response::Integer(7)]);
}

#[test]
fn what_was_answered_stays_so_although_its_replica_has_left() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    scene.ask(&one(set(&key, b"1")));
    let second = scene.ask(&one(set(&key, b"2")));
    decide(&mut scene, &[3]);
    scene.after(0);
    scene.reply(&second, wrote(&second, 9));
    assert_eq!(scene.answers(), [], "the first is waited for");
    scene.after(500);
    assert_eq!(scene.answers(), [UNKNOWN, Response::Ok]);
}

#[test]
fn behind_a_read_that_was_held_others_are_read_again_whatever_its_chain_is_now() {
    let mut scene = Scene::elsewhere();
    let (a, b) = (key(0, 0), key(2, 0));
    let first = scene.ask(&one(get(&a)));
    let second = scene.ask(&one(get(&b)));
    scene.reply(&second, found(&second, HERE, 3));
    scene.reply(&first, plain(&first, SETTLING));
    let next = scene.around.asked.last().unwrap().clone();
    scene.reply(&next, plain(&next, SETTLING));
    decide(&mut scene, &[1]);
    scene.after(5);
    let held = scene.around.asked.last().unwrap().clone();
    assert_eq!(held.to, node(1), "its chain is one log on this node now");
    scene.reply(&held, found(&held, HERE, 9));
    assert_eq!(scene.answers(), [Response::Integer(9)], "the other is older than that");
    let again = scene.around.asked.last().unwrap().clone();
    assert_eq!(again.operation, second.operation);
    scene.reply(&again, found(&again, HERE, 10));
    assert_eq!(scene.answers(), [Response::Integer(10)]);
}
