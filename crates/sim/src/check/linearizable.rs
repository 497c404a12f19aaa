//! Checks that each key that one datacenter writes is a linearizable register there.
//!
//! A key with too many writes of unknown outcome at once cannot be decided: that is counted, and is
//! no failure. The simulator tells how many runs had such keys.

use antecede_check::{History, LinearizableOptions, Verdict, linearizable};

use super::{Failure, accept};

/// Judges a history; tells whether every key could be decided.
///
/// # Errors
/// A register whose answers no order in real time explains.
pub fn check(history: &History) -> Result<bool, Failure> {
    let verdict = linearizable::check(history, LinearizableOptions::default());
    if let Verdict::Undecided { .. } = verdict {
        return Ok(false);
    }
    accept("linearizable", &verdict).map(|()| true)
}
