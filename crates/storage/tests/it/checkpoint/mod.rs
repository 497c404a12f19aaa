//! Tests of checkpoints: one suite for all stores, then what only a real one can show.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use antecede_model::ids::ShardId;
use antecede_storage::checkpoint::{
    CheckpointBatch, CheckpointError, CheckpointOptions, CheckpointStore, Pace, RealCheckpoints,
    SimulatedCheckpoints,
};
use antecede_storage::disk::{SimulatedFile, SimulatedLock};
use antecede_storage::{Disk, MachineClock, RealDisk, SimulatedDisk};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::scene::NODE_1;

/// Power losses at every write.
mod crash;
/// What every store must do.
mod every;
/// Files of others, damage, and the bytes on disk.
mod file;

const FILE: &str = "records.redb";

fn options() -> CheckpointOptions {
    CheckpointOptions {
        cache_bytes: 1 << 20,
        pace: Pace {
            step_bytes: 64 << 10,
            bytes_per_second: None,
            clock: Arc::new(MachineClock::start()),
        },
    }
}

fn open<D: Disk>(disk: D) -> RealCheckpoints<D> {
    RealCheckpoints::open(disk, options(), NODE_1).unwrap()
}

/// What a store should hold: of each shard the records and the meta.
type Model = BTreeMap<ShardId, (BTreeMap<Vec<u8>, Vec<u8>>, Option<Vec<u8>>)>;

fn apply(model: &mut Model, changes: &[Change]) -> CheckpointBatch {
    let mut batch = CheckpointBatch::new();
    for change in changes {
        match change.clone() {
            Change::Put(shard, key, value) => {
                batch.put(shard, key.clone(), value.clone());
                model.entry(shard).or_default().0.insert(key, value);
            }
            Change::Remove(shard, key) => {
                batch.remove(shard, key.clone());
                model.entry(shard).or_default().0.remove(&key);
            }
            Change::Meta(shard, meta) => {
                batch.set_meta(shard, meta.clone());
                model.entry(shard).or_default().1 = Some(meta);
            }
            Change::Reset(shard) => {
                batch.reset(shard);
                model.remove(&shard);
            }
        }
    }
    model.retain(|_, (records, meta)| !records.is_empty() || meta.is_some());
    batch
}

#[derive(Clone, Debug)]
enum Change {
    Put(ShardId, Vec<u8>, Vec<u8>),
    Remove(ShardId, Vec<u8>),
    Meta(ShardId, Vec<u8>),
    Reset(ShardId),
}

fn put(shard: u16, key: &str, value: &str) -> Change {
    Change::Put(ShardId(shard), key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn meta(shard: u16, meta: &str) -> Change {
    Change::Meta(ShardId(shard), meta.as_bytes().to_vec())
}

/// Keys and values, in order.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn scan(
    store: &dyn CheckpointStore,
    shard: ShardId,
    after: Option<&[u8]>,
) -> Result<Records, CheckpointError> {
    let mut records = Vec::new();
    store.scan(shard, after, &mut |key, value| {
        records.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(records)
}

/// Everything that a store holds.
fn contents(store: &dyn CheckpointStore) -> Model {
    let mut model = Model::new();
    for shard in store.shards().unwrap() {
        let records: BTreeMap<_, _> = scan(store, shard, None).unwrap().into_iter().collect();
        assert_eq!(store.count(shard).unwrap(), records.len() as u64);
        model.insert(shard, (records, store.meta(shard).unwrap()));
    }
    model
}

/// A store with the faults of its disk at hand.
trait Subject {
    fn store(&self) -> &dyn CheckpointStore;
    /// Ends the process and begins a new one; a full disk has room again, a failed one works.
    fn reopen(self: Box<Self>) -> Box<dyn Subject>;
    /// Lets the disk have no more room, or has it again.
    fn set_full(&self, is_full: bool);
    /// Lets the disk fail when it is next synced.
    fn fail(&self);
    /// Changes a bit in the stored value of a key, which must be like no other.
    fn damage(self: Box<Self>, shard: ShardId, key: &[u8], value: &[u8]) -> Box<dyn Subject>;
}

/// Runs a check against a simulated store and a real one.
fn on_every_store(check: impl Fn(Box<dyn Subject>)) {
    check(Box::new(SimulatedCheckpoints::new()));
    let disk = SparseDisk::default();
    check(Box::new(OnSparseDisk { store: open(disk.clone()), disk }));
}

impl Subject for SimulatedCheckpoints {
    fn store(&self) -> &dyn CheckpointStore {
        self
    }
    fn reopen(self: Box<Self>) -> Box<dyn Subject> {
        let after = self.crash(0);
        after.set_capacity(None);
        Box::new(after)
    }
    fn set_full(&self, is_full: bool) {
        self.set_capacity(is_full.then_some(0));
    }
    fn fail(&self) {
        self.fail_writes_after(0);
    }
    fn damage(self: Box<Self>, shard: ShardId, key: &[u8], value: &[u8]) -> Box<dyn Subject> {
        assert!(self.flip_bit(shard, key, 32 + value.len()));
        self
    }
}

/// A simulated disk on which space is taken when it is written to, as on real ones: inside of a
/// file, too.
#[derive(Clone, Debug, Default)]
struct SparseDisk {
    disk: SimulatedDisk,
    /// Blocks that have their space.
    blocks: Arc<Mutex<BTreeSet<u64>>>,
    is_full: Arc<AtomicBool>,
}

impl SparseDisk {
    fn of(disk: SimulatedDisk) -> Self {
        Self { disk, ..Self::default() }
    }

    /// The place of some bytes in the file.
    fn find(&self, bytes: &[u8]) -> u64 {
        let file = self.disk.open(FILE).unwrap();
        let mut all = vec![0; usize::try_from(self.disk.size(&file).unwrap()).unwrap()];
        self.disk.read_at(&file, 0, &mut all).unwrap();
        let found: Vec<usize> = all
            .windows(bytes.len())
            .enumerate()
            .filter(|(_, w)| *w == bytes)
            .map(|p| p.0)
            .collect();
        assert_eq!(found.len(), 1, "the bytes are there once");
        found[0] as u64
    }
}

impl Disk for SparseDisk {
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
        let removed = self.blocks.lock().split_off(&size.div_ceil(4096));
        drop(removed);
        self.disk.truncate(file, size)
    }
    fn read_at(&self, file: &SimulatedFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(file, offset, buffer)
    }
    fn write_at(&self, file: &SimulatedFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let blocks = offset / 4096..(offset + bytes.len() as u64).div_ceil(4096);
        let mut taken = self.blocks.lock();
        if self.is_full.load(Ordering::SeqCst) && !blocks.clone().all(|b| taken.contains(&b)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        taken.extend(blocks);
        self.disk.write_at(file, offset, bytes)
    }
    fn sync(&self, file: &SimulatedFile) -> io::Result<()> {
        self.disk.sync(file)
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

struct OnSparseDisk {
    store: RealCheckpoints<SparseDisk>,
    disk: SparseDisk,
}

impl Subject for OnSparseDisk {
    fn store(&self) -> &dyn CheckpointStore {
        &self.store
    }
    fn reopen(self: Box<Self>) -> Box<dyn Subject> {
        // As if killed: whatever closing writes must not be needed.
        let disk = SparseDisk::of(self.disk.disk.reopen());
        Box::new(Self { store: open(disk.clone()), disk })
    }
    fn set_full(&self, is_full: bool) {
        self.disk.is_full.store(is_full, Ordering::SeqCst);
    }
    fn fail(&self) {
        self.disk.disk.fail_syncs_after(0);
    }
    fn damage(self: Box<Self>, _: ShardId, _: &[u8], value: &[u8]) -> Box<dyn Subject> {
        let disk = SparseDisk::of(self.disk.disk.reopen());
        disk.disk.flip_bit(FILE, disk.find(value), 3).unwrap();
        Box::new(Self { store: open(disk.clone()), disk })
    }
}

/// Checkpoints in a folder of this machine.
fn on_this_machine(folder: &TempDir) -> RealCheckpoints {
    open(RealDisk::open(folder.path()).unwrap())
}
