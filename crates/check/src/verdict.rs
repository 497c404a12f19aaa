//! Says what a model found: passed, violated with a proof, nothing to check, or undecided.
//!
//! A violation carries the few operations that prove it, each with a line on its part in the
//! proof, and one sentence that says what is wrong.

use std::fmt;

use serde::Serialize;

use crate::history::{History, Operation};

/// How a history breaks a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Pattern {
    /// A read returned what nobody wrote.
    ThinAirRead,
    /// An operation comes before itself.
    CyclicCO,
    /// A read found nothing although a write of the key is in its past.
    WriteCOInitRead,
    /// A read returned a value although its past holds a later one.
    WriteCORead,
    /// No order of concurrent writes fits what everybody read.
    CyclicCF,
    /// Versions order two writes against cause and effect.
    VersionAgainstCause,
    /// Two writes of one key have one version.
    VersionReused,
    /// A session did not see what it had written.
    ReadYourWrites,
    /// A session saw an older value than before.
    MonotonicReads,
    /// A later write of a session was seen without an earlier one.
    MonotonicWrites,
    /// A write was seen without what its writer had read.
    WritesFollowReads,
    /// No order of the operations in real time explains the answers.
    NotLinearizable,
    /// Two replicas ended with different states.
    Diverged,
    /// A replica ended with less than was acknowledged.
    StaleFinal,
    /// An acknowledged write is gone.
    Lost,
}

/// One operation or state of a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The operation, as people read it.
    pub what: String,
    /// Its part in the proof.
    pub why: String,
}

/// The proof that a history breaks a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The kind of break.
    pub pattern: Pattern,
    /// What is wrong, in one sentence.
    pub summary: String,
    /// The operations that prove it, causes first.
    pub steps: Vec<Step>,
}

impl Violation {
    /// A violation without steps yet.
    pub fn new(pattern: Pattern, summary: impl Into<String>) -> Self {
        Self { pattern, summary: summary.into(), steps: Vec::new() }
    }

    /// The same with one more operation in its proof.
    #[must_use]
    pub fn step(
        mut self,
        history: &History,
        operation: &Operation,
        why: impl Into<String>,
    ) -> Self {
        let what = history.record(operation).to_string();
        self.steps.push(Step { what, why: why.into() });
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.pattern, self.summary)?;
        for (place, step) in self.steps.iter().enumerate() {
            write!(f, "\n  {}. {}", place + 1, step.what)?;
            if !step.why.is_empty() {
                write!(f, "\n       {}", step.why)?;
            }
        }
        Ok(())
    }
}

/// What a model answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that was checked fits the model.
    Passed {
        /// How many operations (or states) were checked.
        checked: u64,
        /// How many were left out.
        skipped: u64,
        /// Why they were left out; empty if none was.
        note: String,
    },
    /// The history holds nothing that the model speaks of.
    NothingToCheck {
        /// What would be needed.
        why: String,
    },
    /// The history breaks the model.
    Violated {
        /// The proof.
        violation: Violation,
    },
    /// No proof either way.
    Undecided {
        /// What stood in the way, and what to do.
        why: String,
    },
}

impl Verdict {
    /// The proof, if the model is broken.
    pub fn violation(&self) -> Option<&Violation> {
        match self {
            Self::Violated { violation } => Some(violation),
            Self::Passed { .. } | Self::NothingToCheck { .. } | Self::Undecided { .. } => None,
        }
    }

    /// Whether something was checked and all of it fits.
    pub fn is_passed(&self) -> bool {
        match self {
            Self::Passed { .. } => true,
            Self::NothingToCheck { .. } | Self::Violated { .. } | Self::Undecided { .. } => false,
        }
    }

    /// `Passed` without anything left out, or `NothingToCheck` if nothing was checked.
    pub(crate) fn passed(checked: u64, nothing: &str) -> Self {
        if checked == 0 {
            return Self::NothingToCheck { why: nothing.to_owned() };
        }
        Self::Passed { checked, skipped: 0, note: String::new() }
    }
}

impl From<Violation> for Verdict {
    fn from(violation: Violation) -> Self {
        Self::Violated { violation }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed { checked, skipped: 0, note } if note.is_empty() => {
                write!(f, "passed ({checked} checked)")
            }
            Self::Passed { checked, skipped, note } => {
                write!(f, "passed ({checked} checked, {skipped} left out: {note})")
            }
            Self::NothingToCheck { why } => write!(f, "nothing to check: {why}"),
            Self::Violated { violation } => write!(f, "VIOLATED: {violation}"),
            Self::Undecided { why } => write!(f, "undecided: {why}"),
        }
    }
}
