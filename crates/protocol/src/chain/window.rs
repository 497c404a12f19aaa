//! Keeps the end of a shard's log in memory: what others may still need.
//!
//! The window holds a contiguous run of entries up to the log's end. Its front is cut once an
//! entry is committed, survives a power loss everywhere in the chain, and is stable. What stays for
//! replicas that are away though it could be cut is counted apart, so that the rest, what is kept
//! for other datacenters, is known without a walk.
//!
//! Invariant: times of visibility grow along the log, so that a time is found by halving.

use std::collections::VecDeque;

use antecede_model::{
    clock::Timestamp,
    ids::{LogIndex, Position},
};

use crate::entry::{Entry, Identity};

/// A contiguous run of entries at the end of a shard's log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// Where each lies in the node's log.
    places: VecDeque<LogIndex>,
    /// The position right before the first entry that is held.
    cut_to: Position,
    /// Bytes of the bodies that are held.
    bytes: usize,
    /// The name of the log's last entry, also after it was cut.
    last: Option<Identity>,
    /// The name of the entry right before the first one that is held.
    before: Option<Identity>,
    /// Entries at the front that no other datacenter needs.
    spare_count: usize,
    /// Bytes of their bodies.
    spare_bytes: usize,
    /// Bytes that were let go of since the node's log said so last, about.
    untold: usize,
}

/// Bytes that an entry takes beside its body: its own, its place, and the head of the body's block.
const BESIDE_BODY: usize = size_of::<Entry>() + size_of::<LogIndex>() + 4 * size_of::<usize>();
/// Room for so many entries is never given back.
const ROOM_MIN: usize = 1_024;

impl Window {
    /// The window of a log of which nothing is held but the name of its last entry.
    pub(crate) fn behind(last: Option<Identity>) -> Self {
        let cut_to = last.map_or(Position(0), |identity| identity.position);
        Self { cut_to, last, before: last, ..Self::default() }
    }

    /// Whether a log that ends with this entry can be continued with what is held here.
    pub(crate) fn continues(&self, last: Option<Identity>) -> bool {
        let Some(identity) = last else { return self.cut_to == Position(0) };
        self.identity_at(identity.position) == Some(identity)
    }

    /// The name of the entry at a position, if it is known.
    pub(crate) fn identity_at(&self, position: Position) -> Option<Identity> {
        if position == self.cut_to { self.before } else { self.at(position).map(|it| it.identity) }
    }

    /// The last position of the log; zero for an empty one.
    pub(crate) fn end(&self) -> Position {
        Position(self.cut_to.0 + self.entries.len() as u64)
    }

    /// The position right before the first entry that is held.
    pub(crate) const fn cut_to(&self) -> Position {
        self.cut_to
    }

    /// Bytes of the bodies that are held.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that the entries take, about.
    pub(crate) fn weight(&self) -> usize {
        self.bytes + self.entries.len() * BESIDE_BODY
    }

    /// How many entries other datacenters may need, and the bytes that they take, about.
    pub(crate) fn needed(&self) -> (u64, usize) {
        let count = self.entries.len() - self.spare_count;
        (count as u64, self.bytes - self.spare_bytes + count * BESIDE_BODY)
    }

    /// Whether the first entry that is held is one that no other datacenter needs.
    pub(crate) const fn has_spare(&self) -> bool {
        0 < self.spare_count
    }

    /// The first entry that other datacenters may need.
    pub(crate) fn first_needed(&self) -> Option<&Entry> {
        self.entries.get(self.spare_count)
    }

    /// Notes that no other datacenter needs the first entry that they might.
    pub(crate) fn spare_first_needed(&mut self) {
        let entry =
            self.entries.get(self.spare_count).expect("only an entry that is held is spared");
        self.spare_bytes += entry.body_bytes();
        self.spare_count += 1;
    }

    /// The name of the log's last entry.
    pub(crate) const fn last(&self) -> Option<Identity> {
        self.last
    }

    /// The entry at a position, if it is held.
    pub(crate) fn at(&self, position: Position) -> Option<&Entry> {
        let offset = position.0.checked_sub(self.cut_to.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Entries up to a position, this one included, backwards.
    pub(crate) fn before(&self, position: Position) -> impl Iterator<Item = &Entry> {
        let held = usize::try_from(position.0.saturating_sub(self.cut_to.0)).unwrap_or(usize::MAX);
        self.entries.range(..held.min(self.entries.len())).rev()
    }

    /// Entries behind a position, in order; those that were cut are left out.
    pub(crate) fn after(&self, position: Position) -> impl Iterator<Item = &Entry> {
        let skipped = position.0.saturating_sub(self.cut_to.0);
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(skipped..)
    }

    /// The last position at which an entry is held that was readable at a time, or the one before
    /// the first. Entries that began here became readable at their stamp.
    pub(crate) fn position_at(&self, time: Timestamp) -> Position {
        let held = self.entries.partition_point(|entry| entry.visible_at <= time);
        Position(self.cut_to.0 + held as u64)
    }

    /// The first place in the node's log at which an entry lies that is held, and is behind a
    /// position.
    pub(crate) fn first_place_after(&self, position: Position) -> Option<LogIndex> {
        let skipped = usize::try_from(position.0.saturating_sub(self.cut_to.0));
        let skipped = skipped.unwrap_or(usize::MAX).min(self.places.len());
        self.places.range(skipped..).min().copied() // History was written after what follows it.
    }

    /// Puts an entry behind the last one.
    pub(crate) fn push(&mut self, entry: Entry, place: LogIndex) {
        assert!(entry.identity.position == self.end().next(), "a log has no gaps");
        let last_visible_at = self.entries.back().map(|last| last.visible_at);
        assert!(last_visible_at < Some(entry.visible_at), "times of visibility grow along a log");
        self.bytes += entry.body_bytes();
        self.last = Some(entry.identity);
        self.places.push_back(place);
        self.entries.push_back(entry);
    }

    /// Whether an entry belongs right before the first one.
    pub(crate) fn fits_front(&self, entry: &Entry) -> bool {
        let is_it = self.before.is_none_or(|before| before == entry.identity);
        is_it && entry.identity.position == self.cut_to
    }

    /// Puts an entry before the first one; false if it does not belong there.
    pub(crate) fn push_front(&mut self, entry: Entry, place: LogIndex) -> bool {
        if !self.fits_front(&entry) {
            return false;
        }
        self.bytes += entry.body_bytes();
        self.cut_to = Position(self.cut_to.0 - 1);
        self.before = None; // Not known until the next one is put before it.
        (self.spare_count, self.spare_bytes) = (0, 0);
        self.entries.push_front(entry);
        self.places.push_front(place);
        true
    }

    /// Lets go of the first entry.
    pub(crate) fn cut_front(&mut self) {
        let entry = self.entries.pop_front().expect("only an entry that is held is cut");
        self.places.pop_front();
        let bytes = entry.body_bytes();
        self.bytes -= bytes;
        if let Some(spare) = self.spare_count.checked_sub(1) {
            self.spare_count = spare;
            self.spare_bytes -= bytes;
        }
        self.cut_to = self.cut_to.next();
        self.before = Some(entry.identity);
        self.untold += bytes + BESIDE_BODY;
        self.give_room_back();
    }

    /// Up to where entries were let go of, if the node's log should say so: more than so many bytes
    /// of them since it did.
    pub(crate) fn tell_trimmed(&mut self, bytes_min: usize) -> Option<Position> {
        let is_due = bytes_min < self.untold;
        is_due.then(|| {
            self.untold = 0;
            self.cut_to
        })
    }

    /// Lets go of what the node's log says was let go of: entries up to a position that is not
    /// behind the end.
    pub(crate) fn cut_as_told(&mut self, to: Position) {
        while self.cut_to < to {
            self.cut_front();
        }
        self.untold = 0;
    }

    /// Gives memory back after a long window has become short.
    fn give_room_back(&mut self) {
        let room = self.entries.capacity();
        if ROOM_MIN < room && self.entries.len() < room / 8 {
            self.entries.shrink_to(room / 4);
            self.places.shrink_to(room / 4);
        }
    }

    /// Takes back the entries behind a position that is held, or is the one before the first.
    pub(crate) fn cut_back(&mut self, to: Position) {
        while to < self.end() && !self.entries.is_empty() {
            let entry = self.entries.pop_back().expect("there is one");
            self.places.pop_back();
            self.bytes -= entry.body_bytes();
        }
        if self.entries.len() < self.spare_count {
            (self.spare_count, self.spare_bytes) = (self.entries.len(), self.bytes);
        }
        self.last = self.identity_at(self.end());
    }
}
