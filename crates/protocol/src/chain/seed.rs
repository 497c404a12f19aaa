//! Fills the shards of a datacenter that is being added from one that serves.
//!
//! The first replica of each new chain copies from the tail of the same shard in another datacenter,
//! just as a syncing replica does from its own tail (`copy`): its log becomes that of the donor,
//! with the same positions, applied sets and keys. Once it has all that the donor had when it first
//! answered, and the donor's chain cannot lose it any more, the log *stands alone*: the replica
//! appends a tick of its own datacenter and is the head and tail of a chain that the others join as
//! always. What comes later arrives from all origins in their lines, from where the applied sets end:
//! nobody has let go of it, since all others acknowledged the new member first (PITFALLS A15).
//!
//! The donor keeps nothing of it and waits for nobody: another tail can go on with any answer.
//!
//! Assumes: a datacenter that is new has never given a stamp; its number was never used before.
//! Ensures: a log that stands alone holds a tick of its own datacenter, also after a restart.
//! Not here: when the datacenter may answer clients (`geo::cuts`).

use std::sync::Arc;

use antecede_model::{
    clock::Timestamp,
    ids::{NodeId, Position},
    membership::Standing,
};

use super::{Neighbours, Shard, copy::LOOK_EVERY};
use crate::{
    entry::Body as EntryBody,
    event::Event,
    machine::{Here, Outputs, Storage},
    message::{Body, Copied, CopyAsk},
    mutation::Mutation,
    retries::Kept,
};

impl Shard {
    /// Whether this replica's log does not stand alone yet, in a datacenter that is being added.
    ///
    /// Another replica becomes one of the chain only when the log of the first stands alone: one that
    /// lacks the mark then has lost its end, and gets it from its neighbours.
    pub(super) fn is_seeding(&self) -> bool {
        let own = self.here_datacenter();
        if 1 < self.configuration.chain(own, self.shard).len() {
            return false;
        }
        let is_new = match self.configuration.membership.standing(own) {
            Some(Standing::Joining { .. } | Standing::Copying { .. }) => true,
            Some(Standing::Open | Standing::Leaving | Standing::Lost) | None => false,
        };
        let line = self.lines.get(&own);
        is_new && line.is_none_or(|line| line.received.watermark() == Timestamp::ZERO)
    }

    /// Takes no place in its own chain yet, and copies from another datacenter if it may.
    pub(super) fn take_place_of_seed(&mut self) {
        let own = self.here_datacenter();
        let donor = self.configuration.donor_of(own);
        let is_first = self.neighbours.is_head();
        self.neighbours = Neighbours::default();
        self.joiner = None;
        self.donor = donor.and_then(|from| self.configuration.tail(from, self.shard));
        self.donor = self.donor.filter(|_| is_first);
    }

    /// At the tail of the donor: answers a replica of another datacenter that is being added.
    pub(super) fn on_seed_ask(
        &mut self,
        here: &Here,
        from: NodeId,
        ask: CopyAsk,
        out: &mut Outputs,
    ) {
        let is_due = self.configuration.donor_of(from.datacenter) == Some(self.here_datacenter());
        if !is_due || !self.neighbours.is_tail() || !self.is_settled() || !self.may_answer(here) {
            return; // It asks again.
        }
        self.copying.held_seed = Some((from, ask));
        self.answer_seed(out);
    }

    /// Answers the question of a replica of another datacenter, if all that it needs is in memory.
    pub(super) fn answer_seed(&mut self, out: &mut Outputs) {
        let Some((from, ask)) = self.copying.held_seed.take() else { return };
        let number = ask.number;
        let has_to = ask.last.map_or(Position(0), |identity| identity.position);
        if !self.window.continues(ask.last) || self.committed_to < has_to {
            let start = self.start_of_copy();
            out.early(from, self.message(Body::CopyAnew { number, start }));
            return;
        }
        let mut entries = self.chunk_after(has_to);
        entries.retain(|entry| entry.identity.position <= self.committed_to);
        match self.copied_after(&ask, has_to, entries, out) {
            Some(copied) => out.early(from, self.message(Body::Copied(copied))),
            None => self.copying.held_seed = Some((from, ask)),
        }
    }

    /// Whether a seed has all that it was to copy. Then nothing more is taken: its log ends where
    /// the donor's may still lose its end, and waits until it cannot.
    pub(super) fn goes_on_alone(
        &mut self,
        here: &Here,
        copied: &Copied,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) -> bool {
        if !self.is_seeding() {
            return false;
        }
        let seed_to = *self.copying.seed_to.get_or_insert(copied.committed_to);
        let end = self.window.end();
        let has_all = self.has_all_data()
            && end == self.committed_to
            && (seed_to <= end || self.options.mutations.has(Mutation::SeedFromTheMiddle));
        if !has_all {
            return false;
        }
        self.copying.note_durable(copied.durable_to);
        if end <= copied.durable_to && self.is_whole(storage) {
            self.stand_alone(here, storage, out);
        } else {
            self.ask_again_at(super::after(here.now.steady, LOOK_EVERY), out);
        }
        true
    }

    /// Ends the copy: from here on the log is that of a chain of its own.
    fn stand_alone(&mut self, here: &Here, storage: &mut dyn Storage, out: &mut Outputs) {
        self.copying.begin_again();
        self.donor = None;
        let stamp = self.hlc.next_above(here.now.wall, Timestamp::ZERO);
        let floor = self.floor_of_ids(stamp).map(|floor| Arc::new(Kept::floor(floor)));
        self.append_own(here, stamp, (EntryBody::Tick, floor), storage, out);
        out.event(Event::Seeded { shard: self.shard });
        self.take_place(here.boot);
        self.before = self.before_at_start();
        self.settle_anew(here, out);
    }

    /// Up to which number a request id may have been executed under the name of this datacenter
    /// before it came back: ids are times, and a clock may be ahead.
    fn floor_of_ids(&self, stamp: Timestamp) -> Option<u64> {
        let comes_back = self.configuration.membership.comes_back(self.here_datacenter());
        let ahead = u64::try_from(self.options.max_clock_drift.as_millis()).unwrap_or(u64::MAX);
        let millis = stamp.millis().saturating_add(ahead).saturating_add(1);
        let forgets = self.options.mutations.has(Mutation::ReturnWithoutFloors);
        (comes_back && !forgets).then(|| millis.saturating_mul(1000))
    }
}
