//! Decides what one connection may ask now, and answers what does not concern keys.
//!
//! A connection agrees with its client on the protocol's version, authenticates it, names it,
//! queues what comes after `MULTI`, and switches replies off and on. What concerns keys it turns
//! into commands for the session and leaves behind, in `Replies`, how the answers are written.
//!
//! Assumes: requests come in order and whole (`frame`); the session is given every
//! `Outcome::Ask` in order, and answers each once.
//! Ensures: nothing but `AUTH`, `HELLO`, `QUIT` and `RESET` is served before authentication.
//! Invariant: requests are queued only between `MULTI` and `EXEC`, `DISCARD` or `RESET`.

/// The password, and its comparison.
pub mod password;
/// What is queued after `MULTI`.
pub mod queue;

/// Commands that the connection answers itself.
mod answers;

use std::sync::Arc;

use antecede_model::{consistency::Consistency, response::Response, retry::WrittenId};
use antecede_protocol::session::command::Command;

use self::{password::Password, queue::Queue};
use super::{
    commands::{
        self, ConnectionCommand, Parsed, ReplyMode,
        error::CommandError,
        row::{Flags, Row},
    },
    environment::{ClientState, Environment},
    frame::{FrameError, Limits, is_other_protocol},
    replies::{Expected, Replies},
    reply::{Protocol, Reply},
    shape::{Part, Shape, write_to},
};

const NO_AUTHENTICATION: &str = "NOAUTH Authentication required.";
const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";
const ABORTED_REPLY: &str = "-EXECABORT Transaction discarded because of previous errors.";

/// What a connection is told when it is opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The password; `None` lets everybody in.
    pub password: Option<Password>,
    /// How large requests may be.
    pub limits: Limits,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Nothing more: it was answered, or queued.
    Answered,
    /// The session is asked; its answer goes to [`Replies::on_response`].
    Ask(Command<'a>),
    /// `EXEC`: [`Connection::execute`] makes a command of the queue.
    Execute(Queue),
    /// `CAUSAL.AFTER`: the token is decoded, then either the session is asked
    /// (after [`Connection::expect`]) or [`Connection::refuse`] says why not.
    After {
        /// The token as the client wrote it.
        token: &'a [u8],
        /// How long to wait, if the client said so.
        timeout_millis: Option<u64>,
    },
    /// `RESET`: the session is given [`RESET_COMMANDS`], and nothing of it stays.
    Reset,
    /// The connection is closed when its replies have left.
    Close,
}

/// What a session is given when its connection is reset, each to be answered.
pub const RESET_COMMANDS: [Command<'static>; 3] =
    [Command::Unwatch, Command::Level(Some(Consistency::Linearizable)), Command::Reset];

/// What one connection has agreed on with its client.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    settings: Arc<Settings>,
    limits: Limits,
    is_authenticated: bool,
    protocol: Protocol,
    name: String,
    library_name: String,
    library_version: String,
    last_command: &'static str,
    reply_mode: ReplyMode,
    transaction: Option<Transaction>,
    watched_count: usize,
}

/// What has happened since `MULTI`.
#[derive(Debug, Default)]
struct Transaction {
    queue: Queue,
    /// Whether a request was refused, so that `EXEC` must fail.
    is_broken: bool,
}

impl Connection {
    /// A new connection. Its number is its own on this node for ever.
    #[must_use]
    pub fn new(id: u64, settings: Arc<Settings>) -> Self {
        let is_authenticated = settings.password.is_none();
        let limits = Limits { is_unauthenticated: !is_authenticated, ..settings.limits };
        Self {
            id,
            settings,
            limits,
            is_authenticated,
            protocol: Protocol::default(),
            name: String::new(),
            library_name: String::new(),
            library_version: String::new(),
            last_command: "NULL",
            reply_mode: ReplyMode::On,
            transaction: None,
            watched_count: 0,
        }
    }

    /// Its number on this node.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The version of the protocol that is spoken now.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether its client may do more than authenticate itself.
    #[must_use]
    pub const fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// How large its requests may be now; narrower before authentication.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What it says of itself to others.
    #[must_use]
    pub fn state(&self) -> ClientState {
        ClientState {
            name: self.name.clone(),
            library_name: self.library_name.clone(),
            library_version: self.library_version.clone(),
            protocol: self.protocol,
            queued_count: self.transaction.as_ref().map(|transaction| transaction.queue.count()),
            watched_count: self.watched_count,
            last_command: self.last_command,
        }
    }

    /// Takes a request: its arguments, the name first, and the wall clock.
    ///
    /// Replies that are known go to `replies`, and so does what an answer of the session will
    /// look like.
    #[inline]
    pub fn handle<'a>(
        &mut self,
        arguments: &[&'a [u8]],
        wall_millis: u64,
        environment: &mut dyn Environment,
        replies: &mut Replies,
    ) -> Outcome<'a> {
        let row = match commands::find(arguments) {
            Ok(row) => row,
            Err(error) => return self.on_unknown(arguments, &error, replies),
        };
        self.last_command = row.name;
        if !self.is_authenticated && !row.flags.has(Flags::NO_AUTH) {
            self.break_transaction();
            return self.refuse(NO_AUTHENTICATION.as_bytes(), replies);
        }
        if self.transaction.is_some() && is_queued(row) && !is_exec_with_id(row, arguments) {
            return self.enqueue(row, arguments, replies);
        }
        match commands::parse_row(row, arguments, wall_millis) {
            Ok(Parsed::Session(command, shape)) => {
                self.expect(shape, replies);
                Outcome::Ask(drawn(command, environment))
            }
            Ok(Parsed::Connection(command)) => self.on_own(command, environment, replies),
            Err(error) => self.refuse(&error.line(), replies),
        }
    }

    /// Makes one command of a queue, and leaves its shape behind; `None` if it was answered.
    ///
    /// A transaction without operations still reaches the session when keys were watched: it may
    /// have to fail, and the session forgets them.
    pub fn execute<'q>(
        &mut self,
        queue: &'q Queue,
        wall_millis: u64,
        environment: &mut dyn Environment,
        replies: &mut Replies,
    ) -> Option<Command<'q>> {
        let mut operations = Vec::with_capacity(queue.count());
        let mut parts = Vec::with_capacity(queue.count());
        for request in queue.requests() {
            let parsed = commands::parse(&request, wall_millis);
            parts.push(match parsed {
                Ok(Parsed::Session(Command::One(operation), shape)) => {
                    operations.push(operation);
                    Part::One(shape)
                }
                Ok(Parsed::Session(Command::Several { operations: several, gather }, _)) => {
                    let count = several.len();
                    operations.extend(several);
                    Part::Several { count, gather }
                }
                Ok(Parsed::Session(_, _)) => Part::Written(self.written(|_, reply| {
                    reply.error(b"ERR this command is not available inside MULTI");
                })),
                Ok(Parsed::Connection(command)) => Part::Written(self.written(|own, reply| {
                    own.answer(&command, environment, reply);
                })),
                Err(error) => Part::Written(self.written(|_, reply| error.write(reply))),
            });
        }
        let shape = Shape::Transaction(parts);
        if operations.is_empty() && !queue.has_watched_keys {
            self.reply(replies, |_, reply| {
                write_to(&Response::List(Vec::new()), &shape, reply);
            });
            return None;
        }
        self.expect(shape, replies);
        let transaction = Command::Transaction { operations };
        Some(match queue.id() {
            None => transaction,
            Some(id) => {
                let words = queue.words();
                Command::Retried { id, words, command: Box::new(transaction) }
            }
        })
    }

    /// Leaves behind how the session's next answer is written.
    #[inline]
    pub fn expect(&mut self, shape: Shape, replies: &mut Replies) {
        let is_silent = self.is_silent();
        replies.expect(Expected { shape, protocol: self.protocol, is_silent });
    }

    /// Answers with an error, its code first.
    pub fn refuse<'a>(&mut self, line: &[u8], replies: &mut Replies) -> Outcome<'a> {
        self.reply(replies, |_, reply| reply.error(line));
        Outcome::Answered
    }

    /// Says what is wrong with the connection's bytes; it must be closed after that.
    pub fn on_frame_error(&mut self, error: FrameError, replies: &mut Replies) {
        if !error.is_silent() {
            replies.answer(self.protocol, |reply| reply.error(format!("ERR {error}").as_bytes()));
        }
    }

    fn on_unknown<'a>(
        &mut self,
        arguments: &[&'a [u8]],
        error: &CommandError,
        replies: &mut Replies,
    ) -> Outcome<'a> {
        let name = arguments.first().copied().unwrap_or_default();
        if is_other_protocol(name) {
            return Outcome::Close;
        }
        if name.eq_ignore_ascii_case(b"exec") {
            let before = b"EXECABORT Transaction discarded because of: ".as_slice();
            let line = error.line();
            let reason = line.strip_prefix(b"ERR ").unwrap_or(&line);
            return self.end_transaction_with(&[before, reason].concat(), replies);
        }
        self.break_transaction();
        self.refuse(&error.line(), replies)
    }

    fn break_transaction(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.is_broken = true;
        }
    }

    fn enqueue<'a>(
        &mut self,
        row: &'static Row,
        arguments: &[&'a [u8]],
        replies: &mut Replies,
    ) -> Outcome<'a> {
        if let Some(reason) = reason_not_to_queue(row) {
            self.break_transaction();
            let name = row.name.to_ascii_uppercase().replace('|', " ");
            let line = format!("ERR {name} is not available inside MULTI: {reason}");
            return self.refuse(line.as_bytes(), replies);
        }
        let is_broken = self.transaction.as_ref().is_some_and(|transaction| transaction.is_broken);
        let has_room =
            is_broken || self.transaction.as_mut().is_some_and(|own| own.queue.push(arguments));
        if !has_room {
            self.break_transaction();
            return self.refuse(b"ERR the transaction is too large; cut it into parts", replies);
        }
        self.reply(replies, |_, reply| reply.status("QUEUED"));
        Outcome::Answered
    }

    fn on_own<'a>(
        &mut self,
        command: ConnectionCommand<'a>,
        environment: &mut dyn Environment,
        replies: &mut Replies,
    ) -> Outcome<'a> {
        match command {
            ConnectionCommand::Multi => self.on_multi(replies),
            ConnectionCommand::Exec(id) => self.on_exec(id, replies),
            ConnectionCommand::Discard => self.on_discard(replies),
            ConnectionCommand::Watch { keys } => self.on_watch(keys, replies),
            ConnectionCommand::Unwatch => self.unwatch(Shape::Plain, replies),
            ConnectionCommand::After { token, timeout_millis } => {
                Outcome::After { token, timeout_millis }
            }
            ConnectionCommand::Reset => self.on_reset(replies),
            ConnectionCommand::Quit => {
                self.reply(replies, |_, reply| reply.ok());
                Outcome::Close
            }
            ConnectionCommand::Client(commands::ClientCommand::Reply(mode)) => {
                self.on_reply_mode(mode, replies)
            }
            command @ (ConnectionCommand::Ping(_)
            | ConnectionCommand::Echo(_)
            | ConnectionCommand::Time
            | ConnectionCommand::Hello(_)
            | ConnectionCommand::Auth { .. }
            | ConnectionCommand::Client(_)
            | ConnectionCommand::Describe(_)
            | ConnectionCommand::Info { .. }
            | ConnectionCommand::ConfigGet { .. }
            | ConnectionCommand::ConfigSet { .. }
            | ConnectionCommand::ConfigResetStatistics
            | ConnectionCommand::ClusterInfo
            | ConnectionCommand::ClusterMyId
            | ConnectionCommand::AclList
            | ConnectionCommand::Fixed(_)
            | ConnectionCommand::Help(_)) => {
                let mut is_closed = false;
                self.reply(replies, |own, reply| {
                    is_closed = own.answer(&command, environment, reply);
                });
                if is_closed { Outcome::Close } else { Outcome::Answered }
            }
        }
    }

    fn on_multi<'a>(&mut self, replies: &mut Replies) -> Outcome<'a> {
        if self.transaction.is_some() {
            return self.refuse(b"ERR MULTI calls can not be nested", replies);
        }
        self.transaction = Some(Transaction::default());
        self.reply(replies, |_, reply| reply.ok());
        Outcome::Answered
    }

    fn on_exec<'a>(&mut self, id: Option<WrittenId<'_>>, replies: &mut Replies) -> Outcome<'a> {
        match self.transaction.take() {
            None => self.refuse(b"ERR EXEC without MULTI", replies),
            Some(transaction) if transaction.is_broken => {
                if self.watched_count == 0 {
                    return self.refuse(ABORTED.as_bytes(), replies);
                }
                self.unwatch(Shape::Instead(ABORTED_REPLY), replies)
            }
            Some(mut transaction) => {
                transaction.queue.has_watched_keys = 0 < self.watched_count;
                let id = id.map(|id| (id.datacenter.into(), id.with_words(0)));
                transaction.queue.id = id.map(Box::new);
                self.watched_count = 0;
                Outcome::Execute(transaction.queue)
            }
        }
    }

    fn on_discard<'a>(&mut self, replies: &mut Replies) -> Outcome<'a> {
        if self.transaction.take().is_none() {
            return self.refuse(b"ERR DISCARD without MULTI", replies);
        }
        self.unwatch(Shape::Plain, replies)
    }

    fn on_watch<'a>(&mut self, keys: Vec<&'a [u8]>, replies: &mut Replies) -> Outcome<'a> {
        if self.transaction.is_some() {
            return self.refuse(b"ERR WATCH inside MULTI is not allowed", replies);
        }
        self.watched_count = self.watched_count.saturating_add(keys.len());
        self.expect(Shape::Plain, replies);
        Outcome::Ask(Command::Watch { keys })
    }

    /// Lets the session forget what is watched; it answers in the given shape.
    fn unwatch<'a>(&mut self, shape: Shape, replies: &mut Replies) -> Outcome<'a> {
        self.watched_count = 0;
        self.expect(shape, replies);
        Outcome::Ask(Command::Unwatch)
    }

    /// Ends a transaction with an error at once, and what was watched with it.
    fn end_transaction_with<'a>(&mut self, line: &[u8], replies: &mut Replies) -> Outcome<'a> {
        let was_open = self.transaction.take().is_some();
        self.reply(replies, |_, reply| reply.error(line));
        if !was_open || self.watched_count == 0 {
            return Outcome::Answered;
        }
        self.watched_count = 0;
        replies.expect(Expected { shape: Shape::Silent, protocol: self.protocol, is_silent: true });
        Outcome::Ask(Command::Unwatch)
    }

    fn on_reset<'a>(&mut self, replies: &mut Replies) -> Outcome<'a> {
        *self = Self::new(self.id, Arc::clone(&self.settings));
        let [_, others @ ..] = RESET_COMMANDS;
        for _ in others {
            self.expect(Shape::Silent, replies);
        }
        self.expect(Shape::Instead("+RESET"), replies);
        Outcome::Reset
    }

    fn on_reply_mode<'a>(&mut self, mode: ReplyMode, replies: &mut Replies) -> Outcome<'a> {
        match mode {
            ReplyMode::On => {
                self.reply_mode = ReplyMode::On;
                self.reply(replies, |_, reply| reply.ok());
            }
            ReplyMode::Off => self.reply_mode = ReplyMode::Off,
            ReplyMode::Skip if self.reply_mode == ReplyMode::Off => {}
            ReplyMode::Skip => self.reply_mode = ReplyMode::Skip,
        }
        Outcome::Answered
    }

    /// Whether the reply to the current request is not sent; a skip is used up by that.
    #[inline]
    fn is_silent(&mut self) -> bool {
        match self.reply_mode {
            ReplyMode::On => false,
            ReplyMode::Off => true,
            ReplyMode::Skip => {
                self.reply_mode = ReplyMode::On;
                true
            }
        }
    }

    /// Writes a reply, unless replies are switched off.
    fn reply(&mut self, replies: &mut Replies, write: impl FnOnce(&mut Self, &mut Reply<'_>)) {
        if self.is_silent() {
            let mut unsent = Vec::new();
            write(self, &mut Reply::new(self.protocol, &mut unsent));
        } else {
            replies.answer(self.protocol, |reply| write(self, reply));
        }
    }

    /// A reply as bytes, to be sent later.
    fn written(&mut self, write: impl FnOnce(&mut Self, &mut Reply<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(self, &mut Reply::new(self.protocol, &mut bytes));
        bytes
    }
}

/// Whether a command is queued after `MULTI`, rather than served at once.
#[must_use]
pub fn is_queued(row: &Row) -> bool {
    !matches!(row.name, "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

/// `CAUSAL.DO ID ... EXEC` ends a transaction as `EXEC` does.
fn is_exec_with_id(row: &Row, arguments: &[&[u8]]) -> bool {
    row.name == "causal.do"
        && arguments.get(3).is_some_and(|name| name.eq_ignore_ascii_case(b"exec"))
}

/// Why a command cannot be part of a transaction, if it cannot.
#[must_use]
pub fn reason_not_to_queue(row: &Row) -> Option<&'static str> {
    if row.flags.has(Flags::NO_MULTI) {
        return Some("it concerns the connection; send it before or after the transaction");
    }
    if matches!(row.name, "scan" | "keys" | "dbsize" | "randomkey") {
        return Some("a transaction lies in one shard, and it concerns all of them");
    }
    None
}

/// Puts a drawn number into a command that needs one.
#[inline]
fn drawn<'a>(command: Command<'a>, environment: &mut dyn Environment) -> Command<'a> {
    if matches!(command, Command::RandomKey { .. }) {
        return Command::RandomKey { draw: environment.draw() };
    }
    command
}

#[cfg(test)]
mod tests;
