//! `antecede bench`: puts load on servers that speak the Redis protocol, and measures.
//!
//! Read `lane` first: one connection, from drawing operations to counting answers.

/// Numbers from a seed.
mod chance;
/// Which keys are asked for.
mod distribution;
/// What everybody holds in the end.
mod finals;
/// Names of keys and values.
mod keys;
/// One connection.
mod lane;
/// Threads and what they share.
mod load;
/// The cost of replication.
mod metadata;
/// The options.
pub(crate) mod options;
/// What a run is to do.
mod plan;
/// The history file.
mod recorder;
/// What is told.
mod report;
/// Latencies and counts.
mod tally;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use antecede_server::clock;
use anyhow::anyhow;

use self::load::{Outcome, Shared, Span};
use self::metadata::Metadata;
use self::options::BenchOptions;
use self::plan::Plan;
use self::recorder::Recorder;
use self::report::{Report, Run};
use crate::{ending, screen};

/// How long is measured if nothing is said.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

/// How often the line on how things stand changes.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Runs the command.
///
/// # Errors
/// When an endpoint is not there, or a file cannot be written.
pub(crate) async fn run(options: &BenchOptions) -> anyhow::Result<ExitCode> {
    let report = measure(options).await?;
    if options.json {
        screen::json(&report)?;
    } else {
        screen::answer(&report.to_text());
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does everything but print.
async fn measure(options: &BenchOptions) -> anyhow::Result<Report> {
    let run_name = format!("h{:x}", clock::wall().millis());
    let plan = Plan::of(options, &run_name).await?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.map_or(cores, usize::from).min(plan.lane_count());
    let recorder = options.history.as_deref().map(Recorder::begin).transpose()?;
    let counters_before = if options.admin.is_empty() {
        None
    } else {
        Some(metadata::counters(&options.admin).await?)
    };
    let duration = match (options.requests, options.duration) {
        (Some(_), _) => None,
        (None, given) => Some(given.unwrap_or(DURATION_DEFAULT)),
    };
    let span = Span { warmup: options.warmup, duration, requests: options.requests };
    let shared = Shared::new(plan, span);
    let records = recorder.as_ref().map(Recorder::records);
    let outcome = watched(&shared, span, threads, records).await?;
    let plan = &shared.plan;
    let finals = if options.final_state {
        let used = (0_u64..).zip(&outcome.used).filter(|(_, used)| **used);
        let keys: Vec<u64> = used.map(|(key, _)| key).collect();
        Some(finals::take(plan, &keys, options.final_timeout, ending::asked()).await)
    } else {
        None
    };
    if let Some(recorder) = recorder {
        let records = finals.as_ref().map_or(&[][..], |finals| &finals.records);
        recorder.finish(records)?;
    }
    let metadata = match &counters_before {
        Some(before) => metadata_of(before, options, plan, &outcome).await,
        None => None,
    };
    screen::progress("");
    let run = Run::of(options, plan, threads);
    Ok(Report::of(run, &outcome, metadata, finals.as_ref()))
}

/// The cost of replication; a run is not lost because it cannot be told.
async fn metadata_of(
    before: &[metadata::Counters],
    options: &BenchOptions,
    plan: &Plan,
    outcome: &Outcome,
) -> Option<Metadata> {
    let written = (outcome.tally.writes, outcome.tally.payload_bytes);
    match metadata::counted_since(before, &options.admin).await {
        Ok(during) => Metadata::of(during, written, plan.datacenters.len() as u64),
        Err(error) => {
            screen::note(&format!("cannot tell the metadata of a write: {error:#}"));
            None
        }
    }
}

/// Runs the load on threads of its own; the user can end it early, and sees how it stands.
async fn watched(
    shared: &Arc<Shared>,
    span: Span,
    threads: usize,
    records: Option<recorder::Records>,
) -> anyhow::Result<Outcome> {
    let load = {
        let shared = Arc::clone(shared);
        tokio::task::spawn_blocking(move || load::run(&shared, span, threads, records))
    };
    tokio::pin!(load);
    let end = ending::asked();
    tokio::pin!(end);
    let mut is_ending = false;
    let mut before = 0;
    loop {
        tokio::select! {
            outcome = &mut load => return outcome.map_err(|_| anyhow!("the load died"))?,
            () = &mut end, if !is_ending => {
                is_ending = true;
                shared.stop.store(true, Ordering::Relaxed);
            }
            () = tokio::time::sleep(PROGRESS_EVERY) => {
                let served = shared.served.load(Ordering::Relaxed);
                screen::progress(&format!("{served} operations, {}/s", served - before));
                before = served;
            }
        }
    }
}

#[cfg(test)]
mod tests;
