//! Judges what clients were told: reads a history and says which consistency models it satisfies.
//!
//! One record of operations serves every tool: the simulator, `antecede check`, and tests with
//! real processes. Each model is one file with one entry function, and one row in `models::MODELS`;
//! each answers with a verdict, and a violation comes with the few operations that prove it.
//!
//! What a recorder must do so that a correct store is never blamed: give each written value of a key
//! once; number the operations of a session; begin a new session, or go on in the same, after an
//! unknown outcome, and record that outcome; record what removes a key by itself (an expiry) as a
//! delete with an unknown outcome, called at the earliest time at which it may happen; record
//! `DEL` of an absent key with result 0.
//!
//! Assumes: the values written to one key are unique, and a session's operations are numbered in
//! the order in which its client issued them.
//! Ensures: a model that had nothing to check, or could not decide, says so; it never passes
//! silently.
//!
//! Nothing here asks for the time or opens a file; readers and writers are given.

/// What clients asked and were told: start here.
pub mod history;
/// The history as a file of JSON lines.
pub mod jsonl;
/// Small histories written by hand, for tests.
pub mod notation;
/// What a model answers, and how a violation is shown.
pub mod verdict;

/// Whether causal order and conflicts contradict each other.
mod cycle;
/// The shortest chain of causes between two transactions.
mod explain;
/// The history as transactions in sessions, each read joined to the write that it returned.
mod order;

/// No read shows a write before what it depends on: by the bad patterns, after the fact.
pub mod causal;
/// All replicas of all datacenters end with the same.
pub mod converged;
/// Nothing that was acknowledged is lost.
pub mod durable;
/// Each key in a datacenter is a linearizable register.
pub mod linearizable;
/// The same while the history is being made, by versions.
pub mod online;
/// The four session guarantees, one by one.
pub mod session;
/// Registers with unique values, decided in one sweep.
mod zones;

/// All models at once.
pub mod judge;
/// The table of all models.
pub mod models;

pub use history::{Final, History, Kind, Level, Operation, Outcome, Record, Symbol, Version};
pub use judge::{JudgeOptions, ModelReport, Report, judge};
pub use linearizable::LinearizableOptions;
pub use order::OrderOptions;
pub use verdict::{Pattern, Step, Verdict, Violation};
