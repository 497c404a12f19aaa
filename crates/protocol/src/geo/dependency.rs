//! Asks the shard that holds a write whether it is applied here, and answers such questions.
//!
//! The head of a shard with blocked entries asks the tail of the shard that each dependency names;
//! the tail answers when the write is committed, at once if it already is. Questions to one shard
//! go in one message, and are repeated while no answer comes, ever more seldom: waiters die with the
//! tail that held them (PITFALLS B17). Sessions with tokens ask the same way.
//!
//! While a datacenter catches up thousands wait here. Whatever happens looks up those that it
//! concerns and walks over nobody else: by name when a write is applied, by stamp when a cut moves.
//!
//! Ensures: an answer is given only for a write that is committed in its chain here; the answer's
//! HLC is at least its visible-at.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::successors,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use antecede_model::{
    clock::{Steady, Timestamp},
    configuration::Configuration,
    dependency::Dependency,
    ids::{DatacenterId, NodeId, RequestId, ShardId},
    operation::ShardOperation,
    response::Response,
};
use smallvec::SmallVec;

use super::outbox::ReplicationWait;
use crate::{
    chain::{RETRY_AFTER, Shard, after},
    machine::{Here, Outputs, Storage},
    message::{Asker, Body, Carried, Place, Reply, Request},
    mutation::Mutation,
};

/// Writes that one message asks about at most.
const ASK_MAX: usize = 512;
/// Those who wait for one tail; past it those about the newest writes are forgotten, and asked again.
const WAITERS_MAX: usize = 65_536;

/// Questions about writes of one origin that are asked again at a time, the earliest writes first.
/// An answer that was lost is missed most once nothing earlier is waited for.
const ASK_FIRST_AGAIN_MAX: usize = 8;
/// Other questions that are asked again at a time; those that were asked longest ago come first.
const ASK_AGAIN_MAX: usize = 8;
/// How often the time until a question is asked again doubles, from the second time on.
const DOUBLINGS_MAX: u32 = 3;

/// A write that is waited for, in an order in which a cut covers a run of those of an origin.
type Wanted = (DatacenterId, Timestamp, ShardId);

const fn wanted(dependency: Dependency) -> Wanted {
    (dependency.origin, dependency.stamp, dependency.shard)
}

/// Entries that wait for one write: mostly one, the next of its session.
pub type Waiting = SmallVec<[(DatacenterId, Timestamp); 1]>;

/// Who asked for one write: mostly one.
type Askers = SmallVec<[(NodeId, Asker); 1]>;

/// Who waits here for one write.
#[derive(Debug, Default)]
struct Want {
    /// Entries of this shard.
    waiting: Waiting,
    /// When its tail is asked again, if it is in another shard.
    due: Option<Steady>,
    /// How often it was asked.
    asked: u32,
}

/// Not before any other that is waited for at the same time.
const LAST_WANTED: Wanted = (DatacenterId(u16::MAX), Timestamp::MAX, ShardId(u16::MAX));

/// A floor that an entry waits for: its origin and stamp, then those of the entry.
type Floor = (DatacenterId, Timestamp, DatacenterId, Timestamp);

/// Entries here that wait, by what they wait for; and others that wait for entries of this shard.
#[derive(Debug, Default)]
pub struct Waiters {
    /// What blocked entries of this shard wait for.
    wanted: BTreeMap<Wanted, Want>,
    /// Those of `wanted` that lie in other shards, by when to ask again.
    due: BTreeSet<(Steady, Wanted)>,
    /// Questions that leave at the end of this input.
    new: BTreeMap<ShardId, Vec<(DatacenterId, Timestamp)>>,
    /// When to ask again.
    again_at: Option<Steady>,
    /// What blocked entries wait for besides.
    floors: BTreeSet<Floor>,
    /// Who waits for entries of this shard, with what each still misses.
    asked: BTreeMap<(DatacenterId, Timestamp), Askers>,
    /// Sessions: how many of the writes that they asked for are missing.
    missing_of_session: BTreeMap<RequestId, usize>,
    /// Sessions that wait for other datacenters.
    pub(crate) replication: Vec<ReplicationWait>,
}

impl Waiters {
    /// The entries that waited for a dependency; they do no longer.
    pub(crate) fn take(&mut self, dependency: Dependency) -> Waiting {
        let name = wanted(dependency);
        let Some(want) = self.wanted.remove(&name) else { return Waiting::new() };
        if let Some(due) = want.due {
            self.due.remove(&(due, name));
        }
        want.waiting
    }

    /// Whether any entry waits here.
    #[cfg(test)]
    pub(crate) fn waits(&self) -> bool {
        !self.wanted.is_empty() || !self.due.is_empty() || !self.floors.is_empty()
    }

    /// Makes an entry wait for a floor.
    pub(crate) fn await_floor(
        &mut self,
        (floor, to): (DatacenterId, Timestamp),
        (origin, stamp): (DatacenterId, Timestamp),
    ) {
        self.floors.insert((floor, to, origin, stamp));
    }

    /// Origins of floors that are waited for.
    pub(crate) fn origins_of_floors(&self) -> Vec<DatacenterId> {
        let behind = |origin: DatacenterId| {
            let last = (origin, Timestamp::MAX, DatacenterId(u16::MAX), Timestamp::MAX);
            self.floors.range((Bound::Excluded(last), Bound::Unbounded)).next()
        };
        let first = self.floors.first();
        successors(first, |floor| behind(floor.0)).map(|floor| floor.0).collect()
    }

    /// Whoever waits for a floor of an origin up to a stamp, with the floor; they do no longer.
    pub(crate) fn take_floors(&mut self, origin: DatacenterId, to: Timestamp) -> Vec<Floor> {
        let mut taken = Vec::new();
        while let Some(first) =
            self.floors.range((origin, Timestamp::ZERO, DatacenterId(0), Timestamp::ZERO)..).next()
            && first.0 == origin
            && first.1 <= to
        {
            let first = *first;
            self.floors.remove(&first);
            taken.push(first);
        }
        taken
    }

    /// Origins of writes that are waited for.
    fn origins_wanted(&self) -> Vec<DatacenterId> {
        let behind = |origin: DatacenterId| {
            let last = (origin, Timestamp::MAX, ShardId(u16::MAX));
            self.wanted.range((Bound::Excluded(last), Bound::Unbounded)).next()
        };
        let first = self.wanted.first_key_value();
        successors(first, |(name, _)| behind(name.0)).map(|(name, _)| name.0).collect()
    }

    /// Those of which it is time to ask again, no more than may be asked at a time.
    fn due_again(&self, now: Steady) -> BTreeSet<Wanted> {
        let longest_ago = self.due.range(..=(now, LAST_WANTED)).map(|(_, name)| *name);
        let mut again: BTreeSet<Wanted> = longest_ago.take(ASK_AGAIN_MAX).collect();
        if again.len() < ASK_AGAIN_MAX {
            return again;
        }
        for origin in self.origins_wanted() {
            let of_origin = (origin, Timestamp::ZERO, ShardId(0))..;
            let wanted = self.wanted.range(of_origin).take_while(|(name, _)| name.0 == origin);
            let elsewhere = wanted.filter(|(_, want)| want.due.is_some());
            let first = elsewhere.take(ASK_FIRST_AGAIN_MAX);
            let due = first.filter(|(_, want)| want.due.is_some_and(|due| due <= now));
            again.extend(due.map(|(name, _)| *name));
        }
        again
    }
}

impl Shard {
    /// Makes an entry wait for a dependency, and asks for it at the end of this input.
    pub(crate) fn await_dependency(
        &mut self,
        here: &Here,
        dependency: Dependency,
        waiting: (DatacenterId, Timestamp),
        out: &mut Outputs,
    ) {
        let name = wanted(dependency);
        let want = self.waiters.wanted.entry(name).or_default();
        let is_new = want.waiting.is_empty();
        want.waiting.push(waiting);
        if !is_new || dependency.shard == self.shard {
            return;
        }
        let write = (dependency.origin, dependency.stamp);
        self.waiters.new.entry(dependency.shard).or_default().push(write);
        let at = self.ask_later(here, name);
        if self.waiters.again_at.is_none() {
            self.waiters.again_at = Some(at);
            self.arm(at, out);
        }
    }

    /// Notes when a question that is being asked is asked again.
    fn ask_later(&mut self, here: &Here, name: Wanted) -> Steady {
        let want = self.waiters.wanted.entry(name).or_default();
        let delay: Duration = RETRY_AFTER * (1 << want.asked.saturating_sub(1).min(DOUBLINGS_MAX));
        let at = after(here.now.steady, delay);
        want.asked = want.asked.saturating_add(1);
        if let Some(due) = want.due.replace(at) {
            self.waiters.due.remove(&(due, name));
        }
        self.waiters.due.insert((at, name));
        at
    }

    /// Asks what this input made entries wait for: one message for each shard.
    pub(crate) fn ask_what_is_new(&mut self, out: &mut Outputs) {
        while let Some((shard, writes)) = self.waiters.new.pop_first() {
            self.ask_about(shard, &writes, out);
        }
    }

    fn ask_about(&self, shard: ShardId, writes: &[(DatacenterId, Timestamp)], out: &mut Outputs) {
        let Some(tail) = self.configuration.tail(self.here_datacenter(), shard) else { return };
        for part in writes.chunks(ASK_MAX) {
            let asker = Asker::Shard(self.shard);
            let body = Body::AwaitApplied { asker, writes: part.to_vec() };
            out.early(tail, self.message_about(shard, body));
        }
    }

    /// Asks again for what is still missing and was asked long enough ago.
    pub(crate) fn ask_dependencies_when_due(&mut self, here: &Here, out: &mut Outputs) {
        let Some(due) = self.waiters.again_at else { return };
        if here.now.steady < due {
            self.arm(due, out);
            return;
        }
        for name in self.waiters.due_again(here.now.steady) {
            self.ask_again(here, name);
        }
        // Not earlier than this, so that a bounded number is asked for in a time.
        let soon = after(here.now.steady, RETRY_AFTER);
        let next = self.waiters.due.first().map(|(at, _)| soon.max(*at));
        self.waiters.again_at = next;
        if let Some(at) = next {
            self.arm(at, out);
        }
    }

    /// Asks again at the end of this input.
    fn ask_again(&mut self, here: &Here, name: Wanted) {
        self.ask_later(here, name);
        let (origin, stamp, shard) = name;
        self.waiters.new.entry(shard).or_default().push((origin, stamp));
    }

    /// Asks again where the chain is another one now: its tail knows of nobody who waits.
    pub(crate) fn ask_changed_chains_anew(
        &mut self,
        here: &Here,
        before: &Configuration,
        out: &mut Outputs,
    ) {
        let (own, now) = (self.here_datacenter(), Arc::clone(&self.configuration));
        let is_another = |shard| before.chain_of(own, shard) != now.chain_of(own, shard);
        let asked = self.waiters.due.iter().map(|(_, name)| *name);
        let anew: Vec<Wanted> = asked.filter(|(_, _, shard)| is_another(*shard)).collect();
        for name in anew {
            if let Some(want) = self.waiters.wanted.get_mut(&name) {
                want.asked = 0;
            }
            self.ask_again(here, name);
        }
        self.ask_dependencies_when_due(here, out);
    }

    /// The cuts have moved: they may cover dependencies that were asked for.
    pub(crate) fn resolve_what_is_covered(
        &mut self,
        here: &Here,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        for origin in self.waiters.origins_wanted() {
            // What is lost for ever comes no more; in this shard, too, where the log tells the rest.
            let is_gone = self.configuration.membership.is_gone(origin);
            let to = if is_gone { Timestamp::MAX } else { self.covered_to(origin) };
            let first = (origin, Timestamp::ZERO, ShardId(0));
            let covered = self.waiters.wanted.range(first..=(origin, to, ShardId(u16::MAX)));
            let covered: Vec<Wanted> = covered
                .map(|(name, _)| *name)
                .filter(|(_, _, shard)| is_gone || *shard != self.shard)
                .collect();
            for (origin, stamp, shard) in covered {
                let dependency = Dependency { origin, shard, stamp };
                self.on_dependency_applied(here, dependency, storage, out);
            }
        }
    }

    /// A tail has answered.
    pub(crate) fn on_applied(
        &mut self,
        here: &Here,
        by: ShardId,
        writes: &[(DatacenterId, Timestamp)],
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        for (origin, stamp) in writes {
            let dependency = Dependency { origin: *origin, shard: by, stamp: *stamp };
            self.on_dependency_applied(here, dependency, storage, out);
        }
        self.send_entries(here, out);
    }

    /// Whatever waited for a dependency goes on.
    pub(crate) fn on_dependency_applied(
        &mut self,
        here: &Here,
        dependency: Dependency,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let waiting = self.waiters.take(dependency);
        self.resolve(here, dependency, &waiting, storage, out);
    }

    /// Someone asks whether entries of this shard are applied.
    pub(crate) fn on_await_applied(
        &mut self,
        from: NodeId,
        asker: Asker,
        writes: Vec<(DatacenterId, Timestamp)>,
        out: &mut Outputs,
    ) {
        if !self.neighbours.is_tail() || !self.is_settled() {
            return; // The asker asks again.
        }
        let (applied, missing): (Vec<_>, Vec<_>) =
            writes.into_iter().partition(|(origin, stamp)| self.is_applied(*origin, *stamp));
        if let Asker::Session(request) = asker {
            if missing.is_empty() {
                self.waiters.missing_of_session.remove(&request);
                out.reply(request, self.applied_reply());
                return;
            }
            self.waiters.missing_of_session.insert(request, missing.len());
        } else if !applied.is_empty() {
            self.answer(from, asker, applied, out);
        }
        while WAITERS_MAX < self.waiters.asked.len() {
            self.waiters.asked.pop_last();
        }
        for write in missing {
            let waiting = self.waiters.asked.entry(write).or_default();
            if !waiting.contains(&(from, asker)) {
                waiting.push((from, asker));
            }
        }
    }

    /// Whether a write is committed in this chain.
    fn is_applied(&self, origin: DatacenterId, stamp: Timestamp) -> bool {
        let Some(line) = self.lines.get(&origin) else { return false };
        if self.options.mutations.has(Mutation::NewerVersionSatisfies) {
            let newest = line.applied.above().last();
            return stamp <= newest.unwrap_or_else(|| line.applied.watermark());
        }
        line.applied.contains(stamp)
    }

    fn answer(
        &self,
        to: NodeId,
        asker: Asker,
        writes: Vec<(DatacenterId, Timestamp)>,
        out: &mut Outputs,
    ) {
        let Asker::Shard(shard) = asker else { return };
        let body = Body::Applied { by: self.shard, writes };
        out.early(to, self.message_about(shard, body));
    }

    /// Whether anyone waits for entries of this shard.
    pub(crate) fn is_asked(&self) -> bool {
        !self.waiters.asked.is_empty()
    }

    /// Answers those who waited for what has been committed now.
    pub(crate) fn tell_waiters(
        &mut self,
        mut committed: Vec<(DatacenterId, Timestamp)>,
        out: &mut Outputs,
    ) {
        if !self.is_asked() {
            return;
        }
        // What lies below a watermark is applied, whether it came by itself or not.
        for (origin, line) in &self.lines {
            let to = line.applied.watermark();
            let covered = self.waiters.asked.range((*origin, Timestamp::ZERO)..=(*origin, to));
            committed.extend(covered.map(|(write, _)| *write));
        }
        committed.sort_unstable();
        committed.dedup();
        let mut answers: BTreeMap<(NodeId, Asker), Vec<(DatacenterId, Timestamp)>> =
            BTreeMap::new();
        for write in committed {
            for waiting in self.waiters.asked.remove(&write).unwrap_or_default() {
                answers.entry(waiting).or_default().push(write);
            }
        }
        for ((to, asker), writes) in answers {
            match asker {
                Asker::Shard(_) => self.answer(to, asker, writes, out),
                Asker::Session(request) => self.answer_session(request, writes.len(), out),
            }
        }
    }

    fn answer_session(&mut self, request: RequestId, applied: usize, out: &mut Outputs) {
        let Some(missing) = self.waiters.missing_of_session.get_mut(&request) else { return };
        *missing = missing.saturating_sub(applied);
        if *missing == 0 {
            self.waiters.missing_of_session.remove(&request);
            out.reply(request, self.applied_reply());
        }
    }

    /// Tells a session that what it asked for is applied, with a logical time above its visible-at.
    fn applied_reply(&self) -> Reply {
        Reply { visible_at: self.hlc.last(), ..self.plain_reply(Response::Ok) }
    }

    /// Hands a session's `WAIT` on to the tail.
    pub(crate) fn hand_to_tail(
        &self,
        id: RequestId,
        (stamp, count, timeout_millis): (Timestamp, u64, u64),
        out: &mut Outputs,
    ) {
        let Some(tail) = self.tail() else { return };
        let operation = ShardOperation::Replicated { stamp, count, timeout_millis };
        let mut bytes = Vec::new();
        operation.write(&mut antecede_model::codec::Writer::new(&mut bytes));
        let carried = Carried { place: Place::Tail, ..Carried::default() };
        let request = Request { id, operation: bytes, carried, retry: None };
        out.early(tail, self.message(Body::Request(request)));
    }
}
