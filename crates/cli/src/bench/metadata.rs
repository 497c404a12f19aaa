//! Tells what a replicated write costs on the links between datacenters beyond its key and value.
//!
//! Two figures. *Of writes*: the bytes of replicated writes alone, with version, dependencies and
//! their share of the framing, without keys and values, as nodes count them
//! (`antecede_replicated_metadata_bytes_total`, `antecede_replicated_writes_total`). *On links*: all
//! bytes that nodes sent to other datacenters (`antecede_link_sent_bytes_total`, with the peer as
//! `DATACENTER.NODE`), so acknowledgements, ticks and cuts too, which cost the more for each write
//! the fewer writes there are; from these the keys and values are taken off as clients sent them.
//!
//! Assumes: nobody else writes meanwhile, and all nodes' admin ports are given.

use std::time::Duration;

use antecede_server::clock;
use anyhow::Context;
use serde::Serialize;

use crate::http;

/// The counter of bytes on a link.
const SENT_BYTES: &str = "antecede_link_sent_bytes_total";

/// The counters of writes that were sent to other datacenters.
const METADATA_BYTES: &str = "antecede_replicated_metadata_bytes_total";
const REPLICATED_WRITES: &str = "antecede_replicated_writes_total";

/// How long to wait after a run until the links are quiet.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);

/// How long links that send at most `QUIET_BYTES` are looked at.
const QUIET_PAUSE: Duration = Duration::from_millis(300);

/// Bytes between two looks that are not from writes.
const QUIET_BYTES: u64 = 64 << 10;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Metadata {
    /// Bytes sent to other datacenters.
    pub(crate) link_bytes: u64,
    /// Acknowledged writes times the other datacenters.
    pub(crate) replicated_writes: u64,
    /// Bytes of keys and values among `link_bytes`.
    pub(crate) payload_bytes: u64,
    /// What all traffic leaves for each replicated write.
    pub(crate) link_bytes_per_write: f64,
    /// Writes that nodes sent to other datacenters; one that was sent twice counts twice.
    pub(crate) sent_writes: u64,
    /// What these writes took without keys and values.
    pub(crate) metadata_bytes: u64,
    /// What one of them took; `None` where nodes do not count it.
    pub(crate) bytes_per_write: Option<f64>,
}

/// Counters of one node, or of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Bytes sent to other datacenters.
    link_bytes: u64,
    /// Bytes of writes among them, without keys and values.
    metadata_bytes: u64,
    /// How many writes.
    writes: u64,
}

impl Counters {
    /// What was counted since `before`; `None` if a node has begun to count anew.
    fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            link_bytes: self.link_bytes.checked_sub(before.link_bytes)?,
            metadata_bytes: self.metadata_bytes.checked_sub(before.metadata_bytes)?,
            writes: self.writes.checked_sub(before.writes)?,
        })
    }

    fn add(&mut self, other: Self) {
        self.link_bytes += other.link_bytes;
        self.metadata_bytes += other.metadata_bytes;
        self.writes += other.writes;
    }
}

impl Metadata {
    /// From what was counted during a run, and writes with their payload as clients sent them.
    pub(crate) fn of(
        during: Counters,
        (writes, payload): (u64, u64),
        datacenters: u64,
    ) -> Option<Self> {
        let copies = datacenters.saturating_sub(1);
        let replicated_writes = writes * copies;
        if replicated_writes == 0 {
            return None;
        }
        let payload_bytes = payload * copies;
        let of_writes = during.metadata_bytes as f64 / during.writes as f64;
        let rest = during.link_bytes as f64 - payload_bytes as f64;
        Some(Self {
            link_bytes: during.link_bytes,
            replicated_writes,
            payload_bytes,
            link_bytes_per_write: rest / replicated_writes as f64,
            sent_writes: during.writes,
            metadata_bytes: during.metadata_bytes,
            bytes_per_write: (0 < during.writes).then_some(of_writes),
        })
    }
}

/// The counters of each node with these admin ports.
///
/// # Errors
/// When an admin port does not answer, or does not tell which node it belongs to.
pub(crate) async fn counters(admins: &[String]) -> anyhow::Result<Vec<Counters>> {
    let mut all = Vec::new();
    for admin in admins {
        let metrics = http::get(admin, "/metrics").await?;
        let status = http::get(admin, "/v1/status").await?;
        let own = datacenter_of(&status)
            .with_context(|| format!("the status of {admin} does not name its node"))?;
        all.push(Counters {
            link_bytes: sent_to_others(&metrics, &own),
            metadata_bytes: sum(&metrics, METADATA_BYTES, |_| true),
            writes: sum(&metrics, REPLICATED_WRITES, |_| true),
        });
    }
    Ok(all)
}

/// What was counted since `before`, once the links are quiet.
///
/// # Errors
/// As [`counters`]; and when a node was restarted meanwhile.
pub(crate) async fn counted_since(
    before: &[Counters],
    admins: &[String],
) -> anyhow::Result<Counters> {
    let start = clock::steady().0;
    let mut last = total(before, &counters(admins).await?)?;
    loop {
        tokio::time::sleep(QUIET_PAUSE).await;
        let now = total(before, &counters(admins).await?)?;
        let is_late = QUIET_TIMEOUT <= clock::steady().0.saturating_sub(start);
        if now.link_bytes - last.link_bytes.min(now.link_bytes) <= QUIET_BYTES || is_late {
            return Ok(now);
        }
        last = now;
    }
}

/// What all nodes counted between two moments.
fn total(before: &[Counters], after: &[Counters]) -> anyhow::Result<Counters> {
    let mut all = Counters::default();
    for (before, after) in before.iter().zip(after) {
        all.add(after.since(*before).context("a node was restarted, and counts anew")?);
    }
    Ok(all)
}

/// The number of the datacenter of the node whose status this is.
fn datacenter_of(status: &str) -> Option<String> {
    let status: serde_json::Value = serde_json::from_str(status).ok()?;
    let node = status.get("node")?;
    let node = node.get("id").unwrap_or(node).as_str()?;
    Some(node.split('.').next()?.to_owned())
}

/// The sum of the link counters whose peer is in another datacenter than `own`.
fn sent_to_others(metrics: &str, own: &str) -> u64 {
    sum(metrics, SENT_BYTES, |labels| {
        let peer = labels.split("peer=\"").nth(1).and_then(|rest| rest.split('"').next());
        peer.and_then(|peer| peer.split('.').next()).is_some_and(|datacenter| datacenter != own)
    })
}

/// The sum of a counter over the labels that are meant.
fn sum(metrics: &str, name: &str, is_meant: impl Fn(&str) -> bool) -> u64 {
    let samples = metrics.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        let is_whole_name = labels.is_empty() || labels.starts_with('{');
        (is_whole_name && is_meant(labels)).then(|| value.parse::<u64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# TYPE antecede_link_sent_bytes_total counter
antecede_link_sent_bytes_total{peer=\"1.2\"} 1000
antecede_link_sent_bytes_total{peer=\"2.1\"} 30
antecede_link_sent_bytes_total{peer=\"10.1\"} 4
antecede_link_received_bytes_total{peer=\"2.1\"} 7
";

    #[test]
    fn only_bytes_to_other_datacenters_count() {
        assert_eq!(sent_to_others(METRICS, "1"), 34);
        assert_eq!(sent_to_others(METRICS, "2"), 1004);
    }

    #[test]
    fn metadata_is_what_keys_and_values_leave() {
        let during = Counters { link_bytes: 100_000, ..Counters::default() };
        let found = Metadata::of(during, (100, 30_000), 3).unwrap();
        assert_eq!(found.replicated_writes, 200);
        assert_eq!(found.link_bytes_per_write, 200.0);
        assert_eq!(found.bytes_per_write, None, "nodes did not count it");
        assert_eq!(Metadata::of(during, (100, 30), 1), None, "nothing is replicated");
        // 10 writes were sent twice.
        let during = Counters { metadata_bytes: 210 * 40, writes: 210, ..during };
        let found = Metadata::of(during, (100, 30_000), 3).unwrap();
        assert_eq!(found.bytes_per_write, Some(40.0));
        assert_eq!((found.sent_writes, found.metadata_bytes), (210, 8400));
    }

    #[test]
    fn a_node_that_counts_anew_spoils_the_sum() {
        let counters = |link_bytes: u64| Counters { link_bytes, ..Counters::default() };
        let before = [counters(5), counters(7)];
        assert_eq!(total(&before, &[counters(15), counters(9)]).unwrap(), counters(12));
        let error = total(&before, &[counters(15), counters(3)]).unwrap_err();
        assert!(error.to_string().contains("restarted"), "{error}");
    }

    #[test]
    fn counters_are_told_by_their_whole_name() {
        let metrics = "a_total 3\na_total{x=\"y z\"} 4\na_total_more 5\n# HELP a_total 6\n";
        assert_eq!(sum(metrics, "a_total", |_| true), 7);
    }

    #[test]
    fn the_status_names_the_node() {
        assert_eq!(datacenter_of("{\"node\":\"2.1\"}"), Some("2".to_owned()));
        assert_eq!(datacenter_of("{\"node\":{\"id\":\"3.1\"}}"), Some("3".to_owned()));
        assert_eq!(datacenter_of("[]"), None);
    }
}
