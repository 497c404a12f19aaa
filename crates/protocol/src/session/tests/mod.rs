//! Tests of the session against a small imitation of shards.

/// What was refused before it was looked at.
mod hold;
/// Answers are in order, the pipeline rule, places, retries.
mod order;
/// Requests that are evaluated later than others behind them.
mod parked;
/// What joins the context and what requests carry of it.
mod past;
/// Requests with an id.
mod retries;
/// Commands over several shards, scans, transactions.
mod several;
/// Tokens and `WAIT`.
mod waits;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use antecede_model::{
    clock::{Now, Steady, Timestamp, Wall},
    codec::{Reader, Writer},
    configuration::{Configuration, Layout},
    context::Context,
    cut::Cut,
    dependency::Dependency,
    ids::{DatacenterId, DeploymentId, NodeId, RequestId, SessionId, ShardId},
    key::{ShardCount, hash_of},
    operation::{Action, Condition, Operation, SetReply, ShardOperation, Ttl},
    refusal::Refusal,
    response::Response,
    retry::Retry,
    version::Version,
};
use smallvec::SmallVec;

use super::{
    Answers, Handover, Overdue, Requests, Session, SessionInput, SessionOptions, View,
    command::{Command, Gather},
};
use crate::{
    machine::Lease,
    message::{Carried, LocalRequest, Message, Place, Reply},
    mutation::Mutations,
};

const HERE: DatacenterId = DatacenterId(1);
const THERE: DatacenterId = DatacenterId(2);
/// Milliseconds since 1970 when every test begins.
const START: u64 = 1_800_000_000_000;

/// A request as it arrived somewhere.
#[derive(Clone, Debug)]
struct Asked {
    to: NodeId,
    shard: ShardId,
    id: RequestId,
    operation: Vec<u8>,
    carried: Carried,
    retry: Option<Retry>,
}

impl Asked {
    fn operation(&self) -> ShardOperation<'_> {
        ShardOperation::read(&mut Reader::new(&self.operation)).unwrap()
    }

    fn dependencies(&self) -> Vec<Dependency> {
        self.carried.dependencies.exact.clone()
    }
}

/// What is around the session.
struct Around {
    asked: Vec<Asked>,
    sent: Vec<(NodeId, Message)>,
    unlinked: BTreeSet<NodeId>,
    /// Stamps for writes that are handed to this node, if it tells them.
    stamps: Option<u64>,
    /// How many requests a replica on this node refuses without a look.
    refusals: u32,
    /// How many requests a replica on this node parks.
    parks: u32,
    /// Whether replicas on this node answer reads when they are handed over.
    answers_at_once: bool,
    here: NodeId,
}

impl Requests for Around {
    fn request(&mut self, to: NodeId, shard: ShardId, request: LocalRequest<'_>) -> Handover {
        if self.unlinked.contains(&to) {
            return Handover::NoLink;
        }
        if to == self.here && 0 < self.refusals {
            self.refusals -= 1;
            return Handover::Refused(Refusal::Settling { shard });
        }
        let mut operation = Vec::new();
        request.operation.write(&mut Writer::new(&mut operation));
        let (id, carried, retry) = (request.id, request.carried.clone(), request.retry.cloned());
        self.asked.push(Asked { to, shard, id, operation, carried, retry });
        if to == self.here && 0 < self.parks {
            self.parks -= 1;
            return Handover::Parked;
        }
        if to == self.here && self.answers_at_once && request.operation.is_read() {
            return Handover::Answered;
        }
        let Some(stamp) = self.stamps.as_mut().filter(|_| to == self.here) else {
            return Handover::UnderWay;
        };
        if request.operation.is_read() {
            return Handover::UnderWay;
        }
        *stamp += 1;
        Handover::Stamped(Timestamp(*stamp))
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.sent.push((to, message));
    }
}

/// A session and its surroundings.
struct Scene {
    session: Session,
    around: Around,
    configuration: Configuration,
    stable: Cut,
    applied: Cut,
    lease_until: Lease,
    millis: u64,
    out: Answers,
}

fn node(number: u16) -> NodeId {
    NodeId { datacenter: HERE, number }
}

impl Scene {
    /// Four shards in two datacenters; the chains of the session's, on node 1.
    fn of(chains: [&[u16]; 4]) -> Self {
        let mut configuration = Configuration::of(&Layout {
            deployment: DeploymentId([9; 16]),
            shard_count: ShardCount::new(4).unwrap(),
            chain_length: 1,
            datacenters: vec![(HERE, "here".to_owned(), 3), (THERE, "there".to_owned(), 1)],
        });
        let chains = chains.iter().map(|chain| chain.iter().map(|at| node(*at)).collect());
        configuration.datacenters.get_mut(&HERE).unwrap().chains = chains.collect();
        let options = SessionOptions {
            request_timeout: Duration::from_secs(5),
            max_clock_drift: Duration::from_millis(500),
            mutations: Mutations::NONE,
        };
        Self {
            session: Session::new(SessionId(7), node(1), options),
            around: Around {
                asked: Vec::new(),
                sent: Vec::new(),
                unlinked: BTreeSet::new(),
                stamps: None,
                refusals: 0,
                parks: 0,
                answers_at_once: false,
                here: node(1),
            },
            configuration,
            stable: Cut::default(),
            applied: Cut::default(),
            lease_until: Lease::Unbounded,
            millis: 0,
            out: Answers::default(),
        }
    }

    /// All shards on this node only.
    fn alone() -> Self {
        Self::of([&[1]; 4])
    }

    /// Chains of three; this node is head of shard 0, middle of 1, tail of 2.
    fn of_three() -> Self {
        Self::of([&[1, 2, 3], &[2, 1, 3], &[3, 2, 1], &[2, 3, 1]])
    }

    /// Chains of two on the other nodes.
    fn elsewhere() -> Self {
        Self::of([&[2, 3], &[2, 3], &[3, 2], &[3, 2]])
    }

    fn input(&mut self, input: SessionInput<'_>) {
        let view = View {
            now: Now {
                steady: Steady(Duration::from_millis(self.millis)),
                wall: Wall((START + self.millis) * 1000),
            },
            configuration: &self.configuration,
            stable: &self.stable,
            lease_until: self.lease_until,
            applied: &self.applied,
            applied_at: Timestamp::ZERO,
        };
        if let SessionInput::Command(command) = &input {
            assert!(self.session.can_take(&view, command), "{command:?} has to wait");
        }
        self.session.handle(&view, input, &mut self.around, &mut self.out);
    }

    fn can_take(&self, command: &Command<'_>) -> bool {
        let view = View {
            now: Now::default(),
            configuration: &self.configuration,
            stable: &self.stable,
            lease_until: self.lease_until,
            applied: &self.applied,
            applied_at: Timestamp::ZERO,
        };
        self.session.can_take(&view, command)
    }

    fn take(&mut self, command: &Command<'_>) {
        self.input(SessionInput::Command(command));
    }

    /// Gives a command and what it made the session ask.
    fn ask(&mut self, command: &Command<'_>) -> Asked {
        let before = self.around.asked.len();
        self.take(command);
        assert_eq!(self.around.asked.len(), before + 1, "one request for {command:?}");
        self.around.asked.last().unwrap().clone()
    }

    fn reply(&mut self, asked: &Asked, reply: Reply) {
        self.input(SessionInput::Reply(asked.id, reply));
    }

    fn after(&mut self, millis: u64) {
        self.millis += millis;
        self.input(SessionInput::Wake);
    }

    fn answers(&mut self) -> Vec<Response> {
        std::mem::take(&mut self.out.ready)
    }

    fn exact(&self) -> Vec<Dependency> {
        self.session.context().dependencies().exact.clone()
    }
}

/// A key of a shard of [`Scene`]; another for each number.
fn key(shard: u16, number: usize) -> Vec<u8> {
    let count = ShardCount::new(4).unwrap();
    let keys = (0..).map(|at| format!("k{at}").into_bytes());
    keys.filter(|key| count.shard_of(key) == ShardId(shard)).nth(number).unwrap()
}

fn one(operation: Operation<'_>) -> Command<'_> {
    Command::One(operation)
}

fn set<'a>(key: &'a [u8], value: &'a [u8]) -> Operation<'a> {
    let (condition, ttl, reply) = (Condition::Always, Ttl::Clear, SetReply::Status);
    Operation { key, action: Action::Set { value, condition, ttl, reply } }
}

fn get(key: &[u8]) -> Operation<'_> {
    Operation { key, action: Action::Get }
}

fn delete(key: &[u8]) -> Operation<'_> {
    Operation { key, action: Action::Delete }
}

fn version(origin: DatacenterId, stamp: u64) -> Version {
    Version { timestamp: Timestamp(stamp), origin }
}

fn named(origin: DatacenterId, shard: u16, stamp: u64) -> Dependency {
    Dependency { origin, shard: ShardId(shard), stamp: Timestamp(stamp) }
}

/// The answer to a read that found a version, with the number as value.
fn found(asked: &Asked, origin: DatacenterId, stamp: u64) -> Reply {
    Reply {
        response: Response::Integer(i64::try_from(stamp).unwrap()),
        wrote: None,
        observed: SmallVec::from_elem(version(origin, stamp), 1),
        shard: asked.shard,
        visible_at: Timestamp(stamp + 1),
    }
}

/// The answer to a write with this stamp.
fn wrote(asked: &Asked, stamp: u64) -> Reply {
    Reply {
        response: Response::Ok,
        wrote: Some(named(HERE, asked.shard.0, stamp)),
        observed: SmallVec::new(),
        shard: asked.shard,
        visible_at: Timestamp(stamp),
    }
}

fn plain(asked: &Asked, response: Response) -> Reply {
    let shard = asked.shard;
    Reply { response, wrote: None, observed: SmallVec::new(), shard, visible_at: Timestamp::ZERO }
}
