//! Asks the shard that holds a write whether it is applied here, and answers such questions.
//!
//! The head of a shard with blocked entries asks the tail of the shard that each dependency names;
//! the tail answers when the write is committed, at once if it already is. Questions to one shard
//! go in one message, and are repeated while no answer comes: waiters die with the tail that held
//! them (PITFALLS B17). Sessions with tokens ask the same way.
//!
//! Ensures: an answer is given only for a write that is committed in its chain here; the answer's
//! HLC is at least its visible-at.

use std::collections::BTreeMap;

use antecede_model::{
    clock::{Steady, Timestamp},
    dependency::Dependency,
    ids::{DatacenterId, NodeId, RequestId, ShardId},
    operation::ShardOperation,
    response::Response,
};

use super::outbox::ReplicationWait;
use crate::{
    chain::{RETRY_AFTER, Shard, after},
    machine::{Here, Outputs, Storage},
    message::{Asker, Body, Carried, Message, Place, Reply, Request},
    mutation::Mutation,
};

/// Writes that one message asks about at most.
const ASK_MAX: usize = 512;
/// Those who wait for one tail; past it the oldest questions are forgotten, and asked again.
const WAITERS_MAX: usize = 65_536;

/// Entries here that wait, by what they wait for; and others that wait for entries of this shard.
#[derive(Debug, Default)]
pub struct Waiters {
    /// What blocked entries of this shard wait for.
    wanted: BTreeMap<Dependency, Vec<(DatacenterId, Timestamp)>>,
    /// When to ask again.
    again_at: Option<Steady>,
    /// Who waits for entries of this shard, with what each still misses.
    asked: BTreeMap<(DatacenterId, Timestamp), Vec<(NodeId, Asker)>>,
    /// Sessions: how many of the writes that they asked for are missing.
    missing_of_session: BTreeMap<RequestId, usize>,
    /// Sessions that wait for other datacenters.
    pub(crate) replication: Vec<ReplicationWait>,
}

impl Waiters {
    /// The entries that waited for a dependency; they do no longer.
    pub(crate) fn take(&mut self, dependency: Dependency) -> Vec<(DatacenterId, Timestamp)> {
        self.wanted.remove(&dependency).unwrap_or_default()
    }
}

impl Shard {
    /// Makes an entry wait for a dependency, and asks for it.
    pub(crate) fn await_dependency(
        &mut self,
        here: &Here,
        dependency: Dependency,
        waiting: (DatacenterId, Timestamp),
        out: &mut Outputs,
    ) {
        let is_new = !self.waiters.wanted.contains_key(&dependency);
        self.waiters.wanted.entry(dependency).or_default().push(waiting);
        if !is_new || dependency.shard == self.shard {
            return;
        }
        self.ask_about(dependency.shard, vec![(dependency.origin, dependency.stamp)], out);
        if self.waiters.again_at.is_none() {
            let at = after(here.now.steady, RETRY_AFTER);
            self.waiters.again_at = Some(at);
            self.arm(at, out);
        }
    }

    fn ask_about(&self, shard: ShardId, writes: Vec<(DatacenterId, Timestamp)>, out: &mut Outputs) {
        let Some(tail) = self.configuration.tail(self.here_datacenter(), shard) else { return };
        let body = Body::AwaitApplied { asker: Asker::Shard(self.shard), writes };
        let Message::Shard(message) = self.message_about(shard, body) else { return };
        // Questions asked in one batch to one shard are one message.
        if let Some((to, Message::Shard(last))) = out.early.last_mut()
            && *to == tail
            && last.shard == shard
            && let Body::AwaitApplied { asker: Asker::Shard(asker), writes: before } =
                &mut last.body
            && *asker == self.shard
            && before.len() < ASK_MAX
            && let Body::AwaitApplied { writes, .. } = &message.body
        {
            before.extend_from_slice(writes);
            return;
        }
        out.early(tail, Message::Shard(message));
    }

    /// Asks again for what is still missing.
    pub(crate) fn ask_dependencies_when_due(
        &mut self,
        here: &Here,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let Some(due) = self.waiters.again_at else { return };
        if here.now.steady < due {
            self.arm(due, out);
            return;
        }
        self.waiters.again_at = None;
        self.resolve_what_is_covered(here, storage, out);
        let mut by_shard: BTreeMap<ShardId, Vec<(DatacenterId, Timestamp)>> = BTreeMap::new();
        for dependency in self.waiters.wanted.keys() {
            if dependency.shard != self.shard {
                let writes = by_shard.entry(dependency.shard).or_default();
                writes.push((dependency.origin, dependency.stamp));
            }
        }
        if by_shard.is_empty() {
            return;
        }
        for (shard, writes) in by_shard {
            for part in writes.chunks(ASK_MAX) {
                self.ask_about(shard, part.to_vec(), out);
            }
        }
        let at = after(here.now.steady, RETRY_AFTER);
        self.waiters.again_at = Some(at);
        self.arm(at, out);
    }

    /// The cuts may have covered dependencies since they were asked for.
    pub(crate) fn resolve_what_is_covered(
        &mut self,
        here: &Here,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let covered: Vec<Dependency> = self
            .waiters
            .wanted
            .keys()
            .filter(|dependency| {
                let is_gone = self.configuration.membership.is_gone(dependency.origin);
                let is_elsewhere = dependency.shard != self.shard;
                is_gone || is_elsewhere && self.is_covered(dependency.origin, dependency.stamp)
            })
            .copied()
            .collect();
        for dependency in covered {
            self.on_dependency_applied(here, dependency, storage, out);
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
            self.waiters.asked.pop_first();
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

    /// Answers those who waited for what has been committed now.
    pub(crate) fn tell_waiters(&mut self, out: &mut Outputs) {
        if self.waiters.asked.is_empty() {
            return;
        }
        let applied: Vec<(DatacenterId, Timestamp)> = self
            .waiters
            .asked
            .keys()
            .filter(|(origin, stamp)| self.is_applied(*origin, *stamp))
            .copied()
            .collect();
        let mut answers: BTreeMap<(NodeId, Asker), Vec<(DatacenterId, Timestamp)>> =
            BTreeMap::new();
        for write in applied {
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
