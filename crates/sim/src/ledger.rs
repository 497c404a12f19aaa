//! Keeps what every node's disk holds, what was committed and what was acknowledged: the facts that
//! the properties are judged by, gathered beside the protocol and never given to it.
//!
//! Assumes: it is told every record that is appended or read back, in order.

use std::collections::{BTreeMap, BTreeSet};

use antecede_model::{
    applied::AppliedSet,
    clock::Timestamp,
    dependency::Dependency,
    ids::{DatacenterId, NodeId, Position, ShardId},
    version::Version,
};
use antecede_protocol::{
    copied::Start,
    entry::{Change, Entry, Identity},
    record::Record,
};
use rustc_hash::FxHashMap;

use crate::{
    check::{Failure, retries},
    plan::Durability,
    workload::{KeyId, KeyTable},
};

/// One entry in a node's log.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Its name in the chain.
    pub identity: Identity,
    /// Where it began.
    pub origin: DatacenterId,
    /// Its stamp.
    pub stamp: Timestamp,
    /// When it became readable in the node's datacenter.
    pub visible_at: Timestamp,
    /// Its place in the node's log.
    pub index: u64,
    /// Whether it is a tick.
    pub is_tick: bool,
}

/// What a node's log holds of one shard, in the order of positions.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What lies up to here was copied as the state that it came to.
    base: Position,
    entries: Vec<Stored>,
    /// What a datacenter that was added has copied from another one.
    seeded: Vec<(DatacenterId, AppliedSet)>,
    /// Places of the entries by origin and stamp.
    by_stamp: BTreeMap<(DatacenterId, Timestamp), Position>,
}

impl Image {
    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[Stored] {
        &self.entries
    }

    /// The entry at a position.
    #[must_use]
    pub fn at(&self, position: Position) -> Option<&Stored> {
        let found = self.entries.binary_search_by_key(&position, |entry| entry.identity.position);
        found.ok().map(|place| &self.entries[place])
    }

    /// The entry of this origin with this stamp.
    #[must_use]
    pub fn named(&self, origin: DatacenterId, stamp: Timestamp) -> Option<&Stored> {
        self.at(*self.by_stamp.get(&(origin, stamp))?)
    }

    /// What lies up to here is not there as entries.
    #[must_use]
    pub const fn base(&self) -> Position {
        self.base
    }

    fn begin(&mut self, start: &Start, is_added: bool) {
        let lines = start.lines.iter().filter(|_| is_added);
        let lines = lines.map(|line| (line.origin, line.applied.clone()));
        *self = Self { base: start.position(), seeded: lines.collect(), ..Self::default() };
    }

    fn push_front(&mut self, stored: Stored) {
        self.by_stamp.insert((stored.origin, stored.stamp), stored.identity.position);
        self.entries.insert(0, stored);
    }

    fn cut_back(&mut self, to: Position) {
        while let Some(last) = self.entries.last()
            && to < last.identity.position
        {
            self.by_stamp.remove(&(last.origin, last.stamp));
            self.entries.pop();
        }
    }

    fn push(&mut self, stored: Stored) {
        let position = stored.identity.position;
        while let Some(last) = self.entries.last()
            && position <= last.identity.position
        {
            self.by_stamp.remove(&(last.origin, last.stamp));
            self.entries.pop();
        }
        self.by_stamp.insert((stored.origin, stored.stamp), position);
        self.entries.push(stored);
    }
}

/// What is known of one node's log.
#[derive(Clone, Debug, Default)]
pub struct NodeLedger {
    /// By shard number.
    pub images: Vec<Image>,
    /// Everything up to here counts as persisted.
    pub counted_to: u64,
    /// Everything up to here survives a power loss.
    pub synced_to: u64,
    /// Whether the process runs.
    pub is_up: bool,
}

/// An acknowledged write.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// The write.
    pub write: Dependency,
    /// Which record of the history tells of it.
    pub record: usize,
}

/// What a replica's effects come to for one key, computed apart from the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The largest version written.
    pub version: Version,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Committed entries by position: identity, origin, stamp.
pub type Committed = BTreeMap<Position, (Identity, DatacenterId, Timestamp)>;

/// All facts.
#[derive(Debug)]
pub struct Ledger {
    nodes: BTreeMap<NodeId, NodeLedger>,
    durability: Durability,
    /// Checksums by identity. Looked up, never walked.
    identities: FxHashMap<(DatacenterId, ShardId, u64, u64, Position), u32>,
    /// Versions by value. Looked up, never walked.
    values: FxHashMap<Vec<u8>, Version>,
    /// Values by write. Looked up, never walked.
    values_of: FxHashMap<(ShardId, Version), Vec<Vec<u8>>>,
    /// Values of which a committed write is known. Looked up, never walked.
    committed_values: FxHashMap<Vec<u8>, Version>,
    committed: BTreeMap<(DatacenterId, ShardId), Committed>,
    /// Visible-at and position by datacenter, shard, origin and stamp. Looked up, never walked.
    visible: FxHashMap<(DatacenterId, ShardId, DatacenterId, Timestamp), (Timestamp, Position)>,
    /// The largest stamp of a committed write of each origin.
    newest_committed: BTreeMap<DatacenterId, Timestamp>,
    acknowledged: Vec<Acknowledged>,
    /// Checksums of writes by origin, shard and stamp. Looked up, never walked.
    stamped: FxHashMap<(DatacenterId, ShardId, Timestamp), u32>,
    /// The largest version of each key among all entries in logs.
    newest: BTreeMap<KeyId, BTreeMap<Version, Option<Vec<u8>>>>,
    /// Records appended by running nodes so far.
    appended: u64,
    newest_stamp: BTreeMap<DatacenterId, Timestamp>,
    /// Datacenters that were added later: what they begin with others have committed.
    added: BTreeSet<DatacenterId>,
}

impl Ledger {
    /// Facts about nodes that have written nothing.
    #[must_use]
    pub fn new(nodes: impl Iterator<Item = NodeId>, shards: u16, durability: Durability) -> Self {
        let shards = usize::from(shards);
        let empty = NodeLedger { images: vec![Image::default(); shards], ..NodeLedger::default() };
        Self {
            nodes: nodes.map(|node| (node, empty.clone())).collect(),
            durability,
            identities: FxHashMap::default(),
            values: FxHashMap::default(),
            values_of: FxHashMap::default(),
            committed_values: FxHashMap::default(),
            committed: BTreeMap::new(),
            visible: FxHashMap::default(),
            newest_committed: BTreeMap::new(),
            acknowledged: Vec::new(),
            stamped: FxHashMap::default(),
            newest: BTreeMap::new(),
            appended: 0,
            newest_stamp: BTreeMap::new(),
            added: BTreeSet::new(),
        }
    }

    /// Takes note that a datacenter is added, and begins with what another one has.
    pub fn add_datacenter(&mut self, id: DatacenterId) {
        self.added.insert(id);
    }

    /// When a record counts as persisted.
    #[must_use]
    pub const fn durability(&self) -> Durability {
        self.durability
    }

    /// What is known of a node.
    #[must_use]
    pub fn node(&self, node: NodeId) -> &NodeLedger {
        &self.nodes[&node]
    }

    /// The same, to be changed.
    pub fn node_mut(&mut self, node: NodeId) -> &mut NodeLedger {
        self.nodes.get_mut(&node).expect("all nodes are known from the beginning")
    }

    /// What a node's log holds of a shard.
    #[must_use]
    pub fn image(&self, node: NodeId, shard: ShardId) -> &Image {
        &self.nodes[&node].images[usize::from(shard.0)]
    }

    /// Takes note of an entry that a node appended, or read back.
    ///
    /// # Errors
    /// When another entry of the same name is known, or another one is committed there.
    pub fn add(
        &mut self,
        node: NodeId,
        shard: ShardId,
        entry: &Entry,
        index: u64,
        keys: &KeyTable,
    ) -> Result<(), Failure> {
        let identity = entry.identity;
        let name = |datacenter: DatacenterId| {
            (datacenter, shard, identity.epoch.0, identity.boot.0, identity.position)
        };
        let has_the_name =
            |datacenter| self.identities.get(&name(datacenter)) == Some(&identity.checksum);
        // What a new datacenter has copied has the name that the chain of its donor gave it.
        let mut others = self.nodes.keys().map(|other| other.datacenter);
        let known = if has_the_name(node.datacenter) || others.any(has_the_name) {
            identity.checksum
        } else {
            *self.identities.entry(name(node.datacenter)).or_insert(identity.checksum)
        };
        if known != identity.checksum {
            return Err(Failure::new(
                "chain_prefix",
                format!("{node} has another entry of shard {shard} under the name {identity:?}"),
            ));
        }
        if let Some(committed) = self.committed.get(&(node.datacenter, shard))
            && let Some((there, _, _)) = committed.get(&identity.position)
            && *there != identity
            // A head that nobody follows any more may go on with what it made in its own epoch.
            && there.epoch <= identity.epoch
            && self.durability == Durability::Always
        {
            return Err(Failure::new(
                "chain_prefix",
                format!(
                    "{node} appends {identity:?} to shard {shard}, but {there:?} is committed there"
                ),
            ));
        }
        let stored = stored(entry, index);
        self.node_mut(node).images[usize::from(shard.0)].push(stored);
        self.appended += 1;
        if entry.origin == node.datacenter && !entry.is_tick() {
            self.forget_namesake(shard, entry, keys);
            self.add_values(shard, entry, keys);
        }
        Ok(())
    }

    /// A stamp that only a lost log had may be given again: then the write that had it before is no
    /// more.
    fn forget_namesake(&mut self, shard: ShardId, entry: &Entry, keys: &KeyTable) {
        let name = (entry.origin, shard, entry.stamp);
        let known = self.stamped.insert(name, entry.identity.checksum);
        if known.is_some_and(|known| known != entry.identity.checksum) {
            for (key, versions) in &mut self.newest {
                if keys.of_id(*key).shard == shard {
                    versions.remove(&entry.version());
                }
            }
        }
    }

    /// Takes note of what a copy does to a node's log.
    pub fn copy(&mut self, node: NodeId, record: &Record, index: u64) {
        let Some(shard) = record.shard() else { return };
        let is_added = self.added.contains(&node.datacenter);
        let image = &mut self.node_mut(node).images[usize::from(shard.0)];
        match record {
            Record::CutBack { to, .. } => image.cut_back(*to),
            Record::Begun { start, .. } => image.begin(start, is_added),
            Record::History { entry, .. } => image.push_front(stored(entry, index)),
            Record::Entry { .. }
            | Record::Part { .. }
            | Record::Trimmed { .. }
            | Record::Ceiling(_) => return,
        }
        self.appended += 1;
    }

    /// Whether a node's log has a write, as an entry or within what it has copied.
    #[must_use]
    pub fn holds(&self, node: NodeId, write: Dependency) -> bool {
        self.has_entry(node, write) || self.has_copied(node, write)
    }

    /// Whether a node's log has a write as an entry.
    #[must_use]
    pub fn has_entry(&self, node: NodeId, write: Dependency) -> bool {
        self.image(node, write.shard).named(write.origin, write.stamp).is_some()
    }

    /// Whether a write is within what a node has copied.
    #[must_use]
    pub fn has_copied(&self, node: NodeId, write: Dependency) -> bool {
        let at = self.visible.get(&(node.datacenter, write.shard, write.origin, write.stamp));
        let image = self.image(node, write.shard);
        match at {
            Some((_, position)) => *position <= image.base,
            // Nobody there has committed it: it came with what another datacenter had.
            None => image
                .seeded
                .iter()
                .any(|(origin, applied)| *origin == write.origin && applied.contains(write.stamp)),
        }
    }

    fn add_values(&mut self, shard: ShardId, entry: &Entry, keys: &KeyTable) {
        let version = entry.version();
        let mut values = Vec::new();
        let newest = self.newest_stamp.entry(entry.origin).or_default();
        *newest = (*newest).max(entry.stamp);
        entry.for_each_effect(|effect| {
            let value = match effect.change {
                Change::Set { value, deadline: _ } => {
                    // One that was not committed may be sent again; the one that is, counts.
                    if !self.committed_values.contains_key(value) {
                        self.values.insert(value.to_vec(), version);
                    }
                    values.push(value.to_vec());
                    Some(value.to_vec())
                }
                Change::Delete => None,
                Change::Ttl { .. } | Change::Hide => return,
            };
            if let Some(key) = keys.find(effect.key) {
                self.newest.entry(key).or_default().insert(version, value);
            }
        });
        self.values_of.insert((shard, version), values);
    }

    /// Takes note of the values of a write that its own datacenter has committed.
    fn commit_values(&mut self, shard: ShardId, version: Version) -> Result<(), Failure> {
        for value in self.values_of.remove(&(shard, version)).unwrap_or_default() {
            let known = self.committed_values.insert(value.clone(), version);
            if self.durability == Durability::Always {
                retries::at_commit(&value, version, known)?;
            }
            self.values.insert(value, version);
        }
        Ok(())
    }

    /// The version that wrote a value.
    #[must_use]
    pub fn version_of(&self, value: &[u8]) -> Option<Version> {
        self.values.get(value).copied()
    }

    /// Everything that was ever written to a key, in version order, also what was never committed.
    #[must_use]
    pub fn written(&self, key: KeyId) -> Option<&BTreeMap<Version, Option<Vec<u8>>>> {
        self.newest.get(&key)
    }

    /// The largest stamp of a committed write of each origin.
    #[must_use]
    pub const fn newest_committed(&self) -> &BTreeMap<DatacenterId, Timestamp> {
        &self.newest_committed
    }

    /// The largest stamp that each origin gave to a write.
    #[must_use]
    pub const fn newest_stamps(&self) -> &BTreeMap<DatacenterId, Timestamp> {
        &self.newest_stamp
    }

    /// Takes note that a tail committed an entry.
    ///
    /// Tells whether it is the first time.
    ///
    /// # Errors
    /// When another one is committed there.
    pub fn commit(
        &mut self,
        tail: NodeId,
        shard: ShardId,
        stored: Stored,
    ) -> Result<bool, Failure> {
        let position = stored.identity.position;
        let what = (stored.identity, stored.origin, stored.stamp);
        let committed = self.committed.entry((tail.datacenter, shard)).or_default();
        let Some(known) = committed.get(&position) else {
            committed.insert(position, what);
            let name = (tail.datacenter, shard, stored.origin, stored.stamp);
            self.visible.insert(name, (stored.visible_at, position));
            if stored.origin == tail.datacenter && !stored.is_tick {
                let version = Version { timestamp: stored.stamp, origin: stored.origin };
                self.commit_values(shard, version)?;
                let newest = self.newest_committed.entry(stored.origin).or_default();
                *newest = (*newest).max(stored.stamp);
            }
            return Ok(true);
        };
        if *known != what {
            return Err(Failure::new(
                "chain_prefix",
                format!("{tail} commits {what:?} in shard {shard}, but {known:?} is committed"),
            ));
        }
        Ok(false)
    }

    /// When a committed write became visible in a datacenter.
    #[must_use]
    pub fn visible_at(&self, datacenter: DatacenterId, write: Dependency) -> Option<Timestamp> {
        let name = (datacenter, write.shard, write.origin, write.stamp);
        self.visible.get(&name).map(|(visible_at, _)| *visible_at)
    }

    /// What is committed in a datacenter's shard.
    #[must_use]
    pub fn committed(&self, datacenter: DatacenterId, shard: ShardId) -> Option<&Committed> {
        self.committed.get(&(datacenter, shard))
    }

    /// Takes note of an acknowledged write.
    pub fn acknowledge(&mut self, write: Dependency, record: usize) {
        self.acknowledged.push(Acknowledged { write, record });
    }

    /// All acknowledged writes.
    #[must_use]
    pub fn acknowledged(&self) -> &[Acknowledged] {
        &self.acknowledged
    }

    /// Records appended so far.
    #[must_use]
    pub const fn appended(&self) -> u64 {
        self.appended
    }

    /// A node has ended: what is not persisted does not count any more.
    pub fn down(&mut self, node: NodeId) {
        let ledger = self.node_mut(node);
        ledger.is_up = false;
    }

    /// A node begins again: its log is read back from here on.
    pub fn begin_again(&mut self, node: NodeId) {
        let ledger = self.node_mut(node);
        ledger.images.iter_mut().for_each(|image| *image = Image::default());
        ledger.is_up = true;
    }
}

fn stored(entry: &Entry, index: u64) -> Stored {
    Stored {
        identity: entry.identity,
        origin: entry.origin,
        stamp: entry.stamp,
        visible_at: entry.visible_at,
        index,
        is_tick: entry.is_tick(),
    }
}
