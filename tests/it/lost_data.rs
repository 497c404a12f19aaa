//! Nodes that come back without the data that nobody else in their datacenter has: they refuse, and
//! never answer that there is nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tests::demo::path_text;
use tests::nodes::{Node, Nodes};
use tests::{Client, Reply, Stage, binary, eventually};

use crate::folders::copy;
use crate::topology::{agreed_version, await_same_contents, await_standing, carry_out};
use crate::unsent::{await_value, write};

const PATIENCE: Duration = Duration::from_secs(40);

/// Which is the exit status of a node that must not be started again as it is.
const WRONG_FOLDER: i32 = 4;

/// Keys in many shards.
const KEYS: usize = 16;

fn key(number: usize) -> String {
    format!("key:{number}")
}

/// Ends a node's process and takes its folder away.
fn lose(stage: &Stage, node: &mut Node) {
    node.crash();
    fs::remove_dir_all(folder_of(stage, node)).expect("a folder can be removed");
    node.restart(stage);
}

fn await_finding(stage: &Stage, node: &Node, words: &str) {
    eventually(&format!("doctor says: {words}"), PATIENCE, || {
        let ended = binary::run(stage, &["doctor", "--admin", &node.place.admin]);
        (ended.status == Some(1) && ended.answer.contains(words)).then_some(())
    });
}

/// What a node answers to reads of all keys: their values, or refusals.
fn read_all(node: &Node, value: &str) -> (usize, usize) {
    let mut client = node.client();
    let (mut found, mut refused) = (0, 0);
    for number in 0..KEYS {
        match client.call(&["GET", &key(number)]) {
            Reply::Bulk(read) => {
                assert_eq!(read, value, "{}", key(number));
                found += 1;
            }
            Reply::Error(error) => {
                assert!(error.starts_with("CLUSTERDOWN"), "{error}");
                refused += 1;
            }
            other @ (Reply::Simple(_) | Reply::Integer(_) | Reply::Nil | Reply::Array(_)) => {
                panic!("{} is {other:?}", key(number))
            }
        }
    }
    (found, refused)
}

#[test]
fn a_datacenter_that_lost_its_only_folder_refuses_until_it_has_everything_again() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 1), ("us", 1), ("ap", 1)]);
    agreed_version(&nodes.all[0]);
    write(&nodes.all[0], &["SET", "of eu", "here"]);
    write(&nodes.all[1], &["SET", "of us", "here"]);
    for node in &nodes.all {
        await_value(node, "of eu", "here");
        await_value(node, "of us", "here");
    }
    lose(&stage, &mut nodes.all[0]);
    await_finding(&stage, &nodes.all[1], "topology plan lapse eu");
    for key in ["of eu", "of us"] {
        let answer = nodes.all[0].client().call(&["GET", key]);
        assert!(
            matches!(&answer, Reply::Error(error) if error.starts_with("CLUSTERDOWN")),
            "{answer:?}"
        );
    }
    carry_out(&stage, &nodes.all[1], &["lapse", "eu"]);
    nodes.all[0].await_ready(PATIENCE);
    await_standing(&nodes.all[0], "open");
    await_value(&nodes.all[0], "of eu", "here");
    await_value(&nodes.all[0], "of us", "here");
    write(&nodes.all[0], &["SET", "of eu", "again"]);
    write(&nodes.all[1], &["SET", "of us", "again"]);
    for place in [1, 2] {
        await_value(&nodes.all[place], "of eu", "again");
        await_same_contents(&nodes.all[place], &nodes.all[0]);
    }
}

#[test]
fn of_two_datacenters_one_that_lost_its_only_folder_comes_back_without_a_witness() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 1), ("us", 1)]);
    agreed_version(&nodes.all[0]);
    write(&nodes.all[0], &["SET", "of eu", "here"]);
    await_value(&nodes.all[1], "of eu", "here");
    lose(&stage, &mut nodes.all[0]);
    await_finding(&stage, &nodes.all[1], "its file is lost");
    assert_refused(&nodes.all[0], &["GET", "of eu"]);
    // What the two had decided is known to the other one.
    nodes.all[0].crash();
    nodes.all[0].restart_with(&stage, &["--begin-at-once", "deployment"]);
    await_finding(&stage, &nodes.all[1], "topology plan lapse eu");
    assert_refused(&nodes.all[0], &["GET", "of eu"]);
    // With its old number it must not leave before the other one can decide alone: the second time
    // it serves meanwhile.
    for value in ["here", "after that"] {
        carry_out(&stage, &nodes.all[1], &["lapse", "eu"]);
        nodes.all[0].await_ready(PATIENCE);
        await_standing(&nodes.all[0], "open");
        await_value(&nodes.all[0], "of eu", value);
        write(&nodes.all[0], &["SET", "of eu", "after that"]);
        await_value(&nodes.all[1], "of eu", "after that");
    }
    await_same_contents(&nodes.all[1], &nodes.all[0]);
}

#[test]
fn shards_whose_only_folder_is_lost_are_refused_until_a_person_lets_them_begin_again() {
    let stage = Stage::shared();
    let one_replica = [("ANTECEDE_DEPLOYMENT_CHAIN_LENGTH", "1")];
    let mut nodes = Nodes::start_in(&stage, &[("eu", 3)], "embedded", &one_replica);
    for number in 0..KEYS {
        write(&nodes.all[0], &["SET", &key(number), "here"]);
    }
    // Its first run with the new folder ends before anybody can decide.
    nodes.all[0].process.pause();
    lose(&stage, &mut nodes.all[2]);
    eventually("its folder is in use", PATIENCE, || nodes.all[2].status());
    nodes.all[2].crash();
    nodes.all[2].restart(&stage);
    nodes.all[0].process.resume();
    await_finding(&stage, &nodes.all[0], "came back with empty folders");
    let (found, refused) = read_all(&nodes.all[0], "here");
    assert!(0 < found && 0 < refused && found + refused == KEYS, "{found} read, {refused} refused");
    let admin = nodes.all[0].place.admin.as_str();
    let relight = ["nodes", "relight", "--yes", "--admin", admin];
    let ended = binary::run(&stage, &relight);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.answer.contains("shards with nothing"), "{ended:?}");
    let again = binary::run(&stage, &relight);
    assert_eq!(again.status, Some(1), "nothing is lost any more: {again:?}");
    for number in 0..KEYS {
        write(&nodes.all[1], &["SET", &key(number), "again"]);
    }
    assert_eq!(read_all(&nodes.all[2], "again"), (KEYS, 0));
}

#[test]
fn shards_whose_newest_folder_is_lost_begin_again_with_the_replica_that_holds_most() {
    let stage = Stage::shared();
    let two_replicas = [("ANTECEDE_DEPLOYMENT_CHAIN_LENGTH", "2")];
    let mut nodes = Nodes::start_in(&stage, &[("eu", 3)], "embedded", &two_replicas);
    for number in 0..KEYS {
        write(&nodes.all[0], &["SET", &key(number), "old"]);
    }
    // What the first two share goes on at the first one alone.
    nodes.all[1].crash();
    for number in 0..KEYS {
        write(&nodes.all[0], &["SET", &key(number), "new"]);
    }
    lose(&stage, &mut nodes.all[0]);
    let admin = nodes.all[2].place.admin.clone();
    let relight = ["nodes", "relight", "--yes", "--admin", &admin];
    let early = binary::run(&stage, &relight);
    assert_eq!(early.status, Some(1), "one may hold more: {early:?}");
    nodes.all[1].restart(&stage);
    await_finding(&stage, &nodes.all[2], "shards with what 1.2 has, without what was written");
    let ended = binary::run(&stage, &relight);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    nodes.all[2].await_ready(PATIENCE);
    let mut client = nodes.all[2].client();
    let mut older = 0;
    for number in 0..KEYS {
        eventually("every key is served", PATIENCE, || match client.call(&["GET", &key(number)]) {
            Reply::Bulk(read) if read == "new" => Some(()),
            Reply::Bulk(read) if read == "old" => {
                older += 1;
                Some(())
            }
            Reply::Error(_) => None,
            other @ (Reply::Simple(_)
            | Reply::Integer(_)
            | Reply::Bulk(_)
            | Reply::Nil
            | Reply::Array(_)) => panic!("{} is {other:?}", key(number)),
        });
    }
    assert!(
        0 < older && older < KEYS,
        "{older} of {KEYS} are from before the second node was away"
    );
}

fn folder_of(stage: &Stage, node: &Node) -> PathBuf {
    stage.path("data").join(&node.name)
}

fn assert_refused(node: &Node, words: &[&str]) {
    let answer = node.client().call(words);
    assert!(
        matches!(&answer, Reply::Error(error) if error.starts_with("CLUSTERDOWN")),
        "{words:?}: {answer:?}"
    );
}

#[test]
fn where_nobody_decides_a_lost_folder_is_told_by_others_and_an_old_copy_ends() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start(&stage, &[("eu", 1), ("us", 1), ("ap", 1)]);
    write(&nodes.all[0], &["SET", "of eu", "here"]);
    await_value(&nodes.all[1], "of eu", "here");
    let folder = folder_of(&stage, &nodes.all[0]);
    let kept = folder.with_file_name("kept");
    nodes.all[0].crash();
    fs::rename(&folder, &kept).expect("a folder can be moved");
    // Also when it is started twice with the new one.
    for _ in 0..2 {
        nodes.all[0].restart(&stage);
        await_finding(&stage, &nodes.all[1], "which had another one");
        assert_refused(&nodes.all[0], &["GET", "of eu"]);
        assert_refused(&nodes.all[0], &["SET", "of eu", "again"]);
        nodes.all[0].crash();
    }
    fs::remove_dir_all(&folder).expect("a folder can be removed");
    copy(&kept, &folder);
    nodes.all[0].restart(&stage);
    nodes.all[0].await_ready(PATIENCE);
    await_value(&nodes.all[0], "of eu", "here");
    write(&nodes.all[0], &["SET", "of eu", "later"]);
    await_value(&nodes.all[2], "of eu", "later");
    nodes.all[0].crash();
    fs::remove_dir_all(&folder).expect("a folder can be removed");
    fs::rename(&kept, &folder).expect("a folder can be moved");
    nodes.all[0].restart(&stage);
    assert_eq!(nodes.all[0].process.end(PATIENCE).code(), Some(WRONG_FOLDER));
    let told = "had another data folder";
    assert!(nodes.all[0].process.notes().contains(told), "{}", nodes.all[0].process.notes());
    // From then on without asking anybody.
    let ended = binary::run(&stage, &["serve", "--config", path_text(nodes.all[0].file())]);
    assert!(ended.status == Some(1) && ended.notes.contains(told), "{ended:?}");
}

/// Puts a backup in the place of a folder, one that was made while its node ran, so that no later run
/// has begun with it; since then there were writes at one place only.
fn put_backup_back(stage: &Stage, nodes: &mut Nodes, writer: usize) {
    write(&nodes.all[0], &["SET", "of eu", "before"]);
    await_value(&nodes.all[1], "of eu", "before");
    let folder = folder_of(stage, &nodes.all[0]);
    let backup = folder.with_file_name("backup");
    copy(&folder, &backup);
    for number in 0..KEYS {
        write(&nodes.all[writer], &["SET", &key(number), "after"]);
        await_value(&nodes.all[1 - writer], &key(number), "after");
    }
    nodes.all[0].crash();
    fs::remove_dir_all(&folder).expect("a folder can be removed");
    fs::rename(&backup, &folder).expect("a folder can be moved");
}

fn assert_that_a_backup_is_refused(stage: &Stage, nodes: &mut Nodes) {
    put_backup_back(stage, nodes, 0);
    nodes.all[0].restart(stage);
    assert_eq!(nodes.all[0].process.end(PATIENCE).code(), Some(WRONG_FOLDER));
    let told = "is an old copy: another datacenter knows of writes that were in node 1.1's";
    assert!(nodes.all[0].process.notes().contains(told), "{}", nodes.all[0].process.notes());
    let ended = binary::run(stage, &["serve", "--config", path_text(nodes.all[0].file())]);
    assert!(ended.status == Some(1) && ended.notes.contains(told), "{ended:?}");
}

#[test]
fn a_backup_that_lacks_what_others_have_of_it_is_refused_where_nobody_decides() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start(&stage, &[("eu", 1), ("us", 1)]);
    assert_that_a_backup_is_refused(&stage, &mut nodes);
}

#[test]
fn what_a_backup_lacks_of_others_comes_again_or_the_backup_is_refused() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start(&stage, &[("eu", 1), ("us", 1)]);
    put_backup_back(&stage, &mut nodes, 1);
    let eu = &mut nodes.all[0];
    eu.restart(&stage);
    // Either is well, by what the other one still keeps; to serve without them is not.
    eventually("it has all, or has ended", PATIENCE, || {
        if let Some(status) = eu.process.try_end() {
            assert_eq!(status.code(), Some(WRONG_FOLDER));
            return Some(());
        }
        let mut client = Client::try_connect(&eu.place.client).ok()?;
        let mut value = |number: usize| client.try_call(&["GET", &key(number)]).ok();
        (0..KEYS).all(|number| value(number) == Some(Reply::text("after"))).then_some(())
    });
}

#[test]
fn a_backup_of_a_datacenter_of_one_node_is_refused_and_the_others_bring_it_back() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 1), ("us", 1), ("ap", 1)]);
    agreed_version(&nodes.all[0]);
    assert_that_a_backup_is_refused(&stage, &mut nodes);
    fs::remove_dir_all(folder_of(&stage, &nodes.all[0])).expect("a folder can be removed");
    nodes.all[0].restart(&stage);
    await_finding(&stage, &nodes.all[1], "topology plan lapse eu");
    carry_out(&stage, &nodes.all[1], &["lapse", "eu"]);
    nodes.all[0].await_ready(PATIENCE);
    await_standing(&nodes.all[0], "open");
    for number in 0..KEYS {
        await_value(&nodes.all[0], &key(number), "after");
    }
}

#[test]
fn where_nobody_decided_a_lost_datacenter_comes_back_once_there_are_managers() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start(&stage, &[("eu", 1), ("us", 1), ("ap", 1)]);
    write(&nodes.all[0], &["SET", "of eu", "here"]);
    for node in &nodes.all {
        await_value(node, "of eu", "here");
    }
    lose(&stage, &mut nodes.all[0]);
    await_finding(&stage, &nodes.all[1], "which had another one");
    for node in &mut nodes.all {
        node.crash();
    }
    for node in &mut nodes.all {
        node.restart_with(&stage, &["--set", "control.store=embedded"]);
    }
    await_finding(&stage, &nodes.all[1], "topology plan lapse eu");
    assert_refused(&nodes.all[0], &["GET", "of eu"]);
    nodes.all[1].await_ready(PATIENCE);
    carry_out(&stage, &nodes.all[1], &["lapse", "eu"]);
    nodes.all[0].await_ready(PATIENCE);
    await_standing(&nodes.all[0], "open");
    await_value(&nodes.all[0], "of eu", "here");
    write(&nodes.all[0], &["SET", "of eu", "again"]);
    await_same_contents(&nodes.all[1], &nodes.all[0]);
    await_same_contents(&nodes.all[2], &nodes.all[0]);
}

#[test]
fn where_nobody_decides_nodes_that_have_all_lost_their_folders_refuse_what_was_in_them() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start(&stage, &[("eu", 2), ("us", 1)]);
    for number in 0..KEYS {
        write(&nodes.all[0], &["SET", &key(number), "here"]);
    }
    // Neither has what the other one lacks.
    nodes.all[0].crash();
    fs::remove_dir_all(folder_of(&stage, &nodes.all[0])).expect("a folder can be removed");
    lose(&stage, &mut nodes.all[1]);
    nodes.all[0].restart(&stage);
    for node in &nodes.all[..2] {
        eventually(&format!("{} has heard that it is known", node.name), PATIENCE, || {
            (node.status()?["unbegun"]["is_lost"] == true).then_some(())
        });
    }
    for node in &nodes.all[..2] {
        assert_eq!(read_all(node, "here"), (0, KEYS));
    }
}
