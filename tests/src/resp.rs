//! Speaks the Redis protocol over a plain socket, also wrongly.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A word.
    Simple(String),
    /// An error, its code first.
    Error(String),
    /// A number.
    Integer(i64),
    /// Text; tests write nothing else.
    Bulk(String),
    /// Nothing.
    Nil,
    /// Several.
    Array(Vec<Self>),
}

impl Reply {
    /// `+OK`.
    #[must_use]
    pub fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }

    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bulk(text.into())
    }

    /// Whether it is an error with this code.
    #[must_use]
    pub fn is_refused_with(&self, code: &str) -> bool {
        matches!(self, Self::Error(text) if text.split(' ').next() == Some(code))
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn try_connect(address: &str) -> io::Result<Self> {
        let missing = || io::Error::from(io::ErrorKind::AddrNotAvailable);
        let address = address.to_socket_addrs()?.next().ok_or_else(missing)?;
        let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Connects to somebody who must be there.
    ///
    /// # Panics
    /// If he is not.
    #[must_use]
    pub fn connect(address: &str) -> Self {
        Self::try_connect(address)
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// Sends a command and reads its answer.
    ///
    /// # Errors
    /// When the connection fails, or an answer takes too long.
    pub fn try_call(&mut self, words: &[&str]) -> io::Result<Reply> {
        self.send(&request(words))?;
        self.read()
    }

    /// The same where the connection must not fail.
    ///
    /// # Panics
    /// If it does.
    pub fn call(&mut self, words: &[&str]) -> Reply {
        self.try_call(words).unwrap_or_else(|error| panic!("no answer to {words:?}: {error}"))
    }

    /// Sets a key, which must succeed.
    ///
    /// # Panics
    /// If it does not.
    pub fn set(&mut self, key: &str, value: &str) {
        assert_eq!(self.call(&["SET", key, value]), Reply::ok(), "SET {key}");
    }

    /// The value of a key.
    ///
    /// # Panics
    /// If the answer is neither text nor nothing.
    pub fn get(&mut self, key: &str) -> Option<String> {
        match self.call(&["GET", key]) {
            Reply::Bulk(text) => Some(text),
            Reply::Nil => None,
            other @ (Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Array(_)) => {
                panic!("GET {key} was answered with {other:?}")
            }
        }
    }

    /// The value of a key at a node whose chains may just be changing: it is asked again while it
    /// says so.
    ///
    /// # Panics
    /// If it says so for longer than `patience`, or the answer is neither text nor nothing.
    pub fn get_within(&mut self, key: &str, patience: Duration) -> Option<String> {
        crate::eventually(&format!("{key} is read"), patience, || {
            let reply = self.call(&["GET", key]);
            if reply.is_refused_with("TRYAGAIN") {
                return None;
            }
            match reply {
                Reply::Bulk(text) => Some(Some(text)),
                Reply::Nil => Some(None),
                Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Array(_) => {
                    panic!("GET {key} was answered with {reply:?}")
                }
            }
        })
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Everything until the other end closes.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            // A server that closes with unread bytes before it resets the connection.
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            Ok(_) | Err(_) => Ok(bytes),
        }
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// When the connection fails, or what comes is no answer.
    pub fn read(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let mut letters = line.chars();
        let kind = letters.next();
        let rest = letters.as_str();
        match kind {
            Some('+') => Ok(Reply::Simple(rest.to_owned())),
            Some('-') => Ok(Reply::Error(rest.to_owned())),
            Some(':') => Ok(Reply::Integer(number(rest)?)),
            Some('$') => self.bulk(number(rest)?),
            Some('*') => match number(rest)? {
                -1 => Ok(Reply::Nil),
                count => {
                    Ok(Reply::Array((0..count).map(|_| self.read()).collect::<Result<_, _>>()?))
                }
            },
            _ => Err(not_understood(&line)),
        }
    }

    fn bulk(&mut self, length: i64) -> io::Result<Reply> {
        let Ok(length) = usize::try_from(length) else { return Ok(Reply::Nil) };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        String::from_utf8(bytes)
            .map(Reply::Bulk)
            .map_err(|_| not_understood("bytes that are no text"))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let end = line.trim_end_matches(['\r', '\n']).len();
        line.truncate(end);
        Ok(line)
    }
}

/// A command as bytes.
#[must_use]
pub fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

fn number(text: &str) -> io::Result<i64> {
    text.parse().map_err(|_| not_understood(text))
}

fn not_understood(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what:?} is no answer"))
}
