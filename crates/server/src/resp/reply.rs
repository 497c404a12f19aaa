//! Writes replies in RESP2 or RESP3 behind the bytes that wait to be sent.
//!
//! RESP3's kinds are written in RESP2 as Redis does: a map as a flat array, a set and a push as an
//! array, a double and a verbatim text as a bulk string, a boolean as 1 or 0, null as a null bulk
//! string or a null array.
//!
//! Ensures: a text from outside never ends the line of an error or a status early.

use super::integer;

/// The version of the protocol that a connection speaks; RESP2 until `HELLO 3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2.
    #[default]
    Two,
    /// RESP3.
    Three,
}

impl Protocol {
    /// The number by which `HELLO` knows it.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}

/// Writes one connection's replies.
#[derive(Debug)]
pub struct Reply<'o> {
    protocol: Protocol,
    out: &'o mut Vec<u8>,
}

impl<'o> Reply<'o> {
    /// Writes behind what `out` holds.
    #[must_use]
    pub const fn new(protocol: Protocol, out: &'o mut Vec<u8>) -> Self {
        Self { protocol, out }
    }

    /// The version that is written.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Writes the other version from now on. `HELLO`
    pub const fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// `OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A short text of the protocol.
    pub fn status(&mut self, text: &str) {
        self.out.push(b'+');
        self.line(text.as_bytes());
    }

    /// An error: its code, a blank and its text in one.
    pub fn error(&mut self, code_and_text: &[u8]) {
        self.out.push(b'-');
        self.line(code_and_text);
    }

    /// A number.
    pub fn integer(&mut self, value: i64) {
        self.out.push(b':');
        integer::write_signed(value, self.out);
        self.end();
    }

    /// Bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.length(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.end();
    }

    /// Nothing, where a value might be.
    pub fn nil(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Two => b"$-1\r\n".as_slice(),
            Protocol::Three => b"_\r\n",
        });
    }

    /// Nothing, where an array might be.
    pub fn nil_array(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Two => b"*-1\r\n".as_slice(),
            Protocol::Three => b"_\r\n",
        });
    }

    /// Begins an array of this many replies.
    pub fn array(&mut self, count: usize) {
        self.length(b'*', count);
    }

    /// Begins a map of this many pairs of replies.
    pub fn map(&mut self, count: usize) {
        match self.protocol {
            Protocol::Two => self.length(b'*', count * 2),
            Protocol::Three => self.length(b'%', count),
        }
    }

    /// Begins a set of this many replies.
    pub fn set(&mut self, count: usize) {
        match self.protocol {
            Protocol::Two => self.length(b'*', count),
            Protocol::Three => self.length(b'~', count),
        }
    }

    /// Begins a push of this many replies, which answers no request.
    pub fn push(&mut self, count: usize) {
        match self.protocol {
            Protocol::Two => self.length(b'*', count),
            Protocol::Three => self.length(b'>', count),
        }
    }

    /// True or false.
    pub fn boolean(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.protocol, value) {
            (Protocol::Two, true) => b":1\r\n".as_slice(),
            (Protocol::Two, false) => b":0\r\n",
            (Protocol::Three, true) => b"#t\r\n",
            (Protocol::Three, false) => b"#f\r\n",
        });
    }

    /// A number with a fraction, in the shortest form that reads back as the same number.
    pub fn double(&mut self, value: f64) {
        let text = match (value.is_nan(), value.is_infinite()) {
            (true, _) => String::from("nan"),
            (false, true) if value < 0.0 => String::from("-inf"),
            (false, true) => String::from("inf"),
            (false, false) => value.to_string(),
        };
        match self.protocol {
            Protocol::Two => self.bulk(text.as_bytes()),
            Protocol::Three => {
                self.out.push(b',');
                self.line(text.as_bytes());
            }
        }
    }

    /// A text for people.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Two => self.bulk(text.as_bytes()),
            Protocol::Three => {
                self.length(b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.end();
            }
        }
    }

    /// A reply that was written before, in this version.
    pub fn written(&mut self, reply: &[u8]) {
        self.out.extend_from_slice(reply);
    }

    #[inline]
    fn length(&mut self, kind: u8, length: usize) {
        self.out.push(kind);
        match u8::try_from(length) {
            Ok(digit @ 0..=9) => self.out.push(b'0' + digit),
            Ok(_) | Err(_) => {
                integer::write_unsigned(u64::try_from(length).unwrap_or(u64::MAX), self.out);
            }
        }
        self.end();
    }

    fn line(&mut self, text: &[u8]) {
        let blanked =
            text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte });
        self.out.extend(blanked);
        self.end();
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Reply<'_>)) -> (String, String) {
        let written = |protocol| {
            let mut out = Vec::new();
            write(&mut Reply::new(protocol, &mut out));
            String::from_utf8(out).unwrap()
        };
        (written(Protocol::Two), written(Protocol::Three))
    }

    #[test]
    fn every_kind_of_reply_has_its_form_in_both_versions() {
        let check = |write: &dyn Fn(&mut Reply<'_>), two: &str, three: &str| {
            assert_eq!(both(write), (two.to_owned(), three.to_owned()));
        };
        check(&|reply| reply.ok(), "+OK\r\n", "+OK\r\n");
        check(&|reply| reply.status("PONG"), "+PONG\r\n", "+PONG\r\n");
        check(&|reply| reply.error(b"ERR no"), "-ERR no\r\n", "-ERR no\r\n");
        check(&|reply| reply.integer(-12), ":-12\r\n", ":-12\r\n");
        check(
            &|reply| reply.integer(i64::MIN),
            ":-9223372036854775808\r\n",
            ":-9223372036854775808\r\n",
        );
        check(&|reply| reply.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n");
        check(&|reply| reply.bulk(b"0123456789"), "$10\r\n0123456789\r\n", "$10\r\n0123456789\r\n");
        check(&|reply| reply.nil(), "$-1\r\n", "_\r\n");
        check(&|reply| reply.nil_array(), "*-1\r\n", "_\r\n");
        check(&|reply| reply.array(12), "*12\r\n", "*12\r\n");
        check(&|reply| reply.map(3), "*6\r\n", "%3\r\n");
        check(&|reply| reply.set(3), "*3\r\n", "~3\r\n");
        check(&|reply| reply.push(3), "*3\r\n", ">3\r\n");
        check(&|reply| reply.boolean(true), ":1\r\n", "#t\r\n");
        check(&|reply| reply.boolean(false), ":0\r\n", "#f\r\n");
        check(&|reply| reply.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(&|reply| reply.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n");
        check(&|reply| reply.double(f64::NAN), "$3\r\nnan\r\n", ",nan\r\n");
        check(&|reply| reply.verbatim("a\nb"), "$3\r\na\nb\r\n", "=7\r\ntxt:a\nb\r\n");
    }

    #[test]
    fn an_error_cannot_be_ended_early_by_what_it_quotes() {
        let (two, _) = both(|reply| reply.error(b"ERR 'a\r\n+OK'"));
        assert_eq!(two, "-ERR 'a  +OK'\r\n");
    }
}
