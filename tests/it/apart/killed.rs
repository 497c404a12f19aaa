//! Processes are killed on a network: most members of one datacenter's agreement, or all nodes of
//! all datacenters at once.
//!
//! `ANTECEDE_TEST_KEYS=1000000` loads so many keys before all nodes are killed.

use std::time::Duration;

use tests::load::{Load, Rate, Writes};
use tests::nodes::Node;
use tests::patience::{Deadline, watch};
use tests::{Network, Reply, Stage, eventually, settings, tell};

use super::{CALM_SPAN, EU, JUDGED, NODES, US, start};
use crate::lost_nodes::{
    JOIN_PATIENCE, PAUSE_MAX, assert_probes, await_whole, check, write_probes,
};

/// How long it may take until every datacenter serves all shards after all nodes were killed.
const ALL_BACK_MAX: Duration = Duration::from_secs(10);

/// How many clients load keys at each datacenter: each waits for one write after the other.
const LOADERS: usize = 32;

/// How long a load without an error is that goes on elsewhere.
const ELSEWHERE_SPAN: Duration = Duration::from_secs(8);

#[test]
fn a_datacenter_without_most_of_its_agreement_stops_and_is_back_by_itself() {
    let stage = Stage::alone();
    let Some(network) = Network::make(NODES) else { return };
    let mut nodes = start(&stage, &network);
    write_probes(&nodes.all[EU[2]], "before");
    let elsewhere: Vec<&Node> = US.iter().map(|place| &nodes.all[*place]).collect();
    let rate = Rate { operations: 300, keys: 1_000 };
    let writes = Writes::start(&stage, "elsewhere", &elsewhere, rate, ELSEWHERE_SPAN);
    for place in [EU[0], EU[1]] {
        nodes.all[place].crash();
    }
    let since = Deadline::after(PAUSE_MAX);
    let mut client = nodes.all[EU[2]].client();
    eventually("the third refuses", PAUSE_MAX, || {
        let reply = client.call(&["GET", "probe:0"]);
        matches!(reply, Reply::Error(_)).then_some(())
    });
    tell(&format!("the third refused {:?} after the two others were killed", since.elapsed()));
    for place in [EU[0], EU[1]] {
        nodes.all[place].restart(&stage);
    }
    let since = Deadline::after(JOIN_PATIENCE);
    for place in EU {
        nodes.all[place].await_ready(JOIN_PATIENCE);
    }
    assert_probes(&nodes.all[EU[0]], "before");
    write_probes(&nodes.all[EU[1]], "after");
    tell(&format!("it served everything {:?} after they were started again", since.elapsed()));
    await_whole(&nodes, 3);
    let report = writes.end();
    assert_eq!(report["errors"], serde_json::json!({}), "elsewhere: {report}");
    nodes.assert_running();
}

/// Loads keys at a node, with several clients.
fn load_keys(node: &Node, keys: std::ops::Range<usize>) {
    let value = "v".repeat(64);
    std::thread::scope(|scope| {
        for loader in 0..LOADERS {
            let (keys, value) = (keys.clone(), &value);
            scope.spawn(move || {
                let mut client = node.client();
                for key in keys.skip(loader).step_by(LOADERS) {
                    client.set(&format!("loaded:{key}"), value);
                }
            });
        }
    });
}

/// When a datacenter was first read from, first written to, and had written to many shards.
fn watch_return(node: &Node, since: Deadline) -> [Duration; 3] {
    let mut client = eventually("it takes clients", JOIN_PATIENCE, || {
        tests::Client::try_connect(&node.place.client).ok()
    });
    let password = node.password().expect("nodes on a network have one");
    eventually("it knows us", JOIN_PATIENCE, || {
        (client.try_call(&["AUTH", password]).ok()? == Reply::ok()).then_some(())
    });
    let mut first = |words: &[&str]| {
        eventually("it answers", JOIN_PATIENCE, || {
            let reply = client.try_call(words).ok()?;
            (!matches!(reply, Reply::Error(_))).then(|| since.elapsed())
        })
    };
    let read = first(&["GET", "loaded:0"]);
    let written = first(&["SET", "loaded:first", "v"]);
    write_probes(node, &node.name);
    [read, written, since.elapsed()]
}

#[test]
fn all_nodes_that_are_killed_at_once_lose_nothing_and_serve_again_soon() {
    let stage = Stage::alone();
    let Some(network) = Network::make(NODES) else { return };
    let mut nodes = start(&stage, &network);
    let count = settings::loaded_keys();
    let began = Deadline::after(ALL_BACK_MAX);
    std::thread::scope(|scope| {
        for (part, place) in [0, 3, 6].into_iter().enumerate() {
            let (node, share) = (&nodes.all[place], count / 3);
            scope.spawn(move || load_keys(node, part * share..(part + 1) * share));
        }
    });
    tell(&format!("{count} keys were loaded in {:?}", began.elapsed()));
    let load = Load::start(&stage, &nodes, JUDGED);
    watch(CALM_SPAN, || ());
    for node in &mut nodes.all {
        node.crash();
    }
    let since = Deadline::after(ALL_BACK_MAX);
    for node in &mut nodes.all {
        node.restart(&stage);
    }
    let returns = std::thread::scope(|scope| {
        let watched = [0, 3, 6].map(|place| {
            let node = &nodes.all[place];
            scope.spawn(move || watch_return(node, since))
        });
        watched.map(|watched| watched.join().expect("it is back"))
    });
    for (place, [read, written, all]) in (0..).zip(returns) {
        let name = &nodes.datacenters[place];
        tell(&format!("{name}: first read {read:?}, first write {written:?}, all shards {all:?}"));
        assert!(all < ALL_BACK_MAX, "{name}: {all:?}");
    }
    await_whole(&nodes, 3);
    tell(&format!("all chains were whole after {:?}", since.elapsed()));
    let history = load.end();
    nodes.assert_running();
    check(&stage, &history);
}
