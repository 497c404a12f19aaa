//! Makes entries and a one-replica shard for the tests of this folder.

use antecede_model::{
    clock::Timestamp,
    context::Dependencies,
    ids::{Boot, DatacenterId, Epoch, Lineage, Position},
    operation::{Action, Operation, ShardOperation},
    response::Response,
    sighting::Sighting,
    version::Version,
};

use super::{Executed, Keys, Look, Shown};
use crate::entry::{Body, Change, Effect, Entry, Identity};

pub(super) fn version(timestamp: u64, origin: u16) -> Version {
    Version { timestamp: Timestamp(timestamp), origin: DatacenterId(origin) }
}

/// An entry that is visible at its stamp.
pub(super) fn entry(position: u64, version: Version, effects: &[Effect<'_>]) -> Entry {
    let mut body = Vec::new();
    let dependencies = Dependencies::default();
    Body::encode(&mut body, version.timestamp, &dependencies, effects.iter().cloned());
    Entry {
        identity: Identity {
            epoch: Epoch(1),
            boot: Boot(1),
            position: Position(position),
            checksum: 0,
        },
        origin: version.origin,
        lineage: Lineage(1),
        stamp: version.timestamp,
        previous: Timestamp::ZERO,
        visible_at: version.timestamp,
        body: Body::Write(body.into()),
        kept: None,
    }
}

/// Executes where all values are in memory.
pub(super) fn execute<'a>(
    keys: &Keys,
    operation: &Operation<'a>,
    wall_millis: u64,
) -> Executed<'a> {
    super::execute(keys, operation, wall_millis).unwrap()
}

/// Executes where all values are in memory.
pub(super) fn execute_batch<'a>(
    keys: &Keys,
    watched: &[(&'a [u8], Sighting)],
    operations: &[Operation<'a>],
    wall_millis: u64,
) -> Executed<'a> {
    super::execute_batch(keys, watched, operations, wall_millis).unwrap()
}

/// Reads where all values are in memory.
pub(super) fn read(
    keys: &Keys,
    operation: &ShardOperation<'_>,
    to: Position,
    wall_millis: u64,
) -> Shown {
    super::read(keys, operation, to, wall_millis).unwrap()
}

/// The bytes of a visible value, which are in memory.
pub(super) fn bytes_of<'a>(look: &Look<'a>) -> Option<&'a [u8]> {
    look.value().map(|value| value.bytes().unwrap())
}

/// A new value.
pub(super) fn set(value: &[u8], deadline: Option<u64>) -> Change<'_> {
    Change::Set { value, deadline }
}

/// A shard with one replica, whose writes are committed at once.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) keys: Keys,
    pub(super) position: u64,
    pub(super) wall_millis: u64,
}

impl Replica {
    pub(super) fn new() -> Self {
        Self { keys: Keys::new(7), position: 0, wall_millis: 1000 }
    }

    /// Executes one action and commits what it leaves.
    pub(super) fn run(&mut self, key: &[u8], action: Action<'_>) -> Response {
        self.run_keeping_effects(key, action).0
    }

    /// As [`Replica::run`]; tells how many effects there were, too.
    pub(super) fn run_keeping_effects(
        &mut self,
        key: &[u8],
        action: Action<'_>,
    ) -> (Response, usize) {
        let operation = Operation { key, action };
        let executed = execute(&self.keys, &operation, self.wall_millis);
        let log = self.entry_of(&executed);
        self.commit(log.as_ref());
        (executed.response, executed.effects.len())
    }

    /// The entry of what was executed, as the next of the log.
    pub(super) fn entry_of(&mut self, executed: &Executed<'_>) -> Option<Entry> {
        if executed.effects.is_empty() {
            return None;
        }
        self.position += 1;
        let effects: Vec<_> = executed.effects.iter().map(|effect| effect.as_effect()).collect();
        Some(entry(self.position, version(1000 + self.position, 1), &effects))
    }

    pub(super) fn commit(&mut self, entry: Option<&Entry>) {
        let mut conflicts = Vec::new();
        if let Some(entry) = entry {
            self.keys.commit(entry, &mut conflicts);
        }
        assert_eq!(conflicts, [], "a single replica has seen everything");
    }
}
