//! What every store must do, checked against a simulated and a real one.

use std::ops::ControlFlow;

use antecede_model::ids::ShardId;
use antecede_storage::checkpoint::{CheckpointBatch, CheckpointError, CheckpointStore};

use super::{
    Change, Model, Subject, apply, contents, meta, on_every_store, on_this_machine, put, scan,
};
use crate::scene::Draw;

fn write(subject: &dyn Subject, model: &mut Model, changes: &[Change]) {
    let batch = apply(model, changes);
    subject.store().write(&batch).unwrap();
}

/// A key out of few, so that keys are written again.
fn key(draw: &mut Draw) -> Vec<u8> {
    let number = draw.below(60);
    let mut key = format!("key {number}").into_bytes();
    key.resize(key.len() + usize::try_from(number * number % 40).unwrap(), 0xff);
    if number == 0 { Vec::new() } else { key }
}

fn value(draw: &mut Draw) -> Vec<u8> {
    let length = match draw.below(20) {
        0 => 0,
        1 => 20_000,
        _ => draw.below(300),
    };
    vec![u8::try_from(draw.below(256)).unwrap(); usize::try_from(length).unwrap()]
}

pub(super) fn changes(draw: &mut Draw) -> Vec<Change> {
    (0..draw.below(40))
        .map(|_| {
            let shard = ShardId(u16::try_from(draw.below(4) * 300).unwrap());
            match draw.below(20) {
                0 => Change::Reset(shard),
                1 | 2 => Change::Meta(shard, value(draw)),
                3..=6 => Change::Remove(shard, key(draw)),
                _ => Change::Put(shard, key(draw), value(draw)),
            }
        })
        .collect()
}

fn any_batches_are_read_back(mut subject: Box<dyn Subject>) {
    let mut model = Model::new();
    let mut draw = Draw(5);
    for round in 0..60 {
        write(&*subject, &mut model, &changes(&mut draw));
        if round % 7 == 0 {
            subject = subject.reopen();
        }
        assert!(contents(subject.store()) == model, "round {round}");
    }
    let store = subject.store();
    let mut absent_count = 0;
    for (shard, (records, _)) in &model {
        for _ in 0..60 {
            let key = key(&mut draw);
            let found = store.get(*shard, &key).unwrap();
            absent_count += u32::from(found.is_none());
            assert_eq!(found.as_ref(), records.get(&key));
        }
    }
    assert!(10 < absent_count, "only {absent_count} keys were absent");
}

#[test]
fn any_batches_are_read_back_also_after_a_restart() {
    on_every_store(any_batches_are_read_back);
}

#[test]
fn batches_are_read_back_from_this_machine_s_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = on_this_machine(&folder);
    let mut model = Model::new();
    let mut draw = Draw(6);
    for round in 0..30 {
        store.write(&apply(&mut model, &changes(&mut draw))).unwrap();
        if round % 5 == 0 {
            drop(store);
            store = on_this_machine(&folder);
        }
        assert!(contents(&store) == model, "round {round}");
    }
}

#[test]
fn an_empty_store_has_nothing() {
    on_every_store(|subject| {
        let store = subject.store();
        assert_eq!(store.shards().unwrap(), []);
        assert_eq!(store.meta(ShardId(1)).unwrap(), None);
        assert_eq!(store.get(ShardId(1), b"a").unwrap(), None);
        assert_eq!(scan(store, ShardId(1), None).unwrap(), []);
        assert_eq!(store.count(ShardId(1)).unwrap(), 0);
        store.write(&CheckpointBatch::new()).unwrap();
        assert_eq!(store.shards().unwrap(), []);
    });
}

#[test]
fn changes_without_a_meta_keep_the_old_one() {
    on_every_store(|subject| {
        let mut model = Model::new();
        write(&*subject, &mut model, &[put(1, "a", "1"), meta(1, "at 10")]);
        write(&*subject, &mut model, &[put(1, "a", "2"), put(1, "b", "1")]);
        let subject = subject.reopen();
        assert_eq!(subject.store().meta(ShardId(1)).unwrap(), Some(b"at 10".to_vec()));
        assert_eq!(subject.store().get(ShardId(1), b"a").unwrap(), Some(b"2".to_vec()));
        write(&*subject, &mut model, &[meta(1, "at 20")]);
        assert_eq!(contents(subject.store()), model);
    });
}

#[test]
fn a_reset_drops_one_shard_with_its_meta_and_no_other() {
    on_every_store(|subject| {
        let mut model = Model::new();
        let both = [put(1, "a", "1"), meta(1, "m"), put(2, "a", "2"), meta(2, "n")];
        write(&*subject, &mut model, &both);
        write(&*subject, &mut model, &[Change::Reset(ShardId(1))]);
        assert_eq!(subject.store().shards().unwrap(), [ShardId(2)]);
        assert_eq!(subject.store().meta(ShardId(1)).unwrap(), None);
        assert_eq!(subject.store().get(ShardId(1), b"a").unwrap(), None);
        write(&*subject, &mut model, &[Change::Reset(ShardId(2)), put(2, "b", "3")]);
        let subject = subject.reopen();
        assert_eq!(subject.store().meta(ShardId(2)).unwrap(), None, "a new one has begun");
        assert_eq!(contents(subject.store()), model);
    });
}

#[test]
fn a_scan_is_in_order_begins_behind_a_key_and_breaks_off() {
    on_every_store(|subject| {
        let mut model = Model::new();
        let changes: Vec<Change> =
            (0..500).map(|n| put(1, &format!("{:03}", n * 7 % 500), "v")).collect();
        write(&*subject, &mut model, &changes);
        let store = subject.store();
        let all = scan(store, ShardId(1), None).unwrap();
        assert!(all.is_sorted());
        assert_eq!(all.len(), 500);
        assert_eq!(scan(store, ShardId(1), Some(b"399")).unwrap(), all[400..]);
        assert_eq!(scan(store, ShardId(1), Some(b"3999")).unwrap(), all[400..]);
        assert_eq!(scan(store, ShardId(1), Some(b"499")).unwrap(), []);
        let mut seen = 0;
        store
            .scan(ShardId(1), None, &mut |_, _| {
                seen += 1;
                if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(seen, 3);
    });
}

#[test]
fn a_scan_shows_one_moment_while_others_write_and_read() {
    on_every_store(|subject| {
        let mut model = Model::new();
        write(&*subject, &mut model, &[put(1, "a", "1"), put(1, "b", "1"), meta(1, "m")]);
        let store = subject.store();
        let mut seen = Vec::new();
        store
            .scan(ShardId(1), None, &mut |key, value| {
                if seen.is_empty() {
                    let later = [put(1, "b", "2"), put(1, "c", "2")];
                    store.write(&apply(&mut model, &later)).unwrap();
                    assert_eq!(store.get(ShardId(1), b"b").unwrap(), Some(b"2".to_vec()));
                }
                seen.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        let before = [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"1".to_vec())];
        assert_eq!(seen, before);
        assert_eq!(contents(store), model);
    });
}

#[test]
fn a_full_disk_refuses_a_batch_reads_go_on_and_it_heals() {
    on_every_store(|subject| {
        let mut model = Model::new();
        let many = |value: &str| -> Vec<Change> {
            (0..400).map(|n| put(1, &format!("{n}"), &value.repeat(200))).collect()
        };
        write(&*subject, &mut model, &many("a"));
        let before = model.clone();
        subject.set_full(true);
        let store = subject.store();
        let more: Vec<Change> = many("b").into_iter().chain([put(2, "new", "x")]).collect();
        let large = Change::Put(ShardId(2), b"large".to_vec(), vec![7; 3 << 20]);
        let batch = apply(&mut model, &[more, vec![large, meta(1, "later")]].concat());
        for _ in 0..3 {
            let error = store.write(&batch).unwrap_err();
            assert!(matches!(error, CheckpointError::DiskFull { .. }), "{error:?}");
            assert!(contents(store) == before, "reads go on with what was there");
        }
        subject.set_full(false);
        store.write(&batch).unwrap();
        assert!(contents(store) == model);
        assert!(contents(subject.reopen().store()) == model);
    });
}

#[test]
fn a_failed_sync_is_final() {
    on_every_store(|subject| {
        let mut model = Model::new();
        write(&*subject, &mut model, &[put(1, "a", "1"), meta(1, "m")]);
        let before = model.clone();
        subject.fail();
        let batch = apply(&mut model, &[put(1, "a", "2"), meta(1, "n")]);
        for _ in 0..3 {
            let error = subject.store().write(&batch).unwrap_err();
            assert!(matches!(error, CheckpointError::Failed { .. }), "{error:?}");
        }
        let after = contents(subject.reopen().store());
        assert!(after == before || after == model, "part of a batch: {after:?}");
    });
}

#[test]
fn a_damaged_value_is_an_error_that_names_shard_and_key() {
    on_every_store(|subject| {
        let mut model = Model::new();
        let sound = "sound".repeat(10);
        let unlike = "like no other value".to_owned();
        let changes = [put(3, "a", &sound), put(3, "b", &unlike), put(3, "c", &sound)];
        write(&*subject, &mut model, &changes);
        let subject = subject.damage(ShardId(3), b"b", unlike.as_bytes());
        let store = subject.store();
        let is_named = |error: CheckpointError| {
            let CheckpointError::CorruptRecord { shard, key, .. } = &error else {
                panic!("{error:?}");
            };
            assert_eq!((*shard, key.as_slice()), (ShardId(3), b"b".as_slice()));
            assert!(error.to_string().contains("key b in shard 3"), "{error}");
        };
        is_named(store.get(ShardId(3), b"b").unwrap_err());
        is_named(scan(store, ShardId(3), None).unwrap_err());
        assert_eq!(store.get(ShardId(3), b"a").unwrap(), Some(sound.clone().into_bytes()));
        assert_eq!(store.get(ShardId(3), b"c").unwrap(), Some(sound.into_bytes()));
        // The tally cannot be kept without it; a reset makes the shard whole again.
        is_named(store.write(&apply(&mut model, &[put(3, "b", "new")])).unwrap_err());
        model.clear();
        write(&*subject, &mut model, &[Change::Reset(ShardId(3)), put(3, "b", "new")]);
        assert_eq!(contents(subject.store()), model);
    });
}
