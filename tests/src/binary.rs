//! Finds the built binary and runs commands of it that end by themselves.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::Start;
use crate::{Process, Stage, settings};

/// How long a command may take that ends by itself, besides as long as the load that it judges.
const END_TIMEOUT: Duration = Duration::from_secs(60);

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

/// A command of the binary, which takes no settings from the environment of the test; it may run in
/// a network namespace.
///
/// # Panics
/// If the binary is not there.
#[must_use]
pub fn command(space: Option<&str>) -> Command {
    let mut command = match space {
        // It becomes the binary itself, so the number of the process is the binary's.
        Some(space) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", space]).arg(path());
            command
        }
        None => Command::new(path()),
    };
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
/// If it cannot be started, or does not end.
#[must_use]
pub fn run(stage: &Stage, words: &[&str]) -> Ended {
    let start = Start { name: "command", words, ..Start::default() };
    let mut process = Process::start(stage, &start);
    process.close_input();
    let status = process.end(END_TIMEOUT + settings::load_duration());
    Ended { status: status.code(), answer: process.answer(), notes: process.notes() }
}

/// The same for a command that must succeed; what it printed.
///
/// # Panics
/// If it fails.
#[must_use]
pub fn answer_of(stage: &Stage, words: &[&str]) -> String {
    let ended = run(stage, words);
    assert_eq!(ended.status, Some(0), "antecede {words:?}: {ended:?}");
    ended.answer
}
