//! The thread that writes checkpoints, and that nobody waits for it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use antecede_model::ids::ShardId;
use antecede_storage::checkpoint::{
    CheckpointBatch, CheckpointError, CheckpointNotice, CheckpointOptions, CheckpointStore,
    CheckpointWriter, Pace, RealCheckpoints, SimulatedCheckpoints, Visit, WriterOptions,
};
use antecede_storage::{Clock, MachineClock, SimulatedDisk};
use parking_lot::{Condvar, Mutex};

use super::{DEADLINE, Model, apply, contents, options, put};
use crate::scene::NODE_1;

#[derive(Default)]
struct Told {
    notices: Mutex<Vec<CheckpointNotice>>,
    changed: Condvar,
}

impl Told {
    fn wait_for(&self, what: &str, mut found: impl FnMut(&CheckpointNotice) -> bool) {
        let mut notices = self.notices.lock();
        while !notices.iter().any(&mut found) {
            let waited = self.changed.wait_for(&mut notices, DEADLINE);
            assert!(!waited.timed_out(), "never told: {what}; told {notices:?}");
        }
    }

    fn wait_for_written(&self, number: u64) {
        self.wait_for("written", |n| matches!(n, CheckpointNotice::Written(n) if *n == number));
    }
}

const WRITER: WriterOptions =
    WriterOptions { queued_bytes_max: 1000, retry_interval: Duration::from_millis(5) };

fn start(store: Arc<dyn CheckpointStore>) -> (CheckpointWriter, Arc<Told>) {
    let told = Arc::new(Told::default());
    let writer = CheckpointWriter::start(store, WRITER, {
        let told = Arc::clone(&told);
        move |notice| {
            told.notices.lock().push(notice);
            told.changed.notify_all();
        }
    });
    (writer.unwrap(), told)
}

fn batch(key: &str, bytes: usize) -> CheckpointBatch {
    apply(&mut Model::new(), &[put(1, key, &"v".repeat(bytes))])
}

/// A store whose writes can be held up.
#[derive(Debug, Default)]
struct Held {
    store: SimulatedCheckpoints,
    is_held: Mutex<bool>,
    changed: Condvar,
}

impl Held {
    fn hold(&self, is_held: bool) {
        *self.is_held.lock() = is_held;
        self.changed.notify_all();
    }
}

impl CheckpointStore for Held {
    fn write(&self, batch: &CheckpointBatch) -> Result<(), CheckpointError> {
        let mut is_held = self.is_held.lock();
        while *is_held {
            assert!(!self.changed.wait_for(&mut is_held, DEADLINE).timed_out(), "held for ever");
        }
        self.store.write(batch)
    }
    fn shards(&self) -> Result<Vec<ShardId>, CheckpointError> {
        self.store.shards()
    }
    fn meta(&self, shard: ShardId) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.store.meta(shard)
    }
    fn get(&self, shard: ShardId, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.store.get(shard, key)
    }
    fn scan(&self, s: ShardId, a: Option<&[u8]>, v: Visit<'_>) -> Result<(), CheckpointError> {
        self.store.scan(s, a, v)
    }
    fn count(&self, shard: ShardId) -> Result<u64, CheckpointError> {
        self.store.count(shard)
    }
}

#[test]
fn batches_are_written_in_order_and_told_once_each() {
    let store = SimulatedCheckpoints::new();
    let (writer, told) = start(Arc::new(store.clone()));
    for n in 1..=50_u64 {
        told.wait_for_written_before(n);
        assert_eq!(writer.submit(batch("a", usize::try_from(n).unwrap())).unwrap(), n);
    }
    told.wait_for_written(50);
    let numbers: Vec<u64> = told
        .notices
        .lock()
        .iter()
        .map(|notice| {
            let CheckpointNotice::Written(number) = notice else { panic!("{notice:?}") };
            *number
        })
        .collect();
    assert!(numbers.iter().copied().eq(1..=50), "{numbers:?}");
    assert_eq!(store.get(ShardId(1), b"a").unwrap().unwrap().len(), 50);
    assert_eq!(writer.queued_bytes(), 0);
}

impl Told {
    /// Keeps at most three batches waiting.
    fn wait_for_written_before(&self, number: u64) {
        if let Some(before) = number.checked_sub(3).filter(|before| 0 < *before) {
            self.wait_for_written(before);
        }
    }
}

#[test]
fn handing_over_never_waits_and_too_much_is_given_back() {
    let store = Arc::new(Held::default());
    store.hold(true);
    let (writer, told) = start(Arc::clone(&store) as Arc<dyn CheckpointStore>);
    writer.submit(batch("larger than the limit", 5000)).unwrap();
    let refused = writer.submit(batch("b", 100)).unwrap_err();
    assert_eq!(refused.batch, batch("b", 100));
    assert!(5000 < refused.held && refused.limit == 1000);
    assert_eq!(store.get(ShardId(1), b"b").unwrap(), None, "reads go on");
    store.hold(false);
    told.wait_for_written(1);
    writer.submit(refused.batch).unwrap();
    told.wait_for_written(2);
    assert_eq!(store.get(ShardId(1), b"b").unwrap().unwrap().len(), 100);
}

#[test]
fn a_full_disk_is_told_tried_again_and_heals() {
    let store = SimulatedCheckpoints::new();
    store.set_capacity(Some(50));
    let (writer, told) = start(Arc::new(store.clone()));
    writer.submit(batch("a", 100)).unwrap();
    told.wait_for("full", |notice| matches!(notice, CheckpointNotice::DiskFull(_)));
    store.set_capacity(None);
    told.wait_for_written(1);
    told.wait_for("healed", |notice| matches!(notice, CheckpointNotice::Healed));
    let full = |notice: &&CheckpointNotice| matches!(notice, CheckpointNotice::DiskFull(_));
    assert_eq!(told.notices.lock().iter().filter(full).count(), 1, "told once");
    assert_eq!(store.get(ShardId(1), b"a").unwrap().unwrap().len(), 100);
}

#[test]
fn a_failure_ends_the_writer() {
    let store = SimulatedCheckpoints::new();
    store.fail_writes_after(1);
    let (writer, told) = start(Arc::new(store.clone()));
    writer.submit(batch("a", 1)).unwrap();
    writer.submit(batch("b", 1)).unwrap();
    writer.submit(batch("c", 1)).unwrap();
    told.wait_for("failed", |notice| {
        matches!(notice, CheckpointNotice::Failed(CheckpointError::Failed { .. }))
    });
    drop(writer);
    assert_eq!(told.notices.lock().len(), 2, "one written, one failed, and nothing behind it");
    assert_eq!(store.written_count(), 1);
}

#[test]
fn a_dropped_writer_ends_although_the_disk_is_full() {
    let store = SimulatedCheckpoints::new();
    store.set_capacity(Some(0));
    let (writer, told) = start(Arc::new(store));
    writer.submit(batch("a", 100)).unwrap();
    told.wait_for("full", |notice| matches!(notice, CheckpointNotice::DiskFull(_)));
    drop(writer);
}

#[test]
fn a_batch_is_synced_in_steps_at_the_rate_that_is_set() {
    let clock = MachineClock::start();
    let rate = 2 << 20;
    let pace = Pace { step_bytes: 32 << 10, bytes_per_second: None, clock: Arc::new(clock) };
    let write = |pace: Pace| {
        let disk = SimulatedDisk::new();
        let options = CheckpointOptions { pace, ..options() };
        let store = RealCheckpoints::open(disk.clone(), options, NODE_1).unwrap();
        let mut model = Model::new();
        let changes: Vec<_> =
            (0..500).map(|n| put(1, &format!("{n}"), &"v".repeat(1000))).collect();
        let batch = apply(&mut model, &changes);
        let (syncs, begin) = (disk.syncs(), clock.now());
        store.write(&batch).unwrap();
        let took = clock.now() - begin;
        assert_eq!(contents(&store), model);
        (disk.syncs() - syncs, took)
    };
    let (syncs, _) = write(pace.clone());
    assert!(15 < syncs, "500 kB in steps of 32 KiB took {syncs} syncs");
    let (few, _) = write(Pace { step_bytes: u64::MAX, ..pace.clone() });
    assert!(few < 8, "without steps it took {few} syncs");
    let (_, took) = write(Pace { bytes_per_second: Some(rate), ..pace });
    assert!(Duration::from_millis(200) < took, "500 kB at 2 MiB/s took {took:?}");
}

#[test]
fn reads_do_not_wait_for_a_write_that_keeps_to_its_pace() {
    let clock = MachineClock::start();
    let bytes_per_second = Some(1 << 20);
    let pace = Pace { step_bytes: 32 << 10, bytes_per_second, clock: Arc::new(clock) };
    let options = CheckpointOptions { cache_bytes: 64 << 10, pace };
    let store = RealCheckpoints::open(SimulatedDisk::new(), options, NODE_1).unwrap();
    let keys = |value: &str| -> Vec<_> {
        (0..300).map(|n| put(1, &format!("{n}"), &value.repeat(1000))).collect()
    };
    let mut model = Model::new();
    store.write(&apply(&mut model, &keys("a"))).unwrap();
    let batch = apply(&mut model, &keys("b"));
    let mut read_count = 0;
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| store.write(&batch));
        while !writing.is_finished() {
            let key = format!("{}", read_count % 300);
            let value = store.get(ShardId(1), key.as_bytes()).unwrap().unwrap();
            assert_eq!(value.len(), 1000);
            read_count += 1;
        }
        writing.join().unwrap().unwrap();
    });
    assert!(300 < read_count, "only {read_count} reads beside a write of a third of a second");
    assert_eq!(contents(&store), model);
}

#[test]
fn a_real_store_writes_behind_a_writer_while_it_is_read() {
    let store = Arc::new(RealCheckpoints::open(SimulatedDisk::new(), options(), NODE_1).unwrap());
    let (writer, told) = start(Arc::clone(&store) as Arc<dyn CheckpointStore>);
    writer.submit(batch("a", 200)).unwrap();
    told.wait_for_written(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 2..=30 {
                told.wait_for_written_before(n);
                writer.submit(batch("a", 200)).unwrap();
            }
        });
        for _ in 0..200 {
            store
                .scan(ShardId(1), None, &mut |key, value| {
                    assert_eq!((key, value.len()), (b"a".as_slice(), 200));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
    });
    told.wait_for_written(30);
}
