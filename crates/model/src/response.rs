//! What a client is told, before it is written in the client's protocol.
#![deny(clippy::indexing_slicing)]

use crate::{
    codec::{DecodeError, Reader, Writer},
    refusal::Refusal,
    sighting::Sighting,
};

/// How deep answers may lie in one another: an `EXEC` of lists.
const DEPTH_MAX: u8 = 4;

/// The answer to one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// `OK`.
    Ok,
    /// Nothing is there, or nothing was done.
    Nil,
    /// A number.
    Integer(i64),
    /// Bytes: a value, a key.
    Bytes(Vec<u8>),
    /// A word of the protocol, such as a type's name.
    Word(Word),
    /// Several answers in order.
    List(Vec<Self>),
    /// A transaction was not executed because a watched key had changed.
    Aborted,
    /// What is under a key; for `WATCH`.
    Observed(Sighting),
    /// A step of a scan: where to go on (`None` at the shard's end), and the keys.
    Scanned {
        /// The smallest hash that was not looked at.
        next: Option<u64>,
        /// Keys found.
        keys: Vec<Vec<u8>>,
    },
    /// Not served.
    Refused(Refusal),
}

/// Words that answers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Type of a string.
    String,
    /// Type of an absent key.
    None,
    /// Encoding of a string that is a number.
    Int,
    /// Encoding of a short string.
    Embstr,
    /// Encoding of a long string.
    Raw,
}

impl Word {
    /// The word as clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::None => "none",
            Self::Int => "int",
            Self::Embstr => "embstr",
            Self::Raw => "raw",
        }
    }
}

impl Response {
    /// Writes the response.
    pub fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Ok => to.u8(0),
            Self::Nil => to.u8(1),
            Self::Integer(value) => {
                to.u8(2);
                to.signed(*value);
            }
            Self::Bytes(bytes) => {
                to.u8(3);
                to.bytes(bytes);
            }
            Self::Word(word) => {
                to.u8(4);
                to.u8(match word {
                    Word::String => 0,
                    Word::None => 1,
                    Word::Int => 2,
                    Word::Embstr => 3,
                    Word::Raw => 4,
                });
            }
            Self::List(items) => {
                to.u8(5);
                to.length(items.len());
                for item in items {
                    item.write(to);
                }
            }
            Self::Aborted => to.u8(6),
            Self::Observed(sighting) => {
                to.u8(7);
                sighting.write(to);
            }
            Self::Scanned { next, keys } => {
                to.u8(8);
                to.option(*next, Writer::fixed64);
                to.length(keys.len());
                for key in keys {
                    to.bytes(key);
                }
            }
            Self::Refused(refusal) => {
                to.u8(9);
                refusal.write(to);
            }
        }
    }

    /// Reads a response.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read_at(from, 0)
    }

    fn read_at(from: &mut Reader<'_>, depth: u8) -> Result<Self, DecodeError> {
        if depth == DEPTH_MAX {
            return Err(DecodeError::OverLimit {
                what: "depth of a response",
                found: u64::from(depth),
                limit: u64::from(DEPTH_MAX - 1),
            });
        }
        Ok(match from.u8()? {
            0 => Self::Ok,
            1 => Self::Nil,
            2 => Self::Integer(from.signed()?),
            3 => Self::Bytes(from.bytes()?.to_vec()),
            4 => Self::Word(match from.u8()? {
                0 => Word::String,
                1 => Word::None,
                2 => Word::Int,
                3 => Word::Embstr,
                4 => Word::Raw,
                found => return Err(DecodeError::UnknownTag { what: "word", found }),
            }),
            5 => Self::List(from.list("responses", |from| Self::read_at(from, depth + 1))?),
            6 => Self::Aborted,
            7 => Self::Observed(Sighting::read(from)?),
            8 => Self::Scanned {
                next: from.option(Reader::fixed64)?,
                keys: from.list("keys", |from| Ok(from.bytes()?.to_vec()))?,
            },
            9 => Self::Refused(Refusal::read(from)?),
            found => return Err(DecodeError::UnknownTag { what: "response", found }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Version;

    #[test]
    fn responses_come_back() {
        let all = Response::List(vec![
            Response::Ok,
            Response::Nil,
            Response::Integer(-5),
            Response::Bytes(b"v".to_vec()),
            Response::Word(Word::Embstr),
            Response::List(vec![Response::Aborted]),
            Response::Observed(Sighting::Present(Version::default())),
            Response::Scanned { next: Some(4), keys: vec![b"k".to_vec()] },
            Response::Refused(Refusal::WrongType),
        ]);
        let mut bytes = Vec::new();
        all.write(&mut Writer::new(&mut bytes));
        assert_eq!(Response::read(&mut Reader::new(&bytes)), Ok(all));
    }

    #[test]
    fn a_response_that_lies_too_deep_is_refused() {
        let nested = [5_u8, 1].repeat(100);
        let error = Response::read(&mut Reader::new(&nested)).unwrap_err();
        assert!(matches!(error, DecodeError::OverLimit { .. }));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let read = Response::read(&mut Reader::new(&bytes));
            proptest::prop_assert!(read.is_ok() || read.is_err());
        }
    }
}
