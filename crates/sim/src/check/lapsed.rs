//! Checks a datacenter that was let go of while it may live: what the others take of it, and what it
//! puts aside.
//!
//! Once a node acts by members that have let go of a datacenter, it takes an entry of that one only
//! if another datacenter has it: from then on they have it from each other. What nobody has taken
//! is in the logs that the nodes of the lapsed one leave behind, to be executed again.

use std::collections::BTreeSet;

use antecede_model::{
    clock::Timestamp,
    dependency::Dependency,
    ids::{DatacenterId, NodeId, ShardId},
    membership::{Membership, Standing},
};

use super::Failure;
use crate::ledger::Ledger;

/// Whether a datacenter is lost or has lapsed, given up already or not.
#[must_use]
pub fn is_let_go_of(members: &Membership, id: DatacenterId) -> bool {
    members.standing(id) == Some(Standing::Lost)
        || members.gone.get(&id).is_some_and(|gone| gone.was_lost)
}

/// Judges an entry of a datacenter that was let go of, when a node has appended it; `others` are
/// all other nodes but those of that datacenter.
///
/// # Errors
/// When no other node has ever had it.
pub fn at_append(
    ledger: &Ledger,
    others: impl Iterator<Item = NodeId>,
    node: NodeId,
    write: Dependency,
) -> Result<(), Failure> {
    let mut others = others;
    let is_known = others.any(|other| {
        ledger.has_entry(other, write) || ledger.visible_at(other.datacenter, write).is_some()
    });
    // It may have had the entry itself, or its chain.
    if is_known || ledger.visible_at(node.datacenter, write).is_some() {
        return Ok(());
    }
    let what = format!(
        "{node} takes {write}, which nobody else has, of a datacenter that was let go of before"
    );
    Err(Failure::new("lapsed", what))
}

/// Judges what was put aside: it has each acknowledged write that nobody else has.
///
/// # Errors
/// The first that is not there.
pub fn at_rest(
    only: impl Iterator<Item = Dependency>,
    put_aside: &BTreeSet<(ShardId, Timestamp)>,
) -> Result<(), Failure> {
    for write in only {
        if !put_aside.contains(&(write.shard, write.stamp)) {
            let what = format!(
                "{write} was acknowledged, no other datacenter has it, and it is in no log that was \
                 put aside"
            );
            return Err(Failure::new("lapsed", what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_lapsed_one_had_must_be_put_aside() {
        let write = |stamp| Dependency {
            origin: DatacenterId(2),
            shard: ShardId(1),
            stamp: Timestamp(stamp),
        };
        let put_aside = BTreeSet::from([(ShardId(1), Timestamp(7))]);
        assert_eq!(at_rest([write(7)].into_iter(), &put_aside), Ok(()));
        let failure = at_rest([write(7), write(8)].into_iter(), &put_aside).unwrap_err();
        assert_eq!(failure.property, "lapsed");
    }
}
