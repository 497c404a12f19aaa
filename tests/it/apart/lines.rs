//! Lines inside a datacenter are cut, both ways or one way, while every node still reaches those
//! that decide: the chains must go on without one of the two, and take it back afterwards.
//!
//! Neither node is dead, so nobody is given up for its silence. What decides is that each tells
//! whom it cannot reach.

use std::time::Duration;

use tests::load::Load;
use tests::network::{OneWay, between};
use tests::patience::{Deadline, watch};
use tests::{Network, Stage, tell};

use super::{CALM_SPAN, JUDGED, leader, start_one};
use crate::lost_nodes::{JOIN_PATIENCE, await_whole, check, write_probes};

/// How long writes may stand still: until a line is known to be cut, and until chains go on.
const CUT_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Cuts ways between the two nodes that do not decide, and joins them again.
fn cut_and_heal(ways: impl Fn(usize, usize) -> Vec<OneWay>) {
    let stage = Stage::alone();
    let Some(network) = Network::make(3) else { return };
    let mut nodes = start_one(&stage, &network);
    let load = Load::start(&stage, &nodes, JUDGED);
    let leader = leader(&nodes);
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    watch(CALM_SPAN, || ());
    network.cut(&ways(one, other));
    let since = Deadline::after(CUT_PAUSE_MAX);
    write_probes(&nodes.all[leader], "while it is cut");
    let pause = since.elapsed();
    tell(&format!("cut {:?}: writes of all shards succeeded after {pause:?}", ways(one, other)));
    assert!(pause < CUT_PAUSE_MAX, "{pause:?}");
    network.heal_all();
    let since = Deadline::after(JOIN_PATIENCE);
    await_whole(&nodes, 3);
    tell(&format!("chains were whole {:?} after healing", since.elapsed()));
    let history = load.end();
    nodes.assert_running();
    check(&stage, &history);
}

#[test]
fn two_nodes_that_cannot_reach_each_other_do_not_stop_their_chains() {
    cut_and_heal(|one, other| between(&[one], &[other]));
}

#[test]
fn a_node_that_is_not_heard_by_another_does_not_stop_their_chains() {
    cut_and_heal(|one, other| vec![(one, other)]);
}

#[test]
fn a_node_that_does_not_hear_another_does_not_stop_their_chains() {
    cut_and_heal(|one, other| vec![(other, one)]);
}
