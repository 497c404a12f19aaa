//! Nine nodes in three datacenters, each in a network namespace of its own, and what happens on a
//! network, to machines and to clocks: the judge looks at what all sessions saw.
//!
//! Assumes: root and `ip`; where there are none each test tells so and is left out.

/// Wrong clocks.
mod clocks;
/// Datacenters cannot reach each other for as long as one likes.
mod datacenters;
/// Two datacenters cannot reach each other, and a third one reaches both.
mod detour;
/// Nodes are killed.
mod killed;
/// Two nodes of a datacenter cannot reach each other, and everybody else can.
mod lines;
/// One node cannot reach the others of its datacenter.
mod minority;

use std::time::Duration;

use tests::load::Rate;
use tests::{Network, Nodes, Stage, eventually, http};

use crate::lost_nodes::{JOIN_PATIENCE, await_whole};

/// Places are numbered in this order.
const DATACENTERS: &[(&str, u16)] = &[("eu", 3), ("us", 3), ("ap", 3)];
const NODES: usize = 9;

/// Places of each.
const EU: [usize; 3] = [0, 1, 2];
const US: [usize; 3] = [3, 4, 5];

/// What is judged; few enough keys that sessions meet on them.
const JUDGED: Rate = Rate { operations: 600, keys: 300 };

/// How long loads run before something happens.
const CALM_SPAN: Duration = Duration::from_secs(2);

/// So many datacenters of so many nodes each, whose chains are whole.
fn start_of(stage: &Stage, network: &Network, count: usize, each: u16) -> Nodes {
    let names = DATACENTERS.iter().take(count);
    let datacenters: Vec<(&str, u16)> = names.map(|(name, _)| (*name, each)).collect();
    let nodes = Nodes::start_apart(stage, network, &datacenters, |_| Vec::new());
    await_whole(&nodes, usize::from(each).min(3));
    nodes
}

/// Nine nodes whose chains are whole.
fn start(stage: &Stage, network: &Network) -> Nodes {
    start_of(stage, network, DATACENTERS.len(), 3)
}

/// One datacenter of three nodes whose chains are whole.
fn start_one(stage: &Stage, network: &Network) -> Nodes {
    let nodes = Nodes::start_apart(stage, network, &[("eu", 3)], |_| Vec::new());
    await_whole(&nodes, 3);
    nodes
}

/// The place of the node whose member of the agreement leads, in one datacenter.
fn leader(nodes: &Nodes) -> usize {
    eventually("somebody decides", JOIN_PATIENCE, || {
        let decides = |admin: &str| 0.5 < http::metric(admin, "antecede_control_decides");
        nodes.all.iter().position(|node| decides(&node.place.admin))
    })
}
