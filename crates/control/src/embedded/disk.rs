//! Keeps a member's vote, log and last snapshot in one file, synced before anything is said.
//!
//! The file is a redb database: each change is one transaction that is on disk when it returns, so
//! a crash leaves the state before or after it. The first row says which format the file has,
//! which group and which member it belongs to; a file that says anything else is refused.
//! Blocking work goes to the runtime's blocking threads, one call at a time from the library.
//!
//! Assumes: one process opens the file (redb locks it).
//! Ensures: what a member has voted for or acknowledged is on its disk; damaged rows are found by
//! their checksum and never used.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    ops::{Bound, RangeBounds},
    path::{Path, PathBuf},
    sync::Arc,
};

use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    ids::NodeId,
};
use openraft::{
    LogState, RaftLogReader, StorageError, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::watch;

use super::{
    GroupId,
    codec::{
        read_entry, read_log_id, read_meta, read_text, read_vote, seal, unseal, write_entry,
        write_log_id, write_meta, write_vote,
    },
    founding::Stage,
    raft::{Entry, LogId, SnapshotMeta, Types, Vote},
};

/// The number of the file's form; a new one comes with a reader for the last one.
const FORMAT: u64 = 1;

/// Bytes of entries that go to a member at once; one entry goes in any case.
const READ_BYTES_MAX: usize = 8 * 1024 * 1024;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const ROWS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("rows");

const OWNER: &str = "owner";
const VOTE: &str = "vote";
const CUT: &str = "cut";
const SNAPSHOT: &str = "snapshot";
/// Is there until the member has begun.
const NOT_BEGUN: &str = "not begun";

/// Why a member's file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file or the disk failed.
    #[error("cannot use the file of this member, {path}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: Box<redb::Error>,
    },
    /// A new member was to begin, but its file is there.
    #[error(
        "cannot begin a new member, its file {path} exists; resume the member, or move the file \
         away if this node never was a member or was removed"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A member was to go on that has not begun.
    #[error("cannot resume the member, its group had not begun when {path} was last written")]
    NotBegun {
        /// The file.
        path: PathBuf,
    },
    /// A member was to go on, but its file is gone.
    #[error(
        "cannot resume the member, its file {path} is missing; a member that lost its file must \
         be removed and added again, else it could vote twice"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file has a form that this build cannot read.
    #[error("the file {path} is of format {found}, this build reads {FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u64,
    },
    /// The file belongs to another member or group.
    #[error(
        "the file {path} belongs to member {found_node} of {found_group}, not to member {node} of \
         {group}; see which folder belongs to which node"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found_node: NodeId,
        /// The group that it belongs to.
        found_group: GroupId,
        /// Who opens it.
        node: NodeId,
        /// The group of the one who opens it.
        group: GroupId,
    },
    /// A row does not say what it should.
    #[error("the {row} in {path} is damaged; remove this member and add it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is damaged.
        row: &'static str,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The runtime ended before the work was done.
    #[error("cannot write {path}, the runtime is shutting down")]
    Cancelled {
        /// The file.
        path: PathBuf,
    },
}

/// How a member begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With a new group of these members, which all begin so, with the same list. None of them may
    /// have been a member of it before: `founding` sees to that.
    Create {
        /// The members and where they listen.
        members: BTreeMap<NodeId, String>,
    },
    /// With nothing, until a member of the group adds it.
    Join,
    /// With its own file.
    Resume,
}

/// Whose file it is, as its first row says.
struct Owner {
    group: GroupId,
    node: NodeId,
    /// The members with which the group began, if this member was among them.
    founders: BTreeMap<NodeId, String>,
}

/// How far the member of a file has come. What is in no file is nothing.
pub(crate) fn stage_of(path: &Path, group: GroupId, node: NodeId) -> Result<Stage, FileError> {
    if !path.exists() {
        return Ok(Stage::Nothing);
    }
    let (file, _) = MemberFile::find(path, group, node)?;
    let is_ready = file.row(NOT_BEGUN)?.is_some();
    Ok(if is_ready { Stage::Ready } else { Stage::Begun })
}

/// Makes the file of a founder that is ready, instead of an earlier one of the kind.
pub(crate) fn make_ready(
    path: &Path,
    group: GroupId,
    node: NodeId,
    founders: BTreeMap<NodeId, String>,
) -> Result<(), FileError> {
    MemberFile::make(path, &Owner { group, node, founders }, Stage::Ready)
}

/// Removes the file of a founder that was ready and founds nothing any more.
pub(crate) fn remove_ready(path: &Path) -> Result<(), FileError> {
    std::fs::remove_file(path).map_err(|error| failed(path, redb::Error::Io(error)))
}

/// Writes down that the member of a file has begun.
pub(crate) fn mark_begun(path: &Path, group: GroupId, node: NodeId) -> Result<(), FileError> {
    let (file, _) = MemberFile::find(path, group, node)?;
    file.transact(|transaction| {
        transaction.open_table(ROWS)?.remove(NOT_BEGUN)?;
        Ok(())
    })
}

/// A member's file.
#[derive(Debug)]
pub(crate) struct MemberFile {
    database: Database,
    path: PathBuf,
    /// Dropped after the database, to tell that the file is closed.
    open: watch::Sender<()>,
}

impl MemberFile {
    /// Opens the file of `node`; also tells with which members its group began.
    pub(crate) fn open(
        path: &Path,
        group: GroupId,
        node: NodeId,
        start: Start,
    ) -> Result<(Self, BTreeMap<NodeId, String>), FileError> {
        let path = path.to_owned();
        let exists = path.exists();
        let founders = match start {
            Start::Create { .. } | Start::Join if exists => return Err(FileError::Exists { path }),
            Start::Resume if !exists => return Err(FileError::Missing { path }),
            Start::Create { members } => Some(members),
            Start::Join => Some(BTreeMap::new()),
            Start::Resume => None,
        };
        let Some(founders) = founders else {
            let (file, owner) = Self::find(&path, group, node)?;
            if file.row(NOT_BEGUN)?.is_some() {
                return Err(FileError::NotBegun { path });
            }
            return Ok((file, owner.founders));
        };
        Self::make(&path, &Owner { group, node, founders: founders.clone() }, Stage::Begun)?;
        let database = Database::open(&path).map_err(|error| failed(&path, error))?;
        Ok((Self::of(database, path), founders))
    }

    /// Opens a file that is there, if it belongs to this member.
    fn find(path: &Path, group: GroupId, node: NodeId) -> Result<(Self, Owner), FileError> {
        let database = Database::open(path).map_err(|error| failed(path, error))?;
        let file = Self::of(database, path.to_owned());
        let owner = file.owner()?;
        if (owner.group, owner.node) != (group, node) {
            let (path, found_node, found_group) = (file.path, owner.node, owner.group);
            return Err(FileError::Foreign { path, found_node, found_group, node, group });
        }
        Ok((file, owner))
    }

    /// Makes a file; it is on disk, whole, when this returns.
    fn make(path: &Path, owner: &Owner, stage: Stage) -> Result<(), FileError> {
        // A file without its first row would be nobody's: it gets its name when it has the row.
        let unfinished = path.with_extension("new");
        drop(Self::create(&unfinished, owner, stage)?);
        let io = |error: std::io::Error| failed(path, redb::Error::Io(error));
        std::fs::rename(&unfinished, path).map_err(io)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
    }

    fn of(database: Database, path: PathBuf) -> Self {
        Self { database, path, open: watch::Sender::new(()) }
    }

    /// Ends when the file is closed.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.open.subscribe()
    }

    fn create(path: &Path, owner: &Owner, stage: Stage) -> Result<Self, FileError> {
        if path.exists() {
            let removed = std::fs::remove_file(path);
            removed.map_err(|error| failed(path, redb::Error::Io(error)))?;
        }
        let database = Database::create(path).map_err(|error| failed(path, error))?;
        let file = Self::of(database, path.to_owned());
        let row = seal(|writer| {
            writer.number(FORMAT);
            owner.group.write(writer);
            writer.node(owner.node);
            writer.length(owner.founders.len());
            for (member, address) in &owner.founders {
                writer.node(*member);
                writer.bytes(address.as_bytes());
            }
        });
        file.transact(|transaction| {
            transaction.open_table(LOG)?;
            let mut rows = transaction.open_table(ROWS)?;
            rows.insert(OWNER, row.as_slice())?;
            if stage == Stage::Ready {
                rows.insert(NOT_BEGUN, [].as_slice())?;
            }
            Ok(())
        })?;
        Ok(file)
    }

    fn owner(&self) -> Result<Owner, FileError> {
        let row = self.row(OWNER)?.unwrap_or_default();
        let format = unseal(&row, |reader| {
            let format = reader.number()?;
            // What follows is read below, once the form is known.
            *reader = Reader::new(&[]);
            Ok(format)
        });
        let format = format.map_err(|error| self.damaged("first row", error))?;
        if format != FORMAT {
            return Err(FileError::Format { path: self.path.clone(), found: format });
        }
        let owner = unseal(&row, |reader| {
            reader.number()?;
            let group = GroupId::read(reader)?;
            let node = reader.node()?;
            let member = |reader: &mut Reader<'_>| Ok((reader.node()?, read_text(reader)?));
            let founders = reader.list("founders", member)?.into_iter().collect();
            Ok(Owner { group, node, founders })
        });
        owner.map_err(|error| self.damaged("first row", error))
    }

    fn damaged(&self, row: &'static str, source: DecodeError) -> FileError {
        FileError::Damaged { path: self.path.clone(), row, source }
    }

    fn transact(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), FileError> {
        let run = || {
            let transaction = self.database.begin_write()?;
            change(&transaction)?;
            transaction.commit()?;
            Ok::<(), redb::Error>(())
        };
        run().map_err(|error| failed(&self.path, error))
    }

    /// Runs a change where it may block.
    async fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<(), FileError> {
        let file = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || file.transact(change)).await;
        done.unwrap_or_else(|_| Err(FileError::Cancelled { path: self.path.clone() }))
    }

    fn row(&self, name: &str) -> Result<Option<Vec<u8>>, FileError> {
        let run = || {
            let table = self.database.begin_read()?.open_table(ROWS)?;
            let row = table.get(name)?.map(|row| row.value().to_vec());
            Ok::<_, redb::Error>(row)
        };
        run().map_err(|error| failed(&self.path, error))
    }

    fn read_row<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, FileError> {
        let row = self.row(name)?;
        let value = row.map(|row| unseal(&row, read)).transpose();
        value.map_err(|error| self.damaged(name, error))
    }

    async fn save_row(
        self: &Arc<Self>,
        name: &'static str,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), FileError> {
        let row = seal(write);
        self.change(move |transaction| {
            transaction.open_table(ROWS)?.insert(name, row.as_slice())?;
            Ok(())
        })
        .await
    }

    /// The last snapshot.
    pub(crate) fn snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, FileError> {
        self.read_row(SNAPSHOT, |reader| Ok((read_meta(reader)?, reader.bytes()?.to_vec())))
    }

    /// Replaces the last snapshot.
    pub(crate) async fn save_snapshot(
        self: &Arc<Self>,
        meta: SnapshotMeta,
        bytes: Vec<u8>,
    ) -> Result<(), FileError> {
        self.save_row(SNAPSHOT, |writer| {
            write_meta(writer, &meta);
            writer.bytes(&bytes);
        })
        .await
    }

    fn entries(
        &self,
        range: (Bound<u64>, Bound<u64>),
        bytes_max: usize,
    ) -> Result<Vec<Entry>, FileError> {
        let run = || {
            let table = self.database.begin_read()?.open_table(LOG)?;
            let mut rows = Vec::new();
            let mut bytes = 0;
            for row in table.range(range)? {
                let row = row?.1.value().to_vec();
                bytes += row.len();
                if bytes_max < bytes && !rows.is_empty() {
                    break;
                }
                rows.push(row);
            }
            Ok::<_, redb::Error>(rows)
        };
        let rows = run().map_err(|error| failed(&self.path, error))?;
        let entries = rows.iter().map(|row| unseal(row, read_entry));
        let entries: Result<Vec<Entry>, DecodeError> = entries.collect();
        entries.map_err(|error| self.damaged("log", error))
    }

    fn last_entry(&self) -> Result<Option<LogId>, FileError> {
        let run = || {
            let table = self.database.begin_read()?.open_table(LOG)?;
            let row = table.last()?.map(|(_, row)| row.value().to_vec());
            Ok::<_, redb::Error>(row)
        };
        let row = run().map_err(|error| failed(&self.path, error))?;
        let entry = row.map(|row| unseal(&row, read_entry)).transpose();
        Ok(entry.map_err(|error| self.damaged("log", error))?.map(|entry| entry.log_id))
    }
}

fn failed(path: &Path, error: impl Into<redb::Error>) -> FileError {
    FileError::Database { path: path.to_owned(), source: Box::new(error.into()) }
}

/// The library's way to the vote and the log.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    file: Arc<MemberFile>,
}

impl LogFile {
    pub(crate) const fn new(file: Arc<MemberFile>) -> Self {
        Self { file }
    }
}

fn unread(error: &FileError) -> StorageError<u64> {
    StorageIOError::read_logs(openraft::AnyError::new(error)).into()
}

fn unwritten(error: &FileError) -> StorageError<u64> {
    StorageIOError::write_logs(openraft::AnyError::new(error)).into()
}

impl RaftLogReader<Types> for LogFile {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.file.entries(range, usize::MAX).map_err(|error| unread(&error))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        let range = (Bound::Included(start), Bound::Excluded(end));
        self.file.entries(range, READ_BYTES_MAX).map_err(|error| unread(&error))
    }
}

impl RaftLogStorage<Types> for LogFile {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<u64>> {
        let cut = self.file.read_row(CUT, read_log_id).map_err(|error| unread(&error))?;
        let last = self.file.last_entry().map_err(|error| unread(&error))?;
        Ok(LogState { last_purged_log_id: cut, last_log_id: last.or(cut) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError<u64>> {
        let saved = self.file.save_row(VOTE, |writer| write_vote(writer, vote)).await;
        saved.map_err(|error| StorageIOError::write_vote(openraft::AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError<u64>> {
        let vote = self.file.read_row(VOTE, read_vote);
        vote.map_err(|error| StorageIOError::read_vote(openraft::AnyError::new(&error)).into())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let row = |entry: Entry| (entry.log_id.index, seal(|writer| write_entry(writer, &entry)));
        let rows: Vec<(u64, Vec<u8>)> = entries.into_iter().map(row).collect();
        let written = self
            .file
            .change(move |transaction| {
                let mut table = transaction.open_table(LOG)?;
                for (index, row) in &rows {
                    table.insert(index, row.as_slice())?;
                }
                Ok(())
            })
            .await;
        if let Err(error) = written {
            callback.log_io_completed(Err(std::io::Error::other(error.to_string())));
            return Err(unwritten(&error));
        }
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError<u64>> {
        let done = self
            .file
            .change(move |transaction| {
                let mut table = transaction.open_table(LOG)?;
                table.retain_in(log_id.index.., |_, _| false)?;
                Ok(())
            })
            .await;
        done.map_err(|error| unwritten(&error))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError<u64>> {
        let row = seal(|writer| write_log_id(writer, &log_id));
        let done = self
            .file
            .change(move |transaction| {
                transaction.open_table(ROWS)?.insert(CUT, row.as_slice())?;
                transaction.open_table(LOG)?.retain_in(..=log_id.index, |_, _| false)?;
                Ok(())
            })
            .await;
        done.map_err(|error| unwritten(&error))
    }
}
