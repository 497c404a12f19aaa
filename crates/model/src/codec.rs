//! Writes values as bytes and reads them back, with limits and without panics.
//!
//! Integers are variable-length (7 bits a byte, little end first), byte strings carry their length.
//! A decoder takes what it needs from the front and fails with what was wrong where.
//!
//! Ensures: reading never allocates more than the bytes that are there, and never panics.
#![deny(clippy::indexing_slicing)]

use crate::{
    clock::Timestamp,
    ids::{DatacenterId, NodeId, ShardId},
    version::Version,
};

/// Bytes that do not say what they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("bytes end where {wanted} more were expected")]
    Short {
        /// How many bytes were expected at least.
        wanted: usize,
    },
    /// A number is larger than its type or its limit.
    #[error("number {found} of {what} is over the limit of {limit}")]
    OverLimit {
        /// What the number counts.
        what: &'static str,
        /// What was found.
        found: u64,
        /// The largest that is accepted.
        limit: u64,
    },
    /// A tag names no variant that this build knows.
    #[error("tag {found} is no {what} that this build knows")]
    UnknownTag {
        /// What was to be decoded.
        what: &'static str,
        /// The tag.
        found: u8,
    },
    /// Bytes are left over behind a complete value.
    #[error("{count} bytes are left behind a complete value")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A checksum does not fit.
    #[error("checksum is {found:08x}, the bytes have {computed:08x}")]
    Checksum {
        /// The one that came with the bytes.
        found: u32,
        /// The one that the bytes have.
        computed: u32,
    },
}

/// Appends values to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes behind what the buffer holds.
    pub const fn new(buffer: &'a mut Vec<u8>) -> Self {
        Self { buffer }
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.buffer.push(value);
    }

    /// A number in as few bytes as it needs.
    #[inline]
    pub fn number(&mut self, value: u64) {
        if let Ok(byte @ ..0x80) = u8::try_from(value) {
            self.buffer.push(byte); // Nearly all of them.
        } else {
            self.long_number(value);
        }
    }

    fn long_number(&mut self, value: u64) {
        let mut rest = value;
        while 0x7f < rest {
            self.buffer.push(0x80 | (rest & 0x7f).to_le_bytes()[0]);
            rest >>= 7;
        }
        self.buffer.push(rest.to_le_bytes()[0]);
    }

    /// A signed number, small in either direction in few bytes.
    pub fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// Four bytes, little end first.
    pub fn fixed32(&mut self, value: u32) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    /// Eight bytes, little end first.
    pub fn fixed64(&mut self, value: u64) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
    }

    /// A count or a length.
    #[inline]
    pub fn length(&mut self, value: usize) {
        self.number(value as u64);
    }

    /// A byte string with its length.
    #[inline]
    pub fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.buffer.extend_from_slice(value);
    }

    /// A truth value in one byte.
    pub fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A timestamp in eight bytes: near wall time a variable length would need nine.
    pub fn timestamp(&mut self, value: Timestamp) {
        self.fixed64(value.0);
    }

    /// A datacenter.
    #[inline]
    pub fn datacenter(&mut self, value: DatacenterId) {
        self.number(u64::from(value.0));
    }

    /// A node.
    pub fn node(&mut self, value: NodeId) {
        self.fixed32(value.to_bits());
    }

    /// A shard.
    pub fn shard(&mut self, value: ShardId) {
        self.number(u64::from(value.0));
    }

    /// A version.
    pub fn version(&mut self, value: Version) {
        self.timestamp(value.timestamp);
        self.datacenter(value.origin);
    }

    /// Fields with their length together: a later build may write more of them behind these.
    pub fn fields(&mut self, write: impl FnOnce(&mut Writer<'_>)) {
        let mut fields = Vec::new();
        write(&mut Writer::new(&mut fields));
        self.bytes(&fields);
    }

    /// A value that may be absent, as a flag and the value.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Takes values from the front of bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left: what an earlier build has written ends before newer fields.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails if bytes are left over.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] with their number.
    pub const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing { count: self.rest.len() })
        }
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| DecodeError::Short { wanted: N.saturating_sub(self.rest.len()) })?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.take::<1>()?))
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but 0 and 1.
    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(DecodeError::UnknownTag { what: "truth value", found }),
        }
    }

    /// A number of variable length.
    ///
    /// # Errors
    /// [`DecodeError`] at the end, or when it does not fit 64 bits.
    #[inline]
    pub fn number(&mut self) -> Result<u64, DecodeError> {
        match self.rest {
            [byte @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte)) // Nearly all of them.
            }
            _ => self.long_number(),
        }
    }

    fn long_number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        let mut shift = 0_u32;
        loop {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && 1 < part || 63 < shift {
                return Err(DecodeError::OverLimit {
                    what: "a number",
                    found: u64::MAX,
                    limit: u64::MAX,
                });
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A signed number.
    ///
    /// # Errors
    /// As [`Reader::number`].
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let raw = self.number()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// A number of at most `limit`.
    ///
    /// # Errors
    /// [`DecodeError::OverLimit`] beyond it.
    #[inline]
    pub fn number_up_to(&mut self, what: &'static str, limit: u64) -> Result<u64, DecodeError> {
        let found = self.number()?;
        if limit < found {
            return Err(DecodeError::OverLimit { what, found, limit });
        }
        Ok(found)
    }

    #[inline]
    fn number_u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        let found = self.number()?;
        u16::try_from(found).map_err(|_| DecodeError::OverLimit {
            what,
            found,
            limit: u64::from(u16::MAX),
        })
    }

    /// Four bytes, little end first.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn fixed32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take::<4>()?))
    }

    /// Eight bytes, little end first.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn fixed64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.take::<8>()?))
    }

    /// How many items follow; never more than bytes are left, as each takes at least one.
    ///
    /// # Errors
    /// [`DecodeError`] for a count that the bytes cannot hold.
    #[inline]
    pub fn count(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let limit = self.rest.len() as u64;
        let found = self.number_up_to(what, limit)?;
        usize::try_from(found).map_err(|_| DecodeError::OverLimit { what, found, limit })
    }

    /// A byte string with its length, borrowed.
    ///
    /// # Errors
    /// [`DecodeError`] when it is longer than what is left.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.count("bytes in a string")?;
        let (head, rest) =
            self.rest.split_at_checked(length).ok_or(DecodeError::Short { wanted: length })?;
        self.rest = rest;
        Ok(head)
    }

    /// Fields with their length together; what a later build wrote behind them is skipped.
    ///
    /// # Errors
    /// As [`Reader::bytes`], and what `read` finds.
    pub fn fields<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        read(&mut Self::new(self.bytes()?))
    }

    /// A timestamp.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn timestamp(&mut self) -> Result<Timestamp, DecodeError> {
        Ok(Timestamp(self.fixed64()?))
    }

    /// A datacenter.
    ///
    /// # Errors
    /// [`DecodeError`] when it is no datacenter's number.
    #[inline]
    pub fn datacenter(&mut self) -> Result<DatacenterId, DecodeError> {
        Ok(DatacenterId(self.number_u16("a datacenter")?))
    }

    /// A node.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end.
    pub fn node(&mut self) -> Result<NodeId, DecodeError> {
        Ok(NodeId::from_bits(self.fixed32()?))
    }

    /// A shard.
    ///
    /// # Errors
    /// [`DecodeError`] when it is no shard's number.
    #[inline]
    pub fn shard(&mut self) -> Result<ShardId, DecodeError> {
        Ok(ShardId(self.number_u16("a shard")?))
    }

    /// A version.
    ///
    /// # Errors
    /// [`DecodeError`] at the end.
    pub fn version(&mut self) -> Result<Version, DecodeError> {
        Ok(Version { timestamp: self.timestamp()?, origin: self.datacenter()? })
    }

    /// A value that may be absent.
    ///
    /// # Errors
    /// [`DecodeError`] of the flag or of the value.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// As many items as a count in front of them says.
    ///
    /// # Errors
    /// [`DecodeError`] of the count or of an item.
    pub fn list<T>(
        &mut self,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(what)?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64) {
            let mut buffer = Vec::new();
            let mut writer = Writer::new(&mut buffer);
            writer.number(value);
            writer.signed(signed);
            let mut reader = Reader::new(&buffer);
            prop_assert_eq!(reader.number(), Ok(value));
            prop_assert_eq!(reader.signed(), Ok(signed));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            let read = reader.clone().number();
            prop_assert!(read.is_ok() || read.is_err());
            let read = reader.clone().version();
            prop_assert!(read.is_ok() || read.is_err());
            let read = reader.clone().option(Reader::timestamp);
            prop_assert!(read.is_ok() || read.is_err());
            let read = reader.list("strings", Reader::bytes);
            prop_assert!(read.is_ok() || read.is_err());
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused() {
        let mut reader = Reader::new(&[0xff; 11]);
        assert!(matches!(reader.number(), Err(DecodeError::OverLimit { .. })));
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(reader.number(), Ok(u64::MAX));
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_is_refused_before_anything_is_allocated() {
        let mut buffer = Vec::new();
        Writer::new(&mut buffer).number(u64::from(u32::MAX));
        let error = Reader::new(&buffer).list("items", Reader::u8).unwrap_err();
        assert!(matches!(error, DecodeError::OverLimit { .. }));
    }
}
