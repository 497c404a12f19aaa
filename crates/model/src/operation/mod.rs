//! What a client can ask of a key, of several keys of one shard, or of a shard as a whole.
//!
//! Keys and values are borrowed from where they stand (a read buffer, a frame), so that asking
//! costs no allocation. Times are absolute: the session turns "in 10 s" into a deadline once.

/// How operations look in messages between nodes.
mod bytes;

use crate::{clock::Timestamp, sighting::Sighting};

/// Milliseconds since 1970 at which a key expires.
pub type Deadline = u64;

/// The longest string that a key may hold, in bytes (as Redis's `proto-max-bulk-len`).
pub const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// One action on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What to do with it.
    pub action: Action<'a>,
}

/// What may be asked of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// The value. `GET`
    Get,
    /// Its length in bytes, 0 if absent. `STRLEN`
    Length,
    /// Bytes from `start` to `end`, both included, negative from the end. `GETRANGE`
    Range {
        /// First byte.
        start: i64,
        /// Last byte.
        end: i64,
    },
    /// 1 if the key is there, else 0. `EXISTS`, `TOUCH`
    Exists,
    /// The type's name. `TYPE`
    Type,
    /// When it expires. `TTL` and its family
    Expiry(ExpiryForm),
    /// What `OBJECT` and `MEMORY USAGE` tell.
    Describe(Description),
    /// What is there, for `WATCH`; answered by [`crate::response::Response::Observed`].
    Observe,
    /// A new value. `SET`, `SETNX`, `SETEX`, `PSETEX`, `GETSET`, each part of `MSET`
    Set {
        /// The value.
        value: &'a [u8],
        /// When the write takes place at all.
        condition: Condition,
        /// What becomes of the time to live.
        ttl: Ttl,
        /// What the client is told.
        reply: SetReply,
    },
    /// Removes the key; 1 if it was there, else 0. `DEL`, `UNLINK`
    Delete,
    /// Sets a deadline; 1 if it was set, else 0. `EXPIRE` and its family
    Expire {
        /// The deadline; one that has passed removes the key.
        deadline: Deadline,
        /// When the deadline is set at all.
        condition: ExpireCondition,
    },
    /// Removes the deadline; 1 if there was one, else 0. `PERSIST`
    Persist,
    /// The value, and a change of its time to live. `GETEX`
    GetAndExpire {
        /// What becomes of the time to live; [`Ttl::Keep`] changes nothing, `Clear` persists.
        ttl: Ttl,
    },
    /// The value, which is removed. `GETDEL`
    GetAndDelete,
    /// Puts bytes behind the value; answers the new length. `APPEND`
    Append {
        /// The bytes.
        value: &'a [u8],
    },
    /// Overwrites bytes from an offset on, filling a gap with zeros; the new length. `SETRANGE`
    SetRange {
        /// Where to begin.
        offset: u64,
        /// The bytes.
        value: &'a [u8],
    },
}

/// When a `SET` takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Always,
    /// Only if the key is absent. `NX`
    IfAbsent,
    /// Only if the key is there. `XX`
    IfPresent,
}

/// What a write does to a time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// Removes it.
    Clear,
    /// Leaves it. `KEEPTTL`
    Keep,
    /// Sets it.
    Until(Deadline),
}

/// What `SET` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetReply {
    /// `OK`, or nil if the condition did not hold.
    Status,
    /// The value before, or nil. `GET`, `GETSET`
    Previous,
    /// 1 or 0. `SETNX`
    Flag,
}

/// When `EXPIRE` sets a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpireCondition {
    /// Always.
    Always,
    /// Only if there is none. `NX`
    IfNone,
    /// Only if there is one. `XX`
    IfSome,
    /// Only if the new one is later; none counts as the latest. `GT`
    IfLater,
    /// Only if the new one is earlier; none counts as the latest. `LT`
    IfEarlier,
    /// Only if there is one and the new one is later. `XX GT`
    IfSomeAndLater,
    /// Only if there is one and the new one is earlier. `XX LT`
    IfSomeAndEarlier,
}

/// How a deadline is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryForm {
    /// Seconds from now, rounded. `TTL`
    Seconds,
    /// Milliseconds from now. `PTTL`
    Millis,
    /// Seconds since 1970. `EXPIRETIME`
    AtSeconds,
    /// Milliseconds since 1970. `PEXPIRETIME`
    AtMillis,
}

/// What is told about how a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Description {
    /// `OBJECT ENCODING`: `int`, `embstr` or `raw`, as Redis would say.
    Encoding,
    /// `MEMORY USAGE`: bytes of memory, or nil.
    Memory,
    /// `OBJECT REFCOUNT`: 1, or nil.
    References,
}

/// What is asked of one shard in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardOperation<'a> {
    /// One action on one key.
    One(Operation<'a>),
    /// Several actions in one log entry, all or, if a watched key has changed, none.
    Batch {
        /// Keys that must not have changed since they were observed.
        watched: Vec<(&'a [u8], Sighting)>,
        /// The actions, in order.
        operations: Vec<Operation<'a>>,
    },
    /// Keys from a place in the order of their hashes on. `SCAN`, `KEYS`
    Scan(Scan<'a>),
    /// How many keys there are. `DBSIZE`
    Count,
    /// Some key, chosen by a drawn number, or nil. `RANDOMKEY`
    Random {
        /// The drawn number.
        draw: u64,
    },
    /// How many other datacenters have applied and persisted a write of this one; answered when
    /// there are enough, or at the time-out. `WAIT`
    Replicated {
        /// The write's stamp.
        stamp: Timestamp,
        /// How many are enough.
        count: u64,
        /// How long to wait for them, in milliseconds.
        timeout_millis: u64,
    },
}

/// A step of a scan of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The smallest hash to look at.
    pub from: u64,
    /// About how many keys to look at.
    pub count: u64,
    /// A glob that keys must match.
    pub pattern: Option<&'a [u8]>,
}

impl Action<'_> {
    /// Whether the action can never change anything.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        match self {
            Self::Get
            | Self::Length
            | Self::Range { .. }
            | Self::Exists
            | Self::Type
            | Self::Expiry(_)
            | Self::Describe(_)
            | Self::Observe => true,
            Self::Set { .. }
            | Self::Delete
            | Self::Expire { .. }
            | Self::Persist
            | Self::GetAndExpire { .. }
            | Self::GetAndDelete
            | Self::Append { .. }
            | Self::SetRange { .. } => false,
        }
    }

    /// Whether the action may make the data larger, so that a memory limit refuses it.
    #[must_use]
    pub const fn may_grow(&self) -> bool {
        match self {
            Self::Set { .. } | Self::Append { .. } | Self::SetRange { .. } => true,
            Self::Get
            | Self::Length
            | Self::Range { .. }
            | Self::Exists
            | Self::Type
            | Self::Expiry(_)
            | Self::Describe(_)
            | Self::Observe
            | Self::Delete
            | Self::Expire { .. }
            | Self::Persist
            | Self::GetAndExpire { .. }
            | Self::GetAndDelete => false,
        }
    }
}

impl ShardOperation<'_> {
    /// Whether it can never change anything.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Self::One(operation) => operation.action.is_read(),
            Self::Batch { operations, .. } => {
                operations.iter().all(|operation| operation.action.is_read())
            }
            Self::Scan(_) | Self::Count | Self::Random { .. } | Self::Replicated { .. } => true,
        }
    }

    /// Whether it may make the data larger.
    #[must_use]
    pub fn may_grow(&self) -> bool {
        match self {
            Self::One(operation) => operation.action.may_grow(),
            Self::Batch { operations, .. } => {
                operations.iter().any(|operation| operation.action.may_grow())
            }
            Self::Scan(_) | Self::Count | Self::Random { .. } | Self::Replicated { .. } => false,
        }
    }
}
