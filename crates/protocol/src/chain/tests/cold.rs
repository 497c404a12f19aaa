//! Values that are on disk only: who waits for them, and who does not.

use antecede_model::operation::{ExpireCondition, ExpiryForm};

use super::{
    checkpoints::{Deed, Run, SHARD},
    *,
};
use crate::{checkpointed::StepLimits, state::Evicted};

/// A replica with some keys `k0` to `k4`, all of whose values are on disk only.
fn cold() -> Run {
    let mut run = Run::of(Deployment::of(1, 1, 1));
    for key in 0..5 {
        run.take(Deed::Put { datacenter: 1, key, value: key });
    }
    make_cold(&mut run);
    run
}

fn make_cold(run: &mut Run) {
    for _ in 0..8 {
        run.take(Deed::Step);
    }
    for _ in 0..8 {
        run.evict();
    }
    assert_eq!(run.deployment.replica_mut(run.node).keys.away_count(), 5);
}

/// Asks in the name of a session; the number finds the reply.
fn ask_as(run: &mut Run, session: u64, key: &str, action: Action<'_>) -> u64 {
    let deployment = &mut run.deployment;
    deployment.asked += 1;
    let number = deployment.asked;
    let id = RequestId { node: run.node, session: SessionId(1_000 + session), number };
    let operation = ShardOperation::One(Operation { key: key.as_bytes(), action });
    let carried = Carried::default();
    let request = LocalRequest { id, operation: &operation, carried: &carried, retry: None };
    deployment.tell(run.node, SHARD, Input::Request(request));
    deployment.settle();
    number
}

fn reply(run: &Run, number: u64) -> Option<Response> {
    run.deployment.replies.get(&number).map(|reply| reply.response.clone())
}

fn old_value(key: u8) -> Response {
    value(&format!("a value of {key}"))
}

#[test]
fn a_read_waits_for_its_value_and_the_next_one_does_not() {
    let mut run = cold();
    let number = ask_as(&mut run, 1, "k1", Action::Get);
    assert_eq!(reply(&run, number), None);
    run.load();
    assert_eq!(reply(&run, number), Some(old_value(1)));
    let number = ask_as(&mut run, 1, "k1", Action::Get);
    assert_eq!(reply(&run, number), Some(old_value(1)));
    assert!(run.deployment.loads.is_empty(), "it is in memory again");
}

#[test]
fn what_needs_no_value_does_not_wait() {
    let mut run = cold();
    let deadline = run.deployment.millis + 60_000;
    let condition = ExpireCondition::Always;
    for (key, action, wanted) in [
        ("k0", Action::Length, Response::Integer(12)),
        ("k0", Action::Exists, Response::Integer(1)),
        ("k0", Action::Expire { deadline, condition }, Response::Integer(1)),
        ("k0", Action::Expiry(ExpiryForm::AtMillis), Response::Integer(1_061_000)),
        ("k0", Action::Persist, Response::Integer(1)),
        ("k1", Action::Delete, Response::Integer(1)),
        ("k2", set("new"), Response::Ok),
        ("k2", Action::Get, value("new")),
    ] {
        let what = format!("{key} {action:?}");
        let number = ask_as(&mut run, 1, key, action);
        assert_eq!(reply(&run, number), Some(wanted), "{what}");
    }
    assert!(run.deployment.loads.is_empty());
}

#[test]
fn a_session_is_answered_in_order_and_others_do_not_wait() {
    let mut run = cold();
    let first = ask_as(&mut run, 1, "k1", Action::Append { value: b"!" });
    let second = ask_as(&mut run, 1, "k1", set("newer"));
    let third = ask_as(&mut run, 1, "k1", Action::Append { value: b"!" });
    let other = ask_as(&mut run, 2, "k2", set("of another"));
    assert_eq!(reply(&run, other), Some(Response::Ok));
    assert_eq!([first, second, third].map(|number| reply(&run, number)), [None, None, None]);
    run.load();
    assert_eq!(reply(&run, first), Some(Response::Integer(13)));
    assert_eq!(reply(&run, second), Some(Response::Ok));
    assert_eq!(reply(&run, third), Some(Response::Integer(6)));
}

#[test]
fn a_change_of_what_is_there_finds_the_newest_value() {
    let mut run = cold();
    let append = ask_as(&mut run, 1, "k1", Action::Append { value: b"!" });
    let write = ask_as(&mut run, 2, "k1", set("newer"));
    assert_eq!(reply(&run, write), Some(Response::Ok));
    run.load();
    assert_eq!(reply(&run, append), Some(Response::Integer(6)));
    assert_eq!(run.deployment.get(1, "k1"), value("newer!"));
}

#[test]
fn two_requests_of_one_value_need_one_load() {
    let mut run = cold();
    let numbers = [1, 2].map(|session| ask_as(&mut run, session, "k1", Action::Get));
    assert_eq!(run.deployment.loads.len(), 1);
    run.load();
    assert_eq!(numbers.map(|number| reply(&run, number)), [Some(old_value(1)), Some(old_value(1))]);
}

#[test]
fn a_transaction_waits_for_all_its_values_at_once() {
    let mut run = cold();
    let operations: Vec<_> = [&b"k1"[..], b"k2", b"k3"]
        .map(|key| Operation { key, action: Action::Append { value: b"!" } })
        .into();
    let operation = ShardOperation::Batch { watched: Vec::new(), operations };
    let id = RequestId { node: run.node, session: SessionId(9), number: 77_000 };
    let carried = Carried::default();
    let request = LocalRequest { id, operation: &operation, carried: &carried, retry: None };
    run.deployment.tell(run.node, SHARD, Input::Request(request));
    assert_eq!(run.deployment.loads.len(), 3);
    for _ in 0..3 {
        assert_eq!(reply(&run, 77_000), None);
        run.load();
        run.evict(); // What it was loaded for is not forgotten before it was used.
    }
    run.deployment.settle();
    let all = Response::List(vec![Response::Integer(13); 3]);
    assert_eq!(reply(&run, 77_000), Some(all));
}

#[test]
fn a_value_that_cannot_be_read_is_an_error_and_not_an_absent_key() {
    let mut run = cold();
    let node = run.node;
    let lost = ask_as(&mut run, 1, "k1", Action::Get);
    let behind = ask_as(&mut run, 1, "k2", set("later"));
    let (_, load) = run.deployment.loads.pop_front().unwrap();
    let loaded = Loaded { hash: load.hash, number: load.number, records: None };
    run.deployment.tell(node, SHARD, Input::Loaded(loaded));
    run.deployment.settle();
    assert_eq!(reply(&run, lost), Some(Response::Refused(Refusal::Unreadable { node })));
    assert_eq!(reply(&run, behind), Some(Response::Ok));
    let failed = Event::LoadFailed { shard: SHARD, hash: load.hash };
    assert!(run.deployment.events.contains(&failed));
    let exists = ask_as(&mut run, 1, "k1", Action::Exists);
    assert_eq!(reply(&run, exists), Some(Response::Integer(1)));
}

#[test]
fn another_version_of_a_value_is_not_taken_for_it() {
    let mut run = cold();
    let of_another = run.stored.records.clone();
    let hash = run.deployment.replica_mut(run.node).keys.hash(b"k1");
    run.take(Deed::Put { datacenter: 1, key: 1, value: 9 });
    make_cold(&mut run);
    run.stored.records.insert(hash, of_another[&hash].clone());
    let number = ask_as(&mut run, 1, "k1", Action::Get);
    let (_, load) = run.deployment.loads.pop_front().unwrap();
    let records = run.stored.records.get(&hash).map(Vec::as_slice);
    let loaded = Loaded { hash, number: load.number, records };
    run.deployment.tell(run.node, SHARD, Input::Loaded(loaded));
    let refusal = Refusal::Unreadable { node: run.node };
    assert_eq!(reply(&run, number), Some(Response::Refused(refusal)));
}

#[test]
fn an_answer_to_an_earlier_load_changes_nothing() {
    let mut run = cold();
    let hash = run.deployment.replica_mut(run.node).keys.hash(b"k1");
    let number = ask_as(&mut run, 1, "k1", Action::Get);
    let (_, load) = *run.deployment.loads.front().unwrap();
    let loaded = Loaded { hash, number: load.number + 1, records: None };
    run.deployment.tell(run.node, SHARD, Input::Loaded(loaded));
    assert_eq!(reply(&run, number), None);
    run.load();
    assert_eq!(reply(&run, number), Some(old_value(1)));
}

#[test]
fn a_new_deadline_keeps_the_value_in_the_next_checkpoint() {
    let mut run = cold();
    run.take(Deed::Expire { key: 1, millis: 60_000 });
    let replica = run.deployment.replica_mut(run.node);
    assert_eq!(replica.keys.away_count(), 5, "nothing was loaded for it");
    for _ in 0..8 {
        run.take(Deed::Step);
    }
    run.take(Deed::Restart);
    run.take(Deed::Get { key: 1 });
    let at = ask_as(&mut run, 1, "k1", Action::Expiry(ExpiryForm::AtMillis));
    assert_eq!(reply(&run, at), Some(Response::Integer(1_061_000)));
}

#[test]
fn what_is_not_durable_yet_stays_in_memory() {
    let mut run = Run::of(Deployment::of(1, 1, 1));
    for key in 0..5 {
        run.take(Deed::Put { datacenter: 1, key, value: key });
    }
    let limits = StepLimits { looks: 100, bytes: 10_000 };
    let evicts = |run: &mut Run| {
        let replica = run.deployment.replica_mut(run.node);
        let rounds: Vec<Evicted> = (0..4).map(|_| replica.evict(limits)).collect();
        let count: usize = rounds.iter().map(|round| round.count).sum();
        (count, rounds.last().is_some_and(|round| 0 < round.unsaved_bytes))
    };
    assert_eq!(evicts(&mut run), (0, true), "no checkpoint has it");
    for _ in 0..8 {
        run.take(Deed::Take);
    }
    assert_eq!(evicts(&mut run), (0, false), "the checkpoint is not on disk");
    run.step();
    assert_eq!(evicts(&mut run), (5, false));
}

#[test]
fn what_was_used_is_taken_later_than_what_was_not() {
    let mut run = cold();
    for key in 0..5 {
        run.take(Deed::Get { key });
    }
    let limits = StepLimits { looks: 100, bytes: 10_000 };
    let replica = run.deployment.replica_mut(run.node);
    while replica.evict(limits).is_round && replica.keys.away_count() == 0 {
        assert!(replica.keys.committed(b"k3").is_visible());
    }
    assert_eq!(replica.keys.away_count(), 4);
    assert!(replica.keys.committed(b"k3").value().is_some_and(|value| !value.is_away()));
}

#[test]
fn too_many_that_wait_are_refused() {
    let mut run = cold();
    let numbers: Vec<u64> = (0..5_000).map(|_| ask_as(&mut run, 1, "k1", Action::Get)).collect();
    let last = numbers.last().copied().unwrap();
    let refusal = Refusal::Busy { shard: SHARD, held: 4_096, limit: 4_096 };
    assert_eq!(reply(&run, last), Some(Response::Refused(refusal)));
    run.load();
    assert_eq!(reply(&run, numbers[4_095]), Some(old_value(1)));
    let number = ask_as(&mut run, 1, "k1", Action::Get);
    assert_eq!(reply(&run, number), Some(old_value(1)));
}
