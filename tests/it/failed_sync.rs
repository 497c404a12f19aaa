//! A failed sync ends the process: nobody can tell afterwards what is on the disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::demo::path_text;
use tests::failing_sync::FailingSync;
use tests::nodes::{Node, Nodes};
use tests::{Dev, Process, Reply, Stage, eventually};

/// The exit status of a process whose disk has failed.
const DISK_FAILED: i32 = 3;

const PATIENCE: Duration = Duration::from_secs(30);

/// Keys in many shards.
const KEYS: usize = 48;

fn key(number: usize) -> String {
    format!("key:{number}")
}

/// The segment of a log that is written to: the newest one.
fn segment(data: &Path) -> PathBuf {
    let files = std::fs::read_dir(data.join("log")).expect("there is a log");
    let names = files.map(|file| file.expect("it can be read").path());
    let segments = names.filter(|path| path.extension().is_some_and(|end| end == "log"));
    segments.max().expect("there is a segment")
}

fn assert_ended(process: &mut Process, file: &Path) {
    let status = process.end(PATIENCE);
    let notes = process.notes();
    assert_eq!(status.code(), Some(DISK_FAILED), "{status}: {notes}");
    let wanted = format!("cannot sync the log at {}", file.display());
    assert!(notes.contains(&wanted), "{notes}");
    assert!(notes.contains("see to the disk, then start the node again"), "{notes}");
}

#[test]
fn a_failed_sync_ends_the_process_and_nothing_acknowledged_is_lost() {
    let stage = Stage::shared();
    let data = stage.path("data");
    let words = ["--data", path_text(&data), "--fsync", "always"];
    let mut dev = Dev::start(&stage, &words);
    dev.client().set("before", "here");

    let file = segment(&data);
    let Some(failing) = FailingSync::of(&dev.process, Some(&file)) else { return };
    let answer = dev.client().try_call(&["SET", "while", "doubtful"]);
    assert!(!matches!(answer, Ok(Reply::Simple(_))), "acknowledged without a sync: {answer:?}");
    assert_ended(&mut dev.process, &file);
    drop(failing);

    let dev = Dev::start(&stage, &words);
    assert_eq!(dev.client().get("before"), Some("here".to_owned()));
    dev.client().set("after", "here too");
}

/// Writes every key at a node, each again until it succeeds.
fn write_all(node: &Node, value: &str) {
    let mut client = node.client();
    for number in 0..KEYS {
        eventually(&format!("{} is written", key(number)), PATIENCE, || {
            match client.try_call(&["SET", &key(number), value]) {
                Ok(reply) => (reply == Reply::ok()).then_some(()),
                Err(_) => {
                    client = node.client();
                    None
                }
            }
        });
    }
}

fn await_whole(nodes: &Nodes) {
    for node in &nodes.all {
        let what = format!("the chains of {} are whole", node.name);
        eventually(&what, PATIENCE, || (node.shortest_chain() == Some(3)).then_some(()));
    }
}

#[test]
fn the_chain_goes_on_without_a_node_whose_disk_fails_and_takes_it_back() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes);
    write_all(&nodes.all[0], "before");

    // Its log goes from one file to the next meanwhile, so the whole disk fails.
    let Some(failing) = FailingSync::of(&nodes.all[1].process, None) else { return };
    write_all(&nodes.all[0], "without it");
    let status = nodes.all[1].process.end(PATIENCE);
    assert_eq!(status.code(), Some(DISK_FAILED), "{status}");
    drop(failing);

    nodes.all[1].restart(&stage);
    nodes.all[1].await_ready(PATIENCE);
    await_whole(&nodes);
    let mut client = nodes.all[1].client();
    for number in 0..KEYS {
        assert_eq!(
            client.get_within(&key(number), PATIENCE).as_deref(),
            Some("without it"),
            "{}",
            key(number)
        );
    }
    nodes.assert_running();
}
