//! Connects one client to a node: a session, the commands that wait for it, and what was asked of
//! the shards for them.

use std::collections::{BTreeMap, VecDeque};

use antecede_model::{
    codec::Writer,
    ids::{NodeId, RequestId, ShardId},
    operation::{Action, ShardOperation},
    response::Response,
    version::Version,
};
use antecede_protocol::{
    chain::Input,
    message::{Body, LocalRequest, Message, Reply, Request, ShardMessage},
    session::{Answers, Handover, Requests, Session},
};

use crate::{client::Seen, moment::Moment, node::Node, workload::Ask};

/// One client's connection.
#[derive(Debug)]
pub struct Connection {
    /// The session.
    pub session: Session,
    /// The client.
    pub client: u32,
    /// Commands that the session could not take yet.
    pub backlog: VecDeque<Ask>,
    /// What the session has answered.
    pub answers: Answers,
    /// What was asked of shards.
    pub taps: Taps,
    /// The earliest moment at which the session will be woken.
    pub wake: Option<Moment>,
}

/// One request to a shard.
#[derive(Clone, Debug)]
struct Tap {
    /// The bytes of the operation.
    operation: Vec<u8>,
    /// The number of its request id.
    id: Option<u64>,
    reply: Option<Seen>,
}

/// Requests of a session, so that the versions in their replies can be told to the history.
#[derive(Debug, Default)]
pub struct Taps {
    requests: BTreeMap<u64, Tap>,
}

impl Taps {
    fn add(&mut self, request: &LocalRequest<'_>) {
        let ShardOperation::One(one) = request.operation else { return };
        let mut bytes = Vec::new();
        one.write(&mut Writer::new(&mut bytes));
        let id = request.retry.map(|retry| retry.number);
        let tap = Tap { operation: bytes, id, reply: None };
        self.requests.insert(request.id.number, tap);
    }

    /// Takes note of a reply.
    pub fn reply(&mut self, id: RequestId, reply: &Reply) {
        if let Response::Refused(refusal) = reply.response
            && refusal.was_not_tried()
        {
            self.requests.remove(&id.number); // The session may ask again, as another request.
            return;
        }
        let Some(tap) = self.requests.get_mut(&id.number) else { return };
        let is_refused = matches!(reply.response, Response::Refused(_));
        if tap.id.is_some() && is_refused {
            self.requests.remove(&id.number); // It may ask again likewise.
            return;
        }
        let wrote =
            reply.wrote.map(|write| Version { timestamp: write.stamp, origin: write.origin });
        // A repeat is told of its first execution like a read.
        let wrote = wrote.or_else(|| reply.observed.first().copied().filter(|_| tap.id.is_some()));
        let is_repeat = tap.id.is_some() && reply.wrote.is_none();
        let tombstone = if reply.response == Response::Nil && !is_repeat {
            reply.observed.iter().copied().max()
        } else {
            None
        };
        tap.reply = Some(Seen { wrote, tombstone });
    }

    /// What was seen for a command on one key; nothing where it could be that of another command.
    pub fn take(
        &mut self,
        id: Option<u64>,
        operation: &antecede_model::operation::Operation<'_>,
    ) -> Seen {
        if id.is_some() {
            // All sendings of one request.
            let taken = self.requests.extract_if(.., |_, tap| tap.id == id);
            let replies: Vec<Seen> = taken.filter_map(|(_, tap)| tap.reply).collect();
            return replies.first().copied().unwrap_or_default();
        }
        let mut bytes = Vec::new();
        operation.write(&mut Writer::new(&mut bytes));
        let same: Vec<u64> = self
            .requests
            .iter()
            .filter(|(_, tap)| tap.operation == bytes && tap.id.is_none())
            .map(|(number, _)| *number)
            .collect();
        if operation.action == Action::Get && 1 < same.len() {
            // Read twice, or asked for twice: which one was answered is not known here.
            self.requests.retain(|_, tap| tap.operation != bytes || tap.reply.is_none());
            return Seen::default();
        }
        let answered = same.into_iter().find(|number| self.requests[number].reply.is_some());
        answered
            .and_then(|number| self.requests.remove(&number))
            .and_then(|tap| tap.reply)
            .unwrap_or_default()
    }
}

/// Hands over the requests of one session.
#[derive(Debug)]
pub struct Handing<'a> {
    /// The node.
    pub node: &'a mut Node,
    /// When.
    pub now: Moment,
    /// Where requests are noted.
    pub taps: &'a mut Taps,
}

impl Requests for Handing<'_> {
    fn request(&mut self, to: NodeId, shard: ShardId, request: LocalRequest<'_>) -> Handover {
        self.taps.add(&request);
        if to != self.node.id {
            return self.send_request(to, shard, request);
        }
        let before = self.node.end_of(shard);
        if !self.node.tell(self.now, shard, Input::Request(request)) {
            return Handover::NoLink;
        }
        if let Some((id, reply)) = self.node.out.replies.last()
            && *id == request.id
            && let Response::Refused(refusal) = reply.response
            && refusal.was_not_tried()
        {
            self.node.out.replies.pop();
            self.taps.requests.remove(&request.id.number);
            return Handover::Refused(refusal);
        }
        if self.node.out.replies.iter().any(|(id, _)| *id == request.id) {
            return Handover::Answered;
        }
        if self.node.has_parked(shard, request.id) {
            return Handover::Parked;
        }
        match before.and_then(|before| self.node.stamped_behind(shard, before)) {
            Some(stamp) => Handover::Stamped(stamp),
            None => Handover::UnderWay,
        }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.node.out.early.push((to, message));
    }
}

impl Handing<'_> {
    fn send_request(&mut self, to: NodeId, shard: ShardId, request: LocalRequest<'_>) -> Handover {
        if self.node.no_link.contains(&to) {
            return Handover::NoLink;
        }
        let mut operation = Vec::new();
        request.operation.write(&mut Writer::new(&mut operation));
        let carried = request.carried.clone();
        let retry = request.retry.cloned();
        let body = Body::Request(Request { id: request.id, operation, carried, retry });
        let epoch = self.node.configuration.chain_epoch(self.node.id.datacenter, shard);
        let message = ShardMessage { shard, epoch, hlc: request.carried.time, body };
        self.node.out.early.push((to, Message::Shard(message)));
        Handover::UnderWay
    }
}
