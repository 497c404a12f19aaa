//! Prints lines for the person at the terminal.
//!
//! The only place of this crate that writes to the terminal by itself; chores that start other
//! programs let those inherit it.

use std::io::Write;

/// Prints one line and hands it on at once, so that it stands before what a child process prints.
///
/// A terminal that is gone is no reason to stop a chore, so a failed write is passed over.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").is_ok() {
        drop(out.flush());
    }
}
