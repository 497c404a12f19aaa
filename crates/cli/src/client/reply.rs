//! Reads replies of both versions of the Redis protocol.
//!
//! What has not come completely is told apart from what can never be a reply. Maps, sets and pushes
//! are read as arrays, as the older version writes them.
//!
//! Ensures: no bytes make it panic; nesting is limited to `DEPTH_MAX`.

#![deny(clippy::indexing_slicing)]

/// How deep arrays may stand in each other.
const DEPTH_MAX: usize = 16;

/// How many elements of an array room is made for before they have come.
const PREPARED_MAX: usize = 1024;

/// One reply; its bytes lie in the buffer that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// `+OK` and what is as plain as that: numbers that are no integers.
    Status(&'a [u8]),
    /// `-CODE what and why`.
    Error(&'a [u8]),
    /// `:1`.
    Integer(i64),
    /// A string of any bytes.
    Bulk(&'a [u8]),
    /// There is nothing.
    Nil,
    /// Several replies.
    Array(Vec<Self>),
}

impl Reply<'_> {
    /// The reply as a person reads it.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Status(text) | Self::Error(text) | Self::Bulk(text) => {
                String::from_utf8_lossy(text).into_owned()
            }
            Self::Integer(number) => number.to_string(),
            Self::Nil => "(nil)".to_owned(),
            Self::Array(items) => items.iter().map(Self::to_text).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The first word of an error: what programs act on.
pub(crate) fn code_of(error: &[u8]) -> &[u8] {
    error.split(|byte| *byte == b' ').next().unwrap_or(error)
}

/// What came is no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server answered {found}, which is no reply of the Redis protocol; is it the right port?"
)]
pub(crate) struct ReplyError {
    found: String,
}

/// The first reply in `bytes` with its length, or `None` if it has not come completely.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, ReplyError> {
    let mut cursor = Cursor { bytes, at: 0 };
    match cursor.reply(0) {
        Ok(reply) => Ok(Some((reply, cursor.at))),
        Err(Stop::Short) => Ok(None),
        Err(Stop::Wrong) => {
            let start: Vec<u8> = bytes.iter().take(40).copied().collect();
            Err(ReplyError { found: format!("\"{}\"", start.escape_ascii()) })
        }
    }
}

/// Why there is no reply.
enum Stop {
    /// More bytes must come.
    Short,
    /// More bytes will not help.
    Wrong,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The bytes up to the next line end.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = self.rest();
        let end = rest.iter().position(|byte| *byte == b'\r').ok_or(Stop::Short)?;
        match rest.get(end + 1) {
            None => Err(Stop::Short),
            Some(b'\n') => {
                self.at += end + 2;
                Ok(rest.get(..end).unwrap_or_default())
            }
            Some(_) => Err(Stop::Wrong),
        }
    }

    fn integer(&mut self) -> Result<i64, Stop> {
        let line = self.line()?;
        std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(Stop::Wrong)
    }

    /// A length; `None` is -1, an absent value.
    fn length(&mut self) -> Result<Option<usize>, Stop> {
        match self.integer()? {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Stop::Wrong),
        }
    }

    fn bulk(&mut self) -> Result<Option<&'a [u8]>, Stop> {
        let Some(length) = self.length()? else { return Ok(None) };
        let (text, rest) = self.rest().split_at_checked(length).ok_or(Stop::Short)?;
        match rest.first_chunk() {
            None => Err(Stop::Short),
            Some(b"\r\n") => {
                self.at += length + 2;
                Ok(Some(text))
            }
            Some(_) => Err(Stop::Wrong),
        }
    }

    fn array(&mut self, parts: usize, depth: usize) -> Result<Reply<'a>, Stop> {
        let Some(count) = self.length()? else { return Ok(Reply::Nil) };
        let count = count.checked_mul(parts).ok_or(Stop::Wrong)?;
        let mut items = Vec::with_capacity(count.min(PREPARED_MAX));
        for _ in 0..count {
            items.push(self.reply(depth + 1)?);
        }
        Ok(Reply::Array(items))
    }

    fn reply(&mut self, depth: usize) -> Result<Reply<'a>, Stop> {
        if DEPTH_MAX < depth {
            return Err(Stop::Wrong);
        }
        let mark = *self.rest().first().ok_or(Stop::Short)?;
        self.at += 1;
        match mark {
            b'+' | b',' | b'(' => self.line().map(Reply::Status),
            b'-' => self.line().map(Reply::Error),
            b':' => self.integer().map(Reply::Integer),
            b'#' => match self.line()? {
                b"t" => Ok(Reply::Integer(1)),
                b"f" => Ok(Reply::Integer(0)),
                _ => Err(Stop::Wrong),
            },
            b'_' => self.line().map(|_| Reply::Nil),
            b'$' => Ok(self.bulk()?.map_or(Reply::Nil, Reply::Bulk)),
            b'!' => Ok(self.bulk()?.map_or(Reply::Nil, Reply::Error)),
            b'=' => {
                // Three letters name the form of the text, and a colon ends them.
                let text = self.bulk()?.ok_or(Stop::Wrong)?;
                text.get(4..).map(Reply::Bulk).ok_or(Stop::Wrong)
            }
            b'*' | b'~' | b'>' => self.array(1, depth),
            b'%' => self.array(2, depth),
            _ => Err(Stop::Wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], wanted: &Reply<'_>) {
        assert_eq!(read(bytes), Ok(Some((wanted.clone(), bytes.len()))));
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), Ok(None), "{length} bytes are no whole reply");
        }
    }

    #[test]
    fn every_kind_of_reply_is_read_when_it_has_come_completely() {
        check(b"+OK\r\n", &Reply::Status(b"OK"));
        check(b"-ERR no\r\n", &Reply::Error(b"ERR no"));
        check(b":-12\r\n", &Reply::Integer(-12));
        check(b"$3\r\na\r\n\r\n", &Reply::Bulk(b"a\r\n"));
        check(b"$-1\r\n", &Reply::Nil);
        check(b"_\r\n", &Reply::Nil);
        check(b"#t\r\n", &Reply::Integer(1));
        check(b",1.5\r\n", &Reply::Status(b"1.5"));
        check(b"=7\r\ntxt:abc\r\n", &Reply::Bulk(b"abc"));
        let pair = || Reply::Array(vec![Reply::Bulk(b"a"), Reply::Integer(1)]);
        check(b"*2\r\n$1\r\na\r\n:1\r\n", &pair());
        check(b"%1\r\n$1\r\na\r\n:1\r\n", &pair());
        check(b"*1\r\n*2\r\n$1\r\na\r\n:1\r\n", &Reply::Array(vec![pair()]));
    }

    #[test]
    fn only_the_first_of_several_replies_is_read() {
        assert_eq!(read(b":1\r\n:2\r\n"), Ok(Some((Reply::Integer(1), 4))));
    }

    #[test]
    fn what_is_no_reply_is_refused_and_shown() {
        let found = read(b"HTTP/1.1 400 Bad Request\r\n").unwrap_err();
        assert!(found.to_string().contains("HTTP/1.1 400"), "{found}");
        for bytes in [&b":x\r\n"[..], b"$-2\r\n", b"$1\r\nabc", b"#x\r\n", b"+a\rb", b"=1\r\na\r\n"]
        {
            assert!(read(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert!(read("*1\r\n".repeat(DEPTH_MAX + 2).as_bytes()).is_err());
    }

    #[test]
    fn the_code_of_an_error_is_its_first_word() {
        assert_eq!(code_of(b"NOTYET token is ahead"), b"NOTYET");
        assert_eq!(code_of(b"OOM"), b"OOM");
    }
}
