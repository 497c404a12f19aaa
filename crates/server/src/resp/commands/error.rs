//! Says what is wrong with a request, byte for byte as Redis 7 does where Redis has the case.

use std::borrow::Cow;

use super::row::Row;
use crate::resp::reply::Reply;

/// How much of unknown names and arguments an error repeats, in bytes.
const QUOTED_BYTES_MAX: usize = 128;

/// A request that cannot be served as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// Too few or too many arguments.
    WrongArity {
        /// The command's full name.
        name: &'static str,
    },
    /// No such command.
    Unknown {
        /// The name and the arguments as Redis shows them.
        shown: Vec<u8>,
    },
    /// No such subcommand.
    UnknownSubcommand {
        /// What was asked for.
        given: Vec<u8>,
        /// The command in upper case.
        command: String,
    },
    /// Options that do not go together, or are none.
    Syntax,
    /// Not a number of 64 bits.
    NotAnInteger,
    /// A time that has no meaning, or none in 64 bits.
    InvalidExpireTime {
        /// The command's full name.
        name: &'static str,
    },
    /// A command of Redis that does not exist here.
    NotAvailable {
        /// Its name in upper case.
        name: String,
        /// Why, and what there is.
        reason: &'static str,
    },
    /// Any other, with its code.
    Line(Cow<'static, [u8]>),
}

impl CommandError {
    /// An error whose line is fixed, with its code.
    #[must_use]
    pub const fn fixed(line: &'static str) -> Self {
        Self::Line(Cow::Borrowed(line.as_bytes()))
    }

    /// An error that quotes what was given.
    #[must_use]
    pub fn quoting(before: &str, given: &[u8], after: &str) -> Self {
        let given = cut(given, given.len());
        Self::Line(Cow::Owned([before.as_bytes(), given, after.as_bytes()].concat()))
    }

    /// No command of this name, with arguments.
    #[must_use]
    pub fn unknown(arguments: &[&[u8]]) -> Self {
        let mut shown = vec![b'\''];
        let name = arguments.first().copied().unwrap_or_default();
        let others = arguments.get(1..).unwrap_or_default();
        shown.extend_from_slice(cut(name, QUOTED_BYTES_MAX));
        shown.extend_from_slice(b"', with args beginning with: ");
        let from = shown.len();
        for argument in others {
            let Some(room) = QUOTED_BYTES_MAX.checked_sub(shown.len() - from) else { break };
            if room == 0 {
                break;
            }
            shown.push(b'\'');
            shown.extend_from_slice(cut(argument, room));
            shown.extend_from_slice(b"' ");
        }
        Self::Unknown { shown }
    }

    /// No subcommand of this name.
    #[must_use]
    pub fn unknown_subcommand(row: &Row, given: &[u8]) -> Self {
        Self::UnknownSubcommand {
            given: cut(given, QUOTED_BYTES_MAX).to_vec(),
            command: row.name.to_ascii_uppercase(),
        }
    }

    /// The line of the error, its code first.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        match self {
            Self::WrongArity { name } => {
                format!("ERR wrong number of arguments for '{name}' command").into_bytes()
            }
            Self::Unknown { shown } => [b"ERR unknown command ".as_slice(), shown].concat(),
            Self::UnknownSubcommand { given, command } => {
                let end = format!("'. Try {command} HELP.");
                [b"ERR unknown subcommand '".as_slice(), given, end.as_bytes()].concat()
            }
            Self::Syntax => b"ERR syntax error".to_vec(),
            Self::NotAnInteger => b"ERR value is not an integer or out of range".to_vec(),
            Self::InvalidExpireTime { name } => {
                format!("ERR invalid expire time in '{name}' command").into_bytes()
            }
            Self::NotAvailable { name, reason } => {
                format!("ERR {name} is not available yet: {reason}").into_bytes()
            }
            Self::Line(line) => line.to_vec(),
        }
    }

    /// Writes the error as a reply.
    pub fn write(&self, reply: &mut Reply<'_>) {
        reply.error(&self.line());
    }
}

/// The front of a text, up to a limit and to its first zero byte, as C prints it.
fn cut(text: &[u8], bytes_max: usize) -> &[u8] {
    let end = text.iter().take(bytes_max).position(|byte| *byte == 0);
    &text[..end.unwrap_or_else(|| text.len().min(bytes_max))]
}
