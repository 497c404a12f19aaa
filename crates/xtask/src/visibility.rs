//! Measures how long a write takes until other datacenters show it.
//!
//! A deployment of our processes is started with a delay on every link between datacenters, and
//! `antecede bench` writes into the first one at a fixed rate. What counts is the metric
//! `antecede_visibility_seconds` of the nodes of the others: from the stamp at the origin to
//! visible-at. The control is the same deployment in memory with a few writes a second, which do
//! nothing but cross the delay. The figure is the median of the rounds, each quantile for itself.
//!
//! Assumes: the machine does nothing else meanwhile.
//! Limits: the buckets are half a millisecond wide; a quantile is the upper bound of its bucket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;

use crate::compare::deployment::Deployment;
use crate::compare::servers::Durability;
use crate::{machine, say};

/// Names of the datacenters.
const NAMES: [&str; 3] = ["eu", "us", "ap"];
/// The metric, as a line of a bucket begins.
const BUCKET: &str = "antecede_visibility_seconds_bucket{";
/// Writes a second of the control.
const CONTROL_RATE: u32 = 50;
/// Seconds of writes that are not counted: links are made while they wait.
const WARM_UP_SECONDS: u32 = 1;
/// How long the last writes may take to be counted everywhere.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
pub(crate) struct VisibilityOptions {
    /// Rounds; a figure is the median of them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Writes a second.
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// One-way delay between datacenters, in milliseconds.
    #[arg(long, default_value_t = 40)]
    delay: u32,
    /// Nodes of each datacenter.
    #[arg(long, default_value_t = 1)]
    nodes: u16,
    /// Seconds of a round.
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// The binary to measure.
    #[arg(long, default_value = "target/release/antecede")]
    binary: PathBuf,
}

/// How many writes were visible within so many microseconds.
type Counts = BTreeMap<u64, u64>;

/// Runs the measurement and prints its table.
pub(crate) fn run(options: &VisibilityOptions) -> anyhow::Result<()> {
    let root = machine::workspace()?;
    let binary = root.join(&options.binary);
    ensure!(
        binary.is_file(),
        "there is no binary at {}; build it with `cargo build --release`",
        binary.display()
    );
    let folder = root.join("target/visibility");
    let (mut measured, mut control) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let of_rate = (Durability::Always, options.rate);
        for (kind, (durability, rate), rounds) in [
            ("control", (Durability::Memory, CONTROL_RATE), &mut control),
            ("fsync always", of_rate, &mut measured),
        ] {
            let counts = measure(&binary, durability, rate, options, &folder)?;
            let [p50, p99] = quantiles(&counts)?;
            say::line(&format!("visibility: round {round}, {kind}: p50 {p50:.1} ms, p99 {p99:.1}"));
            rounds.push([p50, p99]);
        }
    }
    let (measured, control) = (medians(&measured), medians(&control));
    say::line(&format!(
        "{} writes/s, {} ms one way, {} nodes a datacenter, median of {} rounds: p50 {:.1} ms \
         ({:+.1} to the control), p99 {:.1} ms ({:+.1})",
        options.rate,
        options.delay,
        options.nodes,
        options.rounds,
        measured[0],
        measured[0] - control[0],
        measured[1],
        measured[1] - control[1],
    ));
    Ok(())
}

/// One round: what the nodes of the other datacenters have counted.
fn measure(
    binary: &Path,
    durability: Durability,
    rate: u32,
    options: &VisibilityOptions,
    folder: &Path,
) -> anyhow::Result<Counts> {
    let datacenters: Vec<String> =
        NAMES.iter().map(|name| format!("{name}:{}", options.nodes)).collect();
    let deployment = Deployment::start(binary, &datacenters.join(","), durability, folder)?;
    for (from, to) in ways() {
        let shape = format!(r#"{{"from":"{from}","to":"{to}","delay_ms":{}}}"#, options.delay);
        deployment.ask(&format!(
            "PUT /v1/faults HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n\
             {shape}",
            shape.len()
        ))?;
    }
    write(binary, &deployment, (CONTROL_RATE, WARM_UP_SECONDS), options)?;
    let before = counted(&deployment, options.nodes)?;
    write(binary, &deployment, (rate, options.seconds), options)?;
    let after = counted(&deployment, options.nodes)?;
    deployment.stop()?;
    let earlier = |limit: &u64| before.get(limit).copied().unwrap_or(0);
    Ok(after.iter().map(|(limit, count)| (*limit, count - earlier(limit))).collect())
}

/// Writes at a rate for some seconds, and waits until all of it is visible everywhere.
fn write(
    binary: &Path,
    deployment: &Deployment,
    (rate, seconds): (u32, u32),
    options: &VisibilityOptions,
) -> anyhow::Result<()> {
    let total = |counts: &Counts| counts.values().max().copied().unwrap_or(0);
    let before = total(&counted(deployment, options.nodes)?);
    let local = &deployment.ports()[..usize::from(options.nodes)];
    let endpoints: Vec<String> = local.iter().map(u16::to_string).collect();
    let mut command = Command::new(binary);
    command.args(["bench", "--json", "--ratio", "0:100", "--endpoints", &endpoints.join(",")]);
    command.args(["--rate", &rate.to_string(), "--duration", &format!("{seconds}s")]);
    let report: serde_json::Value = serde_json::from_str(&machine::output_of(&mut command)?)
        .context("cannot read what bench printed")?;
    let written = report["total"]["operations"].as_u64().context("bench tells what it did")?;
    let wanted = u64::from(rate) * u64::from(seconds);
    ensure!(wanted * 9 / 10 <= written, "bench wrote {written} times, {wanted} were asked for");
    let others = NAMES.len() as u64 - 1;
    let is_all = machine::wait_until(SETTLED_WITHIN, || {
        counted(deployment, options.nodes)
            .is_ok_and(|counts| before + written * others <= total(&counts))
    });
    ensure!(is_all, "not all of {written} writes were visible within {SETTLED_WITHIN:?}");
    Ok(())
}

/// All directions between two datacenters.
fn ways() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = NAMES.iter().flat_map(|from| NAMES.iter().map(move |to| (*from, *to)));
    all.filter(|(from, to)| from != to)
}

/// The counters of all nodes but those of the first datacenter, added up.
fn counted(deployment: &Deployment, nodes: u16) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let texts = deployment.ask("GET /metrics HTTP/1.0\r\n\r\n")?;
    for text in texts.iter().skip(usize::from(nodes)) {
        for (limit, count) in buckets(text) {
            *counts.entry(limit).or_default() += count;
        }
    }
    Ok(counts)
}

/// The buckets in a text of metrics: upper bounds in microseconds, and counts.
fn buckets(text: &str) -> impl Iterator<Item = (u64, u64)> {
    text.lines().filter_map(|line| {
        let (labels, count) = line.strip_prefix(BUCKET)?.split_once("} ")?;
        let (_, limit) = labels.split_once("le=\"")?;
        let limit = limit.trim_end_matches('"');
        let micros = match limit {
            "+Inf" => u64::MAX,
            seconds => {
                Duration::from_secs_f64(seconds.parse().ok()?).as_micros().try_into().ok()?
            }
        };
        Some((micros, count.parse().ok()?))
    })
}

/// The bounds below which half and 99 of 100 lie, in milliseconds.
fn quantiles(counts: &Counts) -> anyhow::Result<[f64; 2]> {
    let total = counts.values().max().copied().unwrap_or(0);
    ensure!(0 < total, "no write was counted as visible");
    let at = |percent: u64| {
        let bound = counts.iter().find(|(_, count)| total * percent <= **count * 100);
        bound.map_or(f64::INFINITY, |(micros, _)| *micros as f64 / 1000.0)
    };
    Ok([at(50), at(99)])
}

/// The middle round of each quantile.
fn medians(rounds: &[[f64; 2]]) -> [f64; 2] {
    [0, 1].map(|place| {
        let mut sorted: Vec<f64> = rounds.iter().map(|round| round[place]).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE antecede_visibility_seconds histogram\n\
        antecede_visibility_seconds_bucket{origin=\"eu\",le=\"0.0405\"} 3\n\
        antecede_visibility_seconds_bucket{origin=\"eu\",le=\"0.041\"} 99\n\
        antecede_visibility_seconds_bucket{origin=\"eu\",le=\"+Inf\"} 100\n\
        antecede_visibility_seconds_count{origin=\"eu\"} 100\n";

    #[test]
    fn quantiles_are_the_bounds_of_their_buckets() {
        let counts: Counts = buckets(TEXT).collect();
        assert_eq!(counts, Counts::from([(40_500, 3), (41_000, 99), (u64::MAX, 100)]));
        let [p50, p99] = quantiles(&counts).expect("there are counts");
        assert!((p50 - 41.0).abs() < 1e-9 && (p99 - 41.0).abs() < 1e-9, "{p50} {p99}");
        assert!(quantiles(&Counts::new()).is_err());
    }

    #[test]
    fn figure_is_the_middle_round() {
        let [p50, p99] = medians(&[[3.0, 9.0], [1.0, 7.0], [2.0, 8.0]]);
        assert!((p50 - 2.0).abs() < 1e-9 && (p99 - 8.0).abs() < 1e-9);
    }
}
