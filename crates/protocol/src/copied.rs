//! Holds what a replica copies from its chain's tail when its own log cannot be continued.
//!
//! A copy has a *start*: the position that it begins at, and what the log before that position has
//! come to apart from the keys: its lines of stamps, and what requests with an id came to. The keys follow in *parts*, in the order of their hashes; entries
//! behind the start run beside them. A part holds the committed state of its keys at the position
//! of the log that the copying replica has when it takes the part. So an entry concerns a key that
//! has been copied already, and is applied, or one that has not, and is contained in its part.
//!
//! Ensures: records are checked when a part is read; machines take them without errors.
#![deny(clippy::indexing_slicing)]

use std::time::Duration;

use antecede_model::{
    applied::AppliedSet,
    clock::Timestamp,
    codec::{DecodeError, Reader, Writer},
    ids::{DatacenterId, Position},
};

use crate::{entry::Identity, retries::Remembered, state};

/// What `part_bytes` usually is: bytes of records in one part, about; one record at least.
pub const PART_BYTES: usize = 256 * 1024;
/// What `part_pause` usually is: about 100 MB a second and shard at most.
pub const PART_PAUSE: Duration = Duration::from_millis(2);

/// What a log has come to at one position, apart from its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The last entry that is contained; none in an empty log.
    pub last: Option<Identity>,
    /// The lines of stamps.
    pub lines: Vec<LineStart>,
    /// The visible-at of the newest entry that is contained.
    pub shown_to: Timestamp,
    /// The largest visible-at of what was collected.
    pub collected_to: Timestamp,
    /// What requests with an id came to.
    pub retries: Remembered,
}

impl Start {
    /// The position that the copy begins at.
    #[must_use]
    pub fn position(&self) -> Position {
        self.last.map_or(Position(0), |identity| identity.position)
    }

    /// The largest time in it; no sender's clock is behind what it has.
    #[must_use]
    pub fn newest(&self) -> Timestamp {
        let of_line = |line: &LineStart| {
            let above = line.applied.above().last().unwrap_or_default();
            above.max(line.applied.watermark()).max(line.newest_write)
        };
        let lines = self.lines.iter().map(of_line).max().unwrap_or_default();
        lines.max(self.shown_to).max(self.collected_to).max(self.retries.newest())
    }

    /// Writes the start.
    pub fn write(&self, to: &mut Writer<'_>) {
        let has_retries = !self.retries.is_empty();
        to.u8(u8::from(self.last.is_some()) + 2 * u8::from(has_retries));
        if let Some(last) = self.last {
            last.write(to);
        }
        to.length(self.lines.len());
        for line in &self.lines {
            to.datacenter(line.origin);
            line.applied.write(to);
            to.timestamp(line.newest_write);
        }
        to.timestamp(self.shown_to);
        to.timestamp(self.collected_to);
        if has_retries {
            self.retries.write(to);
        }
    }

    /// Reads a start.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "beginning of a copy";
        let (has_last, has_retries) = match from.u8()? {
            0 => (false, false),
            1 => (true, false),
            2 => (false, true),
            3 => (true, true),
            found => return Err(DecodeError::UnknownTag { what, found }),
        };
        Ok(Self {
            last: if has_last { Some(Identity::read(from)?) } else { None },
            lines: from.list("lines", |from| {
                Ok(LineStart {
                    origin: from.datacenter()?,
                    applied: AppliedSet::read(from)?,
                    newest_write: from.timestamp()?,
                })
            })?,
            shown_to: from.timestamp()?,
            collected_to: from.timestamp()?,
            retries: if has_retries { Remembered::read(from)? } else { Remembered::default() },
        })
    }
}

/// One origin's line of stamps at the start of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineStart {
    /// Whose line.
    pub origin: DatacenterId,
    /// What is committed.
    pub applied: AppliedSet,
    /// The largest stamp of an entry that is not a tick.
    pub newest_write: Timestamp,
}

/// The committed state of all keys of a range of hashes, at one position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The first hash of the range.
    pub from: u64,
    /// The first hash behind it; none when there is no more.
    pub next: Option<u64>,
    /// The records of its keys, in the order of hashes.
    pub records: Vec<Box<[u8]>>,
}

impl Part {
    /// Writes the part.
    pub fn write(&self, to: &mut Writer<'_>) {
        to.fixed64(self.from);
        to.option(self.next, |to, next| to.fixed64(next));
        to.length(self.records.len());
        for record in &self.records {
            to.bytes(record);
        }
    }

    /// Reads and checks a part.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are none.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let first = from.fixed64()?;
        let next = from.option(Reader::fixed64)?;
        if let Some(next) = next
            && next <= first
        {
            return Err(DecodeError::OverLimit { what: "a first hash", found: first, limit: next });
        }
        let records = from.list("records of keys", |from| {
            let record = from.bytes()?;
            state::check_record(record)?;
            Ok(record.into())
        })?;
        Ok(Self { from: first, next, records })
    }
}
