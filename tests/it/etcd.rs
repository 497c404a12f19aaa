//! An etcd keeps the agreement: nodes are killed under load, etcd is killed, and a deployment that
//! has data changes from the embedded agreement to etcd.

use std::time::Duration;

use tests::etcd::{Etcd, can_run};
use tests::load::Load;
use tests::nodes::Nodes;
use tests::patience::{Deadline, within};
use tests::{Reply, Stage, eventually, http, tell};

use crate::lost_nodes::{
    CALM_SPAN, JOIN_PATIENCE, LOAD, PAUSE_MAX, assert_probes, await_whole, check, kill_and_measure,
    write_probes,
};

/// How long a node may answer after etcd is gone: its lease, and time for a busy machine.
const LEASE_PATIENCE: Duration = Duration::from_secs(5);

/// Tells why there is nothing to test here; the gate installs what is missing and never skips.
fn is_skipped() -> bool {
    if !can_run() {
        tell("skipped: there is no etcd; install it with: apt-get install etcd-server");
    }
    !can_run()
}

#[test]
fn writes_go_on_without_a_killed_node_and_it_joins_again_by_itself() {
    if is_skipped() {
        return;
    }
    let stage = Stage::alone();
    let etcd = Etcd::start(&stage);
    let mut nodes = Nodes::start_on_etcd(&stage, &[("eu", 3)], &etcd.address);
    await_whole(&nodes, 3);
    let mut load = Load::start(&stage, &nodes, LOAD);
    let mut pauses = Vec::new();
    for place in (0..3).cycle() {
        if load.has_ended(CALM_SPAN) {
            break;
        }
        pauses.push(kill_and_measure(&stage, &mut nodes, place, (place + 1) % 3));
        await_whole(&nodes, 3);
    }
    let history = load.end();
    nodes.assert_running();
    tell(&format!("writes stood still for {pauses:?}"));
    assert!(!pauses.is_empty(), "nobody was killed");
    assert!(pauses.iter().all(|pause| *pause < PAUSE_MAX), "{pauses:?}");
    check(&stage, &history);
}

#[test]
fn without_etcd_nodes_refuse_when_their_lease_ends_and_serve_again_when_it_is_back() {
    if is_skipped() {
        return;
    }
    let stage = Stage::alone();
    let mut etcd = Etcd::start(&stage);
    let mut nodes = Nodes::start_on_etcd(&stage, &[("eu", 3)], &etcd.address);
    await_whole(&nodes, 3);
    write_probes(&nodes.all[0], "before");
    etcd.crash();
    let since = Deadline::after(LEASE_PATIENCE);
    for node in &nodes.all {
        let mut client = node.client();
        eventually(&format!("{} refuses", node.name), LEASE_PATIENCE, || {
            client.call(&["GET", "probe:0"]).is_refused_with("TRYAGAIN").then_some(())
        });
    }
    tell(&format!("all refused {:?} after etcd was killed", since.elapsed()));
    eventually("it says whom it cannot reach", LEASE_PATIENCE, || {
        let status = http::status(&nodes.all[0].place.admin);
        status["control"]["outage"].as_str()?.contains(&etcd.address).then_some(())
    });
    let refused = nodes.all[1].client().call(&["SET", "probe:0", "lost"]);
    assert!(refused.is_refused_with("TRYAGAIN"), "{refused:?}");
    etcd.restart();
    let since = Deadline::after(JOIN_PATIENCE);
    for node in &mut nodes.all {
        node.await_ready(JOIN_PATIENCE);
    }
    tell(&format!("all were ready {:?} after etcd was started", since.elapsed()));
    assert_probes(&nodes.all[2], "before");
    write_probes(&nodes.all[1], "after");
    nodes.assert_running();
}

#[test]
fn a_deployment_with_data_changes_to_etcd_by_two_lines() {
    if is_skipped() {
        return;
    }
    let stage = Stage::alone();
    let etcd = Etcd::start(&stage);
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes, 3);
    write_probes(&nodes.all[0], "embedded");
    for node in &mut nodes.all {
        node.process.terminate();
        node.process.end(JOIN_PATIENCE);
    }
    let lines = format!("store = \"etcd\"\nendpoints = [\"{}\"]", etcd.address);
    for node in &mut nodes.all {
        node.replace_line("store = \"embedded\"", &lines);
        node.restart(&stage);
    }
    for node in &mut nodes.all {
        node.await_ready(JOIN_PATIENCE);
    }
    await_whole(&nodes, 3);
    assert_probes(&nodes.all[2], "embedded");
    write_probes(&nodes.all[1], "etcd");
    nodes.assert_running();
}

#[test]
fn a_node_that_agrees_by_something_else_gets_no_lease_and_says_why() {
    if is_skipped() {
        return;
    }
    let stage = Stage::alone();
    let etcd = Etcd::start(&stage);
    let mut nodes = Nodes::start_on_etcd(&stage, &[("eu", 3)], &etcd.address);
    await_whole(&nodes, 3);
    let stray = &mut nodes.all[2];
    stray.crash();
    stray.replace_line("store = \"etcd\"", "store = \"embedded\"");
    stray.restart(&stage);
    let admin = stray.place.admin.clone();
    let said = "control.store";
    let why = eventually("it says why", JOIN_PATIENCE, || {
        let answer = http::ask("GET", &admin, "/v1/status", "").ok()?;
        answer.body.contains(said).then_some(answer.body)
    });
    assert!(why.contains("give all nodes of a datacenter the same"), "{why}");
    let is_ready = within(CALM_SPAN, || http::is_ready(&admin).then_some(()));
    assert!(is_ready.is_none(), "it serves beside the others");
    let reply = nodes.all[2].client().call(&["SET", "k", "v"]);
    assert!(matches!(reply, Reply::Error(_)), "{reply:?}");
    write_probes(&nodes.all[0], "without it");
}
