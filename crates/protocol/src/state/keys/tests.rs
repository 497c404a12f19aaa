//! What a replica holds: states at positions, counters, collection, expiry, scans.

use antecede_model::{
    clock::Timestamp,
    operation::{Action, Condition, ExpireCondition, Operation, SetReply, Ttl},
};
use proptest::{collection::vec, option, prelude::*};

use super::{
    super::{
        execute::hide_effect,
        testing::{Replica, bytes_of, entry, execute, set, version},
    },
    *,
};
use crate::{entry::Seen, retries::Remembered};

impl Keys {
    /// The packed record of a key.
    pub(in super::super) fn record_of(&self, key: &[u8]) -> Option<&[u8]> {
        self.index.find(self.hash(key), key).ok().map(|at| self.index.record(at))
    }

    fn commit_all(&mut self, entries: &[Entry]) -> Vec<Conflict> {
        let mut conflicts = vec![];
        for entry in entries {
            self.commit(entry, &mut conflicts);
        }
        conflicts
    }

    /// Counts again what the counters say.
    pub(crate) fn check_counters(&self) {
        let records: Vec<_> = self.index.starting_at(0).map(|(_, record)| record).collect();
        let standings = records.iter().map(|record| Standing::of(&record::read(record)));
        let visible = standings.clone().filter(|standing| standing.is_visible).count();
        assert_eq!(self.live_count, visible);
        assert_eq!(self.gone_count, records.len() - visible);
        let bytes: usize = records.iter().map(|record| record.len()).sum();
        assert_eq!(self.record_bytes, bytes);
        let deadlines: Vec<_> = standings.filter_map(|standing| standing.deadline).collect();
        assert_eq!(self.ttl_count, deadlines.len());
        assert_eq!(self.deadlines.len(), deadlines.len());
        let dirty: usize = self.dirty.values().map(SmallVec::len).sum();
        assert_eq!(self.dirty_count, dirty);
        let away: Vec<_> = records.iter().filter(|record| record::is_away(record)).collect();
        assert_eq!(self.away_count(), away.len());
        let away_bytes: usize = away.iter().map(|record| record::value_length(record)).sum();
        assert_eq!(self.away_bytes(), away_bytes);
    }
}

/// All that a look shows.
type Facts = (Option<Vec<u8>>, Option<Version>, Option<Deadline>, Seen, Timestamp);

fn facts(look: &Look<'_>) -> Facts {
    let value = bytes_of(look).map(<[u8]>::to_vec);
    (value, look.version(), look.deadline(), look.seen(), look.visible_at())
}

fn key_of(number: u8) -> [u8; 3] {
    [b'k', b'-', number]
}

fn action_of(kind: u8, value: &[u8], deadline: u64) -> Action<'_> {
    let plain =
        |ttl| Action::Set { value, condition: Condition::Always, ttl, reply: SetReply::Status };
    match kind {
        0 | 1 => plain(Ttl::Clear),
        2 => plain(Ttl::Until(deadline)),
        3 => plain(Ttl::Keep),
        4 => Action::Delete,
        5 => Action::Persist,
        6 => Action::Append { value },
        7 => Action::Get,
        _ => Action::Expire { deadline, condition: ExpireCondition::Always },
    }
}

/// One step: which key, which action, a deadline, whether it is made elsewhere, how many
/// entries are committed behind it, how many are cut.
type Step = (u8, u8, u64, bool, usize, Option<u64>);

fn any_step() -> impl Strategy<Value = Step> {
    (0_u8..4, 0_u8..10, 1000_u64..1060, any::<bool>(), 0_usize..3, option::weighted(0.1, 0_u64..3))
}

/// A replica whose entries wait a while before they are committed, beside all entries.
struct Lagging {
    keys: Keys,
    entries: Vec<Entry>,
}

impl Lagging {
    fn committed_count(&self) -> usize {
        usize::try_from(self.keys.committed.0).unwrap()
    }

    fn check(&self) {
        let mut straight = Keys::new(1);
        for count in 0..=self.entries.len() {
            if let Some(last) = count.checked_sub(1) {
                straight.commit(&self.entries[last], &mut vec![]);
            }
            let to = Position(u64::try_from(count).unwrap());
            for key in (0..4).map(key_of) {
                let expected = facts(&straight.committed(&key));
                if self.keys.committed <= to {
                    assert_eq!(facts(&self.keys.at(&key, to)), expected, "at {to}");
                }
                if to == self.keys.committed {
                    assert_eq!(facts(&self.keys.committed(&key)), expected);
                    assert_eq!(self.keys.record_of(&key), straight.record_of(&key));
                }
                if count == self.entries.len() {
                    assert_eq!(facts(&self.keys.newest(&key)), expected);
                }
            }
        }
        self.keys.check_counters();
    }
}

proptest! {
    #[test]
    fn every_state_is_that_of_the_entries_up_to_its_position(
        steps in vec(any_step(), 1..40),
    ) {
        let mut here = Lagging { keys: Keys::new(1), entries: vec![] };
        let mut elsewhere = Replica::new();
        for (number, step) in (1_u64..).zip(steps) {
            let (key, kind, deadline, is_elsewhere, commit_count, cut) = step;
            let (key, wall) = (key_of(key), 1000 + number);
            let value = [b'v'].repeat(usize::try_from(number).unwrap());
            let operation = Operation { key: &key, action: action_of(kind, &value, deadline) };
            let keys = if is_elsewhere { &elsewhere.keys } else { &here.keys };
            let executed = execute(keys, &operation, wall);
            let effects: Vec<_> =
                executed.effects.iter().map(|effect| effect.as_effect()).collect();
            if !effects.is_empty() {
                let position = u64::try_from(here.entries.len()).unwrap() + 1;
                let origin = if is_elsewhere { 2 } else { 1 };
                let new = entry(position, version(wall, origin), &effects);
                here.keys.add_dirty(&new);
                here.entries.push(new);
                elsewhere.position += 1;
                let there = entry(elsewhere.position, version(wall, origin), &effects);
                if is_elsewhere {
                    elsewhere.commit(Some(&there));
                }
            }
            for _ in 0..commit_count {
                if let Some(next) = here.entries.get(here.committed_count()) {
                    here.keys.commit(next, &mut vec![]);
                }
            }
            // Entries from elsewhere come again after a cut, which this test leaves out.
            if let Some(kept) = cut.filter(|_| !is_elsewhere) {
                let from = here.keys.committed.0 + 1 + kept;
                let is_local = |entry: &Entry| entry.origin.0 == 1;
                let first = usize::try_from(from - 1).unwrap();
                if here.entries.iter().skip(first).all(is_local) {
                    here.keys.cut_dirty(Position(from));
                    here.entries.truncate(first);
                }
            }
            here.check();
        }
    }
}

fn set_of(position: u64, key: &[u8], value: &[u8], deadline: Option<u64>) -> Entry {
    let effect = Effect { key, seen: Seen::new(), change: set(value, deadline) };
    entry(position, version(position, 1), &[effect])
}

#[test]
fn a_dirty_time_to_live_copies_no_value() {
    let mut keys = Keys::new(1);
    keys.commit(&set_of(1, b"k", &[5; 1000], None), &mut vec![]);
    let ttl = Effect {
        key: b"k",
        seen: keys.newest(b"k").seen(),
        change: Change::Ttl { deadline: Some(9) },
    };
    keys.add_dirty(&entry(2, version(2, 1), &[ttl]));
    assert_eq!(keys.newest_dirty(b"k"), Some(Position(2)));
    assert_eq!(keys.newest(b"k").deadline(), Some(9));
    assert_eq!(keys.committed(b"k").deadline(), None);
    let (newest, committed) = (keys.newest(b"k"), keys.committed(b"k"));
    assert!(std::ptr::eq(bytes_of(&newest).unwrap(), bytes_of(&committed).unwrap()));
    let over = set_of(3, b"k", b"new", None);
    keys.add_dirty(&over);
    let Body::Write(body) = &over.body else { panic!("a write") };
    assert!(body.as_ptr_range().contains(&bytes_of(&keys.newest(b"k")).unwrap().as_ptr()));
}

#[test]
fn a_value_of_the_same_size_takes_the_place_of_the_old_one() {
    let mut keys = Keys::new(1);
    keys.commit(&set_of(1, b"k", b"abc", None), &mut vec![]);
    let place = keys.record_of(b"k").unwrap().as_ptr();
    keys.commit(&set_of(2, b"k", b"xyz", None), &mut vec![]);
    assert_eq!(keys.record_of(b"k").unwrap().as_ptr(), place);
    assert_eq!(bytes_of(&keys.committed(b"k")), Some(&b"xyz"[..]));
}

#[test]
fn a_conflict_is_told_once_and_when_it_is_committed() {
    let mut keys = Keys::new(1);
    let entries = [
        set_of(1, b"k", b"mine", None),
        entry(
            2,
            version(9, 2),
            &[Effect { key: b"k", seen: Seen::new(), change: set(b"theirs", None) }],
        ),
    ];
    for entry in &entries {
        keys.add_dirty(entry);
    }
    let conflicts = keys.commit_all(&entries);
    let expected = Conflict { key: b"k"[..].into(), loser: version(1, 1), winner: version(9, 2) };
    assert_eq!(conflicts, [expected]);
    assert_eq!(keys.dirty_count(), 0);
}

#[test]
fn tombstones_go_when_they_may_and_only_as_they_were() {
    let mut replica = Replica::new();
    for key in [b"a", b"b", b"c"] {
        replica.run(key, action_of(0, b"v", 0));
        replica.run(key, Action::Delete);
    }
    replica.run(b"b", action_of(0, b"again", 0));
    assert_eq!((replica.keys.live_count(), replica.keys.tombstone_count()), (1, 2));
    let tombstone_of_a = replica.keys.committed(b"a").version().unwrap();
    assert_eq!(replica.keys.collect(|version| version <= tombstone_of_a, 10), 1);
    assert_eq!(replica.keys.committed(b"a").version(), None);
    assert!(replica.keys.committed(b"c").version().is_some());
    assert_eq!(replica.keys.collect(|_| true, 1), 0, "the tombstone of b was written over");
    assert_eq!(replica.keys.collect(|_| true, 1), 1);
    assert_eq!((replica.keys.live_count(), replica.keys.tombstone_count()), (1, 0));
    assert_eq!(bytes_of(&replica.keys.committed(b"b")), Some(&b"again"[..]));
    replica.keys.check_counters();
}

#[test]
fn a_hidden_value_is_collected_and_a_dirty_one_is_not() {
    let mut replica = Replica::new();
    replica.run(b"k", action_of(2, b"v", 1001));
    replica.wall_millis = 2000;
    assert_eq!(replica.run(b"k", Action::Get), antecede_model::response::Response::Nil);
    assert_eq!((replica.keys.live_count(), replica.keys.tombstone_count()), (0, 1));
    let next = set_of(replica.position + 1, b"k", b"new", None);
    replica.keys.add_dirty(&next);
    assert_eq!(replica.keys.collect(|_| true, 10), 0);
    replica.keys.cut_dirty(next.identity.position);
    assert_eq!(replica.keys.collect(|_| true, 10), 1);
    assert_eq!(replica.keys.record_of(b"k"), None);
    replica.keys.check_counters();
}

#[test]
fn expired_keys_are_told_earliest_first_until_a_hiding_is_under_way() {
    let mut keys = Keys::new(1);
    for (position, (key, deadline)) in
        (1..).zip([(b"late", 30), (b"soon", 10), (b"then", 20), (b"last", 99)])
    {
        keys.commit(&set_of(position, key, b"v", Some(deadline)), &mut vec![]);
    }
    assert_eq!(keys.ttl_count(), 4);
    assert_eq!(keys.expired(10, 9), Vec::<Box<[u8]>>::new(), "a deadline is the last moment");
    assert_eq!(keys.expired(31, 2), [Box::from(&b"soon"[..]), Box::from(&b"then"[..])]);
    let hide = hide_effect(b"soon", &keys.newest(b"soon"), 31).unwrap();
    let hide = entry(5, version(5, 1), &[hide.as_effect()]);
    keys.add_dirty(&hide);
    assert_eq!(keys.expired(31, 1), [Box::from(&b"then"[..])]);
    keys.commit(&hide, &mut vec![]);
    assert_eq!((keys.ttl_count(), keys.live_count(), keys.tombstone_count()), (3, 3, 1));
    keys.check_counters();
}

#[test]
fn keys_with_one_hash_are_apart_and_told_in_one_step() {
    let mut keys = Keys::new(1);
    for (position, key) in (1..).zip([b"a", b"b", b"c"]) {
        let entry = set_of(position, key, b"v", Some(10));
        let hash = if key == b"c" { 8 } else { 4 };
        entry.for_each_effect(|effect| {
            keys.commit_effect(hash, &entry, &effect);
        });
    }
    assert_eq!(keys.deadlines.len(), 2);
    let (next, first) = keys.scan(0, 1, None, 0);
    assert_eq!((next, first), (Some(8), vec![&b"a"[..], b"b"]));
    assert_eq!(keys.scan(8, 1, None, 0), (None, vec![&b"c"[..]]));
    let effect = Effect { key: b"a", seen: Seen::new(), change: Change::Delete };
    let delete = entry(4, version(4, 1), &[effect]);
    delete.for_each_effect(|effect| {
        keys.commit_effect(4, &delete, &effect);
    });
    assert_eq!(keys.deadlines.len(), 2, "b still expires at the same time");
    assert_eq!(keys.collect(|_| true, 1), 1);
    assert_eq!(keys.scan(0, 9, None, 0), (None, vec![&b"b"[..], b"c"]));
}

#[test]
fn a_scan_in_steps_tells_every_key_that_is_there_once() {
    let mut replica = Replica::new();
    for number in 0..100_u8 {
        replica.run(&key_of(number), action_of(if number < 90 { 0 } else { 2 }, b"v", 1001));
    }
    for number in 0..10 {
        replica.run(&key_of(number), Action::Delete);
    }
    for count in [0, 1, 7, 1000] {
        let mut found = BTreeSet::new();
        let mut from = Some(0);
        while let Some(hash) = from {
            let (next, keys) = replica.keys.scan(hash, count, Some(b"k-*"), 5000);
            assert!(next.is_none_or(|next| hash < next));
            for key in keys {
                assert!(found.insert(key.to_vec()), "{key:?} was told twice");
            }
            from = next;
        }
        let expected = (10..90).map(|number| key_of(number).to_vec());
        assert_eq!(found, expected.collect());
    }
    assert_eq!(replica.keys.scan(0, 1000, Some(b"k-[!A]"), 5000).1.len(), 2);
}

#[test]
fn a_pattern_that_takes_too_long_ends_the_step_and_does_not_match() {
    let mut keys = Keys::new(1);
    let long = vec![b'a'; 20_000];
    keys.commit(&set_of(1, &long, b"v", None), &mut vec![]);
    keys.commit(&set_of(2, b"b", b"v", None), &mut vec![]);
    let pattern = [&b"*"[..], &vec![b'a'; 5000], b"b"].concat();
    let first = keys.hash(&long).min(keys.hash(b"b"));
    let last = keys.hash(&long).max(keys.hash(b"b"));
    let (next, found) = keys.scan(0, 10, Some(&pattern), 0);
    let expected = if first == keys.hash(&long) { Some(last) } else { None };
    assert_eq!((next, found), (expected, vec![]));
}

#[test]
fn a_random_key_is_one_that_is_there() {
    let mut replica = Replica::new();
    assert_eq!(replica.keys.random(u64::MAX, 0), None);
    for number in 0..4 {
        replica.run(&key_of(number), action_of(if number == 3 { 2 } else { 0 }, b"v", 1001));
    }
    replica.run(&key_of(0), Action::Delete);
    let draws = (0..64).map(|draw| draw << 58 | 7);
    let drawn: BTreeSet<_> = draws.filter_map(|draw| replica.keys.random(draw, 5000)).collect();
    assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [key_of(1), key_of(2)]);
}

#[test]
fn entries_without_effects_are_counted() {
    let mut keys = Keys::new(1);
    let tick = Entry { body: Body::Tick, ..set_of(1, b"k", b"v", None) };
    keys.add_dirty(&tick);
    keys.commit(&tick, &mut vec![]);
    assert_eq!((keys.committed_to(), keys.live_count()), (Position(1), 0));
}

#[test]
#[should_panic(expected = "entries are committed once, and in order")]
fn an_entry_is_not_committed_twice() {
    let mut keys = Keys::new(1);
    let once = set_of(1, b"k", b"v", None);
    keys.commit_all(&[once.clone(), once]);
}

#[test]
fn memory_for_a_key_stays_within_bounds() {
    let mut keys = Keys::new(1);
    for position in 1..=50_000_u64 {
        let key = [position.to_be_bytes(), [0; 8]].concat();
        keys.commit(&set_of(position, &key, &[7; 128], None), &mut vec![]);
        let bytes = keys.used_bytes() / usize::try_from(position).unwrap();
        assert!(position < 1000 || bytes <= 156 + 44, "{bytes} bytes for each of {position}");
    }
}

/// Keys that apply a log from the first entry on, beside some that began later with a copy of these.
struct Copying {
    source: Keys,
    copy: Option<Keys>,
}

/// More than one part holds.
const COPIED_KEYS: u8 = 12;

impl Copying {
    /// Begins a copy where the source stands.
    fn begin(&mut self) {
        let (shown_to, collected_to) = self.source.shown_and_collected_to();
        let identity = entry(self.source.committed.0, version(1, 1), &[]).identity;
        let last = (self.source.committed != Position(0)).then_some(identity);
        let start =
            Start { last, lines: vec![], shown_to, collected_to, retries: Remembered::default() };
        let mut copy = Keys::new(self.source.secret);
        copy.copy_from(&start);
        self.copy = Some(copy);
    }

    fn take_part(&mut self, bytes_max: usize) {
        let Some(copy) = &mut self.copy else { return };
        let Some(from) = copy.frontier() else { return };
        let part = self.source.part(from, bytes_max).unwrap();
        let is_bounded =
            part.records.iter().rev().skip(1).map(|record| record.len()).sum::<usize>()
                < bytes_max.max(1);
        assert!(is_bounded, "{bytes_max} bytes were wanted of {part:?}");
        let elsewhere = Part { from: from.wrapping_add(1), ..part.clone() };
        assert!(!copy.install(&elsewhere), "it is not the next one");
        assert!(copy.install(&part));
        assert_eq!(copy.frontier(), part.next);
        assert!(!copy.install(&part), "it was taken before");
    }

    fn commit(&mut self, entry: &Entry, is_dirty_first: bool) {
        self.source.commit(entry, &mut vec![]);
        if let Some(copy) = &mut self.copy {
            if is_dirty_first {
                copy.add_dirty(entry);
            }
            copy.commit(entry, &mut vec![]);
        }
    }

    fn collect(&mut self) {
        self.source.collect(|_| true, usize::MAX);
        if let Some(copy) = &mut self.copy {
            copy.collect(|_| true, usize::MAX);
        }
    }

    /// Everything before the frontier is there as it is in the source, and nothing behind it.
    fn check(&self) {
        let Some(copy) = &self.copy else { return };
        copy.check_counters();
        for key in (0..COPIED_KEYS).map(key_of) {
            let is_copied = copy.frontier().is_none_or(|frontier| copy.hash(&key) < frontier);
            let wanted = self.source.record_of(&key).filter(|_| is_copied);
            assert_eq!(copy.record_of(&key), wanted, "{key:?}, {:?}", copy.frontier());
        }
    }

    fn check_whole(&self) {
        let Some(copy) = &self.copy else { return };
        let source = &self.source;
        let counts =
            |keys: &Keys| (keys.live_count, keys.gone_count, keys.ttl_count, keys.record_bytes);
        assert_eq!(counts(copy), counts(source));
        assert_eq!(copy.deadlines, source.deadlines);
        assert_eq!(copy.part(0, usize::MAX).unwrap(), source.part(0, usize::MAX).unwrap());
        assert_eq!(copy.committed_to(), source.committed_to());
        assert_eq!(copy.shown_to, source.shown_to);
        assert_eq!(copy.expired(1040, usize::MAX), source.expired(1040, usize::MAX));
        assert_eq!(copy.scan(0, 99, None, 1040), source.scan(0, 99, None, 1040));
    }
}

proptest! {
    /// Parts of any size are taken at any positions, with entries before, between and behind them.
    #[test]
    fn keys_that_were_copied_in_parts_are_those_of_all_entries(
        steps in vec((0..COPIED_KEYS, 0_u8..10, 1000_u64..1060, any::<bool>(), 0_u8..8), 1..80),
        begin_at in any::<prop::sample::Index>(),
        bytes in vec(0_usize..300, 1..9),
    ) {
        let mut here = Copying { source: Keys::new(1), copy: None };
        let mut elsewhere = Replica::new();
        let begin_at = begin_at.index(steps.len());
        let mut bytes = bytes.into_iter().cycle();
        for (number, step) in (0_u64..).zip(steps) {
            if number == u64::try_from(begin_at).unwrap() {
                here.begin();
            }
            let (key, kind, deadline, is_elsewhere, moment) = step;
            let (key, wall) = (key_of(key), 1000 + number);
            let value = [b'v'].repeat(usize::try_from(number).unwrap());
            let operation = Operation { key: &key, action: action_of(kind, &value, deadline) };
            let keys = if is_elsewhere { &elsewhere.keys } else { &here.source };
            let executed = execute(keys, &operation, wall);
            let effects: Vec<_> =
                executed.effects.iter().map(|effect| effect.as_effect()).collect();
            if !effects.is_empty() {
                let origin = if is_elsewhere { 2 } else { 1 };
                let position = here.source.committed.0 + 1;
                let new = entry(position, version(wall, origin), &effects);
                elsewhere.position += 1;
                let there = entry(elsewhere.position, version(wall, origin), &effects);
                if is_elsewhere {
                    elsewhere.commit(Some(&there));
                }
                here.commit(&new, moment.is_multiple_of(2));
            }
            match moment {
                0..3 => here.take_part(bytes.next().unwrap()),
                3 => here.collect(),
                _ => {}
            }
            here.check();
        }
        while here.copy.as_ref().is_some_and(|copy| copy.frontier().is_some()) {
            here.take_part(bytes.next().unwrap());
            here.check();
        }
        here.check_whole();
        here.collect();
        here.check_whole();
        prop_assert_eq!(here.source.tombstone_count(), 0);
    }
}

#[test]
fn a_part_ends_between_hashes_and_holds_one_key_at_least() {
    let mut keys = Keys::new(1);
    for (position, key) in (1..).zip([b"a", b"b", b"c"]) {
        let entry = set_of(position, key, &[b'v'; 100], None);
        let hash = if key == b"c" { 8 } else { 4 };
        entry.for_each_effect(|effect| {
            keys.commit_effect(hash, &entry, &effect);
        });
    }
    let part = keys.part(0, 1).unwrap();
    assert_eq!((part.records.len(), part.next), (2, Some(8)), "keys of one hash stay together");
    assert_eq!(
        keys.part(8, 0).unwrap(),
        Part { from: 8, next: None, records: part_of(&keys, b"c") }
    );
    assert_eq!(keys.part(10, 100).unwrap(), Part { from: 10, next: None, records: vec![] });
}

fn part_of(keys: &Keys, key: &[u8]) -> Vec<Box<[u8]>> {
    let all = keys.part(0, usize::MAX).unwrap().records;
    all.into_iter().filter(|record| record::key(record) == key).collect()
}

#[test]
fn a_part_does_not_write_over_what_is_newer_nor_bring_keys_of_other_hashes() {
    let mut keys = Keys::new(1);
    for (position, key) in (1..).zip([b"a", b"b", b"c"]) {
        keys.commit(&set_of(position, key, b"v", None), &mut vec![]);
    }
    let whole = keys.part(0, usize::MAX).unwrap();
    let first_hash = keys.hash(record::key(&whole.records[0]));
    let mut copy = Keys::new(1);
    copy.copy_from(&Start::default());
    assert!(copy.install(&Part { next: Some(first_hash + 1), ..whole.clone() }));
    assert_eq!((copy.live_count(), copy.frontier()), (1, Some(first_hash + 1)));
    let first: Box<[u8]> = record::key(&whole.records[0]).into();
    copy.commit(&set_of(4, &first, b"newer", None), &mut vec![]);
    assert!(copy.install(&Part { from: first_hash + 1, ..whole }));
    assert_eq!(bytes_of(&copy.committed(&first)), Some(&b"newer"[..]));
    assert_eq!((copy.live_count(), copy.frontier()), (3, None));
    copy.check_counters();
}

#[test]
fn what_is_gone_is_collected_in_the_order_of_versions_after_a_copy() {
    let mut replica = Replica::new();
    let keys = (0..COPIED_KEYS).map(key_of);
    for key in keys {
        replica.run(&key, action_of(0, b"v", 0));
        replica.run(&key, Action::Delete);
    }
    let secret = replica.keys.secret;
    let mut copy = Keys::new(secret);
    copy.copy_from(&Start::default());
    while let Some(from) = copy.frontier() {
        assert!(copy.install(&replica.keys.part(from, 1).unwrap()));
    }
    for number in 0..COPIED_KEYS {
        let tombstone = copy.committed(&key_of(number)).version().unwrap();
        assert_eq!(copy.collect(|version| version <= tombstone, 10), 1, "of key {number}");
    }
    assert_eq!(copy.tombstone_count(), 0);
    copy.check_counters();
}

#[test]
fn a_key_that_came_and_went_while_it_was_copied_has_changed() {
    let mut source = Keys::new(1);
    source.commit(&set_of(1, b"other", b"v", None), &mut vec![]);
    let sighting = source.sighting(&source.newest(b"k"), 0);
    let (shown_to, collected_to) = source.shown_and_collected_to();
    let last = Some(set_of(1, b"other", b"v", None).identity);
    let mut copy = Keys::new(1);
    copy.copy_from(&Start {
        last,
        lines: vec![],
        shown_to,
        collected_to,
        retries: Remembered::default(),
    });
    let effect = Effect { key: b"k", seen: Seen::new(), change: Change::Delete };
    let entries = [set_of(2, b"k", b"v", None), entry(3, version(3, 1), &[effect])];
    source.commit_all(&entries);
    copy.commit_all(&entries);
    assert_eq!(source.collect(|_| true, 9), 1);
    assert!(copy.install(&source.part(0, usize::MAX).unwrap()));
    assert!(source.has_changed(b"k", &source.newest(b"k"), sighting, 0));
    assert!(copy.has_changed(b"k", &copy.newest(b"k"), sighting, 0));
}
