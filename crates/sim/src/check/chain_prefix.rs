//! Checks that a predecessor has all that its successor has, and that replicas of one chain hold
//! the same entries.
//!
//! While a replica settles after a restart its successor may be ahead of it; the property speaks of
//! settled pairs in one epoch. That an identity names one entry, and that what was committed is
//! never replaced, is seen where the ledger is written.

use antecede_model::ids::{DatacenterId, NodeId, ShardId};

use super::Failure;
use crate::ledger::{Ledger, Stored};

/// Judges an entry that a node has just appended behind its settled predecessor.
///
/// # Errors
/// When the predecessor does not have it.
pub fn at_append(
    ledger: &Ledger,
    (node, previous): (NodeId, NodeId),
    shard: ShardId,
    stored: &Stored,
) -> Result<(), Failure> {
    let found = ledger.image(previous, shard).at(stored.identity.position);
    if found.is_some_and(|found| found.identity == stored.identity) {
        return Ok(());
    }
    let what = format!(
        "{node} has {:?} of shard {shard}, its predecessor {previous} has {found:?} there",
        stored.identity
    );
    Err(Failure::new("chain_prefix", what))
}

/// Judges the logs of a chain that has come to rest.
///
/// # Errors
/// When two replicas hold different entries.
pub fn at_rest(
    ledger: &Ledger,
    chain: &[NodeId],
    datacenter: DatacenterId,
    shard: ShardId,
) -> Result<(), Failure> {
    let Some((head, others)) = chain.split_first() else { return Ok(()) };
    let (first, expected) =
        (ledger.image(*head, shard).base(), ledger.image(*head, shard).entries());
    for node in others {
        let found = ledger.image(*node, shard).entries();
        // Of what a replica has copied it holds the end only.
        let from = first.max(ledger.image(*node, shard).base());
        let behind = |entry: &&Stored| from < entry.identity.position;
        let mut left = expected.iter().filter(behind);
        let mut right = found.iter().filter(behind);
        loop {
            let pair = (left.next(), right.next());
            let is_same = pair.0.map(|it| it.identity) == pair.1.map(|it| it.identity);
            if !is_same {
                let what = format!(
                    "at rest, shard {shard} of datacenter {datacenter}: {head} has {:?}, {node} \
                     has {:?}",
                    pair.0, pair.1
                );
                return Err(Failure::new("chain_prefix", what));
            }
            if pair.0.is_none() {
                break;
            }
        }
    }
    Ok(())
}
