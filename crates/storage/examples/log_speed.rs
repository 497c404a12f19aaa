//! Measures the log on this machine: appending, writing, syncing in groups, recovering.
//!
//! `cargo run --release -p antecede-storage --example log_speed -- FOLDER` uses a folder that it
//! makes below `FOLDER` (default: the system's temporary one) and removes again.

use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use antecede_storage::{
    Clock, Fsync, Identity, Log, LogIndex, MachineClock, Notice, Options, RealDisk, SharedLog,
    SharedOptions,
};
use parking_lot::{Condvar, Mutex};

const IDENTITY: Identity = Identity { deployment: [1; 16], node: 1 };

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = base.join(format!("antecede-log-speed-{}", std::process::id()));
    let outcome = measure(&folder);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(folder: &Path) -> Outcome<()> {
    let clock = MachineClock::start();
    std::fs::create_dir_all(folder)?;
    append_only(&clock)?;
    append_only_shared(&clock)?;
    append_and_write(folder, &clock)?;
    recover(folder, &clock)?;
    append_shared(folder, &clock)?;
    sync_alone(folder, &clock)?;
    for threads in [1, 8, 50] {
        sync_in_groups(folder, &clock, threads)?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this program is for reading what it prints")]
fn report(what: &str, count: u64, took: Duration) {
    let nanoseconds = took.as_nanos() / u128::from(count);
    let per_second = u128::from(count) * 1_000_000_000 / took.as_nanos().max(1);
    println!("{what:<58} {nanoseconds:>9} ns {per_second:>10}/s");
}

fn open(folder: &Path, name: &str, fsync: Fsync) -> Outcome<Log<RealDisk>> {
    let options = Options::usual(fsync, 0x5eed);
    Ok(Log::open(RealDisk::open(&folder.join(name))?, options, IDENTITY, |_, _| {})?.0)
}

/// What the callback has told.
#[derive(Default)]
struct Persisted {
    to: Mutex<LogIndex>,
    changed: Condvar,
}

impl Persisted {
    fn wait_for(&self, index: LogIndex) {
        let mut to = self.to.lock();
        while *to < index {
            self.changed.wait(&mut to);
        }
    }
}

fn share(log: Log<RealDisk>, fsync: Fsync) -> Outcome<(SharedLog<RealDisk>, Arc<Persisted>)> {
    let persisted = Arc::new(Persisted::default());
    let options = SharedOptions {
        fsync,
        retry_interval: Duration::from_millis(100),
        clock: Arc::new(MachineClock::start()),
    };
    let told = Arc::clone(&persisted);
    let log = SharedLog::start(log, options, move |notice| {
        if let Notice::Advanced(positions) = notice {
            let mut to = told.to.lock();
            *to = positions.persisted_to(fsync).max(*to);
            told.changed.notify_all();
        }
    })?;
    Ok((log, persisted))
}

/// Only numbering and copying: the memory variant.
fn append_only(clock: &MachineClock) -> Outcome<()> {
    let payload = [7; 200];
    let mut log = Log::<RealDisk>::memory(Options::usual(Fsync::Never, 0));
    let count = 10_000_000;
    let begin = clock.now();
    for _ in 0..count {
        log.append(&[black_box(&payload)])?;
    }
    report("append 200 B, memory variant", count, clock.now() - begin);
    Ok(())
}

/// The same behind the lock of a shared log.
fn append_only_shared(clock: &MachineClock) -> Outcome<()> {
    let payload = [7; 200];
    let (log, _) = share(Log::memory(Options::usual(Fsync::Never, 0)), Fsync::Never)?;
    let count = 10_000_000;
    let begin = clock.now();
    for _ in 0..count {
        log.append(&[black_box(&payload)])?;
    }
    report("append 200 B, shared memory variant", count, clock.now() - begin);
    Ok(())
}

/// One thread, a write for each 64 records.
fn append_and_write(folder: &Path, clock: &MachineClock) -> Outcome<()> {
    let payload = [7; 200];
    let mut log = open(folder, "written", Fsync::Never)?;
    let count = 4_000_000;
    let mut appending = Duration::ZERO;
    let begin = clock.now();
    for _ in 0..count / 64 {
        let begin = clock.now();
        for _ in 0..64 {
            log.append_with(|buffer| buffer.extend_from_slice(black_box(&payload)))?;
        }
        appending += clock.now() - begin;
        log.write()?;
    }
    report("append 200 B, of that appending", count, appending);
    report("append 200 B, checksum, one write for 64", count, clock.now() - begin);
    log.sync()?;
    report("the same and one sync at the end", count, clock.now() - begin);
    Ok(())
}

fn recover(folder: &Path, clock: &MachineClock) -> Outcome<()> {
    let begin = clock.now();
    let mut sum = 0;
    let disk = RealDisk::open(&folder.join("written"))?;
    let (_, found) = Log::open(disk, Options::usual(Fsync::Never, 0), IDENTITY, |_, payload| {
        sum += payload.len();
    })?;
    black_box(sum);
    report("recover records of 200 B", found.records, clock.now() - begin);
    Ok(())
}

/// Two threads append to a shared log; one write inline for each 16 records.
fn append_shared(folder: &Path, clock: &MachineClock) -> Outcome<()> {
    let (log, _) = share(open(folder, "shared", Fsync::Never)?, Fsync::Never)?;
    let count = 1_000_000;
    for threads in [1, 2] {
        let begin = clock.now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for number in 0..count {
                        while log.append(&[&[7; 200]]).is_err() {
                            std::thread::yield_now(); // Full, because the disk stalls.
                        }
                        if number % 16 == 15 {
                            log.flush_inline().expect("the disk works");
                        }
                    }
                });
            }
        });
        let what = format!("shared, {threads} threads, never: append 200 B, write each 16");
        report(&what, count * threads, clock.now() - begin);
    }
    log.close()?;
    Ok(())
}

fn sync_alone(folder: &Path, clock: &MachineClock) -> Outcome<()> {
    let mut log = open(folder, "synced", Fsync::Always)?;
    for bytes in [200, 4096, 65_536] {
        let payload = vec![7; bytes];
        let mut took = Vec::new();
        for _ in 0..1500 {
            log.append(&[&payload])?;
            let begin = clock.now();
            log.flush()?;
            took.push(clock.now() - begin);
        }
        took.sort_unstable();
        report(&format!("one write and fdatasync of {bytes} B, p50"), 1, took[750]);
        report(&format!("one write and fdatasync of {bytes} B, p99"), 1, took[1485]);
    }
    Ok(())
}

/// Threads that each wait until their record is synced before the next.
fn sync_in_groups(folder: &Path, clock: &MachineClock, threads: u64) -> Outcome<()> {
    for inline in [true, false] {
        let (log, persisted) = share(open(folder, "grouped", Fsync::Always)?, Fsync::Always)?;
        let count = 40_000 / threads.max(8);
        let begin = clock.now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..count {
                        let index = log.append(&[&[7; 200]]).expect("the log keeps up");
                        if inline {
                            log.flush_inline().expect("the disk works");
                        } else {
                            log.request_flush();
                        }
                        persisted.wait_for(index);
                    }
                });
            }
        });
        let how = if inline { "inline" } else { "by its thread" };
        let what = format!("always, {threads} writers, flushed {how}: a write");
        report(&what, count * threads, clock.now() - begin);
        log.close()?;
    }
    Ok(())
}
