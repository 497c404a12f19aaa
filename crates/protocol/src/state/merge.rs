//! Merges effects into the state of a key, so that their order does not matter.
//!
//! Of all values and tombstones the one with the largest version counts (the last writer wins). A
//! time to live belongs to one value: each write to it removes those that it has seen; of the
//! concurrent ones that are left, the longest counts. A hiding, the weak delete after expiry,
//! removes the writes to the time to live that it has seen; the value is hidden if none is left.
//! So a concurrent longer time to live brings the value back, whichever comes first.
//!
//! Assumes: an effect comes after everything in its `seen`, whose first version is the value or
//! tombstone that was found, and its version is larger than all of them.
//! Ensures: the state is a pure function of the set of effects (a test tries all orders against a
//! rule that is written down apart).

use antecede_model::{clock::Timestamp, version::Version};
use smallvec::SmallVec;

use crate::entry::Change;

use super::look::{Look, NEVER, TtlWrite, Ttls};

/// The state of one key; `V` tells where its value is found.
#[derive(Clone, Debug)]
pub(super) struct KeyState<V> {
    /// Of the value or tombstone; `None` if the key never had one.
    pub(super) version: Option<Version>,
    /// The value, also if it is hidden; `None` for a tombstone.
    pub(super) value: Option<V>,
    /// The largest hiding of that value.
    pub(super) hidden: Option<Version>,
    /// Writes to its time to live that were not superseded, smallest version first.
    pub(super) ttls: SmallVec<[TtlWrite; 1]>,
    /// The largest visible-at of the effects that make it up.
    pub(super) visible_at: Timestamp,
}

/// An effect, as far as it concerns the state of its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Applying<'a> {
    /// Of the entry.
    pub(super) version: Version,
    /// Of the entry.
    pub(super) visible_at: Timestamp,
    /// What it found there.
    pub(super) seen: &'a [Version],
    /// What it does.
    pub(super) change: Change<'a>,
}

/// What became of an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Whether the state is another one now.
    pub(super) is_changed: bool,
    /// A value that was dropped although its counterpart had not seen it: loser, then winner.
    pub(super) dropped: Option<(Version, Version)>,
}

impl<V> KeyState<V> {
    /// Takes over a state, with `value` for the place of its value.
    pub(super) fn of(look: &Look<'_>, value: V) -> Self {
        Self {
            version: look.version,
            value: look.held.map(|_| value),
            hidden: look.hidden,
            ttls: look.ttls.iter().collect(),
            visible_at: look.visible_at,
        }
    }

    /// The state with its value at hand.
    pub(super) fn look<'a>(&'a self, held: Option<&'a [u8]>) -> Look<'a> {
        Look {
            version: self.version,
            held,
            hidden: self.hidden,
            ttls: Ttls { packed: &[], list: &self.ttls },
            visible_at: self.visible_at,
        }
    }

    /// Merges an effect; `place` is where its value is found, if it sets one.
    pub(super) fn merge(&mut self, effect: &Applying<'_>, place: impl FnOnce() -> V) -> Merged {
        match effect.change {
            Change::Set { deadline, .. } => {
                let merged = self.replace(effect, true);
                if merged.is_changed {
                    self.value = Some(place());
                    self.ttls.extend(
                        deadline.map(|deadline| TtlWrite { version: effect.version, deadline }),
                    );
                }
                merged
            }
            Change::Delete => self.replace(effect, false),
            Change::Ttl { deadline } => {
                let is_target = self.supersede_seen(effect);
                if is_target {
                    let deadline = deadline.unwrap_or(NEVER);
                    let place = self.ttls.partition_point(|ttl| ttl.version < effect.version);
                    self.ttls.insert(place, TtlWrite { version: effect.version, deadline });
                }
                Merged { is_changed: is_target, dropped: None }
            }
            Change::Hide => {
                let is_target = self.supersede_seen(effect);
                if is_target {
                    self.hidden = self.hidden.max(Some(effect.version));
                }
                Merged { is_changed: is_target, dropped: None }
            }
        }
    }

    /// Puts a value or tombstone in the place of a smaller one; the caller fills in the value.
    fn replace(&mut self, effect: &Applying<'_>, has_value: bool) -> Merged {
        let winner = effect.version;
        let has_seen = effect.seen.first().copied() == self.version;
        match self.version {
            Some(found) if found == winner => Merged::default(),
            Some(found) if winner < found => {
                Merged { is_changed: false, dropped: has_value.then_some((winner, found)) }
            }
            found => {
                let is_visible = self.look(self.value.as_ref().map(|_| &[][..])).is_visible();
                let loser = found.filter(|_| !has_seen && is_visible);
                self.version = Some(winner);
                self.value = None;
                self.hidden = None;
                self.ttls.clear();
                self.visible_at = effect.visible_at;
                Merged { is_changed: true, dropped: loser.map(|loser| (loser, winner)) }
            }
        }
    }

    /// Removes the writes to the time to live that an effect on it has seen. The one that came
    /// with the value is seen by everyone who has seen the value. False if the value that the
    /// effect is about is no longer there.
    fn supersede_seen(&mut self, effect: &Applying<'_>) -> bool {
        let target = effect.seen.first().copied();
        if self.value.is_none() || target != self.version {
            return false;
        }
        self.ttls.retain(|ttl| !effect.seen.contains(&ttl.version));
        self.visible_at = self.visible_at.max(effect.visible_at);
        true
    }
}

impl<V> Default for KeyState<V> {
    fn default() -> Self {
        Self {
            version: None,
            value: None,
            hidden: None,
            ttls: SmallVec::new(),
            visible_at: Timestamp::ZERO,
        }
    }
}
