//! Tests of the judge: what it must reject, what it must accept, and whether brute force agrees.
//!
//! A checker that has never failed is not trusted: `known` holds histories with known verdicts,
//! `oracle` compares with decision procedures that try every order on thousands of tiny histories,
//! and `reference` breaks histories of correct stores and expects the break to be found.

/// Histories with known verdicts, one file each.
mod known;
/// Every order, tried: for tiny histories.
mod oracle;
/// Histories of correct stores, and the same with a break in them.
mod reference;
/// Verdicts of the models that look at final states and real time.
mod verdicts;
