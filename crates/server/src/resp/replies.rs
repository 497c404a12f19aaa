//! Keeps the replies of a connection in the order of its requests.
//!
//! Some requests are answered at once, others when the session has an answer. What is answered at
//! once while an earlier answer is still missing waits behind it.
//!
//! Assumes: the session answers its commands in their order.
//! Ensures: replies leave in the order of the requests.
//! Invariant: what waits in front is an answer that is missing.

use std::collections::VecDeque;

use antecede_model::response::Response;

use super::{
    reply::{Protocol, Reply},
    shape::{Shape, write_shaped},
};

/// The replies of one connection that have not left.
#[derive(Debug, Default)]
pub struct Replies {
    ready: Vec<u8>,
    waiting: VecDeque<Waiting>,
    /// Bytes in `waiting`.
    waiting_bytes: usize,
    /// How many answers are missing.
    missing_count: usize,
}

#[derive(Debug)]
enum Waiting {
    /// The session's answer is missing.
    Answer { shape: Shape, protocol: Protocol, is_silent: bool },
    /// Was written while an earlier answer was missing.
    Written(Vec<u8>),
}

/// How an answer of the session will be written.
#[derive(Debug)]
pub struct Expected {
    /// The form that the command asks for.
    pub shape: Shape,
    /// The version of the protocol.
    pub protocol: Protocol,
    /// Whether the client has switched replies off.
    pub is_silent: bool,
}

impl Replies {
    /// What may be sent now. The caller takes it out.
    pub const fn ready(&mut self) -> &mut Vec<u8> {
        &mut self.ready
    }

    /// How many answers of the session are missing.
    #[must_use]
    pub const fn missing_count(&self) -> usize {
        self.missing_count
    }

    /// How many bytes of replies are held here, sent or not.
    #[must_use]
    pub const fn bytes_held(&self) -> usize {
        self.ready.len() + self.waiting_bytes
    }

    /// Writes a reply that is known now.
    pub fn answer(&mut self, protocol: Protocol, write: impl FnOnce(&mut Reply<'_>)) {
        if self.waiting.is_empty() {
            write(&mut Reply::new(protocol, &mut self.ready));
            return;
        }
        if !matches!(self.waiting.back(), Some(Waiting::Written(_))) {
            self.waiting.push_back(Waiting::Written(Vec::new()));
        }
        if let Some(Waiting::Written(bytes)) = self.waiting.back_mut() {
            let before = bytes.len();
            write(&mut Reply::new(protocol, bytes));
            self.waiting_bytes += bytes.len() - before;
        }
    }

    /// Takes note that the session will answer a command.
    #[inline]
    pub fn expect(&mut self, expected: Expected) {
        let Expected { shape, protocol, is_silent } = expected;
        self.waiting.push_back(Waiting::Answer { shape, protocol, is_silent });
        self.missing_count += 1;
    }

    /// Writes the session's next answer, and what waited behind it.
    #[inline]
    pub fn on_response(&mut self, response: &Response) {
        let Some(Waiting::Answer { shape, protocol, is_silent }) = self.waiting.pop_front() else {
            panic!("the session answered more commands than it was given");
        };
        self.missing_count -= 1;
        if !is_silent {
            write_shaped(response, &shape, protocol, &mut self.ready);
        }
        while let Some(Waiting::Written(_)) = self.waiting.front() {
            if let Some(Waiting::Written(bytes)) = self.waiting.pop_front() {
                self.waiting_bytes -= bytes.len();
                self.ready.extend_from_slice(&bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(is_silent: bool) -> Expected {
        Expected { shape: Shape::Plain, protocol: Protocol::Two, is_silent }
    }

    #[test]
    fn what_is_known_at_once_waits_for_the_answers_before_it() {
        let mut replies = Replies::default();
        replies.answer(Protocol::Two, |reply| reply.status("FIRST"));
        replies.expect(expected(false));
        replies.answer(Protocol::Two, |reply| reply.status("THIRD"));
        replies.answer(Protocol::Two, |reply| reply.status("FOURTH"));
        replies.expect(expected(false));
        replies.answer(Protocol::Two, |reply| reply.status("SIXTH"));
        assert_eq!(replies.ready(), b"+FIRST\r\n");
        assert_eq!(replies.missing_count(), 2);
        assert_eq!(replies.bytes_held(), 8 + 8 + 9 + 8);

        replies.on_response(&Response::Integer(2));
        assert_eq!(replies.ready(), b"+FIRST\r\n:2\r\n+THIRD\r\n+FOURTH\r\n");
        replies.on_response(&Response::Integer(5));
        assert!(replies.ready().ends_with(b"+FOURTH\r\n:5\r\n+SIXTH\r\n"));
        assert_eq!(replies.missing_count(), 0);
        let written = replies.ready().len();
        assert_eq!(replies.bytes_held(), written);
    }

    #[test]
    fn a_silent_answer_is_taken_and_not_written() {
        let mut replies = Replies::default();
        replies.expect(expected(true));
        replies.expect(expected(false));
        replies.on_response(&Response::Integer(1));
        replies.on_response(&Response::Integer(2));
        assert_eq!(replies.ready(), b":2\r\n");
    }
}
