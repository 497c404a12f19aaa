//! Datacenters are added, removed and given up while clients go on, and what these saw is judged.

use std::time::Duration;

use serde_json::Value;
use tests::demo::path_text;
use tests::load::Load;
use tests::nodes::{Node, Nodes};
use tests::process::Start;
use tests::{Process, Reply, Stage, binary, eventually, http, tell};

use crate::lost_nodes::{LOAD, assert_probes, check, write_probes};

/// How long a datacenter may take to come or go under a light load.
const CHANGE_PATIENCE: Duration = Duration::from_secs(45);

/// What `topology apply` ends with when the members have changed since the plan was made.
pub(crate) const OUTDATED: i32 = 5;

/// What a node tells of the members.
fn topology(node: &Node) -> Option<Value> {
    let answer = http::ask("GET", &node.place.admin, "/v1/topology", "").ok()?;
    serde_json::from_str(&answer.body).ok()
}

/// The version that the deployment has agreed on, as a node reads it.
pub(crate) fn agreed_version(node: &Node) -> String {
    eventually("the deployment has agreed on its members", CHANGE_PATIENCE, || {
        let told = topology(node)?;
        told["is_agreed"].as_bool()?.then(|| told["version"].to_string())
    })
}

/// Plans a change, makes it by the line that the plan ends with, and waits until it is done.
pub(crate) fn carry_out(stage: &Stage, by: &Node, change: &[&str]) {
    let admin = ["--admin", by.place.admin.as_str()];
    let version = agreed_version(by);
    let plan = binary::answer_of(stage, &[&["topology", "plan"], change, &admin[..]].concat());
    let line = plan.lines().last().expect("a plan has lines").trim();
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    assert!(words.contains(&version.as_str()), "{line} is for version {version}");
    let done = binary::answer_of(stage, &[&words[..], &["--yes"]].concat());
    tell(&format!("{plan}\n{done}"));
    // Whoever plans for the old version is told that it is old.
    let again = binary::run(stage, &[&words[..], &["--yes"]].concat());
    assert_eq!(again.status, Some(OUTDATED), "{again:?}");
}

/// What a datacenter may do, as its own node acts.
pub(crate) fn standing(node: &Node) -> Option<String> {
    Some(node.status()?["topology"]["standing"].as_str()?.to_owned())
}

pub(crate) fn await_standing(node: &Node, wanted: &str) {
    eventually(&format!("{} is {wanted}", node.name), CHANGE_PATIENCE, || {
        (standing(node)? == wanted).then_some(())
    });
}

/// All keys that a node has, with their values.
fn contents(node: &Node) -> Vec<(String, Option<String>)> {
    let mut client = node.client();
    let Reply::Array(keys) = client.call(&["KEYS", "*"]) else { panic!("KEYS gives a list") };
    let key = |reply: &Reply| {
        let Reply::Bulk(key) = reply else { panic!("{reply:?} is no key") };
        key.clone()
    };
    let mut keys: Vec<String> = keys.iter().map(key).collect();
    keys.sort();
    keys.into_iter().map(|key| (key.clone(), client.get(&key))).collect()
}

pub(crate) fn await_same_contents(one: &Node, other: &Node) {
    let what = format!("{} holds what {} holds", one.name, other.name);
    eventually(&what, CHANGE_PATIENCE, || {
        let wanted = contents(other);
        (!wanted.is_empty() && contents(one) == wanted).then_some(())
    });
}

fn refusal(node: &Node, words: &[&str]) -> String {
    let reply = node.client().call(words);
    let Reply::Error(error) = reply else { panic!("{words:?} is answered: {reply:?}") };
    error
}

#[test]
fn datacenters_come_and_go_under_load_and_nobody_sees_anything_else() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 1), ("us", 1), ("ap", 1)]);
    write_probes(&nodes.all[1], "before");
    let load = Load::start(&stage, &nodes, LOAD);
    let added = nodes.add(&stage, "sa");
    let peer = nodes.all[added].place.peer.clone();
    let node = format!("4.1={peer}");
    carry_out(&stage, &nodes.all[0], &["add", "sa", "--id", "4", "--node", &node]);
    nodes.all[added].await_ready(CHANGE_PATIENCE);
    assert_probes(&nodes.all[added], "before");
    assert_eq!(standing(&nodes.all[added]).as_deref(), Some("open"));
    check(&stage, &load.end());
    await_same_contents(&nodes.all[added], &nodes.all[0]);

    let stay = [0, 2, added].map(|place| &nodes.all[place]);
    let load = Load::start_on(&stage, "second", &stay, LOAD);
    write_probes(&nodes.all[1], "the last of us");
    carry_out(&stage, &nodes.all[added], &["remove", "us"]);
    await_standing(&nodes.all[1], "gone");
    let refused = refusal(&nodes.all[1], &["GET", "probe:1"]);
    assert!(refused.starts_with("CLUSTERDOWN"), "{refused}");
    for place in [0, 2, added] {
        assert_probes(&nodes.all[place], "the last of us");
    }
    check(&stage, &load.end());

    nodes.all[2].crash();
    carry_out(&stage, &nodes.all[0], &["remove", "ap", "--lost"]);
    write_probes(&nodes.all[added], "of two");
    await_same_contents(&nodes.all[0], &nodes.all[added]);
    // A run that comes back is told, and refuses everything.
    nodes.all[2].restart(&stage);
    await_standing(&nodes.all[2], "gone");
    let refused = refusal(&nodes.all[2], &["SET", "probe:1", "late"]);
    assert!(refused.starts_with("CLUSTERDOWN"), "{refused}");
    // Those that stayed know it after a restart, too, with their old settings.
    nodes.all[0].crash();
    nodes.all[0].restart(&stage);
    nodes.all[0].await_ready(CHANGE_PATIENCE);
    write_probes(&nodes.all[0], "after a restart");
    await_same_contents(&nodes.all[added], &nodes.all[0]);
    nodes.assert_running();
}

#[test]
fn datacenters_that_nobody_agrees_on_cannot_be_changed() {
    let stage = Stage::alone();
    let nodes = Nodes::start(&stage, &[("eu", 1), ("us", 1)]);
    let admin = nodes.all[0].place.admin.as_str();
    let plan = binary::run(&stage, &["topology", "plan", "remove", "us", "--admin", admin]);
    assert_eq!(plan.status, Some(1), "{plan:?}");
    assert!(plan.notes.contains("control.store"), "{plan:?}");
    let shown = binary::answer_of(&stage, &["topology", "show", "--admin", admin]);
    assert!(shown.contains("version 1 as this node knows it"), "{shown}");
}

#[test]
fn of_two_datacenters_one_gives_the_other_up_with_a_witness_and_not_without() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 1), ("us", 1)]);
    write_probes(&nodes.all[1], "before");
    assert_eq!(agreed_version(&nodes.all[0]), "1");
    nodes.all[1].crash();
    let admin = nodes.all[0].place.admin.clone();
    let words = ["topology", "plan", "remove", "us", "--lost", "--admin", &admin];
    let alone = binary::run(&stage, &words);
    assert_eq!(alone.status, Some(1), "{alone:?}");
    assert!(alone.notes.contains("agreement cannot be reached"), "{alone:?}");
    write_probes(&nodes.all[0], "alone");

    nodes.all[1].restart(&stage);
    nodes.all[1].await_ready(CHANGE_PATIENCE);
    let address = nodes.spare_address();
    let line = format!("witness = \"{address}\"");
    for node in &mut nodes.all {
        node.crash();
        node.replace_line("[control]", &format!("[control]\n{line}"));
        node.restart(&stage);
    }
    for node in &mut nodes.all {
        node.await_ready(CHANGE_PATIENCE);
    }
    let (file, folder) = (nodes.all[0].file().to_owned(), stage.path("witness"));
    let words = ["witness", "--config", path_text(&file), "--folder", path_text(&folder)];
    let witness =
        Process::start(&stage, &Start { name: "witness", words: &words, ..Start::default() });
    eventually("the witness votes", CHANGE_PATIENCE, || {
        witness.notes().contains("the witness votes").then_some(())
    });
    nodes.all[1].crash();
    carry_out(&stage, &nodes.all[0], &["remove", "us", "--lost"]);
    write_probes(&nodes.all[0], "after");
    assert_probes(&nodes.all[0], "after");
}
