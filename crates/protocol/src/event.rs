//! Says what happened, as data: log lines, metrics and the simulator's checks are made of it.

use std::time::Duration;

use antecede_model::{
    clock::Timestamp,
    dependency::Dependency,
    ids::{DatacenterId, NodeId, Position, ShardId},
    version::Version,
};

/// Something that happened in a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An entry was committed at this replica, which is the tail.
    Committed {
        /// The shard.
        shard: ShardId,
        /// Its place in the log.
        position: Position,
        /// Where it began.
        origin: DatacenterId,
        /// Its stamp.
        stamp: Timestamp,
    },
    /// A remote write became visible here (seen at the tail).
    Applied {
        /// The shard.
        shard: ShardId,
        /// Where it began.
        origin: DatacenterId,
        /// Its stamp.
        stamp: Timestamp,
        /// When it became visible, by this datacenter's logical clock.
        visible_at: Timestamp,
        /// Wall-clock microseconds from its stamp to now.
        since_stamp: Duration,
    },
    /// A remote write waits for something that it depends on.
    Waiting {
        /// The shard.
        shard: ShardId,
        /// Where the write began.
        origin: DatacenterId,
        /// Its stamp.
        stamp: Timestamp,
        /// The first dependency that is missing.
        missing: Dependency,
    },
    /// Last-writer-wins dropped a value.
    Conflict {
        /// The shard.
        shard: ShardId,
        /// The version that won.
        winner: Version,
        /// The version whose value was dropped.
        loser: Version,
    },
    /// A timestamp from a peer lies too far ahead; its message was refused.
    Drift {
        /// The peer.
        from: NodeId,
        /// How far ahead, in milliseconds.
        ahead_millis: u64,
        /// The bound, in milliseconds.
        limit_millis: u64,
    },
    /// A replica has agreed with its neighbours after a restart or a change of epoch.
    Settled {
        /// The shard.
        shard: ShardId,
    },
    /// A shard of a datacenter that is being added has copied what it needs from another one.
    Seeded {
        /// The shard.
        shard: ShardId,
    },
    /// Two replicas hold different entries at one position: a bug, or a damaged disk.
    Diverged {
        /// The shard.
        shard: ShardId,
        /// The neighbour.
        with: NodeId,
        /// The position.
        position: Position,
    },
    /// The log lacks what it had, as another datacenter knows: it is an older one. What others are
    /// sent, or told to be applied, is on the disks of all replicas before.
    Older {
        /// The shard.
        shard: ShardId,
        /// Where the writes began that it lacks.
        origin: DatacenterId,
        /// Who knows them.
        by: NodeId,
        /// The stamp up to which all of them were here.
        had_to: Timestamp,
        /// The stamp up to which they are: of those that began here, when the replica became the
        /// tail.
        here_to: Timestamp,
    },
    /// A message of an older epoch, boot or membership was refused.
    StaleMessage {
        /// The sender.
        from: NodeId,
    },
    /// Bodies of blocked remote writes were dropped to bound memory; they are fetched later.
    BodiesDropped {
        /// The shard.
        shard: ShardId,
        /// How many.
        count: u32,
    },
    /// A value that is on disk only could not be read: the checkpoint is damaged.
    LoadFailed {
        /// The shard.
        shard: ShardId,
        /// The hash of its key.
        hash: u64,
    },
}
