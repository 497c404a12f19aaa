//! How much memory the process uses, sampled, and whether that leaves room.
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

/// The memory of the process, as of the last sample.
pub(crate) struct Memory {
    figure: MemoryFigure,
    used: AtomicU64,
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
            peak: AtomicU64::new(used),
            limit: AtomicU64::new(limit),
        }
    }

    /// Asks for the figure.
    pub(crate) fn sample(&self) {
        let used = (self.figure)();
        self.used.store(used, Ordering::Relaxed);
        self.peak.fetch_max(used, Ordering::Relaxed);
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

    /// How long who writes should wait, if at all: the longer the less is left below the limit.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let (limit, used) = (self.limit(), self.used());
        let left = limit.saturating_sub(used);
        let eighth = limit / 8;
        if limit == 0 || eighth <= left {
            return None;
        }
        let share = (eighth - left).saturating_mul(64) / eighth.max(1);
        // From next to nothing to a quarter of a second.
        let millis = (share * share / 16).max(1);
        Some(Duration::from_millis(millis))
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
        assert_eq!(pause_at(900), Some(256));
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
    fn a_limit_leaves_room_until_it_is_reached() {
        let memory = Memory::new(Some(Arc::new(|| 100)), 0);
        assert!(memory.has_room());
        memory.set_limit(100);
        assert!(!memory.has_room());
        memory.set_limit(101);
        assert!(memory.has_room());
    }
}
