//! Agrees with the neighbours on the log after a restart or in a new epoch.
//!
//! From tail to head: a log is complete once it holds all that the successor's complete log holds
//! (the tail's always is). A replica is settled, and answers clients, once its log is complete and
//! holds everything that may have been committed before; the tail once it has committed that. Where
//! the successor holds more (this replica lost what it had not persisted), that is taken back whole
//! before anything new is given a position; where it holds less, it is sent again. Replicas that
//! are settling answer each other, so that nobody waits in a circle (DESIGN section 3 "Restart").
//!
//! What may have been committed is known from the head down: a run names the most that it has
//! promised, and what it has heard of those before it. So a tail that has lost its end, with weaker
//! fsync, does not answer from below what was shown before, also when others have lost theirs; nor
//! does a middle that has lost it together with the tail.
//!
//! Assumes: a predecessor has all that its successor has, except what a crash took from it.
//! Ensures: positions are never given twice in one epoch to entries that can both survive.

use std::sync::Arc;

use antecede_model::{
    clock::{Hlc, Steady},
    configuration::{Configuration, Waiting},
    ids::{Boot, NodeId, Position},
};

use super::{Cuts, Neighbours, SETTLE_EVERY, Shard, after};
use crate::{
    copied::Start,
    entry::{Entry, Identity},
    event::Event,
    geo::{cuts::initial_cuts, stable::Collection},
    machine::{Here, Outputs, Room, Storage},
    message::{Body, Message, Progress},
    mutation::Mutation,
};

/// How far a replica has agreed with its neighbours.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Whether it may answer clients.
    pub(super) is_settled: bool,
    /// Whether the successor's log is known to fit: entries may be sent.
    has_agreed: bool,
    /// Whether the successor has said that its log is complete.
    is_next_complete: bool,
    /// Whether the predecessor has said since the start what may have been committed.
    has_heard_before: bool,
    /// Nothing behind this may have been committed: neither before the start, once the predecessor
    /// has said so, nor since by the word of this run. The tail must have committed all of it
    /// before it answers.
    committed_at_most: Position,
    /// When to ask again.
    again_at: Option<Steady>,
    /// A neighbour that lacks more than this replica can give it.
    misfit: Option<NodeId>,
    /// What the successor has acknowledged in the run that was agreed with. With a weaker fsync it may
    /// be less than an earlier run of it had.
    pub(super) acked_to: Position,
    /// The same when the resend timer was set.
    pub(super) acked_at_check: Position,
}

impl Settling {
    pub(super) const fn has_agreed(&self) -> bool {
        self.has_agreed
    }

    fn hear_from_before(&mut self, committed_at_most: Option<Position>) {
        if let Some(to) = committed_at_most
            && !self.has_heard_before
        {
            self.has_heard_before = true;
            self.committed_at_most = self.committed_at_most.max(to);
        }
    }

    pub(super) fn promise(&mut self, to: Position) {
        self.committed_at_most = self.committed_at_most.max(to);
    }
}

impl Shard {
    /// Begins after recovery: settles with its neighbours, or copies what it lacks.
    pub fn start(&mut self, here: &Here, storage: &mut dyn Storage, out: &mut Outputs) {
        self.hlc.witness(here.hlc_floor);
        if self.options.mutations.has(Mutation::ForgetExceptionsOnRestart) {
            self.forget_exceptions();
        }
        self.number_questions_from(here.boot);
        let end = self.window.end();
        self.own = Progress { persisted_to: end, synced_to: end };
        self.take_place(here.boot);
        if self.neighbours.is_member {
            self.empty_if_broken(storage, out);
            self.before = self.before_at_start();
            self.settle_anew(here, out);
        } else if self.donor.is_some() {
            self.begin_syncing(here, storage, out);
        }
    }

    /// The neighbour whose log cannot be brought together with this one: it lacks more than is held
    /// here. A fact for the manager.
    #[must_use]
    pub const fn misfit(&self) -> Option<NodeId> {
        self.settling.misfit
    }

    /// A deliberate bug: takes the largest stamp that is held for the watermark.
    fn forget_exceptions(&mut self) {
        for line in self.lines.values_mut() {
            for set in [&mut line.received, &mut line.applied, &mut line.durable] {
                if let Some(newest) = set.above().last() {
                    set.raise(newest);
                }
            }
        }
    }

    /// A deliberate bug: a clock that has seen the writes of the log, not the ticks.
    fn forget_ticks(&mut self) {
        let writes = self.window.after(Position(0)).filter(|entry| !entry.is_tick());
        let newest = writes.map(|entry| entry.stamp.max(entry.visible_at)).max();
        self.hlc = Hlc::starting_above(newest.unwrap_or_default());
    }

    pub(super) fn settle_anew(&mut self, here: &Here, out: &mut Outputs) {
        self.settling = Settling { committed_at_most: self.window.end(), ..Settling::default() };
        self.told = None;
        self.sent_to = self.committed_to;
        self.resend_at = None;
        if self.options.mutations.has(Mutation::RestartWithoutSettling) {
            self.settling.is_settled = true;
            self.settling.has_agreed = true;
            self.settling.has_heard_before = true;
            self.sent_to = self.window.end();
            self.settling.acked_to = self.all.persisted_to;
        }
        if let Some(previous) = self.neighbours.previous {
            let message = self.settle_tell(None);
            out.early(previous, message);
        } else {
            self.settling.has_heard_before = true;
        }
        self.probe_outboxes(here, out);
        self.advance(here, out);
        self.settle_again(here, out);
    }

    fn settle_tell(&self, asked_by: Option<Boot>) -> Message {
        self.message(Body::SettleTell {
            last: self.window.last(),
            is_complete: self.is_complete(),
            asked_by,
        })
    }

    /// Whether the log holds everything that those further down hold. The tail's always does.
    const fn is_complete(&self) -> bool {
        self.neighbours.is_tail() || self.settling.has_agreed && self.settling.is_next_complete
    }

    /// Asks again while there is something to settle.
    pub(super) fn settle_again(&mut self, here: &Here, out: &mut Outputs) {
        if let Some(due) = self.settling.again_at
            && here.now.steady < due
        {
            self.arm(due, out);
            return;
        }
        self.settling.again_at = None;
        self.update_settled(out); // It may have got what it lacked.
        let has_questions = self.must_ask_next() || self.lacks_word_from_before();
        if !has_questions || !self.neighbours.is_member {
            return;
        }
        if self.must_ask_next() {
            self.settle_ask(out);
        }
        if let Some(previous) = self.neighbours.previous
            && self.lacks_word_from_before()
        {
            let message = self.settle_tell(None);
            out.early(previous, message);
        }
        let at = after(here.now.steady, SETTLE_EVERY);
        self.settling.again_at = Some(at);
        self.arm(at, out);
    }

    /// Whether the successor has not said yet that its log is complete and fits.
    const fn must_ask_next(&self) -> bool {
        !self.is_complete()
    }

    /// Whether the predecessor has not said yet what may have been committed, or not promised it.
    ///
    /// It says both once; where that was lost, everything may be acknowledged already, and nothing
    /// but this asks for it again.
    fn lacks_word_from_before(&self) -> bool {
        !self.settling.has_heard_before
            || self.before.progress.persisted_to < self.settling.committed_at_most
    }

    /// The successor has restarted: it has to be agreed with again.
    pub(super) fn disagree(&mut self) {
        self.settling.has_agreed = false;
        self.settling.is_next_complete = false;
        self.told = None;
    }

    /// Asks the successor where its log ends, and says what may have been committed.
    fn settle_ask(&self, out: &mut Outputs) {
        if let Some(next) = self.neighbours.next {
            let at_most = self.settling.committed_at_most;
            let committed_at_most = self.settling.has_heard_before.then_some(at_most);
            out.early(next, self.message(Body::SettleAsk { committed_at_most }));
        }
    }

    pub(super) fn on_settle_ask(
        &mut self,
        (from, boot): (NodeId, Boot),
        committed_at_most: Option<Position>,
        out: &mut Outputs,
    ) {
        if self.is_from(self.neighbours.previous, from, out) {
            self.settling.hear_from_before(committed_at_most);
            self.update_settled(out);
            out.early(from, self.settle_tell(Some(boot)));
        }
    }

    /// The successor is there: asks it without waiting for the timer.
    pub(super) fn ask_at_once(&mut self, here: &Here, out: &mut Outputs) {
        if self.settling.has_agreed
            && let Some(next) = self.neighbours.next
        {
            // It has agreed and says so again: it may have missed how far this one has come.
            self.tell_progress(next, out);
            if self.settling.is_next_complete {
                self.settle_ask(out); // There is no more to ask, but it may want to hear the rest.
            }
        }
        if self.must_ask_next() {
            self.settling.again_at = None;
            self.settle_again(here, out);
        }
    }

    pub(super) fn on_settle_tell(
        &mut self,
        here: &Here,
        from: NodeId,
        last: Option<Identity>,
        is_complete: bool,
        out: &mut Outputs,
    ) {
        if !self.is_from(self.neighbours.next, from, out) {
            return;
        }
        if self.settling.has_agreed && self.settling.is_next_complete {
            return; // Said before they agreed.
        }
        let their_end = last.map_or(Position(0), |identity| identity.position);
        if self.window.end() < their_end {
            self.settling.has_agreed = false;
            if is_complete {
                let missing = self.window.end().next();
                out.early(from, self.message(Body::TakeBack { from: missing }));
            }
            self.settle_again(here, out);
            return;
        }
        if !self.settling.has_agreed {
            if !self.fits(from, last, out) {
                return;
            }
            self.settling.has_agreed = true;
            self.sent_to = their_end;
            self.settling.acked_to = self.all.persisted_to.min(their_end);
            self.told = None;
            self.send_entries(here, out);
            self.advance(here, out);
        }
        self.settling.is_next_complete |= is_complete;
        self.update_settled(out);
        self.settle_again(here, out);
    }

    /// Whether the successor's last entry is the one that is known here at its position.
    fn fits(&mut self, from: NodeId, last: Option<Identity>, out: &mut Outputs) -> bool {
        let position = last.map_or(Position(0), |identity| identity.position);
        let held = self.window.identity_at(position);
        let is_same = held.is_none() || held == last;
        let can_send_on = self.window.cut_to() <= position;
        if !is_same || !can_send_on {
            self.note_misfit(from, position, out);
        }
        is_same && can_send_on
    }

    /// Without a manager nobody can mend this but an operator.
    fn note_misfit(&mut self, with: NodeId, position: Position, out: &mut Outputs) {
        let here = self.configuration.datacenter(self.node.datacenter);
        let is_managed = here.is_some_and(|here| here.boots.contains_key(&with));
        if is_managed {
            self.settling.misfit = Some(with);
        } else {
            out.event(Event::Diverged { shard: self.shard, with, position });
        }
    }

    pub(super) fn on_take_back(&mut self, from: NodeId, position: Position, out: &mut Outputs) {
        if !self.is_from(self.neighbours.previous, from, out) || position.0 == 0 {
            return;
        }
        if position <= self.window.cut_to() {
            self.note_misfit(from, position, out);
            return;
        }
        let entries = self.chunk_after(Position(position.0 - 1));
        if !entries.is_empty() {
            out.early(from, self.message(Body::Returned { entries }));
        }
    }

    pub(super) fn on_returned(
        &mut self,
        here: &Here,
        from: NodeId,
        entries: Vec<Entry>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        if !self.is_from(self.neighbours.next, from, out) || self.settling.has_agreed {
            return;
        }
        let returned_to = entries.last().map(|entry| entry.identity.position);
        for entry in entries {
            if entry.identity.position == self.window.end().next() && storage.room() != Room::None {
                self.append(entry, storage, out);
            }
        }
        if returned_to <= Some(self.window.end()) {
            self.settling.again_at = None; // Else, as without room, it waits before it asks again.
            self.settle_again(here, out);
        }
    }

    /// Notes when everything is agreed, and tells the predecessor.
    pub(super) fn update_settled(&mut self, out: &mut Outputs) {
        if self.settling.is_settled || !self.neighbours.is_member {
            return;
        }
        let at_most = self.settling.committed_at_most;
        let has_all = if self.neighbours.is_tail() {
            at_most <= self.committed_to
        } else {
            // What is not known to be committed here is dirty: the tail is asked.
            self.is_complete() && at_most <= self.window.end()
        };
        self.settling.is_settled = self.settling.has_heard_before && has_all;
        if self.settling.is_settled {
            out.event(Event::Settled { shard: self.shard });
            if let Some(previous) = self.neighbours.previous {
                out.early(previous, self.settle_tell(None));
            }
        }
    }

    /// Other datacenters are there than before.
    fn adopt_members(
        &mut self,
        here: &Here,
        was_alone: bool,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        self.note_standing();
        self.forget_strangers();
        self.hand_on_anew();
        self.collection = Collection::default(); // What was stable among others says nothing.
        let first = initial_cuts(&self.configuration, self.node.datacenter);
        if was_alone {
            self.cuts = Cuts { hlc: self.cuts.hlc, ..first };
        } else {
            first.stable.iter().for_each(|(origin, to)| self.cuts.stable.advance(origin, to));
        }
        self.resolve_what_is_covered(here, storage, out);
        self.release_floors(here, storage, out);
    }

    /// Takes the place that the configuration gives to this run.
    pub(super) fn take_place(&mut self, boot: Boot) {
        let Some(here) = self.configuration.datacenter(self.node.datacenter) else { return };
        let chain = self.configuration.chain_of(self.node.datacenter, self.shard);
        let has_right = here.boots.get(&self.node).is_none_or(|known| *known == boot);
        let (Some(chain), true) = (chain, has_right) else {
            (self.neighbours, self.donor, self.joiner) = (Neighbours::default(), None, None);
            return;
        };
        self.neighbours = Neighbours::of(self.node, &chain.serving);
        let is_syncing = chain.waiting.get(&self.node) == Some(&Waiting::Syncing);
        self.donor = chain.serving.last().copied().filter(|_| is_syncing);
        let joiner = chain.waiting_as(Waiting::Syncing).next();
        self.joiner = joiner.filter(|_| self.neighbours.is_tail());
        self.lacks_replicas = !chain.waiting.is_empty();
        self.is_aside = here.is_aside(self.node, self.shard);
        if self.joiner.is_none() {
            self.copying.forget_joiner();
        }
        for (node, boot) in &here.boots {
            self.boots.insert(*node, *boot);
        }
        if self.neighbours.is_member && self.is_seeding() {
            self.take_place_of_seed();
        }
    }

    /// A replica without which its chain goes on for good holds nothing from then on.
    fn forget_if_out(&mut self, here: &Here, storage: &mut dyn Storage, out: &mut Outputs) {
        let Some(part) = self.configuration.datacenter(self.node.datacenter) else { return };
        let chain = self.configuration.chain_of(self.node.datacenter, self.shard);
        let is_out = chain.is_some_and(|chain| {
            !chain.serving.is_empty() && chain.members().all(|member| member != self.node)
        });
        let is_known = part.boots.get(&self.node) == Some(&here.boot);
        let holds = Position(0) < self.window.end() || self.keys.frontier().is_some();
        if is_out && is_known && holds {
            self.give_up_replies(out);
            self.begin_from(&Start::default(), storage, out);
        }
    }

    /// Takes its place in a newer configuration; older ones are ignored.
    pub(super) fn on_configuration(
        &mut self,
        here: &Here,
        configuration: Arc<Configuration>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let is_news = configuration
            .datacenters
            .iter()
            .any(|(id, there)| self.configuration.epoch(*id) < there.epoch);
        let has_members = self.configuration.membership.epoch < configuration.membership.epoch;
        if !is_news && !has_members {
            return;
        }
        let (was_head, was_syncing) = (self.neighbours.is_head(), self.donor.is_some());
        let was_alone = self.configuration.peers(self.node.datacenter).next().is_none();
        let before = std::mem::replace(&mut self.configuration, configuration);
        if has_members {
            self.adopt_members(here, was_alone, storage, out);
        }
        self.take_place(here.boot);
        self.forget_if_out(here, storage, out);
        let epoch = self.configuration.chain_epoch(self.node.datacenter, self.shard);
        if epoch <= self.epoch {
            if !was_syncing && self.donor.is_some() {
                self.begin_syncing(here, storage, out);
            }
            self.advance(here, out); // It may have waited for a replica that copies no more.
            self.probe_changed_peers(here, &before, out);
            self.ask_changed_chains_anew(here, &before, out);
            return;
        }
        self.epoch = epoch;
        self.shortage = None; // Who is still short of disk says so again.
        self.before = self.before_at_start();
        self.after = Progress::default();
        self.outboxes.clear();
        self.inboxes.clear();
        self.waiters = crate::geo::dependency::Waiters::default();
        if !was_head || !self.neighbours.is_head() {
            self.forget_follows();
        }
        if !self.neighbours.is_member {
            self.give_up_replies(out);
        }
        self.give_up_handed_on(out);
        self.give_up_parked(out);
        self.copying.begin_again();
        if !self.neighbours.is_member {
            self.settling = Settling::default();
            self.give_up_reads(out);
            if self.donor.is_some() {
                self.begin_syncing(here, storage, out);
            }
            return;
        }
        self.ask_anew();
        if self.options.mutations.has(Mutation::NewHeadIgnoresTicks) {
            self.forget_ticks();
        }
        self.empty_if_broken(storage, out);
        self.settle_anew(here, out);
    }
}
