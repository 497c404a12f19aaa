//! Holds what must be true of every run, one property in a file.
//!
//! | property | source | file |
//! |---|---|---|
//! | each home key is a linearizable register in its datacenter | CRAQ section 2; Herlihy and Wing 1990 | `linearizable.rs` |
//! | no read shows a write before what it depends on, and versions extend causality | COPS section 3.1; Bouajjani et al. 2017 | `causal.rs` |
//! | the four session guarantees hold, also across datacenters with a token | Terry et al. 1994 | `session.rs` |
//! | after healing all replicas hold what the surviving writes come to | COPS section 3.2 (causal+) | `converged.rs` |
//! | a commit and an acknowledged write are on every disk of the chain, and stay | Chain Replication section 3 | `durable.rs` |
//! | a predecessor has all that its successor has; an identity names one entry | Chain Replication section 3 (update propagation) | `chain_prefix.rs` |
//! | after healing everything is answered, settles and becomes stable in bounded time | DESIGN section 14 | `no_stuck.rs` |
//! | a cut covers only what is applied | DESIGN section 5 (cuts); PITFALLS A2, A13 | `cuts.rs` |
//! | visible-at extends causality within a datacenter | DESIGN section 2; PITFALLS A19 | `visible_at.rs` |
//! | an idle deployment writes nothing | DESIGN section 5 (ticks) | `idle.rs` |
//! | a request with an id takes effect once and has one answer | DESIGN section 3 (retries); PITFALLS A6, A7 | `retries.rs` |
//! | one that has lapsed serves nobody, nothing late of it is taken, and what it alone had is put aside | DESIGN section 5 (membership); PITFALLS A14, A15 | `lapsed.rs` |
//! | a stalled shard does not delay writes that do not depend on it | DESIGN section 5 (receiving) | `visibility.rs` |

use std::fmt;

/// Causality, online by versions and offline by bad patterns.
pub mod causal;
/// Prefixes and identities within a chain.
pub mod chain_prefix;
/// The same everywhere in the end.
pub mod converged;
/// Cuts are promises.
pub mod cuts;
/// Nothing that was acknowledged is lost.
pub mod durable;
/// Nothing is written when nothing happens.
pub mod idle;
/// What a datacenter may do that was let go of, and others with what is its.
pub mod lapsed;
/// Registers within a datacenter.
pub mod linearizable;
/// Everything ends.
pub mod no_stuck;
/// Requests that are sent again.
pub mod retries;
/// The four guarantees.
pub mod session;
/// Delay of writes that depend on nothing that is stalled.
pub mod visibility;
/// Logical time extends causality.
pub mod visible_at;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The property, by its file's name.
    pub property: &'static str,
    /// What was found.
    pub what: String,
}

impl Failure {
    /// A failure of a property.
    #[must_use]
    pub fn new(property: &'static str, what: impl Into<String>) -> Self {
        Self { property, what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}

/// Takes the verdict of a checker for a property.
fn accept(property: &'static str, verdict: &antecede_check::Verdict) -> Result<(), Failure> {
    match verdict {
        antecede_check::Verdict::Passed { .. } | antecede_check::Verdict::NothingToCheck { .. } => {
            Ok(())
        }
        antecede_check::Verdict::Violated { .. } | antecede_check::Verdict::Undecided { .. } => {
            Err(Failure::new(property, verdict.to_string()))
        }
    }
}
