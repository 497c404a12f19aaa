//! Checks the four session guarantees, of sessions that stay and of those that move with a token.

use antecede_check::{
    History, OrderOptions,
    session::{self, GUARANTEES},
};

use super::{Failure, accept};

/// Judges a history.
///
/// # Errors
/// The first guarantee that does not hold.
pub fn check(history: &History) -> Result<(), Failure> {
    for guarantee in GUARANTEES {
        accept("session", &session::check(history, guarantee, OrderOptions::default()))?;
    }
    Ok(())
}
