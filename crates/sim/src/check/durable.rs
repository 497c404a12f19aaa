//! Checks that what was committed or acknowledged is on the disk of every replica of its chain, and
//! that it is still there, in every datacenter, at the end.
//!
//! Under `fsync = always` a commit means that every replica has synced the entry. With weaker
//! settings it means that the run of every replica that the tail knows of has written it. A run that
//! has ended may have lost it, and the tail cannot know that before it hears of the next one: only
//! for a replica that is down, or whose present run the tail has not heard of, is there nothing to
//! judge.

use std::collections::BTreeSet;

use antecede_model::{
    configuration::Configuration,
    dependency::Dependency,
    ids::{DatacenterId, NodeId, ShardId},
};

use super::Failure;
use crate::{
    ledger::{Ledger, Stored},
    plan::Durability,
};

/// Judges an entry that a tail has just committed.
///
/// # Errors
/// When a replica of the chain may still lose it.
pub fn at_commit(
    ledger: &Ledger,
    chain: &[NodeId],
    shard: ShardId,
    stored: &Stored,
    knows_run_of: impl Fn(NodeId) -> bool,
) -> Result<(), Failure> {
    for node in chain {
        if stored.identity.position <= ledger.image(*node, shard).base() {
            continue; // It has copied what this came to.
        }
        let facts = ledger.node(*node);
        let may_have_lost_its_end = !facts.is_up || !knows_run_of(*node);
        if ledger.durability() != Durability::Always && may_have_lost_its_end {
            continue;
        }
        let found = ledger.image(*node, shard).at(stored.identity.position);
        let is_there = found.is_some_and(|found| {
            found.identity == stored.identity && found.index <= facts.counted_to
        });
        if !is_there {
            let what = format!(
                "{:?} of shard {shard} is committed, but {node} has only {found:?}, persisted to {}",
                stored.identity, facts.counted_to
            );
            return Err(Failure::new("durable", what));
        }
    }
    Ok(())
}

/// Judges an acknowledged write: it must be committed where it began.
///
/// # Errors
/// When it is not.
pub fn at_acknowledgement(ledger: &Ledger, write: Dependency) -> Result<(), Failure> {
    let committed = ledger.committed(write.origin, write.shard);
    let is_committed = committed.is_some_and(|committed| {
        committed
            .values()
            .rev()
            .any(|(_, origin, stamp)| *origin == write.origin && *stamp == write.stamp)
    });
    if is_committed {
        return Ok(());
    }
    Err(Failure::new("durable", format!("{write} was acknowledged before it was committed")))
}

/// Judges `WAIT`: so many datacenters must hold the write on the disks of its chain. A replica that
/// has come into its chain and not settled yet may hold it in memory.
///
/// # Errors
/// When fewer do.
pub fn at_wait(
    ledger: &Ledger,
    configuration: &Configuration,
    write: Dependency,
    answered: i64,
    is_settled: impl Fn(NodeId) -> bool,
) -> Result<(), Failure> {
    let has = |node: &NodeId| {
        let found = ledger.image(*node, write.shard).named(write.origin, write.stamp);
        let is_synced = found.is_some_and(|found| found.index <= ledger.node(*node).synced_to);
        is_synced || ledger.has_copied(*node, write)
    };
    let holds = |datacenter: DatacenterId| {
        let Some(chain) = configuration.chain_of(datacenter, write.shard) else { return false };
        let is_somewhere = chain.members().any(|node| has(&node)); // The chain may be dark by now.
        is_somewhere && chain.serving.iter().all(|node| has(node) || !is_settled(*node))
    };
    let others = || configuration.datacenters.keys().copied().filter(|id| *id != write.origin);
    let count = others().filter(|peer| holds(*peer)).count();
    let gone = configuration.membership.gone.len(); // They were counted while they were there.
    let lost = configuration.membership.lost().count();
    let count = count + gone + lost;
    if answered <= i64::try_from(count).unwrap_or(i64::MAX) {
        return Ok(());
    }
    let mut lacking = Vec::new();
    for datacenter in others().filter(|peer| !holds(*peer)) {
        for node in configuration.chain(datacenter, write.shard) {
            let found = ledger.image(*node, write.shard).named(write.origin, write.stamp);
            let synced_to = ledger.node(*node).synced_to;
            lacking.push(format!("{node} has {found:?}, synced to {synced_to}"));
        }
    }
    let what = format!(
        "WAIT answered {answered} for {write}, which only {count} datacenters hold: {lacking:?}"
    );
    Err(Failure::new("durable", what))
}

/// Whether a datacenter that is there holds a write.
#[must_use]
pub fn is_held(ledger: &Ledger, configuration: &Configuration, write: Dependency) -> bool {
    configuration.datacenters.keys().any(|id| {
        let tail = configuration.tail(*id, write.shard);
        tail.is_some_and(|tail| ledger.holds(tail, write))
    })
}

/// Judges the end: every acknowledged write is in every replica's log, but for what a datacenter
/// that is lost, or has lapsed, had sent to nobody: nobody else has ever committed it.
///
/// # Errors
/// The first that is not.
pub fn at_rest(
    ledger: &Ledger,
    configuration: &Configuration,
    lost: &BTreeSet<DatacenterId>,
) -> Result<(), Failure> {
    for acknowledged in ledger.acknowledged() {
        let write = acknowledged.write;
        if lost.contains(&write.origin) && !is_held(ledger, configuration, write) {
            let mut others = configuration.datacenters.keys();
            let Some(id) = others.find(|id| ledger.visible_at(**id, write).is_some()) else {
                continue; // It was lost with its datacenter before it was sent.
            };
            let what =
                format!("{write} was acknowledged, and committed in datacenter {id}; it is gone");
            return Err(Failure::new("durable", what));
        }
        for datacenter in configuration.datacenters.keys() {
            for node in configuration.chain(*datacenter, write.shard) {
                if !ledger.holds(*node, write) {
                    let what = format!("{write} was acknowledged and is not in the log of {node}");
                    return Err(Failure::new("durable", what));
                }
            }
        }
    }
    Ok(())
}
