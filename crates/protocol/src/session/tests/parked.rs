//! Requests that a replica on this node evaluates later than what is handed over behind them.

use super::*;

#[test]
fn behind_a_parked_read_others_are_read_again_if_they_may_be_too_old() {
    let mut scene = Scene::alone();
    let keys = [key(0, 0), key(1, 0)];
    scene.around.parks = 1;
    let parked = scene.ask(&one(get(&keys[0])));
    let behind = scene.ask(&one(get(&keys[1])));
    // The second one was evaluated first, before what the first one returns was visible.
    scene.reply(&behind, found(&behind, HERE, 5));
    scene.reply(&parked, found(&parked, THERE, 7));
    assert_eq!(scene.answers(), [Response::Integer(7)]);
    let again = scene.around.asked.last().unwrap().clone();
    assert_eq!((again.shard, scene.around.asked.len()), (behind.shard, 3));
    scene.reply(&again, found(&again, HERE, 6));
    assert_eq!(scene.answers(), [Response::Integer(6)]);
}

#[test]
fn behind_a_parked_read_no_write_is_handed_over() {
    let mut scene = Scene::alone();
    let keys = [key(0, 0), key(1, 0)];
    scene.around.parks = 1;
    let parked = scene.ask(&one(get(&keys[0])));
    assert!(!scene.can_take(&one(set(&keys[1], b"v"))));
    scene.reply(&parked, found(&parked, HERE, 5));
    assert!(scene.can_take(&one(set(&keys[1], b"v"))));
}

#[test]
fn behind_a_parked_write_nothing_is_handed_over() {
    let mut scene = Scene::alone();
    scene.around.stamps = Some(10);
    let keys = [key(0, 0), key(1, 0)];
    scene.around.parks = 1;
    let parked = scene.ask(&one(delete(&keys[0])));
    for command in [one(get(&keys[1])), one(get(&keys[0])), one(set(&keys[1], b"v"))] {
        assert!(!scene.can_take(&command), "{command:?}");
    }
    scene.reply(&parked, wrote(&parked, 11));
    assert!(scene.can_take(&one(get(&keys[1]))));
}

#[test]
fn behind_a_write_and_a_parked_read_nothing_is_handed_over() {
    let mut scene = Scene::alone();
    scene.around.stamps = Some(10);
    let keys = [key(0, 0), key(1, 0)];
    let write = scene.ask(&one(set(&keys[0], b"v")));
    scene.around.parks = 1;
    let parked = scene.ask(&one(get(&keys[1])));
    assert!(!scene.can_take(&one(get(&keys[1]))));
    scene.reply(&write, wrote(&write, 11));
    scene.reply(&parked, found(&parked, HERE, 5));
    assert!(scene.can_take(&one(get(&keys[1]))));
}
