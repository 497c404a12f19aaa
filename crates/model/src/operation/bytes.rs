//! Writes operations as bytes for messages between nodes, and reads them back borrowed.
//!
//! Tags are fixed numbers: a new action gets a new one, an old one is never used again.
#![deny(clippy::indexing_slicing)]

use super::{
    Action, Condition, Description, ExpireCondition, ExpiryForm, Operation, Scan, SetReply,
    ShardOperation, Ttl,
};
use crate::{
    codec::{DecodeError, Reader, Writer},
    sighting::Sighting,
};

/// Gives each plain variant of an enum its fixed number.
macro_rules! tags {
    ($kind:ident, $what:literal, { $($variant:ident = $tag:literal),+ $(,)? }) => {
        impl $kind {
            fn write(self, to: &mut Writer<'_>) {
                to.u8(match self { $(Self::$variant => $tag),+ });
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match from.u8()? {
                    $($tag => Ok(Self::$variant),)+
                    found => Err(DecodeError::UnknownTag { what: $what, found }),
                }
            }
        }
    };
}

tags!(Condition, "condition of a set", { Always = 0, IfAbsent = 1, IfPresent = 2 });
tags!(SetReply, "reply of a set", { Status = 0, Previous = 1, Flag = 2 });
tags!(ExpiryForm, "form of an expiry", { Seconds = 0, Millis = 1, AtSeconds = 2, AtMillis = 3 });
tags!(Description, "description of a key", { Encoding = 0, Memory = 1, References = 2 });
tags!(ExpireCondition, "condition of an expire", {
    Always = 0,
    IfNone = 1,
    IfSome = 2,
    IfLater = 3,
    IfEarlier = 4,
    IfSomeAndLater = 5,
    IfSomeAndEarlier = 6,
});

impl Ttl {
    fn write(self, to: &mut Writer<'_>) {
        match self {
            Self::Clear => to.u8(0),
            Self::Keep => to.u8(1),
            Self::Until(deadline) => {
                to.u8(2);
                to.number(deadline);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            0 => Ok(Self::Clear),
            1 => Ok(Self::Keep),
            2 => Ok(Self::Until(from.number()?)),
            found => Err(DecodeError::UnknownTag { what: "time to live", found }),
        }
    }
}

impl<'a> Operation<'a> {
    /// Writes the operation.
    pub fn write(&self, to: &mut Writer<'_>) {
        to.bytes(self.key);
        match &self.action {
            Action::Get => to.u8(0),
            Action::Length => to.u8(1),
            Action::Range { start, end } => {
                to.u8(2);
                to.signed(*start);
                to.signed(*end);
            }
            Action::Exists => to.u8(3),
            Action::Type => to.u8(4),
            Action::Expiry(form) => {
                to.u8(5);
                form.write(to);
            }
            Action::Describe(description) => {
                to.u8(6);
                description.write(to);
            }
            Action::Observe => to.u8(7),
            Action::Set { value, condition, ttl, reply } => {
                to.u8(8);
                to.bytes(value);
                condition.write(to);
                ttl.write(to);
                reply.write(to);
            }
            Action::Delete => to.u8(9),
            Action::Expire { deadline, condition } => {
                to.u8(10);
                to.number(*deadline);
                condition.write(to);
            }
            Action::Persist => to.u8(11),
            Action::GetAndExpire { ttl } => {
                to.u8(12);
                ttl.write(to);
            }
            Action::GetAndDelete => to.u8(13),
            Action::Append { value } => {
                to.u8(14);
                to.bytes(value);
            }
            Action::SetRange { offset, value } => {
                to.u8(15);
                to.number(*offset);
                to.bytes(value);
            }
        }
    }

    /// Reads an operation, borrowing its key and value.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no operation.
    pub fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let key = from.bytes()?;
        let action = match from.u8()? {
            0 => Action::Get,
            1 => Action::Length,
            2 => Action::Range { start: from.signed()?, end: from.signed()? },
            3 => Action::Exists,
            4 => Action::Type,
            5 => Action::Expiry(ExpiryForm::read(from)?),
            6 => Action::Describe(Description::read(from)?),
            7 => Action::Observe,
            8 => Action::Set {
                value: from.bytes()?,
                condition: Condition::read(from)?,
                ttl: Ttl::read(from)?,
                reply: SetReply::read(from)?,
            },
            9 => Action::Delete,
            10 => {
                Action::Expire { deadline: from.number()?, condition: ExpireCondition::read(from)? }
            }
            11 => Action::Persist,
            12 => Action::GetAndExpire { ttl: Ttl::read(from)? },
            13 => Action::GetAndDelete,
            14 => Action::Append { value: from.bytes()? },
            15 => Action::SetRange { offset: from.number()?, value: from.bytes()? },
            found => return Err(DecodeError::UnknownTag { what: "action", found }),
        };
        Ok(Self { key, action })
    }
}

impl<'a> ShardOperation<'a> {
    /// Writes the operation.
    pub fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::One(operation) => {
                to.u8(0);
                operation.write(to);
            }
            Self::Batch { watched, operations } => {
                to.u8(1);
                to.length(watched.len());
                for (key, sighting) in watched {
                    to.bytes(key);
                    sighting.write(to);
                }
                to.length(operations.len());
                for operation in operations {
                    operation.write(to);
                }
            }
            Self::Scan(scan) => {
                to.u8(2);
                to.fixed64(scan.from);
                to.number(scan.count);
                to.option(scan.pattern, Writer::bytes);
            }
            Self::Count => to.u8(3),
            Self::Random { draw } => {
                to.u8(4);
                to.fixed64(*draw);
            }
            Self::Replicated { stamp, count, timeout_millis } => {
                to.u8(5);
                to.timestamp(*stamp);
                to.number(*count);
                to.number(*timeout_millis);
            }
        }
    }

    /// Reads an operation, borrowing keys and values.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no operation.
    pub fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match from.u8()? {
            0 => Ok(Self::One(Operation::read(from)?)),
            1 => Ok(Self::Batch {
                watched: from
                    .list("watched keys", |from| Ok((from.bytes()?, Sighting::read(from)?)))?,
                operations: from.list("operations", Operation::read)?,
            }),
            2 => Ok(Self::Scan(Scan {
                from: from.fixed64()?,
                count: from.number()?,
                pattern: from.option(Reader::bytes)?,
            })),
            3 => Ok(Self::Count),
            4 => Ok(Self::Random { draw: from.fixed64()? }),
            5 => Ok(Self::Replicated {
                stamp: from.timestamp()?,
                count: from.number()?,
                timeout_millis: from.number()?,
            }),
            found => Err(DecodeError::UnknownTag { what: "operation of a shard", found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Timestamp, version::Version};

    fn every_operation() -> Vec<Operation<'static>> {
        let of = |action| Operation { key: b"k", action };
        vec![
            of(Action::Get),
            of(Action::Length),
            of(Action::Range { start: -3, end: i64::MAX }),
            of(Action::Exists),
            of(Action::Type),
            of(Action::Expiry(ExpiryForm::AtMillis)),
            of(Action::Describe(Description::Memory)),
            of(Action::Observe),
            of(Action::Set {
                value: b"v",
                condition: Condition::IfAbsent,
                ttl: Ttl::Until(7),
                reply: SetReply::Flag,
            }),
            of(Action::Delete),
            of(Action::Expire { deadline: 9, condition: ExpireCondition::IfSomeAndEarlier }),
            of(Action::Persist),
            of(Action::GetAndExpire { ttl: Ttl::Keep }),
            of(Action::GetAndDelete),
            of(Action::Append { value: b"" }),
            of(Action::SetRange { offset: u64::MAX, value: b"xyz" }),
        ]
    }

    #[test]
    fn every_operation_comes_back() {
        let mut all: Vec<ShardOperation<'_>> =
            every_operation().into_iter().map(ShardOperation::One).collect();
        all.push(ShardOperation::Batch {
            watched: vec![
                (b"w", Sighting::Absent { at: Timestamp(5) }),
                (b"x", Sighting::Present(Version::default())),
            ],
            operations: every_operation(),
        });
        all.push(ShardOperation::Scan(Scan { from: 3, count: 10, pattern: Some(b"a*") }));
        all.push(ShardOperation::Count);
        all.push(ShardOperation::Random { draw: 99 });
        all.push(ShardOperation::Replicated { stamp: Timestamp(5), count: 2, timeout_millis: 100 });
        for operation in all {
            let mut bytes = Vec::new();
            operation.write(&mut Writer::new(&mut bytes));
            let mut reader = Reader::new(&bytes);
            assert_eq!(ShardOperation::read(&mut reader), Ok(operation));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let read = ShardOperation::read(&mut Reader::new(&bytes));
            proptest::prop_assert!(read.is_ok() || read.is_err());
        }
    }
}
