//! Evaluates requests of sessions, and holds replies back until what they say is committed.
//!
//! A write is evaluated once, at the head, against the newest state, also dirty; what goes into
//! the log is its effect (passive replication). Its reply leaves at the commit, and so does a reply
//! without an effect that was computed from dirty state (PITFALLS A6). A write that reaches another
//! replica is refused: whoever sent it knows of another configuration, and the head that this
//! replica knows may be the one that is gone. A read that needs the head is handed on to it, and
//! refused when the epoch ends before it can be known that it was answered.
//!
//! A write with a request id is an entry in any case, also without an effect, and the entry carries
//! the id and the answer (`retries`); a repeat gets that answer, from whichever head.
//!
//! Ensures: a stamp exceeds every own stamp and tick in the log, everything that the write depends
//! on or supersedes, and the session's logical time.

use std::sync::Arc;

use antecede_model::{
    clock::{Timestamp, check_drift},
    codec::Reader,
    consistency::Consistency,
    context::Dependencies,
    dependency::Dependency,
    ids::{NodeId, Position, RequestId},
    operation::ShardOperation,
    refusal::Refusal,
    response::Response,
    retry::Retry,
    version::Version,
};
use smallvec::SmallVec;

use super::{DIRTY_MAX, Shard};
use crate::{
    entry::{Body as EntryBody, Effect, Entry, Identity},
    geo::kept::Behind,
    machine::{Here, Outputs, Room, Storage},
    message::{Body, Carried, LocalRequest, Place, Reply, Request},
    mutation::Mutation,
    retries::{ANSWER_BYTES_MAX, Item, Kept, Known},
    state::{self, Executed, NewEffect},
};

/// Reads that were handed on to the head and are remembered until the epoch ends. Those before them
/// are answered by then, or their sessions wait for their time-out.
const HANDED_ON_MAX: usize = 64;

/// A reply that waits for a commit.
#[derive(Debug)]
pub(super) struct PendingReply {
    /// What must be committed first.
    position: Position,
    request: RequestId,
    reply: Reply,
}

impl Shard {
    pub(super) fn on_local_request(
        &mut self,
        here: &Here,
        request: LocalRequest<'_>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        if self.waits_behind_parked(&request, out) {
            return;
        }
        self.take_up(here, &request, storage, out);
    }

    /// Evaluates a request if this replica may.
    pub(super) fn take_up(
        &mut self,
        here: &Here,
        request: &LocalRequest<'_>,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let LocalRequest { id, operation, carried, retry } = *request;
        if let Some(refusal) = self.refuses_all {
            self.refuse(id, refusal, out);
        } else if !self.neighbours.is_member {
            self.refuse(id, Refusal::Unreachable { shard: self.shard }, out);
        } else if !self.is_settled() {
            self.refuse(id, Refusal::Settling { shard: self.shard }, out);
        } else if !self.may_answer(here) {
            self.refuse(id, Refusal::NoLease { shard: self.shard }, out);
        } else {
            self.evaluate(here, (id, retry), operation, carried, (storage, out));
        }
    }

    /// Whether the right of this node to answer lasts, and this replica has not stepped aside.
    pub(crate) fn may_answer(&self, here: &Here) -> bool {
        let is_aside = self.is_aside && !self.options.mutations.has(Mutation::AnswerAside);
        let has_lease = here.may_serve() || self.options.mutations.has(Mutation::ServeWithoutLease);
        has_lease && !is_aside
    }

    pub(super) fn on_remote_request(
        &mut self,
        here: &Here,
        request: &Request,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        let mut reader = Reader::new(&request.operation);
        match ShardOperation::read(&mut reader) {
            Ok(operation) => {
                let local = LocalRequest {
                    id: request.id,
                    operation: &operation,
                    carried: &request.carried,
                    retry: request.retry.as_ref(),
                };
                self.on_local_request(here, local, storage, out);
            }
            Err(_) => self.refuse(request.id, Refusal::Unreachable { shard: self.shard }, out),
        }
    }

    /// A replica that is no member any more refuses what would otherwise wait for ever.
    pub(super) fn refuse_as_stranger(&self, body: Body, out: &mut Outputs) {
        if let Body::Request(request) = body {
            self.refuse(request.id, Refusal::Unreachable { shard: self.shard }, out);
        }
    }

    pub(super) fn refuse(&self, request: RequestId, refusal: Refusal, out: &mut Outputs) {
        out.reply(request, self.plain_reply(Response::Refused(refusal)));
    }

    pub(crate) fn plain_reply(&self, response: Response) -> Reply {
        Reply::plain(self.shard, response)
    }

    fn evaluate(
        &mut self,
        here: &Here,
        (id, retry): (RequestId, Option<&Retry>),
        operation: &ShardOperation<'_>,
        carried: &Carried,
        (storage, out): (&mut dyn Storage, &mut Outputs),
    ) {
        let wall = here.now.wall.millis();
        match operation {
            ShardOperation::One(_) | ShardOperation::Batch { .. } => {}
            ShardOperation::Scan(scan) => {
                let (next, keys) = self.keys.scan(scan.from, scan.count, scan.pattern, wall);
                let keys = keys.into_iter().map(<[u8]>::to_vec).collect();
                out.reply(id, self.plain_reply(Response::Scanned { next, keys }));
                return;
            }
            ShardOperation::Count => {
                // Keys whose time is over are not there any more, hidden already or not.
                let over = self.keys.expired(wall, usize::MAX).len();
                let count = self.keys.live_count().saturating_sub(over);
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                out.reply(id, self.plain_reply(Response::Integer(count)));
                return;
            }
            ShardOperation::Random { draw } => {
                let key = self.keys.random(*draw, wall);
                let response = key.map_or(Response::Nil, |key| Response::Bytes(key.to_vec()));
                out.reply(id, self.plain_reply(response));
                return;
            }
            ShardOperation::Replicated { stamp, count, timeout_millis } => {
                self.on_wait(here, id, (*stamp, *count, *timeout_millis), out);
                return;
            }
        }
        let is_read = operation.is_read() && carried.place != Place::Head;
        if is_read {
            self.read(here, id, operation, carried, (storage, out));
        } else if self.neighbours.is_head() {
            self.evaluate_at_head(here, (id, retry), operation, carried, (storage, out));
        } else if operation.is_read() {
            self.hand_to_head(id, operation, carried, out);
        } else {
            self.refuse(id, Refusal::Settling { shard: self.shard }, out);
        }
    }

    /// Hands a read on to the head; the head answers the session itself.
    pub(super) fn hand_to_head(
        &mut self,
        id: RequestId,
        operation: &ShardOperation<'_>,
        carried: &Carried,
        out: &mut Outputs,
    ) {
        let Some(head) = self.configuration.head(self.here_datacenter(), self.shard) else {
            self.refuse(id, Refusal::Unreachable { shard: self.shard }, out);
            return;
        };
        let mut bytes = Vec::new();
        operation.write(&mut antecede_model::codec::Writer::new(&mut bytes));
        let mut carried = carried.clone();
        carried.place = Place::Head;
        let request = Request { id, operation: bytes, carried, retry: None };
        out.early(head, self.message(Body::Request(request)));
        if self.handed_on.len() == HANDED_ON_MAX {
            self.handed_on.pop_front();
        }
        self.handed_on.push_back(id);
    }

    /// The head of the epoch that has ended may have taken reads with it; whoever has got an answer
    /// does not wait for this one.
    pub(super) fn give_up_handed_on(&mut self, out: &mut Outputs) {
        for id in std::mem::take(&mut self.handed_on) {
            self.refuse(id, Refusal::Settling { shard: self.shard }, out);
        }
    }

    /// Why a write cannot be taken now, if it cannot.
    fn refusal_of_write(
        &self,
        here: &Here,
        operation: &ShardOperation<'_>,
        storage: &dyn Storage,
    ) -> Option<Refusal> {
        if self.takes_no_writes {
            return Some(Refusal::Leaving);
        }
        let held = self.window.end().0 - self.committed_to.0;
        if DIRTY_MAX as u64 <= held {
            return Some(Refusal::Busy {
                shard: self.shard,
                held: u32::try_from(held).unwrap_or(u32::MAX),
                limit: u32::try_from(DIRTY_MAX).unwrap_or(u32::MAX),
            });
        }
        if operation.may_grow() && !storage.has_memory() {
            return Some(Refusal::OutOfMemory);
        }
        if let Some(node) = self.short_of_room(here, storage) {
            return Some(Refusal::DiskFull { node });
        }
        storage.held_up_by().map(Behind::refusal)
    }

    pub(super) fn evaluate_at_head(
        &mut self,
        here: &Here,
        (id, retry): (RequestId, Option<&Retry>),
        operation: &ShardOperation<'_>,
        carried: &Carried,
        (storage, out): (&mut dyn Storage, &mut Outputs),
    ) {
        let retry = retry.filter(|_| !operation.is_read());
        if let Some(retry) = retry
            && self.is_repeat(here, id, retry, out)
        {
            return;
        }
        if !operation.is_read()
            && let Some(refusal) = self.refusal_of_write(here, operation, storage)
        {
            self.refuse(id, refusal, out);
            return;
        }
        let wall = here.now.wall.millis();
        let executed = match operation {
            ShardOperation::One(one) => state::execute(&self.keys, one, wall),
            ShardOperation::Batch { watched, operations } => {
                state::execute_batch(&self.keys, watched, operations, wall)
            }
            ShardOperation::Scan(_)
            | ShardOperation::Count
            | ShardOperation::Random { .. }
            | ShardOperation::Replicated { .. } => return,
        };
        match executed {
            Ok(executed) => {
                let (asked, to) = ((id, retry, operation), (storage, out));
                self.reply_to_executed(here, asked, carried, executed, to);
            }
            Err(lacking) => {
                let request = LocalRequest { id, operation, carried, retry };
                self.park(&request, &lacking, out);
            }
        }
    }

    /// Answers a request whose id is known, or must not be executed; false for a new one.
    ///
    /// The first execution is told like something that was read: the session may have a longer past
    /// than the one that it carried. Nothing is told before it is committed.
    fn is_repeat(&mut self, here: &Here, id: RequestId, retry: &Retry, out: &mut Outputs) -> bool {
        let (position, reply) = match self.retries.look(retry) {
            Known::New => {
                let limit = self.options.max_clock_drift;
                let Err(drift) = check_drift(here.now.wall, retry.time(), limit) else {
                    return false;
                };
                let narrow = |millis| u32::try_from(millis).unwrap_or(u32::MAX);
                let ahead_millis = narrow(drift.ahead_millis);
                let limit_millis = narrow(drift.limit_millis);
                self.refuse(id, Refusal::Drift { ahead_millis, limit_millis }, out);
                return true;
            }
            Known::Forgotten(forgotten_to) => {
                self.refuse(id, Refusal::Forgotten { shard: self.shard, forgotten_to }, out);
                return true;
            }
            Known::Other(position) => {
                (position, self.plain_reply(Response::Refused(Refusal::OtherRequest)))
            }
            Known::Executed(Item { position, stamp, kept }) => {
                let limit = u32::try_from(ANSWER_BYTES_MAX).unwrap_or(u32::MAX);
                let not_kept = || Response::Refused(Refusal::NotKept { limit });
                let response = kept.answer.clone().unwrap_or_else(not_kept);
                let version = Version { timestamp: stamp, origin: self.here_datacenter() };
                let observed = SmallVec::from_iter([version]);
                let (shard, visible_at) = (self.shard, stamp);
                (position, Reply { response, wrote: None, observed, shard, visible_at })
            }
        };
        let is_dirty = self.committed_to < position;
        if is_dirty && !self.options.mutations.has(Mutation::AnswerRepeatsWhileDirty) {
            let place = self.pending.partition_point(|pending| pending.position <= position);
            self.pending.insert(place, PendingReply { position, request: id, reply });
        } else {
            out.reply(id, reply);
        }
        true
    }

    fn reply_to_executed(
        &mut self,
        here: &Here,
        (id, retry, operation): (RequestId, Option<&Retry>, &ShardOperation<'_>),
        carried: &Carried,
        executed: Executed<'_>,
        (storage, out): (&mut dyn Storage, &mut Outputs),
    ) {
        let Executed { response, effects, observed, visible_at } = executed;
        // What leaves no effect still depends on what it found: its answer is kept under its id.
        let tells_found = effects.is_empty() && retry.is_some();
        let is_batch = matches!(operation, ShardOperation::Batch { .. });
        let found = (is_batch || tells_found).then(|| observed.clone());
        let mut reply = Reply { response, wrote: None, observed, shard: self.shard, visible_at };
        if operation.is_read() && !effects.is_empty() && self.takes_no_writes {
            self.refuse(id, Refusal::Leaving, out);
            return;
        }
        if operation.is_read() && !effects.is_empty() && storage.room() == Room::None {
            // An expired key may be told absent only once its hiding is in the log.
            self.refuse(id, Refusal::DiskFull { node: self.node }, out);
            return;
        }
        if effects.is_empty() && retry.is_none() {
            let is_dirty = self.is_any_dirty(operation);
            if is_dirty && !self.options.mutations.has(Mutation::ReplyFromDirtyState) {
                let position = self.window.end();
                self.pending.push_back(PendingReply { position, request: id, reply });
            } else {
                out.reply(id, reply);
            }
            return;
        }
        let found = found.unwrap_or_default();
        let kept = retry.map(|retry| Arc::new(Kept::of(retry.clone(), &reply.response)));
        let position = self.write(here, (id, kept), (&effects, &found), carried, (storage, out));
        let entry = self.window.at(position).expect("what was just appended is held");
        reply.visible_at = entry.visible_at;
        if operation.is_read() {
            // What a read made the head log, the hiding of an expired key, it has also found.
            reply.observed.push(entry.version());
        } else {
            reply.wrote =
                Some(Dependency { origin: entry.origin, shard: self.shard, stamp: entry.stamp });
        }
        self.pending.push_back(PendingReply { position, request: id, reply });
        self.send_entries(here, out);
    }

    /// Whether a key of the operation has an uncommitted state.
    pub(super) fn is_any_dirty(&self, operation: &ShardOperation<'_>) -> bool {
        match operation {
            ShardOperation::One(one) => self.keys.newest_dirty(one.key).is_some(),
            ShardOperation::Batch { watched, operations } => {
                watched.iter().any(|(key, _)| self.keys.newest_dirty(key).is_some())
                    || operations.iter().any(|one| self.keys.newest_dirty(one.key).is_some())
            }
            ShardOperation::Scan(_)
            | ShardOperation::Count
            | ShardOperation::Random { .. }
            | ShardOperation::Replicated { .. } => false,
        }
    }

    /// Gives a write its stamp and puts it into the log; tells its position.
    fn write(
        &mut self,
        here: &Here,
        (id, kept): (RequestId, Option<Arc<Kept>>),
        (effects, found): (&[NewEffect<'_>], &[Version]),
        carried: &Carried,
        (storage, out): (&mut dyn Storage, &mut Outputs),
    ) -> Position {
        let mut dependencies = carried.dependencies.clone();
        if carried.level != Consistency::Eventual {
            self.depend_on_last_of_session(id, &mut dependencies);
            self.depend_on_found(found, &mut dependencies);
        }
        let seen = effects.iter().flat_map(|effect| effect.seen.iter());
        let seen = seen.map(|version| version.timestamp).max().unwrap_or_default();
        let mut floor = dependencies.newest().max(seen);
        if !self.options.mutations.has(Mutation::IgnoreLogicalTime) {
            floor = floor.max(carried.time);
        }
        let stamp = self.hlc.next_above(here.now.wall, floor);
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let encoded = effects.iter().map(|effect| effect.as_effect());
        EntryBody::encode(&mut bytes, stamp, &dependencies, encoded);
        let body = EntryBody::Write(bytes.as_slice().into());
        self.scratch = bytes;
        let position = self.append_own(here, stamp, (body, kept), storage, out);
        if !self.cuts.stable.covers(self.here_datacenter(), stamp)
            && carried.level != Consistency::Eventual
        {
            self.follows.insert((id.node, id.session), stamp);
        }
        position
    }

    /// Makes a write follow the session's last one of this shard: the session may have sent it
    /// before it heard that one's stamp, and then could not name it.
    fn depend_on_last_of_session(&self, id: RequestId, dependencies: &mut Dependencies) {
        let Some(stamp) = self.follows.get(&(id.node, id.session)) else { return };
        let last = Dependency { origin: self.here_datacenter(), shard: self.shard, stamp: *stamp };
        if let Err(place) = dependencies.exact.binary_search(&last) {
            dependencies.exact.insert(place, last);
        }
    }

    /// Makes a transaction depend on everything that it found, also on keys that it only read.
    fn depend_on_found(&self, found: &[Version], dependencies: &mut Dependencies) {
        for version in found {
            let read =
                Dependency { origin: version.origin, shard: self.shard, stamp: version.timestamp };
            if !self.cuts.stable.covers(read.origin, read.stamp)
                && let Err(place) = dependencies.exact.binary_search(&read)
            {
                dependencies.exact.insert(place, read);
            }
        }
    }

    /// Appends an entry that begins here.
    pub(crate) fn append_own(
        &mut self,
        here: &Here,
        stamp: Timestamp,
        (body, kept): (EntryBody, Option<Arc<Kept>>),
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) -> Position {
        let origin = self.here_datacenter();
        let line = self.lines.entry(origin).or_default();
        let previous = line.received.watermark();
        assert!(previous < stamp, "stamps of an origin grow");
        let entry = Entry {
            identity: Identity::default(),
            origin,
            lineage: self.configuration.lineage(origin, self.shard),
            stamp,
            previous,
            visible_at: stamp,
            body,
            kept,
        };
        self.append_at_head(here, entry, storage, out)
    }

    /// Gives an entry its place in the log of this head.
    pub(crate) fn append_at_head(
        &mut self,
        here: &Here,
        mut entry: Entry,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) -> Position {
        let position = self.window.end().next();
        let checksum = entry.computed_checksum();
        entry.identity = Identity { epoch: self.epoch, boot: here.boot, position, checksum };
        self.append(entry, storage, out);
        position
    }

    /// Logs the hiding of keys whose time is over, a few at a time.
    pub(super) fn hide_expired(
        &mut self,
        here: &Here,
        storage: &mut dyn Storage,
        out: &mut Outputs,
    ) {
        const KEYS_MAX: usize = 64;
        let is_short = self.short_of_room(here, storage).is_some();
        if is_short || self.takes_no_writes || storage.held_up_by().is_some() {
            return; // Reads hide what is over all the same.
        }
        let wall = here.now.wall.millis();
        let expired = self.keys.expired(wall, KEYS_MAX);
        if expired.is_empty() {
            return;
        }
        for key in expired {
            self.hide(here, &key, storage, out);
        }
        self.send_entries(here, out);
    }

    /// Logs the hiding of one key, if its newest state is expired.
    fn hide(&mut self, here: &Here, key: &[u8], storage: &mut dyn Storage, out: &mut Outputs) {
        let look = self.keys.newest(key);
        if !look.is_expired(here.now.wall.millis()) {
            return;
        }
        let seen = look.seen();
        let newest = seen.iter().map(|version| version.timestamp).max().unwrap_or_default();
        let stamp = self.hlc.next_above(here.now.wall, newest);
        let effect = Effect { key, seen, change: crate::entry::Change::Hide };
        let mut bytes = Vec::new();
        EntryBody::encode(&mut bytes, stamp, &Dependencies::default(), std::iter::once(effect));
        self.append_own(here, stamp, (EntryBody::Write(bytes.into()), None), storage, out);
    }

    /// Lets replies go whose position is committed.
    pub(super) fn release_replies(&mut self, out: &mut Outputs) {
        while self.pending.front().is_some_and(|first| first.position <= self.committed_to) {
            let released = self.pending.pop_front().expect("there is a first one");
            out.reply(released.request, released.reply);
        }
    }

    /// A session's last write need not be named any more once it is stable.
    pub(super) fn forget_followed(&mut self) {
        let own = self.here_datacenter();
        let stable = &self.cuts.stable;
        self.follows.retain(|_, stamp| !stable.covers(own, *stamp));
    }

    /// Whether somebody waits for a commit, or for a value, to be answered.
    #[must_use]
    pub fn has_open_replies(&self) -> bool {
        !self.pending.is_empty() || self.cold.has_parked()
    }

    /// The head is elsewhere, and names by itself what the writes of a session follow.
    pub(super) fn forget_follows(&mut self) {
        self.follows.clear();
    }

    /// A replica out of its chain does not learn what became of what was not committed. One that
    /// stays in it does, also where it is the head no more: the others settle on its whole log.
    pub(super) fn give_up_replies(&mut self, out: &mut Outputs) {
        for pending in std::mem::take(&mut self.pending) {
            self.refuse(pending.request, Refusal::UnknownOutcome, out);
        }
    }

    /// The node that commits this shard here.
    pub(crate) fn tail(&self) -> Option<NodeId> {
        self.configuration.tail(self.here_datacenter(), self.shard)
    }
}
