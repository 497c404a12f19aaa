//! Datacenters are cut off from each other, each goes on for its clients, and all meet again.
//!
//! First one datacenter is cut off from the two others, then all three from each other. Clients of
//! every datacenter write and read all the time; none of them may see an error, since nothing that
//! a client of a datacenter needs lies beyond it. Afterwards every datacenter must be as little
//! behind the others as before, while clients still write.
//!
//! `ANTECEDE_TEST_SECONDS=600` makes it ten minutes of partition, `ANTECEDE_TEST_NODES=1` lets each
//! datacenter have one node: nine of them, with what they are sent, need more than two processors.
//! `ANTECEDE_TEST_DATACENTERS=2` leaves the third out.

use std::time::Duration;

use serde_json::{Value, json};
use tests::load::{Load, Rate, Writes};
use tests::network::between;
use tests::nodes::Node;
use tests::patience::{Deadline, watch};
use tests::{Network, Nodes, Stage, eventually, http, settings, tell};

use super::{CALM_SPAN, JUDGED, start_of};
use crate::lost_nodes::check;

/// Writes a second on either side, besides what is judged.
const WRITES: u32 = 2_000;
const KEYS: u32 = 20_000;

/// A datacenter that is no further behind is as good as before.
pub(super) const LAG_MAX_MS: f64 = 1_000.0;

/// How long all may take until they are no further behind than that, under load.
const HEAL_PATIENCE: Duration = Duration::from_secs(60);

/// How long loads go on after healing, at least; a tenth of the partition if that is more.
const HEALED_SPAN: Duration = Duration::from_secs(10);

/// How often figures are told in a long run.
const FIGURES_SPAN: Duration = Duration::from_secs(30);

/// How far any datacenter is behind another, as its nodes tell.
pub(super) fn lag_ms(nodes: &Nodes) -> f64 {
    let lags = nodes.all.iter().map(|node| largest(node, "antecede_lag_milliseconds"));
    lags.fold(0.0, f64::max)
}

/// The largest value of a metric over all its labels.
fn largest(node: &Node, name: &str) -> f64 {
    let answer = http::ask("GET", &node.place.admin, "/metrics", "").expect("it has metrics");
    let lines = answer.body.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.fold(0.0, f64::max)
}

/// A counter, summed over all its labels.
fn sum(node: &Node, name: &str) -> u64 {
    let answer = http::ask("GET", &node.place.admin, "/metrics", "").expect("it has metrics");
    let is_it = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    };
    let lines = answer.body.lines().filter(is_it);
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Bytes of files below a folder.
fn folder_bytes(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0, // It has just been removed.
    };
    entries.flatten().map(size).sum()
}

/// Tells what the partition costs so far.
fn tell_figures(stage: &Stage, nodes: &Nodes, when: &str) {
    let memory = nodes.all.iter().map(|node| node.process.resident_bytes() >> 20);
    let memory: Vec<u64> = memory.collect();
    let disk = |node: &Node| folder_bytes(&stage.path("data").join(&node.name)) >> 20;
    let disk: Vec<u64> = nodes.all.iter().map(disk).collect();
    let lag = lag_ms(nodes);
    let all = |name: &str| nodes.all.iter().map(|node| sum(node, name)).sum::<u64>();
    let [committed, visible, dropped, flushes] = [
        "antecede_committed_total",
        "antecede_visibility_seconds_count",
        "antecede_link_dropped_messages_total",
        "antecede_log_flush_seconds_count",
    ]
    .map(all);
    tell(&format!(
        "{when}: lag {lag} ms, {committed} committed, {visible} of others visible, {dropped} messages dropped, {flushes} flushes, \
         memory {memory:?} MiB, on disk {disk:?} MiB"
    ));
}

/// Nobody was refused, lost a connection, or waited for an answer in vain.
pub(super) fn assert_no_error(name: &str, report: &Value) {
    let (total, seconds) = (&report["total"], &report["seconds"]);
    tell(&format!("{name}: {total} in {seconds} s"));
    for what in ["errors", "faults"] {
        assert_eq!(report[what], json!({}), "{name}: {report}");
    }
    assert_eq!(report["unanswered"], json!(0), "{name}: {report}");
}

/// Heals, and tells how long a lag takes to become small again, however long that is.
fn heal(stage: &Stage, network: &Network, nodes: &Nodes, cut: Duration) -> Duration {
    tell_figures(stage, nodes, "before healing");
    network.heal_all();
    let since = Deadline::after(HEAL_PATIENCE);
    let mut told = Duration::ZERO;
    eventually("all are as little behind as before", HEAL_PATIENCE + 2 * cut, || {
        let lag = lag_ms(nodes);
        if told <= since.elapsed() {
            told = since.elapsed() + (cut / 60).max(Duration::from_secs(1));
            tell_figures(stage, nodes, &format!("{:?} after healing", since.elapsed()));
        }
        (lag < LAG_MAX_MS).then_some(())
    });
    since.elapsed()
}

#[test]
fn datacenters_that_are_cut_off_go_on_without_an_error_and_meet_again() {
    let stage = Stage::alone();
    let (count, each) = (settings::datacenters(), settings::nodes_of_each());
    let size = usize::from(each);
    let Some(network) = Network::make(count * size) else { return };
    let mut nodes = start_of(&stage, &network, count, each);
    let places: Vec<Vec<usize>> =
        (0..count).map(|at| (at * size..(at + 1) * size).collect()).collect();
    let cut = settings::load_duration();
    let span = CALM_SPAN + cut + HEALED_SPAN.max(cut / 10);
    let load = Load::start_for(&stage, &nodes, JUDGED, span);
    let of = |places: &[usize]| places.iter().map(|place| &nodes.all[*place]).collect::<Vec<_>>();
    let others = u32::try_from(count - 1).expect("they are few");
    let writes: Vec<(String, Writes)> = (0..count)
        .map(|at| {
            let operations = if at == 0 { WRITES } else { WRITES / others };
            let (name, rate) =
                (format!("in-{}", nodes.datacenters[at]), Rate { operations, keys: KEYS });
            let writes = Writes::start(&stage, &name, &of(&places[at]), rate, span);
            (name, writes)
        })
        .collect();
    watch(CALM_SPAN, || ());
    tell_figures(&stage, &nodes, "before the cut");
    let cuts: Vec<_> =
        (0..count - 1).map(|at| between(&places[at], &places[at + 1..].concat())).collect();
    let mut rest = cut;
    for (ways, left) in cuts.iter().zip((0..others).rev()) {
        network.cut(ways);
        let end = cut * left / others;
        while end < rest {
            rest -= watch(FIGURES_SPAN.min(rest - end), || ()).min(rest - end);
            tell_figures(&stage, &nodes, &format!("{rest:?} before healing"));
        }
    }
    let lag = lag_ms(&nodes);
    assert!(LAG_MAX_MS < lag, "nobody was cut off: {lag} ms behind");
    let took = heal(&stage, &network, &nodes, cut);
    tell(&format!("after {cut:?} of partition all were as little behind as before in {took:?}"));
    for (name, writes) in writes {
        assert_no_error(&name, &writes.end());
    }
    let (history, report) = load.end_with_report();
    assert_no_error("judged", &report);
    tell_figures(&stage, &nodes, "in the end");
    nodes.assert_running();
    let content = check(&stage, &history);
    assert_eq!(content.unknown, 0, "{content:?}");
    assert!(took < HEAL_PATIENCE, "they were behind for {took:?}");
    assert!(0 < content.remote_reads, "sessions met across datacenters: {content:?}");
}
