//! Finds the replica for a request, and decides what may be handed over before earlier requests of
//! the session are answered.
//!
//! Inside one datacenter a session's commands must look as if they were done one after the other,
//! also to others (PITFALLS A9). So what is open at one time shares a `Course`:
//!
//! - *one log*: one-replica chains on this node. Commits follow the order of appending. What is
//!   open may have found uncommitted state, writes too (`SET` with `GET`, `APPEND`, a transaction
//!   that reads): a read behind it, of whatever shard, is evaluated against uncommitted state
//!   itself, or it would return what is older than the past of an earlier answer.
//! - *one head*: writes of one shard, then reads of it, all evaluated by its head in the order of
//!   arrival; a read is answered once what it was computed from is committed.
//! - *reads*: of any shards, at any replicas. One that may have been evaluated before a version
//!   that an earlier one returned became visible is read again, when it is the first.
//!
//! What a replica on this node has *parked*, until a value was read from its disk, is evaluated
//! later than what is handed over behind it. Of reads any number may be parked: the first makes the
//! course one of reads. Behind anything else nothing is handed over.
//!
//! A write never overtakes the answer of a read, whose version it depends on. It overtakes an
//! open write only if it depends on it: in the same shard the head sees to that, in another shard
//! the session, which then must know its stamp.
//!
//! Assumes: links keep the order of requests, and heads evaluate them in the order of arrival.

use antecede_model::{
    ids::{NodeId, ShardId},
    operation::{Operation, ShardOperation},
};

use super::{
    OUTSTANDING_MAX, Session, View,
    command::Command,
    part::{Course, Kind, Part, encoded},
};
use crate::{message::Place, mutation::Mutation};

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Nothing: it is answered at once.
    Now,
    /// One request to one shard.
    Shard(ShardId, Kind),
    /// That nothing is open before it and behind it.
    Alone,
}

impl Session {
    /// Whether a command may be given now, or must wait for answers to earlier ones.
    #[must_use]
    pub fn can_take(&self, view: &View<'_>, command: &Command<'_>) -> bool {
        if self.task.is_some() || self.waiting.is_some() {
            return false;
        }
        if self.parts.is_empty() {
            return true;
        }
        if OUTSTANDING_MAX <= self.parts.len() {
            return false;
        }
        match self.route(view, command) {
            Route::Now => true,
            Route::Shard(shard, kind) => self.flows(view, shard, kind),
            Route::Alone => false,
        }
    }

    fn route(&self, view: &View<'_>, command: &Command<'_>) -> Route {
        let shard_of = |key: &[u8]| view.configuration.shard_count.shard_of(key);
        match command {
            Command::One(operation) => {
                Route::Shard(shard_of(operation.key), Kind::of(&operation.action))
            }
            Command::Several { operations, .. } => match self.shard_of_all(view, operations) {
                Ok(Some(shard)) => Route::Shard(shard, Kind::of_all(operations)),
                Ok(None) => Route::Now,
                Err(SeveralShards) => Route::Alone,
            },
            Command::Transaction { operations } => self.route_transaction(view, operations),
            // A repeat is answered like a read of what the first execution wrote.
            Command::Retried { command, .. } => match self.route(view, command) {
                Route::Shard(shard, _) => Route::Shard(shard, Kind::Mixed),
                route @ (Route::Now | Route::Alone) => route,
            },
            Command::Unwatch | Command::Level(None) => Route::Now,
            Command::Watch { .. }
            | Command::Scan { .. }
            | Command::Keys { .. }
            | Command::Count
            | Command::RandomKey { .. }
            | Command::Wait { .. }
            | Command::Token
            | Command::After { .. }
            | Command::Reset
            | Command::Level(Some(_)) => Route::Alone,
        }
    }

    /// A transaction that touches one shard; what touches none or several is answered at once.
    pub(super) fn route_transaction(&self, view: &View<'_>, operations: &[Operation<'_>]) -> Route {
        if self.has_lost_watch {
            return Route::Now;
        }
        let watched = self.watched.iter().map(|watched| watched.shard);
        let used = operations
            .iter()
            .map(|operation| view.configuration.shard_count.shard_of(operation.key));
        match only(watched.chain(used)) {
            Ok(Some(shard)) if self.watched.is_empty() => {
                Route::Shard(shard, Kind::of_all(operations))
            }
            // Whether it writes depends on what it finds.
            Ok(Some(shard)) => Route::Shard(shard, Kind::Mixed),
            Ok(None) | Err(SeveralShards) => Route::Now,
        }
    }

    pub(super) fn shard_of_all(
        &self,
        view: &View<'_>,
        operations: &[Operation<'_>],
    ) -> Result<Option<ShardId>, SeveralShards> {
        let shard_count = view.configuration.shard_count;
        only(operations.iter().map(|operation| shard_count.shard_of(operation.key)))
    }

    /// Whether a request may be handed over while others are open.
    pub(super) fn flows(&self, view: &View<'_>, shard: ShardId, kind: Kind) -> bool {
        if self.holds_back() || 0 < self.tally.parked {
            return false;
        }
        if self.options.mutations.has(Mutation::NoWaitInPipelines) {
            return true;
        }
        let is_read = kind == Kind::Read;
        match self.course {
            None => true,
            Some(Course::Log) => {
                let implies_all = self.tally.reads == 0
                    && self.tally.unnamed.is_none_or(|(unnamed, _)| unnamed == shard);
                self.is_alone_with(view, shard) && (is_read || implies_all)
            }
            Some(Course::Head(of)) => {
                let is_same = of == shard && self.is_same_head(view, shard);
                is_same && (is_read || self.tally.reads == 0)
            }
            Some(Course::Reads) => is_read,
        }
    }

    /// Whether the head of a shard is the one that has the open parts. Another one does not know
    /// which writes of the session are under way, and cannot name them as what a write follows.
    fn is_same_head(&self, view: &View<'_>, shard: ShardId) -> bool {
        let head = view.configuration.head(self.node.datacenter, shard);
        let newest = self.parts.iter().rev().find(|part| part.is_open());
        newest.is_none_or(|part| Some(part.to) == head)
    }

    /// A part is evaluated later than the order of its course says. A read that is the only open
    /// part becomes the first of a course that can do with that; else all wait for it.
    pub(super) fn note_parked(&mut self, part: &mut Part, operation: &ShardOperation<'_>) {
        let is_among_reads = self.course == Some(Course::Reads);
        if self.course == Some(Course::Log) && part.kind == Kind::Read && self.parts.is_empty() {
            self.course = Some(Course::Reads);
        } else if is_among_reads && part.kind == Kind::Read {
            part.bytes.get_or_insert_with(|| encoded(operation));
        } else {
            part.is_parked = true;
        }
    }

    /// Whether this node holds the only replica of a shard.
    pub(super) fn is_alone_with(&self, view: &View<'_>, shard: ShardId) -> bool {
        view.configuration.chain(self.node.datacenter, shard) == [self.node]
    }

    /// The course that a first request begins.
    pub(super) fn course_of(&self, view: &View<'_>, shard: ShardId, kind: Kind) -> Course {
        if self.is_alone_with(view, shard) {
            Course::Log
        } else if kind == Kind::Read {
            Course::Reads
        } else {
            Course::Head(shard)
        }
    }

    /// Where a request must be evaluated.
    pub(super) fn place_of(&self, shard: ShardId, kind: Kind) -> Place {
        let is_at_head = match (kind, self.course) {
            (Kind::Write | Kind::Mixed, _) => true,
            (Kind::Read, None | Some(Course::Reads)) => false,
            (Kind::Read, Some(Course::Head(of))) => of == shard,
            (Kind::Read, Some(Course::Log)) => 0 < self.tally.dirty_reads + self.tally.writes,
        };
        if is_at_head { Place::Head } else { Place::Anywhere }
    }

    /// The replica that a request goes to first: the one on this node if it may answer, else one
    /// that sessions agree on by chance, so that the load is spread.
    pub(super) fn replica_of(&self, chain: &[NodeId], shard: ShardId, place: Place) -> NodeId {
        let first = chain.first().copied().unwrap_or(self.node);
        match place {
            Place::Head => first,
            Place::Tail => chain.last().copied().unwrap_or(self.node),
            Place::Anywhere if chain.contains(&self.node) => self.node,
            Place::Anywhere => {
                let length = chain.len().max(1) as u64;
                let at = self.id.0.wrapping_add(u64::from(shard.0)) % length;
                usize::try_from(at).ok().and_then(|at| chain.get(at)).copied().unwrap_or(first)
            }
        }
    }
}

/// The replica behind another, from the tail back to the head.
pub(super) fn replica_after(chain: &[NodeId], node: NodeId) -> Option<NodeId> {
    let at = chain.iter().position(|found| *found == node)?;
    chain.get((at + 1) % chain.len()).copied().filter(|next| *next != node)
}

/// Keys lie in more than one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeveralShards;

/// The one shard among several, if it is one; `None` of none.
pub(super) fn only(
    mut shards: impl Iterator<Item = ShardId>,
) -> Result<Option<ShardId>, SeveralShards> {
    let Some(first) = shards.next() else { return Ok(None) };
    if shards.all(|shard| shard == first) { Ok(Some(first)) } else { Err(SeveralShards) }
}
