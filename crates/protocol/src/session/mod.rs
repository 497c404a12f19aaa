//! One client's sequence of requests: finds the replica, brings the context, keeps the order.

/// What a client asks.
pub mod command;

use antecede_model::{
    clock::Now,
    configuration::Configuration,
    cut::Cut,
    ids::{NodeId, RequestId, ShardId},
    response::Response,
};

use crate::message::{LocalRequest, Message, Reply};

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
    /// The client's next command; only when [`can_take`](Session::can_take) says so.
    Command(&'a command::Command<'a>),
    /// A shard has answered.
    Reply(RequestId, Reply),
    /// Requests that are under way to this node may never be answered.
    LinkLost(NodeId),
    /// The time that the session asked to be woken at has come, or the cuts have moved.
    Wake,
}

/// Where a session hands over its requests: to replicas on its own node at once, to others by
/// message.
pub trait Requests {
    /// Hands a request to the replica of a shard on a node.
    fn request(&mut self, to: NodeId, shard: ShardId, request: LocalRequest<'_>);

    /// Sends a message.
    fn send(&mut self, to: NodeId, message: Message);
}

/// What a session wants told and done.
#[derive(Debug, Default)]
pub struct Answers {
    /// Answers to commands, in the order of the commands.
    pub ready: Vec<Response>,
    /// When the session wants to be woken at the latest, if at all.
    pub wake: Option<antecede_model::clock::Steady>,
}
