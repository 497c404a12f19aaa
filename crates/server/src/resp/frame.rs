//! Cuts a connection's bytes into requests: arrays of bulk strings, and inline commands.
//!
//! The caller keeps the bytes that have arrived and asks for the next request; the arguments are
//! slices of those bytes. Nothing is copied and nothing is looked at twice: of a request that has
//! not arrived whole, the parser remembers how far it has come. An inline command with quotes is
//! unescaped where it stands, which is why the bytes are lent mutably.
//!
//! Assumes: until a request is whole, its bytes stay at the front of what the caller lends.
//! Ensures: any split of the same bytes gives the same requests; memory grows with the bytes that
//! arrived, never with a length that was announced.
//! Limits: `Limits`; what is over them is a `FrameError`, after which the connection closes.
#![deny(clippy::indexing_slicing)]

use std::mem;

use smallvec::SmallVec;

use super::integer;

/// The longest line: an inline command, or the length of an array or a bulk string.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// The most arguments that a client may send before it is authenticated.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;
/// The longest argument that a client may send before it is authenticated.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16_384;
/// The largest value of [`Limits::request_bytes_max`]: places in a request are 32-bit numbers.
pub const REQUEST_BYTES_CEILING: usize = 1 << 31;
/// Places that a parser keeps room for between requests; room for more is given back.
const KEPT_PLACES_MAX: usize = 1024;

const _: () = assert!(UNAUTHENTICATED_BULK_BYTES_MAX < LINE_BYTES_MAX);

/// The arguments of one request, the command's name first.
pub type Arguments<'b> = SmallVec<[&'b [u8]; 8]>;

/// How large requests may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// The most arguments.
    pub arguments_max: usize,
    /// The longest request as it stands on the wire, at most [`REQUEST_BYTES_CEILING`].
    pub request_bytes_max: usize,
    /// Whether the narrower limits before authentication hold.
    pub is_unauthenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_bytes_max: 64 * 1024 * 1024,
            arguments_max: 1024 * 1024,
            request_bytes_max: 128 * 1024 * 1024,
            is_unauthenticated: false,
        }
    }
}

/// Why a connection's bytes cannot be understood; the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The number of arguments is none, or over the limit.
    #[error("Protocol error: invalid multibulk length")]
    InvalidArrayLength,
    /// The length of an argument is none, or over the limit.
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// The length of an array does not end.
    #[error("Protocol error: too big mbulk count string")]
    ArrayLineTooLong,
    /// The length of an argument does not end.
    #[error("Protocol error: too big bulk count string")]
    BulkLineTooLong,
    /// An argument does not begin with `$`.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.found))]
    ExpectedBulk {
        /// What stands there.
        found: u8,
    },
    /// An inline command does not end.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// The quotes of an inline command do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// Too many arguments for a client that is not authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedArrayLength,
    /// Too long an argument for a client that is not authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// The request as a whole is over the limit.
    #[error("Protocol error: a request of more than {limit} bytes")]
    RequestTooLong {
        /// The limit.
        limit: usize,
    },
    /// Another protocol is spoken (HTTP, TLS, a proxy's greeting); it is told nothing.
    #[error("another protocol is spoken on this connection")]
    OtherProtocol,
}

impl FrameError {
    /// Whether the connection is closed without a word.
    #[must_use]
    pub const fn is_silent(self) -> bool {
        matches!(self, Self::OtherProtocol)
    }
}

/// Cuts one connection's bytes into requests.
#[derive(Debug, Default)]
pub struct FrameParser {
    /// Up to here the unfinished request is understood.
    position: usize,
    /// Up to here no end of the current line was found.
    searched: usize,
    state: State,
    /// Where the arguments that have arrived stand in the unfinished request.
    places: SmallVec<[(u32, u32); 8]>,
}

/// What comes next in the unfinished request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Its first line.
    #[default]
    Start,
    /// The length of an argument.
    Length {
        /// Arguments that are missing, this one included.
        missing: usize,
    },
    /// The bytes of an argument.
    Bytes {
        /// Arguments that are missing, this one included.
        missing: usize,
        /// How long this one is.
        length: usize,
    },
}

/// What was found at the front of the bytes.
enum Found {
    /// Nothing whole yet.
    Part,
    /// An array of this many bytes; the places of its arguments are known.
    Array(usize),
    /// A line of this many bytes with its end, and without.
    Line { with_end: usize, without_end: usize },
}

impl FrameParser {
    /// Takes the next request off the front of `bytes` and puts its arguments into `arguments`.
    ///
    /// `false` means that no request is whole yet: lend the same bytes again with more behind
    /// them. Empty requests are passed over, as Redis does.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no request, or one over the limits. The connection must
    /// be closed; the parser is of no further use.
    #[inline]
    pub fn next<'b>(
        &mut self,
        bytes: &mut &'b mut [u8],
        limits: &Limits,
        arguments: &mut Arguments<'b>,
    ) -> Result<bool, FrameError> {
        arguments.clear();
        loop {
            match self.scan(bytes, limits)? {
                Found::Part => return Ok(false),
                Found::Array(length) => {
                    let frame = &*take_front(bytes, length);
                    for (from, to) in &self.places {
                        let place = usize_of(*from)..usize_of(*to);
                        arguments.push(frame.get(place).unwrap_or_default());
                    }
                    self.reset();
                }
                Found::Line { with_end, without_end } => {
                    let line = take_front(bytes, with_end);
                    self.reset();
                    self.split_line(line, without_end, arguments)?;
                }
            }
            if !arguments.is_empty() {
                return Ok(true);
            }
        }
    }

    /// How many more bytes the unfinished request needs at least, when `held` have arrived.
    ///
    /// A caller may make room for them, up to a limit of its own.
    #[must_use]
    pub const fn missing(&self, held: usize) -> usize {
        match self.state {
            State::Start | State::Length { .. } => 1,
            State::Bytes { length, .. } => (self.position + length + 2).saturating_sub(held),
        }
    }

    fn reset(&mut self) {
        self.position = 0;
        self.searched = 0;
        self.state = State::Start;
        if KEPT_PLACES_MAX < self.places.capacity() {
            self.places = SmallVec::new();
        } else {
            self.places.clear();
        }
    }

    #[inline]
    fn scan(&mut self, bytes: &[u8], limits: &Limits) -> Result<Found, FrameError> {
        if self.state == State::Start {
            match bytes.first() {
                None => return Ok(Found::Part),
                Some(b'*') => {}
                Some(0x16) => return Err(FrameError::OtherProtocol), // TLS greets with this byte.
                Some(_) => return self.scan_line(bytes),
            }
            let Some((count, next)) = self.read_length(bytes) else {
                return part_unless(bytes.len(), FrameError::ArrayLineTooLong);
            };
            let count = count.ok_or(FrameError::InvalidArrayLength)?;
            if count <= 0 {
                return Ok(Found::Array(next));
            }
            let missing = usize::try_from(count).map_err(|_| FrameError::InvalidArrayLength)?;
            if limits.arguments_max < missing {
                return Err(FrameError::InvalidArrayLength);
            }
            if limits.is_unauthenticated && UNAUTHENTICATED_ARGUMENTS_MAX < missing {
                return Err(FrameError::UnauthenticatedArrayLength);
            }
            self.position = next;
            self.state = State::Length { missing };
        }
        self.scan_arguments(bytes, limits)
    }

    #[inline]
    fn scan_arguments(&mut self, bytes: &[u8], limits: &Limits) -> Result<Found, FrameError> {
        loop {
            let (missing, length) = match self.state {
                State::Start => return Ok(Found::Array(self.position)),
                State::Bytes { missing, length } => (missing, length),
                State::Length { missing } => {
                    let at = self.position;
                    let Some((length, next)) = self.read_length(bytes) else {
                        return part_unless(bytes.len() - at, FrameError::BulkLineTooLong);
                    };
                    let length = checked_length(bytes.get(at), length, next, limits)?;
                    self.position = next;
                    (missing, length)
                }
            };
            let end = self.position + length;
            if bytes.len() < end + 2 {
                self.state = State::Bytes { missing, length };
                return Ok(Found::Part);
            }
            self.places.push((place(self.position), place(end)));
            self.position = end + 2; // As Redis does, without a look at what ends the argument.
            if missing == 1 {
                return Ok(Found::Array(self.position));
            }
            self.state = State::Length { missing: missing - 1 };
        }
    }

    /// Reads the number behind the first byte of the current line; `None` until the line is
    /// whole. Also says where the next line begins.
    #[inline]
    fn read_length(&mut self, bytes: &[u8]) -> Option<(Option<i64>, usize)> {
        let from = self.position + 1;
        let mut value = 0_i64;
        let mut at = from;
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            value = value * 10 + i64::from(*digit - b'0');
            at += 1;
            if from + 9 < at {
                break;
            }
        }
        let is_plain = from < at && (at == from + 1 || bytes.get(from) != Some(&b'0'));
        if is_plain && bytes.get(at) == Some(&b'\r') && at + 1 < bytes.len() {
            return Some((Some(value), at + 2));
        }
        self.read_odd_length(bytes, from)
    }

    /// The slow way, for lines that are not whole or hold no plain short number.
    #[cold]
    fn read_odd_length(&mut self, bytes: &[u8], from: usize) -> Option<(Option<i64>, usize)> {
        let search_from = from.max(self.searched).min(bytes.len());
        let unsearched = bytes.get(search_from..).unwrap_or_default();
        let Some(offset) = unsearched.iter().position(|byte| *byte == b'\r') else {
            self.searched = bytes.len();
            return None;
        };
        let end = search_from + offset;
        self.searched = end;
        if bytes.len() < end + 2 {
            return None;
        }
        Some((integer::parse(bytes.get(from..end).unwrap_or_default()), end + 2))
    }

    fn scan_line(&mut self, bytes: &[u8]) -> Result<Found, FrameError> {
        let unsearched = bytes.get(self.searched..).unwrap_or_default();
        let Some(offset) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = bytes.len();
            return part_unless(bytes.len(), FrameError::InlineTooLong);
        };
        let end = self.searched + offset;
        let has_return = 0 < end && bytes.get(end - 1) == Some(&b'\r');
        Ok(Found::Line { with_end: end + 1, without_end: end - usize::from(has_return) })
    }

    fn split_line<'b>(
        &mut self,
        line: &'b mut [u8],
        length: usize,
        arguments: &mut Arguments<'b>,
    ) -> Result<(), FrameError> {
        split_words(line, length, &mut self.places)?;
        let line = &*line;
        for (from, to) in self.places.drain(..) {
            arguments.push(line.get(usize_of(from)..usize_of(to)).unwrap_or_default());
        }
        match arguments.first() {
            Some(first) if is_other_protocol(first) => Err(FrameError::OtherProtocol),
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether a request's first word shows that another protocol is spoken.
#[must_use]
pub fn is_other_protocol(first: &[u8]) -> bool {
    [b"POST".as_slice(), b"Host:", b"PROXY"].iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// Checks what announces an argument: its first byte, and the length that was read behind it.
#[inline]
fn checked_length(
    first: Option<&u8>,
    length: Option<i64>,
    next: usize,
    limits: &Limits,
) -> Result<usize, FrameError> {
    let found = *first.unwrap_or(&b'$');
    if found != b'$' {
        return Err(FrameError::ExpectedBulk { found });
    }
    let length = length.and_then(|length| usize::try_from(length).ok());
    let length = length.ok_or(FrameError::InvalidBulkLength)?;
    if limits.bulk_bytes_max < length {
        return Err(FrameError::InvalidBulkLength);
    }
    if limits.is_unauthenticated && UNAUTHENTICATED_BULK_BYTES_MAX < length {
        return Err(FrameError::UnauthenticatedBulkLength);
    }
    let limit = limits.request_bytes_max.min(REQUEST_BYTES_CEILING);
    if limit < next.saturating_add(length).saturating_add(2) {
        return Err(FrameError::RequestTooLong { limit });
    }
    Ok(length)
}

/// A line that is not whole yet, unless it is already too long.
const fn part_unless(held: usize, too_long: FrameError) -> Result<Found, FrameError> {
    if LINE_BYTES_MAX < held { Err(too_long) } else { Ok(Found::Part) }
}

fn take_front<'b>(bytes: &mut &'b mut [u8], length: usize) -> &'b mut [u8] {
    let all = mem::take(bytes);
    let (front, rest) = all.split_at_mut(length.min(all.len()));
    *bytes = rest;
    front
}

/// A place in a request, which [`REQUEST_BYTES_CEILING`] keeps within 32 bits.
#[inline]
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[inline]
fn usize_of(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// Within which quotes a word of an inline command is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    Single,
    Double,
}

/// Splits an inline command into words, and undoes quotes and escapes where they stand.
///
/// In double quotes `\n \r \t \b \a \xHH` and a backslash before anything else have meaning, in
/// single quotes only `\'`. Closing quotes end the word.
fn split_words(
    line: &mut [u8],
    length: usize,
    places: &mut SmallVec<[(u32, u32); 8]>,
) -> Result<(), FrameError> {
    places.clear();
    let line = line.get_mut(..length).unwrap_or_default();
    let mut read = 0;
    let mut write = 0;
    loop {
        while line.get(read).is_some_and(|byte| is_blank(*byte)) {
            read += 1;
        }
        if read == line.len() {
            return Ok(());
        }
        let from = write;
        (read, write) = unescape_word(line, read, write)?;
        places.push((place(from), place(write)));
    }
}

/// Reads one word from `read` on and writes it to `write` on; returns where both have come.
fn unescape_word(
    line: &mut [u8],
    mut read: usize,
    mut write: usize,
) -> Result<(usize, usize), FrameError> {
    let mut quotes = Quotes::None;
    loop {
        let byte = line.get(read).copied();
        let following = line.get(read + 1).copied();
        let (plain, taken) = match (quotes, byte, following) {
            (Quotes::None, None, _) => return Ok((read, write)),
            (Quotes::None, Some(b' ' | b'\n' | b'\r' | b'\t'), _) => return Ok((read + 1, write)),
            (Quotes::None, Some(b'"'), _) => {
                quotes = Quotes::Double;
                read += 1;
                continue;
            }
            (Quotes::None, Some(b'\''), _) => {
                quotes = Quotes::Single;
                read += 1;
                continue;
            }
            (Quotes::Single | Quotes::Double, None, _) => return Err(FrameError::UnbalancedQuotes),
            (Quotes::Double, Some(b'"'), next) | (Quotes::Single, Some(b'\''), next) => {
                if next.is_some_and(|next| !is_blank(next)) {
                    return Err(FrameError::UnbalancedQuotes);
                }
                return Ok((read + 1, write));
            }
            (Quotes::Single, Some(b'\\'), Some(b'\'')) => (b'\'', 2),
            (Quotes::Double, Some(b'\\'), Some(escaped)) => unescape(line, read, escaped),
            (_, Some(byte), _) => (byte, 1),
        };
        if let Some(slot) = line.get_mut(write) {
            *slot = plain;
        }
        write += 1;
        read += taken;
    }
}

/// What an escape at `at` stands for, and how many bytes it takes.
fn unescape(line: &[u8], at: usize, escaped: u8) -> (u8, usize) {
    let hex = |offset: usize| line.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
    let plain = match escaped {
        b'x' => match (hex(2), hex(3)) {
            (Some(high), Some(low)) => {
                return (u8::try_from(high * 16 + low).unwrap_or_default(), 4);
            }
            (Some(_) | None, _) => b'x',
        },
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    };
    (plain, 2)
}

/// Blanks as the C language has them.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}
#[cfg(test)]
mod tests {
    use super::*;

    type Requests = Vec<Vec<Vec<u8>>>;

    /// All requests of bytes that arrive in pieces of these lengths, and what ended them.
    fn cut(bytes: &[u8], pieces: &[usize], limits: &Limits) -> (Requests, Option<FrameError>) {
        let mut parser = FrameParser::default();
        let mut requests = Vec::new();
        let mut held = Vec::new();
        let mut rest = bytes;
        let mut pieces = pieces.iter().copied();
        while !rest.is_empty() {
            let length = pieces.next().unwrap_or(rest.len()).min(rest.len());
            held.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
            let lent = held.len();
            let mut view = held.as_mut_slice();
            let mut arguments = Arguments::new();
            loop {
                match parser.next(&mut view, limits, &mut arguments) {
                    Ok(true) => {
                        requests.push(arguments.iter().map(|bytes| bytes.to_vec()).collect());
                    }
                    Ok(false) => break,
                    Err(error) => return (requests, Some(error)),
                }
            }
            drop(arguments);
            let taken = lent - view.len();
            held.drain(..taken);
        }
        (requests, None)
    }

    fn whole(bytes: &[u8]) -> (Requests, Option<FrameError>) {
        cut(bytes, &[], &Limits::default())
    }

    fn requests(wanted: &[&[&str]]) -> Requests {
        let words =
            |request: &&[&str]| request.iter().map(|word| word.as_bytes().to_vec()).collect();
        wanted.iter().map(words).collect()
    }

    fn error_of(bytes: &[u8], limits: &Limits) -> String {
        let (found, error) = cut(bytes, &[], limits);
        assert_eq!(found, Requests::new(), "nothing may come of {bytes:?}");
        error.map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn arrays_and_inline_commands_become_requests() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\nPING\r\nECHO a\n";
        let expected = requests(&[&["GET", "k"], &["SET", "k", ""], &["PING"], &["ECHO", "a"]]);
        assert_eq!(whole(bytes), (expected, None));
    }

    #[test]
    fn empty_requests_are_passed_over() {
        let bytes =
            b"*0\r\n*-1\r\n\r\n\n   \r\n*-9223372036854775808\r\n*1\r\n$4\r\nPING\r\n*0\r\n";
        assert_eq!(whole(bytes), (requests(&[&["PING"]]), None));
    }

    #[test]
    fn quotes_and_escapes_are_undone() {
        for (line, words) in [
            (r#"set "a b" 'c d'"#, &["set", "a b", "c d"][..]),
            (r#"set "a\"b" 'it\'s'"#, &["set", "a\"b", "it's"]),
            (r#"echo "\x41\n\t\r\b\a\\\q""#, &["echo", "A\n\t\r\u{8}\u{7}\\q"]),
            (r#"echo "\x4" "\xzz""#, &["echo", "x4", "xzz"]),
            (r#"echo a"b c""#, &["echo", "ab c"]),
            (r#"echo """#, &["echo", ""]),
            (r"echo a\b", &["echo", r"a\b"]),
            (r"echo 'a\nb'", &["echo", r"a\nb"]),
            ("echo \u{b}x\u{c}", &["echo", "x\u{c}"]),
        ] {
            let bytes = [line.as_bytes(), b"\r\n"].concat();
            assert_eq!(whole(&bytes), (requests(&[words]), None), "{line}");
        }
    }

    #[test]
    fn hostile_bytes_end_in_the_errors_of_redis() {
        let free = Limits::default();
        let narrow = Limits { is_unauthenticated: true, ..free };
        let long_line = [b"GET ".as_slice(), &[b'x'; LINE_BYTES_MAX]].concat();
        let long_count = [b"*".as_slice(), &[b'1'; LINE_BYTES_MAX]].concat();
        let long_length = [b"*1\r\n$".as_slice(), &[b'1'; LINE_BYTES_MAX]].concat();
        for (bytes, limits, text) in [
            (b"*x\r\n".as_slice(), free, "Protocol error: invalid multibulk length"),
            (b"*\r\n", free, "Protocol error: invalid multibulk length"),
            (b"*01\r\n", free, "Protocol error: invalid multibulk length"),
            (b"*+1\r\n", free, "Protocol error: invalid multibulk length"),
            (b"*1048577\r\n", free, "Protocol error: invalid multibulk length"),
            (b"*2147483648\r\n", free, "Protocol error: invalid multibulk length"),
            (b"*9223372036854775807\r\n", free, "Protocol error: invalid multibulk length"),
            (b"*99999999999999999999\r\n", free, "Protocol error: invalid multibulk length"),
            (b"*1\r\n$-1\r\n", free, "Protocol error: invalid bulk length"),
            (b"*1\r\n$x\r\n", free, "Protocol error: invalid bulk length"),
            (b"*1\r\n$\r\n", free, "Protocol error: invalid bulk length"),
            (b"*1\r\n$67108865\r\n", free, "Protocol error: invalid bulk length"),
            (b"*1\r\n$4294967296\r\n", free, "Protocol error: invalid bulk length"),
            (b"*1\r\n$9223372036854775807\r\n", free, "Protocol error: invalid bulk length"),
            (b"*1\r\n:3\r\n", free, "Protocol error: expected '$', got ':'"),
            (b"*1\r\n*1\r\n", free, "Protocol error: expected '$', got '*'"),
            (b"*11\r\n", narrow, "Protocol error: unauthenticated multibulk length"),
            (b"*1\r\n$16385\r\n", narrow, "Protocol error: unauthenticated bulk length"),
            (b"GET \"a\r\n", free, "Protocol error: unbalanced quotes in request"),
            (b"GET \"a\"b\r\n", free, "Protocol error: unbalanced quotes in request"),
            (b"GET 'a\r\n", free, "Protocol error: unbalanced quotes in request"),
            (&long_line, free, "Protocol error: too big inline request"),
            (&long_count, free, "Protocol error: too big mbulk count string"),
            (&long_length, free, "Protocol error: too big bulk count string"),
            (b"POST / HTTP/1.1\r\n", free, "another protocol is spoken on this connection"),
            (b"post / HTTP/1.1\r\n", free, "another protocol is spoken on this connection"),
            (b"Host: localhost\r\n", free, "another protocol is spoken on this connection"),
            (b"PROXY TCP4 1.2.3.4\r\n", free, "another protocol is spoken on this connection"),
            (b"\x16\x03\x01\x02", free, "another protocol is spoken on this connection"),
        ] {
            assert_eq!(error_of(bytes, &limits), text, "{:?}", bytes.escape_ascii().to_string());
        }
        assert!(FrameError::OtherProtocol.is_silent());
    }

    #[test]
    fn a_request_over_the_limit_is_refused_when_its_length_is_announced() {
        let limits = Limits { request_bytes_max: 64, ..Limits::default() };
        let bytes = b"*2\r\n$20\r\n01234567890123456789\r\n$40\r\n";
        let expected = "Protocol error: a request of more than 64 bytes";
        assert_eq!(error_of(bytes, &limits), expected);
        assert_eq!(error_of(&bytes[..bytes.len() - 5], &limits), "");
    }

    #[test]
    fn an_announced_length_takes_no_memory() {
        let mut parser = FrameParser::default();
        let mut bytes = b"*1048576\r\n$67108864\r\nabc".to_vec();
        let mut view = bytes.as_mut_slice();
        let found = parser.next(&mut view, &Limits::default(), &mut Arguments::new());
        assert_eq!(found, Ok(false));
        assert!(parser.places.capacity() <= 8);
        let behind = "*1048576\r\n$67108864\r\n".len();
        assert_eq!(parser.missing(behind + 3), 67_108_864 + 2 - 3);
    }

    #[test]
    fn room_for_a_large_request_is_given_back() {
        let mut bytes = b"*5000\r\n".to_vec();
        bytes.extend(b"$1\r\nx\r\n".repeat(5000));
        let mut parser = FrameParser::default();
        let mut view = bytes.as_mut_slice();
        let mut arguments = Arguments::new();
        assert_eq!(parser.next(&mut view, &Limits::default(), &mut arguments), Ok(true));
        assert_eq!(arguments.len(), 5000);
        assert!(parser.places.capacity() <= KEPT_PLACES_MAX);
    }

    #[test]
    fn no_byte_of_a_long_line_is_searched_twice() {
        let mut parser = FrameParser::default();
        let mut bytes = b"GET ".to_vec();
        for _ in 0..100 {
            bytes.extend([b'x'; 100]);
            let mut view = bytes.as_mut_slice();
            let found = parser.next(&mut view, &Limits::default(), &mut Arguments::new());
            assert_eq!(found, Ok(false));
            assert_eq!(parser.searched, bytes.len());
        }
    }

    #[test]
    fn a_split_at_every_byte_gives_the_same_requests() {
        let narrow = Limits { is_unauthenticated: true, ..Limits::default() };
        for bytes in [
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\nset 'a b' \"\\x41\"\r\n*0\r\nPING\r\n".as_slice(),
            b"*3\r\n$3\r\nSET\r\n$12\r\n\r\n$1\r\n*1\r\n$4\r\n$2\r\n\r\n\r\n*-1\r\nPING\n",
            b"*1\r\n$4\r\nPING\r\n*1\r\n$99999999\r\n",
            b"PING\r\n*11\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let expected = cut(bytes, &[], &narrow);
            for at in 0..bytes.len() {
                assert_eq!(cut(bytes, &[at], &narrow), expected, "split at {at}");
            }
            let single = vec![1; bytes.len()];
            assert_eq!(cut(bytes, &single, &narrow), expected, "byte by byte");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_the_same_requests_however_they_are_split(
            parts in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::collection::vec(proptest::prelude::any::<u8>(), 0..8),
                    proptest::sample::select(vec![
                        b"\r\n".to_vec(), b"*1\r\n".to_vec(), b"*2\r\n".to_vec(), b"$".to_vec(),
                        b"$3\r\nGET\r\n".to_vec(), b"$1\r\nk\r\n".to_vec(), b"*-1\r\n".to_vec(),
                        b"'".to_vec(), b"\"".to_vec(), b"\\x4".to_vec(), b" ".to_vec(),
                        b"$-1\r\n".to_vec(), b"*0\r\n".to_vec(), b"$0\r\n\r\n".to_vec(),
                    ]),
                ],
                0..24,
            ),
            pieces in proptest::collection::vec(1..12_usize, 0..64),
        ) {
            let bytes = parts.concat();
            let limits = Limits::default();
            proptest::prop_assert_eq!(cut(&bytes, &pieces, &limits), whole(&bytes));
        }
    }
}
