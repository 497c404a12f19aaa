//! Holds the requests between `MULTI` and `EXEC`, as they came.
//!
//! They are kept as bytes, since the read buffer moves on, and understood at `EXEC`: times to live
//! count from then.
//!
//! Limits: `QUEUED_BYTES_MAX` and `QUEUED_REQUESTS_MAX`; a transaction over them is refused.

use std::ops::Range;

use antecede_model::retry::{Retry, WrittenId, words_of};

/// The most bytes of arguments that may be queued.
pub const QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most requests that may be queued.
pub const QUEUED_REQUESTS_MAX: usize = 64 * 1024;

/// The requests of one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    bytes: Vec<u8>,
    /// Where each argument ends in `bytes`.
    argument_ends: Vec<usize>,
    /// Where each request ends in `argument_ends`.
    request_ends: Vec<usize>,
    /// Whether keys were watched when the transaction was to be executed.
    pub(super) has_watched_keys: bool,
    /// The datacenter and the request id that `EXEC` was given.
    pub(super) id: Option<Box<(Box<str>, Retry)>>,
}

impl Queue {
    /// How many requests are queued.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.request_ends.len()
    }

    /// The request id that `EXEC` was given.
    pub(super) fn id(&self) -> Option<WrittenId<'_>> {
        let (datacenter, retry) = self.id.as_deref()?;
        Some(WrittenId { datacenter, client: &retry.client, number: retry.number })
    }

    /// A check number of all requests.
    pub(super) fn words(&self) -> u32 {
        let each = self.requests().map(|request| words_of(request.into_iter()).to_le_bytes());
        let each: Vec<[u8; 4]> = each.collect();
        let exec: &[u8] = b"exec";
        words_of(std::iter::once(exec).chain(each.iter().map(<[u8; 4]>::as_slice)))
    }

    /// Adds a request, unless the queue is full; says whether it was added.
    #[must_use]
    pub(super) fn push(&mut self, arguments: &[&[u8]]) -> bool {
        let added: usize = arguments.iter().map(|argument| argument.len()).sum();
        let is_full = self.request_ends.len() == QUEUED_REQUESTS_MAX
            || QUEUED_BYTES_MAX < self.bytes.len().saturating_add(added);
        if is_full {
            return false;
        }
        for argument in arguments {
            self.bytes.extend_from_slice(argument);
            self.argument_ends.push(self.bytes.len());
        }
        self.request_ends.push(self.argument_ends.len());
        true
    }

    /// The requests, in the order in which they came.
    pub(super) fn requests(&self) -> impl Iterator<Item = Vec<&[u8]>> {
        ranges(&self.request_ends).map(|request| {
            let from = request.start.checked_sub(1).map_or(0, |last| self.argument_ends[last]);
            let mut from = from;
            self.argument_ends[request]
                .iter()
                .map(|to| {
                    let argument = &self.bytes[from..*to];
                    from = *to;
                    argument
                })
                .collect()
        })
    }
}

/// The ranges between one end and the next.
fn ranges(ends: &[usize]) -> impl Iterator<Item = Range<usize>> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(ends).map(|(from, to)| from..*to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_out_as_they_went_in() {
        let mut queue = Queue::default();
        let requests: [&[&[u8]]; 3] = [&[b"SET", b"k", b""], &[b"PING"], &[b"GET", b"k"]];
        for request in requests {
            assert!(queue.push(request));
        }
        assert_eq!(queue.requests().collect::<Vec<_>>(), requests);
        assert_eq!(queue.count(), 3);
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let mut queue = Queue::default();
        let half = vec![0; QUEUED_BYTES_MAX / 2];
        assert!(queue.push(&[&half]));
        assert!(queue.push(&[&half]));
        assert!(!queue.push(&[b"x"]));
        let mut queue = Queue::default();
        for _ in 0..QUEUED_REQUESTS_MAX {
            assert!(queue.push(&[b""]));
        }
        assert!(!queue.push(&[b""]));
    }
}
