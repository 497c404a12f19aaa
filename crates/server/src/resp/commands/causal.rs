//! Parses Antecede's own commands: what the session has seen, and how strong its promises are.

use antecede_model::consistency::Consistency;
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
