//! The table of all metrics: what `/metrics` says of them and the documents are made of it.
//!
//! Ensures: no metric is registered that has no row (`find` is asked each time), and every row is
//! registered somewhere (a test).

/// How a metric grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counts up from the start of the process.
    Counter,
    /// Tells how it is now.
    Gauge,
    /// Counts by size, with sum and count.
    Histogram,
}

impl Kind {
    /// Its name in the Prometheus format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it grows.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What one is.
    pub unit: &'static str,
    /// What it tells.
    pub meaning: &'static str,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    unit: &'static str,
    meaning: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, labels, unit, meaning }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    unit: &'static str,
    meaning: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, unit, meaning }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    meaning: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, unit: "seconds", meaning }
}

const PEER: &[&str] = &["peer"];

/// All metrics: clients first, then writes, links, the log, the node.
pub const METRICS: &[Metric] = &[
    counter("antecede_commands_total", &["command"], "commands", "Commands, by name"),
    counter(
        "antecede_refusals_total",
        &["reason"],
        "requests",
        "Requests that were not served, by reason",
    ),
    counter(
        "antecede_overdue_requests_total",
        &[],
        "requests",
        "Requests to a shard that nobody answered in time; their answers were lost",
    ),
    counter("antecede_connections_total", &[], "connections", "Client connections taken"),
    counter("antecede_refused_connections_total", &[], "connections", "Client connections refused"),
    gauge("antecede_connected_clients", &[], "connections", "Client connections now"),
    counter("antecede_client_read_bytes_total", &[], "bytes", "Bytes read from clients"),
    counter("antecede_client_written_bytes_total", &[], "bytes", "Bytes written to clients"),
    counter(
        "antecede_committed_total",
        &["origin"],
        "entries",
        "Entries committed at tails of this node, by origin",
    ),
    histogram(
        "antecede_visibility_seconds",
        &["origin"],
        "From a write's stamp at its origin until it is visible here",
    ),
    gauge(
        "antecede_lag_milliseconds",
        &["from"],
        "milliseconds",
        "How far this datacenter is behind another one",
    ),
    gauge(
        "antecede_peer_behind_milliseconds",
        &["to"],
        "milliseconds",
        "How far another datacenter is behind this one",
    ),
    gauge(
        "antecede_outbox_bytes",
        &[],
        "bytes",
        "Memory of this node for writes that another datacenter has not applied yet",
    ),
    gauge(
        "antecede_outbox_max_bytes",
        &[],
        "bytes",
        "What it may grow to before writes are refused; 0: no limit",
    ),
    gauge("antecede_outbox_entries", &[], "entries", "Entries that are kept so"),
    gauge(
        "antecede_outbox_growth_bytes",
        &[],
        "bytes",
        "By how much it grows in a second, over the last ten",
    ),
    gauge(
        "antecede_outbox_full",
        &[],
        "",
        "1 while writes are refused, since a datacenter is too far behind, else 0",
    ),
    counter(
        "antecede_waiting_writes_total",
        &[],
        "writes",
        "Remote writes that had to wait for a dependency",
    ),
    counter("antecede_conflicts_total", &[], "values", "Values that last-writer-wins dropped"),
    counter(
        "antecede_dropped_bodies_total",
        &[],
        "bodies",
        "Bodies of blocked writes dropped to bound memory; they are fetched again",
    ),
    gauge("antecede_link_up", PEER, "", "1 while the connection to a node stands, else 0"),
    gauge(
        "antecede_link_relayed",
        PEER,
        "",
        "1 while a node of a third datacenter passes on what is sent to a node, else 0",
    ),
    gauge("antecede_link_queued_bytes", PEER, "bytes", "Bytes that wait to be sent to a node"),
    counter("antecede_link_sent_bytes_total", PEER, "bytes", "Bytes sent to a node"),
    counter("antecede_link_received_bytes_total", PEER, "bytes", "Bytes received from a node"),
    counter(
        "antecede_link_dropped_messages_total",
        PEER,
        "messages",
        "Messages without a connection or room; they are said again",
    ),
    counter(
        "antecede_link_cut_writes_total",
        PEER,
        "writes to a socket",
        "Writes to a socket that were dropped on a path that is cut on purpose",
    ),
    counter("antecede_link_lost_total", PEER, "connections", "Connections lost or not made"),
    gauge(
        "antecede_relays",
        &[],
        "connections",
        "Connections between nodes of two other datacenters that are passed on here",
    ),
    counter(
        "antecede_relayed_bytes_total",
        &[],
        "bytes",
        "Bytes passed on between nodes of two other datacenters",
    ),
    counter(
        "antecede_replicated_writes_total",
        PEER,
        "writes",
        "Writes sent to another datacenter; one that is sent again counts again",
    ),
    counter(
        "antecede_replicated_bytes_total",
        PEER,
        "bytes",
        "Bytes of the messages with these writes, keys and values and their share of frames among them",
    ),
    counter(
        "antecede_replicated_metadata_bytes_total",
        PEER,
        "bytes",
        "These bytes without keys and values: stamps, dependencies, versions seen, deadlines, their share of messages and frames",
    ),
    counter(
        "antecede_misdirected_messages_total",
        &[],
        "messages",
        "Messages for a replica or a node that is not here",
    ),
    counter(
        "antecede_stale_messages_total",
        &[],
        "messages",
        "Messages of an older epoch, boot or membership",
    ),
    counter(
        "antecede_clock_drift_refused_total",
        &[],
        "messages",
        "Messages refused because a clock was ahead",
    ),
    gauge(
        "antecede_clock_drift_milliseconds",
        &[],
        "milliseconds",
        "How far ahead the clock was that was refused last",
    ),
    counter(
        "antecede_diverged_total",
        &[],
        "positions",
        "Positions at which two replicas held different entries; more than 0 needs a person",
    ),
    histogram("antecede_log_flush_seconds", &[], "How long a write to the log took, with its sync"),
    gauge(
        "antecede_log_appended_to",
        &[],
        "records",
        "The place of the last record that was handed to the log",
    ),
    gauge(
        "antecede_log_written_to",
        &[],
        "records",
        "The place of the last record that the system has",
    ),
    gauge(
        "antecede_log_synced_to",
        &[],
        "records",
        "The place of the last record that would survive a power loss",
    ),
    gauge(
        "antecede_log_cut_to",
        &[],
        "records",
        "The place of the last record that was cut off since the node started",
    ),
    counter("antecede_checkpoints_total", &[], "checkpoints", "Checkpoints that were completed"),
    counter("antecede_checkpoint_keys_total", &[], "keys", "Keys that checkpoints wrote"),
    gauge(
        "antecede_checkpoint_milliseconds",
        &[],
        "milliseconds",
        "How long the last checkpoint took",
    ),
    gauge("antecede_values_on_disk", &[], "values", "Values that are on disk only"),
    gauge("antecede_values_on_disk_bytes", &[], "bytes", "Bytes of values that are on disk only"),
    gauge("antecede_parked_requests", &[], "requests", "Requests that wait for such values"),
    counter(
        "antecede_evicted_values_total",
        &[],
        "values",
        "Values that were taken out of memory and are on disk only since",
    ),
    counter("antecede_loads_total", &[], "values", "Values that were read back from the disk"),
    counter(
        "antecede_failed_loads_total",
        &[],
        "values",
        "Values that could not be read back, since the checkpoint is damaged",
    ),
    histogram("antecede_load_seconds", &[], "How long a value was waited for"),
    gauge("antecede_log_pending_bytes", &[], "bytes", "Bytes that wait to be written to the log"),
    gauge(
        "antecede_disk_full",
        &[],
        "",
        "1 while writes are refused because the disk is full or low, else 0",
    ),
    gauge("antecede_disk_free_bytes", &[], "bytes", "Bytes that are free on the disk of the log"),
    gauge("antecede_epoch", &[], "", "The epoch of the datacenter's chains that this node knows"),
    gauge(
        "antecede_replicas",
        &["state"],
        "replicas",
        "Replicas of the datacenter's chains, by what they do: serving, syncing, last-serving, offline",
    ),
    gauge("antecede_dark_shards", &[], "shards", "Shards that no node of the datacenter serves"),
    gauge(
        "antecede_lease_milliseconds",
        &[],
        "milliseconds",
        "For how long this node may still answer; 0: it refuses; absent: nobody decides who serves",
    ),
    gauge(
        "antecede_control_up",
        &[],
        "",
        "1 while the agreement on who serves answers this node, else 0",
    ),
    gauge("antecede_control_decides", &[], "", "1 on the node that decides who serves, else 0"),
    gauge(
        "antecede_membership_epoch",
        &[],
        "",
        "The version of the deployment's datacenters that this node acts by",
    ),
    gauge(
        "antecede_quarantines_waiting",
        &[],
        "",
        "Folders of a datacenter that had lapsed whose unsent writes this node has not executed again yet",
    ),
    gauge(
        "antecede_standing",
        &["standing"],
        "",
        "1 for what this node's datacenter may do (joining, copying, open, leaving, lost, gone, none), else 0",
    ),
    gauge("antecede_settling_shards", &[], "shards", "Replicas of this node that do not serve yet"),
    gauge("antecede_keys", &[], "keys", "Keys in the replicas of this node"),
    gauge("antecede_used_memory_bytes", &[], "bytes", "Memory of the process"),
    gauge(
        "antecede_max_memory_bytes",
        &[],
        "bytes",
        "Memory beyond which writes are refused; 0: no limit",
    ),
    gauge("antecede_build_info", &["version"], "", "Always 1; its label tells the version"),
];

/// The metric of a name.
///
/// # Panics
/// When there is none: a metric that is registered without a row here.
#[must_use]
pub(crate) fn find(name: &str) -> &'static Metric {
    METRICS
        .iter()
        .find(|metric| metric.name == name)
        .expect("every metric that is registered has its row in the table of metrics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_registered_somewhere() {
        let sources = [
            include_str!("telemetry.rs"),
            include_str!("admin/status.rs"),
            include_str!("admin/outbox.rs"),
        ];
        for metric in METRICS {
            let quoted = format!("\"{}\"", metric.name);
            let is_there = sources.iter().any(|source| {
                let (code, _) = source.split_once("mod tests").unwrap_or((source, ""));
                code.contains(&quoted)
            });
            assert!(is_there, "{} is registered nowhere", metric.name);
        }
    }

    #[test]
    fn names_say_what_they_count() {
        for metric in METRICS {
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
            assert!(!metric.meaning.contains('|'), "{}: it stands in a table", metric.name);
        }
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
