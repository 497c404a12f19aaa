//! Tells what a run brought: a table for people, JSON for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::finals::Finals;
use super::load::Outcome;
use super::metadata::Metadata;
use super::options::BenchOptions;
use super::plan::Plan;
use super::tally::Figures;
use crate::table;

/// What a run brought.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// What was done.
    pub(crate) run: Run,
    /// Seconds that were measured.
    pub(crate) seconds: f64,
    /// Operations of all kinds; a SET with its WAIT is one.
    pub(crate) total: Figures,
    /// By kind.
    pub(crate) commands: Vec<Figures>,
    /// Reads that found a value.
    pub(crate) hits: u64,
    /// Reads that found nothing.
    pub(crate) misses: u64,
    /// `WAIT`s with fewer acknowledgements than asked for.
    pub(crate) short_waits: u64,
    /// Refusals by code.
    pub(crate) errors: BTreeMap<String, u64>,
    /// What happened to connections.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Operations without an answer.
    pub(crate) unanswered: u64,
    /// Sessions that there were.
    pub(crate) sessions: u64,
    /// The cost of replication, if admin ports were given.
    pub(crate) metadata: Option<Metadata>,
    /// Whether all endpoints agreed in the end, if they were asked.
    pub(crate) have_agreed: Option<bool>,
    /// If they did not, why.
    pub(crate) difference: Option<String>,
    /// How long they took to agree.
    pub(crate) agreed_after_seconds: Option<f64>,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    endpoints: Vec<String>,
    datacenters: Vec<String>,
    connections: usize,
    pipeline: usize,
    threads: usize,
    ratio: String,
    keys: u64,
    key_bytes: usize,
    value_bytes: usize,
    distribution: String,
    rate: Option<f64>,
    wait: Option<u32>,
    seed: u64,
}

impl Run {
    /// The settings as they were in the end.
    pub(crate) fn of(options: &BenchOptions, plan: &Plan, threads: usize) -> Self {
        Self {
            endpoints: options.endpoints.clone(),
            datacenters: plan.datacenters.clone(),
            connections: plan.lane_count(),
            pipeline: plan.pipeline,
            threads,
            ratio: options.ratio.to_string(),
            keys: options.keys,
            key_bytes: plan.keys.key_bytes(),
            value_bytes: plan.value_bytes,
            distribution: options.distribution.to_string(),
            rate: options.rate,
            wait: options.wait,
            seed: options.seed,
        }
    }
}

impl Report {
    /// Puts everything together.
    pub(crate) fn of(
        run: Run,
        outcome: &Outcome,
        metadata: Option<Metadata>,
        finals: Option<&Finals>,
    ) -> Self {
        let tally = &outcome.tally;
        Self {
            run,
            seconds: outcome.seconds,
            total: tally.total(outcome.seconds),
            commands: tally.figures(outcome.seconds),
            hits: tally.hits,
            misses: tally.misses,
            short_waits: tally.short_waits,
            errors: tally.errors.clone(),
            faults: tally.faults.clone(),
            unanswered: tally.unanswered,
            sessions: outcome.sessions,
            metadata,
            have_agreed: finals.map(|finals| finals.have_agreed),
            difference: finals.and_then(|finals| finals.difference.clone()),
            agreed_after_seconds: finals
                .filter(|finals| finals.have_agreed)
                .map(|finals| finals.seconds),
        }
    }

    /// Whether the run did what it was to do.
    pub(crate) fn is_good(&self) -> bool {
        0 < self.total.operations && self.have_agreed != Some(false)
    }

    /// The report for people.
    pub(crate) fn to_text(&self) -> String {
        let run = &self.run;
        let mut lines = vec![format!(
            "{} endpoints in {} datacenters, {} connections, pipeline {}, {} threads, GET:SET {}",
            run.endpoints.len(),
            run.datacenters.len(),
            run.connections,
            run.pipeline,
            run.threads,
            run.ratio,
        )];
        lines.push(format!(
            "{} keys of {} bytes, {}, values of {} bytes, measured for {:.2} s",
            run.keys, run.key_bytes, run.distribution, run.value_bytes, self.seconds,
        ));
        lines.push(String::new());
        lines.push(self.table());
        lines.push(String::new());
        if self.hits + self.misses != 0 {
            lines.push(format!("reads: {} found a value, {} nothing", self.hits, self.misses));
        }
        if self.short_waits != 0 {
            lines.push(format!("waits with fewer acknowledgements: {}", self.short_waits));
        }
        lines.push(format!("refused: {}", counts(&self.errors)));
        lines.push(format!(
            "connections: {}; without an answer: {}; sessions: {}",
            counts(&self.faults),
            self.unanswered,
            self.sessions,
        ));
        if let Some(metadata) = &self.metadata {
            let of_writes = match metadata.bytes_per_write {
                Some(bytes) => format!(
                    "{bytes:.1} bytes beyond key and value ({} bytes, {} writes sent)",
                    metadata.metadata_bytes, metadata.sent_writes,
                ),
                None => "not counted by these nodes".to_owned(),
            };
            lines.push(format!("metadata per replicated write: {of_writes}"));
            lines.push(format!(
                "all traffic between datacenters per replicated write, less key and value: {:.1} \
                 bytes ({} bytes on links, {} replicated writes, {} bytes of keys and values)",
                metadata.link_bytes_per_write,
                metadata.link_bytes,
                metadata.replicated_writes,
                metadata.payload_bytes,
            ));
        }
        match (self.have_agreed, &self.difference) {
            (Some(true), _) => {
                let seconds = self.agreed_after_seconds.unwrap_or_default();
                lines.push(format!("all endpoints agree ({seconds:.1} s after the end)"));
            }
            (Some(false), difference) => {
                let difference = difference.as_deref().unwrap_or("in time");
                lines.push(format!("the endpoints DO NOT AGREE: {difference}"));
            }
            (None, _) => {}
        }
        lines.join("\n")
    }

    fn table(&self) -> String {
        let rows = self.commands.iter().chain([&self.total]).map(|figures| {
            let millis = |micros: f64| format!("{:.3}", micros / 1000.0);
            [
                figures.command.to_owned(),
                figures.operations.to_string(),
                format!("{:.0}", figures.per_second),
                millis(figures.mean_us),
                millis(figures.p50_us),
                millis(figures.p90_us),
                millis(figures.p99_us),
                millis(figures.p999_us),
                millis(figures.max_us),
            ]
        });
        let headings =
            ["", "operations", "per second", "mean", "p50", "p90", "p99", "p99.9", "max (ms)"];
        table::of(headings, rows, 1)
    }
}

fn counts<K: AsRef<str>>(counts: &BTreeMap<K, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let counts = counts.iter().map(|(what, count)| format!("{} {count}", what.as_ref()));
    counts.collect::<Vec<_>>().join(", ")
}
