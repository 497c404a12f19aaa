//! What a write costs on its way to other datacenters beyond its key and value.
//!
//! The load is a mixed one with sessions, as `antecede bench` makes it; the figure is the one that
//! it prints, read from the counters of all nodes.

use serde_json::Value;
use tests::nodes::Nodes;
use tests::{Stage, binary, tell};

const DATACENTERS: &[(&str, u16)] = &[("eu", 1), ("us", 1), ("ap", 1)];

/// What is promised: stamp, dependencies, what was seen, and the share of messages and frames.
const BYTES_MAX: f64 = 60.0;
/// Less would mean that something was not counted: a stamp, what was seen, and lengths.
const BYTES_MIN: f64 = 15.0;

#[test]
fn metadata_of_a_replicated_write_is_small_and_counted_without_key_and_value() {
    let stage = Stage::alone();
    let nodes = Nodes::start(&stage, DATACENTERS);
    // Every key is there, so that every write has seen a version.
    bench(&stage, &nodes, "0:100", "128");
    let usual = bench(&stage, &nodes, "50:50", "128");
    assert!((BYTES_MIN..=BYTES_MAX).contains(&usual), "{usual} bytes a write");
    let long = bench(&stage, &nodes, "50:50", "2048");
    // Lengths grow by a byte, and fewer writes share a frame.
    assert!((usual - long).abs() < BYTES_MIN, "values are counted: {usual} and {long}");
}

/// Bytes of metadata of a replicated write.
fn bench(stage: &Stage, nodes: &Nodes, ratio: &str, value_size: &str) -> f64 {
    let admins: Vec<_> = nodes.all.iter().map(|node| node.place.admin.as_str()).collect();
    let (endpoints, admins) = (nodes.endpoints(), admins.join(","));
    let words = [
        "bench",
        "--endpoints",
        &endpoints,
        "--admin",
        &admins,
        "--ratio",
        ratio,
        "--keys",
        "5000",
        "--requests",
        "40000",
        "--value-size",
        value_size,
        "--json",
    ];
    let report = binary::answer_of(stage, &words);
    let report: Value = serde_json::from_str(&report).expect("the report is JSON");
    let metadata = &report["metadata"];
    let bytes = metadata["bytes_per_write"].as_f64().expect("nodes count it");
    let sent = metadata["sent_writes"].as_u64().expect("nodes count it");
    let replicated = metadata["replicated_writes"].as_u64().expect("it is told");
    tell(&format!("values of {value_size} bytes: {bytes:.1} bytes of metadata a write"));
    assert!(replicated <= sent, "{replicated} copies are needed, {sent} were sent");
    bytes
}
