//! One node of a datacenter is cut off from both others, and so from the agreement, while clients
//! still reach all three: it must stop by itself, before the others go on without it.
//!
//! Nobody can tell it that it was left out. So its right to answer is a lease, which ends half a
//! second after the last beat that was answered was sent; the others begin a new epoch only when
//! it was silent for a whole second. Between the two nobody writes. Clean reads at the two others
//! need none of this and go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tests::load::Load;
use tests::network::between;
use tests::nodes::Node;
use tests::patience::{Deadline, watch};
use tests::{Network, Nodes, Reply, Stage, tell};

use super::{CALM_SPAN, JUDGED, leader, start_one};
use crate::lost_nodes::{PAUSE_MAX, assert_probes, await_whole, check, write_probes};

/// For how long a node may answer after a beat: `LEASE` of the product.
const LEASE: Duration = Duration::from_millis(500);

/// From an answer that was given in time to when a busy machine shows it to the client.
const ON_THE_WAY: Duration = Duration::from_millis(250);

/// How long a clean read may wait: it needs nobody else, but a lease that is renewed in time.
const READ_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A key that nobody writes while it is read.
const CLEAN: &str = "probe:clean";

/// What a client has seen at a node, all times since the beginning.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// When it was last answered well before a pause that was longer than all others.
    before_pause: Duration,
    /// How long that pause was.
    pause: Duration,
    /// Calls that were refused.
    refused: usize,
}

/// Calls until it is enough, without a connection if it breaks.
fn call_until(node: &Node, words: &[&str], begin: Deadline, is_enough: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut client = node.client();
    let mut last = begin.elapsed();
    while !is_enough.load(Ordering::Relaxed) {
        match client.try_call(words) {
            Ok(Reply::Error(_)) => seen.refused += 1,
            Ok(_) => {
                let now = begin.elapsed();
                if seen.pause < now.saturating_sub(last) {
                    (seen.before_pause, seen.pause) = (last, now.saturating_sub(last));
                }
                last = now;
            }
            Err(_) => client = node.client(),
        }
    }
    let now = begin.elapsed();
    if seen.pause < now.saturating_sub(last) {
        (seen.before_pause, seen.pause) = (last, now.saturating_sub(last));
    }
    seen
}

/// Cuts the node at a place off, and compares when it and the others answered.
fn cut_off(network: &Network, nodes: &Nodes, place: usize) {
    let others = [(place + 1) % 3, (place + 2) % 3];
    let is_enough = AtomicBool::new(false);
    let begin = Deadline::after(PAUSE_MAX);
    std::thread::scope(|scope| {
        let call = |place: usize, words: &'static [&'static str]| {
            let (node, is_enough) = (&nodes.all[place], &is_enough);
            scope.spawn(move || call_until(node, words, begin, is_enough))
        };
        let read_there = call(place, &["GET", CLEAN]);
        let written_there = call(place, &["SET", "probe:alone", "v"]);
        let read_elsewhere = others.map(|place| call(place, &["GET", CLEAN]));
        watch(CALM_SPAN, || ());
        let cut_at = begin.elapsed();
        network.cut(&between(&[place], &others));
        write_probes(&nodes.all[others[0]], "without it");
        let went_on = begin.elapsed() - cut_at;
        assert_probes(&nodes.all[others[1]], "without it");
        watch(CALM_SPAN, || ());
        is_enough.store(true, Ordering::Relaxed);
        let after = |seen: &Seen| seen.before_pause.saturating_sub(cut_at);
        let (read, written) = (read_there.join(), written_there.join());
        let (read, written) = (read.expect("it ends"), written.expect("it ends"));
        tell(&format!(
            "cut off: last read answered after {:?}, last write after {:?}; then {} and {} \
             refusals; the others wrote to all shards after {went_on:?}",
            after(&read),
            after(&written),
            read.refused,
            written.refused
        ));
        for seen in [&read, &written] {
            assert!(after(seen) < LEASE + ON_THE_WAY, "{seen:?}, cut at {cut_at:?}");
            assert!(after(seen) < went_on, "{seen:?}, while others wrote after {went_on:?}");
            assert!(0 < seen.refused, "{seen:?}: it says so");
        }
        assert!(went_on < PAUSE_MAX, "{went_on:?}");
        for seen in read_elsewhere.map(|client| client.join().expect("it ends")) {
            tell(&format!("clean reads elsewhere: {seen:?}, cut at {cut_at:?}"));
            assert!(seen.pause < READ_PAUSE_MAX, "{seen:?}");
            assert_eq!(seen.refused, 0, "{seen:?}: they were held instead");
        }
    });
    network.heal_all();
    await_whole(nodes, 3);
}

fn cut_off_and_judge(pick: fn(usize) -> usize) {
    let stage = Stage::alone();
    let Some(network) = Network::make(3) else { return };
    let mut nodes = start_one(&stage, &network);
    nodes.all[0].client().set(CLEAN, "clean");
    let load = Load::start(&stage, &nodes, JUDGED);
    let place = pick(leader(&nodes));
    cut_off(&network, &nodes, place);
    assert_probes(&nodes.all[place], "without it");
    let history = load.end();
    nodes.assert_running();
    check(&stage, &history);
}

#[test]
fn a_node_that_is_cut_off_stops_before_the_others_go_on() {
    cut_off_and_judge(|leader| (leader + 1) % 3);
}

#[test]
fn a_node_that_decided_and_is_cut_off_stops_before_the_others_go_on() {
    cut_off_and_judge(|leader| leader);
}
