//! A full disk refuses writes, lets reads go on, and heals without a restart.

use std::path::Path;
use std::time::Duration;

use tests::demo::path_text;
use tests::nodes::{Node, Nodes};
use tests::patience::Deadline;
use tests::{Client, Dev, Reply, SmallDisk, Stage, binary, eventually, tell};

/// MiB of the small disk of one node.
const DISK_MIB: u32 = 24;

/// Bytes of a segment, so that the disk holds several.
const SEGMENT: &str = "2MiB";

/// Bytes of each value.
const VALUE_BYTES: usize = 16 * 1024;

/// More writes than the rest of the last segment can take.
const WRITES_MAX: usize = 1000;

const PATIENCE: Duration = Duration::from_secs(30);

/// Writes new keys until a write is refused; how many were acknowledged, and the refusal.
fn write_until_refused(client: &mut Client, value: &str) -> (usize, Reply) {
    for number in 0..WRITES_MAX {
        let reply = client.call(&["SET", &format!("key:{number}"), value]);
        if reply != Reply::ok() {
            return (number, reply);
        }
    }
    panic!("{WRITES_MAX} writes fit onto a full disk");
}

fn assert_all_there(client: &mut Client, count: usize, value: &str) {
    for number in 0..count {
        let found = client.get(&format!("key:{number}"));
        assert!(found.as_deref() == Some(value), "key:{number} of {count}");
    }
}

fn start(stage: &Stage, data: &Path, reserve: &str) -> Dev {
    let words = ["--data", path_text(data), "--fsync", "always", "--admin-port", "0"];
    let environment =
        [("ANTECEDE_STORAGE_SEGMENT", SEGMENT), ("ANTECEDE_STORAGE_RESERVE", reserve)];
    Dev::start_with(stage, &words, &environment)
}

#[test]
fn a_full_disk_refuses_writes_reads_go_on_and_it_heals() {
    let stage = Stage::shared();
    let Some(disk) = SmallDisk::mount(stage.path("disk"), DISK_MIB) else { return };
    let data = disk.path().join("data");
    let dev = start(&stage, &data, "0");
    let mut client = dev.client();
    let value = "v".repeat(VALUE_BYTES);
    client.set("before", "here");

    let ballast = disk.fill_but(0);
    let (count, refusal) = write_until_refused(&mut client, &value);
    assert!(refusal.is_refused_with("DISKFULL"), "{refusal:?} after {count} writes");
    assert!(0 < count, "the begun segment takes some writes");

    // Reads go on, also on new connections; writes stay refused, and say so at once.
    assert_eq!(client.get("before"), Some("here".to_owned()));
    assert_all_there(&mut dev.client(), count, &value);
    for _ in 0..10 {
        let reply = client.call(&["SET", "while", &value]);
        assert!(reply.is_refused_with("DISKFULL"), "{reply:?}");
    }

    std::fs::remove_file(&ballast).expect("ballast can be thrown off");
    eventually("writes are taken again", PATIENCE, || {
        (client.call(&["SET", "after", &value]) == Reply::ok()).then_some(())
    });
    assert_all_there(&mut client, count, &value);

    // What was acknowledged before, and what after, is on the disk.
    let mut dev = dev;
    dev.process.kill();
    drop(dev);
    let dev = start(&stage, &data, "0");
    let mut client = dev.client();
    assert_eq!(client.get("before"), Some("here".to_owned()));
    assert_eq!(client.get("after"), Some(value.clone()));
    assert_all_there(&mut client, count, &value);
}

#[test]
fn writes_stop_while_there_is_room_for_what_a_node_needs_to_go_on() {
    let stage = Stage::shared();
    let Some(disk) = SmallDisk::mount(stage.path("disk"), DISK_MIB) else { return };
    let dev = start(&stage, &disk.path().join("data"), "64MiB");
    let mut client = dev.client();
    let value = "v".repeat(VALUE_BYTES);
    client.set("before", "here");

    // A twentieth of this disk is 1.2 MiB; the log takes the rest in steps of its segments.
    let ballast = disk.fill_but(1 << 20);
    let (_, refusal) = write_until_refused(&mut client, &value);
    let Reply::Error(text) = &refusal else { panic!("{refusal:?}") };
    assert!(text.starts_with("DISKFULL the disk of node 1.1 has no room"), "{text}");
    assert!(0 < disk.free_bytes(), "the reserve is there");
    assert_eq!(client.get("before"), Some("here".to_owned()));

    std::fs::remove_file(&ballast).expect("ballast can be thrown off");
    eventually("writes are taken again", PATIENCE, || {
        (client.call(&["SET", "after", &value]) == Reply::ok()).then_some(())
    });
}

/// Starts three nodes, of which the second one has a small disk.
fn start_three(stage: &Stage, control: &str) -> Option<(SmallDisk, Nodes)> {
    let disk = SmallDisk::mount(stage.path("data").join("eu-2"), 2 * DISK_MIB)?;
    let environment = [("ANTECEDE_STORAGE_SEGMENT", SEGMENT)];
    let nodes = Nodes::start_in(stage, &[("eu", 3)], control, &environment);
    Some((disk, nodes))
}

/// Keys in many shards.
const KEYS: usize = 48;

fn key(number: usize) -> String {
    format!("key:{number}")
}

/// Tries to write every key once; the refusals.
fn write_all(node: &Node, value: &str) -> Vec<Reply> {
    let mut client = node.client();
    let replies = (0..KEYS).map(|number| client.call(&["SET", &key(number), value]));
    replies.filter(|reply| *reply != Reply::ok()).collect()
}

fn assert_read(node: &Node, value: &str) {
    let mut client = node.client();
    for number in 0..KEYS {
        assert_eq!(
            client.get_within(&key(number), PATIENCE).as_deref(),
            Some(value),
            "{} at {}",
            number,
            node.name
        );
    }
}

#[test]
fn a_chain_of_fixed_nodes_refuses_at_once_for_its_full_disk_and_heals() {
    let stage = Stage::shared();
    let Some((disk, nodes)) = start_three(&stage, "none") else { return };
    assert_eq!(write_all(&nodes.all[0], "before"), [], "all is well");

    let ballast = disk.fill_but(0);
    eventually("the chain knows of its full disk", PATIENCE, || {
        let refused = write_all(&nodes.all[0], "while");
        let is_named = |reply: &Reply| matches!(reply, Reply::Error(text) if text.starts_with("DISKFULL the disk of node 1.2"));
        (refused.len() == KEYS && refused.iter().all(is_named)).then_some(())
    });
    let status = binary::run(&stage, &["status", "--admin", &nodes.admins()]);
    assert_eq!(status.status, Some(1), "{status:?}");
    let told = format!("eu 1.2: the disk of {}", disk.path().display());
    assert!(status.answer.contains(&told), "{status:?}");
    for node in &nodes.all {
        let mut client = node.client();
        for number in 0..KEYS {
            let found = client.get(&key(number));
            assert!(found.is_some(), "reads go on at {}: {found:?}", node.name);
        }
    }

    std::fs::remove_file(&ballast).expect("ballast can be thrown off");
    eventually("writes are taken again", PATIENCE, || {
        write_all(&nodes.all[0], "after").is_empty().then_some(())
    });
    for node in &nodes.all {
        assert_read(node, "after");
    }
}

#[test]
fn managers_let_writes_go_on_without_a_node_whose_disk_is_full_and_take_it_back() {
    let stage = Stage::shared();
    let Some((disk, nodes)) = start_three(&stage, "embedded") else { return };
    let await_chains = |what: &str, count: usize| {
        for node in nodes.all.iter().filter(|node| node.name != "eu-2") {
            let what = format!("{what} at {}", node.name);
            eventually(&what, PATIENCE, || (node.shortest_chain() == Some(count)).then_some(()));
        }
    };
    await_chains("all serve", 3);
    assert_eq!(write_all(&nodes.all[0], "before"), [], "all is well");

    let ballast = disk.fill_but(1 << 20);
    let since = Deadline::after(PATIENCE);
    await_chains("the chains go on without the full one", 2);
    eventually("writes go on", PATIENCE, || {
        write_all(&nodes.all[1], "while").is_empty().then_some(())
    });
    tell(&format!("writes went on everywhere {:?} after a disk was full", since.elapsed()));
    for node in &nodes.all {
        assert_read(node, "while");
    }
    let status = binary::run(&stage, &["status", "--admin", &nodes.admins()]);
    assert_eq!(status.status, Some(1), "{status:?}");
    assert!(status.answer.contains("eu: node 1.2 has no room on the disk"), "{status:?}");
    assert!(status.answer.contains(path_text(disk.path())), "{status:?}");

    std::fs::remove_file(&ballast).expect("ballast can be thrown off");
    await_chains("it is taken back", 3);
    assert_eq!(write_all(&nodes.all[2], "after"), []);
    for node in &nodes.all {
        assert_read(node, "after");
    }
}
