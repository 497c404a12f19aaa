//! Checks that visible-at extends causality within a datacenter: a write becomes visible later, by
//! the datacenter's logical time, than everything that it depends on and than everything that its
//! session was shown.
//!
//! Snapshot reads and sessions that move stand on this order; plain reads do not show it.

use antecede_model::{
    clock::Timestamp,
    ids::{DatacenterId, ShardId},
};
use antecede_protocol::entry::Entry;

use super::Failure;
use crate::ledger::Ledger;

/// Judges an entry that a head has just given its visible-at, by what it depends on.
///
/// # Errors
/// When a dependency that is applied there is visible later.
pub fn at_append(
    ledger: &Ledger,
    datacenter: DatacenterId,
    shard: ShardId,
    entry: &Entry,
) -> Result<(), Failure> {
    for dependency in entry.dependencies().exact {
        let found = ledger.visible_at(datacenter, dependency);
        if let Some(visible_at) = found
            && entry.visible_at <= visible_at
        {
            let what = format!(
                "{} of shard {shard} is visible at {} in datacenter {datacenter}, before \
                 {dependency}, on which it depends, at {visible_at}",
                entry.version(),
                entry.visible_at
            );
            return Err(Failure::new("visible_at", what));
        }
    }
    Ok(())
}

/// Judges an acknowledged write by what its session had been shown when it asked.
///
/// # Errors
/// When the write's stamp is not larger.
pub fn at_acknowledgement(stamp: Timestamp, shown: Timestamp) -> Result<(), Failure> {
    if shown < stamp {
        return Ok(());
    }
    let what = format!("a write got the stamp {stamp}, its session had been shown {shown} before");
    Err(Failure::new("visible_at", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_later_than_what_its_session_was_shown() {
        assert!(at_acknowledgement(Timestamp(5), Timestamp(4)).is_ok());
        assert!(at_acknowledgement(Timestamp(5), Timestamp(5)).is_err());
    }
}
