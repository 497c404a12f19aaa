//! Reads what a session is asked for, in the words of Redis, into the session's commands.

use antecede_model::{
    consistency::Consistency,
    context::Context,
    operation::{Action, Condition, Operation, SetReply, Ttl},
};
use antecede_protocol::session::command::{Command, Gather};

/// One command of a session, owned.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// As Redis words it.
    Words(Vec<String>),
    /// A token.
    After { context: Box<Context>, timeout_millis: u64 },
}

/// A new value, without conditions.
pub(super) const fn set(value: &[u8]) -> Action<'_> {
    Action::Set { value, condition: Condition::Always, ttl: Ttl::Clear, reply: SetReply::Status }
}

/// Several commands, apart by `;`.
pub(super) fn asks(text: &str) -> Vec<Ask> {
    let one = |part: &str| Ask::Words(part.split_whitespace().map(str::to_owned).collect());
    text.split(';').map(one).collect()
}

fn operation<'a>(words: &[&'a str]) -> Operation<'a> {
    let action = match words {
        ["GET", _] => Action::Get,
        ["SET", _, value] => set(value.as_bytes()),
        ["SET", _, value, "NX"] => Action::Set {
            value: value.as_bytes(),
            condition: Condition::IfAbsent,
            ttl: Ttl::Clear,
            reply: SetReply::Status,
        },
        ["DEL", _] => Action::Delete,
        ["APPEND", _, value] => Action::Append { value: value.as_bytes() },
        _ => panic!("no such command on a key: {}", words.join(" ")),
    };
    Operation { key: words[1].as_bytes(), action }
}

/// The command that some words mean.
pub(super) fn command(words: &[String]) -> Command<'_> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["EXEC", rest @ ..] => {
            let parts = rest.split(|word| *word == "/").filter(|part| !part.is_empty());
            Command::Transaction { operations: parts.map(operation).collect() }
        }
        ["WATCH", keys @ ..] => {
            Command::Watch { keys: keys.iter().map(|key| key.as_bytes()).collect() }
        }
        ["UNWATCH"] => Command::Unwatch,
        ["MGET", keys @ ..] => Command::Several {
            operations: keys
                .iter()
                .map(|key| Operation { key: key.as_bytes(), action: Action::Get })
                .collect(),
            gather: Gather::List,
        },
        ["MSET", pairs @ ..] => Command::Several {
            operations: pairs
                .chunks_exact(2)
                .map(|pair| Operation { key: pair[0].as_bytes(), action: set(pair[1].as_bytes()) })
                .collect(),
            gather: Gather::Ok,
        },
        ["TOKEN"] => Command::Token,
        ["RESET"] => Command::Reset,
        ["LEVEL", "eventual"] => Command::Level(Some(Consistency::Eventual)),
        ["LEVEL", "linearizable"] => Command::Level(Some(Consistency::Linearizable)),
        ["WAIT", count, timeout] => Command::Wait {
            count: count.parse().unwrap(),
            timeout_millis: timeout.parse().unwrap(),
        },
        rest => Command::One(operation(rest)),
    }
}
