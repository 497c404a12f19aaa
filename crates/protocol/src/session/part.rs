//! Holds one request to one shard from its making to its answer, and what all open ones allow.
//!
//! A command is one part, or a task that makes parts one after the other. Parts leave in the order
//! in which they were made.

use std::time::Duration;

use antecede_model::{
    clock::{Steady, Timestamp},
    ids::{NodeId, ShardId},
    operation::{Action, Condition, Operation, ShardOperation},
    refusal::Refusal,
    response::Response,
};

use super::{
    Overdue,
    command::Gather,
    hold::Held,
    past::{Mark, after},
    retried::Retried,
    route::replica_after,
};
use crate::message::Place;

/// How long a read goes round a replica that was silent about it: longer than it takes until a node
/// that is cut off has no place in its chain any more.
const LEFT_OUT_FOR: Duration = Duration::from_secs(2);

/// What a request may do, and so what may follow it before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes nothing.
    Read,
    /// Makes a write unless it is refused; what it reads it supersedes or depends on.
    Write,
    /// Makes a write or not, by what it finds: then its answer is that of a read.
    Mixed,
}

/// How the answer of a shard becomes the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fold {
    /// As it is.
    AsIs,
    /// It answers one of several actions, which was the only one.
    Only(Gather),
    /// It answers all of several actions.
    Batch(Gather),
    /// For the task that made the part.
    Task,
}

/// Where a part stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is sent when it is the first.
    Waiting,
    /// A replica has it.
    UnderWay,
    /// No replica has looked at it; it is handed over again.
    Held(Held),
    /// It is answered.
    Answered(Response),
}

/// What a part is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    pub(super) shard: ShardId,
    pub(super) kind: Kind,
    pub(super) fold: Fold,
}

/// One request to one shard.
#[derive(Debug)]
pub(super) struct Part {
    /// The request's number, a new one each time that it is sent; 0 while it waits.
    pub(super) number: u64,
    pub(super) shard: ShardId,
    pub(super) to: NodeId,
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) fold: Fold,
    pub(super) state: State,
    /// The operation, if the part may have to be sent again.
    pub(super) bytes: Option<Box<[u8]>>,
    /// When it was made.
    pub(super) made: Steady,
    /// When it was handed to the replica that has it.
    pub(super) sent: Steady,
    /// How many replicas it was sent to.
    pub(super) attempts: u8,
    /// How often no answer came: in time, or before its replica was lost.
    pub(super) silences: u8,
    /// The last one of them, and until when it is left out.
    pub(super) silent: Option<(NodeId, Steady)>,
    /// How often it was held.
    pub(super) pauses: u8,
    /// When nobody waits for the replica that has it any more, since that has left its chain.
    pub(super) gone_at: Option<Steady>,
    /// What it carried.
    pub(super) mark: Mark,
    /// The stamp of the write that it made on this node, not committed yet.
    pub(super) stamp: Option<Timestamp>,
    /// Its request id, if the client gave one.
    pub(super) retried: Option<Box<Retried>>,
    /// Whether it is evaluated later than what may be handed over behind it.
    pub(super) is_parked: bool,
    /// Whether it was evaluated before anything was handed over behind it.
    pub(super) is_in_order: bool,
}

impl Part {
    /// A part that needs no shard.
    pub(super) fn answered(node: NodeId, made: Steady, response: Response) -> Self {
        Self {
            number: 0,
            shard: ShardId(0),
            to: node,
            kind: Kind::Read,
            place: Place::Anywhere,
            fold: Fold::AsIs,
            state: State::Answered(response),
            bytes: None,
            made,
            sent: made,
            attempts: 0,
            silences: 0,
            silent: None,
            pauses: 0,
            gone_at: None,
            mark: Mark::default(),
            stamp: None,
            retried: None,
            is_parked: false,
            is_in_order: false,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        !matches!(self.state, State::Answered(_))
    }

    pub(super) const fn is_held(&self) -> bool {
        matches!(self.state, State::Held(_))
    }

    /// Its replica is silent about it.
    pub(super) fn note_silence(&mut self, now: Steady) {
        self.silences = self.silences.saturating_add(1);
        self.silent = Some((self.to, after(now, LEFT_OUT_FOR)));
    }

    /// A replica, or the next one if that was silent about it not long ago; where there are two,
    /// there is no way round.
    pub(super) fn going_round(&self, chain: &[NodeId], to: NodeId, now: Steady) -> NodeId {
        let is_silent = self.silent.is_some_and(|(silent, until)| silent == to && now < until);
        let next = replica_after(chain, to).filter(|_| is_silent && 2 < chain.len());
        next.unwrap_or(to)
    }

    /// What is told of it when nobody has answered it in time.
    pub(super) fn overdue(&self, now: Steady) -> Overdue {
        let waited = now.0.saturating_sub(self.made.0);
        Overdue { shard: self.shard, to: self.to, place: self.place, waited }
    }

    /// Whether nothing that is not implied by it may follow before it is answered.
    const fn is_like_a_read(&self) -> bool {
        match self.kind {
            Kind::Read => true,
            Kind::Write => false,
            Kind::Mixed => self.stamp.is_none(),
        }
    }
}

impl Kind {
    pub(super) fn of(action: &Action<'_>) -> Self {
        match action {
            Action::Set { condition: Condition::Always, .. } => Self::Write,
            Action::Append { value } | Action::SetRange { value, .. } if !value.is_empty() => {
                Self::Write
            }
            Action::Get
            | Action::Length
            | Action::Range { .. }
            | Action::Exists
            | Action::Type
            | Action::Expiry(_)
            | Action::Describe(_)
            | Action::Observe => Self::Read,
            Action::Set { condition: Condition::IfAbsent | Condition::IfPresent, .. }
            | Action::Delete
            | Action::Expire { .. }
            | Action::Persist
            | Action::GetAndExpire { .. }
            | Action::GetAndDelete
            | Action::Append { .. }
            | Action::SetRange { .. } => Self::Mixed,
        }
    }

    /// Of several actions in one log entry.
    pub(super) fn of_all(operations: &[Operation<'_>]) -> Self {
        let mut kind = Self::Read;
        for operation in operations {
            match Self::of(&operation.action) {
                Self::Read => {}
                Self::Write => return Self::Write,
                Self::Mixed => kind = Self::Mixed,
            }
        }
        kind
    }
}

/// Which path the open parts have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// One-replica chains on this node: whatever is appended first is committed first.
    Log,
    /// The head of one shard, which evaluates in the order of arrival.
    Head(ShardId),
    /// Reads, each at some replica.
    Reads,
}

/// What the open parts are, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Reads, and what may turn out to be one.
    pub(super) reads: u32,
    /// Those among them that were evaluated against uncommitted state.
    pub(super) dirty_reads: u32,
    /// Writes.
    pub(super) writes: u32,
    /// Those among all that are parked.
    pub(super) parked: u32,
    /// Writes whose stamp is not known; all in one shard.
    pub(super) unnamed: Option<(ShardId, u32)>,
}

impl Tally {
    pub(super) fn add(&mut self, part: &Part) {
        self.parked += u32::from(part.is_parked);
        if part.is_like_a_read() {
            self.reads += 1;
            self.dirty_reads += u32::from(part.place == Place::Head);
            return;
        }
        self.writes += 1;
        if part.stamp.is_none() {
            let count = self.unnamed.map_or(0, |(_, count)| count);
            self.unnamed = Some((part.shard, count + 1));
        }
    }

    pub(super) fn remove(&mut self, part: &Part) {
        self.parked -= u32::from(part.is_parked);
        if part.is_like_a_read() {
            self.reads -= 1;
            self.dirty_reads -= u32::from(part.place == Place::Head);
            return;
        }
        self.writes -= 1;
        if part.stamp.is_none() {
            self.unnamed = match self.unnamed {
                Some((shard, count)) if 1 < count => Some((shard, count - 1)),
                Some(_) | None => None,
            };
        }
    }
}

/// Makes one answer of the answers to several actions.
pub(super) fn gathered(gather: Gather, items: Vec<Response>) -> Response {
    match gather {
        Gather::List => Response::List(items),
        Gather::Sum => {
            let mut sum = 0_i64;
            for item in items {
                let Response::Integer(value) = item else { return item };
                sum = sum.saturating_add(value);
            }
            Response::Integer(sum)
        }
        Gather::Ok => items
            .into_iter()
            .find(|item| matches!(item, Response::Refused(_)))
            .unwrap_or(Response::Ok),
    }
}

impl Fold {
    pub(super) fn apply(self, response: Response) -> Response {
        match (self, response) {
            (Self::Only(gather), response) if !matches!(response, Response::Refused(_)) => {
                gathered(gather, vec![response])
            }
            (Self::Batch(gather), Response::List(items)) => gathered(gather, items),
            (Self::AsIs | Self::Only(_) | Self::Batch(_) | Self::Task, response) => response,
        }
    }
}

/// The operation's bytes, to send it later or again.
pub(super) fn encoded(operation: &ShardOperation<'_>) -> Box<[u8]> {
    let mut bytes = Vec::new();
    operation.write(&mut antecede_model::codec::Writer::new(&mut bytes));
    bytes.into()
}

/// The answer when no replica that may answer can be reached.
pub(super) const fn unreachable(shard: ShardId) -> Response {
    Response::Refused(Refusal::Unreachable { shard })
}
