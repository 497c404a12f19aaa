//! The wall clock of one node jumps, or runs at another rate: its clients are refused or served
//! rightly, the others go on without it, and it is taken back when its clock is right again.
//!
//! Nobody takes what comes from a clock that is too far ahead, and no connection is kept to it; so it
//! counts as not reached, and one of two nodes that do not reach each other is left out.
//!
//! A library between the node and the system's own answers for the wall clock only, and reads from
//! a file by how much it is wrong; leases are counted on another clock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::load::Load;
use tests::patience::{Deadline, watch};
use tests::{Network, Nodes, Stage, eventually, http, tell};

use super::{CALM_SPAN, JUDGED};
use crate::lost_nodes::{JOIN_PATIENCE, assert_probes, await_whole, check, write_probes};

/// The library, where Debian puts it; it is in the package `faketime`.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

/// Which node has the clock that is wrong.
const WRONG: usize = 1;

/// How long writes may stand still.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Nodes of which one has a clock that can be set; `None`, with the reason printed, where it cannot.
fn start(stage: &Stage, network: &Network, file: &Path) -> Option<Nodes> {
    let Some(library) = LIBRARIES.into_iter().find(|path| Path::new(path).is_file()) else {
        tell("left out: there is no libfaketime; install it with: apt-get install faketime");
        return None;
    };
    set(file, "+0");
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a path that is text")),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DONT_RESET", "1"),
    ];
    let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let name = format!("eu-{}", WRONG + 1);
    let change = |node: &str| if node == name { owned.to_vec() } else { Vec::new() };
    let nodes = Nodes::start_apart(stage, network, &[("eu", 3)], change);
    await_whole(&nodes, 3);
    Some(nodes)
}

/// Sets a clock: by how much it is off, and how fast it goes.
fn set(file: &Path, to: &str) {
    let next = file.with_extension("next");
    std::fs::write(&next, to).expect("a file can be written");
    std::fs::rename(&next, file).expect("a file can be renamed");
}

fn clock_file(stage: &Stage) -> PathBuf {
    stage.path("clock")
}

/// Starts the node again on an empty folder, with its old one put aside: what it has promised while
/// its clock was ahead holds for its folder until true time gets there.
fn begin_anew(stage: &Stage, nodes: &mut Nodes) {
    let node = &mut nodes.all[WRONG];
    node.crash();
    let folder = stage.path("data").join(&node.name);
    std::fs::rename(&folder, folder.with_extension("aside")).expect("a folder can be renamed");
    node.restart(stage);
}

/// Lets a clock jump under load, sets it right and does what else that needs, and lets the history
/// be judged.
fn jump(to: &str, repair: fn(&Stage, &mut Nodes)) {
    let stage = Stage::alone();
    let Some(network) = Network::make(3) else { return };
    let file = clock_file(&stage);
    let Some(mut nodes) = start(&stage, &network, &file) else { return };
    let load = Load::start(&stage, &nodes, JUDGED);
    watch(CALM_SPAN, || ());
    set(&file, to);
    let since = Deadline::after(PAUSE_MAX);
    write_probes(&nodes.all[0], "while a clock is wrong");
    let pause = since.elapsed();
    let refused = nodes.metric("antecede_clock_drift_refused_total");
    tell(&format!("{to}: writes of all shards succeeded after {pause:?}, {refused} refused"));
    assert!(pause < PAUSE_MAX, "{pause:?}");
    assert_probes(&nodes.all[2], "while a clock is wrong");
    eventually("the others go on without it", PAUSE_MAX, || {
        let status = http::status(&nodes.all[0].place.admin);
        let chains = status["chains"].as_array()?;
        let has_left = |chain: &serde_json::Value| chain["serving"].as_array().map(Vec::len);
        chains.iter().all(|chain| has_left(chain) == Some(2)).then_some(())
    });
    set(&file, "+0");
    repair(&stage, &mut nodes);
    let since = Deadline::after(JOIN_PATIENCE);
    await_whole(&nodes, 3);
    tell(&format!("{to}: all chains were whole {:?} after the clock was right", since.elapsed()));
    let history = load.end();
    nodes.assert_running();
    check(&stage, &history);
}

#[test]
fn a_node_whose_clock_was_an_hour_behind_is_left_out_and_comes_back() {
    jump("-3600", |_, _| ());
}

#[test]
fn a_node_whose_clock_was_an_hour_ahead_is_left_out_and_begins_anew() {
    jump("+3600", begin_anew);
}

#[test]
fn a_clock_that_runs_too_fast_or_too_slow_shows_nobody_anything_wrong() {
    let stage = Stage::alone();
    let Some(network) = Network::make(3) else { return };
    let file = clock_file(&stage);
    let Some(mut nodes) = start(&stage, &network, &file) else { return };
    let load = Load::start(&stage, &nodes, JUDGED);
    // By more and more, until it is beyond the bound.
    for rate in ["+0 x1.2", "+0 x0.8"] {
        set(&file, rate);
        watch(CALM_SPAN, || ());
        watch(CALM_SPAN, || ());
        set(&file, "+0 x1");
        watch(CALM_SPAN, || ());
    }
    let history = load.end();
    write_probes(&nodes.all[0], "after all");
    await_whole(&nodes, 3);
    assert_probes(&nodes.all[WRONG], "after all");
    nodes.assert_running();
    check(&stage, &history);
}
