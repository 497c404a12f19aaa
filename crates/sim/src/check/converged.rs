//! Checks that in the end every replica of every datacenter holds what the surviving writes come
//! to: for each key the value of the largest version, computed here apart from the protocol.
//!
//! Keys that expire are left out of the computation, not of the comparison between replicas.

use std::collections::BTreeMap;

use antecede_check::{History, converged, durable, history::FinalRecord};
use antecede_model::{
    configuration::Configuration, dependency::Dependency, ids::NodeId, version::Version,
};

use super::{Failure, accept};
use crate::{
    client::to_history,
    ledger::{Expected, Ledger},
    workload::{KeyId, KeyTable},
};

/// What replicas answered: by key and node the value.
pub type Answered = BTreeMap<(KeyId, NodeId), Option<Vec<u8>>>;

/// What the surviving writes of a key come to; `None` if there are none.
#[must_use]
pub fn expected(
    ledger: &Ledger,
    configuration: &Configuration,
    keys: &KeyTable,
    key: KeyId,
) -> Option<Expected> {
    let shard = keys.of_id(key).shard;
    let survives = |version: &Version| {
        let write = Dependency { origin: version.origin, shard, stamp: version.timestamp };
        let has = |id| {
            configuration.tail(id, shard).is_some_and(|tail: NodeId| ledger.holds(tail, write))
        };
        // A stamp that was never committed may lie below what a new datacenter has copied.
        let is_real = ledger.visible_at(version.origin, write).is_some()
            || configuration.datacenters.keys().any(|id| {
                let tail = configuration.tail(*id, shard);
                tail.is_some_and(|tail| ledger.has_entry(tail, write))
            });
        is_real
            && if configuration.is_present(version.origin) {
                has(version.origin)
            } else {
                configuration.datacenters.keys().any(|id| has(*id)) // Its origin is gone.
            }
    };
    let written = ledger.written(key)?;
    let (version, value) = written.iter().rev().find(|(version, _)| survives(version))?;
    Some(Expected { version: *version, value: value.clone() })
}

/// Compares what replicas answered with what is expected; tells the differences.
#[must_use]
pub fn differences(
    ledger: &Ledger,
    configuration: &Configuration,
    keys: &KeyTable,
    answered: &Answered,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut first: BTreeMap<KeyId, &Option<Vec<u8>>> = BTreeMap::new();
    let mut wanted: BTreeMap<KeyId, Option<Vec<u8>>> = BTreeMap::new();
    for ((key, node), value) in answered {
        let facts = keys.of_id(*key);
        let same = *first.entry(*key).or_insert(value) == value;
        let is_right = facts.is_mortal || {
            let want = wanted.entry(*key).or_insert_with(|| {
                expected(ledger, configuration, keys, *key).and_then(|expected| expected.value)
            });
            want == value
        };
        if !same || !is_right {
            let text = |value: &Option<Vec<u8>>| {
                value.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            };
            found.push(format!(
                "{node} holds {} = {:?}, expected {:?}",
                facts.name,
                text(value),
                wanted.get(key).map_or_else(|| text(first[key]), text)
            ));
        }
    }
    found
}

/// Puts the final states into a history and judges it.
///
/// # Errors
/// When two replicas differ, or an acknowledged write is lost.
pub fn check(
    history: &mut History,
    ledger: &Ledger,
    configuration: &Configuration,
    keys: &KeyTable,
    answered: &Answered,
) -> Result<(), Failure> {
    for ((key, node), value) in answered {
        let facts = keys.of_id(*key);
        if facts.is_mortal {
            continue;
        }
        let text = value.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let version = match value {
            Some(value) => ledger.version_of(value),
            None => expected(ledger, configuration, keys, *key).map(|expected| expected.version),
        };
        history.push_final(&FinalRecord {
            dc: node.datacenter.0,
            node: node.to_string(),
            key: facts.name.clone(),
            value: text,
            version: version.map(to_history),
        });
    }
    accept("converged", &converged::check(history))?;
    accept("durable", &durable::check(history))
}
