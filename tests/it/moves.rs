//! A node is emptied under load, killed, and taken back: clients of the others see short pauses and
//! no error, and what nodes hold is spread at each end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tests::judged::{Content, Judged, MODELS};
use tests::load::{Load, Rate};
use tests::nodes::{Node, Nodes};
use tests::patience::Deadline;
use tests::{Client, Reply, Stage, binary, eventually, http, tell};

use crate::lost_nodes::{assert_probes, write_probes};

/// Few enough keys that sessions meet on them.
const LOAD: Rate = Rate { operations: 600, keys: 200 };

/// Keys that are written and read all the time; they lie in many shards.
const PROBES: usize = 64;

/// How long one call may take while replicas, heads and tails are moved.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long it may take until everything is where it should be.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the nodes of the datacenter hold.
fn holdings(node: &Node) -> Option<Value> {
    let answer = http::ask("GET", &node.place.admin, "/v1/nodes", "").ok()?;
    let told: Value = serde_json::from_str(&answer.body).ok()?;
    told["is_agreed"].as_bool()?.then_some(told)
}

/// By how much nodes that may hold something differ in a count.
fn spread(told: &Value, count: &str) -> Option<u64> {
    let nodes = told["nodes"].as_array()?.iter().filter(|node| node["is_drained"] == false);
    let counts: Option<Vec<u64>> = nodes.map(|node| node[count].as_u64()).collect();
    let counts = counts?;
    Some(counts.iter().max()? - counts.iter().min()?)
}

fn await_spread(node: &Node) {
    eventually("replicas and heads are spread", PATIENCE, || {
        let told = holdings(node)?;
        let is_spread = spread(&told, "held")? <= 1 && spread(&told, "heads")? <= 2;
        let copies = told["nodes"].as_array()?.iter().any(|node| node["copies"] != 0);
        (is_spread && !copies && node.shortest_chain() == Some(3)).then_some(())
    });
    tell(&format!("{}", holdings(node).expect("it was told just now")["nodes"]));
}

/// Writes and reads at a node until it is enough: its longest call, and its errors.
fn call_until(address: &str, is_enough: &AtomicBool) -> (Duration, Vec<String>) {
    let (mut longest, mut errors) = (Duration::ZERO, Vec::new());
    let mut client = Client::connect(address);
    for number in (0..PROBES).cycle().take_while(|_| !is_enough.load(Ordering::Relaxed)) {
        let key = format!("call:{address}:{number}");
        for words in [&["SET", &key, "v"][..], &["GET", &key][..]] {
            let since = Deadline::after(PAUSE_MAX);
            if let Reply::Error(text) = client.call(words) {
                errors.push(text);
            }
            longest = longest.max(since.elapsed());
        }
    }
    (longest, errors)
}

/// Calls the first three nodes while something is done; fails at an error or a long pause.
fn under_calls(nodes: &Nodes, what: &str, act: impl FnOnce(&Nodes)) {
    let is_enough = AtomicBool::new(false);
    let since = Deadline::after(PATIENCE);
    let seen: Vec<(Duration, Vec<String>)> = std::thread::scope(|scope| {
        let call = |node: &Node| {
            let (address, is_enough) = (node.place.client.clone(), &is_enough);
            scope.spawn(move || call_until(&address, is_enough))
        };
        let callers: Vec<_> = nodes.all.iter().take(3).map(call).collect();
        act(nodes);
        is_enough.store(true, Ordering::Relaxed);
        callers.into_iter().map(|caller| caller.join().expect("it ends")).collect()
    });
    let longest: Vec<Duration> = seen.iter().map(|(longest, _)| *longest).collect();
    tell(&format!("{what} took {:?}; the longest calls took {longest:?}", since.elapsed()));
    for (longest, errors) in seen {
        assert_eq!(errors, Vec::<String>::new(), "while {what}");
        assert!(longest < PAUSE_MAX, "{longest:?} while {what}");
    }
}

#[test]
fn node_is_emptied_then_lost_then_gets_its_share_again() {
    let stage = Stage::alone();
    let mut nodes =
        Nodes::start_in(&stage, &[("eu", 4)], "embedded", &[("ANTECEDE_DEPLOYMENT_SHARDS", "32")]);
    await_spread(&nodes.all[0]);
    write_probes(&nodes.all[0], "before");
    let load = Load::start_on(&stage, "moves", &nodes.all.iter().take(3).collect::<Vec<_>>(), LOAD);
    let admin = nodes.all[0].place.admin.clone();
    let drain = ["nodes", "drain", "1.4", "--admin", &admin];
    let plan = binary::answer_of(&stage, &[&drain[..], &["--plan"]].concat());
    assert!(plan.contains("1.4 of datacenter eu shall hold nothing"), "{plan}");
    under_calls(&nodes, "a node was emptied", |_| {
        let done = binary::answer_of(&stage, &[&drain[..], &["--yes"]].concat());
        assert!(done.contains("1.4 holds nothing; it may be switched off"), "{done}");
    });
    let told = holdings(&nodes.all[0]).expect("it is agreed");
    assert_eq!(
        (&told["nodes"][3]["held"], &told["nodes"][3]["is_drained"]),
        (&0.into(), &true.into())
    );
    eventually("the node knows that it holds nothing", PATIENCE, || {
        let status = nodes.all[3].status()?;
        (status["shards"] == 0 && status["keys"] == 0).then_some(())
    });
    nodes.all[3].crash();
    eventually("its end is known, and is no trouble", PATIENCE, || {
        let status = nodes.all[0].status()?;
        let is_absent = holdings(&nodes.all[0])?["nodes"][3]["is_absent"] == true;
        (is_absent && status["datacenter_trouble"].as_array()?.is_empty()).then_some(())
    });
    assert_probes(&nodes.all[1], "before");
    nodes.all[3].restart(&stage);
    nodes.all[3].await_ready(PATIENCE);
    under_calls(&nodes, "a node was taken back", |nodes| {
        let undrain = ["nodes", "undrain", "1.4", "--admin", &admin];
        let done = binary::answer_of(&stage, &undrain);
        assert!(done.contains("1.4 may hold replicas again"), "{done}");
        await_spread(&nodes.all[0]);
    });
    assert_probes(&nodes.all[3], "before");
    let history = load.end();
    nodes.assert_running();
    let content = Content::of(&history);
    let judged = Judged::pass(&stage, &history, MODELS);
    assert_eq!(judged.checked("converged"), content.finals, "{content:?}");
}
