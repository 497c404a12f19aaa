//! Writes what a session answered in the form that the command's clients expect.
//!
//! Most answers have one form. Where the same answer looks different by command (a word as a
//! status or as a value, the list of an `EXEC` whose parts were made of several operations), the
//! command leaves a `Shape` behind when it is parsed.

use antecede_model::{refusal::Refusal, response::Response};
use antecede_protocol::session::command::Gather;

use super::reply::{Protocol, Reply};

/// How the answer to a command is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As it is: a value as a bulk string, a word as a status.
    Plain,
    /// Words as bulk strings, too. `OBJECT ENCODING`, `CAUSAL.LEVEL`
    Bulk,
    /// A line that is written in place of an answer that is no refusal. `RESET`, a failed `EXEC`
    Instead(&'static str),
    /// An error is written in place of a value; nothing stays nothing. `GETEX` with a wrong time,
    /// which Redis looks at only when there is a key
    NilOrError(Vec<u8>),
    /// Nothing is written.
    Silent,
    /// The answers to a transaction's operations, put together to one reply a command. `EXEC`
    Transaction(Vec<Part>),
}

/// One reply within the reply to `EXEC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Was known before: an error, or what the connection itself answers.
    Written(Vec<u8>),
    /// The answer to one operation.
    One(Shape),
    /// The answers to several operations as one.
    Several {
        /// How many.
        count: usize,
        /// How they become one.
        gather: Gather,
    },
}

/// Writes an answer as it is.
pub fn write_response(response: &Response, protocol: Protocol, out: &mut Vec<u8>) {
    write_plain(response, &mut Reply::new(protocol, out));
}

/// Writes the answer to a command that left `shape` behind.
#[inline]
pub fn write_shaped(response: &Response, shape: &Shape, protocol: Protocol, out: &mut Vec<u8>) {
    write_to(response, shape, &mut Reply::new(protocol, out));
}

/// Writes the answer to a command that left `shape` behind.
#[inline]
pub fn write_to(response: &Response, shape: &Shape, reply: &mut Reply<'_>) {
    match shape {
        Shape::Plain => write_plain(response, reply),
        Shape::Bulk => write_as_bulk(response, reply),
        Shape::NilOrError(line) => write_nil_or_error(response, line, reply),
        Shape::Silent => {}
        Shape::Instead(line) => match response {
            Response::Refused(refusal) => write_refusal(refusal, reply),
            Response::Ok
            | Response::Nil
            | Response::Integer(_)
            | Response::Bytes(_)
            | Response::Word(_)
            | Response::List(_)
            | Response::Aborted
            | Response::Observed(_)
            | Response::Scanned { .. } => {
                reply.written(line.as_bytes());
                reply.written(b"\r\n");
            }
        },
        Shape::Transaction(parts) => write_transaction(response, parts, reply),
    }
}

/// Writes a refusal as an error with its code.
pub fn write_refusal(refusal: &Refusal, reply: &mut Reply<'_>) {
    reply.error(format!("{} {refusal}", refusal.code()).as_bytes());
}

fn write_plain(response: &Response, reply: &mut Reply<'_>) {
    match response {
        Response::Bytes(bytes) => reply.bulk(bytes),
        Response::Ok | Response::Observed(_) => reply.ok(),
        Response::Nil => reply.nil(),
        Response::Integer(value) => reply.integer(*value),
        Response::Word(word) => reply.status(word.as_str()),
        Response::List(items) => {
            reply.array(items.len());
            for item in items {
                write_plain(item, reply);
            }
        }
        Response::Aborted => reply.nil_array(),
        Response::Scanned { next, keys } => {
            reply.array(2);
            reply.bulk(next.unwrap_or(0).to_string().as_bytes());
            reply.array(keys.len());
            for key in keys {
                reply.bulk(key);
            }
        }
        Response::Refused(refusal) => write_refusal(refusal, reply),
    }
}

fn write_as_bulk(response: &Response, reply: &mut Reply<'_>) {
    match response {
        Response::Word(word) => reply.bulk(word.as_str().as_bytes()),
        Response::Ok
        | Response::Nil
        | Response::Integer(_)
        | Response::Bytes(_)
        | Response::List(_)
        | Response::Aborted
        | Response::Observed(_)
        | Response::Scanned { .. }
        | Response::Refused(_) => write_plain(response, reply),
    }
}

fn write_nil_or_error(response: &Response, line: &[u8], reply: &mut Reply<'_>) {
    match response {
        Response::Bytes(_) => reply.error(line),
        Response::Ok
        | Response::Nil
        | Response::Integer(_)
        | Response::Word(_)
        | Response::List(_)
        | Response::Aborted
        | Response::Observed(_)
        | Response::Scanned { .. }
        | Response::Refused(_) => write_plain(response, reply),
    }
}

fn write_transaction(response: &Response, parts: &[Part], reply: &mut Reply<'_>) {
    let answers = match response {
        Response::List(answers) => answers.as_slice(),
        Response::Ok
        | Response::Nil
        | Response::Integer(_)
        | Response::Bytes(_)
        | Response::Word(_)
        | Response::Aborted
        | Response::Observed(_)
        | Response::Scanned { .. }
        | Response::Refused(_) => return write_plain(response, reply),
    };
    let mut answers = answers.iter();
    reply.array(parts.len());
    for part in parts {
        match part {
            Part::Written(bytes) => reply.written(bytes),
            Part::One(shape) => match (answers.next(), shape) {
                (Some(answer), Shape::Bulk) => write_as_bulk(answer, reply),
                (Some(answer), Shape::NilOrError(line)) => write_nil_or_error(answer, line, reply),
                (
                    Some(answer),
                    Shape::Plain | Shape::Instead(_) | Shape::Silent | Shape::Transaction(_),
                ) => write_plain(answer, reply),
                (None, _) => reply.nil(),
            },
            Part::Several { count, gather } => {
                let taken: Vec<_> = answers.by_ref().take(*count).collect();
                write_gathered(&taken, *gather, reply);
            }
        }
    }
}

/// Writes several answers as one, as a session does for a command outside a transaction.
fn write_gathered(answers: &[&Response], gather: Gather, reply: &mut Reply<'_>) {
    let refused = answers.iter().find(|answer| matches!(answer, Response::Refused(_)));
    match (refused, gather) {
        (Some(refused), _) => write_plain(refused, reply),
        (None, Gather::Ok) => reply.ok(),
        (None, Gather::List) => {
            reply.array(answers.len());
            for answer in answers {
                write_plain(answer, reply);
            }
        }
        (None, Gather::Sum) => {
            let sum = answers.iter().fold(0_i64, |sum, answer| match answer {
                Response::Integer(value) => sum.saturating_add(*value),
                Response::Ok
                | Response::Nil
                | Response::Bytes(_)
                | Response::Word(_)
                | Response::List(_)
                | Response::Aborted
                | Response::Observed(_)
                | Response::Scanned { .. }
                | Response::Refused(_) => sum,
            });
            reply.integer(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use antecede_model::response::Word;

    use super::*;

    fn shaped(response: &Response, shape: &Shape) -> (String, String) {
        let written = |protocol| {
            let mut out = Vec::new();
            write_shaped(response, shape, protocol, &mut out);
            String::from_utf8(out).unwrap()
        };
        (written(Protocol::Two), written(Protocol::Three))
    }

    #[test]
    fn answers_are_written_by_shape_and_version() {
        let value = |text: &str| Response::Bytes(text.as_bytes().to_vec());
        for (response, shape, two, three) in [
            (Response::Nil, Shape::Plain, "$-1\r\n", "_\r\n"),
            (Response::Aborted, Shape::Plain, "*-1\r\n", "_\r\n"),
            (Response::Word(Word::String), Shape::Plain, "+string\r\n", "+string\r\n"),
            (Response::Word(Word::Embstr), Shape::Bulk, "$6\r\nembstr\r\n", "$6\r\nembstr\r\n"),
            (Response::Nil, Shape::Bulk, "$-1\r\n", "_\r\n"),
            (Response::Ok, Shape::Instead("+RESET"), "+RESET\r\n", "+RESET\r\n"),
            (Response::Ok, Shape::Silent, "", ""),
            (value("v"), Shape::NilOrError(b"ERR no".to_vec()), "-ERR no\r\n", "-ERR no\r\n"),
            (Response::Nil, Shape::NilOrError(b"ERR no".to_vec()), "$-1\r\n", "_\r\n"),
            (
                Response::Refused(Refusal::OutOfMemory),
                Shape::Plain,
                "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
                "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
            ),
            (
                Response::List(vec![value("a"), Response::Nil]),
                Shape::Plain,
                "*2\r\n$1\r\na\r\n$-1\r\n",
                "*2\r\n$1\r\na\r\n_\r\n",
            ),
            (
                Response::Scanned { next: None, keys: vec![b"k".to_vec()] },
                Shape::Plain,
                "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n",
                "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n",
            ),
        ] {
            assert_eq!(shaped(&response, &shape), (two.to_owned(), three.to_owned()));
        }
    }

    #[test]
    fn a_transaction_has_one_reply_for_each_command_that_was_queued() {
        let shape = Shape::Transaction(vec![
            Part::Written(b"+PONG\r\n".to_vec()),
            Part::Several { count: 2, gather: Gather::Sum },
            Part::One(Shape::Bulk),
            Part::Several { count: 1, gather: Gather::List },
            Part::Several { count: 1, gather: Gather::Ok },
        ]);
        let answers = Response::List(vec![
            Response::Integer(1),
            Response::Integer(1),
            Response::Word(Word::Int),
            Response::Nil,
            Response::Ok,
        ]);
        let (two, _) = shaped(&answers, &shape);
        assert_eq!(two, "*5\r\n+PONG\r\n:2\r\n$3\r\nint\r\n*1\r\n$-1\r\n+OK\r\n");
        assert_eq!(shaped(&Response::Aborted, &shape).0, "*-1\r\n");
    }

    #[test]
    fn a_refusal_within_a_transaction_is_the_error_of_its_command() {
        let shape = Shape::Transaction(vec![Part::Several { count: 2, gather: Gather::Sum }]);
        let answers =
            Response::List(vec![Response::Integer(1), Response::Refused(Refusal::TooLarge)]);
        let expected = "*1\r\n-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n";
        assert_eq!(shaped(&answers, &shape).0, expected);
    }
}
