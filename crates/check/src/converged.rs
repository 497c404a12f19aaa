//! Checks that all replicas of all datacenters end with the same, and with nothing older than what
//! was acknowledged.
//!
//! Convergence is half of causal+ (COPS, section 3.2). Every replica's final state of a key must have one
//! value and, where both are known, one version; and that version is at least the largest one that
//! was acknowledged to a client for this key. A version that is not known says nothing: a tombstone
//! may have been collected.
//!
//! Assumes: the final states were taken after all faults were healed, all writes had ended and
//! nothing was under way; a replica that holds nothing for a key says so.
//! Ensures: a key that one datacenter reports and another does not makes the answer `Undecided`.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;

use crate::{
    history::{Final, History, Operation, Outcome, Symbol, Version},
    verdict::{Pattern, Step, Verdict, Violation},
};

/// Judges whether the final states of `history` are one state.
pub fn check(history: &History) -> Verdict {
    let finals = by_key(history);
    if finals.is_empty() {
        let why = "the history has no final states; record them after everything has come to rest";
        return Verdict::NothingToCheck { why: why.to_owned() };
    }
    let largest = largest_acknowledged(history);
    let dcs: BTreeSet<u16> = history.finals().iter().map(|state| state.dc).collect();
    let mut missing = None;
    for states in finals.values() {
        let first = states[0];
        let differs = |other: &&&Final| {
            let versions = first.version.zip(other.version);
            other.value != first.value || versions.is_some_and(|(one, other)| one != other)
        };
        if let Some(other) = states.iter().find(differs) {
            let summary = "two replicas ended with different states of one key";
            let violation = Violation::new(Pattern::Diverged, summary);
            let violation = with_state(violation, history, first, "one replica");
            return with_state(violation, history, other, "another replica").into();
        }
        if let Some(violation) = older_than_acknowledged(history, states, &largest) {
            return violation.into();
        }
        let absent = dcs.iter().find(|&&dc| states.iter().all(|state| state.dc != dc));
        missing = missing.or_else(|| absent.map(|dc| (first.key, *dc)));
    }
    match missing {
        None => Verdict::passed(history.finals().len() as u64, ""),
        Some((key, dc)) => Verdict::Undecided {
            why: format!(
                "datacenter {dc} has no final state of key {}; record every key in every \
                 datacenter, absent ones too",
                history.name(key)
            ),
        },
    }
}

/// The final states of each key.
pub(crate) fn by_key(history: &History) -> BTreeMap<Symbol, Vec<&Final>> {
    let mut finals: BTreeMap<Symbol, Vec<&Final>> = BTreeMap::new();
    for state in history.finals() {
        finals.entry(state.key).or_default().push(state);
    }
    finals
}

/// Adds a final state to a proof.
pub(crate) fn with_state(
    mut violation: Violation,
    history: &History,
    state: &Final,
    why: &str,
) -> Violation {
    let what = history.final_record(state).to_string();
    violation.steps.push(Step { what, why: why.to_owned() });
    violation
}

type Largest<'h> = FxHashMap<Symbol, (Version, &'h Operation)>;

fn largest_acknowledged(history: &History) -> Largest<'_> {
    let mut largest = Largest::default();
    for operation in history.operations() {
        let Some(version) = operation.version else { continue };
        if operation.outcome != Outcome::Ok || !operation.is_write() {
            continue;
        }
        let known = largest.entry(operation.key).or_insert((version, operation));
        if known.0 < version {
            *known = (version, operation);
        }
    }
    largest
}

fn older_than_acknowledged(
    history: &History,
    states: &[&Final],
    largest: &Largest<'_>,
) -> Option<Violation> {
    let (version, write) = largest.get(&states[0].key)?;
    let older = states.iter().find(|state| state.version.is_some_and(|held| held < *version))?;
    let summary = "a replica ended with an older version than one that was acknowledged";
    let violation = Violation::new(Pattern::StaleFinal, summary).step(
        history,
        write,
        "was acknowledged with this version",
    );
    Some(with_state(violation, history, older, "ended with an older one"))
}
