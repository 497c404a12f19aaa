//! Many threads on one log.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use antecede_storage::disk::{SimulatedFile, SimulatedLock};
use antecede_storage::{
    Clock, Disk, Fsync, Log, LogIndex, MachineClock, Notice, Options, RealDisk, SharedLog,
    SharedOptions, SimulatedDisk,
};
use parking_lot::{Condvar, Mutex};

use crate::scene::{NODE_1, SMALL, open, record};

/// Longer than anything here takes; a test that waits so long fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// Collects what the callback is told.
#[derive(Default)]
struct Told {
    notices: Mutex<Vec<Notice>>,
    changed: Condvar,
}

impl Told {
    fn wait_for(&self, what: &str, mut found: impl FnMut(&Notice) -> bool) {
        let mut notices = self.notices.lock();
        while !notices.iter().any(&mut found) {
            let waited = self.changed.wait_for(&mut notices, DEADLINE);
            assert!(!waited.timed_out(), "never told: {what}; told {notices:?}");
        }
    }
}

fn options(fsync: Fsync) -> SharedOptions {
    SharedOptions {
        fsync,
        retry_interval: Duration::from_millis(5),
        clock: Arc::new(MachineClock::start()),
    }
}

fn start<D: Disk>(log: Log<D>, options: SharedOptions) -> (SharedLog<D>, Arc<Told>) {
    let told = Arc::new(Told::default());
    let shared = SharedLog::start(log, options, {
        let told = Arc::clone(&told);
        move |notice| {
            told.notices.lock().push(notice);
            told.changed.notify_all();
        }
    });
    (shared.unwrap(), told)
}

/// A simulated disk whose syncs can be held up, and what the log's own thread makes ahead.
#[derive(Clone, Debug, Default)]
struct GatedDisk {
    disk: SimulatedDisk,
    gate: Arc<Gate>,
    ahead: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    held_count: usize,
}

impl Gate {
    fn close(&self) {
        self.state.lock().is_closed = true;
    }

    fn open(&self) {
        self.state.lock().is_closed = false;
        self.changed.notify_all();
    }

    fn wait_until_one_is_held(&self) {
        let mut state = self.state.lock();
        while state.held_count == 0 {
            assert!(!self.changed.wait_for(&mut state, DEADLINE).timed_out(), "nobody syncs");
        }
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.held_count += 1;
        self.changed.notify_all();
        while state.is_closed {
            assert!(!self.changed.wait_for(&mut state, DEADLINE).timed_out(), "never opened");
        }
        state.held_count -= 1;
    }
}

impl Disk for GatedDisk {
    type File = SimulatedFile;
    type Lock = SimulatedLock;

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
    fn lock(&self) -> io::Result<SimulatedLock> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        if std::thread::current().name() == Some("log") {
            self.ahead.pass();
        }
        self.disk.create(name)
    }
    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        self.disk.open(name)
    }
    fn size(&self, file: &SimulatedFile) -> io::Result<u64> {
        self.disk.size(file)
    }
    fn preallocate(&self, file: &SimulatedFile, size: u64) -> io::Result<()> {
        self.disk.preallocate(file, size)
    }
    fn truncate(&self, file: &SimulatedFile, size: u64) -> io::Result<()> {
        self.disk.truncate(file, size)
    }
    fn read_at(&self, file: &SimulatedFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(file, offset, buffer)
    }
    fn write_at(&self, file: &SimulatedFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(file, offset, bytes)
    }
    fn sync(&self, file: &SimulatedFile) -> io::Result<()> {
        // Only what was written before counts, as little as a disk may promise.
        let result = self.disk.sync(file);
        self.gate.pass();
        result
    }
    fn rename(&self, source: &str, target: &str) -> io::Result<()> {
        self.disk.rename(source, target)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

#[test]
fn what_is_appended_during_a_sync_goes_with_the_next_one() {
    let disk = GatedDisk::default();
    let (log, told) = start(open(disk.clone()).0, options(Fsync::Always));
    disk.gate.close();
    std::thread::scope(|scope| {
        log.append(&[b"first"]).unwrap();
        scope.spawn(|| log.flush_inline().unwrap());
        disk.gate.wait_until_one_is_held();
        // Neither appending nor asking waits for the sync.
        let second = log.append(&[b"second"]).unwrap();
        assert_eq!(log.flush_inline().unwrap(), None);
        assert_eq!(log.positions().synced_to, LogIndex::START);
        disk.gate.open();
        told.wait_for(
            "the second is synced",
            |notice| matches!(notice, Notice::Advanced(to) if to.synced_to == second),
        );
    });
}

#[test]
fn a_background_sync_holds_nobody_up_and_counts_only_what_was_written_before() {
    let disk = GatedDisk::default();
    let fsync = Fsync::Interval(Duration::from_millis(1));
    let (log, told) = start(open(disk.clone()).0, options(fsync));
    disk.gate.close();
    let first = log.append(&[b"first"]).unwrap();
    log.flush_inline().unwrap();
    disk.gate.wait_until_one_is_held();
    let second = log.append(&[b"second"]).unwrap();
    let positions = log.flush_inline().unwrap().expect("a sync is no flush");
    assert_eq!((positions.written_to, positions.synced_to), (second, LogIndex::START));
    disk.gate.open();
    told.wait_for(
        "the second is synced",
        |notice| matches!(notice, Notice::Advanced(to) if to.synced_to == second),
    );
    let synced: Vec<LogIndex> = told
        .notices
        .lock()
        .iter()
        .filter_map(|notice| match notice {
            Notice::Advanced(to) => Some(to.synced_to),
            Notice::DiskFull(_) | Notice::Healed | Notice::Failed(_) => None,
        })
        .collect();
    assert!(synced.contains(&first), "the first sync covers only the first record: {synced:?}");
}

/// Lets four threads append and persist 500 records each in three ways.
fn hammer(fsync: Fsync) {
    let disk = SimulatedDisk::new();
    let (log, told) = start(open(disk.clone()).0, options(fsync));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (log, told) = (&log, &told);
            scope.spawn(move || {
                for number in 0..500 {
                    let index = log.append(&[&record(thread, number)]).unwrap();
                    if number % 3 == 0 {
                        log.request_flush();
                    } else {
                        log.flush_inline().unwrap();
                    }
                    if number % 50 == 0 {
                        told.wait_for("persisted", |notice| match notice {
                            Notice::Advanced(to) => index <= to.persisted_to(fsync),
                            Notice::DiskFull(_) | Notice::Healed | Notice::Failed(_) => false,
                        });
                    }
                }
            });
        }
    });
    let last = LogIndex::new(2000);
    told.wait_for(
        "all persisted",
        |notice| matches!(notice, Notice::Advanced(to) if last <= to.persisted_to(fsync)),
    );
    assert!(last <= log.positions().persisted_to(fsync));
    let crashed = if fsync == Fsync::Always { disk.crash(1) } else { disk.reopen() };
    let (_, found, _) = open(crashed);
    assert_eq!(found.len(), 2000);
    for thread in 0..4 {
        let mine = found
            .iter()
            .filter(|found| found.starts_with(format!("generation {thread} ").as_bytes()));
        assert!(mine.eq(&(0..500).map(|n| record(thread, n)).collect::<Vec<_>>()));
    }
}

#[test]
fn every_appender_is_told_when_its_record_is_synced() {
    hammer(Fsync::Always);
}

#[test]
fn every_appender_is_told_when_its_record_is_written() {
    hammer(Fsync::Never);
    hammer(Fsync::Interval(Duration::from_millis(2)));
}

#[test]
fn an_idle_log_is_flushed_inline() {
    let disk = SimulatedDisk::new();
    let (log, _) = start(open(disk.clone()).0, options(Fsync::Always));
    let index = log.append(&[b"alone"]).unwrap();
    let positions = log.flush_inline().unwrap().expect("nobody else flushes");
    assert_eq!(positions.synced_to, index);
    assert_eq!(open(disk.crash(1)).1.len(), 1);
}

#[test]
fn many_appends_share_one_sync() {
    let disk = SimulatedDisk::new();
    let (log, told) = start(open(disk.clone()).0, options(Fsync::Always));
    let before = disk.syncs();
    log.append_many(|tail| {
        for _ in 0..10 {
            tail.append(&[b"one of ten"]).unwrap();
        }
    });
    log.request_flush();
    told.wait_for(
        "ten synced",
        |notice| matches!(notice, Notice::Advanced(to) if to.synced_to == LogIndex::new(10)),
    );
    assert_eq!(disk.syncs() - before, 1);
}

#[test]
fn written_records_are_synced_in_the_background() {
    let disk = SimulatedDisk::new();
    let fsync = Fsync::Interval(Duration::from_millis(3));
    let (log, told) = start(open(disk.clone()).0, options(fsync));
    log.append(&[b"soon on disk"]).unwrap();
    let positions = log.flush_inline().unwrap().expect("only this thread flushes");
    assert_eq!(positions.persisted_to(fsync), LogIndex::new(1));
    told.wait_for(
        "synced",
        |notice| matches!(notice, Notice::Advanced(to) if to.synced_to == LogIndex::new(1)),
    );
    assert_eq!(log.sync_lag(Duration::MAX), Duration::ZERO);
    assert_eq!(open(disk.crash(1)).1.len(), 1);
}

/// A clock that stands where it is put.
#[derive(Debug, Default)]
struct StandingClock(AtomicU64);

impl Clock for StandingClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn the_lag_of_syncs_counts_from_the_oldest_write() {
    let clock = Arc::new(StandingClock::default());
    let fsync = Fsync::Interval(Duration::from_secs(3600));
    let options = SharedOptions { clock: Arc::<StandingClock>::clone(&clock), ..options(fsync) };
    let (log, _) = start(open(SimulatedDisk::new()).0, options);
    log.sync().unwrap();
    clock.0.store(1000, Ordering::SeqCst);
    assert_eq!(log.sync_lag(clock.now()), Duration::ZERO);
    log.append(&[b"first"]).unwrap();
    log.flush_inline().unwrap();
    clock.0.store(2500, Ordering::SeqCst);
    log.append(&[b"second"]).unwrap();
    log.flush_inline().unwrap();
    clock.0.store(4000, Ordering::SeqCst);
    assert_eq!(log.sync_lag(clock.now()), Duration::from_secs(3));
    log.sync().unwrap();
    assert_eq!(log.sync_lag(clock.now()), Duration::ZERO);
}

#[test]
fn a_full_disk_heals_without_anybody_asking() {
    let disk = SimulatedDisk::new();
    let (log, told) = start(open(disk.clone()).0, options(Fsync::Always));
    disk.set_capacity(Some(8192));
    let mut count = 0;
    while log.disk_full().is_none() || log.positions().synced_to == LogIndex::new(count) {
        count += 1;
        log.append(&[&record(1, count)]).unwrap();
        log.flush_inline().unwrap();
    }
    told.wait_for("full", |notice| matches!(notice, Notice::DiskFull(_)));
    let (tried, clock) = (disk.operations(), MachineClock::start());
    while disk.operations() < tried + 10 {
        assert!(clock.now() < DEADLINE, "it is tried from time to time");
        std::thread::yield_now();
    }
    disk.set_capacity(None);
    told.wait_for("healed", |notice| matches!(notice, Notice::Healed));
    told.wait_for(
        "all synced",
        |notice| matches!(notice, Notice::Advanced(to) if to.synced_to == LogIndex::new(count)),
    );
    assert!(log.disk_full().is_none());
}

#[test]
fn a_full_disk_is_known_in_time_also_where_the_thread_that_looks_ahead_is_late() {
    let disk = GatedDisk::default();
    let (log, told) = start(open(disk.clone()).0, options(Fsync::Always));
    disk.disk.set_capacity(Some(8192));
    disk.ahead.close();
    let mut last = LogIndex::START;
    while log.disk_full().is_none() {
        assert_eq!(log.positions().synced_to, last, "waits though nobody knew of a full disk");
        last = log.append(&[&[b'x'; 100]]).unwrap();
        log.flush_inline().unwrap();
    }
    assert_eq!(log.positions().synced_to, last, "the last one that was not refused has a place");
    disk.disk.set_capacity(None);
    disk.ahead.open();
    told.wait_for("healed", |notice| matches!(notice, Notice::Healed));
}

#[test]
fn a_failed_sync_is_told_once_and_stays() {
    let disk = SimulatedDisk::new();
    let (log, told) = start(open(disk.clone()).0, options(Fsync::Always));
    disk.fail_syncs_after(0);
    log.append(&[b"lost"]).unwrap();
    log.request_flush();
    told.wait_for("failed", |notice| matches!(notice, Notice::Failed(_)));
    disk.fail_syncs_after(u64::MAX);
    assert!(log.sync().is_err());
    assert!(log.failed().is_some());
    let failures = told.notices.lock().iter().filter(|n| matches!(n, Notice::Failed(_))).count();
    assert_eq!(failures, 1);
    assert!(log.close().is_err());
}

/// Tries until it is so.
fn until<T>(what: &str, attempt: impl Fn() -> Option<T>) -> T {
    let clock = MachineClock::start();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(clock.now() < DEADLINE, "{what}: not in time");
        std::thread::yield_now();
    }
}

#[test]
fn cutting_holds_nobody_up_and_lasts() {
    let disk = GatedDisk::default();
    let (log, _) = start(open(disk.clone()).0, options(Fsync::Never));
    for number in 0..60 {
        log.append(&[&record(1, number)]).unwrap();
        log.flush_inline().unwrap();
    }
    log.sync().unwrap();
    let segments = |disk: &SimulatedDisk| -> usize {
        disk.list().unwrap().iter().filter(|name| name.ends_with(".log")).count()
    };
    let before = segments(&disk.disk);
    disk.gate.close();
    std::thread::scope(|scope| {
        let cut = scope.spawn(|| log.cut_to(LogIndex::new(30)));
        // Not the segment ahead, which may be prepared just then.
        let is_held = || disk.list().unwrap().iter().any(|name| name == "mark.tmp");
        until("the cut waits for the disk", || is_held().then_some(()));
        // Appending and writing do not wait for the cut; the log's thread may be at it for a moment.
        log.append(&[b"meanwhile"]).unwrap();
        let positions = until("it is written", || log.flush_inline().unwrap());
        assert_eq!(positions.written_to, LogIndex::new(61));
        disk.gate.open();
        cut.join().unwrap().unwrap();
    });
    let after = segments(&disk.disk);
    assert!(after + 1 < before, "of {before} segments {after} are left");
    log.cut_to(LogIndex::new(30)).unwrap(); // Again, which changes nothing.
    assert_eq!(segments(&disk.disk), after);
    assert_eq!(log.close().unwrap().synced_to, LogIndex::new(61));
    let restarted = disk.disk.crash(1);
    let mut indices = Vec::new();
    let opened = Log::open(restarted.clone(), SMALL, NODE_1, |index, _| indices.push(index.get()));
    let (log, report) = opened.unwrap();
    assert!(1 < indices[0] && indices[0] <= 31, "begins at {}", indices[0]);
    assert!(indices.iter().copied().eq(indices[0]..=61));
    assert_eq!(report.recovered_to, LogIndex::new(61));
    // A log that was cut, restarted, and is cut again to its end.
    let (log, _) = start(log, options(Fsync::Always));
    log.append(&[b"of the next run"]).unwrap();
    log.cut_to(LogIndex::new(1000)).unwrap();
    assert_eq!(log.sync().unwrap().synced_to, LogIndex::new(62));
    log.cut_to(LogIndex::new(1000)).unwrap();
    assert!(segments(&restarted) < after);
    log.close().unwrap();
    let mut found = Vec::new();
    Log::open(restarted.crash(2), SMALL, NODE_1, |_, payload| found.push(payload.to_vec()))
        .unwrap();
    assert_eq!(found, [b"of the next run".to_vec()]);
}

#[test]
fn a_closed_log_is_whole_and_clean() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(RealDisk::open(folder.path()).unwrap()).0;
    let (log, _) = start(log, options(Fsync::Never));
    for number in 0..100 {
        log.append(&[&record(1, number)]).unwrap();
    }
    let positions = log.close().unwrap();
    assert_eq!(positions.synced_to, LogIndex::new(100));
    let (_, found, report) = open(RealDisk::open(folder.path()).unwrap());
    assert_eq!((found.len(), report.torn_bytes), (100, 0));
}

#[test]
fn the_memory_variant_is_always_persisted() {
    let log = Log::<RealDisk>::memory(Options { pending_bytes_max: 1000, ..SMALL });
    let (log, _) = start(log, options(Fsync::Always));
    for number in 1..=1000 {
        let index = log.append(&[b"bytes"]).unwrap();
        assert_eq!(index, LogIndex::new(number));
        let positions = log.flush_inline().unwrap().unwrap();
        assert_eq!(positions.persisted_to(log.fsync()), index);
    }
    assert_eq!(log.close().unwrap().synced_to, LogIndex::new(1000));
}
