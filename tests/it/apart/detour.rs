//! The way between two datacenters is broken, and a third one reaches both: it passes on what they
//! say, until they reach each other again.
//!
//! Meanwhile all three are as little behind each other as before, and clients see no error.

use std::time::Duration;

use tests::load::Load;
use tests::network::{OneWay, between};
use tests::nodes::Node;
use tests::patience::{Deadline, watch};
use tests::{Network, Nodes, Stage, eventually, http, tell};

use super::datacenters::{LAG_MAX_MS, assert_no_error, lag_ms};
use super::{CALM_SPAN, JUDGED, start_of};
use crate::lost_nodes::check;

/// The two whose way is broken, and the third.
const ONE: usize = 0;
const THIRD: usize = 1;
const OTHER: usize = 2;

/// How long may pass until another way is taken: silence, a try of the straight way, and pauses.
const DETOUR_PATIENCE: Duration = Duration::from_secs(30);

/// How long may pass until the straight way is taken again: it is tried after 5 s, then after 10 s.
const STRAIGHT_PATIENCE: Duration = Duration::from_secs(30);

/// How long it is looked whether one passes on all the time, and afterwards.
const SPAN: Duration = Duration::from_secs(3);

/// How long clients go on: about as long as all of it.
const LOAD_SPAN: Duration = Duration::from_secs(40);

/// The node that passes on what a node says to another one.
fn through(node: &Node, to: &Node) -> Option<String> {
    let status = node.status()?;
    let other = to.status()?["node"].as_str()?.to_owned();
    let link = status["links"].as_array()?.iter().find(|link| link["node"] == *other)?;
    assert!(link["connected"] == true || link["through"].is_null(), "{link}");
    link["through"].as_str().map(str::to_owned)
}

/// Whether each of two nodes says to the other what it says through a third one.
fn go_around(nodes: &Nodes) -> bool {
    let [one, other] = [ONE, OTHER].map(|at| &nodes.all[at]);
    [through(one, other), through(other, one)].iter().all(Option::is_some)
}

fn is_straight(nodes: &Nodes) -> bool {
    let is_up = |node: &Node| {
        let status = node.status()?;
        let links = status["links"].as_array()?;
        let is_up =
            |link: &serde_json::Value| link["connected"] == true && link["through"].is_null();
        Some(links.iter().all(is_up))
    };
    nodes.all.iter().all(|node| is_up(node) == Some(true))
}

/// Waits until what one writes is read at the other.
fn write_and_read(from: &Node, to: &Node, key: &str) {
    let value = format!("of {}", from.name);
    from.client().call(&["SET", key, &value]);
    eventually("what was written is read in the other datacenter", DETOUR_PATIENCE, || {
        let read = to.client().call(&["GET", key]);
        (read == tests::Reply::Bulk(value.clone())).then_some(())
    });
}

/// Breaks ways, and heals them once all has gone around them for a while.
fn break_and_heal(network: &Network, nodes: &Nodes, ways: &[OneWay]) {
    let [one, third, other] = [ONE, THIRD, OTHER].map(|at| &nodes.all[at]);
    network.cut(ways);
    let since = Deadline::after(DETOUR_PATIENCE);
    eventually("the third passes on", DETOUR_PATIENCE, || go_around(nodes).then_some(()));
    tell(&format!("{ways:?} cut: both ways around were taken after {:?}", since.elapsed()));
    eventually("nobody is behind", DETOUR_PATIENCE, || (lag_ms(nodes) < LAG_MAX_MS).then_some(()));
    tell(&format!("as little behind as before after {:?}", since.elapsed()));
    let passes_on = third.status().expect("it answers")["node"].clone();
    assert_eq!(through(one, other).as_deref(), passes_on.as_str());
    write_and_read(one, other, "there");
    write_and_read(other, one, "back");
    watch(SPAN, || {
        assert!(go_around(nodes), "they reach each other although their way is broken");
    });
    assert!(lag_ms(nodes) < LAG_MAX_MS);
    assert!((1.5..2.5).contains(&http::metric(&third.place.admin, "antecede_relays")));
    assert!(1.0 < http::metric(&third.place.admin, "antecede_relayed_bytes_total"));
    network.heal(ways);
    let since = Deadline::after(STRAIGHT_PATIENCE);
    eventually("they reach each other", STRAIGHT_PATIENCE, || is_straight(nodes).then_some(()));
    tell(&format!("straight again after {:?}", since.elapsed()));
    eventually("nothing is passed on", STRAIGHT_PATIENCE, || {
        (http::metric(&third.place.admin, "antecede_relays") < 0.5).then_some(())
    });
    write_and_read(one, other, "straight");
}

#[test]
fn two_datacenters_whose_way_is_broken_meet_through_the_third() {
    let stage = Stage::alone();
    let Some(network) = Network::make(3) else { return };
    let mut nodes = start_of(&stage, &network, 3, 1);
    let load = Load::start_for(&stage, &nodes, JUDGED, LOAD_SPAN);
    watch(CALM_SPAN, || ());
    assert!(is_straight(&nodes));
    break_and_heal(&network, &nodes, &between(&[ONE], &[OTHER]));
    break_and_heal(&network, &nodes, &[(ONE, OTHER)]);
    watch(SPAN, || ());
    let (history, report) = load.end_with_report();
    assert_no_error("judged", &report);
    nodes.assert_running();
    let content = check(&stage, &history);
    assert!(0 < content.remote_reads, "sessions met across datacenters: {content:?}");
}
