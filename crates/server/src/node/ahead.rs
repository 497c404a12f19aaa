//! Gives records of the log back to the replicas, and lets the processor load what they need before.
//!
//! Keys of a log lie anywhere in memory, and each record would wait for its own: first for its place
//! in the index, then for what is found there. So records wait in a short queue, in their order, and
//! both are asked for while others are taken.
//!
//! Ensures: each replica gets its records in the order of the log, all of them once `finish` returns.

use std::collections::VecDeque;

use antecede_model::{clock::Timestamp, codec::DecodeError};
use antecede_protocol::{chain::Shard, record::Record};
use antecede_storage::LogIndex;

/// Records that wait before one is taken.
const RECORDS: usize = 32;
/// How many of them have had their place in the index loaded for long enough.
const PLACED: usize = RECORDS / 2;

/// Records between the log and the replicas.
pub(super) struct Ahead<'a> {
    replicas: &'a mut [Option<Shard>],
    waiting: VecDeque<Waiting>,
    /// The largest time that was promised to be passed by no stamp before it is in the log.
    floor: Timestamp,
    /// Whether any record was about a shard.
    is_about_shards: bool,
}

/// What a log said, apart from what the replicas took of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The largest time that was promised to be passed by no stamp before it is in the log.
    pub(super) floor: Timestamp,
    /// Whether it held anything of any shard. Where it does not, the node may have been started
    /// before with the same empty folder, and have written down no more than how late it was.
    pub(super) is_about_shards: bool,
}

struct Waiting {
    index: LogIndex,
    /// The place of its replica.
    place: usize,
    record: Record,
    /// Of its key, if it has one.
    hash: Option<u64>,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(replicas: &'a mut [Option<Shard>]) -> Self {
        Self {
            replicas,
            waiting: VecDeque::with_capacity(RECORDS + 1),
            floor: Timestamp::ZERO,
            is_about_shards: false,
        }
    }

    /// Takes the next record of the log.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub(super) fn read(&mut self, index: LogIndex, bytes: &[u8]) -> Result<(), DecodeError> {
        let record = Record::read(bytes)?;
        if let Record::Ceiling(ceiling) = record {
            self.floor = self.floor.max(ceiling);
            return Ok(());
        }
        let Some(shard) = record.shard() else { return Ok(()) };
        self.is_about_shards = true;
        let place = usize::from(shard.0);
        let Some(Some(replica)) = self.replicas.get(place) else { return Ok(()) };
        let hash = replica.foresee(&record);
        self.waiting.push_back(Waiting { index, place, record, hash });
        if let Some(Waiting { place, hash: Some(hash), .. }) = self.waiting.get(PLACED)
            && let Some(Some(replica)) = self.replicas.get(*place)
        {
            replica.foresee_record(*hash);
        }
        if RECORDS < self.waiting.len() {
            self.give_first();
        }
        Ok(())
    }

    /// Gives back what still waits; tells what the log said besides.
    pub(super) fn finish(mut self) -> Told {
        while !self.waiting.is_empty() {
            self.give_first();
        }
        Told { floor: self.floor, is_about_shards: self.is_about_shards }
    }

    fn give_first(&mut self) {
        let Some(Waiting { index, place, record, .. }) = self.waiting.pop_front() else { return };
        if let Some(Some(replica)) = self.replicas.get_mut(place) {
            replica.recover(antecede_model::ids::LogIndex(index.get()), record);
        }
    }
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

    const SHARD: ShardId = ShardId(0);
    const HERE: DatacenterId = DatacenterId(1);

    fn replica() -> Shard {
        let configuration = Configuration::managed(&Layout {
            deployment: DeploymentId::default(),
            shard_count: ShardCount::new(1).unwrap(),
            chain_length: 1,
            datacenters: vec![(HERE, "here".to_owned(), 1)],
        });
        let options = ShardOptions {
            max_clock_drift: Duration::from_millis(500),
            hash_secret: 7,
            blocked_bytes_max: 0,
            kept_bytes_max: 0,
            part_bytes: 1,
            part_pause: Duration::ZERO,
            retries_max: 1,
            has_checkpoints: false,
            away_bytes_min: None,
            mutations: Mutations::NONE,
        };
        let node = NodeId { datacenter: HERE, number: 1 };
        Shard::new(SHARD, node, Arc::new(configuration), options)
    }

    fn tick(position: u64) -> Vec<u8> {
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
        Record::write_entry(&mut bytes, SHARD, Position(0), &entry);
        bytes
    }

    #[test]
    fn a_log_that_says_only_how_late_it_was_holds_nothing() {
        let mut replicas = [Some(replica())];
        let mut ahead = Ahead::new(&mut replicas);
        let floor = Timestamp::from_millis(9);
        let mut bytes = Vec::new();
        Record::write_ceiling(&mut bytes, floor);
        ahead.read(LogIndex::new(1), &bytes).unwrap();
        assert_eq!(ahead.finish(), Told { floor, is_about_shards: false });
    }

    #[test]
    fn all_records_reach_their_replicas_in_order_and_what_is_damaged_is_told() {
        let mut replicas = [Some(replica())];
        let mut ahead = Ahead::new(&mut replicas);
        let count = 3 * RECORDS as u64;
        for number in 1..=count {
            ahead.read(LogIndex::new(number), &tick(number)).unwrap();
        }
        assert!(ahead.read(LogIndex::new(count + 1), b"\xff").is_err());
        assert_eq!(ahead.finish(), Told { floor: Timestamp::ZERO, is_about_shards: true });
        let [Some(replica)] = &mut replicas else { unreachable!() };
        assert_eq!(
            replica.end(),
            Position(count),
            "an entry that is not the next one is not taken"
        );
        assert_eq!(replica.end_recovery(antecede_model::ids::LogIndex(count)), Ok(()));
    }
}
