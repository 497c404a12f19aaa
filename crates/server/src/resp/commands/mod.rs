//! Turns requests into commands: finds the command's row, checks its arity, parses its arguments.
//!
//! One table (`table`) is the source for all that is known about commands: their parsing here,
//! `COMMAND` and `ACL CAT`, the keys of a call, and the documents. Commands that Redis has and
//! Antecede does not are known as well (`unavailable`), so that their error can say why.
//!
//! Ensures: what is wrong with a request is said in Redis's words.

/// What commands mean where there are several datacenters.
pub mod across;
/// `COMMAND` and `ACL CAT`, told from the table.
pub mod describe;
/// What is wrong with a request.
pub mod error;
/// What a row says about a command.
pub mod row;
/// All commands.
pub mod table;
/// Commands that exist in Redis only.
pub mod unavailable;

/// Commands on what the session has seen.
mod causal;
/// Commands that a connection answers for itself.
mod connection;
/// All subcommands.
mod containers;
/// Commands on keys of any type, and on all keys.
mod keys;
/// Commands that the server answers.
mod server;
/// Commands on strings.
mod strings;

use antecede_model::retry::WrittenId;
use antecede_protocol::session::command::Command;

pub(in crate::resp) use self::connection::is_default_user;
use self::{
    error::CommandError,
    row::{Call, Row},
};
use super::shape::Shape;

/// A request that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The session answers it, and the answer is written in this shape.
    Session(Command<'a>, Shape),
    /// The connection answers it, or prepares it for the session.
    Connection(ConnectionCommand<'a>),
}

/// What a connection is asked itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionCommand<'a> {
    /// `PING`, with what is to be sent back.
    Ping(Option<&'a [u8]>),
    /// `ECHO`
    Echo(&'a [u8]),
    /// `QUIT`
    Quit,
    /// `RESET`
    Reset,
    /// `TIME`
    Time,
    /// `HELLO`
    Hello(Hello<'a>),
    /// `AUTH`
    Auth {
        /// Whose password it is; the default user's unless given.
        user: Option<&'a [u8]>,
        /// The password.
        password: &'a [u8],
    },
    /// `CLIENT` and its subcommands
    Client(ClientCommand<'a>),
    /// `COMMAND` and its subcommands, `ACL CAT`
    Describe(DescribeCommand<'a>),
    /// `INFO`, with the sections that are wanted; none means the usual ones.
    Info {
        /// The sections.
        sections: Vec<&'a [u8]>,
    },
    /// `CONFIG GET`
    ConfigGet {
        /// Patterns of names.
        patterns: Vec<&'a [u8]>,
    },
    /// `CONFIG SET`
    ConfigSet {
        /// Names and values.
        pairs: Vec<(&'a [u8], &'a [u8])>,
    },
    /// `CONFIG RESETSTAT`
    ConfigResetStatistics,
    /// `CLUSTER INFO`
    ClusterInfo,
    /// `CLUSTER MYID`
    ClusterMyId,
    /// `ACL LIST`
    AclList,
    /// A reply that never changes.
    Fixed(FixedReply),
    /// `HELP`: the subcommands of a command.
    Help(&'static Row),
    /// `MULTI`
    Multi,
    /// `EXEC`, with the request id that it was given
    Exec(Option<WrittenId<'a>>),
    /// `DISCARD`
    Discard,
    /// `WATCH`
    Watch {
        /// The keys.
        keys: Vec<&'a [u8]>,
    },
    /// `UNWATCH`
    Unwatch,
    /// `CAUSAL.AFTER`: the token is decoded by the server, which knows the deployment.
    After {
        /// The token as the client wrote it.
        token: &'a [u8],
        /// How long to wait; `None` leaves it to the server's configuration.
        timeout_millis: Option<u64>,
    },
}

/// `HELLO` and its options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The version of the protocol that is wanted; `None` changes nothing.
    pub version: Option<i64>,
    /// User and password.
    pub credentials: Option<(&'a [u8], &'a [u8])>,
    /// The connection's new name.
    pub name: Option<&'a [u8]>,
}

/// `CLIENT` and its subcommands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCommand<'a> {
    /// `ID`
    Id,
    /// `GETNAME`
    Name,
    /// `SETNAME`
    SetName(&'a [u8]),
    /// `SETINFO LIB-NAME`
    SetLibraryName(&'a [u8]),
    /// `SETINFO LIB-VER`
    SetLibraryVersion(&'a [u8]),
    /// `INFO`
    Info,
    /// `LIST`
    List(ClientFilter<'a>),
    /// `KILL`
    Kill {
        /// Which.
        filter: ClientFilter<'a>,
        /// Whether the caller is spared.
        skip_me: bool,
        /// Whether it was asked in the old form, which answers `OK` or an error.
        is_old_form: bool,
    },
    /// `REPLY`
    Reply(ReplyMode),
}

/// Which connections are meant; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFilter<'a> {
    /// Their numbers; empty means any.
    pub ids: Vec<u64>,
    /// The client's address.
    pub address: Option<&'a [u8]>,
    /// The address here.
    pub local_address: Option<&'a [u8]>,
    /// None at all: a kind of client that does not exist here.
    pub is_empty: bool,
}

/// `CLIENT REPLY`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// Replies are sent.
    #[default]
    On,
    /// Replies are not sent.
    Off,
    /// The reply to the next request is not sent.
    Skip,
}

/// Questions about the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescribeCommand<'a> {
    /// `COMMAND`, `COMMAND INFO`: everything, or these.
    Info(Option<Vec<&'a [u8]>>),
    /// `COMMAND COUNT`
    Count,
    /// `COMMAND DOCS`: everything, or these.
    Docs(Option<Vec<&'a [u8]>>),
    /// `COMMAND LIST`
    List(ListFilter<'a>),
    /// `COMMAND GETKEYS`, `COMMAND GETKEYSANDFLAGS`
    Keys {
        /// The call whose keys are asked for.
        call: Vec<&'a [u8]>,
        /// Whether it is also asked what is done with them.
        with_access: bool,
    },
    /// `ACL CAT`: the categories, or the commands of one.
    Categories(Option<&'a [u8]>),
}

/// `COMMAND LIST FILTERBY`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListFilter<'a> {
    /// Everything.
    All,
    /// Those of a module; there are none.
    Module,
    /// Those of a category.
    Category(&'a [u8]),
    /// Those whose name matches.
    Pattern(&'a [u8]),
}

/// A reply that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixedReply {
    /// `OK`
    Ok,
    /// A number.
    Integer(i64),
    /// A short text as a bulk string.
    Bulk(&'static str),
    /// An empty array.
    EmptyArray,
    /// An empty map.
    EmptyMap,
    /// The one user there is.
    Users,
    /// A finished scan that found nothing.
    NothingScanned,
    /// What `CLIENT TRACKINGINFO` says where tracking is off.
    NotTracking,
}

/// All commands, in the order of the documents.
#[must_use]
pub fn table() -> &'static [Row] {
    table::TABLE
}

/// The row of a request, its name being known and its arguments being as many as it takes.
///
/// # Errors
/// [`CommandError`] when there is no such command or subcommand, or it takes another number of
/// arguments.
#[inline]
pub fn find(arguments: &[&[u8]]) -> Result<&'static Row, CommandError> {
    let name = arguments.first().copied().unwrap_or_default();
    let Some(mut row) = table::row_named(name) else {
        return Err(unavailable::explain(name).unwrap_or_else(|| CommandError::unknown(arguments)));
    };
    if !row.subcommands.is_empty()
        && let Some(given) = arguments.get(1)
    {
        row = subcommand(row, given).ok_or_else(|| CommandError::unknown_subcommand(row, given))?;
    }
    if row.takes(arguments.len()) {
        Ok(row)
    } else {
        Err(CommandError::WrongArity { name: row.name })
    }
}

/// The subcommand of a name, in either case.
fn subcommand(row: &'static Row, given: &[u8]) -> Option<&'static Row> {
    let mut rows = row.subcommands.iter();
    rows.find(|row| row.short_name().as_bytes().eq_ignore_ascii_case(given))
}

/// Understands a request; `wall_millis` (since 1970) is what times to live count from.
///
/// # Errors
/// [`CommandError`] when the request makes no sense or the command does not exist here.
#[inline]
pub fn parse<'a>(arguments: &[&'a [u8]], wall_millis: u64) -> Result<Parsed<'a>, CommandError> {
    let row = find(arguments)?;
    parse_row(row, arguments, wall_millis)
}

/// Understands a request whose row [`find`] has found.
///
/// # Errors
/// [`CommandError`] when the arguments make no sense.
#[inline]
pub fn parse_row<'a>(
    row: &'static Row,
    arguments: &[&'a [u8]],
    wall_millis: u64,
) -> Result<Parsed<'a>, CommandError> {
    (row.parse)(&Call { row, arguments, wall_millis })
}

#[cfg(test)]
mod tests;
