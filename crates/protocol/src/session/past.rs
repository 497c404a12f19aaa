//! Keeps what a session has seen and written, and what its next request carries of it.
//!
//! A write that carried the whole context becomes the context. One that carried only a part of it
//! (something was read between its sending and its answer) is added instead. Writes that overtake
//! the answers of earlier ones imply them: the session hands such a write over only if it carries
//! the earlier one's name, or goes to the same head, which adds it.
//!
//! Invariant: every write of this session that was answered is in the context, stable, or implied
//! by one that is; a write of level `eventual` or with an unknown outcome changes nothing.

use antecede_model::{
    clock::{Steady, Timestamp},
    consistency::Consistency,
    context::Context,
    cut::Cut,
    dependency::Dependency,
    ids::{DatacenterId, ShardId},
    version::Version,
};

use crate::{
    message::{Carried, Place, Reply},
    mutation::{Mutation, Mutations},
};

/// A write that is appended on this node and not answered yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    number: u64,
    name: Dependency,
    mark: Mark,
}

/// What a request carried: everything that was joined to the context until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark(u64);

/// The last write that was answered, for `WAIT`.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastWrite {
    number: u64,
    pub(super) shard: ShardId,
    pub(super) stamp: Timestamp,
}

/// A session's causal past.
#[derive(Debug)]
pub(super) struct Past {
    here: DatacenterId,
    pub(super) level: Consistency,
    context: Context,
    /// Counts what was joined to the context from elsewhere than the session's own writes.
    joined: Mark,
    /// The largest request number of a write that the context stands for.
    written_to: u64,
    pending: Option<Pending>,
    last_write: Option<LastWrite>,
    /// Reused from request to request.
    carried: Carried,
}

impl Past {
    pub(super) fn new(here: DatacenterId) -> Self {
        Self {
            here,
            level: Consistency::default(),
            context: Context::default(),
            joined: Mark::default(),
            written_to: 0,
            pending: None,
            last_write: None,
            carried: Carried::default(),
        }
    }

    pub(super) const fn context(&self) -> &Context {
        &self.context
    }

    pub(super) const fn last_write(&self) -> Option<LastWrite> {
        self.last_write
    }

    pub(super) const fn mark(&self) -> Mark {
        self.joined
    }

    /// What the next request brings: a write the dependencies, every request the logical time.
    pub(super) fn carry(&mut self, is_write: bool, place: Place, stable: &Cut) -> &Carried {
        let carried = &mut self.carried;
        carried.dependencies.exact.clear();
        carried.dependencies.floor.clear();
        carried.time = self.context.time();
        carried.level = self.level;
        carried.place = place;
        if let Some(pending) = self.pending {
            carried.time = carried.time.max(pending.name.stamp);
        }
        if !is_write || self.level == Consistency::Eventual {
            return carried;
        }
        self.context.forget_stable(stable);
        if self.pending.is_none_or(|pending| pending.mark != self.joined) {
            let known = self.context.dependencies();
            carried.dependencies.exact.extend_from_slice(&known.exact);
            carried.dependencies.floor.extend_from_slice(&known.floor);
        }
        if let Some(Pending { name, .. }) = self.pending
            && let Err(place) = carried.dependencies.exact.binary_search(&name)
        {
            carried.dependencies.exact.insert(place, name);
        }
        carried
    }

    /// Takes note of the name of a write that is on its way to be committed on this node.
    pub(super) const fn stamped(&mut self, number: u64, shard: ShardId, stamp: Timestamp) {
        if matches!(self.level, Consistency::Linearizable) {
            let name = Dependency { origin: self.here, shard, stamp };
            self.pending = Some(Pending { number, name, mark: self.joined });
        }
    }

    /// No longer waits for the answer to a write: whether it took effect is unknown.
    pub(super) fn lost(&mut self, number: u64) {
        if self.pending.is_some_and(|pending| pending.number == number) {
            self.pending = None;
        }
    }

    /// Takes note of the answer to a request that carried what was joined up to `mark`.
    pub(super) fn answered(&mut self, number: u64, mark: Mark, reply: &Reply, stable: &Cut) {
        let ends = |pending: Pending| {
            pending.number == number || (reply.wrote.is_some() && pending.number < number)
        };
        if self.pending.is_some_and(ends) {
            self.pending = None;
        }
        if let Some(name) = reply.wrote
            && self.last_write.is_none_or(|last| last.number < number)
        {
            self.last_write = Some(LastWrite { number, shard: name.shard, stamp: name.stamp });
        }
        if self.level == Consistency::Eventual {
            return;
        }
        match reply.wrote {
            Some(_) if number < self.written_to => {
                self.context.advance(self.here, reply.visible_at);
            }
            Some(name) if mark == self.joined => {
                self.context.become_write(self.here, name, stable);
                self.context.advance(self.here, reply.visible_at);
                self.written_to = number;
            }
            Some(name) => self.context.read(self.here, name, reply.visible_at, stable),
            None => self.read(reply, stable),
        }
    }

    /// Takes note that an answer was a repeat: the session's last write is the one that it named.
    pub(super) fn repeated(&mut self, number: u64, reply: &Reply) {
        if let (None, [version]) = (reply.wrote, reply.observed.as_slice())
            && self.last_write.is_none_or(|last| last.number < number)
        {
            let (shard, stamp) = (reply.shard, version.timestamp);
            self.last_write = Some(LastWrite { number, shard, stamp });
        }
    }

    fn read(&mut self, reply: &Reply, stable: &Cut) {
        self.context.advance(self.here, reply.visible_at);
        for version in &reply.observed {
            let dependency = named(*version, reply.shard);
            let is_known = self.context.dependencies().exact.binary_search(&dependency).is_ok();
            if !is_known && !stable.covers(dependency.origin, dependency.stamp) {
                self.joined.0 += 1;
            }
            self.context.read(self.here, dependency, reply.visible_at, stable);
        }
    }

    /// Adds the context of a token, all of which is applied in this datacenter.
    pub(super) fn join(&mut self, token: &Context, visible_at: Timestamp, stable: &Cut) {
        let at = token
            .contributed()
            .iter()
            .filter(|(datacenter, _)| *datacenter == self.here)
            .map(|(_, at)| *at)
            .fold(visible_at, Timestamp::max);
        let time = token.time().max(at);
        let covered = Context::from_parts(token.dependencies().clone(), time, [(self.here, at)]);
        self.context.merge(&covered, stable);
        self.joined.0 += 1;
    }

    /// Forgets everything but the last write, for `WAIT`.
    pub(super) fn reset(&mut self) {
        self.context = Context::default();
        self.joined.0 += 1;
    }

    /// The context as a token carries it.
    pub(super) fn for_token(&mut self, stable: &Cut, mutations: Mutations) -> Context {
        self.context.forget_stable(stable);
        let mut dependencies = self.context.dependencies().clone();
        if mutations.has(Mutation::TokenMissesLastWrite)
            && let Some(last) = self.last_write
        {
            dependencies.exact.retain(|dependency| dependency.stamp != last.stamp);
        }
        let has_time = !mutations.has(Mutation::TokenWithoutHlc);
        let time_of = |time| if has_time { time } else { Timestamp::ZERO };
        let contributed = self.context.contributed().iter().map(|(id, at)| (*id, time_of(*at)));
        Context::from_parts(dependencies, time_of(self.context.time()), contributed)
    }
}

/// The write that made a version.
const fn named(version: Version, shard: ShardId) -> Dependency {
    Dependency { origin: version.origin, shard, stamp: version.timestamp }
}

/// The moment `duration` after another.
pub(super) fn after(at: Steady, duration: std::time::Duration) -> Steady {
    Steady(at.0.saturating_add(duration))
}
