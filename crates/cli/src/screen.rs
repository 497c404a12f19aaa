//! Prints for the person, or the program, at the other end of the command.
//!
//! Answers go to standard output, everything else to standard error; both know whether they are a
//! terminal. A reader that has gone is no reason to stop, so a failed write is passed over.

use std::io::{IsTerminal, Write};

use serde::Serialize;

/// Prints a line of the answer.
pub(crate) fn answer(text: &str) {
    let mut out = anstream::stdout().lock();
    if writeln!(out, "{text}").is_ok() {
        drop(out.flush());
    }
}

/// Prints a value as one piece of JSON.
///
/// # Errors
/// When the value has no form in JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    answer(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints a line on how things stand, not part of the answer.
pub(crate) fn note(text: &str) {
    let mut out = anstream::stderr().lock();
    if writeln!(out, "{text}").is_ok() {
        drop(out.flush());
    }
}

/// Replaces the line on how things stand, if a person sees it.
pub(crate) fn progress(text: &str) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let mut out = anstream::stderr().lock();
    if write!(out, "\r\x1b[K{text}").is_ok() {
        drop(out.flush());
    }
}

/// Makes room on a terminal for what comes next.
pub(crate) fn clear() {
    if std::io::stdout().is_terminal() {
        answer("\x1b[2J\x1b[H");
    }
}

/// Whether a person types at standard input.
pub(crate) fn is_typed_at() -> bool {
    std::io::stdin().is_terminal()
}
