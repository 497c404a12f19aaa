//! Runs `antecede bench` beside a test that makes trouble, with a history or without.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use crate::demo::path_text;
use crate::nodes::Node;
use crate::process::Start;
use crate::{Nodes, Process, Stage, settings};

/// What the load may take beyond its duration and as long again: until all nodes agree.
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
    span: Duration,
}

impl Load {
    /// Starts it; it lasts as long as the settings say.
    #[must_use]
    pub fn start(stage: &Stage, nodes: &Nodes, rate: Rate) -> Self {
        Self::start_for(stage, nodes, rate, settings::load_duration())
    }

    /// Starts one with a name of its own on some nodes; it lasts as long as the settings say.
    #[must_use]
    pub fn start_on(stage: &Stage, name: &str, nodes: &[&Node], rate: Rate) -> Self {
        Self::start_named(stage, name, nodes, rate, settings::load_duration())
    }

    /// Starts one that lasts so long.
    #[must_use]
    pub fn start_for(stage: &Stage, nodes: &Nodes, rate: Rate, span: Duration) -> Self {
        let all: Vec<&Node> = nodes.all.iter().collect();
        Self::start_named(stage, "history", &all, rate, span)
    }

    fn start_named(stage: &Stage, name: &str, nodes: &[&Node], rate: Rate, span: Duration) -> Self {
        let history = stage.path(&format!("{name}.jsonl"));
        let patience = format!("{}s", (END_PATIENCE + span).as_secs());
        let words = [
            &["--ratio", "50:50", "--home-keys", "0.5", "--history", path_text(&history)][..],
            &["--final-state", "--final-timeout", &patience, "--connections", "2"],
        ];
        let process = bench(stage, name, nodes, rate, span, &words.concat());
        Self { process, history, span }
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
    pub fn end(self) -> PathBuf {
        self.end_with_report().0
    }

    /// The same, with what was measured.
    ///
    /// # Panics
    /// If it is not, or does not come.
    #[must_use]
    pub fn end_with_report(mut self) -> (PathBuf, Value) {
        let report = report_of(&mut self.process, self.span);
        (self.history, report)
    }
}

/// Writes at some of the nodes, without a history.
#[derive(Debug)]
pub struct Writes {
    process: Process,
    span: Duration,
}

impl Writes {
    /// Starts them; `name` tells several apart.
    #[must_use]
    pub fn start(stage: &Stage, name: &str, nodes: &[&Node], rate: Rate, span: Duration) -> Self {
        let prefix = format!("{name}:");
        let words = ["--ratio", "0:100", "--key-prefix", &prefix, "--connections", "100"];
        Self { process: bench(stage, name, nodes, rate, span, &words), span }
    }

    /// Waits for the end, which must be good; what was measured.
    ///
    /// # Panics
    /// If it is not, or does not come.
    #[must_use]
    pub fn end(mut self) -> Value {
        report_of(&mut self.process, self.span)
    }
}

fn bench(
    stage: &Stage,
    name: &str,
    nodes: &[&Node],
    rate: Rate,
    span: Duration,
    further: &[&str],
) -> Process {
    let duration = format!("{}ms", span.as_millis());
    let endpoints: Vec<&str> = nodes.iter().map(|node| node.place.client.as_str()).collect();
    let endpoints = endpoints.join(",");
    let (operations, keys) = (rate.operations.to_string(), rate.keys.to_string());
    let fixed = [
        "bench",
        "--endpoints",
        &endpoints,
        "--rate",
        &operations,
        "--keys",
        &keys,
        "--value-size",
        "64",
        "--duration",
        &duration,
        "--json",
    ];
    let mut words = [&fixed[..], further].concat();
    if let Some(password) = nodes.first().and_then(|node| node.password()) {
        words.extend(["--password", password]);
    }
    Process::start(stage, &Start { name, words: &words, ..Start::default() })
}

fn report_of(process: &mut Process, span: Duration) -> Value {
    let status: ExitStatus = process.end(2 * span + END_PATIENCE);
    let said = process.answer();
    assert_eq!(status.code(), Some(0), "{status}: {said}\n{}", process.notes());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("no report: {error}: {said}"))
}
