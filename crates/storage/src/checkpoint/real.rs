//! Keeps checkpoints in a redb file: one transaction for each batch.
//!
//! The file is made under a temporary name and renamed once it has its head, so that a crash never
//! leaves half of one. Each commit also records the engine's free space, so that opening after a
//! crash takes milliseconds, whatever the size.
//!
//! The engine stops for good after any error of its file, a full disk included. After a full disk
//! the file is therefore opened again at once, and reads go on with the last batch that was whole;
//! after another error nothing is believed any more until the process has started again.
//!
//! Invariant: locks are taken in the order `writing`, `handle`.
//!
//! Limits: the engine verifies its own pages only when it repairs the file; what a bit that has
//! changed at rest can do is found by the checksums of records and rows, and by the tally of a
//! scan. It may panic on damage in its inner pages, which ends the process; see
//! `docs/decisions/0009-checkpoint-engine.md`.

use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use antecede_model::ids::ShardId;
use parking_lot::{Mutex, RwLock};
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
    TableError, WriteTransaction,
};

use super::batch::{CheckpointBatch, ShardChanges};
use super::error::{CheckpointError, OpenCheckpointsError};
use super::layout::{
    CHECKPOINT_FORMAT, HEAD_KEY, HEAD_TABLE, HeadError, SHARDS_TABLE, ShardRow, Tally, decode_head,
    decode_record, encode_head, encode_record, records_table, row_key, row_shard,
};
use super::paced::{Faults, Pace, PacedFile};
use super::{CheckpointStore, Visit};
use crate::clock::Clock;
use crate::disk::{self, Disk, RealDisk};
use crate::frame::Identity;

const FILE_NAME: &str = "records.redb";
const FILE_NAME_NEW: &str = "records.redb.tmp";

type Table<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;
type Records = ReadOnlyTable<&'static [u8], &'static [u8]>;

const HEAD: Table<'static> = TableDefinition::new(HEAD_TABLE);
const SHARDS: Table<'static> = TableDefinition::new(SHARDS_TABLE);

/// The settings of checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointOptions {
    /// Bytes of the engine's cache: half of it may hold what a batch has changed, before that
    /// begins to be written.
    pub cache_bytes: usize,
    /// How fast a batch is written.
    pub pace: Pace,
}

impl CheckpointOptions {
    /// The usual settings.
    #[must_use]
    pub fn usual(clock: Arc<dyn Clock>) -> Self {
        let pace = Pace { step_bytes: 1 << 20, bytes_per_second: Some(64 << 20), clock };
        Self { cache_bytes: CACHE_BYTES, pace }
    }

    /// The same with a cache that takes an eighth of a memory limit at most; 0 is none.
    #[must_use]
    pub fn within(self, memory_limit: u64) -> Self {
        let eighth = usize::try_from(memory_limit / 8).unwrap_or(usize::MAX);
        let cache_bytes = self.cache_bytes.min(eighth.max(CACHE_BYTES_MIN));
        if memory_limit == 0 { self } else { Self { cache_bytes, ..self } }
    }
}

/// What the engine's cache usually takes.
const CACHE_BYTES: usize = 64 << 20;
/// What it takes where memory is short.
const CACHE_BYTES_MIN: usize = 1 << 20;

/// The checkpoints of one node, in a folder of their own.
#[derive(Debug)]
pub struct RealCheckpoints<D: Disk = RealDisk> {
    disk: Arc<D>,
    options: CheckpointOptions,
    handle: RwLock<Arc<Handle>>,
    /// Held while a batch is written and while the file is opened again.
    writing: Mutex<()>,
    _lock: D::Lock,
}

/// One opening of the file.
#[derive(Debug)]
struct Handle {
    database: Database,
    faults: Arc<Faults>,
    path: PathBuf,
}

impl<D: Disk> RealCheckpoints<D> {
    /// Opens the checkpoints in `disk`, or makes an empty file if there is none.
    pub fn open(
        disk: D,
        options: CheckpointOptions,
        identity: Identity,
    ) -> Result<Self, OpenCheckpointsError> {
        let lock = disk.lock().map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                return OpenCheckpointsError::Locked { path: disk.path("") };
            }
            open_error(&disk, "", source)
        })?;
        let disk = Arc::new(disk);
        let names = disk.list().map_err(|source| open_error(&*disk, "", source))?;
        if !names.iter().any(|name| name == FILE_NAME) {
            create(&disk, &options, identity)?;
        }
        let handle = open_file(&disk, &options, FILE_NAME)?;
        handle.check_head(identity)?;
        let (handle, writing) = (RwLock::new(Arc::new(handle)), Mutex::new(()));
        Ok(Self { disk, options, handle, writing, _lock: lock })
    }

    /// Whether what is written is waited for: then it is written as fast as the disk takes it.
    pub fn hurry(&self, is_hurried: bool) {
        self.current().faults.is_hurried.store(is_hurried, Ordering::Relaxed);
    }

    fn current(&self) -> Arc<Handle> {
        Arc::clone(&self.handle.read())
    }

    /// Opens the file again if a full disk has stopped the engine.
    fn reopen_if_stopped(&self) -> Result<Arc<Handle>, CheckpointError> {
        let handle = self.current();
        let Some(fault) = handle.faults.first() else {
            return Ok(handle);
        };
        if !disk::is_full(&fault) {
            return Err(handle.fault(fault));
        }
        let opened = open_file(&self.disk, &self.options, FILE_NAME).map_err(|error| {
            let path = handle.path.clone();
            match error {
                OpenCheckpointsError::Io { source, .. } if disk::is_full(&source) => {
                    CheckpointError::DiskFull { path }
                }
                OpenCheckpointsError::Io { source, .. } => CheckpointError::Failed { path, source },
                OpenCheckpointsError::Damaged { what, .. } => {
                    CheckpointError::Damaged { path, what }
                }
                OpenCheckpointsError::Locked { .. }
                | OpenCheckpointsError::WrongIdentity { .. }
                | OpenCheckpointsError::WrongFormat { .. } => {
                    CheckpointError::Damaged { path, what: error.to_string() }
                }
            }
        })?;
        let opened = Arc::new(opened);
        *self.handle.write() = Arc::clone(&opened);
        Ok(opened)
    }

    /// The opening that works, if any does. Waits for a write only if none did.
    fn sound(&self) -> Result<Arc<Handle>, CheckpointError> {
        let handle = self.current();
        if handle.faults.first().is_none() {
            return Ok(handle);
        }
        let _writing = self.writing.lock();
        self.reopen_if_stopped()
    }

    /// Reads from the file, and once more if a full disk has stopped the engine meanwhile.
    fn read<T>(
        &self,
        mut read: impl FnMut(&Handle) -> Result<T, CheckpointError>,
    ) -> Result<T, CheckpointError> {
        match read(&*self.sound()?) {
            Err(CheckpointError::DiskFull { .. }) => read(&*self.sound()?),
            result => result,
        }
    }
}

impl<D: Disk> CheckpointStore for RealCheckpoints<D> {
    fn write(&self, batch: &CheckpointBatch) -> Result<(), CheckpointError> {
        let _writing = self.writing.lock();
        let handle = self.reopen_if_stopped()?;
        handle.faults.is_paced.store(true, Ordering::Relaxed);
        let result = handle.write(batch);
        handle.faults.is_paced.store(false, Ordering::Relaxed);
        if let Err(CheckpointError::DiskFull { .. }) = &result {
            // For the reads; if it cannot be done now, the next read or write tries again.
            drop(self.reopen_if_stopped());
        }
        result
    }

    fn shards(&self) -> Result<Vec<ShardId>, CheckpointError> {
        self.read(Handle::shards)
    }

    fn meta(&self, shard: ShardId) -> Result<Option<Vec<u8>>, CheckpointError> {
        Ok(self.read(|handle| handle.row(shard))?.meta)
    }

    fn get(&self, shard: ShardId, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.read(|handle| handle.get(shard, key))
    }

    fn scan(
        &self,
        shard: ShardId,
        after: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), CheckpointError> {
        // Not tried again: part of it was shown already.
        self.sound()?.scan(shard, after, visit)
    }

    fn count(&self, shard: ShardId) -> Result<u64, CheckpointError> {
        Ok(self.read(|handle| handle.row(shard))?.tally.count)
    }
}

fn open_error<D: Disk>(disk: &D, name: &str, source: io::Error) -> OpenCheckpointsError {
    OpenCheckpointsError::Io { path: disk.path(name), source: Arc::new(source) }
}

/// Makes an empty file with a head; it has its name only when it is durable.
fn create<D: Disk>(
    disk: &Arc<D>,
    options: &CheckpointOptions,
    identity: Identity,
) -> Result<(), OpenCheckpointsError> {
    let failed = |source| open_error(&**disk, FILE_NAME_NEW, source);
    drop(disk.create(FILE_NAME_NEW).map_err(failed)?);
    let handle = open_file(disk, options, FILE_NAME_NEW)?;
    handle.write_head(identity).map_err(|error| handle.opening(&error))?;
    let Handle { database, faults, path } = handle;
    database.close().map_err(|error| opening_error(&path, &faults, &error.into()))?;
    disk.rename(FILE_NAME_NEW, FILE_NAME).map_err(failed)?;
    disk.sync_dir().map_err(failed)
}

fn open_file<D: Disk>(
    disk: &Arc<D>,
    options: &CheckpointOptions,
    name: &str,
) -> Result<Handle, OpenCheckpointsError> {
    let path = disk.path(name);
    let file = disk.open(name).map_err(|source| open_error(&**disk, name, source))?;
    let size = disk.size(&file).map_err(|source| open_error(&**disk, name, source))?;
    if size == 0 && name == FILE_NAME {
        return Err(OpenCheckpointsError::Damaged { path, what: "it is empty".to_owned() });
    }
    let faults = Arc::new(Faults::default());
    let backend = PacedFile::new(Arc::clone(disk), file, Arc::clone(&faults), options.pace.clone());
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes);
    match builder.create_with_backend(backend) {
        Ok(database) => Ok(Handle { database, faults, path }),
        Err(error) => Err(opening_error(&path, &faults, &error.into())),
    }
}

fn opening_error(path: &Path, faults: &Faults, error: &redb::Error) -> OpenCheckpointsError {
    let path = path.to_path_buf();
    match faults.first() {
        Some(source) => OpenCheckpointsError::Io { path, source },
        None => OpenCheckpointsError::Damaged { path, what: error.to_string() },
    }
}

impl Handle {
    fn opening(&self, error: &redb::Error) -> OpenCheckpointsError {
        opening_error(&self.path, &self.faults, error)
    }

    fn fault(&self, fault: Arc<io::Error>) -> CheckpointError {
        let path = self.path.clone();
        if disk::is_full(&fault) {
            return CheckpointError::DiskFull { path };
        }
        CheckpointError::Failed { path, source: fault }
    }

    /// What an error of the engine means: mostly that of its file.
    fn error(&self, error: &redb::Error) -> CheckpointError {
        match self.faults.first() {
            Some(fault) => self.fault(fault),
            None => CheckpointError::Damaged { path: self.path.clone(), what: error.to_string() },
        }
    }

    fn begin_write(&self) -> Result<WriteTransaction, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    fn write_head(&self, identity: Identity) -> Result<(), redb::Error> {
        let transaction = self.begin_write()?;
        {
            let mut head = transaction.open_table(HEAD)?;
            head.insert(HEAD_KEY, encode_head(identity).as_slice())?;
            transaction.open_table(SHARDS)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn check_head(&self, identity: Identity) -> Result<(), OpenCheckpointsError> {
        let find = || -> Result<Option<Vec<u8>>, redb::Error> {
            let head = self.database.begin_read()?.open_table(HEAD)?;
            Ok(head.get(HEAD_KEY)?.map(|head| head.value().to_vec()))
        };
        let path = self.path.clone();
        let head = find().map_err(|error| self.opening(&error))?.unwrap_or_default();
        match decode_head(&head) {
            Ok(found) if found == identity => Ok(()),
            Ok(found) => Err(OpenCheckpointsError::WrongIdentity {
                path,
                found_node: found.node,
                found_deployment: u128::from_be_bytes(found.deployment),
                node: identity.node,
                deployment: u128::from_be_bytes(identity.deployment),
            }),
            Err(HeadError::Format(found)) => {
                let readable = CHECKPOINT_FORMAT;
                Err(OpenCheckpointsError::WrongFormat { path, found, readable })
            }
            Err(HeadError::Damaged) => {
                let what = "its head is not what was written".to_owned();
                Err(OpenCheckpointsError::Damaged { path, what })
            }
        }
    }

    fn write(&self, batch: &CheckpointBatch) -> Result<(), CheckpointError> {
        let engine = |error| self.error(&error);
        let transaction = self.begin_write().map_err(engine)?;
        for (shard, changes) in batch.shards() {
            self.write_shard(&transaction, shard, changes)?;
        }
        transaction.commit().map_err(|error| self.error(&error.into()))
    }

    fn write_shard(
        &self,
        transaction: &WriteTransaction,
        shard: ShardId,
        changes: &ShardChanges,
    ) -> Result<(), CheckpointError> {
        let name = records_table(shard);
        let engine = |error| self.error(&error);
        let mut row = if changes.is_reset() {
            let records = Table::new(&name);
            transaction.delete_table(records).map_err(|error| self.error(&error.into()))?;
            ShardRow::default()
        } else {
            let found = find_row(transaction, shard).map_err(engine)?;
            self.row_of(shard, found.as_deref())?
        };
        let sorted = changes.sorted();
        if !sorted.is_empty() {
            let replaced = write_records(transaction, shard, &sorted, &mut row.tally);
            if let Some(key) = replaced.map_err(engine)? {
                return Err(self.corrupt_record(shard, &key));
            }
        }
        if let Some(meta) = changes.meta() {
            row.meta = Some(meta.to_vec());
        }
        put_row(transaction, shard, &row).map_err(engine)
    }

    fn corrupt_record(&self, shard: ShardId, key: &[u8]) -> CheckpointError {
        CheckpointError::CorruptRecord { shard, key: key.to_vec(), path: self.path.clone() }
    }

    fn row_of(&self, shard: ShardId, found: Option<&[u8]>) -> Result<ShardRow, CheckpointError> {
        let Some(found) = found else {
            return Ok(ShardRow::default());
        };
        let corrupt = || CheckpointError::CorruptMeta { shard, path: self.path.clone() };
        ShardRow::decode(shard, found).ok_or_else(corrupt)
    }

    fn shards(&self) -> Result<Vec<ShardId>, CheckpointError> {
        let find = || -> Result<Vec<ShardId>, redb::Error> {
            let mut shards = Vec::new();
            for row in self.database.begin_read()?.open_table(SHARDS)?.iter()? {
                shards.extend(row_shard(row?.0.value()));
            }
            Ok(shards)
        };
        find().map_err(|error| self.error(&error))
    }

    fn row(&self, shard: ShardId) -> Result<ShardRow, CheckpointError> {
        let find = || self.row_in(&self.database.begin_read()?, shard);
        let found = find().map_err(|error| self.error(&error))?;
        self.row_of(shard, found.as_deref())
    }

    fn row_in(
        &self,
        transaction: &ReadTransaction,
        shard: ShardId,
    ) -> Result<Option<Vec<u8>>, redb::Error> {
        let row = transaction.open_table(SHARDS)?.get(row_key(shard).as_slice())?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    fn get(&self, shard: ShardId, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        let find = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let Some(records) = open_records(&transaction, shard)? else {
                return Ok(None);
            };
            Ok(records.get(key)?)
        };
        let Some(found) = find().map_err(|error| self.error(&error))? else {
            return Ok(None);
        };
        match decode_record(shard, key, found.value()) {
            Some(record) => Ok(Some(record.value.to_vec())),
            None => Err(self.corrupt_record(shard, key)),
        }
    }

    fn scan(
        &self,
        shard: ShardId,
        after: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> Result<(), CheckpointError> {
        let begin = || -> Result<_, redb::Error> {
            let transaction = self.database.begin_read()?;
            let row = self.row_in(&transaction, shard)?;
            let records = open_records(&transaction, shard)?;
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let range = match records {
                Some(records) => Some(records.range::<&[u8]>((from, Bound::Unbounded))?),
                None => None,
            };
            Ok((row, range))
        };
        let (row, range) = begin().map_err(|error| self.error(&error))?;
        let expected = self.row_of(shard, row.as_deref())?.tally;
        let mut found = Tally::default();
        for entry in range.into_iter().flatten() {
            let (key, value) = entry.map_err(|error| self.error(&error.into()))?;
            let (key, value) = (key.value(), value.value());
            let record = decode_record(shard, key, value);
            let record = record.ok_or_else(|| self.corrupt_record(shard, key))?;
            found.add(record.crc);
            if let ControlFlow::Break(()) = visit(key, record.value) {
                return Ok(());
            }
        }
        if after.is_none() && found != expected {
            let (found, expected) = (found.count, expected.count);
            let path = self.path.clone();
            return Err(CheckpointError::CorruptShard { shard, found, expected, path });
        }
        Ok(())
    }
}

fn find_row(
    transaction: &WriteTransaction,
    shard: ShardId,
) -> Result<Option<Vec<u8>>, redb::Error> {
    let rows = transaction.open_table(SHARDS)?;
    let row = rows.get(row_key(shard).as_slice())?;
    Ok(row.map(|row| row.value().to_vec()))
}

fn put_row(
    transaction: &WriteTransaction,
    shard: ShardId,
    row: &ShardRow,
) -> Result<(), redb::Error> {
    let mut rows = transaction.open_table(SHARDS)?;
    if *row == ShardRow::default() {
        rows.remove(row_key(shard).as_slice())?;
    } else {
        rows.insert(row_key(shard).as_slice(), row.encode(shard).as_slice())?;
    }
    Ok(())
}

/// Writes changed records, and keeps the tally; yields the key of a record that was to be replaced
/// and is damaged.
fn write_records(
    transaction: &WriteTransaction,
    shard: ShardId,
    sorted: &[(&[u8], Option<&[u8]>)],
    tally: &mut Tally,
) -> Result<Option<Vec<u8>>, redb::Error> {
    let name = records_table(shard);
    let mut records = transaction.open_table(Table::new(&name))?;
    let mut buffer = Vec::new();
    for (key, value) in sorted {
        let replaced = match value {
            Some(value) => {
                tally.add(encode_record(&mut buffer, shard, key, value));
                records.insert(*key, buffer.as_slice())?
            }
            None => records.remove(*key)?,
        };
        if let Some(replaced) = replaced {
            match decode_record(shard, key, replaced.value()) {
                Some(record) => tally.subtract(record.crc),
                None => return Ok(Some(key.to_vec())),
            }
        }
    }
    Ok(None)
}

fn open_records(
    transaction: &ReadTransaction,
    shard: ShardId,
) -> Result<Option<Records>, redb::Error> {
    match transaction.open_table(Table::new(&records_table(shard))) {
        Ok(records) => Ok(Some(records)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
