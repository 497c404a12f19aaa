//! Runs the requests of one client: from its bytes to its replies, without waiting for anything.
//!
//! Requests are parsed in batches and their keys prefetched, then each is run in order. A command
//! that the session cannot take yet waits in the backlog with all that follow it, until answers
//! have come. What shards of this node answer at once is told to the session at once.
//!
//! Ensures: commands reach the session in the order in which they arrived.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use antecede_model::{
    clock::Steady,
    codec::Writer,
    configuration::Configuration,
    ids::{NodeId, RequestId, SessionId, ShardId},
    response::Response,
    token::SessionToken,
};
use antecede_protocol::{
    chain::Cuts,
    message::{Body, LocalRequest, Message, Reply, Request, ShardMessage},
    session::{Answers, Handover, Requests, Session, SessionInput, View, command::Command},
};
use smallvec::SmallVec;

use super::backlog::{Backlog, OwnedArguments, Waiting};
use crate::info::Surroundings;
use crate::node::{Node, Work, current::Copied, mailbox::Mail};
use crate::resp::{
    commands::{self, Parsed},
    connection::{Connection, Outcome, RESET_COMMANDS, queue::Queue},
    frame::{Arguments, FrameError, FrameParser, Limits},
    replies::Replies,
    shape::Shape,
};

/// Requests that are parsed before the first of them is run.
const BATCH_MAX: usize = 64;
/// Bytes of a command's name by which it is counted.
const NAME_BYTES: usize = 16;
/// Names that a connection remembers.
const NAMES_MAX: usize = 16;
/// Bytes of replies that wait for a client that has not authenticated: thousands of strangers that
/// never read must not fill the memory.
const STRANGER_OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// How long `CAUSAL.AFTER` waits if the client does not say.
const AFTER_TIMEOUT_MILLIS: u64 = 1_000;

/// What running the requests has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything that is here was run.
    Done,
    /// There is more to run, but others shall have their turn.
    More,
    /// What is left waits for answers.
    Stalled,
    /// The connection ends when its replies have left.
    Closing,
}

/// One client's requests and replies, without its socket.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) node: Arc<Node>,
    pub(crate) connection: Connection,
    pub(crate) session: Session,
    pub(crate) replies: Replies,
    pub(crate) work: Work,
    pub(crate) input: Vec<u8>,
    pub(crate) wake_at: Option<Steady>,
    /// Commands of this turn.
    counts: Counts,
    /// Bytes of replies that were taken from `replies` and are not written yet.
    pub(crate) unwritten_bytes: usize,
    /// What the connection says of itself may have changed.
    pub(crate) may_have_changed: bool,
    /// Somebody wants the connection to end.
    pub(crate) is_killed: bool,
    /// Whether a write was evaluated in this turn, or answered.
    pub(crate) has_written: bool,
    id: SessionId,
    parser: FrameParser,
    backlog: Backlog,
    answers: Answers,
    cuts: Arc<Cuts>,
    /// The configuration as of the beginning of the turn.
    current: Copied,
    own: Vec<(RequestId, Reply)>,
    /// The bytes could not be understood; said once everything before is run.
    broken: Option<FrameError>,
    is_closing: bool,
}

/// Hands a session's requests to replicas here and on other nodes.
struct Handing<'a> {
    node: &'a Node,
    configuration: &'a Configuration,
    work: &'a mut Work,
}

impl Requests for Handing<'_> {
    fn request(&mut self, to: NodeId, shard: ShardId, request: LocalRequest<'_>) -> Handover {
        if to == self.node.id {
            return self.node.request(shard, request, self.work);
        }
        let mut operation = Vec::new();
        request.operation.write(&mut Writer::new(&mut operation));
        let carried = request.carried.clone();
        let retry = request.retry.cloned();
        let body = Body::Request(Request { id: request.id, operation, carried, retry });
        let epoch = self.configuration.chain_epoch(self.node.id.datacenter, shard);
        let hlc = request.carried.time;
        let message = Message::Shard(ShardMessage { shard, epoch, hlc, body });
        let link = self.node.links.to(to);
        // Without a way back an answer would be lost, and the outcome unknown.
        if link.is_some_and(|link| link.is_heard() && link.push(&message)) {
            Handover::UnderWay
        } else {
            Handover::NoLink
        }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        if to == self.node.id {
            self.work.loop_back(message);
        } else {
            self.node.links.push(to, &message);
        }
    }
}

impl Conversation {
    pub(crate) fn new(
        node: Arc<Node>,
        connection: Connection,
        session: Session,
        id: SessionId,
    ) -> Self {
        let cuts = node.cuts();
        let current = node.current.copied();
        Self {
            node,
            connection,
            session,
            replies: Replies::default(),
            work: Work::begin(),
            input: Vec::new(),
            wake_at: None,
            counts: Counts::default(),
            unwritten_bytes: 0,
            may_have_changed: false,
            is_killed: false,
            has_written: false,
            id,
            parser: FrameParser::default(),
            backlog: Backlog::default(),
            answers: Answers::default(),
            cuts,
            current,
            own: Vec::new(),
            broken: None,
            is_closing: false,
        }
    }

    /// Begins a turn: reads the clocks, the cuts and the configuration.
    pub(crate) fn begin(&mut self) {
        self.refresh();
        self.cuts = self.node.cuts();
    }

    /// Reads the clocks again, and whether there is another configuration: before anything that
    /// has arrived since is acted on, so that no lease is looked at with an older time (a process
    /// may have been stopped in between).
    pub(crate) fn refresh(&mut self) {
        self.work.restart();
        self.node.current.refresh(&mut self.current);
    }

    /// Whether the client must read before more is run for it.
    pub(crate) fn is_output_full(&self) -> bool {
        let held = self.unwritten_bytes + self.replies.bytes_held();
        let limit = self.node.config.limits.output_bytes_max;
        let is_known = self.connection.is_authenticated();
        (if is_known { limit } else { limit.min(STRANGER_OUTPUT_BYTES_MAX) }) < held
    }

    /// Whether answers of shards are missing.
    pub(crate) fn is_waiting(&self) -> bool {
        0 < self.replies.missing_count() || !self.backlog.is_empty()
    }

    /// Whether requests wait that were read already.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Tells the session what has arrived in its mailbox; whether anything has.
    pub(crate) fn on_mail(&mut self, mail: &mut Mail) -> bool {
        let has_news = !mail.replies.is_empty() || !mail.lost.is_empty() || mail.is_poked;
        for (request, reply) in mail.replies.drain(..) {
            self.has_written |= reply.wrote.is_some();
            self.tell(SessionInput::Reply(request, reply));
        }
        for node in mail.lost.drain(..) {
            self.tell(SessionInput::LinkLost(node));
        }
        if std::mem::take(&mut mail.is_poked) {
            self.tell(SessionInput::Wake);
        }
        self.is_killed |= std::mem::take(&mut mail.is_killed);
        has_news
    }

    /// Wakes the session if it asked for that.
    pub(crate) fn wake_if_due(&mut self) {
        if self.wake_at.is_some_and(|at| at <= self.work.now().steady) {
            self.wake_at = None;
            self.tell(SessionInput::Wake);
        }
    }

    /// Runs what waits and what has arrived.
    pub(crate) fn run(&mut self) -> Progress {
        if self.is_closing {
            return Progress::Closing;
        }
        if let Some(progress) = self.run_backlog() {
            return progress;
        }
        let mut input = std::mem::take(&mut self.input);
        let progress = self.run_input(&mut input);
        self.input = input;
        progress
    }

    /// Runs what waits; `None` when nothing is left and the connection goes on.
    fn run_backlog(&mut self) -> Option<Progress> {
        while !self.backlog.is_empty() {
            if self.is_output_full() {
                return Some(Progress::More);
            }
            let Some(waiting) = self.backlog.pop_front() else { break };
            if let Err(waiting) = self.run_waiting(waiting) {
                self.backlog.push_front(waiting);
                return Some(Progress::Stalled);
            }
            if self.is_closing {
                return Some(Progress::Closing);
            }
        }
        if let Some(error) = self.broken.take() {
            self.connection.on_frame_error(error, &mut self.replies);
            self.is_closing = true;
        }
        self.is_closing.then_some(Progress::Closing)
    }

    fn run_input(&mut self, input: &mut Vec<u8>) -> Progress {
        let mut left = self.node.config.limits.pipeline_max;
        let mut taken = 0;
        let progress = loop {
            let mut rest = input.get_mut(taken..).unwrap_or_default();
            let before = rest.len();
            let mut batch: SmallVec<[Arguments<'_>; 1]> = SmallVec::new();
            // Before authentication limits are narrow, and the next request may lift them.
            let is_known = self.connection.is_authenticated();
            let most = if is_known { BATCH_MAX.min(left) } else { 1 };
            let limits = self.connection.limits();
            self.broken = parse(&mut self.parser, &mut rest, &mut batch, limits, most).err();
            taken += before - rest.len();
            left -= batch.len();
            if 1 < batch.len() {
                self.prefetch(&batch);
            }
            self.run_batch(&batch);
            if let Some(progress) = self.run_backlog() {
                break progress;
            }
            if batch.len() < most {
                break Progress::Done;
            }
            if left == 0 {
                break Progress::More;
            }
        };
        input.drain(..taken);
        progress
    }

    fn run_batch(&mut self, batch: &[Arguments<'_>]) {
        for arguments in batch {
            if self.is_closing {
                return; // What comes behind a QUIT is not looked at.
            }
            self.counts.add(arguments);
            if !self.backlog.is_empty() || self.is_output_full() {
                let arguments = OwnedArguments::of(arguments);
                self.backlog.push_back(Waiting::Request { arguments, is_taken: false });
            } else if let Some(waiting) = self.run_request(arguments) {
                self.backlog.push_back(waiting);
            }
        }
    }

    /// Loads what the keys of a batch will need, so that they are loaded side by side: first the
    /// places in the index, then what they point to.
    fn prefetch(&self, batch: &[Arguments<'_>]) {
        let count = self.current.configuration.shard_count;
        let keys: SmallVec<[(ShardId, &[u8]); BATCH_MAX]> = batch
            .iter()
            .filter_map(|arguments| arguments.get(1).map(|key| (count.shard_of(key), *key)))
            .collect();
        for (shard, key) in &keys {
            self.node.look(*shard, |replica| replica.prefetch(key));
        }
        for (shard, key) in &keys {
            self.node.look(*shard, |replica| replica.prefetch_record(key));
        }
    }

    fn wall_millis(&self) -> u64 {
        self.work.now().wall.millis()
    }

    /// Runs a request that was just read; what must wait comes back.
    fn run_request(&mut self, arguments: &[&[u8]]) -> Option<Waiting> {
        let wall_millis = self.wall_millis();
        let mut surroundings = Surroundings { node: &self.node, caller: self.connection.id() };
        let replies = &mut self.replies;
        match self.connection.handle(arguments, wall_millis, &mut surroundings, replies) {
            Outcome::Answered => {
                self.may_have_changed = true;
                None
            }
            Outcome::Ask(command) => {
                if self.ask(&command) {
                    return None;
                }
                let arguments = OwnedArguments::of(arguments);
                Some(Waiting::Request { arguments, is_taken: true })
            }
            Outcome::Execute(queue) => self.execute(queue, false),
            Outcome::After { token, timeout_millis } => self.after(token, timeout_millis),
            Outcome::Reset => {
                // Before everything that waits behind it.
                for command in RESET_COMMANDS.into_iter().rev() {
                    self.backlog.push_front(Waiting::Command(command));
                }
                None
            }
            Outcome::Close => {
                self.is_closing = true;
                None
            }
        }
    }

    /// Runs what had to wait; gives it back if it still has to.
    fn run_waiting(&mut self, waiting: Waiting) -> Result<(), Waiting> {
        match waiting {
            Waiting::Request { arguments, is_taken: false } => {
                match self.run_request(&arguments.as_arguments()) {
                    None => Ok(()),
                    Some(waiting) => Err(waiting),
                }
            }
            Waiting::Request { arguments, is_taken: true } => {
                let is_asked = match commands::parse(&arguments.as_arguments(), self.wall_millis())
                {
                    Ok(Parsed::Session(Command::RandomKey { .. }, _)) => {
                        self.ask(&Command::RandomKey { draw: crate::node::open::draw() })
                    }
                    Ok(Parsed::Session(command, _)) => self.ask(&command),
                    Ok(Parsed::Connection(commands::ConnectionCommand::Watch { keys })) => {
                        self.ask(&Command::Watch { keys })
                    }
                    // The rest of what the connection passes on is `DISCARD` and its like.
                    Ok(Parsed::Connection(_)) | Err(_) => self.ask(&Command::Unwatch),
                };
                if is_asked { Ok(()) } else { Err(Waiting::Request { arguments, is_taken: true }) }
            }
            Waiting::Command(command) => {
                if self.ask(&command) {
                    Ok(())
                } else {
                    Err(Waiting::Command(command))
                }
            }
            Waiting::Execute(queue) => self.execute(queue, true).map_or(Ok(()), Err),
        }
    }

    /// Runs the queue of an `EXEC`; it comes back if it must wait.
    fn execute(&mut self, queue: Queue, is_taken: bool) -> Option<Waiting> {
        let wall_millis = self.wall_millis();
        let mut surroundings = Surroundings { node: &self.node, caller: self.connection.id() };
        // The reply has its place already when this is tried again.
        let mut unused = Replies::default();
        let replies = if is_taken { &mut unused } else { &mut self.replies };
        let is_asked = self
            .connection
            .execute(&queue, wall_millis, &mut surroundings, replies)
            .is_none_or(|command| {
                let known = Known { cuts: &self.cuts, configuration: &self.current.configuration };
                ask(
                    &mut self.session,
                    &mut self.answers,
                    known,
                    &self.node,
                    &mut self.work,
                    &command,
                )
            });
        if !is_asked {
            return Some(Waiting::Execute(queue));
        }
        self.absorb();
        None
    }

    fn after(&mut self, token: &[u8], timeout_millis: Option<u64>) -> Option<Waiting> {
        let decoded = std::str::from_utf8(token).ok().map(|text| {
            let configuration = &self.current.configuration;
            SessionToken::decode(text, configuration.deployment, configuration.membership.epoch)
        });
        match decoded {
            Some(Ok(context)) => {
                self.connection.expect(Shape::Plain, &mut self.replies);
                let timeout_millis = timeout_millis.unwrap_or(AFTER_TIMEOUT_MILLIS);
                let command = Command::After { context: Box::new(context), timeout_millis };
                if self.ask(&command) { None } else { Some(Waiting::Command(command)) }
            }
            Some(Err(error)) => {
                let line = format!("BADTOKEN {error}");
                self.connection.refuse(line.as_bytes(), &mut self.replies);
                None
            }
            None => {
                let line = b"BADTOKEN the token is not text; send it as CAUSAL.TOKEN gave it";
                self.connection.refuse(line, &mut self.replies);
                None
            }
        }
    }

    /// Gives a command to the session, if it can take it.
    fn ask(&mut self, command: &Command<'_>) -> bool {
        let Self { session, answers, cuts, current, node, work, .. } = self;
        let known = Known { cuts, configuration: &current.configuration };
        if !ask(session, answers, known, node, work, command) {
            return false;
        }
        self.absorb();
        true
    }

    fn tell(&mut self, input: SessionInput<'_>) {
        let Self { session, answers, cuts, current, node, work, .. } = self;
        let known = Known { cuts, configuration: &current.configuration };
        hand(session, answers, known, node, work, input);
        self.absorb();
    }

    /// Takes what the session has answered, and tells it what shards here have answered.
    fn absorb(&mut self) {
        loop {
            self.wake_at = self.answers.wake;
            for overdue in self.answers.overdue.drain(..) {
                self.node.telemetry.overdue(&self.node, &overdue);
            }
            for response in self.answers.ready.drain(..) {
                if let Response::Refused(refusal) = &response {
                    self.node.telemetry.refused(refusal);
                }
                self.replies.on_response(&response);
            }
            let id = self.id;
            let replies = self.work.replies();
            if replies.is_empty() {
                return;
            }
            if let [(request, _)] = replies.as_slice()
                && request.session == id
                && let Some((request, reply)) = replies.pop()
            {
                let Self { session, answers, cuts, current, node, work, .. } = self;
                let known = Known { cuts, configuration: &current.configuration };
                hand(session, answers, known, node, work, SessionInput::Reply(request, reply));
                continue;
            }
            let mine = |(request, _): &mut (RequestId, Reply)| request.session == id;
            self.own.extend(replies.extract_if(.., mine));
            let mut own = std::mem::take(&mut self.own);
            if own.is_empty() {
                return;
            }
            let Self { session, answers, cuts, current, node, work, .. } = self;
            let known = Known { cuts, configuration: &current.configuration };
            for (request, reply) in own.drain(..) {
                hand(session, answers, known, node, work, SessionInput::Reply(request, reply));
            }
            self.own = own;
        }
    }

    /// Adds the commands of this turn to the node's counts; how many there were.
    pub(crate) fn tell_counts(&mut self) -> u64 {
        let total = self.counts.of_turn.iter().map(|(_, _, count)| count).sum();
        if total == 0 {
            return 0;
        }
        self.node.registry.commands.fetch_add(total, Ordering::Relaxed);
        let counts = self.counts.of_turn.iter_mut();
        let taken = counts.map(|(_, name, count)| (*name, std::mem::take(count)));
        self.node.telemetry.commands(taken.filter(|(_, count)| 0 < *count));
        total
    }

    /// How many more bytes the request that is being read needs at least.
    pub(crate) fn missing_bytes(&self) -> usize {
        self.parser.missing(self.input.len())
    }
}

/// Counts commands by name, without a search in the table of commands for each.
#[derive(Debug, Default)]
struct Counts {
    /// The first bytes of the name as it was sent, the command, and how often.
    of_turn: SmallVec<[([u8; NAME_BYTES], &'static str, u64); 4]>,
}

impl Counts {
    fn add(&mut self, arguments: &[&[u8]]) {
        let name = arguments.first().copied().unwrap_or_default();
        let mut sent = [0; NAME_BYTES];
        for (place, byte) in sent.iter_mut().zip(name) {
            *place = *byte;
        }
        if let Some((_, _, count)) = self.of_turn.iter_mut().find(|(found, _, _)| *found == sent) {
            *count += 1;
            return;
        }
        let is_cut = NAME_BYTES <= name.len();
        let command = match commands::find(arguments) {
            Ok(row) if !is_cut => row.name.split('|').next().unwrap_or(row.name),
            Ok(_) | Err(_) => "other",
        };
        if NAMES_MAX <= self.of_turn.len() || command == "other" {
            // Not remembered: it may be a command after all, with other arguments.
            sent = [0; NAME_BYTES];
        }
        self.of_turn.retain(|(found, _, count)| 0 < *count || *found != [0; NAME_BYTES]);
        self.of_turn.push((sent, command, 1));
    }
}

/// Parses requests until none is whole or the batch holds `most`.
fn parse<'b>(
    parser: &mut FrameParser,
    rest: &mut &'b mut [u8],
    batch: &mut SmallVec<[Arguments<'b>; 1]>,
    limits: &Limits,
    most: usize,
) -> Result<(), FrameError> {
    while batch.len() < most {
        let mut arguments = Arguments::new();
        if !parser.next(rest, limits, &mut arguments)? {
            break;
        }
        batch.push(arguments);
    }
    Ok(())
}

/// What a turn knows of the deployment.
#[derive(Clone, Copy)]
struct Known<'a> {
    cuts: &'a Cuts,
    configuration: &'a Configuration,
}

impl<'a> Known<'a> {
    fn view(self, node: &Node, work: &Work) -> View<'a> {
        View {
            now: work.now(),
            configuration: self.configuration,
            stable: &self.cuts.stable,
            lease_until: node.lease(),
            applied: &self.cuts.applied,
            applied_at: self.cuts.hlc,
        }
    }
}

fn ask(
    session: &mut Session,
    answers: &mut Answers,
    known: Known<'_>,
    node: &Node,
    work: &mut Work,
    command: &Command<'_>,
) -> bool {
    if !session.can_take(&known.view(node, work), command) {
        return false;
    }
    hand(session, answers, known, node, work, SessionInput::Command(command));
    true
}

fn hand(
    session: &mut Session,
    answers: &mut Answers,
    known: Known<'_>,
    node: &Node,
    work: &mut Work,
    input: SessionInput<'_>,
) {
    let view = known.view(node, work);
    let mut handing = Handing { node, configuration: known.configuration, work };
    session.handle(&view, input, &mut handing, answers);
}
