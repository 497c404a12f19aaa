//! Gives the records of the log back to the replicas at the start.
//!
//! The thread that reads the log sorts the records by shard, a few MiB at a time, and hands them to
//! as many threads as there are processors, each of which has replicas of its own. So replicas take
//! their records side by side, and each takes many of them at once, while what it looks at is near
//! the processor.
//!
//! Keys lie anywhere in memory, and each record would wait for its own: first for its place in the
//! index, then for what is found there. So a few records are decoded before their turn, and both are
//! asked for while others are taken.
//!
//! Ensures: each replica gets its records in the order of the log, all of them once `replay`
//! returns, unless one of them is damaged.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, ScopedJoinHandle, scope};

use antecede_model::{clock::Timestamp, codec::DecodeError};
use antecede_protocol::{chain::Shard, record::Record};
use antecede_storage::LogIndex;

/// Bytes of records that are sorted before they are handed on.
const BATCH_BYTES: usize = 4 << 20;
/// Threads that take records, at most.
const THREADS_MAX: usize = 16;
/// Records of a shard that are decoded before one is taken.
const RECORDS: usize = 32;
/// How many of them have had their place in the index loaded for long enough.
const PLACED: usize = RECORDS / 2;

/// What a log said, apart from what the replicas took of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The largest time that was promised to be passed by no stamp before it is in the log.
    pub(super) floor: Timestamp,
    /// Whether it held anything of any shard. Where it does not, the node may have been started
    /// before with the same empty folder, and have written down no more than how late it was.
    pub(super) is_about_shards: bool,
}

/// A record that cannot be read by this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Its number.
    pub(super) index: LogIndex,
    /// What is wrong with it.
    pub(super) source: DecodeError,
}

/// The one of the earlier record.
fn first(one: Option<Damage>, other: Option<Damage>) -> Option<Damage> {
    one.into_iter().chain(other).min_by_key(|damage| damage.index)
}

/// Gives the records that `read` hands in back to the replicas; tells what `read` gave, and what
/// the records said, or the first of them that is damaged.
///
/// # Errors
/// When the system gives no thread.
pub(super) fn replay<T>(
    replicas: &mut [Option<Shard>],
    read: impl FnOnce(&mut Sorter<'_>) -> T,
) -> io::Result<(T, Result<Told, Damage>)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    replay_with(replicas, threads, BATCH_BYTES, read)
}

fn replay_with<T>(
    replicas: &mut [Option<Shard>],
    threads: usize,
    batch_bytes: usize,
    read: impl FnOnce(&mut Sorter<'_>) -> T,
) -> io::Result<(T, Result<Told, Damage>)> {
    let held: Vec<bool> = replicas.iter().map(Option::is_some).collect();
    let mut shares: Vec<Vec<Option<&mut Shard>>> = (0..threads).map(|_| Vec::new()).collect();
    for (place, replica) in replicas.iter_mut().enumerate() {
        if let Some(share) = shares.get_mut(place % threads) {
            share.push(replica.as_mut());
        }
    }
    scope(|scope| {
        let mut takers = Vec::with_capacity(threads);
        for share in shares {
            let batch = Batch::new(share.len());
            let (to, batches) = sync_channel(1);
            let (give_back, spare) = sync_channel(2);
            let work = move || Taker { share, damage: None }.run(&batches, &give_back);
            let thread = Builder::new().name("replay".to_owned()).spawn_scoped(scope, work)?;
            takers.push(Way { batch, to, spare, thread });
        }
        let mut sorter =
            Sorter { takers, held, batch_bytes, bytes: 0, told: Told::default(), damage: None };
        let given = read(&mut sorter);
        Ok((given, sorter.finish()))
    })
}

/// Records of several shards, in the order of the log for each.
struct Batch {
    /// By the replica's place in the share of its thread.
    shards: Vec<Records>,
}

/// Records of a shard.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// The number of each, and where its bytes end.
    ends: Vec<(LogIndex, usize)>,
}

impl Batch {
    fn new(count: usize) -> Self {
        Self { shards: (0..count).map(|_| Records::default()).collect() }
    }
}

impl Records {
    fn push(&mut self, index: LogIndex, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push((index, self.bytes.len()));
    }

    /// Gives the records away, one after the other.
    fn iter(&self) -> impl Iterator<Item = (LogIndex, &[u8])> {
        let mut from = 0;
        self.ends.iter().map(move |&(index, to)| {
            let record = self.bytes.get(from..to).unwrap_or_default();
            from = to;
            (index, record)
        })
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Sorts records by shard.
pub(super) struct Sorter<'scope> {
    takers: Vec<Way<'scope>>,
    /// Which shards have a replica.
    held: Vec<bool>,
    batch_bytes: usize,
    /// Bytes that wait in all batches.
    bytes: usize,
    told: Told,
    damage: Option<Damage>,
}

/// The way to a thread that takes records.
struct Way<'scope> {
    /// What is handed on next.
    batch: Batch,
    to: SyncSender<Batch>,
    /// Batches that were taken.
    spare: Receiver<Batch>,
    thread: ScopedJoinHandle<'scope, Option<Damage>>,
}

impl Sorter<'_> {
    /// Takes the next record of the log.
    pub(super) fn take(&mut self, index: LogIndex, bytes: &[u8]) {
        if self.damage.is_some() {
            return;
        }
        if let Err(source) = self.sort(index, bytes) {
            self.damage = Some(Damage { index, source });
        }
    }

    fn sort(&mut self, index: LogIndex, bytes: &[u8]) -> Result<(), DecodeError> {
        let Some(shard) = Record::shard_of(bytes)? else {
            if let Record::Ceiling(ceiling) = Record::read(bytes)? {
                self.told.floor = self.told.floor.max(ceiling);
            }
            return Ok(());
        };
        self.told.is_about_shards = true;
        let place = usize::from(shard.0);
        if self.held.get(place) != Some(&true) {
            return Ok(());
        }
        let threads = self.takers.len();
        let way = self.takers.get_mut(place % threads);
        let Some(way) = way else { return Ok(()) };
        let Some(records) = way.batch.shards.get_mut(place / threads) else { return Ok(()) };
        records.push(index, bytes);
        self.bytes += bytes.len();
        if self.batch_bytes <= self.bytes {
            self.hand_on();
        }
        Ok(())
    }

    fn hand_on(&mut self) {
        self.bytes = 0;
        for way in &mut self.takers {
            let count = way.batch.shards.len();
            let empty = way.spare.try_recv().unwrap_or_else(|_| Batch::new(count));
            // A thread that is gone has ended by a broken invariant, which `finish` finds.
            let batch = std::mem::replace(&mut way.batch, empty);
            drop(way.to.send(batch));
        }
    }

    /// Waits until everything is taken; tells what the records said, or the first damaged one.
    fn finish(mut self) -> Result<Told, Damage> {
        self.hand_on();
        let mut damage = self.damage;
        let threads: Vec<_> = self.takers.into_iter().map(|way| way.thread).collect();
        for thread in threads {
            let found = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            damage = first(damage, found);
        }
        damage.map_or(Ok(self.told), Err)
    }
}

/// A thread that takes records into its replicas.
struct Taker<'a> {
    share: Vec<Option<&'a mut Shard>>,
    /// The first record that was damaged.
    damage: Option<Damage>,
}

impl Taker<'_> {
    fn run(mut self, batches: &Receiver<Batch>, give_back: &SyncSender<Batch>) -> Option<Damage> {
        while let Ok(mut batch) = batches.recv() {
            let is_sound = self.damage.is_none();
            for (replica, records) in self.share.iter_mut().zip(&mut batch.shards) {
                if is_sound && let Some(replica) = replica {
                    self.damage = first(self.damage, take(replica, records).err());
                }
                records.clear();
            }
            // Nobody wants it back after the end.
            drop(give_back.try_send(batch));
        }
        self.damage
    }
}

/// A record that has been decoded.
struct Waiting {
    index: LogIndex,
    record: Record,
    /// Of its key, if it has one.
    hash: Option<u64>,
}

/// Gives a replica its records, and lets the processor load what they need before.
fn take(replica: &mut Shard, records: &Records) -> Result<(), Damage> {
    let mut waiting = VecDeque::with_capacity(RECORDS + 1);
    for (index, bytes) in records.iter() {
        let record = Record::read(bytes).map_err(|source| Damage { index, source })?;
        let hash = replica.foresee(&record);
        waiting.push_back(Waiting { index, record, hash });
        if let Some(Waiting { hash: Some(hash), .. }) = waiting.get(PLACED) {
            replica.foresee_record(*hash);
        }
        if RECORDS < waiting.len() {
            give_first(replica, &mut waiting);
        }
    }
    while !waiting.is_empty() {
        give_first(replica, &mut waiting);
    }
    Ok(())
}

fn give_first(replica: &mut Shard, waiting: &mut VecDeque<Waiting>) {
    let Some(Waiting { index, record, .. }) = waiting.pop_front() else { return };
    replica.recover(antecede_model::ids::LogIndex(index.get()), record);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use antecede_model::{
        configuration::{Configuration, Layout},
        ids::{Boot, DatacenterId, DeploymentId, Epoch, Lineage, NodeId, Position, ShardId},
        key::ShardCount,
    };
    use antecede_protocol::{
        chain::ShardOptions,
        entry::{Body, Entry, Identity},
        mutation::Mutations,
    };

    use super::*;

    const HERE: DatacenterId = DatacenterId(1);

    fn replica(shard: u16) -> Shard {
        let configuration = Configuration::managed(&Layout {
            deployment: DeploymentId::default(),
            shard_count: ShardCount::new(4).unwrap(),
            chain_length: 1,
            datacenters: vec![(HERE, "here".to_owned(), 1)],
        });
        let options = ShardOptions {
            max_clock_drift: Duration::from_millis(500),
            hash_secret: 7,
            blocked_bytes_max: 0,
            kept_bytes_max: 0,
            trimmed_bytes_min: 0,
            part_bytes: 1,
            part_pause: Duration::ZERO,
            retries_max: 1,
            has_checkpoints: false,
            away_bytes_min: None,
            mutations: Mutations::NONE,
        };
        let node = NodeId { datacenter: HERE, number: 1 };
        Shard::new(ShardId(shard), node, Arc::new(configuration), options)
    }

    fn tick(shard: u16, position: u64) -> Vec<u8> {
        let stamp = Timestamp::from_millis(position);
        let (epoch, boot, position) = (Epoch(1), Boot(1), Position(position));
        let mut entry = Entry {
            identity: Identity { epoch, boot, position, checksum: 0 },
            origin: HERE,
            lineage: Lineage(1),
            stamp,
            previous: Timestamp::from_millis(position.0 - 1),
            visible_at: stamp,
            body: Body::Tick,
            kept: None,
        };
        entry.identity.checksum = entry.computed_checksum();
        let mut bytes = Vec::new();
        Record::write_entry(&mut bytes, ShardId(shard), Position(0), &entry);
        bytes
    }

    #[test]
    fn a_log_that_says_only_how_late_it_was_holds_nothing() {
        let floor = Timestamp::from_millis(9);
        let mut bytes = Vec::new();
        Record::write_ceiling(&mut bytes, floor);
        let ((), told) =
            replay(&mut [Some(replica(0))], |sorter| sorter.take(LogIndex::new(1), &bytes))
                .unwrap();
        assert_eq!(told, Ok(Told { floor, is_about_shards: false }));
    }

    #[test]
    fn all_records_reach_their_replicas_in_order() {
        for threads in 1..=3 {
            let mut replicas = [Some(replica(0)), None, Some(replica(2)), Some(replica(3))];
            let count = 10 * RECORDS as u64;
            let ((), told) = replay_with(&mut replicas, threads, 2000, |sorter| {
                for number in 1..=4 * count {
                    let shard = u16::try_from(number % 4).unwrap();
                    sorter.take(LogIndex::new(number), &tick(shard, number.div_ceil(4)));
                }
            })
            .unwrap();
            assert_eq!(told, Ok(Told { floor: Timestamp::ZERO, is_about_shards: true }));
            for replica in replicas.iter_mut().flatten() {
                assert_eq!(
                    replica.end(),
                    Position(count),
                    "an entry that is not the next one is not taken"
                );
                assert_eq!(replica.end_recovery(antecede_model::ids::LogIndex(4 * count)), Ok(()));
            }
        }
    }

    #[test]
    fn first_damaged_record_is_told_whichever_thread_finds_it() {
        let mut cut = tick(1, 1);
        cut.pop();
        let source = Record::read(&cut).unwrap_err();
        for threads in 1..=2 {
            for batch_bytes in [1, 2000] {
                let mut replicas = [Some(replica(0)), Some(replica(1))];
                let ((), told) = replay_with(&mut replicas, threads, batch_bytes, |sorter| {
                    for number in 1..=20 {
                        sorter.take(LogIndex::new(number), &tick(0, number));
                    }
                    sorter.take(LogIndex::new(21), &cut);
                    let mut damaged = tick(0, 21);
                    damaged.pop();
                    sorter.take(LogIndex::new(22), &damaged);
                    sorter.take(LogIndex::new(23), b"\xff");
                })
                .unwrap();
                let index = LogIndex::new(21);
                assert_eq!(told, Err(Damage { index, source }));
            }
        }
    }
}
