//! Tells what a replicated write costs on the links between datacenters beyond its key and value.
//!
//! The nodes count the bytes that they send to each other node (`antecede_link_sent_bytes_total`,
//! with the peer as `DATACENTER.NODE`). What went to other datacenters during the run, less the keys
//! and values of the acknowledged writes times the datacenters that they went to, is metadata:
//! versions, dependencies and framing, and also acknowledgements, ticks and cuts.
//!
//! Assumes: nobody else writes meanwhile, and all nodes' admin ports are given.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use antecede_server::clock;

use crate::http;

/// The counter of bytes on a link.
const SENT_BYTES: &str = "antecede_link_sent_bytes_total";

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
    /// What is left for each replicated write.
    pub(crate) bytes_per_write: f64,
}

impl Metadata {
    /// From bytes on links, and writes with their payload as clients sent them.
    pub(crate) fn of(link_bytes: u64, writes: u64, payload: u64, datacenters: u64) -> Option<Self> {
        let copies = datacenters.saturating_sub(1);
        let replicated_writes = writes * copies;
        if replicated_writes == 0 {
            return None;
        }
        let payload_bytes = payload * copies;
        let rest = link_bytes as f64 - payload_bytes as f64;
        let bytes_per_write = rest / replicated_writes as f64;
        Some(Self { link_bytes, replicated_writes, payload_bytes, bytes_per_write })
    }
}

/// Bytes that the nodes have sent to other datacenters, and the number of datacenters.
///
/// # Errors
/// When an admin port does not answer, or does not tell which node it belongs to.
pub(crate) async fn sent_bytes(admins: &[String]) -> anyhow::Result<u64> {
    let mut all = 0;
    for admin in admins {
        let metrics = http::get(admin, "/metrics").await?;
        let status = http::get(admin, "/v1/status").await?;
        let own = datacenter_of(&status)
            .with_context(|| format!("the status of {admin} does not name its node"))?;
        all += sent_to_others(&metrics, &own);
    }
    Ok(all)
}

/// The same once the links are quiet.
///
/// # Errors
/// As [`sent_bytes`].
pub(crate) async fn sent_bytes_when_quiet(admins: &[String]) -> anyhow::Result<u64> {
    let start = clock::steady().0;
    let mut before = sent_bytes(admins).await?;
    loop {
        tokio::time::sleep(QUIET_PAUSE).await;
        let now = sent_bytes(admins).await?;
        let is_late = QUIET_TIMEOUT <= clock::steady().0.saturating_sub(start);
        if now.saturating_sub(before) <= QUIET_BYTES || is_late {
            return Ok(now);
        }
        before = now;
    }
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
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(SENT_BYTES));
    samples
        .filter_map(|sample| {
            let (labels, value) = sample.rsplit_once(' ')?;
            let peer = labels.split("peer=\"").nth(1)?.split('"').next()?;
            (peer.split('.').next()? != own).then(|| value.parse::<u64>().ok())?
        })
        .sum()
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
        let found = Metadata::of(100_000, 100, 30_000, 3).unwrap();
        assert_eq!(found.replicated_writes, 200);
        assert_eq!(found.bytes_per_write, 200.0);
        assert_eq!(Metadata::of(5, 100, 30, 1), None, "one datacenter replicates nothing");
    }

    #[test]
    fn the_status_names_the_node() {
        assert_eq!(datacenter_of("{\"node\":\"2.1\"}"), Some("2".to_owned()));
        assert_eq!(datacenter_of("{\"node\":{\"id\":\"3.1\"}}"), Some("3".to_owned()));
        assert_eq!(datacenter_of("[]"), None);
    }
}
