//! Says why a request was not served, in a form that a client may act on.
//!
//! A refusal is a state of the world or of the data, not a fault: each has a code that clients
//! match on (Redis's own where there is one), a label for metrics, and a sentence with the values
//! and what to do. Messages for which Redis has fixed words use those words.
#![deny(clippy::indexing_slicing)]

use crate::{
    codec::{DecodeError, Reader, Writer},
    ids::{DatacenterId, NodeId, ShardId},
};

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The chain cannot take more writes now.
    #[error(
        "shard {shard} holds {held} uncommitted entries or waiting requests, the limit is {limit}; \
         retry after a pause"
    )]
    Busy {
        /// The shard.
        shard: ShardId,
        /// How many it holds.
        held: u32,
        /// How many it may hold.
        limit: u32,
    },
    /// The session's past, from another datacenter, is not here yet.
    #[error(
        "this datacenter still lacks {missing} of the writes that the token covers (waited \
         {waited_millis} ms); retry, or raise the time-out"
    )]
    NotYet {
        /// Dependencies that were not covered.
        missing: u32,
        /// How long the session waited.
        waited_millis: u32,
    },
    /// The session's past names writes of a datacenter that was lost; some may be gone for ever.
    #[error(
        "the token depends on writes of datacenter {datacenter}, which was lost: some of them may be \
         gone for ever; begin a new session without the token, and read again what matters"
    )]
    Lost {
        /// The datacenter.
        datacenter: DatacenterId,
    },
    /// A write was handed over and its answer was lost: it may or may not take effect.
    #[error("the answer to this write was lost: it may or may not have taken effect")]
    UnknownOutcome,
    /// No replica that may answer can be reached.
    #[error("no replica of shard {shard} that may answer can be reached now; retry later")]
    Unreachable {
        /// The shard.
        shard: ShardId,
    },
    /// The replica has just started and is still agreeing with its neighbours.
    #[error("shard {shard} is settling with its chain after a restart; retry later")]
    Settling {
        /// The shard.
        shard: ShardId,
    },
    /// The node's data folder is new, and not all others have said yet that they do not know it.
    #[error(
        "node {node} has a new data folder and waits to hear from all other nodes that it never had \
         another one: retry later; antecede doctor names those that have not answered"
    )]
    NewFolder {
        /// The node.
        node: NodeId,
    },
    /// The node had data, its data folder is new, and no other node of its chain has the data.
    #[error(
        "node {node} has lost its data folder, and nobody else in its datacenter has what was in it: \
         use another datacenter, and see that the node gets its folder back"
    )]
    LostFolder {
        /// The node.
        node: NodeId,
    },
    /// The replica's right to answer has run out: its datacenter may have gone on without it.
    #[error(
        "this node may not answer for shard {shard} now: it has lost touch with the nodes that \
         decide who serves; retry, or ask another node of this datacenter"
    )]
    NoLease {
        /// The shard.
        shard: ShardId,
    },
    /// The datacenter is being added: what it holds is not whole yet.
    #[error(
        "this datacenter is being added and still copies what the others have; use another one \
         until then"
    )]
    Joining,
    /// The datacenter is being removed.
    #[error("this datacenter is being removed and takes no more writes; use another one")]
    Leaving,
    /// The datacenter was removed, or given up, or not added yet.
    #[error(
        "this datacenter does not belong to the deployment: it was not added yet, or the others \
         have gone on without it; use another one"
    )]
    Gone,
    /// The datacenter was let go of because it was too far behind.
    #[error(
        "this datacenter was too far behind, and the others have let go of it (it has lapsed): it \
         comes back by itself when it has what they have; use another one until then"
    )]
    Lapsed,
    /// The memory limit is reached.
    #[error("command not allowed when used memory > 'maxmemory'.")]
    OutOfMemory,
    /// The disk takes no more writes.
    #[error(
        "the disk of node {node} has no room for more writes; reads go on, and so do writes by \
         themselves once there is room: free space there"
    )]
    DiskFull {
        /// Whose disk.
        node: NodeId,
    },
    /// What another datacenter has not applied yet has grown to the limit.
    #[error(
        "this node keeps {kept_mib} MiB of writes that datacenter {behind} has not applied, for \
         {since_seconds} s, and takes no more (limits.outbox): reads go on, and so do writes by \
         themselves once it has caught up; mend the link or that datacenter, raise the limit, or \
         remove the datacenter if it is lost for ever"
    )]
    OutboxFull {
        /// Which datacenter is furthest behind.
        behind: DatacenterId,
        /// How long the oldest of these writes is kept.
        since_seconds: u32,
        /// How much is kept.
        kept_mib: u32,
    },
    /// The value is on disk only, and what is there is not what was written.
    #[error(
        "the value cannot be read from the disk of node {node}: its checkpoint is damaged; ask \
         another node of this datacenter, and repair that one"
    )]
    Unreadable {
        /// Whose disk.
        node: NodeId,
    },
    /// The keys of an atomic command lie in several shards.
    #[error(
        "keys of an atomic command lie in different shards; give them one {{hash tag}}, or send \
         them one by one"
    )]
    CrossShard,
    /// The key holds another type.
    #[error("Operation against a key holding the wrong kind of value")]
    WrongType,
    /// The string would grow beyond the largest size.
    #[error("string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLarge,
    /// The wall clock of this node is out of bounds.
    #[error(
        "a clock is {ahead_millis} ms ahead of this node's, the limit is {limit_millis} ms; \
         compare the clocks"
    )]
    Drift {
        /// How far ahead.
        ahead_millis: u32,
        /// The bound.
        limit_millis: u32,
    },
    /// A request id of another datacenter.
    #[error(
        "this request id is for the datacenter that it names before the dot, and is executed only \
         there; here nothing was done: send it there"
    )]
    OtherDatacenter,
    /// A request id that is too old to be remembered.
    #[error(
        "this request id is not remembered: shard {shard} has forgotten ids up to {forgotten_to} \
         of this client or of others; nothing was done now, the request may have taken effect \
         before"
    )]
    Forgotten {
        /// The shard.
        shard: ShardId,
        /// Numbers up to this one may have been forgotten.
        forgotten_to: u64,
    },
    /// The request of this id was executed, and its answer was too long to be kept.
    #[error(
        "the request of this id was executed before; its answer was longer than {limit} bytes and \
         was not kept"
    )]
    NotKept {
        /// The longest answer that is kept.
        limit: u32,
    },
    /// The request id was used for another request before.
    #[error("this request id was used for another request; give each request an id of its own")]
    OtherRequest,
}

/// What a refusal says of the effect of a request.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// No replica has looked at it.
    NotTried,
    /// It has none by this sending.
    NoEffect,
    /// It has none, and that is what a request with an id came to.
    LastWord,
    /// It may have one.
    Open,
    /// It may have one, and nobody knows any more.
    OpenForEver,
}

impl Refusal {
    /// The first word of the error that a Redis client sees.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. }
            | Self::Settling { .. }
            | Self::NoLease { .. }
            | Self::NewFolder { .. } => "TRYAGAIN",
            Self::NotYet { .. } => "NOTYET",
            Self::Lost { .. } => "LOST",
            Self::UnknownOutcome | Self::OtherDatacenter | Self::Forgotten { .. } => {
                "UNKNOWNOUTCOME"
            }
            Self::Unreachable { .. } | Self::LostFolder { .. } => "CLUSTERDOWN",
            Self::Joining => "LOADING",
            Self::Leaving => "READONLY",
            Self::Gone | Self::Lapsed => "CLUSTERDOWN",
            Self::OutOfMemory => "OOM",
            Self::DiskFull { .. } => "DISKFULL",
            Self::OutboxFull { .. } => "OUTBOXFULL",
            Self::Unreadable { .. } => "UNREADABLE",
            Self::CrossShard => "CROSSSLOT",
            Self::WrongType => "WRONGTYPE",
            Self::TooLarge | Self::OtherRequest => "ERR",
            Self::NotKept { .. } => "NOTKEPT",
            Self::Drift { .. } => "DRIFT",
        }
    }

    /// Whether it says that no replica has looked at the request, and that this may pass by itself:
    /// the same request may be handed over again.
    #[must_use]
    pub const fn was_not_tried(&self) -> bool {
        matches!(self.says(), Says::NotTried)
    }

    /// Whether it leaves open if the request has taken effect, or will.
    #[must_use]
    pub const fn leaves_open(&self) -> bool {
        matches!(self.says(), Says::Open | Says::OpenForEver)
    }

    /// Whether it stands for a request with an id whatever became of an earlier sending: it is
    /// what the request came to, or says that it is not known any more.
    #[must_use]
    pub const fn is_last_word(&self) -> bool {
        matches!(self.says(), Says::LastWord | Says::OpenForEver)
    }

    const fn says(&self) -> Says {
        match self {
            Self::Unreachable { .. }
            | Self::Settling { .. }
            | Self::NoLease { .. }
            | Self::NewFolder { .. } => Says::NotTried,
            Self::UnknownOutcome | Self::OtherDatacenter => Says::Open,
            Self::Forgotten { .. } => Says::OpenForEver,
            Self::WrongType | Self::TooLarge | Self::NotKept { .. } | Self::OtherRequest => {
                Says::LastWord
            }
            Self::Busy { .. }
            | Self::NotYet { .. }
            | Self::Lost { .. }
            | Self::Joining
            | Self::Leaving
            | Self::Gone
            | Self::Lapsed
            | Self::LostFolder { .. }
            | Self::OutOfMemory
            | Self::DiskFull { .. }
            | Self::OutboxFull { .. }
            | Self::Unreadable { .. }
            | Self::CrossShard
            | Self::Drift { .. } => Says::NoEffect,
        }
    }

    /// The label that metrics count it under.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::NotYet { .. } => "not_yet",
            Self::Lost { .. } => "lost",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Unreachable { .. } => "unreachable",
            Self::Settling { .. } => "settling",
            Self::NoLease { .. } => "no_lease",
            Self::NewFolder { .. } => "new_folder",
            Self::LostFolder { .. } => "lost_folder",
            Self::Joining => "joining",
            Self::Leaving => "leaving",
            Self::Gone => "gone",
            Self::Lapsed => "lapsed",
            Self::OutOfMemory => "out_of_memory",
            Self::DiskFull { .. } => "disk_full",
            Self::OutboxFull { .. } => "outbox_full",
            Self::Unreadable { .. } => "unreadable",
            Self::CrossShard => "cross_shard",
            Self::WrongType => "wrong_type",
            Self::TooLarge => "too_large",
            Self::Drift { .. } => "drift",
            Self::OtherDatacenter => "other_datacenter",
            Self::Forgotten { .. } => "forgotten",
            Self::NotKept { .. } => "not_kept",
            Self::OtherRequest => "other_request",
        }
    }

    /// Writes the refusal.
    pub fn write(&self, to: &mut Writer<'_>) {
        match *self {
            Self::Busy { shard, held, limit } => {
                to.u8(0);
                to.shard(shard);
                to.fixed32(held);
                to.fixed32(limit);
            }
            Self::NotYet { missing, waited_millis } => {
                to.u8(1);
                to.fixed32(missing);
                to.fixed32(waited_millis);
            }
            Self::UnknownOutcome => to.u8(2),
            Self::Unreachable { shard } => {
                to.u8(3);
                to.shard(shard);
            }
            Self::Settling { shard } => {
                to.u8(4);
                to.shard(shard);
            }
            Self::NoLease { shard } => {
                to.u8(11);
                to.shard(shard);
            }
            Self::NewFolder { node } => write_of_node(23, node, to),
            Self::LostFolder { node } => write_of_node(24, node, to),
            Self::Joining => to.u8(16),
            Self::Leaving => to.u8(17),
            Self::Gone => to.u8(18),
            Self::Lapsed => to.u8(22),
            Self::Lost { datacenter } => {
                to.u8(19);
                to.datacenter(datacenter);
            }
            Self::OutOfMemory => to.u8(5),
            Self::DiskFull { node } => write_of_node(6, node, to),
            Self::OutboxFull { behind, since_seconds, kept_mib } => {
                to.u8(21);
                to.datacenter(behind);
                to.fixed32(since_seconds);
                to.fixed32(kept_mib);
            }
            Self::Unreadable { node } => write_of_node(20, node, to),
            Self::CrossShard => to.u8(7),
            Self::WrongType => to.u8(8),
            Self::TooLarge => to.u8(9),
            Self::Drift { ahead_millis, limit_millis } => {
                to.u8(10);
                to.fixed32(ahead_millis);
                to.fixed32(limit_millis);
            }
            Self::OtherDatacenter => to.u8(12),
            Self::Forgotten { shard, forgotten_to } => {
                to.u8(13);
                to.shard(shard);
                to.number(forgotten_to);
            }
            Self::NotKept { limit } => {
                to.u8(14);
                to.fixed32(limit);
            }
            Self::OtherRequest => to.u8(15),
        }
    }

    /// Reads a refusal.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            0 => Self::Busy { shard: from.shard()?, held: from.fixed32()?, limit: from.fixed32()? },
            1 => Self::NotYet { missing: from.fixed32()?, waited_millis: from.fixed32()? },
            2 => Self::UnknownOutcome,
            3 => Self::Unreachable { shard: from.shard()? },
            4 => Self::Settling { shard: from.shard()? },
            5 => Self::OutOfMemory,
            6 => Self::DiskFull { node: from.node()? },
            7 => Self::CrossShard,
            8 => Self::WrongType,
            9 => Self::TooLarge,
            10 => Self::Drift { ahead_millis: from.fixed32()?, limit_millis: from.fixed32()? },
            11 => Self::NoLease { shard: from.shard()? },
            12 => Self::OtherDatacenter,
            13 => Self::Forgotten { shard: from.shard()?, forgotten_to: from.number()? },
            14 => Self::NotKept { limit: from.fixed32()? },
            15 => Self::OtherRequest,
            16 => Self::Joining,
            17 => Self::Leaving,
            18 => Self::Gone,
            19 => Self::Lost { datacenter: from.datacenter()? },
            20 => Self::Unreadable { node: from.node()? },
            21 => Self::OutboxFull {
                behind: from.datacenter()?,
                since_seconds: from.fixed32()?,
                kept_mib: from.fixed32()?,
            },
            22 => Self::Lapsed,
            23 => Self::NewFolder { node: from.node()? },
            24 => Self::LostFolder { node: from.node()? },
            found => return Err(DecodeError::UnknownTag { what: "refusal", found }),
        })
    }
}

fn write_of_node(tag: u8, node: NodeId, to: &mut Writer<'_>) {
    to.u8(tag);
    to.node(node);
}
