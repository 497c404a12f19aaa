//! Runs all models over a history and tells which it satisfies.
//!
//! A report is for people (`Display`) and for programs (`Serialize`). It is clean only if no model
//! is violated or undecided; a model that had nothing to check is told as such, and the caller says
//! with `Report::missing` which models it cannot do without.

use std::fmt;

use serde::Serialize;

use crate::{
    history::History,
    linearizable::LinearizableOptions,
    models::{MODELS, Subject},
    order::OrderOptions,
    verdict::Verdict,
};

/// What is judged, and how long.
#[derive(Clone, Copy, Debug, Default)]
pub struct JudgeOptions {
    /// Which operations the causal models judge.
    pub order: OrderOptions,
    /// What linearizability judges.
    pub linearizable: LinearizableOptions,
}

/// What one model answered.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// The model's name.
    pub model: &'static str,
    /// What it promises.
    pub property: &'static str,
    /// What it answered.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What all models answered.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Operations in the history.
    pub operations: u64,
    /// Final states in the history.
    pub finals: u64,
    /// One answer for each row of the table of models.
    pub models: Vec<ModelReport>,
}

/// Judges `history` by all models.
pub fn judge(history: &History, options: &JudgeOptions) -> Report {
    let subject = Subject::new(history, *options);
    let models = MODELS.iter().map(|model| ModelReport {
        model: model.name,
        property: model.property,
        verdict: (model.check)(&subject),
    });
    Report {
        operations: history.operations().len() as u64,
        finals: history.finals().len() as u64,
        models: models.collect(),
    }
}

impl Report {
    /// The answer of one model, by its name in the table.
    pub fn verdict(&self, model: &str) -> Option<&Verdict> {
        self.models.iter().find(|report| report.model == model).map(|report| &report.verdict)
    }

    /// The models that the history breaks.
    pub fn violated(&self) -> impl Iterator<Item = &ModelReport> {
        self.models.iter().filter(|report| report.verdict.violation().is_some())
    }

    /// Whether no model is violated or undecided, and at least one was checked.
    pub fn is_clean(&self) -> bool {
        let is_fine = |report: &ModelReport| match report.verdict {
            Verdict::Passed { .. } | Verdict::NothingToCheck { .. } => true,
            Verdict::Violated { .. } | Verdict::Undecided { .. } => false,
        };
        self.models.iter().all(is_fine)
            && self.models.iter().any(|report| report.verdict.is_passed())
    }

    /// Those of `models` that did not pass: violated, undecided, or without anything to check.
    pub fn missing<'a>(&self, models: &[&'a str]) -> Vec<&'a str> {
        let passed = |model: &&&str| self.verdict(model).is_some_and(Verdict::is_passed);
        models.iter().filter(|model| !passed(model)).copied().collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} operations, {} final states", self.operations, self.finals)?;
        for report in &self.models {
            writeln!(f, "{:<20} {}", report.model, report.verdict)?;
        }
        Ok(())
    }
}
