//! Writes and reads a history as JSON lines, one record a line, so that any tool can make one.
//!
//! The first line names the format and its number; each further line is an operation, or a final
//! state under the key `final`. Reading stops at the first line that is wrong, and says where and
//! what to do; nothing that stands in a file makes it panic.
//!
//! Limits: a line is at most `LINE_BYTES_MAX` long, so that a file that is no history does not fill
//! the memory.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use crate::history::{FinalRecord, History, Record};

/// The number of the format that this build writes and reads.
pub const FORMAT_NUMBER: u32 = 1;

/// The longest line that is read.
pub const LINE_BYTES_MAX: u64 = 16 << 20;

const FORMAT_NAME: &str = "antecede-history";

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    number: u32,
}

/// A line that holds a final state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FinalLine<R> {
    #[serde(rename = "final")]
    state: R,
}

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadHistoryError {
    /// The source failed.
    #[error("cannot read line {line} of the history")]
    Source {
        /// The line, counted from 1.
        line: u64,
        /// What failed.
        source: io::Error,
    },
    /// The first line does not name the format.
    #[error(
        "line 1 is not the head of a history: expected {{\"format\":\"antecede-history\",\
         \"number\":1}}, found {found}; give a file that antecede bench or the simulator wrote"
    )]
    NotAHistory {
        /// How the first line begins.
        found: String,
    },
    /// The format has another number.
    #[error(
        "the history is format {found}, this build reads {FORMAT_NUMBER}; use the build that wrote it"
    )]
    OtherFormat {
        /// The number in the file.
        found: u32,
    },
    /// A line is too long.
    #[error("line {line} is longer than {LINE_BYTES_MAX} bytes; is this a history file?")]
    TooLong {
        /// The line, counted from 1.
        line: u64,
    },
    /// A line is not a record.
    #[error("line {line}, column {column}: {what}; {advice}")]
    Malformed {
        /// The line, counted from 1.
        line: u64,
        /// The column in bytes, counted from 1; 0 if the line as a whole is meant.
        column: usize,
        /// What is wrong with it.
        what: String,
        /// What to do.
        advice: &'static str,
    },
}

/// Writes records as they come, one line each.
#[derive(Debug)]
pub struct HistoryWriter<W: Write> {
    target: W,
}

impl<W: Write> HistoryWriter<W> {
    /// Begins a history file. Give a buffered target.
    ///
    /// # Errors
    /// The target's.
    pub fn begin(mut target: W) -> io::Result<Self> {
        let header = Header { format: FORMAT_NAME.to_owned(), number: FORMAT_NUMBER };
        write_line(&mut target, &header)?;
        Ok(Self { target })
    }

    /// Writes one operation.
    ///
    /// # Errors
    /// The target's.
    pub fn operation(&mut self, record: &Record) -> io::Result<()> {
        write_line(&mut self.target, record)
    }

    /// Writes one final state.
    ///
    /// # Errors
    /// The target's.
    pub fn final_state(&mut self, state: &FinalRecord) -> io::Result<()> {
        write_line(&mut self.target, &FinalLine { state })
    }

    /// Flushes and gives the target back.
    ///
    /// # Errors
    /// The target's.
    pub fn finish(mut self) -> io::Result<W> {
        self.target.flush()?;
        Ok(self.target)
    }
}

fn write_line<W: Write>(target: &mut W, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *target, line)?;
    target.write_all(b"\n")
}

/// Writes a whole history.
///
/// # Errors
/// The target's.
pub fn write<W: Write>(history: &History, target: W) -> io::Result<W> {
    let mut writer = HistoryWriter::begin(target)?;
    for operation in history.operations() {
        writer.operation(&history.record(operation))?;
    }
    for state in history.finals() {
        writer.final_state(&history.final_record(state))?;
    }
    writer.finish()
}

/// Reads a whole history. Give a buffered source.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn read<R: BufRead>(mut source: R) -> Result<History, ReadHistoryError> {
    let mut history = History::new();
    let mut line = Vec::new();
    let mut number = 0;
    while read_line(&mut source, &mut line, number + 1)? {
        number += 1;
        if number == 1 {
            check_header(&line)?;
        } else if !line.trim_ascii().is_empty() {
            read_record(&line, number, &mut history)?;
        }
    }
    if number == 0 {
        return Err(ReadHistoryError::NotAHistory { found: "an empty file".to_owned() });
    }
    Ok(history)
}

/// Reads up to the next line end, which is kept: a line without one was cut off.
fn read_line<R: BufRead>(
    source: &mut R,
    line: &mut Vec<u8>,
    number: u64,
) -> Result<bool, ReadHistoryError> {
    line.clear();
    let length = Read::take(source, LINE_BYTES_MAX)
        .read_until(b'\n', line)
        .map_err(|source| ReadHistoryError::Source { line: number, source })?;
    if u64::try_from(length).unwrap_or(u64::MAX) == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        return Err(ReadHistoryError::TooLong { line: number });
    }
    Ok(length != 0)
}

fn check_header(line: &[u8]) -> Result<(), ReadHistoryError> {
    match serde_json::from_slice::<Header>(line) {
        Ok(header) if header.format != FORMAT_NAME => {
            Err(ReadHistoryError::NotAHistory { found: format!("format {:?}", header.format) })
        }
        Ok(Header { number: FORMAT_NUMBER, .. }) => Ok(()),
        Ok(header) => Err(ReadHistoryError::OtherFormat { found: header.number }),
        Err(_) => {
            let text = String::from_utf8_lossy(line);
            let start: String = text.trim().chars().take(60).collect();
            Err(ReadHistoryError::NotAHistory { found: format!("{start:?}") })
        }
    }
}

fn read_record(line: &[u8], number: u64, history: &mut History) -> Result<(), ReadHistoryError> {
    let malformed = |column, what: String, advice| ReadHistoryError::Malformed {
        line: number,
        column,
        what,
        advice,
    };
    // A final state begins with its key; telling the two apart by it keeps errors exact.
    let is_final = line.trim_ascii_start().starts_with(b"{\"final\"");
    let parsed = if is_final {
        serde_json::from_slice::<FinalLine<FinalRecord>>(line)
            .map(|parsed| history.push_final(&parsed.state))
            .map(|()| None)
    } else {
        serde_json::from_slice::<Record>(line).map(Some)
    };
    let record = match parsed {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(()),
        Err(error) => {
            let advice = if error.is_eof() {
                "the line is cut off: if the writer was killed, delete this last line"
            } else {
                "correct the recorder that wrote it, or delete the line"
            };
            let message = error.to_string();
            let what = message.split(" at line ").next().unwrap_or(&message).to_owned();
            return Err(malformed(error.column(), what, advice));
        }
    };
    if let Some(what) = contradiction(&record) {
        return Err(malformed(0, what, "correct the recorder that wrote it"));
    }
    history.push(&record);
    Ok(())
}

/// What a record says that cannot be, although each field is well formed.
fn contradiction(record: &Record) -> Option<String> {
    use crate::history::{Kind, Outcome};
    if let Some(ret) = record.ret_ns
        && ret < record.call_ns
    {
        return Some(format!("ret_ns {ret} is before call_ns {}", record.call_ns));
    }
    if record.outcome == Outcome::Ok && record.ret_ns.is_none() {
        return Some("outcome is ok but ret_ns is missing".to_owned());
    }
    match record.op {
        Kind::Write | Kind::WriteIfAbsent | Kind::Append if record.value.is_none() => {
            Some("a write needs a value; a removal is the operation delete".to_owned())
        }
        Kind::Increment => match record.value.as_deref().map(str::parse::<i64>) {
            Some(Ok(_)) => None,
            Some(Err(_)) | None => Some("an increment needs an integer as its value".to_owned()),
        },
        Kind::Delete if record.value.is_some() => {
            Some("a delete has no value; what it removed is previous of an exchange".to_owned())
        }
        Kind::WriteIfAbsent if record.outcome == Outcome::Ok && record.result.is_none() => {
            Some("an acknowledged write_if_absent needs result 1 or 0".to_owned())
        }
        Kind::Read
        | Kind::Write
        | Kind::Delete
        | Kind::WriteIfAbsent
        | Kind::Exchange
        | Kind::Append => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{Kind, Version};

    fn example() -> History {
        let mut history = History::new();
        let mut write =
            Record::new(3, 0, Kind::Write, "k").with_value(Some("v1")).at(1, 5, Some(9));
        write.version = Some(Version(77, 1));
        history.push(&write);
        history.push(&Record::new(3, 1, Kind::Read, "k").at(1, 10, Some(12)));
        history.push_final(&FinalRecord {
            dc: 1,
            node: "b1".into(),
            key: "k".into(),
            value: Some("v1".into()),
            version: Some(Version(77, 1)),
        });
        history
    }

    const GOLDEN: &str = "\
{\"format\":\"antecede-history\",\"number\":1}
{\"session\":3,\"seq\":0,\"dc\":1,\"op\":\"write\",\"key\":\"k\",\"value\":\"v1\",\"version\":[77,1],\"call_ns\":5,\"ret_ns\":9,\"outcome\":\"ok\",\"level\":\"linearizable\"}
{\"session\":3,\"seq\":1,\"dc\":1,\"op\":\"read\",\"key\":\"k\",\"value\":null,\"call_ns\":10,\"ret_ns\":12,\"outcome\":\"ok\",\"level\":\"linearizable\"}
{\"final\":{\"dc\":1,\"node\":\"b1\",\"key\":\"k\",\"value\":\"v1\",\"version\":[77,1]}}
";

    fn text_of(history: &History) -> String {
        String::from_utf8(write(history, Vec::new()).unwrap()).unwrap()
    }

    fn error_of(text: &str) -> String {
        read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn history_file_keeps_its_bytes() {
        assert_eq!(text_of(&example()), GOLDEN, "old recorders write files of this form");
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(text_of(&read(GOLDEN.as_bytes()).unwrap()), GOLDEN);
    }

    #[test]
    fn errors_name_the_line_and_say_what_to_do() {
        let head = GOLDEN.lines().next().unwrap();
        let second = GOLDEN.lines().nth(1).unwrap();

        assert!(error_of("").contains("an empty file"));
        assert!(
            error_of("*1\r\n$4\r\nPING\r\n").starts_with("line 1 is not the head of a history")
        );
        assert!(error_of("{\"format\":\"antecede-history\",\"number\":7}\n").contains("format 7"));
        let torn = error_of(&format!("{head}\n{second}\n{}", &second[..40]));
        assert!(torn.starts_with("line 3, column 40"), "{torn}");
        assert!(torn.contains("cut off"), "{torn}");
        let unknown = error_of(&format!("{head}\n{}", second.replace("\"dc\"", "\"DC\"")));
        assert!(unknown.contains("unknown field `DC`"), "{unknown}");
        let times = error_of(&format!("{head}\n{}", second.replace(":9", ":4")));
        assert!(times.contains("ret_ns 4 is before call_ns 5"), "{times}");
        let without = error_of(&format!("{head}\n{}", second.replace("\"v1\"", "null")));
        assert!(without.contains("a write needs a value"), "{without}");
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_refused_or_read_but_never_panics(
            place in 0..GOLDEN.len(), byte: u8, cut in 0..GOLDEN.len(),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut flipped = GOLDEN.as_bytes().to_vec();
            flipped[place] = byte;
            drop(read(&flipped[..]).map(|history| crate::judge(&history, &Default::default())));
            drop(read(&flipped[..cut]));
            drop(read(&noise[..]));
            let mut after_head = GOLDEN.lines().next().unwrap().as_bytes().to_vec();
            after_head.push(b'\n');
            after_head.extend(noise);
            drop(read(&after_head[..]).map(|history| crate::judge(&history, &Default::default())));
        }
    }
}
