//! Lays out segments and records as bytes, and finds records in bytes that may be damaged.
//!
//! A segment begins with a page that holds its header (numbers are little-endian):
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `antelog` and a zero |
//! | 4 | format |
//! | 4 | node |
//! | 16 | deployment |
//! | 8 | boot: number of the run of this node that wrote the segment |
//! | 8 | salt: a number that clients cannot guess |
//! | 8 | synced to: up to where a sync had completed when this header was written |
//! | 4 | zero |
//! | 4 | CRC32C of the bytes before |
//!
//! Records follow, without padding:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC32C of the rest of the record, begun with the CRC of the segment's header |
//! | 4 | length of the payload |
//! | 8 | index |
//! | 8 | synced to: up to where a sync had completed when this record was written |
//! | length | payload |
//!
//! Ensures: a record of another segment, run, node or deployment is never valid in this segment,
//! and neither are bytes that a client put into a payload (it does not know the salt).
//! The header has a page of its own, so that no write of records touches its sectors.

#![deny(clippy::indexing_slicing)]

use crate::position::LogIndex;

/// The format of segments and records that this build writes and reads.
pub const FORMAT: u32 = 1;

/// Bytes at the beginning of a segment that hold no records.
pub const HEADER_BYTES: u64 = 4096;

/// Bytes that a record takes beyond its payload.
pub const RECORD_HEADER_BYTES: usize = 24;

/// Bytes of the header that are used.
pub(crate) const HEADER_USED_BYTES: usize = 64;

/// Bytes of the mark file.
pub(crate) const MARK_BYTES: usize = 64;

const SEGMENT_MAGIC: [u8; 8] = *b"antelog\0";
const MARK_MAGIC: [u8; 8] = *b"antemark";

/// Whose log it is: a copied folder or the wrong node is noticed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn once for the deployment.
    pub deployment: [u8; 16],
    /// This node in it.
    pub node: u32,
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) boot: u64,
    pub(crate) salt: u64,
    pub(crate) synced_to: LogIndex,
}

/// What is known about the whole log, in a file of its own: written by a clean end and by a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) identity: Identity,
    /// The first record that the log still has.
    pub(crate) start: LogIndex,
    /// Everything up to here is on disk.
    pub(crate) synced_to: LogIndex,
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Too short, another magic, or a wrong checksum.
    Damaged,
    /// Sound as far as can be told, but of this format.
    Format(u32),
}

/// Writes fields one after the other.
struct Fields {
    bytes: Vec<u8>,
}

impl Fields {
    fn begin(magic: [u8; 8], identity: Identity) -> Self {
        let mut fields = Self { bytes: Vec::with_capacity(HEADER_USED_BYTES) };
        fields.bytes.extend_from_slice(&magic);
        fields.bytes.extend_from_slice(&FORMAT.to_le_bytes());
        fields.bytes.extend_from_slice(&identity.node.to_le_bytes());
        fields.bytes.extend_from_slice(&identity.deployment);
        fields
    }

    fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn end(mut self) -> [u8; 64] {
        self.bytes.resize(60, 0);
        let crc = crc32c::crc32c(&self.bytes);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes.first_chunk::<64>().copied().expect("60 bytes and a checksum of 4")
    }
}

/// Takes the fields that both kinds of header have, after checking the checksum.
fn common_fields(bytes: &[u8], magic: [u8; 8]) -> Result<(Identity, [u64; 3], u32), HeaderError> {
    let bytes = bytes.first_chunk::<64>().ok_or(HeaderError::Damaged)?;
    let (found_magic, rest) = bytes.split_first_chunk::<8>().ok_or(HeaderError::Damaged)?;
    let format = u32_at(rest, 0).ok_or(HeaderError::Damaged)?;
    let crc = u32_at(bytes, 60).ok_or(HeaderError::Damaged)?;
    let covered = bytes.get(..60).ok_or(HeaderError::Damaged)?;
    if *found_magic != magic {
        return Err(HeaderError::Damaged);
    }
    if crc32c::crc32c(covered) != crc {
        return Err(HeaderError::Damaged);
    }
    if format != FORMAT {
        return Err(HeaderError::Format(format));
    }
    let node = u32_at(bytes, 12).ok_or(HeaderError::Damaged)?;
    let (_, rest) = bytes.split_first_chunk::<16>().ok_or(HeaderError::Damaged)?;
    let deployment = *rest.first_chunk::<16>().ok_or(HeaderError::Damaged)?;
    let mut numbers = [0; 3];
    for (number, at) in numbers.iter_mut().zip([32, 40, 48]) {
        *number = u64_at(bytes, at).ok_or(HeaderError::Damaged)?;
    }
    Ok((Identity { deployment, node }, numbers, crc))
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_USED_BYTES] {
        let mut fields = Fields::begin(SEGMENT_MAGIC, self.identity);
        fields.number(self.boot);
        fields.number(self.salt);
        fields.number(self.synced_to.get());
        fields.end()
    }

    /// The checksum with which those of the segment's records begin.
    pub(crate) fn seed(&self) -> u32 {
        let bytes = self.encode();
        u32_at(&bytes, 60).expect("a header has 64 bytes")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let (identity, [boot, salt, synced_to], _) = common_fields(bytes, SEGMENT_MAGIC)?;
        Ok(Self { identity, boot, salt, synced_to: LogIndex::new(synced_to) })
    }
}

impl Mark {
    pub(crate) fn encode(&self) -> [u8; MARK_BYTES] {
        let mut fields = Fields::begin(MARK_MAGIC, self.identity);
        fields.number(self.start.get());
        fields.number(self.synced_to.get());
        fields.end()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let (identity, [start, synced_to, _], _) = common_fields(bytes, MARK_MAGIC)?;
        Ok(Self { identity, start: LogIndex::new(start), synced_to: LogIndex::new(synced_to) })
    }
}

/// Begins a record at the end of `buffer`; the payload follows, then [`end_record`].
pub(crate) fn begin_record(buffer: &mut Vec<u8>, index: LogIndex) {
    let mut header = [0; RECORD_HEADER_BYTES];
    if let Some(place) = header.get_mut(8..16) {
        place.copy_from_slice(&index.get().to_le_bytes());
    }
    buffer.extend_from_slice(&header);
}

/// Ends the record that begins at `start` with everything that `buffer` holds behind its header.
pub(crate) fn end_record(buffer: &mut [u8], start: usize, length: u32) {
    if let Some(place) = buffer.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// What [`seal`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Bytes of whole records, from the beginning, that fit and are ready to be written.
    pub(crate) bytes: usize,
    /// The last of them; `None` if not even the first one fits.
    pub(crate) last: Option<LogIndex>,
    /// Bytes of the first record that did not fit; `None` if all fit.
    pub(crate) next_bytes: Option<usize>,
}

/// Fills in checksum and `synced_to` of as many of the `records` as fit into `room`.
///
/// This is done when records are written, not when they are appended: outside the appenders'
/// lock, and with the newest knowledge about what is synced.
pub(crate) fn seal(records: &mut [u8], seed: u32, synced_to: LogIndex, room: u64) -> Sealed {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let mut sealed = Sealed { bytes: 0, last: None, next_bytes: None };
    loop {
        let rest = records.get_mut(sealed.bytes..).unwrap_or_default();
        let (Some(length), Some(index)) = (u32_at(rest, 4), u64_at(rest, 8)) else {
            return sealed;
        };
        let length = usize::try_from(length).expect("a record is in memory");
        let bytes = RECORD_HEADER_BYTES + length;
        if room - sealed.bytes < bytes {
            sealed.next_bytes = Some(bytes);
            return sealed;
        }
        if let Some(place) = rest.get_mut(16..24) {
            place.copy_from_slice(&synced_to.get().to_le_bytes());
        }
        let crc = crc32c::crc32c_append(seed, rest.get(4..bytes).unwrap_or_default());
        if let Some(place) = rest.get_mut(..4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        sealed.bytes += bytes;
        sealed.last = Some(LogIndex::new(index));
    }
}

/// The numbers before a payload, not yet verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) crc: u32,
    pub(crate) length: u32,
    pub(crate) index: u64,
    pub(crate) synced_to: u64,
}

impl RecordHeader {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<RECORD_HEADER_BYTES>()?;
        Some(Self {
            crc: u32_at(bytes, 0)?,
            length: u32_at(bytes, 4)?,
            index: u64_at(bytes, 8)?,
            synced_to: u64_at(bytes, 16)?,
        })
    }

    /// Bytes of the whole record.
    pub(crate) fn record_bytes(&self) -> usize {
        usize::try_from(self.length).map_or(usize::MAX, |n| n.saturating_add(RECORD_HEADER_BYTES))
    }

    /// The payload, if `record` (which begins with this header) is whole and unchanged.
    pub(crate) fn verified<'a>(&self, record: &'a [u8], seed: u32) -> Option<&'a [u8]> {
        let record = record.get(..self.record_bytes())?;
        let (_, covered) = record.split_first_chunk::<4>()?;
        if crc32c::crc32c_append(seed, covered) != self.crc {
            return None;
        }
        record.get(RECORD_HEADER_BYTES..)
    }
}

/// A record that proves that `expected` had been synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// Where in the searched bytes the record begins.
    pub(crate) offset: usize,
    /// Up to where it says that a sync had completed.
    pub(crate) synced_to: LogIndex,
}

/// Searches damaged bytes for a whole record written when `expected` was already synced.
///
/// Lengths cannot be trusted here, so a record may begin at any byte; runs of zeros (space that
/// was never written) are skipped.
pub(crate) fn find_evidence(bytes: &[u8], seed: u32, expected: LogIndex) -> Option<Evidence> {
    let expected = expected.get();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.first_chunk::<16>().is_none_or(|head| *head == [0; 16]) {
            // An index is never zero, so a record has a byte other than zero among its first 16.
            at += first_nonzero(rest)?.saturating_sub(15);
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let header = RecordHeader::decode(rest)?;
        let tells = expected <= header.synced_to && header.synced_to < header.index;
        if tells && header.verified(rest, seed).is_some() {
            return Some(Evidence { offset: at, synced_to: LogIndex::new(header.synced_to) });
        }
        at += 1;
    }
}

/// Where the first byte other than zero is.
fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    let (chunks, _) = bytes.as_chunks::<64>();
    let zeros = chunks.iter().take_while(|c| c.iter().fold(0, |a, b| a | b) == 0).count() * 64;
    let rest = bytes.get(zeros..)?;
    rest.iter().position(|byte| *byte != 0).map(|at| zeros + at)
}

/// Bytes up to and including the last one that is not zero.
pub(crate) fn used_bytes(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}
