//! Brings a replica that lacks too much to the end of its chain's log.
//!
//! A replica that has been away is *syncing*, behind the tail. It asks the tail, one question at a
//! time, for what lies behind its log. What it cannot know to be committed the tail may not have: a
//! new head may have gone on without it. Then the replica takes that back and goes on behind what is
//! committed. Where the tail still holds what comes next, entries are all it needs; else it forgets
//! everything and begins anew: where the tail stands, the keys in
//! parts (`copied`), and backwards those entries before that point that other datacenters may still
//! need. Every answer is a function of the question and of what the tail has committed, so any
//! other tail can go on with it, and a copy that was interrupted continues where it was.
//!
//! Once it has everything the tail vouches for it: from then on nothing is committed without it, as
//! if it served already, since the next epoch may leave the shard to it alone; and it is given what
//! is not committed yet.
//!
//! Assumes: parts are taken only from what is committed, at a position that both have come to.
//! Ensures: a replica is called whole only when its disk holds all that a serving one needs, but
//! for the end of the log, which it gets as the new tail (`settle`).
//! Not here: who shall copy, and when a copy is to serve (`manager`).

use std::time::Duration;

use antecede_model::{
    clock::{Steady, Timestamp},
    ids::{Boot, LogIndex, NodeId, Position},
};

use super::{Line, RETRY_AFTER, Shard, after, window::Window};
use crate::{
    copied::{LineStart, Part, Start},
    entry::{Entry, Identity},
    event::Event,
    geo::stable::Collection,
    machine::{Here, Outputs, Room, Storage},
    message::{Body, Copied, CopyAsk, Progress},
    mutation::Mutation,
    record::Record,
    retries::Remembered,
    state::Keys,
};

/// How often a replica that has everything asks whether there is more.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Entries that a replica may lack when the tail begins to wait for it: it gets them in one answer.
const WAIT_WITHIN: u64 = 256;
/// Bytes of entries that a tail keeps for a replica that copies from it.
const KEPT_FOR_COPY_MAX: usize = 64 << 20;

/// Both sides of a copy.
#[derive(Debug, Default)]
pub(super) struct Copying {
    /// Counts the questions of this run.
    number: u64,
    /// The question that was not answered yet, if there is one, and whether it asked for history.
    asked: Option<Asked>,
    /// What the answer said that is being written to the disk.
    answered: Option<Answered>,
    /// Keys that wait until everything before them is committed here.
    part: Option<Part>,
    /// Whether entries before the start of the copy are still to be fetched.
    lacks_history: bool,
    /// Where the copy began: the others must have all of that on their disks.
    began_at: Position,
    /// What survives a power loss of the others, by the tail's word since the copy began.
    others_have_to: Position,
    /// The last record of a copy in the node's log.
    noted_at: LogIndex,
    /// When to ask next.
    again_at: Option<Steady>,
    /// In a datacenter that is being added: what the donor had committed when it first answered.
    pub(super) seed_to: Option<Position>,
    /// At the tail: the newest question that it was asked. An older one that comes late says nothing
    /// of what the asker has by now, and must not undo that the tail vouches for it.
    newest_ask: Option<(NodeId, Boot, u64)>,
    /// At the tail: how far the replica behind it has come.
    joiner: Option<Joiner>,
    /// At the tail: whether that replica has come so close that nothing more is committed without
    /// it, and behind which position: what is before was taken while this tail committed alone, and
    /// others may rest on the order in which its disk had it. When all of this is committed, and that
    /// replica has all that is, it is called caught up: the next epoch may leave the shard to it alone.
    vouches_behind: Option<Position>,
    /// At the tail: a question that is answered when there is something new.
    held: Option<CopyAsk>,
    /// At the tail: a question of another datacenter, which waits for values to be loaded.
    pub(super) held_seed: Option<(NodeId, CopyAsk)>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    for_history: bool,
}

#[derive(Clone, Copy, Debug)]
struct Answered {
    committed_to: Position,
    durable_to: Position,
    had_entries: bool,
}

#[derive(Clone, Copy, Debug)]
struct Joiner {
    node: NodeId,
    boot: Boot,
    has_to: Position,
}

impl Copying {
    /// What stays when the configuration changes: the state of the copy, not of the conversation.
    pub(super) fn begin_again(&mut self) {
        self.asked = None;
        self.answered = None;
        self.part = None;
        self.again_at = None;
        self.held_seed = None;
        self.forget_joiner();
    }

    /// Nobody copies from this replica any more.
    pub(super) fn forget_joiner(&mut self) {
        self.joiner = None;
        self.vouches_behind = None;
        self.held = None;
    }

    /// How far may be committed without waiting for a replica that is to serve soon.
    pub(super) fn vouched_to(&self) -> Option<Position> {
        let (joiner, behind) = (self.joiner?, self.vouches_behind?);
        Some(joiner.has_to.max(behind))
    }

    const fn vouches(&self) -> bool {
        self.vouches_behind.is_some()
    }

    /// Whether the answer that came last is still being written.
    pub(super) const fn awaits_disk(&self) -> bool {
        self.answered.is_some() && self.asked.is_none()
    }

    /// So much survives a power loss of those that are copied from.
    pub(super) fn note_durable(&mut self, to: Position) {
        self.others_have_to = self.others_have_to.max(to);
    }

    pub(super) const fn lacks_history(&self) -> bool {
        self.lacks_history
    }

    /// The log says that everything that others needed was there.
    pub(super) const fn has_history(&mut self) {
        self.lacks_history = false;
    }
}

impl Shard {
    /// The replica behind this tail that has all but the end of the log; a fact for the manager.
    #[must_use]
    pub fn caught_up(&self) -> Option<NodeId> {
        let (joiner, behind) = (self.copying.joiner?, self.copying.vouches_behind?);
        let is_known = self.boots.get(&joiner.node) == Some(&joiner.boot);
        let has_all = behind <= self.committed_to && self.committed_to <= joiner.has_to
            || self.options.mutations.has(Mutation::VouchWithoutWaiting);
        (is_known && has_all && self.is_settled()).then_some(joiner.node)
    }

    /// What there is here, for people who must choose between replicas: the end of the log, and
    /// whether all keys are there up to it, so that no copy was left half done.
    #[must_use]
    pub const fn remains(&self) -> (Option<Identity>, bool) {
        (self.window.last(), self.keys.frontier().is_none())
    }

    /// The stamp of the write that was appended last, behind a position, where the order of the
    /// node's log is the order of commits too: not while another replica is waited for.
    #[must_use]
    pub fn stamped_in_log_order(&self, behind: Position) -> Option<Timestamp> {
        let end = self.window.end();
        let is_waiting =
            self.copying.vouches() && !self.options.mutations.has(Mutation::VouchOutOfOrder);
        let entry = self.window.at(end).filter(|_| behind < end && !is_waiting);
        entry.map(|entry| entry.stamp)
    }

    /// Begins to copy what this replica lacks.
    pub(super) fn begin_syncing(
        &mut self,
        here: &Here,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        if self.own.persisted_to < self.window.end() {
            self.take_back_uncommitted(storage, out); // It may speak of what its disk has only.
        }
        self.copying.number = self.copying.number.max(here.boot.0 << 32);
        self.ask_for_copy(here, storage, out);
    }

    /// Takes back what may never have been committed.
    fn take_back_uncommitted(&mut self, storage: &mut dyn Storage, out: &mut Outputs) {
        if self.committed_to == self.window.end() {
            return;
        }
        let (shard, to) = (self.shard, self.committed_to);
        let index = self.log(storage, out, &mut |to_log| Record::write_cut_back(to_log, shard, to));
        self.copying.noted_at = index;
        self.cut_back();
    }

    /// Forgets what is not committed.
    fn cut_back(&mut self) {
        let to = self.committed_to;
        self.window.cut_back(to);
        self.keys.cut_dirty(to.next());
        self.retries.cut_back(to);
        for line in self.lines.values_mut() {
            line.received = line.applied.clone();
        }
        self.unpersisted.retain(|(_, position)| *position <= to);
        self.unsynced.retain(|(_, position)| *position <= to);
        self.own.persisted_to = self.own.persisted_to.min(to);
        self.own.synced_to = self.own.synced_to.min(to);
        self.all.persisted_to = self.all.persisted_to.min(to);
        self.all.synced_to = self.all.synced_to.min(to);
    }

    /// A serving replica whose copy is not whole any more, since its disk has lost a part, holds
    /// nothing of use: it begins with an empty log, which its neighbour fills or refuses. Any other
    /// was vouched for with all the history that it needs, also if its log does not say so.
    pub(super) fn empty_if_broken(&mut self, storage: &mut dyn Storage, out: &mut Outputs) {
        let is_broken = self.keys.frontier().is_some();
        if is_broken && !self.options.mutations.has(Mutation::ServeHalfCopied) {
            self.begin_from(&Start::default(), storage, out);
        }
        self.copying.lacks_history = false;
    }

    /// Forgets everything and begins where a copy does.
    pub(super) fn begin_from(
        &mut self,
        start: &Start,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let shard = self.shard;
        self.checkpoints.begin_anew();
        let index = self.log(storage, out, &mut |bytes| Record::write_begun(bytes, shard, start));
        self.copying.noted_at = index;
        self.reset_to(start);
    }

    pub(super) fn reset_to(&mut self, start: &Start) {
        let position = start.position();
        self.forget_keys();
        if start.last.is_some() {
            self.keys.copy_from(start);
        }
        self.window = Window::behind(start.last);
        self.retries.begin_from(&start.retries);
        self.lines.values_mut().for_each(|line| *line = Line::default());
        for line in &start.lines {
            self.hlc.witness(line.newest_write);
            self.hlc.witness(line.applied.above().last().unwrap_or_default());
            self.hlc.witness(line.applied.watermark());
            let filled = Line {
                received: line.applied.clone(),
                applied: line.applied.clone(),
                durable: line.applied.clone(),
                newest_write: line.newest_write,
            };
            self.lines.insert(line.origin, filled);
        }
        if self.options.mutations.has(Mutation::CopyWithoutAppliedSets) {
            self.lines.values_mut().for_each(|line| *line = Line::default());
        }
        self.hlc.witness(start.shown_to);
        let progress = Progress { persisted_to: position, synced_to: position };
        (self.own, self.all) = (progress, progress);
        (self.committed_to, self.durable_to, self.sent_to) = (position, position, position);
        self.unpersisted.clear();
        self.unsynced.clear();
        self.follows.clear();
        self.collection = Collection::default();
        self.copying.begin_again();
        self.copying.lacks_history =
            start.last.is_some() && !self.options.mutations.has(Mutation::CopyWithoutHistory);
        self.copying.began_at = position;
        self.copying.others_have_to = Position(0);
    }

    /// Holds no keys any more.
    pub(super) fn forget_keys(&mut self) {
        self.keys = Keys::new(self.options.hash_secret);
        if self.options.has_checkpoints {
            self.keys.remember_removed();
        }
        if let Some(bytes_min) = self.options.away_bytes_min {
            self.keys.allow_away(bytes_min);
        }
        self.cold.forget_loads();
    }

    /// Asks the tail for what comes next; one question is out at a time.
    fn ask_for_copy(&mut self, here: &Here, storage: &dyn Storage, out: &mut Outputs) {
        let Some(donor) = self.donor else { return };
        self.copying.number += 1;
        let number = self.copying.number;
        let for_history = self.copying.lacks_history;
        self.copying.asked = Some(Asked { number, for_history });
        self.copying.answered = None;
        let ask = CopyAsk {
            number,
            last: self.window.last(),
            committed: self.window.identity_at(self.committed_to),
            window_from: for_history.then(|| self.window.cut_to()),
            part_from: self.keys.frontier(),
            is_whole: self.is_whole(storage),
        };
        out.early(donor, self.message(Body::CopyAsk(ask)));
        self.ask_again_at(after(here.now.steady, RETRY_AFTER), out);
    }

    pub(super) fn ask_again_at(&mut self, at: Steady, out: &mut Outputs) {
        self.copying.again_at = Some(at);
        self.arm(at, out);
    }

    /// Whether the disk holds all that a serving replica needs, but for the end of the log.
    pub(super) fn is_whole(&self, storage: &dyn Storage) -> bool {
        let has_keys =
            self.keys.frontier().is_none() || self.options.mutations.has(Mutation::ServeHalfCopied);
        let is_alone = self.configuration.peers(self.here_datacenter()).next().is_none();
        let reached = storage.reached();
        // What it tells other datacenters after the copy must survive a power loss.
        let on_disk_to = if is_alone { reached.to } else { reached.synced_to };
        has_keys
            && !self.copying.lacks_history
            && self.copying.noted_at <= on_disk_to
            && self.copying.began_at <= self.copying.others_have_to
    }

    /// Asks when it is time to.
    pub(super) fn copy_when_due(
        &mut self,
        here: &Here,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let Some(due) = self.copying.again_at else { return };
        if here.now.steady < due {
            self.arm(due, out);
            return;
        }
        self.copying.again_at = None;
        if self.copying.awaits_disk() {
            self.go_on_copying(here, storage, out);
        } else {
            self.ask_for_copy(here, storage, out);
        }
    }

    /// At the tail: answers a replica that copies from it.
    pub(super) fn on_copy_ask(
        &mut self,
        here: &Here,
        (from, boot): (NodeId, Boot),
        ask: CopyAsk,
        out: &mut Outputs,
    ) {
        let number = ask.number;
        if self.joiner != Some(from) || !self.is_settled() {
            return; // It asks again.
        }
        let newest = self.copying.newest_ask.replace((from, boot, number));
        if let Some((node, known, newest)) = newest
            && (node, known) == (from, boot)
            && number < newest
        {
            self.copying.newest_ask = Some((node, known, newest));
            return;
        }
        if self.copying.joiner.is_some_and(|known| (known.node, known.boot) != (from, boot)) {
            self.copying.forget_joiner(); // What an earlier run had, this one may have lost.
        }
        let has_to = ask.last.map_or(Position(0), |identity| identity.position);
        let is_ahead = !self.copying.vouches() && self.committed_to < has_to;
        let by_position = self.options.mutations.has(Mutation::RejoinWithUncommitted)
            && self.window.cut_to() <= has_to;
        let fits = self.window.continues(ask.last) && !is_ahead || by_position;
        let known_to = ask.committed.map_or(Position(0), |identity| identity.position);
        let goes_back = self.window.continues(ask.committed) && known_to <= self.committed_to;
        if !fits && !goes_back {
            self.copying.forget_joiner();
            self.copying.joiner = Some(Joiner { node: from, boot, has_to: self.committed_to });
            let start = self.start_of_copy();
            out.early(from, self.message(Body::CopyAnew { number, start }));
            return;
        }
        let has_to = if fits { has_to } else { known_to };
        if !fits {
            self.copying.forget_joiner(); // It was vouched for with what it takes back now.
        }
        self.copying.joiner = Some(Joiner { node: from, boot, has_to });
        let lacks = self.committed_to.0.saturating_sub(has_to.0);
        if fits && ask.is_whole && lacks <= WAIT_WITHIN {
            let is_out_of_order = self.options.mutations.has(Mutation::VouchOutOfOrder);
            let behind = if is_out_of_order { Position(0) } else { self.window.end() };
            self.copying.vouches_behind.get_or_insert(behind);
        }
        self.copying.held = Some(ask);
        self.answer_joiner(out);
        self.advance(here, out);
    }

    /// Answers the question of the replica that copies from this one, if there is something new.
    pub(super) fn answer_joiner(&mut self, out: &mut Outputs) {
        let Some(joiner) = self.copying.joiner else { return };
        let Some(ask) = self.copying.held.take() else { return };
        let has_to = joiner.has_to;
        let mut entries = self.chunk_after(has_to);
        if !self.copying.vouches() {
            entries.retain(|entry| entry.identity.position <= self.committed_to);
        }
        let is_level = entries.is_empty() && ask.window_from.is_none() && ask.part_from.is_none();
        if is_level && self.copying.vouches() {
            self.copying.held = Some(ask);
            return;
        }
        match self.copied_after(&ask, has_to, entries, out) {
            Some(copied) => out.early(joiner.node, self.message(Body::Copied(copied))),
            None => self.copying.held = Some(ask),
        }
    }

    /// The answer to a question of a replica that has all up to a position, and gets these entries;
    /// none before all values that it needs are loaded.
    pub(super) fn copied_after(
        &mut self,
        ask: &CopyAsk,
        has_to: Position,
        entries: Vec<Entry>,
        out: &mut Outputs,
    ) -> Option<Copied> {
        let end = entries.last().map_or(has_to, |entry| entry.identity.position);
        let part = ask.part_from.filter(|_| end == self.committed_to);
        let part = part.map(|from| self.keys.part(from, self.options.part_bytes)).transpose();
        let part = match part {
            Ok(part) => part,
            Err(lacking) => {
                self.load_for_copy(&lacking, out);
                return None;
            }
        };
        self.cold.end_copy();
        let history = ask.window_from.map(|from| self.chunk_before(from)).unwrap_or_default();
        Some(Copied {
            number: ask.number,
            behind: has_to,
            committed_to: self.committed_to,
            durable_to: self.durable_position(),
            history,
            entries,
            part,
        })
    }

    /// What the log has come to here, apart from the keys.
    pub(super) fn start_of_copy(&self) -> Start {
        let (shown_to, collected_to) = self.keys.shown_and_collected_to();
        let lines = self.lines.iter().map(|(origin, line)| LineStart {
            origin: *origin,
            applied: line.applied.clone(),
            newest_write: line.newest_write,
        });
        let retries = if self.options.mutations.has(Mutation::CopyWithoutRetries) {
            Remembered::default()
        } else {
            self.retries.at_position(self.committed_to)
        };
        Start {
            last: self.window.identity_at(self.committed_to),
            lines: lines.collect(),
            shown_to,
            collected_to,
            retries,
        }
    }

    pub(super) fn on_copy_anew(
        &mut self,
        here: &Here,
        (from, number): (NodeId, u64),
        start: &Start,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        if !self.is_awaited(from, number) || storage.room() != Room::Ample {
            return;
        }
        if self.hlc.last() < start.newest() {
            out.event(Event::StaleMessage { from }); // The message's own time was looked at.
            return;
        }
        self.begin_from(start, storage, out);
        self.ask_for_copy(here, storage, out);
    }

    fn is_awaited(&self, from: NodeId, number: u64) -> bool {
        self.donor == Some(from) && self.copying.asked.is_some_and(|asked| asked.number == number)
    }

    pub(super) fn on_copied(
        &mut self,
        here: &Here,
        from: NodeId,
        copied: Copied,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        if !self.is_awaited(from, copied.number) || storage.room() != Room::Ample {
            return; // The timer asks again.
        }
        if copied.behind < self.window.end() {
            self.take_back_uncommitted(storage, out);
        }
        if copied.behind != self.window.end() {
            return; // Not what was asked for.
        }
        let Some(asked) = self.copying.asked.take() else { return };
        if self.goes_on_alone(here, &copied, storage, out) {
            return;
        }
        if asked.for_history {
            self.take_history(copied.history, storage, out);
        }
        let had_entries = !copied.entries.is_empty();
        for entry in copied.entries {
            if entry.identity.position == self.window.end().next() {
                self.append(entry, storage, out);
            }
        }
        if self.window.end() == copied.committed_to {
            self.copying.part = copied.part;
        }
        let Copied { committed_to, durable_to, .. } = copied;
        self.copying.others_have_to = self.copying.others_have_to.max(durable_to);
        self.copying.answered = Some(Answered { committed_to, durable_to, had_entries });
        self.go_on_copying(here, storage, out);
    }

    fn take_history(&mut self, history: Vec<Entry>, storage: &mut dyn Storage, out: &mut Outputs) {
        self.copying.lacks_history = !history.is_empty();
        let shard = self.shard;
        for entry in history.into_iter().rev() {
            if !self.window.fits_front(&entry) {
                return;
            }
            let index =
                self.log(storage, out, &mut |bytes| Record::write_history(bytes, shard, &entry));
            self.window.push_front(entry, index);
            self.copying.noted_at = index;
        }
    }

    /// Commits what the disk has by now, takes the keys that belong behind it, and asks on.
    pub(super) fn go_on_copying(
        &mut self,
        here: &Here,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let Some(answered) = self.copying.answered else { return };
        if self.donor.is_none() {
            return;
        }
        let persisted_to = self.own.persisted_to;
        let committed_to = persisted_to.min(answered.committed_to);
        self.all.persisted_to = self.all.persisted_to.max(committed_to);
        self.all.synced_to = self.all.synced_to.max(answered.durable_to.min(committed_to));
        self.commit_to(here, committed_to, out);
        if persisted_to < self.window.end() {
            self.ask_again_at(after(here.now.steady, RETRY_AFTER), out);
            return; // It goes on when the disk has come further.
        }
        self.copying.answered = None;
        let part = self.copying.part.take();
        let pause = if part.is_some() { self.options.part_pause } else { Duration::ZERO };
        if let Some(part) = part
            && self.keys.install(&part)
        {
            let shard = self.shard;
            let index =
                self.log(storage, out, &mut |bytes| Record::write_part(bytes, shard, &part));
            self.copying.noted_at = index;
        }
        let lacks_more =
            answered.had_entries || self.keys.frontier().is_some() || self.copying.lacks_history;
        let pause = if lacks_more { pause } else { LOOK_EVERY };
        if pause.is_zero() {
            self.ask_for_copy(here, storage, out);
        } else {
            self.ask_again_at(after(here.now.steady, pause), out);
        }
    }

    /// How far the log must be kept for those that are to copy it, and up to how many bytes.
    pub(super) fn kept_for_others(&self) -> Option<(Position, usize)> {
        if let Some(joiner) = self.copying.joiner {
            return Some((joiner.has_to, KEPT_FOR_COPY_MAX));
        }
        self.lacks_replicas.then_some((Position(0), self.options.kept_bytes_max))
    }

    /// Takes back from the log what a copy has left there; in the order of the log.
    pub(super) fn recover_copy(&mut self, index: LogIndex, record: Record) {
        match record {
            Record::CutBack { to, .. } => {
                self.commit_recovered(to);
                self.cut_back();
            }
            Record::Begun { start, .. } => {
                self.checkpoints.begin_anew_at(index);
                self.reset_to(&start);
            }
            Record::History { entry, .. } => {
                self.window.push_front(entry, index);
            }
            Record::Part { part, .. } => {
                self.commit_recovered(self.window.end());
                self.keys.install(&part);
            }
            Record::Trimmed { to, .. } => self.recover_trimmed(to),
            Record::Entry { .. } | Record::Ceiling(_) => {}
        }
    }
}
