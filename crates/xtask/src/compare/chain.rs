//! Measures writes that two processes hold before they are acknowledged.
//!
//! Ours is a chain of two nodes: a SET is answered when both hold it. Beside it stands Redis with
//! one replica, and `WAIT 1` after each SET in the same packet. `antecede bench` drives both with
//! the same connections, in turns.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::deployment::Deployment;
use super::servers::{Durability, Rival, Server};
use super::{CompareOptions, load};
use crate::{machine, say};

/// How long a replica may take to follow its primary.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(30);

/// What `antecede bench --json` tells, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Report {
    total: Total,
    short_waits: u64,
    unanswered: u64,
}

#[derive(Debug, Deserialize)]
struct Total {
    per_second: f64,
}

/// The rounds of ours and of Redis.
pub(super) fn measure(
    durability: Durability,
    options: &CompareOptions,
    binary: &Path,
    folder: &Path,
) -> anyhow::Result<[Vec<f64>; 2]> {
    let chain = Deployment::start(binary, "local:2", durability, folder)?;
    let primary = Server::start(Rival::Redis, Path::new("redis-server"), durability, folder)?;
    let below = folder.join("replica");
    fs::create_dir_all(&below).with_context(|| format!("cannot create {}", below.display()))?;
    let replica = Server::start(Rival::Redis, Path::new("redis-server"), durability, &below)?;
    let (of_primary, of_replica) = (primary.port().to_string(), replica.port().to_string());
    let follow = ["-p", of_replica.as_str(), "replicaof", "127.0.0.1", of_primary.as_str()];
    machine::output_of(Command::new("redis-cli").args(follow))?;
    let follows = machine::wait_until(FOLLOWS_WITHIN, || {
        let ask = ["-p", of_primary.as_str(), "wait", "1", "100"];
        let answer = machine::output_of(Command::new("redis-cli").args(ask));
        let is_linked = ["-p", of_replica.as_str(), "info", "replication"];
        let told = machine::output_of(Command::new("redis-cli").args(is_linked));
        answer.is_ok_and(|answer| answer.trim() == "1")
            && told.is_ok_and(|told| told.contains("master_link_status:up"))
    });
    ensure!(follows, "the replica of Redis did not follow within {FOLLOWS_WITHIN:?}");
    let mut rounds = [Vec::new(), Vec::new()];
    for round in 1..=options.rounds {
        for (place, (port, wait)) in
            [(chain.ports()[0], "0"), (primary.port(), "1")].iter().enumerate()
        {
            let rate = bench(binary, *port, wait, options)?;
            say::line(&format!(
                "compare: {}, SET held by two, round {round}: {} {rate:.0}/s",
                durability.name(),
                if place == 0 { "antecede" } else { "redis" },
            ));
            rounds[place].push(rate);
        }
    }
    chain.stop()?;
    primary.stop()?;
    replica.stop()?;
    Ok(rounds)
}

fn bench(binary: &Path, port: u16, wait: &str, options: &CompareOptions) -> anyhow::Result<f64> {
    let mut command = Command::new(binary);
    command.args(["bench", "--json", "--ratio", "0:100", "--threads", "1"]);
    command.args(["--endpoints", &port.to_string(), "--keys", &options.keys.to_string()]);
    command.args(["--connections", &load::CONNECTIONS.to_string()]);
    command.args(["--value-size", &load::VALUE_BYTES.to_string()]);
    command.args(["--requests", &options.requests.to_string()]);
    if wait != "0" {
        command.args(["--wait", wait]);
    }
    let text = machine::output_of(&mut command)?;
    let report: Report = serde_json::from_str(&text).context("cannot read what bench printed")?;
    ensure!(
        report.short_waits == 0 && report.unanswered == 0,
        "{} WAITs were short and {} writes unanswered",
        report.short_waits,
        report.unanswered
    );
    Ok(report.total.per_second)
}
