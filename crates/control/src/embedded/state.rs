//! Holds what the commands of the log add up to: the keys and the boots, at every member the same.
//!
//! It lives in memory; on disk are the last snapshot and the log behind it, from which the library
//! builds it again after a restart. Whoever waits for a key is woken after each batch of commands.
//!
//! Ensures: a command has one outcome, decided by the commands before it and by nothing else.

use std::{collections::BTreeMap, sync::Arc};

use antecede_model::{
    codec::{DecodeError, Reader, Writer},
    ids::{Boot, NodeId},
};
use openraft::{
    EntryPayload, RaftSnapshotBuilder, Snapshot, StorageError, StorageIOError,
    storage::RaftStateMachine,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    codec::{read_key, read_stored, write_key, write_stored},
    disk::MemberFile,
    raft::{Command, Counted, Entry, LogId, Outcome, SnapshotMeta, StoredMembership, Types},
};
use crate::store::{NODES_MAX, Revision, STATE_BYTES_MAX, StoreKey, Stored};

/// The keys and the boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    entries: BTreeMap<StoreKey, Stored>,
    boots: BTreeMap<NodeId, Boot>,
    /// Bytes of all keys and values.
    bytes: usize,
}

impl Image {
    fn swap(&mut self, key: StoreKey, expected: Option<Revision>, value: Arc<[u8]>) -> Outcome {
        let current = self.entries.get(&key);
        if current.map(|stored| stored.revision) != expected {
            return Outcome::Conflict(current.cloned());
        }
        let freed = current.map_or(0, |stored| key.as_str().len() + stored.value.len());
        let bytes = self.bytes - freed + key.as_str().len() + value.len();
        if STATE_BYTES_MAX < bytes {
            return Outcome::Full { what: Counted::Bytes, count: bytes };
        }
        let revision = expected.map_or(Revision::FIRST, Revision::next);
        self.entries.insert(key, Stored { revision, value });
        self.bytes = bytes;
        Outcome::Swapped(revision)
    }

    fn boot(&mut self, node: NodeId, boot: Boot) -> Outcome {
        let count = self.boots.len();
        let Some(newest) = self.boots.get_mut(&node) else {
            if NODES_MAX <= count {
                return Outcome::Full { what: Counted::Nodes, count: count + 1 };
            }
            self.boots.insert(node, boot);
            return Outcome::Newest(boot);
        };
        *newest = boot.max(*newest);
        Outcome::Newest(*newest)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.length(self.entries.len());
        for (key, stored) in &self.entries {
            write_key(writer, key);
            write_stored(writer, stored);
        }
        writer.length(self.boots.len());
        for (node, boot) in &self.boots {
            writer.node(*node);
            writer.number(boot.0);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut image = Self::default();
        for (key, stored) in
            reader.list("keys", |reader| Ok((read_key(reader)?, read_stored(reader)?)))?
        {
            image.bytes += key.as_str().len() + stored.value.len();
            image.entries.insert(key, stored);
        }
        let boots = reader.list("boots", |reader| Ok((reader.node()?, Boot(reader.number()?))))?;
        image.boots.extend(boots);
        Ok(image)
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut Writer::new(&mut bytes));
        bytes
    }

    /// Reads the state that a snapshot holds.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let image = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(image)
    }
}

#[derive(Debug, Default)]
struct Applied {
    image: Image,
    last: Option<LogId>,
    membership: StoredMembership,
}

/// The state as the member's other parts see it.
#[derive(Debug)]
pub(crate) struct State {
    applied: Mutex<Applied>,
    /// Counts the batches that were applied.
    batches: watch::Sender<u64>,
}

impl State {
    /// The newest applied state of a key.
    pub(crate) fn stored(&self, key: &StoreKey) -> Option<Stored> {
        self.applied.lock().image.entries.get(key).cloned()
    }

    /// The newest applied boot of a node.
    pub(crate) fn boot(&self, node: NodeId) -> Option<Boot> {
        self.applied.lock().image.boots.get(&node).copied()
    }

    /// Waits until a key has a state newer than `after`. `None` when the member is gone.
    pub(crate) async fn newer(&self, key: &StoreKey, after: Option<Revision>) -> Option<Stored> {
        let mut batches = self.batches.subscribe();
        loop {
            batches.mark_unchanged();
            let stored = self.stored(key);
            if let Some(stored) = stored.filter(|stored| after < Some(stored.revision)) {
                return Some(stored);
            }
            batches.changed().await.ok()?;
        }
    }
}

/// The library's way to the state.
#[derive(Debug)]
pub(crate) struct StateMachine {
    state: Arc<State>,
    file: Arc<MemberFile>,
}

impl StateMachine {
    /// Begins with the last snapshot of the file.
    pub(crate) fn open(
        file: Arc<MemberFile>,
    ) -> Result<(Self, Arc<State>), Box<StorageError<u64>>> {
        let mut applied = Applied::default();
        if let Some((meta, bytes)) = file.snapshot().map_err(|error| unreadable(&error))? {
            applied.image = Image::decode(&bytes).map_err(|error| unreadable(&error))?;
            applied.last = meta.last_log_id;
            applied.membership = meta.last_membership;
        }
        let state =
            Arc::new(State { applied: Mutex::new(applied), batches: watch::Sender::new(0) });
        Ok((Self { state: Arc::clone(&state), file }, state))
    }
}

fn unreadable(error: &(impl std::error::Error + 'static)) -> StorageError<u64> {
    StorageIOError::read_state_machine(openraft::AnyError::new(error)).into()
}

fn unwritten(error: &(impl std::error::Error + 'static)) -> StorageError<u64> {
    StorageIOError::write_state_machine(openraft::AnyError::new(error)).into()
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembership), StorageError<u64>> {
        let applied = self.state.applied.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut outcomes = Vec::new();
        {
            let mut applied = self.state.applied.lock();
            for entry in entries {
                applied.last = Some(entry.log_id);
                outcomes.push(match entry.payload {
                    EntryPayload::Blank => Outcome::Nothing,
                    EntryPayload::Normal(Command::Swap { key, expected, value }) => {
                        applied.image.swap(key, expected, value)
                    }
                    EntryPayload::Normal(Command::Boot { node, boot }) => {
                        applied.image.boot(node, boot)
                    }
                    EntryPayload::Membership(membership) => {
                        applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                        Outcome::Nothing
                    }
                });
            }
        }
        self.state.batches.send_modify(|count| *count += 1);
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let applied = self.state.applied.lock();
        SnapshotBuilder {
            image: applied.image.clone(),
            meta: SnapshotMeta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
                snapshot_id: applied.last.map_or_else(String::new, |log_id| log_id.to_string()),
            },
            file: Arc::clone(&self.file),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError<u64>> {
        let image = Image::decode(&snapshot).map_err(|error| unreadable(&error))?;
        self.file
            .save_snapshot(meta.clone(), *snapshot)
            .await
            .map_err(|error| unwritten(&error))?;
        {
            let mut applied = self.state.applied.lock();
            applied.image = image;
            applied.last = meta.last_log_id;
            applied.membership = meta.last_membership.clone();
        }
        self.state.batches.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        let snapshot = self.file.snapshot().map_err(|error| unreadable(&error))?;
        Ok(snapshot.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(bytes) }))
    }
}

/// A copy of the state, to be written beside the commands that go on.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    image: Image,
    meta: SnapshotMeta,
    file: Arc<MemberFile>,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let bytes = self.image.encode();
        let saved = self.file.save_snapshot(self.meta.clone(), bytes.clone()).await;
        saved.map_err(|error| unwritten(&error))?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use antecede_model::ids::{DatacenterId, DeploymentId};
    use openraft::testing::{StoreBuilder, Suite};
    use tempfile::TempDir;

    use super::{
        super::{
            GroupId,
            disk::{LogFile, Start},
        },
        *,
    };
    use crate::store::VALUE_BYTES_MAX;

    /// Builds members' files for the library's own tests of a storage.
    struct Files;

    impl StoreBuilder<Types, LogFile, StateMachine, TempDir> for Files {
        async fn build(&self) -> Result<(TempDir, LogFile, StateMachine), StorageError<u64>> {
            let folder = TempDir::new().unwrap();
            let group = GroupId { deployment: DeploymentId([1; 16]), datacenter: None };
            let node = NodeId { datacenter: DatacenterId(1), number: 1 };
            let path = folder.path().join("member");
            let (file, _) = MemberFile::open(&path, group, node, Start::Join).unwrap();
            let file = Arc::new(file);
            let (machine, _) = StateMachine::open(Arc::clone(&file)).unwrap();
            Ok((folder, LogFile::new(file), machine))
        }
    }

    #[test]
    fn the_library_finds_no_fault_with_files_and_state() {
        let found = Suite::test_all(Files);
        assert!(found.is_ok(), "{found:?}");
    }

    fn key(name: &str) -> StoreKey {
        StoreKey::new(name).unwrap()
    }

    #[test]
    fn a_swap_takes_effect_only_on_the_state_that_it_names() {
        let mut image = Image::default();
        let [one, two]: [Arc<[u8]>; 2] = [Arc::from(*b"one"), Arc::from(*b"two")];
        let refused = image.swap(key("k"), Some(Revision(1)), Arc::clone(&one));
        assert_eq!(refused, Outcome::Conflict(None));
        let first = image.swap(key("k"), None, Arc::clone(&one));
        assert_eq!(first, Outcome::Swapped(Revision(1)));
        let current = Some(Stored { revision: Revision(1), value: one });
        let refused = image.swap(key("k"), None, Arc::clone(&two));
        assert_eq!(refused, Outcome::Conflict(current));
        let second = image.swap(key("k"), Some(Revision(1)), two);
        assert_eq!(second, Outcome::Swapped(Revision(2)));
    }

    #[test]
    fn a_boot_never_goes_back() {
        let mut image = Image::default();
        let node = NodeId { datacenter: DatacenterId(1), number: 1 };
        assert_eq!(image.boot(node, Boot(4)), Outcome::Newest(Boot(4)));
        assert_eq!(image.boot(node, Boot(3)), Outcome::Newest(Boot(4)));
        assert_eq!(image.boot(node, Boot(5)), Outcome::Newest(Boot(5)));
    }

    #[test]
    fn the_state_is_bounded_and_a_replaced_value_gives_its_bytes_back() {
        let mut image = Image::default();
        let large: Arc<[u8]> = Arc::from(vec![7; VALUE_BYTES_MAX]);
        let mut kept = 0;
        while let Outcome::Swapped(_) =
            image.swap(key(&format!("{kept}")), None, Arc::clone(&large))
        {
            kept += 1;
        }
        assert_eq!(kept, STATE_BYTES_MAX / (VALUE_BYTES_MAX + 1));
        let smaller = image.swap(key("0"), Some(Revision(1)), Arc::from(*b"small"));
        assert_eq!(smaller, Outcome::Swapped(Revision(2)));
        assert!(matches!(image.swap(key("new"), None, large), Outcome::Swapped(_)));
    }

    #[test]
    fn a_snapshot_holds_all_of_the_state() {
        let mut image = Image::default();
        image.swap(key("a"), None, Arc::from(*b"1"));
        image.swap(key("b"), None, Arc::from(*b"2"));
        image.boot(NodeId { datacenter: DatacenterId(3), number: 4 }, Boot(5));
        assert_eq!(Image::decode(&image.encode()), Ok(image));
    }
}
