//! Says what the Raft library works on here: its types, its timing, and what its log carries.
//!
//! A member of the group is a node, named to the library by the number of its id. Its log carries
//! commands: a swap of a key, or the first beat of a new boot of a node.

use std::{sync::Arc, time::Duration};

use antecede_model::ids::{Boot, NodeId};
use openraft::{Config, ConfigError, SnapshotPolicy};

use crate::store::{Revision, StoreKey, Stored};

openraft::declare_raft_types!(
    /// What the library is told about us.
    pub(crate) Types:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = openraft::BasicNode,
        SnapshotData = Vec<u8>,
);

/// The library with our types.
pub(crate) type Raft = openraft::Raft<Types>;
/// A place in the log.
pub(crate) type LogId = openraft::LogId<u64>;
/// Who was voted for, in which term.
pub(crate) type Vote = openraft::Vote<u64>;
/// A record of the log.
pub(crate) type Entry = openraft::Entry<Types>;
/// The members, and where in the log that was decided.
pub(crate) type StoredMembership = openraft::StoredMembership<u64, openraft::BasicNode>;
/// What a snapshot covers.
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
/// What a member knows about itself.
pub(crate) type Metrics = openraft::RaftMetrics<u64, openraft::BasicNode>;

/// Entries after which the state is written as a snapshot and the log before it is cut.
const SNAPSHOT_ENTRIES: u64 = 1000;

/// Entries that are kept behind a snapshot, so that a member that lags a little needs none.
const KEPT_ENTRIES: u64 = 100;

/// Entries that go to a member at once.
const PAYLOAD_ENTRIES_MAX: u64 = 64;

/// How long a member may take to receive a snapshot and to write it.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(20);

/// What the log carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Write a key if it is at this revision.
    Swap { key: StoreKey, expected: Option<Revision>, value: Arc<[u8]> },
    /// A node has started again.
    Boot { node: NodeId, boot: Boot },
}

/// What a command led to; the same at every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The entry carried no command.
    Nothing,
    /// The key has this revision now.
    Swapped(Revision),
    /// The key was at another revision.
    Conflict(Option<Stored>),
    /// The newest boot of the node.
    Newest(Boot),
    /// The limit of what may be stored would be passed.
    Full { what: Counted, count: usize },
}

/// What the state has limits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Bytes of keys and values.
    Bytes,
    /// Nodes that have sent a heartbeat.
    Nodes,
}

/// How fast a group notices that its leader is gone.
///
/// A leader that is silent is replaced after `silence_max`, for so long others do not vote against
/// it, and then a time between both limits that each member draws anew: with 300 and 500 ms in 0.8
/// to 1.0 s, as measured with openraft 0.9.25. A member that takes longer than `heartbeat` to answer
/// does not count when a leader asks whether it still leads; opening a connection and asking takes
/// two ways there and back. Each heartbeat is an entry of the log, and so a sync of every member's
/// disk, about every one and a half `heartbeat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often the leader is heard, and how long it waits for a member's word that it leads.
    pub heartbeat: Duration,
    /// How long a member waits at least before it wants to lead in its place.
    pub silence_min: Duration,
    /// How long it waits at most, and how long the leader may be silent before that.
    pub silence_max: Duration,
    /// How long a new member may take to receive what it needs before it may vote.
    pub learn_limit: Duration,
}

impl Timing {
    /// Between machines of one datacenter.
    pub const LOCAL: Self = Self {
        heartbeat: Duration::from_millis(100),
        silence_min: Duration::from_millis(300),
        silence_max: Duration::from_millis(500),
        learn_limit: Duration::from_secs(30),
    };

    /// The settings of the library.
    #[expect(deprecated, reason = "the settings are given in full, and one of them is deprecated")]
    pub(crate) fn config(self, group: String) -> Result<Config, Box<ConfigError>> {
        let config = Config {
            cluster_name: group,
            election_timeout_min: millis(self.silence_min),
            election_timeout_max: millis(self.silence_max),
            heartbeat_interval: millis(self.heartbeat),
            install_snapshot_timeout: millis(SNAPSHOT_LIMIT),
            send_snapshot_timeout: 0,
            max_payload_entries: PAYLOAD_ENTRIES_MAX,
            replication_lag_threshold: SNAPSHOT_ENTRIES + KEPT_ENTRIES,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
            snapshot_max_chunk_size: 0,
            max_in_snapshot_log_to_keep: KEPT_ENTRIES,
            purge_batch_size: 1,
            enable_tick: true,
            enable_heartbeat: true,
            enable_elect: true,
        };
        config.validate().map_err(Box::new)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the library calls a node.
pub(crate) fn member_of(node: NodeId) -> u64 {
    u64::from(node.to_bits())
}

/// The node that the library calls so; `None` if no node can be called so.
pub(crate) fn node_of(member: u64) -> Option<NodeId> {
    u32::try_from(member).ok().map(NodeId::from_bits)
}
