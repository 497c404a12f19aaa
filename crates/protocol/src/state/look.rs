//! Shows one key as a reader or a writer finds it: value, version, time to live.
//!
//! A look borrows from where the state is kept, a packed record or a dirty state above it, so that
//! looking costs no allocation.
//!
//! The bytes of a value may be on disk only: then its length and all the rest is still here, and
//! who needs the bytes has them loaded first.
//!
//! A key is *visible* if it has a value that is not hidden. Whether a deadline has passed is asked
//! apart, with the time as an argument: until a hiding is logged, an expired key is still visible.

use antecede_model::{clock::Timestamp, operation::Deadline, version::Version};
use smallvec::SmallVec;

use super::record;
use crate::entry::Seen;

/// The deadline of a value that never expires; longer than every other.
pub(super) const NEVER: Deadline = Deadline::MAX;

/// A write to a time to live that no other write has superseded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TtlWrite {
    /// Which write it was; the value's own version if the value came with it.
    pub(super) version: Version,
    /// When the value expires, or [`NEVER`].
    pub(super) deadline: Deadline,
}

/// The writes to a time to live that count, smallest version first; at most one part is filled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ttls<'a> {
    /// As a record holds them.
    pub(super) packed: &'a [u8],
    /// As a dirty state holds them.
    pub(super) list: &'a [TtlWrite],
}

impl<'a> Ttls<'a> {
    /// All of them in order.
    pub(super) fn iter(self) -> impl Iterator<Item = TtlWrite> + use<'a> {
        record::unpack_ttls(self.packed).chain(self.list.iter().copied())
    }

    fn is_empty(self) -> bool {
        self.packed.is_empty() && self.list.is_empty()
    }
}

/// A value that a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// Its bytes are in memory.
    Here(&'a [u8]),
    /// Its bytes are on disk only.
    Away {
        /// How many.
        length: usize,
    },
}

impl<'a> Stored<'a> {
    /// The number of bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::Away { length } => length,
        }
    }

    /// The bytes, if they are in memory.
    #[must_use]
    pub const fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Here(bytes) => Some(bytes),
            Self::Away { .. } => None,
        }
    }

    /// Whether the bytes are on disk only.
    #[must_use]
    pub const fn is_away(self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// The state of one key at one place in the log. The default is a key that never had a version.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look<'a> {
    /// Of the value or tombstone.
    pub(super) version: Option<Version>,
    /// The value, also if it is hidden; `None` for a tombstone.
    pub(super) held: Option<Stored<'a>>,
    /// The largest weak delete of that value.
    pub(super) hidden: Option<Version>,
    /// Its time to live.
    pub(super) ttls: Ttls<'a>,
    /// The largest of the effects that make it up.
    pub(super) visible_at: Timestamp,
}

impl<'a> Look<'a> {
    /// The visible value; a deadline that has passed is not looked at.
    #[must_use]
    pub fn value(&self) -> Option<Stored<'a>> {
        self.held.filter(|_| self.hidden.is_none() || !self.ttls.is_empty())
    }

    /// Whether there is a visible value.
    #[must_use]
    pub fn is_visible(&self) -> bool {
        self.value().is_some()
    }

    /// The version of the value or tombstone; `None` if the key never had one.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// When the datacenter showed this state first: the largest of the effects that make it up.
    #[must_use]
    pub const fn visible_at(&self) -> Timestamp {
        self.visible_at
    }

    /// When the value expires: the longest time to live that counts; `None` if never.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        if self.ttls.is_empty() {
            return None;
        }
        let longest = self.ttls.iter().map(|ttl| ttl.deadline).max()?;
        (longest != NEVER).then_some(longest)
    }

    /// Whether there is a visible value whose deadline has passed: it must be hidden before
    /// anyone is told that the key is absent.
    #[must_use]
    pub fn is_expired(&self, wall_millis: u64) -> bool {
        !self.ttls.is_empty()
            && self.held.is_some()
            && self.deadline().is_some_and(|deadline| deadline < wall_millis)
    }

    /// What a read adds to its session's context: the value or tombstone, the writes to its time
    /// to live, its hiding. Nothing if the key never had a version.
    #[must_use]
    pub fn observed(&self) -> SmallVec<[Version; 1]> {
        self.seen()
    }

    /// What a write lists as seen: the value or tombstone first, then the writes to its time to
    /// live and its hiding. A time to live that the value came with is part of the value and is
    /// not listed again.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let mut seen = Seen::new();
        let Some(version) = self.version else { return seen };
        seen.push(version);
        for ttl in self.ttls.iter().filter(|ttl| ttl.version != version) {
            seen.push(ttl.version);
        }
        seen.extend(self.hidden);
        seen
    }

    /// What `WATCH` remembers of a key that has a value, `None` if it has none or its time is
    /// over: differs after every change of the key that was applied in this datacenter in between,
    /// because each has a larger visible-at.
    #[must_use]
    pub fn presence(&self, wall_millis: u64) -> Option<Version> {
        let version =
            self.version.filter(|_| self.is_visible() && !self.is_expired(wall_millis))?;
        Some(Version { timestamp: self.visible_at, origin: version.origin })
    }

    /// The largest version of all that makes up the state.
    pub(super) fn largest_version(&self) -> Option<Version> {
        self.ttls.iter().map(|ttl| ttl.version).chain(self.hidden).chain(self.version).max()
    }
}
