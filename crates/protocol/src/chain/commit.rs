//! Takes entries down the chain and commits up again.
//!
//! Entries run down at once (`Forward`); behind them runs how far every replica so far has them on
//! disk (`Persisted`); the tail commits what all have, and `Ack` runs up (DESIGN section 3). Each message
//! is cumulative, so one that is lost is made good by the next, or by the resend timer.
//!
//! Assumes: neighbours have agreed on their logs (`settle`) before entries are sent.
//! Ensures: an entry is committed only when every replica of the chain has persisted it, by the word
//! of the newest runs that are known (`runs`); an acknowledgement passes a replica only when the
//! run that passes it on has persisted the entry itself.

use antecede_model::{
    clock::{Now, Timestamp},
    ids::{Boot, LogIndex, NodeId, Position, ShardId},
    refusal::Refusal,
};

use super::{FORWARD_MAX, MESSAGE_BYTES_MAX, RETRY_AFTER, Shard, after};
use crate::{
    entry::Entry,
    event::Event,
    geo::kept::Kept,
    machine::{Here, Lease, Outputs, Persisted, Room, Storage},
    message::{Body, Progress, Promise},
    mutation::Mutation,
    record::Record,
};

/// Entries that may be on their way to the successor; more follow as acknowledgements come.
const IN_FLIGHT_MAX: u64 = 8_192;

/// The smaller of both in each part.
fn lesser(left: Progress, right: Progress) -> Progress {
    Progress {
        persisted_to: left.persisted_to.min(right.persisted_to),
        synced_to: left.synced_to.min(right.synced_to),
    }
}

/// The larger of both in each part.
fn greater(left: Progress, right: Progress) -> Progress {
    Progress {
        persisted_to: left.persisted_to.max(right.persisted_to),
        synced_to: left.synced_to.max(right.synced_to),
    }
}

impl Shard {
    pub(super) fn on_forward(
        &mut self,
        here: &Here,
        from: NodeId,
        entries: Vec<Entry>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        if !self.is_from(self.neighbours.previous, from, out) {
            return;
        }
        let end_before = self.window.end();
        for entry in entries {
            let position = entry.identity.position;
            if position <= self.window.end() {
                if !self.is_same_as_held(from, &entry, out) {
                    return;
                }
                continue;
            }
            if self.window.end().next() < position {
                let from_position = self.window.end().next();
                let message = self.message(Body::SendAgain { from: from_position });
                out.early(from, message);
                break;
            }
            if storage.room() == Room::None {
                break; // The predecessor sends again; nothing was promised.
            }
            self.append(entry, storage, out);
        }
        self.tell_shortage(storage, out);
        if end_before == self.window.end() {
            self.send_ack(out); // A repeat: the acknowledgement may have been lost.
        }
        self.send_entries(here, out);
        self.advance(here, out);
    }

    /// Compares an entry with the one that is held at its position, if it still is.
    fn is_same_as_held(&self, from: NodeId, entry: &Entry, out: &mut Outputs) -> bool {
        let position = entry.identity.position;
        let is_same = self.window.at(position).is_none_or(|held| held.identity == entry.identity);
        if !is_same {
            out.event(Event::Diverged { shard: self.shard, with: from, position });
        }
        is_same
    }

    /// The node's log has come further.
    pub(super) fn on_persisted(
        &mut self,
        here: &Here,
        persisted: Persisted,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        while let Some((index, position)) = self.unpersisted.front().copied() {
            if persisted.to < index {
                break;
            }
            self.unpersisted.pop_front();
            self.own.persisted_to = position;
        }
        while let Some((index, position)) = self.unsynced.front().copied() {
            if persisted.synced_to < index {
                break;
            }
            self.unsynced.pop_front();
            self.own.synced_to = position;
        }
        if self.donor.is_some() {
            if self.copying.awaits_disk() {
                self.go_on_copying(here, storage, out);
            }
            return;
        }
        self.advance(here, out);
        self.count_ack(here, out);
    }

    /// Everything before this replica has come further, or has lost its end.
    pub(super) fn on_promise(
        &mut self,
        here: &Here,
        from: NodeId,
        promise: &Promise,
        out: &mut Outputs,
    ) {
        if !self.is_from(self.neighbours.previous, from, out) {
            return;
        }
        if !self.is_of_current_boots(here, promise, out) {
            out.event(Event::StaleMessage { from });
            return;
        }
        let known_before = self.before.progress;
        self.before.progress = greater(known_before, promise.progress);
        let is_repeat = known_before == self.before.progress;
        if is_repeat {
            self.send_ack(out);
        }
        self.advance(here, out);
    }

    /// Passes on how far every replica so far has come; at the tail, commits it.
    pub(super) fn advance(&mut self, here: &Here, out: &mut Outputs) {
        if !self.neighbours.is_member {
            return;
        }
        let so_far = lesser(self.own, self.before.progress);
        if let Some(next) = self.neighbours.next {
            let is_told = self
                .told
                .as_ref()
                .is_some_and(|told| told.progress == so_far && told.boots == self.before.boots);
            if self.settling.has_agreed() && !is_told {
                self.settling.promise(so_far.persisted_to);
                self.told = Some(Promise { progress: so_far, boots: self.before.boots.clone() });
                self.tell_progress(next, out);
                self.watch_for_acks(here, out);
            }
            return;
        }
        let mut so_far = so_far;
        if let Some(vouched_to) = self.copying.vouched_to()
            && !self.options.mutations.has(Mutation::VouchWithoutWaiting)
        {
            so_far.persisted_to = so_far.persisted_to.min(vouched_to);
        }
        if self.options.mutations.has(Mutation::TailCommitsOnItsOwnSync) {
            so_far = self.own;
        }
        let known_before = self.all;
        self.all = greater(self.all, so_far);
        if known_before != self.all {
            self.commit_to(here, self.all.persisted_to, out);
            self.send_ack(out);
        }
        self.update_settled(out);
    }

    /// Tells the successor again what it was told last.
    pub(super) fn tell_progress(&self, next: NodeId, out: &mut Outputs) {
        if let Some(told) = &self.told {
            out.early(next, self.message(Body::Persisted(told.clone())));
        }
    }

    /// Tells the predecessor what every replica has.
    fn send_ack(&self, out: &mut Outputs) {
        if let Some(previous) = self.neighbours.previous {
            out.early(previous, self.message(Body::Ack(self.all)));
        }
    }

    pub(super) fn on_ack(
        &mut self,
        here: &Here,
        from: NodeId,
        progress: Progress,
        out: &mut Outputs,
    ) {
        if !self.is_from(self.neighbours.next, from, out) {
            return;
        }
        self.after = greater(self.after, progress);
        self.settling.acked_to = self.settling.acked_to.max(progress.persisted_to);
        self.count_ack(here, out);
        self.send_entries(here, out);
    }

    /// Counts what the successor has acknowledged, as far as this run has it on disk: a commit that
    /// rests on an earlier run of this replica may name what that one has lost.
    fn count_ack(&mut self, here: &Here, out: &mut Outputs) {
        if !self.neighbours.is_member {
            return;
        }
        let known_before = self.all;
        let mut own = self.own;
        if self.options.mutations.has(Mutation::PassAcksUnpersisted) {
            own.persisted_to = self.window.end();
        }
        self.all = greater(self.all, lesser(self.after, own));
        if known_before == self.all {
            return;
        }
        self.commit_to(here, self.all.persisted_to, out);
        self.send_ack(out);
    }

    /// Sends the successor what it was not sent yet, as far as the window of flight allows.
    pub(crate) fn send_entries(&mut self, here: &Here, out: &mut Outputs) {
        let Some(next) = self.neighbours.next else {
            self.answer_joiner(out);
            return;
        };
        if !self.settling.has_agreed() {
            return;
        }
        let limit = Position(self.settling.acked_to.0 + IN_FLIGHT_MAX);
        while self.sent_to < self.window.end().min(limit) {
            let entries = self.chunk_after(self.sent_to);
            let Some(last) = entries.last() else { break };
            self.sent_to = last.identity.position;
            let message = self.message(Body::Forward { entries });
            out.early(next, message);
        }
        if self.settling.acked_to < self.sent_to {
            self.watch_for_acks(here, out);
        }
    }

    /// Entries up to a position, this one included, that fit one message.
    pub(super) fn chunk_before(&self, position: Position) -> Vec<Entry> {
        let mut bytes = 0;
        let fitting = self.window.before(position).take(FORWARD_MAX).take_while(|entry| {
            let fits = bytes < MESSAGE_BYTES_MAX;
            bytes += entry.body_bytes();
            fits
        });
        let mut entries: Vec<Entry> = fitting.cloned().collect();
        entries.reverse();
        entries
    }

    /// Entries behind a position that fit one message.
    pub(super) fn chunk_after(&self, position: Position) -> Vec<Entry> {
        let mut bytes = 0;
        self.window
            .after(position)
            .take(FORWARD_MAX)
            .take_while(|entry| {
                let fits = bytes < MESSAGE_BYTES_MAX;
                bytes += entry.body_bytes();
                fits
            })
            .cloned()
            .collect()
    }

    pub(super) fn on_send_again(
        &mut self,
        here: &Here,
        from: NodeId,
        position: Position,
        out: &mut Outputs,
    ) {
        if !self.is_from(self.neighbours.next, from, out) || position.0 == 0 {
            return;
        }
        let behind = Position(position.0 - 1);
        if behind < self.sent_to && self.window.cut_to() <= behind {
            self.sent_to = behind;
            self.settling.acked_to = self.settling.acked_to.min(behind);
            self.send_entries(here, out);
        }
    }

    /// Sends again what was not acknowledged for a while.
    pub(super) fn resend_when_due(&mut self, here: &Here, out: &mut Outputs) {
        let Some(due) = self.resend_at else { return };
        if here.now.steady < due {
            self.arm(due, out);
            return;
        }
        self.resend_at = None;
        let Some(next) = self.neighbours.next else { return };
        let told_to = self.told.as_ref().map_or(Position(0), |told| told.progress.synced_to);
        let acked_to = self.settling.acked_to;
        let is_over = self.sent_to <= acked_to && told_to <= self.all.synced_to;
        if !self.settling.has_agreed() || is_over {
            return;
        }
        if acked_to <= self.settling.acked_at_check {
            self.sent_to = acked_to.max(self.window.cut_to());
            self.send_entries(here, out);
            self.tell_progress(next, out);
        }
        self.watch_for_acks(here, out);
    }

    /// Sets the timer after which what was not acknowledged is sent again.
    fn watch_for_acks(&mut self, here: &Here, out: &mut Outputs) {
        if self.resend_at.is_none() {
            let at = after(here.now.steady, RETRY_AFTER);
            self.resend_at = Some(at);
            self.settling.acked_at_check = self.settling.acked_to;
            self.arm(at, out);
        }
    }

    /// Commits everything up to a position: shows it, answers what waited for it.
    pub(super) fn commit_to(&mut self, here: &Here, position: Position, out: &mut Outputs) {
        let position = position.min(self.window.end());
        let is_tail = self.neighbours.is_tail();
        let is_asked = is_tail && self.is_asked();
        let (mut conflicts, mut committed) = (Vec::new(), Vec::new());
        while self.committed_to < position {
            let next = self.committed_to.next();
            let entry = self.window.at(next).expect("what is not committed is held");
            self.keys.commit(entry, &mut conflicts);
            let line = self.lines.entry(entry.origin).or_default();
            line.applied.record(entry.previous, entry.stamp);
            if !entry.is_tick() {
                line.newest_write = line.newest_write.max(entry.stamp);
            }
            if is_tail {
                out.event(applied_or_committed(self.shard, self.node, here, entry));
            }
            if is_asked {
                committed.push((entry.origin, entry.stamp));
            }
            self.committed_to = next;
        }
        if is_tail {
            for conflict in conflicts {
                out.event(Event::Conflict {
                    shard: self.shard,
                    winner: conflict.winner,
                    loser: conflict.loser,
                });
            }
            self.tell_waiters(committed, out);
        }
        self.release_replies(out);
        self.count_durable(here, out);
        self.trim();
    }

    /// Counts what survives a power loss of every replica, and tells the other datacenters.
    fn count_durable(&mut self, here: &Here, out: &mut Outputs) {
        let to = if self.is_needed_by_nobody() {
            self.committed_to
        } else {
            self.all.synced_to.min(self.committed_to)
        };
        if to <= self.durable_to {
            return;
        }
        self.raise_durable(to);
        if self.neighbours.is_tail() {
            self.send_outboxes(here, out);
        }
        if self.neighbours.is_head() {
            self.tell_origins(here, out);
        }
    }

    /// Counts entries up to a position, which are committed, as surviving a power loss of every
    /// replica.
    fn raise_durable(&mut self, to: Position) {
        while self.durable_to < to {
            let next = self.durable_to.next();
            let entry = self.window.at(next).expect("what is not durable is held");
            let line = self.lines.entry(entry.origin).or_default();
            line.durable.record(entry.previous, entry.stamp);
            let is_above = line.durable.watermark() < entry.stamp;
            let (origin, stamp) = (entry.origin, entry.stamp);
            self.durable_to = next;
            if is_above {
                self.note_above(origin, stamp);
            }
        }
        self.retries.settle(to);
    }

    /// Up to where every replica would keep the log in a power loss.
    pub(crate) const fn durable_position(&self) -> Position {
        self.durable_to
    }

    /// Whether no neighbour and no other datacenter will ever ask for an entry again.
    fn is_needed_by_nobody(&self) -> bool {
        self.neighbours.is_head()
            && self.neighbours.is_tail()
            && self.cuts.stable.covers(self.here_datacenter(), Timestamp::MAX)
    }

    /// Lets go of entries that nobody can still need.
    pub(super) fn trim(&mut self) {
        if self.copying.lacks_history() {
            return; // What it fetches backwards must stay, or it is fetched again and again.
        }
        if matches!(self.refuses_all, Some(Refusal::Gone | Refusal::Lapsed)) {
            return; // What nobody has received may still be wanted: it is nowhere else.
        }
        while let Some(entry) = self.window.first_needed() {
            let is_durable = entry.identity.position <= self.durable_to;
            if !is_durable || !self.cuts.stable.covers(entry.origin, entry.stamp) {
                break;
            }
            self.window.spare_first_needed();
        }
        let kept = self.kept_for_others();
        while self.window.has_spare() {
            let is_kept = kept.is_some_and(|(behind, bytes_max)| {
                behind <= self.window.cut_to() && self.window.weight() <= bytes_max
            });
            if is_kept {
                break;
            }
            self.window.cut_front();
        }
    }

    /// Says in the log what was let go of, so that a restart does not keep it anew. Together with an
    /// entry, since a log to which nothing is written must stay as it is.
    pub(super) fn tell_trimmed(&mut self, storage: &mut dyn Storage, out: &mut Outputs) {
        let Some(mut to) = self.window.tell_trimmed(self.options.trimmed_bytes_min) else { return };
        if self.options.mutations.has(Mutation::TrimCommitted) {
            to = self.committed_to;
        }
        let shard = self.shard;
        self.log(storage, out, &mut |bytes| Record::write_trimmed(bytes, shard, to));
    }

    /// What is kept here for other datacenters.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let (entries, bytes) = self.window.needed();
        let oldest = self.window.first_needed().map(|entry| entry.visible_at);
        Kept { bytes: bytes as u64, entries, oldest }
    }

    /// Commits again what is known to have been committed.
    pub(super) fn commit_recovered(&mut self, to: Position) {
        self.all.persisted_to = self.all.persisted_to.max(to.min(self.window.end()));
        let here = Here {
            node: self.node,
            boot: Boot(0),
            now: Now::default(),
            hlc_floor: Timestamp::ZERO,
            lease_until: Lease::Unbounded,
        };
        self.commit_to(&here, to, &mut Outputs::default());
    }

    /// `committed_to` is what was known to be committed when the entry was written. The rest is
    /// committed again once the chain has settled: the log may still say that it was taken back.
    pub(super) fn recover_entry(&mut self, index: LogIndex, committed_to: Position, entry: Entry) {
        let position = entry.identity.position;
        if !self.continues_log(position) {
            return;
        }
        self.take_unread(index, entry);
        self.own = Progress { persisted_to: position, synced_to: position };
        self.commit_recovered(committed_to);
    }

    /// The log says that entries were let go of: everything that allows it was known then, and
    /// nothing of it is known now.
    pub(super) fn recover_trimmed(&mut self, to: Position) {
        if self.window.end() < to {
            self.misses_entries(to);
            return;
        }
        self.commit_recovered(to);
        self.all.synced_to = self.all.synced_to.max(to);
        self.raise_durable(to);
        self.window.cut_as_told(to);
        self.copying.has_history(); // Else nothing would have been let go of.
    }

    /// All is read back: what is not committed is seen by whoever comes now.
    pub(super) fn show_recovered(&mut self) {
        for entry in self.window.after(self.committed_to) {
            self.keys.add_dirty(entry);
        }
    }
}

fn applied_or_committed(shard: ShardId, node: NodeId, here: &Here, entry: &Entry) -> Event {
    if entry.origin == node.datacenter || entry.is_tick() {
        return Event::Committed {
            shard,
            position: entry.identity.position,
            origin: entry.origin,
            stamp: entry.stamp,
        };
    }
    let stamped = entry.stamp.millis().saturating_mul(1000);
    Event::Applied {
        shard,
        origin: entry.origin,
        stamp: entry.stamp,
        visible_at: entry.visible_at,
        since_stamp: std::time::Duration::from_micros(here.now.wall.0.saturating_sub(stamped)),
    }
}
