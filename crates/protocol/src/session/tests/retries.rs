//! A write with a request id is handed over again where another one would be lost.

use antecede_model::retry::WrittenId;

use super::*;

fn id() -> WrittenId<'static> {
    WrittenId::of(b"here.app:1800000000000000").unwrap()
}

fn with_id(command: Command<'_>) -> Command<'_> {
    Command::Retried { id: id(), words: 7, command: Box::new(command) }
}

fn refused(asked: &Asked, refusal: Refusal) -> Reply {
    plain(asked, Response::Refused(refusal))
}

const UNKNOWN: Response = Response::Refused(Refusal::UnknownOutcome);

#[test]
fn a_write_whose_link_is_lost_goes_to_the_new_head_with_its_id() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let first = scene.ask(&with_id(one(set(&key, b"v"))));
    assert_eq!((first.to, first.retry.clone()), (node(2), Some(id().with_words(7))));
    scene.input(SessionInput::LinkLost(node(2)));
    assert_eq!(scene.answers(), []);
    scene.around.unlinked.insert(node(2));
    scene.after(50);
    assert_eq!(scene.around.asked.len(), 1, "nobody else is head yet");
    let here = scene.configuration.datacenters.get_mut(&HERE).unwrap();
    here.chains[0] = [node(3)].into_iter().collect();
    scene.after(50);
    let second = scene.around.asked.last().unwrap().clone();
    assert_eq!((second.to, second.retry.clone()), (node(3), first.retry.clone()));
    assert_eq!(second.operation, first.operation);
    scene.reply(&second, found(&second, HERE, 9));
    assert_eq!(scene.answers(), [Response::Integer(9)]);
    assert_eq!(scene.exact(), [named(HERE, 0, 9)], "a repeat is told like a read");
}

#[test]
fn a_write_without_an_id_is_not_sent_again() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    scene.ask(&one(set(&key, b"v")));
    scene.input(SessionInput::LinkLost(node(2)));
    assert_eq!(scene.answers(), [UNKNOWN]);
}

#[test]
fn a_head_that_does_not_know_what_became_of_it_is_asked_again() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let asked = scene.ask(&with_id(one(set(&key, b"v"))));
    scene.reply(&asked, refused(&asked, Refusal::UnknownOutcome));
    assert_eq!(scene.answers(), []);
    scene.after(50);
    let again = scene.around.asked.last().unwrap().clone();
    assert_ne!(again.id, asked.id);
    scene.reply(&again, wrote(&again, 9));
    assert_eq!(scene.answers(), [Response::Ok]);
    assert_eq!(scene.exact(), [named(HERE, 0, 9)]);
}

#[test]
fn after_a_lost_answer_a_refusal_says_nothing_of_the_outcome_unless_it_is_the_last_word() {
    let (busy, other) = (Refusal::OutOfMemory, Refusal::OtherRequest);
    for (refusal, told) in [(busy, UNKNOWN), (other, Response::Refused(other))] {
        let mut scene = Scene::elsewhere();
        let key = key(0, 0);
        let asked = scene.ask(&with_id(one(set(&key, b"v"))));
        scene.input(SessionInput::LinkLost(node(2)));
        scene.after(50);
        let again = scene.around.asked.last().unwrap().clone();
        assert_ne!(again.id, asked.id);
        scene.reply(&again, refused(&again, refusal));
        assert_eq!(scene.answers(), [told]);
    }
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let asked = scene.ask(&with_id(one(set(&key, b"v"))));
    scene.reply(&asked, refused(&asked, busy));
    assert_eq!(scene.answers(), [Response::Refused(busy)], "nothing was lost before");
}

#[test]
fn at_the_time_out_the_outcome_is_unknown() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    scene.ask(&with_id(one(set(&key, b"v"))));
    scene.input(SessionInput::LinkLost(node(2)));
    scene.around.unlinked.extend([node(2), node(3)]);
    for _ in 0..125 {
        assert_eq!(scene.answers(), []);
        scene.after(40);
    }
    scene.after(40);
    assert_eq!(scene.answers(), [UNKNOWN]);
}

#[test]
fn with_others_behind_it_it_is_not_sent_again() {
    let mut scene = Scene::of_three();
    scene.around.stamps = Some(10);
    let (first, second) = (key(0, 0), key(0, 1));
    let asked = scene.ask(&with_id(one(set(&first, b"v"))));
    let behind = scene.ask(&with_id(one(set(&second, b"v"))));
    scene.reply(&asked, refused(&asked, Refusal::UnknownOutcome));
    scene.reply(&behind, wrote(&behind, 12));
    assert_eq!(scene.answers(), [UNKNOWN, Response::Ok]);
}

#[test]
fn in_another_datacenter_an_id_is_refused_and_nothing_is_asked() {
    let mut scene = Scene::elsewhere();
    let key = key(0, 0);
    let id = WrittenId { datacenter: "there", ..id() };
    let command = Box::new(one(set(&key, b"v")));
    scene.take(&Command::Retried { id, words: 7, command });
    assert_eq!(scene.answers(), [Response::Refused(Refusal::OtherDatacenter)]);
    assert_eq!(scene.around.asked.len(), 0);
    scene.ask(&one(set(&key, b"v")));
    assert_eq!(scene.around.asked[0].retry, None, "an id belongs to one command");
}

#[test]
fn an_id_is_for_keys_of_one_shard() {
    let mut scene = Scene::elsewhere();
    let (here, there) = (key(0, 0), key(1, 0));
    let operations = vec![delete(&here), delete(&there)];
    scene.take(&with_id(Command::Several { operations, gather: Gather::Sum }));
    assert_eq!(scene.answers(), [Response::Refused(Refusal::CrossShard)]);
    let second = key(0, 1);
    let operations = vec![delete(&here), delete(&second)];
    let asked = scene.ask(&with_id(Command::Several { operations, gather: Gather::Sum }));
    assert_eq!(asked.retry, Some(id().with_words(7)));
    let items = vec![Response::Integer(1), Response::Integer(0)];
    scene.reply(&asked, plain(&asked, Response::List(items)));
    let operations = vec![set(&here, b"v"), get(&second)];
    let asked = scene.ask(&with_id(Command::Transaction { operations }));
    assert_eq!(asked.retry, Some(id().with_words(7)));
}

#[test]
fn what_follows_a_write_with_an_id_waits_until_it_is_known_what_it_wrote() {
    let mut scene = Scene::elsewhere();
    let (first, second) = (key(0, 0), key(0, 1));
    scene.ask(&with_id(one(set(&first, b"v"))));
    assert!(!scene.can_take(&one(set(&second, b"v"))), "it may be a repeat, which names more");
    scene.input(SessionInput::LinkLost(node(2)));
    assert!(!scene.can_take(&one(set(&second, b"v"))), "it overtakes nothing that is held");
}
