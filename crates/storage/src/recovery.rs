//! Reads the log back at start-up: streams its records, cuts a torn end, refuses a corrupt middle.
//!
//! Records are read in order until the first that is missing or damaged. Then everything behind it
//! is searched for a whole record or a segment header that was written when the damaged record had
//! already been synced. If there is one, the damage is corruption: nothing is changed and opening
//! fails. If there is none, any pattern of holes is what a power loss leaves of writes that were
//! not synced: later segments are removed, this one is cut, and both are made durable before
//! anything new is written.
//!
//! Ensures: everything that was streamed is durable before the log is used (after the end of a
//! process it may have been in the operating system's cache only).
//! Ensures: bytes that were cut never come back. The file is cut and synced, the new run writes
//! into a new segment with a larger boot number, a record is only valid in its own segment, and a
//! segment is never read beyond the first record of the next one.
//!
//! What cannot be told apart: damage to the very last batch before a power loss looks like a torn
//! end, because nothing was written after its sync. After a clean end the mark tells.

use std::io;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::frame::{
    self, FORMAT, HEADER_BYTES, HEADER_USED_BYTES, HeaderError, Identity, MARK_BYTES, Mark,
    RECORD_HEADER_BYTES, RecordHeader, SegmentHeader,
};
use crate::position::LogIndex;
use crate::writer::{MARK_NAME, SEGMENT_SUFFIX, TEMPORARY_SUFFIX, segment_name};

/// Bytes that are read at once.
const READ_BYTES: usize = 1024 * 1024;

/// What was found at start-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Records that were streamed.
    pub records: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Segments they were in.
    pub segments: u64,
    /// The last of them; everything up to here is on disk now.
    pub recovered_to: LogIndex,
    /// Bytes of a torn end that were cut off; zero after a clean end.
    pub torn_bytes: u64,
    /// Number of the run that begins now.
    pub boot: u64,
}

/// What the writer must know of the past.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) report: RecoveryReport,
    pub(crate) firsts: Vec<LogIndex>,
    pub(crate) log_start: LogIndex,
}

/// A segment that is there, with a sound header.
#[derive(Debug)]
struct Found<F> {
    file: F,
    name: String,
    size: u64,
    first: LogIndex,
    header: SegmentHeader,
    seed: u32,
}

/// Where reading stopped.
#[derive(Clone, Copy, Debug)]
struct Stop {
    segment: usize,
    offset: u64,
}

fn io_error<D: Disk>(disk: &D, name: &str, source: io::Error) -> OpenError {
    OpenError::Io { path: disk.path(name), source }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("a size fits u64")
}

fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a segment fits into memory")
}

/// Streams what the log holds to `visit` and leaves the folder ready for a new run.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    identity: Identity,
    visit: &mut dyn FnMut(LogIndex, &[u8]),
) -> Result<Recovered, OpenError> {
    let names = disk.list().map_err(|e| io_error(disk, "", e))?;
    let (mut recovery, stop) = read(disk, &names, identity, visit)?;

    // From here on the folder is changed.
    recovery.remove_leftovers(&names)?;
    recovery.cut(stop)?;
    // A removed segment was of the same run as the last that is kept: the first segment of a later
    // run says that everything before it had been synced, so it would have been refused.
    recovery.report.boot = recovery.segments.last().map_or(0, |last| last.header.boot) + 1;
    let firsts = recovery.segments.iter().map(|segment| segment.first).collect();
    Ok(Recovered { report: recovery.report, firsts, log_start: recovery.mark.start })
}

/// Streams what the log of a folder holds to `visit`, whosever it is, and changes nothing.
pub(crate) fn look<D: Disk>(
    disk: &D,
    visit: &mut dyn FnMut(LogIndex, &[u8]),
) -> Result<(Identity, RecoveryReport), OpenError> {
    let names = disk.list().map_err(|e| io_error(disk, "", e))?;
    let identity = identity_of(disk, &names)?;
    let (recovery, _) = read(disk, &names, identity, visit)?;
    Ok((identity, recovery.report))
}

/// Streams what a log holds to `visit`, and changes nothing; where it stops, if that is not its end.
fn read<'a, D: Disk>(
    disk: &'a D,
    names: &[String],
    identity: Identity,
    visit: &mut dyn FnMut(LogIndex, &[u8]),
) -> Result<(Recovery<'a, D>, Option<Stop>), OpenError> {
    let mark = read_mark(disk, names, identity)?;
    let segments = find_segments(disk, names, identity, mark.start)?;
    let mut recovery = Recovery { disk, segments, mark, report: RecoveryReport::default() };
    recovery.check_start()?;
    let stop = recovery.stream(visit)?;
    recovery.refuse_corruption(stop)?;
    Ok((recovery, stop))
}

/// Whose log it is, by its first segment.
fn identity_of<D: Disk>(disk: &D, names: &[String]) -> Result<Identity, OpenError> {
    let first = names.iter().find_map(|name| Some((name, first_of(name)?)));
    let Some((name, first)) = first else {
        let missing = io::Error::new(io::ErrorKind::NotFound, "there is no segment of a log in it");
        return Err(io_error(disk, "", missing));
    };
    let found = open_segment(disk, name, first).map_err(|e| io_error(disk, name, e))?;
    let found = found.map_err(|e| header_error(disk, name, e))?;
    Ok(found.header.identity)
}

fn check_identity<D: Disk>(
    disk: &D,
    name: &str,
    found: Identity,
    ours: Identity,
) -> Result<(), OpenError> {
    if found == ours {
        return Ok(());
    }
    Err(OpenError::WrongIdentity {
        path: disk.path(name),
        found_node: found.node,
        found_deployment: u128::from_be_bytes(found.deployment),
        node: ours.node,
        deployment: u128::from_be_bytes(ours.deployment),
    })
}

fn header_error<D: Disk>(disk: &D, name: &str, error: HeaderError) -> OpenError {
    let path = disk.path(name);
    match error {
        HeaderError::Damaged => OpenError::CorruptHeader { path },
        HeaderError::Format(found) => OpenError::WrongFormat { path, found, readable: FORMAT },
    }
}

fn read_mark<D: Disk>(disk: &D, names: &[String], identity: Identity) -> Result<Mark, OpenError> {
    if !names.iter().any(|name| name == MARK_NAME) {
        return Ok(Mark { identity, start: LogIndex::START.next(), synced_to: LogIndex::START });
    }
    let mut bytes = [0; MARK_BYTES];
    let read = |bytes: &mut [u8]| disk.read_at(&disk.open(MARK_NAME)?, 0, bytes);
    read(&mut bytes).map_err(|e| io_error(disk, MARK_NAME, e))?;
    let mark = Mark::decode(&bytes).map_err(|e| header_error(disk, MARK_NAME, e))?;
    check_identity(disk, MARK_NAME, mark.identity, identity)?;
    Ok(mark)
}

/// Opens all segments that the log still counts, in order, and checks their headers.
fn find_segments<D: Disk>(
    disk: &D,
    names: &[String],
    identity: Identity,
    start: LogIndex,
) -> Result<Vec<Found<D::File>>, OpenError> {
    let mut segments: Vec<Found<D::File>> = Vec::new();
    for name in names {
        let Some(first) = first_of(name).filter(|first| start <= *first) else {
            continue;
        };
        let found = open_segment(disk, name, first).map_err(|e| io_error(disk, name, e))?;
        let found = found.map_err(|e| header_error(disk, name, e))?;
        check_identity(disk, name, found.header.identity, identity)?;
        let previous = segments.last().map_or(0, |previous| previous.header.boot);
        if found.header.boot < previous {
            let path = disk.path(name);
            return Err(OpenError::MixedRuns { path, found: found.header.boot, previous });
        }
        segments.push(found);
    }
    Ok(segments)
}

/// The first record of a segment, if `name` is one.
fn first_of(name: &str) -> Option<LogIndex> {
    let number = name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()?;
    let first = LogIndex::new(number);
    (segment_name(first) == name).then_some(first)
}

fn open_segment<D: Disk>(
    disk: &D,
    name: &str,
    first: LogIndex,
) -> io::Result<Result<Found<D::File>, HeaderError>> {
    let file = disk.open(name)?;
    let size = disk.size(&file)?;
    let mut bytes = [0; HEADER_USED_BYTES];
    disk.read_at(&file, 0, &mut bytes)?;
    Ok(SegmentHeader::decode(&bytes).map(|header| {
        let (name, seed) = (name.to_owned(), header.seed());
        Found { file, name, size, first, header, seed }
    }))
}

struct Recovery<'a, D: Disk> {
    disk: &'a D,
    segments: Vec<Found<D::File>>,
    mark: Mark,
    report: RecoveryReport,
}

impl<D: Disk> Recovery<'_, D> {
    fn check_start(&mut self) -> Result<(), OpenError> {
        let expected = self.mark.start;
        self.report.recovered_to = expected.previous();
        let found = self.segments.first().map(|segment| segment.first);
        let is_new = found.is_none()
            && expected == LogIndex::START.next()
            && self.mark.synced_to == LogIndex::START;
        if is_new || found == Some(expected) {
            return Ok(());
        }
        // Without any segment the place after everything synced is where the log would go on.
        let found = found.unwrap_or_else(|| self.mark.synced_to.next());
        Err(OpenError::MissingStart { path: self.disk.path(""), found, expected })
    }

    /// Streams records until the first that is not there; `None` if there is no segment at all.
    fn stream(
        &mut self,
        visit: &mut dyn FnMut(LogIndex, &[u8]),
    ) -> Result<Option<Stop>, OpenError> {
        let mut buffer = Vec::new();
        let mut stop = None;
        for (number, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(number + 1).map(|next| next.first);
            let mut reader = Reader::new(self.disk, segment, &mut buffer);
            self.report.segments += 1;
            while Some(self.report.recovered_to.next()) != next {
                let index = self.report.recovered_to.next();
                let record =
                    reader.next(index).map_err(|e| io_error(self.disk, &segment.name, e))?;
                let Some(payload) = record else { break };
                visit(index, payload);
                self.report.records += 1;
                self.report.bytes += length(payload.len());
                self.report.recovered_to = index;
            }
            stop = Some(Stop { segment: number, offset: reader.offset() });
            if Some(self.report.recovered_to.next()) != next {
                break;
            }
        }
        Ok(stop)
    }

    /// Fails if anything shows that the record where reading stopped had been synced.
    fn refuse_corruption(&mut self, stop: Option<Stop>) -> Result<(), OpenError> {
        let expected = self.report.recovered_to.next();
        let stop = stop.unwrap_or(Stop { segment: 0, offset: HEADER_BYTES });
        let refuse = |evidence: &str, evidence_offset: u64, synced_to: LogIndex| {
            let damaged = self.segments.get(stop.segment);
            let path = self.disk.path(damaged.map_or("", |damaged| &damaged.name));
            let evidence_path = self.disk.path(evidence);
            let (offset, index) = (stop.offset, expected);
            Err(OpenError::CorruptMiddle {
                path,
                offset,
                index,
                synced_to,
                evidence_path,
                evidence_offset,
            })
        };
        if expected <= self.mark.synced_to {
            return refuse(MARK_NAME, 0, self.mark.synced_to);
        }
        let mut torn_bytes = 0;
        for (number, segment) in self.segments.iter().enumerate().skip(stop.segment) {
            let begin = if number == stop.segment { stop.offset } else { HEADER_BYTES };
            if number != stop.segment && expected <= segment.header.synced_to {
                return refuse(&segment.name, 0, segment.header.synced_to);
            }
            let bytes = self.read_rest(segment, begin)?;
            if let Some(found) = frame::find_evidence(&bytes, segment.seed, expected) {
                return refuse(&segment.name, begin + length(found.offset), found.synced_to);
            }
            torn_bytes += length(frame::used_bytes(&bytes));
        }
        self.report.torn_bytes = torn_bytes;
        Ok(())
    }

    fn read_rest(&self, segment: &Found<D::File>, begin: u64) -> Result<Vec<u8>, OpenError> {
        let mut bytes = vec![0; in_memory(segment.size.saturating_sub(begin))];
        let read = self.disk.read_at(&segment.file, begin, &mut bytes);
        let read = read.map_err(|e| io_error(self.disk, &segment.name, e))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Removes what an interrupted preparation or cut has left.
    fn remove_leftovers(&self, names: &[String]) -> Result<(), OpenError> {
        for name in names {
            let is_cut_off = first_of(name).is_some_and(|first| first < self.mark.start);
            if is_cut_off || name.ends_with(TEMPORARY_SUFFIX) {
                self.disk.remove(name).map_err(|e| io_error(self.disk, name, e))?;
            }
        }
        Ok(())
    }

    /// Cuts off everything behind `stop`, and makes that and what is kept durable.
    fn cut(&mut self, stop: Option<Stop>) -> Result<(), OpenError> {
        let Some(stop) = stop else {
            return Ok(());
        };
        let disk = self.disk;
        for removed in self.segments.drain(stop.segment + 1..).rev() {
            disk.remove(&removed.name).map_err(|e| io_error(disk, &removed.name, e))?;
        }
        disk.sync_dir().map_err(|e| io_error(disk, "", e))?;
        if let Some(last) = self.segments.last() {
            disk.truncate(&last.file, stop.offset).map_err(|e| io_error(disk, &last.name, e))?;
        }
        for segment in &self.segments {
            disk.sync(&segment.file).map_err(|e| io_error(disk, &segment.name, e))?;
        }
        Ok(())
    }
}

/// Reads the records of one segment, many at once.
struct Reader<'a, D: Disk> {
    disk: &'a D,
    segment: &'a Found<D::File>,
    /// Bytes of the file from `base` on, as many as `filled`.
    buffer: &'a mut Vec<u8>,
    base: u64,
    filled: usize,
    /// Where in the buffer the next record begins.
    at: usize,
}

impl<'a, D: Disk> Reader<'a, D> {
    const fn new(disk: &'a D, segment: &'a Found<D::File>, buffer: &'a mut Vec<u8>) -> Self {
        Self { disk, segment, buffer, base: HEADER_BYTES, filled: 0, at: 0 }
    }

    /// Where in the file the next record begins.
    fn offset(&self) -> u64 {
        self.base + length(self.at)
    }

    /// The payload of record `index`, or `None` if it is not whole.
    fn next(&mut self, index: LogIndex) -> io::Result<Option<&[u8]>> {
        self.fill(RECORD_HEADER_BYTES)?;
        let Some(header) = RecordHeader::decode(&self.buffer[self.at..self.filled]) else {
            return Ok(None);
        };
        let bytes = header.record_bytes();
        let left = self.segment.size.saturating_sub(self.offset());
        if header.index != index.get() || left < length(bytes) {
            return Ok(None);
        }
        self.fill(bytes)?;
        let begin = self.at;
        let record = &self.buffer[begin..self.filled];
        let payload = header.verified(record, self.segment.seed);
        if payload.is_some() {
            self.at += bytes;
        }
        Ok(payload)
    }

    /// Has at least `bytes` in the buffer behind `at`, unless the file ends before.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        if bytes <= self.filled - self.at {
            return Ok(());
        }
        self.buffer.copy_within(self.at..self.filled, 0);
        self.base += length(self.at);
        self.filled -= self.at;
        self.at = 0;
        self.buffer.resize(self.buffer.len().max(bytes).max(READ_BYTES), 0);
        let place = &mut self.buffer[self.filled..];
        let offset = self.base + length(self.filled);
        self.filled += self.disk.read_at(&self.segment.file, offset, place)?;
        Ok(())
    }
}
