//! Requests of a client that were read and cannot be run yet, owned, in order.
//!
//! They are copied out of the read buffer, which moves on. A request that was already taken by the
//! connection (so that its reply has a place) but not by the session is parsed once more; nothing
//! of that is seen twice.
//!
//! Limits: at most what one turn parses, so its bytes are bounded by the read buffer.

use std::collections::VecDeque;

use antecede_protocol::session::command::Command;

use crate::resp::{connection::queue::Queue, frame::Arguments};

/// One thing that waits.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A request as the client sent it.
    Request {
        /// Its arguments.
        arguments: OwnedArguments,
        /// Whether the connection has taken it, so that only the session is still to be asked.
        is_taken: bool,
    },
    /// A command that borrows nothing; the connection has taken it.
    Command(Command<'static>),
    /// The queue of an `EXEC` that the connection has taken.
    Execute(Queue),
}

/// Arguments in one piece of memory.
#[derive(Debug)]
pub(crate) struct OwnedArguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl OwnedArguments {
    pub(crate) fn of(arguments: &[&[u8]]) -> Self {
        let length = arguments.iter().map(|argument| argument.len()).sum();
        let mut bytes = Vec::with_capacity(length);
        let mut ends = Vec::with_capacity(arguments.len());
        for argument in arguments {
            bytes.extend_from_slice(argument);
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    pub(crate) fn as_arguments(&self) -> Arguments<'_> {
        let mut from = 0;
        self.ends
            .iter()
            .map(|to| {
                let argument = self.bytes.get(from..*to).unwrap_or_default();
                from = *to;
                argument
            })
            .collect()
    }
}

/// What waits, in order.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: VecDeque<Waiting>,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn push_back(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    pub(crate) fn push_front(&mut self, waiting: Waiting) {
        self.waiting.push_front(waiting);
    }

    pub(crate) fn pop_front(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_arguments_are_what_they_were() {
        let arguments: [&[u8]; 4] = [b"SET", b"", b"key", b"value"];
        let owned = OwnedArguments::of(&arguments);
        assert_eq!(owned.as_arguments().as_slice(), arguments);
    }
}
