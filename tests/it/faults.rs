//! Nine processes under load while links are cut and nodes are killed; the judge looks at what all
//! sessions saw.
//!
//! The load is that of `antecede bench --history`: sessions on all nodes, half of the keys written
//! in one datacenter only, so that each datacenter can be judged to be linearizable on them.

use std::path::Path;
use std::time::Duration;

use tests::judged::{Content, Judged, MODELS};
use tests::load::{Load, Rate};
use tests::nodes::{Nodes, Way};
use tests::{Stage, settings, tell};

const DATACENTERS: &[(&str, u16)] = &[("eu", 3), ("us", 3), ("ap", 3)];

/// Two cores run nine nodes, the load and other things; few enough keys that sessions meet on them.
const LOAD: Rate = Rate { operations: 1200, keys: 300 };

/// How links are without faults.
const FAR: Way = Way { delay_ms: 25, jitter_ms: 10, is_cut: false };
const CUT: Way = Way { is_cut: true, ..FAR };

/// How long a cut lasts, and the time until the next.
const CUT_SPAN: Duration = Duration::from_millis(1500);
const JOINED_SPAN: Duration = Duration::from_millis(800);

/// How long a killed node stays away, and the time from its return to the next kill.
const DOWN_SPAN: Duration = Duration::from_millis(400);
const UP_SPAN: Duration = Duration::from_millis(1500);

/// How long a node that returns may take to serve.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

/// What every history of such a load must hold, lest the judge had nothing to do.
fn check(stage: &Stage, history: &Path) -> Content {
    let content = Content::of(history);
    tell(&format!("{content:?}"));
    let seconds = settings::load_duration().as_secs();
    assert!(50 * seconds <= content.acknowledged, "{content:?}");
    assert!(10 * seconds <= content.writes, "{content:?}");
    assert!(10 * seconds <= content.remote_reads, "sessions met across datacenters: {content:?}");
    let judged = Judged::pass(stage, history, MODELS);
    for model in MODELS {
        tell(&format!("{model}: {} checked", judged.checked(model)));
    }
    assert!(10 * seconds <= judged.checked("linearizable"), "{content:?}");
    assert!(50 * seconds <= judged.checked("causal+"), "{content:?}");
    assert!(content.writes / 2 <= judged.checked("durable"), "{content:?}");
    assert_eq!(judged.checked("converged"), content.finals, "{content:?}");
    content
}

#[test]
fn cut_links_break_no_promise() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start(&stage, DATACENTERS);
    nodes.shape_all(FAR);
    let mut load = Load::start(&stage, &nodes, LOAD);
    // Each pair in turn, first both ways, then one way only.
    let pairs = [("eu", "us"), ("us", "ap"), ("ap", "eu")];
    let mut cuts = 0;
    for (turn, (one, other)) in (0..).zip(pairs.iter().cycle()) {
        if load.has_ended(JOINED_SPAN) {
            break;
        }
        nodes.shape(one, other, CUT);
        if (turn / pairs.len()).is_multiple_of(2) {
            nodes.shape(other, one, CUT);
        }
        cuts += 1;
        let has_ended = load.has_ended(CUT_SPAN);
        nodes.shape_all(FAR);
        if has_ended {
            break;
        }
    }
    let history = load.end();
    nodes.assert_running();
    assert!(3 <= cuts, "only {cuts} cuts");
    let hit = nodes.metric("antecede_link_cut_writes_total");
    assert!(0.0 < hit, "nothing was lost by {cuts} cuts");
    tell(&format!("{cuts} cuts dropped {hit} flushes"));
    let content = check(&stage, &history);
    assert_eq!(content.unknown, 0, "a cut between datacenters concerns no client: {content:?}");
}

#[test]
fn killed_nodes_lose_nothing_that_was_acknowledged() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start(&stage, DATACENTERS);
    nodes.shape_all(FAR);
    let mut load = Load::start(&stage, &nodes, LOAD);
    let mut kills = 0;
    // Heads, middles and tails of all datacenters: 4 and 9 have no common divisor.
    for place in (0..9).cycle().map(|step| step * 4 % 9) {
        if load.has_ended(UP_SPAN) {
            break;
        }
        let node = &mut nodes.all[place];
        node.crash_and_restart(&stage, DOWN_SPAN);
        node.await_ready(RETURN_PATIENCE);
        kills += 1;
    }
    let history = load.end();
    nodes.assert_running();
    assert!(3 <= kills, "only {kills} kills");
    let checkpoints = nodes.metric("antecede_checkpoints_total");
    let cut_to = nodes.metric("antecede_log_cut_to");
    tell(&format!("{kills} kills, {checkpoints} checkpoints, logs cut to {cut_to} in all"));
    assert!(9.0 <= checkpoints && 0.0 < cut_to, "{checkpoints} checkpoints, cut to {cut_to}");
    check(&stage, &history);
}
