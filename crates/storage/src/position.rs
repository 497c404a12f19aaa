//! Numbers the records of a log, and says how far appending, writing and syncing have come.
//!
//! Invariant: `synced_to <= written_to <= appended_to`.

use std::fmt;

use crate::shared::Fsync;

/// The number of a record in this node's log: 1, 2, 3, ... without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(u64);

impl LogIndex {
    /// The position before the first record.
    pub const START: Self = Self(0);

    /// Wraps a number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The index that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one, [`LogIndex::START`] at the least.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far the log has come; each position is up to and including.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Handed to the log, in memory.
    pub appended_to: LogIndex,
    /// Handed to the operating system: survives the end of the process.
    pub written_to: LogIndex,
    /// On disk: survives a power loss.
    pub synced_to: LogIndex,
}

impl Positions {
    /// Up to where a record counts as persisted by this node under the setting `fsync`.
    #[must_use]
    pub const fn persisted_to(&self, fsync: Fsync) -> LogIndex {
        match fsync {
            Fsync::Always => self.synced_to,
            Fsync::Interval(_) | Fsync::Never => self.written_to,
        }
    }
}
