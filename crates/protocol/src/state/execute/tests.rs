//! What actions answer and which effects they leave, action by action and in batches.

use super::{
    super::testing::{Replica, entry, execute, execute_batch, read, set, version},
    *,
};

fn plain_set(value: &[u8]) -> Action<'_> {
    set_with(value, Condition::Always, Ttl::Clear, SetReply::Status)
}

fn set_until(value: &[u8], deadline: Deadline) -> Action<'_> {
    set_with(value, Condition::Always, Ttl::Until(deadline), SetReply::Status)
}

fn set_with(value: &[u8], condition: Condition, ttl: Ttl, reply: SetReply) -> Action<'_> {
    Action::Set { value, condition, ttl, reply }
}

fn bytes(value: &[u8]) -> Response {
    Response::Bytes(value.to_vec())
}

fn integer(value: i64) -> Response {
    Response::Integer(value)
}

fn expire(deadline: Deadline, condition: ExpireCondition) -> Action<'static> {
    Action::Expire { deadline, condition }
}

/// Runs a batch and commits what it leaves.
fn run_batch(
    replica: &mut Replica,
    watched: &[(&[u8], Sighting)],
    actions: &[(&[u8], Action<'_>)],
) -> (Response, Vec<String>) {
    let operations: Vec<_> =
        actions.iter().map(|(key, action)| Operation { key, action: action.clone() }).collect();
    let executed = execute_batch(&replica.keys, watched, &operations, replica.wall_millis);
    let log = replica.entry_of(&executed);
    replica.commit(log.as_ref());
    let told = |change: &NewChange<'_>| match change {
        NewChange::Set { value, deadline } => {
            format!("set {} {deadline:?}", String::from_utf8_lossy(value))
        }
        NewChange::Delete => "delete".to_owned(),
        NewChange::Ttl { deadline } => format!("ttl {deadline:?}"),
        NewChange::Hide => "hide".to_owned(),
    };
    let effects = executed
        .effects
        .iter()
        .map(|effect| format!("{}: {}", String::from_utf8_lossy(effect.key), told(&effect.change)));
    (executed.response, effects.collect())
}

#[test]
fn reads_of_an_absent_key_find_nothing_and_log_nothing() {
    let mut replica = Replica::new();
    for (action, expected) in [
        (Action::Get, Response::Nil),
        (Action::Length, integer(0)),
        (Action::Range { start: 0, end: -1 }, bytes(b"")),
        (Action::Exists, integer(0)),
        (Action::Type, Response::Word(Word::None)),
        (Action::Expiry(ExpiryForm::Seconds), integer(-2)),
        (Action::Expiry(ExpiryForm::AtMillis), integer(-2)),
        (Action::Describe(Description::Encoding), Response::Nil),
        (Action::Describe(Description::Memory), Response::Nil),
        (Action::Describe(Description::References), Response::Nil),
        (Action::Observe, Response::Observed(Sighting::Absent { at: Timestamp::ZERO })),
        (Action::Delete, integer(0)),
        (Action::GetAndDelete, Response::Nil),
        (Action::GetAndExpire { ttl: Ttl::Until(5000) }, Response::Nil),
        (Action::Persist, integer(0)),
        (expire(5000, ExpireCondition::Always), integer(0)),
        (expire(5, ExpireCondition::IfEarlier), integer(0)),
        (Action::SetRange { offset: 5, value: b"" }, integer(0)),
    ] {
        let told = replica.run_keeping_effects(b"k", action.clone());
        assert_eq!(told, (expected, 0), "{action:?}");
    }
    let executed =
        execute(&replica.keys, &Operation { key: b"k", action: Action::Get }, replica.wall_millis);
    assert_eq!(executed.observed.as_slice(), []);
}

#[test]
fn reads_of_a_value_tell_its_parts() {
    let mut replica = Replica::new();
    replica.run(b"k", plain_set(b"This is a string"));
    for (start, end, expected) in [
        (0, 3, &b"This"[..]),
        (-3, -1, b"ing"),
        (0, -1, b"This is a string"),
        (10, 100, b"string"),
        (5, 3, b""),
        (-1, -3, b""),
        (-100, 1, b"Th"),
        (-100, -50, b"T"),
        (100, 200, b""),
        (i64::MIN, i64::MAX, b"This is a string"),
        (i64::MAX, i64::MIN, b""),
    ] {
        let told = replica.run(b"k", Action::Range { start, end });
        assert_eq!(told, bytes(expected), "from {start} to {end}");
    }
    assert_eq!(replica.run(b"k", Action::Length), integer(16));
    assert_eq!(replica.run(b"k", Action::Exists), integer(1));
    assert_eq!(replica.run(b"k", Action::Type), Response::Word(Word::String));
    assert_eq!(replica.run(b"k", Action::Describe(Description::References)), integer(1));
    let memory = replica.run(b"k", Action::Describe(Description::Memory));
    assert!(matches!(memory, Response::Integer(17..=100)), "{memory:?}");
}

#[test]
fn a_batch_does_not_find_what_it_wrote_with_a_deadline_in_the_past() {
    let keys = Keys::new(7);
    let set = Action::Set {
        value: b"v",
        condition: Condition::Always,
        ttl: Ttl::Until(1),
        reply: SetReply::Status,
    };
    let of = |action| Operation { key: b"k", action };
    let batch = [of(set), of(Action::Get), of(Action::Exists)];
    let executed = execute_batch(&keys, &[], &batch, 1000);
    let expected = vec![Response::Ok, Response::Nil, Response::Integer(0)];
    assert_eq!(executed.response, Response::List(expected));
}

#[test]
fn encodings_are_those_of_redis() {
    let mut replica = Replica::new();
    for (value, expected) in [
        (&b"0"[..], Word::Int),
        (b"-1", Word::Int),
        (b"9223372036854775807", Word::Int),
        (b"-9223372036854775808", Word::Int),
        (b"9223372036854775808", Word::Embstr),
        (b"-0", Word::Embstr),
        (b"007", Word::Embstr),
        (b"+5", Word::Embstr),
        (b"5 ", Word::Embstr),
        (b"-", Word::Embstr),
        (b"", Word::Embstr),
        (&[b'x'; 44], Word::Embstr),
        (&[b'x'; 45], Word::Raw),
        (&[b'1'; 45], Word::Raw),
    ] {
        replica.run(b"k", plain_set(value));
        let told = replica.run(b"k", Action::Describe(Description::Encoding));
        assert_eq!(told, Response::Word(expected), "{:?}", String::from_utf8_lossy(value));
    }
}

#[test]
fn set_obeys_its_conditions_and_answers_as_asked() {
    let mut replica = Replica::new();
    let (absent, present) = (Condition::IfAbsent, Condition::IfPresent);
    for (action, expected) in [
        (set_with(b"a", present, Ttl::Clear, SetReply::Status), (Response::Nil, 0)),
        (set_with(b"a", present, Ttl::Clear, SetReply::Previous), (Response::Nil, 0)),
        (set_with(b"a", absent, Ttl::Clear, SetReply::Previous), (Response::Nil, 1)),
        (set_with(b"b", absent, Ttl::Clear, SetReply::Status), (Response::Nil, 0)),
        (set_with(b"b", absent, Ttl::Clear, SetReply::Previous), (bytes(b"a"), 0)),
        (set_with(b"b", absent, Ttl::Clear, SetReply::Flag), (integer(0), 0)),
        (set_with(b"b", present, Ttl::Clear, SetReply::Status), (Response::Ok, 1)),
        (set_with(b"c", Condition::Always, Ttl::Clear, SetReply::Previous), (bytes(b"b"), 1)),
        (Action::Get, (bytes(b"c"), 0)),
        (Action::Delete, (integer(1), 1)),
        (set_with(b"d", absent, Ttl::Clear, SetReply::Flag), (integer(1), 1)),
    ] {
        let told = replica.run_keeping_effects(b"k", action.clone());
        assert_eq!(told, expected, "{action:?}");
    }
}

#[test]
fn set_clears_keeps_or_sets_the_time_to_live() {
    let mut replica = Replica::new();
    let keep = |value| set_with(value, Condition::Always, Ttl::Keep, SetReply::Status);
    let told = |replica: &mut Replica| replica.run(b"k", Action::Expiry(ExpiryForm::AtMillis));
    replica.run(b"k", keep(b"a"));
    assert_eq!(told(&mut replica), integer(-1));
    replica.run(b"k", set_until(b"a", 5600));
    assert_eq!(told(&mut replica), integer(5600));
    replica.run(b"k", keep(b"b"));
    assert_eq!(told(&mut replica), integer(5600));
    for (form, expected) in [
        (ExpiryForm::Seconds, 5),
        (ExpiryForm::Millis, 4600),
        (ExpiryForm::AtSeconds, 6),
        (ExpiryForm::AtMillis, 5600),
    ] {
        assert_eq!(replica.run(b"k", Action::Expiry(form)), integer(expected), "{form:?}");
    }
    replica.run(b"k", Action::Append { value: b"c" });
    replica.run(b"k", Action::SetRange { offset: 0, value: b"x" });
    assert_eq!(replica.run(b"k", Action::Get), bytes(b"xc"));
    assert_eq!(told(&mut replica), integer(5600));
    replica.run(b"k", plain_set(b"d"));
    assert_eq!(told(&mut replica), integer(-1));
}

#[test]
fn expire_obeys_its_conditions() {
    use ExpireCondition::{
        Always, IfEarlier, IfLater, IfNone, IfSome, IfSomeAndEarlier, IfSomeAndLater,
    };
    for (found, deadline, condition, expected) in [
        (None, 5000, Always, 1),
        (None, 5000, IfNone, 1),
        (None, 5000, IfSome, 0),
        (None, 5000, IfLater, 0),
        (None, 5000, IfEarlier, 1),
        (None, 5000, IfSomeAndLater, 0),
        (None, 5000, IfSomeAndEarlier, 0),
        (Some(5000), 6000, Always, 1),
        (Some(5000), 6000, IfNone, 0),
        (Some(5000), 6000, IfSome, 1),
        (Some(5000), 6000, IfLater, 1),
        (Some(5000), 5000, IfLater, 0),
        (Some(5000), 6000, IfEarlier, 0),
        (Some(5000), 5000, IfEarlier, 0),
        (Some(5000), 4000, IfEarlier, 1),
        (Some(5000), 6000, IfSomeAndLater, 1),
        (Some(5000), 4000, IfSomeAndEarlier, 1),
    ] {
        let mut replica = Replica::new();
        let ttl = found.map_or(Ttl::Clear, Ttl::Until);
        replica.run(b"k", set_with(b"v", Condition::Always, ttl, SetReply::Status));
        let told = replica.run_keeping_effects(b"k", expire(deadline, condition));
        let is_set = usize::try_from(expected).unwrap();
        assert_eq!(told, (integer(expected), is_set), "{found:?} {deadline} {condition:?}");
        let left = if expected == 1 { Some(deadline) } else { found };
        let left = left.map_or(-1, |left| i64::try_from(left).unwrap());
        assert_eq!(replica.run(b"k", Action::Expiry(ExpiryForm::AtMillis)), integer(left));
    }
}

#[test]
fn a_deadline_that_has_passed_removes_the_key() {
    let mut replica = Replica::new();
    for action in [
        expire(1000, ExpireCondition::Always),
        expire(0, ExpireCondition::IfEarlier),
        Action::GetAndExpire { ttl: Ttl::Until(999) },
    ] {
        replica.run(b"k", plain_set(b"v"));
        let (response, count) = replica.run_keeping_effects(b"k", action);
        assert!(matches!(response, Response::Integer(1) | Response::Bytes(_)));
        assert_eq!(count, 1);
        assert_eq!(replica.keys.newest(b"k").held, None, "a tombstone");
    }
    replica.run(b"k", plain_set(b"v"));
    assert_eq!(replica.run(b"k", expire(999, ExpireCondition::IfLater)), integer(0));
    assert_eq!(replica.run(b"k", Action::Get), bytes(b"v"));
}

#[test]
fn persist_and_getex_change_the_time_to_live_once() {
    let mut replica = Replica::new();
    let get = |ttl| Action::GetAndExpire { ttl };
    replica.run(b"k", plain_set(b"v"));
    for (action, expected, left) in [
        (Action::Persist, (integer(0), 0), -1),
        (get(Ttl::Keep), (bytes(b"v"), 0), -1),
        (get(Ttl::Clear), (bytes(b"v"), 0), -1),
        (get(Ttl::Until(5000)), (bytes(b"v"), 1), 5000),
        (get(Ttl::Keep), (bytes(b"v"), 0), 5000),
        (get(Ttl::Clear), (bytes(b"v"), 1), -1),
        (get(Ttl::Until(6000)), (bytes(b"v"), 1), 6000),
        (Action::Persist, (integer(1), 1), -1),
        (Action::Persist, (integer(0), 0), -1),
    ] {
        let told = replica.run_keeping_effects(b"k", action.clone());
        assert_eq!(told, expected, "{action:?}");
        let told = replica.run(b"k", Action::Expiry(ExpiryForm::AtMillis));
        assert_eq!(told, integer(left), "after {action:?}");
    }
    assert_eq!(replica.run(b"k", Action::GetAndDelete), bytes(b"v"));
    assert_eq!(replica.run(b"k", Action::GetAndDelete), Response::Nil);
}

#[test]
fn append_and_setrange_grow_a_value() {
    let mut replica = Replica::new();
    let range = |offset, value| Action::SetRange { offset, value };
    for (action, expected, value) in [
        (Action::Append { value: b"" }, (integer(0), 1), &b""[..]),
        (Action::Append { value: b"ab" }, (integer(2), 1), b"ab"),
        (Action::Append { value: b"cd" }, (integer(4), 1), b"abcd"),
        (range(1, b"XY"), (integer(4), 1), b"aXYd"),
        (range(6, b"z"), (integer(7), 1), b"aXYd\0\0z"),
        (range(u64::MAX, b""), (integer(7), 0), b"aXYd\0\0z"),
        (range(3, b"more!"), (integer(8), 1), b"aXYmore!"),
    ] {
        let told = replica.run_keeping_effects(b"k", action.clone());
        assert_eq!(told, expected, "{action:?}");
        assert_eq!(replica.run(b"k", Action::Get), bytes(value));
    }
    assert_eq!(replica.run(b"new", range(2, b"v")), integer(3));
    assert_eq!(replica.run(b"new", Action::Get), bytes(b"\0\0v"));
}

#[test]
fn a_value_beyond_the_limit_is_refused_and_nothing_is_logged() {
    let mut replica = Replica::new();
    let limit = u64::try_from(VALUE_BYTES_MAX).unwrap();
    for offset in [limit, u64::MAX - 1, u64::MAX, i64::MAX.unsigned_abs()] {
        let told = replica.run_keeping_effects(b"k", Action::SetRange { offset, value: b"v" });
        assert_eq!(told, (Response::Refused(Refusal::TooLarge), 0), "{offset}");
    }
    assert_eq!(allowed_length(VALUE_BYTES_MAX - 1, 1), Some(VALUE_BYTES_MAX));
    assert_eq!(allowed_length(VALUE_BYTES_MAX, 1), None);
    assert_eq!(allowed_length(usize::MAX, 1), None);
}

#[test]
fn an_expired_key_is_absent_and_has_to_be_hidden() {
    for (action, response) in [
        (Action::Get, Response::Nil),
        (Action::Exists, integer(0)),
        (Action::Expiry(ExpiryForm::Millis), integer(-2)),
        (Action::Delete, integer(0)),
        (Action::Persist, integer(0)),
        (set_with(b"w", Condition::IfPresent, Ttl::Clear, SetReply::Status), Response::Nil),
    ] {
        let mut replica = Replica::new();
        replica.run(b"k", set_until(b"v", 1500));
        replica.wall_millis = 1500;
        assert_eq!(replica.run_keeping_effects(b"k", Action::Get), (bytes(b"v"), 0));
        replica.wall_millis = 1501;
        let operation = Operation { key: b"k", action: action.clone() };
        let executed = execute(&replica.keys, &operation, replica.wall_millis);
        assert_eq!(executed.response, response, "{action:?}");
        assert!(executed.needs_hide(), "{action:?}");
        let look = replica.keys.newest(b"k");
        let hide = hide_effect(b"k", &look, replica.wall_millis).unwrap();
        assert_eq!(executed.effects.as_slice(), [hide], "{action:?}");
        let log = replica.entry_of(&executed);
        replica.commit(log.as_ref());
        assert_eq!(replica.run_keeping_effects(b"k", action.clone()), (response, 0));
        let look = replica.keys.newest(b"k");
        assert_eq!(hide_effect(b"k", &look, 5000), None);
        assert_eq!(look.observed().len(), 2, "the value and its hiding");
    }
}

#[test]
fn a_write_takes_the_place_of_an_expired_value_without_hiding_it() {
    let mut replica = Replica::new();
    replica.run(b"k", set_until(b"old", 1500));
    replica.wall_millis = 2000;
    let operation = Operation { key: b"k", action: Action::Append { value: b"new" } };
    let executed = execute(&replica.keys, &operation, replica.wall_millis);
    assert_eq!(executed.response, integer(3));
    assert!(!executed.needs_hide());
    let log = replica.entry_of(&executed);
    replica.commit(log.as_ref());
    assert_eq!(replica.run(b"k", Action::Get), bytes(b"new"));
    assert_eq!(replica.run(b"k", Action::Expiry(ExpiryForm::Millis)), integer(-1));
}

#[test]
fn a_batch_leaves_one_effect_for_a_key() {
    let del = || Action::Delete;
    let until = |deadline| expire(deadline, ExpireCondition::Always);
    for (actions, expected) in [
        (vec![plain_set(b"a"), until(5000)], Some("set a Some(5000)")),
        (vec![plain_set(b"a"), del()], Some("delete")),
        (vec![del(), plain_set(b"a")], Some("set a None")),
        (vec![until(5000), until(6000)], Some("ttl Some(6000)")),
        (vec![until(5000), Action::Persist], Some("ttl None")),
        (vec![until(5000), plain_set(b"a")], Some("set a None")),
        (vec![until(5000), Action::Append { value: b"b" }], Some("set vb Some(5000)")),
        (vec![until(5000), del()], Some("delete")),
        (vec![Action::Get, Action::Exists], None),
        (vec![del(), del(), Action::Get], Some("delete")),
        (
            vec![Action::Append { value: b"b" }, Action::Append { value: b"c" }],
            Some("set vbc None"),
        ),
    ] {
        let mut replica = Replica::new();
        replica.run(b"k", plain_set(b"v"));
        let actions: Vec<_> = actions.into_iter().map(|action| (&b"k"[..], action)).collect();
        let (_, effects) = run_batch(&mut replica, &[], &actions);
        let expected: Vec<_> = expected.map(|change| format!("k: {change}")).into_iter().collect();
        assert_eq!(effects, expected, "{actions:?}");
    }
}

#[test]
fn a_batch_that_comes_to_nothing_on_an_absent_key_logs_nothing() {
    let mut replica = Replica::new();
    let actions = [(&b"k"[..], plain_set(b"a")), (b"k", Action::Get), (b"k", Action::Delete)];
    let (response, effects) = run_batch(&mut replica, &[], &actions);
    assert_eq!(response, Response::List(vec![Response::Ok, bytes(b"a"), integer(1)]));
    assert_eq!(effects, Vec::<String>::new());
    replica.run(b"k", set_until(b"v", 1500));
    replica.wall_millis = 2000;
    let (response, effects) = run_batch(&mut replica, &[], &actions);
    assert_eq!(response, Response::List(vec![Response::Ok, bytes(b"a"), integer(1)]));
    assert_eq!(effects, ["k: hide"]);
}

#[test]
fn a_batch_sees_what_it_has_done_and_concerns_several_keys() {
    let mut replica = Replica::new();
    replica.run(b"b", plain_set(b"old"));
    let (response, effects) = run_batch(
        &mut replica,
        &[],
        &[
            (b"c", plain_set(b"1")),
            (b"a", Action::Append { value: b"x" }),
            (b"b", Action::GetAndDelete),
            (b"b", set_with(b"y", Condition::IfAbsent, Ttl::Clear, SetReply::Flag)),
            (b"a", Action::SetRange { offset: u64::MAX, value: b"!" }),
            (b"a", Action::Get),
        ],
    );
    let expected = vec![
        Response::Ok,
        integer(1),
        bytes(b"old"),
        integer(1),
        Response::Refused(Refusal::TooLarge),
        bytes(b"x"),
    ];
    assert_eq!(response, Response::List(expected));
    assert_eq!(effects, ["a: set x None", "b: set y None", "c: set 1 None"]);
    assert_eq!(replica.run(b"b", Action::Get), bytes(b"y"));
}

/// What `WATCH` would remember now.
fn watched(replica: &mut Replica, key: &[u8]) -> Sighting {
    let was_expired = replica.keys.newest(key).is_expired(replica.wall_millis);
    let (response, effects) = replica.run_keeping_effects(key, Action::Observe);
    assert_eq!(effects, usize::from(was_expired), "watching changes nothing but hides");
    let Response::Observed(sighting) = response else { panic!("{response:?}") };
    // The answer's visible-at is that of the hiding if there was one.
    sighting.not_before(replica.keys.newest(key).visible_at())
}

/// Whether `EXEC` does nothing after this sighting of a key.
fn is_aborted(replica: &Replica, key: &[u8], sighting: Sighting) -> bool {
    let write = [Operation { key: b"elsewhere", action: plain_set(b"1") }];
    let watched = [(key, sighting)];
    let executed = execute_batch(&replica.keys, &watched, &write, replica.wall_millis);
    let is_aborted = executed.response == Response::Aborted;
    assert_eq!(executed.effects.len(), usize::from(!is_aborted));
    is_aborted
}

/// Commits an effect of another datacenter: an older version that becomes visible only now.
fn commit_late(replica: &mut Replica, effect: Effect<'_>) {
    replica.position += 1;
    let visible_at = Timestamp(1000 + replica.position);
    let made = entry(replica.position, version(50 + replica.position, 2), &[effect]);
    replica.commit(Some(&crate::entry::Entry { visible_at, ..made }));
}

fn collect_all(replica: &mut Replica) -> usize {
    replica.keys.collect(|_| true, usize::MAX)
}

/// A way in which a key has come to be absent.
type Past = fn(&mut Replica);

const PASTS: [(&str, Past); 6] = [
    ("never there", |_| ()),
    ("deleted", |replica| {
        replica.run(b"k", plain_set(b"v"));
        replica.run(b"k", Action::Delete);
    }),
    ("deleted and collected", |replica| {
        replica.run(b"k", plain_set(b"v"));
        replica.run(b"k", Action::Delete);
        assert_eq!(collect_all(replica), 1);
    }),
    ("over and not hidden", |replica| {
        replica.run(b"k", set_until(b"v", 1001));
        replica.wall_millis = 1500;
    }),
    ("hidden", |replica| {
        replica.run(b"k", set_until(b"v", 1001));
        replica.wall_millis = 1500;
        assert_eq!(replica.run_keeping_effects(b"k", Action::Get).1, 1);
    }),
    ("hidden and collected", |replica| {
        replica.run(b"k", set_until(b"v", 1001));
        replica.wall_millis = 1500;
        replica.run(b"k", Action::Get);
        assert_eq!(collect_all(replica), 1);
    }),
];

#[test]
fn an_absent_key_that_nobody_touches_lets_the_batch_go_on() {
    for (past, make) in PASTS {
        let mut replica = Replica::new();
        make(&mut replica);
        let before = watched(&mut replica, b"k");
        assert!(!is_aborted(&replica, b"k", before), "{past}");
        for action in [plain_set(b"v"), Action::Delete] {
            replica.run(b"other", action);
        }
        assert!(!is_aborted(&replica, b"k", before), "{past}, and another key has changed");
        collect_all(&mut replica);
        assert!(!is_aborted(&replica, b"k", before), "{past}, and all was collected");
        replica.wall_millis += 5000;
        assert!(!is_aborted(&replica, b"k", before), "{past}, and time has passed");
    }
}

#[test]
fn an_absent_key_that_has_a_value_now_aborts_a_batch() {
    for (past, make) in PASTS {
        let mut replica = Replica::new();
        make(&mut replica);
        let before = watched(&mut replica, b"k");
        replica.run(b"k", plain_set(b"v"));
        assert!(is_aborted(&replica, b"k", before), "{past}");
        let later = Sighting::Absent { at: Timestamp::MAX };
        assert!(is_aborted(&replica, b"k", later), "{past}, whatever the times say");
    }
}

#[test]
fn an_absent_key_that_came_and_was_deleted_aborts_a_batch() {
    for (past, make) in PASTS {
        let mut replica = Replica::new();
        make(&mut replica);
        let before = watched(&mut replica, b"k");
        replica.run(b"k", plain_set(b"v"));
        replica.run(b"k", Action::Delete);
        assert!(is_aborted(&replica, b"k", before), "{past}");
        let after = watched(&mut replica, b"k");
        assert!(0 < collect_all(&mut replica));
        assert!(is_aborted(&replica, b"k", before), "{past}, and the tombstone is gone");
        assert!(!is_aborted(&replica, b"k", after), "{past}, seen after the deletion");
    }
}

#[test]
fn an_absent_key_that_came_and_expired_aborts_a_batch() {
    for (past, make) in PASTS {
        let mut replica = Replica::new();
        make(&mut replica);
        let before = watched(&mut replica, b"k");
        replica.run(b"k", set_until(b"v", 3000));
        replica.wall_millis = 4000;
        assert!(is_aborted(&replica, b"k", before), "{past}, its time is over");
        assert_eq!(replica.run_keeping_effects(b"k", Action::Get).1, 1);
        assert!(is_aborted(&replica, b"k", before), "{past}, it is hidden");
        assert!(0 < collect_all(&mut replica));
        assert!(is_aborted(&replica, b"k", before), "{past}, it is collected");
    }
}

#[test]
fn an_older_value_from_elsewhere_that_came_and_expired_aborts_a_batch() {
    let mut replica = Replica::new();
    replica.run(b"other", plain_set(b"v"));
    let before = watched(&mut replica, b"k");
    let change = set(b"late", Some(1500));
    commit_late(&mut replica, Effect { key: b"k", seen: Seen::new(), change });
    replica.wall_millis = 2000;
    let Sighting::Absent { at } = before else { panic!("{before:?}") };
    assert!(replica.keys.newest(b"k").version().unwrap().timestamp < at);
    assert!(is_aborted(&replica, b"k", before));
    replica.run(b"k", Action::Get);
    assert!(is_aborted(&replica, b"k", before), "it is hidden");
}

#[test]
fn an_older_write_that_loses_to_the_tombstone_is_no_change() {
    let mut replica = Replica::new();
    replica.run(b"k", plain_set(b"v"));
    replica.run(b"k", Action::Delete);
    let before = watched(&mut replica, b"k");
    let effect = Effect { key: b"k", seen: Seen::new(), change: Change::Delete };
    commit_late(&mut replica, effect);
    assert!(!is_aborted(&replica, b"k", before));
}

#[test]
fn when_too_much_was_collected_to_remember_a_batch_is_aborted_to_be_safe() {
    let mut replica = Replica::new();
    let before = watched(&mut replica, b"k");
    let churn = |replica: &mut Replica, key: &[u8]| {
        replica.run(key, plain_set(b"v"));
        replica.run(key, Action::Delete);
        assert_eq!(collect_all(replica), 1);
    };
    churn(&mut replica, b"k");
    assert!(is_aborted(&replica, b"k", before));
    for number in 0..2000_u32 {
        churn(&mut replica, &number.to_be_bytes());
        assert!(is_aborted(&replica, b"k", before), "after {number} others");
    }
    let used = replica.keys.used_bytes();
    for number in 0..2000_u32 {
        churn(&mut replica, &number.to_be_bytes());
    }
    assert_eq!(replica.keys.used_bytes(), used, "what is remembered has a limit");
    let now = watched(&mut replica, b"k");
    assert!(!is_aborted(&replica, b"k", now));
}

#[test]
fn a_replica_that_reads_its_log_again_still_tells_what_has_changed() {
    let effect = |change| Effect { key: b"k", seen: Seen::new(), change };
    let log = [
        entry(1, version(1001, 1), &[effect(set(b"v", None))]),
        entry(2, version(1002, 1), &[effect(Change::Delete)]),
    ];
    let mut replica = Replica::new();
    let before = watched(&mut replica, b"k");
    log.iter().for_each(|entry| replica.keys.commit(entry, &mut vec![]));
    assert_eq!(collect_all(&mut replica), 1);
    let after = watched(&mut replica, b"k");
    let mut again = Replica::new();
    log.iter().for_each(|entry| again.keys.commit(entry, &mut vec![]));
    assert!(is_aborted(&again, b"k", before));
    assert!(!is_aborted(&again, b"k", after));
    assert_eq!(collect_all(&mut again), 1);
    assert!(is_aborted(&again, b"k", before));
    assert!(!is_aborted(&again, b"k", after));
}

#[test]
fn a_key_is_sighted_in_the_state_that_is_shown_also_above_what_is_committed() {
    let mut replica = Replica::new();
    replica.run(b"k", plain_set(b"v"));
    let effect =
        Effect { key: b"k", seen: replica.keys.newest(b"k").seen(), change: Change::Delete };
    let deletion = entry(2, version(1002, 1), &[effect]);
    replica.keys.add_dirty(&deletion);
    let observe = ShardOperation::One(Operation { key: b"k", action: Action::Observe });
    let sighted = |keys: &Keys, to| read(keys, &observe, Position(to), 1000).response;
    let present = Response::Observed(Sighting::Present(version(1001, 1)));
    let absent = Sighting::Absent { at: Timestamp(1002) };
    assert_eq!(sighted(&replica.keys, 1), present);
    assert_eq!(sighted(&replica.keys, 2), Response::Observed(absent));
    replica.commit(Some(&deletion));
    assert!(!is_aborted(&replica, b"k", absent));
    assert!(is_aborted(&replica, b"k", Sighting::Absent { at: Timestamp(1001) }));
}

#[test]
fn a_watched_key_that_has_changed_aborts_a_batch() {
    for change in [
        plain_set(b"v"),
        Action::Delete,
        Action::Append { value: b"" },
        expire(9000, ExpireCondition::Always),
        Action::Persist,
    ] {
        let mut replica = Replica::new();
        replica.run(b"k", set_until(b"v", 5000));
        let before = watched(&mut replica, b"k");
        let write = [(&b"other"[..], plain_set(b"1"))];
        let (response, _) = run_batch(&mut replica, &[(b"k", before)], &write);
        assert_eq!(response, Response::List(vec![Response::Ok]));
        replica.run(b"k", change.clone());
        let (response, effects) = run_batch(&mut replica, &[(b"k", before)], &write);
        assert_eq!((response, effects.len()), (Response::Aborted, 0), "{change:?}");
    }
}

#[test]
fn a_watched_key_that_expires_aborts_a_batch_and_one_that_had_expired_does_not() {
    let mut replica = Replica::new();
    replica.run(b"k", set_until(b"v", 1500));
    let before = watched(&mut replica, b"k");
    replica.wall_millis = 2000;
    let write = [(&b"other"[..], plain_set(b"1"))];
    assert_eq!(run_batch(&mut replica, &[(b"k", before)], &write).0, Response::Aborted);
    let expired = watched(&mut replica, b"k");
    assert_eq!(replica.run_keeping_effects(b"k", Action::Get).1, 0, "it is hidden already");
    let (response, _) = run_batch(&mut replica, &[(b"k", expired)], &write);
    assert_eq!(response, Response::List(vec![Response::Ok]));
    assert_eq!(run_batch(&mut replica, &[(b"k", before)], &write).0, Response::Aborted);
}

#[test]
fn a_concurrent_time_to_live_with_a_smaller_version_is_a_change_for_watch() {
    let mut replica = Replica::new();
    replica.run(b"k", plain_set(b"v"));
    let value = replica.keys.newest(b"k").version().unwrap();
    replica.run(b"k", expire(5000, ExpireCondition::Always));
    let before = watched(&mut replica, b"k");
    let change = Change::Ttl { deadline: Some(9000) };
    let effect = Effect { key: b"k", seen: Seen::from_slice(&[value]), change };
    let late = version(value.timestamp.0, 9);
    let remote = entry(replica.position + 1, late, &[effect]);
    let remote = crate::entry::Entry { visible_at: Timestamp(1500), ..remote };
    replica.keys.commit(&remote, &mut vec![]);
    assert_ne!(watched(&mut replica, b"k"), before);
}

#[test]
fn keys_whose_time_is_over_are_not_counted_hidden_or_not() {
    let mut replica = Replica::new();
    replica.run(b"stays", plain_set(b"v"));
    replica.run(b"later", set_until(b"v", 9000));
    replica.run(b"goes", set_until(b"v", 1500));
    let count = |replica: &Replica, wall_millis| {
        read(&replica.keys, &ShardOperation::Count, Position(9), wall_millis).response
    };
    assert_eq!(count(&replica, 1500), integer(3));
    assert_eq!(count(&replica, 1501), integer(2));
    replica.wall_millis = 1501;
    assert_eq!(replica.run_keeping_effects(b"goes", Action::Get).1, 1, "now it is hidden");
    assert_eq!(count(&replica, 1501), integer(2));
}

#[test]
fn answers_carry_what_they_were_made_of() {
    let mut replica = Replica::new();
    replica.run(b"a", plain_set(b"v"));
    replica.run(b"b", plain_set(b"v"));
    replica.run(b"b", Action::Delete);
    let (a, b) = (version(1001, 1), version(1003, 1));
    let get = |key| Operation { key, action: Action::Get };
    let executed = execute(&replica.keys, &get(b"b"), 1000);
    assert_eq!(executed.response, Response::Nil);
    assert_eq!((executed.observed.as_slice(), executed.visible_at), (&[b][..], b.timestamp));
    let batch = ShardOperation::Batch {
        watched: vec![],
        operations: vec![get(b"b"), get(b"a"), get(b"b"), get(b"none")],
    };
    let shown = read(&replica.keys, &batch, Position(99), 1000);
    assert_eq!((shown.observed.as_slice(), shown.visible_at), (&[a, b][..], b.timestamp));
    assert!(!shown.needs_hide);
}

#[test]
fn a_read_shows_what_its_execution_would() {
    let mut replica = Replica::new();
    replica.run(b"plain", plain_set(b"12"));
    replica.run(b"mortal", set_until(b"v", 1500));
    replica.run(b"gone", plain_set(b"v"));
    replica.run(b"gone", Action::Delete);
    let reads = [
        Action::Get,
        Action::Length,
        Action::Range { start: 0, end: -1 },
        Action::Exists,
        Action::Type,
        Action::Expiry(ExpiryForm::Millis),
        Action::Describe(Description::Encoding),
        Action::Observe,
    ];
    assert!(reads.iter().all(Action::is_read));
    for key in [&b"plain"[..], b"mortal", b"gone", b"none"] {
        for (action, wall_millis) in reads.iter().flat_map(|read| [(read, 1500), (read, 1501)]) {
            let operation = Operation { key, action: action.clone() };
            let executed = super::execute(&replica.keys, &operation, wall_millis);
            let operation = ShardOperation::One(operation);
            let shown = super::read(&replica.keys, &operation, Position(99), wall_millis);
            assert_eq!(shown, executed.map(Shown::of), "{action:?} of {key:?} at {wall_millis}");
        }
    }
}

#[test]
fn a_read_at_a_position_shows_the_state_up_to_there() {
    let mut replica = Replica::new();
    replica.run(b"k", plain_set(b"one"));
    for (position, value) in [(2, &b"two"[..]), (3, b"three")] {
        let effect =
            Effect { key: b"k", seen: replica.keys.newest(b"k").seen(), change: set(value, None) };
        replica.keys.add_dirty(&entry(position, version(1000 + position, 1), &[effect]));
    }
    let get = ShardOperation::One(Operation { key: b"k", action: Action::Get });
    for (to, expected) in [(0, &b"one"[..]), (1, b"one"), (2, b"two"), (3, b"three"), (9, b"three")]
    {
        let shown = read(&replica.keys, &get, Position(to), 1000);
        assert_eq!(shown.response, bytes(expected), "up to {to}");
    }
    let count = read(&replica.keys, &ShardOperation::Count, Position(3), 1000);
    assert_eq!(count.response, integer(1));
    let scan =
        ShardOperation::Scan(antecede_model::operation::Scan { from: 0, count: 10, pattern: None });
    let keys = vec![b"k".to_vec()];
    let shown = read(&replica.keys, &scan, Position(3), 1000);
    assert_eq!(shown.response, Response::Scanned { next: None, keys });
    let random = read(&replica.keys, &ShardOperation::Random { draw: 5 }, Position(3), 1000);
    assert_eq!(random.response, bytes(b"k"));
}
