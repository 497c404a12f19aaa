//! Nine nodes in three datacenters, each in a network namespace of its own, and what happens on a
//! network, to machines and to clocks: the judge looks at what all sessions saw.
//!
//! Assumes: root and `ip`; where there are none each test tells so and is left out.

/// Wrong clocks.
mod clocks;
/// Datacenters cannot reach each other for as long as one likes.
mod datacenters;
/// Two nodes of a datacenter cannot reach each other, and everybody else can.
mod lines;

use std::time::Duration;

use tests::load::Rate;
use tests::{Network, Nodes, Stage};

use crate::lost_nodes::await_whole;

/// Places are numbered in this order.
const DATACENTERS: &[(&str, u16)] = &[("eu", 3), ("us", 3), ("ap", 3)];
const NODES: usize = 9;

/// Places of each.
const EU: [usize; 3] = [0, 1, 2];
const US: [usize; 3] = [3, 4, 5];
const AP: [usize; 3] = [6, 7, 8];

/// What is judged; few enough keys that sessions meet on them.
const JUDGED: Rate = Rate { operations: 600, keys: 300 };

/// How long loads run before something happens.
const CALM_SPAN: Duration = Duration::from_secs(2);

/// Nine nodes whose chains are whole.
fn start(stage: &Stage, network: &Network) -> Nodes {
    let nodes = Nodes::start_apart(stage, network, DATACENTERS, |_| Vec::new());
    await_whole(&nodes, 3);
    nodes
}

/// One datacenter of three nodes whose chains are whole.
fn start_one(stage: &Stage, network: &Network) -> Nodes {
    let nodes = Nodes::start_apart(stage, network, &[("eu", 3)], |_| Vec::new());
    await_whole(&nodes, 3);
    nodes
}
