//! Holds the records that are appended and not yet written, encoded and ready to go.
//!
//! Appending numbers a record and copies it behind the others; no system call, and no allocation
//! once the buffer has its size. The writer takes the whole buffer by swapping it for an empty
//! one, so that appenders never wait for a write or a sync.
//!
//! Bounded by `pending_bytes_max`, what the writer has taken and not yet written included; beyond
//! it appending is refused.

use crate::error::AppendError;
use crate::frame::{self, RECORD_HEADER_BYTES};
use crate::position::LogIndex;

/// Capacity that a buffer keeps for good; a larger one is given back after a burst.
const BUFFER_KEPT_BYTES: usize = 8 * 1024 * 1024;

/// The end of the log that is in memory only.
#[derive(Debug)]
pub struct Tail {
    pending: Vec<u8>,
    /// Bytes that the writer has taken and not yet written.
    taken_bytes: usize,
    appended_to: LogIndex,
    pending_bytes_max: usize,
    record_bytes_max: usize,
    /// `false`: the memory variant, which drops each record once it is numbered.
    keeps: bool,
}

impl Tail {
    pub(crate) const fn new(
        appended_to: LogIndex,
        pending_bytes_max: usize,
        record_bytes_max: usize,
        keeps: bool,
    ) -> Self {
        Self {
            pending: Vec::new(),
            taken_bytes: 0,
            appended_to,
            pending_bytes_max,
            record_bytes_max,
            keeps,
        }
    }

    /// Appends the record that `encode` writes at the end of the buffer that it is given.
    ///
    /// `encode` may only add to the buffer. It does not run when the log is full.
    pub fn append_with(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<LogIndex, AppendError> {
        if self.is_full() {
            return Err(AppendError::Full {
                held: self.held_bytes(),
                limit: self.pending_bytes_max,
            });
        }
        let start = self.pending.len();
        let index = self.appended_to.next();
        frame::begin_record(&mut self.pending, index);
        encode(&mut self.pending);
        let length = self.pending.len().checked_sub(start + RECORD_HEADER_BYTES);
        let length = length.expect("encoding a record only adds to the buffer");
        let Some(length_written) = self.allowed_length(length) else {
            self.pending.truncate(start);
            return Err(AppendError::TooLarge { bytes: length, limit: self.record_bytes_max });
        };
        if self.keeps {
            frame::end_record(&mut self.pending, start, length_written);
        } else {
            self.pending.truncate(start);
        }
        self.appended_to = index;
        Ok(index)
    }

    /// Appends the record that consists of `parts`, one after the other.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<LogIndex, AppendError> {
        self.append_with(|buffer| {
            for part in parts {
                buffer.extend_from_slice(part);
            }
        })
    }

    /// The last record that was appended.
    #[must_use]
    pub const fn appended_to(&self) -> LogIndex {
        self.appended_to
    }

    /// Bytes that are not yet written.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.pending.len() + self.taken_bytes
    }

    /// Whether the next record will be refused.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.pending_bytes_max <= self.held_bytes()
    }

    fn allowed_length(&self, length: usize) -> Option<u32> {
        if self.record_bytes_max < length {
            return None;
        }
        u32::try_from(length).ok()
    }

    /// Swaps everything pending into `batch`, which is empty.
    pub(crate) fn take(&mut self, batch: &mut Vec<u8>) {
        assert!(batch.is_empty(), "what was taken before is not written yet");
        if BUFFER_KEPT_BYTES < batch.capacity() {
            batch.shrink_to(BUFFER_KEPT_BYTES);
        }
        std::mem::swap(&mut self.pending, batch);
        self.taken_bytes = batch.len();
    }

    /// Learns how much of what was taken is still not written.
    pub(crate) const fn set_taken_bytes(&mut self, bytes: usize) {
        self.taken_bytes = bytes;
    }
}
