//! `antecede status`: one screen on a deployment, from the admin ports of its nodes.
//!
//! Verdict first: what is wrong, and how many more nodes each datacenter can lose. Then a row for
//! each node, by datacenter.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{arguments, ending, http, screen, table};

/// How a deployment is, on one screen.
///
/// Asks the admin port of each node (listen.admin in its configuration).
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit status: 0 healthy; 1 degraded; 2 no node answers, or wrong usage.")]
pub(crate) struct StatusOptions {
    /// Admin ports, such as 127.0.0.1:7200, separated by commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "URL,...")]
    admin: Vec<String>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Show it again and again, by default every second
    #[arg(long, value_parser = arguments::time, value_name = "TIME", num_args = 0..=1,
          default_missing_value = "1s")]
    watch: Option<Duration>,
}

/// A node as it tells of itself; what this build does not know is passed over.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct NodeStatus {
    verdict: String,
    #[serde(default)]
    datacenter_trouble: Vec<String>,
    #[serde(default)]
    trouble: Vec<String>,
    can_lose: Option<u64>,
    control: Option<Control>,
    topology: Option<Topology>,
    #[serde(default)]
    epoch: u64,
    version: String,
    datacenter: String,
    node: String,
    uptime_seconds: u64,
    heads: u64,
    tails: u64,
    shards: u64,
    settling: u64,
    keys: u64,
    connections: u64,
    used_memory_bytes: u64,
    lag: Vec<Lag>,
}

/// The agreement as a node sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Control {
    leader: Option<String>,
    reachable: bool,
    lease_ms: u64,
}

/// The datacenters as a node acts by them.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Topology {
    version: u64,
    change: Option<String>,
    #[serde(default)]
    waits: Vec<String>,
}

impl Control {
    /// Who decides, in a word or two.
    fn to_text(&self) -> String {
        match &self.leader {
            Some(leader) if self.reachable => leader.clone(),
            Some(_) | None => "cannot be reached".to_owned(),
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Lag {
    datacenter: String,
    lag_ms: u64,
}

/// What one admin port answered.
#[derive(Clone, Debug, Serialize)]
struct Answered {
    admin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<NodeStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Healthy,
    Degraded,
    Unreachable,
}

impl Health {
    fn to_exit(self) -> ExitCode {
        match self {
            Self::Healthy => ExitCode::SUCCESS,
            Self::Degraded => ExitCode::from(1),
            Self::Unreachable => ExitCode::from(2),
        }
    }
}

/// Everything, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
struct Overview {
    health: Health,
    verdict: String,
    nodes: Vec<Answered>,
}

/// Runs the command.
///
/// # Errors
/// When the answer has no form in JSON.
pub(crate) async fn run(options: &StatusOptions) -> anyhow::Result<ExitCode> {
    let Some(every) = options.watch else {
        let overview = look(&options.admin).await?;
        show(&overview, options.json)?;
        return Ok(overview.health.to_exit());
    };
    let asked = ending::asked();
    tokio::pin!(asked);
    loop {
        let overview = look(&options.admin).await?;
        if !options.json {
            screen::clear();
        }
        show(&overview, options.json)?;
        tokio::select! {
            () = &mut asked => return Ok(overview.health.to_exit()),
            () = tokio::time::sleep(every) => {}
        }
    }
}

fn show(overview: &Overview, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return screen::json(overview);
    }
    screen::answer(&overview.to_text());
    Ok(())
}

/// Asks all admin ports at the same time.
async fn look(admins: &[String]) -> anyhow::Result<Overview> {
    let mut questions = JoinSet::new();
    for (place, admin) in admins.iter().cloned().enumerate() {
        questions.spawn(async move {
            let found = ask(&admin).await;
            let error = found.as_ref().err().map(|error| format!("{error:#}"));
            (place, Answered { admin, status: found.ok(), error })
        });
    }
    let mut nodes = Vec::new();
    while let Some(answered) = questions.join_next().await {
        nodes.push(answered.context("a question to an admin port died")?);
    }
    nodes.sort_by_key(|(place, _)| *place);
    Ok(Overview::of(nodes.into_iter().map(|(_, answered)| answered).collect()))
}

async fn ask(admin: &str) -> anyhow::Result<NodeStatus> {
    let body = http::get(admin, "/v1/status").await?;
    serde_json::from_str(&body)
        .with_context(|| format!("{admin} answered something else than a status"))
}

/// What is wrong in each datacenter, and how much more each can lose: as the node tells it that
/// knows the newest configuration.
fn of_datacenters(nodes: &[Answered]) -> (Vec<String>, Vec<String>) {
    let mut newest: BTreeMap<&str, &NodeStatus> = BTreeMap::new();
    for status in nodes.iter().filter_map(|node| node.status.as_ref()) {
        let known = newest.entry(&status.datacenter).or_insert(status);
        if known.epoch < status.epoch {
            *known = status;
        }
    }
    let (mut trouble, mut spare) = (Vec::new(), Vec::new());
    for (name, status) in newest {
        trouble.extend(status.datacenter_trouble.iter().map(|why| format!("{name}: {why}")));
        match status.can_lose {
            Some(0) => spare.push(format!("{name} can lose no more node")),
            Some(1) => spare.push(format!("{name} can lose 1 more node")),
            Some(count) => spare.push(format!("{name} can lose {count} more nodes")),
            None => {}
        }
    }
    (trouble, spare)
}

/// The change of the datacenters that is under way, and what it waits for, as told by those who
/// know the newest version.
fn topology_lines(nodes: &[Answered]) -> Vec<String> {
    let told = nodes.iter().filter_map(|node| node.status.as_ref()?.topology.as_ref());
    let newest = told.clone().map(|topology| topology.version).max();
    let told = told.filter(|topology| Some(topology.version) == newest);
    let changing = told.filter_map(|topology| Some((topology.change.as_ref()?, &topology.waits)));
    let mut lines = Vec::new();
    for (change, waits) in changing {
        let waits = waits.iter().map(|wait| format!("  it waits: {wait}"));
        for line in std::iter::once(change.clone()).chain(waits) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

impl Overview {
    fn of(nodes: Vec<Answered>) -> Self {
        let answering = nodes.iter().filter(|node| node.status.is_some()).count();
        let (news, can_lose) = of_datacenters(&nodes);
        let spare = [topology_lines(&nodes), can_lose].concat();
        let mut reasons: Vec<String> = news;
        for node in &nodes {
            match &node.status {
                None => reasons.push(format!("{} does not answer", node.admin)),
                Some(status) => {
                    let here = format!("{} {}", status.datacenter, status.node);
                    reasons.extend(status.trouble.iter().map(|why| format!("{here}: {why}")));
                }
            }
        }
        let lags = nodes.iter().filter_map(|node| node.status.as_ref());
        let lag = lags.flat_map(|status| &status.lag).map(|lag| lag.lag_ms).max().unwrap_or(0);
        let count = nodes.len();
        let (health, verdict) = if answering == 0 {
            (Health::Unreachable, format!("unreachable: none of {count} nodes answers"))
        } else if reasons.is_empty() {
            let verdict = format!("healthy: {count} of {count} nodes, largest lag {lag} ms");
            (Health::Healthy, [vec![verdict], spare].concat().join("\n  "))
        } else {
            let verdict =
                format!("degraded: {answering} of {count} nodes answer, largest lag {lag} ms");
            (Health::Degraded, [vec![verdict], reasons, spare].concat().join("\n  "))
        };
        Self { health, verdict, nodes }
    }

    fn to_text(&self) -> String {
        let mut known: Vec<&NodeStatus> =
            self.nodes.iter().filter_map(|node| node.status.as_ref()).collect();
        known.sort_by(|one, other| one.node.cmp(&other.node));
        let rows = known.into_iter().map(|status| {
            let lags = status.lag.iter().map(|lag| format!("{} {}", lag.datacenter, lag.lag_ms));
            [
                status.datacenter.clone(),
                status.node.clone(),
                status.version.clone(),
                format!("{} ({}/{})", status.shards, status.heads, status.tails),
                status.keys.to_string(),
                status.connections.to_string(),
                format!("{:.1}", status.used_memory_bytes as f64 / f64::from(1 << 20)),
                humantime::format_duration(Duration::from_secs(status.uptime_seconds)).to_string(),
                lags.collect::<Vec<_>>().join(", "),
                status.epoch.to_string(),
                status.control.as_ref().map_or_else(|| "settings".to_owned(), Control::to_text),
                status
                    .control
                    .as_ref()
                    .map_or_else(String::new, |control| control.lease_ms.to_string()),
            ]
        });
        let headings = [
            "datacenter",
            "node",
            "version",
            "shards (heads/tails)",
            "keys",
            "clients",
            "MiB",
            "up",
            "behind by (ms)",
            "epoch",
            "decides",
            "lease (ms)",
        ];
        format!("{}\n\n{}", self.verdict, table::of(headings, rows, usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, verdict: &str, lag_ms: u64) -> Answered {
        let status = NodeStatus {
            verdict: verdict.to_owned(),
            datacenter_trouble: Vec::new(),
            trouble: verdict.strip_prefix("degraded: ").map(str::to_owned).into_iter().collect(),
            can_lose: None,
            control: None,
            topology: None,
            epoch: 1,
            version: "0.0.0".to_owned(),
            datacenter: "eu".to_owned(),
            node: name.to_owned(),
            uptime_seconds: 3,
            heads: 1,
            tails: 2,
            shards: 3,
            settling: 0,
            keys: 4,
            connections: 5,
            used_memory_bytes: 6 << 20,
            lag: vec![Lag { datacenter: "us".to_owned(), lag_ms }],
        };
        Answered { admin: format!("host:{name}"), status: Some(status), error: None }
    }

    fn silent() -> Answered {
        let error = Some("cannot ask".to_owned());
        Answered { admin: "host:gone".to_owned(), status: None, error }
    }

    #[test]
    fn all_well_is_healthy_with_the_largest_lag() {
        let overview = Overview::of(vec![node("1.1", "healthy", 3), node("1.2", "healthy", 70)]);
        assert_eq!(overview.health, Health::Healthy);
        assert_eq!(overview.verdict, "healthy: 2 of 2 nodes, largest lag 70 ms");
        assert!(overview.to_text().contains("us 70"));
    }

    #[test]
    fn what_is_wrong_in_a_datacenter_comes_first_and_once_then_what_it_can_still_lose() {
        let told = |name: &str, epoch: u64, trouble: &str, can_lose: u64| {
            let mut node = node(name, "healthy", 0);
            let status = node.status.as_mut().unwrap();
            (status.epoch, status.can_lose) = (epoch, Some(can_lose));
            status.datacenter_trouble = vec![trouble.to_owned()];
            status.control = Some(Control {
                leader: Some("1.3".to_owned()),
                reachable: epoch != 4,
                lease_ms: 7,
            });
            node
        };
        let old = told("1.1", 4, "node 1.1 is gone", 1);
        let overview = Overview::of(vec![old, told("1.2", 5, "node 1.3 is gone", 0), silent()]);
        assert_eq!(
            overview.verdict,
            "degraded: 2 of 3 nodes answer, largest lag 0 ms\n  eu: node 1.3 is gone\n  \
             host:gone does not answer\n  eu can lose no more node"
        );
        let text = overview.to_text();
        assert!(text.contains("cannot be reached") && text.contains("1.3"), "{text}");
    }

    #[test]
    fn a_change_of_datacenters_is_told_once_with_what_it_waits_for() {
        let told = |name: &str, version: u64, change: Option<&str>| {
            let mut node = node(name, "healthy", 0);
            let change = change.map(str::to_owned);
            let waits = vec!["datacenter us has not acknowledged".to_owned()];
            node.status.as_mut().unwrap().topology = Some(Topology { version, change, waits });
            node
        };
        let now = Some("datacenter ap is being added");
        let nodes = vec![told("1.1", 4, now), told("1.2", 4, now), told("1.3", 3, Some("older"))];
        let overview = Overview::of(nodes);
        assert_eq!(overview.health, Health::Healthy);
        assert_eq!(
            overview.verdict,
            "healthy: 3 of 3 nodes, largest lag 0 ms\n  datacenter ap is being added\n    it waits: \
             datacenter us has not acknowledged"
        );
    }

    #[test]
    fn a_silent_or_unwell_node_is_named() {
        let unwell = node("1.2", "degraded: no link to 2.1", 0);
        let overview = Overview::of(vec![node("1.1", "healthy", 3), unwell, silent()]);
        assert_eq!(overview.health, Health::Degraded);
        assert!(overview.verdict.contains("eu 1.2: no link to 2.1"), "{}", overview.verdict);
        assert!(overview.verdict.contains("host:gone does not answer"), "{}", overview.verdict);
        assert_eq!(Overview::of(vec![silent()]).health, Health::Unreachable);
    }
}
