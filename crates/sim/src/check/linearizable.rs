//! Checks that each key that one datacenter writes is a linearizable register there.

use antecede_check::{History, linearizable};

use super::{Failure, accept};

/// Judges a history.
///
/// # Errors
/// A register whose answers no order in real time explains.
pub fn check(history: &History) -> Result<(), Failure> {
    accept(
        "linearizable",
        &linearizable::check(history, linearizable::LinearizableOptions::default()),
    )
}
