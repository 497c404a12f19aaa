//! What joins the context, and what requests carry of it.

use antecede_model::consistency::Consistency;

use super::*;

fn read(scene: &mut Scene, shard: u16, origin: DatacenterId, stamp: u64) {
    let key = key(shard, 0);
    let asked = scene.ask(&Command::One(get(&key)));
    scene.reply(&asked, found(&asked, origin, stamp));
}

fn write(scene: &mut Scene, shard: u16) -> Asked {
    let key = key(shard, 0);
    scene.ask(&Command::One(set(&key, b"v")))
}

#[test]
fn a_write_carries_what_was_read_and_then_is_the_context() {
    let mut scene = Scene::of_three();
    read(&mut scene, 0, THERE, 5);
    read(&mut scene, 1, HERE, 8);
    assert_eq!(scene.exact(), [named(HERE, 1, 8), named(THERE, 0, 5)]);
    let asked = write(&mut scene, 2);
    assert_eq!(asked.dependencies(), [named(HERE, 1, 8), named(THERE, 0, 5)]);
    assert_eq!(asked.carried.time, Timestamp(9), "the largest visible-at that was met");
    scene.reply(&asked, wrote(&asked, 20));
    assert_eq!(scene.exact(), [named(HERE, 2, 20)]);
    assert_eq!(scene.session.context().time(), Timestamp(20));
}

#[test]
fn a_read_carries_the_time_and_no_dependencies() {
    let mut scene = Scene::of_three();
    read(&mut scene, 0, THERE, 5);
    let key = key(1, 0);
    let asked = scene.ask(&Command::One(get(&key)));
    assert_eq!((asked.dependencies(), asked.carried.time), (vec![], Timestamp(6)));
}

#[test]
fn what_is_stable_is_neither_kept_nor_carried() {
    let mut scene = Scene::of_three();
    read(&mut scene, 0, THERE, 5);
    read(&mut scene, 1, THERE, 6);
    scene.stable = Cut::of([(THERE, Timestamp(5))]);
    assert_eq!(write(&mut scene, 2).dependencies(), [named(THERE, 1, 6)]);
}

#[test]
fn a_node_without_a_lease_forgets_nothing_as_stable() {
    let mut scene = Scene::of_three();
    read(&mut scene, 0, THERE, 5);
    scene.stable = Cut::of([(THERE, Timestamp(5))]);
    scene.lease_until = Lease::Until(Steady::default());
    assert_eq!(write(&mut scene, 2).dependencies(), [named(THERE, 0, 5)]);
    scene.lease_until = Lease::Until(Steady(Duration::from_secs(1)));
    assert_eq!(write(&mut scene, 2).dependencies(), []);
}

#[test]
fn nothing_that_was_found_is_a_version_too() {
    let mut scene = Scene::of_three();
    let key = key(0, 0);
    let asked = scene.ask(&Command::One(get(&key)));
    let reply = Reply { response: Response::Nil, ..found(&asked, THERE, 5) };
    scene.reply(&asked, reply);
    assert_eq!(scene.exact(), [named(THERE, 0, 5)]);
}

#[test]
fn a_write_that_did_not_take_place_is_a_read() {
    let mut scene = Scene::of_three();
    let key = key(0, 0);
    let asked = scene.ask(&Command::One(delete(&key)));
    let response = Response::Integer(0);
    scene.reply(&asked, Reply { response, ..found(&asked, THERE, 5) });
    let refused = write(&mut scene, 1);
    let response = Response::Refused(Refusal::WrongType);
    scene.reply(&refused, Reply { response, ..found(&refused, THERE, 6) });
    assert_eq!(scene.exact(), [named(THERE, 0, 5), named(THERE, 1, 6)]);
}

#[test]
fn at_level_eventual_nothing_is_carried_or_joined() {
    let mut scene = Scene::of_three();
    read(&mut scene, 0, THERE, 5);
    let before = scene.session.context().clone();
    scene.take(&Command::Level(Some(Consistency::Eventual)));
    read(&mut scene, 1, THERE, 6);
    let asked = write(&mut scene, 2);
    assert_eq!((asked.dependencies(), asked.carried.level), (vec![], Consistency::Eventual));
    scene.reply(&asked, wrote(&asked, 20));
    assert_eq!(*scene.session.context(), before);
    scene.take(&Command::Level(Some(Consistency::Linearizable)));
    assert_eq!(write(&mut scene, 2).dependencies(), [named(THERE, 0, 5)]);
}

#[test]
fn pipelined_writes_of_one_shard_end_as_the_last_one() {
    let mut scene = Scene::of_three();
    read(&mut scene, 0, THERE, 5);
    let first = write(&mut scene, 2);
    let second = write(&mut scene, 2);
    assert_eq!(second.dependencies(), [named(THERE, 0, 5)], "the head adds the first one");
    scene.reply(&first, wrote(&first, 20));
    assert_eq!(scene.exact(), [named(HERE, 2, 20)]);
    scene.reply(&second, wrote(&second, 21));
    assert_eq!(scene.exact(), [named(HERE, 2, 21)]);
}

#[test]
fn an_earlier_write_that_is_answered_later_is_implied() {
    let mut scene = Scene::alone();
    scene.around.stamps = Some(100);
    let first = write(&mut scene, 0);
    let second = write(&mut scene, 1);
    assert_eq!(second.dependencies(), [named(HERE, 0, 101)]);
    scene.reply(&second, wrote(&second, 102));
    assert_eq!(scene.exact(), [named(HERE, 1, 102)]);
    scene.reply(&first, wrote(&first, 101));
    assert_eq!(scene.exact(), [named(HERE, 1, 102)]);
}

#[test]
fn a_pipelined_write_carries_only_the_one_before_it() {
    let mut scene = Scene::alone();
    read(&mut scene, 3, THERE, 5);
    scene.around.stamps = Some(100);
    let first = write(&mut scene, 0);
    assert_eq!(first.dependencies(), [named(THERE, 3, 5)]);
    write(&mut scene, 1);
    let third = write(&mut scene, 2);
    assert_eq!(third.dependencies(), [named(HERE, 1, 102)]);
    assert!(Timestamp(102) <= third.carried.time);
}

#[test]
fn what_is_read_between_a_write_and_its_answer_stays_beside_it() {
    let mut scene = Scene::alone();
    scene.around.stamps = Some(100);
    let first = write(&mut scene, 0);
    read(&mut scene, 1, THERE, 50);
    let second = write(&mut scene, 2);
    assert_eq!(second.dependencies(), [named(HERE, 0, 101), named(THERE, 1, 50)]);
    scene.reply(&first, wrote(&first, 101));
    assert_eq!(scene.exact(), [named(HERE, 0, 101), named(THERE, 1, 50)]);
    scene.reply(&second, wrote(&second, 102));
    assert_eq!(scene.exact(), [named(HERE, 2, 102)]);
}

#[test]
fn a_write_of_an_unknown_outcome_is_no_longer_carried() {
    let mut scene = Scene::alone();
    scene.around.stamps = Some(100);
    read(&mut scene, 1, THERE, 50);
    write(&mut scene, 0);
    scene.after(5_000);
    assert_eq!(scene.answers().len(), 2);
    assert_eq!(scene.exact(), [named(THERE, 1, 50)]);
    assert_eq!(write(&mut scene, 0).dependencies(), [named(THERE, 1, 50)]);
}

#[test]
fn a_reset_forgets_the_context() {
    let mut scene = Scene::of_three();
    read(&mut scene, 0, THERE, 5);
    scene.take(&Command::Reset);
    assert_eq!(*scene.session.context(), Context::default());
    assert_eq!(write(&mut scene, 2).dependencies(), []);
}
