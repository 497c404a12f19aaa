//! One connection that asks and waits: for questions where speed does not matter.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    reply::{self, Reply},
    request,
};

/// How much room is made before each read.
const READ_BYTES: usize = 16 << 10;

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    address: String,
    timeout: Duration,
    input: Vec<u8>,
}

impl Connection {
    /// Connects, and says the password if there is one; every later wait is bounded by `timeout`.
    ///
    /// # Errors
    /// When nobody listens there, or the password is refused.
    pub(crate) async fn open(
        address: &str,
        password: Option<&str>,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let stream = connect(address, timeout)
            .await
            .with_context(|| format!("cannot connect to {address}; is it running?"))?;
        let address = address.to_owned();
        let mut connection = Self { stream, address, timeout, input: Vec::new() };
        if let Some(password) = password {
            connection.call(&[b"AUTH", password.as_bytes()]).await?;
        }
        Ok(connection)
    }

    /// Asks one thing; what the server refuses is an error.
    ///
    /// # Errors
    /// When the connection is lost, the time is over, or the server answers with an error.
    pub(crate) async fn call(&mut self, arguments: &[&[u8]]) -> anyhow::Result<Answer> {
        let answers = self.call_all(&[arguments]).await?;
        match answers.into_iter().next().ok_or_else(|| anyhow!("no answer"))? {
            Answer::Error(text) => {
                let command = arguments.first().map(|name| String::from_utf8_lossy(name));
                bail!("{} answered {}: {text}", self.address, command.unwrap_or_default())
            }
            answer @ (Answer::Text(_) | Answer::Integer(_) | Answer::Nil | Answer::List(_)) => {
                Ok(answer)
            }
        }
    }

    /// Sends several requests at once and waits for all answers; refusals are answers.
    ///
    /// # Errors
    /// When the connection is lost or the time is over.
    pub(crate) async fn call_all(&mut self, requests: &[&[&[u8]]]) -> anyhow::Result<Vec<Answer>> {
        let mut out = Vec::new();
        for arguments in requests {
            request::write(&mut out, arguments);
        }
        let timeout = self.timeout;
        let exchange = tokio::time::timeout(timeout, self.exchange(&out, requests.len())).await;
        let lost = || format!("lost the connection to {}", self.address);
        match exchange {
            Ok(answers) => answers.with_context(lost),
            Err(_) => {
                let timeout = humantime::format_duration(timeout);
                bail!("{} did not answer within {timeout}", self.address)
            }
        }
    }

    /// The bare socket, for who speaks faster than this does.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    async fn exchange(&mut self, out: &[u8], count: usize) -> anyhow::Result<Vec<Answer>> {
        self.stream.write_all(out).await?;
        let mut answers = Vec::with_capacity(count);
        let mut at = 0;
        while answers.len() < count {
            match reply::read(self.input.get(at..).unwrap_or_default())? {
                Some((reply, length)) => {
                    answers.push(Answer::of(&reply));
                    at += length;
                }
                None => {
                    self.input.drain(..at);
                    at = 0;
                    self.input.reserve(READ_BYTES);
                    if self.stream.read_buf(&mut self.input).await? == 0 {
                        bail!("the server closed it");
                    }
                }
            }
        }
        self.input.drain(..at);
        Ok(answers)
    }
}

/// Connects within `timeout`, without waiting to fill packets.
///
/// # Errors
/// When nobody listens there.
pub(crate) async fn connect(address: &str, timeout: Duration) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A reply that outlives the buffer it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A string or a status.
    Text(Vec<u8>),
    /// A number.
    Integer(i64),
    /// A refusal.
    Error(String),
    /// There is nothing.
    Nil,
    /// Several answers.
    List(Vec<Self>),
}

impl Answer {
    fn of(reply: &Reply<'_>) -> Self {
        match reply {
            Reply::Status(text) | Reply::Bulk(text) => Self::Text(text.to_vec()),
            Reply::Error(_) => Self::Error(reply.to_text()),
            Reply::Integer(number) => Self::Integer(*number),
            Reply::Nil => Self::Nil,
            Reply::Array(items) => Self::List(items.iter().map(Self::of).collect()),
        }
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
            Self::Integer(_) | Self::Error(_) | Self::Nil | Self::List(_) => None,
        }
    }

    /// The answer as it is shown at a prompt, one line an element.
    pub(crate) fn to_lines(&self) -> String {
        match self {
            Self::Text(text) => String::from_utf8_lossy(text).trim_end().to_owned(),
            Self::Integer(number) => number.to_string(),
            Self::Error(text) => format!("({text})"),
            Self::Nil => "(nil)".to_owned(),
            Self::List(items) if items.is_empty() => "(empty)".to_owned(),
            Self::List(items) => items.iter().map(Self::to_lines).collect::<Vec<_>>().join("\n"),
        }
    }

    /// The value of a field, where the answer is a list of names and values in turn.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let Self::List(items) = self else { return None };
        let mut pairs = items.chunks_exact(2);
        let pair = pairs.find(|pair| pair[0].text().as_deref() == Some(name))?;
        pair[1].text()
    }
}
