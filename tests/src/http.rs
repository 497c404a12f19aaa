//! Asks admin ports: as much of HTTP as that takes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// What follows the heads.
    pub body: String,
}

/// Sends a request with a body, which may be empty.
///
/// # Errors
/// When nobody answers.
pub fn ask(method: &str, address: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no answer"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok(Answer { status: status.ok_or_else(malformed)?, body: body.to_owned() })
}

/// Whether the node at this admin port serves clients.
#[must_use]
pub fn is_ready(admin: &str) -> bool {
    ask("GET", admin, "/readyz", "").is_ok_and(|answer| answer.status == 200)
}

/// What the node at this admin port tells of itself.
///
/// # Panics
/// If it does not answer, or not with JSON.
#[must_use]
pub fn status(admin: &str) -> Value {
    let answer = ask("GET", admin, "/v1/status", "");
    let answer = answer.unwrap_or_else(|error| panic!("no status from {admin}: {error}"));
    serde_json::from_str(&answer.body)
        .unwrap_or_else(|error| panic!("the status of {admin} is no JSON: {error}"))
}

/// The sum of a metric over all its labels.
///
/// # Panics
/// If the node does not answer.
#[must_use]
pub fn metric(admin: &str, name: &str) -> f64 {
    let answer = ask("GET", admin, "/metrics", "");
    let answer = answer.unwrap_or_else(|error| panic!("no metrics from {admin}: {error}"));
    let of_line = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with([' ', '{']);
        is_it.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    };
    answer.body.lines().filter_map(of_line).sum()
}
