//! A node starts on its own newest folder or an empty one, and on nothing else.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::binary::Ended;
use tests::demo::path_text;
use tests::nodes::{Node, Nodes};
use tests::{Dev, Stage, binary, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// Keys in many shards.
const KEYS: usize = 48;

fn key(number: usize) -> String {
    format!("key:{number}")
}

fn write_all(node: &Node, value: &str) {
    let mut client = node.client();
    for number in 0..KEYS {
        eventually(&format!("{} is written", key(number)), PATIENCE, || {
            (client.call(&["SET", &key(number), value]) == tests::Reply::ok()).then_some(())
        });
    }
}

fn assert_read(node: &Node, value: &str) {
    let mut client = node.client();
    for number in 0..KEYS {
        let found = client.get_within(&key(number), PATIENCE);
        assert_eq!(found.as_deref(), Some(value), "{} at {}", key(number), node.name);
    }
}

fn await_whole(nodes: &Nodes) {
    for node in &nodes.all {
        let what = format!("the chains of {} are whole", node.name);
        eventually(&what, PATIENCE, || (node.shortest_chain() == Some(3)).then_some(()));
    }
}

/// Copies a folder with everything in it.
pub(crate) fn copy(source: &Path, target: &Path) {
    fs::create_dir_all(target).expect("a folder can be made");
    for entry in fs::read_dir(source).expect("the folder can be read") {
        let path = entry.expect("it can be read").path();
        let name = target.join(path.file_name().expect("files have names"));
        if path.is_dir() {
            copy(&path, &name);
        } else {
            fs::copy(&path, &name).expect("a file can be copied");
        }
    }
}

/// Starts a node that must be refused, with these settings on top of its file.
fn refused(stage: &Stage, node: &Node, settings: &[&str]) -> Ended {
    let mut words = vec!["serve", "--config", path_text(node.file())];
    words.extend(settings.iter().flat_map(|setting| ["--set", *setting]));
    let ended = binary::run(stage, &words);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    ended
}

#[track_caller]
fn assert_says(ended: &Ended, words: &[&str]) {
    for word in words {
        assert!(ended.notes.contains(word), "does not say {word:?}: {ended:?}");
    }
}

#[test]
fn the_folder_of_another_deployment_or_node_is_refused() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start(&stage, &[("eu", 2)]);
    for node in &mut nodes.all {
        node.crash();
    }
    let other = format!("deployment.id={}", "ab".repeat(16));
    let ended = refused(&stage, &nodes.all[0], &[&other]);
    let told = format!("this is node 1.1 of deployment {}", "ab".repeat(16));
    assert_says(&ended, &["belongs to node 1.1 of deployment", &told]);
    let folder = format!("storage.folder={}", path_text(&stage.path("data").join("eu-2")));
    let ended = refused(&stage, &nodes.all[0], &[&folder]);
    let what_to_do = "use this node's own folder or an empty one";
    assert_says(&ended, &["belongs to node 1.2 of deployment", "this is node 1.1", what_to_do]);
}

/// The oldest segment of a log.
fn first_segment(data: &Path) -> PathBuf {
    let files = fs::read_dir(data.join("log")).expect("there is a log");
    let names = files.map(|file| file.expect("it can be read").path());
    let segments = names.filter(|path| path.extension().is_some_and(|end| end == "log"));
    segments.min().expect("there is a segment")
}

#[test]
fn a_log_with_a_damaged_middle_is_refused_with_its_place() {
    let stage = Stage::shared();
    let data = stage.path("data");
    let words = ["--data", path_text(&data), "--fsync", "always"];
    let mut dev = Dev::start(&stage, &words);
    let mut client = dev.client();
    for number in 0..KEYS {
        client.set(&key(number), "whole");
    }
    dev.process.kill();
    drop(dev);

    let segment = first_segment(&data);
    let bytes = fs::read(&segment).expect("the segment can be read");
    let place = bytes.windows(5).position(|bytes| bytes == b"whole").expect("a value is there");
    let file = fs::File::options().write(true).open(&segment).expect("the segment can be opened");
    file.write_all_at(b"W", place as u64).expect("a bit can flip");
    let ended = binary::run(&stage, &[&["dev", "--port", "0"], &words[..]].concat());
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let told = format!("{} is damaged at byte ", segment.display());
    let what_to_do = "or empty the folder and repair this node from its chain";
    assert_says(&ended, &[&told, "record", "this is no torn end", what_to_do]);
}

/// Flips a bit of each place at which a value lies in a file; how many there were.
fn damage(path: &Path, value: &[u8]) -> usize {
    let bytes = fs::read(path).expect("the file can be read");
    let file = fs::File::options().write(true).open(path).expect("the file can be opened");
    let found = bytes.windows(value.len()).enumerate().filter(|(_, bytes)| *bytes == value);
    let places: Vec<usize> = found.map(|(place, _)| place).collect();
    for place in &places {
        file.write_all_at(&[value[0] ^ 1], *place as u64).expect("a bit can flip");
    }
    places.len()
}

#[test]
fn a_node_with_a_damaged_disk_is_refused_and_then_filled_by_its_chains() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes);
    let long = "x".repeat(4096);
    let folder = stage.path("data").join("eu-2");
    for turn in ["checkpoint", "log"] {
        let value = format!("{turn} is whole {long}");
        write_all(&nodes.all[0], &value);
        let counted = || (0.0 < nodes.metric("antecede_log_cut_to")).then_some(());
        eventually("logs were cut behind checkpoints", PATIENCE, counted);
        let last = format!("{turn} was whole, too, {long}");
        write_all(&nodes.all[0], &last);
        nodes.all[1].crash();
        let part = folder.join(turn);
        let files = fs::read_dir(&part).expect("the folder is there");
        let files = files.map(|file| file.expect("it can be read").path());
        let places: usize = files
            .map(|file| [&value, &last].map(|value| damage(&file, &value.as_bytes()[..24])))
            .map(|[one, other]| one + other)
            .sum();
        assert!(0 < places, "nothing of the value lies in {}", part.display());
        let ended = refused(&stage, &nodes.all[1], &[]);
        assert_says(&ended, &[path_text(&part), "damaged"]);

        // The others go on, and what they acknowledge now must be there afterwards.
        let meanwhile = format!("{turn} was away {long}");
        write_all(&nodes.all[0], &meanwhile);
        fs::rename(&folder, stage.path("damaged").with_extension(turn)).expect("it can be moved");
        nodes.all[1].restart(&stage);
        nodes.all[1].await_ready(PATIENCE);
        await_whole(&nodes);
        assert_read(&nodes.all[1], &meanwhile);
        nodes.all[0].crash();
        assert_read(&nodes.all[1], &meanwhile);
        assert_read(&nodes.all[2], &meanwhile);
        nodes.all[0].restart(&stage);
        nodes.all[0].await_ready(PATIENCE);
        await_whole(&nodes);
    }
}

#[test]
fn an_old_copy_of_a_folder_is_refused_and_an_empty_one_is_filled() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes);
    write_all(&nodes.all[0], "old");
    let (folder, backup) = (stage.path("data").join("eu-2"), stage.path("backup"));
    nodes.all[1].crash();
    copy(&folder, &backup);
    nodes.all[1].restart(&stage);
    nodes.all[1].await_ready(PATIENCE);
    await_whole(&nodes);
    write_all(&nodes.all[0], "new");

    nodes.all[1].crash();
    fs::remove_dir_all(&folder).expect("a folder can be removed");
    copy(&backup, &folder);
    for _ in 0..2 {
        let ended = refused(&stage, &nodes.all[1], &[]);
        let told = format!("{} is an old copy: run ", folder.display());
        assert_says(&ended, &[&told, "or start with an empty folder"]);
    }

    // It is a member of the agreement, too: that it has lost its file must not keep it out.
    fs::remove_dir_all(&folder).expect("a folder can be removed");
    nodes.all[1].restart(&stage);
    nodes.all[1].await_ready(PATIENCE);
    await_whole(&nodes);
    assert_read(&nodes.all[1], "new");
    nodes.all[1].process.eventually("it is a member again", PATIENCE, |process| {
        process.notes().contains("a member of the agreement again").then_some(())
    });
    nodes.all[0].crash();
    write_all(&nodes.all[2], "with the new member");
    assert_read(&nodes.all[1], "with the new member");
}

#[test]
fn a_second_process_on_a_copied_folder_is_refused_and_the_first_one_goes_on() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes);
    write_all(&nodes.all[0], "here");
    let copied = stage.path("copied");
    copy(&stage.path("data").join("eu-2"), &copied);
    let folder = format!("storage.folder={}", path_text(&copied));
    let anywhere =
        ["client", "peer", "admin", "control"].map(|what| format!("listen.{what}=127.0.0.1:0"));
    let mut settings: Vec<&str> = anywhere.iter().map(String::as_str).collect();
    settings.push(&folder);
    let ended = refused(&stage, &nodes.all[1], &settings);
    assert_says(&ended, &["another process of node 1.2 runs", "stop it first", "remove the copy"]);
    nodes.assert_running();
    assert_read(&nodes.all[1], "here");
    write_all(&nodes.all[1], "and on");
}

/// Waits until a node says what its member of the agreement waits for.
fn await_waiting(node: &Node, words: &str) {
    eventually(&format!("{} waits: {words}", node.name), PATIENCE, || {
        let status = node.status()?;
        status["control"]["waits"].as_str()?.contains(words).then_some(())
    });
}

const AT_ONCE: [&str; 2] = ["--begin-at-once", "datacenter"];

#[test]
fn members_that_lost_their_folders_do_not_decide_with_those_that_are_left() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes);
    write_all(&nodes.all[0], "here");
    let crash_all = |nodes: &mut Nodes| nodes.all.iter_mut().for_each(Node::crash);
    let lose = |name: &str| {
        fs::remove_dir_all(stage.path("data").join(name)).expect("a folder can be removed");
    };

    // One lost its folder and another is away, so that only they may know what was decided.
    crash_all(&mut nodes);
    lose("eu-2");
    nodes.all[0].restart(&stage);
    nodes.all[1].restart(&stage);
    await_waiting(&nodes.all[1], "its file is lost: it joins anew once most of the others answer");
    let ended = binary::run(&stage, &["doctor", "--admin", &nodes.all[0].place.admin]);
    assert_eq!(ended.status, Some(1), "{ended:?}");
    assert!(ended.answer.contains("its member of the agreement has not begun"), "{ended:?}");
    let status = nodes.all[0].status().expect("it answers");
    assert_eq!(status["control"]["reachable"], false, "the two decide nothing: {status}");
    nodes.all[2].restart(&stage);
    for node in &mut nodes.all {
        node.await_ready(PATIENCE);
    }
    await_whole(&nodes);
    assert_read(&nodes.all[1], "here");

    // Only one folder is left: a person lets one of the others vote at once, and nothing is lost.
    write_all(&nodes.all[0], "and here");
    crash_all(&mut nodes);
    lose("eu-2");
    lose("eu-3");
    nodes.all[0].restart(&stage);
    nodes.all[1].restart_with(&stage, &AT_ONCE);
    for place in [0, 1] {
        nodes.all[place].await_ready(PATIENCE);
    }
    nodes.all[2].restart(&stage);
    nodes.all[2].await_ready(PATIENCE);
    await_whole(&nodes);
    for node in &nodes.all {
        assert_read(node, "and here");
    }
}

#[test]
fn a_node_keeps_its_data_from_an_agreement_that_was_begun_anew_without_it() {
    let stage = Stage::shared();
    let mut nodes = Nodes::start_managed(&stage, &[("eu", 3)]);
    await_whole(&nodes);
    write_all(&nodes.all[0], "here");
    for node in &mut nodes.all {
        node.crash();
    }
    for name in ["eu-2", "eu-3"] {
        fs::remove_dir_all(stage.path("data").join(name)).expect("a folder can be removed");
    }
    // Those that lost their folders wait for the survivor, unless a person says otherwise.
    for place in [1, 2] {
        nodes.all[place].restart(&stage);
    }
    for place in [1, 2] {
        let words = "begins once all its founders are there; node 1.1 at";
        await_waiting(&nodes.all[place], words);
        nodes.all[place].crash();
        nodes.all[place].restart_with(&stage, &AT_ONCE);
    }
    for place in [1, 2] {
        nodes.all[place].await_ready(PATIENCE);
    }
    let ended = refused(&stage, &nodes.all[0], &[]);
    let what_to_do = "start those first whose folders have the newest agreement";
    assert_says(&ended, &["knows no run of it: it was begun anew", what_to_do]);
}
