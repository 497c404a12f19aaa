//! Reads small histories written by hand: `w(key,value,session,transaction)`, `r(...)`.
//!
//! One event a line, in session order; lines of a session with the same transaction are one atomic
//! read or write; value 0 is "absent", so `w(k,0,..)` removes the key. Empty lines and lines that
//! begin with `#` are passed over. There are no times: every operation overlaps every other.

use crate::history::{History, Kind, Record};

/// Why a line of the notation could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read line {line}: {text:?} is not w(key,value,session,transaction) or r(...)")]
pub struct NotationError {
    /// The line, counted from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

/// The history that `text` describes.
///
/// # Errors
/// A line that is not in the notation.
pub fn parse(text: &str) -> Result<History, NotationError> {
    let mut history = History::new();
    for (place, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let seq = u64::try_from(place).unwrap_or(u64::MAX);
        let record = parse_line(line, seq)
            .ok_or_else(|| NotationError { line: place + 1, text: line.to_owned() })?;
        history.push(&record);
    }
    Ok(history)
}

fn parse_line(line: &str, seq: u64) -> Option<Record> {
    let (name, rest) = line.split_once('(')?;
    let mut fields = rest.strip_suffix(')')?.split(',').map(str::trim);
    let (key, value) = (fields.next()?, fields.next()?);
    let session = fields.next()?.parse().ok()?;
    let transaction = fields.next()?.parse().ok()?;
    if fields.next().is_some() || key.is_empty() || value.is_empty() {
        return None;
    }
    let value = Some(value).filter(|&value| value != "0");
    let op = match (name, value) {
        ("r", _) => Kind::Read,
        ("w", Some(_)) => Kind::Write,
        ("w", None) => Kind::Delete,
        _ => return None,
    };
    let mut record = Record::new(session, seq, op, key).with_value(value);
    record.txn = Some(transaction);
    record.ret_ns = Some(u64::MAX);
    Some(record)
}
