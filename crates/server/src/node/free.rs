//! How much room is left on the disk of the log, sampled, and whether writes still leave enough.
//!
//! Writes of clients stop before the disk is full: what is under way in the chain, the agreement's
//! file, checkpoints and cuts of the log need room too, and a cut is what makes room again.
//!
//! Limits: between two samples writes go on; the reserve has to hold those of a quarter of a second.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use antecede_model::ids::NodeId;
use tracing::{info, warn};

/// No more than this part of the disk is kept free.
const RESERVE_PART: u64 = 20;
/// So much more than the reserve, as a part of it, must be free before writes go on: a disk at the
/// edge must not change its mind with every sample.
const RELIEF_PART: u64 = 8;

/// Room on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Free {
    /// Bytes that this process may take.
    pub(crate) free_bytes: u64,
    /// Bytes in all.
    pub(crate) total_bytes: u64,
}

/// The room on the disk of a log, as of the last sample.
#[derive(Debug)]
pub(crate) struct FreeSpace {
    /// `None`: nothing is kept, or the system does not tell.
    folder: Option<PathBuf>,
    reserve_bytes: u64,
    free_bytes: AtomicU64,
    total_bytes: AtomicU64,
    is_low: AtomicBool,
}

impl FreeSpace {
    /// The disk of a folder that there is, of which so many bytes shall be left.
    pub(crate) fn of(folder: Option<&Path>, reserve_bytes: u64) -> Self {
        let free = Self {
            folder: folder.map(Path::to_owned),
            reserve_bytes,
            free_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            is_low: AtomicBool::new(false),
        };
        free.look();
        free
    }

    /// Looks again, and says so if it has changed.
    pub(crate) fn sample(&self, node: NodeId) {
        let was_low = self.is_low();
        self.look();
        let Free { free_bytes, .. } = self.known();
        let (reserve_bytes, folder) = (self.reserve_bytes(), self.folder.as_deref());
        match (was_low, self.is_low()) {
            (false, true) => {
                warn!(%node, ?folder, free_bytes, reserve_bytes, "the disk is low: writes are refused until there is room");
            }
            (true, false) => {
                info!(%node, ?folder, free_bytes, "the disk is low no more, writes go on");
            }
            (false, false) | (true, true) => {}
        }
    }

    fn look(&self) {
        let Some(folder) = &self.folder else { return };
        // A disk that does not tell is found out to be full when it is.
        let Ok(found) = rustix::fs::statvfs(folder) else { return };
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        self.take(Free { free_bytes: bytes(found.f_bavail), total_bytes: bytes(found.f_blocks) });
    }

    fn take(&self, found: Free) {
        self.free_bytes.store(found.free_bytes, Ordering::Relaxed);
        self.total_bytes.store(found.total_bytes, Ordering::Relaxed);
        let reserve = self.reserve_bytes();
        let relief = if self.is_low() { reserve / RELIEF_PART } else { 0 };
        self.is_low.store(found.free_bytes < reserve + relief, Ordering::Relaxed);
    }

    /// The last sample.
    pub(crate) fn known(&self) -> Free {
        Free {
            free_bytes: self.free_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
        }
    }

    /// Bytes that writes leave.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes.min(self.total_bytes.load(Ordering::Relaxed) / RESERVE_PART)
    }

    /// Whether no new writes should come.
    pub(crate) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_until_there_is_clearly_more_than_the_reserve() {
        let free = FreeSpace::of(None, 80);
        let found = |free_bytes| {
            free.take(Free { free_bytes, total_bytes: 10_000 });
            free.is_low()
        };
        assert!(!found(80));
        assert!(found(79));
        assert!(found(80), "at the edge it stays");
        assert!(found(89));
        assert!(!found(90));
        assert!(!found(80));
    }

    #[test]
    fn a_small_disk_is_not_kept_free_as_a_whole() {
        let free = FreeSpace::of(None, 256 << 20);
        free.take(Free { free_bytes: 6, total_bytes: 100 });
        assert!(!free.is_low());
        assert_eq!(free.reserve_bytes(), 5);
        free.take(Free { free_bytes: 4, total_bytes: 100 });
        assert!(free.is_low());
    }

    #[test]
    fn the_system_tells_of_a_folder_and_memory_is_never_low() {
        let folder = tempfile::tempdir().unwrap();
        let free = FreeSpace::of(Some(folder.path()), 0);
        assert!(0 < free.known().total_bytes);
        assert!(!free.is_low(), "without a reserve");
        assert!(!FreeSpace::of(None, u64::MAX).is_low());
    }
}
