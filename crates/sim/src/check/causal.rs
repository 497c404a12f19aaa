//! Checks causal+ twice: by the versions that the protocol gave, and by what clients read alone.
//!
//! By versions every operation is judged and a wrong order of two writes is found even where nobody
//! read it. By bad patterns nothing that the protocol says about versions is believed.

use antecede_check::{History, OrderOptions, causal, online};

use super::{Failure, accept};

/// Judges a history.
///
/// # Errors
/// The operations that no causal order explains.
pub fn check(history: &History) -> Result<(), Failure> {
    accept("causal", &online::check(history, OrderOptions::default()))?;
    accept("causal", &causal::check(history, OrderOptions::default()))
}
