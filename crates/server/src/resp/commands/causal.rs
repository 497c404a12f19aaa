//! Parses Antecede's own commands: what the session has seen, how strong its promises are, and
//! requests that may be sent again.

use antecede_model::{
    consistency::Consistency,
    retry::{WrittenId, words_of},
};
use antecede_protocol::session::command::Command;

use super::{ConnectionCommand, Parsed, error::CommandError, row::Call, strings::is_word};
use crate::resp::{integer, shape::Shape};

/// The levels that exist.
const LEVELS: [Consistency; 2] = [Consistency::Eventual, Consistency::Linearizable];

pub(super) fn token<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Ok(Parsed::Session(Command::Token, Shape::Bulk))
}

pub(super) fn reset<'a>(_: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    Ok(Parsed::Session(Command::Reset, Shape::Plain))
}

pub(super) fn after<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let timeout_millis = match call.from(2) {
        [] => None,
        [option, millis] if is_word(option, "TIMEOUT") => {
            let millis = integer::parse(millis).and_then(|millis| u64::try_from(millis).ok());
            let wrong = CommandError::fixed("ERR timeout is not an integer or out of range");
            Some(millis.ok_or(wrong)?)
        }
        _ => return Err(CommandError::Syntax),
    };
    let token = call.argument(1);
    Ok(Parsed::Connection(ConnectionCommand::After { token, timeout_millis }))
}

/// `CAUSAL.DO`: a command under a request id.
pub(super) fn with_id<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    const NO_ID: &str = "ERR a request id is <datacenter>.<name>:<number>, the name of at most 64 \
                         letters, digits, '-' and '_', the number microseconds since 1970";
    const NO_WRITE: &str = "ERR CAUSAL.DO ID takes a command that may write keys, or EXEC; send \
                            others again as they are";
    let [option, id, command @ ..] = call.from(1) else { return Err(CommandError::Syntax) };
    if !is_word(option, "ID") {
        return Err(CommandError::Syntax);
    }
    let id = WrittenId::of(id).ok_or(CommandError::fixed(NO_ID))?;
    let words = words_of(command.iter().copied());
    if command.first().is_some_and(|name| is_word(name, "CAUSAL.DO")) {
        return Err(CommandError::fixed(NO_WRITE)); // No depth that a client chooses.
    }
    match super::parse(command, call.wall_millis)? {
        Parsed::Session(command, shape) if may_write(&command) => {
            let command = Box::new(command);
            Ok(Parsed::Session(Command::Retried { id, words, command }, shape))
        }
        Parsed::Connection(ConnectionCommand::Exec(None)) => {
            Ok(Parsed::Connection(ConnectionCommand::Exec(Some(id))))
        }
        Parsed::Session(..) | Parsed::Connection(_) => Err(CommandError::fixed(NO_WRITE)),
    }
}

/// Whether a command is one of keys that may change one.
fn may_write(command: &Command<'_>) -> bool {
    match command {
        Command::One(operation) => !operation.action.is_read(),
        Command::Several { operations, .. } => {
            operations.iter().any(|operation| !operation.action.is_read())
        }
        Command::Transaction { .. }
        | Command::Retried { .. }
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
        | Command::Level(_) => false,
    }
}

pub(super) fn level<'a>(call: &Call<'_, 'a>) -> Result<Parsed<'a>, CommandError> {
    let level = match call.from(1) {
        [] => return Ok(Parsed::Session(Command::Level(None), Shape::Bulk)),
        [name] => {
            let mut levels = LEVELS.into_iter();
            let level = levels.find(|level| is_word(name, level.name()));
            level.ok_or_else(|| {
                let after = "' is not available: choose eventual or linearizable";
                CommandError::quoting("ERR level '", name, after)
            })?
        }
        _ => return Err(CommandError::WrongArity { name: call.row.name }),
    };
    Ok(Parsed::Session(Command::Level(Some(level)), Shape::Plain))
}
