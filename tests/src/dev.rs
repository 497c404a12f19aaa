//! Runs `antecede dev` and finds where it listens.

use std::time::Duration;

use crate::process::Start;
use crate::{Client, Process, Stage};

/// How long a start may take: a log is read again.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What the line begins with that names the address.
const LISTENING: &str = "antecede dev: listening on ";

/// One datacenter of one node.
#[derive(Debug)]
pub struct Dev {
    /// Its process.
    pub process: Process,
    /// Where clients connect to.
    pub address: String,
}

impl Dev {
    /// Starts it on a free port with these further options.
    #[must_use]
    pub fn start(stage: &Stage, words: &[&str]) -> Self {
        Self::start_with(stage, words, &[])
    }

    /// The same with something added to its environment.
    #[must_use]
    pub fn start_with(stage: &Stage, words: &[&str], environment: &[(&str, &str)]) -> Self {
        let words = [&["dev", "--port", "0"], words].concat();
        let start = Start { name: "dev", words: &words, environment, ..Start::default() };
        let mut process = Process::start(stage, &start);
        Self { address: address_of(&mut process), process }
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }
}

fn address_of(process: &mut Process) -> String {
    process.eventually("dev tells where it listens", START_TIMEOUT, |process| {
        let answer = process.answer();
        let line = answer.lines().find_map(|line| line.strip_prefix(LISTENING))?;
        Some(line.split(',').next()?.trim().to_owned())
    })
}
