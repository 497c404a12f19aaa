//! Runs `antecede bench` with a history beside a test that makes trouble.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::demo::path_text;
use crate::process::Start;
use crate::{Nodes, Process, Stage, settings};

/// What the load may take beyond its duration: until all nodes agree.
const END_PATIENCE: Duration = Duration::from_secs(90);

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Operations a second.
    pub operations: u32,
    /// Keys that they meet on.
    pub keys: u32,
}

/// A load with its history: sessions on all nodes, half of the keys written in one datacenter only.
#[derive(Debug)]
pub struct Load {
    process: Process,
    history: PathBuf,
}

impl Load {
    /// Starts it; it lasts as long as the settings say.
    #[must_use]
    pub fn start(stage: &Stage, nodes: &Nodes, rate: Rate) -> Self {
        Self::start_on(stage, "history", &nodes.endpoints(), rate)
    }

    /// Starts one with a name of its own on some nodes.
    #[must_use]
    pub fn start_on(stage: &Stage, name: &str, endpoints: &str, rate: Rate) -> Self {
        let history = stage.path(&format!("{name}.jsonl"));
        let duration = format!("{}s", settings::load_duration().as_secs());
        let (operations, keys) = (rate.operations.to_string(), rate.keys.to_string());
        let words = [
            "bench",
            "--endpoints",
            endpoints,
            "--connections",
            "2",
            "--ratio",
            "50:50",
            "--rate",
            &operations,
            "--keys",
            &keys,
            "--value-size",
            "64",
            "--home-keys",
            "0.5",
            "--duration",
            &duration,
            "--history",
            path_text(&history),
            "--final-state",
            "--json",
        ];
        let start = Start { name: "bench", words: &words, environment: &[] };
        Self { process: Process::start(stage, &start), history }
    }

    /// Whether it ends within a time.
    pub fn has_ended(&mut self, within: Duration) -> bool {
        self.process.end_within(within).is_some()
    }

    /// Waits for the end, which must be good; the history.
    ///
    /// # Panics
    /// If it is not, or does not come.
    #[must_use]
    pub fn end(mut self) -> PathBuf {
        let status: ExitStatus = self.process.end(settings::load_duration() + END_PATIENCE);
        let said = self.process.answer();
        assert_eq!(status.code(), Some(0), "{status}: {said}\n{}", self.process.notes());
        self.history
    }
}
