//! Measures checkpoints on this machine: writing, reading, resetting, opening again, and how long
//! syncs of the log take beside them.
//!
//! `cargo run --release -p antecede-storage --example checkpoint_speed -- FOLDER` uses a folder
//! that it makes below `FOLDER` (default: the system's temporary one) and removes again.

use std::error::Error;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use antecede_model::ids::ShardId;
use antecede_storage::checkpoint::{
    CheckpointBatch, CheckpointOptions, CheckpointStore, Pace, RealCheckpoints,
};
use antecede_storage::{Clock, Fsync, Identity, Log, MachineClock, Options, RealDisk};

const IDENTITY: Identity = Identity { deployment: [1; 16], node: 1 };
const KEYS: u64 = 1_000_000;
const SHARDS: u64 = 64;
const BATCH: u64 = 100_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = base.join(format!("antecede-checkpoint-speed-{}", std::process::id()));
    let outcome = measure(&folder);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(folder: &Path) -> Outcome<()> {
    let clock = MachineClock::start();
    let store = open(folder, &clock, 1 << 20, None)?;
    write_and_read(&store, &clock)?;
    drop(store);
    let begin = clock.now();
    drop(open(folder, &clock, 1 << 20, None)?);
    report("open again after a clean end", 1, clock.now() - begin);

    println_line("syncs of 4 KiB of the log, while checkpoints of 100,000 keys are written:");
    beside("nothing is written", folder, &clock, None)?;
    beside("as fast as it goes, one sync", folder, &clock, Some((u64::MAX, None)))?;
    beside("a sync for each MiB", folder, &clock, Some((1 << 20, None)))?;
    beside("a sync for each MiB, 64 MiB/s", folder, &clock, Some((1 << 20, Some(64 << 20))))
}

#[expect(clippy::print_stdout, reason = "this program is for reading what it prints")]
fn println_line(line: &str) {
    println!("{line}");
}

fn report(what: &str, count: u64, took: Duration) {
    let nanoseconds = took.as_nanos() / u128::from(count);
    println_line(&format!("{what:<44} {nanoseconds:>12} ns each, {took:?} in all"));
}

fn report_times(what: &str, mut times: Vec<Duration>, took: Duration) {
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    let (p50, p99, max) = (at(50), at(99), times.last().copied().unwrap_or_default());
    let slow = times.iter().filter(|time| Duration::from_millis(5) < **time).count();
    println_line(&format!(
        "{what:<36} p50 {p50:>9.1?} p99 {p99:>9.1?} max {max:>9.1?}, {slow} of {} over 5 ms; \
         the batch took {took:.2?}",
        times.len()
    ));
}

fn open(
    folder: &Path,
    clock: &MachineClock,
    step_bytes: u64,
    bytes_per_second: Option<u64>,
) -> Outcome<RealCheckpoints> {
    let pace = Pace { step_bytes, bytes_per_second, clock: Arc::new(*clock) };
    let options = CheckpointOptions { cache_bytes: 64 << 20, pace };
    Ok(RealCheckpoints::open(RealDisk::open(&folder.join("checkpoint"))?, options, IDENTITY)?)
}

/// Mixes the bits of a number (the splitmix64 generator).
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key(number: u64) -> Outcome<(ShardId, Vec<u8>)> {
    let shard = ShardId(u16::try_from(mix(number) % SHARDS)?);
    Ok((shard, [mix(number).to_be_bytes(), number.to_be_bytes()].concat()))
}

fn batch(numbers: impl Iterator<Item = u64>, generation: u64) -> Outcome<CheckpointBatch> {
    let mut batch = CheckpointBatch::new();
    for number in numbers {
        let (shard, key) = key(number)?;
        batch.put(shard, key, mix(number ^ generation).to_le_bytes().repeat(16));
        batch.set_meta(shard, generation.to_le_bytes().to_vec());
    }
    Ok(batch)
}

fn some_keys(round: u64) -> impl Iterator<Item = u64> {
    (0..BATCH).map(move |n| mix(round << 32 ^ n) % KEYS)
}

fn write_and_read(store: &RealCheckpoints, clock: &MachineClock) -> Outcome<()> {
    let mut took = Duration::ZERO;
    for first in (0..KEYS).step_by(usize::try_from(BATCH)?) {
        let batch = batch(first..first + BATCH, 0)?;
        let begin = clock.now();
        store.write(&batch)?;
        took += clock.now() - begin;
    }
    report("write new keys, 100,000 in a batch", KEYS, took);
    let mut took = Duration::ZERO;
    for round in 1..=5 {
        let batch = batch(some_keys(round), round)?;
        let begin = clock.now();
        store.write(&batch)?;
        took += clock.now() - begin;
    }
    report("write changed keys, 100,000 in a batch", 5 * BATCH, took);
    let begin = clock.now();
    for number in some_keys(99) {
        let (shard, key) = key(number)?;
        black_box(store.get(shard, &key)?.ok_or("a key is missing")?);
    }
    report("read one key, files in the system's cache", BATCH, clock.now() - begin);
    let begin = clock.now();
    let mut count = 0;
    for shard in store.shards()? {
        store.scan(shard, None, &mut |key, value| {
            black_box((key, value));
            count += 1;
            ControlFlow::Continue(())
        })?;
    }
    report("scan", count, clock.now() - begin);
    let mut reset = CheckpointBatch::new();
    reset.reset(ShardId(7));
    let begin = clock.now();
    store.write(&reset)?;
    report("reset one of 64 shards", 1, clock.now() - begin);
    Ok(())
}

/// Times syncs of a log while checkpoints are written beside it.
fn beside(
    what: &str,
    folder: &Path,
    clock: &MachineClock,
    pace: Option<(u64, Option<u64>)>,
) -> Outcome<()> {
    let options = Options::usual(Fsync::Always, 0x5eed);
    let disk = RealDisk::open(&folder.join("log"))?;
    let (mut log, _) = Log::open(disk, options, IDENTITY, |_, _| {})?;
    let batches = [batch(some_keys(7), 7)?, batch(some_keys(8), 8)?, batch(some_keys(9), 9)?];
    let done = AtomicBool::new(false);
    let mut times = Vec::new();
    let mut took = Duration::ZERO;
    std::thread::scope(|scope| -> Outcome<()> {
        let writing = scope.spawn(|| -> Result<Duration, String> {
            let outcome = write_beside(folder, clock, pace, &batches).map_err(|e| e.to_string());
            done.store(true, Ordering::Relaxed);
            outcome
        });
        while !done.load(Ordering::Relaxed) && times.len() < 100_000 || times.len() < 2000 {
            log.append(&[&[7; 4096]])?;
            log.write()?;
            let begin = clock.now();
            log.sync()?;
            times.push(clock.now() - begin);
        }
        took = writing.join().map_err(|_| "the thread panicked")??;
        Ok(())
    })?;
    let end = log.close()?.synced_to;
    let disk = RealDisk::open(&folder.join("log"))?;
    let (mut log, _) = Log::open(disk, options, IDENTITY, |_, _| {})?;
    log.cut_to(end)?;
    report_times(what, times, took);
    Ok(())
}

fn write_beside(
    folder: &Path,
    clock: &MachineClock,
    pace: Option<(u64, Option<u64>)>,
    batches: &[CheckpointBatch],
) -> Outcome<Duration> {
    let Some((step_bytes, bytes_per_second)) = pace else {
        return Ok(Duration::ZERO);
    };
    let store = open(folder, clock, step_bytes, bytes_per_second)?;
    let begin = clock.now();
    for batch in batches {
        store.write(batch)?;
    }
    Ok((clock.now() - begin) / u32::try_from(batches.len())?)
}
