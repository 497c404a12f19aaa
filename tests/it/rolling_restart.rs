//! Nodes are asked to stop under load, one after the other, and started again: clients of the others
//! see a short pause and no error, clients of the node itself nothing but a closed connection.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tests::judged::{Content, Judged, MODELS};
use tests::load::{Load, Rate};
use tests::nodes::Nodes;
use tests::patience::Deadline;
use tests::{Client, Reply, Stage, eventually, settings, tell};

/// Few enough keys that sessions meet on them.
const LOAD: Rate = Rate { operations: 600, keys: 200 };

/// Keys that are written and read all the time; they lie in many shards.
const PROBES: usize = 64;

/// Calls before a node is asked to stop, and after it has ended.
const CALLS: usize = 1_000;

/// How long one call may take while a node leaves.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a node may take to leave and end: well below the time after which it stops anyway.
const END_MAX: Duration = Duration::from_secs(5);

/// How long a node that returns may take until its chains are whole.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);

/// How long a load goes on between two nodes.
const CALM_SPAN: Duration = Duration::from_millis(1000);

/// What one client has seen.
#[derive(Debug, Default)]
struct Seen {
    calls: usize,
    longest: Duration,
    errors: Vec<String>,
    is_closed: bool,
}

/// Writes and reads at a node until that closes the connection, or until it is enough.
fn call_until(address: &str, is_enough: &AtomicBool, calls: &AtomicUsize) -> Seen {
    let mut seen = Seen::default();
    let mut client = Client::connect(address);
    for number in (0..PROBES).cycle().take_while(|_| !is_enough.load(Ordering::Relaxed)) {
        let key = format!("probe:{address}:{number}");
        for words in [&["SET", &key, "v"][..], &["GET", &key][..]] {
            let since = Deadline::after(PAUSE_MAX);
            let Ok(reply) = client.try_call(words) else {
                seen.is_closed = true;
                return seen;
            };
            calls.fetch_add(1, Ordering::Relaxed);
            seen.calls += 1;
            seen.longest = seen.longest.max(since.elapsed());
            if let Reply::Error(text) = reply {
                seen.errors.push(text);
            }
        }
    }
    seen
}

/// Waits until all nodes know chains of which every replica serves.
fn await_whole(nodes: &Nodes) {
    for node in &nodes.all {
        let what = format!("the chains of {} are whole", node.name);
        eventually(&what, JOIN_PATIENCE, || (node.shortest_chain() == Some(3)).then_some(()));
    }
}

/// Asks a node to stop while clients call all nodes; what those of the others have seen.
fn stop_under_calls(nodes: &mut Nodes, place: usize) -> Vec<Seen> {
    let addresses: Vec<String> = nodes.all.iter().map(|node| node.place.client.clone()).collect();
    let (is_enough, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let process = &mut nodes.all[place].process;
    let mut seen: Vec<Seen> = std::thread::scope(|scope| {
        let call = |address: &String| {
            let (address, is_enough, calls) = (address.clone(), &is_enough, &calls);
            scope.spawn(move || call_until(&address, is_enough, calls))
        };
        let clients: Vec<_> = addresses.iter().map(call).collect();
        let until = |count: usize| (count <= calls.load(Ordering::Relaxed)).then_some(());
        eventually("clients are answered", END_MAX, || until(CALLS));
        process.terminate();
        let since = Deadline::after(END_MAX);
        let status = process.end(END_MAX);
        tell(&format!("{place} has ended {:?} after it was asked: {status}", since.elapsed()));
        assert!(status.success(), "{status}");
        let so_far = calls.load(Ordering::Relaxed);
        eventually("the others are answered", END_MAX, || until(so_far + CALLS));
        is_enough.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("it ends")).collect()
    });
    let own = seen.remove(place);
    assert!(own.is_closed, "the node has ended: {own:?}");
    assert_eq!(own.errors, Vec::<String>::new(), "its own clients see a closed connection only");
    seen
}

#[test]
fn nodes_that_are_restarted_one_by_one_cost_a_short_pause_and_no_error() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes);
    let mut load = Load::start(&stage, &nodes, LOAD);
    let mut pauses = Vec::new();
    for place in (0..3).cycle() {
        if load.has_ended(CALM_SPAN) {
            break;
        }
        for seen in stop_under_calls(&mut nodes, place) {
            assert_eq!(seen.errors, Vec::<String>::new(), "after {} calls", seen.calls);
            assert!(!seen.is_closed, "of a node that stays");
            pauses.push(seen.longest);
        }
        nodes.all[place].restart(&stage);
        nodes.all[place].await_ready(JOIN_PATIENCE);
        await_whole(&nodes);
    }
    let history = load.end();
    nodes.assert_running();
    pauses.sort_unstable();
    tell(&format!("the longest calls of each client took {pauses:?}"));
    assert!(pauses.last().is_some_and(|longest| *longest < PAUSE_MAX), "{pauses:?}");
    let content = Content::of(&history);
    tell(&format!("{content:?}"));
    assert!(50 * settings::load_duration().as_secs() <= content.acknowledged, "{content:?}");
    let judged = Judged::pass(&stage, &history, MODELS);
    assert_eq!(judged.checked("converged"), content.finals, "{content:?}");
}
