//! `antecede check`: judges a history and tells which consistency models it satisfies.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use antecede_check::{
    JudgeOptions, LinearizableOptions, OrderOptions, Report, Verdict, jsonl, judge, models::MODELS,
};
use anyhow::Context;
use clap::Args;

use crate::arguments::UsageError;
use crate::screen;

/// After so many bytes the line on how things stand changes.
const PROGRESS_BYTES: u64 = 16 << 20;

/// Judge a history: which consistency models it satisfies, with a proof where it does not.
///
/// Reads the JSON lines that `antecede bench --history` and the simulator write. A violation is
/// shown with the few operations that prove it.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit status: 0 nothing is violated or undecided (with --model: those models \
passed); 1 otherwise; 2 wrong usage."
)]
pub(crate) struct CheckOptions {
    /// The history; - is standard input
    file: PathBuf,
    /// Tell only of this model, and demand that it passed; may be given several times
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// Judge operations at the level eventual as if they had promised causality
    #[arg(long)]
    with_eventual: bool,
    /// Judge linearizability also of keys that several datacenters write
    #[arg(long)]
    with_remote_writes: bool,
    /// How many states may be visited for one key before the answer is undecided
    #[arg(long, value_name = "COUNT", default_value_t = LinearizableOptions::default().work_max)]
    work: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be read, or a model does not exist.
pub(crate) fn run(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let wanted = options.models.iter().map(|name| model_named(name));
    let wanted: Vec<&'static str> = wanted.collect::<Result<_, _>>()?;
    let shown = options.file.display();
    let source: Box<dyn BufRead> = if options.file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file = File::open(&options.file).with_context(|| format!("cannot open {shown}"))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Box::new(BufReader::with_capacity(1 << 20, Watched { source: file, read: 0, size }))
    };
    let history = jsonl::read(source).with_context(|| format!("cannot read {shown}"))?;
    screen::progress(&format!("judging {} operations", history.operations().len()));
    let judged = JudgeOptions {
        order: OrderOptions { with_eventual: options.with_eventual },
        linearizable: LinearizableOptions {
            with_remote_writes: options.with_remote_writes,
            work_max: options.work,
        },
    };
    let mut report = judge(&history, &judged);
    screen::progress("");
    let is_good =
        if wanted.is_empty() { report.is_clean() } else { report.missing(&wanted).is_empty() };
    if !wanted.is_empty() {
        report.models.retain(|report| wanted.contains(&report.model));
    }
    if options.json {
        screen::json(&report)?;
    } else {
        screen::answer(report.to_string().trim_end());
        screen::answer(conclusion(&report, is_good));
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The last line of the report.
fn conclusion(report: &Report, is_good: bool) -> &'static str {
    let is_undecided = |verdict: &Verdict| matches!(verdict, Verdict::Undecided { .. });
    if report.violated().next().is_some() {
        "the history BREAKS a model"
    } else if is_good {
        "nothing is violated"
    } else if report.models.iter().any(|report| is_undecided(&report.verdict)) {
        "nothing is violated, but something could not be decided"
    } else {
        "nothing is violated, but something was not checked"
    }
}

/// The model with this name; dashes may stand for spaces.
fn model_named(name: &str) -> Result<&'static str, UsageError> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['-', '_'], " ");
    let found = MODELS.iter().find(|model| plain(model.name) == plain(name));
    found.map(|model| model.name).ok_or_else(|| {
        let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        UsageError(format!("there is no model {name}; there are: {}", names.join(", ")))
    })
}

/// A file that tells how much of it was read.
struct Watched {
    source: File,
    read: u64,
    size: u64,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        let before = self.read / PROGRESS_BYTES;
        self.read += count as u64;
        if before < self.read / PROGRESS_BYTES {
            let (read, size) = (self.read >> 20, self.size >> 20);
            screen::progress(&format!("read {read} of {size} MiB"));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_their_names_with_spaces_or_dashes() {
        assert_eq!(model_named("read-your-writes").unwrap(), "read your writes");
        assert_eq!(model_named("Causal+").unwrap(), "causal+");
        let error = model_named("strict").unwrap_err().to_string();
        assert!(error.contains("linearizable, causal+"), "{error}");
    }
}
