//! One node's log in memory, which persists only when the script lets it.
//!
//! Assumes: records are appended by machines only, so that each of them can be read back.
//! Ensures: what was not persisted, or with a loosened disk not synced, is gone after a crash; what
//! the disk would bring back is known, so that every commit can be checked against the disks of the
//! whole chain.

use std::collections::{BTreeMap, BTreeSet};

use antecede_model::{
    clock::Timestamp,
    ids::{DatacenterId, LogIndex, Position, ShardId},
};
use antecede_protocol::{
    copied::Start,
    geo::kept::Behind,
    machine::{Persisted, Room, Storage},
    record::Record,
};

/// Names an entry wherever it stands.
type EntryName = (ShardId, DatacenterId, Timestamp);

/// A node's log.
#[derive(Debug, Default)]
pub(super) struct Disk {
    records: Vec<Vec<u8>>,
    persisted: usize,
    /// As many records as survive a crash once the disk is loosened.
    synced: Option<usize>,
    /// How many records were ever appended.
    pub(super) appended: usize,
    /// Whether nothing is persisted for now.
    pub(super) is_held: bool,
    /// What it still takes.
    pub(super) room: Room,
}

impl Storage for Disk {
    fn append(&mut self, write: &mut dyn FnMut(&mut Vec<u8>)) -> LogIndex {
        let mut bytes = Vec::new();
        write(&mut bytes);
        let place = self.records.len() + 1;
        assert!(Record::read(&bytes).is_ok(), "a machine appends whole records");
        self.records.push(bytes);
        self.appended += 1;
        LogIndex(place as u64)
    }

    fn reached(&self) -> Persisted {
        let synced = self.synced.unwrap_or(self.persisted);
        Persisted { to: LogIndex(self.persisted as u64), synced_to: LogIndex(synced as u64) }
    }

    fn room(&self) -> Room {
        self.room
    }

    fn has_memory(&self) -> bool {
        true
    }

    fn held_up_by(&self) -> Option<Behind> {
        None
    }
}

impl Disk {
    /// Whether an entry, or what it did, survives a crash.
    pub(super) fn has_persisted(&self, (shard, origin, stamp): EntryName) -> bool {
        let mut held: BTreeMap<Position, (DatacenterId, Timestamp)> = BTreeMap::new();
        let mut copied = BTreeSet::new();
        let mut start = Start::default();
        for bytes in &self.records[..self.persisted] {
            let record = Record::read(bytes).unwrap();
            if record.shard() != Some(shard) {
                continue;
            }
            match record {
                Record::Entry { entry, .. } | Record::History { entry, .. } => {
                    held.insert(entry.identity.position, (entry.origin, entry.stamp));
                }
                Record::CutBack { to, .. } => drop(held.split_off(&to.next())),
                Record::Begun { start: begun, .. } => {
                    held.clear();
                    copied.clear();
                    start = begun;
                }
                Record::Part { part, .. } => drop(copied.insert(part.next)),
                Record::Trimmed { .. } | Record::Ceiling(_) => {}
            }
        }
        let is_whole = start.last.is_some() && copied.contains(&None);
        let line = start.lines.iter().find(|line| line.origin == origin);
        let is_copied = is_whole && line.is_some_and(|line| line.applied.contains(stamp));
        is_copied || held.values().any(|name| *name == (origin, stamp))
    }

    /// Loses everything, for good.
    pub(super) fn wipe(&mut self) {
        self.records.clear();
        self.persisted = 0;
        self.synced = self.synced.map(|_| 0);
    }

    /// Persists everything, if it may; tells how many records that were.
    pub(super) fn persist(&mut self) -> usize {
        let count = self.records.len() - self.persisted;
        if self.is_held {
            return 0;
        }
        self.persisted = self.records.len();
        count
    }

    /// From now on records are handed to the operating system and not synced: weaker fsync.
    pub(super) fn loosen(&mut self) {
        self.synced = Some(self.persisted);
    }

    /// Loses what would not survive the loss of power; tells how many records that were.
    pub(super) fn crash(&mut self) -> usize {
        self.persisted = self.synced.unwrap_or(self.persisted);
        let lost = self.records.len() - self.persisted;
        self.records.truncate(self.persisted);
        lost
    }

    /// What a restarted node finds.
    pub(super) fn records(&self) -> Vec<(LogIndex, ShardId, Record)> {
        let records = self.records.iter().map(|bytes| Record::read(bytes).unwrap());
        let numbered = (1..).map(LogIndex).zip(records);
        numbered.filter_map(|(index, record)| Some((index, record.shard()?, record))).collect()
    }
}
