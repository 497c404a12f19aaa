//! Checks that nothing that was acknowledged is lost.
//!
//! An acknowledged write is either what the key holds in the end, or it was written over by what
//! the key holds. Three things prove that it was not: the final version is smaller than the write's;
//! the final value was not written by anybody, or by a write that was refused; or, without versions,
//! the final value's write had ended in the same datacenter before the lost write began there (a
//! head gives later writes larger versions). A key that holds nothing must have been removed.
//!
//! Assumes: final states as `converged` does; keys with an expiry carry a removal of unknown outcome.
//!
//! Not here: keys with appends and increments, whose final value is not in the record; their lost
//! updates show in `linearizable`.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    converged::{by_key, with_state},
    history::{Final, History, Operation, Outcome, Symbol},
    verdict::{Pattern, Verdict, Violation},
};

/// The writes of one key.
#[derive(Default)]
struct Writes<'h> {
    acknowledged: Vec<&'h Operation>,
    /// May have taken effect or not.
    unknown: Vec<&'h Operation>,
    refused: Vec<&'h Operation>,
}

/// Judges whether every acknowledged write of `history` lives on in its final states.
pub fn check(history: &History) -> Verdict {
    let finals = by_key(history);
    if finals.is_empty() {
        let why = "the history has no final states; record them after everything has come to rest";
        return Verdict::NothingToCheck { why: why.to_owned() };
    }
    let (writes, computed) = writes_by_key(history);
    let mut checked = 0;
    let mut skipped = 0;
    let nothing = Writes::default();
    for (key, states) in &finals {
        let writes = writes.get(key).unwrap_or(&nothing);
        if computed.contains(key) {
            skipped += writes.acknowledged.len() as u64;
            continue;
        }
        for state in states {
            if let Some(violation) = lost(history, state, writes) {
                return violation.into();
            }
        }
        checked += writes.acknowledged.len() as u64;
    }
    let unreported = writes.iter().filter(|(key, _)| !finals.contains_key(key));
    let unreported: Option<Symbol> = unreported
        .filter(|(key, writes)| !writes.acknowledged.is_empty() && !computed.contains(key))
        .map(|(key, _)| *key)
        .min();
    match unreported {
        Some(key) => Verdict::Undecided {
            why: format!(
                "key {} has acknowledged writes and no final state; record every key",
                history.name(key)
            ),
        },
        None if checked == 0 => {
            Verdict::NothingToCheck { why: "no plain write was acknowledged".to_owned() }
        }
        None if skipped == 0 => Verdict::passed(checked, ""),
        None => {
            let note = "keys with appends or increments".to_owned();
            Verdict::Passed { checked, skipped, note }
        }
    }
}

fn writes_by_key(history: &History) -> (FxHashMap<Symbol, Writes<'_>>, FxHashSet<Symbol>) {
    let mut by_key: FxHashMap<Symbol, Writes<'_>> = FxHashMap::default();
    let mut computed = FxHashSet::default();
    for operation in history.operations().iter().filter(|operation| operation.is_write()) {
        if operation.is_computed() && operation.outcome != Outcome::Fail {
            computed.insert(operation.key);
        }
        let writes = by_key.entry(operation.key).or_default();
        match operation.outcome {
            Outcome::Ok => writes.acknowledged.push(operation),
            Outcome::Unknown => writes.unknown.push(operation),
            Outcome::Fail => writes.refused.push(operation),
        }
    }
    (by_key, computed)
}

/// The proof that `state` cannot be what all acknowledged writes of its key lead to.
fn lost(history: &History, state: &Final, writes: &Writes<'_>) -> Option<Violation> {
    let newer = writes.acknowledged.iter().find(|write| {
        write.version.zip(state.version).is_some_and(|(written, held)| held < written)
    });
    if let Some(write) = newer {
        let summary = "an acknowledged write is gone: the final version is smaller";
        return Some(proof(history, summary, &[(write, "was acknowledged")], state));
    }
    let fits = |write: &&&Operation| match state.value {
        None => write.is_removal(),
        held => write.value == held && !write.is_removal(),
    };
    let mut sources: Vec<&Operation> = writes.acknowledged.iter().filter(fits).copied().collect();
    // Another version than the state's tells that it is not its source.
    sources.retain(|write| write.version.zip(state.version).is_none_or(|(a, b)| a == b));
    if writes.unknown.iter().any(|write| fits(&write)) {
        return None; // It may have taken effect at any time.
    }
    let Some(source) = sources.iter().max_by_key(|write| write.call_ns) else {
        return without_source(history, state, writes);
    };
    if state.version.is_some() && source.version.is_some() {
        return None; // Versions have decided.
    }
    let after = |write: &&&Operation| {
        sources.iter().all(|source| {
            source.dc == write.dc && source.ret_ns.is_some_and(|end| end < write.call_ns)
        })
    };
    let write = writes.acknowledged.iter().find(after)?;
    let summary = "an acknowledged write is gone: the key ended with an older value";
    let steps: [(&Operation, &str); 2] =
        [(source, "had ended"), (write, "began only then, in the same datacenter")];
    Some(proof(history, summary, &steps, state))
}

/// Nobody is known to have written what the key holds.
fn without_source(history: &History, state: &Final, writes: &Writes<'_>) -> Option<Violation> {
    let refused = writes
        .refused
        .iter()
        .find(|write| state.value.is_some() && write.value == state.value && !write.is_removal());
    if let Some(write) = refused {
        let summary = "a key ended with the value of a write that was refused";
        return Some(proof(history, summary, &[(write, "was refused")], state));
    }
    if state.value.is_some() {
        let summary = "a key ended with a value that nobody wrote";
        return Some(proof(history, summary, &[], state));
    }
    let write = writes.acknowledged.iter().max_by_key(|write| write.call_ns)?;
    if state.version.is_some() && write.version.is_some() {
        return None; // A larger tombstone than any write, for example of an expiry.
    }
    let summary = "an acknowledged write is gone: the key is absent and nobody removed it";
    Some(proof(history, summary, &[(write, "was acknowledged")], state))
}

fn proof(
    history: &History,
    summary: &str,
    steps: &[(&Operation, &str)],
    state: &Final,
) -> Violation {
    let mut violation = Violation::new(Pattern::Lost, summary);
    for (operation, why) in steps {
        violation = violation.step(history, operation, *why);
    }
    with_state(violation, history, state, "is what is left")
}
