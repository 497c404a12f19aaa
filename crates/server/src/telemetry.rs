//! Makes log lines and metrics of what happens.
//!
//! Every node has a recorder of its own, so that several nodes in one process do not mix. Metrics
//! are registered once; what happens often only touches a handle. What can be asked at any time
//! (lags, positions, memory) is read when somebody asks (`admin`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use antecede_model::{
    ids::{DatacenterId, NodeId},
    refusal::Refusal,
};
use antecede_protocol::{event::Event, session::Overdue};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use parking_lot::Mutex;
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::metrics::{Kind, METRICS, find};
use crate::node::Node;

/// Up to here visibility is counted in steps of [`VISIBILITY_STEP`].
const VISIBILITY_FINE_TO: f64 = 0.2;
/// The width of a fine bucket, in seconds.
const VISIBILITY_STEP: f64 = 0.0005;
/// Coarse buckets beyond, in seconds.
const VISIBILITY_COARSE: [f64; 12] =
    [0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// How long a flush of the log, or the load of a value, takes, in seconds.
const DISK_BUCKETS: [f64; 14] = [
    0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1,
    0.5, 2.0,
];

const METADATA: Metadata<'static> = Metadata::new("antecede", Level::INFO, None);

/// What is counted about the link to or from one node.
#[derive(Clone)]
pub(crate) struct LinkCounters {
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    /// Writes of this datacenter that were handed to the link, sent again ones too.
    pub(crate) replicated_writes: Counter,
    /// Bytes of the messages that they went in, with frames' shares for each message.
    pub(crate) replicated_bytes: Counter,
    /// These bytes without keys and values.
    pub(crate) replicated_metadata_bytes: Counter,
    /// Messages that found no connection or no room.
    pub(crate) dropped: Counter,
    /// Writes that were dropped on purpose.
    pub(crate) cut: Counter,
    /// Connections that were lost or could not be made.
    pub(crate) lost: Counter,
}

impl fmt::Debug for LinkCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkCounters")
    }
}

/// What is counted about a node.
pub(crate) struct Telemetry {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Messages for a replica or a node that is not here.
    pub(crate) misdirected: Counter,
    pub(crate) connections: Counter,
    pub(crate) refused_connections: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    /// Bytes that were passed on between nodes of two other datacenters.
    pub(crate) relayed_bytes: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) checkpoint_keys: Counter,
    pub(crate) evicted: Counter,
    pub(crate) loads: Counter,
    pub(crate) failed_loads: Counter,
    pub(crate) load_seconds: Histogram,
    pub(crate) flush_seconds: Histogram,
    committed: BTreeMap<DatacenterId, Counter>,
    visibility: BTreeMap<DatacenterId, Histogram>,
    conflicts: Counter,
    waiting: Counter,
    drifts: Counter,
    drift_millis: Gauge,
    stale: Counter,
    dropped_bodies: Counter,
    overdue: Counter,
    diverged: Counter,
    refusals: Mutex<BTreeMap<&'static str, Counter>>,
    commands: Mutex<BTreeMap<&'static str, Counter>>,
    has_told_ready: AtomicBool,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

fn visibility_buckets() -> Vec<f64> {
    let steps = 1..=400_u32;
    debug_assert!((f64::from(*steps.end()) * VISIBILITY_STEP - VISIBILITY_FINE_TO).abs() < 1e-9);
    steps.map(|step| f64::from(step) * VISIBILITY_STEP).chain(VISIBILITY_COARSE).collect()
}

fn recorder() -> PrometheusRecorder {
    let visibility = Matcher::Full("antecede_visibility_seconds".to_owned());
    let flush = Matcher::Full("antecede_log_flush_seconds".to_owned());
    let load = Matcher::Full("antecede_load_seconds".to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(visibility, &visibility_buckets())
        .and_then(|builder| builder.set_buckets_for_metric(flush, &DISK_BUCKETS))
        .and_then(|builder| builder.set_buckets_for_metric(load, &DISK_BUCKETS))
        .unwrap_or_default()
        .build_recorder()
}

impl Telemetry {
    pub(crate) fn new(config: &Config) -> Self {
        let recorder = recorder();
        describe(&recorder);
        let counter = |name: &'static str| recorder.register_counter(&key(name, None), &METADATA);
        let by_origin = |name: &'static str, id: DatacenterId| {
            key(name, Some(config.datacenter_name(id).to_owned()))
        };
        let origins = || config.datacenters.iter().map(|datacenter| datacenter.id);
        let visibility = origins().filter(|id| *id != config.node.datacenter).map(|id| {
            let key = by_origin("antecede_visibility_seconds", id);
            (id, recorder.register_histogram(&key, &METADATA))
        });
        let committed = origins().map(|id| {
            let key = by_origin("antecede_committed_total", id);
            (id, recorder.register_counter(&key, &METADATA))
        });
        let telemetry = Self {
            misdirected: counter("antecede_misdirected_messages_total"),
            connections: counter("antecede_connections_total"),
            refused_connections: counter("antecede_refused_connections_total"),
            read_bytes: counter("antecede_client_read_bytes_total"),
            checkpoints: counter("antecede_checkpoints_total"),
            checkpoint_keys: counter("antecede_checkpoint_keys_total"),
            written_bytes: counter("antecede_client_written_bytes_total"),
            relayed_bytes: counter("antecede_relayed_bytes_total"),
            evicted: counter("antecede_evicted_values_total"),
            loads: counter("antecede_loads_total"),
            failed_loads: counter("antecede_failed_loads_total"),
            load_seconds: recorder
                .register_histogram(&key("antecede_load_seconds", None), &METADATA),
            flush_seconds: recorder
                .register_histogram(&key("antecede_log_flush_seconds", None), &METADATA),
            committed: committed.collect(),
            visibility: visibility.collect(),
            conflicts: counter("antecede_conflicts_total"),
            waiting: counter("antecede_waiting_writes_total"),
            drifts: counter("antecede_clock_drift_refused_total"),
            drift_millis: recorder
                .register_gauge(&key("antecede_clock_drift_milliseconds", None), &METADATA),
            stale: counter("antecede_stale_messages_total"),
            dropped_bodies: counter("antecede_dropped_bodies_total"),
            overdue: counter("antecede_overdue_requests_total"),
            diverged: counter("antecede_diverged_total"),
            refusals: Mutex::default(),
            commands: Mutex::default(),
            has_told_ready: AtomicBool::new(false),
            handle: recorder.handle(),
            recorder,
        };
        let version = Some(env!("CARGO_PKG_VERSION").to_owned());
        telemetry.recorder.register_gauge(&key("antecede_build_info", version), &METADATA).set(1.0);
        telemetry
    }

    /// The counters of the link with one node.
    pub(crate) fn link(&self, node: NodeId) -> LinkCounters {
        let counter = |name: &'static str| {
            self.recorder.register_counter(&key(name, Some(node.to_string())), &METADATA)
        };
        LinkCounters {
            sent_bytes: counter("antecede_link_sent_bytes_total"),
            received_bytes: counter("antecede_link_received_bytes_total"),
            replicated_writes: counter("antecede_replicated_writes_total"),
            replicated_bytes: counter("antecede_replicated_bytes_total"),
            replicated_metadata_bytes: counter("antecede_replicated_metadata_bytes_total"),
            dropped: counter("antecede_link_dropped_messages_total"),
            cut: counter("antecede_link_cut_writes_total"),
            lost: counter("antecede_link_lost_total"),
        }
    }

    /// Counts commands by name.
    pub(crate) fn commands(&self, counts: impl Iterator<Item = (&'static str, u64)>) {
        let mut commands = self.commands.lock();
        for (name, count) in counts {
            commands
                .entry(name)
                .or_insert_with(|| {
                    let key = key("antecede_commands_total", Some(name.to_owned()));
                    self.recorder.register_counter(&key, &METADATA)
                })
                .increment(count);
        }
    }

    /// Counts a request that was not served.
    pub(crate) fn refused(&self, refusal: &Refusal) {
        let label = refusal.label();
        let mut refusals = self.refusals.lock();
        refusals
            .entry(label)
            .or_insert_with(|| {
                let key = key("antecede_refusals_total", Some(label.to_owned()));
                self.recorder.register_counter(&key, &METADATA)
            })
            .increment(1);
    }

    /// Counts a request that nobody has answered in time.
    pub(crate) fn overdue(&self, node: &Node, overdue: &Overdue) {
        let Overdue { shard, to, place, waited } = *overdue;
        self.overdue.increment(1);
        info!(node = %node.id, %shard, %to, ?place, ?waited, "a request was not answered in time");
    }

    /// Sets a gauge that is read when somebody asks.
    pub(crate) fn set(&self, name: &'static str, label: Option<String>, value: f64) {
        self.recorder.register_gauge(&key(name, label), &METADATA).set(value);
    }

    /// All metrics as text.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    /// Sorts what histograms have collected; from time to time, so that it does not grow.
    pub(crate) fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Makes lines and metrics of what machines tell.
    pub(crate) fn tell(&self, node: &Node, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            self.tell_one(node, &event);
        }
    }

    fn tell_one(&self, node: &Node, event: &Event) {
        let here = node.id;
        match event {
            Event::Committed { origin, .. } => {
                if let Some(counter) = self.committed.get(origin) {
                    counter.increment(1);
                }
            }
            Event::Applied { origin, since_stamp, .. } => {
                if let Some(histogram) = self.visibility.get(origin) {
                    histogram.record(since_stamp.as_secs_f64());
                }
            }
            Event::Waiting { shard, origin, stamp, missing } => {
                self.waiting.increment(1);
                debug!(node = %here, %shard, %origin, %stamp, %missing, "a remote write waits");
            }
            Event::Conflict { shard, winner, loser } => {
                self.conflicts.increment(1);
                debug!(node = %here, %shard, %winner, %loser, "last writer wins dropped a value");
            }
            Event::Drift { from, ahead_millis, limit_millis } => {
                self.drifts.increment(1);
                self.drift_millis.set(u32::try_from(*ahead_millis).map_or(f64::MAX, f64::from));
                warn!(node = %here, peer = %from, ahead_millis, limit_millis, "a clock is too far ahead: compare both nodes' clocks");
            }
            Event::Settled { shard } => {
                debug!(node = %here, %shard, "settled");
                if node.why_not_ready().is_none()
                    && !self.has_told_ready.swap(true, Ordering::Relaxed)
                {
                    info!(node = %here, "all shards have settled: ready");
                }
            }
            Event::Seeded { shard } => {
                debug!(node = %here, %shard, "copied from another datacenter");
            }
            Event::Diverged { shard, with, position } => {
                self.diverged.increment(1);
                error!(node = %here, %shard, %with, %position, "the logs of two replicas cannot be brought together: one has lost more than the other keeps in memory, or they hold different entries; docs/guide/recover.md says what to do when a folder is lost");
            }
            Event::Older { shard, origin, by, had_to, here_to } => {
                debug!(node = %here, %shard, %origin, peer = %by, %had_to, %here_to, "this datacenter had writes that are not here");
                node.end_as_set_back(*by);
            }
            Event::StaleMessage { from } => {
                self.stale.increment(1);
                debug!(node = %here, %from, "a message of an older epoch, boot or membership");
            }
            Event::BodiesDropped { shard, count } => {
                self.dropped_bodies.increment(u64::from(*count));
                debug!(node = %here, %shard, count, "bodies of blocked writes were dropped");
            }
            Event::LoadFailed { shard, hash } => {
                node.cold.tally.failed_loads.fetch_add(1, Ordering::Relaxed);
                error!(node = %here, %shard, hash, "a value that is on disk only cannot be read: stop this node, empty its folder, and start it again: it copies everything from its chains");
            }
        }
    }
}

/// The key of a metric in the table, with the value of its label if it has one.
fn key(name: &'static str, value: Option<String>) -> Key {
    let labels = find(name).labels;
    debug_assert_eq!(labels.len(), usize::from(value.is_some()), "{name} has other labels");
    let labels = labels.iter().copied().zip(value);
    Key::from_parts(name, labels.map(|(label, value)| Label::new(label, value)).collect::<Vec<_>>())
}

fn describe(recorder: &PrometheusRecorder) {
    for metric in METRICS {
        let (name, text) = (metric.name.into(), metric.meaning.into());
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, text),
            Kind::Gauge => recorder.describe_gauge(name, None, text),
            Kind::Histogram => recorder.describe_histogram(name, Some(Unit::Seconds), text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visibility_is_counted_in_steps_of_half_a_millisecond_up_to_200_ms() {
        let buckets = visibility_buckets();
        assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]));
        let fine: Vec<_> = buckets.iter().filter(|edge| **edge <= 0.2).collect();
        assert!(fine.windows(2).all(|pair| pair[1] - pair[0] <= 0.000_500_1));
    }

    #[test]
    fn what_is_counted_is_rendered() {
        let config = Config::dev("127.0.0.1:0", None, None).unwrap();
        let telemetry = Telemetry::new(&config);
        telemetry.refused(&Refusal::DiskFull { node: config.node });
        telemetry.commands([("get", 1), ("set", 4)].into_iter());
        telemetry.commands([("get", 1)].into_iter());
        telemetry.flush_seconds.record(0.001);
        let text = telemetry.render();
        assert!(text.contains("antecede_refusals_total{reason=\"disk_full\"} 1"), "{text}");
        assert!(text.contains("antecede_commands_total{command=\"get\"} 2"), "{text}");
        assert!(text.contains("antecede_log_flush_seconds_bucket"), "{text}");
        assert!(text.contains("antecede_build_info{version="), "{text}");
    }
}
