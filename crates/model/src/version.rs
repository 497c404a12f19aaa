//! Orders writes: the version with the larger timestamp wins, between equal ones the larger origin.
//!
//! For an ordinary write the timestamp is its stamp, so a version also names the entry that made it.

use std::fmt;

use crate::{clock::Timestamp, ids::DatacenterId};

/// A totally ordered name of a value of a key: the larger one wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Decides first.
    pub timestamp: Timestamp,
    /// Where the write began; decides between equal timestamps.
    pub origin: DatacenterId,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.timestamp, self.origin)
    }
}
