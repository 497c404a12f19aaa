//! A client's own name for a request, so that it may send the request again.
//!
//! A request id is written `<datacenter>.<name>:<n>`. The datacenter is the only one where the
//! request is ever executed: what it has come to is known there. The name is the client's own. The
//! number grows from request to request, and is a time as well, Unix time in microseconds by the
//! client's clock, so that what is too old to be remembered can be told from what is new.
//!
//! Beside the id goes a check number of the words of the request: an id that is used for two
//! different requests is found out.
//!
//! Limits: `NAME_BYTES_MAX`.
#![deny(clippy::indexing_slicing)]

use crate::{
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
};

/// The longest name of a client, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// What a client says of a request so that it may send it again; the datacenter is the one that
/// has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The client's name.
    pub client: Box<str>,
    /// Which of its requests.
    pub number: u64,
    /// A check number of the words of the request.
    pub words: u32,
}

/// A request id as a client writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenId<'a> {
    /// The name of the datacenter where the request may be executed.
    pub datacenter: &'a str,
    /// The client's name.
    pub client: &'a str,
    /// Which of its requests.
    pub number: u64,
}

impl<'a> WrittenId<'a> {
    /// Takes an id apart; `None` if it is none.
    #[must_use]
    pub fn of(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (client, number) = text.rsplit_once(':')?;
        let (datacenter, client) = client.rsplit_once('.')?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let fits = is_name(client) && !datacenter.is_empty() && is_number;
        Some(Self { datacenter, client, number: number.parse().ok()? }).filter(|_| fits)
    }

    /// The id with the words of its request.
    #[must_use]
    pub fn with_words(self, words: u32) -> Retry {
        Retry { client: self.client.into(), number: self.number, words }
    }
}

impl Retry {
    /// The time that the number stands for; a number that is no time is far ahead of every clock.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        const MILLIS_MAX: u64 = Timestamp::MAX.millis();
        Timestamp::from_millis((self.number / 1000).min(MILLIS_MAX))
    }

    /// Writes it.
    pub fn write(&self, to: &mut Writer<'_>) {
        to.bytes(self.client.as_bytes());
        to.number(self.number);
        to.fixed32(self.words);
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = from.bytes()?;
        let client = std::str::from_utf8(bytes).ok().filter(|client| is_name(client));
        let found = bytes.len() as u64;
        let wrong =
            DecodeError::OverLimit { what: "a client's name", found, limit: NAME_BYTES_MAX as u64 };
        let client = client.ok_or(wrong)?.into();
        Ok(Self { client, number: from.number()?, words: from.fixed32()? })
    }
}

/// The check number of a request: its command in either case, its arguments as they are.
#[must_use]
pub fn words_of<'a>(arguments: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut sum = 0;
    for (place, argument) in arguments.enumerate() {
        let length = argument.len() as u64;
        sum = crc32c::crc32c_append(sum, &length.to_le_bytes());
        sum = if place == 0 {
            crc32c::crc32c_append(sum, &argument.to_ascii_lowercase())
        } else {
            crc32c::crc32c_append(sum, argument)
        };
    }
    sum
}

fn is_name(client: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=NAME_BYTES_MAX).contains(&client.len()) && client.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_datacenter_a_name_and_a_number() {
        let id = WrittenId::of(b"eu-west.app_7:1763767616000001").unwrap();
        assert_eq!((id.datacenter, id.client), ("eu-west", "app_7"));
        assert_eq!(id.number, 1_763_767_616_000_001);
        assert_eq!(id.with_words(0).time().millis(), 1_763_767_616_000);
        let far = WrittenId { number: u64::MAX, ..id };
        assert_eq!(far.with_words(0).time().millis(), Timestamp::MAX.millis());
        assert_eq!(WrittenId::of(b"a.b.c:1").unwrap().datacenter, "a.b");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let long = format!("eu.{}:1", "n".repeat(NAME_BYTES_MAX + 1));
        for text in [
            "",
            ":",
            "app:1",
            ".app:1",
            "eu.:1",
            "eu.app",
            "eu.app:",
            "eu.app:+1",
            "eu.app:-1",
            "eu.app:1x",
            "eu.a b:1",
            "eu.app:18446744073709551616",
            "eu.\u{e4}:1",
            &long,
        ] {
            assert_eq!(WrittenId::of(text.as_bytes()), None, "{text}");
        }
        assert_eq!(WrittenId::of(b"eu.\xff:1"), None);
    }

    #[test]
    fn words_tell_requests_apart_but_for_the_case_of_the_command() {
        let words = |arguments: &[&str]| words_of(arguments.iter().map(|it| it.as_bytes()));
        assert_eq!(words(&["SET", "k", "v"]), words(&["set", "k", "v"]));
        assert_ne!(words(&["SET", "k", "v"]), words(&["SET", "k", "V"]));
        assert_ne!(words(&["SET", "k", "v"]), words(&["SET", "kv", ""]));
        assert_ne!(words(&["DEL", "k"]), words(&["DEL", "k", ""]));
    }

    #[test]
    fn it_comes_back_from_its_bytes_and_nothing_else_does() {
        let retry = WrittenId::of(b"eu.app:1763767616000001").unwrap().with_words(7);
        let mut bytes = Vec::new();
        retry.write(&mut Writer::new(&mut bytes));
        assert_eq!(Retry::read(&mut Reader::new(&bytes)), Ok(retry));
        for end in 0..bytes.len() {
            assert!(Retry::read(&mut Reader::new(&bytes[..end])).is_err(), "cut at {end}");
        }
        assert!(Retry::read(&mut Reader::new(&[1, b'.', 1, 0, 0, 0, 0])).is_err());
    }
}
