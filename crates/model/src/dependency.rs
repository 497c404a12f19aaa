//! Names a write that must be applied before another may be: (origin, shard, stamp).
//!
//! It names the write, not a key's current value: a newer version of the same key does not stand
//! for it (PITFALLS A10; COPS section 4.2 asks only for "at least this version").

use std::fmt;

use crate::{
    clock::Timestamp,
    ids::{DatacenterId, ShardId},
};

/// A write, named by where it began, its shard and its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dependency {
    /// The datacenter where the write began.
    pub origin: DatacenterId,
    /// Its shard, the same everywhere.
    pub shard: ShardId,
    /// The stamp that the origin's head gave it.
    pub stamp: Timestamp,
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.shard, self.stamp, self.origin)
    }
}
