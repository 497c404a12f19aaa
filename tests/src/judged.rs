//! Lets the judge look at a history, and asks what there was in it to be judged.
//!
//! A run in which nothing met cannot break a promise. So beside the verdicts, tests ask how many
//! operations each model was checked on, and how often a read saw another datacenter's write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use crate::demo::path_text;
use crate::{Stage, binary};

/// What every history of a load must hold.
pub const MODELS: &[&str] = &[
    "linearizable",
    "causal+",
    "read your writes",
    "monotonic reads",
    "monotonic writes",
    "writes follow reads",
    "converged",
    "durable",
];

/// What the judge said.
#[derive(Clone, Debug)]
pub struct Judged {
    report: Value,
}

impl Judged {
    /// Runs `antecede check`, which must find that all of `models` passed.
    ///
    /// # Panics
    /// If a model did not pass, with the whole report.
    #[must_use]
    pub fn pass(stage: &Stage, history: &Path, models: &[&str]) -> Self {
        let mut words = vec!["check", path_text(history), "--json"];
        let options = models.iter().flat_map(|model| ["--model", *model]);
        words.extend(options);
        let ended = binary::run(stage, &words);
        assert_eq!(ended.status, Some(0), "the judge says:\n{}\n{}", ended.answer, ended.notes);
        let report: Value = serde_json::from_str(&ended.answer).expect("the report is JSON");
        let judged = Self { report };
        for model in models {
            assert!(0 < judged.checked(model), "{model} was not checked: {}", ended.answer);
        }
        // All other models may have nothing to check, but none may be broken.
        let whole = binary::run(stage, &["check", path_text(history)]);
        assert_eq!(whole.status, Some(0), "the judge says:\n{}\n{}", whole.answer, whole.notes);
        judged
    }

    /// On how many operations a model was checked.
    ///
    /// # Panics
    /// If the report does not tell of it as passed.
    #[must_use]
    pub fn checked(&self, model: &str) -> u64 {
        let reports = self.report["models"].as_array().expect("there is a list of models");
        let found = reports.iter().find(|report| report["model"] == model);
        let found = found.unwrap_or_else(|| panic!("nothing is told of {model}: {}", self.report));
        assert_eq!(found["verdict"], "passed", "{found}");
        found["checked"].as_u64().expect("it is told how much was checked")
    }
}

/// What a history holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Content {
    /// Operations that were acknowledged.
    pub acknowledged: u64,
    /// Writes among them.
    pub writes: u64,
    /// Operations of which nobody knows the outcome.
    pub unknown: u64,
    /// Reads that returned what a session in another datacenter had written.
    pub remote_reads: u64,
    /// Final states.
    pub finals: u64,
}

impl Content {
    /// Counts what the file holds.
    ///
    /// # Panics
    /// If it is no history.
    #[must_use]
    pub fn of(history: &Path) -> Self {
        let mut content = Self::default();
        let mut reads: Vec<(String, u64)> = Vec::new();
        let mut writers: BTreeMap<String, u64> = BTreeMap::new();
        let file = File::open(history).expect("there is a history");
        for line in BufReader::new(file).lines().skip(1) {
            let line = line.expect("the history can be read");
            let record: Value = serde_json::from_str(&line).expect("a line is JSON");
            if record.get("final").is_some() {
                content.finals += 1;
                continue;
            }
            match record["outcome"].as_str() {
                Some("ok") => content.acknowledged += 1,
                Some("unknown") => content.unknown += 1,
                _ => continue,
            }
            let dc = record["dc"].as_u64().expect("an operation has a datacenter");
            let id = record["value"].as_str().map(|value| format!("{} {value}", record["key"]));
            match (record["op"].as_str(), id) {
                (Some("read"), Some(id)) => reads.push((id, dc)),
                (Some("read"), None) => {}
                (_, id) => {
                    content.writes += u64::from(record["outcome"] == "ok");
                    writers.extend(id.map(|id| (id, dc)));
                }
            }
        }
        let is_remote = |(id, dc): &&(String, u64)| writers.get(id).is_some_and(|of| of != dc);
        content.remote_reads = reads.iter().filter(is_remote).count() as u64;
        content
    }
}
