//! One client's sequence of requests: finds the replica, brings the context, keeps the order.
//!
//! A command becomes requests to shards (`part`, `task`); `route` says which replica each goes to
//! and which may be open at once; `past` is the session's context, what requests carry of it and
//! what answers add; `waiting` is for tokens from elsewhere and for `WAIT`. Answers leave in the
//! order of the commands.
//!
//! A write whose answer is lost is refused with an unknown outcome and changes nothing of the
//! context, unless it has a request id: then it is handed over again; a read is sent to another replica; what no replica has looked at is held for a while and
//! handed over again (`hold`). Answers to requests that are no longer open are
//! ignored: each sending has a number of its own.
//!
//! Assumes, of heads: a write depends on what it supersedes (`seen`), on what else it read, on
//! what it carries, and on the previous write of the same session in that shard unless that is
//! stable, also when its answer has left already (pipelined writes of one shard carry nothing of
//! each other). Of links: requests and answers of one link keep their order.
//! Ensures: read your writes, monotonic reads, monotonic writes, writes follow reads.
//! Limits: `OUTSTANDING_MAX` commands without an answer, one command that concerns several
//! shards at a time.

/// What a client asks.
pub mod command;
mod hold;
mod part;
mod past;
mod retried;
mod route;
mod task;
mod view;
mod waiting;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use antecede_model::{
    clock::{Steady, Timestamp},
    codec::Reader,
    consistency::Consistency,
    context::Context,
    cut::Cut,
    ids::{NodeId, RequestId, SessionId, ShardId},
    operation::{Operation, ShardOperation},
    refusal::Refusal,
    response::Response,
    retry::Retry,
    token::SessionToken,
};

pub use self::view::View;
use self::{
    command::{Command, Gather},
    part::{Aim, Course, Fold, Kind, Part, State, Tally, encoded, gathered},
    past::{Past, after},
    retried::Retried,
    route::{Route, replica_after},
    task::{Task, Watched},
    waiting::Waiting,
};
use crate::{
    message::{LocalRequest, Message, Place, Reply},
    mutation::{Mutation, Mutations},
};

/// Commands of one session that may be without an answer at a time.
pub const OUTSTANDING_MAX: usize = 1024;
/// Requests that one command over several shards may have open at a time.
const PARALLEL_MAX: usize = 32;
/// How long a read waits for the first replica that is silent about it, unless the time-out of a
/// request is short; twice as long for each further one.
const SILENCE_MIN: Duration = Duration::from_millis(250);

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
    /// A replica on this node has appended a write for it, which has this stamp, is not committed
    /// yet, and will be in the order of the node's log; the answer will be told.
    Stamped(Timestamp),
    /// There is no link to that node: the request went nowhere.
    NoLink,
    /// A replica on this node evaluates it later, when a value was read from the disk: what is handed
    /// over behind it may be evaluated first, but for requests to the same shard; the answer will be
    /// told.
    Parked,
    /// A replica on this node has answered it; the answer will be told.
    Answered,
    /// A replica on this node has refused it before it was evaluated; no answer will be told.
    Refused(Refusal),
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

/// A request that a session gave up because nobody has answered it in time: whoever had it should
/// have said so before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The shard.
    pub shard: ShardId,
    /// The replica that it was handed to.
    pub to: NodeId,
    /// Which replica it was for.
    pub place: Place,
    /// How long it has waited, also at other replicas before.
    pub waited: Duration,
}

/// What a session wants told and done.
#[derive(Debug, Default)]
pub struct Answers {
    /// Answers to commands, in the order of the commands.
    pub ready: Vec<Response>,
    /// Requests that nobody has answered in time.
    pub overdue: Vec<Overdue>,
    /// When the session wants to be woken at the latest, if at all; set anew by every input.
    pub wake: Option<Steady>,
}

/// Settings of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// How long a request waits for its shard.
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
    past: Past,
    /// The number of the last request.
    requested_to: u64,
    /// In the order of the commands; the first one is open.
    parts: VecDeque<Part>,
    course: Option<Course>,
    tally: Tally,
    /// What was applied here when the second of the open reads was sent, or less.
    applied_before: Cut,
    task: Option<Box<Task>>,
    waiting: Option<Box<Waiting>>,
    /// For the next transaction.
    watched: Vec<Watched>,
    /// The request id of the command that is being taken.
    retry: Option<Retry>,
    /// Some key could not be watched: the next transaction is not executed.
    has_lost_watch: bool,
    /// Nothing is to be done before, unless something arrives.
    wake: Option<Steady>,
}

impl Session {
    /// A session of a client that is connected to `node`.
    #[must_use]
    pub fn new(id: SessionId, node: NodeId, options: SessionOptions) -> Self {
        Self {
            id,
            node,
            options,
            past: Past::new(node.datacenter),
            requested_to: 0,
            parts: VecDeque::new(),
            course: None,
            tally: Tally::default(),
            applied_before: Cut::default(),
            task: None,
            waiting: None,
            watched: Vec::new(),
            retry: None,
            has_lost_watch: false,
            wake: None,
        }
    }

    /// The causal past.
    #[must_use]
    pub const fn context(&self) -> &Context {
        self.past.context()
    }

    /// Whether a command is without an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.parts.is_empty() && self.task.is_none() && self.waiting.is_none()
    }

    /// Whether it wants a [`SessionInput::Wake`] whenever the cuts have moved.
    #[must_use]
    pub fn waits_for_cuts(&self) -> bool {
        matches!(self.waiting.as_deref(), Some(Waiting::Token(_)))
    }

    /// Handles one input.
    pub fn handle(
        &mut self,
        view: &View<'_>,
        input: SessionInput<'_>,
        requests: &mut dyn Requests,
        out: &mut Answers,
    ) {
        let trims = self.options.mutations.has(Mutation::TrimWithoutLease);
        let fenced = (!trims && !view.has_lease()).then(|| view.without_knowledge());
        let view = fenced.as_ref().unwrap_or(view);
        match input {
            SessionInput::Command(command) => self.on_command(view, command, requests, out),
            SessionInput::Reply(id, reply) => self.on_reply(view, id, reply, requests, out),
            SessionInput::LinkLost(node) => self.on_link_lost(view, node, requests),
            SessionInput::Wake => self.on_wake(view, requests, out),
        }
        self.pump(view, requests, out);
        out.wake = self.wake;
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    fn on_command(
        &mut self,
        view: &View<'_>,
        command: &Command<'_>,
        requests: &mut dyn Requests,
        out: &mut Answers,
    ) {
        debug_assert!(self.can_take(view, command), "the shell asks before it gives a command");
        let shard_count = view.configuration.shard_count;
        match command {
            Command::One(operation) => {
                let shard = shard_count.shard_of(operation.key);
                let kind = Kind::of(&operation.action);
                let operation = ShardOperation::One(operation.clone());
                self.ask(view, Aim { shard, kind, fold: Fold::AsIs }, &operation, requests);
            }
            Command::Several { operations, gather } => {
                self.take_several(view, operations, *gather, requests);
            }
            Command::Transaction { operations } => {
                self.take_transaction(view, operations, requests);
            }
            Command::Retried { id, words, command } => {
                self.take_retried(view, *id, *words, command, requests);
            }
            Command::Watch { keys } => self.begin(Task::watch(shard_count, keys)),
            Command::Unwatch => {
                self.forget_watches();
                self.push_answered(view, Response::Ok);
            }
            Command::Scan { cursor, count, pattern } => {
                self.begin(Task::scan(shard_count, *cursor, *count, *pattern));
            }
            Command::Keys { pattern } => self.begin(Task::keys(shard_count, pattern)),
            Command::Count => self.begin(Task::count(shard_count)),
            Command::RandomKey { draw } => self.begin(Task::random(shard_count, *draw)),
            Command::Wait { count, timeout_millis } => {
                out.ready.extend(self.take_wait(view, *count, *timeout_millis, requests));
            }
            Command::After { context, timeout_millis } => {
                out.ready.extend(self.take_token(view, context, *timeout_millis, requests));
            }
            Command::Token => {
                let context = self.past.for_token(view.stable, self.options.mutations);
                let configuration = view.configuration;
                let (deployment, membership) =
                    (configuration.deployment, configuration.membership.epoch);
                let token = SessionToken::encode(&context, deployment, membership);
                out.ready.push(Response::Bytes(token.into_string().into_bytes()));
            }
            Command::Reset => {
                self.past.reset();
                out.ready.push(Response::Ok);
            }
            Command::Level(Some(level)) => {
                self.past.level = *level;
                out.ready.push(Response::Ok);
            }
            Command::Level(None) => {
                let name = self.past.level.name().as_bytes().to_vec();
                self.push_answered(view, Response::Bytes(name));
            }
        }
    }

    fn take_several(
        &mut self,
        view: &View<'_>,
        operations: &[Operation<'_>],
        gather: Gather,
        requests: &mut dyn Requests,
    ) {
        match (self.shard_of_all(view, operations), operations) {
            (Ok(Some(shard)), [only]) => {
                let operation = ShardOperation::One(only.clone());
                let kind = Kind::of(&only.action);
                self.ask(view, Aim { shard, kind, fold: Fold::Only(gather) }, &operation, requests);
            }
            (Ok(Some(shard)), operations) => {
                let kind = Kind::of_all(operations);
                let operations = operations.to_vec();
                let operation = ShardOperation::Batch { watched: Vec::new(), operations };
                self.ask(
                    view,
                    Aim { shard, kind, fold: Fold::Batch(gather) },
                    &operation,
                    requests,
                );
            }
            (Ok(None), _) => self.push_answered(view, gathered(gather, Vec::new())),
            (Err(_), operations) => {
                self.begin(Task::spread(view.configuration.shard_count, operations, gather));
            }
        }
    }

    /// `EXEC`: watches end with it, whatever comes of it.
    fn take_transaction(
        &mut self,
        view: &View<'_>,
        operations: &[Operation<'_>],
        requests: &mut dyn Requests,
    ) {
        let route = self.route_transaction(view, operations);
        let has_lost_watch = self.has_lost_watch;
        let watched = std::mem::take(&mut self.watched);
        self.forget_watches();
        if let Route::Shard(shard, kind) = route {
            let watched = watched.iter().map(|watched| (&*watched.key, watched.sighting)).collect();
            let operations = operations.to_vec();
            let operation = ShardOperation::Batch { watched, operations };
            self.ask(view, Aim { shard, kind, fold: Fold::AsIs }, &operation, requests);
        } else if has_lost_watch {
            self.push_answered(view, Response::Aborted);
        } else if operations.is_empty() && watched.is_empty() {
            self.push_answered(view, Response::List(Vec::new()));
        } else {
            self.push_answered(view, Response::Refused(Refusal::CrossShard));
        }
    }

    fn forget_watches(&mut self) {
        self.watched.clear();
        self.has_lost_watch = false;
    }

    fn begin(&mut self, task: Task) {
        self.task = Some(Box::new(task));
    }

    fn push_answered(&mut self, view: &View<'_>, response: Response) {
        self.parts.push_back(Part::answered(self.node, view.now.steady, response));
    }

    const fn next_number(&mut self) -> u64 {
        self.requested_to += 1;
        self.requested_to
    }

    const fn request_id(&self, number: u64) -> RequestId {
        RequestId { node: self.node, session: self.id, number }
    }

    /// Makes a part and hands it over.
    fn ask(
        &mut self,
        view: &View<'_>,
        aim: Aim,
        operation: &ShardOperation<'_>,
        requests: &mut dyn Requests,
    ) {
        let Aim { shard, kind, fold } = aim;
        let retry = self.retry.take().filter(|_| kind != Kind::Read);
        let kind = if retry.is_some() { Kind::Mixed } else { kind };
        if self.course.is_none() {
            self.course = Some(self.course_of(view, shard, kind));
        }
        if self.course == Some(Course::Reads) && self.parts.len() == 1 {
            self.applied_before.clone_from(view.applied);
        }
        let place = self.place_of(shard, kind);
        let chain = view.configuration.chain(self.node.datacenter, shard);
        let to = self.replica_of(chain, shard, place);
        // Behind another read it may have to be read again; at another node it may get lost, or be
        // refused before it was looked at.
        let is_kept = if kind == Kind::Read {
            self.course != Some(Course::Log) && (to != self.node || !self.parts.is_empty())
        } else {
            (to != self.node || retry.is_some()) && self.parts.is_empty()
        };
        let mut part = Part {
            number: 0,
            shard,
            to,
            kind,
            place,
            fold,
            state: State::Waiting,
            bytes: is_kept.then(|| encoded(operation)),
            made: view.now.steady,
            sent: view.now.steady,
            attempts: 0,
            silences: 0,
            silent: None,
            pauses: 0,
            gone_at: None,
            mark: self.past.mark(),
            stamp: None,
            retried: Retried::of(retry),
            is_parked: false,
            is_in_order: false,
        };
        self.hand_over(&mut part, operation, view, requests);
        self.parts.push_back(part);
    }

    /// Hands a part over to its replica, or the next one if there is no link.
    fn hand_over(
        &mut self,
        part: &mut Part,
        operation: &ShardOperation<'_>,
        view: &View<'_>,
        requests: &mut dyn Requests,
    ) {
        let chain = view.configuration.chain(self.node.datacenter, part.shard);
        loop {
            part.number = self.next_number();
            part.attempts = part.attempts.saturating_add(1);
            (part.sent, part.gone_at) = (view.now.steady, None);
            (part.is_parked, part.is_in_order) = (false, false);
            part.mark = self.past.mark();
            let id = self.request_id(part.number);
            let carried = self.past.carry(part.kind != Kind::Read, part.place, view.stable);
            let retry = part.retry(self.options.mutations);
            let request = LocalRequest { id, operation, carried, retry };
            match requests.request(part.to, part.shard, request) {
                Handover::Answered => {
                    part.state = State::UnderWay;
                    part.is_in_order = true;
                }
                Handover::UnderWay => {
                    part.state = State::UnderWay;
                    // It waits for the tail's word, and may be refused instead.
                    if part.kind == Kind::Read && self.course == Some(Course::Reads) {
                        part.bytes.get_or_insert_with(|| encoded(operation));
                    }
                }
                Handover::Parked => {
                    part.state = State::UnderWay;
                    self.note_parked(part, operation);
                }
                // A read may make the head log that a key has expired, which is no write of ours.
                Handover::Stamped(_) if part.kind == Kind::Read => part.state = State::UnderWay,
                Handover::Stamped(stamp) => {
                    part.state = State::UnderWay;
                    part.stamp = Some(stamp);
                    self.past.stamped(part.number, part.shard, stamp);
                }
                Handover::NoLink => {
                    if let Some(next) = next_replica(part, chain, view.now.steady) {
                        part.to = next;
                        continue;
                    }
                    let refusal = Refusal::Unreachable { shard: part.shard };
                    part.state = self.refused_at_once(view, part, refusal, operation);
                }
                Handover::Refused(refusal) => {
                    if let Some(next) = next_replica(part, chain, view.now.steady) {
                        part.to = next;
                        continue;
                    }
                    part.state = self.refused_at_once(view, part, refusal, operation);
                }
            }
            break;
        }
        if part.is_open() {
            self.tally.add(part);
            let due = self.due(part);
            self.wake = Some(self.wake.map_or(due, |wake| wake.min(due)));
        }
    }

    /// Sends a part again that waits at a place in the queue.
    fn send_again(&mut self, at: usize, view: &View<'_>, requests: &mut dyn Requests) {
        let node = self.node;
        let stand_in = Part::answered(node, view.now.steady, Response::Nil);
        let Some(place) = self.parts.get_mut(at) else { return };
        let mut part = std::mem::replace(place, stand_in);
        let bytes = part.bytes.take().expect("only parts that were kept are sent again");
        let operation =
            ShardOperation::read(&mut Reader::new(&bytes)).expect("this node wrote the bytes");
        self.hand_over(&mut part, &operation, view, requests);
        part.is_in_order = false;
        part.bytes = Some(bytes);
        self.parts[at] = part;
    }

    fn on_reply(
        &mut self,
        view: &View<'_>,
        id: RequestId,
        reply: Reply,
        requests: &mut dyn Requests,
        out: &mut Answers,
    ) {
        if (id.node, id.session) != (self.node, self.id) {
            return;
        }
        if self.waiting.is_some() {
            out.ready.extend(self.on_reply_while_waiting(view, id, reply, requests));
            return;
        }
        let Some(at) = self.open_part(id.number) else { return };
        if let Response::Refused(refusal) = reply.response
            && self.goes_on_after(view, at, refusal, requests)
        {
            return;
        }
        let part = &self.parts[at];
        self.past.answered(id.number, part.mark, &reply, view.stable);
        if part.retried.is_some() {
            self.past.repeated(id.number, &reply);
        }
        let is_in_order = part.is_in_order;
        if self.course == Some(Course::Reads) && at + 1 < self.parts.len() && !is_in_order {
            self.read_later_ones_again(at, &reply);
        }
        let mut response = reply.response;
        if let Response::Observed(sighting) = &mut response {
            // A key that had expired was hidden before this was answered: the hiding, which has
            // the visible-at of the answer, is part of what was found.
            *sighting = sighting.not_before(reply.visible_at);
        }
        self.answer(at, response);
    }

    /// The place of the open part that has this request number now.
    fn open_part(&self, number: u64) -> Option<usize> {
        let is_it = |part: &Part| part.number == number && part.state == State::UnderWay;
        let first = self.parts.front()?.number;
        let guess = number.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        guess
            .filter(|at| self.parts.get(*at).is_some_and(is_it))
            .or_else(|| self.parts.iter().position(is_it))
    }

    fn answer(&mut self, at: usize, response: Response) {
        let part = &mut self.parts[at];
        self.tally.remove(part);
        part.end_with(response);
    }

    /// Marks the reads behind one that may have been evaluated before what it returned became
    /// visible: they are sent again when they are the first.
    fn read_later_ones_again(&mut self, at: usize, reply: &Reply) {
        let was_visible_before = reply
            .observed
            .iter()
            .all(|version| self.applied_before.covers(version.origin, version.timestamp));
        let has_order = self.past.level != Consistency::Eventual
            && !self.options.mutations.has(Mutation::NoWaitInPipelines);
        if was_visible_before || !has_order {
            return;
        }
        for part in self.parts.iter_mut().skip(at + 1) {
            if part.state == State::Waiting || part.bytes.is_none() {
                continue;
            }
            if !part.is_open() {
                self.tally.add(part);
            }
            part.state = State::Waiting;
            part.number = 0;
        }
    }

    fn on_link_lost(&mut self, view: &View<'_>, node: NodeId, requests: &mut dyn Requests) {
        self.on_link_lost_while_waiting(node, view);
        let is_lost =
            |part: &Part| part.to == node && part.state == State::UnderWay && part.number != 0;
        self.give_up(view, requests, is_lost);
    }

    fn on_wake(&mut self, view: &View<'_>, requests: &mut dyn Requests, out: &mut Answers) {
        out.ready.extend(self.look_after_waiting(view, requests));
        let now = view.now.steady;
        self.try_held_again(view, requests);
        self.note_departures(view);
        let has_left = |part: &Part| {
            part.state == State::UnderWay && part.gone_at.is_some_and(|gone_at| gone_at <= now)
        };
        self.give_up(view, requests, has_left);
        if self.wake.is_none_or(|wake| now < wake) {
            return;
        }
        let timeout = self.options.request_timeout;
        let is_late = |part: &Part| part.is_open() && !part.is_held() && due(part, timeout) <= now;
        let is_told = |part: &&Part| part.number != 0 && after(part.made, timeout / 2) <= now;
        let late = self.parts.iter().filter(|part| is_late(part)).filter(is_told);
        out.overdue.extend(late.map(|part| part.overdue(now)));
        self.give_up(view, requests, is_late);
        let dues = self.parts.iter().filter(|part| part.is_open()).map(|part| self.due(part));
        self.wake = dues.min();
    }

    /// Ends what was lost or took too long: a write with an unknown outcome; a read is sent to
    /// another replica, and held once it was at each of them.
    fn give_up(
        &mut self,
        view: &View<'_>,
        requests: &mut dyn Requests,
        is_lost: impl Fn(&Part) -> bool,
    ) {
        let lost: Vec<usize> =
            (0..self.parts.len()).filter(|at| is_lost(&self.parts[*at])).collect();
        for at in &lost {
            if self.parts[*at].kind != Kind::Read {
                if self.holds_lost(view, *at) {
                    continue;
                }
                self.past.lost(self.parts[*at].number);
                self.answer(*at, Response::Refused(Refusal::UnknownOutcome));
            }
        }
        for at in lost {
            if self.parts[at].kind != Kind::Read {
                continue;
            }
            let part = &mut self.parts[at];
            part.note_silence(view.now.steady);
            let refusal = Refusal::Unreachable { shard: part.shard };
            if let Some(next) = self.next_for_read(view, &self.parts[at]) {
                self.move_read(at, next, view, requests);
            } else if !self.goes_on_after(view, at, refusal, requests) {
                self.answer(at, Response::Refused(refusal));
            }
        }
    }

    /// Sends a read to another replica; nothing before it is a write that could still take effect.
    fn move_read(&mut self, at: usize, to: NodeId, view: &View<'_>, requests: &mut dyn Requests) {
        self.tally.remove(&self.parts[at]);
        let part = &mut self.parts[at];
        part.to = to;
        part.place = Place::Anywhere;
        self.course = Some(Course::Reads);
        self.send_again(at, view, requests);
    }

    /// Lets answers leave in order, and sends what may be sent behind them.
    fn pump(&mut self, view: &View<'_>, requests: &mut dyn Requests, out: &mut Answers) {
        loop {
            self.let_answers_leave(view, requests, out);
            if !self.has_sent_next(view, requests) {
                break;
            }
        }
        if self.parts.is_empty() {
            self.course = None;
            self.wake = None;
        }
        if let Some(waiting) = self.waiting.as_deref() {
            self.wake = waiting.wake(self.options.request_timeout);
        }
    }

    fn let_answers_leave(
        &mut self,
        view: &View<'_>,
        requests: &mut dyn Requests,
        out: &mut Answers,
    ) {
        while let Some(first) = self.parts.front_mut() {
            match &mut first.state {
                State::UnderWay | State::Held(_) => return,
                State::Waiting => {
                    let part = self.parts.front().expect("it was there");
                    self.tally.remove(part);
                    self.send_again(0, view, requests);
                }
                State::Answered(response) => {
                    let response = std::mem::replace(response, Response::Nil);
                    let (fold, shard) = (first.fold, first.shard);
                    self.parts.pop_front();
                    match &mut self.task {
                        Some(task) => task.take(shard, response),
                        None => out.ready.push(fold.apply(response)),
                    }
                }
            }
        }
        self.course = None;
        if let Some(task) = self.task.take_if(|task| task.peek().is_none()) {
            let finished = task.finish();
            if let Some(watched) = finished.watched {
                self.has_lost_watch |= matches!(finished.response, Response::Refused(_));
                self.watched.extend(watched);
            }
            out.ready.push(finished.response);
        }
    }

    /// Sends the task's next request, if there is one that may be open beside the others.
    fn has_sent_next(&mut self, view: &View<'_>, requests: &mut dyn Requests) -> bool {
        if PARALLEL_MAX <= self.parts.len() {
            return false;
        }
        let Some((shard, kind)) = self.task.as_ref().and_then(|task| task.peek()) else {
            return false;
        };
        if !self.flows(view, shard, kind) {
            return false;
        }
        let Some(next) = self.task.as_mut().and_then(|task| task.next()) else { return false };
        let operation =
            ShardOperation::read(&mut Reader::new(&next.bytes)).expect("this node wrote the bytes");
        self.ask(
            view,
            Aim { shard: next.shard, kind: next.kind, fold: Fold::Task },
            &operation,
            requests,
        );
        true
    }

    fn due(&self, part: &Part) -> Steady {
        due(part, self.options.request_timeout)
    }

    /// Fails if the session's own books do not agree.
    pub fn check_invariants(&self) {
        let mut tally = Tally::default();
        self.parts.iter().filter(|part| part.is_open()).for_each(|part| tally.add(part));
        assert_eq!(tally.reads, self.tally.reads, "open reads are counted");
        assert_eq!(tally.dirty_reads, self.tally.dirty_reads, "open dirty reads are counted");
        assert_eq!(tally.writes, self.tally.writes, "open writes are counted");
        assert_eq!(tally.parked, self.tally.parked, "open parked parts are counted");
        let unnamed = |tally: &Tally| tally.unnamed.map(|(_, count)| count);
        assert_eq!(unnamed(&tally), unnamed(&self.tally), "open writes without a name are counted");
        assert!(self.parts.front().is_none_or(Part::is_open), "answers leave at once");
        assert_eq!(self.parts.is_empty(), self.course.is_none(), "a course is of open parts");
        assert!(self.waiting.is_none() || self.parts.is_empty(), "nothing is open behind a wait");
        assert!(self.waiting.is_none() || self.task.is_none(), "one command has it for itself");
        let is_reads = self.course != Some(Course::Reads);
        let all_read = self.parts.iter().all(|part| part.kind == Kind::Read || !part.is_open());
        let is_mutated = self.options.mutations.has(Mutation::NoWaitInPipelines);
        assert!(is_reads || all_read || is_mutated, "reads are not mixed with writes");
    }
}

/// The next replica to ask instead of one without a link, or one on this node that refuses.
fn next_replica(part: &Part, chain: &[NodeId], now: Steady) -> Option<NodeId> {
    let may_move = part.kind == Kind::Read
        && part.place == Place::Anywhere
        && usize::from(part.attempts) < chain.len();
    let next = part.going_round(chain, replica_after(chain, part.to)?, now);
    (may_move && next != part.to).then_some(next)
}

/// When an open part has taken too long where it is, or is handed over again.
///
/// A read that a replica is silent about goes on to the next one soon, and later each time: the
/// node may be cut off, which its link shows only after seconds.
fn due(part: &Part, timeout: Duration) -> Steady {
    if let State::Held(held) = &part.state {
        return held.again_at;
    }
    let end = after(part.made, timeout);
    let may_move = part.place == Place::Anywhere && part.bytes.is_some();
    let patience = SILENCE_MIN.min(timeout / 4) * (1 << part.silences.min(8));
    let soon = after(part.sent, patience);
    let due = if may_move && soon < after(part.made, timeout / 2) { soon } else { end };
    part.gone_at.map_or(due, |gone_at| due.min(gone_at))
}
