//! Reads from a node's log what its own datacenter has written.
//!
//! For the folder of a datacenter that was lost: what it had acknowledged and not sent is nowhere
//! else. The records say it alone, in the order in which they were written; keys and checkpoints are
//! not needed, since an entry stays in the log until it is known to be applied everywhere.
//!
//! Ensures: an entry that was committed by this replica is there, unless it was known to be stable.
//! Limits: the last entries may never have been acknowledged; as far as this log tells, those behind
//! what it knows to be committed.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;

use antecede_model::ids::{DatacenterId, Position, ShardId};

use crate::{entry::Entry, record::Record};

/// What a log holds of one shard.
#[derive(Debug, Default)]
struct Held {
    entries: BTreeMap<Position, Entry>,
    committed_to: Position,
}

/// What a log holds of its own datacenter's writes.
#[derive(Debug)]
pub struct OwnWrites {
    origin: DatacenterId,
    shards: BTreeMap<ShardId, Held>,
}

impl OwnWrites {
    /// Nothing yet of a datacenter's writes.
    #[must_use]
    pub const fn of(origin: DatacenterId) -> Self {
        Self { origin, shards: BTreeMap::new() }
    }

    /// Takes the next record of the log.
    pub fn take(&mut self, record: Record) {
        let Some(shard) = record.shard() else { return };
        let held = self.shards.entry(shard).or_default();
        match record {
            Record::Entry { committed_to, entry, .. } => {
                held.committed_to = held.committed_to.max(committed_to);
                held.keep(self.origin, entry);
            }
            Record::History { entry, .. } => {
                held.committed_to = held.committed_to.max(entry.identity.position);
                held.keep(self.origin, entry);
            }
            Record::CutBack { to, .. } => {
                drop(held.entries.split_off(&to.next()));
            }
            Record::Begun { .. } => *held = Held::default(),
            // Whoever let go of them may have been alone then.
            Record::Part { .. } | Record::Trimmed { .. } | Record::Ceiling(_) => {}
        }
    }

    /// The writes, by shard and in the order of the log; each with whether it is known to have been
    /// committed.
    pub fn writes(&self) -> impl Iterator<Item = (ShardId, &Entry, bool)> {
        self.shards.iter().flat_map(|(shard, held)| {
            let is_certain = |position: Position| position <= held.committed_to;
            held.entries.iter().map(move |(at, entry)| (*shard, entry, is_certain(*at)))
        })
    }
}

impl Held {
    fn keep(&mut self, origin: DatacenterId, entry: Entry) {
        if entry.origin == origin && !entry.is_tick() {
            self.entries.insert(entry.identity.position, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use antecede_model::{
        clock::Timestamp,
        context::Dependencies,
        ids::{Boot, Epoch, Lineage},
    };

    use super::*;
    use crate::{
        copied::Start,
        entry::{Body, Change, Effect, Identity, Seen},
    };

    const SHARD: ShardId = ShardId(3);

    fn entry(position: u64, origin: u16, is_tick: bool) -> Entry {
        let stamp = Timestamp(1_000 + position);
        let mut bytes = Vec::new();
        let effect = Effect { key: b"k", seen: Seen::new(), change: Change::Delete };
        Body::encode(&mut bytes, stamp, &Dependencies::default(), std::iter::once(effect));
        let body = if is_tick { Body::Tick } else { Body::Write(bytes.into()) };
        let (epoch, boot, position) = (Epoch(1), Boot(1), Position(position));
        Entry {
            identity: Identity { epoch, boot, position, checksum: 0 },
            origin: DatacenterId(origin),
            lineage: Lineage::default(),
            stamp,
            previous: Timestamp::ZERO,
            visible_at: stamp,
            body,
            kept: None,
        }
    }

    fn record(position: u64, committed_to: u64, origin: u16) -> Record {
        let committed_to = Position(committed_to);
        Record::Entry { shard: SHARD, committed_to, entry: entry(position, origin, false) }
    }

    fn held(writes: &OwnWrites) -> Vec<(u64, bool)> {
        writes.writes().map(|(_, entry, known)| (entry.identity.position.0, known)).collect()
    }

    #[test]
    fn own_writes_stay_and_what_was_taken_back_or_is_of_others_does_not() {
        let mut writes = OwnWrites::of(DatacenterId(2));
        writes.take(record(4, 2, 2));
        writes.take(record(5, 4, 1));
        writes.take(record(6, 4, 2));
        writes.take(record(7, 4, 2));
        let history = Record::History { shard: SHARD, entry: entry(3, 2, false) };
        writes.take(history);
        let tick = entry(8, 2, true);
        writes.take(Record::Entry { shard: SHARD, committed_to: Position(4), entry: tick });
        assert_eq!(held(&writes), [(3, true), (4, true), (6, false), (7, false)]);
        writes.take(Record::CutBack { shard: SHARD, to: Position(6) });
        assert_eq!(held(&writes), [(3, true), (4, true), (6, false)]);
        writes.take(record(7, 6, 2));
        assert_eq!(held(&writes), [(3, true), (4, true), (6, true), (7, false)]);
    }

    #[test]
    fn a_copy_voids_what_was_there_before() {
        let mut writes = OwnWrites::of(DatacenterId(2));
        writes.take(record(1, 0, 2));
        writes.take(Record::Begun { shard: SHARD, start: Start::default() });
        assert_eq!(held(&writes), []);
    }
}
