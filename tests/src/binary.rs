//! Finds the built binary and runs commands of it that end by themselves.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::settings;

/// The binary.
///
/// # Panics
/// If it is not there, with the line that builds it.
#[must_use]
pub fn path() -> PathBuf {
    let path = settings::binary();
    assert!(
        path.is_file(),
        "there is no {}; build it with: cargo build --release -p antecede",
        path.display()
    );
    path
}

/// A command of the binary, which takes no settings from the environment of the test.
///
/// # Panics
/// If the binary is not there.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(path());
    for name in settings::inherited() {
        command.env_remove(name);
    }
    command
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status; `None`: a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub answer: String,
    /// Its standard error.
    pub notes: String,
}

/// Runs `antecede WORDS` to its end.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn run(words: &[&str]) -> Ended {
    let output: Output = command()
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("cannot run antecede {words:?}: {error}"));
    Ended {
        status: output.status.code(),
        answer: String::from_utf8_lossy(&output.stdout).into_owned(),
        notes: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The same for a command that must succeed; what it printed.
///
/// # Panics
/// If it fails.
#[must_use]
pub fn answer_of(words: &[&str]) -> String {
    let ended = run(words);
    assert_eq!(ended.status, Some(0), "antecede {words:?}: {ended:?}");
    ended.answer
}
