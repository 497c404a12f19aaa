//! Takes values of nodes out of memory, and reads them back from checkpoints, late.
//!
//! Of a node that takes checkpoints each replica forgets a few values now and then, whatever memory
//! there is. A load takes its time on the disk, and again until its replica hears of it, so that
//! the key changes meanwhile, or is told to the next checkpoint, or the node crashes.
//!
//! Ensures: a load never fails, since no disk is damaged here.

use antecede_model::{
    ids::{RequestId, ShardId},
    operation::Deadline,
};
use antecede_protocol::{
    chain::{Input, Loaded, Shard},
    checkpointed::StepLimits,
    entry::Seen,
    machine::Load,
    state::{Keys, Stored},
};
use antecede_storage::checkpoint::CheckpointStore;

use crate::{
    moment::{MICRO, MILLI},
    node::Node,
    world::{Happening, Place, World},
};

/// The shortest value that may be on disk only: of what clients write, nearly all.
pub const AWAY_BYTES_MIN: usize = 5;
/// How often values are forgotten.
pub const EVERY: [u64; 3] = [5 * MILLI, 30 * MILLI, 200 * MILLI];
/// How long each half of a load takes.
pub const LOAD_TIMES: [u64; 3] = [50 * MICRO, MILLI, 20 * MILLI];
/// Little, so that only some are forgotten at a time.
const LIMITS: StepLimits = StepLimits { looks: 6, bytes: 30 };

/// A load on its way.
#[derive(Debug)]
pub(crate) struct Underway {
    load: Load,
    /// What was read, once it was.
    found: Option<Option<Vec<u8>>>,
}

/// A value with its deadline, and the versions that it is made of.
pub(crate) type Found = (Vec<u8>, Option<Deadline>, Seen);

impl Node {
    /// What the checkpoint has of a hash.
    fn stored(&self, shard: ShardId, hash: u64) -> Option<Vec<u8>> {
        self.checkpoints.get(shard, &hash.to_be_bytes()).expect("simulated disks do not fail here")
    }

    /// Whether a replica puts a request off until a value was read.
    pub(crate) fn has_parked(&self, shard: ShardId, request: RequestId) -> bool {
        let replica = self.shards.get(usize::from(shard.0)).and_then(Option::as_ref);
        replica.is_some_and(|replica| replica.has_parked(request))
    }

    /// The newest value that a replica of this node has of a key, in memory or on disk.
    pub(crate) fn newest(&self, shard: ShardId, replica: &Shard, key: &str) -> Option<Found> {
        let look = replica.keys().newest(key.as_bytes());
        let value = match look.value()? {
            Stored::Here(bytes) => bytes.to_vec(),
            Stored::Away { .. } => {
                let hash = replica.keys().hash(key.as_bytes());
                let mut on_disk = Keys::new(self.hash_secret());
                let stored = self.stored(shard, hash).unwrap_or_default();
                on_disk.load(hash, &stored, true).expect("these are records");
                let bytes = on_disk.newest(key.as_bytes()).value().and_then(Stored::bytes);
                bytes.unwrap_or(b"nothing, although it is on disk only").to_vec()
            }
        };
        Some((value, look.deadline(), look.seen()))
    }
}

impl World {
    /// Lets a node forget values now and then.
    pub(crate) fn forget_later(&mut self, number: usize) {
        let every = self.plan.shape.forget_every;
        if 0 < every {
            let at = self.now.after(self.memory_chance.spread(every) + 1_000);
            self.queue.add(at, Happening::Forget(self.present(number)));
        }
    }

    /// A node forgets a few values.
    pub(crate) fn forget(&mut self, place: Place) {
        if !self.is_present(place) {
            return;
        }
        for replica in self.nodes[place.node].shards.iter_mut().flatten() {
            self.tally.forgotten += replica.evict(LIMITS).count as u64;
        }
        self.forget_later(place.node);
    }

    /// Gives the disk of a node what it has to load.
    pub(crate) fn absorb_loads(&mut self, number: usize) {
        for load in std::mem::take(&mut self.nodes[number].out.loads) {
            self.load_later(self.present(number), Underway { load, found: None });
        }
    }

    fn load_later(&mut self, place: Place, underway: Underway) {
        let at = self.now.after(self.memory_chance.spread(self.plan.shape.load_time) + 1_000);
        self.queue.add(at, Happening::Load(place, Box::new(underway)));
    }

    /// A load is read, or arrives.
    pub(crate) fn load(&mut self, place: Place, underway: Underway) {
        if !self.is_present(place) {
            return;
        }
        let Underway { load, found } = underway;
        let Some(found) = found else {
            let found = Some(self.nodes[place.node].stored(load.shard, load.hash));
            return self.load_later(place, Underway { load, found });
        };
        self.tally.loads += 1;
        let Load { shard, hash, number } = load;
        let loaded = Loaded { hash, number, records: found.as_deref() };
        self.nodes[place.node].tell(self.now, shard, Input::Loaded(loaded));
        self.absorb(place.node);
    }
}
