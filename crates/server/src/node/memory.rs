//! How much memory the process uses, sampled, and whether that leaves room.
//!
//! It is sampled every few milliseconds, and by who reads from clients after so many bytes: what
//! clients send must not outrun a timer that gets no processor.
//!
//! The figure comes from a function that the program gives (an allocator knows best); without one
//! it is the resident size that the system tells.
//!
//! ```text
//!  0 ............ 5/8 ..... 3/4 ......... 7/8 ......... limit ..... 5/4
//!                  down      short         writers       writes      writes are refused even if
//!                                          wait          are refused values could go to the disk
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Tells how many bytes of memory are in use.
pub type MemoryFigure = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Bytes from clients between two samples, as a part of the limit.
const PART_PER_SAMPLE: u64 = 128;
/// How long who writes waits at most.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The memory of the process, as of the last sample.
pub(crate) struct Memory {
    figure: MemoryFigure,
    used: AtomicU64,
    /// Bytes that clients have sent since the last sample.
    received: AtomicU64,
    peak: AtomicU64,
    limit: AtomicU64,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("used", &self.used()).finish_non_exhaustive()
    }
}

impl Memory {
    pub(crate) fn new(figure: Option<MemoryFigure>, limit: u64) -> Self {
        let figure = figure.unwrap_or_else(|| Arc::new(resident_bytes));
        let used = figure();
        Self {
            figure,
            used: AtomicU64::new(used),
            received: AtomicU64::new(0),
            peak: AtomicU64::new(used),
            limit: AtomicU64::new(limit),
        }
    }

    /// Asks for the figure.
    pub(crate) fn sample(&self) {
        self.received.store(0, Ordering::Relaxed);
        let used = (self.figure)();
        self.used.store(used, Ordering::Relaxed);
        self.peak.fetch_max(used, Ordering::Relaxed);
    }

    /// A client has sent so many bytes, which may all be kept.
    pub(crate) fn on_received(&self, bytes: u64) {
        let limit = self.limit();
        if limit == 0 {
            return;
        }
        let received = self.received.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if limit / PART_PER_SAMPLE <= received {
            self.sample();
        }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The limit; 0: none.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(crate) fn has_room(&self) -> bool {
        let limit = self.limit();
        limit == 0 || self.used() < limit
    }

    /// Whether so many eighths of the limit are in use.
    fn is_beyond(&self, eighths: u64) -> bool {
        let limit = self.limit();
        limit != 0 && limit / 8 * eighths <= self.used()
    }

    /// Whether values should go to the disk.
    pub(crate) fn is_short(&self) -> bool {
        self.is_beyond(6)
    }

    /// Whether enough values have gone to the disk.
    pub(crate) fn is_down(&self) -> bool {
        !self.is_beyond(5)
    }

    /// Whether nothing more is taken, though values could go to the disk.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.is_beyond(10)
    }

    /// How long who writes should wait, if at all: the longer the more of the last eighth is used,
    /// and longer still beyond the limit.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let (limit, used) = (self.limit(), self.used());
        let eighth = limit / 8;
        let over = used.saturating_sub(limit.saturating_sub(eighth));
        if limit == 0 || over == 0 {
            return None;
        }
        // A quarter of a second at the limit, a whole one an eighth above it.
        let share = over.saturating_mul(64) / eighth.max(1);
        let pause = Duration::from_millis((share.saturating_mul(share) / 16).max(1));
        Some(pause.min(PAUSE_MAX))
    }
}

/// The resident size of this process; 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    pages.unwrap_or(0).saturating_mul(page_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_a_resident_size() {
        assert!(1 << 20 < resident_bytes());
    }

    #[test]
    fn writers_wait_the_longer_the_less_is_left() {
        let memory = Memory::new(Some(Arc::new(|| 1_000)), 0);
        assert_eq!(memory.pause(), None, "there is no limit");
        let pause_at = |limit| {
            memory.set_limit(limit);
            memory.pause().map(|pause| pause.as_millis())
        };
        assert_eq!(pause_at(2_000), None);
        assert_eq!(pause_at(1_143), None);
        assert_eq!(pause_at(1_130), Some(1));
        assert_eq!(pause_at(1_000), Some(256));
        assert_eq!(pause_at(950), Some(517));
        assert_eq!(pause_at(800), Some(1_000));
        let is = |limit| {
            memory.set_limit(limit);
            (memory.is_down(), memory.is_short(), memory.is_exhausted())
        };
        assert_eq!(is(0), (true, false, false));
        assert_eq!(is(1_608), (true, false, false));
        assert_eq!(is(1_400), (false, false, false));
        assert_eq!(is(1_328), (false, true, false));
        assert_eq!(is(800), (false, true, true));
    }

    #[test]
    fn what_clients_send_is_sampled_before_it_is_much() {
        let figure = Arc::new(AtomicU64::new(100));
        let told = Arc::clone(&figure);
        let memory = Memory::new(Some(Arc::new(move || told.load(Ordering::Relaxed))), 0);
        figure.store(200, Ordering::Relaxed);
        memory.on_received(u64::MAX);
        assert_eq!(memory.used(), 100, "without a limit nobody asks");
        memory.set_limit(12_800);
        memory.on_received(99);
        assert_eq!(memory.used(), 100);
        memory.on_received(1);
        assert_eq!(memory.used(), 200);
        figure.store(300, Ordering::Relaxed);
        memory.on_received(99);
        assert_eq!(memory.used(), 200, "it counts from the last sample");
        memory.on_received(1);
        assert_eq!(memory.used(), 300);
    }

    #[test]
    fn a_limit_leaves_room_until_it_is_reached() {
        let memory = Memory::new(Some(Arc::new(|| 100)), 0);
        assert!(memory.has_room());
        memory.set_limit(100);
        assert!(!memory.has_room());
        memory.set_limit(101);
        assert!(memory.has_room());
    }
}
