//! Takes commands with a request id, and knows what a lost answer to one leaves open.
//!
//! The id goes with the part to whichever head it is sent. Once an answer was lost, refusals of later
//! sendings say nothing of the first: the client is told that the outcome is unknown, unless a head
//! that knows the id has spoken.
//!
//! Assumes: the shell gives ids to commands that may write keys, and to nothing else.
//! Ensures: an id of another datacenter is sent to nobody.

use antecede_model::{
    operation::ShardOperation,
    refusal::Refusal,
    response::Response,
    retry::{Retry, WrittenId},
};

use super::{
    Requests, Session, View,
    command::Command,
    part::{Aim, Fold, Kind, Part, State},
};
use crate::mutation::{Mutation, Mutations};

/// What a part has of a request id.
#[derive(Debug)]
pub(super) struct Retried {
    pub(super) retry: Retry,
    /// Whether an earlier sending may have taken effect, or may still.
    pub(super) is_open: bool,
}

impl Retried {
    /// That of a request that was not sent yet.
    pub(super) fn of(retry: Option<Retry>) -> Option<Box<Self>> {
        retry.map(|retry| Box::new(Self { retry, is_open: false }))
    }
}

impl Session {
    /// `CAUSAL.DO ID`: the same as the command, under an id.
    pub(super) fn take_retried(
        &mut self,
        view: &View<'_>,
        id: WrittenId<'_>,
        words: u32,
        command: &Command<'_>,
        requests: &mut dyn Requests,
    ) {
        let here = view.configuration.datacenter(self.node.datacenter);
        if here.is_none_or(|here| here.name != id.datacenter) {
            return self.push_answered(view, Response::Refused(Refusal::OtherDatacenter));
        }
        self.retry = Some(id.with_words(words));
        match command {
            Command::One(operation) => {
                let shard = view.configuration.shard_count.shard_of(operation.key);
                let operation = ShardOperation::One(operation.clone());
                let aim = Aim { shard, kind: Kind::Mixed, fold: Fold::AsIs };
                self.ask(view, aim, &operation, requests);
            }
            Command::Several { operations, gather } => {
                if self.shard_of_all(view, operations).is_err() {
                    self.push_answered(view, Response::Refused(Refusal::CrossShard));
                } else {
                    self.take_several(view, operations, *gather, requests);
                }
            }
            Command::Transaction { operations } => {
                self.take_transaction(view, operations, requests);
            }
            Command::Retried { .. }
            | Command::Watch { .. }
            | Command::Unwatch
            | Command::Scan { .. }
            | Command::Keys { .. }
            | Command::Count
            | Command::RandomKey { .. }
            | Command::Wait { .. }
            | Command::Token
            | Command::After { .. }
            | Command::Reset
            | Command::Level(_) => unreachable!("the shell gives an id to what may write only"),
        }
        self.retry = None;
    }
}

impl Part {
    /// The id that it is sent with.
    pub(super) fn retry(&self, mutations: Mutations) -> Option<&Retry> {
        let forgets = mutations.has(Mutation::SendAgainWithoutId);
        let retried = self.retried.as_ref().filter(|retried| !(retried.is_open && forgets));
        retried.map(|retried| &retried.retry)
    }

    /// Whether a request that met this refusal may be sent again: nobody has looked at it, or
    /// nobody does what it asks a second time.
    pub(super) fn may_go_on_after(&self, refusal: Refusal) -> bool {
        refusal.was_not_tried() || self.retried.is_some() && refusal == Refusal::UnknownOutcome
    }

    /// What the client is told for an answer: where an earlier sending may have taken effect, a
    /// refusal of a later one says nothing of that.
    fn told(&self, response: Response) -> Response {
        let is_open = self.retried.as_ref().is_some_and(|retried| retried.is_open);
        if is_open && matches!(response, Response::Refused(refusal) if !refusal.is_last_word()) {
            return Response::Refused(Refusal::UnknownOutcome);
        }
        response
    }

    /// Takes its answer.
    pub(super) fn end_with(&mut self, response: Response) {
        self.state = State::Answered(self.told(response));
    }
}
