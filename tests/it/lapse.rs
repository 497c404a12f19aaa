//! A datacenter that is far behind is let go of by command: the others go on without it, and it comes
//! back by itself, with what they have and with what it had never sent.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tests::load::Load;
use tests::nodes::{Node, Nodes, Way};
use tests::{Reply, Stage, binary, eventually, tell};

use crate::lost_nodes::{LOAD, assert_probes, check, write_probes};
use crate::topology::{
    OUTDATED, agreed_version, await_same_contents, await_standing, carry_out, standing,
};
use crate::unsent::{await_value, write};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(40);

const HERE: Way = Way { delay_ms: 0, jitter_ms: 0, is_cut: false };
const CUT: Way = Way { is_cut: true, ..HERE };

/// Cuts the third datacenter off from the others, or heals that.
fn shape(nodes: &Nodes, way: Way) {
    for other in ["eu", "us"] {
        nodes.shape("ap", other, way);
        nodes.shape(other, "ap", way);
    }
}

fn quarantine(stage: &Stage, number: u16) -> PathBuf {
    stage.path("data").join("ap-1").join("quarantine").join(number.to_string())
}

/// Writes on both sides of a cut, once the deployment has agreed on its members; what the third one
/// wrote, nobody else has.
fn write_apart(nodes: &Nodes) {
    agreed_version(&nodes.all[0]);
    let [eu, us, ap] = [0, 1, 2].map(|place| &nodes.all[place]);
    for key in ["kept", "removed", "written since"] {
        write(ap, &["SET", key, "of all"]);
        await_value(eu, key, "of all");
        await_value(us, key, "of all");
    }
    shape(nodes, CUT);
    write(ap, &["SET", "kept", "first"]);
    write(ap, &["SET", "kept", "second"]);
    write(ap, &["DEL", "removed"]);
    write(ap, &["SET", "new", "of ap"]);
    write(ap, &["SET", "written since", "of ap"]);
    write(eu, &["SET", "written since", "of eu"]);
    await_value(us, "written since", "of eu");
}

fn await_refusal(node: &Node, words: &str) {
    let mut client = node.client();
    eventually(&format!("{} refuses with {words}", node.name), PATIENCE, || {
        match client.call(&["GET", "kept"]) {
            Reply::Error(error) => {
                (error.starts_with("CLUSTERDOWN") && error.contains(words)).then_some(())
            }
            Reply::Simple(_)
            | Reply::Integer(_)
            | Reply::Bulk(_)
            | Reply::Nil
            | Reply::Array(_) => None,
        }
    });
}

/// All has come of what the third datacenter had never sent that may come.
fn await_replayed(stage: &Stage, nodes: &Nodes, old: u16) {
    for node in &nodes.all {
        await_value(node, "kept", "second");
        await_value(node, "new", "of ap");
        await_value(node, "written since", "of eu");
        let mut client = node.client();
        eventually("what was removed is gone", PATIENCE, || {
            client.get("removed").is_none().then_some(())
        });
    }
    let mark = quarantine(stage, old).join("replayed");
    eventually("the quarantine is marked", PATIENCE, || mark.exists().then_some(()));
    let journal = quarantine(stage, old).with_file_name(format!("{old}-journal.jsonl"));
    let journal = fs::read_to_string(&journal).expect("there is a journal");
    let since = journal.lines().find(|line| line.contains("written_since"));
    let wanted = r#""commands":[["SET","written since","of ap"]]"#;
    assert!(since.is_some_and(|line| line.contains(wanted)), "{journal}");
}

#[test]
fn a_datacenter_that_lapses_comes_back_by_itself_whatever_kills_its_node_on_the_way() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 1), ("us", 1), ("ap", 1)]);
    write_apart(&nodes);
    // As long as one of the others has not shared what it has, it is not given up.
    nodes.all[1].process.pause();
    let admin = nodes.all[0].place.admin.clone();
    let words = ["--version", "1", "--admin", &admin, "--yes", "--no-wait"];
    let apply = [&["topology", "apply", "lapse", "ap"][..], &words].concat();
    // The one that is stopped may have led the agreement.
    eventually("that it lapses is agreed on", PATIENCE, || {
        let ended = binary::run(&stage, &apply);
        matches!(ended.status, Some(0 | OUTDATED)).then_some(())
    });
    await_refusal(&nodes.all[2], "lapsed");
    let shown = binary::answer_of(&stage, &["topology", "show", "--admin", &admin]);
    assert!(shown.contains("lapsing"), "{shown}");
    nodes.all[1].process.resume();
    let moved = quarantine(&stage, 3).join("log");
    eventually("the log is put aside", PATIENCE, || moved.exists().then_some(()));
    nodes.all[2].crash();
    nodes.all[2].restart(&stage);
    eventually("it is on its way back", PATIENCE, || {
        matches!(standing(&nodes.all[2])?.as_str(), "joining" | "copying").then_some(())
    });
    nodes.all[2].crash();
    nodes.all[2].restart(&stage);
    // Its own end of the line is whole since the restart.
    shape(&nodes, HERE);
    nodes.all[2].await_ready(PATIENCE);
    await_standing(&nodes.all[2], "open");
    await_replayed(&stage, &nodes, 3);
    write_probes(&nodes.all[2], "of the one that is back");
    for place in [0, 1] {
        await_same_contents(&nodes.all[place], &nodes.all[2]);
    }
    let shown = binary::answer_of(&stage, &["topology", "show", "--admin", &admin]);
    tell(&shown);
    assert!(shown.contains("ap (3) has lapsed"), "{shown}");
    assert!(shown.contains("is there again as 4"), "{shown}");
    eventually("the others name its node by its number", PATIENCE, || {
        let status = nodes.all[0].status()?;
        let node = status["nodes"].as_array()?.iter().find(|node| node["node"] == "4.1")?;
        (node["admin"].as_str()? == nodes.all[2].place.admin).then_some(())
    });
    // It lapses once more, and its settings still name the first number.
    carry_out(&stage, &nodes.all[0], &["lapse", "ap"]);
    let moved = quarantine(&stage, 4).join("log");
    eventually("the second log is put aside", PATIENCE, || moved.exists().then_some(()));
    nodes.all[2].crash();
    nodes.all[2].restart(&stage);
    nodes.all[2].await_ready(PATIENCE);
    await_same_contents(&nodes.all[2], &nodes.all[0]);
    assert_probes(&nodes.all[2], "of the one that is back");
    nodes.assert_running();
}

#[test]
fn the_others_are_held_back_no_more_by_one_that_has_lapsed_and_nobody_sees_anything_else() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 1), ("us", 1), ("ap", 1)]);
    write_apart(&nodes);
    nodes.all[2].process.pause();
    let others = [0, 1].map(|place| &nodes.all[place]);
    let load = Load::start_on(&stage, "without", &others, LOAD);
    let kept = |node: &Node| node.status()?["outbox"]["bytes"].as_u64();
    // Far more than what stays where nobody writes: the last promises of quiet shards, 64 KiB in all.
    let most = eventually("something is kept for it", PATIENCE, || {
        kept(&nodes.all[0]).filter(|bytes| 500_000 < *bytes)
    });
    carry_out(&stage, &nodes.all[0], &["lapse", "ap"]);
    eventually("nothing is kept for it any more", PATIENCE, || {
        (kept(&nodes.all[0])? < most / 2).then_some(())
    });
    check(&stage, &load.end());
    let others = [0, 1].map(|place| &nodes.all[place]);
    let load = Load::start_on(&stage, "while it is back", &others, LOAD);
    nodes.all[2].process.resume();
    shape(&nodes, HERE);
    nodes.all[2].await_ready(PATIENCE);
    await_replayed(&stage, &nodes, 3);
    check(&stage, &load.end());
    await_same_contents(&nodes.all[2], &nodes.all[0]);
    // One that hears of it only with its next start comes back as well.
    nodes.all[2].crash();
    carry_out(&stage, &nodes.all[0], &["lapse", "ap"]);
    nodes.all[2].restart(&stage);
    nodes.all[2].await_ready(PATIENCE);
    await_same_contents(&nodes.all[2], &nodes.all[0]);
    write_probes(&nodes.all[2], "after the second time");
    await_same_contents(&nodes.all[0], &nodes.all[2]);
    nodes.assert_running();
}

/// Enough that each of three nodes is the head of some.
const MANY: usize = 40;

fn write_many(node: &Node, value: &str) {
    for number in 0..MANY {
        write(node, &["SET", &format!("many:{number}"), value]);
    }
}

fn await_many(node: &Node, value: &str) {
    for number in 0..MANY {
        await_value(node, &format!("many:{number}"), value);
    }
}

#[test]
fn a_node_with_an_older_end_replays_nothing_and_all_nodes_come_back_under_one_number() {
    let stage = Stage::alone();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 1), ("us", 1), ("ap", 3)]);
    let late = 4;
    write_many(&nodes.all[2], "of all");
    await_many(&nodes.all[0], "of all");
    await_many(&nodes.all[1], "of all");
    shape(&nodes, CUT);
    write_many(&nodes.all[2], "first");
    nodes.all[late].crash();
    write_many(&nodes.all[2], "second");
    carry_out(&stage, &nodes.all[0], &["lapse", "ap"]);
    for place in [2, 3] {
        eventually("it is on its way back", PATIENCE, || {
            matches!(standing(&nodes.all[place])?.as_str(), "joining" | "copying").then_some(())
        });
    }
    nodes.all[late].restart(&stage);
    eventually("the one that was away has heard it from the deployment", PATIENCE, || {
        nodes.all[late].process.notes().contains("the deployment says").then_some(())
    });
    shape(&nodes, HERE);
    for place in 2..nodes.all.len() {
        nodes.all[place].await_ready(PATIENCE);
    }
    for place in 0..nodes.all.len() {
        await_many(&nodes.all[place], "second");
    }
    let aside = |name: &str| stage.path("data").join(name).join("quarantine").join("3");
    for name in ["ap-1", "ap-2"] {
        let mark = aside(name).join("replayed");
        eventually("what it held is executed again", PATIENCE, || mark.exists().then_some(()));
    }
    assert!(aside("ap-3").join("log").exists() && !aside("ap-3").join("newest").exists());
    assert!(!aside("ap-3").with_file_name("3-journal.jsonl").exists());
    for place in [0, 1] {
        await_same_contents(&nodes.all[place], &nodes.all[2]);
    }

    // Where all are there, all hear it with their datacenter's part.
    write_many(&nodes.all[4], "third");
    await_many(&nodes.all[0], "third");
    let asked = |node: &Node| node.process.notes().matches("the deployment says").count();
    let before: Vec<usize> = nodes.all.iter().map(asked).collect();
    carry_out(&stage, &nodes.all[1], &["lapse", "ap"]);
    for node in &mut nodes.all[2..] {
        let log = stage.path("data").join(&node.name).join("quarantine/4/log");
        eventually("it has put its log aside", PATIENCE, || log.exists().then_some(()));
        node.await_ready(PATIENCE);
        await_many(node, "third");
    }
    let after: Vec<usize> = nodes.all.iter().map(asked).collect();
    assert_eq!(after, before, "nobody asked the deployment");
    nodes.assert_running();
}
