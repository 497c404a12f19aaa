//! Makes entries and a one-replica shard for the tests of this folder.

use antecede_model::{
    clock::Timestamp,
    context::Dependencies,
    ids::{Boot, DatacenterId, Epoch, Lineage, Position},
    operation::{Action, Operation},
    response::Response,
    version::Version,
};

use super::{Executed, Keys, execute};
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
        let executed = execute(&self.keys, &Operation { key, action }, self.wall_millis);
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
