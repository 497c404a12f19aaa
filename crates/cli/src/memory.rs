//! Tells how much memory is in use, as the allocator counts it.
//!
//! What was freed is free at once in this figure; the resident size of the process shrinks later,
//! and would go on refusing writes after keys were deleted.

use std::sync::Arc;

use antecede_server::MemoryFigure;
use tikv_jemalloc_ctl::{epoch, stats};

/// The function that servers ask; `None` if the allocator does not tell.
pub(crate) fn figure() -> Option<MemoryFigure> {
    let latest = epoch::mib().ok()?;
    let allocated = stats::allocated::mib().ok()?;
    latest.advance().ok()?;
    allocated.read().ok()?;
    Some(Arc::new(move || {
        // The figures are those of the last epoch.
        let bytes = latest.advance().and_then(|_| allocated.read());
        bytes.map_or(0, |bytes| bytes as u64)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_shows_and_what_is_freed_does_not() {
        let figure = figure().expect("the allocator tells what is in use");
        let before = figure();
        let held = vec![1_u8; 64 << 20];
        let during = figure();
        assert!(before + (48 << 20) < during, "{before} {during}");
        drop(held);
        let after = figure();
        assert!(after + (48 << 20) < during, "{during} {after}");
    }
}
