//! Takes checkpoints of a replica while it works, and begins from one after a restart.
//!
//! A checkpoint is taken in steps, each of which looks at a range of hashes and tells what has
//! changed there; between two steps the replica serves. The base is noted before the first step, so
//! that every floor lies behind it. It is what survives a power loss of the whole chain: entries
//! behind it are replayed, and then counted as durable again one by one.
//!
//! The log may be cut where neither a checkpoint's replay nor the window needs it, and a checkpoint
//! counts only once it is on disk.
//!
//! Assumes: steps are written in order, and only after the node's log was synced as far as it went
//! when they were taken: what a checkpoint contains, the log has lost nowhere.
//! Ensures: a replica that was recovered from a checkpoint and the rest of the log is the one that
//! the whole log would have made, but for what was collected.
//! Not here: when to take steps, and where they are written (the shell).

use std::collections::VecDeque;

use antecede_model::{
    codec::DecodeError,
    ids::{LogIndex, Position},
};

use super::{Shard, copy::Copying};
use crate::{
    checkpointed::{CheckpointMeta, CheckpointStep, Floors, RecoveryError, StepLimits},
    copied::{LineStart, Start},
    entry::Entry,
    machine::{Outputs, Storage},
    mutation::Mutation,
    record::Record,
    retries::Remembered,
};

/// What a replica knows of its checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The last record of this replica in the node's log.
    last: LogIndex,
    /// The first record since it began anew.
    begun_at: Option<LogIndex>,
    /// What the disk has.
    stored: Option<Noted>,
    /// What the disk has once the batch under way is durable.
    submitted: Option<Option<Noted>>,
    /// What was told last as a whole; none when all must be told anew.
    taken: Option<Noted>,
    /// What is being told.
    pass: Option<Pass>,
    /// While the log is read back: what it says from before the base.
    held: Option<VecDeque<(LogIndex, Entry)>>,
    /// Why the log and the checkpoint do not belong together.
    misfit: Option<RecoveryError>,
}

/// A checkpoint, and what it needs of the log.
#[derive(Clone, Debug)]
struct Noted {
    meta: CheckpointMeta,
    /// The first record that says more than the base.
    needs: Option<LogIndex>,
}

impl Noted {
    fn note(&mut self, index: LogIndex) {
        self.needs.get_or_insert(index);
    }
}

#[derive(Clone, Debug)]
struct Pass {
    noted: Noted,
    /// Where to go on.
    next: u64,
    is_begun: bool,
}

impl Checkpoints {
    /// A record was put into the log, or read back from it.
    fn note(&mut self, index: LogIndex) {
        self.last = index;
        self.begun_at.get_or_insert(index);
        let submitted = self.submitted.iter_mut().flatten();
        let others = self.stored.iter_mut().chain(&mut self.taken).chain(submitted);
        others.for_each(|noted| noted.note(index));
        if let Some(pass) = &mut self.pass {
            pass.noted.note(index);
        }
    }

    /// The replica forgets everything with the record that comes next.
    pub(super) fn begin_anew(&mut self) {
        self.begun_at = None;
        self.taken = None;
        self.pass = None;
    }

    /// The log says that the replica forgot everything with this record.
    pub(super) fn begin_anew_at(&mut self, index: LogIndex) {
        self.begin_anew();
        self.note(index);
        self.misfit = None; // What came before may have been cut off in part.
    }
}

impl Shard {
    /// Puts a record of this replica into the node's log.
    pub(super) fn log(
        &mut self,
        storage: &mut dyn Storage,
        out: &mut Outputs,
        write: &mut dyn FnMut(&mut Vec<u8>),
    ) -> LogIndex {
        let index = storage.append(write);
        out.appended_to = index;
        self.checkpoints.note(index);
        index
    }

    /// Goes on with a checkpoint, or begins one; `None` when there is nothing to write, or nothing
    /// whole: a replica that is still copying.
    pub fn take_checkpoint(&mut self, limits: StepLimits) -> Option<CheckpointStep> {
        if !self.has_all_data() {
            return None;
        }
        if self.checkpoints.pass.is_none() {
            self.checkpoints.pass = Some(self.begin_pass()?);
        }
        let Checkpoints { pass, taken, .. } = &mut self.checkpoints;
        let Some(under_way) = pass else { unreachable!("it has just been begun") };
        let from = under_way.next;
        let is_reset = taken.is_none() && !std::mem::replace(&mut under_way.is_begun, true);
        let (next, changes) = self.keys.take_changes(from, limits);
        let mut floor = self.keys.committed_to();
        if self.options.mutations.has(Mutation::FloorsBeyondCommitted) {
            floor = self.window.end();
        }
        under_way.noted.meta.floors.raise(from, next, floor);
        let noted = if let Some(next) = next {
            under_way.next = next;
            let floors = under_way.noted.meta.floors.clone();
            taken.clone().map(|Noted { meta, needs }| Noted {
                meta: CheckpointMeta { floors, ..meta },
                needs,
            })
        } else {
            let noted = under_way.noted.clone();
            (*pass, *taken) = (None, Some(noted.clone()));
            Some(noted)
        };
        let meta = noted.as_ref().map(|noted| noted.meta.clone());
        self.checkpoints.submitted = Some(noted);
        Some(CheckpointStep { is_reset, changes, meta, is_last: next.is_none() })
    }

    /// Whether it has all keys and all entries, so that there can be a checkpoint of it.
    pub(super) fn has_all_data(&self) -> bool {
        self.keys.frontier().is_none() && !self.copying.lacks_history()
    }

    /// Notes the base of a checkpoint.
    fn begin_pass(&self) -> Option<Pass> {
        let Checkpoints { last, taken, .. } = &self.checkpoints;
        let base = self.durable_position();
        let name = self.window.identity_at(base);
        if name.is_none() && base != Position(0) {
            return None;
        }
        let (log_to, floors) = match taken {
            Some(Noted { meta, .. }) => {
                if meta.log_to == *last && meta.start.position() == base {
                    return None; // Nothing has been said since.
                }
                (*last, meta.floors.clone())
            }
            None if *last == LogIndex(0) => return None,
            None => (*last, Floors::default()),
        };
        let (shown_to, collected_to) = self.keys.shown_and_collected_to();
        let lines = self.lines.iter().map(|(origin, line)| LineStart {
            origin: *origin,
            applied: line.durable.clone(),
            newest_write: line.newest_write,
        });
        let retries = if self.options.mutations.has(Mutation::CheckpointWithoutRetries) {
            Remembered::default()
        } else {
            self.retries.at_position(base)
        };
        let lines = lines.collect();
        let start = Start { last: name, lines, shown_to, collected_to, retries };
        let window_from = self.window.cut_to();
        let needs = self.window.first_place_after(base);
        let meta = CheckpointMeta { start, window_from, log_to, floors };
        Some(Pass { noted: Noted { meta, needs }, next: 0, is_begun: false })
    }

    /// All steps that were taken are durable.
    pub fn checkpoint_is_durable(&mut self) {
        self.keys.saved();
        if let Some(stored) = self.checkpoints.submitted.take() {
            self.checkpoints.stored = stored;
        }
    }

    /// The first record of the node's log that this replica needs after a restart, or that others
    /// may need from it; none if it needs nothing that is there.
    #[must_use]
    pub fn needs_log_from(&self) -> Option<LogIndex> {
        let Checkpoints { stored, taken, begun_at, .. } = &self.checkpoints;
        let by_stored = stored.as_ref().map_or(*begun_at, |noted| noted.needs);
        let since_anew = if taken.is_none() { *begun_at } else { None };
        let for_others = self.window.first_place_after(Position(0));
        if self.options.mutations.has(Mutation::CutLogBehindWindow) {
            return by_stored;
        }
        [by_stored, since_anew, for_others].into_iter().flatten().min()
    }

    /// Begins from a checkpoint, before anything else is read back; its keys follow.
    pub fn recover_checkpoint(&mut self, meta: CheckpointMeta) {
        self.reset_to(&meta.start);
        self.forget_keys();
        self.keys.begin_loading(&meta.start, meta.floors.clone());
        self.copying = Copying::default();
        let noted = Noted { meta, needs: None };
        self.checkpoints = Checkpoints {
            last: noted.meta.log_to,
            stored: Some(noted.clone()),
            taken: Some(noted),
            held: Some(VecDeque::new()),
            ..Checkpoints::default()
        };
    }

    /// Takes the records of one hash from the checkpoint; their values, too, or as far as they may
    /// be on disk only they stay there.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn recover_records(
        &mut self,
        hash: u64,
        records: &[u8],
        takes_values: bool,
    ) -> Result<(), DecodeError> {
        self.keys.load(hash, records, takes_values)
    }

    /// Loads what the key of an entry that will be recovered needs of the index; gives the key's
    /// hash, for [`Shard::foresee_record`] some time later.
    #[must_use]
    pub fn foresee(&self, record: &Record) -> Option<u64> {
        let Record::Entry { entry, .. } = record else { return None };
        let hash = self.keys.hash(entry.first_key()?);
        self.keys.prefetch(hash);
        Some(hash)
    }

    /// Loads the record of a key of this hash.
    pub fn foresee_record(&self, hash: u64) {
        self.keys.prefetch_record(hash);
    }

    /// Takes a record about this shard back from the node's log after a restart; in the order of
    /// the log.
    pub fn recover(&mut self, index: LogIndex, record: Record) {
        let log_to = self.checkpoints.stored.as_ref().map(|noted| noted.meta.log_to);
        if self.checkpoints.held.is_some() && log_to.is_some_and(|to| index <= to) {
            self.hold(index, record);
            return;
        }
        self.take_held();
        self.checkpoints.note(index);
        if let Record::Entry { committed_to, entry, shard: _ } = record {
            self.recover_entry(index, committed_to, entry);
        } else {
            self.recover_copy(index, record);
        }
    }

    /// Keeps what the log says from before the base: others may need it, and the end of it may not
    /// have been durable.
    fn hold(&mut self, index: LogIndex, record: Record) {
        let meta = self.checkpoints.stored.as_ref().map(|noted| &noted.meta);
        let from = meta.map_or(Position(0), |meta| meta.window_from);
        let Some(held) = &mut self.checkpoints.held else { return };
        match record {
            Record::Entry { entry, .. } => {
                let position = entry.identity.position;
                if position <= from {
                    held.clear();
                    return;
                }
                if held.back().is_some_and(|(_, last)| last.identity.position.next() != position) {
                    held.clear();
                }
                held.push_back((index, entry));
            }
            Record::CutBack { to, .. } => {
                while held.pop_back_if(|(_, entry)| to < entry.identity.position).is_some() {}
            }
            Record::Begun { .. } => held.clear(),
            Record::History { entry, .. } => {
                let follows = |(_, first): &(LogIndex, Entry)| {
                    entry.identity.position.next() == first.identity.position
                };
                if from < entry.identity.position && held.front().is_none_or(follows) {
                    held.push_front((index, entry));
                }
            }
            Record::Trimmed { to, .. } => {
                while held.pop_front_if(|(_, entry)| entry.identity.position <= to).is_some() {}
            }
            Record::Part { .. } | Record::Ceiling(_) => {}
        }
    }

    /// Takes what was held into the window.
    fn take_held(&mut self) {
        let Some(mut held) = self.checkpoints.held.take() else { return };
        let base = self.window.end();
        let is_behind = |(_, entry): &(LogIndex, Entry)| base < entry.identity.position;
        let behind = held.split_off(held.iter().position(is_behind).unwrap_or(held.len()));
        // A copy writes history from its end to its beginning: a log that was cut within may begin
        // with the oldest of it, and go on behind the base. Nobody needs that any more.
        if held.back().is_some_and(|(_, last)| last.identity.position < base) {
            held.clear();
        }
        for (index, entry) in held.into_iter().rev() {
            let position = entry.identity.position;
            if !self.window.push_front(entry, index) {
                let shard = self.shard;
                self.checkpoints.misfit = Some(RecoveryError::Differs { shard, position });
                return;
            }
        }
        for (index, entry) in behind {
            self.checkpoints.stored.iter_mut().for_each(|noted| noted.note(index));
            self.checkpoints.taken.iter_mut().for_each(|noted| noted.note(index));
            self.recover_entry(index, Position(0), entry);
        }
    }

    /// Whether an entry that is read back is the next one; else the log is not whole.
    pub(super) fn continues_log(&mut self, found: Position) -> bool {
        let fits = found == self.window.end().next();
        if !fits {
            self.misses_entries(found);
        }
        fits
    }

    /// Entries before this one are not there: the log is not whole.
    pub(super) fn misses_entries(&mut self, found: Position) {
        let wanted = self.window.end().next();
        let gap = RecoveryError::Gap { shard: self.shard, wanted, found };
        self.checkpoints.misfit.get_or_insert(gap);
    }

    /// The log was read back to its end, which is this record of the node's log.
    ///
    /// # Errors
    /// [`RecoveryError`] when the log and the checkpoint do not belong together: the replica must
    /// not be started.
    pub fn end_recovery(&mut self, end: LogIndex) -> Result<(), RecoveryError> {
        self.take_held();
        if let Some(misfit) = self.checkpoints.misfit {
            return Err(misfit);
        }
        if let Some(Noted { meta, .. }) = &self.checkpoints.taken {
            // Numbers would be given again that the checkpoint takes for its own.
            if end < meta.log_to {
                let (shard, noted) = (self.shard, meta.log_to);
                return Err(RecoveryError::Behind { shard, end, noted });
            }
            let contained = meta.floors.highest();
            let (shard, end) = (self.shard, self.window.end());
            if end < contained {
                return Err(RecoveryError::Short { shard, end, contained });
            }
            self.commit_recovered(contained);
            self.keys.end_loading();
        }
        self.show_recovered();
        Ok(())
    }
}
